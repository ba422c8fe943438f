/* rest.h - the REST API, its OpenAPI document, and server-sent events.

   Two tables: `properties` has what bodies, queries and answers consist of, `routes` has what there
   is to call. Requests are checked by them, and /docs-json is made of them, so it is always true.
   */

#ifndef FLEET_REST_H
#define FLEET_REST_H

#include "devices.h"
#include "fleet.h"
#include "page.h"

/* ---- tables ---- */

typedef struct {
    const char *of, *name;                    /* its schema; "?X": X is a query */
    const char *type;                         /* "string", "integer", "number", "boolean"; "#X": an
                                                 X; "[]TYPE": any number of TYPE */
    const char *format;                       /* of a string: "uuid", "date-time", or the words that
                                                 it may be, with "|" between them */
    const char *what, *example;               /* the example is a JSON value */
    long long   least, most;                  /* of a number; of a string's bytes; 0 and 0: any */
    bool        nullable, optional;
} property;

static const property properties[] = {
    { "Error", "error", "boolean", .what = "always true", .example = "true" },
    { "Error", "message", "string", .what = "what is wrong, and what to do about it",
      .example = "\"there is no such device; GET /vehicles has those that are known\"" },
    { "Error", "done", "boolean", .what = "of a command; false: it was not sent; null: whether it "
      "was done is not known", .example = "false", .nullable = true, .optional = true },

    { "Health", "name", "string", .what = "what this is", .example = "\"fleet\"" },
    { "Health", "version", "string", .what = "its version", .example = "\"" KA_VERSION "\"" },
    { "Health", "instance", "string", .format = "uuid", .what = "which of the instances answers",
      .example = "\"7f0c1f6e-3f0b-4b8e-9b1e-2f6f8f0d5a11\"" },
    { "Health", "redis", "string", .format = "none|up|away",
      .what = "away: devices are as they were last known", .example = "\"up\"" },
    { "Health", "devices", "#Devices", .what = "how many" },
    { "Health", "streams", "integer", .what = "subscribers of /events, on this instance",
      .example = "1", .most = MAX_STREAMS },
    { "Health", "uptime", "integer", .what = "seconds since it started", .example = "3600" },
    { "Health", "webhooks", "#Webhooks", .what = "null: no --webhook", .nullable = true },
    { "Devices", "online", "integer", .what = "connected, to any instance", .example = "20" },
    { "Devices", "known", "integer", .what = "connected now, or in the last 7 days",
      .example = "21" },
    { "Webhooks", "waiting", "integer", .what = "changes that are to be forwarded",
      .example = "0" },
    { "Webhooks", "sent", "integer", .what = "changes that were taken", .example = "1234" },
    { "Webhooks", "dropped", "integer", .what = "changes for which there was no room",
      .example = "0" },

    { "Vehicle", "id", "string", .format = "uuid", .what = "the device's ID",
      .example = "\"3f2504e0-4f89-41d3-9a0c-0305e82c3301\"" },
    { "Vehicle", "connected", "boolean", .what = "to any instance", .example = "true" },
    { "Vehicle", "instance", "string", .format = "uuid", .what = "the one it is connected to",
      .example = "\"7f0c1f6e-3f0b-4b8e-9b1e-2f6f8f0d5a11\"", .nullable = true },
    { "Vehicle", "position", "#Position", .what = "null: not known", .nullable = true },
    { "Vehicle", "charge", "integer", .what = "percent; null: not known", .example = "87",
      .most = 100, .nullable = true },
    { "Vehicle", "running", "boolean", .what = "false: resting; null: not known", .example = "true",
      .nullable = true },
    { "Vehicle", "reportEvery", "integer", .what = "seconds, as it was told; null: never told",
      .example = "60", .least = 1, .most = INT32_MAX, .nullable = true },
    { "Vehicle", "issues", "integer", .what = "how many issues it has reported", .example = "0" },
    { "Vehicle", "lastSeen", "string", .format = "date-time", .what = "when it was last heard of",
      .example = "\"2026-11-21T09:30:00.123456Z\"", .nullable = true },
    { "Position", "lat", "number", .what = "degrees north", .example = "52.520008", .least = -90,
      .most = 90 },
    { "Position", "lon", "number", .what = "degrees east", .example = "13.404954", .least = -180,
      .most = 180 },
    { "VehicleNow", "", .type = "#Vehicle" },
    { "VehicleNow", "reply", "string", .what = "the device's own words; null: it is not connected",
      .example = "\"FINE. I'M HERE 52.520008 13.404954, RUNNING AND CHARGED AT 87%.\"",
      .nullable = true },
    { "Vehicles", "total", "integer", .what = "how many there are, on all pages", .example = "1" },
    { "Vehicles", "vehicles", "[]#Vehicle", .what = "in the order of their IDs" },
    { "Vehicles", "next", "string", .what = "the path of the next page; null: this is the last one",
      .example = "\"/vehicles?after=3f2504e0-4f89-41d3-9a0c-0305e82c3301&limit=100\"",
      .nullable = true },
    { "?Vehicles", "limit", "integer", .what = "devices on a page, at most; default 100",
      .example = "100", .least = 1, .most = MAX_PAGE },
    { "?Vehicles", "after", "string", .format = "uuid",
      .what = "devices with a greater ID than this one, as `next` has it",
      .example = "\"00000000-0000-0000-0000-000000000000\"" },
    { "?Vehicles", "connected", "boolean",
      .what = "true: only devices that are connected; false: only the others", .example = "true" },

    { "Frequency", "seconds", "integer", .what = "seconds between two reports; 0: report no more",
      .example = "60", .most = 86400 },
    { "Running", "running", "boolean", .what = "true: run; false: rest", .example = "true" },
    { "Message", "message", "string",
      .what = "what to tell it, without control characters; the limit is in bytes of UTF-8",
      .example = "\"HOW'S IT GOING?\"", .least = 1, .most = MAX_COMMAND },
    { "Answer", "error", "boolean", .what = "always false", .example = "false" },
    { "Answer", "id", "string", .format = "uuid", .what = "the device's ID",
      .example = "\"3f2504e0-4f89-41d3-9a0c-0305e82c3301\"" },
    { "Answer", "command", "string", .what = "what it was told", .example = "\"HEY YOU, RUN!\"" },
    { "Answer", "reply", "string", .what = "what it said", .example = "\"DONE!\"" },
    { "Answer", "done", "boolean", .what = "false: it can't", .example = "true" },

    { "Change", "id", "string", .format = "uuid",
      .what = "the change's own: who has seen it before drops it",
      .example = "\"1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed\"" },
    { "Change", "at", "string", .format = "date-time", .what = "when it was made",
      .example = "\"2026-11-21T09:30:00.123456Z\"" },
    { "Change", "changes", "[]string",
      .format = "online|offline|position|charge|running|frequency|blob", .what = "what has changed",
      .example = "[\"position\", \"charge\"]" },
    { "Change", "vehicle", "#Vehicle", .what = "as it is then" },
    { "Change", "blob", "string", .what = "what it reported, if that is a change",
      .example = "\"engine: 130 degrees\"", .optional = true },
};

