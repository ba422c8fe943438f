/* ext/process.h - this process again, its children, and the process that a client talks to.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/process.h"

   USE: start this program again as `program work 7`, and print what it prints
         ka_child c;
         char line[256];
         int r = ka_child_start(&c, (const char *const[]){ "work", "7", NULL });
         if (r < 0) return puts(ka_error_text(r));
         while ((r = ka_child_line(&c, line, sizeof line, -1)) == KA_OK) puts(line);
         int status = ka_child_end(&c, false, 5000);
         if (status == KA_ETIME) status = ka_child_end(&c, true, -1);

   CONTENTS
     ka_restart                        this process again
     ka_child_start, line, end         a child process, and its output
     ka_client_kill_server             the process that a client talks to
     ka_process_usage, ka_memory_trim, ka_descriptors_raise    what this process uses, and may use

   WINDOWS
     Link with -liphlpapi, too.

   LIMITS
     One thread at a time for each ka_child, and one thread at a time starts children. */

#ifndef KEYAUTH_H
#error "ext/process.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_PROCESS_H
#define KEYAUTH_PROCESS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Restart: replace this process by a fresh run of its own program, `program arg`. The image is
   found through the system, never through argv[0] or PATH. On POSIX this is exec, which returns
   only if it failed. Windows has no exec: there this starts a process and waits for its end.
     arg        up to KA_MAX_ID bytes of printable ASCII without a double quote or backslash
     returns    Windows: the new process's exit code, with which the caller should exit;
                or KA_EINVAL, KA_EOS */
KADEF int ka_restart(const char *arg);

/* Kill the process at the other end of this client's connection, and no other. It must hold that
   connection and the listening socket, and no other process may hold one of the two; the listening
   socket one may, if a service manager has handed it over (Keyauth-Ends tells). In doubt nothing is
   killed. A handle holds the process while it is looked at again. On Linux the handle
   (a pidfd) is compared with what /proc shows. So neither a recycled PID nor another namespace's
   /proc nor a mount in /proc makes it another process. Then comes SIGKILL (TerminateProcess), and a
   wait for the process's end.
     *pid       the process, where one was found, else 0
     returns    KA_OK: it has ended. KA_ETIME: it still runs after 5 s. After any other error
                nothing was killed, and c->why tells the cause and what to do.
                KA_ENOTFOUND: not on this machine, not in this namespace, or behind a proxy
                KA_EINUSE: more than one process holds its sockets
                KA_EPERM: another user's, not to be looked into, in a sandbox, process 1, or the
                caller itself
                KA_EOFFLINE: it has ended already, or closed the connection
                KA_EOS, KA_ELIMIT: c->os_error
     proxy      the answer's Keyauth-Ends tells of a proxy, see ka_auth. If a server does not
                send that field, or a proxy removes it, a proxy on this machine passes for it
     Unix       at a Unix socket it is the process that the socket's credentials name
                (SO_PEERCRED, SO_PEERPIDFD, LOCAL_PEERPID), and that holds the listening socket. One
                that was handed over has its manager's credentials, so nothing is killed there
     unseen     Linux, macOS: a process that the caller may not look into may hold the sockets, too.
                Windows names one process for a socket; others that inherited its handle are unseen
     macOS      has no such handle: there the last look comes right before the kill */
KADEF int ka_client_kill_server(ka_client *c, int64_t *pid);

enum { KA_CHILD_ARGS = 30 };     /* arguments of a child, at most */

/* A child process: another run of this program. */
typedef struct {
    int64_t  pid;                /* 0: there is no child */
    /* its own */
    intptr_t process, out;       /* Windows: the process's handle; the reading end of a pipe */
    bool     told;               /* the child was told to end */
    size_t   n;                  /* bytes of text */
    char     text[1024];         /* what was read of the pipe, and not given out yet */
} ka_child;

/* Start this program again. The child's standard output is a pipe to this process, its standard
   input is empty, and its standard error is this process's. The image is found as by ka_restart.
   The child has none of this process's other descriptors and no signal handlers. Signals that were
   ignored stay ignored, except SIGPIPE and SIGXFSZ. On Linux the child is killed when the thread
   that called this ends.
     args       what follows the program's name, and a NULL; at most KA_CHILD_ARGS, and each as the
                argument of ka_restart
     returns    KA_OK; or KA_EINVAL, KA_ELIMIT, KA_ETHREAD, KA_EPERM, KA_EOS, and then c->pid is 0.
                On POSIX a child whose image can't be executed ends with status 127 */
KADEF int ka_child_start(ka_child *c, const char *const *args);

/* Read the next line of a child's output, and put a NUL in the place of the line's end. The last
   line may lack its end. If a line has cap bytes or more, or more than 1,023, its rest is lost.
     cap        bytes of line, at least 1
     timeout_ms 0 returns at once, -1 waits for ever
     returns    KA_OK; KA_ETIME: no whole line came in this time; KA_ENOTFOUND: the child writes no
                more, or there is no child; KA_ELIMIT, KA_EOS */
KADEF int ka_child_line(ka_child *c, char *line, size_t cap, int timeout_ms);

/* End a child, wait for its end, and free what c holds. What the child wrote last is lost. To have
   it: call this with timeout_ms 0, read lines until KA_ENOTFOUND, and call this again. A child that
   has more to write than a pipe holds can't end before it is read. SIGCHLD must not be ignored.
     kill       true: by SIGKILL. false: by SIGTERM, which is sent once, however often this is
                called. Windows has no SIGTERM: there both are TerminateProcess
     timeout_ms 0 returns at once, -1 waits for ever
     returns    the child's exit status, or 128 + the signal that ended it; on Windows what the
                child exited with, or 137 if this function ended it.
                KA_ENOTFOUND: there is no child. KA_EOS: the child has ended, its status is lost.
                KA_ETIME: the child still runs. KA_EPERM: the child may not be ended. After these
                two, c still holds the child */
KADEF int ka_child_end(ka_child *c, bool kill, int timeout_ms);

typedef struct {
    int64_t cpu_us;              /* processor time of all threads, ever, in microseconds */
    size_t  memory;              /* bytes in memory now, without the kernel's for sockets */
} ka_usage;

/* What this process uses (getrusage(2), and /proc/self/statm or proc_pid_rusage; GetProcessTimes
   and GetProcessMemoryInfo). Any thread.
     returns    KA_OK; or KA_ELIMIT, KA_EPERM, KA_EOS, and then all of *out is 0 */
KADEF int ka_process_usage(ka_usage *out);

/* Give freed memory back to the system, as far as the allocator can: malloc_trim(3) of glibc, and
   nothing elsewhere. Call it when a crowd has gone, since it takes milliseconds. Any thread. */
KADEF void ka_memory_trim(void);

