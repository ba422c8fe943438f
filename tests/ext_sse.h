/* tests/ext_sse.h - ext/sse.h. */

static const char event_stream[] = "Content-Type: text/event-stream\r\n",
                  ask_stream[] = "GET /s HTTP/1.1\r\nHost: a\r\n\r\n";

/* Ask for a stream, and begin it; 0 if that fails. */
static uint64_t stream_begin(ka_server *s, wire *w, int port)
{
    ka_event ev;
    char body[8];
    if (!wire_open(w, port) || !wire_text(w, ask_stream) || !next_event(s, &ev, KA_REQUEST))
        return 0;
    uint64_t conn = ev.conn;
    if (!CHECK(ka_sse_begin(s, &ev, event_stream) == KA_OK, "a stream") ||
        !next_event(s, &ev, KA_OPENED))
        return 0;
    CHECK(ev.conn == conn && ev.error == 0 && ev.listener == 0 && is_ip(ev.peer, "127.0.0.1"),
          "whose it is: %d, %d", ev.error, ev.listener);
    return CHECK(wire_answer(w, body, sizeof body, NULL, false) == 200 && w->n == 0,
                 "its head, and nothing else")
               ? conn
               : 0;
}

/* Its last event. */
static void stream_closed(ka_server *s, uint64_t conn, int error, const char *why)
{
    ka_event ev;
    if (!next_event(s, &ev, KA_CLOSED)) return;
    CHECK(ev.conn == conn && ev.error == error, "%s: %d", why, ev.error);
}

/* What leaves, and how it ends. */
static void test_stream(void)
{
    static wire w;
    ka_server *s;
    ka_event ev;
    ka_stats st;
    char body[8], head[1024], text[32];
    for (int workers = 1, ports[2]; workers <= 2; workers++) {
        if (!parent_start(&s, workers, NULL, &ports[0]) || ka_listen(s, "127.0.0.1", 0) != 1 ||
            !next_event(s, &ev, KA_LISTENING))
            return;
        ports[1] = ev.port;
        for (int round = 0; round < 4; round++) {
            wire_open(&w, ports[round % 2]);
            wire_text(&w, ask_stream);
            if (!next_event(s, &ev, KA_REQUEST)) return;
            CHECK(ka_sse_begin(s, &ev,
                               round ? "X-Y: z\r\nContent-Type: text/event-stream\r\n" : NULL) ==
                      KA_OK,
                  "a stream");
            if (!next_event(s, &ev, KA_OPENED)) return;
            uint64_t conn = ev.conn;
            CHECK(ev.listener == round % 2, "its listener: %d", ev.listener);
            CHECK(wire_answer(&w, body, sizeof body, head, false) == 200 &&
                      strstr(head, "\r\nConnection: close\r\n") && strstr(head, "\r\nDate: ") &&
                      strstr(head, "\r\nCache-Control: no-store\r\n") &&
                      !strstr(head, "Content-Length") && !strstr(head, "Transfer-Encoding"),
                  "its head: %s", head);
            CHECK(!strstr(head, "text/plain") == (round > 0) &&
                      !strstr(head, "X-Y: z\r\nContent-Type: text/event-stream\r\n") ==
                          (round == 0),
                  "its fields: %s", head);
            for (int i = 0; i < 20; i++) {
                int n = snprintf(text, sizeof text, "data: %d\n\n", i);
                for (int k = 0; k < n; k += i + 1)
                    CHECK(ka_send(s, conn, text + k, (size_t)(n - k < i + 1 ? n - k : i + 1)) ==
                              KA_OK,
                          "a bit of it");
                quiet(s, 0);
                CHECK(wire_gets(&w, text), "event %d: %.*s", i, (int)w.n, w.buf);
            }
            ka_send(s, conn, "bye", 3);
            ka_close(s, conn);
            ka_send(s, conn, "not heard", 9);
            quiet(s, 0);
            CHECK(wire_gets(&w, "bye") && wire_over(&w), "a last word, and the end: %.*s", (int)w.n,
                  w.buf);
            wire_close(&w);
            stream_closed(s, conn, 0, "ended by ka_close");
            quiet(s, 20);
        }
        ka_server_stats(s, &st);
        CHECK(st.connections == 0 && st.buffered == 0, "nothing is kept: %d connections, %d bytes",
              (int)st.connections, (int)st.buffered);
        ka_server_free(s);
    }
}

