/* state.h - the state of an execution: the atomic objects with their stores, and the threads. */

#include <setjmp.h>

enum { THREADS = 4, PLACES = 48, STORES = 4000, ORDER = 1500 };
typedef struct { uint16_t of[PLACES]; } view;      /* a store's index for each object; 0: none */
typedef struct { uint16_t of[THREADS]; } clocks;

typedef struct {
    uint64_t value, name;      /* name: whose and which it is, in every execution */
    uint16_t at;               /* its place in the order */
    uint8_t  thread;
    bool     tied;             /* a read-modify-write: directly behind what it read */
    view     view;             /* what an acquire load of it gets */
    clocks   clock;
} store;

/* An atomic object. */
typedef struct {
    void    *address;
    int      size;
    uint16_t n, order[ORDER];
    uint16_t sc;               /* the last store that a sequentially consistent operation has met */
    uint64_t hash;             /* of the order */
} place;

static store stores[STORES];
static int   stores_n;
static place places[PLACES];
static int   places_n;

typedef enum { UNUSED, READY, WAITING, SLEEPING, JOINING, DONE } thread_state;

typedef struct {
    thread_state state;
    void      *(*run)(void *);
    void        *arg;
    jmp_buf      at;
    bool         begun;
    /* WAITING */
    const char  *text;
    bool       (*ready)(int);
    int          ready_arg;
    bool         interrupted;      /* by a signal */
    int          joins;            /* JOINING */
    int          vain;             /* SLEEPING: how often it slept and found nothing new */
    int          host;             /* the thread that it is a signal to; -1: none */
    uint32_t     steps;
    uint64_t     history;          /* hash of all that it has done and read */
    view         seen;
    view         read;             /* what it has read since it last slept */
    clocks       clock;
} thread;

static thread  threads[THREADS];
static int     threads_n, running;
static int     steps_n;
static jmp_buf driver;             /* where an execution ends */
enum { ENDED = 1, CUT, FAILED };

_Noreturn static void fail_now(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *thread_name(int i);
static void trace_step(const char *what);
static void trace_call(const char *what, long argument);
static void trace_atomic(const char *what, int at, uint16_t s, int order);
static void turn(void);
