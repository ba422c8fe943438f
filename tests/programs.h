/* tests/programs.h - the server and client, as programs. */

static void test_offline_then_online(void)
{
    process client, server;
    char port[8];
    if (cannot_restart()) return;
    int n = free_port();
    snprintf(port, sizeof port, "%d", n);
    START(&client, PROGRAM("client"), "127.0.0.1", port);
    await_output(&client, "err", "(miss 2)");
    CHECK(strstr(output(&client, "err"), "miss 1); trying again in 100 ms") &&
              strstr(output(&client, "err"), "miss 2); trying again in 105 ms"),
          "it says when it tries again: %s", output(&client, "err"));
    START(&server, PROGRAM("server"), "--ip", "127.0.0.1", "--port", port);
    int status = process_wait(&client, PATIENCE_MS);
    CHECK(status == 0 && prints_one_id(&client), "then the server is there: %d, %s", status,
          output(&client, "err"));
    process_end(&client);
    process_end(&server);

    START(&client, PROGRAM("client"), "--give-up", "1", "127.0.0.1", port);
    status = process_wait(&client, PATIENCE_MS);
    CHECK(status == 3 && strstr(output(&client, "err"), "gave up"), "--give-up: %d, %s", status,
          output(&client, "err"));
    process_end(&client);
}

