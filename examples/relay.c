/* relay - passes messages on: who sends `message X` gets `ok X` from somebody who was chosen at random.
     cc -O2 -pthread -I. -o examples/relay examples/relay.c
     examples/relay server                     listening on 127.0.0.1:8000
     examples/relay client 127.0.0.1 8000 hi   sent, forwarded (to itself, if it is alone), answered
     examples/relay load --clients 1000        a thousand clients, a server of their own, and what became of them
   It shows lines over TCP, connections in both directions, timers, and more connections than a process has descriptors.

   The protocol, one line each way at a time; X is any text of up to 64 KiB in UTF-8, in which a line feed is written \n,
   a carriage return \r and a backslash \\:
     message X   to the server: forward it to one of the active connections, chosen at random, the sender included.
                 From the server: answer it by `ok X`
     ok X        to the server, from whom X was forwarded to: all who sent `message X` and still wait get `ok X`
     stats       to the server: `stats {...}` tells of it in JSON; who asks is no active connection any more
     error WHY   from the server: that line was not taken */

#define KEYAUTH_IMPLEMENTATION
#define KA_MAX_HEAD 512                     /* no HTTP here */
#define KA_MAX_BODY (8 + 2 * 65536)         /* "message " and an X in which each byte is escaped */
#define KA_MAILBOX (1u << 21)
#define KA_LINGER_MS 20000                  /* closing in order, even when a hundred thousand do */
#include "keyauth.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_OFFLINE = 3 };
enum { MAX_X = 65536 };

static const char usage[] =
    "usage: relay server [--ip 127.0.0.1] [--port 8000] [--workers 8] [--stats] [--no-reforward]\n"
    "       relay client [--delay SECONDS] [--timeout SECONDS] [--give-up SECONDS] IP PORT [X]\n"
    "       relay load [--clients 100000] [--window 60] [--delay 0..10] [--timeout SECONDS] [--workers N] [OPTION...]\n"
    "       relay --help | --version\n";

typedef struct {
    const char *ip, *x;                     /* client: x may be NULL: a random one */
    long long   port, workers;
    bool        stats, no_reforward;
    int64_t     delay_ms[2], timeout_ms, give_up_ms;     /* least, most */
    /* load */
    long long   clients, window_ms, seed, messages, ahead, vanish_percent, kill_at_ms;
    const char *server, *svg;
    bool        abrupt;
} options;

