/* tests/server.h - section 6 of keyauth.h: the stop, from any thread and by signals. */

/* Stops a server, and pauses before it wakes its parent. */
typedef struct { ka_server *s; bool interrupt; } stopper;

static void stopper_run(void *arg)
{
    stopper *p = arg;
    while (!atomic_load(&p->s->sleeper.asleep)) ka_sleep_ms(1);
    dawdle_ms = 200;
    if (p->interrupt) ka__interrupt_run();
    else ka_stop(p->s);
    dawdle_ms = 0;
}

/* Whoever has begun to stop a server is waited for before it is freed. */
static void test_stop_and_free(void)
{
    for (int interrupt = 0; interrupt < 2; interrupt++) {
        bool paused = false;
        for (int round = 0; round < 20 && !paused; round++) {
            stopper p = { .interrupt = interrupt };
            ka__thread thread;
            ka_event ev;
            int r;
            if (!CHECK(ka_server_start(&p.s, 1) == KA_OK, "starts")) return;
            if (interrupt) CHECK(ka_stop_on_interrupt(p.s) == KA_OK, "by an interrupt");
            atomic_store(&dawdling, 0);
            if (ka__thread_start(&thread, stopper_run, &p) != KA_OK) abort();
            do r = ka_wait(p.s, &ev, 10); while (r == KA_ETIME);
            CHECK(r == KA_ESTOPPED, "stops: %d", r);
            ka_server_free(p.s);
            CHECK(atomic_load(&dawdling) != DAWDLES, "freed under the thread that stops it");
            paused = atomic_load(&dawdling) == DAWDLED;
            ka__thread_join(&thread);
        }
        CHECK(paused, "it had to be waited for");
    }
}

typedef struct { _Atomic(ka_server *) s; _Atomic(bool) over, calm; } target;

static void stop_on_and_on(void *arg)
{
    target *t = arg;
    ka_stats st;
    while (!atomic_load(&t->over)) {
        ka_server_stats(atomic_load(&t->s), &st);
        ka_stop(atomic_load(&t->s));
        if (atomic_exchange(&t->calm, !atomic_load(&t->calm))) ka_sleep_ms(1);
    }
}

/* Servers come and go while two threads stop whichever they have heard of, freed or not. */
static void test_stop_gone(void)
{
    static target t;
    enum { ROUNDS = 50 };
    ka__thread threads[2];
    ka_event ev;
    ka_stats st = { 1, 1, 1 };
    for (int i = 0; i < 2; i++)
        if (ka__thread_start(&threads[i], stop_on_and_on, &t) != KA_OK) abort();
    int stopped = 0;
    for (int round = 0; round < ROUNDS; round++) {
        ka_server *s, *other;
        bool start = ka_server_start(&s, 1) == KA_OK && ka_server_start(&other, 1) == KA_OK;
        if (!CHECK(start, "start")) break;
        atomic_store(&t.s, s);
        stopped += ka_wait(s, &ev, PATIENCE_MS) == KA_ESTOPPED;
        ka_server_free(round % 2 ? s : other);
        ka_server_free(round % 2 ? other : s);
    }
    CHECK(stopped == ROUNDS, "%d stopped", stopped);
    atomic_store(&t.over, true);
    for (int i = 0; i < 2; i++) ka__thread_join(&threads[i]);
    ka_server_stats(atomic_load(&t.s), &st);
    CHECK(st.requests == 0 && st.connections == 0 && st.buffered == 0,
          "one that is gone has nothing");
    CHECK(!atomic_load(&ka__live.first), "no server is left");
    for (int i = 0; i < 2; i++) CHECK(!atomic_load(&ka__live.users[i]), "no call is left");
}

/* Calls for another server without a gap: each begins before the one before it ends. */
static void stats_on_and_on(void *arg)
{
    target *t = arg;
    int side = ka__hold(atomic_load(&t->s));
    atomic_store(&t->calm, true);
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         !atomic_load(&t->over) && ka_now_ms() < until;) {
        int next = ka__hold(atomic_load(&t->s));
        ka__let(side);
        side = next;
    }
    ka__let(side);
}

static void test_free_among_calls(void)
{
    static target t;
    ka__thread thread;
    ka_server *s, *other;
    bool start = ka_server_start(&s, 1) == KA_OK && ka_server_start(&other, 1) == KA_OK;
    if (!CHECK(start, "start")) return;
    atomic_store(&t.s, other);
    if (ka__thread_start(&thread, stats_on_and_on, &t) != KA_OK) abort();
    while (!atomic_load(&t.calm)) ka_sleep_ms(1);
    int64_t start_ms = ka_now_ms();
    ka_server_free(s);
    CHECK(ka_now_ms() - start_ms < PATIENCE_MS / 2, "calls for others don't keep it from ending");
    atomic_store(&t.over, true);
    ka__thread_join(&thread);
    ka_server_free(other);
}

/* After 2^32 connections of a worker their numbers begin anew: by 1, since 0 is nobody's. */
static void test_generations(void)
{
    static const uint32_t want[] = { UINT32_MAX - 1, UINT32_MAX, 1, 2 };
    static wire w[COUNT(want)];
    ka_server *s;
    ka_event ev;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    s->workers[0]->generations = UINT32_MAX - 2;      /* read when somebody has connected */
    if (!CHECK(ka_listen_as(s, &ka_lines, "127.0.0.1", 0) == 0, "listens")) return;
    if (!next_event(s, &ev, KA_LISTENING)) return;
    int port = ev.port;
    for (size_t i = 0; i < COUNT(want) && wire_open(&w[i], port) &&
        next_event(s, &ev, KA_OPENED); i++) {
        CHECK((uint32_t)ev.conn == want[i], "connection %d: %x", (int)i, (unsigned)ev.conn);
        ka_send(s, ev.conn, "x", 1);
        ka_wait(s, &ev, 0);
        CHECK(wire_more(&w[i]) == 1 && w[i].n == 1, "it is found by that number");
    }
    for (size_t i = 0; i < COUNT(want); i++) wire_close(&w[i]);
    ka_server_free(s);
}

