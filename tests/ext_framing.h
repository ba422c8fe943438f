/* tests/ext_framing.h - ext/framing.h, and framings of one's own. */

static const dialogue talks[] = {
    GIVES("", "bye;", "nothing"),
    GIVES("{}", "{};bye;", "the shortest"),
    GIVES("{\"a\": 1}\n{\"b\": 2}\r\n\t {\"c\": 3}  \n", "{\"a\": 1};{\"b\": 2};{\"c\": 3};bye;",
          "white space between them"),
    GIVES("{\"a\":1}{\"b\":2}{}", "{\"a\":1};{\"b\":2};{};bye;", "nothing between them"),
    GIVES("{\"a\": {\"b\": {}, \"c\": [{}, {\"d\": 1}]}}{}",
          "{\"a\": {\"b\": {}, \"c\": [{}, {\"d\": 1}]}};{};bye;", "nested"),
    GIVES("{\"a\": \"}\"}{\"{\": \"{\\\"}\"}{}", "{\"a\": \"}\"};{\"{\": \"{\\\"}\"};{};bye;",
          "braces and quotes in strings"),
    GIVES("{'a': '}\"'}{\"a\": \"'}\"}{'\\'}': 1}", "{'a': '}\"'};{\"a\": \"'}\"};{'\\'}': 1};bye;",
          "both kinds of quotes"),
    GIVES("{\"a\": \"\\\\\"}{}", "{\"a\": \"\\\\\"};{};bye;", "a backslash at a string's end"),
    GIVES("{ not JSON }{}", "{ not JSON };{};bye;",
          "what is in the braces is for the parent to read"),
    GIVES("{}x{}", "{};400;", "no object: the last message"),
    GIVES("[{}]", "400;", "an array"),
    GIVES("}", "400;", "a closing brace"),
    GIVES("{\"a\": \"\n\"}{}", "400;", "a string that goes over the line's end"),
    GIVES("{}{\"a", "{};400;", "an unfinished one, and the end"),
    GIVES("{}{\"close\": 1}{}", "{};{\"close\": 1};", "closed by the parent"),
};

/* All that opened is closed, once. */
static void all_closed(fixture *f, int opened)
{
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         atomic_load(&f->closed) < opened && ka_now_ms() < until;)
        ka_sleep_ms(1);
    CHECK(atomic_load(&f->opened) == opened && atomic_load(&f->closed) == opened,
          "%d opened and %d closed, of %d", atomic_load(&f->opened), atomic_load(&f->closed),
          opened);
}

static void test_messages(void)
{
    fixture f;
    if (!fixture_start(&f, TALK, 2)) return;
    all_closed(&f, dialogues_run(&f, talks, COUNT(talks)));
    fixture_stop(&f);
}

/* Read until so many bytes have come; are the last of them these? */
static bool wire_ends(wire *w, size_t n, const char *end, size_t end_n)
{
    while (w->n < n && wire_more(w) > 0) {}
    return w->n == n && memcmp(w->buf + n - end_n, end, end_n) == 0;
}

static void test_frames(void)
{
    static const dialogue rows[] = {
        GIVES("\0\0\0\0", ";bye;", "an empty one"),
        GIVES("\0\0\0\3abc\0\0\0\1{", "abc;{;bye;", "two"),
        CLOSES("\0\0\5\335x", "413;", "longer than KA_MAX_BODY"),
        CLOSES("\377\377\377\377", "413;", "as long as can be"),
        GIVES("\0\0\0\3ab", "400;", "an unfinished one, and the end"),
    };
    fixture f;
    if (!fixture_start(&f, FRAMES, 1)) return;
    all_closed(&f, dialogues_run(&f, rows, COUNT(rows)));
    fixture_stop(&f);
}

static const dialogue cut_lines[] = {
    GIVES("", "bye;", "nothing"),
    GIVES("a\n", "a;bye;", "one"),
    GIVES("\n\n", ";;bye;", "empty ones"),
    GIVES("\r\n\r\n", ";;bye;", "empty ones that end in CR LF"),
    GIVES("a\r\nb\nc\r\n", "a;b;c;bye;", "both ends"),
    GIVES("\ra\rb\n", "\ra\rb;bye;", "a lone CR is in the line"),
    GIVES("a\r\r\n", "a\r;bye;", "only the last CR belongs to the end"),
    GIVES("\0a\0\n\0\n", "\0a\0;\0;bye;", "NULs"),
    GIVES(" a \n\t\n", " a ;\t;bye;", "white space stays"),
    GIVES("\xff{\"\n", "\xff{\";bye;", "any bytes"),
    GIVES("a", "400;", "an unfinished one, and the end"),
    GIVES("\r", "400;", "a CR, and the end"),
    GIVES("a\nb\r", "a;400;", "an unfinished one behind another"),
    GIVES("{\"close\": 1}\nb\n", "{\"close\": 1};", "closed by the parent"),
};

