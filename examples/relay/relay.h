/* relay.h - the protocol of relay, and what its server, its client and its load test share.

   A message is one line, each way. X is any text of up to 64 KiB in UTF-8. In X a line feed is
   written \n, a carriage return \r and a backslash \\.
     message X   to the server: forward X to one of the active connections, chosen at random. The
                 sender is one of them. From the server: answer by `ok X`
     ok X        to the server, from a connection that got `message X`: every connection that has
                 sent `message X` and still waits gets `ok X`
     stats       to the server: answer by `stats {...}`, figures in JSON. The connection that asks
                 is no longer active
     error WHY   from the server: the line was not taken */

#ifndef RELAY_H
#define RELAY_H

#define KEYAUTH_STATIC
#define KA_MAX_HEAD 512                     /* no HTTP here */
#define KA_MAX_BODY (8 + 2 * 65536)         /* "message " and an X in which each byte is escaped */
#define KA_MAILBOX (1u << 19)
#define KA_LINGER_MS 20000                  /* for a hundred thousand that close in order at once */
#include "keyauth.h"
#include "ext/input.h"
#include "ext/lookup.h"
#include "ext/cli.h"
#include "ext/file.h"
#include "ext/framing.h"
#include "ext/json.h"
#include "ext/process.h"
#include "ext/timer.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_OFFLINE = 3 };
enum {
    MAX_X = 65536,                          /* bytes of an X without its escapes */
    MAX_WAITING = 1024                      /* messages of one connection that wait for their ok */
};

#define fail(status, ...) ka_fail(status, "relay: " __VA_ARGS__)
#define note(...)         ka_say(2, "relay: " __VA_ARGS__)


/* Give an array room for `need` members of `size` bytes. `array` is the address of the pointer to
   the array. False: out of memory, and the array is as it was. Room that is not used is not
   touched, so it takes no memory yet. */
static bool room_for(void *array, uint32_t *room, uint32_t need, size_t size)
{
    void *old, *p;
    if (need <= *room) return true;
    size_t more = *room ? 2 * (size_t)*room : 64;
    while (more < need) more *= 2;
    if (more > UINT32_MAX / 2 || more > SIZE_MAX / size) return false;
    memcpy(&old, array, sizeof old);
    p = realloc(old, more * size);
    if (!p) return false;
    memcpy(array, &p, sizeof p);
    *room = (uint32_t)more;
    return true;
}

/* ---- lines ---- */

/* Is the line this word, a space and an X? */
static bool line_is(ka_str line, const char *word, ka_str *x)
{
    size_t n = strlen(word);
    if (line.n <= n || memcmp(line.p, word, n) != 0 || line.p[n] != ' ') return false;
    *x = (ka_str){ line.p + n + 1, line.n - n - 1 };
    return true;
}

/* Send a word, a space, X and a line feed. X is no longer than X in a line that was taken. */
static void line_send(ka_server *s, uint64_t conn, const char *word, ka_str x)
{
    char line[KA_MAX_BODY + 1];
    size_t n = strlen(word);
    KA_ASSERT(n + x.n + 2 <= sizeof line);
    memcpy(line, word, n);
    line[n++] = ' ';
    if (x.n) memcpy(line + n, x.p, x.n);
    line[n + x.n] = '\n';
    ka_send(s, conn, line, n + x.n + 1);
}

/* What is wrong with an X as it is in a line; NULL: nothing. An X can be written in one way only,
   so two are the same if their bytes are. */
static const char *x_trouble(ka_str x)
{
    const char *end = x.p + x.n;
    size_t escaped = 0;
    for (const char *p = x.p; (p = memchr(p, '\\', (size_t)(end - p))) != NULL; p += 2, escaped++)
        if (p + 1 == end || !memchr("nr\\", p[1], 3))
            return "a backslash is there without n, r or a backslash behind it; write it twice";
    if (memchr(x.p, '\r', x.n)) return "a raw carriage return is in the line; write it as \\r";
    if (x.n - escaped > MAX_X) return "X is longer than 65536 bytes; send less";
    return ka_is_utf8(x) ? NULL : "the line is not UTF-8; send text";
}

static const struct { char byte, mark; } escapes[] = {
    { '\n', 'n' }, { '\r', 'r' }, { '\\', '\\' }
};

/* Write X as it is in a line, 2 * x.n bytes at most. Returns how many. */
static size_t x_escape(char *out, ka_str x)
{
    size_t n = 0;
    for (size_t i = 0; i < x.n; i++) {
        char c = x.p[i];
        for (size_t k = 0; k < sizeof escapes / sizeof *escapes; k++) {
            if (x.p[i] != escapes[k].byte) continue;
            out[n++] = '\\';
            c = escapes[k].mark;
        }
        out[n++] = c;
    }
    return n;
}

/* Write an X without its escapes, x.n bytes at most. It has no trouble. Returns how many. */
static size_t x_unescape(char *out, ka_str x)
{
    size_t n = 0;
    for (size_t i = 0; i < x.n; i++) {
        char c = x.p[i];
        if (c == '\\') {
            i++;
            for (size_t k = 0; k < sizeof escapes / sizeof *escapes; k++)
                if (x.p[i] == escapes[k].mark) c = escapes[k].byte;
        }
        out[n++] = c;
    }
    return n;
}

/* ---- options in seconds ---- */

/* Read seconds with at most three digits behind the point. Returns what follows them; NULL: there
   are none. */
static const char *seconds_take(const char *p, int64_t *ms)
{
    const char *begin = p;
    for (*ms = 0; *p >= '0' && *p <= '9' && p - begin < 9; p++) *ms = *ms * 10 + *p - '0';
    *ms *= 1000;
    if (p == begin) return NULL;
    if (p[0] != '.' || p[1] < '0' || p[1] > '9') return p;
    int unit = 100;
    for (p++; *p >= '0' && *p <= '9' && unit > 0; p++, unit /= 10) *ms += unit * (*p - '0');
    return p;
}

/* A ka_option.parse: to int64_t, milliseconds, option->least or more. */
static const char *seconds(const ka_option *option, const char *value)
{
    int64_t *ms = option->to;
    const char *end = seconds_take(value, ms);
    return end && !*end && *ms >= option->least ? NULL : "seconds are needed, such as 30 or 0.25";
}

/* A ka_option.parse: to int64_t[2], LEAST..MOST in milliseconds. One figure is both. */
static const char *seconds_range(const ka_option *option, const char *value)
{
    int64_t *ms = option->to;
    const char *p = seconds_take(value, &ms[0]);
    ms[1] = ms[0];
    if (p && p[0] == '.' && p[1] == '.') p = seconds_take(p + 2, &ms[1]);
    return p && !*p && ms[0] <= ms[1] ? NULL : "seconds are needed, such as 0.25 or 0..10";
}

#endif
