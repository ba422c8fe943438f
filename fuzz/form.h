/* fuzz/form.h - the target form: forms, percent-encoding, and the protocol in them. */

static ptrdiff_t plain_percent(char *out, ka_str in)
{
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        char hex[3] = { 0 };
        if (in.p[i] != '%') {
            out[n++] = in.p[i];
            continue;
        }
        if (in.n - i < 3) return KA_ESYNTAX;
        memcpy(hex, in.p + i + 1, 2);
        if (strspn(hex, "0123456789abcdefABCDEF") != 2) return KA_ESYNTAX;
        out[n++] = (char)strtol(hex, NULL, 16);
        i += 2;
    }
    return (ptrdiff_t)n;
}

static void check_percent(ka_str in)
{
    char *want = malloc(in.n + 1);
    if (!want) abort();
    ptrdiff_t expected = plain_percent(want, in);
    char *out = block(in.n);
    ptrdiff_t got = ka_percent_decode(out, in.n, in);
    CHECK(got == expected && (got <= 0 || memcmp(out, want, (size_t)got) == 0), "got %d, want %d",
          (int)got, (int)expected);
    block_free(out, in.n);
    if (got > 0) {
        out = block((size_t)got);
        CHECK(ka_percent_decode(out, (size_t)got, in) == got, "room for exactly %d", (int)got);
        CHECK(ka_percent_decode(out, (size_t)got - 1, in) == KA_ENOSPC, "one short of %d",
              (int)got);
        block_free(out, (size_t)got);
    }
    out = exact(in.p, in.n);      /* in place */
    got = ka_percent_decode(out, in.n, (ka_str){ out, in.n });
    CHECK(got == expected && (got <= 0 || memcmp(out, want, (size_t)got) == 0),
          "in place: got %d, want %d", (int)got, (int)expected);
    exact_free(out, in.n);
    free(want);
}

/* What ka_auth says: its status, and its text of *n bytes. 0: the store answers later. */
static int auth_answer(ka_server *server, ka_store *store, const ka_event *ev,
                       char text[KA_MAX_ID], size_t *n)
{
    ka_ticket t = ka__ticket_of(server, store, ev);
    ka_str said = { NULL, 0 };
    int status = ka__auth_answer(&t, ev, &said);
    if (status) memcpy(text, said.p, said.n);
    *n = status ? said.n : 0;
    return status;
}

/* ask_key=ID, then login=KEY, gives that ID. */
static void check_protocol(ka_str body)
{
    static ka_server none;
    ka_keyring keys;
    char text[KA_MAX_ID], id[KA_MAX_ID], login[6 + 3 * KA_KEY_TEXT];
    size_t n = 12345, id_n;
    ka_event ev = { .kind = KA_REQUEST,
                    .method = { "POST", 4 },
                    .target = { "/", 1 },
                    .body = body,
                    .now_ms = ka_now_ms() };
    if (ka_keyring_init(&keys, 1, 5) < 0) abort();
    int status = auth_answer(&none, &keys.store, &ev, text, &n);
    CHECK(n > 0 && n <= KA_MAX_ID && ka__printable(text, n), "status %d, %d bytes", status, (int)n);
    CHECK(status == 200 || (status == 400 && n == 11) || (status == 403 && n == 9),
          "status %d, %d bytes", status, (int)n);
    CHECK(keys.count == (status == 200 ? 1u : 0u), "status %d, %d keys", status, (int)keys.count);
    if (status == 200) {
        CHECK(n == KA_KEY_TEXT && body.n > 8 && memcmp(body.p, "ask_key=", 8) == 0,
              "%d bytes for %.*s", (int)n, (int)body.n, body.p);
        ptrdiff_t size =
            plain_percent(id, (ka_str){ body.p + 8, body.n - 8 > 3 * KA_MAX_ID ? 0 : body.n - 8 });
        CHECK(size > 0 && size <= KA_MAX_ID, "an ID of %d bytes", (int)size);
        id_n = (size_t)size;
        memcpy(login, "login=", 6);
        size_t at = 6;
        for (size_t i = 0; i < KA_KEY_TEXT; i++) {
            if (hash(body.p, body.n) >> (i % 64) & 1)
                at += (size_t)snprintf(login + at, 4, "%%%02x", (unsigned char)text[i]);
            else login[at++] = text[i];
        }
        ev.body = (ka_str){ exact(login, at), at };
        status = auth_answer(&none, &keys.store, &ev, text, &n);
        CHECK(status == 200 && n == id_n && memcmp(text, id, n) == 0,
              "status %d, %d bytes, want %d", status, (int)n, (int)id_n);
        ev.now_ms += 7000;
        CHECK(auth_answer(&none, &keys.store, &ev, text, &n) == 403, "a key after its time");
        exact_free((char *)(uintptr_t)ev.body.p, at);
    }
    ev.body = body;
    ev.method = (ka_str){ "PUT", 3 };
    CHECK(auth_answer(&none, &keys.store, &ev, text, &n) == 405, "a method");
    ka_keyring_free(&keys);
}

static void check_form(const char *p, size_t n)
{
    ka_str rest = { p, n }, name, value;
    size_t at = 0;
    for (bool more = true; more; ) {
        size_t end = at, equals;
        while (end < n && p[end] != '&') end++;
        for (equals = at; equals < end && p[equals] != '='; equals++) {}
        more = end < n;
        int r = ka_form_next(&rest, &name, &value);
        CHECK(r == (equals < end ? KA_OK : KA_ESYNTAX), "at %d: got %d", (int)at, r);
        if (r == KA_OK) {
            CHECK(name.p == p + at && name.n == equals - at && value.p == p + equals + 1 &&
                      value.n == end - equals - 1,
                  "at %d", (int)at);
            check_percent(name);
            check_percent(value);
        }
        at = end + 1;
    }
    CHECK(ka_form_next(&rest, &name, &value) == KA_ENOTFOUND, "the end");
    check_percent((ka_str){ p, n });
}

static void target_form(const char *p, size_t n)
{
    sim_begin();
    check_form(p, n);
    check_protocol((ka_str){ p, n });
    sim_end();
}
