/* tests/addresses.h - numeric addresses, IPv6, and names with several addresses. */

static bool end_read(ka_end *e, const char *ip)
{
    ka__address a;
    bool good = ka__address_read(&a, ip, 1);
    if (good) *e = ka__end_of(&a);
    return good;
}

static void test_addresses(void)
{
    static const struct { const char *ip, *want; } rows[] = {      /* want NULL: it is no address */
        { "127.0.0.1", "127.0.0.1" }, { "0.0.0.0", "0.0.0.0" },
        { "255.255.255.255", "255.255.255.255" },
        { "::1", "::1" }, { "::", "::" }, { "2001:DB8:0:0:1::", "2001:db8:0:0:1::" },
        { "0:0:0:0:0:0:0:1", "::1" }, { "::ffff:127.0.0.1", "127.0.0.1" },
        { "::ffff:0:0", "0.0.0.0" },
        { "fe80::1%1", "fe80::1%1" }, { "FEBF::1%1", "febf::1%1" }, { "::1%1", "::1%1" },
        { "fe80::1%4294967295", "fe80::1%4294967295" },
        { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295" },
        { "", NULL }, { "127.0.0", NULL }, { "127.1", NULL }, { "1.2.3.4.5", NULL },
        { "256.0.0.1", NULL },
        { "127.0.0.1 ", NULL }, { "127.0.0.1%1", NULL }, { "127.0.0.1:80", NULL },
        { "localhost", NULL },
        { "[::1]", NULL }, { ":::", NULL }, { "1::2::3", NULL }, { "12345::", NULL },
        { "::g", NULL },
        { "fe80::1", NULL }, { "febf::1", NULL }, { "fe80::1%", NULL }, { "fe80::1%0", NULL },
        { "fe80::1%4294967296", NULL }, { "fe80::1%1x", NULL }, { "fe80::1%no-such-one", NULL },
        { "::1%" "12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890", NULL },
        { "::ffff:127.0.0.1%1", NULL },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[KA_IP_TEXT + 1] = "";
        ka_end e;
        bool good = end_read(&e, rows[i].ip);
        if (!CHECK(good == (rows[i].want != NULL), "%s: %d", rows[i].ip, good) || !good) continue;
        size_t n = ka__ip_text(text, &e);
        CHECK(strcmp(text, rows[i].want) == 0 && n == strlen(text), "%s: %s", rows[i].ip, text);
    }
}

/* A kind of addresses that the system does not have. */
static void test_address_family(void)
{
#if defined(_WIN32)
    const int code = WSAEAFNOSUPPORT;
#else
    const int code = EAFNOSUPPORT;
#endif
    ka__address a = { .any = { .sa_family = 255 } };
    ka__sock s = -1;
    CHECK(ka__sock_new(&a, SOCK_STREAM, &s) == KA_EFAMILY && ka__os_code() == code,
          "no such family: %d", ka__os_code());
}

/* Which addresses can be connected to, and which of them mean all of this machine. */
static void test_address_kinds(void)
{
    static const struct { const char *ip; bool any, one; } rows[] = {
        { "127.0.0.1", false, true }, { "0.0.0.0", true, false }, { "0.0.0.1", false, true },
        { "255.255.255.255", false, false }, { "255.255.255.254", false, true },
        { "223.255.255.255", false, true }, { "224.0.0.0", false, false },
        { "239.255.255.255", false, false },
        { "240.0.0.0", false, true }, { "::1", false, true }, { "::", true, false },
        { "ff02::1", false, false }, { "feff::1", false, true }, { "::ffff:0.0.0.0", true, false },
        { "::ffff:224.0.0.1", false, false }, { "::fffe:0.0.0.0", false, true },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_end e = { .port = 0 };
        bool read = end_read(&e, rows[i].ip);
        CHECK(read && ka__ip_any(e) == rows[i].any && ka__ip_of_one(e) == rows[i].one,
              "%s: any %d, one %d", rows[i].ip, ka__ip_any(e), ka__ip_of_one(e));
    }
}

static void test_address_lists(void)
{
#define A28 "1234567890123456789012345678"
#define A112 A28 A28 A28 A28
    static const struct { const char *list, *items; bool whole; } rows[] = {
        { "::1", "::1;", true }, { "::1,127.0.0.1", "::1;127.0.0.1;", true },
        { "a,b,c", "a;b;c;", true },
        { "", "", true }, { ",a", "", false }, { "a,,b", "a;", false }, { "a,", "a;", true },
        { A112 ",b", A112 ";b;", true }, { A112 "x,b", "", false },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *left = rows[i].list;
        char ip[KA_IP_TEXT + 1], items[256] = "";
        while (ka_next_ip(&left, ip))
            snprintf(items + strlen(items), sizeof items - strlen(items), "%s;", ip);
        CHECK(strcmp(items, rows[i].items) == 0 && !*left == rows[i].whole, "%s: %s", rows[i].list,
              items);
    }
}

/* Does this machine have IPv6? Else what needs it is skipped. */
static bool lacks_ipv6(void)
{
    ka__sock s = -1;
    int port = 0, r = sock_listen_at(&s, "::1", &port);
    if (r == KA_OK) ka__sock_close(s);
    else skip(topic, "this machine has no IPv6");
    return r != KA_OK;
}

/* Listen, and tell what came of it. */
static ka_event listen_at(ka_server *s, const ka_framing *framing, const char *ip, int port)
{
    ka_event ev = { .error = KA_EAGAIN };
    CHECK(ka_listen_as(s, framing, ip, port) >= 0 && next_event(s, &ev, KA_LISTENING), "%s", ip);
    return ev;
}

/* A server and its connections over IPv6; and :: and 0.0.0.0 have the same port. */
static void test_ipv6(void)
{
    static wire w;
    ka_server *s;
    ka_event ev;
    char text[KA_END_TEXT + 1], want[KA_END_TEXT + 1];
    if (lacks_ipv6() || !CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    ev = listen_at(s, &ka_lines, "::1", 0);
    int port = ev.port;
    snprintf(want, sizeof want, "[::1]:%d", port);
    CHECK(!ev.error && strcmp(ka_end_text(text, ev.peer), want) == 0, "listens at %s", text);
    if (!wire_open_at(&w, "::1", port)) return;
    wire_text(&w, "a line\n");
    snprintf(want, sizeof want, "[::1]:%d", ka__sock_mine(w.sock).port);
    CHECK(next_event(s, &ev, KA_OPENED) && strcmp(ka_end_text(text, ev.peer), want) == 0,
          "opened by %s", text);
    CHECK(next_event(s, &ev, KA_MESSAGE) && is_ip(ev.peer, "[::1]") && ka_is(ev.body, "a line"),
          "a message");
    wire_close(&w);
    CHECK(next_event(s, &ev, KA_CLOSED) && is_ip(ev.peer, "[::1]"), "closed");
    CHECK(ka_connect(s, &ka_lines, "::1", "::1", port, 1) == KA_OK &&
              next_event(s, &ev, KA_OPENED) && !ev.error && is_ip(ev.peer, "[::1]"),
          "connected");
    CHECK(next_event(s, &ev, KA_OPENED) && !ev.error && is_ip(ev.peer, "[::1]"), "and accepted");
    CHECK(ka_connect(s, &ka_lines, "127.0.0.1", "::1", port, 1) == KA_EINVAL &&
              ka_connect(s, &ka_lines, NULL, "ff02::1", port, 1) == KA_EINVAL &&
              ka_connect(s, &ka_lines, NULL, "::", port, 1) == KA_EINVAL,
          "of one machine, and from an address of its kind");
    port = free_port();      /* one of the system's may be a client's of IPv4 */
    ev = listen_at(s, NULL, "::", port);
    CHECK(!ev.error && is_ip(ev.peer, "[::]"), "all of IPv6");
    if (on_wine()) {
        skip(topic, "what else may have the port of ::, Wine 8 does not know");
    } else {
        CHECK(listen_at(s, NULL, "0.0.0.0", port).error == KA_OK,
              "and all of IPv4 at the same port");
        CHECK(listen_at(s, NULL, "::", port).error == KA_EINUSE, "in use");
    }
    CHECK(listen_at(s, NULL, "fe80::1", 0).error == KA_EINVAL, "without its interface");
    CHECK(listen_at(s, NULL, "ff02::1", 0).error == KA_EADDR &&
              listen_at(s, NULL, "2001:db8::1", 0).error == KA_EADDR,
          "no address of this machine");
    ka_server_free(s);
}

/* Each attempt takes the first address that can be connected to; the field Host names the host. */
static void test_client_addresses(void)
{
    static const char *const answer_text[] = { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" };
    static const struct { const char *ip, *host, *field; int want; } rows[] = {
        { "127.0.0.1", NULL, "127.0.0.1", 200 }, { "127.0.0.1", "a.example", "a.example", 200 },
        { "127.0.0.3,127.0.0.1", NULL, "127.0.0.3", 200 },
        { "127.0.0.1,127.0.0.3", NULL, "127.0.0.1", 200 },
        { "::1,127.0.0.1", NULL, "[::1]", 200 }, { "127.0.0.1", "fe80::1%eth0", "[fe80::1]", 200 },
        { "127.0.0.3,127.0.0.4", NULL, NULL, KA_EOFFLINE },
        { "127.0.0.1,", NULL, "127.0.0.1", 200 },
        { "", NULL, NULL, KA_EINVAL }, { "127.0.0.1,localhost", NULL, NULL, KA_EINVAL },
        { "127.0.0.1,0.0.0.0", NULL, NULL, KA_EINVAL },
        { "127.0.0.1,ff02::1", NULL, NULL, KA_EINVAL },
        { "127.0.0.1", "a b", NULL, KA_EINVAL }, { "127.0.0.1", "a\r\nX: y", NULL, KA_EINVAL },
        { "127.0.0.1", "", NULL, KA_EINVAL },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        static ka_client c;
        script s;
        ka_str answer, host = { NULL, 0 };
        char want[64];
        if (!script_start(&s, answer_text, 1, false)) return;
        c = (ka_client){ .ip = rows[i].ip, .host = rows[i].host, .port = s.port };
        c.until_ms = ka_now_ms() + (rows[i].want == KA_EOFFLINE ? 1 : PATIENCE_MS);
        int r = ka_client_post(&c, "x=y", 3, &answer);
        CHECK(r == rows[i].want, "%s, %s: %d", rows[i].ip, rows[i].host ? rows[i].host : "", r);
        ka_client_close(&c);
        if (r < 0) {      /* the script waits for somebody */
            static wire w;
            if (wire_open(&w, s.port)) wire_close(&w);
        }
        script_stop(&s);
        const char *fields = strstr(s.got, "\r\n");
        snprintf(want, sizeof want, "%s:%d", rows[i].field ? rows[i].field : "", s.port);
        if (r == 200)
            CHECK(fields && ka_field(str(fields + 2), "Host", &host) == KA_OK && ka_is(host, want),
                  "%s: Host: %.*s", rows[i].ip, (int)host.n, host.p);
    }
}

/* The client's kill, where the server is reached by IPv6, and where a socket of :: takes IPv4. */
static void test_ipv6_kill(void)
{
    static const struct { const char *server, *client; } rows[] = {
        { "::1", "::1" }, { "::", "::1" }, { "::,0.0.0.0", "127.0.0.1" },
        { "127.0.0.1", "::ffff:127.0.0.1" },
    };
    if (cannot_find() || lacks_ipv6() ||
        emulator_lacks("valgrind", "valgrind 3.19 knows no pidfd_open"))
        return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        process right, wrong, client, beside;
        char line[64];
        const char *port = free_port_text();
        if (on_wine() && strchr(rows[i].server, ':'))
            continue;      /* Wine 8 does not know whose IPv6 sockets are */
        START(&wrong, PROGRAM("server"), "--ip", rows[i].server, "--port", port, "--wrong");
        if (!await_output(&wrong, "out", "\n")) return;
        START(&client, PROGRAM("client"), "--give-up", "30", rows[i].client, port);
        int status = process_wait(&client, PATIENCE_MS);
        CHECK(status == 5 && process_wait(&wrong, PATIENCE_MS) >= 0, "%s, %s: status %d, %s",
              rows[i].server, rows[i].client, status, output(&client, "err"));
        process_end(&client);
        process_end(&wrong);
        START(&right, PROGRAM("server"), "--ip", rows[i].server, "--port", port);
        snprintf(line, sizeof line, ":%s", port);
        if (!await_output(&right, "out", line)) return;
        START(&beside, PROGRAM("client"), rows[i].client, port);
        status = process_wait(&beside, PATIENCE_MS);
        CHECK(cannot_restart() || (status == 0 && prints_one_id(&beside)), "%s: status %d, %s",
              rows[i].client, status, output(&beside, "err"));
        process_end(&beside);
        process_end(&right);
    }
}

static void test_mapped_kill(void)
{
#ifdef _WIN32
    skip("mapped kill", "Windows has no fork");
#else
    static ka_client c;
    static wire w;
    ka__address a;
    ka__sock listener = -1;
    ka_str answer;
    int64_t pid;
    int off = 0;
    if (cannot_find() || lacks_ipv6() ||
        emulator_lacks("valgrind", "valgrind 3.19 knows no pidfd_open"))
        return;
    bool good = ka__address_read(&a, "::", 0) &&
                ka__sock_new(&a, SOCK_STREAM, &listener) == KA_OK &&
                setsockopt((int)listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0 &&
                bind((int)listener, &a.any, a.n) == 0 && listen((int)listener, 5) == 0;
    if (!CHECK(good, "a listener")) return;
    c = (ka_client){ .ip = "127.0.0.1", .port = ka__sock_mine(listener).port };
    pid_t server = fork();
    if (server == 0) {
        if (!wire_wait(listener, KA__IN) || ka__sock_accept(listener, &w.sock, NULL) != KA_OK)
            _exit(1);
        if (wire_more(&w) > 0) wire_text(&w, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
        for (;;) pause();
    }
    ka__sock_close(listener);
    CHECK(ka_client_post(&c, "x=y", 3, &answer) == 200, "it answers");
    int r = ka_client_kill_server(&c, &pid), status = 0;
    CHECK(r == KA_OK && pid == server, "killed: %d, %s", r, c.why ? c.why : "");
    if (r != KA_OK) kill(server, SIGKILL);
    waitpid(server, &status, 0);
    ka_client_close(&c);
#endif
}

/* ---- Unix sockets ---- */

#ifdef _WIN32
static void test_unix(void)
{
    ka_server *s;
    ka_event ev;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_listen(s, "unix:ka.sock", 0) == 0, "starts"))
        return;
    CHECK(next_event(s, &ev, KA_LISTENING) && ev.error == KA_EINVAL, "Windows has none: %d",
          ev.error);
    ka_server_free(s);
}

static void test_unix_kill(void) { skip(topic, "Windows has no Unix sockets"); }
#else
/* What is at a path: 's' a socket, 'f' a file, '-' nothing; and its mode. */
static char path_kind(const char *path, int *mode)
{
    struct stat st;
    if (lstat(path, &st) != 0) return '-';
    *mode = st.st_mode & 0777;
    return S_ISSOCK(st.st_mode) ? 's' : 'f';
}

/* A socket whose server has ended without removing it. */
static void path_leave(const char *path)
{
    ka__address a;
    ka__sock s = -1;
    CHECK(ka__address_read(&a, path, 0) && ka__sock_new(&a, SOCK_STREAM, &s) == KA_OK &&
              bind((int)s, &a.any, a.n) == 0,
          "%s is left behind", path);
    ka__sock_close(s);
}

/* A client comes: who it is, its line, an answer, and its end. */
static bool unix_talks(ka_server *s)
{
    static wire w;
    ka_event ev;
    char text[KA_END_TEXT + 1], want[KA_END_TEXT + 1];
    snprintf(want, sizeof want, "unix:%d", (int)getpid());
    if (!wire_open_at(&w, "unix:left.sock", 0)) return false;
    wire_text(&w, "a line\n");
    CHECK(next_event(s, &ev, KA_OPENED) && strcmp(ka_end_text(text, ev.peer), want) == 0,
          "opened by %s", text);
    CHECK(next_event(s, &ev, KA_MESSAGE) && ev.peer.local && ka_is(ev.body, "a line") &&
              ka_send(s, ev.conn, "heard\n", 6) == KA_OK,
          "a message");
    ka_wait(s, &ev, 0);
    CHECK(wire_gets(&w, "heard\n"), "and an answer");
    wire_close(&w);
    CHECK(next_event(s, &ev, KA_CLOSED) && ev.peer.local, "closed");
    return true;
}

static void test_unix(void)
{
    ka_server *s, *second;
    ka_event ev;
    char longest[KA_IP_TEXT + 1];
    int mode = 0, before = descriptors_open();
    if (!CHECK(ka_server_start(&s, 2) == KA_OK && ka_server_start(&second, 1) == KA_OK, "start"))
        return;
    path_leave("unix:left.sock");
    ev = listen_at(s, &ka_lines, "unix:left.sock", 0);
    CHECK(!ev.error && ev.peer.local && path_kind("left.sock", &mode) == 's' && mode == 0660,
          "in place of what was left: %d, mode %o", ev.error, mode);
    CHECK(listen_at(second, NULL, "unix:left.sock", 0).error == KA_EINUSE &&
              path_kind("left.sock", &mode) == 's',
          "a live one is in use");
    CHECK(next_event(s, &ev, KA_OPENED) && next_event(s, &ev, KA_CLOSED),
          "and has been knocked at");
    file_put("file.sock", "mine", 4);
    CHECK(listen_at(second, NULL, "unix:file.sock", 0).error == KA_EINUSE &&
              path_kind("file.sock", &mode) == 'f',
          "a file stays");
    CHECK(listen_at(second, NULL, "unix:no-folder/a.sock", 0).error < 0, "no folder");
    CHECK(listen_at(second, NULL, "unix:", 0).error == KA_EINVAL, "no path");
    memset(longest, 'a', sizeof longest);
    memcpy(longest, "unix:", 5);
    longest[KA_IP_TEXT] = 0;
    CHECK(listen_at(second, NULL, longest, 0).error ==
              (sizeof((struct sockaddr_un *)0)->sun_path > KA_IP_TEXT - 5 ? KA_OK : KA_EINVAL),
          "the longest");
    if (!unix_talks(s)) return;
    CHECK(ka_connect(s, &ka_lines, NULL, "unix:left.sock", 0, 7) == KA_OK &&
              next_event(s, &ev, KA_OPENED) && !ev.error && ev.peer.zone == (uint32_t)getpid(),
          "connected");
    CHECK(next_event(s, &ev, KA_OPENED) && !ev.error, "and accepted");
    CHECK(ka_connect(s, &ka_lines, NULL, "unix:no-such.sock", 0, 7) == KA_OK &&
              next_event(s, &ev, KA_OPENED) && ev.error == KA_EOFFLINE,
          "nobody there: %d", ev.error);
    CHECK(ka_connect(s, &ka_lines, "127.0.0.1", "unix:left.sock", 0, 7) == KA_EINVAL &&
              ka_connect(s, &ka_lines, "unix:a", "unix:left.sock", 0, 7) == KA_EINVAL,
          "from no address");
    ka_stop(s);
    while (ka_wait(s, &ev, PATIENCE_MS) == KA_OK) {}
    CHECK(path_kind("left.sock", &mode) == '-', "removed at the end");
    ka_server_free(s);
    ka_server_free(second);
    CHECK(path_kind(longest + 5, &mode) == '-' && path_kind("file.sock", &mode) == 'f',
          "and by ka_server_free");
    (void)remove("file.sock");
    CHECK(descriptors_open() == before, "%d descriptors, not %d", descriptors_open(), before);
}

/* A path that somebody else has by now stays. */
static void test_unix_replaced(void)
{
    ka_server *s, *second;
    ka_event ev;
    int mode;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_server_start(&second, 1) == KA_OK, "start"))
        return;
    CHECK(!listen_at(s, NULL, "unix:two.sock", 0).error && unlink("two.sock") == 0,
          "the first's is removed by hand");
    CHECK(!listen_at(second, NULL, "unix:two.sock", 0).error, "the second has the path");
    ka_server_free(s);
    CHECK(path_kind("two.sock", &mode) == 's', "the second's stays");
    ka_stop(second);
    CHECK(ka_wait(second, &ev, PATIENCE_MS) == KA_ESTOPPED && path_kind("two.sock", &mode) == '-',
          "and goes with it");
    ka_server_free(second);
}

