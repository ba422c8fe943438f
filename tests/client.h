/* tests/client.h - section 8 of keyauth.h. */

static int misses_seen, delays_wrong;

static void count_miss(void *arg, int misses, int delay_ms, int error)
{
    const int *wanted = arg;      /* the errors, in their order; NULL: offline */
    misses_seen++;
    if (misses != misses_seen || delay_ms != 100 + 5 * (misses - 1) ||
        error != (wanted ? wanted[misses - 1] : KA_EOFFLINE))
        delays_wrong++;
}

static void test_retries(void)
{
    static ka_client c;
    ka_str answer;
    c.ip = "127.0.0.1";
    c.port = free_port();
    c.until_ms = ka_now_ms() + 1500;
    c.on_miss = count_miss;
    misses_seen = delays_wrong = 0;
    int64_t start = ka_now_ms(), pid;
    CHECK(ka_client_post(&c, "x", 1, &answer) == KA_EOFFLINE, "gives up");
    int64_t took = ka_now_ms() - start, waits = 0;
    for (int i = 0; i < misses_seen; i++) waits += 100 + 5 * i;
    CHECK(misses_seen >= 2 && misses_seen <= 11 && delays_wrong == 0,
          "%d misses, %d of them not 100, 105, 110, ...", misses_seen, delays_wrong);
    CHECK(took >= waits - misses_seen, "it waited %d ms of %d", (int)took, (int)waits);
    CHECK(ka_client_kill_server(&c, &pid) == KA_EOFFLINE && pid == 0, "nobody to kill");
    c.ip = "localhost";
    CHECK(ka_client_post(&c, "x", 1, &answer) == KA_EINVAL, "no numeric address");
    c.ip = "127.0.0.1";
    CHECK(ka_client_post(&c, "x", KA_MAX_BODY + 1, &answer) == KA_EINVAL,
          "a body that is too long");
}

/* A server of one thread that answers each request, or connection, with the next text of a list,
   whatever it is. */
typedef struct {
    ka__sock listener;
    const char *const *texts;
    int n, port;
    bool close_each;
    _Atomic(bool) go;
    ka__thread thread;
    char got[KA_MAX_HEAD + 1];
} script;

static void script_run(void *arg)
{
    script *s = arg;
    static wire w;
    bool open = false;
    for (int i = 0; i < s->n; i++) {
        if (!open) {
            if (!wire_wait(s->listener, KA__IN) ||
                ka__sock_accept(s->listener, &w.sock, NULL) != KA_OK)
                return;
            w.n = 0;
            open = true;
        }
        for (;;) {
            ka__http h;
            ptrdiff_t head = ka__http_request(&h, w.buf, w.n);
            if (head > 0) snprintf(s->got, sizeof s->got, "%.*s", (int)head, w.buf);
            if (head > 0 && w.n >= (size_t)(head + h.length)) break;
            if (wire_more(&w) <= 0) break;
        }
        w.n = 0;
        /* \a is a pause, \v waits until the test says go. */
        for (const char *part = s->texts[i]; *part; part += *part != 0) {
            size_t n = strcspn(part, "\a\v");
            wire_send(&w, part, n);
            part += n;
            if (*part == '\a') ka_sleep_ms(30);
            while (*part == '\v' && !atomic_load(&s->go)) ka_sleep_ms(1);
        }
        if (!s->close_each) continue;
        wire_close(&w);
        open = false;
    }
    if (!open) return;
    while (wire_more(&w) > 0) w.n = 0;
    wire_close(&w);
}

static bool script_start(script *s, const char *const *texts, int n, bool close_each)
{
    *s = (script){ .texts = texts, .n = n, .close_each = close_each };
    return CHECK(sock_listen(&s->listener, &s->port) == KA_OK &&
                     ka__thread_start(&s->thread, script_run, s) == KA_OK,
                 "the script starts");
}

static void script_stop(script *s)
{
    ka__thread_join(&s->thread);
    ka__sock_close(s->listener);
}

