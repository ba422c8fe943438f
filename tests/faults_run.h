/* tests/faults_run.h - further scenarios: servers, connections, client, kill, children; and how all
   of them run. */

/* -- a server, and visitors who send requests in pieces and never wait for one another -- */

typedef struct {
    wire w;
    const char *text;
    int want, got, status;
    size_t sent;
    bool leaves, at_once, open, ended;
} visitor;

#define POSTED(body, n) "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " #n "\r\n\r\n" body
static const struct { const char *text; int answers; bool leaves, at_once; } visits[] = {
    { POSTED("ask_key=x", 9) POSTED("login=y", 7) "GET / HTTP/1.0\r\n\r\n", 3, false, false },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nask_\r\n5\r\nkey=x\r\n0\r\n\r\n", 1, false, false },
    { "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n", 3, false, true },
    { "GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /big HTTP/1.1\r\nHost: a\r\n\r\n", 2, false, true },
    { "nonsense\r\n\r\n", 1, true, false },
};

/* Send a bit, read a bit; true once it has all its answers, or has been turned away. */
static bool visitor_step(visitor *v, int port)
{
    if (v->ended || v->got == v->want) return true;
    int r = v->open ? KA_OK : ka__sock_connect(NULL, "127.0.0.1", port, &v->w.sock);
    if (r < 0 && r != KA_EAGAIN) return v->ended = true;
    v->open = true;
    size_t left = strlen(v->text) - v->sent;
    ptrdiff_t sent =
        left ? ka__sock_send(v->w.sock, v->text + v->sent, v->at_once ? left : (left + 1) / 2) : 0;
    if (sent > 0) v->sent += (size_t)sent;
    ptrdiff_t got = ka__sock_recv(v->w.sock, v->w.buf + v->w.n, sizeof v->w.buf - v->w.n);
    if (got > 0) v->w.n += (size_t)got;
    v->ended = got == 0 || (got < 0 && got != KA_EAGAIN);
    for (ka__http h; v->w.n; ) {
        ptrdiff_t head = ka__http_response(&h, v->w.buf, v->w.n);
        size_t all = head > 0 ? (size_t)head + (size_t)h.length : 0;
        if (head != KA_EAGAIN && (head < 0 || h.status < 200))
            CHECK(false, "no answer: %.40s; %s", v->w.buf, story());
        if (all == 0 || v->w.n < all) break;
        v->w.n -= all;
        memmove(v->w.buf, v->w.buf + all, v->w.n);
        v->got++;
        v->status = h.status > v->status ? h.status : v->status;      /* the worst one */
        if (!h.keep_alive) v->want = v->got;      /* whatever it asked behind that */
        v->leaves = v->leaves || !h.keep_alive;
    }
    if (v->got == v->want && v->leaves) {
        wire_close(&v->w);
        v->open = false;
    }
    return v->ended || v->got == v->want;
}

/* What a scenario's parent has in hand. */
typedef struct {
    ka_server *s;
    ka_keyring keys;
    ka_journal journal;
    ka_store  *store;
    ka_event   late;
    bool       held, stopped;
    int        port;
} keeper;

static void keeper_answer(keeper *k, const ka_event *ev)
{
    static const char big[60000];
    int r = KA_OK;
    bool late = ka_is(ev->target, "/late");      /* answered after the next one */
    if (ka_is(ev->target, "/big")) r = ka_reply(k->s, ev, 200, NULL, big, sizeof big);
    else if (!late) r = ka_auth(k->s, k->store, ev);
    if (r == KA_OK && k->held) r = ka_reply(k->s, &k->late, 200, NULL, "late", 4);
    k->held = late;
    if (late) k->late = *ev;
    if (r < 0) CHECK(false, "ka_reply: %d; %s", r, story());
}

static void keeper_stop(keeper *k)
{
    if (!k->stopped) ka_stop(k->s);
    k->stopped = true;
}

