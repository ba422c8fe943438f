/* fuzz/journal.h - the target journal. The input first builds a file, frame by frame or of any
   bytes, and damages it; then come keys, failing calls, power cuts. Each file is read here a second
   time, as plainly as can be, and that must be what ka_journal_open finds. Each key that was given
   must be there from then on; no other may be, but one that was refused. */

typedef struct {
    const unsigned char *digest;
    const char *id;
    size_t id_n;
    uint64_t end;      /* or PLAIN_NEVER */
} entry;
#define PLAIN_NEVER UINT64_MAX

enum {
    ENTRIES = 4096,
    PLAIN_FRAME = 12 + 256 * (42 + KA_MAX_ID),
    BUILT = 100000,
    KNOWN = 1024,
    WORKER_BOX = 1 << 17
};
typedef struct {
    bytes   text;
    entry   e[ENTRIES];               /* the living */
    size_t  n, all;
    bool    stale;                    /* it will be written anew: it has others */
    int64_t cut_at, cut, damaged_at, damaged, hole;      /* hole: what is damaged at damaged_at */
    int     result;
} journal_text;

typedef struct {
    unsigned char digest[32];
    char id[KA_MAX_ID];
    size_t id_n;
    uint64_t low, high;
    bool given;
} known;

static struct {
    ka_journal j;
    bool       begun, open, salvage;
    int64_t    ttl_s, opened_ms, opened_wall_ms, wall_steps_ms;      /* steps: while it is closed */
    size_t     max_keys, known_n;
    known      known[KNOWN];
    journal_text    before, after;
    ka_server  server;
    ka__worker worker;
} jt;

static uint64_t plain_le(const void *p, int n)
{
    uint64_t v = 0;
    for (int i = n; i-- > 0; ) v = v << 8 | ((const unsigned char *)p)[i];
    return v;
}

static void put_le(void *p, int n, uint64_t v)
{
    for (int i = 0; i < n; i++, v >>= 8) ((unsigned char *)p)[i] = (unsigned char)v;
}

static uint32_t plain_crc(const unsigned char *p, size_t n)
{
    static uint32_t table[256];
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; !table[255] && i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78 : 0);
    }
    while (n-- > 0) crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
    return ~crc;
}

/* The bytes of the good frame that begins here; 0: none does. */
static size_t plain_frame(const unsigned char *p, size_t n)
{
    if (n < 12 || memcmp(p, "\xf5ka\1", 4) != 0) return 0;
    size_t size = plain_le(p + 8, 4), id;
    if (size > n - 12 || size + 12 > PLAIN_FRAME ||
        plain_crc(p + 8, size + 4) != plain_le(p + 4, 4))
        return 0;
    p += 12;
    for (size_t at = 0; at < size; at += 42 + id) {
        if (size - at < 42) return 0;
        id = plain_le(p + at, 2);
        if (id < 1 || id > KA_MAX_ID || id > size - at - 42) return 0;
    }
    return size + 12;
}

static void read_frame(journal_text *r, const unsigned char *p, size_t n)
{
    uint64_t now_s = (uint64_t)(wall_ms() / 1000),
             last = jt.ttl_s ? now_s + (uint64_t)jt.ttl_s + 1 : PLAIN_NEVER;
    for (size_t at = 12, i; at < n; at += 42 + plain_le(p + at, 2)) {
        entry e = { p + at + 10, (const char *)p + at + 42, plain_le(p + at, 2),
                    plain_le(p + at + 2, 8) };
        CHECK(r->n < ENTRIES, "too many keys");
        r->all++;
        if (e.end && e.end <= now_s) continue;
        for (i = 0; i < r->n && memcmp(r->e[i].digest, e.digest, 32); i++) {}
        if (i < r->n) continue;
        if (e.end == 0) e.end = PLAIN_NEVER;
        else if (!jt.ttl_s && e.end - now_s > UINT32_MAX)
            r->stale = true;      /* the keyring's clock ends */
        if (e.end - now_s >= UINT32_MAX) e.end = PLAIN_NEVER;
        if (e.end > last) {
            e.end = last;
            r->stale = true;
        }
        r->e[r->n++] = e;
    }
}

