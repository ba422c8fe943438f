/* tests/keyring.h - section 7 of keyauth.h: the store in memory, and the protocol. */

static ka_server no_workers;      /* a server without workers: what is replied is dropped */

/* A fresh key for an ID. */
static int key_issue(ka_store *st, ka_str id, int64_t now_ms, char key[KA_KEY_TEXT])
{
    const ka_ticket t = { .server = &no_workers, .store = st };
    unsigned char digest[32];
    int r = ka__key_new(key, digest);
    return r == KA_OK ? st->put(st, digest, id, now_ms, &t) : r;
}

/* The ID of a key; {NULL, 0}: there is none. */
static ka_str key_find(ka_store *st, ka_str key, int64_t now_ms)
{
    unsigned char digest[32];
    ka_str id = { NULL, 0 };
    int r = ka__key_digest(digest, key);
    if (r == KA_OK) r = st->get(st, digest, now_ms, NULL, &id);
    return r == KA_OK ? id : (ka_str){ NULL, 0 };
}

static void test_keyring(void)
{
    ka_keyring k;
    char key[KA_KEY_TEXT], other[KA_KEY_TEXT], fourth[KA_KEY_TEXT];
    CHECK(ka_keyring_init(&k, 0, -1) == KA_EINVAL && ka_keyring_init(&k, 0, INT64_MAX) == KA_EINVAL,
          "a time to live out of range");
    ka_keyring_free(&k);
    if (!CHECK(ka_keyring_init(&k, 3, 10) == KA_OK, "init")) return;
    CHECK(key_find(&k.store, (ka_str){ key, 0 }, 0).p == NULL, "nothing in it");
    CHECK(ka_auth(&no_workers, &k.store, &(ka_event){ .kind = KA_OPENED }) == KA_EINVAL,
          "no request");
    CHECK(key_issue(&k.store, str(""), 5, key) == KA_EINVAL, "an empty ID");
    CHECK(key_issue(&k.store, str("one"), 1000, key) == KA_OK &&
              ka_is(key_find(&k.store, (ka_str){ key, sizeof key }, 1000), "one"),
          "its ID comes back");
    CHECK(key_issue(&k.store, str("one"), 1000, other) == KA_OK &&
              memcmp(key, other, sizeof key) != 0,
          "another key for the same ID");
    CHECK(ka_is(key_find(&k.store, (ka_str){ key, sizeof key }, 1000), "one"),
          "and the first stays good");
    for (size_t i = 0; i < sizeof key; i++) {
        char changed[KA_KEY_TEXT];
        memcpy(changed, key, sizeof key);
        changed[i] = changed[i] == 'A' ? 'B' : 'A';
        if (key_find(&k.store, (ka_str){ changed, sizeof changed }, 1000).p)
            CHECK(false, "found with character %d changed", (int)i);
    }
    CHECK(key_find(&k.store, (ka_str){ key, sizeof key - 1 }, 1000).p == NULL, "a key cut short");
    CHECK(key_issue(&k.store, str("three"), 2000, other) == KA_OK &&
              key_issue(&k.store, str("four"), 2000, fourth) == KA_EFULL && k.count == 3,
          "full: nothing is evicted");
    CHECK(key_find(&k.store, (ka_str){ key, sizeof key }, 10999).p &&
              !key_find(&k.store, (ka_str){ key, sizeof key }, 12000).p,
          "good for 10 s, and over within 11");
    CHECK(key_issue(&k.store, str("four"), 12500, other) == KA_OK && k.count == 2,
          "the expired make room: %d", (int)k.count);
    ka_keyring_free(&k);
    ka_keyring_free(&k);
}