/* Raise this process's descriptor limit as far as that needs no rights (setrlimit(2)). Call it
   before ka_server_start, since workers take the limit that they find. Any thread.
     *each      as ka_own_descriptors: can the limit count for each worker of a server?
     returns    the limit, INT_MAX where there is none; or KA_EOS */
KADEF int ka_descriptors_raise(bool *each);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_PROCESS_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_PROCESS_IMPLEMENTED)
#define KEYAUTH_PROCESS_IMPLEMENTED

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(_WIN32)
#  include <winsock2.h>
#  include <windows.h>
#  include <iphlpapi.h>
#  include <psapi.h>
#  ifdef _MSC_VER
#    pragma comment(lib, "iphlpapi")
#  endif
#else
#  include <arpa/inet.h>
#  include <ctype.h>
#  include <dirent.h>
#  include <fcntl.h>
#  include <netinet/tcp.h>
#  include <poll.h>
#  include <signal.h>
#  include <sys/resource.h>
#  include <sys/socket.h>
#  include <sys/stat.h>
#  include <sys/un.h>
#  include <sys/wait.h>
#  include <unistd.h>
#  if defined(__linux__)
#    include <sys/prctl.h>
#    include <sys/syscall.h>
#    ifndef SYS_pidfd_send_signal      /* old headers; the same on all processors but Alpha */
#      define SYS_pidfd_send_signal 424
#    endif
#  else
#    include <libproc.h>
#    include <mach-o/dyld.h>
#    include <sys/event.h>
#    include <sys/sysctl.h>
#  endif
#  if defined(__GLIBC__)
#    include <malloc.h>
#  endif
#endif

enum { KA__CHILD_STEP_MS = 2 };      /* between two looks at what no call of the system waits for */

/* When a wait of timeout_ms ends; INT64_MAX: never. */
static int64_t ka__child_until(int timeout_ms)
{
    return timeout_ms < 0 ? INT64_MAX : ka_now_ms() + timeout_ms;
}

/* Milliseconds until then, for a call that takes an int. */
static int ka__child_left(int64_t until_ms)
{
    int64_t left = until_ms - ka_now_ms();
    if (left <= 0) return 0;
    return left < INT_MAX ? (int)left : INT_MAX;
}

/* Windows joins the arguments into one line, where these characters mean nothing. */
static bool ka__arg_ok(const char *arg)
{
    if (strlen(arg) > KA_MAX_ID) return false;
    while (*arg >= ' ' && *arg <= '~' && *arg != '"' && *arg != '\\') arg++;
    return *arg == 0;
}

/* How many arguments are there? KA_EINVAL: too many, or one of them is none. */
static int ka__child_args(const char *const *args)
{
    int n = 0;
    for (; args[n]; n++)
        if (n == KA_CHILD_ARGS || !ka__arg_ok(args[n])) return KA_EINVAL;
    return n;
}

#if defined(_WIN32)
static int ka__child_create(const char *const *args, HANDLE in, HANDLE out,
                            PROCESS_INFORMATION *child)
{
    /* each argument has two quotes and a space around it; and a zero at the end */
    WCHAR exe[MAX_PATH + 1], line[MAX_PATH + KA_CHILD_ARGS * (KA_MAX_ID + 3) + 3], *w = line;
    DWORD path = GetModuleFileNameW(NULL, exe, MAX_PATH);
    if (path == 0 || path >= MAX_PATH) return KA_EOS;
    *w++ = L'"';
    for (const WCHAR *e = exe; *e; ) *w++ = *e++;
    *w++ = L'"';
    for (; *args; args++) {
        *w++ = L' ';
        *w++ = L'"';
        for (const char *a = *args; *a; ) *w++ = (WCHAR)*a++;
        *w++ = L'"';
    }
    *w = 0;

    STARTUPINFOW startup;
    memset(&startup, 0, sizeof startup);
    startup.cb = sizeof startup;
    startup.dwFlags = STARTF_USESTDHANDLES;
    startup.hStdInput = in;
    startup.hStdOutput = out;
    startup.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    return CreateProcessW(exe, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, child)
           ? KA_OK : KA_EOS;
}

int ka_restart(const char *arg)
{
    const char *const args[] = { arg, NULL };
    const HANDLE in = GetStdHandle(STD_INPUT_HANDLE), out = GetStdHandle(STD_OUTPUT_HANDLE);
    PROCESS_INFORMATION child;
    DWORD code = 1;
    if (ka__child_args(args) < 0) return KA_EINVAL;
    int r = ka__child_create(args, in, out, &child);
    if (r < 0) return r;
    CloseHandle(child.hThread);
    WaitForSingleObject(child.hProcess, INFINITE);
    GetExitCodeProcess(child.hProcess, &code);
    CloseHandle(child.hProcess);
    return (int)(code & 0x7FFFFFFF);
}

int ka_child_start(ka_child *c, const char *const *args)
{
    SECURITY_ATTRIBUTES inherited = { sizeof inherited, NULL, TRUE };
    PROCESS_INFORMATION child;
    HANDLE ours, theirs;
    memset(c, 0, sizeof *c);
    if (ka__child_args(args) < 0) return KA_EINVAL;
    if (!CreatePipe(&ours, &theirs, &inherited, 0)) return KA_ELIMIT;
    SetHandleInformation(ours, HANDLE_FLAG_INHERIT, 0);
    HANDLE in = CreateFileA("NUL", GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, &inherited,
                            OPEN_EXISTING, 0, NULL);
    int r = in == INVALID_HANDLE_VALUE ? KA_EOS : ka__child_create(args, in, theirs, &child);
    if (in != INVALID_HANDLE_VALUE) CloseHandle(in);
    CloseHandle(theirs);
    if (r < 0) {
        CloseHandle(ours);
        return r;
    }
    CloseHandle(child.hThread);
    c->pid = (int64_t)child.dwProcessId;
    c->process = (intptr_t)child.hProcess;
    c->out = (intptr_t)ours;
    return KA_OK;
}

/* Bytes of the child's output; 0: its end; KA_ETIME. Windows can't wait for a pipe. */
static ptrdiff_t ka__child_read(const ka_child *c, char *out, size_t n, int64_t until_ms)
{
    const HANDLE pipe = (HANDLE)c->out;
    for (;; ka_sleep_ms(KA__CHILD_STEP_MS)) {
        DWORD ready = 0, got = 0;
        if (!PeekNamedPipe(pipe, NULL, 0, NULL, &ready, NULL))
            return GetLastError() == ERROR_BROKEN_PIPE ? 0 : KA_EOS;
        if (ready) return ReadFile(pipe, out, (DWORD)n, &got, NULL) ? (ptrdiff_t)got : KA_EOS;
        if (ka__child_left(until_ms) == 0) return KA_ETIME;
    }
}

