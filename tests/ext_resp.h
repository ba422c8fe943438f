/* tests/ext_resp.h - RESP, of ext/redis.h. */

/* As it is sent, and what it is, by resp_told. */
static const struct { const char *in; size_t in_n; const char *says, *why; } resp_good[] = {
    { BYTES("+OK\r\n"), "'OK'", "a simple string" },
    { BYTES("+\r\n"), "''", "an empty one" },
    { BYTES("+ $1 \xff\t\r\n"), "' $1 \xff\t'", "any bytes but CR and LF" },
    { BYTES("-ERR no\r\n"), "!ERR no", "an error" },
    { BYTES("-\r\n"), "!", "an empty one" },
    { BYTES(":0\r\n"), "0", "an integer" },
    { BYTES(":-1\r\n"), "-1", "a negative one" },
    { BYTES(":+1\r\n"), "1", "with a plus" },
    { BYTES(":9223372036854775807\r\n"), "9223372036854775807", "the largest" },
    { BYTES(":-9223372036854775808\r\n"), "-9223372036854775808", "the least" },
    { BYTES("$0\r\n\r\n"), "''", "an empty bulk string" },
    { BYTES("$5\r\nhello\r\n"), "'hello'", "a bulk string" },
    { BYTES("$2\r\n\r\n\r\n"), "'\r\n'", "a line's end in it" },
    { BYTES("$11\r\n*1\r\n$-1\r\n:1\r\n"), "'*1\r\n$-1\r\n:1'", "what looks like values in it" },
    { BYTES("$-1\r\n"), "nil", "no string" },
    { BYTES("*-1\r\n"), "nil", "no array" },
    { BYTES("*0\r\n"), "[]", "an empty array" },
    { BYTES("*1\r\n*-1\r\n"), "[nil]", "an array of no array" },
    { BYTES("*6\r\n+a\r\n-b\r\n:3\r\n$1\r\nc\r\n$-1\r\n*0\r\n"), "['a' !b 3 'c' nil []]", "one of each kind" },
    { BYTES("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"), "['message' 'c' 'hi']", "what is published" },
    { BYTES("*2\r\n*2\r\n*1\r\n:1\r\n*-1\r\n*0\r\n"), "[[[1] nil] []]", "arrays within arrays" },
    { BYTES("*11\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n:7\r\n:8\r\n:9\r\n:10\r\n:11\r\n"), "[1 2 3 4 5 6 7 8 9 10 11]", "a length of two digits" },
};

