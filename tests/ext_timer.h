/* tests/ext_timer.h - ext/timer.h. */

static ka_timers timers;      /* of the server of the test that runs */

/* Counted by their time; the first that is still there. */
enum { TIMES = 400, TIMERS = 100000 };
static struct { int64_t from, at[TIMERS]; int of[TIMES], left, first; bool come[TIMERS]; } timed;

static int random_below(int n)
{
    uint32_t r;
    if (ka_random(&r, sizeof r) < 0) abort();
    return (int)(r % (uint32_t)n);
}

static bool timed_set(int tag, int after)
{
    timed.at[tag] = timed.from + after;
    timed.of[after]++;
    timed.left++;
    if (after < timed.first) timed.first = after;
    return ka_timer(&timers, timed.at[tag], (uint64_t)tag << 40) == KA_OK;
}

static void timed_come(const ka_event *ev)
{
    int tag = (int)(ev->tag >> 40);
    int64_t at = timed.at[tag];
    while (timed.first < TIMES && timed.of[timed.first] == 0) timed.first++;
    if (timed.come[tag] || at != timed.from + timed.first)
        CHECK(false, "timer %d, of %d; the first is of %d", tag, (int)(at - timed.from),
              timed.first);
    if (at > ev->now_ms || ev->now_ms > ka_now_ms())
        CHECK(false, "timer %d comes before its time", tag);
    timed.come[tag] = true;
    timed.of[at - timed.from]--;
    timed.left--;
}

/* Many, at random times that are over and that come; each that comes sets another one, as long as
   there are some. */
static void test_timers(void)
{
    ka_server *s;
    ka_event ev;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    ka_timers_init(&timers, s);
    long blocks = atomic_load(&blocks_live);
    memset(&timed, 0, sizeof timed);
    timed.from = ka_now_ms() - TIMES / 4;
    int tag = 0, wrong = 0;
    while (tag < TIMERS / 2) wrong += !timed_set(tag++, random_below(TIMES));
    while (timed.left > 0 && wrong == 0) {
        if (ka_wait(s, &ev, PATIENCE_MS) != KA_OK || ev.kind != KA_TIMER) break;
        timed_come(&ev);
        if (tag < TIMERS)
            wrong += !timed_set(tag, tag % 3 ? random_below(TIMES)
                                             : (int)(ev.now_ms - timed.from) % TIMES);
        if (tag < TIMERS) tag++;
    }
    CHECK(tag == TIMERS && timed.left == 0 && wrong == 0, "%d set, %d left", tag, timed.left);
    CHECK(atomic_load(&blocks_live) == blocks && ka_wait(s, &ev, 0) == KA_ETIME,
          "nothing is left of them");
    for (int i = 0; i < 1000; i++) ka_timer(&timers, 5, (uint64_t)i);
    uint64_t sum = 0;
    for (int i = 0; i < 1000 && ka_wait(s, &ev, 0) == KA_OK; i++) sum += ev.tag;
    CHECK(sum == 999 * 1000 / 2 && ka_wait(s, &ev, 0) == KA_ETIME, "of one time: each once");
    ka_server_free(s);
}

