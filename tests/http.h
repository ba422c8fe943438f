/* tests/http.h - section 5 of keyauth.h: answers over HTTP. */

static const dialogue http_dialogues[] = {
    GIVES("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "200 POST /p abc;",
          "keep-alive"),
    GIVES("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
          "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
          "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
          "200 GET /1 ;200 GET /2 ;200 GET /3 ;", "pipelined"),
    GIVES("POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
          "2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: u\r\n\r\n"
          "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
          "200 POST /1 abc;200 GET /2 ;", "chunked, and one behind it"),
    GIVES("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n", "200 GET / ;",
          "RFC 9112 s.2.2: empty lines around it"),
    GIVES("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n"
          "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
          "200 POST /1 x;200 GET /2 ;", "s.2.2: CRLF after a body"),
    GIVES("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"
          "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
          "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"
          "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
          "200 GET / ;200 GET / ;", "10 empty lines before each"),
    CLOSES("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 ;",
           "11 empty lines"),
    CLOSES("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 ;", "a CR in front"),
    GIVES("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "200 GET / ;",
          "a target that is an authority"),
    CLOSES("GET / HTTP/1.0\r\n\r\n", "200 GET / ;", "1.0 closes"),
    CLOSES("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
           "200 GET / ;200 GET / ;", "1.0 kept alive"),
    CLOSES("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 GET / ;", "close"),
    CLOSES("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
           "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
           "200 GET / ;", "nothing after close"),
    GIVES("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", "200 GET /b ;", "absolute form"),
    CLOSES("GET / HTTP/1.1\r\nHost: a\r\n\r\n"
           "GET / HTTP/1.1\r\n\r\n"
           "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
           "200 GET / ;400 ;", "refused in its turn, the rest dropped"),
    CLOSES("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1501\r\n\r\nxxxxxxxxxxxxxxxxxx", "413 ;",
           "body over KA_MAX_BODY"),
    CLOSES("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5dd\r\n", "413 ;",
           "chunked body over KA_MAX_BODY"),
    CLOSES("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX", "400 ;",
           "bad chunk"),
    CLOSES("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n", "400 ;", "bad length"),
    CLOSES("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: zip, chunked\r\n\r\n", "501 ;",
           "unknown coding"),
    GIVES("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
          "200 POST / ;", "no 100 without a body to come"),
    CLOSES("GET / HTTP/3.0\r\n\r\n", "505 ;", "version"),
    CLOSES("HEAD / HTTP/1.1\r\n\r\n", "400 ;", "a refused HEAD"),
};

static void test_dialogues(void)
{
    fixture f;
    if (!fixture_start(&f, ECHO, 1)) return;
    dialogues_run(&f, http_dialogues, COUNT(http_dialogues));
    fixture_stop(&f);
}

static void test_answer_form(void)
{
    static wire w;
    fixture f;
    char body[64], head[1024];
    if (!fixture_start(&f, ECHO, 1)) return;
    if (wire_open(&w, atomic_load(&f.port)) &&
        wire_text(&w, "HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n"
                      "GET /g HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")) {
        CHECK(wire_answer(&w, body, sizeof body, head, true) == 200 &&
                  strstr(head, "Content-Length: 8\r\n"),
              "HEAD: a length and no body: %s", head);
        CHECK(wire_answer(&w, body, sizeof body, head, false) == 200 &&
                  strcmp(body, "GET /g ") == 0,
              "the next one: %s", body);
        CHECK(strstr(head, "\r\nContent-Type: text/plain\r\n") &&
                  strstr(head, "\r\nCache-Control: no-store\r\n") &&
                  strstr(head, "\r\nX-Test: yes\r\n") &&
                  strstr(head, "\r\nConnection: keep-alive\r\n"),
              "fields: %s", head);
        bool dated = false;
        for (time_t at = time(NULL) - 3; at <= time(NULL) + 1; at++) {      /* time() lags */
            struct tm d;
            char want[64];
            dated = dated || (utc(at, &d) &&
                              strftime(want, sizeof want, "\r\nDate: %a, %d %b %Y %H:%M:%S GMT\r\n",
                                       &d) > 0 &&
                              strstr(head, want));
        }
        CHECK(dated, "RFC 9110 s.5.6.7: %s", head);
    }
    wire_close(&w);
    fixture_stop(&f);
    int port;
    if (!parent_start(&f.s, 1, NULL, &port)) return;
    ka_event stranger = { .kind = KA_REQUEST, .conn = 99ull << 56 },
             gone = { .kind = KA_REQUEST, .conn = 77 }, none_asked = { .kind = KA_LISTENING };
    CHECK(ka_reply(f.s, &none_asked, 200, NULL, "", 0) == KA_EINVAL, "an answer to no request");
    CHECK(ka_reply(f.s, &gone, 204, NULL, "x", 1) == KA_EINVAL, "a body where there is none");
    CHECK(ka_reply(f.s, &gone, 205, NULL, "x", 1) == KA_EINVAL, "RFC 9110 s.15.3.6: nor there");
    CHECK(ka_reply(f.s, &stranger, 200, NULL, "", 0) == KA_EINVAL, "a worker that isn't there");
    CHECK(ka_reply(f.s, &gone, 99, NULL, "", 0) == KA_EINVAL &&
              ka_reply(f.s, &gone, 600, NULL, "", 0) == KA_EINVAL,
          "a status out of range");
    CHECK(ka_reply(f.s, &gone, 200, NULL, "", KA_MAILBOX / 4 + 1) == KA_ENOSPC,
          "a body that is too long");
    CHECK(ka_sse_begin(f.s, &none_asked, NULL) == KA_EINVAL &&
          ka_sse_begin(f.s, &stranger, NULL) == KA_EINVAL, "a stream for no request");
    ka_server_free(f.s);
    ka_server *none;
    CHECK(ka_server_start(&none, -1) == KA_EINVAL &&
              ka_server_start(&none, KA_MAX_WORKERS + 1) == KA_EINVAL && none == NULL,
          "workers out of range");
    ka_server_free(NULL);
}

