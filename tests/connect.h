/* tests/connect.h - ka_connect, and ext/lookup.h. */

/* Without memory for any connection, those who are asked for leave room to tell that the worker has
   ended. */
static void test_connect_no_memory(void)
{
    static ka__worker w;
    static union {
        ka__record r;
        char bytes[sizeof(ka__record) + 32];
    } ask = { .r = { .kind = KA__CONNECT, .n = 32 } };
    const uint64_t tag = 7;
    uint64_t got;
    ka__record *told;
    memcpy(ka__payload(&ask.r), &tag, sizeof tag);
    size_t n = 0;
    w.free_head = KA__NIL;
    if (!CHECK(ka__box_init(&w.up, KA_MAILBOX) == KA_OK, "a mailbox")) return;
    for (size_t i = 0; i < KA_MAILBOX / sizeof ask; i++) {
        atomic_store(&allocations_left, 0);
        ka__on_connect(&w, &ask.r);
    }
    atomic_store(&allocations_left, -1);
    CHECK(ka__box_put(&w.up, KA__RELEASED, 0) && ka__box_put(&w.up, KA__ENDED, 0),
          "the end can be told");
    ka__box_publish(&w.up);
    for (; (told = ka__box_next(&w.up)) != NULL && told->kind == KA_OPENED;
         n++, ka__box_take(&w.up, told)) {
        memcpy(&got, ka__payload(told) + sizeof(ka_end), sizeof got);
        CHECK(got == tag && told->status == -KA_ENOMEM, "no memory: %d", told->status);
    }
    CHECK(n > 1000, "and so can be the others: %d", (int)n);
    ka__box_free(&w.up);
}

/* A port where nobody answers: those who connect wait for a place in the backlog. */
static int deaf_port(ka__sock *listener, ka__sock *fill, int n)
{
    ka__address a;
    ka__address_read(&a, "127.0.0.1", 0);
    if (ka__sock_new(&a, SOCK_STREAM, listener) < 0 || bind(KA__FD(*listener), &a.any, a.n) != 0 ||
        listen(KA__FD(*listener), 1) != 0) return 0;
    int port = ka__sock_mine(*listener).port;
    for (int i = 0; i < n; i++) ka__sock_connect(NULL, "127.0.0.1", port, &fill[i]);
    return port;
}

static void test_connect(void)
{
    enum { FILL = 4 };
    fixture f;
    ka_server *s;
    ka_event ev;
    ka__sock listener, fill[FILL];
    int deaf = deaf_port(&listener, fill, FILL);
    if (!fixture_start(&f, TALK, 1) || !CHECK(ka_server_start(&s, 2) == KA_OK, "starts")) return;
    CHECK(ka_connect(s, NULL, NULL, "127.0.0.1", 1, 0) == KA_EINVAL &&
              ka_connect(s, &ka_objects, NULL, "localhost", 1, 0) == KA_EINVAL &&
              ka_connect(s, &ka_objects, NULL, "127.0.0.1", 0, 0) == KA_EINVAL,
          "no such address or framing");

    CHECK(ka_connect(s, &ka_objects, NULL, "127.0.0.1", atomic_load(&f.port), 7) == KA_OK &&
              next_event(s, &ev, KA_OPENED),
          "connected");
    uint64_t conn = ev.conn;
    CHECK(ev.error == 0 && ev.tag == 7 && ev.listener == -1 &&
              ev.peer.port == atomic_load(&f.port) && is_ip(ev.peer, "127.0.0.1"),
          "to where it was told");
    CHECK(ka_conn_index(s, conn) < 128, "a small number: %d", (int)ka_conn_index(s, conn));
    /* "hello 127.0.0.1;" is no object */
    CHECK(next_event(s, &ev, KA_MESSAGE) && ev.conn == conn && ev.error == KA_ESYNTAX &&
              ev.framing == &ka_objects,
          "the peer talks nonsense");
    CHECK(next_event(s, &ev, KA_CLOSED) && ev.conn == conn, "and is closed");
    all_closed(&f, 1);

    ka_connect(s, &ka_frames, NULL, "127.0.0.1", free_port(), 8);
    CHECK(next_event(s, &ev, KA_OPENED) && ev.error == KA_EOFFLINE && ev.os_error && ev.tag == 8 &&
              ev.listener == -1,
          "nobody there: %d", ev.error);
    int64_t before = ka_now_ms();
    ka_connect(s, &ka_frames, NULL, "127.0.0.1", deaf, 9);
    CHECK(next_event(s, &ev, KA_OPENED) && ev.error == KA_ETIME &&
              ka_now_ms() - before >= KA_ATTEMPT_MS,
          "no answer: %d", ev.error);
    ka_connect(s, &ka_frames, NULL, "127.0.0.1", deaf, 10);
    ka_wait(s, &ev, 50);
    ka_stop(s);
    CHECK(next_event(s, &ev, KA_OPENED) && ev.error == KA_ESTOPPED && ev.tag == 10,
          "stopped meanwhile: %d", ev.error);
    CHECK(ka_connect(s, &ka_objects, NULL, "127.0.0.1", 1, 0) == KA_ESTOPPED &&
              ka_wait(s, &ev, PATIENCE_MS) == KA_ESTOPPED,
          "no more after that");
    ka_server_free(s);
    for (int i = 0; i < FILL; i++) ka__sock_close(fill[i]);
    ka__sock_close(listener);
    fixture_stop(&f);
}

