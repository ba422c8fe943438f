/* tests/frame.h - checks, ports, the allocator, and which call of a scenario fails. */

static _Atomic(int) passed, failed, skipped;      /* threads of the tests check as well */
static const char *topic = "";

/* A topic: ./test NAME runs those that have NAME in their names. */
typedef struct { const char *name; void (*run)(void); } subject;

static bool check_at(const char *file, int line, bool ok, const char *format, ...)
{
    va_list args;
    if (ok) {
        passed++;
        return true;
    }
    failed++;
    printf("%s:%d: %s: ", file, line, topic);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    return false;
}
#define CHECK(...) check_at(__FILE__, __LINE__, __VA_ARGS__)

#define PRINTABLE_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define PRINTABLE_256 PRINTABLE_64 PRINTABLE_64 PRINTABLE_64 PRINTABLE_64

static void skip(const char *what, const char *why)
{
    skipped++;
    printf("skipped: %s: %s\n", what, why);
}

/* What this runs under, as .ci/run says in the environment: "valgrind", "qemu-s390x"...; NULL: a
   processor. */
static const char *emulator(void) { return getenv("TEST_EMULATOR"); }

/* Wine 8 knows no Ctrl+Break, and Ctrl+C reaches all of a console or nobody; and it has taken a
   socket's error off it before recv could tell. */
static bool on_wine(void)
{
#if defined(_WIN32)
    return GetProcAddress(GetModuleHandleA("ntdll"), "wine_get_version") != NULL;
#else
    return false;
#endif
}

/* The step through cases that are alike: each of them, or fewer where a call takes long. */
static int alike(void) { return on_wine() || emulator() ? 8 : 1; }

/* Is this what it can't do? Then that is a skip. */
static bool emulator_lacks(const char *name, const char *why)
{
    bool lacks = emulator() && strncmp(emulator(), name, strlen(name)) == 0;
    if (lacks) skip(topic, why);
    return lacks;
}

/* /proc/self/exe is the emulator there, and so the client can't start itself again. */
static bool cannot_restart(void)
{
    return emulator_lacks("valgrind", "valgrind can't exec /proc/self/exe") ||
           emulator_lacks("qemu", "qemu-user can't exec /proc/self/exe");
}

/* Nor find a process by its socket: */
static bool cannot_find(void)
{
    return htonl(1) == 1 &&
           emulator_lacks("qemu", "/proc/net/tcp is in the byte order of the processor below");
}

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define BYTES(literal) literal, sizeof(literal) - 1

static ka_str str(const char *text) { return (ka_str){ text, strlen(text) }; }

/* A copy that ends where its block ends, so that a sanitizer sees the first byte too far. */
static char *exact(const char *p, size_t n)
{
    char *copy = malloc(n ? n : 1);
    if (!copy) abort();
    if (n) memcpy(copy, p, n);
    return copy;
}

/* Is this the address, without the port? */
static bool is_ip(ka_end end, const char *ip)
{
    char text[KA_END_TEXT + 1];
    size_t n = strlen(ip);
    ka_end_text(text, end);
    return strncmp(text, ip, n) == 0 && text[n] == ':';
}

/* Ports for servers: below those that systems give to clients, and no other run of the tests has
   them: the socket for datagrams on the first of them stays open. Returns that socket. */
enum { PORTS_BEGIN = 10000, PORTS_END = 32000, PORTS = 199 };
static int ports_from, ports_used;

static ka__sock ports_take(void)
{
    for (int i = 0; i < 10000; i++) {
        ka__address a;
        ka__sock s;
        uint32_t random;
        if (ka_random(&random, sizeof random) < 0) abort();
        ports_from =
            PORTS_BEGIN + (int)(random % ((PORTS_END - PORTS_BEGIN) / (PORTS + 1))) * (PORTS + 1);
        ka__address_read(&a, "127.0.0.1", ports_from++);
        if (ka__sock_new(&a, SOCK_DGRAM, &s) < 0) abort();
        if (bind(KA__FD(s), &a.any, a.n) == 0) return s;
        ka__sock_close(s);
    }
    abort();
}

/* Listen on an address and *port, which becomes the one that it got. */
static int sock_listen_at(ka__sock *s, const char *ip, int *port)
{
    ka__address a;
    ka_end bound = { .port = 0 };
    if (!ka__address_read(&a, ip, *port)) return KA_EINVAL;
    int r = ka__sock_new(&a, SOCK_STREAM, s);
    if (r < 0) return r;
    r = ka__sock_listen(*s, ip, *port, &bound);
    if (r < 0) ka__sock_close(*s);
    else *port = bound.port;
    return r;
}

/* Listen at a port of this run's. One that the system chose may still be called by a client of
   another run. */
static int sock_listen(ka__sock *s, int *port)
{
    int r = KA_EINUSE;
    for (int tries = 0; tries < PORTS && r < 0; tries++) {
        *port = ports_from + ports_used++ % PORTS;
        r = sock_listen_at(s, "127.0.0.1", port);
    }
    return r;
}

