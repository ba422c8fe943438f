/* ext/metrics.h - figures of a server for Prometheus: GET /metrics, on a listener of its own.

   HOW TO INCLUDE: keyauth.h, and of ext/: input.h, lookup.h, cli.h, route.h, site.h before it.
   USE; at the end the program returns metrics.status
        static void more(ka_metrics *m) {
            ka_metrics_put(m, "chat_rooms", "Rooms now.", *(int *)m->arg);
        }
        static int rooms = 1;
        static ka_metrics metrics = { .more = more, .arg = &rooms };
        int status = ka_metrics_start(&metrics, s, "chat", "127.0.0.1:9100");
        if (status >= 0) return status;

   LIMITS: what a worker answers by itself is not counted. Whoever can connect can read the figures,
   except pages of other sites. */

#ifndef KEYAUTH_CLI_H
#error "ext/metrics.h: include ext/cli.h first"
#endif
#ifndef KEYAUTH_ROUTE_H
#error "ext/metrics.h: include ext/route.h first"
#endif
#ifndef KEYAUTH_SITE_H
#error "ext/metrics.h: include ext/site.h first"
#endif
#ifndef KEYAUTH_METRICS_H
#define KEYAUTH_METRICS_H
#ifdef __cplusplus
extern "C" {
#endif

enum { KA_METRICS_TEXT = 1 << 15, KA_METRICS_TIMES = 16 };

typedef struct ka_metrics {
    ka_source    source;                            /* its own, as is what has no word here */
    void       (*more)(struct ka_metrics *m);       /* yours: adds figures to a page; NULL: none */
    void        *arg;                               /* yours */
    int          status;          /* the status to exit with: its listener has failed; else 0 */
    ka_server   *server;
    const char  *program;
    ka_listeners listeners;
    size_t       of_status[600], of_time[KA_METRICS_TIMES + 1], n;
    int64_t      us;              /* that all answers took together */
    char         text[KA_METRICS_TEXT];
} ka_metrics;

/* Count the answers of s, and answer GET /metrics at a place. *m stays there until ka_server_free.
     place      HOST:PORT, as ka_place_read reads it. NULL: nothing is done
     returns    -1: go on; else the status to exit with. If nothing can listen there, s is told to
                stop later, with a word on stderr */
KADEF int ka_metrics_start(ka_metrics *m, ka_server *s, const char *program, const char *place);

/* Add a figure to a page; for `more`. If its name ends with _total it is a counter, which only
   grows; else it is a gauge. */
KADEF void ka_metrics_put(ka_metrics *m, const char *name, const char *help, double value);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_METRICS_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_METRICS_IMPLEMENTED)
#define KEYAUTH_METRICS_IMPLEMENTED
enum { KA__METRICS_US = 100 };      /* the histogram's first bound; each other is twice the last */

static void ka__metrics_add(ka_metrics *m, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(m->text + m->n, sizeof m->text - m->n, format, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof m->text - m->n) m->n += (size_t)n;
}

void ka_metrics_put(ka_metrics *m, const char *name, const char *help, double value)
{
    const char *type = strstr(name, "_total") ? "counter" : "gauge";
    ka__metrics_add(m, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
    ka__metrics_add(m, "%s %.15g\n", name, value);
}

/* Prometheus's text format, 0.0.4. */
static void ka__metrics_page(ka_metrics *m)
{
    ka_stats stats;
    size_t n = 0;
    ka_server_stats(m->server, &stats);
    ka_metrics_put(m, "keyauth_connections", "Connections now.", (double)stats.connections);
    ka__metrics_add(m, "# HELP keyauth_answers_total Answers, by their status.\n"
                       "# TYPE keyauth_answers_total counter\n");
    for (int i = 0; i < 600; i++)
        if (m->of_status[i])
            ka__metrics_add(m, "keyauth_answers_total{status=\"%d\"} %zu\n", i, m->of_status[i]);
    ka__metrics_add(m, "# HELP keyauth_answer_seconds Time from a request to its answer.\n"
                       "# TYPE keyauth_answer_seconds histogram\n");
    for (int i = 0; i < KA_METRICS_TIMES; i++)
        ka__metrics_add(m, "keyauth_answer_seconds_bucket{le=\"%g\"} %zu\n",
                        (KA__METRICS_US << i) / 1e6, n += m->of_time[i]);
    n += m->of_time[KA_METRICS_TIMES];
    ka__metrics_add(m, "keyauth_answer_seconds_bucket{le=\"+Inf\"} %zu\nkeyauth_answer_seconds_sum"
                       " %.15g\nkeyauth_answer_seconds_count %zu\n", n, (double)m->us / 1e6, n);
    if (m->more) m->more(m);
}

static void ka__metrics_answer(ka_metrics *m, const ka_event *ev)
{
    static const char fields[] = "Content-Type: text/plain; version=0.0.4\r\nAllow: GET, HEAD\r\n";
    ka_str query, path = ka_path(ev->target, &query);
    const bool reads = ka_is(ev->method, "GET") || ka_is(ev->method, "HEAD");
    int status = ev->status ? ev->status : ka_cross_site(ev, NULL, 0) ? 403 :
                 ka_path_fits(path, "/metrics", NULL) < 0 ? 404 : reads ? 200 : 405;
    m->n = 0;
    if (status == 200) ka__metrics_page(m);
    ka_reply(m->server, ev, status, fields, m->text, m->n);
}

static bool ka__metrics_take(ka_source *source, ka_event *ev)
{
    ka_metrics *m = (ka_metrics *)source;
    if (ev->kind != KA_LISTENING && ev->kind != KA_REQUEST) return false;
    if (!ka_is_listener(&m->listeners, ev->listener)) return false;
    if (ev->kind == KA_REQUEST) ka__metrics_answer(m, ev);
    else if (ev->error) m->status = ka_listen_fail(m->program, &m->listeners, "--metrics", ev);
    if (m->status) ka_stop(m->server);
    return true;
}

static void ka__metrics_replied(ka_source *source, const ka_event *ev, int status, size_t n)
{
    ka_metrics *m = (ka_metrics *)source;
    int64_t us = ka_now_us() - ev->since_us;
    int i = 0;
    (void)n;
    while (i < KA_METRICS_TIMES && us > KA__METRICS_US << i) i++;
    m->of_status[status]++;
    m->of_time[i]++;
    m->us += us;
}

int ka_metrics_start(ka_metrics *m, ka_server *s, const char *program, const char *place)
{
    char host[KA_MAX_HOST + 1];
    int port = 0;
    if (!place) return -1;
    if (ka_place_read(host, &port, (ka_str){ place, strlen(place) }) < 0)
        return ka_fail(KA_EXIT_USAGE, "%s: --metrics %s: HOST:PORT is needed", program, place);
    m->source = (ka_source){ .take = ka__metrics_take, .replied = ka__metrics_replied };
    m->server = s;
    m->program = program;
    ka_source_add(s, &m->source);
    return ka_listen_all(&m->listeners, s, NULL, program, host, port);
}
#endif /* KEYAUTH_METRICS_IMPLEMENTED */
/* Public domain or MIT: see the end of keyauth.h. */
