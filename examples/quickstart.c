/* The quick start of keyauth.h, word for word: a whole authentication server.
     cc -O2 -pthread -I.. -o quickstart quickstart.c && ./quickstart
   It prints nothing unless it cannot listen on 127.0.0.2:9999; `../client 127.0.0.2 9999` logs in.
   Ctrl+C stops it. */
#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include <stdio.h>

int main(void)
{
    const char *ip = "127.0.0.2";
    ka_server *s = NULL;
    ka_keyring keys;
    int port = 9999, r = ka_keyring_init(&keys, 0, 0);
    if (r == KA_OK) r = ka_server_start(&s, 1);
    if (r == KA_OK) ka_listen(s, ip, port);
    for (ka_event ev; r == KA_OK && (r = ka_wait(s, &ev, -1)) == KA_OK; )
        if (ev.kind == KA_REQUEST) ka_auth(s, &keys.store, &ev);
    if (r != KA_ESTOPPED) printf("%s:%d: %s\n", ip, port, ka_error_text(r));
    ka_server_free(s);
    ka_keyring_free(&keys);
    return r != KA_ESTOPPED;
}
