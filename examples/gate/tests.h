/* examples/gate/tests.h - gate. */

#define TOKEN_FOLDER ".test-gate"
#define TOKEN_FILE TOKEN_FOLDER "/a/TOKEN"
#define PROMPT ".test-prompt"

static void gate_remove(void)
{
    (void)remove(PROMPT);
    (void)remove(TOKEN_FILE);
    (void)remove(TOKEN_FILE ".new");
    folder_remove(TOKEN_FOLDER "/a");
    folder_remove(TOKEN_FOLDER);
    (void)remove(TOKEN_FOLDER);
}

static bool gate_start(process *p, int *port, const char *option, const char *value)
{
    const char *argv[] = {
        PROGRAM("examples/gate/gate"), "server", "--port", free_port_text(), "--token-file",
        TOKEN_FILE, option, value, NULL
    };
    return example_start(p, port, 1, argv);
}

/* A sanitizer's verdict is its status, too. */
static void gate_end(process *p)
{
    if (POLITE && pool[*p].running) {
        int status = process_interrupt(p) ? process_wait(p, PATIENCE_MS) : -1;
        CHECK(status == 0, "stops when asked: status %d, %s", status, output(p, "err"));
    }
    process_end(p);
    gate_remove();
}

/* Read one line, without its end; NULL: the connection ended instead. */
static const char *gate_line(wire *w)
{
    static char line[sizeof w->buf + 1];
    char *end;
    while (!(end = memchr(w->buf, '\n', w->n)))
        if (w->n == sizeof w->buf || wire_more(w) <= 0) return NULL;
    size_t n = (size_t)(end - w->buf);
    memcpy(line, w->buf, n);
    line[n] = 0;
    w->n -= n + 1;
    memmove(w->buf, end + 1, w->n);
    return line;
}

/* Nothing more, and a clean end. */
static bool gate_ends(wire *w) { return w->n == 0 && wire_more(w) == 0; }

/* The next answer, which has to be a JSON object whose code and message begin so: "200 pong"; and
   it holds this. */
static const char *gate_says(wire *w, const char *want, const char *has, const char *why)
{
    char said[512] = "", message[256];
    const char *line = gate_line(w);
    ka_json answer, code, text;
    if (!CHECK(line, "%s: the connection ended", why)) return "";
    if (ka_json_read(&answer, str(line)) == KA_OK && !answer.python &&
        ka_json_find(&answer, "code", &code) == KA_OK &&
        ka_json_find(&answer, "message", &text) == KA_OK) {
        ptrdiff_t n = ka_json_string(message, sizeof message, &text);
        snprintf(said, sizeof said, "%.*s %.*s", (int)code.raw.n, code.raw.p, n > 0 ? (int)n : 0,
                 message);
    }
    CHECK(strncmp(said, want, strlen(want)) == 0 && (!has || strstr(line, has)), "%s: %.400s", why,
          line);
    return line;
}

/* /connect, and the token that it gives. */
static bool gate_connect(wire *w, const char *more, char token[65])
{
    char text[128], end = 0;
    snprintf(text, sizeof text, "{\"url\": \"/connect\", \"hostname\": \"me\"%s}", more);
    token[0] = 0;
    if (!wire_text(w, text)) return CHECK(false, "sent");
    const char *line = gate_says(w, "200 connected", NULL, "connect"),
               *at = strstr(line, "\"token\": \"");
    return CHECK(at && sscanf(at, "\"token\": \"%64[0-9a-f]%c", token, &end) == 2 && end == '"' &&
                     strlen(token) == 64,
                 "a token: %s", line);
}

static void gate_call(wire *w, const char *url, const char *token, const char *want,
                      const char *why)
{
    char text[256];
    snprintf(text, sizeof text, "{\"url\": \"%s\", \"token\": \"%s\"}", url, token);
    CHECK(wire_text(w, text), "%s: sent", why);
    gate_says(w, want, NULL, why);
}

