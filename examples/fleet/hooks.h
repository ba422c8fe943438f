/* hooks.h - webhooks: changes are forwarded to one URL, by POST {"events": [...]}, in their order.

   Changes wait in a ring. As many as fit are taken out of it into a batch, which is sent until an
   answer is 2xx. So each change arrives at least once, and a receiver drops a change whose id it
   has seen before. There is one request at a time:

     RESTING --connect--> CONNECTING --opened, POST--> ASKED --any answer--> RESTING

   What has failed is sent again after 1 s, 2, 4... 60. A refusal that is final (4xx, but not 408,
   425 and 429) is the fault of what was sent: then half of it is sent, down to the one change that
   is refused, and that one is dropped. Beyond MAX_HOOKS or HOOK_BYTES the oldest change in the ring
   is dropped.

   A connection is closed when its answer has begun, but some receivers leave it open for long: of
   those HOOK_CLOSING are not waited for. */

#ifndef FLEET_HOOKS_H
#define FLEET_HOOKS_H

#include "fleet.h"

enum {
    HOOK_BATCH = 100,                         /* changes of a batch, at most */
    HOOK_BODY = 65536,                        /* bytes of a batch, unless one change has more */
    HOOK_BYTES = 33554432,                    /* bytes of the changes in the ring */
    HOOK_ANSWER_MS = 10000,                   /* until the answer's first line */
    HOOK_RETRY_S = 60,                        /* between two attempts, at most */
    HOOK_CLOSING = 8,                         /* connections that are being closed, at most */
    HOOK_HOST = KA_MAX_HOST + 1, HOOK_PATH = 2048
};

struct hooks {
    enum { RESTING, CONNECTING, ASKED } state;
    ka_lookups names;
    uint64_t conn;                            /* ASKED */
    uint64_t closing[HOOK_CLOSING];           /* 0: none */
    int64_t  due_ms;                          /* RESTING: of the next attempt, or 0; ASKED: of the
                                                 answer */
    int      retry_s;                         /* before the next attempt; 0: all is well */
    bool     informed;                        /* an answer of 1xx is being read */
    bool     refused;                         /* the last one that was sent alone was dropped */
    char     why[64];                         /* why what was sent was not taken */
    char     name[HOOK_HOST], host[KA_PLACE_TEXT + 1];      /* without the port, and with it */
    char     path[HOOK_PATH];
    int      port;
    char    *ring[MAX_HOOKS];
    size_t   first, n, bytes;
    size_t   batch_n;                         /* changes of the batch */
    size_t   done, part;                      /* those that are over, and how many are sent next */
    size_t   at[HOOK_BATCH + 1];              /* where each begins in body, with a comma between */
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
    size_t at = 0;
    h->done = 0;
    while (h->n && h->batch_n < HOOK_BATCH) {
        size_t n = strlen(h->ring[h->first]);
        if (h->batch_n && at + n + 1 > HOOK_BODY) break;
        char *text = hooks_take(h);
        memcpy(h->body + at, text, n);
        h->body[at + n] = ',';
        h->at[++h->batch_n] = at += n + 1;
        free(text);
    }
    h->part = h->batch_n;
}

/* Begin an attempt, if there is something to send, and time for it. */
static void hooks_go(fleet *f)
{
    struct hooks *h = f->hooks;
    size_t i = 0;
    while (i < HOOK_CLOSING && h->closing[i]) i++;
    if (h->state != RESTING || (h->retry_s && ka_now_ms() < h->due_ms) || h->batch_n + h->n == 0 ||
        i == HOOK_CLOSING)
        return;
    h->due_ms = 0;
    int r = ka_connect_name(&h->names, &ka_lines, h->name, h->port, TAG_HOOK);
    if (r == KA_OK) h->state = CONNECTING;
    else if (r != KA_ESTOPPED) hooks_failed(f, ka_error_text(r));
}

