/* hooks.h - what the compiler calls in the place of atomic operations and before accesses to
   memory, since the code is compiled with -fsanitize=thread. A kind of operation that is missing
   here is an error of the linker. */

static const explore_site *site;         /* of the operation that is about to be made */
static const explore_site *weakened;     /* the site that has another order; or NULL */
static int                 weakened_to;
static bool                sites_met[1000];

void explore_at(const explore_site *s) { site = s; }

/* Before an atomic operation: a step, unless no other thread can tell. Returns its order. */
static int atomic_begin(void *p, int order, bool loads, const void *from)
{
    const explore_site *here = site;
    if (!here) {
        failed_from = from;
        fail_now("an atomic operation without a place: code.c has a macro for each kind");
    }
    sites_met[here->number] = true;
    if (here == weakened) order = weakened_to;
    if (place_shared(p, loads, loads && order != __ATOMIC_SEQ_CST)) turn();
    site = here;
    if (is_watched(p)) line_read(line_of(shadow_at(p)), p, 1, from);
    return order;
}

static uint64_t change_to(uint64_t was, uint64_t by) { (void)was; return by; }
static uint64_t change_add(uint64_t was, uint64_t by) { return was + by; }
static uint64_t change_sub(uint64_t was, uint64_t by) { return was - by; }

#define HOOKS(bits, type)                                                                          \
    type __tsan_atomic##bits##_load(const volatile type *p, int order);                            \
    void __tsan_atomic##bits##_store(volatile type *p, type v, int order);                         \
    type __tsan_atomic##bits##_exchange(volatile type *p, type v, int order);                      \
    type __tsan_atomic##bits##_fetch_add(volatile type *p, type v, int order);                     \
    type __tsan_atomic##bits##_fetch_sub(volatile type *p, type v, int order);                     \
    type __tsan_atomic##bits##_load(const volatile type *p, int order)                             \
    {                                                                                              \
        void *at = (void *)(uintptr_t)p;                                                           \
        order = atomic_begin(at, order, true, __builtin_return_address(0));              \
        type v = (type)memory_load(at, bits / 8, order);                                           \
        site = NULL;                                                                               \
        return v;                                                                                  \
    }                                                                                              \
    void __tsan_atomic##bits##_store(volatile type *p, type v, int order)                          \
    {                                                                                              \
        void *at = (void *)(uintptr_t)p;                                                           \
        order = atomic_begin(at, order, false, __builtin_return_address(0));             \
        memory_store(at, bits / 8, v, order);                                                      \
        site = NULL;                                                                               \
    }                                                                                              \
    static type change##bits(volatile type *p, uint64_t (*change)(uint64_t, uint64_t), type by,    \
                             int order, const void *from)                                          \
    {                                                                                              \
        void *at = (void *)(uintptr_t)p;                                                           \
        order = atomic_begin(at, order, false, from);                                    \
        type v = (type)memory_change(at, bits / 8, change, by, order);                             \
        site = NULL;                                                                               \
        return v;                                                                                  \
    }                                                                                              \
    type __tsan_atomic##bits##_exchange(volatile type *p, type v, int order)                       \
    {                                                                                              \
        return change##bits(p, change_to, v, order, __builtin_return_address(0));                  \
    }                                                                                              \
    type __tsan_atomic##bits##_fetch_add(volatile type *p, type v, int order)                      \
    {                                                                                              \
        return change##bits(p, change_add, v, order, __builtin_return_address(0));                 \
    }                                                                                              \
    type __tsan_atomic##bits##_fetch_sub(volatile type *p, type v, int order)                      \
    {                                                                                              \
        return change##bits(p, change_sub, v, order, __builtin_return_address(0));                 \
    }
HOOKS(32, uint32_t)
HOOKS(64, uint64_t)

#define ACCESSES(n)                                                                                \
    void __tsan_read##n(void *p);                                                                  \
    void __tsan_write##n(void *p);                                                                 \
    void __tsan_unaligned_read##n(void *p);                                                        \
    void __tsan_unaligned_write##n(void *p);                                                       \
    void __tsan_read##n(void *p) { shadow_read(p, n, __builtin_return_address(0)); }               \
    void __tsan_write##n(void *p) { shadow_write(p, n, __builtin_return_address(0)); }             \
    void __tsan_unaligned_read##n(void *p) { shadow_read(p, n, __builtin_return_address(0)); }     \
    void __tsan_unaligned_write##n(void *p) { shadow_write(p, n, __builtin_return_address(0)); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void *p, unsigned long n);
void __tsan_write_range(void *p, unsigned long n);
void __tsan_init(void);
void __tsan_func_entry(void *from);
void __tsan_func_exit(void);
void __tsan_read_range(void *p, unsigned long n) { shadow_read(p, n, __builtin_return_address(0)); }
void __tsan_write_range(void *p, unsigned long n)
{
    shadow_write(p, n, __builtin_return_address(0));
}
void __tsan_init(void) {}
void __tsan_func_entry(void *from) { (void)from; }
void __tsan_func_exit(void) {}

void *explore_memset(void *p, int c, size_t n)
{
    shadow_write(p, n, __builtin_return_address(0));
    memset(p, c, n);
    if (is_watched(p)) places_forget(p, n);
    return p;
}

void *explore_memcpy(void *to, const void *from, size_t n)
{
    shadow_read(from, n, __builtin_return_address(0));
    shadow_write(to, n, __builtin_return_address(0));
    return memcpy(to, from, n);
}

void *explore_memmove(void *to, const void *from, size_t n)
{
    shadow_read(from, n, __builtin_return_address(0));
    shadow_write(to, n, __builtin_return_address(0));
    return memmove(to, from, n);
}

void explore_enter(void) { in_system++; }
void explore_leave(void) { in_system--; }
