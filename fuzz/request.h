/* fuzz/request.h - the target request. */

/* A field that decides on framing, by the plainest reading there is. */
typedef struct {
    int hosts, lengths, codings;
    long long length;
    bool close, keep, expects;
} plain_fields;

/* Has the list this member? */
static bool plain_has(const char *p, size_t n, const char *member)
{
    size_t m = strlen(member);
    for (size_t i = 0; i < n; ) {
        while (i < n && strchr(" \t,", p[i]) && p[i]) i++;
        size_t from = i;
        while (i < n && p[i] != ',') i++;
        size_t to = i;
        while (to > from && (p[to - 1] == ' ' || p[to - 1] == '\t')) to--;
        if (to - from == m && strncasecmp(p + from, member, m) == 0) return true;
    }
    return false;
}

static plain_fields plain_read(const char *p, size_t n)
{
    plain_fields f = { .length = -1 };
    const char *line = p, *end = p + n;
    for (int lines = 0; line < end; lines++) {
        const char *next = memmem(line, (size_t)(end - line), "\r\n", 2);
        CHECK(next, "a head without a last line");
        size_t size = (size_t)(next - line);
        for (size_t i = 0; i < size; i++)
            CHECK(line[i] != '\r' && line[i] != '\n' && line[i] != 0, "a bare CR, LF or NUL at %d",
                  (int)(line + i - p));
        CHECK(size > 0 || next + 2 == end, "an empty line at %d of %d", (int)(line - p), (int)n);
        const char *colon = memchr(line, ':', size);
        if (lines > 0 && size > 0) {
            CHECK(colon && colon > line, "a field without a name");
            CHECK(*line != ' ' && *line != '\t' && colon[-1] != ' ' && colon[-1] != '\t',
                  "a blank before a name or a colon");
            size_t name = (size_t)(colon - line);
            const char *v = colon + 1;
            size_t v_n = (size_t)(next - v);
            if (name == 4 && strncasecmp(line, "host", 4) == 0) f.hosts++;
            if (name == 14 && strncasecmp(line, "content-length", 14) == 0) {
                f.lengths++;
                f.length = strtoll(v, NULL, 10);      /* stops at the CR */
            }
            if (name == 17 && strncasecmp(line, "transfer-encoding", 17) == 0) f.codings++;
            if (name == 10 && strncasecmp(line, "connection", 10) == 0) {
                f.close = f.close || plain_has(v, v_n, "close");
                f.keep = f.keep || plain_has(v, v_n, "keep-alive");
            }
            if (name == 6 && strncasecmp(line, "expect", 6) == 0) f.expects = true;
        }
        line = next + 2;
    }
    return f;
}

static void check_head(const ka__http *h, const char *p, size_t n, bool request)
{
    CHECK(n >= 4 && n <= KA_MAX_HEAD && memcmp(p + n - 4, "\r\n\r\n", 4) == 0, "a head of %d bytes",
          (int)n);
    plain_fields f = plain_read(p, n);
    CHECK(f.lengths <= 1 && f.length == h->length, "length %lld, want %lld", (long long)h->length,
          f.length);
    CHECK((f.codings > 0) == h->chunked && (!h->chunked || f.lengths == 0),
          "chunked %d, %d codings, %d lengths", h->chunked, f.codings, f.lengths);
    CHECK(h->minor == 0 || h->minor == 1, "minor %d", h->minor);
    CHECK(!h->chunked || h->minor == 1, "chunked in 1.0");
    CHECK(h->keep_alive == (!f.close && (h->minor || f.keep)), "keep_alive %d", h->keep_alive);
    if (!request) {
        CHECK(h->status >= 100 && h->status <= 599 && atoi(p + 9) == h->status, "status %d",
              h->status);
        return;
    }
    CHECK(h->method.p == p && h->target.p > p && h->target.p + h->target.n <= p + n &&
              (!h->host.p || (h->host.p > p && h->host.p + h->host.n <= p + n)),
          "no view into the head");
    CHECK(f.hosts <= 1 && f.hosts >= h->minor, "%d hosts in 1.%d", f.hosts, h->minor);
    CHECK(h->expects == (f.expects && h->minor), "expects %d", h->expects);
    CHECK(h->status == 0 && h->method.p == p && h->method.n > 0 && p[h->method.n] == ' ',
          "method of %d", (int)h->method.n);
    const char *line = memchr(p, '\r', n);
    const char *end = line - 9;      /* " HTTP/1.x" */
    CHECK(memcmp(end, " HTTP/1.", 8) == 0 && (end[8] > '0') == h->minor, "a version");
    if (h->target.p + h->target.n != end)
        CHECK(ka_is(h->target, "/"), "a target of %d bytes", (int)h->target.n);
    for (size_t i = 0; i < h->target.n; i++)
        CHECK(h->target.p[i] > ' ' && h->target.p[i] < 0x7f && h->target.p[i] != '#',
              "a byte of the target");
}