int ka_child_end(ka_child *c, bool by_force, int timeout_ms)
{
    HANDLE process = (HANDLE)c->process;
    DWORD code = 0, patience = timeout_ms < 0 ? INFINITE : (DWORD)timeout_ms;
    (void)by_force;
    if (!c->pid) return KA_ENOTFOUND;
    bool ended = WaitForSingleObject(process, 0) == WAIT_OBJECT_0;
    if (!ended && !c->told && !TerminateProcess(process, 137)) return KA_EPERM;
    c->told = true;
    if (WaitForSingleObject(process, patience) != WAIT_OBJECT_0) return KA_ETIME;
    bool known = GetExitCodeProcess(process, &code);
    CloseHandle(process);
    CloseHandle((HANDLE)c->out);
    memset(c, 0, sizeof *c);
    return known ? (int)(code & 0x7FFFFFFF) : KA_EOS;
}

/* A time of Windows, in units of 100 ns, as microseconds. */
static int64_t ka__usage_us(FILETIME t)
{
    return (int64_t)(((uint64_t)t.dwHighDateTime << 32 | t.dwLowDateTime) / 10);
}

int ka_process_usage(ka_usage *out)
{
    FILETIME begun, ended, kernel, user;
    PROCESS_MEMORY_COUNTERS memory;
    memset(out, 0, sizeof *out);
    if (!GetProcessTimes(GetCurrentProcess(), &begun, &ended, &kernel, &user) ||
        !K32GetProcessMemoryInfo(GetCurrentProcess(), &memory, sizeof memory)) return KA_EOS;
    out->cpu_us = ka__usage_us(kernel) + ka__usage_us(user);
    out->memory = memory.WorkingSetSize;
    return KA_OK;
}

int ka_descriptors_raise(bool *each)
{
    *each = ka_own_descriptors();
    return INT_MAX;
}
#else
/* The error of the system call that just failed. */
static int ka__process_error(void)
{
    switch (errno) {
    case EACCES: case EPERM: case ENOSYS:                return KA_EPERM;   /* ENOSYS: a sandbox */
    case EMFILE: case ENFILE: case ENOBUFS: case ENOMEM: return KA_ELIMIT;
    default:                                             return KA_EOS;
    }
}

#  if defined(__linux__)
/* The path that executes this program again; NULL: it is not known. `name` gets the name that the
   program is given then, which is only shown. /proc/self/exe is what runs now, even if its file was
   moved, replaced or removed. */
static const char *ka__image(char name[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", name, PATH_MAX - 1);
    if (n < 0) return NULL;
    name[n] = 0;
    return "/proc/self/exe";
}

/* Have this process killed when the thread that started it ends. False: the parent has ended. */
static bool ka__child_die_with(pid_t parent)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == parent;
}

static int ka__child_pipe(int ends[2])
{
    return pipe2(ends, O_CLOEXEC) == 0 ? KA_OK : ka__process_error();
}

/* The second number of /proc/self/statm is pages in memory (proc(5)). */
static int ka__usage_memory(size_t *out)
{
    char text[128];
    unsigned long pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ka__process_error();
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    int r = n < 0 ? ka__process_error() : KA_OK;
    close(fd);
    if (r < 0) return r;
    text[n] = 0;
    if (sscanf(text, "%*u %lu %*u", &pages) != 1 || !strchr(text, '\n')) return KA_EOS;
    *out = pages * (size_t)sysconf(_SC_PAGESIZE);
    return KA_OK;
}
#  else
static const char *ka__image(char name[PATH_MAX])
{
    uint32_t n = PATH_MAX;
    return _NSGetExecutablePath(name, &n) == 0 ? name : NULL;
}

/* macOS has no way to do that. */
static bool ka__child_die_with(pid_t parent) { return parent > 0; }

static int ka__child_pipe(int ends[2])
{
    if (pipe(ends) != 0) return ka__process_error();
    if (fcntl(ends[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0)
        return KA_OK;
    close(ends[0]);
    close(ends[1]);
    return KA_EOS;
}

/* Freed memory leaves the footprint at once. It leaves the resident size when it is needed. */
static int ka__usage_memory(size_t *out)
{
    struct rusage_info_v0 info;
    if (proc_pid_rusage(getpid(), RUSAGE_INFO_V0, (rusage_info_t *)(void *)&info) != 0)
        return KA_EOS;
    *out = (size_t)info.ri_phys_footprint;
    return KA_OK;
}
#  endif

int ka_restart(const char *arg)
{
    char name[PATH_MAX];
    const char *image = ka__image(name);
    if (!ka__arg_ok(arg)) return KA_EINVAL;
    if (image) {
        char *argv[] = { name, (char *)(uintptr_t)arg, NULL };      /* exec does not change arg */
        execv(image, argv);
    }
    return KA_EOS;
}

/* Runs in the forked child, where only what signal-safety(7) lists may be called. All signals are
   blocked: a handler of the parent's would wake the parent's threads from here. */
static void ka__child_become(const char *image, char *const *argv, int out, pid_t parent)
{
    sigset_t none;
    for (int i = 1; i < NSIG; i++) {
        bool was_ignored = signal(i, SIG_DFL) == SIG_IGN;      /* as by nohup */
        if (was_ignored && i != SIGPIPE && i != SIGXFSZ) signal(i, SIG_IGN);
    }
    sigemptyset(&none);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (ka__child_die_with(parent) && in >= 0 && dup2(in, 0) == 0 && dup2(out, 1) == 1) {
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        execv(image, argv);
    }
    _exit(127);
}

/* If 0, 1 or 2 was closed, the pipe would get that number, and dup2 would leave it to be closed by
   exec. So the closed ones are opened. */
static void ka__child_fill_standard(void)
{
    int fd;
    do fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= 2);
    if (fd > 2) close(fd);
}

int ka_child_start(ka_child *c, const char *const *args)
{
    char name[PATH_MAX], *argv[KA_CHILD_ARGS + 2] = { name };
    const char *image = ka__image(name);
    int ends[2], n = ka__child_args(args);
    pid_t parent = getpid();
    sigset_t all, before;
    memset(c, 0, sizeof *c);
    if (n < 0) return n;
    if (!image) return KA_EOS;
    /* The cast: exec changes no argument, which its type doesn't say. */
    for (int i = 0; i < n; i++) argv[i + 1] = (char *)(uintptr_t)args[i];
    ka__child_fill_standard();
    int r = ka__child_pipe(ends);
    if (r < 0) return r;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) ka__child_become(image, argv, ends[1], parent);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return KA_ETHREAD;
    }
    c->pid = pid;
    c->out = ends[0];
    return KA_OK;
}

/* Bytes of the child's output; 0: its end; KA_ETIME. */
static ptrdiff_t ka__child_read(const ka_child *c, char *out, size_t n, int64_t until_ms)
{
    for (;;) {
        int left = ka__child_left(until_ms);
        struct pollfd p = { (int)c->out, POLLIN, 0 };
        int ready = poll(&p, 1, left);
        if (ready == 0 && left == 0) return KA_ETIME;
        ssize_t got = ready > 0 ? read(p.fd, out, n) : ready;
        if (ready > 0 && got >= 0) return got;
        if (got < 0 && errno != EINTR) return ka__process_error();
    }
}

