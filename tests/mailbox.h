/* tests/mailbox.h - section 4 of keyauth.h. */

typedef struct { ka__box box; int records; _Atomic(bool) bad; } stress;

static uint32_t next_random(uint32_t *seed) { return *seed = *seed * 1664525 + 1013904223; }

#if !defined(_WIN32)
#  include <sched.h>
#endif

/* After some turns in vain, let the other thread have the processor: it may be the only one
   (valgrind has just one). */
static void spin(int *turns)
{
    if (++*turns % 100 != 0) return;
#if defined(_WIN32)
    SwitchToThread();
#else
    sched_yield();
#endif
}

static void stress_consume(void *arg)
{
    stress *s = arg;
    uint32_t seed = 1;
    int turns = 0;
    for (int i = 0; i < s->records; ) {
        ka__record *r = ka__box_next(&s->box);
        if (!r) {
            spin(&turns);
            continue;
        }
        uint32_t n = next_random(&seed) >> 16 & 511;
        bool good = r->n == n && r->reply.seq == (uint32_t)i && r->kind == 1 + i % 200;
        for (uint32_t k = 0; k < n; k++) good = good && ka__payload(r)[k] == (char)(i + (int)k);
        if (!good) atomic_store(&s->bad, true);
        ka__box_take(&s->box, r);
        i++;
    }
}

static void test_mailbox(void)
{
    stress s = { .records = 300000 };
    ka__thread consumer;
    uint32_t seed = 1;
    int turns = 0;
    if (!CHECK(ka__box_init(&s.box, 4096) == KA_OK, "init")) return;
    CHECK(ka__box_next(&s.box) == NULL && !ka__box_publish(&s.box) && ka__box_empty(&s.box),
          "empty at first");
    ka__record *r = ka__box_put(&s.box, 1, 10);
    CHECK(r && ka__box_next(&s.box) == NULL, "not to be seen before it is published");
    CHECK(ka__box_publish(&s.box) && !ka__box_publish(&s.box) && ka__box_next(&s.box) == r,
          "then it is");
    CHECK(ka__box_put(&s.box, 1, 4096) == NULL, "too large for the ring");
    ka__box_take(&s.box, r);
    ka__box_free(&s.box);

    ka__box_init(&s.box, 4096);
    /* Positions wrap at SIZE_MAX: after 4 GiB where that has 32 bits. */
    size_t near_end = SIZE_MAX / 4096 * 4096 - (1 << 16);
    s.box.write = s.box.tail_seen = s.box.read = s.box.head_seen = near_end;
    atomic_store(&s.box.head, near_end);
    atomic_store(&s.box.tail, near_end);
    ka__thread_start(&consumer, stress_consume, &s);
    for (int i = 0; i < s.records; i++) {
        uint32_t n = next_random(&seed) >> 16 & 511;
        while (!(r = ka__box_put(&s.box, 1 + i % 200, n))) {
            ka__box_publish(&s.box);
            spin(&turns);
        }
        r->n = n;
        r->reply.seq = (uint32_t)i;
        for (uint32_t k = 0; k < n; k++) ka__payload(r)[k] = (char)(i + (int)k);
        if (i % 3 == 0) ka__box_publish(&s.box);
    }
    ka__box_publish(&s.box);
    ka__thread_join(&consumer);
    CHECK(s.box.write < near_end, "its positions wrapped around");
    CHECK(!atomic_load(&s.bad),
          "300000 records of random sizes through 4096 bytes, between two threads");
    ka__box_free(&s.box);
}

/* Room for what must be told is enough, wherever in the ring its records lie. */
static void test_must_bytes(void)
{
    for (size_t to_end = KA__ALIGN; to_end <= 2 * KA__MUST_BYTES; to_end += KA__ALIGN) {
        ka__box b;
        int put = 0;
        if (!CHECK(ka__box_init(&b, 4096) == KA_OK, "init")) return;
        b.write = 2 * b.size - to_end;
        b.tail_seen = b.write + KA__MUST_BYTES - b.size;
        atomic_store(&b.tail, b.tail_seen);
        while (ka__box_put(&b, KA_OPENED, 0)) put++;
        CHECK(put >= KA_MAX_LISTENERS + 4, "%d bytes before the end: %d records", (int)to_end, put);
        ka__box_free(&b);
    }
}

static const subject mailbox_topics[] = {
    { "mailbox", test_mailbox }, { "must bytes", test_must_bytes },
};
