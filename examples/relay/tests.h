/* examples/relay/tests.h - relay. */

static bool relay_start(process *p, int *port, const char *option)
{
    const char *argv[] = {
        PROGRAM("examples/relay/relay"), "server", "--workers", "2", "--port", free_port_text(),
        option, NULL
    };
    return example_start(p, port, 1, argv);
}

/* A sanitizer's verdict is its status, too. */
static void relay_end(process *p)
{
    if (POLITE && pool[*p].running) {
        int status = process_interrupt(p) ? process_wait(p, PATIENCE_MS) : -1;
        CHECK(status == 0, "stops when asked: status %d, %s", status, output(p, "err"));
    }
    process_end(p);
}

/* The next line, without its end; NULL: the connection ends before it does. */
static const char *relay_line(wire *w)
{
    static char line[4096];
    char *end;
    while (!(end = memchr(w->buf, '\n', w->n)))
        if (wire_more(w) <= 0) return NULL;
    size_t n = (size_t)(end - w->buf);
    snprintf(line, sizeof line, "%.*s", (int)n, w->buf);
    w->n -= n + 1;
    memmove(w->buf, end + 1, w->n);
    return line;
}

static void relay_says(wire *w, const char *want, const char *why)
{
    const char *line = relay_line(w);
    CHECK(line && strcmp(line, want) == 0, "%s: wanted \"%s\", got \"%s\"", why, want,
          line ? line : "(the end)");
}

/* Wait until a member of the server's stats is so much. */
static bool relay_stat(int port, const char *name, int64_t want, const char *why)
{
    wire *w = malloc(sizeof *w);
    ka_json all, value = { .kind = 0 };
    char number[24] = "", got[24] = "none";
    snprintf(number, sizeof number, "%lld", (long long)want);
    if (!w || !wire_open(w, port)) return false;
    for (int64_t until = ka_now_ms() + PATIENCE_MS; strcmp(number, got) != 0 && ka_now_ms() < until;
         ka_sleep_ms(2)) {
        const char *line = wire_text(w, "stats\n") ? relay_line(w) : NULL;
        while (line && strncmp(line, "message ", 8) == 0)
            line = relay_line(w);      /* until it asked it was an active one */
        if (!line || strncmp(line, "stats ", 6) != 0 ||
            ka_json_read(&all, (ka_str){ line + 6, strlen(line + 6) }) < 0 ||
            ka_json_find(&all, name, &value) < 0)
            break;
        snprintf(got, sizeof got, "%.*s", (int)value.raw.n, value.raw.p);
    }
    wire_close(w);
    free(w);
    return CHECK(strcmp(number, got) == 0, "%s: %s is %s, not %s", why, name, got, number);
}

/* Scripts of up to three connections, on a server of their own: A>sends, A<gets this line, A~gets
   it after others, A/ is open, A. closes, A! is closed by the server; =name number waits for what
   stats tell. One that is alone gets what it sends. */