/* One turn of the parent; false at the end. */
static bool keeper_turn(keeper *k, visitor *visitors, int n, int64_t until)
{
    ka_event ev;
    int r = ka_wait(k->s, &ev, 1), done = 0;
    if (r == KA_ESTOPPED) return false;
    if (r == KA_OK && ev.kind == KA_LISTENING) {
        ALLOWED(ev.error, "KA_LISTENING", KA_EOS, KA_EINUSE, KA_EADDR, KA_EPERM, KA_ELIMIT);
        k->port = ev.port;
        if (ev.error) keeper_stop(k);
    } else if (r == KA_OK) {
        keeper_answer(k, &ev);
    }
    fault_exempt = true;
    for (int i = 0; i < n && k->port; i++) done += visitor_step(&visitors[i], k->port);
    bool late = ka_now_ms() > until;
    if (late && !k->stopped)
        CHECK(false, "%d of %d visitors have waited too long; %s", n - done, n, story());
    fault_exempt = false;
    if (done == n || late) keeper_stop(k);
    return true;
}

static void faults_serve(int workers, bool interrupt, bool journal)
{
    static visitor visitors[2 * COUNT(visits)];
    keeper k = { .port = 0 };
    int n = workers > 1 ? 2 * (int)COUNT(visits) : (int)COUNT(visits), r = KA_OK;
    for (int i = 0; i < n; i++) {
        visitor *v = &visitors[i];
        v->w.n = v->sent = 0;
        v->open = v->ended = false;
        v->got = 0;
        v->text = visits[i % (int)COUNT(visits)].text;
        v->want = visits[i % (int)COUNT(visits)].answers;
        v->leaves = visits[i % (int)COUNT(visits)].leaves;
        v->at_once = visits[i % (int)COUNT(visits)].at_once;
    }
    r = ka_server_start(&k.s, workers > 1 ? workers + KA_OWN_DESCRIPTORS : workers);
    ALLOWED(r, "ka_server_start", KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND, KA_ENOMEM, KA_EOS, KA_ELIMIT,
            KA_ETHREAD, KA_EPERM);
    if (r < 0 && k.s) CHECK(false, "a server that did not start; %s", story());
    k.store = journal ? &k.journal.store : &k.keys.store;
    if (r == KA_OK) {
        r = journal
                ? ka_journal_open(&k.journal, k.s, JOURNAL, 0, 0, false, &(ka_journal_report){ 0 })
                : ka_keyring_init(&k.keys, 0, 0);
        ALLOWED(r, "ka_keyring_init, ka_journal_open", KA_ENOMEM, KA_EOS, KA_EPERM, KA_ELIMIT,
                KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND);
    }
    if (r == KA_OK && interrupt) {
        int caught = ka_stop_on_interrupt(k.s);
        ALLOWED(caught, "ka_stop_on_interrupt", KA_EOS);
#if !defined(_WIN32)
        if (caught == KA_OK) (void)raise(SIGTERM);
        k.stopped = caught == KA_OK;
#endif
        if (!k.stopped) keeper_stop(&k);
    }
    if (r == KA_OK) ALLOWED(ka_listen(k.s, "127.0.0.1", 0), "ka_listen", KA_ELIMIT, KA_ESTOPPED);
    for (int64_t until = ka_now_ms() + 8000; r == KA_OK && keeper_turn(&k, visitors, n, until); ) {}
    ka_journal_close(&k.journal);
    ka_server_free(k.s);
    ka_keyring_free(&k.keys);
    fault_exempt = true;
    for (int i = 0; i < n; i++)
        if (visitors[i].open) wire_close(&visitors[i].w);
    fault_exempt = false;
}

static void faults_server(void) { faults_serve(1, false, false); }
static void faults_grouped(void) { faults_serve(1, false, true); }
static void faults_workers(void) { faults_serve(3, false, false); }
static void faults_interrupt(void) { faults_serve(1, true, false); }

/* -- keys in a Redis that does what it is told: whoever asks again is answered in the end -- */

static void play_obey(play *p)
{
    p->accepts = p->sock == -1;
    for (char *line = p->heard, *end; (end = strchr(line, '\n')) != NULL;
         memmove(line, end + 1, strlen(end)))
        play_reply(p, *line == 'P' ? "+PONG" : *line == 'G' ? "$1\r\na" : "+OK");
}

