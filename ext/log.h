/* ext/log.h - a file of lines that only grows. A line is on disk before anybody is told so.

   HOW TO INCLUDE: after keyauth.h and ext/file.h. The code comes where KEYAUTH_IMPLEMENTATION is
   defined.

   USE
       ka_log *log;
       int64_t cut;
       char why[KA_TROUBLE_TEXT];
       int os_error, r = ka_log_open(&log, "messages.log", "{\"time\": ", &cut, &os_error);
       if (r < 0) return puts(ka_file_trouble(why, "messages.log", r, os_error));
       ka_log_add(log, "{\"time\": 0}", 11);     // as often as you like
       r = ka_log_commit(log, &os_error);        // one write and one sync for all of them
       ka_log_close(log);

   CONTENTS
     ka_log_open, add, commit, close   lines that are on disk
     ka_log_start                      lines that nobody waits for
     ka_log_replace, news              a new file; what went wrong, in words

   Others may rotate the file: move it away, remove it, or copy and cut it. So before each commit it
   is looked where the path leads, and where the file ends. */

#ifndef KEYAUTH_H
#  error "ext/log.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_FILE_H
#  error "ext/log.h: include ext/file.h first"
#endif

#ifndef KEYAUTH_LOG_H
#define KEYAUTH_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

/* One thread at a time for each ka_log. */
typedef struct ka_log ka_log;

enum {
    KA_LOG_WAITING = 1 << 22,     /* ka_log_start: bytes that wait for the disk, at most */
    KA_LOG_MS = 250               /* and how long a line waits for others */
};

/* Open a log for appending, or make it. No other process can open it by this function meanwhile.
   Its first line must begin with `begins`. A crash may have cut a commit short. Then the unfinished
   last line is cut off, if it begins so, but for zeros where a part was not written. The first line
   of a new file may have such zeros, too. If a disk writes the parts of a commit out of order, a
   line that has its line feed may keep zeros. Nobody was told of that line.
     *log       yours, until ka_log_close; NULL on failure
     begins     what each line begins with, no zero byte; borrowed until ka_log_close. Its first 256
                bytes are looked at
     *cut       the bytes that were cut off
     *os_error  the system's code behind an error
     returns    KA_OK, or KA_EINUSE (another process has it), KA_ESYNTAX (it holds something else:
                its first line, or an unfinished last one), KA_EINVAL and KA_EFOREIGN as
                ka_file_put, KA_ENOTFOUND, KA_ENOSPC, KA_EPERM, KA_ELIMIT, KA_EOS, KA_ENOMEM */
KADEF int ka_log_open(ka_log **log, const char *path, const char *begins, int64_t *cut,
                      int *os_error);

/* Add a line to the next commit; copied. A line feed is added, unless it ends with one.
     returns    the bytes that wait for it now, or KA_ENOMEM: it was not added */
KADEF ptrdiff_t ka_log_add(ka_log *log, const void *line, size_t n);

/* Append the lines that wait, all or none, and sync them: group commit. If the file was moved away
   or removed, a new one is made. If it was cut, the lines go to its new end, and an unfinished line
   there is dealt with as by ka_log_open. After an error the lines that wait are dropped.
     returns    KA_OK: they are on disk; or KA_ENOSPC, KA_EOS and others of ka_log_open, with
                *os_error */
KADEF int ka_log_commit(ka_log *log, int *os_error);

/* Put these lines in the place of all that the log holds, at once for whoever reads it, and synced.
   Lines that wait are dropped. Beside the log, path.new is written. This is for a log that is a
   state, when most of it is history.
     p, n       whole lines, each with its line feed; may be none
     returns    as ka_log_commit, and KA_EINVAL: the last line has no line feed. After an error the
                log is as it was. One error is different: if only the folder could not be synced,
                the log has the new lines, and a crash may bring back the old ones */
KADEF int ka_log_replace(ka_log *log, const void *p, size_t n, int *os_error);

