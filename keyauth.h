/* keyauth.h - the authentication handshake, and the server loop under it, in one C header.

   A worker thread speaks HTTP/1.1, the parent thread keeps the keys, and the two talk through an
   atomic mailbox. Linux, Windows, macOS; C11; no packages. Public domain or MIT: see the end.

   HOW TO INCLUDE
     In ONE .c file of your project, before any other include:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
     Everywhere else (C or C++) just #include "keyauth.h". If ONE .c file is the whole program, put
         #define KEYAUTH_STATIC
     before these two lines. All functions are static then, and the program has only those that it
     uses.
     Compile with
         cc -O2 -pthread yours.c                                Linux, macOS
         gcc -O2 yours.c -lws2_32 -lbcrypt                      Windows (MinGW)
         cl /std:c11 /experimental:c11atomics /O2 yours.c       Windows (MSVC; never tried)

   QUICK START: a whole authentication server (it is examples/quickstart.c)
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

   CONTENTS (a section calls only sections above it)
     1 platform   clocks, random, threads, sockets, poller; all the #ifdefs are here
     2 bytes      memory, base64, hex, SHA-256, constant-time compare, wipe
     3 text       HTTP/1.1 messages, chunked bodies, form fields
     4 mailbox    a ring of records between two threads, and how its reader sleeps
     5 worker     listeners, connections, framings, time-outs, answers in order
     6 server     what the parent thread calls
     7 keyring    stores of keys, one of them in memory, and the ask_key / login protocol
     8 client     one request with its retries

   ERRORS
     0 or more is success, and is the count where there is one; less than 0 is one of KA_E...
     The library never exits or aborts, prints nothing, and keeps no state but in the objects you
     hold.

   LIMITS
     No TLS: use it on loopback, or behind a TLS proxy.

   BESIDE IT, in ext/
     process.h (restart, kill the server of a client, children), framing.h (lines, JSON objects,
     frames), json.h, redis.h, journal.h (keys on disk), log.h, file.h, timer.h, input.h (standard
     input, interrupts), sse.h, peers.h (data of each connection), limit.h (limits of each peer),
     site.h (browsers' pages), lookup.h (names of hosts), service.h (systemd), access.h (a log of
     requests), metrics.h (for Prometheus), route.h, uuid.h, cli.h (options, messages). */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_H)
#  ifndef _GNU_SOURCE
#    define _GNU_SOURCE 1        /* accept4 on Linux; plain -std=c11 would hide it, and POSIX */
#  endif
#  ifndef _DARWIN_C_SOURCE
#    define _DARWIN_C_SOURCE 1
#  endif
#  if defined(__linux__) && !defined(_FILE_OFFSET_BITS) && !defined(_TIME_BITS)
#    define _FILE_OFFSET_BITS 64 /* 32-bit glibc: files beyond 2 GiB, */
#    define _TIME_BITS 64        /* and from 2.34 on, a clock beyond 2038 */
#  endif
#endif

#if defined(KEYAUTH_STATIC) && !defined(KADEF)
#  if defined(__GNUC__)
#    define KADEF static __attribute__((unused))
#  else
#    define KADEF static
#  endif
#  if defined(_MSC_VER)
#    pragma warning(disable: 4505)      /* a static function is not used */
#  endif
#endif

#ifndef KEYAUTH_H
#define KEYAUTH_H

#define KA_VERSION "2.0.0"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------
   Configuration. Define any of these before the include, the same in every file that has it.
   Sizes are in bytes, times (..._MS) in milliseconds. */

#ifndef KADEF
#define KADEF extern              /* linkage of all public functions */
#define KADATA                    /* and of public constants, where they are defined */
#endif
#ifndef KADATA
#define KADATA KADEF
#endif
#ifndef KA_MAX_HEAD
#define KA_MAX_HEAD 8192          /* a request line and its fields, 512 to 65535: 414, 431 beyond */
#endif
#ifndef KA_MAX_BODY
#define KA_MAX_BODY 4096          /* a body, decoded: 413 beyond; and a message */
#endif
#ifndef KA_MAX_CHUNK_LINE
#define KA_MAX_CHUNK_LINE 256     /* a chunk's size and extensions: 400 beyond */
#endif
#ifndef KA_MAX_PIPELINED
#define KA_MAX_PIPELINED 1024     /* requests of a connection that wait for answers */
#endif
#ifndef KA_MAX_UNSENT
#define KA_MAX_UNSENT 262144      /* what a peer leaves unread: it is closed beyond. It is less
                                     than the largest answer if KA_MAX_BODY is raised: raise it */
#endif
#ifndef KA_REQUEST_MS
#define KA_REQUEST_MS 10000       /* from a request's first byte, or the last answer, to its end */
#endif
#ifndef KA_IDLE_MS
#define KA_IDLE_MS 60000          /* a connection without a request: it is closed then */
#endif
#ifndef KA_ANSWER_MS
#define KA_ANSWER_MS 300000       /* the next answer of a connection, which is yours: 503 then */
#endif
#ifndef KA_STALL_MS
#define KA_STALL_MS 30000         /* a peer that takes no byte of its answer: it is closed then */
#endif
#ifndef KA_LINGER_MS
#define KA_LINGER_MS 2000         /* to read on after a refusal, so that the answer arrives */
#endif
#ifndef KA_DRAIN_MS
#define KA_DRAIN_MS 8000          /* to finish after ka_stop; `docker stop` kills after 10 s */
#endif
#ifndef KA_BACKLOG
#define KA_BACKLOG 4096           /* connections that the system holds before they are accepted */
#endif
/* A ring between two threads, two a worker: a power of two. An answer has a quarter of it at most.
   256 KiB stay in the processor's cache; larger limits make a larger ring. */
enum {
    KA__RING_1 = 8 * (KA_MAX_HEAD + KA_MAX_BODY) - 1, KA__RING_2 = KA__RING_1 | KA__RING_1 >> 1,
    KA__RING_4 = KA__RING_2 | KA__RING_2 >> 2, KA__RING_8 = KA__RING_4 | KA__RING_4 >> 4,
    KA__RING_16 = KA__RING_8 | KA__RING_8 >> 8, KA__RING_32 = KA__RING_16 | KA__RING_16 >> 16
};
#ifndef KA_MAILBOX
#define KA_MAILBOX ((KA__RING_32 | ((1 << 18) - 1)) + 1)
#endif
#ifndef KA_MAX_ID
#define KA_MAX_ID 256             /* an ID, percent-decoded */
#endif
#ifndef KA_MAX_KEYS
#define KA_MAX_KEYS 1000000       /* keys in a keyring by default: 150 MB with IDs of 88 bytes */
#endif
#ifndef KA_ATTEMPT_MS
#define KA_ATTEMPT_MS 10000       /* client: an attempt, from connecting to the whole answer */
#endif
#ifndef KA_RETRY_FIRST_MS
#define KA_RETRY_FIRST_MS 100     /* client: the wait after the first miss */
#endif
#ifndef KA_RETRY_STEP_MS
#define KA_RETRY_STEP_MS 5        /* client: every further wait is this much longer */
#endif
/* In the implementing file also, all or none: KA_MALLOC(n), KA_REALLOC(p, n), KA_FREE(p); and
   KA_ASSERT(x). The workers call them, too. If what they call is declared by a system header that
   comes first, compile with -D_GNU_SOURCE. */

enum {
    KA_MAX_WORKERS = 64,          /* a connection's number has 8 bits for its worker */
    KA_MAX_LISTENERS = 16,        /* ka_listen calls of one server */
    KA_MAX_HOST = 253,            /* bytes of a host's name (RFC 1035 s.2.3.4, as text) */
    KA_BATCH = 256,               /* requests after which answers leave, at most */
    KA_KEY_BYTES = 64,            /* random bytes of a key, or of a fresh ID */
    KA_KEY_TEXT = 88,             /* characters of these in base64 */
    KA_IP_TEXT = 112,             /* characters of an address: most of unix:PATH */
    KA_IPS_TEXT = 511,            /* characters of some addresses, with commas between */
    KA_END_TEXT = 64,             /* characters of an end of a connection */
    KA_UTC_TEXT = 27,             /* characters of a time: 2026-11-21T09:30:00.123456Z */
    KA_TROUBLE_TEXT = 192         /* room for an error in words, as functions of ext/ write it */
};

/* ------------------------------------------------------------------------------------------------
   Errors and strings */

#define KA_ERRORS(X)                                                                              \
    X(KA_EAGAIN,   -1,  "incomplete: more bytes are needed")                                      \
    X(KA_ESYNTAX,  -2,  "malformed")                                                              \
    X(KA_ENOSPC,   -3,  "does not fit in the space given")                                        \
    X(KA_ENOMEM,   -4,  "out of memory")                                                          \
    X(KA_ERANDOM,  -5,  "the system gives no random bytes")                                       \
    X(KA_EINVAL,   -6,  "an argument is malformed, or out of its range")                          \
    X(KA_EOS,      -7,  "a system call failed")                                                   \
    X(KA_ETIME,    -8,  "timed out")                                                              \
    X(KA_ESTOPPED, -9,  "the server has stopped")                                                 \
    X(KA_EINUSE,   -10, "the address is in use by another program")                               \
    X(KA_EADDR,    -11, "the address is not one of this machine's")                               \
    X(KA_EPERM,    -12, "not permitted")                                                          \
    X(KA_ELIMIT,   -13, "out of descriptors or buffers; ulimit -n raises the limit")              \
    X(KA_EOFFLINE, -14, "the server is offline")                                                  \
    X(KA_EPROTO,   -15, "the peer does not speak the protocol")                                   \
    X(KA_EFULL,    -16, "the keyring is full")                                                    \
    X(KA_ENOTFOUND,-17, "not found")                                                              \
    X(KA_EDAMAGED, -18, "the journal is damaged")                                                 \
    X(KA_EFOREIGN, -19, "the file is another user's, or has a second name")                       \
    X(KA_ETHREAD,  -20, "no more threads and processes can be made; ulimit -u raises the limit")  \
    X(KA_EFAMILY,  -21, "this system has no addresses of this kind")

enum {
    KA_OK = 0,
#define KA__ENUM(name, value, text) name = (value),
    KA_ERRORS(KA__ENUM)
#undef KA__ENUM
    KA__ERRORS_END = 0
};

/* The text of an error, in English; "success" for 0 and more. Static; any thread. */
KADEF const char *ka_error_text(int error);

/* n bytes at p, without a NUL at the end. They are borrowed from where the function says. {NULL,
   0}: there is no text. */
typedef struct { const char *p; size_t n; } ka_str;

/* Is s this text? The case of letters counts. */
KADEF bool ka_is(ka_str s, const char *text);

/* ------------------------------------------------------------------------------------------------
   1 platform. All of these may be called from any thread. */

/* Milliseconds of a clock that never jumps. Its zero is arbitrary (clock_gettime(2),
   CLOCK_MONOTONIC; QueryPerformanceCounter). */
KADEF int64_t ka_now_ms(void);

/* The same clock in microseconds. */
KADEF int64_t ka_now_us(void);

/* Sleep for ms milliseconds; a signal ends it early. */
KADEF void ka_sleep_ms(int ms);

/* Run a function in a new thread, which nobody waits for. KA_OK, or KA_ETHREAD, KA_ENOMEM. */
KADEF int ka_thread(void (*run)(void *arg), void *arg);

/* Fill n bytes from the system's CSPRNG (getrandom, getentropy, BCryptGenRandom).
     returns    KA_OK, or KA_ERANDOM: then out holds nothing of use. Do not go on without them */
KADEF int ka_random(void *out, size_t n);

/* Microseconds since 1970 in UTC, by the calendar clock. That can be set, and so can jump. */
KADEF int64_t ka_wall_us(void);

/* Make the network usable (WSAStartup). What needs it here calls this; harmless again. KA_OK or
   KA_EOS. */
KADEF int ka_network_start(void);

/* Take the next address off a list with commas between, as ka_resolve of ext/lookup.h gives.
     *ips       the list; what is left of it
     returns    false: there was none left, or one that is too long */
KADEF bool ka_next_ip(const char **ips, char ip[KA_IP_TEXT + 1]);

/* The command that gives this machine another address of 127.0.0.0/8. The address goes behind the
   command. NULL: this system has all of these addresses (Linux, Windows). Static. */
KADEF const char *ka_alias_command(void);

/* Can each worker of a server have a table of descriptors of its own, by KA_OWN_DESCRIPTORS? Then
   the descriptor limit counts for each worker. Else all workers share it. */
KADEF bool ka_own_descriptors(void);

/* ------------------------------------------------------------------------------------------------
   2 bytes. Any thread; nothing is allocated. */

#define KA_B64_ENCODED(n) (((n) + 2) / 3 * 4)
#define KA_B64_DECODED(n) ((n) / 4 * 3)

/* Encode n bytes as base64 (RFC 4648 s.4, padded), with no NUL at the end.
     out, cap   room of the caller's; KA_B64_ENCODED(n) bytes are enough; must not overlap in
     returns    characters written, or KA_ENOSPC */
KADEF ptrdiff_t ka_b64_encode(char *out, size_t cap, const void *in, size_t n);

/* Decode n characters of base64 (RFC 4648 s.4). Padding is required, and spare bits must be zero
   (s.3.5).
     out, cap   room of the caller's; KA_B64_DECODED(n) bytes are always enough; must not overlap in
     returns    bytes written, or KA_ESYNTAX, KA_ENOSPC; after an error out holds nothing of use */
KADEF ptrdiff_t ka_b64_decode(void *out, size_t cap, const char *in, size_t n);

/* SHA-256 (FIPS 180-4) of n bytes; cannot fail. */
KADEF void ka_sha256(unsigned char digest[32], const void *in, size_t n);

/* Are n bytes equal? The time that this takes does not depend on where they differ. */
KADEF bool ka_eq_ct(const void *a, const void *b, size_t n);

/* Overwrite a secret with zeros. The compiler does not optimise this away. */
KADEF void ka_wipe(void *p, size_t n);

/* Make a fresh ID: KA_KEY_BYTES random bytes as base64, and a NUL. KA_OK or KA_ERANDOM. */
KADEF int ka_fresh_id(char id[KA_KEY_TEXT + 1]);

/* Write n bytes as 2 * n hexadecimal digits in lower case, with no NUL. */
KADEF void ka_hex_encode(char *out, const void *in, size_t n);

/* Write a time of ka_wall_us in UTC (RFC 3339 s.5.6): 2026-11-21T09:30:00.123456Z and a NUL. A time
   before 1970 or after 9999 becomes the first or the last microsecond of these years. */
KADEF void ka_utc_text(char out[KA_UTC_TEXT + 1], int64_t wall_us);

/* ------------------------------------------------------------------------------------------------
   3 text. Any thread; nothing is allocated; results are views into the bytes given. */

/* The value of a field, without the white space around it.
     fields     of a request: ev->fields
     name       of the field, in any case
     *value     a view of fields; {NULL, 0} unless KA_OK
     returns    KA_OK; KA_ENOTFOUND: there is none; KA_EINVAL: there are several, and readers
                may differ in which one they take. Refuse such a request: do not take the field for
                absent */
KADEF int ka_field(ka_str fields, const char *name, ka_str *value);

/* Take the next name=value off *rest, a form (application/x-www-form-urlencoded, WHATWG URL s.5.1).
   Name and value are still percent-encoded.
     returns    KA_OK; KA_ENOTFOUND at the end; KA_ESYNTAX where there is no `=` */
KADEF int ka_form_next(ka_str *rest, ka_str *name, ka_str *value);

/* Decode %XX (RFC 3986 s.2.1). `+` stays a plus: IDs and keys are base64, where it is a digit.
     out        may be in.p
     returns    bytes written, or KA_ESYNTAX, KA_ENOSPC */
KADEF ptrdiff_t ka_percent_decode(char *out, size_t cap, ka_str in);

/* ------------------------------------------------------------------------------------------------
   6 server. One thread, the parent, calls these; only ka_stop, ka_wake and ka_server_stats are for
   any thread. */

typedef struct ka_server ka_server;

/* An end of a connection: its IPv6 address, the first byte first; or ::ffff: and its IPv4 address
   (RFC 4291 s.2.5.5.2). All 0: unknown. */
typedef struct {
    unsigned char ip[16];
    uint32_t zone;               /* the number of a link-local address's interface (RFC 4007); of a
                                    Unix socket, the PID of the process that connected or listens */
    uint16_t port;
    bool     local;              /* of a Unix socket, which has neither ip nor port */
} ka_end;

/* Write an end as text, and a NUL: 127.0.0.1:80, [::1]:80, unix:PID. Returns out. */
KADEF const char *ka_end_text(char out[KA_END_TEXT + 1], ka_end end);

/* What a framing remembers of an unfinished message. All zero before each message. */
typedef struct { uint64_t a; uint32_t at, b; } ka_cut;

/* How a connection's bytes are cut into messages. NULL, instead of a framing, is HTTP. A framing is
   constant and lives as long as the server. ext/framing.h has three. */
typedef struct ka_framing {
    /* Find the first message among the n bytes at p, n > 0. Called in a worker's thread; touches
       nothing but *state.
         state      after KA_EAGAIN the next call gets it back, with the same bytes and more
         message    a view of the message in these bytes, KA_MAX_BODY bytes at most. If it is left
                    as it was (p is NULL), these bytes say nothing, and are dropped
         returns    the bytes that are taken, 1 to n; KA_EAGAIN: the message is not all here;
                    KA_ESYNTAX, KA_ENOSPC (too long): it is refused, and the connection closed */
    ptrdiff_t (*cut)(ka_cut *state, const char *p, size_t n, ka_str *message);
    size_t max_unsent;       /* bytes that a peer may leave unread; 0 means KA_MAX_UNSENT */
} ka_framing;

/* ka_event.kind. Bytes that are given to ka_send after an event that ends a connection, and before
   the next ka_wait, still leave. */
enum {
    KA_LISTENING = 1,        /* what came of ka_listen */
    KA_REQUEST,              /* HTTP: answer it by ka_reply */
    KA_OPENED,               /* another framing: a connection is open; or what came of ka_connect,
                                an error is its only event; or ka_upgrade's answer has begun */
    KA_MESSAGE,              /* one message; with an error the last one */
    KA_CLOSED,               /* the last event of a connection that is not HTTP: it has gone, or its
                                peer sends no more */
    KA_USER = 64             /* the first kind for sources of your own; ext/ has those from 16 up */
};

/* What a kind does not have is 0. Strings are borrowed until the next ka_wait. */
typedef struct {
    int      kind;
    int      error;          /* KA_OK or KA_E...
                                LISTENING, OPENED: nothing listens, or is open. After a LISTENING
                                without an error one with KA_EPERM or KA_EOS may come: the system
                                has refused for a second to accept newcomers.
                                REQUEST, MESSAGE: it was refused: KA_ESYNTAX, KA_ENOSPC, KA_ETIME,
                                KA_ENOMEM.
                                CLOSED: KA_OK: its peer ended it, or ka_stop; KA_EOFFLINE: it was
                                lost: reset, or closed for what its peer left unread, or did not
                                end after ka_close */
    int      os_error;       /* LISTENING, OPENED: the system's code behind the error, or 0 */
    int      status;         /* REQUEST: 0, or the HTTP status that fits what was refused */
    int      listener;       /* LISTENING, REQUEST, OPENED: ka_listen's number; -1: ka_connect's */
    int      port;           /* LISTENING: the port, also where 0 was asked for */
    int64_t  now_ms;         /* ka_now_ms(), read once a batch */
    uint64_t conn;           /* the connection: its worker, place and generation */
    int64_t  since_us;       /* REQUEST: ka_now_us() when its batch began */
    uint64_t tag;            /* OPENED: ka_connect's; REQUEST: 0, or what a source has put here */
    ka_end   peer;           /* REQUEST, OPENED, MESSAGE, CLOSED: the connection's other end.
                                LISTENING: where it listens, or can't */
    const ka_framing *framing;   /* MESSAGE: what it was cut by */
    uint32_t seq;            /* REQUEST: its number on its connection; for ka_reply */
    uint8_t  flags;          /* REQUEST: for ka_reply */
    bool     browser;        /* REQUEST: it has Origin or Sec-Fetch-Site, as only browsers send:
                                ext/site.h tells for whose pages */
    ka_str   method;         /* REQUEST that was not refused, and so the next three */
    ka_str   target;         /* without "http://authority"; "/" if there is nothing behind that */
    ka_str   host;           /* what it is for, with the port if one was sent: the host in the
                                target, or else the field Host (RFC 9112 s.3.2.2, s.3.3) */
    ka_str   fields;         /* the field lines, for ka_field */
    ka_str   body;           /* REQUEST, MESSAGE; for sources */
} ka_event;

typedef struct {
    size_t requests;         /* requests and messages delivered by ka_wait, refused ones too */
    size_t connections;      /* open now */
    size_t buffered;         /* bytes that are kept for them: of messages not all here yet, and not
                                all sent */
} ka_stats;

/* To be added to `workers`: on Linux from 5.9 on, unless in a sandbox, each worker has a table of
   descriptors of its own, and so the whole limit. Such a worker leaves signals to other threads.
   Tools that list a process's sockets see fewer of them. */
enum { KA_OWN_DESCRIPTORS = 256 };

/* Start the server: its worker threads run, and know no address yet.
     *s         yours, until ka_server_free; NULL on failure
     workers    1 to KA_MAX_WORKERS; 0 means 1
     returns    KA_OK, or KA_EINVAL, KA_ENOMEM, KA_EOS, KA_ELIMIT, KA_ETHREAD, KA_EPERM (Windows: no
                sockets for this program) */
KADEF int ka_server_start(ka_server **s, int workers);

/* Tell the workers, through the mailbox, to listen on ip:port, for HTTP or another framing. A
   KA_LISTENING event tells what comes of it, also of a bad address. If it is an error, and nothing
   else listens, ka_wait returns that error from then on.
     ip         numeric; copied. 0.0.0.0: all IPv4 addresses of this machine; ::: all IPv6
                addresses. A link-local one needs its interface: fe80::1%eth0. Or unix:PATH, a Unix
                socket (not on Windows), whatever the port: PATH is made for its user and group
                (0660), in place of one that a dead server has left, and removed at the end. Or
                fd:N, the descriptor of a socket that listens already, which becomes the server's
                (not on Windows), as ext/service.h has them, whatever the port
     port       0 to 65535; 0 lets the system choose
     returns    the listener's number, 0, 1, 2... in the order of the calls; or KA_ELIMIT
                (KA_MAX_LISTENERS), KA_ESTOPPED: then there is no event */
KADEF int ka_listen(ka_server *s, const char *ip, int port);
KADEF int ka_listen_as(ka_server *s, const ka_framing *framing, const char *ip, int port);

/* Who may connect: ext/limit.h is one. The workers call both functions, several at a time. */
typedef struct ka_doorman {
    /* A peer has connected. False: it is turned away, on HTTP by 429 try_later. */
    bool (*enter)(struct ka_doorman *d, const ka_end *peer);
    /* The connection of a peer that has entered is closed. */
    void (*leave)(struct ka_doorman *d, const ka_end *peer);
} ka_doorman;

/* Ask d from now on. Before ka_listen; d stays where it is until ka_server_free. */
KADEF void ka_admit(ka_server *s, ka_doorman *d);

/* Tell a worker to connect to ip:port. A KA_OPENED event with this tag tells what comes of it,
   within KA_ATTEMPT_MS. If memory runs out while hundreds are asked for, some get no event.
     framing    not NULL
     from       NULL, or the address of this machine to connect from: each has some 28,000 ports
     returns    KA_OK, or KA_EINVAL (also an address that is not one machine's), KA_ESTOPPED */
KADEF int ka_connect(ka_server *s, const ka_framing *framing, const char *from, const char *ip,
                     int port, uint64_t tag);

/* Wait for the next event, having sent what was replied so far.
     timeout_ms 0 returns at once, -1 waits for ever
     returns    KA_OK with *ev filled; KA_ETIME; KA_ESTOPPED once all has ended after ka_stop; or
                the error of a ka_listen, see there */
KADEF int ka_wait(ka_server *s, ka_event *ev, int timeout_ms);

/* Answer a request, now or later, in any order: answers leave in the order of the requests. To
   answer later keep a copy of *ev, whose strings are lost then. The first answer of a request
   counts. Others are dropped, and so are those whose connection has gone.
     status     200 to 599; 204, 205 and 304 have no body. Or 0, without fields: HTTP/0.9's answer
                (RFC 1945 s.6), the body alone and then the close
     fields     more header lines, each "Name: value\r\n", or NULL; copied. Date, Cache-Control:
                no-store, Content-Type: text/plain and Content-Length are written for you; yours
                replace the first three. Connection: close makes this the last answer. Refused is
                what else frames a message or tells of its connection (Content-Length,
                Transfer-Encoding, Trailer, TE, Upgrade, Keep-Alive, Proxy-Connection, other options
                of Connection), and Date, Content-Type or Connection twice
     body, n    copied
     returns    KA_OK, or KA_EINVAL (no request; status, fields), KA_ENOSPC (over KA_MAILBOX / 4
                bytes). Then give it another answer before the next ka_wait, which else says 500 */
KADEF int ka_reply(ka_server *s, const ka_event *ev, int status, const char *fields,
                   const void *body, size_t n);

/* Answer a request, and have its connection go on in another framing. When the answer's turn has
   come, KA_OPENED with its listener and conn tells that it has begun; from then on the connection
   is not HTTP. If it ends before, there is no KA_OPENED. Bytes behind the request are lost.
     status     200: the bytes of ka_send are the body, which the close ends (ext/sse.h); or 101
     fields     as ka_reply's; with 101 also Upgrade, which is yours to write
     framing    not NULL
     returns    as ka_reply; KA_EINVAL, too, for HTTP/1.0's and HEAD, which are for ka_reply */
KADEF int ka_upgrade(ka_server *s, const ka_event *ev, int status, const char *fields,
                     const ka_framing *framing);

/* Send bytes on a connection that is not HTTP, with what its framing needs around a message. If the
   connection is closed, the bytes are dropped. If more bytes are unsent than the framing's
   max_unsent, the connection is closed. So send large data in parts, over several events.
     p, n       copied
     returns    KA_OK, or KA_EINVAL (no such worker) */
KADEF int ka_send(ka_server *s, uint64_t conn, const void *p, size_t n);

/* Read no more from a connection that is not HTTP, and close it when all that was sent has left.
   KA_CLOSED follows, always. */
KADEF void ka_close(ka_server *s, uint64_t conn);

/* Cut what comes from now on by another framing. Call this before you send the message that makes
   the peer change its framing, too. Messages of the old framing may still come, as ev->framing
   tells. If the worker has bytes that it has not cut yet, the connection is closed.
     framing    not NULL
     returns    KA_OK, or KA_EINVAL (no such worker) */
KADEF int ka_reframe(ka_server *s, uint64_t conn, const ka_framing *framing);

/* An index for arrays: no other open connection has the same one. From 0 on, as small as can be. */
KADEF size_t ka_conn_index(const ka_server *s, uint64_t conn);

/* A source brings events of its own to ka_wait, takes others, or does what one sync can do for all
   answers of a batch: timers, standard input, a journal... A batch is all that has come, KA_BATCH
   events at most. The parent calls its functions, each of which may be NULL. */
typedef struct ka_source {
    /* due_ms has come. Fill *ev, of which now_ms is set and the rest is 0, and return true; or set
       due_ms and return false. The first source has half of a batch for its events, and each other
       one half of what is left. */
    bool  (*next)(struct ka_source *src, ka_event *ev);
    /* An event has come from a worker. True: it was for this source, and ka_wait keeps it back. One
       of the sources may set the tag of a REQUEST. */
    bool  (*take)(struct ka_source *src, ka_event *ev);
    /* A request is answered; its connection may be closed. Of *ev only kind, conn, seq, since_us
       and tag are set if a store answers.
         n          bytes of the answer's body */
    void  (*replied)(struct ka_source *src, const ka_event *ev, int status, size_t n);
    /* All events of a batch were handled. Answers that must not leave before this are given here:
       what was given before leaves early if it is much. */
    void  (*batch_end)(struct ka_source *src);
    /* ka_server_free was called. The server is there for the last time, this source no more. */
    void  (*freed)(struct ka_source *src);
    int64_t due_ms;              /* a time of ka_now_ms(); INT64_MAX: none */
    struct ka_source *after;     /* the server's own */
} ka_source;

/* Add a source, which stays where it is, behind those that are there; or take it out. Not from
   within a source's functions. */
KADEF void ka_source_add(ka_server *s, ka_source *src);
KADEF void ka_source_remove(ka_server *s, ka_source *src);

/* Every source is due now. For a source with a thread of its own: safe as ka_stop is. */
KADEF void ka_wake(ka_server *s);

/* Has ka_stop been called? Any thread that may use s. */
KADEF bool ka_is_stopping(const ka_server *s);

/* Stop: accept no more, and finish what is under way, KA_DRAIN_MS at most. Connections of
   ka_connect end after all others, which may need them. Go on calling ka_wait until it says
   KA_ESTOPPED. Safe from any thread and from a signal handler: ka_server_free waits for calls that
   began before it. */
KADEF void ka_stop(ka_server *s);

/* What the server has done and holds; a snapshot, from any thread, as ka_stop. */
KADEF void ka_server_stats(const ka_server *s, ka_stats *out);

/* End the workers at once and free all. NULL is fine. */
KADEF void ka_server_free(ka_server *s);

/* ------------------------------------------------------------------------------------------------
   7 keyring: stores, which keep keys, and the protocol in front of them. The parent only. */

/* A question to a store that is answered later. Plain bytes: copy it, and wipe each copy after use,
   since it may hold a key. */
typedef struct {
    ka_server       *server;
    struct ka_store *store;          /* the one that ka_auth was given */
    uint64_t conn;
    int64_t  since_us;
    uint64_t tag;
    uint32_t seq;
    uint8_t  flags;
    bool     login;                  /* the question is get's */
    char     key[KA_KEY_TEXT];       /* put's: the key whose digest is to be kept */
} ka_ticket;

/* A store keeps digests of keys, each with the ID of the key's owner. ka_keyring is one in memory.
   For a store of your own, embed this as the first member of a struct, and set put and get:
   bench/sqlite.c keeps keys in SQLite.
     put        keep the digest with its ID. Both are borrowed. A digest is never put twice
     get        find the ID of a digest. *id is borrowed until the next call
     now_ms     ka_now_ms(), read once a batch
     t          the question, to be copied if it is answered later
     returns    KA_OK: done. The key, or the ID, is sent
                KA_EAGAIN: it is answered later, once, by ka_ticket_answer
                KA_ENOTFOUND (get): there is no such key. The answer is wrong_key
                KA_EOFFLINE: the answer is try_later
                another error: the answer is server_full (put) or try_later (get) */
typedef struct ka_store {
    int (*put)(struct ka_store *st, const unsigned char digest[32], ka_str id, int64_t now_ms,
               const ka_ticket *t);
    int (*get)(struct ka_store *st, const unsigned char digest[32], int64_t now_ms,
               const ka_ticket *t, ka_str *id);
    bool (*page)(const ka_event *ev, const char *hosts);      /* yours to set: may the page for
                                        which a browser sends this use the store? NULL: none may */
    const char *hosts;               /* yours to set: what `page` is given; borrowed */
    bool     malformed;              /* yours to set: get is asked about malformed keys, too; their
                                        digest is all zeros. Else they are wrong_key */
    int      refused_error;          /* the error of the last put; KA_OK: that key was given */
    size_t   refused;                /* keys that were asked for, and answered by 503 */
} ka_store;

/* Answer a request by the protocol: POST ask_key=ID or login=KEY; anything else is wrong_query. So
   is what a browser sends, unless store->page allows it (ext/site.h): a page of any site must not
   fill the store of its visitor's machine. The answers:
     200        the key, or the ID
     403        wrong_key; or wrong_query: a browser
     503        server_full or try_later
     405        wrong_query, with the field Allow: POST
     400, ev->status  wrong_query
   The answer to a login has the field Keyauth-Ends. That names both ends of the connection as the
   server sees them, the client's and then its own, and its network namespace (SO_NETNS_COOKIE of
   Linux 5.14; else 0): "127.0.0.1:54321 127.0.0.2:9999 1". The client sees something else if a
   proxy stands between, and then ka_client_kill_server kills nothing. If the listener is one of
   fd:N, which another process may hold, too, the server's PID follows.
     store      must live as long as ka_wait is called
     returns    KA_OK: answered, or the store answers later; KA_EPERM: refused as a browser's;
                KA_EINVAL: ev is no request */
KADEF int ka_auth(ka_server *s, ka_store *store, const ka_event *ev);

