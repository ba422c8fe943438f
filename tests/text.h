/* tests/text.h - section 3 of keyauth.h: heads, chunked bodies, forms, fields. */

static void test_forms(void)
{
    static const struct { const char *in, *want; } decode[] = {
        { "a+b/c=", "a+b/c=" }, { "%2B%2f%3D", "+/=" }, { "%61%62", "ab" }, { "", "" },
        { "100%25", "100%" }, { "%00", NULL },
    };
    static const char *const refuse[] = { "%", "%2", "a%", "a%4", "%g0", "%0g", "%%20" };
    static const struct { const char *in; int pairs; const char *last; } forms[] = {
        { "a=b", 1, "a:b" }, { "a=b&c=d", 2, "c:d" }, { "a=", 1, "a:" }, { "=b", 1, ":b" },
        { "a=b=c", 1, "a:b=c" },
        { "", -1, "" }, { "a", -1, "" }, { "a=b&", -2, "" }, { "&a=b", -1, "" },
        { "a=b&&c=d", -2, "" },
    };
    char out[64];
    for (size_t i = 0; i < COUNT(decode); i++) {
        char *in = exact(decode[i].in, strlen(decode[i].in));
        ptrdiff_t n = ka_percent_decode(out, sizeof out, (ka_str){ in, strlen(decode[i].in) });
        if (decode[i].want)
            CHECK(n == (ptrdiff_t)strlen(decode[i].want) &&
                      memcmp(out, decode[i].want, (size_t)n) == 0,
                  "%s", decode[i].in);
        else CHECK(n == 1 && out[0] == 0, "%s", decode[i].in);
        if (n > 0)
            CHECK(ka_percent_decode(out, (size_t)n - 1, (ka_str){ in, strlen(decode[i].in) }) ==
                      KA_ENOSPC,
                  "%s: no room", decode[i].in);
        free(in);
    }
    for (size_t i = 0; i < COUNT(refuse); i++) {
        char *in = exact(refuse[i], strlen(refuse[i]));
        CHECK(ka_percent_decode(out, sizeof out, (ka_str){ in, strlen(refuse[i]) }) == KA_ESYNTAX,
              "%s", refuse[i]);
        free(in);
    }
    for (size_t i = 0; i < COUNT(forms); i++) {
        size_t size = strlen(forms[i].in);
        char *in = exact(forms[i].in, size), last[32] = "";
        ka_str rest = { in, size }, name, value;
        int pairs = 0, r;
        while ((r = ka_form_next(&rest, &name, &value)) == KA_OK) {
            pairs++;
            snprintf(last, sizeof last, "%.*s:%.*s", (int)name.n, name.p, (int)value.n, value.p);
        }
        bool good = forms[i].pairs > 0 ? r == KA_ENOTFOUND && pairs == forms[i].pairs &&
                                             strcmp(last, forms[i].last) == 0
                                       : r == KA_ESYNTAX && pairs == -forms[i].pairs - 1;
        CHECK(good, "form \"%s\": %d pairs, last %s, then %d", forms[i].in, pairs, last, r);
        free(in);
    }
}

/* want > 0: refused with this status. want 0: accepted, and says is "METHOD TARGET minor length
   flags". */
