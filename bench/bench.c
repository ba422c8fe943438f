/* bench - keyauth beside other servers, under the same load, in one run.
     ./build.sh bench                 builds what is needed and runs this
     bench/bench [--rounds N] [--seconds S] [--only NAME,...] [--peers NAME,...] [--out DIR]
   Run it from the top folder, with ./server and the peers in bench/ built. The load is wrk's. The machine's speed may
   drift by a factor within minutes, so whatever is compared runs in turn, round after round, and a ratio is the median
   of the rounds' own ratios. bench/README.md says what each scenario is and what the figures mean. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IP "127.0.0.2"
#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { MAX_ROUNDS = 100, MAX_WINDOWS = 2000, MAX_CHILDREN = 8, MAX_ARGS = 20, STARTS = 50, COMPILES = 5 };
enum { IDLE = 15000, MIX_KEYS = 1000000, GROWTH_KEYS = 10000000, GROWTH_MOST = 10100000 };
enum { MIX_TURNS = 3 };       /* a round of the mix is three turns each: no server is started, and the mark is 3 % */

/* ---- what is measured ---- */

enum { RATE, CPU, P50, P99, P999, ERRORS, FIGURES };      /* of one run of wrk; times are microseconds */
static const char *const figure_names[FIGURES] = { "requests_per_s", "cpu_us_per_request", "p50_us", "p99_us", "p999_us", "errors" };

typedef struct { double v[FIGURES]; } sample;             /* NAN: not measured */

enum { FLOOR, KEYAUTH, NGINX, MICROHTTPD, GO, NODE, PEERS };
static struct {
    const char *name, *args[10], *version, *without;      /* in args, what starts with @ is replaced */
    bool present;
} peers[PEERS] = {
    { "floor", { "bench/floor", "@port", "@bytes", "@close" }, NULL, "build it with bench/build.sh", false },
    { "keyauth", { "./server", "--port", "@port", "--max-keys", "50000000" }, "./server --version", "build it with ./build.sh", false },
    { "nginx", { "nginx", "-e", "stderr", "-p", "@tmp", "-c", "nginx.conf" }, "nginx -v 2>&1", "Debian's package nginx brings it", false },
    { "microhttpd", { "bench/microhttpd", "@port" }, "dpkg-query -Wf 'libmicrohttpd ${Version}' libmicrohttpd-dev 2>/dev/null",
      "Debian's package libmicrohttpd-dev brings it; then bench/build.sh", false },
    { "go", { "bench/http", "@port" }, "go version", "Debian's package golang-go brings it; then bench/build.sh", false },
    { "node", { "node", "bench/node.js", "@port" }, "echo node $(node --version)", "Debian's package nodejs brings it", false },
};

/* The bytes are those of one request as load.lua makes it; the floor counts them, and a wrong number shows as time-outs. */
static const struct load { const char *name, *title, *shape; int connections; const char *bytes; } loads[] = {
    { "keepalive-1", "1 keep-alive connection", "ask", 1, "148" },
    { "keepalive-64", "64 keep-alive connections", "ask", 64, "148" },
    { "keepalive-512", "512 keep-alive connections", "ask", 512, "148" },
    { "pipelined-64x16", "64 connections, 16 requests pipelined", "ask16", 64, "148" },
    { "per-request", "64 at a time, a connection per request", "close", 64, "167" },
};
enum { KEEPALIVE_1, KEEPALIVE_64, KEEPALIVE_512, PIPELINED, PER_REQUEST, LOADS };

/* The same asks, with the keys kept in different ways: all servers have keyauth's own HTTP. DISK is no server: one key's
   bytes appended and synced again and again, which is what the disk allows at one connection. */
enum { JOURNAL, BATCHED, SINGLE, MEMORY, LOGGED, DISK, STORES };
static struct { const char *name, *peer, *args[10]; bool present; } stores[STORES] = {
    { "keyauth --journal", "keyauth", { "./server", "--port", "@port", "--max-keys", "50000000", "--journal", "@file" }, false },
    { "SQLite, batched", "sqlite", { "bench/sqlite", "@port", "@file", "--batched" }, false },
    { "SQLite, single", "sqlite", { "bench/sqlite", "@port", "@file", "--single" }, false },
    { "keyauth, no file", "keyauth", { "./server", "--port", "@port", "--max-keys", "50000000" }, false },
    { "keyauth --log", "keyauth", { "./server", "--port", "@port", "--max-keys", "50000000", "--log", "@file" }, false },
    { "append + fdatasync", "keyauth", { "./server" }, false },
};
static const struct load kept_loads[] = {
    { "journal-1", "1 connection", "ask", 1, "" },
    { "journal-64", "64 connections", "ask", 64, "" },
    { "journal-512", "512 connections", "ask", 512, "" },
};
enum { KEPT = COUNT(kept_loads), SYNC_BYTES = 142 /* a key of the load in the journal: 12 + 42 + 88 */, MAX_SYNCS = 1000000 };

/* Two runs of keyauth, turn by turn: [0] is what [1] is compared with. */
enum { MIX, GROWTH, IDLE_MANY, PAIRS };
static struct {
    const char *name, *title, *label[2];
    bool done;
    size_t n;
    sample run[2][MAX_WINDOWS];
    double keys[MAX_WINDOWS];                             /* growth only: keys at the end of a window */
} pairs[PAIRS] = {
    { .name = "mix", .title = "1 ask to 4 logins over 1,000,000 keys", .label = { "asks only", "1 ask to 4 logins" } },
    { .name = "growth", .title = "From 0 to 10,000,000 keys", .label = { "fixed table", "growing table" } },
    { .name = "idle-15000", .title = "64 busy connections beside 15,000 idle ones", .label = { "64 busy alone", "beside 15,000 idle" } },
};

static sample results[LOADS][PEERS][MAX_ROUNDS], stored[KEPT][STORES][MAX_ROUNDS];
static double start_ms[STARTS], compile_s[COMPILES], idle_bytes[MAX_ROUNDS], bytes_a_key = NAN, stripped_bytes = NAN;
static bool   start_done;

static struct { int rounds, seconds; const char *only, *peers, *out; } options = { .rounds = 9, .seconds = 1, .out = "bench/results" };
static char   tmp[] = "/tmp/keyauth-bench-XXXXXX", machine[400];
static char   disk[] = "bench/disk-XXXXXX", file_system[200];      /* here and not in /tmp, which may be in memory */
static int    steps_done, steps;

/* ---- small things ---- */

static pid_t children[MAX_CHILDREN];                      /* 0: a free place */
static volatile sig_atomic_t interrupted;

static void on_signal(int number) { interrupted = number; }

/* Text that lives until twenty-four more are made: enough for the arguments of one printf. */
static const char *text(const char *format, ...)
{
    static char ring[24][512];
    static unsigned at;
    char *out = ring[at++ % COUNT(ring)];
    va_list args;
    va_start(args, format);
    vsnprintf(out, sizeof ring[0], format, args);
    va_end(args);
    return out;
}

static void stop(pid_t pid);

static void clean_up(void)
{
    for (size_t i = 0; i < MAX_CHILDREN; i++) if (children[i]) stop(children[i]);
    if (strstr(tmp, "XXXXXX")) return;                    /* not made yet */
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", tmp, disk, (char *)NULL);
        _exit(127);
    }
    if (pid > 0) waitpid(pid, NULL, 0);
}

static _Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    clean_up();
    exit(1);
}

/* Called wherever the bench waits, so that Ctrl+C is heeded within a moment and by one way out. */
static void pause_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    nanosleep(&t, NULL);
    if (interrupted) die("interrupted");
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of those that are numbers; NAN if none is. */
static double median(const double *v, size_t n)
{
    static double sorted[MAX_WINDOWS];
    size_t k = 0;
    for (size_t i = 0; i < n; i++) if (!isnan(v[i])) sorted[k++] = v[i];
    if (k == 0) return NAN;
    qsort(sorted, k, sizeof *sorted, by_value);
    return (sorted[(k - 1) / 2] + sorted[k / 2]) / 2;
}

