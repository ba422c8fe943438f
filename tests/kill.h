/* tests/kill.h - ext/process.h: the restart and the kill. */

/* Start the server; its port, as a number and as text. */
static int server_start_limited(process *p, char port[8], int max_files, const char *option,
                                const char *value)
{
    const char *argv[] = { PROGRAM("server"), "--ip", SERVER_IP, "--port",
                           free_port_text(),  option, value,     NULL };
    int n = 0;
    port[0] = 0;
    if (!process_start(p, max_files, argv) || !await_output(p, "out", "\n")) return 0;
    const char *line = output(p, "out");
    CHECK(sscanf(line, "listening on " SERVER_IP ":%d", &n) == 1, "its one line: %s", line);
    snprintf(port, 8, "%d", n);
    return n;
}

static int server_start(process *p, char port[8], const char *option, const char *value)
{
    return server_start_limited(p, port, 0, option, value);
}

/* POST a body to a server process: "STATUS TEXT". */
static const char *post_on(ka_client *c, int port, const char *body)
{
    static char said[512];
    ka_str answer = { "", 0 };
    c->ip = SERVER_IP;
    c->port = port;
    int r = KA_EOFFLINE;
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         (r == KA_EOFFLINE || r == KA_ETIME) && ka_now_ms() < until;) {
        /* ka_client_post would try a refusal again. */
        r = ka__client_attempt(c, "POST", str(body), &answer, until);
        if (r == KA_EOFFLINE) ka_sleep_ms(20);
    }
    snprintf(said, sizeof said, "%d %.*s", r, (int)answer.n, answer.p);
    return said;
}

static const char *post(int port, const char *body)
{
    static ka_client c;
    const char *said = post_on(&c, port, body);
    ka_client_close(&c);
    return said;
}

static bool prints_one_id(const process *p)
{
    unsigned char raw[KA_KEY_BYTES];
    const char *out = output(p, "out");
    size_t n = strcspn(out, "\r\n");
    return n == KA_KEY_TEXT && strlen(out) <= n + 2 &&
           ka_b64_decode(raw, sizeof raw, out, n) == KA_KEY_BYTES;
}

static void test_handshake(void)
{
    process server, client[8], again;
    char port[8], id[KA_KEY_TEXT + 1];
    if (cannot_restart() || !server_start(&server, port, NULL, NULL)) return;
    for (int i = 0; i < 8; i++) START(&client[i], PROGRAM("client"), SERVER_IP, port);
    for (int i = 0; i < 8; i++) {
        int status = process_wait(&client[i], PATIENCE_MS);
        CHECK(status == 0 && prints_one_id(&client[i]),
              "eight clients at once: status %d, \"%s\", \"%s\"", status, output(&client[i], "out"),
              output(&client[i], "err"));
        CHECK(strstr(output(&client[i], "err"), "restarting") != NULL, "it restarted");
        CHECK(i == 0 || strcmp(output(&client[i], "out"), output(&client[0], "out")) != 0,
              "each with its own ID");
    }
    snprintf(id, sizeof id, "%.88s", output(&client[0], "out"));
    START(&again, PROGRAM("client"), id);
    CHECK(process_wait(&again, PATIENCE_MS) == 0 && prints_one_id(&again) &&
              strncmp(output(&again, "out"), id, KA_KEY_TEXT) == 0,
          "client ID prints the ID");
    CHECK(strcmp(output(&again, "err"), "") == 0, "and nothing else: %s", output(&again, "err"));
    process_end(&again);
    for (int i = 0; i < 8; i++) process_end(&client[i]);
    process_end(&server);
}

/* A wrong ID kills the server that gave it: no other server, no other client of that server, and
   not the client. */
