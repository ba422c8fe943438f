/* tests/programs_journal.h - the server with --journal, as a program. */

/* Asks for keys until its server is gone, and keeps those it was told of. */
typedef struct {
    int port, n;
    char ids[4000][12], keys[4000][KA_KEY_TEXT + 1];
    ka__thread thread;
} asker;

/* Their server was killed. Wine may keep a connection open that it was about to accept. */
static _Atomic(bool) askers_end;

static void asker_run(void *arg)
{
    asker *a = arg;
    static _Atomic(int) serial;
    char request[128];
    wire w;
    if (wire_try(&w, SERVER_IP, a->port) < 0) return;
    while (a->n < (int)COUNT(a->keys)) {
        snprintf(a->ids[a->n], sizeof a->ids[0], "%d", atomic_fetch_add(&serial, 1));
        snprintf(request, sizeof request,
                 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nask_key=%s",
                 8 + (int)strlen(a->ids[a->n]), a->ids[a->n]);
        if (ka__sock_send(w.sock, request, strlen(request)) != (ptrdiff_t)strlen(request)) break;
        while (ka__sock_wait(w.sock, KA__IN, 20) != KA_OK && !atomic_load(&askers_end)) {}
        if (atomic_load(&askers_end)) break;
        if (wire_answer(&w, a->keys[a->n], sizeof a->keys[0], NULL, false) != 200) break;
        a->n++;
    }
    wire_close(&w);
}

/* Killed at a random moment under load: each key that a client was told of is good after the
   restart. */
static void test_journal_killed(void)
{
    static asker askers[4];
    static ka_client c;      /* one connection for all: Wine takes long for each */
    const char *times = getenv("KA_TEST_KILLS");
    int kills = times ? atoi(times) : 10, port, told = 0, lost = 0;
    uint32_t seed = (uint32_t)ka_now_ms();
    process server;
    char text[8], login[128], want[16];
    journal_remove();
    if (!(port = server_start(&server, text, "--journal", JOURNAL))) return;
    for (int kill = 0; kill < kills; kill++) {
        atomic_store(&askers_end, false);
        for (size_t i = 0; i < COUNT(askers); i++) {
            askers[i].port = port;
            askers[i].n = 0;
            if (ka__thread_start(&askers[i].thread, asker_run, &askers[i]) < 0) abort();
        }
        ka_sleep_ms((int)(next_random(&seed) >> 16) % 100);
        process_kill(&server);
        atomic_store(&askers_end, true);
        for (size_t i = 0; i < COUNT(askers); i++) ka__thread_join(&askers[i].thread);
        process_end(&server);
        if (!(port = server_start(&server, text, "--journal", JOURNAL))) return;
        for (size_t i = 0; i < COUNT(askers); i++)
            for (int n = 0; n < askers[i].n; n++, told++) {
                snprintf(login, sizeof login, "login=%s", askers[i].keys[n]);
                snprintf(want, sizeof want, "200 %s", askers[i].ids[n]);
                if (strcmp(post_on(&c, port, login), want) != 0) lost++;
            }
        ka_client_close(&c);
    }
    CHECK(told > 0 && lost == 0, "killed %d times: of %d keys that were told, %d lost", kills, told,
          lost);
    printf("killed %d times: %d keys told, %d lost\n", kills, told, lost);
    process_end(&server);
    journal_remove();
}

