/* load - loads one of many servers at a time, in short slices. bench/bench.py drives it.

   A virtual machine changes its speed within minutes. What is compared must run within the same
   second, so all servers are up, and each gets a slice of a fraction of a second in turn. wrk
   knows whole seconds only.

   Commands come on stdin, one a line. The answer to each is one line on stdout.
     open NAME PORT CONNECTIONS SHAPE [PID...]  connect; the PIDs are the server's processes
     append NAME FILE BYTES                     no server: each "request" is a write and fdatasync
     run NAME MS             -> requests, seconds, CPU seconds of the server, p50, p99, p99.9 in us
     fill NAME N             ask until N keys are known here; the shapes `mix` and `asks` use them
     total NAME              -> p50, p99, p99.9 in us of all runs so far
     close NAME
     start N COMMAND...      -> median, worst ms from the start to its first line, of N starts
   A failure is told on stderr, and ends the program with status 1.

   SHAPE is what each connection sends:
     ask      a request for a key, when the last one was answered
     ask16    16 of them in one write
     close    as ask, with a connection for each
     idle     one login when it is opened, with the first known key, and nothing more
     asks     as ask, by an ID picked at random; mix: one of these to four logins
     set      SET of Redis (RESP), each with another name */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TARGETS = 32, MAX_PIDS = 16, MAX_EVENTS = 256, MAX_STARTS = 1000 };
enum { KEY_BYTES = 88, PIPELINED = 16 };
enum { READ_BYTES = 65536, ANSWER_BYTES = 2048, REQUEST_BYTES = 256, ANSWER_S = 10 };
enum { A_SOURCE = 5000 };          /* connections from one address: it has some 28,000 ports */

/* Latencies are counted in tenths of a microsecond; the histogram is exact to a thousandth. */
enum { SUB_BITS = 10, SUBS = 1 << SUB_BITS, BUCKETS = 24 * SUBS };
typedef struct { uint64_t n; uint32_t count[BUCKETS]; } histogram;

typedef struct {
    int      fd;
    unsigned waiting;              /* answers */
    size_t   n;                    /* bytes of an answer that is not all here */
    uint64_t sent_ns;
    char     part[ANSWER_BYTES];
} connection;

typedef enum { ASK, ASK16, CLOSE, IDLE, ASKS, MIX, SET, SHAPES, APPEND } shape;
static const char *const shapes[SHAPES] = { "ask", "ask16", "close", "idle", "asks", "mix", "set" };

typedef struct {
    char        name[40];
    shape       shape;
    int         port, epoll, connections, pids, file, record;
    pid_t       pid[MAX_PIDS];
    connection *c;
    uint64_t    requests, deadline_ns;
    int         busy;              /* connections that wait for an answer */
    histogram   slice, total;
} target;

static target  targets[MAX_TARGETS];
static char    in[READ_BYTES + ANSWER_BYTES];
static char  (*keys)[KEY_BYTES];
static size_t  key_count, key_cap;
static uint64_t names;             /* that `set` has given */

static _Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) die("a process has ended: %s", strerror(errno));
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* The clock of a process counts nanoseconds of all its threads, those that have ended included. */
static double cpu_s(const target *t)
{
    double sum = 0;
    for (int i = 0; i < t->pids; i++) {
        clockid_t clock;
        if (clock_getcpuclockid(t->pid[i], &clock) != 0)
            die("%s: no process %d", t->name, (int)t->pid[i]);
        sum += (double)clock_ns(clock) / 1e9;
    }
    return sum;
}

/* ---- latencies ---- */

static void count(histogram *h, uint64_t ns)
{
    uint64_t tenths = ns / 100, shift = 0;
    while (tenths >> shift >= 2 * SUBS) shift++;
    uint64_t bucket = shift * SUBS + (tenths >> shift);
    h->count[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    h->n++;
}

static double quantile_us(const histogram *h, double share)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        sum += h->count[i];
        if (h->n == 0 || (double)sum < share * (double)h->n) continue;
        size_t shift = i < 2 * SUBS ? 0 : i / SUBS - 1;
        return (double)((i - shift * SUBS) << shift) / 10;
    }
    return 0;
}

