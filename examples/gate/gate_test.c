/* gate_test - the cryptography of gate.c, and its channel, against the RFCs' vectors and what an attacker would try.
     cc -O2 -pthread -I. -o examples/gate/gate_test examples/gate/gate_test.c && examples/gate/gate_test
   The last line counts; exit status 1 if anything failed. The server and the client themselves are tested as processes. */

#define main gate_main
#include "gate.c"      /* NOLINT(bugprone-suspicious-include): its functions are static */
#undef main

static int passed, failed;

static void check(bool right, int line, const char *why)
{
    if (right) passed++;
    else failed++, printf("%s:%d: %s\n", __FILE__, line, why);
}

#define CHECK(right, why) check(right, __LINE__, why)

/* The bytes of hex digits; at most 512. */
typedef struct { unsigned char p[512]; size_t n; } bytes;

static bytes hex(const char *digits)
{
    static const char known[] = "0123456789abcdef";
    bytes b = { .n = strlen(digits) / 2 };
    for (size_t i = 0; i < b.n; i++)
        b.p[i] = (unsigned char)((strchr(known, digits[2 * i]) - known) * 16 +
                                 (strchr(known, digits[2 * i + 1]) - known));
    return b;
}

static bytes text_bytes(const char *text)
{
    bytes b = { .n = strlen(text) };
    memcpy(b.p, text, b.n);
    return b;
}

static bytes series(int first, size_t n)      /* first, first + 1... */
{
    bytes b = { .n = n };
    for (size_t i = 0; i < n; i++) b.p[i] = (unsigned char)((size_t)first + i);
    return b;
}

static bytes repeated(int byte, size_t n)
{
    bytes b = { .n = n };
    memset(b.p, byte, n);
    return b;
}

static bool is(const void *p, size_t n, const char *digits)
{
    bytes want = hex(digits);
    return n == want.n && memcmp(p, want.p, n) == 0;
}

static const char sunscreen[] =
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
static const char ietf[] =
    "Any submission to the IETF intended by the Contributor for publication as all or part of an IETF Internet-Draft or RFC and "
    "any statement made within the context of an IETF activity is considered an \"IETF Contribution\". Such statements include "
    "oral statements in IETF sessions, as well as written and electronic communications made at any time or place, which are "
    "addressed to";
static const char jabberwocky[] =
    "'Twas brillig, and the slithy toves\nDid gyre and gimble in the wabe:\nAll mimsy were the borogoves,\nAnd the mome raths outgrabe.";
static const char drafts[] =
    "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, or obsoleted by other "
    "documents at any time. It is inappropriate to use Internet-Drafts as reference material or to cite them other than as "
    "/\xe2\x80\x9cwork in progress./\xe2\x80\x9d";

/* ---- ChaCha20 ---- */

static void test_quarter_round(void)
{
    uint32_t x[16] = { 0x11111111, 0x01020304, 0x9b8d6f43, 0x01234567 };
    quarter_round(x, 0, 1, 2, 3);
    CHECK(x[0] == 0xea2a92f4 && x[1] == 0xcb1cf8ce && x[2] == 0x4581472e && x[3] == 0x5881c4bb,
          "RFC 8439 s.2.1.1");

    uint32_t state[16] = { 0x879531e0, 0xc5ecf37d, 0x516461b1, 0xc9a62f8a, 0x44c20ef3, 0x3390af7f,
                           0xd9fc690b, 0x2a5f714c, 0x53372767, 0xb00a5631, 0x974c541a, 0x359e9963,
                           0x5c971061, 0x3d631689, 0x2098d9d6, 0x91dbd320 };
    const uint32_t want[16] = { 0x879531e0, 0xc5ecf37d, 0xbdb886dc, 0xc9a62f8a,
                                0x44c20ef3, 0x3390af7f, 0xd9fc690b, 0xcfacafd2,
                                0xe46bea80, 0xb00a5631, 0x974c541a, 0x359e9963,
                                0x5c971061, 0xccc07c79, 0x2098d9d6, 0x91dbd320 };
    quarter_round(state, 2, 7, 8, 13);
    CHECK(memcmp(state, want, sizeof want) == 0, "RFC 8439 s.2.2.1");
}

static const char sunscreen_chacha20[] =
    "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b3571639d624e65152ab"
    "8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab77937365af90bbf74a35be6b40b8eedf2785e42874d";

