/* fuzz - keyauth.h under libFuzzer; or, without it, a program that replays inputs.
     ./build.sh fuzz [SECONDS] [TARGET...]      what each target checks: fuzz/README.md
   A target is a function of bytes that aborts when something is wrong; the table at the end names them all.
   To add one: a function, its row, a folder fuzz/corpus/NAME.

   The parsers get their input in a block of exactly its size. The server and the client run against a system
   that is simulated below: sockets, epoll, clock and random bytes are functions of the input alone, one thread
   plays all of them, and so an input that fails once fails always. */

#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

/* What guides the fuzzer is the coverage of keyauth.h, not of the code that checks it. */
#if defined(__clang__)
#  define UNGUIDED_BEGIN _Pragma("clang attribute push(__attribute__((no_sanitize(\"coverage\"))), apply_to = function)")
#  define UNGUIDED_END   _Pragma("clang attribute pop")
#else
#  define UNGUIDED_BEGIN
#  define UNGUIDED_END
#endif

UNGUIDED_BEGIN

static const char *target_name = "";

#define CHECK(ok, ...) do { if (!(ok)) fail(__LINE__, #ok, __VA_ARGS__); } while (0)

__attribute__((noreturn, format(printf, 3, 4))) static void fail(int line, const char *what, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "fuzz.c:%d: %s: not so: %s: ", line, target_name, what);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

/* ---- memory: count the blocks; fail one allocation. The few large blocks are kept, so that the system needn't
        make new pages for every input. ---- */

enum { LARGE = 65536 };
static struct { void *p; size_t n; bool used; } large[16];
static long blocks_live, blocks_fail_in = -1;
static bool blocks_failed;

static void *fuzz_malloc(size_t n)
{
    if (blocks_fail_in >= 0 && blocks_fail_in-- == 0) {
        blocks_failed = true;
        return NULL;
    }
    blocks_live++;
    for (int i = 0; n >= LARGE && i < 16; i++) {
        if (large[i].used || (large[i].p && large[i].n != n)) continue;
        if (!large[i].p) large[i].p = malloc(n);
        large[i].n = n;
        large[i].used = true;
        return large[i].p;
    }
    return malloc(n);
}

static void fuzz_free(void *p)
{
    blocks_live--;
    for (int i = 0; i < 16; i++) {
        if (large[i].p != p) continue;
        CHECK(large[i].used, "freed twice");
        large[i].used = false;
        return;
    }
    free(p);
}

static void *fuzz_realloc(void *p, size_t n)
{
    if (!p) return fuzz_malloc(n);
    if (blocks_fail_in >= 0 && blocks_fail_in-- == 0) {
        blocks_failed = true;
        return NULL;
    }
    return realloc(p, n);
}

/* ---- bytes that grow, and bytes that are read ---- */

typedef struct { char *p; size_t n, cap; } bytes;

static void append(bytes *b, const void *p, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        if (!b->p) abort();
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void resize(bytes *b, size_t n)
{
    static const char zeros[256] = { 0 };
    while (b->n < n) append(b, zeros, n - b->n < sizeof zeros ? n - b->n : sizeof zeros);
    b->n = n;
}

static void append_text(bytes *b, const char *text) { append(b, text, strlen(text)); }

static void release(bytes *b)
{
    free(b->p);
    *b = (bytes){ NULL, 0, 0 };
}

typedef struct { const char *p; size_t n; } input;

static unsigned next_byte(input *in)
{
    if (in->n == 0) return 0;
    in->n--;
    return (unsigned char)*in->p++;
}

/* A copy that ends where its block ends, so that a sanitizer sees the first byte too far. */
static char *exact(const char *p, size_t n)
{
    char *copy = calloc(n ? n : 1, 1);
    if (!copy) abort();
    if (n) memcpy(copy, p, n);
    return n ? copy : copy + 1;
}

static void exact_free(char *copy, size_t n) { free(n ? copy : copy - 1); }

static uint64_t hash(const char *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325, x;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&x, p, 8);
        h = (h ^ x) * 0x9e3779b97f4a7c15;
        h ^= h >> 29;
    }
    for (; n > 0; p++, n--) h = (h ^ (unsigned char)*p) * 0x100000001b3;
    return h ^ h >> 31;
}

/* ---- the simulated system ---- */

/* The other side of a connection. */
typedef struct {
    bytes    to_server, from_server;      /* all that was ever sent */
    size_t   received;                    /* of to_server, by the server */
    size_t   cut;                         /* a receive gives so many bytes at most */
    size_t   window;                      /* bytes that this side still takes */
    bool     accepted, fin, reset, reset_told, ended, closed;      /* ended: the server sends no more; closed: nor listens */
    bool     lost;                        /* closed with bytes unread: the answer may be lost */
    bool     cut_off;                     /* closed while it might still send: so it may, if it was refused */
    int64_t  refused_ms, closed_ms;
    bool     slow;                        /* its window was ever limited */
    int      port;                        /* the listener's that it connects to; the server connects to it: its own */
    int      knock;                       /* its answer to that */
    /* what the server's targets expect of it */
    uint64_t conn;
    bool     known, over, refused;        /* known: conn is its number; over: no request may follow */
    size_t   at;                          /* to_server's next request */
    uint32_t seq, answers_cap;
    struct answer *answers;
    bool     bare;                        /* an answer without a head was given: it may be the last one */
    /* and where it doesn't speak HTTP */
    int      framing;                     /* that the parent sends in; and all that it asked for, up to the last event's */
    char     framings[64];
    int      framings_n, framing_at;
    bool     opened, told, hung_up;       /* events said so; hung_up: what the parent sends from now on is dropped */
    size_t   heard;                       /* of to_server, before the server stopped to listen */
    bytes    said;                        /* what the parent sent */
} peer;

enum { CONNECTED, KNOCKING, REFUSED, REFUSED_AT_ONCE, OUT = 1000 };      /* OUT: ports of peers that the server connects to */

enum { SIM_FREE, SIM_OTHER, SIM_EPOLL, SIM_LISTENER, SIM_CONN, SIM_FILE, SIM_FOLDER };
enum { SIM_FDS = 64, PEERS = 40, FIRST_FD = 3 };
typedef struct { int kind, epoll; uint32_t events; uint64_t data; peer *peer; int inode; } sim_fd;

static sim_fd   fds[SIM_FDS];
static peer     peers[PEERS];
static int      peers_n, fd_limit;
static int64_t  clock_ms, wall_ahead_ms;
static uint64_t random_at, moved;      /* moved: how often anything was */
static int      epoll_ready;           /* what the last epoll_wait told */
static void    *threads[2];
static int      threads_n;
static bool     in_worker;
static long     watch_fails_in = -1;   /* epoll_ctl has no memory */
static bool     watch_failed;

static void sim_settle(void);          /* the program waits for its new threads */
static void sim_join(void *thread);    /* for one to end */
static void sim_sleep(void);           /* or for the other side of a mailbox */
static void sim_known(int fd, peer *p);      /* learn the connection's number */

static sim_fd *sim_at(int fd, int kind)
{
    CHECK(fd >= FIRST_FD && fd < FIRST_FD + SIM_FDS, "descriptor %d", fd);
    CHECK(fds[fd - FIRST_FD].kind == kind, "descriptor %d is %d, not %d", fd, fds[fd - FIRST_FD].kind, kind);
    return &fds[fd - FIRST_FD];
}

static int sim_open(int kind)
{
    for (int i = 0; i < fd_limit; i++) {
        if (fds[i].kind != SIM_FREE) continue;
        fds[i] = (sim_fd){ .kind = kind, .epoll = -1 };
        return i + FIRST_FD;
    }
    errno = EMFILE;
    return -1;
}

static void file_unlock(int inode, int fd);

static int sim_close(int fd)
{
    CHECK(fd >= FIRST_FD && fd < FIRST_FD + SIM_FDS && fds[fd - FIRST_FD].kind != SIM_FREE, "close(%d)", fd);
    sim_fd *s = &fds[fd - FIRST_FD];
    if (s->kind == SIM_CONN) {
        sim_known(fd, s->peer);
        s->peer->closed = true;
        s->peer->lost = s->peer->received < s->peer->to_server.n && s->peer->knock == CONNECTED;
        s->peer->cut_off = !s->peer->fin && s->peer->knock == CONNECTED;
        s->peer->closed_ms = clock_ms;
    }
    if (s->kind == SIM_FILE) file_unlock(s->inode, fd);
    s->kind = SIM_FREE;
    moved++;
    return 0;
}

/* Who came first of those that wait at this port. */
static peer *sim_waits(int port)
{
    for (int i = 0; i < peers_n; i++)
        if (peers[i].port == port && !peers[i].accepted) return &peers[i];
    return NULL;
}

static int sim_accept(int fd)
{
    peer *p = sim_waits(sim_at(fd, SIM_LISTENER)->inode);
    if (!p) {
        errno = EAGAIN;
        return -1;
    }
    int new = sim_open(SIM_CONN);
    if (new < 0) return -1;
    fds[new - FIRST_FD].peer = p;
    p->accepted = true;
    moved++;
    return new;
}

static ssize_t sim_recv(int fd, void *out, size_t n)
{
    peer *p = sim_at(fd, SIM_CONN)->peer;
    size_t part = p->to_server.n - p->received;
    CHECK(n > 0 && p->knock == CONNECTED, "a receive of %d bytes, %d", (int)n, p->knock);
    if (part > 0) {
        if (part > n) part = n;
        if (part > p->cut) part = p->cut;
        memcpy(out, p->to_server.p + p->received, part);
        p->received += part;
        if (!p->ended) p->heard = p->received;
        moved++;
        return (ssize_t)part;
    }
    if (p->reset && !p->reset_told) {
        p->reset_told = true;
        errno = ECONNRESET;
        return -1;
    }
    if (p->fin || p->reset) return 0;
    errno = EAGAIN;
    return -1;
}

static ssize_t sim_send(int fd, const void *in, size_t n)
{
    peer *p = sim_at(fd, SIM_CONN)->peer;
    CHECK(n > 0 && !p->ended && p->knock == CONNECTED, "a send of %d bytes, after shutdown: %d, %d", (int)n, p->ended, p->knock);
    if (p->reset) {
        errno = EPIPE;
        return -1;
    }
    if (p->window == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (n > p->window) n = p->window;
    if (p->window != SIZE_MAX) p->window -= n;
    append(&p->from_server, in, n);
    moved++;
    return (ssize_t)n;
}

static int sim_shutdown(int fd)
{
    sim_at(fd, SIM_CONN)->peer->ended = true;
    return 0;
}

static int sim_waiting(int fd, int *n)
{
    peer *p = sim_at(fd, SIM_CONN)->peer;
    *n = (int)(p->to_server.n - p->received);
    return 0;
}

/* As epoll(7) tells it of a TCP socket. */
static uint32_t sim_events(const sim_fd *s)
{
    if (s->kind == SIM_LISTENER) return sim_waits(s->inode) ? EPOLLIN : 0;
    const peer *p = s->peer;
    uint32_t events = 0;
    if (p->knock == KNOCKING) return 0;
    if (p->knock == REFUSED) return EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP;
    if (p->received < p->to_server.n || p->fin || p->reset) events |= EPOLLIN;
    if (p->window > 0 || p->reset) events |= EPOLLOUT;
    if (p->reset) events |= EPOLLERR | EPOLLHUP;
    if (p->fin && p->ended) events |= EPOLLHUP;
    return events;
}

static int sim_epoll_ctl(int epoll, int op, int fd, const struct epoll_event *ev)
{
    sim_at(epoll, SIM_EPOLL);
    CHECK(fd >= FIRST_FD && fd < FIRST_FD + SIM_FDS, "epoll_ctl of %d", fd);
    sim_fd *s = &fds[fd - FIRST_FD];
    CHECK(s->kind != SIM_FREE, "epoll_ctl of the closed %d", fd);
    if (s->kind == SIM_OTHER) return 0;      /* an eventfd: nobody sleeps here, and so nobody is woken */
    if (s->kind == SIM_LISTENER) {           /* which two pollers may watch: the bits of events tell who */
        uint64_t bit = (uint64_t)1 << (epoll - FIRST_FD);
        if (op == EPOLL_CTL_DEL) s->data &= ~bit;
        else s->data |= bit;
        CHECK((int)ev->data.u64 == s->inode || op == EPOLL_CTL_DEL, "a listener's token is its number");
        return 0;
    }
    if (op != EPOLL_CTL_DEL && watch_fails_in >= 0 && watch_fails_in-- == 0) {
        watch_failed = true;
        errno = ENOMEM;
        return -1;
    }
    CHECK((op == EPOLL_CTL_ADD) == (s->epoll < 0) && (s->epoll < 0 || s->epoll == epoll), "epoll_ctl %d of %d, watched by %d", op, fd, s->epoll);
    s->epoll = op == EPOLL_CTL_DEL ? -1 : epoll;
    s->events = ev->events | EPOLLERR | EPOLLHUP;
    s->data = ev->data.u64;
    return 0;
}

static int sim_epoll_wait(int epoll, struct epoll_event *ev, int max)
{
    int n = 0;
    sim_at(epoll, SIM_EPOLL);
    sim_settle();
    for (int i = 0; i < SIM_FDS && n < max; i++) {
        sim_fd *s = &fds[i];
        uint32_t events = 0;
        if (s->kind == SIM_CONN && s->epoll == epoll) events = sim_events(s) & s->events;
        if (s->kind == SIM_LISTENER && (s->data >> (epoll - FIRST_FD) & 1)) events = sim_events(s);
        if (!events) continue;
        ev[n].events = events;
        ev[n++].data.u64 = s->kind == SIM_LISTENER ? (uint64_t)s->inode : s->data;
    }
    epoll_ready = n;
    return n;
}

static int sim_poll(struct pollfd *p)
{
    int kind = p->fd >= FIRST_FD && p->fd < FIRST_FD + SIM_FDS ? fds[p->fd - FIRST_FD].kind : SIM_FREE;
    CHECK(kind == SIM_LISTENER || kind == SIM_CONN, "poll of %d", p->fd);
    uint32_t events = sim_events(&fds[p->fd - FIRST_FD]);
    p->revents = (short)((int)events & (p->events | POLLERR | POLLHUP));      /* the bits are those of epoll */
    return p->revents != 0;
}

static int sim_name(int fd, struct sockaddr *a, socklen_t *n, int port)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    CHECK(fd >= FIRST_FD && *n == sizeof in, "%d", fd);
    memcpy(a, &in, sizeof in);
    return 0;
}

static int sim_peer_name(int fd, struct sockaddr *a, socklen_t *n)
{
    if (!sim_at(fd, SIM_CONN)->peer->reset) return sim_name(fd, a, n, 2);
    errno = ENOTCONN;
    return -1;
}

static int sim_set_option(int fd, int level, int name, const void *v)
{
    (void)fd, (void)level, (void)name, (void)v;
    return 0;
}

static int sim_option(int fd, int name, void *v)
{
    CHECK(name == SO_ERROR, "%d", name);
    memcpy(v, &(int){ sim_at(fd, SIM_CONN)->peer->knock == REFUSED ? ECONNREFUSED : 0 }, sizeof(int));
    return 0;
}

static int sim_bind(int fd, const struct sockaddr *a)
{
    struct sockaddr_in in;
    memcpy(&in, a, sizeof in);
    sim_at(fd, SIM_LISTENER)->inode = ntohs(in.sin_port);
    return 0;
}

static int sim_connect(int fd, const struct sockaddr *a)
{
    struct sockaddr_in in;
    memcpy(&in, a, sizeof in);
    int port = ntohs(in.sin_port);
    peer *p = sim_waits(port >= OUT ? port : 0);
    if (p) p->accepted = true;
    if (!p || p->knock == REFUSED_AT_ONCE) {
        errno = ECONNREFUSED;
        return -1;
    }
    sim_at(fd, SIM_LISTENER)->kind = SIM_CONN;      /* a new socket is a listener until it turns out to be none */
    fds[fd - FIRST_FD].peer = p;
    errno = EINPROGRESS;
    return p->knock == CONNECTED ? 0 : -1;
}

static int64_t wall_ms(void) { return 1700000000000 + clock_ms + wall_ahead_ms; }

static int sim_clock(clockid_t which, struct timespec *t)
{
    int64_t ms = which == CLOCK_REALTIME ? wall_ms() : clock_ms;
    *t = (struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = ms % 1000 * 1000000L };
    return 0;
}

static int sim_nanosleep(const struct timespec *t)
{
    clock_ms += (int64_t)t->tv_sec * 1000 + t->tv_nsec / 1000000;
    sim_sleep();
    return 0;
}

/* The key after n others is n in all of its 64 bytes, so that an input can know it; after 255 the first is more. */
static ssize_t sim_random(void *out, size_t n)
{
    unsigned char *p = out;
    for (size_t i = 0; i < n; i++, random_at++) p[i] = (unsigned char)(random_at / 64 + (random_at % 64 ? 0 : random_at / 64 / 256));
    return (ssize_t)n;
}

static int sim_thread(thrd_t *id, void *thread)
{
    CHECK(threads_n < 2, "more threads");
    threads[threads_n++] = thread;
    *id = (thrd_t)threads_n;
    return thrd_success;
}

static int sim_thread_join(thrd_t id)
{
    sim_join(threads[id - 1]);
    return thrd_success;
}

static void sim_begin(void)
{
    memset(fds, 0, sizeof fds);
    memset(peers, 0, sizeof peers);
    peers_n = threads_n = 0;
    fd_limit = SIM_FDS;
    clock_ms = 1000000;
    wall_ahead_ms = 0;
    random_at = moved = 0;
    blocks_live = 0;
    blocks_fail_in = watch_fails_in = -1;
    blocks_failed = watch_failed = in_worker = false;
}

static peer *sim_peer(int port)
{
    peer *p = &peers[peers_n++];
    p->port = port;
    p->cut = p->window = SIZE_MAX;
    return p;
}

static void sim_end(void)
{
    for (int i = 0; i < SIM_FDS; i++) CHECK(fds[i].kind == SIM_FREE, "descriptor %d of kind %d is still open", i + FIRST_FD, fds[i].kind);
    CHECK(blocks_live == 0, "%ld blocks were not freed", blocks_live);
    for (int i = 0; i < peers_n; i++) {
        release(&peers[i].to_server);
        release(&peers[i].from_server);
        release(&peers[i].said);
        free(peers[i].answers);
    }
}

/* ---- simulated files: three names in a folder, and what a power cut leaves of them ----

   The names since the folder was synced are all kept: any of them may be what a power cut leaves. A file has its bytes
   as they are read, and as they are on disk. A sync that fails writes some of them and calls all of them written. */

enum { JOURNAL, FRESH, DAMAGED, NAMES, STATES = 16, INODES = NAMES * STATES + 8, BLOCK = 8 };
typedef struct { int of[NAMES]; } names;      /* their inodes; -1: none */

typedef struct {
    bytes  now, dirty, disk;      /* dirty: 1 for each byte of now that was written since the last sync. Both may go on
                                     behind the file's end: what was cut off might yet be on disk */
    size_t n;                     /* the file's bytes */
    int    lock;                  /* who has it, or 0 */
} sim_file;

static const char *const file_names[NAMES] = { "d/j", "d/j.new", "d/j.damaged" };
static struct {
    sim_file inodes[INODES];
    names    states[STATES];      /* the first is on disk, the last is now */
    int      states_n;
    size_t   most;                /* a read or write does so many bytes */
    unsigned fail_in, fail_n;     /* fail_n calls fail, after so many that don't */
    int      fail_code;
    unsigned failed;              /* calls that have */
    uint64_t coins;
} files;

static bool file_fails(void)
{
    if (files.fail_n == 0 || files.fail_in-- > 0) return false;
    files.fail_in = 0;
    files.fail_n--;
    files.failed++;
    errno = files.fail_code;
    return true;
}

