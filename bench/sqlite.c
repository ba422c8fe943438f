/* sqlite - keyauth's answers to ask_key= and login= with SQLite in the place of the keyring and its journal.
     cc -O2 -pthread -o bench/sqlite bench/sqlite.c -lsqlite3 && bench/sqlite PORT FILE --batched|--single
   HTTP, the form, the random bytes and base64 are keyauth.h's own, some of them by private functions, so that only the
   storage differs. --batched: one transaction for the asks of a batch, which are answered after its commit, as
   ka_journal_group has it. --single: a transaction for each, and its answer at once. */

#define KEYAUTH_IMPLEMENTATION
#include "../keyauth.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A key that can be found is on disk: WAL is synced at each commit. Nobody else opens the file (nor the journal), which
   spares SQLite the locks in shared memory. WITHOUT ROWID: the digest is looked up in one tree and not in two. */
static const char settings[] =
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
    "CREATE TABLE IF NOT EXISTS keys (digest BLOB PRIMARY KEY, id TEXT NOT NULL) WITHOUT ROWID;";

static sqlite3      *db;
static sqlite3_stmt *begin, *insert, *find, *commit, *rollback;
static ka_server    *server;
static ka_keyring    pool;                                /* only for its random bytes */
static bool          single;

static int held_n;
static struct { ka_event ev; char key[KA_KEY_TEXT]; } held[KA_BATCH];

static int run(sqlite3_stmt *s)
{
    int r = sqlite3_step(s);
    sqlite3_reset(s);
    return r;
}

static void settle(void *none)
{
    (void)none;
    if (held_n == 0) return;
    bool kept = run(commit) == SQLITE_DONE;
    if (!kept) run(rollback);
    for (int i = 0; i < held_n; i++) {
        if (kept) ka_reply(server, &held[i].ev, 200, NULL, held[i].key, KA_KEY_TEXT);
        else ka_reply(server, &held[i].ev, 503, NULL, "server_full", 11);
    }
    ka_wipe(held, (size_t)held_n * sizeof *held);
    held_n = 0;
}

/* Both are borrowed: what they are bound to lives until the statement has run. */
static bool keep(const unsigned char digest[32], ka_str id)
{
    return sqlite3_bind_blob(insert, 1, digest, 32, SQLITE_STATIC) == SQLITE_OK &&
           sqlite3_bind_text(insert, 2, id.p, (int)id.n, SQLITE_STATIC) == SQLITE_OK && run(insert) == SQLITE_DONE;
}

static int refuse(const ka_event *ev, int status, const char *what) { return ka_reply(server, ev, status, NULL, what, strlen(what)); }

static int ask(const ka_event *ev, ka_str value)
{
    unsigned char raw[KA_KEY_BYTES], digest[32];
    char id[KA_MAX_ID], key[KA_KEY_TEXT];
    ptrdiff_t n = ka_percent_decode(id, sizeof id, value);
    if (n <= 0 || !ka__printable(id, (size_t)n)) return refuse(ev, 400, "wrong_query");
    if (ka__key_random(&pool, raw) < 0) return refuse(ev, 503, "server_full");
    ka_sha256(digest, raw, sizeof raw);
    ka_b64_encode(key, sizeof key, raw, sizeof raw);
    ka_wipe(raw, sizeof raw);
    if (!single && held_n == 0 && run(begin) != SQLITE_DONE) return refuse(ev, 503, "server_full");
    bool kept = keep(digest, (ka_str){ id, (size_t)n });
    if (!single && kept) {
        held[held_n].ev = *ev;
        memcpy(held[held_n++].key, key, KA_KEY_TEXT);
        return KA_OK;
    }
    if (!single && held_n == 0) run(rollback);
    int r = kept ? ka_reply(server, ev, 200, NULL, key, sizeof key) : refuse(ev, 503, "server_full");
    if (single) ka__publish_down(server->workers[0]);     /* now: the rest of the batch takes a sync each */
    return r;
}

static int login(const ka_event *ev, ka_str value)
{
    unsigned char raw[KA_KEY_BYTES], digest[32];
    char key[KA_KEY_TEXT];
    int r;
    if (ka_percent_decode(key, sizeof key, value) != KA_KEY_TEXT || ka_b64_decode(raw, sizeof raw, key, sizeof key) != KA_KEY_BYTES)
        return refuse(ev, 403, "wrong_key");
    ka_sha256(digest, raw, sizeof raw);
    sqlite3_bind_blob(find, 1, digest, 32, SQLITE_STATIC);
    if (sqlite3_step(find) == SQLITE_ROW) r = ka_reply(server, ev, 200, NULL, sqlite3_column_text(find, 0), (size_t)sqlite3_column_bytes(find, 0));
    else r = refuse(ev, 403, "wrong_key");
    sqlite3_reset(find);
    return r;
}

static int answer(const ka_event *ev)
{
    ka_str rest = ev->body, name, value, other;
    if (ev->error) return refuse(ev, ev->error, "wrong_query");
    if (!ka_is(ev->method, "POST")) return ka_reply(server, ev, 405, "Allow: POST\r\n", "wrong_query", 11);
    if (ka_form_next(&rest, &name, &value) == KA_OK && ka_form_next(&rest, &other, &other) == KA_ENOTFOUND) {
        if (ka_is(name, "ask_key")) return ask(ev, value);
        if (ka_is(name, "login")) return login(ev, value);
    }
    return refuse(ev, 400, "wrong_query");
}

static bool prepare(sqlite3_stmt **s, const char *sql) { return sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, s, NULL) == SQLITE_OK; }

static bool open_file(const char *path)
{
    return sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK &&
           sqlite3_exec(db, settings, NULL, NULL, NULL) == SQLITE_OK && prepare(&begin, "BEGIN") && prepare(&commit, "COMMIT") &&
           prepare(&rollback, "ROLLBACK") && prepare(&insert, "INSERT INTO keys VALUES (?, ?)") &&
           prepare(&find, "SELECT id FROM keys WHERE digest = ?");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--version") == 0) return puts("SQLite " SQLITE_VERSION), 0;
    single = argc == 4 && strcmp(argv[3], "--single") == 0;
    if (argc != 4 || (!single && strcmp(argv[3], "--batched") != 0)) return fputs("usage: sqlite PORT FILE --batched|--single\n", stderr), 2;
    if (!open_file(argv[2])) return fprintf(stderr, "sqlite: %s: %s\n", argv[2], db ? sqlite3_errmsg(db) : "out of memory"), 1;
    if (ka_keyring_init(&pool, 1, 0) < 0 || ka_server_start(&server, 1) < 0 || ka_stop_on_interrupt(server) < 0) return 1;
    if (!single) ka_at_batch_end(server, settle, NULL);
    if (ka_listen(server, "127.0.0.2", atoi(argv[1])) < 0) return fputs("sqlite: cannot listen\n", stderr), 1;
    for (ka_event ev; ka_wait(server, &ev, -1) == KA_OK; ) {
        if (ev.kind == KA_REQUEST) answer(&ev);
        else if (ev.error) return fputs("sqlite: cannot listen\n", stderr), 1;
    }
    ka_server_free(server);
    for (sqlite3_stmt *s; (s = sqlite3_next_stmt(db, NULL)) != NULL; ) sqlite3_finalize(s);
    return sqlite3_close(db) == SQLITE_OK ? 0 : 1;
}
