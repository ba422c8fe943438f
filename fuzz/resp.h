/* fuzz/resp.h - the target resp. */

/* The value at *at, by the definition; *at: behind it.
     returns    KA_OK; KA_EAGAIN: it goes on; KA_ESYNTAX */
static int plain_resp(const char *p, size_t n, size_t *at)
{
    char number[24] = "";
    if (*at == n) return KA_EAGAIN;
    char mark = p[(*at)++];
    size_t from = *at;
    if (!mark || !strchr("+-:$*", mark)) return KA_ESYNTAX;
    while (*at < n && p[*at] != '\r' && p[*at] != '\n') ++*at;
    if (*at == n) return KA_EAGAIN;
    if (p[*at] == '\n') return KA_ESYNTAX;
    if (*at + 1 == n) return KA_EAGAIN;
    if (p[*at + 1] != '\n') return KA_ESYNTAX;
    size_t size = *at - from, sign = size > 0 && (p[from] == '-' || p[from] == '+'), zeros = 0;
    *at += 2;
    if (mark == '+' || mark == '-') return KA_OK;
    for (size_t i = sign; i < size; i++)
        if (p[from + i] < '0' || p[from + i] > '9') return KA_ESYNTAX;
    while (sign + zeros + 1 < size && p[from + sign + zeros] == '0') zeros++;
    if (size == sign || size - sign - zeros > 19) return KA_ESYNTAX;
    memcpy(number, p + from, sign);
    memcpy(number + sign, p + from + sign + zeros, size - sign - zeros);
    errno = 0;
    long long value = strtoll(number, NULL, 10);
    if (errno == ERANGE) return KA_ESYNTAX;
    if (mark == ':' || (size == 2 && memcmp(p + from, "-1", 2) == 0)) return KA_OK;
    if (sign || zeros || value > INT32_MAX) return KA_ESYNTAX;
    if (mark == '$') {
        if (n - *at < (size_t)value + 2) return KA_EAGAIN;
        *at += (size_t)value + 2;
        return memcmp(p + *at - 2, "\r\n", 2) == 0 ? KA_OK : KA_ESYNTAX;
    }
    int r = KA_OK;
    for (long long i = 0; i < value && r == KA_OK; i++) r = plain_resp(p, n, at);
    return r;
}

/* A value that was read from these bytes, and all that is in it. */
static void resp_check(const ka_resp *v, const char *p, size_t n)
{
    size_t line = (size_t)((const char *)memchr(p, '\r', n) - p), at = line + 2;
    ka_resp rest = *v, element;
    switch (*p) {
    case '+': case '-': case ':':
        CHECK(v->kind == (*p == '+'   ? KA_RESP_STRING
                          : *p == '-' ? KA_RESP_ERROR
                                      : KA_RESP_INTEGER) &&
                  v->text.p == p + 1 && v->text.n == line - 1 && at == n,
              "%c is of kind %d", *p, v->kind);
        if (*p == ':')
            CHECK(v->number == strtoll(p + 1, NULL, 10), "the number %lld", (long long)v->number);
        CHECK(!ka_resp_next(&rest, &element), "it has no elements");
        return;
    case '$':
        CHECK(v->kind == KA_RESP_STRING
                  ? v->text.p == p + at && v->text.n == n - at - 2
                  : v->kind == KA_RESP_NIL && v->text.n == 0 && v->number == -1 && at == n,
              "kind %d, %d bytes", v->kind, (int)v->text.n);
        CHECK(!ka_resp_next(&rest, &element), "it has no elements");
        return;
    default:
        if (v->kind == KA_RESP_NIL) {
            CHECK(v->number == -1 && at == n && !ka_resp_next(&rest, &element),
                  "an array that is none");
            return;
        }
        CHECK(v->kind == KA_RESP_ARRAY && v->text.p == p + at && v->text.n == n - at,
              "kind %d, %d bytes of elements", v->kind, (int)v->text.n);
        CHECK(v->number == strtoll(p + 1, NULL, 10), "%lld elements", (long long)v->number);
    }
    for (int64_t i = 0; i < v->number; i++) {
        size_t from = at;
        CHECK(ka_resp_next(&rest, &element) && plain_resp(p, n, &at) == KA_OK,
              "element %lld of %lld", (long long)i, (long long)v->number);
        CHECK(rest.text.p == p + at && rest.text.n == n - at && rest.number == v->number - i - 1,
              "what is behind element %lld", (long long)i);
        resp_check(&element, p + from, at - from);
    }
    CHECK(at == n && !ka_resp_next(&rest, &element) && rest.text.n == 0,
          "elements behind the last one");
}

