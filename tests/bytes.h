/* tests/bytes.h - section 2 of keyauth.h. */

static void test_base64(void)
{
    static const struct { const char *plain, *text; } vectors[] = {      /* RFC 4648 s.10 */
        { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" },
        { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" }, { "\xff\xff\xff", "////" },
        { "\xfb\xef\xbe", "++++" },
    };
    static const struct { const char *in, *why; } refuse[] = {
        { "Zg=", "length is no multiple of 4" },    { "Zg", "padding is missing" },
        { "Z===", "one digit is no byte" },         { "====", "only padding" },
        { "Zh==", "spare bits set, 2 pads" },       { "Zm9=", "spare bits set, 1 pad" },
        { "Zg==Zg==", "padding inside" },           { "Zm8=Zm9v", "padding inside" },
        { "Zm9v\n", "newline" },                    { "Zm 9v===", "space" },
        { "Zm-_", "the URL alphabet" },             { "Zm9\x80", "not ASCII" },
        { "Z=9v", "padding as a digit" },           { "=m9v", "padding in front" },
        { "Zg=A", "a digit after padding" },
    };
    char text[512], back[512], plain[301];
    for (size_t i = 0; i < COUNT(vectors); i++) {
        size_t n = strlen(vectors[i].plain), t = strlen(vectors[i].text);
        ptrdiff_t e = ka_b64_encode(text, sizeof text, vectors[i].plain, n);
        CHECK(e == (ptrdiff_t)t && memcmp(text, vectors[i].text, t) == 0, "encode %s: got %.*s",
              vectors[i].text, (int)e, text);
        char *in = exact(vectors[i].text, t);
        ptrdiff_t d = ka_b64_decode(back, n, in, t);
        CHECK(d == (ptrdiff_t)n && memcmp(back, vectors[i].plain, n) == 0, "decode %s: got %d",
              vectors[i].text, (int)d);
        if (n)
            CHECK(ka_b64_decode(back, n - 1, in, t) == KA_ENOSPC,
                  "decode %s: one byte short of room", vectors[i].text);
        if (n)
            CHECK(ka_b64_encode(text, t - 1, vectors[i].plain, n) == KA_ENOSPC,
                  "encode %s: one byte short", vectors[i].text);
        free(in);
    }
    for (size_t i = 0; i < COUNT(refuse); i++) {
        size_t n = strlen(refuse[i].in);
        char *in = exact(refuse[i].in, n);
        ptrdiff_t d = ka_b64_decode(back, sizeof back, in, n);
        CHECK(d == KA_ESYNTAX, "%s (%s): got %d", refuse[i].in, refuse[i].why, (int)d);
        free(in);
    }
    for (size_t n = 0; n <= 300; n++) {
        if (ka_random(plain, n) < 0) abort();
        ptrdiff_t e = ka_b64_encode(text, sizeof text, plain, n);
        ptrdiff_t d = ka_b64_decode(back, sizeof back, text, (size_t)e);
        CHECK(e == (ptrdiff_t)KA_B64_ENCODED(n) && d == (ptrdiff_t)n && memcmp(plain, back, n) == 0,
              "decode(encode(%d bytes))", (int)n);
    }
}

static void test_sha256(void)
{
    static const struct {
        const char *in;
        size_t repeat;
        const char *hex;
    } vectors[] = {
        /* FIPS 180-4, NIST CAVP */
        { "", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
        { "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
          1, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
        { "a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" },
    };
    for (size_t i = 0; i < COUNT(vectors); i++) {
        size_t part = strlen(vectors[i].in), n = part * vectors[i].repeat;
        char *in = malloc(n + 1), hex[65];
        unsigned char digest[32];
        if (!in) abort();
        for (size_t k = 0; k < vectors[i].repeat; k++) memcpy(in + k * part, vectors[i].in, part);
        ka_sha256(digest, in, n);
        for (size_t k = 0; k < 32; k++) snprintf(hex + 2 * k, 3, "%02x", digest[k]);
        CHECK(strcmp(hex, vectors[i].hex) == 0, "%.20s x %d: got %s", vectors[i].in,
              (int)vectors[i].repeat, hex);
        free(in);
    }
    if (!ka__sha_available()) {
        skip("sha256 by the processor", "this one has no instructions for it");
        return;
    }
    for (int i = 0; i < 200; i++) {      /* both ways, from the same random state */
        struct { uint32_t h[8]; unsigned char block[64]; } a, b;
        if (ka_random(&a, sizeof a) < 0) abort();
        b = a;
        bool native = ka__sha256_native(a.h, a.block, ka__sha256_k);
        ka__sha256_portable(b.h, b.block, ka__sha256_k);
        CHECK(native && memcmp(a.h, b.h, sizeof a.h) == 0,
              "the processor's and the portable block %d differ", i);
    }
}

/* Each length, with each odd byte at each place. */
static void test_printable(void)
{
    static const unsigned char good[] = { ' ', '!', '0', 'z', '~' },
                               bad[] = { 0, 1, 0x1f, 0x7f, 0x80, 0xa0, 0xff };
    for (size_t n = 1; n < 20; n++) {
        for (size_t at = 0; at < n; at++) {
            char plain[20];
            memset(plain, 'a', sizeof plain);
            for (size_t i = 0; i < COUNT(good) + COUNT(bad); i++) {
                unsigned char byte = i < COUNT(good) ? good[i] : bad[i - COUNT(good)];
                plain[at] = (char)byte;
                char *in = exact(plain, n);
                if (ka__printable(in, n) != (i < COUNT(good)))
                    CHECK(false, "byte %02x at %d of %d", byte, (int)at, (int)n);
                free(in);
            }
        }
    }
    CHECK(ka__printable("", 0), "nothing is printable");
}

static void test_small_things(void)
{
    char a[4] = "abc", b[4] = "abc", c[4] = "abd";
    CHECK(ka_eq_ct(a, b, 3) && !ka_eq_ct(a, c, 3) && ka_eq_ct(a, c, 2), "ka_eq_ct");
    ka_wipe(a, sizeof a);
    CHECK(memcmp(a, "\0\0\0", 4) == 0, "ka_wipe");
    CHECK(ka_is((ka_str){ b, 3 }, "abc") && !ka_is((ka_str){ b, 2 }, "abc") &&
              !ka_is((ka_str){ b, 3 }, "ab"),
          "ka_is");
    CHECK(strcmp(ka_error_text(KA_EFULL), "the keyring is full") == 0 &&
              strcmp(ka_error_text(3), "success") == 0 &&
              strcmp(ka_error_text(-99), "unknown error") == 0,
          "ka_error_text");
    CHECK(ka__resize(NULL, PTRDIFF_MAX / 2, 4) == NULL, "a size that overflows is refused");
    char id[KA_KEY_TEXT + 1], other[KA_KEY_TEXT + 1];
    CHECK(ka_fresh_id(id) == KA_OK && strlen(id) == KA_KEY_TEXT && ka_fresh_id(other) == KA_OK &&
              strcmp(id, other) != 0,
          "ka_fresh_id");
    int64_t before = ka_now_ms();
    ka_sleep_ms(30);
    CHECK(ka_now_ms() - before >= 25, "ka_sleep_ms sleeps");
    ka_sleep_ms(0);
    int64_t us = ka_now_us(), ms = ka_now_ms(), later = ka_now_us();
    CHECK(us / 1000 <= ms && ms <= later / 1000, "one clock: %lld, %lld, %lld", (long long)us,
          (long long)ms, (long long)later);
    char long_arg[KA_MAX_ID + 2];
    memset(long_arg, 'x', sizeof long_arg);
    long_arg[KA_MAX_ID + 1] = 0;
    CHECK(ka_restart(long_arg) == KA_EINVAL && ka_restart("\"") == KA_EINVAL &&
              ka_restart("\n") == KA_EINVAL,
          "ka_restart with what is no argument");
    for (int e = KA_ETHREAD; e < 0; e++)
        CHECK(strcmp(ka_error_text(e), "unknown error") != 0, "error %d has a text", e);
}

/* As the system has it. */
static bool utc(time_t t, struct tm *out)
{
#if defined(_WIN32)
    return gmtime_s(out, &t) == 0;
#else
    return gmtime_r(&t, out) != NULL;
#endif
}

static void test_times(void)
{
    static const struct { int64_t us; const char *want, *why; } times[] = {
        { 0, "1970-01-01T00:00:00.000000Z", "the first" },
        { 1, "1970-01-01T00:00:00.000001Z", "a microsecond" },
        { 86399999999, "1970-01-01T23:59:59.999999Z", "the end of a day" },
        { 86400000000, "1970-01-02T00:00:00.000000Z", "a day" },
        { 31536000000000, "1971-01-01T00:00:00.000000Z", "a year" },
        { 68169600000000, "1972-02-29T00:00:00.000000Z", "a leap year's day" },
        { 94694400000000, "1973-01-01T00:00:00.000000Z", "after a leap year" },
        { 951782400000000, "2000-02-29T00:00:00.000000Z", "2000 is one" },
        { 951868800000000, "2000-03-01T00:00:00.000000Z", "2000 is one" },
        { 1078012800000000, "2004-02-29T00:00:00.000000Z", "2004 is one" },
        { 1763717400123456, "2025-11-21T09:30:00.123456Z", "all digits" },
        { 2147483648000000, "2038-01-19T03:14:08.000000Z", "past 31 bits" },
        { 4107456000000000, "2100-02-28T00:00:00.000000Z", "2100 is none" },
        { 4107542400000000, "2100-03-01T00:00:00.000000Z", "2100 is none" },
        { 32503680000000000, "3000-01-01T00:00:00.000000Z", "gmtime's last on Windows" },
        { 32535216000000000, "3001-01-01T00:00:00.000000Z", "beyond it" },
        { 253402300799999999, "9999-12-31T23:59:59.999999Z", "the last" },
        { 253402300800000000, "9999-12-31T23:59:59.999999Z", "too late" },
        { INT64_MAX, "9999-12-31T23:59:59.999999Z", "too late" },
        { -1, "1970-01-01T00:00:00.000000Z", "too early" },
        { INT64_MIN, "1970-01-01T00:00:00.000000Z", "too early" },
    };
    char out[KA_UTC_TEXT + 1], want[KA_UTC_TEXT + 1];
    for (size_t i = 0; i < COUNT(times); i++) {
        ka_utc_text(out, times[i].us);
        CHECK(strcmp(out, times[i].want) == 0, "%s: got %s, not %s", times[i].why, out,
              times[i].want);
    }
    for (int64_t s = 0; s < 2147483648; s += 86400 * 3 + 7919) {      /* as the system has it */
        struct tm t;
        bool told = utc((time_t)s, &t);
        snprintf(want, sizeof want, "%04u-%02u-%02uT%02u:%02u:%02u.000000Z",
                 (unsigned)(t.tm_year + 1900) % 10000, (unsigned)(t.tm_mon + 1) % 100,
                 (unsigned)t.tm_mday % 100, (unsigned)t.tm_hour % 100, (unsigned)t.tm_min % 100,
                 (unsigned)t.tm_sec % 100);
        ka_utc_text(out, s * 1000000);
        if (!told || strcmp(out, want) != 0) CHECK(false, "got %s, not %s", out, want);
    }
    int64_t now = ka_wall_us() / 1000000;
    CHECK(now >= (int64_t)time(NULL) - 1 && now <= (int64_t)time(NULL) + 1,
          "ka_wall_us is the calendar's");
}

static const subject bytes_topics[] = {
    { "base64", test_base64 }, { "sha256", test_sha256 }, { "printable", test_printable },
    { "small things", test_small_things }, { "times", test_times },
};
