/* ext/lookup.h - the addresses of a host's name, and connecting to it while a thread looks it up.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/framing.h"
         #include "ext/lookup.h"

   USE
         ka_lookups names;
         ka_lookups_init(&names, s);
         ka_connect_name(&names, &ka_lines, "localhost", 7777, 1);
         for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; ) {
             if (ev.kind == KA_OPENED && ev.tag == 1 && ev.error) puts(ka_error_text(ev.error));
             if (ev.kind == KA_OPENED && ev.tag == 1 && !ev.error) ka_send(s, ev.conn, "hi\n", 3);
         }
         ka_lookups_free(&names);
         ka_server_free(s);

   CONTENTS
     ka_place_read, place_text         HOST:PORT and the like, as text
     ka_resolve                        a host's addresses, now
     ka_lookups_init, free, ka_connect_name    connect, while a thread looks the name up
     ka_lookups_next, take             the same in a source of your own

   LIMITS
     A name is looked up anew each time. Of its addresses the first one that can be connected to
     counts. */

#ifndef KEYAUTH_H
#error "ext/lookup.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_LOOKUP_H
#define KEYAUTH_LOOKUP_H

#ifdef __cplusplus
extern "C" {
#endif

/* Look up the addresses of a host's name (getaddrinfo(3)). This may take seconds: call it before
   there is anything to serve, or use ka_connect_name.
     host       a name, or a numeric address
     ips        the addresses, as many as fit, the best one first, with commas between
     returns    KA_OK; KA_ENOTFOUND: there is no such name, or it has no address; KA_ETIME: no name
                server answers; KA_ENOMEM, KA_EOS */
KADEF int ka_resolve(const char *host, char ips[KA_IPS_TEXT + 1]);

enum { KA_PLACE_TEXT = KA_MAX_HOST + 8 };      /* characters of a host and a port */

/* Write a host and a port as text, and a NUL: a.example:80, [::1]:80; unix:PATH and fd:N as such.
   Returns out. */
KADEF const char *ka_place_text(char out[KA_PLACE_TEXT + 1], const char *host, int port);

/* Read a host and a port as ka_place_text writes them.
     *port      0: a port is needed; else it may be missing, and then *port stays
     returns    KA_OK or KA_ESYNTAX */
KADEF int ka_place_read(char host[KA_MAX_HOST + 1], int *port, ka_str text);

enum { KA_MAX_LOOKUPS = 16 };    /* names of one ka_lookups at a time */

/* Names that are being looked up, or connected to. */
typedef struct {
    ka_source source;            /* its own; due when a name was found */
    ka_server *server;
    struct ka__lookup *first;    /* a list */
} ka_lookups;

/* Set up *l, and add its source to s, whose parent's thread calls these functions. */
KADEF void ka_lookups_init(ka_lookups *l, ka_server *s);

/* As ka_connect, to a host's name or numeric address. A name is looked up in a thread of its
   own by ka_resolve. That takes as long as the system's resolver likes, which may be longer than
   KA_ATTEMPT_MS. The KA_OPENED event, which comes through the source, also tells KA_ENOTFOUND (the
   name has no address), KA_ETIME (no name server answers), KA_EINVAL (its address can't be
   connected to, as 0.0.0.0) and KA_ENOMEM.
     host       1 to KA_MAX_HOST bytes; copied
     returns    as ka_connect, or KA_ENOMEM, KA_ETHREAD, KA_ELIMIT (KA_MAX_LOOKUPS names are under
                way) */
KADEF int ka_connect_name(ka_lookups *l, const ka_framing *framing, const char *host, int port,
                          uint64_t tag);

/* What the source does: connect to what was found.
   A source may call this for a ka_lookups of its own, { .server = s }, which was not added to s.
     *ev        after true: a KA_OPENED event with an error, since nothing could be connected to
     returns    is there such an event? */
KADEF bool ka_lookups_next(ka_lookups *l, ka_event *ev);

/* What the source does with a KA_OPENED event: after an error, connect to the name's next address.
   A source with a ka_lookups of its own calls this, too.
     returns    true: another address is tried, so do not pass the event on */
KADEF bool ka_lookups_take(ka_lookups *l, const ka_event *ev);

/* Forget the names that are being looked up. This does not wait for their threads, which free their
   own memory. Call it before ka_server_free. Harmless if *l is zero, or twice. */
KADEF void ka_lookups_free(ka_lookups *l);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_LOOKUP_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_LOOKUP_IMPLEMENTED)
#define KEYAUTH_LOOKUP_IMPLEMENTED

