/* fuzz/script.h - the targets server and messages: scripts.

   The first byte chooses how the server is set up and how it ends. Each further byte is something
   that happens. Nearly all of it is about a connection, counted back from the one that was opened
   last. Then all threads have their turn, unless a bit says no. */

/* Handle all events that there are. */
static void parent_round(void)
{
    ka_event ev;
    int r;
    if (at.stopped) return;
    while ((r = wait_for(&ev)) == KA_OK) {
        question q = { .ev = ev };
        moved++;
        if (ev.kind != KA_REQUEST) {
            message_event(&ev);
            continue;
        }
        event_check(&ev);
        q.status = auth_answer(at.server, &at.keys.store, &ev, q.text, &q.n);
        CHECK(q.n <= KA_MAX_ID && q.status >= 200 && q.status <= 599, "%d with %d bytes", q.status,
              (int)q.n);
        if (at.defer && at.asked_n < QUESTIONS) at.asked[at.asked_n++] = q;
        else answer(&q);
    }
    CHECK(r == KA_ETIME || (r == KA_ESTOPPED && at.stopping), "ka_wait: %d", r);
    CHECK(r == KA_ESTOPPED || timer_first() > clock_ms, "a timer does not come");
    at.stopped = r == KA_ESTOPPED;
}

/* A turn for everybody. */
static void turn(void)
{
    for (int i = 0; i < at.server->workers_n; i++) worker_round(at.server->workers[i]);
    if (at.late > 0) at.late--;
    else parent_round();
}

/* Until nothing moves any more; which must come. */
static void settle(void)
{
    at.late = 0;
    for (int rounds = 0, still = 0; still < 2; rounds++) {
        uint64_t before = moved;
        turn();
        still = moved == before ? still + 1 : 0;
        CHECK(rounds < 20000, "never at rest");
    }
    for (int i = 0; i < at.server->workers_n && !at.stopped; i++) {
        ka__worker *w = at.server->workers[i];
        epoll_ready = 0;
        worker_round(w);
        CHECK(epoll_ready == 0, "%d sockets are ready, and nothing is done about them",
              epoll_ready);
        CHECK(ka__patience(w) != 0, "does not sleep");
    }
    for (int i = 0; i < peers_n; i++) {      /* all was read, and all that is whole was delivered */
        peer *p = &peers[i];
        ka__http h;
        char body[KA_MAX_BODY];
        size_t n, end;
        if (p->closed || !p->known || p->bare || failed() || p->window == 0) continue;
        if (at.stopping && p->port == 0)
            CHECK(!p->opened || p->told || p->hung_up,
                  "stopping, and whoever streams doesn't know");
        if (p->port == 0 && p->opened && p->framing == LINES && !at.stopping) delivered_check(p);
        if (p->over) continue;
        if (at.stopping)
            CHECK(!p->opened || p->told || p->hung_up || p->refused ||
                      (p->port >= OUT && callers_left()),
                  "stopping, and the parent doesn't know");
        if (at.stopping) continue;           /* an answer may have said that it is the last one */
        if (p->port != 0) {
            if (p->knock == CONNECTED) delivered_check(p);
            continue;
        }
        const ka__conn *c = ka__conn_find(at.server->workers[p->conn >> 56], p->conn);
        if (at.slept && c && c->last) continue;      /* the parent owed it an answer for too long */
        bool full = false;      /* the parent owes it answers: then it may not be read */
        for (uint32_t k = 0; k < p->seq; k++) full = full || !p->answers[k].given;
        CHECK(full || p->received == p->to_server.n, "%d bytes were never read",
              (int)(p->to_server.n - p->received));
        CHECK(next_request(p, &h, body, &n, &end) == KA_EAGAIN, "a request was not delivered");
    }
}

static void answer_all(void)
{
    at.defer = false;
    for (int i = 0; i < at.asked_n; i++) answer(&at.asked[i]);
    at.asked_n = 0;
}

