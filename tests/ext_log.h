/* tests/ext_log.h - ext/log.h. */

static void log_remove(void)
{
    (void)remove(LOG);
    (void)remove(LOG ".1");
    (void)remove(LOG ".new");
    folder_remove(LOG);
    folder_remove(LOG ".new");
}

static int log_open(ka_log **log, int64_t *cut)
{
    int code;
    return ka_log_open(log, LOG, "line ", cut, &code);
}

static int log_line(ka_log *log, const char *line)
{
    int code;
    if (ka_log_add(log, line, strlen(line)) < 0) return KA_ENOMEM;
    return ka_log_commit(log, &code);
}

static void test_log(void)
{
    ka_log *log, *other;
    int64_t cut;
    int code;
    log_remove();
    if (!CHECK(log_open(&log, &cut) == KA_OK && cut == 0 && file_says(LOG, ""), "a new one"))
        return;
    CHECK(log_open(&other, &cut) == KA_EINUSE && !other, "is for one");
    CHECK(ka_log_commit(log, &code) == KA_OK && file_says(LOG, ""), "nothing to commit");
    CHECK(ka_log_add(log, "line 1", 6) == 7 && ka_log_add(log, "line 2\n", 7) == 14 &&
              ka_log_add(log, NULL, 0) == 15 && file_says(LOG, ""),
          "lines wait");
    CHECK(ka_log_commit(log, &code) == KA_OK && code == 0 && file_says(LOG, "line 1\nline 2\n\n"),
          "and are written");
    ka_log_add(log, "lost", 4);
    ka_log_close(log);
    if (!CHECK(log_open(&log, &cut) == KA_OK && cut == 0 && log_line(log, "line 3") == KA_OK &&
                   file_says(LOG, "line 1\nline 2\n\nline 3\n"),
               "opened again"))
        return;
    ka_log_close(log);
    ka_log_close(NULL);
    log_remove();
}

/* It is moved away, removed or cut while it is open, or something else comes in its place. */
static void test_log_moved(void)
{
    ka_log *log;
    int64_t cut;
    log_remove();
    if (!CHECK(log_open(&log, &cut) == KA_OK && log_line(log, "line 3") == KA_OK, "a new one"))
        return;
    CHECK((rename)(LOG, LOG ".1") == 0 && log_line(log, "line 4") == KA_OK &&
              file_says(LOG, "line 4\n"),
          "moved away: a new one");
    CHECK(file_says(LOG ".1", "line 3\n") && log_line(log, "line 5") == KA_OK &&
              file_says(LOG, "line 4\nline 5\n"),
          "and on it goes there");
    CHECK(remove(LOG) == 0, "removed");
    /* Windows says no more than that access is denied. Wine opens it, with the same number. */
    if (opens(LOG, "rb")) {
        skip("a log that is removed", "Wine keeps its name until it is closed");
        ka_log_close(log);
        if (!CHECK(log_open(&log, &cut) == KA_OK, "opened again")) return;
    }
    CHECK(log_line(log, "line 6") == KA_OK && file_says(LOG, "line 6\n"), "removed: a new one");
#if !defined(_WIN32)
    write_cuts = LOG;
    CHECK(log_line(log, "line 7") == KA_OK && file_says(LOG, "line 7\n"),
          "cut at the last moment: no hole in front of it");
#endif
    CHECK(ka__file_cut(ka__file_of(&log->file), 0) == KA_OK && log_line(log, "line 7") == KA_OK &&
          file_says(LOG, "line 7\n"), "copied and cut");
    CHECK(log_line(log, "line 8") == KA_OK && ka__file_cut(ka__file_of(&log->file), 10) == KA_OK &&
          log_line(log, "line 9") == KA_OK && file_says(LOG, "line 7\nline 9\n"),
          "cut within a line");
    CHECK(ka__file_write(ka__file_of(&log->file), "other", 5, 14) == KA_OK &&
          log_line(log, "line A") == KA_ESYNTAX && file_says(LOG, "line 7\nline 9\nother"),
          "somebody else's line begun");
    CHECK(ka__file_cut(ka__file_of(&log->file), 14) == KA_OK && log_line(log, "line B") == KA_OK &&
          file_says(LOG, "line 7\nline 9\nline B\n"), "mended");
    (void)remove(LOG ".1");
    if (CHECK((rename)(LOG, LOG ".1") == 0 && ka__file_folder_make(LOG) == KA_OK,
              "a folder in its place")) {
        int r = log_line(log, "line C");
        CHECK(r == KA_EINVAL || r == KA_EPERM, "is no file: %d", r);
        folder_remove(LOG);
        CHECK(log_line(log, "line D") == KA_OK && file_says(LOG, "line D\n"), "until it has gone");
    }
    (void)remove(LOG ".1");
    CHECK((rename)(LOG, LOG ".1") == 0, "moved away");
    file_put(LOG, "foreign", 7);
    CHECK(log_line(log, "line E") == KA_ESYNTAX && file_says(LOG, "foreign"),
          "another file in its place, and not ours");
    CHECK((file_put(LOG, "line E\nlin", 10), log_line(log, "line F") == KA_OK) &&
              file_says(LOG, "line E\nline F\n"),
          "and one that is");
    ka_log_close(log);
    log_remove();
}

