/* tests/ext_limit.h - ext/limit.h. */

/* Asks of peers at certain times, one table after the other: in each the limit is anew. */
static void test_limit_rate(void)
{
    static const struct {
        int rate, burst;
        const char *ip;
        int64_t ms;
        int times, good, wait;
        const char *why;
    } rows[] = {
        { 10, 0, "127.0.0.1", 1000, 12, 10, 1, "a second's worth at once" },
        { 0, 0, "127.0.0.1", 1099, 1, 0, 1, "nothing more for a tenth" },
        { 0, 0, "127.0.0.1", 1100, 2, 1, 1, "then one" },
        { 0, 0, "127.0.0.2", 1100, 12, 10, 1, "another address has its own" },
        { 0, 0, "127.0.0.1", 1600, 12, 5, 1, "half of it after half a second" },
        { 0, 0, "127.0.0.1", 60000, 12, 10, 1, "not more after a long time" },
        { 1, 3, "::1", 1000, 5, 3, 1, "three at once" },
        { 0, 0, "::2", 1000, 1, 0, 1, "of the same /64" },
        { 0, 0, "0:0:0:1::2", 1000, 5, 3, 1, "of another /64" },
        { 0, 0, "::ffff:9.9.9.9", 1000, 5, 3, 1, "IPv4 is by address" },
        { 0, 0, "9.9.9.8", 1000, 5, 3, 1, "and another one" },
        { 1, 60, "127.0.0.1", 1000, 61, 60, 1, "a burst of a minute" },
        { 1000000, 1, "127.0.0.1", 1000, 2, 1, 1, "the fastest" },
        { 0, 0, "127.0.0.1", 1001, 2, 1, 1, "is as fast as the clock" },
    };
    ka_limit l = { .state = NULL };
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_end e;
        int good = 0, wait = 0;
        if (rows[i].rate) {
            ka_limit_free(&l);
            if (!CHECK(ka_limit_init(&l, 0, rows[i].rate, rows[i].burst) == KA_OK, "begins"))
                return;
        }
        if (!CHECK(end_read(&e, rows[i].ip), "%s", rows[i].ip)) continue;
        for (int k = 0; k < rows[i].times; k++) {
            int r = ka_limit_ask(&l, &e, rows[i].ms);
            good += r == 0;
            if (r) wait = r;
        }
        CHECK(good == rows[i].good && wait == rows[i].wait, "%s: %d of %d, then %d s", rows[i].why,
              good, rows[i].times, wait);
    }
    ka_limit_free(&l);
    ka_limit_free(&l);
    ka_end any = { .port = 1 };
    char text[KA_LIMIT_TEXT];
    CHECK(ka_limit_init(&l, 0, 0, 0) == KA_OK && !l.state && !ka_limit_ask(&l, &any, 1) &&
              l.door.enter(&l.door, &any) && !ka_limit_news(text, &l, INT64_MAX, 0),
          "no limits");
    l.door.leave(&l.door, &any);
    ka_limit_free(&l);
    CHECK(ka_limit_init(&l, -1, 0, 0) == KA_EINVAL &&
              ka_limit_init(&l, 0, 1000001, 0) == KA_EINVAL &&
              ka_limit_init(&l, 0, -1, 0) == KA_EINVAL && ka_limit_init(&l, 0, 1, -1) == KA_EINVAL,
          "out of range");
    ka_limit_free(&l);
    atomic_store(&allocations_left, 0);
    CHECK(ka_limit_init(&l, 1, 1, 1) == KA_ENOMEM, "no memory");
    atomic_store(&allocations_left, -1);
    ka_limit_free(&l);
}

/* More peers than there are places: nobody who asks seldom is refused, whoever else asks. */
static void test_limit_crowd(void)
{
    enum { CROWD = 300000 };
    ka_limit l;
    ka_end e, good;
    int refused = 0, refused_good = 0;
    if (!CHECK(ka_limit_init(&l, 0, 1, 2) == KA_OK && end_read(&e, "10.0.0.0") &&
                   end_read(&good, "127.0.0.1"),
               "begins"))
        return;
    for (uint32_t i = 0; i < CROWD; i++) {
        memcpy(e.ip + 12, &i, 4);
        for (int k = 0; k < 4; k++) refused += ka_limit_ask(&l, &e, 1000 + i / 100) > 0;
        if (i % 100000 == 0) refused_good += ka_limit_ask(&l, &good, 1000 + i / 100) > 0;
    }
    CHECK(refused == 2 * CROWD && refused_good == 0, "%d refused, %d of them in vain", refused,
          refused_good);
    ka_limit_free(&l);
}

