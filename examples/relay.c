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
#define KA_MAILBOX (1u << 19)
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
    "       relay client [--delay SECONDS[..SECONDS]] [--timeout SECONDS] [--give-up SECONDS] IP PORT [X]\n"
    "       relay load [OPTION...]\n"
    "       relay --help | --version\n"
    "\n"
    "server: forwards each `message X` to one of the active connections, chosen at random; its `ok X` goes to all who sent it.\n"
    "  --ip IP          the IPv4 address to listen on, 127.0.0.1 unless told\n"
    "  --port PORT      the port, 8000 unless told; 0 lets the system choose one\n"
    "  --workers N      threads that serve connections, 8 unless told\n"
    "  --stats          show each second what it holds, and messages a second\n"
    "  --no-reforward   what was forwarded to a connection that closes is not forwarded to another one\n"
    "\n"
    "client: sends `message X` (16 random digits unless told), answers what it gets, and ends when `ok X` comes.\n"
    "  --delay S[..S]   wait so long before each answer, at random in a range; 0 unless told\n"
    "  --timeout S      without an ok in that time connect and send again; 30 unless told\n"
    "  --give-up S      try no longer than this while the server is offline; for ever unless told\n"
    "\n"
    "load: many clients in one process, with a server of their own in another; every one has to get its ok.\n"
    "  --clients N      100000 unless told                     --window S       they start at random in that time, 60 unless told\n"
    "  --delay S[..S]   before each answer, 0..10 unless told  --timeout S      as client's; chosen unless told\n"
    "  --messages N     each sends so many, 1 unless told      --ahead N        before it has an ok for the first; 1 unless told\n"
    "  --workers N      threads; chosen unless told            --seed N         of all that is random; chosen, and printed, unless told\n"
    "  --server IP:PORT use this one instead                   --port PORT      of the server of their own; chosen unless told\n"
    "  --vanish PERCENT clients that vanish while they owe an ok; 0 unless told\n"
    "  --kill-at S      kill the server then, and start it again\n"
    "  --abrupt         end clients without closing in order   --no-reforward   have the server called so\n"
    "  --svg FILE       draw the times from message to ok there\n"
    "\n"
    "Exit status: 0 server: stopped by Ctrl+C or SIGTERM; client: its X came back as ok; load: all held; 1 could not run, or\n"
    "             (client) was refused, or (load) something did not hold; 2 wrong usage; 3 client: gave up, the server is offline.\n";

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

/* Is the line this word, a space and an X? */
static bool line_is(ka_str line, const char *word, ka_str *x)
{
    size_t n = strlen(word);
    if (line.n <= n || memcmp(line.p, word, n) != 0 || line.p[n] != ' ') return false;
    *x = (ka_str){ line.p + n + 1, line.n - n - 1 };
    return true;
}

/* What is wrong with an X as it is in a line; NULL: nothing. No two forms stand for the same X, so they can be compared as
   they came. */
static const char *x_trouble(ka_str x)
{
    size_t n = 0;
    for (size_t i = 0; i < x.n; i++, n++) {
        if (x.p[i] == '\r') return "a raw carriage return is in the line; write it as \\r";
        if (x.p[i] == '\\' && (++i == x.n || !memchr("nr\\", x.p[i], 3))) return "a backslash is there without n, r or a backslash behind it; write it twice";
    }
    if (n > MAX_X) return "X is longer than 65536 bytes; send less";
    return ka_is_utf8(x) ? NULL : "the line is not UTF-8; send text";
}

/* Writes 2 * x.n bytes at most, and returns how many. */
static size_t x_escape(char *out, ka_str x)
{
    size_t n = 0;
    for (size_t i = 0; i < x.n; i++) {
        char c = x.p[i], mark = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\\' ? '\\' : 0;
        if (mark) out[n++] = '\\';
        out[n++] = mark ? mark : c;
    }
    return n;
}

/* Of an X without trouble. Writes x.n bytes at most. */
static size_t x_unescape(char *out, ka_str x)
{
    size_t n = 0;
    for (size_t i = 0; i < x.n; i++) {
        char c = x.p[i];
        if (c == '\\') c = x.p[++i] == 'n' ? '\n' : x.p[i] == 'r' ? '\r' : '\\';
        out[n++] = c;
    }
    return n;
}

/* Sends a word, a space, X and a line feed. */
static void line_send(ka_server *s, uint64_t conn, const char *word, ka_str x)
{
    static char line[KA_MAX_BODY + 1];      /* the parent thread's; a longer one was not taken */
    size_t n = strlen(word);
    KA_ASSERT(n + x.n + 2 <= sizeof line);
    memcpy(line, word, n);
    line[n++] = ' ';
    memcpy(line + n, x.p, x.n);
    line[n + x.n] = '\n';
    ka_send(s, conn, line, n + x.n + 1);
}

