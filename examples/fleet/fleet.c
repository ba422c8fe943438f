/* fleet - a gateway for devices: TCP for them, REST for people, several instances over Redis as if they were one.
     cc -O2 -pthread -I. -o examples/fleet/fleet examples/fleet/fleet.c */

#define KEYAUTH_IMPLEMENTATION
#include "fleet.h"
#include "devices.h"
#include "state.h"
#include "share.h"
#include "page.h"
#include "rest.h"
#include "hooks.h"
#include "simulator.h"

const char *const change_names[] = { "online", "offline", "position", "charge", "running", "frequency", "blob" };

static int fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("fleet: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

static bool number(const char *text, long long least, long long most, long long *out)
{
    char *end;
    if (*text < '0' || *text > '9' || strlen(text) > 18) return false;
    *out = strtoll(text, &end, 10);
    return *end == 0 && *out >= least && *out <= most;
}

static int address(const char *option, const char *text, size_t n, char ip[16], int *port)
{
    (void)option; (void)text; (void)n; (void)ip; (void)port;
    return -1;
}

static void handle(fleet *f, const ka_event *ev)
{
    if (share_event(f, ev) || hooks_event(f, ev)) return;
    if (ev->kind == KA_TIMER && ev->tag == TAG_TICK) {
        devices_tick(f, ev->now_ms);
        share_tick(f, ev->now_ms);
        state_tick(f);
        rest_tick(f);
        ka_timer(f->s, ev->now_ms + TICK_MS, TAG_TICK);
    } else if (ev->kind == KA_TIMER) {
        call_timeout(f, ev->tag >> 8);
    }
}

int main(int argc, char **argv)
{
    fleet f = { .ip = "127.0.0.1" };
    if (argc > 1 && strcmp(argv[1], "device") == 0) return simulate(argc, argv);
    if (ka_server_start(&f.s, 1) < 0) return EXIT_FAILED;
    if (devices_start(&f) < 0 || state_open(&f) >= 0 || rest_start(&f) >= 0 || share_start(&f) >= 0 || hooks_start(&f) >= 0) return EXIT_FAILED;
    for (ka_event ev; ka_wait(f.s, &ev, -1) == KA_OK; ) handle(&f, &ev);
    return EXIT_DONE;
}
