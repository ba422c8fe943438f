/* relay - passes messages on: who sends `message X` gets `ok X` from a peer chosen at random.
     cc -O2 -pthread -I. -o examples/relay/relay examples/relay/relay.c
     examples/relay/relay server                     listening on 127.0.0.1:8000
     examples/relay/relay client 127.0.0.1 8000 hi   sent, forwarded (to itself, if it is alone), ok
     examples/relay/relay load --clients 1000        a thousand clients, a server, and a report
   It shows lines over TCP, connections in both directions, timers, and more connections than a
   process has descriptors. relay.h has the protocol, load.h the load test. */

#define KEYAUTH_IMPLEMENTATION
#include "load.h"
#include "relay.h"

static const char usage[] =
    "usage: relay server [--ip 127.0.0.1] [--port 8000] [--workers 8] [--stats] [--no-reforward]\n"
    "       relay client [--delay SECONDS[..SECONDS]] [--timeout SECONDS] [--give-up SECONDS]\n"
    "                    HOST PORT [X]\n"
    "       relay load [OPTION...]\n"
    "       relay --help | --version\n\n"
    "server: forwards each `message X` to one active connection, chosen at random. That\n"
    "connection's `ok X` goes to all connections that sent X.\n"
    "  --ip IP,...      listen on these addresses, or a host's (default 127.0.0.1)\n"
    "  --port PORT      the port (default 8000); 0: the system chooses one\n"
    "  --workers N      threads that serve connections (default 8)\n"
    "  --stats          each second, show connections, messages and messages a second\n"
    "  --no-reforward   when a connection closes, do not forward its messages to another one\n\n"
    "client: sends `message X` (default 16 random digits), answers messages, ends with its ok.\n"
    "  --delay S[..S]   seconds before each answer, or a range of them (default 0)\n"
    "  --timeout S      seconds to wait for the ok, then connect and send again (default 30)\n"
    "  --give-up S      while the server is offline, try for S seconds (default: for ever)\n\n"
    LOAD_USAGE
    "Exit status: 0 server: stopped by Ctrl+C or SIGTERM; client: its ok came; load: all checks\n"
    "passed. 1 could not run; client: the server refused X; load: a check failed. 2 wrong usage.\n"
    "3 client: gave up, the server is offline.\n";

/* ---- server: its state ----

   A message that waits for its ok is an item. It has a sender, and a holder: the connection that it
   was forwarded to. Each item is in three lists: of its sender, of its holder, and of its bucket in
   the hash table of texts. The lists are linked both ways, so an item is taken out of them in the
   same time however long they are. Items are numbers, places in an array that grows; 0 is none. */

#define NOBODY UINT32_MAX                   /* no peer */
enum { SENT, HELD, BUCKET, LISTS };
enum {
    SHORT_TEXT = 48,                        /* a text of so many bytes is within its item */
    CROWD = 1000                            /* from so many peers on, their memory is given back */
};

typedef struct {
    uint32_t sender, holder;                /* peers; the holder may be NOBODY */
    uint32_t hash, n;                       /* of the text; its bytes */
    struct { uint32_t next, prev; } in[LISTS];
    union { char within[SHORT_TEXT], *apart; } text;
} item;

/* A connection. It is active until it closes or asks for stats. */
typedef struct {
    uint64_t conn;
    uint32_t place, waiting;                /* in relay.active; items that it sent */
    uint32_t first[2];                      /* items of its lists SENT and HELD */
} peer;

typedef struct { const char *ip; long long port, workers; bool stats, no_reforward; } serving;

typedef struct {
    ka_server  *server;
    ka_timers   timers;
    ka_listeners listeners;
    const serving *o;
    uint64_t    key[2];                     /* text_hash's */
    peer       *peers;                      /* by ka_conn_index */
    uint32_t   *active;                     /* the active ones among them, without gaps */
    item       *items;                      /* items_free is a list, by in[SENT].next */
    uint32_t   *buckets;                    /* their first items */
    uint32_t    peers_n, peers_room, active_n, active_room, buckets_n, buckets_room, mask;
    uint32_t    items_n, items_room, items_used, items_free;
    uint32_t    random[1024], random_left;
    int64_t     messages, forwards, reforwards, oks, ignored, errors, lost, opened, peak;
    int64_t     shown_ms, shown_messages;   /* when --stats has shown last, and messages then */
} relay;