/* Answer a question for which put or get has said KA_EAGAIN, and wipe *t. If the connection has
   gone, the answer is dropped.
     result     as put and get return it, but for KA_EAGAIN
     id         copied; only get's KA_OK has one */
KADEF void ka_ticket_answer(ka_ticket *t, int result, ka_str id);

/* The store in memory. One thread at a time. */
typedef struct {
    ka_store store;              /* for ka_auth: &k.store. Its put says KA_EFULL where it is full:
                                    nothing is evicted; and KA_ENOMEM, or KA_EINVAL (id) */
    size_t   count, max_keys;    /* keys now (expired ones count until their room is needed), and at
                                    most */
    int64_t  ttl_s;              /* seconds that a key is good for, or one more; 0: for ever */
    int64_t  epoch_ms;           /* ends are whole seconds after this: the time of the first put, or
                                    what you set before the first ka_keyring_add */
    /* the keyring's own */
    struct ka__shard *shards;
    struct ka__segment **segments;
    uint32_t segments_n, front, back, front_at;
} ka_keyring;

/* A key of a keyring, borrowed from there. end_ms: from then on it is over; INT64_MAX: it never is.
   */
typedef struct { const unsigned char *digest; ka_str id; int64_t end_ms; } ka_key;

/* Set up an empty keyring.
     max_keys   0 means KA_MAX_KEYS;   ttl_s   0 means for ever
     returns    KA_OK, or KA_EINVAL (ttl_s negative or over 100 years), KA_ENOMEM */
KADEF int ka_keyring_init(ka_keyring *k, size_t max_keys, int64_t ttl_s);

/* Free what it holds; harmless after a failed ka_keyring_init, or twice. */
KADEF void ka_keyring_free(ka_keyring *k);

/* The following are for stores that have a keyring within, as ext/journal.h does. Their times are
   of any one clock that does not run back. */

/* Drop some expired keys. KA_OK: there is room for one more key than `more`; or KA_EFULL. */
KADEF int ka_keyring_room(ka_keyring *k, int64_t now_ms, size_t more);

/* When a key that is made now will end; INT64_MAX: never. */
KADEF int64_t ka_keyring_end(const ka_keyring *k, int64_t now_ms);

/* Keep a digest with its ID until end_ms, rounded up to the next whole second. A digest that is
   there stays as it is. Keys are dropped in the order in which they were added: add those first
   that end first.
     id         1 to KA_MAX_ID bytes of any kind; copied
     returns    KA_OK, or KA_EINVAL (id), KA_EFULL (32 GiB), KA_ENOMEM */
KADEF int ka_keyring_add(ka_keyring *k, const unsigned char digest[32], ka_str id, int64_t end_ms);

/* The ID of a digest; {NULL, 0} if it is unknown or expired. Borrowed until the next change. */
KADEF ka_str ka_keyring_find(const ka_keyring *k, const unsigned char digest[32], int64_t now_ms);

/* The next key in the order in which they were added, expired ones as well. Begin with *place 0.
   False at the end. */
KADEF bool ka_keyring_next(const ka_keyring *k, uint64_t *place, ka_key *key);

/* ------------------------------------------------------------------------------------------------
   8 client. One thread at a time for each ka_client. It waits: a server's loop has ka_connect. */

typedef struct {
    /* yours to set; zero means the default */
    const char *ip;                  /* numeric; or several with commas between, of which an attempt
                                        takes the first that can be connected to; borrowed */
    const char *host;                /* the name in the field Host; borrowed. Default: ip */
    int         port;
    int         attempt_ms;          /* the most that one attempt takes; default KA_ATTEMPT_MS */
    int64_t     until_ms;            /* the ka_now_ms() at which attempts end; default: never */
    const char *target;              /* what is asked for; borrowed. Default: "/" */
    const char *type;                /* Content-Type, which must fit the head; borrowed. Default:
                                        application/x-www-form-urlencoded */
    void      (*on_miss)(void *arg, int misses, int delay_ms, int error);
                                     /* called before each wait; error as ka_client_post says */
    void       *arg;
    /* the client's own, which ext/process.h reads */
    int         os_error;            /* the system's code behind the last error, or 0 */
    const char *why;                 /* ka_client_kill_server of ext/process.h: why it failed, and
                                        what to do; static */
    intptr_t    sock;
    bool        open;
    ka_end      mine, theirs;        /* of the connection */
    uint32_t    handed;              /* the PID of a server whose listener others may hold, or 0 */
    const char *between;             /* the last answer's Keyauth-Ends tells that it came from
                                        elsewhere, so nothing is killed: why; static. Else NULL */
    char        buf[KA_MAX_HEAD + KA_MAX_BODY];
} ka_client;

/* POST a body and wait for the answer, on one kept-alive connection. A miss is an attempt that may
   succeed later: KA_EOFFLINE (no connection, or it was lost before the answer was whole), KA_ETIME
   (the attempt took too long), KA_EAGAIN (503 or 429 try_later), KA_EFULL (503 server_full). After
   a miss the client waits 100 ms, after the next 105, then 110, ... and tries again. A connection
   that was closed while it was idle, or on which bytes came unasked, is replaced at once.
     answer     a view of the answer's body; valid until the next call
     returns    the answer's status, 200 to 599; or, if the next attempt would begin after until_ms,
                what the last miss was: KA_EOFFLINE (also for KA_ETIME), KA_EAGAIN, KA_EFULL; or
                KA_EPROTO (an answer that is not HTTP, or too large), KA_EINVAL (ip, port, n, type),
                KA_EPERM, KA_EOS, KA_ELIMIT */
KADEF int ka_client_post(ka_client *c, const char *body, size_t n, ka_str *answer);

/* The same for a GET, which has no body. */
KADEF int ka_client_get(ka_client *c, ka_str *answer);

/* Close the connection, if one is open, and wipe the last answer. Nothing else is to be freed. */
KADEF void ka_client_close(ka_client *c);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_IMPLEMENTED)
#define KEYAUTH_IMPLEMENTED
#ifdef __cplusplus
#error "keyauth.h: a .c file implements it; C++ only includes it"
#endif

/* ================================================================================================
   1 platform

   What differs between systems has one function here, with one signature for all of them. Outside
   of this section there is no platform conditional. Sockets never block, and other programs do not
   inherit them. A function that fails returns KA_E..., and right after it ka__os_code() is the
   system's own code. */

#if defined(_WIN32)
#  ifndef _WIN32_WINNT
#    define _WIN32_WINNT 0x0601
#  endif
#  ifndef WIN32_LEAN_AND_MEAN
#    define WIN32_LEAN_AND_MEAN
#  endif
#  include <winsock2.h>
#  include <ws2tcpip.h>
#  include <windows.h>
#  include <bcrypt.h>
#  ifdef _MSC_VER
#    pragma comment(lib, "ws2_32")
#    pragma comment(lib, "bcrypt")
#  endif
#elif defined(__linux__) || defined(__APPLE__)
#  include <arpa/inet.h>
#  include <fcntl.h>
#  include <net/if.h>
#  include <netinet/in.h>
#  include <netinet/tcp.h>
#  include <poll.h>
#  include <signal.h>
#  include <sys/file.h>
#  include <sys/ioctl.h>
#  include <sys/socket.h>
#  include <sys/stat.h>
#  include <sys/un.h>
#  include <unistd.h>
#  if defined(__linux__)
#    if defined(__GLIBC__) && !defined(__USE_GNU)
#      error "keyauth.h: define KEYAUTH_IMPLEMENTATION above all #includes, or use -D_GNU_SOURCE"
#    endif
#    if defined(__GLIBC__)
#      include <malloc.h>
#    endif
#    include <sys/epoll.h>
#    include <sys/eventfd.h>
#    include <sys/mman.h>
#    include <sys/prctl.h>
#    include <sys/random.h>
#    include <sys/syscall.h>
#    ifndef SYS_pidfd_open      /* old headers; the same on all processors but Alpha */
#      define SYS_pidfd_open 434
#    endif
#    ifndef MADV_POPULATE_WRITE
#      define MADV_POPULATE_WRITE 23
#    endif
#    ifndef SYS_pidfd_getfd
#      define SYS_close_range 436
#      define SYS_pidfd_getfd 438
#    endif
#  else
#    include <sys/random.h>
#  endif
#else
#  error "keyauth.h: this system is not known; section 1 lists what it would have to provide"
#endif
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef KA_ASSERT
#  include <assert.h>
#  define KA_ASSERT(x) assert(x)
#endif

#if defined(__has_feature)
#  if __has_feature(thread_sanitizer)
#    define KA__TSAN 1
#  elif __has_feature(address_sanitizer)
#    define KA__ASAN 1
#  endif
#endif
#if defined(__SANITIZE_THREAD__)
#  define KA__TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#  define KA__ASAN 1
#endif

typedef intptr_t ka__sock;

/* What a poller watches a socket for. */
enum {
    KA__UNWATCHED = -1,      /* the socket is not known to the poller */
    KA__IN = 1,              /* bytes, or a connection to accept; bits, 0: only failure */
    KA__OUT = 2,             /* room for bytes to send */
    KA__SHARED = 4           /* a listener that other pollers watch, too */
};

#define KA__NO_TOKEN UINT32_MAX
enum { KA__EVENTS = 256 };      /* sockets that a poller tells of at a time, at most */

/* ---- memory: all but ka__page_new's comes from ka__resize and goes to ka__free ---- */

#if defined(KA_MALLOC) && defined(KA_REALLOC) && defined(KA_FREE)
#elif !defined(KA_MALLOC) && !defined(KA_REALLOC) && !defined(KA_FREE)
#  define KA_MALLOC(n) malloc(n)
#  define KA_REALLOC(p, n) realloc(p, n)
#  define KA_FREE(p) free(p)
#else
#  error "keyauth.h: define all of KA_MALLOC, KA_REALLOC and KA_FREE, or none"
#endif

/* Room for `count` things of `size` bytes each, which holds what p held. NULL: there is no memory,
   and p is as it was. */
static void *ka__resize(void *p, size_t count, size_t size)
{
    if (count == 0 || count > PTRDIFF_MAX / size) return NULL;
    return p ? KA_REALLOC(p, count * size) : KA_MALLOC(count * size);
}

static void *ka__alloc_zeroed(size_t count, size_t size)
{
    void *p = ka__resize(NULL, count, size);
    if (p) memset(p, 0, count * size);
    return p;
}

static void ka__free(void *p) { if (p) KA_FREE(p); }

/* Give freed memory back to the system, as far as the allocator can. It takes milliseconds. */
static void ka__memory_trim(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

/* Change a counter that one thread writes and any thread may read. */
static void ka__count(_Atomic(size_t) *n, int by)
{
    size_t was = atomic_load_explicit(n, memory_order_relaxed);
    atomic_store_explicit(n, was + (size_t)by, memory_order_relaxed);
}

/* ---- threads: Win32's on Windows, else C11's; or pthreads where <threads.h> is missing ----

   Under ThreadSanitizer they are pthreads, too: that of gcc 12 and of clang 14 crashes in threads
   that thrd_create made. */

#if defined(_WIN32)
typedef HANDLE ka__thread;
#elif defined(__APPLE__) || defined(__STDC_NO_THREADS__) || defined(KA__TSAN)
#  include <pthread.h>
#  define KA__PTHREADS 1
typedef pthread_t ka__thread;
#else
#  include <threads.h>
typedef thrd_t ka__thread;
#endif

/* What a new thread runs; it frees this. */
typedef struct { void (*run)(void *); void *arg; } ka__call;

static void ka__call_run(void *call)
{
    ka__call c = *(ka__call *)call;
    ka__free(call);
    c.run(c.arg);
}

#if defined(_WIN32)
static DWORD WINAPI ka__thread_main(void *call) { ka__call_run(call); return 0; }
#elif defined(KA__PTHREADS)
static void *ka__thread_main(void *call) { ka__call_run(call); return NULL; }
#else
static int ka__thread_main(void *call) { ka__call_run(call); return 0; }
#endif

/* Start a thread. Join or detach it. */
static int ka__thread_start(ka__thread *t, void (*run)(void *), void *arg)
{
    ka__call *c = ka__resize(NULL, 1, sizeof *c);
    if (!c) return KA_ENOMEM;
    *c = (ka__call){ run, arg };
#if defined(_WIN32)
    *t = CreateThread(NULL, 0, ka__thread_main, c, 0, NULL);
    bool runs = *t != NULL;
#elif defined(KA__PTHREADS)
    bool runs = pthread_create(t, NULL, ka__thread_main, c) == 0;
#else
    bool runs = thrd_create(t, ka__thread_main, c) == thrd_success;
#endif
    if (!runs) ka__free(c);
    return runs ? KA_OK : KA_ETHREAD;
}

static void ka__thread_join(ka__thread *t)
{
#if defined(_WIN32)
    WaitForSingleObject(*t, INFINITE);
    CloseHandle(*t);
#elif defined(KA__PTHREADS)
    pthread_join(*t, NULL);
#else
    thrd_join(*t, NULL);
#endif
}

int ka_thread(void (*run)(void *), void *arg)
{
    ka__thread t;
    int r = ka__thread_start(&t, run, arg);
    if (r < 0) return r;
#if defined(_WIN32)
    CloseHandle(t);
#elif defined(KA__PTHREADS)
    pthread_detach(t);
#else
    thrd_detach(t);
#endif
    return KA_OK;
}

/* Fetch bytes into this processor's cache that another processor wrote and that are needed soon. */
#if defined(__GNUC__)
#define KA__PREFETCH(p) __builtin_prefetch(p)
#else
#define KA__PREFETCH(p) ((void)(p))
#endif

/* ---- processor: SHA-256 by the instructions that most x86 of the last years have ---- */

#if defined(__x86_64__) && defined(__GNUC__)
#  include <cpuid.h>
#  include <smmintrin.h>      /* immintrin.h takes as long to compile as 2,000 lines here */
#define KA__ROUNDS(a, b, c) \
    (__m128i)__builtin_ia32_sha256rnds2((__v4si)(a), (__v4si)(b), (__v4si)(c))
#define KA__MSG1(a, b)      (__m128i)__builtin_ia32_sha256msg1((__v4si)(a), (__v4si)(b))
#define KA__MSG2(a, b)      (__m128i)__builtin_ia32_sha256msg2((__v4si)(a), (__v4si)(b))

enum { KA__SHA_UNKNOWN, KA__SHA_NO, KA__SHA_YES };
static _Atomic(int) ka__sha_answer;

/* Has the processor these instructions? CPUID takes microseconds in a virtual machine: so its
   answer is kept. */
static bool ka__sha_available(void)
{
    int known = atomic_load_explicit(&ka__sha_answer, memory_order_relaxed);
    if (known == KA__SHA_UNKNOWN) {
        unsigned ax, bx = 0, cx = 0, dx;
        known = KA__SHA_NO;
        __get_cpuid(1, &ax, &bx, &cx, &dx);
        bool sse = cx >> 19 & 1, more = __get_cpuid_count(7, 0, &ax, &bx, &cx, &dx);
        if (sse && more && (bx >> 29 & 1)) known = KA__SHA_YES;      /* SSE4.1 and SHA */
        atomic_store_explicit(&ka__sha_answer, known, memory_order_relaxed);
    }
    return known == KA__SHA_YES;
}

/* Add one block to the state h, as ka__sha256_block. False: the processor can't. The instructions
   have the state as ABEF and CDGH. One does two rounds; two make four words of the schedule (Intel
   SDM: SHA256RNDS2, SHA256MSG1, SHA256MSG2). */
__attribute__((target("sha,sse4.1")))
static bool ka__sha256_native(uint32_t h[8], const unsigned char *p, const uint32_t k[64])
{
    if (!ka__sha_available()) return false;
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i *in = (const __m128i *)(const void *)p;
    const __m128i *rounds = (const __m128i *)(const void *)k;
    __m128i *state = (__m128i *)(void *)h;
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128(state), 0xB1);           /* CDAB */
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128(state + 1), 0x1B);      /* EFGH */
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    const __m128i abef0 = abef, cdgh0 = cdgh;
    __m128i a = _mm_shuffle_epi8(_mm_loadu_si128(in), swap);
    __m128i b = _mm_shuffle_epi8(_mm_loadu_si128(in + 1), swap);
    __m128i c = _mm_shuffle_epi8(_mm_loadu_si128(in + 2), swap);
    __m128i d = _mm_shuffle_epi8(_mm_loadu_si128(in + 3), swap);
    for (int i = 0; i < 16; i++) {
        __m128i words = _mm_add_epi32(a, _mm_loadu_si128(rounds + i));
        cdgh = KA__ROUNDS(cdgh, abef, words);
        abef = KA__ROUNDS(abef, cdgh, _mm_shuffle_epi32(words, 0x0E));
        __m128i next = KA__MSG2(_mm_add_epi32(KA__MSG1(a, b), _mm_alignr_epi8(d, c, 4)), d);
        a = b;
        b = c;
        c = d;
        d = next;      /* the last four are of no use, which costs less than to ask for them */
    }
    low = _mm_shuffle_epi32(_mm_add_epi32(abef, abef0), 0x1B);      /* FEBA */
    high = _mm_shuffle_epi32(_mm_add_epi32(cdgh, cdgh0), 0xB1);     /* DCHG */
    _mm_storeu_si128(state, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128(state + 1, _mm_alignr_epi8(high, low, 8));
    return true;
}
#else
static bool ka__sha_available(void) { return false; }

static bool ka__sha256_native(uint32_t h[8], const unsigned char *p, const uint32_t k[64])
{
    (void)h;
    (void)p;
    (void)k;
    return ka__sha_available();
}
#endif

/* ---- clock and random ---- */

#if defined(_WIN32)
int64_t ka_now_us(void)
{
    LARGE_INTEGER ticks, hz;               /* not GetTickCount64, which has steps of 16 ms */
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&hz);
    int64_t whole = ticks.QuadPart / hz.QuadPart, rest = ticks.QuadPart % hz.QuadPart;
    return whole * 1000000 + rest * 1000000 / hz.QuadPart;      /* ticks * 1000000 may overflow */
}

int64_t ka_wall_us(void)
{
    const int64_t from_1601_to_1970 = 11644473600000000;
    FILETIME t;                            /* in 100 ns since 1601 */
    GetSystemTimeAsFileTime(&t);
    uint64_t since_1601 = (uint64_t)t.dwHighDateTime << 32 | t.dwLowDateTime;
    return (int64_t)(since_1601 / 10) - from_1601_to_1970;
}

void ka_sleep_ms(int ms) { Sleep(ms > 0 ? (DWORD)ms : 0); }

int ka_random(void *out, size_t n)
{
    unsigned char *p = out;
    for (ULONG part; n > 0; p += part, n -= part) {
        part = n < 65536 ? (ULONG)n : 65536;
        if (BCryptGenRandom(NULL, p, part, BCRYPT_USE_SYSTEM_PREFERRED_RNG) != 0) return KA_ERANDOM;
    }
    return KA_OK;
}
#else
int64_t ka_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);   /* cannot fail */
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t ka_wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void ka_sleep_ms(int ms)
{
    if (ms <= 0) return;
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    nanosleep(&t, NULL);
}

/* getrandom and getentropy give up to 256 bytes at a time: more may be cut short, or is refused. */
int ka_random(void *out, size_t n)
{
    unsigned char *p = out;
    for (size_t part; n > 0; p += part, n -= part) {
        part = n < 256 ? n : 256;
#  if defined(__linux__)
        ssize_t got;
        while ((got = getrandom(p, part, 0)) < 0 && errno == EINTR) {}
        if (got != (ssize_t)part) return KA_ERANDOM;
#  else
        if (getentropy(p, part) != 0) return KA_ERANDOM;
#  endif
    }
    return KA_OK;
}
#endif

int64_t ka_now_ms(void) { return ka_now_us() / 1000; }

/* Milliseconds until a time, for a call that takes an int. */
static int ka__left(int64_t until)
{
    int64_t left = until - ka_now_ms();
    if (left <= 0) return 0;
    return left < INT_MAX ? (int)left : INT_MAX;
}

enum { KA__PAGE = 4096 };

/* Have the system give all pages that lie in these n bytes, which will be filled soon, by one call
   (madvise(2), MADV_POPULATE_WRITE, Linux 5.14). In a virtual machine the first touch of a page
   costs microseconds: with this a server had 1.4 times the requests/s (bench/README.md). */
static void ka__populate(void *p, size_t n)
{
#if defined(MADV_POPULATE_WRITE)
    size_t before = KA__PAGE - (uintptr_t)p % KA__PAGE, pages = (n - before) / KA__PAGE;
    (void)madvise((char *)p + before, pages * KA__PAGE, MADV_POPULATE_WRITE);
#else
    (void)p;
    (void)n;
#endif
}

/* A page for random bytes. No core dump has it, and a forked child finds it zeroed: so parent and
   child never use the same bytes (madvise(2), MADV_WIPEONFORK, Linux 4.14). NULL: the system can't
   make such a page. */
static void *ka__page_new(void)
{
#if defined(MADV_WIPEONFORK)
    void *p = mmap(NULL, KA__PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    bool heeds = madvise(p, KA__PAGE, -1) != 0;      /* qemu-user accepts any advice, in vain */
    if (heeds && madvise(p, KA__PAGE, MADV_WIPEONFORK) == 0 &&
        madvise(p, KA__PAGE, MADV_DONTDUMP) == 0) return p;
    munmap(p, KA__PAGE);
#endif
    return NULL;
}

static void ka__page_free(void *p)
{
#if defined(MADV_WIPEONFORK)
    if (p) munmap(p, KA__PAGE);
#else
    (void)p;
#endif
}

const char *ka_alias_command(void)
{
#if defined(__APPLE__)
    return "sudo ifconfig lo0 alias";
#else
    return NULL;
#endif
}

/* ---- sockets ---- */

#if defined(_WIN32)
typedef int ka__len;
#define KA__FD(s) ((SOCKET)(s))
#define KA__SEND_FLAGS 0

static int ka__os_code(void) { return WSAGetLastError(); }
static void ka__os_code_set(int code) { WSASetLastError(code); }

static int ka__error_of(int code)
{
    switch (code) {
    case WSAEWOULDBLOCK: case WSAEINTR: case WSAEINPROGRESS:            return KA_EAGAIN;
    case WSAEADDRINUSE:                                                 return KA_EINUSE;
    case WSAEADDRNOTAVAIL:                                              return KA_EADDR;
    case WSAEACCES:                                                     return KA_EPERM;
    case WSAEAFNOSUPPORT:                                               return KA_EFAMILY;
    case WSAEMFILE: case WSAENOBUFS:                                    return KA_ELIMIT;
    case WSAECONNREFUSED: case WSAECONNRESET: case WSAECONNABORTED: case WSAETIMEDOUT:
    case WSAENETUNREACH: case WSAEHOSTUNREACH: case WSAEHOSTDOWN: case WSAENETDOWN:
    case WSAENOTCONN: case WSAESHUTDOWN:                                return KA_EOFFLINE;
    default:                                                            return KA_EOS;
    }
}

int ka_network_start(void)
{
    WSADATA data;
    int code = WSAStartup(MAKEWORD(2, 2), &data);
    ka__os_code_set(code);      /* WSAStartup returns its error, and doesn't set it */
    return code == 0 ? KA_OK : KA_EOS;
}

static int ka__sock_prepare(ka__sock s)
{
    u_long on = 1;
    SetHandleInformation((HANDLE)KA__FD(s), HANDLE_FLAG_INHERIT, 0);
    return ioctlsocket(KA__FD(s), (long)FIONBIO, &on) == 0 ? KA_OK : KA_EOS;
}

static void ka__sock_close(ka__sock s) { closesocket(KA__FD(s)); }
static void ka__sock_end(ka__sock s) { shutdown(KA__FD(s), SD_SEND); }

static size_t ka__sock_waiting(ka__sock s)
{
    u_long n = 0;
    return ioctlsocket(KA__FD(s), FIONREAD, &n) == 0 ? n : 0;
}

/* Wait for KA__IN or KA__OUT. This is select because WSAPoll tells nothing of a failed connect
   before Windows 10 2004. */
static int ka__sock_wait(ka__sock s, int want, int ms)
{
    fd_set set, failed;
    struct timeval t = { ms / 1000, ms % 1000 * 1000 };
    FD_ZERO(&set);
    FD_SET(KA__FD(s), &set);
    failed = set;
    int n = select(0, want == KA__IN ? &set : NULL, want == KA__OUT ? &set : NULL, &failed, &t);
    if (n < 0) return ka__error_of(ka__os_code());
    return n > 0 ? KA_OK : KA_ETIME;
}

/* Without this Windows sends the SYN to a closed port three times, which takes 2 s: far longer than
   the waits of the retry policy. Systems older than Windows 10 don't know this option, and wait. */
static void ka__sock_fail_fast(ka__sock s)
{
    const DWORD option = _WSAIOW(IOC_VENDOR, 17);      /* SIO_TCP_INITIAL_RTO */
    struct { USHORT rtt; UCHAR retransmissions; } rto = { 0xFFFF, 0xFE };   /* the default; none */
    DWORD got = 0;
    WSAIoctl(KA__FD(s), option, &rto, sizeof rto, NULL, 0, &got, NULL, NULL);
}
#else
typedef size_t ka__len;
#define KA__FD(s) ((int)(s))

static int ka__os_code(void) { return errno; }
static void ka__os_code_set(int code) { errno = code; }

static int ka__error_of(int code)
{
    switch (code) {
    case EAGAIN: case EINTR: case EINPROGRESS:                          return KA_EAGAIN;
    case EADDRINUSE:                                                    return KA_EINUSE;
    case EADDRNOTAVAIL:                                                 return KA_EADDR;
    case EACCES: case EPERM: case ENOSYS: /* a sandbox may say that */  return KA_EPERM;
    case EAFNOSUPPORT:                                                  return KA_EFAMILY;
    case EMFILE: case ENFILE: case ENOBUFS: case ENOMEM:                return KA_ELIMIT;
    case ECONNREFUSED: case ECONNRESET: case ECONNABORTED: case ETIMEDOUT:
    case ENETUNREACH: case EHOSTUNREACH: case EHOSTDOWN: case ENETDOWN:
    case ENOTCONN: case EPIPE: case ENOENT: /* a Unix socket's path */  return KA_EOFFLINE;
    default:                                                            return KA_EOS;
    }
}

/* If descriptor 0, 1 or 2 is closed, a socket would get that number, and what is printed would go
   to its peer. So /dev/null is opened in their places, for reading only: printing still fails. */
int ka_network_start(void)
{
    int fd;
    do fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= 2);
    if (fd > 2) close(fd);
    return KA_OK;
}

static void ka__sock_close(ka__sock s) { close(KA__FD(s)); }
static void ka__sock_end(ka__sock s) { shutdown(KA__FD(s), SHUT_WR); }
static void ka__sock_fail_fast(ka__sock s) { (void)s; }

static size_t ka__sock_waiting(ka__sock s)
{
    int n = 0;
    return ioctl(KA__FD(s), FIONREAD, &n) == 0 ? (size_t)n : 0;
}

static int ka__sock_wait(ka__sock s, int want, int ms)
{
    struct pollfd p = { KA__FD(s), want == KA__IN ? POLLIN : POLLOUT, 0 };
    int n = poll(&p, 1, ms);
    if (n < 0) return ka__error_of(ka__os_code());
    return n > 0 ? KA_OK : KA_ETIME;
}

#  if defined(__linux__)
#define KA__SEND_FLAGS MSG_NOSIGNAL
#  else
#define KA__SEND_FLAGS 0

static int ka__sock_prepare(ka__sock s)
{
    int on = 1, flags = fcntl(KA__FD(s), F_GETFL);
    if (flags < 0 || fcntl(KA__FD(s), F_SETFL, flags | O_NONBLOCK) < 0) return KA_EOS;
    if (fcntl(KA__FD(s), F_SETFD, FD_CLOEXEC) < 0) return KA_EOS;
    return setsockopt(KA__FD(s), SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on) == 0 ? KA_OK : KA_EOS;
}
#  endif
#endif

static int ka__sock_error(void) { return ka__error_of(ka__os_code()); }

/* An address and its port, as the system's calls take it. */
typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage room;
#if !defined(_WIN32)
        struct sockaddr_un un;
#endif
    };
    socklen_t n;
} ka__address;

/* type: SOCK_STREAM or SOCK_DGRAM. */
static int ka__sock_new(const ka__address *a, int type, ka__sock *out)
{
    const int family = a->any.sa_family;
#if defined(__linux__)
    *out = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return *out >= 0 ? KA_OK : ka__sock_error();
#else
#  if defined(_WIN32)
    const DWORD flags = WSA_FLAG_OVERLAPPED | 0x80;      /* WSA_FLAG_NO_HANDLE_INHERIT */
    *out = (ka__sock)WSASocketW(family, type, 0, NULL, 0, flags);
#  else
    *out = socket(family, type, 0);
#  endif
    if (*out == -1) return ka__sock_error();
    int r = ka__sock_prepare(*out);
    if (r < 0) ka__sock_close(*out);
    return r;
#endif
}

static void ka__sock_no_delay(ka__sock s)
{
    int on = 1;
    setsockopt(KA__FD(s), IPPROTO_TCP, TCP_NODELAY, (const char *)&on, sizeof on);
}

/* The first bytes of an IPv4 address among those of IPv6 (RFC 4291 s.2.5.5.2). */
static const unsigned char ka__mapped[12] = { [10] = 0xFF, [11] = 0xFF };

static bool ka__is_four(const ka_end *e)
{
    return memcmp(e->ip, ka__mapped, sizeof ka__mapped) == 0;
}

static ka_end ka__end_of(const ka__address *a)
{
    ka_end e = { .local = a->any.sa_family == AF_UNIX };
    if (a->any.sa_family == AF_INET) {
        memcpy(e.ip, ka__mapped, sizeof ka__mapped);
        memcpy(e.ip + sizeof ka__mapped, &a->v4.sin_addr, 4);
        e.port = ntohs(a->v4.sin_port);
    } else if (a->any.sa_family == AF_INET6) {
        memcpy(e.ip, &a->v6.sin6_addr, sizeof e.ip);
        e.zone = a->v6.sin6_scope_id;
        e.port = ntohs(a->v6.sin6_port);
    }
    return e;
}

/* ---- Unix sockets. Those of Windows do not tell who their peer is: there are none there. ---- */

#if defined(_WIN32)
static uint32_t ka__sock_pid(ka__sock s, bool mine) { return (void)s, (void)mine, 0; }
static uint64_t ka__sock_file(ka__sock s, uint64_t remove) { return (void)s, (void)remove, 0; }

static bool ka__address_path(ka__address *a, const char *path, size_t n)
{
    return (void)a, (void)path, (void)n, false;
}

static int ka__sock_bind_path(ka__sock s, const ka__address *a)
{
    return (void)s, (void)a, KA_EFAMILY;
}

static ka__sock ka__path_lock(const ka__address *a) { return (void)a, -1; }
static int ka__sock_handed(const char *ip, ka__sock *out) { return (void)ip, (void)out, KA_EINVAL; }
#else
/* The process that has made the other end of a connection, or this process; 0: unknown. */
static uint32_t ka__sock_pid(ka__sock s, bool mine)
{
    if (mine) return (uint32_t)getpid();
#  if defined(__linux__)
    struct ucred owner = { .pid = 0 };
    socklen_t n = sizeof owner;
    getsockopt(KA__FD(s), SOL_SOCKET, SO_PEERCRED, &owner, &n);
    return (uint32_t)owner.pid;
#  else
    pid_t pid = 0;
    socklen_t n = sizeof pid;
    getsockopt(KA__FD(s), SOL_LOCAL, LOCAL_PEERPID, &pid, &n);
    return (uint32_t)pid;
#  endif
}

static bool ka__address_path(ka__address *a, const char *path, size_t n)
{
    if (n == 0 || n >= sizeof a->un.sun_path) return false;
    a->un.sun_family = AF_UNIX;
    memcpy(a->un.sun_path, path, n);
    a->n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    return true;
}

/* Lock the folder of a path: two servers that begin at once must not both take the place of a dead
   one. Another lock is waited for, a second at most. A descriptor, or -1. */
static ka__sock ka__path_lock(const ka__address *a)
{
    char folder[sizeof a->un.sun_path];
    memcpy(folder, a->un.sun_path, sizeof folder);
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_CLOEXEC);
    for (int i = 0; fd >= 0 && i < 100 && flock(fd, LOCK_EX | LOCK_NB) != 0; i++) ka_sleep_ms(10);
    return fd;
}

/* Bind to a path. A socket of a server that has ended, where nobody listens, makes way. Nobody can
   connect yet while others may still open it: there is no listen(2) before the chmod(2). */