/* Of one connection, in this order. $C is the token; 64 times 0 as long as there is none. */
static const struct { const char *in, *want, *has, *why; } packages[] = {
    { "{\"url\": \"/ping\"}", "400 token is missing", NULL, "not authorised" },
    { "{\"url\": \"/ping\", \"token\": \"$C\"}", "400 wrong token", NULL, "a made-up token" },
    { "{\"url\": \"/ping\", \"token\": \"\"}", "400 wrong token", NULL, "an empty token" },
    { "{\"url\": \"/disconnect\", \"token\": \"$C\"}", "400 wrong token", NULL, "nothing to disconnect" },
    { "{\"url\": \"/connect\"}", "400 hostname is missing", NULL, "no hostname" },
    { "{\"url\": \"/connect\", \"hostname\": 7}", "400 hostname has to be a string", NULL, "a number's hostname" },
    { "{\"url\": \"/connect\", \"hostname\": \"\"}", "400 hostname has to be 1 to 255 bytes", NULL, "an empty hostname" },
    { "{\"url\": \"/connect\", \"hostname\": \"a\", \"hostname\": \"a\"}", "400 hostname is there more than once", NULL, "two hostnames" },
    { "{\"url\": \"/connect\", \"hostname\": \"a\", \"encrypt\": \"yes\"}", "400 encrypt has to be true or false", NULL, "encrypt, no boolean" },
    { "{\"url\": \"/connect\", \"hostname\": \"a\", \"encrypt\": false, \"encrypt\": true}", "400 encrypt has to be true or false", NULL, "encrypt, twice" },
    { "{\"url\": \"/connect\", \"hostname\": \"it's \\ud83d\\ude00\", \"encrypt\": false}", "200 connected", "\"encrypted\": false", "connect" },
    { "{\"url\": \"/connect\", \"hostname\": \"a\"}", "400 connected already", NULL, "connect again" },
    { "{\"url\": \"/ping\", \"token\": \"$C\"}", "200 pong", "{\"code\": 200, \"message\": \"pong\"}", "JSON" },
    { "{'url': '/ping', 'token': '$C'}", "200 pong", NULL, "Python" },
    { "{'url': \"/ping\", \"token\": '$C', 'x': (None, True, \"it's\", 'it\\'s \\x41')}", "200 pong", NULL, "Python, at length" },
    { " \t\r\n\n{ \"url\"\n:\t\"/ping\" ,\r\n\"token\" : \"$C\" }\r\n\n", "200 pong", NULL, "white space" },
    { "{\"token\":\"$C\",\"url\":\"\\/p\\u0069ng\"}", "200 pong", NULL, "escapes in the url" },
    { "{\"u\\u0072l\": \"/ping\", \"token\": \"$C\"}", "200 pong", NULL, "an escaped name" },
    { "{\"url\": \"/time\", \"token\": \"$C\"}", "200 the time", "\"time\": \"20", "time" },
    { "{\"url\": \"/echo\", \"token\": \"$C\"}", "200 ", "\"echo\": {}", "nothing to echo" },
    { "{\"url\": \"/echo\", \"token\": \"$C\", \"a\": {\"b\": {\"c\": [{}, {\"d\": 1}]}}}", "200 ", "\"echo\": {\"a\": {\"b\": {\"c\": [{}, {\"d\": 1}]}}}", "nested" },
    { "{\"url\": \"/echo\", \"token\": \"$C\", \"a\": \"}}{[\\\"}\", \"}\": \"\\\\\"}", "200 ", "{\"a\": \"}}{[\\\"}\", \"}\": \"\\\\\"}", "braces in strings" },
    { "{'url': '/echo', 'token': '$C', 'a': '}\\'}', \"it's\": '{\"', 'n': (1, -2.5e3, None, True, False)}", "200 ", "{\"a\": \"}'}\", \"it's\": \"{\\\"\", \"n\": [1, -2.5e3, null, true, false]}", "the same in Python" },
    { "{\"url\": \"/echo\", \"token\": \"$C\", \"\303\251\": \"\\u0000\\n\\u00e9\\ud83d\\ude00\"}", "200 ", "{\"\303\251\": \"\\u0000\\n", "characters" },
    { "{\"url\": \"/echo\", \"token\": \"$C\", \"a\\u0000b\": 1}", "400 the name of a field has a NUL", NULL, "a NUL in a name" },
    { "{\"url\": \"/echo\", \"token\": \"$C\", \"a\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", "400 the package is nested more than", NULL, "too deep" },
    { "{\"url\": \"/nonsense\", \"token\": \"$C\"}", "400 there is no such url", "[\"/connect\", \"/disconnect\", \"/ping\", \"/time\", \"/echo\"]", "no such url" },
    { "{\"url\": \"/PING\", \"token\": \"$C\"}", "400 there is no such url", NULL, "upper case" },
    { "{\"url\": \"/ping\\u0000\", \"token\": \"$C\"}", "400 there is no such url", NULL, "a NUL after it" },
    { "{\"url\": \"\", \"token\": \"$C\"}", "400 there is no such url", NULL, "an empty url" },
    { "{\"token\": \"$C\"}", "400 url is missing", NULL, "no url" },
    { "{}", "400 url is missing", NULL, "an empty object" },
    { "{\"url\": [\"/ping\"], \"token\": \"$C\"}", "400 url has to be a string", NULL, "a list's url" },
    { "{\"url\": null, \"token\": \"$C\"}", "400 url has to be a string", NULL, "no string" },
    { "{\"url\": \"/ping\", \"url\": \"/ping\", \"token\": \"$C\"}", "400 url is there more than once", NULL, "two urls" },
    { "{\"url\": \"/ping\", \"\\u0075rl\": \"/time\", \"token\": \"$C\"}", "400 url is there more than once", NULL, "two urls, one of them escaped" },
    { "{\"url\": \"/ping\"}", "400 token is missing", NULL, "no token" },
    { "{\"url\": \"/ping\", \"token\": null}", "400 token has to be a string", NULL, "no string" },
    { "{\"url\": \"/ping\", \"token\": \"$C\", \"token\": \"$C\"}", "400 token is there more than once", NULL, "two right tokens" },
    { "{\"url\": \"/ping\", \"token\": \"$C0\"}", "400 wrong token", NULL, "one more digit" },
    { "{\"url\": \"/ping\", \"token\": \" $C\"}", "400 wrong token", NULL, "a space before" },
    { "{\"url\": \"/ping\", \"token\": \"$U\"}", "400 wrong token", NULL, "a UUID" },
    { "{\"url\": \"/ping\", \"token\": \"0000000000000000000000000000000000000000000000000000000000000000\"}", "400 wrong token", NULL, "of zeros" },
    { "{\"url\": \"/ping\", \"token\": \"$C\"]}", "400 the package is neither JSON nor a Python dict: byte 93 is wrong", NULL, "a bracket too much" },
    { "{\"url\": \"/ping\" \"token\": \"$C\"}", "400 the package is neither JSON nor a Python dict: byte 17 is wrong", NULL, "no comma" },
    { "{'url': '/ping', 'token': true}", "400 the package is neither", NULL, "half Python, half JSON" },
    { "{\"url\": \"/ping\377\", \"token\": \"$C\"}", "400 the package is neither", NULL, "not UTF-8" },
    { "{\"url\": \"/ping\", \"token\": \"$C\", \"x\": \"\\ud800\"}", "400 the package is neither", NULL, "half a character" },
    { "{\"url\": \"/ping\", \"token\": \"$C\", \"x\": 01}", "400 the package is neither", NULL, "no number" },
    { "{\"url\": \"/ping\", \"token\": \"$C\", \"url2\": 1, \"hostname\": []}", "200 pong", NULL, "fields that nobody asked for" },
    { "{\"url\": \"/disconnect\", \"token\": \"$C\"}{\"url\": \"/ping\", \"token\": \"$C\"}", "200 disconnected", NULL, "disconnect, and what comes after it" },
};

