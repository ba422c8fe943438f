/* tests/ext_redis.h - ext/redis.h: commands, subscribers, addresses, and what is told of Redis. */

/* What came of commands: their numbers, in the order of the replies. */
static struct { play *p; int n, lost, wrong, further; } replies;

static void redis_replied(ka_redis *r, const void *note, const ka_resp *reply)
{
    char text[KA_REDIS_NOTE + 1] = "";
    memcpy(text, note, KA_REDIS_NOTE);
    int number = atoi(text);
    bool right = r->arg == replies.p && number == replies.n++ &&
                 strspn(text + 12, "K") >= KA_REDIS_NOTE - 12;
    if (!reply) replies.lost++;
    else right = right && reply->kind == KA_RESP_INTEGER && reply->number == number;
    if (!reply)
        right = right && ka_redis_command(&replies.p->r, &(ka_str){ "PING", 4 }, 1, NULL, NULL,
                                          0) == KA_EOFFLINE;
    else if (replies.further-- > 0)
        right = right && ka_redis_command(&replies.p->r, (ka_str[]){ str("FURTHER") }, 1, NULL,
                                          NULL, 0) == KA_OK;
    replies.wrong += !right;
}

/* Send a command with a note of the greatest length; it has a secret. */
static int redis_send(play *p, int number, size_t size)
{
    static char big[KA_REDIS_BYTES + 1];
    char note[KA_REDIS_NOTE];
    memset(note, 'K', sizeof note);
    snprintf(note, 12, "%d", number);
    const ka_str args[] = { str("DO"), { big, size } };
    return ka_redis_command(&p->r, args, 2, redis_replied, note, sizeof note);
}

static void redis_numbers(play *p, int from, int n)
{
    char text[24];
    for (int i = from; i < from + n; i++) {
        snprintf(text, sizeof text, ":%d", i);
        play_step(p, "<DO ", "numbers");
        play_reply(p, text);
    }
    PLAY_UNTIL(p, replies.n == from + n);
    CHECK(replies.n == from + n && replies.wrong == 0 && replies.lost == 0,
          "%d of %d replies, %d wrong, %d lost", replies.n, from + n, replies.wrong, replies.lost);
}

/* As many commands wait as may: the ring begins in its middle, and grows. Then replies bring five
   more. The command at the ring's beginning has the number 10, and `sent` is the next number. */
static int redis_fill(play *p, int sent)
{
    while (p->r.waiting_n < KA_REDIS_WAITING &&
           CHECK(redis_send(p, sent, 0) == KA_OK, "many, %d", sent))
        sent++;
    CHECK(redis_send(p, sent, 0) == KA_ELIMIT, "as many as there may be");
    replies.further = 5;
    redis_numbers(p, 10, sent - 10);
    for (int i = 0; i < 5; i++) {
        play_step(p, "<FURTHER", "from within");
        play_reply(p, "+OK");
    }
    PLAY_UNTIL(p, p->r.waiting_n == 0);
    CHECK(p->r.waiting_n == 0 && p->r.bytes == 0 && p->r.up, "none waits: %d", (int)p->r.waiting_n);
    return sent;
}

