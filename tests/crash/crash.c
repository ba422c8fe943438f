/* crash - each crash of the machine while ext/file.h, ext/journal.h and ext/log.h write
   (tests/README.md).
     ./build.sh crash                   every scenario, to the bounds of CI
     ./build.sh crash 12 2 [NAME...]    these, all subsets of up to twelve units, and two crashes of
                                        the recovery
   A scenario is run once, on a simulated disk. After each of its operations all that a crash may
   leave is opened by the real code, and compared with what clients were told by then. */

#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHECK(ok, ...) do { if (!(ok)) broken(__LINE__, __VA_ARGS__); } while (0)

/* The code did what the simulated disk does not know, or has no room for. */
__attribute__((noreturn, format(printf, 2, 3)))
static void broken(int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf(" (line %d)\n", line);
    exit(2);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include "../../fuzz/memory.h"
#pragma GCC diagnostic pop
#include "disk.h"
#include "states.h"

#define KA_MAX_ID 14
#define KA_JOURNAL_AHEAD 16384      /* more than a frame can have */
#define KA_MALLOC(n) fuzz_malloc(n)
#define KA_REALLOC(p, n) fuzz_realloc(p, n)
#define KA_FREE(p) fuzz_free(p)
#define KEYAUTH_IMPLEMENTATION
#define clock_gettime(which, t)           sim_clock(which, t)
#include "../../keyauth.h"

static void key_answered(ka_ticket *t, int result);

#define close(fd)                         sim_close(fd)
#define fchmod(fd, mode)                  ((void)(fd), (void)(mode), 0)
#define fchown(fd, user, group)           ((void)(fd), (void)(group), 0)
#define fcntl(fd, what, flags)            sim_fcntl(fd, what, flags)
#define fdatasync(fd)                     sim_fdatasync(fd)
#define flock(fd, how)                    ((void)(fd), 0)
#define fsync(fd)                         sim_fsync(fd)
#define ftruncate(fd, size)               sim_ftruncate(fd, size)
#define ka_ticket_answer(t, result, ...)  key_answered(t, result)
#define link(path, name)                  sim_link(path, name)
#define open(...)                         sim_open(__VA_ARGS__)
#define pread(fd, p, n, at)               sim_pread(fd, p, n, at)
#define pwrite(fd, p, n, at)              sim_pwrite(fd, p, n, at)
#define rename(from, to)                  sim_rename(from, to)
#define statx(fd, path, how, what, s)     ((void)(how), (void)(what), sim_statx(fd, path, s))
#define unlink(path)                      sim_unlink(path)
#define write(fd, p, n)                   sim_write(fd, p, n)
#include "../../ext/file.h"
#include "../../ext/journal.h"
#include "../../ext/log.h"
#include "journal.h"
#include "log.h"

static const struct {
    const char *name;
    const char *const *names;
    size_t sector;
    void (*run)(void), (*recover)(void);
} scenarios[] = {
    { "keys", journal_names, 8, run_keys, journal_recover },
    { "groups", journal_names, 16, run_groups, journal_recover },
    { "zeros ahead", journal_names, 16, run_ahead, journal_recover },
    { "ended keys", journal_names, 32, run_ends, journal_recover },
    { "moved journal", journal_names, 16, run_moved, journal_recover },
    { "salvage", journal_names, 16, run_salvage, journal_recover },
    { "log", log_names, 8, run_log, log_recover },
    { "rotation", log_names, 8, run_rotation, log_recover },
    { "replaced log", log_names, 8, run_replace, log_recover },
    { "whole file", put_names, 8, run_put, put_recover },
};

static void (*scenario_recover)(void);
static void recover(void) { scenario_recover(); }

static uint64_t promise_hash(uint64_t h)
{
    h = h * 31 + hash((const char *)&keys, sizeof keys) + (uint64_t)real_ms;
    return h * 31 + hash((const char *)&logged, sizeof logged);
}

/* What was told before a crash is told after each recovery from it, and no more. */
static void promise_save(bool back)
{
    static struct { char keys[sizeof keys], logged[sizeof logged]; } saved[8];
    int at = now_disk->level;
    if (back) {
        memcpy(&keys, saved[at].keys, sizeof keys);
        memcpy(&logged, saved[at].logged, sizeof logged);
    } else {
        memcpy(saved[at].keys, &keys, sizeof keys);
        memcpy(saved[at].logged, &logged, sizeof logged);
    }
}

static bool scenario_run(size_t i)
{
    const clock_t begun = clock();
    memcpy(name_list, scenarios[i].names, sizeof name_list);
    memset(&keys, 0, sizeof keys);
    memset(&logged, 0, sizeof logged);
    damaged.n = 0;
    met_n = points_n = states_n = recovered_n = 0;
    if (met) memset(met, 0, met_cap * sizeof *met);
    salvages = wrong = false;
    ttl_s = 0;
    real_ms = 1700000000000;
    sector = scenarios[i].sector;
    scenario_recover = scenarios[i].recover;
    now_disk = disk_new(NULL);
    scenarios[i].run();
    MUST(blocks_live == 0, "%ld blocks were not freed", blocks_live);
    disk_free(now_disk);
    printf("%-16s %s: %zu points, %zu states, %zu different ones, %.1f s\n", scenarios[i].name,
           wrong ? "FAILED" : "passed", points_n, states_n, recovered_n,
           (double)(clock() - begun) / CLOCKS_PER_SEC);
    fflush(stdout);
    return !wrong;
}

/* Says which scenarios there are, if it is none. */
static bool is_scenario(const char *name)
{
    const size_t n = sizeof scenarios / sizeof *scenarios;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(scenarios[i].name, name)) return true;
    fprintf(stderr, "crash: %s: no such scenario; there are", name);
    for (size_t i = 0; i < n; i++) fprintf(stderr, " \"%s\"", scenarios[i].name);
    fputs("\n", stderr);
    return false;
}

int main(int n, char **args)
{
    int passed = 0, failed = 0, first = 1;
    if (first < n && atoi(args[first]) > 0) subsets = atoi(args[first++]);
    if (first < n && atoi(args[first]) > 0) crashes = atoi(args[first++]);
    for (int k = first; k < n; k++)
        if (!is_scenario(args[k])) return 2;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        bool chosen = first >= n;
        for (int k = first; k < n; k++) chosen = chosen || !strcmp(args[k], scenarios[i].name);
        if (!chosen) continue;
        if (scenario_run(i)) passed++;
        else failed++;
    }
    free(met);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