/* For lines that nobody waits for: from now on a thread commits them, KA_LOG_MS milliseconds after
   the first one. ka_log_commit still waits for the disk: call it before ka_log_close. If
   KA_LOG_WAITING bytes wait, ka_log_add returns KA_ENOSPC.
     s          its ka_wait starts the thread's commits; before its ka_server_free ends, close the
                log: from a source's `freed`, for one
     path       the log's, for ka_log_news; borrowed */
KADEF void ka_log_start(ka_log *log, ka_server *s, const char *path);

/* What is new of a log after ka_log_start, in English: that it can't be written, that it is written
   again, or how many lines were lost. False: nothing is. The parent calls this. */
KADEF bool ka_log_news(char out[KA_TROUBLE_TEXT], ka_log *log);

/* Close it; lines that wait are dropped. NULL is fine. */
KADEF void ka_log_close(ka_log *log);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_LOG_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_LOG_IMPLEMENTED)
#define KEYAUTH_LOG_IMPLEMENTED

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* A commit is one write at the file's end and one sync. If a commit fails, what it wrote is cut off
   again, and nothing is written until that is done: the file never has a line of which the opposite
   was told. Only a crash can leave part of a commit, and the next ka_log_open cuts off its end. */

enum {
    KA__LOG_PIECE = 4096,              /* bytes read at a time in search of the last line */
    KA__LOG_LEAST = 4096,              /* bytes of room for lines, at first */
    KA__LOG_KEPT = 1 << 20             /* more room than this is freed after each commit */
};

typedef struct { char *p; size_t n, cap; } ka__log_lines;

struct ka_log {
    ka_source     source;         /* ka_log_start's, due when lines have waited long enough */
    ka_server    *server;         /* NULL: there is none */
    const char   *path;
    _Atomic(int)  writing;        /* a thread commits `written`; the next four are the thread's */
    ka_file       file;
    const char   *begins;
    ka__log_lines written;
    int           error;          /* of the last commit */
    ka__log_lines pending;        /* the lines that wait */
    size_t        lost;           /* lines that were not added */
    int           told;           /* the error that ka_log_news has told of last */
};

/* Where the unfinished line at the end begins, looked for backwards; size: there is none. */
static int64_t ka__log_unfinished(ka_log *log, int64_t size)
{
    char piece[KA__LOG_PIECE];
    for (int64_t at = size; at > 0; ) {
        ptrdiff_t n = at < KA__LOG_PIECE ? (ptrdiff_t)at : KA__LOG_PIECE;
        ptrdiff_t got = ka_file_read(&log->file, at - n, piece, (size_t)n);
        if (got < 0) return got;
        if (got < n) return KA_EINUSE;      /* somebody cuts it at this moment */
        at -= n;
        while (n > 0 && piece[n - 1] != '\n') n--;
        if (n > 0) return at + n;
    }
    return 0;
}

/* Could a commit that was cut short have left what is from there on? Each line must begin with
   `begins`, but for zeros where a part of it was not written. */
static int ka__log_torn(ka_log *log, int64_t at, int64_t size)
{
    char piece[KA__LOG_PIECE];
    size_t n = strlen(log->begins), in_line = 0;
    if (n > KA_FILE_HEAD) n = KA_FILE_HEAD;
    for (ptrdiff_t got; at < size; at += got) {
        got = ka_file_read(&log->file, at, piece, sizeof piece);
        if (got < 0) return (int)got;
        if (got == 0) return KA_EINUSE;      /* somebody cuts it at this moment */
        for (ptrdiff_t i = 0; i < got; i++) {
            if (in_line < n && piece[i] && piece[i] != log->begins[in_line]) return KA_ESYNTAX;
            in_line = piece[i] == '\n' ? 0 : in_line + 1;
        }
    }
    return KA_OK;
}

/* Of a file of that size, cut off an unfinished line. If the first line does not begin with
   `begins`, the first commit was cut short, or it is no log: then each line is looked at. */
