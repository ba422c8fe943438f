/* code.c - keyauth.h and the scenarios, as explore.c runs them: compiled with -fsanitize=thread. */

#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#  include <cpuid.h>
#  include <smmintrin.h>
#endif
#include "explore.h"

/* ---- atomic operations: their place in the text is noted. The compiler's call follows ---- */

#define SITE(operation, object, order)                                                            \
    static const explore_site site_ = {                                                           \
        __FILE__, __LINE__, __COUNTER__, __func__, operation, object, order                       \
    };                                                                                            \
    static const explore_site *const listed_ __attribute__((section("sites"), used)) = &site_;    \
    explore_at(&site_)
#if defined(__clang__)
#  define ATOMIC(name) __c11_atomic_##name
#  define ATOMIC_LOAD(p, out, order) out = __c11_atomic_load(p, order)
#  define ATOMIC_STORE(p, in, order) __c11_atomic_store(p, in, order)
#  define ATOMIC_EXCHANGE(p, in, out, order) out = __c11_atomic_exchange(p, in, order)
#else
#  define ATOMIC(name) __atomic_##name
#  define ATOMIC_LOAD(p, out, order) __atomic_load(p, &out, order)
#  define ATOMIC_STORE(p, in, order) __atomic_store(p, &in, order)
#  define ATOMIC_EXCHANGE(p, in, out, order) __atomic_exchange(p, &in, &out, order)
#endif
#define VALUE(p) __typeof__((void)0, *(p))
#undef atomic_init
#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#define atomic_init(p, v) atomic_store_explicit(p, v, memory_order_relaxed)
#define atomic_load(p) LOAD(p, #p, memory_order_seq_cst)
#define atomic_load_explicit(p, order) LOAD(p, #p, order)
#define atomic_store(p, v) STORE(p, #p, v, memory_order_seq_cst)
#define atomic_store_explicit(p, v, order) STORE(p, #p, v, order)
#define atomic_exchange(p, v) EXCHANGE(p, #p, v, memory_order_seq_cst)
#define atomic_exchange_explicit(p, v, order) EXCHANGE(p, #p, v, order)
#define atomic_fetch_add(p, v) FETCH(fetch_add, p, #p, v, memory_order_seq_cst)
#define atomic_fetch_add_explicit(p, v, order) FETCH(fetch_add, p, #p, v, order)
#define atomic_fetch_sub(p, v) FETCH(fetch_sub, p, #p, v, memory_order_seq_cst)
#define atomic_fetch_sub_explicit(p, v, order) FETCH(fetch_sub, p, #p, v, order)
#define LOAD(p, object, order)                                                                    \
    __extension__({                                                                               \
        __auto_type p_ = (p);                                                                     \
        VALUE(p_) out_;                                                                           \
        SITE("load", object, order);                                                              \
        ATOMIC_LOAD(p_, out_, order);                                                             \
        out_;                                                                                     \
    })
#define STORE(p, object, v, order)                                                                \
    __extension__({                                                                               \
        __auto_type p_ = (p);                                                                     \
        VALUE(p_) in_ = (v);                                                                      \
        SITE("store", object, order);                                                             \
        ATOMIC_STORE(p_, in_, order);                                                             \
    })
#define EXCHANGE(p, object, v, order)                                                             \
    __extension__({                                                                               \
        __auto_type p_ = (p);                                                                     \
        VALUE(p_) in_ = (v), out_;                                                                \
        SITE("exchange", object, order);                                                          \
        ATOMIC_EXCHANGE(p_, in_, out_, order);                                                    \
        out_;                                                                                     \
    })