/* What can't be read, and what its connection says of it. */
static const struct { const char *in; size_t in_n; int status; const char *why; } resp_bad[] = {
    { BYTES("x\r\n"), 400, "no such kind" },
    { BYTES("PING\r\n"), 400, "words" },
    { BYTES("\r\n"), 400, "an empty line" },
    { BYTES(" +OK\r\n"), 400, "white space" },
    { BYTES("\0\r\n"), 400, "a NUL" },
    { BYTES("+a\rb\r\n"), 400, "a CR in a simple string" },
    { BYTES("+a\nb\r\n"), 400, "an LF in it" },
    { BYTES("+a\r\r\n"), 400, "two CRs" },
    { BYTES("-a\rb\r\n"), 400, "a CR in an error" },
    { BYTES(":\r\n"), 400, "no digit" },
    { BYTES(":-\r\n"), 400, "a sign alone" },
    { BYTES(":1a\r\n"), 400, "something behind the digits" },
    { BYTES(": 1\r\n"), 400, "white space before them" },
    { BYTES(":--1\r\n"), 400, "two signs" },
    { BYTES(":1.0\r\n"), 400, "a fraction" },
    { BYTES(":1\n\n"), 400, "LF alone" },
    { BYTES(":9223372036854775808\r\n"), 400, "one over the largest" },
    { BYTES(":-9223372036854775809\r\n"), 400, "one below the least" },
    { BYTES(":18446744073709551617\r\n"), 400, "over 64 bits" },
    { BYTES("$\r\n"), 400, "no length" },
    { BYTES("$a\r\n"), 400, "not a digit" },
    { BYTES("$-2\r\n"), 400, "a negative length" },
    { BYTES("$-\r\n"), 400, "a sign alone" },
    { BYTES("$-11\r\n"), 400, "another negative one" },
    { BYTES("$-0\r\n\r\n"), 400, "minus nothing" },
    { BYTES("$+1\r\na\r\n"), 400, "a plus" },
    { BYTES("$01\r\na\r\n"), 400, "a leading zero" },
    { BYTES("$00\r\n\r\n"), 400, "two zeros" },
    { BYTES("$1\ra\r\n"), 400, "a CR without its LF behind the length" },
    { BYTES("$1\na\r\n"), 400, "an LF alone" },
    { BYTES("$1\r\nab\r\n"), 400, "longer than told" },
    { BYTES("$1\r\na\rb"), 400, "a CR without its LF at the end" },
    { BYTES("$1\r\na\n\n"), 400, "an LF alone at the end" },
    { BYTES("$4294967297\r\na\r\n"), 400, "a length over 32 bits" },
    { BYTES("$18446744073709551617\r\na\r\n"), 400, "a length over 64 bits" },
    { BYTES("*\r\n"), 400, "no number of elements" },
    { BYTES("*a\r\n"), 400, "not a digit" },
    { BYTES("*-2\r\n"), 400, "a negative number of elements" },
    { BYTES("*+1\r\n:1\r\n"), 400, "a plus" },
    { BYTES("*01\r\n:1\r\n"), 400, "a leading zero" },
    { BYTES("*18446744073709551617\r\n:1\r\n"), 400, "a number of elements over 64 bits" },
    { BYTES("*2\r\n:1\r\nx\r\n"), 400, "no such kind of element" },
    { BYTES("*1\r\n$1\r\nab\r\n"), 400, "an element longer than told" },
    { BYTES("*1\r\n*1\r\n$-2\r\n"), 400, "an element of an element" },
    { BYTES("$-01\r\n"), 400, "minus one, with a leading zero" },
    { BYTES("*2147483648\r\n:1\r\n"), 400, "more elements than 31 bits" },
};

/* 'string', !error, 7, nil, [elements]; ? for elements that an array should have. */
static size_t resp_told(const ka_resp *v, char *out, size_t cap)
{
    int n = (int)v->text.n;
    if (v->kind != KA_RESP_ARRAY)
        return (size_t)(v->kind == KA_RESP_STRING  ? snprintf(out, cap, "'%.*s'", n, v->text.p)
                        : v->kind == KA_RESP_ERROR ? snprintf(out, cap, "!%.*s", n, v->text.p)
                        : v->kind == KA_RESP_INTEGER
                            ? snprintf(out, cap, "%lld", (long long)v->number)
                            : snprintf(out, cap, v->kind == KA_RESP_NIL ? "nil" : "none"));
    ka_resp rest = *v, element;
    size_t at = (size_t)snprintf(out, cap, "[");
    int64_t left = v->number;
    for (; ka_resp_next(&rest, &element); left--) {
        if (left < v->number) at += (size_t)snprintf(out + at, cap - at, " ");
        at += resp_told(&element, out + at, cap - at);
    }
    return at + (size_t)snprintf(out + at, cap - at, left ? "?]" : "]");
}

/* Read a copy that ends where its block ends. */
static void resp_says(ka_str in, const char *want, const char *why)
{
    char *copy = exact(in.p, in.n), says[256];
    ka_resp v = { 0 };
    int r = ka_resp_read(&v, (ka_str){ copy, in.n });
    if (!want)
        CHECK(r == KA_ESYNTAX && v.kind == 0, "%s, %d bytes: %d, kind %d", why, (int)in.n, r,
              v.kind);
    else {
        if (r == KA_OK) resp_told(&v, says, sizeof says);
        CHECK(r == KA_OK && strcmp(says, want) == 0, "%s: %d, %s", why, r, r == KA_OK ? says : "");
    }
    free(copy);
}

static void test_resp(void)
{
    for (size_t i = 0; i < COUNT(resp_good); i++) {
        char longer[80];
        ka_str in = { resp_good[i].in, resp_good[i].in_n };
        resp_says(in, resp_good[i].says, resp_good[i].why);
        for (size_t n = 0; n < in.n; n++) resp_says((ka_str){ in.p, n }, NULL, resp_good[i].why);
        for (const char *more = "\r\n+$*:0"; *more; more++) {
            memcpy(longer, in.p, in.n);
            longer[in.n] = *more;
            resp_says((ka_str){ longer, in.n + 1 }, NULL, resp_good[i].why);
        }
    }
    for (size_t i = 0; i < COUNT(resp_bad); i++)
        resp_says((ka_str){ resp_bad[i].in, resp_bad[i].in_n }, NULL, resp_bad[i].why);
}

