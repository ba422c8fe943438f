/* codes - two HTTP ports: one gives out a code for a UUID, the other appends a text to a log.
     cc -O2 -pthread -I. -o examples/codes/codes examples/codes/codes.c
     examples/codes/codes server        listening on 127.0.0.1:8000, and on 127.0.0.1:8001
     examples/codes/codes client        stored 50 of 50 texts in 0.01 s
   It shows two ports on one server, JSON and what Python makes of it, and answers that wait for a
   log: a success means that the line is on disk. */

#define KEYAUTH_IMPLEMENTATION
#define KEYAUTH_STATIC
#define KA_MAX_BODY (6 * 65536 + 1024)      /* a text of 64 KiB, each byte as \u0000, and more */
#include "keyauth.h"
#include "ext/input.h"
#include "ext/lookup.h"
#include "ext/cli.h"
#include "ext/file.h"
#include "ext/json.h"
#include "ext/log.h"
#include "ext/site.h"
#include "ext/uuid.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_OFFLINE = 3 };
enum { UUIDS, TEXTS };      /* the two ports, listeners and connections */
enum {
    MAX_TEXT = 65536, CODE_TEXT = 64, ERROR_TEXT = 160, COMMIT_BYTES = 1 << 20, ERRORS_TOLD = 5
};

static const char usage[] =
    "usage: codes server [--ip 127.0.0.1] [--uuid-port 8000] [--text-port 8001]\n"
    "                    [--log messages.log] [--max-codes N] [--host NAME,...]\n"
    "       codes client [--uuid-port 8000] [--text-port 8001] [--give-up SECONDS] [HOST [N]]\n"
    "       codes --help | --version\n"
    "\n"
    "server: POST {\"uuid\": \"...\"} to the UUID port is answered with\n"
    "{\"success\": true, \"unique\": \"CODE\"}. POST {\"uuid\": \"...\", \"unique\": \"CODE\",\n"
    "\"text\": \"...\"} to the text port appends the text to the log. The answer to a Python\n"
    "literal is a Python literal without HTTP around it.\n"
    "\n"
    "  --ip IP,...      listen on these addresses, or on those of a host\'s name (default\n"
    "                   127.0.0.1)\n"
    "  --uuid-port PORT   the UUID port (default 8000); 0: the system chooses one\n"
    "  --text-port PORT   the text port (default 8001); 0: the system chooses one\n"
    "  --log FILE       the log (default messages.log)\n"
    "  --max-codes N    keep at most N codes (default 1000000), then refuse new UUIDs\n"
    "  --host NAME,...  browsers may use these hosts, too (default: localhost and 127.0.0.0/8\n"
    "                   only). *: any host. Other programs may use any host\n"
    "\n"
    "client: plays N clients (default 50), one after the other. Each has a UUID of its own, asks\n"
    "the server at HOST (a name or an address, default 127.0.0.1) for a code, and stores a text.\n"
    "\n"
    "  --give-up SECONDS   while the server is offline, try each text for so long (default 10)\n"
    "\n"
    "Exit status: 0 server: stopped by Ctrl+C or SIGTERM; client: all texts are stored. 1 could\n"
    "not run, or some texts are not stored. 2 wrong usage. 3 client: gave up, the server is\n"
    "offline.\n";

typedef struct {
    const char *ip, *log, *host;
    long long   ports[2], max_codes, give_up_s, clients;
} options;

/* The port UUIDS takes the first field, the port TEXTS all three. */
static const char *const field_names[] = { "uuid", "unique", "text" };

#define fail(status, ...) ka_fail(status, "codes: " __VA_ARGS__)
#define note(...)         ka_say(2, "codes: " __VA_ARGS__)

/* ---- the codes: a hash table in the parent. It keeps neither UUIDs nor codes, but digests ----

   A UUID is found by SHA-256(secret, UUID), cut to 16 bytes. The secret is this process's: without
   it nobody can choose UUIDs that meet in one place. */

/* An empty entry is all zero. In others uuid[15] is odd. */
typedef struct { unsigned char uuid[16], code[32]; } entry;

typedef struct {
    entry        *entries;
    size_t        capacity, count, max;
    unsigned char secret[32];
} codes;

/* The entry of a UUID's digest, or the empty one where it would be put. */
static entry *codes_place(entry *entries, size_t capacity, const unsigned char *uuid)
{
    size_t at;
    memcpy(&at, uuid, sizeof at);
    for (;; at++) {
        entry *e = &entries[at & (capacity - 1)];
        if (e->uuid[15] == 0 || memcmp(e->uuid, uuid, sizeof e->uuid) == 0) return e;
    }
}

