/* relay - passes messages on: who sends `message X` gets `ok X` from somebody who was chosen at random.
     cc -O2 -pthread -I. -o examples/relay examples/relay.c
     examples/relay server                     listening on 127.0.0.1:8000
     examples/relay client 127.0.0.1 8000 hi   sent, forwarded (to itself, if it is alone), answered
     examples/relay load --clients 1000        a thousand clients, a server of their own, and what became of them
   It shows lines over TCP, connections in both directions, timers, and more connections than a process has descriptors.

   The protocol, one line each way at a time; X is any text of up to 64 KiB in UTF-8, in which a line feed is written \n,
   a carriage return \r and a backslash \\:
     message X   to the server: forward it to one of the active connections, chosen at random, the sender included.
                 From the server: answer it by `ok X`
     ok X        to the server, from whom X was forwarded to: all who sent `message X` and still wait get `ok X`
     stats       to the server: `stats {...}` tells of it in JSON; who asks is no active connection any more
     error WHY   from the server: that line was not taken */

#define KEYAUTH_IMPLEMENTATION
#define KA_MAX_HEAD 512                     /* no HTTP here */
#define KA_MAX_BODY (8 + 2 * 65536)         /* "message " and an X in which each byte is escaped */
#define KA_MAILBOX (1u << 19)
#define KA_LINGER_MS 20000                  /* closing in order, even when a hundred thousand do */
#include "keyauth.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_OFFLINE = 3 };
enum { MAX_X = 65536 };

static const char usage[] =
    "usage: relay server [--ip 127.0.0.1] [--port 8000] [--workers 8] [--stats] [--no-reforward]\n"
    "       relay client [--delay SECONDS] [--timeout SECONDS] [--give-up SECONDS] IP PORT [X]\n"
    "       relay load [--clients 100000] [--window 60] [--delay 0..10] [--timeout SECONDS] [--workers N] [OPTION...]\n"
    "       relay --help | --version\n";

typedef struct {
    const char *ip, *x;                     /* client: x may be NULL: a random one */
    long long   port, workers;
    bool        stats, no_reforward;
    int64_t     delay_ms[2], timeout_ms, give_up_ms;     /* least, most */
    /* load */
    long long   clients, window_ms, seed, messages, ahead, vanish_percent, kill_at_ms;
    const char *server, *svg;
    bool        abrupt;
} options;

static int fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("relay: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

/* ---- lines ---- */

/* ---- server: connections, and the messages that wait for an ok ---- */

static int run_server(const options *o) { (void)o; return fail(EXIT_FAILED, "to be written"); }

/* ---- client: one, which tells what happens ---- */

static int run_client(const options *o) { (void)o; return fail(EXIT_FAILED, "to be written"); }

/* ---- load: many clients in one process, and a server of their own in another ---- */

static int run_load(const options *o) { (void)o; return fail(EXIT_FAILED, "to be written"); }

/* ---- options ---- */

int main(int argc, char **argv)
{
    options o = { .ip = "127.0.0.1", .port = 8000, .workers = 8 };
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout), EXIT_DONE;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) return puts("relay " KA_VERSION), EXIT_DONE;
    if (argc > 1 && strcmp(argv[1], "server") == 0) return run_server(&o);
    if (argc > 1 && strcmp(argv[1], "client") == 0) return run_client(&o);
    if (argc > 1 && strcmp(argv[1], "load") == 0) return run_load(&o);
    return fputs(usage, stderr), EXIT_USAGE;
}