/* The child's PID: it has ended. 0: it runs. Less: it has ended, and its status is lost. */
static pid_t ka__child_look(const ka_child *c, int *status)
{
    pid_t r;
    do r = waitpid((pid_t)c->pid, status, WNOHANG);
    while (r < 0 && errno == EINTR);
    return r;
}

int ka_child_end(ka_child *c, bool by_force, int timeout_ms)
{
    const int64_t until_ms = ka__child_until(timeout_ms);
    int status = 0;
    if (!c->pid) return KA_ENOTFOUND;
    /* Until waitpid has told of the child's end, no other process can have its PID. */
    pid_t ended = ka__child_look(c, &status);
    bool tell = ended == 0 && (by_force || !c->told);
    if (tell && kill((pid_t)c->pid, by_force ? SIGKILL : SIGTERM) != 0) return ka__process_error();
    c->told = true;
    for (; ended == 0; ended = ka__child_look(c, &status)) {
        if (ka__child_left(until_ms) == 0) return KA_ETIME;
        ka_sleep_ms(KA__CHILD_STEP_MS);
    }
    close((int)c->out);
    memset(c, 0, sizeof *c);
    if (ended < 0) return KA_EOS;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int ka_process_usage(ka_usage *out)
{
    struct rusage u;
    memset(out, 0, sizeof *out);
    int r = getrusage(RUSAGE_SELF, &u) == 0 ? ka__usage_memory(&out->memory) : KA_EOS;
    if (r < 0) return r;
    out->cpu_us = ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
                  u.ru_utime.tv_usec + u.ru_stime.tv_usec;
    return KA_OK;
}

int ka_descriptors_raise(bool *each)
{
    struct rlimit limit;
    *each = ka_own_descriptors();
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return KA_EOS;
    rlim_t most = limit.rlim_max;
#  if defined(__APPLE__)
    /* The hard limit may be none at all, which is not what can be had. */
    int allowed;
    size_t size = sizeof allowed;
    if (sysctlbyname("kern.maxfilesperproc", &allowed, &size, NULL, 0) == 0 &&
        most > (rlim_t)allowed) most = (rlim_t)allowed;
#  endif
    if (limit.rlim_cur < most) {
        limit.rlim_cur = most;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return KA_EOS;
    }
    return limit.rlim_cur < INT_MAX ? (int)limit.rlim_cur : INT_MAX;
}
#endif

/* Give out the n bytes before a line's end, and drop them and that end. */
static void ka__child_take(ka_child *c, size_t n, bool whole, char *line, size_t cap)
{
    size_t end = n + whole, keep = n;
    if (keep > 0 && c->text[keep - 1] == '\r') keep--;      /* Windows */
    if (keep >= cap) keep = cap - 1;
    memcpy(line, c->text, keep);
    line[keep] = 0;
    c->n -= end;
    memmove(c->text, c->text + end, c->n);
}

int ka_child_line(ka_child *c, char *line, size_t cap, int timeout_ms)
{
    const int64_t until_ms = ka__child_until(timeout_ms);
    char *end;
    if (!c->pid) return KA_ENOTFOUND;
    while ((end = memchr(c->text, '\n', c->n)) == NULL) {
        if (c->n == sizeof c->text) c->n--;      /* a long line: the next byte replaces the last */
        ptrdiff_t got = ka__child_read(c, c->text + c->n, sizeof c->text - c->n, until_ms);
        if (got < 0) return (int)got;
        if (got == 0 && c->n == 0) return KA_ENOTFOUND;
        if (got == 0) break;
        c->n += (size_t)got;
    }
    ka__child_take(c, end ? (size_t)(end - c->text) : c->n, end != NULL, line, cap);
    return KA_OK;
}

void ka_memory_trim(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

/* ---- the kill of the process at the other end of a connection ---- */

#if defined(_WIN32)
typedef SOCKET ka__pair_sock;
#else
typedef int ka__pair_sock;
#endif

/* A connection, seen from here, and why the process at its other end was not killed. */
typedef struct {
    ka__pair_sock sock;
    ka_end mine, theirs;
    int64_t     handed;     /* the process that says that others may hold its listener; or 0 */
    const char *why;        /* the words for the error that was returned */
    int         os_error;   /* the system's code behind that error, or 0 */
} ka__pair;

static int ka__because(ka__pair *pair, int error, const char *why)
{
    pair->why = why;
    pair->os_error = 0;
    return error;
}

static bool ka__is_ipv4(const ka_end *e)
{
    static const unsigned char mapped[12] = { [10] = 0xFF, [11] = 0xFF };
    return memcmp(e->ip, mapped, sizeof mapped) == 0;
}

static bool ka__same_end(const ka_end *a, const ka_end *b)
{
    return a->port == b->port && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

/* May a socket that listens at l have accepted a connection at e? */
static bool ka__listens_for(const ka_end *l, const ka_end *e)
{
    static const unsigned char any[16];
    const size_t at = ka__is_ipv4(l) ? 12 : 0;
    if (memcmp(l->ip + at, any, sizeof any - at) != 0) return ka__same_end(l, e);
    return l->port == e->port;
}

static const char
    ka__elsewhere[] = "the server is on another machine, or in a container; stop it there",
    ka__ended[] = "the server has ended already, or has closed the connection",
    ka__shared[] = "more than one process holds the server's sockets; stop the right one by hand";

enum {
    KA__OWNER_MS = 1000,         /* how long a process is looked for */
    KA__OWNER_TRIES = 3,         /* how many times at least */
    KA__OWNER_STEP_MS = 20,      /* the wait between two looks */
    KA__KILL_MS = 5000           /* how long a killed process may take to end */
};

/* Each system has these three functions. After an error pair->why tells the cause.
   ka__owner_find    the one process that holds both the far end of a connection and the socket that
                     listens there; KA_OK, KA_ENOTFOUND, KA_EINUSE (several do), KA_EPERM, KA_EOS
   ka__process_open  a handle of a process: its PID can't come to mean another process
   ka__process_end   kill it, and wait for its end (ms at most); KA_OK, KA_EPERM, KA_ETIME */

#if defined(_WIN32)
typedef HANDLE ka__process;

/* A row of a table of connections. */
typedef struct { ka_end local, remote; DWORD state, pid; } ka__tcp_row;

static void *ka__tcp_table(ULONG family)
{
    void *t = NULL;
    DWORD size = 65536, r;
    do {      /* the table may grow between two calls: ask with twice the size that was needed */
        size *= 2;
        void *more = t ? KA_REALLOC(t, size) : KA_MALLOC(size);
        if (!more) break;
        t = more;
        r = GetExtendedTcpTable(t, &size, FALSE, family, TCP_TABLE_OWNER_PID_ALL, 0);
        if (r == NO_ERROR) return t;
    } while (r == ERROR_INSUFFICIENT_BUFFER);
    KA_FREE(t);
    return NULL;
}

static ka_end ka__tcp_end(const void *ip, size_t n, DWORD port)
{
    ka_end e = { .port = ntohs((u_short)port) };
    if (n == 4) e.ip[10] = e.ip[11] = 0xFF;
    memcpy(e.ip + sizeof e.ip - n, ip, n);
    return e;
}

/* The row i, or false behind the last one. */
static bool ka__tcp_row_at(const void *table, ULONG family, DWORD i, ka__tcp_row *row)
{
    if (family == AF_INET) {
        const MIB_TCPTABLE_OWNER_PID *t = table;
        const MIB_TCPROW_OWNER_PID *of = &t->table[i];
        if (i >= t->dwNumEntries) return false;
        *row = (ka__tcp_row){ ka__tcp_end(&of->dwLocalAddr, 4, of->dwLocalPort),
                              ka__tcp_end(&of->dwRemoteAddr, 4, of->dwRemotePort),
                              of->dwState, of->dwOwningPid };
    } else {
        const MIB_TCP6TABLE_OWNER_PID *t = table;
        const MIB_TCP6ROW_OWNER_PID *of = &t->table[i];
        if (i >= t->dwNumEntries) return false;
        *row = (ka__tcp_row){ ka__tcp_end(of->ucLocalAddr, 16, of->dwLocalPort),
                              ka__tcp_end(of->ucRemoteAddr, 16, of->dwRemotePort),
                              of->dwState, of->dwOwningPid };
    }
    return true;
}

/* Wine 8 does not know who owns an accepted socket: it says 0. Then the owner of the listener is
   taken for it, if one process listens. */
static int ka__owner_find(ka__pair *pair, int64_t *pid)
{
    const ULONG family = ka__is_ipv4(&pair->theirs) ? AF_INET : AF_INET6;
    void *t = ka__tcp_table(family);
    bool connected = false, listening = false, several = false;
    DWORD owner = 0, found = 0;
    ka__tcp_row row;
    if (!t) return ka__because(pair, KA_EOS, "connections cannot be read; stop the server by hand");
    for (DWORD i = 0; ka__tcp_row_at(t, family, i, &row); i++) {
        if (row.state == MIB_TCP_STATE_ESTAB && ka__same_end(&row.local, &pair->theirs) &&
            ka__same_end(&row.remote, &pair->mine)) {
            connected = true;
            owner = row.pid;
        }
    }
    for (DWORD i = 0; connected && ka__tcp_row_at(t, family, i, &row); i++) {
        if (row.state != MIB_TCP_STATE_LISTEN) continue;
        if (!ka__listens_for(&row.local, &pair->theirs)) continue;
        if (owner && row.pid != owner) continue;
        several = several || (listening && row.pid != found);
        listening = true;
        found = row.pid;
    }
    KA_FREE(t);
    *pid = several ? 0 : found;
    if (several) return ka__because(pair, KA_EINUSE, ka__shared);
    return found ? KA_OK : ka__because(pair, KA_ENOTFOUND, ka__elsewhere);
}

static bool ka__process_is_me(int64_t pid) { return pid == (int64_t)GetCurrentProcessId(); }

static bool ka__readable(SOCKET s, int ms)
{
    struct timeval t = { ms / 1000, ms % 1000 * 1000 };
    fd_set set;
    FD_ZERO(&set);
    FD_SET(s, &set);
    return select(0, &set, NULL, NULL, &t) > 0;
}

static int ka__process_open(ka__pair *pair, int64_t pid, ka__process *p)
{
    static const char denied[] =
        "the server is another user's process, or protected; run the client as an administrator";
    *p = OpenProcess(PROCESS_TERMINATE | SYNCHRONIZE, FALSE, (DWORD)pid);
    if (*p) return KA_OK;
    if (GetLastError() == ERROR_ACCESS_DENIED) return ka__because(pair, KA_EPERM, denied);
    return ka__because(pair, KA_ENOTFOUND, ka__ended);
}

static void ka__process_close(ka__process p) { CloseHandle(p); }

static int ka__process_end(ka__pair *pair, ka__process p, int64_t pid, int ms)
{
    (void)pid;
    int r = KA_OK;
    if (!TerminateProcess(p, 1))
        r = ka__because(pair, KA_EPERM, "the server may not be ended; stop it by hand");
    if (r == KA_OK && WaitForSingleObject(p, (DWORD)ms) != WAIT_OBJECT_0) r = KA_ETIME;
    return r;
}

#else
static bool ka__process_is_me(int64_t pid) { return pid == (int64_t)getpid(); }

static bool ka__readable(int fd, int ms)
{
    struct pollfd p = { fd, POLLIN, 0 };
    return poll(&p, 1, ms) > 0;
}

/* As ka__because. The cause is the system call that has just failed. */
static int ka__because_os(ka__pair *pair, const char *why)
{
    pair->os_error = errno;
    int r = ka__process_error();
    pair->why = r == KA_ELIMIT ? "no descriptor or buffer is free; raise ulimit -n" : why;
    return r;
}

/* Who holds which sockets at the other end of a connection. Bit 0 of a set is the connection's end;
   the other bits are the sockets that listen there. */
typedef struct {
    int64_t  pid;            /* a process that holds the end and a listener; 0: there is none */
    uint32_t owned;          /* what that process holds */
    uint32_t others;         /* what other processes hold */
} ka__owners;

enum { KA__MAX_OWN_LISTENERS = 16 };      /* one, but for SO_REUSEPORT */

static void ka__owner_count(ka__owners *o, int64_t pid, uint32_t held)
{
    if ((held & 1) && held > 1 && !o->pid) {
        o->pid = pid;
        o->owned = held;
    } else {
        o->others |= held;      /* a child, a parent, or Wine's server */
    }
}

#  if defined(__linux__)
typedef int ka__process;      /* a pidfd */

/* Inodes of sockets, by the kernel's tables. */
typedef struct {
    unsigned long own;            /* this end of the connection */
    unsigned long connection;     /* the other end; 0: it is not on this machine */
    unsigned long uid;            /* the other end's user */
    unsigned long listeners[KA__MAX_OWN_LISTENERS];
    int  listeners_n;
    bool ours;                    /* the tables have this end: they are of this network namespace */
    bool unseen;                  /* a process may not be looked into */
    int  code;                    /* errno: why a process could not be looked into; 0: none */
} ka__inodes;

/* Read an end as /proc/net/tcp has it: words in hexadecimal, as they lie in memory, a colon, and
   the port. tcp6 has four words, tcp only the last one. False: it is none. */
static bool ka__end_read(ka_end *e, const char *text)
{
    const bool four = strlen(text) < 32;
    unsigned word;
    *e = (ka_end){ .ip = { [10] = four ? 0xFF : 0, [11] = four ? 0xFF : 0 } };
    for (int i = four ? 3 : 0; i < 4; i++, text += 8) {
        if (sscanf(text, "%8x", &word) != 1) return false;
        memcpy(e->ip + 4 * i, &word, sizeof word);
    }
    return sscanf(text, ":%4hx", &e->port) == 1;
}

/* Add what a table of the kernel's knows (man 5 proc, /proc/net/tcp). False: it can't be opened. */
static bool ka__inodes_read(ka__inodes *in, const char *table, const ka__pair *pair)
{
    static const char format[] = " %*u: %63s %63s %x %*s %*s %*s %lu %*s %lu";
    char line[512], local_text[64], remote_text[64];
    ka_end local, remote;
    unsigned state;
    unsigned long uid, inode;
    FILE *f = fopen(table, "re");
    if (!f) return false;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, format, local_text, remote_text, &state, &uid, &inode) != 5) continue;
        if (!ka__end_read(&local, local_text) || !ka__end_read(&remote, remote_text)) continue;
        if (ka__same_end(&local, &pair->theirs) && ka__same_end(&remote, &pair->mine)) {
            in->connection = inode;
            in->uid = uid;
        } else if (state == TCP_LISTEN && ka__listens_for(&local, &pair->theirs)) {
            if (in->listeners_n < KA__MAX_OWN_LISTENERS) in->listeners[in->listeners_n++] = inode;
        } else if (inode == in->own && ka__same_end(&local, &pair->mine)) {
            in->ours = true;
        }
    }
    fclose(f);
    return true;
}

