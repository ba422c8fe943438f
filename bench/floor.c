/* floor - what the system calls alone cost: one thread, epoll, one recv and one send for what is ready. It parses
   nothing: each REQUEST_BYTES that arrive get the same answer, of the size of keyauth's.
     floor PORT REQUEST_BYTES [close|hand-off]
       close       it says in the answer that it closes: without a word a load generator would take that for an error
       hand-off    a second thread is woken for what is ready, and wakes the first one: what two threads cost at least */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, READ_BYTES = 16384, MAX_FD = 20000 };

#define ANSWER(header) \
    "HTTP/1.1 200 OK\r\n" \
    "Date: Sat, 21 Nov 2026 00:00:00 GMT\r\n" \
    "Content-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: 88\r\n" header "\r\n" \
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"

static const char kept[] = ANSWER(""), closing[] = ANSWER("Connection: close\r\n");

static char   in[READ_BYTES], out[READ_BYTES * 4];
static size_t unanswered[MAX_FD];      /* bytes of a request that is not all here */

static void serve(int fd, size_t request_bytes, bool close_after)
{
    ssize_t got = recv(fd, in, sizeof in, 0);
    if (got <= 0 || fd >= MAX_FD) {
        close(fd);
        return;
    }
    const char *answer = close_after ? closing : kept;
    size_t n = 0, answer_bytes = (close_after ? sizeof closing : sizeof kept) - 1;
    for (unanswered[fd] += (size_t)got; unanswered[fd] >= request_bytes;
         unanswered[fd] -= request_bytes) {
        memcpy(out + n, answer, answer_bytes);
        n += answer_bytes;
    }
    if (n > 0 && (send(fd, out, n, MSG_NOSIGNAL) != (ssize_t)n || close_after)) {
        unanswered[fd] = 0;
        close(fd);
    }
}

static int to_parent, to_worker;

static void wake(int fd) { if (eventfd_write(fd, 1) != 0) abort(); }
static void sleep_until_woken(int fd) { if (eventfd_read(fd, &(eventfd_t){ 0 }) != 0) abort(); }

static void *parent(void *unused)
{
    for (;;) {
        sleep_until_woken(to_parent);
        wake(to_worker);
    }
    return unused;
}

static void parent_start(void)
{
    pthread_t thread;
    to_parent = eventfd(0, 0);
    to_worker = eventfd(0, 0);
    if (pthread_create(&thread, NULL, parent, NULL) != 0) abort();
}

int main(int argc, char **argv)
{
    struct epoll_event ev = { .events = EPOLLIN }, events[EVENTS];
    struct sockaddr_in a = { .sin_family = AF_INET };
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0),
        epoll = epoll_create1(0);
    if (argc < 3) return fputs("usage: floor PORT REQUEST_BYTES [close|hand-off]\n", stderr), 2;
    bool closes = argc > 3 && strcmp(argv[3], "close") == 0, hands_off = argc > 3 && !closes;
    size_t request_bytes = (size_t)atoi(argv[2]);
    if (request_bytes < 80) {      /* else `out` is too small */
        fputs("floor: a request has 80 bytes at least\n", stderr);
        return 2;
    }
    a.sin_port = htons((unsigned short)atoi(argv[1]));
    inet_pton(AF_INET, "127.0.0.2", &a.sin_addr);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(listener, 4096) != 0)
        return perror("floor"), 1;
    ev.data.fd = listener;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &ev);
    if (hands_off) parent_start();
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (hands_off) {
            wake(to_parent);
            sleep_until_woken(to_worker);
        }
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd != listener) {
                serve(events[i].data.fd, request_bytes, closes);
                continue;
            }
            while ((ev.data.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                unanswered[ev.data.fd % MAX_FD] = 0;
                epoll_ctl(epoll, EPOLL_CTL_ADD, ev.data.fd, &ev);
            }
        }
    }
}