/* Two at a time, each with a second address. */
static bool two_names(ka_server *s, ka_lookups *names, int port)
{
    ka_event ev;
    atomic_store(&moving.ip, "127.0.0.3,127.0.0.1");
    atomic_store(&moving.code, 0);
    for (uint32_t i = 0; i < 2; i++)
        CHECK(ka_connect_name(names, &ka_lines, "moving.test", port, i) == KA_OK, "two, %d",
              (int)i);
    uint64_t tags = 0, two[2] = { 0 };
    for (int i = 0; i < 2 && next_event(s, &ev, KA_OPENED); i++, tags += ev.tag + 1)
        two[i] = ev.conn;
    CHECK(tags == 3 && two[0] && two[1], "both are open");
    for (int i = 0; i < 2; i++) ka_close(s, two[i]);
    for (int i = 0; i < 2; i++)
        if (!next_event(s, &ev, KA_CLOSED)) return false;
    return true;
}

static const struct {
    const char *host, *ip;
    int code, error;
    const char *why;
} connect_name_rows[] = {
    { "127.0.0.1", NULL, 0, KA_OK, "an address" },
    { "localhost", NULL, 0, KA_OK, "a name" },
    { "a..b", NULL, 0, KA_ENOTFOUND, "no name" },
    { "moving.test", "127.0.0.1", 0, KA_OK, "here" },
    { "moving.test", "127.0.0.3", 0, KA_EOFFLINE, "at another address" },
    { "moving.test", "", EAI_AGAIN, KA_ETIME, "no name server" },
    { "moving.test", "", EAI_NONAME, KA_ENOTFOUND, "gone" },
    { "moving.test", "127.0.0.1", 0, KA_OK, "back" },
    { "moving.test", "127.0.0.3,127.0.0.1", 0, KA_OK, "at its second address" },
    { "moving.test", "127.0.0.3,127.0.0.4,127.0.0.5", 0, KA_EOFFLINE, "at none of its addresses" },
    { "moving.test", "0.0.0.0,127.0.0.1", 0, KA_OK, "at the one that can be an end" },
    { "moving.test", "0.0.0.0", 0, KA_EINVAL, "at none that can" },
    { "moving.test", "::1,127.0.0.1", 0, KA_OK, "there by IPv4 only" },
};