static int fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("relay: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

/* ---- lines ---- */

/* ---- server: connections, and the messages that wait for an ok ---- */

static int run_server(const options *o) { (void)o; return fail(EXIT_FAILED, "to be written"); }

/* ---- client: one, which tells what happens ---- */

static int run_client(const options *o) { (void)o; return fail(EXIT_FAILED, "to be written"); }

/* ---- load: many clients in one process, and a server of their own in another ---- */

enum {
    LOAD_SPARE = 100,               /* descriptors of a worker that are for no client */
    LOAD_PORTS = 12000,             /* clients of one source address: from 14,000 on Linux is slow to find a free port */
    LOAD_START_MS = 10000, LOAD_OFFLINE_MS = 3000, LOAD_ZERO_MS = 10000, LOAD_LIMIT_MS = 60000,
    LOAD_TOLD = 5,                  /* strange lines that are shown; the others are counted */
    LOAD_TEXT = 256,                /* bytes of an X here, at most */
    LOAD_LINEAR = 64, LOAD_BUCKETS = LOAD_LINEAR / 2 * 40
};

#define LOAD_NOBODY UINT32_MAX              /* no client, no message */
#define LOAD_STATS (UINT32_MAX - 1)         /* in a client's place: the connection that asks for stats */

/* A client's state; WAITING for its time to connect. */
enum { LOAD_WAITING, LOAD_CONNECTING, LOAD_OPEN, LOAD_CLOSING, LOAD_DONE, LOAD_VANISHED };

/* Why a client connects: for the first time, or again. */
enum { LOAD_FIRST, LOAD_LOST, LOAD_TIMED_OUT, LOAD_REFUSED, LOAD_WHYS };

/* A timer's tag is one of these << 32 | the client. They are never called off: one that has come looks at what there is to do. */
enum { LOAD_CONNECT, LOAD_OWED, LOAD_TIMEOUT, LOAD_ASK, LOAD_PROGRESS, LOAD_KILL, LOAD_LIMIT };

typedef struct {
    uint64_t conn;                  /* while LOAD_OPEN or LOAD_CLOSING */
    uint32_t owed, owed_last;       /* the messages that it has yet to answer, by their next_owed, the first due in front */
    uint32_t sent, acknowledged;    /* of its own messages */
    uint16_t misses;                /* connections in a row that were refused */
    uint8_t  state, why;
    uint8_t  then;                  /* LOAD_CLOSING: the state that comes after */
    bool     owed_timer, timeout_timer;     /* under way */
} load_client;

/* One of the --ahead messages that a client has under way. */
typedef struct {
    int64_t  sent_us, held_from_us;
    int64_t  held_us;               /* how long clients have held it, but for the one that does now */
    uint32_t number;                /* which of the client's; LOAD_NOBODY: none */
    uint32_t holder, next_owed;     /* the client that owes an ok for it, or LOAD_NOBODY */
} load_message;

/* What `stats` tells, in the order of load_figures. */
enum { LOAD_ACTIVE, LOAD_OUTSTANDING, LOAD_BUFFERED, LOAD_MEMORY, LOAD_PEAK, LOAD_CPU, LOAD_MESSAGES, LOAD_FORWARDS,
       LOAD_REFORWARDS, LOAD_OKS, LOAD_IGNORED, LOAD_ERRORS, LOAD_LOSSES, LOAD_OPENED, LOAD_FIGURES, LOAD_SUMS = LOAD_CPU };
static const char *const load_figures[LOAD_FIGURES] = { "active", "outstanding", "buffered", "memory", "peak", "cpu_us", "messages",
    "forwards", "reforwards", "oks", "ignored", "errors", "lost", "opened" };

typedef struct {
    const options *o;
    ka_server    *server;
    ka_child      child;            /* the relay's server, if it is our own */
    char          ip[16];
    int           port, workers;
    uint64_t      seed;
    uint32_t      clients_n, messages_each, ahead, *owner;      /* owner: of a connection, by ka_conn_index */
    size_t        owner_n;
    bool          sources;          /* connect from several addresses */
    load_client  *clients;
    load_message *messages;         /* `ahead` for each client */
    enum { LOAD_PREPARING, LOAD_RUNNING, LOAD_ENDING, LOAD_OVER } phase;
    int           status;           /* LOAD_OVER: -1: the checks tell; else exit with this */
    int64_t       begun_ms, ended_ms, timeout_ms;
    bool          bar_shown, killed;

    uint64_t      stats_conn;
    enum { LOAD_UNASKED, LOAD_KNOCKS, LOAD_ASKS } asking;
    uint32_t      unanswered, stale;        /* questions; and those of them that were asked before the end */
    int64_t       lives[LOAD_FIGURES], first[LOAD_FIGURES], last[LOAD_FIGURES], top[LOAD_FIGURES];      /* lives: sums of those killed;
                                                           top: when active was largest */
    uint32_t      started, open, peak, done, vanished, in_order;
    uint64_t      sent, sent_again, oks, strange, resets, connects[LOAD_WHYS];
    uint64_t      histogram[LOAD_BUCKETS];
    int64_t       slowest_us;
} load;

/* Stop with this status. */
static void load_stop(load *l, int status)
{
    if (l->phase == LOAD_OVER) return;
    l->phase = LOAD_OVER;
    l->status = status;
}

/* Before a line on stderr. */
static void load_bar_end(load *l)
{
    if (l->bar_shown) fputc('\n', stderr);
    l->bar_shown = false;
}

static void load_timer(load *l, int64_t at_ms, int kind, uint32_t i)
{
    if (ka_timer(l->server, at_ms, (uint64_t)kind << 32 | i) == KA_OK) return;
    load_bar_end(l);
    load_stop(l, fail(EXIT_FAILED, "out of memory; choose fewer --clients"));
}

/* ---- load: what is random. It follows from the seed, so that nothing of it has to be kept ---- */

/* splitmix64's mixer. */
static uint64_t load_mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

enum { LOAD_OF_START, LOAD_OF_DELAY, LOAD_OF_VANISHING, LOAD_OF_TEXT };      /* and, from here on, of the further texts */

static uint64_t load_random(const load *l, uint32_t i, uint64_t what)
{
    return load_mix(load_mix(l->seed + ((uint64_t)i + 1) * 0x9e3779b97f4a7c15u) + (what + 1) * 0x9e3779b97f4a7c15u);
}

static int64_t load_delay_us(const load *l, uint32_t i)
{
    uint64_t range = (uint64_t)(l->o->delay_ms[1] - l->o->delay_ms[0]) * 1000;
    return l->o->delay_ms[0] * 1000 + (int64_t)(load_random(l, i, LOAD_OF_DELAY) % (range + 1));
}

static bool load_vanishes(const load *l, uint32_t i)
{
    return (int64_t)(load_random(l, i, LOAD_OF_VANISHING) % 100) < l->o->vanish_percent;
}

/* A client's message X as it is in a line, 8 to some 60 characters: its client, its number, and what may be hard to pass on. */
static size_t load_text(const load *l, char out[LOAD_TEXT], uint32_t i, uint32_t number)
{
    static const char *const odd[] = { " ", "\\n", "\\r", "\\\\", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9d\x84\x9e", "  " };
    uint64_t r = load_random(l, i, LOAD_OF_TEXT + (uint64_t)number);
    size_t n = (size_t)snprintf(out, LOAD_TEXT, "%u.%u ", (unsigned)i, (unsigned)number);
    for (uint64_t left = 4 + r % 39; left > 0; left--) {
        r = load_mix(r + 0x9e3779b97f4a7c15u);
        if (r % 8) out[n++] = (char)('a' + (r >> 8) % 26);
        else for (const char *p = odd[(r >> 8) % 8]; *p; p++) out[n++] = *p;
    }
    return n;
}

/* ---- load: the histogram. Its buckets are 1 us wide up to 64, then 32 to each power of 2, as in HdrHistogram ---- */

static size_t load_bucket(int64_t us)
{
    size_t shift = 0;
    while (us >> shift >= LOAD_LINEAR) shift++;
    size_t bucket = shift * (LOAD_LINEAR / 2) + (size_t)(us >> shift);
    return bucket < LOAD_BUCKETS ? bucket : LOAD_BUCKETS - 1;
}

/* The least that is in a bucket. */
static int64_t load_bucket_us(size_t bucket)
{
    size_t shift = bucket < LOAD_LINEAR ? 0 : bucket / (LOAD_LINEAR / 2) - 1;
    return (int64_t)(bucket - shift * (LOAD_LINEAR / 2)) << shift;
}

static void load_measured(load *l, int64_t us)
{
    if (us < 0) us = 0;
    if (us > l->slowest_us) l->slowest_us = us;
    l->histogram[load_bucket(us)]++;
}

/* The microseconds that so much of 1 stayed within. */
static int64_t load_percentile(const load *l, double part)
{
    uint64_t seen = 0, wanted = (uint64_t)(part * (double)l->oks);
    for (size_t i = 0; i < LOAD_BUCKETS; i++) {
        seen += l->histogram[i];
        if (seen > wanted) return load_bucket_us(i + 1) - 1 < l->slowest_us ? load_bucket_us(i + 1) - 1 : l->slowest_us;
    }
    return l->slowest_us;
}

/* ---- load: lines ---- */

static void load_say(load *l, uint64_t conn, const char *word, const char *x, size_t n)
{
    char line[LOAD_TEXT + 16];
    size_t word_n = strlen(word);
    memcpy(line, word, word_n);
    if (n) memcpy(line + word_n, x, n);
    line[word_n + n] = '\n';
    ka_send(l->server, conn, line, word_n + n + 1);
}

/* Take a word off the front of a line. */
static bool load_word(ka_str *line, const char *word)
{
    size_t n = strlen(word);
    if (line->n < n || memcmp(line->p, word, n) != 0) return false;
    line->p += n;
    line->n -= n;
    return true;
}

/* Take a number off the front of a text, and what ends it. */
static bool load_number(ka_str *text, char end, uint32_t *out)
{
    uint64_t value = 0;
    size_t n = 0;
    while (n < text->n && n < 10 && text->p[n] >= '0' && text->p[n] <= '9') value = value * 10 + (uint64_t)(text->p[n++] - '0');
    if (n == 0 || n == text->n || text->p[n] != end || value > UINT32_MAX) return false;
    *out = (uint32_t)value;
    text->p += n + 1;
    text->n -= n + 1;
    return true;
}

/* Whose message this is, and which; false if nobody sent it, or not so. */
static bool load_known(const load *l, ka_str x, uint32_t *from, uint32_t *number)
{
    char text[LOAD_TEXT];
    ka_str rest = x;
    if (!load_number(&rest, '.', from) || !load_number(&rest, ' ', number)) return false;
    if (*from >= l->clients_n || *number >= l->clients[*from].sent) return false;
    size_t n = load_text(l, text, *from, *number);
    return n == x.n && memcmp(text, x.p, n) == 0;
}

/* A client's message of that number, if it is under way; LOAD_NOBODY: a free place. */
static load_message *load_find(load *l, uint32_t i, uint32_t number)
{
    load_message *m = &l->messages[(size_t)i * l->ahead];
    for (uint32_t k = 0; k < l->ahead; k++)
        if (m[k].number == number) return &m[k];
    return NULL;
}

/* A line that should not have come. Written anew as JSON, so that it can't play with the terminal. */
static void load_strange(load *l, uint32_t i, ka_str line)
{
    char text[1024];
    ka_json_out w = { .p = text, .cap = sizeof text };
    if (++l->strange > LOAD_TOLD) return;
    ka_json_put(&w, NULL, line);
    load_bar_end(l);
    fail(0, "client %u got a line that it should not get: %.*s", (unsigned)i, w.error ? 0 : (int)w.n, text);
}

/* ---- load: what a client owes ---- */

/* A message is held no longer. Time that it was held before it was sent again doesn't count. */
static void load_release(load_message *m, int64_t now_us)
{
    m->held_us += now_us - (m->held_from_us > m->sent_us ? m->held_from_us : m->sent_us);
    m->holder = LOAD_NOBODY;
}

static void load_owe(load *l, uint32_t i, load_message *m, int64_t now_us)
{
    load_client *c = &l->clients[i];
    uint32_t at = (uint32_t)(m - l->messages);
    m->holder = i;
    m->held_from_us = now_us;
    m->next_owed = LOAD_NOBODY;
    if (c->owed == LOAD_NOBODY) c->owed = at;
    else l->messages[c->owed_last].next_owed = at;
    c->owed_last = at;
}

/* Take the first off those that a client owes. */
static load_message *load_owed_take(load *l, load_client *c, int64_t now_us)
{
    load_message *m = &l->messages[c->owed];
    c->owed = m->next_owed;
    load_release(m, now_us);
    return m;
}

/* A message got its ok while its holder still holds it: another client had it too, as it was sent twice. */
static void load_disown(load *l, load_message *m, int64_t now_us)
{
    load_client *c = &l->clients[m->holder];
    uint32_t at = (uint32_t)(m - l->messages), before = LOAD_NOBODY;
    for (uint32_t k = c->owed; k != at; k = l->messages[k].next_owed) before = k;
    if (before == LOAD_NOBODY) c->owed = m->next_owed;
    else l->messages[before].next_owed = m->next_owed;
    if (c->owed_last == at) c->owed_last = before;
    load_release(m, now_us);
}

static void load_answer(load *l, uint32_t i, const load_message *m)
{
    char text[LOAD_TEXT];
    size_t n = load_text(l, text, (uint32_t)((size_t)(m - l->messages) / l->ahead), m->number);
    load_say(l, l->clients[i].conn, "ok ", text, n);
}

/* Answer what is due by then, and come back for what is not. */
static void load_pay(load *l, uint32_t i, int64_t due_us)
{
    load_client *c = &l->clients[i];
    int64_t delay_us = load_delay_us(l, i);
    while (c->owed != LOAD_NOBODY && l->messages[c->owed].held_from_us + delay_us <= due_us)
        load_answer(l, i, load_owed_take(l, c, ka_now_us()));
    if (c->owed == LOAD_NOBODY || c->owed_timer) return;
    c->owed_timer = true;
    load_timer(l, (l->messages[c->owed].held_from_us + delay_us + 999) / 1000, LOAD_OWED, i);
}

/* ---- load: a client ---- */

static void load_connect(load *l, uint32_t i)
{
    load_client *c = &l->clients[i];
    char from[16];
    snprintf(from, sizeof from, "127.1.%u.%u", i / LOAD_PORTS / 250 % 250, 1 + i / LOAD_PORTS % 250);
    c->state = LOAD_CONNECTING;
    if (ka_connect(l->server, KA_LINES, l->sources ? from : NULL, l->ip, l->port, i) == KA_OK) l->connects[c->why]++;
    else load_stop(l, EXIT_FAILED);      /* Ctrl+C */
}

static void load_connect_later(load *l, uint32_t i, uint8_t why)
{
    load_client *c = &l->clients[i];
    c->state = LOAD_WAITING;
    c->why = why;
    load_timer(l, ka_now_ms() + KA_RETRY_FIRST_MS + c->misses * KA_RETRY_STEP_MS, LOAD_CONNECT, i);
    if (c->misses < UINT16_MAX) c->misses++;
}

/* Close a client's connection. It answers what it owes, unless it vanishes, or is --abrupt; on_closed goes on. */
static void load_leave(load *l, uint32_t i, uint8_t then)
{
    load_client *c = &l->clients[i];
    if (then != LOAD_VANISHED && !l->o->abrupt) load_pay(l, i, INT64_MAX);
    while (c->owed != LOAD_NOBODY) load_owed_take(l, c, ka_now_us());
    ka_close(l->server, c->conn);
    c->state = LOAD_CLOSING;
    c->then = then;
}

static void load_send(load *l, uint32_t i, load_message *m)
{
    load_client *c = &l->clients[i];
    char text[LOAD_TEXT];
    size_t n = load_text(l, text, i, m->number);
    m->held_us = 0;
    m->sent_us = ka_now_us();
    load_say(l, c->conn, "message ", text, n);
    if (c->timeout_timer) return;
    c->timeout_timer = true;
    load_timer(l, m->sent_us / 1000 + l->timeout_ms + 1, LOAD_TIMEOUT, i);
}

static void load_send_next(load *l, uint32_t i, load_message *m)
{
    m->number = l->clients[i].sent++;
    l->sent++;
    load_send(l, i, m);
}

/* The client's messages: those that still wait for their ok, again, and as many new ones as it may. */
static void load_on_opened(load *l, uint32_t i)
{
    load_client *c = &l->clients[i];
    load_message *m = &l->messages[(size_t)i * l->ahead];
    c->state = LOAD_OPEN;
    c->misses = 0;
    if (++l->open > l->peak) l->peak = l->open;
    for (uint32_t k = 0; k < l->ahead; k++) {
        if (m[k].number != LOAD_NOBODY) {
            l->sent_again++;
            load_send(l, i, &m[k]);
        } else if (c->sent < l->messages_each) {
            load_send_next(l, i, &m[k]);
        }
    }
}

/* `message X`. One that has its ok already, or that another client holds too, is answered at once: it was sent twice. */
static void load_on_message(load *l, uint32_t i, ka_str x)
{
    uint32_t from, number;
    if (!load_known(l, x, &from, &number)) {
        load_strange(l, i, x);
        return;
    }
    if (load_vanishes(l, i)) {
        load_leave(l, i, LOAD_VANISHED);
        return;
    }
    load_message *m = load_find(l, from, number);
    if (!m || m->holder != LOAD_NOBODY || load_delay_us(l, i) == 0) {
        load_say(l, l->clients[i].conn, "ok ", x.p, x.n);
        return;
    }
    load_owe(l, i, m, ka_now_us());
    load_pay(l, i, m->held_from_us);
}

static void load_on_ok(load *l, uint32_t i, ka_str x)
{
    load_client *c = &l->clients[i];
    int64_t now_us = ka_now_us();
    uint32_t from, number;
    load_message *m = load_known(l, x, &from, &number) && from == i ? load_find(l, i, number) : NULL;
    if (!m) {
        load_strange(l, i, x);
        return;
    }
    if (m->holder != LOAD_NOBODY) load_disown(l, m, now_us);
    l->oks++;
    load_measured(l, now_us - m->sent_us - m->held_us);
    m->number = LOAD_NOBODY;
    c->acknowledged++;
    if (c->sent < l->messages_each) load_send_next(l, i, m);
    else if (c->acknowledged == l->messages_each) load_leave(l, i, LOAD_DONE);
}

static void load_on_line(load *l, uint32_t i, ka_str line)
{
    ka_str x = line;
    if (load_word(&x, "message ")) load_on_message(l, i, x);
    else if (load_word(&x, "ok ")) load_on_ok(l, i, x);
    else load_strange(l, i, line);
}

/* Its time-out may have come. Else its timer runs on, for the message that is due first. */
static void load_on_timeout(load *l, uint32_t i)
{
    load_client *c = &l->clients[i];
    const load_message *m = &l->messages[(size_t)i * l->ahead];
    int64_t first_us = INT64_MAX;
    c->timeout_timer = false;
    if (c->state != LOAD_OPEN) return;
    for (uint32_t k = 0; k < l->ahead; k++)
        if (m[k].number != LOAD_NOBODY && m[k].sent_us < first_us) first_us = m[k].sent_us;
    if (first_us == INT64_MAX) return;
    if (first_us + l->timeout_ms * 1000 <= ka_now_us()) {
        load_leave(l, i, LOAD_CONNECTING);
        return;
    }
    c->timeout_timer = true;
    load_timer(l, first_us / 1000 + l->timeout_ms + 1, LOAD_TIMEOUT, i);
}

static void load_finish(load *l)
{
    l->phase = LOAD_ENDING;
    l->ended_ms = ka_now_ms();
    l->stale = l->unanswered;
}

static void load_on_closed(load *l, uint32_t i, int error)
{
    load_client *c = &l->clients[i];
    l->open--;
    l->resets += error != 0;
    while (c->owed != LOAD_NOBODY) load_owed_take(l, c, ka_now_us());
    if (c->state == LOAD_OPEN) {
        load_connect_later(l, i, LOAD_LOST);
        return;
    }
    if (c->then == LOAD_CONNECTING) {
        c->why = LOAD_TIMED_OUT;
        load_connect(l, i);
        return;
    }
    c->state = c->then;
    l->in_order += error == 0;
    if (c->state == LOAD_DONE) l->done++;
    else l->vanished++;
    if (l->done + l->vanished == l->clients_n) load_finish(l);
}

/* ---- load: its own server ---- */

/* Start it, on the port that it had before, if any. KA_OK, or KA_E... */
static int load_server_start(load *l)
{
    char port[16], workers[16], line[256];
    const char *const args[] = { "server", "--port", port, "--workers", workers, l->o->no_reforward ? "--no-reforward" : NULL, NULL };
    snprintf(port, sizeof port, "%d", l->port);
    snprintf(workers, sizeof workers, "%d", l->workers);
    int r = ka_child_start(&l->child, args);
    while (r == KA_OK && (r = ka_child_line(&l->child, line, sizeof line, LOAD_START_MS)) == KA_OK)
        if (sscanf(line, "listening on %15[0-9.]:%d", l->ip, &l->port) == 2) return KA_OK;
    ka_child_end(&l->child, true, LOAD_START_MS);
    return r;
}

static void load_kill(load *l)
{
    for (int k = LOAD_SUMS; k < LOAD_FIGURES; k++) l->lives[k] = l->last[k];
    l->killed = true;
    ka_child_end(&l->child, true, LOAD_START_MS);
    int r = KA_EOFFLINE;
    for (int i = 0; i < 20 && (r = load_server_start(l)) < 0; i++) ka_sleep_ms(100);      /* somebody may have the port just now */
    if (r == KA_OK) return;
    load_bar_end(l);
    load_stop(l, fail(EXIT_FAILED, "cannot start the server again on port %d: %s", l->port, ka_error_text(r)));
}

/* ---- load: asking the server how it is ---- */

static void load_ask(load *l)
{
    if (l->asking == LOAD_ASKS) {
        l->unanswered++;
        load_say(l, l->stats_conn, "stats", NULL, 0);
    } else if (l->asking == LOAD_UNASKED) {
        l->asking = LOAD_KNOCKS;
        if (ka_connect(l->server, KA_LINES, NULL, l->ip, l->port, LOAD_STATS) < 0) load_stop(l, EXIT_FAILED);      /* Ctrl+C */
    }
}

/* Every second; short runs and the ends of long ones are looked at more closely. */
static void load_ask_again(load *l, int64_t now_ms)
{
    int64_t pause = l->o->window_ms / 50;
    if (pause > 1000) pause = 1000;
    if (pause < 50 || l->phase != LOAD_RUNNING) pause = 50;
    if (l->phase == LOAD_ENDING && now_ms >= l->ended_ms + LOAD_ZERO_MS) load_stop(l, -1);
    load_ask(l);
    load_timer(l, now_ms + pause, LOAD_ASK, 0);
}

/* The server can't be asked. Before the start that is the end; later it may be back soon. */
static void load_unasked(load *l, int error)
{
    char line[64];
    l->asking = LOAD_UNASKED;
    l->unanswered = l->stale = 0;
    if (error == KA_OK) load_ask(l);      /* a connection that has ended: if by Ctrl+C, this tells so */
    if (l->phase == LOAD_OVER) return;
    load_bar_end(l);
    if (l->child.pid && ka_child_line(&l->child, line, sizeof line, 0) == KA_ENOTFOUND) load_stop(l, fail(EXIT_FAILED, "the server has ended by itself"));
    else if (l->phase == LOAD_PREPARING && ka_now_ms() >= l->begun_ms + LOAD_OFFLINE_MS)
        load_stop(l, fail(EXIT_OFFLINE, "no relay server at %s:%d: %s", l->ip, l->port, ka_error_text(error)));
}

/* Every client at its moment. */
static void load_begin(load *l)
{
    l->phase = LOAD_RUNNING;
    l->begun_ms = ka_now_ms();
    for (uint32_t i = 0; i < l->clients_n && l->phase != LOAD_OVER; i++)
        load_timer(l, l->begun_ms + (int64_t)(load_random(l, i, LOAD_OF_START) % (uint64_t)(l->o->window_ms + 1)), LOAD_CONNECT, i);
    if (l->o->kill_at_ms) load_timer(l, l->begun_ms + l->o->kill_at_ms, LOAD_KILL, 0);
    load_timer(l, l->begun_ms + l->o->window_ms + 10 * l->timeout_ms + LOAD_LIMIT_MS, LOAD_LIMIT, 0);
}

/* Memory that may be left at the end: what there was at the start, a tenth of what came on top of that, and 8 MB. */
static int64_t load_memory_allowed(const load *l)
{
    return l->first[LOAD_MEMORY] + (l->top[LOAD_MEMORY] - l->first[LOAD_MEMORY]) / 10 + 8000000;
}

static bool load_zero(const load *l)
{
    return !l->last[LOAD_ACTIVE] && !l->last[LOAD_OUTSTANDING] && !l->last[LOAD_BUFFERED] && l->last[LOAD_MEMORY] <= load_memory_allowed(l);
}

static bool load_read_stats(load *l, ka_str line)
{
    ka_json all, value;
    char digits[24];
    if (!load_word(&line, "stats ") || ka_json_read(&all, line) < 0) return false;
    for (int k = 0; k < LOAD_FIGURES; k++) {
        if (ka_json_find(&all, load_figures[k], &value) < 0 || value.kind != KA_NUMBER || value.raw.n >= sizeof digits) return false;
        memcpy(digits, value.raw.p, value.raw.n);
        digits[value.raw.n] = 0;
        l->last[k] = strtoll(digits, NULL, 10) + (k >= LOAD_SUMS ? l->lives[k] : 0);
    }
    return true;
}

static void load_on_stats(load *l, ka_str line)
{
    uint32_t from, number;
    ka_str x = line;
    if (load_word(&x, "message ") && load_known(l, x, &from, &number)) {      /* before it had asked, it was one to forward to */
        load_say(l, l->stats_conn, "ok ", x.p, x.n);
        return;
    }
    if (!load_read_stats(l, line)) {
        load_bar_end(l);
        load_stop(l, fail(EXIT_FAILED, "%s:%d does not tell its stats as relay server does", l->ip, l->port));
        return;
    }
    bool stale = l->stale > 0;
    l->unanswered--;
    l->stale -= stale;
    if (l->phase == LOAD_PREPARING) {
        memcpy(l->first, l->last, sizeof l->first);
        memcpy(l->top, l->last, sizeof l->top);
        load_begin(l);
    }
    if (l->last[LOAD_ACTIVE] > l->top[LOAD_ACTIVE]) memcpy(l->top, l->last, sizeof l->top);
    if (l->phase == LOAD_ENDING && !stale && load_zero(l)) load_stop(l, -1);
}

static void load_on_stats_event(load *l, const ka_event *ev)
{
    if (ev->kind == KA_MESSAGE && !ev->error) {
        load_on_stats(l, ev->body);
    } else if (ev->kind == KA_CLOSED || (ev->kind == KA_OPENED && ev->error)) {
        load_unasked(l, ev->kind == KA_CLOSED ? KA_OK : ev->error);
    } else if (ev->kind == KA_OPENED) {
        l->asking = LOAD_ASKS;
        l->stats_conn = ev->conn;
        load_ask(l);
    }
}

/* ---- load: the loop ---- */

static void load_progress(load *l, int64_t now_ms)
{
    static const char bar[] = "########################################";
    bool terminal = ka_is_terminal(2);
    uint32_t ended = l->done + l->vanished;
    fprintf(stderr, terminal ? "\r[%-40.*s] started %u, open %u, done %u of %u " : "relay: %.*sstarted %u, open %u, done %u of %u\n",
            terminal ? (int)((uint64_t)ended * 40 / l->clients_n) : 0, bar, l->started, l->open, ended, l->clients_n);
    fflush(stderr);
    l->bar_shown = terminal;
    load_timer(l, now_ms + (terminal ? 100 : 10000), LOAD_PROGRESS, 0);
}

static void load_on_timer(load *l, const ka_event *ev)
{
    uint32_t i = (uint32_t)ev->tag;
    switch ((int)(ev->tag >> 32)) {
    case LOAD_CONNECT:
        if (l->clients[i].why == LOAD_FIRST) l->started++;
        load_connect(l, i);
        break;
    case LOAD_OWED:
        l->clients[i].owed_timer = false;
        load_pay(l, i, ka_now_us());
        break;
    case LOAD_TIMEOUT:  load_on_timeout(l, i); break;
    case LOAD_ASK:      load_ask_again(l, ev->now_ms); break;
    case LOAD_PROGRESS: load_progress(l, ev->now_ms); break;
    case LOAD_KILL:
        if (l->phase == LOAD_RUNNING) load_kill(l);
        break;
    default: /* LOAD_LIMIT */
        load_bar_end(l);
        if (l->phase == LOAD_RUNNING) fail(0, "it does not end; given up after %.0f s", (double)(ev->now_ms - l->begun_ms) / 1000);
        load_stop(l, EXIT_FAILED);
    }
}

/* What came of ka_connect, for a client. */
static void load_on_knock(load *l, uint32_t i, const ka_event *ev)
{
    if (ev->error == KA_EADDR && l->sources) {
        load_bar_end(l);
        load_stop(l, fail(EXIT_FAILED, "more than %d clients need more source addresses, and %u.%u is none of this machine's; macOS: "
                          "sudo ifconfig lo0 alias 127.1.0.K, for K from 1 to %u", LOAD_PORTS, 127, 1, 1 + (l->clients_n - 1) / LOAD_PORTS));
    } else if (ev->error) {
        load_connect_later(l, i, LOAD_REFUSED);
    } else {
        l->clients[i].conn = ev->conn;
        load_on_opened(l, i);
    }
}

/* Note whose connection this is. False: out of memory. */
static bool load_own(load *l, uint64_t conn, uint32_t who)
{
    size_t at = ka_conn_index(l->server, conn);
    if (at >= l->owner_n) {
        size_t n = at + at / 2 + 1024;
        uint32_t *more = realloc(l->owner, n * sizeof *more);
        if (!more) return false;
        l->owner = more;
        l->owner_n = n;
    }
    l->owner[at] = who;
    return true;
}

static void load_on_event(load *l, const ka_event *ev)
{
    if (ev->kind == KA_TIMER) {
        load_on_timer(l, ev);
        return;
    }
    if (ev->kind == KA_OPENED && !ev->error && !load_own(l, ev->conn, ev->seq)) {
        load_stop(l, fail(EXIT_FAILED, "out of memory; choose fewer --clients"));
        return;
    }
    uint32_t who = ev->kind == KA_OPENED ? ev->seq : l->owner[ka_conn_index(l->server, ev->conn)];
    if (who == LOAD_STATS) load_on_stats_event(l, ev);
    else if (ev->kind == KA_OPENED) load_on_knock(l, who, ev);
    else if (ev->kind == KA_CLOSED) load_on_closed(l, who, ev->error);
    else if (ev->error == 0 && l->clients[who].state == LOAD_OPEN) load_on_line(l, who, ev->body);
}

static void load_loop(load *l)
{
    l->begun_ms = ka_now_ms();
    load_ask_again(l, l->begun_ms);
    load_progress(l, l->begun_ms);
    for (ka_event ev; l->phase != LOAD_OVER && ka_wait(l->server, &ev, -1) == KA_OK; ) load_on_event(l, &ev);
    if (l->ended_ms == 0) l->ended_ms = ka_now_ms();
    load_bar_end(l);
}

/* ---- load: its report ---- */

static const struct { const char *name; double part; } load_parts[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p99.9", 0.999 } };
enum { LOAD_PARTS = sizeof load_parts / sizeof *load_parts };

static void load_report_server(const load *l)
{
    int64_t messages = l->last[LOAD_MESSAGES] - l->first[LOAD_MESSAGES], cpu_us = l->last[LOAD_CPU] - l->first[LOAD_CPU];
    int64_t grown = l->top[LOAD_MEMORY] - l->first[LOAD_MEMORY], most = l->top[LOAD_ACTIVE];
    printf("server       %.2f CPU seconds, %.2f us a message; %lld messages, %lld forwarded, %lld of them anew\n", (double)cpu_us / 1e6,
           messages ? (double)cpu_us / (double)messages : 0.0, (long long)messages,
           (long long)(l->last[LOAD_FORWARDS] - l->first[LOAD_FORWARDS]), (long long)(l->last[LOAD_REFORWARDS] - l->first[LOAD_REFORWARDS]));
    printf("memory       %.1f MB with %lld connections, %.1f MB with none: %.0f bytes a connection\n", (double)l->top[LOAD_MEMORY] / 1e6,
           (long long)most, (double)l->first[LOAD_MEMORY] / 1e6, most ? (double)grown / (double)most : 0.0);
}

static void load_report(const load *l)
{
    ka_usage own;
    double seconds = (double)(l->ended_ms - l->begun_ms) / 1000;
    uint64_t again = l->connects[LOAD_LOST] + l->connects[LOAD_TIMED_OUT] + l->connects[LOAD_REFUSED];
    ka_process_usage(&own);
    printf("clients      %u, %u done, %u vanished; %u open at once at the peak\n", l->clients_n, l->done, l->vanished, l->peak);
    printf("messages     %llu in %.2f s, %.0f a second; %llu sent again\n", (unsigned long long)l->oks, seconds,
           seconds > 0 ? (double)l->oks / seconds : 0.0, (unsigned long long)l->sent_again);
    fputs("latency     ", stdout);
    for (int k = 0; k < LOAD_PARTS; k++) printf("%12s", load_parts[k].name);
    fputs("         max\n  ms        ", stdout);
    for (int k = 0; k < LOAD_PARTS; k++) printf("%12.3f", (double)load_percentile(l, load_parts[k].part) / 1000);
    printf("%12.3f\n", (double)l->slowest_us / 1000);
    load_report_server(l);
    printf("reconnects   %llu: %llu lost, %llu time-outs, %llu refused; %llu resets\n", (unsigned long long)again,
           (unsigned long long)l->connects[LOAD_LOST], (unsigned long long)l->connects[LOAD_TIMED_OUT],
           (unsigned long long)l->connects[LOAD_REFUSED], (unsigned long long)l->resets);
    printf("this load    %.2f CPU seconds, %.1f MB\n", (double)own.cpu_us / 1e6, (double)own.memory / 1e6);
}

static bool load_check(bool held, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs(held ? "ok           " : "FAILED       ", stdout);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    return held;
}

/* A server that is killed resets connections; and with --no-reforward who was forwarded to somebody that has gone must time out. */
static bool load_checks(const load *l)
{
    unsigned long long all = (unsigned long long)l->clients_n * l->messages_each;
    uint32_t ended = l->done + l->vanished;
    bool held = load_check(ended == l->clients_n, "every message got its ok: %u of %u clients done, %llu of %llu messages; %u vanished",
                           l->done, l->clients_n - l->vanished, (unsigned long long)l->oks, all, l->vanished);
    held &= load_check(l->strange == 0, "lines that should not have come: %llu", (unsigned long long)l->strange);
    if (!l->killed)
        held &= load_check(l->in_order == l->clients_n && l->resets == 0 && l->connects[LOAD_LOST] == 0,
                           "closed by the clients, in order: %u of %u; %llu resets, %llu lost", l->in_order, l->clients_n,
                           (unsigned long long)l->resets, (unsigned long long)l->connects[LOAD_LOST]);
    if (!l->killed && !l->o->no_reforward)
        held &= load_check(l->connects[LOAD_TIMED_OUT] == 0, "time-outs: %llu", (unsigned long long)l->connects[LOAD_TIMED_OUT]);
    for (int k = LOAD_ACTIVE; k <= LOAD_BUFFERED; k++)
        held &= load_check(l->last[k] == 0, "zero state: %s %lld", load_figures[k], (long long)l->last[k]);
    held &= load_check(l->last[LOAD_MEMORY] <= load_memory_allowed(l), "zero state: memory %.1f MB, at most %.1f", (double)l->last[LOAD_MEMORY] / 1e6,
                       (double)load_memory_allowed(l) / 1e6);
    return held;
}

/* ---- load: its histogram as a picture, in the style of bench/ ---- */

enum { SVG_W = 820, SVG_H = 400, SVG_X0 = 80, SVG_X1 = 796, SVG_Y0 = 150, SVG_Y1 = 336, SVG_GROUPS = 8 /* bars for each power of 2 */,
       SVG_BARS = 40 * SVG_GROUPS };

static void svg_text(FILE *f, double x, double y, int size, const char *colour, const char *anchor, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%d\" fill=\"%s\" text-anchor=\"%s\"%s>", x, y, size, colour, anchor, size > 15 ? " font-weight=\"600\"" : "");
    vfprintf(f, format, args);
    fputs("</text>\n", f);
    va_end(args);
}

static const char svg_ink[] = "#1f2328", svg_faint[] = "#59636e", svg_blue[] = "#0969da", svg_line[] = "#d1d9e0";

/* Where a time is on the axis: its logarithm to the base 2. */
static double svg_scale(double us)
{
    double power = 0;
    for (; us >= 2; us /= 2) power++;
    for (double bit = 0.5; bit > 1e-6 && us >= 1; bit /= 2) {
        us *= us;
        if (us >= 2) power += bit, us /= 2;
    }
    return power;
}

/* Where a bar begins. */
static double svg_bar(size_t i)
{
    return svg_scale((double)((uint64_t)1 << i / SVG_GROUPS) * (1 + (double)(i % SVG_GROUPS) / SVG_GROUPS));
}

typedef struct { double first, last, top, bars[SVG_BARS]; } svg_axes;      /* bars: messages, over the bar's width; top: the highest */

static svg_axes svg_measure(const load *l)
{
    svg_axes a = { .first = 40, .top = 1 };
    for (size_t i = 0; i < LOAD_BUCKETS; i++) {
        uint64_t us = (uint64_t)load_bucket_us(i), power = 0;
        while (us >> power > 1) power++;
        size_t bar = (size_t)(power * SVG_GROUPS + ((us * SVG_GROUPS >> power) & (SVG_GROUPS - 1)));
        if (l->histogram[i] == 0 || bar >= SVG_BARS) continue;
        a.bars[bar] += (double)l->histogram[i] / (svg_bar(bar + 1) - svg_bar(bar)) / SVG_GROUPS;
        if (a.bars[bar] > a.top) a.top = a.bars[bar];
        if ((double)power < a.first) a.first = (double)power;
        if ((double)power + 1 > a.last) a.last = (double)power + 1;
    }
    return a;
}

static double svg_x(const svg_axes *a, double power)
{
    return SVG_X0 + (power - a->first) / (a->last > a->first ? a->last - a->first : 1) * (SVG_X1 - SVG_X0);
}

/* A grid line for every 1, 2 or 5 times a power of ten per cent; times at every power of ten, and where these are few, 2 and 5 times it. */
static void svg_grid(FILE *f, const svg_axes *a, uint64_t all)
{
    double share = 100 * a->top / (double)all, step = 0.01, times[3] = { 1, 2, 5 };
    for (int k = 0; share / step > 5; k++) step *= k % 3 == 1 ? 2.5 : 2;
    for (double y = 0; y <= share; y += step) {
        double at = SVG_Y1 - y / share * (SVG_Y1 - SVG_Y0);
        fprintf(f, "<path d=\"M%d %.1fH%d\" stroke=\"%s\"/>\n", SVG_X0, at, SVG_X1, svg_line);
        svg_text(f, SVG_X0 - 8, at + 4, 11, svg_faint, "end", "%g %%", y);
    }
    for (double us = 1; svg_scale(us) <= a->last && us < 1e12; us *= 10)
        for (int k = 0; k < (a->last - a->first > 8 ? 1 : 3); k++) {
            double v = us * times[k], at = svg_x(a, svg_scale(v));
            if (at < SVG_X0 - 1 || at > SVG_X1 + 1) continue;
            fprintf(f, "<path d=\"M%.1f %dv5\" stroke=\"%s\"/>\n", at, SVG_Y1, svg_faint);
            svg_text(f, at, SVG_Y1 + 19, 11, svg_faint, "middle", v < 1e3 ? "%g \xc2\xb5s" : v < 1e6 ? "%g ms" : "%g s", v < 1e3 ? v : v < 1e6 ? v / 1e3 : v / 1e6);
        }
}

/* Each in a row of its own, the last on top: so no line goes through another one's words. */
static void svg_percentiles(FILE *f, const load *l, const svg_axes *a)
{
    for (int k = 0; k < LOAD_PARTS; k++) {
        int64_t us = load_percentile(l, load_parts[k].part);
        double at = svg_x(a, svg_scale((double)us)), y = SVG_Y0 - 11 - 15 * k;
        bool right = at < SVG_X0 + 40;
        fprintf(f, "<path d=\"M%.1f %.1fV%d\" stroke=\"%s\" stroke-dasharray=\"3 3\"/>\n", at, y - 9, SVG_Y1, svg_ink);
        svg_text(f, at + (right ? 5 : -5), y, 12, svg_ink, right ? "start" : "end", "%s  %.3f ms", load_parts[k].name, (double)us / 1000);
    }
}

static bool load_svg(const load *l, const char *path)
{
    svg_axes a = svg_measure(l);
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" "
            "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\">\n<title>relay load</title>\n"
            "<rect x=\"0.5\" y=\"0.5\" width=\"%d\" height=\"%d\" rx=\"6\" fill=\"#ffffff\" stroke=\"%s\"/>\n", SVG_W, SVG_H, SVG_W, SVG_H, SVG_W - 1, SVG_H - 1, svg_line);
    svg_text(f, 24, 34, 18, svg_ink, "start", "%u clients, %llu messages", l->clients_n, (unsigned long long)l->oks);
    svg_text(f, 24, 54, 12, svg_faint, "start", "share of the messages over the time from message X to ok X, less the time that clients held it; at most %u open at once", l->peak);
    svg_text(f, (SVG_X0 + SVG_X1) / 2.0, SVG_H - 14, 12, svg_faint, "middle", "time in the relay");
    svg_grid(f, &a, l->oks ? l->oks : 1);
    for (size_t i = 0; i < SVG_BARS; i++) {
        double x = svg_x(&a, svg_bar(i)), next = svg_x(&a, svg_bar(i + 1)), height = a.bars[i] / a.top * (SVG_Y1 - SVG_Y0);
        if (a.bars[i] > 0) fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x + 0.5, SVG_Y1 - height, next - x - 1, height, svg_blue);
    }
    svg_percentiles(f, l, &a);
    fputs("</svg>\n", f);
    bool written = !ferror(f);
    return fclose(f) == 0 && written;
}