/* Ctrl+C with a request half sent: it is finished, and the server says 0. */
static void test_interrupt(void)
{
    static wire w;
    process server;
    char port[8], body[64];
    int n = server_start(&server, port, NULL, NULL);
    if (!n) return;
    wire_open_at(&w, SERVER_IP, n);
    wire_text(&w,
              "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    CHECK(wire_gets(&w, "HTTP/1.1 100 Continue\r\n\r\n"), "the request is begun");
    if (!process_interrupt(&server)) {
        skip("interrupt", "no console to send Ctrl+Break through");
    } else {
        ka_sleep_ms(100);
        wire_text(&w, "ask_key=x");
        CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 200, "the request is finished");
        int status = process_wait(&server, PATIENCE_MS);
        CHECK(status == 0, "exit status %d: %s", status, output(&server, "err"));
    }
    wire_close(&w);
    process_end(&server);
}

/* Who has connected before Ctrl+C is served, even if the server had no time yet to accept. */
static void test_interrupt_backlog(void)
{
#ifdef _WIN32
    skip("interrupt with a backlog", "no SIGSTOP");
#else
    enum { WIRES = 200 };
    static wire w[WIRES];
    process server;
    char port[8], body[64];
    int n = server_start(&server, port, NULL, NULL), served = 0;
    if (!n) return;
    kill((pid_t)pool[server].pid, SIGSTOP);
    for (int i = 0; i < WIRES; i++) {
        wire_open_at(&w[i], SERVER_IP, n);
        wire_text(&w[i], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x");
    }
    process_interrupt(&server);
    kill((pid_t)pool[server].pid, SIGCONT);
    for (int i = 0; i < WIRES; i++) {
        served += wire_answer(&w[i], body, sizeof body, NULL, false) == 200;
        wire_close(&w[i]);
    }
    CHECK(served == WIRES, "%d of %d served", served, WIRES);
    CHECK(process_wait(&server, PATIENCE_MS) == 0, "then it ends");
    process_end(&server);
#endif
}

/* The caller's line Connection is left out of an answer's record, and nothing comes behind it. */
static void test_reply_record(void)
{
    static const char fields[] = "X-Long: 0123456789abcdef0123456789abcdef0123456789abcdef\r\n"
                                 "Connection: close\r\nA: b\r\n\0these bytes lie behind them, and "
                                 "they are no part of the answer, however it is put together";
    enum { KEPT = 58 + 6, BEHIND = 256 };
    static wire w;
    ka_server *s;
    ka_event ev;
    int port, changed = 0;
    if (!parent_start(&s, 1, NULL, &port) || !wire_open(&w, port)) return;
    wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    if (!next_event(s, &ev, KA_REQUEST)) return;
    ka__box *b = &s->workers[0]->down;
    ka__record *r = ka__box_at(b, b->write);
    char *end = ka__payload(r) + KEPT;
    memset(r, '?', sizeof *r + KEPT + BEHIND);      /* nothing is there yet */
    CHECK(ka_reply(s, &ev, 200, fields, NULL, 0) == KA_OK && r->n == KEPT, "n %d", (int)r->n);
    CHECK(memcmp(end - 8, "\r\nA: b\r\n", 8) == 0, "both other lines");
    for (int i = 0; i < BEHIND; i++) changed += end[i] != '?';
    CHECK(changed == 0, "%d bytes behind it", changed);
    wire_close(&w);
    ka_server_free(s);
}

/* A worker that always has something to tell keeps another one waiting for a batch, and no longer.
   The workers have no threads here. */
static void test_fair_workers(void)
{
    static ka_server s;
    static ka__worker w[2];
    ka_event ev;
    int before = 0;
    if (!CHECK(ka__poller_init(&s.sleeper.poller) == KA_OK, "init")) return;
    s.workers_n = 2;
    for (int i = 0; i < 2; i++) {
        s.workers[i] = &w[i];
        w[i].parent = &s.sleeper;
        if (ka__box_init(&w[i].up, KA_MAILBOX) < 0 || ka__box_init(&w[i].down, KA_MAILBOX) < 0)
            abort();
        for (int k = 0; k < (i == 0 ? 2 * KA_BATCH : 1); k++) {
            ka__record *r = ka__box_put(&w[i].up, KA_CLOSED, sizeof ev.peer);
            memset(ka__payload(r), 0, sizeof ev.peer);
            r->conn = (uint64_t)i << 56;
        }
        ka__box_publish(&w[i].up);
    }
    while (ka_wait(&s, &ev, 0) == KA_OK && ev.conn >> 56 == 0) before++;
    CHECK(before == KA_BATCH && ev.conn >> 56 == 1, "%d events of the other one before", before);
    for (int i = 0; i < 2; i++) {
        ka__box_free(&w[i].up);
        ka__box_free(&w[i].down);
    }
    ka__poller_free(&s.sleeper.poller);
}

static const subject server_topics[] = {
    { "stop and free", test_stop_and_free }, { "stop gone", test_stop_gone },
    { "free among calls", test_free_among_calls }, { "generations", test_generations },
    { "interrupt", test_interrupt }, { "backlog", test_interrupt_backlog },
    { "reply record", test_reply_record }, { "fair workers", test_fair_workers },
};
