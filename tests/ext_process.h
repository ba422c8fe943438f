/* tests/ext_process.h - ext/process.h: children, what a process may use. */

static void test_children(void)
{
    const char *many[32] = { "--child" };
    char long_arg[KA_MAX_ID + 2], line[16], xs[1025];
    ka_child c;
    if (cannot_restart()) return;
    memset(long_arg, 'x', sizeof long_arg);
    long_arg[KA_MAX_ID + 1] = 0;
    for (int i = 1; i < 31; i++) many[i] = "x";
    CHECK(CHILD(&c, "\"") == KA_EINVAL && !c.pid && CHILD(&c, long_arg) == KA_EINVAL && !c.pid &&
              ka_child_start(&c, many) == KA_EINVAL && !c.pid,
          "no arguments");
    CHECK(ka_child_line(&c, line, sizeof line, -1) == KA_ENOTFOUND &&
              ka_child_end(&c, true, -1) == KA_ENOTFOUND,
          "no child");

    CHECK(CHILD(&c, "args", "a b", "", "c'd") == KA_OK && c.pid > 0, "starts");
    SAYS(&c, "[a b][][c'd]");
    SAYS(&c, "1");      /* no input */
    CHECK(ka_child_line(&c, line, sizeof line, -1) == KA_ENOTFOUND &&
              ka_child_line(&c, line, sizeof line, 0) == KA_ENOTFOUND,
          "it writes no more");
    many[1] = "args";
    many[30] = NULL;
    int r = ka_child_end(&c, false, PATIENCE_MS);
    CHECK((r == 0 || r == 128 + 15 || r == 137) && !c.pid, "ended by itself or by us: %d", r);
    CHECK(ka_child_start(&c, many) == KA_OK, "30 arguments");
    while (ka_child_line(&c, line, sizeof line, PATIENCE_MS) == KA_OK) {}
    CHECK(strcmp(line, "1") == 0 && ka_child_end(&c, true, PATIENCE_MS) >= 0,
          "are no more than there can be");

    if (!CHECK(CHILD(&c, "lines") == KA_OK, "starts")) return;
    SAYS(&c, "one");
    CHECK(ka_child_line(&c, line, sizeof line, 20) == KA_ETIME &&
              ka_child_line(&c, line, sizeof line, 0) == KA_ETIME,
          "half a line is none");
    SAYS(&c, "two, in pieces");
    SAYS(&c, "");
    CHECK(ka_child_line(&c, line, 4, PATIENCE_MS) == KA_OK && strcmp(line, "xxx") == 0,
          "of 3000, what fits: %s", line);
    memset(xs, 'y', 1023);
    xs[1023] = 0;
    SAYS(&c, xs);
    memset(xs, 'z', 1023);
    SAYS(&c, xs);
    SAYS(&c, "cut off");
    CHECK(ka_child_line(&c, line, sizeof line, PATIENCE_MS) == KA_ENOTFOUND, "and no more");
    ka_sleep_ms(100);      /* its end comes a little after that of its output */
    r = ka_child_end(&c, true, PATIENCE_MS);
    CHECK(r == 7 && !c.pid && ka_child_end(&c, true, PATIENCE_MS) == KA_ENOTFOUND, "its status: %d",
          r);

    for (int by_force = 0; by_force < 2; by_force++) {
        CHECK(CHILD(&c, "wait") == KA_OK && ka_child_line(&c, line, sizeof line, -1) == KA_OK,
              "starts and speaks");
        r = ka_child_end(&c, by_force, -1);
        CHECK(r == (by_force || !POLITE ? 137 : 143) && !c.pid, "ended: %d", r);
    }
}

#if !defined(_WIN32)
/* What a child has of the signals and descriptors of a process with a server. */
static bool child_inherits(void)
{
    char want[100];
    ka_child c;
    ka_server *s;
    sigset_t usr1, before;
    snprintf(want, sizeof want,
             "%d descriptors, HUP ignored, TERM default, PIPE default, USR1 free",
             descriptors_passed());
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, &before);
    signal(SIGHUP, SIG_IGN);
    if (!CHECK(ka_server_start(&s, 2) == KA_OK && ka_stop_on_interrupt(s) == KA_OK &&
                   ka_listen(s, "127.0.0.1", 0) == 0,
               "a server here"))
        return false;
    CHECK(CHILD(&c, "found") == KA_OK, "starts");
    SAYS(&c, want);
    ka_child_end(&c, true, PATIENCE_MS);
    ka_server_free(s);
    signal(SIGHUP, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return true;
}
#endif

static void test_children_signals(void)
{
#if !defined(_WIN32)
    char line[100];
    ka_child c;
    int ends[2], r;
    if (cannot_restart() || pipe(ends) != 0) return;
    if (!child_inherits()) return;

    CHECK(CHILD(&c, "polite") == KA_OK, "starts");
    SAYS(&c, "ready");
    CHECK(ka_child_end(&c, false, 0) == KA_ETIME && c.pid &&
              ka_child_end(&c, false, 20) == KA_ETIME && c.pid,
          "it takes its time");
    ka_sleep_ms(60);
    CHECK(ka_child_end(&c, false, 0) == KA_ETIME, "and is told once");
    SAYS(&c, "last words");
    r = ka_child_end(&c, false, PATIENCE_MS);
    CHECK(r == 3 && !c.pid, "ended: %d", r);
    CHECK(CHILD(&c, "polite") == KA_OK, "starts");
    SAYS(&c, "ready");
    CHECK(ka_child_end(&c, false, 0) == KA_ETIME && ka_child_end(&c, true, PATIENCE_MS) == 137,
          "told, then killed");

    signal(SIGCHLD, SIG_IGN);
    CHECK(CHILD(&c, "wait") == KA_OK, "starts");
    r = ka_child_end(&c, true, PATIENCE_MS);
    CHECK(r == KA_EOS && !c.pid, "SIGCHLD is ignored: %d", r);
    signal(SIGCHLD, SIG_DFL);

    CHECK(CHILD(&c, "parent") == KA_OK, "starts");
    close(ends[1]);
    CHECK(ka_child_line(&c, line, sizeof line, PATIENCE_MS) == KA_OK && strcmp(line, "ready") == 0,
          "and its own child does");
    struct pollfd p = { ends[0], POLLIN, 0 };
    CHECK(poll(&p, 1, 0) == 0 && ka_child_end(&c, true, PATIENCE_MS) == 137,
          "both run, until one is killed");
#    if defined(__linux__)
    CHECK(poll(&p, 1, PATIENCE_MS) == 1 && (p.revents & POLLHUP), "and with it the other");
#endif
    close(ends[0]);
#else
    skip("children signals", "Windows has none");
#endif
}

