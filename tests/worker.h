/* tests/worker.h - section 5 of keyauth.h: limits, time-outs, the drain. */

static const struct { const char *in, *trickle, *why; int asked; bool end; } unanswered_rows[] = {
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "one", 1, false },
    { "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "", "a HEAD", 1, false },
    { "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "", "HTTP/1.0", 1, false },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /early HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "three", 3, false },
    { "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", "the last one", 1, false },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "one that sends no more", 1, true },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n\r\n", "empty lines behind it", 1, false },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "+++++", "further ones behind it", 1, false },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\nG", "a part of another one", 1, false },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n\x01", "", "one that is refused behind it", 2, false },
};

/* A request that its parent never answers: 503 after KA_ANSWER_MS, and the close. */
static void test_unanswered(void)
{
    static wire w[COUNT(unanswered_rows)], late, steady;
    long before = atomic_load(&blocks_live);
    ka_server *s;
    ka_event ev, first = { 0 }, slow[2];
    int port, asked = 2, slow_n = 0;
    char head[1024], body[64];
    if (!parent_start(&s, 1, NULL, &port)) return;
    for (size_t i = 0; i < COUNT(unanswered_rows); i++) {
        if (!wire_open(&w[i], port)) return;
        wire_text(&w[i], unanswered_rows[i].in);
        if (unanswered_rows[i].end) ka__sock_end(w[i].sock);
        asked += unanswered_rows[i].asked;
    }
    if (!wire_open(&steady, port)) return;
    for (int i = 0; i < 2; i++) wire_text(&steady, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    int64_t start = ka_now_ms();
    for (int i = 0; i < asked && next_event(s, &ev, KA_REQUEST); i++) {
        if (ka_is(ev.target, "/slow") && slow_n < 2) slow[slow_n++] = ev;
        else if (ka_is(ev.target, "/early")) ka_reply(s, &ev, 200, NULL, "early", 5);
        else if (!first.kind) first = ev;
    }
    for (int k = 0; k < 6; k++) {
        for (size_t i = 0; i < COUNT(unanswered_rows); i++)
            if (k < (int)strlen(unanswered_rows[i].trickle) && unanswered_rows[i].trickle[k] == '+')
                wire_text(&w[i], unanswered_rows[i].in);
            else if (k < (int)strlen(unanswered_rows[i].trickle))
                wire_send(&w[i], unanswered_rows[i].trickle + k, 1);
        while (ka_wait(s, &ev, KA_ANSWER_MS / 12) == KA_OK) {}
    }
    if (CHECK(slow_n == 2, "two")) ka_reply(s, &slow[0], 200, NULL, "x", 1);
    ka_wait(s, &ev, 0);
    for (size_t i = 0; i < COUNT(unanswered_rows); i++) {
        int status = wire_answer(&w[i], body, sizeof body, head, false);
        CHECK(status == 503 && !*body && strstr(head, "\r\nConnection: close\r\n"), "%s: %d: %s",
              unanswered_rows[i].why, status, head);
        CHECK(wire_more(&w[i]) == 0 && w[i].n == 0, "%s: the end", unanswered_rows[i].why);
        int64_t took = ka_now_ms() - start;
        CHECK(took >= KA_ANSWER_MS - 100 && took < KA_ANSWER_MS + 3000, "%s: after %d ms",
              unanswered_rows[i].why, (int)took);
        wire_close(&w[i]);
    }
    ka_reply(s, &slow[1], 200, NULL, "y", 1);
    ka_wait(s, &ev, 0);
    CHECK(wire_answer(&steady, body, sizeof body, head, false) == 200 &&
          wire_answer(&steady, body, sizeof body, head, false) == 200 && *body == 'y',
          "each answer has the whole time");
    wire_close(&steady);
    CHECK(ka_reply(s, &first, 200, NULL, "late", 4) == KA_OK,
          "an answer that comes too late is dropped");
    if (wire_open(&late, port) && wire_text(&late, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") &&
        next_event(s, &ev, KA_REQUEST)) ka_reply(s, &ev, 200, NULL, "x", 1);
    ka_wait(s, &ev, 0);
    CHECK(wire_answer(&late, body, sizeof body, head, false) == 200, "and others are served");
    wire_close(&late);
    ka_server_free(s);
    CHECK(atomic_load(&blocks_live) == before, "all freed");
}

/* More requests than the mailbox holds, while the parent sleeps over each: all answered, nothing
   stuck. */
static void test_full_mailbox(void)
{
    enum { WIRES = 24, EACH = 120 };
    static wire w[WIRES];
    static char body[KA_MAX_BODY + 64];
    fixture f;
    char head[128];
    if (!fixture_start(&f, LATE, 1)) return;
    memset(body, 'x', 1400);
    snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1400\r\n\r\n");
    for (int i = 0; i < WIRES; i++) wire_open(&w[i], atomic_load(&f.port));
    /* a sender and a reader in one thread: the answers of 120 such requests fit the system's
       buffers */
    for (int k = 0; k < EACH; k++)
        for (int i = 0; i < WIRES; i++)
            if (k < 20 || i == 0) {
                wire_text(&w[i], head);
                memset(body, 'x', 1400);
                wire_send(&w[i], body, 1400);
            }
    int good = 0;
    for (int i = 0; i < WIRES; i++)
        for (int k = 0; k < (i == 0 ? EACH : 20); k++)
            good +=
                wire_answer(&w[i], body, sizeof body, NULL, false) == 200 && strlen(body) == 1407;
    CHECK(good == EACH + (WIRES - 1) * 20, "%d of %d answered", good, EACH + (WIRES - 1) * 20);
    for (int i = 0; i < WIRES; i++) wire_close(&w[i]);
    fixture_stop(&f);
}

typedef struct { int port; _Atomic(bool) stop; ka__thread thread; } flood;

/* Ask on and on, as fast as the answers are taken off. */
static void flood_run(void *arg)
{
    static const char ask[] =
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    flood *f = arg;
    static wire w;
    size_t at = 0;
    if (!wire_open(&w, f->port)) return;
    while (!atomic_load(&f->stop)) {
        ptrdiff_t sent = ka__sock_send(w.sock, ask + at, sizeof ask - 1 - at);
        if (sent > 0) at = (at + (size_t)sent) % (sizeof ask - 1);
        while (ka__sock_recv(w.sock, w.buf, sizeof w.buf) > 0) {}
    }
    wire_close(&w);
}

/* One connection that floods, and a slow parent: the others are answered all the same. */
static void test_fairness(void)
{
    static wire w[5];
    fixture f;
    char body[64];
    for (int workers = 1; workers <= 2; workers++) {
        if (!fixture_start(&f, SLOW, workers)) return;
        flood fl = { .port = atomic_load(&f.port) };
        int answered = 0;
        ka__thread_start(&fl.thread, flood_run, &fl);
        ka_sleep_ms(200);
        for (int i = 0; i < 5; i++) {
            wire_open(&w[i], atomic_load(&f.port));
            wire_text(&w[i], "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for (int i = 0; i < 5; i++) {
            answered += wire_answer(&w[i], body, sizeof body, NULL, false) == 200;
            wire_close(&w[i]);
        }
        CHECK(answered == 5, "%d workers: %d of 5 answered beside a flood", workers, answered);
        atomic_store(&fl.stop, true);
        ka__thread_join(&fl.thread);
        fixture_stop(&f);
    }
}

static void test_time_outs(void)
{
    static wire idle, slow, chunked, busy, empty;
    fixture f;
    char body[64];
    if (!fixture_start(&f, ECHO, 1)) return;
    int port = atomic_load(&f.port);
    int64_t start = ka_now_ms();
    wire_open(&idle, port);
    wire_open(&slow, port);
    wire_open(&chunked, port);
    wire_text(&slow, "POST / HTTP/1.1\r\nHost: a\r\nContent-Le");
    wire_text(&chunked, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na");
    wire_open(&empty, port);
    for (int i = 0; i < 10; i++) {     /* neither bytes that trickle in nor empty lines buy time */
        wire_text(&slow, "n");
        wire_text(&empty, i % 2 ? "\n" : "\r");
        ka_sleep_ms(100);
    }
    wire_text(&empty, "\r");
    CHECK(wire_answer(&slow, body, sizeof body, NULL, false) == 408, "half a head is answered 408");
    int64_t took = ka_now_ms() - start;
    CHECK(took >= KA_REQUEST_MS - 100, "not before its time: %d ms", (int)took);
    CHECK(wire_answer(&slow, body, sizeof body, NULL, false) == 0, "and closed");
    CHECK(wire_answer(&chunked, body, sizeof body, NULL, false) == 408, "half a body as well");
    wire_text(&empty, "\n\r");
    wire_open(&busy, port);
    CHECK(wire_answer(&idle, body, sizeof body, NULL, false) == 0,
          "an idle one is closed without a word");
    took = ka_now_ms() - start;
    CHECK(took >= KA_IDLE_MS - 100, "not before its time: %d ms", (int)took);
    CHECK(wire_answer(&empty, body, sizeof body, NULL, false) == 0, "empty lines are idle");
    took = ka_now_ms() - start;
    CHECK(took < KA_IDLE_MS + KA_REQUEST_MS, "and buy no time: %d ms", (int)took);
    wire_close(&empty);
    wire_text(&busy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wire_answer(&busy, body, sizeof body, NULL, false) == 200,
          "one that was idle for less goes on");
    wire_close(&idle);
    wire_close(&slow);
    wire_close(&chunked);
    wire_close(&busy);
    fixture_stop(&f);
}

/* Whatever a HEAD is refused for, and by whom, the answer has no body (RFC 9110 s.9.3.2). */
static void test_refused_head(void)
{
    static const struct { const char *in; int status; bool bodiless; const char *why; } rows[] = {
        { "HEAD / HTTP/1.1\r\nHost: a\r\n", 408, true, "too slow in its head" },
        { "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na", 408, true, "too slow in its body" },
        { "HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na", 408, true, "too slow in a chunk" },
        { "\r\nHEAD ", 408, true, "too slow behind its method" },
        { "HEAD", 408, false, "a method that may go on" },
        { "GET / HTTP/1.1\r\nHEAD : a\r", 400, false, "another method" },
        { "HEADER / HTTP/1.1\r\n", 408, false, "a method that begins like it" },
        { "head / HTTP/1.1\r\n", 408, false, "methods have a case" },
        { "HEAD / HTTP/1.1\r\n\r\n", 400, true, "no Host" },
        { "HEAD /\x01", 400, true, "a wrong byte in its target" },
        { "HEAD / HTTP/2.0\r\n", 505, true, "a version" },
        { "HEAD / HTTP/1.1\r\nHost: a\r\nExpect: b\r\n\r\n", 417, true, "an expectation" },
        { "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1501\r\n\r\n", 413, true, "a body over KA_MAX_BODY" },
        { "HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", 400, true, "a wrong chunk" },
        { "HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: a, chunked\r\n\r\n", 501, true, "a coding" },
        { "HEAD / HTTP/1.1\r\nHost: a\r\nX: y", 503, true, "out of memory" },
        { "GET / HTTP/1.1\r\nHost: a\r\nX: y", 503, false, "out of memory, another method" },
    };
    static wire w[COUNT(rows)];
    static const char text[] = "refused";
    ka_server *s;
    ka_event ev;
    int port;
    if (!parent_start(&s, 1, NULL, &port)) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (!wire_open(&w[i], port) || rows[i].status == 503) continue;
        wire_text(&w[i], rows[i].in);
        if (rows[i].status != 408 && next_event(s, &ev, KA_REQUEST))
            ka_reply(s, &ev, ev.status, NULL, text, sizeof text - 1);
    }
    ka_wait(s, &ev, 100);              /* all of them are accepted */
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (rows[i].status != 503) continue;
        atomic_store(&allocations_left, 0);
        wire_text(&w[i], rows[i].in);
        bool came = next_event(s, &ev, KA_REQUEST);
        atomic_store(&allocations_left, -1);
        if (came) ka_reply(s, &ev, ev.status, NULL, text, sizeof text - 1);
    }
    for (size_t i = 0; i < COUNT(rows); i++)
        if (rows[i].status == 408 && next_event(s, &ev, KA_REQUEST))
            ka_reply(s, &ev, ev.status, NULL, text, sizeof text - 1);
    ka_wait(s, &ev, 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        char status[16];
        while (wire_more(&w[i]) > 0) {}
        int n = snprintf(status, sizeof status, "HTTP/1.1 %d ", rows[i].status);
        const char *end = rows[i].bodiless ? "\r\n\r\n" : "\r\n\r\nrefused";
        size_t end_n = strlen(end);
        bool ends = w[i].n > end_n && memcmp(w[i].buf + w[i].n - end_n, end, end_n) == 0;
        CHECK(ends && memcmp(w[i].buf, status, (size_t)n) == 0, "%s: %.*s", rows[i].why,
              (int)w[i].n, w[i].buf);
        wire_close(&w[i]);
    }
    ka_server_free(s);
}

/* A parent that is busy for longer than a request may take: what arrived in time counts, though
   nobody had room to read it. */
static void test_busy_parent(void)
{
    enum { FLOOD = 400, BEGUN = KA__EVENTS + 44 /* more than the poller tells of at once */ };
    static wire many, one;
    static ka__sock begun[BEGUN];
    static char ask[1600];
    ka_server *s;
    ka_event ev;
    ka_keyring none = { 0 };
    char text[KA_MAX_ID], body[64];
    size_t n;
    bool full = false;
    int good = 0;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_listen(s, "127.0.0.1", 0) == KA_OK &&
                   ka_wait(s, &ev, PATIENCE_MS) == KA_OK && !ev.error,
               "starts"))
        return;
    wire_open(&many, ev.port);
    for (int i = 0; i < BEGUN; i++) begun[i] = wire_open(&one, ev.port) ? one.sock : -1;
    for (int i = 0; i < BEGUN; i++) ka__sock_send(begun[i], "GET / HTTP/1.1\r\nHo", 18);
    ka_sleep_ms(100);                  /* they have been read */
    n = (size_t)snprintf(ask, sizeof ask,
                         "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1300\r\n\r\n%01300d", 0);
    for (int i = 0; i < FLOOD && !full; i++)
        full = ka__sock_send(many.sock, ask, n) != (ptrdiff_t)n;
    ka_sleep_ms(200);                  /* the up box has filled */
    for (int i = 0; i < BEGUN; i++) ka__sock_send(begun[i], "st: a\r\n\r\n", 9);
    ka_sleep_ms(KA_REQUEST_MS + 100);
    for (int told = 0; told < BEGUN && ka_wait(s, &ev, PATIENCE_MS) == KA_OK; ) {
        int status = auth_answer(&no_workers, &none.store, &ev, text, &n);
        ka_reply(s, &ev, status, NULL, text, n);
        told += status == 405 || status == 408;
    }
    while (ka_wait(s, &ev, 0) == KA_OK) {} /* the last answers leave at the end of their batch */
    for (int i = 0; i < BEGUN; i++) {
        one.sock = begun[i];
        one.n = 0;
        good += wire_answer(&one, body, sizeof body, NULL, false) == 405;
        wire_close(&one);
    }
    CHECK(good == BEGUN, "%d of %d answered, and not 408", good, BEGUN);
    wire_close(&many);
    ka_server_free(s);
}

