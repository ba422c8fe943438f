/* examples/codes/tests.h - codes. */

/* Start one of them on ports that the system chooses; it says one line for each. */
static bool example_start(process *p, int *ports, int n, const char *const *argv)
{
    char last[32];
    if (!process_start(p, 0, argv)) return false;
    const char *line = output(p, "out");
    for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until; ka_sleep_ms(5)) {
        int seen = 0;
        for (line = output(p, "out");
             seen < n && sscanf(line, "listening on 127.0.0.1:%31[0-9]%*1[\n]", last) == 1;
             line = strchr(line, '\n') + 1) {
            ports[seen++] = atoi(last);
            if (!strchr(line, '\n')) break;
        }
        if (seen == n) return true;
    }
    return CHECK(false, "%s %s listens: %s%s", argv[0], argv[1], output(p, "out"),
                 output(p, "err"));
}

#define MESSAGES ".test-messages"
static const char *const codes_argv[] = {
    PROGRAM("examples/codes/codes"), "server", "--uuid-port", "0", "--text-port", "0", "--log",
    MESSAGES, NULL
};

/* A request of its own connection, and what comes back until the close: "STATUS BODY", or "bare
   BODY" without HTTP around it. */
static const char *exchange(int port, const char *method, const char *body, size_t n)
{
    static wire w;
    static char text[4096];
    char head[256];
    ka__http h;
    const char *version = strstr(method, "HTTP/1.1") ? "" : " HTTP/1.1";      /* or a field */
    int head_n = snprintf(head, sizeof head,
                          "%s%s\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
                          method, version, (int)n);
    if (!wire_open(&w, port)) return "no connection";
    wire_send(&w, head, (size_t)head_n);
    wire_send(&w, body, n);
    while (wire_more(&w) > 0) {}
    wire_close(&w);
    ptrdiff_t got = ka__http_response(&h, w.buf, w.n);
    if (got < 0) snprintf(text, sizeof text, "bare %.*s", (int)w.n, w.buf);
    else snprintf(text, sizeof text, "%d %.*s", h.status, (int)(w.n - (size_t)got), w.buf + got);
    if (got >= 0 && !strstr(w.buf, "Content-Type: application/json\r\n"))
        return "no application/json";
    if (got >= 0 && h.status == 405 && !strstr(w.buf, "Allow: POST\r\n")) return "no Allow";
    return text;
}

#define UUID "0f0e0d0c-0b0a-4000-8000-aabbccddeeff"

/* Ask for a code in JSON, or as Python does. */
static bool code_of(int port, const char *uuid, bool python, char code[65])
{
    char body[128], end = 0;
    snprintf(body, sizeof body, python ? "{'uuid': '%s'}" : "{\"uuid\": \"%s\"}", uuid);
    const char *said = exchange(port, "POST /", body, strlen(body));
    const char *form = python ? "bare {'success': True, 'unique': '%64[0-9a-f]'%c"
                              : "200 {\"success\": true, \"unique\": \"%64[0-9a-f]\"%c";
    return CHECK(sscanf(said, form, code, &end) == 2 && end == '}' && strlen(code) == 64 &&
                     said[strlen(said) - 1] == '}',
                 "a code: %s", said);
}

/* Replace $U by the UUID and $C by its code. */
static size_t expand(char *out, size_t cap, const char *in, const char *code)
{
    size_t n = 0;
    for (; *in && n + 65 < cap; in++) {
        bool mark = *in == '$';
        if (mark) in++;
        n += (size_t)snprintf(out + n, cap - n, "%.*s",
                              mark && *in == 'C' ? 64
                              : mark             ? 36
                                                 : 1,
                              mark && *in == 'C' ? code
                              : mark             ? UUID
                                                 : in);
    }
    return n;
}

/* The whole log; of n bytes, and a NUL. */
static const char *messages(const char *path, size_t *n)
{
    static char text[4 << 20];
    *n = file_get(path, (unsigned char *)text, sizeof text - 1);
    text[*n] = 0;
    return text;
}