/* Grow and shrink a ring over several segments; every key that is not over must be found. */
static void test_keyring_growth(void)
{
    enum { KEYS = 12000, LIVE = 4000 };
    ka_keyring k;
    char (*keys)[KA_KEY_TEXT] = malloc((size_t)KEYS * KA_KEY_TEXT), id[300];
    long before = atomic_load(&blocks_live);
    if (!keys || !CHECK(ka_keyring_init(&k, KEYS, LIVE) == KA_OK, "init")) abort();
    int lost = 0, ghosts = 0;
    for (int i = 0; i < KEYS; i++) {          /* one a second */
        int n = snprintf(id, sizeof id, "%0*d", 1 + i % 256 < 6 ? 6 : 1 + i % 256, i);
        if (key_issue(&k.store, (ka_str){ id, (size_t)n }, 1 + i * 1000LL, keys[i]) != KA_OK)
            lost++;
    }
    CHECK(lost == 0 && k.count == LIVE + 1,
          "12000 issued, one a second, each good for 4000 s: %d failed, %d there", lost,
          (int)k.count);
    CHECK(k.segments_n < KEYS * 170 / KA__SEGMENT_BYTES + 2,
          "the log's front is freed: %d segments", (int)k.segments_n);
    for (int i = 0; i < KEYS; i++) {
        int n = snprintf(id, sizeof id, "%0*d", 1 + i % 256 < 6 ? 6 : 1 + i % 256, i);
        ka_str got = key_find(&k.store, (ka_str){ keys[i], KA_KEY_TEXT }, 1 + (KEYS - 1) * 1000LL);
        bool live = i >= KEYS - LIVE - 1;
        if (live && !(got.n == (size_t)n && memcmp(got.p, id, got.n) == 0)) lost++;
        if (!live && got.p) ghosts++;
    }
    CHECK(lost == 0 && ghosts == 0, "%d live keys lost, %d expired ones found", lost, ghosts);
    ka_keyring_free(&k);
    CHECK(atomic_load(&blocks_live) == before, "all freed");
    free(keys);
}

/* What stores use that have a keyring within. */
static void test_keyring_within(void)
{
    static unsigned char digests[3][32];
    const int64_t ends[] = { -500, 1001, INT64_MAX };
    const char *const ids[] = { "over", "soon", "ever" };
    ka_keyring k;
    ka_key key;
    uint64_t place = 0;
    if (!CHECK(ka_keyring_init(&k, 3, 0) == KA_OK, "init")) return;
    k.epoch_ms = 1000;
    CHECK(!ka_keyring_next(&k, &place, &key), "empty");
    for (int i = 0; i < 3; i++) {
        digests[i][0] = (unsigned char)i;
        CHECK(ka_keyring_add(&k, digests[i], str(ids[i]), ends[i]) == KA_OK, "key %d", i);
    }
    CHECK(ka_keyring_add(&k, digests[2], str("other"), 5000) == KA_OK && k.count == 3 &&
          ka_is(ka_keyring_find(&k, digests[2], 9000), "ever"), "one that is there stays as it is");
    for (int i = 0; i < 3; i++) {
        const int64_t rounded[] = { 1000, 2000, INT64_MAX };
        CHECK(ka_keyring_next(&k, &place, &key) && ka_is(key.id, ids[i]) &&
                  key.end_ms == rounded[i] && memcmp(key.digest, digests[i], 32) == 0,
              "in order, %d: %lld", i, (long long)key.end_ms);
    }
    CHECK(!ka_keyring_next(&k, &place, &key), "and no more");
    CHECK(ka_keyring_room(&k, 0, 0) == KA_OK && k.count == 2,
          "what ended before the epoch is over");
    CHECK(ka_is(ka_keyring_find(&k, digests[1], 1999), "soon") &&
          !ka_keyring_find(&k, digests[1], 2000).p && ka_keyring_room(&k, 1999, 1) == KA_EFULL &&
          ka_keyring_room(&k, 2000, 1) == KA_OK, "an end is rounded up");
    ka_keyring_free(&k);
}

static void test_keyring_out_of_memory(void)
{
    char key[KA_KEY_TEXT];
    int refusals = 0;
    for (long nth = 0; ; nth++) {
        ka_keyring k;
        long before = atomic_load(&blocks_live);
        atomic_store(&allocations_left, nth);
        int r = ka_keyring_init(&k, 0, 0);
        if (r == KA_OK) r = key_issue(&k.store, str("id"), 1, key);
        bool done = atomic_exchange(&allocations_left, -1) >= 0;
        if (r < 0) refusals++;
        if (r < 0 && r != KA_ENOMEM) CHECK(false, "allocation %d fails: got %d", (int)nth, r);
        if (r < 0 && k.shards && key_issue(&k.store, str("id"), 1, key) != KA_OK)
            CHECK(false, "it works again after allocation %d failed", (int)nth);
        ka_keyring_free(&k);
        if (atomic_load(&blocks_live) != before)
            CHECK(false, "a leak after allocation %d failed", (int)nth);
        if (done) break;
    }
    CHECK(refusals == 4, "each of the 4 allocations failed once: %d", refusals);
}

