/* ext/limit.h - limits for each peer: connections at a time, and how often it may ask.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/limit.h"

   USE: 100 connections of an address at a time, and 10 requests a second, 50 at once
         ka_limit limit;
         if (ka_limit_init(&limit, 100, 10, 50) < 0) return 1;
         ka_admit(s, &limit.door);
         ka_listen(s, "0.0.0.0", 8080);
         for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; )
             if (ev.kind == KA_REQUEST && !ka_limit_refuses(&limit, s, &ev, ""))
                 ka_reply(s, &ev, 200, NULL, "hello", 5);
         ka_server_free(s);
         ka_limit_free(&limit);

   CONTENTS
     ka_limit_init, free               with ka_admit, connections are limited
     ka_limit_refuses, ask             requests are limited
     ka_limit_refused, news            who was refused, in words

   LIMITS
     Behind NAT or a proxy many users are one peer. A peer is an IPv4 address or the /64 of an IPv6
     one; those of Unix sockets have no limits. The memory is fixed: with very many peers some share
     a place, and a secret decides which. */

#ifndef KEYAUTH_H
#error "ext/limit.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_LIMIT_H
#define KEYAUTH_LIMIT_H

#ifdef __cplusplus
extern "C" {
#endif

enum { KA_LIMIT_TEXT = 256 };      /* room for ka_limit_news */

/* Set up by ka_limit_init; it stays where it is. */
typedef struct {
    ka_doorman door;                     /* for ka_admit */
    struct ka__limit_state *state;       /* its own */
} ka_limit;

/* Set up the limits.
     most       connections of a peer at a time; 0: any
     rate       ka_limit_ask of a peer each second, 1 to 1000000; 0: any
     burst      ka_limit_ask of a peer that was silent for long, at once; 0 means rate
     returns    KA_OK, or KA_EINVAL, KA_ENOMEM, KA_ERANDOM */
KADEF int ka_limit_init(ka_limit *l, int most, int rate, int burst);

/* May this peer ask? The parent's thread only.
     now_ms     ka_now_ms()
     returns    0: yes, and it is counted; else the seconds after which it may */
KADEF int ka_limit_ask(ka_limit *l, const ka_end *peer, int64_t now_ms);

/* The same for a request. If its peer may not ask, it is answered: by 429, Retry-After, try_later.
     begins     only if its body begins so; "": any body */
KADEF bool ka_limit_refuses(ka_limit *l, ka_server *s, const ka_event *ev, const char *begins);

/* What was refused since this was last true, in a line of English, at most once in every_ms. If one
   peer is more than half of it, it is told, too. The parent's thread only. */
KADEF bool ka_limit_news(char out[KA_LIMIT_TEXT], ka_limit *l, int64_t now_ms, int every_ms);

/* Connections and asks that were refused so far. Any thread. */
KADEF void ka_limit_refused(const ka_limit *l, size_t *connections, size_t *asks);

/* Free what it holds, behind ka_server_free. Harmless if *l is zero, or twice. */
KADEF void ka_limit_free(ka_limit *l);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_LIMIT_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_LIMIT_IMPLEMENTED)
#define KEYAUTH_LIMIT_IMPLEMENTED

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { KA__LIMIT_PLACES = 1 << 16, KA__LIMIT_WAYS = 4 };

/* A peer's rate (GCRA, ITU-T I.371): the time at which it has all of its burst again. */
typedef struct { uint32_t tag; int64_t whole_us; } ka__limit_rate;

/* What was refused, and the candidate for who was refused most (majority vote of Boyer, Moore). */
typedef struct { size_t n, votes; ka_end most; } ka__limit_refused;

struct ka__limit_state {
    int         most;
    int64_t     step_us, burst_us;
    int64_t     told_ms;
    unsigned char secret[16];
    _Atomic(int) locked;                            /* refused[0] is being changed */
    ka__limit_refused refused[2];                   /* connections, by the workers; asks */
    _Atomic(size_t) total[2];                       /* of both, ever */
    ka__limit_rate rates[KA__LIMIT_PLACES];
    _Atomic(uint32_t) open[KA__LIMIT_PLACES];       /* connections */
};

/* A number of a peer that only who knows the secret can tell. */
static uint64_t ka__limit_hash(const struct ka__limit_state *s, const ka_end *peer)
{
    static const unsigned char mapped[12] = { [10] = 0xFF, [11] = 0xFF };
    unsigned char text[sizeof s->secret + 16] = { 0 }, digest[32];
    uint64_t hash;
    bool four = memcmp(peer->ip, mapped, sizeof mapped) == 0;
    memcpy(text, s->secret, sizeof s->secret);
    memcpy(text + sizeof s->secret, peer->ip, four ? 16 : 8);
    ka_sha256(digest, text, sizeof text);
    memcpy(&hash, digest, sizeof hash);
    return hash;
}

static void ka__limit_refuse(struct ka__limit_state *s, int what, const ka_end *peer)
{
    ka__limit_refused *r = &s->refused[what];
    bool same = r->votes && memcmp(r->most.ip, peer->ip, sizeof peer->ip) == 0;
    atomic_fetch_add(&s->total[what], 1);
    r->n++;
    if (!r->votes) r->most = *peer;
    if (same || !r->votes) r->votes++;
    else r->votes--;
}

