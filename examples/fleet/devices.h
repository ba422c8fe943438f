/* devices.h - the devices that are known, their protocol over TCP, and commands to them.

   THE PROTOCOL: JSON objects back to back, each way. The words in capitals are to the letter.

   1. A device is told, as soon as it has connected, serverId being the instance's id:
        {"type":"connected","message":"Connected to server","serverId":UUID}
      And before its connection is closed for another one with the same device id:
        {"type":"displaced","message":DISPLACED, or RIVALS below,"serverId":UUID}

   2. A device says {"type":"message","message":M,"clientId":UUID,"serverId":...}, and is answered
      by {"type":"reply","message":R}:
        M                                                                    R
        HELLO, I'M <device id>!                                              HI, NICE TO MEET YOU!
        PING.                                                                PONG.
        REPORT. I'M HERE <lat> <lon>, <RESTING|RUNNING> AND CHARGED AT <n>%. OK, THANKS!
        FINE. I'M HERE <lat> <lon>, <RESTING|RUNNING> AND CHARGED AT <n>%.   OK, THANKS!
        WTF! <n>\n<blob>                                   DAAAMN! ISSUE REPORTED ON JIRA
        GOTTA GO.                                          SEE YA!    and the close
        anything else                                      NOT_UNDERSTOOD, below

   3. A device is told {"type":"command","message":C,"serverId":UUID}, and says A by
      {"type":"reply","message":A,"clientId":UUID,"serverId":...}:
        C                                     A
        KEEP ME POSTED EVERY <n> SECONDS.     SURE, I WILL!
        HEY YOU, RUN!                         DONE!
        HEY YOU, REST!                        DONE!
        HOW'S IT GOING?                       FINE. ... as above
        GOTTA GO.                             SEE YA!    and is closed
        anything else                         anything
        each of them                          I CAN'T, SORRY.

   A message is "anything else" and changes nothing also if one of these holds:
     - It is no object. Its type, message or clientId is missing, there twice, or no string. Its
       type is neither message nor reply. Its clientId is no UUID (in any case of its letters).
       serverId is not looked at.
     - Its clientId is not that of the first such message on the connection, or the device id in
       HELLO is not.
     - A position is beyond 90 and 180 degrees, or a charge beyond 100, or one of them is no decimal
       number: 45, +45.0, .5 and 4.5e1 are some. Positions are rounded to millionths, charges to
       percents.
     - A blob is neither n bytes of UTF-8 nor n decimal numbers up to 255 with commas between, which
       are its bytes. If it has n bytes, these are the blob. n is at most MAX_BLOB. A reply has more
       than MAX_COMMAND.
     - MAX_DEVICES are online. If so many are known, the one that is offline longest is forgotten.
   White space around M is ignored, unless a blob has it. A device id is a UUID, as the devices' own
   protocol says: of other texts nobody could tell whether two of them are the same device.
   Bytes that can't be cut into objects end the connection. All else is a sign of life.

   The first message of a form above, HELLO or not, makes the device one of this connection, and
   online. If the device has another connection, here or at another instance, that one is closed:
   the newer wins. The device does not go offline by that. If it was another instance's, it is told
   to be online, which tells where. Two devices with one id would go on like this for ever: after
   MAX_CLAIMS in a row, only one newer connection in CLAIM_MS wins, and others are closed. A device
   that is silent for SILENT_BEATS heartbeats is offline,
   and its connection is closed. So is a connection that does not say in that time whose it is.

   Some devices take all that they read at once for one object. So a command is sent when the one
   before it has its reply, or its time is over, and SPACE_MS after a word of another type. It is
   not sent if its own time is nearly over by then.

   A reply belongs to the oldest command that was sent to the device, has no reply, and can have
   this one. The commands before that one will have none any more. When the time of a command is
   over, it still waits for its reply, so that this reply is not taken for a later command's. It
   waits until the connection ends, but no longer than a heartbeat, as a device may not reply to a
   command that it doesn't know. A reply that belongs to no command is dropped. The position in a
   FINE counts. */

#ifndef FLEET_DEVICES_H
#define FLEET_DEVICES_H

#include "fleet.h"

#define NOT_UNDERSTOOD "SERVER COULD NOT PROCESS THE RECEIVED MESSAGE."
#define DISPLACED      "ANOTHER CONNECTION HAS YOUR ID NOW."
#define RIVALS         "TOO MANY CONNECTIONS HAVE YOUR ID. TRY AGAIN LATER."

/* What is known of a connection. */
struct link {
    uint64_t conn;                            /* 0: none */
    device  *device;                          /* whose connection this is; NULL: nobody's */
    int64_t  heard_ms;                        /* the last word of it, or when it was opened */
    int64_t  said_ms;                         /* the last word to it that is no command */
    uint64_t number;                          /* of its owner token */
    char     id[KA_UUID_TEXT + 1];            /* its clientId; "": not said so far */
    bool     ended;                           /* closed from here: what still comes isn't heard */
};