/* What is in a file, and what has to become of it. */
static void read_file(journal_text *r, const sim_file *f)
{
    size_t size = f ? f->n : 0, at = 0, next, n = 0, end;
    r->text.n = r->n = r->all = 0;
    r->stale = false;
    r->cut = r->damaged_at = r->damaged = r->hole = 0;
    append(&r->text, f ? f->now.p : NULL, size);
    const unsigned char *p = (const unsigned char *)r->text.p;
    for (; at < size; at = next + n) {
        for (next = at; next < size && !(n = plain_frame(p + next, size - next)); next++) {}
        for (end = size; next == size && end > at && p[end - 1] == 0; end--) {}
        if (next == size) next = size = end;
        if (next == end && (at == 0 || end - at <= PLAIN_FRAME)) break;
        if (next > at && !r->damaged) {
            r->damaged_at = (int64_t)at;
            r->hole = (int64_t)(next - at);
        }
        r->damaged += (int64_t)(next - at);
        if (next == size) n = 0;
        else read_frame(r, p + next, n);
    }
    r->cut_at = (int64_t)at;
    r->cut = (int64_t)(size - at);
    r->stale = r->stale || r->all != r->n;
    r->result = at == 0 && r->text.n > 0    ? KA_ESYNTAX
                : r->damaged && !jt.salvage ? KA_EDAMAGED
                                            : KA_OK;
    if (r->result == KA_OK && r->damaged && file_named(DAMAGED) && file_named(DAMAGED) != f)
        r->result = KA_EINUSE;
}

static bool same_entry(const entry *a, const entry *b)
{
    return memcmp(a->digest, b->digest, 32) == 0 && a->end == b->end &&
           same_str((ka_str){ a->id, a->id_n }, (ka_str){ b->id, b->id_n });
}

static bool same_entries(const journal_text *a, const journal_text *b)
{
    for (size_t i = 0; i < a->n && i < b->n; i++)
        if (!same_entry(&a->e[i], &b->e[i])) return false;
    return a->n == b->n;
}

static bool same_bytes(const sim_file *f, const bytes *b, size_t n)
{
    return f && f->n == n && (n == 0 || memcmp(f->now.p, b->p, n) == 0);
}

/* Are the keys of a file in the keyring, in its order, and no others? */
static void keyring_check(const ka_keyring *k, const journal_text *r)
{
    uint64_t place = 0;
    size_t i = 0;
    for (ka_key key; ka_keyring_next(k, &place, &key); i++) {
        uint64_t end = (uint64_t)(wall_ms() / 1000 + (key.end_ms - k->epoch_ms) / 1000);
        entry e = { key.digest, key.id.p, key.id.n, key.end_ms == INT64_MAX ? PLAIN_NEVER : end };
        CHECK(i < r->n && same_entry(&e, &r->e[i]), "key %d of %d is another", (int)i, (int)r->n);
        ka_str id = ka_keyring_find(k, key.digest, INT64_MIN);
        CHECK(id.p == key.id.p, "key %d is not found", (int)i);
    }
    CHECK(i == r->n && k->count == i, "%d keys, %d counted, want %d", (int)i, (int)k->count,
          (int)r->n);
}

/* The file after it was opened: fit to be appended to, on disk, and the same keys in it. */
static void opened_check(const journal_text *r, const ka_journal_report *report, bool failed)
{
    const sim_file *f = file_named(JOURNAL);
    CHECK(report->cut_at == r->cut_at && report->cut == r->cut, "cut %d at %d, want %d at %d",
          (int)report->cut, (int)report->cut_at, (int)r->cut, (int)r->cut_at);
    CHECK(report->damaged_at == r->damaged_at && report->damaged == r->damaged,
          "%d damaged at %d, want %d at %d", (int)report->damaged, (int)report->damaged_at,
          (int)r->damaged, (int)r->damaged_at);
    keyring_check(&jt.j.keys, r);
    CHECK(file_durable(), "open, but not on disk");
    read_file(&jt.after, f);
    CHECK(jt.after.damaged == 0 && jt.after.cut == 0 && jt.after.cut_at > 0 &&
              same_entries(r, &jt.after),
          "not what was read: %d keys, want %d", (int)jt.after.n, (int)r->n);
    if (r->damaged)
        CHECK(same_bytes(file_named(DAMAGED), &r->text, r->text.n),
              "the damaged file was not kept as it was");
    if (failed) return;
    const struct ka__journal *j = jt.j.own;
    CHECK(j->file.size == (int64_t)f->n && j->keys == jt.after.all, "%d bytes, %d keys",
          (int)j->file.size, (int)j->keys);
    if (r->stale || r->damaged) CHECK(!jt.after.stale && !file_named(FRESH), "not written anew");
    else if (r->cut_at)
        CHECK(same_bytes(f, &r->text, (size_t)r->cut_at), "its good frames were changed");
}

