/* ext/journal.h - the store of keyauth.h on disk: a keyring in memory, and a file from which it is
   read again.

   HOW TO INCLUDE: after keyauth.h and ext/file.h. The code comes where KEYAUTH_IMPLEMENTATION is
   defined.

   USE
       ka_journal j;
       ka_journal_report found;
       int r = ka_journal_open(&j, s, "keys.journal", 0, 0, false, &found);
       if (r < 0) puts(ka_error_text(r));
       for (ka_event ev; r == KA_OK && ka_wait(s, &ev, -1) == KA_OK; )
           if (ev.kind == KA_REQUEST) ka_auth(s, &j.store, &ev);
       ka_journal_close(&j);                           // before ka_server_free

   CONTENTS
     ka_journal_open, close            the store
     ka_journal_found, news            in words: what was in the file, and what has become of it

   PROMISES
     On disk before it is true: a key is sent only after its digest, its ID and its end are synced.
     All keys of a batch share one sync (group commit).
     No other process can open the file meanwhile.
     The file is written anew without the expired keys when it is opened, and whenever more than
     half of it is dead. That takes some three seconds for a million keys.
     After each sync it is looked whether the path still leads to the file, and whether the file has
     the size that it should have. If it was moved, removed, replaced, cut or added to, all keys are
     written anew under its name before a key is sent. If that fails, keys are refused. If another
     journal has that name by then, its keys are kept, too. */

#ifndef KEYAUTH_H
#  error "ext/journal.h: include keyauth.h first"
#endif

#ifndef KEYAUTH_FILE_H
#  error "ext/journal.h: include ext/file.h first"
#endif

#ifndef KEYAUTH_JOURNAL_H
#define KEYAUTH_JOURNAL_H

#ifndef KA_JOURNAL_AHEAD
#  define KA_JOURNAL_AHEAD (1 << 20)      /* bytes: zeros ahead in an open file */
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    ka_store   store;                /* for ka_auth: &j.store */
    ka_keyring keys;                 /* yours to read: the keys that are on disk */
    int        error, os_error;      /* of the last commit: KA_OK or KA_E..., the system's code */
    size_t     commits;              /* that have succeeded */
    int64_t    commit_us;            /* microseconds that all commits took */
    int        rewrite_error, rewrite_os_error;      /* of the last time it was written anew */
    size_t     mended;               /* times that others had moved or changed the file, and it was
                                        written anew for that */
    /* the journal's own */
    int        told_error, told_rewrite;             /* what ka_journal_news has told */
    size_t     told_mended;
    struct ka__journal *own;
} ka_journal;

typedef struct {
    int64_t cut_at, cut;             /* bytes cut off the end, and from where: a commit that was not
                                        written to its end */
    int64_t damaged_at, damaged;     /* bytes that can't be read, and where they begin */
    int     os_error;                /* the system's code behind the error, or 0 */
} ka_journal_report;

/* Read the keys that the file has, and append to it from now on. The parent only.
     s          ka_wait of this server commits. NULL: put commits at once, and never says KA_EAGAIN
     path       the file is made if it isn't there. Beside it, path.new is written, and path.damaged
                when salvaging
     max_keys, ttl_s   as ka_keyring_init's. A shorter ttl_s also applies to the keys in the file
     salvage    leave out what is damaged, and keep the file as it was as path.damaged
     report     what was found; never NULL
     returns    KA_OK, or KA_EINUSE (another process has it, or path.damaged or path.new is in the
                way), KA_EDAMAGED (nothing was changed), KA_ESYNTAX (it holds something else),
                KA_EINVAL (also ttl_s) and KA_EFOREIGN as ka_file_put, KA_ENOTFOUND (no such
                folder), KA_ENOSPC, KA_EPERM, KA_ELIMIT, KA_EOS, KA_ENOMEM. On POSIX SIGXFSZ is
                ignored from then on */
KADEF int ka_journal_open(ka_journal *j, ka_server *s, const char *path, size_t max_keys,
                          int64_t ttl_s, bool salvage, ka_journal_report *report);