static const struct { int port; const char *method, *body, *want, *why; } code_requests[] = {
    { 0, "POST /", "{\"uuid\": \"0F0E0D0C-0B0A-4000-8000-AABBCCDDEEFF\"}", "200 {\"success\": true, \"unique\": \"", "a UUID in upper case" },
    { 0, "POST /", " {\"\\u0075uid\": \"$U\" } \n", "200 {\"success\": true, \"unique\": \"", "an escaped name" },
    { 0, "POST /", "{'uuid': \"$U\"}", "bare {'success': True, 'unique': '", "Python's other quotes" },
    { 0, "POST /", "", "400 {\"success\": false, \"error\": \"", "no body" },
    { 0, "POST /", "{\"uuid\": \"$U\"", "400 {\"success\": false, \"error\": \"", "malformed" },
    { 0, "POST /", "{'uuid': '$U'", "bare {'success': False, 'error': '", "malformed, as Python" },
    { 0, "POST /", "{'uuid': true}", "bare {'success': False, 'error': '", "half Python, half JSON" },
    { 0, "POST /", "[\"$U\"]", "400 {\"success\": false, \"error\": \"", "no object" },
    { 0, "POST /", "{}", "field 'uuid' is missing", "missing" },
    { 0, "POST /", "{'uuid': None}", "bare {'success': False, 'error': 'field \\'uuid\\' is no string'}", "no string" },
    { 0, "POST /", "{\"uuid\": \"$U\", \"uuid\": \"$U\"}", "field 'uuid' is there more than once", "repeated" },
    { 0, "POST /", "{\"uuid\": \"$U\", \"text\": \"x\"}", "field 'text' is not asked for", "extra" },
    { 0, "POST /", "{\"uuid\": \"0f0e0d0c0b0a40008000aabbccddeeff\"}", "field 'uuid' is no UUID", "without hyphens" },
    { 0, "POST /", "{\"uuid\": \"$Ux\"}", "field 'uuid' is no UUID", "too long" },
    { 0, "POST /", "{\"uuid\": \"\377\"}", "400 {", "not UTF-8" },
    { 0, "GET /", "", "405 {\"success\": false, \"error\": \"", "GET" },
    { 0, "PUT /", "{'uuid': '$U'}", "bare {'success': False, 'error': '", "PUT, as Python" },
    { 0, "POST /codes", "{\"uuid\": \"$U\"}", "404 {\"success\": false, \"error\": \"", "another path" },
    { 0, "POST / HTTP/1.1\r\nOrigin: http://b", "{\"uuid\": \"$U\"}",
      "403 {\"success\": false, \"error\": \"a page of another site",
      "its new code would void this one" },
    { 0, "POST / HTTP/1.1\r\nOrigin: http://a", "{\"uuid\": \"$U\"}",
      "403 {\"success\": false, \"error\": \"a page of another site", "DNS rebinding" },
    { 1, "POST / HTTP/1.1\r\nSec-Fetch-Site: same-site",
      "{'uuid': '$U', 'unique': '$C', 'text': 'x'}",
      "bare {'success': False, 'error': 'a page of another site", "as Python" },
    { 1, "POST /", "{\"uuid\": \"$U\", \"unique\": \"$C\", \"text\": \"plain\"}", "200 {\"success\": true}", "stored 1" },
    { 1, "POST /", "{'text': 'it\\'s \\xe9', 'unique': '$C', 'uuid': '$U'}", "bare {'success': True}", "stored 2" },
    { 1, "POST /", "{\"uuid\": \"$U\", \"unique\": \"$C\", \"text\": \"a\\n{\\\"time\\\": \\u2028\\u0085\\u0000\"}", "200 {\"success\": true}", "stored 3" },
    { 1, "POST /", "{\"uuid\": \"$U\", \"unique\": \"$U\", \"text\": \"x\"}", "403 {\"success\": false, \"error\": \"", "another code" },
    { 1, "POST /", "{\"uuid\": \"1f0e0d0c-0b0a-4000-8000-aabbccddeeff\", \"unique\": \"$C\", \"text\": \"x\"}", "403 {\"success\": false, \"error\": \"", "another UUID" },
    { 1, "POST /", "{'uuid': '$U', 'unique': '0', 'text': 'x'}", "bare {'success': False, 'error': ", "another code, as Python" },
    { 1, "POST /", "{\"uuid\": \"$U\", \"unique\": \"$C\"}", "field 'text' is missing", "no text" },
    { 1, "POST /", "{\"uuid\": \"$U\", \"unique\": \"$C\", \"text\": 7}", "field 'text' is no string", "a number" },
    { 1, "POST /", "{\"uuid\": \"$U\", \"unique\": \"$C\", \"text\": \"\300\200\"}", "400 {", "an overlong NUL" },
    { 1, "POST /", "{\"uuid\": \"$U\", \"unique\": \"$C\", \"text\": \"\\ud800\"}", "400 {", "half a character" },
};

