/* tests/faults.h - how the calls to the system are made to fail. Before keyauth.h. */

/* Faults: each call of the header to the system can be made to fail. While the header is compiled a
   macro stands before it; the header has no line for that. A call's row has the codes that it can
   fail with; FAULT_SHORT: it does half of what it was asked to. To add a call is a row here and a
   macro below, which CI compares with what the header's object asks of the libc ("the fault list is
   whole"); there too are the calls that cannot fail. */
#ifndef _GNU_SOURCE
#  define _GNU_SOURCE 1
#endif
#ifndef _DARWIN_C_SOURCE
#  define _DARWIN_C_SOURCE 1
#endif
#define FAULT_SHORT (-1)
#if defined(_WIN32)
#  define WIN32_LEAN_AND_MEAN
#  include <winsock2.h>
#  include <ws2tcpip.h>
#  include <windows.h>
#  include <bcrypt.h>
#  include <iphlpapi.h>
#  include <psapi.h>
#define FAULT_CALLS(X)                                                                            \
    X(malloc,                ERROR_NOT_ENOUGH_MEMORY)                                             \
    X(WSAStartup,            WSASYSNOTREADY)                                                      \
    X(WSASocketW,            WSAEMFILE, WSAENOBUFS, WSAEACCES)                                    \
    X(bind,                  WSAEADDRINUSE, WSAEADDRNOTAVAIL, WSAEACCES, WSAENOBUFS)              \
    X(listen,                WSAEADDRINUSE, WSAENOBUFS)                                           \
    X(accept,                WSAEMFILE, WSAENOBUFS, WSAECONNRESET, WSAEWOULDBLOCK)                \
    X(connect,               WSAECONNREFUSED, WSAETIMEDOUT, WSAENETUNREACH, WSAENOBUFS)           \
    X(recv,                  WSAECONNRESET, WSAECONNABORTED, WSAEWOULDBLOCK, FAULT_SHORT)         \
    X(send,                  WSAECONNRESET, WSAECONNABORTED, WSAEWOULDBLOCK, WSAENOBUFS, FAULT_SHORT) \
    X(setsockopt,            WSAENOBUFS)                                                          \
    X(getsockopt,            WSAENOBUFS)                                                          \
    X(getsockname,           WSAENOBUFS)                                                          \
    X(getpeername,           WSAENOTCONN, WSAENOBUFS)                                             \
    X(ioctlsocket,           WSAENOBUFS)                                                          \
    X(getaddrinfo,           WSAHOST_NOT_FOUND, WSANO_DATA, WSATRY_AGAIN, WSA_NOT_ENOUGH_MEMORY, WSANO_RECOVERY) \
    X(getnameinfo,           WSA_NOT_ENOUGH_MEMORY)                                               \
    X(select,                WSAENOBUFS)                                                          \
    X(WSAPoll,               WSAENOBUFS)                                                          \
    X(CreateThread,          ERROR_NOT_ENOUGH_MEMORY)                                             \
    X(BCryptGenRandom,       ERROR_NOT_ENOUGH_MEMORY)                                             \
    X(GetExtendedTcpTable,   ERROR_NOT_ENOUGH_MEMORY)                                             \
    X(OpenProcess,           ERROR_ACCESS_DENIED, ERROR_INVALID_PARAMETER)                        \
    X(TerminateProcess,      ERROR_ACCESS_DENIED)                                                 \
    X(SetConsoleCtrlHandler, ERROR_INVALID_PARAMETER)                                             \
    X(GetModuleFileNameW,    ERROR_NOT_ENOUGH_MEMORY)                                             \
    X(CreateProcessW,        ERROR_NOT_ENOUGH_MEMORY, ERROR_FILE_NOT_FOUND)                       \
    X(CreateFileA,           ERROR_SHARING_VIOLATION, ERROR_ACCESS_DENIED, ERROR_PATH_NOT_FOUND)  \
    X(ReadFile,              ERROR_CRC, ERROR_NOT_ENOUGH_MEMORY)                                  \
    X(WriteFile,             ERROR_DISK_FULL, ERROR_CRC)                                          \
    X(FlushFileBuffers,      ERROR_DISK_FULL, ERROR_CRC)                                          \
    X(SetEndOfFile,          ERROR_DISK_FULL)                                                     \
    X(CreateHardLinkA,       ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS)                           \
    X(MoveFileExA,           ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION)                        \
    X(DeleteFileA,           ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION)                        \
    X(CreateDirectoryA,      ERROR_ACCESS_DENIED, ERROR_DISK_FULL)                                \
    X(GetFileInformationByHandleEx, ERROR_INVALID_FUNCTION)                                       \
    X(GetFileInformationByHandle, ERROR_INVALID_FUNCTION)                                         \
    X(CreatePipe,            ERROR_TOO_MANY_OPEN_FILES)                                           \
    X(PeekNamedPipe,         ERROR_NOT_ENOUGH_MEMORY)                                             \
    X(GetExitCodeProcess,    ERROR_ACCESS_DENIED)                                                 \
    X(GetProcessTimes,       ERROR_NOT_ENOUGH_MEMORY)                                             \
    X(K32GetProcessMemoryInfo, ERROR_NOT_ENOUGH_MEMORY)