static const ka_str no_text = { NULL, 0 };

static ka_str str(const char *text) { return (ka_str){ text, strlen(text) }; }

/* ---- what is known ---- */

static int devices_start(fleet *f)
{
    return ka_uuid_new(f->id);
}

/* The place of the first device whose id is not less. */
static size_t device_place(const fleet *f, const char *id)
{
    size_t low = 0, high = f->devices_n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(f->devices[middle]->id, id) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static device *device_find(const fleet *f, const char *id)
{
    size_t i = device_place(f, id);
    return i < f->devices_n && strcmp(f->devices[i]->id, id) == 0 ? f->devices[i] : NULL;
}

static size_t device_after(const fleet *f, const char *id)
{
    size_t i = device_place(f, id);
    return i + (i < f->devices_n && strcmp(f->devices[i]->id, id) == 0);
}

/* Forget the device that is offline longest. False: all are online. */
static bool device_evict(fleet *f)
{
    size_t oldest = f->devices_n;
    for (size_t i = 0; i < f->devices_n; i++) {
        const device *d = f->devices[i];
        if (d->online) continue;
        if (oldest == f->devices_n || strcmp(d->seen, f->devices[oldest]->seen) < 0) oldest = i;
    }
    if (oldest == f->devices_n) return false;
    free(f->devices[oldest]);
    size_t behind = --f->devices_n - oldest;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers, indeed */
    memmove(&f->devices[oldest], &f->devices[oldest + 1], behind * sizeof *f->devices);
    return true;
}

static device *device_get(fleet *f, const char *id)
{
    size_t i = device_place(f, id), room = 2 * f->devices_room + 64;
    if (i < f->devices_n && strcmp(f->devices[i]->id, id) == 0) return f->devices[i];
    if (f->devices_n == MAX_DEVICES && !device_evict(f)) return NULL;
    i = device_place(f, id);
    if (f->devices_n == f->devices_room) {
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers, indeed */
        device **more = realloc(f->devices, room * sizeof *more);
        if (!more) return NULL;
        f->devices = more;
        f->devices_room = room;
    }
    device *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    memcpy(d->id, id, sizeof d->id);
    d->charge = d->running = -1;
    d->touched_ms = ka_now_ms();
    /* NOLINTNEXTLINE(bugprone-sizeof-expression) */
    memmove(&f->devices[i + 1], &f->devices[i], (f->devices_n++ - i) * sizeof *f->devices);
    f->devices[i] = d;
    return d;
}

/* ---- numbers and words ---- */

static bool take(ka_str *rest, const char *text)
{
    size_t n = strlen(text);
    if (rest->n < n || memcmp(rest->p, text, n) != 0) return false;
    *rest = (ka_str){ rest->p + n, rest->n - n };
    return true;
}

/* Digits, of a number up to most. */
static bool take_number(ka_str *rest, int64_t most, int64_t *out)
{
    size_t i = 0;
    *out = 0;
    for (; i < rest->n && rest->p[i] >= '0' && rest->p[i] <= '9'; i++)
        if (*out <= most) *out = *out * 10 + (rest->p[i] - '0');
    *rest = (ka_str){ rest->p + i, rest->n - i };
    return i > 0 && *out <= most;
}

/* The digits of a decimal number, at most 18 of them: it is value * 10 to the power of scale.
   *cut: there were others than 0 behind these. */
static bool take_digits(ka_str *rest, int64_t *value, int64_t *scale, bool *cut)
{
    int64_t exponent = 0;
    bool point = false, digit = false;
    *value = *scale = *cut = 0;
    for (; rest->n && (!point || *rest->p != '.'); rest->p++, rest->n--) {
        const char c = *rest->p;
        if (c != '.' && (c < '0' || c > '9')) break;
        digit = c != '.';
        point = point || !digit;
        const bool room = *value < 100000000000000000;
        if (digit && room) *value = *value * 10 + (c - '0');
        if (digit) *scale += (int)!room - (int)point;
        if (digit && !room && c != '0') *cut = true;
    }
    if (!digit) return false;
    if (!take(rest, "e") && !take(rest, "E")) return true;
    bool less = take(rest, "-");
    if (!less) take(rest, "+");
    if (!take_number(rest, 99, &exponent)) return false;
    *scale += less ? -exponent : exponent;
    return true;
}

/* A decimal number from -limit to limit, rounded to millionths. No floating point: that reads by
   the locale. */
static bool take_degrees(ka_str *rest, int64_t limit, int32_t *out)
{
    const int64_t most = limit * 1000000;
    int64_t value, scale, last = 0;
    bool cut, minus = take(rest, "-");
    if (!minus) take(rest, "+");
    if (!take_digits(rest, &value, &scale, &cut)) return false;
    for (scale += 6; scale > 0 && value > 0 && value <= most; scale--) value *= 10;
    for (; scale < 0; scale++) {
        cut = cut || last;
        last = value % 10;
        value /= 10;
    }
    if (value > most || (value == most && (last || cut))) return false;
    value += last >= 5;
    *out = (int32_t)(minus ? -value : value);
    return true;
}

/* ---- a device in JSON ---- */

static void put_degrees(ka_json_out *w, const char *name, int32_t millionths)
{
    char text[16];
    int n = snprintf(text, sizeof text, "%s%d.%06d", millionths < 0 ? "-" : "",
                     abs(millionths) / 1000000, abs(millionths) % 1000000);
    ka_json_put_value(w, name, &(ka_json){ .kind = KA_NUMBER, .raw = { text, (size_t)n } });
}

static void put_null(ka_json_out *w, const char *name)
{
    ka_json_put(w, name, no_text);
}

static void device_members(ka_json_out *w, const device *d)
{
    ka_json_put(w, "id", (ka_str){ d->id, KA_UUID_TEXT });
    ka_json_put_bool(w, "connected", d->online);
    ka_json_put(w, "instance", (ka_str){ d->online && *d->owner ? d->owner : NULL, KA_UUID_TEXT });
    if (d->placed) {
        ka_json_open(w, "position", KA_OBJECT);
        put_degrees(w, "lat", d->lat);
        put_degrees(w, "lon", d->lon);
        ka_json_close(w);
    } else put_null(w, "position");
    if (d->charge >= 0) ka_json_put_integer(w, "charge", d->charge);
    else put_null(w, "charge");
    if (d->running >= 0) ka_json_put_bool(w, "running", d->running > 0);
    else put_null(w, "running");
    if (d->every_s) ka_json_put_integer(w, "reportEvery", d->every_s);
    else put_null(w, "reportEvery");
    ka_json_put_integer(w, "issues", d->issues);
    ka_json_put(w, "lastSeen", (ka_str){ *d->seen ? d->seen : NULL, strlen(d->seen) });
}

static void device_put(ka_json_out *w, const char *name, const device *d)
{
    ka_json_open(w, name, KA_OBJECT);
    device_members(w, d);
    ka_json_close(w);
}

/* The members of these names, in one pass; false: one isn't there, or there twice. */
static bool read_members(const ka_json *object, const char *const *names, ka_json *values, size_t n)
{
    ka_json rest = *object, name, value;
    size_t found = 0;
    for (size_t i = 0; i < n; i++) values[i].kind = 0;
    while (ka_json_next(&rest, &name, &value))
        for (size_t i = 0; i < n; i++) {
            if (!ka_json_is(&name, names[i])) continue;
            if (values[i].kind) return false;
            values[i] = value;
            found++;
        }
    return found == n;
}

/* A whole number up to most; -1: null. */
static bool read_number(const ka_json *v, int64_t most, int64_t *out)
{
    ka_str rest = v->raw;
    *out = -1;
    return v->kind == KA_NULL ||
           (v->kind == KA_NUMBER && take_number(&rest, most, out) && rest.n == 0);
}

/* 1 or 0; -1: null. */
static bool read_bool(const ka_json *v, int *out)
{
    *out = v->kind == KA_NULL ? -1 : v->kind == KA_TRUE;
    return v->kind == KA_NULL || v->kind == KA_TRUE || v->kind == KA_FALSE;
}

static bool read_degrees(const ka_json *object, const char *name, int64_t limit, int32_t *out)
{
    ka_json v;
    return ka_json_find(object, name, &v) == KA_OK && v.kind == KA_NUMBER &&
           take_degrees(&v.raw, limit, out) && v.raw.n == 0;
}

static bool read_position(const ka_json *v, device *d)
{
    d->placed = v->kind != KA_NULL;
    return !d->placed ||
           (read_degrees(v, "lat", 90, &d->lat) && read_degrees(v, "lon", 180, &d->lon));
}

static bool read_seen(const ka_json *v, device *d)
{
    memset(d->seen, 0, sizeof d->seen);
    return v->kind == KA_NULL || (ka_json_string(d->seen, KA_UTC_TEXT, v) == KA_UTC_TEXT &&
                                  strspn(d->seen, "0123456789-:.TZ") == KA_UTC_TEXT);
}

static bool device_read(device *d, const ka_json *v)
{
    device new = *d;
    int64_t charge, every_s, issues;
    int online;
    static const char *const names[] = { "connected", "running",  "charge",  "reportEvery",
                                         "issues",    "position", "lastSeen" };
    ka_json m[7];
    if (!read_members(v, names, m, 7)) return false;
    if (!read_bool(&m[0], &online) || online < 0 || !read_bool(&m[1], &new.running)) return false;
    if (!read_number(&m[2], 100, &charge) || !read_number(&m[3], INT32_MAX, &every_s)) return false;
    if (!read_number(&m[4], UINT32_MAX, &issues) || issues < 0 || !read_position(&m[5], &new) ||
        !read_seen(&m[6], &new))
        return false;
    new.online = online;
    new.charge = (int)charge;
    new.every_s = every_s < 0 ? 0 : (int)every_s;
    new.issues = (uint32_t)issues;
    *d = new;
    return true;
}

static ka_str device_event(char *room, const device *d, unsigned changes, ka_str blob)
{
    char utc[KA_UTC_TEXT + 1], id[KA_UUID_TEXT + 1];
    ka_json_out w = { .p = room, .cap = MAX_EVENT };
    ka_utc_text(utc, ka_wall_us());
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put(&w, "id", (ka_str){ ka_uuid_new(id) == KA_OK ? id : NULL, KA_UUID_TEXT });
    ka_json_put(&w, "at", (ka_str){ utc, KA_UTC_TEXT });
    ka_json_open(&w, "changes", KA_ARRAY);
    for (unsigned i = 0; changes >> i; i++)
        if (changes >> i & 1)
            ka_json_put(&w, NULL, (ka_str){ change_names[i], strlen(change_names[i]) });
    ka_json_close(&w);
    device_put(&w, "vehicle", d);
    if (changes & ISSUE) ka_json_put(&w, "blob", blob);
    ka_json_close(&w);
    KA_ASSERT(!w.error);
    return (ka_str){ room, w.n };
}

/* ---- changes ---- */

static void device_changed(fleet *f, device *d, unsigned changes, const char *was, ka_str blob)
{
    static char room[MAX_EVENT];
    if (!changes && !f->share) return;
    ka_str event = device_event(room, d, changes, blob);
    if (f->share) share_put(f, d, was, event);
    if (!changes) return;
    d->unsaved = true;
    rest_tell(f, event);
    hooks_add(f, event);
}

/* ---- calls ---- */

static call *call_of(const fleet *f, uint64_t number)
{
    call *c = f->calls[number % MAX_CALLS];
    return c && c->number == number ? c : NULL;
}

/* A new one, with its place and its timer; NULL: too many wait, or no memory. */
static call *call_new(fleet *f, const char *id, const char *message)
{
    size_t tried = 0;
    do f->calls_made++;
    while (f->calls[f->calls_made % MAX_CALLS] && ++tried < MAX_CALLS);
    call *c = tried < MAX_CALLS ? calloc(1, sizeof *c) : NULL;
    if (!c) return NULL;
    c->number = f->calls_made;
    c->made_ms = ka_now_ms();
    memcpy(c->device, id, sizeof c->device);
    snprintf(c->message, sizeof c->message, "%s", message);
    if (ka_timer(&f->timers, c->made_ms + f->timeout_s * 1000, c->number << 8 | TAG_CALL) < 0) {
        free(c);
        return NULL;
    }
    return f->calls[c->number % MAX_CALLS] = c;
}

/* Answer whoever asked, once; from then on it has no place among those that wait. */
static void call_answer(fleet *f, call *c, int status, ka_str reply)
{
    if (c->over) return;
    c->over = true;
    f->calls[c->number % MAX_CALLS] = NULL;
    if (*c->from) share_reply(f, c->from, c->from_number, status, reply);
    else rest_called(f, c, status, reply);
}

static void call_end(fleet *f, call *c, int status, ka_str reply)
{
    call_answer(f, c, status, reply);
    free(c);
}

/* Take the first of the calls to d. */
static call *call_take(device *d)
{
    call *c = d->calls;
    d->calls = c->next;
    return c;
}

static struct link *link_of(const fleet *f, uint64_t conn)
{
    size_t i = ka_conn_index(f->s, conn);
    return i < f->links_room && f->links[i].conn == conn ? &f->links[i] : NULL;
}

static void say(fleet *f, uint64_t conn, const char *type, const char *message)
{
    char room[256 + 6 * MAX_COMMAND];
    struct link *l = link_of(f, conn);
    if (l && strcmp(type, "command") != 0) l->said_ms = ka_now_ms();
    ka_json_out w = { .p = room, .cap = sizeof room };
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put(&w, "type", (ka_str){ type, strlen(type) });
    ka_json_put(&w, "message", (ka_str){ message, strlen(message) });
    if (strcmp(type, "reply") != 0) ka_json_put(&w, "serverId", (ka_str){ f->id, KA_UUID_TEXT });
    ka_json_close(&w);
    KA_ASSERT(!w.error);
    ka_send(f->s, conn, room, w.n);
}

/* Is less than a tenth of its time left, so that its reply would hardly come in time? */
static bool call_is_late(const fleet *f, const call *c)
{
    return ka_now_ms() > c->made_ms + f->timeout_s * 900;
}

/* Tell d the next command, if it owes no reply to another one. */
static void call_next(fleet *f, device *d)
{
    const struct link *l = link_of(f, d->conn);
    call *c = d->calls;
    while (c && (c->over || (!c->sent && call_is_late(f, c)))) c = c->next;
    if (!l || !c || c->sent) return;
    int64_t due_ms = l->said_ms + SPACE_MS;
    if (due_ms > ka_now_ms() && ka_timer(&f->timers, due_ms, c->number << 8 | TAG_NEXT) == KA_OK)
        return;
    c->sent = true;
    say(f, d->conn, "command", c->message);
}

static void call_due(fleet *f, uint64_t number)
{
    const call *c = call_of(f, number);
    device *d = c ? device_find(f, c->device) : NULL;
    if (d) call_next(f, d);
}

/* Add it to the commands of d. 0, or 503. */
static int call_add(fleet *f, device *d, call *c)
{
    call **at = &d->calls;
    for (int n = 0; *at; at = &(*at)->next)
        if (++n == MAX_DEVICE_CALLS) return 503;
    *at = c;
    c->here = true;
    call_next(f, d);
    return 0;
}

/* Here or elsewhere; when it is refused it is freed. */
static int call_go(fleet *f, device *d, call *c)
{
    int status = d->conn ? call_add(f, d, c) : share_call(f, d, c);
    if (!status) return 0;
    f->calls[c->number % MAX_CALLS] = NULL;
    free(c);
    return status;
}

static int call_start(fleet *f, device *d, const char *message, const ka_event *request, int route)
{
    if (!d->conn && !(d->online && f->share)) return 409;
    call *c = call_new(f, d->id, message);
    if (!c) return 503;
    c->request = *request;
    c->route = route;
    return call_go(f, d, c);
}

static void call_from(fleet *f, const char *from, uint64_t from_number, const char *id,
                      const char *message)
{
    device *d = device_find(f, id);
    size_t n = strlen(message);
    int status = 0;
    if (!d || !d->conn) status = 409;
    else if (n > MAX_COMMAND || !ka_is_utf8((ka_str){ message, n })) status = 503;
    call *c = status ? NULL : call_new(f, id, message);
    if (c) {
        snprintf(c->from, sizeof c->from, "%s", from);
        c->from_number = from_number;
        status = call_go(f, d, c);
    } else if (!status) status = 503;
    if (status) share_reply(f, from, from_number, status, no_text);
}

static void call_done(fleet *f, uint64_t number, int status, ka_str reply)
{
    call *c = call_of(f, number);
    if (c && !c->here) call_end(f, c, status, reply);
}

static void call_timeout(fleet *f, uint64_t number)
{
    call *c = call_of(f, number);
    device *d = c && c->here ? device_find(f, c->device) : NULL;
    if (!c) return;
    if (!d) {
        call_end(f, c, 504, no_text);
    } else if (c->sent) {
        call_answer(f, c, 504, no_text);
        call_next(f, d);
    } else {
        call **at = &d->calls;
        while (*at != c) at = &(*at)->next;
        *at = c->next;
        call_end(f, c, CALL_UNSENT, no_text);
    }
}

/* ---- connections ---- */

static void link_close(fleet *f, struct link *l)
{
    l->ended = true;
    ka_close(f->s, l->conn);
}

static void link_open(fleet *f, const ka_event *ev)
{
    size_t i = ka_conn_index(f->s, ev->conn), room = 2 * i + 64;
    if (i >= f->links_room) {
        struct link *more = realloc(f->links, room * sizeof *more);
        if (!more) {
            ka_close(f->s, ev->conn);
            return;
        }
        memset(more + f->links_room, 0, (room - f->links_room) * sizeof *more);
        f->links = more;
        f->links_room = room;
    }
    f->links[i] = (struct link){ .conn = ev->conn, .heard_ms = ev->now_ms };
    if (f->links_n++ >= f->links_most) {
        if (!f->crowded) note("%zu devices are connected; others are closed, so that people are "
                              "served; raise ulimit -n", f->links_most);
        f->crowded = true;
        link_close(f, &f->links[i]);
        return;
    }
    say(f, ev->conn, "connected", "Connected to server");
}

/* It is the connection of its device no more: who waits for a reply gets none. Whether a command
   that was sent is done is not known. */
static void link_loosen(fleet *f, struct link *l)
{
    device *d = l->device;
    l->device = NULL;
    d->conn = 0;
    while (d->calls) {
        call *c = call_take(d);
        call_end(f, c, c->sent ? 502 : 409, no_text);
    }
}

/* The device of this connection, if any, is offline from now on. */
static void link_leave(fleet *f, struct link *l)
{
    device *d = l->device;
    if (!d) return;
    d->online = false;                        /* before anybody is told */
    f->online_n--;
    link_loosen(f, l);
    device_changed(f, d, OFFLINE, d->owner, no_text);
}

/* Close the connection of d, of which nothing is told, as it has a newer one. */
static void link_outdated(fleet *f, device *d)
{
    struct link *l = link_of(f, d->conn);
    link_loosen(f, l);
    say(f, l->conn, "displaced", DISPLACED);
    link_close(f, l);
}

/* Has d changed its connection too often, so that this one may not have it? By a leaky bucket. */
static bool device_disputed(device *d, int64_t now_ms)
{
    if (!d->online) return false;
    int64_t whole_ms = (d->claims_ms > now_ms ? d->claims_ms : now_ms) + CLAIM_MS;
    if (whole_ms > now_ms + MAX_CLAIMS * CLAIM_MS) return true;
    d->claims_ms = whole_ms;
    return false;
}

/* Make d the device of this connection, whoever had it. What has changed by that. */
static unsigned link_claim(fleet *f, struct link *l, device *d)
{
    bool other = strncmp(d->owner, f->id, KA_UUID_TEXT) != 0, was_online = d->online;
    if (d->conn) link_outdated(f, d);
    l->device = d;
    l->number = ++f->connections_made;
    snprintf(d->owner, sizeof d->owner, "%s:%llu", f->id, (unsigned long long)l->number);
    d->conn = l->conn;
    d->online = true;
    f->online_n += !was_online;
    return was_online && !other ? 0 : ONLINE;
}

static void device_lost(fleet *f, device *d)
{
    if (d->conn) link_outdated(f, d);
}

static void device_changed_elsewhere(fleet *f, device *d, ka_str event)
{
    char owner[OWNER_TEXT + 1] = "";
    const struct link *l = d->conn ? link_of(f, d->conn) : NULL;
    if (l) snprintf(owner, sizeof owner, "%s:%llu", f->id, (unsigned long long)l->number);
    if (l && strcmp(owner, d->owner) != 0) link_outdated(f, d);
    d->touched_ms = ka_now_ms();
    d->unsaved = true;
    rest_tell(f, event);
}

static void device_reaped(fleet *f, device *d, ka_str event)
{
    f->online_n -= d->online;
    d->online = false;
    d->touched_ms = ka_now_ms();
    d->unsaved = true;
    rest_tell(f, event);
    hooks_add(f, event);
}

/* ---- what devices say ---- */

typedef struct {
    bool    placed, leaving;
    int32_t lat, lon;
    int     charge, running;
    ka_str  blob;                             /* p: NULL: none */
} report;

static bool said_no_more(ka_str rest, const char *id, report *s)
{
    (void)id, (void)s;
    return rest.n == 0;
}

static bool said_goodbye(ka_str rest, const char *id, report *s)
{
    (void)id;
    s->leaving = true;
    return rest.n == 0;
}

static bool said_hello(ka_str rest, const char *id, report *s)
{
    char named[KA_UUID_TEXT + 1];
    (void)s;
    if (rest.n != KA_UUID_TEXT + 1 || rest.p[KA_UUID_TEXT] != '!') return false;
    return ka_uuid_read(named, (ka_str){ rest.p, KA_UUID_TEXT }) == KA_OK && strcmp(named, id) == 0;
}

static bool said_here(ka_str rest, const char *id, report *s)
{
    int32_t charge;
    (void)id;
    if (!take_degrees(&rest, 90, &s->lat) || !take(&rest, " ") ||
        !take_degrees(&rest, 180, &s->lon) || !take(&rest, ", "))
        return false;
    s->running = take(&rest, "RUNNING");
    if (!s->running && !take(&rest, "RESTING")) return false;
    if (!take(&rest, " AND CHARGED AT ") || !take_degrees(&rest, 100, &charge) || charge < 0 ||
        !ka_is(rest, "%."))
        return false;
    s->charge = (charge + 500000) / 1000000;
    return s->placed = true;
}

/* n decimal numbers with commas between: the bytes that they are; or, if these are no UTF-8, the
   numbers as they are. *text is borrowed until the next call. */
static bool take_bytes(ka_str *text, int64_t n)
{
    static char bytes[MAX_BLOB];
    ka_str rest = *text;
    for (int64_t i = 0, value; i < n; i++) {
        if ((i > 0 && !take(&rest, ",")) || !take_number(&rest, 255, &value)) return false;
        bytes[i] = (char)(unsigned char)value;
    }
    if (rest.n) return false;
    if (ka_is_utf8((ka_str){ bytes, (size_t)n })) *text = (ka_str){ bytes, (size_t)n };
    return true;
}

static bool said_issue(ka_str rest, const char *id, report *s)
{
    int64_t n;
    (void)id;
    if (!take_number(&rest, MAX_BLOB, &n) || !take(&rest, "\n")) return false;
    if (rest.n != (size_t)n && !take_bytes(&rest, n)) return false;
    s->blob = rest;
    return true;
}

static const struct {
    const char *begins, *answer;
    bool (*read)(ka_str rest, const char *id, report *s);
} forms[] = {
    { "PING.", "PONG.", said_no_more },
    { "REPORT. I'M HERE ", "OK, THANKS!", said_here },
    { "FINE. I'M HERE ", "OK, THANKS!", said_here },
    { "HELLO, I'M ", "HI, NICE TO MEET YOU!", said_hello },
    { "WTF! ", "DAAAMN! ISSUE REPORTED ON JIRA", said_issue },
    { "GOTTA GO.", "SEE YA!", said_goodbye },
};

/* A message without the white space behind it. */
static ka_str trimmed(ka_str s)
{
    while (s.n && memchr(" \t\r\n", s.p[s.n - 1], 4)) s.n--;
    return s;
}

/* The answer to a message, and what it says; NULL: it is of no such form. */
static const char *understand(ka_str text, const char *id, report *s)
{
    while (text.n && memchr(" \t\r\n", *text.p, 4)) text = (ka_str){ text.p + 1, text.n - 1 };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        ka_str rest = text;
        if (take(&rest, forms[i].begins))
            return forms[i].read(rest, id, s) || forms[i].read(trimmed(rest), id, s)
                       ? forms[i].answer : NULL;
    }
    return NULL;
}