static entry *codes_find(const codes *c, const char *uuid, unsigned char digest[32])
{
    unsigned char keyed[32 + KA_UUID_TEXT];
    memcpy(keyed, c->secret, 32);
    memcpy(keyed + 32, uuid, KA_UUID_TEXT);
    ka_sha256(digest, keyed, sizeof keyed);
    ka_wipe(keyed, sizeof keyed);
    digest[15] |= 1;
    return codes_place(c->entries, c->capacity, digest);
}

static bool codes_double(codes *c)
{
    size_t capacity = c->capacity ? c->capacity * 2 : 1024;
    entry *entries = calloc(capacity, sizeof *entries);
    if (!entries) return false;
    for (size_t i = 0; i < c->capacity; i++)
        if (c->entries[i].uuid[15])
            *codes_place(entries, capacity, c->entries[i].uuid) = c->entries[i];
    free(c->entries);
    c->entries = entries;
    c->capacity = capacity;
    return true;
}

/* A fresh code for a UUID, in the place of its last one. KA_OK; or KA_EFULL, KA_ENOMEM, KA_ERANDOM,
   and then the last one stays. */
static int codes_issue(codes *c, const char *uuid, char code[CODE_TEXT])
{
    unsigned char digest[32], raw[CODE_TEXT / 2];
    entry *e = codes_find(c, uuid, digest);
    bool fresh = e->uuid[15] == 0;
    if (fresh && c->count == c->max) return KA_EFULL;
    if (fresh && c->count >= c->capacity / 4 * 3) {
        if (!codes_double(c)) return KA_ENOMEM;
        e = codes_place(c->entries, c->capacity, digest);
    }
    int r = ka_random(raw, sizeof raw);
    if (r < 0) return r;
    ka_hex_encode(code, raw, sizeof raw);
    ka_wipe(raw, sizeof raw);
    memcpy(e->uuid, digest, sizeof e->uuid);
    ka_sha256(e->code, code, CODE_TEXT);
    c->count += fresh;
    return KA_OK;
}

/* An unknown UUID's entry is all zero, which no code's digest is. So a wrong UUID and a wrong code
   take the same way. */
static bool codes_match(const codes *c, const char *uuid, const char code[CODE_TEXT])
{
    unsigned char digest[32], given[32];
    const entry *e = codes_find(c, uuid, digest);
    ka_sha256(given, code, CODE_TEXT);
    return ka_eq_ct(e->code, given, sizeof given);
}

/* ---- the server ---- */

typedef struct {
    ka_source   source;         /* commits the log at the end of a batch */
    const char *path, *hosts;   /* hosts: ka_cross_site's */
    ka_server  *server;
    ka_listeners ports[2];
    ka_log     *log;
    int         log_error;      /* of the last commit */
    codes       codes;
    size_t      held_n;         /* requests whose lines wait for the next commit */
    struct { ka_event ev; bool python; } held[KA_BATCH];
    char        text[MAX_TEXT], line[6 * MAX_TEXT + 256];
} state;

/* 200 with its code, or another status with what is wrong, in the language that was asked in. */
static void answer(const state *s, const ka_event *ev, bool python, int status, ka_str code,
                   const char *error)
{
    char text[ERROR_TEXT * 6 + 64];
    ka_json_out w = { .p = text, .cap = sizeof text, .python = python };
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put_bool(&w, "success", status == 200);
    if (status != 200) ka_json_put(&w, "error", (ka_str){ error, strlen(error) });
    else if (code.n) ka_json_put(&w, "unique", code);
    ka_json_close(&w);
    if (python) ka_reply(s->server, ev, 0, NULL, text, w.n);
    else
        ka_reply(s->server, ev, status,
                 status == 405 ? "Content-Type: application/json\r\nAllow: POST\r\n"
                               : "Content-Type: application/json\r\n",
                 text, w.n);
    ka_wipe(text, w.n);
}

static int refuse(char error[ERROR_TEXT], int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, ERROR_TEXT, format, args);
    va_end(args);
    return status;
}

/* Put the lines that wait on disk, all with one sync, and answer their requests. ka_wait calls this
   before it sends answers. */