/* Each pool begins with random bytes, and goes on with others. */
static void test_keyring_pool(void)
{
    enum { POOLS = 3, EACH = 200, KEYS = POOLS * EACH };
    static char keys[KEYS][KA_KEY_TEXT];
    unsigned char digest[32];
    int same = 0;
    for (int i = 0; i < KEYS; ) {
        struct ka__pool *pool = ka__page_new();
        for (int n = 0; n < EACH; n++, i++)
            if (ka__key_next(pool, keys[i], digest) != KA_OK) abort();
        ka__page_free(pool);
    }
    for (int i = 0; i < KEYS; i++)
        for (int j = 0; j < i; j++) same += memcmp(keys[i], keys[j], KA_KEY_TEXT) == 0;
    CHECK(same == 0, "%d keys were made twice", same);
}

/* Random bytes are fetched for several keys at a time: a child must not give out its parent's next
   key. */
static void test_keyring_fork(void)
{
#if defined(_WIN32)
    skip("keyring fork", "Windows has no fork");
#else
    enum { KEYS = 40 };
    unsigned char digest[32];
    char first[KA_KEY_TEXT], mine[KEYS][KA_KEY_TEXT], theirs[KEYS][KA_KEY_TEXT];
    int ends[2], same = 0;
    struct ka__pool *pool = ka__page_new();
    if (ka__key_next(pool, first, digest) < 0 || pipe(ends) != 0) abort();
    pid_t child = fork();
    for (int i = 0; i < KEYS; i++)
        if (ka__key_next(pool, mine[i], digest) != KA_OK) memset(mine[i], 'x', KA_KEY_TEXT);
    if (child == 0) _exit(write(ends[1], mine, sizeof mine) == (ssize_t)sizeof mine ? 0 : 1);
    CHECK(child > 0 && read(ends[0], theirs, sizeof theirs) == (ssize_t)sizeof theirs &&
              waitpid(child, NULL, 0) == child,
          "the child made keys");
    for (int i = 0; i < KEYS; i++)
        for (int j = 0; j < KEYS; j++)
            same += memcmp(mine[i], theirs[j], KA_KEY_TEXT) == 0 ||
                    (i != j && memcmp(mine[i], mine[j], KA_KEY_TEXT) == 0);
    CHECK(same == 0, "%d keys were made twice", same);
    close(ends[0]);
    close(ends[1]);
    ka__page_free(pool);
#endif
}

/* What ka_auth says: its status, and its text of *n bytes. 0: the store answers later. */
static int auth_answer(ka_server *server, ka_store *store, const ka_event *ev, char text[KA_MAX_ID],
                       size_t *n)
{
    ka_ticket t = ka__ticket_of(server, store, ev);
    ka_str said = { NULL, 0 };
    int status = ka__auth_answer(&t, ev, &said);
    if (status) memcpy(text, said.p, said.n);
    *n = status ? said.n : 0;
    return status;
}

static const struct protocol_row {
    const char *method, *body;
    int error, status;
    const char *text, *why;
} protocol_rows[] = {
    { "POST", "ask_key=me", 0, 200, NULL, "a key" },
    { "POST", "ask_key=a+b/c==", 0, 200, NULL, "base64 as it is" },
    { "POST", "ask_key=%61%20%7e", 0, 200, NULL, "percent-encoded, a space is printable" },
    { "POST", "ask_key=" PRINTABLE_256, 0, 200, NULL, "256 bytes" },
    { "POST", "ask_key=" PRINTABLE_256 "x", 0, 400, "wrong_query", "257 bytes" },
    { "POST", "ask_key=", 0, 400, "wrong_query", "empty" },
    { "POST", "ask_key", 0, 400, "wrong_query", "no value" },
    { "POST", "", 0, 400, "wrong_query", "no field" },
    { "POST", "ask_key=a\n", 0, 400, "wrong_query", "newline" },
    { "POST", "ask_key=%0a", 0, 400, "wrong_query", "newline, encoded" },
    { "POST", "ask_key=%7f", 0, 400, "wrong_query", "DEL" },
    { "POST", "ask_key=\xc3\xa9", 0, 400, "wrong_query", "not ASCII" },
    { "POST", "ask_key=%4", 0, 400, "wrong_query", "bad escape" },
    { "POST", "ask_key=a&ask_key=a", 0, 400, "wrong_query", "twice" },
    { "POST", "ask_key=a&login=b", 0, 400, "wrong_query", "both" },
    { "POST", "ask_key=a&x=y", 0, 400, "wrong_query", "another beside it" },
    { "POST", "x=y&ask_key=a", 0, 400, "wrong_query", "another before it" },
    { "POST", "ask_key=a&", 0, 400, "wrong_query", "an ampersand at the end" },
    { "POST", "Ask_key=a", 0, 400, "wrong_query", "case" },
    { "POST", "foo=a", 0, 400, "wrong_query", "another field" },
    { "POST", "login=", 0, 400, "wrong_query", "empty" },
    { "POST", "login=abc", 0, 403, "wrong_key", "malformed" },
    { "POST", "login=%zz", 0, 403, "wrong_key", "bad escape: malformed" },
    { "POST",
      "login=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
      0, 403, "wrong_key", "unknown" },
    { "GET", "ask_key=a", 0, 405, "wrong_query", "method" },
    { "post", "ask_key=a", 0, 405, "wrong_query", "case of the method" },
    { "", "", 413, 413, "wrong_query", "refused by the worker" },
};

