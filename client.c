/* client - the key handshake's client: asks for a key, logs in with it, and restarts itself with its ID;
   if the server answers with a wrong ID, kills that server.
     cc -O2 -pthread -o client client.c */

#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXIT_RIGHT = 0, EXIT_SYSTEM = 1, EXIT_USAGE = 2, EXIT_NETWORK = 3, EXIT_PROTOCOL = 4, EXIT_KILLED = 5, EXIT_NOT_KILLED = 6
};

static const char usage[] =
    "usage: client [--give-up SECONDS] IP PORT\n"
    "       client ID          (64 bytes as 88 characters of base64, as the restart passes it on)\n"
    "       client --help | --version\n"
    "\n"
    "Asks the server at IP:PORT for a key and logs in with it. If the server knows the ID again, the\n"
    "program restarts as `client ID`, which prints the ID and ends. If the ID is wrong, the server's\n"
    "process is killed. While the server is offline, or says try_later: tries again after 100 ms, 105, ...\n"
    "\n"
    "  --give-up SECONDS   try no longer than this; for ever unless told\n"
    "\n"
    "Exit status: 0 right ID; 1 system error; 2 wrong usage; 3 network: gave up, or can't connect;\n"
    "             4 protocol: the server's answer made no sense; 5 wrong ID, server killed;\n"
    "             6 wrong ID, nothing killed.\n";

static int fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("client: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

/* Say that the server is offline: the first time, and whenever the misses have doubled. */
static void on_miss(void *arg, int misses, int delay_ms, int error)
{
    const ka_client *c = arg;
    if ((misses & (misses - 1)) == 0)
        fprintf(stderr, "client: %s:%d %s (miss %d); trying again in %d ms\n", c->ip, c->port,
                error == KA_ETIME ? "does not answer" : error ? "is offline" : "says try_later", misses, delay_ms);
}

/* POST name=value; until `end` is over, if that isn't 0. A server whose Redis is away is as one that is offline. */
static int post(ka_client *c, int64_t end, const char *name, ka_str value, ka_str *answer)
{
    char body[256];
    int n = snprintf(body, sizeof body, "%s=%.*s", name, (int)value.n, value.p), status;
    for (int misses = 1; ; misses++) {
        int delay = KA_RETRY_FIRST_MS + (misses - 1) * KA_RETRY_STEP_MS;
        if (end) c->give_up_ms = end > ka_now_ms() ? end - ka_now_ms() : 1;
        status = ka_client_post(c, body, (size_t)n, answer);
        if (status != 503 || !ka_is(*answer, "try_later")) break;
        status = KA_EOFFLINE;
        if (end && ka_now_ms() + delay >= end) break;
        on_miss(c, misses, delay, 0);
        ka_sleep_ms(delay);
    }
    ka_wipe(body, sizeof body);
    return status;
}

/* What a call of ka_client_post that failed means for the user. */
static int post_failed(const ka_client *c, int error)
{
    switch (error) {
    case KA_EOFFLINE: return fail(EXIT_NETWORK, "gave up: %s:%d is offline, or does not answer", c->ip, c->port);
    case KA_EINVAL:   return fail(EXIT_USAGE, "%s: a numeric IPv4 address is needed, such as 127.0.0.2", c->ip);
    case KA_EPROTO:   return fail(EXIT_PROTOCOL, "%s:%d does not answer in HTTP", c->ip, c->port);
    default:          return fail(EXIT_NETWORK, "cannot connect to %s:%d: %s (system error %d)", c->ip, c->port,
                                  ka_error_text(error), c->os_error);
    }
}

static int kill_server(ka_client *c)
{
    int64_t pid;
    int r = ka_client_kill_server(c, &pid);
    switch (r) {
    case KA_OK:        return fail(EXIT_KILLED, "wrong ID: killed the server, process %lld", (long long)pid);
    case KA_ENOTFOUND: return fail(EXIT_NOT_KILLED, "wrong ID: no process behind %s:%d is to be found on this machine; nothing killed", c->ip, c->port);
    case KA_EINUSE:    return fail(EXIT_NOT_KILLED, "wrong ID: more than one process holds its sockets; nothing killed");
    case KA_EPERM:     return fail(EXIT_NOT_KILLED, "wrong ID: the server is another user's process; nothing killed (run the client as that user, or as root)");
    case KA_EOFFLINE:  return fail(EXIT_NOT_KILLED, "wrong ID: the connection is closed, so it can't be told whose it was; nothing killed");
    case KA_ETIME:     return fail(EXIT_NOT_KILLED, "wrong ID: process %lld was told to end and has not yet", (long long)pid);
    default:           return fail(EXIT_NOT_KILLED, "wrong ID: cannot find the server: %s (system error %d); nothing killed", ka_error_text(r), c->os_error);
    }
}

/* Can this be an ID, of whomever: 1 to 256 bytes of printable ASCII, and none of the protocol's words? */
static bool may_be_id(ka_str s)
{
    if (s.n == 0 || s.n > KA_MAX_ID || ka_is(s, "wrong_key") || ka_is(s, "wrong_query")) return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < ' ' || s.p[i] > '~') return false;
    return true;
}