static void test_log_torn(void)
{
    static const char text[] = "line one\n\nline two\nline three\n";
    static const struct { const char *bytes; size_t n; const char *why; } foreign[] = {
        { "hello", 5, "a text" }, { "line 1\nhello", 12, "behind a line of ours" },
          { "line 1\nlinX", 11, "nearly" }, { "line 1\nl\0nX", 11, "nearly, but for a zero" },
          { "X", 1, "one byte" }, { "\0\0X", 3, "zeros, and a byte" },
          { "\0\0n\nhello\n", 10, "zeros, and another line" }, { "hello\n", 6, "whole lines" },
          { "hello\nline 1\n", 13, "another first line" }, { "hello\nline", 10,
          "and an unfinished one" },
        { "\nline 1\n", 8, "an empty first line" },
    };
    static const struct { const char *bytes; size_t n, end; const char *why; } torn[] = {
        { "\0\0", 2, 0, "a new file's size came before its bytes" },
        { "\0\0\0\0 1\n", 7, 7, "the first part of a first line is not there" },
        { "l\0\0\0\0\0\nline 2\nline", 18, 14, "a first commit of three lines" },
        { "line 1\nlin\0", 11, 7, "the first part of a line ends within what it begins with" },
        { "line 1\n\0\0ne", 11, 7, "the first part is not there" },
    };
    ka_log *log;
    int64_t cut;
    log_remove();
    for (size_t n = 0; n < sizeof text; n++) {
        size_t end = n;
        while (end > 0 && text[end - 1] != '\n') end--;
        file_put(LOG, text, n);
        CHECK(log_open(&log, &cut) == KA_OK && cut == (int64_t)(n - end) && file_is(LOG, text, end),
              "%d bytes: cut %d", (int)n, (int)cut);
        ka_log_close(log);
    }
    for (size_t i = 0; i < COUNT(foreign); i++) {
        file_put(LOG, foreign[i].bytes, foreign[i].n);
        unsigned mode = mode_of(LOG);
        CHECK(log_open(&log, &cut) == KA_ESYNTAX && !log && cut == 0 && mode_of(LOG) == mode &&
              file_is(LOG, foreign[i].bytes, foreign[i].n), "%s", foreign[i].why);
    }
    for (size_t i = 0; i < COUNT(torn); i++) {
        file_put(LOG, torn[i].bytes, torn[i].n);
        CHECK(log_open(&log, &cut) == KA_OK && cut == (int64_t)(torn[i].n - torn[i].end) &&
              file_is(LOG, torn[i].bytes, torn[i].end), "%s: cut %d", torn[i].why, (int)cut);
        ka_log_close(log);
    }
    log_remove();
}