/* What the server says of a journal that it can't use, and of one that it had to mend. */
static void test_journal_words(void)
{
    static char keys[3][KA_KEY_TEXT];
    unsigned char bytes[1024];
    process server, other;
    char port[8];
    size_t n = journal_make(3, keys, bytes, sizeof bytes);
    if (!server_start(&server, port, "--journal", JOURNAL)) return;
    START(&other, PROGRAM("server"), "--ip", SERVER_IP, "--port", "0", "--journal", JOURNAL);
    CHECK(process_wait(&other, PATIENCE_MS) == 1 && strstr(output(&other, "err"),
          "another process has it") != NULL, "a second one: %s", output(&other, "err"));
    process_end(&other);
    process_end(&server);

    bytes[KA__FRAME_HEAD + 20] ^= 1;
    bytes[KA__FRAME_HEAD + 29] = 1;      /* it is random; an end of 0 would not be cut off */
    const struct { size_t n; const char *path, *salvage; int status; const char *says; } rows[] = {
        { n, JOURNAL, NULL, 1, "damaged at byte 12; --journal-salvage" },
        { n, JOURNAL, "--journal-salvage", 0, "left out 56 bytes, from 12 on; " JOURNAL ".damaged has them" },
        { n, JOURNAL, "--journal-salvage", 1, JOURNAL ".new is there already; move it away first" },
        { KA__FRAME_HEAD + 30, JOURNAL, NULL, 0, "cut off its last 30 bytes" },
        { 5, JOURNAL, NULL, 1, "holds no journal of keyauth; choose another --journal" },
        { 0, ".test-no-folder/x", NULL, 1,
          "its folder is not there; mend that, or choose another --journal" },
        { 0, ".", NULL, 1, "it is a folder" },
        { 0, "", NULL, 2, "--journal needs a value" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        file_put(JOURNAL, bytes, rows[i].n);
        START(&other, PROGRAM("server"), "--ip", SERVER_IP, "--port", "0", "--journal",
              rows[i].path, rows[i].salvage);
        if (rows[i].status == 0) await_output(&other, "out", "listening");
        else
            CHECK(process_wait(&other, PATIENCE_MS) == rows[i].status, "exit status of \"%s\"",
                  rows[i].says);
        CHECK(strstr(output(&other, "err"), rows[i].says) != NULL, "\"%s\": got \"%s\"",
              rows[i].says, output(&other, "err"));
        process_end(&other);
    }
    START(&other, PROGRAM("server"), "--journal-salvage");
    CHECK(process_wait(&other, PATIENCE_MS) == 2, "--journal-salvage alone is wrong usage");
    process_end(&other);

    ka_journal k;      /* a key has ended, and the file can't be written anew without it */
    ka_journal_report report;
    journal_remove();
    if (journal_open(&k, 0, false, &report) < 0) abort();
    journal_plant(&k, "00", -900, keys[0]);
    ka_journal_close(&k);
    file_put(JOURNAL ".new", "precious", 8);
    if (!server_start(&server, port, "--journal", JOURNAL)) return;
    await_output(&server, "err",
                 "cannot write " JOURNAL " anew, without the ended keys: a file of its name and "
                 ".new is in the way; move that away; until it can be, the file grows");
    CHECK(file_says(JOURNAL ".new", "precious"), "which is left alone");
    process_end(&server);
    journal_remove();
}

/* The file is taken away, cut, and blocked while the server runs: it says so, and each key that it
   gave is good after a restart. */
static void test_journal_taken(void)
{
    static char keys[16][KA_KEY_TEXT + 1];
    static const struct { const char *says, *why; } steps[] = {
        { NULL, "nothing happens" },
        { JOURNAL " was moved, removed or changed by others", "moved away" },
        { "cannot write " JOURNAL ": it is a folder; new keys are refused",
          "a folder in its place" },
#ifndef _WIN32
        { JOURNAL " was moved, removed or changed by others", "copied and cut" },
#endif
    };
    process server;
    char port_text[8], login[128];
    int n = 0, good = 0;
    journal_remove();
    (void)remove(JOURNAL ".old");
    int port = server_start(&server, port_text, "--journal", JOURNAL);
    if (!port) return;
    for (size_t i = 0; i < COUNT(steps); i++) {
        bool done = true, folder = i == 2;
        (void)remove(JOURNAL ".old");
        if (i == 1 || i == 2) done = (rename)(JOURNAL, JOURNAL ".old") == 0;
        if (folder) done = done && ka__file_folder_make(JOURNAL) == KA_OK;
#ifndef _WIN32
        if (i == 3) done = truncate(JOURNAL, 0) == 0;
#endif
        if (!CHECK(done, "%s", steps[i].why)) break;
        const char *said = post(port, "ask_key=me");
        CHECK(strncmp(said, folder ? "503 server_full" : "200 ", folder ? 15 : 4) == 0, "%s: %s",
              steps[i].why, said);
        if (strncmp(said, "200 ", 4) == 0) snprintf(keys[n++], sizeof keys[0], "%s", said + 4);
        if (steps[i].says) await_output(&server, "err", steps[i].says);
        if (folder) {
            folder_remove(JOURNAL);
            for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until; ka_sleep_ms(50))
                if (strncmp(said = post(port, "ask_key=me"), "200 ", 4) == 0) break;
            CHECK(strncmp(said, "200 ", 4) == 0, "until it has gone: %s", said);
            if (strncmp(said, "200 ", 4) == 0) snprintf(keys[n++], sizeof keys[0], "%s", said + 4);
            await_output(&server, "err", JOURNAL " is written again");
        }
    }
    process_end(&server);
    if (!(port = server_start(&server, port_text, "--journal", JOURNAL))) return;
    for (int i = 0; i < n; i++) {
        snprintf(login, sizeof login, "login=%.88s", keys[i]);
        good += strcmp(post(port, login), "200 me") == 0;
    }
    CHECK(good == n && strcmp(output(&server, "err"), "") == 0, "%d of %d keys are good: %s", good,
          n, output(&server, "err"));
    process_end(&server);
    (void)remove(JOURNAL ".old");
    journal_remove();
}

