/* tests/signals.h - programs and signals, and how soon they stop. */

#if defined(_WIN32)
static void test_signals(void) { skip("signals", "Windows has none of these"); }
#else
#define SIGNALS_BEGUN "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"

static const struct {
    const char *wrapped;
    int blocked, signals[3], status;
    const char *why;
} signals_rows[] = {
    { "", 0, { SIGHUP }, 0, "a closed terminal stops it in order" },
    { "", 0, { SIGHUP, SIGHUP }, 0, "a second SIGHUP is as the first one" },
    { "", 0, { SIGTERM, SIGHUP }, 0, "so is one behind SIGTERM" },
    { "", 0, { SIGHUP, SIGTERM }, 0, "and SIGTERM behind it is the first one" },
    { "", 0, { SIGTERM, SIGTERM }, 128 + SIGTERM, "the second ends it at once" },
    { "", 0, { SIGINT, SIGTERM }, 128 + SIGTERM, "whichever it is" },
    { "", 0, { SIGTERM, SIGINT }, 128 + SIGINT, "the other way" },
    { "", 0, { SIGHUP, SIGTERM, SIGTERM }, 128 + SIGTERM, "behind SIGHUP, too" },
    { "trap '' INT;", 0, { SIGINT, SIGINT, SIGTERM }, 0, "SIGINT that was ignored stays so" },
    { "trap '' HUP;", 0, { SIGHUP, SIGHUP, SIGTERM }, 0, "nohup" },
    { "trap '' TERM;", 0, { SIGTERM, SIGTERM, SIGINT }, 0, "SIGTERM that was ignored stays so" },
    { "trap '' TERM;", 0, { SIGINT, SIGTERM }, 0, "after another one, too" },
    { "", SIGTERM, { SIGTERM }, 0, "SIGTERM that was blocked" },
    { "", SIGINT, { SIGINT }, 0, "SIGINT that was blocked" },
    { "", SIGHUP, { SIGHUP }, 0, "SIGHUP that was blocked" },
    { "", 0, { SIGQUIT }, 128 + SIGQUIT, "SIGQUIT keeps its meaning" },
};

/* Which signals a server survives, and how it ends. Each comes while a request is half sent, which
   is finished then. `wrapped` is what the shell does first; a signal that is 0 ends the list. */
static void signals_to_server(void)
{
    static wire w;
    for (size_t i = 0; i < COUNT(signals_rows); i++) {
        process p;
        sigset_t blocked, before;
        char line[128], body[64];
        int port = 0, status;
        sigemptyset(&blocked);
        if (signals_rows[i].blocked) sigaddset(&blocked, signals_rows[i].blocked);
        pthread_sigmask(SIG_BLOCK, &blocked, &before);
        snprintf(line, sizeof line, "ulimit -c 0; %s exec ../server --ip " SERVER_IP " --port 0",
                 signals_rows[i].wrapped);
        bool starts = START(&p, "/bin/sh", "-c", line) && await_output(&p, "out", "\n");
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!starts || sscanf(output(&p, "out"), "listening on " SERVER_IP ":%d", &port) != 1)
            continue;
        wire_open_at(&w, SERVER_IP, port);
        wire_text(&w, SIGNALS_BEGUN);
        CHECK(wire_gets(&w, "HTTP/1.1 100 Continue\r\n\r\n"), "%s: the request is begun",
              signals_rows[i].why);
        for (int k = 0; k < 3 && signals_rows[i].signals[k]; k++) {
            kill((pid_t)pool[p].pid, signals_rows[i].signals[k]);
            ka_sleep_ms(50);      /* those of the same kind would be one */
        }
        if (signals_rows[i].status == 0) {
            wire_text(&w, "ask_key=x");
            CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 200,
                  "%s: the request is finished", signals_rows[i].why);
        }
        status = process_wait(&p, PATIENCE_MS);
        CHECK(status == signals_rows[i].status, "%s: status %d, %s", signals_rows[i].why, status,
              output(&p, "err"));
        wire_close(&w);
        process_end(&p);
    }
}