enum { PROPERTIES = sizeof properties / sizeof *properties, MAX_VALUES = 3 };

typedef struct route route;

typedef struct {
    fleet          *f;
    const ka_event *ev;
    const route    *route;
    device         *device;                   /* of the id in its path */
    struct {
        bool      given;
        long long number;
        char      text[MAX_COMMAND + 1];
    } values[MAX_VALUES];                     /* of route->takes, in its order */
} request;

static void serve_health(request *q);
static void serve_docs(request *q);
static void serve_docs_json(request *q);
static void serve_events(request *q);
static void serve_vehicles(request *q);
static void serve_vehicle(request *q);
static void serve_fetch_info(request *q);
static void serve_frequency(request *q);
static void serve_turn_on(request *q);
static void serve_turn_off(request *q);
static void serve_turn_on_or_off(request *q);
static void serve_disconnect(request *q);
static void serve_command(request *q);

struct route {
    const char *method, *path;                /* {id}: a vehicle's, and then 404 is possible */
    const char *name, *summary, *more;
    const char *takes, *gives;                /* schemas: query or body, or NULL; the answer */
    const char *type;                         /* which is JSON, or this */
    bool        commands;                     /* waits for a device; needs a token, or loopback */
    bool        limited;                      /* takes so many at once; then 503 */
    void      (*serve)(request *q);
};

static const route routes[] = {
    { "GET", "/", "health", "The state of the server and of the fleet",
      .more = "Of the instance that answers, if there are several.", .gives = "Health",
      .serve = serve_health },
    { "GET", "/health", "healthCheck", "The same", .gives = "Health", .serve = serve_health },
    { "GET", "/docs", "docs", "This API, as a page", .more = "With a live map of the devices.",
      .type = "text/html; charset=utf-8", .serve = serve_docs },
    { "GET", "/docs-json", "docsJson", "This API, as an OpenAPI 3.1 document",
      .type = "application/json", .serve = serve_docs_json },
    { "GET", "/events", "events", "Every change, as it happens",
      .more = "Server-sent events: `hello` with the instance, once; then `change`, whose data is a "
              "Change.",
      .type = "text/event-stream", .limited = true, .serve = serve_events },
    { "GET", "/vehicles", "vehicles", "The devices that are known",
      .more = "In the order of their IDs, a page at a time.", .takes = "?Vehicles",
      .gives = "Vehicles", .serve = serve_vehicles },
    { "GET", "/vehicles/{id}", "vehicle", "A device, as it is known", .gives = "Vehicle",
      .serve = serve_vehicle },
    { "GET", "/vehicles/{id}/status", "status", "The same", .gives = "Vehicle",
      .serve = serve_vehicle },
    { "GET", "/vehicles/{id}/fetch-info", "fetchInfo", "A device, as it says that it is now",
      .more = "If the device is not connected: as it was last known.", .gives = "VehicleNow",
      .commands = true, .serve = serve_fetch_info },
    { "POST", "/vehicles/{id}/frequency", "frequency", "Set how often the device reports",
      .takes = "Frequency", .gives = "Answer", .commands = true, .serve = serve_frequency },
    { "POST", "/vehicles/{id}/turnOn", "turnOn", "Make the device run", .gives = "Answer",
      .commands = true, .serve = serve_turn_on },
    { "POST", "/vehicles/{id}/turnOff", "turnOff", "Make the device rest", .gives = "Answer",
      .commands = true, .serve = serve_turn_off },
    { "POST", "/vehicles/{id}/turnOnOrOff", "turnOnOrOff", "Make the device run or rest",
      .takes = "Running", .gives = "Answer", .commands = true, .serve = serve_turn_on_or_off },
    { "POST", "/vehicles/{id}/disconnect", "disconnect", "Make the device disconnect",
      .gives = "Answer", .commands = true, .serve = serve_disconnect },
    { "POST", "/vehicles/{id}/command", "command", "Send the device any command",
      .takes = "Message", .gives = "Answer", .commands = true, .serve = serve_command },
};

enum { ROUTES = sizeof routes / sizeof *routes };

static const struct { int status; const char *text; } rest_statuses[] = {
    { 400, "The request can't be understood" },
    { 401, "The token is missing, or wrong" },
    { 403, "A page of another site asks, or the host is not the server's, or a token is needed" },
    { 404, "There is no such device" },
    { 409, "The device is not connected" },
    { 502, "The device's connection ended before it replied" },
    { 503, "Too much is under way, or Redis is down; try again" },
    { 504, "The device did not reply in time" },
};

/* The k-th property of a schema; NULL: it has no more. */
static const property *property_at(const char *of, size_t k)
{
    for (size_t i = 0; of && i < PROPERTIES; i++)
        if (strcmp(properties[i].of, of) == 0 && k-- == 0) return &properties[i];
    return NULL;
}

