/* crash/log.h - the scenarios of ext/log.h and of ka_file_put, and what their clients were told. */

enum { LOG, LOG_NEW, LOG_OLD, TEXT = 1000 };
static const char *const log_names[NAMES] = { "d/l", "d/l.new", "d/l.1" };
static const char *const put_names[NAMES] = { "d/f", "d/f.new" };

/* What the log holds: `told`, and some of the lines of `maybe`. If `instead` is not empty, it may
   stand in the place of `told`. */
typedef struct { size_t n; char p[TEXT]; } text;
static struct { text told, maybe, instead; int lines; } logged;

static void text_add(text *t, const char *p, size_t n)
{
    CHECK(t->n + n <= TEXT, "the text is too long");
    if (n) memcpy(t->p + t->n, p, n);
    t->n += n;
}

static bool text_is(const text *t, const char *p, size_t n)
{
    return t->n == n && memcmp(t->p, p, n) == 0;
}

/* The bytes of the first line, with its line feed. */
static size_t line_size(const char *p, size_t n)
{
    const char *end = n ? memchr(p, '\n', n) : NULL;
    return end ? (size_t)(end - p) + 1 : n;
}

/* Is p some of these lines, in their order? Lines with zeros may be among them: what units that
   came out of order left. */
static bool text_some(const text *t, const char *p, size_t n)
{
    size_t at = 0;
    for (size_t line, want; n > 0; p += line, n -= line) {
        line = line_size(p, n);
        if (p[line - 1] == '\n' && memchr(p, 0, line)) continue;
        for (; at < t->n; at += want) {
            want = line_size(t->p + at, t->n - at);
            if (line == want && memcmp(p, t->p + at, line) == 0) break;
        }
        if (at == t->n) return false;
        at += line;
    }
    return true;
}

/* Would a power cut leave the log as it is now? */
static bool log_durable(void)
{
    const inode *f = inode_named(LOG);
    return now_disk->folder_n == 0 && (!f || (f->units_n == 0 && f->sizes_n == 1));
}

/* All lines of the log and of its older file. What is durable, or was answered, stays. */
static void log_check(bool answered)
{
    bytes all = { NULL, 0, 0 };
    bool is = false;
    for (int name = LOG_OLD; name >= LOG; name -= LOG_OLD) {
        const inode *f = inode_named(name);
        if (f) append(&all, f->now.p, f->now.n);
    }
    for (int i = 0; i < 2 && !is; i++) {
        const text *t = i ? &logged.instead : &logged.told;
        if (i && t->n == 0) break;
        is = all.n >= t->n && (t->n == 0 || memcmp(all.p, t->p, t->n) == 0) &&
             text_some(&logged.maybe, all.p + t->n, all.n - t->n);
    }
    MUST(is, "the log holds %.*s, told was %.*s", (int)all.n, all.p, (int)logged.told.n,
         logged.told.p);
    MUST(!answered || log_durable(), "an answer, and the log is not synced");
    if (is && log_durable()) {
        memset(&logged.told, 0, sizeof(text) * 3);
        text_add(&logged.told, all.p, all.n);
    }
    release(&all);
}

static ka_log *log_open(void)
{
    ka_log *log;
    int64_t cut;
    int os_error, r = ka_log_open(&log, log_names[LOG], "line ", &cut, &os_error);
    MUST(r == KA_OK, "it can't be opened: %s", ka_error_text(r));
    if (r < 0) return NULL;
    log_check(false);
    done_op("opened", NULL, 0, 0, 0);
    return log;
}

static void log_line(text *t)
{
    char line[64];
    const int i = logged.lines++;
    int n = snprintf(line, sizeof line, "line %0*d, and its end\n", i % 3 * 9 + 1, i);
    text_add(t, line, (size_t)n);
}

/* n lines in one commit. With the answer they are there, and last. */
static void log_put(ka_log *log, int n)
{
    text asked = { 0, "" };
    int os_error;
    while (n-- > 0) {
        size_t at = asked.n;
        log_line(&asked);
        ka_log_add(log, asked.p + at, asked.n - at);
    }
    text_add(&logged.maybe, asked.p, asked.n);
    int r = ka_log_commit(log, &os_error);
    MUST(r == KA_OK, "a line is refused: %s", ka_error_text(r));
    log_check(true);
    const text *told = &logged.told;
    MUST(told->n >= asked.n && memcmp(told->p + told->n - asked.n, asked.p, asked.n) == 0,
         "told was %.*s, without %.*s", (int)told->n, told->p, (int)asked.n, asked.p);
    done_op("answer", NULL, 0, 0, 0);
}

/* After a crash: open it, add a line, and open it once more. */
static void log_recover(void)
{
    ka_log *log = log_open();
    if (!log) return;
    log_put(log, 1);
    ka_log_close(log);
    ka_log_close(log_open());
}

static void run_log(void)
{
    ka_log *log = log_open();
    if (!log) return;
    log_put(log, 1);
    log_put(log, 2);
    ka_log_close(log);
    if (!(log = log_open())) return;
    log_put(log, 1);
    ka_log_close(log);
}

/* Somebody moves the log away, as logrotate does. */
static void run_rotation(void)
{
    ka_log *log = log_open();
    if (!log) return;
    log_put(log, 1);
    rename_as(MOVE, LOG, LOG_OLD);
    log_put(log, 2);
    log_put(log, 1);
    ka_log_close(log);
}

/* All lines are replaced, as fleet does it with its state. */
static void run_replace(void)
{
    int os_error;
    ka_log *log = log_open();
    if (!log) return;
    log_put(log, 2);
    log_line(&logged.instead);
    log_line(&logged.instead);
    const text want = logged.instead;
    int r = ka_log_replace(log, want.p, want.n, &os_error);
    MUST(r == KA_OK, "the lines are refused: %s", ka_error_text(r));
    log_check(true);
    MUST(text_is(&logged.told, want.p, want.n), "the lines are not replaced");
    done_op("answer", NULL, 0, 0, 0);
    log_put(log, 1);
    ka_log_close(log);
}

/* ---- a whole file, which is not synced: nothing is promised but that it can be used again ---- */

static void put_file(const char *p)
{
    char got[TEXT];
    int r = ka_file_put(put_names[0], p, strlen(p));
    MUST(r == KA_OK, "it can't be put: %s", ka_error_text(r));
    ptrdiff_t n = ka_file_get(put_names[0], got, sizeof got);
    MUST(n == (ptrdiff_t)strlen(p) && memcmp(got, p, (size_t)n) == 0, "%d bytes are read", (int)n);
}

static void put_recover(void) { put_file("the file after a crash"); }

static void run_put(void)
{
    put_file("the first file");
    put_file("another file, which is longer");
}
