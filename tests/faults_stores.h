/* tests/faults_stores.h - scenarios in which every call fails once: each ends, with what is
   documented, and leaves nothing behind. The frame of all scenarios, and those of keyring, journal,
   files and log. */

/* What the walk is at: printed where a check fails, or the scenario never ends. */
static char fault_story[256];
static _Atomic(int64_t) fault_deadline;
static _Atomic(bool) fault_over;

static const char *story(void)
{
    int first = atomic_load(&fault_first);
    static char text[400];
    snprintf(text, sizeof text, "%s: %s", fault_story,
             first < 0 ? "none failed yet" : fault_calls[first].name);
    return text;
}

static void fault_watch(void *unused)
{
    (void)unused;
    fault_exempt = true;
    for (; !atomic_load(&fault_over); ka_sleep_ms(20)) {
        if (ka_now_ms() < atomic_load(&fault_deadline)) continue;
        printf("tests/faults_run.h: faults: hangs: %s\n", story());
        fflush(stdout);
        abort();
    }
}

static bool allowed_at(const char *file, int line, int r, const char *what, const int *codes)
{
    if (r >= 0) return true;
    while (*codes && *codes != r) codes++;
    return *codes ||
           check_at(file, line, false, "%s: %d (%s); %s", what, r, ka_error_text(r), story());
}
#define ALLOWED(r, what, ...) allowed_at(__FILE__, __LINE__, r, what, (const int[]){ __VA_ARGS__, 0 })

/* What a run must leave as it was. */
typedef struct { long blocks; int descriptors, threads; } holdings;

#if defined(_WIN32)
static holdings held(void)
{
    DWORD n = 0;
    GetProcessHandleCount(GetCurrentProcess(), &n);
    return (holdings){ atomic_load(&blocks_live), (int)n, 0 };
}
#else
static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

static holdings held(void)
{
    return (holdings){ atomic_load(&blocks_live), entries("/dev/fd"), entries("/proc/self/task") };
}
#endif

/* A thread that was joined may be listed for a moment longer; one that looks up a name may still
   free what it was given. */
static bool held_again(holdings before)
{
    holdings now = held();
    for (int i = 0; i < 2000; i++, now = held()) {
        if (now.blocks <= before.blocks && now.threads <= before.threads &&
            now.descriptors <= before.descriptors)
            break;
        ka_sleep_ms(5);
    }
    bool good = now.blocks <= before.blocks && now.descriptors <= before.descriptors &&
                now.threads <= before.threads;
#if defined(__linux__)
    (void)fault_thread;      /* where threads are pthreads */
    int tables = atomic_exchange(&tables_leaked, 0);
    if (tables) CHECK(false, "a worker left descriptors open; %s", story());
#endif
    return good || CHECK(false, "left behind: %d blocks, %d descriptors, %d threads; %s",
                         (int)(now.blocks - before.blocks), now.descriptors - before.descriptors,
                         now.threads - before.threads, story());
}

/* -- what is small -- */

static void faults_small(void)
{
    unsigned char raw[600];
    char id[KA_KEY_TEXT + 1], ips[KA_IPS_TEXT + 1];
    ALLOWED(ka_random(raw, sizeof raw), "ka_random", KA_ERANDOM);
    ALLOWED(ka_fresh_id(id), "ka_fresh_id", KA_ERANDOM);
    ALLOWED(ka_uuid_new(id), "ka_uuid_new", KA_ERANDOM);
    ALLOWED(ka_resolve("127.0.0.1", ips), "ka_resolve", KA_ENOTFOUND, KA_ETIME, KA_ENOMEM, KA_EOS);
    ka__address a;
    if (ka__address_read(&a, "fe80::1%lo", 1) && !a.v6.sin6_scope_id)
        CHECK(false, "an interface without a number; %s", story());
    ka_is_terminal(0);
    int64_t start = ka_now_ms();
    ka_sleep_ms(1);
    if (ka_now_ms() < start) CHECK(false, "the clock runs back; %s", story());
#if !defined(_WIN32)
    fault_exempt = true;
    int nothing = open("/dev/null", O_WRONLY);
    stderr_is(nothing);
    fault_exempt = false;
    for (int i = 0; i < 3; i++) ka_say(2, "\rwords");
    fault_exempt = true;
    stderr_is(-1);
    close(nothing);
    fault_exempt = false;
    exec_stays = true;
    if (ka_restart("a\"b") != KA_EINVAL && atomic_load(&fault_failed) == 0)
        CHECK(false, "a quote in the argument");
    int r = ka_restart("x");
    exec_stays = false;
    if (r != KA_EOS) CHECK(false, "ka_restart: %d; %s", r, story());
#endif
}