/* Whoever ends it. A letter each: c: its peer closes, r: resets, e: sends no more, j: sends
   something more, k: ka_close, w: its peer reads to the end. */
static void test_stream_ends(void)
{
    static const struct { const char *does; int error; const char *why; } rows[] = {
        { "c", 0, "its peer closes" },
        { "r", KA_EOFFLINE, "its peer resets it" },
        { "e", 0, "its peer sends no more" },
        { "jc", 0, "its peer says something, and closes" },
        { "je", 0, "its peer says something, and no more" },
        { "jkwc", 0, "its peer says something, and we close" },
        { "kwc", 0, "we close, and its peer does" },
        { "kwe", 0, "we close, and its peer sends no more" },
        { "kwr", KA_EOFFLINE, "we close, and its peer resets it" },
        { "kw", KA_EOFFLINE, "we close, and its peer doesn't" },
    };
    static wire w;
    static char junk[40000];
    ka_server *s;
    ka_event ev;
    int port;
    if (!parent_start(&s, 1, NULL, &port)) return;
    for (size_t i = 0; i < sizeof junk; i++) junk[i] = ask_stream[i % (sizeof ask_stream - 1)];
    for (size_t row = 0; row < COUNT(rows); row++) {
        uint64_t conn = stream_begin(s, &w, port);
        bool open = true;
        for (const char *p = rows[row].does; *p && conn; p++) {
            if (*p == 'w') CHECK(wire_over(&w), "%s: the end", rows[row].why);
            else if (*p == 'e') ka__sock_end(w.sock);
            else if (*p == 'j') wire_send(&w, junk, sizeof junk);
            else if (*p == 'k') ka_close(s, conn);
            else {
                *p == 'r' ? wire_reset(&w) : wire_close(&w);
                open = false;
            }
            if (*p == 'j' || *p == 'k') quiet(s, 20);
        }
        if (!conn || !next_event(s, &ev, KA_CLOSED)) break;
        if (on_wine() && strchr(rows[row].does, 'r'))
            skip(rows[row].why, "Wine takes it for an end");
        else
            CHECK(ev.conn == conn && ev.error == rows[row].error, "%s: %d", rows[row].why,
                  ev.error);
        quiet(s, 0);
        if (open) CHECK(wire_over(&w), "%s: the end for its peer", rows[row].why);
        if (open) wire_close(&w);
    }
    quiet(s, 20);
    ka_server_free(s);
}

/* Among other requests of its connection: it begins in its turn, and is the last one that is
   answered. */
static void test_stream_order(void)
{
    static wire w;
    ka_server *s;
    ka_event ask[4], ev;
    ka_stats st;
    char body[8], head[1024];
    for (int workers = 1, port; workers <= 2; workers++)
        for (int round = 0; round < 3; round++) {
            if (!parent_start(&s, workers, NULL, &port) || !wire_open(&w, port)) return;
            for (int i = 0; i < 4; i++) wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            for (int i = 0; i < 4; i++)
                if (!next_event(s, &ask[i], KA_REQUEST)) return;
            if (round == 1)
                ka__sock_end(w.sock);      /* "half-closed: what was asked is still answered" */
            if (round == 2) ka_reply(s, &ask[3], 200, NULL, "never", 5);
            CHECK(ka_sse_begin(s, &ask[2], event_stream) == KA_OK &&
                      ka_send(s, ask[2].conn, "too soon", 8) == KA_OK,
                  "the third");
            quiet(s, 20);
            ka_reply(s, &ask[1], 200, NULL, "2", 1);
            quiet(s, 20);
            ka_reply(s, &ask[0], 200, NULL, "1", 1);
            CHECK(next_event(s, &ev, KA_OPENED) && ev.conn == ask[2].conn && ev.listener == 0,
                  "the third has begun");
            ka_server_stats(s, &st);
            CHECK(st.buffered == 0, "nothing is kept of what comes never: %d bytes",
                  (int)st.buffered);
            CHECK(ka_reply(s, &ask[3], 200, NULL, "never", 5) == KA_OK &&
                      ka_sse_begin(s, &ask[3], NULL) == KA_OK &&
                      ka_sse_begin(s, &ask[2], NULL) == KA_OK &&
                      ka_reply(s, &ask[2], 200, NULL, "twice", 5) == KA_OK,
                  "nothing comes of any other answer");
            ka_send(s, ev.conn, "data: x\n\n", 9);
            CHECK(wire_answer(&w, body, sizeof body, head, false) == 200 &&
                      strcmp(body, "1") == 0 && !strstr(head, "close"),
                  "the first answer: %s", body);
            CHECK(wire_answer(&w, body, sizeof body, head, false) == 200 &&
                      strcmp(body, "2") == 0 && !strstr(head, "close"),
                  "the second: %s", body);
            CHECK(wire_answer(&w, body, sizeof body, head, false) == 200 &&
                      strstr(head, "Connection: close\r\n"),
                  "the stream: %s", head);
            if (round == 1) stream_closed(s, ask[2].conn, 0, "its peer had sent its last before");
            else ka_close(s, ev.conn);
            quiet(s, 0);
            CHECK(wire_gets(&w, "data: x\n\n") && wire_over(&w), "and nothing else: %.*s", (int)w.n,
                  w.buf);
            wire_close(&w);
            if (round != 1) stream_closed(s, ask[2].conn, 0, "ended");
            ka_server_free(s);
        }
}