static known *known_find(const unsigned char *digest)
{
    for (size_t i = 0; i < jt.known_n; i++)
        if (memcmp(jt.known[i].digest, digest, 32) == 0) return &jt.known[i];
    return NULL;
}

static known *known_add(const unsigned char *digest, const char *id, size_t n, uint64_t end)
{
    CHECK(jt.known_n < KNOWN, "too many keys");
    known *k = &jt.known[jt.known_n++];
    memcpy(k->digest, digest, 32);
    memcpy(k->id, id, k->id_n = n);
    k->low = k->high = end;
    k->given = false;
    return k;
}

/* Is every key there that was given, and none that was never made? What is there now will stay. */
static void known_check(const journal_text *r, bool failed)
{
    static bool found[KNOWN];
    uint64_t now_s = (uint64_t)(wall_ms() / 1000),
             last = jt.ttl_s ? now_s + (uint64_t)jt.ttl_s + 1 : PLAIN_NEVER;
    memset(found, 0, sizeof found);
    for (size_t i = 0; i < r->n; i++) {
        const entry *e = &r->e[i];
        known *k = known_find(e->digest);
        CHECK(k, "a key that was never made");
        if (k->high > now_s && k->high - now_s >= UINT32_MAX) k->high = PLAIN_NEVER;
        CHECK(same_str((ka_str){ k->id, k->id_n }, (ka_str){ e->id, e->id_n }), "of another ID");
        CHECK(e->end <= k->high && (e->end >= k->low || e->end == last), "ends at another time");
        k->low = e->end;
        if (!failed) k->high = e->end;
        found[k - jt.known] = k->given = true;
    }
    for (size_t i = 0; i < jt.known_n; i++) {
        known *k = &jt.known[i];
        if (k->low <= now_s) k->given = false;
        CHECK(found[i] || !k->given, "a key was lost: %.*s", (int)k->id_n, k->id);
    }
}

static uint64_t keyring_now_s(void)
{
    return (uint64_t)((jt.opened_wall_ms + clock_ms - jt.opened_ms) / 1000);
}

static void journal_close(void)
{
    /* Keys that are over may be left out when the file is written anew. */
    for (size_t i = 0; jt.open && i < jt.known_n; i++)
        if (jt.known[i].low <= keyring_now_s()) jt.known[i].given = false;
    ka_journal_close(&jt.j);
    wall_ahead_ms += jt.wall_steps_ms;
    jt.wall_steps_ms = 0;
    jt.open = false;
}

static bool systems(int r)
{
    return r == KA_EOS || r == KA_EPERM || r == KA_ELIMIT || r == KA_ENOSPC || r == KA_ENOTFOUND;
}

/* After an error: nothing is lost, and nothing was changed that could not be read. */
static void refused_check(const journal_text *r, int result)
{
    const sim_file *f = file_named(JOURNAL);
    bool same = f ? same_bytes(f, &r->text, r->text.n) : r->text.n == 0;
    bool ours = systems(result);
    CHECK(same || (ours && r->result == KA_OK), "%s, and the file was changed",
          ka_error_text(result));
    read_file(&jt.after, f);
    CHECK(same_entries(r, &jt.after), "%s, and other keys", ka_error_text(result));
    if (!same && r->damaged)
        CHECK(same_bytes(file_named(DAMAGED), &r->text, r->text.n),
              "%s, and the damaged file was not kept", ka_error_text(result));
}

/* Open what is there; true if that is done, as it must be when nothing fails and the
   file is whole. */
