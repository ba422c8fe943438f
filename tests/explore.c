/* explore - every interleaving of keyauth.h's threads, on the real code (tests/README.md).
     ./build.sh explore                 every scenario, to the bounds of CI
     ./build.sh explore 6 [NAME...]     these, with up to six preemptions; -1: without a bound
     tests/explore/explore-epoll NAME --replay ...      one execution, step by step
   A scenario is a function in explore/. It is run once for each schedule, and each outcome of its
   loads and stores. */

#define _GNU_SOURCE 1
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "explore/explore.h"
#include "explore/state.h"

static const void *failed_from;          /* the instruction after the one that failed; or NULL */
static bool        traces;               /* print each step */
static char        failure[2000];
static const explore_scenario *scenario;
static const char *program;
static unsigned    outcomes;             /* of all executions */

#include "explore/choices.h"
#include "explore/memory.h"
#include "explore/threads.h"
#include "explore/shadow.h"
#include "explore/hooks.h"

/* ---- words ---- */

static const char *const orders[] = {
    "relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst"
};

static const char *thread_name(int i)
{
    static char number[THREADS][20];
    if (scenario->threads[i]) return scenario->threads[i];
    snprintf(number[i], sizeof number[i], "thread %d", i);
    return number[i];
}

static void trace_step(const char *what)
{
    search.steps++;
    if (traces) printf("%4d  %-9s %s\n", steps_n, thread_name(running), what);
}

static void trace_call(const char *what, long argument)
{
    search.steps++;
    if (traces) printf("%4d  %-9s calls %s %ld\n", steps_n, thread_name(running), what, argument);
}

static void trace_atomic(const char *what, int at, uint16_t s, int order)
{
    search.steps++;
    if (!traces) return;
    int behind = places[at].n - 1 - stores[s].at;
    const char *base = strrchr(site->file, '/');
    const char *who = stores[s].thread == 255 ? "initial" : thread_name(stores[s].thread);
    printf("%4d  %-9s %s %-7s %s: %llu (%s) %s:%d %s", steps_n, thread_name(running), what,
           orders[order], site->object, (unsigned long long)stores[s].value, who,
           base ? base + 1 : site->file, site->line, site->function);
    if (behind) printf(", %d newer", behind);
    printf("\n");
}

static void fail_end(void)
{
    search.n = search.at;
    longjmp(driver, FAILED);
}

static void fail_now(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(failure, sizeof failure, format, args);
    va_end(args);
    fail_end();
    abort();
}

void explore_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    int n = snprintf(failure, sizeof failure, "%s:%d: %s: ", file, line, thread_name(running));
    va_start(args, format);
    vsnprintf(failure + n, sizeof failure - (size_t)n, format, args);
    va_end(args);
    fail_end();
    abort();
}

void explore_outcome(int n) { outcomes |= 1u << n; }

/* ---- executions ---- */

static void *scenario_main(void *arg)
{
    (void)arg;
    scenario->run();
    if (blocks_live) fail_now("%ld blocks were not freed", blocks_live);
    return NULL;
}