/* Elements: all of them, and no more of what has none. */
static void test_resp_elements(void)
{
    ka_resp v, element = { 0 };
    CHECK(ka_resp_read(&v, str("*2\r\n:1\r\n*1\r\n+x\r\n")) == KA_OK && v.number == 2 &&
              ka_is(v.text, ":1\r\n*1\r\n+x\r\n"),
          "two, as they were sent");
    CHECK(ka_resp_next(&v, &element) && element.kind == KA_RESP_INTEGER && element.number == 1 &&
              ka_is(element.text, "1"),
          "the first");
    CHECK(ka_resp_next(&v, &element) && element.kind == KA_RESP_ARRAY && element.number == 1 &&
              ka_is(element.text, "+x\r\n"),
          "the second");
    CHECK(!ka_resp_next(&v, &element) && !ka_resp_next(&v, &element), "no more");
    static const char *const none[] = { "+a\r\n",  "-a\r\n",  ":1\r\n", "$1\r\na\r\n",
                                        "$-1\r\n", "*-1\r\n", "*0\r\n" };
    for (size_t i = 0; i < COUNT(none); i++)
        CHECK(ka_resp_read(&v, str(none[i])) == KA_OK && !ka_resp_next(&v, &element), "%s has none",
              none[i]);
    CHECK(!ka_resp_next(&(ka_resp){ 0 }, &element), "nor has what wasn't read");
    CHECK(ka_resp_read(&v, (ka_str){ NULL, 0 }) == KA_ESYNTAX && v.kind == 0,
          "nothing is no value, and no pointer to reckon with");
    CHECK(ka_resp_read(&v, (ka_str){ "+OK\r\n", (size_t)INT32_MAX + 1 }) == KA_ESYNTAX &&
              v.kind == 0,
          "over 2 GiB nothing is looked at");
}

/* Room for a command: each byte less is too little, and what was written reads as it was told. */
static void resp_commands(const ka_str *args, size_t n)
{
    static char whole[4096];
    ptrdiff_t all = ka_resp_command(whole, sizeof whole, args, n);
    if (!CHECK(all > 0, "a command of %d: %d", (int)n, (int)all)) return;
    for (size_t cap = 0; cap <= (size_t)all + 1; cap++) {
        char *out = malloc(cap ? cap : 1);
        if (!out) abort();
        ptrdiff_t r = ka_resp_command(out, cap, args, n);
        if (r != (cap < (size_t)all ? KA_ENOSPC : all) ||
            (r > 0 && memcmp(out, whole, (size_t)r) != 0))
            CHECK(false, "room for %d of %d: %d", (int)cap, (int)all, (int)r);
        free(out);
    }
    ka_resp v, element;
    CHECK(ka_resp_read(&v, (ka_str){ whole, (size_t)all }) == KA_OK && v.kind == KA_RESP_ARRAY &&
              v.number == (int64_t)n,
          "%d arguments", (int)n);
    for (size_t i = 0; i < n; i++)
        CHECK(ka_resp_next(&v, &element) && element.kind == KA_RESP_STRING &&
                  element.text.n == args[i].n &&
                  (args[i].n == 0 || memcmp(element.text.p, args[i].p, args[i].n) == 0),
              "argument %d of %d bytes", (int)i, (int)args[i].n);
    CHECK(!ka_resp_next(&v, &element), "and no other");
}

static void test_resp_command(void)
{
    static char bytes[1200];
    ka_str args[12];
    char out[64];
    ka_str set[] = { str("SET"), { BYTES("a\0\r\n") }, { NULL, 0 } };
    CHECK(ka_resp_command(out, sizeof out, set, 3) == 29 &&
              memcmp(out, "*3\r\n$3\r\nSET\r\n$4\r\na\0\r\n\r\n$0\r\n\r\n", 29) == 0,
          "an array of bulk strings");
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)i;
    /* The length has one digit more at 10, 100 and 1000. */
    for (size_t n = 0; n < sizeof bytes;
         n += n < 12 ? 1 : n < 90 ? 78 : n < 110 ? 5 : 445) {
        args[0] = (ka_str){ bytes, n };
        resp_commands(args, 1);
    }
    for (size_t n = 2; n <= COUNT(args); n++) {
        for (size_t i = 0; i < n; i++) args[i] = (ka_str){ bytes + i, i * 7 % 13 };
        resp_commands(args, n);
    }
}