/* ---- load: its beginning and end ---- */

/* How many workers, on either side: each has so many descriptors of its own, or they share those that there are. -1, or exit with this. */
static int load_plan(load *l)
{
    bool each;
    int limit = ka_descriptors_raise(&each);
    long long most = limit < 0 ? 0 : (long long)limit - LOAD_SPARE, needed = 0;
    if (most > 0) needed = each ? (l->o->clients + most - 1) / most : l->o->clients > most ? KA_MAX_WORKERS + 1 : 1;
    if (most <= 0 || needed > KA_MAX_WORKERS)
        return fail(EXIT_FAILED, "%lld clients are more than the descriptor limit of %d allows%s; raise it (ulimit -n), or choose fewer --clients",
                    l->o->clients, limit, each ? " with 64 workers" : "");
    l->workers = l->o->workers ? (int)l->o->workers : (int)needed;
    return -1;
}

static int load_allocate(load *l)
{
    size_t n = l->clients_n, places = n * l->ahead;
    if (l->o->clients * l->o->ahead >= LOAD_STATS || l->o->messages >= LOAD_STATS) return fail(EXIT_USAGE, "so many messages at once can't be counted");
    l->clients = calloc(n, sizeof *l->clients);
    l->messages = malloc(places * sizeof *l->messages);
    if (!l->clients || !l->messages) return fail(EXIT_FAILED, "out of memory; choose fewer --clients, or --ahead");
    for (size_t i = 0; i < n; i++) l->clients[i].owed = l->clients[i].owed_last = LOAD_NOBODY;
    for (size_t i = 0; i < places; i++) l->messages[i] = (load_message){ .number = LOAD_NOBODY, .holder = LOAD_NOBODY, .next_owed = LOAD_NOBODY };
    return -1;
}

