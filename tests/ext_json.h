/* tests/ext_json.h - ext/json.h. */

/* It means the same as these two texts, as the writer writes them. */
static const struct {
    const char *in;
    bool python;
    int kind;
    const char *json, *repr, *why;
} json_good[] = {
    { "null", false, KA_NULL, "null", "None", "a word" },
    { "false", false, KA_FALSE, "false", "False", "a word" },
    { "true", false, KA_TRUE, "true", "True", "a word" },
    { "None", true, KA_NULL, "null", "None", "Python's words" },
    { "False", true, KA_FALSE, "false", "False", "Python's words" },
    { "True", true, KA_TRUE, "true", "True", "Python's words" },
    { "0", false, KA_NUMBER, "0", "0", "RFC 8259 s.6" },
    { "-0", false, KA_NUMBER, "-0", "-0", "s.6: minus zero" },
    { "1234567890123456789012", false, KA_NUMBER, "1234567890123456789012",
      "1234567890123456789012", "numbers stay as they are" },
    { "-1.50E+07", false, KA_NUMBER, "-1.50E+07", "-1.50E+07", "all parts of a number" },
    { "0.0e-00", false, KA_NUMBER, "0.0e-00", "0.0e-00", "s.6: zeros where they may be" },
    { "\"\"", false, KA_STRING, "\"\"", "''", "an empty string" },
    { "''", true, KA_STRING, "\"\"", "''", "Python's quotes" },
    { "\"a'b\"", false, KA_STRING, "\"a'b\"", "'a\\'b'",
      "repr() chooses these quotes for it, JSON has no others" },
    { "'a\"b'", true, KA_STRING, "\"a\\\"b\"", "'a\"b'", "the other quote" },
    { "\"\\\"\\\\\\b\\f\\n\\r\\t\"", false, KA_STRING, "\"\\\"\\\\\\b\\f\\n\\r\\t\"",
      "'\"\\\\\\x08\\x0c\\n\\r\\t'", "s.7: the escapes of both" },
    { "\"\\/\"", false, KA_STRING, "\"/\"", "'/'", "s.7: only JSON's" },
    { "'\\a\\v\\'\\x00\\xe9\\U0001F600'", true, KA_STRING,
      "\"\\u0007\\u000b'\\u0000\xc3\xa9\xf0\x9f\x98\x80\"", "'\\x07\\x0b\\'\\x00\\xe9\\U0001f600'",
      "only Python's" },
    { "\"\\xe9\"", true, KA_STRING, "\"\xc3\xa9\"", "'\\xe9'", "Python by an escape alone" },
    { "\"\\u00e9\\u20AC\\uD7FF\\uE000\"", false, KA_STRING,
      "\"\xc3\xa9\xe2\x82\xac\xed\x9f\xbf\xee\x80\x80\"", "'\\xe9\\u20ac\\ud7ff\\ue000'",
      "digits in either case" },
    { "\"\\ud83d\\uDE00\"", false, KA_STRING, "\"\xf0\x9f\x98\x80\"", "'\\U0001f600'",
      "s.7: a surrogate pair" },
    { "\"\\udbff\\udfff\\ud800\\udc00\"", false, KA_STRING, "\"\xf4\x8f\xbf\xbf\xf0\x90\x80\x80\"",
      "'\\U0010ffff\\U00010000'", "the last pair and the first" },
    { "\"\xc2\xa0\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"", false,
      KA_STRING, "\"\xc2\xa0\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"",
      "'\\xa0\\u07ff\\u0800\\uffff\\U00010000\\U0010ffff'", "RFC 3629: the ends of each length" },
    { "\"\x7f\xc2\x80\xc2\x85\xc2\x9f\xe2\x80\xa8\xe2\x80\xa9\"", false, KA_STRING,
      "\"\\u007f\\u0080\\u0085\\u009f\\u2028\\u2029\"", "'\\x7f\\x80\\x85\\x9f\\u2028\\u2029'",
      "what would forge a line is allowed, and escaped" },
    { "\"\\u202a\\u202e\\u2066\\u2069\"", false, KA_STRING, "\"\\u202a\\u202e\\u2066\\u2069\"",
      "'\\u202a\\u202e\\u2066\\u2069'", "so is what would turn it around" },
    { "\"\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa\"", false, KA_STRING,
      "\"\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa\"", "'\\u2027\\u202f\\u2065\\u206a'",
      "their neighbours" },
    { "[]", false, KA_ARRAY, "[]", "[]", "an empty array" },
    { "()", true, KA_ARRAY, "[]", "[]", "an empty tuple" },
    { "(1,)", true, KA_ARRAY, "[1]", "[1]", "a tuple of one" },
    { "(1,2)", true, KA_ARRAY, "[1, 2]", "[1, 2]", "a tuple of two" },
    { "( 1 , (2 ,) )", true, KA_ARRAY, "[1, [2]]", "[1, [2]]", "tuples in a tuple" },
    { "{}", false, KA_OBJECT, "{}", "{}", "an empty object" },
    { " \t\r\n{ \"a\" : [ 1 , { } ] , \"\" :\n\"\" }\r\n\t ", false, KA_OBJECT,
      "{\"a\": [1, {}], \"\": \"\"}", "{'a': [1, {}], '': ''}", "white space wherever it may be" },
    { "{\"a\":[null,true,[false]],\"b\":-1}", false, KA_OBJECT,
      "{\"a\": [null, true, [false]], \"b\": -1}", "{'a': [None, True, [False]], 'b': -1}",
      "and none" },
    { "{\"\\u0061\":1,\"a\":2}", false, KA_OBJECT, "{\"a\": 1, \"a\": 2}", "{'a': 1, 'a': 2}",
      "a name may be repeated" },
    { "{'success': True, 'of': {'x': None, \"it's\": 'a'}}", true, KA_OBJECT,
      "{\"success\": true, \"of\": {\"x\": null, \"it's\": \"a\"}}",
      "{'success': True, 'of': {'x': None, 'it\\'s': 'a'}}", "str() of a dict" },
};

