/* tests/ext_service.h - ext/service.h: what a service manager is told. */

#ifdef __linux__
/* NOLINTBEGIN(concurrency-mt-unsafe): nobody reads the environment meanwhile */
/* The next thing that is told, or "" after a while. */
static const char *told(int fd)
{
    static char text[64];
    struct pollfd p = { fd, POLLIN, 0 };
    ssize_t n = poll(&p, 1, PATIENCE_MS) == 1 ? recv(fd, text, sizeof text - 1, 0) : 0;
    text[n > 0 ? n : 0] = 0;
    return text;
}

static int manager_start(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(a.sun_path, path, strlen(path));
    if (*path == '@') a.sun_path[0] = 0;
    CHECK(bind(fd, (struct sockaddr *)&a,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) == 0,
          "a manager at %s", path);
    setenv("NOTIFY_SOCKET", path, 1);
    return fd;
}

/* The server, by a path and by an abstract name, with a watchdog and without. */
static void test_service(void)
{
    char folder[512], path[600], name[64];
    if (!getcwd(folder, sizeof folder)) return;
    snprintf(path, sizeof path, "%.80s/m", strlen(folder) < 80 ? folder : "/tmp");
    snprintf(name, sizeof name, "@keyauth-test-%d", (int)getpid());
    const char *const places[] = { path, name };
    for (int i = 0; i < 2; i++) {
        process server;
        int fd = manager_start(places[i]);
        if (i == 0) setenv("WATCHDOG_USEC", "100000", 1);
        else unsetenv("WATCHDOG_USEC");
        START(&server, PROGRAM("server"), "--port", "0");
        CHECK(strcmp(told(fd), "READY=1") == 0, "ready first");
        for (int k = 0; k < 3 && i == 0; k++)
            CHECK(strcmp(told(fd), "WATCHDOG=1") == 0, "and alive");
        if (!CHECK(process_interrupt(&server), "it is stopped")) return;
        const char *last = told(fd);
        while (strcmp(last, "WATCHDOG=1") == 0) last = told(fd);
        CHECK(strcmp(last, "STOPPING=1") == 0, "stopping: %s", last);
        CHECK(process_wait(&server, PATIENCE_MS) == 0, "and has stopped");
        process_end(&server);
        close(fd);
        (void)remove(path);
    }
}

/* What is no socket of a manager, and a watchdog for another process, change nothing. */
static void test_service_none(void)
{
    static const struct { const char *socket, *us, *pid; bool watched; const char *why; } rows[] = {
        { "", "100000", NULL, true, "no manager" }, { "relative", "x", NULL, false, "no path" },
        { "/no/such/socket", "-5", NULL, false, "nobody there" },
        { "/", "1", NULL, false, "less than a millisecond" },
        { "@", "100000", "1", false, "another process is watched" },
        { "/" PRINTABLE_256, "2000", NULL, true, "too long a path" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_server *s;
        ka_service v;
        ka_event ev;
        setenv("NOTIFY_SOCKET", rows[i].socket, 1);
        setenv("WATCHDOG_USEC", rows[i].us, 1);
        if (rows[i].pid) setenv("WATCHDOG_PID", rows[i].pid, 1);
        else unsetenv("WATCHDOG_PID");
        if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
        ka_service_start(&v, s);
        CHECK((v.every_ms > 0) == rows[i].watched, "%s: each %d ms", rows[i].why, (int)v.every_ms);
        CHECK(ka_listen(s, "127.0.0.1", 0) == 0 && next_event(s, &ev, KA_LISTENING) && v.ready &&
                  !v.stopping,
              "%s: ready", rows[i].why);
        ka_stop(s);
        CHECK(ka_wait(s, &ev, PATIENCE_MS) == KA_ESTOPPED && v.stopping, "%s: stopping",
              rows[i].why);
        ka_server_free(s);
    }
}

/* A server whose listener this process, too, has: it serves, and a client kills it and not this
   one. */
static void test_service_sockets(void)
{
    static const struct { const char *ip; bool kills; const char *why; } rows[] = {
        { SERVER_IP, true, "TCP" }, { "::1", true, "IPv6" }, { "unix:s", false, "a Unix socket" },
    };
    if (cannot_find() || emulator_lacks("valgrind", "valgrind 3.19 knows no pidfd_open")) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_end bound;
        ka__address a;
        ka__sock s;
        process server, client;
        char port[8], at[16];
        if (!ka__address_read(&a, rows[i].ip, 0) || ka__sock_new(&a, SOCK_STREAM, &s) < 0 ||
            ka__sock_listen(s, rows[i].ip, 0, &bound) < 0) {
            skip("service sockets", "this machine has no IPv6");
            continue;
        }
        snprintf(port, sizeof port, "%d", bound.port);
        snprintf(at, sizeof at, "%s", rows[i].ip);
        for (int wrong = 0; wrong < 2; wrong++) {
            handed = (int)s;
            bool started =
                START(&server, PROGRAM("server"), "--workers", "2", wrong ? "--wrong" : NULL);
            handed = -1;
            if (!started || !await_output(&server, "out", "listening on ")) return;
            if (bound.local) START(&client, PROGRAM("client"), "--give-up", "9", at);
            else START(&client, PROGRAM("client"), "--give-up", "9", at, port);
            int status = process_wait(&client, PATIENCE_MS), want = !wrong          ? 0
                                                                    : rows[i].kills ? 5
                                                                                    : 6;
            CHECK(status == want || (!wrong && cannot_restart()), "%s: %d, %s", rows[i].why, status,
                  output(&client, "err"));
            process_end(&client);
            CHECK(want != 5 || process_wait(&server, PATIENCE_MS) == 137,
                  "%s: the server was killed", rows[i].why);
            process_end(&server);
        }
        CHECK(!bound.local || (access)("s", F_OK) == 0, "the manager's path stays");
        ka__sock_close(s);
        (void)remove("s");
    }
}