/* SipHash-2-4 (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012). Without the key nobody
   can choose texts that meet in one bucket. Bytes are in the processor's order, and the length is
   a word of its own: the hashes do not leave the process. */
static uint64_t turned(uint64_t x, int n) { return x << n | x >> (64 - n); }

static void sip_rounds(uint64_t v[4], int n)
{
    while (n-- > 0) {
        v[0] += v[1]; v[1] = turned(v[1], 13) ^ v[0]; v[0] = turned(v[0], 32);
        v[2] += v[3]; v[3] = turned(v[3], 16) ^ v[2];
        v[0] += v[3]; v[3] = turned(v[3], 21) ^ v[0];
        v[2] += v[1]; v[1] = turned(v[1], 17) ^ v[2]; v[2] = turned(v[2], 32);
    }
}

static void sip_absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_rounds(v, 2);
    v[0] ^= word;
}

static uint32_t text_hash(const uint64_t key[2], ka_str x)
{
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                      key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
    for (; x.n >= 8; x.p += 8, x.n -= 8) {
        uint64_t word;
        memcpy(&word, x.p, 8);
        sip_absorb(v, word);
    }
    uint64_t rest = 0;
    if (x.n) memcpy(&rest, x.p, x.n);
    sip_absorb(v, rest);
    sip_absorb(v, x.n);
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return (uint32_t)((v[0] ^ v[1] ^ v[2] ^ v[3]) & UINT32_MAX);
}

/* ---- server: items ---- */

static ka_str item_text(const item *it)
{
    return (ka_str){ it->n > SHORT_TEXT ? it->text.apart : it->text.within, it->n };
}

static bool item_is(const item *it, uint32_t hash, ka_str x)
{
    return it->hash == hash && it->n == x.n && (!x.n || memcmp(item_text(it).p, x.p, x.n) == 0);
}

/* The bucket of a hash. Linear hashing (Litwin, 1980): of the buckets that the mask names, those
   that are not made yet are one with another, which the next lower bit tells. */
static uint32_t *bucket_of(const relay *r, uint32_t hash)
{
    uint32_t at = hash & r->mask;
    return &r->buckets[at < r->buckets_n ? at : at & r->mask >> 1];
}

static void list_add(relay *r, int list, uint32_t *first, uint32_t i)
{
    r->items[i].in[list].next = *first;
    r->items[i].in[list].prev = 0;
    if (*first) r->items[*first].in[list].prev = i;
    *first = i;
}

static void list_remove(relay *r, int list, uint32_t *first, uint32_t i)
{
    uint32_t next = r->items[i].in[list].next, prev = r->items[i].in[list].prev;
    if (next) r->items[next].in[list].prev = prev;
    if (prev) r->items[prev].in[list].next = next;
    else *first = next;
}

/* Make one more bucket, of items that were in one other. So the table grows in small steps, and
   nobody waits until a large table is made anew. */
static void bucket_add(relay *r)
{
    uint32_t new = r->buckets_n++, next;
    r->buckets[new] = 0;
    if (new > r->mask) r->mask = 2 * r->mask + 1;
    uint32_t *old = &r->buckets[new & r->mask >> 1];
    for (uint32_t i = *old; i; i = next) {
        next = r->items[i].in[BUCKET].next;
        if ((r->items[i].hash & r->mask) != new) continue;
        list_remove(r, BUCKET, old, i);
        list_add(r, BUCKET, &r->buckets[new], i);
    }
}

