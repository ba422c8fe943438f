/* tests/ext_metrics.h - ext/metrics.h: figures for Prometheus. */

/* Its value; -1: it is not on the page. */
static double figure(const char *page, const char *name)
{
    const size_t n = strlen(name);
    for (const char *line = page; line && *line; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, name, n) == 0 && line[n] == ' ') return atof(line + n);
    return -1;
}

static void rooms(ka_metrics *m)
{
    ka_metrics_put(m, "chat_rooms", "Rooms now.", *(int *)m->arg);
    ka_metrics_put(m, "chat_words_total", "Words.", 1e15);
}

/* Ask the server at this port, whose parent this is, and read the answer. */
static int metrics_ask(ka_server *s, int port, const char *request, char page[KA_METRICS_TEXT],
                       char *head)
{
    static wire w;
    ka_event ev;
    *page = 0;
    if (!wire_open(&w, port) || !wire_text(&w, request)) return 0;
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         ka__sock_wait(w.sock, KA__IN, 0) != KA_OK && ka_now_ms() < until;) {
        if (ka_wait(s, &ev, 5) != KA_OK || ev.kind != KA_REQUEST) continue;
        ka_reply(s, &ev, ka_is(ev.target, "/missing") ? 404 : 200, NULL, "x", 1);
    }
    int status = wire_answer(&w, page, KA_METRICS_TEXT, head, strncmp(request, "HEAD", 4) == 0);
    wire_close(&w);
    return status;
}

static const struct {
    bool metrics;
    const char *request;
    int status;
    const char *head;
} metrics_rows[] = {
    { true, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 200,
      "Content-Type: text/plain; version=0.0.4\r\n" },
    { true, "GET /metrics?x=y HTTP/1.0\r\n\r\n", 200, "" },
    { true, "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 200, "" },
    { true, "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405,
      "Allow: GET, HEAD\r\n" },
    { true, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404, "" },
    { true, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nSec-Fetch-Site: cross-site\r\n\r\n",
      403, "" },
    { true, "GET /metrics HTTP/1.1\r\nHost: localhost:1\r\nSec-Fetch-Site: none\r\n\r\n", 200,
      "" },
    { true, "bad\r\n\r\n", 400, "" },
    { false, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 200, "" },
    { false, "GET /missing HTTP/1.1\r\nHost: a\r\n\r\n", 404, "" },
};

static void test_metrics(void)
{
    static ka_metrics m;
    static char page[KA_METRICS_TEXT];
    char place[32], head[1024];
    int rooms_n = 7, port;
    ka_server *s = NULL;
    ka_event ev = { .port = 0 };
    /* Another program may take the port first. */
    for (int tries = 0; tries < 20 && !m.server; tries++) {
        m = (ka_metrics){ .more = rooms, .arg = &rooms_n };
        snprintf(place, sizeof place, "127.0.0.1:%s", free_port_text());
        if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_metrics_start(&m, s, "test", place) == -1,
                   "starts"))
            return;
        if (!CHECK(ka_listen(s, "127.0.0.1", 0) == 1 && next_event(s, &ev, KA_LISTENING),
                   "listens"))
            return;
        if (!m.status) break;
        ka_server_free(s);
        m.server = NULL;
    }
    port = ev.port;
    CHECK(ev.listener == 1 && m.status == 0, "its own listener is not told of");
    for (size_t i = 0; i < COUNT(metrics_rows); i++) {
        int status = metrics_ask(s, metrics_rows[i].metrics ? atoi(strchr(place, ':') + 1) : port,
                                 metrics_rows[i].request, page, head);
        CHECK(status == metrics_rows[i].status && strstr(head, metrics_rows[i].head), "%s: %d",
              metrics_rows[i].request, status);
    }
    metrics_ask(s, atoi(strchr(place, ':') + 1), metrics_rows[0].request, page, head);
    static const struct { const char *name; double value; } figures_rows[] = {
        { "keyauth_connections", 1 }, { "keyauth_answers_total{status=\"200\"}", 5 },
        { "keyauth_answers_total{status=\"404\"}", 2 },
        { "keyauth_answers_total{status=\"405\"}", 1 },
        { "keyauth_answers_total{status=\"403\"}", 1 },
        { "keyauth_answers_total{status=\"500\"}", -1 },
        { "keyauth_answer_seconds_bucket{le=\"+Inf\"}", 10 },
        { "keyauth_answer_seconds_count", 10 }, { "chat_rooms", 7 }, { "chat_words_total", 1e15 },
    };
    for (size_t i = 0; i < COUNT(figures_rows); i++)
        CHECK(figure(page, figures_rows[i].name) == figures_rows[i].value || i == 0,
              "%s: %g, not %g", figures_rows[i].name, figure(page, figures_rows[i].name),
              figures_rows[i].value);
    CHECK(strstr(page, "# TYPE chat_rooms gauge\n") &&
              strstr(page, "# TYPE chat_words_total counter\n") &&
              strstr(page, "# HELP chat_rooms Rooms now.\n"),
          "types");
    double before = 0, sum = figure(page, "keyauth_answer_seconds_sum");
    CHECK(sum > 0 && sum < 1e6, "took %g s", sum);
    for (int i = 0; i <= KA_METRICS_TIMES; i++) {
        char name[64];
        snprintf(name, sizeof name, "keyauth_answer_seconds_bucket{le=\"%g\"}", 1e-4 * (1 << i));
        double n = figure(page, name);
        if (i == KA_METRICS_TIMES) CHECK(n == -1, "%s: a bound too many", name);
        else CHECK(n >= before && n <= 10, "%s: %g after %g", name, n, before);
        before = n;
    }
    ka_server_free(s);
}

/* The server's own, and a place that is taken. */
static void test_metrics_server(void)
{
    static ka_client c;
    process server, other;
    char port[8], place[32];
    ka_str page;
    snprintf(place, sizeof place, "%s:%s", SERVER_IP, free_port_text());
    if (!server_start(&server, port, "--metrics", place)) return;
    START(&other, PROGRAM("server"), "--ip", SERVER_IP, "--port", "0", "--metrics", place);
    int status = process_wait(&other, PATIENCE_MS);
    CHECK(status == 1 && strstr(output(&other, "err"), "taken by another program") &&
              strstr(output(&other, "err"), "another --metrics"),
          "taken: %d, %s", status, output(&other, "err"));
    process_end(&other);
    c = (ka_client){ .ip = SERVER_IP, .port = atoi(strchr(place, ':') + 1), .target = "/metrics" };
    static char text[KA_METRICS_TEXT];
    CHECK(ka_client_get(&c, &page) == 200, "GET");
    snprintf(text, sizeof text, "%.*s", (int)page.n, page.p);
    CHECK(figure(text, "keyauth_keys") == 0 && figure(text, "keyauth_asks_refused_total") == 0 &&
              figure(text, "keyauth_redis_up") == -1,
          "its own: %s", text);
    ka_client_close(&c);
    process_end(&server);
}

static const subject ext_metrics_topics[] = { { "metrics", test_metrics },
                                              { "metrics server", test_metrics_server } };