/* A peer that asks on and on and never reads: its connection is closed, others are served
   meanwhile. */
static void test_never_reads(void)
{
    static wire deaf, good;
    static char ask[1500];
    fixture f;
    char body[64];
    bool closed = false;
    if (!fixture_start(&f, ECHO, 1)) return;
    snprintf(ask, sizeof ask, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1300\r\n\r\n%01300d",
             0);
    wire_open(&deaf, atomic_load(&f.port));
    for (int64_t until = ka_now_ms() + PATIENCE_MS; !closed && ka_now_ms() < until; ) {
        ptrdiff_t r = ka__sock_send(deaf.sock, ask, strlen(ask));
        if (r == KA_EAGAIN) ka__sock_wait(deaf.sock, KA__OUT, 50);
        else if (r < 0) closed = true;
    }
    CHECK(closed, "closed after KA_STALL_MS");
    wire_open(&good, atomic_load(&f.port));
    wire_text(&good, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wire_answer(&good, body, sizeof body, NULL, false) == 200, "another one is served");
    wire_close(&deaf);
    wire_close(&good);
    fixture_stop(&f);
}

/* The refusal of a body that is still being sent arrives; a reset would have destroyed it. */
static void test_linger(void)
{
    static wire w;
    static char junk[30000];
    fixture f;
    char body[64];
    int good = 0;
    if (!fixture_start(&f, ECHO, 1)) return;
    for (int i = 0; i < 20; i++) {
        wire_open(&w, atomic_load(&f.port));
        wire_text(&w, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
        for (int k = 0; k < 10; k++) wire_send(&w, junk, sizeof junk);
        good += wire_answer(&w, body, sizeof body, NULL, false) == 413;
        wire_close(&w);
    }
    CHECK(good == 20, "%d of 20 refusals arrived", good);
    fixture_stop(&f);
}

/* Stopping: idle connections close at once, a request that was begun is finished, no newcomer gets
   in. */
static void drain(int workers)
{
    static wire idle, begun;
    fixture f;
    char body[64], head[1024];
    if (!fixture_start(&f, ECHO, workers)) return;
    wire_open(&idle, atomic_load(&f.port));
    wire_open(&begun, atomic_load(&f.port));
    wire_text(&idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wire_answer(&idle, body, sizeof body, NULL, false) == 200, "served");
    wire_text(&begun, "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na");
    ka_stats st;
    do ka_server_stats(f.s, &st); while (st.connections < 2);
    ka_sleep_ms(100);      /* the begun one has been read; were it not, it would count as well */
    ka_stop(f.s);
    CHECK(wire_answer(&idle, body, sizeof body, NULL, false) == 0, "the idle one is closed");
    int r = KA_OK;      /* the listener is closed once both workers have let go of it */
    for (int64_t until = ka_now_ms() + PATIENCE_MS; r == KA_OK && ka_now_ms() < until; ) {
        ka__sock s;
        r = ka__sock_connect(NULL, "127.0.0.1", atomic_load(&f.port), &s);
        if (r != KA_OK && r != KA_EAGAIN) break;
        if (r == KA_EAGAIN) r = wire_wait(s, KA__OUT) ? ka__sock_connected(s) : KA_ETIME;
        ka__sock_close(s);
    }
    CHECK(r == KA_EOFFLINE, "nobody listens any more: %d", r);
    wire_text(&begun, "b");
    CHECK(wire_answer(&begun, body, sizeof body, head, false) == 200 &&
              strcmp(body, "POST /b ab") == 0 && strstr(head, "Connection: close\r\n"),
          "the begun one is finished");
    CHECK(wire_answer(&begun, body, sizeof body, NULL, false) == 0, "and closed");
    wire_close(&idle);
    wire_close(&begun);
    fixture_stop(&f);
}

/* With one table of descriptors for all threads, and with one for each. */
static void test_drain(void)
{
    drain(2);
    drain(2 + KA_OWN_DESCRIPTORS);
}

/* Drain with a request that never ends: over after KA_REQUEST_MS, or KA_DRAIN_MS at the latest. */
static void test_drain_ends(void)
{
    static wire w;
    fixture f;
    char body[64];
    if (!fixture_start(&f, BACKWARDS, 1)) return;
    wire_open(&w, atomic_load(&f.port));
    /* The parent holds this request, and waits for two more. */
    wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    ka_stats st;
    do ka_server_stats(f.s, &st); while (st.connections < 1);
    ka_sleep_ms(100);
    fixture_stop(&f);
    CHECK(wire_answer(&w, body, sizeof body, NULL, false) <= 0, "closed in the end");
    wire_close(&w);
}

/* A worker whose last connections have timed out waits for the order to finish, from a parent that
   has no time, asleep. */
static void test_drain_busy(void)
{
    ka_server *s;
    ka_event ev;
    ka_usage before = { 0 }, after = { 0 };
    int r, opened = 0;
    if (!CHECK(ka_server_start(&s, 2) == KA_OK && ka_listen_as(s, &ka_lines, "127.0.0.1", 0) == 0 &&
                   ka_wait(s, &ev, 2000) == KA_OK,
               "a server"))
        return;
    CHECK(ka_connect(s, &ka_lines, NULL, "127.0.0.1", ev.port, 1) == KA_OK, "to itself");
    while (opened < 2 && CHECK(ka_wait(s, &ev, 2000) == KA_OK, "both ends, %d", opened))
        opened += ev.kind == KA_OPENED;
    ka_stop(s);
    while (ka_wait(s, &ev, 0) == KA_OK) {}
    ka_sleep_ms(KA_DRAIN_MS + 100);
    ka_process_usage(&before);
    ka_sleep_ms(500);
    ka_process_usage(&after);
    CHECK(after.cpu_us - before.cpu_us < 200000, "%d us of 500 ms",
          (int)(after.cpu_us - before.cpu_us));
    while ((r = ka_wait(s, &ev, 2000)) == KA_OK)
        CHECK(ev.kind == KA_CLOSED && ev.error == 0, "kind %d: %d", ev.kind, ev.error);
    CHECK(r == KA_ESTOPPED, "and then it ends: %d", r);
    ka_server_free(s);
}

/* Once the stop was told, the worker does not look at the connection: if the peer ends then, there
   is no second KA_CLOSED. */
static void test_drain_told(void)
{
    static wire w;
    ka_server *s;
    ka_event ev;
    int port;
    if (!parent_start(&s, 1, &ka_lines, &port) || !wire_open(&w, port)) return;
    CHECK(next_event(s, &ev, KA_OPENED), "opened");
    ka_stop(s);
    CHECK(next_event(s, &ev, KA_CLOSED) && ev.error == 0, "the stop is told");
    wire_close(&w);
    ka_sleep_ms(100);      /* a worker that looks at the connection sees the end meanwhile */
    int r = ka_wait(s, &ev, PATIENCE_MS);
    CHECK(r == KA_ESTOPPED, "told once: %d, kind %d", r, ev.kind);
    ka_server_free(s);
}

/* Several workers on one listener: many connections, each with its own answers. */
static void test_workers(void)
{
    enum { WIRES = 60 };
    static wire w[WIRES];
    fixture f;
    char text[64], body[64];
    int wrong = 0;
    if (!fixture_start(&f, ECHO, 3)) return;
    for (int i = 0; i < WIRES; i++) wire_open(&w[i], atomic_load(&f.port));
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < WIRES; i++) {
            snprintf(text, sizeof text, "GET /%d-%d HTTP/1.1\r\nHost: a\r\n\r\n", i, round);
            wire_text(&w[i], text);
        }
        for (int i = 0; i < WIRES; i++) {
            snprintf(text, sizeof text, "GET /%d-%d ", i, round);
            if (wire_answer(&w[i], body, sizeof body, NULL, false) != 200 ||
                strcmp(body, text) != 0)
                wrong++;
        }
    }
    CHECK(f.s->workers_n == 3, "%d workers", f.s->workers_n);
    CHECK(wrong == 0, "%d of 1200 answers wrong", wrong);
    ka_stats st;
    ka_server_stats(f.s, &st);
    CHECK(st.connections == WIRES, "%d connections counted", (int)st.connections);
    for (int i = 0; i < WIRES; i++) wire_close(&w[i]);
    for (int64_t until = ka_now_ms() + PATIENCE_MS; st.connections && ka_now_ms() < until;
         ka_sleep_ms(5))
        ka_server_stats(f.s, &st);
    CHECK(st.connections == 0, "%d are left", (int)st.connections);
    fixture_stop(&f);
}

