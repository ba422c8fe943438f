/* tests/cross_site.h - what browsers send for pages of other sites. */

static const struct { const char *origin, *host; bool want; } cross_site_ports[] = {
    { "Origin: https://a.example\r\n", "a.example:443", false },
    { "Origin: https://a.example:443\r\n", "a.example", false },
    { "Origin: http://a.example\r\n", "a.example:80", false },
    { "Origin: http://[::1]\r\n", "[::1]:80", false },
    { "Origin: https://a.example\r\n", "a.example:80", true },
    { "Origin: http://a.example\r\n", "a.example:443", true },
    { "Origin: http://a.example:443\r\n", "a.example", true },
    { "Origin: http://a.example:8080\r\n", "a.example:80", true },
    { "Origin: http://a.example\r\n", "a.example:8080", true },
    { "Origin: http://a.example:80:80\r\n", "a.example:80", true },
    { "Origin: http://:80\r\n", "a.example:80", true },
    { "Origin: http://\r\n", "a:80", true },
    { "Origin: http:/\r\n", "a:80", true },
};

static const struct { const char *hosts; bool want; } cross_site_lists[] = {
    { "a.example", true }, { "a.example,B-2.example, localhost", true }, { "*", true },
      { "10.0.0.1", true },
    { NULL, false }, { "", false }, { ",", false }, { "a.example:80", false }, { "http://a.example", false },
      { "a/", false },
    { "*.example", false }, { "a b", false }, { "a,b:1", false }, { "[::1]", false }, { "a@b",
      false },
};