/* Sockets for another process, and numbers of descriptors that are no sockets which listen. */
static void test_service_no_sockets(void)
{
    static const struct { const char *fds, *pid, *want; } rows[] = {
        { NULL, NULL, "x" }, { "1", NULL, "x" }, { NULL, "1", "x" }, { "1", "1", "x" },
        { "1", "me", "fd:3" }, { "2", "me", "fd:3,fd:4" }, { "0", "me", "x" }, { "-1", "me", "x" },
        { "99999", "me", "fd:3,fd:4,fd:5,fd:6,fd:7,fd:8,fd:9,fd:10,fd:11,fd:12,fd:13,fd:14,fd:15,fd:16,fd:17,fd:18" },
    };
    static const char *const ips[] = {
        "fd:", "fd:x", "fd:1x", "fd:-1", "fd:0", "fd:9999", "fd:99999999999999999999"
    };
    char me[24];
    ka_server *s;
    ka_event ev;
    snprintf(me, sizeof me, "%ld", process_number());
    for (size_t i = 0; i < COUNT(rows); i++) {
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_PID");
        if (rows[i].fds) setenv("LISTEN_FDS", rows[i].fds, 1);
        if (rows[i].pid) setenv("LISTEN_PID", strcmp(rows[i].pid, "me") == 0 ? me : rows[i].pid, 1);
        CHECK(strcmp(ka_service_ips("x"), rows[i].want) == 0, "row %d: %s", (int)i,
              ka_service_ips("x"));
    }
    unsetenv("LISTEN_PID");
    if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    for (size_t i = 0; i < COUNT(ips); i++)
        CHECK(ka_listen(s, ips[i], 0) == (int)i && next_event(s, &ev, KA_LISTENING) &&
                  ev.error == KA_EINVAL,
              "%s: %d", ips[i], ev.error);
    ka_server_free(s);
}
/* NOLINTEND(concurrency-mt-unsafe) */
#else
static void test_service_sockets(void) {}
static void test_service_no_sockets(void) {}
static void test_service(void) { skip(topic, "only Linux has such managers"); }
static void test_service_none(void) {}
#endif

static const subject ext_service_topics[] = { { "service", test_service },
                                              { "service, none", test_service_none },
                                              { "service sockets", test_service_sockets },
                                              { "service, no sockets", test_service_no_sockets } };
