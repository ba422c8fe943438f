/* ext/json.h - read and write JSON, and what Python's repr() makes of the same values.

   The reader keeps nothing: a value is a view of the text that it was read from. The writer writes
   into room of yours. Nothing is allocated, and all functions are for any thread.

   HOW TO INCLUDE
     #include "keyauth.h"           before it; in ONE .c file with KEYAUTH_IMPLEMENTATION defined
     #include "ext/json.h"

   USE: read {"name": "x"} in a request ev, answer {"hello": "x"}
         ka_json body, name;
         char text[64], room[512];
         if (ka_json_read(&body, ev.body) < 0 || ka_json_find(&body, "name", &name) < 0) return 400;
         ptrdiff_t n = ka_json_string(text, sizeof text, &name);
         if (n < 0) return 400;
         ka_json_out w = { .p = room, .cap = sizeof room };
         ka_json_open(&w, NULL, KA_OBJECT);
         ka_json_put(&w, "hello", (ka_str){ text, (size_t)n });
         ka_json_close(&w);
         if (w.error == KA_OK) ka_reply(s, &ev, 200, NULL, w.p, w.n);

   CONTENTS
     ka_json_read, find, next, is, string    read
     ka_json_open, put, put_..., close       write
     ka_is_utf8

   LIMITS
     A value lies at most KA_MAX_DEPTH objects and arrays deep. Numbers are text: see raw. */

#ifndef KEYAUTH_H
#  error "ext/json.h: include keyauth.h first"
#endif

#ifndef KEYAUTH_JSON_H
#define KEYAUTH_JSON_H

#ifdef __cplusplus
extern "C" {
#endif

enum { KA_MAX_DEPTH = 32 };      /* objects and arrays within each other, at most; 32 at most */

/* Is s UTF-8 (RFC 3629)? An overlong form, a surrogate, and what is beyond U+10FFFF are not. */
KADEF bool ka_is_utf8(ka_str s);

/* ---- reading ---- */

enum { KA_NULL = 1, KA_FALSE, KA_TRUE, KA_NUMBER, KA_STRING, KA_ARRAY, KA_OBJECT };

/* A value in a text: JSON (RFC 8259), or a Python literal: '...' and "..." with Python's escapes,
   True, False, None, tuples. A tuple is an array here. */
typedef struct {
    int    kind;     /* KA_NULL... */
    bool   python;   /* the text of ka_json_read has something that only Python has */
    ka_str raw;      /* the value as it was sent: a string with its quotes, an object with its
                        braces; borrowed from that text */
} ka_json;

/* Read a text that is one value in either language, with white space around it or none. Refused:
   what is not UTF-8, control characters and lone surrogates in strings, a text that mixes both
   languages. A name may be repeated in an object: see ka_json_find.
     text       borrowed as long as v is used
     returns    KA_OK; KA_ESYNTAX: malformed; KA_ELIMIT: deeper than KA_MAX_DEPTH. After an error
                v->kind is 0, v->raw is what was read before the fault, and v->python tells which
                language that is in */
KADEF int ka_json_read(ka_json *v, ka_str text);

/* Take the next member off an object, or the next element off an array.
     rest       what is left. Begin with a copy of what ka_json_read or this function gave
     name       the member's name, a string; kind 0 for an element; NULL: not wanted
     returns    false at the end, and for values of other kinds */
KADEF bool ka_json_next(ka_json *rest, ka_json *name, ka_json *value);

/* The member of that name.
     name       UTF-8; compared with the names after their escapes are decoded
     *value     of use after KA_OK only
     returns    KA_OK; KA_ENOTFOUND: none, or not an object; KA_EINVAL: more than one, which two
                readers could take in two ways */
KADEF int ka_json_find(const ka_json *object, const char *name, ka_json *value);

/* Is v a string, and this text in UTF-8 after its escapes are decoded? */
KADEF bool ka_json_is(const ka_json *v, const char *text);

/* Decode a string into UTF-8. It may hold NULs; none is added at the end.
     cap        bytes at out; v->raw.n is always enough
     returns    bytes written; KA_ENOSPC; KA_EINVAL: v is no string */
KADEF ptrdiff_t ka_json_string(char *out, size_t cap, const ka_json *v);

/* ---- writing ---- */

/* A value that is being written. Begin with { .p = , .cap = }. After an error nothing more is
   written, and what the failed call wrote is taken back: look at `error` once, at the end.
   Strings: what is not printable is escaped. So no string can begin a line (U+0085, U+2028, U+2029)
   or change the direction of text (U+202A to U+202E, U+2066 to U+2069). */
typedef struct {
    char    *p;              /* yours; no NUL is added at the end */
    size_t   cap, n;         /* bytes of room, and bytes written */
    bool     python;         /* yours: write Python: 'text', True, and all beyond ASCII escaped */
    int      error;          /* KA_OK, or the first error:
                                KA_ENOSPC   cap is too small
                                KA_ESYNTAX  a string is not UTF-8
                                KA_ELIMIT   deeper than KA_MAX_DEPTH
                                KA_EINVAL   a name is missing or too many; a second value; no such
                                            kind; nothing is open to be closed */
    /* the writer's own */
    uint32_t arrays, depth;  /* bit i is set: the i-th open one is an array; how many are open */
    bool     comma;          /* the next value needs a comma before it */
} ka_json_out;

/* Write a value; within an object with its name, elsewhere name is NULL. */
KADEF void ka_json_open(ka_json_out *w, const char *name, int kind);   /* KA_OBJECT or KA_ARRAY */
KADEF void ka_json_close(ka_json_out *w);                              /* what was opened last */
KADEF void ka_json_put(ka_json_out *w, const char *name, ka_str text); /* text.p NULL: null */
KADEF void ka_json_put_integer(ka_json_out *w, const char *name, int64_t number);
KADEF void ka_json_put_bool(ka_json_out *w, const char *name, bool yes);

/* Write a value that was read, of any kind and in either language, in the language of w. */
KADEF void ka_json_put_value(ka_json_out *w, const char *name, const ka_json *v);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_JSON_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_JSON_IMPLEMENTED)
#define KEYAUTH_JSON_IMPLEMENTED