static void test_codes(void)
{
    static const char *const stored[] = {
        "\"text\": \"plain\"}\n", "\"text\": \"it's \303\251\"}\n",
        "\"text\": \"a\\n{\\\"time\\\": \\u2028\\u0085\\u0000\"}\n"
    };
    char code[65], other[65], body[512];
    process server;
    int ports[2];
    size_t n;
    (void)remove(MESSAGES);
    if (!example_start(&server, ports, 2, codes_argv)) return;
    code_of(ports[0], UUID, true, other);
    code_of(ports[0], UUID, false, code);
    CHECK(strcmp(code, other) != 0, "a new code each time");
    expand(body, sizeof body, "{\"uuid\": \"$U\", \"unique\": \"$C\", \"text\": \"old\"}", other);
    CHECK(strncmp(exchange(ports[1], "POST /", body, strlen(body)), "403 ", 4) == 0,
          "the old one is void");
    for (size_t i = 0; i < COUNT(code_requests); i++) {
        size_t body_n = expand(body, sizeof body, code_requests[i].body, code);
        const char *said = exchange(ports[code_requests[i].port], code_requests[i].method, body,
                                    body_n),
                   *want = code_requests[i].want;
        bool whole = (want[0] >= '0' && want[0] <= '9') || strncmp(want, "bare ", 5) == 0;
        CHECK(whole ? strncmp(said, want, strlen(want)) == 0 : strstr(said, want) != NULL, "%s: %s",
              code_requests[i].why, said);
        if (i == 2) code_of(ports[0], UUID, false, code); /* the first rows asked for new ones */
    }
    const char *line = messages(MESSAGES, &n);
    CHECK(strlen(line) == n, "no NUL in the log");
    for (size_t i = 0; i < COUNT(stored); i++) {
        int year, month, day, hour, minute, second, ms, at = 0;
        bool form =
            sscanf(line, "{\"time\": \"%4d-%2d-%2dT%2d:%2d:%2d.%3dZ\", \"uuid\": \"" UUID "\", %n",
                   &year, &month, &day, &hour, &minute, &second, &ms, &at) == 7;
        if (!CHECK(form && at && strncmp(line + at, stored[i], strlen(stored[i])) == 0,
                   "line %d: %s", (int)i, line))
            break;
        line = strchr(line, '\n') + 1;
    }
    CHECK(*line == 0, "no more than was told of: %s", line);
    process_end(&server);
    (void)remove(MESSAGES);
}

/* A text of 64 KiB, plain and with each byte escaped; and one byte more. */
static void test_codes_long(void)
{
    enum { MOST = 65536 };
    static char body[6 * MOST + 512];
    char code[65];
    process server;
    int ports[2];
    (void)remove(MESSAGES);
    if (!example_start(&server, ports, 2, codes_argv) || !code_of(ports[0], UUID, false, code))
        return;
    for (int escaped = 0; escaped < 2; escaped++)
        for (int more = 0; more < 2; more++) {
            size_t n =
                expand(body, 512, "{\"uuid\": \"$U\", \"unique\": \"$C\", \"text\": \"", code);
            for (int i = 0; i < MOST + more; i++, n += escaped ? 6 : 1)
                memcpy(body + n, escaped ? "\\u0001" : "xxxxxx", escaped ? 6 : 1);
            memcpy(body + n, "\"}", 2);
            const char *said = exchange(ports[1], "POST /", body, n + 2);
            CHECK(strncmp(said, more ? "413 {" : "200 {", 5) == 0, "%d bytes: %s", MOST + more,
                  said);
        }
    size_t n;
    messages(MESSAGES, &n);
    CHECK(n > 7 * MOST && n < 7 * MOST + 400, "both are in the log: %d bytes", (int)n);
    process_end(&server);
    (void)remove(MESSAGES);
}

