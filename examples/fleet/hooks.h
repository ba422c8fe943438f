/* hooks.h - webhooks: changes are forwarded to one URL, by POST {"events": [...]}, in their order.

   They wait in a ring. As many as fit are taken out of it into a batch, and that is sent until somebody says 2xx: so each
   arrives at least once, and a receiver that has seen its id before can drop it. One connection at a time, each for one batch:

     RESTING --connect--> CONNECTING --opened, POST--> ASKED --2xx, or anything else--> CLOSING --closed--> RESTING

   What fails is tried again after 1 s, 2, 4... 60. Beyond MAX_HOOKS, or HOOK_BYTES, the oldest in the ring is dropped. */

enum {
    HOOK_BATCH = 100,                         /* changes of a batch, at most, */
    HOOK_BODY = 65536,                        /* and its bytes, unless one change alone has more */
    HOOK_BYTES = 33554432,                    /* of what waits in the ring */
    HOOK_ANSWER_MS = 10000,                   /* until the answer's first line */
    HOOK_RETRY_S = 60,                        /* between two attempts, at most */
    HOOK_HOST = 256, HOOK_PATH = 2048
};

struct hooks {
    enum { RESTING, CONNECTING, ASKED, CLOSING } state;
    uint64_t conn;                            /* of ASKED and CLOSING */
    int64_t  due_ms;                          /* RESTING: the next attempt, 0: none is due; ASKED: an answer must be there */
    int      retry_s;                         /* before the next attempt; 0: the last one went well */
    bool     informed, taken;                 /* an answer of 1xx is being read; the batch was taken, */
    char     why[64];                         /* and if not, why */
    char     ip[16], host[HOOK_HOST], path[HOOK_PATH];
    int      port;
    char    *ring[MAX_HOOKS];
    size_t   first, n, bytes;
    size_t   batch_n, body_n;                 /* changes of the batch, and its bytes: */
    char     body[HOOK_BODY + MAX_EVENT];
    uint64_t sent, dropped;
};

static void hooks_due(fleet *f, int64_t at_ms)
{
    f->hooks->due_ms = at_ms;
    ka_timer(f->s, at_ms, TAG_HOOK);
}

/* An attempt has failed; its connection has gone. */
static void hooks_failed(fleet *f, const char *why)
{
    struct hooks *h = f->hooks;
    if (!h->retry_s) fail(0, "--webhook %s: %s; trying again", f->hook, why);
    h->retry_s = !h->retry_s ? 1 : h->retry_s < HOOK_RETRY_S / 2 ? 2 * h->retry_s : HOOK_RETRY_S;
    h->state = RESTING;
    hooks_due(f, ka_now_ms() + 1000 * h->retry_s);
}

/* Take the oldest out of the ring. */
static char *hooks_take(struct hooks *h)
{
    char *text = h->ring[h->first];
    h->first = (h->first + 1) % MAX_HOOKS;
    h->n--;
    h->bytes -= strlen(text);
    return text;
}

static void hooks_fill(struct hooks *h)
{
    static const char begin[] = "{\"events\": [", end[] = "]}";
    memcpy(h->body, begin, h->body_n = sizeof begin - 1);
    while (h->n && h->batch_n < HOOK_BATCH) {
        size_t n = strlen(h->ring[h->first]);
        if (h->batch_n && h->body_n + n > HOOK_BODY - sizeof ", ]}") break;
        char *text = hooks_take(h);
        if (h->batch_n++) memcpy(h->body + h->body_n, ", ", 2), h->body_n += 2;
        memcpy(h->body + h->body_n, text, n);
        h->body_n += n;
        free(text);
    }
    memcpy(h->body + h->body_n, end, 2);
    h->body_n += 2;
}

/* Begin an attempt, if there is something to send, and time for it. */
static void hooks_go(fleet *f)
{
    struct hooks *h = f->hooks;
    if (h->state != RESTING || (h->retry_s && ka_now_ms() < h->due_ms) || h->batch_n + h->n == 0) return;
    h->due_ms = 0;
    int r = ka_connect(f->s, KA_LINES, NULL, h->ip, h->port, TAG_HOOK);
    if (r == KA_OK) h->state = CONNECTING;
    else if (r != KA_ESTOPPED) hooks_failed(f, ka_error_text(r));
}

static void hooks_post(fleet *f, uint64_t conn)
{
    struct hooks *h = f->hooks;
    char head[HOOK_HOST + HOOK_PATH + 256];
    if (!h->batch_n) hooks_fill(h);
    int n = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: fleet/" KA_VERSION "\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n\r\n", h->path, h->host, h->body_n);
    ka_send(f->s, conn, head, (size_t)n);
    ka_send(f->s, conn, h->body, h->body_n);
    h->state = ASKED;
    h->conn = conn;
    h->informed = h->taken = false;
    snprintf(h->why, sizeof h->why, "the connection was lost before an answer");
    hooks_due(f, ka_now_ms() + HOOK_ANSWER_MS);
}

static void hooks_close(fleet *f)
{
    f->hooks->state = CLOSING;
    f->hooks->due_ms = 0;
    ka_close(f->s, f->hooks->conn);
}

