/* tests/ext_redis_plays.h - ext/redis.h and a Redis that is played, by scripts (play.h). */

static const struct {
    const char *why, *password, *prefix;
    int ttl;
    bool slow;
    const char *steps[26];
} plays[] = {
    /* greetings */
    { "no password", NULL, "", 0, false, { "a", "<PING", ">+PONG", "+" } },
    { "a password", "open sesame", "", 0, false,
      { "a", "<AUTH open sesame", "<PING", ">+OK", ">+PONG", "+" } },
    { "a password is needed", NULL, "", 0, false,
      { "a", "<PING", ">-NOAUTH Authentication required.",
        "-NOAUTH: it asks for a password; give it one", "g", "a", "<PING", ">+PONG", "+" } },
    { "a user", "alice:hush", "", 0, false,
      { "a", "<AUTH alice hush", "<PING", ">+OK", ">+PONG", "+" } },
    { "a user without a password", "alice:", "", 0, false,
      { "a", "<AUTH alice ", "<PING", ">+OK", ">+PONG", "+" } },
    { "a wrong password", "guess", "", 0, false,
      { "a", "<AUTH guess", "<PING", ">-WRONGPASS invalid", ">-NOAUTH Authentication required.",
        "-WRONGPASS: it does not know this user with this password", "g", "a" } },
    { "right, but", "guess", "", 0, false,
      { "a", "<AUTH guess", "<PING", ">+OK", ">-LOADING it",
        "-LOADING: it is still loading its data", "g", "a", "<AUTH guess", "<PING", ">+OK",
        ">+PONG", "+" } },
    { "loading, loading, there", NULL, "", 0, false,
      { "a", "<PING", ">-LOADING 1", "-LOADING", "g", "a", "<PING", ">-LOADING 2", "-LOADING", "g",
        "G", ":" } },
    { "unprintable words", NULL, "", 0, false,
      { "a", "<PING", ">-a\tb\x1b\xc3\xa9",
        "-an error: its words are not shown, as they may hold secrets", "g" } },
    { "long words", NULL, "", 0, false,
      { "a", "<PING", ">-" PRINTABLE_256,
        "-an error: its words are not shown, as they may hold secrets", "g" } },
    { "no PONG", NULL, "", 0, false, { "a", "<PING", ">+OK", "-greet", "g" } },
    { "no string", NULL, "", 0, false, { "a", "<PING", ">:1", "-greet", "g" } },
    { "nil", NULL, "", 0, false, { "a", "<PING", ">$-1", "-greet", "g" } },
    { "another protocol", NULL, "", 0, false,
      { "a", "<PING", "!HTTP/1.1 400 Bad Request\r\n", "-malformed", "g", "G" } },
    { "closed before it greets", NULL, "", 0, false, { "a", "<PING", "x", "-lost", "G" } },
    { "not there yet", NULL, "", 0, false,
      { "d", "-offline", "?ask_key=me", "=503 try_later", "?login=KEY", "=503 try_later",
        "?login=abc", "=403 wrong_key", "l", "G", "?ask_key=me", "<SET # me NX", ">+OK",
        "=200 KEY" } },
    { "not there for long", NULL, "", 0, true, { "d", "w", "-offline", "l", "G" } },
    { "silent in the greeting", NULL, "", 0, true,
      { "a", "<PING", "m", "-says nothing", "M", "g", "G" } },
    /* when it is up */
    { "looked after", NULL, "", 0, true, { "G", "p", "+" } },
    { "lost, and there again", NULL, "", 0, false, { "G", "x", "-lost", "G", "x", "-lost", "G" } },
    { "gone, and there again", NULL, "", 0, false, { "G", "d", "-offline", "l", "G" } },
    { "falls silent", NULL, "", 0, true,
      { "G", "?ask_key=me", "<SET # me NX", "m", "=503 try_later", "-says nothing", "?ask_key=me",
        "=503 try_later", "M", "g", "G" } },
    { "garbage", NULL, "", 0, false, { "G", "!*1\r\nx\r\n", "-malformed", "g", "G" } },
    { "a reply that nobody waits for", NULL, "", 0, false,
      { "G", "Pnoeviction", "!+OK\r\n", "-to nothing", "g", "G" } },
    { "a reply that is too long", NULL, "", 0, false,
      { "G",
        "!$1600\r\n" PRINTABLE_256 PRINTABLE_256 PRINTABLE_256 PRINTABLE_256 PRINTABLE_256
            PRINTABLE_256 PRINTABLE_256,
        "-over KA_MAX_BODY", "g", "G" } },
    /* keys */
    { "a key", NULL, "keyauth:", 0, false,
      { "G", "?ask_key=me", "<SET # me NX", ">+OK", "=200 KEY", "?login=KEY", "<GET #", ">$2\r\nme",
        "=200 me" } },
    { "with a time to live", NULL, PRINTABLE_256, 100, false,
      { "G", "?ask_key=%61%20b", "<SET # a b NX EX 100", ">+OK", "=200 KEY", "?login=KEY", "<GET #",
        ">$-1", "=403 wrong_key" } },
    { "the longest ID", NULL, "p", 0, false,
      { "G", "?ask_key=" PRINTABLE_256, "<SET # " PRINTABLE_256 " NX", ">+OK", "=200 KEY",
        "?login=KEY", "<GET #", ">$256\r\n" PRINTABLE_256, "=200 " PRINTABLE_256 } },
    { "it exists", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", ">$-1", "=503 try_later" } },
    { "it is not kept", NULL, "p", 0, false,
      { "S-OOM no\r\n", "G", "?ask_key=a", "<SET # a NX", ">-OOM command not allowed",
        "=503 try_later", "+", ":OOM: its memory is full; give it more, or delete keys there",
        "S$-1\r\n", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", ":" } },
    { "hangs up", NULL, "p", 0, false,
      { "a", "<PING", "x", "-lost before a greeting, as by a TLS port", "G", "x", "-was lost", "G",
        ":" } },
    { "neither", NULL, "p", 0, false,
      { "S:1\r\n", "G", "?ask_key=a", "<SET # a NX", ">:1", "=503 try_later",
        ":an unexpected reply", "x", "-lost", "S$-1\r\n", "G", ":" } },
    { "room again", NULL, "p", 0, true,
      { "S-OOM no\r\n", "G", ":OOM: its memory is full; give it more, or delete keys there",
        "S$-1\r\n", ":" } },
    { "whose, an error", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", "?login=KEY", "<GET #", ">-WRONGTYPE",
        "=503 try_later",
        ":WRONGTYPE: another program has a key of this name; choose another prefix", "?login=KEY",
        "<GET #", ">$1\r\na", "=200 a", ":" } },
    { "neither kept nor found", NULL, "p", 0, false,
      { "S-NOPERM SET\r\n", "G", ":NOPERM: its ACL forbids a command or a key; see docs/redis.md",
        "?login=KEY", "<GET #", ">-WRONGTYPE", "=503 try_later",
        ":NOPERM: its ACL forbids a command or a key; see docs/redis.md", "?login=KEY", "<GET #",
        ">$-1", "=403 wrong_key",
        ":NOPERM: its ACL forbids a command or a key; see docs/redis.md" } },
    { "whose, no string", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", "?login=KEY", "<GET #", ">*0",
        "=503 try_later", ":what it has at a key is no ID; choose another prefix" } },
    { "nobody's", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", "?login=KEY", "<GET #", ">$0\r\n",
        "=503 try_later" } },
    { "no ID", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", "?login=KEY", "<GET #", ">$2\r\na\n",
        "=503 try_later" } },
    { "too long for an ID", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", "?login=KEY", "<GET #",
        ">$257\r\n" PRINTABLE_256 "x", "=503 try_later" } },
    /* what it refuses */
    { "a replica serves what it has", NULL, "p", 0, true,
      { "T1000", "S-READONLY no\r\n", "G", ":READONLY: it is a replica, or has become one",
        "?login=KEY", "<GET #", ">$2\r\nme", "=200 me", "?login=KEY", "<GET #", ">$-1",
        "=503 try_later", "?ask_key=a", "<SET # a NX", ">-READONLY no", "=503 try_later", "g",
        "S$-1\r\n", "G", ":", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY" } },
    { "a master that becomes one", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", "S-READONLY no\r\n", "?ask_key=a",
        "<SET # a NX", ">-READONLY no", "=503 try_later", "g", "S$-1\r\n", "G", ":", "?ask_key=a",
        "<SET # a NX", ">+OK", "=200 KEY", "?login=KEY", "<GET #", ">$-1", "=403 wrong_key" } },
    { "a replica since a moment ago", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", "S-READONLY no\r\n", "?login=KEY",
        "<GET #", ">$-1", "=503 try_later", "g" } },
    { "its key is there", NULL, "p", 0, true,
      { "S+OK\r\n", "G", ":", "?login=KEY", "<GET #", ">$-1", "=403 wrong_key", ":" } },
    { "lost before a login's reply", NULL, "p", 0, false,
      { "G", "?login=KEY", "<GET #", "x", "=503 try_later", "-lost", "G", ":" } },
    { "lost after a key was missed", NULL, "p", 0, false,
      { "G", "S", "?login=KEY", "<GET #", ">$-1", "x", "=503 try_later" } },
    { "nobody writes", NULL, "p", 0, true,
      { "G", "S-READONLY no\r\n", "g", "S$-1\r\n", "G", ":" } },
    { "it becomes the master", NULL, "p", 0, true,
      { "T1000", "S-READONLY no\r\n", "G", ":READONLY: it is a replica, or has become one",
        "S$-1\r\n", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", ":", "p", "p", "+",
        "?login=KEY", "<GET #", ">$-1", "=403 wrong_key" } },
    { "a replica for long", NULL, "p", 0, true,
      { "S-READONLY no\r\n", "G", "g", "a", "<PING", ">+PONG",
        ":READONLY: it is a replica, or has become one", "g", "a", "<PING", ">+PONG", "T1500", "w",
        "g" } },
    { "cut off", NULL, "p", 0, false,
      { "T100", "S-NOREPLICAS no\r\n", "G", ":NOREPLICAS: it has lost its replicas", "g",
        "S$-1\r\n", "G", ":" } },
    { "lost its master", NULL, "p", 0, false,
      { "G", "?login=KEY", "<GET #", ">-MASTERDOWN Link", "=503 try_later",
        "-MASTERDOWN: it is a replica that has lost its master", "g", "G", ":" } },
    { "its users were changed", NULL, "p", 0, false,
      { "G", "?login=KEY", "<GET #", ">-NOAUTH Authentication", "=503 try_later", "-NOAUTH", "g",
        "G", ":" } },
    { "what it echoes", NULL, "p", 0, false,
      { "S-ERR unknown command 'SET', with args beginning with: 'pmaster?' 'hush'\r\n", "G",
        ":ERR unknown command: is it a Sentinel, or is a command renamed?" } },
    { "its policy", NULL, "p", 0, false, { "G", "Pnoeviction" } },
    { "no policy", NULL, "p", 0, false,
      { "C-NOPERM\r\n", "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY", "P" } },
    { "its policy by INFO", NULL, "p", 0, false,
      { "C-ERR unknown command\r\n",
        "I$49\r\n# Memory\r\na:1\r\nmaxmemory_policy:allkeys-lru\r\nb:2\r\r\n", "G",
        "Pallkeys-lru" } },
    { "a policy that is not to be asked for", NULL, "p", 0, false,
      { "C", "G", "x", "-lost", "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY" } },
    { "no such policy", NULL, "p", 0, false,
      { "C*2\r\n$1\r\na\r\n$9\r\nlru\x1b[2Jxx\r\n", "G", "Plru" } },
    { "malformed, so nobody asks", NULL, "p", 0, false,
      { "G", "?login=abc", "=403 wrong_key", "?login=", "=400 wrong_query", "?ask_key=%0a",
        "=400 wrong_query", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY" } },
    { "in order", NULL, "p", 0, false,
      { "G", "?ask_key=a", "?login=abc", "?ask_key=b", "?ask_key=c", "<SET # a NX", ">$-1",
        "<SET # b NX", ">+OK", "=503 try_later", "=403 wrong_key", "=200 KEY", "<SET # c NX",
        ">+OK", "=200 KEY" } },
    { "lost with some that wait", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", "?ask_key=b", "<SET # b NX", "!+O", "x", "=503 try_later",
        "=503 try_later", "-malformed", "G", "?ask_key=a", "<SET # a NX", ">+OK", "=200 KEY" } },
    { "stopped with one that waits", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", "s", ">+OK", "=200 KEY", "g", "e" } },
    { "stopped while it is away", NULL, "p", 0, false,
      { "d", "-offline", "s", "ethe server is offline" } },
    { "stopped, and lost then", NULL, "p", 0, false,
      { "G", "?ask_key=a", "<SET # a NX", "s", "x", "=503 try_later", "e" } },
};

/* One that refuses, and closes before it would be left, is tried again no earlier than one that
   only closes. */
static void test_redis_closes(void)
{
    static const char *const steps[] = { "S-READONLY no\r\n", "G",
                                         ":READONLY: it is a replica, or has become one", "x" };
    enum { ROUNDS = 3, WAITS_MS = (1 + 2 + 4) * KA_REDIS_RETRY_MS };
    static play p;
    if (!play_start(&p, NULL) || !CHECK(ka_redis_store_init(&p.keys, &p.r, 0) == KA_OK, "keys"))
        return;
    int64_t begun = ka_now_ms();
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < COUNT(steps); i++) play_step(&p, steps[i], "closes");
    play_step(&p, "a", "closes");
    int64_t took = ka_now_ms() - begun;
    CHECK(took >= WAITS_MS, "%d attempts after %d ms", ROUNDS + 1, (int)took);
    play_free(&p);
}

static void play_row(size_t row, bool bytewise)
{
    static play p;
    long before = atomic_load(&blocks_live);
    if (play_start(&p, plays[row].password) &&
        CHECK(ka_redis_store_init(&p.keys, &p.r, plays[row].ttl) == KA_OK, "keys")) {
        strcpy(p.at.prefix, plays[row].prefix);
        p.bytewise = bytewise;
        for (size_t i = 0;
             i < COUNT(plays[row].steps) && plays[row].steps[i] && *plays[row].steps[i]; i++)
            play_step(&p, plays[row].steps[i], plays[row].why);
    }
    play_free(&p);
    CHECK(atomic_load(&blocks_live) == before, "%s: a leak", plays[row].why);
}

static void test_redis(void)
{
    for (size_t i = 0; i < COUNT(plays); i++) {
        play_row(i, false);
        if (!plays[i].slow) play_row(i, true);
    }
}

static const subject ext_redis_plays_topics[] = {
    { "redis closes", test_redis_closes }, { "redis", test_redis },
};
