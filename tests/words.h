/* tests/words.h - words that nobody reads. */

#if defined(_WIN32)
static void test_words(void) { skip("words", "Windows does not tell whether a pipe has room"); }
static void test_words_unread(void)
{
    skip("words unread", "Windows does not tell whether a pipe has room");
}
#else
/* Stand this descriptor in for stderr; -1: have it back. */
static void stderr_is(int fd)
{
    static int before = -1;
    if (before < 0) before = dup(2);
    dup2(fd < 0 ? before : fd, 2);
    if (fd >= 0) return;
    close(before);
    before = -1;
}

/* Read all that there is; the last bytes of it, as text. A terminal may take a moment to pass on
   what was written. */
static const char *drained(int fd)
{
    static char text[KA__CLI_TEXT + 1];
    char piece[KA__CLI_TEXT];
    size_t kept = 0;
    for (ssize_t n; ka__sock_wait(fd, KA__IN, kept ? 20 : 200) == KA_OK &&
                    (n = read(fd, piece, sizeof piece)) > 0;) {
        size_t drop = kept + (size_t)n > KA__CLI_TEXT ? kept + (size_t)n - KA__CLI_TEXT : 0;
        memmove(text, text + drop, kept -= drop);
        memcpy(text + kept, piece, (size_t)n);
        kept += (size_t)n;
    }
    text[kept] = 0;
    return text;
}

/* Whatever stderr is, no line waits for its reader, and the next one that can be written tells how
   many were lost. */
static void words_to(const char *what, int ours, int theirs)
{
    enum { MANY = 50000 };      /* 1 MB and more */
    const char *eol = isatty(theirs) ? "\r\n" : "\n", *got;
    char want[200];
    int lost = 0, flags = fcntl(theirs, F_GETFL);
    stderr_is(theirs);
    CHECK(ka_fail(5, "one %d", 1) == 5, "%s: the status is returned", what);
    snprintf(want, sizeof want, "one 1%s", eol);
    got = drained(ours);
    CHECK(strcmp(got, want) == 0, "%s: got \"%s\"", what, got);
    for (int i = 0; i < MANY; i++) ka_say(2, "line %d", i);
    got = drained(ours);
    ka_say(2, "next");
    for (int i = 0; i < MANY; i++) {      /* what was written in part is finished now */
        snprintf(want, sizeof want, "line %d%s", i, eol);
        if (strlen(got) > strlen(want) && strcmp(got + strlen(got) - strlen(want), want) == 0)
            lost = MANY - 1 - i;
    }
    got = drained(ours);
    const char *told = strstr(got, "(lines lost here, which nobody read: ");
    snprintf(want, sizeof want, ")%snext%s", eol, eol);
    CHECK(told && strstr(told, want) && atoi(told + 37) > MANY / 2 &&
              (!lost || atoi(told + 37) == lost),
          "%s: of %d lost, got \"%s\"", what, lost, got);
    for (const char *const *
             p = (const char *const[]){ "\rfour", "\rto", "done", "\rx", NULL, NULL, "end" },
            *const *end = p + 7;
         p < end; p++)
        ka_say(2, *p);
    got = drained(ours);
    snprintf(want, sizeof want,
             isatty(theirs) ? "four\rto  %sdone%sx%send%s" : "four%sto%sdone%sx%send%s", eol, eol,
             eol, eol, eol);
    CHECK(strcmp(got, want) == 0, "%s: over the line before: got \"%s\"", what, got);
    CHECK(fcntl(2, F_GETFL) == flags,
          "%s: the flags that other processes have, too, are as they were", what);
    stderr_is(-1);
}

/* Ctrl+S and Ctrl+Q, typed at a terminal. */
static void words_stopped(int master, int slave)
{
    stderr_is(slave);
    CHECK(write(master, "\x13", 1) == 1, "Ctrl+S");
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         ka__sock_wait(slave, KA__OUT, 0) == KA_OK && ka_now_ms() < until;)
        ka_sleep_ms(1);
    ka_say(2, "while it is stopped");
    ka_say(2, "\rover it");
    CHECK(write(master, "\x11", 1) == 1, "Ctrl+Q");
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         ka__sock_wait(slave, KA__OUT, 0) != KA_OK && ka_now_ms() < until;)
        ka_sleep_ms(1);
    ka_say(2, "after it");
    const char *got = drained(master);
    CHECK(strcmp(got, "(lines lost here, which nobody read: 2)\r\nafter it\r\n") == 0,
          "Ctrl+S: got \"%s\"", got);
    stderr_is(-1);
}

