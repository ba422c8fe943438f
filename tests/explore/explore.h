/* explore.h - what the explorer (explore.c) and the code that it runs (code.c) know of each other.

   code.c is compiled with -fsanitize=thread, and linked without that sanitizer's library: the calls
   that the compiler puts before each access to memory, and in the place of each atomic operation,
   are those of hooks.h. So the scenarios run keyauth.h as it is. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An atomic operation in the text of the program. */
typedef struct {
    const char *file;
    int         line, number;      /* number: sites are numbered in the order of the text */
    const char *function, *operation, *object;
    int         order;             /* a memory_order */
} explore_site;

/* A scenario: a function that is thread 0 of each execution. */
typedef struct {
    const char *name;
    void      (*run)(void);
    const char *threads[4];        /* names, in the order in which the threads are started */
    int         bound;             /* preemptions in the run of CI; -1: no bound */
    int         late;              /* at most so many loads read an older store than the newest,
                                      or stores come in front of another one; 0: no bound */
    unsigned    outcomes;          /* a bit for each outcome that there must be; 0: not looked at */
} explore_scenario;

extern const explore_scenario explore_scenarios[];
void explore_begin(void);          /* of code.c: statics as they are when a program starts */
uint64_t explore_system_hash(void);      /* of code.c: the state of the simulated system */
void explore_end(void);            /* of code.c: the running thread ends */

/* Called by code.c. */
void explore_at(const explore_site *site);
_Noreturn void explore_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void explore_outcome(int n);       /* of this execution */
int  explore_thread(unsigned long *id, void *(*run)(void *), void *arg);
int  explore_join(unsigned long id);
int  explore_self(void);           /* the running thread; of a handler, the one that it interrupts */
void explore_handler(int thread, void *(*run)(void *), void *arg);      /* a signal to thread */
void *explore_malloc(size_t n);
void *explore_realloc(void *p, size_t n);
void explore_free(void *p);
void *explore_memset(void *p, int c, size_t n);
void *explore_memcpy(void *to, const void *from, size_t n);
void *explore_memmove(void *to, const void *from, size_t n);

/* System calls: a step of the calling thread; and what is between enter and leave is the system's
   own, and not looked at. */
void explore_call(const char *text, long argument);
void explore_result(long result);      /* of the call, on which the thread may depend */
void explore_enter(void);
void explore_leave(void);
/* Wait until ready(arg). Of ms only these are told apart: 0; 1, which may pass; and more, which
   never passes: who waits so long in vain has lost a wake-up. False: it was not ready. */
bool explore_wait(const char *text, bool (*ready)(int), int arg, int ms);
void explore_sleep(void);          /* a millisecond */
