/* ext/framing.h - how the bytes of a connection are cut into messages: lines, JSON objects, frames
   with a length.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/framing.h"

   USE: an echo server for lines
         ka_listen_as(s, &ka_lines, "127.0.0.1", 7777);
         for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; ) {
             if (ev.kind != KA_MESSAGE || ev.error) continue;
             ka_send(s, ev.conn, ev.body.p, ev.body.n);
             ka_send(s, ev.conn, "\n", 1);
         }

   A framing of your own is one function of some 20 lines: see ka__frames_cut below, and ka_framing
   in keyauth.h for its contract. */

#ifndef KEYAUTH_H
#error "ext/framing.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_FRAMING_H
#define KEYAUTH_FRAMING_H

#ifdef __cplusplus
extern "C" {
#endif

/* Up to a line feed. The line feed is no part of the message, and neither is a carriage return
   right before it. */
KADEF const ka_framing ka_lines;

/* JSON objects, or Python dicts, back to back, with white space between them or none. An object
   ends where its braces, outside of strings, come out even. Whether it is JSON is not looked at:
   see ka_json_read in ext/json.h. */
KADEF const ka_framing ka_objects;

/* A length in 4 bytes, the highest first, and so many bytes. White space before a length is passed
   over, since the frames may follow an object: see ka_reframe. */
KADEF const ka_framing ka_frames;

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_FRAMING_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_FRAMING_IMPLEMENTED)
#define KEYAUTH_FRAMING_IMPLEMENTED

_Static_assert(KA_MAX_BODY < 0x09000000, "white space must not be the first byte of a length");

/* state->at: bytes in which there is no line feed. */
static ptrdiff_t ka__lines_cut(ka_cut *state, const char *p, size_t n, ka_str *message)
{
    const char *end = (const char *)memchr(p + state->at, '\n', n - state->at);
    state->at = (uint32_t)n;
    if (!end) return n > KA_MAX_BODY + (p[n - 1] == '\r') ? KA_ENOSPC : KA_EAGAIN;
    size_t length = (size_t)(end - p);
    *message = (ka_str){ p, length > 0 && end[-1] == '\r' ? length - 1 : length };
    return (ptrdiff_t)(length + 1);
}

KADATA const ka_framing ka_lines = { ka__lines_cut, 0 };

/* How much white space is in front? */
static size_t ka__spaces(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && p[i] && strchr(" \t\r\n", p[i])) i++;
    return i;
}

/* state->at: bytes that were read; a: open braces; b: the quote of the string that is open, and 256
   behind a backslash in it. */
static ptrdiff_t ka__objects_cut(ka_cut *state, const char *p, size_t n, ka_str *message)
{
    enum { ESCAPED = 256 };
    if (state->at == 0) {
        size_t spaces = ka__spaces(p, n);
        if (spaces) return (ptrdiff_t)spaces;
        if (*p != '{') return KA_ESYNTAX;
    }
    while (state->at < n && state->at < KA_MAX_BODY) {      /* one error, in whatever pieces */
        unsigned char c = (unsigned char)p[state->at++];
        if (state->b & ESCAPED) state->b -= ESCAPED;
        else if (state->b && c < ' ') return KA_ESYNTAX;      /* a string does not go over a line */
        else if (state->b && c == '\\') state->b |= ESCAPED;
        else if (state->b == c) state->b = 0;
        else if (state->b) continue;
        else if (c == '"' || c == '\'') state->b = c;
        else if (c == '{') state->a++;
        else if (c == '}' && --state->a == 0) {
            *message = (ka_str){ p, state->at };
            return (ptrdiff_t)state->at;
        }
    }
    return n > KA_MAX_BODY ? KA_ENOSPC : KA_EAGAIN;
}

KADATA const ka_framing ka_objects = { ka__objects_cut, 0 };

static ptrdiff_t ka__frames_cut(ka_cut *state, const char *p, size_t n, ka_str *message)
{
    const unsigned char *b = (const unsigned char *)p;
    size_t spaces = ka__spaces(p, n);
    (void)state;      /* a frame is found by its first bytes alone */
    if (spaces) return (ptrdiff_t)spaces;
    if (n < 4) return KA_EAGAIN;
    size_t length = (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
    if (length > KA_MAX_BODY) return KA_ENOSPC;
    if (n - 4 < length) return KA_EAGAIN;
    *message = (ka_str){ p + 4, length };
    return (ptrdiff_t)(4 + length);
}

KADATA const ka_framing ka_frames = { ka__frames_cut, 0 };

#endif /* KEYAUTH_IMPLEMENTATION */

/* Public domain or MIT: see the end of keyauth.h. */
