/* tests/ext_journal.h - ext/journal.h. */

#define JOURNAL ".test-journal"
static const unsigned char first_frame[KA__FRAME_HEAD] = {
    0xf5, 'k', 'a', 1, 0xc7, 0x4b, 0x67, 0x48
};
enum { FRAME = KA__FRAME_HEAD + KA__ENTRY_HEAD + 2 };      /* of one key, with an ID of two bytes */

static bool opens(const char *path, const char *mode)
{
    FILE *f = fopen(path, mode);
    if (f) fclose(f);
    return f != NULL;
}

static int64_t size_of(const ka_file *f)
{
    ka__file_info l;
    return ka__file_look(ka__file_of(f), &l) == KA_OK ? l.size : -1;
}

/* Windows has other rights. */
static unsigned mode_of(const char *path)
{
#ifdef _WIN32
    return (void)path, 0;
#else
    struct stat s;
    return (stat)(path, &s) == 0 ? s.st_mode & 07777 : 07777;
#endif
}

static size_t file_get(const char *path, unsigned char *bytes, size_t cap)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, cap, f) : 0;
    if (f) fclose(f);
    return n;
}

static void file_put(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) abort();
}

#ifdef _WIN32
static void folder_remove(const char *path) { RemoveDirectoryA(path); }
#else
static void folder_remove(const char *path) { rmdir(path); }
#endif

static bool file_is(const char *path, const char *bytes, size_t n)
{
    static unsigned char got[2 << 20];
    return file_get(path, got, sizeof got) == n && memcmp(got, bytes, n) == 0;
}

static bool file_says(const char *path, const char *text)
{
    return file_is(path, text, strlen(text));
}

static void journal_remove(void)
{
    (void)remove(JOURNAL);
    (void)remove(JOURNAL ".new");
    (void)remove(JOURNAL ".damaged");
}

static int journal_open(ka_journal *k, int64_t ttl_s, bool salvage, ka_journal_report *report)
{
    return ka_journal_open(k, NULL, JOURNAL, 0, ttl_s, salvage, report);
}

/* A journal of n frames with a key each, "00", "01"...; its bytes. */
static size_t journal_make(int n, char keys[][KA_KEY_TEXT], unsigned char *bytes, size_t cap)
{
    ka_journal k;
    ka_journal_report report;
    char id[12];
    journal_remove();
    CHECK(journal_open(&k, 0, false, &report) == KA_OK && report.cut == 0 && k.keys.count == 0,
          "a new one");
    for (int i = 0; i < n; i++) {
        snprintf(id, sizeof id, "%02d", i);
        CHECK(key_issue(&k.store, str(id), ka_now_ms(), keys[i]) == KA_OK, "key %d", i);
    }
    ka_journal_close(&k);
    return file_get(JOURNAL, bytes, cap);
}

/* Which of n keys are in it, as a set of bits; one whose ID is another's is in none. */
static unsigned journal_has(ka_journal *k, int n, char keys[][KA_KEY_TEXT])
{
    unsigned has = 0;
    char id[12];
    for (int i = 0; i < n; i++) {
        snprintf(id, sizeof id, "%02d", i);
        if (ka_is(key_find(&k->store, (ka_str){ keys[i], KA_KEY_TEXT }, ka_now_ms()), id))
            has |= 1u << i;
    }
    return has;
}

static void test_journal(void)
{
    static char keys[4][KA_KEY_TEXT];
    unsigned char bytes[1024], raw[KA_KEY_BYTES];
    ka_journal k, other;
    ka_journal_report report;
    size_t n = journal_make(4, keys, bytes, sizeof bytes);
    CHECK(n == KA__FRAME_HEAD + 4 * FRAME && memcmp(bytes, first_frame, KA__FRAME_HEAD) == 0,
          "its size: %d", (int)n);
    CHECK(ka__journal_crc((const unsigned char *)"123456789", 9) == 0xe3069283,
          "the check value of CRC-32C");
    for (int i = 0; i < 4; i++) {
        ka_b64_decode(raw, sizeof raw, keys[i], KA_KEY_TEXT);
        for (size_t at = 0; at + 16 <= n; at++)
            if (memcmp(bytes + at, raw, 16) == 0 || memcmp(bytes + at, keys[i], 16) == 0)
                CHECK(false, "a key is in the file");
    }
#ifndef _WIN32
    struct stat s;
    CHECK(stat(JOURNAL, &s) == 0 && (s.st_mode & 0777) == 0600 && chmod(JOURNAL, 0640) == 0,
          "for its owner alone");
#endif
#if !defined(_WIN32)
    atomic_store(&fault_from, LONG_MAX);      /* nothing fails; the calls are counted */
    atomic_store(&fault_most, INT_MAX);
    atomic_store(&fault_counts[F_pwrite], 0);
    atomic_store(&fault_armed, true);
#endif
    CHECK(journal_open(&k, 0, false, &report) == KA_OK && journal_has(&k, 4, keys) == 15 &&
              k.keys.count == 4,
          "all are there again");
#ifndef _WIN32
    CHECK(stat(JOURNAL, &s) == 0 && (s.st_mode & 0777) == 0640, "a mode that it was given stays");
#endif
#if !defined(_WIN32)
    atomic_store(&fault_armed, false);
    CHECK(atomic_load(&fault_counts[F_pwrite]) == 1,
          "the last frame was written once more: its sync may have failed");
#endif
    CHECK(journal_open(&other, 0, false, &report) == KA_EINUSE, "it is opened once at a time");
    ka_journal_close(&other);
    CHECK(ka_journal_open(&other, NULL, JOURNAL, 0, -1, false, &report) == KA_EINVAL,
          "no time to live");
    CHECK(key_issue(&k.store, str(""), ka_now_ms(), keys[0]) == KA_EINVAL, "an empty ID");
    ka_journal_close(&k);
    journal_remove();
}

