/* ext/file.h - files that are written at once or not at all; and files that are kept open and grow,
   for logs and journals.

   HOW TO INCLUDE: after keyauth.h. The code comes where KEYAUTH_IMPLEMENTATION is defined.

   USE
       char token[64], why[KA_TROUBLE_TEXT];
       int r = ka_file_put("state/token", "a secret", 8);
       if (r < 0) printf("state/token: %s\n", ka_file_trouble(why, "state/token", r, 0));
       ptrdiff_t got = ka_file_get("state/token", token, sizeof token);
       if (got >= 0) printf("%.*s\n", (int)got, token);

   CONTENTS
     ka_file_put, get, peek, remove    a whole file; ka_file_trouble tells an error in words
     ka_file_open, close               a file that is kept open, and grows: ka_file_append, _sync...
     ka_file_fresh, write, replace     such a file is written anew

   WHICH FILES
     Only a regular file that belongs to this process's effective user and has one name is used. Its
     name with .new behind it does not count: a power cut can leave that of a rename. What else is
     found is left as it is, and is KA_EINVAL (a folder, a symbolic link, a device...) or
     KA_EFOREIGN (another user's; a hard link). A file that holds something else than it should is
     left as it is, too, and so is one of the name path.new. On Windows the owner is not looked up.
     A file that is made has mode 0600, whatever the umask is. A file that is written anew keeps its
     mode. It keeps its group if that is permitted; else the group loses its rights.
     A path is for one thread of one process at a time. On POSIX SIGXFSZ is ignored from the first
     file on: at the limit of `ulimit -f` a write shall fail, and no more. */

#ifndef KEYAUTH_H
#  error "ext/file.h: include keyauth.h first"
#endif

#ifndef KEYAUTH_FILE_H
#define KEYAUTH_FILE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Replace a file by n bytes, or make it with the folders of its path. A reader sees the old bytes
   or the new ones, never a mixture. The file is not synced. path.new is written first. It replaces
   a file of this process's user that has that name.
     returns    KA_OK, or KA_EINVAL (also a path that is empty, over KA_FILE_PATH bytes, or ends
                with a slash), KA_EFOREIGN, KA_ENOTFOUND, KA_ENOSPC, KA_EPERM, KA_EINUSE (also
                path.new is in the way), KA_ELIMIT, KA_EOS: then the file is as it was */
KADEF int ka_file_put(const char *path, const void *p, size_t n);

/* Read a file from its beginning, cap bytes of it at most.
     returns    the bytes that were read, or KA_ENOTFOUND: it is not there; KA_EINVAL, KA_EFOREIGN,
                KA_EPERM, KA_EINUSE, KA_ELIMIT, KA_EOS */
KADEF ptrdiff_t ka_file_get(const char *path, void *out, size_t cap);

/* As ka_file_get, but the file may be another user's, and a link may lead to it. It may be a
   password that an administrator gives. A pipe is KA_EOS, since its writer may never come. */
KADEF ptrdiff_t ka_file_peek(const char *path, void *out, size_t cap);

/* Does the file's mode let users other than its owner write to it? Windows: false. */
KADEF bool ka_file_others_write(const char *path);

/* Remove a file, if it is there. KA_OK, or KA_EINVAL, KA_EFOREIGN, KA_EPERM, KA_EOS... */
KADEF int ka_file_remove(const char *path);

/* Why one of these functions, a journal or a log failed with a file, in English: "it is a symbolic
   link". The path is looked at again for that.
     out        the text, and a NUL
     error, os_error   what the function said; os_error 0: it said none
     returns    out */
KADEF const char *ka_file_trouble(char out[KA_TROUBLE_TEXT], const char *path, int error,
                                  int os_error);

/* ---- a file that is kept open ----

   It is locked, and it grows at its end under its name. Others may move, remove or change it
   meanwhile: ka_file_look tells. The functions return KA_OK or errors as those of ka_file_put, and
   then set f->os_error. One thread at a time for each ka_file. */

enum { KA_FILE_PATH = 4000, KA_FILE_HEAD = 256 };     /* bytes of a path, and for ka_file_holds */

typedef struct {
    int64_t  size;           /* bytes that are synced, or were there before. Yours to set before
                                ka_file_mend: where the file shall end */
    int64_t  ahead;          /* yours to set: so many zeros are written behind an append that needs
                                room, and the next ones go over them. A sync then has no new size
                                to record. 0: none. ka_file_close cuts them off */
    int64_t  room;           /* size, and the zeros behind it: what ka_file_look should tell */
    int      os_error;       /* the system's code behind the last error, or 0 */
    bool     twin;           /* ka_file_open found the second name that it was told of */
    bool     named;          /* its name is on disk, too */
    bool     torn;           /* bytes of an append that failed are behind size: call ka_file_mend */
    bool     unsure;         /* a sync failed. What is on disk is not known until the file is
                                replaced: a later sync would succeed, and prove nothing */
    /* its own */
    bool     appends;        /* writes go to its end */
    bool     grown;          /* what is behind size, up to room, are our zeros */
    bool     tight;          /* there was no room for zeros: not tried again until it is replaced */
    intptr_t handle;         /* a descriptor or HANDLE, plus 1; 0: it is not open */
    uint64_t device, inode, links;
    char     path[KA_FILE_PATH + 1];
} ka_file;

/* Open a file, or make it. No other process can open it by this function meanwhile. A file that is
   there is not changed, and size is its size.
     path       copied. NULL: close f, and open what its path leads to now
     twin       a path that may be a second name of the file; NULL: none may
     returns    as ka_file_put; KA_EINUSE: another process has the file. After an error it is
                closed */
KADEF int ka_file_open(ka_file *f, const char *path, const char *twin);

/* Close it, without the zeros ahead; but if others changed its size, as they left it. Harmless if
   it is closed, or zeroed. */