static double most(const double *v, size_t n)
{
    double m = NAN;
    for (size_t i = 0; i < n; i++) m = fmax(m, v[i]);     /* fmax prefers a number to NAN */
    return m;
}

static double figure(const sample *s, size_t n, int which)
{
    double v[MAX_WINDOWS];
    for (size_t i = 0; i < n; i++) v[i] = s[i].v[which];
    return median(v, n);
}

/* The median of the rounds' own ratios: what ran in one round ran at nearly the same speed of the machine. */
static double ratio(const sample *a, const sample *b, size_t n, int which)
{
    double v[MAX_WINDOWS];
    for (size_t i = 0; i < n; i++) v[i] = b[i].v[which] > 0 ? a[i].v[which] / b[i].v[which] : NAN;
    return median(v, n);
}

static double errors(const sample *s, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) if (!isnan(s[i].v[ERRORS])) sum += s[i].v[ERRORS];
    return sum;
}

/* 1234567 -> 1,234,567; a small number keeps the decimals that matter; NAN is a dash. */
static const char *number(double v)
{
    if (isnan(v)) return "–";
    if (v == 0) return "0";
    if (v < 10) return text("%.2f", v);
    if (v < 100) return text("%.1f", v);
    char digits[32], out[48], *o = out;
    int n = snprintf(digits, sizeof digits, "%.0f", v);
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) *o++ = ',';
        *o++ = digits[i];
    }
    *o = 0;
    return text("%s", out);
}

/* Is name in a list such as a,b,c? Every name is in a list that was not given. */
static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    if (!list) return true;
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == 0)) return true;
    return false;
}

/* The first line that a shell command prints. */
static const char *first_line(const char *command)
{
    char line[256] = "";
    FILE *f = popen(command, "r");
    if (f && !fgets(line, sizeof line, f)) line[0] = 0;
    if (f) pclose(f);
    line[strcspn(line, "\n")] = 0;
    for (char *p = line; *p; p++) if (strchr("<>&\"\\", *p)) *p = ' ';      /* it goes into SVG and JSON */
    return text("%s", line);
}

/* ---- processes ---- */

/* Start a program in a process group of its own. Its stdout comes to *out, or goes nowhere; it dies with us. */
static pid_t start(const char *const *args, int *out)
{
    int ends[2] = { -1, -1 };
    size_t place = 0;
    while (place < MAX_CHILDREN && children[place]) place++;
    if (place == MAX_CHILDREN || (out && pipe2(ends, O_CLOEXEC) != 0)) die("cannot start %s", args[0]);
    pid_t pid = fork();
    if (pid < 0) die("cannot start %s: %s", args[0], strerror(errno));
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out ? ends[1] : open("/dev/null", O_WRONLY | O_CLOEXEC), 1);
        execvp(args[0], (char *const *)(uintptr_t)args);
        _exit(127);
    }
    setpgid(pid, pid);                                    /* whichever of us comes first */
    children[place] = pid;
    if (out) {
        close(ends[1]);
        *out = ends[0];
    }
    return pid;
}

static bool ended(pid_t pid)
{
    siginfo_t info = { 0 };
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == pid;
}

/* End it and what it started. It is reaped last, so that its number can't have come to mean another's group. */
static void stop(pid_t pid)
{
    kill(pid, SIGTERM);
    for (double until = now_s() + 3; !ended(pid) && now_s() < until; ) nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (size_t i = 0; i < MAX_CHILDREN; i++) if (children[i] == pid) children[i] = 0;
}

/* Seconds of processor that the group has used: user and system, all threads, those that ended too. The clock of a
   process counts nanoseconds where /proc/PID/stat counts hundredths of a second. */
