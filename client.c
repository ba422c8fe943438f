/* client - the key handshake's client. It asks for a key, logs in with it, and restarts itself with
   its ID. If the server answers with a wrong ID, the client kills that server.
     cc -O2 -pthread -o client client.c */

#define KEYAUTH_STATIC
#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include "ext/input.h"
#include "ext/lookup.h"
#include "ext/cli.h"
#include "ext/process.h"

enum { EXIT_RIGHT, EXIT_SYSTEM, EXIT_USAGE, EXIT_NETWORK, EXIT_PROTOCOL, EXIT_KILLED,
       EXIT_NOT_KILLED };      /* 0 to 6 */

static const char usage[] =
    "usage: client [--give-up SECONDS] HOST PORT | unix:PATH\n"
    "       client ID          (64 bytes as 88 characters of base64, as the restart passes it on)\n"
    "       client --help | --version\n\n"
    "Asks the server at HOST:PORT for a key, and logs in with the key. If the server answers with\n"
    "the right ID, the client restarts as `client ID`, which prints the ID and ends. If the ID is\n"
    "wrong, the client kills the server's process. While the server is offline, or says try_later\n"
    "or server_full, the client tries again after 100 ms, 105 ms, 110 ms, ...\n\n"
    "  --give-up SECONDS   end the attempts after so long (default: never)\n\n"
    "Exit status: 0 right ID; 1 system error; 2 wrong usage; 3 network: gave up, or can't\n"
    "             connect; 4 protocol: the server's answer made no sense; 5 wrong ID, server\n"
    "             killed; 6 wrong ID, nothing killed.\n";

static char server_at[KA_PLACE_TEXT + 1];      /* the server's, for messages */

#define fail(status, ...) ka_fail(status, "client: " __VA_ARGS__)
#define note(...)         ka_say(2, "client: " __VA_ARGS__)

/* Say that the server is offline: the first time, and whenever the misses have doubled. */
static void on_miss(void *arg, int misses, int delay_ms, int error)
{
    (void)arg;
    const char *what = "is offline";
    if (misses & (misses - 1)) return;
    if (error == KA_ETIME) what = "does not answer";
    if (error == KA_EAGAIN) what = "says try_later";
    if (error == KA_EFULL) what = "says server_full";
    note("%s %s (miss %d); trying again in %d ms", server_at, what, misses, delay_ms);
}

/* POST name=value. Returns what ka_client_post returns. */
static int post(ka_client *c, const char *name, ka_str value, ka_str *answer)
{
    char body[256];
    int n = snprintf(body, sizeof body, "%s=%.*s", name, (int)value.n, value.p);
    int status = ka_client_post(c, body, (size_t)n, answer);
    ka_wipe(body, sizeof body);
    return status;
}

/* Say what an error of ka_client_post means. Returns the exit status. */
static int post_failed(const ka_client *c, int error)
{
    switch (error) {
    case KA_EOFFLINE:
        return fail(EXIT_NETWORK, "gave up: %s is offline, or does not answer", server_at);
    case KA_EAGAIN:
        return fail(EXIT_NETWORK, "gave up: %s says try_later; see its Redis or limits", server_at);
    case KA_EFULL:
        return fail(EXIT_NETWORK, "gave up: %s has no room for another key (server_full); "
                    "see its --max-keys, --ttl and --journal", server_at);
    case KA_EINVAL:
        return fail(EXIT_USAGE, "%s: the address of one machine is needed, such as 127.0.0.2, "
                    "::1, fe80::1%%eth0, or unix:PATH", c->host);
    case KA_EPROTO:
        return fail(EXIT_PROTOCOL, "%s does not answer in HTTP", server_at);
    default:
        return fail(EXIT_NETWORK, "cannot connect to %s: %s (system error %d)", server_at,
                    ka_error_text(error), c->os_error);
    }
}

static int kill_server(ka_client *c)
{
    int64_t pid;
    char code[32] = "";
    int r = ka_client_kill_server(c, &pid);
    if (r == KA_OK)
        return fail(EXIT_KILLED, "wrong ID: killed the server, process %lld", (long long)pid);
    if (c->os_error) snprintf(code, sizeof code, " (system error %d)", c->os_error);
    return fail(EXIT_NOT_KILLED, "wrong ID from %s; %s: %s%s", server_at,
                r == KA_ETIME ? "not killed yet" : "nothing killed", c->why, code);
}

