/* fuzz/files.h - simulated files: three names in a folder, and what a power cut leaves of them.

   The names since the folder was synced are all kept: any of them may be what a power cut leaves. A file has its bytes
   as they are read, and as they are on disk. A sync that fails writes some of them and calls all of them written. */

enum { JOURNAL, FRESH, DAMAGED, NAMES, STATES = 16, INODES = NAMES * STATES + 8, BLOCK = 8 };
typedef struct { int of[NAMES]; } names;      /* their inodes; -1: none */

typedef struct {
    bytes now, dirty,
        disk; /* dirty: 1 for each byte of now that was written since the last sync. Both may go on
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
    if (files.states_n == STATES)
        memmove(&files.states[1], &files.states[2], (STATES - 2) * sizeof(names));
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

static sim_file *file_named(int name)
{
    return names_now()->of[name] < 0 ? NULL : &files.inodes[names_now()->of[name]];
}
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
        if (files.states[i / NAMES].of[i % NAMES] >= 0)
            used[files.states[i / NAMES].of[i % NAMES]] = true;
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
    size_t low = f->n < f->disk.n ? f->n : f->disk.n,
           high = f->now.n > f->disk.n ? f->now.n : f->disk.n;
    size_t sizes[4] = { f->n, f->n, f->disk.n, low + coin(high - low + 1) }, size = sizes[coin(4)],
           how = coin(4);
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
    bool make = flags & O_CREAT;
    int always = O_RDWR | O_NOFOLLOW | O_NONBLOCK;
    CHECK((flags & always) == always && make == !!(flags & O_EXCL), "flags %x", (unsigned)flags);
    if (file_fails()) return -1;
    at = names_now()->of[name];
    if ((at >= 0) == make) {
        errno = make ? EEXIST : ENOENT;
        return -1;
    }
    if ((fd = sim_open(SIM_FILE)) < 0) return -1;
    if (make) at = names_next()->of[name] = file_new();
    fds[fd - FIRST_FD].inode = at;
    fds[fd - FIRST_FD].appends = flags & O_APPEND;
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

/* Of a descriptor, if the path is empty. */
static int sim_statx(int fd, const char *path, int how, unsigned what, struct statx *s)
{
    int at = *path ? names_now()->of[name_of(path)] : sim_at(fd, SIM_FILE)->inode;
    uint32_t links = 0;
    CHECK(how == (*path ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH), "statx %s, %x", path,
          (unsigned)how);
    CHECK(!(what & (STATX_ATIME | STATX_MTIME | STATX_CTIME)), "asked for times");
    if (at < 0) return errno = ENOENT, -1;
    if (file_fails()) return -1;
    for (int i = 0; i < NAMES; i++) links += names_now()->of[i] == at;
    *s = (struct statx){ .stx_ino = (uint64_t)at + 1, .stx_nlink = links, .stx_uid = geteuid(),
                         .stx_mode = S_IFREG | 0600, .stx_size = files.inodes[at].n };
    return 0;
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

static int sim_fchmod(int fd)
{
    sim_at(fd, SIM_FILE);
    return file_fails() ? -1 : 0;
}

/* Descriptors of other kinds are not asked for theirs. */
static int sim_append(int fd, int what, int flags)
{
    CHECK(what == F_SETFL && (flags == O_APPEND || flags == 0), "fcntl %d, %x", what,
          (unsigned)flags);
    if (file_fails()) return -1;
    sim_at(fd, SIM_FILE)->appends = flags == O_APPEND;
    return 0;
}

static ssize_t sim_pwrite(int fd, const void *p, size_t n, off_t at)
{
    sim_file *f = file_at(fd);
    if (file_fails()) return -1;
    if (sim_at(fd, SIM_FILE)->appends) at = (off_t)f->n;      /* as on Linux, whatever at is */
    if (n > files.most) n = files.most;
    CHECK(n > 0 && (size_t)at <= f->n, "%d bytes at %d, behind the end of %d", (int)n, (int)at,
          (int)f->n);
    size_t end = (size_t)at + n;
    if (end > f->now.n) resize(&f->now, end);
    if (end > f->dirty.n) resize(&f->dirty, end);
    memcpy(f->now.p + at, p, n);
    memset(f->dirty.p + at, 1, n);
    if (end > f->n) f->n = end;
    return (ssize_t)n;
}

static ssize_t sim_write(int fd, const void *p, size_t n)
{
    if (fds[fd - FIRST_FD].kind != SIM_FILE) return (ssize_t)n;      /* a wake-up */
    CHECK(sim_at(fd, SIM_FILE)->appends, "written where it happens to stand");
    return sim_pwrite(fd, p, n, 0);
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