static const struct { const char *steps[14], *why; } relay_scripts[] = {
    { { "A/", "A>message hi", "A<message hi", "A>ok hi", "A<ok hi", "=outstanding 0", "=active 1", "A.", "=active 0" }, "alone" },
    { { "A/", "A>message ", "A<message ", "A>ok ", "A<ok " }, "an empty X" },
    { { "A/", "A>message  a b ", "A<message  a b ", "A>ok  a b ", "A<ok  a b " }, "spaces are X's" },
    { { "A/", "A>message a\\n\\r\\\\\xc3\xa9", "A<message a\\n\\r\\\\\xc3\xa9", "A>ok a\\n\\r\\\\\xc3\xa9", "A<ok a\\n\\r\\\\\xc3\xa9" }, "each escape, and UTF-8" },
    { { "A/", "A>message hi\r", "A<message hi", "A>ok hi\r", "A<ok hi" }, "CRLF" },
    { { "A/", "A>message x", "A<message x", "A>message x", "A<message x", "=outstanding 2", "A>ok x", "A<ok x", "A<ok x", "=oks 1", "A>ok x", "=ignored 1" }, "an X twice: an ok for each" },
    { { "A/", "A>message x", "A<message x", "B/", "=active 2", "B>message x", "=outstanding 2", "A>ok x", "A~ok x", "B~ok x", "=outstanding 0" }, "two with the same X" },
    { { "A/", "A>message x", "A<message x", "B/", "=active 2", "B>ok x", "=ignored 1", "=outstanding 1", "A>ok x", "A<ok x" }, "a stranger's ok" },
    { { "A/", "A>ok x", "=ignored 1", "A>message x", "A<message x", "A>ok y", "=ignored 2", "A>ok x", "A<ok x" }, "an ok that nobody waits for" },
    { { "A/", "A>message x", "A<message x", "A>message y", "A<message y", "A>ok y", "A<ok y", "A>ok x", "A<ok x" }, "in another order" },
    { { "A/", "A>stats", "=active 0", "A>message x", "A~error this connection asked for stats; use another one", "B/", "B>message y", "B<message y", "=active 1" }, "who asks for stats is no active one" },
    { { "A/", "A>message x", "A<message x", "B/", "=active 2", "A>stats", "=outstanding 0", "=active 1", "B>message y", "B<message y" }, "nor is what it sent" },
    { { "A/", "A>message x", "A<message x", "A.", "=outstanding 0", "=active 0", "B/", "B>message x", "B<message x", "B>ok x", "B<ok x" }, "what was sent goes with its sender" },
    { { "A/", "A>nonsense", "A<error no such word; send message X, ok X or stats", "A>message hi", "A<message hi" }, "an unknown word, and on" },
    { { "A/", "A>", "A<error no such word; send message X, ok X or stats", "A>Message x", "A<error no such word; send message X, ok X or stats", "A>stats x", "A<error no such word; send message X, ok X or stats", "=errors 3" }, "no words" },
    { { "A/", "A>POST / HTTP/1.1\r\nContent-Type: text/plain\r\n\r\nmessage x",
        "A<error HTTP is not spoken here", "=active 0", "=messages 0" }, "a web page's" },
    { { "A/", "A>message POST / HTTP/1.1", "A<message POST / HTTP/1.1", "=messages 1" },
      "an X that looks so" },
    { { "A/", "A>message", "A<error a space and an X belong behind that word", "A>ok", "A<error a space and an X belong behind that word" }, "no space" },
    { { "A/", "A>message \xff", "A<error the line is not UTF-8; send text", "A>ok \xc0\x80", "A<error the line is not UTF-8; send text" }, "not UTF-8" },
    { { "A/", "A>message \\q", "A<error a backslash is there without n, r or a backslash behind it; write it twice",
        "A>ok \\", "A<error a backslash is there without n, r or a backslash behind it; write it twice", "=outstanding 0" }, "no escapes" },
    { { "A/", "A>message a\rb", "A<error a raw carriage return is in the line; write it as \\r", "A>message a\r\r", "A<error a raw carriage return is in the line; write it as \\r" }, "a raw carriage return" },
};

static bool relay_step(wire *w, int port, const char *step, const char *why)
{
    char name[16];
    long long value;
    if (*step == '=')
        return sscanf(step, "=%15s %lld", name, &value) == 2 && relay_stat(port, name, value, why);
    const char *text = step + 2, *line;
    switch (step[1]) {
    case '/': return wire_open(w, port);
    case '.': wire_close(w); return true;
    case '>': return wire_text(w, text) && wire_text(w, "\n");
    case '<': relay_says(w, text, why); return true;
    default:
        do line = relay_line(w);
        while (line && strcmp(line, text) != 0);
        return CHECK(line, "%s: \"%s\" does not come", why, text);
    }
}

static void test_relay(void)
{
    static wire w[3];
    for (size_t i = 0; i < COUNT(relay_scripts); i++) {
        process server;
        int port;
        bool open[3] = { false };
        if (!relay_start(&server, &port, NULL)) return;
        for (const char *const *step = relay_scripts[i].steps; *step; step++) {
            int who = **step == '=' ? 0 : **step - 'A';
            if (!CHECK(relay_step(&w[who], port, *step, relay_scripts[i].why), "%s: %s",
                       relay_scripts[i].why, *step))
                break;
            if (**step != '=') open[who] = (*step)[1] != '.';
        }
        for (int k = 0; k < 3; k++)
            if (open[k]) wire_close(&w[k]);
        relay_stat(port, "outstanding", 0, "all have gone");
        relay_stat(port, "active", 0, "all have gone");
        relay_stat(port, "buffered", 0, "all have gone");
        relay_end(&server);
    }
}

