/* hostile - what bad clients do, all at once, to a server that has to go on serving a good one.
     ./build.sh hostile               builds what is needed and runs this
     bench/hostile [--seconds S] [--seed N] [--soak MINUTES]
   Run it from the top folder, with ./server built. It starts the server itself, in its release settings. Each phase is
   a process of its own; beside all of them one makes good handshakes, ten a second on fresh connections and as many on
   a kept one. Two more phases follow, each with a server of its own that has limits for each address. What is judged
   are conditions (who was answered, who was closed, what is left), never speed; the time that the server may take for
   them is bounded below. bench/README.md says what each phase does. */

#define _GNU_SOURCE
#include "keyauth.h"        /* its limits; nothing of its implementation, which is the one that is judged */
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IP "127.0.0.2"
#define SERVER "./server"
#define TTL_S "20"                                         /* keys expire, so that memory that grows is not theirs */
/* glibc's settings for two rounds, which are too few for a heap to settle: as it comes, RSS after a
   round is anything from 6 to 14 MB. If blocks go back to the system at once, it tells what is in
   use. A soak changes nothing. */
#define TUNABLES "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=65536:glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0"
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* The limits of the last two phases, which the command line of the server needs as text. As long as
   a key lasts, which is less than a second more than TTL_S, one address gets 40 + 20 * 21 keys at
   most. So two of them can't fill a server of 1000. Without the limit one can, in no time. */
#define PER_PEER 8
#define ASK_RATE 20                                        /* twice what the neighbour asks for */
#define ASK_BURST 40
#define MAX_KEYS 1000
#define QUOTE(number) QUOTE_TEXT(number)
#define QUOTE_TEXT(text) #text

/* How many of what: connections of a round's phases */
enum {
    SLOW = 1000,               /* that never finish a request */
    UNREAD = 100,              /* that never read an answer */
    BEYOND = 2000,             /* newcomers beyond the descriptor limit */
    ROOM = 500,                /* descriptors left free before they come */
    TOUCHED = 100,             /* old idle ones that make a request before they come, */
    TOUCH_EVERY = 10,          /* every tenth of the oldest */
    GARBAGE = 5000, MUTATED = 5000, VANISH = 2000, RESETS = 2000,
    CROWDING = 200,            /* of one address, at a time */
    ASKING = 16                /* of one address, that ask for keys without end */
};

/* Limits */
enum {
    DESCRIPTORS = 20000,       /* the server's limit; or the hard limit where that is less */
    DESCRIPTORS_LEAST = 4096,
    DESCRIPTORS_FEW = 64,      /* of the server that is crowded */
    HELD_EACH = 8000,          /* idle connections of one process */
    MAX_HELD = DESCRIPTORS + BEYOND,
    MAX_HOLDERS = 12,
    MAX_CHILDREN = 24,
    SOURCES = 64,              /* addresses of clients: a port that was used is blocked a minute */
    SLOTS = 128,               /* connections of garbage at a time */
    MUTATIONS = 4,             /* of a request, at most */
    HOLD_EVERY = 16,           /* of so many connections of garbage, one is not ended by us */
    HOLD_MS = 300,             /* until such a connection is left */
    REQUEST_CAP = 24576,
    ANSWER_CAP = 16384,
    HEAD_MOST = 1024,          /* bytes of an answer's head */
    SHOTS = 1 << 18,           /* good handshakes */
    SAMPLES = 1 << 14          /* seconds of a soak */
};

/* Times. The server's own limits are exact; what is added here is for a machine with other work */
enum {
    SECONDS = 80,              /* room for two rounds: the least that tells if memory is flat */
    OVERRUN_S = 120,
    SOAK_MINUTES_MOST = 180,
    ROUNDS_LEAST = 2,
    START_MS = 10000,          /* of the server, to its first line */
    BASE_LOOKS = 20,           /* at its descriptors, one each 5 ms: the least count is kept */
    STOP_MS = KA_DRAIN_MS + 5000,
    GOOD_EVERY_MS = 100,       /* a good handshake, on a fresh connection and on the kept one */
    HANDSHAKE_MS = 10000,      /* of a good handshake: the client of keyauth.h gives up then */
    BACK_MS = 10000,           /* until all descriptors are back after a phase */
    /* Until a client that has said all is answered or closed: more than KA_REQUEST_MS and
       KA_LINGER_MS. */
    ANSWER_MS = 20000,
    EARLY_MS = 500,            /* KA_REQUEST_MS counts from a clock that is read once a batch */
    LATE_MS = 10000,           /* after KA_REQUEST_MS and KA_LINGER_MS */
    /* After KA_STALL_MS: while the system still finds room for a byte, the stall begins anew. */
    STALL_LATE_MS = 45000,
    DRIP_MS = 1000,            /* between two bytes of a slow client */
    CROWD_DRIP_MS = 200,       /* the same in the crowd */
    CROWD_AGAIN_MS = 50,       /* until a connection of the crowd that was closed is opened anew */
    /* At the crowd's end, for its last answers. It and LIMITED_MS together are less than
       KA_REQUEST_MS: else those that stay would be closed, too. */
    CROWD_LAST_MS = 5000,
    CROWD_GOOD_MS = 10,        /* between two good handshakes of the crowd's neighbour */
    LIMITED_MS = 2500,         /* how long the neighbour makes them */
    LIMITED_GOOD = 20          /* so many must be good at least */
};

/* Memory that may be there after a round and wasn't after the first, or in the last third of a soak
   and not in the second */
enum { RSS_MORE_KB = 1024, SOAK_MORE_KB = 4096 };

enum {
    IDLE, GARBLED, MUTANT, VANISHED, RESET, SLOWLORIS, NO_READ, CROWD, ASKS, PHASES,
    AHEAD = SLOWLORIS          /* of those that run beside */
};
static const char *const phase_names[PHASES] = {
    "idle", "garbage", "mutated", "vanish", "reset", "slow", "unread", "crowd", "asks"
};

/* Each connection is made, and then exactly one of the next five. */
typedef struct {
    _Atomic(int) made;
    _Atomic(int) answered;     /* 200 */
    _Atomic(int) refused;      /* another status, none with 200 */
    _Atomic(int) closed;       /* by the server, without a word */
    _Atomic(int) reset;
    _Atomic(int) left;         /* by us */
    _Atomic(int) open;         /* now */
    _Atomic(int) early;        /* ended before the server's time-out */
    _Atomic(int) stuck;        /* not ended when it should have been */
    _Atomic(int) wrong;        /* answers that are not HTTP, or not to be given */
    /* Connections that could not be made, and requests of ours that got no 200. */
    _Atomic(int) failed;
} tally;

typedef struct { double at_s; float ms; int ok; } shot;

enum { NOT_HELD, HELD, LOST };                             /* fates of idle connections */
enum { FILLING, TOUCHING, LOOKING, CLOSING };              /* stages of who holds them */
typedef struct { int from, to, newcomers; } range;

/* What the processes share. */
static struct shared {
    tally         of[PHASES];
    _Atomic(int)  stage, ready;
    range         held[MAX_HOLDERS];
    _Atomic(char) fate[MAX_HELD];
    _Atomic(int)  keys, later; /* answers to who wants too much: a key, and 429 */
    _Atomic(int)  shots_n;
    shot          shots[SHOTS];
} *shared;

/* A phase, all rounds together. */
static struct {
    long   made, answered, refused, closed, reset, left;
    size_t good, bad;                                      /* handshakes meanwhile */
    float *ms;                                             /* of the good ones */
    double began_s;
    int    shots_at, descriptors;
    long   rss_kb;
} total[PHASES];