/* Ask for a key, and log in with it. Returns the exit status; EXIT_RIGHT if the ID came back. */
static int handshake(ka_client *c, int64_t end, ka_str id)
{
    unsigned char raw[KA_KEY_BYTES];
    char key[KA_KEY_TEXT];
    ka_str answer;
    for (int tries = 1; ; tries++) {
        fprintf(stderr, "client: asking %s:%d for a key\n", c->ip, c->port);
        int status = post(c, end, "ask_key", id, &answer);
        if (status < 0) return post_failed(c, status);
        if (ka_is(answer, "server_full")) return fail(EXIT_PROTOCOL, "the server has no room for another key (server_full)");
        bool good = status == 200 && answer.n == KA_KEY_TEXT && ka_b64_decode(raw, sizeof raw, answer.p, answer.n) == KA_KEY_BYTES;
        ka_wipe(raw, sizeof raw);
        if (!good) return fail(EXIT_PROTOCOL, "ask_key was answered with status %d and no key", status);
        memcpy(key, answer.p, sizeof key);

        fprintf(stderr, "client: logging in\n");
        status = post(c, end, "login", (ka_str){ key, sizeof key }, &answer);
        ka_wipe(key, sizeof key);
        if (status < 0) return post_failed(c, status);
        if (status == 403 && ka_is(answer, "wrong_key") && tries == 1) continue;      /* it was restarted meanwhile */
        if (status == 403) return fail(EXIT_PROTOCOL, "the server does not know the key that it just gave (wrong_key)");
        if (status != 200 || !may_be_id(answer)) return fail(EXIT_PROTOCOL, "login was answered with status %d and no ID", status);
        if (answer.n == id.n && ka_eq_ct(answer.p, id.p, id.n)) return EXIT_RIGHT;
        return kill_server(c);
    }
}

/* Is this what a restart passes on: 64 bytes in base64? */
static bool is_id(const char *text)
{
    unsigned char raw[KA_KEY_BYTES];
    return strlen(text) == KA_KEY_TEXT && ka_b64_decode(raw, sizeof raw, text, KA_KEY_TEXT) == KA_KEY_BYTES;
}

static long number(const char *text, long least, long most)
{
    char *end;
    long n = *text >= '0' && *text <= '9' && strlen(text) < 10 ? strtol(text, &end, 10) : -1;
    return n >= least && n <= most && *end == 0 ? n : -1;
}

int main(int argc, char **argv)
{
    static ka_client c;
    char id[KA_KEY_TEXT + 1];
    int64_t end = 0;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout), EXIT_RIGHT;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) return puts("client " KA_VERSION), EXIT_RIGHT;
    if (argc == 2 && is_id(argv[1]))
        return puts(argv[1]) >= 0 && fflush(stdout) == 0 ? EXIT_RIGHT : fail(EXIT_SYSTEM, "cannot write the ID to stdout");
    if (argc > 2 && strcmp(argv[1], "--give-up") == 0) {
        long seconds = number(argv[2], 1, 999999999);
        if (seconds < 0) return fail(EXIT_USAGE, "--give-up %s: a whole number of seconds is needed, from 1", argv[2]);
        end = ka_now_ms() + (int64_t)seconds * 1000;
        argc -= 2;
        argv += 2;
    }
    if (argc > 1 && argv[1][0] == '-') return fail(EXIT_USAGE, "%s: no such option, or without its value; client --help tells", argv[1]);
    if (argc != 3) return fputs(usage, stderr), EXIT_USAGE;
    long port = number(argv[2], 1, 65535);
    if (port < 0) return fail(EXIT_USAGE, "%s: a port from 1 to 65535 is needed", argv[2]);
    c.ip = argv[1];
    c.port = (int)port;
    c.on_miss = on_miss;
    c.arg = &c;

    if (ka_fresh_id(id) < 0) return fail(EXIT_SYSTEM, "the system gives no random bytes");
    int status = handshake(&c, end, (ka_str){ id, KA_KEY_TEXT });
    ka_client_close(&c);
    if (status != EXIT_RIGHT) return status;
    fprintf(stderr, "client: right ID; restarting\n");
    status = ka_restart(id);
    return status >= 0 ? status : fail(EXIT_SYSTEM, "cannot restart: %s", ka_error_text(status));
}