static void test_lines(void)
{
    fixture f;
    if (!fixture_start(&f, LINES, 2)) return;
    all_closed(&f, dialogues_run(&f, cut_lines, COUNT(cut_lines)));
    fixture_stop(&f);
}

/* KA_MAX_BODY and its neighbours. */
static void test_lines_long(void)
{
    enum { M = KA_MAX_BODY };
    static const struct { size_t n; const char *then; int status; const char *why; } rows[] = {
        { M - 1, "\n", 0, "one less" }, { M, "\n", 0, "as long as can be" },
        { M, "\r\n", 0, "and its CR" }, { M - 1, "\r\r\n", 0, "and one that is its own" },
        { M, "\r", 400, "and its CR, and the end" }, { M, "", 400, "unfinished, and the end" },
        { M + 1, "\n", 413, "one over" }, { M + 1, "\r\n", 413, "one over, and a CR" },
        { M, "\r\r\n", 413, "one CR over" }, { M + 1, "", 413, "one over, and unfinished" },
        { M, "\rx", 413, "a CR, and something" }, { 3 * M, "\n", 413, "far over" },
    };
    static char in[3 * M + 8], want[M + 8];
    fixture f;
    if (!fixture_start(&f, LINES, 1)) return;
    int runs = 0;
    for (size_t row = 0; row < COUNT(rows); row++) {
        size_t n = rows[row].n, then = strlen(rows[row].then),
               end = then > 1 && rows[row].then[then - 2] == '\r' ? 2 : 1, want_n;
        memset(in, 'x', sizeof in);
        memcpy(in, "a\n", 2);
        memcpy(in + 2 + n, rows[row].then, then);
        if (rows[row].status)
            want_n = (size_t)snprintf(want, sizeof want, "a;%d;", rows[row].status);
        else {
            memcpy(want, "a;", 2);
            memcpy(want + 2, in + 2, n + then - end);
            memcpy(want + 2 + n + then - end, ";bye;", 5);
            want_n = 2 + n + then - end + 5;
        }
        dialogue e = { { in, 2 + n + then }, { want, want_n }, rows[row].why, false };
        dialogue_run(&f, e, e.in.n, e.in.n);
        dialogue_run(&f, e, 7, 7);
        for (size_t split = 1 + n; split < e.in.n; split++, runs++)
            dialogue_run(&f, e, split, e.in.n);
        runs += 2;
    }
    all_closed(&f, runs);
    static wire slow;
    wire_open(&slow, atomic_load(&f.port));
    wire_text(&slow, "a line\nand a half");
    CHECK(wire_ends(&slow, HELLO + 7 + 4, "a line;408;", 11) && wire_more(&slow) == 0,
          "an unfinished one is 408, and closed");
    wire_close(&slow);
    all_closed(&f, runs + 1);
    fixture_stop(&f);
}

/* The shortest lines behind the longest one, at a parent that sleeps: there is room for all that is
   read at once. */
