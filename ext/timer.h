/* ext/timer.h - events at a time of their own.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/timer.h"

   USE: something every second
         ka_timers timers;
         ka_timers_init(&timers, s);
         ka_timer(&timers, ka_now_ms() + 1000, 7);
         for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; ) {
             if (ev.kind != KA_TIMER || ev.tag != 7) continue;
             puts("a second has passed");
             ka_timer(&timers, ev.now_ms + 1000, 7);
         }
         ka_server_free(s);
         ka_timers_free(&timers); */

#ifndef KEYAUTH_H
#error "ext/timer.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_TIMER_H
#define KEYAUTH_TIMER_H

#ifdef __cplusplus
extern "C" {
#endif

enum { KA_TIMER = 16 };          /* ka_event.kind: the time of the timer with its tag has come */

/* Timers of one server, which only its parent's thread uses. */
typedef struct {
    ka_source source;            /* its own */
    struct ka__timer *heap;      /* a binary heap: the first timer that is due is in front */
    size_t n, room;
} ka_timers;

/* Begin with no timers, and add the source to s. *t stays where it is until ka_timers_free. */
KADEF void ka_timers_init(ka_timers *t, ka_server *s);

/* Have ka_wait give a KA_TIMER event with this tag when ka_now_ms() has come to at_ms, or as soon
   after that as it is called. Timers of the same time come in any order. A timer can't be called
   off: ignore it. ka_stop does not wait for timers.
     returns    KA_OK, or KA_ENOMEM: it won't come */
KADEF int ka_timer(ka_timers *t, int64_t at_ms, uint64_t tag);

/* Free the timers. Behind ka_server_free, or ka_source_remove. Harmless if *t is zero, or twice. */
KADEF void ka_timers_free(ka_timers *t);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_TIMER_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_TIMER_IMPLEMENTED)
#define KEYAUTH_TIMER_IMPLEMENTED

struct ka__timer { int64_t at_ms; uint64_t tag; };

/* Take the first timer off the heap. */
static struct ka__timer ka__timer_take(ka_timers *t)
{
    struct ka__timer first = t->heap[0], last = t->heap[--t->n];
    size_t at = 0;
    for (size_t down; (down = 2 * at + 1) < t->n; at = down) {
        if (down + 1 < t->n && t->heap[down + 1].at_ms < t->heap[down].at_ms) down++;
        if (t->heap[down].at_ms >= last.at_ms) break;
        t->heap[at] = t->heap[down];
    }
    t->heap[at] = last;
    if (t->n == 0) ka_timers_free(t);      /* there may have been a million */
    return first;
}

static bool ka__timers_next(ka_source *source, ka_event *ev)
{
    ka_timers *t = (ka_timers *)source;
    bool due = t->n > 0 && t->heap[0].at_ms <= ev->now_ms;
    if (due) {
        ev->kind = KA_TIMER;
        ev->tag = ka__timer_take(t).tag;
    }
    source->due_ms = t->n > 0 ? t->heap[0].at_ms : INT64_MAX;
    return due;
}

void ka_timers_init(ka_timers *t, ka_server *s)
{
    *t = (ka_timers){ .source = { .next = ka__timers_next, .due_ms = INT64_MAX } };
    ka_source_add(s, &t->source);
}

int ka_timer(ka_timers *t, int64_t at_ms, uint64_t tag)
{
    if (t->n == t->room) {
        size_t room = t->room ? t->room * 2 : 64;
        size_t n = room * sizeof *t->heap;
        struct ka__timer *more = t->heap ? KA_REALLOC(t->heap, n) : KA_MALLOC(n);
        if (!more) return KA_ENOMEM;
        t->heap = more;
        t->room = room;
    }
    size_t at = t->n++;
    for (size_t up; at > 0 && t->heap[up = (at - 1) / 2].at_ms > at_ms; at = up)
        t->heap[at] = t->heap[up];
    t->heap[at] = (struct ka__timer){ at_ms, tag };
    if (at_ms < t->source.due_ms) t->source.due_ms = at_ms;
    return KA_OK;
}

void ka_timers_free(ka_timers *t)
{
    if (t->heap) KA_FREE(t->heap);
    t->heap = NULL;
    t->n = t->room = 0;
}

#endif /* KEYAUTH_TIMER_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