/* python: what it looked like so far; read: the bytes before the fault. */
static const struct { const char *in; bool python; size_t read; const char *why; } json_bad[] = {
    { "", false, 0, "nothing" }, { " \n", false, 0, "white space" },
    { "\xef\xbb\xbf{}", false, 0, "RFC 8259 s.8.1: a byte order mark" },
    { "nul", false, 0, "a word cut short" }, { "nulL", false, 0, "case matters" },
    { "NULL", false, 0, "case matters" },
    { "nullx", false, 4, "a longer word" }, { "NaN", false, 0, "no number" },
    { "inf", false, 0, "no number" },
    { "-inf", false, 1, "no number" },
    { "{} {}", false, 2, "two values" }, { "1 2", false, 1, "two values" },
    { "{}\v", false, 2, "s.2: no white space" },
    { "\f{}", false, 0, "s.2: no white space" },
    { "\xc2\xa0{}", false, 0, "s.2: no white space" }, { "# \n1", false, 0, "a comment" },
    { "01", false, 1, "s.6: a zero in front" }, { "+1", false, 0, "s.6: a plus" },
    { "1.", false, 2, "s.6: no digit" },
    { ".5", false, 0, "s.6: no digit" },
    { "-", false, 1, "s.6: no digit" }, { "1e", false, 2, "s.6: no digit" },
    { "1e+", false, 3, "s.6: no digit" },
    { "1e-x", false, 3, "s.6: no digit" }, { "1.e5", false, 2, "s.6: no digit" },
    { "0x10", false, 1, "hex" }, { "1_000", false, 1, "Python's, which repr() doesn't write" },
    { "1j", false, 1, "a complex number" }, { "1L", false, 1, "Python 2" },
    { "\"a", false, 2, "an open string" }, { "'a\"", true, 3, "quotes that differ" },
    { "\"a'", false, 3, "quotes that differ" },
    { "\"a\tb\"", false, 2, "s.7: a bare tab" }, { "'a\nb'", true, 2, "a bare line feed" },
    { "\"\x1f\"", false, 1, "s.7: a bare control character" },
    { "\"\\", false, 2, "an escape cut short" }, { "\"\\q\"", false, 2, "no escape" },
    { "'\\q'", true, 2, "no escape that repr() writes" }, { "'\\0'", true, 2, "octal" },
    { "'\\\n'", true, 2, "the end of a line" }, { "'\\N{DASH}'", true, 2, "a character by name" },
    { "\"\\u12\"", false, 5, "two digits" }, { "\"\\u12g4\"", false, 5, "no digit" },
    { "'\\x4'", true, 4, "one digit" },
    { "'\\U0011000'", true, 10, "seven digits" },
    { "'\\U00110000'", true, 11, "beyond U+10FFFF" },
    { "'\\UFFFFFFFF'", true, 11, "beyond 31 bits" },
    { "'\\U0000d800'", true, 11, "a surrogate" },
    { "\"\\ud800\"", false, 7, "half a pair" },
    { "\"\\udc00\\ud800\"", false, 7, "the second half first" },
    { "\"\\ud800x\"", false, 7, "half a pair" },
    { "\"\\ud800\\n\"", false, 8, "half a pair" },
    { "\"\\ud800\\u0041\"", false, 13, "half a pair" },
    { "\"\\ud800\\ue000\"", false, 13, "half a pair" },
    { "\"\\ud800\\ud800\"", false, 13, "the first half twice" },
    { "'\\ud83d\\ude00'", true, 13, "in Python that is two halves" },
    { "\"\x80\"", false, 1, "RFC 3629: a byte that continues nothing" },
    { "\"\xbf\"", false, 1, "a byte that continues nothing" },
    { "\"\xc0\x80\"", false, 1, "s.3: overlong" }, { "\"\xc1\xbf\"", false, 1, "overlong" },
    { "\"\xe0\x9f\xbf\"", false, 1, "overlong" }, { "\"\xf0\x8f\xbf\xbf\"", false, 1, "overlong" },
    { "\"\xed\xa0\x80\"", false, 1, "s.3: a surrogate" },
    { "\"\xed\xbf\xbf\"", false, 1, "a surrogate" },
    { "\"\xf4\x90\x80\x80\"", false, 1, "beyond U+10FFFF" },
    { "\"\xf5\x80\x80\x80\"", false, 1, "beyond U+10FFFF" },
    { "\"\xff\"", false, 1, "no first byte" },
    { "\"\xc3\"", false, 1, "cut by the quote" }, { "\"\xe2\x82\"", false, 1, "cut by the quote" },
    { "\"\xf0\x9f\x98", false, 1, "cut by the end" },
    { "\xc3\xa9", false, 0, "a letter outside a string" },
    { "[", false, 1, "open" }, { "[1", false, 2, "open" }, { "[1 2]", false, 3, "no comma" },
    { "[,]", false, 1, "a comma alone" },
    { "[,1]", false, 1, "a comma in front" },
    { "[1,]", false, 3, "a comma at the end" }, { "{\"a\":1,}", false, 7, "a comma at the end" },
    { "{'a':1,}", true, 7, "a comma at the end" },
    { "(1,2,)", true, 5, "a comma at the end" }, { "[1,,2]", false, 3, "two commas" },
    { "[1,,]", false, 3, "two commas" }, { "[1)", false, 2, "brackets that differ" },
    { "(1,]", true, 3, "brackets that differ" }, { "]", false, 0, "no bracket to close" },
    { "(1)", true, 2, "no tuple" }, { "(,)", true, 1, "a comma alone" },
    { "((1))", true, 3, "no tuple" },
    { "({})", true, 3, "no tuple" },
    { "{", false, 1, "open" }, { "{\"a\"", false, 4, "open" }, { "{\"a\":", false, 5, "open" },
    { "{\"a\":1", false, 6, "open" },
    { "{\"a\":1]", false, 6, "brackets that differ" },
    { "{\"a\"}", false, 4, "a set" }, { "{1}", false, 1, "a set" },
    { "{\"a\" 1}", false, 5, "no colon" },
    { "{\"a\"::1}", false, 5, "two colons" }, { "{\"a\":}", false, 5, "no value" },
    { "{,}", false, 1, "a comma alone" }, { "{1:2}", false, 1, "a name is a string" },
    { "{None:2}", false, 1, "a name is a string" },
    { "{('a',):2}", false, 1, "a name is a string" },
    { "{a:1}", false, 1, "a name without quotes" }, { "{\"a\":1,,}", false, 7, "two commas" },
    { "{\"a\\q\":1}", false, 4, "a malformed name" },
    { "b'a'", false, 0, "bytes" }, { "u'a'", false, 0, "a prefix" },
    { "'a' 'b'", true, 3, "strings in a row" },
    { "'a''b'", true, 3, "strings in a row" }, { "'''a'''", true, 2, "three quotes" },
    { "[True, true]", true, 7, "both languages" }, { "[true, True]", false, 7, "both languages" },
    { "[null, 'a']", false, 8, "both languages" }, { "['a', false]", true, 6, "both languages" },
    { "'\\/'", true, 2, "both languages" }, { "\"\\/\\x41\"", false, 4, "both languages" },
    { "[true,]", false, 6, "both languages" }, { "[null, ()]", false, 7, "both languages" },
    { "\"\\ud83d\\ude00\\v\"", false, 14, "both languages" },
    { "\"\\a\\ud83d\\ude00\"", true, 15, "both languages" },
    { "{'uuid': oops}", true, 9, "it would have been Python" },
    { "{\"uuid\": null, oops}", false, 15, "it would have been JSON" },
};