static size_t connections(void)
{
    ka_stats stats;
    ka_server_stats(at.server, &stats);
    return stats.connections;
}

static void send_bytes(peer *p, const char *text, size_t n)
{
    if (p->fin || p->reset || p->closed ||
        p->to_server.n + n > (p->cut < 40 ? p->cut * 1000 : 40000))
        return;
    append(&p->to_server, text, n);
}

UNGUIDED_END

/* What happens in both targets alike: bytes of the input's own, a peer's end and window, failures,
   the stop. */
static void happen_alike(unsigned op, input *in, peer *p)
{
    size_t n;
    switch (op & 15) {
    case 1:
        n = next_byte(in);
        if (n > in->n) n = in->n;
        at.last.n = 0;
        append(&at.last, in->p, n);
        if (p) send_bytes(p, in->p, n);
        in->p += n;
        in->n -= n;
        break;
    case 7:
        if (p) p->fin = true;
        break;
    case 9:
        n = next_byte(in);
        if (!p) break;
        p->slow = true;
        if (n == 255) p->window = SIZE_MAX;
        else p->window = p->window == SIZE_MAX ? n * 16 : p->window + n * 16;
        break;
    case 11:
        n = next_byte(in);
        *(n & 32 ? &watch_fails_in : &blocks_fail_in) = (long)n % 32;
        break;
    case 14:
        if (at.stopping) break;
        ka_stop(at.server);
        at.stopping = true;
        break;
    }
}

static const char *const requests[] = {
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 94\r\n\r\nlogin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "A / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 9\r\n\r\nask_key=y",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "4;a\r\nask_\r\n5\r\nkey=z\r\n0\r\nX: y\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "ask_key=x",
    "\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET / HTTP/2.0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 301\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
};

/* Something happens. */
static void happen(input *in)
{
    static const int sleeps[] = { 1, 99, 100, 200, 999, 1000, 3000, 6000 };
    unsigned op = next_byte(in), who = op >> 4 & 3;
    peer *p = peers_n > (int)who ? &peers[peers_n - 1 - (int)who] : NULL;
    size_t n;
    happen_alike(op, in, p);
    switch (op & 15) {
    case 0:
        if (peers_n == PEERS) return;
        p = sim_peer(0);
        if (who) p->cut = who * who * who;
        break;
    case 2:
        n = next_byte(in) % (sizeof requests / sizeof *requests);
        at.last.n = 0;
        append_text(&at.last, requests[n]);
        if (p) send_bytes(p, requests[n], strlen(requests[n]));
        break;
    case 3:
        for (n = next_byte(in); p && n > 0; n--) send_bytes(p, at.last.p, at.last.n);
        break;
    case 4:
        at.defer = !at.defer;
        break;
    case 5:
        if (at.asked_n == 0) break;
        n = next_byte(in) % (unsigned)at.asked_n;
        answer(&at.asked[n]);
        if (who == 3) break;           /* it stays: it will be answered twice */
        at.asked[n] = at.asked[--at.asked_n];
        break;
    case 6:
        answer_all();
        break;
    case 8:
        if (p && !p->fin) p->reset = true;
        break;
    case 10:
        clock_ms += sleeps[next_byte(in) % 8];
        at.slept = true;
        break;
    case 12:
        n = next_byte(in);
        fd_limit = n == 255 ? SIM_FDS : 6 + (int)n % 16;
        break;
    case 13:
        at.big = next_byte(in);
        break;
    case 15:
        n = who & 1 ? next_byte(in) : 0;
        if (who == 0) settle();
        else if (who == 3) at.late = (unsigned)n % 64;
        else if (peers_n > 0 && (p = &peers[peers_n - 1])->opened && !at.stopped)
            who == 1 ? say_bytes(p, n * 30) : hang_up(p);      /* it streams */
    }
    if (!(op & 128)) turn();
}

