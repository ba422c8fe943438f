/* fuzz/base64.h - the target base64. */

/* Decode by the definition: 6 bits a digit, what is left over is zero. -1: refused. */
static ptrdiff_t plain_base64(unsigned char *out, const char *in, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t pad = 0, size = 0;
    uint32_t bits = 0, held = 0;
    while (pad < 2 && pad < n && in[n - 1 - pad] == '=') pad++;
    if (n % 4) return -1;
    for (size_t i = 0; i < n - pad; i++) {
        const char *digit = in[i] ? strchr(digits, in[i]) : NULL;
        if (!digit) return -1;
        held = held << 6 | (uint32_t)(digit - digits);
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        out[size++] = (unsigned char)(held >> bits);
        held &= (1u << bits) - 1;
    }
    return held == 0 && bits == pad * 2 ? (ptrdiff_t)size : -1;
}

static void target_base64(const char *p, size_t n)
{
    /* as bytes: there and back */
    size_t size = KA_B64_ENCODED(n);
    char *text = block(size), *plain = block(n);
    CHECK(ka_b64_encode(text, size, p, n) == (ptrdiff_t)size, "%d bytes", (int)n);
    if (size) CHECK(ka_b64_encode(text, size - 1, p, n) == KA_ENOSPC, "one short of %d", (int)size);
    char *in = exact(text, size);
    CHECK(ka_b64_decode(plain, n, in, size) == (ptrdiff_t)n && memcmp(plain, p, n) == 0,
          "decode(encode(%d bytes))", (int)n);
    if (n) CHECK(ka_b64_decode(plain, n - 1, in, size) == KA_ENOSPC, "one short of %d", (int)n);
    exact_free(in, size);
    block_free(text, size);
    block_free(plain, n);

    /* as text: refused, or the one text for its bytes */
    size_t cap = KA_B64_DECODED(n);
    unsigned char *want = malloc(cap + 3);
    plain = block(cap);
    text = block(n);
    if (!want) abort();
    ptrdiff_t expected = plain_base64(want, p, n), got = ka_b64_decode(plain, cap, p, n);
    CHECK(got == (expected < 0 ? KA_ESYNTAX : expected), "got %d, want %d", (int)got,
          (int)expected);
    if (got >= 0) {
        CHECK(memcmp(plain, want, (size_t)got) == 0, "%d bytes", (int)got);
        CHECK(ka_b64_encode(text, n, plain, (size_t)got) == (ptrdiff_t)n && memcmp(text, p, n) == 0,
              "encode(decode(%d characters))", (int)n);
    }
    free(want);
    block_free(plain, cap);
    block_free(text, n);
}