static const struct { const char *in; int want; const char *says, *why; } requests[] = {
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 0, "POST / 1 5 k", "plain" },
    { "GET /x?y=1 HTTP/1.1\r\nHost:\r\n\r\n", 0, "GET /x?y=1 1 -1 k", "an empty Host is one" },
    { "GET / HTTP/1.1\r\nHost: a:80\r\n\r\n", 0, "GET / 1 -1 k", "Host with a port" },
    { "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 0, "GET / 1 -1 k", "RFC 3986 s.3.2.3: an empty port" },
    { "GET / HTTP/1.0\r\n\r\n", 0, "GET / 0 -1 ", "1.0 needs no Host and closes" },
    { "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 0, "GET / 0 -1 k", "1.0 keeps alive on request" },
    { "GET / HTTP/1.9\r\nHost: a\r\n\r\n", 0, "GET / 1 -1 k", "a later minor version is 1.1" },
    { "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo , close\r\n\r\n", 0, "GET / 1 -1 ", "close in a list" },
    { "GET / HTTP/1.1\r\nHost: a\r\nconnection: keep-alive\r\nCONNECTION: close\r\n\r\n", 0, "GET / 1 -1 ", "close wins" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tChunked \r\n\r\n", 0, "POST / 1 -1 kc", "chunked in any case" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked,\r\n\r\n", 0, "POST / 1 -1 kc", "RFC 9110 s.5.6.1: empty members" },
    { "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n", 0, "POST / 1 -1 ke", "expects" },
    { "POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", 0, "POST / 0 -1 ", "RFC 9110 s.10.1.1: not in 1.0" },
    { "GET http://a.b:9/c?d HTTP/1.1\r\nHost: a\r\n\r\n", 0, "GET /c?d 1 -1 k", "RFC 9112 s.3.2.2: absolute form" },
    { "GET HTTP://a HTTP/1.1\r\nHost: a\r\n\r\n", 0, "GET / 1 -1 k", "absolute form without a path" },
    { "GET https://a/b HTTP/1.1\r\nHost: a%41\r\n\r\n", 0, "GET /b 1 -1 k", "the other scheme; an escape in Host" },
    { "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0, "OPTIONS * 1 -1 k", "asterisk form" },
    { "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 0, "CONNECT a:443 1 -1 k", "authority form" },
    { "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 0, "CONNECT a:80 1 -1 k", "the lowest digit" },
    { "CONNECT a:9 HTTP/1.1\r\nHost: a\r\n\r\n", 0, "CONNECT a:9 1 -1 k", "the highest digit" },
    { "CONNECT a:/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "the character below the digits" },
    { "M-!#$%&'*+.^_`|~ / HTTP/1.1\r\nHost: [::1]:8\r\nX:\r\nY: a\tb \x80\xff\r\n\r\n", 0, "M-!#$%&'*+.^_`|~ / 1 -1 k", "odd but allowed" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 922337203685477580\r\n\r\n", 0, "POST / 1 922337203685477580 k", "large, not overflowing" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n", 0, "POST / 1 0 k", "zeros" },

    { "POST / HTTP/1.1\r\n\r\n", 400, "", "RFC 9112 s.3.2: Host missing" },
    { "POST / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "", "s.3.2: Host twice" },
    { "POST / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400, "", "s.3.2: Host twice, in 1.0" },
    { "POST / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "", "s.3.2: Host with a space" },
    { "POST / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "", "s.3.2: Host with a path" },
    { "POST / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "", "s.5.1: space before colon" },
    { "POST / HTTP/1.1\r\nHost\t: a\r\n\r\n", 400, "", "s.5.1: tab before colon" },
    { "POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400, "", "s.5.2: folded line" },
    { "POST / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "", "s.2.2: space before the first field" },
    { "POST / HTTP/1.1\nHost: a\n\n", 400, "", "s.2.2: bare LF" },
    { "POST / HTTP/1.1\r\nHost: a\n\r\n", 400, "", "s.2.2: bare LF after a field" },
    { "POST / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, "", "s.2.2: bare CR" },
    { "POST / HTTP/1.1\r\nHost: a\r\n\rX", 400, "", "s.2.2: bare CR at the end" },
    { "POST / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400, "", "RFC 9110 s.5.5: control character" },
    { "POST / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400, "", "RFC 9110 s.5.5: DEL" },
    { "POST / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, "", "a field without a name" },
    { "POST / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400, "", "a field without a colon" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400, "", "RFC 9110 s.8.6: sign" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400, "", "sign" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400, "", "hex" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400, "", "list" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", 400, "", "two numbers" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400, "", "no number" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n", 400, "", "fraction" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\n", 400, "", "overflow: 2^64 + 5" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775813\r\n\r\n", 400, "", "overflow: 2^63 + 5" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "", "RFC 9112 s.6.3: two lengths" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400, "", "twice, even if equal" },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "", "s.6.1: both" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400, "", "s.6.1: both" },
    { "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "", "s.6.1: in 1.0" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "", "s.6.3: chunked is not last" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400, "", "s.6.3: chunked is not last" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400, "", "s.6.1: chunked twice" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "", "s.6.1: chunked twice" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400, "", "s.6.3: no coding" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400, "", "s.6.3: not chunked" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n", 400, "", "s.7.1: chunked has no parameters" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "", "s.6.1: unknown coding" },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 501, "", "s.6.1: unknown coding" },
    { "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417, "", "RFC 9110 s.10.1.1" },
    { "POST / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "", "RFC 9110 s.15.6.6" },
    { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "", "HTTP/2's preface" },
    { "POST / HTTP/0.9\r\n\r\n", 505, "", "RFC 9110 s.15.6.6" },
    { "POST / http/1.1\r\nHost: a\r\n\r\n", 400, "", "RFC 9112 s.2.3: case" },
    { "POST / HTTP/1.\r\nHost: a\r\n\r\n", 400, "", "s.2.3: digit missing" },
    { "POST / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "", "s.2.3: two digits" },
    { "POST / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "", "s.3: space at the end" },
    { "POST /\r\nHost: a\r\n\r\n", 400, "", "s.3: no version" },
    { "POST  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "s.3: two spaces" },
    { "POST\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "s.3: a tab" },
    { " POST / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "s.3: a space in front" },
    { "POST / HTTP/1.1\r\nHost: a:xy\r\n\r\n", 400, "", "RFC 3986 s.3.2.3: port is digits" },
    { "POST / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400, "", "two ports" },
    { "POST / HTTP/1.1\r\nHost: ]a[\r\n\r\n", 400, "", "brackets" },
    { "POST / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "", "an open bracket" },
    { "POST / HTTP/1.1\r\nHost: :80\r\n\r\n", 400, "", "a port without a host" },
    { "POST / HTTP/1.1\r\nHost: []\r\n\r\n", 400, "", "empty brackets" },
    { "POST / HTTP/1.1\r\nHost: a%4\r\n\r\n", 400, "", "a bad escape" },
    { "POST / HTTP/1.1\r\nHost: a%4g\r\n\r\n", 400, "", "a bad escape" },
    { "POST / HTTP/1.1\r\nHost: a%g4\r\n\r\n", 400, "", "a bad escape" },
    { "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "RFC 9112 s.3.2.3: CONNECT takes an authority" },
    { "POST / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "", "RFC 9110 s.4.2.4: userinfo" },
    { "POST http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "RFC 9110 s.4.2.4: userinfo" },
    { "POST http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "RFC 9110 s.4.2.1: no host" },
    { "POST /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "RFC 9112 s.3.2: a fragment" },
    { "POST /<> HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "RFC 3986 s.2: no character of a URI" },
    { "\rPOST / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "s.2.2: a CR in front" },
    { "P(ST / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "RFC 9110 s.9.1: method is a token" },
    { "POST /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "target is ASCII" },
    { "POST a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "s.3.2: no form of target" },
    { "POST * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "s.3.2.4: * is for OPTIONS" },
    { "POST http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "RFC 9110 s.4.2.1: no host" },
    { "POST ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "", "another scheme" },
    { "\x16\x03\x01\x02", 400, "", "TLS" },
};

/* Hosts (RFC 3986 s.3.2.2), each in the field Host, in an absolute target, and for CONNECT. */
static const struct { const char *host; bool good; const char *why; } hosts[] = {
    { "[::]", true, "nothing but the gap" },
    { "[::1]", true, "a gap in front" },
    { "[1::]", true, "a gap at the end" },
    { "[1:2:3:4:5:6:7:8]", true, "8 groups" },
    { "[abcd:EF01:0:0000:00:000:1:ffff]", true, "1 to 4 digits, in any case" },
    { "[1:2:3::5:6:7:8]", true, "7 groups, and a gap for one" },
    { "[::2:3:4:5:6:7:8]", true, "7 groups behind the gap" },
    { "[1:2:3:4:5:6:7::]", true, "7 groups before the gap" },
    { "[::1.2.3.4]", true, "an IPv4 address behind the gap" },
    { "[1:2:3:4:5:6:1.2.3.4]", true, "an IPv4 address for the last two groups" },
    { "[1:2:3:4:5::1.2.3.4]", true, "an IPv4 address for the last two of 7 groups" },
    { "[::ffff:0.10.100.255]", true, "numbers of 1 to 3 digits" },
    { "[::1]:", true, "a port without digits" },
    { "[::1]:0080", true, "a port" },
    { "[::1]:65535", true, "the highest port" },
    { "a:", true, "a name and a port without digits" },
    { "a:65535", true, "the highest port" },
    { "1.2.3.256", true, "a name of digits: the grammar takes it for no address" },
    { "1.2.3.4", true, "an IPv4 address" },
    { "-._~!$&'()*+,;=%2f%FF", true, "what a name may have" },

    { "[]", false, "empty" },
    { "[:]", false, "a colon" },
    { "[:::]", false, "three colons" },
    { "[::::]", false, "two gaps in a row" },
    { "[1::2::3]", false, "two gaps" },
    { "[....]", false, "dots" },
    { "[1.2.3.4]", false, "an IPv4 address alone" },
    { "[1]", false, "one group" },
    { "[1:2:3:4:5:6:7]", false, "7 groups without a gap" },
    { "[1:2:3:4:5:6:7:8:9]", false, "9 groups" },
    { "[1:2:3:4:5:6:7:8::]", false, "a gap for nothing at the end" },
    { "[::1:2:3:4:5:6:7:8]", false, "a gap for nothing in front" },
    { "[1:2:3:4::5:6:7:8]", false, "a gap for nothing" },
    { "[1:2:3:4:5:6:7:1.2.3.4]", false, "7 groups and an IPv4 address" },
    { "[1:2:3:4:5:6::1.2.3.4]", false, "a gap for nothing before an IPv4 address" },
    { "[1:2:3:4:5:1.2.3.4]", false, "5 groups and an IPv4 address" },
    { "[1.2.3.4::]", false, "an IPv4 address in front" },
    { "[::1.2.3.4:5]", false, "an IPv4 address in the middle" },
    { "[:1:2:3:4:5:6:7:8]", false, "a colon in front" },
    { "[1:2:3:4:5:6:7:8:]", false, "a colon at the end" },
    { "[1:]", false, "a colon at the end of few" },
    { "[::1:]", false, "a colon at the end, behind a gap" },
    { "[::12345]", false, "5 digits" },
    { "[::00001]", false, "5 digits of a small number" },
    { "[::g]", false, "no digit" },
    { "[::256.1.1.1]", false, "an IPv4 number over 255" },
    { "[::1.1.1.1234567890123]", false, "an IPv4 number far over 255" },
    { "[::01.1.1.1]", false, "a leading zero" },
    { "[::1.1.1.00]", false, "two zeros" },
    { "[::1.1.1]", false, "three numbers" },
    { "[::1.1.1.1.1]", false, "five numbers" },
    { "[::1..1.1]", false, "an empty number" },
    { "[::1.1.1.]", false, "a dot at the end" },
    { "[::.1.1.1]", false, "a dot in front" },
    { "[::a.1.1.1]", false, "a number in hexadecimal" },
    { "[::1.1.1.1/8]", false, "a prefix length" },
    { "[fe80::1%25eth0]", false, "RFC 6874: a zone" },
    { "[fe80::1%eth0]", false, "a zone as it was written before RFC 6874" },
    { "[::1", false, "no closing bracket" },
    { "[::1]]", false, "two closing brackets" },
    { "[[::1]]", false, "brackets in brackets" },
    { "[::1]a", false, "something behind the bracket" },
    { "a[::1]", false, "something before the bracket" },
    { "[ ::1]", false, "a space" },
    { "::1", false, "no brackets" },
    { "[v1.a]", false, "a later version of IP: there is none" },
    { "[::0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]", false, "too long" },
    { "[::1]:65536", false, "a port over 65535" },
    { "a:99999", false, "a port over 65535" },
    { "a:4294967376", false, "a port that is 80 in 32 bits" },
    { "a:18446744073709551696", false, "a port that is 80 in 64 bits" },
    { "a:-1", false, "a sign" },
    { "a:0x50", false, "a port in hexadecimal" },
    { "u@a", false, "a user" },
    { "u:p@a:80", false, "a user and a password" },
    { "@a", false, "an empty user" },
    { "u@[::1]", false, "a user before an address" },
    { "a%", false, "half an escape" },
    { "a%4", false, "half an escape" },
    { "a%zz", false, "no escape" },
    { "a\\b", false, "a backslash" },
    { "a<b", false, "no character of a name" },
    { "a\"b", false, "a quotation mark" },
    { "a^b", false, "no character of a name" },
    { "a,b c", false, "a space" },
    { "\xc3\xa9", false, "a name in UTF-8" },
};

static void host_test(const char *host, const char *head, bool good, const char *why)
{
    size_t n = strlen(head), refused_at = 0;
    ka__http h;
    for (size_t cut = 0; cut <= n; cut++) {
        char *in = exact(head, cut);
        ptrdiff_t r = ka__http_request(&h, in, cut);
        if (r == KA_ESYNTAX && !refused_at) refused_at = cut;
        bool same = refused_at ? r == KA_ESYNTAX && h.status == 400
            : r == (cut < n ? KA_EAGAIN : (ptrdiff_t)n);
        if (!same) CHECK(false, "%s, cut at %d: %d with %d: %s", why, (int)cut, (int)r, h.status,
                         head);
        if (r >= 0) CHECK(ka_is(h.host, host), "%s: \"%.*s\" in %s", why, (int)h.host.n, h.host.p,
                          head);
        free(in);
    }
    CHECK(good == !refused_at, "%s: refused at %d: %s", why, (int)refused_at, head);
}

static void test_hosts(void)
{
    char head[256];
    for (size_t i = 0; i < COUNT(hosts); i++) {
        const char *host = hosts[i].host, *why = hosts[i].why;
        size_t n = strlen(host);
        bool good = hosts[i].good, port = host[n - 1] >= '0' && host[n - 1] <= '9' &&
            strstr(host, host[0] == '[' ? "]:" : ":");
        snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host);
        host_test(host, head, good, why);
        snprintf(head, sizeof head, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", host);
        host_test(host, head, good, why);
        snprintf(head, sizeof head, "GET https://%s?q HTTP/1.1\r\nHost: x\r\n\r\n", host);
        host_test(host, head, good, why);
        snprintf(head, sizeof head, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", host);
        host_test(host, head, good && port, why);
    }
}

static void test_requests(void)
{
    for (size_t i = 0; i < COUNT(requests); i++) {
        size_t n = strlen(requests[i].in), refused_at = 0;
        char says[128];
        for (size_t cut = 0; cut <= n; cut++) {
            char *in = exact(requests[i].in, cut);
            ka__http h;
            ptrdiff_t r = ka__http_request(&h, in, cut);
            if (requests[i].want) {
                if (r != KA_EAGAIN && refused_at == 0) refused_at = cut;
                bool good = refused_at ? r == KA_ESYNTAX && h.status == requests[i].want
                                       : r == KA_EAGAIN && cut < n;
                if (!good)
                    CHECK(false, "%s: cut at %d: got %d with %d, want %d", requests[i].why,
                          (int)cut, (int)r, h.status, requests[i].want);
            } else if (cut < n) {
                if (r != KA_EAGAIN)
                    CHECK(false, "%s: cut at %d: got %d with %d, want KA_EAGAIN", requests[i].why,
                          (int)cut, (int)r, h.status);
            } else {
                snprintf(says, sizeof says, "%.*s %.*s %d %lld %s%s%s", (int)h.method.n, h.method.p,
                         (int)h.target.n, h.target.p, h.minor, (long long)h.length,
                         h.keep_alive ? "k" : "", h.chunked ? "c" : "", h.expects ? "e" : "");
                CHECK(r == (ptrdiff_t)n && strcmp(says, requests[i].says) == 0,
                      "%s: got %d with %d, %s", requests[i].why, (int)r, h.status, says);
            }
            free(in);
        }
        if (requests[i].want) CHECK(refused_at > 0, "%s: not refused", requests[i].why);
    }
}

static void test_long_heads(void)
{
    static const struct { const char *before, *after; char fill; int want; } rows[] = {
        { "GET /", " HTTP/1.1\r\nHost: a\r\n\r\n", 'x', 414 },
        { "GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", 'x', 431 },
        { "GET / HTTP/1.1\r\nHost: a\r\n", ": y\r\n\r\n", 'x', 431 },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t over = 0; over < 2; over++) {
            size_t b = strlen(rows[i].before), a = strlen(rows[i].after), n = KA_MAX_HEAD + over;
            char *in = malloc(n);
            if (!in) abort();
            memset(in, rows[i].fill, n);
            memcpy(in, rows[i].before, b);
            memcpy(in + n - a, rows[i].after, a);
            ka__http h;
            ptrdiff_t r = ka__http_request(&h, in, n);
            /* a request line that is too long is told only if the line itself doesn't end */
            int want = rows[i].want == 414 && over ? 431 : rows[i].want;
            CHECK(over ? r == KA_ESYNTAX && h.status == want : r == (ptrdiff_t)n,
                  "row %d, %d over: got %d with %d", (int)i, (int)over, (int)r, h.status);
            r = ka__http_request(&h, in, KA_MAX_HEAD - 200);
            CHECK(r == KA_EAGAIN, "row %d: got %d, want KA_EAGAIN", (int)i, (int)r);
            free(in);
        }
    }
    char line[KA_MAX_HEAD];
    memset(line, 'x', sizeof line);
    memcpy(line, "GET /", 5);
    ka__http h;
    CHECK(ka__http_request(&h, line, sizeof line) == KA_ESYNTAX && h.status == 414,
          "a target without an end: got %d", h.status);
}

static void test_responses(void)
{
    static const struct { const char *in; int status; const char *says, *why; } rows[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, "1 3 k", "plain" },
        { "HTTP/1.1 403 \r\n\r\n", 403, "1 -1 k", "no reason" },
        { "HTTP/1.1 403\r\n\r\n", 403, "1 -1 k", "nor a space" },
        { "HTTP/1.0 200 Fine Day\r\nConnection: close\r\n\r\n", 200, "0 -1 ", "1.0" },
        { "HTTP/1.1 100 Continue\r\n\r\n", 100, "1 -1 k", "interim" },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "1 -1 kc", "chunked" },
        { "HTTP/1.1 200 OK\r\nHost: a b\r\nExpect: x\r\n\r\n", 200, "1 -1 k", "fields that mean something in requests only" },
        { "HTTP/1.1 20 OK\r\n\r\n", 0, "", "two digits" },
        { "HTTP/1.1 2000 OK\r\n\r\n", 0, "", "four digits" },
        { "HTTP/1.1 099 OK\r\n\r\n", 0, "", "below 100" },
        { "HTTP/1.1 600 OK\r\n\r\n", 0, "", "above 599" },
        { "HTTP/2.0 200 OK\r\n\r\n", 0, "", "version" },
        { "HTTP/1.1  200 OK\r\n\r\n", 0, "", "two spaces" },
        { "{'success': True}\r\n", 0, "", "no HTTP" },
        { "HTTP/1.1 200 O\nK\r\n\r\n", 0, "", "LF in the reason" },
        { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 0, "", "both" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t n = strlen(rows[i].in);
        char says[64];
        bool refused = false;
        for (size_t cut = 0; cut <= n; cut++) {
            char *in = exact(rows[i].in, cut);
            ka__http h;
            ptrdiff_t r = ka__http_response(&h, in, cut);
            refused = refused || r == KA_ESYNTAX;
            snprintf(says, sizeof says, "%d %lld %s%s", h.minor, (long long)h.length,
                     h.keep_alive ? "k" : "", h.chunked ? "c" : "");
            if (cut == n && rows[i].status)
                CHECK(r == (ptrdiff_t)n && h.status == rows[i].status &&
                          strcmp(says, rows[i].says) == 0,
                      "%s: got %d, %d, %s", rows[i].why, (int)r, h.status, says);
            else if (rows[i].status)
                CHECK(r == KA_EAGAIN, "%s: cut at %d: got %d", rows[i].why, (int)cut, (int)r);
            free(in);
        }
        CHECK(refused == (rows[i].status == 0), "%s", rows[i].why);
    }
}

/* Feed in pieces of a length, or cut once at `cut`; what comes out must not depend on it. */
static ptrdiff_t feed_chunked(const char *in, size_t n, size_t cut, size_t piece, char *out,
                              size_t *taken)
{
    ka__chunked d = { .room = 40 };
    size_t at = 0, total = 0;
    while (at < n && !d.done) {
        size_t part = piece ? piece : at < cut ? cut - at : n - at, used;
        if (part > n - at) part = n - at;
        char *copy = exact(in + at, part);
        ptrdiff_t got = ka__chunked_decode(&d, copy, part, &used);
        if (got >= 0) memcpy(out + total, copy, (size_t)got);
        free(copy);
        if (got < 0) return got;
        total += (size_t)got;
        at += used;
    }
    *taken = at;
    return d.done ? (ptrdiff_t)total : KA_EAGAIN;
}

static const struct { const char *in; ptrdiff_t want; const char *data, *why; } chunked_rows[] = {
    { "3\r\nabc\r\n0\r\n\r\n", 3, "abc", "one chunk" },
    { "1\r\na\r\n002\r\nbc\r\n0\r\n\r\nNEXT", 3, "abc", "two chunks; what follows is left" },
    { "0\r\n\r\n", 0, "", "empty" },
    { "a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n", 20, "01234567890123456789", "hex in both cases" },
    { "3;a;b=c;d=\"e;\\\"\r\t\"\r\nabc\r\n0;x\r\n\r\n", KA_ESYNTAX, "", "CR in a quoted extension" },
    { "3;a;b=c;d=\"e;\\\"\t\"\r\nabc\r\n0;x\r\n\r\n", 3, "abc", "extensions" },
    { "3 ; a\t=\t\"b\" ;c\t; d\r\nabc\r\n0\r\n\r\n", 3, "abc", "s.7.1.1: bad white space, to be parsed" },
    { "3 \r\nabc\r\n0\r\n\r\n", KA_ESYNTAX, "", "s.7.1: a space after the size" },
    { "3 4\r\nabc\r\n", KA_ESYNTAX, "", "two sizes" },
    { "3;\r\nabc\r\n0;=x\r\n\r\n", 3, "abc", "nobody reads extensions" },
    { "3;a b=\r\nabc\r\n0;a=\"b\"c\"\r\n\r\n", 3, "abc", "whatever they say" },
    { "3;a\nabc\r\n", KA_ESYNTAX, "", "bare LF in an extension" },
    { "3 a\r\nabc\r\n", KA_ESYNTAX, "", "text behind a space" },
    { "1\r\na\r\n0\r\nA: b\r\nC:\r\n\r\n", 1, "a", "trailers" },
    { "28\r\n0123456789012345678901234567890123456789\r\n0\r\n\r\n", 40, "0123456789012345678901234567890123456789", "all the room" },
    { "29\r\n", KA_ENOSPC, "", "more than the room" },
    { "27\r\n012345678901234567890123456789012345678\r\n2\r\n", KA_ENOSPC, "", "more than the room, in two" },
    { "fffffffff\r\n", KA_ENOSPC, "", "overflow" },
    { "10000000000000003\r\nabc\r\n", KA_ENOSPC, "", "2^64 + 3" },
    { "\r\n", KA_ESYNTAX, "", "no size" },          { "g\r\n", KA_ESYNTAX, "", "not hex" },
    { "-1\r\n", KA_ESYNTAX, "", "sign" },           { "0x3\r\nabc\r\n", KA_ESYNTAX, "", "0x" },
    { " 3\r\nabc\r\n", KA_ESYNTAX, "", "space in front" },
    { "3\nabc\r\n", KA_ESYNTAX, "", "bare LF" },
    { "3\r\nabc\n0\r\n\r\n", KA_ESYNTAX, "", "bare LF after data" },
    { "3\r\nabcd\r\n", KA_ESYNTAX, "", "data longer than its size" },
    { "3\rX", KA_ESYNTAX, "", "bare CR" },
    { "3\r\nabc\rX", KA_ESYNTAX, "", "bare CR after data" },
    { "0\r\nA b: c\r\n\r\n", KA_ESYNTAX, "", "trailer with a space" },
    { "0\r\nA: b\r\n c\r\n\r\n", KA_ESYNTAX, "", "folded trailer" },
    { "0\r\nA: b\n\r\n", KA_ESYNTAX, "", "bare LF in a trailer" },
    { "0\r\n\rX", KA_ESYNTAX, "", "bare CR at the end" },
    { "0\r\nA\r\n\r\n", KA_ESYNTAX, "", "trailer without a colon" },
    { "0\r\nA: b\rX", KA_ESYNTAX, "", "bare CR in a trailer" },
    { "1\r\na\r\n1;01234567890123456789012345678901234567890123456789012345678901\r\nb\r\n0\r\n\r\n", 2, "ab", "KA_MAX_CHUNK_LINE" },
    { "1\r\na\r\n1;012345678901234567890123456789012345678901234567890123456789012\r\n", KA_ESYNTAX, "", "one over KA_MAX_CHUNK_LINE" },
    { "3;\x01\r\nabc\r\n", KA_ESYNTAX, "", "control character in an extension" },
    { "3;a \x01\r\nabc\r\n", KA_ESYNTAX, "", "control character behind a name" },
    { "3;a=\x01\r\nabc\r\n", KA_ESYNTAX, "", "control character as a value" },
    { "3;a=\"\x01\"\r\nabc\r\n", KA_ESYNTAX, "", "control character in quotes" },
    { "3;a\x7f\r\nabc\r\n", KA_ESYNTAX, "", "control character in a name" },
    { "3;\"\\\x01\"\r\nabc\r\n", KA_ESYNTAX, "", "control character in a quoted pair" },
    { "3;a=\"b, (c)\"\r\nabc\r\n0\r\nA: (b), \"c\\\"\r\n\r\n", 3, "abc", "text that is no token" },
    { "3\r\nabc\r\n0\r\n\r", KA_EAGAIN, "", "not over" },
};

static void test_chunked(void)
{
    char out[256];
    for (size_t i = 0; i < COUNT(chunked_rows); i++) {
        size_t n = strlen(chunked_rows[i].in), taken = 0, bad = 0;
        for (size_t cut = 0; cut <= n + 1; cut++) {       /* each cut in two; last, byte by byte */
            ptrdiff_t got = feed_chunked(chunked_rows[i].in, n, cut, cut > n, out, &taken);
            bool same = got == chunked_rows[i].want &&
                        (got < 0 || memcmp(out, chunked_rows[i].data, (size_t)got) == 0);
            const char *next = strstr(chunked_rows[i].in, "NEXT");
            if (next && taken != (size_t)(next - chunked_rows[i].in)) same = false;
            if (!same) bad++;
        }
        CHECK(bad == 0, "%s: wrong in %d of %d ways to cut it", chunked_rows[i].why, (int)bad,
              (int)n + 2);
    }
    char *long_trailers = malloc(KA_MAX_HEAD + 100);
    if (!long_trailers) abort();
    memset(long_trailers, 'x', KA_MAX_HEAD + 100);
    memcpy(long_trailers, "0\r\n", 3);
    CHECK(feed_chunked(long_trailers, KA_MAX_HEAD + 100, 0, 0, out, &(size_t){ 0 }) == KA_ENOSPC,
          "trailers over KA_MAX_HEAD");
    free(long_trailers);
}

/* ---- field lines ---- */

static void test_field(void)
{
    static const struct { const char *fields, *name, *want; int error; const char *why; } rows[] = {
        { "X: y\r\n", "X", "y", KA_OK, "the only one" },
        { "Last-Event-ID: 7\r\n", "last-event-id", "7", KA_OK, "in lower case" },
        { "last-event-id: 7\r\n", "LAST-Event-Id", "7", KA_OK, "in any case" },
        { "X:y\r\n", "x", "y", KA_OK, "no white space" },
        { "X: \t a  b\t \r\n", "x", "a  b", KA_OK, "white space around it, and in it" },
        { "X:\r\n", "x", "", KA_OK, "nothing" },
        { "X: \t \r\n", "x", "", KA_OK, "white space alone" },
        { "X: Y: z\r\n", "x", "Y: z", KA_OK, "a colon in it" },
        { "X: Y: z\r\n", "y", NULL, KA_ENOTFOUND, "what looks like a name in a value" },
        { "X: \xe9\"\r\n", "x", "\xe9\"", KA_OK, "any bytes" },
        { "A: 1\r\nB: 2\r\nC: 3\r\n", "a", "1", KA_OK, "the first" },
        { "A: 1\r\nB: 2\r\nC: 3\r\n", "b", "2", KA_OK, "one between others" },
        { "A: 1\r\nB: 2\r\nC: 3\r\n", "c", "3", KA_OK, "the last" },
        { "A: 1\r\nB: 2\r\nC: 3\r\n", "d", NULL, KA_ENOTFOUND, "absent" },
        { "Accept-Language: de\r\nAccept: a/b\r\n", "accept", "a/b", KA_OK, "its name begins another one's" },
        { "Accept: a/b\r\n", "accept-language", NULL, KA_ENOTFOUND, "another name begins it" },
        { "X-Accept: a/b\r\n", "accept", NULL, KA_ENOTFOUND, "and ends another one" },
        { "X: 1\r\nX: 2\r\n", "x", NULL, KA_EINVAL, "twice" },
        { "X: 1\r\nY: 2\r\nx: 1\r\n", "x", NULL, KA_EINVAL, "twice, with the same value and in another case" },
        { "X: 1\r\nY: 2\r\nX: 1\r\n", "y", "2", KA_OK, "between the two" },
        { "X:\r\nX: 1\r\n", "x", NULL, KA_EINVAL, "twice, once without a value" },
        { "", "x", NULL, KA_ENOTFOUND, "no fields" },
        { "X: 1\r\n", "", NULL, KA_ENOTFOUND, "no name" },
        { "X: 1\r\n", "x:", NULL, KA_ENOTFOUND, "no name either" },
        { "nonsense\r\nX: 1\r\n", "x", NULL, KA_ENOTFOUND, "what is no field" },
        { "X: 1\r\nY: 2", "y", NULL, KA_ENOTFOUND, "cut off" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char *copy = exact(rows[i].fields, strlen(rows[i].fields));
        ka_str got = { "stale", 5 };
        int r = ka_field((ka_str){ copy, strlen(rows[i].fields) }, rows[i].name, &got);
        CHECK(r == rows[i].error, "%s: %d", rows[i].why, r);
        CHECK(rows[i].want ? ka_is(got, rows[i].want) : !got.p && got.n == 0, "%s: \"%.*s\"",
              rows[i].why, (int)got.n, got.p ? got.p : "");
        free(copy);
    }
    ka_str none = { "stale", 5 };
    CHECK(ka_field((ka_str){ NULL, 0 }, "x", &none) == KA_ENOTFOUND && !none.p && none.n == 0,
          "none at all");
}

/* Each byte, beside the characters that the grammars list. A value may have any byte above 127. */
static void test_bytes_of_text(void)
{
#define ALNUM "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    static const struct { const char *what; int kind; const char *bytes; bool above; } rows[] = {
        { "a token", KA__TOKEN, ALNUM "!#$%&'*+-.^_`|~", false },
        { "a target", KA__TARGET, ALNUM "-._~!$&'()*+,;=:@/?[]%", false },
        { "a name", KA__NAME, ALNUM "-._~!$&'()*+,;=%", false },
        { "a value", KA__VALUE, ALNUM "\t !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", true },
    };
#undef ALNUM
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (int byte = 0; byte < 256; byte++) {
            bool want = byte > 127 ? rows[i].above : byte && strchr(rows[i].bytes, byte) != NULL;
            CHECK(ka__in(rows[i].kind, (char)byte) == want, "%s: %02x", rows[i].what,
                  (unsigned)byte);
        }
    }
}

static const subject text_topics[] = {
    { "bytes of text", test_bytes_of_text },
    { "forms", test_forms }, { "hosts", test_hosts }, { "requests", test_requests },
    { "long heads", test_long_heads }, { "responses", test_responses }, { "chunked", test_chunked },
    { "field", test_field },
};