static void test_lines_flood(void)
{
    enum { WIRES = 6, EACH = 60000 };
    static wire w[WIRES];
    static char many[EACH];
    fixture f;
    memset(many, '\n', sizeof many);
    if (!fixture_start(&f, LINES, 1)) return;
    for (int i = 0; i < WIRES; i++) wire_open(&w[i], atomic_load(&f.port));
    wire_text(&w[0], "{\"late\": 1}\n");
    for (int i = 1; i < WIRES; i++)
        for (int k = 0; k < KA_MAX_BODY; k++) many[k] = 'x';
    for (int i = 1; i < WIRES; i++) wire_send(&w[i], many, KA_MAX_BODY);
    ka_sleep_ms(20);
    memset(many, '\n', sizeof many);
    for (int i = 1; i < WIRES; i++) wire_send(&w[i], many, sizeof many);
    for (int i = 0; i < WIRES; i++) ka__sock_end(w[i].sock);
    for (int i = 0; i < WIRES; i++) {
        size_t n = 0;
        while (w[i].n = 0, wire_more(&w[i]) > 0) n += w[i].n;
        CHECK(n == HELLO + 4 + (i ? KA_MAX_BODY + EACH : 12), "each is answered: %d bytes", (int)n);
        wire_close(&w[i]);
    }
    all_closed(&f, WIRES);
    fixture_stop(&f);
    static ka__worker worker;
    if (!CHECK(ka__box_init(&worker.up, KA_MAILBOX) == KA_OK, "a box")) return;
    /* Wherever the ring's end is. */
    for (size_t left = 16; left <= KA_MAX_BODY + 64; left += 16) {
        ka__box *up = &worker.up;
        size_t needs = 2 * ka__record_size(sizeof(ka__parts) + KA_MAX_BODY) + KA__MUST_BYTES;
        up->write = 2 * KA_MAILBOX - left;
        up->tail_seen = up->write + needs - KA_MAILBOX;
        atomic_store(&up->tail, up->tail_seen);
        bool fits = ka__room(&worker, KA_MAX_BODY) && !ka__room(&worker, KA_MAX_BODY + 16) &&
                    ka__box_put(up, KA_MESSAGE, sizeof(ka__parts) + KA_MAX_BODY);
        for (int k = 0; k < KA_MAX_LISTENERS + 4; k++)
            fits = fits && ka__box_put(up, KA_OPENED, sizeof(ka_end) + sizeof(uint64_t));
        if (!fits) CHECK(false, "%d bytes before the ring's end", (int)left);
    }
    ka__box_free(&worker.up);
}

/* Closes by a reset. */
static void wire_reset(wire *w)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };
    CHECK((setsockopt)(KA__FD(w->sock), SOL_SOCKET, SO_LINGER, (const char *)&now, sizeof now) == 0,
          "SO_LINGER");
    wire_close(w);
}

/* How a connection ends, and what KA_CLOSED says of it. A letter each: e: no more is sent, r:
   reset, c: closed, w: until the server ends it. */
static void test_closed(void)
{
    static const struct { const char *says, *does; int error; const char *why; } rows[] = {
        { "", "c", 0, "its peer closes" },
        { "a\n", "ewc", 0, "its peer sends no more" },
        { "", "r", KA_EOFFLINE, "its peer resets it" },
        { "a", "r", KA_EOFFLINE, "in a line" },
        { "a", "ewc", 0, "its peer sends no more, in a line" },
        { "{\"close\": 1}\n", "wc", 0, "we close, and the peer closes" },
        { "{\"close\": 1}\nmore", "wewc", 0, "we close, and the peer ends it" },
        { "{\"close\": 1}\n", "wr", KA_EOFFLINE, "we close, and the peer resets" },
        { "{\"close\": 1}\n", "w", KA_EOFFLINE, "we close, and the peer doesn't" },
        { "a", "wc", 0, "too slow, and the peer closes" },
        { "{\"objects\": 1}\n{", "w", KA_EOFFLINE, "reframed in a message" },
    };
    static wire w;
    static char big[KA_MAX_BODY + 1];
    fixture f;
    int closed = 0;
    if (!fixture_start(&f, LINES, 1)) return;
    for (size_t row = 0; row < COUNT(rows); row++) {
        if (!wire_open(&w, atomic_load(&f.port)) || !CHECK(wire_ends(&w, HELLO, ";", 1), "hello"))
            continue;
        wire_text(&w, rows[row].says);
        bool open = true;
        for (const char *p = rows[row].does; *p; p++) {
            if (*p == 'w') while (wire_more(&w) > 0) {}
            else if (*p == 'e') ka__sock_end(w.sock);
            else {
                *p == 'r' ? wire_reset(&w) : wire_close(&w);
                open = false;
            }
        }
        all_closed(&f, ++closed);
        if (on_wine() && strchr(rows[row].does, 'r'))
            skip(rows[row].why, "Wine takes it for an end");
        else
            CHECK(atomic_load(&f.why) == rows[row].error, "%s: %d", rows[row].why,
                  atomic_load(&f.why));
        if (open) wire_close(&w);
    }
    memset(big, 'x', KA_MAX_BODY);
    big[KA_MAX_BODY] = '\n';
    wire_open(&w, atomic_load(&f.port));
    for (int64_t until = ka_now_ms() + PATIENCE_MS; atomic_load(&f.closed) == closed &&
                                                    ka_now_ms() < until &&
                                                    wire_send(&w, big, sizeof big);) {}
    all_closed(&f, ++closed);
    CHECK(atomic_load(&f.why) == KA_EOFFLINE, "its peer doesn't read: %d", atomic_load(&f.why));
    wire_close(&w);
    wire_open(&w, atomic_load(&f.port));
    CHECK(wire_ends(&w, HELLO, ";", 1), "hello");
    ka_stop(f.s);
    CHECK(wire_ends(&w, HELLO + 4, "bye;", 4) && wire_more(&w) == 0, "a last word");
    wire_close(&w);
    fixture_stop(&f);
    CHECK(atomic_load(&f.closed) == closed + 1 && atomic_load(&f.why) == 0, "ka_stop: %d",
          atomic_load(&f.why));
}

