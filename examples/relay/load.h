/* load.h - relay load: many clients in one process, and a server of their own in another.

   Each client connects at a random moment, sends its messages, and answers those that it gets after
   a delay. When all have their ok the server is asked for its stats until it is at zero, and a
   report says what came of it. One thread plays all clients. All that is random follows from the
   seed and the client's number, so none of it is kept. */

#ifndef RELAY_LOAD_H
#define RELAY_LOAD_H

#include "relay.h"

#define LOAD_USAGE \
    "load: starts many clients in one process, and a server in another. Every message must get\n" \
    "its ok.\n" \
    "  --clients N      clients (default 100000)\n" \
    "  --window S       all clients start within S seconds, at random (default 60)\n" \
    "  --delay S[..S]   seconds before each answer (default 0..10)\n" \
    "  --timeout S      as of client (default: twice the longest delay, and 20 s)\n" \
    "  --messages N     messages of each client (default 1)\n" \
    "  --ahead N        messages of a client that wait for their ok at a time (default 1)\n" \
    "  --workers N      threads (default: as many as the clients need)\n" \
    "  --seed N         the seed of all random choices, which is printed (default: random)\n" \
    "  --server IP:PORT use this server instead\n" \
    "  --port PORT      the started server's port (default: the system chooses one)\n" \
    "  --vanish PERCENT so many clients close when they should answer (default 0)\n" \
    "  --kill-at S      kill the server after S seconds, and start it again\n" \
    "  --abrupt         clients close at their ok, and do not answer first\n" \
    "  --no-reforward   start the server with this option\n" \
    "  --svg FILE       draw the times from message to ok; FILE is new, or an old chart\n\n"

enum {
    LOAD_SPARE = 100,               /* descriptors of a worker that are for no client */
    LOAD_PORTS = 12000,             /* clients of a source address: beyond 14,000 Linux is slow to
                                       find a free port */
    LOAD_START_MS = 10000,          /* the server starts, or ends, within this time */
    LOAD_OFFLINE_MS = 1000,         /* --server may be offline for so long before the start */
    LOAD_ZERO_MS = 10000,           /* the server is at zero so long after the last client */
    LOAD_LIMIT_MS = 60000,          /* the run ends so long after window and ten time-outs */
    LOAD_TOLD = 5,                  /* strange lines that are shown; the others are counted */
    LOAD_TEXT = 256,                /* bytes of an X here, at most */
    LOAD_LINEAR = 64, LOAD_BUCKETS = LOAD_LINEAR / 2 * 40,
    LOAD_LIMITS = 40                /* 1, 2, 5, 10... us: more than there are buckets for */
};

#define LOAD_NOBODY UINT32_MAX              /* no client, no message */
#define LOAD_STATS (UINT32_MAX - 1)         /* the connection that asks for stats: no client */

typedef struct {
    long long   port, workers, clients, seed, messages, ahead, vanish_percent;
    int64_t     delay_ms[2], window_ms, timeout_ms, kill_at_ms;      /* delay: least, most */
    const char *server, *svg;
    bool        abrupt, no_reforward;
} load_options;

/* A client's state.
     WAITING     for its time to connect
     CONNECTING  ka_connect was called
     OPEN        it has a connection
     CLOSING     it has closed its connection, and KA_CLOSED has not come
     DONE        all its messages have their ok
     VANISHED    by --vanish, it closed while it owed an ok */
enum { LOAD_WAITING, LOAD_CONNECTING, LOAD_OPEN, LOAD_CLOSING, LOAD_DONE, LOAD_VANISHED };

/* Why a client connects: for the first time, or again. */
enum { LOAD_FIRST, LOAD_LOST, LOAD_TIMED_OUT, LOAD_REFUSED, LOAD_WHYS };

/* A timer's tag is one of these << 32 | the client. Timers are never called off. When one has come,
   its client's state tells what there is to do. */
enum { LOAD_CONNECT, LOAD_OWED, LOAD_TIMEOUT, LOAD_ASK, LOAD_PROGRESS, LOAD_KILL, LOAD_LIMIT };

typedef struct {
    uint64_t conn;                  /* LOAD_OPEN, LOAD_CLOSING */
    uint32_t owed, owed_last;       /* the messages to answer: a list, by next_owed */
    uint32_t sent, acknowledged;    /* of its own messages */
    uint16_t misses;                /* connections in a row that were refused */
    uint8_t  state, why;
    uint8_t  then;                  /* LOAD_CLOSING: the state that comes after */
    bool     owed_timer, timeout_timer;     /* such a timer is set */
} load_client;

/* One of the --ahead messages that a client has under way. */
typedef struct {
    int64_t  sent_us, held_from_us;
    int64_t  held_us;               /* how long clients have held it, without its holder of now */
    uint32_t number;                /* among the client's messages; LOAD_NOBODY: a free place */
    uint32_t holder, next_owed;     /* the client that owes an ok for it, or LOAD_NOBODY */
    bool     answered;              /* a client has given an ok for it since it was sent */
} load_message;

/* What `stats` tells. From LOAD_SUMS on, figures are counted by each server from 0. */
enum { LOAD_ACTIVE, LOAD_OUTSTANDING, LOAD_BUFFERED, LOAD_MEMORY, LOAD_PEAK, LOAD_CPU,
       LOAD_MESSAGES, LOAD_FORWARDS, LOAD_REFORWARDS, LOAD_OKS, LOAD_IGNORED, LOAD_ERRORS,
       LOAD_LOSSES, LOAD_OPENED, LOAD_FIGURES, LOAD_SUMS = LOAD_CPU };
static const char *const load_figures[LOAD_FIGURES] = {
    "active", "outstanding", "buffered", "memory", "peak", "cpu_us",
    "messages", "forwards", "reforwards", "oks", "ignored", "errors",
    "lost", "opened"
};

