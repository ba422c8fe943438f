/* crash/disk.h - a simulated disk: the files of one folder, and what is synced of them.

   A write is cut into units, which are sectors. Units reach the disk one by one, in any order. So
   do operations on the folder. A sync of a file makes all of its units durable. A sync of the folder
   makes all operations on the folder durable. */

enum { NAMES = 8, INODES = 16, FDS = 8, OPS = 400, FOLDER_OPS = 16, UNITS = 240, SIZES = 160 };
enum { LONG_WRITE = 1024, REAL_SECTOR = 512, FIRST_FD = 1000 };
typedef struct { size_t at, n, from; } unit;      /* n bytes at an offset; where they are in data */

typedef struct {
    bytes  now, durable;           /* as it is read; as it was when it was synced */
    bytes  data;                   /* of the units */
    unit   units[UNITS];           /* that are not synced */
    size_t sizes[SIZES];           /* that the file had since its sync; the first is durable.n */
    int    units_n, sizes_n;
} inode;

enum { SET, UNSET, RENAME, MOVE };      /* MOVE: a rename by others, which leaves one name */
typedef struct { int kind, name, from, inode; } folder_op;
typedef struct { const char *what, *name; int file; size_t at, n; } disk_step;
typedef struct { int inode; bool appends, folder; } descriptor;      /* inode 0: it is closed */

/* One choice of what a crash leaves. */
typedef struct {
    int    done[FOLDER_OPS];       /* 0: it is not there; 1: it is; 2: a rename left both names */
    int    names[NAMES], inodes[NAMES], inodes_n;
    bytes  files[NAMES];
    bool   kept[NAMES][UNITS];
    size_t sizes[NAMES];
} leftover;

typedef struct disk {
    struct disk *before;           /* the one whose crash left this one */
    int        level;              /* crashes before this run */
    bool       watched;            /* crash at each of its operations */
    int64_t    clock_ms;           /* the clock that starts anew */
    inode      inodes[INODES];     /* 0 is none */
    int        names[NAMES], durable_names[NAMES], inodes_n;
    folder_op  folder[FOLDER_OPS];
    descriptor fds[FDS];
    disk_step  ops[OPS];
    int        folder_n, ops_n;
    leftover   left;
} disk;

static disk       *now_disk;
static const char *name_list[NAMES];
static size_t      sector;         /* bytes of a unit of a short write */
static int64_t     real_ms;

static void point(void);           /* here the machine may crash */

static int name_of(const char *path)
{
    int i = 0;
    while (i < NAMES && name_list[i] && strcmp(path, name_list[i])) i++;
    CHECK(i < NAMES && name_list[i], "no file is called %s", path);
    return i;
}

static inode *inode_named(int name)
{
    return now_disk->names[name] ? &now_disk->inodes[now_disk->names[name]] : NULL;
}

static descriptor *descriptor_of(int fd)
{
    CHECK(fd >= FIRST_FD && fd < FIRST_FD + FDS, "descriptor %d", fd);
    return &now_disk->fds[fd - FIRST_FD];
}

static inode *inode_of(int fd) { return &now_disk->inodes[descriptor_of(fd)->inode]; }

/* name: NULL, or which one; file: 0, or which inode. */
static void done_op(const char *what, const char *name, int file, size_t at, size_t n)
{
    CHECK(now_disk->ops_n < OPS, "operations");
    now_disk->ops[now_disk->ops_n++] = (disk_step){ what, name, file, at, n };
    point();
}

static void inode_sync(inode *f)
{
    resize(&f->durable, 0);
    append(&f->durable, f->now.p, f->now.n);
    f->units_n = 0;
    f->data.n = 0;
    f->sizes[0] = f->now.n;
    f->sizes_n = 1;
}

static int inode_new(const bytes *content)
{
    CHECK(now_disk->inodes_n < INODES - 1, "inodes");
    int at = ++now_disk->inodes_n;
    inode *f = &now_disk->inodes[at];
    if (content) append(&f->now, content->p, content->n);
    inode_sync(f);
    return at;
}

static void size_add(inode *f, size_t size)
{
    for (int i = 0; i < f->sizes_n; i++) if (f->sizes[i] == size) return;
    CHECK(f->sizes_n < SIZES, "sizes");
    f->sizes[f->sizes_n++] = size;
}

/* One unit of a write. One that changes nothing, whether others are there or not, is left out. */
static void unit_add(inode *f, size_t at, const char *p, size_t n)
{
    bool changes = false;
    for (size_t i = 0; i < n && !changes; i++) {
        char is = at + i < f->now.n ? f->now.p[at + i] : 0;
        changes = is != p[i];
    }
    for (int i = 0; i < f->units_n && !changes; i++)
        changes = f->units[i].at < at + n && at < f->units[i].at + f->units[i].n;
    if (!changes) return;
    size_add(f, at + n > f->now.n ? at + n : f->now.n);
    CHECK(f->units_n < UNITS, "units");
    f->units[f->units_n++] = (unit){ at, n, f->data.n };
    append(&f->data, p, n);
}

/* Bytes in units that end where sectors do. */
static void inode_write(inode *f, size_t at, const char *p, size_t n)
{
    size_t size = n < LONG_WRITE ? sector : REAL_SECTOR;
    for (size_t part; n > 0; at += part, p += part, n -= part) {
        part = size - at % size < n ? size - at % size : n;
        unit_add(f, at, p, part);
        if (at + part > f->now.n) resize(&f->now, at + part);
        memcpy(f->now.p + at, p, part);
    }
    size_add(f, f->now.n);
}

