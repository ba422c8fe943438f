/* crash/journal.h - the scenarios of ext/journal.h, and what its clients were told. */

enum { JOURNAL, JOURNAL_NEW, JOURNAL_DAMAGED, JOURNAL_MOVED, KEYS = 96 };
static const char *const journal_names[NAMES] = { "d/j", "d/j.new", "d/j.damaged", "d/j.moved" };

/* A key may be on disk from ASKED on. It is there from GIVEN on, until its end. GONE: it was not
   found, so it must never be. */
enum { GONE, ASKED, GIVEN };
static struct { uint64_t end_s[KEYS]; int is[KEYS], n; } keys;      /* end_s 0: never */
static int64_t    ttl_s;
static bool       salvages;        /* the journal is opened so */
static bytes      damaged;         /* the damaged file, which must be kept */
static ka_server  server;

static ka_str key_id(int i, unsigned char digest[32])
{
    static char id[KEYS][16];
    memset(digest, i, 32);
    snprintf(id[i], sizeof id[i], "key %0*d", i % 3 * 4 + 2, i);
    return (ka_str){ id[i], strlen(id[i]) };
}

/* An answer: all keys of the keyring count as given. Here a client knows it. */
static void key_answered(ka_ticket *t, int result)
{
    const ka_journal *j = (const ka_journal *)(const void *)t->store;
    unsigned char digest[32];
    MUST(result == KA_OK, "a key is refused: %s", ka_error_text(result));
    bool news = false;
    for (int i = 0; i < keys.n; i++) {
        key_id(i, digest);
        bool there = ka_keyring_find(&j->keys, digest, ka_now_ms()).p;
        news = news || (there && keys.is[i] != GIVEN);
        if (there) keys.is[i] = GIVEN;
        MUST(there || t->tag != (uint64_t)i, "key %d was given, and is not found", i);
    }
    if (news) done_op("answer", NULL, 0, 0, 0);
}

/* The journal's keys are those that were given, maybe those that were asked for, and no others. */
static void journal_check(ka_journal *j)
{
    const uint64_t now_s = (uint64_t)(real_ms / 1000);
    unsigned char digest[32];
    uint64_t place = 0;
    size_t found = 0;
    for (int i = 0; i < keys.n; i++) {
        ka_str id = key_id(i, digest), got = ka_keyring_find(&j->keys, digest, ka_now_ms());
        bool over = keys.end_s[i] && keys.end_s[i] <= now_s;
        MUST(got.p || over || keys.is[i] != GIVEN, "key %d was given, and is lost", i);
        MUST(!got.p || keys.is[i] != GONE, "key %d is back", i);
        MUST(!got.p || !over, "key %d is back after its end", i);
        MUST(!got.p || (got.n == id.n && memcmp(got.p, id.p, id.n) == 0), "key %d: another ID", i);
        keys.is[i] = got.p ? GIVEN : GONE;
        found += got.p != NULL;
    }
    MUST(found == j->keys.count, "%d keys, %d known", (int)j->keys.count, (int)found);
    for (ka_key key; ka_keyring_next(&j->keys, &place, &key); ) {
        const int i = key.digest[0];
        uint64_t end_s = now_s + (uint64_t)((key.end_ms - j->keys.epoch_ms) / 1000);
        if (key.end_ms == INT64_MAX) end_s = 0;
        MUST(end_s == keys.end_s[i], "key %d: another end", i);
    }
}

static bool damaged_is(int name)
{
    const inode *f = inode_named(name);
    return f && f->now.n == damaged.n && memcmp(f->now.p, damaged.p, damaged.n) == 0;
}

static bool journal_open(ka_journal *j)
{
    ka_journal_report report;
    int r = ka_journal_open(j, &server, journal_names[JOURNAL], 0, ttl_s, salvages, &report);
    MUST(r == KA_OK, "it can't be opened: %s", ka_error_text(r));
    if (r < 0) return false;
    MUST(salvages || report.damaged == 0, "%d bytes are damaged", (int)report.damaged);
    MUST(!damaged.n || damaged_is(JOURNAL_DAMAGED), "the damaged file is not kept");
    journal_check(j);
    done_op("opened", NULL, 0, 0, 0);
    return true;
}

