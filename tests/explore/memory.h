/* memory.h - the memory model: what an atomic load may read, and where an atomic store may come.

   It is C11's, with the sequentially consistent operations as C++20 has them, less one thing: a
   load does not read a store that comes later in the execution (load buffering), and there are no
   fences.

   Each atomic object keeps all its stores, in their modification order. A thread's view says, for
   each object, which store the thread has met last. A load reads that store or any later one. A
   store comes anywhere behind that store, but not between a read-modify-write and what it read. A
   release store carries its thread's view, and an acquire load of it adds that view to its own
   thread's. A sequentially consistent load or store is also behind all that such operations on the
   same object have met before: their one order is that of the execution.

   A clock says, for each thread, up to which of its steps all is known to have happened before. It
   travels as views do; shadow.h asks it whether two accesses to plain memory are a race. */

static uint64_t threads_name(const thread *t) { return (uint64_t)(t - threads) + 1; }

/* A value has changed: it may be what others sleep for. */
static void threads_hope(const thread *by)
{
    for (int i = 0; i < threads_n; i++)
        if (&threads[i] != by) threads[i].vain = 0;
}

static uint16_t position(uint16_t s) { return s ? stores[s].at : 0; }

static void view_add(view *to, const view *from)
{
    for (int i = 0; i < places_n; i++)
        if (position(from->of[i]) > position(to->of[i])) to->of[i] = from->of[i];
}

static void clocks_add(clocks *to, const clocks *from)
{
    for (int i = 0; i < THREADS; i++)
        if (from->of[i] > to->of[i]) to->of[i] = from->of[i];
}

static bool acquires(int order) { return order == __ATOMIC_ACQUIRE || order >= __ATOMIC_ACQ_REL; }
static bool releases(int order) { return order >= __ATOMIC_RELEASE; }
_Static_assert(__ATOMIC_ACQUIRE < __ATOMIC_RELEASE && __ATOMIC_RELEASE < __ATOMIC_ACQ_REL &&
               __ATOMIC_ACQ_REL < __ATOMIC_SEQ_CST, "the orders of the compiler, by strength");

/* What lies there, and to have it there, for who reads it without an atomic operation. */
static uint64_t bytes_get(const void *p, int size)
{
    uint64_t v = 0;
    memcpy(&v, p, (size_t)size);      /* little-endian */
    return v;
}

static uint16_t store_new(place *p, uint16_t at, uint64_t value, uint64_t name)
{
    if (stores_n == STORES || p->n == ORDER) fail_now("an execution with too many stores");
    uint16_t s = (uint16_t)stores_n++;
    stores[s] = (store){ .value = value, .name = name, .at = at, .thread = 255 };
    for (uint16_t i = p->n; i > at; i--) {
        p->order[i] = p->order[i - 1];
        stores[p->order[i]].at = i;
    }
    p->order[at] = s;
    p->n++;
    p->hash = at + 1 == p->n ? mix(p->hash, name) : 0;
    for (uint16_t i = 0; at + 1 < p->n && i < p->n; i++)
        p->hash = mix(p->hash, stores[p->order[i]].name);
    return s;
}

static int place_find(const void *address)
{
    int i = 0;
    while (i < places_n && places[i].address != address) i++;
    return i;
}

/* The object at an address. Its first store is what lies there when it is first used. */
static int place_of(void *address, int size)
{
    int i = place_find(address);
    if (i == places_n) {
        if (places_n == PLACES) fail_now("too many atomic objects");
        places_n++;
        place *p = &places[i];
        p->address = address;
        p->size = size;
        p->n = p->sc = 0;
        p->hash = 0;
        store_new(p, 0, bytes_get(address, size), 1);
    }
    if (places[i].size != size) fail_now("an atomic object of two sizes");
    return i;
}

/* Objects were initialised anew, or freed: what was stored there is over. */
static void places_forget(const void *from, size_t n)
{
    for (int i = 0; i < places_n; i++) {
        char *at = places[i].address;
        if (at < (const char *)from || at >= (const char *)from + n) continue;
        places[i].n = places[i].sc = 0;
        places[i].hash = 0;
        for (int t = 0; t < THREADS; t++) threads[t].seen.of[i] = threads[t].read.of[i] = 0;
        for (int s = 0; s < stores_n; s++) stores[s].view.of[i] = 0;
        store_new(&places[i], 0, bytes_get(at, places[i].size), 1);
    }
}