static void commit(ka_source *source)
{
    state *s = (state *)source;
    int code = 0;
    if (s->held_n == 0) return;
    int r = ka_log_commit(s->log, &code), status = r == KA_OK ? 200 : r == KA_ENOSPC ? 507 : 503;
    for (size_t i = 0; i < s->held_n; i++)
        answer(s, &s->held[i].ev, s->held[i].python, status, (ka_str){ NULL, 0 },
               r == KA_ENOSPC ? "the text is not stored: the disk is full"
                              : "the text is not stored: the log can't be written");
    s->held_n = 0;
    if (r == KA_OK && s->log_error) note("%s is written again", s->path);
    if (r < 0 && r != s->log_error) {
        char why[KA_TROUBLE_TEXT];
        note("cannot write %s: %s; texts are refused until it can be", s->path,
             ka_file_trouble(why, s->path, r, code));
    }
    s->log_error = r;
}

/* UUIDS: a code for a UUID. Returns the answer's status. */
static int give_code(state *s, const char *uuid, char code[CODE_TEXT], char *error)
{
    switch (codes_issue(&s->codes, uuid, code)) {
    case KA_OK:    return 200;
    case KA_EFULL:
        return refuse(error, 503, "no room for another UUID: %llu have a code",
                      (unsigned long long)s->codes.count);
    default:       return refuse(error, 503, "no code can be made now");
    }
}

/* TEXTS: a text for the log. Returns 0: commit() will answer; or the answer's status. */
static int take_text(state *s, const ka_event *ev, bool python, const char *uuid,
                     const ka_json *unique, const ka_json *text, char *error)
{
    char code[CODE_TEXT], time[KA_UTC_TEXT + 1];
    ptrdiff_t n = ka_json_string(s->text, sizeof s->text, text);
    if (n < 0) return refuse(error, 413, "field 'text' has more than %d bytes", MAX_TEXT);
    if (ka_json_string(code, sizeof code, unique) != CODE_TEXT ||
        !codes_match(&s->codes, uuid, code))
        return refuse(error, 403,
                      "'unique' is not the code of this 'uuid'; ask the other port for one");

    ka_utc_text(time, ka_wall_us());
    memcpy(time + 23, "Z", 2);      /* to the millisecond */
    ka_json_out w = { .p = s->line, .cap = sizeof s->line };
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put(&w, "time", (ka_str){ time, 24 });
    ka_json_put(&w, "uuid", (ka_str){ uuid, KA_UUID_TEXT });
    ka_json_put(&w, "text", (ka_str){ s->text, (size_t)n });
    ka_json_close(&w);
    ptrdiff_t waiting = w.error ? w.error : ka_log_add(s->log, s->line, w.n);
    if (waiting < 0) return refuse(error, 503, "the text is not stored: out of memory");
    s->held[s->held_n].ev = *ev;
    s->held[s->held_n++].python = python;
    if (waiting > COMMIT_BYTES || s->held_n == KA_BATCH) commit(&s->source);
    return 0;
}

/* Take the n fields off an object: each once, each a string, and no other. Returns 200 or the
   answer's status. */
static int take_fields(ka_json object, int n, ka_json *value, char *error)
{
    const char *wanted = n == 1 ? "'uuid'" : "'uuid', 'unique' and 'text'";
    char other[48];
    ka_json name, v;
    if (object.kind != KA_OBJECT)
        return refuse(error, 400, "the body is no object with %s", wanted);
    memset(value, 0, (size_t)n * sizeof *value);
    while (ka_json_next(&object, &name, &v)) {
        int i = 0;
        while (i < n && !ka_json_is(&name, field_names[i])) i++;
        if (i == n) {
            ptrdiff_t got = ka_json_string(other, sizeof other, &name);
            return refuse(error, 400, "field '%.*s' is not asked for, only %s",
                          got < 0 ? 3 : (int)got, got < 0 ? "..." : other, wanted);
        }
        if (value[i].kind)
            return refuse(error, 400, "field '%s' is there more than once", field_names[i]);
        if (v.kind != KA_STRING)
            return refuse(error, 400, "field '%s' is no string", field_names[i]);
        value[i] = v;
    }
    for (int i = 0; i < n; i++)
        if (!value[i].kind) return refuse(error, 400, "field '%s' is missing", field_names[i]);
    return 200;
}

static int read_uuid(char uuid[KA_UUID_TEXT + 1], const ka_json *v, char *error)
{
    char text[KA_UUID_TEXT];
    ptrdiff_t n = ka_json_string(text, sizeof text, v);
    if (n > 0 && ka_uuid_read(uuid, (ka_str){ text, (size_t)n }) == KA_OK) return 200;
    return refuse(error, 400, "field 'uuid' is no UUID");
}