/* Note why a folder or a link of a process was not read, by errno. If the process has ended,
   nothing is noted. */
static void ka__inodes_missed(ka__inodes *in)
{
    if (errno == EACCES || errno == EPERM) in->unseen = true;
    else if (errno != ENOENT && errno != ESRCH && errno != 0) in->code = errno;
}

/* The next entry whose name is a number. NULL: there is none, and errno is 0, or reading failed. */
static struct dirent *ka__next_number(DIR *d)
{
    struct dirent *e;
    do errno = 0;
    while ((e = readdir(d)) != NULL && !isdigit((unsigned char)e->d_name[0]));
    return e;
}

/* Which of the sockets are in a table of descriptors, /proc/PID/fd? Bits as in ka__owners. */
static uint32_t ka__inodes_held(ka__inodes *in, const char *folder)
{
    uint32_t held = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = ka__next_number(d)) != NULL; ) {
        char link[64];
        unsigned long inode;
        ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
        if (n < 0) ka__inodes_missed(in);
        link[n < 0 ? 0 : n] = 0;
        if (sscanf(link, "socket:[%lu]", &inode) != 1) continue;
        if (inode == in->connection) held |= 1;
        for (int i = 0; i < in->listeners_n; i++)
            if (inode == in->listeners[i]) held |= 2u << i;
    }
    ka__inodes_missed(in);
    if (d) closedir(d);
    return held;
}