/* Paths that are refused. */
static void test_journal_paths(void)
{
    static char keys[1][KA_KEY_TEXT];
    static char long_path[KA__FILE_PATH];
    unsigned char bytes[256];
    ka_journal k;
    ka_journal_report report;
    journal_make(1, keys, bytes, sizeof bytes);
    CHECK(ka_journal_open(&k, NULL, ".test-no-folder/x", 0, 0, false, &report) == KA_ENOTFOUND &&
              report.os_error != 0,
          "no such folder");
    ka_journal_close(&k);
    memset(long_path, 'x', sizeof long_path - 1);
    CHECK(ka_journal_open(&k, NULL, long_path, 0, 0, false, &report) == KA_EINVAL,
          "a path that is too long");
    ka_journal_close(&k);
    CHECK(ka_journal_open(&k, NULL, "", 0, 0, false, &report) == KA_EINVAL, "no path");
    ka_journal_close(&k);
#ifndef _WIN32
    CHECK(ka_journal_open(&k, NULL, "/dev/null", 0, 0, false, &report) == KA_EINVAL, "not a file");
    ka_journal_close(&k);
    CHECK(symlink(JOURNAL, JOURNAL ".new") == 0 &&
              ka_journal_open(&k, NULL, JOURNAL ".new", 0, 0, false, &report) == KA_EINVAL,
          "a symbolic link");
    ka_journal_close(&k);
#endif
    journal_remove();
}

/* Frames whose sum is right, though no server would write them. */
static void test_journal_odd_frames(void)
{
    static char keys[1][KA_KEY_TEXT];
    static struct ka__journal_frame f;
    static const struct { int at; unsigned char is; int keys; const char *why; } odd[] = {
        { 0, 2, 1, "a key that is there already" }, { 0, 0, 0, "no ID" },
        { 0, 3, 0, "an ID longer than its frame" }, { 1, 255, 0, "an ID longer than any" },
        { 10, 1, 2, "another key" }, { 9, 255, 2, "an end beyond all times" },
    };
    unsigned char bytes[1024], digest[32] = { 0 };
    ka_journal k;
    ka_journal_report report;
    size_t n = journal_make(1, keys, bytes, sizeof bytes);
    for (size_t i = 0; i < COUNT(odd); i++) {
        file_put(JOURNAL, bytes, n);
        if (journal_open(&k, 0, false, &report) < 0) abort();
        ka__journal_frame_begin(&f);
        bool again = odd[i].at == 0 && odd[i].is == 2;
        ka__journal_frame_add(&f, again ? bytes + KA__FRAME_HEAD * 2 + 10 : digest, str("xx"), 0);
        f.bytes[KA__FRAME_HEAD + odd[i].at] = odd[i].is;
        ka__journal_frame_end(&f);
        if (ka_file_append(&k.own->file, f.bytes, f.n) < 0) abort();
        ka_journal_close(&k);
        int r = journal_open(&k, 0, false, &report);
        CHECK(r == KA_OK && journal_has(&k, 1, keys) == 1 &&
                  (odd[i].keys ? (int)k.keys.count == odd[i].keys && !report.cut
                               : report.cut == FRAME),
              "%s: %s, %d keys", odd[i].why, ka_error_text(r), (int)k.keys.count);
        ka_journal_close(&k);
    }
    journal_remove();
}

/* Cut off after each of its bytes: what was whole is there, the rest is cut off, and the next key
   follows. */