static uint64_t coin(uint64_t n)
{
    files.coins = files.coins * 6364136223846793005u + 1442695040888963407u;
    return (files.coins >> 33) % n;
}

static names *names_now(void) { return &files.states[files.states_n - 1]; }

static names *names_next(void)
{
    if (files.states_n == STATES) memmove(&files.states[1], &files.states[2], (STATES - 2) * sizeof(names));
    else files.states_n++;
    files.states[files.states_n - 1] = files.states[files.states_n - 2];
    return names_now();
}

static int name_of(const char *path)
{
    int i = 0;
    while (i < NAMES && strcmp(path, file_names[i])) i++;
    return i;
}

static sim_file *file_named(int name) { return names_now()->of[name] < 0 ? NULL : &files.inodes[names_now()->of[name]]; }
static sim_file *file_at(int fd) { return &files.inodes[sim_at(fd, SIM_FILE)->inode]; }

static void file_unlock(int at, int fd)
{
    if (files.inodes[at].lock == fd) files.inodes[at].lock = 0;
}

static int file_new(void)
{
    bool used[INODES] = { false };
    int at = 0;
    for (int i = 0; i < files.states_n * NAMES; i++)
        if (files.states[i / NAMES].of[i % NAMES] >= 0) used[files.states[i / NAMES].of[i % NAMES]] = true;
    for (int i = 0; i < SIM_FDS; i++)
        if (fds[i].kind == SIM_FILE) used[fds[i].inode] = true;
    while (used[at]) at++;
    sim_file *f = &files.inodes[at];
    f->now.n = f->dirty.n = f->disk.n = f->n = 0;
    f->lock = 0;
    return at;
}

/* Some of what is dirty gets to the disk; and a size. */
static void file_mix(sim_file *f)
{
    size_t low = f->n < f->disk.n ? f->n : f->disk.n, high = f->now.n > f->disk.n ? f->now.n : f->disk.n;
    size_t sizes[4] = { f->n, f->n, f->disk.n, low + coin(high - low + 1) }, size = sizes[coin(4)], how = coin(4);
    bool put = false;
    resize(&f->disk, size);
    for (size_t i = 0; i < size && i < f->now.n; i++) {
        if (i % BLOCK == 0 || i == 0) put = how == 0 || (how > 1 && coin(4) < how);
        if (f->dirty.p[i] && put) f->disk.p[i] = f->now.p[i];
    }
}

static void file_clean(sim_file *f)
{
    f->now.n = f->dirty.n = f->n;
    if (f->n) memset(f->dirty.p, 0, f->n);
}

static void power_cut(void)
{
    names left;
    for (int i = 0; i < NAMES; i++) left.of[i] = files.states[coin((uint64_t)files.states_n)].of[i];
    files.states[0] = left;
    files.states_n = 1;
    for (int i = 0; i < NAMES; i++) {
        sim_file *f = file_named(i);
        if (!f) continue;
        file_mix(f);
        f->now.n = 0;
        append(&f->now, f->disk.p, f->n = f->disk.n);
        resize(&f->dirty, f->n);
        file_clean(f);
        }
}

/* Would a power cut leave the journal as it is now? */
static bool file_durable(void)
{
    const sim_file *f = file_named(JOURNAL);
    for (int i = 0; i < files.states_n; i++)
        if (files.states[i].of[JOURNAL] != names_now()->of[JOURNAL]) return false;
    return f && f->n == f->disk.n && (f->n == 0 || memcmp(f->now.p, f->disk.p, f->n) == 0);
}

static int sim_open_path(const char *path, int flags, ...)
{
    int name = name_of(path), at, fd;
    if (name == NAMES) {
        if (!(flags & O_DIRECTORY)) return sim_open(SIM_OTHER);
        CHECK(strcmp(path, "d/") == 0, "the folder %s", path);
        return file_fails() ? -1 : sim_open(SIM_FOLDER);
    }
    CHECK((flags & (O_RDWR | O_CREAT | O_NOFOLLOW)) == (O_RDWR | O_CREAT | O_NOFOLLOW), "flags %x", (unsigned)flags);
    if (file_fails()) return -1;
    if ((at = names_now()->of[name]) >= 0 && (flags & O_EXCL)) {
        errno = EEXIST;
        return -1;
    }
    if ((fd = sim_open(SIM_FILE)) < 0) return -1;
    if (at < 0) at = names_next()->of[name] = file_new();
    fds[fd - FIRST_FD].inode = at;
    return fd;
}

static int sim_flock(int fd)
{
    sim_file *f = file_at(fd);
    if (file_fails()) return -1;
    if (f->lock && f->lock != fd) {
        errno = EWOULDBLOCK;
        return -1;
    }
    f->lock = fd;
    return 0;
}

static int file_stat(int at, struct stat *s)
{
    if (file_fails()) return -1;
    *s = (struct stat){ .st_ino = (ino_t)at + 1, .st_mode = S_IFREG | 0600, .st_size = (off_t)files.inodes[at].n };
    return 0;
}

static int sim_fstat(int fd, struct stat *s) { return file_stat(sim_at(fd, SIM_FILE)->inode, s); }

static int sim_lstat(const char *path, struct stat *s)
{
    int at = names_now()->of[name_of(path)];
    if (at >= 0) return file_stat(at, s);
    errno = ENOENT;
    return -1;
}

static ssize_t sim_pread(int fd, void *p, size_t n, off_t at)
{
    const sim_file *f = file_at(fd);
    if (file_fails()) return -1;
    size_t rest = (size_t)at < f->n ? f->n - (size_t)at : 0;
    if (n > rest) n = rest;
    if (n > files.most) n = files.most;
    if (n) memcpy(p, f->now.p + at, n);
    return (ssize_t)n;
}

static ssize_t sim_pwrite(int fd, const void *p, size_t n, off_t at)
{
    sim_file *f = file_at(fd);
    if (file_fails()) return -1;
    if (n > files.most) n = files.most;
    CHECK(n > 0 && (size_t)at <= f->n, "%d bytes at %d, behind the end of %d", (int)n, (int)at, (int)f->n);
    size_t end = (size_t)at + n;
    if (end > f->now.n) resize(&f->now, end);
    if (end > f->dirty.n) resize(&f->dirty, end);
    memcpy(f->now.p + at, p, n);
    memset(f->dirty.p + at, 1, n);
    if (end > f->n) f->n = end;
    return (ssize_t)n;
}

static int sim_ftruncate(int fd, off_t size)
{
    sim_file *f = file_at(fd);
    if (file_fails()) return -1;
    CHECK((size_t)size <= f->n, "made longer, from %d to %d", (int)f->n, (int)size);
    f->n = (size_t)size;
    return 0;
}

static int sim_fdatasync(int fd)
{
    sim_file *f = file_at(fd);
    bool fails = file_fails();
    if (fails) file_mix(f);
    else {
        resize(&f->disk, f->n);
        for (size_t i = 0; i < f->n; i++)
            if (f->dirty.p[i]) f->disk.p[i] = f->now.p[i];
    }
    file_clean(f);
    return fails ? -1 : 0;
}

static int sim_fsync(int fd)
{
    sim_at(fd, SIM_FOLDER);
    if (file_fails()) return -1;
    files.states[0] = *names_now();
    files.states_n = 1;
    return 0;
}

static int sim_rename(const char *from, const char *to)
{
    int at = names_now()->of[name_of(from)];
    CHECK(at >= 0, "%s is not there", from);
    if (file_fails()) return -1;
    names *n = names_next();
    n->of[name_of(to)] = at;
    n->of[name_of(from)] = -1;
    return 0;
}

static int sim_link(const char *path, const char *name)
{
    if (file_fails()) return -1;
    if (file_named(name_of(name))) {
        errno = EEXIST;
        return -1;
    }
    int at = names_now()->of[name_of(path)];
    names_next()->of[name_of(name)] = at;
    return 0;
}

static int sim_unlink(const char *path)
{
    if (file_fails()) return -1;
    if (file_named(name_of(path))) names_next()->of[name_of(path)] = -1;
    return 0;
}

static void files_begin(void)
{
    for (int i = 0; i < NAMES; i++) files.states[0].of[i] = -1;
    files.states_n = 1;
    files.most = SIZE_MAX;
    files.fail_in = files.fail_n = files.failed = 0;
    files.fail_code = EIO;
    files.coins = 1;
}

UNGUIDED_END

#define accept4(fd, a, size, flags)         sim_accept(fd)
#define bind(fd, a, size)                   sim_bind(fd, a)
#define clock_gettime(clock, t)             sim_clock(clock, t)
#define close(fd)                           sim_close(fd)
#define connect(fd, a, size)                sim_connect(fd, a)
#define epoll_create1(flags)                sim_open(SIM_EPOLL)
#define epoll_ctl(epoll, op, fd, ev)        sim_epoll_ctl(epoll, op, fd, ev)
#define epoll_wait(epoll, ev, max, ms)      ((void)(ms), sim_epoll_wait(epoll, ev, max))
#define eventfd(n, flags)                   sim_open(SIM_OTHER)
#define fdatasync(fd)                       sim_fdatasync(fd)
#define flock(fd, how)                      sim_flock(fd)
#define fstat(fd, s)                        sim_fstat(fd, s)
#define fsync(fd)                           sim_fsync(fd)
#define ftruncate(fd, size)                 sim_ftruncate(fd, size)
#define getpeername(fd, a, size)            sim_peer_name(fd, a, size)
#define getrandom(p, n, flags)              sim_random(p, n)
#define getsockname(fd, a, size)            sim_name(fd, a, size, 1)
#define getsockopt(fd, level, name, v, n)   ((void)(level), (void)(n), sim_option(fd, name, v))
#define ioctl(fd, what, n)                  sim_waiting(fd, n)
#define link(path, name)                    sim_link(path, name)
#define listen(fd, backlog)                 sim_set_option(fd, 0, 0, NULL)
#define lstat(path, s)                      sim_lstat(path, s)
#define nanosleep(t, left)                  sim_nanosleep(t)
#define open(...)                           sim_open_path(__VA_ARGS__)
#define poll(p, n, ms)                      ((void)(ms), sim_poll(p))
#define pread(fd, p, n, at)                 sim_pread(fd, p, n, at)
#define pwrite(fd, p, n, at)                sim_pwrite(fd, p, n, at)
#define recv(fd, p, n, flags)               sim_recv(fd, p, n)
#define rename(from, to)                    sim_rename(from, to)
#define send(fd, p, n, flags)               sim_send(fd, p, n)
#define setsockopt(fd, level, name, v, n)   sim_set_option(fd, level, name, v)
#define shutdown(fd, how)                   sim_shutdown(fd)
#define socket(family, type, protocol)      sim_open(SIM_LISTENER)
#define thrd_create(id, run, arg)           ((void)(run), sim_thread(id, arg))
#define thrd_join(id, result)               sim_thread_join(id)
#define unlink(path)                        sim_unlink(path)

/* Limits so low that an input of some hundred bytes meets them. */
#define KA_MAX_HEAD 512
#define KA_MAX_BODY 300
#define KA_MAX_CHUNK_LINE 24
#define KA_MAX_PIPELINED 16
#define KA_MAX_UNSENT 6000
#define KA_MAX_ID 100
#define KA_REDIS_BYTES 9000
#define KA_REQUEST_MS 1000
#define KA_IDLE_MS 6000
#define KA_STALL_MS 3000
#define KA_LINGER_MS 200
#define KA_DRAIN_MS 1200
#define KA_MAILBOX (1u << 18)
#define KA_MALLOC(n) fuzz_malloc(n)
#define KA_REALLOC(p, n) fuzz_realloc(p, n)
#define KA_FREE(p) fuzz_free(p)
#define KA_ONE_TABLE 1
#define KA__ASAN 1      /* the libc's recv and send, which are simulated */
#define KEYAUTH_IMPLEMENTATION
#include "../keyauth.h"

UNGUIDED_BEGIN

/* ---- base64 ---- */

/* Decode by the definition: 6 bits a digit, what is left over is zero. -1: refused. */
static ptrdiff_t plain_base64(unsigned char *out, const char *in, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t pad = 0, size = 0;
    uint32_t bits = 0, held = 0;
    while (pad < 2 && pad < n && in[n - 1 - pad] == '=') pad++;
    if (n % 4) return -1;
    for (size_t i = 0; i < n - pad; i++) {
        const char *digit = in[i] ? strchr(digits, in[i]) : NULL;
        if (!digit) return -1;
        held = held << 6 | (uint32_t)(digit - digits);
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        out[size++] = (unsigned char)(held >> bits);
        held &= (1u << bits) - 1;
    }
    return held == 0 && bits == pad * 2 ? (ptrdiff_t)size : -1;
}

static void target_base64(const char *p, size_t n)
{
    /* as bytes: there and back */
    size_t size = KA_B64_ENCODED(n);
    char *text = malloc(size ? size : 1), *plain = malloc(n ? n : 1);
    if (!text || !plain) abort();
    CHECK(ka_b64_encode(text, size, p, n) == (ptrdiff_t)size, "%d bytes", (int)n);
    if (size) CHECK(ka_b64_encode(text, size - 1, p, n) == KA_ENOSPC, "one short of %d", (int)size);
    char *in = exact(text, size);
    CHECK(ka_b64_decode(plain, n, in, size) == (ptrdiff_t)n && memcmp(plain, p, n) == 0, "decode(encode(%d bytes))", (int)n);
    if (n) CHECK(ka_b64_decode(plain, n - 1, in, size) == KA_ENOSPC, "one short of %d", (int)n);
    exact_free(in, size);
    free(text);
    free(plain);

    /* as text: refused, or the one text for its bytes */
    size_t cap = KA_B64_DECODED(n);
    unsigned char *want = malloc(cap + 3);
    plain = malloc(cap ? cap : 1);
    text = malloc(n + 4);
    if (!want || !plain || !text) abort();
    ptrdiff_t expected = plain_base64(want, p, n), got = ka_b64_decode(plain, cap, p, n);
    CHECK(got == (expected < 0 ? KA_ESYNTAX : expected), "got %d, want %d", (int)got, (int)expected);
    if (got >= 0) {
        CHECK(memcmp(plain, want, (size_t)got) == 0, "%d bytes", (int)got);
        CHECK(ka_b64_encode(text, n + 4, plain, (size_t)got) == (ptrdiff_t)n && memcmp(text, p, n) == 0, "encode(decode(%d characters))", (int)n);
    }
    free(want);
    free(plain);
    free(text);
}

/* ---- forms, percent-encoding, and the protocol in them ---- */

static ptrdiff_t plain_percent(char *out, ka_str in)
{
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        char hex[3] = { 0 };
        if (in.p[i] != '%') {
            out[n++] = in.p[i];
            continue;
        }
        if (in.n - i < 3) return KA_ESYNTAX;
        memcpy(hex, in.p + i + 1, 2);
        if (strspn(hex, "0123456789abcdefABCDEF") != 2) return KA_ESYNTAX;
        out[n++] = (char)strtol(hex, NULL, 16);
        i += 2;
    }
    return (ptrdiff_t)n;
}

static void check_percent(ka_str in)
{
    char *want = malloc(in.n + 1);
    if (!want) abort();
    ptrdiff_t expected = plain_percent(want, in);
    char *out = malloc(in.n ? in.n : 1);
    if (!out) abort();
    ptrdiff_t got = ka_percent_decode(out, in.n, in);
    CHECK(got == expected && (got <= 0 || memcmp(out, want, (size_t)got) == 0), "got %d, want %d", (int)got, (int)expected);
    free(out);
    if (got > 0) {
        out = malloc((size_t)got);
        if (!out) abort();
        CHECK(ka_percent_decode(out, (size_t)got, in) == got, "room for exactly %d", (int)got);
        CHECK(ka_percent_decode(out, (size_t)got - 1, in) == KA_ENOSPC, "one short of %d", (int)got);
        free(out);
    }
    out = exact(in.p, in.n);      /* in place */
    got = ka_percent_decode(out, in.n, (ka_str){ out, in.n });
    CHECK(got == expected && (got <= 0 || memcmp(out, want, (size_t)got) == 0), "in place: got %d, want %d", (int)got, (int)expected);
    exact_free(out, in.n);
    free(want);
}

/* ask_key=ID, then login=KEY, gives that ID. */
static void check_protocol(ka_str body)
{
    ka_keyring keys;
    char text[KA_MAX_ANSWER], id[KA_MAX_ANSWER], login[6 + 3 * KA_KEY_TEXT];
    size_t n = 12345, id_n;
    ka_event ev = { .kind = KA_REQUEST, .method = { "POST", 4 }, .target = { "/", 1 }, .body = body, .now_ms = ka_now_ms() };
    if (ka_keyring_init(&keys, 1, 5) < 0) abort();
    int status = ka_auth_answer(&keys, &ev, text, &n);
    CHECK(n > 0 && n <= KA_MAX_ANSWER && ka__printable(text, n), "status %d, %d bytes", status, (int)n);
    CHECK(status == 200 || (status == 400 && n == 11) || (status == 403 && n == 9), "status %d, %d bytes", status, (int)n);
    CHECK(keys.count == (status == 200 ? 1u : 0u), "status %d, %d keys", status, (int)keys.count);
    if (status == 200) {
        CHECK(n == KA_KEY_TEXT && body.n > 8 && memcmp(body.p, "ask_key=", 8) == 0, "%d bytes for %.*s", (int)n, (int)body.n, body.p);
        ptrdiff_t size = plain_percent(id, (ka_str){ body.p + 8, body.n - 8 > 3 * KA_MAX_ID ? 0 : body.n - 8 });
        CHECK(size > 0 && size <= KA_MAX_ID, "an ID of %d bytes", (int)size);
        id_n = (size_t)size;
        memcpy(login, "login=", 6);
        size_t at = 6;
        for (size_t i = 0; i < KA_KEY_TEXT; i++) {
            if (hash(body.p, body.n) >> (i % 64) & 1) at += (size_t)snprintf(login + at, 4, "%%%02x", (unsigned char)text[i]);
            else login[at++] = text[i];
        }
        ev.body = (ka_str){ exact(login, at), at };
        status = ka_auth_answer(&keys, &ev, text, &n);
        CHECK(status == 200 && n == id_n && memcmp(text, id, n) == 0, "status %d, %d bytes, want %d", status, (int)n, (int)id_n);
        ev.now_ms += 7000;
        CHECK(ka_auth_answer(&keys, &ev, text, &n) == 403, "a key after its time");
        exact_free((char *)(uintptr_t)ev.body.p, at);
    }
    ev.body = body;
    ev.method = (ka_str){ "PUT", 3 };
    CHECK(ka_auth_answer(&keys, &ev, text, &n) == 405, "a method");
    ka_keyring_free(&keys);
}

static void target_form(const char *p, size_t n)
{
    ka_str rest = { p, n }, name, value;
    size_t at = 0;
    sim_begin();
    for (bool more = true; more; ) {
        size_t end = at, equals;
        while (end < n && p[end] != '&') end++;
        for (equals = at; equals < end && p[equals] != '='; equals++) {}
        more = end < n;
        int r = ka_form_next(&rest, &name, &value);
        CHECK(r == (equals < end ? KA_OK : KA_ESYNTAX), "at %d: got %d", (int)at, r);
        if (r == KA_OK) {
            CHECK(name.p == p + at && name.n == equals - at && value.p == p + equals + 1 && value.n == end - equals - 1, "at %d", (int)at);
            check_percent(name);
            check_percent(value);
        }
        at = end + 1;
    }
    CHECK(ka_form_next(&rest, &name, &value) == KA_ENOTFOUND, "the end");
    check_percent((ka_str){ p, n });
    check_protocol((ka_str){ p, n });
    sim_end();
}

/* ---- JSON and Python literals ---- */