/* The calls that are looked at begin before the end of the log's first segment, and go on behind
   keys that are over. */
static void faults_keyring(void)
{
    enum { BEFORE = 845, AFTER = 60 };
    static char keys[AFTER][KA_KEY_TEXT], id[KA_MAX_ID];
    const ka_str name = { id, sizeof id };
    char key[KA_KEY_TEXT];
    ka_keyring k;
    int lost = 0;
    memset(id, 'i', sizeof id);
    int r = ka_keyring_init(&k, 0, 100);
    ALLOWED(r, "ka_keyring_init", KA_ENOMEM);
    fault_exempt = true;
    for (int i = 0; i < BEFORE && r == KA_OK; i++)
        if (key_issue(&k.store, name, 1000, key) != KA_OK) abort();
    fault_exempt = false;
    size_t count = k.count;
    for (int i = 0; i < AFTER && r == KA_OK; i++) {
        int e = key_issue(&k.store, name, i < AFTER / 2 ? 1000 : 102000, keys[i]);
        ALLOWED(e, "ka_keyring's put", KA_ENOMEM, KA_ERANDOM);
        if (e < 0) memset(keys[i], 0, KA_KEY_TEXT);
        else if (i < AFTER / 2 && ++count != k.count)
            CHECK(false, "a key was counted that isn't there; %s", story());
    }
    for (int i = AFTER / 2; i < AFTER && r == KA_OK; i++)
        lost += keys[i][0] &&
                !ka_is(key_find(&k.store, (ka_str){ keys[i], KA_KEY_TEXT }, 102000), "") &&
                key_find(&k.store, (ka_str){ keys[i], KA_KEY_TEXT }, 102000).n != sizeof id;
    if (lost) CHECK(false, "%d keys lost; %s", lost, story());
    ka_keyring_free(&k);
}

/* -- the journal: whatever fails, a key that was given is there when the file is opened again -- */

enum { OLD_KEYS = 4, NEW_KEYS = 6 };
static char journal_keys[OLD_KEYS + NEW_KEYS][KA_KEY_TEXT];
static unsigned char journal_bytes[1024];
static size_t journal_n;

/* Old keys 0 to 3; the last one has ended, so that opening writes the file anew. */
static void journal_before(void)
{
    ka_journal k;
    ka_journal_report report;
    journal_make(OLD_KEYS - 1, journal_keys, journal_bytes, sizeof journal_bytes);
    if (journal_open(&k, 0, false, &report) < 0) abort();
    journal_plant(&k, "03", -900, journal_keys[OLD_KEYS - 1]);
    ka_journal_close(&k);
    journal_n = file_get(JOURNAL, journal_bytes, sizeof journal_bytes);
}