static bool journal_open_once(void)
{
    ka_journal_report report;
    unsigned failed = files.failed;
    read_file(&jt.before, file_named(JOURNAL));
    int r = ka_journal_open(&jt.j, &jt.server, file_names[JOURNAL], jt.max_keys, jt.ttl_s,
                            jt.salvage, &report);
    bool fails = files.failed != failed || blocks_failed;
    if (r != jt.before.result) {
        CHECK(fails && r < 0, "got %s, want %s", ka_error_text(r), ka_error_text(jt.before.result));
        CHECK(r == KA_ENOMEM ? blocks_failed : files.failed != failed && systems(r),
              "got %s, want %s", ka_error_text(r), ka_error_text(jt.before.result));
    }
    if (r == KA_EDAMAGED)
        CHECK(report.damaged_at == jt.before.damaged_at && report.damaged == jt.before.hole,
              "%d damaged at %d", (int)report.damaged, (int)report.damaged_at);
    CHECK((report.os_error != 0) == systems(r), "%s with %d", ka_error_text(r), report.os_error);
    if (r < 0) {
        refused_check(&jt.before, r);
        return false;
    }
    opened_check(&jt.before, &report, fails);
    jt.opened_ms = clock_ms;
    jt.opened_wall_ms = wall_ms();
    return jt.open = true;
}

static bool journal_open(void)
{
    bool done = journal_open_once();
    if (!done && (files.failed || blocks_failed)) {      /* once more, in peace */
        files.fail_n = files.failed = 0;
        blocks_fail_in = -1;
        blocks_failed = false;
        names_now()->of[DAMAGED] = -1;
        done = journal_open_once();
    }
    if (!done) return false;
    if (!jt.known_n && !jt.begun)
        for (size_t i = 0; i < jt.before.n && i < KNOWN / 2; i++)
            known_add(jt.before.e[i].digest, jt.before.e[i].id, jt.before.e[i].id_n,
                      jt.before.e[i].end)
                ->given = true;
    if (jt.known_n < KNOWN / 2) known_check(&jt.before, files.failed != 0 || blocks_failed);
    jt.begun = true;
    return true;
}

/* Again, with or without a power cut: never an error. */
static void journal_again(bool cut)
{
    journal_close();
    if (cut) power_cut();
    if (file_named(DAMAGED)) names_next()->of[DAMAGED] = -1;
    CHECK(journal_open() && jt.before.damaged == 0 && (cut || jt.before.result == KA_OK),
          "damaged %d at %d", (int)jt.before.damaged, (int)jt.before.damaged_at);
}

/* The key that will be made next. */
static void next_digest(unsigned char digest[32])
{
    unsigned char raw[KA_KEY_BYTES];
    const struct ka__pool *pool = jt.server.pool;
    uint64_t at = random_at;
    random_at += pool ? (KA__POOL_KEYS - 1) * KA_KEY_BYTES : 0;
    if (!pool || pool->left == 0) sim_random(raw, sizeof raw);
    else memcpy(raw, pool->bytes + pool->left - KA_KEY_BYTES, sizeof raw);
    random_at = at;
    ka_sha256(digest, raw, sizeof raw);
}

/* A key was given: it can be found, and is on disk. */
static void given_check(const char *text, known *k)
{
    unsigned char digest[32];
    CHECK(file_durable(), "given, but not on disk");
    CHECK(ka__key_digest(digest, (ka_str){ text, KA_KEY_TEXT }) == KA_OK, "given is no key");
    ka_str id = ka_keyring_find(&jt.j.keys, digest, clock_ms);
    CHECK(same_str(id, (ka_str){ k->id, k->id_n }) || k->low <= keyring_now_s(),
          "given, but found is %d bytes", (int)id.n);
    k->given = true;
}

/* The answers that were given. */
static void answers_read(void)
{
    ka__box_publish(&jt.worker.down);
    for (ka__record *r; (r = ka__box_next(&jt.worker.down)) != NULL;
         ka__box_take(&jt.worker.down, r)) {
        CHECK(r->kind == KA__REPLY && (r->status == 200 || r->status == 503) &&
              r->reply.seq < jt.known_n, "status %d to %d", r->status, (int)r->reply.seq);
        known *k = &jt.known[r->reply.seq];
        CHECK(!k->given, "answered twice");
        CHECK(r->status == 503 || r->n == KA_KEY_TEXT, "%d bytes", (int)r->n);
        if (r->status == 200) given_check(ka__payload(r), k);
    }
}

