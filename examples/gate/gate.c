/* gate - JSON over TCP behind a token: a client sends {"url": "/connect", "hostname": "..."}, is
   given a token, and calls other URLs with it. To add a URL, write its function and a line in
   `routes`.
     cc -O2 -pthread -I. -o examples/gate/gate examples/gate/gate.c
     examples/gate/gate server &
     examples/gate/gate client 127.0.0.1 7000 /ping       prints {"code": 200, "message": "pong"} */

#define KA_MAX_BODY 65536      /* bytes of a package, and of an answer */
#define KEYAUTH_IMPLEMENTATION
#define KEYAUTH_STATIC
#include "keyauth.h"
#include "ext/input.h"
#include "ext/lookup.h"
#include "ext/cli.h"
#include "ext/file.h"
#include "ext/framing.h"
#include "ext/json.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LENGTH_BYTES = 4, KEY_BYTES = 32, NONCE_BYTES = 12, TAG_BYTES = 16, HASH_BYTES = 32,
    TOKEN_TEXT = 64
};
enum { MAX_TEXT = KA_MAX_BODY - TAG_BYTES };       /* bytes of a text; a frame has a tag, too */
enum { MAX_HOSTNAME = 255 };

/* ================================================================================================
   ChaCha20-Poly1305 (RFC 8439) and HKDF-SHA-256 (RFC 5869), written from these. No branch and no
   index depends on a secret; what was computed from one is wiped. */

static uint32_t load32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store(unsigned char *p, size_t n, uint64_t x)
{
    for (size_t i = 0; i < n; i++, x >>= 8) p[i] = (unsigned char)(x & 255);
}

static uint32_t rotated(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void quarter_round(uint32_t x[16], int a, int b, int c, int d)      /* s.2.1 */
{
    x[a] += x[b]; x[d] = rotated(x[d] ^ x[a], 16);
    x[c] += x[d]; x[b] = rotated(x[b] ^ x[c], 12);
    x[a] += x[b]; x[d] = rotated(x[d] ^ x[a], 8);
    x[c] += x[d]; x[b] = rotated(x[b] ^ x[c], 7);
}

static void chacha20_block(unsigned char out[64], const unsigned char key[KEY_BYTES],
                           uint32_t counter, const unsigned char nonce[NONCE_BYTES]) /* s.2.3 */
{
    uint32_t start[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 }, x[16];
    for (int i = 0; i < 8; i++) start[4 + i] = load32(key + 4 * i);
    start[12] = counter;
    for (int i = 0; i < 3; i++) start[13 + i] = load32(nonce + 4 * i);
    memcpy(x, start, sizeof x);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 4; i++) quarter_round(x, i, 4 + i, 8 + i, 12 + i);
        for (int i = 0; i < 4; i++)
            quarter_round(x, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
    }
    for (int i = 0; i < 16; i++) store(out + 4 * i, 4, x[i] + start[i]);
    ka_wipe(start, sizeof start);
    ka_wipe(x, sizeof x);
}

/* out may be in. The counter does not wrap: a frame has 1,024 blocks. */
static void chacha20(unsigned char *out, const unsigned char *in, size_t n,
                     const unsigned char key[KEY_BYTES], uint32_t counter,
                     const unsigned char nonce[NONCE_BYTES]) /* s.2.4 */
{
    unsigned char block[64];
    for (size_t i = 0; i < n; i++) {
        if (i % 64 == 0) chacha20_block(block, key, counter++, nonce);
        out[i] = in[i] ^ block[i % 64];
    }
    ka_wipe(block, sizeof block);
}

/* Poly1305's numbers have 130 bits: five limbs of 26 bits, the lowest first, so that sums of their
   products fit in 64. */
typedef struct { uint32_t r[5], h[5]; unsigned char s[16]; } poly1305;

enum { LIMB = 0x3ffffff };

static void poly1305_split(uint32_t limb[5], const unsigned char number[17])
{
    for (int i = 0; i < 5; i++) limb[i] = load32(number + 26 * i / 8) >> 26 * i % 8 & LIMB;
}

static void poly1305_init(poly1305 *p, const unsigned char key[32])        /* s.2.5 */
{
    unsigned char r[17] = { 0 };
    memcpy(r, key, 16);
    for (int i = 3; i < 16; i += 4) r[i] &= 15;
    for (int i = 4; i < 16; i += 4) r[i] &= 252;
    poly1305_split(p->r, r);
    memset(p->h, 0, sizeof p->h);
    memcpy(p->s, key + 16, 16);
    ka_wipe(r, sizeof r);
}

/* For each 16 bytes, h = (h + number) * r mod 2^130 - 5: what is above 2^130 comes back five times
   below. A limb of r is below 2^26, and a limb of h below 2^27 + 2^10. So a sum of five products,
   with its fives and its carry, is below 2^58. A last block that is short ends by a bit of its own
   (s.2.5), or is padded with zeros (s.2.8). */
static void poly1305_add(poly1305 *p, const unsigned char *in, size_t n, bool padded)
{
    unsigned char number[17];
    uint32_t limb[5];
    uint64_t sum[5];
    for (size_t size; n; in += size, n -= size) {
        size = n < 16 ? n : 16;
        memset(number, 0, sizeof number);
        memcpy(number, in, size);
        number[padded ? 16 : size] = 1;
        poly1305_split(limb, number);
        for (int i = 0; i < 5; i++) p->h[i] += limb[i];
        memset(sum, 0, sizeof sum);
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 5; j++)
                sum[i] += (uint64_t)p->h[j] * (j <= i ? p->r[i - j] : 5 * p->r[5 + i - j]);
        uint64_t carry = 0;
        for (int i = 0; i < 5; i++, carry >>= 26) p->h[i] = (uint32_t)((carry += sum[i]) & LIMB);
        carry = p->h[0] + 5 * carry;
        p->h[0] = (uint32_t)(carry & LIMB);
        p->h[1] += (uint32_t)(carry >> 26);
    }
    ka_wipe(number, sizeof number);
    ka_wipe(limb, sizeof limb);
    ka_wipe(sum, sizeof sum);
}