static double cpu_s(pid_t group)
{
    double sum = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *d; proc && (d = readdir(proc)) != NULL; ) {
        char line[512] = "", path[300], *p;               /* not text(): there may be many, and its callers hold some */
        long of;
        clockid_t clock;
        struct timespec t;
        if (!isdigit((unsigned char)d->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%s/stat", d->d_name);
        FILE *f = fopen(path, "r");
        if (!f) continue;
        if (fgets(line, sizeof line, f) && (p = strrchr(line, ')')) != NULL && sscanf(p, ") %*c %*d %ld", &of) == 1 && of == group &&
            clock_getcpuclockid((pid_t)atoi(d->d_name), &clock) == 0 && clock_gettime(clock, &t) == 0)
            sum += (double)t.tv_sec + (double)t.tv_nsec / 1e9;
        fclose(f);
    }
    if (proc) closedir(proc);
    return sum;
}

static double memory_bytes(pid_t pid)
{
    char line[256];
    long kb, sum = 0;
    FILE *f = fopen(text("/proc/%d/status", (int)pid), "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1 || sscanf(line, "VmSwap: %ld", &kb) == 1) sum += kb;
    if (f) fclose(f);
    return (double)sum * 1024;
}

static struct sockaddr_in address(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    inet_pton(AF_INET, IP, &a.sin_addr);
    return a;
}

static int free_port(void)
{
    struct sockaddr_in a = address(0);
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) != 0 || getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        die("no free port on " IP ": %s", strerror(errno));
    close(fd);
    return ntohs(a.sin_port);
}

static bool accepts(int port)
{
    struct sockaddr_in a = address(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return ok;
}

/* Started, and accepting. 0: it ended, or took ten seconds. */
static pid_t start_server(const char *const *args, int port)
{
    pid_t pid = start(args, NULL);
    for (double until = now_s() + 10; now_s() < until && !ended(pid); pause_ms(2)) if (accepts(port)) return pid;
    stop(pid);
    return 0;
}

/* ---- one run of wrk ---- */

static void nginx_conf(int port)
{
    FILE *f = fopen(text("%s/nginx.conf", tmp), "w");
    if (!f) die("cannot write into %s", tmp);
    fprintf(f, "daemon off;\nworker_processes 1;\npid nginx.pid;\nevents { worker_connections 4096; }\n"
        "http {\n  access_log off;\n  keepalive_requests 1000000000;\n  default_type text/plain;\n"
        "  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"
        "  server {\n    listen " IP ":%d backlog=4096;\n    location / { return 200 \"%s\"; }\n  }\n}\n", port,
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567");
    if (fclose(f) != 0) die("cannot write into %s", tmp);
}

static pid_t start_peer(const char *const *program, const struct load *l, int *port)
{
    const char *args[MAX_ARGS] = { 0 };
    size_t n = 0;
    *port = free_port();
    if (strcmp(*program, "nginx") == 0) nginx_conf(*port);
    for (const char *const *p = program; *p; p++) {
        if (strcmp(*p, "@close") == 0 && strcmp(l->shape, "close") != 0) continue;
        args[n++] = strcmp(*p, "@port") == 0 ? text("%d", *port) : strcmp(*p, "@bytes") == 0 ? l->bytes :
                    strcmp(*p, "@tmp") == 0 ? tmp : strcmp(*p, "@file") == 0 ? text("%s/keys", disk) : **p == '@' ? *p + 1 : *p;
    }
    return start_server(args, *port);
}

/* wrk of so many seconds against port; file and keys go to the script. The figures are in s, with the processor's time
   of server's group. Returns the requests that were answered; 0 if any failed. */
static double load(sample *s, pid_t server, int port, int connections, int seconds, const char *shape, const char *file, int keys)
{
    const char *args[MAX_ARGS] = { "wrk", "-t1", text("-c%d", connections), text("-d%ds", seconds), "--timeout", "8s", "-s",
        "bench/load.lua", text("http://" IP ":%d/", port), "--", shape, file, text("%d", keys) };
    char said[8192] = "";
    size_t n = 0;
    bool filled = false;
    int out;
    for (int i = 0; i < FIGURES; i++) s->v[i] = NAN;
    double before = cpu_s(server);
    pid_t pid = start(args, &out);
    for (ssize_t got; n < sizeof said - 1 && (got = read(out, said + n, sizeof said - 1 - n)) != 0; ) {
        if (interrupted) die("interrupted");
        if (got <= 0) continue;
        said[n += (size_t)got] = 0;
        if (strncmp(said, "FILLED\n", 7) != 0 && strstr(said, "\nFILLED\n") == NULL) continue;
        if (!filled) kill(pid, SIGINT);                   /* else wrk sleeps for the rest of its seconds */
        filled = true;
    }
    close(out);
    double cpu = cpu_s(server) - before, requests, took;
    stop(pid);
    char *line = strstr(said, "RESULT ");
    if (!line || sscanf(line, "RESULT %lf %lf %lf %lf %lf %lf", &requests, &took, &s->v[ERRORS], &s->v[P50], &s->v[P99], &s->v[P999]) != 6) {
        s->v[ERRORS] = 1;
        return 0;
    }
    if (requests == 0 && s->v[ERRORS] == 0) s->v[ERRORS] = 1;       /* nothing came back at all */
    /* wrk adds latencies for the requests that it believes a slow answer kept it from sending, and takes the interval of
       single requests for that of a whole write: of pipelined requests its percentiles are no figures. */
    if (strcmp(shape, "ask16") == 0) s->v[P50] = s->v[P99] = s->v[P999] = NAN;
    s->v[RATE] = requests / took;
    s->v[CPU] = requests > 0 ? cpu * 1e6 / requests : NAN;
    return s->v[ERRORS] > 0 ? 0 : requests;
}

static void step(const char *scenario, const char *turn, const char *who, const sample *s)
{
    fprintf(stderr, "[%3d of %d] %-16s %-12s %-18s ", ++steps_done, steps, scenario, turn, who);
    if (!s) return;
    fprintf(stderr, "%9s requests/s  %6s us CPU  p50 %s  p99 %s  p99.9 %s us%s\n", number(s->v[RATE]), number(s->v[CPU]), number(s->v[P50]),
        number(s->v[P99]), number(s->v[P999]), s->v[ERRORS] > 0 ? text("  FAILED: %.0f errors", s->v[ERRORS]) : "");
}

/* ---- the scenarios that all peers run ---- */

static void run_peer(const struct load *l, size_t peer, int round)
{
    sample *s = &results[l - loads][peer][round], warm;
    int port, connections = l->connections;
    /* libmicrohttpd 0.9.75 takes 128 events at a time and waits for more as long as it gets 128, before it handles any: it
       hangs when a multiple of 128 connections is all there is. One more connection wakes it. */
    if (peer == MICROHTTPD && connections % 128 == 0) connections++;
    pid_t pid = start_peer(peers[peer].args, l, &port);
    if (!pid) {
        fprintf(stderr, "bench: %s does not start: it is left out from here on\n", peers[peer].name);
        peers[peer].present = false;
        return;
    }
    load(&warm, pid, port, connections, 1, l->shape, "", 0);
    load(s, pid, port, connections, options.seconds, l->shape, "", 0);
    stop(pid);
    step(l->name, text("round %d/%d", round + 1, options.rounds), peers[peer].name, s);
}

/* Each round starts at another peer. The floor and keyauth stay neighbours, since theirs is the ratio that counts to a
   percent, and take turns at being the first. */
static void run_load(const struct load *l)
{
    for (int round = 0; round < options.rounds; round++)
        for (int i = 0; i < PEERS - 1; i++) {
            size_t peer = (size_t)((round + i) % (PEERS - 1)) + 1, first = round % 2 ? KEYAUTH : FLOOR;
            if (peer == KEYAUTH && peers[first].present) run_peer(l, first, round);
            if (peer == KEYAUTH) peer = KEYAUTH + FLOOR - first;
            if (peers[peer].present) run_peer(l, peer, round);
        }
}

/* ---- the scenarios of the journal ---- */

static void run_shell(const char *command)
{
    if (system(command) != 0) die("failed: %s", command);
}

static void make_disk(void)
{
    struct statfs at;
    if (!mkdtemp(disk) || statfs(disk, &at) != 0) die("cannot make a folder in bench: %s", strerror(errno));
    if (at.f_type == TMPFS_MAGIC || at.f_type == RAMFS_MAGIC) die("this folder is in memory: the journal's scenarios need one that is on a disk");
    snprintf(file_system, sizeof file_system, "%s", first_line(text("findmnt -rno FSTYPE,SOURCE -T %s | sed 's/ / on /'", disk)));
}

/* Remove what the last one left, and have the disk done with it, so that nobody waits for another's bytes. */
static void clear_disk(void)
{
    run_shell(text("rm -rf %s/keys*", disk));
    int fd = open(disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) != 0) die("cannot sync %s: %s", disk, strerror(errno));
    close(fd);
}

static double own_cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run_disk(sample *s)
{
    static double took_us[MAX_SYNCS];
    static const char key[SYNC_BYTES];
    size_t n = 0;
    int fd = open(text("%s/keys", disk), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    double begin = now_s(), cpu = own_cpu_s(), at = begin, last = begin;
    for (; at < begin + options.seconds && n < MAX_SYNCS && !interrupted; last = at) {
        if (write(fd, key, sizeof key) != (ssize_t)sizeof key || fdatasync(fd) != 0) die("cannot write into %s: %s", disk, strerror(errno));
        at = now_s();
        took_us[n++] = (at - last) * 1e6;
    }
    close(fd);
    if (interrupted) die("interrupted");
    s->v[RATE] = (double)n / (at - begin);
    s->v[CPU] = (own_cpu_s() - cpu) * 1e6 / (double)n;
    qsort(took_us, n, sizeof *took_us, by_value);
    s->v[P50] = took_us[n / 2];
    s->v[P99] = took_us[n * 99 / 100];
    s->v[P999] = took_us[n * 999 / 1000];
    s->v[ERRORS] = 0;
}

/* Not warmed: the asks of a warming that were still to be synced at its end would be charged to what is measured. */
static void run_store(size_t l, size_t store, int round)
{
    sample *s = &stored[l][store][round];
    int port;
    clear_disk();
    if (store == DISK) run_disk(s);
    else {
        pid_t pid = start_peer(stores[store].args, &kept_loads[l], &port);
        if (!pid) die("%s does not start", stores[store].args[0]);
        load(s, pid, port, kept_loads[l].connections, options.seconds, kept_loads[l].shape, "", 0);
        stop(pid);
    }
    step(kept_loads[l].name, text("round %d/%d", round + 1, options.rounds), stores[store].name, s);
}

static void run_kept(size_t l)
{
    for (int round = 0; round < options.rounds; round++)
        for (int i = 0; i < STORES; i++) {
            size_t store = (size_t)((round + i) % STORES);
            if (stores[store].present) run_store(l, store, round);
        }
}

/* ---- the scenarios of keyauth alone ---- */

static pid_t start_keyauth(int *port, int max_keys, int ttl_s)
{
    *port = free_port();
    pid_t pid = start_server((const char *const[]){ "./server", "--port", text("%d", *port), "--max-keys", text("%d", max_keys),
        "--ttl", text("%d", ttl_s), NULL }, *port);
    if (!pid) die("./server does not start");
    return pid;
}

static void run_mix(void)
{
    static const char *const shapes[2] = { "ask-table", "mix" };
    const char *file = text("%s/keys", tmp);
    char keys[64];
    sample s;
    int port;
    pid_t pid = start_keyauth(&port, 50000000, 0);
    snprintf(keys, sizeof keys, "%s", file);
    fputs("bench: mix: asking for 1,000,000 keys\n", stderr);
    if (load(&s, pid, port, 64, 600, "fill", keys, MIX_KEYS) == 0) die("mix: could not ask for the keys");
    int turns = options.rounds * MIX_TURNS;
    for (int round = 0; round < turns; round++)
        for (int k = 0; k < 2; k++) {
            int which = (round + k) % 2;
            sample *to = &pairs[MIX].run[which][round];
            load(to, pid, port, 64, options.seconds, shapes[which], keys, 0);
            step("mix", text("turn %d/%d", round + 1, turns), pairs[MIX].label[which], to);
        }
    pairs[MIX].n = (size_t)turns;
    stop(pid);
}

/* Both servers live side by side and take turns. The fixed one forgets a key after two windows of time, so that while it
   is asked, the keys of its last window expire as fast as new ones come. The last stretch is counted to the key and not
   measured, since a window can't be stopped at a number. */
static void run_growth(void)
{
    int port[2];
    double keys = 0, got = 0, empty;
    sample s;
    pid_t fixed = start_keyauth(&port[0], GROWTH_MOST, 2 * options.seconds), growing = start_keyauth(&port[1], GROWTH_MOST, 0);
    empty = memory_bytes(growing);
    fputs("bench: growth: 5 seconds for the fixed table\n", stderr);
    load(&s, fixed, port[0], 64, 5, "ask", "", 0);
    for (size_t n = 0; n < MAX_WINDOWS && keys + 2 * got < GROWTH_MOST; pairs[GROWTH].n = ++n) {
        sample *to = &pairs[GROWTH].run[1][n];
        got = load(to, growing, port[1], 64, options.seconds, "ask", "", 0);
        if (got == 0) die("growth: the server failed at %s keys", number(keys));
        pairs[GROWTH].keys[n] = keys += got;
        load(&pairs[GROWTH].run[0][n], fixed, port[0], 64, options.seconds, "ask", "", 0);
        for (int k = 1; k >= 0; k--) {
            step("growth", text("%.2f M keys", keys / 1e6), pairs[GROWTH].label[k], &pairs[GROWTH].run[k][n]);
            steps_done--;                                 /* how many windows it takes depends on the machine */
        }
    }
    if (keys < GROWTH_KEYS && load(&s, growing, port[1], 64, 600, "fill", "/dev/null", (int)(GROWTH_KEYS - keys)) == 0) die("growth: the server failed");
    keys = fmax(keys, GROWTH_KEYS);
    bytes_a_key = (memory_bytes(growing) - empty) / keys;
    step("growth", text("%.2f M keys", keys / 1e6), "memory", NULL);
    fprintf(stderr, "%s bytes a key\n", number(bytes_a_key));
    stop(growing);
    stop(fixed);
}

/* Send all of a request and read an answer that has come whole when it ends with `last`. */
static void exchange(int fd, const char *request, char *answer, size_t cap, size_t body_bytes)
{
    size_t n = 0;
    char *body;
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) < 0) die("idle: cannot send: %s", strerror(errno));
    do {
        ssize_t got = recv(fd, answer + n, cap - 1 - n, 0);
        if (interrupted) die("interrupted");
        if (got <= 0) die("idle: no answer: %s", got == 0 ? "closed" : strerror(errno));
        answer[n += (size_t)got] = 0;
    } while (!(body = strstr(answer, "\r\n\r\n")) || strlen(body + 4) < body_bytes);
    if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0) die("idle: not the answer that was wanted: %.40s", answer);
    memmove(answer, body + 4, strlen(body + 4) + 1);
}