static void test_journal_torn(void)
{
    static char keys[5][KA_KEY_TEXT];
    unsigned char bytes[1024];
    ka_journal k;
    ka_journal_report report;
    size_t n = journal_make(4, keys, bytes, sizeof bytes);
    for (size_t cut = KA__FRAME_HEAD; cut <= n; cut += (size_t)alike()) {
        unsigned whole = (unsigned)(cut - KA__FRAME_HEAD) / FRAME;
        size_t rest = (cut - KA__FRAME_HEAD) % FRAME;
        while (rest > 0 && bytes[KA__FRAME_HEAD + whole * FRAME + rest - 1] == 0)
            rest--;      /* those are room */
        file_put(JOURNAL, bytes, cut);
        int r = journal_open(&k, 0, false, &report);
        if (r != KA_OK || report.cut != (int64_t)rest || report.damaged ||
            journal_has(&k, 4, keys) != (1u << whole) - 1)
            CHECK(false, "after %d bytes: %s, %d cut off, keys %x", (int)cut, ka_error_text(r),
                  (int)report.cut, journal_has(&k, 4, keys));
        if (key_issue(&k.store, str("04"), ka_now_ms(), keys[4]) != KA_OK)
            CHECK(false, "the next key after %d bytes", (int)cut);
        ka_journal_close(&k);
        r = journal_open(&k, 0, false, &report);
        if (r != KA_OK || report.cut || journal_has(&k, 5, keys) != ((1u << whole) - 1) + 16)
            CHECK(false, "again, after %d bytes: %s, keys %x", (int)cut, ka_error_text(r),
                  journal_has(&k, 5, keys));
        ka_journal_close(&k);
    }
    CHECK(true, "%d cuts", (int)n);
    journal_remove();
}

/* Each of its bytes changed: damage is told with its place, nothing is changed, and salvaging loses
   that frame alone. */
static void test_journal_damaged(void)
{
    static char keys[4][KA_KEY_TEXT];
    unsigned char bytes[1024], after[1024];
    ka_journal k;
    ka_journal_report report;
    size_t n = journal_make(4, keys, bytes, sizeof bytes);
    for (size_t i = 0; i < n; i += (size_t)alike()) {
        int frame = i < KA__FRAME_HEAD ? 0 : (int)(i - KA__FRAME_HEAD) / FRAME + 1;
        int64_t at = frame == 0 ? 0 : KA__FRAME_HEAD + (frame - 1) * FRAME,
                size = frame == 0 ? KA__FRAME_HEAD : FRAME;
        unsigned rest = frame == 0 ? 15 : 15 & ~(1u << (frame - 1));
        bytes[i] ^= 0x10;
        file_put(JOURNAL, bytes, n);
        int r = journal_open(&k, 0, false, &report);
        if (frame == 4 ? r != KA_OK || report.cut != FRAME || journal_has(&k, 4, keys) != 7
                       : r != KA_EDAMAGED || report.damaged_at != at)
            CHECK(false, "byte %d: %s, at %d", (int)i, ka_error_text(r), (int)report.damaged_at);
        ka_journal_close(&k);
        if (frame < 4) {
            if (file_get(JOURNAL, after, sizeof after) != n || memcmp(bytes, after, n) != 0)
                CHECK(false, "byte %d: the file was changed", (int)i);
            r = journal_open(&k, 0, true, &report);
            if (r != KA_OK || report.damaged_at != at || report.damaged != size || report.cut ||
                journal_has(&k, 4, keys) != rest)
                CHECK(false, "byte %d: salvaged: %s, %d bytes at %d", (int)i, ka_error_text(r),
                      (int)report.damaged, (int)report.damaged_at);
            ka_journal_close(&k);
            if (file_get(JOURNAL ".damaged", after, sizeof after) != n ||
                memcmp(bytes, after, n) != 0)
                CHECK(false, "byte %d: the damaged file isn't kept", (int)i);
            r = journal_open(&k, 0, false, &report);
            if (r != KA_OK || report.damaged || journal_has(&k, 4, keys) != rest)
                CHECK(false, "byte %d: whole again: %s", (int)i, ka_error_text(r));
            ka_journal_close(&k);
        }
        journal_remove();
        bytes[i] ^= 0x10;
    }
    CHECK(true, "%d bytes", (int)n);
}