/* Limits, the ring, and what becomes of commands that wait. */
static void test_redis_commands(void)
{
    static play p;
    const ka_str none = { NULL, 0 };
    int sent = 0;
    if (!play_start(&p, NULL)) return;
    replies.p = &p;
    replies.n = replies.lost = replies.wrong = replies.further = 0;
    CHECK(redis_send(&p, 0, 0) == KA_EOFFLINE, "not yet");
    play_step(&p, "G", "commands");
    CHECK(ka_redis_command(&p.r, &none, 0, NULL, NULL, 0) == KA_EINVAL, "no command");
    CHECK(ka_redis_command(&p.r, &(ka_str){ "PING", 4 }, 1, NULL, &p, KA_REDIS_NOTE + 1) ==
              KA_EINVAL,
          "too long a note");
    CHECK(redis_send(&p, 0, KA_REDIS_BYTES + 1) == KA_ELIMIT &&
              redis_send(&p, 0, KA_REDIS_BYTES) == KA_ELIMIT,
          "too many bytes at once");
    atomic_store(&allocations_left, 0);
    CHECK(redis_send(&p, 0, 0) == KA_ENOMEM, "no memory for the ring");
    CHECK(redis_send(&p, sent++, 0) == KA_OK, "once there is");
    atomic_store(&allocations_left, 0);
    CHECK(redis_send(&p, sent, 0) == KA_ENOMEM, "no memory for its bytes");
    atomic_store(&allocations_left, -1);
    while (sent < 10) CHECK(redis_send(&p, sent++, 0) == KA_OK, "few");
    redis_numbers(&p, 0, 10);
    sent = redis_fill(&p, sent);
    int secrets = 0;
    for (size_t i = 1; i <= KA_REDIS_WAITING; i++)
        secrets += p.r.waiting[(p.r.first - i) & (p.r.room - 1)].note[12] != 0;
    CHECK(secrets == 0, "%d notes are not wiped", secrets);
    /* bytes that wait */
    const size_t half = KA_REDIS_BYTES / 2 - 64;
    CHECK(redis_send(&p, sent++, half) == KA_OK && redis_send(&p, sent++, half) == KA_OK &&
              redis_send(&p, 0, 128) == KA_ELIMIT,
          "no more bytes");
    play_step(&p, "x", "commands");
    play_step(&p, "-lost", "commands");
    CHECK(replies.n == sent && replies.lost == 2 && replies.wrong == 0 && p.r.bytes == 0 &&
              !p.r.waiting,
          "told that they were lost: %d, %d", replies.lost, replies.wrong);
    play_step(&p, "G", "commands");
    /* one that is refused so that the connection is left; it is no command of the keyring */
    const ka_str move = str("MOVE");
    CHECK(ka_redis_command(&p.r, &move, 1, NULL, NULL, 0) == KA_OK, "one more");
    static const char *const left[] = {
        "<MOVE", ">-MOVED 1 127.0.0.1:1", "-MOVED: it is a cluster's node", "g", "G", ":"
    };
    for (size_t i = 0; i < COUNT(left); i++) play_step(&p, left[i], "refused");
    CHECK(redis_send(&p, sent++, 0) == KA_OK, "one waits");
    play_free(&p);
    CHECK(replies.lost == 3 && replies.wrong == 0, "and is told at the end");
}

static void redis_pushed(ka_redis *r, const ka_resp *message)
{
    play *p = r->arg;
    ka_resp rest = *message, part;
    size_t n = strlen(p->pushed);
    p->pushes++;
    n += (size_t)snprintf(p->pushed + n, sizeof p->pushed - n, "%d%.*s", message->kind,
                          message->kind == KA_RESP_ARRAY ? 0 : (int)message->text.n,
                          message->text.p);
    while (ka_resp_next(&rest, &part))
        n += (size_t)snprintf(p->pushed + n, sizeof p->pushed - n, " %.*s", (int)part.text.n,
                              part.text.p);
    snprintf(p->pushed + n, sizeof p->pushed - n, ";");
}

static void redis_subscribe(ka_redis *r, bool up)
{
    const ka_str args[] = { str("SUBSCRIBE"), str("news") };
    play *p = r->arg;
    if (up) CHECK(ka_redis_command(&p->r, args, 2, redis_replied, NULL, 0) == KA_OK, "from within");
}

