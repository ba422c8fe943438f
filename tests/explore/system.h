/* system.h - the simulated system. It is part of code.c, whose calls it takes the place of.
   Sockets, epoll and the peers are those of fuzz/system.h; here is what that one has not: who
   waits, and who wakes.

   Between explore_enter and explore_leave it is the system that runs. Its memory is nobody's. Calls
   that only the calling thread can tell of are no steps: a step is where another thread may come
   between. */

#define CHECK(ok, ...)                                                                            \
    do { if (!(ok)) explore_fail(__FILE__, __LINE__, #ok ": " __VA_ARGS__); } while (0)

/* What fuzz/system.h stands on. Bytes lie in a pool, which each execution begins anew. */
typedef struct { char *p; size_t n, cap; } bytes;
static char   pool[1 << 16];
static size_t pool_n;
static long   blocks_live, blocks_fail_in;
static bool   blocks_failed;

static void append(bytes *b, const void *p, size_t n)
{
    if (b->n + n > b->cap) {
        CHECK(sizeof pool - pool_n >= 2 * (b->n + n), "no room for a peer's bytes");
        char *more = pool + pool_n;
        b->cap = 2 * (b->n + n);
        pool_n += b->cap;
        if (b->n) memcpy(more, b->p, b->n);
        b->p = more;
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void release(bytes *b) { *b = (bytes){ NULL, 0, 0 }; }

#include "../../fuzz/system.h"

static void sim_settle(void) {}
static void sim_sleep(void) {}
static void sim_join(void *thread) { (void)thread; }
static void sim_known(int fd, peer *p) { (void)fd, (void)p; }
static void file_unlock(int inode, int fd) { (void)inode, (void)fd; }

/* ---- tables of descriptors: a thread has the main one, or one of its own (unshare(2), CLONE_FILES).
   A number means the same in each table that has it ---- */

static uint64_t tables[4];     /* a bit for each descriptor that is in it. The first is the main one */
static int      table_of[4];   /* for each thread: 0, or the table of its own */

static uint64_t *table(void) { return &tables[table_of[explore_self()]]; }
static uint64_t table_bit(int fd) { return (uint64_t)1 << (fd - FIRST_FD); }

/* A descriptor that this thread uses. */
static int here(int fd)
{
    CHECK(fd >= FIRST_FD && *table() & table_bit(fd), "%d is not in this thread's table", fd);
    return fd;
}

/* A descriptor that this thread has got. */
static int got(int fd)
{
    if (fd >= FIRST_FD) *table() |= table_bit(fd);
    return fd;
}

/* It goes with the last table that has it. */
static int sys_close(int fd)
{
    uint64_t all = 0;
    if (fd < FIRST_FD) return 0;
    *table() &= ~table_bit(here(fd));
    for (int i = 0; i < 4; i++) all |= tables[i];
    return all & table_bit(fd) ? 0 : sim_close(fd);
}

/* close_range(2) from 3 on, CLOSE_RANGE_UNSHARE. */
static int sys_unshare(void)
{
    table_of[explore_self()] = explore_self();
    *table() = 0;
    return 0;
}

/* pidfd_getfd(2): one of the main table. If this table has the number, another one, for nothing but
   to be closed. */
static int sys_take(int fd)
{
    errno = EBADF;
    if (!(tables[0] & table_bit(fd))) return -1;
    return got(*table() & table_bit(fd) ? sim_open(SIM_OTHER) : fd);
}

/* A worker leaves in its table what the pollers need. */
void explore_end(void)
{
    explore_enter();
    int left = 0;
    for (int i = 0; i < SIM_FDS && table_of[explore_self()]; i++)
        if (*table() >> i & 1 && ++left) sys_close(i + FIRST_FD);
    CHECK(left <= 3, "%d descriptors are left in a worker's table", left);
    explore_leave();
}

/* For each descriptor: wake-ups that are under way; of an epoll, its eventfd. */
static struct { int pending, wake; } wakers[SIM_FDS];

static void sys_begin(void)
{
    sim_begin();
    memset(wakers, 0, sizeof wakers);
    memset(tables, 0, sizeof tables);
    memset(table_of, 0, sizeof table_of);
    pool_n = 0;
}

uint64_t explore_system_hash(void)
{
    uint64_t h = 0;
    for (int i = 0; i < 4; i++) h = h * 1000003 + tables[i] * 4 + (uint64_t)table_of[i];
    for (int i = 0; i < SIM_FDS; i++) {
        const sim_fd *s = &fds[i];
        if (s->kind == SIM_FREE) continue;
        h = h * 1000003 + (uint64_t)(i * 64 + s->kind * 8 + wakers[i].pending + 1);
        h = h * 1000003 + (s->events ^ s->data << 32 ^ (uint64_t)s->epoll << 20);
    }
    for (int i = 0; i < peers_n; i++) {
        const peer *p = &peers[i];
        h = h * 1000003 + (p->to_server.n ^ p->from_server.n << 12 ^ (uint64_t)p->received << 24);
        int flags = p->accepted * 16 + p->fin * 8 + p->reset * 4 + p->reset_told * 2 + p->closed;
        h = h * 1000003 + (uint64_t)flags;
    }
    return h;
}

/* A call that others can tell of: a step. */
#define STEP(fd, text, call)                                                                      \
    __extension__({                                                                               \
        explore_call(text, fd);                                                                   \
        explore_enter();                                                                          \
        __typeof__(call) r_ = call;                                                               \
        explore_leave();                                                                          \
        explore_result((long)r_);                                                                 \
        r_;                                                                                       \
    })
#define OWN(call)                                                                                 \
    __extension__({                                                                               \
        explore_enter();                                                                          \
        __typeof__(call) r_ = call;                                                               \
        explore_leave();                                                                          \
        r_;                                                                                       \
    })

static int sys_waker(void)
{
    int fd = sim_open(SIM_OTHER);
    wakers[fd - FIRST_FD].pending = 0;
    return fd;
}

/* Wake, by an eventfd or a socket that is connected to itself. */
static ssize_t sys_wake(int fd, size_t n)
{
    sim_at(fd, SIM_OTHER);
    wakers[fd - FIRST_FD].pending++;
    return (ssize_t)n;
}

static int sys_epoll_ctl(int epoll, int op, int fd, const struct epoll_event *ev)
{
    if (fds[fd - FIRST_FD].kind == SIM_OTHER) {
        wakers[epoll - FIRST_FD].wake = fd;
        fds[fd - FIRST_FD].data = ev->data.u64;
    }
    return sim_epoll_ctl(epoll, op, fd, ev);
}

static bool sys_ready(int epoll)
{
    struct epoll_event one;
    int wake = wakers[epoll - FIRST_FD].wake;
    return wakers[wake - FIRST_FD].pending || sim_epoll_wait(epoll, &one, 1) > 0;
}

static int sys_epoll_wait(int epoll, struct epoll_event *ev, int max, int ms)
{
    if (!explore_wait("epoll_wait", sys_ready, epoll, ms)) {
        errno = EINTR;
        return ms ? -1 : 0;
    }
    explore_enter();
    int wake = wakers[here(epoll) - FIRST_FD].wake, n = 0;
    if (wakers[wake - FIRST_FD].pending) {
        wakers[wake - FIRST_FD].pending = 0;      /* it is edge-triggered */
        ev[n].events = EPOLLIN;
        ev[n++].data.u64 = fds[wake - FIRST_FD].data;
    }
    n += sim_epoll_wait(epoll, ev + n, max - n);
    explore_leave();
    for (int i = 0; i < n; i++) explore_result((long)(ev[i].data.u64 << 32 ^ ev[i].events));
    return n;
}

static bool sys_readable(int fd) { return wakers[fd - FIRST_FD].pending > 0; }

/* Only wakers are polled so. */
static int sys_poll(struct pollfd *p, int ms)
{
    bool came = explore_wait("poll", sys_readable, p->fd, ms);
    p->revents = came ? p->events : 0;
    errno = EINTR;
    return came ? 1 : ms ? -1 : 0;
}

static ssize_t sys_recv(int fd, void *out, size_t n)
{
    if (fds[fd - FIRST_FD].kind != SIM_OTHER) return sim_recv(fd, out, n);
    errno = EAGAIN;
    return sys_readable(fd) ? wakers[fd - FIRST_FD].pending--, 1 : -1;
}

static ssize_t sys_send(int fd, const void *in, size_t n)
{
    return fds[fd - FIRST_FD].kind == SIM_OTHER ? sys_wake(fd, n) : sim_send(fd, in, n);
}

static int sys_socket(int type)
{
    return (type & 15) == SOCK_DGRAM ? sys_waker() : sim_open(SIM_LISTENER);
}

static int sys_bind(int fd, const struct sockaddr *a)
{
    return fds[fd - FIRST_FD].kind == SIM_OTHER ? 0 : sim_bind(fd, a);
}

static int sys_clock(struct timespec *t)
{
    *t = (struct timespec){ .tv_sec = 1000 };      /* no time passes */
    return 0;
}

static int sys_nanosleep(const struct timespec *t)
{
    (void)t;      /* a millisecond, wherever it is called */
    explore_sleep();
    return 0;
}

/* Where the libc has no function, or keyauth.h takes none. */
static long sys_call(long number, long a, long b, long c)
{
    int fd = (int)a;
    switch (number) {
    case SYS_gettid:      return 1;
    case SYS_kcmp:        return OWN(table_of[explore_self()] != 0);
    case SYS_pidfd_open:  return OWN(got(sim_open(SIM_OTHER)));
    case SYS_pidfd_getfd: return STEP((int)b, "pidfd_getfd", sys_take((int)b));
    case SYS_close_range: return fd == FIRST_FD ? STEP(fd, "close_range", sys_unshare()) : 0;
    case SYS_recvfrom:    return STEP(fd, "recv", sys_recv(here(fd), (void *)b, (size_t)c));
    case SYS_sendto:      return STEP(fd, "send", sys_send(here(fd), (void *)b, (size_t)c));
    default:              CHECK(false, "system call %ld", number); return -1;
    }
}