static void poly1305_end(poly1305 *p, unsigned char tag[TAG_BYTES])
{
    uint32_t minus[5], carry = 0;
    uint64_t bits = 0, sum = 0;
    /* After this each limb is below 2^26, though h may be 2^130 - 5 or more. */
    for (int pass = 0; pass < 2; pass++, carry *= 5)
        for (int i = 0; i < 5; i++, carry >>= 26) p->h[i] = (carry += p->h[i]) & LIMB;
    /* h - (2^130 - 5) is h + 5 - 2^130. That is the result, if h + 5 reaches 2^130. */
    carry = 5;
    for (int i = 0; i < 5; i++, carry >>= 26) minus[i] = (carry += p->h[i]) & LIMB;
    for (int i = 0; i < 5; i++) p->h[i] ^= (p->h[i] ^ minus[i]) & (0 - carry);
    for (int i = 0, have = 0, limb = 0; i < 4; i++, have -= 32, bits >>= 32) {
        for (; have < 32; have += 26) bits |= (uint64_t)p->h[limb++] << have;
        sum += (bits & 0xffffffff) + load32(p->s + 4 * i);
        store(tag + 4 * i, 4, sum);
        sum >>= 32;
    }
    ka_wipe(p, sizeof *p);
    ka_wipe(minus, sizeof minus);
}

static void aead_tag(unsigned char tag[TAG_BYTES], const unsigned char key[KEY_BYTES],
                     const unsigned char nonce[NONCE_BYTES], const unsigned char *aad, size_t aad_n,
                     const unsigned char *sealed, size_t n) /* s.2.8 */
{
    unsigned char block[64], sizes[16];
    poly1305 p;
    chacha20_block(block, key, 0, nonce);
    poly1305_init(&p, block);
    poly1305_add(&p, aad, aad_n, true);
    poly1305_add(&p, sealed, n, true);
    store(sizes, 8, aad_n);
    store(sizes + 8, 8, n);
    poly1305_add(&p, sizes, sizeof sizes, true);
    poly1305_end(&p, tag);
    ka_wipe(block, sizeof block);
}

/* Writes n + TAG_BYTES. */
static void aead_seal(unsigned char *out, const unsigned char key[KEY_BYTES],
                      const unsigned char nonce[NONCE_BYTES], const unsigned char *aad,
                      size_t aad_n, const unsigned char *in, size_t n)
{
    chacha20(out, in, n, key, 1, nonce);
    aead_tag(out + n, key, nonce, aad, aad_n, out, n);
}

/* Writes n - TAG_BYTES, or, if it is not what was sealed, nothing. */
static bool aead_open(unsigned char *out, const unsigned char key[KEY_BYTES],
                      const unsigned char nonce[NONCE_BYTES], const unsigned char *aad,
                      size_t aad_n, const unsigned char *in, size_t n)
{
    unsigned char tag[TAG_BYTES];
    if (n < TAG_BYTES) return false;
    n -= TAG_BYTES;
    aead_tag(tag, key, nonce, aad, aad_n, in, n);
    bool right = ka_eq_ct(tag, in + n, TAG_BYTES);
    ka_wipe(tag, sizeof tag);           /* the right one for what somebody else made */
    if (right) chacha20(out, in, n, key, 1, nonce);
    return right;
}

enum { HMAC_MAX = 256 };                /* bytes of a text; all that HKDF needs */

/* RFC 2104. */
static void hmac_sha256(unsigned char out[HASH_BYTES], const void *key, size_t key_n,
                        const void *text, size_t n)
{
    unsigned char pad[64] = { 0 }, work[64 + HMAC_MAX];
    KA_ASSERT(n <= HMAC_MAX);
    if (key_n > sizeof pad) ka_sha256(pad, key, key_n);
    else memcpy(pad, key, key_n);
    for (int i = 0; i < 64; i++) work[i] = pad[i] ^ 0x36;
    memcpy(work + 64, text, n);
    ka_sha256(out, work, 64 + n);
    for (int i = 0; i < 64; i++) work[i] = pad[i] ^ 0x5c;
    memcpy(work + 64, out, HASH_BYTES);
    ka_sha256(out, work, 64 + HASH_BYTES);
    ka_wipe(pad, sizeof pad);
    ka_wipe(work, sizeof work);
}

static void hkdf_sha256(unsigned char *out, size_t n, const void *salt, size_t salt_n,
                        const void *secret, size_t secret_n, const void *info, size_t info_n)
{
    unsigned char extracted[HASH_BYTES];
    unsigned char work[HMAC_MAX];            /* the block before, info, the block's number */
    size_t before = 0;
    KA_ASSERT(n <= 255 * HASH_BYTES && info_n < HMAC_MAX - HASH_BYTES);
    hmac_sha256(extracted, salt, salt_n, secret, secret_n);
    for (unsigned char number = 1; n; number++) {
        size_t size = n < HASH_BYTES ? n : HASH_BYTES;
        memcpy(work + before, info, info_n);
        work[before + info_n] = number;
        hmac_sha256(work, extracted, sizeof extracted, work, before + info_n + 1);
        before = HASH_BYTES;
        memcpy(out, work, size);
        out += size;
        n -= size;
    }
    ka_wipe(extracted, sizeof extracted);
    ka_wipe(work, sizeof work);
}