KADEF void ka_file_close(ka_file *f);

/* Read n bytes from an offset on.
     returns    the bytes that were read, which are fewer at the file's end; or an error */
KADEF ptrdiff_t ka_file_read(ka_file *f, int64_t at, void *out, size_t n);

/* Does the file hold these bytes from an offset on, or as many of them as it has?
     n          KA_FILE_HEAD of them are looked at, at most
     returns    KA_OK, or KA_ESYNTAX: it holds something else; or an error */
KADEF int ka_file_holds(ka_file *f, int64_t at, const void *p, size_t n);

/* Does the path still lead to this file?
     *size      the file's size now, after KA_OK and KA_EFOREIGN
     returns    KA_OK; KA_ENOTFOUND: the path leads to none, or to another one; KA_EFOREIGN: the
                file is another user's now, or has more or fewer names than when it was opened; or
                an error */
KADEF int ka_file_look(ka_file *f, int64_t *size);

/* Write bytes at the file's end, and sync them: where the end is now, or with f->ahead at f->size.
   If that fails, what was written is cut off again, or f->torn is set. With f->ahead KA_ENOTFOUND
   says that others changed the file's size; then nothing is written. */
KADEF int ka_file_append(ka_file *f, const void *p, size_t n);

/* Cut off what is behind size, and sync: else a crash could bring it back. */
KADEF int ka_file_mend(ka_file *f);

/* Write over bytes that are there; not synced. Only before the first append. */
KADEF int ka_file_overwrite(ka_file *f, int64_t at, const void *p, size_t n);

/* Sync the file and its name. */
KADEF int ka_file_sync(ka_file *f);

/* Begin to write a file anew: make an empty path.new. A path.new that a crash has left is replaced,
   if it begins with `begins` or with zeros. Any other path.new is in the way: KA_EINUSE.
     fresh      to be closed by ka_file_replace
     begins     n bytes, KA_FILE_HEAD at most */
KADEF int ka_file_fresh(ka_file *f, ka_file *fresh, const void *begins, size_t n);

/* Write bytes at the end of a fresh file; not synced. */
KADEF int ka_file_write(ka_file *fresh, const void *p, size_t n);

/* Put the fresh file, synced, in the place of f, with the mode of f, at once for whoever reads it.
   f is the fresh one then. After an error path.new is removed, and f is as it was (on Windows f may
   be closed). One error is different: if only the name could not be synced, f is the fresh one, and
   f->named is false.
     r          what ka_file_fresh or ka_file_write returned; an error of theirs is returned */
KADEF int ka_file_replace(ka_file *f, ka_file *fresh, int r);

/* Give the file a second name; and remove a second name. */
KADEF int ka_file_link(ka_file *f, const char *name);
KADEF int ka_file_unlink(const char *name);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_FILE_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_FILE_IMPLEMENTED)
#define KEYAUTH_FILE_IMPLEMENTED

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(_WIN32)
#  include <windows.h>
#else
#  include <fcntl.h>
#  include <signal.h>
#  include <sys/file.h>
#  include <sys/stat.h>
#  include <unistd.h>
#endif

/* ---- what differs between systems. A function that fails returns KA_E..., and ka__file_os_code()
        tells the system's own code right after it ---- */

/* How to open a file. One of the first three, and any of the others. */
enum {
    KA__FILE_KEEP = 0,               /* the file that is there, or a new one */
    KA__FILE_THERE = 1,              /* the file that is there */
    KA__FILE_NEW = 2,                /* a new file; nothing may be there */
    KA__FILE_APPEND = 4,             /* writes go to its end */
    KA__FILE_TWIN = 8,               /* it may have a second name */
    KA__FILE_READ = 16               /* ka__file_get's: only to read, and links are followed */
};
enum {
    KA__FILE_END = -1,               /* an offset: where the file ends when it is written to */
    KA__FILE_PATH = KA_FILE_PATH + 96,      /* room for a path with ".new" and such behind it */
    KA__FILE_OPENINGS = 10           /* attempts to open a file that others replace meanwhile */
};

typedef enum { KA__FILE_REGULAR, KA__FILE_FOLDER, KA__FILE_LINK, KA__FILE_SPECIAL } ka__file_kind;

/* What is known of a file without opening it. On Windows each file counts as ours: who owns it is
   not looked up. */
typedef struct {
    ka__file_kind kind;
    bool     ours;                  /* its owner is this process's effective user */
    uint64_t device, inode;         /* both are another file's when the file is another */
    uint64_t links, owner, group;
    unsigned mode;
    int64_t  size;
} ka__file_info;

#if defined(_WIN32)
typedef HANDLE ka__file_handle;
static int ka__file_os_code(void) { return (int)GetLastError(); }
static void ka__file_os_code_set(int code) { SetLastError((DWORD)code); }
#define KA__FILE_NONE INVALID_HANDLE_VALUE
#define KA__FILE_MOUNTED ERROR_BUSY

static int ka__file_error(void)
{
    switch (GetLastError()) {
    case ERROR_SHARING_VIOLATION: case ERROR_ALREADY_EXISTS:  return KA_EINUSE;
    case ERROR_ACCESS_DENIED: case ERROR_WRITE_PROTECT:       return KA_EPERM;
    case ERROR_FILE_NOT_FOUND: case ERROR_PATH_NOT_FOUND:     return KA_ENOTFOUND;
    case ERROR_DISK_FULL: case ERROR_HANDLE_DISK_FULL:        return KA_ENOSPC;
    default:                                                  return KA_EOS;
    }
}

static void ka__file_close(ka__file_handle f) { if (f != KA__FILE_NONE) CloseHandle(f); }
static int ka__file_remove(const char *path)
{
    return DeleteFileA(path) ? KA_OK : ka__file_error();
}