enum { KA_JOURNAL_TEXT = 1024 };     /* bytes of the texts below, with a NUL. Long paths are cut */

/* What ka_journal_open found, in English, and what to do.
     error, report   what it returned and reported
     option     what the path was chosen by: "--journal". To salvage is "--journal-salvage" then
     returns    out; or NULL, when there is nothing to tell */
KADEF const char *ka_journal_found(char out[KA_JOURNAL_TEXT], const char *path, int error,
                                   const ka_journal_report *report, const char *option);

/* What has become of the file, in English: "it can't be written", "it is written again"... Call it
   now and then, until it returns NULL: there are no more news.
     path       as ka_journal_open's
     returns    out, or NULL */
KADEF const char *ka_journal_news(char out[KA_JOURNAL_TEXT], ka_journal *j, const char *path);

/* Close the file and free what *j holds. Questions that wait for a commit are not answered any
   more: call this after the last ka_wait, and before ka_server_free. Harmless after a failed
   ka_journal_open, or twice. */
KADEF void ka_journal_close(ka_journal *j);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_JOURNAL_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_JOURNAL_IMPLEMENTED)
#define KEYAUTH_JOURNAL_IMPLEMENTED

#include <stdio.h>
#include <string.h>

/* A file of frames, each with the keys of a commit, in the order of their making.

       frame  { mark: 4 bytes | CRC-32C of what follows: u32 | bytes of the keys: u32 | keys }
       key    { bytes of the ID: u16 | end: u64 | digest: 32 bytes | ID }

   Numbers are little-endian. An end is in seconds since 1970; 0 is never. The first frame is empty
   and tells that this is a journal. A frame is begun when the one before it has been synced. So
   what follows the last good frame is one of these:

       other bytes, no more than a frame has    cut off: the torn end of a commit that nobody was
                                                told of
       more bytes than a frame can have         damage: no commit is that long, so one that was
                                                told of was there
       zeros, any number of them, at the end    room for the next frames, which begin with none

   Bad bytes with a good frame behind them are damage. The mark can't be part of an ID that came by
   ka_auth, so no ID can pass for a frame where a damaged file is searched for the next one. */

enum {
    KA__FRAME_HEAD = 12,
    KA__ENTRY_HEAD = 42,
    KA__FRAME_BYTES = KA__FRAME_HEAD + KA_BATCH * (KA__ENTRY_HEAD + KA_MAX_ID),
    KA__REWRITE_FRAME = 4096,          /* bytes of a frame of a file that is written anew: what one
                                          damaged byte may cost */
    KA__REWRITE_LEAST = 1 << 20,       /* a smaller file may be as dead as it likes */
    KA__AHEAD_LEAST = KA_JOURNAL_AHEAD / 16,      /* a smaller file has no zeros ahead */
    KA__REWRITE_AGAIN_MS = 1000        /* after one that failed */
};
static const char ka__journal_mark[4] = { '\xf5', 'k', 'a', 1 };

struct ka__journal_frame { size_t n, keys; unsigned char bytes[KA__FRAME_BYTES]; };

struct ka__journal {
    ka_source  source;
    ka_journal *of;
    ka_file    file;
    int64_t    last;                 /* where the last frame begins, when the file was opened */
    size_t     keys;                 /* in the file */
    int64_t    epoch_s;              /* the keyring's epoch, in seconds since 1970 */
    int64_t    retry_ms;
    bool       outlived;             /* the file has keys that end later than ttl_s permits now */
    bool       stepped;              /* the wall clock was set: the ends in the file are wrong */
    bool       broken;               /* a sync failed, or others changed the file: nothing is
                                        appended until all is written anew */
    bool       strayed;              /* others moved or changed the file since the last rewrite */
    int        read_error;
    ka_server *server;
    int        held_n;
    ka_ticket  held[KA_BATCH];       /* questions whose keys are in the next commit */
    struct ka__journal_frame pending;        /* the next commit */
    struct ka__journal_frame scratch;        /* what is read, from scratch_at on, or written anew */
    int64_t    scratch_at;
    char       path_damaged[KA_FILE_PATH + sizeof ".damaged"];
};

