/* The quick start of keyauth.h, word for word: a whole authentication server.
     cc -O2 -pthread -I.. -o quickstart quickstart.c && ./quickstart
   It prints nothing unless it can't listen on 127.0.0.2:9999; ../client 127.0.0.2 9999 logs in. Ctrl+C stops it. */
#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include <stdio.h>

int main(void)
{
    ka_server *s;
    ka_keyring keys;
    char text[KA_MAX_ANSWER];
    if (ka_keyring_init(&keys, 0, 0) < 0 || ka_server_start(&s, 1) < 0) return 1;
    ka_stop_on_interrupt(s);
    ka_listen(s, "127.0.0.2", 9999);
    for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; ) {
        size_t n = 0;
        if (ev.kind == KA_LISTENING && ev.error) { puts(ka_error_text(ev.error)); ka_stop(s); }
        if (ev.kind != KA_REQUEST) continue;
        int status = ka_auth_answer(&keys, &ev, text, &n);
        ka_reply(s, &ev, status, status == 405 ? "Allow: POST\r\n" : NULL, text, n);
    }
    ka_server_free(s);
    ka_keyring_free(&keys);
}
