/* ext/input.h - a program and its terminal: lines of standard input as events, output that does not
   wait for its reader, and signals that stop a server in order.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/input.h"

   USE
         if (ka_input_start(s) < 0) return 1;
         for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; )
             if (ev.kind == KA_INPUT && !ev.error) printf("%.*s\n", (int)ev.body.n, ev.body.p);
         ka_input_stop();
         ka_server_free(s);

   CONTENTS
     ka_input_start, stop              lines of standard input
     ka_write_now, is_terminal         output that waits for nobody
     ka_stop_on_interrupt              signals, Ctrl+C */

#ifndef KEYAUTH_H
#error "ext/input.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_INPUT_H
#define KEYAUTH_INPUT_H

#ifdef __cplusplus
extern "C" {
#endif

/* ka_event.kind: a line of standard input, which is the body. With an error there are no more:
   KA_ENOTFOUND: the input has ended; KA_EOS, KA_ELIMIT: it can't be read any more. */
enum { KA_INPUT = 17 };

/* Have ka_wait give a KA_INPUT event for each line of standard input, without its line feed and a
   carriage return right before it. The last line may lack its end. What is beyond KA_MAX_BODY bytes
   of a line is lost. A thread reads the input, which may do so until the process ends: nothing else
   can read it then. Lines do not wait for ka_stop. One server a process; the parent calls this.
     returns    KA_OK, or KA_EINVAL (it is read already), KA_ETHREAD, KA_ENOMEM */
KADEF int ka_input_start(ka_server *s);

/* Give no more lines to that server. Before its ka_server_free. Harmless without ka_input_start. */
KADEF void ka_input_stop(void);

/* Write to stdout, stderr or another descriptor, without ever waiting for its reader, and without a
   signal: SIGPIPE, SIGXFSZ and SIGTTOU do not come from here.
     returns    the bytes that were written, which may be fewer than n; or KA_EAGAIN (there is no
                room now), KA_EOFFLINE (nobody reads), KA_EOS and others of a write(2) that failed
     waits      a regular file can make it wait, as a disk does. On Windows pipes and consoles can,
                since nothing tells there whether they have room. On macOS a pipe can, if another
                process fills it at the same time */
KADEF ptrdiff_t ka_write_now(int fd, const void *p, size_t n);

/* Have signals stop the server in order, and none end it by surprise. One server a process.
     stops      SIGINT, SIGTERM and SIGHUP call ka_stop(s); on Windows Ctrl+C, Ctrl+Break and the
                console's close. After SIGHUP nobody could stop the server by its terminal any more,
                and its keys may be in memory only. A signal that was ignored stays so (nohup). One
                that was blocked is unblocked in this thread
     ends       a second SIGINT or SIGTERM ends the process. A second SIGHUP does not: shell and
                terminal may both send one
     harmless   SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT and
                the real-time ones do nothing where they would end the process: they are sent by
                mistake ("reload", "rotate the log"). Programs that this one starts have them
     returns    KA_OK, or KA_EOS */
KADEF int ka_stop_on_interrupt(ka_server *s);

/* Is this descriptor, 0 to 2, a terminal? */
KADEF bool ka_is_terminal(int fd);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_INPUT_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_INPUT_IMPLEMENTED)
#define KEYAUTH_INPUT_IMPLEMENTED

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#if defined(_WIN32)
#  include <windows.h>
#  include <io.h>
#else
#  include <fcntl.h>
#  include <poll.h>
#  include <signal.h>
#  include <sys/socket.h>
#  include <sys/stat.h>
#  include <unistd.h>
#endif

/* Bytes of standard input, however long it takes; 0: its end; or KA_E... */
#if defined(_WIN32)
static ptrdiff_t ka__input_read(char *out, size_t n)
{
    DWORD got = 0;
    if (ReadFile(GetStdHandle(STD_INPUT_HANDLE), out, (DWORD)n, &got, NULL)) return (ptrdiff_t)got;
    return GetLastError() == ERROR_BROKEN_PIPE ? 0 : KA_EOS;
}
#else
static ptrdiff_t ka__input_read(char *out, size_t n)
{
    for (;;) {
        struct pollfd p = { 0, POLLIN, 0 };      /* another program may have made it non-blocking */
        ssize_t got = poll(&p, 1, -1) < 0 ? -1 : read(0, out, n);
        if (got >= 0) return got;
        if (errno == ENOMEM) return KA_ELIMIT;
        if (errno != EINTR && errno != EAGAIN) return KA_EOS;
    }
}
#endif

/* The thread may sit in a read for ever, so what it touches is static. */
static struct {
    ka_source            source;
    _Atomic(ka_server *) server;
    _Atomic(int)         reading;      /* there is such a thread */
    _Atomic(ptrdiff_t)   n;            /* bytes of the piece, which is the parent's until it stores
                                          0 here; less than 0: KA_E..., the end */
    char                 piece[4096];
    /* the parent's */
    ptrdiff_t            at;
    size_t               line_n;
    char                 line[KA_MAX_BODY + 1];      /* and a carriage return */
} ka__input;

