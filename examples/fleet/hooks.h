/* hooks.h - webhooks: changes are forwarded to one URL, by POST {"events": [...]}, in their order.

   Changes wait in a ring. As many as fit are taken out of it into a batch. The batch is sent until
   an answer is 2xx. So each change arrives at least once, and a receiver drops a change whose id it
   has seen before. There is one connection at a time, for one batch:

     RESTING --connect--> CONNECTING --opened, POST--> ASKED --any answer--> CLOSING
     CLOSING --closed--> RESTING

   A batch that failed is sent again after 1 s, 2, 4... 60. Beyond MAX_HOOKS or HOOK_BYTES the
   oldest change in the ring is dropped. */

#ifndef FLEET_HOOKS_H
#define FLEET_HOOKS_H

#include "fleet.h"

enum {
    HOOK_BATCH = 100,                         /* changes of a batch, at most */
    HOOK_BODY = 65536,                        /* bytes of a batch, unless one change has more */
    HOOK_BYTES = 33554432,                    /* bytes of the changes in the ring */
    HOOK_ANSWER_MS = 10000,                   /* until the answer's first line */
    HOOK_RETRY_S = 60,                        /* between two attempts, at most */
    HOOK_HOST = KA_MAX_HOST + 1, HOOK_PATH = 2048
};

struct hooks {
    enum { RESTING, CONNECTING, ASKED, CLOSING } state;
    ka_lookups names;
    uint64_t conn;                            /* ASKED, CLOSING */
    int64_t  due_ms;                          /* RESTING: of the next attempt, or 0; ASKED: of the
                                                 answer */
    int      retry_s;                         /* before the next attempt; 0: all is well */
    bool     informed;                        /* an answer of 1xx is being read */
    bool     taken;                           /* the batch was taken: 2xx */
    char     why[64];                         /* why the batch was not taken */
    char     name[HOOK_HOST], host[KA_PLACE_TEXT + 1];      /* without the port, and with it */
    char     path[HOOK_PATH];
    int      port;
    char    *ring[MAX_HOOKS];
    size_t   first, n, bytes;
    size_t   batch_n, body_n;                 /* changes of the batch, and bytes of body */
    char     body[HOOK_BODY + MAX_EVENT];
    uint64_t sent, dropped;
};

static void hooks_due(fleet *f, int64_t at_ms)
{
    f->hooks->due_ms = at_ms;
    ka_timer(&f->timers, at_ms, TAG_HOOK);
}

/* An attempt has failed, and its connection is closed. */
static void hooks_failed(fleet *f, const char *why)
{
    struct hooks *h = f->hooks;
    if (!h->retry_s) note("--webhook %s: %s; trying again", h->host, why);
    h->retry_s = h->retry_s ? 2 * h->retry_s : 1;
    if (h->retry_s > HOOK_RETRY_S) h->retry_s = HOOK_RETRY_S;
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
    if (h->state != RESTING || (h->retry_s && ka_now_ms() < h->due_ms) || h->batch_n + h->n == 0)
        return;
    h->due_ms = 0;
    int r = ka_connect_name(&h->names, &ka_lines, h->name, h->port, TAG_HOOK);
    if (r == KA_OK) h->state = CONNECTING;
    else if (r != KA_ESTOPPED) hooks_failed(f, ka_error_text(r));
}

static void hooks_post(fleet *f, uint64_t conn)
{
    struct hooks *h = f->hooks;
    char head[HOOK_HOST + HOOK_PATH + 256];
    if (!h->batch_n) hooks_fill(h);
    int n = snprintf(head, sizeof head,
                     "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: fleet/" KA_VERSION
                     "\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                     h->path, h->host, h->body_n);
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
    if (h->retry_s) note("--webhook %s: it takes them again", h->host);
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
    if (ev->kind == KA_OPENED && ev->listener == -1 && ev->tag == TAG_HOOK) {
        bool unknown = ev->error == KA_ENOTFOUND;
        if (unknown) hooks_failed(f, "there is no such host");
        else if (ev->error) hooks_failed(f, ka_error_text(ev->error));
        else hooks_post(f, ev->conn);
        return true;
    }
    if ((h->state != ASKED && h->state != CLOSING) || ev->conn != h->conn ||
        (ev->kind != KA_MESSAGE && ev->kind != KA_CLOSED))
        return false;
    if (ev->kind == KA_CLOSED) hooks_closed(f);
    else if (h->state == ASKED) hooks_answer(f, ev);
    return true;
}

static void hooks_drop(fleet *f, char *text)
{
    struct hooks *h = f->hooks;
    if (!h->dropped++) note("--webhook %s: too many changes wait for it, and the oldest are "
                               "dropped; GET / counts them", h->host);
    free(text);
}

static void hooks_add(fleet *f, ka_str event)
{
    struct hooks *h = f->hooks;
    if (!h) return;
    while (h->n && (h->n == MAX_HOOKS || h->bytes + event.n > HOOK_BYTES))
        hooks_drop(f, hooks_take(h));
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

/* Cut the URL. It may hold a secret, so its host at most is ever shown. -1, or exit with this. */
static int hooks_url(struct hooks *h, const char *url)
{
    static const char needed[] = "http://HOST:PORT/PATH is needed";
    if (strncmp(url, "https://", 8) == 0)
        return fail(EXIT_USAGE,
                    "--webhook: there is no TLS here; have a proxy on this machine speak "
                    "it, and give its http://127.0.0.1:PORT/PATH");
    if (strncmp(url, "http://", 7) != 0) return fail(EXIT_USAGE, "--webhook: %s", needed);
    const char *host = url + 7, *path = host + strcspn(host, "/?");
    size_t n = (size_t)(path - host);
    for (const char *p = host; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == '#' || (*p == '@' && p < path))
            return fail(EXIT_USAGE, "--webhook: %s, of printable characters, percent-encoded, "
                        "without a user or #", needed);
    if (n + sizeof ":80" > KA_PLACE_TEXT || strlen(path) + 2 > HOOK_PATH)
        return fail(EXIT_USAGE, "--webhook: the URL is too long");
    h->port = 80;
    if (ka_place_read(h->name, &h->port, (ka_str){ host, n }) < 0)
        return fail(EXIT_USAGE, "--webhook: %s", needed);
    snprintf(h->path, sizeof h->path, "%s%s", *path == '/' ? "" : "/", path);
    char name[HOOK_HOST];      /* without its interface, which is for this machine alone */
    snprintf(name, sizeof name, "%.*s", (int)strcspn(h->name, "%"), h->name);
    ka_place_text(h->host, name, h->port);
    return -1;
}

static int hooks_start(fleet *f)
{
    if (!f->hook) return -1;
    f->hooks = calloc(1, sizeof *f->hooks);
    if (!f->hooks) return fail(EXIT_FAILED, "out of memory");
    ka_lookups_init(&f->hooks->names, f->s);
    return hooks_url(f->hooks, f->hook);
}

static void hooks_free(fleet *f)
{
    struct hooks *h = f->hooks;
    if (!h) return;
    if (h->n + h->batch_n) note("--webhook %s: %zu changes were not taken before the end",
                                h->host, h->n + h->batch_n);
    while (h->n) free(hooks_take(h));
    ka_lookups_free(&h->names);
    free(h);
    f->hooks = NULL;
}

#endif