/* All of them, in pieces; merged: as many at once as can be, which is up to the token. */
static void run_packages(int port, bool merged, size_t piece)
{
    static char text[32768];
    static wire w;
    char token[65];
    memset(token, '0', 64);
    token[64] = 0;
    if (!wire_open(&w, port)) return;
    for (size_t i = 0, to = 0; i < COUNT(packages); ) {
        size_t n = 0;
        bool last;
        do {
            last = strncmp(packages[to].want, "200 connected", 13) == 0;
            n += expand(text + n, sizeof text - n, packages[to].in, token);
        } while (++to < COUNT(packages) && merged && !last);
        wire_pieces(&w, text, n, piece);
        for (; i < to; i++) {
            const char *line = gate_says(&w, packages[i].want, packages[i].has, packages[i].why),
                       *at = strstr(line, "\"token\": \"");
            if (at) snprintf(token, sizeof token, "%.64s", at + 10);
        }
    }
    CHECK(gate_ends(&w), "and the close");
    wire_close(&w);
}

/* Of a connection each; nothing follows but the close. */
static const struct { const char *in, *want, *then, *why; } last_packages[] = {
    { "x", "400 no whole JSON object or Python dict", NULL, "a word" },
    { " 7 ", "400 no whole JSON object or Python dict", NULL, "a number" },
    { "[{\"url\": \"/ping\"}]", "400 no whole JSON object or Python dict", NULL, "a list" },
    { "\"url\"", "400 no whole JSON object or Python dict", NULL, "a string" },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 no whole JSON object or Python dict", NULL, "HTTP" },
    { "{\"url\": \"/ping\"}}", "400 token is missing", "400 no whole JSON object or Python dict", "a brace too much" },
    { "{\"url\": \"/ping\"},{}", "400 token is missing", "400 no whole JSON object or Python dict", "a comma between" },
};

/* Packages, host names and echoes that are as long as can be, and longer. */
static void gate_long_packages(int port)
{
    static char big[70000];
    static wire w;
    char token[65];
    size_t n;
    for (int more = 0; more < 2 && wire_open(&w, port) && gate_connect(&w, "", token); more++) {
        n = expand(big, 256, "{\"url\": \"/ping\", \"token\": \"$C\", \"x\": \"", token);
        memset(big + n, '}', 65536);
        memcpy(big + 65534 + more, "\"}", 2);
        wire_send(&w, big, 65536 + (size_t)more);
        gate_says(&w, more ? "400 the package is over 64 KiB" : "200 pong", NULL, "a long package");
        if (!more) gate_call(&w, "/disconnect", token, "200 disconnected", "disconnect");
        CHECK(gate_ends(&w), "and the close");
        wire_close(&w);
    }
    if (wire_open(&w, port)) {
        for (int more = 1; more >= 0; more--) {
            memset(big, 'h', 400);
            memcpy(big, "{\"url\": \"/connect\", \"hostname\": \"", 33);
            memcpy(big + 33 + 255 + more, "\"}", 3);
            wire_text(&w, big);
            const char *want = more ? "400 hostname has to be 1 to 255 bytes" : "200 connected";
            const char *line = gate_says(&w, want, NULL, "a long hostname");
            const char *at = strstr(line, "\"token\": \"");
            if (at) snprintf(token, sizeof token, "%.64s", at + 10);
        }
        n = expand(big, 256, "{'url': '/echo', 'token': '$C', 'x': '", token);
        for (int i = 0; i < 15000; i++, n += 4) memcpy(big + n, "\\x01", 4);
        memcpy(big + n, "'}", 2);
        wire_send(&w, big, n + 2);
        gate_says(&w, "400 the answer to this would be too long", NULL,
                  "an echo that is longer than what it echoes");
        n = expand(big, 256, "{'url': '/echo', 'token': '$C', 'x': '", token);
        memset(big + n, 'x', 65000);
        memcpy(big + n + 65000, "'}", 2);
        wire_send(&w, big, n + 65002);
        const char *line = gate_says(&w, "200 all but url and token", NULL, "a long echo");
        const char *echoed = strstr(line, "\"x\": \"");
        CHECK(echoed && strspn(echoed + 6, "x") == 65000, "all of it: %d", (int)strlen(line));
        wire_close(&w);
    }
}

static void test_gate(void)
{
    static wire w;
    process server;
    int port;
    gate_remove();
    if (!gate_start(&server, &port, NULL, NULL)) return;
    run_packages(port, false, SIZE_MAX);
    for (size_t i = 0; i < COUNT(last_packages) && wire_open(&w, port); i++) {
        wire_text(&w, last_packages[i].in);
        gate_says(&w, last_packages[i].want, NULL, last_packages[i].why);
        if (last_packages[i].then) gate_says(&w, last_packages[i].then, NULL, last_packages[i].why);
        CHECK(gate_ends(&w), "%s: and the close", last_packages[i].why);
        wire_close(&w);
    }
    if (wire_open(&w, port)) {
        wire_text(&w, "{\"url\": \"/ping\"");
        ka__sock_end(w.sock);
        gate_says(&w, "400 ", NULL, "an unfinished package, and the end");
        CHECK(gate_ends(&w), "and the close");
        wire_close(&w);
    }
    gate_long_packages(port);
    gate_end(&server);
}

static void test_gate_pieces(void)
{
    process server;
    int port;
    gate_remove();
    if (!gate_start(&server, &port, NULL, NULL)) return;
    run_packages(port, false, 1);
    run_packages(port, true, 1);
    run_packages(port, true, SIZE_MAX);
    for (size_t piece = 2; piece < 100; piece += 13) run_packages(port, true, piece);
    gate_end(&server);
}

/* Connect until it isn't busy any more with somebody who left, as it may not have seen yet. */
static bool gate_served(wire *w, int port, char token[65])
{
    for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until; ka_sleep_ms(2)) {
        if (!wire_open(w, port)) return false;
        wire_text(w, "{\"url\": \"/connect\", \"hostname\": \"me\"}");
        const char *line = gate_line(w), *at = line ? strstr(line, "\"token\": \"") : NULL;
        if (at) return snprintf(token, 65, "%.64s", at + 10) > 0;
        if (!CHECK(line && strncmp(line, "{\"code\": 503,", 13) == 0, "busy, or not: %s", line))
            break;
        wire_close(w);
    }
    return CHECK(false, "served");
}