/* One execution. Returns ENDED, CUT (its state was met before) or FAILED. */
static int execute(void)
{
    search.at = search.preemptions = search.late = 0;
    search.looked = search.n;
    uses_met_n = 0;
    threads_n = running = steps_n = 0;
    site = NULL;
    failed_from = NULL;
    memory_begin();
    shadow_begin();
    in_system++;
    explore_begin();
    in_system--;
    thread_new(scenario_main, NULL);
    int end = _setjmp(driver);
    if (end) return end;
    thread_begin(0);
    abort();
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool deadline_passed(double end)
{
    return end > 0 && search.executions % 256 == 0 && seconds() > end;
}

/* All executions of the scenario with up to `bound` preemptions. Returns ENDED, FAILED, or CUT: no
   more time. */
static int explore(int bound, double end)
{
    search_begin(bound);
    do {
        uses_changed = false;
        int how = execute();
        search.executions++;
        search.cut += how == CUT;
        if (search.at > search.longest) search.longest = search.at;
        if (how == FAILED) return FAILED;
        if (deadline_passed(end)) return CUT;
        if (uses_changed) search_begin(bound);
    } while (uses_changed || choices_next());
    return ENDED;
}

/* The failed execution again, with its steps. */
static int replay(void)
{
    traces = search.replays = true;
    int how = execute();
    traces = search.replays = false;
    if (how != FAILED) return how;
    printf("FAILED: %s\n", failure);
    fflush(stdout);
    if (failed_from) {
        char command[200];
        snprintf(command, sizeof command, "addr2line -fpis -e /proc/%d/exe %#lx", (int)getpid(),
                 (unsigned long)(uintptr_t)failed_from - 1);
        if (system(command) != 0) printf("at %p\n", failed_from);
    }
    return how;
}

/* ---- the command ---- */

static struct {
    int    bound, late;      /* -2: the scenario's own */
    double seconds;          /* for each scenario; 0: no limit */
    bool   quiet, sites, met;     /* quiet: for teeth, just this bound, up to the first failure */
    const char *schedule;
} options = { .bound = -2, .late = -2 };

/* Returns ENDED, FAILED, or CUT: no more time. */
static int scenario_explored(void)
{
    bool own = options.bound == -2 || (scenario->bound == -1 && !options.quiet);
    int last = own ? scenario->bound : options.bound;
    int first = last < 0 || options.quiet ? last : 0;
    uses_n = 0;
    outcomes = 0;
    search.late_bound = options.late == -2 ? scenario->late : options.late;
    double begun = seconds(), end = options.seconds > 0 ? begun + options.seconds : 0;
    uint64_t executions = 0, steps = 0;
    for (int bound = first; bound <= last; bound++) {
        int how = explore(bound, end);
        executions += search.executions;
        steps += search.steps;
        if (how == FAILED && !options.quiet) {
            replay();
            printf("to see it again: tests/explore/%s '%s' --replay ", program, scenario->name);
            path_print(stdout);
            printf(" --bound %d", bound);
            if (search.late_bound) printf(" --late %d", search.late_bound);
            if (weakened) printf(" --weaken %d %s", weakened->number, orders[weakened_to]);
            printf("\n");
        }
        if (how != ENDED) {
            printf("%s: %s after %llu executions, with %d preemptions, %.1f s%s%s\n",
                   scenario->name, how == FAILED ? "FAILED" : "not exhausted",
                   (unsigned long long)executions, bound, seconds() - begun,
                   how == FAILED ? ": " : "", how == FAILED ? failure : "");
            return how;
        }
    }
    if (last < 0 && outcomes != scenario->outcomes) {
        printf("%s: FAILED: its outcomes are %#x, not %#x\n", scenario->name, outcomes,
               scenario->outcomes);
        return FAILED;
    }
    char words[40] = "without a bound of preemptions", late[40] = "";
    if (last >= 0) snprintf(words, sizeof words, "up to %d preemptions", last);
    if (search.late_bound)
        snprintf(late, sizeof late, " and %d late loads or stores", search.late_bound);
    printf("%s: %s%s, exhausted: %llu executions, %llu states, %llu steps, %.1f s\n",
           scenario->name, words, late, (unsigned long long)executions,
           (unsigned long long)search.states, (unsigned long long)steps, seconds() - begun);
    return ENDED;
}

extern const explore_site *const __start_sites[], *const __stop_sites[];

static int by_number(const void *a, const void *b)
{
    return (*(const explore_site *const *)a)->number - (*(const explore_site *const *)b)->number;
}

static void sites_print(void)
{
    size_t n = (size_t)(__stop_sites - __start_sites);
    const explore_site **all = calloc(n + 1, sizeof *all);
    if (!all) exit(2);
    memcpy(all, __start_sites, n * sizeof *all);
    qsort(all, n, sizeof *all, by_number);
    for (size_t i = 0; i < n; i++)
        printf("%d\t%s:%d\t%s\t%s\t%s\t%s\n", all[i]->number, all[i]->file, all[i]->line,
               all[i]->function, all[i]->operation, all[i]->object, orders[all[i]->order]);
    free(all);
}

static void met_print(void)
{
    for (const explore_site *const *s = __start_sites; s < __stop_sites; s++)
        if (sites_met[(*s)->number]) printf("met %d\n", (*s)->number);
}

static bool weaken(const char *number, const char *order)
{
    for (const explore_site *const *s = __start_sites; s < __stop_sites; s++)
        if ((*s)->number == atoi(number)) weakened = *s;
    weakened_to = 0;
    while (weakened_to < 6 && strcmp(orders[weakened_to], order) != 0) weakened_to++;
    return weakened && weakened_to < 6;
}

static int usage(void)
{
    fprintf(stderr, "explore [NAME...] [--bound N] [--late N] [--seconds N] [--replay SCHEDULE]\n"
                    "        [--weaken SITE ORDER] [--quiet] [--sites] [--met]\n");
    return 2;
}

static bool is_named(const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], scenario->name) == 0) return true;
    return n == 0;
}

/* Says which scenarios there are, if it is none. */
static bool is_scenario(const char *name)
{
    const explore_scenario *s = explore_scenarios;
    while (s->name && strcmp(s->name, name) != 0) s++;
    if (s->name) return true;
    fprintf(stderr, "explore: %s: no such scenario; there are", name);
    for (s = explore_scenarios; s->name; s++) fprintf(stderr, " \"%s\"", s->name);
    fputs("\n", stderr);
    return false;
}

int main(int argc, char **argv)
{
    const char *names[64];
    int names_n = 0, passed = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--bound") == 0 && more) options.bound = atoi(argv[++i]);
        else if (strcmp(argv[i], "--late") == 0 && more) options.late = atoi(argv[++i]);
        else if (strcmp(argv[i], "--seconds") == 0 && more) options.seconds = atof(argv[++i]);
        else if (strcmp(argv[i], "--replay") == 0 && more) options.schedule = argv[++i];
        else if (strcmp(argv[i], "--weaken") == 0 && i + 2 < argc &&
                 weaken(argv[i + 1], argv[i + 2])) i += 2;
        else if (strcmp(argv[i], "--quiet") == 0) options.quiet = true;
        else if (strcmp(argv[i], "--sites") == 0) options.sites = true;
        else if (strcmp(argv[i], "--met") == 0) options.met = true;
        else if (argv[i][0] == '-' || names_n == 64) return usage();
        else if (!is_scenario(argv[i])) return 2;
        else names[names_n++] = argv[i];
    }
    program = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (options.sites) {
        sites_print();
        return 0;
    }
    shadow_init();
    met_grow();
    for (scenario = explore_scenarios; scenario->name; scenario++) {
        if (!is_named(names, names_n)) continue;
        if (options.schedule) {
            search.bound = options.bound < 0 ? -1 : options.bound;
            search.late_bound = options.late < 0 ? 0 : options.late;
            return path_read(options.schedule) ? replay() == FAILED : usage();
        }
        int how = scenario_explored();
        if (how == ENDED) passed++;
        else failed++;
        if (how == FAILED && options.quiet) break;
    }
    if (options.met) met_print();
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0 || passed == 0;
}