/* The next text to be sent: a line, an object, a frame, a value, or a part of one. */
static const char *const message_canned[] = {
    "{}", "{\"a\": {\"b\": \"}{\"}}", "{'a': '\\'}', \"b\": '\"'}", "  \r\n\t{}{} {", "}", "{\"a\": \"\\", "\"}", "{\"", "\n", "[]",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n", " ", "{{{{{{{{", "}}}}}}}}", "{'\\\n'}", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x",
};
static const char *const line_ends[] = { "\n", "\r\n", "\r", "" }, *const line_canned[] = {
    "\r\n", "\r", "a\n", "a\r\nb\n\n\r\n", "\ra\r\r\n", "\n\n \n", "{}\n", "a"
};
static const char *const resp_canned[] = {
    "+OK\r\n", ":-12\r\n", "$-1\r\n*-1\r\n", "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n",
    "$5\r\nhello\r\n", "*2\r\n*1\r\n-E\r\n*0\r\n", "$300\r\n", "*9\r\n", "+", "\r\n", "*x\r\n"
};
static const unsigned lengths[] = {
    0, 1, 2, 4, 47, 296, KA_MAX_BODY - 1, KA_MAX_BODY, KA_MAX_BODY + 1, 513, 0x7b7d7b7d, 0xffffffff
};

static void happen_text(input *in)
{
    char frame[4 + 2 * KA_MAX_BODY];
    size_t n, k;
    n = next_byte(in);
    at.last.n = 0;
    if (n >= 240) {                /* a line */
        memset(frame, 'l', sizeof frame);
        append(&at.last, frame, lengths[6 + (n & 3)]);
        append_text(&at.last, line_ends[n >> 2 & 3]);
    } else if (n >= 56 && n < 64) append_text(&at.last, line_canned[n - 56]);
    else if (n < 64)
        append_text(&at.last, message_canned[n % (sizeof message_canned / sizeof *message_canned)]);
    else if (n < 192) {            /* a frame, or the half of one */
        k = lengths[n / 2 % (sizeof lengths / sizeof *lengths)];
        for (int i = 0; i < 4; i++) frame[i] = (char)(k >> (24 - 8 * i));
        memset(frame + 4, 'f', sizeof frame - 4);
        append(&at.last, frame, k < sizeof frame - 4 ? 4 + k / (1 + n % 2) : 4 + n % 2);
    } else if (n >= 232) {         /* a value, or a string's half */
        k = next_byte(in);
        if (k < 128)
            append_text(&at.last, resp_canned[k % (sizeof resp_canned / sizeof *resp_canned)]);
        else {
            size_t head = (size_t)snprintf(frame, sizeof frame, "$%u\r\n", lengths[k % 10]);
            memset(frame + head, 's', sizeof frame - head);
            append(&at.last, frame, head + lengths[k % 10] / (1 + (k >> 5 & 1)));
            append_text(&at.last, "\r\n");
        }
    } else {                       /* an object of so many bytes */
        k = lengths[n % 10];
        memset(frame, 'o', sizeof frame);
        memcpy(frame, "{\"", 2);
        if (k > 4) memcpy(frame + k - 2, "\"}", 2);
        append(&at.last, frame, k);
    }
}

/* What happens seldom: many timers, who was knocked at opens, another policy, and what is said to
   nobody. */