#include <string.h>

/* ---- UTF-8 (RFC 3629) ---- */

static bool ka__json_surrogate(int32_t point) { return point >= 0xD800 && point <= 0xDFFF; }

/* Take one character from *p, which is before end: its code point, or KA_ESYNTAX. */
static int32_t ka__json_utf8_take(const char **p, const char *end)
{
    static const int32_t least[4] = { 0, 0x80, 0x800, 0x10000 };      /* less is an overlong form */
    unsigned char first = (unsigned char)**p;
    if (first < 0x80) {
        ++*p;
        return first;
    }
    size_t more = 1 + (size_t)(first >= 0xE0) + (first >= 0xF0);      /* bytes behind the first */
    int32_t point = first & 0x3F >> more;
    if (first < 0xC0 || first > 0xF4 || (size_t)(end - *p) <= more) return KA_ESYNTAX;
    for (size_t i = 1; i <= more; i++) {
        if (((*p)[i] & 0xC0) != 0x80) return KA_ESYNTAX;
        point = point << 6 | ((*p)[i] & 0x3F);
    }
    if (point < least[more] || point > 0x10FFFF || ka__json_surrogate(point)) return KA_ESYNTAX;
    *p += more + 1;
    return point;
}

/* Write one character. Returns its bytes, 1 to 4. */
static size_t ka__json_utf8_put(char out[4], int32_t point)
{
    static const unsigned char marks[4] = { 0, 0xC0, 0xE0, 0xF0 };
    size_t more = (size_t)(point >= 0x80) + (point >= 0x800) + (point >= 0x10000);
    for (size_t i = more; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3F));
    out[0] = (char)(marks[more] | point);
    return more + 1;
}

bool ka_is_utf8(ka_str s)
{
    const char *p = s.p, *end = s.n ? s.p + s.n : s.p;
    while (p < end)
        if (ka__json_utf8_take(&p, end) < 0) return false;
    return true;
}

/* ---- reading ----

   One reader serves both languages. Most of a text is the same in both. The first thing that only
   one language has decides which one the text is in. From then on, what only the other language has
   is refused: a reader of that language would refuse it, or take it for something else. In Python
   "\/" is two characters, and "\ud83d\ude00" is two halves of a character.
   A view of a text that was read is read again, by the same functions, when it is used. */

