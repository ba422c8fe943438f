/* shadow.h - plain memory: who has accessed it last, and whether that happened before.

   The statics of the program are watched, and the blocks of explore_malloc, which are statics too;
   the stacks are not. Two accesses to a byte by two threads, one of them a write, are a race unless
   one happened before the other. An atomic operation counts as a read here. So what was published
   too early or read too early is found in whatever order the threads ran. */

enum { BLOCKS = 1 << 20, LINE = 512 };

/* Of LINE bytes. wrote: a write to them all. */
typedef struct {
    uint32_t execution;
    uint16_t wrote;
    uint8_t  writer;
    bool     single, freed;      /* single: bytes of it were accessed */
} shadow_line;
/* Of one byte. Steps of the threads, by their clocks; 0: none. */
typedef struct {
    union { uint16_t read[THREADS]; uint64_t read_any; };
    uint32_t execution;
    uint16_t wrote;
    uint8_t  writer;
} shadow_byte;
_Static_assert(sizeof(shadow_byte) == 16, "and read_any is all of read");

extern char __data_start[], _end[];
/* No thread's blocks depend on what the others do. */
static char         blocks[THREADS][BLOCKS] __attribute__((aligned(LINE)));
static size_t       blocks_used[THREADS];
static long         blocks_live;
static shadow_line *shadow_lines;
static shadow_byte *shadow_bytes;
static uint32_t     execution;
static int          in_system;

static void shadow_init(void)
{
    size_t n = (size_t)(_end - __data_start) + 2 * LINE;
    shadow_lines = calloc(n / LINE + 2, sizeof *shadow_lines);
    shadow_bytes = calloc(n, sizeof *shadow_bytes);
    if (!shadow_lines || !shadow_bytes) exit(2);
}

static size_t shadow_at(const void *p)
{
    return (uintptr_t)p - (uintptr_t)__data_start / LINE * LINE;
}

static bool is_watched(const void *p)
{
    return !in_system && (const char *)p >= __data_start && (const char *)p < _end;
}

static shadow_line *line_of(size_t at)
{
    shadow_line *l = &shadow_lines[at / LINE];
    if (l->execution != execution) *l = (shadow_line){ .execution = execution };
    return l;
}

/* The byte at `at`, which is in line l. */
static shadow_byte *byte_of(shadow_line *l, size_t at)
{
    shadow_byte *b = &shadow_bytes[at];
    l->single = true;
    if (b->execution != execution)
        *b = (shadow_byte){ .execution = execution, .wrote = l->wrote, .writer = l->writer };
    return b;
}

static void race(const char *what, const void *p, int other, const char *others, const void *from)
{
    const char *at = (const char *)p;
    bool block = at >= blocks[0] && at < blocks[THREADS - 1] + BLOCKS;
    size_t n = block ? (size_t)(at - blocks[0]) : shadow_at(p);
    static char name[100];
    const char *format = block ? "byte %zu of thread %zu's blocks" : "byte %zu of the statics";
    snprintf(name, sizeof name, format, block ? n % BLOCKS : n, n / BLOCKS);
    failed_from = from;
    fail_now("a race: %s %s %s, which %s %s, and neither happened before the other",
             thread_name(running), what, name, thread_name(other), others);
}

static void check_live(const shadow_line *l, const void *from)
{
    if (!l->freed) return;
    failed_from = from;
    fail_now("%s uses memory that was freed", thread_name(running));
}

/* n bytes of one line. */
static void line_read(shadow_line *l, const char *p, size_t n, const void *from)
{
    const thread *t = &threads[running];
    size_t at = shadow_at(p);
    check_live(l, from);
    for (size_t i = 0; i < n; i++) {
        shadow_byte *b = byte_of(l, at + i);
        if (b->wrote > t->clock.of[b->writer]) race("reads", p + i, b->writer, "wrote", from);
        b->read[running] = t->clock.of[running];
    }
}

static void line_write(shadow_line *l, const char *p, size_t n, const void *from)
{
    const thread *t = &threads[running];
    size_t at = shadow_at(p);
    check_live(l, from);
    for (size_t i = 0; i < n; i++) {
        shadow_byte *b = byte_of(l, at + i);
        if (b->wrote > t->clock.of[b->writer]) race("writes", p + i, b->writer, "wrote", from);
        for (int k = 0; b->read_any && k < THREADS; k++)
            if (b->read[k] > t->clock.of[k]) race("writes", p + i, k, "read", from);
        b->wrote = t->clock.of[running];
        b->writer = (uint8_t)running;
    }
}

static void shadow_read(const void *p, size_t n, const void *from)
{
    if (!is_watched(p)) return;
    for (size_t i = 0, part; i < n; i += part) {
        size_t at = shadow_at(p) + i;
        part = LINE - at % LINE < n - i ? LINE - at % LINE : n - i;
        line_read(line_of(at), (const char *)p + i, part, from);
    }
}

/* A large write to lines that nobody has used is noted for the whole lines. */
static void shadow_write(const void *p, size_t n, const void *from)
{
    if (!is_watched(p)) return;
    for (size_t i = 0, part; i < n; i += part) {
        size_t at = shadow_at(p) + i;
        shadow_line *l = line_of(at);
        part = LINE - at % LINE < n - i ? LINE - at % LINE : n - i;
        bool before = l->wrote <= threads[running].clock.of[l->writer];
        bool whole = part == LINE && !l->single && !l->freed && before;
        if (!whole) line_write(l, (const char *)p + i, part, from);
        else {
            l->wrote = threads[running].clock.of[running];
            l->writer = (uint8_t)running;
        }
    }
}

/* ---- blocks ---- */

/* In front of a block. Its own line, so that it is never freed with a block. */
typedef struct { size_t n; bool live; } block_head;

void *explore_malloc(size_t n)
{
    size_t whole = (n + LINE - 1) / LINE * LINE + LINE, at = blocks_used[running];
    if (whole > BLOCKS - at) fail_now("no memory for a block of %zu bytes", n);
    blocks_used[running] += whole;
    *(block_head *)(void *)&blocks[running][at] = (block_head){ n, true };
    blocks_live++;
    return &blocks[running][at + LINE];
}

void explore_free(void *p)
{
    block_head *h = (void *)((char *)p - LINE);
    if (!h->live) fail_now("%s frees a block that was freed", thread_name(running));
    h->live = false;
    blocks_live--;
    for (size_t i = 0; i < h->n; i += LINE) {
        shadow_line *l = line_of(shadow_at(p) + i);
        shadow_write((char *)p + i, LINE, __builtin_return_address(0));
        l->freed = true;
    }
    places_forget(p, h->n);
}

void *explore_realloc(void *p, size_t n)
{
    const block_head *h = (void *)((char *)p - LINE);
    void *more = explore_malloc(n);
    memcpy(more, p, n < h->n ? n : h->n);
    explore_free(p);
    return more;
}

static void shadow_begin(void)
{
    execution++;
    in_system = 0;
    blocks_live = 0;
    memset(blocks_used, 0, sizeof blocks_used);
}
