/* fuzz/grammar.h - the rules of the RFCs' grammars, for a second reader of texts up to 63 bytes.

   A rule takes the set of places where it may begin, and gives the set of places where it may end.
   Place i is before byte i; the set is a mask of bits. So all ways to read a text are followed at
   once, a sequence is a call within a call, and an alternative is `|`. No rule looks ahead. If a
   rule wanted one more byte behind the text, `more` is set: the text is the beginning of a longer
   one. If `more` is not set and no place is left, no text that begins so is one of that grammar. */

typedef uint64_t places;
typedef struct { const char *p; size_t n; bool more; } source;
typedef bool bytes_of(unsigned char);      /* a set of bytes */

enum { GRAMMAR_BYTES = 63 };      /* of a text, at most */

static places place(size_t i) { return (places)1 << i; }

/* The only place of a set: where a rule ends that can end in one way. */
static size_t only(places at)
{
    CHECK(at && !(at & (at - 1)), "a rule ends in several ways");
    return (size_t)__builtin_ctzll(at);
}

/* One byte from lo to hi. */
static places range(source *s, places at, unsigned char lo, unsigned char hi)
{
    places to = 0;
    if (!at) return 0;
    if (at >> s->n & 1) s->more = true;
    for (at &= place(s->n) - 1; at; at &= at - 1) {
        int i = __builtin_ctzll(at);
        unsigned char c = (unsigned char)s->p[i];
        if (c >= lo && c <= hi) to |= (places)2 << i;
    }
    return to;
}

static places byte(source *s, places at, char c)
{
    return range(s, at, (unsigned char)c, (unsigned char)c);
}

/* One byte of a set. */
static places one(source *s, places at, bytes_of *is)
{
    places to = 0;
    if (!at) return 0;
    if (at >> s->n & 1) s->more = true;
    for (at &= place(s->n) - 1; at; at &= at - 1) {
        int i = __builtin_ctzll(at);
        if (is((unsigned char)s->p[i])) to |= (places)2 << i;
    }
    return to;
}

/* Any number of bytes of a set; at least one. */
static places many(source *s, places at, bytes_of *is)
{
    for (places next = at; next; at |= next) next = one(s, next, is) & ~at;
    return at;
}

static places some(source *s, places at, bytes_of *is) { return many(s, one(s, at, is), is); }

/* From least to most bytes of a set. */
static places times(source *s, places at, int least, int most, bytes_of *is)
{
    places to = least == 0 ? at : 0;
    for (int i = 1; i <= most && at; i++) {
        at = one(s, at, is);
        if (i >= least) to |= at;
    }
    return to;
}

/* These bytes; as literal, with letters of either case. */
static places literal(source *s, places at, const char *text)
{
    for (; *text && at; text++) at = byte(s, at, *text);
    return at;
}

static places either_case(source *s, places at, const char *text)
{
    for (; *text && at; text++)
        at = byte(s, at, *text) | byte(s, at, (char)toupper((unsigned char)*text));
    return at;
}

/* Is all of a text one of this rule? */
static bool is_all(places (*rule)(source *, places), const char *p, size_t n)
{
    source s = { p, n, false };
    return rule(&s, 1) >> n & 1;
}

/* ---- sets of bytes: RFC 5234 app. B.1, RFC 9110 s.5, RFC 3986 s.2 ---- */

static bool digit(unsigned char c) { return c >= '0' && c <= '9'; }
static bool alpha(unsigned char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }
static bool hexdig(unsigned char c)
{
    return digit(c) || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
}
static bool blank(unsigned char c) { return c == ' ' || c == '\t'; }
static bool among(unsigned char c, const char *text) { return c && strchr(text, c); }
static bool field_vchar(unsigned char c) { return (c > ' ' && c < 0x7F) || c >= 0x80; }
static bool field_text(unsigned char c) { return field_vchar(c) || blank(c); }
static bool tchar(unsigned char c) { return alpha(c) || digit(c) || among(c, "!#$%&'*+-.^_`|~"); }
static bool unreserved(unsigned char c) { return alpha(c) || digit(c) || among(c, "-._~"); }
static bool name_char(unsigned char c) { return unreserved(c) || among(c, "!$&'()*+,;="); }
/* keyauth.h checks the bytes of a path and a query, but not that two digits are behind each %. */
static bool target_char(unsigned char c) { return name_char(c) || among(c, ":/?@[]%"); }