/* Put into d what was said; what has changed by that. */
static unsigned apply(device *d, const report *s)
{
    unsigned changes = 0;
    if (s->placed) {
        if (!d->placed || d->lat != s->lat || d->lon != s->lon) changes |= POSITION;
        if (d->charge != s->charge) changes |= CHARGE;
        if (d->running != s->running) changes |= RUNNING;
        d->placed = true;
        d->lat = s->lat;
        d->lon = s->lon;
        d->charge = s->charge;
        d->running = s->running;
    }
    if (s->blob.p) {
        d->issues++;
        changes |= ISSUE;
    }
    return changes;
}

static void on_words(fleet *f, struct link *l, ka_str text)
{
    report s = { 0 };
    const char *answer = understand(text, l->id, &s);
    device *d = !answer ? NULL : l->device ? l->device : device_get(f, l->id);
    if (!d) {
        say(f, l->conn, "reply", NOT_UNDERSTOOD);
        return;
    }
    if (!l->device && device_disputed(d, ka_now_ms())) {
        say(f, l->conn, "displaced", RIVALS);
        link_close(f, l);
        return;
    }
    const char *was = l->device ? d->owner : NULL;
    unsigned changes = l->device ? 0 : link_claim(f, l, d);
    changes |= apply(d, &s);
    ka_utc_text(d->seen, ka_wall_us());
    say(f, l->conn, "reply", answer);
    if (!s.leaving || !was) device_changed(f, d, changes, was, s.blob);
    if (!s.leaving) return;
    link_leave(f, l);
    link_close(f, l);
}