static void journal_batch_end(void)
{
    jt.server.sources->batch_end(jt.server.sources);
    answers_read();
    CHECK(jt.j.own->held_n == 0, "an answer is still held");
}

/* Ask for a key: with a commit at once, or with the answer held back. Its place says which is
   meant. */
static void journal_ask(size_t id_n, bool held)
{
    char id[KA_MAX_ID + 1], key[KA_KEY_TEXT];
    unsigned char digest[32], then[32];
    if (jt.known_n >= KNOWN - 1) return;
    if (!held) journal_batch_end();      /* those that were held go first */
    for (size_t i = 0; i <= KA_MAX_ID; i++) id[i] = (char)('a' + (jt.known_n + i) % 26);
    ka_ticket t = { .server = &jt.server, .store = &jt.j.store, .seq = (uint32_t)jt.known_n };
    next_digest(digest);
    known *k = id_n && id_n <= KA_MAX_ID
                   ? known_add(digest, id, id_n,
                               jt.j.keys.ttl_s ? keyring_now_s() + (uint64_t)jt.j.keys.ttl_s + 1
                                               : PLAIN_NEVER)
                   : NULL;
    int r = ka__key_next(jt.server.pool, key, then);
    CHECK(r == KA_OK && memcmp(digest, then, 32) == 0, "another key: %d", r);
    memcpy(t.key, key, sizeof key);
    r = jt.j.store.put(&jt.j.store, digest, (ka_str){ id, id_n }, clock_ms, &t);
    if (!k) {
        CHECK(r == KA_EINVAL, "an ID of %d bytes: %d", (int)id_n, r);
        return;
    }
    CHECK(r == KA_EAGAIN || r == KA_EFULL, "%d", r);
    if (r == KA_EFULL) {
        CHECK(jt.j.keys.count + (size_t)jt.j.own->held_n >= jt.j.keys.max_keys, "not full");
        jt.known_n--;
        return;
    }
    answers_read();      /* KA_BATCH of them don't wait */
    if (held) return;
    journal_batch_end();
    if (!k->given)
        CHECK(!ka_keyring_find(&jt.j.keys, digest, clock_ms).p && (jt.j.error || blocks_failed),
              "refused with %s", ka_error_text(jt.j.error));
}

static void journal_rewrite(void)      /* as ka__journal_ready does when more than half is dead */
{
    int r = ka__journal_rewrite(&jt.j, clock_ms);
    if (r < 0 && jt.j.own->broken) ka__journal_failed(&jt.j, r);
    if (r == KA_OK) CHECK(file_durable() && !file_named(FRESH), "written anew");
}

/* Others remove the file, replace it, cut it or add to it, and nothing else fails: the next key is
   told, and all are there. */
static void journal_mishap(unsigned what)
{
    sim_file *f = file_named(JOURNAL);
    journal_batch_end();      /* now all keys count that were asked for */
    if (jt.known_n >= KNOWN - 1 || (jt.max_keys && jt.j.keys.count >= jt.max_keys)) return;
    if (what == 0) names_next()->of[JOURNAL] = -1;
    if (what == 1) names_next()->of[JOURNAL] = file_new();
    if (what == 2 && f && f->n) f->n = coin(f->n);
    if (what == 3 && f) {
        resize(&f->now, ++f->n);
        resize(&f->dirty, f->n);
    }
    files.fail_n = 0;
    blocks_fail_in = -1;
    clock_ms += 1000000;
    size_t given = jt.known_n;
    journal_ask(9, false);
    CHECK(jt.known_n == given + 1 && jt.known[given].given && file_durable(),
          "mishap %u: no key is told", what);
    read_file(&jt.after, file_named(JOURNAL));
    CHECK(jt.after.damaged == 0 && jt.after.cut == 0 && jt.after.cut_at > 0,
          "mishap %u: the file is not whole", what);
    if (jt.known_n >= KNOWN / 2) return;      /* known_check does not follow so many */
    for (size_t i = 0, at; i < jt.known_n; i++) {
        if (!jt.known[i].given || jt.known[i].low <= keyring_now_s() + 1) continue;
        const unsigned char *digest = jt.known[i].digest;
        for (at = 0; at < jt.after.n && memcmp(jt.after.e[at].digest, digest, 32); at++) {}
        CHECK(at < jt.after.n, "mishap %u: a key was lost", what);
    }
}