/* told: a bit for each key that must be there in the end. */
static void faults_journal_open(bool salvage, unsigned told)
{
    ka_journal k;
    ka_journal_report report;
    int64_t now = ka_now_ms();
    char id[12];
    fault_exempt = true;
    file_put(JOURNAL, journal_bytes, journal_n);
    fault_exempt = false;
    int r = journal_open(&k, 0, salvage, &report);
    /* KA_EFOREIGN: while it is salvaged it has two names, and a look may fail as if it had gone. */
    ALLOWED(r, "ka_journal_open", KA_ENOMEM, KA_EOS, KA_EPERM, KA_ELIMIT, KA_EINUSE, KA_ENOSPC,
            KA_ENOTFOUND, KA_EFOREIGN);
    bool system = r == KA_EOS || r == KA_EPERM || r == KA_ELIMIT || r == KA_ENOSPC ||
        r == KA_ENOTFOUND;
    if (system && !report.os_error)
        CHECK(false, "%s without its code; %s", ka_error_text(r), story());
    for (int i = OLD_KEYS; i < OLD_KEYS + NEW_KEYS && r == KA_OK; i++) {
        snprintf(id, sizeof id, "%02d", i);
        int e = key_issue(&k.store, str(id), now += 2 * KA__REWRITE_AGAIN_MS, journal_keys[i]);
        ALLOWED(e, "ka_journal's put", KA_ENOMEM, KA_ERANDOM, KA_EOS, KA_EPERM, KA_ELIMIT,
                KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND);
        if (e == KA_OK) told |= 1u << i;
        if (e < 0 && e != KA_ENOMEM && e != KA_ERANDOM &&
            (k.error != e || (e != KA_EINUSE && k.os_error == 0)))
            CHECK(false, "the error is not told: %d, %d; %s", k.error, k.os_error, story());
    }
    if (r == KA_OK && (journal_has(&k, OLD_KEYS + NEW_KEYS, journal_keys) & told) != told)
        CHECK(false, "a key is not there; %s", story());
    ka_journal_close(&k);
    fault_exempt = true;
    r = journal_open(&k, 0, false, &report);
    if (salvage && r == KA_EDAMAGED) {      /* it failed before it changed anything */
        ka_journal_close(&k);
        if (file_get(JOURNAL ".damaged", &(unsigned char){ 0 }, 1) &&
            atomic_load(&fault_failed) < 2)
            CHECK(false, "the other name is left behind; %s", story());
        (void)remove(JOURNAL ".damaged");
        r = journal_open(&k, 0, true, &report);
    }
    if (r < 0 || (journal_has(&k, OLD_KEYS + NEW_KEYS, journal_keys) & told) != told)
        CHECK(false, "%s, keys %x of %x; %s", ka_error_text(r),
              journal_has(&k, OLD_KEYS + NEW_KEYS, journal_keys), told, story());
    ka_journal_close(&k);
    journal_remove();
    fault_exempt = false;
}

static void faults_journal(void) { faults_journal_open(false, 7); }

static void salvage_before(void)
{
    journal_before();
    journal_bytes[KA__FRAME_HEAD + FRAME + 20] ^= 1;
}

static void faults_salvage(void) { faults_journal_open(true, 5); }

/* -- files -- */

static void faults_file_put(void)
{
    static const char *const paths[] = { PUT, PUT "-folder/a/b" };
    for (int i = 0; i < 2; i++) {
        fault_exempt = true;
        put_remove();
        if (i == 0) file_put(PUT, "old", 3);
        fault_exempt = false;
        int r = ka_file_put(paths[i], "the new one", 11), code = ka__os_code();
        ALLOWED(r, "ka_file_put", KA_EOS, KA_EPERM, KA_ELIMIT, KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND);
        fault_exempt = true;
        if (!file_says(paths[i], r == KA_OK ? "the new one" : i == 0 ? "old" : ""))
            CHECK(false, "%d, and the file is another; %s", r, story());
        if (r < 0 && code == 0) CHECK(false, "the system's code is lost; %s", story());
        if ((opens(PUT ".new", "rb") || opens(PUT "-folder/a/b.new", "rb")) &&
            atomic_load(&fault_failed) < 2)
            CHECK(false, "left behind; %s", story());
        fault_exempt = false;
        r = ka_file_remove(paths[i]);
        ALLOWED(r, "ka_file_remove", KA_EOS, KA_EPERM, KA_EINUSE);
    }
}