/* A damaged file is kept once, as it was, and with a torn end. */
static void test_journal_kept(void)
{
    static char keys[4][KA_KEY_TEXT];
    unsigned char bytes[1024], after[1024];
    ka_journal k;
    ka_journal_report report;
    size_t n = journal_make(4, keys, bytes, sizeof bytes);
    file_put(JOURNAL, bytes, n / 2);
    file_put(JOURNAL ".damaged", "", 0);
    CHECK(journal_open(&k, 0, true, &report) == KA_OK && report.damaged == 0, "nothing to salvage");
    ka_journal_close(&k);
    bytes[20] ^= 1;
    file_put(JOURNAL, bytes, n);
    CHECK(journal_open(&k, 0, true, &report) == KA_EINUSE,
          "a damaged file that was kept before is not overwritten");
    ka_journal_close(&k);
    CHECK(file_get(JOURNAL, after, sizeof after) == n && memcmp(bytes, after, n) == 0,
          "and the file is as it was");
    file_put(JOURNAL, bytes, n - 1);      /* torn as well */
    CHECK(journal_open(&k, 0, true, &report) == KA_EINUSE &&
              file_get(JOURNAL, after, sizeof after) == n - 1,
          "nor is its torn end cut off");
    ka_journal_close(&k);
    (void)remove(JOURNAL ".damaged");
    CHECK(journal_open(&k, 0, true, &report) == KA_OK && report.damaged == FRAME &&
              report.cut == FRAME - 1 && journal_has(&k, 4, keys) == 6,
          "salvaged, and cut");
    CHECK(file_get(JOURNAL ".damaged", after, sizeof after) == n - 1 &&
              memcmp(bytes, after, n - 1) == 0,
          "and kept with its torn end");
    ka_journal_close(&k);
    journal_remove();
}

/* What isn't a journal is not touched: one begins whole, by a rename. */
static void test_journal_strangers(void)
{
    static const struct { const char *bytes; size_t n; int want; const char *why; } files[] = {
        { "hello", 5, KA_ESYNTAX, "a text" },
        { "", 0, KA_OK, "nothing" },
        { "\0\0\0\0\0\0\0\0\0\0\0\0", 12, KA_ESYNTAX, "zeros" },
        { "\xf5ka\1\0\0\0\0\0\0\0\0", 12, KA_ESYNTAX, "half a frame" },
        { "\xf5ka\2\0\0\0\0\0\0\0\0", 12, KA_ESYNTAX, "of another version" },
        { "\xf5ka\1\0\0\0\0\xff\xff\xff\xff-", 13, KA_ESYNTAX, "a frame longer than any" },
    };
    unsigned char after[64];
    ka_journal k;
    ka_journal_report report;
    journal_remove();
    for (size_t i = 0; i < COUNT(files); i++)
        for (int salvage = 0; salvage < 2; salvage++) {
            file_put(JOURNAL, files[i].bytes, files[i].n);
            unsigned mode = mode_of(JOURNAL);
            int r = journal_open(&k, 0, salvage, &report);
            CHECK(mode_of(JOURNAL) == mode, "%s: its mode", files[i].why);
            CHECK(r == files[i].want && k.keys.count == 0, "%s: got %s", files[i].why,
                  ka_error_text(r));
            ka_journal_close(&k);
            size_t n = file_get(JOURNAL, after, sizeof after);
            CHECK(r == KA_OK ? n == KA__FRAME_HEAD && memcmp(after, first_frame, n) == 0
                             : n == files[i].n && memcmp(after, files[i].bytes, n) == 0,
                  "%s: the file", files[i].why);
        }
    journal_remove();
}

/* A bad end that is longer than a commit can be is damage. The zeros behind it don't count: a crash
   leaves them. */
static void test_journal_long_end(void)
{
    enum { MOST = 16 << 20 };
    static const int zeros[] = { 1, 11, 12, 13, 511, 512, 4095, 4096, 65536, KA__FRAME_BYTES,
        KA__FRAME_BYTES + 1, 8 << 20, MOST };
    static const struct { int more, at, want; const char *why; } others[] = {
        { KA__FRAME_BYTES, 0, KA_OK, "as long as a frame, and begins with a byte" },
        { KA__FRAME_BYTES, KA__FRAME_BYTES - 1, KA_OK, "as long as a frame, and ends with a byte" },
        { MOST, KA__FRAME_BYTES - 1, KA_OK, "as long as a frame, and zeros" },
        { KA__FRAME_BYTES + 1, KA__FRAME_BYTES, KA_EDAMAGED, "longer, and ends with a byte" },
        { MOST, MOST / 2, KA_EDAMAGED, "a byte in the middle" },
    };
    static char keys[2][KA_KEY_TEXT];
    static unsigned char bytes[1024 + MOST], after[64];
    ka_journal k;
    ka_journal_report report;
    size_t n = journal_make(1, keys, bytes, 1024);
    for (size_t i = 0; i < COUNT(zeros); i++) {
        file_put(JOURNAL, bytes, n + (size_t)zeros[i]);
        int r = journal_open(&k, 0, false, &report);
        CHECK(r == KA_OK && report.cut == 0 && report.cut_at == (int64_t)n &&
              journal_has(&k, 1, keys) == 1, "%d zeros: %s", zeros[i], ka_error_text(r));
        if (r == KA_OK) CHECK(key_issue(&k.store, str("01"), ka_now_ms(), keys[1]) == KA_OK &&
            journal_has(&k, 2, keys) == 3, "and on it goes behind them");
        ka_journal_close(&k);
    }
    for (size_t i = 0; i < COUNT(others); i++) {
        bytes[n + (size_t)others[i].at] = 0xf5;
        file_put(JOURNAL, bytes, n + (size_t)others[i].more);
        int r = journal_open(&k, 0, false, &report);
        CHECK(r == others[i].want && (r == KA_OK ? report.cut == others[i].at + 1 :
              report.damaged_at == (int64_t)n), "%s: %s", others[i].why, ka_error_text(r));
        ka_journal_close(&k);
        bytes[n + (size_t)others[i].at] = 0;
    }
    CHECK(journal_open(&k, 0, true, &report) == KA_OK && report.damaged == MOST / 2 + 1 &&
          journal_has(&k, 1, keys) == 1, "salvaged");
    ka_journal_close(&k);
    file_put(JOURNAL, bytes + n, 4096);
    CHECK(journal_open(&k, 0, false, &report) == KA_ESYNTAX &&
          file_get(JOURNAL, after, sizeof after) == sizeof after, "a file of zeros is no journal");
    ka_journal_close(&k);
    journal_remove();
}