static void test_reframe(void)
{
    static wire w;
    fixture f;
    if (!fixture_start(&f, TALK, 1) || !wire_open(&w, atomic_load(&f.port))) return;
    wire_text(&w, "{\"frames\": 1}");
    CHECK(wire_ends(&w, HELLO + 14, "{\"frames\": 1};", 14), "the answer comes in the old framing");
    wire_send(&w, "\n", 1);      /* behind the object, in a segment of its own */
    ka_sleep_ms(20);
    wire_send(&w, " \r\0\0\0\2ab\0\0\0\2\n ", 14);
    CHECK(wire_ends(&w, HELLO + 20, "ab;\n ;", 6),
          "what follows in the new one, behind white space; a frame's own stays");
    wire_close(&w);
    all_closed(&f, 1);
    if (!wire_open(&w, atomic_load(&f.port))) return;
    wire_text(&w, "{\"frames\": 1}{\"a");
    CHECK(wire_ends(&w, HELLO, ";", 1) && wire_more(&w) <= 0,
          "something unfinished behind it: closed");
    wire_close(&w);
    all_closed(&f, 2);
    if (!wire_open(&w, atomic_load(&f.port))) return;
    wire_text(&w, "{\"lines\": 1}");
    CHECK(wire_ends(&w, HELLO + 13, ";", 1), "to lines");
    wire_text(&w, "\r\n {} \n{\"frames\": 1}\n");
    CHECK(wire_ends(&w, HELLO + 13 + 20, "; {} ;{\"frames\": 1};", 20),
          "what ended the object is a line; and to frames");
    wire_send(&w, "\0\0\0\2\nb\0\0\0\14{\"lines\": 1}", 22);
    CHECK(wire_ends(&w, HELLO + 33 + 16, "\nb;{\"lines\": 1};", 16), "and back");
    wire_text(&w, "{\"objects\": 1}\n");
    CHECK(wire_ends(&w, HELLO + 49 + 15, ";", 1), "and to objects");
    wire_text(&w, "\n{}\n");
    CHECK(wire_ends(&w, HELLO + 64 + 3, "{};", 3), "which have no lines");
    wire_close(&w);
    all_closed(&f, 3);
    fixture_stop(&f);
    ka_server *s;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    CHECK(ka_reframe(s, 0, NULL) == KA_EINVAL &&
              ka_reframe(s, (uint64_t)9 << 56, &ka_objects) == KA_EINVAL,
          "no such framing, no such worker");
    CHECK(ka_send(s, (uint64_t)9 << 56, "x", 1) == KA_EINVAL, "no such worker");
    CHECK(ka_send(s, 0, NULL, 0) == KA_OK, "no bytes are no error, nor undefined");
    ka_close(s, (uint64_t)9 << 56);
    ka_close(s, (uint64_t)1 << 32);      /* a connection that never was */
    ka_reframe(s, (uint64_t)1 << 32, &ka_objects);
    ka_send(s, (uint64_t)1 << 32, "x", 1);
    ka_server_free(s);
}

/* A parent that sleeps while many short messages come, and connections go: all of it is told in the
   end. */
