/* ext/site.h - which pages of a browser are a server's own, and which are another site's.

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/site.h"

   USE: a page of http://keys.example may ask for keys, and call a route. init clears page and hosts
         static const char hosts[] = "keys.example";
         ka_keyring keys;
         ka_keyring_init(&keys, 0, 0);
         keys.store.page = ka_own_page;
         keys.store.hosts = hosts;
         if (!ka_is(ev.target, "/hello")) ka_auth(s, &keys.store, &ev);
         else if (ka_cross_site(&ev, hosts, 0)) ka_reply(s, &ev, 403, NULL, "", 0);
         else ka_reply(s, &ev, 200, NULL, "hello", 5);

   Nothing is allocated; any thread. */

#ifndef KEYAUTH_H
#error "ext/site.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_SITE_H
#define KEYAUTH_SITE_H

#ifdef __cplusplus
extern "C" {
#endif

enum {
    KA_HOST_ALWAYS = 1,      /* look at the host of every request, not only of a browser's */
    KA_LINKS = 2             /* let links of other sites pass: a GET that opens a tab of its own */
};

/* Has a browser sent this request for a page of another site? Such a page must not use what only
   its visitor's machine, or network, can reach. Refuse the request then, by 403, and never grant
   anything by Access-Control-Allow-... fields. True is any of these:
   1. Origin (RFC 6454) is not http:// or https:// and the request's host, port included (80 and
      443 may be left out); or there are two.
   2. Sec-Fetch-Site (W3C Fetch Metadata) is neither same-origin nor none; or there are two.
   3. The request has one of these fields, and its host is not the server's own. A site can give
      one of its names the address of this server (DNS rebinding), but it can't give it this
      server's names.
   The server's own hosts, with any port, are 127.0.0.0/8 as a dotted quad, [::1], localhost, the
   names that end with .localhost, and those in `hosts`. The listener's address makes no
   difference: DNS rebinding reaches all of a network. Programs other than browsers send neither
   field: for their requests this is false, whatever their host is.
     hosts      without ports: "a.example,b.example"; "*": any host; NULL: no more of them
     how        0, or the sum of these:
                KA_HOST_ALWAYS, where reading does harm: after DNS rebinding a browser's GET may
                have neither field. A request without a host, as HTTP/1.0 permits, is no browser's,
                and passes.
                KA_LINKS, where a GET changes nothing: no page can read what a link opens. */
KADEF bool ka_cross_site(const ka_event *ev, const char *hosts, int how);

/* Is it not for a page of another site? For ka_store.page. `how` is 0. */
KADEF bool ka_own_page(const ka_event *ev, const char *hosts);

/* Are these hosts as ka_cross_site takes them, and at least one? Schemes, ports and names with a *
   in them are not. */
KADEF bool ka_hosts_valid(const char *hosts);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_SITE_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_SITE_IMPLEMENTED)
#define KEYAUTH_SITE_IMPLEMENTED

#include <string.h>

#define KA__SITE_STR(literal) (ka_str){ literal, sizeof(literal) - 1 }

static char ka__site_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 32) : c; }

/* Are they the same when the case of letters is ignored? */
static bool ka__site_same(ka_str a, ka_str b)
{
    size_t i = 0;
    while (i < a.n && i < b.n && ka__site_lower(a.p[i]) == ka__site_lower(b.p[i])) i++;
    return i == a.n && i == b.n;
}

/* Take the next name off a list with commas, and maybe blanks, between; false at its end. */
static bool ka__site_next(const char **hosts, ka_str *name)
{
    *hosts += strspn(*hosts, ", \t");
    *name = (ka_str){ *hosts, strcspn(*hosts, ",") };
    *hosts += name->n;
    while (name->n && (name->p[name->n - 1] == ' ' || name->p[name->n - 1] == '\t')) name->n--;
    return name->n > 0;
}

