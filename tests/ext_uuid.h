/* tests/ext_uuid.h - ext/uuid.h, and hexadecimal digits. */

static void test_hex_and_uuids(void)
{
    static const struct { const char *in, *want, *why; } uuids[] = {
        { "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "RFC 9562 s.4" },
        { "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "s.4: either case" },
        { "919108f7-52d1-4320-9bac-f847db4148a8", "919108f7-52d1-4320-9bac-f847db4148a8", "s.A.3: version 4" },
        { "017F22E2-79B0-7CC3-98C4-DC0C0C07398F", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "s.A.6: version 7" },
        { "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000", "s.5.9: nil" },
        { "ffffffff-FFFF-ffff-ffff-ffffffffffff", "ffffffff-ffff-ffff-ffff-ffffffffffff", "s.5.10: max" },
        { "", NULL, "nothing" }, { "f81d4fae7dec11d0a76500a0c91e6bf6", NULL, "no hyphens" },
        { "{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}", NULL, "braces" },
        { "f81d4fae-7dec-11d0-a765-00a0c91e6bf", NULL, "a digit short" },
        { "f81d4fae-7dec-11d0-a765-00a0c91e6bf66", NULL, "a digit too many" },
        { "f81d4fae-7dec-11d0-a765-00a0c91e6bfg", NULL, "no digit" },
        { "f81d4fae-7dec-11d0-a7650-0a0c91e6bf6", NULL, "a hyphen in the wrong place" },
        { "f81d4fae-7dec-11d0-a765-00a0c91e6b-6", NULL, "a hyphen too many" },
        { "f81d4fae 7dec-11d0-a765-00a0c91e6bf6", NULL, "a space for a hyphen" },
        { "f81d4fae-7dec-11d0-a765-00a0c91e6bf\xff", NULL, "not ASCII" },
        { " 81d4fae-7dec-11d0-a765-00a0c91e6bf6", NULL, "a space in front" },
    };
    char out[KA_UUID_TEXT + 1], other[KA_UUID_TEXT + 1], hex[8];
    memset(hex, '.', sizeof hex);
    ka_hex_encode(hex, "\x00\x9a\xff", 3);
    CHECK(memcmp(hex, "009aff..", 8) == 0, "ka_hex_encode: got %.8s", hex);
    ka_hex_encode(hex, "", 0);
    CHECK(memcmp(hex, "009aff..", 8) == 0, "nothing has no digits");
    for (size_t i = 0; i < COUNT(uuids); i++) {
        size_t n = strlen(uuids[i].in);
        char *in = exact(uuids[i].in, n);
        int r = ka_uuid_read(out, (ka_str){ in, n });
        CHECK(uuids[i].want ? r == KA_OK && strcmp(out, uuids[i].want) == 0 : r == KA_ESYNTAX,
              "%s (%s): got %d", uuids[i].in, uuids[i].why, r);
        free(in);
    }
    for (int i = 0; i < 100; i++) {
        CHECK(ka_uuid_new(out) == KA_OK &&
                  ka_uuid_read(other, (ka_str){ out, strlen(out) }) == KA_OK &&
                  strcmp(out, other) == 0 && out[14] == '4' && strchr("89ab", out[19]) != NULL,
              "ka_uuid_new: got %s", out);
        CHECK(ka_uuid_new(other) == KA_OK && strcmp(out, other) != 0, "ka_uuid_new: %s twice", out);
    }
}

static const subject ext_uuid_topics[] = {
    { "hex, uuids", test_hex_and_uuids },
};
