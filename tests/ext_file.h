/* tests/ext_file.h - ext/file.h. */

#define PUT ".test-put"
#define LOG ".test-log"

static void put_remove(void)
{
    (void)remove(PUT);
    (void)remove(PUT ".new");
    (void)remove(PUT "-folder/a/b");
    (void)remove(PUT "-folder/a/b.new");
    folder_remove(PUT "-folder/a");
    folder_remove(PUT "-folder");
}

#if defined(STATX_SIZE)
#include <sys/sysmacros.h>
#endif

/* Two files are one if their numbers are alike, and those of their disks. */
static void test_file_stat(void)
{
#if defined(STATX_SIZE)
    struct stat got, want;
    if (!CHECK(stat(".", &want) == 0 && ka__file_stat(AT_FDCWD, ".", 0, &got) == 0, "stat")) return;
    dev_t disk = (dev_t)major(want.st_dev) << 32 | minor(want.st_dev);
    CHECK(got.st_ino == want.st_ino && got.st_dev == disk, "%llx, not %llx",
          (unsigned long long)got.st_dev, (unsigned long long)disk);
    CHECK(got.st_mode == want.st_mode && got.st_nlink == want.st_nlink &&
          got.st_uid == want.st_uid && got.st_gid == want.st_gid, "mode, links, user and group");
#endif
}

static void test_file_put(void)
{
    static char path[4002];
    put_remove();
    CHECK(ka_file_put(PUT, "one", 3) == KA_OK && file_says(PUT, "one"), "a new file");
    CHECK(ka_file_put(PUT, "second", 6) == KA_OK && file_says(PUT, "second"),
          "in the place of an old one");
    CHECK(ka_file_put(PUT, NULL, 0) == KA_OK && file_says(PUT, ""), "an empty one");
    file_put(PUT ".new", "left behind", 11);
    CHECK(ka_file_put(PUT, "third", 5) == KA_OK && file_says(PUT, "third"),
          "over what a crash left");
    CHECK(!file_get(PUT ".new", (unsigned char *)path, 1), "nothing is beside it");
    CHECK(ka_file_put(PUT "-folder/a//b", "x", 1) == KA_OK && file_says(PUT "-folder/a/b", "x"),
          "and the folders on its way");
    CHECK(ka_file_put(PUT "-folder/a/b", "y", 1) == KA_OK && file_says(PUT "-folder/a/b", "y"),
          "which may be there");
    int r = ka_file_put(PUT "-folder/a", "x", 1);
    CHECK(r == KA_EINVAL || r == KA_EPERM, "a folder: %d", r);
    CHECK(!file_get(PUT "-folder/a.new", (unsigned char *)path, 1), "nothing is beside it");
    CHECK(ka_file_put(PUT "-folder/", "x", 1) == KA_EINVAL && ka_file_put("", "x", 1) == KA_EINVAL,
          "no name");
    CHECK(ka_file_put(PUT "/in/a/file", "x", 1) < 0 && file_says(PUT, "third"),
          "a file is no folder");
    memset(path, 'x', 4001);
    CHECK(ka_file_put(path, "x", 1) == KA_EINVAL, "a path that is too long");
#ifndef _WIN32
    struct stat s, folder;
    CHECK((stat)(PUT, &s) == 0 && (s.st_mode & 0777) == 0600 &&
              (stat)(PUT "-folder/a", &folder) == 0 && (folder.st_mode & 0777) == 0700,
          "for nobody else");
    files_limit(100);
    r = ka_file_put(PUT, path, 200);
    files_limit(0);
    CHECK(r == KA_ENOSPC && file_says(PUT, "third") && (stat)(PUT ".new", &s) != 0, "no room: %d",
          r);
    path[300] = 0;
    CHECK(ka_file_put(path, "x", 1) == KA_EINVAL, "a name that is too long");
#endif
    CHECK(ka_file_remove(PUT) == KA_OK && !opens(PUT, "rb"), "removed");
    CHECK(ka_file_remove(PUT) == KA_OK && ka_file_remove(PUT "-nowhere/x") == KA_OK,
          "it wasn't there");
    CHECK(ka_file_remove(PUT "-folder") < 0, "a folder");
    CHECK(ka_file_put(PUT, "sixth", 5) == KA_OK && ka_file_get(PUT, path, 3) == 3 &&
          memcmp(path, "six", 3) == 0 && ka_file_get(PUT, path, 100) == 5, "read");
    CHECK(ka_file_get(PUT "-nowhere", path, 3) == KA_ENOTFOUND &&
          ka_file_get("", path, 3) == KA_EINVAL, "nothing to read");
    put_remove();
}