static void test_messages_flood(void)
{
    enum { WIRES = 8, EACH = 30000 };
    static wire w[WIRES];
    static char many[2 * EACH];
    fixture f;
    for (int i = 0; i < EACH; i++) memcpy(many + 2 * i, "{}", 2);
    if (!fixture_start(&f, TALK, 2)) return;
    for (int i = 0; i < WIRES; i++) wire_open(&w[i], atomic_load(&f.port));
    wire_text(&w[0], "{\"late\": 1}");
    for (int i = 1; i < WIRES; i++) wire_send(&w[i], many, i % 2 ? 2000 : sizeof many);
    for (int i = 0; i < WIRES; i++)
        if (i % 2) wire_close(&w[i]);
        else ka__sock_end(w[i].sock);
    for (int i = 0; i < WIRES; i += 2) {
        size_t n = 0;
        while (w[i].n = 0, wire_more(&w[i]) > 0) n += w[i].n;
        CHECK(n == HELLO + 4 + (i ? 3 * EACH : 12), "each is answered: %d bytes", (int)n);
        wire_close(&w[i]);
    }
    all_closed(&f, WIRES);
    fixture_stop(&f);
}

/* What is not HTTP ends by its time-outs, its own faults, and ka_stop. */
static void test_messages_end(void)
{
    static wire slow, deaf, idle, late, parts;
    static char big[KA_MAX_BODY + 3];
    fixture f;
    if (!fixture_start(&f, TALK, 1)) return;
    wire_open(&slow, atomic_load(&f.port));
    wire_open(&deaf, atomic_load(&f.port));
    wire_open(&idle, atomic_load(&f.port));
    wire_open(&late, atomic_load(&f.port));
    wire_open(&parts, atomic_load(&f.port));
    wire_text(&slow, "{\"a\": ");
    wire_text(&parts, "{}{");
    memset(big, 'x', sizeof big);
    memcpy(big, "{\"", 2);
    wire_send(&late, big, sizeof big);
    CHECK(wire_ends(&late, HELLO + 4, "413;", 4) && wire_more(&late) == 0,
          "one over KA_MAX_BODY is 413, and closed");
    ka_sleep_ms(KA_REQUEST_MS / 2);
    wire_text(&parts, "}{");
    CHECK(wire_ends(&slow, HELLO + 4, "408;", 4) && wire_more(&slow) == 0,
          "an unfinished one is 408, and closed");
    wire_text(&parts, "}");
    CHECK(wire_ends(&parts, HELLO + 9, "{};{};{};", 9), "each has its own time to be finished");
    wire_close(&parts);
    wire_close(&late);
    wire_close(&slow);
    memcpy(big + KA_MAX_BODY - 2, "\"}", 2);
    int64_t until = ka_now_ms() + PATIENCE_MS;
    while (atomic_load(&f.closed) < 4 && ka_now_ms() < until)
        if (!wire_send(&deaf, big, KA_MAX_BODY)) break;
    CHECK(ka_now_ms() < until, "who doesn't read is closed");
    wire_close(&deaf);
    wire_text(&idle, "{");
    ka_sleep_ms(50);
    ka_stop(f.s);
    CHECK(wire_ends(&idle, HELLO + 4, "bye;", 4) && wire_more(&idle) == 0,
          "at the end there's a last word");
    wire_close(&idle);
    fixture_stop(&f);
    CHECK(atomic_load(&f.opened) == 5 && atomic_load(&f.closed) == 5, "all are told");
}

/* What one peer of `sends` gets: some lines, cut off where it was closed. */
static bool sends_arrive(ka__sock sock, int who, int rounds)
{
    static wire w;
    char line[64];
    size_t at = 0;
    w = (wire){ .sock = sock };
    while (wire_more(&w) > 0) {}
    for (int round = 0; round < rounds; round++, at += strlen(line)) {
        snprintf(line, sizeof line, "%d %d%.*s\n", who, round, round,
                 "..............................");
        if (strncmp(w.buf + at, line, strlen(line)) != 0) return false;
    }
    return at == w.n;
}

/* What is said to and fro to more connections than are gathered, and more than the mailbox holds,
   arrives in its order, and nothing after a close. Then nothing is kept, and a crowd's memory is
   given back. */
