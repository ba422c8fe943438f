/* tests/ext_cli.h - ext/cli.h: what it says of a listener. */

static void test_listen_trouble(void)
{
    static const struct { int error, port; const char *ip, *want; } rows[] = {
        { KA_EINUSE, 80, "127.0.0.1", "127.0.0.1:80 is taken by another program; stop that one" },
        { KA_EADDR, 80, "127.0.0.1", "127.0.0.1 is not an address of this machine; " },
        { KA_EADDR, 80, "192.0.2.1", "this machine; choose another --ip" },
        { KA_EPERM, 1023, "127.0.0.1", "not permitted; choose a --a-port from 1024 up" },
        { KA_EPERM, 1024, "127.0.0.1", "a sandbox forbids this process to listen" },
        { KA_EPERM, 0, "127.0.0.1", "(system error 77); look at its rules" },
        { KA_ELIMIT, 80, "127.0.0.1", "ulimit -n" },
        { KA_EINUSE, 80, "::1", "[::1]:80 is taken by another program; stop that one" },
        { KA_EFAMILY, 80, "::1", "::1: this machine has no IPv6; choose an IPv4 address" },
        { KA_EINVAL, 80, "fe80::1", "--ip fe80::1: a link-local address needs its interface, such as fe80::1%eth0" },
        { KA_EINVAL, 80, "unix:", "--ip unix:PATH: a path of 1 to 107 bytes is needed" },
        { KA_EINUSE, 80, "unix:/a", "unix:/a is taken by another program, or no socket; choose another path" },
        { KA_EPERM, 80, "unix:/a", "cannot listen on unix:/a (system error 77); make its folder, or choose another path" },
    };
    char text[KA_TROUBLE_TEXT];
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_event ev = {
            .kind = KA_LISTENING, .error = rows[i].error, .os_error = 77, .port = rows[i].port
        };
        const char *got = ka__cli_trouble(text, rows[i].ip, "--a-port", &ev);
        CHECK(got == text && strstr(got, rows[i].want), "\"%s\", not \"%s\"", got, rows[i].want);
    }
}

/* Addresses that just fit. */
static void test_find_hosts(void)
{
    char hosts[KA_IPS_TEXT + 1], found[KA_IPS_TEXT + 1];
    memset(hosts, 'x', KA_IPS_TEXT);
    hosts[KA_IPS_TEXT] = 0;
    memcpy(hosts, "unix:", 5);
    memcpy(hosts + 200, ",unix:", 6);
    memcpy(hosts + 400, ",unix:", 6);
    CHECK(ka_find_hosts(found, "test", hosts) == -1 && strcmp(found, hosts) == 0, "%s", found);
}

static const subject ext_cli_topics[] = {
    { "listen trouble", test_listen_trouble }, { "find hosts", test_find_hosts },
};