static int ka__sock_bind_path(ka__sock s, const ka__address *a)
{
    const char *path = a->un.sun_path;
    struct stat st;
    ka__sock knock;
    int r = bind(KA__FD(s), &a->any, a->n) == 0 ? KA_OK : ka__sock_error();
    if (r == KA_EINUSE && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
        ka__sock_new(a, SOCK_STREAM, &knock) == KA_OK) {
        bool dead = connect(KA__FD(knock), &a->any, a->n) != 0 && errno == ECONNREFUSED;
        ka__sock_close(knock);
        if (dead && unlink(path) == 0 && bind(KA__FD(s), &a->any, a->n) == 0) r = KA_OK;
    }
    if (r == KA_EOFFLINE) return KA_ENOTFOUND;      /* there is no such folder */
    return r == KA_OK && chmod(path, 0660) != 0 ? ka__sock_error() : r;
}

/* The inode of a listener's path; 0: it has none. If it is `remove`, the path is removed. */
static uint64_t ka__sock_file(ka__sock s, uint64_t remove)
{
    ka__address a = { .n = sizeof a.room };
    struct stat st;
    if (getsockname(KA__FD(s), &a.any, &a.n) != 0 || a.any.sa_family != AF_UNIX) return 0;
    if (lstat(a.un.sun_path, &st) != 0) return 0;
    if (st.st_ino == remove) unlink(a.un.sun_path);
    return st.st_ino;
}

/* The socket of fd:N. KA_EINVAL: it is none, or does not listen. */
static int ka__sock_handed(const char *ip, ka__sock *out)
{
    char end;
    int fd, flags, listens = 0;
    socklen_t n = sizeof listens;
    if (sscanf(ip, "fd:%d%c", &fd, &end) != 1) return KA_EINVAL;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) != 0 || !listens) return KA_EINVAL;
    flags = fcntl(fd, F_GETFL, 0);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return KA_EOS;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return KA_EOS;
    *out = fd;
    return KA_OK;
}
#endif

static bool ka__is_handed(const char *ip) { return strncmp(ip, "fd:", 3) == 0; }

/* Accept a connection.
     from       its other end; NULL: not wanted
     returns    KA_OK; KA_EAGAIN: none waits; KA_EOFFLINE: one was there, and has gone; others */
static int ka__sock_accept(ka__sock listener, ka__sock *out, ka_end *from)
{
    ka__address a = { .n = sizeof a.room };
#if defined(__linux__)
    int fd = accept4(KA__FD(listener), &a.any, &a.n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    *out = fd;
    if (fd < 0) return ka__sock_error();
#else
    *out = (ka__sock)accept(KA__FD(listener), &a.any, &a.n);
    if (*out == -1) return ka__sock_error();
    if (ka__sock_prepare(*out) < 0) {
        ka__sock_close(*out);      /* macOS sets no option on a connection that was reset */
        return KA_EOFFLINE;
    }
#endif
    if (from) *from = ka__end_of(&a);
    if (from && from->local) from->zone = ka__sock_pid(*out, false);
    return KA_OK;
}

/* Close s after a call that failed. Returns the error of that call, and keeps its ka__os_code(). */
static int ka__sock_fail(ka__sock s)
{
    int r = ka__sock_error(), code = ka__os_code();
    ka__sock_close(s);
    ka__os_code_set(code);
    return r;
}

/* The number of an interface, by its name or number; 0: there is none. */
static uint32_t ka__zone(const char *name)
{
    char *end;
    unsigned long long n = strtoull(name, &end, 10);
    if (*name >= '0' && *name <= '9' && *end == 0) return n <= UINT32_MAX ? (uint32_t)n : 0;
#if defined(_WIN32)
    return 0;
#else
    return if_nametoindex(name);
#endif
}

bool ka_next_ip(const char **ips, char ip[KA_IP_TEXT + 1])
{
    size_t n = strcspn(*ips, ",");
    if (n == 0 || n > KA_IP_TEXT) return false;
    memcpy(ip, *ips, n);
    ip[n] = 0;
    *ips += n + ((*ips)[n] == ',');
    return true;
}

/* Write an IP as text, and a NUL. Returns its length. */
static size_t ka__ip_text(char out[KA_IP_TEXT + 1], const ka_end *e)
{
    bool four = ka__is_four(e);
    inet_ntop(four ? AF_INET : AF_INET6, e->ip + (four ? sizeof ka__mapped : 0), out, KA_IP_TEXT);
    size_t n = strlen(out);
    if (e->zone) n += (size_t)snprintf(out + n, KA_IP_TEXT - n, "%%%lu", (unsigned long)e->zone);
    return n;
}

/* False if these are no address and port. A link-local address needs its interface. */
static bool ka__address_read(ka__address *a, const char *ip, int port)
{
    char text[KA_IP_TEXT + 1], *zone;
    size_t n = strlen(ip);
    memset(a, 0, sizeof *a);
    if (n >= sizeof text || port < 0 || port > 65535) return false;
    if (strncmp(ip, "unix:", 5) == 0) return ka__address_path(a, ip + 5, n - 5);
    memcpy(text, ip, n + 1);
    a->v4.sin_family = AF_INET;
    a->v4.sin_port = htons((uint16_t)port);
    a->n = sizeof a->v4;
    if (inet_pton(AF_INET, text, &a->v4.sin_addr) == 1) return true;
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons((uint16_t)port);
    a->n = sizeof a->v6;
    if ((zone = strchr(text, '%')) != NULL) *zone++ = 0;
    if (inet_pton(AF_INET6, text, &a->v6.sin6_addr) != 1) return false;
    if (zone) a->v6.sin6_scope_id = ka__zone(zone);
    const ka_end e = ka__end_of(a);
    if (ka__is_four(&e)) {
        inet_ntop(AF_INET, e.ip + sizeof ka__mapped, text, sizeof text);
        return !zone && ka__address_read(a, text, port);
    }
    bool link_local = e.ip[0] == 0xFE && e.ip[1] >> 6 == 2;
    return (zone || link_local) == (e.zone > 0);
}

/* Are the n bytes at p an IPv6 address? One with a zone is none to HTTP: RFC 6874 s.4 keeps zones
   out of it, because a zone has a meaning on one machine only. */
static bool ka__is_ipv6(const char *p, size_t n)
{
    struct in6_addr ip;
    char text[INET6_ADDRSTRLEN];
    if (n >= sizeof text) return false;
    memcpy(text, p, n);
    text[n] = 0;
    if (inet_pton(AF_INET6, text, &ip) != 1) return false;
    /* Windows takes leading zeros in an IPv4 address at its end. */
    const char *four = strrchr(text, ':') + 1;
    char plain[INET_ADDRSTRLEN];
    if (!strchr(four, '.')) return true;
    return inet_ntop(AF_INET, ip.s6_addr + 12, plain, sizeof plain) && strcmp(plain, four) == 0;
}

/* Is this 0.0.0.0 or ::, which mean all addresses of this machine? */
static bool ka__ip_any(ka_end e)
{
    static const unsigned char any[16];
    const size_t at = ka__is_four(&e) ? sizeof ka__mapped : 0;
    return memcmp(e.ip + at, any, sizeof e.ip - at) == 0;
}

/* Can others connect to this IP? They can't to a multicast address (RFC 5771, RFC 4291 s.2.7), to
   the broadcast to all, and to 0.0.0.0 and :: (RFC 1122 s.3.2.1.3, RFC 4291 s.2.5.2). */
static bool ka__ip_of_one(ka_end e)
{
    static const unsigned char all[4] = { 255, 255, 255, 255 };
    const unsigned char *four = e.ip + sizeof ka__mapped;
    if (ka__ip_any(e)) return false;
    if (!ka__is_four(&e)) return e.ip[0] != 0xFF;
    return four[0] >> 4 != 14 && memcmp(four, all, sizeof all) != 0;
}

static bool ka__is_target(ka_end e) { return e.local || (e.port && ka__ip_of_one(e)); }

/* Is this the broadcast address of a network of this machine? Linux listens there, in vain. To
   connect a UDP socket tells: nothing is sent for that, and it is forbidden for such an address. */
static bool ka__address_of_all(const ka__address *a)
{
    ka__sock s;
    if (ka__sock_new(a, SOCK_DGRAM, &s) < 0) return false;
    int r = connect(KA__FD(s), &a->any, a->n);
    bool forbidden = r != 0 && ka__sock_error() == KA_EPERM;
    ka__sock_close(s);
    return forbidden;
}

/* Descriptors that must be free before a server listens: for a newcomer, Redis, and two files. */
enum { KA__SPARE = 4 };

/* Can connections be accepted here? It needs descriptors, and a sandbox may forbid it. accept(2) of
   a socket that does not listen yet tells: it fails with EINVAL if nothing else is wrong.
     returns    KA_OK, KA_ELIMIT, KA_EPERM */
static int ka__sock_can_accept(ka__sock s, const ka__address *a)
{
    ka__sock spare[KA__SPARE], none;
    ka_end from;
    int n = 0, r = KA_OK;
    while (r == KA_OK && n < KA__SPARE) {
        r = ka__sock_new(a, SOCK_STREAM, &spare[n]);
        if (r == KA_OK) n++;
    }
    if (r == KA_OK) r = ka__sock_accept(s, &none, &from);
    int code = ka__os_code();
    while (n > 0) ka__sock_close(spare[--n]);
    ka__os_code_set(code);
    return r == KA_ELIMIT || r == KA_EPERM ? r : KA_OK;
}

/* Bind to an IP and port. POSIX needs SO_REUSEADDR: else the connections of a server that has just
   ended hold the port. On Windows that option would let any program steal the port, and another one
   forbids that. The socket of :: takes no IPv4, so that it is the same on all systems, and 0.0.0.0
   can have the same port. */
static int ka__sock_bind(ka__sock s, const ka__address *a)
{
    const ka_end e = ka__end_of(a);
    int on = 1;
#if defined(_WIN32)
    int option = SO_EXCLUSIVEADDRUSE;
#else
    int option = SO_REUSEADDR;
#endif
    if (!ka__ip_any(e) && (!ka__ip_of_one(e) || ka__address_of_all(a))) return KA_EADDR;
    int r = setsockopt(KA__FD(s), SOL_SOCKET, option, (const char *)&on, sizeof on);
    if (r == 0 && a->any.sa_family == AF_INET6)
        r = setsockopt(KA__FD(s), IPPROTO_IPV6, IPV6_V6ONLY, (const char *)&on, sizeof on);
    if (r == 0) r = bind(KA__FD(s), &a->any, a->n);
    return r == 0 ? KA_OK : ka__sock_error();
}

/* Have a new socket listen, which one that was handed over does already; *bound is what it got. */
static int ka__sock_listen(ka__sock s, const char *ip, int port, ka_end *bound)
{
    ka__address a = { .n = sizeof a.room };
    const bool handed = ka__is_handed(ip);
    int r = KA_OK;
    if (!handed && !ka__address_read(&a, ip, port)) return KA_EINVAL;
    *bound = ka__end_of(&a);
    const ka__sock lock = !handed && bound->local ? ka__path_lock(&a) : -1;
    if (!handed) r = bound->local ? ka__sock_bind_path(s, &a) : ka__sock_bind(s, &a);
    if (!handed && r == KA_OK) r = ka__sock_can_accept(s, &a);
    if (!handed && r == KA_OK && listen(KA__FD(s), KA_BACKLOG) != 0) r = ka__sock_error();
    const int code = ka__os_code();
    if (lock != -1) ka__sock_close(lock);
    ka__os_code_set(code);
    if (r < 0) return r;
    if (getsockname(KA__FD(s), &a.any, &a.n) != 0) return ka__sock_error();
    /* Accepted sockets inherit this option on Linux, macOS and Windows. Wine 8 tells the owner of a
       listening socket only after an option was set. */
    ka__sock_no_delay(s);
    *bound = ka__end_of(&a);
    return KA_OK;
}

/* Connect a new socket to ip:port.
     from       the address of this end; NULL: the system chooses it
     returns    KA_OK: it is connected; KA_EAGAIN: under way: wait for KA__OUT and ask
                ka__sock_connected; or an error, and *out is closed */
static int ka__sock_connect(const char *from, const char *ip, int port, ka__sock *out)
{
    ka__address a, mine;
    if (!ka__address_read(&a, ip, port)) return KA_EINVAL;
    if (from && !ka__address_read(&mine, from, 0)) return KA_EINVAL;
    int r = ka__sock_new(&a, SOCK_STREAM, out);
    if (r < 0) return r;
    ka__sock_no_delay(*out);
    ka__sock_fail_fast(*out);
#if defined(IP_BIND_ADDRESS_NO_PORT)
    int on = 1;      /* the port is chosen when the peer is known, and may be in use with others */
    if (from) setsockopt(KA__FD(*out), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
#endif
    if (from && bind(KA__FD(*out), &mine.any, mine.n) != 0) return ka__sock_fail(*out);
    if (connect(KA__FD(*out), &a.any, a.n) == 0) return KA_OK;
    return ka__sock_error() == KA_EAGAIN ? KA_EAGAIN : ka__sock_fail(*out);
}

/* Has ka__sock_connect's socket been connected? KA_OK or an error. A socket that knocks at a port
   of the ephemeral range may be connected to itself (RFC 9293 s.3.5): no server is there. */
static int ka__sock_connected(ka__sock s)
{
    ka__address mine = { .n = sizeof mine.room }, theirs = mine;
    int code = 0;
    socklen_t size = sizeof code;
    if (getsockopt(KA__FD(s), SOL_SOCKET, SO_ERROR, (char *)&code, &size) != 0)
        return ka__sock_error();
    if (code) {
        ka__os_code_set(code);
        return ka__error_of(code);
    }
    if (getsockname(KA__FD(s), &mine.any, &mine.n) != 0 ||
        getpeername(KA__FD(s), &theirs.any, &theirs.n) != 0)
        return ka__sock_error();
    ka_end a = ka__end_of(&mine), b = ka__end_of(&theirs);
    bool same = a.port == b.port && memcmp(a.ip, b.ip, sizeof a.ip) == 0;
    return same && !a.local ? KA_EOFFLINE : KA_OK;
}

/* This end of a connection or of a listener; all 0 if it is unknown. */
static ka_end ka__sock_mine(ka__sock s)
{
    ka__address a = { .n = sizeof a.room };
    if (getsockname(KA__FD(s), &a.any, &a.n) != 0) memset(&a, 0, sizeof a);
    ka_end e = ka__end_of(&a);
    if (e.local) e.zone = ka__sock_pid(s, true);
    return e;
}

/* The other end of a connection; all 0 if it is unknown, or has gone. */
static ka_end ka__sock_peer(ka__sock s)
{
    ka__address a = { .n = sizeof a.room };
    if (getpeername(KA__FD(s), &a.any, &a.n) != 0) memset(&a, 0, sizeof a);
    ka_end e = ka__end_of(&a);
    if (e.local) e.zone = ka__sock_pid(s, false);
    return e;
}

/* The number of a socket's network namespace, or 0. Within a namespace no two connections have the
   same ends. */
static uint64_t ka__sock_network(ka__sock s)
{
    uint64_t cookie = 0;
#if defined(__linux__)
    const int option = 71;      /* SO_NETNS_COOKIE, Linux 5.14 */
    socklen_t size = sizeof cookie;
    if (getsockopt(KA__FD(s), SOL_SOCKET, option, &cookie, &size) != 0) cookie = 0;
#else
    (void)s;
#endif
    return cookie;
}

/* On Linux these are not the libc's recv and send. In a process with threads, those of glibc mark a
   cancellation point by two locked instructions each, which is some 3 % of a request. Under a
   sanitizer they are the libc's, which it watches. */
#if defined(__linux__) && !defined(KA__ASAN) && !defined(KA__TSAN)
#define KA__RECV(s, p, n) syscall(SYS_recvfrom, KA__FD(s), p, n, 0, NULL, NULL)
#define KA__SEND(s, p, n) syscall(SYS_sendto, KA__FD(s), p, n, MSG_NOSIGNAL, NULL, 0)
#else
#define KA__RECV(s, p, n) recv(KA__FD(s), p, (ka__len)(n), 0)
#define KA__SEND(s, p, n) send(KA__FD(s), p, (ka__len)(n), KA__SEND_FLAGS)
#endif

/* Returns the bytes that were received; 0: the peer sends no more; or an error. */
static ptrdiff_t ka__sock_recv(ka__sock s, char *out, size_t n)
{
    ptrdiff_t got = KA__RECV(s, out, n);
    return got >= 0 ? got : ka__sock_error();
}

static ptrdiff_t ka__sock_send(ka__sock s, const char *p, size_t n)
{
    ptrdiff_t sent = KA__SEND(s, p, n);
    return sent >= 0 ? sent : ka__sock_error();
}

/* ---- poller: waits for many sockets at a time, and for ka__poller_wake of any thread ----

   A socket is known by its token, a small number. ka__poller_set changes what the socket is watched
   for from `had` to `want`. ka__poller_wait tells the tokens of sockets that something can be done
   with, or that have failed. There are two pollers: epoll on Linux, and poll on all other systems.
   -DKA_POLL has Linux use poll, too: so the tests on Linux run what macOS and Windows run. */

#if defined(__linux__) && !defined(KA_POLL)
typedef struct { int epoll, wake; } ka__poller;

static int ka__poller_init(ka__poller *p)
{
    /* Edge-triggered: the counter of the eventfd never has to be read back to zero. */
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = KA__NO_TOKEN };
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    bool made = p->epoll >= 0 && p->wake >= 0;
    if (made && epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->wake, &ev) == 0) return KA_OK;
    int r = ka__sock_error();
    if (p->epoll >= 0) close(p->epoll);
    if (p->wake >= 0) close(p->wake);
    return r;
}

static void ka__poller_free(ka__poller *p)
{
    close(p->wake);
    close(p->epoll);
}

static int ka__poller_set(ka__poller *p, ka__sock s, uint32_t token, int had, int want)
{
    struct epoll_event ev = { .events = 0, .data.u64 = token };
    int op = EPOLL_CTL_MOD;
    if (had == KA__UNWATCHED) op = EPOLL_CTL_ADD;
    else if (want == KA__UNWATCHED) op = EPOLL_CTL_DEL;
    if (want & KA__IN) ev.events |= EPOLLIN;
    if (want & KA__OUT) ev.events |= EPOLLOUT;
    if (want & KA__SHARED) ev.events |= EPOLLEXCLUSIVE;    /* a newcomer wakes one worker only */
    return epoll_ctl(p->epoll, op, KA__FD(s), &ev) == 0 ? KA_OK : ka__sock_error();
}

static int ka__poller_wait(ka__poller *p, uint32_t *tokens, int max, int ms)
{
    struct epoll_event ev[KA__EVENTS];
    int n = epoll_wait(p->epoll, ev, max < KA__EVENTS ? max : KA__EVENTS, ms), out = 0;
    for (int i = 0; i < n; i++)
        if (ev[i].data.u64 != KA__NO_TOKEN) tokens[out++] = (uint32_t)ev[i].data.u64;
    return out;
}

static void ka__poller_wake(ka__poller *p)
{
    uint64_t one = 1;
    if (write(p->wake, &one, sizeof one) < 0) {}   /* only EAGAIN: many wake-ups are under way */
}

#else
#  if defined(_WIN32)
typedef WSAPOLLFD ka__pollfd;
static int ka__poll(ka__pollfd *fds, uint32_t n, int ms) { return WSAPoll(fds, n, ms); }
#  else
typedef struct pollfd ka__pollfd;
static int ka__poll(ka__pollfd *fds, uint32_t n, int ms) { return poll(fds, n, ms); }
#  endif

/* fds[0] is the waker: a datagram socket that is connected to itself, and so readable when it was
   written to. place[token] is a socket's index in fds and in tokens. */
typedef struct {
    ka__pollfd *fds;
    uint32_t   *tokens, *place;
    uint32_t    n, capacity, places;
    uint32_t    turn;      /* where the next ka__poller_wait begins to look */
    ka__sock    wake;      /* as fds[0].fd, which other threads can't read: fds moves as it grows */
} ka__poller;

static int ka__poller_grow(ka__poller *p, uint32_t token)
{
    if (p->n == p->capacity) {
        uint32_t capacity = p->capacity ? p->capacity * 2 : 64;
        void *fds = ka__resize(p->fds, capacity, sizeof *p->fds);
        if (fds) p->fds = fds;
        void *tokens = ka__resize(p->tokens, capacity, sizeof *p->tokens);
        if (tokens) p->tokens = tokens;
        if (!fds || !tokens) return KA_ENOMEM;
        p->capacity = capacity;
    }
    if (token != KA__NO_TOKEN && token >= p->places) {
        uint32_t places = token < 32 ? 64 : token * 2;
        void *place = ka__resize(p->place, places, sizeof *p->place);
        if (!place) return KA_ENOMEM;
        p->place = place;
        p->places = places;
    }
    return KA_OK;
}

static int ka__poller_add(ka__poller *p, ka__sock s, uint32_t token)
{
    int r = ka__poller_grow(p, token);
    if (r < 0) return r;
    p->fds[p->n] = (ka__pollfd){ .fd = KA__FD(s), .events = POLLRDNORM };
    p->tokens[p->n] = token;
    if (token != KA__NO_TOKEN) p->place[token] = p->n;
    p->n++;
    return KA_OK;
}

static void ka__poller_free(ka__poller *p)
{
    ka__sock_close(p->wake);
    ka__free(p->fds);
    ka__free(p->tokens);
    ka__free(p->place);
}

static int ka__poller_init(ka__poller *p)
{
    ka__address a;
    memset(p, 0, sizeof *p);
    ka__address_read(&a, "127.0.0.1", 0);
    int r = ka__sock_new(&a, SOCK_DGRAM, &p->wake);
    if (r < 0) return r;
    if (bind(KA__FD(p->wake), &a.any, a.n) != 0 ||
        getsockname(KA__FD(p->wake), &a.any, &a.n) != 0 ||
        connect(KA__FD(p->wake), &a.any, a.n) != 0) {
        ka__sock_fail(p->wake);
        return KA_EOS;
    }
    r = ka__poller_add(p, p->wake, KA__NO_TOKEN);
    if (r < 0) ka__poller_free(p);
    return r;
}

/* A socket that is watched for nothing is left out of fds. poll would tell of its peer's end. */
static int ka__poller_set(ka__poller *p, ka__sock s, uint32_t token, int had, int want)
{
    if (had <= 0 && want <= 0) return KA_OK;
    if (had <= 0) {
        int r = ka__poller_add(p, s, token);
        if (r < 0) return r;
    }
    uint32_t at = p->place[token];
    if (want <= 0) {
        p->n--;
        p->fds[at] = p->fds[p->n];
        p->tokens[at] = p->tokens[p->n];
        p->place[p->tokens[at]] = at;
        return KA_OK;
    }
    p->fds[at].events = 0;
    if (want & KA__IN) p->fds[at].events |= POLLRDNORM;
    if (want & KA__OUT) p->fds[at].events |= POLLWRNORM;
    p->fds[at].revents = 0;
    return KA_OK;
}

/* Begins at another socket each time: none is left out for ever when max is small. */
static int ka__poller_wait(ka__poller *p, uint32_t *tokens, int max, int ms)
{
    int n = ka__poll(p->fds, p->n, ms), out = 0;
    if (n <= 0) return 0;
    if (p->fds[0].revents) {
        char junk[64];
        while (recv(KA__FD(p->wake), junk, sizeof junk, 0) > 0) {}
    }
    for (uint32_t i = 0; i < p->n && out < max; i++) {
        uint32_t at = (p->turn + i) % p->n;
        if (at != 0 && p->fds[at].revents) tokens[out++] = p->tokens[at];
    }
    p->turn++;
    return out;
}

static void ka__poller_wake(ka__poller *p)
{
    /* If it is full, wake-ups are under way. But Wine 8, beside other work, says for a moment that
       it is full although there is room: the wake-up would be lost. */
    enum { TRIES = 20 };      /* of a millisecond at most */
    for (int tries = 0; tries < TRIES && send(KA__FD(p->wake), "", 1, KA__SEND_FLAGS) < 0; tries++)
        ka__sock_wait(p->wake, KA__OUT, 1);
}
#endif

/* ---- sleeper: a thread that waits for sockets, or for other threads, or for both ----

   To sleep, the thread stores 1 in asleep, looks once more for work, and waits on its poller. The
   thread that turns the 1 into 0 wakes the sleeper.

   Four operations are sequentially consistent: the sleeper's store of the 1 and its look for work,
   and the waker's store of the work and its look at asleep. So one of the two sees what the other
   has stored. The others may be relaxed: no data is handed over by asleep, and an exchange reads
   the last value in any order. */

typedef struct { _Atomic(uint32_t) asleep; ka__poller poller; } ka__sleeper;

/* Any thread, and signal handlers. */
static void ka__wake(ka__sleeper *z)
{
    if (atomic_load(&z->asleep) && atomic_exchange_explicit(&z->asleep, 0, memory_order_relaxed))
        ka__poller_wake(&z->poller);
}

static void ka__awake(ka__sleeper *z)
{
    atomic_store_explicit(&z->asleep, 0, memory_order_relaxed);
}

/* ---- descriptors: on Linux a worker has a table of its own (unshare(2), CLONE_FILES) ----

   So the descriptor limit counts for each worker, and a system call finds its descriptor without a
   locked instruction. What the parent opened stays in the process's main table, where ss, lsof and
   fuser look. */

/* Not under TSan, which takes equal numbers for the same descriptor. */
#if defined(__linux__) && !defined(KA__TSAN) && !defined(KA_POLL)
/* A descriptor of the main table, in this thread's table; -1 if that can't be had. */
static int ka__fd_take(int fd)
{
    int process = (int)syscall(SYS_pidfd_open, getpid(), 0);      /* Linux 5.3; the next call 5.6 */
    int taken = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, fd, 0), code = errno;
    if (process >= 0) close(process);
    errno = code;      /* it is told where taken is -1 */
    return taken;
}

/* Can a thread have a table of its own, and take descriptors of the main one, as this one that it
   has? Not in a sandbox, which may kill for such calls. */
static bool ka__table_can(int fd)
{
    if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0) return false;
    const int descriptors = 2;      /* KCMP_FILES */
    if (syscall(SYS_kcmp, getpid(), syscall(SYS_gettid), descriptors, 0, 0) != 0) return false;
    int probe = ka__fd_take(fd);
    if (probe < 0) return false;
    close(probe);
    return syscall(SYS_close_range, ~0u, ~0u, 0) == 0;      /* Linux 5.9; nothing has that number */
}

/* Give this thread a table of its own, with nothing in it but what the pollers need, under the same
   numbers, and stderr for a failed assertion. 1: done; 0: it goes on sharing the main one, where
   the system can't do it; KA_EOS: the thread is of no use any more. Signals go to other threads
   from now on, since their handlers may want descriptors that aren't here; but not a fault of this
   thread's own. */
static int ka__table_own(const ka__poller *mine, const ka__poller *parents)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
    const int keep[] = { mine->epoll, mine->wake, parents->wake };
    sigset_t most;
    if (!ka__table_can(mine->epoll)) return 0;
    if (syscall(SYS_close_range, 3, ~0u, 2 /* CLOSE_RANGE_UNSHARE */) != 0) return 0;
    for (int i = 0; i < 3; i++) {
        int taken = ka__fd_take(keep[i]);
        if (taken == keep[i]) continue;
        /* The kernel may be out of memory. */
        if (taken < 0 || dup3(taken, keep[i], O_CLOEXEC) < 0) return KA_EOS;
        close(taken);
    }
    close(0);      /* who waits for the end of a pipe shall not wait for this thread */
    close(1);
    ka_network_start();
    sigfillset(&most);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&most, faults[i]);
    pthread_sigmask(SIG_BLOCK, &most, NULL);
    return 1;
}
#else
#  define ka__fd_take(fd) (fd)
#  define ka__table_can(fd) false
#  define ka__table_own(mine, parents) ((void)(mine), (void)(parents), 0)
#endif

bool ka_own_descriptors(void)
{
    ka_network_start();      /* 2 is open then */
    return ka__table_can(2);
}

/* ================================================================================================
   2 bytes

   Nothing here allocates or fails for reasons of its own. */

const char *ka_error_text(int error)
{
    switch (error) {
#define KA__TEXT(name, value, text) case name: return text;
    KA_ERRORS(KA__TEXT)
#undef KA__TEXT
    default: return error >= 0 ? "success" : "unknown error";
    }
}

/* A text as a ka_str; NULL becomes {NULL, 0}. */
static ka_str ka__text(const char *text)
{
    return (ka_str){ text, text ? strlen(text) : 0 };
}

bool ka_is(ka_str s, const char *text)
{
    return s.n == strlen(text) && (s.n == 0 || memcmp(s.p, text, s.n) == 0);
}

static char ka__lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

/* As ka_is, but the case of letters does not count. */
static bool ka__is_nocase(ka_str s, const char *text)
{
    size_t i = 0;
    while (i < s.n && text[i] && ka__lower(s.p[i]) == ka__lower(text[i])) i++;
    return i == s.n && text[i] == 0;
}

/* A compiler may leave out a plain memset before a free or a return. It can't leave out this one,
   since it may not know where a volatile pointer leads. */
static void *(*const volatile ka__memset)(void *, int, size_t) = memset;

void ka_wipe(void *p, size_t n)
{
    if (n) ka__memset(p, 0, n);
}

/* Wipe n bytes, which may hold a key, and free them. */
static void ka__free_wiped(void *p, size_t n)
{
    if (p) ka_wipe(p, n);
    ka__free(p);
}

bool ka_eq_ct(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    unsigned char differ = 0;
    for (size_t i = 0; i < n; i++) differ |= (unsigned char)(x[i] ^ y[i]);
    return differ == 0;
}

/* The value of a hex digit, or -1. */
static int ka__hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = ka__lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char ka__b64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

ptrdiff_t ka_b64_encode(char *out, size_t cap, const void *in, size_t n)
{
    const unsigned char *p = in;
    char *o = out;
    if (n > PTRDIFF_MAX / 2 || cap < KA_B64_ENCODED(n)) return KA_ENOSPC;
    for (; n >= 3; n -= 3, p += 3) {
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        *o++ = ka__b64_digits[v >> 18];
        *o++ = ka__b64_digits[v >> 12 & 63];
        *o++ = ka__b64_digits[v >> 6 & 63];
        *o++ = ka__b64_digits[v & 63];
    }
    if (n > 0) {
        uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0);
        *o++ = ka__b64_digits[v >> 18];
        *o++ = ka__b64_digits[v >> 12 & 63];
        *o++ = n > 1 ? ka__b64_digits[v >> 6 & 63] : '=';
        *o++ = '=';
    }
    return o - out;
}

/* The value of a base64 digit, or 64 for another character. This is a table because the digits of a
   key are random: the processor would guess a branch on them wrong every other time. */
static unsigned ka__b64_value(char digit)
{
    static const unsigned char of[128] = {
        64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
        64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
        64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 62, 64, 64, 64, 63,
        52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 64, 64, 64, 64, 64, 64,
        64,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14,
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 64, 64, 64, 64, 64,
        64, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
        41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 64, 64, 64, 64, 64
    };
    unsigned char c = (unsigned char)digit;
    return c < 128 ? of[c] : 64;
}

ptrdiff_t ka_b64_decode(void *out, size_t cap, const char *in, size_t n)
{
    unsigned char *o = out;
    if (n % 4 != 0) return KA_ESYNTAX;
    if (n == 0) return 0;
    size_t pad = 0;
    if (in[n - 1] == '=') pad = in[n - 2] == '=' ? 2 : 1;
    size_t size = n / 4 * 3 - pad;
    uint32_t spare = (1u << 8 * pad) - 1;      /* the bits that the last digits have too many */
    if (size > cap) return KA_ENOSPC;
    for (size_t i = 0; i < n; i += 4) {
        size_t digits = i + 4 == n ? 4 - pad : 4;
        unsigned a = ka__b64_value(in[i]), b = ka__b64_value(in[i + 1]);
        unsigned c = digits > 2 ? ka__b64_value(in[i + 2]) : 0;
        unsigned d = digits > 3 ? ka__b64_value(in[i + 3]) : 0;
        uint32_t v = a << 18 | b << 12 | c << 6 | d;
        if ((a | b | c | d) & 64) return KA_ESYNTAX;
        if (digits < 4 && (v & spare)) return KA_ESYNTAX;      /* s.3.5 */
        *o++ = (unsigned char)(v >> 16);
        if (digits > 2) *o++ = (unsigned char)(v >> 8);
        if (digits > 3) *o++ = (unsigned char)v;
    }
    return (ptrdiff_t)size;
}