static void test_usage(void)
{
    enum { BYTES = 10 << 20 };
    ka_usage before, after;
    CHECK(ka_process_usage(&before) == KA_OK && before.cpu_us >= 0 && before.memory > 100000,
          "this process uses something");
    volatile char *p = malloc(BYTES);
    if (!p) abort();
    for (int i = 0; i < BYTES; i += 512) p[i] = 1;
    int64_t cpu = 0;
    int r = KA_OK;
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         r == KA_OK && cpu <= 20000 && ka_now_ms() < until; cpu = after.cpu_us - before.cpu_us)
        r = ka_process_usage(&after);
    CHECK(r == KA_OK, "and after some work: %d", r);
    int64_t more = (int64_t)after.memory - (int64_t)before.memory;
    CHECK(cpu > 20000 && cpu < 60 * 1000000, "more time: %d us", (int)cpu);
    /* TSan takes some for each byte. */
    CHECK(more > BYTES * 9 / 10 && more < 12 * BYTES, "more memory: %d bytes", (int)more);
    free((void *)p);
}

/* What is freed below a block that is kept stays with the process, until it is trimmed. */
static void test_memory_trim(void)
{
    enum { BLOCKS = 320, BYTES = 32 << 10 };
    static unsigned char *blocks[BLOCKS];
    ka_usage before, after;
    size_t wrong = 0;
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BYTES);
        if (!blocks[i]) abort();
        memset(blocks[i], i, BYTES);
    }
    for (int i = 0; i < BLOCKS; i++)
        if (i % 32 != 31) free(blocks[i]);
    CHECK(ka_process_usage(&before) == KA_OK, "before");
    ka_memory_trim();
    CHECK(ka_process_usage(&after) == KA_OK, "after");
    CHECK(after.memory <= before.memory + (1 << 20), "not more than before: %d, %d",
          (int)before.memory, (int)after.memory);
    for (int i = 31; i < BLOCKS; i += 32) {
        for (int j = 0; j < BYTES; j++) wrong += blocks[i][j] != (unsigned char)i;
        free(blocks[i]);
    }
    CHECK(wrong == 0, "what was kept is as it was: %d bytes are not", (int)wrong);
}

static void test_descriptors_raise(void)
{
#if !defined(_WIN32)
    struct rlimit before, now;
    bool each;
    ka_server *s;
    if (getrlimit(RLIMIT_NOFILE, &before) != 0 ||
        ka_server_start(&s, 1 + KA_OWN_DESCRIPTORS) != KA_OK)
        abort();
    now = before;
    now.rlim_cur = 200;
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0, "lowered");
    int r = ka_descriptors_raise(&each), again = ka_descriptors_raise(&each);
    CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0, "the limit can be had");
    CHECK(r == again && r > 200 && (now.rlim_cur > INT_MAX ? r == INT_MAX : r == (int)now.rlim_cur),
          "raised: %d, %d, %lld", r, again, (long long)now.rlim_cur);
#    if defined(__linux__)
    CHECK(now.rlim_cur == now.rlim_max, "to the hard limit");
#endif
    ka_event ev;
    ka_listen(s, "127.0.0.1", 0);
    CHECK(ka_wait(s, &ev, PATIENCE_MS) == KA_OK && each == s->workers[0]->own_table,
          "for each worker: %d", each);
    ka_server_free(s);
    setrlimit(RLIMIT_NOFILE, &before);
#else
    bool each;
    CHECK(ka_descriptors_raise(&each) == INT_MAX && !each, "Windows has no such limit");
#endif
}

/* The owner is who holds the end (1) and a listener (2, 4, ...). Others hold the rest. */
static void test_owners(void)
{
#if defined(_WIN32)
    skip(topic, "Windows tells the owner of a connection itself");
#else
    static const struct { uint32_t held[3]; int pid; uint32_t owned, others; } rows[] = {
        { { 3 }, 1, 3, 0 }, { { 2 }, 0, 0, 2 }, { { 1 }, 0, 0, 1 }, { { 2, 1 }, 0, 0, 3 },
        { { 2, 5 }, 2, 5, 2 }, { { 3, 5 }, 1, 3, 5 }, { { 1, 6, 7 }, 3, 7, 7 },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka__owners o = { .pid = 0 };
        for (int n = 0; n < 3; n++) ka__owner_count(&o, n + 1, rows[i].held[n]);
        CHECK(o.pid == rows[i].pid && o.owned == rows[i].owned && o.others == rows[i].others,
              "row %d: %d, %u, %u", (int)i, (int)o.pid, o.owned, o.others);
    }
#endif
}

static const subject ext_process_topics[] = {
    { "owners", test_owners },
    { "children", test_children }, { "children signals", test_children_signals },
    { "usage", test_usage }, { "memory trim", test_memory_trim },
    { "raise", test_descriptors_raise },
};