/* ================================================================================================
   A channel: what both sides keep when the traffic after /connect is encrypted. A message is a
   frame of ka_frames: a length of 4 bytes, the ciphertext, the tag. The additional data is the
   length, so that the tag speaks for all that was sent. The nonce is 4 zeros and the number of the
   message in its direction, which is not sent. So a frame opens only in its turn. Each direction
   has a key of its own. The number has 64 bits, and no connection lives to see it wrap. */

typedef struct {
    unsigned char seal_key[KEY_BYTES], open_key[KEY_BYTES];
    uint64_t      sealed, opened;            /* messages so far */
} channel;

static void channel_init(channel *c, const char token[TOKEN_TEXT], bool server)
{
    static const char salt[] = "keyauth gate 1";
    static const char up[] = "client to server", down[] = "server to client";
    hkdf_sha256(server ? c->open_key : c->seal_key, KEY_BYTES, salt, sizeof salt - 1, token,
                TOKEN_TEXT, up, sizeof up - 1);
    hkdf_sha256(server ? c->seal_key : c->open_key, KEY_BYTES, salt, sizeof salt - 1, token,
                TOKEN_TEXT, down, sizeof down - 1);
    c->sealed = c->opened = 0;
}

static void channel_terms(unsigned char nonce[NONCE_BYTES], unsigned char length[LENGTH_BYTES],
                          uint64_t number, size_t frame)
{
    store(nonce + 4, 8, number);
    for (int i = 0; i < LENGTH_BYTES; i++) length[i] = (unsigned char)(frame >> (24 - 8 * i) & 255);
}

/* Writes the frame, and returns its bytes: LENGTH_BYTES + text.n + TAG_BYTES. */
static size_t channel_seal(channel *c, char *out, ka_str text)
{
    unsigned char nonce[NONCE_BYTES] = { 0 }, *length = (unsigned char *)out;
    channel_terms(nonce, length, c->sealed++, text.n + TAG_BYTES);
    aead_seal(length + LENGTH_BYTES, c->seal_key, nonce, length, LENGTH_BYTES,
              (const unsigned char *)text.p, text.n);
    return LENGTH_BYTES + text.n + TAG_BYTES;
}

/* Open a frame, which is without its length here. Returns the bytes of the text, frame.n -
   TAG_BYTES; or -1: forged, replayed, out of order, or cut. Then end the connection. */
static ptrdiff_t channel_open(channel *c, char *out, ka_str frame)
{
    unsigned char nonce[NONCE_BYTES] = { 0 }, length[LENGTH_BYTES] = { 0 };
    channel_terms(nonce, length, c->opened, frame.n);
    if (!aead_open((unsigned char *)out, c->open_key, nonce, length, LENGTH_BYTES,
                   (const unsigned char *)frame.p, frame.n))
        return -1;
    c->opened++;
    return (ptrdiff_t)frame.n - TAG_BYTES;
}

/* ================================================================================================
   What server and client share: how they are called */

enum {
    EXIT_DONE = 0, EXIT_SYSTEM = 1, EXIT_USAGE = 2, EXIT_OFFLINE = 3, EXIT_REFUSED = 4,
    EXIT_PROTOCOL = 5
};

static const char usage[] =
    "usage: gate server [--ip 127.0.0.1] [--port 7000] [--many] [--token-file FILE]\n"
    "                   [--idle SECONDS]\n"
    "       gate client [--encrypt] [--hostname NAME] HOST PORT [URL [FIELD=VALUE...]]\n"
    "       gate --help | --version\n"
    "\n"
    "server: gives each client a token, and answers only requests with that token.\n"
    "  --ip IP,...        listen on these addresses, or on those of a host's name (default\n"
    "                     127.0.0.1)\n"
    "  --port PORT        the port (default 7000); 0: the system chooses one\n"
    "  --many             serve any number of clients at a time (default: one)\n"
    "  --token-file FILE  keep the newest token in FILE (default app/data/connection/TOKEN)\n"
    "  --idle SECONDS     disconnect a client that is silent for so long (default 600); 0: never\n"
    "\n"
    "client: asks for a token, calls URL with the token, and prints the answer. Without a URL the\n"
    "client reads lines from stdin. A line is URL FIELD=VALUE..., cut at its spaces; or a JSON\n"
    "object, or a Python dict, with a \"url\". If a VALUE is JSON or a Python literal (7, true,\n"
    "[1], \"7\"), it is sent as such. Any other VALUE is sent as a string.\n"
    "  --encrypt          encrypt all that follows the token\n"
    "  --hostname NAME    the client's name (default $HOSTNAME or $COMPUTERNAME)\n"
    "\n"
    "Exit status: 0 server: stopped by Ctrl+C or SIGTERM; client: every answer's code was 200.\n"
    "1 could not run. 2 wrong usage. 3 the server is offline, or closed the connection. 4 an\n"
    "answer's code was not 200. 5 an answer made no sense.\n";

static ka_str str(const char *text) { return (ka_str){ text, strlen(text) }; }

#define fail(status, ...) ka_fail(status, "gate: " __VA_ARGS__)
#define note(...)         ka_say(2, "gate: " __VA_ARGS__)

/* ================================================================================================
   Server */

typedef struct gate gate;

typedef struct {
    gate         *gate;
    uint64_t      conn;
    int64_t       heard_ms;
    char          ip[KA_END_TEXT + 1];
    bool          authorised, leaving;       /* has a token; close after this answer */
    bool          keyed, encrypted;          /* has keys; they are in use */
    unsigned char digest[HASH_BYTES];        /* of the token, which isn't kept */
    channel       channel;
} session;

struct gate {
    const char *ip, *token_file;
    long long   port, idle_s;
    bool        many;
    ka_server  *server;
    ka_listeners listeners;
    session   **sessions;                    /* by ka_conn_index; NULL: none */
    size_t      room, count;
    uint64_t    token_conn;                  /* whose token the file has, */
    bool        token_kept;                  /* if it has one */
    char package[KA_MAX_BODY], answer[KA_MAX_BODY], sealed[LENGTH_BYTES + KA_MAX_BODY],
        name[KA_MAX_BODY + 1];
};