/* RESP on a connection: what is good comes as it was sent, and what isn't ends it. */
static void test_resp_messages(void)
{
    static char all[4096], want[4096];
    size_t all_n = 0, want_n = 0;
    fixture f;
    int runs = 0;
    if (!fixture_start(&f, RESP, 2)) return;
    for (size_t row = 0; row < COUNT(resp_good); row++) {
        ka_str in = { resp_good[row].in, resp_good[row].in_n };
        memcpy(all + all_n, in.p, in.n);
        memcpy(want + want_n, in.p, in.n);
        memcpy(want + want_n + in.n, ";bye;", 5);
        dialogue e = { in, { want + want_n, in.n + 5 }, resp_good[row].why, false };
        runs += dialogues_run(&f, &e, 1);
        for (e.in.n = 1, e.want = str("400;"), e.why = "the end in it"; e.in.n < in.n;
             e.in.n += 3, runs++)
            dialogue_run(&f, e, e.in.n, e.in.n);
        all_n += in.n;
        want_n += in.n + 1;
    }
    memcpy(want + want_n, "bye;", 4);
    dialogue many = { { all, all_n }, { want, want_n + 4 }, "many", false };
    for (size_t piece = 1; piece <= all_n; piece = piece * 3 + 1, runs++)
        dialogue_run(&f, many, piece, piece);
    for (size_t row = 0; row < COUNT(resp_bad); row++)
        for (int behind = 0; behind < 2; behind++) {      /* the first message, and the second */
            all_n = (size_t)snprintf(all, sizeof all, "%s", behind ? ":1\r\n" : "");
            memcpy(all + all_n, resp_bad[row].in, resp_bad[row].in_n);
            want_n = (size_t)snprintf(want, sizeof want, "%s%d;", behind ? ":1\r\n;" : "",
                                      resp_bad[row].status);
            dialogue e = {
                { all, all_n + resp_bad[row].in_n }, { want, want_n }, resp_bad[row].why, false
            };
            runs += dialogues_run(&f, &e, 1);
        }
    all_closed(&f, runs);
    fixture_stop(&f);
}

/* KA_MAX_BODY and its neighbours, whatever a value is made of. */
static void test_resp_long(void)
{
    enum { M = KA_MAX_BODY };
    static char in[2 * M + 64], want[2 * M + 64];
    fixture f;
    int runs = 0;
    if (!fixture_start(&f, RESP, 1)) return;
    for (int form = 0; form < 4; form++)
        for (size_t n = M - 1; n <= M + 9; n = n < M + 2 ? n + 1 : n + 7) {      /* bytes in all */
            static const char *const starts[] = { "+", "$%d\r\n", "*2\r\n:1\r\n$%d\r\n",
                                                  "*1\r\n*1\r\n-" };
            char start[64];
            int start_n = snprintf(start, sizeof start, starts[form], (int)n);
            start_n = snprintf(start, sizeof start, starts[form], (int)n - start_n - 2);
            memset(in, 'x', n);
            memcpy(in, start, (size_t)start_n);
            memcpy(in + n - 2, "\r\n", 2);
            memcpy(want, in, n);
            memcpy(want + n, ";bye;", 5);
            dialogue e = {
                { in, n }, n <= M ? (ka_str){ want, n + 5 } : str("413;"), start, false
            };
            dialogue_run(&f, e, n, n);
            dialogue_run(&f, e, 7, 7);
            dialogue_run(&f, e, M - 2, 1);
            runs += 3;
        }
    all_closed(&f, runs);
    /* Elements that fit, and more of them than that. */
    size_t n = (size_t)snprintf(in, sizeof in, "*700\r\n");
    while (n + 4 <= M + 4) n += (size_t)snprintf(in + n, sizeof in - n, ":%d\r\n", (int)(n % 10));
    dialogue_run(&f, (dialogue){ { in, n }, str("413;"), "too many elements", false }, n, n);
    dialogue_run(&f, (dialogue)GIVES("*2\r\n:1\r\n", "400;", "too few elements, and the end"), 1,
                 1);
    for (n = 0; n + 8 <= M; n += 4) memcpy(in + n, "*1\r\n", 4);
    memcpy(in + n, ":1\r\n", 4);
    memcpy(want, in, n + 4);
    memcpy(want + n + 4, ";bye;", 5);
    dialogue deep = { { in, n + 4 }, { want, n + 9 }, "as deep as can be", false };
    dialogue_run(&f, deep, n + 4, n + 4);
    dialogue_run(&f, deep, 1, 1);
    static wire slow;
    wire_open(&slow, atomic_load(&f.port));
    wire_text(&slow, "+OK\r\n$5\r\nhel");
    CHECK(wire_ends(&slow, HELLO + 6 + 4, "+OK\r\n;408;", 10) && wire_more(&slow) == 0,
          "an unfinished one is 408, and closed");
    wire_close(&slow);
    all_closed(&f, runs + 5);
    fixture_stop(&f);
}

