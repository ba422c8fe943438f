/* chat - lines of text: what one says is told to all others. With an upstream, another chat server,
   its guests hear ours, and ours hear them.
     cc -O2 -pthread -I.. -o chat chat.c
     ./chat 7777             a server; talk to it by nc 127.0.0.1 7777
     ./chat 7778 7777        a second one, whose upstream is the first
   It prints what goes wrong; Ctrl+C stops it. */
#define KEYAUTH_STATIC
#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include "ext/input.h"
#include "ext/framing.h"
#include "ext/peers.h"
#include "ext/timer.h"
#include <stdio.h>
#include <stdlib.h>

static const char IP[] = "127.0.0.1";
enum { UPSTREAM = 1 };      /* the tag of its connection, and of the timer until the next attempt */

/* Pass a line on to all but one. */
static void pass_on(const ka_peers *all, uint64_t but, const char *name, ka_str line)
{
    char text[KA_MAX_BODY + 2];      /* a longer line is cut off: to a chat it would be an error */
    int n = snprintf(text, sizeof text, "%s%s%.*s", name, *name ? ": " : "", (int)line.n, line.p);
    if (n > KA_MAX_BODY) n = KA_MAX_BODY;
    text[n++] = '\n';
    ka_peers_send(all, but, text, (size_t)n);
}

int main(int argc, char **argv)
{
    ka_server *s;
    ka_peers all;
    ka_timers timers;
    int upstream = argc > 2 ? atoi(argv[2]) : 0, r;
    if (argc < 2) return fputs("usage: chat PORT [UPSTREAM-PORT]\n", stderr), 2;
    if (ka_server_start(&s, 1) < 0 || ka_stop_on_interrupt(s) < 0) return 1;
    ka_peers_init(&all, s, sizeof(bool));      /* of each: is it the upstream? */
    ka_timers_init(&timers, s);
    ka_listen_as(s, &ka_lines, IP, atoi(argv[1]));
    if (upstream) ka_timer(&timers, 0, UPSTREAM);
    for (ka_event ev; (r = ka_wait(s, &ev, -1)) == KA_OK; ) {
        bool *is_upstream = ka_peer(&all, ev.conn), theirs = is_upstream && *is_upstream;
        if (ev.kind == KA_TIMER &&
            ka_connect(s, &ka_lines, NULL, IP, upstream, UPSTREAM) == KA_EINVAL)
            fputs("chat: no such UPSTREAM-PORT\n", stderr);
        if (ev.kind == KA_OPENED && ev.listener == -1 && !ev.error) *is_upstream = true;
        if ((ev.kind == KA_OPENED && ev.error) || (ev.kind == KA_CLOSED && theirs))
            ka_timer(&timers, ev.now_ms + 1000, UPSTREAM);
        if (ev.kind == KA_MESSAGE && !ev.error) {
            char name[KA_END_TEXT + 1];
            pass_on(&all, ev.conn, theirs ? "" : ka_end_text(name, ev.peer), ev.body);
        }
    }
    if (r != KA_ESTOPPED) fprintf(stderr, "chat: %s:%s: %s\n", IP, argv[1], ka_error_text(r));
    ka_server_free(s);
    ka_timers_free(&timers);
    ka_peers_free(&all);
    return r != KA_ESTOPPED;
}
