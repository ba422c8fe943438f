/* tests/platform.h - section 1 of keyauth.h: sockets, names. */

/* A socket that knocks at its own port is connected to itself, which is no server. */
static void test_sockets(void)
{
    ka__address a;
    ka__sock s, none;
    ka_end bound;
    ka__address_read(&a, "127.0.0.1", 0);
    if (!CHECK(ka__sock_new(&a, SOCK_STREAM, &s) == KA_OK &&
                   ka__sock_listen(s, "127.0.0", 0, &bound) == KA_EINVAL,
               "no address to listen on"))
        return;
    CHECK(ka__sock_connect(NULL, "127.0.0", 1, &none) == KA_EINVAL &&
              ka__sock_connect(NULL, "127.0.0.1", 65536, &none) == KA_EINVAL,
          "nor to connect to");
    bool own = bind(KA__FD(s), &a.any, a.n) == 0 && getsockname(KA__FD(s), &a.any, &a.n) == 0;
    int r = own && connect(KA__FD(s), &a.any, a.n) != 0 ? ka__sock_error() : KA_OK;
    if (r == KA_EAGAIN) r = ka__sock_wait(s, KA__OUT, 5000);
    CHECK(own && r == KA_OK && ka__sock_connected(s) == KA_EOFFLINE, "connected to itself: %d", r);
    ka__sock_close(s);
}

static void test_sockets_from(void)
{
#if defined(__APPLE__)
    const char *from = "127.0.0.1";      /* 127.0.0.77 would have to be added to lo0 */
#else
    const char *from = "127.0.0.77";
#endif
    ka__sock listener, s, peer = -1;
    int port = 0;
    if (sock_listen(&listener, &port) < 0) abort();
    int r = ka__sock_connect(from, "127.0.0.1", port, &s);
    if (r == KA_EAGAIN) r = ka__sock_wait(s, KA__OUT, 5000);
    CHECK(r == KA_OK && ka__sock_connected(s) == KA_OK, "connected: %s", ka_error_text(r));
    CHECK(ka__sock_wait(listener, KA__IN, 5000) == KA_OK &&
              ka__sock_accept(listener, &peer, NULL) == KA_OK,
          "accepted");
    ka_end end = ka__sock_peer(peer);
    CHECK(end.port > 0 && is_ip(end, from), "from %s", from);
    ka__sock_close(peer);
    CHECK(ka__sock_connect("localhost", "127.0.0.1", port, &peer) == KA_EINVAL, "from no address");
    CHECK(ka__sock_connect("192.0.2.1", "127.0.0.1", port, &peer) == KA_EADDR,
          "from one that isn't ours");
    ka__sock_close(s);
    ka__sock_close(listener);
}

/* Does this machine know its own name? Not without /etc/hosts and a name server. */
static bool knows_localhost(void)
{
    char ip[KA_IPS_TEXT + 1];
    return ka_resolve("localhost", ip) == KA_OK;
}

static void test_names(void)
{
    static const struct { const char *host, *ip, *why; } rows[] = {
        { "127.0.0.77", "127.0.0.77", "an address" },
        { "255.255.255.255", "255.255.255.255", "the longest" },
        { "localhost", "127.0.0.1", "a name" }, { "", NULL, "none" },
        { "::1", "::1", "an IPv6 address" },
        { "moving.test", "::1,127.0.0.1", "two addresses" },
        { "a..b", NULL, "an empty label" }, { NULL, NULL, "too long a label" },
    };
    static const struct { int code, want; } codes[] = {
        { 0, KA_OK }, { EAI_NONAME, KA_ENOTFOUND }, { EAI_AGAIN, KA_ETIME },
        { EAI_MEMORY, KA_ENOMEM }, { EAI_FAIL, KA_EOS },
#if defined(_WIN32)
        { WSANO_DATA, KA_ENOTFOUND }, { WSANOTINITIALISED, KA_EOS },
#else
        { EAI_NODATA, KA_ENOTFOUND }, { EAI_ADDRFAMILY, KA_ENOTFOUND }, { EAI_SYSTEM, KA_EOS },
#endif
    };
    char ip[KA_IPS_TEXT + 1], label[65];
    memset(label, 'a', 64);
    label[64] = 0;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (rows[i].host && strcmp(rows[i].host, "localhost") == 0 && !knows_localhost()) {
            skip(topic, "this machine does not know localhost");
            continue;
        }
        strcpy(ip, "?");
        atomic_store(&moving.ip, rows[i].ip);
        int r = ka_resolve(rows[i].host ? rows[i].host : label, ip);
        CHECK(r == (rows[i].ip ? KA_OK : KA_ENOTFOUND) &&
                  (strcmp(ip, rows[i].ip ? rows[i].ip : "?") == 0 ||
                   (strcmp(rows[i].host, "localhost") == 0 && strstr(ip, "127.0.0.1"))),
              "%s: %s, %s", rows[i].why, ka_error_text(r), ip);
    }
    /* of many addresses, those that surely fit */
    char many[60 * sizeof "127.0.0.1,"] = "127.0.0.1";
    for (int i = 1; i < 60; i++) strcat(many, ",127.0.0.1");
    atomic_store(&moving.ip, many);
    int r = ka_resolve("moving.test", ip);
    CHECK(r == KA_OK && strlen(ip) > KA_IPS_TEXT - 10 && strncmp(ip, many, strlen(ip)) == 0 &&
              many[strlen(ip)] == ',',
          "many: %d, %s", r, ip);
    for (size_t i = 0; i < COUNT(codes); i++)
        CHECK(ka__resolve_error(codes[i].code) == codes[i].want, "code %d: %d", codes[i].code,
              ka__resolve_error(codes[i].code));
}

static bool refused(void) { return true; }

/* A wake-up that the system refuses at first still ends the sleep. */
static void test_wake_again(void)
{
    ka__poller p;
    uint32_t none;
    if (!CHECK(ka__poller_init(&p) == KA_OK, "init")) return;
    int64_t begin = ka_now_ms();
    ambush.call = F_send;
    ambush.run = refused;
    ka__poller_wake(&p);
    ambush.run = NULL;
    ka__poller_wait(&p, &none, 1, PATIENCE_MS);
    CHECK(ka_now_ms() - begin < PATIENCE_MS, "the sleep was ended");
    ka__poller_free(&p);
}

static const subject platform_topics[] = {
    { "sockets", test_sockets }, { "sockets from", test_sockets_from }, { "names", test_names },
    { "wake again", test_wake_again },
};