/* So many connections, 5000 from each source address. Each has sent a request and read its answer: the first asks for
   a key, and all others log in with that one, so that what the server keeps for them is the connection and no key. */
static void open_idle(int port, int *fds)
{
    char answer[2048], key[128] = "", request[512];
    struct sockaddr_in to = address(port);
    for (int i = 0; i < IDLE; i++) {
        struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7F000101u + (unsigned)i / 5000) };
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fds[i] < 0 || setsockopt(fds[i], IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){ 1 }, sizeof(int)) != 0 ||
            bind(fds[i], (struct sockaddr *)&from, sizeof from) != 0 || connect(fds[i], (struct sockaddr *)&to, sizeof to) != 0)
            die("idle: connection %d: %s (15,000 need ulimit -Hn 16000 or more)", i + 1, strerror(errno));
        snprintf(request, sizeof request, "POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s%s", i ? 94 : 12,
                 i ? "login=" : "ask_key=idle", key);
        exchange(fds[i], request, answer, sizeof answer, i ? 4 : 88);
        if (i == 0) snprintf(key, sizeof key, "%.88s", answer);
    }
}

static int close_idle(const int *fds)
{
    int closed = 0;
    for (int i = 0; i < IDLE; i++) {
        struct pollfd p = { .fd = fds[i], .events = POLLIN };
        if (poll(&p, 1, 0) != 0) closed++;                /* nothing was asked: what is there to read is its end */
        close(fds[i]);
    }
    return closed;
}

/* Both turns open the idle connections, since the work of that alone may change the machine's speed; one closes
   them before it measures, and the other afterwards. */
static void run_idle_once(int round, int which)
{
    static int fds[IDLE];
    sample *to = &pairs[IDLE_MANY].run[which][round], warm;
    int port, closed = 0;
    pid_t pid = start_keyauth(&port, 50000000, 0);
    load(&warm, pid, port, 64, 1, "ask", "", 0);          /* so that its buffers have been touched before memory is read */
    double before = memory_bytes(pid);
    open_idle(port, fds);
    if (which == 1) idle_bytes[round] = (memory_bytes(pid) - before) / IDLE;
    else closed = close_idle(fds);
    load(&warm, pid, port, 64, 1, "ask", "", 0);
    load(to, pid, port, 64, options.seconds, "ask", "", 0);
    if (which == 1) closed = close_idle(fds);
    to->v[ERRORS] += closed;
    stop(pid);
    step("idle-15000", text("round %d/%d", round + 1, options.rounds), pairs[IDLE_MANY].label[which], to);
}

static void run_idle(void)
{
    for (int round = 0; round < options.rounds; round++)
        for (int k = 0; k < 2; k++) run_idle_once(round, (round + k) % 2);
    pairs[IDLE_MANY].n = (size_t)options.rounds;
}

/* From before fork to the whole line in the pipe. */
static double time_start(void)
{
    char line[256] = "";
    size_t n = 0;
    int out;
    double begin = now_s(), took;
    pid_t pid = start((const char *const[]){ "./server", "--port", "0", NULL }, &out);
    while (n < sizeof line - 1 && !strchr(line, '\n')) {
        ssize_t got = read(out, line + n, sizeof line - 1 - n);
        if (interrupted) die("interrupted");
        if (got == 0) die("./server does not start");
        if (got > 0) line[n += (size_t)got] = 0;
    }
    took = now_s() - begin;
    close(out);
    stop(pid);
    if (strncmp(line, "listening on ", 13) != 0) die("./server said %s", line);
    return took * 1e3;
}

static void run_start(void)
{
    struct stat st;
    const char *cc = getenv("CC") ? getenv("CC") : "cc";
    for (int i = 0; i < STARTS; i++) start_ms[i] = time_start();
    run_shell(text("strip -s -o %s/stripped server", tmp));
    if (stat(text("%s/stripped", tmp), &st) == 0) stripped_bytes = (double)st.st_size;
    run_shell(text("printf '#define KEYAUTH_IMPLEMENTATION\\n#include \"keyauth.h\"\\n' > %s/one.c", tmp));
    for (int i = 0; i < COMPILES; i++) {
        double begin = now_s();
        run_shell(text("%s -std=c11 -O2 -I. -c -o %s/one.o %s/one.c", cc, tmp, tmp));
        compile_s[i] = now_s() - begin;
    }
    start_done = true;
    step("start", "", "keyauth", NULL);
    fprintf(stderr, "%s ms to listening, worst %s; %s bytes stripped; %s s to compile\n", number(median(start_ms, STARTS)),
        number(most(start_ms, STARTS)), number(stripped_bytes), number(median(compile_s, COMPILES)));
}

/* ---- the marks ---- */

static struct { const char *scenario, *what, *unit; char sign; double target, measured; const char *note; } marks[32];
static size_t mark_count;

/* sign: '<' at most, '>' at least, '=' only shown */
static void mark(const char *scenario, const char *what, char sign, double target, double measured, const char *unit, const char *note)
{
    if (mark_count == COUNT(marks)) die("too many marks");
    marks[mark_count].scenario = scenario;
    marks[mark_count].what = strdup(what);
    marks[mark_count].unit = unit;
    marks[mark_count].sign = sign;
    marks[mark_count].target = target;
    marks[mark_count].measured = measured;
    marks[mark_count++].note = strdup(note);
}

