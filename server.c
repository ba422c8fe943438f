/* server - the key handshake's server: HTTP in a worker thread, keys in the parent or in Redis.
     cc -O2 -pthread -o server server.c      What it answers: ka_auth in keyauth.h, section 7. */

#define KEYAUTH_STATIC
#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include "ext/input.h"
#include "ext/lookup.h"
#include "ext/cli.h"
#include "ext/file.h"
#include "ext/log.h"
#include "ext/access.h"
#include "ext/journal.h"
#include "ext/limit.h"
#include "ext/route.h"
#include "ext/site.h"
#include "ext/metrics.h"
#include "ext/redis.h"
#include "ext/service.h"

static const char usage[] =
    "usage: server [--ip 127.0.0.2] [--port 9999] [--wrong] [--max-keys N] [--ttl SECONDS]\n"
    "              [--journal FILE [--journal-salvage]] [--redis ADDRESS]\n"
    "              [--host NAME,...] [--workers N] [--max-per-peer N] [--ask-rate N[,BURST]]\n"
    "              [--log FILE [--log-json]] [--metrics HOST:PORT] [--stats]\n"
    "              [-h | --help] [--version]\n\n"
    "  --ip IP,...     listen on these addresses, or on those of a host's name (default: the\n"
    "                  sockets of a service manager, else 127.0.0.2).\n"
    "                  ::,0.0.0.0: all addresses. unix:PATH: a Unix socket\n"
    "  --port PORT     the port (default 9999); 0: the system chooses one\n"
    "  --wrong         answer every login with a wrong ID\n"
    "  --max-keys N    keep at most N keys (default 1000000). Then the answer is server_full\n"
    "  --ttl SECONDS   a key ends after so long, or up to a second later (default 0: never)\n"
    "  --journal FILE  keep the keys in FILE, too. A key is on disk before it is given out\n"
    "  --journal-salvage   leave out damaged parts of FILE. FILE.damaged keeps them\n"
    "  --redis ADDRESS keep the keys in Redis instead. All servers with the same Redis are one.\n"
    "                  If Redis is down: try_later. Not with --journal, --max-keys, --wrong\n"
    "                  ADDRESS: HOST:PORT or redis://[USER[:PASSWORD]@]HOST[:PORT]. Options may\n"
    "                  follow: ,user=NAME ,prefix=TEXT (default keyauth:) ,password-file=FILE\n"
    "                  ,password=WORD (ps shows it; default $KEYAUTH_REDIS_PASSWORD)\n"
    "  --host NAME,... hosts that browsers may use, beside loopback (default: none); *: any\n"
    "  --workers N     run HTTP in N threads, 1 to 64 (default 1)\n"
    "  --max-per-peer N  connections of one address (IPv6: a /64) at a time (default: any)\n"
    "  --ask-rate N[,BURST]  keys that one address may ask for in a second (default: any), and at\n"
    "                  once after a pause (default: N). Then the answer is 429 try_later\n"
    "  --log FILE      write a line to FILE for each answer, without key and ID. -: to stderr.\n"
    "                  Others may rotate FILE. --log-json: the lines are JSON\n"
    "  --metrics HOST:PORT  answer GET /metrics there, for Prometheus\n"
    "  --stats         each second, show keys, refusals, connections, requests/s on stderr\n\n"
    "Exit status: 0 stopped by Ctrl+C or SIGTERM; 1 could not run; 2 wrong usage.\n";

#define fail(...)  ka_fail(KA_EXIT_SYSTEM, "server: " __VA_ARGS__)
#define wrong(...) ka_fail(KA_EXIT_USAGE, "server: " __VA_ARGS__)
#define note(...)  ka_say(2, "server: " __VA_ARGS__)

typedef struct {
    const char      *ip, *host, *file, *address, *log, *place;      /* the command line's */
    long long        port, max_keys, ttl_s, workers, most, rate, burst;
    bool             wrong, stats, salvage, json, listening, full, site;
    ka_server       *s;
    ka_store        *store;                                  /* that of one of the next three */
    ka_keyring       keys;
    ka_journal       journal;
    ka_redis_store   shared;
    ka_redis         redis;
    ka_redis_address at;
    ka_listeners     listeners;
    ka_limit         limit;
    ka_service       service;
    ka_metrics       metrics;
    size_t           refused, requests;                      /* as of the last look */
    int64_t          shown_ms;
} server;

static size_t keys_of(const server *v) { return v->keys.count + v->journal.keys.count; }