/* One at a time: others are told so, and the one is not disturbed. */
static void test_gate_one(void)
{
    static wire first, other;
    char token[65], port_text[8];
    process server, client;
    int port;
    gate_remove();
    if (!gate_start(&server, &port, NULL, NULL)) return;
    snprintf(port_text, sizeof port_text, "%d", port);
    if (!wire_open(&first, port) || !gate_connect(&first, "", token)) return;
    for (int i = 0; i < 20 && wire_open(&other, port); i++) {
        if (i % 2) gate_says(&other, "503 another client is connected", NULL, "a second one");
        else if (wire_text(&other, "{\"url\": \"/connect\", \"hostname\": \"you\"}"))
            gate_says(&other, "503 another client is connected", NULL, "a second one that speaks");
        CHECK(gate_ends(&other), "and the close");
        wire_close(&other);
        gate_call(&first, "/ping", token, "200 pong", "the first one goes on");
        CHECK(file_is(TOKEN_FILE, token, 64), "the token file is the first one's");
    }
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        START(&client, PROGRAM("examples/gate/gate"), "client", encrypt ? "--encrypt" : "127.0.0.1",
              encrypt ? "127.0.0.1" : port_text, encrypt ? port_text : "/ping",
              encrypt ? "/ping" : NULL);
        int status = process_wait(&client, PATIENCE_MS);
        CHECK(status == 4 && strncmp(output(&client, "err"), "{\"code\": 503,", 13) == 0,
              "the program: %d, %s", status, output(&client, "err"));
        process_end(&client);
    }
    gate_call(&first, "/disconnect", token, "200 disconnected", "the first one leaves");
    CHECK(gate_ends(&first), "and is closed");
    wire_close(&first);
    for (int i = 0; i < 3; i++) {
        if (!(i == 0 ? wire_open(&other, port) && gate_connect(&other, "", token)
                     : gate_served(&other, port, token)))
            break;
        gate_call(&other, "/ping", token, "200 pong", "the next one");
        wire_close(&other);      /* without a word */
    }
    /* A connection that was reset has gone before the next one comes. */
    for (int i = 0; i < 1000; i += alike()) {
        struct linger none = { .l_onoff = 1 };
        if (!(i == 0 ? gate_served(&other, port, token)
                     : wire_open(&other, port) && gate_connect(&other, "", token)))
            break;
        setsockopt(KA__FD(other.sock), SOL_SOCKET, SO_LINGER, (const void *)&none, sizeof none);
        wire_close(&other);
    }
    gate_end(&server);
}

static void test_gate_many(void)
{
    enum { MANY = 128 };
    static char token[MANY][65];
    static ka__sock sock[MANY];
    static wire w;
    process server;
    int port;
    gate_remove();
    if (!gate_start(&server, &port, "--many", NULL)) return;
    for (int i = 0; i < MANY; i++) {
        if (!wire_open(&w, port) || !gate_connect(&w, "", token[i])) return;
        sock[i] = w.sock;
        for (int k = 0; k < i; k++)
            if (strcmp(token[i], token[k]) == 0) CHECK(false, "two have one token");
    }
    for (int i = 0; i < MANY; i++) {
        w.sock = sock[i];
        gate_call(&w, "/ping", token[(i + 1) % MANY], "400 wrong token", "another one's");
        gate_call(&w, "/ping", token[i], "200 pong", "its own");
    }
    /* Half of them leave: by a word, or without one. */
    for (int i = MANY - 2; i >= 0; i -= 2) {
        w.sock = sock[i];
        if (i % 4) gate_call(&w, "/disconnect", token[i], "200 disconnected", "disconnect");
        if (i % 4) CHECK(gate_ends(&w), "and the close");
        wire_close(&w);
    }
    CHECK(file_is(TOKEN_FILE, token[MANY - 1], 64), "the file has the newest");
    for (int i = 1; i < MANY; i += 2) {
        w.sock = sock[i];
        gate_call(&w, "/ping", token[i - 1], "400 wrong token", "of a connection that ended");
        gate_call(&w, "/ping", token[i], "200 pong", "its own, still");
    }
    for (int i = 0; i < MANY; i += 2) {
        if (!wire_open(&w, port)) break;
        gate_call(&w, "/ping", token[i], "400 wrong token", "an old one, on a new connection");
        wire_close(&w);
    }
    w.sock = sock[MANY - 1];
    gate_call(&w, "/disconnect", token[MANY - 1], "200 disconnected", "the newest leaves");
    CHECK(!opens(TOKEN_FILE, "rb"), "and its file goes");
    for (int i = 1; i < MANY; i += 2) ka__sock_close(sock[i]);
    gate_end(&server);
}

/* ---- gate: the token file ---- */

#ifndef _WIN32
typedef struct { _Atomic(bool) stop; _Atomic(int) seen; ka__thread thread; } reader;

static void reader_run(void *arg)
{
    reader *r = arg;
    char text[128];
    while (!atomic_load(&r->stop)) {
        size_t n = file_get(TOKEN_FILE, (unsigned char *)text, sizeof text - 1);
        text[n] = 0;
        if (n == 0) continue;
        if (n != 64 || strspn(text, "0123456789abcdef") != 64)
            CHECK(false, "a reader sees \"%s\"", text);
        atomic_fetch_add(&r->seen, 1);
    }
}
#endif

/* Without opening it: on Windows a file that is open can't be removed. */
static bool token_there(void)
{
#ifdef _WIN32
    return GetFileAttributesA(TOKEN_FILE) != INVALID_FILE_ATTRIBUTES;
#else
    return opens(TOKEN_FILE, "rb");
#endif
}

static bool await_no_token(void)
{
    for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until; ka_sleep_ms(2))
        if (!token_there()) return true;
    return false;
}

#define STALE "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