/* ---- answers ---- */

/* What is answered is what it says it is, and for pages of this site only. */
#define SITE_FIELDS                                                                               \
    "X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n"

enum {
    REST_TEXT = KA_MAILBOX / 4 - 1024,
    REST_FIELDS = 1024,
    REST_BEAT_MS = 15000,
    MIN_TOKEN = 16,
    MAX_TOKEN = 512
};

struct rest {
    uint64_t streams[MAX_STREAMS];            /* connections of the subscribers of /events */
    size_t   streams_n, page_n;
    int64_t  beat_ms;
    char    *page, page_fields[REST_FIELDS];
    char     text[REST_TEXT], event[MAX_EVENT + 64];
};

static ka_json_out rest_begin(fleet *f)
{
    ka_json_out w = { .p = f->rest->text, .cap = REST_TEXT };
    ka_json_open(&w, NULL, KA_OBJECT);
    return w;
}

static void rest_end(fleet *f, const ka_event *ev, int status, const char *fields, ka_json_out *w)
{
    char all[REST_FIELDS];
    ka_json_close(w);
    KA_ASSERT(!w->error);
    snprintf(all, sizeof all,
             "Content-Type: application/json\r\n" SITE_FIELDS "%s", fields);
    ka_reply(f->s, ev, status, all, w->p, w->n);
}

/* Answer with an error. Returns false, for those who say so that they have refused. */
static bool refuse(fleet *f, const ka_event *ev, int status, const char *fields,
                   const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    ka_json_out w = rest_begin(f);
    ka_json_put_bool(&w, "error", true);
    ka_json_put(&w, "message", str(message));
    rest_end(f, ev, status, fields, &w);
    return false;
}

/* What somebody sent, for a message: cut, and what isn't plain replaced. */
static const char *quoted(char room[48], ka_str s)
{
    snprintf(room, 48, "%.*s%s", s.n < 40 ? (int)s.n : 40, s.n ? s.p : "", s.n > 40 ? "..." : "");
    for (char *p = room; *p; p++)
        if (*p < ' ' || *p > '~') *p = '?';
    return room;
}

/* ---- who may call ---- */

static bool token_is_right(const fleet *f, ka_str authorization)
{
    static const char scheme[] = "bearer ";       /* in any case */
    enum { SCHEME = sizeof scheme - 1 };
    unsigned char digest[32];
    size_t at = 0;
    while (at < SCHEME && at < authorization.n && (authorization.p[at] | ' ') == scheme[at]) at++;
    if (at < SCHEME) return false;
    while (at < authorization.n && authorization.p[at] == ' ') at++;
    ka_sha256(digest, authorization.p + at, authorization.n - at);
    return ka_eq_ct(digest, f->token, sizeof digest);
}

/* Whoever shows the token may call all. Without the token:
   1. Commands are served on loopback only, and only if the server has no token.
   2. What a browser sends for a page of another site is refused. Reads are, too: a page must not
      learn where vehicles are.
   3. Every request's host is looked at if --host was given, or if the server is on loopback and
      has no token: then only this machine's own names lead to it. */
static bool may_call(const request *q)
{
    fleet *f = q->f;
    bool commands = q->route->commands, alone = f->loopback && !f->has_token, given = false;
    bool checked = f->hosts || alone;
    int how = (checked ? KA_HOST_ALWAYS : 0) | (commands ? 0 : KA_LINKS);
    if (f->has_token) {
        ka_str authorization;
        given = ka_field(q->ev->fields, "authorization", &authorization) == KA_OK;
        if (given && token_is_right(f, authorization)) return true;
    }
    if (f->has_token && commands) {
        if (given)
            refuse(f, q->ev, 401,
                   "WWW-Authenticate: Bearer realm=\"fleet\", error=\"invalid_token\"\r\n",
                   "that is not the token; it is in the server's --token-file");
        else
            refuse(f, q->ev, 401, "WWW-Authenticate: Bearer realm=\"fleet\"\r\n",
                   "this needs the field Authorization: Bearer TOKEN, once; the token is in the "
                   "server's --token-file");
    } else if (commands && !f->loopback) {
        refuse(f, q->ev, 403, "",
               "commands need a token when others can reach the server: start it with --token-file "
               "FILE, or with --ip 127.0.0.1");
    } else if (ka_cross_site(q->ev, checked ? f->hosts : "*", how)) {
        refuse(f, q->ev, 403, "", "this is not for pages of other sites, or under other hosts: "
               "call it as 127.0.0.1 or localhost; or start the server with --host NAME, "
               "or with --token-file FILE");
    } else return true;
    return false;
}

/* ---- what requests bring ---- */

/* U+0000 to U+001F, and U+007F to U+009F. */
static bool has_controls(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c < ' ' || c == 0x7f || (c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] < 0xa0))
            return true;
    }
    return false;
}

static bool is_type(const property *p, const char *type) { return strcmp(p->type, type) == 0; }

static bool is_uuid(const property *p) { return p->format && strcmp(p->format, "uuid") == 0; }

/* Take q->values[k].text, of n bytes, for p; n < 0: the text is too long, or of another kind.
   False: refused. */
static bool take_value(request *q, const property *p, size_t k, ptrdiff_t n)
{
    char *text = q->values[k].text, id[KA_UUID_TEXT + 1];
    size_t length = n < 0 ? 0 : (size_t)n;
    text[length] = 0;
    q->values[k].given = true;
    bool plain = n >= 0 && !has_controls(text, length) && ka_is_utf8((ka_str){ text, length });
    if (is_type(p, "integer")) {
        if (plain && ka_number(text, p->least, p->most, &q->values[k].number)) return true;
        refuse(q->f, q->ev, 400, "", "%s has to be a whole number from %lld to %lld", p->name,
               p->least, p->most);
    } else if (is_type(p, "boolean")) {
        q->values[k].number = plain && strcmp(text, "true") == 0;
        if (plain && (q->values[k].number || strcmp(text, "false") == 0)) return true;
        refuse(q->f, q->ev, 400, "", "%s has to be true or false", p->name);
    } else if (is_uuid(p)) {
        if (plain && ka_uuid_read(id, (ka_str){ text, length }) == KA_OK) {
            memcpy(text, id, sizeof id);
            return true;
        }
        refuse(q->f, q->ev, 400, "", "%s has to be a UUID, such as %s", p->name, p->example);
    } else {
        if (plain && n >= p->least) return true;
        refuse(q->f, q->ev, 400, "",
               "%s has to be a text of %lld to %lld bytes, without control characters", p->name,
               p->least, p->most);
    }
    return false;
}