static void ka__put_be32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static uint32_t ka__get_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t ka__ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static const uint32_t ka__sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

/* Add one block of 64 bytes to the state h (FIPS 180-4 s.6.2.2), on any processor. */
static void ka__sha256_portable(uint32_t h[8], const unsigned char *p, const uint32_t k[64])
{
    uint32_t w[64], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], z = h[7];
    for (int i = 0; i < 16; i++, p += 4) w[i] = ka__get_be32(p);
    for (int i = 16; i < 64; i++) {
        uint32_t x = ka__ror(w[i - 15], 7) ^ ka__ror(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t y = ka__ror(w[i - 2], 17) ^ ka__ror(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + w[i - 7] + x + y;
    }
    for (int i = 0; i < 64; i++) {
        uint32_t x = ka__ror(e, 6) ^ ka__ror(e, 11) ^ ka__ror(e, 25);
        uint32_t y = ka__ror(a, 2) ^ ka__ror(a, 13) ^ ka__ror(a, 22);
        uint32_t t = z + x + ((e & f) ^ (~e & g)) + k[i] + w[i];
        uint32_t u = y + ((a & b) ^ (a & c) ^ (b & c));
        z = g; g = f; f = e; e = d + t;
        d = c; c = b; b = a; a = t + u;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += z;
    ka_wipe(w, sizeof w);      /* w holds the message, which may be a key */
}

static void ka__sha256_block(uint32_t h[8], const unsigned char *p)
{
    if (!ka__sha256_native(h, p, ka__sha256_k)) ka__sha256_portable(h, p, ka__sha256_k);
}

void ka_sha256(unsigned char digest[32], const void *in, size_t n)
{
    uint32_t h[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
    };
    const unsigned char *p = in;
    unsigned char last[128] = { 0 };
    size_t rest = n % 64, size = rest < 56 ? 64 : 128;
    for (size_t i = 0; i + 64 <= n; i += 64) ka__sha256_block(h, p + i);
    if (rest) memcpy(last, p + n - rest, rest);
    last[rest] = 0x80;
    ka__put_be32(last + size - 8, (uint32_t)((uint64_t)n >> 29));      /* the length, in bits */
    ka__put_be32(last + size - 4, (uint32_t)n << 3);
    for (size_t i = 0; i < size; i += 64) ka__sha256_block(h, last + i);
    for (int i = 0; i < 8; i++) ka__put_be32(digest + 4 * i, h[i]);
    ka_wipe(last, sizeof last);
}

/* A key, and its digest, from random bytes, which are wiped. */
static void ka__key_make(unsigned char raw[KA_KEY_BYTES], char key[KA_KEY_TEXT],
                         unsigned char digest[32])
{
    ka_sha256(digest, raw, KA_KEY_BYTES);
    ka_b64_encode(key, KA_KEY_TEXT, raw, KA_KEY_BYTES);
    ka_wipe(raw, KA_KEY_BYTES);
}

/* Make a fresh key, and its digest. KA_OK or KA_ERANDOM. */
static int ka__key_new(char key[KA_KEY_TEXT], unsigned char digest[32])
{
    unsigned char raw[KA_KEY_BYTES];
    int r = ka_random(raw, sizeof raw);
    if (r == KA_OK) ka__key_make(raw, key, digest);
    return r;
}

/* The digest of a key: SHA-256 of its KA_KEY_BYTES bytes. KA_OK or KA_ESYNTAX: it is no key. */
static int ka__key_digest(unsigned char digest[32], ka_str key)
{
    unsigned char raw[KA_KEY_BYTES];
    if (key.n != KA_KEY_TEXT) return KA_ESYNTAX;
    bool good = ka_b64_decode(raw, sizeof raw, key.p, key.n) == KA_KEY_BYTES;
    if (good) ka_sha256(digest, raw, sizeof raw);
    ka_wipe(raw, sizeof raw);
    return good ? KA_OK : KA_ESYNTAX;
}

int ka_fresh_id(char id[KA_KEY_TEXT + 1])
{
    unsigned char raw[KA_KEY_BYTES];
    int r = ka_random(raw, sizeof raw);
    if (r == KA_OK) ka_b64_encode(id, KA_KEY_TEXT, raw, sizeof raw);
    ka_wipe(raw, sizeof raw);
    id[KA_KEY_TEXT] = 0;
    return r;
}

void ka_hex_encode(char *out, const void *in, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *p = in;
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
}

/* Write v as n decimal digits. */
static void ka__put_digits(char *out, int n, int64_t v)
{
    for (int i = n - 1; i >= 0; i--, v /= 10) out[i] = (char)('0' + v % 10);
}

static int ka__month_days(int year, int month)
{
    static const char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

/* gmtime of Windows ends with the year 3000, and strftime heeds the locale: so neither is used. */
void ka_utc_text(char out[KA_UTC_TEXT + 1], int64_t wall_us)
{
    const int64_t day_us = 86400000000, last_us = 253402300799999999;      /* the end of 9999 */
    int64_t us = wall_us;
    if (us < 0) us = 0;
    if (us > last_us) us = last_us;
    int64_t days = us / day_us, s = us % day_us / 1000000;      /* since 1970, since midnight */
    int year = 1970, month = 1;
    while (days >= 337 + ka__month_days(year, 2)) days -= 337 + ka__month_days(year++, 2);
    while (days >= ka__month_days(year, month)) days -= ka__month_days(year, month++);
    memcpy(out, "yyyy-mm-ddThh:mm:ss.uuuuuuZ", KA_UTC_TEXT + 1);
    ka__put_digits(out, 4, year);
    ka__put_digits(out + 5, 2, month);
    ka__put_digits(out + 8, 2, days + 1);
    ka__put_digits(out + 11, 2, s / 3600);
    ka__put_digits(out + 14, 2, s / 60 % 60);
    ka__put_digits(out + 17, 2, s % 60);
    ka__put_digits(out + 20, 6, us % 1000000);
}

/* Write a number's decimal digits, 20 at most, so that the last one stands before `end`.
   Returns the first digit. */
static char *ka__decimal(uint64_t n, char *end)
{
    do *--end = (char)('0' + n % 10);
    while (n /= 10);
    return end;
}

enum { KA__ENDS_TEXT = 2 * (KA_END_TEXT + 1) + 20 + 11 };      /* two ends, two numbers, spaces */

const char *ka_end_text(char out[KA_END_TEXT + 1], ka_end e)
{
    char ip[KA_IP_TEXT + 1];
    ka__ip_text(ip, &e);
    if (e.local) snprintf(out, KA_END_TEXT + 1, "unix:%lu", (unsigned long)e.zone);
    else snprintf(out, KA_END_TEXT + 1, strchr(ip, ':') ? "[%s]:%d" : "%s:%d", ip, e.port);
    return out;
}

/* Write the value of Keyauth-Ends, see ka_auth, without a NUL. Returns its length. */
static size_t ka__ends_text(char out[KA__ENDS_TEXT + 1], ka_end client, ka_end server,
                            uint64_t network)
{
    char a[KA_END_TEXT + 1], b[KA_END_TEXT + 1];
    return (size_t)snprintf(out, KA__ENDS_TEXT + 1, "%s %s %llu", ka_end_text(a, client),
                            ka_end_text(b, server), (unsigned long long)network);
}

/* ================================================================================================
   3 text

   HTTP/1.1 by RFC 9110 and RFC 9112. What two parties on a path could read in two ways is refused:
   such bytes are how requests are smuggled. The reader goes from left to right and stops at the
   first wrong byte. So the outcome does not depend on how the bytes arrived. */

/* What a byte may be part of. */
enum {
    KA__TOKEN = 1,       /* a token (RFC 9110 s.5.6.2) */
    KA__TARGET = 2,      /* a request's target (RFC 3986 s.2), without a fragment */
    KA__VALUE = 4,       /* a field's value (RFC 9110 s.5.5) */
    KA__NAME = 8         /* a host's name (RFC 3986 s.3.2.2) */
};

static bool ka__in(int what, char byte)
{
    static const unsigned char of[256] = {
         0,  0,  0,  0,  0,  0,  0,  0,  0,  4,  0,  0,  0,  0,  0,  0,
         0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
         4, 15,  4,  5, 15, 15, 15, 15, 14, 14, 15, 15, 14, 15, 15,  6,
        15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6, 14,  4, 14,  4,  6,
         6, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
        15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  4,  6,  5, 15,
         5, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
        15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  4,  5,  4, 15,  0,
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4
    };
    return (of[(unsigned char)byte] & what) != 0;
}

/* A reader's place in a head. */
typedef struct { const char *p, *end; } ka__cursor;

/* Take the longest run of bytes of a kind. *whole is false if the run ends where the bytes end:
   more of the run may arrive. If *whole is true, the byte behind the run can be looked at. */
static ka_str ka__take(ka__cursor *c, int what, bool *whole)
{
    ka_str s = { c->p, 0 };
    while (c->p < c->end && ka__in(what, *c->p)) c->p++;
    s.n = (size_t)(c->p - s.p);
    *whole = c->p < c->end;
    return s;
}

/* Take exactly these bytes. Returns KA_OK, KA_EAGAIN or KA_ESYNTAX. */
static int ka__expect(ka__cursor *c, const char *text)
{
    for (; *text; text++, c->p++) {
        if (c->p == c->end) return KA_EAGAIN;
        if (*c->p != *text) return KA_ESYNTAX;
    }
    return KA_OK;
}

static ka_str ka__trim(ka_str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) { s.p++; s.n--; }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
    return s;
}

/* Take the next member of a comma-separated list (RFC 9110 s.5.6.1); false at its end. */
static bool ka__list_next(ka_str *rest, ka_str *member)
{
    while (rest->n) {
        const char *comma = memchr(rest->p, ',', rest->n);
        size_t n = comma ? (size_t)(comma - rest->p) : rest->n;
        *member = ka__trim((ka_str){ rest->p, n });
        rest->p += n + (comma ? 1 : 0);
        rest->n -= n + (comma ? 1 : 0);
        if (member->n) return true;
    }
    return false;
}

/* The head of a message. */
typedef struct {
    ka_str  method;           /* this and the next two: of a request */
    ka_str  target, host;     /* as in ka_event */
    int     status;           /* of a response; or the status that fits a refused request */
    int     minor;            /* HTTP/1.minor, 0 or 1 */
    int64_t length;           /* Content-Length in bytes; -1: there is none */
    bool    chunked;          /* Transfer-Encoding: chunked */
    bool    keep_alive;       /* the connection goes on after this message */
    bool    expects;          /* Expect: 100-continue */
    bool    browser;          /* the request has Origin or Sec-Fetch-Site, which browsers send */
    ka_str  fields;           /* the field lines, each with its CRLF */
} ka__http;

/* What the fields of a head say, gathered line by line. */
typedef struct {
    ka__http *h;
    bool     request;            /* the head is a request's */
    int      hosts;              /* Host fields */
    bool     coded;              /* there is a Transfer-Encoding */
    bool     misplaced;          /* chunked is not the last coding */
    bool     unknown_coding;     /* there is a coding besides chunked */
    bool     close, keep;        /* Connection: close, keep-alive */
} ka__fields;

static int ka__refuse(ka__http *h, int status)
{
    h->status = status;
    return KA_ESYNTAX;
}

/* Content-Length = 1*DIGIT (RFC 9110 s.8.6). Two of them, or a list, are refused: readers differ in
   which one they take (RFC 9112 s.6.3). */
static int ka__field_length(ka__fields *f, ka_str v)
{
    int64_t length = 0;
    if (v.n == 0 || f->h->length >= 0) return KA_ESYNTAX;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9' || length > (INT64_MAX - 9) / 10) return KA_ESYNTAX;
        length = length * 10 + (v.p[i] - '0');
    }
    f->h->length = length;
    return KA_OK;
}

/* Transfer-Encoding: chunked must be the last coding and is there once (RFC 9112 s.6.1). Several
   such lines are one list. */
static void ka__field_coding(ka__fields *f, ka_str v)
{
    ka_str coding;
    f->coded = true;
    while (ka__list_next(&v, &coding)) {
        if (f->h->chunked) f->misplaced = true;
        if (ka__is_nocase(coding, "chunked")) f->h->chunked = true;
        else f->unknown_coding = true;
    }
}

static void ka__field_connection(ka__fields *f, ka_str v)
{
    ka_str option;
    while (ka__list_next(&v, &option)) {
        if (ka__is_nocase(option, "close")) f->close = true;
        if (ka__is_nocase(option, "keep-alive")) f->keep = true;
    }
}

/* host [ ":" port ] (RFC 9110 s.7.2; RFC 3986 s.3.2). Userinfo is refused: RFC 9110 s.4.2.4 calls
   it an error. A port may have no digits. A port over 65535 is refused: its low 16 bits are another
   port. */
static bool ka__authority_valid(ka_str v, bool may_be_empty)
{
    ka__cursor c = { v.p, v.p + v.n };
    uint32_t port = 0;
    if (v.n > 0 && *c.p == '[') {
        const char *close = memchr(c.p, ']', v.n);
        if (!close || !ka__is_ipv6(c.p + 1, (size_t)(close - c.p - 1))) return false;
        c.p = close + 1;
    } else for (; c.p < c.end && ka__in(KA__NAME, *c.p); c.p++) {
        if (*c.p != '%') continue;
        if (c.end - c.p < 3 || ka__hex(c.p[1]) < 0 || ka__hex(c.p[2]) < 0) return false;
    }
    if (c.p == v.p && !(may_be_empty && v.n == 0)) return false;
    if (c.p < c.end && *c.p == ':')
        for (c.p++; c.p < c.end && *c.p >= '0' && *c.p <= '9' && port <= 65535; c.p++)
            port = port * 10 + (uint32_t)(*c.p - '0');
    return c.p == c.end && port <= 65535;
}

/* Heed one field (RFC 9110, and RFC 9112 s.3.2 for Host). Nearly all fields are none of these: the
   length of the name tells that at once. */
static int ka__field(ka__fields *f, ka_str name, ka_str v)
{
    switch (name.n) {
    case 4:
        if (!f->request || !ka__is_nocase(name, "host")) break;
        f->hosts++;
        if (f->hosts > 1 || !ka__authority_valid(v, true)) return ka__refuse(f->h, 400);
        if (!f->h->host.p) f->h->host = v;      /* the target names no host */
        break;
    case 6:
        if (f->request && ka__is_nocase(name, "origin")) f->h->browser = true;
        if (!f->request || !ka__is_nocase(name, "expect")) break;
        if (!ka__is_nocase(v, "100-continue")) return ka__refuse(f->h, 417);   /* s.10.1.1 */
        f->h->expects = true;
        break;
    case 10:
        if (ka__is_nocase(name, "connection")) ka__field_connection(f, v);
        break;
    case 14:
        if (ka__is_nocase(name, "content-length")) {
            if (ka__field_length(f, v) < 0) return ka__refuse(f->h, 400);
        } else if (f->request && ka__is_nocase(name, "sec-fetch-site")) {
            f->h->browser = true;
        }
        break;
    case 17:
        if (ka__is_nocase(name, "transfer-encoding")) ka__field_coding(f, v);
        break;
    }
    return KA_OK;
}

/* The field lines and the empty line that ends them (RFC 9112 s.5). A space before the colon, a
   folded line, a bare CR or LF, and a NUL are refused: ka__in allows none of them in its place. */
static int ka__fields_read(ka__fields *f, ka__cursor *c)
{
    for (;;) {
        bool whole;
        ka_str name = ka__take(c, KA__TOKEN, &whole);
        if (!whole) return KA_EAGAIN;
        if (name.n == 0) {
            int r = ka__expect(c, "\r\n");
            return r == KA_ESYNTAX ? ka__refuse(f->h, 400) : r;
        }
        if (*c->p++ != ':') return ka__refuse(f->h, 400);
        ka_str value = ka__take(c, KA__VALUE, &whole);
        if (!whole) return KA_EAGAIN;
        int r = ka__expect(c, "\r\n");
        if (r == KA_ESYNTAX) return ka__refuse(f->h, 400);
        if (r == KA_OK) r = ka__field(f, name, ka__trim(value));
        if (r < 0) return r;
    }
}

/* What can only be told after the last field (RFC 9112). */
static int ka__fields_check(const ka__fields *f)
{
    ka__http *h = f->h;
    if (f->coded && (h->length >= 0 || h->minor == 0)) return ka__refuse(h, 400);      /* s.6.1 */
    if (f->coded && (f->misplaced || !h->chunked)) return ka__refuse(h, 400);          /* s.6.3 */
    if (f->unknown_coding) return ka__refuse(h, 501);                                  /* s.6.1 */
    h->keep_alive = !f->close && (h->minor > 0 || f->keep);                            /* s.9.3 */
    h->expects = h->expects && h->minor > 0;
    return KA_OK;
}

static int ka__fields_all(ka__fields *f, ka__cursor *c)
{
    const char *from = c->p;
    int r = ka__fields_read(f, c);
    if (r < 0) return r;
    f->h->fields = (ka_str){ from, (size_t)(c->p - from) - 2 };      /* without the empty line */
    return ka__fields_check(f);
}

int ka_field(ka_str fields, const char *name, ka_str *value)
{
    ka__cursor c = { fields.p, fields.n ? fields.p + fields.n : fields.p };
    ka_str found = { NULL, 0 };
    bool whole;
    *value = found;
    while (c.p < c.end) {
        ka_str called = ka__take(&c, KA__TOKEN, &whole);
        if (ka__expect(&c, ":") < 0) break;
        ka_str said = ka__take(&c, KA__VALUE, &whole);
        if (ka__expect(&c, "\r\n") < 0) break;
        if (!ka__is_nocase(called, name)) continue;
        if (found.p) return KA_EINVAL;
        found = ka__trim(said);
    }
    *value = found;
    return found.p ? KA_OK : KA_ENOTFOUND;
}

/* HTTP-version (RFC 9112 s.2.3). Another major version than 1 gets 505: it is well-formed. */
static int ka__version(ka__cursor *c, ka__http *h)
{
    int r = ka__expect(c, "HTTP/");
    if (r < 0) return r == KA_EAGAIN ? r : ka__refuse(h, 400);
    for (int i = 0; i < 3; i++) {
        if (c->p + i == c->end) return KA_EAGAIN;
        if (i == 1 ? c->p[i] != '.' : c->p[i] < '0' || c->p[i] > '9') return ka__refuse(h, 400);
    }
    if (c->p[0] != '1') return ka__refuse(h, 505);
    h->minor = c->p[2] > '0';
    c->p += 3;
    return KA_OK;
}

/* The length of a URL's http:// or https://. 0: the URL begins with neither. */
static size_t ka__scheme(ka_str url)
{
    if (url.n > 7 && ka__is_nocase((ka_str){ url.p, 7 }, "http://")) return 7;
    return url.n > 8 && ka__is_nocase((ka_str){ url.p, 8 }, "https://") ? 8 : 0;
}

/* The four forms of a target (RFC 9112 s.3.2). Of the absolute form, the scheme and the authority
   are cut off. */
static int ka__target(ka__http *h)
{
    ka_str *t = &h->target;
    if (ka_is(h->method, "CONNECT")) {
        char last = t->p[t->n - 1];
        bool port = last >= '0' && last <= '9' && memchr(t->p, ':', t->n);      /* s.3.2.3 */
        h->host = *t;
        return port && ka__authority_valid(*t, false) ? KA_OK : ka__refuse(h, 400);
    }
    if (t->p[0] == '/' || (ka_is(*t, "*") && ka_is(h->method, "OPTIONS"))) return KA_OK;
    size_t scheme = ka__scheme(*t), end = scheme;
    while (end < t->n && t->p[end] != '/' && t->p[end] != '?') end++;
    h->host = (ka_str){ t->p + scheme, end - scheme };
    if (scheme == 0 || !ka__authority_valid(h->host, false)) return ka__refuse(h, 400);
    const ka_str slash = { t->p + scheme - 1, 1 };      /* of "://": a view into the head, too */
    *t = end < t->n ? (ka_str){ t->p + end, t->n - end } : slash;
    return KA_OK;
}

static int ka__request_line(ka__cursor *c, ka__http *h)
{
    bool whole;
    h->method = ka__take(c, KA__TOKEN, &whole);
    if (!whole) return KA_EAGAIN;
    if (h->method.n == 0 || *c->p++ != ' ') return ka__refuse(h, 400);
    h->target = ka__take(c, KA__TARGET, &whole);
    if (!whole) return KA_EAGAIN;
    if (h->target.n == 0 || *c->p++ != ' ') return ka__refuse(h, 400);
    int r = ka__version(c, h);
    if (r == KA_OK) r = ka__expect(c, "\r\n");
    if (r == KA_ESYNTAX && h->status == 0) return ka__refuse(h, 400);
    return r == KA_OK ? ka__target(h) : r;
}

/* The result of reading a head: its bytes, or an error. A head that does not end within KA_MAX_HEAD
   bytes is refused with the status too_long. */
static ptrdiff_t ka__head_result(int r, const ka__cursor *c, const char *p, ka__http *h,
                                 int too_long)
{
    if (r == KA_EAGAIN && c->end - p == KA_MAX_HEAD) r = ka__refuse(h, too_long);
    return r < 0 ? r : c->p - p;
}

/* Read the head of a request at p. What two readers could take in two ways is refused. No state is
   kept: after KA_EAGAIN, call this again with more bytes.
     *h         views of the bytes at p
     returns    bytes of the head, with the empty line that ends it; KA_EAGAIN: more bytes are
                needed; KA_ESYNTAX: refused; the status that fits is in h->status */
static ptrdiff_t ka__http_request(ka__http *h, const char *p, size_t n)
{
    ka__cursor c = { p, p + (n < KA_MAX_HEAD ? n : KA_MAX_HEAD) };
    ka__fields f = { .h = h, .request = true };
    memset(h, 0, sizeof *h);
    h->length = -1;
    int r = ka__request_line(&c, h);
    if (r < 0) return ka__head_result(r, &c, p, h, 414);
    r = ka__fields_all(&f, &c);
    if (r == KA_OK && f.hosts == 0 && h->minor > 0) r = ka__refuse(h, 400);            /* s.3.2 */
    return ka__head_result(r, &c, p, h, 431);
}

/* HTTP-version SP 3DIGIT [SP reason] CRLF (s.4). */
static int ka__status_line(ka__cursor *c, ka__http *h, int *status)
{
    bool whole;
    int r = ka__version(c, h);
    if (r == KA_OK) r = ka__expect(c, " ");
    if (r < 0) return r;
    for (int i = 0; i < 3; i++, c->p++) {
        if (c->p == c->end) return KA_EAGAIN;
        if (*c->p < '0' || *c->p > '9') return KA_ESYNTAX;
        *status = *status * 10 + (*c->p - '0');
    }
    if (c->p == c->end) return KA_EAGAIN;
    if (*status < 100 || *status > 599 || (*c->p != ' ' && *c->p != '\r')) return KA_ESYNTAX;
    ka__take(c, KA__VALUE, &whole);
    return whole ? ka__expect(c, "\r\n") : KA_EAGAIN;
}

/* As ka__http_request, of a response. */
static ptrdiff_t ka__http_response(ka__http *h, const char *p, size_t n)
{
    ka__cursor c = { p, p + (n < KA_MAX_HEAD ? n : KA_MAX_HEAD) };
    ka__fields f = { .h = h };
    int status = 0;
    memset(h, 0, sizeof *h);
    h->length = -1;
    int r = ka__status_line(&c, h, &status);
    if (r == KA_OK) r = ka__fields_all(&f, &c);
    ptrdiff_t head = ka__head_result(r, &c, p, h, 431);
    h->status = status;
    return head;
}

/* ---- chunked bodies (RFC 9112 s.7.1) ----

   chunked-body = *chunk last-chunk trailers CRLF
   chunk        = size [ BWS ";" extensions ] CRLF data CRLF
   last-chunk   = a chunk of size 0, which has no data and no CRLF behind it
   trailers     = field lines, as a head has them

   A state is named by what was read last (SIZE_MORE, TRAILER_NAME...) or by what must come next
   (SIZE, DATA, SIZE_LF...). The states up to KA__EXTENSION are within a size's line. */

enum {
    KA__SIZE, KA__SIZE_MORE, KA__GAP, KA__EXTENSION, KA__SIZE_LF, KA__DATA, KA__DATA_CR,
    KA__DATA_LF, KA__TRAILER, KA__TRAILER_NAME, KA__TRAILER_VALUE, KA__TRAILER_LF, KA__LAST_LF
};

/* Begin with {.room = the most bytes of data}. */
typedef struct {
    uint32_t room;            /* bytes of data that may still come */
    uint32_t left, line;      /* bytes of this chunk that are to come; bytes of this line */
    uint8_t  state;
    bool     done;            /* the body is complete */
} ka__chunked;

/* The state after one more hexadecimal digit of a chunk's size. */
static int ka__chunk_digit(ka__chunked *d, int digit)
{
    if (d->left > UINT32_MAX >> 4) return KA_ENOSPC;
    d->left = d->left << 4 | (uint32_t)digit;
    return d->left > d->room ? KA_ENOSPC : KA__SIZE_MORE;
}

/* The state after one byte that is no data, or KA_E... Extensions may say anything: nobody heeds
   them. But a CR or LF among them would be the line's end to some readers. */
static int ka__chunk_byte(ka__chunked *d, char c)
{
    const bool token = ka__in(KA__TOKEN, c), value = ka__in(KA__VALUE, c);
    switch (d->state) {
    case KA__SIZE:
        return ka__hex(c) < 0 ? KA_ESYNTAX : ka__chunk_digit(d, ka__hex(c));
    case KA__SIZE_MORE:
        if (ka__hex(c) >= 0) return ka__chunk_digit(d, ka__hex(c));
        if (c == '\r') return KA__SIZE_LF;
        /* fall through */
    case KA__GAP:
        if (c == ' ' || c == '\t') return KA__GAP;
        return c == ';' ? KA__EXTENSION : KA_ESYNTAX;
    case KA__EXTENSION:
        if (c == '\r') return KA__SIZE_LF;
        return value ? KA__EXTENSION : KA_ESYNTAX;
    case KA__SIZE_LF:
        d->line = 0;
        if (c != '\n') return KA_ESYNTAX;
        return d->left ? KA__DATA : KA__TRAILER;
    case KA__DATA_CR:
        return c == '\r' ? KA__DATA_LF : KA_ESYNTAX;
    case KA__DATA_LF:
        return c == '\n' ? KA__SIZE : KA_ESYNTAX;
    case KA__TRAILER:
        if (c == '\r') return KA__LAST_LF;
        return token ? KA__TRAILER_NAME : KA_ESYNTAX;
    case KA__TRAILER_NAME:
        if (c == ':') return KA__TRAILER_VALUE;
        return token ? KA__TRAILER_NAME : KA_ESYNTAX;
    case KA__TRAILER_VALUE:
        if (c == '\r') return KA__TRAILER_LF;
        return value ? KA__TRAILER_VALUE : KA_ESYNTAX;
    case KA__TRAILER_LF:
        return c == '\n' ? KA__TRAILER : KA_ESYNTAX;
    default:      /* KA__LAST_LF */
        d->done = c == '\n';
        return d->done ? KA__LAST_LF : KA_ESYNTAX;
    }
}

/* Decode n more bytes of a chunked body in place: the data moves to the front of p. Extensions and
   trailer fields are dropped.
     *used      bytes taken: all n, or fewer if d->done
     returns    bytes of data that are at p now; KA_ESYNTAX: malformed; KA_ENOSPC: more data than
                d->room, or more trailers than KA_MAX_HEAD */
static ptrdiff_t ka__chunked_decode(ka__chunked *d, char *p, size_t n, size_t *used)
{
    size_t in = 0, out = 0;
    while (in < n && !d->done) {
        if (d->state == KA__DATA) {
            size_t part = n - in < d->left ? n - in : d->left;
            memmove(p + out, p + in, part);
            in += part;
            out += part;
            d->left -= (uint32_t)part;
            d->room -= (uint32_t)part;
            if (d->left == 0) d->state = KA__DATA_CR;
            continue;
        }
        int next = ka__chunk_byte(d, p[in++]);
        if (next < 0) return next;
        d->state = (uint8_t)next;
        d->line++;      /* bytes of this line, or of all trailers together */
        if (next == KA__DATA || next == KA__SIZE) d->line = 0;
        if (next <= KA__EXTENSION && d->line > KA_MAX_CHUNK_LINE) return KA_ESYNTAX;
        if (d->line > KA_MAX_HEAD) return KA_ENOSPC;
    }
    *used = in;
    return (ptrdiff_t)out;
}

/* Only bytes from space to tilde? Eight at a time: one below borrows; one above has its top bit
   set, or gets it. */
static bool ka__printable(const char *p, size_t n)
{
    const uint64_t each = 0x0101010101010101;
    uint64_t x, odd = 0;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&x, p, 8);
        odd |= x | (x + each) | (x - each * ' ');
    }
    for (; n > 0; p++, n--) odd |= *p < ' ' || *p > '~' ? 0x80 : 0;
    return (odd & each * 0x80) == 0;
}

/* ---- forms ---- */

int ka_form_next(ka_str *rest, ka_str *name, ka_str *value)
{
    if (rest->p == NULL) return KA_ENOTFOUND;
    const char *amp = rest->n ? memchr(rest->p, '&', rest->n) : NULL;
    ka_str pair = { rest->p, amp ? (size_t)(amp - rest->p) : rest->n };
    *rest = amp ? (ka_str){ amp + 1, rest->n - pair.n - 1 } : (ka_str){ NULL, 0 };
    const char *equals = pair.n ? memchr(pair.p, '=', pair.n) : NULL;
    if (!equals) return KA_ESYNTAX;
    *name = (ka_str){ pair.p, (size_t)(equals - pair.p) };
    *value = (ka_str){ equals + 1, pair.n - name->n - 1 };
    return KA_OK;
}

ptrdiff_t ka_percent_decode(char *out, size_t cap, ka_str in)
{
    size_t n = 0;
    while (in.n > 0) {
        const char *percent = memchr(in.p, '%', in.n);
        size_t run = percent ? (size_t)(percent - in.p) : in.n;
        if (run > cap - n) return KA_ENOSPC;
        memmove(out + n, in.p, run);
        n += run;
        in = (ka_str){ in.p + run, in.n - run };
        if (!percent) break;
        int high = in.n > 2 ? ka__hex(in.p[1]) : -1;
        int low = in.n > 2 ? ka__hex(in.p[2]) : -1;
        if (high < 0 || low < 0) return KA_ESYNTAX;
        if (n == cap) return KA_ENOSPC;
        out[n++] = (char)(high << 4 | low);
        in = (ka_str){ in.p + 3, in.n - 3 };
    }
    return (ptrdiff_t)n;
}

/* ================================================================================================
   4 mailbox

   A ring of bytes between one thread that writes (the producer) and one that reads (the consumer).
   A record is a header and its payload, in one piece. Where a record does not fit before the end of
   the ring, a filler takes the rest. Positions only grow; their remainder is the place in the ring.

       tail            head       write
        |               |           |        tail..head   published: the consumer's
     ---[===============]...........|---     head..write  written, not yet published

   The producer publishes once per batch and then wakes the consumer if it sleeps. The consumer says
   that it is about to sleep, looks once more, and sleeps. Either the producer sees the flag or the
   consumer sees the records. Both sides use sequentially consistent operations for these two, and
   no fence, which ThreadSanitizer would not understand. */

typedef struct ka__record ka__record;
struct ka__record {
    _Alignas(8) uint32_t n;        /* bytes of the payload, which is aligned to 8 as this is */
    uint8_t  kind, flags;
    uint16_t status;               /* an HTTP status; or an error, without its minus */
    union {
        uint64_t    conn;
        ka__sock    sock;          /* KA__LISTEN, KA__ADOPT */
        ka__record *next;          /* KA__REPLY and KA__SEND, once the worker has read them: the
                                      next record for the same connection */
    };
    union {                        /* by kind */
        struct { const ka_framing *framing; uint32_t number; uint16_t port; bool handed; } listen;
        struct { const ka_framing *framing; } message;
        struct { int32_t os_error; int16_t listener; } opened;
        struct { int32_t os_error; uint32_t number; } listening;
        struct { uint32_t seq, head_n; uint8_t listener; } request;
        struct { const ka_framing *framing; uint32_t seq, fields_n; } reply;
        uint64_t any[2];           /* as large on every system */
    };
};

enum { KA__ALIGN = 16, KA__FILLER = 0 };

typedef struct {
    char            *mem;
    size_t           size;
    char             pad0[64];
    _Atomic(size_t)  head;                 /* the producer's */
    size_t           write, tail_seen;
    char             pad1[64];
    _Atomic(size_t)  tail;                 /* the consumer's */
    size_t           read, head_seen;
    char             pad2[64];
} ka__box;