static void test_sends(void)
{
    enum { PEERS = KA__SENDERS + 8, ROUNDS = 30, CUT = 11 };
    static ka__sock peer[PEERS];
    static uint64_t conn[PEERS];
    ka_server *s;
    ka_event ev;
    ka_stats stats;
    char line[64];
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_listen_as(s, &ka_lines, "127.0.0.1", 0) == 0 &&
                   next_event(s, &ev, KA_LISTENING),
               "starts"))
        return;
    int port = ev.port;
    for (int i = 0; i < PEERS; i++) {
        wire w;
        if (!wire_open(&w, port)) return;
        peer[i] = w.sock;
        if (!next_event(s, &ev, KA_OPENED)) return;
        conn[i] = ev.conn;
    }
    ka_server_stats(s, &stats);
    CHECK(stats.connections == PEERS && stats.buffered == 0, "idle ones keep nothing: %d bytes",
          (int)stats.buffered);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < PEERS; i++) {
            int n = snprintf(line, sizeof line, "%d %d%.*s\n", i, round, round,
                             "..............................");
            if (i % CUT == 3 && round == ROUNDS / 2) ka_close(s, conn[i]);
            ka_send(s, conn[i], line, (size_t)n);
        }
    for (int i = 0; i < PEERS; i++)
        if (i % CUT != 3) ka_close(s, conn[i]);
    ka_wait(s, &ev, 0);
    for (int i = 0; i < PEERS; i++) {
        CHECK(sends_arrive(peer[i], i, i % CUT == 3 ? ROUNDS / 2 : ROUNDS),
              "peer %d got all in order", i);
        ka__sock_close(peer[i]);
    }
    for (int i = 0; i < PEERS; i++)
        if (!next_event(s, &ev, KA_CLOSED)) return;
    ka_wait(s, &ev, 100);
    ka_server_stats(s, &stats);
    CHECK(stats.connections == 0 && stats.buffered == 0,
          "nothing is kept: %d connections, %d bytes", (int)stats.connections, (int)stats.buffered);
    ka_server_free(s);
}

/* A server is stopped while a connection is held, since its messages filled the up box. The parent
   gets all messages that the worker has kept, and then the end. */
static void test_held_stop(void)
{
    enum {
        LINE = 100,
        MANY = 160,
        ALL = LINE * MANY,      /* nearly all that is read at once */
        QUIET_MS = 100
    };
    char lines[ALL + 1], want[LINE];
    ka_server *s;
    ka_event ev;
    ka_stats stats = { 0 };
    wire w;
    int port, r, sent = 0, got = 0, closed = 0;
    if (!parent_start(&s, 1, &ka_lines, &port)) return;
    if (!wire_open(&w, port)) {
        ka_server_free(s);
        return;
    }
    ptrdiff_t n = 0;
    for (int at = ALL, quiet = 0;
         stats.buffered < LINE && quiet<QUIET_MS; quiet = n> 0 ? 0 : quiet + 1) {
        for (int i = 0; at == ALL && i < MANY; i++)
            snprintf(lines + i * LINE, LINE + 1, "%0*d\n", LINE - 1, sent++);
        if (at == ALL) at = 0;
        n = ka__sock_send(w.sock, lines + at, (size_t)(ALL - at));
        if (n > 0) at += (int)n;
        ka_sleep_ms(1);      /* so that it has read this, and nothing waits in its socket */
        ka_server_stats(s, &stats);
    }
    CHECK(stats.buffered >= LINE || n == KA_EAGAIN, "it is held: %d bytes, %d", (int)stats.buffered,
          (int)n);
    ka_stop(s);
    while ((r = ka_wait(s, &ev, PATIENCE_MS)) == KA_OK) {
        closed += ev.kind == KA_CLOSED && !ev.error;
        if (ev.kind != KA_MESSAGE) continue;
        snprintf(want, sizeof want, "%0*d", LINE - 1, got++);
        if (!ka_is(ev.body, want))
            CHECK(false, "message %d is %.*s", got, (int)ev.body.n, ev.body.p);
    }
    CHECK(r == KA_ESTOPPED && closed == 1, "stopped: %d, closed %d times", r, closed);
    CHECK(got <= sent && (size_t)got * LINE > KA_MAILBOX / 4, "%d of %d messages", got, sent);
    wire_close(&w);
    ka_server_free(s);
}

/* A held connection whose peer reads nothing of what is sent to it: others are told of the stop all
   the same. */
