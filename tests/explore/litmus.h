/* litmus.h - the memory model by the small programs of the field: what can come of each is exactly
   what C11 says, less load buffering. An outcome is a number; the table in code.c has a bit for
   each that must come, and no other may. */

static struct {
    _Atomic(int) x, y;
    int          order, data, r[4];
} lit;

static void lit_store(_Atomic(int) *p, int v, int order)
{
    if (order == memory_order_seq_cst) atomic_store(p, v);
    else if (order == memory_order_release) atomic_store_explicit(p, v, memory_order_release);
    else atomic_store_explicit(p, v, memory_order_relaxed);
}

static int lit_load(_Atomic(int) *p, int order)
{
    if (order == memory_order_seq_cst) return atomic_load(p);
    if (order == memory_order_release) return atomic_load_explicit(p, memory_order_acquire);
    return atomic_load_explicit(p, memory_order_relaxed);
}

static void *sb_other(void *arg)
{
    (void)arg;
    lit_store(&lit.y, 1, lit.order);
    lit.r[1] = lit_load(&lit.x, lit.order);
    return NULL;
}

/* Store buffering: can both load the old values? */
static void store_buffering(int order)
{
    pthread_t other;
    lit.order = order;
    pthread_create(&other, NULL, sb_other, NULL);
    lit_store(&lit.x, 1, order);
    lit.r[0] = lit_load(&lit.y, order);
    pthread_join(other, NULL);
    explore_outcome(2 * lit.r[0] + lit.r[1]);
}

static void *mp_other(void *arg)
{
    (void)arg;
    lit_store(&lit.x, 1, memory_order_relaxed);
    lit_store(&lit.y, 1, lit.order);
    return NULL;
}

/* Message passing: is the message there when the flag is seen? */
static void message_passing(int order)
{
    pthread_t other;
    lit.order = order;
    pthread_create(&other, NULL, mp_other, NULL);
    lit.r[0] = lit_load(&lit.y, order);
    lit.r[1] = lit_load(&lit.x, memory_order_relaxed);
    pthread_join(other, NULL);
    explore_outcome(2 * lit.r[0] + lit.r[1]);
}

static void *lb_other(void *arg)
{
    (void)arg;
    lit.r[1] = lit_load(&lit.x, memory_order_relaxed);
    lit_store(&lit.y, 1, memory_order_relaxed);
    return NULL;
}

/* Load buffering: C11 lets both load 1; this model does not. */
static void load_buffering(void)
{
    pthread_t other;
    pthread_create(&other, NULL, lb_other, NULL);
    lit.r[0] = lit_load(&lit.y, memory_order_relaxed);
    lit_store(&lit.x, 1, memory_order_relaxed);
    pthread_join(other, NULL);
    explore_outcome(2 * lit.r[0] + lit.r[1]);
}

static void *iriw_writer(void *arg)
{
    (void)arg;
    lit_store(&lit.y, 1, lit.order);
    return NULL;
}

static void *iriw_reader(void *x)
{
    int *r = x ? lit.r : lit.r + 2;
    r[0] = lit_load(x ? &lit.x : &lit.y, lit.order);
    r[1] = lit_load(x ? &lit.y : &lit.x, lit.order);
    return NULL;
}

/* Independent reads of independent writes: can two readers see two writes in opposite orders? */
static void iriw(int order)
{
    pthread_t t[3];
    lit.order = order;
    pthread_create(&t[0], NULL, iriw_writer, NULL);
    pthread_create(&t[1], NULL, iriw_reader, &lit.x);
    pthread_create(&t[2], NULL, iriw_reader, NULL);
    lit_store(&lit.x, 1, order);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    explore_outcome(lit.r[0] && !lit.r[1] && lit.r[2] && !lit.r[3]);
}

static void *ww_other(void *arg)
{
    (void)arg;
    lit_store(&lit.y, 1, lit.order);
    lit_store(&lit.x, 2, lit.order);
    return NULL;
}

/* Two writes each: can the first one of either stay the last? */
static void two_writes(int order)
{
    pthread_t other;
    lit.order = order;
    pthread_create(&other, NULL, ww_other, NULL);
    lit_store(&lit.x, 1, order);
    lit_store(&lit.y, 2, order);
    pthread_join(other, NULL);
    int x = lit_load(&lit.x, memory_order_relaxed), y = lit_load(&lit.y, memory_order_relaxed);
    explore_outcome(x == 1 && y == 1);
}

static void *rs_writer(void *arg)
{
    (void)arg;
    lit.data = 5;
    lit_store(&lit.x, 1, memory_order_release);
    return NULL;
}

static void *rs_changer(void *arg)
{
    (void)arg;
    atomic_fetch_add_explicit(&lit.x, 2, memory_order_relaxed);
    return NULL;
}

/* A release sequence: behind a relaxed read-modify-write of a release store the data is there. */
static void release_sequence(void)
{
    pthread_t writer, changer;
    pthread_create(&writer, NULL, rs_writer, NULL);
    pthread_create(&changer, NULL, rs_changer, NULL);
    int x = lit_load(&lit.x, memory_order_release);
    if (x == 3 || x == 1) CHECK(lit.data == 5, "the data");
    pthread_join(writer, NULL);
    pthread_join(changer, NULL);
    explore_outcome(x);
}

static void sb_sc(void)      { store_buffering(memory_order_seq_cst); }
static void sb_release(void) { store_buffering(memory_order_release); }
static void mp_release(void) { message_passing(memory_order_release); }
static void mp_relaxed(void) { message_passing(memory_order_relaxed); }
static void iriw_sc(void)      { iriw(memory_order_seq_cst); }
static void iriw_release(void) { iriw(memory_order_release); }
static void ww_sc(void)      { two_writes(memory_order_seq_cst); }
static void ww_relaxed(void) { two_writes(memory_order_relaxed); }