static int load_seed(load *l)
{
    uint32_t fresh;
    l->seed = (uint64_t)l->o->seed;
    if (l->o->seed >= 0) return -1;
    if (ka_random(&fresh, sizeof fresh) < 0) return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
    l->seed = fresh % 1000000000;
    return -1;
}

/* -1: go on; or exit with this. */
static int load_prepare(load *l)
{
    const options *o = l->o;
    char end;
    if (o->server && (sscanf(o->server, "%15[0-9.]:%5d%c", l->ip, &l->port, &end) != 2 || l->port < 1 || l->port > 65535))
        return fail(EXIT_USAGE, "--server %s: an address and a port are needed, such as 127.0.0.1:8000", o->server);
    if (o->server && o->kill_at_ms) return fail(EXIT_USAGE, "--kill-at is for a server of its own, not for --server");
    if (!o->server) l->port = (int)o->port;
    l->clients_n = (uint32_t)o->clients;
    l->messages_each = (uint32_t)o->messages;
    l->ahead = (uint32_t)(o->ahead < o->messages ? o->ahead : o->messages);
    l->timeout_ms = o->timeout_ms ? o->timeout_ms : 2 * o->delay_ms[1] + 20000;
    int status = load_seed(l);
    if (status < 0) status = load_plan(l);
    if (status < 0) status = load_allocate(l);
    if (status >= 0) return status;
    int r = o->server ? KA_OK : load_server_start(l);
    if (r < 0) return fail(EXIT_FAILED, "cannot start the server: %s", ka_error_text(r));
    l->sources = l->clients_n > LOAD_PORTS && strncmp(l->ip, "127.", 4) == 0;
    r = ka_server_start(&l->server, l->workers);
    if (r == KA_OK) r = ka_stop_on_interrupt(l->server);
    return r < 0 ? fail(EXIT_FAILED, "cannot start: %s", ka_error_text(r)) : -1;
}