/* What comes is these n bytes. */
static bool relay_gets(wire *w, const char *want, size_t n)
{
    for (size_t at = 0; at < n; ) {
        if (w->n == 0 && wire_more(w) <= 0) return false;
        size_t part = w->n < n - at ? w->n : n - at;
        if (memcmp(w->buf, want + at, part) != 0) return false;
        at += part;
        w->n -= part;
        memmove(w->buf, w->buf + part, w->n);
    }
    return true;
}

static void test_relay_long(void)
{
    enum { LONGEST = 65536 };
    static char line[8 + 2 * LONGEST + 16];
    static wire w;
    static const struct { const char *unit; size_t count, more; const char *want, *why; } rows[] = {
        { "a", LONGEST, 0, NULL, "the longest X" },
        { "\\n", LONGEST, 0, NULL, "the longest X of escapes" },
        { "\xf0\x9f\x98\x80", LONGEST / 4, 0, NULL, "the longest X of emoji" },
        { "a", LONGEST, 1, "error X is longer than 65536 bytes; send less\n", "a byte more" },
        { "\\\\", LONGEST - 1, 2, "error X is longer than 65536 bytes; send less\n", "a byte more with escapes" },
        { "\\n", LONGEST, 1, "error the line is too long; X has up to 65536 bytes\n", "a longer line" },
    };
    process server;
    int port;
    if (!relay_start(&server, &port, NULL) || !wire_open(&w, port)) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t n = 8, size = strlen(rows[i].unit);
        memcpy(line, "message ", 8);
        for (size_t k = 0; k < rows[i].count; k++, n += size) memcpy(line + n, rows[i].unit, size);
        for (size_t k = 0; k < rows[i].more; k++) line[n++] = 'b';
        line[n++] = '\n';
        bool sent = wire_send(&w, line, n);
        if (rows[i].want)
            CHECK(sent && relay_gets(&w, rows[i].want, strlen(rows[i].want)), "%s", rows[i].why);
        else {
            CHECK(sent && relay_gets(&w, line, n), "%s comes back", rows[i].why);
            memcpy(line + 5, "ok ", 3);
            CHECK(wire_send(&w, line + 5, n - 5) && relay_gets(&w, line + 5, n - 5), "%s: its ok",
                  rows[i].why);
        }
    }
    CHECK(w.n == 0 && wire_more(&w) == 0, "after the last one, the close");
    wire_close(&w);
    static const char pieces[] = "message a\\nb\r\nok a\\nb\nmessage unfinished";
    if (!wire_open(&w, port)) return;
    for (size_t i = 0; i + 1 < sizeof pieces; i++, ka_sleep_ms(1)) wire_send(&w, pieces + i, 1);
    relay_says(&w, "message a\\nb", "in pieces");
    relay_says(&w, "ok a\\nb", "in pieces");
    ka__sock_end(w.sock);
    CHECK(w.n == 0 && wire_more(&w) == 0, "to half a line nothing is said");
    wire_close(&w);
    if (!wire_open(&w, port)) return;      /* more than one may have waiting */
    for (int i = 0; i <= 1024; i++) {
        int n = snprintf(line, sizeof line, "message %d\n", i);
        wire_send(&w, line, (size_t)n);
        snprintf(line, sizeof line, "message %d", i);
        if (i == 1024)
            snprintf(line, sizeof line, "error 1024 messages of yours wait for an ok; "
                                        "send more when some have come");
        relay_says(&w, line, "as many as can wait");
    }
    wire_text(&w, "ok 7\nmessage 1024\n");
    relay_says(&w, "ok 7", "room again");
    relay_says(&w, "message 1024", "room again");
    wire_close(&w);
    relay_stat(port, "outstanding", 0, "all have gone");
    relay_end(&server);
}