enum { KA__JSON_EITHER, KA__JSON_JSON, KA__JSON_PYTHON };

/* A reader's place in a text, and the language of what it has read. */
typedef struct { const char *p, *end; int language; } ka__json_text;

static const char *const ka__json_words[2][3] = {      /* KA_NULL, KA_FALSE, KA_TRUE */
    { "null", "false", "true" },
    { "None", "False", "True" }
};

static ka_str ka__json_str(const char *text)
{
    return (ka_str){ text, text ? strlen(text) : 0 };
}

static ka__json_text ka__json_begin(ka_str text)
{
    return (ka__json_text){ text.p, text.n ? text.p + text.n : text.p, KA__JSON_EITHER };
}

/* The text has something that only this language has. False: the text is in the other one. */
static bool ka__json_mark(ka__json_text *t, int language)
{
    if (t->language == KA__JSON_EITHER) t->language = language;
    return language == KA__JSON_EITHER || t->language == language;
}

/* The next byte; 0 at the end. A NUL in the text is refused wherever it stands. */
static char ka__json_peek(const ka__json_text *t) { return t->p < t->end ? *t->p : 0; }

/* Is the next byte this one? Then take it. */
static bool ka__json_skip(ka__json_text *t, char byte)
{
    if (t->p == t->end || *t->p != byte) return false;
    t->p++;
    return true;
}

static bool ka__json_skip_space(ka__json_text *t)
{
    return ka__json_skip(t, ' ') || ka__json_skip(t, '\n') || ka__json_skip(t, '\r') ||
           ka__json_skip(t, '\t');
}

static void ka__json_space(ka__json_text *t)
{
    if (t->p < t->end && *t->p > ' ') return;      /* nearly always */
    while (ka__json_skip_space(t)) {}
}

static int ka__json_hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Take n hexadecimal digits: a number up to 0x10FFFF, or KA_ESYNTAX. */
static int32_t ka__json_hex(ka__json_text *t, int n)
{
    uint32_t v = 0;
    for (; n > 0; n--, t->p++) {
        int digit = ka__json_hex_digit(ka__json_peek(t));
        if (digit < 0) return KA_ESYNTAX;
        v = v << 4 | (uint32_t)digit;
    }
    return v <= 0x10FFFF ? (int32_t)v : KA_ESYNTAX;
}

/* What may follow a backslash: a letter that means a character, or one with so many digits behind
   it. Python's octal digits, \N{name} and a line feed are not here: repr() writes none of them. */
static const struct { char letter, meant; uint8_t digits, language; } ka__json_escapes[] = {
    { '"',  '"',  0, KA__JSON_EITHER }, { '\\', '\\', 0, KA__JSON_EITHER },
    { 'n',  '\n', 0, KA__JSON_EITHER }, { 'u',  0,    4, KA__JSON_EITHER },
    { 'r',  '\r', 0, KA__JSON_EITHER }, { 't',  '\t', 0, KA__JSON_EITHER },
    { 'b',  '\b', 0, KA__JSON_EITHER }, { 'f',  '\f', 0, KA__JSON_EITHER },
    { '/',  '/',  0, KA__JSON_JSON },
    { '\'', '\'', 0, KA__JSON_PYTHON }, { 'a',  '\a', 0, KA__JSON_PYTHON },
    { 'v',  '\v', 0, KA__JSON_PYTHON }, { 'x',  0,    2, KA__JSON_PYTHON },
    { 'U',  0,    8, KA__JSON_PYTHON }
};