/* How many texts of an errand's clients are in a file; each line whole. */
static int texts_in(const char *path)
{
    size_t n;
    int lines = 0;
    for (const char *line = messages(path, &n), *end; *line; line = end + 1, lines++) {
        end = strchr(line, '\n');
        const char *text = strstr(line, "\"text\": \"Text insertion for index ");
        bool whole = end && text && text < end && strncmp(line, "{\"time\": \"", 10) == 0 &&
                     end[-1] == '}' && end[-2] == '"';
        if (!whole) return CHECK(false, "a line: %.200s", line) - 1;
    }
    return lines;
}

/* Four processes of clients at once, while the log is moved away again and again: each text that
   was stored is in one of the files. */
static void test_codes_rotation(void)
{
    enum { CLIENTS = 4, EACH = 400 };
    process server, clients[CLIENTS];
    int ports[2], moves = 0, lines = 0, left = CLIENTS;
    char port[2][8], name[64];
    (void)remove(MESSAGES);
    if (!example_start(&server, ports, 2, codes_argv)) return;
    for (int i = 0; i < 2; i++) snprintf(port[i], sizeof port[i], "%d", ports[i]);
    for (int i = 0; i < CLIENTS; i++)
        START(&clients[i], PROGRAM("examples/codes/codes"), "client", "--uuid-port", port[0],
              "--text-port", port[1], "127.0.0.1", "400");
    while (left > 0) {
        snprintf(name, sizeof name, MESSAGES "-%d", moves);
        fault_exempt = true;
        if (moves < 200 && rename(MESSAGES, name) == 0) moves++;
        fault_exempt = false;
        for (int i = 0; i < CLIENTS; i++) {
            if (!pool[clients[i]].running) continue;
            int status = process_wait(&clients[i], 2);
            if (status == -1) continue;
            left--;
            CHECK(status == 0 && strstr(output(&clients[i], "out"), "stored 400 of 400 texts"),
                  "status %d: %s%s", status, output(&clients[i], "out"),
                  output(&clients[i], "err"));
        }
    }
    for (int i = CLIENTS - 1; i >= 0; i--) process_end(&clients[i]);
    process_end(&server);
    lines += texts_in(MESSAGES);
    (void)remove(MESSAGES);
    for (int i = 0; i < moves; i++) {
        snprintf(name, sizeof name, MESSAGES "-%d", i);
        lines += texts_in(name);
        (void)remove(name);
    }
    CHECK(moves > 0 && lines == CLIENTS * EACH, "%d texts in %d files", lines, moves + 1);
}

/* Killed under load: what a client was told of is there after the restart, and each
   line is whole. */
static void test_codes_killed(void)
{
    process server, client;
    int ports[2], told;
    char port[2][8];
    size_t stood, n;
    (void)remove(MESSAGES);
    for (int round = 0; round < 3; round++) {
        if (!example_start(&server, ports, 2, codes_argv)) return;
        CHECK(strcmp(output(&server, "err"), "") == 0 || strstr(output(&server, "err"), "cut off"),
              "nothing but a torn line: %s", output(&server, "err"));
        int before = texts_in(MESSAGES);
        for (int i = 0; i < 2; i++) snprintf(port[i], sizeof port[i], "%d", ports[i]);
        START(&client, PROGRAM("examples/codes/codes"), "client", "--give-up", "1", "--uuid-port",
              port[0], "--text-port", port[1], "127.0.0.1", "1000000");
        messages(MESSAGES, &stood);
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             messages(MESSAGES, &n) && n < stood + 4000 && ka_now_ms() < until;)
            ka_sleep_ms(20);
        process_kill(&server);
        int status = process_wait(&client, PATIENCE_MS);
        told = -1;
        CHECK(status == 3 && sscanf(output(&client, "out"), "stored %d of", &told) == 1 && told > 0,
              "the client gives up: %d, %s", status, output(&client, "out"));
        process_end(&client);
        process_end(&server);
        if (!example_start(&server, ports, 2, codes_argv)) return; /* it cuts off what is torn */
        int lines = texts_in(MESSAGES) - before;
        CHECK(lines == told || lines == told + 1, "%d texts are told of, %d are there", told,
              lines);
        process_end(&server);
    }
    (void)remove(MESSAGES);
}

