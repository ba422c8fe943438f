/* microhttpd - a fixed answer through libmicrohttpd, with its own thread and epoll.
     cc -O2 -o bench/microhttpd bench/microhttpd.c -lmicrohttpd && bench/microhttpd PORT */

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char text[] =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567";

static enum MHD_Result answer(void *response, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *body,
                              size_t *body_bytes, void **seen)
{
    static int head;
    (void)url, (void)version, (void)body;
    if (strcmp(method, "POST") != 0)
        return MHD_queue_response(c, MHD_HTTP_METHOD_NOT_ALLOWED, response);
    if (*seen == NULL) {           /* the first call for a request has its head only */
        *seen = &head;
        return MHD_YES;
    }
    if (*body_bytes > 0) {
        *body_bytes = 0;           /* read it all */
        return MHD_YES;
    }
    return MHD_queue_response(c, MHD_HTTP_OK, response);
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    struct MHD_Response *response =
        MHD_create_response_from_buffer(sizeof text - 1, text, MHD_RESPMEM_PERSISTENT);
    if (argc != 2) return fputs("usage: microhttpd PORT\n", stderr), 2;
    a.sin_port = htons((unsigned short)atoi(argv[1]));
    inet_pton(AF_INET, "127.0.0.2", &a.sin_addr);
    if (!response || MHD_add_response_header(response, "Content-Type", "text/plain") != MHD_YES)
        return 1;
    if (!MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, response,
                          MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&a, MHD_OPTION_END))
        return fputs("microhttpd: cannot listen\n", stderr), 1;
    for (;;) pause();
}