static volatile sig_atomic_t words_signals;
static void words_signal(int number) { (void)number, words_signals++; }

/* Say a word to a terminal with `stty tostop`, in its background. Returns the
   signals it brought. */
static int words_tostop(int slave)
{
    struct termios t;
    if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) != 0 || tcgetattr(slave, &t) != 0) return -1;
    t.c_lflag |= TOSTOP;
    if (tcsetattr(slave, TCSANOW, &t) != 0 || dup2(slave, 2) != 2) return -1;
    pid_t child = fork();
    if (child < 0) return -1;
    if (child == 0) {
        setpgid(0, 0);
        ka_say(2, "from the background");
        _exit(words_signals);
    }
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* No word ends or stops its process: without a reader, beyond a file's limit, in the background. */
static void words_quiet(int master, int slave)
{
    static const int brought[] = { SIGPIPE, SIGXFSZ, SIGTTOU };
    struct sigaction was[3], count;
    struct rlimit before, none;
    int ends[2], status = -1, file = open(".test-words", O_RDWR | O_CREAT | O_TRUNC, 0600);
    memset(&count, 0, sizeof count);
    count.sa_handler = words_signal;
    for (int i = 0; i < 3; i++) sigaction(brought[i], &count, &was[i]);
    if (pipe(ends) != 0 || getrlimit(RLIMIT_FSIZE, &before) != 0) abort();
    close(ends[0]);
    stderr_is(ends[1]);
    ka_say(2, "to nobody");
    none = before;
    none.rlim_cur = 0;
    stderr_is(file);
    setrlimit(RLIMIT_FSIZE, &none);
    ka_say(2, "too much");
    setrlimit(RLIMIT_FSIZE, &before);
    ka_say(2, "in the file");      /* so that no lost line is left to tell */
    stderr_is(-1);
    CHECK(words_signals == 0, "to a closed pipe, or a file at its limit: %d signals",
          (int)words_signals);
    if (slave >= 0) {
        pid_t child = fork();
        if (child == 0) _exit(words_tostop(slave));
        CHECK(waitpid(child, &status, 0) == child && status == 0, "stty tostop: %d", status);
        const char *got = drained(master);
        CHECK(strstr(got, "from the background\r\n"), "stty tostop: got \"%s\"", got);
    }
    for (int i = 0; i < 3; i++) sigaction(brought[i], &was[i], NULL);
    close(ends[1]);
    close(file);
    (void)remove(".test-words");
}

static void test_words(void)
{
    static char long_text[2 * KA__CLI_TEXT];
    struct rlimit before, none;
    int ends[2], file, master = posix_openpt(O_RDWR | O_NOCTTY);
    bool has = master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread calls ptsname */
    int slave = has ? open(ptsname(master), O_RDWR | O_NOCTTY) : -1;
    if (slave < 0) skip("words", "no pseudo-terminals here");
    else words_to("a terminal", master, slave), words_stopped(master, slave);
    words_quiet(master, slave);
    close(slave);
    close(master);
    for (int kind = 0; kind < 3; kind++) {
        if ((kind == 1 ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) != 0 ||
            getrlimit(RLIMIT_NOFILE, &before) != 0)
            abort();
        none = before;
        none.rlim_cur = 3;
        int own = dup(2);      /* stderr_is needs one, too */
        close(own);
        if (kind == 2) stderr_is(ends[1]), setrlimit(RLIMIT_NOFILE, &none);
        words_to(kind == 0   ? "a pipe"
                 : kind == 1 ? "a socket"
                             : "a pipe, at the descriptor limit",
                 ends[0], ends[1]);
        setrlimit(RLIMIT_NOFILE, &before);
        close(ends[0]);
        close(ends[1]);
    }

    file = open(".test-words", O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
    memset(long_text, 'x', sizeof long_text - 1);
    stderr_is(file);
    ka_say(2, "%s", long_text);
    ka_say(2, "short");
    close(2);
    ka_say(2, "to nothing");
    stderr_is(file);
    ka_say(2, "again");
    stderr_is(-1);
    ssize_t n = pread(file, long_text, sizeof long_text, 0);
    static const char want[] = "xx\nshort\n(lines lost here, which nobody read: 1)\nagain\n";
    CHECK(n > 4000 && memcmp(long_text + n - sizeof want + 1, want, sizeof want - 1) == 0,
          "a long line is cut: %d bytes, %.80s", (int)n, long_text + n - sizeof want + 1);
    close(file);
    (void)remove(".test-words");
}

/* ---- and what programs print while they serve ---- */

#define UNREAD ".test-unread"

/* A pipe with a name, which is full. */
static int unread_open(void)
{
    static const char page[4096] = { '.' };
    (void)remove(UNREAD);
    int fd = mkfifo(UNREAD, 0600) == 0 ? open(UNREAD, O_RDWR | O_NONBLOCK) : -1;
    if (fd < 0) abort();
    while (write(fd, page, sizeof page) > 0) {}
    return fd;
}

/* Is this answered? */
static bool unread_serves(const char *ip, int port, const char *text)
{
    static wire w;
    char byte;
    for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until; ka_sleep_ms(20)) {
        if (wire_try(&w, ip, port) < 0) continue;      /* it may not listen yet */
        bool served = wire_text(&w, text) && ka__sock_wait(w.sock, KA__IN, 5000) == KA_OK &&
                      ka__sock_recv(w.sock, &byte, 1) == 1;
        wire_close(&w);
        return served;
    }
    return false;
}