enum { ALWAYS = KA_HOST_ALWAYS, LINKS = KA_LINKS };
static const struct {
    const char *method, *host, *fields, *hosts;      /* fields: @ is the host's port */
    int how;
    bool want;
    const char *why;
} cross_site_rows[] = {
    { "POST", "a.example", "", NULL, 0, false,
      "curl, Python, our client: they send neither field, and any host is good" },
    { "POST", "a.example", "Sec-Fetch-Mode: cors\r\n", NULL, 0, false, "Node's fetch" },
    { "POST", "127.0.0.2", "Origin: http://127.0.0.2@\r\n", NULL, 0, false,
      "a page of the server itself" },
    { "POST", "127.0.0.2", "Origin: https://127.0.0.2@\r\n", NULL, 0, false,
      "behind a TLS proxy" },
    { "POST", "LocalHost", "Origin: HTTP://lOCALhOST@\r\n", NULL, 0, false, "in any case" },
    { "POST", "localhost", "Origin: http://localhost@\r\nSec-Fetch-Site: same-origin\r\n", NULL,
      0, false, "both fields" },
    { "POST", "localhost", "Sec-Fetch-Site: same-origin\r\n", NULL, 0, false, "one of them" },
    { "GET", "localhost", "sec-fetch-site: none\r\n", NULL, 0, false, "typed by the person" },
    { "POST", "127.0.0.2", "Origin: http://evil.example\r\n", NULL, 0, true,
      "a page of another site" },
    { "POST", "127.0.0.2", "Origin: null\r\n", NULL, 0, true,
      "a page in a sandbox, or from a file" },
    { "POST", "127.0.0.2", "Origin:\r\n", NULL, 0, true, "an empty Origin" },
    { "POST", "127.0.0.2", "Origin: http://\r\n", NULL, 0, true, "a scheme alone" },
    { "POST", "127.0.0.2", "Origin: ftp://127.0.0.2@\r\n", NULL, 0, true, "another scheme" },
    { "POST", "127.0.0.2", "Origin: xhttp://127.0.0.2@\r\n", NULL, 0, true,
      "and one with an x" },
    { "POST", "127.0.0.2", "Origin: 127.0.0.2@\r\n", NULL, 0, true, "no scheme" },
    { "POST", "127.0.0.2", "Origin: http://127.0.0.2@/\r\n", NULL, 0, true, "with a path" },
    { "POST", "127.0.0.2", "Origin: http://127.0.0.2:9\r\n", NULL, 0, true, "another port" },
    { "POST", "127.0.0.2", "Origin: http://127.0.0.2:443\r\n", NULL, 0, true, "https's port" },
    { "POST", "127.0.0.2", "Origin: http://127.0.0.1@\r\n", NULL, 0, true, "another address" },
    { "POST", "127.0.0.2", "Origin: http://localhost@\r\n", NULL, 0, true,
      "another name of the same address" },
    { "POST", "127.0.0.2", "Origin: http://x127.0.0.2@\r\n", NULL, 0, true,
      "it ends with the host" },
    { "POST", "127.0.0.2", "Origin: http://127.0.0.2@ http://evil.example\r\n", NULL, 0, true,
      "a list" },
    { "POST", "127.0.0.2", "Origin: http://127.0.0.2@\r\nOrigin: http://127.0.0.2@\r\n", NULL,
      0, true, "Origin twice" },
    { "POST", "127.0.0.2", "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: same-origin\r\n",
      NULL, 0, true, "Sec-Fetch-Site twice" },
    { "POST", "127.0.0.2", "Sec-Fetch-Site: cross-site\r\n", NULL, 0, true, "another site" },
    { "POST", "127.0.0.2", "Sec-Fetch-Site: same-site\r\n", NULL, 0, true,
      "another port or subdomain" },
    { "POST", "127.0.0.2", "Sec-Fetch-Site:\r\n", NULL, 0, true, "an empty one" },
    { "POST", "127.0.0.2", "Sec-Fetch-Site: same-origin, cross-site\r\n", NULL, 0, true,
      "a list of two" },
    { "POST", "127.0.0.2", "Origin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n",
      NULL, 0, true, "Origin tells otherwise" },
    { "POST", "127.0.0.2", "Origin: http://127.0.0.2@\r\nSec-Fetch-Site: cross-site\r\n", NULL,
      0, true, "Sec-Fetch-Site does" },
    { "POST", "evil.example", "Origin: http://evil.example@\r\n", NULL, 0, true,
      "DNS rebinding: the host is the page's own" },
    { "POST", "evil.example", "Sec-Fetch-Site: same-origin\r\n", NULL, 0, true,
      "DNS rebinding behind TLS" },
    { "POST", "", "Origin: http://\r\n", NULL, 0, true, "a browser without a host" },
    { "POST", "", "Origin: http://\r\n", "*", 0, true, "even where any is good" },
    { "POST", "", "Sec-Fetch-Site: none\r\n", NULL, 0, true, "with the other field" },
    { "POST", "a.example", "Origin: https://a.example@\r\n", "b.example,A.Example", 0, false,
      "a host of one's own" },
    { "POST", "b.example", "Origin: https://a.example@\r\n", "b.example,a.example", 0, true,
      "two of them are two origins" },
    { "POST", "a.example", "Origin: https://a.example@\r\n", "*", 0, false, "any host" },
    { "POST", "a.example", "Origin: https://b.example@\r\n", "*", 0, true,
      "but not any origin" },
    { "POST", "www.a.example", "Origin: https://www.a.example@\r\n", "a.example", 0, true,
      "a name below it is another one" },
    { "POST", "a.example", "Origin: https://a.example@\r\n", "", 0, true, "an empty list" },
    { "GET", "evil.example", "", NULL, ALWAYS, true, "DNS rebinding, reading" },
    { "GET", "a.example", "", "a.example", ALWAYS, false, "a host of one's own" },
    { "GET", "a.example", "", "*", ALWAYS, false, "any host" },
    { "GET", "", "", NULL, ALWAYS, false, "HTTP/1.0 without Host" },
    { "GET", "x.localhost", "", NULL, ALWAYS, false, "RFC 6761 s.6.3: it is loopback" },
    { "GET", "xlocalhost", "", NULL, ALWAYS, true, "which this isn't" },
    { "GET", ".localhost", "", NULL, ALWAYS, true, "nor this" },
    { "GET", "localhost.", "", NULL, ALWAYS, true, "nor this: browsers keep the dot" },
    { "GET", "localhost.evil.example", "", NULL, ALWAYS, true, "it begins with the name" },
    { "GET", "127.0.0.1", "", NULL, ALWAYS, false, "the usual one" },
    { "GET", "127.255.255.254", "", NULL, ALWAYS, false, "the last one" },
    { "GET", "127.9.90.109", "", NULL, ALWAYS, false, "the highest digit" },
    { "GET", "[::1]", "", NULL, ALWAYS, false, "a proxy's of IPv6" },
    { "GET", "[::2]", "", NULL, ALWAYS, true, "another one" },
    { "GET", "127.", "", NULL, ALWAYS, true, "no dotted quad" },
    { "GET", "127....", "", NULL, ALWAYS, true, "nor this" },
    { "GET", "127.1", "", NULL, ALWAYS, true, "browsers send 127.0.0.1 for it" },
    { "GET", "127.0.00.1", "", NULL, ALWAYS, true, "a leading zero" },
    { "GET", "127.0.0.256", "", NULL, ALWAYS, true, "256" },
    { "GET", "127.0.0.1.", "", NULL, ALWAYS, true, "a dot behind it" },
    { "GET", "127.0.0.1.evil.example", "", NULL, ALWAYS, true, "a name that begins so" },
    { "GET", "127.000.000.00000000000001", "", NULL, ALWAYS, true, "longer than any" },
    { "GET", "128.0.0.1", "", NULL, ALWAYS, true, "another machine's" },
    { "GET", "0.0.0.0", "", NULL, ALWAYS, true, "which leads here as well" },
    { "POST", NULL, NULL, NULL, 0, false, "and needn't be" },
    { "POST", NULL, "Origin: http://127.0.0.1\r\n", NULL, 0, true, "HTTP/1.0 without a host" },
#define LINK "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: "
    { "GET", "localhost", LINK "document\r\n", NULL, ALWAYS | LINKS, false, "a link" },
    { "HEAD", "localhost", LINK "document\r\n", NULL, LINKS, false, "its head" },
    { "GET", "localhost", LINK "document\r\n", NULL, ALWAYS, true, "where links don't count" },
    { "POST", "localhost", LINK "document\r\n", NULL, LINKS, true, "a form" },
    { "GET", "localhost", LINK "iframe\r\n", NULL, LINKS, true, "a frame" },
    { "GET", "localhost", LINK "document\r\nSec-Fetch-Dest: document\r\n", NULL, LINKS, true,
      "twice" },
    { "GET", "localhost",
      "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: document\r\n",
      NULL, LINKS, true, "no navigation" },
    { "GET", "localhost", "Sec-Fetch-Site: cross-site\r\n" LINK "document\r\n", NULL, LINKS,
      true, "Sec-Fetch-Site twice" },
    { "GET", "evil.example", LINK "document\r\n", NULL, LINKS, true, "DNS rebinding" },
    { "GET", "localhost", "Origin: http://evil.example\r\n" LINK "document\r\n", NULL, LINKS,
      true, "an Origin beside it" },
#undef LINK
};

