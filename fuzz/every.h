/* fuzz/every.h - ./build.sh every: each short text, by the parsers and by a second reader.

   A row is a front, an alphabet and a back. Its texts are the front and each string of up to so
   many letters, with the back behind it and without. A letter is a byte, or a word. A text ends
   where its page ends, and the next page cannot be read. Short texts are also tried where a page
   begins. Each text is compared with the same text without its last letter: what was whole or
   refused stays so.

   If both readers refuse a text, the longer texts that begin so can be left out. The parser is told
   that there are more bytes, of each number that can follow, but the page ends. If the parser gives
   the same answer without a look at them, the answer holds for all values of these bytes. */

typedef struct {
    int        r, status;       /* KA_OK: a whole one; KA_EAGAIN; or another error */
    size_t     size;            /* of the whole one */
    bool       dead;            /* the second reader: no text that begins so is taken */
    ka_cut     cut;             /* where the framing, and the decoder of chunks, stopped */
    ka__chunked chunks;
} verdict;

typedef struct {
    const char        *name, *front;
    const char        *letters;      /* bytes, letters_n of them */
    size_t             letters_n;
    const char *const *words;        /* in their place, up to a NULL */
    const char        *back;
    int                longest;      /* letters */
    verdict          (*check)(const char *p, size_t n, const verdict *shorter);
    bool             (*same)(const char *p, size_t n, const verdict *v);      /* NULL: reads on */
    void             (*target)(const char *p, size_t n);
} every_row;

enum { TEXT = 256, ANY_LETTERS = 2, EVERY_ROOM = 18 };

/* What is run now, for the report of a fault. */
static struct {
    const every_row *row;
    char             text[TEXT];
    size_t           n;
    int              target_letters;      /* the target is called for so many, too */
    long             calls;
} now;
static char *page_begin, *page_end;      /* nothing can be read before it; behind it */
static sigjmp_buf read_on;
static volatile sig_atomic_t peeking;

/* What was whole or refused stays so, whatever follows. */
static void stays(const verdict *shorter, const verdict *v)
{
    if (!shorter || shorter->r == KA_EAGAIN) return;
    CHECK(v->r == shorter->r && v->size == shorter->size && v->status == shorter->status,
          "was %d of %d bytes, is %d of %d", shorter->r, (int)shorter->size, v->r, (int)v->size);
}

/* ---- one text ---- */

/* A row without a check of its own: the fuzz target checks all. */
static verdict every_check(const every_row *row, const char *p, size_t n, const verdict *shorter)
{
    if (row->check) return row->check(p, n, shorter);
    row->target(p, n);
    return (verdict){ .r = KA_EAGAIN };
}

static verdict every_form(const char *p, size_t n, const verdict *shorter)
{
    (void)shorter;
    check_form(p, n);
    return (verdict){ .r = KA_EAGAIN };
}

static int fault_of(int status)
{
    return status == 400 ? FAULT_400 : status == 417 ? FAULT_417 : status == 501 ? FAULT_501
         : status == 505 ? FAULT_505 : 0;
}

static void check_names(const ka__http *h)      /* ka_field, by a search for the lines */
{
    static const char *const called[] = { "a", "host", "content-length", "" };
    for (int i = 0; i < 4; i++) {
        int r = 0, got;
        ka_str want = plain_field(h->fields.p, h->fields.n, called[i], &r), value;
        got = ka_field(h->fields, called[i], &value);
        CHECK(got == r && value.n == want.n && (want.p ? value.p == want.p : !value.p),
              "the field \"%s\": %d of %d bytes, want %d of %d", called[i], got,
              (int)value.n, r, (int)want.n);
    }
}