/* The value as the writer has it in one language. */
static ka_str json_written(const ka_json *v, bool python, char *room, size_t cap)
{
    ka_json_out w = { .p = room, .cap = cap, .python = python };
    ka_json_put_value(&w, NULL, v);
    CHECK(w.error == KA_OK, "%.*s: error %d", (int)v->raw.n, v->raw.p, w.error);
    return (ka_str){ room, w.n };
}

/* Each read, written in both languages, read and written again; and each cut at each position. */
static void test_json(void)
{
    for (size_t i = 0; i < COUNT(json_good); i++) {
        const char *in = json_good[i].in, *why = json_good[i].why;
        size_t size = strlen(in);
        for (size_t n = 0; n <= size; n++) {
            char *text = exact(in, n), room[256], again[256];
            ka_json v, w;
            int r = ka_json_read(&v, (ka_str){ text, n });
            bool whole = r == KA_OK;
            if (n == size)
                CHECK(r == KA_OK && v.kind == json_good[i].kind && v.python == json_good[i].python,
                      "%s (%s): %d, kind %d", in, why, r, v.kind);
            else
                CHECK(r == KA_ESYNTAX
                          ? v.kind == 0
                          : whole && (v.kind == KA_NUMBER || strspn(in + n, " \t\r\n") == size - n),
                      "%.*s (%s) got %d", (int)n, in, why, r);
            for (int language = 0; n == size && whole && language < 2; language++) {
                const char *want = language ? json_good[i].repr : json_good[i].json;
                ka_str s = json_written(&v, language == 1, room, sizeof room);
                CHECK(ka_is(s, want), "%s (%s): got %.*s, not %s", in, why, (int)s.n, s.p, want);
                r = ka_json_read(&w, s);
                CHECK(r == KA_OK && w.kind == v.kind &&
                          ka_is(json_written(&w, language == 1, again, sizeof again), want),
                      "%s: again, %d", want, r);
            }
            free(text);
        }
    }
    for (size_t i = 0; i < COUNT(json_bad); i++) {
        size_t size = strlen(json_bad[i].in);
        char *text = exact(json_bad[i].in, size);
        ka_json v;
        int r = ka_json_read(&v, (ka_str){ text, size });
        CHECK(r == KA_ESYNTAX && v.kind == 0 && v.python == json_bad[i].python &&
                  v.raw.n == json_bad[i].read,
              "%s (%s): got %d after %d bytes, %s", json_bad[i].in, json_bad[i].why, r,
              (int)v.raw.n, v.python ? "Python" : "not Python");
        free(text);
    }
    ka_json v;
    CHECK(ka_json_read(&v, (ka_str){ "\"a\0\"", 4 }) == KA_ESYNTAX &&
              ka_json_read(&v, (ka_str){ "{}\0", 3 }) == KA_ESYNTAX &&
              ka_json_read(&v, (ka_str){ "[1\0]", 4 }) == KA_ESYNTAX &&
              ka_json_read(&v, (ka_str){ "\"\\\0\"", 4 }) == KA_ESYNTAX,
          "a NUL");
    CHECK(ka_json_read(&v, (ka_str){ NULL, 0 }) == KA_ESYNTAX && v.raw.n == 0, "no text");
}

