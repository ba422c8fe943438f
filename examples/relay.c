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
    "  --vanish PERCENT of those who come to owe an ok vanish instead; 0 unless told\n"
    "  --kill-at S      kill the server then, and start it again\n"
    "  --abrupt         clients close at their ok, whatever    --no-reforward   have the server called so\n"
    "                   they owe; unless told they stay for it\n"
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
    long long   clients, seed, messages, ahead, vanish_percent;
    int64_t     window_ms, kill_at_ms;
    const char *server, *svg;
    bool        abrupt;
} options;

static bool bar_shown;                      /* a line on stderr that is not ended */

static void bar_end(void)
{
    if (bar_shown) fputc('\n', stderr);
    bar_shown = false;
}

static int fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bar_end();
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
    const char *end = x.p + x.n;
    size_t escapes = 0;
    for (const char *p = x.p; (p = memchr(p, '\\', (size_t)(end - p))) != NULL; p += 2, escapes++)
        if (p + 1 == end || !memchr("nr\\", p[1], 3)) return "a backslash is there without n, r or a backslash behind it; write it twice";
    if (memchr(x.p, '\r', x.n)) return "a raw carriage return is in the line; write it as \\r";
    if (x.n - escapes > MAX_X) return "X is longer than 65536 bytes; send less";
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
enum { MAX_WAITING = 1024, CROWD = 1000 };  /* messages of one connection that wait; connections whose memory is worth giving back */
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