/* A port of this machine where nobody listens. */
static int free_port(void)
{
    ka__sock s;
    int port;
    if (sock_listen(&s, &port) < 0) abort();
    ka__sock_close(s);
    return port;
}

/* The same as text. A server's port is such a one where it is used again after the server: a port
   that the system chose may be another run's by then. */
static const char *free_port_text(void)
{
    static char text[4][8];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(text[turn], sizeof text[turn], "%d", free_port());
    return text[turn];
}

#if !defined(_WIN32)
/* From now on no file, of this process or of those that it starts, can have more bytes than `most`;
   0: as before. Where coverage is measured, such a process would leave half of what the others have
   counted: it shall write none. */
static void files_limit(rlim_t most)
{
    static rlim_t before;
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0) abort();
    if (most) before = limit.rlim_cur;
    limit.rlim_cur = most ? most : before;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) abort();
    /* NOLINTBEGIN(concurrency-mt-unsafe): no other thread asks for it */
    if (most) setenv("GCOV_PREFIX", "/dev/null", 1);
    else unsetenv("GCOV_PREFIX");
    /* NOLINTEND(concurrency-mt-unsafe) */
}
#endif

/* ---- the allocator: how many blocks live; fail the n-th call from now ---- */

static _Atomic(long) blocks_live, allocations_left = -1;

#if defined(__GLIBC__)
/* While there is a secret, whose first 40 bytes tell it: the blocks that have it when they are
   given back. */
static const char *_Atomic secret;
static _Atomic(int) secrets_left;

static void secret_seek(const void *p)
{
    const char *s = atomic_load(&secret);
    if (s && p && memmem(p, malloc_usable_size((void *)(uintptr_t)p), s, 40))
        atomic_fetch_add(&secrets_left, 1);
}
#else
static void secret_seek(const void *p) { (void)p; }
#endif

static void *test_realloc(void *p, size_t n)
{
    secret_seek(p);
    if (atomic_load(&allocations_left) >= 0 && atomic_fetch_sub(&allocations_left, 1) == 0)
        return NULL;
    if (fault(F_malloc)) return NULL;
    void *out = realloc(p, n);
    if (out && !p) atomic_fetch_add(&blocks_live, 1);
    return out;
}

static void test_free(void *p)
{
    secret_seek(p);
    atomic_fetch_sub(&blocks_live, 1);
    free(p);
}

/* ---- faults: which call fails, and with what ---- */

/* From call number fault_from on, fault_kind's number of calls fail: one, or all of them, or those
   that are the same as the first. */
static const struct { const char *name; int calls; bool same; } fault_kinds[] = {
    { "this call alone", 1, false }, { "64 calls in a row", 64, false },
    { "12 calls of this name", 12, true },
};
static const struct { const char *name; int codes[12]; } fault_calls[] = {
#define FAULT_ROW(name, ...) { #name, { __VA_ARGS__ } },
    FAULT_CALLS(FAULT_ROW)
};
static _Atomic(bool) fault_armed;
static _Atomic(long) fault_from, fault_seen;
static _Atomic(int) fault_kind, fault_variant, fault_first, fault_failed, fault_most,
    fault_counts[FAULT_CALLS_N];
static _Thread_local bool fault_exempt;      /* this thread's calls are the test's own */
static _Thread_local bool fault_half;        /* its last call does half */

static int fault_codes(int call)
{
    int n = 1;
    while (n < 12 && fault_calls[call].codes[n]) n++;
    return n;
}

/* A pause before a thread's next call to the system, in milliseconds; and whether it was begun and
   ended. */
static _Thread_local int dawdle_ms;
static _Atomic(int) dawdling;
enum { DAWDLES = 1, DAWDLED };

static void dawdle(void)
{
    int ms = dawdle_ms;
    dawdle_ms = 0;
    atomic_store(&dawdling, DAWDLES);
    ka_sleep_ms(ms);
    atomic_store(&dawdling, DAWDLED);
}

/* Before this thread's next call of that name, `run` runs. If `run` returns true, the call fails. */
static _Thread_local struct { int call; bool (*run)(void); } ambush;

#if defined(__linux__)
static bool not_permitted(void) { return errno = EPERM, true; }
#endif

static bool fault(int call)
{
    if (dawdle_ms) dawdle();
    fault_half = false;
    bool (*run)(void) = ambush.call == call ? ambush.run : NULL;
    if (run) ambush.run = NULL;
    if (run) return run();
    if (fault_exempt || !atomic_load(&fault_armed) ||
        atomic_fetch_add(&fault_counts[call], 1) >= atomic_load(&fault_most))
        return false;
    long n = atomic_fetch_add(&fault_seen, 1) + 1, from = atomic_load(&fault_from);
    int kind = atomic_load(&fault_kind);
    if (n < from) return false;
    if (n == from) atomic_store(&fault_first, call);
    else if (fault_kinds[kind].same && call != atomic_load(&fault_first)) return false;
    int before = atomic_fetch_add(&fault_failed, 1);
    if (before >= fault_kinds[kind].calls) return false;
    /* Another one each time. */
    int code = fault_calls[call].codes[(atomic_load(&fault_variant) + before) % fault_codes(call)];
    fault_half = code == FAULT_SHORT;
    if (!fault_half) ka__os_code_set(code);
    return !fault_half;
}