#else
#  include <arpa/inet.h>
#  include <assert.h>
#  include <dirent.h>
#  include <errno.h>
#  include <fcntl.h>
#  include <net/if.h>
#  include <netdb.h>
#  include <netinet/in.h>
#  include <netinet/tcp.h>
#  include <poll.h>
#  include <pthread.h>
#  include <signal.h>
#  include <stdbool.h>
#  include <stdio.h>
#  include <stdlib.h>
#  include <string.h>
#  include <sys/file.h>
#  include <sys/ioctl.h>
#  include <sys/mman.h>
#  include <sys/random.h>
#  include <sys/resource.h>
#  include <sys/socket.h>
#  include <sys/stat.h>
#  include <sys/un.h>
#  include <sys/wait.h>
#  include <termios.h>
#  undef ECHO      /* a fixture of ours has that name */
#  include <time.h>
#  include <unistd.h>
#  if defined(__linux__)
#    include <sys/epoll.h>
#    include <sys/eventfd.h>
#    include <sys/prctl.h>
#    include <sys/syscall.h>
#    include <threads.h>
#  elif defined(__APPLE__)
#    include <libproc.h>
#    include <mach-o/dyld.h>
#    include <sys/event.h>
#    include <sys/sysctl.h>
#  endif
#define FAULT_CALLS(X)                                                                            \
    X(malloc,            ENOMEM)                                                                  \
    X(socket,            EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES)                                 \
    X(bind,              EADDRINUSE, EADDRNOTAVAIL, EACCES, ENOMEM)                               \
    X(listen,            EADDRINUSE)                                                              \
    X(accept4,           EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EINTR, EAGAIN, EPERM, EPROTO) \
    X(accept,            EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EINTR, EAGAIN)            \
    X(connect,           ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EADDRNOTAVAIL, EINTR, EPERM)       \
    X(recv,              ECONNRESET, ETIMEDOUT, EAGAIN, EINTR, ENOMEM, FAULT_SHORT)               \
    X(send,              ECONNRESET, EPIPE, EAGAIN, EINTR, ENOBUFS, ENOMEM, EPERM, FAULT_SHORT)   \
    X(setsockopt,        ENOMEM, ENOBUFS)                                                         \
    X(getsockopt,        ENOBUFS)                                                                 \
    X(getsockname,       ENOBUFS)                                                                 \
    X(getpeername,       ENOTCONN, ENOBUFS)                                                       \
    X(getaddrinfo,       EAI_NONAME, EAI_AGAIN, EAI_MEMORY, EAI_FAIL, EAI_SYSTEM)                 \
    X(getnameinfo,       EAI_MEMORY, EAI_SYSTEM)                                                  \
    X(if_nametoindex,    ENODEV, EMFILE)                                                          \
    X(shutdown,          ENOTCONN)                                                                \
    X(ioctl,             ENOMEM)                                                                  \
    X(fcntl,             ENOMEM)                                                                  \
    X(poll,              EINTR, ENOMEM)                                                           \
    X(epoll_create1,     EMFILE, ENFILE, ENOMEM)                                                  \
    X(epoll_ctl,         ENOMEM, ENOSPC)                                                          \
    X(epoll_wait,        EINTR)                                                                   \
    X(eventfd,           EMFILE, ENFILE, ENOMEM)                                                  \
    X(kqueue,            EMFILE, ENFILE, ENOMEM)                                                  \
    X(kevent,            EINTR, ENOMEM)                                                           \
    X(open,              EMFILE, ENFILE, ENOENT, EACCES, ENOSPC, EIO, EINTR)                      \
    X(openat,            EMFILE, ENFILE, ENOENT, EACCES, ENOSPC, EIO, EINTR)                      \
    X(read,              EIO, EINTR, FAULT_SHORT)                                                 \
    X(pread,             EIO, EINTR, FAULT_SHORT)                                                 \
    X(write,             EIO, ENOSPC, EINTR, FAULT_SHORT)                                         \
    X(pwrite,            EIO, ENOSPC, EINTR, FAULT_SHORT)                                         \
    X(fsync,             EIO, ENOSPC)                                                             \
    X(fdatasync,         EIO, ENOSPC)                                                             \
    X(rename,            EIO, ENOSPC, EACCES)                                                     \
    X(mkdir,             EACCES, ENOSPC, EIO)                                                     \
    X(unlink,            EIO, EACCES, ENOENT)                                                     \
    X(ftruncate,         EIO, EINTR)                                                              \
    X(flock,             EWOULDBLOCK, EINTR, ENOLCK)                                              \
    X(fstat,             EIO, ENOMEM)                                                             \
    X(lstat,             ENOENT, EACCES)                                                          \
    X(statx,             ENOENT, EACCES, EIO, ENOMEM)                                             \
    X(fchmod,            EPERM, EIO)                                                              \
    X(fchown,            EPERM, EIO)                                                              \
    X(chmod,             EPERM, EIO)                                                              \
    X(link,              EEXIST, EPERM, ENOSPC)                                                   \
    X(lseek,             ESPIPE)                                                                  \
    X(close,             EINTR, EIO)                                                              \
    X(dup3,              EMFILE, EBUSY, EINTR)                                                    \
    X(prctl,             EINVAL)                                                                  \
    X(mmap,              ENOMEM)                                                                  \
    X(madvise,           EINVAL, ENOMEM)                                                          \
    X(getrandom,         EINTR, ENOSYS)                                                           \
    X(getentropy,        EIO)                                                                     \
    X(isatty,            ENOTTY)                                                                  \
    X(readlink,          ENOENT, ENOMEM)                                                          \
    X(readlinkat,        ENOENT, EACCES)                                                          \
    X(fopen,             EMFILE, ENOENT, ENOMEM)                                                  \
    X(fgets,             EIO)                                                                     \
    X(opendir,           EMFILE, EACCES, ENOENT)                                                  \
    X(readdir,           ENOENT)                                                                  \
    X(sigaction,         EINVAL)                                                                  \
    X(execv,             ENOENT, ENOMEM, ETXTBSY)                                                 \
    X(nanosleep,         EINTR)                                                                   \
    X(thrd_create,       ENOMEM)                                                                  \
    X(pthread_create,    EAGAIN)                                                                  \
    X(kcmp,              EPERM, ENOSYS)                                                           \
    X(close_range,       EMFILE, ENOMEM, ENOSYS)                                                  \
    X(pidfd_open,        EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM, ESRCH)                            \
    X(pidfd_getfd,       EMFILE, EPERM, ENOSYS)                                                   \
    X(pidfd_send_signal, EPERM, ENOSYS, ESRCH)                                                    \
    X(proc_pidinfo,      ESRCH)                                                                   \
    X(proc_listpids,     ENOMEM)                                                                  \
    X(proc_pid_rusage,   ENOMEM)                                                                  \
    X(sysctlbyname,      ENOMEM)                                                                  \
    X(kill,              EPERM)                                                                   \
    X(pipe,              EMFILE, ENFILE)                                                          \
    X(pipe2,             EMFILE, ENFILE)                                                          \
    X(dup2,              EMFILE, EBUSY, EINTR)                                                    \
    X(fork,              EAGAIN, ENOMEM)                                                          \
    X(waitpid,           EINTR)                                                                   \
    X(getrlimit,         EINVAL)                                                                  \
    X(setrlimit,         EPERM)                                                                   \
    X(getrusage,         EINVAL)