/* Every program has that from ka_stop_on_interrupt. */
static void test_signals(void)
{
    static const char *const programs[][8] = {
        { "../server", "--ip", SERVER_IP, "--port", "0" },
        { "../examples/codes/codes", "server", "--uuid-port", "0", "--text-port", "0", "--log", MESSAGES },
        { "../examples/gate/gate", "server", "--port", "0", "--token-file", TOKEN_FILE },
        { "../examples/relay/relay", "server", "--port", "0" },
        { "../examples/fleet/fleet", "server", "--tcp-port", "0", "--rest-port", "0" },
    };
    static const int harmless[] = {
        SIGPIPE,
        SIGUSR1,
        SIGUSR2,
        SIGALRM,
        SIGVTALRM,
        SIGPROF,
        SIGIO,
        SIGCHLD,
        SIGWINCH,
        SIGURG,
        SIGCONT,
#if defined(__linux__)
        SIGPWR,
        SIGSTKFLT,
#endif
    };
    if (!emulator_lacks("qemu", "its own signals are among these")) signals_to_server();
    for (size_t i = 0; i < COUNT(programs) && !emulator(); i++) {
        process p;
        const char *argv[9] = { NULL };
        memcpy(argv, programs[i], sizeof programs[i]);
        if (!process_start(&p, 0, argv) || !await_output(&p, "out", "\n")) continue;
        for (size_t k = 0; k < COUNT(harmless); k++) kill((pid_t)pool[p].pid, harmless[k]);
#if defined(SIGRTMIN)
        for (int k = SIGRTMIN; k <= SIGRTMAX; k++) kill((pid_t)pool[p].pid, k);
#endif
        int status = process_wait(&p, 100);
        CHECK(status == -1, "%s survives harmless signals: status %d", argv[0], status);
        kill((pid_t)pool[p].pid, SIGHUP);
        status = process_wait(&p, PATIENCE_MS);
        CHECK(status == 0 && !*output(&p, "err"), "%s ends in order: %d, %s", argv[0], status,
              output(&p, "err"));
        process_end(&p);
    }
    (void)remove(MESSAGES);
    gate_remove();
}
#endif

/* Half-sent requests, peers that don't read, a Redis and a webhook that never answer: every program
   ends within 10 s of SIGTERM, as `docker stop` kills then. They wait beside each other. */
static void test_stop_in_time(void)
{
#if defined(_WIN32)
    skip("stop in time", "Windows has no SIGTERM");
#else
    static const struct { const char *command, *texts[2]; int times; const char *why; } rows[] = {
        { "../server --ip 127.0.0.1 --port %d", { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask" }, 1, "half a request" },
        { "../server --ip 127.0.0.1 --port %d", { "GET / HTTP/1.1\r\nHost: a\r\n\r\n" }, 100000, "a peer that does not read" },
        { "../server --ip 127.0.0.1 --port %d --redis 127.0.0.1:$H",
          { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x" },
          1, "Redis hangs" },
        { "../examples/codes/codes server --uuid-port 0 --text-port %d --log " MESSAGES, { "POST / HTTP/1.1\r\nHost: a\r\n" }, 1, "half a head" },
        { "../examples/gate/gate server --port %d --many --token-file " TOKEN_FILE, { "{\"url\": " }, 1, "half a package" },
        { "../examples/relay/relay server --port %d", { "message x\n", "message y\nmessage " }, 1, "messages that are held, and half a line" },
        { "../examples/fleet/fleet server --tcp-port 0 --rest-port %d --redis 127.0.0.1:$H --webhook http://127.0.0.1:$H/",
          { "GET /events HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" },
          1, "a stream, and half a request" },
        { "../examples/fleet/fleet server --rest-port 0 --tcp-port %d --redis 127.0.0.1:$H", { "{\"type\": \"conn", "{" }, 1, "half a message" },
    };
    enum { ROWS = COUNT(rows) };
    static wire w[ROWS][2];
    process p[ROWS];
    ka__sock hangs;
    int hangs_at = 0;
    if (sock_listen(&hangs, &hangs_at) < 0) abort();
    for (int i = 0; i < ROWS; i++) {
        char line[256], *at;
        int port = free_port();
        snprintf(line, sizeof line, "exec ");
        snprintf(line + 5, sizeof line - 5, rows[i].command, port);
        while ((at = strstr(line, "$H")) != NULL) {
            char rest[256];
            snprintf(rest, sizeof rest, "%s", at + 2);
            snprintf(at, sizeof line - (size_t)(at - line), "%d%s", hangs_at, rest);
        }
        START(&p[i], "/bin/sh", "-c", line);
        await_output(&p[i], "out", "\n");
        for (int k = 0; k < 2; k++) {
            for (int64_t until = ka_now_ms() + PATIENCE_MS;
                 wire_try(&w[i][k], "127.0.0.1", port) < 0 && ka_now_ms() < until;)
                ka_sleep_ms(5);
            for (int n = 0; n < rows[i].times && rows[i].texts[k]; n++)
                if (ka__sock_send(w[i][k].sock, rows[i].texts[k], strlen(rows[i].texts[k])) < 0)
                    break;
        }
    }
    ka_sleep_ms(300);
    for (int i = 0; i < ROWS; i++) kill((pid_t)pool[p[i]].pid, SIGTERM);
    for (int i = 0, ms = 0; i < ROWS; i++) {
        int took, status = process_wait_timed(&p[i], &took);
        ms += took;
        CHECK(status == 0 && (emulator() || ms < 10000), "%s, %s: status %d after %d ms",
              rows[i].command, rows[i].why, status, ms);
        for (int k = 0; k < 2; k++) wire_close(&w[i][k]);
        process_end(&p[i]);
    }
    ka__sock_close(hangs);
    (void)remove(MESSAGES);
    gate_remove();
#endif
}

static const subject signals_topics[] = {
    { "signals", test_signals }, { "stop in time", test_stop_in_time },
};