/* ---- what devices reply ---- */

enum { OTHER, EVERY, RUN, REST, HOW, GO };     /* commands */

/* Which one it is; EVERY's seconds. */
static int command_of(const char *message, int64_t *seconds)
{
    static const char *const known[] = {
        [RUN] = "HEY YOU, RUN!", [REST] = "HEY YOU, REST!", [HOW] = "HOW'S IT GOING?",
        [GO] = "GOTTA GO."
    };
    ka_str rest = { message, strlen(message) };
    if (take(&rest, "KEEP ME POSTED EVERY ") && take_number(&rest, INT32_MAX, seconds) &&
        ka_is(rest, " SECONDS."))
        return EVERY;
    for (int i = RUN; i <= GO; i++)
        if (strcmp(message, known[i]) == 0) return i;
    return OTHER;
}

/* Can a reply be an answer to that command? fine: it is a FINE. */
static bool answers(ka_str reply, bool fine, int command)
{
    static const char *const right[] = {
        [EVERY] = "SURE, I WILL!", [RUN] = "DONE!", [REST] = "DONE!", [GO] = "SEE YA!"
    };
    if (command == OTHER || ka_is(reply, "I CAN'T, SORRY.")) return true;
    return command == HOW ? fine : ka_is(reply, right[command]);
}