/* Take what is behind a backslash: a code point, or KA_ESYNTAX. */
static int32_t ka__json_escape(ka__json_text *t)
{
    const size_t count = sizeof ka__json_escapes / sizeof *ka__json_escapes;
    char letter = ka__json_peek(t);
    size_t i = 0;
    while (i < count && ka__json_escapes[i].letter != letter) i++;
    if (i == count || !ka__json_mark(t, ka__json_escapes[i].language)) return KA_ESYNTAX;
    t->p++;
    if (ka__json_escapes[i].digits == 0) return ka__json_escapes[i].meant;
    int32_t point = ka__json_hex(t, ka__json_escapes[i].digits);
    if (!ka__json_surrogate(point)) return point;
    /* The first half of a character needs its second half behind it: JSON only (RFC 8259 s.7). */
    if (point > 0xDBFF || letter != 'u' || !ka__json_skip(t, '\\') || !ka__json_skip(t, 'u'))
        return KA_ESYNTAX;
    int32_t low = ka__json_hex(t, 4);
    if (low < 0xDC00 || low > 0xDFFF || !ka__json_mark(t, KA__JSON_JSON)) return KA_ESYNTAX;
    return 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
}

/* Take one character of a string: its code point, or KA_ESYNTAX. */
static int32_t ka__json_char(ka__json_text *t)
{
    if (ka__json_skip(t, '\\')) return ka__json_escape(t);
    if ((unsigned char)ka__json_peek(t) < 0x20) return KA_ESYNTAX;
    return ka__json_utf8_take(&t->p, t->end);
}

/* Take a run of printable ASCII without backslash and quote: most strings are one such run. False:
   the next byte is none of these. */
static bool ka__json_plain(ka__json_text *t, char quote)
{
    const char *p = t->p;
    while (p < t->end && *p >= ' ' && *p <= '~' && *p != '\\' && *p != quote) p++;
    bool some = p > t->p;
    t->p = p;
    return some;
}

/* The readers of values return the kind, KA_ESYNTAX or KA_ELIMIT. */
static int ka__json_quoted(ka__json_text *t)
{
    char quote = *t->p++;
    if (quote == '\'' && !ka__json_mark(t, KA__JSON_PYTHON)) return KA_ESYNTAX;
    while (!ka__json_skip(t, quote))
        if (!ka__json_plain(t, quote) && ka__json_char(t) < 0) return KA_ESYNTAX;
    return KA_STRING;
}

static bool ka__json_is_digit(char c) { return c >= '0' && c <= '9'; }

static bool ka__json_digits(ka__json_text *t)
{
    const char *from = t->p;
    while (ka__json_is_digit(ka__json_peek(t))) t->p++;
    return t->p > from;
}

/* A number (RFC 8259 s.6). Python's repr() writes the same, and inf and nan, which are refused. */
static int ka__json_number(ka__json_text *t)
{
    ka__json_skip(t, '-');
    if (!ka__json_skip(t, '0') && !ka__json_digits(t)) return KA_ESYNTAX;
    if (ka__json_skip(t, '.') && !ka__json_digits(t)) return KA_ESYNTAX;
    if (ka__json_skip(t, 'e') || ka__json_skip(t, 'E')) {
        if (!ka__json_skip(t, '+')) ka__json_skip(t, '-');
        if (!ka__json_digits(t)) return KA_ESYNTAX;
    }
    return KA_NUMBER;
}

static int ka__json_word(ka__json_text *t)
{
    for (int i = 0; i < 6; i++) {
        int python = i / 3, which = i % 3;
        const char *word = ka__json_words[python][which];
        size_t n = strlen(word);
        if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n) != 0) continue;
        if (!ka__json_mark(t, python ? KA__JSON_PYTHON : KA__JSON_JSON)) return KA_ESYNTAX;
        t->p += n;
        return KA_NULL + which;
    }
    return KA_ESYNTAX;
}

/* A member's name and the colon: KA_OK or KA_ESYNTAX. */
static int ka__json_name(ka__json_text *t, ka_str *name)
{
    char quote = ka__json_peek(t);
    *name = (ka_str){ t->p, 0 };
    if ((quote != '"' && quote != '\'') || ka__json_quoted(t) < 0) return KA_ESYNTAX;
    name->n = (size_t)(t->p - name->p);
    ka__json_space(t);
    return ka__json_skip(t, ':') ? KA_OK : KA_ESYNTAX;
}