static void test_timers_wait(void)
{
    ka_server *s;
    ka_event ev;
    long before = atomic_load(&blocks_live);
    if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    ka_timers_init(&timers, s);
    long blocks = atomic_load(&blocks_live);
    int64_t start = ka_now_ms();
    CHECK(ka_timer(&timers, start + 500, 1) == KA_OK && ka_wait(s, &ev, 0) == KA_ETIME &&
              ka_now_ms() - start < 500,
          "not yet");
    CHECK(ka_wait(s, &ev, 10) == KA_ETIME && ka_now_ms() - start >= 10, "nor in 10 ms");
    CHECK(ka_wait(s, &ev, -1) == KA_OK && ev.kind == KA_TIMER && ev.tag == 1 &&
              ka_now_ms() >= start + 500,
          "but in its time");
    start = ka_now_ms();
    CHECK(ka_timer(&timers, start + 30, UINT64_MAX) == KA_OK &&
              ka_wait(s, &ev, PATIENCE_MS) == KA_OK && ev.tag == UINT64_MAX &&
              ka_now_ms() >= start + 30 && ka_now_ms() < start + PATIENCE_MS,
          "before the timeout");
    CHECK(ka_timer(&timers, start - 1000, 2) == KA_OK && ka_wait(s, &ev, 0) == KA_OK && ev.tag == 2,
          "what is over comes at once");
    for (int i = 0; i < KA_BATCH + 9; i++) ka_timer(&timers, i % 2 ? INT64_MIN : -1, 3);
    int n = 0;
    for (; n < KA_BATCH + 9 && ka_wait(s, &ev, n % 2 ? -1 : 0) == KA_OK; n++) {}
    CHECK(n == KA_BATCH + 9, "before the clock's zero, more than fit in a batch: %d", n);
    CHECK(ka_timer(&timers, INT64_MAX, 4) == KA_OK &&
              ka_timer(&timers, ka_now_ms() + (int64_t)INT_MAX * 2, 5) == KA_OK &&
              ka_wait(s, &ev, 20) == KA_ETIME,
          "what is far away does not");

    int room = 62;
    for (int i = 0; i < room; i++) ka_timer(&timers, start + 3600000, 6);
    atomic_store(&allocations_left, 0);
    CHECK(ka_timer(&timers, 0, 7) == KA_ENOMEM && ka_timer(&timers, 0, 8) == KA_OK,
          "no memory for one more");
    CHECK(ka_wait(s, &ev, 0) == KA_OK && ev.tag == 8 && ka_wait(s, &ev, 0) == KA_ETIME,
          "it does not come");
    CHECK(ka_timer(&timers, start + 3600000, 9) == KA_OK, "there's room again");
    ka_stop(s);
    CHECK(ka_wait(s, &ev, -1) == KA_ESTOPPED && ka_now_ms() - start < PATIENCE_MS,
          "none is waited for after the end");
    CHECK(atomic_load(&blocks_live) == blocks + 1, "the others are still there");
    ka_server_free(s);
    ka_timers_free(&timers);
    CHECK(atomic_load(&blocks_live) == before, "until all is freed");
    if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    ka_timers_init(&timers, s);
    blocks = atomic_load(&blocks_live);
    atomic_store(&allocations_left, 0);
    CHECK(ka_timer(&timers, 0, 1) == KA_ENOMEM && ka_wait(s, &ev, 0) == KA_ETIME,
          "no memory for the first one");
    atomic_store(&allocations_left, -1);
    CHECK(atomic_load(&blocks_live) == blocks, "nothing is kept");
    ka_server_free(s);
}

/* Timers that are due at once and set anew by whoever gets them: connections are served beside
   them, and a stop comes through. */
static void test_timers_busy(void)
{
    static wire w;
    ka_server *s;
    ka_event ev;
    int port = 0, messages_n = 0, most = 0, in_a_row = 0, r;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_listen_as(s, &ka_lines, "127.0.0.1", 0) == 0,
               "starts"))
        return;
    ka_timers_init(&timers, s);
    for (int i = 0; i < 1000; i++) ka_timer(&timers, ka_now_ms() - i, 0);
    int64_t until = ka_now_ms() + PATIENCE_MS;
    while ((r = ka_wait(s, &ev, 0)) == KA_OK && ka_now_ms() < until) {
        if (ev.kind == KA_TIMER) ka_timer(&timers, ev.now_ms - 1, 0);
        in_a_row = ev.kind == KA_MESSAGE ? in_a_row + 1 : 0;
        if (in_a_row > most) most = in_a_row;
        if (ev.kind == KA_LISTENING) {
            port = ev.port;
            wire_open(&w, port);
            for (int i = 0; i < 1000; i++) wire_text(&w, "\n");
            ka__sock_end(w.sock);
        }
        messages_n += ev.kind == KA_MESSAGE;
        if (ev.kind == KA_CLOSED) ka_stop(s);
    }
    CHECK(r == KA_ESTOPPED && messages_n == 1000, "all is served: %d, %d messages", r, messages_n);
    CHECK(most <= KA_BATCH, "and so are the timers: %d messages in a row", most);
    wire_close(&w);
    ka_server_free(s);
    ka_timers_free(&timers);
}

static const subject ext_timer_topics[] = {
    { "timers", test_timers }, { "timers' waits", test_timers_wait },
    { "timers, busy", test_timers_busy },
};