static bool read_query(request *q, ka_str query)
{
    char name[64], room[48];
    ka_str raw, value;
    for (int r; (r = ka_form_next(&query, &raw, &value)) != KA_ENOTFOUND; ) {
        const property *p = NULL;
        size_t k = 0;
        ptrdiff_t n = r < 0 ? r : ka_percent_decode(name, sizeof name, raw);
        while (n >= 0 && (p = property_at(q->route->takes, k)) != NULL &&
               !(strlen(p->name) == (size_t)n && memcmp(p->name, name, (size_t)n) == 0))
            k++;
        if (r < 0 || n == KA_ESYNTAX)
            return refuse(q->f, q->ev, 400, "",
                          "behind the question mark NAME=VALUE&... is needed, percent-encoded");
        if (!p || *q->route->takes != '?')
            return refuse(q->f, q->ev, 400, "",
                          "there is no parameter %s here; GET /docs shows what there is",
                          quoted(room, raw));
        if (q->values[k].given)
            return refuse(q->f, q->ev, 400, "", "%s is there more than once", p->name);
        if (!take_value(q, p, k, ka_percent_decode(q->values[k].text, MAX_COMMAND, value)))
            return false;
    }
    return true;
}

/* All members of the body that the route doesn't take. False: refused, and they are named. */
static bool no_others(request *q, const ka_json *body)
{
    char others[512] = "", room[48];
    ka_json rest = *body, name, value;
    while (ka_json_next(&rest, &name, &value)) {
        size_t k = 0, n = strlen(others);
        const property *p;
        while ((p = property_at(q->route->takes, k)) != NULL && !ka_json_is(&name, p->name)) k++;
        if (!p)
            snprintf(others + n, sizeof others - n, "%s%s", n ? ", " : "", quoted(room, name.raw));
    }
    if (!*others) return true;
    const property *p = property_at(q->route->takes, 0);
    if (p)
        refuse(q->f, q->ev, 400, "", "the body has to have %s and nothing else, but has %s",
               p->name, others);
    else refuse(q->f, q->ev, 400, "", "the body has to be empty, or {}, but has %s", others);
    return false;
}

/* Write the text of a value in JSON. Returns its bytes; or -1: the value is not of p's kind, or has
   more than MAX_COMMAND bytes. */
static ptrdiff_t value_text(const property *p, const ka_json *v, char *out)
{
    bool number_fits = is_type(p, "integer") && v->kind == KA_NUMBER;
    bool bool_fits = is_type(p, "boolean") && (v->kind == KA_TRUE || v->kind == KA_FALSE);
    if (is_type(p, "string"))
        return v->kind == KA_STRING ? ka_json_string(out, MAX_COMMAND, v) : -1;
    if ((!number_fits && !bool_fits) || v->raw.n > MAX_COMMAND) return -1;
    memcpy(out, v->raw.p, v->raw.n);
    return (ptrdiff_t)v->raw.n;
}

static bool read_body(request *q)
{
    ka_json body, value;
    const property *p = property_at(q->route->takes, 0);
    if (!p && q->ev->body.n == 0) return true;
    if (ka_json_read(&body, q->ev->body) < 0 || body.kind != KA_OBJECT || body.python) {
        if (p)
            refuse(q->f, q->ev, 400, "", "the body has to be a JSON object, such as {\"%s\": %s}",
                   p->name, p->example);
        else refuse(q->f, q->ev, 400, "", "the body has to be empty, or {}");
        return false;
    }
    if (!no_others(q, &body)) return false;
    for (size_t k = 0; (p = property_at(q->route->takes, k)) != NULL; k++) {
        int r = ka_json_find(&body, p->name, &value);
        if (r < 0)
            return refuse(q->f, q->ev, 400, "",
                          r == KA_EINVAL ? "%s is there more than once" : "%s is missing", p->name);
        if (!take_value(q, p, k, value_text(p, &value, q->values[k].text))) return false;
    }
    return true;
}

/* ---- paths ---- */

static bool find_device(request *q, ka_str raw)
{
    char id[KA_UUID_TEXT + 1], text[KA_UUID_TEXT];
    ptrdiff_t n = ka_percent_decode(text, sizeof text, raw);
    if (n < 0 || ka_uuid_read(id, (ka_str){ text, (size_t)n }) < 0)
        return refuse(q->f, q->ev, 400, "", "the id in the path has to be a UUID; GET /vehicles "
                      "has those that are known");
    q->device = device_find(q->f, id);
    if (!q->device)
        refuse(q->f, q->ev, 404, "",
               "there is no such device; GET /vehicles has those that are known");
    return q->device != NULL;
}

static void rest_refused(fleet *f, const ka_event *ev)
{
    switch (ev->status) {
    case 408: refuse(f, ev, 408, "", "the request did not come in time; send it in one go"); break;
    case 413: refuse(f, ev, 413, "", "the body is over %d bytes; send less", KA_MAX_BODY); break;
    case 414: refuse(f, ev, 414, "", "the path is too long; GET /docs shows what there is"); break;
    case 431:
        refuse(f, ev, 431, "", "the header fields are over %d bytes; send fewer", KA_MAX_HEAD);
        break;
    case 503: refuse(f, ev, 503, "", "the server is out of memory; try again"); break;
    default:
        refuse(f, ev, ev->status, "",
               "that is no request that this server takes; it speaks HTTP/1.1, see GET /docs");
        break;
    }
}