static struct { long long seconds, seed, soak; } options = { .seconds = SECONDS, .seed = 1 };
static struct { pid_t pid, worker; int port, said, base, limit, kept; bool ended; } server;
static pid_t  children[MAX_CHILDREN];                      /* 0: a free place */
static size_t holder_places[MAX_HOLDERS];                  /* among them */
static int    passed, failed, turn;
static long   first_rss_kb, samples[SAMPLES];
static int    samples_n;
static double start_s, deadline_s;
static volatile sig_atomic_t interrupted;

/* ---- small things ---- */

static void on_signal(int number) { interrupted = number; }

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int ms_since(double s) { return (int)((now_s() - s) * 1000); }

static void nap(long ms) { nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL); }

/* A number that no other use of the seed has: splitmix64 (Steele, Lea and Flood, 2014). */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static size_t below(uint64_t *state, size_t n) { return (size_t)(random_next(state) % n); }

/* Each connection has its own numbers, so that one can be made again whatever came between. */
static uint64_t random_for(int phase, int i)
{
    uint64_t state =
        (uint64_t)options.seed << 48 ^ (uint64_t)turn << 32 ^ (uint64_t)phase << 24 ^ (uint64_t)i;
    random_next(&state);
    return state;
}

static void mark(bool ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (ok) passed++;
    else failed++;
    /* A soak has a line a minute, and what failed. */
    if (!ok || !options.soak) {
        printf("%s  ", ok ? "ok    " : "FAILED");
        vprintf(format, args);
        putchar('\n');
    }
    va_end(args);
}

static void kill_child(size_t place)
{
    if (!children[place]) return;
    kill(children[place], SIGKILL);
    waitpid(children[place], NULL, 0);
    children[place] = 0;
}

static void kill_all(void)
{
    for (size_t i = 0; i < MAX_CHILDREN; i++) kill_child(i);
    if (server.pid && !server.ended) {
        kill(server.pid, SIGKILL);
        waitpid(server.pid, NULL, 0);
    }
}

static int die_status = 1;      /* 2 while the command line is read: wrong usage */

static _Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("hostile: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    kill_all();
    exit(die_status);
}

/* ---- the server ---- */

/* The lines of /proc/PID/status begin with a name; this one's number, or 0. */
static long status_kb(const char *name)
{
    char path[64], line[256];
    long kb = 0;
    size_t n = strlen(name);
    snprintf(path, sizeof path, "/proc/%d/status", (int)server.pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, n) == 0) kb = strtol(line + n, NULL, 10);
    if (f) fclose(f);
    return kb;
}

static long rss_kb(void) { return status_kb("VmRSS:"); }

/* The number in each name of a folder in /proc: how many, and the last that isn't `not_this`. */
static int numbered(const char *path, long not_this, long *last)
{
    int n = 0;
    DIR *dir = opendir(path);
    for (struct dirent *d; dir && (d = readdir(dir)) != NULL; ) {
        if (!isdigit((unsigned char)d->d_name[0])) continue;
        n++;
        if (last && strtol(d->d_name, NULL, 10) != not_this) *last = strtol(d->d_name, NULL, 10);
    }
    if (dir) closedir(dir);
    return n;
}

/* Open descriptors of the worker, which has a table of its own: /proc/PID/fd is
   the main thread's. */
static int descriptors(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/fd", (int)server.pid, (int)server.worker);
    return numbered(path, 0, NULL);
}

/* The connections that the server counts itself: its last line on stderr, which is one a second
   old. */
static long connections_told(void)
{
    char tail[256];
    long keys, connections = -1;
    off_t end = lseek(server.said, 0, SEEK_END);
    ssize_t n = pread(server.said, tail, sizeof tail - 1, end > 255 ? end - 255 : 0);
    tail[n > 0 ? n : 0] = 0;
    char *last = strrchr(tail, '\n');
    if (last) *last = 0;
    char *line = strrchr(tail, '\n');
    return sscanf(line ? line + 1 : tail, "%ld keys, %*d refused, %ld connections", &keys,
                  &connections) == 2
               ? connections
               : -1;
}

static char *const plain[] = { SERVER, "--ip", IP, "--port", "0", "--ttl", TTL_S, "--stats", NULL };
static char *const crowded[] = { SERVER,  "--ip", IP,        "--port",         "0",
                                 "--ttl", TTL_S,  "--stats", "--max-per-peer", QUOTE(PER_PEER),
                                 NULL };
static char *const asked[] = {
    SERVER, "--ip", IP, "--port", "0", "--ttl", TTL_S, "--stats", "--max-keys", QUOTE(MAX_KEYS),
    "--ask-rate", QUOTE(ASK_RATE) "," QUOTE(ASK_BURST), NULL
};

static void server_exec(int out, char *const args[])
{
    struct rlimit limit = { (rlim_t)server.limit, (rlim_t)server.limit };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out, 1);
    dup2(server.said, 2);
    setrlimit(RLIMIT_NOFILE, &limit);
    if (!options.soak) setenv("GLIBC_TUNABLES", TUNABLES, 1);
    execv(SERVER, args);
    _exit(127);
}

/* kept: connections that stay open from phase to phase */
static void server_start(char *const args[], int limit, int kept)
{
    char said[] = "/tmp/keyauth-hostile-XXXXXX", line[128] = "", path[64];
    int ends[2];
    long worker = 0;
    if (server.pid) close(server.said);                    /* of one that was stopped */
    memset(&server, 0, sizeof server);
    server.limit = limit;
    server.kept = kept;
    server.said = mkstemp(said);
    if (server.said < 0 || unlink(said) != 0 || pipe2(ends, O_CLOEXEC) != 0)
        die("cannot start: %s", strerror(errno));
    server.pid = fork();
    if (server.pid < 0) die("cannot start: %s", strerror(errno));
    if (server.pid == 0) server_exec(ends[1], args);
    close(ends[1]);
    struct pollfd p = { .fd = ends[0], .events = POLLIN };
    ssize_t n = poll(&p, 1, START_MS) == 1 ? read(ends[0], line, sizeof line - 1) : 0;
    if (n <= 0 || sscanf(line, "listening on " IP ":%d", &server.port) != 1)
        die(SERVER " did not listen; build it with ./build.sh");
    close(ends[0]);
    snprintf(path, sizeof path, "/proc/%d/task", (int)server.pid);
    if (numbered(path, server.pid, &worker) != 2) die("one worker was expected");
    server.worker = (pid_t)worker;
    server.base = descriptors();
    /* The worker may not have closed yet what it wrote its line to. */
    for (int i = 0; i < BASE_LOOKS; i++) {
        nap(5);
        int now = descriptors();
        if (now < server.base) server.base = now;
    }
}

/* Has it ended? Then why. */
static bool server_ended(void)
{
    int status;
    if (server.ended || waitpid(server.pid, &status, WNOHANG) != server.pid) return server.ended;
    server.ended = true;
    char tail[2048];
    off_t end = lseek(server.said, 0, SEEK_END);
    ssize_t n = pread(server.said, tail, sizeof tail - 1, end > 2047 ? end - 2047 : 0);
    tail[n > 0 ? n : 0] = 0;
    printf("%s\nthe server ended, status %d, signal %d\n", tail,
           WIFEXITED(status) ? WEXITSTATUS(status) : -1,
           WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    return true;
}

/* ---- connections ---- */

/* The i-th connection of a phase, from one of many addresses; -1: it could not be made. */
static int connect_from(int phase, int i, int receive_bytes)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)server.port) };
    struct sockaddr_in from = { .sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(0x7F010101u + (unsigned)phase * 256 +
                                                         (unsigned)i % SOURCES) };
    inet_pton(AF_INET, IP, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (receive_bytes) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){ 1 }, sizeof(int)) == 0 &&
        bind(fd, (struct sockaddr *)&from, sizeof from) == 0 &&
        connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    close(fd);
    return -1;
}