/* A new item, which nobody holds; 0: out of memory. There is a bucket for each item. */
static uint32_t item_new(relay *r, uint32_t sender, ka_str x)
{
    if (!room_for(&r->items, &r->items_room, r->items_n + 1, sizeof *r->items) ||
        !room_for(&r->buckets, &r->buckets_room, r->items_used + 1, sizeof *r->buckets)) return 0;
    char *apart = x.n > SHORT_TEXT ? malloc(x.n) : NULL;
    if (x.n > SHORT_TEXT && !apart) return 0;
    uint32_t i = r->items_free ? r->items_free : r->items_n++;
    item *it = &r->items[i];
    if (i == r->items_free) r->items_free = it->in[SENT].next;
    *it = (item){ .sender = sender, .holder = NOBODY, .n = (uint32_t)x.n };
    it->hash = text_hash(r->key, x);
    if (apart) it->text.apart = apart;
    if (x.n) memcpy(apart ? apart : it->text.within, x.p, x.n);
    if (r->items_used++ == r->buckets_n) bucket_add(r);
    list_add(r, BUCKET, bucket_of(r, it->hash), i);
    list_add(r, SENT, &r->peers[sender].first[SENT], i);
    r->peers[sender].waiting++;
    return i;
}

static void item_release(relay *r, uint32_t i)
{
    uint32_t holder = r->items[i].holder;
    if (holder != NOBODY) list_remove(r, HELD, &r->peers[holder].first[HELD], i);
    r->items[i].holder = NOBODY;
}

static void item_drop(relay *r, uint32_t i)
{
    item *it = &r->items[i];
    item_release(r, i);
    list_remove(r, SENT, &r->peers[it->sender].first[SENT], i);
    list_remove(r, BUCKET, bucket_of(r, it->hash), i);
    r->peers[it->sender].waiting--;
    if (it->n > SHORT_TEXT) free(it->text.apart);
    it->in[SENT].next = r->items_free;
    r->items_free = i;
    r->items_used--;
}

static void item_forward(relay *r, uint32_t i, uint32_t holder)
{
    r->items[i].holder = holder;
    list_add(r, HELD, &r->peers[holder].first[HELD], i);
    line_send(r->server, r->peers[holder].conn, "message", item_text(&r->items[i]));
    r->forwards++;
}

/* Does this peer hold an item of that text? The bucket and the peer's list are walked side by
   side, so the shorter of the two tells. */
static bool item_held(const relay *r, uint32_t holder, uint32_t hash, ka_str x)
{
    uint32_t a = r->buckets_n ? *bucket_of(r, hash) : 0, b = r->peers[holder].first[HELD];
    while (a && b) {
        if (r->items[a].holder == holder && item_is(&r->items[a], hash, x)) return true;
        if (item_is(&r->items[b], hash, x)) return true;
        a = r->items[a].in[BUCKET].next;
        b = r->items[b].in[HELD].next;
    }
    return false;
}

/* ---- server: peers ---- */

/* One of the active peers, each as likely as any other (Lemire: Fast random integer generation in
   an interval, 2019). NOBODY: there is none, or the system gives no random bytes. */
static uint32_t peer_choose(relay *r)
{
    uint32_t n = r->active_n;
    while (n > 0) {
        if (r->random_left == 0) {
            if (ka_random(r->random, sizeof r->random) < 0) return NOBODY;
            r->random_left = sizeof r->random / sizeof *r->random;
        }
        uint64_t product = (uint64_t)r->random[--r->random_left] * n;
        if ((uint32_t)(product & UINT32_MAX) >= (UINT32_MAX - n + 1) % n)
            return r->active[product >> 32];
    }
    return NOBODY;
}

/* The active peer of a connection, or NOBODY. */
static uint32_t peer_find(const relay *r, uint64_t conn)
{
    size_t i = ka_conn_index(r->server, conn);
    if (i >= r->peers_n || r->peers[i].conn != conn) return NOBODY;
    uint32_t place = r->peers[i].place;
    return place < r->active_n && r->active[place] == i ? (uint32_t)i : NOBODY;
}