static void rest_request(fleet *f, const ka_event *ev)
{
    request q = { .f = f, .ev = ev };
    ka_str query, id = { NULL, 0 }, path = ka_path(ev->target, &query);
    char room[256];
    bool get = ka_is(ev->method, "GET") || ka_is(ev->method, "HEAD"), gets = false, posts = false;
    if (ka_percent_decode(room, sizeof room, path) == KA_ESYNTAX) {
        refuse(f, ev, 400, "",
               "in the path there is a percent sign without two hex digits behind it");
        return;
    }
    for (size_t i = 0; i < ROUTES; i++) {
        if (!ka_is(path, "*") && ka_path_fits(path, routes[i].path, &id) < 0) continue;
        bool of_get = strcmp(routes[i].method, "GET") == 0;
        *(of_get ? &gets : &posts) = true;
        if (get ? of_get : ka_is(ev->method, routes[i].method)) q.route = &routes[i];
    }
    const char *allow = "Allow: POST, OPTIONS\r\n";
    if (gets)
        allow = posts ? "Allow: GET, HEAD, POST, OPTIONS\r\n" : "Allow: GET, HEAD, OPTIONS\r\n";
    if (!gets && !posts)
        refuse(f, ev, 404, "", "there is no such path; GET /docs shows what there is");
    else if (ka_is(ev->method, "OPTIONS")) ka_reply(f->s, ev, 204, allow, NULL, 0);
    else if (!q.route)
        refuse(f, ev, 405, allow, "this path does not have that method; %.*s",
               (int)strlen(allow) - 2, allow);
    else if (may_call(&q) && read_query(&q, query) && (get || read_body(&q)) &&
             (!id.p || find_device(&q, id)))
        q.route->serve(&q);
}

/* ---- what can be read ---- */

static void serve_health(request *q)
{
    fleet *f = q->f;
    ka_json_out w = rest_begin(f);
    ka_json_put(&w, "name", str("fleet"));
    ka_json_put(&w, "version", str(KA_VERSION));
    ka_json_put(&w, "instance", str(f->id));
    ka_json_put(&w, "redis", str(share_text(f)));
    ka_json_open(&w, "devices", KA_OBJECT);
    ka_json_put_integer(&w, "online", (int64_t)f->online_n);
    ka_json_put_integer(&w, "known", (int64_t)f->devices_n);
    ka_json_close(&w);
    ka_json_put_integer(&w, "streams", (int64_t)f->rest->streams_n);
    ka_json_put_integer(&w, "uptime", (q->ev->now_ms - f->started_ms) / 1000);
    hooks_put(&w, "webhooks", f);
    rest_end(f, q->ev, 200, "", &w);
}

static void serve_docs(request *q)
{
    struct rest *r = q->f->rest;
    ka_reply(q->f->s, q->ev, 200, r->page_fields, r->page, r->page_n);
}

enum { LIMIT, AFTER, CONNECTED };             /* of ?Vehicles */

static void serve_vehicles(request *q)
{
    fleet *f = q->f;
    bool filter = q->values[CONNECTED].given, online = q->values[CONNECTED].number;
    long long limit = q->values[LIMIT].given ? q->values[LIMIT].number : 100, n = 0;
    const device *last = NULL;
    bool more = false;
    ka_json_out w = rest_begin(f);
    size_t total = online ? f->online_n : f->devices_n - f->online_n;
    ka_json_put_integer(&w, "total", (int64_t)(filter ? total : f->devices_n));
    ka_json_open(&w, "vehicles", KA_ARRAY);
    for (size_t i = q->values[AFTER].given ? device_after(f, q->values[AFTER].text) : 0;
         i < f->devices_n && !more; i++) {
        if (filter && f->devices[i]->online != online) continue;
        if ((more = n++ == limit)) break;
        last = f->devices[i];
        device_put(&w, NULL, last);
    }
    ka_json_close(&w);
    char next[128];
    const char *connected = online ? "&connected=true" : "&connected=false";
    if (more)
        snprintf(next, sizeof next, "/vehicles?after=%s&limit=%lld%s", last->id, limit,
                 filter ? connected : "");
    ka_json_put(&w, "next", more ? str(next) : (ka_str){ NULL, 0 });
    rest_end(f, q->ev, 200, "", &w);
}

/* A vehicle; the reply's text may be NULL. Without `now`, there is none. */
static void put_vehicle(fleet *f, const ka_event *ev, const device *d, bool now, ka_str reply)
{
    ka_json_out w = rest_begin(f);
    device_members(&w, d);
    if (now) ka_json_put(&w, "reply", reply);
    rest_end(f, ev, 200, "", &w);
}

static void serve_vehicle(request *q)
{
    put_vehicle(q->f, q->ev, q->device, false, (ka_str){ NULL, 0 });
}

/* ---- commands ---- */

static const char *why_refused(int status)
{
    switch (status) {
    case 409: return "the device is not connected; GET /events tells when it is again";
    case 502: return "the device's connection ended before it replied; whether it did what it was "
                     "told is not known";
    case 504: return "the device did not reply in time (--timeout); whether it did what it was "
                     "told is not known";
    case CALL_UNSENT:
              return "the device has not replied to the commands before this one; try again";
    default:  return "too many commands wait for replies, or the device is with another instance "
                     "and Redis is down; try again";
    }
}

/* Its member done tells programs whether they may try again: false, it was not sent; null, it may
   have been done. */
static void refuse_call(fleet *f, const ka_event *ev, int status)
{
    ka_json_out w = rest_begin(f);
    ka_json_put_bool(&w, "error", true);
    ka_json_put(&w, "message", str(why_refused(status)));
    if (status == 502 || status == 504) put_null(&w, "done");
    else ka_json_put_bool(&w, "done", false);
    if (status == CALL_UNSENT) status = 503;
    rest_end(f, ev, status, status == 503 ? "Retry-After: 1\r\n" : "", &w);
}