static void test_held_unread(void)
{
    enum { QUIET_MS = 100, UNREAD = 1 << 20, PIECE = 32768 };
    static const char zeros[PIECE];
    static char mass[PIECE];
    static ka_framing lines;
    lines = ka_lines;
    lines.max_unsent = 64 << 20;
    static wire deaf, other;
    ka_server *s;
    ka_event ev = { 0 };
    ka_stats held, now;
    int port, r = KA_OK;
    bool told = false;
    deaf.n = other.n = 0;
    for (int i = 0; i < PIECE; i++) mass[i] = i % 2 ? '\n' : 'm';
    if (!parent_start(&s, 1, &lines, &port)) return;
    CHECK(wire_open(&deaf, port) && next_event(s, &ev, KA_OPENED), "one is there");
    uint64_t conn = ev.conn;
    CHECK(wire_open(&other, port) && next_event(s, &ev, KA_OPENED), "and another one");
    for (int at = 0; at < QUIET_MS; ) {      /* until nothing more is read */
        if (ka__sock_send(deaf.sock, mass, PIECE) > 0) at = 0;
        else at++, ka_sleep_ms(1);
    }
    ka_server_stats(s, &held);
    now = held;
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         now.buffered < held.buffered + UNREAD && ka_now_ms() < until; ka_server_stats(s, &now)) {
        ka_send(s, conn, zeros, PIECE);
        ka__publish_down(s->workers[0]);
    }
    CHECK(now.buffered >= held.buffered + UNREAD, "it reads nothing: %d bytes, then %d",
          (int)held.buffered, (int)now.buffered);
    while (ka_wait(s, &ev, QUIET_MS) == KA_OK)
        CHECK(ev.kind == KA_MESSAGE && ev.conn == conn, "its messages");
    ka_stop(s);
    while (!told && (r = ka_wait(s, &ev, PATIENCE_MS)) == KA_OK) {
        told = ev.kind == KA_CLOSED && ev.conn != conn;
        /* KA_STALL_MS may end the deaf one first. */
        CHECK(!told || !ev.error, "told of the stop, not of what became of it: %d", ev.error);
        if (told) CHECK(ka_send(s, ev.conn, "bye", 3) == KA_OK, "a last word");
    }
    if (told) r = ka_wait(s, &ev, 0);
    CHECK(wire_gets(&other, "bye"), "it hears it");
    wire_close(&deaf);
    while (r == KA_OK || r == KA_ETIME) r = ka_wait(s, &ev, PATIENCE_MS);
    CHECK(r == KA_ESTOPPED, "stopped: %d", r);
    wire_close(&other);
    ka_server_free(s);
}

/* An object that is too long is told by one error, in whatever pieces it comes. */
static void test_objects_long(void)
{
    static char text[KA_MAX_BODY + 300];
    static const size_t rows[] = { KA_MAX_BODY - 1, KA_MAX_BODY, KA_MAX_BODY + 1,
                                   KA_MAX_BODY + 250 };
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t n = rows[i];
        /* KA_ENOSPC: the line feed in a string is too far to be seen. */
        ptrdiff_t want = n > KA_MAX_BODY ? KA_ENOSPC : KA_ESYNTAX;
        memset(text, 'a', sizeof text);
        memcpy(text, "{\"", 2);
        text[n - 1] = '\n';
        for (size_t step = 1; step <= n; step += step < 100 ? 33 : 700) {
            ka_cut cut = { 0, 0, 0 };
            ka_str message = { NULL, 0 };
            ptrdiff_t got = KA_EAGAIN;
            for (size_t have = step; got == KA_EAGAIN; have += step)
                got = ka_objects.cut(&cut, text, have < n ? have : n, &message);
            CHECK(got == want, "%d bytes by %d: %d", (int)n, (int)step, (int)got);
        }
    }
}

/* A framing of one's own. */
static void test_netstrings(void)
{
    static const dialogue rows[] = {
        GIVES("5:hello,0:,2:\r\n,", "hello;;\r\n;bye;", "three"),
        CLOSES("1:a,x", "a;400;", "no length"),
        CLOSES("1:ab", "400;", "no comma"),
        CLOSES("99999:", "413;", "longer than KA_MAX_BODY"),
        GIVES("3:abc", "400;", "an unfinished one, and the end"),
    };
    fixture f;
    if (!fixture_start(&f, NETSTRINGS, 1)) return;
    all_closed(&f, dialogues_run(&f, rows, COUNT(rows)));
    fixture_stop(&f);
}

static const subject ext_framing_topics[] = {
    { "messages", test_messages }, { "frames", test_frames }, { "lines", test_lines },
    { "lines long", test_lines_long }, { "lines flood", test_lines_flood },
    { "closed", test_closed }, { "reframe", test_reframe },
    { "messages flood", test_messages_flood }, { "messages end", test_messages_end },
    { "sends", test_sends }, { "held stop", test_held_stop }, { "held unread", test_held_unread },
    { "objects long", test_objects_long }, { "netstrings", test_netstrings },
};