static bool peer_add(relay *r, uint64_t conn)
{
    size_t i = ka_conn_index(r->server, conn);
    if (i >= UINT32_MAX / 2 ||
        !room_for(&r->peers, &r->peers_room, (uint32_t)i + 1, sizeof *r->peers) ||
        !room_for(&r->active, &r->active_room, r->active_n + 1, sizeof *r->active)) return false;
    while (r->peers_n <= i) r->peers[r->peers_n++] = (peer){ .conn = 0 };
    r->peers[i] = (peer){ .conn = conn, .place = r->active_n };
    r->active[r->active_n++] = (uint32_t)i;
    if (r->active_n > r->peak) r->peak = r->active_n;
    return true;
}

/* Give all memory back, when no peer is there and so no item. */
static void give_back(relay *r)
{
    bool crowd = r->peers_room > CROWD;
    free(r->peers);
    free(r->active);
    free(r->items);
    free(r->buckets);
    r->peers = NULL;
    r->active = r->buckets = NULL;
    r->items = NULL;
    r->peers_n = r->peers_room = r->active_room = r->buckets_n = r->buckets_room = r->mask = 0;
    r->items_room = r->items_free = 0;
    r->items_n = 1;                         /* 0 is none */
    if (crowd) ka_memory_trim();
}

/* A peer is no longer active. The items that it sent are dropped, those that it held are forwarded
   to others. */
static void peer_leave(relay *r, uint64_t conn)
{
    uint32_t who = peer_find(r, conn);
    if (who == NOBODY) return;
    peer *p = &r->peers[who];
    uint32_t last = r->active[--r->active_n];
    r->active[p->place] = last;
    r->peers[last].place = p->place;
    while (p->first[SENT]) item_drop(r, p->first[SENT]);
    for (uint32_t i; (i = p->first[HELD]) != 0; ) {
        item_release(r, i);
        uint32_t holder = r->o->no_reforward ? NOBODY : peer_choose(r);
        if (holder == NOBODY) continue;
        item_forward(r, i, holder);
        r->reforwards++;
    }
    if (r->active_n == 0) give_back(r);
}

static void peer_error(relay *r, uint64_t conn, const char *why)
{
    line_send(r->server, conn, "error", (ka_str){ why, strlen(why) });
    r->errors++;
}

/* ---- server: lines. These functions return what is wrong with one; NULL: nothing ---- */

static const char *take_message(relay *r, uint32_t who, ka_str x)
{
    const char *why = x_trouble(x);
    if (why) return why;
    if (r->peers[who].waiting == MAX_WAITING)
        return "1024 messages of yours wait for an ok; send more when some have come";
    uint32_t holder = peer_choose(r);
    if (holder == NOBODY) return "the system gives no random bytes; send it again later";
    uint32_t i = item_new(r, who, x);
    if (!i) return "out of memory; send it again later";
    r->messages++;
    item_forward(r, i, holder);
    return NULL;
}

static const char *take_ok(relay *r, uint32_t who, ka_str x)
{
    const char *why = x_trouble(x);
    if (why) return why;
    uint32_t hash = text_hash(r->key, x), next;
    if (!item_held(r, who, hash, x)) {
        r->ignored++;
        return NULL;
    }
    r->oks++;
    for (uint32_t i = *bucket_of(r, hash); i; i = next) {
        next = r->items[i].in[BUCKET].next;
        if (!item_is(&r->items[i], hash, x)) continue;
        line_send(r->server, r->peers[r->items[i].sender].conn, "ok", x);
        item_drop(r, i);
    }
    return NULL;
}

static void tell_stats(relay *r, uint64_t conn)
{
    char text[512];
    ka_usage used;
    ka_stats stats;
    ka_process_usage(&used);
    ka_server_stats(r->server, &stats);
    const struct { const char *name; int64_t value; } all[] = {
        { "active", r->active_n }, { "outstanding", r->items_used },
        { "buffered", (int64_t)stats.buffered }, { "memory", (int64_t)used.memory },
        { "cpu_us", used.cpu_us }, { "messages", r->messages }, { "forwards", r->forwards },
        { "reforwards", r->reforwards }, { "oks", r->oks }, { "ignored", r->ignored },
        { "errors", r->errors }, { "lost", r->lost }, { "opened", r->opened }, { "peak", r->peak },
    };
    ka_json_out w = { .p = text, .cap = sizeof text };
    ka_json_open(&w, NULL, KA_OBJECT);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ka_json_put_integer(&w, all[i].name, all[i].value);
    ka_json_close(&w);
    line_send(r->server, conn, "stats", (ka_str){ text, w.n });
}