typedef struct {
    const load_options *o;
    ka_server    *server;
    ka_timers     timers;
    ka_child      child;            /* the relay's server; pid 0: it is another's */
    char          ip[KA_IP_TEXT + 1], place[KA_PLACE_TEXT + 1];
    int           port, workers;
    uint64_t      seed;
    uint32_t      clients_n, messages_each, ahead;
    uint32_t     *owner, owner_room;        /* the client of a connection, by ka_conn_index */
    bool          sources;          /* connect from several addresses */
    load_client  *clients;
    load_message *messages;         /* `ahead` for each client */
    enum { LOAD_PREPARING, LOAD_RUNNING, LOAD_ENDING, LOAD_OVER } phase;
    int           status;           /* LOAD_OVER: exit with this; -1: the checks tell */
    int64_t       begun_ms, ended_ms, timeout_ms;
    bool          killed, died;     /* the server, by --kill-at; the server, by itself */

    uint64_t      stats_conn;
    enum { LOAD_UNASKED, LOAD_KNOCKS, LOAD_ASKS } asking;
    uint32_t      unanswered, stale;        /* questions; those that are from before the end */
    long long     first[LOAD_FIGURES], last[LOAD_FIGURES];
    long long     top[LOAD_FIGURES];        /* when active was largest */
    long long     lives[LOAD_FIGURES];      /* sums of the servers that were killed */
    uint32_t      started, open, peak, done, vanished, in_order;
    unsigned long long sent_again, oks, strange, resets, connects[LOAD_WHYS];
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

static void load_timer(load *l, int64_t at_ms, int kind, uint32_t i)
{
    if (ka_timer(&l->timers, at_ms, (uint64_t)kind << 32 | i) == KA_OK) return;
    load_stop(l, fail(EXIT_FAILED, "out of memory; choose fewer --clients"));
}

/* A client's messages, `ahead` of them. */
static load_message *load_own_messages(const load *l, uint32_t i)
{
    return &l->messages[(size_t)i * l->ahead];
}

/* ---- load: what is random ---- */

enum { LOAD_OF_START, LOAD_OF_DELAY, LOAD_OF_VANISHING, LOAD_OF_TEXT };      /* LOAD_OF_TEXT + n */

/* splitmix64: its step, and its mixer. */
#define LOAD_STEP 0x9e3779b97f4a7c15u

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t load_random(const load *l, uint32_t i, uint64_t what)
{
    return mix(mix(l->seed + ((uint64_t)i + 1) * LOAD_STEP) + (what + 1) * LOAD_STEP);
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

/* Write a client's message X as it is in a line: its client, its number, and 4 to 42 characters,
   some of which may be hard to pass on. Returns its bytes. */
static size_t load_text(const load *l, char out[LOAD_TEXT], uint32_t i, uint32_t number)
{
    static const char *const odd[] = { " ", "\\n", "\\r", "\\\\", "\xc3\xa9", "\xe2\x82\xac",
                                       "\xf0\x9d\x84\x9e", "  " };
    uint64_t r = load_random(l, i, LOAD_OF_TEXT + (uint64_t)number);
    size_t n = (size_t)snprintf(out, LOAD_TEXT, "%u.%u ", (unsigned)i, (unsigned)number);
    for (uint64_t left = 4 + r % 39; left > 0; left--) {
        r = mix(r + LOAD_STEP);
        if (r % 8) out[n++] = (char)('a' + (r >> 8) % 26);
        else for (const char *p = odd[(r >> 8) % 8]; *p; p++) out[n++] = *p;
    }
    return n;
}

/* ---- load: the histogram. Buckets are 1 us wide up to 64 us. From there on each power of 2 has 32
   buckets, as in HdrHistogram ---- */

static size_t load_bucket(int64_t us)
{
    size_t shift = 0;
    while (us >> shift >= LOAD_LINEAR) shift++;
    size_t bucket = shift * (LOAD_LINEAR / 2) + (size_t)(us >> shift);
    return bucket < LOAD_BUCKETS ? bucket : LOAD_BUCKETS - 1;
}

/* The least time that is in a bucket. */
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

/* 1, 2, 5, 10, 20... */
static int64_t load_limit_us(int k)
{
    static const int steps[] = { 1, 2, 5 };
    int64_t us = steps[k % 3];
    for (; k >= 3; k -= 3) us *= 10;
    return us;
}

/* The time within which so large a part of the messages stayed. */
static int64_t load_percentile(const load *l, double part)
{
    uint64_t seen = 0, wanted = (uint64_t)(part * (double)l->oks);
    for (size_t i = 0; i < LOAD_BUCKETS; i++) {
        int64_t most = load_bucket_us(i + 1) - 1;
        seen += l->histogram[i];
        if (seen > wanted) return most < l->slowest_us ? most : l->slowest_us;
    }
    return l->slowest_us;
}

/* ---- load: lines ---- */

/* Take a number off the front of a text, and the character behind it. */
static bool load_number(ka_str *text, char end, uint32_t *out)
{
    uint64_t value = 0;
    size_t n = 0;
    for (; n < text->n && n < 10 && text->p[n] >= '0' && text->p[n] <= '9'; n++)
        value = value * 10 + (uint64_t)(text->p[n] - '0');
    if (n == 0 || n == text->n || text->p[n] != end || value > UINT32_MAX) return false;
    *out = (uint32_t)value;
    text->p += n + 1;
    text->n -= n + 1;
    return true;
}

/* Whose message this is, and which; false: nobody has sent it. */
static bool load_known(const load *l, ka_str x, uint32_t *from, uint32_t *number)
{
    char text[LOAD_TEXT];
    ka_str rest = x;
    if (!load_number(&rest, '.', from) || !load_number(&rest, ' ', number)) return false;
    if (*from >= l->clients_n || *number >= l->clients[*from].sent) return false;
    size_t n = load_text(l, text, *from, *number);
    return n == x.n && memcmp(text, x.p, n) == 0;
}

/* A client's message of that number, if it is under way; else NULL. LOAD_NOBODY: a free place. */
static load_message *load_find(load *l, uint32_t i, uint32_t number)
{
    load_message *m = load_own_messages(l, i);
    for (uint32_t k = 0; k < l->ahead; k++)
        if (m[k].number == number) return &m[k];
    return NULL;
}

/* A line that should not have come. As JSON it can't play with the terminal. */
static void load_strange(load *l, const char *who, uint32_t i, ka_str line)
{
    char text[1024];
    ka_json_out w = { .p = text, .cap = sizeof text };
    if (++l->strange > LOAD_TOLD) return;
    ka_json_put(&w, NULL, line);
    note("%s %u got a line that it should not get: %.*s", who, (unsigned)i,
         w.error ? 0 : (int)w.n, text);
}

/* ---- load: what a client owes ---- */

/* A message is held no longer. The time before it was sent again does not count. */
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

static void load_forgive(load *l, load_client *c)
{
    while (c->owed != LOAD_NOBODY) load_owed_take(l, c, ka_now_us());
}

/* A message got its ok while its holder still holds it: it was sent twice, and another client had
   it too. */
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

static void load_answer(load *l, uint32_t i, load_message *m)
{
    char text[LOAD_TEXT];
    uint32_t from = (uint32_t)((size_t)(m - l->messages) / l->ahead);
    size_t n = load_text(l, text, from, m->number);
    line_send(l->server, l->clients[i].conn, "ok", (ka_str){ text, n });
    m->answered = true;
}

/* Answer what is due by then, and set a timer for the rest. */
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
    uint32_t source = i / LOAD_PORTS;
    snprintf(from, sizeof from, "127.1.%u.%u", source / 250 % 250, 1 + source % 250);
    c->state = LOAD_CONNECTING;
    if (ka_connect(l->server, &ka_lines, l->sources ? from : NULL, l->ip, l->port, i) == KA_OK)
        l->connects[c->why]++;
    else load_stop(l, EXIT_FAILED);         /* Ctrl+C */
}

static void load_connect_later(load *l, uint32_t i, uint8_t why)
{
    load_client *c = &l->clients[i];
    int delay_ms = KA_RETRY_FIRST_MS + c->misses * KA_RETRY_STEP_MS;
    c->state = LOAD_WAITING;
    c->why = why;
    load_timer(l, ka_now_ms() + delay_ms, LOAD_CONNECT, i);
    if (c->misses < UINT16_MAX) c->misses++;
}

/* Close a client's connection. It answers first what it owes, unless it vanishes, or --abrupt.
   load_on_closed goes on. */
static void load_leave(load *l, uint32_t i, uint8_t then)
{
    load_client *c = &l->clients[i];
    if (then != LOAD_VANISHED && !l->o->abrupt) load_pay(l, i, INT64_MAX);
    load_forgive(l, c);
    ka_close(l->server, c->conn);
    c->state = LOAD_CLOSING;
    c->then = then;
}

/* A client that has all its oks closes when it owes none. If --abrupt, at once. */
static void load_leave_if_done(load *l, uint32_t i)
{
    const load_client *c = &l->clients[i];
    if (c->state != LOAD_OPEN || c->acknowledged < l->messages_each) return;
    if (c->owed == LOAD_NOBODY || l->o->abrupt) load_leave(l, i, LOAD_DONE);
}

static void load_send(load *l, uint32_t i, load_message *m)
{
    load_client *c = &l->clients[i];
    char text[LOAD_TEXT];
    size_t n = load_text(l, text, i, m->number);
    m->held_us = 0;
    m->answered = false;
    m->sent_us = ka_now_us();
    line_send(l->server, c->conn, "message", (ka_str){ text, n });
    if (c->timeout_timer) return;
    c->timeout_timer = true;
    load_timer(l, m->sent_us / 1000 + l->timeout_ms + 1, LOAD_TIMEOUT, i);
}

static void load_send_next(load *l, uint32_t i, load_message *m)
{
    m->number = l->clients[i].sent++;
    load_send(l, i, m);
}

/* Send a client's messages that still wait for their ok again, and as many new ones as it may. */
static void load_on_opened(load *l, uint32_t i)
{
    load_client *c = &l->clients[i];
    load_message *m = load_own_messages(l, i);
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
    load_leave_if_done(l, i);               /* the last connection was lost while it owed */
}

/* A message that has its ok already, or that another client holds too, was sent twice. It is
   answered at once. */
static void load_on_message(load *l, uint32_t i, ka_str x)
{
    uint32_t from, number;
    if (!load_known(l, x, &from, &number)) {
        load_strange(l, "client", i, x);
        return;
    }
    if (load_vanishes(l, i)) {
        load_leave(l, i, LOAD_VANISHED);
        return;
    }
    load_message *m = load_find(l, from, number);
    if (!m || m->holder != LOAD_NOBODY || load_delay_us(l, i) == 0) {
        line_send(l->server, l->clients[i].conn, "ok", x);
        if (m) m->answered = true;
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
    bool own = load_known(l, x, &from, &number) && from == i;
    load_message *m = own ? load_find(l, i, number) : NULL;
    if (!m || !m->answered) load_strange(l, "client", i, x);
    if (!m) return;
    if (m->holder != LOAD_NOBODY) load_disown(l, m, now_us);
    l->oks++;
    load_measured(l, now_us - m->sent_us - m->held_us);
    m->number = LOAD_NOBODY;
    c->acknowledged++;
    if (c->sent < l->messages_each) load_send_next(l, i, m);
    else load_leave_if_done(l, i);
}

static void load_on_line(load *l, uint32_t i, ka_str line)
{
    ka_str x;
    if (line_is(line, "message", &x)) load_on_message(l, i, x);
    else if (line_is(line, "ok", &x)) load_on_ok(l, i, x);
    else load_strange(l, "client", i, line);
}

/* The timer of a client's oldest message has come. If the oldest of now is younger, a timer is set
   for that one. */
static void load_on_timeout(load *l, uint32_t i)
{
    load_client *c = &l->clients[i];
    const load_message *m = load_own_messages(l, i);
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
    load_forgive(l, c);
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

/* Start the server, on the port that it had before, if any. KA_OK, or KA_E... */
static int load_server_start(load *l)
{
    char port[16], workers[16], line[256];
    const char *const args[] = { "server", "--port", port, "--workers", workers,
                                 l->o->no_reforward ? "--no-reforward" : NULL, NULL };
    snprintf(port, sizeof port, "%d", l->port);
    snprintf(workers, sizeof workers, "%d", l->workers);
    int r = ka_child_start(&l->child, args);
    while (r == KA_OK) {
        r = ka_child_line(&l->child, line, sizeof line, LOAD_START_MS);
        if (r == KA_OK && sscanf(line, "listening on 127.0.0.1:%d", &l->port) == 1) {
            ka_place_text(l->place, "127.0.0.1", l->port);
            return r;
        }
    }
    ka_child_end(&l->child, true, LOAD_START_MS);
    return r;
}

/* Kill the server and start it again. What was killed may still have its port for a moment. */
static void load_kill(load *l)
{
    int64_t until_ms = ka_now_ms() + LOAD_START_MS;
    for (int k = LOAD_SUMS; k < LOAD_FIGURES; k++) l->lives[k] = l->last[k];
    l->killed = true;
    ka_child_end(&l->child, true, LOAD_START_MS);
    int r = load_server_start(l);
    while (r < 0 && ka_now_ms() < until_ms) {
        ka_sleep_ms(100);
        r = load_server_start(l);
    }
    if (r == KA_OK) return;
    load_stop(l, fail(EXIT_FAILED, "cannot start the server again on port %d: %s", l->port,
                      ka_error_text(r)));
}

/* ---- load: asking the server for its stats ---- */

static void load_ask(load *l)
{
    if (l->asking == LOAD_ASKS) {
        l->unanswered++;
        ka_send(l->server, l->stats_conn, "stats\n", 6);
    }
    if (l->asking != LOAD_UNASKED) return;
    l->asking = LOAD_KNOCKS;
    int r = ka_connect(l->server, &ka_lines, NULL, l->ip, l->port, LOAD_STATS);
    if (r == KA_EINVAL)
        load_stop(l, fail(EXIT_USAGE, "--server %s: the address of one machine is needed", l->ip));
    else if (r < 0) load_stop(l, EXIT_FAILED);      /* Ctrl+C */
}

/* Ask each second, and more often if the run is short, and at its end. */
static void load_ask_again(load *l, int64_t now_ms)
{
    int64_t pause = l->o->window_ms / 50;
    if (pause > 1000) pause = 1000;
    if (pause < 50 || l->phase != LOAD_RUNNING) pause = 50;
    if (l->phase == LOAD_ENDING && now_ms >= l->ended_ms + LOAD_ZERO_MS) load_stop(l, -1);
    if (l->phase == LOAD_PREPARING && now_ms >= l->begun_ms + LOAD_START_MS)
        load_stop(l, fail(EXIT_FAILED, "%s does not tell its stats; is a relay server there?",
                          l->place));
    load_ask(l);
    load_timer(l, now_ms + pause, LOAD_ASK, 0);
}

/* The server can't be asked. Before the start that is the end; later it may be back soon.
     error   KA_OK: a connection has ended. load_ask tells then if that was by Ctrl+C */
static void load_unasked(load *l, int error)
{
    char line[64];
    l->asking = LOAD_UNASKED;
    l->unanswered = l->stale = 0;
    if (error == KA_OK) load_ask(l);
    if (l->phase == LOAD_OVER) return;
    l->died = l->child.pid && ka_child_line(&l->child, line, sizeof line, 0) == KA_ENOTFOUND;
    if (l->died) load_stop(l, fail(EXIT_FAILED, "the server has ended by itself"));
    else if (l->phase == LOAD_PREPARING && ka_now_ms() >= l->begun_ms + LOAD_OFFLINE_MS)
        load_stop(l, fail(EXIT_OFFLINE, "no relay server at %s: %s", l->place,
                          ka_error_text(error)));
}

/* Set a timer for the moment at which each client connects. */
static void load_begin(load *l)
{
    const load_options *o = l->o;
    uint64_t range = (uint64_t)(o->window_ms + 1);
    l->phase = LOAD_RUNNING;
    l->begun_ms = ka_now_ms();
    for (uint32_t i = 0; i < l->clients_n && l->phase != LOAD_OVER; i++) {
        int64_t in_ms = (int64_t)(load_random(l, i, LOAD_OF_START) % range);
        load_timer(l, l->begun_ms + in_ms, LOAD_CONNECT, i);
    }
    if (o->kill_at_ms) load_timer(l, l->begun_ms + o->kill_at_ms, LOAD_KILL, 0);
    load_timer(l, l->begun_ms + o->window_ms + 10 * l->timeout_ms + LOAD_LIMIT_MS, LOAD_LIMIT, 0);
}

/* Bytes of memory that may be left at the end: those of the start, a tenth of those that came on
   top of them, 4 MB, and the mailboxes of the server's workers. Nothing of a mailbox is in memory
   before it is used. */
static long long load_memory_allowed(const load *l)
{
    long long grown = l->top[LOAD_MEMORY] - l->first[LOAD_MEMORY];
    return l->first[LOAD_MEMORY] + grown / 10 + 4000000 + l->workers * (2LL * KA_MAILBOX + 300000);
}

static bool load_zero(const load *l)
{
    return !l->last[LOAD_ACTIVE] && !l->last[LOAD_OUTSTANDING] && !l->last[LOAD_BUFFERED] &&
           l->last[LOAD_MEMORY] <= load_memory_allowed(l);
}

static bool load_read_stats(load *l, ka_str line)
{
    ka_json all, value;
    ka_str text;
    char digits[24];
    if (!line_is(line, "stats", &text) || ka_json_read(&all, text) < 0) return false;
    for (int k = 0; k < LOAD_FIGURES; k++) {
        if (ka_json_find(&all, load_figures[k], &value) < 0 || value.kind != KA_NUMBER ||
            value.raw.n >= sizeof digits) return false;
        memcpy(digits, value.raw.p, value.raw.n);
        digits[value.raw.n] = 0;
        l->last[k] = strtoll(digits, NULL, 10) + (k >= LOAD_SUMS ? l->lives[k] : 0);
    }
    return true;
}

/* Until it has asked, the connection that asks is an active one and may get a message. The server
   forwards that to another one. */
static void load_on_stats(load *l, ka_str line)
{
    if (line_is(line, "message", &(ka_str){ 0 })) return;
    if (!load_read_stats(l, line)) {
        load_strange(l, "who asked for stats of life", l->killed, line);
        load_stop(l, fail(EXIT_FAILED, "%s does not tell its stats as relay server does",
                          l->place));
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
    if (ev->kind == KA_MESSAGE && !ev->error) load_on_stats(l, ev->body);
    if (ev->kind == KA_CLOSED) load_unasked(l, KA_OK);
    if (ev->kind != KA_OPENED) return;
    if (ev->error) {
        load_unasked(l, ev->error);
        return;
    }
    l->asking = LOAD_ASKS;
    l->stats_conn = ev->conn;
    load_ask(l);
}

/* ---- load: the loop ---- */

static const char load_bar[] = "########################################";      /* 40 columns */

static void load_progress(load *l, int64_t now_ms)
{
    bool terminal = ka_is_terminal(2);
    uint32_t ended = l->done + l->vanished;
    int bar = terminal ? (int)((uint64_t)ended * 40 / l->clients_n) : 0;
    ka_say(2, terminal ? "\r[%-40.*s] started %u, open %u, done %u of %u"
                       : "relay: %.*sstarted %u, open %u, done %u of %u",
           bar, load_bar, l->started, l->open, ended, l->clients_n);
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
        load_leave_if_done(l, i);
        break;
    case LOAD_TIMEOUT:  load_on_timeout(l, i); break;
    case LOAD_ASK:      load_ask_again(l, ev->now_ms); break;
    case LOAD_PROGRESS: load_progress(l, ev->now_ms); break;
    case LOAD_KILL:
        if (l->phase == LOAD_RUNNING) load_kill(l);
        break;
    default: /* LOAD_LIMIT */
        if (l->phase == LOAD_RUNNING)
            note("it does not end; given up after %.0f s",
                 (double)(ev->now_ms - l->begun_ms) / 1000);
        load_stop(l, EXIT_FAILED);
    }
}

/* A client's ka_connect has come to its end. */
static void load_on_knock(load *l, uint32_t i, const ka_event *ev)
{
    if (ev->error == KA_EADDR && l->sources) {
        const char *add = ka_alias_command();
        load_stop(l, fail(EXIT_FAILED, "more than %d clients need the source addresses 127.1.0.1 "
                          "to 127.1.0.%u; give them to this machine%s%s%s", LOAD_PORTS,
                          1 + (l->clients_n - 1) / LOAD_PORTS, add ? ", each by " : "",
                          add ? add : "", add ? " 127.1.0.1" : ""));
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
    if (at >= UINT32_MAX / 2) return false;
    if (!room_for(&l->owner, &l->owner_room, (uint32_t)at + 1, sizeof *l->owner)) return false;
    l->owner[at] = who;
    return true;
}

static void load_on_event(load *l, const ka_event *ev)
{
    if (ev->kind == KA_TIMER) {
        load_on_timer(l, ev);
        return;
    }
    if (ev->kind == KA_OPENED && !ev->error && !load_own(l, ev->conn, (uint32_t)ev->tag)) {
        load_stop(l, fail(EXIT_FAILED, "out of memory; choose fewer --clients"));
        return;
    }
    size_t at = ka_conn_index(l->server, ev->conn);
    uint32_t who = ev->kind == KA_OPENED ? (uint32_t)ev->tag : l->owner[at];
    if (who == LOAD_STATS) load_on_stats_event(l, ev);
    else if (ev->kind == KA_OPENED) load_on_knock(l, who, ev);
    else if (ev->kind == KA_CLOSED) load_on_closed(l, who, ev->error);
    else if (!ev->error && l->clients[who].state == LOAD_OPEN) load_on_line(l, who, ev->body);
}

static void load_loop(load *l)
{
    ka_event ev;
    l->begun_ms = ka_now_ms();
    load_ask_again(l, l->begun_ms);
    load_progress(l, l->begun_ms);
    while (l->phase != LOAD_OVER && ka_wait(l->server, &ev, -1) == KA_OK) load_on_event(l, &ev);
    if (l->ended_ms == 0) l->ended_ms = ka_now_ms();
    ka_say(2, NULL);
}

/* ---- load: its report ---- */

static const struct { const char *name; double part; } load_parts[] = {
    { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p99.9", 0.999 }
};
enum { LOAD_PARTS = sizeof load_parts / sizeof *load_parts };

static double ms_of(int64_t us) { return (double)us / 1000; }

static double load_ratio(double a, double b) { return b > 0 ? a / b : 0; }

/* How much a figure has grown since the start. */
static long long load_grown(const load *l, int figure)
{
    return l->last[figure] - l->first[figure];
}

static void load_report_server(const load *l)
{
    long long messages = load_grown(l, LOAD_MESSAGES), cpu_us = load_grown(l, LOAD_CPU);
    long long most = l->top[LOAD_ACTIVE], grown = l->top[LOAD_MEMORY] - l->first[LOAD_MEMORY];
    printf("server       %.2f CPU seconds, %.2f us a message; %lld messages, %lld forwarded, "
           "%lld of them anew\n", (double)cpu_us / 1e6,
           load_ratio((double)cpu_us, (double)messages), messages, load_grown(l, LOAD_FORWARDS),
           load_grown(l, LOAD_REFORWARDS));
    printf("memory       %.1f MB with %lld connections, %.1f MB with none: %.0f bytes a "
           "connection\n", (double)l->top[LOAD_MEMORY] / 1e6, most,
           (double)l->first[LOAD_MEMORY] / 1e6, load_ratio((double)grown, (double)most));
}

static void load_report_latency(const load *l)
{
    fputs("latency     ", stdout);
    for (int k = 0; k < LOAD_PARTS; k++) printf("%12s", load_parts[k].name);
    fputs("         max\n  ms        ", stdout);
    for (int k = 0; k < LOAD_PARTS; k++)
        printf("%12.3f", ms_of(load_percentile(l, load_parts[k].part)));
    printf("%12.3f\n", ms_of(l->slowest_us));
}

static void load_report_histogram(const load *l)
{
    unsigned long long left = l->oks;
    size_t i = 0;
    for (int k = 0; k < LOAD_LIMITS && left > 0; k++) {
        unsigned long long n = 0;
        for (; i < LOAD_BUCKETS && load_bucket_us(i) < load_limit_us(k); i++) n += l->histogram[i];
        left -= n;
        if (left == l->oks) continue;
        printf("  < %-14g%12llu%9.3f %%  %.*s\n", ms_of(load_limit_us(k)), n,
               100 * (double)n / (double)l->oks, (int)(n * 40 / l->oks), load_bar);
    }
}

static void load_report(const load *l)
{
    ka_usage own;
    double took_s = ms_of(l->ended_ms - l->begun_ms);
    unsigned long long lost = l->connects[LOAD_LOST], late = l->connects[LOAD_TIMED_OUT];
    unsigned long long misses = l->connects[LOAD_REFUSED];
    ka_process_usage(&own);
    printf("clients      %u, %u done, %u vanished; %u open at once at the peak\n", l->clients_n,
           l->done, l->vanished, l->peak);
    printf("messages     %llu in %.2f s, %.0f a second; %llu sent again\n", l->oks, took_s,
           load_ratio((double)l->oks, took_s), l->sent_again);
    load_report_latency(l);
    load_report_histogram(l);
    load_report_server(l);
    printf("reconnects   %llu: %llu lost, %llu time-outs, %llu refused; %llu resets\n",
           lost + late + misses, lost, late, misses, l->resets);
    printf("this load    %.2f CPU seconds, %.1f MB\n", (double)own.cpu_us / 1e6,
           (double)own.memory / 1e6);
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

/* What must hold if no server was killed: that resets connections. With --no-reforward, a message
   that was forwarded to somebody who has gone must time out. */
static bool load_checks_unkilled(const load *l)
{
    unsigned long long lost = l->connects[LOAD_LOST], late = l->connects[LOAD_TIMED_OUT];
    bool held = load_check(l->in_order == l->clients_n && l->resets == 0 && lost == 0,
                           "closed by the clients, in order: %u of %u; %llu resets, %llu lost",
                           l->in_order, l->clients_n, l->resets, lost);
    if (l->o->no_reforward) return held;
    held &= load_check(late == 0, "time-outs: %llu", late);
    if (l->o->vanish_percent) return held;
    return load_check(load_grown(l, LOAD_IGNORED) == 0, "oks for which nobody waited: %lld",
                      load_grown(l, LOAD_IGNORED)) && held;
}

static bool load_checks(const load *l)
{
    unsigned long long all = (unsigned long long)l->clients_n * l->messages_each;
    long long memory = l->last[LOAD_MEMORY], allowed = load_memory_allowed(l);
    bool held = load_check(l->done + l->vanished == l->clients_n, "every message got its ok: "
                           "%u of %u clients done, %llu of %llu messages; %u vanished", l->done,
                           l->clients_n - l->vanished, l->oks, all, l->vanished);
    held &= load_check(l->strange == 0, "lines that should not have come: %llu", l->strange);
    if (!l->killed) held &= load_checks_unkilled(l);
    for (int k = LOAD_ACTIVE; k <= LOAD_BUFFERED; k++)
        held &= load_check(l->last[k] == 0, "zero state: %s %lld", load_figures[k], l->last[k]);
    held &= load_check(memory <= allowed, "zero state: memory %.1f MB, at most %.1f",
                       (double)memory / 1e6, (double)allowed / 1e6);
    return held;
}

/* ---- load: its histogram as a picture, in the style of bench/ ---- */

enum {
    SVG_W = 820, SVG_H = 400,
    SVG_X0 = 80, SVG_X1 = 796, SVG_Y0 = 150, SVG_Y1 = 336,      /* of the axes */
    SVG_BUCKETS = 4,                        /* to a bar */
    SVG_BARS = LOAD_BUCKETS / SVG_BUCKETS
};

static const char svg_ink[] = "#1f2328", svg_faint[] = "#59636e", svg_blue[] = "#0969da";
static const char svg_line[] = "#d1d9e0";

static const char svg_head[] =
    "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
    "role=\"img\" font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', "
    "sans-serif\">\n<title>relay load</title>\n"
    "<rect x=\"0.5\" y=\"0.5\" width=\"%d\" height=\"%d\" rx=\"6\" fill=\"#ffffff\" "
    "stroke=\"%s\"/>\n";

static void svg_text(FILE *f, double x, double y, int size, const char *colour, const char *anchor,
                     const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%d\" fill=\"%s\" text-anchor=\"%s\"%s>", x,
            y, size, colour, anchor, size > 15 ? " font-weight=\"600\"" : "");
    vfprintf(f, format, args);
    fputs("</text>\n", f);
    va_end(args);
}

typedef struct {
    size_t   first, last;                   /* bars: from the first one, to before the last one */
    uint64_t top;                           /* messages of the highest bar */
} svg_axes;

static uint64_t svg_bar(const load *l, size_t bar)
{
    uint64_t n = 0;
    for (size_t i = bar * SVG_BUCKETS; i < (bar + 1) * SVG_BUCKETS; i++) n += l->histogram[i];
    return n;
}

static svg_axes svg_measure(const load *l)
{
    svg_axes a = { .first = SVG_BARS, .top = 1 };
    for (size_t bar = 0; bar < SVG_BARS; bar++) {
        uint64_t n = svg_bar(l, bar);
        if (n && bar < a.first) a.first = bar;
        if (n) a.last = bar + 1;
        if (n > a.top) a.top = n;
    }
    return a;
}

/* Where a bucket begins. The scale is that of the buckets: from 64 us on a logarithm. */
static double svg_x(const svg_axes *a, size_t bucket)
{
    double bars = a->last > a->first ? (double)(a->last - a->first) : 1;
    return SVG_X0 + ((double)bucket / SVG_BUCKETS - (double)a->first) / bars * (SVG_X1 - SVG_X0);
}

/* Lines at the quarters of the highest bar, which are told as shares of all messages. */
static void svg_shares(FILE *f, const svg_axes *a, uint64_t all)
{
    for (int quarter = 0; quarter <= 4; quarter++) {
        double at = SVG_Y1 - quarter / 4.0 * (SVG_Y1 - SVG_Y0);
        fprintf(f, "<path d=\"M%d %.1fH%d\" stroke=\"%s\"/>\n", SVG_X0, at, SVG_X1, svg_line);
        svg_text(f, SVG_X0 - 8, at + 4, 11, svg_faint, "end", "%.2g %%",
                 quarter * 25.0 * (double)a->top / (double)all);
    }
}

/* Times of 1, 2 and 5 times a power of ten, where there is room for their names. */
static void svg_times(FILE *f, const svg_axes *a)
{
    static const struct { int64_t us; const char *format; } units[] = {
        { 1000000, "%g s" }, { 1000, "%g ms" }, { 1, "%g \xc2\xb5s" }
    };
    double before = 0;
    for (int k = 0; k < LOAD_LIMITS; k++) {
        int64_t us = load_limit_us(k);
        double at = svg_x(a, load_bucket(us));
        size_t unit = 0;
        if (at < SVG_X0 - 1 || at > SVG_X1 + 1 || at < before + 48) continue;
        before = at;
        while (us < units[unit].us) unit++;
        fprintf(f, "<path d=\"M%.1f %dv5\" stroke=\"%s\"/>\n", at, SVG_Y1, svg_faint);
        svg_text(f, at, SVG_Y1 + 19, 11, svg_faint, "middle", units[unit].format,
                 (double)us / (double)units[unit].us);
    }
}

/* Each percentile in a row of its own, the last one on top: no line goes through words. */
static void svg_percentiles(FILE *f, const load *l, const svg_axes *a)
{
    for (int k = 0; k < LOAD_PARTS; k++) {
        int64_t us = load_percentile(l, load_parts[k].part);
        double at = svg_x(a, load_bucket(us)), y = SVG_Y0 - 11 - 15 * k;
        bool right = at < SVG_X0 + 140;
        fprintf(f, "<path d=\"M%.1f %.1fV%d\" stroke=\"%s\" stroke-dasharray=\"3 3\"/>\n", at,
                y - 9, SVG_Y1, svg_ink);
        svg_text(f, at + (right ? 5 : -5), y, 12, svg_ink, right ? "start" : "end", "%s  %.3f ms",
                 load_parts[k].name, ms_of(us));
    }
}

static void svg_bars(FILE *f, const load *l, const svg_axes *a)
{
    for (size_t bar = a->first; bar < a->last; bar++) {
        double x = svg_x(a, bar * SVG_BUCKETS), next = svg_x(a, (bar + 1) * SVG_BUCKETS);
        double height = (double)svg_bar(l, bar) / (double)a->top * (SVG_Y1 - SVG_Y0);
        if (height <= 0) continue;
        fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n",
                x + 0.5, SVG_Y1 - height, next - x - 1, height, svg_blue);
    }
}

static bool load_svg(const load *l, const char *path)
{
    svg_axes a = svg_measure(l);
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    fprintf(f, svg_head, SVG_W, SVG_H, SVG_W, SVG_H, SVG_W - 1, SVG_H - 1, svg_line);
    svg_text(f, 24, 34, 18, svg_ink, "start", "%u clients, %llu messages", l->clients_n, l->oks);
    svg_text(f, 24, 54, 12, svg_faint, "start", "share of the messages over the time from message "
             "X to ok X, less the time that clients held it; at most %u open at once", l->peak);
    svg_text(f, (SVG_X0 + SVG_X1) / 2.0, SVG_H - 14, 12, svg_faint, "middle", "time in the relay");
    svg_shares(f, &a, l->oks ? l->oks : 1);
    svg_times(f, &a);
    svg_bars(f, l, &a);
    svg_percentiles(f, l, &a);
    fputs("</svg>\n", f);
    bool written = !ferror(f);
    return fclose(f) == 0 && written;
}

/* May the chart be written to this file? What is there has to be empty, or a chart.
   -1: go on; else exit with this. */
static int svg_look(const char *path)
{
    static const char begins[] = "<svg ";
    char head[sizeof begins - 1], why[KA_TROUBLE_TEXT];
    ptrdiff_t n = path ? ka_file_get(path, head, sizeof head) : 0;
    if (n == 0 || n == KA_ENOTFOUND) return -1;
    if (n > 0 && memcmp(head, begins, (size_t)n) != 0) n = KA_ESYNTAX;
    if (n > 0) return -1;
    return fail(EXIT_FAILED, "cannot use %s: %s; choose another --svg", path,
                ka_file_trouble(why, path, (int)n, 0));
}

/* ---- load: its beginning and end. These functions return -1: go on; or the status to exit with */

/* How many workers, on either side. Where each worker has a descriptor limit of its own, as many as
   hold all clients. */
static int load_plan(load *l)
{
    bool each;
    int limit = ka_descriptors_raise(&each);
    long long n = l->o->clients, most = limit < 0 ? 0 : (long long)limit - LOAD_SPARE, needed = 1;
    if (most > 0 && each) needed = (n + most - 1) / most;
    if (most <= 0 || needed > KA_MAX_WORKERS || (!each && n > most))
        return fail(EXIT_FAILED, "%lld clients are more than the descriptor limit of %d allows%s, "
                    "less %d for other things; raise it (ulimit -n), or choose fewer --clients", n,
                    limit, each ? " with 64 workers" : "", LOAD_SPARE);
    l->workers = l->o->workers ? (int)l->o->workers : (int)needed;
    return -1;
}

static int load_allocate(load *l)
{
    size_t n = l->clients_n, places = n * l->ahead;
    if (l->o->clients * l->o->ahead >= LOAD_STATS || l->o->messages >= LOAD_STATS)
        return fail(EXIT_USAGE, "so many messages at once can't be counted");
    l->clients = calloc(n, sizeof *l->clients);
    l->messages = malloc(places * sizeof *l->messages);
    if (!l->clients || !l->messages)
        return fail(EXIT_FAILED, "out of memory; choose fewer --clients, or --ahead");
    for (size_t i = 0; i < n; i++) l->clients[i].owed = l->clients[i].owed_last = LOAD_NOBODY;
    for (size_t i = 0; i < places; i++)
        l->messages[i] = (load_message){ .number = LOAD_NOBODY, .holder = LOAD_NOBODY,
                                         .next_owed = LOAD_NOBODY };
    return -1;
}

/* Find the server: its port, and the first of its addresses. */
static int load_address(load *l)
{
    char host[KA_MAX_HOST + 1] = "127.0.0.1", ips[KA_IPS_TEXT + 1];
    const char *text = l->o->server, *left = ips;
    l->port = text ? 0 : (int)l->o->port;
    if (text && ka_place_read(host, &l->port, (ka_str){ text, strlen(text) }) < 0)
        return fail(EXIT_USAGE, "--server %s: a host and a port are needed, such as "
                    "127.0.0.1:8000 or [::1]:8000", text);
    ka_place_text(l->place, host, l->port);
    int status = ka_find_hosts(ips, "relay", host);
    return status >= 0 || ka_next_ip(&left, l->ip) ? status : EXIT_USAGE;
}

/* Take what is needed from the options, and a seed. */
static int load_settle(load *l)
{
    const load_options *o = l->o;
    uint32_t fresh;
    int status = load_address(l);
    if (status >= 0) return status;
    if (o->server && o->kill_at_ms)
        return fail(EXIT_USAGE, "--kill-at is for a server of its own, not for --server");
    l->clients_n = (uint32_t)o->clients;
    l->messages_each = (uint32_t)o->messages;
    l->ahead = (uint32_t)(o->ahead < o->messages ? o->ahead : o->messages);
    l->timeout_ms = o->timeout_ms ? o->timeout_ms : 2 * o->delay_ms[1] + 20000;
    if (ka_random(&fresh, sizeof fresh) < 0)
        return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
    l->seed = o->seed < 0 ? fresh % 1000000000 : (uint64_t)o->seed;
    return -1;
}

static int load_prepare(load *l)
{
    int status = load_settle(l);
    if (status < 0) status = load_plan(l);
    if (status < 0) status = load_allocate(l);
    if (status >= 0) return status;
    int r = l->o->server ? KA_OK : load_server_start(l);
    if (r < 0)
        return fail(EXIT_FAILED, "cannot start the server: %s",
                    r == KA_ENOTFOUND ? "it ended before it listened" : ka_error_text(r));
    l->sources = l->clients_n > LOAD_PORTS && strncmp(l->ip, "127.", 4) == 0;
    r = ka_server_start(&l->server, l->workers + KA_OWN_DESCRIPTORS);
    if (r == KA_OK) {
        ka_timers_init(&l->timers, l->server);
        r = ka_stop_on_interrupt(l->server);
    }
    return r < 0 ? fail(EXIT_FAILED, "cannot start: %s", ka_error_text(r)) : -1;
}

static void load_tell(const load *l)
{
    const load_options *o = l->o;
    printf("relay load: seed %llu, %u clients over %.1f s, delays %.3f..%.3f s, %s server at "
           "%s, workers %d\n", (unsigned long long)l->seed, l->clients_n, ms_of(o->window_ms),
           ms_of(o->delay_ms[0]), ms_of(o->delay_ms[1]), o->server ? "the" : "its own", l->place,
           l->workers);
    fflush(stdout);
}

static int load_run(load *l)
{
    load_tell(l);
    load_loop(l);
    int status = l->phase == LOAD_OVER ? l->status : EXIT_FAILED;
    if (!l->started) return status;
    load_report(l);
    if (!load_checks(l) && status < 0) status = EXIT_FAILED;
    if (!l->o->svg) return status;
    int looked = svg_look(l->o->svg);       /* others may have put a file there meanwhile */
    if (looked >= 0) return looked;
    return load_svg(l, l->o->svg) ? status : fail(EXIT_FAILED, "cannot write --svg %s", l->o->svg);
}

/* Is the server's exit status good? Windows has no gentle end, and says 137. */
static bool load_server_end(load *l)
{
    if (!l->child.pid) return true;
    int r = ka_child_end(&l->child, false, LOAD_ZERO_MS + KA_DRAIN_MS);
    if (r == KA_ETIME) ka_child_end(&l->child, true, LOAD_START_MS);
    return load_check(!l->died && (r == 0 || r == 137), "the server ended: %d", r);
}

static int load_with(const load_options *o)
{
    load l = { .o = o, .status = -1 };
    int status = svg_look(o->svg);
    if (status < 0) status = load_prepare(&l);
    if (status < 0) status = load_run(&l);
    ka_server_free(l.server);
    ka_timers_free(&l.timers);
    if (!load_server_end(&l)) status = EXIT_FAILED;
    free(l.clients);
    free(l.messages);
    free(l.owner);
    if (fflush(stdout) != 0 || ferror(stdout))
        status = fail(EXIT_FAILED, "the report could not be written");
    return status < 0 ? EXIT_DONE : status;
}

static int run_load(const char *usage, char **argv)
{
    load_options o = { .clients = 100000, .window_ms = 60000, .delay_ms = { 0, 10000 }, .seed = -1,
                       .messages = 1, .ahead = 1 };
    const ka_option known[] = {
        { "--port", .number = &o.port, .most = 65535 },
        { "--workers", .number = &o.workers, .most = KA_MAX_WORKERS },
        { "--no-reforward", .flag = &o.no_reforward },
        { "--delay", .parse = seconds_range, .to = o.delay_ms },
        { "--timeout", .parse = seconds, .to = &o.timeout_ms, .least = 1 },
        { "--clients", .number = &o.clients, .least = 1, .most = 10000000 },
        { "--window", .parse = seconds, .to = &o.window_ms },
        { "--server", .text = &o.server },
        { "--seed", .number = &o.seed, .most = 999999999999999999 },
        { "--messages", .number = &o.messages, .least = 1, .most = 1000000000 },
        { "--ahead", .number = &o.ahead, .least = 1, .most = MAX_WAITING },
        { "--vanish", .number = &o.vanish_percent, .most = 100 },
        { "--kill-at", .parse = seconds, .to = &o.kill_at_ms, .least = 1 },
        { "--abrupt", .flag = &o.abrupt },
        { "--svg", .text = &o.svg },
        { .name = NULL }
    };
    int status = ka_options(known, "relay", usage, argv);
    return status >= 0 ? status : load_with(&o);
}

#endif