static bool fault_short(void)
{
    bool half = fault_half;
    fault_half = false;
    return half;
}

/* The name `moving.test` is looked up here. While `hangs` is set, the lookup waits. Then it fails
   with `code`, if there is one; else it finds the addresses in `ip`, which have commas between. */
static struct { _Atomic(bool) hangs; _Atomic(int) code; _Atomic(const char *) ip; } moving;

static int fault_names(const char *host, const char *service, const struct addrinfo *wanted,
                       struct addrinfo **found)
{
    bool moves = strcmp(host, "moving.test") == 0;
    while (moves && atomic_load(&moving.hangs)) ka_sleep_ms(1);
    int code = moves ? atomic_load(&moving.code) : 0;
    if (!moves || code) return code ? code : (getaddrinfo)(host, service, wanted, found);
    const char *ips = atomic_load(&moving.ip);
    char ip[KA_IP_TEXT + 1];
    for (; !code && ka_next_ip(&ips, ip); found = &(*found)->ai_next)
        code = (getaddrinfo)(ip, service, wanted, found);
    return code;
}

static void fault_names_free(struct addrinfo *found)
{
    for (struct addrinfo *next; found; found = next) {
        next = found->ai_next;
        found->ai_next = NULL;
        (freeaddrinfo)(found);
    }
}

/* A wake-up fails only if its reader is awake already: so it fails, and comes through. One that is
   ambushed does not: it is to be sent again. */
#if defined(_WIN32)
static int fault_send(SOCKET s, const char *p, int n, int flags)
{
    int type = 0, size = sizeof type;
    bool wakes = (getsockopt)(s, SOL_SOCKET, SO_TYPE, (char *)&type, &size) == 0 &&
                 type == SOCK_DGRAM;
    bool ambushed = ambush.call == F_send && ambush.run, fails = fault(F_send);
    if (fails && (ambushed || !wakes)) return -1;
    int r = (send)(s, p, wakes ? n : FAIL_PART(n), flags);
    return fails ? -1 : r;
}
#else
static ssize_t fault_send(int s, const void *p, size_t n, int flags)
{
    int type = 0;
    socklen_t size = sizeof type;
    bool wakes = (getsockopt)(s, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM,
         ambushed = ambush.call == F_send && ambush.run, fails = fault(F_send);
    if (fails && (ambushed || !wakes)) return -1;
    ssize_t r = (send)(s, p, wakes ? n : FAIL_PART(n), flags);
    return fails ? -1 : r;
}

static _Thread_local const char *write_cuts; /* a file to cut to nothing before the next write */

static ssize_t fault_write(int fd, const void *p, size_t n)
{
    if (write_cuts && truncate(write_cuts, 0) == 0) write_cuts = NULL;
    struct stat st;
    bool fails = fault(F_write);
    /* An eventfd is no kind of file. */
    bool wakes = (fstat)(fd, &st) == 0 && (st.st_mode & S_IFMT) == 0;
    if (fails && !wakes) return -1;
    ssize_t r = (write)(fd, p, wakes ? n : FAIL_PART(n));
    return fails ? -1 : r;
}

/* Descriptors in this thread's table. */
static int descriptors_open(void)
{
    struct pollfd all[1024];
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) all[fd] = (struct pollfd){ .fd = fd };
    if ((poll)(all, 1024, 0) < 0) return -1;
    for (int fd = 0; fd < 1024; fd++) n += !(all[fd].revents & POLLNVAL);
    return n;
}
#endif

#if defined(__linux__)
static long fault_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    static const struct { long number; int call; } calls[] = {
        { SYS_recvfrom, F_recv }, { SYS_sendto, F_send }, { SYS_kcmp, F_kcmp },
        { SYS_close_range, F_close_range },
        { SYS_pidfd_open, F_pidfd_open }, { SYS_pidfd_getfd, F_pidfd_getfd },
        { SYS_pidfd_send_signal, F_pidfd_send_signal },
    };
    bool part = false;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (calls[i].number != number) continue;
        if (fault(calls[i].call)) return -1;
        part = fault_short();
    }
    return (syscall)(number, a, b, part && c > 1 ? c / 2 : c, d, e, f);
}

static _Atomic(int) tables_leaked;

/* Every thread of the header's. A worker with a table of its own leaves in it what ka__table_own
   put there: 0, 1 and 2, and what the pollers need. */
static int fault_thread(void *t)
{
    (void)ka__thread_main(t);
    fault_exempt = true;
    bool own = syscall(SYS_kcmp, getpid(), syscall(SYS_gettid), 2, 0, 0) > 0;
    if (own && descriptors_open() > 6) atomic_fetch_add(&tables_leaked, 1);
    return 0;
}
#endif

/* How long what must come is waited for. Wine looks at all of the machine's sockets to tell whose a
   connection is: with some thousand of them, which other tests may have, that takes
   half a minute. */
#if defined(_WIN32)
enum { PATIENCE_MS = 150000 };
#else
enum { PATIENCE_MS = 30000 };
#endif