/* What others do to the file while it is open. KA_OK: the next key is told, and all are in the file
   of that name. Else keys are refused so, and none is lost, until what is in the way has gone. */
typedef enum {
    TO_REMOVED, TO_MOVED, TO_OLDER, TO_EMPTY, TO_FOLDER, TO_FOREIGN, TO_HELD, TO_STRANGERS, TO_LINK,
    TO_PIPE, TO_CUT, TO_EMPTIED, TO_LENGTHENED, TO_LINKED
} mishap;      /* from TO_CUT on it stays under its name */
static const struct { mishap what; int want; const char *why; } mishaps[] = {
    { TO_REMOVED, KA_OK, "removed" },
    { TO_MOVED, KA_OK, "moved away" },
    { TO_OLDER, KA_OK, "replaced by an older one" },
    { TO_EMPTY, KA_OK, "replaced by an empty file" },
    { TO_FOREIGN, KA_ESYNTAX, "replaced by a text" },
    { TO_FOLDER, KA_EINVAL, "replaced by a folder" },
#ifndef _WIN32
    { TO_CUT, KA_OK, "cut" },
    { TO_EMPTIED, KA_OK, "copied and cut" },
    { TO_LENGTHENED, KA_OK, "added to" },
    { TO_LINKED, KA_OK, "given a second name" },
    { TO_HELD, KA_EINUSE, "replaced by another process's journal" },
    { TO_STRANGERS, KA_EFOREIGN, "replaced by another user's" },
    { TO_LINK, KA_EINVAL, "replaced by a link to it" },
    { TO_PIPE, KA_EINVAL, "replaced by a pipe" },
#endif
};

static bool mishap_happens(mishap what, ka_file *held)
{
    fault_exempt = true;
    bool done = true;
    if (what < TO_CUT) done = rename(JOURNAL, JOURNAL ".old") == 0;
    if (what == TO_REMOVED) (void)remove(JOURNAL ".old");
    if (what == TO_OLDER || what == TO_HELD) file_put(JOURNAL, first_frame, sizeof first_frame);
    if (what == TO_EMPTY || what == TO_STRANGERS) file_put(JOURNAL, "", 0);
    if (what == TO_FOREIGN) file_put(JOURNAL, "precious", 8);
    if (what == TO_HELD) done = done && ka_file_open(held, JOURNAL, NULL) == KA_OK;
    if (what == TO_FOLDER) done = done && ka__file_folder_make(JOURNAL) == KA_OK;
#ifndef _WIN32
    FILE *f;
    if (what == TO_CUT) done = stat(JOURNAL, &(struct stat){ 0 }) == 0 &&
        truncate(JOURNAL, KA__FRAME_HEAD + 20) == 0;
    if (what == TO_EMPTIED) done = truncate(JOURNAL, 0) == 0;
    if (what == TO_LENGTHENED) done = (f = fopen(JOURNAL, "ab")) != NULL && fputs("x", f) > 0 &&
        fclose(f) == 0;
    if (what == TO_LINKED) done = link(JOURNAL, JOURNAL ".old") == 0;
    if (what == TO_STRANGERS) done = done && (chown)(JOURNAL, 12345, (gid_t)-1) == 0;
    if (what == TO_LINK) done = done && symlink(JOURNAL ".old", JOURNAL) == 0;
    if (what == TO_PIPE) done = done && mkfifo(JOURNAL, 0600) == 0;
#endif
    fault_exempt = false;
    return done;
}

