/* fuzz/chunked.h - the target chunked. */

typedef struct { int error; bool done; size_t used; bytes out; } decoded;

static decoded decode(const char *p, size_t n, uint32_t room, size_t cut)
{
    decoded d = { 0 };
    ka__chunked state = { .room = room };
    for (size_t at = 0, used = 0; at < n && !state.done; at += used) {
        size_t part = n - at < cut ? n - at : cut;
        char *piece = exact(p + at, part);
        ptrdiff_t got = ka__chunked_decode(&state, piece, part, &used);
        if (got < 0) d.error = (int)got;
        else {
            CHECK((size_t)got <= used && used <= part && (state.done || used == part),
                  "%d of %d, %d bytes", (int)used, (int)part, (int)got);
            append(&d.out, piece, (size_t)got);
            d.used += used;
        }
        exact_free(piece, part);
        if (got < 0) break;
    }
    d.done = state.done && !d.error;      /* the byte that completes it may be the one too many */
    if (!d.error)
        CHECK(d.out.n + state.room == room, "%d bytes, room for %d of %d", (int)d.out.n,
              (int)state.room, (int)room);
    return d;
}

/* By lines: a size, what may follow it, that many bytes, and so on. Only for what
   the decoder took. */
static void plain_chunks(const char *p, size_t n, bytes *out)
{
    for (size_t at = 0; ; ) {
        const char *line = p + at, *end = memmem(line, n - at, "\r\n", 2);
        CHECK(end && end - line <= KA_MAX_CHUNK_LINE, "a chunk's line at %d", (int)at);
        size_t digits = strspn(line, "0123456789abcdefABCDEF");
        size_t size = strtoul(line, NULL, 16);      /* stops at the CR */
        CHECK(digits > 0 && strchr("\r; \t", line[digits]), "a size at %d", (int)at);
        for (const char *c = line; c < end; c++)
            CHECK((unsigned char)*c >= ' ' || *c == '\t', "a control character at %d",
                  (int)(c - p));
        at += (size_t)(end - line) + 2;
        if (size == 0) {
            for (;;) {      /* trailers */
                line = p + at;
                end = memmem(line, n - at, "\r\n", 2);
                CHECK(end, "a trailer at %d", (int)at);
                at += (size_t)(end - line) + 2;
                if (end == line) break;
                CHECK(memchr(line, ':', (size_t)(end - line)), "a trailer without a colon");
                CHECK(*line != ':' && !memchr(line, '\n', (size_t)(end - line)), "a trailer at %d",
                      (int)at);
            }
            CHECK(at == n, "took %d, ends at %d", (int)n, (int)at);
            return;
        }
        CHECK(size <= n - at, "%d bytes at %d", (int)size, (int)at);
        append(out, p + at, size);
        at += size;
        CHECK(n - at >= 2 && memcmp(p + at, "\r\n", 2) == 0, "no end of the data at %d", (int)at);
        at += 2;
    }
}

/* The bytes themselves in chunks, whose sizes and extensions h chooses: they come back. */
static void there_and_back(const char *p, size_t n, uint64_t h)
{
    static const char *const extensions[] = {
        "", ";a", ";a=b", " ; a = \"\\\"\"", ";a;b=\"c d\"", "\t;x"
    };
    bytes text = { 0 };
    size_t size = n < KA_MAX_BODY ? n : KA_MAX_BODY;
    for (size_t at = 0, part; at < size; at += part, h = h >> 9 | h << 55) {
        char line[64];
        part = 1 + (size_t)h % 40;
        if (part > size - at) part = size - at;
        snprintf(line, sizeof line, h & 64 ? "%zx%s\r\n" : "%04zX%s\r\n", part, extensions[h % 6]);
        append_text(&text, line);
        append(&text, p + at, part);
        append_text(&text, "\r\n");
    }
    append_text(&text, h & 1 ? "0\r\n\r\n" : "00;z\r\nA: b\r\nc:\r\n\r\n");
    size_t whole_n = text.n;
    append_text(&text, "more");
    decoded back = decode(text.p, text.n, (uint32_t)size, 1 + (size_t)h % 97);
    CHECK(back.done && back.used == whole_n && back.out.n == size &&
              (size == 0 || memcmp(back.out.p, p, size) == 0),
          "error %d, %d of %d bytes", back.error, (int)back.out.n, (int)size);
    release(&back.out);
    if (size) {
        back = decode(text.p, text.n, (uint32_t)size - 1, 1 + (size_t)h % 97);
        CHECK(back.error == KA_ENOSPC, "one byte short of room: %d", back.error);
        release(&back.out);
    }
    release(&text);
}

static void target_chunked(const char *p, size_t n)
{
    uint32_t room = n && (p[0] & 8) ? 40 : KA_MAX_BODY;
    decoded whole = decode(p, n, room, SIZE_MAX);
    CHECK(whole.error == 0 || whole.error == KA_ESYNTAX || whole.error == KA_ENOSPC, "got %d",
          whole.error);
    uint64_t h = hash(p, n);
    for (int i = 0; i < 4; i++) {
        decoded pieces = decode(p, n, room, i == 0 ? 1 : 2 + (size_t)(h >> (8 * i)) % 30);
        CHECK(pieces.error == whole.error && pieces.done == whole.done, "in pieces: %d, whole: %d",
              pieces.error, whole.error);
        if (!whole.error)
            CHECK(pieces.used == whole.used && pieces.out.n == whole.out.n &&
                      (whole.out.n == 0 || memcmp(pieces.out.p, whole.out.p, whole.out.n) == 0),
                  "in pieces %d bytes of %d, whole %d of %d", (int)pieces.out.n, (int)pieces.used,
                  (int)whole.out.n, (int)whole.used);
        release(&pieces.out);
    }
    for (int i = 0; n > 0 && i < 8; i++) {
        size_t cut = (size_t)(h >> (7 * i)) % n;
        decoded part = decode(p, cut, room, SIZE_MAX);
        CHECK(part.done == (whole.done && cut >= whole.used), "cut at %d of %d: done %d", (int)cut,
              (int)n, part.done);
        CHECK(part.error == 0 || part.error == whole.error, "cut at %d: %d, whole %d", (int)cut,
              part.error, whole.error);
        release(&part.out);
    }
    if (whole.done) {
        bytes out = { 0 };
        plain_chunks(p, whole.used, &out);
        CHECK(out.n == whole.out.n && (out.n == 0 || memcmp(out.p, whole.out.p, out.n) == 0),
              "other bytes");
        release(&out);
    }
    release(&whole.out);
    there_and_back(p, n, h);
}
