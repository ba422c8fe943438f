/* tests/secrets.h - no key is left in memory that is given back: it may be swapped out, or be in a
   core dump. */

#if defined(__GLIBC__)
/* ka_auth on a stack of its own, which can be looked at afterwards. */
static struct { ka_server *s; ka_store *st; ka_event ev; } secret_call;
static _Alignas(4096) char secret_stack[1 << 20];

static void *secret_auth(void *none)
{
    volatile char room[1 << 14];      /* the end of the thread writes here, and not below */
    room[0] = 0;
    ka_auth(secret_call.s, secret_call.st, &secret_call.ev);
    room[sizeof room - 1] = 0;
    return none;
}

static void secret_auth_run(void)
{
    pthread_t thread;
    pthread_attr_t own;
    if (pthread_attr_init(&own) != 0 ||
        pthread_attr_setstack(&own, secret_stack, sizeof secret_stack) != 0 ||
        pthread_create(&thread, &own, secret_auth, NULL) != 0 || pthread_join(thread, NULL) != 0)
        abort();
    pthread_attr_destroy(&own);
}

/* Ask for a key or log in, by a request that comes in two pieces, so that the worker has to keep
   the first. The parent is this thread. */
static bool secret_ask(wire *w, ka_server *s, ka_store *st, const char *form, const char *value,
                       char body[KA_MAX_ID])
{
    char text[600];
    ka_event *ev = &secret_call.ev;
    int n = snprintf(text, sizeof text, form, value);
    if (!wire_send(w, text, (size_t)n - 20)) return false;
    ka_sleep_ms(20);
    if (!wire_send(w, text + n - 20, 20) || !next_event(s, ev, KA_REQUEST)) return false;
    secret_call.s = s;
    secret_call.st = st;
    secret_auth_run();
    return ka_wait(s, ev, 0) == KA_ETIME && wire_answer(w, body, KA_MAX_ID, NULL, false) == 200;
}

/* Does a mailbox still have it, whose records were all read? */
static bool secret_in(const ka__box *b, const char *key)
{
    while (atomic_load(&b->tail) != atomic_load(&b->head)) ka_sleep_ms(1);
    return memmem(b->mem, b->size, key, 40) != NULL;
}

static void test_secrets(void)
{
    static const char *const forms[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 94\r\n\r\nlogin=%s",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5e\r\nlogin=%s\r\n0\r\n\r\n",
    };
    if (emulator_lacks("valgrind", "valgrind tells of the blocks' bytes that nobody wrote, "
                                   "which are looked at"))
        return;
    for (size_t i = 0; i <= COUNT(forms); i++) {      /* the last time nobody logs in */
        static wire w;
        static char key[KA_MAX_ID], id[KA_MAX_ID];
        ka_server *s;
        ka_keyring keys;
        int port;
        if (ka_keyring_init(&keys, 0, 0) < 0 || !parent_start(&s, 1, NULL, &port) ||
            !wire_open(&w, port))
            abort();
        bool asked = secret_ask(&w, s, &keys.store, "POST / HTTP/1.1\r\nHost: a\r\n"
                                "Content-Length: 10\r\n\r\nask_key=%s", "me", key);
        CHECK(asked && strlen(key) == KA_KEY_TEXT, "a key: \"%s\"", key);
        bool asks = memmem(secret_stack, sizeof secret_stack, key + 8, 40) != NULL;
        secrets_left = 0;
        atomic_store(&secret, key + 8);
        for (int k = 0; k < 2 && i < COUNT(forms); k++)
            CHECK(secret_ask(&w, s, &keys.store, forms[i], key, id) && strcmp(id, "me") == 0,
                  "logged in: \"%s\"", id);
        bool logs_in = memmem(secret_stack, sizeof secret_stack, key + 8, 40) != NULL;
        CHECK(!asks && !logs_in, "it is on the stack: %d, %d", asks, logs_in);
        wire_close(&w);
        bool up = secret_in(&s->workers[0]->up, key + 8),
             down = secret_in(&s->workers[0]->down, key + 8);
        ka_server_free(s);
        ka_keyring_free(&keys);
        atomic_store(&secret, NULL);
        CHECK(secrets_left == 0 && !up && !down,
              "round %d: it is in %d blocks; in the mailboxes: %d, %d", (int)i, secrets_left, up,
              down);
    }
}

/* Of a mailbox that is freed with records which were read, published or only written. */
static void test_secrets_unread(void)
{
    static const char key[] = "a secret that has forty characters, and more";
    for (int published = 0; published <= 8; published++) {
        ka__box b;
        if (!CHECK(ka__box_init(&b, 1024) == KA_OK, "init")) return;
        memset(b.mem, 0, b.size);
        for (int i = 0; i < 12; i++) {      /* around the ring's end */
            ka__record *r = ka__box_put(&b, KA_REQUEST, sizeof key);
            memcpy(ka__payload(r), key, sizeof key);
            if (i < 4 + published) ka__box_publish(&b);
            if (i < 4) ka__box_take(&b, ka__box_next(&b));
        }
        secrets_left = 0;
        atomic_store(&secret, key);
        ka__box_free(&b);
        atomic_store(&secret, NULL);
        CHECK(secrets_left == 0, "%d of 8 were published: it is in the mailbox", published);
    }
}

/* The client's own memory is static here, so it is looked at. */
static void test_secrets_client(void)
{
    static ka_client c;
    fixture f;
    ka_str answer;
    if (!fixture_start(&f, ECHO, 1)) return;
    c.ip = "127.0.0.1";
    c.port = atomic_load(&f.port);
    CHECK(ka_client_post(&c, "login=secret", 12, &answer) == 200 &&
              memmem(c.buf, sizeof c.buf, "secret", 6),
          "the server sends it back");
    ka_client_close(&c);
    CHECK(!memmem(c.buf, sizeof c.buf, "secret", 6), "it is wiped");
    fixture_stop(&f);
}
#else
static void test_secrets(void) { skip(topic, "only glibc tells how large a block is"); }
static void test_secrets_unread(void) { skip(topic, "only glibc tells how large a block is"); }
static void test_secrets_client(void) { skip(topic, "memmem(3) is missing"); }
#endif

static const subject secrets_topics[] = {
    { "secrets", test_secrets }, { "secrets, client", test_secrets_client },
    { "secrets, unread", test_secrets_unread },
};