static void command(request *q, const char *message)
{
    int status = call_start(q->f, q->device, message, q->ev, (int)(q->route - routes));
    if (status) refuse_call(q->f, q->ev, status);
}

static void serve_fetch_info(request *q)
{
    int status = call_start(q->f, q->device, "HOW'S IT GOING?", q->ev, (int)(q->route - routes));
    if (status == 409) put_vehicle(q->f, q->ev, q->device, true, (ka_str){ NULL, 0 });
    else if (status) refuse_call(q->f, q->ev, status);
}

static void rest_called(fleet *f, const call *c, int status, ka_str reply)
{
    const device *d = device_find(f, c->device);
    bool fetch = routes[c->route].serve == serve_fetch_info;
    if (fetch && d && (status == 200 || status == 409 || status == 502)) {
        put_vehicle(f, &c->request, d, true, status == 200 ? reply : (ka_str){ NULL, 0 });
    } else if (status != 200 || fetch) {
        refuse_call(f, &c->request, status == 200 ? 409 : status);
    } else {
        ka_json_out w = rest_begin(f);
        ka_json_put_bool(&w, "error", false);
        ka_json_put(&w, "id", str(c->device));
        ka_json_put(&w, "command", str(c->message));
        ka_json_put(&w, "reply", reply);
        ka_json_put_bool(&w, "done", !ka_is(reply, "I CAN'T, SORRY."));
        rest_end(f, &c->request, 200, "", &w);
    }
}

static void serve_frequency(request *q)
{
    char message[MAX_COMMAND + 1];
    snprintf(message, sizeof message, "KEEP ME POSTED EVERY %lld SECONDS.", q->values[0].number);
    command(q, message);
}

static void serve_turn_on(request *q) { command(q, "HEY YOU, RUN!"); }
static void serve_turn_off(request *q) { command(q, "HEY YOU, REST!"); }
static void serve_turn_on_or_off(request *q)
{
    command(q, q->values[0].number ? "HEY YOU, RUN!" : "HEY YOU, REST!");
}
static void serve_disconnect(request *q) { command(q, "GOTTA GO."); }
static void serve_command(request *q) { command(q, q->values[0].text); }

/* ---- the OpenAPI document ---- */

static void put_json(ka_json_out *w, const char *name, const char *text)
{
    ka_json v;
    ka_json_read(&v, str(text));
    ka_json_put_value(w, name, &v);
}

static void put_reference(ka_json_out *w, const char *schema)
{
    char path[64];
    snprintf(path, sizeof path, "#/components/schemas/%s", schema);
    ka_json_put(w, "$ref", str(path));
}

static void put_words(ka_json_out *w, const char *words)
{
    ka_json_open(w, "enum", KA_ARRAY);
    for (size_t n; *words; words += n + (words[n] == '|')) {
        n = strcspn(words, "|");
        ka_json_put(w, NULL, (ka_str){ words, n });
    }
    ka_json_close(w);
}

/* The members of a schema of this type. */
static void put_type(ka_json_out *w, const property *p, const char *type)
{
    if (strncmp(type, "[]", 2) == 0) {
        ka_json_put(w, "type", str("array"));
        ka_json_open(w, "items", KA_OBJECT);
        put_type(w, p, type + 2);
        ka_json_close(w);
    } else if (*type == '#' && p->nullable) {
        ka_json_open(w, "anyOf", KA_ARRAY);
        put_json(w, NULL, "{\"type\": \"null\"}");
        ka_json_open(w, NULL, KA_OBJECT);
        put_reference(w, type + 1);
        ka_json_close(w);
        ka_json_close(w);
    } else if (*type == '#') {
        put_reference(w, type + 1);
    } else {
        bool text = strcmp(type, "string") == 0;
        if (p->nullable) ka_json_open(w, "type", KA_ARRAY), ka_json_put(w, NULL, str("null"));
        ka_json_put(w, p->nullable ? NULL : "type", str(type));
        if (p->nullable) ka_json_close(w);
        if (p->format && strchr(p->format, '|')) put_words(w, p->format);
        else if (p->format) ka_json_put(w, "format", str(p->format));
        if (p->least || p->most || strcmp(type, "integer") == 0)
            ka_json_put_integer(w, text ? "minLength" : "minimum", p->least);
        if (p->most) ka_json_put_integer(w, text ? "maxLength" : "maximum", p->most);
    }
}

static void put_property(ka_json_out *w, const char *name, const property *p)
{
    ka_json_open(w, name, KA_OBJECT);
    put_type(w, p, p->type);
    if (p->what) ka_json_put(w, "description", str(p->what));
    if (p->example) {
        ka_json_open(w, "examples", KA_ARRAY);
        put_json(w, NULL, p->example);
        ka_json_close(w);
    }
    ka_json_close(w);
}

/* A schema's own properties; one without a name is another schema, whose properties it has too. */
static void put_schema(ka_json_out *w, const char *of)
{
    const property *p = property_at(of, 0);
    bool more = !*p->name;
    ka_json_open(w, of, KA_OBJECT);
    if (more) {
        ka_json_open(w, "allOf", KA_ARRAY);
        put_property(w, NULL, p);
        ka_json_open(w, NULL, KA_OBJECT);
    }
    ka_json_put(w, "type", str("object"));
    ka_json_open(w, "required", KA_ARRAY);
    for (size_t k = more; (p = property_at(of, k)) != NULL; k++)
        if (!p->optional) ka_json_put(w, NULL, str(p->name));
    ka_json_close(w);
    ka_json_open(w, "properties", KA_OBJECT);
    for (size_t k = more; (p = property_at(of, k)) != NULL; k++) put_property(w, p->name, p);
    ka_json_close(w);
    if (more) ka_json_close(w), ka_json_close(w);
    ka_json_close(w);
}