/* An unfinished line of many bytes, and many zeros. */
static void test_log_torn_long(void)
{
    static char bytes[(1 << 20) + 9];
    ka_log *log;
    int64_t cut;
    log_remove();
    const size_t lengths[] = { KA__LOG_PIECE - 1,     KA__LOG_PIECE,     KA__LOG_PIECE + 1,
                               2 * KA__LOG_PIECE - 1, 2 * KA__LOG_PIECE, 1 << 20 };
    for (size_t i = 0; i < COUNT(lengths); i++)
        for (int first = 0; first < 2; first++) {
            memset(bytes, 'x', sizeof bytes);
            memcpy(bytes, "line 1\nline ", 12);
            size_t n = 7 + lengths[i];
            file_put(LOG, bytes + 7 * first, n - (size_t)(7 * first));
            CHECK(log_open(&log, &cut) == KA_OK && cut == (int64_t)lengths[i] &&
                      file_says(LOG, first ? "" : "line 1\n"),
                  "a line of %d bytes: cut %d", (int)lengths[i], (int)cut);
            ka_log_close(log);
        }
    for (size_t n = 1; n < sizeof bytes; n = n * 3 + 1) {
        memset(bytes, 0, sizeof bytes);
        memcpy(bytes, "line 1\n", 7);
        file_put(LOG, bytes, 7 + n);
        CHECK(log_open(&log, &cut) == KA_OK && cut == (int64_t)n && file_says(LOG, "line 1\n"),
              "%d zeros: cut %d", (int)n, (int)cut);
        ka_log_close(log);
    }
    log_remove();
}

/* Of a megabyte and more; and without memory, or room. */
static void test_log_limits(void)
{
    static char line[(1 << 20) + 5];
    ka_log *log;
    int64_t cut;
    int code;
    log_remove();
    memset(line, 'x', sizeof line - 1);
    CHECK(ka_log_open(&log, line + sizeof line - 4002, "", &cut, &code) == KA_EINVAL,
          "a path that is too long");
    atomic_store(&allocations_left, 0);
    CHECK(log_open(&log, &cut) == KA_ENOMEM, "no memory");
    atomic_store(&allocations_left, -1);
    CHECK(ka_log_open(&log, LOG "-nowhere/log", "", &cut, &code) == KA_ENOTFOUND && code != 0,
          "no folder");
#ifndef _WIN32
    CHECK(symlink(LOG ".1", LOG) == 0 && log_open(&log, &cut) == KA_EINVAL, "a symbolic link");
    log_remove();
#endif
    if (!CHECK(log_open(&log, &cut) == KA_OK, "opens")) return;
    CHECK(ka_log_add(log, line, PTRDIFF_MAX) == KA_ENOMEM && ka_log_add(log, "line 1", 6) == 7,
          "more than there can be");
    atomic_store(&allocations_left, 0);
    CHECK(ka_log_add(log, line, sizeof line) == KA_ENOMEM, "no memory: not added");
    atomic_store(&allocations_left, -1);
    CHECK(ka_log_commit(log, &code) == KA_OK && file_says(LOG, "line 1\n") &&
              log->pending.cap == KA__LOG_LEAST,
          "the others are");
    CHECK(ka_log_add(log, line, sizeof line) == sizeof line + 1 &&
              ka_log_commit(log, &code) == KA_OK && log->pending.cap == 0,
          "a long line, and its room is given back");
    CHECK(size_of(&log->file) == (int64_t)sizeof line + 8 &&
          ka__file_cut(ka__file_of(&log->file), 7) == KA_OK, "is written whole");
#ifndef _WIN32
    files_limit(100);
    ka_log_add(log, "line 2", 6);
    ka_log_add(log, line, 200);
    int r = ka_log_commit(log, &code), after = log_line(log, "line 3");
    files_limit(0);
    CHECK(r == KA_ENOSPC && code == EFBIG && after == KA_OK && file_says(LOG, "line 1\nline 3\n"),
          "no room for all: none; %d, %d, then %d", r, code, after);
#endif
    ka_log_close(log);
    log_remove();
}

/* Replace all it holds; it must be that then, or what it was, and nothing beside it. */
static int log_replace(ka_log *log, const char *text, const char *before)
{
    int code, r = ka_log_replace(log, text, strlen(text), &code);
    CHECK(file_says(LOG, r == KA_OK ? text : before) && code == 0, "it is what was told: %d, %d", r,
          code);
    CHECK(!opens(LOG ".new", "rb") && log->pending.n == 0,
          "nothing is beside it, and nothing waits");
    return r;
}