static void json_equal(const ka_json *a, const ka_json *b)
{
    CHECK(a->kind == b->kind, "a value of kind %d has become %d", a->kind, b->kind);
    if (a->kind == KA_NUMBER) CHECK(a->raw.n == b->raw.n && memcmp(a->raw.p, b->raw.p, a->raw.n) == 0, "another number");
    if (a->kind == KA_STRING) {
        size_t cap = a->raw.n;      /* enough, as its contract says */
        char *x = exact(a->raw.p, cap), *y = exact(b->raw.p, b->raw.n);
        ptrdiff_t n = ka_json_string(x, cap, a);
        CHECK(n >= 0 && ka_json_string(y, b->raw.n, b) == n && memcmp(x, y, (size_t)n) == 0, "another string");
        if (n > 0) CHECK(ka_json_string(y, (size_t)n - 1, b) == KA_ENOSPC, "a string of %d bytes, in less", (int)n);
        char *text = exact(x, (size_t)n + 1);
        text[n] = 0;
        CHECK(ka_json_is(a, text) == !memchr(x, 0, (size_t)n), "a string is itself, unless it has a NUL");
        exact_free(text, (size_t)n + 1);
        exact_free(x, cap);
        exact_free(y, b->raw.n);
    }
    ka_json p = *a, q = *b, name, other, v, w, found;
    while (ka_json_next(&p, &name, &v)) {
        CHECK(ka_json_next(&q, &other, &w) && name.kind == other.kind, "a member less");
        CHECK(v.raw.p >= a->raw.p && v.raw.p + v.raw.n <= a->raw.p + a->raw.n && v.python == a->python, "a member is a part of it");
        if (name.kind) {
            char called[1024];
            ptrdiff_t n = ka_json_string(called, sizeof called - 1, &name);
            CHECK(n >= 0, "a name can be decoded");
            called[n] = 0;
            int r = memchr(called, 0, (size_t)n) ? KA_ENOTFOUND : ka_json_find(a, called, &found);
            CHECK(r == KA_ENOTFOUND ? memchr(called, 0, (size_t)n) != NULL : r == KA_EINVAL || (r == KA_OK && found.raw.p == v.raw.p), "a name is found: %d", r);
            json_equal(&name, &other);
        }
        json_equal(&v, &w);
    }
    CHECK(!ka_json_next(&q, &other, &w), "a member more");
}

static size_t json_put(const ka_json *v, bool python, char *room, size_t cap, int want)
{
    ka_json_out w = { .p = room, .cap = cap, .python = python };
    ka_json_put_value(&w, NULL, v);
    CHECK(w.error == want && w.n <= cap, "written into %d: %d, %d bytes", (int)cap, w.error, (int)w.n);
    return w.n;
}

/* Written in one language it is read as that, or as either, and means the same; written again it is the same. */
static void json_rewrite(const ka_json *v, bool python)
{
    size_t cap = v->raw.n * 6 + 16;      /* of one byte of UTF-8, \u007f; of a comma, a space more */
    char *room = malloc(cap), *text, *again;
    if (!room) abort();
    size_t n = json_put(v, python, room, cap, KA_OK);
    text = exact(room, n);
    free(room);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i], next = (unsigned char)(i + 1 < n ? text[i + 1] : 0), third = (unsigned char)(i + 2 < n ? text[i + 2] : 0);
        CHECK(c >= 0x20 && c != 0x7F && !(python && c > 0x7F), "byte %d is %02x", (int)i, c);
        CHECK(!(c == 0xC2 && next < 0xA0) && !(c == 0xE2 && next == 0x80 && (third & 0xFE) == 0xA8), "byte %d begins what may end a line", (int)i);
    }
    ka_json w;
    int r = ka_json_read(&w, (ka_str){ text, n });
    CHECK(r == KA_OK && w.raw.n == n && (python || !w.python), "written %.*s, read: %d", (int)n, text, r);
    json_equal(v, &w);
    for (size_t less = n < 40 ? 0 : n - 20; less <= n; less++) {
        again = exact(text, less);
        size_t m = json_put(&w, python, again, less, less < n ? KA_ENOSPC : KA_OK);
        CHECK(m == (less < n ? 0 : n) && memcmp(again, text, m) == 0, "written again");
        exact_free(again, less);
    }
    exact_free(text, n);
}

static void target_json(const char *p, size_t n)
{
    ka_json v, w;
    bytes more = { 0 };
    int r = ka_json_read(&v, (ka_str){ p, n });
    CHECK(r == KA_OK || r == KA_ESYNTAX || r == KA_ELIMIT, "read: %d", r);
    CHECK(v.raw.p >= p && v.raw.n <= (size_t)(p + n - v.raw.p) && (r == KA_OK) == (v.kind != 0), "what was read is a part of it");
    append(&more, p, n);
    append_text(&more, "\"],}9");
    int again = ka_json_read(&w, (ka_str){ more.p, n });      /* what is behind it isn't looked at */
    CHECK(again == r && w.kind == v.kind && w.python == v.python && w.raw.n == v.raw.n, "in a larger block: %d, not %d", again, r);
    release(&more);
    if (r < 0) return;
    json_equal(&v, &v);
    json_rewrite(&v, false);
    json_rewrite(&v, true);
    if (v.kind == KA_NUMBER) return;
    size_t step = 1 + v.raw.n / 64;      /* any cut, but not all of a long one's */
    for (size_t cut = v.raw.n; cut > 0; cut = cut > step ? cut - step : 0) {
        char *in = exact(v.raw.p, cut - 1);
        CHECK(ka_json_read(&w, (ka_str){ in, cut - 1 }) == KA_ESYNTAX, "whole after %d bytes of %d", (int)cut - 1, (int)v.raw.n);
        exact_free(in, cut - 1);
    }
}

/* ---- RESP ---- */

/* The value at *at, by the definition; *at: behind it.
     returns    KA_OK; KA_EAGAIN: it goes on; KA_ESYNTAX */
static int plain_resp(const char *p, size_t n, size_t *at)
{
    char number[24] = "";
    if (*at == n) return KA_EAGAIN;
    char mark = p[(*at)++];
    size_t from = *at;
    if (!mark || !strchr("+-:$*", mark)) return KA_ESYNTAX;
    while (*at < n && p[*at] != '\r' && p[*at] != '\n') ++*at;
    if (*at == n) return KA_EAGAIN;
    if (p[*at] == '\n') return KA_ESYNTAX;
    if (*at + 1 == n) return KA_EAGAIN;
    if (p[*at + 1] != '\n') return KA_ESYNTAX;
    size_t size = *at - from, sign = size > 0 && (p[from] == '-' || p[from] == '+'), zeros = 0;
    *at += 2;
    if (mark == '+' || mark == '-') return KA_OK;
    for (size_t i = sign; i < size; i++)
        if (p[from + i] < '0' || p[from + i] > '9') return KA_ESYNTAX;
    while (sign + zeros + 1 < size && p[from + sign + zeros] == '0') zeros++;
    if (size == sign || size - sign - zeros > 19) return KA_ESYNTAX;
    memcpy(number, p + from, sign);
    memcpy(number + sign, p + from + sign + zeros, size - sign - zeros);
    errno = 0;
    long long value = strtoll(number, NULL, 10);
    if (errno == ERANGE) return KA_ESYNTAX;
    if (mark == ':' || (size == 2 && memcmp(p + from, "-1", 2) == 0)) return KA_OK;
    if (sign || zeros || value > INT32_MAX) return KA_ESYNTAX;
    if (mark == '$') {
        if (n - *at < (size_t)value + 2) return KA_EAGAIN;
        *at += (size_t)value + 2;
        return memcmp(p + *at - 2, "\r\n", 2) == 0 ? KA_OK : KA_ESYNTAX;
    }
    int r = KA_OK;
    for (long long i = 0; i < value && r == KA_OK; i++) r = plain_resp(p, n, at);
    return r;
}

/* A value that was read from these bytes, and all that is in it. */
static void resp_check(const ka_resp *v, const char *p, size_t n)
{
    size_t line = (size_t)((const char *)memchr(p, '\r', n) - p), at = line + 2;
    ka_resp rest = *v, element;
    switch (*p) {
    case '+': case '-': case ':':
        CHECK(v->kind == (*p == '+' ? KA_RESP_STRING : *p == '-' ? KA_RESP_ERROR : KA_RESP_INTEGER) && v->text.p == p + 1 && v->text.n == line - 1 && at == n, "%c is of kind %d", *p, v->kind);
        if (*p == ':') CHECK(v->number == strtoll(p + 1, NULL, 10), "the number %lld", (long long)v->number);
        CHECK(!ka_resp_next(&rest, &element), "it has no elements");
        return;
    case '$':
        CHECK(v->kind == KA_RESP_STRING ? v->text.p == p + at && v->text.n == n - at - 2 : v->kind == KA_RESP_NIL && v->text.n == 0 && v->number == -1 && at == n, "kind %d, %d bytes", v->kind, (int)v->text.n);
        CHECK(!ka_resp_next(&rest, &element), "it has no elements");
        return;
    default:
        if (v->kind == KA_RESP_NIL) {
            CHECK(v->number == -1 && at == n && !ka_resp_next(&rest, &element), "an array that is none");
            return;
        }
        CHECK(v->kind == KA_RESP_ARRAY && v->text.p == p + at && v->text.n == n - at, "kind %d, %d bytes of elements", v->kind, (int)v->text.n);
        CHECK(v->number == strtoll(p + 1, NULL, 10), "%lld elements", (long long)v->number);
    }
    for (int64_t i = 0; i < v->number; i++) {
        size_t from = at;
        CHECK(ka_resp_next(&rest, &element) && plain_resp(p, n, &at) == KA_OK, "element %lld of %lld", (long long)i, (long long)v->number);
        CHECK(rest.text.p == p + at && rest.text.n == n - at && rest.number == v->number - i - 1, "what is behind element %lld", (long long)i);
        resp_check(&element, p + from, at - from);
    }
    CHECK(at == n && !ka_resp_next(&rest, &element) && rest.text.n == 0, "elements behind the last one");
}

/* Read as one value, from a block of its own. */
static bool resp_is_whole(const char *p, size_t n, bool deep)
{
    ka_resp v;
    char *in = exact(p, n);
    int r = ka_resp_read(&v, (ka_str){ in, n });
    CHECK(r == KA_OK ? v.kind > 0 : r == KA_ESYNTAX && v.kind == 0, "%d, of kind %d", r, v.kind);
    if (r == KA_OK && deep) resp_check(&v, in, n);
    exact_free(in, n);
    return r == KA_OK;
}

/* As the framing reads it, which goes on where it stopped. KA_OK: *end. */
static int resp_in_pieces(const char *p, size_t n, size_t piece, size_t *end)
{
    ka__resp_cut cut = { 0, 0 };
    for (size_t at = 0; ; ) {
        at = n - at < piece ? n : at + piece;
        char *in = exact(p, at);
        ptrdiff_t r = ka__resp_find(&cut, in, at);
        exact_free(in, at);
        if (r != KA_EAGAIN || at == n) return r >= 0 ? *end = (size_t)r, KA_OK : (int)r;
    }
}

/* Arguments are written as an array of strings, in just that room, and read back; no cut of it is whole. */
static void resp_arguments(const char *p, size_t n)
{
    enum { ARGS = 12 };
    ka_str args[ARGS];
    size_t args_n = 0;
    for (input in = { p, n }; in.n > 0 && args_n < ARGS; args_n++) {
        size_t size = next_byte(&in) % 64;
        if (size > in.n) size = in.n;
        args[args_n] = (ka_str){ in.p, size };
        in.p += size;
        in.n -= size;
    }
    char *room = malloc(n + 32 + 16 * ARGS), *text;
    if (!room) abort();
    ptrdiff_t size = ka_resp_command(room, n + 32 + 16 * ARGS, args, args_n);
    CHECK(size > 0, "a command of %d arguments: %d", (int)args_n, (int)size);
    for (size_t less = size < 40 ? 0 : (size_t)size - 20; less <= (size_t)size; less++) {
        text = exact(room, less);
        CHECK(ka_resp_command(text, less, args, args_n) == (less < (size_t)size ? KA_ENOSPC : size) && memcmp(text, room, less < (size_t)size ? 0 : less) == 0, "%d bytes in %d", (int)size, (int)less);
        CHECK(resp_is_whole(room, less, true) == (less == (size_t)size), "a command's %d bytes of %d", (int)less, (int)size);
        exact_free(text, less);
    }
    ka_resp v, arg;
    CHECK(ka_resp_read(&v, (ka_str){ room, (size_t)size }) == KA_OK && v.kind == KA_RESP_ARRAY && v.number == (int64_t)args_n, "a command of %d arguments", (int)args_n);
    for (size_t i = 0; i < args_n; i++)
        CHECK(ka_resp_next(&v, &arg) && arg.kind == KA_RESP_STRING && arg.text.n == args[i].n && memcmp(arg.text.p, args[i].p, arg.text.n) == 0, "argument %d", (int)i);
    free(room);
}

static void target_resp(const char *p, size_t n)
{
    size_t end = 0, found = 0;
    int want = plain_resp(p, n, &end);
    uint64_t h = hash(p, n);
    for (int i = 0; i < 3; i++) {
        size_t piece = i == 0 ? n + 1 : i == 1 ? 1 : 2 + (size_t)h % 50;
        int r = resp_in_pieces(p, n, piece, &found);
        CHECK(r == want && (r < 0 || found == end), "by %d: %d and %d bytes, want %d and %d", (int)piece, r, (int)found, want, (int)end);
    }
    CHECK(resp_is_whole(p, n, true) == (want == KA_OK && end == n), "the framing says %d, and %d of %d bytes", want, (int)end, (int)n);
    if (want == KA_OK) CHECK(resp_is_whole(p, end, true) && !resp_is_whole(p, end - 1, false), "a value of %d bytes", (int)end);
    ka_resp rest = { KA_RESP_ARRAY, { p, n }, INT64_MAX }, element;      /* an array of any bytes */
    for (size_t at = 0, from = 0; ; from = at) {
        int r = plain_resp(p, n, &at);
        CHECK(ka_resp_next(&rest, &element) == (r == KA_OK), "the value at %d: %d", (int)from, r);
        if (r < 0) break;
        CHECK(rest.text.p == p + at && rest.text.n == n - at, "what is behind %d", (int)at);
    }
    resp_arguments(p, n);
}

/* ---- heads ---- */

/* A field that decides on framing, by the plainest reading there is. */
typedef struct { int hosts, lengths, codings; long long length; bool close, keep, expects; } plain_fields;

static bool plain_has(const char *p, size_t n, const char *member)      /* a list with this member */
{
    size_t m = strlen(member);
    for (size_t i = 0; i < n; ) {
        while (i < n && strchr(" \t,", p[i]) && p[i]) i++;
        size_t from = i;
        while (i < n && p[i] != ',') i++;
        size_t to = i;
        while (to > from && (p[to - 1] == ' ' || p[to - 1] == '\t')) to--;
        if (to - from == m && strncasecmp(p + from, member, m) == 0) return true;
    }
    return false;
}

static plain_fields plain_read(const char *p, size_t n)
{
    plain_fields f = { .length = -1 };
    const char *line = p, *end = p + n;
    for (int lines = 0; line < end; lines++) {
        const char *next = memmem(line, (size_t)(end - line), "\r\n", 2);
        CHECK(next, "a head without a last line");
        size_t size = (size_t)(next - line);
        for (size_t i = 0; i < size; i++) CHECK(line[i] != '\r' && line[i] != '\n' && line[i] != 0, "a bare CR, LF or NUL at %d", (int)(line + i - p));
        CHECK(size > 0 || next + 2 == end, "an empty line at %d of %d", (int)(line - p), (int)n);
        const char *colon = memchr(line, ':', size);
        if (lines > 0 && size > 0) {
            CHECK(colon && colon > line, "a field without a name");
            CHECK(*line != ' ' && *line != '\t' && colon[-1] != ' ' && colon[-1] != '\t', "a blank before a name or a colon");
            size_t name = (size_t)(colon - line);
            const char *v = colon + 1;
            size_t v_n = (size_t)(next - v);
            if (name == 4 && strncasecmp(line, "host", 4) == 0) f.hosts++;
            if (name == 14 && strncasecmp(line, "content-length", 14) == 0) {
                f.lengths++;
                f.length = strtoll(v, NULL, 10);      /* stops at the CR */
            }
            if (name == 17 && strncasecmp(line, "transfer-encoding", 17) == 0) f.codings++;
            if (name == 10 && strncasecmp(line, "connection", 10) == 0) {
                f.close = f.close || plain_has(v, v_n, "close");
                f.keep = f.keep || plain_has(v, v_n, "keep-alive");
            }
            if (name == 6 && strncasecmp(line, "expect", 6) == 0) f.expects = true;
        }
        line = next + 2;
    }
    return f;
}

static void check_head(const ka_http *h, const char *p, size_t n, bool request)
{
    CHECK(n >= 4 && n <= KA_MAX_HEAD && memcmp(p + n - 4, "\r\n\r\n", 4) == 0, "a head of %d bytes", (int)n);
    plain_fields f = plain_read(p, n);
    CHECK(f.lengths <= 1 && f.length == h->length, "length %lld, want %lld", (long long)h->length, f.length);
    CHECK((f.codings > 0) == h->chunked && (!h->chunked || f.lengths == 0), "chunked %d, %d codings, %d lengths", h->chunked, f.codings, f.lengths);
    CHECK(h->minor == 0 || h->minor == 1, "minor %d", h->minor);
    CHECK(!h->chunked || h->minor == 1, "chunked in 1.0");
    CHECK(h->keep_alive == (!f.close && (h->minor || f.keep)), "keep_alive %d", h->keep_alive);
    if (!request) {
        CHECK(h->status >= 100 && h->status <= 599 && atoi(p + 9) == h->status, "status %d", h->status);
        return;
    }
    CHECK(f.hosts <= 1 && f.hosts >= h->minor, "%d hosts in 1.%d", f.hosts, h->minor);
    CHECK(h->expects == (f.expects && h->minor), "expects %d", h->expects);
    CHECK(h->status == 0 && h->method.p == p && h->method.n > 0 && p[h->method.n] == ' ', "method of %d", (int)h->method.n);
    const char *line = memchr(p, '\r', n);
    const char *end = line - 9;      /* " HTTP/1.x" */
    CHECK(memcmp(end, " HTTP/1.", 8) == 0 && (end[8] > '0') == h->minor, "a version");
    if (h->target.p + h->target.n != end) CHECK(ka_is(h->target, "/"), "a target of %d bytes", (int)h->target.n);
    for (size_t i = 0; i < h->target.n; i++) CHECK(h->target.p[i] > ' ' && h->target.p[i] < 0x7f && h->target.p[i] != '#', "a byte of the target");
}

/* The one line of this name, without the white space; {NULL, 0}: there are none, or several. */
static ka_str plain_field(const char *p, size_t n, const char *name)
{
    ka_str found = { NULL, 0 };
    size_t m = strlen(name);
    int lines = 0;
    for (const char *line = p, *end = p + n, *next; line < end; line = next + 2) {
        next = memmem(line, (size_t)(end - line), "\r\n", 2);
        CHECK(next, "a line without its end");
        if ((size_t)(next - line) <= m || strncasecmp(line, name, m) != 0 || line[m] != ':') continue;
        const char *from = line + m + 1, *to = next;
        while (from < to && (*from == ' ' || *from == '\t')) from++;
        while (from < to && (to[-1] == ' ' || to[-1] == '\t')) to--;
        found = (ka_str){ from, (size_t)(to - from) };
        lines++;
    }
    return lines == 1 ? found : (ka_str){ NULL, 0 };
}