static int ka__log_mend(ka_log *log, int64_t size, int64_t *cut)
{
    int64_t end = ka__log_unfinished(log, size);
    if (end < 0) return (int)end;
    int r = ka_file_holds(&log->file, 0, log->begins, strlen(log->begins));
    if (r == KA_OK || r == KA_ESYNTAX) r = ka__log_torn(log, r == KA_OK ? end : 0, size);
    if (r < 0) return r;
    log->file.size = end;
    *cut = size - end;
    return *cut ? ka_file_mend(&log->file) : KA_OK;
}

/* Open the path; NULL: what the log's path leads to now. */
static int ka__log_reopen(ka_log *log, const char *path, int64_t *cut)
{
    int r = ka_file_open(&log->file, path, NULL);
    if (r == KA_OK) r = ka__log_mend(log, log->file.size, cut);
    if (r < 0) ka_file_close(&log->file);
    return r;
}

int ka_log_open(ka_log **log, const char *path, const char *begins, int64_t *cut, int *os_error)
{
    *log = NULL;
    *cut = 0;
    *os_error = 0;
    ka_log *l = KA_MALLOC(sizeof *l);
    if (!l) return KA_ENOMEM;
    memset(l, 0, sizeof *l);
    l->begins = begins;
    int r = ka__log_reopen(l, path, cut);
    if (r < 0) {
        *os_error = l->file.os_error;
        KA_FREE(l);
        return r;
    }
    *log = l;
    return KA_OK;
}

/* Have room for n bytes more. False: there is none. */
static bool ka__log_room(ka__log_lines *lines, size_t n)
{
    size_t cap = lines->cap ? lines->cap : KA__LOG_LEAST;
    if (n > PTRDIFF_MAX / 2 - lines->n) return false;
    while (cap < lines->n + n) cap *= 2;
    if (cap == lines->cap) return true;
    char *p = lines->p ? KA_REALLOC(lines->p, cap) : KA_MALLOC(cap);
    if (!p) return false;
    lines->p = p;
    lines->cap = cap;
    return true;
}

ptrdiff_t ka_log_add(ka_log *log, const void *line, size_t n)
{
    ka__log_lines *lines = &log->pending;
    bool full = log->server && lines->n > KA_LOG_WAITING;
    if (full || n == SIZE_MAX || !ka__log_room(lines, n + 1)) {
        log->lost++;
        return full ? KA_ENOSPC : KA_ENOMEM;
    }
    if (n) memcpy(lines->p + lines->n, line, n);
    lines->n += n;
    if (n == 0 || lines->p[lines->n - 1] != '\n') lines->p[lines->n++] = '\n';
    if (lines->n > KA_LOG_WAITING / 2) log->source.due_ms = 0;
    else if (log->source.due_ms == INT64_MAX) log->source.due_ms = ka_now_ms() + KA_LOG_MS;
    return (ptrdiff_t)lines->n;
}

/* Before a commit: have the file to which the path leads now, know its end, and have its name on
   disk. Who owns the file now, and what other names it has, is not for a log to judge. */
static int ka__log_ready(ka_log *log)
{
    int64_t size = 0, cut;
    int r = log->file.torn ? ka_file_mend(&log->file) : KA_OK;
    if (r < 0) return r;
    r = ka_file_look(&log->file, &size);
    if (r == KA_EFOREIGN) r = KA_OK;
    if (r == KA_ENOTFOUND) r = ka__log_reopen(log, NULL, &cut);
    else if (r == KA_OK && size != log->file.size) r = ka__log_mend(log, size, &cut);
    return r == KA_OK && !log->file.named ? ka_file_sync(&log->file) : r;
}

static void ka__log_drop(ka__log_lines *lines)
{
    lines->n = 0;
    if (lines->cap <= KA__LOG_KEPT) return;
    KA_FREE(lines->p);
    *lines = (ka__log_lines){ NULL, 0, 0 };
}