#define FETCH(name, p, object, v, order)                                                          \
    __extension__({                                                                               \
        __auto_type p_ = (p);                                                                     \
        VALUE(p_) in_ = (v);                                                                      \
        SITE(#name, object, order);                                                               \
        ATOMIC(name)(p_, in_, order);                                                             \
    })

/* ---- calls ---- */

#include "system.h"
#define accept4(fd, a, size, flags)         STEP(fd, "accept", got(sim_accept(here(fd), a, size)))
#define bind(fd, a, n)                      OWN(sys_bind(here(fd), a))
#define clock_gettime(clock, t)             ((void)(clock), OWN(sys_clock(t)))
#define close(fd)                           STEP(fd, "close", sys_close(fd))
#define connect(fd, a, n)                   ((void)(fd), (void)(a), 0)
#define epoll_create1(flags)                OWN(got(sim_open(SIM_EPOLL)))
#define epoll_ctl(epoll, op, fd, ev)        OWN(sys_epoll_ctl(here(epoll), op, here(fd), ev))
#define epoll_wait(epoll, ev, max, ms)      sys_epoll_wait(epoll, ev, max, ms)
#define eventfd(n, flags)                   OWN(got(sys_waker()))
#define getpeername(fd, a, size)            STEP(fd, "getpeername", sim_peer_name(here(fd), a, size))
#define getsockname(fd, a, size)            OWN(sim_name(here(fd), a, size, 1))
#define getsockopt(fd, level, name, v, n)   OWN(((void)(level), (void)(n), sim_option(here(fd), name, v)))
#define ioctl(fd, what, n)                  STEP(fd, "ioctl", sim_waiting(here(fd), n))
#define listen(fd, backlog)                 OWN(sim_set_option(fd, 0, 0, NULL))
#define malloc_trim(n)                      ((void)0)
#define memcpy                              explore_memcpy
#define memmove                             explore_memmove
#define memset                              explore_memset
#define mmap(p, n, how, flags, fd, at)      MAP_FAILED
#define nanosleep(t, left)                  sys_nanosleep(t)
#define open(...)                           OWN(got(sim_open(SIM_FILE)))
#define poll(p, n, ms)                      ((void)(n), sys_poll(p, ms))
#define prctl(...)                          0
#define pthread_create(id, how, run, arg)   explore_thread(id, run, arg)
#define pthread_join(id, result)            explore_join(id)
#define pthread_sigmask(how, set, was)      ((void)(set))
#define recv(fd, p, n, flags)               STEP(fd, "recv", sys_recv(here(fd), p, n))
#define send(fd, p, n, flags)               STEP(fd, "send", sys_send(here(fd), p, n))
#define setsockopt(fd, level, name, v, n)   OWN(sim_set_option(here(fd), level, name, v))
#define shutdown(fd, how)                   STEP(fd, "shutdown", sim_shutdown(here(fd)))
#define socket(family, type, protocol)      OWN(((void)(family), got(sys_socket(type))))
#define syscall(...)                        SYSCALL(__VA_ARGS__, 0, 0, 0)
#define SYSCALL(number, a, b, c, ...)       sys_call(number, (long)(a), (long)(b), (long)(c))
#define write(fd, p, n)                     STEP(fd, "write", sys_wake(here(fd), n))

#define KA_ASSERT(x) CHECK(x, "KA_ASSERT")
#define KA_MALLOC(n) explore_malloc(n)
#define KA_REALLOC(p, n) explore_realloc(p, n)
#define KA_FREE(p) explore_free(p)
#define KA_MAX_HEAD 512
#define KA_MAX_BODY 300
#define KA_MAILBOX (1u << 17)
#define KEYAUTH_IMPLEMENTATION
#ifndef EXPLORE_HEADER      /* teeth gives others */
#  define EXPLORE_HEADER "../../keyauth.h"
#endif
#include EXPLORE_HEADER

#include "litmus.h"
#include "mailbox.h"
#include "server.h"
#include "sockets.h"

void explore_begin(void)
{
    memset(&ka__live, 0, sizeof ka__live);
    memset(&box, 0, sizeof box);
    memset(&at, 0, sizeof at);
    memset(&lit, 0, sizeof lit);
    sys_begin();
}

#define ANY { "first", "second", "third", "fourth" }
#define TWO { "parent", "worker" }
#define THREE(third) { "parent", "worker", third }
#define LIST { "parent", "other", "stopper" }

/* The bounds: preemptions, late loads and stores. A pair of rows goes wide, and deep. */
const explore_scenario explore_scenarios[] = {
    { "litmus: store buffering, seq_cst", sb_sc, ANY, -1, 0, 0xe },
    { "litmus: store buffering, release", sb_release, ANY, -1, 0, 0xf },
    { "litmus: message passing, release", mp_release, ANY, -1, 0, 0xb },
    { "litmus: message passing, relaxed", mp_relaxed, ANY, -1, 0, 0xf },
    { "litmus: load buffering", load_buffering, ANY, -1, 0, 0x7 },
    { "litmus: independent reads, seq_cst", iriw_sc, ANY, -1, 0, 0x1 },
    { "litmus: independent reads, release", iriw_release, ANY, -1, 0, 0x3 },
    { "litmus: two writes each, seq_cst", ww_sc, ANY, -1, 0, 0x1 },
    { "litmus: two writes each, relaxed", ww_relaxed, ANY, -1, 0, 0x3 },
    { "litmus: release sequence", release_sequence, ANY, -1, 0, 0xf },
    { "box", box_one_3, TWO, -1, 0, 0 },
    { "box 4", box_one_4, TWO, 4, 0, 0 },
    { "box 5", box_one_5, TWO, 2, 0, 0 },
    { "boxes", box_two_3, TWO, 3, 0, 0 },
    { "boxes 4", box_two_4, TWO, 3, 0, 0 },
    { "boxes 5", box_two_5, TWO, 3, 1, 0 },
    { "stop", stop_other, THREE("stopper"), 2, 0, 0 },
    { "stop, deep", stop_other, THREE("stopper"), 4, 1, 0 },
    { "stop of two workers", stop_two, { "parent", "worker 0", "worker 1", "stopper" }, 1, 1, 0 },
    { "stop and free", stop_free, THREE("stopper"), -1, 0, 0 },
    { "stop that is seen", stop_seen, THREE("stopper"), 3, 0, 0 },
    { "stop by a signal", stop_handler, THREE("handler"), 3, 0, 0 },
    { "stop by a signal to the worker", stop_worker, THREE("handler"), 2, 0, 0 },
    { "free and a signal", stop_handler_free, THREE("handler"), -1, 0, 0 },
    { "wake", wake_source, THREE("waker"), 2, 0, 0 },
    { "wake, deep", wake_source, THREE("waker"), 4, 1, 0 },
    { "two servers, the first", live_first, LIST, 3, 0, 0 },
    { "two servers, the last", live_last, LIST, 3, 0, 0 },
    { "two servers, one new", live_more, LIST, 3, 0, 0 },
#if !defined(KA_POLL)
    { "late answer", late_answer, THREE("peers"), 1, 0, 0 },
    { "late answer, deep", late_answer, THREE("peers"), 2, 1, 0 },
    { "stop with a request", stop_asked, { "parent", "worker", "peer", "stopper" }, 1, 1, 0 },
#endif
#if defined(EXPLORE_TABLES)
    { "tables", tables_stop, THREE("stopper"), 2, 1, 0 },
    { "tables of two workers", tables_two, { "parent", "worker 0", "worker 1", "peer" }, 0, 1, 0 },
#endif
    { NULL, NULL, { NULL }, 0, 0, 0 }
};
