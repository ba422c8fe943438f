/* system.h - the simulated system: descriptors, of which the wakers do something, and the clock. It is part of code.c,
   whose calls it takes the place of. Between explore_enter and explore_leave it is the system that
   runs, whose memory is nobody's. */

#define CHECK(ok, ...) do { if (!(ok)) explore_fail(__FILE__, __LINE__, #ok ": " __VA_ARGS__); } while (0)

enum { FDS = 16, FIRST_FD = 3 };
enum { FD_FREE, FD_EPOLL, FD_EVENT, FD_NULL };
static struct {
    struct { int kind, wake, pending; uint64_t data; } fds[FDS];      /* wake: an epoll's eventfd */
} sys;

static void sys_begin(void) { memset(&sys, 0, sizeof sys); }

uint64_t explore_system_hash(void)
{
    uint64_t h = 0;
    for (int i = 0; i < FDS; i++) h = h * 67 + (uint64_t)sys.fds[i].kind * 16 + (uint64_t)sys.fds[i].pending;
    return h;
}

static int sys_new(int kind)
{
    int i = 0;
    explore_enter();
    while (i < FDS && sys.fds[i].kind != FD_FREE) i++;
    CHECK(i < FDS, "too many descriptors");
    sys.fds[i].kind = kind;
    sys.fds[i].pending = 0;
    explore_leave();
    return i + FIRST_FD;
}

static int sys_close(int fd)
{
    explore_call("close", fd);
    explore_enter();
    CHECK(sys.fds[fd - FIRST_FD].kind != FD_FREE, "close(%d), which is not open", fd);
    sys.fds[fd - FIRST_FD].kind = FD_FREE;
    explore_leave();
    return 0;
}

/* Wake, by an eventfd or a socket that is connected to itself. */
static ssize_t sys_write(int fd, size_t n)
{
    explore_call("write", fd);
    explore_enter();
    CHECK(sys.fds[fd - FIRST_FD].kind == FD_EVENT, "write(%d), which is no waker", fd);
    sys.fds[fd - FIRST_FD].pending++;
    explore_leave();
    return (ssize_t)n;
}

static int sys_epoll_ctl(int epoll, int fd, const struct epoll_event *ev)
{
    sys.fds[epoll - FIRST_FD].wake = fd;
    sys.fds[fd - FIRST_FD].data = ev->data.u64;
    return 0;
}

static bool sys_ready(int epoll) { return sys.fds[sys.fds[epoll - FIRST_FD].wake - FIRST_FD].pending; }

static int sys_epoll_wait(int epoll, struct epoll_event *ev, int ms)
{
    if (!explore_wait("epoll_wait", sys_ready, epoll, ms)) {
        errno = EINTR;
        return ms ? -1 : 0;
    }
    explore_enter();
    int wake = sys.fds[epoll - FIRST_FD].wake - FIRST_FD;
    sys.fds[wake].pending = 0;      /* it is edge-triggered */
    ev->events = EPOLLIN;
    ev->data.u64 = sys.fds[wake].data;
    explore_leave();
    return 1;
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

static bool sys_readable(int fd) { return sys.fds[fd - FIRST_FD].pending > 0; }

static int sys_poll(struct pollfd *fds, int ms)
{
    bool came = explore_wait("poll", sys_readable, fds->fd, ms);
    fds->revents = came ? fds->events : 0;
    errno = EINTR;
    return came ? 1 : ms ? -1 : 0;
}

static ssize_t sys_recv(int fd)
{
    explore_call("recv", fd);
    explore_enter();
    ssize_t n = sys_readable(fd) ? 1 : -1;
    if (n > 0) sys.fds[fd - FIRST_FD].pending--;
    explore_leave();
    errno = EAGAIN;
    return n;
}