static void faults_redis(void)
{
    static play p;
    static visitor v;
    static const char text[] =
        POSTED("ask_key=a", 9) "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 94\r\n\r\nlogin=" KEY;
    static const char *host;
    bool good = false;
    fault_exempt = true;
    play_set(&p, "secret");
    if (!host && !knows_localhost()) {
        skip("faults redis: its host by a name", "this machine does not know localhost");
        host = "127.0.0.1";
    }
    if (!host) host = "localhost";
    strcpy(p.at.host, host);
    fault_exempt = false;
    int r = play_go(&p);
    ALLOWED(r, "ka_server_start", KA_ENOMEM, KA_EOS, KA_ELIMIT, KA_ETHREAD, KA_EPERM);
    if (r == KA_OK) ka_redis_store_init(&p.keys, &p.r, 0);
    v.ended = true;
    for (int64_t until = ka_now_ms() + 8000;
         r == KA_OK && !good && p.web_port >= 0 && ka_now_ms() < until;) {
        play_turn(&p);
        fault_exempt = true;
        p.r.retry_ms = KA_REDIS_RETRY_MS;      /* twelve failures take long else */
        play_obey(&p);
        if (v.ended || v.got == 2) {
            if (v.open) wire_close(&v.w);
            v = (visitor){ .text = text, .want = 2, .at_once = true };
        }
        if (p.web_port > 0 && visitor_step(&v, p.web_port)) good = v.got == 2 && v.status == 200;
        fault_exempt = false;
    }
    if (r == KA_OK && p.web_port >= 0 && !good)
        CHECK(false, "not answered: %d, %d answers; %s", v.status, v.got, story());
    if (r == KA_OK) ka_stop(p.s);
    while (r == KA_OK && !p.ended) play_turn(&p);
    if (p.r.up) CHECK(false, "up after its end; %s", story());
    fault_exempt = true;
    if (v.open) wire_close(&v.w);
    v.open = false;
    play_free(&p);
    fault_exempt = false;
}

/* -- a server that connects to itself after a moment, and talks JSON, frames, lines and then RESP
   until the one who called closes -- */

typedef struct { ka_server *s; uint64_t caller; bool stopped, listens, whole; } talker;

static void talker_stop(talker *t)
{
    if (!t->stopped) ka_stop(t->s);
    t->stopped = true;
}

static void talker_event(talker *t, const ka_event *ev)
{
    int r = KA_OK, next;
    static const ka_str words[] = { [CUT_OBJECTS] = { BYTES("{\"frames\": 1}") },
                                    [CUT_FRAMES] = { BYTES("\0\0\0\7a frame") },
                                    [CUT_LINES] = { BYTES("a line\r\n") },
                                    [CUT_RESP] = { BYTES("*2\r\n$1\r\na\r\n:1\r\n") } };
    static const char *const bodies[] = { [CUT_OBJECTS] = "{\"frames\": 1}",
                                          [CUT_FRAMES] = "a frame",
                                          [CUT_LINES] = "a line",
                                          [CUT_RESP] = "*2\r\n$1\r\na\r\n:1\r\n" };
    const int was = framing_number(ev->framing);
    bool calls = ev->conn == t->caller;
    switch (ev->kind) {
    case KA_LISTENING:
        ALLOWED(ev->error, "KA_LISTENING", KA_EOS, KA_EINUSE, KA_EADDR, KA_EPERM, KA_ELIMIT);
        t->listens = ev->error == 0;
        if (ev->error ||
            !ALLOWED(r = ka_timer(&timers, ev->now_ms + 1, (uint64_t)ev->port), "ka_timer",
                     KA_ENOMEM) ||
            r < 0)
            talker_stop(t);
        break;
    case KA_TIMER:
        if (ka_connect(t->s, &ka_objects, "127.0.0.1", "127.0.0.1", (int)ev->tag, 7) != KA_OK)
            talker_stop(t);
        break;
    case KA_OPENED:
        if (ev->listener >= 0) break;
        ALLOWED(ev->error, "KA_OPENED", KA_EOS, KA_EINUSE, KA_EADDR, KA_EPERM, KA_ELIMIT,
                KA_EOFFLINE, KA_ENOMEM, KA_ETIME, KA_ESTOPPED);
        if (ev->tag != 7) CHECK(false, "tag %d; %s", (int)ev->tag, story());
        t->caller = ev->conn;
        if (ev->error) talker_stop(t);
        else ka_send(t->s, ev->conn, words[CUT_OBJECTS].p, words[CUT_OBJECTS].n);
        break;
    case KA_MESSAGE:
        if (ev->error && ev->error != KA_ENOMEM && ev->error != KA_ESYNTAX)
            CHECK(false, "message %d; %s", ev->error, story());      /* KA_ESYNTAX: cut off */
        if (ev->error) break;
        if (!ka_is(ev->body, bodies[was]))
            CHECK(false, "\"%.*s\"; %s", (int)ev->body.n, ev->body.p, story());
        next = was < CUT_RESP ? was + 1 : CUT_RESP;
        if (was < CUT_RESP) ka_reframe(t->s, ev->conn, framings[next]);
        else if (calls) {
            t->whole = true;
            ka_close(t->s, ev->conn);
        }
        /* What it was told goes back. Then the caller begins in the next one. */
        if (!calls) next = was;
        if (!calls || was < CUT_RESP) ka_send(t->s, ev->conn, words[next].p, words[next].n);
        break;
    default: /* KA_CLOSED */
        if (calls) talker_stop(t);
    }
}

