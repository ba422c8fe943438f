/* sqlite - the handshake's server with keys in SQLite: a store of one's own (keyauth.h, section 7).
     cc -O2 -pthread -I. -o bench/sqlite bench/sqlite.c -lsqlite3
     bench/sqlite PORT FILE --batched|--single
   --batched: one transaction for the keys of a batch, and their answers after its commit: the group
   commit of ext/journal.h. --single: a transaction for each key. */

#define KEYAUTH_STATIC
#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include "ext/input.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A key that can be found is on disk: WAL is synced at each commit. Nobody else opens the file (nor
   a journal), which spares SQLite the locks in shared memory. WITHOUT ROWID: the digest is looked
   up in one tree and not in two. */
static const char settings[] =
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
    "CREATE TABLE IF NOT EXISTS keys (digest BLOB PRIMARY KEY, id TEXT NOT NULL) WITHOUT ROWID;";

typedef struct {
    ka_store      store;
    ka_source     source;             /* commits at the end of a batch */
    bool          single;
    sqlite3      *db;
    sqlite3_stmt *begin, *insert, *find, *commit, *rollback;
    char          id[KA_MAX_ID];      /* the last one that was found */
    int           held_n;
    ka_ticket     held[KA_BATCH];     /* questions whose keys are in the transaction */
} keeper;

static bool run(sqlite3_stmt *s)
{
    int r = sqlite3_step(s);
    sqlite3_reset(s);
    return r == SQLITE_DONE;
}

/* Commit, and answer the questions that wait for it. */
static void settle(keeper *k)
{
    if (k->held_n == 0) return;
    bool kept = run(k->commit);
    if (!kept) run(k->rollback);
    for (int i = 0; i < k->held_n; i++)
        ka_ticket_answer(&k->held[i], kept ? KA_OK : KA_EOS, (ka_str){ NULL, 0 });
    k->held_n = 0;
}

static void batch_end(ka_source *source)
{
    settle((keeper *)(void *)((char *)source - offsetof(keeper, source)));
}

/* What is bound is borrowed: it lives until the statement has run. */
static int put(ka_store *st, const unsigned char digest[32], ka_str id, int64_t now_ms,
               const ka_ticket *t)
{
    keeper *k = (keeper *)(void *)st;
    (void)now_ms;
    if (!k->single && k->held_n == 0 && !run(k->begin)) return KA_EOS;
    bool kept = sqlite3_bind_blob(k->insert, 1, digest, 32, SQLITE_STATIC) == SQLITE_OK &&
                sqlite3_bind_text(k->insert, 2, id.p, (int)id.n, SQLITE_STATIC) == SQLITE_OK &&
                run(k->insert);
    if (k->single) return kept ? KA_OK : KA_EOS;
    if (!kept && k->held_n == 0) run(k->rollback);
    if (!kept) return KA_EOS;
    k->held[k->held_n++] = *t;
    if (k->held_n == KA_BATCH) settle(k);
    return KA_EAGAIN;
}

static int get(ka_store *st, const unsigned char digest[32], int64_t now_ms, const ka_ticket *t,
               ka_str *id)
{
    keeper *k = (keeper *)(void *)st;
    int r = KA_ENOTFOUND;
    (void)now_ms;
    (void)t;
    if (sqlite3_bind_blob(k->find, 1, digest, 32, SQLITE_STATIC) != SQLITE_OK) return KA_EOS;
    int step = sqlite3_step(k->find);
    if (step == SQLITE_ROW) {
        const void *found = sqlite3_column_text(k->find, 0);
        *id = (ka_str){ k->id, (size_t)sqlite3_column_bytes(k->find, 0) };
        r = found && id->n <= sizeof k->id ? KA_OK : KA_EOS;
        if (r == KA_OK) memcpy(k->id, found, id->n);
    }
    sqlite3_reset(k->find);
    return step == SQLITE_ROW || step == SQLITE_DONE ? r : KA_EOS;
}

static bool prepare(keeper *k, sqlite3_stmt **s, const char *sql)
{
    return sqlite3_prepare_v3(k->db, sql, -1, SQLITE_PREPARE_PERSISTENT, s, NULL) == SQLITE_OK;
}

static bool open_file(keeper *k, const char *path)
{
    const int how = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    return sqlite3_open_v2(path, &k->db, how, NULL) == SQLITE_OK &&
           sqlite3_exec(k->db, settings, NULL, NULL, NULL) == SQLITE_OK &&
           prepare(k, &k->begin, "BEGIN") && prepare(k, &k->commit, "COMMIT") &&
           prepare(k, &k->rollback, "ROLLBACK") &&
           prepare(k, &k->insert, "INSERT INTO keys VALUES (?, ?)") &&
           prepare(k, &k->find, "SELECT id FROM keys WHERE digest = ?");
}

static int fail(int status, const char *what)
{
    fprintf(stderr, "sqlite: %s\n", what);
    return status;
}

int main(int argc, char **argv)
{
    static keeper k;
    ka_server *s;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) return puts("SQLite " SQLITE_VERSION) < 0;
    k.single = argc == 4 && strcmp(argv[3], "--single") == 0;
    if (argc != 4 || (!k.single && strcmp(argv[3], "--batched") != 0))
        return fail(2, "usage: sqlite PORT FILE --batched|--single");
    if (!open_file(&k, argv[2])) return fail(1, k.db ? sqlite3_errmsg(k.db) : "out of memory");
    if (ka_server_start(&s, 1) < 0 || ka_stop_on_interrupt(s) < 0) return fail(1, "cannot start");
    k.store = (ka_store){ .put = put, .get = get };
    k.source = (ka_source){ .batch_end = batch_end, .due_ms = INT64_MAX };
    ka_source_add(s, &k.source);
    if (ka_listen(s, "127.0.0.2", atoi(argv[1])) < 0) return fail(1, "cannot listen");
    for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; ) {
        if (ev.kind == KA_REQUEST) ka_auth(s, &k.store, &ev);
        else if (ev.error) return fail(1, ka_error_text(ev.error));
    }
    ka_server_free(s);
    for (sqlite3_stmt *one; (one = sqlite3_next_stmt(k.db, NULL)) != NULL; ) sqlite3_finalize(one);
    return sqlite3_close(k.db) == SQLITE_OK ? 0 : 1;
}