/* What is published comes to on_push, and so does each other reply, but PING's. */
static void test_redis_subscriber(void)
{
    static play p;
    if (!play_start(&p, NULL)) return;
    ka_redis_store k;
    p.r.on_push = redis_pushed;
    p.r.on_change = redis_subscribe;
    CHECK(ka_redis_store_init(&k, &p.r, 0) == KA_EINVAL, "no place for keys");
    for (int round = 0; round < 2; round++) {
        p.pushes = 0;
        p.pushed[0] = 0;
        p.own[0] = "+PONG\r\n";
        play_step(&p, "G", "subscriber");
        play_step(&p, "<SUBSCRIBE news", "subscriber");
        play_reply(&p, "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1");
        p.own[0] = "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
        play_say(&p, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n"
                     "-ERR what\r\n"
                     "*2\r\n$4\r\npint\r\n$0\r\n\r\n"
                     "*0\r\n"
                     "+PONG\r\n");
        PLAY_UNTIL(&p, p.pushes == 5);
        CHECK(strcmp(p.pushed, "5 subscribe news 1;5 message news hello;3ERR what;5 pint ;5;") == 0,
              "%s", p.pushed);
        play_step(&p, "p", "subscriber");
        CHECK(p.pushes == 5 && p.r.up && p.r.waiting_n == 0, "PINGs are its own matter: %s",
              p.pushed);
        if (round == 0) play_step(&p, "x", "subscriber");
    }
    play_step(&p, "m", "subscriber");
    play_step(&p, "-says nothing", "subscriber");
    play_free(&p);
}

/* Who has bytes unsent is given KA_STALL_MS; but the connection of a Redis that was given up only
   KA_LINGER_MS, since the next one is not begun before this one's end. */
static void test_redis_unsent(void)
{
    static ka__worker w;
    static const struct { bool outgoing, last; int want; const char *why; } rows[] = {
        { true, true, KA__SENDING_LAST, "given up" }, { true, false, KA__SENDING, "in use" },
        { false, true, KA__SENDING, "who has connected to us" },
    };
    w.free_head = KA__NIL;
    for (int state = 0; state < KA__STATES; state++)
        w.list[state].head = w.list[state].tail = KA__NIL;
    if (!CHECK(ka__poller_init(&w.sleeper.poller) == KA_OK, "a poller")) return;
    ka__address a;
    ka__address_read(&a, "127.0.0.1", 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka__sock s;
        ka__conn *c = ka__conn_place(&w);
        if (!CHECK(c && ka__sock_new(&a, SOCK_STREAM, &s) == KA_OK, "a socket")) break;
        ka__conn_open(&w, c, s, &ka_lines);
        w.outgoing += c->outgoing = rows[i].outgoing;
        c->last = rows[i].last;
        CHECK(ka__keep_unsent(&w, c, "PING", 4) == KA_OK, "bytes unsent");
        ka__conn_settle(&w, c);
        CHECK(c->state == rows[i].want && c->watched == KA__OUT, "%s: state %d", rows[i].why,
              c->state);
        c->told = true;
        ka__conn_close(&w, c);
    }
    ka__free(w.conns);
    ka__poller_free(&w.sleeper.poller);
    memset(&w, 0, sizeof w);
}

/* What the server does: offer an event, or call when a time has come. */
static bool redis_takes(ka_redis *r, ka_event ev) { return r->source.take(&r->source, &ev); }

static void redis_look(ka_redis *r, int64_t now_ms)
{
    ka_event ev = { .now_ms = now_ms };
    CHECK(!r->source.next(&r->source, &ev), "it has no events of its own");
}

/* Its name comes to mean another address, none, or nothing for a while. */
static void test_redis_moves(void)
{
    static play p;
    play_set(&p, NULL);
    strcpy(p.at.host, "moving.test");
    atomic_store(&moving.code, 0);
    atomic_store(&moving.ip, "127.0.0.1");
    if (!CHECK(play_go(&p) == KA_OK, "it starts")) return;
    play_step(&p, "G", "here");
    atomic_store(&moving.ip, "127.0.0.3");
    play_step(&p, "x", "moves");
    play_step(&p, "-offline", "at another address");
    atomic_store(&moving.code, EAI_NONAME);
    play_step(&p, "-there is no such host", "no address");
    atomic_store(&moving.code, EAI_AGAIN);
    play_step(&p, "-the name server, does not answer", "no name server");
    atomic_store(&moving.hangs, true);
    PLAY_UNTIL(&p, p.r.lookups.first);
    p.r.error[0] = 0;
    for (int i = 0; i < KA_MAX_LOOKUPS; i++) {
        p.r.look_ms = ka_now_ms();
        redis_look(&p.r, p.r.look_ms);
        if (i == 0) play_step(&p, "-its name is not found yet", "it hangs");
    }
    play_step(&p, "-out of descriptors", "it hangs for long");
    atomic_store(&moving.hangs, false);
    PLAY_UNTIL(&p, !p.r.lookups.first);
    atomic_store(&moving.ip, "127.0.0.1");
    atomic_store(&moving.code, 0);
    play_step(&p, "G", "back");
    play_free(&p);
}