/* A file of that name is removed or replaced only if it is a token or empty. */
static void test_gate_strangers(void)
{
    static const struct { const char *holds; bool ours; } files[] = {
        { "", true }, { STALE, true }, { STALE "\n", true }, { STALE "\n\n", false },
          { STALE "0", false }, { "root:x:0:0\n", false }, { "\n", false },
        { "0011", false }, { "zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
          false },
    };
    static wire w;
    char token[65];
    process server;
    int port;
    for (size_t i = 0; i < COUNT(files); i++) {
        gate_remove();
        if (ka_file_put(TOKEN_FILE, files[i].holds, strlen(files[i].holds)) < 0) abort();
        if (files[i].ours) {
            if (!gate_start(&server, &port, NULL, NULL)) return;
            CHECK(!opens(TOKEN_FILE, "rb"), "a stale one is removed: %s", files[i].holds);
            gate_end(&server);
            continue;
        }
        START(&server, PROGRAM("examples/gate/gate"), "server", "--port", "0", "--token-file",
            TOKEN_FILE);
        int status = process_wait(&server, PATIENCE_MS);
        CHECK(status == 1 &&
              strstr(output(&server, "err"), "holds no token of gate; choose another --token-file"),
              "%s: %d", files[i].holds, status);
        CHECK(file_says(TOKEN_FILE, files[i].holds), "it is left alone: %s", files[i].holds);
        process_end(&server);
    }
    gate_remove();
    if (!gate_start(&server, &port, NULL, NULL)) return;
    if (ka_file_put(TOKEN_FILE, "mine", 4) < 0) abort();
    if (!wire_open(&w, port)) return;
    wire_text(&w, "{\"url\": \"/connect\", \"hostname\": \"me\"}");
    gate_says(&w, "500 the server cannot make or keep a token", NULL, "a file that came meanwhile");
    CHECK(file_says(TOKEN_FILE, "mine"), "is not replaced");
    await_output(&server, "err", "it holds something else; /connect is refused until it can be");
    gate_remove();
    gate_connect(&w, "", token);
    gate_remove();
    if (ka_file_put(TOKEN_FILE, "mine", 4) < 0) abort();
    wire_close(&w);
    await_output(&server, "err", "its token is void all the same");
    CHECK(file_says(TOKEN_FILE, "mine"), "and not removed");
    if (POLITE) CHECK(process_interrupt(&server) && process_wait(&server, PATIENCE_MS) == 0 &&
        file_says(TOKEN_FILE, "mine"), "nor at the end");
    gate_end(&server);
}

#ifndef _WIN32
/* The token changes, and a reader sees whole ones only. */
static void gate_reads_tokens(int port)
{
    static wire w;
    char token[65];
    reader r = { .seen = 0 };
    if (ka__thread_start(&r.thread, reader_run, &r) != KA_OK) return;
    for (int i = 0; i < 200 || (i < 100000 && atomic_load(&r.seen) < 20); i++) {
        if (!(i % 2 ? gate_served(&w, port, token)
                    : (CHECK(await_no_token(), "removed") && wire_open(&w, port) &&
                       gate_connect(&w, "", token))))
            break;
        if (i % 4 == 3) gate_call(&w, "/disconnect", token, "200 disconnected", "disconnect");
        wire_close(&w);
    }
    atomic_store(&r.stop, true);
    ka__thread_join(&r.thread);
    CHECK(atomic_load(&r.seen) >= 20, "a reader saw tokens, %d times", atomic_load(&r.seen));
}
#endif

static void test_gate_token_file(void)
{
    static wire w;
    char token[65];
    process server;
    int port;
    gate_remove();
    CHECK(ka_file_put(TOKEN_FILE, STALE, 64) == KA_OK, "a file of before");
    if (!gate_start(&server, &port, NULL, NULL)) return;
    CHECK(!opens(TOKEN_FILE, "rb"), "a stale one is removed");
    gate_remove();
    if (!wire_open(&w, port) || !gate_connect(&w, "", token)) return;
    CHECK(file_is(TOKEN_FILE, token, 64), "folders and all");
#ifndef _WIN32
    struct stat s;
    CHECK(stat(TOKEN_FILE, &s) == 0 && (s.st_mode & 07777) == 0600, "for its owner alone");
#endif
    gate_call(&w, "/disconnect", token, "200 disconnected", "disconnect");
    CHECK(!opens(TOKEN_FILE, "rb"), "removed");
    wire_close(&w);
    if (!wire_open(&w, port) || !gate_connect(&w, "", token)) return;
    CHECK(file_is(TOKEN_FILE, token, 64), "another one");
    wire_close(&w);
    CHECK(await_no_token(), "removed when the connection was dropped");

    gate_remove();                                /* a file where its folder has to be */
    file_put(TOKEN_FOLDER, "a file", 6);
    if (!wire_open(&w, port)) return;
    wire_text(&w, "{\"url\": \"/connect\", \"hostname\": \"me\", \"encrypt\": true}");
    const char *line =
        gate_says(&w, "500 the server cannot make or keep a token", NULL, "no place for the file");
    CHECK(!strstr(line, "\"token\""), "no token: %s", line);
    gate_call(&w, "/ping", "0000000000000000000000000000000000000000000000000000000000000000",
              "400 wrong token", "not authorised, nor encrypted");
    (void)remove(TOKEN_FOLDER);
    gate_connect(&w, "", token);
    CHECK(file_is(TOKEN_FILE, token, 64), "the same connection, when there is a place");
    wire_close(&w);
    CHECK(await_no_token(), "removed");

#ifdef _WIN32
    skip(topic, "a reader without FILE_SHARE_DELETE is in a writer's way on Windows");
#else
    gate_reads_tokens(port);
#endif
    if (POLITE && gate_served(&w, port, token)) {
        CHECK(file_is(TOKEN_FILE, token, 64), "the last one");
        CHECK(process_interrupt(&server) && process_wait(&server, PATIENCE_MS) == 0 &&
                  !opens(TOKEN_FILE, "rb"),
              "removed at exit");
        wire_close(&w);
    }
    gate_end(&server);
}

/* ---- gate: what is between client and server ---- */

enum { PASS, FLIP, TWICE, EARLIER, BACK, PLAIN, CUT, EMPTY, HUGE_ONE };