static void faults_talk(void)
{
    talker t = { .s = NULL };
    ka_event ev;
    int r = ka_server_start(&t.s, 1);
    ALLOWED(r, "ka_server_start", KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND, KA_ENOMEM, KA_EOS, KA_ELIMIT,
            KA_ETHREAD, KA_EPERM);
    if (r == KA_OK) ka_timers_init(&timers, t.s);
    if (r == KA_OK)
        ALLOWED(ka_listen_as(t.s, &ka_objects, "127.0.0.1", 0), "ka_listen_as", KA_ELIMIT,
                KA_ESTOPPED);
    for (int64_t until = ka_now_ms() + 8000; r == KA_OK; ) {
        int got = ka_wait(t.s, &ev, 100);
        if (got == KA_ESTOPPED) break;
        if (got == KA_OK) talker_event(&t, &ev);
        if (ka_now_ms() <= until) continue;
        if (!t.stopped) CHECK(false, "it has waited too long; %s", story());
        talker_stop(&t);
    }
    if (t.listens && !t.whole && atomic_load(&fault_first) == F_setsockopt &&
        atomic_load(&fault_kind) == 0)
        CHECK(false, "it needs no option; %s", story());
    ka_server_free(t.s);
    ka_timers_free(&timers);
}

/* Three lines of standard input: those that come are the first, and an error has its reason. */
static void faults_input(void)
{
    static const char *const lines[] = { "one", "two", "three" };
    ka_server *s;
    ka_event ev = { .kind = 0 };
    size_t n = 0;
    fault_exempt = true;
    file_put(INPUT, "one\ntwo\nthree", 13);
    input_from(INPUT);
    fault_exempt = false;
    int r = ka_server_start(&s, 1);
    ALLOWED(r, "ka_server_start", KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND, KA_ENOMEM, KA_EOS, KA_ELIMIT,
            KA_ETHREAD, KA_EPERM);
    int begun = r == KA_OK ? ka_input_start(s) : r;
    if (r == KA_OK) ALLOWED(begun, "ka_input_start", KA_ETHREAD, KA_ENOMEM);
    for (int64_t until = ka_now_ms() + 8000; begun == KA_OK && !ev.error; ) {
        if (ka_wait(s, &ev, 100) == KA_OK && !ev.error &&
            (n == COUNT(lines) || !ka_is(ev.body, lines[n++])))
            CHECK(false, "it is another line; %s", story());
        if (ka_now_ms() > until && CHECK(false, "it has waited too long; %s", story()) == false)
            break;
    }
    if (begun == KA_OK) ALLOWED(ev.error, "KA_INPUT", KA_ENOTFOUND, KA_EOS, KA_ELIMIT);
    if (begun == KA_OK && ev.error == KA_ENOTFOUND && n < COUNT(lines))
        CHECK(false, "%d lines are missing; %s", (int)(COUNT(lines) - n), story());
    ka_input_stop();
    ka_server_free(s);
    fault_exempt = true;
    input_over();
    (void)remove(INPUT);
    fault_exempt = false;
}

/* -- a stream behind a request that is answered late; its client goes when it has ended -- */

typedef struct {
    ka_server *s;
    wire *w;
    ka_event late;
    int opened, closed;
    bool open, stopped;
} streamer;

static void streamer_stop(streamer *t)
{
    if (!t->stopped) ka_stop(t->s);
    t->stopped = true;
}

