/* ext/uuid.h - UUIDs (RFC 9562) as text. Nothing is allocated; any thread.

   HOW TO INCLUDE
     #include "keyauth.h"           before it; in ONE .c file with KEYAUTH_IMPLEMENTATION defined
     #include "ext/uuid.h"

   USE
         char id[KA_UUID_TEXT + 1], sent[KA_UUID_TEXT + 1];
         if (ka_uuid_new(id) < 0) return 500;                       // "5f0c...", random
         if (ka_uuid_read(sent, ev.body) < 0) return 400;           // in lower case now
         if (strcmp(id, sent) == 0) puts("the same"); */

#ifndef KEYAUTH_H
#  error "ext/uuid.h: include keyauth.h first"
#endif

#ifndef KEYAUTH_UUID_H
#define KEYAUTH_UUID_H

#ifdef __cplusplus
extern "C" {
#endif

enum { KA_UUID_TEXT = 36 };      /* characters of a UUID */

/* Make a random UUID (RFC 9562 s.5.4, version 4).
     out        in lower case, and a NUL
     returns    KA_OK or KA_ERANDOM */
KADEF int ka_uuid_new(char out[KA_UUID_TEXT + 1]);

/* Read a UUID of any version (RFC 9562 s.4), its digits in either case.
     out        in lower case, and a NUL; after an error of no use
     returns    KA_OK or KA_ESYNTAX */
KADEF int ka_uuid_read(char out[KA_UUID_TEXT + 1], ka_str text);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_UUID_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_UUID_IMPLEMENTED)
#define KEYAUTH_UUID_IMPLEMENTED

static bool ka__uuid_hyphen(size_t at) { return at == 8 || at == 13 || at == 18 || at == 23; }

int ka_uuid_new(char out[KA_UUID_TEXT + 1])
{
    unsigned char raw[16];
    char hex[32], *digit = hex;
    int r = ka_random(raw, sizeof raw);
    if (r < 0) return r;
    raw[6] = (unsigned char)((raw[6] & 0x0F) | 0x40);      /* s.4.2: version 4 */
    raw[8] = (unsigned char)((raw[8] & 0x3F) | 0x80);      /* s.4.1: the RFC's variant */
    ka_hex_encode(hex, raw, sizeof raw);
    for (size_t i = 0; i < KA_UUID_TEXT; i++) out[i] = ka__uuid_hyphen(i) ? '-' : *digit++;
    out[KA_UUID_TEXT] = 0;
    return KA_OK;
}

int ka_uuid_read(char out[KA_UUID_TEXT + 1], ka_str text)
{
    if (text.n != KA_UUID_TEXT) return KA_ESYNTAX;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c >= 'A' && c <= 'F') c = (char)(c - 'A' + 'a');
        bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (ka__uuid_hyphen(i) ? c != '-' : !digit) return KA_ESYNTAX;
        out[i] = c;
    }
    out[KA_UUID_TEXT] = 0;
    return KA_OK;
}

#endif /* KEYAUTH_UUID_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