static void test_kill(void)
{
    static wire other_client;
    process wrong, bystander, waiting, client;
    char port[8], bystander_port[8];
    if (cannot_find() || emulator_lacks("valgrind", "valgrind 3.19 knows no pidfd_open")) return;
    int p = server_start(&wrong, port, "--wrong", NULL),
        b = server_start(&bystander, bystander_port, "--wrong", NULL);
    if (!p || !b) return;
    CHECK(strncmp(post(p, "login=nonsense"), "200 ", 4) == 0,
          "--wrong answers any login with an ID");
    CHECK(strcmp(post(p, "login="), "400 wrong_query") == 0 &&
              strncmp(post(p, "ask_key=x"), "200 ", 4) == 0,
          "and the rest as ever");
    wire_open_at(&other_client, SERVER_IP, p);      /* this test is another client of it */
    /* This client waits for a server that is not there. */
    START(&waiting, PROGRAM("client"), SERVER_IP, "1");
    START(&client, PROGRAM("client"), SERVER_IP, port);
    int status = process_wait(&client, PATIENCE_MS), killed = process_wait(&wrong, PATIENCE_MS);
    CHECK(status == 5 && strstr(output(&client, "err"), "killed the server, process"),
          "client: status %d, \"%s\"", status, output(&client, "err"));
    CHECK(strcmp(output(&client, "out"), "") == 0, "it prints no ID");
    CHECK(killed != -1 && killed != 0, "the server has gone: %d", killed);
    CHECK(wire_more(&other_client) <= 0, "and its connections with it");
    CHECK(process_wait(&bystander, 0) == -1 && strcmp(post(b, "x=y"), "400 wrong_query") == 0,
          "the other server lives on");
    CHECK(process_wait(&waiting, 0) == -1, "the other client lives on");
    wire_close(&other_client);
    process_end(&client);
    process_end(&waiting);
    process_end(&wrong);
    process_end(&bystander);
}

static bool same_end(ka_end a, ka_end b)
{
    return a.port == b.port && memcmp(a.ip, b.ip, sizeof a.ip) == 0;
}

/* Every event of a connection has its other end. */
static void test_peer(void)
{
    static wire w;
    ka_server *s;
    ka_event ev;
    int port, peers = 0;
    if (!parent_start(&s, 2, &ka_lines, &port) || !wire_open(&w, port)) return;
    ka_end there = ka__sock_peer(w.sock), here = ka__sock_mine(w.sock);
    wire_text(&w, "a line\n");
    CHECK(next_event(s, &ev, KA_OPENED) && same_end(ev.peer, here), "opened");
    CHECK(is_ip(ev.peer, "127.0.0.1"), "the same, as text");
    CHECK(next_event(s, &ev, KA_MESSAGE) && same_end(ev.peer, here), "a message");
    wire_close(&w);
    CHECK(next_event(s, &ev, KA_CLOSED) && same_end(ev.peer, here), "closed");
    ka_connect(s, &ka_lines, NULL, "127.0.0.1", port, 1);
    for (int i = 0; i < 2 && next_event(s, &ev, KA_OPENED); i++)
        peers += ev.listener == -1 && same_end(ev.peer, there);
    CHECK(peers == 1, "one of ka_connect");
    CHECK(ka_listen(s, "127.0.0.1", 0) == 1 && next_event(s, &ev, KA_LISTENING), "HTTP");
    if (!wire_open(&w, ev.port)) return;
    here = ka__sock_mine(w.sock);
    wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n!\r\n\r\n");
    for (int i = 0; i < 3; i++) {
        CHECK(next_event(s, &ev, KA_REQUEST) && same_end(ev.peer, here), "request %d", i);
        CHECK(ka_is(ev.target, i == 0 ? "/" : i == 1 ? "/b" : ""), "and the rest of it");
    }
    wire_close(&w);
    ka_server_free(s);
}

/* A login's answer names both ends of its connection; other answers do not. */
static void test_ends(void)
{
    static const struct { const char *ip, *option, *value; } rows[] = {
        { SERVER_IP, NULL, NULL }, { "0.0.0.0", NULL, NULL }, { SERVER_IP, "--wrong", NULL },
        { "0.0.0.0", "--workers", "4" }, { SERVER_IP, "--workers", "4" },
    };
    static const struct { const char *body; bool ends; } asks[] = {
        { "ask_key=a", false }, { "login=a", true }, { "login=", true }, { "ask_key=a", false },
        { "x=y", false },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        static wire w[8];
        process server;
        int port = 0;
        START(&server, PROGRAM("server"), "--ip", rows[i].ip, "--port", "0",
              rows[i].option, rows[i].value);
        if (!await_output(&server, "out", "\n")) return;
        CHECK(sscanf(output(&server, "out"), "listening on %*[0-9.]:%d", &port) == 1, "it listens");
        for (size_t k = 0; k < COUNT(w) && wire_open_at(&w[k], SERVER_IP, port); k++) {
            for (size_t a = 0; a < COUNT(asks); a++) {
                char text[300], head[1024] = "", want[100];
                ka_end mine = ka__sock_mine(w[k].sock);
                snprintf(text, sizeof text, "POST / HTTP/1.1\r\nHost: a\r\n"
                         "Content-Length: %d\r\n\r\n%s", (int)strlen(asks[a].body), asks[a].body);
                snprintf(want, sizeof want,
                         "\r\nKeyauth-Ends: 127.0.0.1:%d " SERVER_IP ":%d %llu\r\n",
                         mine.port, port, (unsigned long long)ka__sock_network(w[k].sock));
                wire_text(&w[k], text);
                CHECK(wire_answer(&w[k], text, sizeof text, head, false) > 0, "%s", asks[a].body);
                CHECK((strstr(head, asks[a].ends ? want : "Keyauth-Ends") != NULL) == asks[a].ends,
                      "%s, %s: %s", rows[i].ip, asks[a].body, head);
            }
        }
        for (size_t k = 0; k < COUNT(w); k++) wire_close(&w[k]);
        process_end(&server);
    }
}