/* What an error reply says, and nothing that may be a secret. */
static void test_redis_explain(void)
{
    static const struct { const char *reply, *want, *why; } rows[] = {
        { "READONLY You can't write against a read only replica.", "READONLY: it is a replica, or has become one", "known" },
        { "NOAUTH", "NOAUTH: it asks for a password; give it one", "one word" },
        { "BUSYKEY Target key name already exists.", "BUSYKEY: its words are not shown, as they may hold secrets", "a word is whole" },
        { "ERR unknown command 'AUTH', with args beginning with: 'hush' ", "ERR unknown command: is it a Sentinel, or is a command renamed?", "args" },
        { "ERR unknown command `SET`, with args beginning with: `hush`", "ERR unknown command: is it a Sentinel, or is a command renamed?", "of Redis 5" },
        { "ERR unknown subcommand 'hush'", "ERR: its words are not shown, as they may hold secrets", "another one" },
        { "ERR Client sent AUTH, but no password is set", "ERR Client sent AUTH: it has no password; give none", "a comma" },
        { "ERR wrong number of arguments for 'auth' command", "ERR wrong number of arguments for 'auth': it knows no users; give no user", "of Redis 5" },
        { "ERR Error running script (call to f_0): @user_script:1: -OOM command not allowed", "OOM: its memory is full; give it more, or delete keys there", "a script's" },
        { "ERR Error running script (call to f_0): hush", "ERR: its words are not shown, as they may hold secrets", "a script's own" },
        { "ERR Error running script", "ERR: its words are not shown, as they may hold secrets", "no more" },
        { "MOVED 1 127.0.0.1:1", "MOVED: it is a cluster's node, with some keys only; see deploy/shards", "a cluster's" },
        { "ERR Connection refused", "ERR Connection: a shard behind the proxy is down, or hangs", "twemproxy's" },
        { "hush", "an error: its words are not shown, as they may hold secrets", "no word" },
        { "", "an error: its words are not shown, as they may hold secrets", "none" },
        { "E hush", "E: its words are not shown, as they may hold secrets", "one letter" },
        { "HUSH's", "an error: its words are not shown, as they may hold secrets", "half a word" },
        { "READONLYhush", "an error: its words are not shown, as they may hold secrets", "no known word" },
        { "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "an error: its words are not shown, as they may hold secrets", "too long a word" },
        { "\x1b[2J", "an error: its words are not shown, as they may hold secrets", "unprintable" },
    };
    char text[KA_REDIS_ERROR];
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_redis_explain(text, &(ka_resp){ .kind = KA_RESP_ERROR, .text = str(rows[i].reply) });
        CHECK(strcmp(text, rows[i].want) == 0, "%s: \"%s\", not \"%s\"", rows[i].why, text,
              rows[i].want);
    }
    ka_redis_explain(text, &(ka_resp){ .kind = KA_RESP_STRING, .text = str("READONLY") });
    CHECK(strcmp(text, "an unexpected reply") == 0, "no error: %s", text);
    for (size_t i = 0; i < KA__REDIS_REFUSALS; i++)
        CHECK(strlen(ka__redis_refusals[i].begins) + strlen(ka__redis_refusals[i].means) + 3 <=
                  KA_REDIS_ERROR,
              "%s: it fits", ka__redis_refusals[i].begins);
}

static const char redis_long_word[] = PRINTABLE_256 PRINTABLE_256 PRINTABLE_256 PRINTABLE_256
    PRINTABLE_256 PRINTABLE_256 PRINTABLE_256 PRINTABLE_256;

