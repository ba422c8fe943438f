/* fuzz/system.h - the simulated system: sockets, epoll, clock, random bytes. */

/* The other side of a connection. */
typedef struct {
    bytes    to_server, from_server;      /* all that was ever sent */
    size_t   received;                    /* of to_server, by the server */
    size_t   cut;                         /* a receive gives so many bytes at most */
    size_t   window;                      /* bytes that this side still takes */
    bool     accepted, fin, reset, reset_told;
    bool     ended;                       /* the server sends no more */
    bool     closed;                      /* the server neither sends nor listens any more */
    bool     lost;                        /* closed with bytes unread: the answer may be lost */
    bool     cut_off;                     /* closed while it might still send, being refused */
    int64_t  refused_ms, closed_ms;
    bool     slow;                        /* its window was ever limited */
    int      port;                        /* the listener's; its own if the server connects */
    int      knock;                       /* its answer to that */
    /* what the server's targets expect of it */
    uint64_t conn;
    bool     known;                       /* conn is its number */
    bool     over, refused;               /* over: no request may follow */
    size_t   at;                          /* to_server's next request */
    uint32_t seq, answers_cap;
    struct answer *answers;
    bool     bare;                        /* an answer without a head was given: maybe the last */
    /* and where it doesn't speak HTTP */
    int framing; /* that the parent sends in; and all that it asked for, up to the last event's */
    char     framings[64];
    int      framings_n, framing_at;
    bool opened, told,
        hung_up;      /* events said so; hung_up: what the parent sends from now on is dropped */
    size_t   heard;                       /* of to_server, before the server stopped to listen */
    size_t   begins;                      /* of to_server, before ka_upgrade's answer began */
    bytes    said;                        /* what the parent sent */
} peer;

enum {
    CONNECTED,
    KNOCKING,
    REFUSED,
    REFUSED_AT_ONCE,
    OUT = 1000
};      /* OUT: ports of peers that the server connects to */

enum { SIM_FREE, SIM_OTHER, SIM_EPOLL, SIM_LISTENER, SIM_CONN, SIM_FILE, SIM_FOLDER };
enum { SIM_FDS = 64, PEERS = 40, FIRST_FD = 3 };
typedef struct {
    int      kind, epoll;
    uint32_t events;
    uint64_t data;
    peer    *peer;
    int      inode;
    bool     appends;
} sim_fd;

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
    CHECK(fds[fd - FIRST_FD].kind == kind, "descriptor %d is %d, not %d", fd,
          fds[fd - FIRST_FD].kind, kind);
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
    CHECK(fd >= FIRST_FD && fd < FIRST_FD + SIM_FDS && fds[fd - FIRST_FD].kind != SIM_FREE,
          "close(%d)", fd);
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

static int sim_name(int fd, struct sockaddr *a, socklen_t *n, int port)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    CHECK(fd >= FIRST_FD && *n >= sizeof in, "%d", fd);
    memcpy(a, &in, sizeof in);
    *n = sizeof in;
    return 0;
}

static int sim_accept(int fd, struct sockaddr *a, socklen_t *n)
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
    sim_name(new, a, n, 2);
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
    CHECK(n > 0 && !p->ended && p->knock == CONNECTED, "a send of %d bytes, after shutdown: %d, %d",
          (int)n, p->ended, p->knock);
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
    /* Two pollers may watch a listener: the bits of events tell which. SIM_OTHER is an eventfd:
       nobody sleeps here, and so nobody is woken. */
    if (s->kind == SIM_OTHER) return 0;
    if (s->kind == SIM_LISTENER) {
        uint64_t bit = (uint64_t)1 << (epoll - FIRST_FD);
        if (op == EPOLL_CTL_DEL) s->data &= ~bit;
        else s->data |= bit;
        CHECK((int)ev->data.u64 == s->inode || op == EPOLL_CTL_DEL,
              "a listener's token is its number");
        return 0;
    }
    if (op != EPOLL_CTL_DEL && watch_fails_in >= 0 && watch_fails_in-- == 0) {
        watch_failed = true;
        errno = ENOMEM;
        return -1;
    }
    CHECK((op == EPOLL_CTL_ADD) == (s->epoll < 0) && (s->epoll < 0 || s->epoll == epoll),
          "epoll_ctl %d of %d, watched by %d", op, fd, s->epoll);
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
    int kind =
        p->fd >= FIRST_FD && p->fd < FIRST_FD + SIM_FDS ? fds[p->fd - FIRST_FD].kind : SIM_FREE;
    CHECK(kind == SIM_LISTENER || kind == SIM_CONN, "poll of %d", p->fd);
    uint32_t events = sim_events(&fds[p->fd - FIRST_FD]);
    /* The bits are those of epoll. */
    p->revents = (short)((int)events & (p->events | POLLERR | POLLHUP));
    return p->revents != 0;
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
    if (name == 71) {                  /* SO_NETNS_COOKIE: this system is older than that */
        errno = ENOPROTOOPT;
        return -1;
    }
    CHECK(name == SO_ERROR, "%d", name);
    memcpy(v, &(int){ sim_at(fd, SIM_CONN)->peer->knock == REFUSED ? ECONNREFUSED : 0 },
           sizeof(int));
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
    /* A new socket is a listener until it turns out to be none. */
    sim_at(fd, SIM_LISTENER)->kind = SIM_CONN;
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

/* The key after n others is n in all of its 64 bytes, so that an input can know it; after 255 the
   first is more. */
static ssize_t sim_random(void *out, size_t n)
{
    unsigned char *p = out;
    for (size_t i = 0; i < n; i++, random_at++)
        p[i] = (unsigned char)(random_at / 64 + (random_at % 64 ? 0 : random_at / 64 / 256));
    return (ssize_t)n;
}

static int sim_thread(thrd_t *id, void *thread);
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
    for (int i = 0; i < SIM_FDS; i++)
        CHECK(fds[i].kind == SIM_FREE, "descriptor %d of kind %d is still open", i + FIRST_FD,
              fds[i].kind);
    CHECK(blocks_live == 0, "%ld blocks were not freed", blocks_live);
    for (int i = 0; i < peers_n; i++) {
        release(&peers[i].to_server);
        release(&peers[i].from_server);
        release(&peers[i].said);
        free(peers[i].answers);
    }
}