/* No room: refused, and nothing of it is in the log. KA_TEST_FULL: as in test_journal_full. */
static void test_codes_full(void)
{
#ifdef _WIN32
    skip("codes full", "Windows has no limit for a process's files");
#else
    const char *folder = getenv("KA_TEST_FULL");
    char file[256], ballast[300], code[65], body[2048];
    process server;
    int ports[2], stored = 0;
    snprintf(file, sizeof file, "%s%s", folder ? folder : "", folder ? "/messages" : MESSAGES);
    snprintf(ballast, sizeof ballast, "%s.ballast", file);
    const char *argv[] = {
        PROGRAM("examples/codes/codes"), "server", "--uuid-port", "0", "--text-port", "0", "--log",
        file, NULL
    };
    (void)remove(file);
    memset(body, 'x', sizeof body);
    if (folder)
        for (int i = 0; i < 8; i++) file_put(ballast, body, sizeof body);
    if (!folder) files_limit(20000);
    bool started = example_start(&server, ports, 2, argv);
    if (!folder) files_limit(0);
    if (!started || !code_of(ports[0], UUID, false, code)) return;
    size_t n = expand(body, 512, "{\"uuid\": \"$U\", \"unique\": \"$C\", "
                                 "\"text\": \"Text insertion for index ", code);
    memset(body + n, 'x', 1000);
    memcpy(body + n + 1000, "\"}", 2);
    const char *said = "";
    while (stored < 200 &&
           strncmp(said = exchange(ports[1], "POST /", body, n + 1002), "200 ", 4) == 0)
        stored++;
    CHECK(stored > 0 && strncmp(said, "507 {\"success\": false, \"error\": \"", 31) == 0 &&
              strstr(said, "disk is full"),
          "%d, then %s", stored, said);
    await_output(&server, "err", "the disk is full");
    CHECK(texts_in(file) == stored, "the log has what is told of, %d", stored);
    n = expand(body, 512, "{'uuid': '$U', 'unique': '$C', 'text': 'Text insertion for index 1'}",
               code);
    said = exchange(ports[1], "POST /", body, n);
    if (strncmp(said, "bare {'success': True", 21) == 0) stored++; /* a small one may still fit */
    (void)remove(ballast);
    if (folder) {
        said = exchange(ports[1], "POST /", body, n);
        CHECK(strcmp(said, "bare {'success': True}") == 0, "there is room again: %s", said);
        stored++;
    }
    process_end(&server);
    CHECK(texts_in(file) == stored, "and no more, %d", stored);
    (void)remove(file);
#endif
}

static const struct {
    const char *log, *holds;
    int status;
    const char *says, *why;
} codes_logs[] = {
    { MESSAGES, "my shopping list", 1, "holds no log of codes", "another file" },
    { MESSAGES, "my shopping list\n", 1, "holds no log of codes", "another file, of whole lines" },
    { MESSAGES, "my shopping\n{\"time\": \"2026", 1, "holds no log of codes",
      "another file, with an unfinished line that looks like ours" },
    { MESSAGES, "{\"time\": \"2026\"}\n{\"time\": \"2026", 0, "cut off its last 14 bytes",
      "a torn line" },
    { MESSAGES, "{\"ti", 0, "cut off its last 4 bytes", "a very torn line" },
    { ".", NULL, 1, "choose another --log", "a folder" },
    { ".test-no/log", NULL, 1, "its folder is not there", "no folder" },
    { "", NULL, 2, "--log needs a value", "no name" },
};