/* Write the message of an answer. Returns the code, for the route to return. */
static int say(ka_json_out *answer, int code, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ka_json_put(answer, "message", str(text));
    return code;
}

/* Find a field that has to be there, once, and a string. 200; or the answer says what is wrong. */
static int string_field(const ka_json *package, const char *name, ka_json *value,
                        ka_json_out *answer)
{
    int r = ka_json_find(package, name, value);
    if (r == KA_ENOTFOUND) return say(answer, 400, "%s is missing", name);
    if (r < 0) return say(answer, 400, "%s is there more than once", name);
    return value->kind == KA_STRING ? 200 : say(answer, 400, "%s has to be a string", name);
}

/* SHA-256 over a JSON object with the client's address and name, the time, and, since who knows
   these could compute it, 32 random bytes. KA_OK or KA_ERANDOM. */
static int make_token(char token[TOKEN_TEXT], const char *ip, ka_str hostname)
{
    unsigned char random[32], digest[HASH_BYTES];
    char text[6 * MAX_HOSTNAME + 256], hex[2 * sizeof random], utc[KA_UTC_TEXT + 1];
    ka_json_out w = { .p = text, .cap = sizeof text };
    if (ka_random(random, sizeof random) < 0) return KA_ERANDOM;
    ka_hex_encode(hex, random, sizeof random);
    ka_utc_text(utc, ka_wall_us());
    utc[10] = ' ';                           /* 2026-11-21 09:30:00.123456 */
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put(&w, "ip", str(ip));
    ka_json_put(&w, "hostname", hostname);
    ka_json_put(&w, "time_stamp", (ka_str){ utc, KA_UTC_TEXT - 1 });
    ka_json_put(&w, "random", (ka_str){ hex, sizeof hex });
    ka_json_close(&w);
    KA_ASSERT(!w.error);
    ka_sha256(digest, text, w.n);
    ka_hex_encode(token, digest, sizeof digest);
    ka_wipe(random, sizeof random);
    ka_wipe(hex, sizeof hex);
    ka_wipe(text, sizeof text);
    ka_wipe(digest, sizeof digest);
    return KA_OK;
}

/* May the token file be replaced or removed? It may if it is empty, a token, or not there. KA_OK;
   KA_ESYNTAX: it holds something else; or what ka_file_get says. */
static int token_file_look(const gate *g)
{
    char text[TOKEN_TEXT + 2];
    ptrdiff_t n = ka_file_get(g->token_file, text, sizeof text), digits = 0;
    if (n == KA_ENOTFOUND) return KA_OK;
    if (n < 0) return (int)n;
    if (n == TOKEN_TEXT + 1 && text[TOKEN_TEXT] == '\n') n--;
    while (digits < n && strchr("0123456789abcdefABCDEF", text[digits]) && text[digits]) digits++;
    ka_wipe(text, sizeof text);
    return digits == n && (n == 0 || n == TOKEN_TEXT) ? KA_OK : KA_ESYNTAX;
}

static int token_file_remove(const gate *g)
{
    int r = token_file_look(g);
    return r == KA_OK ? ka_file_remove(g->token_file) : r;
}

static void void_token(session *s)
{
    gate *g = s->gate;
    s->authorised = false;
    ka_wipe(s->digest, sizeof s->digest);
    if (!g->token_kept || g->token_conn != s->conn) return;
    int r = token_file_remove(g);
    if (r < 0) {
        char why[KA_TROUBLE_TEXT];
        note("cannot remove %s: %s; its token is void all the same", g->token_file,
             ka_file_trouble(why, g->token_file, r, 0));
    }
    g->token_kept = r < 0;                   /* then at exit */
}

/* ---- routes: each writes an answer, and returns 200, 400 or 500 ---- */

static int url_connect(session *s, const ka_json *package, ka_json_out *answer)
{
    gate *g = s->gate;
    ka_json field;
    char hostname[MAX_HOSTNAME], token[TOKEN_TEXT];
    if (s->authorised) return say(answer, 400, "connected already; /disconnect comes first");
    int r = string_field(package, "hostname", &field, answer);
    if (r != 200) return r;
    ptrdiff_t n = ka_json_string(hostname, sizeof hostname, &field);
    if (n < 1) return say(answer, 400, "hostname has to be 1 to %d bytes long", MAX_HOSTNAME);
    r = ka_json_find(package, "encrypt", &field);
    if (r == KA_EINVAL || (r == KA_OK && field.kind != KA_TRUE && field.kind != KA_FALSE))
        return say(answer, 400, "encrypt has to be true or false, once");
    s->keyed = r == KA_OK && field.kind == KA_TRUE;

    r = make_token(token, s->ip, (ka_str){ hostname, (size_t)n });
    if (r == KA_OK) r = token_file_look(g);
    if (r == KA_OK) r = ka_file_put(g->token_file, token, sizeof token);
    if (r < 0) {
        s->keyed = false;
        ka_wipe(token, sizeof token);
        char why[KA_TROUBLE_TEXT];
        note("cannot make a token or write it to %s: %s; /connect is refused until it can be",
             g->token_file, ka_file_trouble(why, g->token_file, r, 0));
        return say(answer, 500, "the server cannot make or keep a token: %s",
                   r == KA_ENOSPC ? "no space" : ka_error_text(r));
    }
    g->token_kept = true;
    g->token_conn = s->conn;
    ka_sha256(s->digest, token, sizeof token);
    s->authorised = true;
    if (s->keyed) channel_init(&s->channel, token, true);
    ka_json_put(answer, "token", (ka_str){ token, sizeof token });
    ka_json_put_bool(answer, "encrypted", s->keyed);
    ka_wipe(token, sizeof token);
    return say(answer, 200, "connected");
}