enum { NAME_MOST = 255 };      /* bytes of a file's name, on most file systems */

/* What is said of a file with which nothing is wrong any more, or of errors alone. */
static void test_file_trouble(void)
{
    static const char named[] = "its name is empty, too long, a folder's, or leads in a circle";
    static char long_name[NAME_MOST + 2];
    memset(long_name, 'a', NAME_MOST + 1);
    static const struct { const char *path; int error, os_error; const char *says; } rows[] = {
        { "../examples/chat.c", KA_ENOSPC, 28, "the disk is full" },
        { "../examples/chat.c", KA_EPERM, 13, "this user may not write to it, or to its folder" },
        { "../examples/chat.c", KA_ESYNTAX, 0, "it holds something else" },
        { "../examples/chat.c", KA_EINUSE, 0, "another process has it" },
        { ".test-no/x", KA_ENOTFOUND, 2, "its folder is not there" },
        { "../examples/chat.c", KA_EOS, 5, "a system call failed (system error 5)" },
        { "../examples/chat.c", KA_ENOMEM, 0, "out of memory" },
        { "../examples/chat.c", KA_EINVAL, 0, "an argument is malformed, or out of its range" },
        { ".test-no/x", KA_EINVAL, 0, "an argument is malformed, or out of its range" },
        { "../examples/chat.c", KA_EOS, KA__FILE_MOUNTED, "something is mounted there; mount its folder instead" },
        { "", KA_EINVAL, 0, named },
        { "x/", KA_EINVAL, 0, named },
        { ".", KA_EINVAL, 0, "it is a folder" },
#ifndef _WIN32
        { long_name, KA_EINVAL, 0, named },
        { long_name + 4, KA_EINUSE, 0, "its name with .new behind it is too long" },
#endif
    };
    char why[KA_TROUBLE_TEXT];
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *said = ka_file_trouble(why, rows[i].path, rows[i].error, rows[i].os_error);
        CHECK(said == why && strcmp(why, rows[i].says) == 0, "\"%s\": %s", rows[i].says, why);
    }
}

/* Is the file so long, with these bytes and zeros behind them? */
static bool file_ahead(ka_file *f, const char *begins, int64_t room)
{
    static char bytes[2 * 8192];
    size_t n = strlen(begins), zeros = n;
    ptrdiff_t got = ka_file_read(f, 0, bytes, sizeof bytes);
    while (zeros < (size_t)room && bytes[zeros] == 0) zeros++;
    return got == room && f->room == room && f->size == (int64_t)n && size_of(f) == room &&
           memcmp(bytes, begins, n) == 0 && zeros == (size_t)room;
}

/* Zeros ahead: written once, gone over, cut off at the end. They are done without if there is no
   room for them. What others have made of the file's size is told, and nothing is written then. */