/* ---- field lines (RFC 9110 s.5, RFC 9112 s.5) ---- */

static places token(source *s, places at) { return some(s, at, tchar); }

static places field_line(source *s, places at)
{
    at = many(s, byte(s, token(s, at), ':'), blank);
    places first = one(s, at, field_vchar);
    places value = first | one(s, many(s, first, field_text), field_vchar);
    return many(s, at | value, blank);
}

/* ---- hosts (RFC 3986 s.3.2) ---- */

static places h16(source *s, places at) { return times(s, at, 1, 4, hexdig); }

static places h16_colons(source *s, places at, int n)      /* n( h16 ":" ) */
{
    for (; n > 0 && at; n--) at = byte(s, h16(s, at), ':');
    return at;
}

static places dec_octet(source *s, places at)
{
    places one_digit = one(s, at, digit), two = one(s, range(s, at, '1', '9'), digit);
    places three = one(s, one(s, byte(s, at, '1'), digit), digit);
    places to_249 = one(s, range(s, byte(s, at, '2'), '0', '4'), digit);
    places to_255 = range(s, byte(s, byte(s, at, '2'), '5'), '0', '5');
    return one_digit | two | three | to_249 | to_255;
}

static places ls32(source *s, places at)
{
    places ipv4 = dec_octet(s, at);
    for (int i = 0; i < 3 && ipv4; i++) ipv4 = dec_octet(s, byte(s, ipv4, '.'));
    return h16(s, h16_colons(s, at, 1)) | ipv4;
}

/* The nine lines of the RFC: six groups and ls32; or [ *i( h16 ":" ) h16 ] "::" and the rest. */
static places ipv6(source *s, places at)
{
    places to = ls32(s, h16_colons(s, at, 6)), front = at;
    for (int i = -1; i < 7; i++) {
        if (i >= 0) front |= h16(s, h16_colons(s, at, i));
        places gap = literal(s, front, "::");
        if (i < 5) to |= ls32(s, h16_colons(s, gap, 4 - i));
        if (i == 5) to |= h16(s, gap);
        if (i == 6) to |= gap;
    }
    return to;
}

/* Not IPvFuture: no such version exists, and keyauth.h refuses it. */
static places ip_literal(source *s, places at)
{
    return byte(s, ipv6(s, byte(s, at, '[')), ']');
}

static places reg_name(source *s, places at)
{
    for (places next = at; next; at |= next) {
        places encoded = times(s, byte(s, next, '%'), 2, 2, hexdig);
        next = (one(s, next, name_char) | encoded) & ~at;
    }
    return at;
}

static places host(source *s, places at) { return ip_literal(s, at) | reg_name(s, at); }

static places host_port(source *s, places at)
{
    places name = host(s, at);
    return name | many(s, byte(s, name, ':'), digit);
}

/* ---- chunks (RFC 9112 s.7.1) ---- */

/* [ BWS ";" and any text ]: keyauth.h does not look into extensions. */
static places chunk_ext(source *s, places at)
{
    return at | many(s, byte(s, many(s, at, blank), ';'), field_text);
}

/* ---- JSON (RFC 8259), UTF-8 (RFC 3629 s.4), and what Python's repr() makes of them ---- */