static void test_protocol(void)
{
    ka_keyring k;
    char out[KA_MAX_ID], again[KA_MAX_ID], body[512];
    if (!CHECK(ka_keyring_init(&k, 0, 0) == KA_OK, "init")) return;
    for (size_t i = 0; i < COUNT(protocol_rows); i++) {
        const struct protocol_row *row = &protocol_rows[i];
        ka_event ev = { .kind = KA_REQUEST,
                        .status = row->error,
                        .now_ms = 1,
                        .method = str(row->method),
                        .body = str(row->body) };
        size_t n = 0;
        int status = auth_answer(&no_workers, &k.store, &ev, out, &n);
        bool text = row->text ? n == strlen(row->text) && memcmp(out, row->text, n) == 0
                              : n == KA_KEY_TEXT;
        if (!CHECK(status == row->status && text, "%.30s (%s): got %d %.*s", row->body, row->why,
                   status, (int)n, out))
            continue;
        if (status != 200) continue;
        /* log in with it, as it is and percent-encoded: the ID comes back as it was given */
        char id[KA_MAX_ID];
        ptrdiff_t id_n = ka_percent_decode(id, sizeof id, str(row->body + 8));
        int used = snprintf(body, sizeof body, "login=%.*s%%%02X%%%02X", (int)n - 2, out,
                            out[n - 2], out[n - 1]);
        ev.body = (ka_str){ body, (size_t)used };
        status = auth_answer(&no_workers, &k.store, &ev, again, &n);
        CHECK(status == 200 && n == (size_t)id_n && memcmp(again, id, n) == 0,
              "%.30s: login got %d %.*s", row->body, status, (int)n, again);
    }
    ka_keyring_free(&k);
}

/* No page gets a key, unless the store says that it is one of the server's own. */
static void test_protocol_pages(void)
{
    static const struct { const char *host, *fields, *hosts; int status; bool asks; } pages[] = {
        { "127.0.0.2:9999", "Origin: http://keys.example\r\n", NULL, 403, true },
        { "keys.example", "Origin: http://keys.example\r\n", NULL, 403, true },
        { "127.0.0.2:9999", "Origin: http://127.0.0.2:9999\r\n", NULL, 200, true },
        { "127.0.0.2:9999", "Origin: http://127.0.0.2:9999\r\n", NULL, 403, false },
        { "keys.example", "Origin: http://keys.example\r\n", "keys.example", 200, true },
        { "keys.example", "Origin: http://keys.example\r\n", "keys.example", 403, false },
    };
    ka_keyring k;
    char out[KA_MAX_ID];
    size_t before = 0;
    if (!CHECK(ka_keyring_init(&k, 0, 0) == KA_OK, "init")) return;
    for (size_t i = 0; i < COUNT(pages); i++) {
        ka_event ev = { .kind = KA_REQUEST, .now_ms = 1, .method = str("POST"),
                        .body = str("ask_key=a"), .browser = true,
                        .host = str(pages[i].host), .fields = str(pages[i].fields) };
        size_t n = 0;
        k.store.page = pages[i].asks ? ka_own_page : NULL;
        k.store.hosts = pages[i].hosts;
        int status = auth_answer(&no_workers, &k.store, &ev, out, &n);
        bool refused = ka_is((ka_str){ out, n }, "wrong_query");
        before += status == 200;
        CHECK(status == pages[i].status && refused == (status == 403) && k.count == before,
              "whose page, %d: %d %.*s", (int)i, status, (int)n, out);
    }
    ka_keyring_free(&k);
}

static const subject keyring_topics[] = {
    { "keyring", test_keyring }, { "keyring growth", test_keyring_growth },
    { "keyring within", test_keyring_within },
    { "keyring out of memory", test_keyring_out_of_memory }, { "keyring pool", test_keyring_pool },
    { "keyring fork", test_keyring_fork }, { "keyring pool", test_keyring_pool },
    { "protocol", test_protocol }, { "protocol, pages", test_protocol_pages },
};