/* Any value, from its first byte on; it lies within `depth` others. */
static int ka__json_value(ka__json_text *t, int depth)
{
    char first = ka__json_peek(t), last;
    switch (first) {
    case '"': case '\'': return ka__json_quoted(t);
    case '{': last = '}'; break;
    case '[': last = ']'; break;
    case '(': last = ')'; break;
    default:
        if (first == '-' || ka__json_is_digit(first)) return ka__json_number(t);
        return ka__json_word(t);
    }
    bool object = first == '{', tuple = first == '(';
    if (tuple && !ka__json_mark(t, KA__JSON_PYTHON)) return KA_ESYNTAX;
    if (depth == KA_MAX_DEPTH) return KA_ELIMIT;
    ka_str name;
    t->p++;
    for (size_t n = 0; ; n++) {      /* n: the values before this one */
        ka__json_space(t);
        if (ka__json_peek(t) == last) {
            /* None, or a comma before the bracket: repr() writes such a comma in (1,) only. */
            if (n > 1 || (n == 1 && !tuple)) return KA_ESYNTAX;
            break;
        }
        if (object && ka__json_name(t, &name) < 0) return KA_ESYNTAX;
        ka__json_space(t);
        int r = ka__json_value(t, depth + 1);
        if (r < 0) return r;
        ka__json_space(t);
        if (ka__json_skip(t, ',')) continue;
        if (ka__json_peek(t) != last || (tuple && n == 0)) return KA_ESYNTAX;   /* (1) is 1 */
        break;
    }
    t->p++;
    return object ? KA_OBJECT : KA_ARRAY;
}

int ka_json_read(ka_json *v, ka_str text)
{
    ka__json_text t = ka__json_begin(text);
    ka__json_space(&t);
    const char *from = t.p;
    int kind = ka__json_value(&t, 0);
    size_t n = (size_t)(t.p - from);
    if (kind > 0) ka__json_space(&t);
    if (kind > 0 && t.p < t.end) kind = KA_ESYNTAX;
    *v = (ka_json){ kind > 0 ? kind : 0, t.language == KA__JSON_PYTHON, { from, n } };
    return kind > 0 ? KA_OK : kind;
}

/* rest->raw begins with a bracket or a comma, which is skipped, and ends with the last bracket. At
   the end raw is that bracket alone, or a tuple's comma and the bracket: no value is read there. */
bool ka_json_next(ka_json *rest, ka_json *name, ka_json *value)
{
    if (rest->kind != KA_ARRAY && rest->kind != KA_OBJECT) return false;
    if (rest->raw.n < 2) return false;
    ka__json_text t = ka__json_begin((ka_str){ rest->raw.p + 1, rest->raw.n - 2 });
    ka_str called = { NULL, 0 };
    ka__json_space(&t);
    if (rest->kind == KA_OBJECT && ka__json_name(&t, &called) < 0) return false;
    ka__json_space(&t);
    const char *from = t.p;
    int kind = ka__json_value(&t, 0);
    if (kind < 0) return false;
    *value = (ka_json){ kind, rest->python, { from, (size_t)(t.p - from) } };
    if (name) *name = (ka_json){ called.p ? KA_STRING : 0, rest->python, called };
    ka__json_space(&t);
    rest->raw = (ka_str){ t.p, (size_t)(rest->raw.p + rest->raw.n - t.p) };
    return true;
}

int ka_json_find(const ka_json *object, const char *name, ka_json *value)
{
    ka_json rest = *object, called, v;
    bool found = false;
    if (object->kind != KA_OBJECT) return KA_ENOTFOUND;
    while (ka_json_next(&rest, &called, &v)) {
        if (!ka_json_is(&called, name)) continue;
        if (found) return KA_EINVAL;
        found = true;
        *value = v;
    }
    return found ? KA_OK : KA_ENOTFOUND;
}

/* What is between the quotes. */
static ka_str ka__json_inside(const ka_json *v)
{
    return (ka_str){ v->raw.p + 1, v->raw.n - 2 };
}

bool ka_json_is(const ka_json *v, const char *text)
{
    if (v->kind != KA_STRING) return false;
    ka__json_text t = ka__json_begin(ka__json_inside(v));
    size_t left = strlen(text);
    while (t.p < t.end) {
        char c[4];
        if (*t.p != '\\' && *t.p != *text) return false;      /* the usual end of a comparison */
        int32_t point = ka__json_char(&t);
        size_t n = point < 0 ? SIZE_MAX : ka__json_utf8_put(c, point);
        if (n > left || memcmp(c, text, n) != 0) return false;
        text += n;
        left -= n;
    }
    return left == 0;
}