/* Read as one value, from a block of its own. */
static bool resp_is_whole(const char *p, size_t n, bool deep)
{
    ka_resp v;
    char *in = exact(p, n);
    int r = ka_resp_read(&v, (ka_str){ in, n });
    CHECK(r == KA_OK ? v.kind > 0 : r == KA_ESYNTAX && v.kind == 0, "%d, of kind %d", r, v.kind);
    if (r == KA_OK && deep) resp_check(&v, in, n);
    exact_free(in, n);
    return r == KA_OK;
}

/* As the framing reads it, which goes on where it stopped. KA_OK: *end. */
static int resp_in_pieces(const char *p, size_t n, size_t piece, size_t *end)
{
    ka_cut cut = { 0, 0, 0 };
    for (size_t at = 0; ; ) {
        at = n - at < piece ? n : at + piece;
        char *in = exact(p, at);
        ptrdiff_t r = ka__resp_find(&cut, in, at);
        exact_free(in, at);
        if (r != KA_EAGAIN || at == n) return r >= 0 ? *end = (size_t)r, KA_OK : (int)r;
    }
}

/* Arguments are written as an array of strings, in just that room, and read back; no cut of it is
   whole. */
static void resp_arguments(const char *p, size_t n)
{
    enum { ARGS = 12 };
    ka_str args[ARGS];
    size_t args_n = 0;
    for (input in = { p, n }; in.n > 0 && args_n < ARGS; args_n++) {
        size_t size = next_byte(&in) % 64;
        if (size > in.n) size = in.n;
        args[args_n] = (ka_str){ in.p, size };
        in.p += size;
        in.n -= size;
    }
    char *room = malloc(n + 32 + 16 * ARGS), *text;
    if (!room) abort();
    ptrdiff_t size = ka_resp_command(room, n + 32 + 16 * ARGS, args, args_n);
    CHECK(size > 0, "a command of %d arguments: %d", (int)args_n, (int)size);
    for (size_t less = size < 40 ? 0 : (size_t)size - 20; less <= (size_t)size; less++) {
        text = exact(room, less);
        CHECK(ka_resp_command(text, less, args, args_n) ==
                      (less < (size_t)size ? KA_ENOSPC : size) &&
                  memcmp(text, room, less < (size_t)size ? 0 : less) == 0,
              "%d bytes in %d", (int)size, (int)less);
        CHECK(resp_is_whole(room, less, true) == (less == (size_t)size),
              "a command's %d bytes of %d", (int)less, (int)size);
        exact_free(text, less);
    }
    ka_resp v, arg;
    CHECK(ka_resp_read(&v, (ka_str){ room, (size_t)size }) == KA_OK && v.kind == KA_RESP_ARRAY &&
              v.number == (int64_t)args_n,
          "a command of %d arguments", (int)args_n);
    for (size_t i = 0; i < args_n; i++)
        CHECK(ka_resp_next(&v, &arg) && arg.kind == KA_RESP_STRING && arg.text.n == args[i].n &&
                  memcmp(arg.text.p, args[i].p, arg.text.n) == 0,
              "argument %d", (int)i);
    free(room);
}

static void target_resp(const char *p, size_t n)
{
    size_t end = 0, found = 0;
    int want = plain_resp(p, n, &end);
    uint64_t h = hash(p, n);
    for (int i = 0; i < 3; i++) {
        size_t piece = i == 0 ? n + 1 : i == 1 ? 1 : 2 + (size_t)h % 50;
        int r = resp_in_pieces(p, n, piece, &found);
        CHECK(r == want && (r < 0 || found == end), "by %d: %d and %d bytes, want %d and %d",
              (int)piece, r, (int)found, want, (int)end);
    }
    CHECK(resp_is_whole(p, n, true) == (want == KA_OK && end == n),
          "the framing says %d, and %d of %d bytes", want, (int)end, (int)n);
    if (want == KA_OK)
        CHECK(resp_is_whole(p, end, true) && !resp_is_whole(p, end - 1, false),
              "a value of %d bytes", (int)end);
    ka_resp rest = { KA_RESP_ARRAY, { p, n }, INT64_MAX }, element;      /* an array of any bytes */
    for (size_t at = 0, from = 0; ; from = at) {
        int r = plain_resp(p, n, &at);
        CHECK(ka_resp_next(&rest, &element) == (r == KA_OK), "the value at %d: %d", (int)from, r);
        if (r < 0) break;
        CHECK(rest.text.p == p + at && rest.text.n == n - at, "what is behind %d", (int)at);
    }
    resp_arguments(p, n);
}