static void test_file_ahead(void)
{
    enum { AHEAD = 8192 };
    ka_file f;
    put_remove();
    if (ka_file_open(&f, PUT, NULL) != KA_OK) abort();
    CHECK(ka_file_append(&f, "one ", 4) == KA_OK && file_ahead(&f, "one ", 4),
          "none, if not asked");
    f.ahead = AHEAD;
#if !defined(_WIN32)
    for (int n = 3; n <= 4; n++) {      /* the file's size, the bytes; then come the zeros */
        atomic_store(&fault_seen, 0);
        atomic_store(&fault_failed, 0);
        atomic_store(&fault_from, f.appends ? n + 1 : n);
        atomic_store(&fault_most, INT_MAX);
        atomic_store(&fault_armed, true);
        int r = ka_file_append(&f, "two ", 4);
        atomic_store(&fault_armed, false);
        CHECK(r == KA_OK && atomic_load(&fault_failed) > 0 && size_of(&f) == f.size &&
              f.room == f.size, "no room for zeros: %s", ka_error_text(r));
        CHECK(ka_file_append(&f, "two ", 4) == KA_OK && size_of(&f) == f.size, "nor another try");
        ka_file_close(&f);
        file_put(PUT, "one ", 4);
        if (ka_file_open(&f, PUT, NULL) != KA_OK) abort();
        f.ahead = AHEAD;
    }
#endif
    CHECK(ka_file_append(&f, "two ", 4) == KA_OK && file_ahead(&f, "one two ", 8 + AHEAD), "ahead");
    CHECK(ka_file_append(&f, "three ", 6) == KA_OK && file_ahead(&f, "one two three ", 8 + AHEAD),
          "gone over");
    f.size = 4;
    CHECK(ka_file_mend(&f) == KA_OK && file_ahead(&f, "one ", 4), "mended");
    CHECK(ka_file_append(&f, "2 ", 2) == KA_OK && file_ahead(&f, "one 2 ", 6 + AHEAD), "anew");
    CHECK(ka__file_cut(ka__file_of(&f), 6 + AHEAD - 1) == KA_OK &&
          ka_file_append(&f, "x", 1) == KA_ENOTFOUND && f.size == 6 && size_of(&f) == 6 + AHEAD - 1,
          "another size is told");
    ka_file_close(&f);
    if (ka_file_open(&f, PUT, NULL) != KA_OK) abort();
    CHECK(f.size == 6 + AHEAD - 1, "and closed as others left it");
    f.size = 6;
    f.ahead = AHEAD;
    CHECK(ka_file_mend(&f) == KA_OK && ka_file_append(&f, "3 ", 2) == KA_OK, "once more");
    ka_file_close(&f);
    CHECK(file_says(PUT, "one 2 3 "), "closed without them");
    if (ka_file_open(&f, PUT, NULL) != KA_OK) abort();
    f.ahead = AHEAD;
    CHECK(ka_file_append(&f, "4", 1) == KA_OK && ka__file_cut(ka__file_of(&f), 0) == KA_OK,
          "emptied");
    ka_file_close(&f);
    CHECK(file_says(PUT, ""), "by others: it stays empty, and is no file of zeros");
    put_remove();
}

#ifdef _WIN32
static void test_file_strangers(void) { skip("file strangers", "Windows has other rights"); }
static void test_file_modes(void) { skip("file modes", "Windows has other rights"); }
static void test_file_torn(void) { skip("file torn", "there is no link(2)"); }
#else
static const struct { char what; int want; const char *says, *why; } file_strangers_things[] = {
    { 'd', KA_EINVAL, "it is a folder", "a folder" }, { 'l', KA_EINVAL, "it is a symbolic link",
      "a link to a file of ours" },
    { 'n', KA_EINVAL, "it is a symbolic link", "a link to nothing" },
    { 'p', KA_EINVAL, "it is no file, but a pipe, a socket or a device", "a pipe" },
    { 's', KA_EINVAL, "it is no file, but a pipe, a socket or a device", "a socket" },
    { 'h', KA_EFOREIGN, "it has 2 names (hard links)", "a file with a second name" },
    { 'u', KA_EFOREIGN, "it belongs to another user (uid 12345)", "another user's file" },
};

/* Make the thing at this path. False: this user may not make one. */
static bool file_stranger_make(char what, const char *at, const char *other)
{
    bool done = true;
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = what == 's' ? socket(AF_UNIX, SOCK_STREAM, 0) : -1;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", at);
    switch (what) {
    case 'd': done = mkdir(at, 0700) == 0; break;
    case 'l': done = symlink(other, at) == 0; break;
    case 'n': done = symlink(PUT "-nowhere", at) == 0; break;
    case 'p': done = mkfifo(at, 0644) == 0; break;
    case 's': done = bind(fd, (struct sockaddr *)&a, sizeof a) == 0; break;
    case 'h': done = link(other, at) == 0; break;
    default: file_put(at, "line 1\n", 7); done = (chown)(at, 12345, (gid_t)-1) == 0;
    }
    if (fd >= 0) close(fd);
    return done;
}