/* One sends until the other has got some of it, and then that one goes. */
static void relay_reforward(bool plain)
{
    enum { TEXTS = 30 };
    static wire sender, holder;
    process server;
    int port, held = 0, number, got[TEXTS] = { 0 };
    char line[64];
    if (!relay_start(&server, &port, plain ? "--no-reforward" : NULL) ||
        !wire_open(&sender, port) || !wire_open(&holder, port))
        return;
    relay_stat(port, "active", 2, "two");
    for (int i = 0; i < TEXTS; i++) {
        int n = snprintf(line, sizeof line, "message %d\n", i);
        wire_send(&sender, line, (size_t)n);
    }
    relay_stat(port, "outstanding", TEXTS, "all wait");
    wire_close(&holder);
    relay_stat(port, "active", 1, "the other has gone");
    wire_text(&sender, "nonsense\n");      /* its answer comes after all that is forwarded */
    for (const char *text; (text = relay_line(&sender)) && sscanf(text, "message %d", &number) == 1;
         got[number]++) {}
    for (int i = 0; i < TEXTS; i++) held += got[i] == 0;
    for (int i = 0; i < TEXTS; i++)
        CHECK(got[i] == 1 || (plain && got[i] == 0), "message %d came %d times", i, got[i]);
    CHECK(plain ? held > 0 : held == 0, "%d of %d did not come", held, TEXTS);
    relay_stat(port, "outstanding", TEXTS, "all wait still");
    /* Nobody holds these texts any more: an ok of somebody else for the same text frees both. */
    for (int i = 0; i < TEXTS; i++) {
        if (!got[i]) {
            int n = snprintf(line, sizeof line, "message %d\n", i);
            wire_send(&sender, line, (size_t)n);
            snprintf(line, sizeof line, "message %d", i);
            relay_says(&sender, line, "sent again");
        }
        int n = snprintf(line, sizeof line, "ok %d\n", i);
        wire_send(&sender, line, (size_t)n);
        line[n - 1] = 0;
        for (int k = got[i]; k < 2; k++) relay_says(&sender, line, "its ok");
    }
    relay_stat(port, "outstanding", 0, "none waits");
    wire_close(&sender);
    relay_end(&server);
}

static void test_relay_reforward(void)
{
    relay_reforward(false);
    relay_reforward(true);
}

/* Take what a connection has got so far: count its messages, answer them, and count its oks. */
static void relay_serve(wire *w, long long *messages, long long *oks)
{
    static char answers[65536];
    size_t n = 0, at = 0;
    ptrdiff_t got = ka__sock_recv(w->sock, w->buf + w->n, sizeof w->buf - w->n);
    if (got <= 0) return;
    w->n += (size_t)got;
    for (char *end; (end = memchr(w->buf + at, '\n', w->n - at)) != NULL;
         at = (size_t)(end - w->buf) + 1) {
        const char *line = w->buf + at;
        if (strncmp(line, "ok ", 3) == 0) ++*oks;
        if (strncmp(line, "message ", 8) != 0) continue;
        ++*messages;
        n += (size_t)snprintf(answers + n, sizeof answers - n, "ok %.*s\n", (int)(end - line) - 8,
                              line + 8);
    }
    w->n -= at;
    memmove(w->buf, w->buf + at, w->n);
    wire_send(w, answers, n);
}

/* Whom the messages go to: Pearson's chi-square of 49 degrees of freedom is over 112 once in a
   million times. */
static void test_relay_fairness(void)
{
    enum { WIRES = 50, MESSAGES_SENT = 20000, PORTION = 500 };
    wire *w = calloc(WIRES, sizeof *w);
    long long got[WIRES] = { 0 }, oks = 0;
    const int messages = MESSAGES_SENT / alike();
    double chi = 0, expected = (double)messages / WIRES;
    process server;
    int port, opened = 0;
    if (!w || !relay_start(&server, &port, NULL)) return;
    while (opened < WIRES && wire_open(&w[opened], port)) opened++;
    relay_stat(port, "active", WIRES, "all are there");
    for (int sent = 0; sent < messages; ) {
        char line[32];
        for (int i = 0; i < PORTION; i++) {
            int n = snprintf(line, sizeof line, "message %d\n", sent++);
            wire_send(&w[0], line, (size_t)n);
        }
        for (int64_t until = ka_now_ms() + PATIENCE_MS; oks < sent && ka_now_ms() < until; )
            for (int i = 0; i < WIRES; i++) relay_serve(&w[i], &got[i], &oks);
        if (!CHECK(oks == sent, "%lld oks of %d", oks, sent)) break;
    }
    for (int i = 0; i < WIRES; i++)
        chi += ((double)got[i] - expected) * ((double)got[i] - expected) / expected;
    CHECK(chi < 112, "chi-square %.1f", chi);
    while (opened > 0) wire_close(&w[--opened]);
    free(w);
    relay_stat(port, "active", 0, "all have gone");
    relay_end(&server);
}