static int url_disconnect(session *s, const ka_json *package, ka_json_out *answer)
{
    (void)package;
    void_token(s);
    s->leaving = true;
    return say(answer, 200, "disconnected; the token is void");
}

static int url_ping(session *s, const ka_json *package, ka_json_out *answer)
{
    (void)s, (void)package;
    return say(answer, 200, "pong");
}

static int url_time(session *s, const ka_json *package, ka_json_out *answer)
{
    char utc[KA_UTC_TEXT + 1];
    (void)s, (void)package;
    ka_utc_text(utc, ka_wall_us());
    ka_json_put(answer, "time", (ka_str){ utc, KA_UTC_TEXT });
    return say(answer, 200, "the time of the server, UTC");
}

static int url_echo(session *s, const ka_json *package, ka_json_out *answer)
{
    char *text = s->gate->name;
    ka_json rest = *package, name, value;
    bool whole = true;
    ka_json_open(answer, "echo", KA_OBJECT);
    while (ka_json_next(&rest, &name, &value)) {
        if (ka_json_is(&name, "url") || ka_json_is(&name, "token")) continue;
        ptrdiff_t n = ka_json_string(text, KA_MAX_BODY, &name);
        if (n < 0 || memchr(text, 0, (size_t)n)) {      /* no NUL may be in a name */
            whole = false;
            continue;
        }
        text[n] = 0;
        ka_json_put_value(answer, text, &value);
    }
    ka_json_close(answer);
    return whole ? say(answer, 200, "all but url and token")
                 : say(answer, 400, "the name of a field has a NUL in it");
}

static const struct {
    const char *url;
    int       (*answer)(session *, const ka_json *, ka_json_out *);
    bool        without_token;
} routes[] = {
    { "/connect", url_connect, true },
    { "/disconnect", url_disconnect, false },
    { "/ping", url_ping, false },
    { "/time", url_time, false },
    { "/echo", url_echo, false },
};

enum { ROUTES = sizeof routes / sizeof *routes };

static int check_token(const session *s, const ka_json *package, ka_json_out *answer)
{
    ka_json field;
    char token[TOKEN_TEXT];
    unsigned char digest[HASH_BYTES];
    int code = string_field(package, "token", &field, answer);
    if (code != 200) return code;
    bool right = ka_json_string(token, sizeof token, &field) == TOKEN_TEXT;
    ka_sha256(digest, token, right ? sizeof token : 0);
    right = ka_eq_ct(digest, s->digest, sizeof digest) && right && s->authorised;
    ka_wipe(token, sizeof token);
    ka_wipe(digest, sizeof digest);
    return right ? 200
                 : say(answer, 400, "wrong token; /connect gives one, for its own connection");
}

static int dispatch(session *s, ka_str text, ka_json_out *answer)
{
    ka_json package, url;
    size_t i = 0;
    int r = ka_json_read(&package, text);
    if (r == KA_ELIMIT)
        return say(answer, 400, "the package is nested more than %d deep", KA_MAX_DEPTH);
    if (r < 0)
        return say(answer, 400, "the package is neither JSON nor a Python dict: byte %d is wrong",
                   (int)package.raw.n + 1);
    if (package.kind != KA_OBJECT)
        return say(answer, 400, "the package has to be an object: {\"url\": ...}");
    int code = string_field(&package, "url", &url, answer);
    if (code != 200) return code;
    while (i < ROUTES && !ka_json_is(&url, routes[i].url)) i++;
    if (i == ROUTES) {
        ka_json_open(answer, "urls", KA_ARRAY);
        for (i = 0; i < ROUTES; i++) ka_json_put(answer, NULL, str(routes[i].url));
        ka_json_close(answer);
        return say(answer, 400, "there is no such url");
    }
    if (!routes[i].without_token && (code = check_token(s, &package, answer)) != 200) return code;
    return routes[i].answer(s, &package, answer);
}

/* ---- connections ---- */

/* Send what is in g->answer: a line, or a frame. */
static void send_answer(session *s, size_t n)
{
    gate *g = s->gate;
    if (s->encrypted) {
        n = channel_seal(&s->channel, g->sealed, (ka_str){ g->answer, n });
        ka_send(g->server, s->conn, g->sealed, n);
    } else {
        g->answer[n++] = '\n';
        ka_send(g->server, s->conn, g->answer, n);
    }
}

/* An answer that no route makes. s->gate and s->conn are enough for it. */
static void inform(session *s, int code, const char *message)
{
    ka_json_out w = { .p = s->gate->answer, .cap = MAX_TEXT };
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put_integer(&w, "code", code);
    say(&w, code, "%s", message);
    ka_json_close(&w);
    send_answer(s, w.n);
}

static void forget(session *s)
{
    gate *g = s->gate;
    void_token(s);
    g->sessions[ka_conn_index(g->server, s->conn)] = NULL;
    g->count--;
    ka_wipe(s, sizeof *s);
    free(s);
}

static void dismiss(session *s)
{
    ka_close(s->gate->server, s->conn);
    forget(s);
}

static session *find(const gate *g, uint64_t conn)
{
    size_t i = ka_conn_index(g->server, conn);
    return i < g->room && g->sessions[i] && g->sessions[i]->conn == conn ? g->sessions[i] : NULL;
}

/* Where a new one goes; NULL: out of memory. */
static session **seat(gate *g, size_t index)
{
    size_t room = 2 * index + 16;
    if (index < g->room) return &g->sessions[index];
    session **more = realloc(g->sessions, room * sizeof(session *));
    if (!more) return NULL;
    g->sessions = more;
    while (g->room < room) more[g->room++] = NULL;
    return &more[index];
}