/* The same, and counted; it doesn't block afterwards. */
static int connect_counted(int phase, int i, int receive_bytes)
{
    tally *t = &shared->of[phase];
    int fd = connect_from(phase, i, receive_bytes);
    if (fd < 0) {
        t->failed++;
        return -1;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    t->made++;
    t->open++;
    return fd;
}

static void close_counted(int phase, int *fd, _Atomic(int) *outcome)
{
    close(*fd);
    *fd = -1;
    (*outcome)++;
    shared->of[phase].open--;
}

static ssize_t put(int fd, const char *p, size_t n)
{
    return send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- answers: read by rules of our own, since those of keyauth.h are judged ---- */

typedef struct { int status; bool last; const char *body; size_t body_n; } answer;

/* A line of a head, from p to its CR LF: a field, of token characters, a colon,
   and visible ones. */
static bool field_read(const char *p, const char *end, long *length, bool *last)
{
    const char *colon = memchr(p, ':', (size_t)(end - p));
    if (!colon || colon == p) return false;
    for (const char *c = p; c < colon; c++)
        if (!isalnum((unsigned char)*c) && !strchr("!#$%&'*+-.^_`|~", *c)) return false;
    for (const char *c = colon; c < end; c++) if ((unsigned char)*c < 32 || *c == 127) return false;
    if (strncasecmp(p, "content-length:", 15) == 0) {
        char *stop;
        if (*length >= 0) return false;
        *length = strtol(p + 15, &stop, 10);
        return *length >= 0 && stop == end;
    }
    if (strncasecmp(p, "connection: close\r", 18) == 0) *last = true;
    return true;
}

/* One answer in the n bytes at p, a NUL behind them.
     returns    its bytes; 0 if it isn't all here; -1 if it is not HTTP */
static ptrdiff_t answer_read(const char *p, size_t n, answer *a)
{
    static const char version[] = "HTTP/1.1 ";
    size_t head = 0;
    long length = -1;
    *a = (answer){ 0 };
    if (strncmp(p, version, n < 9 ? n : 9) != 0) return -1;
    while (head + 4 <= n && memcmp(p + head, "\r\n\r\n", 4) != 0) head++;
    if (head + 4 > n) return n > HEAD_MOST ? -1 : 0;
    for (int i = 9; i < 12; i++) if (!isdigit((unsigned char)p[i])) return -1;
    if (p[12] != ' ' || p[9] < '1' || p[9] > '5') return -1;
    a->status = (int)strtol(p + 9, NULL, 10);
    const char *line = strstr(p, "\r\n");
    for (const char *c = p + 12; c < line; c++) if (!isprint((unsigned char)*c)) return -1;
    for (const char *end; line < p + head; line = end) {
        end = strstr(line + 2, "\r\n");
        if (!field_read(line + 2, end, &length, &a->last)) return -1;
    }
    a->body = p + head + 4;
    if (a->status < 200) return length < 0 ? (ptrdiff_t)head + 4 : -1;
    if (length < 0 || length > ANSWER_CAP / 2) return -1;
    a->body_n = (size_t)length;
    return n - head - 4 < a->body_n ? 0 : (ptrdiff_t)(head + 4 + a->body_n);
}

/* Send a request with this body and wait for its answer, with the text in room. NULL, or what went
   wrong. */
static const char *exchange(int fd, const char *body, char room[HEAD_MOST * 2], answer *a)
{
    char request[512];
    size_t n = 0;
    double began = now_s();
    int m =
        snprintf(request, sizeof request,
                 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    if (send(fd, request, (size_t)m, MSG_NOSIGNAL) != m) return "cannot send";
    for (ptrdiff_t whole; ; ) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int left = HANDSHAKE_MS - ms_since(began);
        if (left <= 0 || poll(&p, 1, left) < 1) return "no answer in time";
        ssize_t got = recv(fd, room + n, HEAD_MOST * 2 - 1 - n, 0);
        if (got == 0) return "closed";
        if (got < 0) return "reset";
        room[n += (size_t)got] = 0;
        if ((whole = answer_read(room, n, a)) == 0) continue;
        if (whole < 0 || (size_t)whole != n) return "not an answer";
        return a->status == 200 ? NULL : "not 200";
    }
}

static bool is_key(const char *p, size_t n)
{
    if (n != KA_KEY_TEXT || memcmp(p + n - 2, "==", 2) != 0) return false;
    for (size_t i = 0; i < n - 2; i++)
        if (!isalnum((unsigned char)p[i]) && p[i] != '+' && p[i] != '/') return false;
    return true;
}

/* Ask for a key and log in with it; NULL, or what went wrong. The key stays in login, behind
   "login=". */
static const char *handshake(int fd, const char *id, char login[128])
{
    char room[HEAD_MOST * 2], ask[128];
    answer a;
    snprintf(ask, sizeof ask, "ask_key=%s", id);
    const char *why = exchange(fd, ask, room, &a);
    if (why) return why;
    if (!is_key(a.body, a.body_n)) return "not a key";
    snprintf(login, 128, "login=%.88s", a.body);
    why = exchange(fd, login, room, &a);
    if (why) return why;
    return a.body_n == strlen(id) && memcmp(a.body, id, a.body_n) == 0 ? NULL : "another's ID";
}

/* ---- the good client ---- */

/* The i-th handshake, on a connection that is made for it if there is none, from one of many
   addresses. */
static void good_shot(int *fd, const char *kind, int i, int from)
{
    char id[32], login[128];
    double began = now_s();
    snprintf(id, sizeof id, "good-%s-%d", kind, i);
    if (*fd < 0) *fd = connect_from(PHASES, from, 0);
    const char *why = *fd < 0 ? "cannot connect" : handshake(*fd, id, login);
    int at = shared->shots_n;
    shared->shots[at % SHOTS] = (shot){ now_s(), (float)((now_s() - began) * 1000), !why };
    shared->shots_n++;
    if (!why) return;
    dprintf(1, "        handshake %d on a %s connection, at %.1f s: %s\n", i, kind, began - start_s,
            why);
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void good(int kept)
{
    for (int i = 0; ; i++) {
        double began = now_s();
        int fresh = -1;
        good_shot(&kept, "kept", i, i);
        good_shot(&fresh, "fresh", i, i);
        if (fresh >= 0) close(fresh);
        int left = GOOD_EVERY_MS - ms_since(began);
        if (left > 0) nap(left);
    }
}

/* Who makes good handshakes beside an attack by one address, and has one address, too. */
static void neighbour(int every_ms)
{
    for (int i = 0; ; i++) {
        double began = now_s();
        int fd = -1;
        good_shot(&fd, "fresh", i, 0);
        if (fd >= 0) close(fd);
        int left = every_ms - ms_since(began);
        if (left > 0) nap(left);
    }
}

/* ---- idle connections, to the descriptor limit and beyond ---- */

/* The server may only have ended a connection by closing it, and have sent nothing. */
static void look(int from, int n, const int *fds)
{
    char byte;
    for (int i = 0; i < n; i++) {
        ssize_t got = fds[i] < 0 ? 0 : recv(fds[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (got > 0) shared->of[IDLE].wrong++;
        shared->fate[from + i] = got < 0 && errno == EAGAIN ? HELD : LOST;
    }
}

/* A request of one that was idle, or of a newcomer. */
static void ask_once(int fd)
{
    char login[128];
    if (fd >= 0 && !handshake(fd, "idle", login)) shared->of[IDLE].answered++;
    else shared->of[IDLE].failed++;
}

/* Old ones with a request of late are not the longest idle. */
static bool touched(int i) { return i < TOUCHED * TOUCH_EVERY && i % TOUCH_EVERY == 0; }

/* One process's share of the connections. It goes from stage to stage with the others. */
static void hold(int h)
{
    const range *r = &shared->held[h];
    int n = r->to - r->from, begun = shared->stage, *fds = malloc((size_t)n * sizeof *fds);
    if (!fds) _exit(1);
    for (int i = 0; i < n; i++) {
        fds[i] = connect_counted(IDLE, r->from + i, 0);
        shared->fate[r->from + i] = HELD;
        if (r->newcomers) ask_once(fds[i]);
    }
    shared->ready++;
    for (int done = begun, stage; done != CLOSING; nap(1)) {
        if ((stage = shared->stage) == done) continue;
        for (int i = 0; stage == TOUCHING && i < n; i++)
            if (!r->newcomers && touched(r->from + i)) ask_once(fds[i]);
        if (stage == LOOKING) look(r->from, n, fds);
        shared->ready++;
        done = stage;
    }
}

/* ---- garbage and mutations ---- */

static const char id_known[] = "hostile";
static char login_known[128];                              /* that a phase's mutations begin with */

/* Parts of requests without a `=`, of which therefore none can be a right one. HEAD isn't among
   them: the answer's bytes then would depend on what the server took for the method. */
static const char *const parts[] = {
    "POST ", "GET ", "/", " HTTP/1.1", " HTTP/1.0", " HTTP/9.9", "\r\n", "\n", "\r", "\r\n\r\n", "Host: a", "Host : a", "Host:", "Content-Length: 9",
    "Content-Length: 99999999999999999999", "Content-Length: -1", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "0\r\n\r\n", "FFFFFFFFF\r\n",
    "5\r\nask_k\r\n", "Expect: 100-continue", "Connection: close", "ask_key", "login", "%00", "%", "+", " ", "\t", ":", "http://a/", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
};

static size_t soup(uint64_t *r, char *out)
{
    size_t n = 0;
    for (size_t k = below(r, 40); k > 0; k--) {
        const char *p = parts[below(r, COUNT(parts))];
        memcpy(out + n, p, strlen(p));
        n += strlen(p);
    }
    return n;
}

static size_t garbage(uint64_t *r, char *out)
{
    size_t n;
    switch (below(r, 4)) {
    case 0:                                                /* bytes of any kind */
        n = below(r, 3000);
        for (size_t i = 0; i < n; i++) out[i] = (char)random_next(r);
        return n;
    case 1:
        return soup(r, out);
    case 2:                                                /* a line, or a field, without an end */
        n = (size_t)sprintf(out, below(r, 2) ? "POST /" : "POST / HTTP/1.1\r\nHost: a\r\nX: ");
        memset(out + n, 'a', REQUEST_CAP - 4096);
        return n + below(r, REQUEST_CAP - 4096);
    default:                                               /* a whole request for nothing we know */
        n = below(r, 500);
        size_t head =
            (size_t)sprintf(out, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", n);
        /* `=` is 61. */
        for (size_t i = 0; i < n; i++)
            out[head + i] = (char)(random_next(r) % 256 == '=' ? 'x' : random_next(r) % 61);
        return head + n;
    }
}

static size_t request(uint64_t *r, char *out)
{
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\n";
    int n;
    switch (below(r, 7)) {
    case 0:  n = sprintf(out, "%sContent-Length: 15\r\n\r\nask_key=hostile", head); break;
    case 1:
        n = sprintf(out, "%sContent-Length: %zu\r\n\r\n%s", head, strlen(login_known), login_known);
        break;
    case 2:
        n = sprintf(out, "%sTransfer-Encoding: chunked\r\n\r\n"
                         "4\r\nask_\r\nB;x=\"y\"\r\nkey=hostile\r\n0\r\nX-Trailer: z\r\n\r\n",
                    head);
        break;
    case 3:
        n = sprintf(out, "%sContent-Length: 15\r\nExpect: 100-continue\r\n\r\nask_key=hostile",
                    head);
        break;
    case 4:
        n = sprintf(out, "POST http://a/ HTTP/1.0\r\nContent-Length: 19\r\n"
                         "Connection: keep-alive\r\n\r\nask_key=%%68ostil%%65");
        break;
    case 5:
        n = sprintf(out, "%sContent-Type: application/x-www-form-urlencoded\r\n"
                         "Content-Length: 15\r\nConnection: close\r\n\r\nask_key=hostile",
                    head);
        break;
    default:
        n = sprintf(out, "%sContent-Length: 15\r\n\r\nask_key=hostile"
                         "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
                         "%sContent-Length: %zu\r\n\r\n%s",
                    head, head, strlen(login_known), login_known);
        break;
    }
    return (size_t)n;
}

/* Flip, replace, insert, delete, duplicate, truncate. A request stays below 4 KB. */
static size_t mutate(uint64_t *r, char *p, size_t n)
{
    static const char sharp[] = "\r\n\0 :;=%+-0129aF\x7f\xff";
    size_t at, m;
    if (n == 0) return 0;
    at = below(r, n);
    m = 1 + below(r, n - at < 200 ? n - at : 200);
    switch (below(r, 6)) {
    case 0:  p[at] = (char)(p[at] ^ 1 << below(r, 8)); return n;
    case 1:  p[at] = sharp[below(r, sizeof sharp - 1)]; return n;
    case 2:  memmove(p + at + 1, p + at, n - at);
             p[at] = sharp[below(r, sizeof sharp - 1)];
             return n + 1;
    case 3:  m = below(r, 2) ? 1 : m;
             memmove(p + at, p + at + m, n - at - m);
             return n - m;
    case 4:  memmove(p + at + m, p + at, n - at);      /* what is there now lies twice */
             return n + m;
    default: return at;
    }
}

/* One connection of garbage or a mutation. */
typedef struct {
    int fd, i, status;      /* status: 0, 200, or the last of others */
    bool held, over;      /* held: not half-closed; over: no answer may follow */
    double began_s;
    size_t in_n;
    char   in[ANSWER_CAP + 1];
} client;

static size_t volley_bytes(int phase, int i, char *out)
{
    uint64_t r = random_for(phase, i);
    if (phase == GARBLED) return garbage(&r, out);
    size_t n = request(&r, out);
    for (size_t k = 1 + below(&r, MUTATIONS); k > 0; k--) n = mutate(&r, out, n);
    return n;
}

static void volley_open(int phase, int i, client *c)
{
    static char out[REQUEST_CAP];
    size_t n = volley_bytes(phase, i, out), first = i % 3 == 0 ? n / 2 : n;
    *c = (client){ .fd = connect_counted(phase, i, 0), .i = i, .held = i % HOLD_EVERY == 0, .began_s = now_s() };
    if (c->fd < 0) return;
    put(c->fd, out, first);
    if (first < n) put(c->fd, out + first, n - first);
    if (!c->held) shutdown(c->fd, SHUT_WR);
}

/* Nobody gets 200 for garbage; for a mutation it may be a key, or the ID that the known key belongs
   to. */
static bool may_say(int phase, const answer *a)
{
    if (a->status != 200) return true;
    return phase == MUTANT &&
           (is_key(a->body, a->body_n) ||
            (a->body_n == sizeof id_known - 1 && memcmp(a->body, id_known, a->body_n) == 0));
}

static void complain(int phase, const client *c, const char *why)
{
    dprintf(1, "        %s: seed %lld, turn %d, connection %d: %s: ", phase_names[phase],
            options.seed, turn, c->i, why);
    dprintf(1, "%.200s\n", c->in_n ? c->in : "(nothing)");
    shared->of[phase].wrong++;
}

/* Take the answers that are whole. */
static void volley_answers(int phase, client *c)
{
    answer a;
    for (ptrdiff_t n; c->in_n > 0; c->in_n -= (size_t)n, memmove(c->in, c->in + n, c->in_n + 1)) {
        n = answer_read(c->in, c->in_n, &a);
        if (n == 0) return;
        if (n < 0 || c->over || !may_say(phase, &a)) {
            complain(phase, c,
                     n < 0     ? "not HTTP"
                     : c->over ? "an answer after the last"
                               : "not to be said");
            c->in_n = 0;
            return;
        }
        c->over = a.last;
        if (a.status >= 200 && c->status != 200) c->status = a.status;
    }
}

/* It ended, or its time is over. */
static void volley_close(int phase, client *c, _Atomic(int) *without_answer)
{
    tally *t = &shared->of[phase];
    if (without_answer == &t->closed && c->in_n > 0) complain(phase, c, "cut off");
    if (without_answer == &t->left && !c->held) {
        t->stuck++;
        complain(phase, c, "neither answered nor closed");
    }
    close_counted(phase, &c->fd,
                  c->status == 200 ? &t->answered
                  : c->status      ? &t->refused
                                   : without_answer);
}

static void volley_event(int phase, client *c)
{
    tally *t = &shared->of[phase];
    ssize_t got = recv(c->fd, c->in + c->in_n, ANSWER_CAP - c->in_n, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        volley_close(phase, c, got == 0 ? &t->closed : &t->reset);
        return;
    }
    c->in[c->in_n += (size_t)got] = 0;
    volley_answers(phase, c);
}

static void volley(int phase)
{
    static client clients[SLOTS];
    struct pollfd polls[SLOTS];
    int next = 0, open = 1, all = phase == GARBLED ? GARBAGE : MUTATED;
    int fd = connect_from(PHASES + 1, 0, 0);
    if (fd < 0 || handshake(fd, id_known, login_known)) shared->of[phase].failed++;
    close(fd);
    for (int i = 0; i < SLOTS; i++) clients[i].fd = -1;
    while (open > 0) {
        open = 0;
        for (int i = 0; i < SLOTS; i++) {
            client *c = &clients[i];
            if (c->fd >= 0 && ms_since(c->began_s) > (c->held ? HOLD_MS : ANSWER_MS))
                volley_close(phase, c, &shared->of[phase].left);
            if (c->fd < 0 && next < all) volley_open(phase, next++, c);
            polls[i] = (struct pollfd){ .fd = c->fd, .events = POLLIN };
            open += c->fd >= 0;
        }
        if (poll(polls, SLOTS, 50) < 0) break;
        for (int i = 0; i < SLOTS; i++) if (polls[i].revents) volley_event(phase, &clients[i]);
    }
}

/* ---- who goes away ---- */

static const char *const unfinished[] = {
    "", "P", "POST / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\nask_", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nB\r\nask",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nlogin=none", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n"
};

/* Gone in the middle of a request, or without reading its answer: by FIN, or by RST. */
static void leave(int phase)
{
    for (int i = 0, n = phase == RESET ? RESETS : VANISH; i < n; i++) {
        const char *p = unfinished[(size_t)i % COUNT(unfinished)];
        int fd = connect_counted(phase, i, 0);
        if (fd < 0) continue;
        put(fd, p, strlen(p));
        if (i % 2) nap(1);      /* the server may have read it, and answered, or not */
        if (phase == RESET)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 },
                       sizeof(struct linger));
        close_counted(phase, &fd, &shared->of[phase].left);
    }
}

/* ---- who is slow ---- */

static const struct {
    const char *begin, *then;
} drips[] = {
    /* then: one of its bytes now and then, over and over */
    { "POST / HTTP/1.1\r\nHost: a\r\nX-", "" },
    { "POST / HTTP/1.1\r\nHost: a\r\nX-", "a" },
    { "POST / HTTP/1.1\r\nHost: a\r\n", "a: b\r\n" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\nask_key=", "a" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n" },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\nP", "OST" }      /* a whole request, then a slow one */
};

typedef struct { int fd, drops, status; double began_s, dripped_s; } slow_client;

static void slow_end(slow_client *c, bool reset)
{
    tally *t = &shared->of[SLOWLORIS];
    int ms = ms_since(c->began_s);
    if (ms < KA_REQUEST_MS - EARLY_MS) t->early++;
    close_counted(SLOWLORIS, &c->fd,
                  c->status == 408 ? &t->refused
                  : reset          ? &t->reset
                                   : &t->closed);
}

/* The last answer is the one that counts: a whole request before may have been answered as well. */
static void slow_event(slow_client *c)
{
    char in[HEAD_MOST * 2];
    answer a;
    ssize_t got = recv(c->fd, in, sizeof in - 1, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        slow_end(c, got < 0);
        return;
    }
    in[got] = 0;
    for (ptrdiff_t at = 0, n; at < got; at += n) {
        n = answer_read(in + at, (size_t)(got - at), &a);
        if (n <= 0 || a.status == 200) shared->of[SLOWLORIS].wrong++;
        if (n <= 0) return;
        c->status = a.status;
    }
}

static void slow_drip(slow_client *c, const char *then, int every_ms)
{
    if (!*then || ms_since(c->dripped_s) < every_ms) return;
    put(c->fd, &then[(size_t)c->drops++ % strlen(then)], 1);
    c->dripped_s = now_s();
}

static void slow(int phase)
{
    static slow_client clients[SLOW];
    static struct pollfd polls[SLOW];
    tally *t = &shared->of[phase];
    double began = now_s();
    for (int i = 0; i < SLOW; i++) {
        const char *p = drips[(size_t)i % COUNT(drips)].begin;
        clients[i] = (slow_client){ .fd = connect_counted(phase, i, 0),
                                    .began_s = now_s(),
                                    .dripped_s = now_s() };
        if (clients[i].fd >= 0) put(clients[i].fd, p, strlen(p));
    }
    shared->ready++;
    while (t->open > 0 && ms_since(began) < KA_REQUEST_MS + KA_LINGER_MS + LATE_MS) {
        for (int i = 0; i < SLOW; i++)
            polls[i] = (struct pollfd){ .fd = clients[i].fd, .events = POLLIN };
        if (poll(polls, SLOW, 100) < 0) break;
        for (int i = 0; i < SLOW; i++) {
            if (polls[i].revents) slow_event(&clients[i]);
            if (clients[i].fd >= 0)
                slow_drip(&clients[i], drips[(size_t)i % COUNT(drips)].then, DRIP_MS);
        }
    }
    t->stuck += t->open;
}

/* ---- who never reads ---- */

/* Ask as long as the system takes it. */
static void no_read_fill(int fd)
{
    static const char one[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static char many[64 * (sizeof one - 1)];
    for (size_t i = 0; i < sizeof many; i++) many[i] = one[i % (sizeof one - 1)];
    while (put(fd, many, sizeof many) > 0) {}
}

/* Until it is killed: whether the server has closed a connection shows there, and here only if its
   reset lies in the window, which is shut. */
static void no_read(int phase)
{
    static struct pollfd polls[UNREAD];
    tally *t = &shared->of[phase];
    for (int i = 0; i < UNREAD; i++)
        polls[i] = (struct pollfd){ .fd = connect_counted(phase, i, 4096) };
    shared->ready++;
    for (;; nap(200)) {
        for (int i = 0; i < UNREAD; i++) if (polls[i].fd >= 0) no_read_fill(polls[i].fd);
        if (poll(polls, UNREAD, 0) < 0) continue;
        for (int i = 0; i < UNREAD; i++)
            if (polls[i].revents & (POLLERR | POLLHUP))
                close_counted(phase, &polls[i].fd, &t->reset);
    }
}

/* ---- who wants more than its share: all connections, or all keys ---- */

static bool is_try_later(const answer *a)
{
    return a->status == 429 && a->body_n == 9 && memcmp(a->body, "try_later", 9) == 0;
}

/* The answer is 429, or 408 to one that was let in and took too long. Then the connection ends. */
static void crowd_event(slow_client *c)
{
    char in[HEAD_MOST * 2];
    tally *t = &shared->of[CROWD];
    answer a;
    ssize_t got = recv(c->fd, in, sizeof in - 1, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        close_counted(CROWD, &c->fd, c->status ? &t->refused : got < 0 ? &t->reset : &t->closed);
        c->began_s = now_s();
        return;
    }
    in[got] = 0;
    if (answer_read(in, (size_t)got, &a) != got || (!is_try_later(&a) && a.status != 408))
        t->wrong++;
    shared->later += is_try_later(&a);
    c->status = a.status;
}

/* One address wants as many connections as it can get, and says a slow POST on each. Which ones it
   has shows only when it opens no more: so it waits, at the end, for the answers to those that it
   opened last. */
static void crowd(int phase)
{
    static const char text[] =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\nask_key=crowd";
    static slow_client clients[CROWDING];
    struct pollfd polls[CROWDING];
    tally *t = &shared->of[phase];
    bool begun = false, over = false;
    for (int i = 0; i < CROWDING; i++) clients[i].fd = -1;
    for (double last_s = now_s();
         !over || (t->open > PER_PEER && ms_since(last_s) < CROWD_LAST_MS);) {
        for (int i = 0; i < CROWDING; i++) {
            slow_client *c = &clients[i];
            if (c->fd < 0 && !over && ms_since(c->began_s) >= CROWD_AGAIN_MS)
                *c = (slow_client){ .fd = connect_counted(phase, 0, 0), .began_s = last_s = now_s() };
            if (c->fd >= 0) slow_drip(c, text, CROWD_DRIP_MS);
            polls[i] = (struct pollfd){ .fd = c->fd, .events = POLLIN };
        }
        if (!begun) shared->ready++;                       /* all of them have connected */
        begun = true;
        if (poll(polls, CROWDING, 10) < 0) break;
        for (int i = 0; i < CROWDING; i++) if (polls[i].revents) crowd_event(&clients[i]);
        over = shared->stage == CLOSING;
    }
    t->left += t->open;
}

static const char asks_one[] =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nask_key=asks";

/* One connection that asks without end. sent: bytes of the request that the system took only in
   part. */
typedef struct { int fd; size_t sent, in_n; char in[ANSWER_CAP + 1]; } asker;

/* Count the answers that are whole: a key, or 429 with the time after which to ask again. */
static void asks_answers(asker *c)
{
    answer a;
    size_t at = 0;
    for (ptrdiff_t n; at < c->in_n && (n = answer_read(c->in + at, c->in_n - at, &a)) != 0;
         at += (size_t)n) {
        bool key = n > 0 && a.status == 200 && is_key(a.body, a.body_n);
        const char *field = strstr(c->in + at, "\r\nRetry-After: ");
        bool later = n > 0 && is_try_later(&a) && field && field < a.body;
        shared->keys += key;
        shared->later += later;
        if (key || later) continue;
        shared->of[ASKS].wrong++;
        if (n < 0) n = (ptrdiff_t)(c->in_n - at);          /* nothing behind it can be read */
    }
    memmove(c->in, c->in + at, c->in_n - at + 1);
    c->in_n -= at;
}

static void asks_event(asker *c, int events, const char *many, size_t many_n)
{
    tally *t = &shared->of[ASKS];
    ssize_t n;
    if (events & POLLOUT && (n = put(c->fd, many + c->sent, many_n - c->sent)) > 0)
        c->sent = (c->sent + (size_t)n) % (sizeof asks_one - 1);
    if (!(events & ~POLLOUT)) return;
    n = recv(c->fd, c->in + c->in_n, ANSWER_CAP - c->in_n, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        close_counted(ASKS, &c->fd, n < 0 ? &t->reset : &t->closed);
        return;
    }
    c->in[c->in_n += (size_t)n] = 0;
    asks_answers(c);
}

/* One address asks for keys on some connections, as fast as the system takes it. */
static void asks(int phase)
{
    static char many[64 * (sizeof asks_one - 1)];
    static asker clients[ASKING];
    struct pollfd polls[ASKING];
    tally *t = &shared->of[phase];
    for (size_t i = 0; i < sizeof many; i++) many[i] = asks_one[i % (sizeof asks_one - 1)];
    for (int i = 0; i < ASKING; i++) clients[i].fd = connect_counted(phase, 0, 0);
    for (bool begun = false; shared->stage != CLOSING; ) {
        if (!begun && (t->open == 0 || shared->keys + shared->later + t->wrong >= MAX_KEYS)) {
            begun = true;      /* without the limit there is no room for a key any more */
            shared->ready++;
        }
        for (int i = 0; i < ASKING; i++)
            polls[i] = (struct pollfd){ .fd = clients[i].fd, .events = POLLIN | POLLOUT };
        if (poll(polls, ASKING, 10) < 0) break;
        for (int i = 0; i < ASKING; i++) {
            if (polls[i].revents) asks_event(&clients[i], polls[i].revents, many, sizeof many);
        }
    }
    t->left += t->open;
}

/* ---- running a phase ---- */

static _Noreturn void summary(void);

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static long total_made(void)
{
    long n = 0;
    for (int i = 0; i < PHASES; i++) n += total[i].made;
    return n;
}

/* The handshakes from one on: good ones, failed ones; their times, sorted, go to ms. */
static size_t shots_from(int from, float *ms, size_t *bad)
{
    size_t n = 0;
    *bad = 0;
    for (int i = from; i < shared->shots_n && i < SHOTS; i++) {
        if (shared->shots[i].ok) ms[n++] = shared->shots[i].ms;
        else (*bad)++;
    }
    qsort(ms, n, sizeof *ms, by_value);
    return n;
}

/* A soak's second, and its minute. */
static void sample(void)
{
    static float ms[SHOTS];
    static int shots_at;
    size_t bad, n;
    if (!server.kept) return;      /* a server with limits has a memory of its own */
    if (samples_n >= SAMPLES || ms_since(start_s) < samples_n * 1000) return;
    samples[samples_n++] = rss_kb();
    if (!options.soak || samples_n % 60 != 1 || samples_n == 1) return;
    long least = samples[samples_n - 60], most = least;
    for (int i = samples_n - 60; i < samples_n; i++) {
        if (samples[i] < least) least = samples[i];
        if (samples[i] > most) most = samples[i];
    }
    n = shots_from(shots_at, ms, &bad);
    shots_at = shared->shots_n;
    printf("minute %3d: RSS %6.1f MB (least %.1f, most %.1f), %5d descriptors, "
           "%ld connections so far, %zu handshakes good, %zu failed, p50 %.1f ms, max %.1f ms\n",
           samples_n / 60, (double)samples[samples_n - 1] / 1024, (double)least / 1024,
           (double)most / 1024, descriptors(), total_made(), n, bad, n ? (double)ms[n / 2] : 0,
           n ? (double)ms[n - 1] : 0);
}

/* Called wherever we wait. */
static void tick(void)
{
    nap(5);
    if (interrupted) die("interrupted");
    sample();
    if (server_ended() || now_s() > deadline_s) {
        mark(false, server.ended ? "the server lives" : "all is over in time");
        summary();
    }
}

static size_t spawn(void (*run)(int), int arg)
{
    size_t place = 0;
    while (place < MAX_CHILDREN && children[place]) place++;
    pid_t pid = place < MAX_CHILDREN ? fork() : -1;
    if (pid < 0) die("cannot start a process: %s", strerror(errno));
    if (pid == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(arg);
        _exit(0);
    }
    children[place] = pid;
    return place;
}

static bool running(size_t place)
{
    int status;
    if (!children[place] || waitpid(children[place], &status, WNOHANG) != children[place])
        return children[place] != 0;
    if (status != 0) mark(false, "a process of ours ended well (status %x)", (unsigned)status);
    children[place] = 0;
    return false;
}

/* What the server should have open, but for those of which only it knows whether they are over. */
static int expected(void) { return server.base + server.kept + shared->of[SLOWLORIS].open; }

static int undecided(void) { return shared->of[NO_READ].open; }

static bool back(void)
{
    for (double began = now_s(); ms_since(began) < BACK_MS; tick()) {
        int more = descriptors() - expected(), most = undecided();
        if (more >= (ms_since(total[NO_READ].began_s) < KA_STALL_MS ? most : 0) && more <= most)
            return true;
    }
    return false;
}

static void phase_begin(int p)
{
    memset(&shared->of[p], 0, sizeof shared->of[p]);
    total[p].began_s = now_s();
    total[p].shots_at = shared->shots_n;
    if (!total[p].ms) total[p].ms = malloc(SHOTS * sizeof *total[p].ms);
    if (!total[p].ms) die("out of memory");
}

/* What is the same for all of them. */
static void phase_end(int p)
{
    const tally *t = &shared->of[p];
    size_t bad, n;
    bool is_back = back();
    total[p].rss_kb = rss_kb();
    total[p].descriptors = descriptors();
    n = shots_from(total[p].shots_at, total[p].ms + total[p].good, &bad);
    mark(is_back, "%s: the server's descriptors are back: %d, and should be %d", phase_names[p],
         total[p].descriptors, expected() + undecided());
    mark(t->made == t->answered + t->refused + t->closed + t->reset + t->left,
         "%s: all %d connections are accounted for", phase_names[p], t->made);
    mark(t->failed == 0, "%s: all could connect, and were served if they asked (%d not)",
         phase_names[p], t->failed);
    if (p != VANISHED && p != RESET && p != NO_READ)
        mark(t->wrong == 0, "%s: all answers are HTTP, and may be given (%d not)", phase_names[p],
             t->wrong);
    mark(n > 0 && bad == 0, "%s: %zu good handshakes, %zu failed", phase_names[p], n, bad);
    total[p].good += n;
    total[p].bad += bad;
    total[p].made += t->made;
    total[p].answered += t->answered;
    total[p].refused += t->refused;
    total[p].closed += t->closed;
    total[p].reset += t->reset;
    total[p].left += t->left;
}

/* ---- the phases, as the parent sees them ---- */

static void stage(int next, int holders)
{
    shared->ready = 0;
    shared->stage = next;
    while (shared->ready < holders) tick();
}

/* Have [from, to) opened, process by process: the order in which they came is that of their
   numbers. */
static int held(int holders, int from, int to, int newcomers)
{
    int each = server.limit - 100 < HELD_EACH ? server.limit - 100 : HELD_EACH;
    for (int at = from; at < to; at += each, holders++) {
        if (holders == MAX_HOLDERS) die("too many processes");
        shared->held[holders] = (range){ at, at + each < to ? at + each : to, newcomers };
        shared->ready = 0;
        holder_places[holders] = spawn(hold, holders);
        while (shared->ready < 1) tick();
    }
    return holders;
}

/* Who was closed must be the first of those that made no request, and as many as room was needed
   for. */
static void idle_judge(int fill, int all, int others_before, int others_after)
{
    int room = server.limit - server.base, closed = 0, out_of_turn = 0, open_before = 0;
    int most = all + others_before + 1 - room, least = all + others_after + 1 - room;
    for (int i = 0; i < all; i++) {
        bool lost = shared->fate[i] == LOST;
        closed += lost;
        if (!lost && i < fill && !touched(i)) open_before++;
        if (lost && (open_before > 0 || touched(i) || i >= fill)) out_of_turn++;
    }
    /* A fresh connection a second needs room as well. */
    int extra = ms_since(total[IDLE].began_s) / 1000 + 2;
    mark(closed >= least && closed <= most + extra,
         "idle: %d were closed for newcomers, of at least %d and at most %d", closed, least,
         most + extra);
    mark(out_of_turn == 0, "idle: those were the longest idle (%d were not)", out_of_turn);
    shared->of[IDLE].closed += closed - out_of_turn;
    shared->of[IDLE].left += fill - TOUCHED - (closed - out_of_turn);
    shared->of[IDLE].open = 0;
}

static int others(void) { return shared->of[SLOWLORIS].open + shared->of[NO_READ].open; }

static void idle_phase(void)
{
    int fill = server.limit - server.base - others() - 1 - ROOM, all = fill + ROOM + BEYOND,
        before = others(), want;
    phase_begin(IDLE);
    shared->stage = FILLING;
    int holders = held(0, 0, fill, 0);
    for (double began = now_s();
         descriptors() < (want = server.base + fill + others()) && ms_since(began) < BACK_MS;)
        tick();
    mark(descriptors() >= want, "idle: %d are held, near the limit of %d descriptors: %d open",
         fill, server.limit, descriptors());
    stage(TOUCHING, holders);
    before = others();
    holders = held(holders, fill, all, 1);
    stage(LOOKING, holders);
    idle_judge(fill, all, before, others());
    stage(CLOSING, holders);
    for (int i = 0; i < holders; i++) while (running(holder_places[i])) tick();
    phase_end(IDLE);
}

static void ahead_phase(int p)
{
    phase_begin(p);
    for (size_t place = spawn(p < VANISHED ? volley : leave, p); running(place); ) tick();
    phase_end(p);
    if (p == GARBLED || p == MUTANT)
        mark(shared->of[p].stuck == 0, "%s: each is answered or closed (%d not)", phase_names[p],
             shared->of[p].stuck);
    if (p == GARBLED)
        mark(shared->of[p].answered == 0 && shared->of[p].refused > 0, "garbage: never gets 200");
    if (p == MUTANT)
        mark(shared->of[p].answered > 0 && shared->of[p].refused > 0,
             "mutated: some were still right, some were refused");
}

static size_t beside_begin(int p, void (*run)(int))
{
    phase_begin(p);
    shared->ready = 0;
    size_t place = spawn(run, p);
    while (shared->ready < 1) tick();
    return place;
}

static void beside_end(int p, int time_out_ms, const char *what)
{
    const tally *t = &shared->of[p];
    mark(t->stuck == 0 && t->early == 0, "%s: %s after %d s (%d were not, %d were before)",
         phase_names[p], what, time_out_ms / 1000, t->stuck, t->early);
    shared->of[p].open = 0;
    shared->of[p].left += t->made - t->answered - t->refused - t->closed - t->reset;
    phase_end(p);
}

/* As long as the clients hold what they have, only the server can have ended it. */
static void no_read_end(size_t place)
{
    tally *t = &shared->of[NO_READ];
    while (descriptors() > expected() &&
           ms_since(total[NO_READ].began_s) < KA_STALL_MS + STALL_LATE_MS)
        tick();
    t->stuck += descriptors() > expected() ? descriptors() - expected() : 0;
    kill_child(place);
    t->closed += t->open - t->stuck;
    beside_end(NO_READ, KA_STALL_MS, "each is closed");
}

/* The mix: two phases that wait for time-outs, and meanwhile all others. */
static void round_run(void)
{
    size_t slows = beside_begin(SLOWLORIS, slow), unreads = beside_begin(NO_READ, no_read);
    bool slow_over = false;
    idle_phase();
    do {
        for (int p = GARBLED; p < AHEAD; p++) ahead_phase(p);
        turn++;
        if (!slow_over && !running(slows)) {
            slow_over = true;
            beside_end(SLOWLORIS, KA_REQUEST_MS, "each gets 408 or is closed");
        }
    } while (options.soak && ms_since(total[NO_READ].began_s) < KA_STALL_MS);
    while (!slow_over && running(slows)) tick();
    if (!slow_over) beside_end(SLOWLORIS, KA_REQUEST_MS, "each gets 408 or is closed");
    no_read_end(unreads);
    for (double began = now_s(); connections_told() != 1 && ms_since(began) < BACK_MS; ) tick();
    mark(connections_told() == 1, "round: the server counts %ld connection, the kept one",
         connections_told());
    long kb = rss_kb();
    if (!first_rss_kb) first_rss_kb = kb;
    if (options.soak) return;                              /* judged by thirds, at the end */
    mark(kb <= first_rss_kb + RSS_MORE_KB,
         "round: RSS is %ld KB, %ld after the first, may be %d more", kb, first_rss_kb,
         RSS_MORE_KB);
}

/* ---- all ---- */

static void soak_judge(void)
{
    long mean[3] = { 0 }, most[3] = { 0 };
    int third = samples_n / 3;
    for (int k = 0; k < 3 && third > 0; k++) {
        for (int i = k * third; i < (k + 1) * third; i++) {
            mean[k] += samples[i];
            if (samples[i] > most[k]) most[k] = samples[i];
        }
        mean[k] /= third;
        printf("third %d: RSS mean %.1f MB, most %.1f MB\n", k + 1, (double)mean[k] / 1024,
               (double)most[k] / 1024);
    }
    mark(most[2] <= most[1] + SOAK_MORE_KB && mean[2] <= mean[1] + SOAK_MORE_KB,
         "soak: RSS is flat: the last third has at most %d KB more than the second", SOAK_MORE_KB);
}

static void table(void)
{
    printf("\n%-8s %8s %8s %8s %8s %8s %8s | %5s %6s %8s %8s | %8s %6s\n", "phase", "made",
           "answered", "refused", "closed", "reset", "left", "good", "failed", "p50 ms", "max ms",
           "RSS KB", "fds");
    for (int p = 0; p < PHASES; p++) {
        size_t n = total[p].good;
        if (!total[p].ms) continue;
        qsort(total[p].ms, n, sizeof *total[p].ms, by_value);
        printf("%-8s %8ld %8ld %8ld %8ld %8ld %8ld | %5zu %6zu %8.2f %8.2f | %8ld %6d\n",
               phase_names[p], total[p].made, total[p].answered, total[p].refused, total[p].closed,
               total[p].reset, total[p].left, n, total[p].bad, n ? (double)total[p].ms[n / 2] : 0,
               n ? (double)total[p].ms[n - 1] : 0, total[p].rss_kb, total[p].descriptors);
    }
}

static _Noreturn void summary(void)
{
    kill_all();
    table();
    printf("\nseed %lld, %.0f s\n%d passed, %d failed, 0 skipped\n", options.seed,
           now_s() - start_s, passed, failed);
    exit(failed != 0);
}

/* The server stops when it is told, with nothing left to wait for. */
static void stop_server(void)
{
    int status = -1;
    bool over = false;
    kill(server.pid, SIGTERM);
    for (double began = now_s(); !over && ms_since(began) < STOP_MS; nap(5))
        over = waitpid(server.pid, &status, WNOHANG) == server.pid;
    server.ended = over;
    mark(over && status == 0, "the server stops when it is told (status %d)", status);
}

static void parse(int argc, char **argv)
{
    struct { const char *name; long long least, most, *value; } flags[] = {
        { "--seconds", SECONDS, 86400, &options.seconds }, { "--seed", 0, 65535, &options.seed },
        { "--soak", 1, SOAK_MINUTES_MOST, &options.soak }
    };
    die_status = 2;
    for (int i = 1; i < argc; i += 2) {
        size_t k = 0;
        char *end = NULL;
        while (k < COUNT(flags) && strcmp(argv[i], flags[k].name) != 0) k++;
        if (k == COUNT(flags))
            die("usage: hostile [--seconds S, %d or more] [--seed N] [--soak MINUTES]", SECONDS);
        long long v = i + 1 < argc ? strtoll(argv[i + 1], &end, 10) : -1;
        if (i + 1 == argc || *end || v < flags[k].least || v > flags[k].most)
            die("%s: a whole number from %lld to %lld is needed", flags[k].name, flags[k].least,
                flags[k].most);
        *flags[k].value = v;
    }
    die_status = 1;
    if (options.soak) options.seconds = options.soak * 60;
}

/* Returns the descriptors that the server may have. */
static int prepare(void)
{
    struct rlimit limit;
    struct sigaction act = { .sa_handler = on_signal };
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < DESCRIPTORS_LEAST)
        die("a limit of %d descriptors is needed (ulimit -Hn)", DESCRIPTORS_LEAST);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) die("out of memory");
    return limit.rlim_max < DESCRIPTORS ? (int)limit.rlim_max : DESCRIPTORS;
}

/* ---- the phases with limits of each address ---- */

/* An attack by one address, and meanwhile the handshakes of its neighbour. On a machine with other
   work they get more time, until the first of them would have failed. */
static void limited_phase(int p, void (*attack)(int), int every_ms)
{
    if (!options.soak)
        printf("-- server %d, limit %d descriptors\n", (int)server.pid, server.limit);
    shared->stage = FILLING;
    shared->keys = shared->later = 0;
    size_t attacker = beside_begin(p, attack), good_one = spawn(neighbour, every_ms);
    int from = total[p].shots_at, ms;
    while ((ms = ms_since(total[p].began_s)) < LIMITED_MS ||
           (shared->shots_n < from + LIMITED_GOOD && ms < LIMITED_MS + HANDSHAKE_MS)) tick();
    kill_child(good_one);      /* while the attack goes on: all were made beside it */
    mark(shared->shots_n >= from + LIMITED_GOOD, "%s: %d handshakes beside it, of at least %d",
         phase_names[p], shared->shots_n - from, LIMITED_GOOD);
    shared->stage = CLOSING;
    while (running(attacker)) tick();
    phase_end(p);
}

static void crowd_phase(void)
{
    const tally *t = &shared->of[CROWD];
    char login[128];
    server_start(crowded, DESCRIPTORS_FEW, 0);
    limited_phase(CROWD, crowd, CROWD_GOOD_MS);
    int turned_away = t->refused + t->closed + t->reset;
    mark(shared->later > 0 && turned_away >= CROWDING - PER_PEER,
         "crowd: %d were turned away, %d of them by 429", turned_away, shared->later);
    mark(t->left > 0 && t->left <= PER_PEER, "crowd: %d stayed, of at most %d", t->left, PER_PEER);
    int fd = connect_from(CROWD, 0, 0);
    const char *why = fd < 0 ? "cannot connect" : handshake(fd, "crowd", login);
    if (fd >= 0) close(fd);
    mark(!why, "crowd: its address is served again when they have gone%s%s", why ? ": " : "",
         why ? why : "");
    stop_server();
}

static void asks_phase(int limit)
{
    server_start(asked, limit, 0);
    limited_phase(ASKS, asks, GOOD_EVERY_MS);
    int most = ASK_BURST + ASK_RATE * ms_since(total[ASKS].began_s) / 1000 + 1;
    mark(shared->keys > 0 && shared->keys <= most, "asks: it got %d keys, of at most %d",
         shared->keys, most);
    mark(shared->later > shared->keys, "asks: most of its answers are 429 try_later (%d)",
         shared->later);
    stop_server();
}

/* ---- main ---- */

int main(int argc, char **argv)
{
    parse(argc, argv);
    int limit = prepare();
    server_start(plain, limit, 1);
    start_s = now_s();
    deadline_s = start_s + (double)options.seconds + OVERRUN_S;
    printf("server %d on " IP ":%d, limit %d descriptors, seed %lld\n", (int)server.pid,
           server.port, server.limit, options.seed);
    size_t good_one = spawn(good, -1);
    while (shared->shots_n < 2) tick();
    mark(shared->shots[0].ok && shared->shots[1].ok, "the first handshakes");
    if (failed) summary();
    for (int round = 0; ; round++) {
        double began = now_s();
        if (!options.soak) printf("-- round %d\n", round + 1);
        round_run();
        double took = now_s() - began, gone = now_s() - start_s;
        if (round + 1 >= ROUNDS_LEAST && gone + (options.soak ? 0 : took) > (double)options.seconds)
            break;
    }
    int seconds = ms_since(start_s) / 1000;
    mark(shared->shots_n >= seconds, "a good handshake a second at least: %d in %d s",
         shared->shots_n, seconds);
    if (options.soak) soak_judge();
    kill_child(good_one);
    stop_server();
    crowd_phase();
    asks_phase(limit);
    summary();
}