/* Passes on what they say in turn, and keeps all of it; message `at` upwards or downwards is
   meddled with. Without a port: listens to one package, answers `speech`, and closes. */
typedef struct {
    int         port, to, what, at, byte, answered;      /* answers to what was meddled with */
    bool        down, frames, served;
    const char *speech;
    ka__sock    listener;
    ka__thread  thread;
    size_t      n;
    char        passed[262144];
} proxy;

static wire proxy_wires[2];      /* the client, the server */

/* The bytes of the message that w begins with, when it is all there; 0: it ended before. */
static size_t proxy_message(wire *w, bool frames)
{
    ka_json v;
    for (;;) {
        size_t n = w->n;
        if (frames && n >= 4) {
            const unsigned char *b = (const unsigned char *)w->buf;
            n = 4 + ((size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3]);
            if (w->n >= n) return n;
        } else if (!frames && n && ka_json_read(&v, (ka_str){ w->buf, n }) == KA_OK) return n;
        if (w->n == sizeof w->buf || wire_more(w) <= 0) return 0;
    }
}

/* What goes on in place of the n bytes of a message; false: nothing goes on after it. */
static bool proxy_meddle(proxy *p, wire *to, char *text, size_t n, const char *before,
                         size_t before_n, const char *other, size_t other_n)
{
    static const char plain[] = "{\"code\": 200, \"url\": \"/ping\", \"message\": \"pong\"}\n";
    if (p->what == FLIP) text[p->byte < 0 ? n - (size_t)-p->byte : (size_t)p->byte] ^= 1;
    switch (p->what) {
    case TWICE:    wire_send(to, text, n); break;
    case EARLIER:  return wire_send(to, before, before_n);
    case BACK:     return wire_send(to, other, other_n);
    case PLAIN:    return wire_text(to, plain);
    case CUT:      wire_send(to, text, n / 2); ka__sock_end(to->sock); return false;
    case EMPTY:    return wire_send(to, "\0\0\0\0", 4);
    case HUGE_ONE: return wire_send(to, "\377\377\377\377", 4);
    default:       break;
    }
    return wire_send(to, text, n);
}

static void proxy_run(void *arg)
{
    static char last[2][sizeof proxy_wires->buf];
    proxy *p = arg;
    wire *w = proxy_wires;
    size_t n, last_n[2] = { 0 };
    if (!wire_wait(p->listener, KA__IN) || ka__sock_accept(p->listener, &w[0].sock, NULL) != KA_OK)
        return;
    w[0].n = 0;
    if (p->speech) {
        if (proxy_message(&w[0], false)) wire_text(&w[0], p->speech);
        ka__sock_end(w[0].sock);
        while (w[0].n = 0, wire_more(&w[0]) > 0) {}
    } else if (wire_open(&w[1], p->to)) {
        bool on = true, done = false;
        for (int i = 0; on; i++) {
            for (int side = 0; side < 2 && on; side++) {
                wire *from = &w[side], *to = &w[!side];
                bool meddle = p->what != PASS && i == p->at && (side == 1) == p->down;
                if ((n = proxy_message(from, p->frames && i > 0)) == 0) { on = false; break; }
                if (p->n + n <= sizeof p->passed) memcpy(p->passed + p->n, from->buf, n), p->n += n;
                if (done && side == 1 && !p->down) p->answered++;
                if (meddle)
                    done = true, on = proxy_meddle(p, to, from->buf, n, last[side], last_n[side],
                                                   last[!side], last_n[!side]);
                else wire_send(to, from->buf, n);
                if (!on && side == 0 && proxy_message(&w[1], true)) p->answered++;      /* cut */
                memcpy(last[side], from->buf, last_n[side] = n);
                from->n -= n;
                memmove(from->buf, from->buf + n, from->n);
            }
            if (on && done && p->what == TWICE && !p->down)
                on = false, p->answered += proxy_message(&w[1], true) != 0;
        }
        p->served = done || p->what == PASS;
        wire_close(&w[1]);
    }
    wire_close(&w[0]);
}

static bool proxy_start(proxy *p)
{
    p->n = 0;
    p->answered = 0;
    p->served = false;
    return CHECK(sock_listen(&p->listener, &p->port) == KA_OK &&
                     ka__thread_start(&p->thread, proxy_run, p) == KA_OK,
                 "the proxy starts");
}

static void proxy_stop(proxy *p)
{
    ka__thread_join(&p->thread);
    ka__sock_close(p->listener);
}

static bool proxy_saw(const proxy *p, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i + n <= p->n; i++)
        if (memcmp(p->passed + i, text, n) == 0) return true;
    return false;
}

/* The client's status, after it was told these lines through the proxy. Without lines: of one
   /ping. */
static int through(proxy *p, process *client, bool encrypt, const char *lines)
{
    char port[8];
    int status = -1;
    if (!proxy_start(p)) return -1;
    snprintf(port, sizeof port, "%d", p->port);
    const char *argv[8] = { PROGRAM("examples/gate/gate"), "client" };
    int n = 2;
    if (encrypt) argv[n++] = "--encrypt";
    argv[n++] = "127.0.0.1";
    argv[n++] = port;
    if (!lines) argv[n++] = "/ping";
    if (lines) file_put(PROMPT, lines, strlen(lines)), input_from(PROMPT);
    bool started = process_start(client, 0, argv);
    if (lines) input_from(NULL);
    if (started) status = process_wait(client, PATIENCE_MS);
    proxy_stop(p);
    return status;
}

/* at: message 0 is /connect or its answer, 1 and 2 are two calls, 3 is /disconnect, whose answer
   the client doesn't mind. */