static void test_json_depth(void)
{
    static const struct { const char *opens, *inside, *closes; } nests[] = {
        { "[", "", "]" }, { "(", "", ",)" }, { "{\"a\":", "{}", "}" }, { "[{'a':", "1", "}]" },
        { "[", "\"\"", "]" },
    };
    char text[1000], room[1000], again[1000];
    for (size_t i = 0; i < COUNT(nests); i++) {
        size_t each = strlen(nests[i].opens) == 6 ? 2 : 1;      /* deeper by */
        size_t own = i == 2;                                    /* what is inside is one, too */
        for (size_t depth = 30; depth <= 40; depth++) {
            size_t n = 0, times = (depth - own) / each;
            for (size_t k = 0; k < times; k++)
                n += (size_t)snprintf(text + n, sizeof text - n, "%s", nests[i].opens);
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", nests[i].inside);
            for (size_t k = 0; k < times; k++)
                n += (size_t)snprintf(text + n, sizeof text - n, "%s",
                                      i == 1 && k == 0 ? ")" : nests[i].closes);
            char *in = exact(text, n);
            ka_json v;
            bool fits = times * each + own <= KA_MAX_DEPTH;
            int r = ka_json_read(&v, (ka_str){ in, n });
            CHECK(r == (fits ? KA_OK : KA_ELIMIT), "%s, %d deep: got %d", nests[i].opens,
                  (int)depth, r);
            if (fits) {
                ka_json_out w = { .p = room, .cap = sizeof room };
                ka_json_put_value(&w, NULL, &v);
                CHECK(w.error == KA_OK && ka_json_read(&v, (ka_str){ room, w.n }) == KA_OK,
                      "%s, %d deep, written: %d", nests[i].opens, (int)depth, w.error);
                w = (ka_json_out){ .p = again, .cap = sizeof again };
                ka_json_open(&w, NULL, KA_ARRAY);
                ka_json_put_value(&w, NULL, &v);
                CHECK(w.error == (times * each + own < KA_MAX_DEPTH ? KA_OK : KA_ELIMIT) &&
                          (w.error == KA_OK || w.n == 1),
                      "%s, %d deep, in an array: %d", nests[i].opens, (int)depth, w.error);
            }
            free(in);
        }
    }
    memset(text, '[', sizeof text);
    ka_json v;
    CHECK(ka_json_read(&v, (ka_str){ text, sizeof text }) == KA_ELIMIT && v.raw.n == KA_MAX_DEPTH,
          "brackets only: after %d", (int)v.raw.n);
}