/* Which of the sockets does a process hold? Bits as in ka__owners. Threads may have tables of their
   own (unshare(2), CLONE_FILES): kcmp(2) tells them from the main table. */
static uint32_t ka__process_holds(ka__inodes *in, const char *pid)
{
    char folder[96];
    snprintf(folder, sizeof folder, "/proc/%.20s/fd", pid);
    uint32_t held = ka__inodes_held(in, folder);
    snprintf(folder, sizeof folder, "/proc/%.20s/task", pid);
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = ka__next_number(d)) != NULL; ) {
        if (syscall(SYS_kcmp, atol(pid), atol(e->d_name), 2 /* KCMP_FILES */, 0, 0) == 0) continue;
        snprintf(folder, sizeof folder, "/proc/%.20s/task/%.20s/fd", pid, e->d_name);
        held |= ka__inodes_held(in, folder);
    }
    ka__inodes_missed(in);
    if (d) closedir(d);
    return held;
}

/* Why no process was found for a connection whose other end is on this machine. */
static int ka__owner_unknown(ka__pair *pair, const ka__inodes *in, const ka__owners *o)
{
    static const char
        helper[] = "who answered does not hold the listening socket; stop the server by hand",
        others[] = "the server is another user's process; run the client as that user, or as root",
        unseen[] = "the server may not be looked into (file capabilities, or another user "
                   "namespace?); run the client as root, beside the server",
        hidden[] = "/proc shows no process that holds the connection: the server is hidden "
                   "(hidepid), or one of the two is in a container; run the client as root, "
                   "beside the server";
    if (o->others & 1) return ka__because(pair, KA_ENOTFOUND, helper);
    if (geteuid() != 0 && in->uid != geteuid()) return ka__because(pair, KA_EPERM, others);
    if (in->unseen) return ka__because(pair, KA_EPERM, unseen);
    return ka__because(pair, KA_ENOTFOUND, hidden);
}

/* This thread's network and descriptors. It is there even if /proc is mounted with subset=pid. */
#define KA__PROC "/proc/thread-self"

static const char ka__unread[] =
    "/proc tells whose a connection is, and cannot be read; mount it";

/* Nothing may be mounted over a process's folder in /proc. A mount can show another's sockets. */
static int ka__proc_plain(ka__pair *pair)
{
    static const char covered[] =
        "something is mounted over a process in /proc (see /proc/self/mountinfo); unmount it";
    char line[512], digit[2];
    bool plain = true;
    FILE *f = fopen(KA__PROC "/mountinfo", "re");
    if (!f) return ka__because_os(pair, ka__unread);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%*s %*s %*s %*s /proc/%1[0-9]", digit) == 1) plain = false;
    fclose(f);
    return plain ? KA_OK : ka__because(pair, KA_ENOTFOUND, covered);
}

/* Add what /proc/net/unix knows (man 5 proc): this end, and who listens at the other end's path. It
   tells no peers: whose the other end is, the socket's credentials tell. */
static bool ka__unix_inodes_read(ka__inodes *in, const ka__pair *pair)
{
    char line[512], path[sizeof ((struct sockaddr_un *)0)->sun_path + 1];
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct ucred owner = { .pid = 0 };
    socklen_t n = sizeof a, owner_n = sizeof owner;
    unsigned flags;
    unsigned long inode;
    FILE *f = fopen(KA__PROC "/net/unix", "re");
    if (!f) return false;
    if (getpeername(pair->sock, (struct sockaddr *)&a, &n) != 0) memset(&a, 0, sizeof a);
    if (getsockopt(pair->sock, SOL_SOCKET, SO_PEERCRED, &owner, &owner_n) == 0) in->uid = owner.uid;
    while (fgets(line, sizeof line, f)) {
        int fields = sscanf(line, "%*s %*s %*s %x %*s %*s %lu %108[^\n]", &flags, &inode, path);
        if (fields >= 2 && inode == in->own) in->ours = true;
        if (fields < 3 || !(flags & 1 << 16) /* SO_ACCEPTCON */) continue;
        if (strncmp(path, a.sun_path, sizeof a.sun_path) != 0) continue;
        if (in->listeners_n < KA__MAX_OWN_LISTENERS) in->listeners[in->listeners_n++] = inode;
    }
    fclose(f);
    in->connection = in->listeners_n ? ULONG_MAX : 0;      /* the credentials stand for it */
    return true;
}

