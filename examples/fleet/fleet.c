/* fleet - a gateway for devices: TCP for them, REST for people, several instances over Redis as if they were one.
     cc -O2 -pthread -I. -o examples/fleet/fleet examples/fleet/fleet.c
     examples/fleet/fleet server                       devices on 127.0.0.1:4000, people on http://127.0.0.1:3000/docs
     examples/fleet/fleet device 127.0.0.1 4000        a device, simulated
   fleet.h has its design; devices.h the protocol of the devices. */

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

static const char usage[] =
    "usage: fleet server [--ip 127.0.0.1] [--tcp-port 4000] [--rest-port 3000] [--heartbeat SECONDS] [--timeout SECONDS]\n"
    "                    [--redis HOST:PORT[,password=...][,prefix=fleet:] | --state FILE]\n"
    "                    [--webhook URL] [--token-file FILE] [--workers N]\n"
    "       fleet device [OPTION...] IP PORT\n"
    "       fleet --help | fleet device --help | fleet --version\n"
    "\n"
    "server: devices connect to the TCP port, people and their programs use the REST port: http://IP:PORT/docs shows how.\n"
    "  --ip IP            the IPv4 address to listen on, 127.0.0.1 unless told\n"
    "  --tcp-port PORT    for devices, 4000 unless told; 0 lets the system choose one\n"
    "  --rest-port PORT   for people, 3000 unless told; 0 lets the system choose one\n"
    "  --redis HOST:PORT  be one fleet with all instances that have the same Redis, and the same prefix there;\n"
    "                     ,password=... and ,prefix=... may follow: fleet: unless told\n"
    "  --state FILE       keep the devices in FILE; unless told, in memory only. Not with --redis, which keeps them\n"
    "  --heartbeat S      a device that is silent for three times as long is offline, 60 unless told\n"
    "  --timeout S        how long a device may take to reply to a command, 5 unless told\n"
    "  --webhook URL      POST each change to this http:// address\n"
    "  --token-file FILE  who commands devices has to show the bearer token in FILE; without one, commands are\n"
    "                     served on 127.0.0.0/8 only\n"
    "  --workers N        run connections in N threads, 1 to 64; 1 unless told\n"
    "\n"
    "device: simulates devices; fleet device --help tells more.\n"
    "\n"
    "Exit status: 0 stopped by Ctrl+C or SIGTERM; 1 could not run; 2 wrong usage.\n";

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
    char room[300];
    long long value;
    if (n < sizeof room) memcpy(room, text, n);
    room[n < sizeof room ? n : 0] = 0;
    char *colon = strrchr(room, ':');
    if (!colon || colon == room || !number(colon + 1, 1, 65535, &value))
        return fail(EXIT_USAGE, "%s %.*s: HOST:PORT is needed, such as 127.0.0.1:6379", option, (int)n, text);
    *colon = 0;
    *port = (int)value;
    int r = ka_resolve(room, ip);
    switch (r) {
    case KA_OK:        return -1;
    case KA_ENOTFOUND: return fail(EXIT_FAILED, "%s: there is no host %s that has an IPv4 address; look at its name", option, room);
    case KA_ETIME:     return fail(EXIT_FAILED, "%s: no name server tells the address of %s; give it in numbers, or try later", option, room);
    default:           return fail(EXIT_FAILED, "%s: cannot find out the address of %s: %s; give it in numbers", option, room, ka_error_text(r));
    }
}

/* -1: go on; otherwise exit with this. */
static int parse(fleet *f, char **argv)
{
    const struct { const char *name; const char **text; long long *number, least, most; } known[] = {
        { "--ip", &f->ip, NULL, 0, 0 },
        { "--redis", &f->redis, NULL, 0, 0 },
        { "--state", &f->state_file, NULL, 0, 0 },
        { "--webhook", &f->hook, NULL, 0, 0 },
        { "--token-file", &f->token_file, NULL, 0, 0 },
        { "--tcp-port", NULL, &f->tcp_port, 0, 65535 },
        { "--rest-port", NULL, &f->rest_port, 0, 65535 },
        { "--heartbeat", NULL, &f->heartbeat_s, 1, 86400 },
        { "--timeout", NULL, &f->timeout_s, 1, 3600 },
        { "--workers", NULL, &f->workers, 1, KA_MAX_WORKERS },
    };
    for (; *argv; argv++) {
        size_t k = 0;
        if (strcmp(*argv, "--help") == 0) return fputs(usage, stdout), EXIT_DONE;
        while (k < sizeof known / sizeof *known && strcmp(*argv, known[k].name) != 0) k++;
        if (k == sizeof known / sizeof *known) return fail(EXIT_USAGE, "%s: fleet server has no such option; fleet --help lists them", *argv);
        if (!*++argv || !**argv) return fail(EXIT_USAGE, "%s needs a value; fleet --help tells which", known[k].name);
        if (known[k].text) *known[k].text = *argv;
        else if (!number(*argv, known[k].least, known[k].most, known[k].number))
            return fail(EXIT_USAGE, "%s %s: a whole number from %lld to %lld is needed", known[k].name, *argv, known[k].least, known[k].most);
    }
    if (f->state_file && f->redis) return fail(EXIT_USAGE, "--state with --redis: Redis keeps the devices; leave one of them out");
    f->loopback = strncmp(f->ip, "127.", 4) == 0;
    return -1;
}