/* What a reply that isn't I CAN'T, SORRY. says of the device. */
static unsigned obeyed(device *d, int command, int64_t seconds)
{
    int running = command == RUN || command == REST ? command == RUN : d->running;
    int every_s = command == EVERY ? (int)seconds : d->every_s;
    unsigned changes = (running != d->running ? RUNNING : 0u) |
                       (every_s != d->every_s ? FREQUENCY : 0u);
    d->running = running;
    d->every_s = every_s;
    return changes;
}

static void on_reply(fleet *f, struct link *l, ka_str text)
{
    report s = { 0 };
    ka_str rest = text;
    device *d = l->device;
    int64_t seconds = 0;
    int about = OTHER;
    bool fine = take(&rest, "FINE. I'M HERE ") && said_here(rest, l->id, &s);
    bool sorry = ka_is(text, "I CAN'T, SORRY.");
    call *c = d->calls;
    while (c && c->sent && !answers(text, fine, about = command_of(c->message, &seconds)))
        c = c->next;
    if (c && !c->sent) c = NULL;
    if (!c || sorry) about = OTHER;
    while (c && d->calls != c) call_end(f, call_take(d), 504, no_text);

    unsigned changes = fine ? apply(d, &s) : 0;
    changes |= obeyed(d, about, seconds);
    ka_utc_text(d->seen, ka_wall_us());
    if (c) call_end(f, call_take(d), 200, text);
    if (about != GO) {
        device_changed(f, d, changes, d->owner, no_text);
        call_next(f, d);
        return;
    }
    link_leave(f, l);
    link_close(f, l);
}