/* Refusals that pass are misses: they are tried again, and told when the time is over. */
static void test_client_refused(void)
{
#define REFUSED(word, length) "HTTP/1.1 503 X\r\nContent-Length: " length "\r\n\r\n" word
    static const char *const passes[] = { REFUSED("try_later", "9"), REFUSED("server_full", "11"),
                                          "HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nok" };
    static const struct { const char *text; int want; const char *why; } rows[] = {
        { REFUSED("try_later", "9"), KA_EAGAIN, "Redis is down for longer" },
        { REFUSED("server_full", "11"), KA_EFULL, "there is no room for longer" },
        { "HTTP/1.1 429 X\r\nContent-Length: 9\r\n\r\ntry_later", KA_EAGAIN, "it asks too often" },
        { "HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n", 429, "another one's 429" },
        { REFUSED("try_late", "8"), 503, "another word" },
        { "HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\ntry_later", 500, "another status" },
    };
    static ka_client c;
    int errors[] = { KA_EAGAIN, KA_EFULL };
    script s;
    ka_str answer = { "", 0 };
    if (!script_start(&s, passes, 3, false)) return;
    c = (ka_client){ .ip = "127.0.0.1", .port = s.port, .on_miss = count_miss, .arg = errors };
    misses_seen = delays_wrong = 0;
    int r = ka_client_post(&c, "x=y", 3, &answer);
    CHECK(r == 200 && ka_is(answer, "ok") && misses_seen == 2 && delays_wrong == 0,
          "refused twice: %d, %d misses", r, misses_seen);
    ka_client_close(&c);
    script_stop(&s);
    for (size_t i = 0; i < COUNT(rows); i++) {
        r = KA_EOFFLINE;
        /* There is one attempt only. On a busy machine it may take too long. */
        for (int tries = 0; r == KA_EOFFLINE && tries < 50; tries++) {
            if (!script_start(&s, &rows[i].text, 1, false)) return;
            c = (ka_client){ .ip = "127.0.0.1",
                             .port = s.port,
                             .until_ms = ka_now_ms() + KA_RETRY_FIRST_MS };
            r = ka_client_post(&c, "x=y", 3, &answer);
            ka_client_close(&c);
            script_stop(&s);
        }
        CHECK(r == rows[i].want, "%s: %d", rows[i].why, r);
    }
#undef REFUSED
}

