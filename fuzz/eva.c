/* fuzz/eva.c - what Frama-C's Eva is asked: fuzz/eva runs it, once for each function below.

   Each one calls a parser with every length up to BOUND, and with bytes of any values. A text, and
   the room for an answer, end where their block ends, so a byte read or written behind them is an
   alarm. So is all other undefined behaviour. The parsers are those of keyauth.h and
   ext/; text.c and resp.c are parts of these files, without what needs a system. */

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "__fc_builtin.h"

/* Two of the C library, so plainly that Eva tells all their results apart. */
static void *plain_memchr(const void *p, int c, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++)
        if (b[i] == (unsigned char)c) return (void *)(b + i);
    return NULL;
}

static void *plain_memmove(void *to, const void *from, size_t n)      /* never to the back */
{
    unsigned char *t = to;
    const unsigned char *f = from;
    for (size_t i = 0; i < n; i++) t[i] = f[i];
    return to;
}
#define memchr plain_memchr
#define memmove plain_memmove

#include "keyauth.h"
#include "ext/file.h"
#include "ext/lookup.h"
#include "ext/redis.h"

/* The platform, of which nothing is called here. */
static void ka__free(void *p) { free(p); }
static void ka__ip_text(char *ip, const ka_end *e) { (void)e, *ip = 0; }
static bool ka__is_ipv6(const char *p, size_t n)
{
    return (void)p, Frama_C_interval(0, (int)n) > 0;
}
static bool ka__sha256_native(uint32_t h[8], const unsigned char *p, const uint32_t k[64])
{
    return (void)h, (void)p, (void)k, false;
}
#include "text.c"
#include "resp.c"
#define KEYAUTH_IMPLEMENTATION
#include "ext/json.h"
#include "ext/uuid.h"

static char in[BOUND + 64], out[2 * BOUND + 64];

/* The last n bytes of a block: room, and bytes of any values. */
static char *room(size_t n) { return out + sizeof out - n; }

static char *any(size_t n)
{
    Frama_C_make_unknown(in, sizeof in);
    return in + sizeof in - n;
}

void b64_encode(void)
{
    for (size_t n = 0; n <= BOUND; n++)
        for (size_t cap = 0; cap <= KA_B64_ENCODED(n); cap++) {
            ptrdiff_t r = ka_b64_encode(room(cap), cap, any(n), n);
            //@ assert r == KA_ENOSPC || r == cap;
        }
}

void b64_decode(void)
{
    for (size_t n = 0; n <= BOUND; n++)
        for (size_t cap = 0; cap <= KA_B64_DECODED(n); cap++) {
            ptrdiff_t r = ka_b64_decode(room(cap), cap, any(n), n);
            //@ assert r == KA_ESYNTAX || r == KA_ENOSPC || 0 <= r <= cap;
        }
}

void hex(void)
{
    for (size_t n = 0; n <= BOUND; n++) ka_hex_encode(room(2 * n), any(n), n);
}

void uuid(void)
{
    for (size_t n = 0; n <= BOUND; n++) {
        int r = ka_uuid_read(room(KA_UUID_TEXT + 1), (ka_str){ any(n), n });
        //@ assert r == KA_ESYNTAX || (r == KA_OK && n == KA_UUID_TEXT);
    }
}

void percent(void)
{
    for (size_t n = 0; n <= BOUND; n++)
        for (size_t cap = 0; cap <= n; cap++) {
            ptrdiff_t r = ka_percent_decode(room(cap), cap, (ka_str){ any(n), n });
            //@ assert r == KA_ESYNTAX || r == KA_ENOSPC || 0 <= r <= cap;
        }
}

void percent_in_place(void)
{
    for (size_t n = 0; n <= BOUND; n++) {
        char *p = any(n);
        ptrdiff_t r = ka_percent_decode(p, n, (ka_str){ p, n });
        //@ assert r == KA_ESYNTAX || 0 <= r <= n;
    }
}

void form(void)
{
    for (size_t n = 0; n <= BOUND; n++) {
        ka_str rest = { any(n), n }, name, value;
        for (size_t i = 0; i <= n; i++) ka_form_next(&rest, &name, &value);
        //@ assert rest.p == \null;
    }
}

/* From any state that the assertions allow, n bytes lead to such a state again. So this holds for
   any number of pieces. */
void chunked(void)
{
    for (size_t n = 0; n <= BOUND; n++)
        for (int state = 0; state <= KA__LAST_LF; state++) {
            size_t used = 0;
            ka__chunked d = { .state = (uint8_t)state };
            Frama_C_make_unknown((char *)&d.room, sizeof d.room);
            Frama_C_make_unknown((char *)&d.left, sizeof d.left);
            d.line = (uint32_t)Frama_C_interval(0, KA_MAX_HEAD);
            ptrdiff_t r = ka__chunked_decode(&d, any(n), n, &used);
            //@ assert r == KA_ESYNTAX || r == KA_ENOSPC || 0 <= r <= used <= n;
            //@ assert r < 0 || (d.state <= KA__LAST_LF && d.line <= KA_MAX_HEAD);
        }
}

static char *behind(const char *front, size_t m, size_t n)
{
    char *p = any(m + n);
    for (size_t i = 0; i < m; i++) p[i] = front[i];
    return p;
}

void request(void)
{
    const size_t m = sizeof FRONT - 1;
    for (size_t n = 0; n <= BOUND; n++) {
        ka__http h;
        ptrdiff_t r = ka__http_request(&h, behind(FRONT, m, n), m + n);
        //@ assert r == KA_EAGAIN || r == KA_ESYNTAX || 0 < r <= m + n;
    }
}

void response(void)
{
    const size_t m = sizeof FRONT - 1;
    for (size_t n = 0; n <= BOUND; n++) {
        ka__http h;
        ptrdiff_t r = ka__http_response(&h, behind(FRONT, m, n), m + n);
        //@ assert r == KA_EAGAIN || r == KA_ESYNTAX || 0 < r <= m + n;
    }
}

void field(void)
{
    for (size_t n = 0; n <= BOUND; n++) {
        ka_str value;
        ka_field((ka_str){ any(n), n }, "a", &value);
    }
}

void utf8(void)
{
    for (size_t n = 0; n <= BOUND; n++) ka_is_utf8((ka_str){ any(n), n });
}

void json(void)
{
    for (size_t n = 0; n <= BOUND; n++) {
        ka_json v;
        int r = ka_json_read(&v, (ka_str){ any(n), n });
        //@ assert r == KA_OK || r == KA_ESYNTAX || r == KA_ELIMIT;
    }
}

void resp(void)
{
    for (size_t n = 0; n <= BOUND; n++) {
        ka_resp v;
        int r = ka_resp_read(&v, (ka_str){ any(n), n });
        //@ assert r == KA_OK || r == KA_ESYNTAX;
    }
}
