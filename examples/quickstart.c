/* The quick start of keyauth.h, word for word: a whole authentication server.
     cc -O2 -pthread -I.. -o quickstart quickstart.c && ./quickstart
   It prints nothing unless it cannot listen on 127.0.0.2:9999; `../client 127.0.0.2 9999` logs in.
   Ctrl+C stops it. */
#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include <stdio.h>

int main(void)
{
    ka_server *s;
    ka_keyring keys;
    int r;
    if (ka_keyring_init(&keys, 0, 0) < 0 || ka_server_start(&s, 1) < 0) return 1;
    ka_listen(s, "127.0.0.2", 9999);
    for (ka_event ev; (r = ka_wait(s, &ev, -1)) == KA_OK; )
        if (ev.kind == KA_REQUEST) ka_auth(s, &keys.store, &ev);
    if (r != KA_ESTOPPED) printf("127.0.0.2:9999: %s\n", ka_error_text(r));
    ka_server_free(s);
    ka_keyring_free(&keys);
    return r != KA_ESTOPPED;
}