static const char *verdict(size_t i)
{
    if (marks[i].sign == '=') return "shown";
    if (isnan(marks[i].measured)) return "not measured";
    return (marks[i].sign == '<' ? marks[i].measured <= marks[i].target : marks[i].measured >= marks[i].target) ? "met" : "missed";
}

static bool failed(size_t l, size_t peer) { return errors(results[l][peer], (size_t)options.rounds) > 0; }

/* keyauth's figure over another's. NAN, so not measured, if either had an error. */
static double over(size_t l, size_t peer, int which)
{
    if (failed(l, KEYAUTH) || failed(l, peer)) return NAN;
    return ratio(results[l][KEYAUTH], results[l][peer], (size_t)options.rounds, which);
}

static void judge_cpu(size_t l)
{
    for (size_t p = NGINX; p < PEERS; p++)
        if (peers[p].present) mark(loads[l].name, text("CPU a request, over %s's", peers[p].name), '<', 1, over(l, p, CPU), "", "");
}

static void judge_loads(void)
{
    static const struct { size_t load; double rate, cpu; } kept[] = { { KEEPALIVE_64, 0.97, 1.12 }, { KEEPALIVE_512, 0.97, 1.10 } };
    if (listed(options.only, loads[KEEPALIVE_1].name))
        mark(loads[KEEPALIVE_1].name, "p50, over the floor's", '<', 1.15, over(KEEPALIVE_1, FLOOR, P50), "", "");
    for (size_t i = 0; i < COUNT(kept); i++) {
        const char *name = loads[kept[i].load].name;
        if (!listed(options.only, name)) continue;
        mark(name, "requests/s, over the floor's", '>', kept[i].rate, over(kept[i].load, FLOOR, RATE), "", "");
        mark(name, "CPU a request, over the floor's", '<', kept[i].cpu, over(kept[i].load, FLOOR, CPU), "", "");
        judge_cpu(kept[i].load);
    }
    if (listed(options.only, loads[PIPELINED].name)) {
        mark(loads[PIPELINED].name, "requests/s, over nginx's", '>', 7, over(PIPELINED, NGINX, RATE), "", "");
        mark(loads[PIPELINED].name, "requests/s, over node's", '>', 25, over(PIPELINED, NODE, RATE), "", "");
        mark(loads[PIPELINED].name, "requests/s", '=', 1200000, figure(results[PIPELINED][KEYAUTH], (size_t)options.rounds, RATE), "",
             "where nginx does 170,000");
    }
    if (listed(options.only, loads[PER_REQUEST].name))
        mark(loads[PER_REQUEST].name, "requests/s, over nginx's", '>', 1, over(PER_REQUEST, NGINX, RATE), "", "");
}

static double pair_ratio(size_t p, int which)
{
    size_t n = pairs[p].n;
    return errors(pairs[p].run[0], n) + errors(pairs[p].run[1], n) > 0 ? NAN : ratio(pairs[p].run[1], pairs[p].run[0], n, which);
}

static void judge_pairs(void)
{
    static double p999[MAX_WINDOWS];
    size_t n = pairs[GROWTH].n;
    for (size_t i = 0; i < n; i++) p999[i] = pairs[GROWTH].run[1][i].v[P999];
    double fixed = errors(pairs[GROWTH].run[0], n) > 0 ? NAN : figure(pairs[GROWTH].run[0], n, P999);
    if (pairs[MIX].done) mark("mix", "requests/s, over asking only", '>', 0.97, pair_ratio(MIX, RATE), "", "");
    if (pairs[GROWTH].done) {
        mark("growth", "memory a key, all in", '<', 170, bytes_a_key, "bytes", "");
        mark("growth", "p99.9, over a fixed table's", '<', 3, median(p999, n) / fixed, "",
             text("the worst window: %s x", number(most(p999, n) / fixed)));
    }
    if (pairs[IDLE_MANY].done) {
        mark("idle-15000", "memory an idle connection", '<', 200, median(idle_bytes, (size_t)options.rounds), "bytes", "");
        mark("idle-15000", "requests/s, over those without", '>', 0.97, pair_ratio(IDLE_MANY, RATE), "",
             text("CPU a request: %s x", number(pair_ratio(IDLE_MANY, CPU))));
    }
    if (start_done) {
        mark("start", "exec to listening", '<', 3, median(start_ms, STARTS), "ms", text("the worst of %d: %s ms", STARTS, number(most(start_ms, STARTS))));
        mark("start", "stripped server", '<', 102400, stripped_bytes, "bytes", "");
        mark("start", "keyauth.h compiles", '<', 1.5, median(compile_s, COMPILES), "s", "");
    }
}

/* ---- results: JSON ---- */

static FILE *create(const char *name)
{
    FILE *f = fopen(text("%s/%s", options.out, name), "w");
    if (!f) die("cannot write %s/%s: %s", options.out, name, strerror(errno));
    return f;
}

static void finish(FILE *f, const char *name)
{
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) die("cannot write %s/%s", options.out, name);
}

static const char *json(double v) { return isnan(v) ? "null" : text("%.6g", v); }

static void json_list(FILE *f, const char *name, const double *v, size_t n)
{
    fprintf(f, "\"%s\": [", name);
    for (size_t i = 0; i < n; i++) fprintf(f, "%s%s", i ? ", " : "", json(v[i]));
    fputs("]", f);
}

/* The medians, then every round: a list for each figure. */
static void json_samples(FILE *f, const sample *s, size_t n)
{
    for (int k = 0; k < FIGURES; k++) fprintf(f, "\"%s\": %s, ", figure_names[k], json(k == ERRORS ? errors(s, n) : figure(s, n, k)));
    fputs("\"rounds\": {", f);
    for (int k = 0; k < FIGURES; k++) {
        double v[MAX_WINDOWS];
        for (size_t i = 0; i < n; i++) v[i] = s[i].v[k];
        if (k) fputs(", ", f);
        json_list(f, figure_names[k], v, n);
    }
    fputs("}", f);
}

static void json_loads(FILE *f)
{
    const char *comma = "";
    fputs("  \"loads\": {", f);
    for (size_t l = 0; l < LOADS; l++) {
        if (!listed(options.only, loads[l].name)) continue;
        fprintf(f, "%s\n    \"%s\": {", comma, loads[l].name);
        comma = "";
        for (size_t p = 0; p < PEERS; p++) {
            if (!peers[p].present) continue;
            fprintf(f, "%s\n      \"%s\": {", comma, peers[p].name);
            for (int k = 0; k < ERRORS; k++)
                fprintf(f, "\"%s_over_floor\": %s, ", figure_names[k], json(ratio(results[l][p], results[l][FLOOR], (size_t)options.rounds, k)));
            json_samples(f, results[l][p], (size_t)options.rounds);
            fputs("}", f);
            comma = ",";
        }
        fputs("\n    }", f);
        comma = ",";
    }
    fputs("\n  },\n", f);
}

static void json_pairs(FILE *f)
{
    const char *comma = "";
    fputs("  \"pairs\": {", f);
    for (size_t p = 0; p < PAIRS; p++) {
        if (!pairs[p].done) continue;
        fprintf(f, "%s\n    \"%s\": {", comma, pairs[p].name);
        for (int k = 0; k < 2; k++) {
            fprintf(f, "\n      \"%s\": {", pairs[p].label[k]);
            json_samples(f, pairs[p].run[k], pairs[p].n);
            fputs(k ? "}" : "},", f);
        }
        if (p == GROWTH) {
            fputs(",\n      ", f);
            json_list(f, "keys", pairs[p].keys, pairs[p].n);
            fprintf(f, ",\n      \"bytes_a_key\": %s", json(bytes_a_key));
        } else if (p == IDLE_MANY) {
            fputs(",\n      ", f);
            json_list(f, "bytes_an_idle_connection", idle_bytes, (size_t)options.rounds);
        }
        fputs("\n    }", f);
        comma = ",";
    }
    fputs("\n  },\n", f);
}

