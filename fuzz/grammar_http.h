/* fuzz/grammar_http.h - the second reader of heads and chunked bodies: the grammar of grammar.h,
   and what RFC 9110 and RFC 9112 say beside it. */

/* What may be wrong with a head. All faults of the line that is refused are gathered: any of their
   statuses fits. */
enum { FAULT_400 = 1, FAULT_417 = 2, FAULT_501 = 4, FAULT_505 = 8 };

typedef struct {
    ka__http h;                  /* what it says */
    int     r, faults;          /* KA_OK, KA_EAGAIN or KA_ESYNTAX, and what is wrong */
    size_t  size;               /* of the head */
    int     hosts, codings, chunked, unknown;      /* Host fields; codings of the body */
    bool    chunked_last, close, keep;
} plain_head;

static bool same_word(const char *p, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

static int refused(plain_head *d, int fault)
{
    d->faults |= fault;
    return d->r = KA_ESYNTAX;
}

static int stuck(plain_head *d, const source *s)
{
    return s->more ? (d->r = KA_EAGAIN) : refused(d, FAULT_400);
}

/* A line with its LF, or what is there of it. */
static source line_at(const char *p, size_t n)
{
    const char *lf = n ? memchr(p, '\n', n) : NULL;
    size_t size = lf ? (size_t)(lf - p) + 1 : n;
    CHECK(size <= GRAMMAR_BYTES, "a line of %d bytes", (int)size);
    return (source){ p, size, false };
}

/* A host that may be empty, and a port up to 65535 that may have no digits. */
static bool host_fits(const char *p, size_t n, bool may_be_empty, bool needs_port)
{
    if (!is_all(host_port, p, n)) return false;
    size_t digits = 0, port = 0;
    while (digits < n && digit((unsigned char)p[n - 1 - digits])) digits++;
    bool has_port = digits < n && p[n - 1 - digits] == ':' && !is_all(host, p, n);
    if (has_port)
        for (size_t i = n - digits; i < n && port <= 65535; i++)
            port = port * 10 + (size_t)(p[i] - '0');
    if (needs_port && (!has_port || digits == 0)) return false;
    size_t name = has_port ? n - digits - 1 : n;
    return port <= 65535 && (name > 0 || (may_be_empty && !has_port));
}

/* RFC 9112 s.3.2: the forms of a target. Only http and https are served. */
static bool target_fits(ka__http *h)
{
    const char *p = h->target.p, *end = p + h->target.n;
    if (ka_is(h->method, "CONNECT")) {
        h->host = h->target;
        return host_fits(p, h->target.n, false, true);
    }
    if (*p == '/') return true;
    if (h->target.n == 1 && *p == '*') return ka_is(h->method, "OPTIONS");
    size_t scheme = h->target.n >= 7 && strncasecmp(p, "http://", 7) == 0 ? 7
                  : h->target.n >= 8 && strncasecmp(p, "https://", 8) == 0 ? 8 : 0;
    const char *path = p + scheme;
    while (path < end && *path != '/' && *path != '?') path++;
    h->host = (ka_str){ p + scheme, (size_t)(path - p) - scheme };
    h->target = path < end ? (ka_str){ path, (size_t)(end - path) } : (ka_str){ "/", 1 };
    return scheme > 0 && host_fits(h->host.p, h->host.n, false, false);
}

static places version(plain_head *d, source *s, places at)      /* RFC 9112 s.2.3 */
{
    at = one(s, byte(s, one(s, literal(s, at, "HTTP/"), digit), '.'), digit);
    if (!at) return 0;
    const char *numbers = s->p + only(at) - 3;
    d->h.minor = numbers[2] > '0';
    if (numbers[0] == '1') return at;
    refused(d, FAULT_505);
    return 0;
}

/* Returns where the line ends; 0: see d->r. */
static places request_line(plain_head *d, source *s)
{
    places method = token(s, 1), target = some(s, byte(s, method, ' '), target_char);
    places end = version(d, s, byte(s, target, ' '));
    if (d->r < 0) return 0;
    end = literal(s, end, "\r\n");
    if (!end) return (void)stuck(d, s), 0;
    size_t space = (size_t)((const char *)memchr(s->p, ' ', s->n) - s->p), from = space + 1;
    d->h.method = (ka_str){ s->p, space };
    d->h.target = (ka_str){ s->p + from, only(end) - 11 - from };      /* " HTTP/1.1" CRLF */
    if (target_fits(&d->h)) return end;
    refused(d, FAULT_400);
    return 0;
}

static places status_line(plain_head *d, source *s)      /* s.4; "200" alone is taken, too */
{
    places code = times(s, byte(s, version(d, s, 1), ' '), 3, 3, digit);
    if (d->r < 0) return 0;
    if (code && only(code) < s->n) {
        const char *three = s->p + only(code) - 3;
        d->h.status = (three[0] - '0') * 100 + (three[1] - '0') * 10 + three[2] - '0';
        if (d->h.status < 100 || d->h.status > 599) return (void)refused(d, FAULT_400), 0;
    }
    places end = literal(s, code | many(s, byte(s, code, ' '), field_text), "\r\n");
    if (!end) stuck(d, s);
    return end;
}

static bool member_of(const char **p, const char *end, ka_str *member)      /* RFC 9110 s.5.6.1 */
{
    while (*p < end && (blank((unsigned char)**p) || **p == ',')) ++*p;
    const char *from = *p;
    while (*p < end && **p != ',') ++*p;
    const char *to = *p;
    while (to > from && blank((unsigned char)to[-1])) to--;
    *member = (ka_str){ from, (size_t)(to - from) };
    return to > from;
}

static void read_list(plain_head *d, bool codings, ka_str value)
{
    ka_str m;
    for (const char *p = value.p; member_of(&p, value.p + value.n, &m); ) {
        bool chunked = same_word(m.p, m.n, "chunked");
        if (codings) {
            d->chunked += chunked;
            d->unknown += !chunked;
            d->chunked_last = chunked;
        } else {
            d->close |= same_word(m.p, m.n, "close");
            d->keep |= same_word(m.p, m.n, "keep-alive");
        }
    }
}

/* RFC 9110 s.8.6, RFC 9112 s.6.3. The last ten numbers of 63 bits may be refused. */
static void read_length(plain_head *d, ka_str v)
{
    uint64_t length = 0;
    bool fits = v.n > 0 && d->h.length < 0;
    for (size_t i = 0; i < v.n && fits; i++) {
        fits = digit((unsigned char)v.p[i]) && length <= (INT64_MAX - 9) / 10;
        length = length * 10 + (uint64_t)(v.p[i] - '0');
    }
    if (!fits) refused(d, FAULT_400);
    else d->h.length = (int64_t)length;
}

static void heed_line(plain_head *d, bool request, const char *p, size_t n)
{
    size_t name = (size_t)((const char *)memchr(p, ':', n) - p);
    ka_str v = { p + name + 1, n - name - 1 };
    while (v.n && blank((unsigned char)*v.p)) v.p++, v.n--;
    while (v.n && blank((unsigned char)v.p[v.n - 1])) v.n--;
    if (same_word(p, name, "content-length")) read_length(d, v);
    if (same_word(p, name, "connection")) read_list(d, false, v);
    if (same_word(p, name, "transfer-encoding")) {
        d->codings++;
        read_list(d, true, v);
    }
    if (!request) return;
    if (same_word(p, name, "host")) {
        if (d->hosts++ || !host_fits(v.p, v.n, true, false)) refused(d, FAULT_400);
        if (!d->h.host.p) d->h.host = v;
    }
    if (same_word(p, name, "expect")) {
        d->h.expects = true;
        if (!same_word(v.p, v.n, "100-continue")) refused(d, FAULT_417);
    }
    d->h.browser |= same_word(p, name, "origin") || same_word(p, name, "sec-fetch-site");
}

/* What can be told at the end only: RFC 9112 s.3.2, s.6.1, s.6.3, s.9.3. */
static void close_head(plain_head *d, bool request)
{
    if (request && d->h.minor && d->hosts != 1) refused(d, FAULT_400);
    if (d->codings && (d->h.length >= 0 || !d->h.minor)) refused(d, FAULT_400);
    if (d->codings && (d->chunked != 1 || !d->chunked_last)) refused(d, FAULT_400);
    if (d->unknown) refused(d, FAULT_501);
    d->h.chunked = d->codings > 0;
    d->h.keep_alive = !d->close && (d->h.minor || d->keep);
    d->h.expects = d->h.expects && d->h.minor;
}

static plain_head read_head(const char *p, size_t n, bool request)
{
    plain_head d = { .h = { .length = -1 } };
    source s = line_at(p, n);
    places at = request ? request_line(&d, &s) : status_line(&d, &s);
    size_t first = at ? only(at) : 0;
    for (size_t from = first; d.r == KA_OK; from += s.n) {
        s = line_at(p + from, n - from);
        if (literal(&s, 1, "\r\n")) {
            d.size = from + 2;
            d.h.fields = (ka_str){ p + first, from - first };
            close_head(&d, request);
            break;
        }
        if (!literal(&s, field_line(&s, 1), "\r\n")) stuck(&d, &s);
        else heed_line(&d, request, p + from, s.n - 2);
    }
    return d;
}

/* ---- chunked bodies ---- */

typedef struct { int r; size_t size, out_n; char out[GRAMMAR_BYTES]; } plain_body;

/* The first fault of a size: too large a number, or too long a line. */
static int size_fault(const char *p, size_t n, size_t room, size_t *size)
{
    size_t line = 0;
    *size = 0;
    while (line < n && p[line] != '\r') line++;
    for (size_t i = 0; i < line && i <= KA_MAX_CHUNK_LINE && hexdig((unsigned char)p[i]); i++) {
        char c = (char)tolower((unsigned char)p[i]);
        *size = *size * 16 + (size_t)(digit((unsigned char)c) ? c - '0' : c - 'a' + 10);
        if (*size > room) return KA_ENOSPC;
    }
    return line > KA_MAX_CHUNK_LINE ? KA_ESYNTAX : KA_OK;
}

static plain_body read_chunks(const char *p, size_t n, size_t room)
{
    plain_body b = { .r = KA_EAGAIN };
    source s = { p, n, false };
    for (size_t at = 0, size = 1; size > 0; ) {
        int fault = size_fault(p + at, n - at, room, &size);
        places data = literal(&s, chunk_ext(&s, some(&s, place(at), hexdig)), "\r\n"), end;
        if (fault || !data) return b.r = fault ? fault : s.more ? KA_EAGAIN : KA_ESYNTAX, b;
        at = only(data);
        size_t part = size < n - at ? size : n - at;
        memcpy(b.out + b.out_n, p + at, part);
        b.out_n += part;
        room -= part;
        if (part < size) return b;
        if (size > 0) end = literal(&s, place(at += size), "\r\n");
        else
            for (places line = data; !(end = literal(&s, line, "\r\n")) && line; )
                line = literal(&s, field_line(&s, line), "\r\n");
        if (!end) return b.r = s.more ? KA_EAGAIN : KA_ESYNTAX, b;
        at = only(end);
        b.size = at;
    }
    b.r = KA_OK;
    return b;
}