static verdict every_head(const char *p, size_t n, const verdict *shorter, bool request)
{
    ka__http h;
    plain_head want = read_head(p, n, request);
    ptrdiff_t r = request ? ka__http_request(&h, p, n) : ka__http_response(&h, p, n);
    verdict v = { .r = want.r, .size = want.size, .dead = want.r == KA_ESYNTAX };
    CHECK(r == (want.r < 0 ? want.r : (ptrdiff_t)want.size), "got %d, want %d of %d bytes", (int)r,
          want.r, (int)want.size);
    if (r == KA_ESYNTAX && request) {
        CHECK(fault_of(h.status) & want.faults, "status %d", h.status);
        v.status = h.status;
    }
    stays(shorter, &v);
    if (r < 0) return v;
    bool target = h.target.p == want.h.target.p || ka_is(want.h.target, "/");
    CHECK(same_head(&h, &want.h) && h.browser == want.h.browser, "it says something else");
    CHECK(h.method.p == want.h.method.p && h.host.p == want.h.host.p && target &&
          (!request || (h.target.p > p && h.target.p < p + n)), "other views");
    CHECK(h.fields.p == want.h.fields.p && h.fields.n == want.h.fields.n, "other fields");
    check_names(&h);
    return v;
}

static verdict every_request(const char *p, size_t n, const verdict *shorter)
{
    return every_head(p, n, shorter, true);
}

static verdict every_response(const char *p, size_t n, const verdict *shorter)
{
    return every_head(p, n, shorter, false);
}

static bool same_request(const char *p, size_t n, const verdict *v)
{
    ka__http h;
    return ka__http_request(&h, p, n) == v->r && h.status == v->status;
}

static bool same_response(const char *p, size_t n, const verdict *v)
{
    ka__http h;
    return ka__http_response(&h, p, n) == v->r;
}

/* Decode a piece in a block of its own, to the end of b->out. */
static void every_piece(ka__chunked *d, plain_body *b, const char *p, size_t n)
{
    size_t used = 0;
    if (b->r != KA_EAGAIN) return;
    char *in = exact(p, n);
    ptrdiff_t r = ka__chunked_decode(d, in, n, &used);
    b->r = r < 0 ? (int)r : d->done ? KA_OK : KA_EAGAIN;
    if (r >= 0) {
        CHECK((size_t)r <= used && (d->done ? used <= n : used == n), "%d of %d bytes",
              (int)used, (int)n);
        memcpy(b->out + b->out_n, in, (size_t)r);
        b->out_n += (size_t)r;
        b->size += used;
    }
    exact_free(in, n);
}

static verdict every_chunked(const char *p, size_t n, const verdict *shorter)
{
    plain_body want = read_chunks(p, n, EVERY_ROOM);
    for (size_t cut = n ? n : 1; cut-- > 0; ) {      /* in two pieces; at 0, in one */
        ka__chunked d = { .room = EVERY_ROOM };
        plain_body b = { .r = KA_EAGAIN };
        if (cut) every_piece(&d, &b, p, cut);
        every_piece(&d, &b, p + cut, n - cut);
        CHECK(b.r == want.r, "cut at %d: got %d, want %d", (int)cut, b.r, want.r);
        if (b.r != KA_OK && b.r != KA_EAGAIN) continue;
        CHECK(b.out_n == want.out_n && memcmp(b.out, want.out, b.out_n) == 0,
              "cut at %d: other data", (int)cut);
        CHECK(b.r == KA_EAGAIN || b.size == want.size, "cut at %d: %d bytes, want %d", (int)cut,
              (int)b.size, (int)want.size);
        CHECK(d.room == EVERY_ROOM - want.out_n, "cut at %d: room %d", (int)cut, (int)d.room);
    }
    verdict v = { .r = want.r, .size = want.size, .dead = want.r != KA_OK && want.r != KA_EAGAIN };
    stays(shorter, &v);
    return v;
}

static bool same_chunked(const char *p, size_t n, const verdict *v)
{
    ka__chunked d = { .room = EVERY_ROOM };
    size_t used;
    return ka__chunked_decode(&d, (char *)(uintptr_t)p, n, &used) == v->r;
}

static uint32_t plain_hex(const char *p, int n)
{
    char text[9] = "";
    memcpy(text, p, (size_t)n);
    return (uint32_t)strtoul(text, NULL, 16);
}