static const struct {
    bool down;
    int what, at, byte, status;
    const char *says, *why;
} meddlings[] = {
    { false, FLIP, 1, 3, 3, "closed the connection", "a length" },
    { false, FLIP, 1, 4, 3, "closed the connection", "the first byte" },
    { false, FLIP, 2, 20, 3, "closed the connection", "a byte of the second one" },
    { false, FLIP, 1, -1, 3, "closed the connection", "the last byte, the tag's" },
    { false, FLIP, 1, -16, 3, "closed the connection", "the tag's first byte" },
    { false, FLIP, 1, 0, 3, "closed the connection", "a length, now 16 MiB more" },
    { false, TWICE, 1, 0, 3, "closed the connection", "replayed at once" },
    { false, EARLIER, 2, 0, 3, "closed the connection", "replayed in place of the next one" },
    { false, BACK, 2, 0, 3, "closed the connection", "the server's own" },
    { false, PLAIN, 1, 0, 3, "closed the connection", "plain JSON" },
    { false, PLAIN, 2, 0, 3, "closed the connection", "plain JSON, later" },
    { false, CUT, 1, 0, 3, "closed the connection", "cut" },
    { false, EMPTY, 1, 0, 3, "closed the connection", "empty" },
    { false, HUGE_ONE, 1, 0, 3, "closed the connection", "4 GiB" },
    { true, FLIP, 1, 4, 5, "makes no sense", "the first byte" },
    { true, FLIP, 2, -1, 5, "makes no sense", "the last byte, the tag's" },
    { true, FLIP, 1, 0, 5, "makes no sense", "a length" },
    { true, EARLIER, 2, 0, 5, "makes no sense", "an answer in place of the next one" },
    { true, BACK, 1, 0, 5, "makes no sense", "the client's own" },
    { true, PLAIN, 1, 0, 5, "makes no sense", "plain JSON" },
    { true, CUT, 1, 0, 5, "makes no sense", "cut" },
    { true, EMPTY, 2, 0, 5, "makes no sense", "empty" },
};

static void test_gate_encrypted(void)
{
    enum { LONG = 20000 };
    static const char kinds[] =
        " n=-7 f=1.5e3 yes=true none=null list=[1,{\"a\":[]}] seven=\"7\" word=seven python=(1,None,'it\\'s') e=\303\251 empty=\n"
        "{'url': '/echo', 'spaced out': 'quite', \"b\": {}}\n/ping\n\n";
    static const char echoed[] =
        "\", \"n\": -7, \"f\": 1.5e3, \"yes\": true, \"none\": null, \"list\": [1, {\"a\": []}], \"seven\": \"7\", \"word\": \"seven\", "
        "\"python\": [1, null, \"it's\"], \"e\": \"\303\251\", \"empty\": \"\"}";
    static proxy p;
    static char lines[LONG + 1024], out[2 * LONG + 4096];
    process server, client;
    gate_remove();
    p.what = PASS;
    if (!gate_start(&server, &p.to, NULL, NULL)) return;
    size_t n = (size_t)snprintf(lines, sizeof lines, "/echo text=findme");
    memset(lines + n, 'x', LONG);
    memcpy(lines + n + LONG, kinds, sizeof kinds);
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        p.frames = encrypt;
        int status = through(&p, &client, encrypt, lines);
        out[file_get(output_name(&client, "out"), (unsigned char *)out, sizeof out - 1)] = 0;
        CHECK(status == 0 && strstr(out, "findmexxx") && strstr(out, echoed) &&
                  strstr(out, "\"spaced out\": \"quite\", \"b\": {}") && strstr(out, "\"pong\""),
              "all is echoed: %d, %.200s ... %s%s", status, out,
              strlen(out) > LONG ? out + LONG : "", output(&client, "err"));
        CHECK(strstr(out, "findme") && strspn(strstr(out, "findme") + 6, "x") == LONG,
              "the whole of a long text");
        CHECK(proxy_saw(&p, "/connect") && p.n > 2 * LONG, "the proxy has it all: %d bytes",
              (int)p.n);
        const char *const words[] = { "findme", "xxxx", "/echo", "pong", "/disconnect", "seven" };
        for (size_t i = 0; i < COUNT(words); i++)
            CHECK(proxy_saw(&p, words[i]) == !encrypt, "\"%s\" passes, encrypted: %d", words[i],
                  encrypt);
        process_end(&client);
        CHECK(await_no_token(), "the client disconnected");
    }
    for (size_t i = 0; i < COUNT(meddlings); i++) {
        p.what = meddlings[i].what;
        p.at = meddlings[i].at;
        p.byte = meddlings[i].byte;
        p.down = meddlings[i].down;
        int status = through(&p, &client, true, "/ping\n/time\n");
        const char *said = output(&client, "err");
        CHECK(p.served && status == meddlings[i].status && strstr(said, meddlings[i].says),
              "%s, %s: status %d, %s", meddlings[i].down ? "down" : "up", meddlings[i].why, status,
              said);
        CHECK(p.answered == (p.what == TWICE), "%s: %d answers", meddlings[i].why, p.answered);
        process_end(&client);
        CHECK(await_no_token(), "%s: the connection has ended", meddlings[i].why);
    }
    gate_end(&server);
}

/* ---- gate: words, and how it exits ---- */

#define T32 "0123456789abcdef0123456789abcdef"

static const struct { const char *text; bool encrypt; int status; const char *says; } speeches[] = {
    { "", false, 3, "closed the connection" },
    { "{\"code\": 20", false, 5, "makes no sense" },
    { "hello\n", false, 5, "makes no sense" },
    { "HTTP/1.1 400 Bad Request\r\n\r\n", false, 5, "makes no sense" },
    { "{}\n", false, 5, "makes no sense" },
    { "{\"code\": 200, \"code\": 200}\n", false, 5, "makes no sense" },
    { "{\"code\": 200}\n", false, 5, "gave no token" },
    { "{\"code\": 200, \"token\": \"short\"}\n", false, 5, "gave no token" },
    { "{\"code\": 200, \"token\": \"" T32 T32 "0\"}\n", false, 5, "gave no token" },
    { "{\"code\": 200, \"token\": 7}\n", false, 5, "gave no token" },
    { "{\"code\": 200, \"token\": \"" T32 T32 "\"}\n", true, 5, "does not encrypt" },
    { "{\"code\": 200, \"token\": \"" T32 T32 "\", \"encrypted\": false}\n", true, 5,
      "does not encrypt" },
    { "{\"code\": 200, \"token\": \"" T32 T32 "\"}\n", false, 3, "closed the connection" },
    { "{\"code\": 500, \"message\": \"no\"}\n", false, 4, "{\"code\": 500, \"message\": \"no\"}" },
    { "{'code': 418}", false, 4, "{\"code\": 418}" },
};