static void on_opened(gate *g, const ka_event *ev)
{
    session new = { .gate = g, .conn = ev->conn, .heard_ms = ev->now_ms };
    bool full = !g->many && g->count > 0;
    session **at = full ? NULL : seat(g, ka_conn_index(g->server, ev->conn));
    if (at) *at = malloc(sizeof new);
    if (!at || !*at) {
        inform(&new, full ? 503 : 500,
               full ? "another client is connected, and one is served at a time; try later"
                    : "out of memory");
        ka_close(g->server, ev->conn);
        return;
    }
    ka_end_text(new.ip, ev->peer);
    *strrchr(new.ip, ':') = 0;
    **at = new;
    g->count++;
}

/* What is wrong with bytes that can't be cut into packages. */
static const char *package_trouble(int error)
{
    switch (error) {
    case KA_ENOMEM: return "out of memory";
    case KA_ENOSPC: return "the package is over 64 KiB long";
    case KA_ETIME:  return "the package was begun, and not ended in time";
    default:        return "no whole JSON object or Python dict; send {\"url\": ...}";
    }
}

static void on_message(session *s, const ka_event *ev)
{
    gate *g = s->gate;
    ka_str text = ev->body;
    s->heard_ms = ev->now_ms;
    if (s->encrypted) {      /* this may be somebody else's: no answer */
        ptrdiff_t n = ev->error || ev->framing != &ka_frames
                          ? -1
                          : channel_open(&s->channel, g->package, text);
        if (n < 0) { dismiss(s); return; }
        text = (ka_str){ g->package, (size_t)n };
    }
    if (ev->error) {         /* what can't be cut into packages */
        inform(s, ev->error == KA_ENOMEM ? 500 : 400, package_trouble(ev->error));
        dismiss(s);
        return;
    }

    ka_json_out w = { .p = g->answer, .cap = MAX_TEXT };
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put_integer(&w, "code", 200);
    char *digits = w.p + w.n - 3;            /* known at the end, and three in any case */
    int code = dispatch(s, text, &w);
    for (int i = 2, c = code; i >= 0; i--, c /= 10) digits[i] = (char)('0' + c % 10);
    ka_json_close(&w);
    /* After this answer the client sends frames. */
    if (s->keyed && !s->encrypted) ka_reframe(g->server, s->conn, &ka_frames);
    if (w.error) inform(s, 400, "the answer to this would be too long or too deep");
    else send_answer(s, w.n);
    if (s->encrypted) ka_wipe(g->package, text.n);
    ka_wipe(g->answer, w.n);
    s->encrypted = s->keyed;
    if (s->leaving) dismiss(s);
}

static void end_silent(gate *g, int64_t now_ms)
{
    for (size_t i = 0; i < g->room; i++) {
        session *s = g->sessions[i];
        if (!s || now_ms - s->heard_ms < g->idle_s * 1000) continue;
        inform(s, 400, "silent for too long; connect again");
        dismiss(s);
    }
}

/* 0: go on; otherwise exit with this. */
static int on_listening(gate *g, const ka_event *ev)
{
    char text[KA_PLACE_TEXT + 1];
    if (ev->error) return ka_listen_fail("gate", &g->listeners, "--port", ev);
    /* A token of a server that was killed goes; not before this server has the port. */
    int r = token_file_remove(g);
    if (r == KA_ESYNTAX)
        return fail(EXIT_SYSTEM, "%s holds no token of gate; choose another --token-file",
                    g->token_file);
    if (r < 0) {
        char why[KA_TROUBLE_TEXT];
        return fail(EXIT_SYSTEM, "cannot remove the old %s: %s; choose another --token-file",
                    g->token_file, ka_file_trouble(why, g->token_file, r, 0));
    }
    ka_say(1, "listening on %s", ka_listener_text(text, &g->listeners, ev));
    return EXIT_DONE;
}

static int serve(gate *g)
{
    int status = EXIT_DONE;
    int64_t looked_ms = ka_now_ms();
    for (ka_event ev;; ) {
        int r = ka_wait(g->server, &ev, g->idle_s && g->count ? 1000 : -1);
        if (r != KA_OK && r != KA_ETIME) break;
        session *s = r == KA_OK ? find(g, ev.conn) : NULL;
        if (r == KA_OK && ev.kind == KA_LISTENING && (status = on_listening(g, &ev)) != 0)
            ka_stop(g->server);
        if (r == KA_OK && ev.kind == KA_OPENED) on_opened(g, &ev);
        if (s && ev.kind == KA_MESSAGE) on_message(s, &ev);
        if (s && ev.kind == KA_CLOSED) forget(s);
        if (g->idle_s && ka_now_ms() - looked_ms >= 1000) end_silent(g, looked_ms = ka_now_ms());
    }
    for (size_t i = 0; i < g->room; i++)
        if (g->sessions[i]) forget(g->sessions[i]);
    if (g->token_kept) token_file_remove(g);
    free(g->sessions);
    return status;
}

static int server_main(char **argv)
{
    static gate g = {
        .ip = "127.0.0.1", .port = 7000, .token_file = "app/data/connection/TOKEN", .idle_s = 600
    };
    const ka_option known[] = {
        { "--ip", .text = &g.ip },
        { "--port", .number = &g.port, .most = 65535 },
        { "--many", .flag = &g.many },
        { "--token-file", .text = &g.token_file },
        { "--idle", .number = &g.idle_s, .most = 1000000000 },
        { "WORD", .rest = &argv },
        { .name = NULL }
    };
    int status = ka_options(known, "gate", usage, argv);
    if (status >= 0) return status;
    if (*argv)
        return fail(EXIT_USAGE, "%s: the server takes options only; gate --help lists them", *argv);
    int r = ka_server_start(&g.server, 1);
    if (r < 0) return fail(EXIT_SYSTEM, "cannot start: %s", ka_error_text(r));
    if (ka_stop_on_interrupt(g.server) < 0) status = fail(EXIT_SYSTEM, "cannot catch interrupts");
    else status = ka_listen_all(&g.listeners, g.server, &ka_objects, "gate", g.ip, (int)g.port);
    if (status < 0) status = serve(&g);
    ka_server_free(g.server);
    return status;
}