_Static_assert(sizeof(ka__record) == 32, "32 bytes on every system, also where pointers have 4");
_Static_assert((KA_MAILBOX & (KA_MAILBOX - 1)) == 0, "KA_MAILBOX must be a power of two");

static int ka__box_init(ka__box *b, size_t size)
{
    memset(b, 0, sizeof *b);
    b->mem = ka__resize(NULL, size, 1);
    b->size = size;
    return b->mem ? KA_OK : KA_ENOMEM;
}

/* Bytes of a record in the ring. */
static size_t ka__record_size(size_t payload)
{
    return (sizeof(ka__record) + payload + KA__ALIGN - 1) / KA__ALIGN * KA__ALIGN;
}

static char *ka__payload(ka__record *r) { return (char *)(r + 1); }

static ka__record *ka__box_at(const ka__box *b, size_t position)
{
    return (ka__record *)(void *)(b->mem + (position & (b->size - 1)));
}

static size_t ka__box_to_end(const ka__box *b, size_t position)
{
    return b->size - (position & (b->size - 1));
}

/* Producer: are n bytes free, at least? */
static bool ka__box_room(ka__box *b, size_t n)
{
    if (b->size - (b->write - b->tail_seen) >= n) return true;
    b->tail_seen = atomic_load_explicit(&b->tail, memory_order_acquire);
    return b->size - (b->write - b->tail_seen) >= n;
}

/* Producer: a record with room for its payload behind it. NULL: the ring is too full now. */
static ka__record *ka__box_put(ka__box *b, int kind, size_t payload)
{
    size_t size = ka__record_size(payload), to_end = ka__box_to_end(b, b->write);
    size_t filler = to_end < size ? to_end : 0;
    if (!ka__box_room(b, filler + size)) return NULL;
    if (filler) {
        ka__box_at(b, b->write)->kind = KA__FILLER;      /* at least KA__ALIGN bytes: kind fits */
        b->write += filler;
    }
    ka__record *r = ka__box_at(b, b->write);
    memset(r, 0, sizeof *r);
    r->n = (uint32_t)payload;
    r->kind = (uint8_t)kind;
    b->write += size;
    return r;
}

/* Producer: hand over what was put. True if there was something: then wake the consumer. */
static bool ka__box_publish(ka__box *b)
{
    if (b->write == atomic_load_explicit(&b->head, memory_order_relaxed)) return false;
    atomic_store(&b->head, b->write);
    return true;
}

/* Consumer: the next record, or NULL. The record stays the next one until ka__box_pass, and its
   bytes stay until ka__box_release. */
static ka__record *ka__box_next(ka__box *b)
{
    for (;;) {
        if (b->read == b->head_seen)
            b->head_seen = atomic_load_explicit(&b->head, memory_order_acquire);
        if (b->read == b->head_seen) return NULL;
        ka__record *r = ka__box_at(b, b->read);
        KA__PREFETCH(ka__box_at(b, b->read + 256));
        KA__PREFETCH(ka__box_at(b, b->read + 320));
        if (r->kind != KA__FILLER) return r;
        b->read += ka__box_to_end(b, b->read);
    }
}

/* Consumer: go on to the record behind this one. */
static void ka__box_pass(ka__box *b, const ka__record *r) { b->read += ka__record_size(r->n); }

/* Consumer: the bytes of the records that were passed and not released. */
static size_t ka__box_passed(const ka__box *b)
{
    return b->read - atomic_load_explicit(&b->tail, memory_order_relaxed);
}

/* Consumer: done with all that was passed. The ring keeps no copy: there may have been keys. */
static void ka__box_release(ka__box *b)
{
    size_t n = ka__box_passed(b), at = (b->read - n) & (b->size - 1);
    size_t to_end = b->size - at < n ? b->size - at : n;
    ka_wipe(b->mem + at, to_end);
    ka_wipe(b->mem, n - to_end);
    atomic_store_explicit(&b->tail, b->read, memory_order_release);
}

/* Consumer: done with the next one. */
static void ka__box_take(ka__box *b, const ka__record *r)
{
    ka__box_pass(b, r);
    ka__box_release(b);
}

/* Consumer, between saying that it will sleep and sleeping. */
static bool ka__box_empty(ka__box *b) { return atomic_load(&b->head) == b->read; }

/* What was released is wiped already. Pages that were never used are left alone. */
static void ka__box_free(ka__box *b)
{
    b->read = b->write;
    if (b->mem) ka__box_release(b);
    ka__free(b->mem);
}

/* ================================================================================================
   5 worker

   Owns the sockets. It cuts the bytes that it receives into requests, or into messages of another
   framing, and puts these into its up box. It takes answers out of its down box and writes them. It
   never waits for the parent: without room in the up box it stops reading sockets and goes on to
   drain the down box. So the two cannot wait for each other.

   A connection without a request under way holds no buffer. Bytes are received into the worker's
   scratch, behind those of an unfinished request. What the parent says is gathered: records for one
   connection form a chain in the down box. A chain is rendered into one buffer and leaves in one
   send. Only what is unfinished on either side is kept.

   The states of a connection, and what moves it on:

       accepted, HTTP ----------> IDLE ---> READING ---> ANSWERING ---> IDLE
       accepted, other framing -> OPEN ---> READING ---> OPEN
       ka_connect --> CONNECTING -> OPEN
       ka_upgrade --> BEGINNING --> OPEN      the parent is told as soon as the up box has room

       any of these <-> SENDING               bytes are unsent: nothing is read until they have left
       any of these <-> HELD                  the up box is full: nothing is read until it has room

       nothing more is read -> ANSWERING or PARTING -> LINGERING -> closed
       closed -> GONE -> FREE                 the parent is told as soon as the up box has room;
                                              of HTTP connections it is not told

   ka__conn_state decides which state it is, from what the connection holds. */

typedef enum {
    KA__FREE,           /* the place of no connection */
    KA__UNLISTED,       /* on its way to a state: the connection is in no list */
    KA__IDLE,           /* HTTP: no request has begun */
    KA__READING,        /* a request or message has begun, and has not arrived whole */
    KA__ANSWERING,      /* HTTP: the parent owes the next answer */
    KA__SENDING,        /* the peer does not take what was sent to it */
    KA__SENDING_LAST,   /* the same after ka_close of a connection of ka_connect. It has less time,
                           since a new connection may wait for its end */
    KA__LINGERING,      /* all was sent. Read on, or unread bytes would reset the connection, and
                           the peer would not see the last answer */
    KA__CONNECTING,
    KA__BEGINNING,
    KA__GONE,
    KA__OPEN,           /* another framing: no message has begun */
    KA__HELD,
    KA__PARTING,        /* another framing: the peer's end, or a refused message, was told to the
                           parent. The parent may say a last word until its next ka_wait */
    KA__STATES,
    KA__CLOSED          /* to be closed now */
} ka__state;

/* How long a connection may be in a state, and what its socket is watched for. Each state has a
   list of its connections. Within a state those that came first are due first. */
enum { KA__NO_LIMIT = -1 };
static const struct { int limit_ms, watch; } ka__states[KA__STATES] = {
    [KA__IDLE]         = { KA_IDLE_MS, KA__IN },
    [KA__READING]      = { KA_REQUEST_MS, KA__IN },
    [KA__ANSWERING]    = { KA_ANSWER_MS, KA__IN },
    [KA__SENDING]      = { KA_STALL_MS, KA__OUT },
    [KA__SENDING_LAST] = { KA_LINGER_MS, KA__OUT },
    [KA__LINGERING]    = { KA_LINGER_MS, KA__IN },
    [KA__CONNECTING]   = { KA_ATTEMPT_MS, KA__OUT },
    [KA__BEGINNING]    = { 0, 0 },
    [KA__GONE]         = { 0, 0 },
    [KA__OPEN]         = { KA__NO_LIMIT, KA__IN },
    [KA__HELD]         = { KA__NO_LIMIT, 0 },
    [KA__PARTING]      = { KA__NO_LIMIT, 0 },
};

enum {
    KA__READ_BYTES = 16384,            /* received at once */
    KA__WRITE_BYTES = 65536,           /* rendered at once */
    KA__KEPT_BYTES = KA_MAX_HEAD + KA_MAX_BODY + 16,      /* of an unfinished request or message */
    KA__SCRATCH = KA__READ_BYTES + KA__KEPT_BYTES,
    KA__SENDERS = 512,                 /* connections whose answers are gathered */
    KA__SENDS_BYTES = KA_MAILBOX / 4,  /* bytes of these answers */
    KA__ACCEPTS = 64,                  /* newcomers of a listener in one round */
    KA__ACCEPT_AGAIN_MS = 100,         /* a pause in accepting */
    KA__ACCEPT_TRIES = 10,             /* pauses in a row before the parent is told */
    KA__YOUNG_MS = 100,                /* the first request of a connection may take this to come */
    KA__FEW_CONNS = 1024,              /* a table for fewer connections is kept */
    KA__MAX_CONNS = 1 << 24,           /* of a worker: a place has 24 bits of ka_event.conn */
    KA__EMPTY_LINES = 10,              /* before a request (RFC 9112 s.2.2); Apache takes 10, too */
    KA__KEPT_ENDS = 64
};
#define KA__NIL UINT32_MAX

/* Room that stays free for the records that must never be lost: one KA_LISTENING for each listener,
   KA__RELEASED, KA__SERVED, KA__ENDED, a KA_OPENED of a ka_connect without memory, and a filler.
   KA_OPENED is the largest: its payload is the other end, and a tag. */
enum {
    KA__MUST_BYTES = (KA_MAX_LISTENERS + 5) *
                     (int)(sizeof(ka__record) + sizeof(ka_end) + sizeof(uint64_t))
};
_Static_assert(KA_MAX_UNSENT <= INT_MAX, "lengths have 32 bits");
_Static_assert(KA_MAX_HEAD >= 512 && KA_MAX_HEAD <= 65535, "offsets in a head have 16 bits");
_Static_assert(KA_MAILBOX >= 2 * KA__SCRATCH + KA__MUST_BYTES + 65536, "KA_MAILBOX is too small");

/* Records. Down, to the worker: */
enum {
    KA__LISTEN = 1,    /* sock, listen; payload: ip, NUL */
    KA__ADOPT,         /* sock, listen: watch a listener that another worker has opened */
    KA__CONNECT,       /* listen; payload: tag, ip, NUL, the address to connect from, NUL */
    KA__REPLY,         /* conn, reply, flags, status; payload: fields, body */
    KA__SEND,          /* conn; payload: the bytes */
    KA__CLOSE,         /* conn: the parent has nothing more to say to it */
    KA__REFRAME,       /* conn, message.framing */
    KA__DRAIN,         /* accept no more, and finish accepted connections */
    KA__FINISH,        /* and those of ka_connect */
    KA__QUIT           /* end now */
};
/* Up, to the parent: the kinds of events, whose payload begins with event.peer; and */
enum {
    KA__RELEASED = 64, /* the worker watches no listener any more */
    KA__SERVED,        /* the worker has closed its last accepted connection */
    KA__ENDED          /* the worker has closed its last connection of any kind */
};
enum { KA__RUNS, KA__SERVES, KA__HAS_SERVED, KA__FINISHES };      /* ka__worker.draining */

/* Flags of KA_REQUEST. HTTP/1.0 and HEAD come back with KA__REPLY. */
enum { KA__OLD = 1, KA__BODILESS = 2, KA__BROWSER = 4 };
/* Further flags of KA__REPLY. Its fields replace Content-Type, Date or Cache-Control. Nothing
   follows it on its connection. It has Keyauth-Ends. */
enum { KA__TYPED = 4, KA__DATED = 8, KA__CACHED = 16, KA__CLOSES = 32, KA__ENDS = 64 };
/* The flag of KA_LISTENING: it goes on, but accepts nobody. */
enum { KA__AILS = 1 };

/* Where the parts of a request are in its head, in front of head and body in the payload. */
typedef struct {
    ka_end   peer;
    uint16_t method_n, target_at, target_n, host_at, host_n, fields_at, fields_n;
} ka__parts;

/* An answer that came before its turn. */
typedef struct ka__early { struct ka__early *next; ka__record r; } ka__early;

typedef struct {
    ka__sock    sock;
    int64_t     due_ms;
    const ka_framing *framing;       /* NULL: HTTP */
    char       *in, *out;            /* bytes of an unfinished message; unsent bytes; or NULL */
    ka__early  *early;
    ka__record *first, *final;       /* the chain of what is to be sent, in the down box; or NULL */
    uint32_t    generation;
    uint32_t    prev, next;          /* in the list of its state, or of the free places */
    uint32_t    in_n, out_n, out_at;
    uint32_t    seq_in, seq_out;     /* HTTP: requests delivered, answers rendered */
    uint32_t    body_n;              /* HTTP: bytes of a chunked body decoded so far */
    union {
        ka__chunked chunked;          /* HTTP */
        ka_cut     cut;              /* another framing */
        struct { uint64_t tag; int error, os_error; } connecting;
    };
    ka_end   peer;                   /* its other end */
    uint8_t  state;                  /* ka__state */
    int8_t   watched;
    uint8_t  listener;
    uint8_t  empty_lines;            /* HTTP: passed over before the next request */
    bool     outgoing;               /* of ka_connect */
    bool     entered;                /* past the doorman */
    bool     unconnected;            /* of ka_connect, and not open yet */
    bool     held;                   /* a message of it found no room in the up box */
    bool     last;                   /* nothing more will be read from it */
    bool     linger;                 /* bytes may follow the last one that was read */
    bool     expects;                /* HTTP: waits for 100 Continue */
    bool     parted;                 /* another framing: the parent has said its last word */
    bool     told;                   /* another framing: the parent has had KA_CLOSED */
    bool     ended;                  /* another framing: its peer sends no more */
} ka__conn;

typedef struct {
    ka__sock sock, theirs;           /* theirs: its number in the process's main table */
    ka_end   end;
    bool     any;                    /* each of its connections has an address of its own */
    bool     handed;                 /* it was fd:N */
    uint64_t network;
    const ka_framing *framing;
    bool     open, watched;
    bool     pending;                /* there was no room yet to take it over from the main table */
} ka__listener;

/* The field Keyauth-Ends of a connection. */
typedef struct {
    uint64_t conn;
    uint32_t n;
    char     text[sizeof "Keyauth-Ends: " + KA__ENDS_TEXT + 2];
} ka__kept_ends;

typedef struct {
    ka__box       up, down;
    ka__sleeper   sleeper;
    ka__sleeper  *parent;
    _Atomic(size_t) connections;     /* open now */
    _Atomic(size_t) buffered;        /* bytes of in, out and early of them all */
    _Atomic(int)  settled;           /* 1: it runs; KA_E...: it has ended */
    uint32_t      number;            /* which worker it is */
    ka_doorman   *doorman;           /* or NULL */
    bool          wants_table;       /* of descriptors, of its own */
    ka__thread    thread;

    /* the worker's own from here on */
    ka__conn     *conns;
    uint32_t      conns_n;           /* places in use or used before */
    uint32_t      conns_room;        /* places that there is memory for */
    uint32_t      free_head;         /* the first free one among the places used before */
    uint32_t      generations;       /* connections so far */
    struct { uint32_t head, tail; } list[KA__STATES];
    ka__listener  listeners[KA_MAX_LISTENERS];
    int           draining;          /* KA__RUNS... */
    uint32_t      outgoing;          /* connections of ka_connect */
    bool          quit, accept_paused, place_freed, own_table;
    int           accept_failed;     /* pauses in a row, not for want of descriptors */
    uint32_t      turn;
    uint32_t      finished;          /* while draining: the places below were told of the stop */
    int64_t       now_ms, drain_until_ms, accept_again_ms;
    int64_t       common_of;         /* a second of now_ms: */
    char          common[160];       /* the fields that its answers have */
    ka__kept_ends kept_ends[KA__KEPT_ENDS];
    uint32_t      senders[KA__SENDERS], senders_n;      /* places with a chain of records to send */
    uint32_t      out_n;             /* bytes in `out` */
    uint32_t      in_at, in_n;       /* the bytes in `in` that are still to be read */
    char          in[KA__SCRATCH], out[KA__WRITE_BYTES];
} ka__worker;

static uint32_t ka__place(const ka__worker *w, const ka__conn *c)
{
    return (uint32_t)(c - w->conns);
}

/* Tokens of the poller: listeners first, then connections by their place. */
static uint32_t ka__token(const ka__worker *w, const ka__conn *c)
{
    return KA_MAX_LISTENERS + ka__place(w, c);
}

static uint64_t ka__conn_number(const ka__worker *w, const ka__conn *c)
{
    return (uint64_t)w->number << 56 | (uint64_t)ka__place(w, c) << 32 | c->generation;
}

static bool ka__is_open(const ka__conn *c) { return c->state != KA__FREE && c->state != KA__GONE; }

/* The connection of that number, or NULL if it has gone. */
static ka__conn *ka__conn_find(ka__worker *w, uint64_t number)
{
    uint32_t place = (uint32_t)(number >> 32) % KA__MAX_CONNS;
    if (place >= w->conns_n) return NULL;
    ka__conn *c = &w->conns[place];
    return ka__is_open(c) && c->generation == (uint32_t)number ? c : NULL;
}

/* Is there room in the up box for an event of n bytes, wherever it falls, beside the records that
   must not be lost? */
static bool ka__room(ka__worker *w, size_t n)
{
    return ka__box_room(&w->up, 2 * ka__record_size(sizeof(ka__parts) + n) + KA__MUST_BYTES);
}

/* ---- lists of connections ---- */

/* Take a connection off the list of its state. Its next state is timed anew. */
static void ka__conn_unlist(ka__worker *w, ka__conn *c)
{
    if (c->state <= KA__UNLISTED) return;
    if (c->prev != KA__NIL) w->conns[c->prev].next = c->next;
    else w->list[c->state].head = c->next;
    if (c->next != KA__NIL) w->conns[c->next].prev = c->prev;
    else w->list[c->state].tail = c->prev;
    c->state = KA__UNLISTED;
}

/* Put a connection into a state. One that is in it already keeps its time. */
static void ka__conn_enter(ka__worker *w, ka__conn *c, ka__state state)
{
    if (c->state == state) return;
    ka__conn_unlist(w, c);
    int limit = ka__states[state].limit_ms;
    uint32_t place = ka__place(w, c), tail = w->list[state].tail;
    c->state = (uint8_t)state;
    c->due_ms = limit == KA__NO_LIMIT ? INT64_MAX : w->now_ms + limit;
    c->prev = tail;
    c->next = KA__NIL;
    if (tail != KA__NIL) w->conns[tail].next = place;
    else w->list[state].head = place;
    w->list[state].tail = place;
}

/* A free place, or NULL: out of memory, or of numbers. */
static ka__conn *ka__conn_place(ka__worker *w)
{
    if (w->free_head != KA__NIL) return &w->conns[w->free_head];
    if (w->conns_n == w->conns_room) {
        uint32_t n = w->conns_room ? w->conns_room * 2 : 64;
        if (n > KA__MAX_CONNS) return NULL;
        ka__conn *more = ka__resize(w->conns, n, sizeof *more);      /* untouched: no memory */
        if (!more) return NULL;
        w->conns = more;
        w->conns_room = n;
    }
    return &w->conns[w->conns_n];
}

/* After a crowd has gone: give its memory back. Not while anybody looks at a connection. */
static void ka__conns_shrink(ka__worker *w)
{
    if (w->conns_room < KA__FEW_CONNS) return;
    if (atomic_load_explicit(&w->connections, memory_order_relaxed) > 0) return;
    ka__free(w->conns);
    w->conns = NULL;
    w->conns_n = w->conns_room = w->finished = 0;
    w->free_head = KA__NIL;
    ka__memory_trim();
}

static void ka__early_free(ka__worker *w, ka__early *e)
{
    size_t size = sizeof *e + e->r.n;
    ka__count(&w->buffered, -(int)size);
    ka__free_wiped(e, size);
}

/* Drop the answers whose turn never comes. */
static void ka__early_drop(ka__worker *w, ka__conn *c)
{
    for (ka__early *e; (e = c->early) != NULL; ) {
        c->early = e->next;
        ka__early_free(w, e);
    }
}

/* Drop what is kept of a connection's unfinished message, or of its unsent bytes. */
static void ka__drop(ka__worker *w, char **kept, uint32_t *n)
{
    if (!*kept) return;
    ka__count(&w->buffered, -(int)*n);
    ka__free_wiped(*kept, *n);
    *kept = NULL;
    *n = 0;
}

/* Use the free place c. Its state is still to be set. */
static void ka__conn_open(ka__worker *w, ka__conn *c, ka__sock sock, const ka_framing *framing)
{
    if (ka__place(w, c) == w->conns_n) w->conns_n++;
    else w->free_head = c->next;
    memset(c, 0, sizeof *c);
    c->sock = sock;
    if (++w->generations == 0) w->generations = 1;      /* no connection has the number 0 */
    c->generation = w->generations;
    c->state = KA__UNLISTED;
    c->watched = KA__UNWATCHED;
    c->framing = framing;
    if (!framing) c->chunked.room = KA_MAX_BODY;
    ka__count(&w->connections, 1);
}

static void ka__conn_free(ka__worker *w, ka__conn *c)
{
    ka__conn_unlist(w, c);
    c->state = KA__FREE;
    c->next = w->free_head;
    w->free_head = ka__place(w, c);
    w->place_freed = true;
    w->outgoing -= c->outgoing;
    if (c->entered) w->doorman->leave(w->doorman, &c->peer);
    ka__count(&w->connections, -1);
}

static void ka__conn_close(ka__worker *w, ka__conn *c)
{
    if (c->watched != KA__UNWATCHED)
        ka__poller_set(&w->sleeper.poller, c->sock, ka__token(w, c), c->watched, KA__UNWATCHED);
    if (c->sock != -1) ka__sock_close(c->sock);
    ka__drop(w, &c->in, &c->in_n);
    ka__drop(w, &c->out, &c->out_n);
    ka__early_drop(w, c);
    c->first = NULL;
    if (c->framing && !c->told) ka__conn_enter(w, c, KA__GONE);
    else ka__conn_free(w, c);
}

static void ka__conn_watch(ka__worker *w, ka__conn *c, int want)
{
    if (c->watched == want) return;      /* which is nearly always so: no system call */
    int r = ka__poller_set(&w->sleeper.poller, c->sock, ka__token(w, c), c->watched, want);
    if (r == KA_OK) c->watched = (int8_t)want;
    else ka__conn_close(w, c);
}

/* ---- the state of a connection ---- */

/* Has the next message begun? Half of an empty line begins no request: empty lines buy no time. */
static bool ka__begun(const ka__conn *c)
{
    return c->in && !(!c->framing && c->in_n == 1 && *c->in == '\r');
}

/* Is the parent still to say something: an answer, or a last word? */
static bool ka__owed(const ka__conn *c)
{
    return c->framing ? c->last && !c->parted : c->seq_in != c->seq_out;
}

/* Has it answers enough to wait for, or is it at its end? Then nothing more is read from it. */
static bool ka__is_full(const ka__conn *c)
{
    return c->last || c->seq_in - c->seq_out >= KA_MAX_PIPELINED;
}

/* The state that fits what a connection holds. The first line that is true counts. */
static ka__state ka__conn_state(const ka__worker *w, const ka__conn *c)
{
    bool http = !c->framing, owed = ka__owed(c);
    if (c->out) return c->last && c->outgoing ? KA__SENDING_LAST : KA__SENDING;
    if (c->held) return KA__HELD;
    if (owed) return http ? KA__ANSWERING : KA__PARTING;
    if (c->last && (c->linger || ka__sock_waiting(c->sock) > 0)) return KA__LINGERING;
    if (c->last) return KA__CLOSED;
    if (http && w->draining && !ka__begun(c) && ka__sock_waiting(c->sock) == 0) return KA__CLOSED;
    if (ka__begun(c)) return KA__READING;
    return http ? KA__IDLE : KA__OPEN;
}

/* ---- writing ---- */

/* Keep bytes that the socket did not take. */
static int ka__keep_unsent(ka__worker *w, ka__conn *c, const char *p, size_t n)
{
    size_t left = c->out_n - c->out_at, most = KA_MAX_UNSENT;
    if (c->framing && c->framing->max_unsent) most = c->framing->max_unsent;
    if (left + n > most || left + n > INT_MAX) return KA_ELIMIT;
    char *more = ka__resize(NULL, left + n, 1);      /* a realloc might leave keys behind */
    if (!more) return KA_ENOMEM;
    if (left) memcpy(more, c->out + c->out_at, left);
    memcpy(more + left, p, n);
    ka__drop(w, &c->out, &c->out_n);
    c->out = more;
    c->out_n = (uint32_t)(left + n);
    c->out_at = 0;
    ka__count(&w->buffered, (int)c->out_n);
    return KA_OK;
}

/* Send bytes now, behind those that are unsent. What the socket does not take is kept. Closes c if
   that fails. */
static void ka__send(ka__worker *w, ka__conn *c, const char *p, size_t n)
{
    ptrdiff_t sent = c->out ? 0 : ka__sock_send(c->sock, p, n);
    if (sent == KA_EAGAIN) sent = 0;
    bool kept = sent >= 0;
    if (kept && (size_t)sent < n) kept = ka__keep_unsent(w, c, p + sent, n - (size_t)sent) == KA_OK;
    if (!kept) ka__conn_close(w, c);
}

/* Send what was rendered for c. */
static void ka__out_flush(ka__worker *w, ka__conn *c)
{
    if (w->out_n == 0) return;
    if (ka__is_open(c)) ka__send(w, c, w->out, w->out_n);
    ka_wipe(w->out, w->out_n);
    w->out_n = 0;
}

/* Append to what is rendered for c. A send that fails on the way closes c. */
static void ka__out_put(ka__worker *w, ka__conn *c, const char *p, size_t n)
{
    while (n > 0) {
        if (w->out_n == sizeof w->out) ka__out_flush(w, c);
        size_t part = sizeof w->out - w->out_n < n ? sizeof w->out - w->out_n : n;
        memcpy(w->out + w->out_n, p, part);
        w->out_n += (uint32_t)part;
        p += part;
        n -= part;
    }
}

#define KA__STR(literal) (ka_str){ literal, sizeof(literal) - 1 }

static void ka__out_str(ka__worker *w, ka__conn *c, ka_str s) { ka__out_put(w, c, s.p, s.n); }

/* After anything happened to a connection: its state from now on, and what it is watched for. */
static void ka__conn_settle(ka__worker *w, ka__conn *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!ka__is_open(c) || c->unconnected || c->state == KA__BEGINNING) return;
    if (c->expects && !ka__owed(c)) {      /* answers to the requests before it come first */
        c->expects = false;
        ka__send(w, c, go_on, sizeof go_on - 1);
        if (!ka__is_open(c)) return;
    }
    ka__state state = ka__conn_state(w, c);
    if (state == KA__CLOSED) {
        ka__conn_close(w, c);
        return;
    }
    if (state == KA__LINGERING && c->state != KA__LINGERING) ka__sock_end(c->sock);
    ka__conn_enter(w, c, state);
    bool unread = state == KA__ANSWERING && ka__is_full(c);
    ka__conn_watch(w, c, unread ? 0 : ka__states[state].watch);
}