static void ka__input_run(void *unused)
{
    ptrdiff_t n;
    (void)unused;
    do {
        n = ka__input_read(ka__input.piece, sizeof ka__input.piece);
        if (n == 0) n = KA_ENOTFOUND;
        atomic_store(&ka__input.n, n);
        ka_wake(atomic_load(&ka__input.server));
        while (n > 0 && atomic_load(&ka__input.n) && atomic_load(&ka__input.server)) ka_sleep_ms(1);
    } while (n > 0 && atomic_load(&ka__input.server));
    atomic_store(&ka__input.reading, 0);
}

/* Cut the next line. KA_OK; KA_EAGAIN: it isn't all here; or how the input has ended. */
static int ka__input_cut(void)
{
    ptrdiff_t n;
    for (; (n = atomic_load(&ka__input.n)) > 0; atomic_store(&ka__input.n, 0)) {
        while (ka__input.at < n) {
            char c = ka__input.piece[ka__input.at++];
            if (c == '\n') return KA_OK;
            if (ka__input.line_n < sizeof ka__input.line) ka__input.line[ka__input.line_n++] = c;
        }
        ka__input.at = 0;
    }
    if (n == 0) return KA_EAGAIN;
    return ka__input.line_n > 0 ? KA_OK : (int)n;
}

static bool ka__input_next(ka_source *source, ka_event *ev)
{
    int r = ka__input_cut();
    size_t n = ka__input.line_n;
    if (r != KA_OK) source->due_ms = INT64_MAX;
    if (r == KA_EAGAIN) return false;
    ka__input.line_n = 0;      /* its bytes stay until the next cut */
    if (n > 0 && ka__input.line[n - 1] == '\r') n--;
    ev->kind = KA_INPUT;
    ev->error = r;
    ev->body = (ka_str){ ka__input.line, n < KA_MAX_BODY ? n : KA_MAX_BODY };
    if (r < 0) source->next = NULL;      /* this was its last event */
    return true;
}

int ka_input_start(ka_server *s)
{
    if (atomic_exchange(&ka__input.reading, 1)) return KA_EINVAL;
    atomic_store(&ka__input.server, s);
    atomic_store(&ka__input.n, 0);
    ka__input.at = 0;
    ka__input.line_n = 0;
    int r = ka_thread(ka__input_run, NULL);
    if (r < 0) {
        atomic_store(&ka__input.reading, 0);
        return r;
    }
    ka__input.source = (ka_source){ .next = ka__input_next, .due_ms = 0 };
    ka_source_add(s, &ka__input.source);
    return KA_OK;
}

void ka_input_stop(void)
{
    ka_server *s = atomic_exchange(&ka__input.server, NULL);
    if (s) ka_source_remove(s, &ka__input.source);
}

/* ---- output ---- */

#if defined(_WIN32)
ptrdiff_t ka_write_now(int fd, const void *p, size_t n)
{
    int put = _write(fd, p, n < INT_MAX ? (unsigned)n : INT_MAX);
    return put >= 0 ? put : KA_EOS;
}
#else
/* A second descriptor for a pipe or a terminal, which never waits; -1: there is none. O_NONBLOCK on
   the descriptor itself would hold for the shell and every other process that shares it. */
static int ka__write_open(int fd)
{
#  if defined(__linux__)
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
#  else
    (void)fd;
    return -1;
#  endif
}

/* As write(2). Without a second descriptor, poll(2) tells of PIPE_BUF bytes of room, which another
   writer of the same pipe may take first. */
static ptrdiff_t ka__write_some(int fd, const void *p, size_t n)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return -1;
    if (S_ISREG(st.st_mode)) return write(fd, p, n);
    if (S_ISSOCK(st.st_mode)) return send(fd, p, n, MSG_DONTWAIT);
    struct pollfd room = { fd, POLLOUT, 0 };
    int own = ka__write_open(fd);
    if (own < 0 && poll(&room, 1, 0) != 1) {
        errno = EAGAIN;
        return -1;
    }
    ptrdiff_t put = write(own < 0 ? fd : own, p, own < 0 && n > PIPE_BUF ? PIPE_BUF : n);
    int code = errno;
    if (own >= 0) close(own);
    errno = code;
    return put;
}

/* The error of the write that has just failed. */
static int ka__write_error(void)
{
    switch (errno) {
    case EAGAIN: case EINTR:                       return KA_EAGAIN;
    case EPIPE: case ECONNRESET: case ENOTCONN:    return KA_EOFFLINE;
    default:                                       return KA_EOS;
    }
}

/* A write can bring signals that end or stop the process. SIGPIPE: nobody reads. SIGXFSZ: the limit
   of `ulimit -f`. SIGTTOU: in the background of a terminal with `stty tostop`; it is not even sent
   while it is blocked. A signal that the write brought is taken off before signals are
   unblocked. */