static const char *take_line(relay *r, uint64_t conn, ka_str line)
{
    uint32_t who = peer_find(r, conn);
    ka_str x;
    if (ka_is(line, "stats")) {
        peer_leave(r, conn);
        tell_stats(r, conn);
        return NULL;
    }
    if (ka_is(line, "message") || ka_is(line, "ok"))
        return "a space and an X belong behind that word";
    bool message = line_is(line, "message", &x);
    if (message || line_is(line, "ok", &x)) {
        if (who == NOBODY) return "this connection asked for stats; use another one";
        return message ? take_message(r, who, x) : take_ok(r, who, x);
    }
    /* A web page can have its visitor's browser send an HTTP request to here. The lines behind the
       first are the page's, and must not be taken. */
    bool http = line.n > 9 && memcmp(line.p + line.n - 9, " HTTP/1.", 8) == 0;
    if (!http) return "no such word; send message X, ok X or stats";
    peer_leave(r, conn);
    peer_error(r, conn, "HTTP is not spoken here");
    ka_close(r->server, conn);
    return NULL;
}

/* What the connection is told when keyauth.h refused what it sent. It is closed then. */
static const struct { int error; const char *why; } refused[] = {
    { KA_ETIME, "the line was begun, and not ended in time" },
    { KA_ENOSPC, "the line is too long; X has up to 65536 bytes" },
    { KA_ENOMEM, "out of memory" },
};

static void on_line(relay *r, const ka_event *ev)
{
    const char *why = ev->error ? NULL : take_line(r, ev->conn, ev->body);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (ev->error == refused[i].error) why = refused[i].why;
    if (why) peer_error(r, ev->conn, why);
    if (ev->error) peer_leave(r, ev->conn);
}

/* ---- server: its loop ---- */

static void on_opened(relay *r, uint64_t conn)
{
    r->opened++;
    if (peer_add(r, conn)) return;
    peer_error(r, conn, "out of memory; connect again later");
    ka_close(r->server, conn);
}

static void show_stats(relay *r, int64_t now_ms)
{
    int64_t ms = now_ms - r->shown_ms, n = r->messages - r->shown_messages;
    ka_say(1, "\r%lu active, %lu outstanding, %lld messages/s", (unsigned long)r->active_n,
           (unsigned long)r->items_used, ms > 0 ? (long long)(n * 1000 / ms) : 0);
    r->shown_ms = now_ms;
    r->shown_messages = r->messages;
    ka_timer(&r->timers, now_ms + 1000, 0);
}

static int serve(relay *r)
{
    int status = EXIT_DONE;
    char text[KA_PLACE_TEXT + 1];
    for (ka_event ev; ka_wait(r->server, &ev, -1) == KA_OK; ) {
        switch (ev.kind) {
        case KA_LISTENING:
            if (ev.error) status = ka_listen_fail("relay", &r->listeners, "--port", &ev);
            else ka_say(1, "listening on %s", ka_listener_text(text, &r->listeners, &ev));
            if (status) ka_stop(r->server);
            else if (r->o->stats && !r->shown_ms) show_stats(r, ev.now_ms);
            break;
        case KA_OPENED:  on_opened(r, ev.conn); break;
        case KA_MESSAGE: on_line(r, &ev); break;
        case KA_CLOSED:
            r->lost += ev.error != 0;
            peer_leave(r, ev.conn);
            break;
        case KA_TIMER:   show_stats(r, ev.now_ms); break;
        }
    }
    ka_say(1, NULL);
    return status;
}