/* A head's field lines are all between its first line and its empty one; each name is found, or is there twice. */
static void check_fields(const ka_http *h, const char *p, size_t n)
{
    const char *first = memmem(p, n, "\r\n", 2);
    CHECK(first && h->fields.p == first + 2 && h->fields.n == n - (size_t)(first + 4 - p), "%d bytes of fields in %d", (int)h->fields.n, (int)n);
    char *lines = exact(h->fields.p, h->fields.n), name[KA_MAX_HEAD];
    const ka_str fields = { lines, h->fields.n };
    for (const char *line = lines, *end = lines + fields.n; line < end; line = (const char *)memmem(line, (size_t)(end - line), "\r\n", 2) + 2) {
        const char *colon = memchr(line, ':', (size_t)(end - line));
        size_t size = colon ? (size_t)(colon - line) : 0;
        CHECK(size > 0 && size + 1 < sizeof name, "a line without a name");
        for (size_t i = 0; i < size; i++) {      /* in another case */
            bool letter = (line[i] | 32) >= 'a' && (line[i] | 32) <= 'z';
            name[i] = (char)(line[i] ^ (letter && i % 3 == 0 ? 32 : 0));
        }
        name[size] = 'x';
        for (size_t cut = size + 2; cut-- > size - 1; ) {      /* with an x behind it, itself, and cut short */
            name[cut] = 0;
            ka_str want = plain_field(lines, fields.n, name), got = ka_field(fields, name);
            CHECK(got.n == want.n && (got.n > 0 ? got.p == want.p : !got.p == !want.p), "%s: %d bytes, want %d", name, (int)got.n, (int)want.n);
        }
    }
    CHECK(!ka_field(fields, "").p && !ka_field((ka_str){ NULL, 0 }, "a").p, "no name, and no fields");
    exact_free(lines, fields.n);
}

static bool same_str(ka_str a, ka_str b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }

static bool same_head(const ka_http *a, const ka_http *b)
{
    return same_str(a->method, b->method) && same_str(a->target, b->target) && a->status == b->status && a->minor == b->minor &&
           a->length == b->length && a->chunked == b->chunked && a->keep_alive == b->keep_alive && a->expects == b->expects;
}

/* Any cut of a head is incomplete, or refused as the whole is; what follows a head doesn't change it. */
static void check_cuts(ptrdiff_t (*parse)(ka_http *, const char *, size_t), bool request, const ka_http *whole, ptrdiff_t r, const char *p, size_t n)
{
    uint64_t h = hash(p, n);
    size_t cuts = n <= 40 ? n : 40, refused_at = n + 1, accepted_at = r >= 0 ? (size_t)r : n + 1;
    for (size_t i = 0; i < cuts; i++, h = h * 6364136223846793005u + 1442695040888963407u) {
        size_t cut = n <= 40 ? i : (size_t)(h >> 33) % n;
        if (r > 0 && i < 2 && n > 40) cut = (size_t)r - i;      /* right at its end, and one before */
        ka_http part;
        char *in = exact(p, cut);
        ptrdiff_t got = parse(&part, in, cut);
        if (r == KA_ESYNTAX && got == KA_ESYNTAX) {
            CHECK(!request || part.status == whole->status, "cut at %d: refused with %d, the whole with %d", (int)cut, part.status, whole->status);
            if (cut < refused_at) refused_at = cut;
        } else {
            CHECK(got == (cut < accepted_at ? KA_EAGAIN : r), "cut at %d of %d: got %d, the whole %d", (int)cut, (int)n, (int)got, (int)r);
            if (got >= 0) CHECK(same_head(&part, whole), "cut at %d: another head", (int)cut);
        }
        exact_free(in, cut);
    }
    for (size_t i = 1; r == KA_ESYNTAX && refused_at + i <= n && i < 8; i++) {      /* who has refused doesn't change his mind */
        ka_http part;
        char *in = exact(p, refused_at + i);
        ptrdiff_t got = parse(&part, in, refused_at + i);
        CHECK(got == KA_ESYNTAX && part.status == (request ? whole->status : part.status), "refused at %d, but not at %d", (int)refused_at, (int)(refused_at + i));
        exact_free(in, refused_at + i);
    }
}

static void target_request(const char *p, size_t n)
{
    ka_http h, again;
    ptrdiff_t r = ka_http_request(&h, p, n);
    CHECK(r == KA_EAGAIN || r == KA_ESYNTAX || (r > 0 && (size_t)r <= n), "got %d of %d", (int)r, (int)n);
    CHECK(r != KA_EAGAIN || n < KA_MAX_HEAD, "still incomplete with %d bytes", (int)n);
    if (r == KA_ESYNTAX) CHECK(strstr("400 414 417 431 501 505", (char[]){ (char)('0' + h.status / 100), (char)('0' + h.status / 10 % 10), (char)('0' + h.status % 10), 0 }), "status %d", h.status);
    check_cuts(ka_http_request, true, &h, r, p, n);
    if (r < 0) return;
    check_head(&h, p, (size_t)r, true);
    check_fields(&h, p, (size_t)r);
    if (h.target.p[0] == '?') return;      /* http://a?b: the part after the authority is no target by itself */
    bytes text = { 0 };      /* written anew it says the same */
    char length[64];
    snprintf(length, sizeof length, "content-LENGTH:%lld\r\n", (long long)h.length);
    append(&text, h.method.p, h.method.n);
    append_text(&text, " ");
    append(&text, h.target.p, h.target.n);
    append_text(&text, h.minor ? " HTTP/1.1\r\nhost: \t\r\n" : " HTTP/1.0\r\n");
    if (h.length >= 0) append_text(&text, length);
    if (h.chunked) append_text(&text, "Transfer-encoding:chunked \r\n");
    if (h.expects) append_text(&text, "EXPECT: 100-CONTINUE\r\n");
    append_text(&text, h.keep_alive ? "Connection: a, Keep-Alive\r\n\r\n" : "Connection: CLOSE\r\n\r\n");
    ptrdiff_t r2 = text.n <= KA_MAX_HEAD ? ka_http_request(&again, text.p, text.n) : 0;
    if (text.n <= KA_MAX_HEAD) CHECK(r2 == (ptrdiff_t)text.n && same_head(&h, &again), "written anew: %d of %d: %.*s", (int)r2, (int)text.n, (int)text.n, text.p);
    release(&text);
}

/* ---- chunked bodies ---- */

typedef struct { int error; bool done; size_t used; bytes out; } decoded;

static decoded decode(const char *p, size_t n, uint32_t room, size_t cut)
{
    decoded d = { 0 };
    ka_chunked state = { .room = room };
    for (size_t at = 0, used = 0; at < n && !state.done; at += used) {
        size_t part = n - at < cut ? n - at : cut;
        char *piece = exact(p + at, part);
        ptrdiff_t got = ka_chunked_decode(&state, piece, part, &used);
        if (got < 0) d.error = (int)got;
        else {
            CHECK((size_t)got <= used && used <= part && (state.done || used == part), "%d of %d, %d bytes", (int)used, (int)part, (int)got);
            append(&d.out, piece, (size_t)got);
            d.used += used;
        }
        exact_free(piece, part);
        if (got < 0) break;
    }
    d.done = state.done && !d.error;      /* the byte that completes it may be the one too many */
    if (!d.error) CHECK(d.out.n + state.room == room, "%d bytes, room for %d of %d", (int)d.out.n, (int)state.room, (int)room);
    return d;
}

/* By lines: a size, what may follow it, that many bytes, and so on. Only for what the decoder took. */
static void plain_chunks(const char *p, size_t n, bytes *out)
{
    for (size_t at = 0; ; ) {
        const char *line = p + at, *end = memmem(line, n - at, "\r\n", 2);
        CHECK(end && end - line <= KA_MAX_CHUNK_LINE, "a chunk's line at %d", (int)at);
        size_t digits = strspn(line, "0123456789abcdefABCDEF"), size = strtoul(line, NULL, 16);      /* stops at the CR */
        CHECK(digits > 0 && strchr("\r; \t", line[digits]), "a size at %d", (int)at);
        for (const char *c = line; c < end; c++) CHECK((unsigned char)*c >= ' ' || *c == '\t', "a control character at %d", (int)(c - p));
        at += (size_t)(end - line) + 2;
        if (size == 0) {
            for (;;) {      /* trailers */
                line = p + at;
                end = memmem(line, n - at, "\r\n", 2);
                CHECK(end, "a trailer at %d", (int)at);
                at += (size_t)(end - line) + 2;
                if (end == line) break;
                CHECK(memchr(line, ':', (size_t)(end - line)), "a trailer without a colon");
                CHECK(*line != ':' && !memchr(line, '\n', (size_t)(end - line)), "a trailer at %d", (int)at);
            }
            CHECK(at == n, "took %d, ends at %d", (int)n, (int)at);
            return;
        }
        CHECK(size <= n - at, "%d bytes at %d", (int)size, (int)at);
        append(out, p + at, size);
        at += size;
        CHECK(n - at >= 2 && memcmp(p + at, "\r\n", 2) == 0, "no end of the data at %d", (int)at);
        at += 2;
    }
}

static void target_chunked(const char *p, size_t n)
{
    static const char *const extensions[] = { "", ";a", ";a=b", " ; a = \"\\\"\"", ";a;b=\"c d\"", "\t;x" };
    uint32_t room = n && (p[0] & 8) ? 40 : KA_MAX_BODY;
    decoded whole = decode(p, n, room, SIZE_MAX);
    CHECK(whole.error == 0 || whole.error == KA_ESYNTAX || whole.error == KA_ENOSPC, "got %d", whole.error);
    uint64_t h = hash(p, n);
    for (int i = 0; i < 4; i++) {
        decoded pieces = decode(p, n, room, i == 0 ? 1 : 2 + (size_t)(h >> (8 * i)) % 30);
        CHECK(pieces.error == whole.error && pieces.done == whole.done, "in pieces: %d, whole: %d", pieces.error, whole.error);
        if (!whole.error) CHECK(pieces.used == whole.used && pieces.out.n == whole.out.n && (whole.out.n == 0 || memcmp(pieces.out.p, whole.out.p, whole.out.n) == 0),
                                "in pieces %d bytes of %d, whole %d of %d", (int)pieces.out.n, (int)pieces.used, (int)whole.out.n, (int)whole.used);
        release(&pieces.out);
    }
    for (int i = 0; n > 0 && i < 8; i++) {
        size_t cut = (size_t)(h >> (7 * i)) % n;
        decoded part = decode(p, cut, room, SIZE_MAX);
        CHECK(part.done == (whole.done && cut >= whole.used), "cut at %d of %d: done %d", (int)cut, (int)n, part.done);
        CHECK(part.error == 0 || part.error == whole.error, "cut at %d: %d, whole %d", (int)cut, part.error, whole.error);
        release(&part.out);
    }
    if (whole.done) {
        bytes out = { 0 };
        plain_chunks(p, whole.used, &out);
        CHECK(out.n == whole.out.n && (out.n == 0 || memcmp(out.p, whole.out.p, out.n) == 0), "other bytes");
        release(&out);
    }
    release(&whole.out);

    bytes text = { 0 };      /* there and back */
    size_t size = n < KA_MAX_BODY ? n : KA_MAX_BODY;
    for (size_t at = 0, part; at < size; at += part, h = h >> 9 | h << 55) {
        char line[64];
        part = 1 + (size_t)h % 40;
        if (part > size - at) part = size - at;
        snprintf(line, sizeof line, h & 64 ? "%zx%s\r\n" : "%04zX%s\r\n", part, extensions[h % 6]);
        append_text(&text, line);
        append(&text, p + at, part);
        append_text(&text, "\r\n");
    }
    append_text(&text, h & 1 ? "0\r\n\r\n" : "00;z\r\nA: b\r\nc:\r\n\r\n");
    size_t whole_n = text.n;
    append_text(&text, "more");
    decoded back = decode(text.p, text.n, (uint32_t)size, 1 + (size_t)h % 97);
    CHECK(back.done && back.used == whole_n && back.out.n == size && (size == 0 || memcmp(back.out.p, p, size) == 0), "error %d, %d of %d bytes", back.error, (int)back.out.n, (int)size);
    release(&back.out);
    if (size) {
        back = decode(text.p, text.n, (uint32_t)size - 1, 1 + (size_t)h % 97);
        CHECK(back.error == KA_ENOSPC, "one byte short of room: %d", back.error);
        release(&back.out);
    }
    release(&text);
}

/* ---- responses, by the parser and by the client ---- */

typedef struct { int status, error, taken, ended; size_t n; uint64_t body; } reading;

/* Have the client post, and answer it with n bytes in pieces, then with the end if `end`. */
static reading read_answer(const char *p, size_t n, size_t cut, bool end)
{
    ka_client c = { .ip = "127.0.0.1", .port = 9, .give_up_ms = 50 };
    ka_str answer = { NULL, 0 };
    sim_begin();
    peer *s = sim_peer(0);
    s->cut = cut;
    s->fin = end;
    append(&s->to_server, p, n);
    reading r = { .status = ka_client_post(&c, "a=b", 3, &answer) };
    CHECK(r.status == KA_EOFFLINE || r.status == KA_EPROTO || (r.status >= 200 && r.status <= 599), "got %d", r.status);
    CHECK(answer.n <= KA_MAX_HEAD + KA_MAX_BODY, "an answer of %d bytes", (int)answer.n);
    r.taken = (int)s->received;
    if (r.status >= 200) {
        CHECK((answer.p >= c.buf && answer.p + answer.n <= c.buf + sizeof c.buf), "not in the buffer");
        r.n = answer.n;
        r.body = hash(answer.p, answer.n);
        r.ended = !c.open;
    }
    CHECK(strncmp(s->from_server.p, "POST / HTTP/1.1\r\nHost: 127.0.0.1:9\r\n", 36) == 0, "another request");
    ka_client_close(&c);
    sim_end();
    return r;
}

static void target_response(const char *p, size_t n)
{
    ka_http h;
    ptrdiff_t r = ka_http_response(&h, p, n);
    CHECK(r == KA_EAGAIN || r == KA_ESYNTAX || (r > 0 && (size_t)r <= n), "got %d of %d", (int)r, (int)n);
    check_cuts(ka_http_response, false, &h, r, p, n);
    if (r > 0) check_head(&h, p, (size_t)r, false);
    if (r > 0) check_fields(&h, p, (size_t)r);

    reading whole = read_answer(p, n, SIZE_MAX, true);
    for (size_t at = 0; whole.status > 0; at += (size_t)r) {      /* it took one whole body, behind the interim answers */
        r = ka_http_response(&h, p + at, n - at);
        CHECK(r > 0, "took a head that is none");
        if (h.status < 200) continue;
        size_t left = n - at - (size_t)r, want = h.length >= 0 ? (size_t)h.length : left;
        if (h.status == 204 || h.status == 304) want = 0;
        else if (h.chunked) {
            decoded d = decode(p + n - left, left, KA_MAX_BODY, SIZE_MAX);
            CHECK(d.done && d.used == left && hash(d.out.p, d.out.n) == whole.body, "another body");
            want = d.out.n;
            release(&d.out);
        } else CHECK(want == left && hash(p + n - left, left) == whole.body, "a body of %d, with a length of %d", (int)left, (int)want);
        CHECK(whole.status == h.status && whole.n == want, "%d with %d bytes, want %d with %d", whole.status, (int)whole.n, h.status, (int)want);
        break;
    }
    for (int i = 0; i < 3; i++) {      /* what it takes in pieces is what it takes of those at once */
        size_t cut = i == 0 ? 1 : 2 + (size_t)(hash(p, n) >> (8 * i)) % 60;
        reading pieces = read_answer(p, n, cut, true), same = read_answer(p, (size_t)pieces.taken, SIZE_MAX, true);
        CHECK(pieces.status == same.status && pieces.n == same.n && pieces.body == same.body && pieces.ended == same.ended,
              "by %d: %d with %d bytes, at once: %d with %d", (int)cut, pieces.status, (int)pieces.n, same.status, (int)same.n);
        /* and of more bytes at once it takes the same, or refuses what follows an answer */
        CHECK((whole.status == pieces.status && whole.n == pieces.n && whole.body == pieces.body) || (whole.status == KA_EPROTO && (size_t)pieces.taken < n),
              "by %d: %d with %d bytes, all at once: %d with %d", (int)cut, pieces.status, (int)pieces.n, whole.status, (int)whole.n);
    }
    reading open = read_answer(p, n, SIZE_MAX, false);      /* never ending: late, or the same */
    CHECK(open.status == whole.status ? open.n == whole.n && open.body == whole.body : open.status == KA_EOFFLINE, "without an end: %d, with: %d", open.status, whole.status);
}

/* ---- the journal ----
   The input first builds a file, frame by frame or of any bytes, and damages it; then come keys, failing calls, power
   cuts. Each file is read here a second time, as plainly as can be, and that must be what ka_journal_open finds.
   Each key that was given must be there from then on; no other may be, but one that was refused. */

typedef struct { const unsigned char *digest; const char *id; size_t id_n; uint64_t end; } entry;      /* end: PLAIN_NEVER */
#define PLAIN_NEVER UINT64_MAX

enum { ENTRIES = 4096, PLAIN_FRAME = 12 + 256 * (42 + KA_MAX_ID), BUILT = 100000, KNOWN = 1024, WORKER_BOX = 1 << 17 };
typedef struct {
    bytes   text;
    entry   e[ENTRIES];               /* the living */
    size_t  n, all;
    bool    stale;                    /* it will be written anew: it has others */
    int64_t cut_at, cut, damaged_at, damaged, hole;      /* hole: what is damaged at damaged_at */
    int     result;
} journal_text;

typedef struct { unsigned char digest[32]; char id[KA_MAX_ID]; size_t id_n; uint64_t low, high; bool given; } known;

static struct {
    ka_keyring keys;
    bool       open, salvage, mixed;      /* mixed: a commit was made while answers were held: theirs too */
    int64_t    ttl_s, opened_ms, opened_wall_ms, wall_steps_ms;      /* steps: while it is closed */
    size_t     max_keys, known_n;
    known      known[KNOWN];
    journal_text    before, after;
    ka_server  server;
    ka__worker worker;
} jt;

static uint64_t plain_le(const void *p, int n)
{
    uint64_t v = 0;
    for (int i = n; i-- > 0; ) v = v << 8 | ((const unsigned char *)p)[i];
    return v;
}

static void put_le(void *p, int n, uint64_t v)
{
    for (int i = 0; i < n; i++, v >>= 8) ((unsigned char *)p)[i] = (unsigned char)v;
}

static uint32_t plain_crc(const unsigned char *p, size_t n)
{
    static uint32_t table[256];
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; !table[255] && i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78 : 0);
    }
    while (n-- > 0) crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
    return ~crc;
}

/* The bytes of the good frame that begins here; 0: none does. */
static size_t plain_frame(const unsigned char *p, size_t n)
{
    if (n < 12 || memcmp(p, "\xf5ka\1", 4) != 0) return 0;
    size_t size = plain_le(p + 8, 4), id;
    if (size > n - 12 || size + 12 > PLAIN_FRAME || plain_crc(p + 8, size + 4) != plain_le(p + 4, 4)) return 0;
    p += 12;
    for (size_t at = 0; at < size; at += 42 + id) {
        if (size - at < 42) return 0;
        id = plain_le(p + at, 2);
        if (id < 1 || id > KA_MAX_ID || id > size - at - 42) return 0;
    }
    return size + 12;
}

static void read_frame(journal_text *r, const unsigned char *p, size_t n)
{
    uint64_t now_s = (uint64_t)(wall_ms() / 1000), last = jt.ttl_s ? now_s + (uint64_t)jt.ttl_s + 1 : PLAIN_NEVER;
    for (size_t at = 12, i; at < n; at += 42 + plain_le(p + at, 2)) {
        entry e = { p + at + 10, (const char *)p + at + 42, plain_le(p + at, 2), plain_le(p + at + 2, 8) };
        CHECK(r->n < ENTRIES, "too many keys");
        r->all++;
        if (e.end && e.end <= now_s) continue;
        for (i = 0; i < r->n && memcmp(r->e[i].digest, e.digest, 32); i++) {}
        if (i < r->n) continue;
        if (e.end == 0) e.end = PLAIN_NEVER;
        else if (!jt.ttl_s && e.end - now_s > UINT32_MAX) r->stale = true;      /* the keyring's clock ends */
        if (e.end - now_s >= UINT32_MAX) e.end = PLAIN_NEVER;
        if (e.end > last) {
            e.end = last;
            r->stale = true;
        }
        r->e[r->n++] = e;
    }
}