/* The client against servers that misbehave. */
static void test_client_protocol(void)
{
#define KEY "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
#define ANSWER(status, length, body) "HTTP/1.1 " status " X\r\nContent-Length: " length "\r\n\r\n" body
    static const char
        *const garbage[] = { "what?\r\n" },
               *const no_key[] = { ANSWER("200", "3", "key") },
               *const odd_id[] = { ANSWER("200", "88", KEY), ANSWER("200", "3", "a\nb") },
               *const word[] = { ANSWER("200", "88", KEY), ANSWER("200", "9", "wrong_key") },
               *const full[] = { ANSWER("503", "11", "server_full"),
                                 ANSWER("503", "11", "server_full"), ANSWER("200", "3", "key") },
               *const later[] = { ANSWER("503", "9", "try_later"), ANSWER("503", "9", "try_later"),
                                  ANSWER("200", "3", "key") },
               *const odd[] = { ANSWER("200", "88", KEY), ANSWER("500", "0", "") },
               *const forgets[] = { ANSWER("200", "88", KEY), ANSWER("403", "9", "wrong_key"),
                                    ANSWER("200", "88", KEY), ANSWER("403", "9", "wrong_key") };
    static const struct {
        const char *const *texts;
        int n;
        bool close;
        const char *err, *why;
    } rows[] = {
        { garbage, 1, false, "does not answer in HTTP", "no HTTP" },
        { no_key, 1, false, "no key", "no key" },
        { full, 3, false, "says server_full (miss 2)", "has no room for a while" },
        { later, 3, false, "says try_later (miss 2)", "has no Redis for a while" },
        { odd, 2, false, "status 500", "an odd status for the login" },
        { odd_id, 2, false, "no ID", "no ID: nobody is killed for that" },
        { word, 2, false, "no ID", "a word of the protocol is no ID" },
        { forgets, 4, false, "wrong_key", "forgets the key twice" },
        { forgets, 4, true, "wrong_key", "the same, with a connection each" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        script s;
        process client;
        char port[8];
        if (!script_start(&s, rows[i].texts, rows[i].n, rows[i].close)) return;
        snprintf(port, sizeof port, "%d", s.port);
        START(&client, PROGRAM("client"), "--give-up", "5", "127.0.0.1", port);
        int status = process_wait(&client, PATIENCE_MS);
        CHECK(status == 4 && strstr(output(&client, "err"), rows[i].err), "%s: status %d, \"%s\"",
              rows[i].why, status, output(&client, "err"));
        process_end(&client);
        script_stop(&s);
    }
}

/* What every program says alike to these words, before and after its first one. */
#define EVERY_WORD(program, first)                                                                        \
        { { PROGRAM(program) }, 2, "", "usage: " },                                                       \
        { { PROGRAM(program), "-h" }, 0, "usage: ", "" },                                                 \
        { { PROGRAM(program), "--help" }, 0, "usage: ", "" },                                             \
        { { PROGRAM(program), "--version" }, 0, " " KA_VERSION, "" },                                     \
        { { PROGRAM(program), "nonsense" }, 2, "", "nonsense: server" },                              \
        { { PROGRAM(program), first, "-h" }, 0, "usage: ", "" },                                          \
        { { PROGRAM(program), first, "--help" }, 0, "usage: ", "" },                                      \
        { { PROGRAM(program), first, "--version" }, 0, " " KA_VERSION, "" },                              \
        { { PROGRAM(program), first, "--nonsense" }, 2, "", "no such option" }

static const struct {
    const char *argv[8];
    int status;
    const char *out, *err;
} command_lines_rows[] = {
    { { PROGRAM("server"), "--help" }, 0, "usage: server", "" },
    { { PROGRAM("server"), "-h" }, 0, "usage: server", "" },
    { { PROGRAM("server"), "--port", "1", "-h" }, 0, "usage: server", "" },
    { { PROGRAM("server"), "--version" }, 0, "server " KA_VERSION, "" },
    { { PROGRAM("server"), "--prot", "1" }, 2, "", "no such option" },
    { { PROGRAM("server"), "9999" }, 2, "", "no such option" },
    { { PROGRAM("server"), "--port" }, 2, "", "needs a value" },
    { { PROGRAM("server"), "--port", "65536" }, 2, "", "from 0 to 65535" },
    { { PROGRAM("server"), "--port", "1x" }, 2, "", "whole number" },
    { { PROGRAM("server"), "--workers", "0" }, 2, "", "from 1 to 64" },
    { { PROGRAM("server"), "--max-keys", "-1" }, 2, "", "whole number" },
    { { PROGRAM("server"), "--ttl", "" }, 2, "", "needs a value" },
    { { PROGRAM("server"), "--ip", "a..b" }, 2, "", "a..b: there is no such host" },
    { { PROGRAM("server"), "--ip", "127.0.0.1,a..b" }, 2, "", "a..b: there is no such host" },
    { { PROGRAM("server"), "--ip", "127.0.0.1,", "--port", "0" }, 2, "", "there is no such host" },
    { { PROGRAM("server"), "--ip", "192.0.2.1" }, 1, "", "not an address of this machine" },
    { { PROGRAM("server"), "--port", "0", "--ip",
        "127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,"
        "127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1" },
      2,
      "",
      "these are too many addresses" },
    { { PROGRAM("server"), "--port", "0", "--ip", "fe80::1" },
      2,
      "",
      "a link-local address needs its interface" },
    { { PROGRAM("client"), "fe80::1", "9" }, 2, "", "the address of one machine is needed" },
    { { PROGRAM("server"), "--ask-rate", "0" }, 2, "", "--ask-rate 0: one whole number, or two" },
    { { PROGRAM("server"), "--ask-rate", "5," }, 2, "", "one whole number, or two" },
    { { PROGRAM("server"), "--ask-rate", "5,1,1" }, 2, "", "one whole number, or two" },
    { { PROGRAM("server"), "--ask-rate", "12345678901234567890123456789" },
      2,
      "",
      "one whole number, or two" },
    { { PROGRAM("server"), "--log-json" }, 2, "", "--log-json needs --log FILE" },
    { { PROGRAM("server"), "--log", "no-such-folder/log" },
      1,
      "",
      "cannot log to no-such-folder/log: its folder is not there" },
    { { PROGRAM("server"), "--log", "." }, 1, "", "cannot log to .: it is " },
    { { PROGRAM("server"), "--metrics", "9100" }, 2, "", "--metrics 9100: HOST:PORT is needed" },
    { { PROGRAM("server"), "--metrics", "a..b:9100" }, 2, "", "there is no such host" },
    { { PROGRAM("server"), "--metrics", "127.0.0.1:0" }, 2, "", "HOST:PORT is needed" },
    { { PROGRAM("server"), "--metrics", "127.0.0.1:65536" }, 2, "", "HOST:PORT is needed" },
    { { PROGRAM("server"), "--ip", "fd:77", "--port", "0" },
      2,
      "",
      "--ip fd:77: this is no socket that listens" },
    { { PROGRAM("server"), "--max-per-peer", "0" }, 2, "", "from 1 to 1000000" },
    { { PROGRAM("server"), "--host", "http://a" }, 2, "", "names without ports are needed" },
    { { PROGRAM("server"), "--redis" }, 2, "", "needs a value" },
    { { PROGRAM("server"), "--redis", "localhost,password=hush" }, 2, "", "HOST:PORT" },
    { { PROGRAM("server"), "--redis", "localhost:0,password=hush" }, 2, "", "HOST:PORT" },
    { { PROGRAM("server"), "--redis", "localhost:1,password=hush,x" }, 2, "", "HOST:PORT" },
    { { PROGRAM("server"), "--redis", "localhost:1,prefix=" PRINTABLE_256 "x" },
      2,
      "",
      "HOST:PORT" },
    { { PROGRAM("server"), "--redis", ":1,prefix=" PRINTABLE_256 ",password=hush" },
      2,
      "",
      "HOST:PORT" },
    { { PROGRAM("server"), "--redis", "redis://:hush@a/1" }, 2, "", "use ,prefix=TEXT" },
    { { PROGRAM("server"), "--redis", "rediss://:hush@a" }, 2, "", "there is no TLS here" },
    { { PROGRAM("server"), "--redis", "a:1,password-file=no-such-folder/hush" },
      1,
      "",
      "password-file= can't be read" },
    { { PROGRAM("server"), "--redis=redis://:hush@a" }, 2, "", "--redis: no such option" },
    { { PROGRAM("server"), "redis://:hush@a" }, 2, "", "redis: no such option" },
    { { PROGRAM("server"), "--redis=localhost:1,password=hush" },
      2,
      "",
      "--redis: no such option" },
    { { PROGRAM("server"), "--redis", "a:1,password=hush", "--journal", "x" },
      2,
      "",
      "goes without" },
    { { PROGRAM("server"), "--redis", "a:1", "--max-keys", "1" }, 2, "", "goes without" },
    { { PROGRAM("server"), "--wrong", "--redis", "a:1" }, 2, "", "goes without" },
    { { PROGRAM("client"), "--help" }, 0, "usage: client", "" },
    { { PROGRAM("client"), "-h" }, 0, "usage: client", "" },
    { { PROGRAM("client"), "--version" }, 0, "client " KA_VERSION, "" },
    { { PROGRAM("client") }, 2, "", "HOST PORT or unix:PATH is needed" },
    { { PROGRAM("client"), "127.0.0.2" }, 2, "", "HOST PORT or unix:PATH is needed" },
    { { PROGRAM("client"), "127.0.0.2", "0" }, 2, "", "a port from 1 to 65535" },
    { { PROGRAM("client"), "127.0.0.2", "x" }, 2, "", "a port from 1 to 65535" },
    { { PROGRAM("client"), "a..b", "9999" }, 2, "", "there is no such host" },
    { { PROGRAM("client"), "--give-up", "0", "127.0.0.2", "1" }, 2, "", "whole number" },
    { { PROGRAM("client"), "--give-up", "127.0.0.2", "1" }, 2, "", "whole number" },
    { { PROGRAM("client"), "--bogus", "1" }, 2, "", "no such option" },
    { { PROGRAM("client"), "a", "1", "--give-up", "2" }, 2, "", "options go before it" },
    { { PROGRAM("server"), "--ip", "255.255.255.255" }, 1, "", "not an address of this machine" },
    { { PROGRAM("server"), "--ip", "224.0.0.1" }, 1, "", "not an address of this machine" },
    { { PROGRAM("server"), "--ip", "239.1.2.3" }, 1, "", "not an address of this machine" },
    { { PROGRAM("server"), "--ip", "127.255.255.255" }, 1, "", "not an address of this machine" },
    { { PROGRAM("client"), "255.255.255.255", "9" },
      2,
      "",
      "the address of one machine is needed" },
    { { PROGRAM("client"), "224.0.0.1", "9" }, 2, "", "the address of one machine is needed" },
    { { PROGRAM("client"), "239.255.255.255", "9" },
      2,
      "",
      "the address of one machine is needed" },
    { { PROGRAM("client"), "ff02::1", "9" }, 2, "", "the address of one machine is needed" },
    { { PROGRAM("client"), "::", "9" }, 2, "", "the address of one machine is needed" },
    { { PROGRAM("client"), "0.0.0.0", "9" }, 2, "", "the address of one machine is needed" },
    { { PROGRAM("examples/codes/codes"), "server", "--ip", "255.255.255.255", "--log",
        ".test-messages" },
      1,
      "",
      "not an address of this" },
    { { PROGRAM("examples/gate/gate"), "server", "--ip", "255.255.255.255", "--port", "0" },
      1,
      "",
      "not an address of this" },
    { { PROGRAM("examples/relay/relay"), "server", "--ip", "255.255.255.255", "--port", "0" },
      1,
      "",
      "not an address of this" },
    { { PROGRAM("examples/fleet/fleet"), "server", "--ip", "255.255.255.255", "--tcp-port", "0" },
      1,
      "",
      "not an address of this" },
    { { PROGRAM("examples/codes/codes"), "client", "224.0.0.1", "1" }, 2, "", "of one machine" },
    { { PROGRAM("examples/gate/gate"), "client", "224.0.0.1", "1", "/" }, 2, "", "of one machine" },
    { { PROGRAM("examples/relay/relay"), "client", "0.0.0.0", "1" }, 2, "", "of one machine" },
    EVERY_WORD("examples/codes/codes", "server"),
    EVERY_WORD("examples/codes/codes", "client"),
    EVERY_WORD("examples/gate/gate", "server"),
    EVERY_WORD("examples/gate/gate", "client"),
    EVERY_WORD("examples/relay/relay", "server"),
    EVERY_WORD("examples/relay/relay", "client"),
    EVERY_WORD("examples/relay/relay", "load"),
    EVERY_WORD("examples/fleet/fleet", "server"),
    EVERY_WORD("examples/fleet/fleet", "device"),
};

static void test_command_lines(void)
{
    for (size_t i = 0; i < COUNT(command_lines_rows); i += (size_t)alike()) {
        process p;
        char line[512] = "";
        for (int k = 0; command_lines_rows[i].argv[k]; k++)
            snprintf(line + strlen(line), sizeof line - strlen(line), "%s ",
                     command_lines_rows[i].argv[k]);
#ifdef _WIN32
        if (strcmp(command_lines_rows[i].argv[1] ? command_lines_rows[i].argv[1] : "", "--ttl") ==
            0)
            continue;      /* an empty argument needs quotes there */
#endif
        if (!process_start(&p, 0, command_lines_rows[i].argv)) continue;
        int status = process_wait(&p, PATIENCE_MS);
        CHECK(status == command_lines_rows[i].status &&
                  strstr(output(&p, "out"), command_lines_rows[i].out) &&
                  strstr(output(&p, "err"), command_lines_rows[i].err) &&
                  !*output(&p, *command_lines_rows[i].out ? "err" : "out") &&
                  !strstr(output(&p, "err"), "hush"),
              "%s: status %d, \"%s\", \"%s\"", line, status, output(&p, "out"), output(&p, "err"));
        process_end(&p);
    }
    (void)remove(".test-messages");
}

/* With stderr closed, no socket takes its number: what is printed must not go to the peer. */
static void test_closed_stderr(void)
{
#ifdef _WIN32
    skip("closed stderr", "no numbers to take");
#else
    process server, client;
    char port[8], line[128];
    if (cannot_restart() || !server_start(&server, port, NULL, NULL)) return;
    snprintf(line, sizeof line, "exec ../client %s %s 2>&-", SERVER_IP, port);
    START(&client, "/bin/sh", "-c", line);
    int status = process_wait(&client, PATIENCE_MS);
    CHECK(status == 0 && prints_one_id(&client), "client: status %d, %s", status,
          output(&client, "out"));
    process_end(&client);
    process_end(&server);
#endif
}

#ifdef _WIN32
#define EOL "\r\n"
#else
#define EOL "\n"
#endif

/* No room for another key. */
static void test_server_full(void)
{
    process server, second;
    char port[8];
    int n = server_start(&server, port, "--max-keys", "2");
    CHECK(strncmp(post(n, "ask_key=a"), "200 ", 4) == 0 &&
              strncmp(post(n, "ask_key=b"), "200 ", 4) == 0,
          "room for two");
    CHECK(strcmp(post(n, "ask_key=c"), "503 server_full") == 0, "not for three: %s",
          post(n, "ask_key=c"));
    for (int i = 0; i < 5; i++) post(n, "ask_key=c");
    await_output(&server, "err", "logins go on");
    CHECK(strcmp(output(&server, "err"),
                 "server: full (--max-keys) at 2 keys; new keys are refused with server_full until "
                 "there is room, logins go on" EOL) == 0,
          "told once: %s", output(&server, "err"));
    START(&second, PROGRAM("client"), "--give-up", "1", SERVER_IP, port);
    int gave_up = process_wait(&second, PATIENCE_MS);
    CHECK(gave_up == 3 && strstr(output(&second, "err"), "gave up") &&
              strstr(output(&second, "err"), "server_full"),
          "a client gives up: %d, %s", gave_up, output(&second, "err"));
    process_end(&second);
    process_end(&server);

    const char *full[] = { PROGRAM("server"), "--ip", SERVER_IP, "--port", "0", "--max-keys", "2",
                           "--ttl",           "1",    "--stats", NULL };
    if (process_start(&server, 0, full) && await_output(&server, "out", "\n") &&
        sscanf(output(&server, "out"), "listening on " SERVER_IP ":%d", &n) == 1) {
        for (int i = 0; i < 4; i++) post(n, "ask_key=a");
        await_output(&server, "err", "full (--max-keys) at 2 keys");
        await_output(&server, "err", "2 keys, 2 refused, ");
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             !strstr(output(&server, "err"), "room for keys again") && ka_now_ms() < until;
             ka_sleep_ms(1500))
            post(n, "ask_key=b");
        CHECK(strstr(output(&server, "err"), "server: there is room for keys again"),
              "told when it is over: %s", output(&server, "err"));
    }
    process_end(&server);
}