static int run_server(char **argv)
{
    serving o = { .ip = "127.0.0.1", .port = 8000, .workers = 8 };
    const ka_option known[] = {
        { "--ip", .text = &o.ip },
        { "--port", .number = &o.port, .most = 65535 },
        { "--workers", .number = &o.workers, .least = 1, .most = KA_MAX_WORKERS },
        { "--stats", .flag = &o.stats },
        { "--no-reforward", .flag = &o.no_reforward },
        { .name = NULL }
    };
    relay r = { .o = &o, .items_n = 1 };
    bool each;
    int status = ka_options(known, "relay", usage, argv);
    if (status >= 0) return status;
    ka_descriptors_raise(&each);
    int e = ka_random(r.key, sizeof r.key);
    if (e == KA_OK) e = ka_server_start(&r.server, (int)o.workers + KA_OWN_DESCRIPTORS);
    if (e < 0) return fail(EXIT_FAILED, "cannot start: %s", ka_error_text(e));
    ka_timers_init(&r.timers, r.server);
    status = ka_listen_all(&r.listeners, r.server, &ka_lines, "relay", o.ip, (int)o.port);
    if (ka_stop_on_interrupt(r.server) < 0) status = fail(EXIT_FAILED, "cannot catch interrupts");
    if (status < 0) status = serve(&r);
    ka_server_free(r.server);
    ka_timers_free(&r.timers);
    return status;
}

/* ---- client ---- */

/* Tags of timers: an attempt's number << 32 | one of these, or the number of an answer. */
#define NO_OK UINT32_MAX                    /* the attempt got no ok in time */
#define AGAIN (UINT32_MAX - 1)              /* the next attempt is due */

typedef struct {
    const char *ip, *x;                     /* x may be NULL: a random one */
    long long   port;
    int64_t     delay_ms[2], timeout_ms, give_up_ms;      /* delay: least, most */
} client_options;

typedef struct {
    ka_server *server;
    ka_timers  timers;
    const client_options *o;
    char       place[KA_PLACE_TEXT + 1];    /* the server's, for messages */
    char       ips[KA_IPS_TEXT + 1];
    const char *left;                       /* addresses that this attempt has not tried */
    ka_str     x;                           /* as it is in a line */
    uint64_t   conn;
    bool       open, done;
    uint32_t   attempt, owed_n, owed_room;
    struct { char *p; size_t n; } *owed;    /* the X of each answer; p is NULL when it is given */
    int        misses;                      /* attempts that failed since since_ms */
    int64_t    since_ms, sent_ms;
    char       line[2 * MAX_X], text[MAX_X], shown[6 * MAX_X + 8];
} client;

/* Write a text as JSON, which can't play with the terminal. */
static const char *client_show(client *c, ka_str text)
{
    ka_json_out w = { .p = c->shown, .cap = sizeof c->shown - 1 };
    ka_json_put(&w, NULL, text);
    c->shown[w.n] = 0;
    return c->shown;
}

static const char *client_show_x(client *c, ka_str x)
{
    return client_show(c, (ka_str){ c->text, x_unescape(c->text, x) });
}

/* The functions that return an int return -1: go on; or the status to exit with. */

static int client_timer(client *c, int64_t in_ms, uint32_t what)
{
    int r = ka_timer(&c->timers, ka_now_ms() + in_ms, (uint64_t)c->attempt << 32 | what);
    return r < 0 ? fail(EXIT_FAILED, "out of memory") : -1;
}

static void client_forget(client *c)
{
    while (c->owed_n) free(c->owed[--c->owed_n].p);
}

static int client_connect(client *c)
{
    char ip[KA_IP_TEXT + 1];
    c->attempt++;                           /* so the timers of the last attempt are void */
    client_forget(c);
    c->open = false;
    if (!*c->left) c->left = c->ips;
    int r = ka_next_ip(&c->left, ip) ? ka_connect(c->server, &ka_lines, NULL, ip, (int)c->o->port,
                                                  c->attempt) : KA_EINVAL;
    if (r == KA_OK) return -1;
    return fail(EXIT_USAGE, "%s: the address of one machine is needed, such as 127.0.0.1 or ::1",
                c->o->ip);
}