static void add(histogram *to, const histogram *from)
{
    for (size_t i = 0; i < BUCKETS; i++) to->count[i] += from->count[i];
    to->n += from->n;
}

/* ---- requests and answers ---- */

static size_t put_ask(char *out, const char *field, const char *value, const char *more)
{
    return (size_t)snprintf(out, REQUEST_BYTES,
                            "POST / HTTP/1.1\r\nHost: bench\r\n%sContent-Length: %zu\r\n\r\n%s%.*s",
                            more, strlen(field) + KEY_BYTES, field, KEY_BYTES, value);
}

static const char *random_key(void)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return keys[(state >> 33) % key_count];
}

/* What a connection of t sends next. Returns its bytes; *answers is how many answers it wants. */
static size_t next_request(const target *t, char *out, unsigned *answers)
{
    static const char id[] = "keyauth+keyauth+keyauth+keyauth+keyauth+keyauth+"
                             "keyauth+keyauth+keyauth+keyauth+keyauth+";
    size_t n = 0;
    *answers = t->shape == ASK16 ? PIPELINED : 1;
    switch (t->shape) {
    case IDLE: return put_ask(out, "login=", keys[0], "");
    case CLOSE: return put_ask(out, "ask_key=", id, "Connection: close\r\n");
    case MIX:
        if (names++ % 5 != 0) return put_ask(out, "login=", random_key(), "");
        return put_ask(out, "ask_key=", random_key(), "");
    case ASKS: return put_ask(out, "ask_key=", random_key(), "");
    case SET:
        return (size_t)snprintf(out, REQUEST_BYTES,
                                "*3\r\n$3\r\nSET\r\n$24\r\nkey:%020llu\r\n$88\r\n%s\r\n",
                                (unsigned long long)names++, id);
    default:
        for (unsigned i = 0; i < *answers; i++) n += put_ask(out + n, "ask_key=", id, "");
        return n;
    }
}

/* The bytes of the answer at the begin of s; 0: it is not all here. Only 200 is a right one. */
static size_t answer_bytes(const target *t, const char *s, size_t n)
{
    if (t->shape == SET) {
        if (n >= 5 && memcmp(s, "+OK\r\n", 5) != 0)
            die("%s: answered %.*s", t->name, (int)(n < 60 ? n : 60), s);
        return n >= 5 ? 5 : 0;
    }
    const char *end = memmem(s, n, "\r\n\r\n", 4), *length = s;
    if (!end) return 0;
    if (memcmp(s, "HTTP/1.1 200 ", 13) != 0) die("%s: answered %.*s", t->name, (int)(end - s), s);
    while ((length = memchr(length, '\n', (size_t)(end - length))) != NULL &&
           strncasecmp(++length, "content-length:", 15) != 0) {}
    if (!length) die("%s: an answer without Content-Length", t->name);
    size_t bytes = (size_t)(end - s) + 4 + strtoul(length + 15, NULL, 10);
    return n >= bytes ? bytes : 0;
}

/* ---- connections ---- */

static void dial(target *t, connection *c)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)t->port) };
    struct sockaddr_in from = { .sin_family = AF_INET };
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    inet_pton(AF_INET, t->shape == SET ? "127.0.0.1" : "127.0.0.2", &to.sin_addr);
    from.sin_addr.s_addr = htonl(0x7F000101u + (unsigned)(c - t->c) / A_SOURCE);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->n = 0;
    if (c->fd < 0 ||
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){ 1 }, sizeof(int)) != 0 ||
        bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0 ||
        connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        epoll_ctl(t->epoll, EPOLL_CTL_ADD, c->fd, &ev) != 0)
        die("%s: connection %d: %s", t->name, (int)(c - t->c) + 1, strerror(errno));
}

