/* ext/access.h - a log of requests: a line for each answer. Nobody waits for the disk.

   HOW TO INCLUDE: ext/cli.h and ext/log.h before it, with all that they need.
   USE, before ka_listen
        int status = ka_access_start(s, "server", "access.log", false);
        if (status >= 0) return status;

   A LINE: the answer's time, peer, method, path, status, bytes of the body, microseconds
        2026-11-21T09:30:00.123456Z 127.0.0.1:54321 POST / 200 88 15
        {"time": "...", "peer": "...", "method": "POST", "path": "/", "status": 200, ... "us": 15}
   A query may be secret: it is left out. "-" is unknown. A worker's own answers have no line. */

#ifndef KEYAUTH_CLI_H
#error "ext/access.h: include ext/cli.h first"
#endif
#ifndef KEYAUTH_LOG_H
#error "ext/access.h: include ext/log.h first"
#endif
#ifndef KEYAUTH_ACCESS_H
#define KEYAUTH_ACCESS_H
#ifdef __cplusplus
extern "C" {
#endif

/* Log the answers of s from now on, until ka_server_free. Add sources that keep requests for
   themselves later than this one. What goes wrong with the file is told on stderr.
     path       as for ka_log_open; others may rotate it. "-": stderr. NULL: nothing is logged
     returns    -1: go on; else the status to exit with */
KADEF int ka_access_start(ka_server *s, const char *program, const char *path, bool json);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_ACCESS_H */
#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_ACCESS_IMPLEMENTED)
#define KEYAUTH_ACCESS_IMPLEMENTED

enum { KA__ACCESS_OPEN = 1 << 14 };      /* requests that can wait for an answer; older: "-" */

/* A request without an answer. What is longer is cut off. */
typedef struct { uint64_t tag; ka_end peer; char method[24], path[200]; } ka__access_request;

typedef struct {
    ka_source   source;
    const char *program;
    bool        json;
    ka_log     *log;                     /* NULL: stderr */
    uint64_t    tag;                     /* of the last request */
    ka__access_request open[KA__ACCESS_OPEN];
} ka__access;

static bool ka__access_take(ka_source *source, ka_event *ev)
{
    ka__access *a = (ka__access *)source;
    if (ev->kind != KA_REQUEST) return false;
    ev->tag = ++a->tag;
    ka__access_request *q = &a->open[ev->tag % KA__ACCESS_OPEN];
    *q = (ka__access_request){ .tag = ev->tag, .peer = ev->peer, .method = "-", .path = "-" };
    for (size_t i = 0; i < ev->method.n && i + 1 < sizeof q->method; i++)
        q->method[i] = ev->method.p[i];
    for (size_t i = 0; i < ev->target.n && i + 1 < sizeof q->path && ev->target.p[i] != '?'; i++)
        q->path[i] = ev->target.p[i];
    return false;
}

/* No character of a method or a path needs an escape in JSON (RFC 9110 s.5.6.2, RFC 3986 s.2). */
static void ka__access_replied(ka_source *source, const ka_event *ev, int status, size_t bytes)
{
    static const ka__access_request unknown = { .method = "-", .path = "-" };
    ka__access *a = (ka__access *)source;
    const ka__access_request *q = &a->open[ev->tag % KA__ACCESS_OPEN];
    char line[512], time[KA_UTC_TEXT + 1], peer[KA_END_TEXT + 1] = "-", news[KA_TROUBLE_TEXT];
    const long long us = ka_now_us() - ev->since_us;
    if (q->tag != ev->tag) q = &unknown;
    else ka_end_text(peer, q->peer);
    ka_utc_text(time, ka_wall_us());
    int n = snprintf(line, sizeof line, a->json ? "{\"time\": \"%s\", \"peer\": \"%s\", "
                     "\"method\": \"%s\", \"path\": \"%s\", \"status\": %d, \"bytes\": %zu, "
                     "\"us\": %lld}" : "%s %s %s %s %d %zu %lld", time, peer, q->method, q->path,
                     status, bytes, us);
    if (!a->log) ka_say(2, "%s", line);
    else if (ka_log_add(a->log, line, (size_t)n) > 0)
        while (ka_log_news(news, a->log)) ka_say(2, "%s: %s", a->program, news);
}

static void ka__access_freed(ka_source *source)
{
    ka__access *a = (ka__access *)source;
    char news[KA_TROUBLE_TEXT];
    int os_error;
    if (a->log) ka_log_commit(a->log, &os_error);
    while (a->log && ka_log_news(news, a->log)) ka_say(2, "%s: %s", a->program, news);
    ka_log_close(a->log);
    KA_FREE(a);
}

int ka_access_start(ka_server *s, const char *program, const char *path, bool json)
{
    char why[KA_TROUBLE_TEXT];
    int64_t cut;
    int os_error = 0, r = KA_OK;
    ka__access *a = path ? KA_MALLOC(sizeof *a) : NULL;
    if (!path) return -1;
    if (!a) return ka_fail(KA_EXIT_SYSTEM, "%s: %s", program, ka_error_text(KA_ENOMEM));
    memset(a, 0, sizeof *a);
    if (strcmp(path, "-") != 0)
        r = ka_log_open(&a->log, path, json ? "{\"time\": \"" : "2", &cut, &os_error);
    a->source = (ka_source){ .take = ka__access_take, .replied = ka__access_replied,
                             .freed = ka__access_freed };
    a->program = program;
    a->json = json;
    if (r == KA_OK && a->log) ka_log_start(a->log, s, path);
    if (r == KA_OK) ka_source_add(s, &a->source);
    else KA_FREE(a);
    return r == KA_OK ? -1 : ka_fail(KA_EXIT_SYSTEM, "%s: cannot log to %s: %s", program, path,
                                     ka_file_trouble(why, path, r, os_error));
}

#endif /* KEYAUTH_ACCESS_IMPLEMENTED */
/* Public domain or MIT: see the end of keyauth.h. */