static void test_client_reads(void)
{
    static char long_body[KA_MAX_HEAD + KA_MAX_BODY + 100] = "HTTP/1.0 200 OK\r\n\r\n";
    memset(long_body + 19, 'x', sizeof long_body - 20);
    const struct { const char *text; int want; const char *body, *why; bool close; } rows[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", 200, "ab", "by length", false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", 200, "ab", "chunked", false },
        { "HTTP/1.0 200 OK\r\n\r\nab", 200, "ab", "up to the end", true },
        { "HTTP/1.1 200 OK\r\nCont\aent-Length: 2\r\n\r\na\ab", 200, "ab", "by length, in parts", false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\a\r\na\ab\r\n0\r\n\a\r\n", 200, "ab", "chunked, in parts", false },
        { "HTTP/1.0 200 OK\r\n\r\na\ab", 200, "ab", "up to the end, in parts", true },
        { long_body, KA_EPROTO, "", "longer than there is room", true },
        { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", 403, "x", "after interim answers", true },
        { "HTTP/1.1 204 No Content\r\n\r\n", 204, "", "without a body", false },
        { "{'success': True}\r\n", KA_EPROTO, "", "no HTTP", false },
        { "HTTP/1.1 101 Switching\r\n\r\n", KA_EPROTO, "", "an upgrade that nobody asked for", false },
        { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", 200, "a", "more than its length", false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx", KA_EPROTO, "", "bad chunk", false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", 200, "", "more than its chunks", false },
        { "HTTP/1.1 204 No Content\r\n\r\n\r\n", 204, "", "more than none", false },
        { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", KA_EOFFLINE, "", "gone in the middle", true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", KA_EOFFLINE, "", "gone in the middle of a chunk", true },
        { "HTTP/1.1 200", KA_EOFFLINE, "", "gone in the middle of the head", true },
        { "", KA_EOFFLINE, "", "gone without a word", true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", KA_EOFFLINE, "", "silent in the middle", false },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        static ka_client c;
        script s;
        ka_str answer = { "", 0 };
        if (!script_start(&s, &rows[i].text, 1, rows[i].close)) return;
        memset(&c, 0, sizeof c);
        c.ip = "127.0.0.1";
        c.port = s.port;
        c.until_ms = ka_now_ms() + (rows[i].want == KA_EOFFLINE ? 300 : PATIENCE_MS);
        int r = ka_client_post(&c, "x=y", 3, &answer);
        CHECK(r == rows[i].want && (r < 0 || ka_is(answer, rows[i].body)), "%s: got %d %.*s",
              rows[i].why, r, (int)answer.n, answer.p);
        ka_client_close(&c);
        script_stop(&s);
    }
}

/* A server that always has more to say does not keep the client for longer than it wants. */
static void test_client_time(void)
{
    static ka_client c;
    static wire w;
    ka__sock listener, peer = -1;
    int port;
    if (!CHECK(sock_listen(&listener, &port) == KA_OK && wire_open(&w, port), "connects")) return;
    if (!CHECK(wire_wait(listener, KA__IN), "somebody comes")) return;
    CHECK(ka__sock_accept(listener, &peer, NULL) == KA_OK && wire_text(&w, "x"), "says x");
    CHECK(wire_wait(peer, KA__IN) && ka__sock_waiting(peer) == 1, "x has come");
    c = (ka_client){ .sock = (intptr_t)peer, .open = true };
    CHECK(ka__client_recv(&c, 0, ka_now_ms()) == KA_ETIME && !c.open, "its time is over");
    wire_close(&w);
    ka__sock_close(listener);
}

/* A connection that became readable while idle is replaced, which is no miss: what lies on it is no
   answer. */
static void test_client_idle(void)
{
#define FIRST "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
    static const struct { const char *text, *why; } rows[] = {
        { FIRST, "closed" },
        { FIRST "\aHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!", "an answer that nobody asked for" },
        { FIRST "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!", "the same, at once" },
        { FIRST "\aHTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "a 408 of an idle one" },
        { FIRST "\a\r\n", "a stray CRLF" },
        { FIRST "\r\n", "the same, at once" },
        { FIRST "\aHTTP/1.1 103 Early Hints\r\n\r\n", "an interim answer" },
        { FIRST "\ax", "garbage" },
    };
#undef FIRST
    for (size_t i = 0; i < COUNT(rows); i++) {
        static ka_client c;
        const char *texts[] = { rows[i].text, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2" };
        script s;
        ka_str answer = { "", 0 };
        if (!script_start(&s, texts, 2, true)) return;
        memset(&c, 0, sizeof c);
        c.ip = "127.0.0.1";
        c.port = s.port;
        c.until_ms = ka_now_ms() + PATIENCE_MS;
        c.on_miss = count_miss;
        misses_seen = 0;
        int r = ka_client_post(&c, "x=y", 3, &answer);
        CHECK(r == 200 && ka_is(answer, "1"), "%s: %d %.*s", rows[i].why, r, (int)answer.n,
              answer.p);
        CHECK(!c.open || wire_wait((ka__sock)c.sock, KA__IN), "%s: it is readable", rows[i].why);
        r = ka_client_post(&c, "x=y", 3, &answer);
        CHECK(r == 200 && ka_is(answer, "2") && misses_seen == 0, "%s, then: %d %.*s, %d misses",
              rows[i].why, r, (int)answer.n, answer.p, misses_seen);
        ka_client_close(&c);
        script_stop(&s);
    }
}

static void test_client_type(void)
{
    static char longest[KA_MAX_HEAD + 1];
    static const struct { const char *type, *sent, *why; } rows[] = {
        { NULL, "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\n", "none: a form" },
        { "application/json; charset=\"utf-8\"", "\r\nContent-Type: application/json; charset=\"utf-8\"\r\nContent-Length: 3\r\n\r\n", "one's own" },
        { "", NULL, "empty" }, { " a/b", NULL, "a space before it" },
        { "a/b\r\nX: y", NULL, "another line" }, { "a/b\n", NULL, "a line feed" },
        { "a/\x01", NULL, "a control character" }, { "a/\x7f", NULL, "DEL" },
        { longest, NULL, "longer than a head" },
    };
    static const char *const text[] = { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" };
    static ka_client c;
    static script s;
    memset(longest, 'x', KA_MAX_HEAD - 60);
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_str answer;
        memset(&c, 0, sizeof c);
        c.ip = "127.0.0.1";
        c.port = 1;
        c.type = rows[i].type;
        if (!rows[i].sent) {
            CHECK(ka_client_post(&c, "x=y", 3, &answer) == KA_EINVAL && !c.open, "%s", rows[i].why);
            continue;
        }
        if (!script_start(&s, text, 1, true)) return;
        c.port = s.port;
        int r = ka_client_post(&c, "x=y", 3, &answer);
        ka_client_close(&c);
        script_stop(&s);
        CHECK(r == 200 && strstr(s.got, rows[i].sent), "%s: %d, %s", rows[i].why, r, s.got);
    }
}

/* What is asked for, and how. */
static void test_client_asks(void)
{
    static const char *const answer_text[] = { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" };
    static const struct { bool get; const char *target, *line; int want; } rows[] = {
        { false, NULL, "POST / HTTP/1.1\r\n", 200 }, { true, NULL, "GET / HTTP/1.1\r\n", 200 },
        { true, "/health?verbose=1", "GET /health?verbose=1 HTTP/1.1\r\n", 200 },
        { false, "/a", "POST /a HTTP/1.1\r\n", 200 },
        { true, "/a b", NULL, KA_EINVAL }, { true, "", NULL, KA_EINVAL },
        { true, "/a\r\n", NULL, KA_EINVAL },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        static ka_client c;
        script s;
        ka_str answer;
        if (!script_start(&s, answer_text, 1, false)) return;
        c = (ka_client){ .ip = "127.0.0.1",
                         .port = s.port,
                         .target = rows[i].target,
                         .until_ms = ka_now_ms() + PATIENCE_MS };
        int r = rows[i].get ? ka_client_get(&c, &answer) : ka_client_post(&c, "x=y", 3, &answer);
        ka_client_close(&c);
        if (r < 0) {      /* the script waits for somebody */
            static wire w;
            if (wire_open(&w, s.port)) wire_close(&w);
        }
        script_stop(&s);
        CHECK(r == rows[i].want &&
                  (r < 0 || strncmp(s.got, rows[i].line, strlen(rows[i].line)) == 0),
              "row %d: %d, %.60s", (int)i, r, s.got);
    }
}

static const subject client_topics[] = {
    { "client time", test_client_time },
    { "retries", test_retries }, { "client refused", test_client_refused },
    { "client reads", test_client_reads }, { "client idle", test_client_idle },
    { "client type", test_client_type }, { "client asks", test_client_asks },
};