/* ================================================================================================
   Client: one call after the other; each waits for its answer. A function that fails has said why,
   and returns an exit status. */

typedef struct {
    const char *host, *hostname;
    char        place[KA_PLACE_TEXT + 1];      /* the server's, for messages */
    long long   port;
    bool        encrypt, encrypted;
    ka_server  *server;                      /* with no listener, and one connection */
    uint64_t    conn;
    channel     channel;
    char        token[TOKEN_TEXT];
    char package[KA_MAX_BODY], sealed[LENGTH_BYTES + KA_MAX_BODY], answer[KA_MAX_BODY],
        line[4 * KA_MAX_BODY];
} client;

/* Begin a package; transmit ends it. url may be NULL. */
static ka_json_out begin(client *c, const char *url, bool with_token)
{
    ka_json_out w = { .p = c->package, .cap = MAX_TEXT };
    ka_json_open(&w, NULL, KA_OBJECT);
    if (url) ka_json_put(&w, "url", str(url));
    if (with_token) ka_json_put(&w, "token", (ka_str){ c->token, sizeof c->token });
    return w;
}

static int transmit(client *c, ka_json_out *w)
{
    ka_json_close(w);
    if (w->error)
        return fail(EXIT_USAGE, "not sent: %s",
                    w->error == KA_ESYNTAX ? "it is not UTF-8" : ka_error_text(w->error));
    size_t n = c->encrypted ? channel_seal(&c->channel, c->sealed, (ka_str){ w->p, w->n }) : w->n;
    ka_send(c->server, c->conn, c->encrypted ? c->sealed : w->p, n);
    return EXIT_DONE;
}

static int await(client *c, int kind, ka_event *ev)
{
    int r;
    do r = ka_wait(c->server, ev, KA_ATTEMPT_MS);
    while (r == KA_OK && ev->kind != kind && ev->kind != KA_CLOSED);
    if (r == KA_ETIME) return fail(EXIT_OFFLINE, "%s does not answer", c->place);
    if (r < 0) return fail(EXIT_SYSTEM, "cannot wait for an answer: %s", ka_error_text(r));
    return ev->kind == kind ? EXIT_DONE
                            : fail(EXIT_OFFLINE, "%s closed the connection", c->place);
}

/* Send a package, and read what is answered: EXIT_DONE or EXIT_REFUSED, by its code. */
static int call(client *c, ka_json_out *w, ka_json *answer)
{
    ka_event ev;
    ka_json code;
    ptrdiff_t n = -1;
    int status = transmit(c, w);
    if (!status) status = await(c, KA_MESSAGE, &ev);
    if (status) return status;
    if (c->encrypted && !ev.error && ev.framing == &ka_frames)
        n = channel_open(&c->channel, c->answer, ev.body);
    if (!c->encrypted && !ev.error) {
        n = (ptrdiff_t)ev.body.n;
        memcpy(c->answer, ev.body.p, ev.body.n);
    }
    if (n < 0 || ka_json_read(answer, (ka_str){ c->answer, (size_t)n }) < 0 ||
        ka_json_find(answer, "code", &code) < 0)
        return fail(EXIT_PROTOCOL, "the answer makes no sense; is it gate that listens on %s?",
                    c->place);
    return ka_is(code.raw, "200") ? EXIT_DONE : EXIT_REFUSED;
}

/* On one line, whatever the server sent. */
static bool print(client *c, FILE *to, const ka_json *answer)
{
    ka_json_out w = { .p = c->line, .cap = sizeof c->line - 1 };
    ka_json_put_value(&w, NULL, answer);
    w.p[w.n++] = '\n';
    return !w.error && fwrite(w.p, 1, w.n, to) == w.n && fflush(to) == 0;
}

static int call_and_print(client *c, ka_json_out *w)
{
    ka_json answer;
    int status = call(c, w, &answer);
    if (status != EXIT_DONE && status != EXIT_REFUSED) return status;
    return print(c, stdout, &answer) ? status
                                     : fail(EXIT_SYSTEM, "cannot write the answer to stdout");
}

/* URL and FIELD=VALUE... */
static int call_words(client *c, char **words)
{
    ka_json value;
    ka_json_out w = begin(c, *words, true);
    while (*++words) {
        char *text = strchr(*words, '=');
        if (!text) return fail(EXIT_USAGE, "%s: FIELD=VALUE is needed after the URL", *words);
        *text++ = 0;
        if (ka_json_read(&value, str(text)) == KA_OK) ka_json_put_value(&w, *words, &value);
        else ka_json_put(&w, *words, str(text));
    }
    return call_and_print(c, &w);
}

/* A package as it was typed; the token goes in front, unless it has one. */
static int call_object(client *c, const ka_json *object)
{
    ka_json rest = *object, member;
    bool has_token = ka_json_find(object, "token", &member) != KA_ENOTFOUND;
    bool comma = !has_token && ka_json_next(&rest, NULL, &member);
    ka_json_out w = begin(c, NULL, !has_token);
    int n = snprintf(w.p + w.n, w.cap - w.n, "%s%.*s", comma ? ", " : "", (int)object->raw.n - 2,
                     object->raw.p + 1);     /* without its braces */
    if (n < 0 || (size_t)n >= w.cap - w.n) return fail(EXIT_USAGE, "not sent: too long");
    w.n += (size_t)n;
    return call_and_print(c, &w);
}