/* ---- server: connections, and the messages that wait for an ok ----

   A message that waits is an item: who sent it, and who holds it, to whom it was forwarded. Items of the same text are a
   group. Two hash tables find a group by its text, and an item by its group and holder; those of the same are its twins, and
   only the first one is in the table. Lists have links both ways: each step takes the same time, whatever peers do. All is
   in arrays which grow, with 32-bit numbers for links; 0 is none. */

#define NOBODY UINT32_MAX                   /* as an item's holder */

enum { SENT, HELD, ALIKE, TWINS, LISTS };   /* lists of items: of a sender, of a holder, of a group, of a group and a holder */
enum { MAX_WAITING = 1024 };                /* messages of one connection that wait */
enum { SHORT_TEXT = 48 };                   /* up to here a text is within its group */

typedef struct {
    uint32_t sender, holder, group;
    uint32_t chain;                         /* the next one in its bucket; or the next free one */
    struct { uint32_t next, prev; } in[LISTS];
} item;

typedef struct {
    uint32_t first, chain, hash, n;         /* its first item; as an item's; of its text; the text's bytes */
    union { char within[SHORT_TEXT], *apart; } text;
} group;

typedef struct {
    uint64_t conn;
    uint32_t place, waiting;                /* in `active`; its items */
    uint32_t first[2];                      /* SENT and HELD */
} peer;

typedef struct { uint32_t *buckets, n, room, mask; } table;

typedef struct {
    ka_server  *server;
    const options *o;
    uint64_t    key[2];
    peer       *peers;                      /* by ka_conn_index */
    uint32_t   *active;                     /* the places of those who are, without gaps */
    item       *items;
    group      *groups;
    uint32_t    peers_n, peers_room, active_n, active_room, items_n, items_room, groups_n, groups_room;
    uint32_t    items_free, groups_free;    /* lists, by chain */
    uint32_t    items_used, groups_used;
    table       by_text, by_holder;
    uint32_t    random[1024], random_left;
    int64_t     messages, forwards, reforwards, oks, ignored, errors, lost, opened, peak;
    int64_t     shown_ms, shown_messages;
} relay;

/* SipHash-2-4 (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012): who doesn't know the key can't choose texts that
   meet in one bucket. */
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