/* n keys in one commit. */
static void journal_put(ka_journal *j, int n)
{
    unsigned char digest[32];
    while (n-- > 0) {
        const int i = keys.n++;
        ka_ticket t = { .store = &j->store, .tag = (uint64_t)i };
        ka_str id = key_id(i, digest);
        keys.is[i] = ASKED;
        keys.end_s[i] = ka__journal_end(j, ka_keyring_end(&j->keys, ka_now_ms()));
        j->store.put(&j->store, digest, id, ka_now_ms(), &t);
    }
    j->own->source.batch_end(&j->own->source);
}

/* After a crash: open it, give out a key, and open it once more. */
static void journal_recover(void)
{
    ka_journal j;
    MUST(!damaged.n || damaged_is(JOURNAL) || damaged_is(JOURNAL_DAMAGED),
         "the damaged file is lost");
    if (!journal_open(&j)) return;
    journal_put(&j, 1);
    ka_journal_close(&j);
    if (!journal_open(&j)) return;
    ka_journal_close(&j);
}

static void run_keys(void)
{
    ka_journal j;
    if (!journal_open(&j)) return;
    journal_put(&j, 1);
    journal_put(&j, 1);
    ka_journal_close(&j);
    if (!journal_open(&j)) return;
    journal_put(&j, 1);
    ka_journal_close(&j);
}

static void run_groups(void)
{
    ka_journal j;
    if (!journal_open(&j)) return;
    journal_put(&j, 2);
    journal_put(&j, 3);
    ka_journal_close(&j);
}

/* The second commit writes zeros ahead. The next ones go over them. */
static void run_ahead(void)
{
    ka_journal j;
    if (!journal_open(&j)) return;
    journal_put(&j, 20);
    for (int i = 0; i < 3; i++) journal_put(&j, i == 1 ? 2 : 1);
    ka_journal_close(&j);
    if (!journal_open(&j)) return;
    journal_put(&j, 1);
    ka_journal_close(&j);
}

/* The first two keys end. Then the journal is opened, and for that written anew, in two frames. */
static void run_ends(void)
{
    ka_journal j;
    ttl_s = 100;
    if (!journal_open(&j)) return;
    journal_put(&j, 1);
    journal_put(&j, 1);
    real_ms += 60000;
    now_disk->clock_ms += 60000;
    journal_put(&j, 80);
    ka_journal_close(&j);
    real_ms += 60000;
    now_disk->clock_ms += 60000;
    if (!journal_open(&j)) return;
    journal_put(&j, 1);
    ka_journal_close(&j);
}

/* Somebody moves the journal away: its keys are promised again by the next answer. */
static void run_moved(void)
{
    ka_journal j;
    if (!journal_open(&j)) return;
    journal_put(&j, 2);
    for (int i = 0; i < keys.n; i++) keys.is[i] = ASKED;
    rename_as(MOVE, JOURNAL, JOURNAL_MOVED);
    journal_put(&j, 1);
    journal_put(&j, 1);
    ka_journal_close(&j);
}

/* Of three keys the second one's frame is damaged. */
static void run_salvage(void)
{
    ka_journal j;
    now_disk->watched = false;
    if (!journal_open(&j)) return;
    for (int i = 0; i < 3; i++) journal_put(&j, 1);
    ka_journal_close(&j);
    inode *f = inode_named(JOURNAL);
    f->now.p[KA__FRAME_HEAD + (f->now.n - KA__FRAME_HEAD) / 2] ^= 1;
    inode_sync(f);
    append(&damaged, f->now.p, f->now.n);
    keys.is[1] = GONE;
    salvages = now_disk->watched = true;
    if (!journal_open(&j)) return;
    journal_put(&j, 1);
    ka_journal_close(&j);
}
