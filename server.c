/* server - the key handshake's server: HTTP in a worker thread, the keys here in the parent, or in Redis.
     cc -O2 -pthread -o server server.c
   What it answers is ka_auth_answer in keyauth.h, section 8. */

#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char DEFAULT_IP[] = "127.0.0.2";
static const int  DEFAULT_PORT = 9999;

enum { EXIT_STOPPED = 0, EXIT_SYSTEM = 1, EXIT_USAGE = 2 };

static const char usage[] =
    "usage: server [--ip 127.0.0.2] [--port 9999] [--wrong] [--max-keys N] [--ttl SECONDS]\n"
    "              [--journal FILE [--journal-salvage]] [--redis HOST:PORT[,password=...][,prefix=...]]\n"
    "              [--workers N] [--stats] [--help] [--version]\n"
    "\n"
    "  --ip IP         the IPv4 address to listen on, 127.0.0.2 unless told\n"
    "  --port PORT     the port, 9999 unless told; 0 lets the system choose one\n"
    "  --wrong         answer every login with an ID that is not the right one\n"
    "  --max-keys N    keep at most N keys (1000000 unless told), then say server_full\n"
    "  --ttl SECONDS   forget a key after so long, and less than a second more; 0, unless told: never\n"
    "  --journal FILE  keep the keys in FILE too: a key is given out only after it is on disk\n"
    "  --journal-salvage   leave out what is damaged in FILE, which is kept as FILE.damaged\n"
    "  --redis HOST:PORT[,password=...][,prefix=keyauth:]\n"
    "                  keep the keys in Redis instead, so that any number of servers are one; while it is away,\n"
    "                  say try_later. No commas in password and prefix. Not with --journal, --max-keys and --wrong\n"
    "  --workers N     run HTTP in N threads, 1 to 64; 1 unless told\n"
    "  --stats         show keys, connections and requests/s on stderr, every second\n"
    "\n"
    "Exit status: 0 stopped by Ctrl+C or SIGTERM; 1 could not run; 2 wrong usage.\n";

typedef struct {
    const char *ip, *journal, *redis;
    long long   port, max_keys, ttl_s, workers;
    bool        wrong, stats, salvage;
} options;

static int fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("server: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

/* A whole number from least to most, and nothing else. */
static bool number(const char *text, long long least, long long most, long long *out)
{
    char *end;
    if (*text < '0' || *text > '9' || strlen(text) > 18) return false;
    *out = strtoll(text, &end, 10);
    return *end == 0 && *out >= least && *out <= most;
}

/* -1: go on; otherwise exit with this. */
static int parse(options *o, int argc, char **argv)
{
    const struct { const char *name; bool *flag; const char **text; long long *number, least, most; } known[] = {
        { "--wrong", &o->wrong, NULL, NULL, 0, 0 },
        { "--stats", &o->stats, NULL, NULL, 0, 0 },
        { "--journal-salvage", &o->salvage, NULL, NULL, 0, 0 },
        { "--ip", NULL, &o->ip, NULL, 0, 0 },
        { "--journal", NULL, &o->journal, NULL, 0, 0 },
        { "--redis", NULL, &o->redis, NULL, 0, 0 },
        { "--port", NULL, NULL, &o->port, 0, 65535 },
        { "--max-keys", NULL, NULL, &o->max_keys, 1, 1000000000 },
        { "--ttl", NULL, NULL, &o->ttl_s, 0, 3153600000 },
        { "--workers", NULL, NULL, &o->workers, 1, KA_MAX_WORKERS },
    };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) return fputs(usage, stdout), EXIT_STOPPED;
        if (strcmp(argv[i], "--version") == 0) return puts("server " KA_VERSION), EXIT_STOPPED;
        size_t k = 0;
        while (k < sizeof known / sizeof *known && strcmp(argv[i], known[k].name) != 0) k++;
        if (k == sizeof known / sizeof *known) return fail(EXIT_USAGE, "%.*s: no such option; server --help lists them", (int)strcspn(argv[i], "=,"), argv[i]);
        if (known[k].flag) *known[k].flag = true;
        else if (++i == argc) return fail(EXIT_USAGE, "%s needs a value", known[k].name);
        else if (known[k].text) *known[k].text = argv[i];
        else if (!number(argv[i], known[k].least, known[k].most, known[k].number))
            return fail(EXIT_USAGE, "%s %s: a whole number from %lld to %lld is needed", known[k].name, argv[i], known[k].least, known[k].most);
    }
    return -1;
}