/* What can't be a stream is still to be answered. */
static void test_stream_refused(void)
{
    static const struct { const char *ask; bool bodiless; } rows[] = {
        { "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", true }, { "GET / HTTP/1.0\r\n\r\n", false },
        { "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false },
    };
    static const char *const bad[] = { "X: y",           "X y\r\n",   "X: y\r\n\r\n", ": y\r\n",
                                       "X: a\nb: c\r\n", "X : y\r\n", "X: \x01\r\n" };
    static wire w;
    static char large[KA_MAILBOX / 4 + 8];
    ka_server *s;
    ka_event ev, other;
    char body[8];
    int port;
    if (!parent_start(&s, 1, NULL, &port)) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (!wire_open(&w, port) || !wire_text(&w, rows[i].ask) || !next_event(s, &ev, KA_REQUEST))
            return;
        CHECK(ka_sse_begin(s, &ev, NULL) == KA_EINVAL &&
                  ka_reply(s, &ev, 200, NULL, "x", 1) == KA_OK,
              "no stream: %s", rows[i].ask);
        quiet(s, 0);
        CHECK(wire_answer(&w, body, sizeof body, NULL, rows[i].bodiless) == 200, "but an answer");
        wire_close(&w);
    }
    if (!wire_open(&w, port) || !wire_text(&w, ask_stream) || !next_event(s, &ev, KA_REQUEST))
        return;
    CHECK(ka_send(s, ev.conn, "x", 1) == KA_OK, "not a stream yet: dropped");
    ka_close(s, ev.conn);
    ka_reframe(s, ev.conn, &ka_lines);
    quiet(s, 0);
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK(ka_sse_begin(s, &ev, bad[i]) == KA_EINVAL, "field %d", (int)i);
    for (int i = 0; i < 2; i++) {
        size_t n = KA_MAILBOX / 4 - 1 + 2 * (size_t)i;
        memset(large, 'x', sizeof large);
        memcpy(large, "X: ", 3);
        strcpy(large + n - 2, "\r\n");
        if (i) CHECK(ka_sse_begin(s, &ev, large) == KA_ENOSPC, "fields that are too long");
    }
    other = ev;
    other.conn |= (uint64_t)9 << 56;
    CHECK(ka_sse_begin(s, &other, NULL) == KA_EINVAL, "a worker that isn't there");
    other = ev;
    other.kind = KA_MESSAGE;
    CHECK(ka_sse_begin(s, &other, NULL) == KA_EINVAL, "no request");
    CHECK(ka_sse_begin(s, &ev, event_stream) == KA_OK && next_event(s, &ev, KA_OPENED),
          "after all that, a stream");
    quiet(s, 0);
    CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 200 && wire_text(&w, "a line\n"),
          "its head");
    quiet(s, 50);                      /* it is not heard */
    ka_send(s, ev.conn, "x", 1);
    quiet(s, 0);
    CHECK(wire_gets(&w, "x"), "it goes on");
    wire_close(&w);
    stream_closed(s, ev.conn, 0, "closed");
    ka_server_free(s);
}