/* Its exit status is one of the checks; Windows has no gentle end, and says 137. */
static bool load_server_end(load *l)
{
    if (!l->child.pid) return true;
    int r = ka_child_end(&l->child, false, LOAD_ZERO_MS + KA_DRAIN_MS);
    if (r == KA_ETIME) ka_child_end(&l->child, true, LOAD_START_MS);
    return load_check(r == 0 || r == 137, "the server ended: %d", r);
}

static int run_load(const options *o)
{
    static load l;
    l.o = o;
    l.status = -1;
    int status = load_prepare(&l);
    if (status < 0) {
        printf("relay load: seed %llu, %u clients over %.1f s, delays %.3f..%.3f s, %s server at %s:%d, workers %d\n", (unsigned long long)l.seed,
               l.clients_n, (double)o->window_ms / 1000, (double)o->delay_ms[0] / 1000, (double)o->delay_ms[1] / 1000, o->server ? "the" : "its own", l.ip, l.port, l.workers);
        fflush(stdout);
        load_loop(&l);
        status = l.phase == LOAD_OVER ? l.status : EXIT_FAILED;
        if (l.started) {
            load_report(&l);
            if (!load_checks(&l) && status < 0) status = EXIT_FAILED;
        }
        if (l.started && o->svg && !load_svg(&l, o->svg)) status = fail(EXIT_FAILED, "cannot write --svg %s", o->svg);
    }
    ka_server_free(l.server);
    if (!load_server_end(&l)) status = EXIT_FAILED;
    free(l.clients);
    free(l.messages);
    free(l.owner);
    return status < 0 ? EXIT_DONE : status;
}

/* ---- options ---- */

int main(int argc, char **argv)
{
    options o = { .ip = "127.0.0.1", .port = 8000, .workers = 8 };
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout), EXIT_DONE;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) return puts("relay " KA_VERSION), EXIT_DONE;
    if (argc > 1 && strcmp(argv[1], "server") == 0) return run_server(&o);
    if (argc > 1 && strcmp(argv[1], "client") == 0) return run_client(&o);
    if (argc > 1 && strcmp(argv[1], "load") == 0) return run_load(&o);
    return fputs(usage, stderr), EXIT_USAGE;
}