/* What is in a file, and what has to become of it. */
static void read_file(journal_text *r, const sim_file *f)
{
    size_t size = f ? f->n : 0, at = 0, next, n = 0;
    r->text.n = r->n = r->all = 0;
    r->stale = false;
    r->cut = r->damaged_at = r->damaged = r->hole = 0;
    append(&r->text, f ? f->now.p : NULL, size);
    const unsigned char *p = (const unsigned char *)r->text.p;
    for (; at < size; at = next + n) {
        for (next = at; next < size && !(n = plain_frame(p + next, size - next)); next++) {}
        if (next == size && (at == 0 || size - at <= PLAIN_FRAME)) break;
        if (next > at && !r->damaged) {
            r->damaged_at = (int64_t)at;
            r->hole = (int64_t)(next - at);
        }
        r->damaged += (int64_t)(next - at);
        if (next == size) n = 0;
        else read_frame(r, p + next, n);
    }
    r->cut_at = (int64_t)at;
    r->cut = (int64_t)(size - at);
    r->stale = r->stale || r->all != r->n;
    r->result = at == 0 && size > 0 ? KA_ESYNTAX : r->damaged && !jt.salvage ? KA_EDAMAGED : KA_OK;
    if (r->result == KA_OK && r->damaged && file_named(DAMAGED) && file_named(DAMAGED) != f) r->result = KA_EINUSE;
}

static bool same_entry(const entry *a, const entry *b)
{
    return memcmp(a->digest, b->digest, 32) == 0 && a->end == b->end && same_str((ka_str){ a->id, a->id_n }, (ka_str){ b->id, b->id_n });
}

static bool same_entries(const journal_text *a, const journal_text *b)
{
    for (size_t i = 0; i < a->n && i < b->n; i++)
        if (!same_entry(&a->e[i], &b->e[i])) return false;
    return a->n == b->n;
}

static bool same_bytes(const sim_file *f, const bytes *b, size_t n)
{
    return f && f->n == n && (n == 0 || memcmp(f->now.p, b->p, n) == 0);
}

/* Are the keys of a file in the keyring, in its order, and no others? */
static void keyring_check(const ka_keyring *k, const journal_text *r)
{
    uint32_t segment = k->front, at = k->front_at;
    size_t i = 0;
    for (const ka__key *key; (key = ka__key_next(k, &segment, &at)) != NULL; i++) {
        ka_str id = ka__key_id(key);
        entry e = { key->digest, id.p, id.n, key->expires_s == UINT32_MAX ? PLAIN_NEVER : (uint64_t)(wall_ms() / 1000) + key->expires_s };
        CHECK(i < r->n && same_entry(&e, &r->e[i]), "key %d of %d is another", (int)i, (int)r->n);
        const struct ka__shard *s = ka__shard_of(k, key->digest);
        uint64_t slot = s->slots[ka__slot_find(k, s, key->digest)];
        CHECK(slot && ka__key_at(k, (uint32_t)slot) == key, "key %d is not found", (int)i);
    }
    CHECK(i == r->n && k->count == i, "%d keys, %d counted, want %d", (int)i, (int)k->count, (int)r->n);
}

/* The file after it was opened: fit to be appended to, on disk, and the same keys in it. */
static void opened_check(const journal_text *r, const ka_journal_report *report, bool failed)
{
    const sim_file *f = file_named(JOURNAL);
    CHECK(report->cut_at == r->cut_at && report->cut == r->cut, "cut %d at %d, want %d at %d", (int)report->cut, (int)report->cut_at, (int)r->cut, (int)r->cut_at);
    CHECK(report->damaged_at == r->damaged_at && report->damaged == r->damaged, "%d damaged at %d, want %d at %d", (int)report->damaged, (int)report->damaged_at, (int)r->damaged, (int)r->damaged_at);
    keyring_check(&jt.keys, r);
    CHECK(file_durable(), "open, but not on disk");
    read_file(&jt.after, f);
    CHECK(jt.after.damaged == 0 && jt.after.cut == 0 && jt.after.cut_at > 0 && same_entries(r, &jt.after), "not what was read: %d keys, want %d", (int)jt.after.n, (int)r->n);
    if (r->damaged) CHECK(same_bytes(file_named(DAMAGED), &r->text, r->text.n), "the damaged file was not kept as it was");
    if (failed) return;
    CHECK(jt.keys.journal->size == (int64_t)f->n && jt.keys.journal->keys == jt.after.all, "%d bytes, %d keys", (int)jt.keys.journal->size, (int)jt.keys.journal->keys);
    if (r->stale || r->damaged) CHECK(!jt.after.stale && !file_named(FRESH), "not written anew");
    else if (r->cut_at) CHECK(same_bytes(f, &r->text, (size_t)r->cut_at), "its good frames were changed");
}

static known *known_find(const unsigned char *digest)
{
    for (size_t i = 0; i < jt.known_n; i++)
        if (memcmp(jt.known[i].digest, digest, 32) == 0) return &jt.known[i];
    return NULL;
}

static known *known_add(const unsigned char *digest, const char *id, size_t n, uint64_t end)
{
    CHECK(jt.known_n < KNOWN, "too many keys");
    known *k = &jt.known[jt.known_n++];
    memcpy(k->digest, digest, 32);
    memcpy(k->id, id, k->id_n = n);
    k->low = k->high = end;
    k->given = false;
    return k;
}

/* Is every key there that was given, and none that was never made? What is there now will stay. */
static void known_check(const journal_text *r, bool failed)
{
    static bool found[KNOWN];
    uint64_t now_s = (uint64_t)(wall_ms() / 1000), last = jt.ttl_s ? now_s + (uint64_t)jt.ttl_s + 1 : PLAIN_NEVER;
    memset(found, 0, sizeof found);
    for (size_t i = 0; i < r->n; i++) {
        const entry *e = &r->e[i];
        known *k = known_find(e->digest);
        CHECK(k, "a key that was never made");
        if (k->high > now_s && k->high - now_s >= UINT32_MAX) k->high = PLAIN_NEVER;
        CHECK(same_str((ka_str){ k->id, k->id_n }, (ka_str){ e->id, e->id_n }), "of another ID");
        CHECK(e->end <= k->high && (e->end >= k->low || e->end == last), "ends at another time");
        k->low = e->end;
        if (!failed) k->high = e->end;
        found[k - jt.known] = k->given = true;
    }
    for (size_t i = 0; i < jt.known_n; i++) {
        known *k = &jt.known[i];
        if (k->low <= now_s) k->given = false;
        CHECK(found[i] || !k->given, "a key was lost: %.*s", (int)k->id_n, k->id);
    }
}

static uint64_t keyring_now_s(void) { return (uint64_t)((jt.opened_wall_ms + clock_ms - jt.opened_ms) / 1000); }

static void journal_close(void)
{
    for (size_t i = 0; jt.open && i < jt.known_n; i++)      /* these may be left out when it is written anew */
        if (jt.known[i].low <= keyring_now_s()) jt.known[i].given = false;
    ka_keyring_free(&jt.keys);
    wall_ahead_ms += jt.wall_steps_ms;
    jt.wall_steps_ms = 0;
    jt.open = jt.mixed = false;
}

static bool systems(int r) { return r == KA_EOS || r == KA_EPERM || r == KA_ELIMIT || r == KA_ENOSPC || r == KA_ENOTFOUND; }

/* After an error: nothing is lost, and nothing was changed that could not be read. */
static void refused_check(const journal_text *r, int result)
{
    const sim_file *f = file_named(JOURNAL);
    bool same = f ? same_bytes(f, &r->text, r->text.n) : r->text.n == 0;
    bool ours = systems(result);
    CHECK(same || (ours && r->result == KA_OK), "%s, and the file was changed", ka_error_text(result));
    read_file(&jt.after, f);
    CHECK(same_entries(r, &jt.after), "%s, and other keys", ka_error_text(result));
    if (!same && r->damaged) CHECK(same_bytes(file_named(DAMAGED), &r->text, r->text.n), "%s, and the damaged file was not kept", ka_error_text(result));
}

/* Open what is there; true if that is done, as it must be when nothing fails and the file is whole. */
static bool journal_open_once(void)
{
    ka_journal_report report;
    unsigned failed = files.failed;
    read_file(&jt.before, file_named(JOURNAL));
    if (ka_keyring_init(&jt.keys, jt.max_keys, jt.ttl_s) < 0) {
        CHECK(blocks_failed, "no keyring");
        ka_keyring_free(&jt.keys);
        return false;
    }
    int r = ka_journal_open(&jt.keys, file_names[JOURNAL], jt.salvage, &report);
    bool fails = files.failed != failed || blocks_failed;
    if (r != jt.before.result) {
        CHECK(fails && r < 0, "got %s, want %s", ka_error_text(r), ka_error_text(jt.before.result));
        CHECK(r == KA_ENOMEM ? blocks_failed : files.failed != failed && systems(r), "got %s, want %s", ka_error_text(r), ka_error_text(jt.before.result));
    }
    if (r == KA_EDAMAGED) CHECK(report.damaged_at == jt.before.damaged_at && report.damaged == jt.before.hole, "%d damaged at %d", (int)report.damaged, (int)report.damaged_at);
    CHECK((report.os_error != 0) == systems(r), "%s with %d", ka_error_text(r), report.os_error);
    if (r < 0) {
        refused_check(&jt.before, r);
        ka_keyring_free(&jt.keys);
        return false;
    }
    opened_check(&jt.before, &report, fails);
    jt.opened_ms = clock_ms;
    jt.opened_wall_ms = wall_ms();
    return jt.open = true;
}

static bool journal_open(void)
{
    bool done = journal_open_once();
    if (!done && (files.failed || blocks_failed)) {      /* once more, in peace */
        files.fail_n = files.failed = 0;
        blocks_fail_in = -1;
        blocks_failed = false;
        names_now()->of[DAMAGED] = -1;
        done = journal_open_once();
    }
    if (!done) return false;
    if (!jt.known_n && !jt.server.workers_n)
        for (size_t i = 0; i < jt.before.n && i < KNOWN / 2; i++) known_add(jt.before.e[i].digest, jt.before.e[i].id, jt.before.e[i].id_n, jt.before.e[i].end)->given = true;
    if (jt.known_n < KNOWN / 2) known_check(&jt.before, files.failed != 0 || blocks_failed);
    jt.server.workers_n = 1;
    jt.server.workers[0] = &jt.worker;
    if (ka_journal_group(&jt.keys, &jt.server) < 0) abort();
    return true;
}

/* Again, with or without a power cut: never an error. */
static void journal_again(bool cut)
{
    journal_close();
    if (cut) power_cut();
    if (file_named(DAMAGED)) names_next()->of[DAMAGED] = -1;
    CHECK(journal_open() && jt.before.damaged == 0 && (cut || jt.before.result == KA_OK), "damaged %d at %d", (int)jt.before.damaged, (int)jt.before.damaged_at);
}

/* The key that will be made next. */
static void next_digest(unsigned char digest[32])
{
    unsigned char raw[KA_KEY_BYTES];
    const struct ka__pool *pool = jt.keys.pool;
    uint64_t at = random_at;
    random_at += pool ? (KA__POOL_KEYS - 1) * KA_KEY_BYTES : 0;
    if (!pool || pool->left == 0) sim_random(raw, sizeof raw);
    else memcpy(raw, pool->bytes + pool->left - KA_KEY_BYTES, sizeof raw);
    random_at = at;
    ka_sha256(digest, raw, sizeof raw);
}

/* A key was given: it can be found, and is on disk. */
static void given_check(const char *text, known *k)
{
    CHECK(file_durable() || jt.mixed, "given, but not on disk");
    ka_str id = ka_keyring_find(&jt.keys, (ka_str){ text, KA_KEY_TEXT }, clock_ms);
    CHECK(same_str(id, (ka_str){ k->id, k->id_n }) || k->low <= keyring_now_s(), "given, but found is %d bytes", (int)id.n);
    k->given = true;
}

/* The answers that were given. */
static void answers_read(void)
{
    ka__box_publish(&jt.worker.down);
    for (ka__record *r; (r = ka__box_next(&jt.worker.down)) != NULL; ka__box_take(&jt.worker.down, r)) {
        CHECK(r->kind == KA__REPLY && (r->status == 200 || r->status == 503) && r->seq < jt.known_n, "status %d to %d", r->status, (int)r->seq);
        known *k = &jt.known[r->seq];
        CHECK(!k->given, "answered twice");
        CHECK(r->status == 503 || r->n == KA_KEY_TEXT, "%d bytes", (int)r->n);
        if (r->status == 200) given_check(ka__payload(r), k);
    }
}

static void journal_batch_end(void)
{
    jt.server.at_batch_end(jt.server.at_batch_end_arg);
    answers_read();
    CHECK(jt.keys.journal->held_n == 0, "an answer is still held");
    jt.mixed = false;
}

/* Ask for a key: at once, or with the answer held back. Its place says which is meant. */
static void journal_ask(size_t id_n, bool held)
{
    char id[KA_MAX_ID + 1], body[KA_MAX_ID + 16], text[KA_MAX_ANSWER];
    unsigned char digest[32], then[32];
    size_t n = 0;
    if (jt.known_n >= KNOWN - 1) return;
    jt.mixed = jt.mixed || (!held && jt.keys.journal->held_n);
    for (size_t i = 0; i <= KA_MAX_ID; i++) id[i] = (char)('a' + (jt.known_n + i) % 26);
    ka_event ev = { .kind = KA_REQUEST, .method = { "POST", 4 }, .target = { "/", 1 }, .seq = (uint32_t)jt.known_n, .now_ms = clock_ms };
    ev.body = (ka_str){ body, (size_t)snprintf(body, sizeof body, "ask_key=%.*s", (int)id_n, id) };
    next_digest(digest);
    known *k = id_n && id_n <= KA_MAX_ID ? known_add(digest, id, id_n, jt.keys.ttl_s ? keyring_now_s() + (uint64_t)jt.keys.ttl_s + 1 : PLAIN_NEVER) : NULL;
    int r = held ? ka_auth_answer(&jt.keys, &ev, text, &n) : ka_keyring_issue(&jt.keys, (ka_str){ id, id_n }, clock_ms, text);
    if (!held) answers_read();      /* those that were held went first */
    if (!k) {
        CHECK(r == (held ? 400 : KA_EINVAL), "an ID of %d bytes: %d", (int)id_n, r);
        return;
    }
    next_digest(then);
    if (memcmp(digest, then, 32) == 0) {      /* none was made */
        CHECK(held ? r == 503 : r < 0, "%d without a key", r);
        jt.known_n--;
    } else if (!held && r == KA_OK) given_check(text, k);
    else if (!held) CHECK(!ka_keyring_find(&jt.keys, (ka_str){ text, KA_KEY_TEXT }, clock_ms).p && (jt.keys.journal_error == r || r == KA_ENOMEM), "refused with %s", ka_error_text(r));
    else {
        CHECK(r == 0, "%d", r);
        answers_read();      /* KA_BATCH of them don't wait */
    }
}

static void journal_rewrite(void)      /* as ka__journal_ready does when more than half is dead */
{
    int r = ka__journal_rewrite(&jt.keys, clock_ms);
    if (r < 0 && jt.keys.journal->broken) ka__journal_failed(&jt.keys, r);
    if (r == KA_OK) CHECK(file_durable() && !file_named(FRESH), "written anew");
}

static void journal_in_use(void)
{
    ka_keyring other;
    ka_journal_report report;
    unsigned failed = files.failed;
    if (jt.keys.journal->file == KA__NO_FILE || ka_keyring_init(&other, 0, 0) < 0) return;
    int r = ka_journal_open(&other, file_names[JOURNAL], jt.salvage, &report);
    CHECK(r == KA_EINUSE || (r < 0 && (files.failed != failed || blocks_failed)), "another one: %s", ka_error_text(r));
    ka_keyring_free(&other);
}

UNGUIDED_END

static void journal_happen(input *in)
{
    static const int codes[] = { EIO, ENOSPC, EACCES, EMFILE, EINTR }, sleeps[] = { 1, 999, 1000, 1001, 3000, 60000 };
    static const size_t most[] = { SIZE_MAX, 4096, 50, 7 };
    unsigned op = next_byte(in), arg = op >> 4;
    switch (op & 15) {
    case 0: case 1: journal_ask(1 + arg * 2, false); break;
    case 2: journal_ask(next_byte(in) % (KA_MAX_ID + 2), arg & 1); break;
    case 3: case 4:
        for (unsigned n = (op & 15) == 3 ? arg + 1 : arg * 18; n > 0; n--) journal_ask(4 + n % 8, true);
        break;
    case 5: case 6: journal_batch_end(); break;
    case 7: case 8:
        files.fail_in = next_byte(in) % 32;
        files.fail_n = (op & 15) == 7 ? 1 : 1 + arg;
        files.fail_code = codes[arg % 5];
        break;
    case 9: clock_ms += sleeps[arg % 6]; break;
    case 10:
        files.coins = next_byte(in) * 77u + arg;
        journal_again(true);
        break;
    case 11: journal_again(false); break;
    case 12: journal_rewrite(); break;
    case 13: files.most = most[arg % 4]; break;
    case 14:
        if (arg < 12) blocks_fail_in = (long)arg;
        else journal_in_use();
        break;
    default:      /* from the next time on */
        jt.ttl_s = arg & 3 ? (int64_t[]){ 1, 5, 100 }[(arg & 3) - 1] : 0;
        if (arg >> 2) jt.wall_steps_ms += (int64_t[]){ -5500, 500, 4000000 }[(arg >> 2) - 1];
    }
}

/* A frame; each of its keys is said by two bytes. */
static void build_frame(bytes *b, input *in, unsigned n, unsigned behind)
{
    static const int64_t ends[] = { 0, 3, 50, -5, 0, 1, 101, 4294967295 };      /* from now on */
    char head[12] = { (char)0xf5, 'k', 'a', 1 }, key[42 + 256];
    uint64_t now_s = (uint64_t)(wall_ms() / 1000);
    size_t from = b->n;
    append(b, head, 12);
    for (unsigned i = 0; i < n && b->n < BUILT; i++) {
        unsigned which = n < 100 ? next_byte(in) : i, size = n < 100 ? next_byte(in) : KA_MAX_ID, wrong = size / 128;
        memset(key, (int)('A' + which % 26), sizeof key);
        size = size % 128 % (KA_MAX_ID + 2);
        put_le(key, 2, size + wrong * (which & 1 ? 1 : 256));
        put_le(key + 2, 8, (which >> 5 & 7) == 0 ? 0 : which == 255 ? UINT64_MAX - 1 : now_s + (uint64_t)ends[which >> 5 & 7] + ((which >> 5 & 7) == 7 ? which & 3 : 0));
        memset(key + 10, (int)(n < 100 ? which & 31 : which), 32);
        append(b, key, 42 + size);
    }
    for (unsigned i = 0; i < behind; i++) append(b, key, 1);
    put_le(b->p + from + 8, 4, b->n - from - 12);
    put_le(b->p + from + 4, 4, plain_crc((unsigned char *)b->p + from + 8, b->n - from - 8));
}