/* The client against answers that name ends: ours, others, malformed, twice. */
static void test_ends_differ(void)
{
    static const struct { const char *form, *why; } rows[] = {      /* C, S: ports; N: network */
        { "", NULL }, { "Keyauth-Ends: 127.0.0.1:C 127.0.0.1:S N\r\n", NULL },
        { "keyauth-ends:127.0.0.1:C 127.0.0.1:S N \r\n", NULL },
        { "Keyauth-Ends: 127.0.0.1:1 127.0.0.1:S N\r\n", "proxy" },
        { "Keyauth-Ends: 127.0.0.2:C 127.0.0.1:S N\r\n", "proxy" },
        { "Keyauth-Ends: 127.0.0.1:C 127.0.0.2:S N\r\n", "proxy" },
        { "Keyauth-Ends: 127.0.0.1:C 127.0.0.1:1 N\r\n", "proxy" },
        { "Keyauth-Ends: 127.0.0.1:C 127.0.0.1:S\r\n", "proxy" },
        { "Keyauth-Ends: 127.0.0.1:C\r\n", "proxy" }, { "Keyauth-Ends:\r\n", "proxy" },
        { "Keyauth-Ends: 127.0.0.1:C 127.0.0.1:S N1\r\n", "container" },
        { "Keyauth-Ends: 127.0.0.1:C 127.0.0.1:S N x\r\n", "container" },
        { "Keyauth-Ends: 127.0.0.1:C 127.0.0.1:1 N1\r\n", "proxy" },
        { "Keyauth-Ends: [::1]:C [::1]:S N\r\n", "proxy" },
        { "Keyauth-Ends: 127.0.0.1:C 127.0.0.1:S N\r\nKeyauth-Ends: x\r\n", "proxy" },
    };
    static ka_client c;
    ka__sock listener, s = -1;
    int64_t pid;
    int port = 0;
    memset(&c, 0, sizeof c);
    if (sock_listen(&listener, &port) < 0) abort();
    int r = ka__sock_connect(NULL, "127.0.0.1", port, &s);
    c.sock = s;
    c.open = CHECK((r == KA_OK || r == KA_EAGAIN) && wire_wait(s, KA__OUT), "connected");
    c.mine = ka__sock_mine(s);
    c.theirs = ka__sock_peer(s);
    for (size_t i = 0; i < COUNT(rows) && c.open; i++) {
        char fields[200];
        memset(fields, 0, sizeof fields);
        for (const char *f = rows[i].form; *f; f++) {
            size_t n = strlen(fields);
            unsigned long long number = ka__sock_network(s);
            if (*f == 'C') number = ka__sock_mine(s).port;
            if (*f == 'S') number = (unsigned long long)port;
            if (strchr("CSN", *f)) snprintf(fields + n, sizeof fields - n, "%llu", number);
            else fields[n] = *f;
        }
        c.between = ka__client_between(&c, &(ka__http){ .fields = str(fields) });
        CHECK(!c.between == !rows[i].why, "%s", fields);
        if (!c.between || !rows[i].why) continue;
        r = ka_client_kill_server(&c, &pid);
        CHECK(r == KA_ENOTFOUND && strstr(c.why, rows[i].why),
              "nothing is killed: %d, %s", r, c.why);
    }
    ka_client_close(&c);
    ka__sock_close(listener);
}

/* Behind a forwarder, which has the client's connection, nothing is killed; also if it has the
   client's own port. */
static void test_kill_forwarder(void)
{
    static const char *const how[] = { "forward", "forward-same" };
    if (cannot_find() || emulator_lacks("valgrind", "valgrind 3.19 knows no pidfd_open")) return;
    for (size_t i = 0; i < COUNT(how); i++) {
        process wrong, forwarder, client;
        char port[8], other[8] = "";
        if (!server_start(&wrong, port, "--wrong", NULL)) return;
        START(&forwarder, PROGRAM("test"), "--child", how[i], port);
        if (!await_output(&forwarder, "out", "\n")) return;
        CHECK(sscanf(output(&forwarder, "out"), "%7[0-9]", other) == 1, "its port");
        START(&client, PROGRAM("client"), "127.0.0.1", other);
        int status = process_wait(&client, PATIENCE_MS);
        CHECK(status == 6 && strstr(output(&client, "err"), "a proxy or forwarder stands between"),
              "status %d, \"%s\", %s", status, output(&client, "err"), output(&forwarder, "out"));
        CHECK(process_wait(&forwarder, 0) == -1 && process_wait(&wrong, 0) == -1, "both live");
        process_end(&client);
        process_end(&forwarder);
        process_end(&wrong);
    }
}