/* want: HOST PORT USER PASSWORD PREFIX; or what is wrong. */
static const struct redis_row { const char *text, *password, *want, *why; } redis_addresses[] = {
    { "127.0.0.1:6379", NULL, "127.0.0.1 6379   keyauth:", "an address" },
    { "redis.example-1_2:1", NULL, "redis.example-1_2 1   keyauth:", "a name" },
    { "a:65535,password=hush", NULL, "a 65535  hush keyauth:", "a password" },
    { "a:1,prefix=", NULL, "a 1   ", "an empty prefix" },
    { "a:1,password=hush,prefix=p:", NULL, "a 1  hush p:", "both" },
    { "a:1,prefix=p:,user=me,password=h@:/u", NULL, "a 1 me h@:/u p:", "all" },
    { "a:1", "hush", "a 1  hush keyauth:", "from the environment" },
    { "a:1,password=hush", "other", "a 1  hush keyauth:", "what is given counts" },
    { "a:1,user=me", "hush", "a 1 me hush keyauth:", "a user with it" },
    { "a:1", "", "a 1   keyauth:", "an empty environment" },
    { "redis://a", NULL, "a 6379   keyauth:", "a URL" },
    { "REDIS://a:1/", NULL, "a 1   keyauth:", "in capitals, with a path" },
    { "redis://a/0", NULL, "a 6379   keyauth:", "database 0" },
    { "redis://:hush@a:1", NULL, "a 1  hush keyauth:", "a URL's password" },
    { "redis://me:hush@a:1,prefix=p", NULL, "a 1 me hush p", "and a user" },
    { "redis://me@a", NULL, "a 6379 me  keyauth:", "a user alone" },
    { "redis://me:@a", "hush", "a 6379 me hush keyauth:", "an empty password" },
    { "redis://@a", NULL, "a 6379   keyauth:", "neither" },
    { "redis://m%40e:h%2fu%25s+%3ah@a", NULL, "a 6379 m@e h/u%s+:h keyauth:", "percent-encoded" },
    { "redis://:h,u@sh@a", NULL, "a 6379  h,u@sh keyauth:", "raw" },
    { "redis://me:a:b@a", NULL, "a 6379 me a:b keyauth:", "a colon in it" },
    { "redis://a,password=hush", NULL, "a 6379  hush keyauth:", "an option of a URL" },
    { "[::1]:6379", NULL, "::1 6379   keyauth:", "IPv6" },
    { "[fe80::1%eth0]:1,password=hush", NULL, "fe80::1%eth0 1  hush keyauth:", "with an interface" },
    { "redis://[::1]", NULL, "::1 6379   keyauth:", "IPv6 in a URL" },
    { "redis://me:hush@[2001:db8::1]:1/0", NULL, "2001:db8::1 1 me hush keyauth:", "all of it" },
    /* what is refused, whose words have nothing of it */
    { "", NULL, "HOST:PORT", "nothing" }, { "hush", NULL, "HOST:PORT", "no port" },
    { "hush:", NULL, "HOST:PORT", "an empty port" }, { ":1", NULL, "HOST:PORT", "no host" },
    { "hush:0", NULL, "HOST:PORT", "port 0" },
    { "hush:65536", NULL, "HOST:PORT", "too great a port" },
    { "hush:1x", NULL, "HOST:PORT", "no number" },
    { "hush:+1", NULL, "HOST:PORT", "a sign" }, { "hush:-1", NULL, "HOST:PORT", "another one" },
    { "a:1,hush", NULL, "HOST:PORT", "no option" },
    { "a:1,password=", NULL, "HOST:PORT", "an empty password" },
    { "a:1,password=hush,x", NULL, "HOST:PORT", "a comma" },
    { "a:1,user=", NULL, "HOST:PORT", "an empty user" },
    { "a:1,prefix=" PRINTABLE_256 "x", NULL, "HOST:PORT", "too long a prefix" },
    { "a:1,password=hush,password=hush", NULL, "twice", "two passwords" },
    { "redis://:hush@a,password=hush", NULL, "twice", "in both places" },
    { "hush@a:1", NULL, "HOST:PORT", "a user in the short form" },
    { "rediss://:hush@a", NULL, "TLS", "TLS" },
    { "RedisS://a", NULL, "TLS", "TLS in capitals" },
    { "unix:///hush", NULL, "HOST:PORT", "another scheme" },
    { "redis://:hush@a:1/1", NULL, "prefix", "another database" },
    { "redis://:hush@a/00", NULL, "prefix", "another name for it" },
    { "redis://:hush@a?db=1", NULL, "prefix", "a query" },
    { "redis://:hush@a#x", NULL, "prefix", "a fragment" },
    { "redis://:hush/x@a", NULL, "prefix", "a slash in the password" },
    { "redis://", NULL, "HOST:PORT", "an empty URL" },
    { "redis://:hush@", NULL, "HOST:PORT", "no host in it" },
    { "redis://:hush@a:", NULL, "HOST:PORT", "no port behind the colon" },
    { "redis://:hush@[::1]x:1", NULL, "HOST:PORT", "between bracket and port" },
    { "[::1]", NULL, "HOST:PORT", "IPv6 without a port" },
    { "[::1:1", NULL, "HOST:PORT", "half a pair of brackets" },
    { "::1:1", NULL, "HOST:PORT", "IPv6 without brackets" },
    { "[]:1", NULL, "HOST:PORT", "nothing in brackets" },
    { "a%b:1", NULL, "HOST:PORT", "% in a name" },
    { "[a@b]:1", NULL, "HOST:PORT", "@ in brackets" },
    { "redis://:hush%@a", NULL, "HOST:PORT", "half an escape" },
    { "redis://hush%00:x@a", NULL, "HOST:PORT", "NUL in a name" },
    { "redis://:hu%00sh@a", NULL, "HOST:PORT", "NUL in a password" },
    { "redis:/a:1", NULL, "HOST:PORT", "half a scheme" },
    { PRINTABLE_256 ":1", NULL, "HOST:PORT", "too long a host" },
    { "a:1", redis_long_word, "environment", "too long a password there" },
    { "a:1,password-file=/nowhere/hush", NULL, "password-file", "no such file" },
    { "a:1,password=hush,password-file=x", NULL, "twice", "a file as well" },
};

