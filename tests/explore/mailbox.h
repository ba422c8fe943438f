/* mailbox.h - scenarios of section 4, and of the sleeper in section 1: one box, and two boxes. */

/* Lengths of the payloads. With a box of 128 bytes the box is full after two records. The third one
   needs a filler, and when the first one was taken, 16 bytes are still missing for the third. */
static const uint32_t box_lengths[] = { 0, 32, 9, 16, 0 };
static struct { ka__worker *w; ka__sleeper parent; unsigned records; } box;

static void box_fill(ka__record *r, unsigned i)
{
    r->conn = 1000 + i;
    for (uint32_t k = 0; k < r->n; k++) ka__payload(r)[k] = (char)(16 * i + k);
}

static void box_check(ka__record *r, unsigned i)
{
    CHECK(r->kind == 1 + i && r->conn == 1000 + i && r->n == box_lengths[i], "record %u", i);
    for (uint32_t k = 0; k < r->n; k++)
        CHECK(ka__payload(r)[k] == (char)(16 * i + k), "record %u, byte %u", i, k);
}

static void box_sleep(ka__sleeper *z, ka__box *b, int ms)
{
    uint32_t none;
    atomic_store(&z->asleep, 1);
    if (ka__box_empty(b)) ka__poller_wait(&z->poller, &none, 1, ms);
    atomic_store(&z->asleep, 0);
}

/* Positions so that they wrap at SIZE_MAX behind the first records. */
static void box_make(ka__box *b)
{
    ka__box_init(b, 128);
    b->write = b->tail_seen = b->read = b->head_seen = (size_t)0 - 128;
    atomic_init(&b->head, (size_t)0 - 128);
    atomic_init(&b->tail, (size_t)0 - 128);
}

static void box_begin(unsigned records)
{
    box.records = records;
    box.w = ka__alloc_zeroed(1, sizeof *box.w);
    ka__poller_init(&box.w->sleeper.poller);
    ka__poller_init(&box.parent.poller);
    box.w->parent = &box.parent;
    box_make(&box.w->up);
    box_make(&box.w->down);
}

static void box_end(void)
{
    ka__worker *w = box.w;
    CHECK(ka__box_room(&w->down, 128), "all room was given back");
    CHECK(w->down.read == w->down.write && w->up.read == w->up.write, "all was read");
    ka__box_free(&w->up);
    ka__box_free(&w->down);
    ka__poller_free(&w->sleeper.poller);
    ka__poller_free(&box.parent.poller);
    ka__free(w);
}

/* What is in the box, with its room given back at once. Returns how many there are now. */
static unsigned box_take_all(ka__box *b, unsigned i)
{
    for (ka__record *r; (r = ka__box_next(b)) != NULL; i++) {
        box_check(r, i);
        ka__box_take(b, r);
    }
    return i;
}

static void *box_read(void *arg)
{
    (void)arg;
    ka__worker *w = box.w;
    for (unsigned i = 0; ; box_sleep(&w->sleeper, &w->down, -1)) {
        for (ka__record *r; (r = ka__box_next(&w->down)) != NULL; i++) {
            box_check(r, i);
            ka__box_pass(&w->down, r);
        }
        ka__box_release(&w->down);
        if (i == box.records) return NULL;
    }
}

/* One writes, as the parent does. The other one reads all that there is, and sleeps, as a worker
   does. */
static void box_one(unsigned records)
{
    pthread_t reader;
    box_begin(records);
    pthread_create(&reader, NULL, box_read, NULL);
    for (unsigned i = 0; i < records; i++) {
        box_fill(ka__down(box.w, (int)(1 + i), box_lengths[i]), i);
        if (i % 2 == 0) ka__publish_down(box.w);
    }
    ka__publish_down(box.w);
    pthread_join(reader, NULL);
    box_end();
}

/* A worker that answers each record, and never waits for room: it keeps what it owes, and looks
   again after a millisecond, as for connections that are HELD. */
static void *box_answer(void *arg)
{
    (void)arg;
    ka__worker *w = box.w;
    unsigned read = 0, answered = 0;
    for (;;) {
        ka__record *r;
        read = box_take_all(&w->down, read);
        for (; answered < read; answered++) {
            r = ka__box_put(&w->up, (int)(1 + answered), box_lengths[answered]);
            if (!r) break;
            box_fill(r, answered);
        }
        ka__publish_up(w);
        if (answered == box.records) return NULL;
        box_sleep(&w->sleeper, &w->down, answered < read ? 1 : -1);
    }
}

/* The parent fills the one box before it looks into the other. */
static void box_two(unsigned records)
{
    pthread_t answerer;
    box_begin(records);
    pthread_create(&answerer, NULL, box_answer, NULL);
    for (unsigned i = 0; i < records; i++)
        box_fill(ka__down(box.w, (int)(1 + i), box_lengths[i]), i);
    ka__publish_down(box.w);
    for (unsigned got = 0; (got = box_take_all(&box.w->up, got)) < records; )
        box_sleep(&box.parent, &box.w->up, -1);
    pthread_join(answerer, NULL);
    box_end();
}

static void box_one_3(void) { box_one(3); }
static void box_one_4(void) { box_one(4); }
static void box_one_5(void) { box_one(5); }
static void box_two_3(void) { box_two(3); }
static void box_two_4(void) { box_two(4); }
static void box_two_5(void) { box_two(5); }