/* The first value in front of some bytes, as ka_resp_read sees it; 0: none. No value begins another
   one. */
static size_t resp_first(const char *p, size_t n)
{
    size_t first = 0;
    ka_resp v;
    for (size_t i = 1; i <= n; i++) {
        if (ka_resp_read(&v, (ka_str){ p, i }) < 0) continue;
        if (first)
            CHECK(false, "a value of %d bytes in one of %d: %.*s", (int)first, (int)i, (int)i, p);
        else first = i;
    }
    return first;
}

/* Values with a few other bytes in them: the connection and ka_resp_read agree on what is one. */
static void test_resp_agree(void)
{
    enum { RUNS = 1500 };
    static const char bytes[] = "+-:$*0129\r\nx";
    fixture f;
    uint32_t seed = 7;
    char in[256], want[600];
    if (!fixture_start(&f, RESP, 1)) return;
    for (int run = 0; run < RUNS; run += alike()) {
        size_t n = 0, want_n = 0, at = 0, took;
        for (int i = 0; i < 2; i++) {
            size_t row = (next_random(&seed) >> 16) % COUNT(resp_good);
            memcpy(in + n, resp_good[row].in, resp_good[row].in_n);
            n += resp_good[row].in_n;
        }
        for (uint32_t i = next_random(&seed) >> 16 & 3; i > 0; i--) {
            size_t where = (next_random(&seed) >> 16) % n;
            uint32_t how = next_random(&seed) >> 16 & 3;
            if (how == 0) memmove(in + where, in + where + 1, --n - where);
            else if (how == 1) memmove(in + where + 1, in + where, n++ - where);
            if (how) in[where] = bytes[(next_random(&seed) >> 16) % (sizeof bytes - 1)];
        }
        for (; (took = resp_first(in + at, n - at)) > 0; at += took) {
            memcpy(want + want_n, in + at, took);
            want_n += took;
            want[want_n++] = ';';
        }
        want_n += (size_t)snprintf(want + want_n, sizeof want - want_n, at == n ? "bye;" : "400;");
        static wire w;
        if (!wire_open(&w, atomic_load(&f.port))) break;
        wire_send(&w, in, n);
        ka__sock_end(w.sock);
        while (wire_more(&w) > 0) {}
        /* The end is bye; or 413; */
        bool same = w.n == HELLO + want_n && memcmp(w.buf + HELLO, want, want_n - 4) == 0 &&
                    (at < n || memcmp(w.buf + w.n - 4, "bye;", 4) == 0);
        if (!same)
            CHECK(false, "run %d: \"%.*s\": got \"%.*s\", not \"%.*s\"", run, (int)n, in,
                  (int)(w.n < HELLO ? 0 : w.n - HELLO), w.buf + HELLO, (int)want_n, want);
        wire_close(&w);
    }
    all_closed(&f, (RUNS - 1) / alike() + 1);
    fixture_stop(&f);
}

static const subject ext_resp_topics[] = {
    { "resp", test_resp }, { "resp elements", test_resp_elements },
    { "resp command", test_resp_command }, { "resp messages", test_resp_messages },
    { "resp long", test_resp_long }, { "resp agree", test_resp_agree },
};