/* Cut HOST:PORT[,password=...][,prefix=...], of which r borrows. */
static bool redis_cut(char *text, ka_redis *r, const char **host, const char **prefix)
{
    long long n;
    char *rest = strchr(text, ',');
    if (rest) *rest++ = 0;
    char *port = strrchr(text, ':');
    if (!port || !number(port + 1, 1, 65535, &n)) return false;
    *port = 0;
    *host = text;
    r->port = (int)n;
    while (rest) {
        char *option = rest;
        rest = strchr(option, ',');
        if (rest) *rest++ = 0;
        if (strncmp(option, "password=", 9) == 0) r->password = option + 9;
        else if (strncmp(option, "prefix=", 7) == 0 && strlen(option + 7) <= KA_MAX_ID) *prefix = option + 7;
        else return false;
    }
    return true;
}

/* Where Redis is. What was given may hold a password, and so is not shown. -1: go on; otherwise exit with this. */
static int read_redis(const options *o, ka_redis *r, const char **prefix)
{
    static char text[2048], ip[16];
    const char *host;
    if (!o->redis) return -1;
    if (o->journal || o->max_keys || o->wrong) return fail(EXIT_USAGE, "--redis goes without --journal, --max-keys and --wrong: Redis has the keys");
    snprintf(text, sizeof text, "%s", o->redis);
    if (strlen(o->redis) >= sizeof text || !redis_cut(text, r, &host, prefix))
        return fail(EXIT_USAGE, "--redis needs HOST:PORT[,password=...][,prefix=...], such as 127.0.0.1:6379");
    int e = ka_resolve(host, ip);
    r->ip = ip;
    return e == KA_OK ? -1 : fail(EXIT_SYSTEM, "cannot find the host %s of --redis: %s", host, ka_error_text(e));
}

/* Say so when Redis is away, or keeps no keys, and why, and when it is back; once a second at most. */
static void show_redis(const ka_redis *r, int64_t now_ms)
{
    static char told[sizeof r->error];
    static int64_t last_ms;
    if (strcmp(r->error, told) == 0 || (!r->up && !r->error[0]) || now_ms - last_ms < 1000) return;
    memcpy(told, r->error, sizeof told);
    last_ms = now_ms;
    if (!told[0]) fail(0, "Redis at %s:%d is back", r->ip, r->port);
    else fail(0, "Redis at %s:%d %s: %s; keys are refused with try_later until it %s", r->ip, r->port, r->up ? "keeps no keys" : "is away", told,
              r->up ? "does" : "is back");
}

/* -1: go on; otherwise exit with this. */
static int open_journal(const options *o, ka_keyring *keys)
{
    ka_journal_report found;
    const char *file = o->journal;
    if (!file) return o->salvage ? fail(EXIT_USAGE, "--journal-salvage needs --journal FILE") : -1;
    int r = ka_journal_open(keys, file, o->salvage, &found);
    switch (r) {
    case KA_OK:       break;
    case KA_EINUSE:   if (found.damaged) return fail(EXIT_SYSTEM, "%s.damaged is there already; move it away first", file);
                      return fail(EXIT_SYSTEM, "%s is in use by another server; stop that one, or choose another file", file);
    case KA_EDAMAGED: return fail(EXIT_SYSTEM, "%s is damaged at byte %lld; --journal-salvage leaves out what can't be read", file,
                                  (long long)found.damaged_at);
    case KA_ESYNTAX:  return fail(EXIT_SYSTEM, "%s is no journal of keyauth; choose another file", file);
    case KA_EINVAL:   return fail(EXIT_SYSTEM, "%s is no file, or a symbolic link; choose another one", file);
    case KA_ENOTFOUND: return fail(EXIT_SYSTEM, "%s: its folder is not there; make it first", file);
    default:          return fail(EXIT_SYSTEM, "cannot use %s: %s (system error %d)", file, ka_error_text(r), found.os_error);
    }
    if (found.cut) fail(0, "%s: cut off its last %lld bytes, a commit that was not written to its end", file, (long long)found.cut);
    if (found.damaged) fail(0, "%s: left out %lld bytes, from %lld on; %s.damaged has them", file, (long long)found.damaged, (long long)found.damaged_at, file);
    return -1;
}

/* Say so when keys can't be written any more, and when they can again. */
static void show_journal(const options *o, const ka_keyring *keys)
{
    static int told;
    if (keys->journal_error == told) return;
    told = keys->journal_error;
    if (!told) fail(0, "%s is written again", o->journal);
    else fail(0, "cannot write %s: %s (system error %d); new keys are refused until it can be, logins go on", o->journal,
              ka_error_text(told), keys->journal_os_error);
}

static int cannot_listen(const options *o, const ka_event *ev)
{
    bool loopback = strncmp(o->ip, "127.", 4) == 0;
    switch (ev->error) {
    case KA_EINUSE: return fail(EXIT_SYSTEM, "%s:%lld is taken by another program; stop that one, or choose another --port", o->ip, o->port);
    case KA_EADDR:  return fail(EXIT_SYSTEM, "%s is not an address of this machine%s%s%s", o->ip, loopback ? "; on macOS add it first: sudo ifconfig lo0 alias " : "",
                                loopback ? o->ip : "", loopback ? " up" : "");
    case KA_EPERM:  return fail(EXIT_SYSTEM, "%s:%lld: not permitted; choose a port from 1024 up", o->ip, o->port);
    default:        return fail(EXIT_SYSTEM, "cannot listen on %s:%lld: %s (system error %d)", o->ip, o->port,
                                ka_error_text(ev->error), ev->os_error);
    }
}