/* As many lookups hang as there may be at a time. The server is stopped meanwhile. */
static void names_hang(ka_server *s, ka_lookups *names, int port)
{
    ka_event ev;
    atomic_store(&moving.hangs, true);
    for (uint32_t i = 0; i < KA_MAX_LOOKUPS; i++)
        CHECK(ka_connect_name(names, &ka_lines, "moving.test", port, i) == KA_OK, "many, %d",
              (int)i);
    CHECK(ka_connect_name(names, &ka_lines, "moving.test", port, 0) == KA_ELIMIT, "too many");
    CHECK(ka_wait(s, &ev, 20) == KA_ETIME, "nothing is told, and the parent does not wait for it");
    ka_stop(s);
    CHECK(ka_connect_name(names, &ka_lines, "moving.test", port, 0) == KA_ESTOPPED &&
              ka_wait(s, &ev, PATIENCE_MS) == KA_ESTOPPED,
          "no more after that");
    ka_lookups_free(names);
    ka_lookups_free(names);
}

/* By a name: what is connected to, and what is told. */
static void test_connect_name(void)
{
    char longest[KA_MAX_HOST + 2] = "";
    fixture f;
    ka_server *s;
    ka_lookups names;
    ka_event ev;
    memset(longest, 'a', KA_MAX_HOST + 1);
    long before = atomic_load(&blocks_live);
    if (!fixture_start(&f, TALK, 1) || !CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    ka_lookups_init(&names, s);
    int port = atomic_load(&f.port), opened = 0;
    CHECK(ka_connect_name(&names, NULL, "a", 1, 0) == KA_EINVAL &&
              ka_connect_name(&names, &ka_lines, "a", 0, 0) == KA_EINVAL &&
              ka_connect_name(&names, &ka_lines, "a", 65536, 0) == KA_EINVAL &&
              ka_connect_name(&names, &ka_lines, "", 1, 0) == KA_EINVAL &&
              ka_connect_name(&names, &ka_lines, longest, 1, 0) == KA_EINVAL,
          "out of range");
    for (size_t i = 0; i < COUNT(connect_name_rows); i++) {
        if (strcmp(connect_name_rows[i].host, "localhost") == 0 && !knows_localhost()) {
            skip(topic, "this machine does not know localhost");
            continue;
        }
        atomic_store(&moving.ip, connect_name_rows[i].ip);
        atomic_store(&moving.code, connect_name_rows[i].code);
        CHECK(ka_connect_name(&names, &ka_lines, connect_name_rows[i].host, port, (uint32_t)i) ==
                      KA_OK &&
                  next_event(s, &ev, KA_OPENED),
              "%s", connect_name_rows[i].why);
        CHECK(ev.error == connect_name_rows[i].error && ev.tag == i && ev.listener == -1,
              "%s: %s, not %s", connect_name_rows[i].why, ka_error_text(ev.error),
              ka_error_text(connect_name_rows[i].error));
        opened += ev.error == KA_OK;
        if (!ev.error) ka_close(s, ev.conn);
        while (!ev.error && ev.kind != KA_CLOSED && ka_wait(s, &ev, PATIENCE_MS) == KA_OK) {}
    }
    all_closed(&f, opened);
    atomic_store(&allocations_left, 0);
    CHECK(ka_connect_name(&names, &ka_lines, "moving.test", port, 0) == KA_ENOMEM, "no memory");
    atomic_store(&allocations_left, -1);
    if (!two_names(s, &names, port)) return;

    names_hang(s, &names, port);
    ka_server_free(s);
    atomic_store(&moving.hangs, false);
    fixture_stop(&f);
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         atomic_load(&blocks_live) > before && ka_now_ms() < until;)
        ka_sleep_ms(1);
    CHECK(atomic_load(&blocks_live) == before, "their threads have freed them: %d",
          (int)(atomic_load(&blocks_live) - before));
}

/* The thread of a lookup that takes its time between its two last steps. */
static void found_slowly(void *lookup)
{
    ka_sleep_ms(20);
    atomic_store(&((struct ka__lookup *)lookup)->state, KA__LOOKUP_FOUND);
}