static int client_missed(client *c, const char *what)
{
    const client_options *o = c->o;
    int delay_ms = KA_RETRY_FIRST_MS + c->misses * KA_RETRY_STEP_MS;
    int64_t next_ms = ka_now_ms() + delay_ms;
    if (c->misses++ == 0) c->since_ms = ka_now_ms();
    if (o->give_up_ms && next_ms >= c->since_ms + o->give_up_ms)
        return fail(EXIT_OFFLINE, "gave up: %s is offline", c->place);
    if ((c->misses & (c->misses - 1)) == 0)
        note("%s %s (miss %d); trying again in %d ms", c->place, what, c->misses, delay_ms);
    c->open = false;
    c->attempt++;
    return client_timer(c, delay_ms, AGAIN);
}

static int client_opened(client *c, const ka_event *ev)
{
    const client_options *o = c->o;
    if (ev->tag != c->attempt) return -1;
    if (ev->error && *c->left) return client_connect(c);      /* to the next address */
    if (ev->error == KA_EOFFLINE) return client_missed(c, "is offline");
    if (ev->error == KA_ETIME) return client_missed(c, "does not answer");
    if (ev->error)
        return fail(EXIT_FAILED, "cannot connect to %s: %s (system error %d)", c->place,
                    ka_error_text(ev->error), ev->os_error);
    c->conn = ev->conn;
    c->open = true;
    c->misses = 0;
    c->sent_ms = ka_now_ms();
    line_send(c->server, c->conn, "message", c->x);
    printf("connected to %s, sent message %s\n", c->place, client_show_x(c, c->x));
    return client_timer(c, o->timeout_ms, NO_OK);
}

static void client_answer(client *c, uint32_t i)
{
    if (i >= c->owed_n || !c->owed[i].p) return;
    ka_str x = { c->owed[i].p, c->owed[i].n };
    line_send(c->server, c->conn, "ok", x);
    printf("answered ok %s\n", client_show_x(c, x));
    free(c->owed[i].p);
    c->owed[i].p = NULL;
}

static int client_owes(client *c, ka_str x)
{
    uint64_t random = 0, range = (uint64_t)(c->o->delay_ms[1] - c->o->delay_ms[0]);
    bool room = room_for(&c->owed, &c->owed_room, c->owed_n + 1, sizeof *c->owed);
    char *copy = room ? malloc(x.n + 1) : NULL;
    if (!copy) return fail(EXIT_FAILED, "out of memory");
    if (x.n) memcpy(copy, x.p, x.n);
    c->owed[c->owed_n].p = copy;
    c->owed[c->owed_n++].n = x.n;
    if (ka_random(&random, sizeof random) < 0)
        return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
    int64_t delay_ms = c->o->delay_ms[0] + (int64_t)(random % (range + 1));
    printf("received message %s, will answer in %lld ms\n", client_show_x(c, x),
           (long long)delay_ms);
    if (delay_ms > 0) return client_timer(c, delay_ms, c->owed_n - 1);
    client_answer(c, c->owed_n - 1);
    return -1;
}

static void client_got_ok(client *c, ka_str x)
{
    const char *shown = client_show_x(c, x);
    if (x.n != c->x.n || memcmp(x.p, c->x.p, x.n) != 0) {
        printf("got ok %s, which was not sent\n", shown);
        return;
    }
    printf("got ok %s after %lld ms\n", shown, (long long)(ka_now_ms() - c->sent_ms));
    c->done = true;
    for (uint32_t i = 0; i < c->owed_n; i++) client_answer(c, i);
    ka_close(c->server, c->conn);
}

static int client_line(client *c, const ka_event *ev)
{
    ka_str x;
    if (c->done || ev->error) return -1;    /* KA_CLOSED follows */
    if (line_is(ev->body, "message", &x) && !x_trouble(x)) return client_owes(c, x);
    if (line_is(ev->body, "ok", &x) && !x_trouble(x)) {
        client_got_ok(c, x);
        return -1;
    }
    if (line_is(ev->body, "error", &x) && x.n <= MAX_X)
        return fail(EXIT_FAILED, "refused by %s: %s", c->place, client_show(c, x));
    return fail(EXIT_FAILED, "%s does not speak as relay server does", c->place);
}