static void build_part(bytes *b, input *in, size_t *last)
{
    unsigned op = next_byte(in), arg = op >> 4;
    size_t at, n;
    switch (op & 15) {
    case 0: case 1: case 2: case 3:
        *last = b->n;
        build_frame(b, in, (op & 15) == 3 ? 0 : arg & 7, arg & 8 ? next_byte(in) % 50 : 0);
        return;
    case 4:
        n = arg * 16 > in->n ? in->n : arg * 16;
        append(b, in->p, n);
        in->p += n;
        in->n -= n;
        return;
    case 5: resize(b, b->n + next_byte(in)); return;
    case 6: b->n -= b->n < arg * arg + 1 ? b->n : arg * arg + 1; return;
    case 7:
        *last = b->n;
        build_frame(b, in, 250 + arg, 0);
        return;
    default: break;
    }
    at = b->n ? (next_byte(in) | next_byte(in) << 8) % b->n : 0;
    n = b->n - at < arg + 1 ? b->n - at : arg + 1;
    if ((op & 15) < 11 && n) b->p[at] = (char)(b->p[at] ^ (1 << (arg & 7)));
    else if ((op & 15) == 11 && b->n > *last + 12) {      /* and its CRC is right again */
        b->p[*last + at % (b->n - *last)] ^= (char)(1 << (arg & 7));
        put_le(b->p + *last + 4, 4, plain_crc((unsigned char *)b->p + *last + 8, b->n - *last - 8));
    } else if ((op & 15) == 12) {                         /* cut out */
        memmove(b->p + at, b->p + at + n, b->n - at - n);
        b->n -= n;
    } else if ((op & 15) > 12 && b->n) {             /* copied from there on, or all from `last` on */
        char *copy = exact(b->p + ((op & 15) == 13 ? at : *last), n = (op & 15) == 13 ? n * 20 > b->n - at ? b->n - at : n * 20 : b->n - *last);
        append(b, copy, n);
        exact_free(copy, n);
    }
}

/* The file that is there in the beginning. */
static void build_file(input *in, unsigned parts, bool raw)
{
    sim_file *f = &files.inodes[names_now()->of[JOURNAL] = file_new()];
    size_t last = 0;
    if (raw) {
        append(&f->now, in->p, in->n);
        in->n = 0;
    } else while (parts-- > 0 && in->n > 0 && f->now.n < BUILT) {
        build_part(&f->now, in, &last);
        if (last > f->now.n) last = f->now.n;
    }
    f->n = f->now.n;
    append(&f->disk, f->now.p, f->n);
    resize(&f->dirty, f->n);
    file_clean(f);
}

UNGUIDED_BEGIN

/* What is opened must be the same when it is opened again, and after a power cut. */
static void target_journal(const char *p, size_t n)
{
    input in = { p, n };
    unsigned setup = next_byte(&in), parts = next_byte(&in);
    sim_begin();
    files_begin();
    jt.known_n = 0;
    memset(&jt.server, 0, sizeof jt.server);
    if (ka__box_init(&jt.worker.down, WORKER_BOX) < 0) abort();
    jt.ttl_s = (int64_t[]){ 0, 1, 5, 100 }[setup & 3];
    jt.salvage = setup & 4;
    wall_ahead_ms = setup & 8 ? 500 : 0;
    jt.max_keys = setup & 16 ? 6 : 0;
    files.most = (size_t[]){ SIZE_MAX, SIZE_MAX, 100, 7 }[setup >> 6];
    if (setup & 32 || parts & 15) build_file(&in, parts & 15, setup & 32);
    if (parts & 64) names_now()->of[DAMAGED] = file_new();
    if (parts & 16) {
        files.fail_in = next_byte(&in) % 32;
        files.fail_n = 1 + (parts >> 5 & 1) * 3;
        files.fail_code = parts & 128 ? EINTR : EIO;
    }
    if (journal_open()) {
        journal_again(false);
        while (in.n > 0) journal_happen(&in);
        journal_again(true);
        if (!jt.open) abort();
    }
    journal_close();
    ka__box_free(&jt.worker.down);
    sim_end();
}

/* ---- the whole server ----

   The first byte chooses how the server is set up and how it ends; each further one is something that happens.
   Nearly all of it is about a connection, counted back from the one that was opened last. After it all threads
   have their turn, unless a bit says no. */

struct answer { int status; bool given, bodiless, closes, stream; size_t n; uint64_t body; };

typedef struct { ka_event ev; int status; size_t n; char text[KA_MAX_ANSWER]; } question;

enum { QUESTIONS = 64, TIMERS = 600 };
#define NEVER INT64_MAX
static struct {
    ka_server *server;
    ka_keyring keys;
    question   asked[QUESTIONS];      /* not answered yet */
    int        asked_n;
    bool       fields;                /* its requests bring theirs */
    int        waits;                 /* milliseconds in which the parent waited for room in a mailbox */
    bool       defer, stopping, stopped, slept, freeing;      /* slept: the clock was advanced */
    unsigned   big;                   /* the next answers have so many bytes */
    bytes      last;                  /* what was sent last */
    /* target_messages */
    bool       limited;               /* there were few descriptors */
    unsigned   late;                  /* so many turns pass without the parent */
    unsigned   policy;                /* what it does with an event */
    unsigned   says;                  /* sends so far */
    peer      *ending;                /* whose last event is being handled */
    int64_t   timers[TIMERS];        /* their times; the tag is the place. NEVER: it has come */
    int       timers_n;
} at;

static bool failed(void) { return blocks_failed || watch_failed; }

static void worker_check(ka__worker *w);

static void sim_settle(void)
{
    for (int i = 0; i < threads_n; i++) atomic_store(&((ka__worker *)((ka__thread *)threads[i])->arg)->settled, 1);
}

/* One round of ka__worker_run. */
static void worker_round(ka__worker *w)
{
    in_worker = true;
    ka__commands(w);
    if (w->draining) ka__drained(w);
    ka__publish_up(w);
    if (!w->quit) ka__sockets(w);
    in_worker = false;
    worker_check(w);
}

static void sim_join(void *thread)
{
    ka__worker *w = ((ka__thread *)thread)->arg;
    for (int i = 0; !w->quit; i++) {
        CHECK(i < 100, "does not quit");
        worker_round(w);
    }
    ka__listeners_close(w);
    for (uint32_t place = 0; place < w->conns_n; place++)
        if (w->conns[place].open) ka__conn_close(w, &w->conns[place]);
}

static void sim_sleep(void)
{
    if (in_worker || !at.server) return;
    at.slept = at.slept || ++at.waits >= KA_LINGER_MS;
    for (int i = 0; i < at.server->workers_n; i++) worker_round(at.server->workers[i]);
}

static void sim_known(int fd, peer *p)
{
    for (int i = 0; at.server && !p->known && i < at.server->workers_n; i++) {
        const ka__worker *w = at.server->workers[i];
        for (uint32_t place = 0; place < w->conns_n; place++) {
            if (!w->conns[place].open || w->conns[place].sock != fd) continue;
            p->known = true;
            p->conn = ka__conn_number(w, &w->conns[place]);
        }
    }
}

/* What must be true of a connection that isn't HTTP. */
static void message_conn_check(const ka__conn *c)
{
    uint32_t waiting = c->seq_in - c->seq_out;
    CHECK(c->timed != KA__IDLE && c->timed != KA__GONE && c->knocks == (c->timed == KA__KNOCK), "timed %d", c->timed);
    if (c->knocks) {
        CHECK(c->watched == KA__OUT && !c->in && !c->out && !c->last && !c->told && waiting == 0, "connecting, but watched %d", c->watched);
        return;
    }
    CHECK(c->in_n <= KA_MAX_BODY + (c->framing == KA_FRAMES ? 3 : c->framing == KA_LINES ? 1 : 0) || c->last, "%d bytes of a message kept", (int)c->in_n);
    uint32_t found = c->framing == KA_RESP ? c->resp.at : c->framing == KA_FRAMES ? c->in_n : c->object.at;
    CHECK(c->last || (c->framing == KA_LINES ? found == c->in_n : found <= c->in_n), "%d of %d bytes read", (int)found, (int)c->in_n);
    CHECK(waiting <= 1 && (waiting == 0 || c->last) && (!c->told || c->last), "%d wait, last %d, told %d", (int)waiting, c->last, c->told);
    CHECK(c->timed != KA__UNTIMED || (c->last ? waiting > 0 : !c->in), "waits for ever");
    CHECK(c->last || c->watched != 0, "nobody reads it");
    CHECK(!c->early && !c->expects && c->body_n == 0, "what only HTTP has");
}

/* What must be true of one whose answer has no known end. */
static void stream_conn_check(const ka__conn *c)
{
    uint32_t waiting = c->seq_in - c->seq_out;
    CHECK(c->timed == KA__BEGUN || c->timed == KA__STALL || c->timed == KA__LINGER || c->timed == KA__UNTIMED, "timed %d", c->timed);
    CHECK(!c->in && !c->expects && !c->knocks && waiting <= 1 && (waiting == 0 || c->last), "%d wait, last %d", (int)waiting, c->last);
    CHECK(c->timed == KA__BEGUN ? c->told && !c->last : !c->told || c->last, "told %d, last %d", c->told, c->last);
    CHECK(c->last || c->timed == KA__BEGUN || c->watched > 0, "nobody reads it");
}

/* What must be true of a worker at any time. */
static void worker_check(ka__worker *w)
{
    size_t open = 0, gone = 0, timed = 0, unused = 0, kept = 0;
    for (uint32_t place = 0; place < w->conns_n; place++) {
        ka__conn *c = &w->conns[place];
        if (!c->open && c->timed == KA__GONE) {
            CHECK(c->framing != KA_HTTP && !c->told && !c->in && !c->out && !c->early, "gone, but told %d", c->told);
            gone++;
        }
        if (!c->open) continue;
        open++;
        uint32_t waiting = c->seq_in - c->seq_out;
        sim_fd *s = sim_at((int)c->sock, SIM_CONN);
        sim_known((int)c->sock, s->peer);
        CHECK(s->peer->conn == ka__conn_number(w, c), "a connection changed its number");
        CHECK((s->peer->port == 0) == (c->framing == KA_HTTP || c->framing == KA__STREAM) && c->framing <= KA__STREAM, "port %d has framing %d", s->peer->port, c->framing);
        if (c->framing == KA__STREAM) stream_conn_check(c);
        else if (c->framing != KA_HTTP) message_conn_check(c);
        CHECK(c->in_n <= KA_MAX_HEAD + KA_MAX_BODY + 1 && (c->in_n > 0) == (c->in != NULL), "%d bytes of a request kept", (int)c->in_n);
        CHECK(c->out_n - c->out_at <= (c->outgoing ? KA__REDIS_UNSENT : KA_MAX_UNSENT) && (c->out_n > 0) == (c->out != NULL) && c->out_at <= c->out_n, "%d bytes unsent", (int)(c->out_n - c->out_at));
        CHECK(waiting <= KA_MAX_PIPELINED + KA__SCRATCH / 16, "%d requests wait", (int)waiting);
        CHECK(c->framing != KA_HTTP || (c->timed < KA__KNOCK ? 1 : c->timed == KA__UNTIMED && waiting > 0), "waits for ever, or timed %d", c->timed);
        CHECK(c->knocks || c->timed == KA__BEGUN || (c->out ? c->timed == KA__STALL && c->watched == KA__OUT : c->watched != KA__OUT), "unsent, but timed %d, watched %d", c->timed, c->watched);
        CHECK(!c->in || c->out || c->last || c->timed == KA__REQUEST || waiting >= KA_MAX_PIPELINED, "an unfinished request, but timed %d", c->timed);
        CHECK(c->watched == KA__UNWATCHED ? s->epoll < 0 : s->epoll >= 0, "watched %d, by %d", c->watched, s->epoll);
        if (s->epoll >= 0) CHECK((s->events & (EPOLLIN | EPOLLOUT)) == (c->watched == KA__IN ? EPOLLIN : c->watched == KA__OUT ? EPOLLOUT : 0u), "watched %d, events %x", c->watched, s->events);
        kept += c->in_n + c->out_n;
        for (ka__early *e = c->early; e; e = e->next) kept += e->r.size;
        for (ka__early *e = c->early; e; e = e->next) CHECK(e->r.seq - c->seq_out < waiting || waiting == 0 || (int32_t)(e->r.seq - c->seq_out) < 0, "an early answer to %d", (int)e->r.seq);
    }
    for (int kind = 0; kind < KA__TIMED; kind++) {
        uint32_t before = KA__NIL;
        for (uint32_t place = w->list[kind].head; place != KA__NIL; before = place, place = w->conns[place].next) {
            ka__conn *c = &w->conns[place];
            CHECK((c->open ? kind != KA__GONE : kind == KA__GONE) && c->timed == kind && c->prev == before, "list %d at %d", kind, (int)place);
            CHECK(before == KA__NIL || w->conns[before].due_ms <= c->due_ms, "list %d is not in the order of time", kind);
            CHECK(++timed <= open + gone, "list %d has a ring", kind);
        }
        CHECK(w->list[kind].tail == before, "the tail of list %d", kind);
    }
    for (uint32_t place = w->free_head; place != KA__NIL; place = w->conns[place].next) {
        CHECK(!w->conns[place].open && w->conns[place].timed != KA__GONE, "a free place that is not");
        CHECK(++unused <= w->conns_n, "the free list has a ring");
    }
    CHECK(open + gone + unused == w->conns_n && open + gone == w->connections, "%d open, %d gone, %d free, %d places, %d counted", (int)open, (int)gone, (int)unused, (int)w->conns_n, (int)w->connections);
    CHECK(kept == w->buffered, "%d bytes are kept, %d counted", (int)kept, (int)w->buffered);
    CHECK(w->senders_n == 0 && w->down.tail == w->down.read, "gathered, but not sent");
    CHECK(w->finished <= w->conns_n, "%d of %d places were told", (int)w->finished, (int)w->conns_n);
    CHECK(w->up.write - w->up.tail <= w->up.size && w->down.write - w->down.tail <= w->down.size, "a mailbox overflows");
    CHECK(w->out_conn == KA__NIL, "rendered, but not sent");
}

/* The next request in the bytes that a peer sent and the server received, read in one piece.
     returns    KA_OK: *h, *body, and the place behind it; or KA_EAGAIN; or KA_ESYNTAX: refused with h->status */
static int next_request(const peer *p, ka_http *h, char body[KA_MAX_BODY], size_t *body_n, size_t *end)
{
    size_t from = p->at;
    if (p->received == from) return KA_EAGAIN;
    while (p->received - from >= 2 && memcmp(p->to_server.p + from, "\r\n", 2) == 0) from += 2;
    const char *text = p->to_server.p + from;
    size_t n = p->received - from;
    if (n == 0 || (n == 1 && *text == '\r')) return KA_EAGAIN;
    ptrdiff_t head = ka_http_request(h, text, n);
    if (head < 0) return (int)head;
    text += head;
    n -= (size_t)head;
    *end = from + (size_t)head;
    *body_n = 0;
    if (h->chunked) {
        ka_chunked d = { .room = KA_MAX_BODY };
        char *copy = exact(text, n);
        size_t used = 0;
        ptrdiff_t got = ka_chunked_decode(&d, copy, n, &used);
        if (got > 0) memcpy(body, copy, (size_t)got);
        exact_free(copy, n);
        if (got < 0) return ka__refuse(h, got == KA_ENOSPC ? 413 : 400);
        *body_n = (size_t)got;
        *end += used;
        return d.done ? KA_OK : KA_EAGAIN;
    }
    if (h->length > KA_MAX_BODY) return ka__refuse(h, 413);
    size_t length = h->length < 0 ? 0 : (size_t)h->length;
    if (n < length) return KA_EAGAIN;
    if (length) memcpy(body, text, length);
    *body_n = length;
    *end += length;
    return KA_OK;
}

static peer *peer_of(uint64_t conn)
{
    for (int i = 0; i < peers_n; i++)
        if (peers[i].known && peers[i].conn == conn) return &peers[i];
    CHECK(false, "an event of connection %llx", (unsigned long long)conn);
}

/* Is this the request that was sent? */
static void event_check(const ka_event *ev)
{
    peer *p = peer_of(ev->conn);
    ka_http h;
    char body[KA_MAX_BODY];
    size_t n = 0, end = 0;
    CHECK(ev->seq == p->seq, "request %d instead of %d", (int)ev->seq, (int)p->seq);
    CHECK(!p->over, "a request after the last one");
    if (p->seq == p->answers_cap) {
        p->answers_cap = p->answers_cap ? p->answers_cap * 2 : 16;
        p->answers = realloc(p->answers, p->answers_cap * sizeof *p->answers);
        if (!p->answers) abort();
    }
    struct answer *a = &p->answers[p->seq++];
    *a = (struct answer){ .bodiless = ev->flags & KA__BODILESS };
    int r = next_request(p, &h, body, &n, &end);
    if (ev->error) p->over = p->refused = a->closes = true;
    if (ev->error) p->refused_ms = clock_ms;
    if (ev->error == 408) {
        CHECK(r == KA_EAGAIN && at.slept && p->at < p->received, "408, but %d", r);
    } else if (ev->error == 503) {
        CHECK(r == KA_EAGAIN && blocks_failed, "503, but %d", r);
    } else if (ev->error) {
        CHECK(r == KA_ESYNTAX && h.status == ev->error, "refused with %d, read at once: %d with %d", ev->error, r, h.status);
    } else {
        CHECK(r == KA_OK, "an event of what read at once gives %d with %d", r, h.status);
        CHECK(same_str(h.method, ev->method) && same_str(h.target, ev->target) && same_str((ka_str){ body, n }, ev->body), "another request: %.*s %.*s with %d bytes, want %d",
              (int)ev->method.n, ev->method.p, (int)ev->target.n, ev->target.p, (int)ev->body.n, (int)n);
        CHECK(same_str(ev->fields, at.fields ? h.fields : (ka_str){ NULL, 0 }), "%d bytes of fields, want %d", (int)ev->fields.n, (int)h.fields.n);
        CHECK(a->bodiless == ka_is(h.method, "HEAD"), "HEAD");
        p->at = end;
        if (!h.keep_alive) p->over = a->closes = true;
    }
}

static void answer(const question *q)
{
    static char large_body[70000];
    peer *p = peer_of(q->ev.conn);
    struct answer *a = &p->answers[q->ev.seq];
    const char *body = q->text;
    size_t n = q->n;
    bool can = !q->ev.error && !(q->ev.flags & (KA__OLD | KA__BODILESS));
    if (a->given ? a->stream : at.big % 16 == 14) {
        int begins = ka_stream(at.server, &q->ev, at.big & 16 ? "X-A: b\r\nContent-Type: text/event-stream\r\n" : NULL);
        CHECK(begins == (can ? KA_OK : KA_EINVAL), "ka_stream: %d", begins);
        if (can) *a = (struct answer){ .status = 200, .given = true, .stream = true };
        if (can) return;
    }
    if (a->given) {                    /* a second time: the same, if not dropped */
        n = a->n;
        body = n == q->n ? body : large_body;
    } else if (at.big) {
        n = (size_t)at.big * 270;
        body = large_body;
        if (n == q->n) n++;
        for (size_t i = 0; !large_body[0] && i < sizeof large_body; i++) large_body[sizeof large_body - 1 - i] = (char)('a' + i % 23);
    }
    int status = a->given ? a->status : at.big % 16 == 15 ? 0 : q->status;
    int r = ka_reply(at.server, &q->ev, status, status && at.big & 1 ? "X-A: b\r\nContent-Type: a/b\r\nX-B:\r\n" : NULL, body, n);
    if (n > KA_MAILBOX / 4 - 20 && r == KA_ENOSPC) {
        n = 0;
        r = ka_reply(at.server, &q->ev, status, NULL, NULL, 0);
    }
    CHECK(r == KA_OK, "ka_reply: %d", r);
    if (!a->given) *a = (struct answer){ status, true, a->bodiless, a->closes, false, n, hash(body, n) };
    if (status == 0) p->bare = true;
}

/* ---- and its other framings ---- */

