/* fleet - a gateway for devices: TCP for them, REST for people, several instances as one.
     cc -O2 -pthread -I. -o examples/fleet/fleet examples/fleet/fleet.c
     examples/fleet/fleet server                   devices on 127.0.0.1:4000, people on
                                                   http://127.0.0.1:3000/docs
     examples/fleet/fleet device 127.0.0.1 4000    a device, simulated
   fleet.h has its design; devices.h the protocol of the devices. */

#define KEYAUTH_IMPLEMENTATION
#include "devices.h"
#include "fleet.h"
#include "hooks.h"
#include "rest.h"
#include "share.h"
#include "simulator.h"
#include "state.h"

const char *const change_names[] = {
    "online", "offline", "position", "charge", "running", "frequency", "blob"
};

static const char usage[] =
    "usage: fleet server [--ip 127.0.0.1] [--tcp-port 4000] [--rest-port 3000]\n"
    "                    [--heartbeat SECONDS] [--timeout SECONDS]\n"
    "                    [--redis ADDRESS | --state FILE]\n"
    "                    [--webhook URL] [--token-file FILE] [--host NAME,...] [--workers N]\n"
    "       fleet device [OPTION...] HOST PORT\n"
    "       fleet --help | fleet device --help | fleet --version\n"
    "\n"
    "server: devices connect to the TCP port. People and their programs use the REST port:\n"
    "http://IP:PORT/docs shows how.\n"
    "  --ip IP,...        listen on these addresses, or on those of a host's name (default\n"
    "                     127.0.0.1)\n"
    "  --tcp-port PORT    the devices' port (default 4000); 0: the system chooses one\n"
    "  --rest-port PORT   the people's port (default 3000); 0: the system chooses one\n"
    "  --redis ADDRESS    all instances with the same Redis and prefix are one fleet.\n"
    "                     ADDRESS: HOST:PORT or redis://[USER[:PASSWORD]@]HOST[:PORT]. Options\n"
    "                     may follow: ,user=NAME ,prefix=TEXT (default fleet:)\n"
    "                     ,password-file=FILE ,password=WORD (ps shows WORD). The default\n"
    "                     password is $KEYAUTH_REDIS_PASSWORD\n"
    "  --state FILE       keep the devices in FILE (default: in memory). Not with --redis\n"
    "  --heartbeat S      a device that is silent for 3 * S seconds is offline (default 60)\n"
    "  --timeout S        seconds that a device has to reply to a command (default 5)\n"
    "  --webhook URL      POST each change to this http:// address\n"
    "  --token-file FILE  commands need the bearer token in FILE (default: commands need none,\n"
    "                     and are served on 127.0.0.0/8 only)\n"
    "  --host NAME,...    serve people under these hosts, localhost and 127.0.0.0/8 only. *: any\n"
    "                     host (default: any; on 127.0.0.0/8 without a token: localhost and\n"
    "                     127.0.0.0/8)\n"
    "  --workers N        run connections in N threads, 1 to 64 (default 1)\n"
    "\n"
    "device: simulates devices; fleet device --help lists its options.\n"
    "\n"
    "To begin, start fleet server. In another window start\n"
    "fleet device --count 20 127.0.0.1 4000. Open http://127.0.0.1:3000/docs in a browser.\n"
    "\n"
    "Exit status: 0 stopped by Ctrl+C or SIGTERM; 1 could not run; 2 wrong usage.\n";

/* -1: go on; otherwise exit with this. */
static int parse(fleet *f, char **argv)
{
    const ka_option known[] = {
        { "--ip", .text = &f->ip },
        { "--redis", .text = &f->redis },
        { "--state", .text = &f->state_file },
        { "--webhook", .text = &f->hook },
        { "--token-file", .text = &f->token_file },
        { "--host", .text = &f->hosts },
        { "--tcp-port", .number = &f->tcp_port, .most = 65535 },
        { "--rest-port", .number = &f->rest_port, .most = 65535 },
        { "--heartbeat", .number = &f->heartbeat_s, .least = 1, .most = 86400 },
        { "--timeout", .number = &f->timeout_s, .least = 1, .most = 3600 },
        { "--workers", .number = &f->workers, .least = 1, .most = KA_MAX_WORKERS },
        { .name = NULL }
    };
    int status = ka_options(known, "fleet server", usage, argv);
    if (status >= 0) return status;
    if (f->state_file && f->redis)
        return fail(EXIT_USAGE, "--state with --redis: Redis keeps the devices; leave one of them "
                    "out");
    if (f->hosts && !ka_hosts_valid(f->hosts))
        return fail(EXIT_USAGE, "--host %s: names without ports are needed, with commas between, "
                    "such as fleet.example,www.example; or * for any", f->hosts);
    f->loopback = true;
    return -1;
}

/* -1: go on; otherwise exit with this. */
static int listen_to(fleet *f)
{
    int status = ka_listen_all(&f->tcp_listeners, f->s, &ka_objects, "fleet", f->ip,
                               (int)f->tcp_port);
    if (status >= 0) return status;
    return ka_listen_all(&f->rest_listeners, f->s, NULL, "fleet", f->ip, (int)f->rest_port);
}