static void send_next(target *t, connection *c)
{
    char out[PIPELINED * REQUEST_BYTES];
    size_t n = next_request(t, out, &c->waiting);
    c->sent_ns = now_ns();
    if (send(c->fd, out, n, MSG_NOSIGNAL) != (ssize_t)n)
        die("%s: cannot send: %s", t->name, strerror(errno));
}

static void keep_key(const char *answer, size_t bytes)
{
    if (key_count < key_cap) memcpy(keys[key_count++], answer + bytes - KEY_BYTES, KEY_BYTES);
}

static void receive(target *t, connection *c)
{
    memcpy(in, c->part, c->n);
    ssize_t got = recv(c->fd, in + c->n, READ_BYTES, 0);
    if (got <= 0) die("%s: closed its connection: %s", t->name, got == 0 ? "end" : strerror(errno));
    size_t n = c->n + (size_t)got, at = 0, bytes;
    while (c->waiting > 0 && (bytes = answer_bytes(t, in + at, n - at)) > 0) {
        keep_key(in + at, bytes);
        at += bytes;
        c->waiting--;
        t->requests++;
    }
    c->n = n - at;
    if (c->n > sizeof c->part) die("%s: an answer is longer than %d bytes", t->name, ANSWER_BYTES);
    memcpy(c->part, in + at, c->n);
    if (c->waiting > 0) return;
    uint64_t now = now_ns();
    count(&t->slice, now - c->sent_ns);
    if (t->shape == CLOSE) {
        close(c->fd);
        dial(t, c);
    }
    if (now < t->deadline_ns && (key_cap == 0 || key_count < key_cap)) send_next(t, c);
    else t->busy--;
}

/* Load t until the deadline, or until there are keys enough, and wait for the last answers. */
static void load(target *t, uint64_t ms)
{
    struct epoll_event events[MAX_EVENTS];
    memset(&t->slice, 0, sizeof t->slice);
    t->requests = 0;
    t->deadline_ns = now_ns() + ms * 1000000;
    t->busy = t->connections;
    for (int i = 0; i < t->connections; i++) send_next(t, &t->c[i]);
    while (t->busy > 0) {
        int n = epoll_wait(t->epoll, events, MAX_EVENTS, ANSWER_S * 1000);
        if (n == 0) die("%s: no answer within %d s", t->name, ANSWER_S);
        for (int i = 0; i < n; i++) receive(t, events[i].data.ptr);
    }
}

static void append(target *t, uint64_t ms)
{
    static const char record[4096];
    memset(&t->slice, 0, sizeof t->slice);
    t->requests = 0;
    uint64_t at = now_ns(), until = at + ms * 1000000;
    for (; at < until; t->requests++) {
        const uint64_t before = at;
        if (write(t->file, record, (size_t)t->record) != t->record || fdatasync(t->file) != 0)
            die("%s: %s", t->name, strerror(errno));
        at = now_ns();
        count(&t->slice, at - before);
    }
}

/* ---- commands ---- */

static target *find(const char *name)
{
    for (size_t i = 0; i < MAX_TARGETS; i++)
        if (strcmp(targets[i].name, name) == 0) return &targets[i];
    die("%s: no such target", name);
}

static const char *word(void)
{
    const char *w = strtok(NULL, " \n");
    if (!w) die("a word is missing");
    return w;
}

static target *make(void)
{
    target *t = find("");
    snprintf(t->name, sizeof t->name, "%s", word());
    t->pids = 0;
    return t;
}

static void command_open(void)
{
    target *t = make();
    t->port = atoi(word());
    t->connections = atoi(word());
    const char *name = word();
    for (t->shape = 0; t->shape < SHAPES && strcmp(shapes[t->shape], name) != 0; t->shape++) {}
    for (const char *p; t->pids < MAX_PIDS && (p = strtok(NULL, " \n")) != NULL; )
        t->pid[t->pids++] = (pid_t)atoi(p);
    t->c = calloc((size_t)t->connections, sizeof *t->c);
    t->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (t->shape == SHAPES || !t->c || t->epoll < 0)
        die("%s: cannot open it with shape %s", t->name, name);
    for (int i = 0; i < t->connections; i++) dial(t, &t->c[i]);
    if (t->shape == IDLE) load(t, 0);
    puts("ok");
}