/* What was found when nobody waits any more. */
static void test_connect_name_late(void)
{
    long before = atomic_load(&blocks_live);
    for (int stopped = 0; stopped < 2; stopped++) {
        ka_server *s;
        ka_lookups names;
        ka_event ev;
        ka__thread slow;
        atomic_store(&moving.ip, "127.0.0.1");
        atomic_store(&moving.code, 0);
        if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
        ka_lookups_init(&names, s);
        if (!CHECK(ka_connect_name(&names, &ka_lines, "moving.test", 1, 9) == KA_OK, "starts"))
            return;
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             atomic_load(&names.first->state) != KA__LOOKUP_FOUND && ka_now_ms() < until;)
            ka_sleep_ms(1);
        atomic_store(&names.first->state, KA__LOOKUP_WAKING);
        if (ka__thread_start(&slow, found_slowly, names.first) < 0) abort();
        if (stopped) ka_stop(s);
        if (stopped && next_event(s, &ev, KA_OPENED))
            CHECK(ev.error == KA_ESTOPPED && ev.tag == 9, "stopped: %s", ka_error_text(ev.error));
        ka_lookups_free(&names);
        ka_server_free(s);
        ka__thread_join(&slow);
        CHECK(atomic_load(&blocks_live) == before, "all is freed");
    }
}

/* From an address of this machine: the peer sees it. */
static void test_connect_from(void)
{
    static const char *const bad[] = { "",           "localhost", "127.0.0",
                                       "127.0.0.1 ", "::1",       "127.0.0.256" };
    static const char *const from[] = { "127.0.0.1", "127.0.0.2", "127.200.3.99" };
    ka_server *s;
    ka_event ev;
    if (!CHECK(ka_server_start(&s, 2) == KA_OK && ka_listen_as(s, &ka_lines, "127.0.0.1", 0) == 0 &&
                   next_event(s, &ev, KA_LISTENING),
               "starts"))
        return;
    int port = ev.port;
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK(ka_connect(s, &ka_lines, bad[i], "127.0.0.1", port, 0) == KA_EINVAL, "from \"%s\"",
              bad[i]);
    for (size_t i = 0; i < COUNT(from); i++) {
        bool seen = false, refused = false;
        CHECK(ka_connect(s, &ka_lines, from[i], "127.0.0.1", port, (uint32_t)i) == KA_OK, "from %s",
              from[i]);
        for (int k = 0; k < 2 && !refused && next_event(s, &ev, KA_OPENED); k++) {
            refused = ev.error == KA_EADDR;
            if (ev.listener == 0) seen = is_ip(ev.peer, from[i]);
            else
                CHECK(refused || (ev.error == 0 && ev.tag == i && is_ip(ev.peer, "127.0.0.1") &&
                                  ev.peer.port == port),
                      "%s: %d", from[i], ev.error);
        }
        if (refused && i > 0) skip(from[i], "this system doesn't have that address");
        else CHECK(seen, "the peer sees %s", from[i]);
    }
    CHECK(ka_connect(s, &ka_lines, "192.0.2.1", "127.0.0.1", port, 77) == KA_OK &&
              next_event(s, &ev, KA_OPENED),
          "from another machine");
    CHECK(ev.error == KA_EADDR && ev.os_error && ev.tag == 77 && ev.listener == -1,
          "is not for us: %d", ev.error);
    ka_server_free(s);
}

/* ---- connections of ka_connect, at the end ---- */

/* Connect to a listener of the test's, and take the connection there. */
static uint64_t reach(ka_server *s, const ka_framing *framing, ka__sock listener, int port,
                      ka__sock *peer)
{
    ka_event ev;
    if (!CHECK(ka_connect(s, framing, NULL, "127.0.0.1", port, 7) == KA_OK, "connects") ||
        !next_event(s, &ev, KA_OPENED))
        return 0;
    bool taken = wire_wait(listener, KA__IN) && ka__sock_accept(listener, peer, NULL) == KA_OK;
    return CHECK(taken && ev.error == 0 && ev.listener == -1 && ev.tag == 7, "connected: %d",
                 ev.error)
               ? ev.conn
               : 0;
}

/* A request that is answered only when something has come over an outgoing connection, of whichever
   worker, gets its answer after ka_stop; and what else there is has ended before those connections
   do. */