static void json_head(FILE *f, const char *date)
{
    fprintf(f, "{\n  \"machine\": \"%s\",\n  \"date\": \"%s\",\n  \"options\": {\"rounds\": %d, \"seconds\": %d},\n", machine, date,
            options.rounds, options.seconds);
}

static void write_kept_json(const char *date)
{
    FILE *f = create("journal.json");
    json_head(f, date);
    fprintf(f, "  \"versions\": {\"keyauth\": \"%s\"", first_line("./server --version"));
    if (stores[BATCHED].present) fprintf(f, ", \"sqlite\": \"%s\"", first_line("bench/sqlite --version"));
    fprintf(f, "},\n  \"file_system\": \"%s\",\n  \"loads\": {", file_system);
    const char *comma = "";
    for (size_t l = 0; l < KEPT; l++) {
        if (!listed(options.only, kept_loads[l].name)) continue;
        fprintf(f, "%s\n    \"%s\": {", comma, kept_loads[l].name);
        comma = "";
        for (size_t k = 0; k < STORES; k++) {
            if (!stores[k].present) continue;
            fprintf(f, "%s\n      \"%s\": {\"requests_per_s_over_journal\": %s, ", comma, stores[k].name,
                    json(ratio(stored[l][k], stored[l][JOURNAL], (size_t)options.rounds, RATE)));
            json_samples(f, stored[l][k], (size_t)options.rounds);
            fputs("}", f);
            comma = ",";
        }
        fputs("\n    }", f);
    }
    fputs("\n  }\n}\n", f);
    finish(f, "journal.json");
}

static void write_json(const char *date)
{
    FILE *f = create("results.json");
    json_head(f, date);
    fputs("  \"versions\": {", f);
    const char *comma = "";
    for (size_t p = 0; p < PEERS; p++)
        if (peers[p].present && peers[p].version) {
            fprintf(f, "%s\"%s\": \"%s\"", comma, peers[p].name, first_line(peers[p].version));
            comma = ", ";
        }
    fputs("},\n", f);
    json_loads(f);
    json_pairs(f);
    if (start_done) {
        fputs("  \"start\": {", f);
        json_list(f, "ms", start_ms, STARTS);
        fprintf(f, ", \"stripped_bytes\": %s, ", json(stripped_bytes));
        json_list(f, "compile_s", compile_s, COMPILES);
        fputs("},\n", f);
    }
    fputs("  \"marks\": [", f);
    for (size_t i = 0; i < mark_count; i++)
        fprintf(f, "%s\n    {\"scenario\": \"%s\", \"mark\": \"%s\", \"sign\": \"%c\", \"target\": %.10g, \"measured\": %s, \"unit\": \"%s\", \"note\": \"%s\", \"result\": \"%s\"}",
                i ? "," : "", marks[i].scenario, marks[i].what, marks[i].sign, marks[i].target, json(marks[i].measured), marks[i].unit, marks[i].note, verdict(i));
    fputs("\n  ]\n}\n", f);
    finish(f, "results.json");
}

/* ---- results: tables ---- */

static void table_cell(FILE *f, size_t l, size_t p, int which)
{
    const sample *s = results[l][p];
    size_t n = (size_t)options.rounds;
    if (failed(l, p)) fprintf(f, " failed: %.0f errors |", errors(s, n));
    else if (which == P50) fprintf(f, " %s / %s / %s |", number(figure(s, n, P50)), number(figure(s, n, P99)), number(figure(s, n, P999)));
    else if (p == FLOOR) fprintf(f, " %s |", number(figure(s, n, which)));
    else fprintf(f, " %s (%s) |", number(figure(s, n, which)), number(ratio(s, results[l][FLOOR], n, which)));
}

/* A row a scenario, a column a peer. */
static void table_loads(FILE *f, const char *title, int which)
{
    fprintf(f, "| %s |", title);
    for (size_t p = 0; p < PEERS; p++) if (peers[p].present) fprintf(f, p == KEYAUTH ? " **%s** |" : " %s |", peers[p].name);
    fputs("\n|---|", f);
    for (size_t p = 0; p < PEERS; p++) if (peers[p].present) fputs("---:|", f);
    fputs("\n", f);
    for (size_t l = 0; l < LOADS; l++) {
        if (!listed(options.only, loads[l].name)) continue;
        fprintf(f, "| %s |", loads[l].title);
        for (size_t p = 0; p < PEERS; p++) if (peers[p].present) table_cell(f, l, p, which);
        fputs("\n", f);
    }
    fputs("\n", f);
}

static void table_pairs(FILE *f)
{
    fputs("| keyauth alone | | requests/s | CPU µs a request | p50 / p99 / p99.9 µs |\n|---|---|---:|---:|---:|\n", f);
    for (size_t p = 0; p < PAIRS; p++)
        for (int k = 0; k < 2 && pairs[p].done; k++) {
            const sample *s = pairs[p].run[k];
            size_t n = pairs[p].n;
            fprintf(f, "| %s | %s | %s | %s | %s / %s / %s%s |\n", k ? "" : pairs[p].title, pairs[p].label[k], number(figure(s, n, RATE)),
                    number(figure(s, n, CPU)), number(figure(s, n, P50)), number(figure(s, n, P99)), number(figure(s, n, P999)),
                    errors(s, n) > 0 ? text(" failed: %.0f errors", errors(s, n)) : "");
        }
    fputs("\n", f);
}

static void write_tables(FILE *f, const char *date)
{
    bool any_load = false, any_pair = false;
    for (size_t l = 0; l < LOADS; l++) any_load |= listed(options.only, loads[l].name);
    for (size_t p = 0; p < PAIRS; p++) any_pair |= pairs[p].done;
    fprintf(f, "%s. %s. Medians of %d rounds of %d s; in brackets the ratio to the floor, the median of the rounds' own ratios.\n\n", machine, date,
            options.rounds, options.seconds);
    if (any_load) {
        table_loads(f, "requests/s", RATE);
        table_loads(f, "CPU µs a request", CPU);
        table_loads(f, "p50 / p99 / p99.9 µs", P50);
    }
    if (any_pair) table_pairs(f);
    fputs("| mark | | target | measured | |\n|---|---|---:|---:|---|\n", f);
    for (size_t i = 0; i < mark_count; i++) {
        bool ratio_of = !*marks[i].unit && marks[i].sign != '=';
        fprintf(f, "| %s | %s | %s%s%s %s | %s%s %s | %s%s%s |\n", marks[i].scenario, marks[i].what,
                marks[i].sign == '<' ? "≤ " : marks[i].sign == '>' ? "≥ " : "", number(marks[i].target), ratio_of ? " x" : "", marks[i].unit,
                ratio_of && !isnan(marks[i].measured) ? text("%.3f", marks[i].measured) : number(marks[i].measured), ratio_of ? " x" : "",
                marks[i].unit, strcmp(verdict(i), "missed") == 0 ? "**missed**" : verdict(i), *marks[i].note ? "; " : "", marks[i].note);
    }
}

static void kept_cell(FILE *f, size_t l, size_t k, int which)
{
    const sample *s = stored[l][k];
    size_t n = (size_t)options.rounds;
    if (errors(s, n) > 0) fprintf(f, " failed: %.0f errors |", errors(s, n));
    else if (which == P50) fprintf(f, " %s / %s / %s |", number(figure(s, n, P50)), number(figure(s, n, P99)), number(figure(s, n, P999)));
    else if (which == CPU || k == JOURNAL) fprintf(f, " %s |", number(figure(s, n, which)));
    else fprintf(f, " %s (%s) |", number(figure(s, n, which)), number(ratio(s, stored[l][JOURNAL], n, which)));
}