/* Logs that cannot be used, and torn ones: each has its message and status. */
static void test_codes_logs(void)
{
    process p;
    int ports[2];
    for (size_t i = 0; i < COUNT(codes_logs); i++) {
        const char *argv[] = {
            PROGRAM("examples/codes/codes"), "server", "--uuid-port", "0", "--text-port", "0",
            "--log", codes_logs[i].log, NULL
        };
        if (codes_logs[i].holds)
            file_put(MESSAGES, codes_logs[i].holds, strlen(codes_logs[i].holds));
        if (codes_logs[i].status == 0) {
            if (!example_start(&p, ports, 2, argv)) continue;
        } else if (process_start(&p, 0, argv)) {
            int status = process_wait(&p, PATIENCE_MS);
            CHECK(status == codes_logs[i].status, "%s: status %d", codes_logs[i].why, status);
        }
        await_output(&p, "err", codes_logs[i].says);
        process_end(&p);
        (void)remove(MESSAGES);
    }
}

static const struct { const char *argv[6]; int status; const char *says; } codes_words[] = {
    { { NULL }, 2, "usage: codes server" },
    { { "--help" }, 0, "usage: codes server" },
    { { "client", "--help" }, 0, "usage: codes server" },
    { { "--version" }, 0, "codes " KA_VERSION },
    { { "server", "--nonsense" }, 2, "no such option" },
    { { "server", "--log" }, 2, "needs a value" },
    { { "server", "--host", "a:80" }, 2, "names without ports are needed" },
    { { "server", "--uuid-port", "65536" }, 2, "a whole number from 0 to 65535" },
    { { "server", "--log", MESSAGES, "--ip", "a..b" }, 2, "there is no such host" },
    { { "client", "a..b" }, 2, "there is no such host" },
    { { "client", "127.0.0.1", "0" }, 2, "a whole number from 1" },
    { { "client", "--give-up", "1" }, 3, "gave up" },
};

/* Odd words, a taken port, and a log of another process: each has its message and status. */
static void test_codes_words(void)
{
    process p, q;
    char port[8];
    int ports[2];
    for (size_t i = 0; i < COUNT(codes_words); i += (size_t)alike()) {
        const char *argv[] = {
            PROGRAM("examples/codes/codes"), codes_words[i].argv[0], codes_words[i].argv[1],
            codes_words[i].argv[2], codes_words[i].argv[3], codes_words[i].argv[4], NULL
        };
        char free_text[2][8];
        snprintf(free_text[0], 8, "%d", free_port());
        snprintf(free_text[1], 8, "%d", free_port());
        const char *offline[] = { argv[0],      "client",      "--give-up",  "1", "--uuid-port",
                                  free_text[0], "--text-port", free_text[1], NULL };
        if (!process_start(&p, 0, codes_words[i].status == 3 ? offline : argv)) continue;
        int status = process_wait(&p, PATIENCE_MS);
        const char *said = output(&p, codes_words[i].status ? "err" : "out");
        CHECK(status == codes_words[i].status && strstr(said, codes_words[i].says),
              "codes %s %s: status %d, %s", argv[1] ? argv[1] : "",
              argv[1] && argv[2] ? argv[2] : "", status, said);
        process_end(&p);
    }
    if (!example_start(&p, ports, 2, codes_argv)) return;
    snprintf(port, sizeof port, "%d", ports[1]);
    START(&q, PROGRAM("examples/codes/codes"), "server", "--uuid-port", "0", "--text-port", port,
          "--log", MESSAGES "-2");
    CHECK(process_wait(&q, PATIENCE_MS) == 1 &&
              strstr(output(&q, "err"), "choose another --text-port"),
          "a taken port: %s", output(&q, "err"));
    process_end(&q);
    START(&q, PROGRAM("examples/codes/codes"), "server", "--uuid-port", "0", "--text-port", "0",
          "--log", MESSAGES);
    CHECK(process_wait(&q, PATIENCE_MS) == 1 && strstr(output(&q, "err"), "another process has it"),
          "one log, two servers: %s", output(&q, "err"));
    process_end(&q);
    if (POLITE)
        CHECK(process_interrupt(&p) && process_wait(&p, PATIENCE_MS) == 0, "stops when asked");
    process_end(&p);
    (void)remove(MESSAGES);
    (void)remove(MESSAGES "-2");
}

static const subject codes_topics[] = {
    { "codes", test_codes }, { "codes long", test_codes_long },
    { "codes rotation", test_codes_rotation }, { "codes killed", test_codes_killed },
    { "codes full", test_codes_full }, { "codes logs", test_codes_logs },
    { "codes words", test_codes_words },
};