static void journal_in_use(void)
{
    ka_journal other;
    ka_journal_report report;
    unsigned failed = files.failed;
    if (!jt.j.own->file.handle) return;
    int r = ka_journal_open(&other, NULL, file_names[JOURNAL], 0, 0, jt.salvage, &report);
    CHECK(r == KA_EINUSE || (r < 0 && (files.failed != failed || blocks_failed)), "another one: %s",
          ka_error_text(r));
    ka_journal_close(&other);
}

UNGUIDED_END

static void journal_happen(input *in)
{
    static const int codes[] = { EIO, ENOSPC, EACCES, EMFILE, EINTR },
                     sleeps[] = { 1, 999, 1000, 1001, 3000, 60000 };
    static const size_t most[] = { SIZE_MAX, 4096, 50, 7 };
    unsigned op = next_byte(in), arg = op >> 4;
    switch (op & 15) {
    case 0: case 1: journal_ask(1 + arg * 2, false); break;
    case 2: journal_ask(next_byte(in) % (KA_MAX_ID + 2), arg & 1); break;
    case 3: case 4:
        for (unsigned n = (op & 15) == 3 ? arg + 1 : arg * 18; n > 0; n--)
            journal_ask(4 + n % 8, true);
        break;
    case 5: case 6: journal_batch_end(); break;
    case 7: case 8:
        files.fail_in = next_byte(in) % 32;
        files.fail_n = (op & 15) == 7 ? 1 : 1 + arg;
        files.fail_code = codes[arg % 5];
        break;
    case 9: clock_ms += sleeps[arg % 6]; break;
    case 10:
        files.coins = next_byte(in) * 77u + arg;
        journal_again(true);
        break;
    case 11: journal_again(false); break;
    case 12:
        if (arg < 12) journal_rewrite();
        else journal_mishap(arg - 12);
        break;
    case 13: files.most = most[arg % 4]; break;
    case 14:
        if (arg < 12) blocks_fail_in = (long)arg;
        else journal_in_use();
        break;
    default:      /* from the next time on */
        jt.ttl_s = arg & 3 ? (int64_t[]){ 1, 5, 100 }[(arg & 3) - 1] : 0;
        if (arg >> 2) jt.wall_steps_ms += (int64_t[]){ -5500, 500, 4000000 }[(arg >> 2) - 1];
    }
}

/* A frame; each of its keys is said by two bytes. */
static void build_frame(bytes *b, input *in, unsigned n, unsigned behind)
{
    static const int64_t ends[] = { 0, 3, 50, -5, 0, 1, 101, 4294967295 };      /* from now on */
    char head[12] = { (char)0xf5, 'k', 'a', 1 }, key[42 + 256];
    uint64_t now_s = (uint64_t)(wall_ms() / 1000);
    size_t from = b->n;
    append(b, head, 12);
    for (unsigned i = 0; i < n && b->n < BUILT; i++) {
        unsigned which = n < 100 ? next_byte(in) : i, size = n < 100 ? next_byte(in) : KA_MAX_ID,
                 wrong = size / 128;
        memset(key, (int)('A' + which % 26), sizeof key);
        size = size % 128 % (KA_MAX_ID + 2);
        put_le(key, 2, size + wrong * (which & 1 ? 1 : 256));
        put_le(key + 2, 8,
               (which >> 5 & 7) == 0 ? 0
               : which == 255        ? UINT64_MAX - 1
                                     : now_s + (uint64_t)ends[which >> 5 & 7] +
                                    ((which >> 5 & 7) == 7 ? which & 3 : 0));
        memset(key + 10, (int)(n < 100 ? which & 31 : which), 32);
        append(b, key, 42 + size);
    }
    for (unsigned i = 0; i < behind; i++) append(b, key, 1);
    put_le(b->p + from + 8, 4, b->n - from - 12);
    put_le(b->p + from + 4, 4, plain_crc((unsigned char *)b->p + from + 8, b->n - from - 8));
}

