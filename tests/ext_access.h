/* tests/ext_access.h - ext/access.h: a line for each answer. */

/* A store that answers later: the last question, if there is one. */
static struct { ka_store store; ka_ticket t; bool asked; } later;

static int later_get(ka_store *st, const unsigned char digest[32], int64_t now_ms,
                     const ka_ticket *t, ka_str *id)
{
    (void)st, (void)digest, (void)now_ms, (void)id;
    later.t = *t;
    later.asked = true;
    return KA_EAGAIN;
}

/* Read a file's text; does it have this in it? */
static bool file_has(const char *path, const char *what, char text[8192])
{
    size_t n = file_get(path, (unsigned char *)text, 8191);
    text[n] = 0;
    return strstr(text, what) != NULL;
}

/* What a line must be, but for the time, the port and the microseconds. */
static bool line_is(const char *line, bool json, const char *method, const char *path, int status,
                    int bytes)
{
    char time[KA_UTC_TEXT + 1] = "", want[512];
    int port = 0, n = 0, end = 0;
    long long us = -1;
    if (json)
        (void)sscanf(line, "{\"time\": \"%27[^\"]\", \"peer\": \"127.0.0.1:%d\", %n", time, &port,
                     &n);
    else (void)sscanf(line, "%27s 127.0.0.1:%d %n", time, &port, &n);
    snprintf(want, sizeof want,
             json ? "\"method\": \"%s\", \"path\": \"%s\", \"status\": %d, \"bytes\": %d, \"us\": "
                  : "%s %s %d %d ",
             method, path, status, bytes);
    if (strncmp(line + n, want, strlen(want)) == 0)
        (void)sscanf(line + n + strlen(want), json ? "%lld}%n" : "%lld%n", &us, &end);
    return port > 0 && time[10] == 'T' && time[26] == 'Z' && us >= 0 && end > 0 &&
           line[(size_t)n + strlen(want) + (size_t)end] == '\n';
}

static bool next_request(ka_server *s, ka_event *ev)
{
    int r;
    while ((r = ka_wait(s, ev, PATIENCE_MS)) == KA_OK && ev->kind != KA_REQUEST) {}
    return CHECK(r == KA_OK, "a request comes: %d", r);
}

static void access_answer(ka_server *s, const ka_event *ev, const char *how)
{
    static ka_event kept;
    if (strcmp(how, "reply") == 0) ka_reply(s, ev, ev->status ? ev->status : 200, NULL, "body", 4);
    else if (strcmp(how, "none") == 0) ka_reply(s, ev, 200, "Content-Length: 1\r\n", NULL, 0);
    else if (strcmp(how, "stream") == 0) ka_upgrade(s, ev, 200, NULL, &ka_lines);
    else if (strcmp(how, "later") == 0) kept = *ev;
    else if (strcmp(how, "then") == 0) {      /* the one before this, too */
        ka_reply(s, ev, 204, NULL, NULL, 0);
        ka_reply(s, &kept, 201, NULL, "x", 1);
    } else ka_auth(s, &later.store, ev);
    if (!later.asked) return;
    later.asked = false;
    ka_ticket_answer(&later.t, KA_ENOTFOUND, (ka_str){ NULL, 0 });
}

static const struct {
    const char *request, *how, *method, *path;
    int status, bytes;
} access_rows[] = {
    { "GET /a/b HTTP/1.1\r\nHost: a\r\n\r\n", "reply", "GET", "/a/b", 200, 4 },
    { "GET /a?login=secret HTTP/1.1\r\nHost: a\r\n\r\n", "reply", "GET", "/a", 200, 4 },
    { "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "reply", "HEAD", "/", 200, 0 },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b", "ka_auth", "POST", "/", 400,
      11 },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 94\r\n\r\nlogin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
      "ka_auth", "POST", "/", 403, 9 },
    { "PUT /later HTTP/1.1\r\nHost: a\r\n\r\n", "later", "DELETE", "/then", 204, 0 },
    { "DELETE /then HTTP/1.1\r\nHost: a\r\n\r\n", "then", "PUT", "/later", 201, 1 },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "none", "GET", "/", 500, 0 },
    { "LONG-LONG-LONG-LONG-LONG-LONG /" PRINTABLE_256 " HTTP/1.1\r\nHost: a\r\n\r\n", "reply",
      "LONG-LONG-LONG-LONG-LON", NULL, 200, 4 },
    { "GET /s HTTP/1.1\r\nHost: a\r\n\r\n", "stream", "GET", "/s", 200, 0 },
    { "bad\r\n\r\n", "reply", "-", "-", 400, 4 },
};