static void streamer_event(streamer *t, const ka_event *ev)
{
    static const char large[65380];      /* what leaves at once is nearly full of it */
    static const char asks[] =
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /s HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    int r = KA_OK;
    switch (ev->kind) {
    case KA_LISTENING:
        ALLOWED(ev->error, "KA_LISTENING", KA_EOS, KA_EINUSE, KA_EADDR, KA_EPERM, KA_ELIMIT);
        fault_exempt = true;
        t->open = ev->error == 0 && wire_open(t->w, ev->port) && wire_text(t->w, asks);
        fault_exempt = false;
        if (!t->open) streamer_stop(t);
        break;
    case KA_REQUEST:
        if (ev->error) r = ka_reply(t->s, ev, ev->error, NULL, NULL, 0);
        else if (ka_is(ev->target, "/1")) t->late = *ev;
        else {
            ka_str x;
            if (ka_field(ev->fields, "x", &x) < 0 || !ka_is(x, "y"))
                CHECK(false, "its fields: %.*s; %s", (int)ev->fields.n, ev->fields.p, story());
            r = ka_sse_begin(t->s, ev, event_stream);
            if (r == KA_OK) r = ka_reply(t->s, &t->late, 200, NULL, large, sizeof large);
        }
        if (r < 0) CHECK(false, "ka_reply or ka_sse_begin: %d; %s", r, story());
        break;
    case KA_OPENED:
        t->opened++;
        for (int i = 0; i < 3; i++) ka_send(t->s, ev->conn, "data: x\n\n", 9);
        ka_close(t->s, ev->conn);
        break;
    default: /* KA_CLOSED */
        t->closed++;
    }
}

static void faults_stream(void)
{
    static wire w;
    streamer t = { .w = &w };
    ka_event ev;
    int r = ka_server_start(&t.s, 1);
    ALLOWED(r, "ka_server_start", KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND, KA_ENOMEM, KA_EOS, KA_ELIMIT,
            KA_ETHREAD, KA_EPERM);
    if (r == KA_OK)
        ALLOWED(ka_listen_as(t.s, NULL, "127.0.0.1", 0), "ka_listen_as", KA_ELIMIT, KA_ESTOPPED);
    for (int64_t until = ka_now_ms() + 8000; r == KA_OK; ) {
        int got = ka_wait(t.s, &ev, 1);
        if (got == KA_ESTOPPED) break;
        if (got == KA_OK) streamer_event(&t, &ev);
        fault_exempt = true;
        ptrdiff_t said = t.open ? ka__sock_recv(w.sock, w.buf, sizeof w.buf) : KA_EAGAIN;
        if (said == 0 || (said < 0 && said != KA_EAGAIN)) {
            wire_close(&w);
            t.open = false;
            streamer_stop(&t);
        }
        if (ka_now_ms() > until) {
            if (!t.stopped) CHECK(false, "it has waited too long; %s", story());
            streamer_stop(&t);
        }
        fault_exempt = false;
    }
    if (t.opened != t.closed || t.opened > 1)
        CHECK(false, "%d opened, %d closed; %s", t.opened, t.closed, story());
    ka_server_free(t.s);
    fault_exempt = true;
    if (t.open) wire_close(&w);
    fault_exempt = false;
}

/* A server that has stopped without a parent's ka_wait. */
static void faults_abandon(void)
{
    ka_server *s;
    int r = ka_server_start(&s, 2);
    if (ALLOWED(r, "ka_server_start", KA_ENOMEM, KA_EOS, KA_ELIMIT, KA_ETHREAD, KA_EPERM) &&
        r == KA_OK)
        ka_listen(s, "127.0.0.1", 0);
    ka_server_free(s);
}

/* -- the client; who answers it is exempt -- */

static struct { ka__sock listener; int port; _Atomic(bool) stop; ka__thread thread; } responder;

static void responder_serve(ka__sock s)
{
    static const char answer[] =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n";
    static char buf[4096];
    size_t n = 0;
    ka__http h;
    for (ptrdiff_t got = 0; !atomic_load(&responder.stop) && n < sizeof buf; n += (size_t)got) {
        ptrdiff_t head = ka__http_request(&h, buf, n);
        if (head > 0 && n >= (size_t)(head + h.length)) {
            ka__sock_send(s, answer, sizeof answer - 1);
            n = 0;
        }
        got = ka__sock_wait(s, KA__IN, 20) == KA_OK ? ka__sock_recv(s, buf + n, sizeof buf - n) : 0;
        if (got == 0 && ka__sock_wait(s, KA__IN, 0) == KA_OK) return;      /* it has closed */
        if (got < 0 && got != KA_EAGAIN) return;
        if (got < 0) got = 0;
    }
}