static void command_append(void)
{
    target *t = make();
    const char *path = word();
    t->shape = APPEND;
    t->record = atoi(word());
    t->file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    t->pid[t->pids++] = getpid();
    if (t->file < 0) die("%s: %s", path, strerror(errno));
    puts("ok");
}

static void say_quantiles(const histogram *h)
{
    printf("%.1f %.1f %.1f\n", quantile_us(h, 0.5), quantile_us(h, 0.99), quantile_us(h, 0.999));
}

static void command_run(void)
{
    target *t = find(word());
    uint64_t ms = strtoull(word(), NULL, 10), begin = now_ns();
    double cpu = cpu_s(t);
    if (t->shape == APPEND) append(t, ms);
    else load(t, ms);
    double took = (double)(now_ns() - begin) / 1e9;
    add(&t->total, &t->slice);
    printf("%llu %.9f %.9f ", (unsigned long long)t->requests, took, cpu_s(t) - cpu);
    say_quantiles(&t->slice);
}

static void command_total(void) { say_quantiles(&find(word())->total); }

static void command_fill(void)
{
    target *t = find(word());
    size_t n = strtoull(word(), NULL, 10);
    keys = realloc(keys, n * sizeof *keys);
    if (!keys) die("no memory for %zu keys", n);
    key_cap = n;
    key_count = 0;
    load(t, 600000);
    key_cap = 0;
    puts("ok");
}

static void command_close(void)
{
    target *t = find(word());
    for (int i = 0; t->shape != APPEND && i < t->connections; i++) close(t->c[i].fd);
    close(t->shape == APPEND ? t->file : t->epoll);
    free(t->c);
    memset(t, 0, sizeof *t);
    puts("ok");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* From before posix_spawn to the line end in the pipe. */
static double start_ms(char *const *command)
{
    extern char **environ;
    posix_spawn_file_actions_t actions;
    int ends[2];
    char c = 0;
    pid_t pid;
    uint64_t begin = now_ns();
    if (pipe2(ends, O_CLOEXEC) != 0 || posix_spawn_file_actions_init(&actions) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1) != 0 ||
        posix_spawnp(&pid, command[0], &actions, NULL, command, environ) != 0)
        die("cannot start %s", command[0]);
    close(ends[1]);
    while (c != '\n') if (read(ends[0], &c, 1) != 1) die("%s said nothing", command[0]);
    double took = (double)(now_ns() - begin) / 1e6;
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    close(ends[0]);
    posix_spawn_file_actions_destroy(&actions);
    return took;
}

static void command_start(void)
{
    static double ms[MAX_STARTS];
    char *command[MAX_PIDS] = { 0 };
    size_t n = strtoul(word(), NULL, 10);
    for (size_t i = 0; i < MAX_PIDS - 1 && (command[i] = strtok(NULL, " \n")) != NULL; i++) {}
    if (n == 0 || n > MAX_STARTS || !command[0]) die("start: 1 to %d times what?", MAX_STARTS);
    for (size_t i = 0; i < n; i++) ms[i] = start_ms(command);
    qsort(ms, n, sizeof *ms, by_value);
    printf("%.3f %.3f\n", ms[n / 2], ms[n - 1]);
}

int main(void)
{
    static const struct { const char *name; void (*run)(void); } commands[] = {
        { "open", command_open }, { "append", command_append }, { "run", command_run },
        { "fill", command_fill }, { "total", command_total }, { "close", command_close },
        { "start", command_start },
    };
    enum { COMMANDS = sizeof commands / sizeof *commands };
    struct rlimit files;
    char line[1024];
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    while (fgets(line, sizeof line, stdin)) {
        const char *name = strtok(line, " \n");
        size_t i = 0;
        while (name && i < COMMANDS && strcmp(commands[i].name, name) != 0) i++;
        if (!name || i == COMMANDS) die("no such command");
        commands[i].run();
        fflush(stdout);
    }
    return 0;
}