/* How many lines of a head have this name, which is in lower case? */
static int lines_of(const char *head, const char *name)
{
    int lines = 0;
    size_t n = strlen(name);
    for (const char *p = strstr(head, "\r\n"); p; p = strstr(p + 2, "\r\n"))
        lines += ka__is_nocase((ka_str){ p + 2, strlen(p + 2) < n ? strlen(p + 2) : n }, name) &&
            p[2 + n] == ':';
    return lines;
}

/* Fields of an answer: what its head has then, or that they are refused; and whether it closes. */
static const struct { const char *fields, *want; bool closes; const char *why; } answer_fields[] = {
    { "X: y\r\n", "X: y", false, "one of the parent's own" },
    { "X:\r\nY: \xe9\t\"z\" \r\n", "Y: \xe9\t\"z\" ", false, "any bytes of a value" },
    { "x-content-length: 7\r\n", "x-content-length: 7", false, "a name that ends like another one" },
    { "Content-Lengths: 7\r\n", "Content-Lengths: 7", false, "a name that begins like another one" },
    { "Server: a\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n", "Set-Cookie: c=d", false, "two lines that may be two" },
    { "DATE: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "DATE: Thu, 01 Jan 1970 00:00:00 GMT", false, "another date" },
    { "Cache-Control: max-age=60\r\n", "Cache-Control: max-age=60", false, "to be kept" },
    { "cache-control: private\r\nCache-Control: max-age=60\r\n", "cache-control: private", false, "a list in two lines" },
    { "Content-TYPE: a/b\r\n", "Content-TYPE: a/b", false, "another type" },
    { "Content-Type: a/b\r\nDate: x\r\nCache-Control: y\r\n", "Cache-Control: y", false, "all three" },
    { "Date: x\r\nCache-Control: y\r\n", "Content-Type: text/plain", false, "two of the three" },
    { "Date: x\r\nContent-Type: y\r\n", "Cache-Control: no-store", false, "another two" },
    { "Connection: close\r\n", "Connection: close", true, "to close" },
    { "A: b\r\ncONNECTION:\tfoo\r\n", NULL, false, "an option that nobody knows" },
    { "A: b\r\ncONNECTION:, CLOSE ,\r\nX: y\r\n", "Connection: close", true, "to close, between others" },
    { "Connection: close, keep-alive\r\n", "Connection: close", true, "close wins" },
    { "Connection: keep-alive\r\nX: y\r\n", "X: y", false, "to stay open, as it does" },
    { "Connection:\r\nX: y\r\n", "X: y", false, "no option" },
    { "Connection: close\r\nConnection: close\r\n", NULL, false, "Connection twice" },
    { "Connection: upgrade\r\n", NULL, false, "another option" },
    { "Connection: close, X\r\n", NULL, false, "another option behind close" },
    { "Content-Length: 4\r\n", NULL, false, "a length, even the right one" },
    { "X: y\r\ncontent-LENGTH: 7\r\n", NULL, false, "a length" },
    { "Transfer-Encoding: chunked\r\n", NULL, false, "a coding" },
    { "TRANSFER-ENCODING:\r\n", NULL, false, "a coding without a value" },
    { "Trailer: X\r\n", NULL, false, "trailers" },
    { "TE: trailers\r\n", NULL, false, "a coding of an answer" },
    { "Upgrade: h2c\r\n", NULL, false, "another protocol" },
    { "Keep-Alive: timeout=5\r\n", NULL, false, "a time that is not ours" },
    { "Proxy-Connection: close\r\n", NULL, false, "what old proxies say" },
    { "Content-Type: a/b\r\ncontent-type: a/b\r\n", NULL, false, "two types" },
    { "Date: x\r\nDate: x\r\n", NULL, false, "two dates" },
    { "X: y", NULL, false, "no end" },
    { "X: y\n", NULL, false, "a bare LF as the end" },
    { "X: y\r", NULL, false, "half an end" },
    { "X y\r\n", NULL, false, "no colon" },
    { "X: y\r\n\r\n", NULL, false, "an empty line" },
    { "\r\n", NULL, false, "nothing but an empty line" },
    { ": y\r\n", NULL, false, "no name" },
    { "X: a\nb: c\r\n", NULL, false, "a bare LF" },
    { "X: a\rb: c\r\n", NULL, false, "a bare CR" },
    { "X: a\r\n b\r\n", NULL, false, "a folded line" },
    { "X: a\r\n\tContent-Length: 7\r\n", NULL, false, "a folded line with a tab" },
    { "X : y\r\n", NULL, false, "a space before the colon" },
    { "Content-Length : 7\r\n", NULL, false, "a space behind a name that counts" },
    { " X: y\r\n", NULL, false, "a space in front" },
    { "X\xe9: y\r\n", NULL, false, "a name that is no token" },
    { "X: \x01\r\n", NULL, false, "a control character" },
    { "X: \x7f\r\n", NULL, false, "DEL" },
    { "X: \x1b[0m\r\n", NULL, false, "an escape" },
};

static void test_answer_fields(void)
{
    static wire w;
    static const char ask[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char *const once[] = { "date", "content-type", "content-length" };
    ka_server *s;
    ka_event ev, next;
    int port;
    char head[1024], body[64], line[128];
    if (!parent_start(&s, 1, NULL, &port)) return;
    for (size_t i = 0; i < COUNT(answer_fields); i++) {
        const char *why = answer_fields[i].why, *want = answer_fields[i].want;
        if (!wire_open(&w, port)) break;
        wire_text(&w, ask);
        if (!next_event(s, &ev, KA_REQUEST)) break;
        int r = ka_reply(s, &ev, 200, answer_fields[i].fields, "body", 4);
        CHECK(r == (want ? KA_OK : KA_EINVAL), "%s: %d", why, r);
        CHECK(want || ka_sse_begin(s, &ev, answer_fields[i].fields) == KA_EINVAL, "%s: of a stream",
              why);
        CHECK(want || ka_reply(s, &ev, 203, NULL, "body", 4) == KA_OK, "%s: answered all the same",
              why);
        ka_wait(s, &next, 0);
        CHECK(wire_answer(&w, body, sizeof body, head, false) == (want ? 200 : 203) &&
              strcmp(body, "body") == 0, "%s: %s", why, head);
        snprintf(line, sizeof line, "\r\n%s\r\n", want ? want : "Content-Type: text/plain");
        CHECK(strstr(head, line), "%s: %s", why, head);
        for (size_t k = 0; k < COUNT(once); k++)
            CHECK(lines_of(head, once[k]) == 1, "%s: %s: %s", why, once[k], head);
        CHECK(lines_of(head, "connection") == answer_fields[i].closes, "%s: %s", why, head);
        CHECK(lines_of(head, "cache-control") == (want && strstr(want, "private") ? 2 : 1),
              "%s: %s", why, head);
        if (answer_fields[i].closes) CHECK(wire_more(&w) == 0 && w.n == 0, "%s: closed", why);
        else wire_text(&w, ask);
        if (!answer_fields[i].closes && next_event(s, &ev, KA_REQUEST))
            ka_reply(s, &ev, 200, NULL, NULL, 0);
        ka_wait(s, &next, 0);
        if (!answer_fields[i].closes)
            CHECK(wire_answer(&w, body, sizeof body, head, false) == 200, "%s: goes on", why);
        wire_close(&w);
    }
    ka_server_free(s);
}

/* An answer that closes is the last one, whatever was asked behind it, and whenever that is
   answered. */
static void test_answer_closes(void)
{
    static wire w;
    long before = atomic_load(&blocks_live);
    ka_server *s;
    ka_event ev[4], none;
    int port;
    char head[1024], body[64];
    if (!parent_start(&s, 1, NULL, &port)) return;
    for (int order = 0; order < 3 && wire_open(&w, port); order++) {
        for (int i = 0; i < 4; i++) wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        wire_text(&w, "GET / HT");
        for (int i = 0; i < 4; i++)
            if (!next_event(s, &ev[i], KA_REQUEST)) return;
        ka_reply(s, &ev[2], 200, NULL, "c", 1);
        ka_reply(s, &ev[2], 200, NULL, "another c", 9);      /* the first one counts */
        if (order != 0) ka_reply(s, &ev[0], 200, NULL, "a", 1);
        if (order == 1) ka_wait(s, &none, 20);
        ka_reply(s, &ev[1], 200, "Connection: close\r\n", "b", 1);
        if (order == 0) ka_reply(s, &ev[0], 200, NULL, "a", 1);
        CHECK(ka_reply(s, &ev[3], 200, NULL, "d", 1) == KA_OK && ka_wait(s, &none, 0) == KA_ETIME,
              "dropped");
        CHECK(wire_answer(&w, body, sizeof body, head, false) == 200 && strcmp(body, "a") == 0 &&
              !lines_of(head, "connection"), "the first: %s", body);
        CHECK(wire_answer(&w, body, sizeof body, head, false) == 200 && strcmp(body, "b") == 0 &&
              lines_of(head, "connection") == 1, "the last: %s", body);
        wire_text(&w, "T");
        CHECK(wire_more(&w) == 0 && w.n == 0, "nothing behind it, and no reset");
        wire_close(&w);
    }
    if (wire_open(&w, port) &&
        wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") &&
        next_event(s, &ev[0], KA_REQUEST) && next_event(s, &ev[1], KA_REQUEST)) {
        ka_reply(s, &ev[1], 200, NULL, "b", 1);
        ka_reply(s, &ev[1], 200, NULL, "another b", 9);
        ka_reply(s, &ev[0], 200, NULL, "a", 1);
        ka_wait(s, &none, 0);
        CHECK(wire_answer(&w, body, sizeof body, head, false) == 200 && strcmp(body, "a") == 0 &&
              wire_answer(&w, body, sizeof body, head, false) == 200 && strcmp(body, "b") == 0,
              "the first answer counts: %s", body);
    }
    wire_close(&w);
    ka_server_free(s);
    CHECK(atomic_load(&blocks_live) == before, "all freed");
}

/* Answers wrongly at the end of a batch. */
typedef struct { ka_source source; ka_server *s; ka_event ev; } wrong_end;

static void answer_wrongly(ka_source *source)
{
    wrong_end *w = (wrong_end *)source;
    if (w->ev.kind) ka_reply(w->s, &w->ev, 99, NULL, NULL, 0);
    w->ev.kind = 0;
}

/* Answers that are refused: 500 is said for a program that does not look; one that looks may say
   something else. */

static void test_answer_refused(void)
{
    enum { BAD = 7 };
    static const char *const asks[BAD] = { "GET", "GET", "GET", "GET", "GET", "HEAD", "GET" };
    static char large[KA_MAILBOX / 4 + 1];
    static wire w;
    ka_server *s;
    ka_event ev, held[BAD], none;
    wrong_end at_end = { .source = { .batch_end = answer_wrongly } };
    int port, r[BAD];
    char head[1024], body[64], ask[64];
    if (!parent_start(&s, 1, NULL, &port) || !wire_open(&w, port)) return;
    at_end.s = s;
    for (int retry = 0; retry < 2; retry++) {
        for (int i = 0; i < BAD; i++) {
            snprintf(ask, sizeof ask, "%s / HTTP/1.%d\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
                     asks[i], i < 6);
            wire_text(&w, ask);
            if (!next_event(s, &held[i], KA_REQUEST)) return;
        }
        for (int i = 0; i < BAD; i++) {
            const ka_event *e = &held[i];
            switch (i) {
            case 0:  r[i] = ka_reply(s, e, 99, NULL, "x", 1); break;
            case 1:  r[i] = ka_reply(s, e, 600, NULL, "x", 1); break;
            case 2:  r[i] = ka_reply(s, e, 204, NULL, "x", 1); break;
            case 3:  r[i] = ka_reply(s, e, 200, NULL, large, sizeof large); break;
            case 4:  r[i] = ka_reply(s, e, 200, "X\r\n", "x", 1); break;
            default: r[i] = ka_sse_begin(s, e, NULL);
            }
            CHECK(r[i] == (i == 3 ? KA_ENOSPC : KA_EINVAL), "answer %d is refused: %d", i, r[i]);
            if (retry) CHECK(ka_reply(s, e, 200, NULL, "again", 5) == KA_OK, "answer %d, again", i);
        }
        ka_wait(s, &none, 0);
        for (int i = 0; i < BAD; i++) {
            bool bodiless = *asks[i] == 'H';
            int status = wire_answer(&w, body, sizeof body, head, bodiless);
            const char *says = retry && !bodiless ? "again" : "";
            CHECK(status == (retry ? 200 : 500) && strcmp(body, says) == 0,
                  "answer %d: %d \"%s\"", i, status, body);
        }
    }
    ka_source_add(s, &at_end.source);
    wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    if (next_event(s, &ev, KA_REQUEST)) at_end.ev = ev;
    ka_wait(s, &none, 0);
    CHECK(wire_answer(&w, body, sizeof body, head, false) == 500, "refused at the end of a batch");
    wire_close(&w);
    ka_server_free(s);
}

/* Each status that has a phrase here, some that haven't, and those without a body. */
static void test_statuses(void)
{
    static const struct { int status; const char *line; } rows[] = {
        { 200, "200 OK" }, { 204, "204 " }, { 299, "299 " }, { 304, "304 " },
        { 400, "400 Bad Request" }, { 401, "401 Unauthorized" },
        { 403, "403 Forbidden" }, { 404, "404 Not Found" }, { 405, "405 Method Not Allowed" },
        { 408, "408 Request Timeout" },
        { 409, "409 Conflict" }, { 413, "413 Content Too Large" }, { 414, "414 URI Too Long" },
        { 417, "417 Expectation Failed" },
        { 431, "431 Request Header Fields Too Large" }, { 500, "500 Internal Server Error" },
        { 501, "501 Not Implemented" },
        { 503, "503 Service Unavailable" }, { 504, "504 Gateway Timeout" },
        { 505, "505 HTTP Version Not Supported" }, { 599, "599 " },
    };
    static wire w;
    fixture f;
    char text[64], want[64], head[1024], body[8];
    if (!fixture_start(&f, STATUS, 0)) return;
    bool open = wire_open(&w, atomic_load(&f.port));
    for (size_t i = 0; i < COUNT(rows) && open; i++) {
        bool empty = rows[i].status == 204 || rows[i].status == 304;
        snprintf(text, sizeof text, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", rows[i].status);
        snprintf(want, sizeof want, "HTTP/1.1 %s\r\n", rows[i].line);
        wire_text(&w, text);
        CHECK(wire_answer(&w, body, sizeof body, head, false) == rows[i].status &&
                  strncmp(head, want, strlen(want)) == 0 && strcmp(body, empty ? "" : "x") == 0 &&
                  !strstr(head, "Content-Length") == empty,
              "%d: %s", rows[i].status, head);
    }
    wire_close(&w);
    fixture_stop(&f);
}

/* An answer before its turn is kept; if its turn never comes, it is freed with the server. */
static void test_early(void)
{
    static wire w;
    long before = atomic_load(&blocks_live);
    ka_server *s;
    ka_event ev;
    int seen = 0, refused = 0;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    while (refused < KA_MAX_LISTENERS && ka_listen(s, "127.0.0.1", 0) == refused) refused++;
    CHECK(refused == KA_MAX_LISTENERS && ka_listen(s, "127.0.0.1", 0) == KA_ELIMIT,
          "%d addresses, and no more", refused);
    for (int64_t until = ka_now_ms() + PATIENCE_MS; seen < 3 && ka_now_ms() < until; ) {
        if (ka_wait(s, &ev, 50) != KA_OK) continue;
        if (ev.kind == KA_LISTENING && --refused == 0 && wire_open(&w, ev.port))
            wire_text(&w, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
                          "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
                          "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
        else if (ev.kind == KA_REQUEST && seen++ > 0)
            ka_reply(s, &ev, 200, NULL, "early", 5);      /* the first is never answered */
    }
    ka_event stranger = { .kind = KA_REQUEST, .conn = (uint64_t)(KA__MAX_CONNS - 1) << 32 };
    CHECK(seen == 3 && ka_reply(s, &stranger, 200, NULL, "x", 1) == KA_OK,
          "an answer for a connection that never was");
    CHECK(ka_wait(s, &ev, 50) == KA_ETIME, "nothing more comes");
    ka_server_free(s);
    CHECK(wire_more(&w) <= 0, "no answer came out of its turn");
    wire_close(&w);
    CHECK(atomic_load(&blocks_live) == before, "all freed");
}

static void test_expect(void)
{
    static wire w;
    fixture f;
    char body[64];
    if (!fixture_start(&f, ECHO, 1)) return;
    if (wire_open(&w, atomic_load(&f.port)) &&
        wire_text(&w, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
                      "POST /2 HTTP/1.1\r\nHost: a\r\n"
                      "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")) {
        CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 200, "the one before comes first");
        CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 100, "then 100");
        wire_text(&w, "ab");
        CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 200 &&
                  strcmp(body, "POST /2 ab") == 0,
              "then the answer: %s", body);
        wire_text(&w, "POST /3 HTTP/1.1\r\nHost: a\r\n"
                      "Content-Length: 9999\r\nExpect: 100-continue\r\n\r\n");
        CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 413, "no 100 for what is refused");
        CHECK(wire_answer(&w, body, sizeof body, NULL, false) == 0, "and the end");
    }
    wire_close(&w);
    fixture_stop(&f);

    /* found by fuzz/: a peer that has half-closed was told to go on, after the answer that had said
       "close" */
    if (!fixture_start(&f, LATE, 1)) return;
    if (wire_open(&w, atomic_load(&f.port))) {
        char text[30 * 27 + 80] = "";
        for (int i = 0; i < 30; i++) strcat(text, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        strcat(text,
               "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
        wire_text(&w, text);
        ka__sock_end(w.sock);
        int answers = 0, status;
        while ((status = wire_answer(&w, body, sizeof body, NULL, false)) == 200) answers++;
        CHECK(answers == 30 && status == 0, "no 100 to who sends no more: %d answers, then %d",
              answers, status);
    }
    wire_close(&w);
    fixture_stop(&f);
}

/* Answers out of order, and many at once: they leave in the order of the requests. */
static void test_order(void)
{
    static const char *const want[3] = { "a", "b", "c" };
    static wire w;
    fixture f;
    char body[64], text[64];
    if (!fixture_start(&f, BACKWARDS, 1)) return;
    if (wire_open(&w, atomic_load(&f.port))) {
        for (int i = 0; i < 300; i++) wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        int wrong = 0;
        for (int i = 0; i < 300; i++)
            if (wire_answer(&w, body, sizeof body, NULL, false) != 200 ||
                strcmp(body, want[i % 3]) != 0)
                wrong++;
        CHECK(wrong == 0, "%d of 300 answers out of order", wrong);
        /* Two more stay unanswered. */
        wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wire_close(&w);
    fixture_stop(&f);

    if (!fixture_start(&f, LATE, 1)) return;
    if (wire_open(&w, atomic_load(&f.port))) {
        int wrong = 0;
        for (int i = 0; i < 1000; i++) {
            snprintf(text, sizeof text, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
            wire_text(&w, text);
        }
        for (int i = 0; i < 1000; i++) {
            snprintf(text, sizeof text, "GET /%d ", i);
            if (wire_answer(&w, body, sizeof body, NULL, false) != 200 || strcmp(body, text) != 0)
                wrong++;
        }
        CHECK(wrong == 0, "%d of 1000 pipelined answers wrong", wrong);
    }
    wire_close(&w);
    fixture_stop(&f);
}

/* HTTP/0.9's answer: the body alone, and the close. */
static void test_bare_answer(void)
{
    static wire w;
    fixture f;
    char body[64], head[1024];
    if (!fixture_start(&f, STATUS, 1) || !wire_open(&w, atomic_load(&f.port))) return;
    wire_text(&w, "GET /299 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wire_answer(&w, body, sizeof body, head, false) == 299 &&
              strstr(head, "content-TYPE: a/b\r\n") && !strstr(head, "text/plain"),
          "a type of its own");
    wire_text(&w, "GET /0 HTTP/1.1\r\nHost: a\r\n\r\nGET /200 HTTP/1.1\r\nHost: a\r\n\r\nGET");
    while (wire_more(&w) > 0) {}
    CHECK(w.n == 1 && w.buf[0] == 'x', "nothing but the body: %.*s", (int)w.n, w.buf);
    wire_close(&w);
    wire_open(&w, atomic_load(&f.port));
    wire_text(&w, "GET /00 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wire_more(&w) == 0, "no body: the close alone");
    wire_close(&w);
    fixture_stop(&f);
}

/* Requests: host, field lines and body of each, or its status if it is refused. */
static const struct { const char *in, *want, *why; } fielded[] = {
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a|Host: a\r\n|;", "one" },
    { "GET / HTTP/1.0\r\n\r\n", "||;", "none" },
    { "GET / HTTP/1.1\r\nHost: \t[::1]:80 \r\n\r\n", "[::1]:80|Host: \t[::1]:80 \r\n|;", "a host and its port" },
    { "GET / HTTP/1.1\r\nHost:\r\n\r\n", "|Host:\r\n|;", "an empty host" },
    { "GET http://a/b HTTP/1.1\r\nHost: a\r\nX:\r\ny: \t1 \r\n\r\n", "a|Host: a\r\nX:\r\ny: \t1 \r\n|;", "as they were sent" },
    { "POST http://evil.example/ HTTP/1.1\r\nHost: a\r\n\r\n", "evil.example|Host: a\r\n|;", "the target's host counts" },
    { "GET HTTPS://evil.example:8?x HTTP/1.1\r\nHost: a\r\n\r\n", "evil.example:8|Host: a\r\n|;", "of https, without a path" },
    { "GET http://b HTTP/1.1\r\nHost:\r\n\r\n", "b|Host:\r\n|;", "Host is empty" },
    { "GET http://b HTTP/1.0\r\n\r\n", "b||;", "there is no Host" },
    { "CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n", "b:443|Host: a\r\n|;", "CONNECT names it too" },
    { "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "a|Host: a\r\n|;", "OPTIONS * does not" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: b\r\n\r\n",
      "a|Host: a\r\nContent-Length: 3\r\n|abc;b|Host: b\r\n|;", "a body, and one behind it" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nT: u\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
      "a|Host: a\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n|abc;b|Host: b\r\n|;", "chunked, without its trailers" },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n\r\nHEAD / HTTP/1.1\r\nHost: c\r\n\r\n", "a|Host: a\r\n|;b|Host: b\r\n|;c|Host: c\r\n|;", "pipelined" },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost : b\r\n\r\n", "a|Host: a\r\n|;400;", "one that is refused has none" },
    { "GET / HTTP/1.1\r\nHost: a\r\noRIGIN:\r\n\r\n", "a|Host: a\r\noRIGIN:\r\n|;",
      "a browser's, by Origin" },
    { "POST / HTTP/1.1\r\nSec-fetch-Site: none\r\nHost: a\r\nContent-Length: 1\r\n\r\nb"
      "GET http://b/ HTTP/1.0\r\nOrigin: c\r\n\r\n",
      "a|Sec-fetch-Site: none\r\nHost: a\r\nContent-Length: 1\r\n|b;b|Origin: c\r\n|;",
      "a browser's, by Sec-Fetch-Site, and one by Origin behind it" },
    { "GET / HTTP/1.1\r\nHost: a\r\nOrigins: b\r\nSec-Fetch-Mode: cors\r\n\r\n",
      "a|Host: a\r\nOrigins: b\r\nSec-Fetch-Mode: cors\r\n|;",
      "Node's fetch sends Sec-Fetch-Mode" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n", "413;", "nor one whose body is too long" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", "400;", "nor one whose body is malformed" },
};

static void run_fielded(ka_server *s, int port, size_t row, size_t piece)
{
    static wire w;
    char got[512] = "";
    ka_event ev;
    size_t n = strlen(fielded[row].in);
    int requests_n = 0;
    for (const char *p = fielded[row].want; *p; p++) requests_n += *p == ';';
    if (!wire_open(&w, port)) return;
    wire_pieces(&w, fielded[row].in, n, piece);
    for (size_t at = 0; requests_n > 0 && next_event(s, &ev, KA_REQUEST); requests_n--) {
        CHECK(!ev.error == !ev.status, "%s: status %d, error %d", fielded[row].why, ev.status,
              ev.error);
        if (ev.status) CHECK(ev.fields.n == 0, "%s: fields of what is refused", fielded[row].why);
        if (ev.status) at += (size_t)snprintf(got + at, sizeof got - at, "%d;", ev.status);
        else at += (size_t)snprintf(got + at, sizeof got - at, "%.*s|%.*s|%.*s;",
                                    (int)ev.host.n, ev.host.n ? ev.host.p : "", (int)ev.fields.n,
                                    ev.fields.n ? ev.fields.p : "", (int)ev.body.n, ev.body.p);
        ka_reply(s, &ev, ev.status ? ev.status : 200, NULL, "", 0);
    }
    CHECK(strcmp(got, fielded[row].want) == 0, "%s, %d at a time: \"%s\"", fielded[row].why,
          (int)piece, got);
    wire_close(&w);
}

static void test_fields(void)
{
    ka_server *s;
    for (int workers = 1, port; workers <= 3; workers += 2) {
        if (!parent_start(&s, workers, NULL, &port)) return;
        for (size_t row = 0; row < COUNT(fielded); row++)
            for (size_t piece = 1; piece < 300; piece = piece < 3 ? piece + 1 : piece * 9)
                run_fielded(s, port, row, piece);
        ka_server_free(s);
    }
}

/* The largest heads with the largest bodies, and the shortest ones, more of each than the mailbox
   holds while the parent sleeps. */
static void test_fields_flood(void)
{
    enum { WIRES = 8, LARGE = 30, SMALL = 900 };
    static const char small[] = "A / HTTP/1.1\r\nHost:\r\n\r\n";
    static wire w[WIRES];
    static char ask[KA_MAX_HEAD + KA_MAX_BODY + 1], many[SMALL * sizeof small];
    ka_server *s;
    ka_event ev;
    int port, large = 0, smalls = 0, wrong = 0;
    if (!parent_start(&s, 1, NULL, &port)) return;
    int start = snprintf(ask, sizeof ask, "POST / HTTP/1.1\r\nContent-Length: %d\r\nHost: ",
                         KA_MAX_BODY);
    int first = (int)(strchr(ask, '\n') - ask) + 1;
    memset(ask + start, 'x', sizeof ask - (size_t)start);
    memcpy(ask + KA_MAX_HEAD - 4, "\r\n\r\n", 4);
    for (int i = 0; i < SMALL; i++)
        memcpy(many + i * (int)(sizeof small - 1), small, sizeof small - 1);
    for (int i = 0; i < WIRES; i++) wire_open(&w[i], port);
    for (int k = 0; k < LARGE; k++)
        for (int i = 0; i < WIRES; i += 2) wire_send(&w[i], ask, KA_MAX_HEAD + KA_MAX_BODY);
    for (int i = 1; i < WIRES; i += 2) wire_send(&w[i], many, SMALL * (sizeof small - 1));
    ka_sleep_ms(50);                   /* the up box has filled */
    while (large + smalls < WIRES / 2 * (LARGE + SMALL) && next_event(s, &ev, KA_REQUEST)) {
        bool is_small = ev.method.n == 1;
        ka_str want = is_small ? (ka_str){ small + 14, 7 }
                               : (ka_str){ ask + first, (size_t)(KA_MAX_HEAD - 2 - first) };
        size_t host = is_small ? 0 : (size_t)(KA_MAX_HEAD - 4 - start);      /* it comes twice */
        wrong += ev.fields.n != want.n || memcmp(ev.fields.p, want.p, want.n) != 0 ||
            ev.body.n != (is_small ? 0 : KA_MAX_BODY) || ev.host.n != host;
        is_small ? smalls++ : large++;
        ka_reply(s, &ev, 204, NULL, NULL, 0);
    }
    CHECK(large == WIRES / 2 * LARGE && smalls == WIRES / 2 * SMALL && wrong == 0,
          "%d large ones and %d small ones, %d of them wrong", large, smalls, wrong);
    for (int i = 0; i < WIRES; i++) wire_close(&w[i]);
    wire_open(&w[0], port);
    memcpy(ask + KA_MAX_HEAD - 4, "x\r\n\r\n", 5);
    wire_send(&w[0], ask, KA_MAX_HEAD + 1);
    CHECK(next_event(s, &ev, KA_REQUEST) && ev.status == 431 && ev.fields.n == 0,
          "one byte more is refused: %d", ev.status);
    wire_close(&w[0]);
    ka_server_free(s);
}

/* What the parent is told of a request. */
static void test_request_event(void)
{
    static const struct { const char *in, *method, *target, *host, *body; } rows[] = {
        { "GET /a?b HTTP/1.1\r\nHost: c.example:81\r\n\r\n", "GET", "/a?b", "c.example:81", "" },
        { "PUT http://d/e HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\nfg", "PUT", "/e", "d",
          "fg" },
        { "GET / HTTP/1.0\r\n\r\n", "GET", "/", "", "" },
    };
    static wire w;
    ka_server *s;
    ka_event ev;
    if (!CHECK(ka_server_start(&s, 1) == KA_OK, "starts")) return;
    ka_listen(s, "127.0.0.1", 0);
    if (!CHECK(next_event(s, &ev, KA_LISTENING), "listens")) return;
    int port = ev.port;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (!wire_open(&w, port) || !wire_text(&w, rows[i].in)) return;
        if (!CHECK(next_event(s, &ev, KA_REQUEST), "%s", rows[i].in)) return;
        CHECK(ka_is(ev.method, rows[i].method) && ka_is(ev.target, rows[i].target), "its line");
        CHECK(ka_is(ev.host, rows[i].host), "%s: %.*s", rows[i].in, (int)ev.host.n, ev.host.p);
        CHECK(ka_is(ev.body, rows[i].body), "its body");
        ka_reply(s, &ev, 200, NULL, "x", 1);
        wire_close(&w);
    }
    ka_server_free(s);
}

static const subject http_topics[] = {
    { "request event", test_request_event },
    { "dialogues", test_dialogues }, { "answer form", test_answer_form },
    { "answer fields", test_answer_fields }, { "answer closes", test_answer_closes },
    { "answer refused", test_answer_refused }, { "statuses", test_statuses },
    { "early", test_early }, { "expect", test_expect }, { "order", test_order },
    { "bare answer", test_bare_answer }, { "fields", test_fields },
    { "fields flood", test_fields_flood },
};