static void responder_run(void *unused)
{
    (void)unused;
    fault_exempt = true;
    while (!atomic_load(&responder.stop)) {
        ka__sock s;
        if (ka__sock_wait(responder.listener, KA__IN, 20) != KA_OK ||
            ka__sock_accept(responder.listener, &s, NULL) != KA_OK)
            continue;
        responder_serve(s);
        ka__sock_close(s);
    }
}

static void responder_start(void)
{
    atomic_store(&responder.stop, false);
    bool ok = sock_listen(&responder.listener, &responder.port) == KA_OK;
    if (!ok || ka__thread_start(&responder.thread, responder_run, NULL) != KA_OK) abort();
}

static void responder_stop(void)
{
    atomic_store(&responder.stop, true);
    ka__thread_join(&responder.thread);
    ka__sock_close(responder.listener);
}

static void faults_client(void)
{
    static ka_client c;
    ka_str answer = { "", 0 };
    memset(&c, 0, sizeof c);
    c.ip = "127.0.0.1";
    c.port = responder.port;
    c.until_ms = ka_now_ms() + 2000;
    c.attempt_ms = 500;
    for (int i = 0; i < 3; i++) {      /* the second one on the same connection */
        int r = ka_client_post(&c, "x=y", 3, &answer);
        ALLOWED(r, "ka_client_post", KA_EOFFLINE, KA_EPERM, KA_EOS, KA_ELIMIT);
        if (r >= 0 && (r != 200 || !ka_is(answer, "ok")))
            CHECK(false, "the answer: %d %.*s; %s", r, (int)answer.n, answer.p, story());
        if (r < 0 && r != KA_EOFFLINE && c.os_error == 0)
            CHECK(false, "no code of the system's; %s", story());
        if (r < 0 && c.open) CHECK(false, "the connection is open after an error; %s", story());
    }
    ka_client_close(&c);
}

/* -- killing the server: a child of this process, which answers once -- */