static void test_journal_moved(void)
{
    static char keys[4][KA_KEY_TEXT];
    char id[4];
    ka_journal k;
    ka_journal_report report;
    for (size_t i = 0; i < COUNT(mishaps); i++) {
        const char *why = mishaps[i].why;
        ka_file held = { .handle = 0 };
        int64_t now = ka_now_ms();
        journal_remove();
        (void)remove(JOURNAL ".old");
        if (journal_open(&k, 0, false, &report) < 0) abort();
        for (int n = 0; n < 2; n++) {
            snprintf(id, sizeof id, "%02d", n);
            if (key_issue(&k.store, str(id), now, keys[n]) != KA_OK) abort();
        }
        if (!mishap_happens(mishaps[i].what, &held)) {
            skip(why, "it can't be done here");
            ka_journal_close(&k);
            continue;
        }
        int r = key_issue(&k.store, str("02"), now, keys[2]);
        CHECK(r == mishaps[i].want && k.error == r, "%s: %s", why, ka_error_text(r));
        CHECK(journal_has(&k, 3, keys) == (r == KA_OK ? 7 : 3), "%s: logins go on", why);
        if (r < 0) {
            CHECK(k.mended == 0 && key_issue(&k.store, str("02"), now += 1000000,
                  keys[2]) == r, "%s: still", why);
            if (mishaps[i].what == TO_FOREIGN) CHECK(file_get(JOURNAL, (unsigned char *)id,
                4) == 4 && memcmp(id, "prec", 4) == 0, "and is left alone");
            ka_file_close(&held);
            folder_remove(JOURNAL);
            (void)remove(JOURNAL);
            r = key_issue(&k.store, str("02"), now += 1000000, keys[2]);
            CHECK(r == KA_OK, "%s, until it has gone: %s", why, ka_error_text(r));
        }
        CHECK(k.mended == 1 && k.error == KA_OK, "%s: that is told once: %d", why,
              (int)k.mended);
        CHECK(key_issue(&k.store, str("03"), now, keys[3]) == KA_OK && k.mended == 1,
              "%s: and on it goes", why);
        CHECK(size_of(&k.own->file) == k.own->file.room, "%s: its size", why);
        ka_journal_close(&k);
        r = journal_open(&k, 0, false, &report);
        CHECK(r == KA_OK && report.cut == 0 && journal_has(&k, 4, keys) == 15 && k.keys.count == 4,
              "%s: all are in the file of that name: %s, %d", why, ka_error_text(r),
              (int)k.keys.count);
        ka_journal_close(&k);
    }
    (void)remove(JOURNAL ".old");
    journal_remove();
}

/* Another server was started on a name that had come free, told a key, and ended. Then this one has
   to have its journal under that name. */
static void test_journal_of_another(void)
{
    static char keys[3][KA_KEY_TEXT];
    static unsigned char bytes[1024];
    size_t n = journal_make(1, keys, bytes, sizeof bytes);
    ka_journal k;
    ka_journal_report report;
    journal_remove();
    if (journal_open(&k, 0, false, &report) < 0) abort();
    CHECK(key_issue(&k.store, str("01"), ka_now_ms(), keys[1]) == KA_OK, "before");
    if (rename(JOURNAL, JOURNAL ".old") != 0) abort();
    file_put(JOURNAL, bytes, n);
    CHECK(key_issue(&k.store, str("02"), ka_now_ms(), keys[2]) == KA_OK &&
          journal_has(&k, 3, keys) == 7, "its keys are kept");
    ka_journal_close(&k);
    CHECK(journal_open(&k, 0, false, &report) == KA_OK && journal_has(&k, 3, keys) == 7,
          "in the file, too");
    ka_journal_close(&k);
    (void)remove(JOURNAL ".old");
    journal_remove();
}

/* It is due to be written anew, and that fails: keys are told all the same, and so is that. */
static void test_journal_grows(void)
{
    static char keys[1][KA_KEY_TEXT];
    ka_journal k;
    ka_journal_report report;
    int64_t now = ka_now_ms();
    journal_remove();
    if (journal_open(&k, 60, false, &report) < 0) abort();
    CHECK(key_issue(&k.store, str("00"), now, keys[0]) == KA_OK && k.rewrite_error == KA_OK,
          "nothing is due");
    file_put(JOURNAL ".new", "precious", 8);
    k.own->stepped = true;
    CHECK(key_issue(&k.store, str("00"), now, keys[0]) == KA_OK && k.rewrite_error == KA_EINUSE &&
          k.error == KA_OK, "another file of that name");
    CHECK(key_issue(&k.store, str("00"), now += 1000000, keys[0]) == KA_OK &&
          file_says(JOURNAL ".new", "precious"), "is left alone");
    file_put(JOURNAL ".new", "\0\0\0\0\0", 5);
    CHECK(key_issue(&k.store, str("00"), now += 1000000, keys[0]) == KA_OK &&
          k.rewrite_error == KA_OK && !k.own->stepped && !opens(JOURNAL ".new", "rb"),
          "what a crash left is not");
#ifndef _WIN32
    k.own->stepped = true;
    CHECK(symlink(JOURNAL, JOURNAL ".new") == 0 && key_issue(&k.store, str("00"), now,
          keys[0]) == KA_OK && k.rewrite_error == KA_EINUSE, "a link");
#endif
    ka_journal_close(&k);
    journal_remove();
}