/* A client, with a server, or without, or with one that goes. */
static void test_relay_client(void)
{
    process server, client, other;
    int port;
    char text[8];
    if (!relay_start(&server, &port, "--stats")) return;
    snprintf(text, sizeof text, "%d", port);
    START(&client, PROGRAM("examples/relay/relay"), "client", "--delay", "0.05..0.1", "127.0.0.1",
          text, "a\\b");
    CHECK(process_wait(&client, PATIENCE_MS) == 0 &&
              strstr(output(&client, "out"), "got ok \"a\\\\b\" after "),
          "alone: %s%s", output(&client, "out"), output(&client, "err"));
    process_end(&client);
    START(&client, PROGRAM("examples/relay/relay"), "client", "--delay", "0.2", "127.0.0.1", text);
    START(&other, PROGRAM("examples/relay/relay"), "client", "--delay", "0.2", "127.0.0.1", text);
    CHECK(process_wait(&client, PATIENCE_MS) == 0 && process_wait(&other, PATIENCE_MS) == 0,
          "two: %s%s", output(&client, "out"), output(&other, "out"));
    process_end(&client);
    process_end(&other);
    relay_stat(port, "active", 0, "they have gone");
    await_output(&server, "out", "0 active, 0 outstanding, 0 messages/s");

    START(&client, PROGRAM("examples/relay/relay"), "client", "--delay", "1", "127.0.0.1", text,
          "hi");
    await_output(&client, "out", "received message \"hi\"");
    process_kill(&server);
    process_wait(&server, PATIENCE_MS);
    process_end(&server);
    await_output(&client, "err", "(miss 1)");
    START(&server, PROGRAM("examples/relay/relay"), "server", "--port", text);
    CHECK(process_wait(&client, PATIENCE_MS) == 0 && strstr(output(&client, "out"), "got ok"),
          "killed, and there again: %s%s", output(&client, "out"), output(&client, "err"));
    process_end(&client);
    START(&other, PROGRAM("examples/relay/relay"), "server", "--port", text);
    CHECK(process_wait(&other, PATIENCE_MS) == 1 &&
              strstr(output(&other, "err"), "choose another --port"),
          "a taken port: %s", output(&other, "err"));
    process_end(&other);
    relay_end(&server);
    START(&client, PROGRAM("examples/relay/relay"), "client", "--give-up", "0.5", "127.0.0.1",
          text);
    CHECK(process_wait(&client, PATIENCE_MS) == 3 && strstr(output(&client, "err"), "gave up"),
          "offline: %s", output(&client, "err"));
    process_end(&client);
}

/* A server of this test: it says nothing to the first connection, and this to each other one: on a
   slow machine the client may give up one more. */
static void test_relay_refused(void)
{
    static const struct { const char *says; int status; const char *kind, *told, *why; } rows[] = {
        { "ok hi\n", 0, "err", "no ok within 0.200 s; connecting again", "a time-out, and an ok" },
        { "ok ho\nmessage \x1b[31m\nok hi\n", 0, "out", "received message \"\\u001b[31m\"", "what plays with a terminal" },
        { "ok ho\nok hi\n", 0, "out", "got ok \"ho\", which was not sent", "another's ok" },
        { "error no \x1b\n", 1, "err", ": \"no \\u001b\"", "an error" },
        { "220 smtp\n", 1, "err", "does not speak as relay server does", "another protocol" },
        { "message \\x\n", 1, "err", "does not speak as relay server does", "a bad X" },
    };
    static wire w;
    ka__sock listener;
    int port;
    char text[8];
    if (!CHECK(sock_listen(&listener, &port) == KA_OK, "listens")) return;
    snprintf(text, sizeof text, "%d", port);
    for (size_t i = 0; i < COUNT(rows); i++) {
        process client;
        int status = -1;
        const int64_t until = ka_now_ms() + PATIENCE_MS;
        START(&client, PROGRAM("examples/relay/relay"), "client", "--delay", "60", "--timeout",
              "0.2", "127.0.0.1", text, "hi");
        for (int opened = 0; (status = process_wait(&client, 0)) == -1 && ka_now_ms() < until; ) {
            if (ka__sock_wait(listener, KA__IN, 20) != KA_OK ||
                ka__sock_accept(listener, &w.sock, NULL) != KA_OK)
                continue;
            w.n = 0;
            relay_says(&w, "message hi", rows[i].why);
            if (opened++ > 0) wire_text(&w, rows[i].says);
            while (wire_more(&w) > 0) {}
            wire_close(&w);
        }
        if (strstr(rows[i].says, "message \x1b"))
            CHECK(w.n == 9 && memcmp(w.buf, "ok \x1b[31m\n", 9) == 0,
                  "owed, and answered at the end");
        CHECK(status == rows[i].status && strstr(output(&client, rows[i].kind), rows[i].told),
              "%s: status %d, %s%s", rows[i].why, status, output(&client, "out"),
              output(&client, "err"));
        process_end(&client);
    }
    ka__sock_close(listener);
}