/* What isn't a file of ours alone is not opened, changed or removed by any of the functions. */
static void test_file_strangers(void)
{
    struct stat before, after;
    char why[KA_TROUBLE_TEXT], bytes[8];
    ka_journal_report report;
    ka_journal k;
    ka_log *log;
    int64_t cut;
    int code;
    for (size_t i = 0; i < COUNT(file_strangers_things); i++)
        for (int new = 0; new < 2; new++) {      /* it is at the path, or at path.new */
            const char *at = new ? PUT ".new" : PUT, *other = PUT "-other";
            put_remove();
            (void)remove(other);
            folder_remove(PUT ".new");
            file_put(other, "line 1\n", 7);
            bool done = file_stranger_make(file_strangers_things[i].what, at, other);
            if (!done || (lstat)(at, &before) != 0) {
                skip(file_strangers_things[i].why, "it can't be made here");
                (void)remove(at);
                continue;
            }
            int want = new ? KA_EINUSE : file_strangers_things[i].want;
            int put = ka_file_put(PUT, "x", 1), removed = new ? want : ka_file_remove(PUT);
            int get = (int)ka_file_get(PUT, bytes, sizeof bytes);
            CHECK(put == want && removed == want && get == (new ? KA_ENOTFOUND : want),
                  "%s: put %d, removed %d, get %d", file_strangers_things[i].why, put, removed,
                  get);
            ka_file_trouble(why, PUT, put, 0);
            CHECK(strcmp(why, new ? "a file of its name and .new is in the way; move that away" :
                  file_strangers_things[i].says) == 0, "%s: %s", file_strangers_things[i].why, why);
            int journal = ka_journal_open(&k, NULL, PUT, 0, 0, true, &report);
            ka_journal_close(&k);
            CHECK(journal == want, "%s: journal %d", file_strangers_things[i].why, journal);
            (void)(new && remove(PUT));
            int opened = ka_log_open(&log, PUT, "line ", &cut, &code);
            CHECK(opened == (new ? KA_OK : want) && (!new || ka_log_replace(log, "line 2\n", 7,
                  &code) == want), "%s: log %d", file_strangers_things[i].why, opened);
            ka_log_close(log);
            CHECK((lstat)(at, &after) == 0 && before.st_ino == after.st_ino &&
                      before.st_mode == after.st_mode && before.st_uid == after.st_uid &&
                      before.st_nlink == after.st_nlink && before.st_mtime == after.st_mtime &&
                      file_says(other, "line 1\n"),
                  "%s: it was changed", file_strangers_things[i].why);
            folder_remove(at);
            (void)remove(at);
            (void)remove(other);
        }
    put_remove();
}

/* A power cut in the middle of a rename can leave both names of the file (rename(2)). path.new is
   no stranger's name then: the file is used, and written anew in spite of it. */
static void test_file_torn(void)
{
    static char keys[2][KA_KEY_TEXT];
    struct stat s;
    ka_journal_report report;
    ka_journal k;
    ka_log *log;
    int64_t cut;
    int code;
    put_remove();
    file_put(PUT, "line 1\n", 7);
    if (link(PUT, PUT ".new") != 0) {
        skip("file torn", "it can't be made here");
        return;
    }
    CHECK(ka_log_open(&log, PUT, "line ", &cut, &code) == KA_OK && (stat)(PUT, &s) == 0 &&
          s.st_nlink == 2, "a log is opened, and left as it is");
    CHECK(ka_log_replace(log, "line 2\n", 7, &code) == KA_OK && file_says(PUT, "line 2\n") &&
          (stat)(PUT, &s) == 0 && s.st_nlink == 1, "and written anew");
    ka_log_close(log);
    CHECK(link(PUT, PUT ".new") == 0 && ka_file_put(PUT, "x", 1) == KA_OK && file_says(PUT, "x") &&
          !opens(PUT ".new", "rb"), "a file");
    CHECK(link(PUT, PUT ".new") == 0 && link(PUT, PUT "-other") == 0 &&
          ka_file_put(PUT, "y", 1) == KA_EFOREIGN && file_says(PUT ".new", "x"), "a third name");
    (void)remove(PUT "-other");
    CHECK(ka_file_remove(PUT) == KA_OK && file_says(PUT ".new", "x"), "removed");
    put_remove();
    journal_remove();
    if (journal_open(&k, 0, false, &report) < 0) abort();
    CHECK(key_issue(&k.store, str("00"), ka_now_ms(), keys[0]) == KA_OK, "a key");
    ka_journal_close(&k);
    CHECK(link(JOURNAL, JOURNAL ".new") == 0 && journal_open(&k, 0, false, &report) == KA_OK &&
          k.keys.count == 1 && key_issue(&k.store, str("01"), ka_now_ms(), keys[1]) == KA_OK,
          "a journal goes on");
    k.own->stepped = true;
    CHECK(key_issue(&k.store, str("00"), ka_now_ms(), keys[0]) == KA_OK &&
          k.rewrite_error == KA_OK && !k.own->stepped && k.mended == 0 &&
          !opens(JOURNAL ".new", "rb"), "and is written anew");
    ka_journal_close(&k);
    journal_remove();
}

/* What is made is for its owner alone, whatever the umask is; what is there keeps its mode and its
   group. */