#endif
#include <stdbool.h>

enum {
#define FAULT_ENUM(name, ...) F_##name,
    FAULT_CALLS(FAULT_ENUM)
    FAULT_CALLS_N
};

static bool fault(int call);        /* counts a call; true: it fails, and its code is set */
static bool fault_short(void);      /* is this the call that does half? */
static int fault_error(void) { return -1; }

/* FAIL: a call, or what it returns when it fails. FAIL_DONE: it fails, having done its work, for a
   descriptor is gone whatever close says. FAIL_PART: n may be halved. */
#define FAIL(name, failure, ...) (fault(F_##name) ? (failure) : name(__VA_ARGS__))
#define FAIL_DONE(name, ...) (fault(F_##name) ? ((void)name(__VA_ARGS__), fault_error()) : name(__VA_ARGS__))
#define FAIL_PART(n) ((n) > 1 && fault_short() ? (n) / 2 : (n))
#define bind(...)                  FAIL(bind, fault_error(), __VA_ARGS__)
#define listen(...)                FAIL(listen, fault_error(), __VA_ARGS__)
#define connect(...)               FAIL(connect, fault_error(), __VA_ARGS__)
#define recv(s, p, n, flags)       (fault(F_recv) ? fault_error() : recv(s, p, FAIL_PART(n), flags))
#define setsockopt(...)            FAIL(setsockopt, fault_error(), __VA_ARGS__)
#define getsockopt(...)            FAIL(getsockopt, fault_error(), __VA_ARGS__)
#define getsockname(...)           FAIL(getsockname, fault_error(), __VA_ARGS__)
#define getpeername(...)           FAIL(getpeername, fault_error(), __VA_ARGS__)
static int fault_names(const char *host, const char *service, const struct addrinfo *wanted,
                       struct addrinfo **found);
