/* tests/ext_input.h - ext/input.h. */

#define INPUT ".test-input"

/* Its thread has ended: another one can begin, with another input. */
static void input_over(void)
{
    int64_t until = ka_now_ms() + PATIENCE_MS;
    while (atomic_load(&ka__input.reading) && ka_now_ms() < until) ka_sleep_ms(1);
    if (atomic_load(&ka__input.reading)) CHECK(false, "the thread does not end");
    input_from(NULL);
}

/* All lines of a file, in brackets; returns what came behind them. */
static int input_read(const char *path, char *out, size_t *n)
{
    ka_server *s;
    ka_event ev = { .error = KA_EINVAL };
    input_from(path);
    *n = 0;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_input_start(s) == KA_OK, "begins"))
        return ev.error;
    while (next_event(s, &ev, KA_INPUT) && !ev.error) {
        out[(*n)++] = '[';
        memcpy(out + *n, ev.body.p, ev.body.n);
        *n += ev.body.n;
        out[(*n)++] = ']';
    }
    int end = ev.error;
    CHECK(ev.body.n == 0 && ka_wait(s, &ev, 5) == KA_ETIME, "its end is told once");
    ka_input_stop();
    ka_server_free(s);
    input_over();
    return end;
}

static void test_input(void)
{
    static const struct {
        const char *in;
        size_t in_n;
        const char *want;
        size_t want_n;
        const char *why;
    } rows[] = {
        { BYTES(""), BYTES(""), "nothing" },
        { BYTES("a\nb\n"), BYTES("[a][b]"), "lines" },
        { BYTES("a\nb"), BYTES("[a][b]"), "one without its end" },
        { BYTES("\n\n"), BYTES("[][]"), "empty ones" },
        { BYTES("a\r\n\r\n"), BYTES("[a][]"), "CR LF" },
        { BYTES("a\rb\n\r\r\n"), BYTES("[a\rb][\r]"), "CR in them" },
        { BYTES("a\r"), BYTES("[a]"), "an end that is cut off" },
        { BYTES("\n\r"), BYTES("[][]"), "and nothing else" },
        { BYTES("\0\n\xff\0\n"), BYTES("[\0][\xff\0]"), "any bytes" },
    };
    static const size_t lengths[] = { KA_MAX_BODY - 1,
                                      KA_MAX_BODY,
                                      KA_MAX_BODY + 1,
                                      KA_MAX_BODY + 2,
                                      4092,
                                      4093,
                                      4094,
                                      4095,
                                      4096,
                                      4097,
                                      9000 };
    static const char *const ends[] = { "\nz", "\r\nz", "\r\r\nz" };
    static char in[40000], out[80000];
    size_t n;
    for (size_t i = 0; i < COUNT(rows); i++) {
        file_put(INPUT, rows[i].in, rows[i].in_n);
        int r = input_read(INPUT, out, &n);
        CHECK(r == KA_ENOTFOUND && n == rows[i].want_n && memcmp(out, rows[i].want, n) == 0,
              "%s: %d, \"%.*s\"", rows[i].why, r, (int)n, out);
    }
    /* What is beyond the room is lost. No CR is within. */
    for (size_t i = 0; i < COUNT(lengths) * COUNT(ends); i++) {
        const char *end = ends[i % COUNT(ends)];
        size_t length = lengths[i / COUNT(ends)], all = length + strlen(end) - 3,
               keep = all < KA_MAX_BODY ? all : KA_MAX_BODY;
        memset(in, 'x', length);
        if (length > KA_MAX_BODY) in[KA_MAX_BODY - 1] = '\r';
        memcpy(in + length, end, strlen(end));
        file_put(INPUT, in, length + strlen(end));
        int r = input_read(INPUT, out, &n);
        if (end[0] == '\n') keep = length < KA_MAX_BODY ? length : KA_MAX_BODY;
        CHECK(r == KA_ENOTFOUND && n == keep + 5 && memcmp(out + 1, in, keep) == 0 &&
                  memcmp(out + keep + 1, "][z]", 4) == 0,
              "%d bytes, and %d: %d", (int)length, (int)strlen(end), (int)n);
    }
    CHECK(input_read(".", out, &n) == KA_EOS && n == 0, "a folder can't be read");
    (void)remove(INPUT);
}