ptrdiff_t ka_json_string(char *out, size_t cap, const ka_json *v)
{
    size_t n = 0;
    if (v->kind != KA_STRING) return KA_EINVAL;
    ka__json_text t = ka__json_begin(ka__json_inside(v));
    while (t.p < t.end) {
        char c[4];
        int32_t point = ka__json_char(&t);
        if (point < 0) return KA_EINVAL;
        size_t more = ka__json_utf8_put(c, point);
        if (more > cap - n) return KA_ENOSPC;
        memcpy(out + n, c, more);
        n += more;
    }
    return (ptrdiff_t)n;
}

/* ---- writing ---- */

static void ka__json_fail(ka_json_out *w, int error)
{
    if (w->error == KA_OK) w->error = error;
}

static void ka__json_add(ka_json_out *w, const char *p, size_t n)
{
    if (n > w->cap - w->n) ka__json_fail(w, KA_ENOSPC);
    if (w->error) return;
    memcpy(w->p + w->n, p, n);
    w->n += n;
}

/* May this character stand in a string without an escape? In Python only printable ASCII may. In
   JSON all may but control characters (Unicode's Cc), and what ends a line or paragraph, or changes
   the direction of text. */
static bool ka__json_printable(const ka_json_out *w, int32_t point)
{
    if (point < 0x7F) return point >= 0x20;
    if (w->python || point < 0xA0) return false;
    return (point < 0x2028 || point > 0x202E) && (point < 0x2066 || point > 0x2069);
}

/* Write \u and four digits; in Python \x and two, \u and four, or \U and eight. */
static void ka__json_add_escape(ka_json_out *w, int32_t point)
{
    char c[10] = "\\u";
    size_t digits = 4;
    if (w->python && point < 0x100) {
        c[1] = 'x';
        digits = 2;
    } else if (w->python && point >= 0x10000) {
        c[1] = 'U';
        digits = 8;
    }
    for (size_t i = digits; i > 0; i--, point >>= 4) c[1 + i] = "0123456789abcdef"[point & 15];
    ka__json_add(w, c, 2 + digits);
}

/* Write one character of a string. */
static void ka__json_add_char(ka_json_out *w, int32_t point)
{
    static const char escaped[] = "\\\n\r\t\b\f", letters[] = "\\nrtbf";
    size_t known = w->python ? 4 : 6;      /* repr() has no letter for the last two */
    const char *at = point < 0x7F ? memchr(escaped, (int)point, known) : NULL;
    char c[4] = "\\";
    if (at || point == (w->python ? '\'' : '"')) {
        c[1] = at ? letters[at - escaped] : (char)point;
        ka__json_add(w, c, 2);
    } else if (ka__json_printable(w, point)) {
        ka__json_add(w, c, ka__json_utf8_put(c, point));
    } else ka__json_add_escape(w, point);
}

/* Write a string with its quotes.
     raw    s is as it was sent, with its escapes; else it is UTF-8 */
static void ka__json_add_string(ka_json_out *w, ka_str s, bool raw)
{
    ka__json_text t = ka__json_begin(s);
    const char *quote = w->python ? "'" : "\"";
    ka__json_add(w, quote, 1);
    while (t.p < t.end && w->error == KA_OK) {
        int32_t point = raw ? ka__json_char(&t) : ka__json_utf8_take(&t.p, t.end);
        if (point < 0) w->error = KA_ESYNTAX;
        else ka__json_add_char(w, point);
    }
    ka__json_add(w, quote, 1);
}

static void ka__json_add_word(ka_json_out *w, int kind)
{
    const char *word = ka__json_words[w->python][kind - KA_NULL];
    ka__json_add(w, word, strlen(word));
}

/* Write what goes before a value: a comma, and a name. */
static void ka__json_lead(ka_json_out *w, ka_str name, bool raw)
{
    bool object = w->depth > 0 && !(w->arrays >> (w->depth - 1) & 1);
    bool second = w->depth == 0 && w->comma;
    if (object != (name.p != NULL) || second) ka__json_fail(w, KA_EINVAL);
    if (w->comma) ka__json_add(w, ", ", 2);
    if (!object) return;
    ka__json_add_string(w, name, raw);
    ka__json_add(w, ": ", 2);
}