/* The one line of this name, without the white space. {NULL, 0}: there are none, or several, as *r
   tells. */
static ka_str plain_field(const char *p, size_t n, const char *name, int *r)
{
    ka_str found = { NULL, 0 };
    size_t m = strlen(name);
    int lines = 0;
    for (const char *line = p, *end = p + n, *next; line < end; line = next + 2) {
        next = memmem(line, (size_t)(end - line), "\r\n", 2);
        CHECK(next, "a line without its end");
        if ((size_t)(next - line) <= m || strncasecmp(line, name, m) != 0 || line[m] != ':')
            continue;
        const char *from = line + m + 1, *to = next;
        while (from < to && (*from == ' ' || *from == '\t')) from++;
        while (from < to && (to[-1] == ' ' || to[-1] == '\t')) to--;
        found = (ka_str){ from, (size_t)(to - from) };
        lines++;
    }
    *r = lines == 1 ? KA_OK : lines == 0 ? KA_ENOTFOUND : KA_EINVAL;
    return lines == 1 ? found : (ka_str){ NULL, 0 };
}

static bool same_str(ka_str a, ka_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* A head's field lines are all between its first line and its empty one; each name is found, or is
   there twice. */
static void check_fields(const ka__http *h, const char *p, size_t n)
{
    const char *first = memmem(p, n, "\r\n", 2);
    CHECK(first && h->fields.p == first + 2 && h->fields.n == n - (size_t)(first + 4 - p),
          "%d bytes of fields in %d", (int)h->fields.n, (int)n);
    char *lines = exact(h->fields.p, h->fields.n), name[KA_MAX_HEAD];
    const ka_str fields = { lines, h->fields.n };
    for (const char *line = lines, *end = lines + fields.n; line < end;
         line = (const char *)memmem(line, (size_t)(end - line), "\r\n", 2) + 2) {
        const char *colon = memchr(line, ':', (size_t)(end - line));
        size_t size = colon ? (size_t)(colon - line) : 0;
        CHECK(size > 0 && size + 1 < sizeof name, "a line without a name");
        for (size_t i = 0; i < size; i++) {      /* in another case */
            bool letter = (line[i] | 32) >= 'a' && (line[i] | 32) <= 'z';
            name[i] = (char)(line[i] ^ (letter && i % 3 == 0 ? 32 : 0));
        }
        name[size] = 'x';
        /* The name with an x behind it, itself, and cut short. */
        for (size_t cut = size + 2; cut-- > size - 1;) {
            name[cut] = 0;
            int want_r, r;
            ka_str want = plain_field(lines, fields.n, name, &want_r), got;
            r = ka_field(fields, name, &got);
            CHECK(r == want_r, "%s: %d, want %d", name, r, want_r);
            CHECK(got.n == want.n && (got.n > 0 ? got.p == want.p : !got.p == !want.p),
                  "%s: %d bytes, want %d", name, (int)got.n, (int)want.n);
        }
    }
    ka_str none;
    bool of_target = h->host.p && h->host.p < first;      /* the target names a host */
    if (of_target) CHECK(ka_is(h->method, "CONNECT") || memcmp(h->host.p - 3, "://", 3) == 0,
                         "the target's host");
    else if (!h->method.p) CHECK(!h->host.p, "an answer's host");
    else CHECK(same_str(h->host, plain_field(h->fields.p, h->fields.n, "host", &(int){ 0 })) &&
               memchr("/*", h->target.p[0], 2), "the field's host");
    if (h->host.n > 0 && h->host.p[0] == '[') {
        char ip[64];
        struct in6_addr six;
        snprintf(ip, sizeof ip, "%.*s", (int)strcspn(h->host.p + 1, "]"), h->host.p + 1);
        CHECK(inet_pton(AF_INET6, ip, &six) == 1, "an IPv6 address: %s", ip);
    }
    CHECK(ka_field(fields, "", &none) == KA_ENOTFOUND &&
          ka_field((ka_str){ NULL, 0 }, "a", &none) == KA_ENOTFOUND, "no name, and no fields");
    int origins = ka_field(fields, "origin", &none);
    int sites = ka_field(fields, "sec-fetch-site", &none);
    bool browser = h->method.p && (origins != KA_ENOTFOUND || sites != KA_ENOTFOUND);
    ka_event ev = { .kind = KA_REQUEST, .method = h->method, .host = h->host, .fields = fields,
                    .browser = browser };
    for (int how = 0; how < 4 && h->method.p; how++) {
        bool foreign = ka_cross_site(&ev, NULL, how);
        CHECK(foreign >= ka_cross_site(&ev, "a,*", how), "how %d: more hosts refuse no more", how);
        CHECK(foreign >= ka_cross_site(&ev, NULL, how & KA_LINKS), "how %d: fewer hosts", how);
        CHECK(foreign <= ka_cross_site(&ev, NULL, how & KA_HOST_ALWAYS), "how %d: a link", how);
        if (browser) CHECK(foreign || (origins != KA_EINVAL && sites != KA_EINVAL), "twice");
        else CHECK(how & KA_HOST_ALWAYS || !foreign, "no browser's");
    }
    exact_free(lines, fields.n);
}

static bool same_head(const ka__http *a, const ka__http *b)
{
    return same_str(a->method, b->method) && same_str(a->target, b->target) &&
        same_str(a->host, b->host) && a->status == b->status && a->minor == b->minor &&
           a->length == b->length && a->chunked == b->chunked && a->keep_alive == b->keep_alive &&
           a->expects == b->expects;
}

/* Any cut of a head is incomplete, or refused as the whole is; what follows a head doesn't change
   it. */
static void check_cuts(ptrdiff_t (*parse)(ka__http *, const char *, size_t), bool request,
                       const ka__http *whole, ptrdiff_t r, const char *p, size_t n)
{
    uint64_t h = hash(p, n);
    size_t cuts = n <= 40 ? n : 40, refused_at = n + 1, accepted_at = r >= 0 ? (size_t)r : n + 1;
    for (size_t i = 0; i < cuts; i++, h = h * 6364136223846793005u + 1442695040888963407u) {
        size_t cut = n <= 40 ? i : (size_t)(h >> 33) % n;
        if (r > 0 && i < 2 && n > 40) cut = (size_t)r - i; /* right at its end, and one before */
        ka__http part;
        char *in = exact(p, cut);
        ptrdiff_t got = parse(&part, in, cut);
        if (r == KA_ESYNTAX && got == KA_ESYNTAX) {
            CHECK(!request || part.status == whole->status,
                  "cut at %d: refused with %d, the whole with %d", (int)cut, part.status,
                  whole->status);
            if (cut < refused_at) refused_at = cut;
        } else {
            CHECK(got == (cut < accepted_at ? KA_EAGAIN : r),
                  "cut at %d of %d: got %d, the whole %d", (int)cut, (int)n, (int)got, (int)r);
            if (got >= 0) CHECK(same_head(&part, whole), "cut at %d: another head", (int)cut);
        }
        exact_free(in, cut);
    }
    /* A text that was refused stays refused, whatever comes. */
    for (size_t i = 1; r == KA_ESYNTAX && refused_at + i <= n && i < 8; i++) {
        ka__http part;
        char *in = exact(p, refused_at + i);
        ptrdiff_t got = parse(&part, in, refused_at + i);
        CHECK(got == KA_ESYNTAX && part.status == (request ? whole->status : part.status),
              "refused at %d, but not at %d", (int)refused_at, (int)(refused_at + i));
        exact_free(in, refused_at + i);
    }
}

static void target_request(const char *p, size_t n)
{
    ka__http h, again;
    ptrdiff_t r = ka__http_request(&h, p, n);
    CHECK(r == KA_EAGAIN || r == KA_ESYNTAX || (r > 0 && (size_t)r <= n), "got %d of %d", (int)r,
          (int)n);
    CHECK(r != KA_EAGAIN || n < KA_MAX_HEAD, "still incomplete with %d bytes", (int)n);
    if (r == KA_ESYNTAX)
        CHECK(strstr("400 414 417 431 501 505",
                     (char[]){ (char)('0' + h.status / 100), (char)('0' + h.status / 10 % 10),
                               (char)('0' + h.status % 10), 0 }),
              "status %d", h.status);
    check_cuts(ka__http_request, true, &h, r, p, n);
    if (r < 0) return;
    check_head(&h, p, (size_t)r, true);
    check_fields(&h, p, (size_t)r);
    if (h.target.p[0] == '?')
        return;      /* http://a?b: the part after the authority is no target by itself */
    bytes text = { 0 };      /* written anew it says the same */
    char length[64];
    snprintf(length, sizeof length, "content-LENGTH:%lld\r\n", (long long)h.length);
    append(&text, h.method.p, h.method.n);
    append_text(&text, " ");
    append(&text, h.target.p, h.target.n);
    append_text(&text, h.minor ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n");
    if (h.minor || h.host.p) append_text(&text, "host: \t");
    append(&text, h.host.p, h.host.n);
    if (h.minor || h.host.p) append_text(&text, "\r\n");
    if (h.length >= 0) append_text(&text, length);
    if (h.chunked) append_text(&text, "Transfer-encoding:chunked \r\n");
    if (h.expects) append_text(&text, "EXPECT: 100-CONTINUE\r\n");
    append_text(&text,
                h.keep_alive ? "Connection: a, Keep-Alive\r\n\r\n" : "Connection: CLOSE\r\n\r\n");
    ptrdiff_t r2 = text.n <= KA_MAX_HEAD ? ka__http_request(&again, text.p, text.n) : 0;
    if (text.n <= KA_MAX_HEAD)
        CHECK(r2 == (ptrdiff_t)text.n && same_head(&h, &again), "written anew: %d of %d: %.*s",
              (int)r2, (int)text.n, (int)text.n, text.p);
    release(&text);
}