/* ---- events ---- */

/* Read a message: whether it is a reply, and its words, borrowed until the next message. False: it
   is none, or another device's. */
static bool envelope(struct link *l, ka_str body, bool *reply, ka_str *text)
{
    static char words[KA_MAX_BODY];
    char id[KA_UUID_TEXT], read[KA_UUID_TEXT + 1];
    ka_json v, type, message, client;
    if (ka_json_read(&v, body) < 0 || ka_json_find(&v, "type", &type) < 0) return false;
    if (ka_json_find(&v, "message", &message) < 0 || ka_json_find(&v, "clientId", &client) < 0)
        return false;
    *reply = ka_json_is(&type, "reply");
    if (!*reply && !ka_json_is(&type, "message")) return false;
    ptrdiff_t n = ka_json_string(words, sizeof words, &message);
    if (n < 0 || (*reply && n > MAX_COMMAND)) return false;
    if (ka_json_string(id, sizeof id, &client) != KA_UUID_TEXT ||
        ka_uuid_read(read, (ka_str){ id, KA_UUID_TEXT }) < 0)
        return false;
    if (*l->id && strcmp(l->id, read) != 0) return false;
    memcpy(l->id, read, sizeof read);
    *text = (ka_str){ words, (size_t)n };
    return true;
}