static bool ka__limit_enter(ka_doorman *door, const ka_end *peer)
{
    struct ka__limit_state *s = ((ka_limit *)door)->state;
    if (!s || s->most == 0 || peer->local) return true;
    _Atomic(uint32_t) *open = &s->open[ka__limit_hash(s, peer) % KA__LIMIT_PLACES];
    if (atomic_fetch_add(open, 1) < (uint32_t)s->most) return true;
    atomic_fetch_sub(open, 1);
    while (atomic_exchange(&s->locked, 1)) {}
    ka__limit_refuse(s, 0, peer);
    atomic_store(&s->locked, 0);
    return false;
}

static void ka__limit_leave(ka_doorman *door, const ka_end *peer)
{
    struct ka__limit_state *s = ((ka_limit *)door)->state;
    if (!s || s->most == 0 || peer->local) return;
    atomic_fetch_sub(&s->open[ka__limit_hash(s, peer) % KA__LIMIT_PLACES], 1);
}

int ka_limit_init(ka_limit *l, int most, int rate, int burst)
{
    *l = (ka_limit){ .door = { ka__limit_enter, ka__limit_leave } };
    if (most < 0 || rate < 0 || rate > 1000000 || burst < 0) return KA_EINVAL;
    if (most == 0 && rate == 0) return KA_OK;      /* no limits: no memory */
    struct ka__limit_state *s = KA_MALLOC(sizeof *s);
    if (!s) return KA_ENOMEM;
    memset(s, 0, sizeof *s);
    l->state = s;
    s->most = most;
    if (rate) s->step_us = 1000000 / rate;
    s->burst_us = s->step_us * (burst ? burst : rate);
    return ka_random(s->secret, sizeof s->secret);
}

/* The place of a peer's rate. Others that are here too have their own tags, as long as there are
   not too many: then who has asked least of late makes room. */
static ka__limit_rate *ka__limit_place(struct ka__limit_state *s, const ka_end *peer)
{
    uint64_t hash = ka__limit_hash(s, peer);
    ka__limit_rate *set = &s->rates[hash % (KA__LIMIT_PLACES / KA__LIMIT_WAYS) * KA__LIMIT_WAYS];
    ka__limit_rate *least = set;
    uint32_t tag = (uint32_t)(hash >> 32) | 1;
    for (int i = 0; i < KA__LIMIT_WAYS; i++) {
        if (set[i].tag == tag) return &set[i];
        if (set[i].whole_us < least->whole_us) least = &set[i];
    }
    *least = (ka__limit_rate){ .tag = tag };
    return least;
}

int ka_limit_ask(ka_limit *l, const ka_end *peer, int64_t now_ms)
{
    struct ka__limit_state *s = l->state;
    if (!s || s->step_us == 0 || peer->local) return 0;
    ka__limit_rate *r = ka__limit_place(s, peer);
    const int64_t now_us = now_ms * 1000;
    int64_t whole_us = (r->whole_us > now_us ? r->whole_us : now_us) + s->step_us;
    if (whole_us <= now_us + s->burst_us) {
        r->whole_us = whole_us;
        return 0;
    }
    ka__limit_refuse(s, 1, peer);
    return (int)((whole_us - now_us - s->burst_us + 999999) / 1000000);
}

bool ka_limit_refuses(ka_limit *l, ka_server *s, const ka_event *ev, const char *begins)
{
    char field[32];
    const size_t n = strlen(begins);
    if (ev->status || ev->body.n < n || (n && memcmp(ev->body.p, begins, n) != 0)) return false;
    int seconds = ka_limit_ask(l, &ev->peer, ev->now_ms);
    if (seconds == 0) return false;
    snprintf(field, sizeof field, "Retry-After: %d\r\n", seconds);
    ka_reply(s, ev, 429, field, "try_later", 9);
    return true;
}

bool ka_limit_news(char out[KA_LIMIT_TEXT], ka_limit *l, int64_t now_ms, int every_ms)
{
    static const char *const what[2] = { "connections", "asks" };
    struct ka__limit_state *s = l->state;
    ka__limit_refused r[2];
    size_t n = 0;
    if (!s || now_ms < s->told_ms + every_ms) return false;
    while (atomic_exchange(&s->locked, 1)) {}
    memcpy(r, s->refused, sizeof r);
    memset(s->refused, 0, sizeof s->refused);
    atomic_store(&s->locked, 0);
    for (int i = 0; i < 2; i++) {
        char ip[KA_END_TEXT + 1];
        ka_end_text(ip, r[i].most);
        if (!r[i].n) continue;
        n += (size_t)snprintf(out + n, KA_LIMIT_TEXT - n, "%s%zu %s", n ? ", " : "", r[i].n,
                              what[i]);
        if (r[i].votes)
            n += (size_t)snprintf(out + n, KA_LIMIT_TEXT - n, " (most by %.*s)",
                                  (int)(strrchr(ip, ':') - ip), ip);
    }
    if (n) s->told_ms = now_ms;
    return n > 0;
}

void ka_limit_refused(const ka_limit *l, size_t *connections, size_t *asks)
{
    *connections = l->state ? atomic_load(&l->state->total[0]) : 0;
    *asks = l->state ? atomic_load(&l->state->total[1]) : 0;
}

void ka_limit_free(ka_limit *l)
{
    if (l->state) KA_FREE(l->state);
    l->state = NULL;
}

#endif /* KEYAUTH_LIMIT_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