/* Append these lines, sync and drop them. */
static int ka__log_write(ka_log *log, ka__log_lines *lines)
{
    if (lines->n == 0) return KA_OK;
    int r = ka__log_ready(log);
    if (r == KA_OK) r = ka_file_append(&log->file, lines->p, lines->n);
    ka__log_drop(lines);
    log->error = r;
    return r;
}

static void ka__log_run(void *arg)
{
    ka_log *log = arg;
    ka__log_write(log, &log->written);
    atomic_store(&log->writing, 0);
}

static void ka__log_await(ka_log *log)
{
    while (atomic_load(&log->writing)) ka_sleep_ms(1);
}

int ka_log_commit(ka_log *log, int *os_error)
{
    ka__log_await(log);
    int r = ka__log_write(log, &log->pending);
    *os_error = r < 0 ? log->file.os_error : 0;
    return r;
}

static void ka__log_swap(ka_log *log)
{
    const ka__log_lines lines = log->pending;
    log->pending = log->written;
    log->written = lines;
}

static bool ka__log_next(ka_source *source, ka_event *ev)
{
    ka_log *log = (ka_log *)source;
    source->due_ms = ev->now_ms + KA_LOG_MS;
    if (atomic_load(&log->writing)) return false;
    ka__log_swap(log);
    atomic_store(&log->writing, 1);
    if (ka_thread(ka__log_run, log) == KA_OK) {
        source->due_ms = INT64_MAX;
        return false;
    }
    ka__log_swap(log);      /* no thread can be had now */
    atomic_store(&log->writing, 0);
    return false;
}

void ka_log_start(ka_log *log, ka_server *s, const char *path)
{
    log->source = (ka_source){ .next = ka__log_next, .due_ms = INT64_MAX };
    log->server = s;
    log->path = path;
    ka_source_add(s, &log->source);
}

bool ka_log_news(char out[KA_TROUBLE_TEXT], ka_log *log)
{
    const bool changed = !atomic_load(&log->writing) && log->error != log->told;
    const size_t lost = log->lost;
    if (changed && log->error) {
        char why[KA_TROUBLE_TEXT];
        ka_file_trouble(why, log->path, log->error, log->file.os_error);
        snprintf(out, KA_TROUBLE_TEXT, "%.60s: %.80s; its lines are lost until it is written again",
                 log->path, why);
    } else if (changed) {
        snprintf(out, KA_TROUBLE_TEXT, "%.100s is written again", log->path);
    } else if (lost) {
        snprintf(out, KA_TROUBLE_TEXT, "%.60s: %zu lines are lost: the disk is too slow, or memory "
                 "is out", log->path, lost);
    }
    if (changed) log->told = log->error;
    else log->lost = 0;
    return changed || lost > 0;
}

int ka_log_replace(ka_log *log, const void *p, size_t n, int *os_error)
{
    ka_file fresh;
    *os_error = 0;
    if (n > 0 && ((const char *)p)[n - 1] != '\n') return KA_EINVAL;
    ka__log_await(log);
    int r = ka__log_ready(log);      /* what the path leads to now is ours, or becomes so */
    if (r == KA_OK) r = ka_file_fresh(&log->file, &fresh, log->begins, strlen(log->begins));
    if (r == KA_OK) r = ka_file_replace(&log->file, &fresh, ka_file_write(&fresh, p, n));
    if (r < 0) *os_error = log->file.os_error;
    ka__log_drop(&log->pending);
    return r;
}

void ka_log_close(ka_log *log)
{
    if (!log) return;
    ka__log_await(log);
    if (log->server) ka_source_remove(log->server, &log->source);
    ka_file_close(&log->file);
    if (log->pending.p) KA_FREE(log->pending.p);
    if (log->written.p) KA_FREE(log->written.p);
    KA_FREE(log);
}

/* Public domain or MIT: see the end of keyauth.h. */
#endif /* KEYAUTH_LOG_IMPLEMENTED */