static void put_parameter(ka_json_out *w, const property *p, const char *name, const char *in)
{
    ka_json_open(w, NULL, KA_OBJECT);
    ka_json_put(w, "name", str(name));
    ka_json_put(w, "in", str(in));
    ka_json_put_bool(w, "required", *in == 'p');
    ka_json_put(w, "description", str(p->what));
    put_json(w, "example", p->example);
    ka_json_open(w, "schema", KA_OBJECT);
    put_type(w, p, p->type);
    ka_json_close(w);
    ka_json_close(w);
}

/* "content": a schema by its name, or a text of any kind. */
static void put_content(ka_json_out *w, const char *type, const char *schema)
{
    ka_json_open(w, "content", KA_OBJECT);
    ka_json_open(w, type, KA_OBJECT);
    ka_json_open(w, "schema", KA_OBJECT);
    if (schema) put_reference(w, schema);
    else ka_json_put(w, "type", str(strcmp(type, "application/json") == 0 ? "object" : "string"));
    ka_json_close(w);
    ka_json_close(w);
    ka_json_close(w);
}

static void put_response(ka_json_out *w, int status, const char *what, const char *type,
                         const char *schema)
{
    char name[16];
    snprintf(name, sizeof name, "%d", status);
    ka_json_open(w, name, KA_OBJECT);
    ka_json_put(w, "description", str(what));
    put_content(w, type ? type : "application/json", schema);
    ka_json_close(w);
}

static bool has_status(const fleet *f, const route *r, int status)
{
    if (status == 400) return true;
    if (status == 401 || status == 403) return (status == 401) == (r->commands && f->has_token);
    if (status == 404) return strchr(r->path, '{') != NULL;
    if (status == 409 || status == 502) return strcmp(r->method, "POST") == 0;
    return r->commands || (status == 503 && r->limited);
}

static void put_security(ka_json_out *w)
{
    ka_json_open(w, "security", KA_ARRAY);
    ka_json_open(w, NULL, KA_OBJECT);
    ka_json_open(w, "bearerAuth", KA_ARRAY);
    ka_json_close(w);
    ka_json_close(w);
    ka_json_close(w);
}

static void put_operation(ka_json_out *w, const fleet *f, const route *r)
{
    const property *p;
    bool posts = strcmp(r->method, "POST") == 0;
    ka_json_open(w, posts ? "post" : "get", KA_OBJECT);
    ka_json_put(w, "operationId", str(r->name));
    ka_json_put(w, "summary", str(r->summary));
    if (r->more) ka_json_put(w, "description", str(r->more));
    ka_json_open(w, "tags", KA_ARRAY);
    const char *tag = strncmp(r->path, "/vehicles", 9) == 0 ? "Devices" : "Server";
    ka_json_put(w, NULL, str(r->commands ? "Commands" : tag));
    ka_json_close(w);
    if (r->commands && f->has_token) put_security(w);
    ka_json_open(w, "parameters", KA_ARRAY);
    if (strchr(r->path, '{')) put_parameter(w, property_at("Vehicle", 0), "id", "path");
    for (size_t k = 0; !posts && (p = property_at(r->takes, k)) != NULL; k++)
        put_parameter(w, p, p->name, "query");
    ka_json_close(w);
    if (posts && r->takes) {
        ka_json_open(w, "requestBody", KA_OBJECT);
        ka_json_put_bool(w, "required", true);
        put_content(w, "application/json", r->takes);
        ka_json_close(w);
    }
    ka_json_open(w, "responses", KA_OBJECT);
    bool replies = r->gives && strcmp(r->gives, "Answer") == 0;
    put_response(w, 200, replies ? "The device has replied" : r->summary, r->type, r->gives);
    for (size_t i = 0; i < sizeof rest_statuses / sizeof *rest_statuses; i++)
        if (has_status(f, r, rest_statuses[i].status))
            put_response(w, rest_statuses[i].status, rest_statuses[i].text, NULL, "Error");
    ka_json_close(w);
    ka_json_close(w);
}

static void put_components(ka_json_out *w)
{
    ka_json_open(w, "components", KA_OBJECT);
    ka_json_open(w, "securitySchemes", KA_OBJECT);
    ka_json_open(w, "bearerAuth", KA_OBJECT);
    ka_json_put(w, "type", str("http"));
    ka_json_put(w, "scheme", str("bearer"));
    ka_json_put(w, "description",
                str("The token in the server's --token-file. A server without one takes commands "
                    "on loopback only."));
    ka_json_close(w);
    ka_json_close(w);
    ka_json_open(w, "schemas", KA_OBJECT);
    for (size_t i = 0; i < PROPERTIES; i++)
        if (&properties[i] == property_at(properties[i].of, 0) && *properties[i].of != '?')
            put_schema(w, properties[i].of);
    ka_json_close(w);
    ka_json_close(w);
}

static void serve_docs_json(request *q)
{
    fleet *f = q->f;
    ka_json_out w = rest_begin(f);
    ka_json_put(&w, "openapi", str("3.1.0"));
    ka_json_open(&w, "info", KA_OBJECT);
    ka_json_put(&w, "title", str("fleet"));
    ka_json_put(&w, "version", str(KA_VERSION));
    ka_json_put(&w, "description",
                str("Devices that are connected by TCP. A call that commands a device waits for "
                    "its reply, and says what it was."));
    ka_json_close(&w);
    ka_json_open(&w, "servers", KA_ARRAY);
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put(&w, "url", str("/"));
    ka_json_close(&w);
    ka_json_close(&w);
    ka_json_open(&w, "paths", KA_OBJECT);
    for (size_t i = 0; i < ROUTES; i++) {         /* no path has two methods */
        ka_json_open(&w, routes[i].path, KA_OBJECT);
        put_operation(&w, f, &routes[i]);
        ka_json_close(&w);
    }
    ka_json_close(&w);
    put_components(&w);
    rest_end(f, q->ev, 200, "", &w);
}

/* ---- server-sent events ---- */