ptrdiff_t ka_write_now(int fd, const void *p, size_t n)
{
    sigset_t brought, before, pending;
    int taken;
    sigemptyset(&brought);
    sigaddset(&brought, SIGPIPE);
    sigaddset(&brought, SIGXFSZ);
    sigaddset(&brought, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &brought, &before);
    ptrdiff_t put = ka__write_some(fd, p, n);
    if (put < 0) put = ka__write_error();
    sigemptyset(&pending);
    if (put < 0) sigpending(&pending);
    if (sigismember(&pending, SIGPIPE) || sigismember(&pending, SIGXFSZ))
        sigwait(&brought, &taken);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return put;
}
#endif

bool ka_is_terminal(int fd)
{
#if defined(_WIN32)
    return _isatty(fd) != 0;
#else
    return isatty(fd) != 0;
#endif
}

/* ---- interrupts: the first one stops a server ---- */

static _Atomic(ka_server *) ka__interruptible;

/* Any thread, and a signal handler. */
static void ka__interrupt_run(void)
{
    ka_server *s = atomic_load(&ka__interruptible);
    if (s) ka_stop(s);
}

#if defined(_WIN32)
static LONG ka__interrupt_seen;

static BOOL WINAPI ka__interrupt_handler(DWORD kind)
{
    /* At the second one the system's own handler ends the process. */
    if (InterlockedExchange(&ka__interrupt_seen, 1)) return FALSE;
    ka__interrupt_run();
    /* The window is closed, or the system shuts down: a return would end the process at once. */
    if (kind != CTRL_C_EVENT && kind != CTRL_BREAK_EVENT) Sleep(INFINITE);
    return TRUE;
}

static int ka__interrupts_catch(void)
{
    InterlockedExchange(&ka__interrupt_seen, 0);
    SetConsoleCtrlHandler(NULL, FALSE);     /* a parent's "ignore Ctrl+C" is inherited: undo that */
    return SetConsoleCtrlHandler(ka__interrupt_handler, TRUE) ? KA_OK : KA_EOS;
}

static void ka__interrupts_release(void) { SetConsoleCtrlHandler(ka__interrupt_handler, FALSE); }
#else
/* The signals that stop a server. The first two (KA__ENDING) end the process at the second time. */
static const int ka__stopping[] = { SIGINT, SIGTERM, SIGHUP };
enum { KA__ENDING = 2, KA__STOPPING = 3 };

static void ka__interrupt_handler(int number);

/* Give the first n of them their default meaning back, if they were not ignored before. */
static void ka__signals_default(int n)
{
    struct sigaction was;
    for (int i = 0; i < n; i++)
        if (sigaction(ka__stopping[i], NULL, &was) == 0 && was.sa_handler == ka__interrupt_handler)
            signal(ka__stopping[i], SIG_DFL);
}

static void ka__interrupts_release(void) { ka__signals_default(KA__STOPPING); }

static void ka__interrupt_handler(int number)
{
    int code = errno;
    if (number != SIGHUP) ka__signals_default(KA__ENDING);
    ka__interrupt_run();
    errno = code;
}

/* The programs that this one starts would inherit SIG_IGN. They do not inherit a handler. */
static void ka__signal_nothing(int number) { (void)number; }

/* If a signal has its default meaning, which is to end the process, have it do nothing instead. */
static void ka__signal_harmless(int number)
{
    struct sigaction was, a;
    memset(&a, 0, sizeof a);
    a.sa_handler = ka__signal_nothing;
    a.sa_flags = SA_RESTART;
    if (sigaction(number, NULL, &was) == 0 && was.sa_handler == SIG_DFL)
        sigaction(number, &a, NULL);
}

static int ka__interrupts_catch(void)
{
    static const int harmless[] = { SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO,
#  if defined(__linux__)
                                    SIGPWR, SIGSTKFLT,
#  endif
    };
    struct sigaction a, was;
    sigset_t stopping;
    memset(&a, 0, sizeof a);
    a.sa_handler = ka__interrupt_handler;
    a.sa_flags = 0;      /* without SA_RESTART: a call that waits returns */
    sigemptyset(&stopping);
    for (int i = 0; i < KA__STOPPING; i++) {
        sigaddset(&stopping, ka__stopping[i]);
        if (sigaction(ka__stopping[i], NULL, &was) != 0) return KA_EOS;
        if (was.sa_handler != SIG_IGN && sigaction(ka__stopping[i], &a, NULL) != 0) return KA_EOS;
    }
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        ka__signal_harmless(harmless[i]);
#  if defined(SIGRTMIN)
    for (int i = SIGRTMIN; i <= SIGRTMAX; i++) ka__signal_harmless(i);
#  endif
    pthread_sigmask(SIG_UNBLOCK, &stopping, NULL);      /* a signal that waited comes now */
    return KA_OK;
}
#endif

static void ka__interrupts_end(ka_source *src)
{
    (void)src;
    atomic_store(&ka__interruptible, NULL);
    ka__interrupts_release();
}

int ka_stop_on_interrupt(ka_server *s)
{
    static ka_source source;
    ka_server *before = atomic_exchange(&ka__interruptible, s);
    if (before) ka_source_remove(before, &source);
    source = (ka_source){ .freed = ka__interrupts_end, .due_ms = INT64_MAX };
    ka_source_add(s, &source);
    return ka__interrupts_catch();
}

#endif /* KEYAUTH_INPUT_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