/* Read the tables of connections that the pair may be in. */
static bool ka__tables_read(ka__inodes *in, const ka__pair *pair)
{
    if (pair->theirs.local) return ka__unix_inodes_read(in, pair);
    if (!ka__inodes_read(in, KA__PROC "/net/tcp", pair)) return false;
    ka__inodes_read(in, KA__PROC "/net/tcp6", pair);      /* not there without IPv6 */
    return true;
}

static int ka__owner_find(ka__pair *pair, int64_t *pid)
{
    static const char foreign[] =
        "/proc shows another network's connections; mount this namespace's own";
    ka__inodes in = { 0 };
    ka__owners owners = { 0 };
    struct stat own;
    *pid = 0;
    if (fstat(pair->sock, &own) == 0) in.own = (unsigned long)own.st_ino;
    int r = ka__proc_plain(pair);
    if (r < 0) return r;
    if (!ka__tables_read(&in, pair)) return ka__because_os(pair, ka__unread);
    if (!in.ours) return ka__because(pair, KA_ENOTFOUND, foreign);
    if (!in.connection) return ka__because(pair, KA_ENOTFOUND, ka__elsewhere);
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = ka__next_number(d)) != NULL; ) {
        const long number = atol(e->d_name);
        uint32_t held = ka__process_holds(&in, e->d_name);
        /* If it may not be looked into, it holds nothing here, and its user is told. */
        if (pair->theirs.local && held && number == (long)pair->theirs.zone) held |= 1;
        ka__owner_count(&owners, number, held);
    }
    if (errno) in.code = errno;
    if (d) closedir(d);
    errno = in.code;
    if (in.code) return ka__because_os(pair, ka__unread);
    if (owners.pid == pair->handed) owners.others &= 1;
    if (owners.owned & owners.others) return ka__because(pair, KA_EINUSE, ka__shared);
    *pid = owners.pid;
    return owners.pid ? KA_OK : ka__owner_unknown(pair, &in, &owners);
}

/* The PID of a pidfd's process in this /proc (man 5 proc_pid_fdinfo). 0: it has none here; -1: it
   has ended. */
static long ka__pidfd_number(int p)
{
    char text[64];
    long pid = -1;
    snprintf(text, sizeof text, KA__PROC "/fdinfo/%d", p);
    FILE *f = fopen(text, "re");
    while (f && fgets(text, sizeof text, f) && sscanf(text, "Pid: %ld", &pid) != 1) {}
    if (f) fclose(f);
    return pid;
}

/* The kernel takes a PID as one of this process's PID namespace, but /proc may be of another one.
   So the process that was opened is compared with the one that /proc has under that number. */
static int ka__process_open(ka__pair *pair, int64_t pid, ka__process *p)
{
    static const char
        fails[] = "pidfd_open(2) fails; the client needs Linux 5.3, and to be in no sandbox",
        other[] = "/proc is another PID namespace's, with other numbers; mount this one's";
    const int option = 77;      /* SO_PEERPIDFD, Linux 6.5: of the process that pid was of */
    socklen_t n = sizeof *p;
    *p = -1;
    errno = ENOPROTOOPT;
    if (pair->theirs.local) getsockopt(pair->sock, SOL_SOCKET, option, p, &n);
    if (*p < 0 && errno == ENOPROTOOPT)
        *p = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);      /* closes on exec */
    if (*p < 0 && errno != ESRCH) return ka__because_os(pair, fails);
    if (*p >= 0 && ka__pidfd_number(*p) == pid) return KA_OK;
    if (*p >= 0) close(*p);
    return ka__because(pair, KA_ENOTFOUND, other);
}

static void ka__process_close(ka__process p) { close(p); }

static int ka__process_end(ka__pair *pair, ka__process p, int64_t pid, int ms)
{
    static const char fails[] = "pidfd_send_signal(2) fails; run the client as root, in no sandbox",
        first[] = "the server is process 1 here, which no signal from inside its container ends; "
                  "stop the container";
    if (pid == 1) return ka__because(pair, KA_EPERM, first);
    if (syscall(SYS_pidfd_send_signal, p, SIGKILL, NULL, 0) != 0) {
        if (errno == ESRCH) return ka__because(pair, KA_EOFFLINE, ka__ended);
        return ka__because_os(pair, fails);
    }
    int64_t until = ka_now_ms() + ms;
    /* A pidfd is readable when its process has ended. A wait that fails does not undo the kill. */
    while (!ka__readable(p, ms)) {
        if (ka_now_ms() >= until) return KA_ETIME;
        ka_sleep_ms(KA__OWNER_STEP_MS);
    }
    return KA_OK;
}

#  else
typedef int ka__process;      /* a kqueue that tells when the process ends */

/* The listeners that were met so far. The kernel's handles are the same in all processes. */
typedef struct { uint64_t handles[KA__MAX_OWN_LISTENERS]; int n; } ka__listeners;

/* The bit of a listener. When there are too many, the last bit stands for several. */
static uint32_t ka__listener_bit(ka__listeners *l, uint64_t handle)
{
    int i = 0;
    while (i < l->n && l->handles[i] != handle) i++;
    if (i == KA__MAX_OWN_LISTENERS) i--;
    else if (i == l->n) l->handles[l->n++] = handle;
    return 2u << i;
}

/* An end of a socket, whose union holds an IPv6 address, or an IPv4 one in its last bytes. */
static ka_end ka__info_end(const void *ip, bool four, int port)
{
    ka_end e = { .port = ntohs((uint16_t)port) };
    memcpy(e.ip, ip, sizeof e.ip);
    if (four) {
        memset(e.ip, 0, 10);
        memset(e.ip + 10, 0xFF, 2);
    }
    return e;
}