/* A connection that has gone before its turn has come: no event. */
static void test_stream_gone(void)
{
    static wire w;
    ka_server *s;
    ka_event ask[2];
    ka_stats st;
    for (int workers = 1, port; workers <= 2; workers++)
        for (int round = 0; round < 3; round++) {
            if (!parent_start(&s, workers, NULL, &port) || !wire_open(&w, port)) return;
            wire_text(&w, ask_stream);
            wire_text(&w, ask_stream);
            for (int i = 0; i < 2; i++)
                if (!next_event(s, &ask[i], KA_REQUEST)) return;
            if (round) CHECK(ka_sse_begin(s, &ask[1], event_stream) == KA_OK, "before its turn");
            quiet(s, 0);
            wire_reset(&w);
            do {
                if (!quiet(s, 1)) return;
                ka_server_stats(s, &st);
            } while (st.connections > 0 && !on_wine());
            CHECK(ka_sse_begin(s, &ask[0], event_stream) == KA_OK &&
                      ka_send(s, ask[0].conn, "x", 1) == KA_OK,
                  "no error");
            if (round == 2) ka_stop(s);
            if (round == 2)
                CHECK(ka_wait(s, &ask[0], PATIENCE_MS) == KA_ESTOPPED, "and it can stop");
            else quiet(s, 50);
            ka_server_free(s);
        }
}

/* Fill what the system takes for a peer that doesn't read: from here on it is kept. */
static bool fill(ka_server *s, uint64_t conn, const char *zeros, size_t n)
{
    const ka__box *down = &s->workers[conn >> 56]->down;
    ka_stats st = { 0 };
    int64_t until = ka_now_ms() + PATIENCE_MS;
    do {
        ka_send(s, conn, zeros, n);
        if (!quiet(s, 0)) return false;
        while (atomic_load(&down->tail) != atomic_load(&down->head) && ka_now_ms() < until)
            ka_sleep_ms(0);      /* else it might be too much */
        ka_server_stats(s, &st);
    } while (st.buffered == 0 && ka_now_ms() < until);
    return CHECK(st.buffered > 0, "it fills up");
}

/* Who doesn't read is closed when more than KA_MAX_UNSENT is left, or when he has taken nothing for
   KA_STALL_MS. */
static void test_stream_unread(void)
{
    static wire w;
    static char much[KA_MAX_UNSENT];
    ka_server *s;
    ka_event ev;
    int port, r = KA_ETIME;
    if (!parent_start(&s, 1, NULL, &port)) return;
    uint64_t conn = stream_begin(s, &w, port);
    memset(much, 'x', sizeof much);
    ka_send(s, conn, much, sizeof much);
    quiet(s, 20);
    for (size_t left = sizeof much; left > 0 && wire_more(&w) > 0; w.n = 0)
        left -= w.n < left ? w.n : left;
    size_t sent = 0;
    for (int64_t until = ka_now_ms() + PATIENCE_MS; r == KA_ETIME && ka_now_ms() < until;
         sent += 5000, r = ka_wait(s, &ev, 0))
        ka_send(s, conn, much, 5000);
    CHECK(r == KA_OK && ev.kind == KA_CLOSED && ev.conn == conn && ev.error == KA_EOFFLINE &&
              sent > KA_MAX_UNSENT,
          "too much: %d, after %d bytes", r, (int)sent);
    wire_close(&w);
    conn = stream_begin(s, &w, port);
    if (!fill(s, conn, much, 10000)) return;
    stream_closed(s, conn, KA_EOFFLINE, "too slow");
    wire_close(&w);
    ka_server_free(s);
}

/* Whatever else its peer says, before it begins or after, and however long nothing is said: it goes
   on. */