/* The worker could not take this as a request. Its body was not read, so the answer is in HTTP. */
static int refused(int status, char *error)
{
    switch (status) {
    case 408:
        return refuse(error, status, "the request did not come to its end within %d s",
                      KA_REQUEST_MS / 1000);
    case 413: return refuse(error, status, "the body has more than %d bytes", KA_MAX_BODY);
    case 503: return refuse(error, status, "out of memory");
    default:  return refuse(error, status, "the request is not the HTTP/1.1 that is spoken here");
    }
}

/* Returns 200, and *python, the fields and the UUID; or the answer's status, and *python and what
   is wrong. */
static int read_request(const state *s, const ka_event *ev, bool *python, ka_json field[3],
                        char uuid[KA_UUID_TEXT + 1], char *error)
{
    ka_json body;
    if (ev->status) return refused(ev->status, error);
    int r = ka_json_read(&body, ev->body);
    *python = body.python;
    if (ka_cross_site(ev, s->hosts, 0))
        return refuse(error, 403, "a page of another site may not use this server; if it is yours, "
                      "start the server with --host and the page's host");
    if (!ka_is(ev->target, "/")) return refuse(error, 404, "only the path / is served here");
    if (!ka_is(ev->method, "POST")) return refuse(error, 405, "only POST is served here");
    if (r == KA_ELIMIT)
        return refuse(error, 400, "the body is nested more than %d deep", KA_MAX_DEPTH);
    if (r < 0)
        return refuse(error, 400,
                      "the body is neither JSON nor a Python literal, in UTF-8: see its byte %lld",
                      (long long)(body.raw.p - ev->body.p) + (long long)body.raw.n + 1);
    const bool uuids = ka_is_listener(&s->ports[UUIDS], ev->listener);
    int status = take_fields(body, uuids ? 1 : 3, field, error);
    return status == 200 ? read_uuid(uuid, &field[0], error) : status;
}

static void handle(state *s, const ka_event *ev)
{
    char uuid[KA_UUID_TEXT + 1], code[CODE_TEXT], error[ERROR_TEXT] = "";
    ka_json field[3];
    bool python = false, uuids = ka_is_listener(&s->ports[UUIDS], ev->listener);
    int status = read_request(s, ev, &python, field, uuid, error);
    if (status == 200)
        status = uuids ? give_code(s, uuid, code, error)
                       : take_text(s, ev, python, uuid, &field[1], &field[2], error);
    if (status) answer(s, ev, python, status, (ka_str){ code, uuids ? CODE_TEXT : 0 }, error);
    ka_wipe(code, sizeof code);
}

/* -1: go on; otherwise exit with this. */
static int open_log(state *s)
{
    int64_t cut = 0;
    char why[KA_TROUBLE_TEXT];
    int code = 0, r = ka_log_open(&s->log, s->path, "{\"time\": \"", &cut, &code);
    if (cut)
        note("%s: cut off its last %lld bytes, a line that was not written to its end", s->path,
             (long long)cut);
    if (r == KA_OK) return -1;
    if (r == KA_ESYNTAX)
        return fail(EXIT_FAILED, "%s holds no log of codes; choose another --log", s->path);
    return fail(EXIT_FAILED, "cannot use %s: %s; mend that, or choose another --log", s->path,
                ka_file_trouble(why, s->path, r, code));
}

static int serve(state *s)
{
    int status = EXIT_DONE;
    char text[KA_PLACE_TEXT + 1];
    for (ka_event ev; ka_wait(s->server, &ev, -1) == KA_OK; ) {
        const int port = ka_is_listener(&s->ports[UUIDS], ev.listener) ? UUIDS : TEXTS;
        if (ev.kind == KA_REQUEST) handle(s, &ev);
        else if (!ev.error)
            ka_say(1, "listening on %s", ka_listener_text(text, &s->ports[port], &ev));
        else if (status == EXIT_DONE)
            status = ka_listen_fail("codes", &s->ports[port],
                                    port == UUIDS ? "--uuid-port" : "--text-port", &ev);
        if (status != EXIT_DONE) ka_stop(s->server);
    }
    return status;
}