/* A wrong ID from this very process, which is not killed: the library never kills who calls it. */
static void test_no_suicide(void)
{
    static const char *const text[] = { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" };
    static ka_client c;
    script s;
    ka_str answer;
    int64_t pid;
    if (cannot_find() || !script_start(&s, text, 1, false)) return;
    memset(&c, 0, sizeof c);
    c.ip = "127.0.0.1";
    c.port = s.port;
    CHECK(ka_client_post(&c, "x=y", 3, &answer) == 200, "answered");
    int r = ka_client_kill_server(&c, &pid);
    CHECK(r == KA_EPERM && strstr(c.why, "own process"), "itself: %d, %s", r, c.why);
#ifndef _WIN32
    pid_t twin = fork();      /* holds what this process holds: nobody can tell who answered */
    if (twin == 0)
        for (;;) pause();
    r = ka_client_kill_server(&c, &pid);
    CHECK(r == KA_EINUSE && pid == 0 && strstr(c.why, "more than one"), "twins: %d, %s", r, c.why);
    kill(twin, SIGKILL);
    waitpid(twin, NULL, 0);
#endif
    ka_client_close(&c);
    script_stop(&s);

    /* nor anybody, once the connection that answered is gone: the port may be another's by now */
    if (!script_start(&s, text, 1, true)) return;
    c.port = s.port;
    CHECK(ka_client_post(&c, "x=y", 3, &answer) == 200 && wire_wait((ka__sock)c.sock, KA__IN),
          "answered, and closed");
    r = ka_client_kill_server(&c, &pid);
    CHECK(r == KA_EOFFLINE && pid == 0 && strstr(c.why, "closed the"), "gone: %d, %s", r, c.why);
    ka_client_close(&c);
    script_stop(&s);

    static const char *const more[] = { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx\v\r\n" };
    if (!script_start(&s, more, 1, false)) return;
    c.port = s.port;
    CHECK(ka_client_post(&c, "x=y", 3, &answer) == 200, "answered");
    atomic_store(&s.go, true);
    CHECK(wire_wait((ka__sock)c.sock, KA__IN), "and more");
    r = ka_client_kill_server(&c, &pid);
    CHECK(r == KA_EOFFLINE && pid == 0 && strstr(c.why, "sent more"), "more: %d, %s", r, c.why);
    ka_client_close(&c);
    script_stop(&s);
}

/* Who answers has closed the listening socket, as the helper of a server does: it is spared. */
static void test_kill_helper(void)
{
#ifdef _WIN32
    skip("kill helper", "Windows has no fork");
#else
    static ka_client c;
    static wire w;
    ka__sock listener;
    ka_str answer;
    int64_t pid;
    int port;
    if (cannot_find()) return;
    CHECK(sock_listen(&listener, &port) == KA_OK, "a listener");
    pid_t helper = fork();
    if (helper == 0) {
        if (!wire_wait(listener, KA__IN) || ka__sock_accept(listener, &w.sock, NULL) != KA_OK)
            _exit(1);
        ka__sock_close(listener);
        if (wire_more(&w) > 0) wire_text(&w, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
        for (;;) pause();
    }
    ka__sock_close(listener);
    memset(&c, 0, sizeof c);
    c.ip = "127.0.0.1";
    c.port = port;
    CHECK(ka_client_post(&c, "x=y", 3, &answer) == 200, "it answers");
    int r = ka_client_kill_server(&c, &pid);
    CHECK(r == KA_ENOTFOUND && pid == 0 && c.why, "it is spared: %d", r);
    CHECK(waitpid(helper, NULL, WNOHANG) == 0, "and lives");
    kill(helper, SIGKILL);
    waitpid(helper, NULL, 0);
    ka_client_close(&c);
#endif
}

#if defined(__linux__)
static int heir_pipe[2];
static pid_t heir;

/* Tell the server to give its sockets away, and wait until it has. */
static bool give_away(void)
{
    CHECK(write(heir_pipe[0], "x", 1) == 1 && read(heir_pipe[0], &heir, sizeof heir) > 0, "given");
    return false;
}

/* A server that answers one request. When it is told, another process gets its sockets. */
static void giver_run(ka__sock listener)
{
    static wire w;
    char byte;
    if (!wire_wait(listener, KA__IN) || ka__sock_accept(listener, &w.sock, NULL) != KA_OK) _exit(1);
    if (wire_more(&w) > 0) wire_text(&w, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    if (read(heir_pipe[1], &byte, 1) != 1) _exit(1);
    pid_t other = fork();
    if (other != 0) {
        ka__sock_close(listener);
        ka__sock_close(w.sock);
        if (write(heir_pipe[1], &other, sizeof other) < 0) _exit(1);
    }
    for (;;) pause();
}
#endif

/* The server's process gives its sockets away between the two looks at who has them: nobody is
   killed. */
static void test_kill_heir(void)
{
#if !defined(__linux__)
    skip("kill heir", "only Linux has a handle that is opened between two looks");
#else
    static ka_client c;
    ka__sock listener;
    ka_str answer;
    int64_t pid;
    int port;
    if (cannot_find() || emulator_lacks("valgrind", "valgrind 3.19 knows no pidfd_open")) return;
    CHECK(sock_listen(&listener, &port) == KA_OK, "a listener");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, heir_pipe) != 0) abort();
    pid_t giver = fork();
    if (giver == 0) giver_run(listener);
    ka__sock_close(listener);
    memset(&c, 0, sizeof c);
    c.ip = "127.0.0.1";
    c.port = port;
    CHECK(ka_client_post(&c, "x=y", 3, &answer) == 200, "it answers");
    ambush.call = F_pidfd_open;
    ambush.run = give_away;
    int r = ka_client_kill_server(&c, &pid);
    CHECK(!ambush.run && heir > 0, "the sockets have another process");
    CHECK(r == KA_ENOTFOUND && pid == giver && c.why == ka__ended, "found, and not again: %d", r);
    CHECK(waitpid(giver, NULL, WNOHANG) == 0 && kill(heir, 0) == 0, "both live");
    if (heir > 0) kill(heir, SIGKILL);
    kill(giver, SIGKILL);
    waitpid(giver, NULL, 0);
    ka_client_close(&c);
    close(heir_pipe[0]);
    close(heir_pipe[1]);
#endif
}

/* While the list of processes cannot be read, the owner of a connection is unknown, and not
   hidden: the error is the system's. */
#if defined(__linux__)
static bool no_descriptor(void) { return errno = EMFILE, true; }
static bool no_process(void) { return errno = ESRCH, true; }
#endif

static void test_kill_unlisted(void)
{
#if !defined(__linux__)
    skip("kill unlisted", "only Linux has /proc");
#else
    static wire w;
    ka__sock listener, accepted = -1;
    int64_t pid;
    int port;
    if (cannot_find()) return;
    CHECK(sock_listen(&listener, &port) == KA_OK && wire_open(&w, port) &&
              wire_wait(listener, KA__IN) && ka__sock_accept(listener, &accepted, NULL) == KA_OK,
          "connected");
    ka__pair pair = { .sock = (int)w.sock, .mine = ka__sock_mine(w.sock),
                      .theirs = ka__sock_peer(w.sock) };
    CHECK(ka__owner_find(&pair, &pid) == KA_OK && pid == getpid(), "this process: %s", pair.why);
    ambush.call = F_opendir;
    ambush.run = no_descriptor;
    int r = ka__owner_find(&pair, &pid);
    CHECK(r == KA_ELIMIT && pair.os_error == EMFILE && pid == 0, "%d: %s", r, pair.why);
    ambush.call = F_pidfd_send_signal;
    ambush.run = not_permitted;
    r = ka__process_end(&pair, -1, 2, 0);
    CHECK(r == KA_EPERM && pair.os_error == EPERM, "it may not be killed: %d, %s", r, pair.why);
    ambush.run = no_process;
    r = ka__process_end(&pair, -1, 2, 0);
    CHECK(r == KA_EOFFLINE && pair.why == ka__ended, "it has ended: %d, %s", r, pair.why);
    wire_close(&w);
    ka__sock_close(accepted);
    ka__sock_close(listener);
#endif
}

static const subject kill_topics[] = {
    { "handshake", test_handshake }, { "kill", test_kill }, { "peer", test_peer },
    { "ends", test_ends }, { "ends differ", test_ends_differ },
    { "kill forwarder", test_kill_forwarder }, { "no suicide", test_no_suicide },
    { "kill helper", test_kill_helper }, { "kill heir", test_kill_heir },
    { "kill unlisted", test_kill_unlisted },
};