#ifndef AI_PASSIVE                /* Windows has it with its sockets, which keyauth.h includes */
#  include <netdb.h>
#endif
#include <stdio.h>
#include <string.h>

const char *ka_place_text(char out[KA_PLACE_TEXT + 1], const char *host, int port)
{
    const bool socket = strncmp(host, "unix:", 5) == 0 || strncmp(host, "fd:", 3) == 0;
    if (socket) snprintf(out, KA_PLACE_TEXT + 1, "%s", host);
    else snprintf(out, KA_PLACE_TEXT + 1, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
    return out;
}

int ka_place_read(char host[KA_MAX_HOST + 1], int *port, ka_str s)
{
    static const char may[] =
        ":%abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    const size_t six = s.n > 0 && *s.p == '[', skip = six ? 0 : 2;      /* no : and % in a name */
    size_t n = six;
    int number = 0;
    while (n < s.n && memchr(may + skip, s.p[n], sizeof may - 1 - skip)) n++;
    if (n == six || n - six > KA_MAX_HOST) return KA_ESYNTAX;
    snprintf(host, KA_MAX_HOST + 1, "%.*s", (int)(n - six), s.p + six);
    if (six && (n == s.n || s.p[n++] != ']')) return KA_ESYNTAX;
    if (n == s.n && *port > 0) return KA_OK;
    if (n == s.n || s.p[n] != ':' || s.n - n > 6) return KA_ESYNTAX;
    while (++n < s.n && s.p[n] >= '0' && s.p[n] <= '9') number = 10 * number + s.p[n] - '0';
    *port = number;
    return n == s.n && number > 0 && number <= 65535 ? KA_OK : KA_ESYNTAX;
}

static int ka__resolve_error(int code)
{
    switch (code) {
    case 0:          return KA_OK;
    case EAI_AGAIN:  return KA_ETIME;
    case EAI_MEMORY: return KA_ENOMEM;
#if defined(EAI_NODATA) && EAI_NODATA != EAI_NONAME
    case EAI_NODATA:
#endif
#if defined(EAI_ADDRFAMILY)
    case EAI_ADDRFAMILY:
#endif
    case EAI_NONAME: return KA_ENOTFOUND;
    default:         return KA_EOS;
    }
}

int ka_resolve(const char *host, char ips[KA_IPS_TEXT + 1])
{
    struct addrinfo wanted, *found = NULL;
    char ip[NI_MAXHOST];
    size_t n = 0;
    memset(&wanted, 0, sizeof wanted);
    wanted.ai_socktype = SOCK_STREAM;
    int r = *host ? ka_network_start() : KA_ENOTFOUND;      /* Windows takes "" for this machine */
    if (r == KA_OK) r = ka__resolve_error(getaddrinfo(host, NULL, &wanted, &found));
    if (r < 0) return r;
    for (struct addrinfo *one = found; one; one = one->ai_next) {
        if (getnameinfo(one->ai_addr, (socklen_t)one->ai_addrlen, ip, sizeof ip, NULL, 0,
                        NI_NUMERICHOST) != 0) continue;
        if (n + 1 + strlen(ip) <= KA_IPS_TEXT)
            n += (size_t)snprintf(ips + n, KA_IPS_TEXT + 1 - n, "%s%s", n ? "," : "", ip);
    }
    freeaddrinfo(found);
    return n ? KA_OK : KA_ENOTFOUND;
}

/* The state of a lookup. Its thread and the parent own it by turns:

     SEEKING --the name was looked up--> WAKING --the server was woken--> FOUND ----> TRYING
        |                                 the thread uses the server      the parent connects,
        +--ka_lookups_free--> ORPHANED                                    and frees it
                              its thread frees it */
enum {
    KA__LOOKUP_SEEKING, KA__LOOKUP_WAKING, KA__LOOKUP_FOUND, KA__LOOKUP_TRYING, KA__LOOKUP_ORPHANED
};

struct ka__lookup {
    struct ka__lookup *next;
    ka_server   *server;
    const ka_framing *framing;
    uint64_t     tag;
    _Atomic(int) state;
    int          port, error;
    char         ips[KA_IPS_TEXT + 1], host[KA_MAX_HOST + 1];
    const char  *left;              /* the addresses that were not tried yet */
};

static void ka__lookup_run(void *arg)
{
    struct ka__lookup *one = arg;
    int seeking = KA__LOOKUP_SEEKING;
    one->error = ka_resolve(one->host, one->ips);
    one->left = one->error ? "" : one->ips;
    if (!atomic_compare_exchange_strong(&one->state, &seeking, KA__LOOKUP_WAKING)) {
        KA_FREE(one);
        return;
    }
    ka_wake(one->server);
    atomic_store(&one->state, KA__LOOKUP_FOUND);
}

/* Wait for the thread's last step. */
static void ka__lookup_await(struct ka__lookup *one)
{
    while (atomic_load(&one->state) == KA__LOOKUP_WAKING) ka_sleep_ms(1);
}

/* Connect to the next address of those that are left. */
static int ka__lookup_connect(struct ka__lookup *one)
{
    char ip[KA_IP_TEXT + 1];
    int r = one->error ? one->error : KA_ENOTFOUND;
    while (r < 0 && ka_next_ip(&one->left, ip))
        r = ka_connect(one->server, one->framing, NULL, ip, one->port, one->tag);
    return r;
}

static void ka__lookup_remove(struct ka__lookup **at)
{
    struct ka__lookup *one = *at;
    *at = one->next;
    KA_FREE(one);
}

static bool ka__lookup_source_next(ka_source *source, ka_event *ev)
{
    bool more = ka_lookups_next((ka_lookups *)source, ev);
    source->due_ms = more ? ev->now_ms : INT64_MAX;
    return more;
}

static bool ka__lookup_source_take(ka_source *source, ka_event *ev)
{
    return ka_lookups_take((ka_lookups *)source, ev);
}

void ka_lookups_init(ka_lookups *l, ka_server *s)
{
    *l = (ka_lookups){
        .source = { .next = ka__lookup_source_next, .take = ka__lookup_source_take,
                    .due_ms = INT64_MAX },
        .server = s,
    };
    ka_source_add(s, &l->source);
}

int ka_connect_name(ka_lookups *l, const ka_framing *framing, const char *host, int port,
                    uint64_t tag)
{
    size_t n = strlen(host), others = 0;
    int r = ka_connect(l->server, framing, NULL, host, port, tag);
    if (r != KA_EINVAL) return r;        /* else it may be a name */
    if (!framing || port < 1 || port > 65535 || n == 0 || n > KA_MAX_HOST) return KA_EINVAL;
    if (ka_is_stopping(l->server)) return KA_ESTOPPED;
    for (struct ka__lookup *one = l->first; one; one = one->next) others++;
    if (others == KA_MAX_LOOKUPS) return KA_ELIMIT;
    struct ka__lookup *one = KA_MALLOC(sizeof *one);
    if (!one) return KA_ENOMEM;
    *one = (struct ka__lookup){ .next = l->first, .server = l->server, .framing = framing,
                                .tag = tag, .port = port };
    memcpy(one->host, host, n + 1);
    r = ka_thread(ka__lookup_run, one);
    if (r == KA_OK) l->first = one;
    else KA_FREE(one);
    return r;
}

bool ka_lookups_next(ka_lookups *l, ka_event *ev)
{
    for (struct ka__lookup **at = &l->first, *one; (one = *at) != NULL; ) {
        int state = atomic_load(&one->state), error;
        if (state == KA__LOOKUP_WAKING) ka__lookup_await(one);
        if (state == KA__LOOKUP_SEEKING || state == KA__LOOKUP_TRYING) {
            at = &one->next;
        } else if ((error = ka__lookup_connect(one)) == KA_OK) {
            atomic_store(&one->state, KA__LOOKUP_TRYING);
        } else {
            *ev = (ka_event){ .kind = KA_OPENED, .error = error, .listener = -1, .tag = one->tag,
                              .now_ms = ev->now_ms };
            ka__lookup_remove(at);
            return true;
        }
    }
    return false;
}

bool ka_lookups_take(ka_lookups *l, const ka_event *ev)
{
    struct ka__lookup **at = &l->first;
    if (ev->kind != KA_OPENED || ev->listener != -1) return false;
    while (*at && (atomic_load(&(*at)->state) != KA__LOOKUP_TRYING || (*at)->tag != ev->tag))
        at = &(*at)->next;
    if (!*at) return false;
    if (ev->error && ka__lookup_connect(*at) == KA_OK) return true;
    ka__lookup_remove(at);
    return false;
}

void ka_lookups_free(ka_lookups *l)
{
    if (l->source.next) ka_source_remove(l->server, &l->source);
    l->source.next = NULL;
    for (struct ka__lookup *one = l->first, *next; one; one = next) {
        int seeking = KA__LOOKUP_SEEKING;
        next = one->next;
        if (atomic_compare_exchange_strong(&one->state, &seeking, KA__LOOKUP_ORPHANED)) continue;
        ka__lookup_await(one);
        KA_FREE(one);
    }
    l->first = NULL;
}

#endif /* KEYAUTH_LOOKUP_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