static int run_server(const options *o)
{
    static state s;
    if (o->ports[UUIDS] && o->ports[UUIDS] == o->ports[TEXTS])
        return fail(EXIT_USAGE, "--uuid-port and --text-port must be two ports");
    s.path = o->log;
    s.hosts = o->host;
    if (o->host && !ka_hosts_valid(o->host))
        return fail(EXIT_USAGE, "--host %s: names without ports are needed, with commas between, "
                    "such as codes.example,www.example; or * for any", o->host);
    s.codes.max = (size_t)o->max_codes;
    int status = open_log(&s);
    if (status >= 0) return status;
    int r = ka_random(s.codes.secret, sizeof s.codes.secret);
    if (r == KA_OK) r = codes_double(&s.codes) ? ka_server_start(&s.server, 1) : KA_ENOMEM;
    if (r < 0) status = fail(EXIT_FAILED, "cannot start: %s", ka_error_text(r));
    else if (ka_stop_on_interrupt(s.server) < 0)
        status = fail(EXIT_FAILED, "cannot catch interrupts");
    else {
        for (int i = 0; i < 2 && status < 0; i++)
            status = ka_listen_all(&s.ports[i], s.server, NULL, "codes", o->ip, (int)o->ports[i]);
        s.source = (ka_source){ .batch_end = commit };
        ka_source_add(s.server, &s.source);
        if (status < 0) status = serve(&s);
    }
    ka_server_free(s.server);
    ka_log_close(s.log);
    free(s.codes.entries);
    ka_wipe(s.codes.secret, sizeof s.codes.secret);
    return status;
}

/* ---- the client ---- */

/* The server's place, for messages. */
static const char *place_of(const ka_client *c)
{
    static char text[KA_PLACE_TEXT + 1];
    return ka_place_text(text, c->host, c->port);
}

/* Say that the server is offline: the first time, and whenever the misses have doubled. */
static void on_miss(void *arg, int misses, int delay_ms, int error)
{
    const ka_client *c = arg;
    if ((misses & (misses - 1)) == 0)
        note("%s %s (miss %d); trying again in %d ms", place_of(c),
             error == KA_ETIME ? "does not answer" : "is offline", misses, delay_ms);
}

/* POST the first n fields, and find a member in what is answered.
     returns    KA_OK; the answer's status: refused, and *value says why; or KA_E... */
static int post(ka_client *c, const ka_str *fields, int n, const char *name, ka_json *value)
{
    char body[1024];
    ka_str text;
    ka_json all, success;
    ka_json_out w = { .p = body, .cap = sizeof body };
    ka_json_open(&w, NULL, KA_OBJECT);
    for (int i = 0; i < n; i++) ka_json_put(&w, field_names[i], fields[i]);
    ka_json_close(&w);
    int status = w.error ? KA_EPROTO : ka_client_post(c, body, w.n, &text);
    ka_wipe(body, sizeof body);
    if (status < 0) return status;
    if (ka_json_read(&all, text) < 0 || ka_json_find(&all, "success", &success) < 0)
        return KA_EPROTO;
    bool good = success.kind == KA_TRUE;
    return ka_json_find(&all, good ? name : "error", value) < 0 ? KA_EPROTO : good ? KA_OK : status;
}

/* One client's errand. Returns what post() did the last time, on c[*which]. */
static int errand(ka_client c[2], long long index, int *which, ka_json *answered)
{
    char uuid[KA_UUID_TEXT + 1], code[256], text[64];
    int text_n = snprintf(text, sizeof text, "Text insertion for index %lld", index);
    int r = ka_uuid_new(uuid);
    ka_str fields[] = { { uuid, KA_UUID_TEXT }, { code, 0 }, { text, (size_t)text_n } };
    *which = UUIDS;
    if (r == KA_OK) r = post(&c[UUIDS], fields, 1, "unique", answered);
    if (r != KA_OK) return r;
    ptrdiff_t code_n = ka_json_string(code, sizeof code, answered);
    if (code_n < 0) return KA_EPROTO;
    fields[1].n = (size_t)code_n;
    *which = TEXTS;
    r = post(&c[TEXTS], fields, 3, "success", answered);
    ka_wipe(code, sizeof code);
    return r;
}