/* $P is the server's port, $F one on which nobody listens. */
static const struct { const char *argv[7]; int status; const char *says; } gate_words[] = {
    { { NULL }, 2, "usage: gate server" },
    { { "--help" }, 0, "usage: gate server" },
    { { "--version" }, 0, "gate " KA_VERSION },
    { { "server", "--nonsense" }, 2, "no such option" },
    { { "server", "nonsense" }, 2, "takes options only" },
    { { "server", "--port" }, 2, "needs a value" },
    { { "server", "--token-file" }, 2, "needs a value" },
    { { "server", "--port", "65536" }, 2, "a whole number from 0 to 65535" },
    { { "server", "--port", "1x" }, 2, "a whole number from 0 to 65535" },
    { { "server", "--idle", "-1" }, 2, "a whole number from 0" },
    { { "server", "--port", "0", "--ip", "a..b" }, 2, "there is no such host" },
    { { "server", "--port", "0", "--ip", "192.0.2.1" }, 1, "is not an address of this machine" },
    { { "server", "--port", "$P" }, 1, "is taken by another program" },
    { { "server", "--port", "0", "--token-file", "." }, 1,
      "cannot remove the old .: it is a folder; choose another --token-file" },
    { { "server", "--port", "0", "--token-file", "" }, 2, "--token-file needs a value" },
    { { "client" }, 2, "usage: gate server" },
    { { "client", "127.0.0.1" }, 2, "usage: gate server" },
    { { "client", "--nonsense" }, 2, "no such option" },
    { { "client", "--hostname" }, 2, "needs a value" },
    { { "client", "127.0.0.1", "0", "/ping" }, 2, "a port from 1 to 65535" },
    { { "client", "a..b", "7000", "/ping" }, 2, "there is no such host" },
    { { "client", "127.0.0.1", "$F", "/ping" }, 3, "is the server running?" },
    { { "client", "127.0.0.1", "$P", "/ping" }, 0, "{\"code\": 200, \"message\": \"pong\"}" },
    { { "client", "--encrypt", "127.0.0.1", "$P", "/echo", "a=7" }, 0, "\"echo\": {\"a\": 7}" },
    { { "client", "--hostname", "me", "127.0.0.1", "$P", "/time" }, 0, "\"time\": \"20" },
    { { "client", "127.0.0.1", "$P", "/nonsense" }, 4, "{\"code\": 400" },
    { { "client", "127.0.0.1", "$P", "/disconnect" }, 0, "the token is void" },
    { { "client", "127.0.0.1", "$P", "/connect" }, 4, "connected already" },
    { { "client", "127.0.0.1", "$P", "/ping", "word" }, 2, "FIELD=VALUE is needed" },
    { { "client", "127.0.0.1", "$P", "/ping", "url=/time" }, 4, "url is there more than once" },
};

static void test_gate_words(void)
{
    static proxy p;
    process server, client;
    char taken[8], nobody[8];
    int port;
    gate_remove();
    if (!gate_start(&server, &port, "--many", NULL)) return;
    snprintf(taken, sizeof taken, "%d", port);
    for (size_t i = 0; i < COUNT(gate_words); i += (size_t)alike()) {
        const char *argv[9] = { PROGRAM("examples/gate/gate") };
        snprintf(nobody, sizeof nobody, "%d", free_port());
        for (int k = 0; k < 7 && gate_words[i].argv[k]; k++) {
            const char *word = gate_words[i].argv[k];
            argv[k + 1] = strcmp(word, "$P") == 0 ? taken : strcmp(word, "$F") == 0 ? nobody : word;
        }
        if (!process_start(&client, 0, argv)) continue;
        int status = process_wait(&client, PATIENCE_MS);
        const char *said = output(&client, status == 0 || status == 4 ? "out" : "err");
        CHECK(status == gate_words[i].status && strstr(said, gate_words[i].says),
              "gate %s %s %s: status %d, %s", argv[1] ? argv[1] : "",
              argv[1] && argv[2] ? argv[2] : "", argv[1] && argv[2] && argv[3] ? argv[3] : "",
              status, said);
        process_end(&client);
    }
    for (size_t i = 0; i < COUNT(speeches); i++) {
        p.speech = speeches[i].text;
        int status = through(&p, &client, speeches[i].encrypt, NULL);
        CHECK(status == speeches[i].status && strstr(output(&client, "err"), speeches[i].says),
              "%s: status %d, %s", p.speech, status, output(&client, "err"));
        process_end(&client);
    }
    CHECK(await_no_token(), "each client has disconnected");
    CHECK(strcmp(output(&server, "err"), "") == 0, "the server had nothing to complain of: %s",
          output(&server, "err"));
    gate_end(&server);
}

/* Who is silent is told, and closed; authorised or not. */
static void test_gate_idle(void)
{
    static wire w;
    char token[65];
    process server;
    int port;
    gate_remove();
    if (!gate_start(&server, &port, "--idle", "1")) return;
    for (int connect = 0; connect < 2 && wire_open(&w, port); connect++) {
        if (connect) gate_connect(&w, "", token);
        gate_says(&w, "400 silent for too long", NULL, "silent");
        CHECK(gate_ends(&w), "and the close");
        CHECK(!opens(TOKEN_FILE, "rb"), "and no token");
        wire_close(&w);
    }
    gate_end(&server);
}

static const subject gate_topics[] = {
    { "gate", test_gate }, { "gate pieces", test_gate_pieces }, { "gate one", test_gate_one },
    { "gate many", test_gate_many }, { "gate strangers", test_gate_strangers },
    { "gate token file", test_gate_token_file }, { "gate encrypted", test_gate_encrypted },
    { "gate words", test_gate_words }, { "gate idle", test_gate_idle },
};