static void table_kept(FILE *f, const char *title, int which)
{
    fprintf(f, "\n| %s |", title);
    for (size_t k = 0; k < STORES; k++) if (stores[k].present) fprintf(f, k == JOURNAL ? " **%s** |" : " %s |", stores[k].name);
    fputs("\n|---|", f);
    for (size_t k = 0; k < STORES; k++) if (stores[k].present) fputs("---:|", f);
    fputs("\n", f);
    for (size_t l = 0; l < KEPT; l++) {
        if (!listed(options.only, kept_loads[l].name)) continue;
        fprintf(f, "| %s |", kept_loads[l].title);
        for (size_t k = 0; k < STORES; k++) if (stores[k].present) kept_cell(f, l, k, which);
        fputs("\n", f);
    }
}

static void write_kept_tables(FILE *f, const char *date)
{
    fprintf(f, "%s. %s. %s. Medians of %d rounds of %d s; in brackets the ratio to keyauth's journal, the median of the rounds' own ratios.\n",
            machine, file_system, date, options.rounds, options.seconds);
    table_kept(f, "asks/s", RATE);
    table_kept(f, "CPU µs an ask", CPU);
    table_kept(f, "p50 / p99 / p99.9 µs", P50);
}

/* ---- results: charts ---- */

static const char ink[] = "#1f2328", faint[] = "#59636e", ours[] = "#0969da", others[] = "#b6bec7";
enum { WIDTH = 820, LEFT = 170, BAR = 290, ROW = 30, TOP = 92 };
static const double columns[3] = { 560, 680, 796 };

typedef struct { const char *label, *column[3]; double value; bool ours; } bar;

static void svg_text(FILE *f, double x, double y, int size, const char *colour, const char *anchor, const char *words)
{
    fprintf(f, "<text x=\"%.0f\" y=\"%.0f\" font-size=\"%d\" fill=\"%s\" text-anchor=\"%s\"%s>%s</text>\n", x, y, size, colour, anchor,
            size > 15 ? " font-weight=\"600\"" : "", words);
}

/* The background is drawn, so that the chart reads alike on a light page and on a dark one. */
static FILE *svg_begin(const char *name, const char *title, const char *under, int height)
{
    FILE *f = create(text("%s.svg", name));
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" "
            "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\">\n<title>%s</title>\n"
            "<rect x=\"0.5\" y=\"0.5\" width=\"%d\" height=\"%d\" rx=\"6\" fill=\"#ffffff\" stroke=\"#d1d9e0\"/>\n",
            WIDTH, height, WIDTH, height, title, WIDTH - 1, height - 1);
    svg_text(f, 24, 34, 18, ink, "start", title);
    svg_text(f, 24, 54, 12, faint, "start", under);
    svg_text(f, 24, height - 14, 11, faint, "start", machine);
    return f;
}

static void svg_end(FILE *f, const char *name)
{
    fputs("</svg>\n", f);
    finish(f, text("%s.svg", name));
}

/* Bars from the left; most is the value of a full one, or 0 for the largest. The bar's length is the first column. */
static void chart_bars(const char *name, const char *title, const char *under, const char *const *heads, const bar *bars, size_t n, double full)
{
    FILE *f = svg_begin(name, title, under, TOP + (int)n * ROW + 38);
    for (size_t i = 0; i < n; i++) if (bars[i].value > full) full = bars[i].value;
    for (size_t k = 0; k < 3; k++) svg_text(f, columns[k], TOP - 8, 12, faint, "end", heads[k]);
    for (size_t i = 0; i < n; i++) {
        double y = TOP + (double)i * ROW, w = bars[i].value > 0 ? bars[i].value / full * BAR : 0;
        const char *colour = bars[i].ours ? ours : ink;
        svg_text(f, LEFT - 10, y + 18, 13, colour, "end", bars[i].label);
        fprintf(f, "<rect x=\"%d\" y=\"%.0f\" width=\"%.1f\" height=\"%d\" rx=\"2\" fill=\"%s\"/>\n", LEFT, y + 3, fmax(w, 1), ROW - 9,
                bars[i].ours ? ours : others);
        for (size_t k = 0; k < 3; k++) svg_text(f, columns[k], y + 18, 13, colour, "end", bars[i].column[k]);
    }
    svg_end(f, name);
}

static bar bar_of(const char *label, const sample *s, size_t n, bool is_ours)
{
    bar b = { .label = label, .value = figure(s, n, RATE), .ours = is_ours,
              .column = { number(figure(s, n, RATE)), number(figure(s, n, CPU)), number(figure(s, n, P99)) } };
    if (errors(s, n) > 0) b.column[0] = "failed", b.value = 0;
    return b;
}

static const char *const load_heads[3] = { "requests/s", "CPU µs/request", "p99 µs" };

static void chart_load(size_t l)
{
    bar bars[PEERS];
    size_t n = 0;
    for (size_t p = 0; p < PEERS; p++)
        if (peers[p].present) bars[n++] = bar_of(peers[p].name, results[l][p], (size_t)options.rounds, p == KEYAUTH);
    chart_bars(loads[l].name, loads[l].title, text("requests/s (longer is better); medians of %d rounds of %d s", options.rounds, options.seconds),
               load_heads, bars, n, 0);
}

static void chart_kept(size_t l)
{
    bar bars[STORES];
    size_t n = 0;
    for (size_t k = 0; k < STORES; k++)
        if (stores[k].present) bars[n++] = bar_of(stores[k].name, stored[l][k], (size_t)options.rounds, k == JOURNAL);
    chart_bars(kept_loads[l].name, text("Keys on disk: %s", kept_loads[l].title),
               text("asks/s (longer is better); %s; medians of %d rounds of %d s", file_system, options.rounds, options.seconds), load_heads, bars, n, 0);
}

static void chart_pair(size_t p)
{
    bar bars[2];
    for (int k = 0; k < 2; k++) bars[k] = bar_of(pairs[p].label[k], pairs[p].run[k], pairs[p].n, k == 1);
    chart_bars(pairs[p].name, pairs[p].title, text("keyauth; requests/s; medians of %zu turns of %d s; ratio %.3f", pairs[p].n, options.seconds,
               pair_ratio(p, RATE)), load_heads, bars, 2, 0);
}

static void chart_start(void)
{
    static const char *const heads[3] = { "measured", "mark", "share of the mark" };
    struct { const char *label; double value, mark; const char *unit; } rows[] = {
        { "exec to listening", median(start_ms, STARTS), 3, "ms" }, { "the worst of 50", most(start_ms, STARTS), 3, "ms" },
        { "stripped server", stripped_bytes / 1024, 100, "KB" }, { "compiling keyauth.h", median(compile_s, COMPILES), 1.5, "s" },
    };
    bar bars[COUNT(rows)];
    for (size_t i = 0; i < COUNT(rows); i++)
        bars[i] = (bar){ .label = rows[i].label, .value = rows[i].value / rows[i].mark, .ours = true,
                         .column = { text("%.2f %s", rows[i].value, rows[i].unit), text("%g %s", rows[i].mark, rows[i].unit),
                                     text("%.0f %%", 100 * rows[i].value / rows[i].mark) } };
    chart_bars("start", "Start and size", "keyauth; a full bar is the mark (shorter is better)", heads, bars, COUNT(rows), 1);
}

/* 1, 2 or 5 times a power of ten, so that a full axis has four to ten of them. */
static double tick(double full)
{
    double unit = pow(10, floor(log10(full / 4)));
    return full / 4 >= 5 * unit ? 5 * unit : full / 4 >= 2 * unit ? 2 * unit : unit;
}

