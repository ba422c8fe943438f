/* ext/service.h - a service manager: tell it how this process is, and take the sockets that it has
   (sd_notify(3), sd_listen_fds(3)).

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/service.h"

   USE, before ka_listen; deploy/ has units of systemd
         static ka_service service;
         static ka_listeners listeners;          // of ext/cli.h
         ka_service_start(&service, s);
         return ka_listen_all(&listeners, s, NULL, "server", ka_service_ips("127.0.0.2"), 9999);

   LIMITS
     Linux. Elsewhere, or where $NOTIFY_SOCKET is not set, nothing is told, and nothing taken. */

#ifndef KEYAUTH_H
#error "ext/service.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_SERVICE_H
#define KEYAUTH_SERVICE_H

#ifdef __cplusplus
extern "C" {
#endif

/* What was told so far. */
typedef struct {
    ka_source  source;           /* its own */
    ka_server *server;
    int64_t    every_ms;         /* WATCHDOG=1 is due so often; 0: never */
    bool       ready, stopping;
} ka_service;

/* From now on tell READY=1 when s has begun to listen, STOPPING=1 when it was told to stop, and
   WATCHDOG=1 twice in each $WATCHDOG_USEC as long as ka_wait is called. The environment must not be
   changed by other threads meanwhile. *v stays where it is until ka_server_free. */
KADEF void ka_service_start(ka_service *v, ka_server *s);

/* The sockets that the manager listens on, and has given to this process by $LISTEN_FDS, as
   ka_listen takes them, with commas between: "fd:3,fd:4", static; or else `otherwise`. */
KADEF const char *ka_service_ips(const char *otherwise);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_SERVICE_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_SERVICE_IMPLEMENTED)
#define KEYAUTH_SERVICE_IMPLEMENTED

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef SOCK_CLOEXEC      /* Linux, by keyauth.h's system headers */
#include <stddef.h>
#include <sys/un.h>
#include <unistd.h>

/* A path, or @ and a name that is in no folder (man 7 unix, abstract sockets). Nobody waits for the
   manager to read. */
static void ka__service_tell(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n > sizeof a.sun_path || (*path != '/' && *path != '@')) return;
    memcpy(a.sun_path, path, n);
    if (*path == '@') a.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    (void)sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&a,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

/* $WATCHDOG_PID is the process that $WATCHDOG_USEC is for (man 3 sd_watchdog_enabled). */
static int64_t ka__service_every_ms(void)
{
    const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!us || (pid && atoll(pid) != (long long)getpid())) return 0;
    int64_t half_ms = atoll(us) / 2000;
    return half_ms > 0 ? half_ms : 0;
}

/* From 3 up, as many as $LISTEN_FDS says, if $LISTEN_PID is this process. */
const char *ka_service_ips(const char *otherwise)
{
    static char ips[KA_IPS_TEXT + 1];
    const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    int n = fds && pid && atoll(pid) == (long long)getpid() ? atoi(fds) : 0;
    size_t at = 0;
    for (int fd = 3; fd < 3 + n && fd < 3 + KA_MAX_LISTENERS; fd++)
        at += (size_t)snprintf(ips + at, sizeof ips - at, "%sfd:%d", at ? "," : "", fd);
    return n > 0 ? ips : otherwise;
}
#else
static void ka__service_tell(const char *text) { (void)text; }
static int64_t ka__service_every_ms(void) { return 0; }
const char *ka_service_ips(const char *otherwise) { return otherwise; }
#endif

static bool ka__service_take(ka_source *source, ka_event *ev)
{
    ka_service *v = (ka_service *)source;
    if (ev->kind != KA_LISTENING || ev->error || v->ready) return false;
    ka__service_tell("READY=1");
    v->ready = true;
    return false;
}

static bool ka__service_next(ka_source *source, ka_event *ev)
{
    ka_service *v = (ka_service *)source;
    if (v->ready) ka__service_tell("WATCHDOG=1");
    source->due_ms = ev->now_ms + v->every_ms;
    return false;
}

static void ka__service_batch_end(ka_source *source)
{
    ka_service *v = (ka_service *)source;
    if (v->stopping || !ka_is_stopping(v->server)) return;
    ka__service_tell("STOPPING=1");
    v->stopping = true;
}

void ka_service_start(ka_service *v, ka_server *s)
{
    *v = (ka_service){
        .source = { .take = ka__service_take, .batch_end = ka__service_batch_end,
                    .due_ms = INT64_MAX },
        .server = s, .every_ms = ka__service_every_ms(),
    };
    if (v->every_ms) {
        v->source.next = ka__service_next;
        v->source.due_ms = ka_now_ms();
    }
    ka_source_add(s, &v->source);
}

#endif /* KEYAUTH_SERVICE_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