/* Which of the sockets does a process hold? Bits as in ka__owners. */
static uint32_t ka__process_holds(ka__listeners *listeners, int pid, const ka__pair *pair)
{
    uint32_t held = 0;
    int size = proc_pidinfo(pid, PROC_PIDLISTFDS, 0, NULL, 0);
    struct proc_fdinfo *fds = size > 0 ? KA_MALLOC((size_t)size * 2) : NULL;
    int n = fds ? proc_pidinfo(pid, PROC_PIDLISTFDS, 0, fds, size * 2) / (int)sizeof *fds : 0;
    for (int i = 0; i < n; i++) {
        struct socket_fdinfo info;
        if (fds[i].proc_fdtype != PROX_FDTYPE_SOCKET) continue;
        int got = proc_pidfdinfo(pid, fds[i].proc_fd, PROC_PIDFDSOCKETINFO, &info, sizeof info);
        if (got != (int)sizeof info) continue;
        if (info.psi.soi_kind != SOCKINFO_TCP) continue;
        const struct tcp_sockinfo *tcp = &info.psi.soi_proto.pri_tcp;
        const struct in_sockinfo *in = &tcp->tcpsi_ini;
        const bool four = (in->insi_vflag & INI_IPV4) != 0;
        const ka_end local = ka__info_end(&in->insi_laddr, four, in->insi_lport),
                     remote = ka__info_end(&in->insi_faddr, four, in->insi_fport);
        if (tcp->tcpsi_state == TSI_S_LISTEN && ka__listens_for(&local, &pair->theirs))
            held |= ka__listener_bit(listeners, info.psi.soi_so);
        if (ka__same_end(&local, &pair->theirs) && ka__same_end(&remote, &pair->mine)) held |= 1;
    }
    KA_FREE(fds);
    return held;
}

static int ka__owner_find(ka__pair *pair, int64_t *pid)
{
    if (pair->theirs.local) {      /* by the socket's credentials */
        *pid = pair->theirs.zone;
        return *pid ? KA_OK : ka__because(pair, KA_ENOTFOUND, ka__elsewhere);
    }
    static const char unread[] = "the list of processes cannot be read; stop the server by hand",
        none[] = "no process that this user may look into holds the server's sockets; "
                 "run the client as the server's user, or as root, on its machine";
    int size = proc_listpids(PROC_ALL_PIDS, 0, NULL, 0);
    pid_t *pids = size > 0 ? KA_MALLOC((size_t)size * 2) : NULL;
    if (!pids) return ka__because(pair, KA_EOS, unread);
    int n = proc_listpids(PROC_ALL_PIDS, 0, pids, size * 2) / (int)sizeof *pids;
    ka__owners owners = { 0 };
    ka__listeners listeners = { 0 };
    for (int i = 0; i < n; i++) {
        if (pids[i] == 0) continue;
        ka__owner_count(&owners, pids[i], ka__process_holds(&listeners, pids[i], pair));
    }
    KA_FREE(pids);
    *pid = 0;
    if (owners.pid == pair->handed) owners.others &= 1;
    if (owners.owned & owners.others) return ka__because(pair, KA_EINUSE, ka__shared);
    *pid = owners.pid;
    return owners.pid ? KA_OK : ka__because(pair, KA_ENOTFOUND, none);
}

static int ka__process_open(ka__pair *pair, int64_t pid, ka__process *p)
{
    static const char fails[] = "the process may not be watched; stop the server by hand";
    struct kevent ev;
    EV_SET(&ev, (uintptr_t)pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL);
    *p = kqueue();
    if (*p < 0) return ka__because_os(pair, fails);
    if (kevent(*p, &ev, 1, NULL, 0, NULL) == 0) return KA_OK;
    int r = ka__because_os(pair, fails);
    if (pair->os_error == ESRCH) r = ka__because(pair, KA_ENOTFOUND, ka__ended);
    close(*p);
    return r;
}

static void ka__process_close(ka__process p) { close(p); }

/* macOS kills by PID alone. The last look was microseconds ago: no PID is used again that soon. */
static int ka__process_end(ka__pair *pair, ka__process p, int64_t pid, int ms)
{
    struct kevent ev;
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    if (kill((pid_t)pid, SIGKILL) != 0) {
        if (errno == ESRCH) return ka__because(pair, KA_EOFFLINE, ka__ended);
        return ka__because_os(pair, "the process may not be killed; run the client as root");
    }
    return kevent(p, NULL, 0, &ev, 1, &t) == 1 ? KA_OK : KA_ETIME;
}

#  endif
#endif

/* Has the server ended, closed the connection, or sent more bytes? */
static bool ka__pair_over(const ka__pair *pair)
{
    return ka__readable(pair->sock, 0);
}

/* Find the owner, with patience: a socket that was just accepted has no owner yet, and /proc/net
   may leave out a line while other connections come and go. One look may take all of KA__OWNER_MS,
   with 100,000 lines: so there are KA__OWNER_TRIES at least. */
static int ka__owner_await(ka__pair *pair, int64_t *pid)
{
    int64_t until = ka_now_ms() + KA__OWNER_MS;
    int r = ka__owner_find(pair, pid);
    for (int tries = 1; r == KA_ENOTFOUND || r == KA_EPERM; tries++) {
        if (ka__pair_over(pair)) break;
        if (tries >= KA__OWNER_TRIES && ka_now_ms() >= until) break;
        ka_sleep_ms(KA__OWNER_STEP_MS);
        r = ka__owner_find(pair, pid);
    }
    if (r < 0 || !ka__process_is_me(*pid)) return r;
    return ka__because(pair, KA_EPERM, "the server is the client's own process");
}

/* Kill the process at the other end. It is looked for again when its handle is held: now its PID
   can't have come to mean another process. */
static int ka__peer_kill(ka__pair *pair, int64_t *pid)
{
    ka__process p;
    int64_t again = 0;
    int r = ka__owner_await(pair, pid);
    if (r < 0) return r;
    r = ka__process_open(pair, *pid, &p);
    if (r < 0) return r;
    r = ka__owner_await(pair, &again);
    if (r == KA_OK && again != *pid) r = ka__because(pair, KA_ENOTFOUND, ka__ended);
    if (r == KA_OK) r = ka__process_end(pair, p, *pid, KA__KILL_MS);
    ka__process_close(p);
    return r;
}

int ka_client_kill_server(ka_client *c, int64_t *pid)
{
    static const char more[] = "the server sent more than its answer; stop it by hand";
    ka__pair pair = { .sock = (ka__pair_sock)c->sock, .mine = c->mine, .theirs = c->theirs,
                      .handed = c->handed };
    char byte;
    int r = KA_EOFFLINE;
    *pid = 0;
    pair.why = "the server was told to end; wait for it";
    /* No new connection is made: by now, another process than the one that answered may listen. */
    if (c->between) r = ka__because(&pair, KA_ENOTFOUND, c->between);
    else if (c->open && !ka__pair_over(&pair)) r = ka__peer_kill(&pair, pid);
    if (r < 0 && r != KA_ETIME && !c->between && (!c->open || ka__pair_over(&pair))) {
        bool sent = c->open && recv(pair.sock, &byte, 1, MSG_PEEK) > 0;
        r = ka__because(&pair, KA_EOFFLINE, sent ? more : ka__ended);
    }
    c->why = r < 0 ? pair.why : NULL;
    c->os_error = r < 0 ? pair.os_error : 0;
    return r;
}

#endif /* KEYAUTH_PROCESS_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