/* What a string that the grammar has taken means, in UTF-8. Returns its bytes. */
static size_t plain_string(char *out, const char *p, const char *end)
{
    static const char letters[] = "abfnrtv\"'\\/", meant[] = "\a\b\f\n\r\t\v\"'\\/";
    size_t n = 0;
    for (; p < end; p++) {
        if (*p != '\\') {
            out[n++] = *p;
            continue;
        }
        int digits = *++p == 'u' ? 4 : *p == 'U' ? 8 : *p == 'x' ? 2 : 0;
        if (digits == 0) {
            out[n++] = meant[strchr(letters, *p) - letters];
            continue;
        }
        uint32_t c = plain_hex(p + 1, digits);
        p += digits;
        if (c >= 0xD800 && c < 0xDC00) {
            c = 0x10000 + (c - 0xD800) * 0x400 + (plain_hex(p + 3, 4) - 0xDC00);
            p += 6;
        }
        if (c < 0x80) out[n++] = (char)c;
        else if (c < 0x800) out[n++] = (char)(0xC0 + c / 64);
        else if (c < 0x10000) out[n++] = (char)(0xE0 + c / 4096);
        else out[n++] = (char)(0xF0 + c / 262144);
        if (c >= 0x10000) out[n++] = (char)(0x80 + c / 4096 % 64);
        if (c >= 0x800) out[n++] = (char)(0x80 + c / 64 % 64);
        if (c >= 0x80) out[n++] = (char)(0x80 + c % 64);
    }
    return n;
}

static void every_string(const ka_json *v)
{
    char want[GRAMMAR_BYTES];
    size_t n = plain_string(want, v->raw.p + 1, v->raw.p + v->raw.n - 1);
    for (size_t cap = n ? n - 1 : 0; cap <= n; cap++) {      /* one short, and exactly enough */
        char *out = block(cap);
        ptrdiff_t got = ka_json_string(out, cap, v);
        CHECK(got == (cap < n ? KA_ENOSPC : (ptrdiff_t)n), "%d bytes in %d: %d", (int)n,
              (int)cap, (int)got);
        if (got > 0) CHECK(memcmp(out, want, n) == 0, "another string");
        block_free(out, cap);
    }
}

static int kind_of(char first)
{
    switch (first) {
    case 'n': case 'N': return KA_NULL;
    case 'f': case 'F': return KA_FALSE;
    case 't': case 'T': return KA_TRUE;
    case '"': case '\'': return KA_STRING;
    case '[': case '(': return KA_ARRAY;
    case '{': return KA_OBJECT;
    default: return KA_NUMBER;
    }
}

static verdict every_json(const char *p, size_t n, const verdict *shorter)
{
    source j = { p, n, false }, y = { p, n, false };
    bool json = json_text(&j, 1) >> n & 1, python = python_text(&y, 1) >> n & 1;
    ka_json v;
    int r = ka_json_read(&v, (ka_str){ p, n });
    (void)shorter;
    CHECK(r == (json || python ? KA_OK : KA_ESYNTAX), "got %d; JSON %d, Python %d", r, json,
          python);
    CHECK(v.raw.p >= p && v.raw.n <= (size_t)(p + n - v.raw.p), "a value beyond the text");
    if (r == KA_OK) {
        size_t from = 0, to = n;
        while (json_blank((unsigned char)p[from])) from++;
        while (json_blank((unsigned char)p[to - 1])) to--;
        CHECK(v.raw.p == p + from && v.raw.n == to - from && v.python == !json, "another value");
        CHECK(v.kind == kind_of(p[from]), "kind %d", v.kind);
        if (v.kind == KA_STRING) every_string(&v);
    }
    return (verdict){ .r = r, .dead = r < 0 && !j.more && !y.more };
}

static bool same_json(const char *p, size_t n, const verdict *v)
{
    ka_json w;
    return ka_json_read(&w, (ka_str){ p, n }) == v->r;
}

static verdict every_resp(const char *p, size_t n, const verdict *shorter)
{
    verdict v = { .cut = shorter ? shorter->cut : (ka_cut){ 0, 0, 0 } };
    v.r = plain_resp(p, n, &v.size);
    ka_cut fresh = { 0, 0, 0 };
    ptrdiff_t want = v.r < 0 ? v.r : (ptrdiff_t)v.size;
    ptrdiff_t at_once = ka__resp_find(&fresh, p, n), on = ka__resp_find(&v.cut, p, n);
    CHECK(at_once == want && on == want, "at once %d, by letters %d, want %d", (int)at_once,
          (int)on, (int)want);
    bool whole = v.r == KA_OK && v.size == n;
    CHECK(resp_is_whole(p, n, true) == whole, "whole: %d", whole);
    if (v.r < 0) v.size = 0;
    stays(shorter, &v);
    return v;
}