/* Several servers begin at once, where a dead one has left its socket: one of them has the path,
   and is the one that answers. */
static void test_unix_race(void)
{
    enum { MANY = 6, ROUNDS = 5 };
    process servers[MANY], client;
    for (int round = 0; round < ROUNDS; round++) {
        ka__address a;
        ka__sock dead;
        int listening = 0;
        if (!CHECK(ka__address_read(&a, "unix:race.sock", 0) &&
                       ka__sock_new(&a, SOCK_STREAM, &dead) == KA_OK &&
                       ka__sock_bind_path(dead, &a) == KA_OK,
                   "a dead one"))
            return;
        ka__sock_close(dead);
        for (int i = 0; i < MANY; i++)
            START(&servers[i], PROGRAM("server"), "--ip", "unix:race.sock");
        for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until; ka_sleep_ms(5)) {
            int over = 0;
            listening = 0;
            for (int i = 0; i < MANY; i++) {
                listening += strstr(output(&servers[i], "out"), "listening") != NULL;
                over += strstr(output(&servers[i], "err"), "is taken by another program") != NULL;
            }
            if (listening + over == MANY) break;
        }
        CHECK(listening == 1, "%d listen", listening);
        START(&client, PROGRAM("client"), "--give-up", "9", "unix:race.sock");
        int status = process_wait(&client, PATIENCE_MS);
        CHECK(cannot_restart() || status == 0, "it answers: %d, %s", status,
              output(&client, "err"));
        process_end(&client);
        for (int i = MANY; i-- > 0; ) process_end(&servers[i]);
        (void)remove("race.sock");
    }
    /* The race is seldom seen. So see that who has the folder's lock is waited for. */
    int folder = open(".", O_RDONLY);
    CHECK((flock)(folder, LOCK_EX) == 0, "locked");
    START(&servers[0], PROGRAM("server"), "--ip", "unix:race.sock");
    ka_sleep_ms(300);
    CHECK(!*output(&servers[0], "out"), "it waits: %s", output(&servers[0], "out"));
    close(folder);
    await_output(&servers[0], "out", "listening");
    process_end(&servers[0]);
    (void)remove("race.sock");      /* a server that had no second to end was killed */
}