static int ka__file_rename(const char *from, const char *to)
{
    DWORD how = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
    return MoveFileExA(from, to, how) ? KA_OK : ka__file_error();
}

static bool ka__file_is_slash(char c) { return c == '/' || c == '\\'; }
static int ka__file_folder_make(const char *path)
{
    return CreateDirectoryA(path, NULL) ? KA_OK : ka__file_error();
}

/* OneDrive's files are reparse points, too, and no links. */
static bool ka__file_is_link(HANDLE h, DWORD attributes)
{
    FILE_ATTRIBUTE_TAG_INFO tag;
    if (!(attributes & FILE_ATTRIBUTE_REPARSE_POINT)) return false;
    if (!GetFileInformationByHandleEx(h, FileAttributeTagInfo, &tag, sizeof tag)) return true;
    return IsReparseTagNameSurrogate(tag.ReparseTag);
}

static int ka__file_look(ka__file_handle f, ka__file_info *l)
{
    BY_HANDLE_FILE_INFORMATION i;
    *l = (ka__file_info){ .kind = KA__FILE_SPECIAL, .ours = true };
    if (GetFileType(f) != FILE_TYPE_DISK) return KA_OK;
    if (!GetFileInformationByHandle(f, &i)) return ka__file_error();
    bool folder = i.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY;
    l->kind = folder ? KA__FILE_FOLDER : KA__FILE_REGULAR;
    if (ka__file_is_link(f, i.dwFileAttributes)) l->kind = KA__FILE_LINK;
    l->device = i.dwVolumeSerialNumber;
    l->inode = (uint64_t)i.nFileIndexHigh << 32 | i.nFileIndexLow;
    l->links = i.nNumberOfLinks;
    l->size = (int64_t)((uint64_t)i.nFileSizeHigh << 32 | i.nFileSizeLow);
    return KA_OK;
}

/* A file that was removed is there until it is closed, and nobody may open it. */
static int ka__file_look_at(const char *path, ka__file_info *l)
{
    HANDLE h = CreateFileA(path, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                           OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT,
                           NULL);
    if (h == INVALID_HANDLE_VALUE && GetLastError() == ERROR_ACCESS_DENIED) return KA_ENOTFOUND;
    if (h == INVALID_HANDLE_VALUE) return ka__file_error();
    int r = ka__file_look(h, l);
    DWORD code = GetLastError();
    CloseHandle(h);
    SetLastError(code);
    return r;
}