static void fault_names_free(struct addrinfo *found);
#define freeaddrinfo(found)        fault_names_free(found)
#define getnameinfo(...)           (fault(F_getnameinfo) ? ka__os_code() : (getnameinfo)(__VA_ARGS__))
#define getaddrinfo(...)           (fault(F_getaddrinfo) ? ka__os_code() : fault_names(__VA_ARGS__))      /* which it returns */
#if defined(_WIN32)
static int fault_send(SOCKET s, const char *p, int n, int flags);
#define send(s, p, n, flags)       fault_send(s, p, n, flags)
#define WSAStartup(...)            FAIL(WSAStartup, WSASYSNOTREADY, __VA_ARGS__)
#define WSASocketW(...)            FAIL(WSASocketW, INVALID_SOCKET, __VA_ARGS__)
#define accept(...)                FAIL(accept, INVALID_SOCKET, __VA_ARGS__)
#define ioctlsocket(...)           FAIL(ioctlsocket, fault_error(), __VA_ARGS__)
#define select(...)                FAIL(select, fault_error(), __VA_ARGS__)
#define WSAPoll(...)               FAIL(WSAPoll, fault_error(), __VA_ARGS__)
#define CreateThread(...)          FAIL(CreateThread, NULL, __VA_ARGS__)
#define BCryptGenRandom(...)       FAIL(BCryptGenRandom, fault_error(), __VA_ARGS__)
#define GetExtendedTcpTable(...)   FAIL(GetExtendedTcpTable, ERROR_NOT_ENOUGH_MEMORY, __VA_ARGS__)
#define OpenProcess(...)           FAIL(OpenProcess, NULL, __VA_ARGS__)
#define TerminateProcess(...)      FAIL(TerminateProcess, FALSE, __VA_ARGS__)
#define SetConsoleCtrlHandler(...) FAIL(SetConsoleCtrlHandler, FALSE, __VA_ARGS__)
#define GetModuleFileNameW(...)    FAIL(GetModuleFileNameW, 0, __VA_ARGS__)
#define CreateProcessW(...)        FAIL(CreateProcessW, FALSE, __VA_ARGS__)
#define CreateFileA(...)           FAIL(CreateFileA, INVALID_HANDLE_VALUE, __VA_ARGS__)
#define ReadFile(...)              FAIL(ReadFile, FALSE, __VA_ARGS__)
#define WriteFile(...)             FAIL(WriteFile, FALSE, __VA_ARGS__)
#define FlushFileBuffers(...)      FAIL(FlushFileBuffers, FALSE, __VA_ARGS__)
#define SetEndOfFile(...)          FAIL(SetEndOfFile, FALSE, __VA_ARGS__)
#define CreateHardLinkA(...)       FAIL(CreateHardLinkA, FALSE, __VA_ARGS__)
#define MoveFileExA(...)           FAIL(MoveFileExA, FALSE, __VA_ARGS__)
#define DeleteFileA(...)           FAIL(DeleteFileA, FALSE, __VA_ARGS__)
#define CreateDirectoryA(...)      FAIL(CreateDirectoryA, FALSE, __VA_ARGS__)
#define GetFileInformationByHandleEx(...) FAIL(GetFileInformationByHandleEx, FALSE, __VA_ARGS__)
#define GetFileInformationByHandle(...) FAIL(GetFileInformationByHandle, FALSE, __VA_ARGS__)
#define CreatePipe(...)            FAIL(CreatePipe, FALSE, __VA_ARGS__)
#define PeekNamedPipe(...)         FAIL(PeekNamedPipe, FALSE, __VA_ARGS__)
#define GetExitCodeProcess(...)    FAIL(GetExitCodeProcess, FALSE, __VA_ARGS__)
#define GetProcessTimes(...)       FAIL(GetProcessTimes, FALSE, __VA_ARGS__)
#define K32GetProcessMemoryInfo(...) FAIL(K32GetProcessMemoryInfo, FALSE, __VA_ARGS__)
#else
static ssize_t fault_write(int fd, const void *p, size_t n);
static bool exec_stays;             /* ka_restart fails, so that this stays this program */
#define if_nametoindex(...)        FAIL(if_nametoindex, 0, __VA_ARGS__)
#define socket(...)                FAIL(socket, fault_error(), __VA_ARGS__)
#define accept(...)                FAIL(accept, fault_error(), __VA_ARGS__)
static ssize_t fault_send(int s, const void *p, size_t n, int flags);
#define send(s, p, n, flags)       fault_send((int)(s), p, n, flags)
#define shutdown(...)              FAIL(shutdown, fault_error(), __VA_ARGS__)
#define ioctl(...)                 FAIL(ioctl, fault_error(), __VA_ARGS__)
#define fcntl(...)                 FAIL(fcntl, fault_error(), __VA_ARGS__)
#define poll(...)                  FAIL(poll, fault_error(), __VA_ARGS__)
#define open(...)                  FAIL(open, fault_error(), __VA_ARGS__)
#define openat(...)                FAIL(openat, fault_error(), __VA_ARGS__)
#define read(fd, p, n)             (fault(F_read) ? fault_error() : read(fd, p, FAIL_PART(n)))
#define pread(fd, p, n, at)        (fault(F_pread) ? fault_error() : pread(fd, p, FAIL_PART(n), at))
#define write(fd, p, n)            fault_write(fd, p, n)
#define pwrite(fd, p, n, at)       (fault(F_pwrite) ? fault_error() : pwrite(fd, p, FAIL_PART(n), at))
#define fsync(...)                 FAIL(fsync, fault_error(), __VA_ARGS__)
#define rename(...)                FAIL(rename, fault_error(), __VA_ARGS__)
#define mkdir(...)                 FAIL(mkdir, fault_error(), __VA_ARGS__)
#define unlink(...)                FAIL(unlink, fault_error(), __VA_ARGS__)
#define ftruncate(...)             FAIL(ftruncate, fault_error(), __VA_ARGS__)
#define flock(...)                 FAIL(flock, fault_error(), __VA_ARGS__)
#define fstat(...)                 FAIL(fstat, fault_error(), __VA_ARGS__)
#define fchmod(...)                FAIL(fchmod, fault_error(), __VA_ARGS__)
#define fchown(...)                FAIL(fchown, fault_error(), __VA_ARGS__)
#define chmod(...)                 FAIL(chmod, fault_error(), __VA_ARGS__)
#define lstat(...)                 FAIL(lstat, fault_error(), __VA_ARGS__)
#define statx(...)                 FAIL(statx, fault_error(), __VA_ARGS__)
#define link(...)                  FAIL(link, fault_error(), __VA_ARGS__)
#define lseek(...)                 FAIL(lseek, fault_error(), __VA_ARGS__)
#define close(...)                 FAIL_DONE(close, __VA_ARGS__)
#define mmap(...)                  FAIL(mmap, MAP_FAILED, __VA_ARGS__)
#define madvise(...)               FAIL(madvise, fault_error(), __VA_ARGS__)
#define isatty(...)                FAIL(isatty, 0, __VA_ARGS__)
#define readlink(...)              FAIL(readlink, fault_error(), __VA_ARGS__)
#define readlinkat(...)            FAIL(readlinkat, fault_error(), __VA_ARGS__)
#define fopen(...)                 FAIL(fopen, NULL, __VA_ARGS__)
#define fgets(...)                 FAIL(fgets, NULL, __VA_ARGS__)
#define opendir(...)               FAIL(opendir, NULL, __VA_ARGS__)
#define readdir(...)               FAIL(readdir, NULL, __VA_ARGS__)
#define sigaction(...)             FAIL(sigaction, fault_error(), __VA_ARGS__)
#define execv(path, argv)          (fault(F_execv) || exec_stays ? fault_error() : execv(path, argv))
#define nanosleep(...)             FAIL(nanosleep, fault_error(), __VA_ARGS__)
#define pthread_create(...)        FAIL(pthread_create, EAGAIN, __VA_ARGS__)
#define kill(...)                  FAIL(kill, fault_error(), __VA_ARGS__)
#define dup2(...)                  FAIL(dup2, fault_error(), __VA_ARGS__)
#define fork()                     (fault(F_fork) ? fault_error() : fork())
#define waitpid(...)               FAIL(waitpid, fault_error(), __VA_ARGS__)
#define getrlimit(...)             FAIL(getrlimit, fault_error(), __VA_ARGS__)
#define setrlimit(...)             FAIL(setrlimit, fault_error(), __VA_ARGS__)
#define getrusage(...)             FAIL(getrusage, fault_error(), __VA_ARGS__)
#endif
#if defined(__linux__)
static int fault_thread(void *t);
static long fault_syscall(long number, long a, long b, long c, long d, long e, long f);
#define FAULT_SYSCALL(number, a, b, c, d, e, f, ...) fault_syscall(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define syscall(...)               FAULT_SYSCALL(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
static _Atomic(int) accept_refused; /* errno of all accepts, where that isn't 0 */
#define accept4(...)               ((errno = accept_refused) != 0 ? -1 : FAIL(accept4, fault_error(), __VA_ARGS__))
#define epoll_create1(...)         FAIL(epoll_create1, fault_error(), __VA_ARGS__)
static _Atomic(int) watch_refused;  /* the same for epoll_ctl; to take a socket off needs nothing */
#define WATCH_FAILS(op) \
    ((op) != EPOLL_CTL_DEL && ((errno = watch_refused) != 0 || fault(F_epoll_ctl)))