/* A line on stderr every second, rewritten in place on a terminal. */
static void show_stats(ka_server *s, const ka_keyring *keys, int64_t now_ms)
{
    static int64_t last_ms;
    static size_t last_requests;
    char line[128];
    ka_stats st;
    if (now_ms - last_ms < 1000) return;
    ka_server_stats(s, &st);
    double seconds = last_ms ? (double)(now_ms - last_ms) / 1000 : 1;
    snprintf(line, sizeof line, "%llu keys, %llu connections, %.0f requests/s", (unsigned long long)keys->count,
             (unsigned long long)st.connections, (double)(st.requests - last_requests) / seconds);
    if (ka_is_terminal(2)) fprintf(stderr, "\r%-59s", line);
    else fprintf(stderr, "%s\n", line);
    fflush(stderr);
    last_ms = now_ms;
    last_requests = st.requests;
}

/* With --wrong, what would be a login's answer is replaced by an ID that nobody has. */
static int answer(const options *o, ka_keyring *keys, const ka_event *ev, char *text, size_t *n)
{
    char id[KA_KEY_TEXT + 1];
    int status = ka_auth_answer(keys, ev, text, n);
    bool login = ev->body.n > 6 && memcmp(ev->body.p, "login=", 6) == 0;
    if (!o->wrong || !login || (status != 200 && status != 403)) return status;
    if (ka_fresh_id(id) < 0) return *n = 0, 500;
    memcpy(text, id, *n = KA_KEY_TEXT);
    return 200;
}

static int serve(const options *o, ka_server *s, ka_keyring *keys, ka_redis *redis)
{
    char text[KA_MAX_ANSWER];
    int status = EXIT_STOPPED, r;
    bool listening = false;
    for (ka_event ev; (r = ka_wait(s, &ev, o->stats || o->journal || o->redis ? 1000 : -1)) == KA_OK || r == KA_ETIME; ) {
        if (o->stats && listening) show_stats(s, keys, ka_now_ms());
        show_journal(o, keys);
        if (o->redis) show_redis(redis, ka_now_ms());
        if (r == KA_ETIME || ka_redis_event(redis, &ev)) continue;
        if (ev.kind == KA_LISTENING) {
            if (ev.error) {
                status = cannot_listen(o, &ev);
                ka_stop(s);
                continue;
            }
            printf("listening on %s:%d\n", o->ip, ev.port);
            fflush(stdout);
            listening = true;
        } else {
            size_t n;
            int http = answer(o, keys, &ev, text, &n);
            if (http) ka_reply(s, &ev, http, http == 405 ? "Allow: POST\r\n" : NULL, text, n);
            ka_wipe(text, n);
        }
    }
    show_journal(o, keys);
    if (o->stats && ka_is_terminal(2)) fputc('\n', stderr);
    return status;
}

int main(int argc, char **argv)
{
    options o = { .ip = DEFAULT_IP, .port = DEFAULT_PORT, .workers = 1 };
    ka_redis redis = { .tag = 1 };
    const char *prefix = "keyauth:";
    ka_keyring keys;
    ka_server *s;
    int status = parse(&o, argc, argv);
    if (status < 0) status = read_redis(&o, &redis, &prefix);
    if (status >= 0) return status;

    int r = ka_keyring_init(&keys, (size_t)o.max_keys, o.ttl_s);
    if (r < 0) return fail(EXIT_SYSTEM, "cannot start: %s", ka_error_text(r));
    status = open_journal(&o, &keys);
    if (status >= 0) return ka_keyring_free(&keys), status;
    r = ka_server_start(&s, (int)o.workers);          /* the worker runs, and knows no address yet */
    if (r < 0) return fail(EXIT_SYSTEM, "cannot start: %s", ka_error_text(r));
    if (o.journal) ka_journal_group(&keys, s);
    if (o.redis && ((r = ka_redis_start(&redis, s)) < 0 || (r = ka_keyring_redis(&keys, &redis, prefix)) < 0))
        return fail(EXIT_SYSTEM, "cannot start: %s", ka_error_text(r));
    if (ka_stop_on_interrupt(s) < 0) return fail(EXIT_SYSTEM, "cannot catch interrupts");
    if (ka_listen(s, o.ip, (int)o.port) == KA_EINVAL) /* now it is told */
        status = fail(EXIT_USAGE, "--ip %s: a numeric IPv4 address is needed, such as %s", o.ip, DEFAULT_IP);
    else
        status = serve(&o, s, &keys, &redis);
    ka_redis_free(&redis);
    ka_server_free(s);
    ka_keyring_free(&keys);
    return status;
}