/* A line of the answer. After 1xx comes another answer, behind an empty line. */
static void hooks_answer(fleet *f, const ka_event *ev)
{
    struct hooks *h = f->hooks;
    ka_str line = ev->body;
    if (!ev->error && h->informed) {
        h->informed = line.n > 0;
        return;
    }
    bool http = !ev->error && line.n >= 12 && memcmp(line.p, "HTTP/1.", 7) == 0 && line.p[8] == ' ';
    for (int i = 9; http && i < 12; i++) http = line.p[i] >= '0' && line.p[i] <= '9';
    if (http && line.p[9] == '1') {
        h->informed = true;
        return;
    }
    h->taken = http && line.p[9] == '2';
    if (http) snprintf(h->why, sizeof h->why, "it answered %.3s", line.p + 9);
    else snprintf(h->why, sizeof h->why, "what it answers is not HTTP");
    hooks_close(f);
}

static void hooks_closed(fleet *f)
{
    struct hooks *h = f->hooks;
    if (!h->taken) {
        hooks_failed(f, h->why);
        return;
    }
    if (h->retry_s) fail(0, "--webhook %s: it takes them again", f->hook);
    h->sent += h->batch_n;
    h->batch_n = 0;
    h->retry_s = 0;
    h->state = RESTING;
    hooks_go(f);
}

static bool hooks_event(fleet *f, const ka_event *ev)
{
    struct hooks *h = f->hooks;
    if (!h) return false;
    if (ev->kind == KA_TIMER && ev->tag == TAG_HOOK) {
        bool due = h->due_ms && ka_now_ms() >= h->due_ms;
        if (due && h->state == ASKED) {
            snprintf(h->why, sizeof h->why, "it did not answer within %d s", HOOK_ANSWER_MS / 1000);
            hooks_close(f);
        } else if (due) hooks_go(f);
        return true;
    }
    if (ev->kind == KA_OPENED && ev->listener == -1 && ev->seq == TAG_HOOK) {
        if (ev->error) hooks_failed(f, ka_error_text(ev->error));
        else hooks_post(f, ev->conn);
        return true;
    }
    if ((h->state != ASKED && h->state != CLOSING) || ev->conn != h->conn || (ev->kind != KA_MESSAGE && ev->kind != KA_CLOSED)) return false;
    if (ev->kind == KA_CLOSED) hooks_closed(f);
    else if (h->state == ASKED) hooks_answer(f, ev);
    return true;
}

static void hooks_drop(fleet *f, char *text)
{
    struct hooks *h = f->hooks;
    if (!h->dropped++) fail(0, "--webhook %s: too many changes wait for it, and the oldest are dropped; GET / counts them", f->hook);
    free(text);
}

static void hooks_add(fleet *f, ka_str event)
{
    struct hooks *h = f->hooks;
    if (!h) return;
    while (h->n && (h->n == MAX_HOOKS || h->bytes + event.n > HOOK_BYTES)) hooks_drop(f, hooks_take(h));
    char *copy = malloc(event.n + 1);
    if (!copy) {
        hooks_drop(f, NULL);
        return;
    }
    memcpy(copy, event.p, event.n);
    copy[event.n] = 0;
    h->ring[(h->first + h->n++) % MAX_HOOKS] = copy;
    h->bytes += event.n;
    hooks_go(f);
}

static void hooks_put(ka_json_out *w, const char *name, const fleet *f)
{
    const struct hooks *h = f->hooks;
    if (!h) {
        ka_json_put(w, name, (ka_str){ NULL, 0 });
        return;
    }
    ka_json_open(w, name, KA_OBJECT);
    ka_json_put_integer(w, "waiting", (int64_t)(h->n + h->batch_n));
    ka_json_put_integer(w, "sent", (int64_t)h->sent);
    ka_json_put_integer(w, "dropped", (int64_t)h->dropped);
    ka_json_close(w);
}

/* Cut the URL, and find its host. -1, or exit with this. */
static int hooks_url(struct hooks *h, const char *url)
{
    static const char needed[] = "http://HOST:PORT/PATH is needed";
    if (strncmp(url, "https://", 8) == 0)
        return fail(EXIT_USAGE, "--webhook %s: there is no TLS here; have a proxy on this machine speak it, and give its http://127.0.0.1:PORT/PATH", url);
    if (strncmp(url, "http://", 7) != 0) return fail(EXIT_USAGE, "--webhook %s: %s", url, needed);
    const char *host = url + 7, *path = host + strcspn(host, "/?");
    size_t n = (size_t)(path - host);
    for (const char *p = host; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == '#' || (*p == '@' && p < path))
            return fail(EXIT_USAGE, "--webhook %s: %s, of printable characters, percent-encoded, without a user or #", url, needed);
    if (n + sizeof ":80" > HOOK_HOST || strlen(path) + 2 > HOOK_PATH) return fail(EXIT_USAGE, "--webhook: the URL is too long");
    snprintf(h->host, sizeof h->host, "%.*s%s", (int)n, host, memchr(host, ':', n) ? "" : ":80");
    snprintf(h->path, sizeof h->path, "%s%s", *path == '/' ? "" : "/", path);
    return address("--webhook", h->host, strlen(h->host), h->ip, &h->port);
}

static int hooks_start(fleet *f)
{
    if (!f->hook) return -1;
    f->hooks = calloc(1, sizeof *f->hooks);
    if (!f->hooks) return fail(EXIT_FAILED, "out of memory");
    return hooks_url(f->hooks, f->hook);
}

static void hooks_free(fleet *f)
{
    struct hooks *h = f->hooks;
    if (!h) return;
    if (h->n + h->batch_n) fail(0, "--webhook %s: %zu changes were not taken before the end", f->hook, h->n + h->batch_n);
    while (h->n) free(hooks_take(h));
    free(h);
    f->hooks = NULL;
}