static const struct { const char *in, *name; int want; const char *value; } json_find_rows[] = {
    { "{\"a\":1,\"b\":[2]}", "a", KA_OK, "1" }, { "{\"a\":1,\"b\":[2]}", "b", KA_OK, "[2]" },
    { "{\"a\":1,\"b\":[2]}", "c", KA_ENOTFOUND, "" },
    { "{\"a\":1,\"b\":[2]}", "", KA_ENOTFOUND, "" }, { "{\"\":1}", "", KA_OK, "1" },
    { "{'a' : 'x' }", "a", KA_OK, "'x'" },
    { "{}", "a", KA_ENOTFOUND, "" },
    { "{\"a\":1,\"a\":1}", "a", KA_EINVAL, "" },
    { "{\"a\":1,\"b\":2,\"\\u0061\":3}", "a", KA_EINVAL, "" },
    { "{\"a\":1,\"b\":2,\"\\u0061\":3}", "b", KA_OK, "2" },
    { "{\"\\ud83d\\ude00\":1}", "\xf0\x9f\x98\x80", KA_OK, "1" },
    { "{'\\xe9':1}", "\xc3\xa9", KA_OK, "1" },
    { "{\"ab\":1}", "a", KA_ENOTFOUND, "" }, { "{\"a\":1}", "ab", KA_ENOTFOUND, "" },
    { "{\"a\\u0000\":1}", "a", KA_ENOTFOUND, "" }, { "{\"b\":{\"a\":1}}", "a", KA_ENOTFOUND, "" },
    { "[\"a\"]", "a", KA_ENOTFOUND, "" }, { "\"a\"", "a", KA_ENOTFOUND, "" },
};

static const struct {
    const char *in, *want;
} json_walk_rows[] = {
    /* each as name:kind:raw; */
    { "{\"a\":1, 'b' :\t[1,{}] ,\"c\": {\"d\":\"}\"}\n}",
      "\"a\":4:1;'b':6:[1,{}];\"c\":7:{\"d\":\"}\"};" },
    { "[]", "" },
    { "{ }", "" },
    { "( )", "" },
    { "[ 1 , \"]\",[],None ]", ":4:1;:5:\"]\";:6:[];:1:None;" },
    { "(1,)", ":4:1;" },
    { "{'a':True}", "'a':3:True;" },
    { "1", "" },
    { "\"[1]\"", "" },
    { "{", "" },
    { "[1,", "" },
};

static void test_json_members(void)
{
    for (size_t i = 0; i < COUNT(json_find_rows); i++) {
        size_t n = strlen(json_find_rows[i].in);
        char *in = exact(json_find_rows[i].in, n);
        ka_json v, value = { 0 };
        int r = ka_json_read(&v, (ka_str){ in, n });
        if (CHECK(r == KA_OK, "%s: %d", json_find_rows[i].in, r))
            r = ka_json_find(&v, json_find_rows[i].name, &value);
        CHECK(r == json_find_rows[i].want && (r < 0 || (ka_is(value.raw, json_find_rows[i].value) &&
                                                        value.python == v.python)),
              "%s in %s: %d", json_find_rows[i].name, json_find_rows[i].in, r);
        free(in);
    }
    for (size_t i = 0; i < COUNT(json_walk_rows); i++) {
        size_t n = strlen(json_walk_rows[i].in), at = 0;
        char *in = exact(json_walk_rows[i].in, n), got[200] = "";
        ka_json v, name, value;
        (void)ka_json_read(&v, (ka_str){ in, n });
        ka_json rest = v;
        while (ka_json_next(&rest, &name, &value)) {
            at += (size_t)snprintf(got + at, sizeof got - at, "%.*s:%d:%.*s;", (int)name.raw.n,
                                   name.raw.n ? name.raw.p : "", value.kind, (int)value.raw.n,
                                   value.raw.p);
            CHECK(name.kind == (v.kind == KA_OBJECT ? KA_STRING : 0) && name.python == v.python &&
                      value.python == v.python,
                  "%s", json_walk_rows[i].in);
        }
        CHECK(strcmp(got, json_walk_rows[i].want) == 0 && !ka_json_next(&rest, &name, &value),
              "%s: got %s", json_walk_rows[i].in, got);
        int values = 0;
        for (rest = v; ka_json_next(&rest, NULL, &value); ) values++;
        for (const char *p = got; *p; p++) values -= *p == ';';
        CHECK(v.kind != KA_ARRAY || values == 0, "%s without names", json_walk_rows[i].in);
        free(in);
    }
    /* ka_json_read has not read these texts, as it has to. Reading them ends all the same. */
    static const char *const unread[] = { "[x]", "{1}", "{\"a\":x}", "[", "{\"a}" };
    for (size_t i = 0; i < COUNT(unread); i++) {
        ka_json v = { unread[i][0] == '[' ? KA_ARRAY : KA_OBJECT,
                      false,
                      { unread[i], strlen(unread[i]) } },
                value;
        CHECK(!ka_json_next(&v, NULL, &value), "%s", unread[i]);
    }
}