/* splitmix64's mixer. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

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

/* The next 8 bytes, the lowest first: a single load where that is the processor's order. */
static uint64_t sip_word(const unsigned char *p)
{
    return p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 |
           (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

static uint32_t sip_hash(const uint64_t key[2], const void *in, size_t n)
{
    const unsigned char *p = in;
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
    for (size_t at = 0; at <= n; at += 8) {      /* the last word has what is left, and the length in its highest byte */
        uint64_t word = n - at < 8 ? (uint64_t)n << 56 : sip_word(p + at);
        for (size_t i = at; n - at < 8 && i < n; i++) word |= (uint64_t)p[i] << 8 * (i - at);
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return (uint32_t)((v[0] ^ v[1] ^ v[2] ^ v[3]) & UINT32_MAX);
}

/* An array with room for so many; NULL: it is as it was. What was not used is not touched, and so takes no memory yet. */
static void *room_for(void *p, uint32_t *room, uint32_t need, size_t size)
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

/* Nobody can choose these two: the one is a place of ours, the other chosen at random. */
static uint32_t holder_hash(const relay *r, uint32_t g, uint32_t holder)
{
    return (uint32_t)(mix(((uint64_t)g << 32 | holder) ^ r->key[0]) >> 32);
}

/* Linear hashing (Litwin, 1980): a table grows by a bucket at a time, which takes its share from one other. */
static uint32_t *table_bucket(const table *t, uint32_t hash)
{
    uint32_t at = hash & t->mask;
    return &t->buckets[at < t->n ? at : at & t->mask >> 1];
}

static bool table_reserve(table *t, uint32_t need)
{
    void *p = room_for(t->buckets, &t->room, need, sizeof *t->buckets);
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
    void *p = r->items_free ? r->items : room_for(r->items, &r->items_room, r->items_n + 1, sizeof *r->items);
    if (!p) return false;
    r->items = p;
    p = r->groups_free ? r->groups : room_for(r->groups, &r->groups_room, r->groups_n + 1, sizeof *r->groups);
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
    void *p = room_for(r->peers, &r->peers_room, (uint32_t)i + 1, sizeof *r->peers);
    if (!p) return false;
    r->peers = p;
    p = room_for(r->active, &r->active_room, r->active_n + 1, sizeof *r->active);
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
    bool crowd = r->peers_room > CROWD;
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
    if (crowd) ka_memory_trim();
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
           (long long)rate, terminal ? "                    " : "\n");      /* over a longer one */
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
    if (r->shown_ms && ka_is_terminal(1)) putchar('\n');
    return status;
}

static int run_server(const options *o)
{
    static relay r;
    int status;
    bool each;
    r.o = o;
    give_back(&r);
    ka_descriptors_raise(&each);
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
    void *owed = room_for(c->owed, &c->owed_room, c->owed_n + 1, sizeof *c->owed);
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
    ka_str x = { c->o->x, c->o->x ? strlen(c->o->x) : 0 };
    if (x.p && (x.n > MAX_X || !ka_is_utf8(x))) return fail(EXIT_USAGE, "X: up to %d bytes of UTF-8 are needed", MAX_X);
    if (!x.p) {
        unsigned char random[8];
        if (ka_random(random, sizeof random) < 0) return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
        ka_hex_encode(c->text, random, sizeof random);
        x = (ka_str){ c->text, 2 * sizeof random };
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

enum {
    LOAD_SPARE = 100,               /* descriptors of a worker that are for no client */
    LOAD_PORTS = 12000,             /* clients of one source address: from 14,000 on Linux is slow to find a free port */
    LOAD_START_MS = 10000, LOAD_OFFLINE_MS = 1000, LOAD_ZERO_MS = 10000, LOAD_LIMIT_MS = 60000,
    LOAD_TOLD = 5,                  /* strange lines that are shown; the others are counted */
    LOAD_TEXT = 256,                /* bytes of an X here, at most */
    LOAD_LINEAR = 64, LOAD_BUCKETS = LOAD_LINEAR / 2 * 40,
    LOAD_LIMITS = 40                /* 1, 2, 5, 10... us, up to more than there are buckets for */
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
    bool     answered;              /* a client has given an ok for it, since it was sent */
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
    uint32_t      clients_n, messages_each, ahead;
    uint32_t     *owner, owner_room;        /* of a connection, by ka_conn_index */
    bool          sources;          /* connect from several addresses */
    load_client  *clients;
    load_message *messages;         /* `ahead` for each client */
    enum { LOAD_PREPARING, LOAD_RUNNING, LOAD_ENDING, LOAD_OVER } phase;
    int           status;           /* LOAD_OVER: -1: the checks tell; else exit with this */
    int64_t       begun_ms, ended_ms, timeout_ms;
    bool          killed, died;      /* killed: its server, by --kill-at; died: by itself */

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

static void load_timer(load *l, int64_t at_ms, int kind, uint32_t i)
{
    if (ka_timer(l->server, at_ms, (uint64_t)kind << 32 | i) == KA_OK) return;
    load_stop(l, fail(EXIT_FAILED, "out of memory; choose fewer --clients"));
}

/* ---- load: what is random. It follows from the seed, so that nothing of it has to be kept ---- */

enum { LOAD_OF_START, LOAD_OF_DELAY, LOAD_OF_VANISHING, LOAD_OF_TEXT };      /* and, from here on, of the further texts */

static uint64_t load_random(const load *l, uint32_t i, uint64_t what)
{
    return mix(mix(l->seed + ((uint64_t)i + 1) * 0x9e3779b97f4a7c15u) + (what + 1) * 0x9e3779b97f4a7c15u);
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
        r = mix(r + 0x9e3779b97f4a7c15u);
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

/* 1, 2, 5, 10, 20... */
static int64_t load_limit_us(int k)
{
    static const int steps[] = { 1, 2, 5 };
    int64_t us = steps[k % 3];
    for (; k >= 3; k -= 3) us *= 10;
    return us;
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
static void load_strange(load *l, const char *who, uint32_t i, ka_str line)
{
    char text[1024];
    ka_json_out w = { .p = text, .cap = sizeof text };
    if (++l->strange > LOAD_TOLD) return;
    ka_json_put(&w, NULL, line);
    fail(0, "%s %u got a line that it should not get: %.*s", who, (unsigned)i, w.error ? 0 : (int)w.n, text);
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

static void load_answer(load *l, uint32_t i, load_message *m)
{
    char text[LOAD_TEXT];
    size_t n = load_text(l, text, (uint32_t)((size_t)(m - l->messages) / l->ahead), m->number);
    line_send(l->server, l->clients[i].conn, "ok", (ka_str){ text, n });
    m->answered = true;
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

/* A client with all its oks closes when it has given those that it owes, too; at once if --abrupt. */
static void load_leave_if_done(load *l, uint32_t i)
{
    const load_client *c = &l->clients[i];
    if (c->state == LOAD_OPEN && c->acknowledged == l->messages_each && (c->owed == LOAD_NOBODY || l->o->abrupt)) load_leave(l, i, LOAD_DONE);
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
    load_leave_if_done(l, i);           /* its connection was lost while it owed */
}

/* `message X`. One that has its ok already, or that another client holds too, is answered at once: it was sent twice. */
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
    load_message *m = load_known(l, x, &from, &number) && from == i ? load_find(l, i, number) : NULL;
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
    load_stop(l, fail(EXIT_FAILED, "cannot start the server again on port %d: %s", l->port, ka_error_text(r)));
}

/* ---- load: asking the server how it is ---- */

static void load_ask(load *l)
{
    if (l->asking == LOAD_ASKS) {
        l->unanswered++;
        ka_send(l->server, l->stats_conn, "stats\n", 6);
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
    if (l->phase == LOAD_PREPARING && now_ms >= l->begun_ms + LOAD_START_MS)
        load_stop(l, fail(EXIT_FAILED, "%s:%d does not tell its stats; is a relay server there?", l->ip, l->port));
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
    l->died = l->child.pid && ka_child_line(&l->child, line, sizeof line, 0) == KA_ENOTFOUND;
    if (l->died) load_stop(l, fail(EXIT_FAILED, "the server has ended by itself"));
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

/* Memory that may be left at the end: what there was at the start, a tenth of what came on top of that, 4 MB, and the mailboxes
   of the server's workers, of which nothing is in memory before they are used. */
static int64_t load_memory_allowed(const load *l)
{
    return l->first[LOAD_MEMORY] + (l->top[LOAD_MEMORY] - l->first[LOAD_MEMORY]) / 10 + 4000000 + l->workers * (int64_t)(2 * KA_MAILBOX + 300000);
}

static bool load_zero(const load *l)
{
    return !l->last[LOAD_ACTIVE] && !l->last[LOAD_OUTSTANDING] && !l->last[LOAD_BUFFERED] && l->last[LOAD_MEMORY] <= load_memory_allowed(l);
}

static bool load_read_stats(load *l, ka_str line)
{
    ka_json all, value;
    ka_str text;
    char digits[24];
    if (!line_is(line, "stats", &text) || ka_json_read(&all, text) < 0) return false;
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
    if (line_is(line, "message", &(ka_str){ 0 })) return;      /* of the time before it had asked: the server forwards it to another one */
    if (!load_read_stats(l, line)) {
        load_strange(l, "who asked for stats of life", l->killed, line);
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
    bar_shown = terminal;
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
        if (l->phase == LOAD_RUNNING) fail(0, "it does not end; given up after %.0f s", (double)(ev->now_ms - l->begun_ms) / 1000);
        load_stop(l, EXIT_FAILED);
    }
}

/* What came of ka_connect, for a client. */
static void load_on_knock(load *l, uint32_t i, const ka_event *ev)
{
    if (ev->error == KA_EADDR && l->sources) {
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
    uint32_t *owner = at < UINT32_MAX / 2 ? room_for(l->owner, &l->owner_room, (uint32_t)at + 1, sizeof *owner) : NULL;
    if (!owner) return false;
    l->owner = owner;
    owner[at] = who;
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
    bar_end();
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

static void load_report_histogram(const load *l)
{
    static const char bar[] = "########################################";
    uint64_t left = l->oks;
    size_t i = 0;
    for (int k = 0; k < LOAD_LIMITS && left > 0; k++) {
        uint64_t n = 0;
        for (; i < LOAD_BUCKETS && load_bucket_us(i) < load_limit_us(k); i++) n += l->histogram[i];
        left -= n;
        if (left == l->oks) continue;
        printf("  < %-14g%12llu%9.3f %%  %.*s\n", (double)load_limit_us(k) / 1000, (unsigned long long)n,
               100 * (double)n / (double)l->oks, (int)(n * 40 / l->oks), bar);
    }
}

static void load_report(const load *l)
{
    ka_usage own;
    double took_s = (double)(l->ended_ms - l->begun_ms) / 1000;
    uint64_t again = l->connects[LOAD_LOST] + l->connects[LOAD_TIMED_OUT] + l->connects[LOAD_REFUSED];
    ka_process_usage(&own);
    printf("clients      %u, %u done, %u vanished; %u open at once at the peak\n", l->clients_n, l->done, l->vanished, l->peak);
    printf("messages     %llu in %.2f s, %.0f a second; %llu sent again\n", (unsigned long long)l->oks, took_s,
           took_s > 0 ? (double)l->oks / took_s : 0.0, (unsigned long long)l->sent_again);
    fputs("latency     ", stdout);
    for (int k = 0; k < LOAD_PARTS; k++) printf("%12s", load_parts[k].name);
    fputs("         max\n  ms        ", stdout);
    for (int k = 0; k < LOAD_PARTS; k++) printf("%12.3f", (double)load_percentile(l, load_parts[k].part) / 1000);
    printf("%12.3f\n", (double)l->slowest_us / 1000);
    load_report_histogram(l);
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
    int64_t ignored = l->last[LOAD_IGNORED] - l->first[LOAD_IGNORED];
    bool held = load_check(ended == l->clients_n, "every message got its ok: %u of %u clients done, %llu of %llu messages; %u vanished",
                           l->done, l->clients_n - l->vanished, (unsigned long long)l->oks, all, l->vanished);
    held &= load_check(l->strange == 0, "lines that should not have come: %llu", (unsigned long long)l->strange);
    if (!l->killed)
        held &= load_check(l->in_order == l->clients_n && l->resets == 0 && l->connects[LOAD_LOST] == 0,
                           "closed by the clients, in order: %u of %u; %llu resets, %llu lost", l->in_order, l->clients_n,
                           (unsigned long long)l->resets, (unsigned long long)l->connects[LOAD_LOST]);
    if (!l->killed && !l->o->no_reforward)
        held &= load_check(l->connects[LOAD_TIMED_OUT] == 0, "time-outs: %llu", (unsigned long long)l->connects[LOAD_TIMED_OUT]);
    if (!l->killed && !l->o->no_reforward && !l->o->vanish_percent)
        held &= load_check(ignored == 0, "oks for which nobody waited: %lld", (long long)ignored);
    for (int k = LOAD_ACTIVE; k <= LOAD_BUFFERED; k++)
        held &= load_check(l->last[k] == 0, "zero state: %s %lld", load_figures[k], (long long)l->last[k]);
    held &= load_check(l->last[LOAD_MEMORY] <= load_memory_allowed(l), "zero state: memory %.1f MB, at most %.1f", (double)l->last[LOAD_MEMORY] / 1e6,
                       (double)load_memory_allowed(l) / 1e6);
    return held;
}

/* ---- load: its histogram as a picture, in the style of bench/ ---- */

enum { SVG_W = 820, SVG_H = 400, SVG_X0 = 80, SVG_X1 = 796, SVG_Y0 = 150, SVG_Y1 = 336, SVG_BUCKETS = 4 /* to a bar */, SVG_BARS = LOAD_BUCKETS / SVG_BUCKETS };

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

typedef struct { size_t first, last; uint64_t top; } svg_axes;      /* bars from and to; messages of the highest */

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

/* Where a bucket begins. They are the scale: as a logarithm, from 64 us on. */
static double svg_x(const svg_axes *a, size_t bucket)
{
    double bars = a->last > a->first ? (double)(a->last - a->first) : 1;
    return SVG_X0 + ((double)bucket / SVG_BUCKETS - (double)a->first) / bars * (SVG_X1 - SVG_X0);
}

/* Quarters of the highest bar, as shares of all messages; times of 1, 2 and 5 times a power of ten. */
static void svg_grid(FILE *f, const svg_axes *a, uint64_t all)
{
    for (int quarter = 0; quarter <= 4; quarter++) {
        double at = SVG_Y1 - quarter / 4.0 * (SVG_Y1 - SVG_Y0);
        fprintf(f, "<path d=\"M%d %.1fH%d\" stroke=\"%s\"/>\n", SVG_X0, at, SVG_X1, svg_line);
        svg_text(f, SVG_X0 - 8, at + 4, 11, svg_faint, "end", "%.2g %%", quarter * 25.0 * (double)a->top / (double)all);
    }
    double before = 0;
    for (int k = 0; k < LOAD_LIMITS; k++) {
        int64_t us = load_limit_us(k);
        double at = svg_x(a, load_bucket(us));
        if (at < SVG_X0 - 1 || at > SVG_X1 + 1 || at < before + 48) continue;
        before = at;
        fprintf(f, "<path d=\"M%.1f %dv5\" stroke=\"%s\"/>\n", at, SVG_Y1, svg_faint);
        svg_text(f, at, SVG_Y1 + 19, 11, svg_faint, "middle", us < 1000 ? "%g \xc2\xb5s" : us < 1000000 ? "%g ms" : "%g s",
                 (double)us / (us < 1000 ? 1 : us < 1000000 ? 1000 : 1000000));
    }
}

/* Each in a row of its own, the last on top: so no line goes through another one's words. */
static void svg_percentiles(FILE *f, const load *l, const svg_axes *a)
{
    for (int k = 0; k < LOAD_PARTS; k++) {
        int64_t us = load_percentile(l, load_parts[k].part);
        double at = svg_x(a, load_bucket(us)), y = SVG_Y0 - 11 - 15 * k;
        bool right = at < SVG_X0 + 140;
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
    for (size_t bar = a.first; bar < a.last; bar++) {
        double x = svg_x(&a, bar * SVG_BUCKETS), next = svg_x(&a, (bar + 1) * SVG_BUCKETS);
        double height = (double)svg_bar(l, bar) / (double)a.top * (SVG_Y1 - SVG_Y0);
        if (height > 0) fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x + 0.5, SVG_Y1 - height, next - x - 1, height, svg_blue);
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
        return fail(EXIT_FAILED, "%lld clients are more than the descriptor limit of %d allows%s, less %d for other things; raise it (ulimit -n), or choose fewer --clients",
                    l->o->clients, limit, each ? " with 64 workers" : "", LOAD_SPARE);
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
    uint32_t fresh;
    if (ka_random(&fresh, sizeof fresh) < 0) return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
    l->seed = o->seed < 0 ? fresh % 1000000000 : (uint64_t)o->seed;
    int status = load_plan(l);
    if (status < 0) status = load_allocate(l);
    if (status >= 0) return status;
    int r = o->server ? KA_OK : load_server_start(l);
    if (r < 0) return fail(EXIT_FAILED, "cannot start the server: %s", r == KA_ENOTFOUND ? "it ended before it listened" : ka_error_text(r));
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
    return load_check(!l->died && (r == 0 || r == 137), "the server ended: %d", r);
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
    if (fflush(stdout) != 0 || ferror(stdout)) status = fail(EXIT_FAILED, "the report could not be written");
    return status < 0 ? EXIT_DONE : status;
}

/* ---- options ---- */

/* A whole number from least to most, and nothing else. */
static bool whole_number(const char *text, long long least, long long most, long long *out)
{
    char *end;
    if (*text < '0' || *text > '9' || strlen(text) > 18) return false;
    *out = strtoll(text, &end, 10);
    return *end == 0 && *out >= least && *out <= most;
}

/* Seconds, with three digits behind the point at most. Returns what follows them; NULL: there are none. */
static const char *take_seconds(const char *p, int64_t *ms)
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
    p = take_seconds(p, &ms[0]);
    ms[1] = ms[0];
    if (p && p[0] == '.' && p[1] == '.') p = take_seconds(p + 2, &ms[1]);
    return p && *p == 0 && ms[0] <= ms[1];
}

enum { SERVER = 1, CLIENT = 2, LOAD = 4 };

typedef struct {
    const char  *name;
    int          of;                        /* whose it is */
    bool        *flag;                      /* one of these: what it sets */
    const char **text;
    long long   *number, least, most;
    int64_t     *ms, *range;                /* a time, of `least` ms or more; a least and a most one */
} option;

/* -1: go on; otherwise exit with this. */
static int take_value(const option *k, const char *value)
{
    if (k->text) *k->text = value;
    else if (k->number) {
        if (!whole_number(value, k->least, k->most, k->number))
            return fail(EXIT_USAGE, "%s %s: a whole number from %lld to %lld is needed", k->name, value, k->least, k->most);
    } else if (k->range) {
        if (!seconds_range(value, k->range)) return fail(EXIT_USAGE, "%s %s: seconds are needed, such as 0.25 or 0..10", k->name, value);
    } else {
        const char *end = take_seconds(value, k->ms);
        if (!end || *end || *k->ms < k->least) return fail(EXIT_USAGE, "%s %s: seconds are needed, such as 30 or 0.25", k->name, value);
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
        { "--timeout", CLIENT | LOAD, .ms = &o->timeout_ms, .least = 1 },
        { "--give-up", CLIENT, .ms = &o->give_up_ms, .least = 1 },
        { "--clients", LOAD, .number = &o->clients, .least = 1, .most = 10000000 },
        { "--window", LOAD, .ms = &o->window_ms },
        { "--server", LOAD, .text = &o->server },
        { "--seed", LOAD, .number = &o->seed, .most = 999999999999999999 },
        { "--messages", LOAD, .number = &o->messages, .least = 1, .most = 1000000000 },
        { "--ahead", LOAD, .number = &o->ahead, .least = 1, .most = MAX_WAITING },
        { "--vanish", LOAD, .number = &o->vanish_percent, .most = 100 },
        { "--kill-at", LOAD, .ms = &o->kill_at_ms, .least = 1 },
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
        if (k == NAMED && (who != CLIENT || named || place == ALL))
            return fail(EXIT_USAGE, place == ALL ? "%s is a word too many: options come before IP, and an X with spaces needs quotes" :
                        "%s: no such option here; relay --help lists them", *argv);
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
