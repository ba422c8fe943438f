/* tests/descriptors.h - descriptors: their limit, and where they go. */

#ifdef _WIN32
static void test_descriptor_limit(void) { skip(topic, "Windows has none to set"); }
static void test_descriptor_limit_begun(void) { skip(topic, "Windows has none to set"); }
static void test_descriptor_limit_workers(void) { skip(topic, "Windows has none to set"); }
static void test_descriptor_limit_last(void) { skip(topic, "Windows has none to set"); }
#else
enum { LIMIT = 40, IDLE = 100 };
#define HALF "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask"

/* Start the server with so few descriptors. 0: it can't be done here. */
static int limited_start(process *server, const char *option, const char *value)
{
    char port[8];
    if (emulator_lacks("valgrind", "valgrind needs descriptors of its own")) return 0;
    return server_start_limited(server, port, LIMIT, option, value);
}

/* Connections with half a request. */
static void halves_open(wire *w, int n, int port)
{
    for (int i = 0; i < n; i++) {
        wire_open_at(&w[i], SERVER_IP, port);
        wire_text(&w[i], HALF);
    }
}

/* Send the other half on each, one after the other: how many are answered. Those that `leave` make
   room for others. */
static int halves_served(wire *w, int n, bool leave)
{
    char body[128];
    int served = 0;
    for (int i = 0; i < n; i++) {
        wire_text(&w[i], "_key=x");
        served += wire_answer(&w[i], body, sizeof body, NULL, false) == 200;
        if (leave) wire_close(&w[i]);
    }
    for (int i = 0; i < n && !leave; i++) wire_close(&w[i]);
    return served;
}

/* The connection that has been idle longest makes room for a newcomer; one with a request under way
   does not. */
static void test_descriptor_limit(void)
{
    static wire idle[IDLE], begun;
    process server;
    char body[128];
    int n = limited_start(&server, NULL, NULL);
    if (!n) return;
    wire_open_at(&begun, SERVER_IP, n);
    wire_text(&begun, HALF);
    for (int i = 0; i < IDLE; i++) wire_open_at(&idle[i], SERVER_IP, n);
    CHECK(strncmp(post(n, "ask_key=x"), "200 ", 4) == 0, "a newcomer is served");
    CHECK(wire_answer(&idle[0], body, sizeof body, NULL, false) == 0,
          "the first idle one had to go");
    wire_text(&idle[IDLE - 1], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wire_answer(&idle[IDLE - 1], body, sizeof body, NULL, false) == 405,
          "the last one is still there");
    wire_text(&begun, "_key=x");
    CHECK(wire_answer(&begun, body, sizeof body, NULL, false) == 200,
          "and so is the request that was begun");
    for (int i = 0; i < IDLE; i++) wire_close(&idle[i]);
    wire_close(&begun);
    process_end(&server);
}

/* All have a request under way: a newcomer waits until one ends, and is served then. */
static void test_descriptor_limit_begun(void)
{
    static wire more[LIMIT];
    process server;
    int n = limited_start(&server, NULL, NULL);
    if (!n) return;
    halves_open(more, LIMIT, n);
    int served = halves_served(more, LIMIT, true);
    CHECK(served == LIMIT, "%d of %d served in the end", served, LIMIT);
    process_end(&server);
}

/* Two workers, and the requests end one by one but stay connected: they make room, whosever they
   are. */
static void test_descriptor_limit_workers(void)
{
    static wire idle[IDLE];
    process server;
    int n = limited_start(&server, "--workers", "2");
    if (!n) return;
    halves_open(idle, IDLE, n);
    int served = halves_served(idle, IDLE, false);
    CHECK(served == IDLE, "%d of %d served in the end", served, IDLE);
    process_end(&server);
}

/* The last place is given to who comes, and not taken back from them. */
static void test_descriptor_limit_last(void)
{
    static wire more[LIMIT];
    process server;
    int n = limited_start(&server, NULL, NULL);
    if (!n) return;
    /* More and more are under way, until a newcomer finds no place. */
    for (int i = 0; i < LIMIT; i++) {
        wire_open_at(&more[i], SERVER_IP, n);
        ka_sleep_ms(5);                    /* it is idle, and new, when the server looks */
        if (!wire_text(&more[i], HALF)) CHECK(false, "newcomer %d was pushed out", i);
    }
    int served = halves_served(more, LIMIT, true);
    CHECK(served == LIMIT, "%d of %d served", served, LIMIT);
    process_end(&server);
}
#undef HALF
#endif