static void test_chacha20(void)
{
    static const struct {
        const char *key, *nonce;
        uint32_t counter;
        const char *want, *why;
    } blocks[] = {
        { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
          "000000090000004a00000000", 1,
          "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4ed2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
          "RFC 8439 s.2.3.2" },
        { "0000000000000000000000000000000000000000000000000000000000000000",
          "000000000000000000000000", 0,
          "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
          "RFC 8439 A.1 #1" },
        { "0000000000000000000000000000000000000000000000000000000000000000",
          "000000000000000000000000", 1,
          "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
          "RFC 8439 A.1 #2" },
    };
    unsigned char block[64], out[sizeof sunscreen];
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        chacha20_block(block, hex(blocks[i].key).p, blocks[i].counter, hex(blocks[i].nonce).p);
        CHECK(is(block, 64, blocks[i].want), blocks[i].why);
    }
    chacha20_block(block, series(0x80, 32).p, 0, hex("000000000001020304050607").p);
    CHECK(is(block, 32, "8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646"),
          "RFC 8439 s.2.6.2");

    chacha20(out, (const unsigned char *)sunscreen, sizeof sunscreen - 1, series(0, 32).p, 1,
             hex("000000000000004a00000000").p);
    CHECK(is(out, sizeof sunscreen - 1, sunscreen_chacha20), "RFC 8439 s.2.4.2");
}

/* ---- Poly1305 ---- */