static int call_line(client *c, char *line)
{
    char *words[64];
    size_t count = 0;
    ka_json object;
    if (ka_json_read(&object, str(line)) == KA_OK && object.kind == KA_OBJECT)
        return call_object(c, &object);
    while (*(line += strspn(line, " \t")) && count < 63) {
        words[count++] = line;
        line += strcspn(line, " \t");
        if (*line) *line++ = 0;
    }
    words[count] = NULL;
    return count && !*line && *words[0] == '/'
               ? call_words(c, words)
               : fail(EXIT_USAGE, "not sent: a line is /URL FIELD=VALUE..., or {\"url\": ...}");
}

/* Lines of stdin; the status is that of the last one that failed. */
static int prompt(client *c)
{
    static char line[KA_MAX_BODY];
    int status, last = EXIT_DONE;
    for (;;) {
        if (ka_is_terminal(0)) fputs("> ", stdout), fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) return last;
        size_t n = strlen(line), end = strcspn(line, "\r\n");
        if (end == sizeof line - 1) {
            for (int byte = 0; byte != '\n' && byte != EOF; ) byte = getchar();
            status = fail(EXIT_USAGE, "not sent: this line is longer than %d bytes",
                          KA_MAX_BODY - 2);
        } else {
            line[end] = 0;
            status = line[strspn(line, " \t")] ? call_line(c, line) : EXIT_DONE;
        }
        ka_wipe(line, n);
        if (status != EXIT_DONE && status != EXIT_REFUSED && status != EXIT_USAGE) return status;
        if (status) last = status;
    }
}

/* Connect to the first address that can be connected to. */
static int reach(client *c)
{
    char ips[KA_IPS_TEXT + 1], ip[KA_IP_TEXT + 1];
    const char *left = ips;
    ka_event ev = { .error = KA_EINVAL };
    int status = ka_find_hosts(ips, "gate", c->host);
    if (status >= 0) return status;
    for (status = 0; ev.error && !status && ka_next_ip(&left, ip); )
        if (ka_connect(c->server, &ka_objects, NULL, ip, (int)c->port, 0) == KA_OK)
            status = await(c, KA_OPENED, &ev);
    if (status) return status;
    if (ev.error == KA_EINVAL)
        return fail(EXIT_USAGE, "%s: the address of one machine is needed, such as 127.0.0.1 or "
                    "::1", c->host);
    if (ev.error)
        return fail(EXIT_OFFLINE,
                    "cannot connect to %s: %s (system error %d); is the server running?",
                    c->place, ka_error_text(ev.error), ev.os_error);
    c->conn = ev.conn;
    return EXIT_DONE;
}

/* /connect, and what was asked for. */
static int converse(client *c, char **words)
{
    ka_json answer, field;
    int status = reach(c);
    if (status) return status;
    ka_json_out w = begin(c, "/connect", false);
    ka_json_put(&w, "hostname", str(c->hostname));
    if (c->encrypt) ka_json_put_bool(&w, "encrypt", true);
    status = call(c, &w, &answer);
    if (status == EXIT_REFUSED) print(c, stderr, &answer);
    if (status) return status;
    if (ka_json_find(&answer, "token", &field) < 0 ||
        ka_json_string(c->token, sizeof c->token, &field) != TOKEN_TEXT)
        return fail(EXIT_PROTOCOL, "%s gave no token", c->place);
    if (c->encrypt) {
        if (ka_json_find(&answer, "encrypted", &field) < 0 || field.kind != KA_TRUE)
            return fail(EXIT_PROTOCOL, "%s does not encrypt", c->place);
        channel_init(&c->channel, c->token, false);
        c->encrypted = true;
        ka_reframe(c->server, c->conn, &ka_frames);
    }
    return *words ? call_words(c, words) : prompt(c);
}

/* Have the token voided; what is answered to that changes nothing. */
static void disconnect(client *c)
{
    ka_event ev;
    ka_json_out w = begin(c, "/disconnect", true);
    if (!c->token[0] || transmit(c, &w)) return;
    int r;
    do r = ka_wait(c->server, &ev, 1000);
    while (r == KA_OK && ev.kind != KA_CLOSED);
}

static int client_main(char **argv)
{
    static client c;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    c.hostname = getenv("HOSTNAME");
    if (!c.hostname) c.hostname = getenv("COMPUTERNAME");       /* NOLINT(concurrency-mt-unsafe) */
    if (!c.hostname) c.hostname = "unknown";
    const ka_option known[] = {
        { "--encrypt", .flag = &c.encrypt },
        { "--hostname", .text = &c.hostname },
        { "WORD", .rest = &argv },
        { .name = NULL }
    };
    int status = ka_options(known, "gate", usage, argv);
    if (status >= 0) return status;
    if (!argv[0] || !argv[1]) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    c.host = argv[0];
    if (!ka_number(argv[1], 1, 65535, &c.port))
        return fail(EXIT_USAGE, "%s: a port from 1 to 65535 is needed", argv[1]);
    ka_place_text(c.place, c.host, (int)c.port);
    int r = ka_server_start(&c.server, 1);
    if (r < 0) return fail(EXIT_SYSTEM, "cannot start: %s", ka_error_text(r));
    status = converse(&c, argv + 2);
    if (status == EXIT_DONE || status == EXIT_REFUSED || status == EXIT_USAGE) disconnect(&c);
    ka_server_free(c.server);
    ka_wipe(&c, sizeof c);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (ka_help(argv[1], "gate", usage)) return EXIT_DONE;
    if (strcmp(argv[1], "server") == 0) return server_main(argv + 2);
    if (strcmp(argv[1], "client") == 0) return client_main(argv + 2);
    return fail(EXIT_USAGE, "%s: server or client has to come first; gate --help tells more",
                argv[1]);
}