/* What an errand that failed means for the user; -1: the next one may go better. */
static int errand_failed(const ka_client *c, int error, const ka_json *answered, long long index,
                         long long failures)
{
    char why[400];
    ka_json_out w = { .p = why, .cap = sizeof why };
    switch (error) {
    case KA_EOFFLINE:
        return fail(EXIT_OFFLINE, "gave up: %s is offline, or does not answer", place_of(c));
    case KA_EINVAL:
        return fail(EXIT_USAGE,
                    "%s: the address of one machine is needed, such as 127.0.0.1 or ::1",
                    c->host);
    case KA_EPROTO:
        return fail(EXIT_FAILED, "%s does not answer as codes server does", place_of(c));
    case KA_ERANDOM:  return fail(EXIT_FAILED, "%s", ka_error_text(error));
    default:          if (error > 0) break;
        return fail(EXIT_FAILED, "cannot connect to %s: %s (system error %d)", place_of(c),
                    ka_error_text(error), c->os_error);
    }
    ka_json_put_value(&w, NULL, answered);  /* anew: it can't play with the terminal then */
    if (failures <= ERRORS_TOLD)
        note("index %lld: refused with status %d: %.*s", index, error, w.error ? 0 : (int)w.n, why);
    else if (failures == ERRORS_TOLD + 1) note("further ones are only counted");
    return -1;
}

static void show_progress(long long done, long long all)
{
    static int64_t shown_ms;
    static const char bar[] = "########################################";
    int64_t now_ms = ka_now_ms();
    if (!ka_is_terminal(2) || (done < all && now_ms - shown_ms < 100)) return;
    shown_ms = now_ms;
    ka_say(2, "\r[%-40.*s] %lld/%lld", (int)(done * 40 / all), bar, done, all);
    if (done == all) ka_say(2, NULL);
}

static int run_client(const options *o)
{
    static ka_client c[2];      /* one for each port */
    long long stored = 0, failures = 0;
    int64_t begun_ms = ka_now_ms();
    char ips[KA_IPS_TEXT + 1];
    int status = ka_find_hosts(ips, "codes", o->ip);
    if (status >= 0) return status;
    for (int i = 0; i < 2; i++) {
        c[i].ip = ips;
        c[i].host = o->ip;
        c[i].port = (int)o->ports[i];
        c[i].type = "application/json";
        c[i].on_miss = on_miss;
        c[i].arg = &c[i];
    }
    for (long long i = 0; i < o->clients && status < 0; i++) {
        int which;
        ka_json answered;
        c[UUIDS].until_ms = c[TEXTS].until_ms = ka_now_ms() + o->give_up_s * 1000;
        int r = errand(c, i, &which, &answered);
        if (r == KA_OK) stored++;
        else status = errand_failed(&c[which], r, &answered, i, ++failures);
        show_progress(i + 1, o->clients);
    }
    ka_client_close(&c[UUIDS]);
    ka_client_close(&c[TEXTS]);
    if (status != EXIT_USAGE)
        printf("stored %lld of %lld texts in %.2f s\n", stored, o->clients,
               (double)(ka_now_ms() - begun_ms) / 1000);
    return status >= 0 ? status : failures ? EXIT_FAILED : EXIT_DONE;
}

/* ---- options ---- */

/* -1: go on; otherwise exit with this. */
static int parse(options *o, bool client, char **argv)
{
    const ka_option of_server[] = {
        { "--ip", .text = &o->ip },
        { "--log", .text = &o->log },
        { "--host", .text = &o->host },
        { "--max-codes", .number = &o->max_codes, .least = 1, .most = 1000000000 },
        { "--uuid-port", .number = &o->ports[UUIDS], .most = 65535 },
        { "--text-port", .number = &o->ports[TEXTS], .most = 65535 },
        { .name = NULL }
    };
    const ka_option of_client[] = {
        { "--uuid-port", .number = &o->ports[UUIDS], .least = 1, .most = 65535 },
        { "--text-port", .number = &o->ports[TEXTS], .least = 1, .most = 65535 },
        { "--give-up", .number = &o->give_up_s, .least = 1, .most = 999999999 },
        { "HOST", .text = &o->ip },
        { "N", .number = &o->clients, .least = 1, .most = 1000000000000 },
        { .name = NULL }
    };
    return ka_options(client ? of_client : of_server, "codes", usage, argv);
}

int main(int argc, char **argv)
{
    options o = {
        .ip = "127.0.0.1", .log = "messages.log", .ports = { 8000, 8001 },
        .max_codes = 1000000, .give_up_s = 10, .clients = 50,
    };
    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (ka_help(argv[1], "codes", usage)) return EXIT_DONE;
    bool client = strcmp(argv[1], "client") == 0;
    if (!client && strcmp(argv[1], "server") != 0)
        return fail(EXIT_USAGE, "%s: server or client has to come first; codes --help tells more",
                    argv[1]);
    int status = parse(&o, client, argv + 2);
    if (status >= 0) return status;
    return client ? run_client(&o) : run_server(&o);
}