static void test_server_options(void)
{
    process server, second;
    char port[8], key[KA_KEY_TEXT + 32];
    int n = server_start(&server, port, "--ttl", "1");
    snprintf(key, sizeof key, "login=%s", post(n, "ask_key=short") + 4);
    CHECK(strcmp(post(n, key), "200 short") == 0, "good at first: %s", post(n, key));
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         strcmp(post(n, key), "403 wrong_key") != 0 && ka_now_ms() < until;)
        ka_sleep_ms(50);
    CHECK(strcmp(post(n, key), "403 wrong_key") == 0, "over after its time");
    START(&second, PROGRAM("server"), "--ip", SERVER_IP, "--port", port);
    int status = process_wait(&second, PATIENCE_MS);
    CHECK(status == 1 && strstr(output(&second, "err"), "taken by another program"),
          "port taken: %d, %s", status, output(&second, "err"));
    process_end(&second);
    process_end(&server);

    snprintf(key, sizeof key, "127.0.0.1:%d,password=hush", free_port());
    n = server_start(&server, port, "--redis", key);
    CHECK(strcmp(post(n, "ask_key=a"), "503 try_later") == 0 &&
              strcmp(post(n, "login=a"), "403 wrong_key") == 0,
          "no Redis: %s", post(n, "ask_key=a"));
    await_output(&server, "err", "is down: the server is offline; "
                                 "keys are refused with try_later until it is back");
    process_end(&server);

    n = server_start(&server, port, "--stats", NULL);
    post(n, "ask_key=a");
    await_output(&server, "err", "1 keys, 0 refused, ");
    CHECK(strcmp(output(&server, "out"), "") != 0, "one line on stdout all the same");
    process_end(&server);

    n = server_start(&server, port, "--workers", "4");
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "login=%s", post(n, "ask_key=many") + 4);
        if (strcmp(post(n, key), "200 many") != 0) CHECK(false, "four workers: %s", post(n, key));
    }
    process_end(&server);
}