static int client_timed(client *c, uint64_t tag)
{
    uint32_t what = (uint32_t)(tag & UINT32_MAX);
    if (c->done || tag >> 32 != c->attempt) return -1;
    if (what == AGAIN) return client_connect(c);
    if (what != NO_OK) {
        client_answer(c, what);
        return -1;
    }
    note("no ok within %.3f s; connecting again", (double)c->o->timeout_ms / 1000);
    ka_close(c->server, c->conn);
    return client_connect(c);
}

static int client_converse(client *c)
{
    ka_event ev;
    int status = client_connect(c);
    while (status < 0 && ka_wait(c->server, &ev, -1) == KA_OK) {
        bool ours = c->open && ev.conn == c->conn;
        if (ev.kind == KA_TIMER) status = client_timed(c, ev.tag);
        else if (ev.kind == KA_OPENED) status = client_opened(c, &ev);
        else if (ev.kind == KA_MESSAGE && ours) status = client_line(c, &ev);
        else if (ev.kind == KA_CLOSED && ours)
            status = c->done ? EXIT_DONE : client_missed(c, "closed the connection");
        fflush(stdout);
    }
    return status;
}

/* Take X from the command line, or a random one. */
static int client_x(client *c)
{
    ka_str x = { c->o->x, c->o->x ? strlen(c->o->x) : 0 };
    if (x.p && (x.n > MAX_X || !ka_is_utf8(x)))
        return fail(EXIT_USAGE, "X: up to %d bytes of UTF-8 are needed", MAX_X);
    if (!x.p) {
        unsigned char random[8];
        if (ka_random(random, sizeof random) < 0)
            return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
        ka_hex_encode(c->text, random, sizeof random);
        x = (ka_str){ c->text, 2 * sizeof random };
    }
    c->x = (ka_str){ c->line, x_escape(c->line, x) };
    return -1;
}

static int run_client(char **argv)
{
    client_options o = { .timeout_ms = 30000 };
    const ka_option known[] = {
        { "--delay", .parse = seconds_range, .to = o.delay_ms },
        { "--timeout", .parse = seconds, .to = &o.timeout_ms, .least = 1 },
        { "--give-up", .parse = seconds, .to = &o.give_up_ms, .least = 1 },
        { "HOST", .text = &o.ip },
        { "PORT", .number = &o.port, .least = 1, .most = 65535 },
        { "X", .text = &o.x },
        { .name = NULL }
    };
    int status = ka_options(known, "relay", usage, argv);
    if (status >= 0) return status;
    if (!o.port) return fail(EXIT_USAGE, "HOST and PORT are needed; relay --help tells more");
    client *c = calloc(1, sizeof *c);
    if (!c) return fail(EXIT_FAILED, "out of memory");
    c->o = &o;
    c->left = "";
    ka_place_text(c->place, o.ip, (int)o.port);
    status = client_x(c);
    if (status < 0) status = ka_find_hosts(c->ips, "relay", o.ip);
    int e = status < 0 ? ka_server_start(&c->server, 1) : KA_OK;
    if (e < 0) status = fail(EXIT_FAILED, "cannot start: %s", ka_error_text(e));
    if (status < 0) {
        ka_timers_init(&c->timers, c->server);
        status = client_converse(c);
    }
    ka_server_free(c->server);
    ka_timers_free(&c->timers);
    client_forget(c);
    free(c->owed);
    free(c);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (ka_help(argv[1], "relay", usage)) return EXIT_DONE;
    if (strcmp(argv[1], "server") == 0) return run_server(argv + 2);
    if (strcmp(argv[1], "client") == 0) return run_client(argv + 2);
    if (strcmp(argv[1], "load") == 0) return run_load(usage, argv + 2);
    return fail(EXIT_USAGE, "%s: server, client or load has to come first; relay --help tells more",
                argv[1]);
}