/* The wall clock is set while the server runs: what was issued before and after is good for as long
   as it was meant to be. */
static void test_journal_clock(void)
{
    static char keys[2][KA_KEY_TEXT];
    ka_journal k;
    ka_journal_report report;
    journal_remove();
    if (journal_open(&k, 3600, false, &report) < 0) abort();
    k.own->epoch_s -= 100000;      /* as if it had been started with a clock that was slow */
    ka__journal_frame_add(&k.own->pending, (const unsigned char *)keys, str("xx"),
                          (uint64_t)k.own->epoch_s + 3600);
    if (ka__journal_append(&k) < 0 ||
        ka__journal_frame_keep(&k, k.own->pending.bytes, k.own->pending.n, ka_now_ms()) < 0)
        abort();
    ka__journal_frame_begin(&k.own->pending);
    for (int i = 0; i < 2; i++)
        CHECK(key_issue(&k.store, str(i ? "01" : "00"), ka_now_ms(), keys[i]) == KA_OK, "a key");
    ka_journal_close(&k);
    CHECK(journal_open(&k, 3600, false, &report) == KA_OK && k.keys.count == 3 &&
              journal_has(&k, 2, keys) == 3,
          "all are there: %d", (int)k.keys.count);
    int64_t now = ka_now_ms();
    CHECK(key_find(&k.store, (ka_str){ keys[1], KA_KEY_TEXT }, now + 3590000).p &&
              !key_find(&k.store, (ka_str){ keys[1], KA_KEY_TEXT }, now + 3602000).p,
          "for an hour");
    ka_journal_close(&k);
    journal_remove();
}

/* Write a key into the file alone, as if it had been made so long ago that it ends in `ends_s`. */
static void journal_plant(ka_journal *k, const char *id, int ends_s, char key[KA_KEY_TEXT])
{
    unsigned char raw[KA_KEY_BYTES], digest[32];
    if (ka_random(raw, sizeof raw) < 0) abort();
    ka_b64_encode(key, KA_KEY_TEXT, raw, sizeof raw);
    ka_sha256(digest, raw, sizeof raw);
    ka__journal_frame_add(&k->own->pending, digest, str(id), (uint64_t)(k->own->epoch_s + ends_s));
    if (ka__journal_append(k) < 0) abort();
    ka__journal_frame_begin(&k->own->pending);
}

/* Keys end when they were said to end, across restarts; a shorter time to live holds for those that
   are there as well. */
static void test_journal_ends(void)
{
    static char keys[3][KA_KEY_TEXT];
    unsigned char bytes[1024];
    ka_journal k;
    ka_journal_report report;
    int64_t now;
    journal_remove();
    if (journal_open(&k, 100, false, &report) < 0) abort();
    journal_plant(&k, "00", -900, keys[0]);
    journal_plant(&k, "01", 50, keys[1]);
    journal_plant(&k, "02", 100, keys[2]);
    ka_journal_close(&k);
    CHECK(journal_open(&k, 100, false, &report) == KA_OK && k.keys.count == 2 &&
              journal_has(&k, 3, keys) == 6,
          "the first has ended");
    CHECK(file_get(JOURNAL, bytes, sizeof bytes) ==
              KA__FRAME_HEAD * 2 + 2 * (FRAME - KA__FRAME_HEAD),
          "and is not in the file any more");
    now = ka_now_ms();
    CHECK(key_find(&k.store, (ka_str){ keys[1], KA_KEY_TEXT }, now + 48000).p &&
              !key_find(&k.store, (ka_str){ keys[1], KA_KEY_TEXT }, now + 52000).p,
          "the second ends in 50 seconds");
    ka_journal_close(&k);
    for (int i = 0; i < 2; i++) {
        now = ka_now_ms();
        CHECK(journal_open(&k, 10, false, &report) == KA_OK && journal_has(&k, 3, keys) == 6,
              "opened with a shorter time to live");
        CHECK(!key_find(&k.store, (ka_str){ keys[2], KA_KEY_TEXT }, now + 12000).p,
              "which holds for all");
        ka_journal_close(&k);
    }
    CHECK(journal_open(&k, 0, false, &report) == KA_OK && journal_has(&k, 3, keys) == 6 &&
              !key_find(&k.store, (ka_str){ keys[2], KA_KEY_TEXT }, now + 12000).p,
          "and is in the file");
    ka_journal_close(&k);
    journal_remove();
}