static void test_relay_words(void)
{
    static const struct { const char *argv[6]; int status; const char *says; } words[] = {
        { { NULL }, 2, "usage: relay server" },
        { { "--help" }, 0, "usage: relay server" },
        { { "load", "--help" }, 0, "usage: relay server" },
        { { "--version" }, 0, "relay " KA_VERSION },
        { { "server", "--nonsense" }, 2, "no such option" },
        { { "server", "x" }, 2, "no such option" },
        { { "server", "--give-up", "1" }, 2, "no such option" },
        { { "server", "--port" }, 2, "needs a value" },
        { { "server", "--port", "65536" }, 2, "a whole number from 0 to 65535" },
        { { "server", "--workers", "0" }, 2, "a whole number from 1 to 64" },
        { { "server", "--ip", "a..b" }, 2, "there is no such host" },
        { { "server", "--ip", "192.0.2.1" }, 1, "is not an address of this machine" },
        { { "client" }, 2, "HOST and PORT are needed" },
        { { "client", "127.0.0.1" }, 2, "HOST and PORT are needed" },
        { { "client", "127.0.0.1", "0" }, 2, "a whole number from 1 to 65535" },
        { { "client", "a..b", "1" }, 2, "there is no such host" },
        { { "client", "127.0.0.1", "1", "x", "y" }, 2, "y is a word too many" },
        { { "client", "--delay", "2..1" }, 2, "seconds are needed" },
        { { "client", "--delay", "1.." }, 2, "seconds are needed" },
        { { "client", "--timeout", "0.1234" }, 2, "seconds are needed" },
        { { "client", "--timeout", "-1" }, 2, "seconds are needed" },
        { { "client", "--timeout", "0" }, 2, "seconds are needed" },
        { { "load", "--clients", "0" }, 2, "a whole number from 1 to 10000000" },
        { { "load", "--vanish", "101" }, 2, "a whole number from 0 to 100" },
    };
    for (size_t i = 0; i < COUNT(words); i++) {
        process p;
        const char *argv[] = {
            PROGRAM("examples/relay/relay"), words[i].argv[0], words[i].argv[1], words[i].argv[2],
            words[i].argv[3], words[i].argv[4], NULL
        };
        if (!process_start(&p, 0, argv)) continue;
        int status = process_wait(&p, PATIENCE_MS);
        const char *said = output(&p, words[i].status ? "err" : "out");
        CHECK(status == words[i].status && strstr(said, words[i].says),
              "relay %s %s: status %d, %s", argv[1] ? argv[1] : "",
              argv[1] && argv[2] ? argv[2] : "", status, said);
        process_end(&p);
    }
}

/* ---- relay load ---- */

#define CHART ".test-relay.svg"

/* A run of it, to its end: its exit status. */
static int load_run(process *p, int max_files, const char *const *more)
{
    const char *argv[16] = {
        PROGRAM("examples/relay/relay"), "load", "--clients", "200", "--window", "0.3", "--delay",
        "0..0.1"
    };
    for (int i = 0; i < 7 && more[i]; i++) argv[8 + i] = more[i];
    return process_start(p, max_files, argv) ? process_wait(p, 2 * PATIENCE_MS) : -1;
}

/* Did all that it checks hold? Sanitizers and valgrind don't give memory back. */
static bool load_held(const process *p, int status)
{
    static const char memory[] = "FAILED       zero state: memory ";
    const char *fault = strstr(output(p, "out"), "FAILED ");
    bool keeps = emulator() != NULL;
#if defined(KA__ASAN) || defined(KA__TSAN)
    keeps = true;
#endif
    if (keeps && fault && status == 1 && strncmp(fault, memory, sizeof memory - 1) == 0 &&
        !strstr(fault + 1, "FAILED "))
        return true;
    return status == 0 && !fault;
}

/* The number in front of these words in what it said; -1: it did not say that. */
static int load_told(const process *p, const char *words)
{
    const char *said = output(p, "out"), *at = strstr(said, words);
    while (at && at > said && at[-1] >= '0' && at[-1] <= '9') at--;
    return at && *at >= '0' && *at <= '9' ? atoi(at) : -1;
}