/* The status line (RFC 9112 s.4). Its phrase is optional. */
static ka_str ka__status(int status, char room[64])
{
    static const struct { int status; const char *phrase; } known[] = {
        { 101, "Switching Protocols" }, { 400, "Bad Request" }, { 401, "Unauthorized" },
        { 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
        { 408, "Request Timeout" }, { 409, "Conflict" }, { 413, "Content Too Large" },
        { 414, "URI Too Long" }, { 417, "Expectation Failed" }, { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" }, { 500, "Internal Server Error" },
        { 501, "Not Implemented" }, { 503, "Service Unavailable" }, { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" }, { 507, "Insufficient Storage" }
    };
    const char *phrase = "";
    if (status == 200) return KA__STR("HTTP/1.1 200 OK\r\n");      /* nearly always so */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status) phrase = known[i].phrase;
    return (ka_str){ room, (size_t)snprintf(room, 64, "HTTP/1.1 %d %s\r\n", status, phrase) };
}

/* The fields that every answer has, unless its own replace them. They are rendered once a second
   because of Date (RFC 9110 s.5.6.7), which so may be a second old. */
static void ka__out_common(ka__worker *w, ka__conn *c, int flags)
{
    enum { DATE_N = 37, CACHE_N = 25, TYPE_N = 26, ALL_N = DATE_N + CACHE_N + TYPE_N };
    static const char days[] = "ThuFriSatSunMonTueWed",
                      months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    if (w->now_ms / 1000 != w->common_of || !w->common[0]) {
        char t[KA_UTC_TEXT + 1];
        int64_t us = ka_wall_us();
        ka_utc_text(t, us);
        const char *day = days + (uint64_t)us / 86400000000 % 7 * 3;
        const char *month = months + ((t[5] - '0') * 10 + t[6] - '0' - 1) * 3;
        snprintf(w->common, sizeof w->common, "Date: %.3s, %.2s %.3s %.4s %.8s GMT\r\n"
                 "Cache-Control: no-store\r\nContent-Type: text/plain\r\n",
                 day, t + 8, month, t, t + 11);
        w->common_of = w->now_ms / 1000;
    }
    size_t from = flags & KA__DATED ? DATE_N : 0, to = flags & KA__TYPED ? ALL_N - TYPE_N : ALL_N;
    if (flags & KA__CACHED) {
        ka__out_put(w, c, w->common + from, DATE_N - from);
        from = DATE_N + CACHE_N;
    }
    ka__out_put(w, c, w->common + from, to - from);
}

/* "Content-Length: n" (RFC 9110 s.8.6) and the end of the head, written from the back into room. */
static ka_str ka__length_field(size_t n, char room[48])
{
    memcpy(room + 44, "\r\n\r\n", 4);
    char *p = ka__decimal(n, room + 44) - 16;
    memcpy(p, "Content-Length: ", 16);
    return (ka_str){ p, (size_t)(room + 48 - p) };
}

/* The field Keyauth-Ends. The texts of the connections that had it last are kept. */
static void ka__out_ends(ka__worker *w, ka__conn *c)
{
    ka__kept_ends *kept = &w->kept_ends[ka__place(w, c) % KA__KEPT_ENDS];
    if (kept->conn != ka__conn_number(w, c)) {
        const ka__listener *l = &w->listeners[c->listener];
        char ends[KA__ENDS_TEXT + 1];
        size_t n = ka__ends_text(ends, c->peer, l->any ? ka__sock_mine(c->sock) : l->end,
                                 l->network);
        if (l->handed) snprintf(ends + n, sizeof ends - n, " %lu",
                                (unsigned long)ka__sock_pid(c->sock, true));
        kept->n = (uint32_t)snprintf(kept->text, sizeof kept->text, "Keyauth-Ends: %s\r\n", ends);
        kept->conn = ka__conn_number(w, c);
    }
    ka__out_put(w, c, kept->text, kept->n);
}

/* Answer, and go on in another framing. What was asked behind this request gets no answer. */
static void ka__upgrade(ka__worker *w, ka__conn *c, const ka__record *r)
{
    static const char upgrade[] = "Connection: Upgrade\r\n\r\n",
                      close[] = "Connection: close\r\n\r\n";
    char room[64];
    bool switches = r->status == 101;
    ka__out_str(w, c, ka__status(r->status, room));
    ka__out_common(w, c, r->flags | (switches ? KA__TYPED | KA__CACHED : 0));
    ka__out_put(w, c, (const char *)(r + 1), r->n);
    ka__out_str(w, c, switches ? KA__STR(upgrade) : KA__STR(close));
    if (!ka__is_open(c)) return;       /* what was sent on the way has failed */
    ka__drop(w, &c->in, &c->in_n);
    ka__early_drop(w, c);
    c->framing = r->reply.framing;
    c->cut = (ka_cut){ 0, 0, 0 };
    c->last = c->linger = c->expects = c->held = false;
    c->told = true;                    /* there is nothing to tell of its end until ka__begins */
    ka__conn_enter(w, c, KA__BEGINNING);
}

/* Nothing follows the next answer: what was asked after it gets none. */
static void ka__answer_last(ka__worker *w, ka__conn *c)
{
    ka__drop(w, &c->in, &c->in_n);
    ka__early_drop(w, c);
    c->seq_in = c->seq_out + 1;
    c->last = c->linger = true;
    c->expects = c->held = false;
}

/* Render an answer without a head, as HTTP/0.9 has it. The close is its end. */
static void ka__answer_bare(ka__worker *w, ka__conn *c, const ka__record *r)
{
    ka__out_put(w, c, (const char *)(r + 1), r->n);
    c->seq_out = c->seq_in;
    c->last = true;
    c->expects = false;                /* 100 Continue would be taken for more of the body */
}

/* Render the answer whose turn it is. */
static void ka__answer(ka__worker *w, ka__conn *c, const ka__record *r)
{
    char room[64];
    const char *payload = (const char *)(r + 1);
    size_t fields = r->reply.fields_n, body = r->n - fields;
    if (c->state == KA__ANSWERING) ka__conn_unlist(w, c);      /* the next answer is timed anew */
    if (r->flags & KA__CLOSES) ka__answer_last(w, c);
    if (r->status == 0) {
        ka__answer_bare(w, c, r);
        return;
    }
    if (r->reply.framing) {
        ka__upgrade(w, c, r);
        return;
    }
    bool final = c->seq_out + 1 == c->seq_in, empty = r->status == 204 || r->status == 304;
    if (w->draining && final && !ka__begun(c)) c->last = true;
    ka__out_str(w, c, ka__status(r->status, room));
    ka__out_common(w, c, r->flags);
    ka__out_put(w, c, payload, fields);
    if (r->flags & KA__ENDS) ka__out_ends(w, c);
    if (c->last && final) ka__out_str(w, c, KA__STR("Connection: close\r\n"));
    else if (r->flags & KA__OLD) ka__out_str(w, c, KA__STR("Connection: keep-alive\r\n"));
    ka__out_str(w, c, empty ? KA__STR("\r\n") : ka__length_field(body, room));
    if (!(r->flags & KA__BODILESS)) ka__out_put(w, c, payload + fields, body);
    c->seq_out++;
}

/* The parent owes an answer for too long. The close is the end for all that was asked after it,
   too. What the parent says later is dropped, since nothing waits for it. */
static void ka__unanswered(ka__worker *w, ka__conn *c)
{
    ka__record r = { .status = 503, .flags = KA__CLOSES };
    ka__answer(w, c, &r);
    ka__out_flush(w, c);
    ka__conn_settle(w, c);
}

/* Keep an answer until its turn has come. */
static void ka__early_put(ka__worker *w, ka__conn *c, const ka__record *r)
{
    for (ka__early *other = c->early; other; other = other->next)
        if (other->r.reply.seq == r->reply.seq) return;      /* the first answer counts */
    ka__early *e = ka__resize(NULL, sizeof *e + r->n, 1);
    if (!e) {                          /* without this one, none after it can be given */
        ka__conn_close(w, c);
        return;
    }
    memcpy(&e->r, r, sizeof *r + r->n);
    e->next = c->early;
    c->early = e;
    ka__count(&w->buffered, (int)(sizeof *e + r->n));
}

/* Take the early answer whose turn it is, or NULL. */
static ka__early *ka__early_take(ka__conn *c)
{
    for (ka__early **at = &c->early; *at; at = &(*at)->next) {
        ka__early *e = *at;
        if (e->r.reply.seq != c->seq_out) continue;
        *at = e->next;
        return e;
    }
    return NULL;
}

static void ka__on_reply(ka__worker *w, ka__conn *c, const ka__record *r)
{
    ka__early *e;
    if (r->reply.seq - c->seq_out >= c->seq_in - c->seq_out) return;      /* answered already */
    if (r->reply.seq != c->seq_out) {
        ka__early_put(w, c, r);
        return;
    }
    ka__answer(w, c, r);
    while (ka__is_open(c) && !c->framing && (e = ka__early_take(c)) != NULL) {
        ka__answer(w, c, &e->r);
        ka__early_free(w, e);
    }
}

/* Chain a KA__REPLY or KA__SEND to the others for its connection. The chains leave before anything
   else is done, see ka__commands. */
static void ka__gather(ka__worker *w, ka__record *r)
{
    ka__conn *c = ka__conn_find(w, r->conn);
    if (!c) return;
    r->next = NULL;
    if (c->first) {
        c->final->next = r;
    } else {
        c->first = r;
        w->senders[w->senders_n++] = ka__place(w, c);
    }
    c->final = r;
}

/* Render a record for a connection that it fits. An HTTP connection takes answers. Another one
   takes bytes, unless the parent has closed it. */
static void ka__render(ka__worker *w, ka__conn *c, ka__record *r)
{
    bool talks = c->framing && !(c->last && c->parted);
    if (r->kind == KA__REPLY && !c->framing) ka__on_reply(w, c, r);
    else if (r->kind == KA__SEND && talks) ka__out_put(w, c, ka__payload(r), r->n);
}

/* Write what was gathered, all for one connection in one piece: a relay's messages of a batch go to
   and fro. Then the parent has the room of all records that were read. */
static void ka__sends_leave(ka__worker *w)
{
    for (uint32_t i = 0; i < w->senders_n; i++) {
        ka__conn *c = &w->conns[w->senders[i]];
        for (ka__record *r = c->first, *next; r && ka__is_open(c); r = next) {
            next = r->next;
            ka__render(w, c, r);
        }
        c->first = NULL;
        ka__out_flush(w, c);
        ka__conn_settle(w, c);
    }
    w->senders_n = 0;
    ka__box_release(&w->down);
}

/* The connection of that number, if it is open, and not HTTP. */
static ka__conn *ka__talker_find(ka__worker *w, uint64_t number)
{
    ka__conn *c = ka__conn_find(w, number);
    return c && c->framing && !c->unconnected ? c : NULL;
}

/* Close it, if it is still there, behind what was sent. */
static void ka__on_close(ka__worker *w, const ka__record *r)
{
    ka__conn *c = ka__talker_find(w, r->conn);
    if (!c) return;
    if (!c->last) c->last = c->linger = true;
    ka__drop(w, &c->in, &c->in_n);
    c->parted = true;
    c->held = false;
    ka__conn_settle(w, c);
}

/* If something unfinished has arrived in the old framing, its meaning in the new one is unknown. */
static void ka__on_reframe(ka__worker *w, const ka__record *r)
{
    ka__conn *c = ka__talker_find(w, r->conn);
    if (!c) return;
    if (c->in) {
        ka__conn_close(w, c);
        return;
    }
    c->framing = r->message.framing;
    c->cut = (ka_cut){ 0, 0, 0 };
}

/* ---- reading ---- */

/* Offset and length of a part of a head. */
static void ka__part(uint16_t *at, uint16_t *n, const char *head, ka_str part)
{
    *at = (uint16_t)(part.p ? part.p - head : 0);
    *n = (uint16_t)part.n;
}

/* Give the parent a request. A request that was refused has neither head nor body.
     status     0, or the status that fits what was refused
     text       the head, head_n bytes, and behind it the body */
static void ka__deliver(ka__worker *w, ka__conn *c, const ka__http *h, int status, const char *text,
                        size_t head_n, size_t body_n)
{
    ka__parts parts = { .peer = c->peer, .method_n = (uint16_t)h->method.n };
    ka__record *r = ka__box_put(&w->up, KA_REQUEST, sizeof parts + head_n + body_n);
    KA_ASSERT(r && "ka__room");
    if (head_n) {
        ka__part(&parts.target_at, &parts.target_n, text, h->target);
        ka__part(&parts.host_at, &parts.host_n, text, h->host);
        ka__part(&parts.fields_at, &parts.fields_n, text, h->fields);
        memcpy(ka__payload(r) + sizeof parts, text, head_n + body_n);
    }
    memcpy(ka__payload(r), &parts, sizeof parts);
    r->conn = ka__conn_number(w, c);
    r->status = (uint16_t)status;
    r->request.seq = c->seq_in++;
    r->request.head_n = (uint32_t)head_n;
    r->request.listener = c->listener;
    if (!h->minor && !status) r->flags |= KA__OLD;
    if (ka_is(h->method, "HEAD")) r->flags |= KA__BODILESS;
    if (h->browser) r->flags |= KA__BROWSER;
    if (!h->keep_alive) c->last = true;
}

/* Tell the parent of a connection that is not HTTP. */
static ka__record *ka__tell(ka__worker *w, const ka__conn *c, int kind, ka_str payload)
{
    ka__record *r = ka__box_put(&w->up, kind, sizeof c->peer + payload.n);
    KA_ASSERT(r && "ka__room");
    r->conn = ka__conn_number(w, c);
    r->message.framing = c->framing;
    memcpy(ka__payload(r), &c->peer, sizeof c->peer);
    if (payload.n) memcpy(ka__payload(r) + sizeof c->peer, payload.p, payload.n);
    return r;
}

/* Have the parent answer a request or message that can't be taken, and close after that. What is
   here of it, n bytes at p, tells whether it is a HEAD: then its answer has no body (RFC 9110
   s.9.3.2). */
static void ka__reject(ka__worker *w, ka__conn *c, int status, const char *p, size_t n)
{
    bool head = n >= 5 && memcmp(p, "HEAD ", 5) == 0;
    ka__http none = { .method = { "HEAD", head ? 4 : 0 } };
    c->linger = true;
    c->expects = false;
    if (!c->framing) {
        ka__deliver(w, c, &none, status, NULL, 0, 0);
    } else {
        ka__tell(w, c, KA_MESSAGE, (ka_str){ NULL, 0 })->status = (uint16_t)status;
        c->last = true;
    }
}

/* The body of a request whose head is h, in the n bytes at p behind that head.
     returns    bytes of the body; *end is where the next request begins; KA_EAGAIN; or KA_ESYNTAX
                with h->status */
static ptrdiff_t ka__body(ka__worker *w, ka__conn *c, ka__http *h, char *p, size_t n, size_t *end)
{
    if (!h->chunked) {
        size_t length = h->length < 0 ? 0 : (size_t)h->length;
        if (h->length > KA_MAX_BODY) return ka__refuse(h, 413);
        c->expects = h->expects && n == 0;
        *end = length;
        return n < length ? KA_EAGAIN : (ptrdiff_t)length;
    }
    size_t used = 0;      /* what was decoded before lies in front */
    ptrdiff_t got = ka__chunked_decode(&c->chunked, p + c->body_n, n - c->body_n, &used);
    if (got < 0) return ka__refuse(h, got == KA_ENOSPC ? 413 : 400);
    c->expects = h->expects && n == 0;
    *end = c->body_n + used;
    c->body_n += (uint32_t)got;
    if (c->chunked.done) return (ptrdiff_t)c->body_n;
    w->in_n -= (uint32_t)(used - (size_t)got);      /* the chunks' own lines are dropped */
    ka_wipe(w->in + w->in_n, used - (size_t)got);
    return KA_EAGAIN;
}

/* Deliver the next request in the scratch; false if it isn't all here, or finds no room. */
static bool ka__request(ka__worker *w, ka__conn *c)
{
    for (; c->empty_lines < KA__EMPTY_LINES; c->empty_lines++, w->in_at += 2)
        if (w->in_n - w->in_at < 2 || memcmp(w->in + w->in_at, "\r\n", 2) != 0) break;
    char *p = w->in + w->in_at;
    size_t n = w->in_n - w->in_at, end = 0;
    ka__http h;
    if (n == 0 || (n == 1 && *p == '\r')) return false;
    c->held = !ka__room(w, n);
    if (c->held) return false;
    ptrdiff_t head = ka__http_request(&h, p, n), body = KA_ESYNTAX;
    if (head >= 0) body = ka__body(w, c, &h, p + head, n - (size_t)head, &end);
    if (head == KA_EAGAIN || body == KA_EAGAIN) return false;
    if (head < 0 || body < 0) {
        ka__reject(w, c, h.status, p, n);
        return true;
    }
    c->expects = false;
    ka__deliver(w, c, &h, 0, p, (size_t)head, (size_t)body);
    c->chunked = (ka__chunked){ .room = KA_MAX_BODY };
    c->body_n = c->empty_lines = 0;
    w->in_at += (uint32_t)((size_t)head + end);
    return true;
}

/* As ka__request, for another framing. */
static bool ka__message(ka__worker *w, ka__conn *c)
{
    size_t n = w->in_n - w->in_at;
    ka_str message = { NULL, 0 };
    if (n == 0) return false;
    c->held = !ka__room(w, n);
    if (c->held) return false;
    ptrdiff_t taken = c->framing->cut(&c->cut, w->in + w->in_at, n, &message);
    if (taken == KA_EAGAIN && n <= KA__KEPT_BYTES) return false;
    if (taken < 0 || message.n > KA_MAX_BODY) {
        ka__reject(w, c, taken == KA_ESYNTAX ? 400 : 413, NULL, 0);
        return true;
    }
    if (message.p) ka__tell(w, c, KA_MESSAGE, message);
    c->cut = (ka_cut){ 0, 0, 0 };
    w->in_at += (uint32_t)taken;
    return true;
}

/* Tell the parent that no more will come. */
static void ka__finish(ka__worker *w, ka__conn *c)
{
    ka__tell(w, c, KA_CLOSED, (ka_str){ NULL, 0 });
    c->told = c->last = true;
}

/* Keep what is left of the scratch for when more arrives, or there is room in the up box. */
static void ka__keep_unread(ka__worker *w, ka__conn *c)
{
    uint32_t n = w->in_n - w->in_at;
    if (c->last) {
        if (n) c->linger = true;
        n = 0;
    }
    char *kept = n ? ka__resize(NULL, n, 1) : NULL;
    if (kept) memcpy(kept, w->in + w->in_at, n);
    ka__drop(w, &c->in, &c->in_n);
    c->in = kept;
    c->in_n = kept ? n : 0;
    ka__count(&w->buffered, (int)c->in_n);
    bool lost = n && !kept;
    if (lost && !c->held) ka__reject(w, c, 503, w->in + w->in_at, n);
    ka_wipe(w->in, w->in_n);
    if (lost && c->held) ka__conn_close(w, c);
}

/* Cut what the connection kept, and `got` bytes that were received behind it in the scratch. */
static void ka__conn_cut(ka__worker *w, ka__conn *c, size_t got)
{
    bool took = false;
    c->held = false;                   /* it is held again where the next message finds no room */
    if (c->in_n) memcpy(w->in, c->in, c->in_n);
    w->in_at = 0;
    w->in_n = c->in_n + (uint32_t)got;
    while (!c->last && (c->framing ? ka__message(w, c) : ka__request(w, c))) took = true;
    /* What follows a whole one is timed anew. But the time for an answer goes on. */
    if (took && c->state != KA__ANSWERING) ka__conn_unlist(w, c);
    ka__keep_unread(w, c);
}

/* The peer sends no more. What it asked is still answered. */
static void ka__conn_ended(ka__worker *w, ka__conn *c)
{
    if (c->framing && c->in) ka__reject(w, c, 400, NULL, 0);
    else if (c->framing) ka__finish(w, c);
    c->ended = c->last = true;
    c->linger = c->expects = false;
}

static void ka__conn_read(ka__worker *w, ka__conn *c)
{
    ptrdiff_t got = ka__sock_recv(c->sock, w->in + c->in_n, KA__READ_BYTES);
    bool lingers = c->state == KA__LINGERING;
    if (got > 0 && lingers) ka_wipe(w->in + c->in_n, (size_t)got);
    if (got == KA_EAGAIN || (got > 0 && lingers)) return;
    if (got == 0 && lingers) c->ended = true;
    if (got < 0 || lingers) {
        ka__conn_close(w, c);
        return;
    }
    if (got > 0) ka__conn_cut(w, c, (size_t)got);
    else ka__conn_ended(w, c);
    ka__conn_settle(w, c);
}

/* There may be room for what held connections have kept. Those that held first come first. */
static void ka__resume(ka__worker *w)
{
    uint32_t place;
    while ((place = w->list[KA__HELD].head) != KA__NIL &&
           ka__room(w, KA__SCRATCH)) {      /* for anything that it may hold */
        ka__conn *c = &w->conns[place];
        ka__conn_unlist(w, c);
        ka__conn_cut(w, c, 0);
        ka__conn_settle(w, c);
    }
}

static void ka__conn_write(ka__worker *w, ka__conn *c)
{
    ptrdiff_t sent = ka__sock_send(c->sock, c->out + c->out_at, c->out_n - c->out_at);
    if (sent == KA_EAGAIN) return;
    if (sent < 0) {
        ka__conn_close(w, c);
        return;
    }
    c->out_at += (uint32_t)sent;
    if (c->out_at == c->out_n) {
        ka__drop(w, &c->out, &c->out_n);
        c->out_at = 0;
    }
    ka__conn_unlist(w, c);             /* it takes something: the stall's time begins anew */
    ka__conn_settle(w, c);
}

/* Tell the parent that a connection is open, or could not be opened.
     listener   its number; -1: ka_connect's */
static void ka__opened(ka__worker *w, ka__conn *c, uint64_t tag, int listener, int error, int code)
{
    ka__record *r = ka__tell(w, c, KA_OPENED, (ka_str){ (const char *)&tag, sizeof tag });
    r->status = (uint16_t)-error;
    r->opened.listener = (int16_t)listener;
    r->opened.os_error = code;
}

/* It could not be connected. */
static void ka__connect_failed(ka__worker *w, ka__conn *c, int error)
{
    bool system = error != KA_ETIME && error != KA_ESTOPPED;
    c->connecting.error = error;
    c->connecting.os_error = system ? ka__os_code() : 0;
    ka__conn_close(w, c);
}

static void ka__connected(ka__worker *w, ka__conn *c)
{
    int r = ka__sock_connected(c->sock);
    uint64_t tag = c->connecting.tag;
    if (r < 0) {
        ka__connect_failed(w, c, r);
        return;
    }
    c->unconnected = false;
    c->peer = ka__sock_peer(c->sock);
    c->cut = (ka_cut){ 0, 0, 0 };
    ka__opened(w, c, tag, -1, KA_OK, 0);
    ka__conn_unlist(w, c);
    ka__conn_settle(w, c);
}

/* Tell the parent of a connection that is closed, or could not be opened. Its place is free. */
static void ka__gone(ka__worker *w, ka__conn *c)
{
    int error = c->connecting.error, code = c->connecting.os_error;
    if (c->unconnected) ka__opened(w, c, c->connecting.tag, -1, error, code);
    else if (c->ended) ka__tell(w, c, KA_CLOSED, (ka_str){ NULL, 0 });
    else ka__tell(w, c, KA_CLOSED, (ka_str){ NULL, 0 })->status = (uint16_t)-KA_EOFFLINE;
    ka__conn_free(w, c);
}

/* Tell the parent that an upgraded connection is one that it may send on. */
static void ka__begins(ka__worker *w, ka__conn *c)
{
    c->told = false;
    ka__opened(w, c, 0, c->listener, KA_OK, 0);
    if (w->draining) ka__finish(w, c);
    ka__conn_unlist(w, c);
    ka__conn_settle(w, c);
}

static void ka__conn_event(ka__worker *w, ka__conn *c)
{
    if (!ka__is_open(c) || c->state == KA__BEGINNING) return;
    if (c->unconnected) ka__connected(w, c);
    else if (c->watched == KA__OUT) ka__conn_write(w, c);
    else if (c->watched == KA__IN) ka__conn_read(w, c);
    else ka__conn_close(w, c);         /* watched for nothing, so it has failed */
}

/* ---- accepting ---- */

/* The parent made the socket, so that it is in the process's main table of descriptors. */
static int ka__listener_take(const ka__worker *w, ka__listener *l)
{
    l->sock = w->own_table ? ka__fd_take((int)l->theirs) : l->theirs;
    l->open = l->sock != -1;
    l->pending = !l->open;
    return l->open ? KA_OK : ka__sock_error();
}

/* Watch all listeners, or none; false if there is no room for one. Workers that share descriptors
   share newcomers, too: each newcomer wakes one of them. */
static bool ka__listeners_watch(ka__worker *w, bool watch)
{
    const int in = w->own_table ? KA__IN : KA__IN | KA__SHARED;
    bool all = true;
    for (uint32_t i = 0; i < KA_MAX_LISTENERS; i++) {
        ka__listener *l = &w->listeners[i];
        if (watch && l->pending && ka__listener_take(w, l) < 0) all = false;
        if (!l->open || l->watched == watch) continue;
        if (watch) {
            l->end = ka__sock_mine(l->sock);
            l->any = ka__ip_any(l->end);
            l->network = ka__sock_network(l->sock);
        }
        int from = watch ? KA__UNWATCHED : KA__IN, to = watch ? in : KA__UNWATCHED;
        if (ka__poller_set(&w->sleeper.poller, l->sock, i, from, to) == KA_OK) l->watched = watch;
        else all = false;
    }
    return all;
}

/* Accept no more until a connection ends, or for a moment: one may fall idle, and other workers or
   processes may hold what is missing. Meanwhile newcomers wait in the system's backlog. */
static void ka__accept_pause(ka__worker *w)
{
    w->accept_paused = true;
    w->place_freed = false;
    w->accept_again_ms = w->now_ms + KA__ACCEPT_AGAIN_MS;
    ka__listeners_watch(w, false);
}

static void ka__accept_resume(ka__worker *w)
{
    w->accept_paused = false;
    if (!ka__listeners_watch(w, true)) ka__accept_pause(w);
}

/* Close the connection that has been idle longest; not one that has bytes waiting, nor one so young
   that its first request may be on its way. Else a crowd of newcomers would push each other out. */
static bool ka__evict(ka__worker *w)
{
    uint32_t place = w->list[KA__IDLE].head;
    for (int i = 0; i < KA__ACCEPTS && place != KA__NIL; i++, place = w->conns[place].next) {
        ka__conn *c = &w->conns[place];
        if (c->due_ms - KA_IDLE_MS > w->now_ms - KA__YOUNG_MS) return false;
        if (ka__sock_waiting(c->sock) > 0) continue;
        ka__conn_close(w, c);
        return true;
    }
    return false;
}

/* Accepting has failed, not for want of descriptors. Tell the parent after a second of that. */
static void ka__accept_failed(ka__worker *w, const ka__listener *l, int error)
{
    int code = ka__os_code();
    if (++w->accept_failed != KA__ACCEPT_TRIES || !ka__room(w, 0)) return;
    ka__record *up = ka__box_put(&w->up, KA_LISTENING, sizeof l->end);
    KA_ASSERT(up && "ka__room");
    memcpy(ka__payload(up), &l->end, sizeof l->end);
    up->listening.number = (uint32_t)(l - w->listeners);
    up->listening.os_error = code;
    up->status = (uint16_t)-error;
    up->flags = KA__AILS;
}

/* Close a connection that was just made. What it has said is read, or the close would be a reset,
   and take the answer away. */
static void ka__turn_away(ka__worker *w, const ka__listener *l, ka__sock sock)
{
    static const char refusal[] = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n"
        "Retry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\ntry_later";
    if (!l->framing && ka__sock_recv(sock, w->in, sizeof w->in) != 0)
        ka__sock_send(sock, refusal, sizeof refusal - 1);
    ka__sock_close(sock);
}

static void ka__accepted(ka__worker *w, ka__conn *c, const ka__listener *l, ka__sock sock,
                         ka_end from)
{
    if (w->doorman && !w->doorman->enter(w->doorman, &from)) {
        ka__turn_away(w, l, sock);
        return;
    }
    ka__conn_open(w, c, sock, l->framing);
    c->peer = from;
    c->entered = w->doorman != NULL;
    c->listener = (uint8_t)(l - w->listeners);
    if (c->framing) ka__opened(w, c, 0, c->listener, KA_OK, 0);
    ka__conn_settle(w, c);
}

/* Accept up to `most` newcomers. At the descriptor limit one idle connection is closed for each of
   them, if somebody waits at all: Linux says EMFILE also where nobody does. */
static void ka__accept(ka__worker *w, ka__listener *l, int most)
{
    bool evicted = false;
    while (most-- > 0 && l->watched && ka__room(w, sizeof(uint64_t))) {
        ka__sock sock = -1;
        ka_end from = { .port = 0 };
        ka__conn *c = ka__conn_place(w);
        int r = c ? ka__sock_accept(l->sock, &sock, &from) : KA_ELIMIT;
        if (r == KA_EAGAIN) return;
        if (r == KA_ELIMIT && ka__sock_wait(l->sock, KA__IN, 0) != KA_OK) return;
        if (r == KA_OK) {
            ka__accepted(w, c, l, sock, from);
            evicted = false;
            w->accept_failed = 0;
        } else if (r == KA_ELIMIT && !evicted && ka__evict(w)) {
            evicted = true;
        } else if (r != KA_EOFFLINE) {
            if (r != KA_ELIMIT) ka__accept_failed(w, l, r);
            ka__accept_pause(w);
        }
    }
}

/* ---- commands, time-outs and the loop ---- */

static void ka__listeners_close(ka__worker *w)
{
    ka__listeners_watch(w, false);
    for (int i = 0; i < KA_MAX_LISTENERS; i++) {
        if (w->listeners[i].open && w->own_table) ka__sock_close(w->listeners[i].sock);
        w->listeners[i].open = w->listeners[i].pending = false;
    }
}

static void ka__on_listen(ka__worker *w, ka__record *r)
{
    ka__listener *l = &w->listeners[r->listen.number];
    ka_end bound = { .port = 0 };
    l->framing = r->listen.framing;
    l->handed = r->listen.handed;
    l->theirs = r->sock;
    int error = ka__listener_take(w, l);
    if (error == KA_OK) error = ka__sock_listen(l->sock, ka__payload(r), r->listen.port, &bound);
    int code = ka__os_code();
    if (error && l->open && w->own_table) ka__sock_close(l->sock);
    l->open = error == KA_OK;
    l->pending = false;
    if (!w->accept_paused) ka__accept_resume(w);
    ka__record *up = ka__box_put(&w->up, KA_LISTENING, sizeof bound);
    KA_ASSERT(up && "KA__MUST_BYTES");
    memcpy(ka__payload(up), &bound, sizeof bound);
    up->status = (uint16_t)-error;
    up->listening.number = r->listen.number;
    up->listening.os_error = error ? code : 0;
}

static void ka__on_adopt(ka__worker *w, const ka__record *r)
{
    ka__listener *l = &w->listeners[r->listen.number];
    l->theirs = r->sock;
    l->framing = r->listen.framing;
    l->handed = r->listen.handed;
    l->pending = true;
    if (!w->accept_paused) ka__accept_resume(w);
}

/* There is no memory to remember a ka_connect by, so it is told of at once. Of hundreds at once,
   some may find no room for that. */
static void ka__connect_lost(ka__worker *w, uint64_t tag)
{
    if (!ka__box_room(&w->up, KA__MUST_BYTES)) return;
    const ka_end unknown = { .port = 0 };
    ka__record *up = ka__box_put(&w->up, KA_OPENED, sizeof unknown + sizeof tag);
    KA_ASSERT(up && "KA__MUST_BYTES");
    memcpy(ka__payload(up), &unknown, sizeof unknown);
    memcpy(ka__payload(up) + sizeof unknown, &tag, sizeof tag);
    up->opened.listener = -1;
    up->status = (uint16_t)-KA_ENOMEM;
}

/* What comes of it is told later, as there may be no room for that now. */
static void ka__on_connect(ka__worker *w, ka__record *r)
{
    uint64_t tag;
    const char *ip = ka__payload(r) + sizeof tag, *from = ip + strlen(ip) + 1;
    ka__sock sock = -1;
    ka__conn *c = ka__conn_place(w);
    memcpy(&tag, ka__payload(r), sizeof tag);
    if (!c) {
        ka__connect_lost(w, tag);
        return;
    }
    int error = ka__sock_connect(*from ? from : NULL, ip, r->listen.port, &sock);
    bool begun = error == KA_OK || error == KA_EAGAIN;
    ka__conn_open(w, c, begun ? sock : -1, r->listen.framing);
    c->outgoing = c->unconnected = true;
    w->outgoing++;
    c->connecting.tag = tag;
    if (begun) {
        error = ka__poller_set(&w->sleeper.poller, sock, ka__token(w, c), KA__UNWATCHED, KA__OUT);
        if (error == KA_OK) c->watched = KA__OUT;
    }
    if (error) ka__connect_failed(w, c, error);
    else ka__conn_enter(w, c, KA__CONNECTING);
}

static void ka__on_drain(ka__worker *w)
{
    ka__accept_resume(w);              /* those that have connected are served */
    for (int i = 0; i < KA_MAX_LISTENERS; i++) ka__accept(w, &w->listeners[i], KA_BACKLOG);
    ka__listeners_close(w);
    w->accept_paused = false;
    w->draining = KA__SERVES;
    w->drain_until_ms = w->now_ms + KA_DRAIN_MS;
    w->finished = 0;
    for (uint32_t place = 0; place < w->conns_n; place++) {
        ka__conn *c = &w->conns[place];
        if (c->state == KA__IDLE) ka__conn_settle(w, c);
        else if (c->state == KA__CONNECTING) ka__connect_failed(w, c, KA_ESTOPPED);
    }
    ka__box_put(&w->up, KA__RELEASED, 0);
}

static void ka__on_finish(ka__worker *w)
{
    w->draining = KA__FINISHES;
    w->finished = 0;
}

/* A command that is not gathered. */
static void ka__command(ka__worker *w, ka__record *r)
{
    switch (r->kind) {
    case KA__LISTEN:  ka__on_listen(w, r); break;
    case KA__ADOPT:   ka__on_adopt(w, r); break;
    case KA__CONNECT: ka__on_connect(w, r); break;
    case KA__CLOSE:   ka__on_close(w, r); break;
    case KA__REFRAME: ka__on_reframe(w, r); break;
    case KA__DRAIN:   ka__on_drain(w); break;
    case KA__FINISH:  ka__on_finish(w); break;
    default:          w->quit = true; /* KA__QUIT */
    }
}

static void ka__commands(ka__worker *w)
{
    for (ka__record *r; (r = ka__box_next(&w->down)) != NULL; ) {
        bool gathers = r->kind == KA__REPLY || r->kind == KA__SEND;
        bool full = w->senders_n == KA__SENDERS || ka__box_passed(&w->down) > KA__SENDS_BYTES;
        if (!gathers || full) ka__sends_leave(w);
        if (gathers) ka__gather(w, r);
        else ka__command(w, r);
        ka__box_pass(&w->down, r);
    }
    ka__sends_leave(w);
}

/* The time of a connection in its state is over. */
static void ka__expired(ka__worker *w, ka__conn *c)
{
    switch (c->state) {
    case KA__READING:
        ka__reject(w, c, 408, c->in, c->in_n);
        ka__drop(w, &c->in, &c->in_n);
        ka__conn_settle(w, c);
        break;
    case KA__ANSWERING:  ka__unanswered(w, c); break;
    case KA__CONNECTING: ka__connect_failed(w, c, KA_ETIME); break;
    case KA__BEGINNING:  ka__begins(w, c); break;
    case KA__GONE:       ka__gone(w, c); break;
    default:             ka__conn_close(w, c);
    }
}

/* See to the connections whose time is over, as long as there is room to tell the parent. Bytes
   that have arrived count, even if the worker had no time yet to read them. */
static void ka__expire(ka__worker *w)
{
    for (int state = KA__IDLE; state < KA__STATES; state++) {
        for (uint32_t place; (place = w->list[state].head) != KA__NIL; ) {
            ka__conn *c = &w->conns[place];
            if (c->due_ms > w->now_ms) break;
            if (state != KA__ANSWERING && !ka__room(w, KA__SCRATCH)) break;
            if (state <= KA__READING && ka__sock_waiting(c->sock) > 0) {
                ka__conn_read(w, c);
                if (c->state != state || c->due_ms > w->now_ms) continue;
            }
            ka__expired(w, c);
        }
    }
}

/* While draining, tell the parent of the stop, for each connection that is not HTTP. A connection
   ends when the parent has said its last word. Those of ka_connect are told when no worker has any
   other. */
static void ka__drain_told(ka__worker *w)
{
    while (w->finished < w->conns_n && ka__room(w, 0)) {
        ka__conn *c = &w->conns[w->finished];
        bool talks = ka__is_open(c) && c->framing && !c->last && c->state != KA__BEGINNING;
        if (talks && c->held) {        /* the messages that it holds come first */
            if (!ka__room(w, KA__SCRATCH)) return;
            ka__conn_cut(w, c, 0);
            ka__conn_settle(w, c);
            continue;
        }
        w->finished++;
        if (!talks || (c->outgoing && w->draining != KA__FINISHES)) continue;
        ka__finish(w, c);
        ka__conn_settle(w, c);
    }
}

/* Draining is over when the last connection has ended, or the time. */
static void ka__drained(ka__worker *w)
{
    ka__drain_told(w);
    for (uint32_t place = 0; place < w->conns_n && w->now_ms >= w->drain_until_ms; place++) {
        w->conns[place].ended = true;      /* by the stop: it was not lost */
        if (ka__is_open(&w->conns[place])) ka__conn_close(w, &w->conns[place]);
    }
    size_t left = atomic_load_explicit(&w->connections, memory_order_relaxed);
    if (w->draining == KA__SERVES && left == w->outgoing) {
        ka__box_put(&w->up, KA__SERVED, 0);
        w->draining = KA__HAS_SERVED;
    } else if (w->draining == KA__FINISHES && left == 0) {
        ka__box_put(&w->up, KA__ENDED, 0);
        w->draining = KA__RUNS;      /* nothing can come any more but the order to quit */
    }
}

/* How long to sleep, for ka__poller_wait. */
static int ka__patience(const ka__worker *w)
{
    int64_t due = INT64_MAX;
    for (int state = KA__IDLE; state < KA__STATES; state++) {
        uint32_t head = w->list[state].head;
        if (head != KA__NIL && w->conns[head].due_ms < due) due = w->conns[head].due_ms;
    }
    if (w->draining && w->now_ms < w->drain_until_ms && w->drain_until_ms < due)
        due = w->drain_until_ms;
    if (w->draining && w->finished < w->conns_n) due = 0;
    if (w->accept_paused && w->accept_again_ms < due) due = w->accept_again_ms;
    if (w->list[KA__HELD].head != KA__NIL && w->now_ms + 1 < due) due = w->now_ms + 1;
    if (due == INT64_MAX) return -1;
    if (due <= w->now_ms) return 0;
    return due - w->now_ms > INT_MAX ? INT_MAX : (int)(due - w->now_ms);
}

static void ka__publish_up(ka__worker *w) { if (ka__box_publish(&w->up)) ka__wake(w->parent); }

/* Sleep until something happens, and handle it. The round begins at another place each time, so
   that one busy connection can't take all the room in the up box for ever. Listeners come last: a
   newcomer must not take a place that an event of this round still speaks of, nor push out a
   connection whose request has just arrived. Without room in the up box nothing is read: the parent
   has milliseconds of work then. */
static void ka__sockets(ka__worker *w)
{
    uint32_t tokens[KA__EVENTS], n = 0;
    ka__conns_shrink(w);
    atomic_store(&w->sleeper.asleep, 1);
    if (ka__box_empty(&w->down))
        n = (uint32_t)ka__poller_wait(&w->sleeper.poller, tokens, KA__EVENTS, ka__patience(w));
    ka__awake(&w->sleeper);
    w->now_ms = ka_now_ms();
    w->turn++;
    ka__resume(w);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = tokens[(i + w->turn) % n];
        if (token < KA_MAX_LISTENERS) continue;
        ka__conn *c = &w->conns[token - KA_MAX_LISTENERS];
        bool tells = c->watched == KA__IN || c->unconnected;
        if (!tells || ka__room(w, KA__SCRATCH)) ka__conn_event(w, c);
    }
    ka__expire(w);                     /* of a reset it is told before the newcomer in its turn */
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] < KA_MAX_LISTENERS) ka__accept(w, &w->listeners[tokens[i]], KA__ACCEPTS);
    if (w->accept_paused && (w->place_freed || w->now_ms >= w->accept_again_ms))
        ka__accept_resume(w);
    ka__publish_up(w);
    if (!ka__room(w, KA__SCRATCH)) ka_sleep_ms(1);
}