/* Can this be an ID: 1 to 256 bytes of printable ASCII, and none of the protocol's words? */
static bool may_be_id(ka_str s)
{
    if (s.n == 0 || s.n > KA_MAX_ID) return false;
    if (ka_is(s, "wrong_key") || ka_is(s, "wrong_query")) return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < ' ' || s.p[i] > '~') return false;
    return true;
}

/* Is this a fresh ID or key: 64 bytes as base64? */
static bool is_fresh(ka_str s)
{
    unsigned char raw[KA_KEY_BYTES];
    bool fresh = s.n == KA_KEY_TEXT && ka_b64_decode(raw, sizeof raw, s.p, s.n) == KA_KEY_BYTES;
    ka_wipe(raw, sizeof raw);
    return fresh;
}

/* Ask for a key, and log in with it. Returns the exit status; EXIT_RIGHT if the ID came back. */
static int handshake(ka_client *c, ka_str id)
{
    char key[KA_KEY_TEXT];
    ka_str answer;
    for (int tries = 1; ; tries++) {
        note("asking %s for a key", server_at);
        int status = post(c, "ask_key", id, &answer);
        if (status < 0) return post_failed(c, status);
        if (status != 200 || !is_fresh(answer))
            return fail(EXIT_PROTOCOL, "ask_key: status %d, no key; is it keyauth?", status);
        memcpy(key, answer.p, sizeof key);
        note("logging in");
        status = post(c, "login", (ka_str){ key, sizeof key }, &answer);
        ka_wipe(key, sizeof key);
        if (status < 0) return post_failed(c, status);
        /* The server may have been restarted after it gave the key: then another key is good. */
        if (status == 403 && ka_is(answer, "wrong_key") && tries == 1) continue;
        if (status == 403)
            return fail(EXIT_PROTOCOL, "the server does not know the key that it gave (wrong_key)");
        if (status != 200 || !may_be_id(answer))
            return fail(EXIT_PROTOCOL, "login: status %d, no ID; is it keyauth?", status);
        if (answer.n == id.n && ka_eq_ct(answer.p, id.p, id.n)) return EXIT_RIGHT;
        return kill_server(c);
    }
}

int main(int argc, char **argv)
{
    static ka_client c;
    char id[KA_KEY_TEXT + 1], ips[KA_IPS_TEXT + 1], **words = argv + argc;
    long long give_up_s = 0, port = 0;
    const ka_option known[] = {
        { "--give-up", .number = &give_up_s, .least = 1, .most = 999999999 },
        { "HOST", .rest = &words }, { .name = NULL }
    };
    int status = ka_options(known, "client", usage, argv + (argc > 0));
    if (status >= 0) return status;
    if (argc == 2 && is_fresh((ka_str){ argv[1], strlen(argv[1]) })) {
        if (puts(argv[1]) >= 0 && fflush(stdout) == 0) return EXIT_RIGHT;
        return fail(EXIT_SYSTEM, "cannot write the ID to stdout");
    }
    bool path = words[0] && strncmp(words[0], "unix:", 5) == 0;
    if (!words[0] || !*words[0] || !words[1] != path || (!path && words[2]))
        return fail(EXIT_USAGE, "HOST PORT or unix:PATH is needed, nothing else, and options go "
                    "before it; client --help lists them");
    if (!path && !ka_number(words[1], 1, 65535, &port))
        return fail(EXIT_USAGE, "%s: a port from 1 to 65535 is needed", words[1]);
    status = ka_find_hosts(ips, "client", words[0]);
    if (status >= 0) return status;
    c = (ka_client){ .ip = ips, .host = words[0], .port = (int)port, .on_miss = on_miss };
    if (give_up_s) c.until_ms = ka_now_ms() + give_up_s * 1000;
    ka_place_text(server_at, c.host, c.port);
    if (ka_fresh_id(id) < 0) return fail(EXIT_SYSTEM, "the system gives no random bytes");
    status = handshake(&c, (ka_str){ id, KA_KEY_TEXT });
    ka_client_close(&c);
    if (status != EXIT_RIGHT) return status;
    note("right ID; restarting");
    status = ka_restart(id);
    return status >= 0 ? status : fail(EXIT_SYSTEM, "cannot restart: %s", ka_error_text(status));
}