/* The programs: who answers at a path is killed, and nobody else. */
static void test_unix_kill(void)
{
    static const char *const path = "unix:kill.sock";
    process right, wrong, client;
    if (cannot_find() || emulator_lacks("valgrind", "valgrind 3.19 knows no pidfd_open")) return;
    START(&right, PROGRAM("server"), "--ip", "unix:right.sock");
    START(&wrong, PROGRAM("server"), "--ip", path, "--wrong");
    if (!await_output(&wrong, "out", "listening on unix:kill.sock\n") ||
        !await_output(&right, "out", "\n"))
        return;
    START(&client, PROGRAM("client"), path);
    int status = process_wait(&client, PATIENCE_MS);
    CHECK(status == 5 && process_wait(&wrong, PATIENCE_MS) >= 0 && process_wait(&right, 0) == -1,
          "killed: %d, %s", status, output(&client, "err"));
    process_end(&client);
    process_end(&wrong);
    START(&wrong, PROGRAM("server"), "--ip", path);
    if (!await_output(&wrong, "out", "\n")) return;
    START(&client, PROGRAM("client"), path);
    status = process_wait(&client, PATIENCE_MS);
    CHECK(cannot_restart() || (status == 0 && prints_one_id(&client)),
          "in place of the killed one's path: %d, %s", status, output(&client, "err"));
    process_end(&client);
    process_end(&wrong);
    process_end(&right);
    (void)remove("right.sock");
    (void)remove("kill.sock");
}