static uint32_t sip_hash(const uint64_t key[2], const void *in, size_t n)
{
    const unsigned char *p = in;
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
    for (size_t at = 0; at <= n; at += 8) {      /* the last word has what is left, and the length in its highest byte */
        size_t size = n - at < 8 ? n - at : 8;
        uint64_t word = size < 8 ? (uint64_t)n << 56 : 0;
        for (size_t i = 0; i < size; i++) word |= (uint64_t)p[at + i] << 8 * i;
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return (uint32_t)((v[0] ^ v[1] ^ v[2] ^ v[3]) & UINT32_MAX);
}

/* An array with room for so many; NULL: it is as it was. What was not used is not touched, and so takes no memory yet. */
static void *grown(void *p, uint32_t *room, uint32_t need, size_t size)
{
    if (need <= *room) return p;
    size_t more = *room ? 2 * (size_t)*room : 64;
    while (more < need) more *= 2;
    if (more > UINT32_MAX / 2 || more > SIZE_MAX / size) return NULL;
    p = realloc(p, more * size);
    if (p) *room = (uint32_t)more;
    return p;
}

static ka_str group_text(const group *g)
{
    return (ka_str){ g->n > SHORT_TEXT ? g->text.apart : g->text.within, g->n };
}

static uint32_t holder_hash(const relay *r, uint32_t g, uint32_t holder)
{
    return sip_hash(r->key, (const uint32_t[2]){ g, holder }, 2 * sizeof g);
}

/* Linear hashing (Litwin, 1980): a table grows by a bucket at a time, which takes its share from one other. */
static uint32_t *table_bucket(const table *t, uint32_t hash)
{
    uint32_t at = hash & t->mask;
    return &t->buckets[at < t->n ? at : at & t->mask >> 1];
}

static bool table_reserve(table *t, uint32_t need)
{
    void *p = grown(t->buckets, &t->room, need, sizeof *t->buckets);
    if (p) t->buckets = p;
    return p != NULL;
}

static void table_split(relay *r, table *t)
{
    uint32_t new = t->n++;
    t->buckets[new] = 0;
    if (new == 0) return;
    if (new > t->mask) t->mask = 2 * t->mask + 1;
    for (uint32_t *at = &t->buckets[new & t->mask >> 1]; *at; ) {
        uint32_t i = *at, *chain = t == &r->by_text ? &r->groups[i].chain : &r->items[i].chain;
        uint32_t hash = t == &r->by_text ? r->groups[i].hash : holder_hash(r, r->items[i].group, r->items[i].holder);
        if ((hash & t->mask) != new) {
            at = chain;
            continue;
        }
        *at = *chain;
        *chain = t->buckets[new];
        t->buckets[new] = i;
    }
}

/* Where the number of the group of this text is, or would be. */
static uint32_t *find_text(const relay *r, uint32_t hash, ka_str x)
{
    uint32_t *at = table_bucket(&r->by_text, hash);
    for (; *at; at = &r->groups[*at].chain) {
        const group *g = &r->groups[*at];
        if (g->hash == hash && g->n == x.n && (x.n == 0 || memcmp(group_text(g).p, x.p, x.n) == 0)) break;
    }
    return at;
}

/* The same for the first item of this group and holder. */
static uint32_t *find_held(const relay *r, uint32_t g, uint32_t holder)
{
    uint32_t *at = table_bucket(&r->by_holder, holder_hash(r, g, holder));
    while (*at && (r->items[*at].group != g || r->items[*at].holder != holder)) at = &r->items[*at].chain;
    return at;
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

static void item_hold(relay *r, uint32_t i, uint32_t holder)
{
    item *it = &r->items[i];
    uint32_t *at = find_held(r, it->group, holder);
    it->holder = holder;
    it->chain = *at ? r->items[*at].chain : 0;
    list_add(r, TWINS, at, i);
    list_add(r, HELD, &r->peers[holder].first[HELD], i);
}

static void item_release(relay *r, uint32_t i)
{
    item *it = &r->items[i];
    if (it->holder == NOBODY) return;
    uint32_t none = 0, *at = it->in[TWINS].prev ? &none : find_held(r, it->group, it->holder);
    list_remove(r, TWINS, at, i);
    if (!it->in[TWINS].prev) *(*at ? &r->items[*at].chain : at) = it->chain;
    list_remove(r, HELD, &r->peers[it->holder].first[HELD], i);
    it->holder = NOBODY;
}

static void group_drop(relay *r, uint32_t i)
{
    group *g = &r->groups[i];
    *find_text(r, g->hash, group_text(g)) = g->chain;
    if (g->n > SHORT_TEXT) free(g->text.apart);
    g->chain = r->groups_free;
    r->groups_free = i;
    r->groups_used--;
}

static void item_drop(relay *r, uint32_t i)
{
    item *it = &r->items[i];
    item_release(r, i);
    list_remove(r, SENT, &r->peers[it->sender].first[SENT], i);
    list_remove(r, ALIKE, &r->groups[it->group].first, i);
    r->peers[it->sender].waiting--;
    if (!r->groups[it->group].first) group_drop(r, it->group);
    it->chain = r->items_free;
    r->items_free = i;
    r->items_used--;
}

/* Room for one more item, and a group of its own. */
static bool reserve(relay *r)
{
    void *p = r->items_free ? r->items : grown(r->items, &r->items_room, r->items_n + 1, sizeof *r->items);
    if (!p) return false;
    r->items = p;
    p = r->groups_free ? r->groups : grown(r->groups, &r->groups_room, r->groups_n + 1, sizeof *r->groups);
    if (!p) return false;
    r->groups = p;
    return table_reserve(&r->by_holder, r->items_used + 1) && table_reserve(&r->by_text, r->groups_used + 1);
}

/* The group of a text, made if there is none; 0: out of memory. There is room. */
static uint32_t group_of(relay *r, ka_str x)
{
    uint32_t hash = sip_hash(r->key, x.p, x.n);
    if (r->groups_used == r->by_text.n) table_split(r, &r->by_text);
    uint32_t *at = find_text(r, hash, x), i = *at;
    if (i) return i;
    char *apart = x.n > SHORT_TEXT ? malloc(x.n) : NULL;
    if (x.n > SHORT_TEXT && !apart) return 0;
    i = r->groups_free ? r->groups_free : r->groups_n++;
    group *g = &r->groups[i];
    if (i == r->groups_free) r->groups_free = g->chain;
    *g = (group){ .hash = hash, .n = (uint32_t)x.n };
    if (apart) g->text.apart = apart;
    if (x.n) memcpy(apart ? apart : g->text.within, x.p, x.n);
    r->groups_used++;
    return *at = i;
}

static uint32_t item_new(relay *r, uint32_t sender, uint32_t g)
{
    uint32_t i = r->items_free ? r->items_free : r->items_n++;
    if (i == r->items_free) r->items_free = r->items[i].chain;
    r->items[i] = (item){ .sender = sender, .group = g, .holder = NOBODY };
    if (r->items_used++ == r->by_holder.n) table_split(r, &r->by_holder);
    list_add(r, SENT, &r->peers[sender].first[SENT], i);
    list_add(r, ALIKE, &r->groups[g].first, i);
    r->peers[sender].waiting++;
    return i;
}

/* One of the active connections, each as likely as any other (Lemire: Fast random integer generation in an interval, 2019).
   NOBODY: there is none, or the system gives no random bytes. */
static uint32_t choose(relay *r)
{
    uint32_t n = r->active_n;
    if (n == 0) return NOBODY;
    for (;;) {
        if (r->random_left == 0) {
            if (ka_random(r->random, sizeof r->random) < 0) return NOBODY;
            r->random_left = sizeof r->random / sizeof *r->random;
        }
        uint64_t product = (uint64_t)r->random[--r->random_left] * n;
        if ((uint32_t)(product & UINT32_MAX) >= (UINT32_MAX - n + 1) % n) return r->active[product >> 32];
    }
}

static void forward(relay *r, uint32_t i, uint32_t holder)
{
    item_hold(r, i, holder);
    line_send(r->server, r->peers[holder].conn, "message", group_text(&r->groups[r->items[i].group]));
    r->forwards++;
}

static peer *peer_find(const relay *r, uint64_t conn)
{
    size_t i = ka_conn_index(r->server, conn);
    if (i >= r->peers_n) return NULL;
    peer *p = &r->peers[i];
    return p->place < r->active_n && r->active[p->place] == i && p->conn == conn ? p : NULL;
}

static void peer_error(relay *r, uint64_t conn, const char *why)
{
    line_send(r->server, conn, "error", (ka_str){ why, strlen(why) });
    r->errors++;
}

static bool peer_add(relay *r, uint64_t conn)
{
    size_t i = ka_conn_index(r->server, conn);
    if (i >= UINT32_MAX / 2) return false;
    void *p = grown(r->peers, &r->peers_room, (uint32_t)i + 1, sizeof *r->peers);
    if (!p) return false;
    r->peers = p;
    p = grown(r->active, &r->active_room, r->active_n + 1, sizeof *r->active);
    if (!p) return false;
    r->active = p;
    while (r->peers_n <= i) r->peers[r->peers_n++] = (peer){ .conn = 0 };
    r->peers[i] = (peer){ .conn = conn, .place = r->active_n };
    r->active[r->active_n++] = (uint32_t)i;
    if (r->active_n > r->peak) r->peak = r->active_n;
    return true;
}

/* When nobody is there, nothing waits, and all memory goes back. */
static void give_back(relay *r)
{
    free(r->peers);
    free(r->active);
    free(r->items);
    free(r->groups);
    free(r->by_text.buckets);
    free(r->by_holder.buckets);
    r->peers = NULL;
    r->active = NULL;
    r->items = NULL;
    r->groups = NULL;
    r->by_text = r->by_holder = (table){ .n = 0 };
    r->peers_n = r->peers_room = r->active_room = r->items_room = r->groups_room = r->items_free = r->groups_free = 0;
    r->items_n = r->groups_n = 1;      /* 0 is none */
}

/* It is no longer active. What it sent goes with it, what it held goes to others. */
static void peer_leave(relay *r, peer *p)
{
    uint32_t last = r->active[--r->active_n];
    r->active[p->place] = last;
    r->peers[last].place = p->place;
    while (p->first[SENT]) item_drop(r, p->first[SENT]);
    for (uint32_t i; (i = p->first[HELD]) != 0; ) {
        item_release(r, i);
        uint32_t holder = r->o->no_reforward ? NOBODY : choose(r);
        if (holder == NOBODY) continue;
        forward(r, i, holder);
        r->reforwards++;
    }
    if (r->active_n == 0) give_back(r);
}

static const char *take_message(relay *r, peer *p, ka_str x)
{
    const char *why = x_trouble(x);
    if (why) return why;
    if (p->waiting == MAX_WAITING) return "1024 messages of yours wait for an ok; send more when some have come";
    uint32_t holder = choose(r);
    if (holder == NOBODY) return "the system gives no random bytes; send it again later";
    uint32_t g = reserve(r) ? group_of(r, x) : 0;
    if (!g) return "out of memory; send it again later";
    r->messages++;
    forward(r, item_new(r, (uint32_t)(p - r->peers), g), holder);
    return NULL;
}

static const char *take_ok(relay *r, const peer *p, ka_str x)
{
    const char *why = x_trouble(x);
    if (why) return why;
    uint32_t g = r->groups_used ? *find_text(r, sip_hash(r->key, x.p, x.n), x) : 0;
    if (!g || !*find_held(r, g, (uint32_t)(p - r->peers))) {
        r->ignored++;
        return NULL;
    }
    r->oks++;
    for (bool more = true; more; ) {
        uint32_t i = r->groups[g].first;
        more = r->items[i].in[ALIKE].next != 0;      /* the last one takes its group along */
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
        { "active", r->active_n }, { "outstanding", r->items_used }, { "buffered", (int64_t)stats.buffered },
        { "memory", (int64_t)used.memory }, { "cpu_us", used.cpu_us }, { "messages", r->messages }, { "forwards", r->forwards },
        { "reforwards", r->reforwards }, { "oks", r->oks }, { "ignored", r->ignored }, { "errors", r->errors },
        { "lost", r->lost }, { "opened", r->opened }, { "peak", r->peak },
    };
    ka_json_out w = { .p = text, .cap = sizeof text };
    ka_json_open(&w, NULL, KA_OBJECT);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) ka_json_put_integer(&w, all[i].name, all[i].value);
    ka_json_close(&w);
    line_send(r->server, conn, "stats", (ka_str){ text, w.n });
}

/* A line without a fault of its own. Returns what is wrong with it; NULL: nothing. */
static const char *take_line(relay *r, uint64_t conn, ka_str line)
{
    peer *p = peer_find(r, conn);
    ka_str x;
    if (ka_is(line, "stats")) {
        if (p) peer_leave(r, p);
        tell_stats(r, conn);
        return NULL;
    }
    if (ka_is(line, "message") || ka_is(line, "ok")) return "a space and an X belong behind that word";
    bool message = line_is(line, "message", &x);
    if (!message && !line_is(line, "ok", &x)) return "no such word; send message X, ok X or stats";
    if (!p) return "this connection asked for stats; use another one";
    return message ? take_message(r, p, x) : take_ok(r, p, x);
}

static void on_line(relay *r, const ka_event *ev)
{
    const char *why = ev->error == 413 ? "the line is too long; X has up to 65536 bytes" : ev->error == 408 ? "the line was begun, and not ended in time" :
                      ev->error == 503 ? "out of memory" : ev->error ? NULL : take_line(r, ev->conn, ev->body);
    if (why) peer_error(r, ev->conn, why);
    peer *p = ev->error ? peer_find(r, ev->conn) : NULL;
    if (p) peer_leave(r, p);      /* it is closed */
}

static void on_opened(relay *r, uint64_t conn)
{
    r->opened++;
    if (peer_add(r, conn)) return;
    peer_error(r, conn, "out of memory; connect again later");
    ka_close(r->server, conn);
}

static void on_closed(relay *r, const ka_event *ev)
{
    peer *p = peer_find(r, ev->conn);
    if (ev->error) r->lost++;
    if (p) peer_leave(r, p);
}

/* 0: go on; otherwise exit with this. */
static int on_listening(const options *o, const ka_event *ev)
{
    switch (ev->error) {
    case KA_OK:     break;
    case KA_EINUSE: return fail(EXIT_FAILED, "%s:%lld is taken by another program; stop that one, or choose another --port", o->ip, o->port);
    case KA_EADDR:  return fail(EXIT_FAILED, "%s is not an address of this machine; choose another --ip", o->ip);
    case KA_EPERM:  return fail(EXIT_FAILED, "%s:%lld: not permitted; choose a --port from 1024 up", o->ip, o->port);
    default:        return fail(EXIT_FAILED, "cannot listen on %s:%lld: %s (system error %d)", o->ip, o->port, ka_error_text(ev->error), ev->os_error);
    }
    printf("listening on %s:%d\n", o->ip, ev->port);
    fflush(stdout);
    return 0;
}

static void show_stats(relay *r, int64_t now_ms)
{
    int64_t ms = now_ms - r->shown_ms, rate = ms > 0 ? (r->messages - r->shown_messages) * 1000 / ms : 0;
    bool terminal = ka_is_terminal(1);
    printf("%s%lu active, %lu outstanding, %lld messages/s%s", terminal ? "\r" : "", (unsigned long)r->active_n, (unsigned long)r->items_used,
           (long long)rate, terminal ? "     " : "\n");
    fflush(stdout);
    r->shown_ms = now_ms;
    r->shown_messages = r->messages;
    ka_timer(r->server, now_ms + 1000, 0);
}

static int serve(relay *r)
{
    int status = EXIT_DONE;
    for (ka_event ev; ka_wait(r->server, &ev, -1) == KA_OK; ) {
        switch (ev.kind) {
        case KA_LISTENING: if ((status = on_listening(r->o, &ev)) != 0) ka_stop(r->server);
                           else if (r->o->stats) show_stats(r, ev.now_ms);
                           break;
        case KA_OPENED:    on_opened(r, ev.conn); break;
        case KA_MESSAGE:   on_line(r, &ev); break;
        case KA_CLOSED:    on_closed(r, &ev); break;
        case KA_TIMER:     show_stats(r, ev.now_ms); break;
        default:           break;
        }
    }
    return status;
}

static int run_server(const options *o)
{
    static relay r;
    int status;
    r.o = o;
    give_back(&r);
    ka_descriptors_raise(NULL);
    int e = ka_random(r.key, sizeof r.key);
    if (e == KA_OK) e = ka_server_start(&r.server, (int)o->workers);
    if (e < 0) return fail(EXIT_FAILED, "cannot start: %s", ka_error_text(e));
    if (ka_stop_on_interrupt(r.server) < 0) status = fail(EXIT_FAILED, "cannot catch interrupts");
    else if (ka_listen_as(r.server, KA_LINES, o->ip, (int)o->port) < 0)
        status = fail(EXIT_USAGE, "--ip %s: a numeric IPv4 address is needed, such as 127.0.0.1", o->ip);
    else status = serve(&r);
    ka_server_free(r.server);
    return status;
}

/* ---- client: one, which tells what happens ---- */

#define NO_OK UINT32_MAX                    /* timers of an attempt: its time-out, */
#define AGAIN (UINT32_MAX - 1)              /* the next attempt, and below these, answers by their numbers */

typedef struct {
    ka_server *server;
    const options *o;
    ka_str     x;                           /* as it is in a line */
    uint64_t   conn;
    bool       open, done;
    uint32_t   attempt, owed_n, owed_room;
    struct { char *p; size_t n; } *owed;    /* the X of answers to come; without p: given */
    int        misses;                      /* since when and how often it was not connected */
    int64_t    since_ms, sent_ms;
    char       line[2 * MAX_X], text[MAX_X], shown[6 * MAX_X + 8];
} client;

/* X, without its escapes, as a string that can't play with the terminal. */
static const char *client_show(client *c, ka_str x)
{
    ka_json_out w = { .p = c->shown, .cap = sizeof c->shown - 1 };
    ka_json_put(&w, NULL, (ka_str){ c->text, x_unescape(c->text, x) });
    c->shown[w.n] = 0;
    return c->shown;
}

static uint64_t client_tag(const client *c, uint32_t what) { return (uint64_t)c->attempt << 32 | what; }

static int client_timer(client *c, int64_t in_ms, uint32_t what)
{
    return ka_timer(c->server, ka_now_ms() + in_ms, client_tag(c, what)) < 0 ? fail(EXIT_FAILED, "out of memory") : -1;
}

static void client_forget(client *c)
{
    while (c->owed_n) free(c->owed[--c->owed_n].p);
}

/* -1: go on; otherwise exit with this. So do all that follow. */
static int client_connect(client *c)
{
    c->attempt++;                           /* timers of the last one are void */
    client_forget(c);
    c->open = false;
    return ka_connect(c->server, KA_LINES, NULL, c->o->ip, (int)c->o->port, c->attempt) == KA_OK ? -1 :
           fail(EXIT_USAGE, "%s: a numeric IPv4 address is needed, such as 127.0.0.1", c->o->ip);
}

static int client_missed(client *c, const char *what)
{
    int delay_ms = KA_RETRY_FIRST_MS + c->misses * KA_RETRY_STEP_MS;
    if (c->misses++ == 0) c->since_ms = ka_now_ms();
    if (c->o->give_up_ms && ka_now_ms() + delay_ms >= c->since_ms + c->o->give_up_ms)
        return fail(EXIT_OFFLINE, "gave up: %s:%lld is offline", c->o->ip, c->o->port);
    if ((c->misses & (c->misses - 1)) == 0) fail(0, "%s:%lld %s (miss %d); trying again in %d ms", c->o->ip, c->o->port, what, c->misses, delay_ms);
    c->open = false;
    c->attempt++;
    return client_timer(c, delay_ms, AGAIN);
}

static int client_opened(client *c, const ka_event *ev)
{
    if (ev->seq != c->attempt) return -1;
    if (ev->error == KA_EOFFLINE || ev->error == KA_ETIME) return client_missed(c, ev->error == KA_ETIME ? "does not answer" : "is offline");
    if (ev->error) return fail(EXIT_FAILED, "cannot connect to %s:%lld: %s (system error %d)", c->o->ip, c->o->port, ka_error_text(ev->error), ev->os_error);
    c->conn = ev->conn;
    c->open = true;
    c->misses = 0;
    c->sent_ms = ka_now_ms();
    line_send(c->server, c->conn, "message", c->x);
    printf("connected to %s:%lld, sent message %s\n", c->o->ip, c->o->port, client_show(c, c->x));
    return client_timer(c, c->o->timeout_ms, NO_OK);
}

static void client_answer(client *c, uint32_t i)
{
    if (i >= c->owed_n || !c->owed[i].p) return;
    ka_str x = { c->owed[i].p, c->owed[i].n };
    line_send(c->server, c->conn, "ok", x);
    printf("answered ok %s\n", client_show(c, x));
    free(c->owed[i].p);
    c->owed[i].p = NULL;
}

static int client_owes(client *c, ka_str x)
{
    uint64_t random = 0;
    int64_t least = c->o->delay_ms[0], delay_ms = least;
    void *owed = grown(c->owed, &c->owed_room, c->owed_n + 1, sizeof *c->owed);
    char *copy = owed ? malloc(x.n + 1) : NULL;
    if (owed) c->owed = owed;
    if (!copy) return fail(EXIT_FAILED, "out of memory");
    if (x.n) memcpy(copy, x.p, x.n);
    c->owed[c->owed_n].p = copy;
    c->owed[c->owed_n++].n = x.n;
    if (ka_random(&random, sizeof random) < 0) return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
    delay_ms += (int64_t)(random % (uint64_t)(c->o->delay_ms[1] - least + 1));      /* a bias of 2^-30 at most, which is no matter here */
    printf("received message %s, will answer in %lld ms\n", client_show(c, x), (long long)delay_ms);
    if (delay_ms > 0) return client_timer(c, delay_ms, c->owed_n - 1);
    client_answer(c, c->owed_n - 1);
    return -1;
}

static void client_got_ok(client *c, ka_str x)
{
    bool own = x.n == c->x.n && memcmp(x.p, c->x.p, x.n) == 0;
    printf("got ok %s", client_show(c, x));
    if (!own) printf(", which was not sent\n");
    else printf(" after %lld ms\n", (long long)(ka_now_ms() - c->sent_ms));
    if (!own) return;
    c->done = true;
    for (uint32_t i = 0; i < c->owed_n; i++) client_answer(c, i);
    ka_close(c->server, c->conn);
}

static int client_line(client *c, const ka_event *ev)
{
    ka_str x;
    if (c->done || ev->error) return -1;      /* KA_CLOSED follows */
    bool message = line_is(ev->body, "message", &x), ok = !message && line_is(ev->body, "ok", &x);
    if ((message || ok) && !x_trouble(x)) {
        if (message) return client_owes(c, x);
        client_got_ok(c, x);
        return -1;
    }
    if (!line_is(ev->body, "error", &x) || x.n > MAX_X) return fail(EXIT_FAILED, "%s:%lld does not speak as relay server does", c->o->ip, c->o->port);
    ka_json_out w = { .p = c->shown, .cap = sizeof c->shown };
    ka_json_put(&w, NULL, x);
    return fail(EXIT_FAILED, "refused by %s:%lld: %.*s", c->o->ip, c->o->port, (int)w.n, c->shown);
}

static int client_timed(client *c, uint64_t tag)
{
    uint32_t what = (uint32_t)(tag & UINT32_MAX);
    if (c->done || tag != client_tag(c, what)) return -1;
    if (what == AGAIN) return client_connect(c);
    if (what != NO_OK) {
        client_answer(c, what);
        return -1;
    }
    fail(0, "no ok within %.3f s; connecting again", (double)c->o->timeout_ms / 1000);
    ka_close(c->server, c->conn);
    return client_connect(c);
}

static int converse(client *c)
{
    ka_event ev;
    int status = client_connect(c);
    while (status < 0 && ka_wait(c->server, &ev, -1) == KA_OK) {
        bool ours = c->open && ev.conn == c->conn;
        switch (ev.kind) {
        case KA_OPENED:  status = client_opened(c, &ev); break;
        case KA_MESSAGE: if (ours) status = client_line(c, &ev);
                         break;
        case KA_CLOSED:  if (ours) status = c->done ? EXIT_DONE : client_missed(c, "closed the connection");
                         break;
        case KA_TIMER:   status = client_timed(c, ev.tag); break;
        default:         break;
        }
        fflush(stdout);
    }
    return status;
}

/* X, as it is in a line, from the command line or at random. */
static int client_x(client *c)
{
    unsigned char random[8];
    char digits[2 * sizeof random];
    ka_str x = { c->o->x, c->o->x ? strlen(c->o->x) : 0 };
    if (x.p && (x.n > MAX_X || !ka_is_utf8(x))) return fail(EXIT_USAGE, "X: up to %d bytes of UTF-8 are needed", MAX_X);
    if (!x.p) {
        if (ka_random(random, sizeof random) < 0) return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
        ka_hex_encode(digits, random, sizeof random);
        x = (ka_str){ digits, sizeof digits };
    }
    c->x = (ka_str){ c->line, x_escape(c->line, x) };
    return -1;
}

static int run_client(const options *o)
{
    static client c;
    c.o = o;
    int status = client_x(&c);
    if (status >= 0) return status;
    int e = ka_server_start(&c.server, 1);
    if (e < 0) return fail(EXIT_FAILED, "cannot start: %s", ka_error_text(e));
    status = converse(&c);
    ka_server_free(c.server);
    client_forget(&c);
    free(c.owed);
    return status;
}

/* ---- load: many clients in one process, and a server of their own in another ---- */

static int run_load(const options *o) { (void)o; return fail(EXIT_FAILED, "to be written"); }

/* ---- options ---- */

/* A whole number from least to most, and nothing else. */
static bool number(const char *text, long long least, long long most, long long *out)
{
    char *end;
    if (*text < '0' || *text > '9' || strlen(text) > 18) return false;
    *out = strtoll(text, &end, 10);
    return *end == 0 && *out >= least && *out <= most;
}

/* Seconds, with three digits behind the point at most. Returns what follows them; NULL: there are none. */
static const char *seconds(const char *p, int64_t *ms)
{
    const char *begin = p;
    for (*ms = 0; *p >= '0' && *p <= '9' && p - begin < 9; p++) *ms = *ms * 10 + *p - '0';
    *ms *= 1000;
    if (p == begin) return NULL;
    if (p[0] != '.' || p[1] < '0' || p[1] > '9') return p;
    int unit = 100;
    for (p++; *p >= '0' && *p <= '9' && unit > 0; p++, unit /= 10) *ms += unit * (*p - '0');
    return p;
}

/* MIN..MAX, or one for both. */
static bool seconds_range(const char *p, int64_t ms[2])
{
    p = seconds(p, &ms[0]);
    ms[1] = ms[0];
    if (p && p[0] == '.' && p[1] == '.') p = seconds(p + 2, &ms[1]);
    return p && *p == 0 && ms[0] <= ms[1];
}

enum { SERVER = 1, CLIENT = 2, LOAD = 4 };

typedef struct {
    const char  *name;
    int          of;                        /* whose it is */
    bool        *flag;                      /* one of these: what it sets */
    const char **text;
    long long   *number, least, most;
    int64_t     *range;
    long long   *ms;
    int64_t     *time;
} option;

/* -1: go on; otherwise exit with this. */
static int take_value(const option *k, const char *value)
{
    int64_t ms = 0;
    if (k->text) *k->text = value;
    else if (k->number) {
        if (!number(value, k->least, k->most, k->number))
            return fail(EXIT_USAGE, "%s %s: a whole number from %lld to %lld is needed", k->name, value, k->least, k->most);
    } else if (k->range) {
        if (!seconds_range(value, k->range)) return fail(EXIT_USAGE, "%s %s: seconds are needed, such as 0.25 or 0..10", k->name, value);
    } else {
        const char *end = seconds(value, &ms);
        if (!end || *end) return fail(EXIT_USAGE, "%s %s: seconds are needed, such as 30 or 0.25", k->name, value);
        if (k->ms) *k->ms = ms;
        else *k->time = ms;
    }
    return -1;
}

/* -1: go on; otherwise exit with this. */
static int parse(options *o, int who, char **argv)
{
    const option known[] = {
        { "--ip", SERVER, .text = &o->ip },
        { "--port", SERVER | LOAD, .number = &o->port, .most = 65535 },
        { "--workers", SERVER | LOAD, .number = &o->workers, .least = who == SERVER, .most = KA_MAX_WORKERS },
        { "--stats", SERVER, .flag = &o->stats },
        { "--no-reforward", SERVER | LOAD, .flag = &o->no_reforward },
        { "--delay", CLIENT | LOAD, .range = o->delay_ms },
        { "--timeout", CLIENT | LOAD, .time = &o->timeout_ms },
        { "--give-up", CLIENT, .time = &o->give_up_ms },
        { "--clients", LOAD, .number = &o->clients, .least = 1, .most = 10000000 },
        { "--window", LOAD, .ms = &o->window_ms },
        { "--server", LOAD, .text = &o->server },
        { "--seed", LOAD, .number = &o->seed, .most = 999999999999999999 },
        { "--messages", LOAD, .number = &o->messages, .least = 1, .most = 1000000000 },
        { "--ahead", LOAD, .number = &o->ahead, .least = 1, .most = MAX_WAITING },
        { "--vanish", LOAD, .number = &o->vanish_percent, .most = 100 },
        { "--kill-at", LOAD, .ms = &o->kill_at_ms },
        { "--abrupt", LOAD, .flag = &o->abrupt },
        { "--svg", LOAD, .text = &o->svg },
        { "IP", CLIENT, .text = &o->ip },
        { "PORT", CLIENT, .number = &o->port, .least = 1, .most = 65535 },
        { "X", CLIENT, .text = &o->x },
    };
    enum { ALL = sizeof known / sizeof *known, NAMED = ALL - 3 };
    size_t place = NAMED;
    for (; *argv; argv++) {
        size_t k = 0;
        bool named = **argv == '-' && place == NAMED;      /* X may begin with a minus */
        if (strcmp(*argv, "--help") == 0) return fputs(usage, stdout), EXIT_DONE;
        if (strcmp(*argv, "--version") == 0) return puts("relay " KA_VERSION), EXIT_DONE;
        while (k < NAMED && (!named || !(known[k].of & who) || strcmp(*argv, known[k].name) != 0)) k++;
        if (k == NAMED && (who != CLIENT || named || place == ALL)) return fail(EXIT_USAGE, "%s: no such option here; relay --help lists them", *argv);
        if (k == NAMED) k = place++;
        else if (known[k].flag) {
            *known[k].flag = true;
            continue;
        } else if (!*++argv) return fail(EXIT_USAGE, "%s needs a value", known[k].name);
        int status = take_value(&known[k], *argv);
        if (status >= 0) return status;
    }
    return who == CLIENT && place < ALL - 1 ? fail(EXIT_USAGE, "IP and PORT are needed; relay --help tells more") : -1;
}

int main(int argc, char **argv)
{
    options of_server = { .ip = "127.0.0.1", .port = 8000, .workers = 8 };
    options of_client = { .timeout_ms = 30000 };
    options of_load = { .ip = "127.0.0.1", .clients = 100000, .window_ms = 60000, .delay_ms = { 0, 10000 }, .seed = -1, .messages = 1, .ahead = 1 };
    const struct { const char *name; int who; options *o; int (*run)(const options *o); } all[] = {
        { "server", SERVER, &of_server, run_server }, { "client", CLIENT, &of_client, run_client }, { "load", LOAD, &of_load, run_load },
    };
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout), EXIT_DONE;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) return puts("relay " KA_VERSION), EXIT_DONE;
    for (size_t i = 0; argc > 1 && i < sizeof all / sizeof *all; i++) {
        if (strcmp(argv[1], all[i].name) != 0) continue;
        int status = parse(all[i].o, all[i].who, argv + 2);
        return status >= 0 ? status : all[i].run(all[i].o);
    }
    return fputs(usage, stderr), EXIT_USAGE;
}