/* POST with these fields as well: "STATUS TEXT". */
static const char *post_with(int port, const char *host, const char *fields, const char *body)
{
    static wire w;
    static char said[512];
    char text[256], head[KA_MAX_HEAD];
    if (!wire_open_at(&w, SERVER_IP, port)) return "no connection";
    snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n\r\n%s",
             host, fields, (int)strlen(body), body);
    wire_text(&w, head);
    int status = wire_answer(&w, text, sizeof text, head, false);
    snprintf(said, sizeof said, "%d %s%s", status, text, strstr(head, "ccess-") ? " granted" : "");
    wire_close(&w);
    return said;
}

/* What browsers send for pages of other sites leaves the keyring as it is, and is told of once. */
/* One address asks for too many keys, and a client waits until it may. */
static void test_server_limits(void)
{
    static ka_client c;
    process server, client;
    char port[8];
    ka_str answer;
    int n = server_start(&server, port, "--ask-rate", "2,5"), given = 0, refused = 0;
    for (int i = 0; i < 12; i++) {
        const char *said = post_on(&c, n, "ask_key=a");
        given += strncmp(said, "200 ", 4) == 0;
        refused += strcmp(said, "429 try_later") == 0;
    }
    ka_client_close(&c);
    CHECK(given >= 5 && given + refused == 12, "%d given, %d refused", given, refused);
    c = (ka_client){ .ip = SERVER_IP, .port = n };
    CHECK(ka_client_post(&c, "login=a", 7, &answer) == 403, "logins have no limit");
    ka_client_close(&c);
    CHECK(await_output(&server, "err", "server: refused of late: ") &&
              await_output(&server, "err", " asks (most by 127.0.0."),
          "told: %s", output(&server, "err"));
    START(&client, PROGRAM("client"), "--give-up", "60", SERVER_IP, port);
    int status = process_wait(&client, PATIENCE_MS);
    CHECK(cannot_restart() || (status == 0 && prints_one_id(&client)),
          "it waits, and gets one: %d, %s", status, output(&client, "err"));
    process_end(&client);
    process_end(&server);
}