static void hooks_post(fleet *f, uint64_t conn)
{
    static const char begin[] = "{\"events\": [", end[] = "]}";
    struct hooks *h = f->hooks;
    char head[HOOK_HOST + HOOK_PATH + 256];
    if (!h->batch_n) hooks_fill(h);
    const char *body = h->body + h->at[h->done];
    size_t body_n = h->at[h->done + h->part] - h->at[h->done] - 1;      /* without its last comma */
    int n = snprintf(head, sizeof head,
                     "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: fleet/" KA_VERSION
                     "\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                     h->path, h->host, sizeof begin + sizeof end - 2 + body_n, begin);
    ka_send(f->s, conn, head, (size_t)n);
    ka_send(f->s, conn, body, body_n);
    ka_send(f->s, conn, end, sizeof end - 1);
    h->state = ASKED;
    h->conn = conn;
    h->informed = false;
    hooks_due(f, ka_now_ms() + HOOK_ANSWER_MS);
}

/* It is over with this connection. */
static void hooks_close(fleet *f)
{
    struct hooks *h = f->hooks;
    size_t i = 0;
    while (h->closing[i]) i++;
    h->closing[i] = h->conn;
    h->state = RESTING;
    h->due_ms = 0;
    ka_close(f->s, h->conn);
}

/* What was sent was taken, or it was one change that is dropped. */
static void hooks_settled(fleet *f)
{
    struct hooks *h = f->hooks;
    if (h->retry_s) note("--webhook %s: it takes them again", h->host);
    h->retry_s = 0;
    h->done += h->part;
    if (h->part > h->batch_n - h->done) h->part = h->batch_n - h->done;
    if (h->done == h->batch_n) h->batch_n = 0;
    hooks_go(f);
}

/* What was sent is refused for good. */
static void hooks_refused(fleet *f)
{
    struct hooks *h = f->hooks;
    if (h->part > 1) {
        h->part /= 2;
        hooks_go(f);
        return;
    }
    h->dropped++;
    if (!h->refused) note("--webhook %s: %s to a change alone, which is dropped; GET / counts them",
                          h->host, h->why);
    h->refused = true;
    hooks_settled(f);
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
    const bool final = http && line.p[9] == '4' && memcmp(line.p + 9, "408", 3) != 0 &&
                       memcmp(line.p + 9, "425", 3) != 0 && memcmp(line.p + 9, "429", 3) != 0;
    if (http) snprintf(h->why, sizeof h->why, "it answered %.3s", line.p + 9);
    else snprintf(h->why, sizeof h->why, "what it answers is not HTTP");
    hooks_close(f);
    if (http && line.p[9] == '2') {
        h->sent += h->part;
        h->refused = false;
        hooks_settled(f);
    } else if (final) {
        hooks_refused(f);
    } else {
        hooks_failed(f, h->why);
    }
}

/* A connection has gone. False: it is not one of the webhooks'. */
static bool hooks_closed(fleet *f, uint64_t conn)
{
    struct hooks *h = f->hooks;
    for (size_t i = 0; i < HOOK_CLOSING; i++) {
        if (h->closing[i] != conn) continue;
        h->closing[i] = 0;
        hooks_go(f);
        return true;
    }
    if (h->state != ASKED || h->conn != conn) return false;
    hooks_failed(f, "the connection was lost before an answer");
    return true;
}

static bool hooks_event(fleet *f, const ka_event *ev)
{
    struct hooks *h = f->hooks;
    if (!h) return false;
    if (ev->kind == KA_TIMER && ev->tag == TAG_HOOK) {
        bool due = h->due_ms && ka_now_ms() >= h->due_ms;
        if (due && h->state == ASKED) {
            hooks_close(f);
            snprintf(h->why, sizeof h->why, "it did not answer within %d s", HOOK_ANSWER_MS / 1000);
            hooks_failed(f, h->why);
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
    if (ev->kind == KA_CLOSED) return hooks_closed(f, ev->conn);
    if (ev->kind != KA_MESSAGE || h->state != ASKED || ev->conn != h->conn) return false;
    hooks_answer(f, ev);
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
    ka_json_put_integer(w, "waiting", (int64_t)(h->n + h->batch_n - (h->batch_n ? h->done : 0)));
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