/* Where Redis is, as people write it. */
static void test_redis_address(void)
{
    static ka_redis_address a;
    static char said[sizeof a];
    for (size_t i = 0; i < COUNT(redis_addresses); i++) {
        const struct redis_row *row = &redis_addresses[i];
        const char *words = "";
        strcpy(a.prefix, "keyauth:");
        int r = ka_redis_read_address(&a, row->text, row->password, &words);
        bool file = strstr(row->want, "-file") != NULL;
        size_t left = sizeof a;
        while (left > 0 && ((const char *)&a)[left - 1] == 0) left--;
        if (r == KA_OK)
            snprintf(said, sizeof said, "%s %d %s %s %s", a.host, a.port, a.user, a.password,
                     a.prefix);
        else
            CHECK((r == KA_ENOTFOUND) == file && left == 0, "%s: %d, and it is wiped", row->why, r);
        bool good = r == KA_OK ? strcmp(said, row->want) == 0 :
                    strstr(words, row->want) && !strstr(words, "hush");
        CHECK(good, "%s: \"%s\", not \"%s\"", row->why, r == KA_OK ? said : words, row->want);
    }
}

/* The password's file. */
static void test_redis_password_file(void)
{
    static const struct { const char *content, *want, *why; } rows[] = {
        { "hush\n", "hush", "a line" }, { "hush", "hush", "without an end" },
        { "h,u s@h\r\nx\n", "h,u s@h", "the first one" },
        { "", NULL, "empty" }, { "\nhush\n", NULL, "an empty line" }, { "h", "h", "one byte" },
        { "hush, hush, hush, hush, hush", "hush, hush, hush, hush, hush", "longer than its path" },
    };
    static ka_redis_address a;
    char path[64], text[128], longest[KA_REDIS_SECRET + 2];
    memset(longest, 'x', sizeof longest);
    snprintf(path, sizeof path, "test-password-%d", free_port());
    for (size_t i = 0; i <= COUNT(rows); i++) {
        bool known = i < COUNT(rows);
        const char *words, *content = known ? rows[i].content : longest;
        const char *want = known ? rows[i].want : NULL;
        size_t n = known ? strlen(content) : sizeof longest;
        if (!CHECK(ka_file_put(path, content, n) == KA_OK, "a file")) return;
        snprintf(text, sizeof text, "a:1,password-file=%s,prefix=p", path);
        int r = ka_redis_read_address(&a, text, "other", &words);
        CHECK(r == (want ? KA_OK : KA_ENOTFOUND), "%s: %d", known ? rows[i].why : "too long", r);
        if (r != KA_OK) continue;
        CHECK(want && strcmp(a.password, want) == 0 && strcmp(a.prefix, "p") == 0, "%s: %s",
              rows[i].why, a.password);
    }
    ka_file_remove(path);
    if (!CHECK(ka_file_put(path, "hu\0sh\n", 6) == KA_OK, "a file")) return;
    const char *words;
    int r = ka_redis_read_address(&a, text, NULL, &words);
    CHECK(r == KA_ENOTFOUND && !memchr(&a, 'h', sizeof a), "NUL in it: %d", r);
    ka_file_remove(path);
}