/* Say a line, after a while in which its reader sleeps; or be done with waking it. */
static int input_held;

static void input_late(void *text)
{
    ka_sleep_ms(50);
    if (text) CHECK(input_say(text), "is said");
    else ka__let(input_held);
}

static void test_input_late(void)
{
    ka_server *s;
    ka_event ev;
    ka__thread late;
    if (!CHECK(input_pipe() && ka_server_start(&s, 1) == KA_OK && ka_input_start(s) == KA_OK,
               "begins"))
        return;
    CHECK(ka_input_start(s) == KA_EINVAL, "once");
#if !defined(_WIN32)
    CHECK(fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK) == 0,
          "another program has it not block");
#endif
    CHECK(ka_wait(s, &ev, 20) == KA_ETIME && input_say("on") && ka_wait(s, &ev, 50) == KA_ETIME,
          "half a line is none");
    if (CHECK(input_say("e\r\ntwo\nthr") && next_event(s, &ev, KA_INPUT) && ka_is(ev.body, "one"),
              "the other half")) {
        input_say("ee, and a half");
        ka_sleep_ms(50);
        CHECK(ka_is(ev.body, "one"), "it stays until the next ka_wait");
    }
    CHECK(next_event(s, &ev, KA_INPUT) && ka_is(ev.body, "two") && ka_wait(s, &ev, 50) == KA_ETIME,
          "then the next");
    int64_t start = ka_now_ms();
    static char text[] = "\nfour\n";
    if (ka__thread_start(&late, input_late, text) != KA_OK) abort();
    CHECK(next_event(s, &ev, KA_INPUT) && ka_is(ev.body, "three, and a half") &&
              ka_now_ms() - start >= 45 && ka_now_ms() - start < PATIENCE_MS / 2,
          "who sleeps is woken");
    ka__thread_join(&late);
    CHECK(next_event(s, &ev, KA_INPUT) && ka_is(ev.body, "four"), "at one time");
    ka_stop(s);
    CHECK(ka_wait(s, &ev, PATIENCE_MS) == KA_ESTOPPED, "a stop doesn't wait for it");
    start = ka_now_ms();
    input_held = ka__hold(s);
    CHECK(input_held >= 0, "it lives");
    if (ka__thread_start(&late, input_late, NULL) != KA_OK) abort();
    ka_input_stop();
    ka_server_free(s);
    CHECK(ka_now_ms() - start >= 45, "whoever is waking it, it waits for");
    ka__thread_join(&late);
    input_say("five\n");      /* for nobody */
    for (start = ka_now_ms(); atomic_load(&ka__input.reading) && ka_now_ms() < start + PATIENCE_MS;)
        ka_sleep_ms(1);
    if (CHECK(ka_server_start(&s, 1) == KA_OK && ka_input_start(s) == KA_OK && input_say("six"),
              "another server")) {
        input_ends();
        while (next_event(s, &ev, KA_INPUT) && ka_is(ev.body, "five")) {
        }      /* its thread may have ended without it */
        CHECK(ka_is(ev.body, "six") && next_event(s, &ev, KA_INPUT) && ev.error == KA_ENOTFOUND,
              "the rest, and the end");
        ka_input_stop();
        ka_server_free(s);
    }
    input_over();
}

/* More lines than can be dealt with, and timers too: connections are served beside them, and a stop
   comes through. */