static void happen_rare(input *in, unsigned who, peer *p)
{
    static const int64_t times[] = { 0,   1,   -1,   2,    5,    50,    99,        100,
                                     200, 999, 1000, 3000, 6000, -1000, INT64_MIN, NEVER - 1 };
    static const int timers[] = { 1, 2, 3, 7, 40, KA_BATCH / 2 - 1, KA_BATCH / 2 + 1, 300 };
    size_t n = next_byte(in);
    switch (who) {
    case 0:
        for (int i = 0; n >= 128 && !at.stopped && i < timers[n >> 4 & 7]; i++)
            timer_set(n % 16 < 14 ? clock_ms + times[n % 16] * (1 + i % 3) : times[n % 16]);
        settle();
        break;
    case 1:                        /* who was knocked at opens */
        for (int i = 0; i < peers_n; i++)
            if (peers[i].knock == KNOCKING && peers[i].accepted && !peers[i].closed && n-- == 0)
                peers[i].knock = CONNECTED;
        break;
    case 2:
        at.policy = (unsigned)n;
        break;
    default:
        if (n < 64) {
            at.late = (unsigned)n;
            at.slept = at.slept || n > 8;
        } else if (p && p->known && !at.stopped) {      /* to whom never was */
            /* volatile: else gcc 12 would warn of what ka_send refuses. */
            static volatile uint64_t no_worker = (uint64_t)255 << 56;
            uint64_t never = p->conn ^ 0x80000000, nobody = p->conn | no_worker,
                     nowhere = p->conn | (uint64_t)0xfff << 40;
            CHECK(ka_send(at.server, never, "x", 1) == KA_OK &&
                      ka_send(at.server, nobody, "x", 1) == KA_EINVAL &&
                      ka_reframe(at.server, nowhere, &ka_objects) == KA_OK,
                  "to nobody");
            ka_close(at.server, n & 1 ? never : nowhere);
            ka_close(at.server, nobody);
            if (p->port == 0) {      /* and to who speaks HTTP */
                CHECK(ka_send(at.server, p->conn, "x", 1) == KA_OK &&
                          ka_reframe(at.server, p->conn, &ka_objects) == KA_OK,
                      "to HTTP");
                ka_close(at.server, p->conn);
            }
        }
    }
}

/* Something happens where messages are sent. */
static void happen_message(input *in)
{
    static const int sleeps[] = { 1, 99, 200, 999, 1000, 3000, 6000, KA_ATTEMPT_MS };
    unsigned op = next_byte(in), who = op >> 4 & 3;
    peer *p = peers_n > (int)who ? &peers[peers_n - 1 - (int)who] : NULL;
    /* Has the parent its number? */
    bool has = p && p->opened && p->port != 0 && p->known && !at.stopped;
    size_t n;
    happen_alike(op, in, p);
    switch (op & 15) {
    case 0:
        if (peers_n == PEERS) return;
        n = next_byte(in);
        p = sim_peer(n >= 232 ? framing_of(n) : (int)n % 3);
        p->framings[p->framings_n++] = (char)(p->framing = p->port);
        if (who) p->cut = who * who * who;
        break;
    case 2:
        happen_text(in);
        if (p) send_bytes(p, at.last.p, at.last.n);
        break;
    case 3:
        for (n = next_byte(in) * (who == 3 ? 30u : 1u); p && n > 0; n--)
            send_bytes(p, at.last.p, at.last.n);
        break;
    case 4:
        n = next_byte(in);
        if (has) say_bytes(p, n < 200 ? n : n < 255 ? (n - 199) * 1180 : KA_MAILBOX / 4 + 1);
        break;
    case 5:
        if (has) hang_up(p);
        break;
    case 6:
        n = next_byte(in);
        if (has) reframe(p, framing_of(n));
        break;
    case 8:
        if (!p || p->fin || p->closed) break;
        if (p->knock) p->knock = REFUSED;
        else p->reset = true;
        break;
    case 10:
        clock_ms += sleeps[next_byte(in) % 8];
        at.slept = true;
        break;
    case 12:
        n = next_byte(in);
        fd_limit = n == 255 ? SIM_FDS : 8 + (int)n % 16;
        at.limited = true;
        break;
    case 13:
        n = next_byte(in);
        if (!at.stopped) connect_to(framing_of(n), (int)(n >> 1 & 3));
        break;
    case 15:
        happen_rare(in, who, p);
    }
    if (!(op & 128)) turn();
}

UNGUIDED_BEGIN