#if !defined(_WIN32)
static pid_t child_start(ka__sock listener)
{
    static wire w;
    fault_exempt = true;
    pid_t child = fork();
    if (child != 0) {
        ka__sock_close(listener);
        fault_exempt = false;
        return child;
    }
    w.n = 0;
    if (wire_wait(listener, KA__IN) && ka__sock_accept(listener, &w.sock, NULL) == KA_OK &&
        wire_more(&w) == 1)
        wire_text(&w, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    for (;;) pause();
}

/* It has gone exactly if the result says so. */
static void faults_kill(void)
{
    static ka_client c;
    ka__sock listener;
    ka_str answer;
    int64_t pid = 0;
    int port = 0, status;
    fault_exempt = true;
    if (sock_listen(&listener, &port) < 0) abort();
    pid_t child = child_start(listener);
    memset(&c, 0, sizeof c);
    c.ip = "127.0.0.1";
    c.port = port;
    fault_exempt = true;
    bool answered = ka_client_post(&c, "x=y", 3, &answer) == 200;
    fault_exempt = false;
    int r = ka_client_kill_server(&c, &pid);
    fault_exempt = true;
    if (!answered || child < 0) abort();
    ALLOWED(r, "ka_client_kill_server", KA_ENOTFOUND, KA_EINUSE, KA_EPERM, KA_ETIME, KA_EOFFLINE,
            KA_EOS, KA_ELIMIT);
    if ((r == KA_OK) != (c.why == NULL)) CHECK(false, "%d: %s; %s", r, c.why ? c.why : "", story());
    bool gone = waitpid(child, &status, r == KA_OK || r == KA_ETIME ? 0 : WNOHANG) == child;
    if (gone != (r == KA_OK || r == KA_ETIME))
        CHECK(false, "%d (%s), and the server has %sgone; %s", r, ka_error_text(r),
              gone ? "" : "not ", story());
    if ((r == KA_OK || r == KA_ETIME) && pid != (int64_t)child)
        CHECK(false, "its PID is told; %s", story());
    if (!gone && (kill(child, SIGKILL) != 0 || waitpid(child, &status, 0) != child)) abort();
    ka_client_close(&c);
    fault_exempt = false;
}
#else
static void faults_kill(void) {}      /* without fork(2) there is no such child */
#endif

/* -- a child, and what this process uses. The child's own calls, up to its exec, fail as well: it
   then ends with 127 -- */

/* Lower the descriptor limit, or set it back. */
static void descriptors_lower(bool lower)
{
#if !defined(_WIN32)
    static struct rlimit before;
    fault_exempt = true;
    if (lower && getrlimit(RLIMIT_NOFILE, &before) != 0) abort();
    struct rlimit now = { lower ? 200 : before.rlim_cur, before.rlim_max };
    if (setrlimit(RLIMIT_NOFILE, &now) != 0) abort();
    fault_exempt = false;
#else
    (void)lower;
#endif
}

static void faults_children(void)
{
    ka_child c;
    ka_usage u;
    char line[16] = "";
    bool each;
    ALLOWED(ka_process_usage(&u), "ka_process_usage", KA_EOS, KA_ELIMIT, KA_EPERM, KA_ENOTFOUND,
            KA_ENOSPC);
    descriptors_lower(true);
    ALLOWED(ka_descriptors_raise(&each), "ka_descriptors_raise", KA_EOS);
    descriptors_lower(false);
    int r = CHILD(&c, "wait");
    ALLOWED(r, "ka_child_start", KA_EOS, KA_ELIMIT, KA_ETHREAD, KA_EPERM);
    if (r < 0 && c.pid) CHECK(false, "a child that there isn't; %s", story());
    if (r == KA_OK) {
        r = ka_child_line(&c, line, sizeof line, PATIENCE_MS);
        ALLOWED(r, "ka_child_line", KA_EOS, KA_ELIMIT, KA_ENOTFOUND);
        if (r == KA_OK && strcmp(line, "ready") != 0)
            CHECK(false, "it said \"%s\"; %s", line, story());
        r = ka_child_end(&c, false, PATIENCE_MS);
        ALLOWED(r, "ka_child_end", KA_EPERM, KA_EOS);
        if (r >= 0 && r != 127 && r != (POLITE ? 143 : 137))
            CHECK(false, "it ended with %d; %s", r, story());
    }
    fault_exempt = true;
    if (c.pid && ka_child_end(&c, true, PATIENCE_MS) < 0)
        CHECK(false, "it can't be killed; %s", story());
#if !defined(_WIN32)
    if (waitpid(-1, NULL, WNOHANG) != -1) CHECK(false, "a child is left; %s", story());
#endif
    fault_exempt = false;
}

/* -- the walk -- */

/* X(name, before, after, most, most if all codes are asked for). most: of each name only the first
   calls count. Looking for a server's process takes thousands, all alike. */
#define SCENARIOS(X)                                                                              \
    X(small, NULL, NULL, INT_MAX, INT_MAX)                                                        \
    X(keyring, NULL, NULL, INT_MAX, INT_MAX)                                                      \
    X(server, NULL, NULL, INT_MAX, INT_MAX)                                                       \
    X(journal, journal_before, journal_remove, INT_MAX, INT_MAX)                                  \
    X(salvage, salvage_before, journal_remove, INT_MAX, INT_MAX)                                  \
    X(file_put, NULL, put_remove, INT_MAX, INT_MAX)                                               \
    X(log, NULL, log_remove, INT_MAX, INT_MAX)                                                    \
    X(grouped, NULL, journal_remove, 4, 4)                                                        \
    X(workers, NULL, NULL, INT_MAX, INT_MAX)                                                      \
    X(interrupt, NULL, NULL, 8, 12)                                                               \
    X(talk, NULL, NULL, INT_MAX, INT_MAX)                                                         \
    X(redis, NULL, NULL, INT_MAX, INT_MAX)                                                        \
    X(input, NULL, NULL, INT_MAX, INT_MAX)                                                        \
    X(stream, NULL, NULL, INT_MAX, INT_MAX)                                                       \
    X(abandon, NULL, NULL, INT_MAX, INT_MAX)                                                      \
    X(client, responder_start, responder_stop, INT_MAX, INT_MAX)                                  \
    X(children, NULL, NULL, 6, 12)                                                                \
    X(kill, NULL, NULL, 2, 4)

static const struct {
    const char *name;
    void (*run)(void), (*before)(void), (*after)(void);
    int most, most_of_all;
} scenarios[] = {
#define SCENARIO(name, ...) { #name, faults_##name, __VA_ARGS__ },
    SCENARIOS(SCENARIO)
};

/* KA_FAULTS in the environment. FEW is for where a call takes long: under Wine. */
typedef enum { FEW, SOME, ALL } faults_wish;

static faults_wish faults_wished(void)
{
    const char *wish = getenv("KA_FAULTS");
    if (wish && strcmp(wish, "few") == 0) return FEW;
    return wish && strcmp(wish, "all") == 0 ? ALL : SOME;
}

/* One run, whose n-th call fails in its v-th way. Returns the number of calls. */
static long faults_run(size_t which, int kind, long n, int v, faults_wish wish)
{
    snprintf(fault_story, sizeof fault_story, "%s, from call %ld on, %s, code %d",
             scenarios[which].name, n, fault_kinds[kind].name, v);
    fault_exempt = true;
    holdings before = held();
    fault_exempt = false;
    atomic_store(&fault_kind, kind);
    atomic_store(&fault_from, n);
    atomic_store(&fault_variant, v);
    atomic_store(&fault_seen, 0);
    atomic_store(&fault_failed, 0);
    atomic_store(&fault_first, -1);
    int most = wish == ALL ? scenarios[which].most_of_all : scenarios[which].most;
    atomic_store(&fault_most, wish == FEW && most > 2 ? 2 : most);
    for (int i = 0; i < FAULT_CALLS_N; i++) atomic_store(&fault_counts[i], 0);
    atomic_store(&fault_deadline, ka_now_ms() + PATIENCE_MS);
    atomic_store(&fault_armed, true);
    scenarios[which].run();
    atomic_store(&fault_armed, false);
    held_again(before);
    return atomic_load(&fault_seen);
}

/* n = 1, 2, ... until the run has fewer calls. ALL: each code of each call. Else another code each
   time, but for a scenario of which few calls count; and larger and larger steps where several
   calls fail. FEW: of each name only the first two calls count. */
static void faults_walk(size_t which, int kind, faults_wish wish)
{
    long calls = LONG_MAX;
    int runs = 0, broken = failed;
    int64_t start = ka_now_ms(), slowest = 0;
    const bool each = wish == ALL || (wish == SOME && kind == 0 && scenarios[which].most < INT_MAX);
    for (long n = 1, last = 0; last <= calls && failed < broken + 5; ) {
        for (int v = each ? 0 : (int)n + kind, end = v + 1; v < end; v++) {
            int64_t begun = ka_now_ms();
            calls = faults_run(which, kind, n, v, wish);
            if (each && atomic_load(&fault_first) >= 0)
                end = fault_codes(atomic_load(&fault_first));
            if (ka_now_ms() - begun > slowest) slowest = ka_now_ms() - begun;
            runs++;
        }
        last = n;
        n += kind && wish != ALL ? 1 + n / 8 : 1;
    }
    CHECK(failed == broken, "%s, %s", scenarios[which].name, fault_kinds[kind].name);
    printf("  %-14s %-22s %4d runs, %5ld calls, %5d ms, %4d ms the slowest\n",
           scenarios[which].name, fault_kinds[kind].name, runs, calls, (int)(ka_now_ms() - start),
           (int)slowest);
    fflush(stdout);
}

static void test_scenario(size_t which)
{
    ka__thread watch;
    if (scenarios[which].run == faults_children && cannot_restart()) return;
    atomic_store(&fault_over, false);
    atomic_store(&fault_deadline, INT64_MAX);
    if (ka__thread_start(&watch, fault_watch, NULL) != KA_OK) abort();
    if (scenarios[which].before) scenarios[which].before();
    for (int kind = 0; kind < (int)COUNT(fault_kinds); kind++)
        faults_walk(which, kind, faults_wished());
    if (scenarios[which].after) scenarios[which].after();
    atomic_store(&fault_over, true);
    ka__thread_join(&watch);
}

enum {
#define SCENARIO_PLACE(name, ...) AT_##name,
    SCENARIOS(SCENARIO_PLACE)
};
#define SCENARIO_TEST(name, ...) static void test_faults_##name(void) { test_scenario(AT_##name); }
SCENARIOS(SCENARIO_TEST)

static const subject faults_run_topics[] = {
#define SCENARIO_TOPIC(name, ...) { "faults " #name, test_faults_##name },
    SCENARIOS(SCENARIO_TOPIC)
};