static void test_drain_outgoing(void)
{
    enum { PEERS = 3 };
    static wire w, guest, peer[PEERS];
    ka_server *s;
    ka_event ev, ask;
    ka__sock listener;
    char body[8];
    int there;
    if (!CHECK(sock_listen(&listener, &there) == KA_OK, "listens")) return;
    for (int workers = 1, port; workers <= PEERS; workers++) {
        uint64_t out[PEERS] = { 0 };
        if (!parent_start(&s, workers, NULL, &port)) return;
        CHECK(ka_listen_as(s, &ka_lines, "127.0.0.1", 0) == 1 && next_event(s, &ev, KA_LISTENING) &&
                  wire_open(&guest, ev.port),
              "a listener for lines");
        if (!next_event(s, &ev, KA_OPENED)) return;
        uint64_t in = ev.conn;
        for (int i = 0; i < PEERS; i++) {      /* one on each worker, or more */
            peer[i].n = 0;
            out[i] = reach(s, &ka_lines, listener, there, &peer[i].sock);
            if (!out[i]) return;
        }
        if (!wire_open(&w, port) || !wire_text(&w, ask_stream) || !next_event(s, &ask, KA_REQUEST))
            return;
        ka_stop(s);
        stream_closed(s, in, 0, "who came in is told at once");
        quiet(s, 20);
        CHECK(wire_over(&guest), "and ended");
        wire_close(&guest);
        quiet(s, 50);
        for (int i = 0; i < PEERS; i++) {
            ka_send(s, out[i], "what?\n", 6);
            quiet(s, 0);
            CHECK(wire_gets(&peer[i], "what?\n") && wire_text(&peer[i], "that\n"), "asked there");
            CHECK(next_event(s, &ev, KA_MESSAGE) && ev.conn == out[i] && ka_is(ev.body, "that"),
                  "heard from there");
        }
        quiet(s, 50);
        wire_close(&peer[0]);
        stream_closed(s, out[0], 0, "one ends by itself");
        quiet(s, 20);
        ka_reply(s, &ask, 200, NULL, "that", 4);
        for (int i = 1; i < PEERS; i++)
            if (next_event(s, &ev, KA_CLOSED))
                CHECK(ev.error == 0 && ka_send(s, ev.conn, "bye\n", 4) == KA_OK, "then it ends: %d",
                      ev.error);
        CHECK(ka_wait(s, &ev, PATIENCE_MS) == KA_ESTOPPED, "and that is all");
        CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 200 && strcmp(body, "that") == 0,
              "the answer: %s", body);
        wire_close(&w);
        for (int i = 1; i < PEERS; i++) {
            CHECK(wire_gets(&peer[i], "bye\n") && wire_over(&peer[i]), "a last word there");
            wire_close(&peer[i]);
        }
        ka_server_free(s);
    }
    ka__sock_close(listener);
}

/* With outgoing ones alone it ends at once; with one that never ends, and a request that is never
   answered, in its time. */
static void test_drain_outgoing_ends(void)
{
    static wire w, peer;
    ka_server *s;
    ka_event ev;
    ka__sock listener;
    int there, port;
    if (!CHECK(sock_listen(&listener, &there) == KA_OK, "listens")) return;
    for (int workers = 1; workers <= 2; workers++)
        for (int asked = 0; asked < 2; asked++) {
            if (!parent_start(&s, workers, NULL, &port)) return;
            w.n = peer.n = 0;
            uint64_t out = reach(s, &ka_lines, listener, there, &peer.sock);
            if (!out || (asked && (!wire_open(&w, port) || !wire_text(&w, ask_stream) ||
                                   !next_event(s, &ev, KA_REQUEST))))
                return;
            int64_t start = ka_now_ms();
            ka_stop(s);
            stream_closed(s, out, 0, "ka_stop");
            int took = (int)(ka_now_ms() - start);
            CHECK(asked ? took >= KA_DRAIN_MS - 100 : took < KA_DRAIN_MS / 2, "after %d ms", took);
            CHECK(ka_wait(s, &ev, PATIENCE_MS) == KA_ESTOPPED, "and that is all");
            CHECK(wire_more(&peer) <= 0 && (!asked || wire_more(&w) <= 0), "the end for its peers");
            wire_close(&peer);
            if (asked) wire_close(&w);
            ka_server_free(s);
        }
    ka__sock_close(listener);
}