/* ---- the rows ---- */

static const char *const request_lines[] = {
    "Host:a\r\n", "HOST: [::1]:8 \r\n", "Content-Length: 1\r\n", "content-length:01\r\n",
    "Transfer-Encoding: chunked\r\n", "Transfer-encoding:x\r\n", "Connection: close\r\n",
    "Connection:\tkeep-alive\r\n", "Expect: 100-Continue\r\n", "Expect:\r\n", "Origin: x\r\n",
    "a: b\r\n", "\r\n", NULL
};
static const char *const coding_parts[] = {
    "chunked", "CHUNKED", ",", " ", "\t", "x", ";q", "gzip", "\"",
    "\r\nTransfer-Encoding:", "\r\n", NULL
};
static const char *const connection_parts[] = {
    "close", "CLOSE", "keep-alive", ",", " ", "\t", "x", "\"", "\r\nConnection:", "\r\n", NULL
};
static const char *const chunk_parts[] = {
    "2\r\n", "ab", "\r\n", "0\r\n", "A:b\r\n", "1", ";x", "=y", "=\"\\\"\"", "F\r\n", ":", "0f",
    " ", NULL
};
static const char *const json_parts[] = {
    "{", "}", "[", "]", "(", ")", "\"a\"", "'b'", ":", ",", "null", "None", "-0.5e+1", NULL
};
static const char *const json_escapes[] = {
    "\\ud83d", "\\ude00", "\\uD83D", "\\u0000", "\\x41", "\\U0001F600", "\\/", "\\'", "\\a", "\\\"",
    "\"", "'", "\xF0\x9F\x98\x80", NULL
};
static const char *const resp_parts[] = {
    "*2\r\n", "$1\r\n", "a", "\r\n", ":-5\r\n", "+ok\r\n", "*0\r\n", "*-1\r\n", "$-1\r\n", "$0\r\n",
    "*1\r\n", "-no\r\n", "$3\r\n", NULL
};
static const char base64_all[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-";

#define LETTERS(text) text, sizeof text - 1, NULL
#define WORDS(list) NULL, 0, list
#define LINE "P / HTTP/1.1\r\n"
#define OLD "P / HTTP/1.0\r\n"
#define REQUEST every_request, same_request, target_request
#define RESPONSE every_response, same_response, target_response
#define CHUNKED every_chunked, same_chunked, target_chunked
#define JSON every_json, same_json, target_json
#define RESP every_resp, NULL, target_resp
static const every_row every_rows[] = {
    { "base64: digits", "Q", LETTERS(base64_all), "", 3, NULL, NULL, target_base64 },
    { "base64: a quad's begin", "",
      LETTERS("AQBg/+=0-\n z"), "JD", 5, NULL, NULL, target_base64 },
    { "base64: a quad's end", "QU",
      LETTERS("AQBg/+=0-\n z"), "", 5, NULL, NULL, target_base64 },
    { "base64: the last quad", "QUJD",
      LETTERS("AQBg/+=0-\n z"), "", 5, NULL, NULL, target_base64 },
    { "hex: bytes", "",
      LETTERS("\0\x09\x0A\x0F\x10\x7F\x80\x99\x9A\xA0\xF0\xFF"), "", 5,
      NULL, NULL, target_hex },
    { "uuid: hyphens", "f81d4f",
      LETTERS("aF09-g:/`@G\0"), "dec-11d0-a765-00a0c91e6bf6", 6, NULL, NULL, target_uuid },
    { "uuid: its end", "f81d4fae-7dec-11d0-a765-00a0c9",
      LETTERS("aF09-g:/`@G\xFF"), "", 6, NULL, NULL, target_uuid },
    { "form, percent", "", LETTERS("%&=0aFg+ \0\xFF" "A"), "", 6, every_form, NULL, target_form },

    { "request: its line", "", LETTERS("A/ \r\n:\0*\x80#?@"), " HTTP/1.0\r\n\r\n", 6, REQUEST },
    { "request: target", "OPTIONS ",
      LETTERS("/?%a:#[* \"\x7F\t"), " HTTP/1.0\r\n\r\n", 6, REQUEST },
    { "request: scheme", "GET http", LETTERS("s:/a?TSp[ .\\"), " HTTP/1.0\r\n\r\n", 6, REQUEST },
    { "request: authority", "GET hTTp://",
      LETTERS("a/?:8@[]%. F"), " HTTP/1.0\r\n\r\n", 6, REQUEST },
    { "request: CONNECT", "CONNECT ", LETTERS("a:80[]%./1@v"), " HTTP/1.0\r\n\r\n", 6, REQUEST },
    { "request: version", "GET / HTT", LETTERS("P/1.02\r\nhp 9"), "\r\nHost:\r\n\r\n", 7, REQUEST },
    { "request: lines", OLD, LETTERS("a: \t\r\n\0\x80\x7F\"-("), "\r\n\r\n", 6, REQUEST },
    { "request: value", OLD "a:", LETTERS("a \t\r\n\0\xFF\x7F\"\v,:"), "\r\n\r\n", 6, REQUEST },
    { "request: Host", LINE "Host:", LETTERS("a:8[]%F ,@.v"), "\r\n\r\n", 6, REQUEST },
    { "request: port", LINE "Host:a:", LETTERS("065539: a\r\n-"), "\r\n\r\n", 6, REQUEST },
    { "request: IPv6", LINE "Host:[", LETTERS(":1f.025vG]%a"), "]\r\n\r\n", 6, REQUEST },
    { "request: IPv6, full", LINE "Host:[1:2:3:4:5:6",
      LETTERS(":1f.025vG]%a"), "]\r\n\r\n", 5, REQUEST },
    { "request: IPv6, IPv4", LINE "Host:[::1.2", LETTERS(".0125:69a]f%"), "]\r\n\r\n", 5, REQUEST },
    { "request: length", OLD "Content-Length:",
      LETTERS("09 \t,+-\ra;.\0"), "\r\n\r\n", 6, REQUEST },
    { "request: long length", OLD "Content-Length: 92233720368547",
      LETTERS("0789 5,\r\n-a1"), "\r\n\r\n", 5, REQUEST },
    { "request: coding", LINE "Host:\r\nTransfer-Encoding:",
      WORDS(coding_parts), "\r\n\r\n", 5, REQUEST },
    { "request: connection", OLD "Connection:", WORDS(connection_parts), "\r\n\r\n", 4, REQUEST },
    { "request: Expect", LINE "Host:\r\nExpect: 100-conti",
      LETTERS("nNuUeE ,;\r\n\t"), "\r\n\r\n", 5, REQUEST },
    { "request: fields", LINE, WORDS(request_lines), "\r\n", 5, REQUEST },
    { "request: fields, 1.0", OLD, WORDS(request_lines), "\r\n", 4, REQUEST },

    { "response: its line", "HTTP/1.", LETTERS("012596 \r\na\t\x80"), "\r\n\r\n", 7, RESPONSE },
    { "response: lines", "HTTP/1.1 200 \r\n",
      LETTERS("a: \t\r\n\0\x80\x7F\"-("), "\r\n\r\n", 6, RESPONSE },
    { "response: fields", "HTTP/1.1 200\r\n", WORDS(request_lines), "\r\n", 5, RESPONSE },

    { "chunked: a body", "", LETTERS("02f;=a \r\n\"\\:"), "", 7, CHUNKED },
    { "chunked: behind data", "2\r\nab", LETTERS("02f;=a \r\n\"\\:"), "", 7, CHUNKED },
    { "chunked: extension", "1;a",
      LETTERS(";= a\"\\\r\n\t:0\x80"), "\r\na\r\n0\r\n\r\n", 6, CHUNKED },
    { "chunked: quoted", "1;a=\"",
      LETTERS(";= a\"\\\r\n\t\x7F,\x80"), "\r\na\r\n0\r\n\r\n", 5, CHUNKED },
    { "chunked: trailers", "0\r\n", LETTERS("a: \r\n\t;\0\x80\"\\-"), "\r\n\r\n", 6, CHUNKED },
    { "chunked: long line", "1;abcdefghijklmnopqr",
      LETTERS("a;=\"\r\n 1\\\t:\0"), "\r\n", 7, CHUNKED },
    { "chunked: size", "0000000000000000000", LETTERS("012Ff;\r\ng 3x"), "\r\n", 6, CHUNKED },
    { "chunked: parts", "", WORDS(chunk_parts), "", 6, CHUNKED },

    { "json: values", "", LETTERS("{}[]():,\"'1 "), "", 6, JSON },
    { "json: numbers", "", LETTERS("019-+.eE ,[]"), "", 6, JSON },
    { "json: words", "", LETTERS("nultrefasNoTF["), "", 5, JSON },
    { "json: members", "{\"a\"", LETTERS("{}[]():,\"'1 "), "}", 6, JSON },
    { "json: escapes", "\"", LETTERS("\\uxU01/'\"d8n"), "\"", 6, JSON },
    { "json: Python's escapes", "'", LETTERS("\\uxU01/'\"d8a"), "'", 6, JSON },
    { "json: halves", "\"\\ud83", LETTERS("\\udDcC8f0eg\""), "\"", 7, JSON },
    { "json: second halves", "\"\\ud83d\\u", LETTERS("dDbcCfeE08\"g"), "\"", 6, JSON },
    { "json: \\U", "'\\U00", LETTERS("01dDfF8'\\7xg"), "'", 7, JSON },
    { "json: UTF-8", "\"",
      LETTERS("a\x7F\x80\x9F\xA0\xBF\xC2\xE0\xED\xF0\xF4\x8F"), "\"", 7, JSON },
    { "json: UTF-8, more", "\"",
      LETTERS("\x1F\x80\x90\xBF\xC0\xC1\xDF\xE1\xEF\xF1\xF5\xFF"), "\"", 7, JSON },
    { "json: controls", "[\"a\", 'b'", LETTERS(",\"'\0\n\t\r\v \x1F]a"), "]", 6, JSON },
    { "json: parts", "", WORDS(json_parts), "", 6, JSON },
    { "json: escapes together", "\"", WORDS(json_escapes), "\"", 4, JSON },

    { "resp: values", "", LETTERS("*$:+-012\r\na9"), "", 6, RESP },
    { "resp: strings", "$2\r\n", LETTERS("a\r\n*$:+-012\0"), "\r\n", 6, RESP },
    { "resp: elements", "*2\r\n", LETTERS("*$:+-012\r\na9"), "", 6, RESP },
    { "resp: numbers", ":922337203685477", LETTERS("05789+-\r\na 4"), "\r\n", 6, RESP },
    { "resp: lengths", "$21474836", LETTERS("0456789\r\n-a1"), "\r\n", 6, RESP },
    { "resp: parts", "", WORDS(resp_parts), "", 6, RESP },
};

/* ---- all of them ---- */

static char all_bytes[256];

static verdict every_text(const every_row *row, size_t n, int letters, const verdict *shorter)
{
    now.n = n;
    now.calls++;
    char *in = exact(now.text, n);
    verdict v = every_check(row, in, n, shorter);
    if (letters <= now.target_letters) {
        memcpy(page_begin, now.text, n);
        verdict same = every_check(row, page_begin, n, shorter);
        CHECK(same.r == v.r && same.size == v.size, "at another place");
        row->target(in, n);
    }
    exact_free(in, n);
    return v;
}

static bool every_ahead(const every_row *row, size_t n, size_t most, const verdict *v)
{
    for (size_t more = 1; more <= most; more++) {
        now.calls++;
        memcpy(page_end - n, now.text, n);      /* a decoder may have moved its data */
        if (!row->same(page_end - n, n + more, v)) return false;
    }
    return true;
}

/* Is this refusal the answer to all that may follow, of up to `most` bytes? */
static bool every_same(const every_row *row, size_t n, size_t most, const verdict *v)
{
    if (!v->dead || !row->same) return false;
    if (sigsetjmp(read_on, 0)) return peeking = 0, false;
    peeking = 1;
    bool same = every_ahead(row, n, most, v);
    peeking = 0;
    CHECK(same, "refused, but not with more behind");
    return true;
}

/* The text now.text[0..n), and all that begin with it: up to `left` letters longer. */
static void every_longer(const every_row *row, size_t n, int letters, int left,
                         const verdict *shorter)
{
    size_t back = strlen(row->back), word = 1, most = 1;
    verdict v = every_text(row, n, letters, shorter);
    if (back > 0) {
        memcpy(now.text + n, row->back, back);
        every_text(row, n + back, letters, &v);
    }
    if (left <= 0) return;
    for (size_t i = 0; row->words && row->words[i]; i++)
        if (strlen(row->words[i]) > most) most = strlen(row->words[i]);
    if (every_same(row, n, most * (size_t)left + back, &v)) return;
    for (size_t i = 0; row->words ? row->words[i] != NULL : i < row->letters_n; i++) {
        if (row->words) memcpy(now.text + n, row->words[i], word = strlen(row->words[i]));
        else now.text[n] = row->letters[i];
        every_longer(row, n + word, letters + 1, left - 1, &v);
    }
}

/* A fault, or the end of a look beyond the text. */
static void every_caught(int signal)
{
    if (signal == SIGSEGV && peeking) siglongjmp(read_on, 1);
    fprintf(stderr, "%s: signal %d at the text \"", now.row->name, signal);
    for (size_t i = 0; i < now.n; i++) {
        unsigned char c = (unsigned char)now.text[i];
        fprintf(stderr, c < ' ' || c > '~' || c == '"' || c == '\\' ? "\\%03o" : "%c", c);
    }
    fprintf(stderr, "\"\n");
    _exit(1);
}

static void every_run(const every_row *row, int more)
{
    const int signals[] = { SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP };
    struct sigaction action = { .sa_handler = every_caught, .sa_flags = SA_NODEFER };
    for (int i = 0; i < 6; i++) sigaction(signals[i], &action, NULL);
    char *p = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED && mprotect(p + PAGE, PAGE, PROT_READ | PROT_WRITE) == 0, "no memory");
    page_begin = p + PAGE;
    page_end = p + 2 * PAGE;

    every_row any = *row;      /* all bytes, then the row's letters */
    size_t letters = row->letters_n, front = strlen(row->front);
    any.letters = all_bytes;
    any.letters_n = 256;
    for (int i = 0; i < 256; i++) all_bytes[i] = (char)i;
    now.row = row;
    memcpy(now.text, row->front, front);
    now.target_letters = 1;
    if (!row->words) every_longer(&any, front, 0, ANY_LETTERS + more, NULL);
    while (row->words && row->words[letters]) letters++;
    now.target_letters = 3;
    every_longer(row, front, 0, row->longest + more, NULL);
    double texts = 0;
    for (int i = row->longest + more; i >= 0; i--) texts = texts * (double)letters + 1;
    printf("%-26s every string up to %d of %2d: %11.0f; %9ld calls, %.1f s\n", row->name,
           row->longest + more, (int)letters, texts, now.calls, (double)clock() / CLOCKS_PER_SEC);
}