static void test_server_cross_site(void)
{
    static const struct { const char *host, *fields, *why; bool refused; } rows[] = {
        { "localhost", "Origin: http://localhost:8000\r\nContent-Type: text/plain\r\n",
          "another port", true },
        { "evil.example", "Origin: http://evil.example\r\n", "DNS rebinding", true },
        { SERVER_IP, "Sec-Fetch-Site: cross-site\r\n", "another site", true },
        { SERVER_IP, "Origin: http://" SERVER_IP "\r\n", "a page of the server's own", false },
        { "proxy.example", "", "a program, by a proxy", false },
        { "keys.example:8", "Origin: https://keys.example:8\r\n", "a host that was named", false },
    };
    static const char refused[] = "403 wrong_query";
    process server;
    char port[8];
    const char *said;
    int n = server_start(&server, port, "--host", "keys.example");
    if (!n) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        said = post_with(n, rows[i].host, rows[i].fields, "ask_key=me");
        bool key = strncmp(said, "200 ", 4) == 0 && strlen(said) == 4 + KA_KEY_TEXT;
        CHECK(rows[i].refused ? strcmp(said, refused) == 0 : key, "%s: %s", rows[i].why, said);
    }
    await_output(&server, "err", "see --host");
    const char *told = strstr(output(&server, "err"), "see --host");
    CHECK(told && !strstr(told + 1, "see --host"), "told once: %s", output(&server, "err"));
    process_end(&server);

    n = server_start(&server, port, "--max-keys", "1");
    said = post_with(n, SERVER_IP, "Sec-Fetch-Site: same-site\r\n", "ask_key=me");
    CHECK(strcmp(said, refused) == 0, "no room was taken: %s", said);
    CHECK(strncmp(post(n, "ask_key=me"), "200 ", 4) == 0, "there is room still");
    process_end(&server);

    n = server_start(&server, port, "--wrong", NULL);
    said = post_with(n, SERVER_IP, "Sec-Fetch-Site: same-site\r\n", "login=abc");
    CHECK(strcmp(said, refused) == 0, "with --wrong: %s", said);
    CHECK(strncmp(post(n, "login=abc"), "200 ", 4) == 0, "programs get what --wrong says");
    process_end(&server);
}

static const subject programs_topics[] = {
    { "offline, then online", test_offline_then_online },
    { "client protocol", test_client_protocol }, { "command lines", test_command_lines },
    { "closed stderr", test_closed_stderr }, { "server options, full", test_server_full },
    { "server options", test_server_options },
    { "server cross site", test_server_cross_site }, { "server limits", test_server_limits },
};