/* What is cut off is zeros, should the file grow again; or it is there yet. */
static void inode_cut(inode *f, size_t size)
{
    static const char zeros[1 << 16];
    CHECK(f->now.n - size <= sizeof zeros, "cut by %d bytes", (int)(f->now.n - size));
    inode_write(f, size, zeros, f->now.n - size);
    resize(&f->now, size);
    size_add(f, size);
}

static void folder_change(int kind, int name, int from, int at)
{
    CHECK(now_disk->folder_n < FOLDER_OPS, "operations on the folder");
    now_disk->folder[now_disk->folder_n++] = (folder_op){ kind, name, from, at };
    now_disk->names[name] = kind == UNSET ? 0 : at;
    if (kind >= RENAME) now_disk->names[from] = 0;
}

/* ---- the system's calls ---- */

static int sim_open(const char *path, int flags, ...)
{
    const bool folder = flags & O_DIRECTORY;
    int fd = 0, at = INODES, name = folder ? 0 : name_of(path);
    CHECK(!folder || strcmp(path, "d/") == 0, "the folder %s", path);
    if (!folder) at = now_disk->names[name];
    if (!folder && (at != 0) == !!(flags & O_CREAT)) return errno = at ? EEXIST : ENOENT, -1;
    while (now_disk->fds[fd].inode) fd++;
    CHECK(fd < FDS, "descriptors");
    if (at == 0) {
        at = inode_new(NULL);
        folder_change(SET, name, 0, at);
        done_op("create", name_list[name], at, 0, 0);
    }
    now_disk->fds[fd] = (descriptor){ at, flags & O_APPEND, folder };
    return fd + FIRST_FD;
}

static int sim_close(int fd)
{
    if (fd >= 0) descriptor_of(fd)->inode = 0;
    return 0;
}

static int sim_statx(int fd, const char *path, struct statx *s)
{
    int at = *path ? now_disk->names[name_of(path)] : descriptor_of(fd)->inode;
    uint32_t links = 0;
    if (!at) return errno = ENOENT, -1;
    for (int i = 0; i < NAMES; i++) links += now_disk->names[i] == at;
    *s = (struct statx){ .stx_ino = (unsigned)at, .stx_nlink = links, .stx_uid = geteuid(),
                         .stx_mode = S_IFREG | 0600, .stx_size = now_disk->inodes[at].now.n };
    return 0;
}

static ssize_t sim_pread(int fd, void *p, size_t n, off_t at)
{
    const inode *f = inode_of(fd);
    size_t rest = (size_t)at < f->now.n ? f->now.n - (size_t)at : 0;
    if (n > rest) n = rest;
    if (n) memcpy(p, f->now.p + at, n);
    return (ssize_t)n;
}

static int sim_fcntl(int fd, int what, int flags)
{
    CHECK(what == F_SETFL, "fcntl %d", what);
    descriptor_of(fd)->appends = flags & O_APPEND;
    return 0;
}

static ssize_t sim_pwrite(int fd, const void *p, size_t n, off_t offset)
{
    inode *f = inode_of(fd);
    size_t at = descriptor_of(fd)->appends ? f->now.n : (size_t)offset;
    CHECK(at <= f->now.n, "a hole at %d", (int)at);
    inode_write(f, at, p, n);
    done_op("write", NULL, descriptor_of(fd)->inode, at, n);
    return (ssize_t)n;
}

static ssize_t sim_write(int fd, const void *p, size_t n)
{
    CHECK(descriptor_of(fd)->appends, "written where it happens to stand");
    return sim_pwrite(fd, p, n, 0);
}

static int sim_ftruncate(int fd, off_t size)
{
    inode_cut(inode_of(fd), (size_t)size);
    done_op("truncate", NULL, descriptor_of(fd)->inode, (size_t)size, 0);
    return 0;
}

static int sim_fdatasync(int fd)
{
    inode_sync(inode_of(fd));
    done_op("fdatasync", NULL, descriptor_of(fd)->inode, 0, 0);
    return 0;
}

static int sim_fsync(int fd)
{
    CHECK(descriptor_of(fd)->folder, "fsync of a file");
    memcpy(now_disk->durable_names, now_disk->names, sizeof now_disk->names);
    now_disk->folder_n = 0;
    done_op("fsync of the folder", NULL, 0, 0, 0);
    return 0;
}

static int rename_as(int kind, int from, int to)
{
    CHECK(now_disk->names[from], "%s is not there", name_list[from]);
    folder_change(kind, to, from, now_disk->names[from]);
    done_op(kind == MOVE ? "others move" : "rename", name_list[to], now_disk->names[to], 0, 0);
    return 0;
}

static int sim_rename(const char *from, const char *to)
{
    return rename_as(RENAME, name_of(from), name_of(to));
}

static int sim_link(const char *path, const char *name)
{
    int to = name_of(name);
    if (now_disk->names[to]) return errno = EEXIST, -1;
    folder_change(SET, to, 0, now_disk->names[name_of(path)]);
    done_op("link", name_list[to], now_disk->names[to], 0, 0);
    return 0;
}

static int sim_unlink(const char *path)
{
    int name = name_of(path);
    if (!now_disk->names[name]) return errno = ENOENT, -1;
    folder_change(UNSET, name, 0, 0);
    done_op("unlink", name_list[name], 0, 0, 0);
    return 0;
}

static int sim_clock(clockid_t which, struct timespec *t)
{
    int64_t ms = which == CLOCK_REALTIME ? real_ms : now_disk->clock_ms;
    *t = (struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = ms % 1000 * 1000000L };
    return 0;
}