/* A server that has no Keyauth-Ends, and one whose listener another process holds as well. */
static void test_unix_kill_strangers(void)
{
    static const struct { bool twins; int want; const char *why; } rows[] = {
        { false, KA_OK, "the only one that holds the listener" },
        { true, KA_EINUSE, "two hold it" },
    };
    static ka_client c;
    static wire w;
    if (cannot_find() || emulator_lacks("valgrind", "valgrind 3.19 knows no pidfd_open")) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka__address a;
        ka__sock listener = -1;
        ka_str answer;
        int64_t pid = 0;
        int told[2];
        char byte;
        if (!CHECK(pipe(told) == 0, "a pipe")) return;
        pid_t server = fork();
        if (server == 0) {      /* the credentials are of who listens */
            if (!ka__address_read(&a, "unix:stranger.sock", 0) ||
                ka__sock_new(&a, SOCK_STREAM, &listener) < 0 ||
                bind((int)listener, &a.any, a.n) != 0 || listen((int)listener, 5) != 0 ||
                write(told[1], "x", 1) != 1)
                _exit(1);
            if (rows[i].twins && fork() == 0) {
                for (pid_t parent = getppid(); getppid() == parent; ) ka_sleep_ms(10);
                _exit(0);
            }
            if (!wire_wait(listener, KA__IN) || ka__sock_accept(listener, &w.sock, NULL) != KA_OK)
                for (;;) pause();
            if (wire_more(&w) > 0) wire_text(&w, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
            for (;;) pause();
        }
        CHECK(read(told[0], &byte, 1) == 1, "it listens");
        c = (ka_client){ .ip = "unix:stranger.sock" };
        CHECK(ka_client_post(&c, "x=y", 3, &answer) == 200, "it answers");
        int r = ka_client_kill_server(&c, &pid);
        CHECK(r == rows[i].want && pid == (r == KA_OK ? server : 0), "%s: %d, %s", rows[i].why, r,
              c.why ? c.why : "");
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
        ka_client_close(&c);
        close(told[0]);
        close(told[1]);
        (void)remove("stranger.sock");
    }
}
#endif

static const subject addresses_topics[] = {
    { "addresses", test_addresses }, { "address kinds", test_address_kinds },
    { "address family", test_address_family },
    { "address lists", test_address_lists }, { "ipv6", test_ipv6 },
    { "client addresses", test_client_addresses }, { "unix", test_unix },
#ifndef _WIN32
    { "unix replaced", test_unix_replaced },
#endif
};
static const subject addresses_kill_topics[] = {
    { "ipv6 kill", test_ipv6_kill }, { "mapped kill", test_mapped_kill },
    { "unix kill", test_unix_kill },
#ifndef _WIN32
    { "unix kill, strangers", test_unix_kill_strangers }, { "unix race", test_unix_race },
#endif
};