static void test_input_flood(void)
{
    enum { MANY = 1 << 20 };
    static wire w;
    ka_server *s;
    ka_event ev;
    int inputs = 0, times = 0, messages_n = 0, r;
    bool closed = false;
    char *lines = malloc(MANY);
    if (!lines) abort();
    memset(lines, '\n', MANY);
    file_put(INPUT, lines, MANY);
    free(lines);
    input_from(INPUT);
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_listen_as(s, &ka_lines, "127.0.0.1", 0) == 0,
               "starts"))
        return;
    ka_timers_init(&timers, s);
    if (!CHECK(ka_input_start(s) == KA_OK, "reads")) return;
    for (int i = 0; i < 1000; i++) ka_timer(&timers, ka_now_ms() - i, 0);
    int64_t until = ka_now_ms() + PATIENCE_MS;
    while ((r = ka_wait(s, &ev, 0)) == KA_OK && ka_now_ms() < until) {
        inputs += ev.kind == KA_INPUT && !ev.error;
        times += ev.kind == KA_TIMER;
        messages_n += ev.kind == KA_MESSAGE;
        if (ev.kind == KA_TIMER) ka_timer(&timers, ev.now_ms - 1, 0);
        if (ev.kind == KA_LISTENING) {
            wire_open(&w, ev.port);
            for (int i = 0; i < 1000; i++) wire_text(&w, "\n");
            ka__sock_end(w.sock);
        }
        closed = closed || ev.kind == KA_CLOSED;
        if (closed && inputs > 1000 && times > 1000) ka_stop(s);
    }
    CHECK(r == KA_ESTOPPED && messages_n == 1000, "all is served: %d, %d messages", r, messages_n);
    CHECK(inputs > 1000 && times > 1000, "%d lines and %d timers beside them", inputs, times);
    CHECK(inputs < MANY, "before the input has ended");
    wire_close(&w);
    ka_input_stop();
    ka_server_free(s);
    ka_timers_free(&timers);
    input_over();
    (void)remove(INPUT);
}

/* A program that ends, or frees its server, while its input is read. */
static void test_input_program(void)
{
    static const struct {
        const char *word;
        int status;
        const char *more;
    } rows[] = { { "leave\n", 3, "" }, { "free\n", 4, "freed" } };
    for (size_t i = 0; i < COUNT(rows); i++) {
        process p;
        if (!CHECK(input_pipe() && START(&p, PROGRAM("test"), "--child", "input"), "starts"))
            return;
        await_output(&p, "out", "ready");
        CHECK(input_say("a line\n") && await_output(&p, "out", "[a line]") &&
                  input_say(rows[i].word),
              "its lines come");
        if (rows[i].more[0])
            CHECK(await_output(&p, "out", rows[i].more) && input_say("one for nobody\n"),
                  "the thread stays");
        int status = process_wait(&p, PATIENCE_MS);
        CHECK(status == rows[i].status, "and ends: status %d, %s", status, output(&p, "err"));
        process_end(&p);
        input_ends();
        input_from(NULL);
    }
}

/* The chat, and a second one whose upstream is the first. */
static void test_chat(void)
{
    static wire w[2];
    char ports[2][8];
    process p[2];
    for (int i = 0; i < 2; i++) snprintf(ports[i], sizeof ports[i], "%d", free_port());
    START(&p[0], PROGRAM("examples/chat"), ports[0]);
    START(&p[1], PROGRAM("examples/chat"), ports[1], ports[0]);
    for (int i = 0; i < 2; i++) {
        int64_t until = ka_now_ms() + PATIENCE_MS;
        while (wire_try(&w[i], "127.0.0.1", atoi(ports[i])) < 0 && ka_now_ms() < until)
            ka_sleep_ms(10);
    }
    bool heard = false;      /* the second one may still be on its way to the first */
    for (int64_t until = ka_now_ms() + PATIENCE_MS; !heard && ka_now_ms() < until; ) {
        wire_text(&w[1], "hello\n");
        heard = ka__sock_wait(w[0].sock, KA__IN, 100) == KA_OK;
    }
    CHECK(heard && wire_more(&w[0]) > 0 && strstr(w[0].buf, ": hello\n"),
          "from the second to the first");
    wire_text(&w[0], "back\n");
    CHECK(wire_more(&w[1]) > 0 && strstr(w[1].buf, ": back\n"), "and back: %s", w[1].buf);
    for (int i = 0; i < 2; i++) {
        wire_close(&w[i]);
        process_end(&p[i]);
    }
    CHECK(START(&p[0], PROGRAM("examples/chat"), "70000") && process_wait(&p[0], PATIENCE_MS) == 1,
          "no port: status 1");
    CHECK(strstr(output(&p[0], "err"), "70000: "), "it says so");
    process_end(&p[0]);
}

static const subject ext_input_topics[] = {
    { "input", test_input }, { "input late", test_input_late }, { "input flood", test_input_flood },
    { "input program", test_input_program }, { "chat", test_chat },
};