/* Nobody else may write to it while it is open; renaming is for us. */
static int ka__file_get(ka__file_handle *f, const char *path, bool make, int how)
{
    bool read = how & KA__FILE_READ;
    *f = CreateFileA(path, read ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE,
                     FILE_SHARE_READ | FILE_SHARE_DELETE | (read ? FILE_SHARE_WRITE : 0), NULL,
                     make ? CREATE_NEW : OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    return *f != KA__FILE_NONE ? KA_OK : ka__file_error();
}

/* CreateFileA has locked it. */
static int ka__file_lock(ka__file_handle f)
{
    (void)f;
    return KA_OK;
}

static int ka__file_like(ka__file_handle f, const ka__file_info *l)
{
    (void)f;
    (void)l;
    return KA_OK;
}

/* KA__FILE_END is an offset that Windows knows. */
static int ka__file_to_end(ka__file_handle f, bool always)
{
    (void)f;
    (void)always;
    return KA_OK;
}

static ptrdiff_t ka__file_read_some(ka__file_handle f, void *p, size_t n, int64_t at)
{
    OVERLAPPED o = { .Offset = (DWORD)at, .OffsetHigh = (DWORD)((uint64_t)at >> 32) };
    DWORD got = 0;
    if (ReadFile(f, p, (DWORD)n, &got, &o)) return (ptrdiff_t)got;
    return GetLastError() == ERROR_HANDLE_EOF ? (ptrdiff_t)got : ka__file_error();
}

static ptrdiff_t ka__file_write_some(ka__file_handle f, const void *p, size_t n, int64_t at)
{
    OVERLAPPED o = { .Offset = (DWORD)at, .OffsetHigh = (DWORD)((uint64_t)at >> 32) };
    DWORD put = 0;
    return WriteFile(f, p, (DWORD)n, &put, &o) && put > 0 ? (ptrdiff_t)put : ka__file_error();
}

static int ka__file_sync(ka__file_handle f)
{
    return FlushFileBuffers(f) ? KA_OK : ka__file_error();
}

static int ka__file_cut(ka__file_handle f, int64_t size)
{
    LARGE_INTEGER to = { .QuadPart = size };
    return SetFilePointerEx(f, to, NULL, FILE_BEGIN) && SetEndOfFile(f) ? KA_OK : ka__file_error();
}

static int ka__file_link(const char *path, const char *name)
{
    return CreateHardLinkA(name, path, NULL) ? KA_OK : ka__file_error();
}

/* Windows does not replace a file that is open: if this fails, *f may be KA__FILE_NONE. */
static int ka__file_replace(ka__file_handle *f, ka__file_handle by, const char *from,
                            const char *to)
{
    ka__file_close(*f);
    int r = ka__file_rename(from, to);
    if (r == KA_OK) return *f = by, KA_OK;
    DWORD code = GetLastError();
    ka__file_get(f, to, false, KA__FILE_KEEP);
    SetLastError(code);
    return r;
}

/* MOVEFILE_WRITE_THROUGH has synced it. */
static int ka__file_folder_sync(const char *path)
{
    (void)path;
    return KA_OK;
}
#else
typedef int ka__file_handle;
static int ka__file_os_code(void) { return errno; }
static void ka__file_os_code_set(int code) { errno = code; }
#define KA__FILE_NONE (-1)
#define KA__FILE_MOUNTED EBUSY          /* the code of a rename to a name that is a mount point */

static int ka__file_error(void)
{
    switch (errno) {
    case EACCES: case EPERM: case EROFS:  return KA_EPERM;
    case EMFILE: case ENFILE:             return KA_ELIMIT;
    case EISDIR: case ELOOP: case ENAMETOOLONG: return KA_EINVAL;
    case ENOENT: case ENOTDIR:            return KA_ENOTFOUND;
    case ENOSPC: case EDQUOT: case EFBIG: return KA_ENOSPC;
    case EEXIST: case ETXTBSY:            return KA_EINUSE;
    default:                              return KA_EOS;
    }
}

static void ka__file_close(ka__file_handle f) { if (f != KA__FILE_NONE) close(f); }
static int ka__file_remove(const char *path)
{
    return unlink(path) == 0 ? KA_OK : ka__file_error();
}

static int ka__file_rename(const char *from, const char *to)
{
    return rename(from, to) == 0 ? KA_OK : ka__file_error();
}

static bool ka__file_is_slash(char c) { return c == '/'; }

/* chmod, since the umask may have taken rights of its owner away. */
static int ka__file_folder_make(const char *path)
{
    return mkdir(path, 0700) == 0 && chmod(path, 0700) == 0 ? KA_OK : ka__file_error();
}

static int ka__file_info_read(ka__file_info *l, int failed, const struct stat *s)
{
    if (failed) return ka__file_error();
    *l = (ka__file_info){
        .kind = KA__FILE_SPECIAL,
        .ours = s->st_uid == geteuid(),
        .device = (uint64_t)s->st_dev, .inode = (uint64_t)s->st_ino,
        .links = (uint64_t)s->st_nlink, .owner = s->st_uid, .group = s->st_gid,
        .mode = s->st_mode & 0777, .size = (int64_t)s->st_size,
    };
    if (S_ISREG(s->st_mode)) l->kind = KA__FILE_REGULAR;
    if (S_ISDIR(s->st_mode)) l->kind = KA__FILE_FOLDER;
    if (S_ISLNK(s->st_mode)) l->kind = KA__FILE_LINK;
    return KA_OK;
}

#  if defined(STATX_SIZE)      /* Linux; not by older versions of musl */
/* Without the times. Since Linux 6.13 the write after a question for them gives the file a new time
   (multigrain timestamps), and the next fdatasync has to record that: a quarter of its time. */
static int ka__file_stat(int at, const char *path, int how, struct stat *s)
{
    struct statx x;
    unsigned what = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_UID | STATX_GID | STATX_INO;
    if (statx(at, path, how, what | STATX_SIZE, &x) != 0) return -1;
    *s = (struct stat){
        .st_mode = x.stx_mode, .st_nlink = x.stx_nlink, .st_uid = x.stx_uid, .st_gid = x.stx_gid,
        .st_dev = (dev_t)x.stx_dev_major << 32 | x.stx_dev_minor,
        .st_ino = (ino_t)x.stx_ino, .st_size = (off_t)x.stx_size,
    };
    return 0;
}
#  else
static int ka__file_stat(int at, const char *path, int how, struct stat *s)
{
    (void)how;
    return *path ? lstat(path, s) : fstat(at, s);
}
#    ifndef AT_EMPTY_PATH
#      define AT_EMPTY_PATH 0
#    endif
#  endif

static int ka__file_look(ka__file_handle f, ka__file_info *l)
{
    struct stat s;
    return ka__file_info_read(l, ka__file_stat(f, "", AT_EMPTY_PATH, &s), &s);
}

static int ka__file_look_at(const char *path, ka__file_info *l)
{
    struct stat s;
    return ka__file_info_read(l, ka__file_stat(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &s), &s);
}

/* O_NONBLOCK: a named pipe that was put there this moment does not hold us up. A new file's mode is
   0600, whatever the umask is. */
static int ka__file_get(ka__file_handle *f, const char *path, bool make, int how)
{
    signal(SIGXFSZ, SIG_IGN);      /* at the limit of `ulimit -f` a write shall fail, no more */
    int flags = how & KA__FILE_READ ? O_RDONLY | O_NOCTTY : O_RDWR | O_NOFOLLOW;
    flags |= O_CLOEXEC | O_NONBLOCK;
    if (how & KA__FILE_APPEND) flags |= O_APPEND;
    *f = open(path, make ? flags | O_CREAT | O_EXCL : flags, 0600);
    if (*f < 0) return ka__file_error();
    if (!make || fchmod(*f, 0600) == 0) return KA_OK;
    int r = ka__file_error(), code = errno;
    close(*f);
    *f = KA__FILE_NONE;
    unlink(path);
    errno = code;
    return r;
}

static int ka__file_lock(ka__file_handle f)
{
    if (flock(f, LOCK_EX | LOCK_NB) == 0) return KA_OK;
    return errno == EWOULDBLOCK ? KA_EINUSE : ka__file_error();
}

/* Give a new file the mode and the group of the one whose place it takes. If the group can't be
   given, the group that it has gets no rights. */
static int ka__file_like(ka__file_handle f, const ka__file_info *l)
{
    bool given = fchown(f, (uid_t)-1, (gid_t)l->group) == 0;
    return fchmod(f, (mode_t)(l->mode & (given ? 0777 : 0707))) == 0 ? KA_OK : ka__file_error();
}

/* From now on each write goes to its end, as with KA__FILE_APPEND; or where it is told to. */
static __attribute__((unused)) int ka__file_to_end(ka__file_handle f, bool always)
{
    return fcntl(f, F_SETFL, always ? O_APPEND : 0) == 0 ? KA_OK : ka__file_error();
}

static ptrdiff_t ka__file_read_some(ka__file_handle f, void *p, size_t n, int64_t at)
{
    ssize_t got = pread(f, p, n, (off_t)at);
    if (got >= 0) return got;
    return errno == EINTR ? KA_EAGAIN : ka__file_error();
}

static ptrdiff_t ka__file_write_some(ka__file_handle f, const void *p, size_t n, int64_t at)
{
    ssize_t put = at == KA__FILE_END ? write(f, p, n) : pwrite(f, p, n, (off_t)at);
    if (put > 0) return put;
    return put < 0 && errno == EINTR ? KA_EAGAIN : ka__file_error();
}

static int ka__file_cut(ka__file_handle f, int64_t size)
{
    return ftruncate(f, (off_t)size) == 0 ? KA_OK : ka__file_error();
}

static __attribute__((unused)) int ka__file_link(const char *path, const char *name)
{
    return link(path, name) == 0 ? KA_OK : ka__file_error();
}

static int ka__file_sync(ka__file_handle f)
{
#  if defined(__APPLE__)
    /* fsync(2) there leaves the data in the disk's own cache; network volumes know nothing else */
    if (fcntl(f, F_FULLFSYNC) == 0) return KA_OK;
    if (errno != ENOTSUP && errno != EINVAL) return ka__file_error();
    return fsync(f) == 0 ? KA_OK : ka__file_error();
#  else
    return fdatasync(f) == 0 ? KA_OK : ka__file_error();
#  endif
}

static int ka__file_replace(ka__file_handle *f, ka__file_handle by, const char *from,
                            const char *to)
{
    int r = ka__file_rename(from, to);
    if (r < 0) return r;
    ka__file_close(*f);
    *f = by;
    return KA_OK;
}

/* A new name is on disk when its folder is. Some network file systems can't sync folders, which is
   EINVAL. */
static int ka__file_folder_sync(const char *path)
{
    char folder[KA__FILE_PATH];
    const char *slash = strrchr(path, '/');
    if (slash) snprintf(folder, sizeof folder, "%.*s", (int)(slash - path) + 1, path);
    else snprintf(folder, sizeof folder, ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL) ? KA_OK : ka__file_error(), code = errno;
    if (fd >= 0) close(fd);
    errno = code;
    return r;
}
#endif

/* Close a file after an error, the system's code of which stays. */
static void ka__file_drop(ka__file_handle *f)
{
    int code = ka__file_os_code();
    ka__file_close(*f);
    *f = KA__FILE_NONE;
    ka__file_os_code_set(code);
}

/* Bytes read: n, or fewer at the end of the file. */
static ptrdiff_t ka__file_read(ka__file_handle f, void *p, size_t n, int64_t at)
{
    size_t done = 0;
    while (done < n) {
        ptrdiff_t got = ka__file_read_some(f, (char *)p + done, n - done, at + (int64_t)done);
        if (got == 0) break;
        if (got < 0 && got != KA_EAGAIN) return got;
        if (got > 0) done += (size_t)got;
    }
    return (ptrdiff_t)done;
}

static int ka__file_write(ka__file_handle f, const void *p, size_t n, int64_t at)
{
    for (size_t done = 0; done < n; ) {
        int64_t to = at == KA__FILE_END ? at : at + (int64_t)done;
        ptrdiff_t put = ka__file_write_some(f, (const char *)p + done, n - done, to);
        if (put < 0 && put != KA_EAGAIN) return (int)put;
        if (put > 0) done += (size_t)put;
    }
    return KA_OK;
}

static bool ka__file_same(const ka__file_info *a, const ka__file_info *b)
{
    return a->device == b->device && a->inode == b->inode;
}

/* The path of a file that keyauth keeps beside another one. */
static void ka__file_beside(char out[KA__FILE_PATH], const char *path, const char *behind)
{
    snprintf(out, KA__FILE_PATH, "%s%s", path, behind);
}

/* Is that a second name of the file at this path? KA_OK: it is; KA_ENOTFOUND: it is none. Or an
   error: it could not be looked up. */
static int ka__file_twin(const char *path, const char *name)
{
    ka__file_info a, b;
    int r = ka__file_look_at(path, &a);
    if (r == KA_OK) r = ka__file_look_at(name, &b);
    bool other = r == KA_EINVAL || (r == KA_OK && !ka__file_same(&a, &b));
    return other ? KA_ENOTFOUND : r;
}

/* May a file be used for what is ours alone? Others could read or forge what is in another user's
   file; and a file with a second name may be known to others by that, as something else. The name
   path.new is no such name: a power cut in the middle of a rename can leave both (rename(2)). */
static int ka__file_check(const ka__file_info *l, const char *path, int how)
{
    char path_new[KA__FILE_PATH];
    if (l->kind != KA__FILE_REGULAR) return KA_EINVAL;
    if (!l->ours || l->links > 2) return KA_EFOREIGN;
    if (l->links < 2 || how & KA__FILE_TWIN) return KA_OK;
    ka__file_beside(path_new, path, ".new");
    int r = ka__file_twin(path, path_new);
    return r == KA_ENOTFOUND ? KA_EFOREIGN : r;
}

/* As ka__file_open; KA_EAGAIN: the path leads to another file than a moment ago. */
static int ka__file_try(ka__file_handle *f, ka__file_info *is, const char *path, int how)
{
    ka__file_info there;
    *f = KA__FILE_NONE;
    int r = how & KA__FILE_NEW ? KA_ENOTFOUND : ka__file_look_at(path, &there);
    if (r == KA_OK) r = ka__file_check(&there, path, how);
    bool make = r == KA_ENOTFOUND && !(how & KA__FILE_THERE);
    if (r < 0 && !make) return r;
    r = ka__file_get(f, path, make, how);
    if (r == (make ? KA_EINUSE : KA_ENOTFOUND) && !(how & KA__FILE_NEW)) return KA_EAGAIN;
    if (r < 0) return r;
    r = ka__file_lock(*f);
    if (r == KA_OK) r = ka__file_look(*f, is);
    if (r == KA_OK) r = ka__file_look_at(path, &there);
    if (r == KA_ENOTFOUND || (r == KA_OK && !ka__file_same(is, &there))) r = KA_EAGAIN;
    if (r == KA_OK) r = ka__file_check(is, path, how);
    if (r == KA_OK) return r;
    int code = ka__file_os_code();
    ka__file_close(*f);
    *f = KA__FILE_NONE;
    if (how & KA__FILE_NEW) ka__file_remove(path);
    ka__file_os_code_set(code);
    return r;
}

/* Open a file of ours, locked. One that is there is not changed. It is looked at before it is
   opened, since to open a device does something. It is looked at again when it is locked, since
   the process that had the lock may have replaced it.
     is         what it is; after an error *f is KA__FILE_NONE */
static int ka__file_open(ka__file_handle *f, ka__file_info *is, const char *path, int how)
{
    int r = KA_EAGAIN;
    for (int i = 0; i < KA__FILE_OPENINGS && r == KA_EAGAIN; i++)
        r = ka__file_try(f, is, path, how);
    return r == KA_EAGAIN ? KA_EINUSE : r;
}

/* Does a file hold these n bytes from there on, or as much of them as it has? KA_ESYNTAX: it holds
   something else. */
static int ka__file_holds(ka__file_handle f, int64_t at, const void *p, size_t n)
{
    char head[KA_FILE_HEAD];
    ptrdiff_t got = ka__file_read(f, head, n < sizeof head ? n : sizeof head, at);
    if (got < 0) return (int)got;
    return memcmp(head, p, (size_t)got) == 0 ? KA_OK : KA_ESYNTAX;
}

/* Make the file path.new, in the place of what a crash left of one: that begins as told, or with
   zeros, or is the file at path itself. What else is there is left alone: KA_EINUSE. */
static int ka__file_fresh(ka__file_handle *f, ka__file_info *is, const char *path,
                          const void *begins, size_t n)
{
    static const char zeros[KA_FILE_HEAD];
    char path_new[KA__FILE_PATH];
    ka__file_beside(path_new, path, ".new");
    int twin = ka__file_twin(path, path_new), r = twin;
    if (twin == KA_OK) r = ka__file_remove(path_new);
    if (twin == KA_ENOTFOUND) r = ka__file_open(f, is, path_new, KA__FILE_THERE);
    if (twin == KA_ENOTFOUND && r == KA_OK) {
        r = ka__file_holds(*f, 0, begins, n);
        if (r == KA_ESYNTAX) r = ka__file_holds(*f, 0, zeros, n);
        ka__file_drop(f);
        if (r == KA_OK) r = ka__file_remove(path_new);
    }
    if (r == KA_EINVAL || r == KA_EFOREIGN || r == KA_ESYNTAX) return KA_EINUSE;
    if (r < 0 && r != KA_ENOTFOUND) return r;
    return ka__file_open(f, is, path_new, KA__FILE_NEW | KA__FILE_APPEND);
}

/* The system's code right after one of these functions, where its result is about that alone. */
static int ka__file_code(int r)
{
    switch (r) {
    case KA_EOS: case KA_EPERM: case KA_ENOSPC: case KA_ENOTFOUND: case KA_ELIMIT:
        return ka__file_os_code();
    default:
        return 0;
    }
}

/* Make the folders on the way to a file, but for those that are there. The first error is returned.
   It need not matter: Windows has one for C:, too. */
static int ka__file_folders(const char *path)
{
    char folder[KA__FILE_PATH];
    int first = KA_OK, code = 0;
    for (size_t i = 1; path[i]; i++) {
        if (!ka__file_is_slash(path[i]) || ka__file_is_slash(path[i - 1])) continue;
        memcpy(folder, path, i);
        folder[i] = 0;
        int r = ka__file_folder_make(folder);
        if (r == KA_OK || r == KA_EINUSE || first < 0) continue;      /* KA_EINUSE: it is there */
        first = r;
        code = ka__file_os_code();
    }
    if (first < 0) ka__file_os_code_set(code);
    return first;
}

static bool ka__file_path_good(const char *path)
{
    size_t n = strlen(path);
    const char *last = n > 0 ? path + n - 1 : path;
    return n > 0 && n <= KA_FILE_PATH && !ka__file_is_slash(*last);
}

/* path.new for ka_file_put, and the folders on its way. */
static int ka__file_make(ka__file_handle *f, ka__file_info *is, const char *path)
{
    int r = ka__file_fresh(f, is, path, "", 0);
    if (r != KA_ENOTFOUND) return r;
    int made = ka__file_folders(path), code = ka__file_os_code();
    r = ka__file_fresh(f, is, path, "", 0);
    if (r != KA_ENOTFOUND || made == KA_OK) return r;
    ka__file_os_code_set(code);
    return made;
}

int ka_file_put(const char *path, const void *p, size_t n)
{
    char path_new[KA__FILE_PATH];
    ka__file_handle f;
    ka__file_info is, old;
    if (!ka__file_path_good(path)) return KA_EINVAL;
    int there = ka__file_look_at(path, &old);
    if (there == KA_OK) there = ka__file_check(&old, path, KA__FILE_KEEP);
    if (there < 0 && there != KA_ENOTFOUND) return there;
    int r = ka__file_make(&f, &is, path);
    if (r < 0) return r;
    ka__file_beside(path_new, path, ".new");
    r = ka__file_write(f, p, n, KA__FILE_END);
    if (r == KA_OK && there == KA_OK) r = ka__file_like(f, &old);
    if (r == KA_OK) r = ka__file_rename(path_new, path);      /* while nobody else can have it */
    int code = ka__file_os_code();
    ka__file_close(f);
    if (r < 0) ka__file_remove(path_new);
    ka__file_os_code_set(code);
    return r;
}

ptrdiff_t ka_file_get(const char *path, void *out, size_t cap)
{
    ka__file_handle f;
    ka__file_info is;
    if (!ka__file_path_good(path)) return KA_EINVAL;
    int r = ka__file_open(&f, &is, path, KA__FILE_THERE);
    if (r < 0) return r;
    ptrdiff_t got = ka__file_read(f, out, cap, 0);
    ka__file_drop(&f);
    return got;
}

ptrdiff_t ka_file_peek(const char *path, void *out, size_t cap)
{
    ka__file_handle f;
    int r = ka__file_get(&f, path, false, KA__FILE_READ);
    if (r < 0) return r;
    ptrdiff_t got = ka__file_read(f, out, cap, 0);
    ka__file_close(f);
    return got;
}

int ka_file_remove(const char *path)
{
    ka__file_info is;
    int r = ka__file_look_at(path, &is);
    if (r == KA_OK) r = ka__file_check(&is, path, KA__FILE_KEEP);
    if (r == KA_OK) r = ka__file_remove(path);
    return r == KA_ENOTFOUND ? KA_OK : r;
}

/* What is wrong with the file that this path leads to, as ka__file_check sees it; NULL: nothing. */
static const char *ka__file_wrong(char out[KA_TROUBLE_TEXT], const char *path)
{
    static const char *const kinds[] = {
        [KA__FILE_FOLDER] = "it is a folder", [KA__FILE_LINK] = "it is a symbolic link",
        [KA__FILE_SPECIAL] = "it is no file, but a pipe, a socket or a device",
    };
    ka__file_info l;
    int r = ka__file_path_good(path) ? ka__file_look_at(path, &l) : KA_EINVAL;
    if (r == KA_EINVAL) return "its name is empty, too long, a folder's, or leads in a circle";
    if (r < 0) return NULL;
    if (l.kind != KA__FILE_REGULAR) return kinds[l.kind];
    if (!l.ours)
        snprintf(out, KA_TROUBLE_TEXT, "it belongs to another user (uid %u)", (unsigned)l.owner);
    else if (l.links > 1)
        snprintf(out, KA_TROUBLE_TEXT, "it has %u names (hard links)", (unsigned)l.links);
    return !l.ours || l.links > 1 ? out : NULL;
}

/* Why a file can't be had. */
static const char *ka__file_in_use(const char *path)
{
    char path_new[KA__FILE_PATH];
    ka__file_info l;
    snprintf(path_new, sizeof path_new, "%.*s.new", KA_FILE_PATH, path);
    int r = ka__file_look_at(path_new, &l);
    if (r == KA_EINVAL) return "its name with .new behind it is too long";
    if (r < 0) return "another process has it";
    return "a file of its name and .new is in the way; move that away";
}

bool ka_file_others_write(const char *path)
{
    ka__file_info l;
    return ka__file_look_at(path, &l) == KA_OK && l.kind == KA__FILE_REGULAR && (l.mode & 022);
}

const char *ka_file_trouble(char out[KA_TROUBLE_TEXT], const char *path, int error, int os_error)
{
    const char *text = NULL;
    switch (error) {
    case KA_EINVAL: case KA_EFOREIGN: text = ka__file_wrong(out, path); break;
    case KA_EINUSE:    text = ka__file_in_use(path); break;
    case KA_ESYNTAX:   text = "it holds something else"; break;
    case KA_ENOTFOUND: text = "its folder is not there"; break;
    case KA_ENOSPC:    text = "the disk is full"; break;
    case KA_EPERM:     text = "this user may not write to it, or to its folder"; break;
    case KA_EOS:
        if (os_error == KA__FILE_MOUNTED)
            text = "something is mounted there; mount its folder instead";
        break;
    default: break;
    }
    if (!text && os_error)
        snprintf(out, KA_TROUBLE_TEXT, "%s (system error %d)", ka_error_text(error), os_error);
    else if (text != out)
        snprintf(out, KA_TROUBLE_TEXT, "%s", text ? text : ka_error_text(error));
    return out;
}

/* ---- a file that is kept open ---- */

static ka__file_handle ka__file_of(const ka_file *f) { return (ka__file_handle)(f->handle - 1); }

static void ka__file_take(ka_file *f, ka__file_handle h, const ka__file_info *is)
{
    f->handle = (intptr_t)h + 1;
    f->device = is->device;
    f->inode = is->inode;
    f->links = is->links;
    f->size = f->room = is->size;
}

/* Keep the system's code behind a result. */
static int ka__file_told(ka_file *f, int r)
{
    f->os_error = ka__file_code(r);
    return r;
}

/* On Windows a file that was removed is in the way until it is closed. So what is open is closed
   first. */
int ka_file_open(ka_file *f, const char *path, const char *twin)
{
    ka__file_handle h;
    ka__file_info is;
    if (path) {
        memset(f, 0, sizeof *f);
        if (!ka__file_path_good(path)) return KA_EINVAL;
        snprintf(f->path, sizeof f->path, "%s", path);
    }
    ka_file_close(f);
    f->torn = f->unsure = f->named = f->appends = f->tight = false;
    int r = twin ? ka__file_twin(f->path, twin) : KA_ENOTFOUND;
    f->twin = r == KA_OK;
    if (r == KA_OK || r == KA_ENOTFOUND)
        r = ka__file_open(&h, &is, f->path, f->twin ? KA__FILE_TWIN : KA__FILE_KEEP);
    if (r == KA_OK) ka__file_take(f, h, &is);
    return ka__file_told(f, r);
}

void ka_file_close(ka_file *f)
{
    ka__file_info now;
    bool ours = f->handle && f->grown && ka__file_look(ka__file_of(f), &now) == KA_OK;
    if (ours && now.size == f->room) ka__file_cut(ka__file_of(f), f->size);
    f->grown = false;
    ka__file_close(ka__file_of(f));
    f->handle = 0;
}

ptrdiff_t ka_file_read(ka_file *f, int64_t at, void *out, size_t n)
{
    ptrdiff_t got = ka__file_read(ka__file_of(f), out, n, at);
    ka__file_told(f, got < 0 ? (int)got : KA_OK);
    return got;
}

int ka_file_holds(ka_file *f, int64_t at, const void *p, size_t n)
{
    return ka__file_told(f, ka__file_holds(ka__file_of(f), at, p, n));
}

int ka_file_look(ka_file *f, int64_t *size)
{
    ka__file_info now;
    int r = f->handle ? ka__file_look_at(f->path, &now) : KA_ENOTFOUND;
    ka__file_told(f, r);
    if (r < 0) return r;
    if (now.device != f->device || now.inode != f->inode) return KA_ENOTFOUND;
    *size = now.size;
    return now.ours && now.links == f->links ? KA_OK : KA_EFOREIGN;
}

static int ka__file_cut_back(ka_file *f)
{
    ka__file_info now;
    int r = ka__file_look(ka__file_of(f), &now);
    if (r == KA_OK && now.size > f->size) r = ka__file_cut(ka__file_of(f), f->size);
    if (r == KA_OK) f->room = f->size;
    f->grown = f->grown && r < 0;
    return r == KA_OK ? ka__file_sync(ka__file_of(f)) : r;
}

int ka_file_mend(ka_file *f)
{
    int r = ka__file_cut_back(f);
    f->torn = r < 0;
    return ka__file_told(f, r);
}

/* Zeros behind the file's end, where there are none. They only save time. If the disk has no room
   for them, that is not tried again: each try would fill the disk for a moment. */
static void ka__file_grow(ka_file *f)
{
    static const char zeros[4096];
    const int64_t most = f->size + f->ahead;
    int64_t end = f->room = f->size;
    f->grown = false;
    if (f->ahead == 0 || f->tight) return;
    for (; end < most && !f->tight; end += (int64_t)sizeof zeros)
        f->tight = ka__file_write(ka__file_of(f), zeros, sizeof zeros, end) < 0;
    f->grown = !f->tight;
    if (f->tight) ka__file_cut(ka__file_of(f), f->size);
    else f->room = end;
}

int ka_file_append(ka_file *f, const void *p, size_t n)
{
    const bool at_end = f->ahead == 0;
    ka__file_info now;
    int r = f->appends == at_end ? KA_OK : ka__file_to_end(ka__file_of(f), at_end);
    if (r < 0) return ka__file_told(f, r);
    f->appends = at_end;
    if (!at_end) r = ka__file_look(ka__file_of(f), &now);
    if (r == KA_OK && !at_end && now.size != f->room) r = KA_ENOTFOUND;
    if (r < 0) return ka__file_told(f, r);
    r = ka__file_write(ka__file_of(f), p, n, at_end ? KA__FILE_END : f->size);
    bool written = r == KA_OK;
    if (written) {
        f->size += (int64_t)n;
        if (f->size > f->room) ka__file_grow(f);
        r = ka__file_sync(ka__file_of(f));
        if (r < 0) f->size -= (int64_t)n;
    }
    ka__file_told(f, r);
    if (r == KA_OK) return r;
    f->unsure = f->unsure || written;
    f->torn = ka__file_cut_back(f) < 0;
    return r;
}

int ka_file_overwrite(ka_file *f, int64_t at, const void *p, size_t n)
{
    return ka__file_told(f, ka__file_write(ka__file_of(f), p, n, at));
}

int ka_file_sync(ka_file *f)
{
    int r = ka__file_sync(ka__file_of(f));
    if (r == KA_OK) r = ka__file_folder_sync(f->path);
    f->named = r == KA_OK;
    return ka__file_told(f, r);
}

int ka_file_fresh(ka_file *f, ka_file *fresh, const void *begins, size_t n)
{
    ka__file_handle h;
    ka__file_info is;
    memset(fresh, 0, sizeof *fresh);
    int r = ka__file_fresh(&h, &is, f->path, begins, n);
    if (r == KA_OK) ka__file_take(fresh, h, &is);
    return ka__file_told(f, r);
}

int ka_file_write(ka_file *fresh, const void *p, size_t n)
{
    int r = ka__file_write(ka__file_of(fresh), p, n, KA__FILE_END);
    if (r == KA_OK) fresh->size += (int64_t)n;
    return ka__file_told(fresh, r);
}

int ka_file_replace(ka_file *f, ka_file *fresh, int r)
{
    char path_new[KA__FILE_PATH];
    ka__file_handle h = ka__file_of(f);
    ka__file_info old;
    ka__file_beside(path_new, f->path, ".new");
    f->os_error = fresh->os_error;
    if (r == KA_OK) {
        r = ka__file_look(h, &old);
        if (r == KA_OK) r = ka__file_like(ka__file_of(fresh), &old);
        if (r == KA_OK) r = ka__file_sync(ka__file_of(fresh));
        if (r == KA_OK) r = ka__file_replace(&h, ka__file_of(fresh), path_new, f->path);
        ka__file_told(f, r);
    }
    f->handle = (intptr_t)h + 1;
    if (r < 0) {
        ka_file_close(fresh);
        ka__file_remove(path_new);
        return r;
    }
    f->device = fresh->device;
    f->inode = fresh->inode;
    f->links = fresh->links;
    f->size = f->room = fresh->size;
    f->appends = true;
    f->torn = f->unsure = f->grown = f->tight = false;
    r = ka__file_folder_sync(f->path);
    f->named = r == KA_OK;
    return ka__file_told(f, r);
}

int ka_file_link(ka_file *f, const char *name)
{
    return ka__file_told(f, ka__file_link(f->path, name));
}

int ka_file_unlink(const char *name) { return ka__file_remove(name); }

/* Public domain or MIT: see the end of keyauth.h. */
#endif /* KEYAUTH_FILE_IMPLEMENTED */