/* -1: go on; otherwise exit with this. */
static int listen_to(fleet *f)
{
    f->tcp_listener = ka_listen_as(f->s, KA_JSON, f->ip, (int)f->tcp_port);
    if (f->tcp_listener == KA_EINVAL) return fail(EXIT_USAGE, "--ip %s: a numeric IPv4 address is needed, such as 127.0.0.1", f->ip);
    f->rest_listener = ka_listen_as(f->s, KA_HTTP_FIELDS, f->ip, (int)f->rest_port);
    return -1;
}

static int cannot_listen(const fleet *f, const ka_event *ev)
{
    bool rest = ev->listener == f->rest_listener;
    const char *option = rest ? "--rest-port" : "--tcp-port";
    int port = (int)(rest ? f->rest_port : f->tcp_port);
    const char *alias = f->loopback ? "; on macOS add it first: sudo ifconfig lo0 alias " : "; choose another --ip";
    switch (ev->error) {
    case KA_EINUSE: return fail(EXIT_FAILED, "%s:%d is taken by another program; stop that one, or choose another %s", f->ip, port, option);
    case KA_EADDR:  return fail(EXIT_FAILED, "%s is not an address of this machine%s%s", f->ip, alias, f->loopback ? f->ip : "");
    case KA_EPERM:  return fail(EXIT_FAILED, "%s:%d: not permitted; choose a %s from 1024 up", f->ip, port, option);
    default:        return fail(EXIT_FAILED, "cannot listen on %s:%d: %s (system error %d)", f->ip, port, ka_error_text(ev->error), ev->os_error);
    }
}

/* 0: go on; otherwise exit with this. Says so when both listen. */
static int on_listening(fleet *f, const ka_event *ev)
{
    static int tcp_port, rest_port;
    if (ev->error) return cannot_listen(f, ev);
    *(ev->listener == f->rest_listener ? &rest_port : &tcp_port) = ev->port;
    if (!tcp_port || !rest_port) return 0;
    printf("instance %s\ndevices on %s:%d\npeople on http://%s:%d/docs\n", f->id, f->ip, tcp_port, f->ip, rest_port);
    fflush(stdout);
    return 0;
}

static void on_timer(fleet *f, const ka_event *ev)
{
    if ((ev->tag & 255) == TAG_CALL) call_timeout(f, ev->tag >> 8);
    if (ev->tag != TAG_TICK) return;
    devices_tick(f, ev->now_ms);
    share_tick(f, ev->now_ms);
    state_tick(f);
    rest_tick(f);
    ka_timer(f->s, ev->now_ms + TICK_MS, TAG_TICK);
}

/* A connection's events are for the devices or for REST, by its listener; a message and a close don't tell of that. */
static void handle(fleet *f, const ka_event *ev)
{
    if (share_event(f, ev) || hooks_event(f, ev)) return;
    if (ev->kind == KA_TIMER) on_timer(f, ev);
    else if (ev->kind == KA_OPENED ? ev->listener == f->tcp_listener : link_of(f, ev->conn) != NULL) devices_event(f, ev);
    else rest_event(f, ev);
}

static int serve(fleet *f)
{
    int status = EXIT_DONE;
    ka_timer(f->s, ka_now_ms(), TAG_TICK);
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
    if (r == KA_OK) r = devices_start(f);
    if (r < 0) return fail(EXIT_FAILED, "cannot start: %s", ka_error_text(r));
    if (ka_stop_on_interrupt(f->s) < 0) return fail(EXIT_FAILED, "cannot catch interrupts");
    f->started_ms = ka_now_ms();
    if ((status = state_open(f)) >= 0 || (status = rest_start(f)) >= 0 || (status = share_start(f)) >= 0) return status;
    if ((status = hooks_start(f)) >= 0) return status;
    return listen_to(f);
}

static int server_main(char **argv)
{
    static fleet f = { .ip = "127.0.0.1", .tcp_port = 4000, .rest_port = 3000, .heartbeat_s = 60, .timeout_s = 5, .workers = 1,
                       .tcp_listener = -1, .rest_listener = -1 };
    bool each;
    int status = parse(&f, argv);
    if (status >= 0) return status;
    ka_descriptors_raise(&each);
    status = start(&f);
    if (status < 0) status = serve(&f);
    state_close(&f);
    hooks_free(&f);
    share_free(&f);
    rest_free(&f);
    devices_free(&f);
    ka_server_free(f.s);
    return status;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "server") == 0) return server_main(argv + 2);
    if (strcmp(word, "device") == 0) return simulate(argc, argv);
    if (strcmp(word, "--help") == 0) return fputs(usage, stdout), EXIT_DONE;
    if (strcmp(word, "--version") == 0) return puts("fleet " KA_VERSION), EXIT_DONE;
    if (*word) return fail(EXIT_USAGE, "%s: server or device has to come first; fleet --help tells more", word);
    fputs(usage, stderr);
    return EXIT_USAGE;
}