static void test_access(void)
{
    static wire w;
    for (int json = 0; json < 2; json++) {
        ka_server *s;
        ka_event ev;
        char path[200], text[8192];
        int port;
        (void)remove(LOG);
        later.store = (ka_store){ .get = later_get };
        if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_access_start(s, "test", LOG, json) == -1 &&
                       ka_listen(s, "127.0.0.1", 0) == 0 && next_event(s, &ev, KA_LISTENING),
                   "starts"))
            return;
        port = ev.port;
        for (size_t i = 0; i < COUNT(access_rows); i++) {
            if (!wire_open(&w, port) || !wire_text(&w, access_rows[i].request) ||
                !next_request(s, &ev))
                return;
            access_answer(s, &ev, access_rows[i].how);
            ka_wait(s, &ev, 0);
            wire_close(&w);
        }
        /* Lines are written while the server runs, to where the path leads by then. */
        const char *last = json ? "\"path\": \"-\"" : " - - 400 ";
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             !file_has(LOG, last, text) && ka_now_ms() < until;)
            ka_wait(s, &ev, 10);
        CHECK((rename)(LOG, LOG ".1") == 0, "rotated");
        if (!wire_open(&w, port) || !wire_text(&w, "GET /last HTTP/1.1\r\nHost: a\r\n\r\n") ||
            !next_request(s, &ev))
            return;
        access_answer(s, &ev, "reply");
        ka_server_free(s);
        wire_close(&w);
        CHECK(file_has(LOG, "/last", text) && line_is(text, json, "GET", "/last", 200, 4),
              "the last one, to a new file: %s", text);
        file_has(LOG ".1", "", text);
        const char *line = text;
        snprintf(path, sizeof path, "/%.198s", PRINTABLE_256);
        for (size_t i = 0; i < COUNT(access_rows) && line; i++) {
            CHECK(line_is(line, json, access_rows[i].method,
                          access_rows[i].path ? access_rows[i].path : path, access_rows[i].status,
                          access_rows[i].bytes),
                  "%s: %s", access_rows[i].request, line);
            line = strchr(line, '\n');
            if (line) line++;
        }
        CHECK(line && !*line && !strstr(text, "secret") && !strstr(text, "AAAA"),
              "no more, and no secret: %s", line ? line : "too few");
        (void)remove(LOG);
        (void)remove(LOG ".1");
    }
}

/* More requests that wait for answers than are remembered: the first one has a line, but who asked
   is not known. */
static void test_access_many(void)
{
    static ka__access a;
    ka_event first, ev = {
        .kind = KA_REQUEST, .peer = { .port = 1 }, .method = { "GET", 3 }, .target = { "/", 1 }
    };
    char text[8192];
    int64_t cut;
    int code;
    (void)remove(LOG);
    if (!CHECK(ka_log_open(&a.log, LOG, "2", &cut, &code) == KA_OK, "opens")) return;
    for (int i = 0; i <= KA__ACCESS_OPEN; i++) {
        ka__access_take(&a.source, &ev);
        if (i == 0) first = ev;
    }
    ka__access_replied(&a.source, &first, 200, 1);
    ka__access_replied(&a.source, &ev, 200, 2);
    CHECK(ka_log_commit(a.log, &code) == KA_OK && file_has(LOG, "Z - - - 200 1 ", text) &&
              strstr(text, " GET / 200 2 "),
          "%s", text);
    ka_log_close(a.log);
    (void)remove(LOG);
}

/* No memory, no file; and lines on stderr, beside what else is printed there. */
static void test_access_server(void)
{
    static ka_client c;
    process server;
    char port[8];
    int n = server_start(&server, port, "--log", "-");
    post_on(&c, n, "ask_key=an-id");
    ka_client_close(&c);
    CHECK(await_output(&server, "err", " POST / 200 88 ") &&
              !strstr(output(&server, "err"), "an-id"),
          "on stderr: %s", output(&server, "err"));
    process_end(&server);
}

static const subject ext_access_topics[] = { { "access", test_access },
                                             { "access many", test_access_many },
                                             { "access server", test_access_server } };