#define UNREAD_ASK "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x"
#define UNREAD_GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

/* Each program with a full pipe as its stdout and stderr serves on; `lines`: it prints one each
   second, and the first that can be written tells how many were lost. Then SIGTERM ends
   it at once. */
static void test_words_unread(void)
{
    static const struct { const char *command, *ip, *request; bool lines; } rows[] = {
        { "../server --port %d --stats", SERVER_IP, UNREAD_ASK, true },
        { "../server --port %d --redis 127.0.0.1:1", SERVER_IP, UNREAD_ASK, false },
        { "ulimit -f 8 && export GCOV_PREFIX=$GCOV_ERROR_FILE.d; ../server --port %d --journal " JOURNAL, SERVER_IP, UNREAD_ASK, false },
        { "../examples/codes/codes server --uuid-port %d --text-port 0 --log " MESSAGES, "127.0.0.1", UNREAD_GET, false },
        { "../examples/gate/gate server --port %d --many --token-file " TOKEN_FILE, "127.0.0.1", "{\"url\": \"/\"}", false },
        { "../examples/relay/relay server --port %d --stats", "127.0.0.1", "message x\n", true },
        { "../examples/fleet/fleet server --tcp-port 0 --rest-port %d --redis 127.0.0.1:1 --webhook http://127.0.0.1:1/", "127.0.0.1", UNREAD_GET, false },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        process p;
        char command[256], line[400];
        int unread = unread_open(), port = free_port(), served = 0;
        snprintf(command, sizeof command, rows[i].command, port);
        char *program = strstr(command, "; ");
        snprintf(line, sizeof line, "%.*sexec %s >" UNREAD " 2>&1",
                 program ? (int)(program + 2 - command) : 0, command,
                 program ? program + 2 : command);
        if (!START(&p, "/bin/sh", "-c", line)) continue;
        for (int64_t until = INT64_MAX; served < 60 || ka_now_ms() < until; served++) {
            if (!unread_serves(rows[i].ip, port, rows[i].request) &&
                !CHECK(false, "%s serves; request %d", command, served))
                break;
            /* So it has printed a line since it began. */
            if (served == 0) until = ka_now_ms() + 1500;
            if (served >= 60) ka_sleep_ms(20);
        }
        const char *got = "";
        if (rows[i].lines) drained(unread);
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             rows[i].lines && !strstr(got, "read: ") && ka_now_ms() < until;)
            got = drained(unread);
        CHECK(!rows[i].lines || strstr(got, "(lines lost here, which nobody read: "),
              "%s tells what was lost: \"%s\"", command, got);
        kill((pid_t)pool[p].pid, SIGTERM);
        /* A program that waits for its reader would end with KA_DRAIN_MS, 8 s there, or never. */
        int ms, status = process_wait_timed(&p, &ms);
        CHECK(status == 0 && (emulator() || ms < 7000), "%s: status %d in %d ms", command, status,
              ms);
        process_end(&p);
        close(unread);
    }
    (void)remove(UNREAD);
    journal_remove();
    gate_remove();
    (void)remove(MESSAGES);
}
#endif

static const subject words_topics[] = {
    { "words", test_words }, { "words unread", test_words_unread },
};