static void ka__worker_run(void *arg)
{
    ka__worker *w = arg;
    int own = w->wants_table ? ka__table_own(&w->sleeper.poller, &w->parent->poller) : 0;
    w->own_table = own > 0;
    w->quit = own < 0;
    atomic_store(&w->settled, own < 0 ? own : 1);
    ka__wake(w->parent);
    w->now_ms = ka_now_ms();
    while (!w->quit) {
        ka__commands(w);
        if (w->draining) ka__drained(w);
        ka__publish_up(w);
        if (!w->quit) ka__sockets(w);
    }
    ka__listeners_close(w);            /* here, where their numbers are known */
    for (uint32_t place = 0; place < w->conns_n; place++)
        if (ka__is_open(&w->conns[place])) ka__conn_close(w, &w->conns[place]);
}

static void ka__worker_free(ka__worker *w)
{
    ka__free(w->conns);
    ka__poller_free(&w->sleeper.poller);
    ka__box_free(&w->up);
    ka__box_free(&w->down);
    ka__free(w);
}

/* For a moment a new worker's table of descriptors has copies of all that is open. Whoever closes a
   file or binds a port after ka_server_start shall not meet them. The parent reads nothing that the
   worker wrote before it settled, but for one that has ended and was joined. Returns 1, or
   KA_E... */
static int ka__worker_settle(ka__worker *w)
{
    uint32_t none;
    int r;
    while ((r = atomic_load_explicit(&w->settled, memory_order_relaxed)) == 0) {
        atomic_store(&w->parent->asleep, 1);
        if (!atomic_load(&w->settled))      /* a worker that failed can't wake us */
            ka__poller_wait(&w->parent->poller, &none, 1, 10);
        ka__awake(w->parent);
    }
    return r;
}

static int ka__worker_start(ka__worker **out, uint32_t number, bool wants_table,
                            ka__sleeper *parent)
{
    ka__worker *w = ka__alloc_zeroed(1, sizeof *w);
    if (!w) return KA_ENOMEM;
    w->number = number;
    w->wants_table = wants_table;
    w->parent = parent;
    w->free_head = KA__NIL;
    for (int state = 0; state < KA__STATES; state++)
        w->list[state].head = w->list[state].tail = KA__NIL;
    int r = ka__poller_init(&w->sleeper.poller);
    if (r < 0) {
        ka__free(w);
        return r;
    }
    if (ka__box_init(&w->up, KA_MAILBOX) < 0 || ka__box_init(&w->down, KA_MAILBOX) < 0)
        r = KA_ENOMEM;
    if (r == KA_OK) r = ka__thread_start(&w->thread, ka__worker_run, w);
    bool runs = r == KA_OK;
    if (runs) r = ka__worker_settle(w);
    if (runs && r < 0) ka__thread_join(&w->thread);
    if (r < 0) {
        ka__worker_free(w);
        return r;
    }
    *out = w;
    return KA_OK;
}

/* ================================================================================================
   6 server

   The parent's side. Its loop is ka_wait: hand out what the workers sent. When there is nothing
   more, publish the answers that were given meanwhile, and sleep. */

/* Random bytes for the next keys, so that not each key takes a system call. They are few: whoever
   could read this memory would know keys before they are given out. */
enum { KA__POOL_KEYS = 16 };
struct ka__pool { size_t left; unsigned char bytes[KA__POOL_KEYS * KA_KEY_BYTES]; };
_Static_assert(sizeof(struct ka__pool) <= KA__PAGE, "it lies in a page of its own");

/* What was asked for by ka_listen. */
typedef struct {
    ka__sock sock;             /* -1: none */
    const ka_framing *framing;
    ka_end   asked;            /* all 0: it was none */
    uint64_t file;             /* the inode of a Unix socket's path; 0: none */
    bool     handed;           /* it was fd:N: its path is another one's */
    int      port;
    int      error, os_error;  /* why it was not even begun, which is still to be told; or 0 */
} ka__listening;

struct ka_server {
    ka__sleeper  sleeper;
    _Atomic(int) stop;
    bool         stop_sent;
    int          workers_n, turn, batch, released, served, ended;
    uint32_t     listeners_n, connects;
    ka__listening listeners[KA_MAX_LISTENERS];
    int          listening;    /* listeners that are open, or about to be */
    int          listen_error; /* of the last one that failed */
    ka__record  *current;      /* the record behind the last event, in the up box of `from` */
    ka__worker  *from;
    ka_source   *sources;
    _Atomic(int) woken;        /* ka_wake was called */
    struct ka__pool *pool;     /* NULL: the system gives no page that a fork does not copy */
    _Atomic(ka_server *) next;      /* in ka__live */
    ka_event     owed;         /* the request whose answer was refused last, if its kind is not 0 */
    _Atomic(size_t) requests;
    int64_t      now_us, now_ms;     /* read once a batch */
    ka__worker  *workers[KA_MAX_WORKERS];
};

/* As ka__key_new, by the server's pool of random bytes. */
static int ka__key_next(struct ka__pool *pool, char key[KA_KEY_TEXT], unsigned char digest[32])
{
    if (!pool) return ka__key_new(key, digest);
    if (pool->left == 0) {
        int r = ka_random(pool->bytes, sizeof pool->bytes);
        if (r < 0) return r;
        pool->left = sizeof pool->bytes;
    }
    pool->left -= KA_KEY_BYTES;
    ka__key_make(pool->bytes + pool->left, key, digest);
    return KA_OK;
}

/* ---- servers that live: other threads, and signal handlers, may come at any time. They count
        themselves in, and then look for the server in this list. ka_server_free takes the server
        out, and waits until nobody is left who may have found it. ---- */

static struct {
    _Atomic(ka_server *) first;
    _Atomic(int)         users[2];     /* calls between ka__hold and ka__let, of any server */
    _Atomic(int)         side;         /* which of the two counts the calls that begin now */
    _Atomic(int)         locked;       /* the list is being changed */
} ka__live;

/* What a call has read was read before ka_server_free sees this. */
static void ka__let(int side)
{
    atomic_fetch_sub_explicit(&ka__live.users[side], 1, memory_order_release);
}

/* Keep a server from being freed until ka__let(what this returns). KA_ENOTFOUND: the server is not
   in the list, and its memory was not looked at. The count and the look into the list, and in
   ka_server_free the change of the list and the look at the count, are sequentially consistent:
   either the call does not find the server, or it is waited for. Whichever the side is. */
static int ka__hold(const ka_server *s)
{
    int side = atomic_load_explicit(&ka__live.side, memory_order_relaxed);
    atomic_fetch_add(&ka__live.users[side], 1);
    ka_server *at = atomic_load(&ka__live.first);
    while (at && at != s) at = atomic_load(&at->next);
    if (at) return side;
    ka__let(side);
    return KA_ENOTFOUND;
}

/* Wait for the calls that have begun. Each side has been 0 once, then they have ended. Calls that
   begin meanwhile are counted on the other side, and so can't keep a side from getting 0. */
static void ka__live_wait(void)
{
    for (int side = 0; side < 2; side++) {
        atomic_store_explicit(&ka__live.side, !side, memory_order_relaxed);
        while (atomic_load(&ka__live.users[side])) ka_sleep_ms(1);
    }
}

/* The first server's place in the list, or the next one's. Only for who holds the lock. */
static ka_server *ka__live_at(_Atomic(ka_server *) *at)
{
    return atomic_load_explicit(at, memory_order_relaxed);
}

/* Put a server into the list, or take it out. */
static void ka__live_change(ka_server *s, bool lives)
{
    _Atomic(ka_server *) *at = &ka__live.first;
    while (atomic_exchange_explicit(&ka__live.locked, 1, memory_order_acquire)) ka_sleep_ms(1);
    if (lives) {
        atomic_store_explicit(&s->next, ka__live_at(at), memory_order_relaxed);
        atomic_store(at, s);
    } else {
        while (ka__live_at(at) && ka__live_at(at) != s) at = &ka__live_at(at)->next;
        if (ka__live_at(at)) atomic_store(at, ka__live_at(&s->next));
    }
    atomic_store_explicit(&ka__live.locked, 0, memory_order_release);
}

static void ka__publish_down(ka__worker *w)
{
    if (ka__box_publish(&w->down)) ka__wake(&w->sleeper);
}

/* A record for a worker. The parent may wait for room: a worker always drains its down box. */
static ka__record *ka__down(ka__worker *w, int kind, size_t payload)
{
    for (;;) {
        ka__record *r = ka__box_put(&w->down, kind, payload);
        if (r) return r;
        ka__publish_down(w);
        ka_sleep_ms(1);
    }
}

int ka_server_start(ka_server **out, int workers)
{
    *out = NULL;
    bool tables = workers >= KA_OWN_DESCRIPTORS;
    if (tables) workers -= KA_OWN_DESCRIPTORS;
    if (workers < 0 || workers > KA_MAX_WORKERS) return KA_EINVAL;
    int r = ka_network_start();
    if (r < 0) return r;
    ka_server *s = ka__alloc_zeroed(1, sizeof *s);
    if (!s) return KA_ENOMEM;
    r = ka__poller_init(&s->sleeper.poller);
    if (r < 0) {
        ka__free(s);
        return r;
    }
    atomic_init(&s->stop, 0);
    s->pool = ka__page_new();
    s->now_us = ka_now_us();
    s->now_ms = s->now_us / 1000;
    if (workers == 0) workers = 1;
    for (int i = 0; i < workers; i++) {
        r = ka__worker_start(&s->workers[i], (uint32_t)i, tables, &s->sleeper);
        if (r < 0) {
            ka_server_free(s);
            return r;
        }
        s->workers_n++;
    }
    ka__live_change(s, true);
    *out = s;
    return KA_OK;
}

void ka_admit(ka_server *s, ka_doorman *d)
{
    for (int i = 0; i < s->workers_n; i++) s->workers[i]->doorman = d;
}

int ka_listen(ka_server *s, const char *ip, int port) { return ka_listen_as(s, NULL, ip, port); }

/* Have a worker listen: on a socket of the parent's, which is in the main table of descriptors. */
static int ka__listen_begin(ka_server *s, ka__listening *l, const char *ip)
{
    ka__address a;
    size_t n = strlen(ip) + 1;
    l->sock = -1;
    l->handed = ka__is_handed(ip);
    if (!l->handed && !ka__address_read(&a, ip, l->port)) return KA_EINVAL;
    if (!l->handed) l->asked = ka__end_of(&a);
    int r = l->handed ? ka__sock_handed(ip, &l->sock) : ka__sock_new(&a, SOCK_STREAM, &l->sock);
    if (r < 0) {
        l->os_error = ka__os_code();
        l->sock = -1;
        return r;
    }
    ka__record *down = ka__down(s->workers[0], KA__LISTEN, n);
    memcpy(ka__payload(down), ip, n);
    down->sock = l->sock;
    down->listen.framing = l->framing;
    down->listen.handed = l->handed;
    down->listen.port = (uint16_t)l->port;
    down->listen.number = s->listeners_n;
    ka__publish_down(s->workers[0]);      /* the record is the worker's from here on */
    return KA_OK;
}

int ka_listen_as(ka_server *s, const ka_framing *framing, const char *ip, int port)
{
    if (s->listeners_n == KA_MAX_LISTENERS) return KA_ELIMIT;
    if (ka_is_stopping(s)) return KA_ESTOPPED;
    ka__listening *l = &s->listeners[s->listeners_n];
    *l = (ka__listening){ .framing = framing, .port = port };
    l->error = ka__listen_begin(s, l, ip);
    s->listening++;
    return (int)s->listeners_n++;
}

int ka_connect(ka_server *s, const ka_framing *framing, const char *from, const char *ip, int port,
               uint64_t tag)
{
    ka__address a, mine;
    size_t n = strlen(ip) + 1, from_n = from ? strlen(from) + 1 : 1;
    if (!framing || !ka__address_read(&a, ip, port)) return KA_EINVAL;
    if (!ka__is_target(ka__end_of(&a))) return KA_EINVAL;
    if (from && (!ka__address_read(&mine, from, 0) || mine.n != a.n)) return KA_EINVAL;
    if (from && mine.any.sa_family == AF_UNIX) return KA_EINVAL;
    if (ka_is_stopping(s)) return KA_ESTOPPED;
    ka__worker *w = s->workers[s->connects++ % (uint32_t)s->workers_n];
    ka__record *r = ka__down(w, KA__CONNECT, sizeof tag + n + from_n);
    char *p = ka__payload(r);
    memcpy(p, &tag, sizeof tag);
    memcpy(p + sizeof tag, ip, n);
    memcpy(p + sizeof tag + n, from ? from : "", from_n);
    r->listen.port = (uint16_t)port;
    r->listen.framing = framing;
    return KA_OK;
}

static void ka__listener_drop(ka__listening *l)
{
    if (l->file) ka__sock_file(l->sock, l->file);
    if (l->sock != -1) ka__sock_close(l->sock);
    l->file = 0;
    l->sock = -1;
}

/* A listener that could not be had, not even begun with: the next one that is still to be told. */
static bool ka__unlistened(ka_server *s, ka_event *ev)
{
    for (uint32_t i = 0; i < s->listeners_n; i++) {
        ka__listening *l = &s->listeners[i];
        if (l->error == KA_OK) continue;
        *ev = (ka_event){ .kind = KA_LISTENING, .error = l->error, .os_error = l->os_error,
                          .listener = (int)i, .port = l->port, .peer = l->asked,
                          .now_ms = s->now_ms };
        s->listen_error = l->error;
        s->listening--;
        l->error = KA_OK;
        return true;
    }
    return false;
}

/* All workers watch the one socket, so that it has one owner and one inode. */
static void ka__on_listening(ka_server *s, const ka__record *r, ka_event *ev)
{
    ka__listening *l = &s->listeners[r->listening.number];
    ev->error = -(int)r->status;
    ev->os_error = r->listening.os_error;
    ev->port = ev->error ? l->port : ev->peer.port;
    ev->listener = (int)r->listening.number;
    if (!ev->error && ev->peer.local && !l->handed) l->file = ka__sock_file(l->sock, 0);
    if (ev->error && r->flags != KA__AILS) {
        ka__listener_drop(l);
        s->listen_error = ev->error;
        s->listening--;
    }
    for (int i = 1; i < s->workers_n && !s->stop_sent && !ev->error; i++) {
        ka__record *adopt = ka__down(s->workers[i], KA__ADOPT, 0);
        adopt->sock = l->sock;
        adopt->listen.number = r->listening.number;
        adopt->listen.framing = l->framing;
        adopt->listen.handed = l->handed;
    }
}

/* A listener is closed when no worker watches it any more. Its number can be reused then. */
static void ka__on_released(ka_server *s)
{
    if (++s->released < s->workers_n) return;
    for (uint32_t i = 0; i < s->listeners_n; i++) ka__listener_drop(&s->listeners[i]);
}

/* When no worker has an accepted connection any more, those of ka_connect end. */
static void ka__on_served(ka_server *s)
{
    if (++s->served < s->workers_n) return;
    for (int i = 0; i < s->workers_n; i++) ka__down(s->workers[i], KA__FINISH, 0);
}

/* The error that fits the status of what was refused. */
static int ka__refusal_error(int status)
{
    switch (status) {
    case 0:                       return KA_OK;
    case 408:                     return KA_ETIME;
    case 413: case 414: case 431: return KA_ENOSPC;
    case 503:                     return KA_ENOMEM;
    default:                      return KA_ESYNTAX;
    }
}

static void ka__on_request(ka_server *s, ka__record *r, ka_event *ev)
{
    ka__parts parts;
    const char *p = ka__payload(r) + sizeof parts;
    memcpy(&parts, ka__payload(r), sizeof parts);
    ev->error = ka__refusal_error(r->status);
    ev->status = r->status;
    ev->seq = r->request.seq;
    ev->flags = r->flags;
    ev->browser = r->flags & KA__BROWSER;
    ev->listener = r->request.listener;
    ev->since_us = s->now_us;
    ka__count(&s->requests, 1);
    if (ev->status) return;
    ev->method = (ka_str){ p, parts.method_n };
    ev->target = (ka_str){ p + parts.target_at, parts.target_n };
    ev->host = (ka_str){ p + parts.host_at, parts.host_n };
    ev->fields = (ka_str){ p + parts.fields_at, parts.fields_n };
    ev->body = (ka_str){ p + r->request.head_n, r->n - sizeof parts - r->request.head_n };
}

static void ka__on_message(ka_server *s, ka__record *r, ka_event *ev)
{
    ev->error = ka__refusal_error(r->status);
    ev->framing = r->message.framing;
    ev->body = (ka_str){ ka__payload(r) + sizeof ev->peer, r->n - sizeof ev->peer };
    ka__count(&s->requests, 1);
}

static void ka__on_opened(ka__record *r, ka_event *ev)
{
    ev->error = -(int)r->status;
    ev->os_error = r->opened.os_error;
    ev->listener = r->opened.listener;
    memcpy(&ev->tag, ka__payload(r) + sizeof ev->peer, sizeof ev->tag);
}

/* Turn a record into an event; false if it is nothing for the caller of ka_wait. */
static bool ka__event_of(ka_server *s, ka__record *r, ka_event *ev)
{
    memset(ev, 0, sizeof *ev);
    ev->kind = r->kind;
    ev->now_ms = s->now_ms;
    ev->conn = r->conn;
    if (r->n) memcpy(&ev->peer, ka__payload(r), sizeof ev->peer);
    switch (r->kind) {
    case KA_REQUEST:   ka__on_request(s, r, ev); return true;
    case KA_MESSAGE:   ka__on_message(s, r, ev); return true;
    case KA_OPENED:    ka__on_opened(r, ev); return true;
    case KA_LISTENING: ka__on_listening(s, r, ev); return true;
    case KA_CLOSED:    ev->error = -(int)r->status; return true;
    case KA__RELEASED: ka__on_released(s); return false;
    case KA__SERVED:   ka__on_served(s); return false;
    default:           s->ended++; return false; /* KA__ENDED */
    }
}

/* The caller is done with the last event. If it ended its connection, the last word was said. */
static void ka__event_done(ka_server *s)
{
    ka__record *r = s->current;
    if (!r) return;
    if (r->kind == KA_CLOSED || (r->kind == KA_MESSAGE && r->status)) ka_close(s, r->conn);
    ka__box_take(&s->from->up, r);
    s->current = NULL;
}

/* ---- sources ---- */

void ka_source_add(ka_server *s, ka_source *src)
{
    ka_source **at = &s->sources;
    while (*at) at = &(*at)->after;
    src->after = NULL;
    *at = src;
}

void ka_source_remove(ka_server *s, ka_source *src)
{
    ka_source **at = &s->sources;
    while (*at && *at != src) at = &(*at)->after;
    if (*at) *at = src->after;
}

/* Read the clock. After ka_wake every source is due. The exchange reads what the last ka_wake has
   stored, and so its thread's earlier stores are seen by the sources. A plain store of 0 could come
   over the 1 of a second ka_wake without that. */
static void ka__now(ka_server *s)
{
    s->now_us = ka_now_us();
    s->now_ms = s->now_us / 1000;
    if (!atomic_load_explicit(&s->woken, memory_order_relaxed)) return;
    atomic_exchange_explicit(&s->woken, 0, memory_order_acquire);
    for (ka_source *src = s->sources; src; src = src->after) src->due_ms = s->now_ms;
}

/* An event of a source. Each source has half of what those before it leave of a batch. */
static bool ka__source_next(ka_server *s, ka_event *ev)
{
    int left = KA_BATCH;
    for (ka_source *src = s->sources; src; src = src->after) {
        left /= 2;
        if (!src->next || src->due_ms > s->now_ms || s->batch >= KA_BATCH - left) continue;
        *ev = (ka_event){ .now_ms = s->now_ms };
        if (src->next(src, ev)) return true;
    }
    return false;
}

static bool ka__source_takes(ka_server *s, ka_event *ev)
{
    for (ka_source *src = s->sources; src; src = src->after)
        if (src->take && src->take(src, ev)) return true;
    return false;
}

/* The next event, of a source or out of any up box, without waiting. */
static bool ka__event_next(ka_server *s, ka_event *ev)
{
    if (ka__unlistened(s, ev)) return true;
    if (ka__source_next(s, ev)) {
        s->batch++;
        return true;
    }
    for (int empty = 0; empty < s->workers_n && s->batch < KA_BATCH; ) {
        ka__worker *w = s->workers[s->turn];
        ka__record *r = ka__box_next(&w->up);
        if (!r) {
            empty++;
            s->turn = (s->turn + 1) % s->workers_n;
            continue;
        }
        if (!ka__event_of(s, r, ev)) {
            ka__box_take(&w->up, r);
            continue;
        }
        s->current = r;
        s->from = w;
        s->batch++;
        if (!ka__source_takes(s, ev)) return true;
        ka__event_done(s);
    }
    return false;
}

/* Send an answer down. The line Connection among its fields stays behind: the worker writes one.
     framing    for an upgrade, or NULL */
static void ka__reply_put(ka_server *s, const ka_event *ev, int flags, int status,
                          ka_str fields, ka_str connection, ka_str body, const ka_framing *framing)
{
    size_t before = connection.p ? (size_t)(connection.p - fields.p) : fields.n;
    size_t fields_n = fields.n - connection.n;
    ka__record *r = ka__down(s->workers[ev->conn >> 56], KA__REPLY, fields_n + body.n);
    char *p = ka__payload(r);
    r->conn = ev->conn;
    r->flags = (uint8_t)((ev->flags & (KA__OLD | KA__BODILESS)) | flags);
    r->status = (uint16_t)status;
    r->reply.framing = framing;
    r->reply.seq = ev->seq;
    r->reply.fields_n = (uint32_t)fields_n;
    if (before) memcpy(p, fields.p, before);
    if (fields_n > before)
        memcpy(p + before, fields.p + before + connection.n, fields_n - before);
    if (body.n) memcpy(p + fields_n, body.p, body.n);
}

static void ka__replied(const ka_server *s, const ka_event *ev, int status, size_t n)
{
    for (ka_source *src = s->sources; src; src = src->after)
        if (src->replied) src->replied(src, ev, status, ev->flags & KA__BODILESS ? 0 : n);
}

/* Answer the request whose last answer was refused, unless it was given another one meanwhile. */
static void ka__owed_pay(ka_server *s)
{
    ka_str none = { NULL, 0 };
    ka__reply_put(s, &s->owed, 0, 500, none, none, none, NULL);
    ka__replied(s, &s->owed, 500, 0);
    s->owed.kind = 0;
}

/* Send out what was answered, and begin a new batch. */
static void ka__batch_end(ka_server *s)
{
    for (ka_source *src = s->sources; src; src = src->after)
        if (src->batch_end) src->batch_end(src);
    if (s->owed.kind) ka__owed_pay(s);
    bool stop = ka_is_stopping(s) && !s->stop_sent;
    for (int i = 0; i < s->workers_n; i++) {
        if (stop) ka__down(s->workers[i], KA__DRAIN, 0);
        ka__publish_down(s->workers[i]);
    }
    s->stop_sent = s->stop_sent || stop;
    s->batch = 0;
    s->turn = (s->turn + 1) % s->workers_n;      /* a busy worker must not keep others waiting */
    ka__now(s);
}

/* Sleep until then, or until a source is due, or for ever (-1), unless something has come. */
static void ka__parent_sleep(ka_server *s, int64_t until)
{
    uint32_t none;
    for (ka_source *src = s->sources; src; src = src->after)
        if (src->next && src->due_ms != INT64_MAX && (until < 0 || src->due_ms < until))
            until = src->due_ms > 0 ? src->due_ms : 0;
    int64_t left = until - s->now_ms;
    int ms = until < 0 ? -1 : left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
    atomic_store(&s->sleeper.asleep, 1);
    bool idle = atomic_load(&s->stop) == (int)s->stop_sent && !atomic_load(&s->woken);
    for (int i = 0; i < s->workers_n; i++) idle = idle && ka__box_empty(&s->workers[i]->up);
    if (idle) ka__poller_wait(&s->sleeper.poller, &none, 1, ms);
    ka__awake(&s->sleeper);
}

int ka_wait(ka_server *s, ka_event *ev, int timeout_ms)
{
    int64_t until = -1;
    ka__event_done(s);
    for (;;) {
        if (ka__event_next(s, ev)) return KA_OK;
        bool more = s->batch == KA_BATCH;
        ka__batch_end(s);
        if (more) continue;
        if (s->ended == s->workers_n) return KA_ESTOPPED;
        if (s->listen_error && s->listening == 0 && !ka_is_stopping(s)) return s->listen_error;
        if (timeout_ms >= 0 && until < 0) until = s->now_ms + timeout_ms;
        else if (timeout_ms >= 0 && s->now_ms >= until) return KA_ETIME;
        ka__parent_sleep(s, until);
        ka__now(s);
    }
}

/* Header lines that a caller adds: each a token, a colon, a value, CRLF.
     upgrades       Upgrade may be among them
     *flags         those of KA__REPLY that follow from them
     *connection    the line Connection, which the worker writes itself
     returns        false: malformed; or one of those that the worker writes, since they frame the
                    message or tell of its connection (RFC 9110 s.7.6.1, RFC 9112 s.6); or one too
                    often */
static bool ka__fields_valid(const char *fields, bool upgrades, int *flags, ka_str *connection)
{
    static const struct { const char *name; int flag; } known[] = {
        { "content-type", KA__TYPED }, { "date", KA__DATED }, { "cache-control", KA__CACHED },
        { "connection", KA__CLOSES }, { "content-length", 0 }, { "transfer-encoding", 0 },
        { "trailer", 0 }, { "te", 0 }, { "upgrade", 0 }, { "keep-alive", 0 },
        { "proxy-connection", 0 }
    };
    ka__cursor c = { fields, fields + strlen(fields) };
    bool whole;
    while (c.p < c.end) {
        const char *line = c.p;
        size_t i = 0;
        ka_str name = ka__take(&c, KA__TOKEN, &whole), option;
        if (name.n == 0 || ka__expect(&c, ":") != KA_OK) return false;
        ka_str value = ka__take(&c, KA__VALUE, &whole);
        if (ka__expect(&c, "\r\n") != KA_OK) return false;
        while (i < sizeof known / sizeof *known && !ka__is_nocase(name, known[i].name)) i++;
        if (i == sizeof known / sizeof *known) continue;
        if (upgrades && ka__is_nocase(name, "upgrade")) continue;
        if (known[i].flag != KA__CLOSES) {
            if (!known[i].flag || *flags & known[i].flag & ~KA__CACHED) return false;
            *flags |= known[i].flag;
            continue;
        }
        if (connection->p) return false;
        *connection = (ka_str){ line, (size_t)(c.p - line) };
        while (ka__list_next(&value, &option)) {
            if (ka__is_nocase(option, "close")) *flags |= KA__CLOSES;
            else if (!ka__is_nocase(option, "keep-alive")) return false;
        }
    }
    return true;
}

static bool ka__is_owed(const ka_server *s, const ka_event *ev)
{
    return s->owed.kind && s->owed.conn == ev->conn && s->owed.seq == ev->seq;
}

/* An answer was refused: its caller may give another one, as long as the batch lasts. */
static int ka__owe(ka_server *s, const ka_event *ev, int error)
{
    if (s->owed.kind && !ka__is_owed(s, ev)) ka__owed_pay(s);
    s->owed = *ev;
    return error;
}

static int ka__reply(ka_server *s, const ka_event *ev, int flags, int status, const char *fields,
                     ka_str body, const ka_framing *framing)
{
    ka_str all = ka__text(fields), connection = { NULL, 0 };
    if (ev->kind != KA_REQUEST || ev->conn >> 56 >= (uint64_t)s->workers_n) return KA_EINVAL;
    bool odd = status == 0 ? all.n > 0 : !framing && (status < 200 || status > 599);
    bool bodiless = status == 204 || status == 205 || status == 304;
    if (odd || (bodiless && body.n > 0)) return ka__owe(s, ev, KA_EINVAL);
    if (body.n > KA_MAILBOX / 4 || all.n > KA_MAILBOX / 4 - body.n)
        return ka__owe(s, ev, KA_ENOSPC);
    if (fields && !ka__fields_valid(fields, status == 101, &flags, &connection))
        return ka__owe(s, ev, KA_EINVAL);
    if (ka__is_owed(s, ev)) s->owed.kind = 0;
    ka__reply_put(s, ev, flags, status, all, connection, body, framing);
    ka__replied(s, ev, status, body.n);
    return KA_OK;
}

int ka_reply(ka_server *s, const ka_event *ev, int status, const char *fields,
             const void *body, size_t n)
{
    return ka__reply(s, ev, 0, status, fields, (ka_str){ body, n }, NULL);
}

int ka_upgrade(ka_server *s, const ka_event *ev, int status, const char *fields,
               const ka_framing *framing)
{
    bool can = !ev->status && !(ev->flags & (KA__OLD | KA__BODILESS)) && framing;
    if (ev->kind == KA_REQUEST && (!can || (status != 200 && status != 101)))
        return ka__owe(s, ev, KA_EINVAL);
    return ka__reply(s, ev, 0, status, fields, (ka_str){ NULL, 0 }, framing);
}

/* A record for the worker of a connection, or NULL if there is no such worker. */
static ka__record *ka__down_to(ka_server *s, uint64_t conn, int kind, size_t payload)
{
    size_t worker = (size_t)(conn >> 56);
    if (worker >= (size_t)s->workers_n) return NULL;
    ka__record *r = ka__down(s->workers[worker], kind, payload);
    r->conn = conn;
    return r;
}