/* [MORE [NAME...]]: strings that are so many letters longer; of the rows whose names begin so. Ends
   with one line: N passed, N failed, 0 skipped. */
/* Is it a row that one of these names begins? All are, if there are no names. */
static bool every_wants(size_t row, char *const *begins, int n)
{
    bool wanted = n == 0;
    for (int k = 0; k < n; k++)
        wanted |= !strncmp(every_rows[row].name, begins[k], strlen(begins[k]));
    return wanted;
}

static bool every_knows(char *name)
{
    for (size_t i = 0; i < sizeof every_rows / sizeof *every_rows; i++)
        if (every_wants(i, &name, 1)) return true;
    fprintf(stderr, "every: %s: no row begins so; fuzz/every.h has the rows\n", name);
    return false;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0, more = argc > 1 ? atoi(argv[1]) : 0;
    if (argc > 1 && !isdigit((unsigned char)*argv[1])) {
        fprintf(stderr, "every: a number of letters is needed, and then the names\n");
        return 2;
    }
    for (int k = 2; k < argc; k++)
        if (!every_knows(argv[k])) return 2;
    for (size_t i = 0; i < sizeof every_rows / sizeof *every_rows; i++) {
        int status = 0;
        if (!every_wants(i, argv + 2, argc > 2 ? argc - 2 : 0)) continue;
        target_name = every_rows[i].name;
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            every_run(&every_rows[i], more);
            exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status) failed++;
        else passed++;
    }
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