static void test_poly1305(void)
{
    static const char *const zero = "00000000000000000000000000000000",
                             *const ones = "ffffffffffffffffffffffffffffffff",
                             *const one = "01000000000000000000000000000000",
                             *const two = "02000000000000000000000000000000",
                             *const long_r = "01000000000000000400000000000000",
                             *const s3 = "36e5f6b5c5e06070f0efca96227a863e";
    const struct { const char *r, *s, *in, *text, *want, *why; } rows[] = {
        { "85d6be7857556d337f4452fe42d506a8", "0103808afb0db2fd4abff6af4149f51b", NULL, "Cryptographic Forum Research Group",
          "a8061dc1305136c6c22b8baf0c0127a9", "RFC 8439 s.2.5.2" },
        { zero, zero, NULL, ietf, zero, "RFC 8439: all zero (A.3 #1 in kind)" },
        { zero, s3, NULL, ietf, s3, "RFC 8439 A.3 #2" },
        { s3, zero, NULL, ietf, "f3477e7cd95417af89a6b8794c310cf0", "RFC 8439 A.3 #3" },
        { "1c9240a5eb55d38af333888604f6b5f0", "473917c1402b80099dca5cbc207075c0", NULL, jabberwocky, "4541669a7eaaee61e708dc7cbcc5eb62",
          "RFC 8439 A.3 #4" },
        { two, zero, ones, NULL, "03000000000000000000000000000000", "RFC 8439 A.3 #5: not fully reduced" },
        { two, ones, two, NULL, "03000000000000000000000000000000", "RFC 8439 A.3 #6: the sum with s passes 2^128" },
        { one, zero, "fffffffffffffffffffffffffffffffff0ffffffffffffffffffffffffffffff11000000000000000000000000000000", NULL,
          "05000000000000000000000000000000", "RFC 8439 A.3 #7: a limb of ones, and a carry" },
        { one, zero, "fffffffffffffffffffffffffffffffffbfefefefefefefefefefefefefefefe01010101010101010101010101010101", NULL, zero,
          "RFC 8439 A.3 #8: 2^130 - 5" },
        { two, zero, "fdffffffffffffffffffffffffffffff", NULL, "faffffffffffffffffffffffffffffff", "RFC 8439 A.3 #9: 2^130 - 6" },
        { long_r, zero, "e33594d7505e43b900000000000000003394d7505e4379cd01000000000000000000000000000000000000000000000001000000000000000000000000000000",
          NULL, "14000000000000005500000000000000", "RFC 8439 A.3 #10" },
        { long_r, zero, "e33594d7505e43b900000000000000003394d7505e4379cd010000000000000000000000000000000000000000000000", NULL,
          "13000000000000000000000000000000", "RFC 8439 A.3 #11" },
        { ones, ones, "", NULL, ones, "no text: s" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bytes in = rows[i].text ? text_bytes(rows[i].text) : hex(rows[i].in), r = hex(rows[i].r),
              s = hex(rows[i].s);
        unsigned char key[32], tag[TAG_BYTES];
        poly1305 p;
        memcpy(key, r.p, 16);
        memcpy(key + 16, s.p, 16);
        poly1305_init(&p, key);
        poly1305_add(&p, in.p, in.n, false);
        poly1305_end(&p, tag);
        CHECK(is(tag, sizeof tag, rows[i].want), rows[i].why);
    }
}

/* ---- AEAD ---- */

static void test_aead_vectors(void)
{
    static const struct { const char *key, *nonce, *aad, *in, *out, *why; } rows[] = {
        { "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7", sunscreen,
          "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
          "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
          "RFC 8439 s.2.8.2" },
        { "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0", "000000000102030405060708", "f33388860000000000004e91", drafts,
          "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf"
          "332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c8559797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4"
          "b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a"
          "0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29"
          "a6ad5cb4022b02709beead9d67890cbb22392336fea1851f38", "RFC 8439 A.5" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bytes key = hex(rows[i].key), nonce = hex(rows[i].nonce), aad = hex(rows[i].aad),
              in = text_bytes(rows[i].in);
        unsigned char out[512], back[512];
        aead_seal(out, key.p, nonce.p, aad.p, aad.n, in.p, in.n);
        CHECK(is(out, in.n + TAG_BYTES, rows[i].out), rows[i].why);
        CHECK(aead_open(back, key.p, nonce.p, aad.p, aad.n, out, in.n + TAG_BYTES) &&
                  memcmp(back, in.p, in.n) == 0,
              rows[i].why);
    }
}

/* Is it refused, and nothing written? */
static bool refused(const bytes *key, const bytes *nonce, const bytes *aad, const bytes *sealed)
{
    unsigned char out[512];
    memset(out, 0xa5, sizeof out);
    bool opened_it = aead_open(out, key->p, nonce->p, aad->p, aad->n, sealed->p, sealed->n);
    for (size_t i = 0; i < sizeof out; i++)
        if (out[i] != 0xa5) return false;
    return !opened_it;
}

static void test_aead_forged(void)
{
    const bytes key = series(7, KEY_BYTES), nonce = series(100, NONCE_BYTES), aad = series(50, 4);
    static const size_t lengths[] = { 0, 1, 15, 16, 17, 63, 64, 65, 130 };
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        bytes in = series(1, lengths[k]), good = { .n = lengths[k] + TAG_BYTES }, bad;
        aead_seal(good.p, key.p, nonce.p, aad.p, aad.n, in.p, in.n);
        for (size_t bit = 0; bit < good.n * 8; bit++) {      /* of the ciphertext and of the tag */
            bad = good;
            bad.p[bit / 8] ^= (unsigned char)(1 << bit % 8);
            CHECK(refused(&key, &nonce, &aad, &bad),
                  bit / 8 < in.n ? "a bit of the ciphertext flipped" : "a bit of the tag flipped");
        }
        for (bad = good; bad.n-- > 0; ) CHECK(refused(&key, &nonce, &aad, &bad), "cut");
        bad = good, bad.p[bad.n++] = 0;
        CHECK(refused(&key, &nonce, &aad, &bad), "a byte more");
        bad = good, memset(bad.p + in.n, 0, TAG_BYTES);
        CHECK(refused(&key, &nonce, &aad, &bad), "a tag of zeros");
        bad = good, memset(bad.p + in.n, 0xff, TAG_BYTES);
        CHECK(refused(&key, &nonce, &aad, &bad), "a tag of ones");
        bad = good;
        for (size_t i = 0; i < TAG_BYTES; i++) bad.p[in.n + i] ^= 0xff;
        CHECK(refused(&key, &nonce, &aad, &bad), "all of the tag flipped");
        for (size_t bit = 0; bit < 8 * KEY_BYTES; bit++) {
            bad = key, bad.p[bit / 8] ^= (unsigned char)(1 << bit % 8);
            CHECK(refused(&bad, &nonce, &aad, &good), "another key");
        }
        for (size_t bit = 0; bit < 8 * NONCE_BYTES; bit++) {
            bad = nonce, bad.p[bit / 8] ^= (unsigned char)(1 << bit % 8);
            CHECK(refused(&key, &bad, &aad, &good), "another nonce");
        }
        for (size_t bit = 0; bit < 8 * aad.n; bit++) {
            bad = aad, bad.p[bit / 8] ^= (unsigned char)(1 << bit % 8);
            CHECK(refused(&key, &nonce, &bad, &good), "other additional data");
        }
        bad = aad, bad.n--;
        CHECK(refused(&key, &nonce, &bad, &good), "additional data cut");
        bad = aad, bad.p[bad.n++] = 0;
        CHECK(refused(&key, &nonce, &bad, &good),
              "additional data with a zero more: padding is counted");
        unsigned char out[512];
        CHECK(aead_open(out, key.p, nonce.p, aad.p, aad.n, good.p, good.n) &&
                  memcmp(out, in.p, in.n) == 0,
              "and what was sealed opens");
    }
}

static void test_aead_lengths(void)
{
    const bytes key = series(3, KEY_BYTES), nonce = series(9, NONCE_BYTES), all = series(0, 300);
    for (size_t n = 0; n <= 300; n++) {
        unsigned char sealed[320], out[300], in_place[320];
        aead_seal(sealed, key.p, nonce.p, all.p, n % 37, all.p, n);
        bool right = aead_open(out, key.p, nonce.p, all.p, n % 37, sealed, n + TAG_BYTES) &&
                     memcmp(out, all.p, n) == 0;
        memcpy(in_place, sealed, n + TAG_BYTES);
        right = right &&
                aead_open(in_place, key.p, nonce.p, all.p, n % 37, in_place, n + TAG_BYTES) &&
                memcmp(in_place, all.p, n) == 0;
        CHECK(right, "opened is what was sealed");
    }
}

/* ---- HMAC and HKDF ---- */

static void test_hmac(void)
{
    const bytes count = series(1, 25);
    const struct { bytes key, in; const char *want, *why; } rows[] = {
        { repeated(0x0b, 20), text_bytes("Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", "RFC 4231 case 1" },
        { text_bytes("Jefe"), text_bytes("what do ya want for nothing?"), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", "RFC 4231 case 2" },
        { repeated(0xaa, 20), repeated(0xdd, 50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe", "RFC 4231 case 3" },
        { count, repeated(0xcd, 50), "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b", "RFC 4231 case 4" },
        { repeated(0x0c, 20), text_bytes("Test With Truncation"), "a3b6167473100ee06e0c796c2955552b", "RFC 4231 case 5, of which it gives 16 bytes" },
        { repeated(0xaa, 131), text_bytes("Test Using Larger Than Block-Size Key - Hash Key First"),
          "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54", "RFC 4231 case 6" },
        { repeated(0xaa, 131), text_bytes("This is a test using a larger than block-size key and a larger than block-size data. The key needs "
          "to be hashed before being used by the HMAC algorithm."), "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2", "RFC 4231 case 7" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char out[HASH_BYTES];
        hmac_sha256(out, rows[i].key.p, rows[i].key.n, rows[i].in.p, rows[i].in.n);
        CHECK(is(out, strlen(rows[i].want) / 2, rows[i].want), rows[i].why);
    }
}

static void test_hkdf(void)
{
    const struct { bytes secret, salt, info; const char *want, *why; } rows[] = {
        { repeated(0x0b, 22), series(0, 13), series(0xf0, 10), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
          "RFC 5869 A.1" },
        { series(0, 80), series(0x60, 80), series(0xb0, 80), "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e59"
          "0e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87", "RFC 5869 A.2" },
        { repeated(0x0b, 22), series(0, 0), series(0, 0), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
          "RFC 5869 A.3" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char out[82];
        size_t n = strlen(rows[i].want) / 2;
        hkdf_sha256(out, n, rows[i].salt.p, rows[i].salt.n, rows[i].secret.p, rows[i].secret.n,
                    rows[i].info.p, rows[i].info.n);
        CHECK(is(out, n, rows[i].want), rows[i].why);
    }
}

/* ---- the channel ---- */

static const char token[] = "df57ab35b16d7cec24d0440e1e151407cacddc269166ba9b8592d02aae22f39d";
static const char ping[] = "{\"url\": \"/ping\"}";

/* A frame without its length, which is what comes out of ka_frames. */
static size_t seal(channel *c, char *frame, const char *text)
{
    char whole[LENGTH_BYTES + 64];
    size_t n = channel_seal(c, whole, (ka_str){ text, strlen(text) }) - LENGTH_BYTES;
    CHECK(memcmp(whole, (char[]){ 0, 0, 0, (char)n }, LENGTH_BYTES) == 0, "its length goes ahead");
    memcpy(frame, whole + LENGTH_BYTES, n);
    return n;
}

static bool opens(channel *c, const char *frame, size_t n, const char *text)
{
    char out[128];
    ptrdiff_t got = channel_open(c, out, (ka_str){ frame, n });
    return got >= 0 && ka_is((ka_str){ out, (size_t)got }, text);
}

/* By Python's cryptography package; so is what the README says of the frames. */
static void test_channel_vectors(void)
{
    channel here, there;      /* the client's and the server's */
    char frame[64] = { 0 };
    size_t n;
    channel_init(&here, token, false);
    channel_init(&there, token, true);
    CHECK(is(here.seal_key, KEY_BYTES,
             "55472e27ad3e3788d9dd5ed87cceba9607b46dc81f24215cc02e074ba18e2801") &&
              memcmp(here.seal_key, there.open_key, KEY_BYTES) == 0,
          "client to server");
    CHECK(is(there.seal_key, KEY_BYTES,
             "b3d17fbd214032c0106d6f8b4ecb41b662a7a9819db3a1c00d518bf4b2c51fb4") &&
              memcmp(there.seal_key, here.open_key, KEY_BYTES) == 0,
          "server to client");
    n = seal(&here, frame, ping);
    CHECK(is(frame, n, "3c0a2f413bf7e3dfd9f7f9ec1a7c32f1daf7938cd31fb323317042448bdccf2f"),
          "the client's first frame");
    n = seal(&here, frame, ping);
    CHECK(is(frame, n, "fe081e9ea681445e83d07fab0556e131438ec99a9c449cb31fa46f4b129a93ca"),
          "its second, of the same text");
    n = seal(&there, frame, "{\"code\":200}");
    CHECK(is(frame, n, "897aa14e73a68ff1f23fc02ce79afc9ca9bad5e9724a4071e2120343"),
          "the server's first frame");
}

static void test_channel(void)
{
    channel here, there;
    char one[64], two[64], three[64], answer[64], bad[64];
    channel_init(&here, token, false);
    channel_init(&there, token, true);
    size_t n = seal(&here, one, ping), answer_n;
    CHECK(n == strlen(ping) + TAG_BYTES, "a frame is its text and a tag");
    CHECK(seal(&here, two, ping) == n && seal(&here, three, ping) == n && memcmp(one, two, n) != 0,
          "the same text is another frame each time");
    CHECK(!opens(&here, one, n, ping), "reflection: the client's own frame, sent back");
    CHECK(!opens(&there, two, n, ping), "the second frame before the first");
    CHECK(opens(&there, one, n, ping), "the first frame; those that failed moved nothing");
    CHECK(!opens(&there, one, n, ping), "replay: the first frame again");
    CHECK(!opens(&there, three, n, ping), "the third frame, the second left out");
    for (size_t cut = 0; cut < n; cut++)
        CHECK(!opens(&there, two, cut, ping), "cut, so its length is another one");
    for (size_t bit = 0; bit < 8 * n; bit++) {
        memcpy(bad, two, n);
        bad[bit / 8] = (char)(bad[bit / 8] ^ 1 << bit % 8);
        CHECK(!opens(&there, bad, n, ping), "a bit flipped");
    }
    CHECK(opens(&there, two, n, ping) && opens(&there, three, n, ping), "in their order all open");

    answer_n = seal(&there, answer, "{}");
    CHECK(!opens(&there, answer, answer_n, "{}"), "reflection: the server's own frame, sent back");
    CHECK(opens(&here, answer, answer_n, "{}"), "the answer");
    n = seal(&here, one, "");
    CHECK(n == TAG_BYTES && opens(&there, one, n, ""), "an empty text");

    char other[] = "df57ab35b16d7cec24d0440e1e151407cacddc269166ba9b8592d02aae22f39c";
    channel_init(&there, other, true);
    channel_init(&here, token, false);
    n = seal(&here, one, ping);
    CHECK(!opens(&there, one, n, ping), "another token");

    channel_init(&there, token, true);
    here.sealed = there.opened = 0xffffffff;      /* the number has more than 32 bits */
    n = seal(&here, one, ping);
    CHECK(opens(&there, one, n, ping) && here.sealed == 0x100000000, "frame 2^32 - 1");
    n = seal(&here, one, ping);
    CHECK(opens(&there, one, n, ping), "frame 2^32");
    there.opened = 0;
    n = seal(&here, one, ping);
    CHECK(!opens(&there, one, n, ping), "frame 2^32 + 1 is not frame 1");
}

int main(void)
{
    test_quarter_round();
    test_chacha20();
    test_poly1305();
    test_aead_vectors();
    test_aead_forged();
    test_aead_lengths();
    test_hmac();
    test_hkdf();
    test_channel_vectors();
    test_channel();
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed != 0;
}