static void test_file_modes(void)
{
    struct stat s;
    char key[KA_KEY_TEXT];
    ka_journal_report report;
    ka_journal k;
    ka_log *log;
    int64_t cut;
    int code;
    put_remove();
    static const struct {
        mode_t mode;
        bool others;
    } open_to[] = {
        { 0600, false }, { 0755, false }, { 0620, true }, { 0602, true }, { 0777, true }
    };
    CHECK(!ka_file_others_write(PUT) && !ka_file_others_write("."), "no file, and a folder");
    file_put(PUT, "x", 1);
    for (size_t i = 0; i < COUNT(open_to); i++) {
        chmod(PUT, open_to[i].mode);
        CHECK(ka_file_others_write(PUT) == open_to[i].others, "mode %o", (unsigned)open_to[i].mode);
    }
    put_remove();
    mode_t mask = umask(0777);
    int put = ka_file_put(PUT "-folder/a/b", "x", 1), opened = ka_log_open(&log, PUT, "line ", &cut,
        &code);
    ka_log_close(log);
    journal_remove();
    int journal = journal_open(&k, 0, false, &report);
    umask(mask);
    CHECK(put == KA_OK && mode_of(PUT "-folder/a/b") == 0600 && mode_of(PUT "-folder/a") == 0700,
          "umask 777: %d, %o", put, mode_of(PUT "-folder/a/b"));
    CHECK(opened == KA_OK && mode_of(PUT) == 0600 && journal == KA_OK && mode_of(JOURNAL) == 0600,
          "umask 777: %o, %o", mode_of(PUT), mode_of(JOURNAL));
    static const mode_t modes[] = { 0640, 0644, 0600, 0660 };
    for (size_t i = 0; i < COUNT(modes); i++) {
        bool grouped = (chown)(PUT, (uid_t)-1, 12345) == 0;
        (chmod)(PUT, modes[i]);
        (chmod)(JOURNAL, modes[i]);
        CHECK(ka_log_open(&log, PUT, "line ", &cut, &code) == KA_OK && mode_of(PUT) == modes[i],
              "opened: %o", mode_of(PUT));
        CHECK(ka_log_replace(log, "line 1\n", 7, &code) == KA_OK && mode_of(PUT) == modes[i],
              "written anew: %o", mode_of(PUT));
        ka_log_close(log);
        CHECK((stat)(PUT, &s) == 0 && (!grouped || s.st_gid == 12345), "its group: %d",
              (int)s.st_gid);
        CHECK(ka_file_put(PUT, "line 2\n", 7) == KA_OK && mode_of(PUT) == modes[i] &&
              (stat)(PUT, &s) == 0 && (!grouped || s.st_gid == 12345), "put: %o", mode_of(PUT));
        CHECK((truncate)(JOURNAL, 0) == 0 && key_issue(&k.store, str("me"), ka_now_ms(),
              key) == KA_OK && mode_of(JOURNAL) == modes[i], "a journal: %o", mode_of(JOURNAL));
    }
    ka_journal_close(&k);
    journal_remove();
    put_remove();
}
#endif

/* The file has its error from the new one, which could not be written. */
static void test_file_replace_fails(void)
{
    ka_file f = { .handle = 0 }, fresh;
    put_remove();
    if (!CHECK(ka_file_open(&f, PUT, NULL) == KA_OK, "opens")) return;
    CHECK(ka_file_sync(&f) == KA_OK && f.named, "synced");
    if (!CHECK(ka_file_fresh(&f, &fresh, "", 0) == KA_OK, "a new one")) return;
    fresh.os_error = 28;
    CHECK(ka_file_replace(&f, &fresh, KA_EOS) == KA_EOS && f.os_error == 28, "%d", f.os_error);
    CHECK(!opens(PUT ".new", "rb"), "and the new one is removed");
    f.torn = f.unsure = f.grown = f.tight = true;
    CHECK(ka_file_fresh(&f, &fresh, "", 0) == KA_OK && ka_file_replace(&f, &fresh, KA_OK) == KA_OK,
          "replaced");
    CHECK(!f.torn && !f.unsure && !f.grown && !f.tight, "what was wrong with the old one is over");
    ka_file_close(&f);
    put_remove();
}

static const subject ext_file_topics[] = {
    { "file stat", test_file_stat }, { "file replace fails", test_file_replace_fails },
    { "file put", test_file_put }, { "file trouble", test_file_trouble },
    { "file strangers", test_file_strangers }, { "file modes", test_file_modes },
    { "file torn", test_file_torn }, { "file ahead", test_file_ahead },
};