static bool is_loopback(ka_end e)
{
    static const unsigned char four[13] = { [10] = 0xFF, [11] = 0xFF, [12] = 127 },
                               six[16] = { [15] = 1 };
    return e.local || memcmp(e.ip, four, sizeof four) == 0 || memcmp(e.ip, six, sizeof six) == 0;
}

static void tell_place(const fleet *f, const ka_listeners *l, const char *format)
{
    char text[KA_PLACE_TEXT + 1];
    for (int i = l->first; i < l->first + l->n; i++) {
        const ka_event ev = { .listener = i, .port = f->ports[i] };
        if (ev.port >= 0) ka_say(1, format, ka_listener_text(text, l, &ev));
    }
}

/* 0: go on; otherwise exit with this. Says so when all listen. */
static int on_listening(fleet *f, const ka_event *ev)
{
    const bool rest = ka_is_listener(&f->rest_listeners, ev->listener);
    ka_listeners *l = rest ? &f->rest_listeners : &f->tcp_listeners;
    const char *option = rest ? "--rest-port" : "--tcp-port";
    int status = ev->error ? ka_listen_fail("fleet", l, option, ev) : 0;
    if (status) return status;
    f->ports[ev->listener] = ev->error ? -1 : ev->port;
    if (!ev->error) f->loopback = f->loopback && is_loopback(ev->peer);
    if (++f->ports_heard < f->tcp_listeners.n + f->rest_listeners.n) return 0;
    ka_say(1, "instance %s", f->id);
    tell_place(f, &f->tcp_listeners, "devices on %s");
    tell_place(f, &f->rest_listeners, "people on http://%s/docs");
    return 0;
}

static void on_timer(fleet *f, const ka_event *ev)
{
    if ((ev->tag & 255) == TAG_CALL) call_timeout(f, ev->tag >> 8);
    if ((ev->tag & 255) == TAG_NEXT) call_due(f, ev->tag >> 8);
    if (ev->tag != TAG_TICK) return;
    devices_tick(f, ev->now_ms);
    share_tick(f, ev->now_ms);
    state_tick(f);
    rest_tick(f);
    ka_timer(&f->timers, ev->now_ms + TICK_MS, TAG_TICK);
}

/* A connection's listener tells whether its events are for the devices or for REST. A message and a
   close don't have it, but devices have a link. */
static void handle(fleet *f, const ka_event *ev)
{
    if (hooks_event(f, ev)) return;
    if (ev->kind == KA_TIMER) on_timer(f, ev);
    else if (ev->kind == KA_OPENED ? ka_is_listener(&f->tcp_listeners, ev->listener)
                                   : link_of(f, ev->conn) != NULL)
        devices_event(f, ev);
    else rest_event(f, ev);
}

static int serve(fleet *f)
{
    int status = EXIT_DONE;
    ka_timer(&f->timers, ka_now_ms(), TAG_TICK);
    for (ka_event ev; ka_wait(f->s, &ev, -1) == KA_OK; ) {
        if (ev.kind != KA_LISTENING) handle(f, &ev);
        else if (!status && (status = on_listening(f, &ev)) != 0) ka_stop(f->s);
    }
    return status;
}

/* -1: go on; otherwise exit with this. */
static int start(fleet *f)
{
    int r = ka_server_start(&f->s, (int)f->workers), status;
    if (r == KA_OK) {
        ka_timers_init(&f->timers, f->s);
        r = devices_start(f);
    }
    if (r < 0) return fail(EXIT_FAILED, "cannot start: %s", ka_error_text(r));
    if (ka_stop_on_interrupt(f->s) < 0) return fail(EXIT_FAILED, "cannot catch interrupts");
    f->started_ms = ka_now_ms();
    if ((status = state_open(f)) >= 0 || (status = rest_start(f)) >= 0 ||
        (status = share_start(f)) >= 0)
        return status;
    if ((status = hooks_start(f)) >= 0) return status;
    return listen_to(f);
}

static int server_main(char **argv)
{
    fleet f = { .ip = "127.0.0.1", .tcp_port = 4000, .rest_port = 3000, .heartbeat_s = 60,
                .timeout_s = 5, .workers = 1 };
    bool each;
    int status = parse(&f, argv);
    if (status >= 0) return status;
    int limit = ka_descriptors_raise(&each);
    f.links_most = limit < 0 ? SIZE_MAX : (size_t)(limit - (limit / 4 < MAX_PEOPLE ? limit / 4
                                                                                   : MAX_PEOPLE));
    status = start(&f);
    if (status < 0) status = serve(&f);
    state_close(&f);
    hooks_free(&f);
    share_free(&f);
    rest_free(&f);
    devices_free(&f);
    ka_server_free(f.s);
    ka_timers_free(&f.timers);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (ka_help(argv[1], "fleet", usage)) return EXIT_DONE;
    if (strcmp(argv[1], "server") == 0) return server_main(argv + 2);
    if (strcmp(argv[1], "device") == 0) return simulate(argc, argv);
    return fail(EXIT_USAGE, "%.*s: server or device has to come first; fleet --help tells more",
                (int)strcspn(argv[1], "=,:@/"), argv[1]);      /* an address has a password */
}