/* -1: go on; otherwise exit with this. */
static int parse(server *v, char **argv)
{
    const ka_option known[] = {
        { "--wrong", .flag = &v->wrong }, { "--stats", .flag = &v->stats },
        { "--journal-salvage", .flag = &v->salvage }, { "--journal", .text = &v->file },
        { "--log", .text = &v->log }, { "--log-json", .flag = &v->json },
        { "--metrics", .text = &v->place }, { "--redis", .text = &v->address },
        { "--host", .text = &v->host }, { "--ip", .text = &v->ip },
        { "--port", .number = &v->port, .most = 65535 },
        { "--max-keys", .number = &v->max_keys, .least = 1, .most = 1000000000 },
        { "--workers", .number = &v->workers, .least = 1, .most = KA_MAX_WORKERS },
        { "--max-per-peer", .number = &v->most, .least = 1, .most = 1000000 },
        { "--ask-rate", .number = &v->rate, .least = 1, .most = 1000000, .second = &v->burst },
        { "--ttl", .number = &v->ttl_s, .most = 3153600000 }, { .name = NULL }
    };
    int status = ka_options(known, "server", usage, argv);
    if (status >= 0) return status;
    if (v->host && !ka_hosts_valid(v->host))
        return wrong("--host %s: names without ports are needed, with commas between, such as "
                     "keys.example,www.example; or * for any", v->host);
    if (v->salvage && !v->file) return wrong("--journal-salvage needs --journal FILE");
    if (v->json && !v->log) return wrong("--log-json needs --log FILE");
    if (v->address && (v->file || v->max_keys || v->wrong))
        return wrong("--redis goes without --journal, --max-keys and --wrong: Redis has the keys");
    return -1;
}

/* Tell stderr what has become of the store. */
static void show_store(server *v)
{
    char of_journal[KA_JOURNAL_TEXT], of_redis[KA_REDIS_TEXT];
    const int e = v->store->refused_error;
    const bool refused = v->store->refused != v->refused, room = !refused && e == KA_OK;
    while (v->file && ka_journal_news(of_journal, &v->journal, v->file)) note("%s", of_journal);
    while (v->address && ka_redis_news(of_redis, &v->shared)) note("%s", of_redis);
    if (refused && !v->full && (e == KA_EFULL || e == KA_ENOMEM)) {
        v->full = true;
        note("%s at %zu keys; new keys are refused with server_full until there is room, logins go "
             "on", e == KA_EFULL ? "full (--max-keys)" : ka_error_text(e), keys_of(v));
    }
    if (v->full && room) note("there is room for keys again");
    v->full = v->full && !room;
    v->refused = v->store->refused;
}

/* Once a second. On a terminal, each line of --stats is printed over the last one. */
static void show(server *v, int64_t now_ms)
{
    if (now_ms - v->shown_ms < 1000) return;
    ka_stats st;
    char keys[32] = "", refused[KA_LIMIT_TEXT];
    const double seconds = (double)(now_ms - v->shown_ms) / 1000;
    v->shown_ms = now_ms;
    show_store(v);
    if (ka_limit_news(refused, &v->limit, now_ms, v->stats ? 1000 : 60000))
        note("refused of late: %s", refused);
    if (!v->stats || !v->listening) return;
    ka_server_stats(v->s, &st);
    if (!v->address) snprintf(keys, sizeof keys, "%zu keys, ", keys_of(v));
    ka_say(2, "\r%s%zu refused, %zu connections, %.0f requests/s", keys, v->store->refused,
           st.connections, (double)(st.requests - v->requests) / seconds);
    v->requests = st.requests;
}

/* With --wrong, the answer to a login is an ID that nobody has. */
static int wrong_get(ka_store *st, const unsigned char digest[32], int64_t now_ms,
                     const ka_ticket *t, ka_str *id)
{
    static char wrong_id[KA_KEY_TEXT + 1];
    (void)st, (void)digest, (void)now_ms, (void)t;
    *id = (ka_str){ wrong_id, KA_KEY_TEXT };
    return ka_fresh_id(wrong_id);
}

/* For GET /metrics. */
static void figures(ka_metrics *m)
{
    const server *v = m->arg;
    const ka_journal *j = &v->journal;
    size_t away, often;
    ka_limit_refused(&v->limit, &away, &often);
    ka_metrics_put(m, "keyauth_keys", "Keys now, except those in Redis.", (double)keys_of(v));
    ka_metrics_put(m, "keyauth_keys_refused_total", "Keys not given.", (double)v->store->refused);
    ka_metrics_put(m, "keyauth_peers_refused_total", "Connections refused.", (double)away);
    ka_metrics_put(m, "keyauth_asks_refused_total", "By --ask-rate.", (double)often);
    ka_metrics_put(m, "keyauth_journal_commits_total", "Commits on disk.", (double)j->commits);
    ka_metrics_put(m, "keyauth_journal_seconds_total", "They took.", (double)j->commit_us / 1e6);
    if (v->address) ka_metrics_put(m, "keyauth_redis_up", "1: Redis can be used.", v->redis.up);
}