static void test_stream_idle(void)
{
    static const struct { const char *ask, *more, *why; } rows[] = {
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "nothing else" },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", "the close is asked for" },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "", "a body" },
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", "", "half a request behind it" },
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", "", "one that wants to be told to go on" },
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n", "nonsense", "nonsense behind it" },
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a last request behind it" },
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a request, later" },
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "half a request, later" },
    };
    static wire w[COUNT(rows)];
    uint64_t conn[COUNT(rows)] = { 0 };
    ka_server *s;
    ka_event ev;
    char body[8];
    int port, r;
    if (!parent_start(&s, 1, NULL, &port)) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (!wire_open(&w[i], port) || !wire_text(&w[i], rows[i].ask)) return;
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             ((r = ka_wait(s, &ev, 50)) == KA_OK || !conn[i]) && ka_now_ms() < until;) {
            if (r != KA_OK) continue;
            if (ev.kind == KA_OPENED) conn[i] = ev.conn;
            else if (CHECK(ev.kind == KA_REQUEST, "%s: event %d", rows[i].why, ev.kind))
                ev.seq == 0 ? ka_sse_begin(s, &ev, NULL) : ka_reply(s, &ev, 200, NULL, "no", 2);
        }
        CHECK(conn[i] && wire_answer(&w[i], body, sizeof body, NULL, false) == 200 &&
                  wire_text(&w[i], rows[i].more),
              "%s: begun", rows[i].why);
    }
    quiet(s, KA_IDLE_MS + 200);
    for (size_t i = 0; i < COUNT(rows); i++) ka_send(s, conn[i], "x", 1);
    quiet(s, 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK(wire_gets(&w[i], "x") && w[i].n == 0, "%s: it goes on: %.*s", rows[i].why,
              (int)w[i].n, w[i].buf);
        wire_close(&w[i]);
        stream_closed(s, conn[i], 0, rows[i].why);
    }
    ka_server_free(s);
}

/* ka_stop ends those that have begun, and those that begin after it. */
static void test_stream_stop(void)
{
    static wire open[3], late;
    ka_server *s;
    ka_event ev, ask;
    char body[8];
    for (int workers = 1, port; workers <= 2; workers++) {
        if (!parent_start(&s, workers, NULL, &port)) return;
        for (size_t i = 0; i < COUNT(open); i++) stream_begin(s, &open[i], port);
        if (!wire_open(&late, port) || !wire_text(&late, ask_stream) ||
            !next_event(s, &ask, KA_REQUEST))
            return;
        ka_stop(s);
        for (size_t i = 0; i < COUNT(open); i++)
            if (next_event(s, &ev, KA_CLOSED))
                CHECK(ev.error == 0 && ka_send(s, ev.conn, "bye", 3) == KA_OK, "a last word: %d",
                      ev.error);
        quiet(s, 20);
        for (size_t i = 0; i < COUNT(open); i++) {
            CHECK(wire_gets(&open[i], "bye") && wire_over(&open[i]), "it arrives, and the end");
            wire_close(&open[i]);
        }
        CHECK(ka_sse_begin(s, &ask, event_stream) == KA_OK && next_event(s, &ev, KA_OPENED) &&
                  ev.conn == ask.conn,
              "one more");
        stream_closed(s, ask.conn, 0, "which ends at once");
        ka_send(s, ask.conn, "bye", 3);
        quiet(s, 0);
        CHECK(wire_answer(&late, body, sizeof body, NULL, false) == 200 &&
                  wire_gets(&late, "bye") && wire_over(&late),
              "with a last word, too");
        wire_close(&late);
        CHECK(ka_wait(s, &ev, PATIENCE_MS) == KA_ESTOPPED, "and that is all");
        ka_server_free(s);
    }
}