/* A plain text, and what the JSON reader says of it between quotes: they agree. */
static void test_utf8(void)
{
    static const struct { const char *in; bool is; const char *why; } rows[] = {
        { "", true, "nothing" },
        { "plain ~", true, "ASCII" },
        { "\xc2\x80 \xdf\xbf", true, "the first and last of two bytes" },
        { "\xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xef\xbf\xbf", true, "of three, and beside the surrogates" },
        { "\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf", true, "of four" },
        { "\x80", false, "a continuation alone" },
        { "a\xbf", false, "another" },
        { "\xc0\xaf", false, "an overlong /" },
        { "\xc1\xbf", false, "overlong, of two bytes" },
        { "\xe0\x9f\xbf", false, "overlong, of three" },
        { "\xf0\x8f\xbf\xbf", false, "overlong, of four" },
        { "\xed\xa0\x80", false, "the first surrogate" },
        { "\xed\xbf\xbf", false, "the last surrogate" },
        { "\xed\xa0\xbd\xed\xb8\x80", false, "a pair of them" },
        { "\xf4\x90\x80\x80", false, "beyond U+10FFFF" },
        { "\xf5\x80\x80\x80", false, "no first byte" },
        { "\xff", false, "nor this" },
        { "a\xc3", false, "cut off, of two" },
        { "\xe2\x82", false, "cut off, of three" },
        { "\xf0\x9f\x98", false, "cut off, of four" },
        { "\xc3(", false, "no continuation" },
        { "\xe2(\xa1", false, "none in the middle" },
        { "\xf0\x9f\x98(", false, "none at the end" },
    };
    char text[64];
    ka_json v;
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t n = strlen(rows[i].in);
        char *in = exact(rows[i].in, n);
        CHECK(ka_is_utf8((ka_str){ in, n }) == rows[i].is, "%s", rows[i].why);
        free(in);
        size_t quoted = (size_t)snprintf(text, sizeof text, "\"%s\"", rows[i].in);
        CHECK((ka_json_read(&v, (ka_str){ text, quoted }) == KA_OK) == rows[i].is,
              "%s, in a string", rows[i].why);
    }
    CHECK(ka_is_utf8((ka_str){ "a\0b\n", 4 }) && ka_is_utf8((ka_str){ NULL, 0 }),
          "a NUL and a line's end are characters, too");
    /* Any four bytes, of the kinds that matter. */
    for (uint32_t bytes = 0; bytes < 1u << 16; bytes++) {
        static const unsigned char kinds[16] = { 'a',  0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                                 0xc1, 0xc2, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5 };
        for (int i = 0; i < 4; i++) text[1 + i] = (char)kinds[bytes >> 4 * i & 15];
        text[0] = text[5] = '"';
        bool is = ka_is_utf8((ka_str){ text + 1, 4 });
        if (is != (ka_json_read(&v, (ka_str){ text, 6 }) == KA_OK))
            CHECK(false, "%04x: %d", (unsigned)bytes, is);
    }
}