typedef struct { const unsigned char *digest; uint64_t end_s; ka_str id; } ka__journal_entry;

/* A number of n bytes, little-endian. */
static void ka__journal_put(unsigned char *p, int n, uint64_t v)
{
    for (int i = 0; i < n; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static uint64_t ka__journal_read(const unsigned char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* CRC-32C (Castagnoli; RFC 3720 s.12.1), four bits at a time. */
static uint32_t ka__journal_crc(const unsigned char *p, size_t n)
{
    static const uint32_t step[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362,
        0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab,
        0xe330a81a, 0xf36e6f75
    };
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = step[crc & 15] ^ crc >> 4;
        crc = step[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

/* Take the next key off a frame; false at its end, or if it is malformed. */
static bool ka__journal_entry_next(const unsigned char **p, const unsigned char *end,
                                   ka__journal_entry *e)
{
    if (end - *p < KA__ENTRY_HEAD) return false;
    e->id.n = (size_t)ka__journal_read(*p, 2);
    e->end_s = ka__journal_read(*p + 2, 8);
    e->digest = *p + 10;
    e->id.p = (const char *)*p + KA__ENTRY_HEAD;
    size_t n = KA__ENTRY_HEAD + e->id.n;
    if (e->id.n == 0 || e->id.n > KA_MAX_ID || (size_t)(end - *p) < n) return false;
    *p += n;
    return true;
}

static void ka__journal_frame_begin(struct ka__journal_frame *f)
{
    f->n = KA__FRAME_HEAD;
    f->keys = 0;
}

/* end_s: in seconds since 1970; 0 is never. */
static void ka__journal_frame_add(struct ka__journal_frame *f, const unsigned char digest[32],
                                  ka_str id, uint64_t end_s)
{
    unsigned char *p = f->bytes + f->n;
    ka__journal_put(p, 2, id.n);
    ka__journal_put(p + 2, 8, end_s);
    memcpy(p + 10, digest, 32);
    memcpy(p + KA__ENTRY_HEAD, id.p, id.n);
    f->n += KA__ENTRY_HEAD + id.n;
    f->keys++;
}

/* An end of the keyring's in seconds since 1970; 0 is never. */
static uint64_t ka__journal_end(const ka_journal *j, int64_t end_ms)
{
    if (end_ms == INT64_MAX) return 0;
    return (uint64_t)(j->own->epoch_s + (end_ms - j->keys.epoch_ms) / 1000);
}

/* Write the frame's head. */
static void ka__journal_frame_end(struct ka__journal_frame *f)
{
    memcpy(f->bytes, ka__journal_mark, 4);
    ka__journal_put(f->bytes + 8, 4, f->n - KA__FRAME_HEAD);
    ka__journal_put(f->bytes + 4, 4, ka__journal_crc(f->bytes + 8, f->n - 8));
}

static int ka__journal_frame_write(struct ka__journal_frame *f, ka_file *fresh)
{
    ka__journal_frame_end(f);
    return ka_file_write(fresh, f->bytes, f->n);
}

/* n bytes of the file at an offset; NULL behind its end, or after an error, which is kept. */
static const unsigned char *ka__journal_view(struct ka__journal *j, int64_t at, size_t n)
{
    struct ka__journal_frame *s = &j->scratch;
    if (j->read_error) return NULL;      /* another read would lose the system's code */
    if (at < j->scratch_at || at + (int64_t)n > j->scratch_at + (int64_t)s->n) {
        ptrdiff_t got = ka_file_read(&j->file, at, s->bytes, KA__FRAME_BYTES);
        if (got < 0) j->read_error = (int)got;
        j->scratch_at = at;
        s->n = got > 0 ? (size_t)got : 0;
    }
    return n <= s->n - (size_t)(at - j->scratch_at) ? s->bytes + (at - j->scratch_at) : NULL;
}

/* The bytes of a good frame at an offset, *n of them; NULL: there is none. */
static const unsigned char *ka__journal_frame_at(struct ka__journal *j, int64_t at, size_t *n)
{
    const unsigned char *f = ka__journal_view(j, at, KA__FRAME_HEAD), *p;
    ka__journal_entry e;
    if (!f || memcmp(f, ka__journal_mark, 4) != 0) return NULL;
    if (ka__journal_read(f + 8, 4) > KA__FRAME_BYTES - KA__FRAME_HEAD) return NULL;
    *n = KA__FRAME_HEAD + (size_t)ka__journal_read(f + 8, 4);
    f = ka__journal_view(j, at, *n);
    if (!f || ka__journal_read(f + 4, 4) != ka__journal_crc(f + 8, *n - 8)) return NULL;
    for (p = f + KA__FRAME_HEAD; ka__journal_entry_next(&p, f + *n, &e); ) {}
    return p == f + *n ? f : NULL;
}

/* Keep the keys of a frame, but those that have ended or are there already. No key ends later than
   one that is made now: after ttl_s was made shorter, the keyring would not be in the order of the
   ends. */
static int ka__journal_frame_keep(ka_journal *j, const unsigned char *f, size_t n, int64_t now_ms)
{
    struct ka__journal *own = j->own;
    const unsigned char *p = f + KA__FRAME_HEAD;
    int64_t last_ms = ka_keyring_end(&j->keys, now_ms), past_ms = now_ms - j->keys.epoch_ms;
    uint64_t now = (uint64_t)(own->epoch_s + (past_ms > 0 ? past_ms / 1000 : 0));
    uint64_t last = ka__journal_end(j, last_ms);
    if (last == 0) last = (uint64_t)own->epoch_s + UINT32_MAX;      /* the keyring's last second */
    int r = KA_OK;
    for (ka__journal_entry e; r == KA_OK && ka__journal_entry_next(&p, f + n, &e); ) {
        size_t count = j->keys.count;
        int64_t end_ms = last_ms;
        own->keys++;
        if (e.end_s && e.end_s <= now) continue;
        if (e.end_s && e.end_s < last)
            end_ms = j->keys.epoch_ms + (int64_t)(e.end_s - (uint64_t)own->epoch_s) * 1000;
        r = ka_keyring_add(&j->keys, e.digest, e.id, end_ms);
        if (j->keys.count == count) continue;
        if (e.end_s ? e.end_s > last : j->keys.ttl_s != 0) own->outlived = true;
    }
    return r;
}

/* The wall clock may be set while this runs, and the other clock stops while a machine sleeps. Then
   what is on disk must be told anew. The keys of a frame are all of one epoch. */
static void ka__journal_clock(ka_journal *j)
{
    struct ka__journal *own = j->own;
    int64_t epoch_s = (ka_wall_us() / 1000 - (ka_now_ms() - j->keys.epoch_ms)) / 1000;
    if (own->pending.keys) return;
    if (epoch_s >= own->epoch_s - 1 && epoch_s <= own->epoch_s + 1) return;
    own->epoch_s = epoch_s;
    own->stepped = j->keys.ttl_s != 0;
}

/* Behind the last byte that is no zero. */
static int64_t ka__journal_written(struct ka__journal *j, int64_t at, int64_t size)
{
    const unsigned char *p;
    int64_t end = at;
    while (at < size && (p = ka__journal_view(j, at++, 1)) != NULL) if (*p) end = at;
    return end;
}

/* Where the next good frame begins, or -1. */
static int64_t ka__journal_frame_search(struct ka__journal *j, int64_t at, int64_t size)
{
    size_t n;
    while (at < size && !j->read_error && !ka__journal_frame_at(j, at, &n)) at++;
    return at < size ? at : -1;
}

/* Read the frames up to the end, or to where the end is torn, and set the file's size to that. */
static int ka__journal_replay(ka_journal *j, int64_t now_ms, bool salvage,
                              ka_journal_report *report)
{
    struct ka__journal *own = j->own;
    int64_t at = 0, size = own->file.size;
    size_t n;
    while (at < size) {
        const unsigned char *f = ka__journal_frame_at(own, at, &n);
        if (f) {
            int r = ka__journal_frame_keep(j, f, n, now_ms);
            if (r < 0) return r;
            own->last = at;
            at += (int64_t)n;
            continue;
        }
        int64_t next = ka__journal_frame_search(own, at + 1, size);
        if (next < 0) size = ka__journal_written(own, at, size);
        if (own->read_error) return own->read_error;
        if (next < 0) {
            if (at == 0 || size - at <= KA__FRAME_BYTES) break;
            next = size;      /* no commit is that long */
        }
        if (report->damaged == 0) report->damaged_at = at;
        report->damaged += next - at;
        if (!salvage) return KA_EDAMAGED;
        at = next;
    }
    own->file.size = at;
    report->cut_at = at;
    report->cut = size - at;
    return KA_OK;
}

/* The file's place is where its path leads now. Another file there is replaced only if it could be
   the journal, and nobody has it. Its keys are kept: another server may have told them. */
static int ka__journal_place(ka_journal *j, int64_t now_ms)
{
    struct ka__journal *own = j->own;
    int64_t size;
    ka_journal_report found = { .damaged = 0 };
    int r = ka_file_look(&own->file, &size);
    if (r == KA_EFOREIGN) return KA_OK;
    if (r != KA_ENOTFOUND) return r;
    own->broken = own->strayed = true;
    own->scratch.n = 0;
    own->read_error = 0;
    r = ka_file_open(&own->file, NULL, NULL);
    if (r == KA_OK) r = ka_file_holds(&own->file, 0, ka__journal_mark, sizeof ka__journal_mark);
    if (r == KA_OK) r = ka__journal_replay(j, now_ms, true, &found);
    if (r < 0) ka_file_close(&own->file);      /* so that its keys are read the next time */
    return r;
}

/* Write the living keys into a new file, and put that in the place of the old. */
static int ka__journal_rewrite(ka_journal *j, int64_t now_ms)
{
    struct ka__journal *own = j->own;
    struct ka__journal_frame *f = &own->scratch;
    uint64_t place = 0;
    size_t keys = 0;
    ka_file fresh;
    int r = ka__journal_place(j, now_ms);
    if (r < 0) return r;
    r = ka_file_fresh(&own->file, &fresh, ka__journal_mark, sizeof ka__journal_mark);
    if (r < 0) return r;
    ka__journal_frame_begin(f);
    r = ka__journal_frame_write(f, &fresh);
    for (ka_key key; r == KA_OK && ka_keyring_next(&j->keys, &place, &key); ) {
        if (key.end_ms <= now_ms) continue;
        ka__journal_frame_add(f, key.digest, key.id, ka__journal_end(j, key.end_ms));
        keys++;
        if (f->n < KA__REWRITE_FRAME) continue;
        r = ka__journal_frame_write(f, &fresh);
        ka__journal_frame_begin(f);
    }
    if (r == KA_OK && f->keys) r = ka__journal_frame_write(f, &fresh);
    r = ka_file_replace(&own->file, &fresh, r);
    if (r < 0) {
        own->broken = own->broken || !own->file.handle || !own->file.named;
        return r;
    }
    own->keys = keys;
    own->stepped = own->broken = false;
    return r;
}

static int ka__journal_renew(ka_journal *j, int64_t now_ms)
{
    struct ka__journal *own = j->own;
    int r = ka__journal_rewrite(j, now_ms);
    j->rewrite_error = r;
    j->rewrite_os_error = r < 0 ? own->file.os_error : 0;
    if (r == KA_OK && own->strayed) {
        j->mended++;
        own->strayed = false;
    }
    return r;
}

static int ka__journal_failed(ka_journal *j, int error)
{
    j->error = error;
    j->os_error = j->own->file.os_error;
    return error;
}

/* Before a commit: is the file fit to be appended to? Written anew if it must be, or if more than
   half is dead. */
static int ka__journal_ready(ka_journal *j, int64_t now_ms)
{
    struct ka__journal *own = j->own;
    bool dead = own->file.size > KA__REWRITE_LEAST && own->keys / 2 > j->keys.count;
    bool due = own->broken || own->stepped || dead;
    if (due && now_ms >= own->retry_ms) {
        int64_t begun = ka_now_ms();
        int r = ka__journal_renew(j, now_ms);
        /* between attempts logins go on */
        if (r < 0) own->retry_ms = now_ms + KA__REWRITE_AGAIN_MS + 10 * (ka_now_ms() - begun);
        if (r < 0 && own->broken) return ka__journal_failed(j, r);
    }
    return own->broken ? j->error : KA_OK;
}

/* Append the frame, sync it, and look whether that is what the path leads to. KA_ENOTFOUND: others
   moved or changed the file. */
static int ka__journal_append(ka_journal *j)
{
    struct ka__journal *own = j->own;
    int64_t size = 0;
    ka__journal_frame_end(&own->pending);
    own->file.ahead = own->file.size < KA__AHEAD_LEAST ? 0 : KA_JOURNAL_AHEAD;
    int r = ka_file_append(&own->file, own->pending.bytes, own->pending.n);
    own->broken = own->file.torn || own->file.unsure;
    if (r < 0 && r != KA_ENOTFOUND) return ka__journal_failed(j, r);
    if (r == KA_OK) r = ka_file_look(&own->file, &size);
    if (r == KA_EFOREIGN || (r == KA_OK && size != own->file.room)) r = KA_ENOTFOUND;
    own->strayed = own->strayed || r == KA_ENOTFOUND;
    own->broken = r < 0;
    if (r < 0) return ka__journal_failed(j, r);
    j->error = j->os_error = 0;
    return KA_OK;
}

/* Put the keys that wait on disk, all or none; only then can they be found. If the file was moved
   or changed, all is written anew, and the keys are appended to that. */
static int ka__journal_commit(ka_journal *j, int64_t now_ms)
{
    struct ka__journal *own = j->own;
    const int64_t begun_us = ka_now_us();
    int r = ka__journal_ready(j, now_ms);
    if (r == KA_OK) r = ka__journal_append(j);
    if (r == KA_ENOTFOUND && own->strayed) {
        r = ka__journal_ready(j, now_ms);
        if (r == KA_OK) r = ka__journal_append(j);
    }
    if (r == KA_OK) r = ka__journal_frame_keep(j, own->pending.bytes, own->pending.n, now_ms);
    ka__journal_frame_begin(&own->pending);
    j->commits += r == KA_OK;
    j->commit_us += ka_now_us() - begun_us;
    return r;
}

/* Commit, and answer the questions that wait for it. */
static void ka__journal_settle(ka_source *src)
{
    struct ka__journal *own = (struct ka__journal *)(void *)src;
    if (own->held_n == 0) return;
    int r = ka__journal_commit(own->of, ka_now_ms());
    for (int i = 0; i < own->held_n; i++)
        ka_ticket_answer(&own->held[i], r, (ka_str){ NULL, 0 });
    own->held_n = 0;
}

/* The key waits for the next commit, and with a server its question does, too. */
static int ka__journal_add(ka_store *st, const unsigned char digest[32], ka_str id, int64_t now_ms,
                           const ka_ticket *t)
{
    ka_journal *j = (ka_journal *)(void *)st;
    struct ka__journal *own = j->own;
    if (id.n == 0 || id.n > KA_MAX_ID) return KA_EINVAL;
    int r = ka_keyring_room(&j->keys, now_ms, own->pending.keys);
    if (r < 0) return r;
    ka__journal_clock(j);
    int64_t end_ms = ka_keyring_end(&j->keys, now_ms);
    ka__journal_frame_add(&own->pending, digest, id, ka__journal_end(j, end_ms));
    if (!own->server) return ka__journal_commit(j, now_ms);
    own->held[own->held_n++] = *t;
    if (own->held_n == KA_BATCH) ka__journal_settle(&own->source);
    return KA_EAGAIN;
}

static int ka__journal_get(ka_store *st, const unsigned char digest[32], int64_t now_ms,
                           const ka_ticket *t, ka_str *id)
{
    (void)t;
    *id = ka_keyring_find(&((ka_journal *)(void *)st)->keys, digest, now_ms);
    return id->p ? KA_OK : KA_ENOTFOUND;
}

void ka_journal_close(ka_journal *j)
{
    struct ka__journal *own = j->own;
    if (own) {
        ka_file_close(&own->file);
        ka_wipe(own->held, sizeof own->held);
        if (own->server) ka_source_remove(own->server, &own->source);
        KA_FREE(own);
    }
    ka_keyring_free(&j->keys);
    memset(j, 0, sizeof *j);
}

/* Cut off a torn end. And write the last frame once more: if its sync failed in a process before
   this one, it can be read and yet not be on disk, and the next sync would not put it there. */
static int ka__journal_mend(struct ka__journal *own, bool torn)
{
    size_t n = (size_t)(own->file.size - own->last);
    const unsigned char *f = ka__journal_view(own, own->last, n);
    if (!f) return own->read_error ? own->read_error : KA_EDAMAGED;
    int r = torn ? ka_file_mend(&own->file) : KA_OK;
    return r == KA_OK ? ka_file_overwrite(&own->file, own->last, f, n) : r;
}

/* Read the file and make it fit to be appended to. Written anew are: a new file, a damaged one, and
   one with keys that are over, or that outlive what ttl_s is now.
   If it has the name path.damaged already, salvaging it was begun, and ended before it was written
   anew. */
static int ka__journal_recover(ka_journal *j, bool salvage, ka_journal_report *report)
{
    struct ka__journal *own = j->own;
    int64_t size = own->file.size;
    bool twin = own->file.twin, linked = false;
    int r = ka__journal_replay(j, j->keys.epoch_ms, salvage, report);
    bool damaged = report->damaged > 0;
    if (r == KA_OK && size > 0 && report->cut_at == 0) r = KA_ESYNTAX;
    if (r == KA_OK && size > 0 && !damaged) r = ka__journal_mend(own, own->file.size < size);
    if (r == KA_OK && damaged && !twin) {
        r = ka_file_link(&own->file, own->path_damaged);
        linked = r == KA_OK;
    }
    if (r == KA_OK) r = ka_file_sync(&own->file);      /* and path.damaged, before the rename */
    if (r < 0 && linked) ka_file_unlink(own->path_damaged);
    if (r < 0) return r;
    if (size > 0 && !damaged && !own->outlived && own->keys == j->keys.count) return r;
    r = ka__journal_renew(j, j->keys.epoch_ms);
    if (r < 0 && linked && !own->broken) ka_file_unlink(own->path_damaged);
    if (size == 0 || damaged || own->broken) return r;
    return KA_OK;      /* it was a matter of room, and can wait */
}

static int ka__journal_start(ka_journal *j, const char *path, bool salvage,
                             ka_journal_report *report)
{
    struct ka__journal *own = j->own;
    int64_t wall_ms = ka_wall_us() / 1000;
    /* so that a second ends when one of the wall clock does */
    j->keys.epoch_ms = ka_now_ms() - wall_ms % 1000;
    own->epoch_s = wall_ms / 1000;
    ka__journal_frame_begin(&own->pending);
    snprintf(own->path_damaged, sizeof own->path_damaged, "%.*s.damaged", KA_FILE_PATH, path);
    int r = ka_file_open(&own->file, path, own->path_damaged);
    if (r == KA_OK) r = ka__journal_recover(j, salvage, report);
    report->os_error = r < 0 ? own->file.os_error : 0;
    return r;
}

int ka_journal_open(ka_journal *j, ka_server *s, const char *path, size_t max_keys, int64_t ttl_s,
                    bool salvage, ka_journal_report *report)
{
    memset(j, 0, sizeof *j);
    memset(report, 0, sizeof *report);
    int r = ka_keyring_init(&j->keys, max_keys, ttl_s);
    if (r == KA_OK) {
        j->own = KA_MALLOC(sizeof *j->own);
        r = j->own ? KA_OK : KA_ENOMEM;
    }
    if (r == KA_OK) {
        memset(j->own, 0, sizeof *j->own);
        r = ka__journal_start(j, path, salvage, report);
    }
    if (r < 0) {
        ka_journal_close(j);
        return r;
    }
    j->store.put = ka__journal_add;
    j->store.get = ka__journal_get;
    j->own->of = j;
    j->own->server = s;
    j->own->source = (ka_source){ .batch_end = ka__journal_settle, .due_ms = INT64_MAX };
    if (s) ka_source_add(s, &j->own->source);
    return KA_OK;
}

const char *ka_journal_found(char out[KA_JOURNAL_TEXT], const char *path, int error,
                             const ka_journal_report *report, const char *option)
{
    const size_t n = KA_JOURNAL_TEXT;
    const long long damaged = report->damaged, cut = report->cut;
    char why[KA_TROUBLE_TEXT];
    int used = 0;
    if (error == KA_EDAMAGED)
        snprintf(out, n, "%.400s is damaged at byte %lld; %s-salvage leaves out what can't be read",
                 path, (long long)report->damaged_at, option);
    else if (error == KA_EINUSE && damaged)
        snprintf(out, n, "%.400s.damaged or %.400s.new is there already; move it away first", path,
                 path);
    else if (error == KA_ESYNTAX)
        snprintf(out, n, "%.400s holds no journal of keyauth; choose another %s", path, option);
    else if (error < 0)
        snprintf(out, n, "cannot use %.400s: %s; mend that, or choose another %s", path,
                 ka_file_trouble(why, path, error, report->os_error), option);
    if (error < 0) return out;
    if (cut)
        used = snprintf(out, n, "%.400s: cut off its last %lld bytes, a commit that was not "
                        "written to its end%s", path, cut, damaged ? "; " : "");
    if (damaged)
        snprintf(out + used, n - (size_t)used, "%.200s: left out %lld bytes, from %lld on; "
                 "%.200s.damaged has them", path, damaged, (long long)report->damaged_at, path);
    return cut || damaged ? out : NULL;
}

const char *ka_journal_news(char out[KA_JOURNAL_TEXT], ka_journal *j, const char *path)
{
    const size_t n = KA_JOURNAL_TEXT;
    const int error = j->error, again = j->rewrite_error;
    char why[KA_TROUBLE_TEXT];
    if (j->mended != j->told_mended) {
        j->told_mended = j->mended;
        snprintf(out, n, "%.400s was moved, removed or changed by others; all keys are written to "
                 "it anew", path);
    } else if (error != j->told_error) {
        j->told_error = error;
        if (!error) snprintf(out, n, "%.400s is written again", path);
        else snprintf(out, n, "cannot write %.400s: %s; new keys are refused until it can be, "
                      "logins go on", path, ka_file_trouble(why, path, error, j->os_error));
    } else if (!error && again != j->told_rewrite) {
        j->told_rewrite = again;
        if (!again) return NULL;
        snprintf(out, n, "cannot write %.400s anew, without the ended keys: %s; until it can be, "
                 "the file grows", path, ka_file_trouble(why, path, again, j->rewrite_os_error));
    } else {
        return NULL;
    }
    return out;
}

/* Public domain or MIT: see the end of keyauth.h. */
#endif /* KEYAUTH_JOURNAL_IMPLEMENTED */