static void ka__json_enter(ka_json_out *w, ka_str name, bool raw, int kind)
{
    _Static_assert(KA_MAX_DEPTH <= 32, "arrays has a bit for each");
    ka__json_lead(w, name, raw);
    if (kind != KA_OBJECT && kind != KA_ARRAY) ka__json_fail(w, KA_EINVAL);
    if (w->depth == KA_MAX_DEPTH) ka__json_fail(w, KA_ELIMIT);
    ka__json_add(w, kind == KA_OBJECT ? "{" : "[", 1);
    if (w->error) return;
    uint32_t bit = (uint32_t)1 << w->depth++;
    w->arrays = kind == KA_ARRAY ? w->arrays | bit : w->arrays & ~bit;
    w->comma = false;
}

/* A value is written. After an error what was written since `before` is taken back. */
static void ka__json_done(ka_json_out *w, size_t before)
{
    w->comma = true;
    if (w->error) w->n = before;
}

void ka_json_open(ka_json_out *w, const char *name, int kind)
{
    size_t before = w->n;
    ka__json_enter(w, ka__json_str(name), false, kind);
    if (w->error) w->n = before;
}

void ka_json_close(ka_json_out *w)
{
    if (w->depth == 0) ka__json_fail(w, KA_EINVAL);
    if (w->error) return;
    ka__json_add(w, w->arrays >> --w->depth & 1 ? "]" : "}", 1);
    w->comma = true;
}

void ka_json_put(ka_json_out *w, const char *name, ka_str text)
{
    size_t before = w->n;
    ka__json_lead(w, ka__json_str(name), false);
    if (text.p) ka__json_add_string(w, text, false);
    else ka__json_add_word(w, KA_NULL);
    ka__json_done(w, before);
}

void ka_json_put_integer(ka_json_out *w, const char *name, int64_t number)
{
    char room[20], *end = room + sizeof room, *p = end;      /* -9223372036854775808 */
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    size_t before = w->n;
    do *--p = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0) *--p = '-';
    ka__json_lead(w, ka__json_str(name), false);
    ka__json_add(w, p, (size_t)(end - p));
    ka__json_done(w, before);
}

void ka_json_put_bool(ka_json_out *w, const char *name, bool yes)
{
    size_t before = w->n;
    ka__json_lead(w, ka__json_str(name), false);
    ka__json_add_word(w, yes ? KA_TRUE : KA_FALSE);
    ka__json_done(w, before);
}

static void ka__json_copy(ka_json_out *w, ka_str name, bool raw, const ka_json *v);

/* The recursion ends: at KA_MAX_DEPTH there is an error. */
static void ka__json_copy_members(ka_json_out *w, const ka_json *v)
{
    ka_json rest = *v, name, member;
    while (w->error == KA_OK && ka_json_next(&rest, &name, &member)) {
        ka_str called = name.kind ? ka__json_inside(&name) : (ka_str){ NULL, 0 };
        ka__json_copy(w, called, true, &member);
    }
}

static void ka__json_copy(ka_json_out *w, ka_str name, bool raw, const ka_json *v)
{
    if (v->kind == KA_OBJECT || v->kind == KA_ARRAY) {
        ka__json_enter(w, name, raw, v->kind);
        ka__json_copy_members(w, v);
        ka_json_close(w);
        return;
    }
    ka__json_lead(w, name, raw);
    switch (v->kind) {
    case KA_STRING: ka__json_add_string(w, ka__json_inside(v), true); break;
    case KA_NUMBER: ka__json_add(w, v->raw.p, v->raw.n); break;
    case KA_NULL: case KA_FALSE: case KA_TRUE: ka__json_add_word(w, v->kind); break;
    default: ka__json_fail(w, KA_EINVAL);
    }
    w->comma = true;
}

void ka_json_put_value(ka_json_out *w, const char *name, const ka_json *v)
{
    size_t before = w->n;
    ka__json_copy(w, ka__json_str(name), false, v);
    ka__json_done(w, before);
}

#endif /* KEYAUTH_JSON_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