/* Events that come when nobody thinks of them any more, or not at all. */
static void test_redis_events(void)
{
    static play p;
    ka_redis_address nowhere = { .port = 1 };
    ka_redis bad = { .at = &nowhere };
    const uint64_t tag = (uintptr_t)&p.r;
    if (!play_start(&p, NULL)) return;
    CHECK(ka_redis_start(&bad, p.s) == KA_EINVAL && !bad.server, "no address");
    strcpy(nowhere.host, "127.0.0.1");
    nowhere.port = 0;
    CHECK(ka_redis_start(&bad, p.s) == KA_EINVAL, "no port");
    ka_redis_free(&bad);
    play_step(&p, "G", "events");
    const ka_event others[] = {
        { .kind = KA_TIMER, .tag = tag }, { .kind = KA_OPENED, .tag = tag, .listener = 0 },
        { .kind = KA_OPENED, .tag = tag + 1, .listener = -1 },
        { .kind = KA_MESSAGE, .conn = p.r.conn + 1 }, { .kind = KA_CLOSED, .conn = p.r.conn + 1 },
        { .kind = KA_REQUEST, .conn = p.r.conn + 1 }, { .kind = KA_LISTENING },
    };
    for (size_t i = 0; i < COUNT(others); i++)
        CHECK(!redis_takes(&p.r, others[i]) && p.r.up, "another's, %d", (int)i);
    ka_event second = { .kind = KA_OPENED, .tag = tag, .listener = -1, .conn = p.r.conn + 1 };
    CHECK(redis_takes(&p.r, second) && p.r.up, "a second one is closed");
    second = (ka_event){ .kind = KA_OPENED, .tag = tag, .listener = -1, .error = KA_ETIME };
    CHECK(redis_takes(&p.r, second) && p.r.up, "or has failed");
    p.r.state = KA__REDIS_ENDING;
    const size_t waiting = p.r.waiting_n;
    const int64_t look_ms = p.r.look_ms;
    redis_look(&p.r, look_ms);
    CHECK(p.r.waiting_n == waiting && p.r.look_ms > look_ms, "closed, but not ended yet: it waits");
    p.r.state = KA__REDIS_UP;
    /* what came of a connection is not told: it tries another one */
    play_step(&p, "x", "events");
    PLAY_UNTIL(&p, p.r.state == KA__REDIS_CONNECTING);
    int64_t due = p.r.look_ms;
    CHECK(p.r.source.due_ms == due, "it is due then");
    p.r.source.due_ms = 0;               /* as ka_wake does */
    redis_look(&p.r, due - 1);
    CHECK(p.r.look_ms == due && p.r.source.due_ms == due, "too early for that");
    redis_look(&p.r, due);
    CHECK(p.r.look_ms > due && p.r.source.due_ms == p.r.look_ms, "it tries another one");
    ka_stop(p.s);
    redis_look(&p.r, p.r.look_ms);
    CHECK(p.r.look_ms == INT64_MAX, "no further one after ka_stop");
    play_free(&p);
}