#if defined(__linux__)
/* Sockets in this thread's table of descriptors that listen, and all others. */
static void sockets_count(int *listening, int *others)
{
    *listening = *others = 0;
    for (int fd = 0; fd < 1024; fd++) {
        int on = 0;
        socklen_t n = sizeof on;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) != 0) continue;
        ++*(on ? listening : others);
    }
}

/* Descriptors of processes, in the tables of all threads. */
static int process_descriptors(void)
{
    int found = 0;
    DIR *threads = opendir("/proc/self/task"), *fds;
    for (struct dirent *t; threads && (t = readdir(threads)) != NULL; ) {
        char path[600], to[64];
        snprintf(path, sizeof path, "/proc/self/task/%.200s/fd", t->d_name);
        if (t->d_name[0] == '.' || (fds = opendir(path)) == NULL) continue;
        for (struct dirent *d; (d = readdir(fds)) != NULL; ) {
            snprintf(path, sizeof path, "/proc/self/task/%.200s/fd/%.200s", t->d_name, d->d_name);
            ssize_t n = readlink(path, to, sizeof to - 1);
            to[n > 0 ? n : 0] = 0;
            found += strstr(to, "pidfd") != NULL;
        }
        closedir(fds);
    }
    if (threads) closedir(threads);
    return found;
}
#endif

/* The process's main table has the listener, for ss and lsof, and no connection; a worker's own
   table has nothing that was open before. A server that has ended holds nothing, whatever table it
   was in. */
static void test_descriptors(void)
{
#if defined(__linux__)
    enum { WORKERS = 3, CLIENTS = 30 };
    static wire wires[CLIENTS];
    fixture f;
    char body[64];
    int before[2], after[2], ends[2], served = 0;
    if (pipe(ends) != 0 || !fixture_start(&f, ECHO, WORKERS + KA_OWN_DESCRIPTORS)) return;
    if (!f.s->workers[0]->own_table) {
        skip("descriptors",
             "no tables of their own here (ThreadSanitizer, a sandbox, or Linux before 5.9)");
        close(ends[0]);
        close(ends[1]);
        fixture_stop(&f);
        return;
    }
    ambush.call = F_pidfd_getfd;
    ambush.run = not_permitted;
    CHECK(!ka__table_can(ends[0]) && !ambush.run, "the main table's descriptors can't be had");
    sockets_count(&before[0], &before[1]);
    for (int i = 0; i < CLIENTS; i++) {
        wire_open(&wires[i], f.port);
        wire_text(&wires[i], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        served += wire_answer(&wires[i], body, sizeof body, NULL, false) == 200;
    }
    sockets_count(&after[0], &after[1]);
    CHECK(served == CLIENTS, "%d of %d served", served, CLIENTS);
    CHECK(before[0] == 1, "the listener is in the main table: %d are", before[0]);
    CHECK(after[1] - before[1] == CLIENTS,
          "of %d connections, their clients' ends are in the main table, and %d more", CLIENTS,
          after[1] - before[1] - CLIENTS);
    CHECK(process_descriptors() == 0, "a worker holds no descriptor of its process");
    close(ends[1]);
    struct pollfd p = { ends[0], POLLIN, 0 };
    CHECK(poll(&p, 1, PATIENCE_MS) == 1 && (p.revents & POLLHUP), "no worker holds the pipe open");
    close(ends[0]);
    for (int i = 0; i < CLIENTS; i++) wire_close(&wires[i]);
    int port = f.port;
    fixture_stop(&f);
    ka__sock s;
    int r = sock_listen_at(&s, "127.0.0.1", &port);
    CHECK(r == KA_OK, "the port is free at once: got %s", ka_error_text(r));
    ka__sock_close(s);
#else
    skip("descriptors", "one table for all threads here");
#endif
}

static const subject descriptors_topics[] = {
    { "descriptor limit", test_descriptor_limit },
    { "descriptor limit, begun", test_descriptor_limit_begun },
    { "descriptor limit, workers", test_descriptor_limit_workers },
    { "descriptor limit, last", test_descriptor_limit_last }, { "descriptors", test_descriptors },
};