/* Whose requests are refused. Each row is tried with a port at the host as well. */
static void test_cross_site(void)
{
    for (size_t i = 0; i < 2 * COUNT(cross_site_rows); i++) {
        const char *port = i % 2 ? ":65535" : "", *in = cross_site_rows[i / 2].fields;
        char host[64], fields[256];
        size_t n = 0;
        for (; in && *in; in++) {
            bool mark = *in == '@';
            n += (size_t)snprintf(fields + n, sizeof fields - n, "%.*s", mark ? 6 : 1,
                                  mark ? port : in);
        }
        const char *asked = cross_site_rows[i / 2].host ? cross_site_rows[i / 2].host : "";
        snprintf(host, sizeof host, "%s%s", asked, *asked ? port : "");
        char *copy = exact(fields, n), *name = exact(host, strlen(host));
        ka_event ev = { .kind = KA_REQUEST, .method = str(cross_site_rows[i / 2].method) };
        if (in) ev.fields = (ka_str){ copy, n };
        if (cross_site_rows[i / 2].host) ev.host = (ka_str){ name, strlen(host) };
        ka_str none;
        ev.browser = ka_field(ev.fields, "origin", &none) != KA_ENOTFOUND ||
                     ka_field(ev.fields, "sec-fetch-site", &none) != KA_ENOTFOUND;
        bool got = ka_cross_site(&ev, cross_site_rows[i / 2].hosts, cross_site_rows[i / 2].how);
        CHECK(got == cross_site_rows[i / 2].want, "%s (%s): got %d", cross_site_rows[i / 2].why,
              host, got);
        free(copy);
        free(name);
    }
    for (size_t i = 0; i < COUNT(cross_site_ports); i++) {
        char *copy = exact(cross_site_ports[i].origin, strlen(cross_site_ports[i].origin));
        char *name = exact(cross_site_ports[i].host, strlen(cross_site_ports[i].host));
        ka_event ev = { .kind = KA_REQUEST,
                        .method = str("POST"),
                        .host = str(cross_site_ports[i].host),
                        .browser = true };
        ev.fields = (ka_str){ copy, strlen(cross_site_ports[i].origin) };
        ev.host.p = name;
        CHECK(ka_cross_site(&ev, "*", 0) == cross_site_ports[i].want, "%s for %s",
              cross_site_ports[i].origin, cross_site_ports[i].host);
        free(copy);
        free(name);
    }
    for (size_t i = 0; i < COUNT(cross_site_lists); i++)
        CHECK(ka_hosts_valid(cross_site_lists[i].hosts) == cross_site_lists[i].want, "\"%s\"",
              cross_site_lists[i].hosts ? cross_site_lists[i].hosts : "NULL");
}

static const subject cross_site_topics[] = {
    { "cross site", test_cross_site },
};