static void build_part(bytes *b, input *in, size_t *last)
{
    unsigned op = next_byte(in), arg = op >> 4;
    size_t at, n;
    switch (op & 15) {
    case 0: case 1: case 2: case 3:
        *last = b->n;
        build_frame(b, in, (op & 15) == 3 ? 0 : arg & 7, arg & 8 ? next_byte(in) % 50 : 0);
        return;
    case 4:
        n = arg * 16 > in->n ? in->n : arg * 16;
        append(b, in->p, n);
        in->p += n;
        in->n -= n;
        return;
    case 5: resize(b, b->n + next_byte(in)); return;
    case 6: b->n -= b->n < arg * arg + 1 ? b->n : arg * arg + 1; return;
    case 7:
        *last = b->n;
        build_frame(b, in, 250 + arg, 0);
        return;
    default: break;
    }
    if (b->n == 0) return;
    at = (next_byte(in) | next_byte(in) << 8) % b->n;
    n = b->n - at < arg + 1 ? b->n - at : arg + 1;
    if ((op & 15) < 11 && n) b->p[at] = (char)(b->p[at] ^ (1 << (arg & 7)));
    else if ((op & 15) == 11 && b->n > *last + 12) {      /* and its CRC is right again */
        b->p[*last + at % (b->n - *last)] ^= (char)(1 << (arg & 7));
        put_le(b->p + *last + 4, 4, plain_crc((unsigned char *)b->p + *last + 8, b->n - *last - 8));
    } else if ((op & 15) == 12) {                         /* cut out */
        memmove(b->p + at, b->p + at + n, b->n - at - n);
        b->n -= n;
    } else if ((op & 15) > 12) {      /* copied from there on, or all from `last` on */
        char *copy =
            exact(b->p + ((op & 15) == 13 ? at : *last),
                  n = (op & 15) == 13 ? n * 20 > b->n - at ? b->n - at : n * 20 : b->n - *last);
        append(b, copy, n);
        exact_free(copy, n);
    }
}

/* The file that is there in the beginning. */
static void build_file(input *in, unsigned parts, bool raw)
{
    sim_file *f = &files.inodes[names_now()->of[JOURNAL] = file_new()];
    size_t last = 0;
    if (raw) {
        append(&f->now, in->p, in->n);
        in->n = 0;
    } else while (parts-- > 0 && in->n > 0 && f->now.n < BUILT) {
        build_part(&f->now, in, &last);
        if (last > f->now.n) last = f->now.n;
    }
    f->n = f->now.n;
    append(&f->disk, f->now.p, f->n);
    resize(&f->dirty, f->n);
    file_clean(f);
}

UNGUIDED_BEGIN

/* What is opened must be the same when it is opened again, and after a power cut. */
static void target_journal(const char *p, size_t n)
{
    input in = { p, n };
    unsigned setup = next_byte(&in), parts = next_byte(&in);
    sim_begin();
    files_begin();
    jt.known_n = 0;
    memset(&jt.server, 0, sizeof jt.server);
    jt.begun = false;
    jt.server.workers_n = 1;
    jt.server.workers[0] = &jt.worker;
    jt.server.pool = ka__page_new();
    if (ka__box_init(&jt.worker.down, WORKER_BOX) < 0) abort();
    jt.ttl_s = (int64_t[]){ 0, 1, 5, 100 }[setup & 3];
    jt.salvage = setup & 4;
    wall_ahead_ms = setup & 8 ? 500 : 0;
    jt.max_keys = setup & 16 ? 6 : 0;
    files.most = (size_t[]){ SIZE_MAX, SIZE_MAX, 100, 7 }[setup >> 6];
    if (setup & 32 || parts & 15) build_file(&in, parts & 15, setup & 32);
    if (parts & 64) names_now()->of[DAMAGED] = file_new();
    if (parts & 16) {
        files.fail_in = next_byte(&in) % 32;
        files.fail_n = 1 + (parts >> 5 & 1) * 3;
        files.fail_code = parts & 128 ? EINTR : EIO;
    }
    if (journal_open()) {
        journal_again(false);
        while (in.n > 0) journal_happen(&in);
        journal_again(true);
        if (!jt.open) abort();
    }
    journal_close();
    ka__page_free(jt.server.pool);
    ka__box_free(&jt.worker.down);
    sim_end();
}