#if !defined(_WIN32)
/* The new file's mode, a cut in front of a line, and a file that may not grow so far. */
static void log_replace_no_room(ka_log *log)
{
    char line[200] = "";
    struct stat st;
    int code;
    CHECK(log_replace(log, "line B\n", "") == KA_OK && (stat)(LOG, &st) == 0 &&
              (st.st_mode & 0777) == 0600,
          "for nobody else");
    write_cuts = LOG;
    CHECK(log_line(log, "line C") == KA_OK && file_says(LOG, "line C\n"),
          "cut at the last moment: no hole in front of it");
    files_limit(100);
    line[199] = '\n';
    int r = ka_log_replace(log, line, 200, &code);
    files_limit(0);
    CHECK(r == KA_ENOSPC && code == EFBIG && (stat)(LOG ".new", &st) != 0 &&
              log_line(log, "line D") == KA_OK && file_says(LOG, "line C\nline D\n"),
          "no room: %d, %d", r, code);
}
#endif

static void test_log_replace(void)
{
    static char line[KA__LOG_KEPT + 1];
    ka_log *log, *other;
    int64_t cut;
    int code;
    log_remove();
    if (!CHECK(log_open(&log, &cut) == KA_OK && log_replace(log, "line 1\nline 2\n", "") == KA_OK,
               "a new one"))
        return;
    CHECK(log_line(log, "line 3") == KA_OK && file_says(LOG, "line 1\nline 2\nline 3\n"),
          "and on it goes behind that");
    CHECK(log_open(&other, &cut) == KA_EINUSE, "it's still for one");
    ka_log_add(log, "line 4", 6);
    CHECK(log_replace(log, "line 5\n", "") == KA_OK && ka_log_commit(log, &code) == KA_OK &&
              file_says(LOG, "line 5\n"),
          "a line that waits is dropped");
    ka_log_add(log, "line 6", 6);
    CHECK(ka_log_replace(log, "line", 4, &code) == KA_EINVAL &&
              ka_log_commit(log, &code) == KA_OK && file_says(LOG, "line 5\nline 6\n"),
          "no line: nothing is done");
    CHECK(ka_log_add(log, line, sizeof line / 2) > 0 &&
              ka_log_replace(log, NULL, 0, &code) == KA_OK && log->pending.cap == KA__LOG_KEPT,
          "so much room is kept");
    CHECK(ka_log_add(log, line, sizeof line) > 0 && ka_log_replace(log, NULL, 0, &code) == KA_OK &&
              log->pending.cap == 0 && file_says(LOG, ""),
          "by nothing; room is given back");
    file_put(LOG ".new", "line X\n", 7);
    CHECK(log_replace(log, "line 7\n", "") == KA_OK, "over what a crash left");
    ka_log_close(log);
    file_put(LOG ".new", "line X\n", 7);
    if (!CHECK(log_open(&log, &cut) == KA_OK && file_says(LOG, "line 7\n") &&
                   log_line(log, "line 8") == KA_OK && file_says(LOG, "line 7\nline 8\n"),
               "opened again"))
        return;
    CHECK(remove(LOG ".new") == 0 && ka__file_folder_make(LOG ".new") == KA_OK,
          "a folder is in the way");
    int r = ka_log_replace(log, "line 9\n", 7, &code);
    CHECK((r == KA_EINUSE || r == KA_EPERM) && log_line(log, "line A") == KA_OK &&
              file_says(LOG, "line 7\nline 8\nline A\n"),
          "it is as it was: %d", r);
    folder_remove(LOG ".new");
#if !defined(_WIN32)
    log_replace_no_room(log);
#endif
    CHECK((rename)(LOG, LOG ".1") == 0 && log_replace(log, "line E\n", "") == KA_OK &&
              !file_says(LOG ".1", "line E\n"),
          "moved away: a new one");
    (void)remove(LOG ".1");
    CHECK((rename)(LOG, LOG ".1") == 0, "moved away again");
    file_put(LOG, "foreign", 7);
    CHECK(log_replace(log, "line F\n", "foreign") == KA_ESYNTAX && file_says(LOG ".1", "line E\n"),
          "another file in its place, and not ours");
    (void)remove(LOG);
    CHECK(log_replace(log, "line G\n", "") == KA_OK && log_line(log, "line H") == KA_OK &&
              file_says(LOG, "line G\nline H\n"),
          "until it has gone");
    ka_log_close(log);
    log_remove();
}