/* Two lines are added and committed: all or none of what was added. */
static void faults_log_commit(ka_log *log, int i, char *want)
{
    char line[20], both[40] = "";
    int code = 0;
    for (int j = 0; j < 2; j++) {
        snprintf(line, sizeof line, "line %d%d\n", i, j);
        if (ka_log_add(log, line, strlen(line)) > 0) strcat(both, line);
    }
    int e = ka_log_commit(log, &code);
    ALLOWED(e, "ka_log_commit", KA_EOS, KA_EPERM, KA_ELIMIT, KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND);
    if (e == KA_OK) strcat(want, both);
    else if (e != KA_EINUSE && code == 0) CHECK(false, "the system's code is lost; %s", story());
    if ((fault_exempt && e < 0) || log->pending.n)
        CHECK(false, "%d, %d bytes wait; %s", e, (int)log->pending.n, story());
    bool exempt = fault_exempt;
    fault_exempt = true;
    if (!log->file.torn && !file_says(LOG, want))
        CHECK(false, "commit %d: %d, and the file isn't what was told; %s", i, e, story());
    fault_exempt = exempt;
}

/* Another line in the place of all: it, or what was there. */
static void faults_log_replace(ka_log *log, char *want)
{
    static const char line[] = "line R\n";
    int code = 0, e = ka_log_replace(log, line, sizeof line - 1, &code);
    ALLOWED(e, "ka_log_replace", KA_EOS, KA_EPERM, KA_ELIMIT, KA_EINUSE, KA_ENOSPC, KA_ENOTFOUND);
    if (e < 0 && e != KA_EINUSE && code == 0)
        CHECK(false, "the system's code is lost; %s", story());
    fault_exempt = true;
    if (e == KA_OK || (!log->file.named && file_says(LOG, line)))
        strcpy(want, line);      /* its folder wasn't synced */
    if (!log->file.torn && !file_says(LOG, want))
        CHECK(false, "replaced: %d, and the file is another; %s", e, story());
    if (opens(LOG ".new", "rb") && atomic_load(&fault_failed) < 2)
        CHECK(false, "left behind; %s", story());
    fault_exempt = false;
}

/* Whatever fails, the file has the lines that were told, and no others. It is moved away before
   line 3, cut before line 5, and replaced before line 7. */
static void faults_log(void)
{
    char want[200] = "line 0\n", moved[200] = "";
    ka_log *log;
    int64_t cut;
    fault_exempt = true;
    log_remove();
    file_put(LOG, "line 0\nli", 9);
    fault_exempt = false;
    int r = log_open(&log, &cut);
    ALLOWED(r, "ka_log_open", KA_ENOMEM, KA_EOS, KA_EPERM, KA_ELIMIT, KA_EINUSE, KA_ENOSPC,
            KA_ENOTFOUND);
    for (int i = 1; i < 8 && r == KA_OK; i++) {
        if (i == 3 || i == 5) {
            fault_exempt = true;
            if (i == 3 && (rename)(LOG, LOG ".1") != 0)
                CHECK(false, "it can't be moved; %s", story());
            if (i == 3) memcpy(moved, want, sizeof want);
            int64_t size;
            bool there = ka_file_look(&log->file, &size) == KA_OK;
            if (i == 5 && there && ka__file_cut(ka__file_of(&log->file), 0) < 0) abort();
            if (i == 5 && !there) file_put(LOG, "", 0);
            fault_exempt = false;
            want[0] = 0;
        }
        if (i == 7) faults_log_replace(log, want);
        faults_log_commit(log, i, want);
    }
    fault_exempt = true;
    if (r == KA_OK) faults_log_commit(log, 9, want);
    if (r == KA_OK && !file_says(LOG ".1", moved))
        CHECK(false, "the one that was moved is another; %s", story());
    if (r < 0 && !file_says(LOG, "line 0\n") && !file_says(LOG, "line 0\nli"))
        CHECK(false, "it was changed; %s", story());
    ka_log_close(log);
    fault_exempt = false;
}
