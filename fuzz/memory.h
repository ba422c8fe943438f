/* fuzz/memory.h - memory that is counted and can fail; blocks of exactly their size; bytes that
   grow, and bytes that are read. The few large blocks are kept, so that the system need not make
   new pages for every input. */

enum { LARGE = 65536 };
static struct { void *p; size_t n; bool used; } large[16];
static long blocks_live, blocks_fail_in = -1;
static bool blocks_failed;

static void *fuzz_malloc(size_t n)
{
    if (blocks_fail_in >= 0 && blocks_fail_in-- == 0) {
        blocks_failed = true;
        return NULL;
    }
    blocks_live++;
    for (int i = 0; n >= LARGE && i < 16; i++) {
        if (large[i].used || (large[i].p && large[i].n != n)) continue;
        if (!large[i].p) large[i].p = malloc(n);
        large[i].n = n;
        large[i].used = true;
        return large[i].p;
    }
    return malloc(n);
}

static void fuzz_free(void *p)
{
    blocks_live--;
    for (int i = 0; i < 16; i++) {
        if (large[i].p != p) continue;
        CHECK(large[i].used, "freed twice");
        large[i].used = false;
        return;
    }
    free(p);
}

static void *fuzz_realloc(void *p, size_t n)
{
    if (!p) return fuzz_malloc(n);
    if (blocks_fail_in >= 0 && blocks_fail_in-- == 0) {
        blocks_failed = true;
        return NULL;
    }
    return realloc(p, n);
}

/* ---- bytes that grow, and bytes that are read ---- */

typedef struct { char *p; size_t n, cap; } bytes;

static void append(bytes *b, const void *p, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        if (!b->p) abort();
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void resize(bytes *b, size_t n)
{
    static const char zeros[256] = { 0 };
    while (b->n < n) append(b, zeros, n - b->n < sizeof zeros ? n - b->n : sizeof zeros);
    b->n = n;
}

static void append_text(bytes *b, const char *text) { append(b, text, strlen(text)); }

static void release(bytes *b)
{
    free(b->p);
    *b = (bytes){ NULL, 0, 0 };
}

typedef struct { const char *p; size_t n; } input;

static unsigned next_byte(input *in)
{
    if (in->n == 0) return 0;
    in->n--;
    return (unsigned char)*in->p++;
}

/* n bytes right at the end of a block, so that the first byte too far is seen: by a sanitizer; or,
   in ./build.sh every, because no memory is behind. */
#ifdef FUZZ_EVERY
enum { GUARDED = 16, PAGE = 4096 };
static struct { char *end; bool used; } guarded[GUARDED];

static char *block(size_t n)
{
    int i = 0;
    CHECK(n <= PAGE, "a block of %d bytes", (int)n);
    while (i < GUARDED && guarded[i].used) i++;
    CHECK(i < GUARDED, "too many blocks at a time");
    if (!guarded[i].end) {
        char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(p != MAP_FAILED && mprotect(p + PAGE, PAGE, PROT_NONE) == 0, "no memory");
        guarded[i].end = p + PAGE;
    }
    guarded[i].used = true;
    return guarded[i].end - n;
}

static void block_free(char *p, size_t n)
{
    int i = 0;
    while (i < GUARDED && guarded[i].end != p + n) i++;
    CHECK(i < GUARDED && guarded[i].used, "no such block");
    guarded[i].used = false;
}
#else
static char *block(size_t n)
{
    char *p = malloc(n ? n : 1);
    if (!p) abort();
    return n ? p : p + 1;
}

static void block_free(char *p, size_t n) { free(n ? p : p - 1); }
#endif

/* A copy in a block of exactly its size. */
static char *exact(const char *p, size_t n)
{
    char *copy = block(n);
    if (n) memcpy(copy, p, n);
    return copy;
}

static void exact_free(char *copy, size_t n) { block_free(copy, n); }

static uint64_t hash(const char *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325, x;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&x, p, 8);
        h = (h ^ x) * 0x9e3779b97f4a7c15;
        h ^= h >> 29;
    }
    for (; n > 0; p++, n--) h = (h ^ (unsigned char)*p) * 0x100000001b3;
    return h ^ h >> 31;
}
