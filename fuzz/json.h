/* fuzz/json.h - the target json: JSON and Python literals. */

static void json_equal(const ka_json *a, const ka_json *b)
{
    CHECK(a->kind == b->kind, "a value of kind %d has become %d", a->kind, b->kind);
    if (a->kind == KA_NUMBER)
        CHECK(a->raw.n == b->raw.n && memcmp(a->raw.p, b->raw.p, a->raw.n) == 0, "another number");
    if (a->kind == KA_STRING) {
        size_t cap = a->raw.n;      /* enough, as its contract says */
        char *x = exact(a->raw.p, cap), *y = exact(b->raw.p, b->raw.n);
        ptrdiff_t n = ka_json_string(x, cap, a);
        CHECK(n >= 0 && ka_json_string(y, b->raw.n, b) == n && memcmp(x, y, (size_t)n) == 0,
              "another string");
        if (n > 0)
            CHECK(ka_json_string(y, (size_t)n - 1, b) == KA_ENOSPC, "a string of %d bytes, in less",
                  (int)n);
        char *text = exact(x, (size_t)n + 1);
        text[n] = 0;
        CHECK(ka_json_is(a, text) == !memchr(x, 0, (size_t)n),
              "a string is itself, unless it has a NUL");
        exact_free(text, (size_t)n + 1);
        exact_free(x, cap);
        exact_free(y, b->raw.n);
    }
    ka_json p = *a, q = *b, name, other, v, w, found;
    while (ka_json_next(&p, &name, &v)) {
        CHECK(ka_json_next(&q, &other, &w) && name.kind == other.kind, "a member less");
        CHECK(v.raw.p >= a->raw.p && v.raw.p + v.raw.n <= a->raw.p + a->raw.n &&
                  v.python == a->python,
              "a member is a part of it");
        if (name.kind) {
            char called[1024];
            ptrdiff_t n = ka_json_string(called, sizeof called - 1, &name);
            CHECK(n >= 0, "a name can be decoded");
            called[n] = 0;
            int r = memchr(called, 0, (size_t)n) ? KA_ENOTFOUND : ka_json_find(a, called, &found);
            CHECK(r == KA_ENOTFOUND ? memchr(called, 0, (size_t)n) != NULL
                                    : r == KA_EINVAL || (r == KA_OK && found.raw.p == v.raw.p),
                  "a name is found: %d", r);
            json_equal(&name, &other);
        }
        json_equal(&v, &w);
    }
    CHECK(!ka_json_next(&q, &other, &w), "a member more");
}

static size_t json_put(const ka_json *v, bool python, char *room, size_t cap, int want)
{
    ka_json_out w = { .p = room, .cap = cap, .python = python };
    ka_json_put_value(&w, NULL, v);
    CHECK(w.error == want && w.n <= cap, "written into %d: %d, %d bytes", (int)cap, w.error,
          (int)w.n);
    return w.n;
}

/* Written in one language it is read as that, or as either, and means the same; written again it is
   the same. */
static void json_rewrite(const ka_json *v, bool python)
{
    size_t cap = v->raw.n * 6 + 16; /* of one byte of UTF-8, \u007f; of a comma, a space more */
    char *room = block(cap), *text, *again;
    size_t n = json_put(v, python, room, cap, KA_OK);
    text = exact(room, n);
    block_free(room, cap);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i],
                      next = (unsigned char)(i + 1 < n ? text[i + 1] : 0),
                      third = (unsigned char)(i + 2 < n ? text[i + 2] : 0);
        CHECK(c >= 0x20 && c != 0x7F && !(python && c > 0x7F), "byte %d is %02x", (int)i, c);
        CHECK(!(c == 0xC2 && next < 0xA0) && !(c == 0xE2 && next == 0x80 && (third & 0xFE) == 0xA8),
              "byte %d begins what may end a line", (int)i);
    }
    ka_json w;
    int r = ka_json_read(&w, (ka_str){ text, n });
    CHECK(r == KA_OK && w.raw.n == n && (python || !w.python), "written %.*s, read: %d", (int)n,
          text, r);
    json_equal(v, &w);
    for (size_t less = n < 40 ? 0 : n - 20; less <= n; less++) {
        again = exact(text, less);
        size_t m = json_put(&w, python, again, less, less < n ? KA_ENOSPC : KA_OK);
        CHECK(m == (less < n ? 0 : n) && memcmp(again, text, m) == 0, "written again");
        exact_free(again, less);
    }
    exact_free(text, n);
}

static void target_json(const char *p, size_t n)
{
    ka_json v, w;
    bytes more = { 0 };
    int r = ka_json_read(&v, (ka_str){ p, n });
    CHECK(r == KA_OK || r == KA_ESYNTAX || r == KA_ELIMIT, "read: %d", r);
    CHECK(v.raw.p >= p && v.raw.n <= (size_t)(p + n - v.raw.p) && (r == KA_OK) == (v.kind != 0),
          "what was read is a part of it");
    append(&more, p, n);
    append_text(&more, "\"],}9");
    int again = ka_json_read(&w, (ka_str){ more.p, n }); /* what is behind it isn't looked at */
    CHECK(again == r && w.kind == v.kind && w.python == v.python && w.raw.n == v.raw.n,
          "in a larger block: %d, not %d", again, r);
    release(&more);
    if (r < 0) return;
    json_equal(&v, &v);
    json_rewrite(&v, false);
    json_rewrite(&v, true);
    if (v.kind == KA_NUMBER) return;
    size_t step = 1 + v.raw.n / 64;      /* any cut, but not all of a long one's */
    for (size_t cut = v.raw.n; cut > 0; cut = cut > step ? cut - step : 0) {
        char *in = exact(v.raw.p, cut - 1);
        CHECK(ka_json_read(&w, (ka_str){ in, cut - 1 }) == KA_ESYNTAX, "whole after %d bytes of %d",
              (int)cut - 1, (int)v.raw.n);
        exact_free(in, cut - 1);
    }
}