enum { EITHER = 1 };

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* The next message in the bytes that a peer sent and the server heard, read in one piece.
     returns    KA_OK: *body; KA_EAGAIN; 400 or 413; or EITHER of them, as the pieces may have been */
static int next_message(const peer *p, int framing, ka_str *body, size_t *end)
{
    const char *text = p->to_server.p;
    size_t from = p->at, all = p->heard, depth = 0;
    char quote = 0;
    if (framing == KA_LINES) {
        size_t n = 0;
        if (from == all) return KA_EAGAIN;
        while (n < all - from && text[from + n] != '\n') n++;
        bool whole = n < all - from, cr = n > 0 && text[from + n - 1] == '\r';
        if (n - cr > KA_MAX_BODY) return 413;
        *body = (ka_str){ text + from, n - cr };
        *end = from + n + 1;
        return whole ? KA_OK : KA_EAGAIN;
    }
    if (framing == KA_FRAMES) {
        while (from < all && is_space(text[from])) from++;
        if (all - from < 4) return KA_EAGAIN;
        uint64_t n = 0;
        for (int i = 0; i < 4; i++) n = n * 256 + (unsigned char)text[from + (size_t)i];
        if (n > KA_MAX_BODY) return 413;
        if (all - from < n + 4) return KA_EAGAIN;
        *body = (ka_str){ text + from + 4, (size_t)n };
        *end = from + 4 + (size_t)n;
        return KA_OK;
    }
    if (framing == KA_RESP) {
        size_t n = all - from < 4 * KA_MAX_BODY ? all - from : 4 * KA_MAX_BODY, found = 0, first = 0;
        if (n == 0) return KA_EAGAIN;
        int r = plain_resp(text + from, n, &found);
        *body = (ka_str){ text + from, found };
        *end = from + found;
        if (r == KA_ESYNTAX) return plain_resp(text + from, n < KA_MAX_BODY ? n : KA_MAX_BODY, &first) == KA_ESYNTAX ? 400 : EITHER;
        if (r == KA_EAGAIN && from + n < all) return EITHER;
        return (r == KA_OK ? found : n) > KA_MAX_BODY ? 413 : r;
    }
    while (from < all && is_space(text[from])) from++;
    if (from == all) return KA_EAGAIN;
    if (text[from] != '{') return 400;
    for (size_t i = from; i < all; i++) {
        if (quote && text[i] == '\\') i++;
        else if (quote && (unsigned char)text[i] < 32) return i - from > KA_MAX_BODY ? EITHER : 400;
        else if (quote) quote = text[i] == quote ? 0 : quote;
        else if (text[i] == '"' || text[i] == '\'') quote = text[i];
        else if (text[i] == '{') depth++;
        else if (text[i] == '}' && --depth == 0) {
            *body = (ka_str){ text + from, i + 1 - from };
            *end = i + 1;
            return body->n > KA_MAX_BODY ? 413 : KA_OK;
        }
    }
    return all - from > KA_MAX_BODY ? 413 : KA_EAGAIN;
}

/* Is there anything behind the last message, but white space that belongs to none? */
static bool begun(const peer *p)
{
    size_t from = p->at;
    bool counts = memchr(p->framings, KA_LINES, (size_t)p->framings_n) || memchr(p->framings, KA_RESP, (size_t)p->framings_n);
    while (!counts && from < p->heard && is_space(p->to_server.p[from])) from++;
    return from < p->heard;
}

/* White space before the first line or value may have been passed over, in the framing before. */
static bool passed_over(const peer *p, int framing) { return framing >= KA_LINES && p->framings_n > 1 && p->at < p->heard && is_space(p->to_server.p[p->at]); }

/* Is nothing whole left, or wrong? */
static bool at_rest(const peer *p)
{
    peer rest = *p;
    ka_str body;
    size_t end;
    int r;
    while ((r = next_message(&rest, p->framing, &body, &end)) != KA_EAGAIN && passed_over(&rest, p->framing)) rest.at++;
    return r == KA_EAGAIN;
}

/* All that is whole was delivered. */
static void delivered_check(const peer *p)
{
    if (p->refused || p->told || p->hung_up) return;
    CHECK(p->opened, "connected, and the parent doesn't know");
    CHECK(p->received == p->to_server.n, "%d bytes were never read", (int)(p->to_server.n - p->received));
    CHECK(at_rest(p), "a message was not delivered");
}

static void say(peer *p, const char *text, size_t n)
{
    int r = ka_send(at.server, p->conn, text, n);
    CHECK(r == KA_OK, "ka_send: %d", r);
    if (p->hung_up) return;
    append(&p->said, text, n);
}

static void say_bytes(peer *p, size_t n)
{
    static char text[KA_MAILBOX / 4 + 1];
    for (size_t i = 0; i < sizeof text && !text[0]; i++) text[sizeof text - 1 - i] = (char)('a' + i % 23);
    at.says++;
    say(p, text + sizeof text - n - at.says % (sizeof text + 1 - n) % 23, n);
}

static void hang_up(peer *p)
{
    ka_close(at.server, p->conn);
    p->hung_up = true;
}

static void reframe(peer *p, int framing)
{
    if (p->framings_n == sizeof p->framings) return;
    CHECK(ka_reframe(at.server, p->conn, framing) == KA_OK, "ka_reframe");
    p->framings[p->framings_n++] = (char)framing;
    p->framing = framing;
}

static int other_framing(const peer *p) { return p->framing >= KA_LINES ? KA_JSON : KA_JSON + KA_FRAMES - p->framing; }
static int framing_of(size_t n) { return n >= 240 ? KA_LINES : n >= 232 ? KA_RESP : n & 1 ? KA_FRAMES : KA_JSON; }

static void connect_to(int framing, int knock)
{
    if (peers_n == PEERS) return;
    int port = OUT + peers_n;
    peer *p = sim_peer(port);
    p->knock = knock;
    p->framings[p->framings_n++] = (char)(p->framing = framing);
    int r = ka_connect(at.server, framing, peers_n & 1 ? NULL : "127.0.0.9", "127.0.0.1", port, (uint32_t)port * 7);
    CHECK(r == (at.stopping ? KA_ESTOPPED : KA_OK), "ka_connect: %d", r);
    if (r < 0) *p = (peer){ 0 };
    if (r < 0) peers_n--;
}

static void opened_event(const ka_event *ev)
{
    peer *p = ev->error ? NULL : peer_of(ev->conn);
    for (int i = 0; i < peers_n && ev->error; i++)
        if (peers[i].port >= OUT && (uint32_t)peers[i].port * 7 == ev->seq) p = &peers[i];
    CHECK(p && !p->opened, "opened twice, or nobody asked for it: %d", (int)ev->seq);
    p->opened = true;
    if (ev->error) p->told = p->hung_up = true;
    if (ev->error) p->lost = false;      /* nobody was to read what it had sent already */
    CHECK(ev->listener == (p->port >= OUT ? -1 : p->port) && ev->seq == (p->port >= OUT ? (uint32_t)p->port * 7 : 0), "listener %d, tag %d", ev->listener, (int)ev->seq);
    switch (ev->error) {
    case KA_OK:
        CHECK(p->knock == CONNECTED && !at.stopped, "open, but it is not");
        CHECK((ka_is(ev->body, "0.0.0.0") && ev->port == 2) || (ev->body.n == 0 && ev->port == 0 && p->reset), "from %.*s:%d", (int)ev->body.n, ev->body.p, ev->port);
        for (int i = 0; i < peers_n; i++)
            CHECK(&peers[i] == p || peers[i].port == 0 || !peers[i].opened || peers[i].told || ka_conn_index(at.server, peers[i].conn) != ka_conn_index(at.server, p->conn), "two have the same index");
        CHECK(ka_conn_index(at.server, p->conn) < 64 * 2, "an index of %d", (int)ka_conn_index(at.server, p->conn));
        return;
    case KA_ETIME:    CHECK(at.slept && p->knock != REFUSED_AT_ONCE, "out of time"); return;
    case KA_ESTOPPED: CHECK(at.stopping && ev->listener == -1, "stopped"); return;
    case KA_ENOMEM:   CHECK(blocks_failed, "no memory"); return;
    case KA_ELIMIT:   CHECK(at.limited || watch_failed, "a limit"); return;
    default:          CHECK(ev->error < 0 && (p->knock >= REFUSED || p->reset || watch_failed), "%d, but nobody refused it", ev->error);
    }
}

/* What is read at once gives r. */
static bool message_fits(const peer *p, const ka_event *ev, int r, ka_str body)
{
    switch (ev->error) {
    case 0:   return r == KA_OK && same_str(body, ev->body);
    case 408: return r == KA_EAGAIN && at.slept && p->at < p->heard;
    case 503: return r == KA_EAGAIN && blocks_failed;
    default:  return r == ev->error || (r == EITHER && (ev->error == 400 || ev->error == 413)) || (ev->error == 400 && r == KA_EAGAIN && p->fin && begun(p));
    }
}

static bool timer_set(int64_t at_ms)
{
    if (at.timers_n == TIMERS) return false;
    int r = ka_timer(at.server, at_ms, (uint64_t)at.timers_n);
    CHECK(r == KA_OK || (r == KA_ENOMEM && blocks_failed), "ka_timer: %d", r);
    if (r == KA_OK) at.timers[at.timers_n++] = at_ms;
    return r == KA_OK;
}

static int64_t timer_first(void)
{
    int64_t first = NEVER;
    for (int i = 0; i < at.timers_n; i++)
        if (at.timers[i] < first) first = at.timers[i];
    return first;
}

/* Some set another one, that is due. */
static void timer_event(const ka_event *ev)
{
    CHECK(ev->tag < (uint64_t)at.timers_n && at.timers[ev->tag] != NEVER, "timer %d", (int)ev->tag);
    CHECK(at.timers[ev->tag] <= ev->now_ms && ev->now_ms <= clock_ms, "timer %d is early", (int)ev->tag);
    CHECK(at.timers[ev->tag] == timer_first(), "timer %d is not the first", (int)ev->tag);
    at.timers[ev->tag] = NEVER;
    if (ev->tag % 4 == 3) timer_set(ev->now_ms - (int64_t)(ev->tag % 3));
}

/* Is this the message that was sent? */
static void message_check(const ka_event *ev, peer *p)
{
    ka_str body = { NULL, 0 };
    size_t end = 0;
    CHECK(!p->refused, "a message after the last one");
    while (p->framings[p->framing_at] != ev->framing) CHECK(++p->framing_at < p->framings_n, "framing %d", ev->framing);
    while (!message_fits(p, ev, next_message(p, ev->framing, &body, &end), body) && passed_over(p, ev->framing)) p->at++;
    int r = next_message(p, ev->framing, &body, &end);
    CHECK(message_fits(p, ev, r, body), "%d with %d bytes, read at once: %d with %d", ev->error, (int)ev->body.n, r, (int)body.n);
    if (ev->error) p->refused = true;
    if (ev->error) p->refused_ms = clock_ms;
    p->at = end;
}

/* Are there connections that others have made? At a stop, those of ka_connect end after them. */
static bool callers_left(void)
{
    bool left = false;
    for (int i = 0; i < peers_n; i++) left = left || (peers[i].port < OUT && peers[i].accepted && !peers[i].closed);
    return left;
}

/* An end that it had asked for, or a stop, is none; a connection that was lost has a reason. */
static void closed_check(const ka_event *ev, const peer *p)
{
    bool lost = p->reset || p->slow || failed() || p->hung_up || p->refused || (p->framings_n > 1 && begun(p));
    if (ev->error && p->fin) CHECK(p->reset || p->slow || failed() || at.slept || p->framings_n > 1, "closed with %d, and it has ended", ev->error);
    if (ev->error == 0) CHECK(p->fin || at.stopping, "closed without an error, and it isn't at an end");
    else CHECK(ev->error == KA_EOFFLINE && lost, "closed with %d, and it wasn't lost", ev->error);
    if (ev->error == 0 && !p->fin && p->port >= OUT) CHECK(at.slept || !callers_left(), "stopped before those who may need it");
}

/* An answer without a known end has begun in its turn, or has ended. */
static void stream_event(const ka_event *ev, peer *p)
{
    uint32_t seq = 0;
    while (seq < p->seq && p->answers[seq].given && !p->answers[seq].stream) seq++;
    CHECK(seq < p->seq && p->answers[seq].stream, "event %d, and answer %d is no stream", ev->kind, (int)seq);
    CHECK(ev->kind == KA_OPENED ? !p->opened && ev->error == 0 && ev->listener == 0 : ev->kind == KA_CLOSED && p->opened && !p->told, "event %d with %d", ev->kind, ev->error);
    if (ev->kind == KA_CLOSED) closed_check(ev, p);
    if (ev->kind == KA_CLOSED) at.ending = p;
    p->opened = p->over = true;
    p->told = ev->kind == KA_CLOSED;
    say_bytes(p, at.big + 1);
    if (at.big & 64) hang_up(p);
}

static void message_event(const ka_event *ev)
{
    peer *p;
    if (ev->kind == KA_TIMER) {
        timer_event(ev);
        return;
    }
    if (ev->kind == KA_LISTENING) return;
    p = ev->kind == KA_OPENED && ev->error ? NULL : peer_of(ev->conn);
    if (p && p->port == 0) {
        stream_event(ev, p);
        return;
    }
    if (ev->kind == KA_OPENED) opened_event(ev);
    if (!p) return;
    CHECK(p->port != 0 && p->opened && !p->told, "event %d: %d, %d, %d", ev->kind, p->port, p->opened, p->told);
    if (ev->kind == KA_MESSAGE) message_check(ev, p);
    if (ev->kind == KA_CLOSED) {
        bool why = p->hung_up || p->refused || p->reset || at.stopping || failed() || (p->slow && p->said.n > 0);
        why = why || (p->framings_n > 1 && begun(p));      /* reframed, and something unfinished was there */
        CHECK(why || !begun(p), "closed, and an unfinished message was not told of");
        CHECK(why || (p->fin && p->received == p->to_server.n), "closed, why?");
        CHECK(why || p->framing_at + 1 < p->framings_n || at_rest(p), "closed, and a message was not delivered");
        closed_check(ev, p);
        p->told = true;
    }
    if (p->told || ev->error) at.ending = p;
    if (at.policy & 1 && ev->kind == KA_MESSAGE) say_bytes(p, ev->body.n);
    if (at.policy & 2 && at.ending) say_bytes(p, 5);
    if (at.policy & 4 && ev->kind == KA_MESSAGE) hang_up(p);
    if (at.policy & 8 && ev->kind == KA_MESSAGE) reframe(p, other_framing(p));
    if (at.policy & 16 && ev->kind == KA_OPENED) say_bytes(p, 7);
    if (at.policy & 32 && ev->kind == KA_OPENED) reframe(p, other_framing(p));
    if (at.policy & 64 && ev->kind == KA_OPENED && at.policy & 128) hang_up(p);
    if (at.policy & 128 && ev->kind == KA_MESSAGE) say_bytes(p, 400);
    if (at.policy & 64 && ev->kind == KA_CLOSED) connect_to(p->framing, CONNECTED);
}

static int wait_for(ka_event *ev)
{
    if (at.ending) at.ending->hung_up = true;
    at.ending = NULL;
    return ka_wait(at.server, ev, 0);
}

/* In the end: was all told once, and all sent? */
static void said_check(const peer *p)
{
    bool excused = p->reset || p->slow || failed() || at.freeing || at.slept || (p->framings_n > 1 && begun(p));
    size_t n = p->from_server.n;
    CHECK(at.freeing || (p->port < OUT && !p->accepted) || (p->opened && p->told), "opened %d, closed %d", p->opened, p->told);
    CHECK((p->accepted || p->port >= OUT || !p->opened) && (p->opened || !p->told), "opened, and never accepted");
    CHECK(n <= p->said.n && (n == 0 || memcmp(p->from_server.p, p->said.p, n) == 0), "%d bytes sent, %d others received", (int)p->said.n, (int)n);
    CHECK(excused || n == p->said.n, "%d bytes sent, %d received", (int)p->said.n, (int)n);
    CHECK(excused || !p->lost, "closed with bytes unread");
    CHECK(excused || !p->refused || !p->cut_off || p->closed_ms - p->refused_ms >= KA_LINGER_MS, "refused, and closed at once");
}

/* Handle all events that there are. */
static void parent_round(void)
{
    ka_event ev;
    int r;
    if (at.stopped) return;
    while ((r = wait_for(&ev)) == KA_OK) {
        question q = { .ev = ev };
        moved++;
        if (ev.kind != KA_REQUEST) {
            message_event(&ev);
            continue;
        }
        event_check(&ev);
        q.status = ka_auth_answer(&at.keys, &ev, q.text, &q.n);
        CHECK(q.n <= KA_MAX_ANSWER && q.status >= 200 && q.status <= 599, "%d with %d bytes", q.status, (int)q.n);
        if (at.defer && at.asked_n < QUESTIONS) at.asked[at.asked_n++] = q;
        else answer(&q);
    }
    CHECK(r == KA_ETIME || (r == KA_ESTOPPED && at.stopping), "ka_wait: %d", r);
    CHECK(r == KA_ESTOPPED || timer_first() > clock_ms, "a timer does not come");
    at.stopped = r == KA_ESTOPPED;
}

/* A turn for everybody. */
static void turn(void)
{
    for (int i = 0; i < at.server->workers_n; i++) worker_round(at.server->workers[i]);
    if (at.late > 0) at.late--;
    else parent_round();
}

/* Until nothing moves any more; which must come. */
static void settle(void)
{
    at.late = 0;
    for (int rounds = 0, still = 0; still < 2; rounds++) {
        uint64_t before = moved;
        turn();
        still = moved == before ? still + 1 : 0;
        CHECK(rounds < 20000, "never at rest");
    }
    for (int i = 0; i < at.server->workers_n && !at.stopped; i++) {
        ka__worker *w = at.server->workers[i];
        epoll_ready = 0;
        worker_round(w);
        CHECK(epoll_ready == 0, "%d sockets are ready, and nothing is done about them", epoll_ready);
        CHECK(ka__patience(w) != 0, "does not sleep");
    }
    for (int i = 0; i < peers_n; i++) {      /* all was read, and all that is whole was delivered */
        peer *p = &peers[i];
        ka_http h;
        char body[KA_MAX_BODY];
        size_t n, end;
        if (p->closed || !p->known || p->bare || failed() || p->window == 0) continue;
        if (at.stopping && p->port == 0) CHECK(!p->opened || p->told || p->hung_up, "stopping, and whoever streams doesn't know");
        if (p->over) continue;
        if (at.stopping) CHECK(!p->opened || p->told || p->hung_up || p->refused || (p->port >= OUT && callers_left()), "stopping, and the parent doesn't know");
        if (at.stopping) continue;           /* an answer may have said that it is the last one */
        if (p->port != 0) {
            if (p->knock == CONNECTED) delivered_check(p);
            continue;
        }
        bool full = false;                   /* the parent owes it answers: then it may not be read */
        for (uint32_t k = 0; k < p->seq; k++) full = full || !p->answers[k].given;
        CHECK(full || p->received == p->to_server.n, "%d bytes were never read", (int)(p->to_server.n - p->received));
        CHECK(next_request(p, &h, body, &n, &end) == KA_EAGAIN, "a request was not delivered");
    }
}

static void answer_all(void)
{
    at.defer = false;
    for (int i = 0; i < at.asked_n; i++) answer(&at.asked[i]);
    at.asked_n = 0;
}