static void test_redis_store(void)
{
    static play p;
    ka_redis_store k;
    ka_redis subscribes = { .on_push = redis_pushed };
    CHECK(ka_redis_store_init(&k, &subscribes, 0) == KA_EINVAL, "no place for keys");
    CHECK(ka_redis_store_init(&k, &p.r, -1) == KA_EINVAL, "no time to live");
    CHECK(ka_redis_store_init(&k, &p.r, INT64_MAX) == KA_EINVAL, "too long a time");
    CHECK(ka_redis_store_init(&k, &p.r, (int64_t)100 * 366 * 86400) == KA_OK && p.r.writes,
          "as long as may be");
}

/* What is told of a store's Redis, each thing once. */
static void test_redis_news(void)
{
    static const struct {
        bool up;
        const char *error, *write_error, *policy;
        int64_t ttl;
        const char *want, *why;
    } rows[] = {
        { false, "", "", "", 0, NULL, "not tried yet" },
        { true, "", "", "noeviction", 0, NULL, "it is there" },
        { false, "lost", "", "noeviction", 0,
          "Redis at a:1 is down: lost; keys are refused with try_later until it is back", "lost" },
        { false, "lost", "", "noeviction", 0, NULL, "still lost" },
        { false, "", "", "noeviction", 0, NULL, "nothing is known of it" },
        { true, "", "", "noeviction", 0, "Redis at a:1 is back", "back" },
        { true, "", "OOM", "noeviction", 0,
          "Redis at a:1 refuses: OOM; what it refuses is answered try_later", "full" },
        { false, "", "OOM", "noeviction", 0, NULL, "left for that" },
        { true, "", "", "volatile-lru", 0, "Redis at a:1 is back", "back, with another policy" },
        { true, "", "", "volatile-lru", 0, NULL, "keys without an end are not evicted" },
        { true, "", "", "", 0, NULL, "an unknown policy" },
        { true, "", "", "volatile-lru", 9,
          "Redis at a:1 may evict keys, since its maxmemory-policy is volatile-lru: their logins are then wrong_key; set it to noeviction",
          "keys with one" },
        { true, "", "", "volatile-lru", 9, NULL, "that was told" },
        { true, "", "", "allkeys-lru", 0,
          "Redis at a:1 may evict keys, since its maxmemory-policy is allkeys-lru: their logins are then wrong_key; set it to noeviction",
          "all keys" },
    };
    static const ka_redis_address at = { .host = "a", .port = 1 };
    static ka_redis r = { .at = &at };
    static ka_redis_store st, fresh;
    char out[KA_REDIS_TEXT];
    if (!CHECK(ka_redis_store_init(&st, &r, 0) == KA_OK, "a store")) return;
    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK(ka_redis_store_init(&fresh, &r, rows[i].ttl) == KA_OK, "its time to live");
        memcpy(st.ttl, fresh.ttl, sizeof st.ttl);
        r.up = rows[i].up;
        strcpy(r.error, rows[i].error);
        strcpy(r.write_error, rows[i].write_error);
        strcpy(r.policy, rows[i].policy);
        const char *news = ka_redis_news(out, &st);
        CHECK(!news == !rows[i].want && (!news || strcmp(news, rows[i].want) == 0), "%s: \"%s\"",
              rows[i].why, news ? news : "");
    }
}

static const subject ext_redis_topics[] = {
    { "redis commands", test_redis_commands }, { "redis subscriber", test_redis_subscriber },
    { "redis unsent", test_redis_unsent }, { "redis moves", test_redis_moves },
    { "redis explain", test_redis_explain }, { "redis address", test_redis_address },
    { "redis password file", test_redis_password_file }, { "redis events", test_redis_events },
    { "redis store", test_redis_store }, { "redis news", test_redis_news },
};
