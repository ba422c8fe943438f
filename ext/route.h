/* ext/route.h - the parts of a request's target: its path, and what is asked for behind it.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/route.h"

   USE: GET /rooms/blue?limit=5
         static void answer(ka_server *s, const ka_event *ev) {
             ka_str query, name, limit, path = ka_path(ev->target, &query);
             if (ka_path_fits(path, "/rooms/{name}", &name) < 0) {
                 ka_reply(s, ev, 404, NULL, "", 0);
                 return;
             }
             if (ka_query(query, "limit", &limit) < 0) limit = (ka_str){ "20", 2 };
             ka_reply(s, ev, 200, NULL, limit.p, limit.n);
         }
         if (ev.kind == KA_REQUEST) answer(s, &ev);

   Nothing is allocated; any thread; results are views into the target, percent-encoded as they
   were: ka_percent_decode reads them. */

#ifndef KEYAUTH_H
#error "ext/route.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_ROUTE_H
#define KEYAUTH_ROUTE_H

#ifdef __cplusplus
extern "C" {
#endif

enum { KA_PATH_PART = 128 };     /* bytes of a part of a pattern, at most */

/* The path of a target, and what is behind its question mark; {NULL, 0}: nothing is. */
KADEF ka_str ka_path(ka_str target, ka_str *query);

/* Does a path fit a pattern, part by part? Letters in it may be percent-encoded, and a slash may
   follow (RFC 3986 s.3.3, s.6.2.2.2).
     pattern    "/", "/a/b", "/a/{id}/b": {...} fits any part, an empty one, too
     parts      room for what stands for each {...}, in order; NULL if there are none
     returns    KA_OK, or KA_ENOTFOUND */
KADEF int ka_path_fits(ka_str path, const char *pattern, ka_str *parts);

/* Find the value of a name in NAME=VALUE&NAME=VALUE.
     returns    KA_OK; KA_ENOTFOUND: there is no such name; KA_EINVAL: it is there twice */
KADEF int ka_query(ka_str query, const char *name, ka_str *value);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_ROUTE_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_ROUTE_IMPLEMENTED)
#define KEYAUTH_ROUTE_IMPLEMENTED

#include <string.h>

ka_str ka_path(ka_str target, ka_str *query)
{
    const char *mark = target.n ? memchr(target.p, '?', target.n) : NULL;
    ka_str path = { target.p, mark ? (size_t)(mark - target.p) : target.n };
    *query = (ka_str){ NULL, 0 };
    if (mark && path.n + 1 < target.n) *query = (ka_str){ mark + 1, target.n - path.n - 1 };
    return path;
}

/* Is this the text, decoded? */
static bool ka__route_is(ka_str raw, const char *text, size_t n)
{
    char room[KA_PATH_PART];
    ptrdiff_t got = ka_percent_decode(room, sizeof room, raw);
    return got >= 0 && (size_t)got == n && memcmp(room, text, n) == 0;
}

int ka_path_fits(ka_str path, const char *pattern, ka_str *parts)
{
    if (path.n == 0 || *path.p != '/') return KA_ENOTFOUND;
    while (pattern[0] && pattern[1] && path.n > 1) {
        const char *end = memchr(path.p + 1, '/', path.n - 1);
        ka_str raw = { path.p + 1, end ? (size_t)(end - path.p) - 1 : path.n - 1 };
        size_t n = strcspn(++pattern, "/");
        if (*pattern == '{') *parts++ = raw;
        else if (!ka__route_is(raw, pattern, n)) return KA_ENOTFOUND;
        pattern += n;
        path = (ka_str){ raw.p + raw.n, path.n - raw.n - 1 };
    }
    return (pattern[0] && pattern[1]) || path.n > 1 ? KA_ENOTFOUND : KA_OK;
}

int ka_query(ka_str query, const char *name, ka_str *value)
{
    ka_str raw, found;
    int r = KA_ENOTFOUND, next;
    while ((next = ka_form_next(&query, &raw, &found)) != KA_ENOTFOUND) {
        if (next < 0 || !ka__route_is(raw, name, strlen(name))) continue;
        if (r == KA_OK) return KA_EINVAL;
        *value = found;
        r = KA_OK;
    }
    return r;
}

#endif /* KEYAUTH_ROUTE_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