/* Are a connection's answers there, in order, whole and well-formed? */
static void answers_check(const peer *p)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const char *text = p->from_server.p;
    size_t n = p->from_server.n;
    uint32_t seq = 0;
    bool excused = p->reset || p->slow || failed() || at.freeing || at.slept;
    while (n > 0) {
        ka_http h;
        if (seq < p->seq && p->answers[seq].given && p->answers[seq].status == 0 && memcmp(text, go_on, n < 12 ? n : 12)) {
            const struct answer *a = &p->answers[seq];
            CHECK(n <= a->n && (n < a->n || hash(text, n) == a->body), "a bare answer of %d bytes, want %d", (int)n, (int)a->n);
            excused = excused || n == a->n;
            n = 0;
            seq = p->seq;
            break;
        }
        ptrdiff_t head = ka_http_response(&h, text, n);
        if (head == KA_EAGAIN) break;
        CHECK(head > 0, "an answer is malformed: %.*s", (int)n, text);
        if (h.status == 100) {
            CHECK(head == sizeof go_on - 1 && memcmp(text, go_on, sizeof go_on - 1) == 0, "another 100");
            text += head;
            n -= (size_t)head;
            continue;
        }
        CHECK(seq < p->seq, "more answers than requests");
        const struct answer *a = &p->answers[seq++];
        if (a->given && a->stream) {
            CHECK(h.status == 200 && h.length == -1 && !h.chunked && h.minor == 1 && !h.keep_alive, "a stream's head, with %d", h.status);
            text += head;
            n -= (size_t)head;
            CHECK(n <= p->said.n && (n == 0 || memcmp(text, p->said.p, n) == 0) && (excused || n == p->said.n), "%d bytes of a stream, want %d", (int)n, (int)p->said.n);
            n = 0;
            seq = p->seq;
            break;
        }
        CHECK(a->given && h.status == a->status, "answer %d has status %d, want %d", (int)seq - 1, h.status, a->status);
        CHECK(h.length == (int64_t)a->n && !h.chunked && h.minor == 1, "answer %d has %d bytes, want %d", (int)seq - 1, (int)h.length, (int)a->n);
        CHECK(!a->closes || !h.keep_alive, "the last answer does not say so");
        size_t size = a->bodiless ? 0 : a->n;
        text += head;
        n -= (size_t)head;
        if (n < size) {
            seq--;
            break;
        }
        CHECK(a->bodiless || hash(text, size) == a->body, "answer %d has another body", (int)seq - 1);
        text += size;
        n -= size;
        CHECK(h.keep_alive || n == 0, "%d bytes after the last answer", (int)n);
    }
    if (seq < p->seq && p->answers[seq].given && p->answers[seq].status == 0 && p->answers[seq].n == 0) seq = p->seq;
    CHECK(at.freeing || !p->opened || p->told, "the end of a stream is not told");
    CHECK(excused || n == 0, "an answer is cut after %d bytes", (int)n);
    CHECK(excused || seq == p->seq, "%d requests, %d answers", (int)p->seq, (int)seq);
    CHECK(excused || !p->lost, "closed with bytes unread");
    CHECK(excused || !p->refused || p->opened || !p->cut_off || p->closed_ms - p->refused_ms >= KA_LINGER_MS, "refused, and closed at once");
}

static size_t connections(void)
{
    ka_stats stats;
    ka_server_stats(at.server, &stats);
    return stats.connections;
}

static void send_bytes(peer *p, const char *text, size_t n)
{
    if (p->fin || p->reset || p->closed || p->to_server.n + n > (p->cut < 40 ? p->cut * 1000 : 40000)) return;
    append(&p->to_server, text, n);
}

UNGUIDED_END

/* Something happens. */
static void happen(input *in)
{
    static const char *const canned[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 94\r\n\r\nlogin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "A / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 9\r\n\r\nask_key=y",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "4;a\r\nask_\r\n5\r\nkey=z\r\n0\r\nX: y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        "ask_key=x",
        "\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 301\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    static const int sleeps[] = { 1, 99, 100, 200, 999, 1000, 3000, 6000 };
    unsigned op = next_byte(in), who = op >> 4 & 3;
    peer *p = peers_n > (int)who ? &peers[peers_n - 1 - (int)who] : NULL;
    size_t n;
    switch (op & 15) {
    case 0:
        if (peers_n == PEERS) return;
        p = sim_peer(0);
        if (who) p->cut = who * who * who;
        break;
    case 1:
        n = next_byte(in);
        if (n > in->n) n = in->n;
        at.last.n = 0;
        append(&at.last, in->p, n);
        if (p) send_bytes(p, in->p, n);
        in->p += n;
        in->n -= n;
        break;
    case 2:
        n = next_byte(in) % (sizeof canned / sizeof *canned);
        at.last.n = 0;
        append_text(&at.last, canned[n]);
        if (p) send_bytes(p, canned[n], strlen(canned[n]));
        break;
    case 3:
        for (n = next_byte(in); p && n > 0; n--) send_bytes(p, at.last.p, at.last.n);
        break;
    case 4:
        at.defer = !at.defer;
        break;
    case 5:
        if (at.asked_n == 0) break;
        n = next_byte(in) % (unsigned)at.asked_n;
        answer(&at.asked[n]);
        if (who == 3) break;           /* it stays: it will be answered twice */
        at.asked[n] = at.asked[--at.asked_n];
        break;
    case 6:
        answer_all();
        break;
    case 7:
        if (p) p->fin = true;
        break;
    case 8:
        if (p && !p->fin) p->reset = true;
        break;
    case 9:
        n = next_byte(in);
        if (!p) break;
        p->slow = true;
        if (n == 255) p->window = SIZE_MAX;
        else p->window = p->window == SIZE_MAX ? n * 16 : p->window + n * 16;
        break;
    case 10:
        clock_ms += sleeps[next_byte(in) % 8];
        at.slept = true;
        break;
    case 11:
        n = next_byte(in);
        *(n & 32 ? &watch_fails_in : &blocks_fail_in) = (long)n % 32;
        break;
    case 12:
        n = next_byte(in);
        fd_limit = n == 255 ? SIM_FDS : 6 + (int)n % 16;
        break;
    case 13:
        at.big = next_byte(in);
        break;
    case 14:
        if (at.stopping) break;
        ka_stop(at.server);
        at.stopping = true;
        break;
    default:
        if (who == 1) n = next_byte(in);
        if (who == 0 || who == 3) settle();
        else if (peers_n > 0 && (p = &peers[peers_n - 1])->opened && !at.stopped) who == 1 ? say_bytes(p, n * 30) : hang_up(p);      /* it streams */
    }
    if (!(op & 128)) turn();
}

/* Something happens where messages are sent. */
static void happen_message(input *in)
{
    static const char *const canned[] = {
        "{}", "{\"a\": {\"b\": \"}{\"}}", "{'a': '\\'}', \"b\": '\"'}", "  \r\n\t{}{} {", "}", "{\"a\": \"\\", "\"}", "{\"", "\n", "[]",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n", " ", "{{{{{{{{", "}}}}}}}}", "{'\\\n'}", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x",
    };
    static const char *const line_ends[] = { "\n", "\r\n", "\r", "" }, *const line_canned[] = { "\r\n", "\r", "a\n", "a\r\nb\n\n\r\n", "\ra\r\r\n", "\n\n \n", "{}\n", "a" };
    static const char *const resp_canned[] = { "+OK\r\n", ":-12\r\n", "$-1\r\n*-1\r\n", "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n", "$5\r\nhello\r\n", "*2\r\n*1\r\n-E\r\n*0\r\n", "$300\r\n", "*9\r\n", "+", "\r\n", "*x\r\n" };
    static const int64_t times[] = { 0, 1, -1, 2, 5, 50, 99, 100, 200, 999, 1000, 3000, 6000, -1000, INT64_MIN, NEVER - 1 };
    static const int timers[] = { 1, 2, 3, 7, 40, KA_BATCH / 2 - 1, KA_BATCH / 2 + 1, 300 };
    static const unsigned lengths[] = { 0, 1, 2, 4, 47, 296, KA_MAX_BODY - 1, KA_MAX_BODY, KA_MAX_BODY + 1, 513, 0x7b7d7b7d, 0xffffffff };
    static const int sleeps[] = { 1, 99, 200, 999, 1000, 3000, 6000, KA_ATTEMPT_MS };
    char frame[4 + 2 * KA_MAX_BODY];
    unsigned op = next_byte(in), who = op >> 4 & 3;
    peer *p = peers_n > (int)who ? &peers[peers_n - 1 - (int)who] : NULL;
    bool has = p && p->opened && p->port != 0 && p->known && !at.stopped;      /* the parent has its number */
    size_t n, k;
    switch (op & 15) {
    case 0:
        if (peers_n == PEERS) return;
        n = next_byte(in);
        p = sim_peer(n >= 232 ? framing_of(n) : (int)n % 3);
        p->framings[p->framings_n++] = (char)(p->framing = p->port);
        if (who) p->cut = who * who * who;
        break;
    case 1:
        n = next_byte(in);
        if (n > in->n) n = in->n;
        at.last.n = 0;
        append(&at.last, in->p, n);
        if (p) send_bytes(p, in->p, n);
        in->p += n;
        in->n -= n;
        break;
    case 2:
        n = next_byte(in);
        at.last.n = 0;
        if (n >= 240) {                /* a line */
            memset(frame, 'l', sizeof frame);
            append(&at.last, frame, lengths[6 + (n & 3)]);
            append_text(&at.last, line_ends[n >> 2 & 3]);
        } else if (n >= 56 && n < 64) append_text(&at.last, line_canned[n - 56]);
        else if (n < 64) append_text(&at.last, canned[n % (sizeof canned / sizeof *canned)]);
        else if (n < 192) {            /* a frame, or the half of one */
            k = lengths[n / 2 % (sizeof lengths / sizeof *lengths)];
            for (int i = 0; i < 4; i++) frame[i] = (char)(k >> (24 - 8 * i));
            memset(frame + 4, 'f', sizeof frame - 4);
            append(&at.last, frame, k < sizeof frame - 4 ? 4 + k / (1 + n % 2) : 4 + n % 2);
        } else if (n >= 232) {         /* a value, or a string's half */
            k = next_byte(in);
            if (k < 128) append_text(&at.last, resp_canned[k % (sizeof resp_canned / sizeof *resp_canned)]);
            else {
                size_t head = (size_t)snprintf(frame, sizeof frame, "$%u\r\n", lengths[k % 10]);
                memset(frame + head, 's', sizeof frame - head);
                append(&at.last, frame, head + lengths[k % 10] / (1 + (k >> 5 & 1)));
                append_text(&at.last, "\r\n");
            }
        } else {                       /* an object of so many bytes */
            k = lengths[n % 10];
            memset(frame, 'o', sizeof frame);
            memcpy(frame, "{\"", 2);
            if (k > 4) memcpy(frame + k - 2, "\"}", 2);
            append(&at.last, frame, k);
        }
        if (p) send_bytes(p, at.last.p, at.last.n);
        break;
    case 3:
        for (n = next_byte(in) * (who == 3 ? 30u : 1u); p && n > 0; n--) send_bytes(p, at.last.p, at.last.n);
        break;
    case 4:
        n = next_byte(in);
        if (has) say_bytes(p, n < 200 ? n : n < 255 ? (n - 199) * 1180 : KA_MAILBOX / 4 + 1);
        break;
    case 5:
        if (has) hang_up(p);
        break;
    case 6:
        n = next_byte(in);
        if (has) reframe(p, framing_of(n));
        break;
    case 7:
        if (p) p->fin = true;
        break;
    case 8:
        if (!p || p->fin || p->closed) break;
        if (p->knock) p->knock = REFUSED;
        else p->reset = true;
        break;
    case 9:
        n = next_byte(in);
        if (!p) break;
        p->slow = true;
        if (n == 255) p->window = SIZE_MAX;
        else p->window = p->window == SIZE_MAX ? n * 16 : p->window + n * 16;
        break;
    case 10:
        clock_ms += sleeps[next_byte(in) % 8];
        at.slept = true;
        break;
    case 11:
        n = next_byte(in);
        *(n & 32 ? &watch_fails_in : &blocks_fail_in) = (long)n % 32;
        break;
    case 12:
        n = next_byte(in);
        fd_limit = n == 255 ? SIM_FDS : 8 + (int)n % 16;
        at.limited = true;
        break;
    case 13:
        n = next_byte(in);
        if (!at.stopped) connect_to(framing_of(n), (int)(n >> 1 & 3));
        break;
    case 14:
        if (at.stopping) break;
        ka_stop(at.server);
        at.stopping = true;
        break;
    default:
        n = next_byte(in);
        switch (who) {
        case 0:
            for (int i = 0; n >= 128 && !at.stopped && i < timers[n >> 4 & 7]; i++) timer_set(n % 16 < 14 ? clock_ms + times[n % 16] * (1 + i % 3) : times[n % 16]);
            settle();
            break;
        case 1:                        /* who was knocked at opens */
            for (int i = 0; i < peers_n; i++)
                if (peers[i].knock == KNOCKING && peers[i].accepted && !peers[i].closed && n-- == 0) peers[i].knock = CONNECTED;
            break;
        case 2:
            at.policy = (unsigned)n;
            break;
        default:
            if (n < 64) {
                at.late = (unsigned)n;
                at.slept = at.slept || n > 8;
            } else if (p && p->known && !at.stopped) {      /* to whom never was */
                uint64_t never = p->conn ^ 0x80000000, nobody = p->conn | (uint64_t)255 << 56, nowhere = p->conn | (uint64_t)0xfff << 40;
                CHECK(ka_send(at.server, never, "x", 1) == KA_OK && ka_send(at.server, nobody, "x", 1) == KA_EINVAL && ka_reframe(at.server, nowhere, KA_JSON) == KA_OK, "to nobody");
                ka_close(at.server, n & 1 ? never : nowhere);
                ka_close(at.server, nobody);
                if (p->port == 0) {      /* and to who speaks HTTP */
                    CHECK(ka_send(at.server, p->conn, "x", 1) == KA_OK && ka_reframe(at.server, p->conn, KA_JSON) == KA_OK, "to HTTP");
                    ka_close(at.server, p->conn);
                }
            }
        }
    }
    if (!(op & 128)) turn();
}

UNGUIDED_BEGIN

static void serve(const char *text, size_t size, bool messages)
{
    input in = { text, size };
    unsigned setup = next_byte(&in);
    ka_event ev;
    sim_begin();
    memset(&at, 0, sizeof at);
    at.fields = setup >> 3 & 1;
    if (ka_keyring_init(&at.keys, 6, 5) < 0 || ka_server_start(&at.server, 1 + (int)(setup & 1)) < 0) abort();
    for (int i = 0; i < at.server->workers_n; i++) {      /* rings whose end is near */
        ka__box *box[2] = { &at.server->workers[i]->up, &at.server->workers[i]->down };
        for (int k = 0; k < 2; k++) {
            box[k]->write = box[k]->tail_seen = box[k]->read = box[k]->head_seen = KA_MAILBOX - 16 * (size_t)(1 + (setup >> 4) * (setup >> 4));
            atomic_store(&box[k]->head, box[k]->write);
            atomic_store(&box[k]->tail, box[k]->write);
        }
    }
    for (int framing = KA_HTTP; framing <= (messages ? KA_RESP : KA_HTTP); framing++)
        CHECK(ka_listen_as(at.server, framing == KA_HTTP && at.fields ? KA_HTTP_FIELDS : framing, "127.0.0.1", framing) == framing, "ka_listen_as");
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < at.server->workers_n; k++) {
            worker_round(at.server->workers[k]);
            while (ka_wait(at.server, &ev, 0) == KA_OK) CHECK(ev.kind == KA_LISTENING && ev.error == 0 && ev.port == 1, "%d with %d", ev.kind, ev.error);
        }
    peer *first = sim_peer(messages ? 1 + (int)(setup >> 3 & 1) : 0);
    first->framings[first->framings_n++] = (char)(first->framing = first->port);
    while (in.n > 0) (messages ? happen_message : happen)(&in);

    blocks_fail_in = watch_fails_in = -1;
    fd_limit = SIM_FDS;
    at.big = at.policy = 0;
    int how = setup >> 1 & 3;
    if (how != 3) {
        turn();
        answer_all();
        turn();
    }
    if (how == 0 || how == 1) {
        for (int i = 0; i < peers_n; i++) peers[i].window = SIZE_MAX;
        settle();
        clock_ms += KA__ACCEPT_AGAIN_MS;
        settle();
        if (how == 0) {      /* they go */
            for (int i = 0; i < peers_n; i++) {
                peers[i].fin = true;
                if (peers[i].knock == KNOCKING && !peers[i].closed) peers[i].knock = CONNECTED;
            }
            settle();
            CHECK(connections() == 0, "%d connections are left", (int)connections());
        }
    }
    if (how == 2) {          /* they neither go nor speak: time ends them all */
        at.slept = true;
        for (int i = 0; i < 16; i++) {
            clock_ms += 1000;
            settle();
        }
        size_t stay = 0;     /* idle, and not HTTP */
        for (int i = 0; i < peers_n; i++) stay += peers[i].opened && !peers[i].told;
        CHECK(connections() == stay, "%d connections wait for ever", (int)connections());
    }
    if (how != 3) {
        int64_t from = clock_ms;
        if (!at.stopping) ka_stop(at.server);
        at.stopping = true;
        while (!at.stopped) {
            settle();
            if (at.stopped) break;
            CHECK(connections() > 0, "stopping without a connection takes time");
            CHECK(clock_ms - from <= KA_DRAIN_MS, "does not stop");
            at.slept = true;
            clock_ms += 400;
        }
        CHECK(connections() == 0, "%d connections are left", (int)connections());
    } else at.freeing = true;
    ka_server_free(at.server);
    at.server = NULL;
    ka_keyring_free(&at.keys);
    for (int i = 0; i < peers_n; i++) (peers[i].port ? said_check : answers_check)(&peers[i]);
    release(&at.last);
    sim_end();
}

static void target_server(const char *text, size_t size) { serve(text, size, false); }
static void target_messages(const char *text, size_t size) { serve(text, size, true); }

/* ---- the targets, and who calls them ---- */

static const struct { const char *name; void (*run)(const char *p, size_t n); } targets[] = {
    { "base64",   target_base64 },
    { "form",     target_form },
    { "json",     target_json },
    { "resp",     target_resp },
    { "request",  target_request },
    { "response", target_response },
    { "chunked",  target_chunked },
    { "server",   target_server },
    { "messages", target_messages },
    { "journal",  target_journal },
};
static void (*target)(const char *, size_t);

static bool choose(const char *name)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        if (strcmp(targets[i].name, name)) continue;
        target_name = targets[i].name;
        target = targets[i].run;
        return true;
    }
    return false;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = getenv("FUZZ");
    (void)argc, (void)argv;
    if (name && choose(name)) return 0;
    fprintf(stderr, "FUZZ=TARGET chooses one of");
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) fprintf(stderr, " %s", targets[i].name);
    fprintf(stderr, "\n");
    exit(2);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    char *in = exact((const char *)p, n);
    target(in, n);
    exact_free(in, n);
    return 0;
}

UNGUIDED_END

#ifdef FUZZ_REPLAY

static int replayed;

static void replay(const char *path)
{
    bytes text = { 0 };
    char part[4096];
    size_t n;
    DIR *folder = opendir(path);
    if (folder) {
        for (struct dirent *e; (e = readdir(folder)) != NULL; ) {
            snprintf(part, sizeof part, "%s/%s", path, e->d_name);
            if (e->d_name[0] != '.') replay(part);
        }
        closedir(folder);
        return;
    }
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(2);
    }
    while ((n = fread(part, 1, sizeof part, f)) > 0) append(&text, part, n);
    fclose(f);
    fprintf(stderr, "%s\n", path);      /* the last one named is the one that failed */
    LLVMFuzzerTestOneInput((const uint8_t *)text.p, text.n);
    release(&text);
    replayed++;
}

/* TARGET FILE-OR-FOLDER...: run these; a target's name in between chooses that one from there on. */
int main(int argc, char **argv)
{
    if (argc < 3 || !choose(argv[1])) LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        if (!choose(argv[i])) replay(argv[i]);
    printf("%d inputs replayed\n", replayed);
}
#endif