static void serve_begin(unsigned setup, bool messages)
{
    ka_event ev;
    sim_begin();
    memset(&at, 0, sizeof at);
    if (ka_keyring_init(&at.keys, 6, 5) < 0 ||
        ka_server_start(&at.server, 1 + (int)(setup & 1)) < 0)
        abort();
    for (int i = 0; i < at.server->workers_n; i++) {      /* rings whose end is near */
        ka__box *box[2] = { &at.server->workers[i]->up, &at.server->workers[i]->down };
        for (int k = 0; k < 2; k++) {
            box[k]->write = box[k]->tail_seen = box[k]->read = box[k]->head_seen =
                KA_MAILBOX - 16 * (size_t)(1 + (setup >> 4) * (setup >> 4));
            atomic_store(&box[k]->head, box[k]->write);
            atomic_store(&box[k]->tail, box[k]->write);
        }
    }
    ka_timers_init(&at.source, at.server);
    for (int framing = HTTP; framing <= (messages ? VALUES : HTTP); framing++)
        CHECK(ka_listen_as(at.server, framings[framing], "127.0.0.1", framing) == framing,
              "ka_listen_as");
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < at.server->workers_n; k++) {
            worker_round(at.server->workers[k]);
            while (ka_wait(at.server, &ev, 0) == KA_OK)
                CHECK(ev.kind == KA_LISTENING && ev.error == 0 && ev.port == 1, "%d with %d",
                      ev.kind, ev.error);
        }
    peer *first = sim_peer(messages ? 1 + (int)(setup >> 3 & 1) : 0);
    first->framings[first->framings_n++] = (char)(first->framing = first->port);
}

/* Stop, within the time that it may take. */
static void serve_stop(void)
{
    int64_t from = clock_ms;
    if (!at.stopping) ka_stop(at.server);
    at.stopping = true;
    while (!at.stopped) {
        settle();
        if (at.stopped) break;
        CHECK(connections() > 0, "stopping without a connection takes time");
        CHECK(clock_ms - from <= KA_DRAIN_MS, "does not stop");
        at.slept = true;
        clock_ms += 400;
    }
    CHECK(connections() == 0, "%d connections are left", (int)connections());
}

/* How it ends: 0, they go; 1, they read all; 2, time ends them all; 3, it is freed as it is. */
static void serve_end(int how)
{
    if (how != 3) {
        turn();
        answer_all();
        turn();
    }
    if (how == 0 || how == 1) {
        for (int i = 0; i < peers_n; i++) peers[i].window = SIZE_MAX;
        settle();
        clock_ms += KA__ACCEPT_AGAIN_MS;
        settle();
        if (how == 0) {      /* they go */
            for (int i = 0; i < peers_n; i++) {
                peers[i].fin = true;
                if (peers[i].knock == KNOCKING && !peers[i].closed) peers[i].knock = CONNECTED;
            }
            settle();
            CHECK(connections() == 0, "%d connections are left", (int)connections());
        }
    }
    if (how == 2) {          /* they neither go nor speak: time ends them all */
        at.slept = true;
        for (int i = 0; i < 16; i++) {
            clock_ms += 1000;
            settle();
        }
        size_t stay = 0;     /* idle, and not HTTP */
        for (int i = 0; i < peers_n; i++) stay += peers[i].opened && !peers[i].told;
        CHECK(connections() == stay, "%d connections wait for ever", (int)connections());
    }
    if (how != 3) serve_stop();
    else at.freeing = true;
}

static void serve(const char *text, size_t size, bool messages)
{
    input in = { text, size };
    unsigned setup = next_byte(&in);
    serve_begin(setup, messages);
    while (in.n > 0) (messages ? happen_message : happen)(&in);

    blocks_fail_in = watch_fails_in = -1;
    fd_limit = SIM_FDS;
    at.big = at.policy = 0;
    serve_end(setup >> 1 & 3);
    ka_server_free(at.server);
    ka_timers_free(&at.source);
    at.server = NULL;
    ka_keyring_free(&at.keys);
    for (int i = 0; i < peers_n; i++) (peers[i].port ? said_check : answers_check)(&peers[i]);
    release(&at.last);
    sim_end();
}

static void target_server(const char *text, size_t size) { serve(text, size, false); }
static void target_messages(const char *text, size_t size) { serve(text, size, true); }