/* The n-th allocation fails, for n = 1, 2, ...: an error or a closed connection, no
   crash, no leak. */
static void test_server_out_of_memory(void)
{
    static wire w;
    char body[256];
    for (long nth = 0; ; nth++) {
        long before = atomic_load(&blocks_live);
        ka_server *s;
        atomic_store(&allocations_left, nth);
        int r = ka_server_start(&s, 1), port = 0;
        if (r == KA_OK) r = ka_listen(s, "127.0.0.1", 0);
        ka_event ev, late;
        bool asked = false, held = false;
        for (int64_t until = ka_now_ms() + PATIENCE_MS; r == KA_OK && ka_now_ms() < until; ) {
            int e = ka_wait(s, &ev, 100);
            if (e == KA_ETIME && asked) break; /* the connection was closed for want of memory */
            if (e != KA_OK) continue;
            if (ev.kind == KA_LISTENING) {
                if (ev.error) break;
                port = ev.port;
                wire_open(&w, port);
                wire_text(&w, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
                ka_sleep_ms(20);
                wire_text(&w, "xGET / HTTP/1.1\r\nHost: a\r\n\r\n");
                asked = true;
            } else if (!held && !ev.error) {
                held = true;
                late = ev;
            } else {
                /* Before its turn: it is kept. */
                ka_reply(s, &ev, ev.status ? ev.status : 200, NULL, "b", 1);
                if (held) ka_reply(s, &late, 200, NULL, "a", 1);
                held = false;
            }
        }
        if (r < 0 && r != KA_ENOMEM && r != KA_ELIMIT)
            CHECK(false, "allocation %d fails: %d", (int)nth, r);
        bool done = atomic_exchange(&allocations_left, -1) >= 0;
        ka_server_free(s);
        if (asked) {
            while (wire_answer(&w, body, sizeof body, NULL, false) > 0) {}
            wire_close(&w);
        }
        if (!CHECK(atomic_load(&blocks_live) == before, "allocation %d fails: %d blocks leaked",
                   (int)nth, (int)(atomic_load(&blocks_live) - before)))
            break;
        if (done) break;
        if (!CHECK(nth < 50, "it never comes through")) break;
    }
}

/* What the peer did not take stays in its order. */
static void test_keep_unsent(void)
{
    static ka__worker w;
    static ka__conn c;
    CHECK(ka__keep_unsent(&w, &c, "abc", 3) == KA_OK, "kept");
    c.out_at = 1;
    CHECK(ka__keep_unsent(&w, &c, "de", 2) == KA_OK && c.out_at == 0 && c.out_n == 4 &&
              memcmp(c.out, "bcde", 4) == 0, "and more behind what is left");
    ka__drop(&w, &c.out, &c.out_n);
}

/* A connection that the system does not watch is closed, and not forgotten. */
static void test_unwatched(void)
{
#if defined(__linux__) && !defined(KA_POLL)
    static wire w;
    ka_server *s;
    ka_event ev;
    int port;
    if (!parent_start(&s, 1, &ka_lines, &port)) return;
    atomic_store(&watch_refused, ENOSPC);
    CHECK(wire_open(&w, port) && next_event(s, &ev, KA_OPENED) && wire_over(&w), "it is closed");
    wire_close(&w);
    atomic_store(&watch_refused, 0);
    CHECK(next_event(s, &ev, KA_CLOSED) && ev.error == KA_EOFFLINE, "and told: %d", ev.error);
    if (!wire_open(&w, port)) return;
    wire_text(&w, "a line\n");
    CHECK(next_event(s, &ev, KA_OPENED) && next_event(s, &ev, KA_MESSAGE), "the next is served");
    wire_close(&w);
    ka_server_free(s);
#else
    skip("unwatched", "only epoll can refuse a socket");
#endif
}

/* Listeners are numbered in their order, however soon the worker is done with what it was told. */
static void test_listener_numbers(void)
{
    ka_server *s;
    ka_event ev;
    for (int round = 0; round < 20; round++) {
        int wrong = 0;
        if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
        for (int i = 0; i < KA_MAX_LISTENERS; i++)
            wrong += ka_listen_as(s, &ka_lines, "127.0.0.1", 0) != i;
        CHECK(wrong == 0, "%d of %d have another's number", wrong, (int)KA_MAX_LISTENERS);
        CHECK(ka_listen(s, "127.0.0.1", 0) == KA_ELIMIT, "no more than that");
        for (int i = 0; i < KA_MAX_LISTENERS && next_event(s, &ev, KA_LISTENING); i++)
            CHECK(ev.error == KA_OK && ev.listener == i && ev.port > 0, "listener %d: %d, of %d", i,
                  ev.error, ev.listener);
        ka_server_free(s);
    }
}

/* ka_wait returns a listener's error if no other one listens. t: a taken port; f: a free one. */
static void test_listener_left(void)
{
    static const struct { const char *ports; int want; } rows[] = {
        { "t", KA_EINUSE }, { "tt", KA_EINUSE },
        { "tf", KA_ETIME }, { "ft", KA_ETIME }, { "ttf", KA_ETIME },
    };
    ka__sock taken;
    int port;
    if (!CHECK(sock_listen(&taken, &port) == KA_OK, "listens")) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_server *s;
        ka_event ev;
        if (!CHECK(ka_server_start(&s, 0) == KA_OK && s->workers_n == 1, "none is one")) break;
        for (const char *p = rows[i].ports; *p; p++)
            ka_listen(s, "127.0.0.1", *p == 't' ? port : 0);
        for (const char *p = rows[i].ports; *p; p++)
            CHECK(next_event(s, &ev, KA_LISTENING) && !ev.error == (*p == 'f') &&
                  !ev.os_error == (*p == 'f'), "%s: %d, %d", p, ev.error, ev.os_error);
        int r = ka_wait(s, &ev, 0);
        CHECK(r == rows[i].want, "%s: %d, not %d", rows[i].ports, r, rows[i].want);
        ka_server_free(s);
    }
    ka__sock_close(taken);
}

static const subject worker_topics[] = {
    { "unanswered", test_unanswered }, { "full mailbox", test_full_mailbox },
    { "fairness", test_fairness }, { "time-outs", test_time_outs },
    { "refused head", test_refused_head }, { "busy parent", test_busy_parent },
    { "never reads", test_never_reads }, { "linger", test_linger }, { "drain", test_drain },
    { "drain ends", test_drain_ends }, { "drain, busy", test_drain_busy },
    { "drain told", test_drain_told }, { "unwatched", test_unwatched },
    { "keep unsent", test_keep_unsent },
    { "workers", test_workers }, { "server out of memory", test_server_out_of_memory },
    { "listeners' numbers", test_listener_numbers }, { "listener left", test_listener_left },
};
