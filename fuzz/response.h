/* fuzz/response.h - the target response: by the parser and by the client. */

typedef struct { int status, error, taken, ended; size_t n; uint64_t body; } reading;

/* Have the client post, and answer it with n bytes in pieces, then with the end if `end`. */
static reading read_answer(const char *p, size_t n, size_t cut, bool end)
{
    sim_begin();
    ka_client c = { .ip = "127.0.0.1", .port = 9, .until_ms = ka_now_ms() + 50 };
    ka_str answer = { NULL, 0 };
    peer *s = sim_peer(0);
    s->cut = cut;
    s->fin = end;
    append(&s->to_server, p, n);
    reading r = { .status = ka_client_post(&c, "a=b", 3, &answer) };
    if (r.status == KA_EAGAIN || r.status == KA_EFULL) {      /* a miss that says so */
        CHECK(ka_is(answer, r.status == KA_EAGAIN ? "try_later" : "server_full"), "missed");
        r.status = 503;
    }
    CHECK(r.status == KA_EOFFLINE || r.status == KA_EPROTO || (r.status >= 200 && r.status <= 599),
          "got %d", r.status);
    CHECK(answer.n <= KA_MAX_HEAD + KA_MAX_BODY, "an answer of %d bytes", (int)answer.n);
    r.taken = (int)s->received;
    if (r.status >= 200) {
        CHECK((answer.p >= c.buf && answer.p + answer.n <= c.buf + sizeof c.buf),
              "not in the buffer");
        r.n = answer.n;
        r.body = hash(answer.p, answer.n);
        r.ended = !c.open;
    }
    CHECK(strncmp(s->from_server.p, "POST / HTTP/1.1\r\nHost: 127.0.0.1:9\r\n", 36) == 0,
          "another request");
    ka_client_close(&c);
    sim_end();
    return r;
}

static void target_response(const char *p, size_t n)
{
    ka__http h;
    ptrdiff_t r = ka__http_response(&h, p, n);
    CHECK(r == KA_EAGAIN || r == KA_ESYNTAX || (r > 0 && (size_t)r <= n), "got %d of %d", (int)r,
          (int)n);
    check_cuts(ka__http_response, false, &h, r, p, n);
    if (r > 0) check_head(&h, p, (size_t)r, false);
    if (r > 0) check_fields(&h, p, (size_t)r);

    reading whole = read_answer(p, n, SIZE_MAX, true);
    /* It took one whole body, behind the interim answers. */
    for (size_t at = 0; whole.status > 0; at += (size_t)r) {
        r = ka__http_response(&h, p + at, n - at);
        CHECK(r > 0, "took a head that is none");
        if (h.status < 200) continue;
        size_t left = n - at - (size_t)r, want = h.length >= 0 ? (size_t)h.length : left;
        size_t taken = want;
        if (h.status == 204 || h.status == 304) taken = want = 0;
        else if (h.chunked) {
            decoded d = decode(p + n - left, left, KA_MAX_BODY, SIZE_MAX);
            CHECK(d.done && hash(d.out.p, d.out.n) == whole.body, "another body");
            want = d.out.n;
            taken = d.used;
            release(&d.out);
        } else CHECK(want <= left && hash(p + n - left, want) == whole.body,
                     "a body of %d, with a length of %d", (int)left, (int)want);
        CHECK(taken == left || whole.ended,
              "%d bytes behind the answer, and the connection is used again", (int)(left - taken));
        CHECK(whole.status == h.status && whole.n == want, "%d with %d bytes, want %d with %d",
              whole.status, (int)whole.n, h.status, (int)want);
        break;
    }
    /* What it takes in pieces is what it takes of those at once. */
    for (int i = 0; i < 3; i++) {
        size_t cut = i == 0 ? 1 : 2 + (size_t)(hash(p, n) >> (8 * i)) % 60;
        reading pieces = read_answer(p, n, cut, true),
                same = read_answer(p, (size_t)pieces.taken, SIZE_MAX, true);
        CHECK(pieces.status == same.status && pieces.n == same.n && pieces.body == same.body &&
                  pieces.ended == same.ended,
              "by %d: %d with %d bytes, at once: %d with %d", (int)cut, pieces.status,
              (int)pieces.n, same.status, (int)same.n);
        /* and of more bytes at once it takes the same */
        CHECK(whole.status == pieces.status && whole.n == pieces.n && whole.body == pieces.body,
              "by %d: %d with %d bytes, all at once: %d with %d", (int)cut, pieces.status,
              (int)pieces.n, whole.status, (int)whole.n);
    }
    reading open = read_answer(p, n, SIZE_MAX, false);      /* never ending: late, or the same */
    CHECK(open.status == whole.status ? open.n == whole.n && open.body == whole.body
                                      : open.status == KA_EOFFLINE,
          "without an end: %d, with: %d", open.status, whole.status);
}