/* What is told: counts, and who was most of it, at most once in a while. */
static void test_limit_news(void)
{
    ka_limit l;
    ka_end e[3], local = { .local = true };
    char text[KA_LIMIT_TEXT];
    if (!CHECK(ka_limit_init(&l, 1, 1, 1) == KA_OK, "begins")) return;
    for (int i = 0; i < 3; i++)
        end_read(&e[i], i == 0 ? "10.0.0.1" : i == 1 ? "10.0.0.2" : "2001:db8::1");
    CHECK(!ka_limit_news(text, &l, 1000, 0), "nothing");
    for (int i = 0; i < 8; i++) ka_limit_ask(&l, &e[i % 3 ? 2 : 0], 1000);
    CHECK(ka_limit_news(text, &l, 1000, 60000) == false, "too early: since the start of the clock");
    CHECK(ka_limit_news(text, &l, 60000, 60000) &&
              strcmp(text, "6 asks (most by [2001:db8::1])") == 0,
          "\"%s\"", text);
    CHECK(l.door.enter(&l.door, &e[1]) && !l.door.enter(&l.door, &e[1]) &&
              l.door.enter(&l.door, &e[0]),
          "one of each");
    l.door.leave(&l.door, &e[1]);
    CHECK(l.door.enter(&l.door, &e[1]) && !l.door.enter(&l.door, &e[1]), "and one again");
    CHECK(l.door.enter(&l.door, &local) && l.door.enter(&l.door, &local) &&
              !ka_limit_ask(&l, &local, 1) && !ka_limit_ask(&l, &local, 1),
          "a Unix socket has no limits");
    l.door.leave(&l.door, &local);
    ka_limit_ask(&l, &e[0], 1000);
    CHECK(!ka_limit_news(text, &l, 119999, 60000), "not within a minute");
    CHECK(ka_limit_news(text, &l, 120000, 60000) &&
              strcmp(text, "2 connections (most by 10.0.0.2), 1 asks (most by 10.0.0.1)") == 0,
          "\"%s\"", text);
    CHECK(!ka_limit_news(text, &l, 999999, 60000), "that was all");
    ka_limit_free(&l);
}

/* Connections beyond the limit: HTTP is told so, other framings end; and who has
   gone makes room. */
static void test_limit_connections(void)
{
    static const struct { const ka_framing *framing; int workers; const char *why; } rows[] = {
        { NULL, 1, "HTTP" }, { &ka_lines, 1, "lines" }, { NULL, 4, "HTTP, four workers" },
    };
    enum { MOST = 3, ROUNDS = 3 };
    static wire w[MOST], more;
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_server *s;
        ka_event ev;
        ka_limit l;
        char body[64], head[512] = "";
        int port;
        if (!CHECK(ka_server_start(&s, rows[i].workers) == KA_OK &&
                       ka_limit_init(&l, MOST, 0, 0) == KA_OK,
                   "start"))
            return;
        ka_admit(s, &l.door);
        if (!CHECK(ka_listen_as(s, rows[i].framing, "127.0.0.1", 0) == 0 &&
                       next_event(s, &ev, KA_LISTENING),
                   "listens"))
            return;
        port = ev.port;
        for (int round = 0; round < ROUNDS; round++) {
            for (int k = 0; k < MOST; k++)
                if (!wire_open(&w[k], port) ||
                    !wire_text(&w[k],
                               rows[i].framing ? "x\n" : "GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
                    return;
            for (int k = 0, n = 0;
                 n < MOST && k < 3 * MOST && ka_wait(s, &ev, PATIENCE_MS) == KA_OK; k++) {
                if (ev.kind == KA_REQUEST) ka_reply(s, &ev, 200, NULL, "ok", 2);
                n += ev.kind == KA_REQUEST || ev.kind == KA_MESSAGE;
            }
            ka_wait(s, &ev, 0);
            if (!wire_open(&more, port)) return;
            if (rows[i].framing)
                CHECK(wire_more(&more) <= 0, "%s: one more is closed", rows[i].why);
            else
                CHECK(wire_answer(&more, body, sizeof body, head, false) == 429 &&
                          strcmp(body, "try_later") == 0 && lines_of(head, "retry-after") == 1 &&
                          wire_more(&more) <= 0,
                      "%s: one more is told, and closed: %s", rows[i].why, body);
            wire_close(&more);
            for (int k = 0; k < MOST; k++) wire_close(&w[k]);
            /* Until all have left. */
            for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until;) {
                ka_stats st;
                ka_wait(s, &ev, 1);
                ka_server_stats(s, &st);
                if (st.connections == 0) break;
            }
        }
        ka_server_free(s);
        char text[KA_LIMIT_TEXT];
        CHECK(ka_limit_news(text, &l, INT64_MAX / 2, 0) &&
                  strcmp(text, "3 connections (most by 127.0.0.1)") == 0,
              "%s: \"%s\"", rows[i].why, text);
        ka_limit_free(&l);
    }
}

static const subject ext_limit_topics[] = {
    { "limit rate", test_limit_rate }, { "limit crowd", test_limit_crowd },
    { "limit news", test_limit_news }, { "limit connections", test_limit_connections },
};
