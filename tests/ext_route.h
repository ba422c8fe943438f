/* tests/ext_route.h - ext/route.h. */

static void test_route(void)
{
    static const struct {
        const char *target, *pattern, *parts, *query;
    } rows[] = {
        /* parts NULL: it does not fit */
        { "/", "/", "", NULL },
        { "/?", "/", "", NULL },
        { "/?a", "/", "", "a" },
        { "/a", "/", NULL, NULL },
        { "/", "/a", NULL, NULL },
        { "/health?verbose=1", "/health", "", "verbose=1" },
        { "/health/", "/health", "", NULL },
        { "/health//", "/health", NULL, NULL },
        { "/healthy", "/health", NULL, NULL },
        { "/healt", "/health", NULL, NULL },
        { "/%68ealth", "/health", "", NULL },
        { "/%6", "/6", NULL, NULL },
        { "/a/b", "/a/b", "", NULL },
        { "/a/c", "/a/b", NULL, NULL },
        { "/a/b/c", "/a/b", NULL, NULL },
        { "/a", "/a/b", NULL, NULL },
        { "/a/x/c", "/a/{id}/c", "x;", NULL },
        { "/a/x%2Fy/c", "/a/{id}/c", "x%2Fy;", NULL },
        { "/a//c", "/a/{id}/c", ";", NULL },
        { "/a/x", "/a/{id}/c", NULL, NULL },
        { "/x/y?q=?", "/{a}/{b}", "x;y;", "q=?" },
        { "/x/y/z", "/{a}/{b}", NULL, NULL },
        { "*", "/", NULL, NULL },
        { "", "/", NULL, NULL },
        { "a", "/a", NULL, NULL },
        { "/" PRINTABLE_256, "/a", NULL, NULL },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_str query, parts[2] = { { NULL, 0 }, { NULL, 0 } },
                      path = ka_path(str(rows[i].target), &query);
        int r = ka_path_fits(path, rows[i].pattern, parts);
        char got[64] = "";
        for (int k = 0; k < 2 && parts[k].p; k++)
            snprintf(got + strlen(got), sizeof got - strlen(got), "%.*s;", (int)parts[k].n,
                     parts[k].p);
        CHECK(r == (rows[i].parts ? KA_OK : KA_ENOTFOUND) &&
                  (r < 0 || strcmp(got, rows[i].parts) == 0),
              "%s, %s: %d, %s", rows[i].target, rows[i].pattern, r, got);
        CHECK(rows[i].query ? ka_is(query, rows[i].query) : !query.p, "%s: the query %.*s",
              rows[i].target, (int)query.n, query.p ? query.p : "");
    }
}

static void test_query(void)
{
    static const struct { const char *query, *name, *value; int want; } rows[] = {
        { "a=1&b=2", "a", "1", KA_OK }, { "a=1&b=2", "b", "2", KA_OK },
        { "a=1&b=2", "c", NULL, KA_ENOTFOUND }, { "a=", "a", "", KA_OK },
        { "a=1&a=2", "a", NULL, KA_EINVAL }, { "%61=1", "a", "1", KA_OK },
        { "a&b=2", "b", "2", KA_OK }, { "a", "a", NULL, KA_ENOTFOUND },
        { "&&a=%20", "a", "%20", KA_OK }, { "", "a", NULL, KA_ENOTFOUND },
        { "ab=1", "a", NULL, KA_ENOTFOUND }, { "=1", "", "1", KA_OK },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        ka_str value = { NULL, 0 };
        int r = ka_query(str(rows[i].query), rows[i].name, &value);
        CHECK(r == rows[i].want && (r < 0 || ka_is(value, rows[i].value)), "%s of %s: %d, %.*s",
              rows[i].name, rows[i].query, r, (int)value.n, value.p ? value.p : "");
    }
    ka_str value;
    CHECK(ka_query((ka_str){ NULL, 0 }, "a", &value) == KA_ENOTFOUND, "none at all");
}

static const subject ext_route_topics[] = { { "route", test_route }, { "query", test_query } };