/* Is it 127.0.0.0/8 as a dotted quad (RFC 3986 s.3.2.2): numbers without leading zeros? */
static bool ka__site_loopback(ka_str host)
{
    const char *p = host.p, *const end = host.p + host.n;
    for (int i = 0; ; i++) {
        const char *from = p;
        int octet = 0;
        for (; p < end && *p >= '0' && *p <= '9' && octet <= 255; p++)
            octet = octet * 10 + (*p - '0');
        if (p == from || octet > 255 || (*from == '0' && p - from > 1)) return false;
        if (i == 0 && octet != 127) return false;
        if (i == 3 || p == end) return i == 3 && p == end;
        if (*p++ != '.') return false;
    }
}

/* Is it a host of this server's own? */
static bool ka__site_host(ka_str host, const char *hosts)
{
    const ka_str local = KA__SITE_STR(".localhost");
    size_t n = host.n;
    ka_str name;
    while (n && host.p[n - 1] >= '0' && host.p[n - 1] <= '9') n--;
    if (n && host.p[n - 1] == ':') host.n = n - 1;      /* its port */
    while (hosts && ka__site_next(&hosts, &name))
        if (ka_is(name, "*") || ka__site_same(name, host)) return true;
    if (ka__site_same(host, KA__SITE_STR("localhost")) || ka_is(host, "[::1]")) return true;
    if (host.n > local.n &&
        ka__site_same((ka_str){ host.p + host.n - local.n, local.n }, local)) return true;
    return host.n && ka__site_loopback(host);
}

bool ka_hosts_valid(const char *hosts)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                  "-._~";
    ka_str name;
    bool some = false;
    for (; hosts && ka__site_next(&hosts, &name); some = true)
        if (!ka_is(name, "*") && strspn(name.p, letters) != name.n) return false;
    return some;
}

/* A host without this port, if it ends with the port. */
static ka_str ka__site_without(ka_str host, ka_str port)
{
    bool ends = host.n > port.n && memcmp(host.p + host.n - port.n, port.p, port.n) == 0;
    return (ka_str){ host.p, ends ? host.n - port.n : host.n };
}

/* Is it this scheme and this host? The scheme's own port may be left out (RFC 9110 s.4.2.3):
   browsers leave it out, some proxies write it into Host. */
static bool ka__site_origin(ka_str origin, ka_str host, ka_str scheme, ka_str port)
{
    if (origin.n <= scheme.n || !ka__site_same((ka_str){ origin.p, scheme.n }, scheme))
        return false;
    const ka_str from = { origin.p + scheme.n, origin.n - scheme.n };
    return ka__site_same(ka__site_without(from, port), ka__site_without(host, port));
}

/* Is it a link that was followed, and not a frame, an image or a script's request? */
static bool ka__site_link(const ka_event *ev)
{
    ka_str mode, dest;
    return (ka_is(ev->method, "GET") || ka_is(ev->method, "HEAD")) &&
           ka_field(ev->fields, "sec-fetch-mode", &mode) == KA_OK && ka_is(mode, "navigate") &&
           ka_field(ev->fields, "sec-fetch-dest", &dest) == KA_OK && ka_is(dest, "document");
}

bool ka_cross_site(const ka_event *ev, const char *hosts, int how)
{
    ka_str origin, site;
    if (!ev->browser && !(how & KA_HOST_ALWAYS)) return false;
    if ((ev->browser || ev->host.n) && !ka__site_host(ev->host, hosts)) return true;
    if (!ev->browser) return false;
    int origins = ka_field(ev->fields, "origin", &origin);
    int sites = ka_field(ev->fields, "sec-fetch-site", &site);
    if (origins == KA_EINVAL || sites == KA_EINVAL) return true;
    /* a page without an origin says null, which is neither */
    if (origins == KA_OK &&
        !ka__site_origin(origin, ev->host, KA__SITE_STR("http://"), KA__SITE_STR(":80")) &&
        !ka__site_origin(origin, ev->host, KA__SITE_STR("https://"), KA__SITE_STR(":443")))
        return true;
    if (sites != KA_OK || ka_is(site, "same-origin") || ka_is(site, "none")) return false;
    return !(how & KA_LINKS && ka__site_link(ev));
}

bool ka_own_page(const ka_event *ev, const char *hosts) { return !ka_cross_site(ev, hosts, 0); }

#endif /* KEYAUTH_SITE_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