int ka_send(ka_server *s, uint64_t conn, const void *p, size_t n)
{
    for (size_t at = 0, part; at < n; at += part) {
        part = n - at < KA_MAILBOX / 8 ? n - at : KA_MAILBOX / 8;
        ka__record *r = ka__down_to(s, conn, KA__SEND, part);
        if (!r) return KA_EINVAL;
        memcpy(ka__payload(r), (const char *)p + at, part);
    }
    return KA_OK;
}

void ka_close(ka_server *s, uint64_t conn) { ka__down_to(s, conn, KA__CLOSE, 0); }

int ka_reframe(ka_server *s, uint64_t conn, const ka_framing *framing)
{
    ka__record *r = framing ? ka__down_to(s, conn, KA__REFRAME, 0) : NULL;
    if (!r) return KA_EINVAL;
    r->message.framing = framing;
    return KA_OK;
}

size_t ka_conn_index(const ka_server *s, uint64_t conn)
{
    return (size_t)(conn >> 32) % KA__MAX_CONNS * (size_t)s->workers_n + (size_t)(conn >> 56);
}

/* Store 1 in a flag of a server that may have been freed, and wake its parent. */
static void ka__tell_parent(ka_server *s, _Atomic(int) *flag)
{
    int side = ka__hold(s);
    if (side < 0) return;
    atomic_store(flag, 1);
    ka__wake(&s->sleeper);
    ka__let(side);
}

void ka_stop(ka_server *s) { if (s) ka__tell_parent(s, &s->stop); }
void ka_wake(ka_server *s) { if (s) ka__tell_parent(s, &s->woken); }

/* What a thread wrote before ka_stop is seen behind this, and behind ka_wait's KA_ESTOPPED. */
bool ka_is_stopping(const ka_server *s)
{
    return atomic_load_explicit(&s->stop, memory_order_acquire);
}

void ka_server_stats(const ka_server *s, ka_stats *out)
{
    *out = (ka_stats){ 0, 0, 0 };
    int side = ka__hold(s);
    if (side < 0) return;
    out->requests = atomic_load_explicit(&s->requests, memory_order_relaxed);
    for (int i = 0; i < s->workers_n; i++) {
        out->connections += atomic_load_explicit(&s->workers[i]->connections, memory_order_relaxed);
        out->buffered += atomic_load_explicit(&s->workers[i]->buffered, memory_order_relaxed);
    }
    ka__let(side);
}

void ka_server_free(ka_server *s)
{
    if (!s) return;
    for (ka_source *src; (src = s->sources) != NULL; ) {
        s->sources = src->after;
        if (src->freed) src->freed(src);
    }
    ka__live_change(s, false);
    ka__live_wait();
    for (int i = 0; i < s->workers_n; i++) {
        ka__down(s->workers[i], KA__QUIT, 0);
        ka__publish_down(s->workers[i]);
    }
    for (int i = 0; i < s->workers_n; i++) ka__thread_join(&s->workers[i]->thread);
    for (uint32_t i = 0; i < s->listeners_n; i++) ka__listener_drop(&s->listeners[i]);
    for (int i = 0; i < s->workers_n; i++) ka__worker_free(s->workers[i]);
    if (s->pool) ka_wipe(s->pool, sizeof *s->pool);
    ka__page_free(s->pool);
    ka__poller_free(&s->sleeper.poller);
    ka__free(s);
}

/* ================================================================================================
   7 keyring

   Keys are secrets: only SHA-256(key) is kept. The records, digest and ID, lie in a log of
   segments, in the order in which they were added, which is also the order of their ends. Expired
   records are dropped at the log's front, and a segment is freed when it has none left. The index
   is 1,024 small hash tables. The digest itself chooses the table and the slot: it is uniform, and
   no attacker can choose it. Each table grows alone, so growth is a step of some microseconds and
   never one long rehash. Growth does not look at the log, since a slot holds 32 bits of the hash.

       slot   { hash: 32 | place: 32 }      place: segment and offset in units of 8 bytes, plus 1;
                                            0 is empty
       record { digest: 32 bytes | end: u32 | n: u16 | ID: n bytes }, padded to 8 */

#define KA__FOR_EVER UINT32_MAX
enum {
    KA__EXPIRE_AT_ONCE = 8,          /* more than the one that comes: they never pile up */
    KA__SHARDS = 1024,
    KA__SEGMENT_BYTES = 1 << 18,
    KA__UNITS = KA__SEGMENT_BYTES / 8
};
_Static_assert(KA_MAX_ID <= 65535, "a record has 16 bits for the length of its ID");

struct ka__shard { uint64_t *slots; uint32_t capacity, used; };

/* next: the segment after this one in the log. */
struct ka__segment { uint32_t used, next; unsigned char data[KA__SEGMENT_BYTES]; };

/* end_s: seconds after the keyring's epoch. */
typedef struct { unsigned char digest[32]; uint32_t end_s; uint16_t n; char id[]; } ka__key;

static size_t ka__key_size(size_t id_n) { return (offsetof(ka__key, id) + id_n + 7) / 8 * 8; }

static ka__key *ka__key_at(const ka_keyring *k, uint32_t place)
{
    struct ka__segment *s = k->segments[(place - 1) / KA__UNITS];
    return (ka__key *)(void *)(s->data + (size_t)((place - 1) % KA__UNITS) * 8);
}

static struct ka__shard *ka__shard_of(const ka_keyring *k, const unsigned char *digest)
{
    return &k->shards[(digest[4] | (unsigned)digest[5] << 8) % KA__SHARDS];
}

static uint32_t ka__hash_of(const unsigned char *digest)
{
    return digest[0] | (uint32_t)digest[1] << 8 | (uint32_t)digest[2] << 16 |
           (uint32_t)digest[3] << 24;
}

/* Whole seconds since the epoch. */
static uint32_t ka__key_clock(const ka_keyring *k, int64_t now_ms)
{
    return now_ms > k->epoch_ms ? (uint32_t)((now_ms - k->epoch_ms) / 1000) : 0;
}

/* Where the slot of a digest is, or the empty one where it would be put. */
static uint32_t ka__slot_find(const ka_keyring *k, const struct ka__shard *shard,
                              const unsigned char *digest)
{
    uint32_t hash = ka__hash_of(digest), mask = shard->capacity - 1;
    for (uint32_t i = hash & mask; ; i = (i + 1) & mask) {
        uint64_t slot = shard->slots[i];
        if (slot == 0) return i;
        if ((uint32_t)(slot >> 32) != hash) continue;
        if (ka_eq_ct(ka__key_at(k, (uint32_t)slot)->digest, digest, 32)) return i;
    }
}

/* Make room for one more slot: at most three quarters are taken. */
static int ka__shard_grow(struct ka__shard *shard)
{
    if (shard->used + 1 <= shard->capacity / 4 * 3) return KA_OK;
    uint32_t capacity = shard->capacity ? shard->capacity * 2 : 8;
    uint64_t *slots = ka__alloc_zeroed(capacity, sizeof *slots);
    if (!slots) return KA_ENOMEM;
    for (uint32_t i = 0; i < shard->capacity; i++) {
        uint64_t slot = shard->slots[i];
        uint32_t to = (uint32_t)(slot >> 32) & (capacity - 1);
        if (slot == 0) continue;
        while (slots[to]) to = (to + 1) & (capacity - 1);
        slots[to] = slot;
    }
    ka__free(shard->slots);
    shard->slots = slots;
    shard->capacity = capacity;
    return KA_OK;
}

/* Empty a slot, moving up those behind it that would not be found any more. */
static void ka__slot_remove(struct ka__shard *shard, uint32_t hole)
{
    uint32_t mask = shard->capacity - 1;
    for (uint32_t i = (hole + 1) & mask; shard->slots[i]; i = (i + 1) & mask) {
        uint32_t home = (uint32_t)(shard->slots[i] >> 32) & mask;
        if (((i - home) & mask) < ((i - hole) & mask)) continue;
        shard->slots[hole] = shard->slots[i];
        hole = i;
    }
    shard->slots[hole] = 0;
    shard->used--;
}

/* Add a segment at the log's back. */
static int ka__segment_add(ka_keyring *k)
{
    uint32_t at = 0;
    while (at < k->segments_n && k->segments[at]) at++;
    if (at == k->segments_n) {
        if (at == UINT32_MAX / KA__UNITS) return KA_EFULL;
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers, indeed */
        struct ka__segment **more = ka__resize(k->segments, at + 1, sizeof *more);
        if (!more) return KA_ENOMEM;
        more[at] = NULL;
        k->segments = more;
        k->segments_n++;
    }
    struct ka__segment *s = ka__resize(NULL, 1, sizeof *s);
    if (!s) return KA_ENOMEM;
    ka__populate(s, sizeof *s);
    s->used = 0;
    s->next = KA__NIL;
    k->segments[at] = s;
    if (k->back != KA__NIL) k->segments[k->back]->next = at;
    else k->front = at;
    k->back = at;
    return KA_OK;
}

/* Expired keys are dropped at the log's front, and so are the segments that become empty. */
int ka_keyring_room(ka_keyring *k, int64_t now_ms, size_t more)
{
    for (int i = 0; i < KA__EXPIRE_AT_ONCE && k->count > 0; i++) {
        struct ka__segment *s = k->segments[k->front];
        if (k->front_at == s->used) {
            k->segments[k->front] = NULL;
            k->front = s->next;
            k->front_at = 0;
            ka__free(s);
            continue;
        }
        ka__key *key = (ka__key *)(void *)(s->data + k->front_at);
        if (ka__key_clock(k, now_ms) < key->end_s) break;
        struct ka__shard *shard = ka__shard_of(k, key->digest);
        ka__slot_remove(shard, ka__slot_find(k, shard, key->digest));
        k->front_at += (uint32_t)ka__key_size(key->n);
        k->count--;
    }
    return k->count + more < k->max_keys ? KA_OK : KA_EFULL;
}

/* A second begun counts, so that a key is good for ttl_s seconds at least. */
int64_t ka_keyring_end(const ka_keyring *k, int64_t now_ms)
{
    int64_t end_s = ka__key_clock(k, now_ms) + k->ttl_s + 1;
    return k->ttl_s ? k->epoch_ms + end_s * 1000 : INT64_MAX;
}

/* An end in whole seconds after the epoch. One that the clock does not reach is none. */
static uint32_t ka__key_end(const ka_keyring *k, int64_t end_ms)
{
    if (end_ms <= k->epoch_ms) return 0;
    uint64_t s = ((uint64_t)(end_ms - k->epoch_ms) + 999) / 1000;
    return s < KA__FOR_EVER ? (uint32_t)s : KA__FOR_EVER;
}

int ka_keyring_add(ka_keyring *k, const unsigned char digest[32], ka_str id, int64_t end_ms)
{
    struct ka__shard *shard = ka__shard_of(k, digest);
    size_t size = ka__key_size(id.n);
    if (id.n == 0 || id.n > KA_MAX_ID) return KA_EINVAL;
    int r = ka__shard_grow(shard);
    if (r < 0) return r;
    uint64_t *slot = &shard->slots[ka__slot_find(k, shard, digest)];
    if (*slot) return KA_OK;
    bool fits = k->back != KA__NIL && k->segments[k->back]->used + size <= KA__SEGMENT_BYTES;
    if (!fits) r = ka__segment_add(k);
    if (r < 0) return r;
    struct ka__segment *s = k->segments[k->back];
    ka__key *key = (ka__key *)(void *)(s->data + s->used);
    memcpy(key->digest, digest, 32);
    key->end_s = ka__key_end(k, end_ms);
    key->n = (uint16_t)id.n;
    memcpy(key->id, id.p, id.n);
    uint32_t place = k->back * (uint32_t)KA__UNITS + s->used / 8 + 1;
    *slot = (uint64_t)ka__hash_of(digest) << 32 | place;
    s->used += (uint32_t)size;
    shard->used++;
    k->count++;
    return KA_OK;
}

ka_str ka_keyring_find(const ka_keyring *k, const unsigned char digest[32], int64_t now_ms)
{
    const struct ka__shard *shard = ka__shard_of(k, digest);
    uint64_t slot = shard->capacity ? shard->slots[ka__slot_find(k, shard, digest)] : 0;
    if (slot == 0) return ka__text(NULL);
    const ka__key *key = ka__key_at(k, (uint32_t)slot);
    if (ka__key_clock(k, now_ms) >= key->end_s) return ka__text(NULL);
    return (ka_str){ key->id, key->n };
}

/* *place: the segment plus 1, and the offset in it. */
bool ka_keyring_next(const ka_keyring *k, uint64_t *place, ka_key *key)
{
    uint32_t segment = *place ? (uint32_t)(*place >> 32) - 1 : k->front;
    uint32_t at = *place ? (uint32_t)*place : k->front_at;
    while (segment != KA__NIL && at == k->segments[segment]->used) {
        segment = k->segments[segment]->next;
        at = 0;
    }
    if (segment == KA__NIL) return false;
    const unsigned char *p = k->segments[segment]->data + at;
    const ka__key *found = (const ka__key *)(const void *)p;
    bool ends = found->end_s != KA__FOR_EVER;
    key->digest = found->digest;
    key->id = (ka_str){ found->id, found->n };
    key->end_ms = ends ? k->epoch_ms + (int64_t)found->end_s * 1000 : INT64_MAX;
    *place = (uint64_t)(segment + 1) << 32 | (at + (uint32_t)ka__key_size(found->n));
    return true;
}

static int ka__keyring_put(ka_store *st, const unsigned char digest[32], ka_str id, int64_t now_ms,
                           const ka_ticket *t)
{
    ka_keyring *k = (ka_keyring *)(void *)st;
    (void)t;
    if (k->back == KA__NIL) k->epoch_ms = now_ms;
    int r = ka_keyring_room(k, now_ms, 0);
    return r == KA_OK ? ka_keyring_add(k, digest, id, ka_keyring_end(k, now_ms)) : r;
}

static int ka__keyring_get(ka_store *st, const unsigned char digest[32], int64_t now_ms,
                           const ka_ticket *t, ka_str *id)
{
    (void)t;
    *id = ka_keyring_find((ka_keyring *)(void *)st, digest, now_ms);
    return id->p ? KA_OK : KA_ENOTFOUND;
}

int ka_keyring_init(ka_keyring *k, size_t max_keys, int64_t ttl_s)
{
    memset(k, 0, sizeof *k);
    if (ttl_s < 0 || ttl_s > (int64_t)100 * 366 * 86400) return KA_EINVAL;
    k->store.put = ka__keyring_put;
    k->store.get = ka__keyring_get;
    k->max_keys = max_keys ? max_keys : KA_MAX_KEYS;
    k->ttl_s = ttl_s;
    k->front = k->back = KA__NIL;
    k->shards = ka__alloc_zeroed(KA__SHARDS, sizeof *k->shards);
    return k->shards ? KA_OK : KA_ENOMEM;
}

void ka_keyring_free(ka_keyring *k)
{
    for (int i = 0; k->shards && i < KA__SHARDS; i++) ka__free(k->shards[i].slots);
    for (uint32_t i = 0; i < k->segments_n; i++) ka__free(k->segments[i]);
    ka__free(k->shards);
    ka__free(k->segments);
    memset(k, 0, sizeof *k);
}

/* ---- the protocol ---- */

/* The status and the text for what a store says; 0: it answers later. */
static int ka__store_said(const ka_ticket *t, int result, ka_str id, ka_str *text)
{
    ka_store *st = t->store;
    if (result == KA_EAGAIN) return 0;
    if (!t->login) {
        st->refused_error = result;
        st->refused += result < 0;
    }
    if (result == KA_OK) {
        *text = t->login ? id : (ka_str){ t->key, KA_KEY_TEXT };
        return 200;
    }
    if (t->login && result == KA_ENOTFOUND) {
        *text = ka__text("wrong_key");
        return 403;
    }
    *text = ka__text(t->login || result == KA_EOFFLINE ? "try_later" : "server_full");
    return 503;
}

static int ka__ticket_reply(const ka_ticket *t, int status, ka_str text)
{
    const ka_event ev = { .kind = KA_REQUEST, .conn = t->conn, .seq = t->seq, .flags = t->flags,
                          .since_us = t->since_us, .tag = t->tag };
    const char *fields = status == 405 ? "Allow: POST\r\n" : NULL;
    return ka__reply(t->server, &ev, t->login ? KA__ENDS : 0, status, fields, text, NULL);
}

void ka_ticket_answer(ka_ticket *t, int result, ka_str id)
{
    ka_str text;
    int status = ka__store_said(t, result, id, &text);
    ka__ticket_reply(t, status, text);
    ka_wipe(t, sizeof *t);
}

/* As ka__auth_answer. */
static int ka__auth_ask(ka_ticket *t, ka_str value, int64_t now_ms, ka_str *text)
{
    unsigned char digest[32];
    char id[KA_MAX_ID];
    ptrdiff_t n = ka_percent_decode(id, sizeof id, value);
    if (n <= 0 || !ka__printable(id, (size_t)n)) return 400;
    ka_str asked = { id, (size_t)n };
    int r = ka__key_next(t->server->pool, t->key, digest);
    if (r == KA_OK) r = t->store->put(t->store, digest, asked, now_ms, t);
    return ka__store_said(t, r, asked, text);
}

/* As ka__auth_answer. */
static int ka__auth_login(ka_ticket *t, ka_str value, int64_t now_ms, ka_str *text)
{
    unsigned char digest[32] = { 0 };
    char key[KA_KEY_TEXT];
    ka_str id = { NULL, 0 };
    ptrdiff_t n = ka_percent_decode(key, sizeof key, value);      /* KA_E...: it is no key */
    int r = ka__key_digest(digest, (ka_str){ key, n > 0 ? (size_t)n : 0 });
    ka_wipe(key, sizeof key);
    r = r == KA_OK || t->store->malformed ? t->store->get(t->store, digest, now_ms, t, &id)
                                          : KA_ENOTFOUND;
    return ka__store_said(t, r, id, text);
}

/* The status and the text of the answer; 0: the store answers later. */
static int ka__auth_answer(ka_ticket *t, const ka_event *ev, ka_str *text)
{
    ka_str rest = ev->body, name, value, other;
    *text = ka__text("wrong_query");
    if (ev->status) return ev->status;
    if (!ka_is(ev->method, "POST")) return 405;
    if (ev->browser && !(t->store->page && t->store->page(ev, t->store->hosts))) return 403;
    if (ka_form_next(&rest, &name, &value) < 0 || value.n == 0) return 400;
    if (ka_form_next(&rest, &other, &other) != KA_ENOTFOUND) return 400;
    if (t->login) return ka__auth_login(t, value, ev->now_ms, text);
    return ka_is(name, "ask_key") ? ka__auth_ask(t, value, ev->now_ms, text) : 400;
}

static ka_ticket ka__ticket_of(ka_server *s, ka_store *st, const ka_event *ev)
{
    static const char login[] = "login=";
    size_t n = sizeof login - 1;
    return (ka_ticket){
        .server = s, .store = st, .conn = ev->conn, .seq = ev->seq, .flags = ev->flags,
        .since_us = ev->since_us, .tag = ev->tag,
        .login = ev->body.n >= n && memcmp(ev->body.p, login, n) == 0,
    };
}

int ka_auth(ka_server *s, ka_store *store, const ka_event *ev)
{
    ka_ticket t = ka__ticket_of(s, store, ev);
    ka_str text;
    if (ev->kind != KA_REQUEST) return KA_EINVAL;
    int status = ka__auth_answer(&t, ev, &text);
    bool foreign = status == 403 && ka_is(text, "wrong_query");
    int r = status ? ka__ticket_reply(&t, status, text) : KA_OK;
    ka_wipe(t.key, sizeof t.key);
    return foreign ? KA_EPERM : r;
}

/* ================================================================================================
   8 client

   One request at a time on one connection, blocking. Each attempt has a deadline. */

static void ka__client_drop(ka_client *c)
{
    if (c->open) ka__sock_close((ka__sock)c->sock);
    c->open = false;
}

void ka_client_close(ka_client *c)
{
    ka__client_drop(c);
    ka_wipe(c->buf, sizeof c->buf);      /* it may hold a key */
}

/* Note the system's code, close the connection, and return the error. */
static int ka__client_failed(ka_client *c, int error)
{
    c->os_error = ka__os_code();
    ka__client_drop(c);
    return error;
}

/* Wait until the connection can be read or written, within the attempt's time. */
static int ka__client_wait(ka_client *c, int want, int64_t until)
{
    int left, r = KA_EAGAIN;
    while (r == KA_EAGAIN && (left = ka__left(until)) > 0)
        r = ka__sock_wait((ka__sock)c->sock, want, left);
    return r == KA_EAGAIN ? KA_ETIME : r;
}

static int ka__client_connect_to(ka_client *c, const char *ip, int64_t until)
{
    ka__sock s;
    int r = ka__sock_connect(NULL, ip, c->port, &s);
    if (r == KA_EADDR || r == KA_EINUSE) r = KA_EOFFLINE;      /* no port is free now */
    if (r < 0 && r != KA_EAGAIN) return ka__client_failed(c, r);
    c->sock = s;
    c->open = true;
    if (r == KA_EAGAIN) r = ka__client_wait(c, KA__OUT, until);
    if (r == KA_OK) r = ka__sock_connected(s);
    if (r < 0) return ka__client_failed(c, r);
    c->mine = ka__sock_mine(s);
    c->theirs = ka__sock_peer(s);
    return KA_OK;
}

/* Each address has an equal part of the time that is left. */
static int ka__client_connect(ka_client *c, int64_t until)
{
    const char *ips = c->ip;
    char ip[KA_IP_TEXT + 1];
    int parts = 1, r = KA_EINVAL;
    /* An idle connection that is readable is replaced. The server closed it, or sent bytes, which
       must not be taken for the answer to the next request (RFC 9112 s.9.2). */
    if (c->open && ka__sock_wait((ka__sock)c->sock, KA__IN, 0) == KA_ETIME) return KA_OK;
    ka__client_drop(c);
    for (const char *p = ips; *p; p++) parts += *p == ',';
    for (; r < 0 && ka_next_ip(&ips, ip); parts--)
        r = ka__client_connect_to(c, ip, until - ka__left(until) / parts * (parts - 1));
    return r;
}

static int ka__client_send(ka_client *c, size_t n, int64_t until)
{
    for (size_t sent = 0; sent < n; ) {
        ptrdiff_t r = ka__sock_send((ka__sock)c->sock, c->buf + sent, n - sent);
        if (r == KA_EAGAIN) r = ka__client_wait(c, KA__OUT, until);
        if (r < 0) return ka__client_failed(c, (int)r);
        sent += (size_t)r;
    }
    return KA_OK;
}

/* Receive more bytes of the answer, behind the n bytes in buf. Returns their number, 0 at the
   connection's end, or KA_E... */
static ptrdiff_t ka__client_recv(ka_client *c, size_t n, int64_t until)
{
    if (n == sizeof c->buf) return ka__client_failed(c, KA_EPROTO);
    if (ka_now_ms() >= until) return ka__client_failed(c, KA_ETIME);
    for (;;) {
        ptrdiff_t got = ka__sock_recv((ka__sock)c->sock, c->buf + n, sizeof c->buf - n);
        if (got == KA_EAGAIN) got = ka__client_wait(c, KA__IN, until);
        else if (got >= 0) return got;
        if (got < 0) return ka__client_failed(c, (int)got);
    }
}

/* Read the head of an answer to the front of buf. Interim answers are skipped (RFC 9110 s.15.2).
     *n         the bytes in buf, of the head and what came behind it
     returns    the bytes of the head, or KA_E... */
static ptrdiff_t ka__client_head(ka_client *c, ka__http *h, size_t *n, int64_t until)
{
    for (*n = 0; ; ) {
        ptrdiff_t head = ka__http_response(h, c->buf, *n);
        if (head >= 0 && h->status >= 200) return head;
        if (head >= 0 && h->status != 101) {
            memmove(c->buf, c->buf + head, *n - (size_t)head);
            *n -= (size_t)head;
            continue;
        }
        if (head != KA_EAGAIN) return ka__client_failed(c, KA_EPROTO);
        ptrdiff_t got = ka__client_recv(c, *n, until);
        if (got <= 0) return got < 0 ? got : ka__client_failed(c, KA_EOFFLINE);
        *n += (size_t)got;
    }
}

/* Read the body (RFC 9112 s.6.3) at c->buf + head. n bytes of buf are received, the head included.
   If more bytes follow the body, the connection is not used again: nobody asked for them.
     returns    the length of the body, or KA_E... */
static ptrdiff_t ka__client_body(ka_client *c, ka__http *h, size_t head, size_t n, int64_t until)
{
    ka__chunked chunked = { .room = KA_MAX_BODY };
    bool to_end = !h->chunked && h->length < 0, empty = h->status == 204 || h->status == 304;
    size_t body = 0, used;      /* body: the bytes of it that are decoded, or received */
    for (;;) {
        if (h->chunked && !empty) {
            char *next = c->buf + head + body;
            ptrdiff_t got = ka__chunked_decode(&chunked, next, n - head - body, &used);
            if (got < 0) return ka__client_failed(c, KA_EPROTO);
            if (head + body + used < n) h->keep_alive = false;
            body += (size_t)got;
            n = head + body;
            if (chunked.done) return (ptrdiff_t)body;
        } else {
            /* A length of -1 means up to the connection's end: unsigned, it is the largest. */
            uint64_t whole = empty ? 0 : (uint64_t)h->length;
            body = n - head;
            if (body > whole) h->keep_alive = false;
            if (body >= whole) return (ptrdiff_t)whole;
        }
        ptrdiff_t got = ka__client_recv(c, n, until);
        if (got == 0 && to_end) return (ptrdiff_t)body;
        if (got <= 0) return got < 0 ? got : ka__client_failed(c, KA_EOFFLINE);
        n += (size_t)got;
    }
}

/* Does the answer's Keyauth-Ends name this connection? NULL: yes, or there is no such field. Else
   the reason, in words. If only the network namespace differs, the server is in another one. */
static const char *ka__client_between(ka_client *c, const ka__http *h)
{
    static const char
        proxy[] = "a proxy or forwarder stands between client and server; stop the server by hand",
        elsewhere[] = "the server is on another machine, or in a container; stop it there";
    char mine[KA__ENDS_TEXT + 1], *end = NULL;
    ka_str ends;
    size_t i = 0, spaces = 0;
    int r = ka_field(h->fields, "Keyauth-Ends", &ends);
    c->handed = 0;
    if (r == KA_ENOTFOUND) return NULL;
    if (r < 0) return proxy;
    size_t n = ka__ends_text(mine, c->mine, c->theirs, ka__sock_network((ka__sock)c->sock));
    for (; i < n && i < ends.n && mine[i] == ends.p[i]; i++) spaces += mine[i] == ' ';
    if (i == n && i == ends.n) return NULL;
    if (i == n && ends.p[n] == ' ') c->handed = (uint32_t)strtoul(ends.p + n, &end, 10);
    if (c->handed && end == ends.p + ends.n) return NULL;
    return spaces == 2 ? elsewhere : proxy;
}

static int ka__client_attempt(ka_client *c, const char *method, ka_str body, ka_str *answer,
                              int64_t until)
{
    const char *type = c->type ? c->type : "application/x-www-form-urlencoded";
    const char *host = c->host ? c->host : c->ip;
    if (strncmp(host, "unix:", 5) == 0) host = "localhost";
    const size_t host_n = strcspn(host, ",%");      /* without its interface (RFC 6874) */
    const bool six = memchr(host, ':', host_n) != NULL;
    ka__http h;
    size_t n;
    int head_n = snprintf(c->buf, KA_MAX_HEAD, "%s %s HTTP/1.1\r\nHost: %s%.*s%s:%d\r\n"
                          "Content-Type: %s\r\nContent-Length: %d\r\n\r\n", method,
                          c->target ? c->target : "/", six ? "[" : "", (int)host_n, host,
                          six ? "]" : "", c->port, type, (int)body.n);
    if (head_n < 0 || head_n >= KA_MAX_HEAD) return KA_EINVAL;
    int r = ka__client_connect(c, until);
    if (r < 0) return r;
    if (body.n) memcpy(c->buf + head_n, body.p, body.n);
    r = ka__client_send(c, (size_t)head_n + body.n, until);
    if (r < 0) return r;
    ptrdiff_t head = ka__client_head(c, &h, &n, until);
    if (head < 0) return (int)head;
    c->between = ka__client_between(c, &h);
    ptrdiff_t length = ka__client_body(c, &h, (size_t)head, n, until);
    if (length < 0) return (int)length;
    if (!h.keep_alive || (h.length < 0 && !h.chunked)) ka__client_drop(c);
    *answer = (ka_str){ c->buf + head, (size_t)length };
    return h.status;
}

/* Are these addresses that can be connected to? */
static bool ka__client_ip_ok(const ka_client *c)
{
    const char *ips = c->ip;
    char ip[KA_IP_TEXT + 1];
    ka__address a;
    do {
        if (!ka_next_ip(&ips, ip) || !ka__address_read(&a, ip, c->port)) return false;
        if (!ka__is_target(ka__end_of(&a))) return false;
    } while (*ips);
    return true;
}

/* May this be a field's value (RFC 9110 s.5.5)? Whether it fits is seen when the head is made. */
static bool ka__client_value_ok(const char *text, int set)
{
    const char *p = text;
    while (ka__in(set, *p)) p++;
    return p > text && *p == 0 && ka__in(KA__TARGET, *text);
}

/* The miss that an answer means: Redis is down, or there is no room for a key. Else the status. */
static int ka__client_miss(int status, const ka_str *answer)
{
    if (status != 503 && status != 429) return status;
    if (ka_is(*answer, "try_later")) return KA_EAGAIN;
    return ka_is(*answer, "server_full") ? KA_EFULL : status;
}

/* As ka_client_post. */
static int ka__client_ask(ka_client *c, const char *method, ka_str body, ka_str *answer)
{
    const int64_t end = c->until_ms > 0 ? c->until_ms : INT64_MAX;
    const int attempt_ms = c->attempt_ms > 0 ? c->attempt_ms : KA_ATTEMPT_MS;
    if (body.n > KA_MAX_BODY || !ka__client_ip_ok(c)) return KA_EINVAL;
    if (c->host && !ka__client_value_ok(c->host, KA__TARGET)) return KA_EINVAL;
    if (c->target && !ka__client_value_ok(c->target, KA__TARGET)) return KA_EINVAL;
    if (c->type && !ka__client_value_ok(c->type, KA__VALUE)) return KA_EINVAL;
    int r = ka_network_start();
    if (r < 0) return ka__client_failed(c, r);
    for (int misses = 1, delay = KA_RETRY_FIRST_MS; ; misses++, delay += KA_RETRY_STEP_MS) {
        int64_t until = ka_now_ms() + attempt_ms;
        r = ka__client_attempt(c, method, body, answer, until < end ? until : end);
        bool lost = r == KA_EOFFLINE || r == KA_ETIME;
        if (lost) ka__client_drop(c);
        else r = ka__client_miss(r, answer);
        if (!lost && r != KA_EAGAIN && r != KA_EFULL) return r;
        if (ka_now_ms() + delay >= end) return r == KA_ETIME ? KA_EOFFLINE : r;
        if (c->on_miss) c->on_miss(c->arg, misses, delay, r);
        ka_sleep_ms(delay);
    }
}

int ka_client_post(ka_client *c, const char *body, size_t n, ka_str *answer)
{
    return ka__client_ask(c, "POST", (ka_str){ body, n }, answer);
}

int ka_client_get(ka_client *c, ka_str *answer)
{
    return ka__client_ask(c, "GET", (ka_str){ NULL, 0 }, answer);
}

#endif /* KEYAUTH_IMPLEMENTATION */

/* LICENCE: take whichever you prefer. What changed with each version is in docs/CHANGELOG.md.
   ------------------------------------------------------------------------------------------------
   A - MIT

   Copyright (c) 2026 the keyauth authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software
   and associated documentation files (the "Software"), to deal in the Software without
   restriction, including without limitation the rights to use, copy, modify, merge, publish,
   distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
   Software is furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
   BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
   ------------------------------------------------------------------------------------------------
   B - Public domain (www.unlicense.org)

   This is free and unencumbered software released into the public domain. Anyone is free to copy,
   modify, publish, use, compile, sell, or distribute this software, either in source code form or
   as a compiled binary, for any purpose, commercial or non-commercial, and by any means.

   In jurisdictions that recognize copyright laws, the author or authors of this software dedicate
   any and all copyright interest in the software to the public domain. We make this dedication for
   the benefit of the public at large and to the detriment of our heirs and successors. We intend
   this dedication to be an overt act of relinquishment in perpetuity of all present and future
   rights to this software under copyright law.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
   BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
   LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
   CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