/* The first position that a thread's operation may read, or come behind. */
static uint16_t position_first(const thread *t, int i, int order)
{
    uint16_t first = position(t->seen.of[i]);
    if (order == __ATOMIC_SEQ_CST && position(places[i].sc) > first) first = position(places[i].sc);
    return first;
}

/* What follows from having read a store. */
static void store_read(thread *t, int i, uint16_t s, int order)
{
    if (position(s) > position(t->seen.of[i])) t->seen.of[i] = s;
    t->read.of[i] = s;
    if (acquires(order)) {
        view_add(&t->seen, &stores[s].view);
        clocks_add(&t->clock, &stores[s].clock);
    }
    if (order == __ATOMIC_SEQ_CST && position(s) > position(places[i].sc)) places[i].sc = s;
    t->history = mix(t->history, mix((uint64_t)(uintptr_t)places[i].address, stores[s].name));
}

/* A load: any store from the first that is possible to the newest, which is tried first. */
static uint64_t memory_load(void *address, int size, int order)
{
    thread *t = &threads[running];
    int i = place_of(address, size);
    uint16_t first = position_first(t, i, order), last = (uint16_t)(places[i].n - 1);
    uint16_t s = places[i].order[last - choose_late(last - first + 1)];
    store_read(t, i, s, order);
    trace_atomic("reads", i, s, order);
    return stores[s].value;
}

/* Put a thread's store at a position. read: the store that a read-modify-write has read, or 0. */
static void store_put(thread *t, int i, uint16_t at, uint64_t value, int order, uint16_t read)
{
    uint16_t s = store_new(&places[i], at, value, mix(threads_name(t), ++t->steps));
    store *w = &stores[s];
    bool newest = at + 1 == places[i].n;
    t->history = mix(t->history, 7);
    w->thread = (uint8_t)(t - threads);
    w->tied = read != 0;
    t->seen.of[i] = s;
    t->read.of[i] = s;
    w->view.of[i] = s;
    if (read) {
        view_add(&w->view, &stores[read].view);
        w->clock = stores[read].clock;
    }
    if (releases(order)) {
        view_add(&w->view, &t->seen);
        clocks_add(&w->clock, &t->clock);
        t->clock.of[t - threads]++;
    }
    if (order == __ATOMIC_SEQ_CST) places[i].sc = s;
    if (newest) {
        memcpy(places[i].address, &value, (size_t)places[i].size);
        if (value != stores[places[i].order[at - 1]].value) threads_hope(t);
    }
    trace_atomic("stores", i, s, order);
}

static void memory_store(void *address, int size, uint64_t value, int order)
{
    thread *t = &threads[running];
    int i = place_of(address, size), options = 0;
    uint16_t first = position_first(t, i, order), at[ORDER];
    for (uint16_t k = places[i].n; k > first; k--)      /* behind them all is tried first */
        if (k == places[i].n || !stores[places[i].order[k]].tied) at[options++] = k;
    store_put(t, i, at[choose_late(options)], value, order, 0);
}

/* A read-modify-write reads a store that none other has read, and comes directly behind it. */
static uint64_t memory_change(void *address, int size, uint64_t (*change)(uint64_t, uint64_t),
                              uint64_t by, int order)
{
    thread *t = &threads[running];
    int i = place_of(address, size), options = 0;
    uint16_t first = position_first(t, i, order), at[ORDER];
    uint64_t most = size == 8 ? UINT64_MAX : ((uint64_t)1 << 8 * size) - 1;
    for (int k = places[i].n - 1; k >= first; k--)
        if (k == places[i].n - 1 || !stores[places[i].order[k + 1]].tied)
            at[options++] = (uint16_t)k;
    uint16_t s = places[i].order[at[choose_late(options)]];
    store_read(t, i, s, order);
    trace_atomic("reads", i, s, order);
    store_put(t, i, (uint16_t)(stores[s].at + 1), change(stores[s].value, by) & most, order, s);
    return stores[s].value;
}

static void memory_begin(void)
{
    stores_n = 1;      /* 0 is none */
    places_n = 0;
}