static void chart_growth(void)
{
    enum { HEIGHT = 380, BOTTOM = 320, X0 = 90, X1 = 796, Y0 = 84 };
    size_t n = pairs[GROWTH].n;
    double top = 1;
    FILE *f = svg_begin("growth", pairs[GROWTH].title, "keyauth; p99.9 in µs over the number of keys", HEIGHT);
    for (size_t i = 0; i < n; i++) top = fmax(top, fmax(pairs[GROWTH].run[0][i].v[P999], pairs[GROWTH].run[1][i].v[P999]));
    for (double y = 0, t = tick(top); y <= top; y += t) {
        double at = BOTTOM - y / top * (BOTTOM - Y0);
        fprintf(f, "<path d=\"M%d %.1fH%d\" stroke=\"#d1d9e0\"/>\n", X0, at, X1);
        svg_text(f, X0 - 8, at + 4, 11, faint, "end", number(y));
    }
    for (int m = 0; m <= 10; m += 2) svg_text(f, X0 + (X1 - X0) * m / 10.0, BOTTOM + 18, 11, faint, "middle", text("%d M", m));
    for (int k = 0; k < 2; k++) {
        fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\" d=\"", k ? ours : others);
        for (size_t i = 0; i < n; i++)
            fprintf(f, "%c%.1f %.1f", i ? 'L' : 'M', X0 + pairs[GROWTH].keys[i] / GROWTH_KEYS * (X1 - X0),
                    BOTTOM - pairs[GROWTH].run[k][i].v[P999] / top * (BOTTOM - Y0));
        fputs("\"/>\n", f);
        svg_text(f, 640 + 156 * k, 54, 13, k ? ours : faint, "end", pairs[GROWTH].label[k]);
    }
    svg_end(f, "growth");
}

static void write_charts(void)
{
    for (size_t l = 0; l < LOADS; l++) if (listed(options.only, loads[l].name)) chart_load(l);
    for (size_t p = 0; p < PAIRS; p++) if (pairs[p].done && p != GROWTH) chart_pair(p);
    if (pairs[GROWTH].done) chart_growth();
    if (start_done) chart_start();
}

/* ---- the whole ---- */

static bool any_kept(void)
{
    bool any = false;
    for (size_t l = 0; l < KEPT; l++) any |= listed(options.only, kept_loads[l].name);
    return any;
}

/* Is there a scenario of those whose figures are in results.json? */
static bool any_result(void)
{
    bool any = listed(options.only, "start");
    for (size_t l = 0; l < LOADS; l++) any |= listed(options.only, loads[l].name);
    for (size_t p = 0; p < PAIRS; p++) any |= listed(options.only, pairs[p].name);
    return any;
}

static bool find_program(const char *peer, const char *program, const char *without)
{
    if (!listed(options.peers, peer)) return false;
    bool there = system(text("command -v %s >/dev/null", program)) == 0;
    if (!there) fprintf(stderr, "bench: %s is left out: there is no %s; %s\n", peer, program, without);
    return there;
}

static void find_peers(void)
{
    for (size_t p = 0; p < PEERS; p++) peers[p].present = find_program(peers[p].name, peers[p].args[0], peers[p].without);
    stores[JOURNAL].present = stores[MEMORY].present = stores[LOGGED].present = stores[DISK].present = peers[KEYAUTH].present;
    stores[BATCHED].present = stores[SINGLE].present =
        any_kept() && find_program("sqlite", "bench/sqlite", "Debian's package libsqlite3-dev brings it; then bench/build.sh");
    if (system("command -v wrk >/dev/null") != 0) die("there is no wrk; Debian's package wrk brings it");
    if (!peers[KEYAUTH].present) die("keyauth is what this compares with: ./server must be there, and in --peers");
}

static void name_machine(void)
{
    struct utsname u;
    const char *cc = getenv("CC") ? getenv("CC") : "cc";
    uname(&u);
    snprintf(machine, sizeof machine, "%s, %ld cores, %s %s, %s", first_line("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo"),
             sysconf(_SC_NPROCESSORS_ONLN), u.sysname, u.release, first_line(text("%s --version", cc)));
}

/* Every name in a list must be one of ours: a misspelt scenario is no run at all. */
static bool known(const char *list, bool of_peers)
{
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        const char *name = text("%.*s", (int)strcspn(p, ","), p);
        bool found = !of_peers && strcmp(name, "start") == 0;
        for (size_t i = 0; i < PEERS && of_peers; i++) found |= strcmp(name, peers[i].name) == 0;
        for (size_t i = 0; i < STORES && of_peers; i++) found |= strcmp(name, stores[i].peer) == 0;
        for (size_t i = 0; i < KEPT && !of_peers; i++) found |= strcmp(name, kept_loads[i].name) == 0;
        for (size_t i = 0; i < LOADS && !of_peers; i++) found |= strcmp(name, loads[i].name) == 0;
        for (size_t i = 0; i < PAIRS && !of_peers; i++) found |= strcmp(name, pairs[i].name) == 0;
        if (!found) return fprintf(stderr, "bench: %s: no such %s\n", name, of_peers ? "peer" : "scenario"), false;
    }
    return true;
}

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) return false;
        if (strcmp(argv[i], "--rounds") == 0) options.rounds = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--seconds") == 0) options.seconds = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--only") == 0) options.only = argv[i + 1];
        else if (strcmp(argv[i], "--peers") == 0) options.peers = argv[i + 1];
        else if (strcmp(argv[i], "--out") == 0) options.out = argv[i + 1];
        else return false;
    }
    return options.rounds >= 1 && options.rounds <= MAX_ROUNDS && options.seconds >= 1 && options.seconds <= 60 &&
           known(options.only, false) && known(options.peers, true);
}

static void prepare(void)
{
    struct sigaction sa = { .sa_handler = on_signal };    /* without SA_RESTART: what waits shall notice */
    struct rlimit files;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {          /* for us and for the servers, who inherit it */
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    for (size_t i = 0; i < sizeof results / sizeof(double); i++) ((double *)results)[i] = NAN;
    for (size_t i = 0; i < sizeof stored / sizeof(double); i++) ((double *)stored)[i] = NAN;
    for (size_t i = 0; i < MAX_ROUNDS; i++) idle_bytes[i] = NAN;
    if (!mkdtemp(tmp)) die("cannot make a folder in /tmp: %s", strerror(errno));
    find_peers();
    run_shell(text("mkdir -p '%s'", options.out));
    name_machine();
    if (any_kept()) make_disk();
    for (size_t l = 0; l < KEPT; l++)
        for (size_t k = 0; k < STORES; k++) steps += listed(options.only, kept_loads[l].name) && stores[k].present ? options.rounds : 0;
    for (size_t l = 0; l < LOADS; l++)
        for (size_t p = 0; p < PEERS; p++) steps += listed(options.only, loads[l].name) && peers[p].present ? options.rounds : 0;
    steps += listed(options.only, "start");
    for (size_t p = 0; p < PAIRS; p++) if (listed(options.only, pairs[p].name)) steps += p == GROWTH ? 1 : 2 * options.rounds * (p == MIX ? MIX_TURNS : 1);
}

static void write_results(const char *date)
{
    judge_loads();
    judge_pairs();
    write_json(date);
    FILE *f = create("table.md");
    write_tables(f, date);
    finish(f, "table.md");
    write_charts();
    write_tables(stdout, date);
}

/* Files of their own, so that a run of these leaves the others' figures as they are. */
static void write_kept(const char *date)
{
    write_kept_json(date);
    FILE *f = create("journal.md");
    write_kept_tables(f, date);
    finish(f, "journal.md");
    for (size_t l = 0; l < KEPT; l++) if (listed(options.only, kept_loads[l].name)) chart_kept(l);
    write_kept_tables(stdout, date);
}

int main(int argc, char **argv)
{
    static void (*const run[PAIRS])(void) = { run_mix, run_growth, run_idle };
    char date[32];
    time_t now = time(NULL);
    if (!parse(argc, argv)) {
        fputs("usage: bench [--rounds 1-100] [--seconds 1-60] [--only SCENARIO,...] [--peers PEER,...] [--out DIR]\n", stderr);
        return 2;
    }
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime(&now));
    prepare();
    if (listed(options.only, "start")) run_start();
    for (size_t l = 0; l < LOADS; l++) if (listed(options.only, loads[l].name)) run_load(&loads[l]);
    for (size_t p = 0; p < PAIRS; p++) {
        if (!listed(options.only, pairs[p].name)) continue;
        run[p]();
        pairs[p].done = true;
    }
    for (size_t l = 0; l < KEPT; l++) if (listed(options.only, kept_loads[l].name)) run_kept(l);
    if (any_result()) write_results(date);
    if (any_kept()) write_kept(date);
    clean_up();
    return 0;
}
