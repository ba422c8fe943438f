/* ext/sse.h - server-sent events: an answer without a known end.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/sse.h"

   USE: two events for each browser that asks (ext/peers.h remembers who has asked)
         for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; ) {
             if (ev.kind == KA_REQUEST)
                 ka_sse_begin(s, &ev, "Content-Type: text/event-stream\r\n");
             if (ev.kind != KA_OPENED) continue;
             ka_send(s, ev.conn, "data: 12:00:01\n\n", 16);
             ka_send(s, ev.conn, "data: 12:00:02\n\n", 16);
         }

   How an event is written is the WHATWG's HTML standard, section 9.2.6. */

#ifndef KEYAUTH_H
#error "ext/sse.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_SSE_H
#define KEYAUTH_SSE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Answer a request by 200 and a body whose end is the connection's. When its turn has come,
   KA_OPENED with its listener and conn tells that the answer has begun. From then on ka_send sends
   a part of the body, ka_close ends it, and KA_CLOSED always follows. What the peer sends is
   ignored. If there is no KA_OPENED, the connection was closed before. The parent calls this.
     fields     as ka_reply's; copied
     returns    as ka_upgrade: KA_OK, KA_EINVAL (no request; HTTP/1.0's or HEAD's, which are
                answered by ka_reply; fields), KA_ENOSPC */
KADEF int ka_sse_begin(ka_server *s, const ka_event *ev, const char *fields);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_SSE_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_SSE_IMPLEMENTED)
#define KEYAUTH_SSE_IMPLEMENTED

/* All bytes are white space. */
static ptrdiff_t ka__sse_cut(ka_cut *state, const char *p, size_t n, ka_str *message)
{
    (void)state;
    (void)p;
    (void)message;
    return (ptrdiff_t)n;
}

int ka_sse_begin(ka_server *s, const ka_event *ev, const char *fields)
{
    static const ka_framing deaf = { ka__sse_cut, 0 };
    return ka_upgrade(s, ev, 200, fields, &deaf);
}

#endif /* KEYAUTH_IMPLEMENTATION */

/* Public domain or MIT: see the end of keyauth.h. */