static void on_message(fleet *f, struct link *l, const ka_event *ev)
{
    bool reply;
    ka_str text;
    if (l->device) {
        l->heard_ms = l->device->touched_ms = ev->now_ms;
        ka_utc_text(l->device->seen, ka_wall_us());
    }
    if (ev->error || !envelope(l, ev->body, &reply, &text)) {
        say(f, l->conn, "reply", NOT_UNDERSTOOD);
        if (!ev->error) return;
        link_leave(f, l);
        l->ended = true;                      /* ka_wait closes it */
    } else if (!reply) on_words(f, l, text);
    else if (l->device) on_reply(f, l, text);
}

static void devices_event(fleet *f, const ka_event *ev)
{
    struct link *l = ev->kind == KA_OPENED ? NULL : link_of(f, ev->conn);
    if (ev->kind == KA_OPENED) link_open(f, ev);
    else if (ev->kind == KA_MESSAGE && !l->ended) on_message(f, l, ev);
    else if (ev->kind == KA_CLOSED) {
        link_leave(f, l);
        l->conn = 0;
        f->links_n--;
    }
}

/* Forget devices that are offline for long, and commands that have no reply any more. Count the
   devices that are online. */
static void devices_look(fleet *f, int64_t now_ms)
{
    size_t kept = 0;
    f->online_n = 0;
    for (size_t i = 0; i < f->devices_n; i++) {
        device *d = f->devices[i];
        while (d->calls && d->calls->over &&
               now_ms - d->calls->made_ms > (f->timeout_s + f->heartbeat_s) * 1000)
            free(call_take(d));
        f->online_n += d->online;
        if (d->online || now_ms - d->touched_ms < FORGET_S * (int64_t)1000) f->devices[kept++] = d;
        else free(d);
    }
    f->devices_n = kept;
}

static void devices_tick(fleet *f, int64_t now_ms)
{
    for (size_t i = 0; i < f->links_room; i++) {
        struct link *l = &f->links[i];
        if (!l->conn || l->ended || now_ms - l->heard_ms < SILENT_BEATS * f->heartbeat_s * 1000)
            continue;
        link_leave(f, l);
        link_close(f, l);
    }
    devices_look(f, now_ms);
}

static void devices_free(fleet *f)
{
    for (size_t i = 0; i < f->devices_n; i++) {
        while (f->devices[i]->calls) free(call_take(f->devices[i]));
        free(f->devices[i]);
    }
    for (size_t i = 0; i < MAX_CALLS; i++)
        if (f->calls[i] && !f->calls[i]->here) free(f->calls[i]);
    free(f->devices);
    free(f->links);
}

#endif