/* A relay that has no manners: to `message X` it says something that nobody sent, and says ok to X
   twice, though nobody else did. */
static void load_misled(void)
{
    static const char stats[] =
        "stats {\"active\": 0, \"outstanding\": 0, \"buffered\": 0, \"memory\": 0, \"peak\": 0, \"cpu_us\": 0, \"messages\": 0, "
        "\"forwards\": 0, \"reforwards\": 0, \"oks\": 0, \"ignored\": 0, \"errors\": 0, \"lost\": 0, \"opened\": 0}\n";
    ka_server *s;
    ka_event ev;
    process p;
    char place[32], line[1024];
    int status = -1;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_listen_as(s, &ka_lines, "127.0.0.1", 0) == 0 &&
                   ka_wait(s, &ev, PATIENCE_MS) == KA_OK,
               "a relay"))
        return;
    snprintf(place, sizeof place, "127.0.0.1:%d", ev.port);
    START(&p, PROGRAM("examples/relay/relay"), "load", "--clients", "10", "--window", "0",
          "--messages", "2", "--delay", "0", "--server", place);
    for (int64_t until = ka_now_ms() + PATIENCE_MS; status < 0 && ka_now_ms() < until; ) {
        if (ka_wait(s, &ev, 10) != KA_OK) status = process_wait(&p, 0);
        else if (ev.kind == KA_MESSAGE && ka_is(ev.body, "stats"))
            ka_send(s, ev.conn, stats, sizeof stats - 1);
        else if (ev.kind == KA_MESSAGE && ev.body.n > 8) {
            int n = snprintf(line, sizeof line, "message 0.0 junk\nok %.*s\nok %.*s\n",
                             (int)ev.body.n - 8, ev.body.p + 8, (int)ev.body.n - 8, ev.body.p + 8);
            ka_send(s, ev.conn, line, (size_t)n);
        }
    }
    CHECK(status == 1 &&
              strstr(output(&p, "out"), "FAILED       lines that should not have come: 50") &&
              strstr(output(&p, "err"), "\"0.0 junk\""),
          "status %d: %s%s", status, output(&p, "out"), output(&p, "err"));
    CHECK(strstr(output(&p, "out"),
                 "ok           every message got its ok: 10 of 10 clients done, 20 of 20 messages"),
          "%s", output(&p, "out"));
    process_end(&p);
    ka_server_free(s);
}

/* Small loads with servers of their own: each ends with 0, which it only does if all that it checks
   has held. */
static void test_relay_load(void)
{
    static const struct { const char *argv[8]; const char *words; int least, most; } runs[] = {
        { { "--svg", CHART }, " of 200 messages; 0 vanished", 200, 200 },
        { { "--messages", "20", "--ahead", "4" }, " of 4000 messages", 4000, 4000 },
        { { "--vanish", "10", "--workers", "2" }, " vanished; ", 1, 60 },
        { { "--vanish", "20", "--no-reforward", "--timeout", "2" }, " time-outs, ", 1, INT_MAX },
        { { "--kill-at", "0.15", "--messages", "2" }, " lost, ", 1, 400 },
        { { "--abrupt", "--messages", "4" }, " of them anew", 1, INT_MAX },
    };
    static const struct { const char *argv[5]; int status; const char *says; } words[] = {
        { { "--server", "127.0.0.1" }, 2, "a host and a port are needed" },
        { { "--server", "127.0.0.1:8000", "--kill-at", "1" }, 2, "--kill-at is for a server of its own" },
        { { "--svg", ".test-no/chart.svg" }, 1, "cannot write --svg .test-no/chart.svg" },
        { { "--svg", "." }, 1, "cannot use .: it is a folder; choose another --svg" },
        { { "--svg", "../examples/chat.c" }, 1, "cannot use ../examples/chat.c: it holds something else; choose another" },
        { { "--svg", "" }, 2, "--svg needs a value" },
    };
    process p;
    if (cannot_restart()) return;
    for (size_t i = 0; i < COUNT(runs); i++) {
        int status = load_run(&p, 0, runs[i].argv), told = load_told(&p, runs[i].words);
        CHECK(load_held(&p, status) && told >= runs[i].least && told <= runs[i].most,
              "%s: status %d, %d%s: %s%s", runs[i].argv[0], status, told, runs[i].words,
              output(&p, "out"), output(&p, "err"));
        process_end(&p);
    }
    static char chart[65536];
    size_t n = file_get(CHART, (unsigned char *)chart, sizeof chart - 1);
    CHECK(n > 0 && strncmp(chart, "<svg ", 5) == 0 && strstr(chart, ">p99.9 ") &&
              strcmp(chart + n - 7, "</svg>\n") == 0,
          "a chart of %d bytes", (int)n);
    (void)remove(CHART);
    for (size_t i = 0; i < COUNT(words); i++) {
        int status = load_run(&p, 0, words[i].argv);
        CHECK(status == words[i].status && strstr(output(&p, "err"), words[i].says),
              "%s: status %d: %s", words[i].says, status, output(&p, "err"));
        process_end(&p);
    }
    if (!POLITE) return;
    START(&p, PROGRAM("examples/relay/relay"), "load", "--clients", "200", "--window", "0",
          "--delay", "60", "--svg", CHART);
    int port;
    if (!await_output(&p, "out", "\n") ||
        !CHECK(sscanf(output(&p, "out"), "relay load: %*[^:]:%d", &port) == 1, "its own server"))
        return;
    file_put(CHART, "precious", 8);
    relay_stat(port, "active", 200, "all are there");
    CHECK(process_interrupt(&p) && process_wait(&p, PATIENCE_MS) == 1 &&
              strstr(output(&p, "out"), "FAILED       every message got its ok: 0 of 200 clients"),
          "interrupted: %s%s", output(&p, "out"), output(&p, "err"));
    CHECK(file_says(CHART, "precious") && strstr(output(&p, "err"), "it holds something else"),
          "what others put there meanwhile is left alone: %s", output(&p, "err"));
    (void)remove(CHART);
    process_end(&p);
}