/* Wait until there are news of the log that begin so. */
static bool log_tells(ka_server *s, ka_log *log, const char *what)
{
    char news[KA_TROUBLE_TEXT] = "";
    ka_event ev;
    for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until; ka_wait(s, &ev, 5))
        if (ka_log_news(news, log)) break;
    return CHECK(strncmp(news, what, strlen(what)) == 0, "news: \"%s\"", news);
}

/* More lines wait than may: those that are lost are counted. */
static void log_overflows(ka_server *s, ka_log *log)
{
    static char line[1 << 20];
    ka_event ev;
    int code;
    memset(line, 'x', sizeof line);
    memcpy(line, "line ", 5);
    int added = 0, full = 0;
    for (int i = 0; i < 12; i++) {
        ptrdiff_t r = ka_log_add(log, line, sizeof line - 1);
        added += r > 0;
        full += r == KA_ENOSPC;
    }
    CHECK(added == 5 && full == 7, "%d were added, %d were not", added, full);
    log_tells(s, log, LOG ": 7 lines are lost");
    for (int64_t until = ka_now_ms() + PATIENCE_MS; log->pending.n && ka_now_ms() < until;)
        ka_wait(s, &ev, 5);
    CHECK(ka_log_add(log, "line 6", 6) == 7 && ka_log_commit(log, &code) == KA_OK &&
              size_of(&log->file) == 7 + 5 * (int64_t)sizeof line + 7,
          "on it goes");
    atomic_store(&allocations_left, 0);
    CHECK(ka_log_add(log, line, sizeof line - 1) == KA_ENOMEM, "no memory");
    atomic_store(&allocations_left, -1);
    log_tells(s, log, LOG ": 1 lines are lost");
}

/* Lines that nobody waits for. */
static void test_log_later(void)
{
    char news[KA_TROUBLE_TEXT];
    ka_server *s;
    ka_event ev;
    ka_log *log;
    int64_t cut;
    int code;
    log_remove();
    if (!CHECK(log_open(&log, &cut) == KA_OK && ka_server_start(&s, 1) == KA_OK, "opens")) return;
    ka_log_start(log, s, LOG);
    ka_log_add(log, "line 1", 6);
    ka_log_add(log, "line 2", 6);
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         !file_says(LOG, "line 1\nline 2\n") && ka_now_ms() < until;)
        ka_wait(s, &ev, 5);
    ka_log_add(log, "line 3", 6);
    while (atomic_load(&log->writing)) ka_sleep_ms(1);
    log->source.due_ms = 0;
    atomic_store(&log->writing, 1);
    ka_wait(s, &ev, 0);
    CHECK(log->pending.n == 7 && log->source.due_ms > 0, "a thread still writes: they wait on");
    atomic_store(&log->writing, 0);
    log->source.due_ms = 0;
    atomic_store(&allocations_left, 0);
    ka_wait(s, &ev, 0);
    atomic_store(&allocations_left, -1);
    CHECK(log->pending.n == 7 && !atomic_load(&log->writing), "no thread: they wait on");
    CHECK(ka_log_commit(log, &code) == KA_OK && file_says(LOG, "line 1\nline 2\nline 3\n") &&
              !ka_log_news(news, log),
          "all are there, in order");

    (void)remove(LOG ".1");
    if (CHECK((rename)(LOG, LOG ".1") == 0 && ka__file_folder_make(LOG) == KA_OK,
              "a folder in its place")) {
        ka_log_add(log, "line 4", 6);
        log_tells(s, log, LOG ": it is ");
        folder_remove(LOG);
        CHECK(!ka_log_news(news, log), "told once: %s", news);
        ka_log_add(log, "line 5", 6);
        log_tells(s, log, LOG " is written again");
        CHECK(file_says(LOG, "line 5\n"), "and is");
    }
    log_overflows(s, log);
    ka_log_add(log, "line 7", 6);
    ka_log_close(log);
    ka_server_free(s);
    log_remove();
}

static const subject ext_log_topics[] = {
    { "log later", test_log_later },
    { "log", test_log }, { "log moved", test_log_moved },
    { "log torn", test_log_torn }, { "log torn, long", test_log_torn_long },
    { "log limits", test_log_limits },
    { "log replaced", test_log_replace },
};