#ifdef _WIN32
static void test_journal_full(void)
{
    skip("journal full", "Windows has no limit for a process's files");
}
#else
/* Ask until there is no room; how many keys were told. */
static int ask_until_full(int port, char (*keys)[KA_KEY_TEXT + 1], int most)
{
    int n = 0;
    const char *said = "";
    while (n < most && strncmp(said = post(port, "ask_key=me"), "200 ", 4) == 0)
        snprintf(keys[n++], sizeof keys[0], "%s", said + 4);
    CHECK(n > 0 && n < most && strcmp(said, "503 server_full") == 0, "%d keys, then %s", n, said);
    return n;
}

static int logins(int port, char (*keys)[KA_KEY_TEXT + 1], int n)
{
    char login[128];
    int good = 0;
    for (int i = 0; i < n; i++) {
        snprintf(login, sizeof login, "login=%.88s", keys[i]);
        good += strcmp(post(port, login), "200 me") == 0;
    }
    return good;
}

/* No room: asks are refused, logins go on, nothing that was told is lost; and when there is room
   again, on it goes. KA_TEST_FULL names a folder on a file system of 64 KiB; without it the server
   has a limit for its files' size. */
static void test_journal_full(void)
{
    static char keys[2000][KA_KEY_TEXT + 1];
    const char *folder = getenv("KA_TEST_FULL");
    char file[256], ballast[300], port_text[8];
    process server;
    snprintf(file, sizeof file, "%s%s", folder ? folder : "", folder ? "/journal" : JOURNAL);
    snprintf(ballast, sizeof ballast, "%s.ballast", file);
    (void)remove(file);
    if (folder) file_put(ballast, keys, 16384);
    if (!folder) files_limit(20000);
    int port = server_start(&server, port_text, "--journal", file), n = 0;
    if (!folder) files_limit(0);
    if (!port) return;
    n = ask_until_full(port, keys, COUNT(keys));
    CHECK(logins(port, keys, n) == n, "logins go on");
    CHECK(strcmp(post(port, "ask_key=me"), "503 server_full") == 0, "it stays full");
    await_output(&server, "err", "cannot write");
    (void)remove(ballast);
    if (folder) {
        for (int i = 0; i < 2; i++)
            CHECK(strncmp(post(port, "ask_key=me"), "200 ", 4) == 0, "there is room again");
        await_output(&server, "err", "is written again");
    }
    process_end(&server);
    if (!(port = server_start(&server, port_text, "--journal", file))) return;
    CHECK(logins(port, keys, n) == n && strncmp(post(port, "ask_key=me"), "200 ", 4) == 0,
          "after a restart, all are there");
    CHECK(strcmp(output(&server, "err"), "") == 0, "and nothing had to be cut off: %s",
          output(&server, "err"));
    process_end(&server);
    (void)remove(file);
}
#endif

static const subject programs_journal_topics[] = {
    { "journal killed", test_journal_killed }, { "journal words", test_journal_words },
    { "journal taken", test_journal_taken }, { "journal full", test_journal_full },
};
