/* fuzz/digits.h - the targets hex and uuid. */

static const char plain_digits[] = "0123456789abcdef";

static void target_hex(const char *p, size_t n)
{
    char *out = block(2 * n);
    ka_hex_encode(out, p, n);
    for (size_t i = 0; i < n; i++) {
        const char *high = memchr(plain_digits, out[2 * i], 16);
        const char *low = memchr(plain_digits, out[2 * i + 1], 16);
        CHECK(high && low, "no digit at %d", (int)i);
        ptrdiff_t value = (high - plain_digits) * 16 + (low - plain_digits);
        CHECK(value == (unsigned char)p[i], "byte %d is %d", (int)i, (int)value);
    }
    block_free(out, 2 * n);
}

/* RFC 9562 s.4: groups of 8, 4, 4, 4 and 12 digits, with hyphens between them. */
static bool plain_uuid(const char *p, size_t n)
{
    static const size_t groups[] = { 8, 4, 4, 4, 12 };
    size_t at = 0;
    for (int i = 0; i < 5; i++) {
        if (i > 0 && (at == n || p[at++] != '-')) return false;
        for (size_t to = at + groups[i]; at < to; at++)
            if (at == n || !isxdigit((unsigned char)p[at])) return false;
    }
    return at == n;
}

static void target_uuid(const char *p, size_t n)
{
    char *out = block(KA_UUID_TEXT + 1), *again = block(KA_UUID_TEXT + 1);
    int r = ka_uuid_read(out, (ka_str){ p, n });
    CHECK(r == (plain_uuid(p, n) ? KA_OK : KA_ESYNTAX), "got %d", r);
    if (r == KA_OK) {
        for (size_t i = 0; i < n; i++)
            CHECK(out[i] == tolower((unsigned char)p[i]), "at %d", (int)i);
        CHECK(out[n] == 0, "no NUL");
        CHECK(ka_uuid_read(again, (ka_str){ out, n }) == KA_OK && strcmp(out, again) == 0, "again");
    }
    block_free(out, KA_UUID_TEXT + 1);
    block_free(again, KA_UUID_TEXT + 1);
}
