/* fuzz - keyauth.h and ext/ under libFuzzer; or, without it, a program that replays inputs.
     ./build.sh fuzz [SECONDS] [TARGET...]      what each target checks: fuzz/README.md
   A target is a function of bytes that aborts when something is wrong. It is in the file of its
   name (hex and uuid: digits.h; server and messages: script.h), and in the table below. To add one:
   its file, its row, a folder fuzz/corpus/NAME.

   The parsers get their input in a block of exactly its size. The server and the client run against
   a system that is simulated (system.h, files.h). Its sockets, epoll, clock and random bytes are
   functions of the input alone, and one thread plays all threads. So an input that fails once fails
   always. */

#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
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
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

#define CHECK(ok, ...) do { if (!(ok)) fail(__FILE__, __LINE__, #ok, __VA_ARGS__); } while (0)

__attribute__((noreturn, format(printf, 4, 5)))
static void fail(const char *file, int line, const char *what, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "%s:%d: %s: not so: %s: ", file, line, target_name, what);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

#include "memory.h"
#include "system.h"
#include "files.h"
UNGUIDED_END

#define accept4(fd, a, size, flags)         ((void)(flags), sim_accept(fd, a, size))
#define bind(fd, a, size)                   sim_bind(fd, a)
#define clock_gettime(clock, t)             sim_clock(clock, t)
#define close(fd)                           sim_close(fd)
#define connect(fd, a, size)                sim_connect(fd, a)
#define epoll_create1(flags)                sim_open(SIM_EPOLL)
#define epoll_ctl(epoll, op, fd, ev)        sim_epoll_ctl(epoll, op, fd, ev)
#define epoll_wait(epoll, ev, max, ms)      ((void)(ms), sim_epoll_wait(epoll, ev, max))
#define eventfd(n, flags)                   sim_open(SIM_OTHER)
#define fchmod(fd, mode)                    ((void)(mode), sim_fchmod(fd))
#define fchown(fd, user, group)             ((void)(group), sim_fchmod(fd))
#define fcntl(fd, what, flags)              sim_append(fd, what, flags)
#define fdatasync(fd)                       sim_fdatasync(fd)
#define flock(fd, how)                      sim_flock(fd)
#define statx(fd, path, how, what, s)       sim_statx(fd, path, how, what, s)
#define fsync(fd)                           sim_fsync(fd)
#define ftruncate(fd, size)                 sim_ftruncate(fd, size)
#define getpeername(fd, a, size)            sim_peer_name(fd, a, size)
#define getrandom(p, n, flags)              sim_random(p, n)
#define getsockname(fd, a, size)            sim_name(fd, a, size, 1)
#define getsockopt(fd, level, name, v, n)   ((void)(level), (void)(n), sim_option(fd, name, v))
#define ioctl(fd, what, n)                  sim_waiting(fd, n)
#define link(path, name)                    sim_link(path, name)
#define listen(fd, backlog)                 sim_set_option(fd, 0, 0, NULL)
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
#define socket(family, type, protocol)      ((void)(family), (void)(type), sim_open(SIM_LISTENER))
#define thrd_create(id, run, arg)           ((void)(run), sim_thread(id, arg))
#define thrd_join(id, result)               sim_thread_join(id)
#define unlink(path)                        sim_unlink(path)
#define write(fd, p, n)                     sim_write(fd, p, n)

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
#define KA_ANSWER_MS 4000
#define KA_STALL_MS 3000
#define KA_LINGER_MS 200
#define KA_DRAIN_MS 1200
#define KA_MAILBOX (1u << 18)
#define KA_JOURNAL_AHEAD 4096
#define KA_MALLOC(n) fuzz_malloc(n)
#define KA_REALLOC(p, n) fuzz_realloc(p, n)
#define KA_FREE(p) fuzz_free(p)
#define KA__ASAN 1      /* the libc's recv and send, which are simulated */
#define KEYAUTH_IMPLEMENTATION
#include "../keyauth.h"
#include "../ext/json.h"
#include "../ext/file.h"
#include "../ext/journal.h"
#include "../ext/framing.h"
#include "../ext/lookup.h"
#include "../ext/redis.h"
#include "../ext/site.h"
#include "../ext/sse.h"
#include "../ext/timer.h"
#include "../ext/uuid.h"

static int sim_thread(thrd_t *id, void *thread)
{
    CHECK(threads_n < 2, "more threads");
    threads[threads_n++] = ((ka__call *)thread)->arg;
    ka__free(thread);
    *id = (thrd_t)threads_n;
    return thrd_success;
}

UNGUIDED_BEGIN

#include "base64.h"
#include "digits.h"
#include "form.h"
#include "json.h"
#include "resp.h"
#include "request.h"
#include "chunked.h"
#include "response.h"
#ifdef FUZZ_EVERY
#include "grammar.h"
#include "grammar_http.h"
#include "every.h"
#endif
#include "journal.h"
#include "server.h"
#include "messages.h"
#include "script.h"

/* ---- the targets, and who calls them ---- */

static const struct { const char *name; void (*run)(const char *p, size_t n); } targets[] = {
    { "base64",   target_base64 },
    { "hex",      target_hex },
    { "uuid",     target_uuid },
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
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        fprintf(stderr, " %s", targets[i].name);
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

/* TARGET FILE-OR-FOLDER...: run these; a target's name in between chooses that one
   from there on. */
int main(int argc, char **argv)
{
    if (argc < 3 || !choose(argv[1])) LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        if (!choose(argv[i])) replay(argv[i]);
    printf("%d inputs replayed\n", replayed);
}
#endif