/* Redis may be slow to read: up to KA_REDIS_BYTES are kept for it, more than for anybody else. */
static void test_outgoing_unsent(void)
{
    enum {
        MUCH = (KA_MAX_UNSENT + KA_REDIS_BYTES) / 2,
        BIT = (KA_REDIS_BYTES - KA_MAX_UNSENT) / 3
    };
    static const struct {
        const ka_framing *framing;
    } cuts[] = { { &ka_resp_framing }, { &ka_lines } };
    static wire peer;
    static char zeros[BIT], much[MUCH];
    ka_server *s;
    ka_stats st;
    ka__sock listener;
    int there, port;
    if (!CHECK(sock_listen(&listener, &there) == KA_OK, "listens")) return;
    if (!parent_start(&s, 1, NULL, &port)) return;
    for (size_t i = 0; i < MUCH; i++) much[i] = (char)('a' + i % 26);
    for (size_t f = 0; f < COUNT(cuts); f++) {
        peer.n = 0;
        uint64_t out = reach(s, cuts[f].framing, listener, there, &peer.sock);
        if (!out || !fill(s, out, zeros, BIT)) return;
        ka_send(s, out, much, MUCH);
        if (cuts[f].framing == &ka_resp_framing) {
            st.buffered = 0;
            for (int64_t until = ka_now_ms() + PATIENCE_MS;
                 st.buffered < MUCH && ka_now_ms() < until; ka_server_stats(s, &st))
                if (!quiet(s, 20)) return;
            CHECK(st.buffered >= MUCH && st.buffered <= KA_REDIS_BYTES, "kept: %d bytes",
                  (int)st.buffered);
            size_t got = 0, wrong = 0;
            for (bool begun = false; got < MUCH && wire_more(&peer) > 0; peer.n = 0)
                for (size_t i = 0; i < peer.n; i++) {
                    begun = begun || peer.buf[i];
                    if (begun) wrong += peer.buf[i] != much[got++];
                }
            CHECK(got == MUCH && wrong == 0, "all of it arrives: %d bytes, %d wrong", (int)got,
                  (int)wrong);
            if (!fill(s, out, zeros, BIT)) return;
            for (int i = 0; i < 2; i++) ka_send(s, out, much, MUCH);
        }
        stream_closed(s, out, KA_EOFFLINE, "more than that");
        wire_close(&peer);
    }
    ka__sock_close(listener);
    ka_server_free(s);
}

/* Only the event of an outgoing connection can be that of a name. */
static void test_connect_name_others(void)
{
    static const struct { int kind, listener; } rows[] = { { KA_OPENED, 0 }, { KA_CLOSED, -1 } };
    struct ka__lookup one = { .tag = 7 };
    ka_lookups names = { .first = &one };
    atomic_store(&one.state, KA__LOOKUP_TRYING);
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_event ev = { .kind = rows[i].kind, .listener = rows[i].listener, .tag = 7 };
        CHECK(!ka_lookups_take(&names, &ev) && names.first == &one, "row %d", (int)i);
    }
    ka_event second = { .kind = KA_OPENED, .listener = -1, .tag = 8 };
    one.next = KA_MALLOC(sizeof one);
    if (!CHECK(one.next != NULL, "memory")) return;
    *one.next = (struct ka__lookup){ .tag = 8 };
    atomic_store(&one.next->state, KA__LOOKUP_TRYING);
    CHECK(!ka_lookups_take(&names, &second) && names.first == &one && !one.next,
          "the second one is over, and the first one goes on");
}

static const subject connect_topics[] = {
    { "connect name, others", test_connect_name_others },
    { "connect, no memory", test_connect_no_memory }, { "connect", test_connect },
    { "connect name", test_connect_name }, { "connect name late", test_connect_name_late },
    { "connect from", test_connect_from }, { "outgoing, drain", test_drain_outgoing },
    { "outgoing, drain ends", test_drain_outgoing_ends },
    { "outgoing, unsent", test_outgoing_unsent },
};