/* With servers that are there, or not. */
static void test_relay_load_server(void)
{
    const char *const argv[] = { PROGRAM("examples/relay/relay"), "server", "--port",
                                 free_port_text(), NULL };
    process p, server;
    char place[32];
    int port;
    if (example_start(&server, &port, 1, argv)) {
        snprintf(place, sizeof place, "127.0.0.1:%d", port);
        int status = load_run(&p, 0, (const char *const[]){ "--server", place, NULL });
        CHECK(load_held(&p, status) && load_told(&p, " of 200 messages") == 200 &&
                  !strstr(output(&p, "out"), "the server ended"),
              "another server: status %d: %s%s", status, output(&p, "out"), output(&p, "err"));
        process_end(&p);
    }
    process_end(&server);
    int status = load_run(&p, 0, (const char *const[]){ "--server", place, NULL });
    CHECK(status == 3 && strstr(output(&p, "err"), "no relay server at 127.0.0.1:"),
          "a dead port: status %d: %s", status, output(&p, "err"));
    process_end(&p);
    load_misled();
}

/* Few descriptors: for a load, and for a server that has room for fewer than come; the others wait
   for theirs, and none is reset. */
static void test_relay_load_limit(void)
{
#ifdef _WIN32
    skip("relay load, limit", "Windows has no such limit");
#else
    const char *const small[] = {
        PROGRAM("examples/relay/relay"), "server", "--port", "0", "--workers", "1", NULL
    };
    process p, server;
    char place[32];
    if (emulator_lacks("valgrind", "valgrind needs descriptors of its own")) return;
    int status = load_run(&p, 64, (const char *const[]){ NULL });
    CHECK(status == 1 && strstr(output(&p, "err"), "more than the descriptor limit of 64 allows"),
          "64 descriptors: status %d: %s", status, output(&p, "err"));
    process_end(&p);
    if (process_start(&server, 40, small) && await_output(&server, "out", "listening on ") &&
        sscanf(output(&server, "out"), "listening on %31s", place) == 1) {
        status = load_run(&p, 0, (const char *const[]){ "--server", place, "--window", "0", NULL });
        CHECK(load_held(&p, status) && load_told(&p, " of 200 messages") == 200,
              "a server with 40 descriptors: status %d: %s%s", status, output(&p, "out"),
              output(&p, "err"));
        process_end(&p);
    }
    process_end(&server);
#endif
}

static const subject relay_topics[] = {
    { "relay", test_relay }, { "relay long", test_relay_long },
    { "relay reforward", test_relay_reforward }, { "relay fairness", test_relay_fairness },
    { "relay client", test_relay_client }, { "relay refused", test_relay_refused },
    { "relay words", test_relay_words }, { "relay load", test_relay_load },
    { "relay load, server", test_relay_load_server },
    { "relay load, limit", test_relay_load_limit },
};