#define epoll_ctl(p, op, fd, ev)   (WATCH_FAILS(op) ? fault_error() : epoll_ctl(p, op, fd, ev))
#define epoll_wait(...)            FAIL(epoll_wait, fault_error(), __VA_ARGS__)
#define eventfd(...)               FAIL(eventfd, fault_error(), __VA_ARGS__)
#define dup3(...)                  FAIL(dup3, fault_error(), __VA_ARGS__)
#define pipe2(...)                 FAIL(pipe2, fault_error(), __VA_ARGS__)
#define prctl(...)                 FAIL(prctl, fault_error(), __VA_ARGS__)
#define getrandom(...)             FAIL(getrandom, fault_error(), __VA_ARGS__)
#define fdatasync(...)             FAIL(fdatasync, fault_error(), __VA_ARGS__)
#define thrd_create(id, run, arg)  (fault(F_thrd_create) ? thrd_nomem : ((void)(run), thrd_create(id, fault_thread, arg)))
#elif defined(__APPLE__)
#define kqueue()                   (fault(F_kqueue) ? fault_error() : kqueue())
#define getentropy(...)            FAIL(getentropy, fault_error(), __VA_ARGS__)
#define proc_pidinfo(...)          FAIL(proc_pidinfo, 0, __VA_ARGS__)
#define proc_listpids(...)         FAIL(proc_listpids, 0, __VA_ARGS__)
#define proc_pid_rusage(...)       FAIL(proc_pid_rusage, fault_error(), __VA_ARGS__)
#define sysctlbyname(...)          FAIL(sysctlbyname, fault_error(), __VA_ARGS__)
#define pipe(...)                  FAIL(pipe, fault_error(), __VA_ARGS__)
#endif