/* It is written anew when more than half of it is dead, and stays locked. */
static void test_journal_rewrite(void)
{
    enum { KEYS = 40000, STEP = 200 };
    static char keys[KEYS][KA_KEY_TEXT];
    ka_journal k, other;
    ka_journal_report report;
    char id[16];
    int64_t now = ka_now_ms(), most = 0;
    int rewritten = 0, lost = 0;
    journal_remove();
    if (journal_open(&k, 1000, false, &report) < 0) abort();
    for (int i = 0; i < KEYS; i++) {
        snprintf(id, sizeof id, "%d", i);
        if (i == KEYS / 2) now += 1002000;      /* the first half ends */
        k.own->server = &no_workers;      /* so that it waits for a commit */
        if (key_issue(&k.store, str(id), now, keys[i]) != KA_EAGAIN) lost++;
        k.own->server = NULL;
        k.own->held_n = 0;
        int64_t size = k.own->file.size;
        if (i % STEP == STEP - 1 && ka__journal_commit(&k, now) != KA_OK) lost++;
        if (k.own->file.size < size) rewritten++;
        if (size > most) most = size;
    }
    CHECK(lost == 0 && rewritten == 1, "%d lost, written anew %d times", lost, rewritten);
    CHECK(k.keys.count == KEYS / 2 && size_of(&k.own->file) == k.own->file.room &&
          k.own->file.size < most, "%d keys in %d bytes", (int)k.keys.count,
          (int)k.own->file.size);
    CHECK(k.own->keys == KEYS / 2, "the file has %d keys", (int)k.own->keys);
    CHECK(journal_open(&other, 0, false, &report) == KA_EINUSE, "the new file is locked");
    ka_journal_close(&other);
    ka_journal_close(&k);
    CHECK(journal_open(&k, 0, false, &report) == KA_OK && report.cut == 0, "opened again");
    for (int i = KEYS / 2; i < KEYS; i++) {
        snprintf(id, sizeof id, "%d", i);
        if (!ka_is(key_find(&k.store, (ka_str){ keys[i], KA_KEY_TEXT }, ka_now_ms()), id)) lost++;
    }
    CHECK(lost == 0, "%d lost", lost);
    ka_journal_close(&k);
    journal_remove();
}

/* A second of the journal's ends when one of the calendar's does, or its file would be wrong by up
   to a second. To read two clocks may take any time: so two in nine may seem to be off. */
static void test_journal_seconds(void)
{
    int aligned = 0;
    for (int i = 0; i < 9; i++) {
        ka_journal k;
        ka_journal_report report;
        journal_remove();
        if (journal_open(&k, 100, false, &report) < 0) abort();
        int64_t off = (ka_wall_us() / 1000 - (ka_now_ms() - k.keys.epoch_ms)) % 1000;
        aligned += off < 50 || off > 950;
        ka_journal_close(&k);
        ka_sleep_ms(137);
    }
    CHECK(aligned >= 7, "%d of 9", aligned);
    journal_remove();
}

/* A new journal that can't be written is not one that holds no keys yet. */
static void test_journal_no_room(void)
{
#ifdef _WIN32
    skip("journal no room", "Windows has no limit for a process's files");
#else
    ka_journal k;
    ka_journal_report report;
    journal_remove();
    files_limit(4);
    int r = journal_open(&k, 0, false, &report);
    files_limit(0);
    CHECK(r == KA_ENOSPC && report.os_error == EFBIG, "%d, %d", r, report.os_error);
    CHECK(journal_open(&k, 0, false, &report) == KA_OK, "and then it can");
    ka_journal_close(&k);
    journal_remove();
#endif
}

static const subject ext_journal_topics[] = {
    { "journal", test_journal }, { "journal paths", test_journal_paths },
    { "journal odd frames", test_journal_odd_frames }, { "journal torn", test_journal_torn },
    { "journal damaged", test_journal_damaged }, { "journal kept", test_journal_kept },
    { "journal strangers", test_journal_strangers }, { "journal long end", test_journal_long_end },
    { "journal moved", test_journal_moved }, { "journal of another", test_journal_of_another },
    { "journal grows", test_journal_grows }, { "journal clock", test_journal_clock },
    { "journal ends", test_journal_ends }, { "journal rewrite", test_journal_rewrite },
    { "journal seconds", test_journal_seconds }, { "journal no room", test_journal_no_room },
};