static void serve_events(request *q)
{
    static const char fields[] = "Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"
                                 SITE_FIELDS;
    fleet *f = q->f;
    if (ka_is(q->ev->method, "HEAD")) ka_reply(f->s, q->ev, 200, fields, NULL, 0);
    else if (f->rest->streams_n == MAX_STREAMS)
        refuse(f, q->ev, 503, "Retry-After: 10\r\n", "%d subscribers are there already; try later",
               MAX_STREAMS);
    else if (ka_sse_begin(f->s, q->ev, fields) < 0)
        refuse(f, q->ev, 400, "", "an answer without an end needs HTTP/1.1");
}

static void stream_opened(fleet *f, uint64_t conn)
{
    struct rest *r = f->rest;
    char hello[128];
    if (r->streams_n == MAX_STREAMS) {            /* others were faster */
        ka_close(f->s, conn);
        return;
    }
    r->streams[r->streams_n++] = conn;
    int n = snprintf(hello, sizeof hello,
                     "retry: 2000\n\nevent: hello\ndata: {\"instance\": \"%s\"}\n\n", f->id);
    ka_send(f->s, conn, hello, (size_t)n);
}

static void stream_closed(struct rest *r, uint64_t conn)
{
    for (size_t i = 0; i < r->streams_n; i++)
        if (r->streams[i] == conn) r->streams[i--] = r->streams[--r->streams_n];
}

static void rest_send(fleet *f, const char *p, size_t n)
{
    for (size_t i = 0; i < f->rest->streams_n; i++) ka_send(f->s, f->rest->streams[i], p, n);
}

static void rest_tell(fleet *f, ka_str event)
{
    struct rest *r = f->rest;
    if (!r->streams_n) return;
    int n = snprintf(r->event, sizeof r->event, "event: change\ndata: %.*s\n\n", (int)event.n,
                     event.p);
    KA_ASSERT(n > 0 && (size_t)n < sizeof r->event);
    rest_send(f, r->event, (size_t)n);
}

static void rest_tick(fleet *f)
{
    int64_t now_ms = ka_now_ms();
    if (now_ms - f->rest->beat_ms < REST_BEAT_MS) return;
    f->rest->beat_ms = now_ms;
    rest_send(f, ":\n\n", 3);
}

static void rest_event(fleet *f, const ka_event *ev)
{
    if (ev->kind == KA_REQUEST && ev->status) rest_refused(f, ev);
    else if (ev->kind == KA_REQUEST) rest_request(f, ev);
    else if (ev->kind == KA_OPENED) stream_opened(f, ev->conn);
    else if (ev->kind == KA_CLOSED) stream_closed(f->rest, ev->conn);
}

/* ---- its beginning and end ---- */

/* The bearer token of --token-file: its digest is kept. */
static int token_read(fleet *f)
{
    char text[MAX_TOKEN + 256];
    FILE *file = fopen(f->token_file, "rb");
    size_t n = file ? fread(text, 1, sizeof text, file) : 0, at = 0;
    bool failed = !file || ferror(file), plain = true;
    if (file) fclose(file);
    if (failed)
        return fail(EXIT_FAILED,
                    "cannot read --token-file %s; is it there, and may this user read it?",
                    f->token_file);
    bool whole = n < sizeof text;
    while (n > 0 && strchr(" \t\r\n", text[n - 1]) && text[n - 1]) n--;
    while (at < n && strchr(" \t\r\n", text[at]) && text[at]) at++;
    for (size_t i = at; i < n; i++) plain = plain && text[i] > ' ' && text[i] <= '~';
    f->has_token = whole && plain && n - at >= MIN_TOKEN && n - at <= MAX_TOKEN;
    if (f->has_token) ka_sha256(f->token, text + at, n - at);
    ka_wipe(text, sizeof text);
    if (f->has_token && ka_file_others_write(f->token_file))
        note("--token-file %s: other users may write to it, and so choose the token; chmod go-w it",
             f->token_file);
    if (f->has_token) return -1;
    return fail(EXIT_USAGE,
                "--token-file %s: it has to have one line of %d to %d printable characters without "
                "spaces, such as `openssl rand -hex 32` gives",
                f->token_file, MIN_TOKEN, MAX_TOKEN);
}

/* The hash of what the page has between two tags, as a Content-Security-Policy has it. */
static void page_hash(const struct rest *r, const char *begin, const char *end, char out[64])
{
    unsigned char digest[32];
    const char *p = strstr(r->page, begin), *q = p ? strstr(p, end) : NULL;
    snprintf(out, 64, "'none'");
    if (!q) return;
    p += strlen(begin);
    ka_sha256(digest, p, (size_t)(q - p));
    memcpy(out, "'sha256-", 8);
    ptrdiff_t n = ka_b64_encode(out + 8, 48, digest, sizeof digest);
    memcpy(out + 8 + n, "'", 2);
}

static bool page_join(struct rest *r)
{
    char script[64], style[64];
    size_t n = 1;
    for (size_t i = 0; i < sizeof page / sizeof *page; i++) n += strlen(page[i]) + 1;
    r->page = malloc(n);
    if (!r->page) return false;
    for (size_t i = 0; i < sizeof page / sizeof *page; i++)
        r->page_n += (size_t)snprintf(r->page + r->page_n, n - r->page_n, "%s\n", page[i]);
    page_hash(r, "<script>", "</script>", script);
    page_hash(r, "<style>", "</style>", style);
    snprintf(r->page_fields, sizeof r->page_fields,
             "Content-Type: text/html; charset=utf-8\r\n" SITE_FIELDS
             "X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n"
             "Content-Security-Policy: default-src 'none'; script-src %s; style-src %s; "
             "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
             "frame-ancestors 'none'\r\n",
             script, style);
    return true;
}

static int rest_start(fleet *f)
{
    int status = f->token_file ? token_read(f) : -1;
    if (status >= 0) return status;
    f->rest = calloc(1, sizeof *f->rest);
    if (!f->rest || !page_join(f->rest)) return fail(EXIT_FAILED, "out of memory");
    f->rest->beat_ms = ka_now_ms();
    return -1;
}

static void rest_free(fleet *f)
{
    if (f->rest) free(f->rest->page);
    free(f->rest);
    f->rest = NULL;
}

#endif