static bool json_blank(unsigned char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static places json_space(source *s, places at) { return many(s, at, json_blank); }

static places tails(source *s, places at, int n)
{
    for (; n > 0 && at; n--) at = range(s, at, 0x80, 0xBF);
    return at;
}

static places utf8_beyond_ascii(source *s, places at)
{
    return tails(s, range(s, at, 0xC2, 0xDF), 1) |
           tails(s, range(s, range(s, at, 0xE0, 0xE0), 0xA0, 0xBF), 1) |
           tails(s, range(s, at, 0xE1, 0xEC) | range(s, at, 0xEE, 0xEF), 2) |
           tails(s, range(s, range(s, at, 0xED, 0xED), 0x80, 0x9F), 1) |
           tails(s, range(s, range(s, at, 0xF0, 0xF0), 0x90, 0xBF), 2) |
           tails(s, range(s, at, 0xF1, 0xF3), 3) |
           tails(s, range(s, range(s, at, 0xF4, 0xF4), 0x80, 0x8F), 2);
}

static places hex_digits(source *s, places at, int n) { return times(s, at, n, n, hexdig); }

/* Four digits of a character by itself. D800 to DFFF are halves of characters. */
static bool no_d(unsigned char c) { return hexdig(c) && c != 'd' && c != 'D'; }
static places four_digits(source *s, places at)
{
    places d = either_case(s, at, "d");
    return hex_digits(s, one(s, at, no_d), 3) | hex_digits(s, range(s, d, '0', '7'), 2);
}

static places two_halves(source *s, places at)      /* uD8.. to uDB.., and \uDC.. to \uDF.. */
{
    places d = either_case(s, byte(s, at, 'u'), "d");
    places high = range(s, d, '8', '9') | range(s, d, 'A', 'B') | range(s, d, 'a', 'b');
    d = either_case(s, literal(s, hex_digits(s, high, 2), "\\u"), "d");
    return hex_digits(s, range(s, d, 'C', 'F') | range(s, d, 'c', 'f'), 2);
}

static bool json_letter(unsigned char c) { return among(c, "\"\\/bfnrt"); }
static bool python_letter(unsigned char c) { return among(c, "\"'\\abfnrtv"); }

static places escape(source *s, places at, bool python)
{
    places u = four_digits(s, byte(s, at, 'u'));
    if (!python) return one(s, at, json_letter) | u | two_halves(s, at);
    places zeros = literal(s, at, "U000"), low = four_digits(s, byte(s, zeros, '0'));
    places high = hex_digits(s, range(s, zeros, '1', '9') | range(s, zeros, 'A', 'F') |
                             range(s, zeros, 'a', 'f') | literal(s, at, "U0010"), 4);
    return one(s, at, python_letter) | u | low | high | hex_digits(s, byte(s, at, 'x'), 2);
}

static places quoted(source *s, places at, char quote, bool python)
{
    at = byte(s, at, quote);
    for (places next = at; next; at |= next) {
        places plain = 0;
        for (places ascii = range(s, next, 0x20, 0x7F); ascii; ascii &= ascii - 1) {
            int end = __builtin_ctzll(ascii);
            if (s->p[end - 1] != quote && s->p[end - 1] != '\\') plain |= place((size_t)end);
        }
        plain |= utf8_beyond_ascii(s, next) | escape(s, byte(s, next, '\\'), python);
        next = plain & ~at;
    }
    return byte(s, at, quote);
}

static places string(source *s, places at, bool python)
{
    return quoted(s, at, '"', python) | (python ? quoted(s, at, '\'', true) : 0);
}

static places number(source *s, places at)
{
    at |= byte(s, at, '-');
    places whole = byte(s, at, '0') | many(s, range(s, at, '1', '9'), digit);
    whole |= some(s, byte(s, whole, '.'), digit);
    places e = either_case(s, whole, "e");
    return whole | some(s, e | byte(s, e, '+') | byte(s, e, '-'), digit);
}

static places json_value(source *s, places at, bool python, int depth);

/* A value, or a member, with white space around it. */
static places element(source *s, places at, bool python, bool member, int depth)
{
    at = json_space(s, at);
    if (member) at = json_space(s, byte(s, json_space(s, string(s, at, python)), ':'));
    return json_space(s, json_value(s, at, python, depth));
}

/* What is between brackets. A tuple of one has a comma behind it, and only that tuple has. */
static places elements(source *s, places at, bool python, char open, int depth)
{
    places none = json_space(s, at), first = element(s, at, python, open == '{', depth);
    places comma = byte(s, first, ','), all = open == '(' ? json_space(s, comma) : first;
    for (places next = comma; next; next = byte(s, next, ',')) {
        next = element(s, next, python, open == '{', depth) & ~all;
        all |= next;
    }
    return none | all;
}

static places json_value(source *s, places at, bool python, int depth)
{
    static const char *const words[2][3] = { { "null", "false", "true" },
                                             { "None", "False", "True" } };
    places to = string(s, at, python) | number(s, at);
    for (int i = 0; i < 3; i++) to |= literal(s, at, words[python][i]);
    for (int i = 0; i < (python ? 3 : 2); i++) {
        places inside = byte(s, at, "[{("[i]);
        if (!inside) continue;
        CHECK(depth < KA_MAX_DEPTH, "no context is that deep");
        to |= byte(s, elements(s, inside, python, "[{("[i], depth + 1), "]})"[i]);
    }
    return to;
}

static places json_text(source *s, places at) { return element(s, at, false, false, 0); }
static places python_text(source *s, places at) { return element(s, at, true, false, 0); }