/* Many, all of which are told the same; some of them leave meanwhile. */
static void test_stream_many(void)
{
    enum { MANY = 150, ROUNDS = 40 };
    static wire w;
    static ka__sock peer[MANY];
    static uint64_t conn[MANY];
    static char want[ROUNDS * 32];
    ka_server *s;
    ka_event ev;
    ka_stats st;
    for (int workers = 1, port; workers <= 3; workers += 2) {
        size_t want_n = 0;
        int wrong = 0, closed = 0;
        if (!parent_start(&s, workers, NULL, &port)) return;
        for (int i = 0; i < MANY; i++) {
            conn[i] = stream_begin(s, &w, port);
            peer[i] = w.sock;
            if (!conn[i]) return;
        }
        for (int round = 0; round < ROUNDS; round++) {
            char *text = want + want_n;
            int n = snprintf(text, sizeof want - want_n, "data: %d%.*s\n\n", round, round % 20,
                             "....................");
            for (int i = 0; i < MANY; i++) ka_send(s, conn[i], text, (size_t)n);
            want_n += (size_t)n;
            if (round == ROUNDS / 2)
                for (int i = 0; i < MANY; i += 3) ka__sock_close(peer[i]);
            if (round % 4 == 0) closed += ka_wait(s, &ev, 0) == KA_OK && ev.kind == KA_CLOSED;
        }
        for (int i = 0; i < MANY; i++) ka_close(s, conn[i]);
        while (closed < (MANY + 2) / 3 && next_event(s, &ev, KA_CLOSED)) closed++;
        closed += ka_wait(s, &ev, 0) == KA_OK;
        for (int i = 0; i < MANY; i++) {
            if (i % 3 == 0) continue;
            w.sock = peer[i];
            w.n = 0;
            while (wire_more(&w) > 0) {}
            wrong += w.n != want_n || memcmp(w.buf, want, want_n) != 0;
            wire_close(&w);
        }
        CHECK(wrong == 0, "%d workers: %d of %d got something else", workers, wrong, MANY);
        while (closed < MANY && next_event(s, &ev, KA_CLOSED)) closed++;
        ka_server_stats(s, &st);
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             st.connections + st.buffered > 0 && ka_now_ms() < until; ka_server_stats(s, &st))
            quiet(s, 20);
        CHECK(st.connections == 0 && st.buffered == 0, "nothing is kept: %d connections, %d bytes",
              (int)st.connections, (int)st.buffered);
        ka_server_free(s);
    }
}

/* The n-th allocation fails, for n = 1, 2, ...: KA_CLOSED follows KA_OPENED exactly, and nothing
   leaks. */
static void test_stream_out_of_memory(void)
{
    static wire w;
    static char much[KA_MAX_UNSENT / 2];
    for (long nth = 0; nth < 60; nth++) {
        ka_server *s;
        ka_event ask[2], ev;
        int port, asked = 0, opened = 0, closed = 0, r;
        long before = atomic_load(&blocks_live);
        if (!parent_start(&s, 1, NULL, &port) || !wire_open(&w, port)) return;
        wire_text(&w, ask_stream);
        wire_text(&w, ask_stream);
        atomic_store(&allocations_left, nth);
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             ((r = ka_wait(s, &ev, 100)) == KA_OK || opened > closed) && ka_now_ms() < until;) {
            if (r != KA_OK) continue;
            if (ev.kind == KA_REQUEST && !ev.error) ask[asked++] = ev;
            opened += ev.kind == KA_OPENED;
            closed += ev.kind == KA_CLOSED;
            if (asked == 2 && ev.kind == KA_REQUEST) {
                ka_sse_begin(s, &ask[1], event_stream);      /* before its turn: it is kept */
                ka_reply(s, &ask[0], 200, NULL, much, sizeof much);
            }
            if (ev.kind != KA_OPENED) continue;
            for (int i = 0; i < 3; i++) ka_send(s, ev.conn, much, 10000);
            wire_reset(&w);
        }
        bool done = atomic_exchange(&allocations_left, -1) >= 0;
        CHECK(r == KA_ETIME && opened == closed, "allocation %d: %d, %d opened, %d closed",
              (int)nth, r, opened, closed);
        if (!opened) wire_close(&w);
        ka_server_free(s);
        if (!CHECK(atomic_load(&blocks_live) == before, "allocation %d: %d blocks leaked", (int)nth,
                   (int)(atomic_load(&blocks_live) - before)) ||
            done)
            break;
    }
}

static const subject ext_sse_topics[] = {
    { "stream", test_stream }, { "stream ends", test_stream_ends },
    { "stream order", test_stream_order }, { "stream refused", test_stream_refused },
    { "stream gone", test_stream_gone }, { "stream unread", test_stream_unread },
    { "stream idle", test_stream_idle }, { "stream stop", test_stream_stop },
    { "stream many", test_stream_many }, { "stream out of memory", test_stream_out_of_memory },
};
