/* ext/log.h - a file of lines that only grows. A line is on disk before anybody is told so.

   HOW TO INCLUDE: after keyauth.h and ext/file.h. The code comes where KEYAUTH_IMPLEMENTATION is
   defined.

   USE
       ka_log *log;
       int64_t cut;
       int os_error, r = ka_log_open(&log, "messages.log", "{\"time\": ", &cut, &os_error);
       if (r < 0) puts(ka_file_trouble(why, "messages.log", r, os_error));
       ka_log_add(log, line, n);                 // as often as you like
       r = ka_log_commit(log, &os_error);        // one write and one sync for all of them
       ka_log_close(log);

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

/* Open a log for appending, or make it. No other process can open it by this function meanwhile.
   Its first line must begin as told. An unfinished last line, of a write that was cut short, is cut
   off if it begins as told, or with zeros.
     *log       yours, until ka_log_close; NULL on failure
     begins     what each line begins with; borrowed until ka_log_close. Its first 256 bytes are
                looked at
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
                log is as it was; but if no more than its folder could not be synced, they are
                there, and a crash may bring back what was */
KADEF int ka_log_replace(ka_log *log, const void *p, size_t n, int *os_error);

/* Close it; lines that wait are dropped. NULL is fine. */
KADEF void ka_log_close(ka_log *log);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_LOG_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_LOG_IMPLEMENTED)
#define KEYAUTH_LOG_IMPLEMENTED

#include <string.h>

/* A commit is one write at the file's end and one sync. If a commit fails, what it wrote is cut off
   again, and nothing is written until that is done: the file never has a line of which the opposite
   was told. Only a crash can leave part of a commit, and the next ka_log_open cuts off what is no
   whole line. */

enum {
    KA__LOG_PIECE = 4096,              /* bytes read at a time in search of the last line */
    KA__LOG_LEAST = 4096,              /* bytes of room for lines, at first */
    KA__LOG_KEPT = 1 << 20             /* more room than this is freed after each commit */
};

struct ka_log {
    ka_file     file;
    const char *begins;
    char       *pending;
    size_t      n, cap;
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

/* Of a file of that size, cut off an unfinished line. It must begin as told, or with zeros, and so
   must the file. */
static int ka__log_mend(ka_log *log, int64_t size, int64_t *cut)
{
    static const char zeros[KA_FILE_HEAD];
    size_t n = strlen(log->begins);
    int64_t end = ka__log_unfinished(log, size);
    if (end < 0) return (int)end;
    int r = ka_file_holds(&log->file, 0, log->begins, n);
    if (r == KA_OK && end > 0) {
        r = ka_file_holds(&log->file, end, log->begins, n);
        if (r == KA_ESYNTAX) r = ka_file_holds(&log->file, end, zeros, n);
    }
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

ptrdiff_t ka_log_add(ka_log *log, const void *line, size_t n)
{
    if (n >= PTRDIFF_MAX - log->n) return KA_ENOMEM;
    bool ended = n > 0 && ((const char *)line)[n - 1] == '\n';
    size_t need = log->n + n + !ended;
    if (need > log->cap) {
        size_t cap = log->cap ? 2 * log->cap : KA__LOG_LEAST;
        if (cap < need) cap = need;
        char *p = log->pending ? KA_REALLOC(log->pending, cap) : KA_MALLOC(cap);
        if (!p) return KA_ENOMEM;
        log->pending = p;
        log->cap = cap;
    }
    if (n) memcpy(log->pending + log->n, line, n);
    if (!ended) log->pending[need - 1] = '\n';
    log->n = need;
    return (ptrdiff_t)need;
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

static void ka__log_drop(ka_log *log)
{
    log->n = 0;
    if (log->cap <= KA__LOG_KEPT) return;
    KA_FREE(log->pending);
    log->pending = NULL;
    log->cap = 0;
}

int ka_log_commit(ka_log *log, int *os_error)
{
    *os_error = 0;
    if (log->n == 0) return KA_OK;
    int r = ka__log_ready(log);
    if (r == KA_OK) r = ka_file_append(&log->file, log->pending, log->n);
    if (r < 0) *os_error = log->file.os_error;
    ka__log_drop(log);
    return r;
}

int ka_log_replace(ka_log *log, const void *p, size_t n, int *os_error)
{
    ka_file fresh;
    *os_error = 0;
    if (n > 0 && ((const char *)p)[n - 1] != '\n') return KA_EINVAL;
    int r = ka__log_ready(log);      /* what the path leads to now is ours, or becomes so */
    if (r == KA_OK) r = ka_file_fresh(&log->file, &fresh, log->begins, strlen(log->begins));
    if (r == KA_OK) r = ka_file_replace(&log->file, &fresh, ka_file_write(&fresh, p, n));
    if (r < 0) *os_error = log->file.os_error;
    ka__log_drop(log);
    return r;
}

void ka_log_close(ka_log *log)
{
    if (!log) return;
    ka_file_close(&log->file);
    if (log->pending) KA_FREE(log->pending);
    KA_FREE(log);
}

/* Public domain or MIT: see the end of keyauth.h. */
#endif /* KEYAUTH_LOG_IMPLEMENTED */