static int serve(server *v)
{
    int status = 0, r;
    char text[KA_PLACE_TEXT + 1];
    ka_event ev;
    while ((r = ka_wait(v->s, &ev, 1000)) == KA_OK || r == KA_ETIME) {
        show(v, r == KA_OK ? ev.now_ms : ka_now_ms());
        if (r == KA_ETIME) continue;
        if (ev.kind == KA_LISTENING && ev.error) {
            status = ka_listen_fail("server", &v->listeners, "--port", &ev);
            if (status) ka_stop(v->s);
        } else if (ev.kind == KA_LISTENING) {
            v->listening = true;
            ka_say(1, "listening on %s", ka_listener_text(text, &v->listeners, &ev));
        } else if (!ka_limit_refuses(&v->limit, v->s, &ev, "ask_key=") &&
                   ka_auth(v->s, v->store, &ev) == KA_EPERM && !v->site) {
            v->site = true;      /* told once, since a page can ask without end */
            note("refused what a browser sent for another site's page; if it is yours, see --host");
        }
    }
    show_store(v);
    ka_say(2, NULL);
    return status ? status : v->metrics.status;
}

/* -1: go on; otherwise exit with this. */
static int open_journal(server *v)
{
    char text[KA_JOURNAL_TEXT];
    ka_journal_report report;
    int r = ka_journal_open(&v->journal, v->s, v->file, (size_t)v->max_keys, v->ttl_s, v->salvage,
                            &report);
    const char *why = ka_journal_found(text, v->file, r, &report, "--journal");
    if (r < 0) return fail("%s", why);
    if (why) note("%s", why);
    v->store = &v->journal.store;
    return -1;
}

/* As open_journal. The address is not shown: it may hold a password. */
static int open_redis(server *v)
{
    const char *why;
    int r = ka_redis_read_address(&v->at, v->address, getenv("KEYAUTH_REDIS_PASSWORD"), &why);
    if (r < 0) return r == KA_ENOTFOUND ? fail("--redis: %s", why) : wrong("--redis: %s", why);
    r = ka_redis_start(&v->redis, v->s);
    if (r == KA_OK) r = ka_redis_store_init(&v->shared, &v->redis, v->ttl_s);
    if (r < 0) return fail("cannot start: %s", ka_error_text(r));
    v->store = &v->shared.store;
    return -1;
}

/* As open_journal. Only the last step tells the worker its address. */
static int start(server *v)
{
    int status = -1, r = ka_server_start(&v->s, (int)v->workers);      /* it has no address yet */
    if (r == KA_OK) r = ka_stop_on_interrupt(v->s);
    if (r == KA_OK) r = ka_keyring_init(&v->keys, (size_t)v->max_keys, v->ttl_s);
    if (r == KA_OK) r = ka_limit_init(&v->limit, (int)v->most, (int)v->rate, (int)v->burst);
    if (r < 0) return fail("cannot start: %s", ka_error_text(r));
    v->store = &v->keys.store;
    status = ka_access_start(v->s, "server", v->log, v->json);
    if (status < 0 && v->file) status = open_journal(v);
    else if (status < 0 && v->address) status = open_redis(v);
    if (status < 0) status = ka_metrics_start(&v->metrics, v->s, "server", v->place);
    if (status >= 0) return status;
    ka_service_start(&v->service, v->s);
    if (v->most) ka_admit(v->s, &v->limit.door);
    if (v->wrong) v->store->get = wrong_get;
    v->store->malformed = v->wrong;
    v->store->page = ka_own_page;
    v->store->hosts = v->host;
    return ka_listen_all(&v->listeners, v->s, NULL, "server", v->ip, (int)v->port);
}

int main(int argc, char **argv)
{
    server v = {
        .ip = ka_service_ips("127.0.0.2"), .port = 9999, .workers = 1,
        .redis = { .at = &v.at }, .at = { .prefix = "keyauth:" },
        .metrics = { .more = figures, .arg = &v },
    };
    int status = parse(&v, argv + (argc > 0));
    if (status < 0) status = start(&v);
    if (status < 0) status = serve(&v);
    ka_redis_free(&v.redis);
    ka_wipe(&v.at, sizeof v.at);
    ka_journal_close(&v.journal);
    ka_server_free(v.s);
    ka_limit_free(&v.limit);
    ka_keyring_free(&v.keys);
    return status;
}