static void test_json_strings(void)
{
    static const struct { const char *in; size_t n; const char *want; } strings[] = {
        { "\"\"", 0, "" }, { "\"abc\"", 3, "abc" }, { "'a\\'\"'", 3, "a'\"" },
        { "\"\\u00e9\\u20ac\\ud83d\\ude00\"", 9, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
        { "'\\xff\\U0001f600'", 6, "\xc3\xbf\xf0\x9f\x98\x80" },
        { "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", 9, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
        { "\"a\\u0000b\"", 3, "a\0b" }, { "'\\a\\b\\f\\n\\r\\t\\v\\\\'", 8, "\a\b\f\n\r\t\v\\" },
        { "\"\\/\"", 1, "/" },
    };
    for (size_t i = 0; i < COUNT(strings); i++) {
        size_t n = strlen(strings[i].in), want = strings[i].n;
        char *in = exact(strings[i].in, n);
        ka_json v;
        if (!CHECK(ka_json_read(&v, (ka_str){ in, n }) == KA_OK, "%s", strings[i].in)) continue;
        for (size_t cap = 0; cap <= n; cap++) {
            char *out = exact(in, cap);
            ptrdiff_t r = ka_json_string(out, cap, &v);
            CHECK(cap < want ? r == KA_ENOSPC
                             : r == (ptrdiff_t)want && memcmp(out, strings[i].want, want) == 0,
                  "%s into %d: got %d", strings[i].in, (int)cap, (int)r);
            free(out);
        }
        bool nul = memchr(strings[i].want, 0, want) != NULL;
        CHECK(ka_json_is(&v, strings[i].want) == !nul && !ka_json_is(&v, "abd") &&
                  !ka_json_is(&v, "abcd") && !ka_json_is(&v, "ab"),
              "%s is itself, and no other", strings[i].in);
        free(in);
    }
    char out[8];
    ka_json v = { KA_NUMBER, false, { "1", 1 } }, bad = { KA_STRING, false, { "\"\\q\"", 4 } };
    CHECK(ka_json_string(out, sizeof out, &v) == KA_EINVAL && !ka_json_is(&v, "1") &&
              !ka_json_is(&v, ""),
          "a number is no string");
    CHECK(ka_json_string(out, sizeof out, &bad) == KA_EINVAL && !ka_json_is(&bad, "q"),
          "nor is a malformed one");
}

/* All that the writer has. */
static void json_write(ka_json_out *w, bool python, char *room, size_t cap)
{
    static const char value[] = "{\"k\": [null, \"\\u00e9'\"]}";
    ka_json v;
    if (ka_json_read(&v, (ka_str){ value, sizeof value - 1 }) < 0) CHECK(false, "a value to put");
    *w = (ka_json_out){ .p = room, .cap = cap, .python = python };
    ka_json_open(w, NULL, KA_OBJECT);
    ka_json_put_bool(w, "success", true);
    ka_json_put(w, "unique", (ka_str){ "a/+=\n\x7f\xc2\x85\xe2\x80\xa8\xf0\x9f\x98\x80\"'\\", 18 });
    ka_json_put(w, "none", (ka_str){ NULL, 0 });
    ka_json_put(w, "empty", (ka_str){ "", 0 });
    ka_json_put_integer(w, "least", INT64_MIN);
    ka_json_open(w, "list", KA_ARRAY);
    ka_json_put_integer(w, NULL, INT64_MAX);
    ka_json_put_integer(w, NULL, 0);
    ka_json_open(w, NULL, KA_OBJECT);
    ka_json_close(w);
    ka_json_open(w, NULL, KA_ARRAY);
    ka_json_close(w);
    ka_json_put_bool(w, NULL, false);
    ka_json_close(w);
    ka_json_put_value(w, "it's", &v);
    ka_json_close(w);
}

/* Misuse, by letters: { [ } ] open and close, 1 a number, " a string that isn't UTF-8, x a kind
   that there isn't, v a value of none; an n in front: with a name. */
static const struct { const char *calls; int want; const char *left, *why; } json_misuse[] = {
    { "{n1}", KA_OK, "{\"n\": 1}", "as it should be" },
    { "[1[n1]]", KA_EINVAL, "[1, [", "a name in an array" },
    { "{1}", KA_EINVAL, "{", "no name in an object" },
    { "{n1{}}", KA_EINVAL, "{\"n\": 1", "no name for an object" },
    { "n1", KA_EINVAL, "", "a name at the top" },
    { "n{}", KA_EINVAL, "", "a name at the top" }, { "11", KA_EINVAL, "1", "two values" },
    { "{}{}", KA_EINVAL, "{}", "two values" }, { "}", KA_EINVAL, "", "nothing to close" },
    { "[]]1", KA_EINVAL, "[]", "closed twice" }, { "x", KA_EINVAL, "", "no such kind" },
    { "[v]", KA_EINVAL, "[", "a value of no kind" },
    { "[1\"1\"]", KA_ESYNTAX, "[1", "not UTF-8, and what follows" },
    { "[\"v]", KA_ESYNTAX, "[", "the first error stays" },
    { "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1", KA_OK, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1", "32 deep" },
    { "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1[", KA_ELIMIT, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1", "33 deep" },
    { "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{n[", KA_ELIMIT, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{", "33 deep" },
};

static void test_json_writer(void)
{
    static const char *const wants[2] = {
        "{\"success\": true, \"unique\": \"a/+=\\n\\u007f\\u0085\\u2028\xf0\x9f\x98\x80\\\"'\\\\\", \"none\": null, \"empty\": \"\", \"least\": -9223372036854775808, "
        "\"list\": [9223372036854775807, 0, {}, [], false], \"it's\": {\"k\": [null, \"\xc3\xa9'\"]}}",
        "{'success': True, 'unique': 'a/+=\\n\\x7f\\x85\\u2028\\U0001f600\"\\'\\\\', 'none': None, 'empty': '', 'least': -9223372036854775808, "
        "'list': [9223372036854775807, 0, {}, [], False], 'it\\'s': {'k': [None, '\\xe9\\'']}}"
    };
    ka_json_out w;
    ka_json v = { 0 };
    for (int python = 0; python < 2; python++) {
        size_t need = strlen(wants[python]);
        for (size_t cap = 0; cap <= need; cap++) {
            char dots[300], *room;
            memset(dots, '.', sizeof dots);
            room = exact(dots, cap);
            json_write(&w, python == 1, room, cap);
            CHECK(w.error == (cap < need ? KA_ENOSPC : KA_OK) && w.n <= cap &&
                      memcmp(room, wants[python], w.n) == 0,
                  "room for %d: %d, %.*s", (int)cap, w.error, (int)w.n, room);
            if (cap == need)
                CHECK(w.n == need && ka_json_read(&v, (ka_str){ room, w.n }) == KA_OK &&
                          v.python == (python == 1),
                      "%.*s", (int)w.n, room);
            free(room);
        }
    }
    for (size_t i = 0; i < COUNT(json_misuse); i++) {
        char room[100];
        w = (ka_json_out){ .p = room, .cap = sizeof room };
        v.kind = 0;
        const char *name = NULL;
        for (const char *p = json_misuse[i].calls; *p; name = *p++ == 'n' ? "n" : NULL)
            switch (*p) {
            case '{': ka_json_open(&w, name, KA_OBJECT); break;
            case '[': ka_json_open(&w, name, KA_ARRAY); break;
            case '1': ka_json_put_integer(&w, name, 1); break;
            case '"': ka_json_put(&w, name, (ka_str){ "a\xff", 2 }); break;
            case 'x': ka_json_open(&w, name, KA_STRING); break;
            case 'v': ka_json_put_value(&w, name, &v); break;
            case 'n': break;
            default: ka_json_close(&w);
            }
        CHECK(w.error == json_misuse[i].want && ka_is((ka_str){ room, w.n }, json_misuse[i].left),
              "%s (%s): got %d, %.*s", json_misuse[i].calls, json_misuse[i].why, w.error, (int)w.n,
              room);
    }
}

/* Each character below U+3000, and some others: written, it is printable, or a letter beyond ASCII;
   and comes back. */
static void test_json_characters(void)
{
    for (int32_t point = 0; point < 0x110000; point += point < 0x3000 ? 1 : 0x3FF) {
        char c[4], room[16], back[4];
        if (ka__json_surrogate(point)) continue;
        size_t n = ka__json_utf8_put(c, point);
        for (int python = 0; python < 2; python++) {
            ka_json_out w = { .p = room, .cap = sizeof room, .python = python == 1 };
            ka_json_put(&w, NULL, (ka_str){ c, n });
            bool odd = python || point < 0x20 || (point >= 0x7F && point < 0xA0) ||
                       (point >= 0x2028 && point <= 0x202E) || (point >= 0x2066 && point <= 0x2069);
            bool plain = !odd || ka__printable(room, w.n);
            ka_json v;
            bool good = w.error == KA_OK && plain &&
                        ka_json_read(&v, (ka_str){ room, w.n }) == KA_OK &&
                        ka_json_string(back, 4, &v) == (ptrdiff_t)n && memcmp(back, c, n) == 0;
            if (!good)
                CHECK(false, "U+%04X in language %d: %d, %.*s", (unsigned)point, python, w.error,
                      (int)w.n, room);
        }
    }
    CHECK(true, "all of them");
}

static const subject ext_json_topics[] = {
    { "json", test_json }, { "json depth", test_json_depth }, { "json members", test_json_members },
    { "utf8", test_utf8 }, { "json strings", test_json_strings },
    { "json writer", test_json_writer }, { "json characters", test_json_characters },
};
