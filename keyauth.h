/* keyauth.h - the authentication handshake, and the server loop under it, in one C header.

   A worker thread speaks HTTP/1.1, the parent thread keeps the keys, and the two talk through an
   atomic mailbox. Linux, Windows, macOS; C11; no packages. Public domain or MIT: see the end.

   HOW TO INCLUDE
     In ONE .c file of your project, before any other include:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
     Everywhere else (C or C++) just #include "keyauth.h". Compile with
         cc -O2 -pthread yours.c                                Linux, macOS
         gcc -O2 yours.c -lws2_32 -lbcrypt -liphlpapi           Windows (MinGW)
         cl /std:c11 /experimental:c11atomics /O2 yours.c       Windows (MSVC; written for, never tried)

   QUICK START: a whole authentication server (it is examples/quickstart.c)
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

   CONTENTS (a section calls only sections above it)
     1 platform   clocks, random, threads, sockets, files, poller, processes; all the #ifdefs are here
     2 bytes      memory, base64, hex, UUIDs, SHA-256, constant-time compare, wipe
     3 text       HTTP/1.1 messages, chunked bodies, form fields, JSON, RESP
     4 mailbox    a ring of records between two threads, and how its reader sleeps
     5 worker     listeners, connections, framings, time-outs, answers in order
     6 server     what the parent thread calls
     7 redis      commands to a Redis server, pipelined, and what it publishes
     8 keyring    key -> ID, its journal or Redis, and the ask_key / login protocol
     9 log        lines that are on disk before they are answered
     10 client    one request with its retries; killing the server behind a connection

   ERRORS
     0 or more is success, and is the count where there is one; less than 0 is one of KA_E...
     The library never prints, exits or aborts, and keeps no state but in the objects you hold
     (two exceptions: interrupts and standard input are the process's, so ka_stop_on_interrupt and ka_read_input
     keep their server).

   LIMITS
     IPv4 only. No TLS: use it on loopback, or behind a TLS proxy. One process holds the keys, or one Redis. */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_H)
#  ifndef _GNU_SOURCE
#    define _GNU_SOURCE 1        /* accept4 on Linux; plain -std=c11 would hide it, and POSIX with it */
#  endif
#  ifndef _DARWIN_C_SOURCE
#    define _DARWIN_C_SOURCE 1
#  endif
#  if defined(__linux__) && !defined(_FILE_OFFSET_BITS) && !defined(_TIME_BITS)
#    define _FILE_OFFSET_BITS 64 /* 32-bit glibc: files beyond 2 GiB, */
#    define _TIME_BITS 64        /* and from 2.34 on, a clock beyond 2038 */
#  endif
#endif

#ifndef KEYAUTH_H
#define KEYAUTH_H

#define KA_VERSION "1.5.0"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------
   Configuration. Define any of these before the include, the same in every file that includes it. */

#ifndef KADEF
#define KADEF extern              /* linkage; static __attribute__((unused)) keeps all in one file */
#endif
#ifndef KA_MAX_HEAD
#define KA_MAX_HEAD 8192          /* bytes of a request line and its header fields: 414 or 431 beyond; at least 512 */
#endif
#ifndef KA_MAX_BODY
#define KA_MAX_BODY 4096          /* bytes of a body, decoded: 413 beyond */
#endif
#ifndef KA_MAX_CHUNK_LINE
#define KA_MAX_CHUNK_LINE 256     /* bytes of a chunk's size and extensions: 400 beyond */
#endif
#ifndef KA_MAX_PIPELINED
#define KA_MAX_PIPELINED 1024     /* requests of a connection that wait for answers; beyond, it isn't read */
#endif
#ifndef KA_MAX_UNSENT
#define KA_MAX_UNSENT 262144      /* answers kept for a peer that does not read; beyond, it is closed */
#endif
#ifndef KA_REQUEST_MS
#define KA_REQUEST_MS 10000       /* from a request's first byte to its last: 408 beyond */
#endif
#ifndef KA_IDLE_MS
#define KA_IDLE_MS 60000          /* a connection without a request is closed after this */
#endif
#ifndef KA_STALL_MS
#define KA_STALL_MS 30000         /* a peer that takes no byte of its answer is closed after this */
#endif
#ifndef KA_LINGER_MS
#define KA_LINGER_MS 2000         /* after a refusal: how long to read on, so that the answer arrives */
#endif
#ifndef KA_DRAIN_MS
#define KA_DRAIN_MS 12000         /* after ka_stop: how long requests under way may take to finish */
#endif
#ifndef KA_BACKLOG
#define KA_BACKLOG 4096           /* connections that the system may hold before they are accepted */
#endif
#ifndef KA_MAILBOX
#define KA_MAILBOX (KA_MAX_HEAD + KA_MAX_BODY <= 16384 ? 1u << 18 : 1u << 20)      /* bytes of a ring, two a worker: a
                                     power of two, at least 2 * (KA_MAX_HEAD + KA_MAX_BODY + 65536). An answer
                                     has a quarter of it at most. Small ones stay in the cache */
#endif
#ifndef KA_MAX_ID
#define KA_MAX_ID 256             /* bytes of an ID, percent-decoded */
#endif
#ifndef KA_MAX_KEYS
#define KA_MAX_KEYS 1000000       /* keys in a keyring by default: some 150 MB with IDs of 88 bytes */
#endif
#ifndef KA_ATTEMPT_MS
#define KA_ATTEMPT_MS 10000       /* client: one attempt, from connecting to the answer's last byte */
#endif
#ifndef KA_RETRY_FIRST_MS
#define KA_RETRY_FIRST_MS 100     /* client: the wait after the first miss; */
#endif
#ifndef KA_RETRY_STEP_MS
#define KA_RETRY_STEP_MS 5        /* every further wait is this much longer */
#endif
#ifndef KA_REDIS_MS
#define KA_REDIS_MS 3000          /* Redis: a connection of which nothing is heard for so long, and a third of it more at most, is lost.
                                     Asked for a word (PING) three times meanwhile */
#endif
#ifndef KA_REDIS_RETRY_MS
#define KA_REDIS_RETRY_MS 100     /* Redis: the wait before it is connected to again; twice as long each time, up to KA_REDIS_MS */
#endif
#ifndef KA_REDIS_WAITING
#define KA_REDIS_WAITING 65536    /* Redis: commands that wait for their replies, at most, */
#endif
#ifndef KA_REDIS_BYTES
#define KA_REDIS_BYTES 8388608    /* and the bytes of them */
#endif
/* In the implementing file also, all or none: KA_MALLOC(n), KA_REALLOC(p, n), KA_FREE(p); KA_ASSERT(x). The workers
   call them too, and on Linux have descriptors of their own: if they use any above 2, define KA_ONE_TABLE.
   If what they call is declared by a system header that comes first, compile with -D_GNU_SOURCE. */

enum {
    KA_MAX_WORKERS = 64,          /* a connection's number has 8 bits for its worker */
    KA_MAX_LISTENERS = 16,        /* ka_listen calls of one server */
    KA_BATCH = 256,               /* requests after which answers are published, however many more there are */
    KA_KEY_BYTES = 64,            /* a key or a fresh ID: so many random bytes, */
    KA_KEY_TEXT = 88,             /* and so many characters of base64 */
    KA_UUID_TEXT = 36,            /* characters of a UUID, */
    KA_UTC_TEXT = 27,             /* and of a time: 2026-11-21T09:30:00.123456Z */
    KA_MAX_DEPTH = 32,            /* objects and arrays within each other in a JSON text */
    KA_MAX_ANSWER = KA_MAX_ID > KA_KEY_TEXT ? KA_MAX_ID : KA_KEY_TEXT
};

/* ------------------------------------------------------------------------------------------------
   Errors and strings */

#define KA_ERRORS(X)                                                                              \
    X(KA_EAGAIN,   -1,  "incomplete: more bytes are needed")                                      \
    X(KA_ESYNTAX,  -2,  "malformed")                                                              \
    X(KA_ENOSPC,   -3,  "does not fit in the space given")                                        \
    X(KA_ENOMEM,   -4,  "out of memory")                                                          \
    X(KA_ERANDOM,  -5,  "the system gives no random bytes")                                       \
    X(KA_EINVAL,   -6,  "an argument is out of its range")                                        \
    X(KA_EOS,      -7,  "a system call failed")                                                   \
    X(KA_ETIME,    -8,  "timed out")                                                              \
    X(KA_ESTOPPED, -9,  "the server has stopped")                                                 \
    X(KA_EINUSE,   -10, "the address is in use by another program")                               \
    X(KA_EADDR,    -11, "the address is not one of this machine's")                               \
    X(KA_EPERM,    -12, "not permitted")                                                          \
    X(KA_ELIMIT,   -13, "out of descriptors or buffers")                                          \
    X(KA_EOFFLINE, -14, "the server is offline")                                                  \
    X(KA_EPROTO,   -15, "the peer does not speak the protocol")                                   \
    X(KA_EFULL,    -16, "the keyring is full")                                                    \
    X(KA_ENOTFOUND,-17, "not found")                                                              \
    X(KA_EDAMAGED, -18, "the journal is damaged")

enum {
    KA_OK = 0,
#define KA__ENUM(name, value, text) name = (value),
    KA_ERRORS(KA__ENUM)
#undef KA__ENUM
    KA__ERRORS_END = 0
};

/* The text of an error, in English; "success" for 0 and more. Static; any thread. */
KADEF const char *ka_error_text(int error);

/* n bytes at p, without a NUL at the end; borrowed from where the function says. {NULL, 0}: none. */
typedef struct { const char *p; size_t n; } ka_str;

/* Is s this text, to the letter? */
KADEF bool ka_is(ka_str s, const char *text);

/* Is s UTF-8 (RFC 3629): none of it overlong, a surrogate or beyond U+10FFFF? */
KADEF bool ka_is_utf8(ka_str s);

/* ------------------------------------------------------------------------------------------------
   1 platform. All of these may be called from any thread. */

/* Milliseconds of a clock that never jumps; its zero is arbitrary (clock_gettime(2), CLOCK_MONOTONIC;
   QueryPerformanceCounter). */
KADEF int64_t ka_now_ms(void);

/* The same clock in microseconds. */
KADEF int64_t ka_now_us(void);

/* Sleep for ms milliseconds; a signal ends it early. */
KADEF void ka_sleep_ms(int ms);

/* Fill n bytes from the system's CSPRNG (getrandom, getentropy, BCryptGenRandom).
     returns    KA_OK, or KA_ERANDOM: then out holds nothing of use, and there is no plan B */
KADEF int ka_random(void *out, size_t n);

/* Microseconds since 1970, UTC, by the system's calendar clock, which can be set and so can jump. */
KADEF int64_t ka_wall_us(void);

/* Replace a file by n bytes, at once for whoever reads it, or make it, and the folders on its way; mode 0600. It is
   not synced. Beside it, path.new is written first. A path is for one thread of one process at a time.
     returns    KA_OK, or KA_EINVAL (a path that is empty, over 4,000 bytes, or a folder's), KA_ENOTFOUND, KA_ENOSPC, KA_EPERM
                (Windows: a folder's, too), KA_EINUSE, KA_ELIMIT, KA_EOS: then the file is as it was */
KADEF int ka_file_put(const char *path, const void *p, size_t n);

/* Remove a file, if it is there. KA_OK, or KA_EPERM, KA_EOS... */
KADEF int ka_file_remove(const char *path);

/* The IPv4 address of a host's name, the first one that it has, or of a numeric address itself (getaddrinfo(3)). It may take
   seconds: call it before there is anything to serve.
     returns    KA_OK; KA_ENOTFOUND: no such name, or none that has such an address; KA_ETIME: no name server answers;
                KA_ENOMEM, KA_EOS */
KADEF int ka_resolve(const char *host, char ip[16]);

/* Is this descriptor, 0 to 2, a terminal? */
KADEF bool ka_is_terminal(int fd);

/* Raise this process's descriptor limit as far as it goes without rights (setrlimit(2)). Before ka_server_start: its
   workers take the limit that they find.
     *each      each worker of a server has as many of its own (Linux; see ka_server_start); else they share them
     returns    the limit, INT_MAX where there is none; or KA_EOS */
KADEF int ka_descriptors_raise(bool *each);

typedef struct {
    int64_t cpu_us;          /* time on processors, user's and system's, of all threads since the process began */
    size_t  memory;          /* bytes of it that are in memory now, without the kernel's (its sockets...) */
} ka_usage;

/* What this process uses (getrusage(2), and /proc/self/statm or proc_pid_rusage; GetProcessTimes and GetProcessMemoryInfo).
     returns    KA_OK, or KA_EOS, KA_ELIMIT and others: then all is 0 */
KADEF int ka_process_usage(ka_usage *out);

/* Give what was freed back to the system, as far as the allocator can (malloc_trim(3) of glibc; nothing elsewhere). For
   when a crowd has gone: it takes milliseconds. */
KADEF void ka_memory_trim(void);

/* A child process: another run of this program. */
typedef struct {
    int64_t  pid;            /* 0: none */
    intptr_t process, out;   /* its own: a handle, and the end of a pipe */
    bool     told;           /* it was told to end */
    size_t   n;              /* bytes of text */
    char     text[1024];
} ka_child;

/* Start this program again (its image is found as by ka_restart), with its standard output in a pipe to us, its standard
   input empty, and the standard error that we have. It has none of keyauth's descriptors and no signal handlers; what
   was ignored stays so, but for SIGPIPE and SIGXFSZ. On Linux it is killed when the thread that called this ends. One
   thread at a time starts children.
     args       what follows the program's name, up to a NULL: 30 at most, each as ka_restart's
     returns    KA_OK, or KA_EINVAL, KA_ELIMIT, KA_EPERM, KA_EOS: then c->pid is 0. A child whose image can't be
                executed, which is rare, ends with 127 (POSIX) */
KADEF int ka_child_start(ka_child *c, const char *const *args);

/* The next line of its output, without its end, and a NUL; one that is longer than fits, or than 1,023 bytes, loses its
   rest. The last one may lack its end.
     cap        at least 1
     timeout_ms 0 returns at once, -1 waits for ever
     returns    KA_OK; KA_ETIME: none meanwhile; KA_ENOTFOUND: it writes no more, or there is none; KA_ELIMIT, KA_EOS */
KADEF int ka_child_line(ka_child *c, char *line, size_t cap, int timeout_ms);

/* End a child, wait for it, and free what c holds. Its last lines are lost: to have them, call this with 0, read on to
   KA_ENOTFOUND, and call it again: a child that has more to write than a pipe holds can't end before. SIGCHLD must not be ignored.
     kill       SIGKILL; else SIGTERM, once, however often this is called (Windows has no such thing: TerminateProcess, both)
     timeout_ms as above
     returns    its exit status, 128 + the signal if it died of one (Windows: what it exited with, or 137 as told to here);
                KA_ETIME: it did not end meanwhile, KA_EPERM: it may not be told to; then c is still to be ended.
                KA_ENOTFOUND: none. KA_EOS: it has gone, but its status is lost */
KADEF int ka_child_end(ka_child *c, bool kill, int timeout_ms);

/* Restart: replace this process by a fresh run of its own program, `program arg`. The image is found
   through the system, never through argv[0] or PATH. POSIX: exec, so this returns only if it failed.
   Windows has no exec: CreateProcess, then a wait for it.
     arg        up to KA_MAX_ID bytes of printable ASCII without a double quote or backslash
     returns    the new process's exit code (Windows), which the caller should exit with;
                or KA_EINVAL, KA_EOS */
KADEF int ka_restart(const char *arg);

/* ------------------------------------------------------------------------------------------------
   2 bytes. Any thread; nothing is allocated. */

#define KA_B64_ENCODED(n) (((n) + 2) / 3 * 4)
#define KA_B64_DECODED(n) ((n) / 4 * 3)

/* Encode n bytes as base64 (RFC 4648 s.4, padded), with no NUL at the end.
     out, cap   the caller's; KA_B64_ENCODED(n) is enough; must not overlap in
     returns    characters written, or KA_ENOSPC */
KADEF ptrdiff_t ka_b64_encode(char *out, size_t cap, const void *in, size_t n);

/* Decode n characters of base64 (RFC 4648 s.4; padding required and spare bits zero, s.3.5).
     out, cap   the caller's; KA_B64_DECODED(n) is always enough; must not overlap in
     returns    bytes written, or KA_ESYNTAX, KA_ENOSPC; on an error out holds nothing of use */
KADEF ptrdiff_t ka_b64_decode(void *out, size_t cap, const char *in, size_t n);

/* SHA-256 (FIPS 180-4) of n bytes; cannot fail. */
KADEF void ka_sha256(unsigned char digest[32], const void *in, size_t n);

/* Are n bytes equal? Takes the same time wherever they differ. */
KADEF bool ka_eq_ct(const void *a, const void *b, size_t n);

/* Overwrite a secret; not optimised away. */
KADEF void ka_wipe(void *p, size_t n);

/* 64 random bytes as 88 characters of base64 and a NUL: a fresh ID. KA_OK or KA_ERANDOM. */
KADEF int ka_fresh_id(char id[KA_KEY_TEXT + 1]);

/* n bytes as 2 * n hex digits, in lower case, with no NUL. */
KADEF void ka_hex_encode(char *out, const void *in, size_t n);

/* A random UUID (RFC 9562 s.5.4, version 4) in lower case, and a NUL. KA_OK or KA_ERANDOM. */
KADEF int ka_uuid_new(char out[KA_UUID_TEXT + 1]);

/* Read a UUID of any version (RFC 9562 s.4), its digits in either case, into lower case and a NUL. KA_OK or KA_ESYNTAX. */
KADEF int ka_uuid_read(char out[KA_UUID_TEXT + 1], ka_str text);

/* A time of ka_wall_us in UTC (RFC 3339 s.5.6): 2026-11-21T09:30:00.123456Z and a NUL. Of the years 1970 to 9999:
   what lies outside becomes their first or last microsecond. */
KADEF void ka_utc_text(char out[KA_UTC_TEXT + 1], int64_t wall_us);

/* ------------------------------------------------------------------------------------------------
   3 text. Any thread; nothing is allocated; results are views into the bytes given. */

typedef struct {
    ka_str  method, target;   /* request; the target without "http://authority", "/" if nothing is behind it */
    int     status;           /* response: its code. A refused request: the status that fits, 400... */
    int     minor;            /* HTTP/1.minor, 0 or 1 */
    int64_t length;           /* Content-Length in bytes, or -1 where there was none */
    bool    chunked;          /* Transfer-Encoding: chunked */
    bool    keep_alive;       /* the connection goes on after this message */
    bool    expects;          /* Expect: 100-continue */
    ka_str  fields;           /* the field lines, each with its CRLF */
} ka_http;

/* Read the head of a request, or of a response, at p (RFC 9110, RFC 9112), strictly: what two readers
   could take in two ways is refused. Stateless: call it again with more bytes after KA_EAGAIN; its
   answer does not depend on how the bytes were cut.
     returns    bytes of the head, with the empty line that ends it; KA_EAGAIN: not all here yet;
                KA_ESYNTAX: refused, and a request's h->status says with what (400 414 417 431 501 505) */
KADEF ptrdiff_t ka_http_request(ka_http *h, const char *p, size_t n);
KADEF ptrdiff_t ka_http_response(ka_http *h, const char *p, size_t n);

/* The value of the field of that name, in any case, among field lines of a head that was read, without the white space
   around it. {NULL, 0}: there is none, or more than one, which two readers could take in two ways. */
KADEF ka_str ka_field(ka_str fields, const char *name);

/* The state of a chunked body (RFC 9112 s.7.1). Begin with {.room = the most bytes to decode}. */
typedef struct { uint32_t room, left, line; uint8_t state; bool done; } ka_chunked;

/* Decode n more bytes of a chunked body in place: the data moves to the front of p. Extensions and
   trailer fields are checked and dropped.
     *used      bytes taken; all n unless d->done
     returns    bytes of data now at p; d->done tells whether the body is complete;
                KA_ESYNTAX: malformed; KA_ENOSPC: longer than d->room, or trailers than KA_MAX_HEAD */
KADEF ptrdiff_t ka_chunked_decode(ka_chunked *d, char *p, size_t n, size_t *used);

/* Take the next name=value off *rest, a form body (application/x-www-form-urlencoded, WHATWG URL s.5.1);
   both are raw.
     returns    KA_OK; KA_ENOTFOUND at the end; KA_ESYNTAX where there is no `=` */
KADEF int ka_form_next(ka_str *rest, ka_str *name, ka_str *value);

/* Decode %XX (RFC 3986 s.2.1). `+` stays a plus: IDs and keys are base64, where it is a digit.
     returns    bytes written, or KA_ESYNTAX, KA_ENOSPC; out may be in.p */
KADEF ptrdiff_t ka_percent_decode(char *out, size_t cap, ka_str in);

enum { KA_NULL = 1, KA_FALSE, KA_TRUE, KA_NUMBER, KA_STRING, KA_ARRAY, KA_OBJECT };   /* ka_json.kind */

/* A value in a text: JSON, or what Python's repr() makes of the same: '...' and "..." with Python's escapes, True, False,
   None, tuples. */
typedef struct {
    int    kind;
    bool   python;   /* the text that ka_json_read saw is Python: it has something that JSON hasn't; if both, that came first */
    ka_str raw;      /* as it was sent: a string with its quotes, an object with its braces */
} ka_json;

/* Read a text that is one JSON value (RFC 8259), or one Python literal of such a kind, and white space around it. Strictly:
   UTF-8, no control characters or lone surrogates in strings, nothing that mixes both languages. A name may be repeated:
   see ka_json_find.
     returns    KA_OK; KA_ESYNTAX: malformed, and KA_ELIMIT: deeper than KA_MAX_DEPTH; then v->kind is 0, v->raw is what was
                read before the fault, and v->python tells what it looked like so far */
KADEF int ka_json_read(ka_json *v, ka_str text);

/* Take the next member off an object, or the next element off an array (then name may be NULL). Begin with a copy of what
   ka_json_read or this function gave. False at the end, and for values of other kinds. */
KADEF bool ka_json_next(ka_json *rest, ka_json *name, ka_json *value);

/* The member of that name.
     *value     of use after KA_OK only
     returns    KA_OK; KA_ENOTFOUND: none, or not an object; KA_EINVAL: more than one, which two readers could take in two ways */
KADEF int ka_json_find(const ka_json *object, const char *name, ka_json *value);

/* Is it a string, and this text, once decoded? */
KADEF bool ka_json_is(const ka_json *v, const char *text);

/* Decode a string into UTF-8. It may hold NULs; none is added.
     returns    bytes written, raw.n at most; or KA_ENOSPC, KA_EINVAL: it is no string */
KADEF ptrdiff_t ka_json_string(char *out, size_t cap, const ka_json *v);

/* Writes a JSON value into room of yours: begin with { .p = , .cap = }. Names are NULL but within objects. The first error
   stays; the call that met it and all that follow leave nothing: look at it once, at the end. Text that is not printable
   is escaped, so that no string can begin a line of its own (U+0085, U+2028, U+2029), or turn one around (U+202A to U+202E,
   U+2066 to U+2069). */
typedef struct {
    char    *p;
    size_t   cap, n;         /* bytes, and bytes written */
    bool     python;         /* write Python instead: 'text', True, and all beyond ASCII escaped */
    int      error;          /* KA_OK, or KA_ENOSPC, KA_ESYNTAX (a string that is not UTF-8), KA_ELIMIT (KA_MAX_DEPTH), KA_EINVAL
                                (a name too many or too few, a second value, a close too many, no such kind) */
    uint32_t arrays, depth;  /* its own: which of the open ones are arrays, how many are open, */
    bool     comma;          /* and whether the next one needs a comma */
} ka_json_out;

KADEF void ka_json_open(ka_json_out *w, const char *name, int kind);       /* KA_OBJECT or KA_ARRAY; close it */
KADEF void ka_json_close(ka_json_out *w);
KADEF void ka_json_put(ka_json_out *w, const char *name, ka_str text);     /* a string; text.p may be NULL: null */
KADEF void ka_json_put_integer(ka_json_out *w, const char *name, int64_t number);
KADEF void ka_json_put_bool(ka_json_out *w, const char *name, bool yes);
KADEF void ka_json_put_value(ka_json_out *w, const char *name, const ka_json *v);   /* of any kind, from either language into w's */

enum { KA_RESP_NIL = 1, KA_RESP_STRING, KA_RESP_ERROR, KA_RESP_INTEGER, KA_RESP_ARRAY };   /* ka_resp.kind */

/* A value of RESP2, the Redis serialization protocol. */
typedef struct {
    int     kind;
    ka_str  text;            /* a string's bytes, simple or bulk; an error's; an integer's digits; an array's elements, as they were sent */
    int64_t number;          /* an integer; of an array: its elements */
} ka_resp;

/* Read a text that is one such value and nothing else, such as a message of KA_RESP is.
     returns    KA_OK; or KA_ESYNTAX, and v->kind is 0 */
KADEF int ka_resp_read(ka_resp *v, ka_str text);

/* Take the next element off an array. Begin with a copy of what ka_resp_read or this function gave. False at the end, and for
   values of other kinds. */
KADEF bool ka_resp_next(ka_resp *rest, ka_resp *element);

/* Write a command, its name and arguments, as an array of bulk strings.
     returns    bytes written, or KA_ENOSPC */
KADEF ptrdiff_t ka_resp_command(char *out, size_t cap, const ka_str *args, size_t n);

/* ------------------------------------------------------------------------------------------------
   6 server. One thread, the parent, calls these; only ka_stop and ka_server_stats are for any thread. */

typedef struct ka_server ka_server;

/* How a connection's bytes are cut into messages. */
enum {
    KA_HTTP,                 /* requests, each with its answer: KA_REQUEST and ka_reply. The others: KA_MESSAGE and ka_send */
    KA_JSON,                 /* JSON objects or Python dicts back to back, white space between them or none */
    KA_FRAMES,               /* a length in 4 bytes, the highest first, and so many bytes; white space between them or none */
    KA_LINES,                /* up to a line feed, which is no part of it, and neither is a carriage return right before it */
    KA_RESP                  /* values of RESP2, as Redis replies: see ka_resp_read */
};
enum { KA_HTTP_FIELDS = 16 };      /* for ka_listen_as: as KA_HTTP, and requests bring their field lines, too */

/* ka_event.kind. What ka_send says after one that ends a connection, and before the next ka_wait, still leaves. */
enum {
    KA_LISTENING = 1,        /* what came of ka_listen */
    KA_REQUEST,              /* KA_HTTP: answer it by ka_reply */
    KA_OPENED,               /* other framings: a connection is open; or what came of ka_connect: with an error, its only event;
                                or ka_stream's answer has begun */
    KA_MESSAGE,              /* one message; with an error the last one, and then the connection is closed */
    KA_CLOSED,               /* its last event: it has gone, or its peer sends no more */
    KA_TIMER,                /* a time of ka_timer has come */
    KA_INPUT                 /* a line of standard input: the body. With an error: there are no more */
};

typedef struct {
    int      kind;
    int      error;          /* KA_REQUEST, KA_MESSAGE: 0, or the HTTP status that fits what was refused (400, 408, 413...).
                                KA_LISTENING, KA_OPENED: 0, or KA_E...: nothing listens there, or is open.
                                KA_INPUT: 0, or KA_ENOTFOUND: it has ended; KA_EOS, KA_ELIMIT: it can't be read any more.
                                KA_CLOSED: 0: its peer has ended it, or ka_stop; KA_EOFFLINE: it was lost (reset, or closed
                                for what its peer did not read, or did not end after ka_close) */
    int      os_error;       /* KA_LISTENING, KA_OPENED: errno or WSAGetLastError() behind that error */
    int      port;           /* KA_LISTENING: the port, also where 0 was asked for. KA_OPENED: the peer's */
    int      listener;       /* KA_LISTENING, KA_REQUEST, KA_OPENED: what ka_listen returned; -1: ka_connect's */
    int      framing;        /* KA_MESSAGE: how it came */
    int64_t  now_ms;         /* ka_now_ms(), read once a batch */
    uint64_t conn;           /* the connection: its worker, place and generation */
    uint32_t seq;            /* KA_REQUEST: the request's number on its connection. KA_OPENED: ka_connect's tag */
    uint8_t  flags;          /* for ka_reply */
    uint64_t tag;            /* KA_TIMER: ka_timer's */
    ka_str   method, target, body;   /* KA_REQUEST without an error; KA_MESSAGE: its bytes are the body;
                                KA_OPENED: the body is the peer's IP. Borrowed until the next ka_wait, */
    ka_str   fields;         /* and so is this. KA_REQUEST of a KA_HTTP_FIELDS listener: for ka_field */
} ka_event;

typedef struct {
    size_t requests;         /* delivered by ka_wait, refused ones too */
    size_t connections;      /* open now */
    size_t buffered;         /* bytes that are kept for them: of messages not all here yet, and not all sent */
} ka_stats;

/* Start the server: its worker threads run, and know no address yet. On Linux from 5.9 on, unless in a sandbox, each
   has a descriptor table of its own, and so the whole descriptor limit, and leaves signals to other threads; the
   main thread must live as long as new addresses are listened on.
     *s         yours, until ka_server_free; NULL on failure
     workers    1 to KA_MAX_WORKERS, 0 means 1
     returns    KA_OK, or KA_EINVAL, KA_ENOMEM, KA_EOS, KA_ELIMIT, KA_EPERM (Windows: no sockets for this program) */
KADEF int ka_server_start(ka_server **s, int workers);

/* Tell the workers, through the mailbox, to listen on ip:port, for HTTP or another framing. The outcome comes as a
   KA_LISTENING event.
     ip         numeric IPv4; copied
     port       0 to 65535; 0 lets the system choose
     returns    the listener's number, 0, 1, 2... in the order of the calls; or KA_EINVAL, KA_ELIMIT (KA_MAX_LISTENERS),
                KA_ESTOPPED */
KADEF int ka_listen(ka_server *s, const char *ip, int port);
KADEF int ka_listen_as(ka_server *s, int framing, const char *ip, int port);

/* Tell a worker to connect to ip:port. The outcome, with this tag as ev->seq, comes as a KA_OPENED event, after
   KA_ATTEMPT_MS at the latest. Only if memory is out while hundreds are asked for at once, some have no event.
     framing    any but KA_HTTP
     from       NULL, or the address of this machine to connect from: each has some 28,000 ports for the same ip:port
     returns    KA_OK, or KA_EINVAL, KA_ESTOPPED */
KADEF int ka_connect(ka_server *s, int framing, const char *from, const char *ip, int port, uint32_t tag);

/* Have ka_wait give a KA_TIMER event with this tag when ka_now_ms() has come to at_ms, or as soon after that as it is
   called; those of the same time in any order. None is called off: who doesn't need one any more ignores it. ka_stop
   doesn't wait for them.
     returns    KA_OK, or KA_ENOMEM: it won't come */
KADEF int ka_timer(ka_server *s, int64_t at_ms, uint64_t tag);

/* Wait for the next event, having sent what was replied so far.
     timeout_ms 0 returns at once, -1 waits for ever
     returns    KA_OK with *ev filled; KA_ETIME; KA_ESTOPPED once all has ended after ka_stop */
KADEF int ka_wait(ka_server *s, ka_event *ev, int timeout_ms);

/* Answer a request, now or later (then keep a copy of *ev: its strings die, the rest stays good), in
   any order: answers leave in the order of the requests. One whose connection has gone is dropped.
     status     200 to 599; 204 and 304 have no body. Date, Cache-Control: no-store, Content-Length and, unless it is
                among the fields, Content-Type: text/plain are written for you. Or 0, without fields: HTTP/0.9's
                answer (RFC 1945 s.6), the body alone and then the close
     fields     more header lines, each "Name: value\r\n", or NULL; copied
     body, n    copied
     returns    KA_OK, or KA_EINVAL (no request, status, or a malformed field), KA_ENOSPC (over KA_MAILBOX / 4 bytes) */
KADEF int ka_reply(ka_server *s, const ka_event *ev, int status, const char *fields, const void *body, size_t n);

/* Answer a request by 200 and a body without a known end, such as server-sent events are: when its turn has come, KA_OPENED
   with its listener and conn tells that the answer has begun. From then on the connection is one that isn't HTTP: ka_send
   sends of the body, ka_close ends it, and KA_CLOSED follows, always. What else its peer says is not heard. Without
   KA_OPENED, the connection has gone before.
     fields     as ka_reply's; copied
     returns    KA_OK, or KA_EINVAL (no request, or HTTP/1.0's or HEAD's, which are answered by ka_reply; a malformed field), KA_ENOSPC */
KADEF int ka_stream(ka_server *s, const ka_event *ev, const char *fields);

/* Send bytes on a connection that isn't HTTP: what belongs around them, as a frame's length, is for you to write. If it has
   gone they are dropped; if its peer leaves more than KA_MAX_UNSENT unread (KA_REDIS_BYTES, if it is ka_connect's and
   KA_RESP) it is closed. So send more than that bit by bit: a peer has no time to read what is said at once.
     p, n       copied
     returns    KA_OK, or KA_EINVAL (no such worker) */
KADEF int ka_send(ka_server *s, uint64_t conn, const void *p, size_t n);

/* Read no more from a connection that isn't HTTP, and close it when what was sent has left. KA_CLOSED follows, always. */
KADEF void ka_close(ka_server *s, uint64_t conn);

/* Cut what comes from now on by another framing. For a moment that both sides know: call this before you send what tells
   the peer to go over. Messages of the old framing may be under way, as ev->framing tells; a connection of which
   something unfinished has arrived by then is closed, and what you send after that lost. KA_OK, or KA_EINVAL (KA_HTTP;
   no such worker). */
KADEF int ka_reframe(ka_server *s, uint64_t conn, int framing);

/* A number that no other open connection has, from 0 up, as small as can be: an index for an array of yours. */
KADEF size_t ka_conn_index(const ka_server *s, uint64_t conn);

/* Have ka_wait call fn(arg) whenever it has handed out all that came, or KA_BATCH requests, and before the answers
   to them leave: the place for what one write or one sync can do for all of them. fn may call ka_reply. One fn a server: a second
   one takes the place of the first, which may be ka_journal_group's. */
KADEF void ka_at_batch_end(ka_server *s, void (*fn)(void *arg), void *arg);

/* Have ka_wait give a KA_INPUT event for each line of standard input, without its line feed and a carriage return right before
   it; the last one may lack its end. What is beyond KA_MAX_BODY bytes of a line is lost. A thread reads it, which may
   do so until the process ends: nothing else can read it then. Lines don't wait for ka_stop. One server a process.
     returns    KA_OK, or KA_EINVAL (it is read already), KA_ELIMIT */
KADEF int ka_read_input(ka_server *s);

/* Stop: accept no more, finish what is under way (KA_DRAIN_MS at most); connections of ka_connect end after all others, since
   those may need them. Go on calling ka_wait until it says KA_ESTOPPED. Safe from any thread and from a signal handler. */
KADEF void ka_stop(ka_server *s);

/* Call ka_stop(s) on SIGINT and SIGTERM (Windows: Ctrl+C, Ctrl+Break, closing the console). A second
   one ends the process as if this had not been called. SIGPIPE is ignored. One server a process.
     returns    KA_OK, or KA_EOS */
KADEF int ka_stop_on_interrupt(ka_server *s);

/* What the server has done and holds; a snapshot, from any thread. */
KADEF void ka_server_stats(const ka_server *s, ka_stats *out);

/* End the workers at once and free all. NULL is fine. */
KADEF void ka_server_free(ka_server *s);

/* ------------------------------------------------------------------------------------------------
   7 redis: one connection to a Redis server, kept up. The parent only. */

/* What has become of a command; called by ka_redis_event, and may send further ones.
     arg        the connection's
     note       the command's, as ka_redis_command has it; at no particular address: memcpy it
     reply      borrowed; of an error, too. NULL: the connection was lost first, and whether the command was carried out is not known */
typedef void ka_redis_fn(void *arg, const void *note, const ka_resp *reply);

enum { KA_REDIS_NOTE = 128 };        /* bytes of a command's note, at most */

typedef struct {
    /* yours to set before ka_redis_start; zero means none */
    const char *ip;                  /* numeric IPv4; borrowed */
    int         port;
    const char *password;            /* for AUTH; borrowed */
    uint32_t    tag;                 /* of its ka_connect and its ka_timer: nothing else may have it */
    void      (*on_change)(void *arg, bool up);               /* it can be used from now on, or can't any more; NULL: none */
    void      (*on_push)(void *arg, const ka_resp *message);  /* not NULL: this connection subscribes, and this is called for each reply
                                        but PING's */
    void       *arg;                 /* of both, and of each ka_redis_fn */
    /* yours to read */
    bool        up;
    char        error[96];           /* why it isn't, in Redis's own words where there are any; empty: not tried yet, or ka_stop.
                                        While it is: why it does not keep keys, see ka_keyring_redis; empty: it does */
    /* its own */
    ka_server  *server;
    uint64_t    conn;
    struct ka__command *waiting;     /* a ring of those that wait for their replies */
    size_t      waiting_n, first, room, bytes;
    int64_t     due_ms;              /* when it looks after itself again */
    int         retry_ms, silent;
    uint8_t     state;
} ka_redis;

/* Begin to connect, and to connect again whenever it is lost, until ka_stop. Pass it each event then, by ka_redis_event.
     returns    KA_OK, or KA_EINVAL (ip, port), KA_ESTOPPED */
KADEF int ka_redis_start(ka_redis *r, ka_server *s);

/* Is this event about the connection of r? Then it has been dealt with here, callbacks included. False for an r that was
   not started. */
KADEF bool ka_redis_event(ka_redis *r, const ka_event *ev);

/* Send a command. Replies come in the order of the commands.
     args       its name and arguments; copied
     fn         NULL: nobody asks what comes of it. On a connection that subscribes: none is called, see on_push
     note       what fn needs to go on, n bytes, KA_REDIS_NOTE at most; copied, and wiped when fn has seen it
     returns    KA_OK; or KA_EOFFLINE: it is not up; KA_ELIMIT: KA_REDIS_WAITING or KA_REDIS_BYTES wait; KA_EINVAL: no
                arguments, or note is too long; KA_ENOMEM. Then nothing was sent, and fn is not called */
KADEF int ka_redis_command(ka_redis *r, const ka_str *args, size_t args_n, ka_redis_fn *fn, const void *note, size_t n);

/* Close the connection and free what it holds; commands that wait are told so, with no reply. Before ka_server_free, and not
   from within its callbacks. Harmless after a failed ka_redis_start, or twice. */
KADEF void ka_redis_free(ka_redis *r);

/* ------------------------------------------------------------------------------------------------
   8 keyring: digests of keys, each with its ID. One thread at a time. */

typedef struct {
    size_t   count, max_keys;    /* keys now (expired ones count until their room is needed), and at most */
    int64_t  ttl_s;              /* seconds that a key is good for, and less than one more; 0: for ever */
    int      journal_error, journal_os_error;      /* of the journal's last commit: KA_OK or KA_E..., and errno */
    /* the keyring's own */
    struct ka__shard *shards;
    struct ka__segment **segments;
    struct ka__pool *pool;
    struct ka__journal *journal;
    uint32_t segments_n, front, back, front_at;
    int64_t  epoch_ms;
    ka_redis *redis;
    const char *prefix;
} ka_keyring;

/* Set up an empty keyring.
     max_keys   0 means KA_MAX_KEYS;   ttl_s   0 means for ever
     returns    KA_OK, or KA_EINVAL (ttl_s negative or over 100 years), KA_ENOMEM */
KADEF int ka_keyring_init(ka_keyring *k, size_t max_keys, int64_t ttl_s);

/* Free what it holds; harmless after a failed ka_keyring_init, or twice. */
KADEF void ka_keyring_free(ka_keyring *k);

typedef struct {
    int64_t cut_at, cut;             /* bytes cut off the end, and from where: a commit that was not written to its end */
    int64_t damaged_at, damaged;     /* bytes that can't be read, and where they begin */
    int     os_error;                /* the system's code behind the error, or 0 */
} ka_journal_report;

/* Keep the keys in a file too: read those that are there, and append to it from now on. On disk before it is true:
   ka_keyring_issue returns KA_OK only after the key's digest, its ID and its end have been synced. No other process
   can open the file meanwhile. It is written anew without the expired keys, at once and whenever more than half of
   it is dead, some three seconds for a million keys. Call this after ka_keyring_init; times are ka_now_ms() then.
     path       made if it isn't there; mode 0600; beside it, path.new is written, and path.damaged when salvaging
     salvage    leave out what is damaged, and keep the file as it was as path.damaged
     report     what was found; never NULL
     returns    KA_OK, or KA_EINUSE (another process has it, or path.damaged is there), KA_EDAMAGED (nothing was changed),
                KA_ESYNTAX (it holds something else), KA_EINVAL (no regular file, or a path over 4,000 bytes),
                KA_ENOTFOUND (no such folder), KA_ENOSPC, KA_EPERM, KA_ELIMIT, KA_EOS, KA_ENOMEM. After an error only
                ka_keyring_free is left to call. On POSIX SIGXFSZ is ignored from then on */
KADEF int ka_journal_open(ka_keyring *k, const char *path, bool salvage, ka_journal_report *report);

/* Group commit: one sync for all keys of a batch. ka_auth_answer then holds back the answer that gives a key, and
   ka_wait gives it when the key is on disk. The keyring must live as long as ka_wait is called.
     returns    KA_OK, or KA_EINVAL: no journal is open, or no server */
KADEF int ka_journal_group(ka_keyring *k, ka_server *s);

/* Keep the keys in Redis instead, with time to live there (SET prefix+digest ID EX ttl NX; GET): whichever server a key was
   asked from, it is good at all that have the same Redis and prefix. ka_auth_answer then gives no answer, and ka_redis_event
   does when Redis has acknowledged; while it is away, or says an error, the answer is 503 try_later, and redis->error tells why
   it is away, or what it said to the last SET. max_keys doesn't count there. Of the other functions, ka_keyring_free is left.
     redis      started, and kept as long as the keyring; not one that subscribes
     prefix     borrowed; KA_MAX_ID bytes at most
     returns    KA_OK, or KA_EINVAL (redis, prefix, a journal is open) */
KADEF int ka_keyring_redis(ka_keyring *k, ka_redis *redis, const char *prefix);

/* Make a fresh key for an ID and keep its digest; the key itself is in key only: wipe it after use.
     id         1 to KA_MAX_ID bytes of any kind; copied
     now_ms     of any one clock that does not run back
     returns    KA_OK, or KA_EINVAL (id; or the keys are in Redis), KA_EFULL (nothing is evicted), KA_ENOMEM, KA_ERANDOM; with a journal also
                KA_ENOSPC, KA_EOS and others of ka_journal_open: it was not written, and there is no such key */
KADEF int ka_keyring_issue(ka_keyring *k, ka_str id, int64_t now_ms, char key[KA_KEY_TEXT]);

/* The ID of a key; {NULL, 0} if it is malformed, unknown or expired. Borrowed until the next issue. */
KADEF ka_str ka_keyring_find(const ka_keyring *k, ka_str key, int64_t now_ms);

/* Answer a request by the protocol: POST ask_key=ID or login=KEY; anything else is wrong_query.
     text, *n   the body of the answer; of n bytes, no NUL
     returns    the status of the answer, for ka_reply: 200, 403 wrong_key, 503 server_full or try_later,
                or wrong_query with 405 (say Allow: POST), 400, or the one in ev->error;
                0 after ka_journal_group and ka_keyring_redis only: don't reply, ka_wait or ka_redis_event will */
KADEF int ka_auth_answer(ka_keyring *k, const ka_event *ev, char text[KA_MAX_ANSWER], size_t *n);

/* ------------------------------------------------------------------------------------------------
   9 log: a file of lines that only grows. One thread at a time. */

typedef struct ka_log ka_log;

/* Open a log for appending, or make it, mode 0600. No other process can open it by this function meanwhile. An unfinished
   last line, of a write that was cut short, is cut off if it begins as told.
     *log       yours, until ka_log_close; NULL on failure
     begins     what each line begins with; borrowed until ka_log_close
     *cut       the bytes that were cut off
     *os_error  the system's code behind an error
     returns    KA_OK, or KA_EINUSE (another process has it), KA_ESYNTAX (its last line is unfinished and none of these), KA_EINVAL (no
                regular file, or a path over 4,000 bytes), KA_ENOTFOUND, KA_ENOSPC, KA_EPERM, KA_ELIMIT, KA_EOS, KA_ENOMEM */
KADEF int ka_log_open(ka_log **log, const char *path, const char *begins, int64_t *cut, int *os_error);

/* Add a line to the next commit; copied. A line feed is added, unless it ends with one.
     returns    the bytes that wait for it now, or KA_ENOMEM: it was not added */
KADEF ptrdiff_t ka_log_add(ka_log *log, const void *line, size_t n);

/* Append the lines that wait, all or none, and sync them: group commit. Where the file was moved away, or removed, a new
   one is made; where it was cut, they go to its new end, which is dealt with as by ka_log_open. After an error they are
   dropped. Without any, nothing is done.
     returns    KA_OK: they are on disk; or KA_ENOSPC, KA_EOS and others of ka_log_open, with *os_error */
KADEF int ka_log_commit(ka_log *log, int *os_error);

/* Put these lines in the place of all that the log holds, at once for whoever reads it, and synced; lines that wait are dropped.
   Beside it, path.new is written. For a log that is a state: when most of it is history.
     p, n       whole lines, each with its line feed; may be none
     returns    as ka_log_commit, and KA_EINVAL: the last line has no line feed. After an error the log is as it was; but if
                no more than its folder could not be synced, they are there, and a crash may bring back what was */
KADEF int ka_log_replace(ka_log *log, const void *p, size_t n, int *os_error);

/* Close it; lines that wait are dropped. NULL is fine. */
KADEF void ka_log_close(ka_log *log);

/* ------------------------------------------------------------------------------------------------
   10 client. One thread at a time for each ka_client. */

typedef struct {
    /* yours to set; zero means the default */
    const char *ip;                  /* numeric IPv4; borrowed */
    int         port;
    int         attempt_ms;          /* an attempt takes this at most; 0 means KA_ATTEMPT_MS */
    int64_t     give_up_ms;          /* a request's attempts take this in all; 0 means no end */
    const char *type;                /* Content-Type, which must fit the head; NULL means application/x-www-form-urlencoded; borrowed */
    void      (*on_miss)(void *arg, int misses, int delay_ms, int error);   /* called before each wait */
    void       *arg;
    /* the client's own */
    int         os_error;            /* the system's code behind the last error */
    intptr_t    sock;
    bool        open;
    char        buf[KA_MAX_HEAD + KA_MAX_BODY];
} ka_client;

/* POST a body and wait for the answer, on one kept-alive connection. While the server is offline (no
   connection, or lost or silent before its answer was whole) waits 100 ms, 105, 110, ... and tries again.
     answer     a view of the answer's body, good until the next call
     returns    the answer's status, 200 to 599; or KA_EOFFLINE (give_up_ms is over), KA_EPROTO (an
                answer that is not HTTP, or too large), KA_EINVAL (ip, port, n, type), KA_EPERM, KA_EOS, KA_ELIMIT */
KADEF int ka_client_post(ka_client *c, const char *body, size_t n, ka_str *answer);

/* Close the connection, if there is one, and wipe the last answer; there is nothing else to free. */
KADEF void ka_client_close(ka_client *c);

/* Kill the process at the other end of this client's connection, and it alone: it must hold that very
   connection and the listening socket as well, and share neither. It is held by a handle
   while it is looked at again, so a recycled PID is never hit; then SIGKILL (TerminateProcess), and a
   wait until it has gone.
     *pid       the process, where one was found, else 0
     returns    KA_OK: it has gone; KA_ENOTFOUND: not on this machine, or not to be seen; KA_EINUSE: more
                than one process holds it; KA_EPERM: another user's, or the caller itself; KA_ETIME: still
                there after 5 s; KA_EOFFLINE: the connection is closed; KA_EOS, KA_ELIMIT. Nothing is
                killed unless KA_OK or KA_ETIME
     macOS      has no such handle: there the last look comes right before the kill */
KADEF int ka_client_kill_server(ka_client *c, int64_t *pid);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_IMPLEMENTED)
#define KEYAUTH_IMPLEMENTED

/* ================================================================================================
   1 platform

   Everything that differs between systems, under one signature each; outside this section there is no
   platform conditional. Sockets never block and are not inherited by other programs. A function that
   fails returns KA_E..., and ka__os_code() tells the system's own code right after it. */

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
#  include <io.h>
#  include <iphlpapi.h>
#  include <psapi.h>
#  ifdef _MSC_VER
#    pragma comment(lib, "ws2_32")
#    pragma comment(lib, "bcrypt")
#    pragma comment(lib, "iphlpapi")
#  endif
#elif defined(__linux__) || defined(__APPLE__)
#  include <arpa/inet.h>
#  include <fcntl.h>
#  include <netdb.h>
#  include <netinet/in.h>
#  include <netinet/tcp.h>
#  include <poll.h>
#  include <signal.h>
#  include <sys/file.h>
#  include <sys/ioctl.h>
#  include <sys/resource.h>
#  include <sys/socket.h>
#  include <sys/stat.h>
#  include <sys/wait.h>
#  include <unistd.h>
#  if defined(__linux__)
#    if defined(__GLIBC__) && !defined(__USE_GNU)
#      error "keyauth.h: where KEYAUTH_IMPLEMENTATION is defined, include it before any other header, or compile with -D_GNU_SOURCE"
#    endif
#    include <ctype.h>
#    include <dirent.h>
#    if defined(__GLIBC__)
#      include <malloc.h>
#    endif
#    include <sys/epoll.h>
#    include <sys/eventfd.h>
#    include <sys/mman.h>
#    include <sys/prctl.h>
#    include <sys/random.h>
#    include <sys/syscall.h>
#    ifndef SYS_pidfd_open               /* headers older than the kernel: these are the same on every processor but Alpha */
#      define SYS_pidfd_send_signal 424
#      define SYS_pidfd_open 434
#    endif
#    ifndef SYS_pidfd_getfd
#      define SYS_close_range 436
#      define SYS_pidfd_getfd 438
#    endif
#  else
#    include <libproc.h>
#    include <mach-o/dyld.h>
#    include <sys/event.h>
#    include <sys/random.h>
#    include <sys/sysctl.h>
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

/* What a poller watches a socket for: reading, writing, nothing but its failure (0), or not at all.
   KA__SHARED: a listener that other pollers watch too. */
enum { KA__UNWATCHED = -1, KA__IN = 1, KA__OUT = 2, KA__SHARED = 4 };

#define KA__NO_TOKEN UINT32_MAX
enum { KA__EVENTS = 256 };      /* that a poller tells at a time */

/* ---- memory: all of it comes from ka__resize and goes through ka__free, but for ka__page_new's ---- */

#if defined(KA_MALLOC) && defined(KA_REALLOC) && defined(KA_FREE)
#elif !defined(KA_MALLOC) && !defined(KA_REALLOC) && !defined(KA_FREE)
#  define KA_MALLOC(n) malloc(n)
#  define KA_REALLOC(p, n) realloc(p, n)
#  define KA_FREE(p) free(p)
#else
#  error "keyauth.h: define all of KA_MALLOC, KA_REALLOC and KA_FREE, or none"
#endif

/* Room for count things of a size, keeping what p held; NULL on failure, and p is as it was. */
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

void ka_memory_trim(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

/* Change a counter that one thread writes and any may read. */
static void ka__count(_Atomic(size_t) *n, int by)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + (size_t)by, memory_order_relaxed);
}

/* ---- threads: C11's; pthreads where <threads.h> is missing, and under ThreadSanitizer, which crashes
        in threads that thrd_create made (gcc 12, clang 14); Win32 on Windows ---- */

#if defined(_WIN32)
typedef HANDLE ka__thread_id;
#elif defined(__APPLE__) || defined(__STDC_NO_THREADS__) || defined(KA__TSAN)
#  include <pthread.h>
#  define KA__PTHREADS 1
typedef pthread_t ka__thread_id;
#else
#  include <threads.h>
typedef thrd_t ka__thread_id;
#endif

/* Stays where it is until it has been joined, or for ever: the new thread reads it. */
typedef struct { ka__thread_id id; void (*run)(void *); void *arg; } ka__thread;

#if defined(_WIN32)
static DWORD WINAPI ka__thread_main(void *t) { ((ka__thread *)t)->run(((ka__thread *)t)->arg); return 0; }
#elif defined(KA__PTHREADS)
static void *ka__thread_main(void *t) { ((ka__thread *)t)->run(((ka__thread *)t)->arg); return NULL; }
#else
static int ka__thread_main(void *t) { ((ka__thread *)t)->run(((ka__thread *)t)->arg); return 0; }
#endif

static int ka__thread_start(ka__thread *t, void (*run)(void *), void *arg)
{
    t->run = run;
    t->arg = arg;
#if defined(_WIN32)
    t->id = CreateThread(NULL, 0, ka__thread_main, t, 0, NULL);
    return t->id ? KA_OK : KA_ELIMIT;
#elif defined(KA__PTHREADS)
    return pthread_create(&t->id, NULL, ka__thread_main, t) == 0 ? KA_OK : KA_ELIMIT;
#else
    return thrd_create(&t->id, ka__thread_main, t) == thrd_success ? KA_OK : KA_ELIMIT;
#endif
}

static void ka__thread_join(ka__thread *t)
{
#if defined(_WIN32)
    WaitForSingleObject(t->id, INFINITE);
    CloseHandle(t->id);
#elif defined(KA__PTHREADS)
    pthread_join(t->id, NULL);
#else
    thrd_join(t->id, NULL);
#endif
}

/* It ends by itself, and nobody waits for that. */
static void ka__thread_detach(ka__thread *t)
{
#if defined(_WIN32)
    CloseHandle(t->id);
#elif defined(KA__PTHREADS)
    pthread_detach(t->id);
#else
    thrd_detach(t->id);
#endif
}

/* Bytes that another core wrote are needed soon: have them fetched. */
#if defined(__GNUC__)
#define KA__PREFETCH(p) __builtin_prefetch(p)
#else
#define KA__PREFETCH(p) ((void)(p))
#endif

/* ---- processor: SHA-256 by the instructions that most x86 of the last years have ---- */

#if defined(__x86_64__) && defined(__GNUC__)
#  include <cpuid.h>
#  include <smmintrin.h>      /* the whole of immintrin.h would take as long to compile as a quarter of this file */
#define KA__ROUNDS(a, b, c) (__m128i)__builtin_ia32_sha256rnds2((__v4si)(a), (__v4si)(b), (__v4si)(c))
#define KA__MSG1(a, b)      (__m128i)__builtin_ia32_sha256msg1((__v4si)(a), (__v4si)(b))
#define KA__MSG2(a, b)      (__m128i)__builtin_ia32_sha256msg2((__v4si)(a), (__v4si)(b))

/* Are they there? Asked once: CPUID takes microseconds in a virtual machine. */
static bool ka__sha_available(void)
{
    static _Atomic(int) answer;      /* 0: not asked yet; 1: no; 2: yes */
    int a = atomic_load_explicit(&answer, memory_order_relaxed);
    if (a == 0) {
        unsigned ax, bx = 0, cx = 0, dx, sse;
        __get_cpuid(1, &ax, &bx, &cx, &dx);
        sse = cx >> 19 & 1;                /* SSE4.1 */
        a = sse && __get_cpuid_count(7, 0, &ax, &bx, &cx, &dx) && (bx >> 29 & 1) ? 2 : 1;      /* SHA */
        atomic_store_explicit(&answer, a, memory_order_relaxed);
    }
    return a == 2;
}

/* One block, as ka__sha256_block; false if the processor can't. The instructions keep the state as ABEF and
   CDGH, do two rounds each, and make four words of the schedule (Intel SDM, SHA256RNDS2, SHA256MSG1 and 2). */
__attribute__((target("sha,sse4.1"))) static bool ka__sha256_native(uint32_t h[8], const unsigned char *p, const uint32_t k[64])
{
    if (!ka__sha_available()) return false;
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)h), 0xB1);            /* CDAB */
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(h + 4)), 0x1B);     /* EFGH */
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    const __m128i abef0 = abef, cdgh0 = cdgh, *in = (const __m128i *)(const void *)p;
    __m128i a = _mm_shuffle_epi8(_mm_loadu_si128(in), swap), b = _mm_shuffle_epi8(_mm_loadu_si128(in + 1), swap);
    __m128i c = _mm_shuffle_epi8(_mm_loadu_si128(in + 2), swap), d = _mm_shuffle_epi8(_mm_loadu_si128(in + 3), swap);
    for (int i = 0; i < 64; i += 4) {
        __m128i words = _mm_add_epi32(a, _mm_loadu_si128((const __m128i *)(const void *)(k + i)));
        cdgh = KA__ROUNDS(cdgh, abef, words);
        abef = KA__ROUNDS(abef, cdgh, _mm_shuffle_epi32(words, 0x0E));
        __m128i next = KA__MSG2(_mm_add_epi32(KA__MSG1(a, b), _mm_alignr_epi8(d, c, 4)), d);
        a = b, b = c, c = d, d = next;      /* the last four are made in vain, which costs less than to ask */
    }
    low = _mm_shuffle_epi32(_mm_add_epi32(abef, abef0), 0x1B);      /* FEBA */
    high = _mm_shuffle_epi32(_mm_add_epi32(cdgh, cdgh0), 0xB1);     /* DCHG */
    _mm_storeu_si128((__m128i *)(void *)h, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(void *)(h + 4), _mm_alignr_epi8(high, low, 8));
    return true;
}
#else
static bool ka__sha_available(void) { return false; }

static bool ka__sha256_native(uint32_t h[8], const unsigned char *p, const uint32_t k[64])
{
    (void)h, (void)p, (void)k;
    return ka__sha_available();
}
#endif

/* ---- clock and random ---- */

#if defined(_WIN32)
int64_t ka_now_us(void)
{
    LARGE_INTEGER ticks, hz;               /* GetTickCount64 has steps of 16 ms */
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&hz);
    return ticks.QuadPart / hz.QuadPart * 1000000 + ticks.QuadPart % hz.QuadPart * 1000000 / hz.QuadPart;
}

int64_t ka_wall_us(void)
{
    FILETIME t;                            /* in 100 ns since 1601 */
    GetSystemTimeAsFileTime(&t);
    return (int64_t)(((uint64_t)t.dwHighDateTime << 32 | t.dwLowDateTime) / 10) - 11644473600000000;
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
    clock_gettime(CLOCK_MONOTONIC, &t);   /* cannot fail: the clock exists, and so does t */
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

/* Both calls give at most 256 bytes without a chance of being cut short. */
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

/* When a wait of timeout_ms ends, and how long that is from now, for a call that takes an int; -1: never. */
static int64_t ka__until(int timeout_ms) { return timeout_ms < 0 ? INT64_MAX : ka_now_ms() + timeout_ms; }

static int ka__left(int64_t until)
{
    int64_t left = until - ka_now_ms();
    return left <= 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

/* A page for random bytes, which a forked child finds zeroed, so that parent and child never use the same ones
   (madvise(2), MADV_WIPEONFORK, Linux 4.14), and which no core dump has. NULL: the system can't do that. */
enum { KA__PAGE = 4096 };

static void *ka__page_new(void)
{
#if defined(MADV_WIPEONFORK)
    void *p = mmap(NULL, KA__PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    bool heeds = madvise(p, KA__PAGE, -1) != 0;      /* qemu-user says yes to any advice, and does nothing */
    if (heeds && madvise(p, KA__PAGE, MADV_WIPEONFORK) == 0 && madvise(p, KA__PAGE, MADV_DONTDUMP) == 0) return p;
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

bool ka_is_terminal(int fd)
{
#if defined(_WIN32)
    return _isatty(fd) != 0;
#else
    return isatty(fd) != 0;
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
    case WSAEWOULDBLOCK: case WSAEINTR: case WSAEINPROGRESS: return KA_EAGAIN;
    case WSAEADDRINUSE:                                      return KA_EINUSE;
    case WSAEADDRNOTAVAIL:                                   return KA_EADDR;
    case WSAEACCES:                                          return KA_EPERM;
    case WSAEMFILE: case WSAENOBUFS:                         return KA_ELIMIT;
    case WSAECONNREFUSED: case WSAECONNRESET: case WSAECONNABORTED: case WSAETIMEDOUT:
    case WSAENETUNREACH: case WSAEHOSTUNREACH: case WSAEHOSTDOWN: case WSAENETDOWN: case WSAENOTCONN: case WSAESHUTDOWN: return KA_EOFFLINE;
    default:                                                 return KA_EOS;
    }
}

static int ka__os_start(void)
{
    WSADATA data;
    int code = WSAStartup(MAKEWORD(2, 2), &data);
    ka__os_code_set(code);      /* which it returns, and doesn't set */
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

/* select, since WSAPoll tells nothing of a failed connect before Windows 10 2004. */
static int ka__sock_wait(ka__sock s, int want, int ms)
{
    fd_set set, failed;
    struct timeval t = { ms / 1000, ms % 1000 * 1000 };
    FD_ZERO(&set);
    FD_SET(KA__FD(s), &set);
    failed = set;
    int n = select(0, want == KA__IN ? &set : NULL, want == KA__OUT ? &set : NULL, &failed, &t);
    return n > 0 ? KA_OK : n == 0 ? KA_ETIME : ka__error_of(ka__os_code());
}

/* Without this, Windows sends the SYN to a closed port three times over, which takes 2 s: far longer
   than the waits of the retry policy. Older systems don't know it and are slower. */
static void ka__sock_fail_fast(ka__sock s)
{
    struct { USHORT rtt; UCHAR max_syn_retransmissions; } rto = { 0xFFFF, 0xFE };   /* default; none */
    DWORD got = 0;
    WSAIoctl(KA__FD(s), _WSAIOW(IOC_VENDOR, 17) /* SIO_TCP_INITIAL_RTO */, &rto, sizeof rto, NULL, 0, &got, NULL, NULL);
}
#else
typedef size_t ka__len;
#define KA__FD(s) ((int)(s))

static int ka__os_code(void) { return errno; }
static void ka__os_code_set(int code) { errno = code; }

static int ka__error_of(int code)
{
    switch (code) {
    case EAGAIN: case EINTR: case EINPROGRESS:      return KA_EAGAIN;
    case EADDRINUSE:                                return KA_EINUSE;
    case EADDRNOTAVAIL:                             return KA_EADDR;
    case EACCES: case EPERM:                        return KA_EPERM;
    case EMFILE: case ENFILE: case ENOBUFS: case ENOMEM: return KA_ELIMIT;
    case ECONNREFUSED: case ECONNRESET: case ECONNABORTED: case ETIMEDOUT:
    case ENETUNREACH: case EHOSTUNREACH: case EHOSTDOWN: case ENETDOWN: case ENOTCONN: case EPIPE: return KA_EOFFLINE;
    default:                                        return KA_EOS;
    }
}

/* If 0, 1 or 2 was closed, a socket would get that number, and what is printed would go to the peer. Opened
   for reading only: printing still fails, as it should. */
static int ka__os_start(void)
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
    return n > 0 ? KA_OK : n == 0 ? KA_ETIME : ka__error_of(ka__os_code());
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

static int ka__sock_new(ka__sock *out)
{
#if defined(__linux__)
    *out = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return *out >= 0 ? KA_OK : ka__sock_error();
#else
#  if defined(_WIN32)
    *out = (ka__sock)WSASocketW(AF_INET, SOCK_STREAM, 0, NULL, 0, WSA_FLAG_OVERLAPPED | 0x80 /* ..NO_HANDLE_INHERIT */);
#  else
    *out = socket(AF_INET, SOCK_STREAM, 0);
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

/* KA_EAGAIN: none is waiting. KA_EOFFLINE: one was, and has gone. */
static int ka__sock_accept(ka__sock listener, ka__sock *out)
{
#if defined(__linux__)
    *out = accept4(KA__FD(listener), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return *out >= 0 ? KA_OK : ka__sock_error();
#else
    *out = (ka__sock)accept(KA__FD(listener), NULL, NULL);
    if (*out == -1) return ka__sock_error();
    if (ka__sock_prepare(*out) == KA_OK) return KA_OK;
    ka__sock_close(*out);      /* macOS sets no option on a connection that was reset */
    return KA_EOFFLINE;
#endif
}

/* The error of the call that just failed on s, which is closed; ka__os_code() still tells of that call. */
static int ka__sock_fail(ka__sock s)
{
    int r = ka__sock_error(), code = ka__os_code();
    ka__sock_close(s);
    ka__os_code_set(code);
    return r;
}

static bool ka__address(const char *ip, int port, struct sockaddr_in *a)
{
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_port = htons((uint16_t)port);
    return port >= 0 && port <= 65535 && inet_pton(AF_INET, ip, &a->sin_addr) == 1;
}

static void ka__address_text(char ip[16], const struct sockaddr_in *a)
{
    unsigned char b[4];
    memcpy(b, &a->sin_addr, sizeof b);
    snprintf(ip, 16, "%d.%d.%d.%d", b[0], b[1], b[2], b[3]);
}

/* What getaddrinfo(3) returns. */
static int ka__resolve_error(int code)
{
    switch (code) {
    case 0:          return KA_OK;
    case EAI_AGAIN:  return KA_ETIME;
    case EAI_MEMORY: return KA_ENOMEM;
#if defined(_WIN32)
    case WSANO_DATA:
#else
    case EAI_NODATA: case EAI_ADDRFAMILY:
#endif
    case EAI_NONAME: return KA_ENOTFOUND;
    default:         return KA_EOS;
    }
}

int ka_resolve(const char *host, char ip[16])
{
    struct addrinfo wanted, *found = NULL;
    memset(&wanted, 0, sizeof wanted);
    wanted.ai_family = AF_INET;
    wanted.ai_socktype = SOCK_STREAM;
    int r = *host ? ka__os_start() : KA_ENOTFOUND;      /* to Windows, no name is this machine's */
    if (r == KA_OK) r = ka__resolve_error(getaddrinfo(host, NULL, &wanted, &found));
    if (r < 0) return r;
    ka__address_text(ip, (const struct sockaddr_in *)(const void *)found->ai_addr);
    freeaddrinfo(found);
    return KA_OK;
}

/* Have a new socket listen on ip:port; *bound is the port it got. POSIX: SO_REUSEADDR, so that connections of
   a server that just ended don't hold the port. Windows: there, that option would let anyone steal the port. */
static int ka__sock_listen(ka__sock s, const char *ip, int port, int *bound)
{
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    int on = 1;
    if (!ka__address(ip, port, &a)) return KA_EINVAL;
#if defined(_WIN32)
    int option = SO_EXCLUSIVEADDRUSE;
#else
    int option = SO_REUSEADDR;
#endif
    if (setsockopt(KA__FD(s), SOL_SOCKET, option, (const char *)&on, sizeof on) != 0 ||
        bind(KA__FD(s), (struct sockaddr *)&a, sizeof a) != 0 ||
        listen(KA__FD(s), KA_BACKLOG) != 0 ||
        getsockname(KA__FD(s), (struct sockaddr *)&a, &size) != 0)
        return ka__sock_error();
    /* Accepted sockets inherit it on Linux, macOS and Windows. And Wine 8 tells the owner of a listening
       socket only after an option was set on it. */
    ka__sock_no_delay(s);
    *bound = ntohs(a.sin_port);
    return KA_OK;
}

/* KA_OK: connected; KA_EAGAIN: under way, wait for KA__OUT and ask ka__sock_connected. From an address, or NULL. Linux
   chooses its port when it knows the peer, so that one port serves for each peer (ip(7)). */
static int ka__sock_connect(const char *from, const char *ip, int port, ka__sock *out)
{
    struct sockaddr_in a, mine;
    if (!ka__address(ip, port, &a) || (from && !ka__address(from, 0, &mine))) return KA_EINVAL;
    int r = ka__sock_new(out);
    if (r < 0) return r;
    ka__sock_no_delay(*out);
    ka__sock_fail_fast(*out);
#if defined(IP_BIND_ADDRESS_NO_PORT)
    int on = 1;
    if (from) setsockopt(KA__FD(*out), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
#endif
    if (from && bind(KA__FD(*out), (struct sockaddr *)&mine, sizeof mine) != 0) return ka__sock_fail(*out);
    if (connect(KA__FD(*out), (struct sockaddr *)&a, sizeof a) == 0) return KA_OK;
    return ka__sock_error() == KA_EAGAIN ? KA_EAGAIN : ka__sock_fail(*out);
}

/* A socket that knocks at a port of the ephemeral range may find itself connected to itself (RFC 9293
   s.3.5, simultaneous open): that is no server. */
static int ka__sock_connected(ka__sock s)
{
    struct sockaddr_in mine, theirs;
    int code = 0;
    socklen_t size = sizeof code, a = sizeof mine, b = sizeof theirs;
    if (getsockopt(KA__FD(s), SOL_SOCKET, SO_ERROR, (char *)&code, &size) != 0) return ka__sock_error();
    if (code) {
        ka__os_code_set(code);
        return ka__error_of(code);
    }
    if (getsockname(KA__FD(s), (struct sockaddr *)&mine, &a) != 0 || getpeername(KA__FD(s), (struct sockaddr *)&theirs, &b) != 0)
        return ka__sock_error();
    return mine.sin_port == theirs.sin_port && mine.sin_addr.s_addr == theirs.sin_addr.s_addr ? KA_EOFFLINE : KA_OK;
}

/* The other end's address, as text, and its port; "" and 0 if it has gone. */
static int ka__sock_peer(ka__sock s, char ip[16])
{
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    ip[0] = 0;
    if (getpeername(KA__FD(s), (struct sockaddr *)&a, &size) != 0) return 0;
    ka__address_text(ip, &a);
    return ntohs(a.sin_port);
}

/* On Linux without the libc's recv and send: in a process with threads, glibc's mark a cancellation point by two
   locked instructions each, which is some 3 % of a request. The sanitizers watch the libc's. */
#if defined(__linux__) && !defined(KA__ASAN) && !defined(KA__TSAN)
#define KA__RECV(s, p, n) syscall(SYS_recvfrom, KA__FD(s), p, n, 0, NULL, NULL)
#define KA__SEND(s, p, n) syscall(SYS_sendto, KA__FD(s), p, n, MSG_NOSIGNAL, NULL, 0)
#else
#define KA__RECV(s, p, n) recv(KA__FD(s), p, (ka__len)(n), 0)
#define KA__SEND(s, p, n) send(KA__FD(s), p, (ka__len)(n), KA__SEND_FLAGS)
#endif

/* Bytes received; 0: the peer sends no more. */
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

/* ---- files: one that a single process reads, appends to, and replaces by another ---- */

enum { KA__KEEP = 0, KA__FRESH = 1, KA__APPEND = 2 };      /* how to open one: as it is; or as a new one, and to write at KA__END, too */
enum { KA__END = -1 };

enum { KA__PATH = 4096, KA__PATH_MAX = 4000 };      /* room for a path; the longest, to which ".new" and such are added */

#if defined(_WIN32)
typedef HANDLE ka__file;
#define KA__NO_FILE INVALID_HANDLE_VALUE

static int ka__file_error(void)
{
    switch (GetLastError()) {
    case ERROR_SHARING_VIOLATION: case ERROR_ALREADY_EXISTS:  return KA_EINUSE;
    case ERROR_ACCESS_DENIED: case ERROR_WRITE_PROTECT:       return KA_EPERM;
    case ERROR_FILE_NOT_FOUND: case ERROR_PATH_NOT_FOUND:     return KA_ENOTFOUND;
    case ERROR_DISK_FULL: case ERROR_HANDLE_DISK_FULL:        return KA_ENOSPC;
    default:                                                  return KA_EOS;
    }
}

static void ka__file_close(ka__file f) { if (f != KA__NO_FILE) CloseHandle(f); }
static int ka__file_remove(const char *path) { return DeleteFileA(path) ? KA_OK : ka__file_error(); }

static int ka__file_rename(const char *from, const char *to)
{
    return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) ? KA_OK : ka__file_error();
}

static bool ka__is_slash(char c) { return c == '/' || c == '\\'; }
static int ka__folder_make(const char *path) { return CreateDirectoryA(path, NULL) ? KA_OK : ka__file_error(); }

/* Nobody else may write to it while it is open; renaming is for us. After an error *f is KA__NO_FILE. */
static int ka__file_open(ka__file *f, const char *path, int how)
{
    *f = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, how & KA__FRESH ? CREATE_ALWAYS : OPEN_ALWAYS,
                     FILE_ATTRIBUTE_NORMAL, NULL);
    if (*f == KA__NO_FILE) return ka__file_error();
    if (GetFileType(*f) == FILE_TYPE_DISK) return KA_OK;
    ka__file_close(*f);
    *f = KA__NO_FILE;
    return KA_EINVAL;
}

static int64_t ka__file_size(ka__file f)
{
    LARGE_INTEGER size;
    return GetFileSizeEx(f, &size) ? size.QuadPart : ka__file_error();
}

static ptrdiff_t ka__file_read_some(ka__file f, void *p, size_t n, int64_t at)
{
    OVERLAPPED o = { .Offset = (DWORD)at, .OffsetHigh = (DWORD)((uint64_t)at >> 32) };
    DWORD got = 0;
    return ReadFile(f, p, (DWORD)n, &got, &o) || GetLastError() == ERROR_HANDLE_EOF ? (ptrdiff_t)got : ka__file_error();
}

static ptrdiff_t ka__file_write_some(ka__file f, const void *p, size_t n, int64_t at)
{
    OVERLAPPED o = { .Offset = (DWORD)at, .OffsetHigh = (DWORD)((uint64_t)at >> 32) };
    DWORD put = 0;
    return WriteFile(f, p, (DWORD)n, &put, &o) && put > 0 ? (ptrdiff_t)put : ka__file_error();
}

static int ka__file_sync(ka__file f) { return FlushFileBuffers(f) ? KA_OK : ka__file_error(); }

static int ka__file_cut(ka__file f, int64_t size)
{
    LARGE_INTEGER to = { .QuadPart = size };
    return SetFilePointerEx(f, to, NULL, FILE_BEGIN) && SetEndOfFile(f) ? KA_OK : ka__file_error();
}

static int ka__file_link(const char *path, const char *name) { return CreateHardLinkA(name, path, NULL) ? KA_OK : ka__file_error(); }

/* Windows does not replace a file that is open: if this fails, *f may be KA__NO_FILE. */
static int ka__file_replace(ka__file *f, ka__file by, const char *from, const char *to)
{
    ka__file_close(*f);
    int r = ka__file_rename(from, to);
    if (r == KA_OK) return *f = by, KA_OK;
    DWORD code = GetLastError();
    ka__file_open(f, to, KA__KEEP);
    SetLastError(code);
    return r;
}

/* Does the path still lead to this file? KA_ENOTFOUND: to none, or to another. One that was removed is there until it is
   closed, and nobody may open it. */
static int ka__file_there(ka__file f, const char *path)
{
    BY_HANDLE_FILE_INFORMATION mine, other;
    HANDLE h = CreateFileA(path, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                           FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
    if (h == INVALID_HANDLE_VALUE) return GetLastError() == ERROR_ACCESS_DENIED ? KA_ENOTFOUND : ka__file_error();
    int r = GetFileInformationByHandle(f, &mine) && GetFileInformationByHandle(h, &other) ? KA_OK : ka__file_error();
    DWORD code = GetLastError();
    CloseHandle(h);
    SetLastError(code);
    if (r < 0) return r;
    bool same = mine.dwVolumeSerialNumber == other.dwVolumeSerialNumber && mine.nFileIndexHigh == other.nFileIndexHigh &&
                mine.nFileIndexLow == other.nFileIndexLow;
    return same ? KA_OK : KA_ENOTFOUND;
}

static int ka__folder_sync(const char *path) { (void)path; return KA_OK; }      /* MOVEFILE_WRITE_THROUGH has done it */
#else
typedef int ka__file;
#define KA__NO_FILE (-1)

static int ka__file_error(void)
{
    switch (errno) {
    case EACCES: case EPERM: case EROFS:  return KA_EPERM;
    case EMFILE: case ENFILE:             return KA_ELIMIT;
    case EISDIR: case ELOOP:              return KA_EINVAL;
    case ENOENT: case ENOTDIR:            return KA_ENOTFOUND;
    case ENOSPC: case EDQUOT: case EFBIG: return KA_ENOSPC;
    case EEXIST:                          return KA_EINUSE;
    default:                              return KA_EOS;
    }
}

static void ka__file_close(ka__file f) { if (f != KA__NO_FILE) close(f); }
static int ka__file_remove(const char *path) { return unlink(path) == 0 ? KA_OK : ka__file_error(); }
static int ka__file_rename(const char *from, const char *to) { return rename(from, to) == 0 ? KA_OK : ka__file_error(); }
static bool ka__is_slash(char c) { return c == '/'; }
static int ka__folder_make(const char *path) { return mkdir(path, 0700) == 0 ? KA_OK : ka__file_error(); }
static bool ka__same_inode(const struct stat *a, const struct stat *b) { return a->st_ino == b->st_ino && a->st_dev == b->st_dev; }

/* Locked; and still what the path leads to, since the one who had the lock may have replaced it. */
static int ka__file_claim(ka__file f, const char *path)
{
    struct stat mine, there;
    if (flock(f, LOCK_EX | LOCK_NB) != 0) return errno == EWOULDBLOCK ? KA_EINUSE : ka__file_error();
    if (fstat(f, &mine) != 0 || lstat(path, &there) != 0) return ka__file_error();
    if (!S_ISREG(mine.st_mode)) return KA_EINVAL;
    if ((mine.st_mode & 077) && fchmod(f, 0600) != 0) return ka__file_error();
    return ka__same_inode(&mine, &there) ? KA_OK : KA_EINUSE;
}

/* Does the path still lead to this file? KA_ENOTFOUND: to none, or to another. */
static int ka__file_there(ka__file f, const char *path)
{
    struct stat mine, there;
    if (fstat(f, &mine) != 0 || lstat(path, &there) != 0) return ka__file_error();
    return ka__same_inode(&mine, &there) ? KA_OK : KA_ENOTFOUND;
}

static int ka__file_open(ka__file *f, const char *path, int how)
{
    signal(SIGXFSZ, SIG_IGN);      /* at the limit of `ulimit -f` a write shall fail, no more */
    if (how & KA__FRESH) unlink(path);
    *f = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (how & KA__FRESH ? O_EXCL : 0) | (how & KA__APPEND ? O_APPEND : 0), 0600);
    if (*f < 0) return ka__file_error();
    int r = ka__file_claim(*f, path), code = errno;
    if (r == KA_OK) return r;
    ka__file_close(*f);
    *f = KA__NO_FILE;
    if (how & KA__FRESH) unlink(path);
    errno = code;
    return r;
}

static int64_t ka__file_size(ka__file f)
{
    struct stat s;
    return fstat(f, &s) == 0 ? (int64_t)s.st_size : ka__file_error();
}

static ptrdiff_t ka__file_read_some(ka__file f, void *p, size_t n, int64_t at)
{
    ssize_t got = pread(f, p, n, (off_t)at);
    return got >= 0 ? got : errno == EINTR ? KA_EAGAIN : ka__file_error();
}

static ptrdiff_t ka__file_write_some(ka__file f, const void *p, size_t n, int64_t at)
{
    ssize_t put = at == KA__END ? write(f, p, n) : pwrite(f, p, n, (off_t)at);
    return put > 0 ? put : put < 0 && errno == EINTR ? KA_EAGAIN : ka__file_error();
}

static int ka__file_cut(ka__file f, int64_t size) { return ftruncate(f, (off_t)size) == 0 ? KA_OK : ka__file_error(); }

/* A second name for a file; it may have it already. */
static int ka__file_link(const char *path, const char *name)
{
    struct stat a, b;
    if (link(path, name) == 0) return KA_OK;
    int r = ka__file_error(), code = errno;
    if (lstat(path, &a) == 0 && lstat(name, &b) == 0 && ka__same_inode(&a, &b)) return KA_OK;
    errno = code;
    return r;
}

static int ka__file_sync(ka__file f)
{
#  if defined(__APPLE__)
    /* fsync(2) there leaves the data in the disk's own cache; network volumes know nothing else */
    return fcntl(f, F_FULLFSYNC) == 0 || ((errno == ENOTSUP || errno == EINVAL) && fsync(f) == 0) ? KA_OK : ka__file_error();
#  else
    return fdatasync(f) == 0 ? KA_OK : ka__file_error();
#  endif
}

static int ka__file_replace(ka__file *f, ka__file by, const char *from, const char *to)
{
    int r = ka__file_rename(from, to);
    if (r < 0) return r;
    ka__file_close(*f);
    *f = by;
    return KA_OK;
}

/* A new name is on disk when its folder is. Some network file systems can't sync folders: EINVAL. */
static int ka__folder_sync(const char *path)
{
    char folder[KA__PATH];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL) ? KA_OK : ka__file_error(), code = errno;
    if (fd >= 0) close(fd);
    errno = code;
    return r;
}
#endif

/* Bytes read: n, or fewer at the end of the file. */
static ptrdiff_t ka__file_read(ka__file f, void *p, size_t n, int64_t at)
{
    size_t done = 0;
    while (done < n) {
        ptrdiff_t got = ka__file_read_some(f, (char *)p + done, n - done, at + (int64_t)done);
        if (got == 0) break;
        if (got < 0 && got != KA_EAGAIN) return got;
        if (got > 0) done += (size_t)got;
    }
    return (ptrdiff_t)done;
}

static int ka__file_write(ka__file f, const void *p, size_t n, int64_t at)
{
    for (size_t done = 0; done < n; ) {
        ptrdiff_t put = ka__file_write_some(f, (const char *)p + done, n - done, at == KA__END ? at : at + (int64_t)done);
        if (put < 0 && put != KA_EAGAIN) return (int)put;
        if (put > 0) done += (size_t)put;
    }
    return KA_OK;
}

/* Put a fresh file, with all that was written to it, in the place of *f; after an error, r or one that comes, remove it. */
static int ka__file_supersede(ka__file *f, ka__file fresh, const char *from, const char *to, int r)
{
    if (r == KA_OK) r = ka__file_sync(fresh);
    if (r == KA_OK) r = ka__file_replace(f, fresh, from, to);
    if (r == KA_OK) return r;
    int code = ka__os_code();
    ka__file_close(fresh);
    ka__file_remove(from);
    ka__os_code_set(code);
    return r;
}

/* The system's code right after one of these functions, where its result is about that alone. */
static int ka__file_code(int r)
{
    return r == KA_EOS || r == KA_EPERM || r == KA_ENOSPC || r == KA_ENOTFOUND || r == KA_ELIMIT ? ka__os_code() : 0;
}

/* Make the folders on the way to a file, but for those that are there. The first error is returned, which need not
   matter: Windows has one for C:, too. */
static int ka__folders_make(const char *path)
{
    char folder[KA__PATH];
    int first = KA_OK, code = 0;
    for (size_t i = 1; path[i]; i++) {
        if (!ka__is_slash(path[i]) || ka__is_slash(path[i - 1])) continue;
        memcpy(folder, path, i);
        folder[i] = 0;
        int r = ka__folder_make(folder);
        if (r == KA_OK || r == KA_EINUSE || first < 0) continue;      /* KA_EINUSE: it is there */
        first = r;
        code = ka__os_code();
    }
    if (first < 0) ka__os_code_set(code);
    return first;
}

static int ka__file_make(ka__file *f, const char *path)
{
    int r = ka__file_open(f, path, KA__FRESH);
    if (r != KA_ENOTFOUND) return r;
    int made = ka__folders_make(path), code = ka__os_code();
    r = ka__file_open(f, path, KA__FRESH);
    if (r != KA_ENOTFOUND || made == KA_OK) return r;
    ka__os_code_set(code);
    return made;
}

int ka_file_put(const char *path, const void *p, size_t n)
{
    char fresh[KA__PATH];
    ka__file f;
    size_t length = strlen(path);
    if (length == 0 || ka__is_slash(path[length - 1])) return KA_EINVAL;
    if (snprintf(fresh, sizeof fresh, "%s.new", path) > KA__PATH_MAX + 4) return KA_EINVAL;
    int r = ka__file_make(&f, fresh);
    if (r < 0) return r;
    r = ka__file_write(f, p, n, 0);
    if (r == KA_OK) r = ka__file_rename(fresh, path);      /* while it is open, so that no other ka_file_put has it */
    int code = ka__os_code();
    ka__file_close(f);
    if (r < 0) ka__file_remove(fresh);
    ka__os_code_set(code);
    return r;
}

int ka_file_remove(const char *path)
{
    int r = ka__file_remove(path);
    return r == KA_ENOTFOUND ? KA_OK : r;
}

/* ---- poller: epoll, kqueue or WSAPoll, with a wake-up from other threads. A socket is known by its
        token, a small number; ka__poller_set changes what it is watched for from `had` to `want`;
        ka__poller_wait tells the tokens of those where something can be done or has failed. ---- */

#if defined(__linux__)
typedef struct { int epoll, wake; } ka__poller;

static int ka__poller_init(ka__poller *p)
{
    /* Edge-triggered, so that nobody has to read the counter back to zero. */
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = KA__NO_TOKEN };
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->epoll >= 0 && p->wake >= 0 && epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->wake, &ev) == 0) return KA_OK;
    int r = ka__sock_error();
    if (p->epoll >= 0) close(p->epoll);
    if (p->wake >= 0) close(p->wake);
    return r;
}

static void ka__poller_free(ka__poller *p) { close(p->wake), close(p->epoll); }

static int ka__poller_set(ka__poller *p, ka__sock s, uint32_t token, int had, int want)
{
    struct epoll_event ev = { .events = 0, .data.u64 = token };
    if (want & KA__IN) ev.events |= EPOLLIN;
    if (want & KA__OUT) ev.events |= EPOLLOUT;
    if (want & KA__SHARED) ev.events |= EPOLLEXCLUSIVE;    /* one newcomer wakes one worker */
    int op = had == KA__UNWATCHED ? EPOLL_CTL_ADD : want == KA__UNWATCHED ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
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
    if (write(p->wake, &one, sizeof one) < 0) {}   /* EAGAIN alone: it is awake many times over */
}

#elif defined(__APPLE__)
typedef struct { int kq; } ka__poller;

static int ka__poller_init(ka__poller *p)
{
    struct kevent ev;
    EV_SET(&ev, 0, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, (void *)(uintptr_t)KA__NO_TOKEN);
    p->kq = kqueue();
    if (p->kq < 0) return ka__sock_error();
    if (kevent(p->kq, &ev, 1, NULL, 0, NULL) == 0) return KA_OK;
    int r = ka__sock_error();
    close(p->kq);
    return r;
}

static void ka__poller_free(ka__poller *p) { close(p->kq); }

static int ka__poller_set(ka__poller *p, ka__sock s, uint32_t token, int had, int want)
{
    static const struct { int bit; int16_t filter; } kinds[] = { { KA__IN, EVFILT_READ }, { KA__OUT, EVFILT_WRITE } };
    if (had == KA__UNWATCHED) had = 0;
    if (want == KA__UNWATCHED) want = 0;
    for (int i = 0; i < 2; i++) {
        struct kevent ev;
        if (((had ^ want) & kinds[i].bit) == 0) continue;
        EV_SET(&ev, (uintptr_t)s, kinds[i].filter, (want & kinds[i].bit) ? EV_ADD : EV_DELETE, 0, 0, (void *)(uintptr_t)token);
        if (kevent(p->kq, &ev, 1, NULL, 0, NULL) != 0) return ka__sock_error();
    }
    return KA_OK;
}

static int ka__poller_wait(ka__poller *p, uint32_t *tokens, int max, int ms)
{
    struct kevent ev[KA__EVENTS];
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    int n = kevent(p->kq, NULL, 0, ev, max < KA__EVENTS ? max : KA__EVENTS, ms < 0 ? NULL : &t), out = 0;
    for (int i = 0; i < n; i++)
        if ((uint32_t)(uintptr_t)ev[i].udata != KA__NO_TOKEN) tokens[out++] = (uint32_t)(uintptr_t)ev[i].udata;
    return out;
}

static void ka__poller_wake(ka__poller *p)
{
    struct kevent ev;
    EV_SET(&ev, 0, EVFILT_USER, 0, NOTE_TRIGGER, 0, (void *)(uintptr_t)KA__NO_TOKEN);
    kevent(p->kq, &ev, 1, NULL, 0, NULL);
}

#else
/* fds[0] is the wake-up, a datagram socket that is connected to itself. place[token] is the index in fds. */
typedef struct {
    WSAPOLLFD *fds;
    uint32_t  *tokens, *place;
    uint32_t   n, capacity, places, turn;
    SOCKET     wake;      /* fds[0] too; but other threads can't look there while it grows */
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
    p->fds[p->n].fd = KA__FD(s);
    p->tokens[p->n] = token;
    if (token != KA__NO_TOKEN) p->place[token] = p->n;
    p->n++;
    return KA_OK;
}

static void ka__poller_free(ka__poller *p)
{
    closesocket(p->wake);
    ka__free(p->fds);
    ka__free(p->tokens);
    ka__free(p->place);
}

static int ka__poller_init(ka__poller *p)
{
    struct sockaddr_in a;
    int size = sizeof a;
    memset(p, 0, sizeof *p);
    SOCKET s = WSASocketW(AF_INET, SOCK_DGRAM, 0, NULL, 0, WSA_FLAG_OVERLAPPED | 0x80);
    if (s == INVALID_SOCKET) return ka__sock_error();
    ka__address("127.0.0.1", 0, &a);
    int r = KA_EOS;
    if (bind(s, (struct sockaddr *)&a, sizeof a) == 0 && getsockname(s, (struct sockaddr *)&a, &size) == 0 &&
        connect(s, (struct sockaddr *)&a, sizeof a) == 0)
        r = ka__sock_prepare((ka__sock)s);
    if (r == KA_OK) r = ka__poller_add(p, (ka__sock)s, KA__NO_TOKEN);
    p->wake = s;
    if (r < 0) {
        ka__poller_free(p);
        return r;
    }
    p->fds[0].events = POLLRDNORM;
    return KA_OK;
}

static int ka__poller_set(ka__poller *p, ka__sock s, uint32_t token, int had, int want)
{
    if (had <= 0 && want <= 0) return KA_OK;      /* watched for nothing: left out, since WSAPoll would tell of a FIN */
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
    p->fds[at].events = (SHORT)((want & KA__IN ? POLLRDNORM : 0) | (want & KA__OUT ? POLLWRNORM : 0));
    p->fds[at].revents = 0;
    return KA_OK;
}

static int ka__poller_wait(ka__poller *p, uint32_t *tokens, int max, int ms)
{
    int n = WSAPoll(p->fds, p->n, ms), out = 0;
    if (n <= 0) return 0;
    if (p->fds[0].revents)
        for (char junk[64]; recv(p->wake, junk, sizeof junk, 0) > 0; ) {}
    for (uint32_t i = 0; i < p->n && out < max; i++) {     /* from another place each time, to be fair */
        uint32_t at = (p->turn + i) % p->n;
        if (at != 0 && p->fds[at].revents) tokens[out++] = p->tokens[at];
    }
    p->turn++;
    return out;
}

static void ka__poller_wake(ka__poller *p) { send(p->wake, "", 1, 0); }
#endif

/* ---- sleeper: a thread that waits for sockets, for other threads, or both. It stores 1 in asleep, looks
        once more for work, and waits on its poller; who turns the 1 back into 0 wakes it. ---- */

typedef struct { _Atomic(uint32_t) asleep; ka__poller poller; } ka__sleeper;

/* Any thread or signal handler. */
static void ka__wake(ka__sleeper *z)
{
    if (atomic_load(&z->asleep) && atomic_exchange(&z->asleep, 0)) ka__poller_wake(&z->poller);
}

/* ---- descriptors: on Linux a worker has a table of its own (unshare(2), CLONE_FILES). The descriptor limit
        then counts for each worker, and a system call finds its descriptor without a locked instruction. What
        the parent opened stays in the process's main table, where ss, lsof and fuser look. ---- */

#if defined(__linux__) && !defined(KA__TSAN) && !defined(KA_ONE_TABLE)      /* TSan takes equal numbers for the same thing */
/* A descriptor of the main table, in this thread's table; -1 if that can't be had. */
static int ka__fd_take(int fd)
{
    int process = (int)syscall(SYS_pidfd_open, getpid(), 0);      /* Linux 5.3; the next call 5.6 */
    int taken = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, fd, 0), code = errno;
    if (process >= 0) close(process);
    errno = code;      /* it is told where taken is -1 */
    return taken;
}

/* Can a thread have a table of its own, and take descriptors of the main one, as this one that it has? Not in
   a sandbox, which may kill for such calls. */
static bool ka__table_can(int fd)
{
    if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0) return false;
    if (syscall(SYS_kcmp, getpid(), syscall(SYS_gettid), 2 /* KCMP_FILES */, 0, 0) != 0) return false;
    int probe = ka__fd_take(fd);
    if (probe < 0) return false;
    close(probe);
    return syscall(SYS_close_range, ~0u, ~0u, 0) == 0;      /* Linux 5.9; nothing has that number */
}

/* Give this thread a table of its own, with nothing in it but what the pollers need, under the same numbers, and
   stderr for a failed assertion. 1: done; 0: it goes on sharing the main one, where the system can't do it; KA_EOS:
   the thread is of no use any more. Signals go to other threads from now on, since their handlers may want
   descriptors that aren't here; but not a fault of this thread's own. */
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
        if (taken < 0 || dup3(taken, keep[i], O_CLOEXEC) < 0) return KA_EOS;      /* the kernel is out of memory */
        close(taken);
    }
    close(0);      /* who waits for the end of a pipe shall not wait for this thread */
    close(1);
    ka__os_start();
    sigfillset(&most);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&most, faults[i]);
    pthread_sigmask(SIG_BLOCK, &most, NULL);
    return 1;
}
#else
static int ka__fd_take(int fd) { return fd; }

static bool ka__table_can(int fd) { (void)fd; return false; }
static int ka__table_own(const ka__poller *mine, const ka__poller *parents) { (void)mine, (void)parents; return 0; }
#endif

#if defined(_WIN32)
int ka_descriptors_raise(bool *each)
{
    *each = ka__table_can(0);
    return INT_MAX;
}
#else
int ka_descriptors_raise(bool *each)
{
    struct rlimit limit;
    ka__os_start();
    *each = ka__table_can(2);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return KA_EOS;
    rlim_t most = limit.rlim_max;
#  if defined(__APPLE__)
    int allowed;      /* the hard limit may be none at all, and is not what can be had */
    size_t size = sizeof allowed;
    if (sysctlbyname("kern.maxfilesperproc", &allowed, &size, NULL, 0) == 0 && most > (rlim_t)allowed) most = (rlim_t)allowed;
#  endif
    if (limit.rlim_cur < most) {
        limit.rlim_cur = most;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return KA_EOS;
    }
    return limit.rlim_cur < INT_MAX ? (int)limit.rlim_cur : INT_MAX;
}
#endif

/* ---- processes: what this one uses; run its program again; find and kill the one behind a connection ---- */

/* The four addresses of a connection, seen from here. */
typedef struct { struct sockaddr_in mine, theirs; } ka__pair;

enum { KA__OWNER_MS = 1000, KA__OWNER_TRIES = 3, KA__OWNER_STEP_MS = 20, KA__KILL_MS = 5000 };      /* patience with finding it, and with its end */

/* Contracts of the next three, which every system has:
   ka__owner_find    the one process that holds both the far end of a connection and the socket that
                     listens there; KA_OK, KA_ENOTFOUND, KA_EINUSE (several do), KA_EPERM
   ka__process_open  a handle of a process, so that its PID can't come to mean another one
   ka__process_end   kill it, and wait for its end (ms at most); KA_OK, KA_EPERM, KA_ETIME */

enum { KA__MAX_ARGS = 30, KA__CHILD_STEP_MS = 2 };

/* Windows joins the arguments into one line; these characters mean nothing to it. */
static bool ka__is_arg(const char *arg)
{
    if (strlen(arg) > KA_MAX_ID) return false;
    while (*arg >= ' ' && *arg <= '~' && *arg != '"' && *arg != '\\') arg++;
    return *arg == 0;
}

/* How many arguments are there? KA_EINVAL: too many, or one of them is none. */
static int ka__args(const char *const *args)
{
    int n = 0;
    for (; args[n]; n++)
        if (n == KA__MAX_ARGS || !ka__is_arg(args[n])) return KA_EINVAL;
    return n;
}

#if defined(_WIN32)
typedef HANDLE ka__process;

static MIB_TCPTABLE_OWNER_PID *ka__tcp_table(void)
{
    MIB_TCPTABLE_OWNER_PID *t = NULL;
    DWORD size = 65536, r;
    do {     /* the table may have grown between two calls: twice what it asked for, and again */
        size *= 2;
        void *more = ka__resize(t, size, 1);
        if (!more) break;
        t = more;
        r = GetExtendedTcpTable(t, &size, FALSE, AF_INET, TCP_TABLE_OWNER_PID_ALL, 0);
        if (r == NO_ERROR) return t;
    } while (r == ERROR_INSUFFICIENT_BUFFER);
    ka__free(t);
    return NULL;
}

/* Wine 8 doesn't know whose an accepted socket is (0): there it is the listener's, if one process listens. */
static int ka__owner_find(const ka__pair *pair, int64_t *pid)
{
    MIB_TCPTABLE_OWNER_PID *t = ka__tcp_table();
    const DWORD here = pair->theirs.sin_addr.s_addr;
    bool connected = false, listening = false, several = false;
    DWORD owner = 0, found = 0;
    if (!t) return KA_EOS;
    for (DWORD i = 0; i < t->dwNumEntries; i++) {
        const MIB_TCPROW_OWNER_PID *row = &t->table[i];
        if (row->dwState == MIB_TCP_STATE_ESTAB && row->dwLocalAddr == here && (u_short)row->dwLocalPort == pair->theirs.sin_port &&
            row->dwRemoteAddr == pair->mine.sin_addr.s_addr && (u_short)row->dwRemotePort == pair->mine.sin_port) {
            connected = true;
            owner = row->dwOwningPid;
        }
    }
    for (DWORD i = 0; i < t->dwNumEntries && connected; i++) {
        const MIB_TCPROW_OWNER_PID *row = &t->table[i];
        if (row->dwState != MIB_TCP_STATE_LISTEN || (u_short)row->dwLocalPort != pair->theirs.sin_port) continue;
        if ((row->dwLocalAddr != here && row->dwLocalAddr != 0) || (owner && row->dwOwningPid != owner)) continue;
        several = several || (listening && row->dwOwningPid != found);
        listening = true;
        found = row->dwOwningPid;
    }
    ka__free(t);
    *pid = several ? 0 : found;
    return several ? KA_EINUSE : found ? KA_OK : KA_ENOTFOUND;
}

static bool ka__process_is_me(int64_t pid) { return pid == (int64_t)GetCurrentProcessId(); }

static int ka__process_open(int64_t pid, ka__process *p)
{
    *p = OpenProcess(PROCESS_TERMINATE | SYNCHRONIZE, FALSE, (DWORD)pid);
    if (*p) return KA_OK;
    return GetLastError() == ERROR_ACCESS_DENIED ? KA_EPERM : KA_ENOTFOUND;
}

static void ka__process_close(ka__process p) { CloseHandle(p); }

static int ka__process_end(ka__process p, int64_t pid, int ms)
{
    (void)pid;
    int r = TerminateProcess(p, 1) ? KA_OK : KA_EPERM;
    if (r == KA_OK && WaitForSingleObject(p, (DWORD)ms) != WAIT_OBJECT_0) r = KA_ETIME;
    return r;
}

static int ka__program_start(const char *const *args, HANDLE in, HANDLE out, PROCESS_INFORMATION *child)
{
    WCHAR exe[MAX_PATH + 1], line[MAX_PATH + KA__MAX_ARGS * (KA_MAX_ID + 3) + 3], *w = line;      /* quotes, spaces, a zero */
    DWORD path = GetModuleFileNameW(NULL, exe, MAX_PATH);
    if (path == 0 || path >= MAX_PATH) return KA_EOS;
    if (ka__args(args) < 0) return KA_EINVAL;
    *w++ = L'"';
    for (const WCHAR *e = exe; *e; ) *w++ = *e++;
    *w++ = L'"';
    for (; *args; args++) {
        *w++ = L' ';
        *w++ = L'"';
        for (const char *a = *args; *a; ) *w++ = (WCHAR)*a++;
        *w++ = L'"';
    }
    *w = 0;

    STARTUPINFOW startup;
    memset(&startup, 0, sizeof startup);
    startup.cb = sizeof startup;
    startup.dwFlags = STARTF_USESTDHANDLES;
    startup.hStdInput = in;
    startup.hStdOutput = out;
    startup.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    return CreateProcessW(exe, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, child) ? KA_OK : KA_EOS;
}

int ka_restart(const char *arg)
{
    const char *const args[] = { arg, NULL };
    PROCESS_INFORMATION child;
    DWORD code = 1;
    int r = ka__program_start(args, GetStdHandle(STD_INPUT_HANDLE), GetStdHandle(STD_OUTPUT_HANDLE), &child);
    if (r < 0) return r;
    CloseHandle(child.hThread);
    WaitForSingleObject(child.hProcess, INFINITE);
    GetExitCodeProcess(child.hProcess, &code);
    CloseHandle(child.hProcess);
    return (int)(code & 0x7FFFFFFF);
}

int ka_child_start(ka_child *c, const char *const *args)
{
    SECURITY_ATTRIBUTES inherited = { sizeof inherited, NULL, TRUE };
    PROCESS_INFORMATION child;
    HANDLE ours, theirs;
    memset(c, 0, sizeof *c);
    if (!CreatePipe(&ours, &theirs, &inherited, 0)) return KA_ELIMIT;
    SetHandleInformation(ours, HANDLE_FLAG_INHERIT, 0);
    HANDLE in = CreateFileA("NUL", GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, &inherited, OPEN_EXISTING, 0, NULL);
    int r = in == INVALID_HANDLE_VALUE ? KA_EOS : ka__program_start(args, in, theirs, &child);
    if (in != INVALID_HANDLE_VALUE) CloseHandle(in);
    CloseHandle(theirs);
    if (r < 0) {
        CloseHandle(ours);
        return r;
    }
    CloseHandle(child.hThread);
    c->pid = (int64_t)child.dwProcessId;
    c->process = (intptr_t)child.hProcess;
    c->out = (intptr_t)ours;
    return KA_OK;
}

/* Bytes of a pipe, which Windows can't wait for; 0: its end; KA_ETIME. */
static ptrdiff_t ka__pipe_read(intptr_t pipe, char *out, size_t n, int64_t until)
{
    for (;; ka_sleep_ms(KA__CHILD_STEP_MS)) {
        DWORD ready = 0, got = 0;
        if (!PeekNamedPipe((HANDLE)pipe, NULL, 0, NULL, &ready, NULL)) return GetLastError() == ERROR_BROKEN_PIPE ? 0 : KA_EOS;
        if (ready) return ReadFile((HANDLE)pipe, out, (DWORD)n, &got, NULL) ? (ptrdiff_t)got : KA_EOS;
        if (ka__left(until) == 0) return KA_ETIME;
    }
}

/* Bytes of standard input, however long it takes; 0: its end. */
static ptrdiff_t ka__input_read(char *out, size_t n)
{
    DWORD got = 0;
    if (ReadFile(GetStdHandle(STD_INPUT_HANDLE), out, (DWORD)n, &got, NULL)) return (ptrdiff_t)got;
    return GetLastError() == ERROR_BROKEN_PIPE ? 0 : KA_EOS;
}

int ka_child_end(ka_child *c, bool by_force, int timeout_ms)
{
    HANDLE process = (HANDLE)c->process;
    DWORD code = 0;
    (void)by_force;
    if (!c->pid) return KA_ENOTFOUND;
    bool ended = WaitForSingleObject(process, 0) == WAIT_OBJECT_0;
    if (!ended && !c->told && !TerminateProcess(process, 137)) return KA_EPERM;
    c->told = true;
    if (WaitForSingleObject(process, timeout_ms < 0 ? INFINITE : (DWORD)timeout_ms) != WAIT_OBJECT_0) return KA_ETIME;
    bool known = GetExitCodeProcess(process, &code);
    CloseHandle(process);
    CloseHandle((HANDLE)c->out);
    memset(c, 0, sizeof *c);
    return known ? (int)(code & 0x7FFFFFFF) : KA_EOS;
}

int ka_process_usage(ka_usage *out)
{
    FILETIME begun, ended, kernel, user;      /* in 100 ns */
    PROCESS_MEMORY_COUNTERS memory;
    memset(out, 0, sizeof *out);
    if (!GetProcessTimes(GetCurrentProcess(), &begun, &ended, &kernel, &user) ||
        !K32GetProcessMemoryInfo(GetCurrentProcess(), &memory, sizeof memory)) return KA_EOS;
    out->cpu_us = (int64_t)((((uint64_t)kernel.dwHighDateTime + user.dwHighDateTime) << 32) + kernel.dwLowDateTime + user.dwLowDateTime) / 10;
    out->memory = memory.WorkingSetSize;
    return KA_OK;
}

#else
static bool ka__process_is_me(int64_t pid) { return pid == (int64_t)getpid(); }

/* Add the arguments to argv, behind the program's name; KA_OK or KA_EINVAL. exec changes none of them, which its type
   doesn't say. */
static int ka__argv_fill(char *argv[KA__MAX_ARGS + 2], const char *const *args)
{
    int n = ka__args(args);
    for (int i = 0; i <= n; i++) argv[i + 1] = (char *)(uintptr_t)args[i];      /* and the NULL */
    return n < 0 ? n : KA_OK;
}

#  if defined(__linux__)
/* What to execute for this program, and its name, which is for show; NULL if that can't be told. /proc/self/exe is
   what runs, even if its file was moved, replaced or removed. */
static const char *ka__image(char name[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", name, PATH_MAX - 1);
    if (n < 0) return NULL;
    name[n] = 0;
    return "/proc/self/exe";
}

/* End with the thread that started this process, which may have ended meanwhile. */
static bool ka__die_with(pid_t parent) { return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == parent; }
static int ka__pipe_open(int ends[2]) { return pipe2(ends, O_CLOEXEC) == 0 ? KA_OK : ka__sock_error(); }

/* Of /proc/self/statm (proc(5)), the second number: pages in memory. */
static int ka__memory(size_t *out)
{
    char text[128];
    unsigned long pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ka__file_error();
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    int r = n < 0 ? ka__file_error() : KA_OK;
    close(fd);
    if (r < 0) return r;
    text[n] = 0;
    if (sscanf(text, "%*u %lu %*u", &pages) != 1 || !strchr(text, '\n')) return KA_EOS;
    *out = pages * (size_t)sysconf(_SC_PAGESIZE);
    return KA_OK;
}
#  else
static const char *ka__image(char name[PATH_MAX])
{
    uint32_t n = PATH_MAX;
    return _NSGetExecutablePath(name, &n) == 0 ? name : NULL;
}

static bool ka__die_with(pid_t parent) { return parent > 0; }      /* macOS can't do that */

static int ka__pipe_open(int ends[2])
{
    if (pipe(ends) != 0) return ka__sock_error();
    if (fcntl(ends[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0) return KA_OK;
    close(ends[0]);
    close(ends[1]);
    return KA_EOS;
}

static int ka__memory(size_t *out)
{
    struct rusage_info_v0 info;
    if (proc_pid_rusage(getpid(), RUSAGE_INFO_V0, (rusage_info_t *)(void *)&info) != 0) return KA_EOS;
    *out = (size_t)info.ri_phys_footprint;      /* what is freed leaves this at once, but the resident size when it is needed */
    return KA_OK;
}
#  endif

int ka_process_usage(ka_usage *out)
{
    struct rusage u;
    memset(out, 0, sizeof *out);
    int r = getrusage(RUSAGE_SELF, &u) == 0 ? ka__memory(&out->memory) : KA_EOS;
    if (r == KA_OK) out->cpu_us = ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
    return r;
}

int ka_restart(const char *arg)
{
    const char *const args[] = { arg, NULL };
    char name[PATH_MAX], *argv[KA__MAX_ARGS + 2] = { name };
    const char *image = ka__image(name);
    if (!image) return KA_EOS;
    int r = ka__argv_fill(argv, args);
    if (r < 0) return r;
    execv(image, argv);
    return KA_EOS;
}

/* In the forked child, where only what signal-safety(7) lists may be called. All signals are blocked: a handler of
   ours must not run here, where it would wake the parent's threads. */
static void ka__child_become(const char *image, char *const *argv, int out, pid_t parent)
{
    sigset_t none;
    for (int i = 1; i < NSIG; i++)
        if (signal(i, SIG_DFL) == SIG_IGN && i != SIGPIPE && i != SIGXFSZ) signal(i, SIG_IGN);      /* nohup's stays */
    sigemptyset(&none);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (ka__die_with(parent) && in >= 0 && dup2(in, 0) == 0 && dup2(out, 1) == 1) {
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        execv(image, argv);
    }
    _exit(127);
}

int ka_child_start(ka_child *c, const char *const *args)
{
    char name[PATH_MAX], *argv[KA__MAX_ARGS + 2] = { name };
    const char *image = ka__image(name);
    int ends[2], r = ka__argv_fill(argv, args);
    pid_t parent = getpid();
    sigset_t all, before;
    memset(c, 0, sizeof *c);
    if (r == KA_OK && !image) r = KA_EOS;
    if (r < 0) return r;
    ka__os_start();      /* the pipe is none of 0 to 2 */
    r = ka__pipe_open(ends);
    if (r < 0) return r;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) ka__child_become(image, argv, ends[1], parent);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return KA_ELIMIT;
    }
    c->pid = pid;
    c->out = ends[0];
    return KA_OK;
}

/* Bytes of a pipe, or of anything else that can be read; 0: its end; KA_ETIME. */
static ptrdiff_t ka__pipe_read(intptr_t pipe, char *out, size_t n, int64_t until)
{
    for (;;) {
        int left = ka__left(until), r = ka__sock_wait(pipe, KA__IN, left);
        ssize_t got = r == KA_OK ? read((int)pipe, out, n) : -1;
        if (got >= 0) return got;
        if (r == KA_OK) r = ka__sock_error();
        if (r != KA_EAGAIN && (r != KA_ETIME || left == 0)) return r;      /* a signal, or early */
    }
}

/* Bytes of standard input, however long it takes; 0: its end. */
static ptrdiff_t ka__input_read(char *out, size_t n) { return ka__pipe_read(0, out, n, INT64_MAX); }

/* Its PID, once it has ended; 0: it runs; less: its status is lost. */
static pid_t ka__child_look(const ka_child *c, int *status)
{
    pid_t r;
    do r = waitpid((pid_t)c->pid, status, WNOHANG);
    while (r < 0 && errno == EINTR);
    return r;
}

int ka_child_end(ka_child *c, bool by_force, int timeout_ms)
{
    const int64_t until = ka__until(timeout_ms);
    int status = 0;
    if (!c->pid) return KA_ENOTFOUND;
    pid_t ended = ka__child_look(c, &status);      /* until this tells of its end, no other process has its PID */
    if (ended == 0 && (by_force || !c->told) && kill((pid_t)c->pid, by_force ? SIGKILL : SIGTERM) != 0) return ka__sock_error();
    c->told = true;
    for (; ended == 0; ended = ka__child_look(c, &status)) {
        if (ka__left(until) == 0) return KA_ETIME;
        ka_sleep_ms(KA__CHILD_STEP_MS);
    }
    close((int)c->out);
    memset(c, 0, sizeof *c);
    if (ended < 0) return KA_EOS;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

#  if defined(__linux__)
typedef int ka__process;      /* a pidfd */

/* What /proc/net tells of a server: the inode of its end of our connection, and of what listens there. */
enum { KA__MAX_OWN_LISTENERS = 16 };      /* sockets that listen on one port: several only with SO_REUSEPORT */
typedef struct { unsigned long connection, listeners[KA__MAX_OWN_LISTENERS], uid; int listeners_n; } ka__inodes;

/* Add what a table of the kernel's knows (man 5 proc, /proc/net/tcp): addresses are hex words as they lie
   in memory. In tcp6, prefix makes IPv4 addresses of it. */
static void ka__inodes_read(ka__inodes *in, const char *table, const char *prefix, const ka__pair *pair)
{
    char theirs[64], mine[64], port[8], line[512], local[64], remote[64];
    unsigned state;
    unsigned long uid, inode;
    snprintf(port, sizeof port, ":%04X", ntohs(pair->theirs.sin_port));
    snprintf(theirs, sizeof theirs, "%s%08X%s", prefix, pair->theirs.sin_addr.s_addr, port);
    snprintf(mine, sizeof mine, "%s%08X:%04X", prefix, pair->mine.sin_addr.s_addr, ntohs(pair->mine.sin_port));
    FILE *f = fopen(table, "re");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, " %*u: %63s %63s %x %*s %*s %*s %lu %*s %lu", local, remote, &state, &uid, &inode) != 5) continue;
        bool here = strcmp(local, theirs) == 0;
        bool any = strcmp(local + strspn(local, "0"), port) == 0;
        if (here && strcmp(remote, mine) == 0) {
            in->connection = inode;
            in->uid = uid;
        } else if ((here || any) && state == TCP_LISTEN && in->listeners_n < KA__MAX_OWN_LISTENERS) {
            in->listeners[in->listeners_n++] = inode;
        }
    }
    fclose(f);
}

/* Which of these sockets are in a table of descriptors, /proc/PID/fd? Bit 0: the connection; the others: listeners. */
static uint32_t ka__inodes_held(const ka__inodes *in, const char *folder)
{
    uint32_t held = 0;
    DIR *d = opendir(folder);
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL; ) {
        char link[64];
        unsigned long inode;
        ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
        if (n < 0) continue;
        link[n] = 0;
        if (sscanf(link, "socket:[%lu]", &inode) != 1) continue;
        if (inode == in->connection) held |= 1;
        for (int i = 0; i < in->listeners_n; i++)
            if (inode == in->listeners[i]) held |= 2u << i;
    }
    closedir(d);
    return held;
}

/* The same for a process: its main table, and those of threads that have one of their own (unshare(2),
   CLONE_FILES), which kcmp(2) tells apart. */
static uint32_t ka__process_holds(const ka__inodes *in, const char *pid)
{
    char folder[96];
    snprintf(folder, sizeof folder, "/proc/%.20s/fd", pid);
    uint32_t held = ka__inodes_held(in, folder);
    snprintf(folder, sizeof folder, "/proc/%.20s/task", pid);
    DIR *d = opendir(folder);
    if (!d) return held;
    for (struct dirent *e; (e = readdir(d)) != NULL; ) {
        if (!isdigit((unsigned char)e->d_name[0])) continue;
        if (syscall(SYS_kcmp, atol(pid), atol(e->d_name), 2 /* KCMP_FILES */, 0, 0) == 0) continue;
        snprintf(folder, sizeof folder, "/proc/%.20s/task/%.20s/fd", pid, e->d_name);
        held |= ka__inodes_held(in, folder);
    }
    closedir(d);
    return held;
}

static int ka__owner_find(const ka__pair *pair, int64_t *pid)
{
    ka__inodes in = { 0 };
    char mapped[25];
    snprintf(mapped, sizeof mapped, "0000000000000000%08X", htonl(0xFFFF));
    *pid = 0;
    ka__inodes_read(&in, "/proc/net/tcp", "", pair);
    ka__inodes_read(&in, "/proc/net/tcp6", mapped, pair);
    if (!in.connection) return KA_ENOTFOUND;
    DIR *d = opendir("/proc");
    if (!d) return KA_EOS;
    int r = KA_ENOTFOUND;
    uint32_t owned = 0, others = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL; ) {
        if (!isdigit((unsigned char)e->d_name[0])) continue;
        uint32_t held = ka__process_holds(&in, e->d_name);
        bool owner = (held & 1) && (held & ~1u);
        if (!owner || r != KA_ENOTFOUND) {      /* a child, a parent, or Wine's server, which holds sockets for others */
            others |= held;
            continue;
        }
        r = KA_OK;
        owned = held;
        *pid = atol(e->d_name);
    }
    closedir(d);
    if (owned & others) return KA_EINUSE;
    return r == KA_ENOTFOUND && geteuid() != 0 && in.uid != geteuid() ? KA_EPERM : r;
}

static int ka__process_open(int64_t pid, ka__process *p)
{
    *p = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);      /* Linux 5.3; closes on exec */
    return *p >= 0 ? KA_OK : errno == ESRCH ? KA_ENOTFOUND : ka__sock_error();
}

static void ka__process_close(ka__process p) { close(p); }

static int ka__process_end(ka__process p, int64_t pid, int ms)
{
    (void)pid;
    if (syscall(SYS_pidfd_send_signal, p, SIGKILL, NULL, 0) != 0 && errno != ESRCH) return ka__sock_error();
    int64_t until = ka_now_ms() + ms;
    while (ka__sock_wait(p, KA__IN, ms) != KA_OK) {      /* readable: it has ended. A poll that fails doesn't undo the kill */
        if (ka_now_ms() >= until) return KA_ETIME;
        ka_sleep_ms(KA__OWNER_STEP_MS);
    }
    return KA_OK;
}

#  else
typedef int ka__process;      /* a kqueue that tells of its end */

static bool ka__holds(int pid, const ka__pair *pair)
{
    bool connection = false, listener = false;
    int size = proc_pidinfo(pid, PROC_PIDLISTFDS, 0, NULL, 0);
    if (size <= 0) return false;
    struct proc_fdinfo *fds = ka__resize(NULL, (size_t)size * 2, 1);
    if (!fds) return false;
    int n = proc_pidinfo(pid, PROC_PIDLISTFDS, 0, fds, size * 2) / (int)sizeof *fds;
    for (int i = 0; i < n; i++) {
        struct socket_fdinfo info;
        if (fds[i].proc_fdtype != PROX_FDTYPE_SOCKET) continue;
        if (proc_pidfdinfo(pid, fds[i].proc_fd, PROC_PIDFDSOCKETINFO, &info, sizeof info) != (int)sizeof info) continue;
        if (info.psi.soi_kind != SOCKINFO_TCP) continue;
        const struct tcp_sockinfo *tcp = &info.psi.soi_proto.pri_tcp;
        const struct in_sockinfo *in = &tcp->tcpsi_ini;
        if ((in_port_t)in->insi_lport != pair->theirs.sin_port) continue;
        in_addr_t local = in->insi_laddr.ina_46.i46a_addr4.s_addr;       /* of a mapped IPv6 address too */
        bool here = local == pair->theirs.sin_addr.s_addr;
        if (tcp->tcpsi_state == TSI_S_LISTEN && (here || local == 0)) listener = true;
        if (here && (in_port_t)in->insi_fport == pair->mine.sin_port &&
            in->insi_faddr.ina_46.i46a_addr4.s_addr == pair->mine.sin_addr.s_addr) connection = true;
    }
    ka__free(fds);
    return connection && listener;
}

static int ka__owner_find(const ka__pair *pair, int64_t *pid)
{
    int r = KA_ENOTFOUND, size = proc_listpids(PROC_ALL_PIDS, 0, NULL, 0);
    pid_t *pids = size > 0 ? ka__resize(NULL, (size_t)size * 2, 1) : NULL;
    if (!pids) return KA_EOS;
    int n = proc_listpids(PROC_ALL_PIDS, 0, pids, size * 2) / (int)sizeof *pids;
    *pid = 0;
    for (int i = 0; i < n; i++) {
        if (pids[i] == 0 || !ka__holds(pids[i], pair)) continue;
        r = *pid ? KA_EINUSE : KA_OK;
        *pid = pids[i];
    }
    ka__free(pids);
    return r;
}

static int ka__process_open(int64_t pid, ka__process *p)
{
    struct kevent ev;
    EV_SET(&ev, (uintptr_t)pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL);
    *p = kqueue();
    if (*p < 0) return ka__sock_error();
    if (kevent(*p, &ev, 1, NULL, 0, NULL) == 0) return KA_OK;
    int r = errno == ESRCH ? KA_ENOTFOUND : ka__sock_error();
    close(*p);
    return r;
}

static void ka__process_close(ka__process p) { close(p); }

/* macOS kills by PID alone; between the second look and this lie microseconds, and no PID comes round in those. */
static int ka__process_end(ka__process p, int64_t pid, int ms)
{
    struct kevent ev;
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    int r = kill((pid_t)pid, SIGKILL) == 0 || errno == ESRCH ? KA_OK : ka__sock_error();
    if (r == KA_OK && kevent(p, NULL, 0, &ev, 1, &t) != 1) r = KA_ETIME;
    return r;
}

#  endif
#endif

/* Give out n bytes of text as a line, and drop them and the line feed, if it has one. */
static void ka__child_take(ka_child *c, size_t n, bool whole, char *line, size_t cap)
{
    size_t end = n + whole, keep = n > 0 && c->text[n - 1] == '\r' ? n - 1 : n;      /* Windows */
    if (keep >= cap) keep = cap - 1;
    memcpy(line, c->text, keep);
    line[keep] = 0;
    c->n -= end;
    memmove(c->text, c->text + end, c->n);
}

int ka_child_line(ka_child *c, char *line, size_t cap, int timeout_ms)
{
    const int64_t until = ka__until(timeout_ms);
    KA_ASSERT(cap > 0);
    if (!c->pid) return KA_ENOTFOUND;
    char *end;
    while ((end = memchr(c->text, '\n', c->n)) == NULL) {
        if (c->n == sizeof c->text) c->n--;      /* the rest of a long line comes byte by byte, and goes */
        ptrdiff_t got = ka__pipe_read(c->out, c->text + c->n, sizeof c->text - c->n, until);
        if (got < 0) return (int)got;
        if (got == 0 && c->n == 0) return KA_ENOTFOUND;
        if (got == 0) break;
        c->n += (size_t)got;
    }
    ka__child_take(c, end ? (size_t)(end - c->text) : c->n, end != NULL, line, cap);
    return KA_OK;
}

/* A socket that was just accepted has no owner yet, and /proc/net may pass over a line while others come
   and go: hence the patience. */
static int ka__owner_await(const ka__pair *pair, int64_t *pid)
{
    int64_t until = ka_now_ms() + KA__OWNER_MS;
    int r;
    for (int tries = 1; (r = ka__owner_find(pair, pid)) == KA_ENOTFOUND; tries++) {
        if (tries >= KA__OWNER_TRIES && ka_now_ms() >= until) break;      /* one look at 100,000 lines may take it all */
        ka_sleep_ms(KA__OWNER_STEP_MS);
    }
    return r;
}

static int ka__peer_kill(ka__sock s, int64_t *pid)
{
    ka__pair pair;
    ka__process p;
    socklen_t a = sizeof pair.mine, b = sizeof pair.theirs;
    int64_t again = 0;
    if (getsockname(KA__FD(s), (struct sockaddr *)&pair.mine, &a) != 0 ||
        getpeername(KA__FD(s), (struct sockaddr *)&pair.theirs, &b) != 0) return KA_EOFFLINE;
    int r = ka__owner_await(&pair, pid);
    if (r == KA_EINUSE) *pid = 0;
    if (r < 0) return r;
    if (ka__process_is_me(*pid)) return KA_EPERM;
    r = ka__process_open(*pid, &p);
    if (r < 0) return r;
    r = ka__owner_await(&pair, &again);      /* the handle is held now: is it still that process? */
    if (r == KA_OK) r = again == *pid ? ka__process_end(p, *pid, KA__KILL_MS) : KA_ENOTFOUND;
    ka__process_close(p);
    return r;
}

/* ---- interrupts: run a function, which must be safe in a signal handler, at the first of them ---- */

static void (*ka__interrupt_run)(void);

#if defined(_WIN32)
static LONG ka__interrupt_seen;

static BOOL WINAPI ka__interrupt_handler(DWORD kind)
{
    if (InterlockedExchange(&ka__interrupt_seen, 1)) return FALSE;      /* the second one: the system's own handler */
    ka__interrupt_run();
    if (kind != CTRL_C_EVENT && kind != CTRL_BREAK_EVENT) Sleep(INFINITE);   /* returning would end the process */
    return TRUE;
}

static int ka__interrupts_catch(void (*run)(void))
{
    ka__interrupt_run = run;
    InterlockedExchange(&ka__interrupt_seen, 0);
    SetConsoleCtrlHandler(NULL, FALSE);     /* a parent may have had Ctrl+C ignored; that is inherited */
    return SetConsoleCtrlHandler(ka__interrupt_handler, TRUE) ? KA_OK : KA_EOS;
}

static void ka__interrupts_release(void) { SetConsoleCtrlHandler(ka__interrupt_handler, FALSE); }
#else
static void ka__interrupts_release(void)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

static void ka__interrupt_handler(int number)
{
    int code = errno;
    (void)number;
    ka__interrupts_release();              /* the second one, of either kind, ends the process */
    ka__interrupt_run();
    errno = code;
}

static int ka__interrupts_catch(void (*run)(void))
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = ka__interrupt_handler;
    a.sa_flags = 0;                        /* no SA_RESTART: what waits shall look up */
    sigemptyset(&a.sa_mask);
    ka__interrupt_run = run;
    signal(SIGPIPE, SIG_IGN);              /* who reads what we print may end before us */
    return sigaction(SIGINT, &a, NULL) == 0 && sigaction(SIGTERM, &a, NULL) == 0 ? KA_OK : KA_EOS;
}
#endif

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

/* NULL: none. */
static ka_str ka__text(const char *text) { return text ? (ka_str){ text, strlen(text) } : (ka_str){ NULL, 0 }; }

bool ka_is(ka_str s, const char *text) { return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0; }

static char ka__lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

/* As ka_is, but letters match in either case; text is in lower case. */
static bool ka__is_nocase(ka_str s, const char *text)
{
    size_t i = 0;
    while (i < s.n && text[i] && ka__lower(s.p[i]) == text[i]) i++;
    return i == s.n && text[i] == 0;
}

static void *(*const volatile ka__memset)(void *, int, size_t) = memset;

void ka_wipe(void *p, size_t n)
{
    if (n) ka__memset(p, 0, n);      /* through a volatile pointer: a plain memset before a free or return may be left out */
}

/* For what may hold a key. */
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

static const char ka__b64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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

/* The value of a base64 digit, or 64. By a table: the digits of a key are random, and each branch on them would
   be guessed wrong every other time. */
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
    size_t pad = in[n - 1] != '=' ? 0 : in[n - 2] != '=' ? 1 : 2;
    size_t size = n / 4 * 3 - pad;
    if (size > cap) return KA_ENOSPC;
    for (size_t i = 0; i < n; i += 4) {
        size_t digits = i + 4 == n ? 4 - pad : 4;
        unsigned a = ka__b64_value(in[i]), b = ka__b64_value(in[i + 1]);
        unsigned c = digits > 2 ? ka__b64_value(in[i + 2]) : 0, d = digits > 3 ? ka__b64_value(in[i + 3]) : 0;
        uint32_t v = a << 18 | b << 12 | c << 6 | d;
        if ((a | b | c | d) & 64) return KA_ESYNTAX;
        if (digits < 4 && (v & (digits == 3 ? 0xFFu : 0xFFFFu))) return KA_ESYNTAX;   /* s.3.5: spare bits */
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

/* One block of 64 bytes (FIPS 180-4 s.6.2.2), on any processor. */
static void ka__sha256_portable(uint32_t h[8], const unsigned char *p, const uint32_t k[64])
{
    uint32_t w[64], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], z = h[7];
    for (int i = 0; i < 16; i++, p += 4) w[i] = ka__get_be32(p);
    for (int i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (ka__ror(x, 7) ^ ka__ror(x, 18) ^ x >> 3) + (ka__ror(y, 17) ^ ka__ror(y, 19) ^ y >> 10);
    }
    for (int i = 0; i < 64; i++) {
        uint32_t t = z + (ka__ror(e, 6) ^ ka__ror(e, 11) ^ ka__ror(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
        uint32_t u = (ka__ror(a, 2) ^ ka__ror(a, 13) ^ ka__ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        z = g; g = f; f = e; e = d + t;
        d = c; c = b; b = a; a = t + u;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += z;
    ka_wipe(w, sizeof w);      /* it holds the message: a key, here */
}

static void ka__sha256_block(uint32_t h[8], const unsigned char *p)
{
    if (!ka__sha256_native(h, p, ka__sha256_k)) ka__sha256_portable(h, p, ka__sha256_k);
}

void ka_sha256(unsigned char digest[32], const void *in, size_t n)
{
    uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
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

static void ka__put_le(unsigned char *p, int n, uint64_t v)
{
    for (int i = 0; i < n; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static uint64_t ka__get_le(const unsigned char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* CRC-32C (Castagnoli; RFC 3720 s.12.1), four bits at a time. */
static uint32_t ka__crc32c(const unsigned char *p, size_t n)
{
    static const uint32_t step[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75
    };
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = step[crc & 15] ^ crc >> 4;
        crc = step[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

int ka_fresh_id(char id[KA_KEY_TEXT + 1])
{
    unsigned char raw[KA_KEY_BYTES];
    int r = ka_random(raw, sizeof raw);
    if (r < 0) return r;
    ka_b64_encode(id, KA_KEY_TEXT, raw, sizeof raw);
    id[KA_KEY_TEXT] = 0;
    ka_wipe(raw, sizeof raw);
    return KA_OK;
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
        if (ka__uuid_hyphen(i) ? text.p[i] != '-' : ka__hex(text.p[i]) < 0) return KA_ESYNTAX;
        out[i] = ka__lower(text.p[i]);
    }
    out[KA_UUID_TEXT] = 0;
    return KA_OK;
}

/* n decimal digits. */
static void ka__put_digits(char *out, int n, int64_t v) { for (; n-- > 0; v /= 10) out[n] = (char)('0' + v % 10); }

static int ka__month_days(int year, int month)
{
    static const char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

/* Not by gmtime: Windows' ends with the year 3000. Nor by strftime, which heeds the locale. */
void ka_utc_text(char out[KA_UTC_TEXT + 1], int64_t wall_us)
{
    const int64_t day_us = 86400000000, last_us = 253402300799999999;
    int64_t us = wall_us < 0 ? 0 : wall_us > last_us ? last_us : wall_us, days = us / day_us, s = us % day_us / 1000000;
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

/* Write a number's decimal digits, 20 at most, that end before `end`. Returns the first of them. */
static char *ka__decimal(uint64_t n, char *end)
{
    do *--end = (char)('0' + n % 10);
    while (n /= 10);
    return end;
}

/* ================================================================================================
   3 text

   HTTP/1.1 as RFC 9110 and RFC 9112 say it. Whatever two parties on a path could read in two ways is
   refused: that is how requests are smuggled. One reader goes from left to right and stops at the first
   byte that is wrong, so the outcome doesn't depend on how the bytes arrived. */

/* What a byte may be part of: a token (RFC 9110 s.5.6.2), a request target (RFC 3986 s.2, but no fragment),
   a field value (RFC 9110 s.5.5, without the bytes from 0x80 up, which ka__in adds), a host's name (RFC 3986
   s.3.2.2). */
enum { KA__TOKEN = 1, KA__TARGET = 2, KA__VALUE = 4, KA__NAME = 8 };

static bool ka__in(int what, char byte)
{
    static const unsigned char of[128] = {
         0,  0,  0,  0,  0,  0,  0,  0,  0,  4,  0,  0,  0,  0,  0,  0,
         0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
         4, 15,  4,  5, 15, 15, 15, 15, 14, 14, 15, 15, 14, 15, 15,  6,
        15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6, 14,  4, 14,  4,  6,
         6, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
        15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  4,  6,  5, 15,
         5, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
        15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  4,  5,  4, 15,  0
    };
    unsigned char c = (unsigned char)byte;
    return c < 128 ? (of[c] & what) != 0 : what == KA__VALUE;
}

/* A reader's place in a head. */
typedef struct { const char *p, *end; } ka__cursor;

/* Take the longest run of bytes of a kind. The byte after it is still to be looked at; *whole is false if
   there is none, so that the run may go on with the next bytes that arrive. */
static ka_str ka__take(ka__cursor *c, int what, bool *whole)
{
    ka_str s = { c->p, 0 };
    while (c->p < c->end && ka__in(what, *c->p)) c->p++;
    s.n = (size_t)(c->p - s.p);
    *whole = c->p < c->end;
    return s;
}

/* Take exactly these bytes: KA_OK, KA_EAGAIN, KA_ESYNTAX. */
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

/* What the fields of a head say on its framing, gathered line by line. */
typedef struct { ka_http *h; int hosts; bool request, coded, unknown_coding, close, keep, misplaced; } ka__fields;

static int ka__refuse(ka_http *h, int status)
{
    h->status = status;
    return KA_ESYNTAX;
}

/* Content-Length = 1*DIGIT (RFC 9110 s.8.6), once: two, or a list, may be read as either (RFC 9112 s.6.3). */
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

/* Transfer-Encoding: chunked, last and once (RFC 9112 s.6.1); the lines of several add up to one list. */
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

/* host [ ":" port ] (RFC 9110 s.7.2; RFC 3986 s.3.2). Without userinfo: s.4.2.4 calls it an error. */
static bool ka__authority_valid(ka_str v, bool may_be_empty)
{
    ka__cursor c = { v.p, v.p + v.n };
    bool bracket = c.p < c.end && *c.p == '[';
    if (bracket)
        do c.p++; while (c.p < c.end && (ka__hex(*c.p) >= 0 || *c.p == ':' || *c.p == '.'));
    else
        for (; c.p < c.end && ka__in(KA__NAME, *c.p); c.p++)
            if (*c.p == '%' && (c.end - c.p < 3 || ka__hex(c.p[1]) < 0 || ka__hex(c.p[2]) < 0)) return false;
    if (bracket && (c.p == c.end || *c.p++ != ']' || c.p - v.p < 4)) return false;      /* [::] is the shortest */
    if (c.p == v.p && !(may_be_empty && v.n == 0)) return false;
    if (c.p < c.end && *c.p == ':')
        do c.p++; while (c.p < c.end && *c.p >= '0' && *c.p <= '9');
    return c.p == c.end;
}

/* Heed one field. The length tells the few that matter apart from nearly all others. */
static int ka__field(ka__fields *f, ka_str name, ka_str v)
{
    switch (name.n) {
    case 4:
        if (!f->request || !ka__is_nocase(name, "host")) break;
        if (f->hosts++ || !ka__authority_valid(v, true)) return ka__refuse(f->h, 400);    /* RFC 9112 s.3.2 */
        break;
    case 6:
        if (!f->request || !ka__is_nocase(name, "expect")) break;
        if (!ka__is_nocase(v, "100-continue")) return ka__refuse(f->h, 417);      /* RFC 9110 s.10.1.1 */
        f->h->expects = true;
        break;
    case 10:
        if (ka__is_nocase(name, "connection")) ka__field_connection(f, v);
        break;
    case 14:
        if (ka__is_nocase(name, "content-length") && ka__field_length(f, v) < 0) return ka__refuse(f->h, 400);
        break;
    case 17:
        if (ka__is_nocase(name, "transfer-encoding")) ka__field_coding(f, v);
        break;
    }
    return KA_OK;
}

/* The field lines and the empty line that ends them (RFC 9112 s.5). A space before the colon, a folded
   line, a bare CR or LF and a NUL all fall out of "only these bytes here". */
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

/* What only the fields together tell. */
static int ka__fields_check(const ka__fields *f)
{
    ka_http *h = f->h;
    if (f->coded && (h->length >= 0 || h->minor == 0)) return ka__refuse(h, 400);      /* RFC 9112 s.6.1 */
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

ka_str ka_field(ka_str fields, const char *name)
{
    ka__cursor c = { fields.p, fields.n ? fields.p + fields.n : fields.p };
    ka_str found = { NULL, 0 };
    bool whole;
    while (c.p < c.end) {
        ka_str called = ka__take(&c, KA__TOKEN, &whole);
        if (ka__expect(&c, ":") < 0) break;
        ka_str value = ka__take(&c, KA__VALUE, &whole);
        if (ka__expect(&c, "\r\n") < 0) break;
        size_t i = 0;
        while (i < called.n && name[i] && ka__lower(called.p[i]) == ka__lower(name[i])) i++;
        if (i < called.n || name[i]) continue;
        if (found.p) return (ka_str){ NULL, 0 };
        found = ka__trim(value);
    }
    return found;
}

/* HTTP-version (RFC 9112 s.2.3). Another major version is no error of form: 505. */
static int ka__version(ka__cursor *c, ka_http *h)
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

/* The four forms of a target (RFC 9112 s.3.2); of the absolute one, the part after the authority stays. */
static int ka__target(ka_http *h)
{
    ka_str *t = &h->target;
    if (ka_is(h->method, "CONNECT")) return ka__authority_valid(*t, false) ? KA_OK : ka__refuse(h, 400);
    if (t->p[0] == '/' || (ka_is(*t, "*") && ka_is(h->method, "OPTIONS"))) return KA_OK;
    size_t scheme = t->n > 7 && ka__is_nocase((ka_str){ t->p, 7 }, "http://") ? 7
                  : t->n > 8 && ka__is_nocase((ka_str){ t->p, 8 }, "https://") ? 8 : 0;
    size_t end = scheme;
    while (end < t->n && t->p[end] != '/' && t->p[end] != '?') end++;
    if (scheme == 0 || !ka__authority_valid((ka_str){ t->p + scheme, end - scheme }, false)) return ka__refuse(h, 400);
    *t = end < t->n ? (ka_str){ t->p + end, t->n - end } : (ka_str){ "/", 1 };
    return KA_OK;
}

static int ka__request_line(ka__cursor *c, ka_http *h)
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

/* A head that doesn't end within KA_MAX_HEAD bytes is not waited for any longer. */
static ptrdiff_t ka__head_result(int r, const ka__cursor *c, const char *p, ka_http *h, int too_long)
{
    if (r == KA_EAGAIN && c->end - p == KA_MAX_HEAD) r = ka__refuse(h, too_long);
    return r < 0 ? r : c->p - p;
}

ptrdiff_t ka_http_request(ka_http *h, const char *p, size_t n)
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
static int ka__status_line(ka__cursor *c, ka_http *h, int *status)
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

ptrdiff_t ka_http_response(ka_http *h, const char *p, size_t n)
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

/* ---- chunked bodies (RFC 9112 s.7.1) ---- */

enum {
    KA__SIZE, KA__SIZE_MORE, KA__GAP, KA__EXTENSION, KA__NAME_MORE, KA__NAME_GAP, KA__ARGUMENT, KA__ARGUMENT_MORE,
    KA__QUOTED, KA__QUOTED_PAIR, KA__QUOTED_END, KA__SIZE_LF, KA__DATA, KA__DATA_CR, KA__DATA_LF,
    KA__TRAILER, KA__TRAILER_NAME, KA__TRAILER_VALUE, KA__TRAILER_LF, KA__LAST_LF
};

/* After a size, or an extension that is complete: the end, or *( BWS ";" BWS name [ BWS "=" BWS value ] ). */
static int ka__chunk_next(char c)
{
    return c == '\r' ? KA__SIZE_LF : c == ';' ? KA__EXTENSION : c == ' ' || c == '\t' ? KA__GAP : KA_ESYNTAX;
}

/* The state after one byte of framing, or KA_E... */
static int ka__chunk_byte(ka_chunked *d, char c)
{
    bool blank = c == ' ' || c == '\t';
    switch (d->state) {
    case KA__SIZE: case KA__SIZE_MORE: {
        int digit = ka__hex(c);
        if (digit >= 0) {
            if (d->left > (UINT32_MAX >> 4)) return KA_ENOSPC;
            d->left = d->left << 4 | (uint32_t)digit;
            return d->left > d->room ? KA_ENOSPC : KA__SIZE_MORE;
        }
        return d->state == KA__SIZE ? KA_ESYNTAX : ka__chunk_next(c);
    }
    case KA__GAP:
        return blank ? KA__GAP : c == ';' ? KA__EXTENSION : KA_ESYNTAX;
    case KA__EXTENSION:
        return blank ? KA__EXTENSION : ka__in(KA__TOKEN, c) ? KA__NAME_MORE : KA_ESYNTAX;
    case KA__NAME_MORE:
        return ka__in(KA__TOKEN, c) ? KA__NAME_MORE : c == '=' ? KA__ARGUMENT : blank ? KA__NAME_GAP : ka__chunk_next(c);
    case KA__NAME_GAP:
        return blank ? KA__NAME_GAP : c == '=' ? KA__ARGUMENT : c == ';' ? KA__EXTENSION : KA_ESYNTAX;
    case KA__ARGUMENT:
        return blank ? KA__ARGUMENT : c == '"' ? KA__QUOTED : ka__in(KA__TOKEN, c) ? KA__ARGUMENT_MORE : KA_ESYNTAX;
    case KA__ARGUMENT_MORE:
        return ka__in(KA__TOKEN, c) ? KA__ARGUMENT_MORE : ka__chunk_next(c);
    case KA__QUOTED:
        return c == '"' ? KA__QUOTED_END : c == '\\' ? KA__QUOTED_PAIR : ka__in(KA__VALUE, c) ? KA__QUOTED : KA_ESYNTAX;
    case KA__QUOTED_END:
        return ka__chunk_next(c);
    case KA__QUOTED_PAIR:
        return ka__in(KA__VALUE, c) ? KA__QUOTED : KA_ESYNTAX;
    case KA__SIZE_LF:
        d->line = 0;
        return c != '\n' ? KA_ESYNTAX : d->left ? KA__DATA : KA__TRAILER;
    case KA__DATA_CR:
        return c == '\r' ? KA__DATA_LF : KA_ESYNTAX;
    case KA__DATA_LF:
        return c == '\n' ? KA__SIZE : KA_ESYNTAX;
    case KA__TRAILER:
        return c == '\r' ? KA__LAST_LF : ka__in(KA__TOKEN, c) ? KA__TRAILER_NAME : KA_ESYNTAX;
    case KA__TRAILER_NAME:
        return c == ':' ? KA__TRAILER_VALUE : ka__in(KA__TOKEN, c) ? KA__TRAILER_NAME : KA_ESYNTAX;
    case KA__TRAILER_VALUE:
        return c == '\r' ? KA__TRAILER_LF : ka__in(KA__VALUE, c) ? KA__TRAILER_VALUE : KA_ESYNTAX;
    case KA__TRAILER_LF:
        return c == '\n' ? KA__TRAILER : KA_ESYNTAX;
    default: /* KA__LAST_LF */
        d->done = c == '\n';
        return d->done ? KA__LAST_LF : KA_ESYNTAX;
    }
}

ptrdiff_t ka_chunked_decode(ka_chunked *d, char *p, size_t n, size_t *used)
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
        d->line++;      /* the bytes of this line, or of all trailers */
        if (next == KA__DATA || next == KA__SIZE) d->line = 0;
        if (next < KA__SIZE_LF && d->line > KA_MAX_CHUNK_LINE) return KA_ESYNTAX;
        if (d->line > KA_MAX_HEAD) return KA_ENOSPC;
    }
    *used = in;
    return (ptrdiff_t)out;
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
        int high = in.n > 2 ? ka__hex(in.p[1]) : -1, low = high >= 0 ? ka__hex(in.p[2]) : -1;
        if (low < 0) return KA_ESYNTAX;
        if (n == cap) return KA_ENOSPC;
        out[n++] = (char)(high << 4 | low);
        in = (ka_str){ in.p + 3, in.n - 3 };
    }
    return (ptrdiff_t)n;
}

/* ---- JSON (RFC 8259), and what Python's repr() makes of the same ----

   One reader for both. Most of a text is the same in either; what isn't tells which one it is, and from then on what
   only the other one has is refused, since a reader of that one would refuse it, or take it for something else: in
   Python "\/" has two characters, and "\ud83d\ude00" two halves of one. Views of a text that was read are read again,
   by the same functions, when they are used: nothing is kept. */

enum { KA__JSON = 1, KA__PYTHON };      /* 0: no telling yet */

typedef struct { ka__cursor c; int language; } ka__json_text;

static const char *const ka__json_words[2][3] = { { "null", "false", "true" }, { "None", "False", "True" } };      /* as KA_NULL... */

/* A byte that only this language has; false: after one that only the other has. */
static bool ka__json_mark(ka__json_text *t, int language)
{
    if (t->language == 0) t->language = language;
    return t->language == language;
}

/* The next byte; 0 at the end, for a NUL is refused wherever it stands. */
static char ka__json_peek(const ka__json_text *t) { return t->c.p < t->c.end ? *t->c.p : 0; }

/* Is it this byte? Then take it. */
static bool ka__json_skip(ka__json_text *t, char byte)
{
    if (t->c.p == t->c.end || *t->c.p != byte) return false;
    t->c.p++;
    return true;
}

static void ka__json_space(ka__json_text *t)
{
    if (t->c.p < t->c.end && *t->c.p > ' ') return;      /* nearly always so */
    while (ka__json_skip(t, ' ') || ka__json_skip(t, '\n') || ka__json_skip(t, '\r') || ka__json_skip(t, '\t')) {}
}

static bool ka__surrogate(int32_t point) { return point >= 0xD800 && point <= 0xDFFF; }

/* Take one character in UTF-8 (RFC 3629 s.3, s.4), not at the end: its code point, or KA_ESYNTAX. */
static int32_t ka__utf8_take(ka__cursor *c)
{
    static const int32_t least[4] = { 0, 0x80, 0x800, 0x10000 };      /* less is an overlong form */
    unsigned char first = (unsigned char)*c->p;
    size_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : first >= 0x80 ? 1 : 0;
    int32_t point = more ? first & 0x3F >> more : first;
    if ((first >= 0x80 && first < 0xC0) || first > 0xF4 || (size_t)(c->end - c->p) <= more) return KA_ESYNTAX;
    for (size_t i = 1; i <= more; i++) {
        if ((c->p[i] & 0xC0) != 0x80) return KA_ESYNTAX;
        point = point << 6 | (c->p[i] & 0x3F);
    }
    if (point < least[more] || point > 0x10FFFF || ka__surrogate(point)) return KA_ESYNTAX;
    c->p += more + 1;
    return point;
}

bool ka_is_utf8(ka_str s)
{
    ka__cursor c = { s.p, s.n ? s.p + s.n : s.p };
    while (c.p < c.end)
        if ((unsigned char)*c.p < 0x80) c.p++;      /* nearly always so */
        else if (ka__utf8_take(&c) < 0) return false;
    return true;
}

/* The bytes of one, 1 to 4. */
static size_t ka__utf8_put(char out[4], int32_t point)
{
    static const unsigned char marks[4] = { 0, 0xC0, 0xE0, 0xF0 };
    size_t more = point >= 0x10000 ? 3 : point >= 0x800 ? 2 : point >= 0x80 ? 1 : 0;
    for (size_t i = more; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3F));
    out[0] = (char)(marks[more] | point);
    return more + 1;
}

/* Take n hex digits: a number that may be a code point, or KA_ESYNTAX. */
static int32_t ka__json_hex(ka__json_text *t, int n)
{
    uint32_t v = 0;
    for (; n > 0; n--, t->c.p++) {
        int digit = ka__hex(ka__json_peek(t));
        if (digit < 0) return KA_ESYNTAX;
        v = v << 4 | (uint32_t)digit;
    }
    return v <= 0x10FFFF ? (int32_t)v : KA_ESYNTAX;
}

/* Take what is behind a backslash. Python's octal digits, \N{name} and the end of a line aren't known here: repr()
   writes none of them. */
static int32_t ka__json_escape(ka__json_text *t)
{
    static const char letters[] = "\"\\nrtbf'av/", meant[] = "\"\\\n\r\t\b\f'\a\v/";      /* 7 of both, 3 of Python, 1 of JSON */
    char letter = ka__json_peek(t);
    const char *at = memchr(letters, letter, sizeof letters - 1);
    if (at) {
        ptrdiff_t i = at - letters;
        if (i >= 7 && !ka__json_mark(t, i < 10 ? KA__PYTHON : KA__JSON)) return KA_ESYNTAX;
        t->c.p++;
        return meant[i];
    }
    if (letter != 'u' && letter != 'x' && letter != 'U') return KA_ESYNTAX;
    if (letter != 'u' && !ka__json_mark(t, KA__PYTHON)) return KA_ESYNTAX;
    t->c.p++;
    int32_t point = ka__json_hex(t, letter == 'x' ? 2 : letter == 'u' ? 4 : 8);
    if (!ka__surrogate(point)) return point;
    if (point > 0xDBFF || letter == 'U' || ka__expect(&t->c, "\\u") < 0) return KA_ESYNTAX;      /* half a character */
    int32_t low = ka__json_hex(t, 4);
    if (low < 0xDC00 || low > 0xDFFF || !ka__json_mark(t, KA__JSON)) return KA_ESYNTAX;
    return 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
}

/* Take one character of a string: its code point, or KA_ESYNTAX. */
static int32_t ka__json_char(ka__json_text *t)
{
    if (ka__json_skip(t, '\\')) return ka__json_escape(t);
    return (unsigned char)ka__json_peek(t) < 0x20 ? KA_ESYNTAX : ka__utf8_take(&t->c);
}

/* Take what nearly all of a string is: printable ASCII without a backslash, up to the quote. False: none of it is next. */
static bool ka__json_plain(ka__json_text *t, char quote)
{
    const char *p = t->c.p;
    while (p < t->c.end && *p >= ' ' && *p <= '~' && *p != '\\' && *p != quote) p++;
    bool some = p > t->c.p;
    t->c.p = p;
    return some;
}

/* The readers of values return the kind, or KA_E... */
static int ka__json_quoted(ka__json_text *t)
{
    char quote = *t->c.p++;
    if (quote == '\'' && !ka__json_mark(t, KA__PYTHON)) return KA_ESYNTAX;
    while (!ka__json_skip(t, quote))
        if (!ka__json_plain(t, quote) && ka__json_char(t) < 0) return KA_ESYNTAX;
    return KA_STRING;
}

static bool ka__json_digits(ka__json_text *t)
{
    const char *from = t->c.p;
    while (ka__json_peek(t) >= '0' && ka__json_peek(t) <= '9') t->c.p++;
    return t->c.p > from;
}

/* RFC 8259 s.6: all that Python's repr() writes, but inf and nan. */
static int ka__json_number(ka__json_text *t)
{
    ka__json_skip(t, '-');
    if (!ka__json_skip(t, '0') && !ka__json_digits(t)) return KA_ESYNTAX;
    if (ka__json_skip(t, '.') && !ka__json_digits(t)) return KA_ESYNTAX;
    if (ka__json_skip(t, 'e') || ka__json_skip(t, 'E')) {
        if (!ka__json_skip(t, '+')) ka__json_skip(t, '-');
        if (!ka__json_digits(t)) return KA_ESYNTAX;
    }
    return KA_NUMBER;
}

static int ka__json_word(ka__json_text *t)
{
    for (int i = 0; i < 6; i++) {
        const char *word = ka__json_words[i / 3][i % 3];
        size_t n = strlen(word);
        if ((size_t)(t->c.end - t->c.p) < n || memcmp(t->c.p, word, n) != 0) continue;
        if (!ka__json_mark(t, i < 3 ? KA__JSON : KA__PYTHON)) return KA_ESYNTAX;
        t->c.p += n;
        return KA_NULL + i % 3;
    }
    return KA_ESYNTAX;
}

/* A member's name and the colon. */
static int ka__json_name(ka__json_text *t, ka_str *name)
{
    char quote = ka__json_peek(t);
    *name = (ka_str){ t->c.p, 0 };
    if ((quote != '"' && quote != '\'') || ka__json_quoted(t) < 0) return KA_ESYNTAX;
    name->n = (size_t)(t->c.p - name->p);
    ka__json_space(t);
    return ka__json_skip(t, ':') ? KA_OK : KA_ESYNTAX;
}

/* Any value, within so many others; the place is at its first byte. */
static int ka__json_value(ka__json_text *t, int depth)
{
    char first = ka__json_peek(t), last = first == '{' ? '}' : first == '[' ? ']' : ')';
    if (first == '"' || first == '\'') return ka__json_quoted(t);
    if (first == '-' || (first >= '0' && first <= '9')) return ka__json_number(t);
    if (first != '{' && first != '[' && first != '(') return ka__json_word(t);
    if (first == '(' && !ka__json_mark(t, KA__PYTHON)) return KA_ESYNTAX;
    if (depth == KA_MAX_DEPTH) return KA_ELIMIT;
    ka_str name;
    t->c.p++;
    for (size_t n = 0; ; n++) {
        ka__json_space(t);
        if (ka__json_peek(t) == last) {      /* empty, or behind a comma */
            if (n > 1 || (n == 1 && first != '(')) return KA_ESYNTAX;      /* Python's repr() writes one in (1,) only */
            break;
        }
        if (first == '{' && ka__json_name(t, &name) < 0) return KA_ESYNTAX;
        ka__json_space(t);
        int r = ka__json_value(t, depth + 1);
        if (r < 0) return r;
        ka__json_space(t);
        if (ka__json_skip(t, ',')) continue;
        if (ka__json_peek(t) != last || (first == '(' && n == 0)) return KA_ESYNTAX;      /* (1) is no tuple */
        break;
    }
    t->c.p++;
    return first == '{' ? KA_OBJECT : KA_ARRAY;
}

static ka__json_text ka__json_begin(ka_str text)
{
    return (ka__json_text){ { text.p, text.n ? text.p + text.n : text.p }, 0 };
}

int ka_json_read(ka_json *v, ka_str text)
{
    ka__json_text t = ka__json_begin(text);
    ka__json_space(&t);
    const char *from = t.c.p;
    int kind = ka__json_value(&t, 0);
    size_t n = (size_t)(t.c.p - from);
    if (kind > 0) ka__json_space(&t);
    if (kind > 0 && t.c.p < t.c.end) kind = KA_ESYNTAX;
    *v = (ka_json){ kind > 0 ? kind : 0, t.language == KA__PYTHON, { from, n } };
    return kind > 0 ? KA_OK : kind;
}

/* What is left begins with a bracket or a comma, which is skipped, and ends with the last bracket; when that is all
   there is, the end. Behind a comma at the end there is no value: the end, too. */
bool ka_json_next(ka_json *rest, ka_json *name, ka_json *value)
{
    if ((rest->kind != KA_ARRAY && rest->kind != KA_OBJECT) || rest->raw.n < 2) return false;
    ka__json_text t = ka__json_begin((ka_str){ rest->raw.p + 1, rest->raw.n - 2 });
    ka_str called = { NULL, 0 };
    ka__json_space(&t);
    if (rest->kind == KA_OBJECT && ka__json_name(&t, &called) < 0) return false;
    ka__json_space(&t);
    const char *from = t.c.p;
    int kind = ka__json_value(&t, 0);
    if (kind < 0) return false;
    *value = (ka_json){ kind, rest->python, { from, (size_t)(t.c.p - from) } };
    if (name) *name = (ka_json){ called.p ? KA_STRING : 0, rest->python, called };
    ka__json_space(&t);
    rest->raw = (ka_str){ t.c.p, (size_t)(rest->raw.p + rest->raw.n - t.c.p) };
    return true;
}

int ka_json_find(const ka_json *object, const char *name, ka_json *value)
{
    ka_json rest = *object, called, v;
    int found = 0;
    if (object->kind != KA_OBJECT) return KA_ENOTFOUND;
    while (ka_json_next(&rest, &called, &v)) {
        if (!ka_json_is(&called, name)) continue;
        if (found++) return KA_EINVAL;
        *value = v;
    }
    return found ? KA_OK : KA_ENOTFOUND;
}

/* What is between the quotes. */
static ka_str ka__json_inside(const ka_json *v) { return (ka_str){ v->raw.p + 1, v->raw.n - 2 }; }

bool ka_json_is(const ka_json *v, const char *text)
{
    if (v->kind != KA_STRING) return false;
    ka__json_text t = ka__json_begin(ka__json_inside(v));
    size_t left = strlen(text);
    while (t.c.p < t.c.end) {
        char c[4];
        if (*t.c.p != '\\' && *t.c.p != *text) return false;      /* it stands for itself, and is another one: so for nearly all names */
        int32_t point = ka__json_char(&t);
        size_t n = point < 0 ? SIZE_MAX : ka__utf8_put(c, point);
        if (n > left || memcmp(c, text, n) != 0) return false;
        text += n;
        left -= n;
    }
    return left == 0;
}

ptrdiff_t ka_json_string(char *out, size_t cap, const ka_json *v)
{
    size_t n = 0;
    if (v->kind != KA_STRING) return KA_EINVAL;
    ka__json_text t = ka__json_begin(ka__json_inside(v));
    while (t.c.p < t.c.end) {
        char c[4];
        int32_t point = ka__json_char(&t);
        if (point < 0) return KA_EINVAL;
        size_t more = ka__utf8_put(c, point);
        if (more > cap - n) return KA_ENOSPC;
        memcpy(out + n, c, more);
        n += more;
    }
    return (ptrdiff_t)n;
}

static void ka__json_fail(ka_json_out *w, int error) { if (w->error == KA_OK) w->error = error; }

static void ka__json_add(ka_json_out *w, const char *p, size_t n)
{
    if (n > w->cap - w->n) ka__json_fail(w, KA_ENOSPC);
    if (w->error) return;
    memcpy(w->p + w->n, p, n);
    w->n += n;
}

/* One character of a string. JSON leaves as it is what is no control character (Unicode's Cc), ends no
   line or paragraph, and gives no direction; Python, printable ASCII. */
static void ka__json_add_char(ka_json_out *w, int32_t point)
{
    static const char escaped[] = "\\\n\r\t\b\f", letters[] = "\\nrtbf";      /* Python's repr() has no letter for the last two */
    bool ascii = point >= 0x20 && point < 0x7F;
    const char *at = point < 0x7F ? memchr(escaped, (int)point, w->python ? 4 : 6) : NULL;
    char c[11] = "\\";
    if (at || point == (w->python ? '\'' : '"')) {
        c[1] = at ? letters[at - escaped] : (char)point;
        ka__json_add(w, c, 2);
    } else if (ascii || (!w->python && point >= 0xA0 && (point < 0x2028 || point > 0x202E) && (point < 0x2066 || point > 0x2069))) {
        ka__json_add(w, c, ka__utf8_put(c, point));
    } else {
        unsigned char be[4];
        size_t n = !w->python ? 2 : point < 0x100 ? 1 : point < 0x10000 ? 2 : 4;
        ka__put_be32(be, (uint32_t)point);
        c[1] = n == 1 ? 'x' : n == 2 ? 'u' : 'U';
        ka_hex_encode(c + 2, be + 4 - n, n);
        ka__json_add(w, c, 2 + 2 * n);
    }
}

/* A string, in UTF-8, or raw: as it was sent, with its escapes. */
static void ka__json_add_string(ka_json_out *w, ka_str s, bool raw)
{
    ka__json_text t = ka__json_begin(s);
    const char *quote = w->python ? "'" : "\"";
    ka__json_add(w, quote, 1);
    while (t.c.p < t.c.end && w->error == KA_OK) {
        int32_t point = raw ? ka__json_char(&t) : ka__utf8_take(&t.c);
        if (point < 0) w->error = KA_ESYNTAX;
        else ka__json_add_char(w, point);
    }
    ka__json_add(w, quote, 1);
}

static void ka__json_add_word(ka_json_out *w, int kind)
{
    const char *word = ka__json_words[w->python][kind - KA_NULL];
    ka__json_add(w, word, strlen(word));
}

/* What goes before each value. */
static void ka__json_lead(ka_json_out *w, ka_str name, bool raw)
{
    bool object = w->depth > 0 && !(w->arrays >> (w->depth - 1) & 1);
    if (object != (name.p != NULL) || (w->depth == 0 && w->comma)) ka__json_fail(w, KA_EINVAL);
    if (w->comma) ka__json_add(w, ", ", 2);
    if (!object) return;
    ka__json_add_string(w, name, raw);
    ka__json_add(w, ": ", 2);
}

static void ka__json_enter(ka_json_out *w, ka_str name, bool raw, int kind)
{
    _Static_assert(KA_MAX_DEPTH <= 32, "a bit of arrays for each");
    ka__json_lead(w, name, raw);
    if (kind != KA_OBJECT && kind != KA_ARRAY) ka__json_fail(w, KA_EINVAL);
    if (w->depth == KA_MAX_DEPTH) ka__json_fail(w, KA_ELIMIT);
    ka__json_add(w, kind == KA_OBJECT ? "{" : "[", 1);
    if (w->error) return;
    uint32_t bit = (uint32_t)1 << w->depth++;
    w->arrays = kind == KA_ARRAY ? w->arrays | bit : w->arrays & ~bit;
    w->comma = false;
}

/* A value is written; or it isn't, and then nothing of it counts. */
static void ka__json_done(ka_json_out *w, size_t before)
{
    w->comma = true;
    if (w->error) w->n = before;
}

void ka_json_open(ka_json_out *w, const char *name, int kind)
{
    size_t before = w->n;
    ka__json_enter(w, ka__text(name), false, kind);
    if (w->error) w->n = before;
}

void ka_json_close(ka_json_out *w)
{
    if (w->depth == 0) ka__json_fail(w, KA_EINVAL);
    if (w->error) return;
    ka__json_add(w, w->arrays >> --w->depth & 1 ? "]" : "}", 1);
    w->comma = true;
}

void ka_json_put(ka_json_out *w, const char *name, ka_str text)
{
    size_t before = w->n;
    ka__json_lead(w, ka__text(name), false);
    if (text.p) ka__json_add_string(w, text, false);
    else ka__json_add_word(w, KA_NULL);
    ka__json_done(w, before);
}

void ka_json_put_integer(ka_json_out *w, const char *name, int64_t number)
{
    char room[20];      /* -9223372036854775808 */
    char *p = ka__decimal(number < 0 ? 0 - (uint64_t)number : (uint64_t)number, room + sizeof room);
    size_t before = w->n;
    if (number < 0) *--p = '-';
    ka__json_lead(w, ka__text(name), false);
    ka__json_add(w, p, (size_t)(room + sizeof room - p));
    ka__json_done(w, before);
}

void ka_json_put_bool(ka_json_out *w, const char *name, bool yes)
{
    size_t before = w->n;
    ka__json_lead(w, ka__text(name), false);
    ka__json_add_word(w, yes ? KA_TRUE : KA_FALSE);
    ka__json_done(w, before);
}

/* It ends: an error is met at KA_MAX_DEPTH. */
static void ka__json_copy(ka_json_out *w, ka_str name, bool raw, const ka_json *v)
{
    ka_json rest = *v, called, member;
    if (v->kind == KA_OBJECT || v->kind == KA_ARRAY) {
        ka__json_enter(w, name, raw, v->kind);
        while (w->error == KA_OK && ka_json_next(&rest, &called, &member))
            ka__json_copy(w, called.kind ? ka__json_inside(&called) : ka__text(NULL), true, &member);
        ka_json_close(w);
        return;
    }
    ka__json_lead(w, name, raw);
    if (v->kind == KA_STRING) ka__json_add_string(w, ka__json_inside(v), true);
    else if (v->kind == KA_NUMBER) ka__json_add(w, v->raw.p, v->raw.n);
    else if (v->kind >= KA_NULL && v->kind <= KA_TRUE) ka__json_add_word(w, v->kind);
    else ka__json_fail(w, KA_EINVAL);
    w->comma = true;
}

void ka_json_put_value(ka_json_out *w, const char *name, const ka_json *v)
{
    size_t before = w->n;
    ka__json_copy(w, ka__text(name), false, v);
    ka__json_done(w, before);
}

/* ---- RESP2, the Redis serialization protocol (redis.io/docs/reference/protocol-spec) ---- */

/* A whole number and nothing else; KA_ESYNTAX: it is none, or out of an int64_t's range. */
static int ka__resp_number(ka_str s, int64_t *out)
{
    bool minus = s.n > 0 && s.p[0] == '-';
    size_t i = minus || (s.n > 0 && s.p[0] == '+');
    uint64_t v = 0, most = (uint64_t)INT64_MAX + minus;
    if (i == s.n) return KA_ESYNTAX;
    for (; i < s.n; i++) {
        unsigned digit = (unsigned)(s.p[i] - '0');
        if (digit > 9 || v > (most - digit) / 10) return KA_ESYNTAX;
        v = v * 10 + digit;
    }
    *out = minus ? (int64_t)(0 - v) : (int64_t)v;
    return KA_OK;
}

/* Read a value that begins at p, but of an array only its first line.
     returns    the bytes that it takes; KA_EAGAIN, KA_ESYNTAX */
static ptrdiff_t ka__resp_value(ka_resp *v, const char *p, size_t n)
{
    static const char marks[] = "+-:$*";
    static const int kinds[] = { KA_RESP_STRING, KA_RESP_ERROR, KA_RESP_INTEGER, KA_RESP_STRING, KA_RESP_ARRAY };
    const char *mark = n ? memchr(marks, *p, sizeof marks - 1) : NULL, *end = n ? memchr(p, '\r', n) : NULL;
    *v = (ka_resp){ 0, { NULL, 0 }, 0 };
    if (n && !mark) return KA_ESYNTAX;
    if (!end || end + 1 == p + n) return n && memchr(p, '\n', n) ? KA_ESYNTAX : KA_EAGAIN;
    ka_str line = { p + 1, (size_t)(end - p) - 1 };
    size_t head = line.n + 3;
    if (end[1] != '\n' || memchr(line.p, '\n', line.n)) return KA_ESYNTAX;
    if (mark - marks >= 2 && ka__resp_number(line, &v->number) < 0) return KA_ESYNTAX;
    v->kind = kinds[mark - marks];
    v->text = line;
    if (mark - marks < 3) return (ptrdiff_t)head;
    if (v->number > INT32_MAX || (line.n > 1 && line.p[0] < '1' && !ka_is(line, "-1"))) return KA_ESYNTAX;      /* no sign, no leading zero */
    if (v->number == -1) v->kind = KA_RESP_NIL;
    v->text = (ka_str){ p + head, 0 };
    if (v->kind != KA_RESP_STRING) return (ptrdiff_t)head;
    v->text.n = (size_t)v->number;
    if (n - head < v->text.n + 2) return KA_EAGAIN;
    return memcmp(v->text.p + v->text.n, "\r\n", 2) == 0 ? (ptrdiff_t)(head + v->text.n + 2) : KA_ESYNTAX;
}

/* How far a value was found: the bytes, and the values that are still missing in it. No matter how deep it is. */
typedef struct { uint64_t missing; uint32_t at; } ka__resp_cut;

/* Find the end of the value that begins at p. Goes on where it stopped before. As ka__resp_value, but all of an array. */
static ptrdiff_t ka__resp_find(ka__resp_cut *cut, const char *p, size_t n)
{
    ka_resp v;
    if (cut->at == 0) cut->missing = 1;
    while (cut->missing > 0) {
        ptrdiff_t size = ka__resp_value(&v, p + cut->at, n - cut->at);
        if (size < 0) return size;
        cut->at += (uint32_t)size;
        cut->missing--;
        if (v.kind == KA_RESP_ARRAY) cut->missing += (uint64_t)v.number;
    }
    return (ptrdiff_t)cut->at;
}

/* Take the value in front of a text. */
static int ka__resp_take(ka_str *text, ka_resp *v)
{
    ka__resp_cut cut = { 0, 0 };
    ptrdiff_t n = text->n > 0 && text->n <= INT32_MAX ? ka__resp_find(&cut, text->p, text->n) : KA_ESYNTAX;
    *v = (ka_resp){ 0, { NULL, 0 }, 0 };
    if (n < 0) return KA_ESYNTAX;
    ptrdiff_t head = ka__resp_value(v, text->p, text->n);
    if (v->kind == KA_RESP_ARRAY) v->text.n = (size_t)(n - head);
    *text = (ka_str){ text->p + n, text->n - (size_t)n };
    return KA_OK;
}

int ka_resp_read(ka_resp *v, ka_str text)
{
    if (ka__resp_take(&text, v) == KA_OK && text.n == 0) return KA_OK;
    v->kind = 0;
    return KA_ESYNTAX;
}

bool ka_resp_next(ka_resp *rest, ka_resp *element)
{
    if (rest->kind != KA_RESP_ARRAY || rest->number == 0) return false;
    rest->number--;
    return ka__resp_take(&rest->text, element) == KA_OK;
}

/* "$5" CRLF, or "*2" CRLF. */
static ka_str ka__resp_head(char mark, size_t n, char room[24])
{
    memcpy(room + 22, "\r\n", 2);
    char *p = ka__decimal(n, room + 22) - 1;
    *p = mark;
    return (ka_str){ p, (size_t)(room + 24 - p) };
}

ptrdiff_t ka_resp_command(char *out, size_t cap, const ka_str *args, size_t n)
{
    char room[24];
    ka_str head = ka__resp_head('*', n, room);
    size_t at = head.n;
    if (at > cap) return KA_ENOSPC;
    memcpy(out, head.p, head.n);
    for (size_t i = 0; i < n; i++) {
        head = ka__resp_head('$', args[i].n, room);
        if (args[i].n > cap - at || head.n + 2 > cap - at - args[i].n) return KA_ENOSPC;
        memcpy(out + at, head.p, head.n);
        at += head.n;
        if (args[i].n) memcpy(out + at, args[i].p, args[i].n);
        memcpy(out + at + args[i].n, "\r\n", 2);
        at += args[i].n + 2;
    }
    return (ptrdiff_t)at;
}

/* ================================================================================================
   4 mailbox

   A ring of bytes between one thread that writes (the producer) and one that reads (the consumer).
   A record is a header and its payload, in one piece: where it would not fit before the end of the ring,
   a filler takes the rest. Positions only grow; their remainder is the place in the ring.

       tail            head       write
        |               |           |        tail..head   published: the consumer's
     ---[===============]...........|---     head..write  written, not yet published

   The producer publishes once per batch and then wakes the consumer if it sleeps; the consumer says that
   it is about to sleep, looks once more, and sleeps. Either the producer sees the flag or the consumer
   sees the records: both sides use sequentially consistent operations for these, and no fence, which
   ThreadSanitizer would not understand. */

typedef struct {
    uint32_t size;            /* of header, payload and padding: a multiple of KA__ALIGN */
    uint8_t  kind, flags;
    uint16_t status;
    uint64_t conn;
    uint32_t seq;
    uint32_t a, b, n;         /* lengths of the payload's parts, or what the kind says */
} ka__record;

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

_Static_assert(sizeof(ka__record) == 32, "the ring's places are multiples of 16");
_Static_assert((KA_MAILBOX & (KA_MAILBOX - 1)) == 0, "KA_MAILBOX must be a power of two");

static int ka__box_init(ka__box *b, size_t size)
{
    memset(b, 0, sizeof *b);
    b->mem = ka__resize(NULL, size, 1);
    b->size = size;
    return b->mem ? KA_OK : KA_ENOMEM;
}

static void ka__box_free(ka__box *b) { ka__free_wiped(b->mem, b->size); }

/* Producer: are n bytes free, at least? */
static bool ka__box_room(ka__box *b, size_t n)
{
    if (b->size - (b->write - b->tail_seen) >= n) return true;
    b->tail_seen = atomic_load_explicit(&b->tail, memory_order_acquire);
    return b->size - (b->write - b->tail_seen) >= n;
}

/* Producer: a record with room for `payload` bytes behind it, or NULL if the ring is too full for it now. */
static ka__record *ka__box_put(ka__box *b, int kind, size_t payload)
{
    size_t size = (sizeof(ka__record) + payload + KA__ALIGN - 1) / KA__ALIGN * KA__ALIGN;
    size_t to_end = b->size - (b->write & (b->size - 1));
    size_t filler = to_end < size ? to_end : 0;
    if (!ka__box_room(b, filler + size)) return NULL;
    if (filler) {
        ka__record *f = (ka__record *)(void *)(b->mem + (b->write & (b->size - 1)));
        f->size = (uint32_t)filler;      /* at least KA__ALIGN bytes: size and kind fit */
        f->kind = KA__FILLER;
        b->write += filler;
    }
    ka__record *r = (ka__record *)(void *)(b->mem + (b->write & (b->size - 1)));
    memset(r, 0, sizeof *r);
    r->size = (uint32_t)size;
    r->kind = (uint8_t)kind;
    b->write += size;
    return r;
}

static char *ka__payload(ka__record *r) { return (char *)(r + 1); }

/* Producer: hand over what was put. True if there was something: then wake the consumer. */
static bool ka__box_publish(ka__box *b)
{
    if (b->write == atomic_load_explicit(&b->head, memory_order_relaxed)) return false;
    atomic_store(&b->head, b->write);
    return true;
}

/* Consumer: the next record, or NULL. It stays there until ka__box_pass, and its bytes until ka__box_release. */
static ka__record *ka__box_next(ka__box *b)
{
    for (;;) {
        if (b->read == b->head_seen) b->head_seen = atomic_load_explicit(&b->head, memory_order_acquire);
        if (b->read == b->head_seen) return NULL;
        ka__record *r = (ka__record *)(void *)(b->mem + (b->read & (b->size - 1)));
        KA__PREFETCH(b->mem + ((b->read + 256) & (b->size - 1)));
        KA__PREFETCH(b->mem + ((b->read + 320) & (b->size - 1)));
        if (r->kind != KA__FILLER) return r;
        b->read += r->size;
    }
}

/* Consumer: on to the one behind it. */
static void ka__box_pass(ka__box *b, const ka__record *r) { b->read += r->size; }

/* Consumer: the bytes of those that were passed. */
static size_t ka__box_passed(const ka__box *b) { return b->read - atomic_load_explicit(&b->tail, memory_order_relaxed); }

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

/* ================================================================================================
   5 worker

   Owns the sockets. It cuts what it reads into requests, or messages of another framing, and puts them into
   its up box; takes answers out of its down box and writes them. It never waits for the parent: when the up
   box is nearly full it stops reading sockets and only drains the down box, so that the two cannot wait for
   each other.

   A connection without a request under way holds no buffer. Bytes are received into the worker's scratch,
   behind what is left of an unfinished request; answers are rendered into another one and leave in one
   send for all that go to the same connection in a row. What ka_send says is put into such rows: its records
   stay in the down box until there are many, or something else to do. Only what is unfinished on either side
   is kept. */

enum { KA__READ_BYTES = 16384, KA__WRITE_BYTES = 65536, KA__ACCEPTS = 64, KA__ACCEPT_AGAIN_MS = 100, KA__YOUNG_MS = 100 };
enum { KA__SCRATCH = KA__READ_BYTES + KA_MAX_HEAD + KA_MAX_BODY };
enum { KA__REDIS_UNSENT = KA_REDIS_BYTES > KA_MAX_UNSENT ? KA_REDIS_BYTES : KA_MAX_UNSENT };      /* ka_redis_command sees to it */
enum { KA__SENDERS = 512, KA__SENDS_BYTES = KA_MAILBOX / 4 };      /* what is gathered, so that each connection is written to once */

/* The shortest request has 16 bytes ("A / HTTP/1.0" CRLF CRLF) and makes a record of 48, so what is received at once
   makes records of no more than 3 times its size, behind one for what had been kept, and a filler as long as that; the rest
   is for records of other kinds. The shortest message, an empty line, has one byte and makes a record of 32: hence fewer
   bytes are received at once. */
enum { KA__UP_RESERVE = 4 * KA__READ_BYTES + 2 * (KA_MAX_HEAD + KA_MAX_BODY), KA__MESSAGES_BYTES = KA__READ_BYTES / 8 };
/* Of what must be told: KA_LISTENING, KA__RELEASED, _SERVED, _ENDED, one KA_OPENED before them, and a filler. */
enum { KA__MUST_BYTES = (KA_MAX_LISTENERS + 4) * (int)sizeof(ka__record) + KA__ALIGN };
_Static_assert(KA_MAX_UNSENT <= INT_MAX && KA_REDIS_BYTES <= INT_MAX, "lengths have 32 bits");
_Static_assert(KA_MAX_HEAD >= 512, "the reserve of the up box has room for records of other kinds");
_Static_assert(KA_MAX_BODY < 0x09000000, "white space must not be the first byte of a frame's length");
_Static_assert(KA_MAILBOX >= KA__UP_RESERVE + 4 * KA__READ_BYTES, "KA_MAILBOX is too small for KA_MAX_HEAD and KA_MAX_BODY");

/* Records. Down, to the worker: */
enum {
    KA__LISTEN = 1,    /* payload: ip, NUL; a: port; seq: the listener's number; flags: its framing; conn: a socket, or none: status, b */
    KA__ADOPT,         /* watch a listener that another worker has opened; conn: the socket; seq, flags: as above */
    KA__CONNECT,       /* payload: ip, NUL, and at b, if not 0, the address to connect from, NUL; a: port; seq: the tag; flags: framing */
    KA__REPLY,         /* conn, seq, flags, status; payload: a bytes of fields, n of body */
    KA__SEND,          /* conn; payload: n bytes; a: the next one of its chain */
    KA__CLOSE,         /* conn: the parent has nothing more to say to it */
    KA__REFRAME,       /* conn; flags: framing */
    KA__DRAIN,         /* stop accepting, finish what is not ka_connect's, */
    KA__FINISH,        /* and that */
    KA__CROWDED_TOO,   /* somebody waits, and a workers are out of descriptors: try to take him */
    KA__QUIT           /* end now */
};
/* Up, to the parent: the kinds of events, and */
enum {
    KA__RELEASED = 64, /* watches no listener any more */
    KA__CROWDED,       /* somebody waits, and a workers, this the last of them, are out of descriptors */
    KA__SERVED,        /* has no connection any more but ka_connect's, */
    KA__ENDED          /* nor those */
};
enum { KA__RUNS, KA__SERVES, KA__HAS_SERVED, KA__FINISHES };      /* ka__worker.draining */

/* A request's flags go up with it and come back down with its answer; its listener's number is in the upper four bits,
   as in KA_OPENED. KA__TYPED: the answer's fields have a Content-Type. */
enum { KA__OLD = 1 /* HTTP/1.0 */, KA__BODILESS = 2 /* HEAD */, KA__TYPED = 4, KA__BEGINS = 8 /* KA__REPLY: ka_stream's */,
       KA__OUTGOING = 8 /* KA_OPENED: ka_connect's */ };
_Static_assert(KA_MAX_LISTENERS <= 16, "a listener's number has 4 bits");

/* What a connection is timed for; each kind has one FIFO list, because within a kind those who came first
   are due first. KA__KNOCK: it is being connected. KA__BEGUN: a stream has begun, KA__GONE: it is closed, and the parent is
   to be told as soon as there is room. KA__UNTIMED: the parent takes its own time to answer; or it is not HTTP, and idle. */
enum { KA__IDLE, KA__REQUEST, KA__STALL, KA__LINGER, KA__KNOCK, KA__BEGUN, KA__GONE, KA__TIMED, KA__UNTIMED = KA__TIMED };
static const int ka__time_limit[KA__TIMED] = { KA_IDLE_MS, KA_REQUEST_MS, KA_STALL_MS, KA_LINGER_MS, KA_ATTEMPT_MS, 0, 0 };

#define KA__NIL UINT32_MAX
enum { KA__STREAM = KA_RESP + 1 };      /* the framing of a connection after ka_stream: nothing that comes is heard */
enum { KA__FEW_CONNS = 1024, KA__MAX_CONNS = 1 << 24 };      /* of one worker: a connection's number is worker: 8 | place: 24 | generation: 32 */

/* How far an object was read. */
typedef struct { uint32_t at, depth; char quote; bool escaped; } ka__object;

/* An answer that came before its turn. */
typedef struct ka__early { struct ka__early *next; ka__record r; } ka__early;

typedef struct {
    ka__sock   sock;
    int64_t    due_ms;
    char      *in, *out;             /* an unfinished request; unsent answers; NULL when empty */
    ka__early *early;
    uint32_t   generation;
    uint32_t   prev, next;           /* in its list, or in the list of free places */
    uint32_t   in_n, out_n, out_at;
    uint32_t   seq_in, seq_out;      /* requests delivered, answers rendered */
    uint32_t   body_n;               /* bytes of a chunked body decoded so far */
    uint32_t   sends, sends_last;    /* the chain of its records KA__SEND: their offsets in the down box, and 1; 0: none */
    union {
        ka_chunked chunked;          /* KA_HTTP */
        ka__object object;           /* KA_JSON; KA_LINES: its `at` */
        ka__resp_cut resp;           /* KA_RESP */
        struct { uint32_t tag; int error, os_error; } knock;      /* while it is being connected */
    };
    int8_t     watched;
    uint8_t    timed, framing, listener;
    bool       open;
    bool       fields;               /* KA_HTTP: the parent wants the field lines */
    bool       outgoing;             /* ka_connect's */
    bool       knocks;               /* is being connected */
    bool       told;                 /* not KA_HTTP: the parent knows that it ends */
    bool       ended;                /* not KA_HTTP: its peer sends no more */
    bool       last;                 /* no further request will be read from it */
    bool       linger;               /* read on for a while after the last answer, then close */
    bool       expects;              /* waits for 100 Continue */
} ka__conn;

/* theirs: its number in the main table; pending: there was no room yet to take it over from there. */
typedef struct { ka__sock sock, theirs; uint8_t framing; bool open, watched, pending; } ka__listener;

typedef struct {
    ka__box       up, down;
    ka__sleeper   sleeper;
    ka__sleeper  *parent;
    _Atomic(size_t) connections, buffered;      /* buffered: bytes of in, out and early of them all */
    _Atomic(int)  settled;           /* 1: it shares no descriptors any more, or will for ever; KA_E...: it has ended */
    uint32_t      number, workers;   /* which it is, of how many */
    ka__thread    thread;

    /* the worker's own from here on */
    ka__conn     *conns;
    uint32_t      conns_n, conns_room, free_head;      /* places in use or used before, room for so many, the free ones among the used */
    uint32_t      generations;       /* of all connections so far, since a table that was freed forgets its places' */
    struct { uint32_t head, tail; } list[KA__TIMED];
    ka__listener  listeners[KA_MAX_LISTENERS];
    int           draining;          /* KA__SERVES... */
    uint32_t      outgoing;          /* connections of ka_connect */
    bool          quit, accept_paused, place_freed;
    bool          own_table;         /* of descriptors: sockets of the parent have other numbers here */
    uint32_t      turn, finished;    /* finished: while draining, the places below have been told so */
    int64_t       now_ms, drain_until_ms, accept_again_ms;
    int64_t       common_of;         /* a second of now_ms: */
    char          common[160];       /* the fields that its answers have */
    size_t        common_n;
    uint32_t      senders[KA__SENDERS], senders_n;      /* places with a chain of records KA__SEND */
    uint32_t      out_conn, out_n;   /* who the bytes in out are for, and how many they are */
    uint32_t      in_at, in_n;       /* the bytes in `in` that are still to be read */
    char          in[KA__SCRATCH], out[KA__WRITE_BYTES];
} ka__worker;

static uint32_t ka__place(const ka__worker *w, const ka__conn *c) { return (uint32_t)(c - w->conns); }

/* Tokens of the poller: listeners first, then connections by their place. */
static uint32_t ka__token(const ka__worker *w, const ka__conn *c) { return KA_MAX_LISTENERS + ka__place(w, c); }

static uint64_t ka__conn_number(const ka__worker *w, const ka__conn *c)
{
    return (uint64_t)w->number << 56 | (uint64_t)ka__place(w, c) << 32 | c->generation;
}

/* The connection of that number, or NULL if it has gone. */
static ka__conn *ka__conn_find(ka__worker *w, uint64_t number)
{
    uint32_t place = (uint32_t)(number >> 32) % KA__MAX_CONNS;
    if (place >= w->conns_n) return NULL;
    ka__conn *c = &w->conns[place];
    return c->open && c->generation == (uint32_t)number ? c : NULL;
}

/* ---- lists of connections ---- */

static void ka__untime(ka__worker *w, ka__conn *c)
{
    if (c->timed == KA__UNTIMED) return;
    if (c->prev != KA__NIL) w->conns[c->prev].next = c->next;
    else w->list[c->timed].head = c->next;
    if (c->next != KA__NIL) w->conns[c->next].prev = c->prev;
    else w->list[c->timed].tail = c->prev;
    c->timed = KA__UNTIMED;
}

/* Time a connection for this from now on; one that is timed for it already keeps its time. */
static void ka__time(ka__worker *w, ka__conn *c, uint8_t kind)
{
    if (c->timed == kind) return;
    ka__untime(w, c);
    uint32_t place = ka__place(w, c), tail = w->list[kind].tail;
    c->timed = kind;
    c->due_ms = w->now_ms + ka__time_limit[kind];
    c->prev = tail;
    c->next = KA__NIL;
    if (tail != KA__NIL) w->conns[tail].next = place;
    else w->list[kind].head = place;
    w->list[kind].tail = place;
}

/* A free place, or NULL: out of memory, or of numbers. */
static ka__conn *ka__conn_place(ka__worker *w)
{
    if (w->free_head != KA__NIL) return &w->conns[w->free_head];
    if (w->conns_n == w->conns_room) {
        uint32_t n = w->conns_room ? w->conns_room * 2 : 64;
        if (n > KA__MAX_CONNS) return NULL;
        ka__conn *more = ka__resize(w->conns, n, sizeof *more);      /* what isn't touched yet takes no memory */
        if (!more) return NULL;
        w->conns = more;
        w->conns_room = n;
    }
    return &w->conns[w->conns_n];
}

/* After a crowd has gone: give its memory back. Not while anybody looks at a connection. */
static void ka__conns_shrink(ka__worker *w)
{
    if (w->conns_room < KA__FEW_CONNS || atomic_load_explicit(&w->connections, memory_order_relaxed) > 0) return;
    ka__free(w->conns);
    w->conns = NULL;
    w->conns_n = w->conns_room = w->finished = 0;
    w->free_head = KA__NIL;
    ka_memory_trim();
}

static void ka__early_free(ka__worker *w, ka__early *e)
{
    ka__count(&w->buffered, -(int)e->r.size);
    ka__free_wiped(e, offsetof(ka__early, r) + e->r.size);
}

/* Drop the answers whose turn never comes. */
static void ka__early_drop(ka__worker *w, ka__conn *c)
{
    for (ka__early *e; (e = c->early) != NULL; ) {
        c->early = e->next;
        ka__early_free(w, e);
    }
}

/* Drop what is kept of a connection's unfinished message, or of its unsent answers. */
static void ka__drop(ka__worker *w, char **kept, uint32_t *n)
{
    if (!*kept) return;
    ka__count(&w->buffered, -(int)*n);
    ka__free_wiped(*kept, *n);
    *kept = NULL;
    *n = 0;
}

static void ka__conn_open(ka__worker *w, ka__conn *c, ka__sock sock, int framing)
{
    if (ka__place(w, c) == w->conns_n) w->conns_n++;
    else w->free_head = c->next;
    memset(c, 0, sizeof *c);
    c->sock = sock;
    c->generation = ++w->generations;      /* from 1 on, so that no connection has the number 0 */
    c->watched = KA__UNWATCHED;
    c->timed = KA__UNTIMED;
    c->fields = framing == KA_HTTP_FIELDS;
    c->framing = (uint8_t)(c->fields ? KA_HTTP : framing);
    if (c->framing == KA_HTTP) c->chunked.room = KA_MAX_BODY;
    c->open = true;
    ka__count(&w->connections, 1);
}

static void ka__conn_free(ka__worker *w, ka__conn *c)
{
    c->next = w->free_head;
    w->free_head = ka__place(w, c);
    w->place_freed = true;
    w->outgoing -= c->outgoing;
    ka__count(&w->connections, -1);
}

static void ka__conn_close(ka__worker *w, ka__conn *c)
{
    if (w->out_conn == ka__place(w, c)) {
        ka_wipe(w->out, w->out_n);
        w->out_conn = KA__NIL;
    }
    ka__untime(w, c);
    if (c->watched != KA__UNWATCHED) ka__poller_set(&w->sleeper.poller, c->sock, ka__token(w, c), c->watched, KA__UNWATCHED);
    if (c->sock != -1) ka__sock_close(c->sock);
    ka__drop(w, &c->in, &c->in_n);
    ka__drop(w, &c->out, &c->out_n);
    ka__early_drop(w, c);
    c->open = false;
    if (c->framing == KA_HTTP || c->told) ka__conn_free(w, c);
    else ka__time(w, c, KA__GONE);
}

static void ka__conn_watch(ka__worker *w, ka__conn *c, int8_t want)
{
    if (c->watched == want) return;      /* which is nearly always so: no system call */
    if (ka__poller_set(&w->sleeper.poller, c->sock, ka__token(w, c), c->watched, want) == KA_OK) c->watched = want;
    else ka__conn_close(w, c);
}

/* ---- writing ---- */

static bool ka__to_redis(const ka__conn *c) { return c->outgoing && c->framing == KA_RESP; }

/* Keep bytes that the socket did not take. */
static int ka__keep_unsent(ka__worker *w, ka__conn *c, const char *p, size_t n)
{
    size_t left = c->out_n - c->out_at, most = ka__to_redis(c) ? KA__REDIS_UNSENT : KA_MAX_UNSENT;
    if (left + n > most) return KA_ELIMIT;
    char *more = ka__resize(NULL, left + n, 1);      /* a new block: a realloc might leave keys behind */
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

/* Send now, behind what is unsent already; what can't leave is kept. Closes c if that fails. */
static void ka__send(ka__worker *w, ka__conn *c, const char *p, size_t n)
{
    ptrdiff_t sent = c->out ? 0 : ka__sock_send(c->sock, p, n);
    if (sent == KA_EAGAIN) sent = 0;
    if (sent < 0 || ((size_t)sent < n && ka__keep_unsent(w, c, p + sent, n - (size_t)sent) < 0)) ka__conn_close(w, c);
}

/* After anything happened to a connection: what it waits for now, and how long that may take. */
static void ka__conn_settle(ka__worker *w, ka__conn *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!c->open || c->timed == KA__BEGUN) return;
    bool answered = c->seq_in == c->seq_out;
    if (c->expects && answered) {      /* not earlier: answers to the requests before it come first */
        c->expects = false;
        ka__send(w, c, go_on, sizeof go_on - 1);
        if (!c->open) return;
    }
    if (c->out) {                      /* who doesn't read isn't read from. A Redis that was given up keeps the next one waiting */
        ka__time(w, c, c->last && ka__to_redis(c) ? KA__LINGER : KA__STALL);
        ka__conn_watch(w, c, KA__OUT);
    } else if ((c->last && !answered) || c->seq_in - c->seq_out >= KA_MAX_PIPELINED) {
        ka__untime(w, c);
        ka__conn_watch(w, c, 0);
    } else if (c->last && !c->linger && ka__sock_waiting(c->sock) == 0) {      /* NOLINT(bugprone-branch-clone): the order of the cases matters */
        ka__conn_close(w, c);
    } else if (c->last) {              /* closing with bytes unread would reset the connection under the answer */
        if (c->timed != KA__LINGER) ka__sock_end(c->sock);
        ka__time(w, c, KA__LINGER);
        ka__conn_watch(w, c, KA__IN);
    } else if (c->framing == KA_HTTP && w->draining && answered && !c->in && ka__sock_waiting(c->sock) == 0) {
        ka__conn_close(w, c);
    } else {
        if (c->in) ka__time(w, c, KA__REQUEST);
        else if (answered && c->framing == KA_HTTP) ka__time(w, c, KA__IDLE);
        else ka__untime(w, c);
        ka__conn_watch(w, c, KA__IN);
    }
}

/* Send what was rendered. */
static void ka__out_flush(ka__worker *w)
{
    if (w->out_conn == KA__NIL) return;
    ka__conn *c = &w->conns[w->out_conn];
    w->out_conn = KA__NIL;
    ka__send(w, c, w->out, w->out_n);
    ka_wipe(w->out, w->out_n);
    ka__conn_settle(w, c);
}

/* Append to what leaves for c. The caller looks at c->open afterwards: a send may have failed. */
static void ka__out_put(ka__worker *w, ka__conn *c, const char *p, size_t n)
{
    while (n > 0 && c->open) {
        if (w->out_conn != ka__place(w, c) || w->out_n == sizeof w->out) {
            ka__out_flush(w);
            if (!c->open) return;
            w->out_conn = ka__place(w, c);
            w->out_n = 0;
        }
        size_t part = sizeof w->out - w->out_n < n ? sizeof w->out - w->out_n : n;
        memcpy(w->out + w->out_n, p, part);
        w->out_n += (uint32_t)part;
        p += part;
        n -= part;
    }
}

#define KA__STR(literal) (ka_str){ literal, sizeof(literal) - 1 }

static void ka__out_str(ka__worker *w, ka__conn *c, ka_str s) { ka__out_put(w, c, s.p, s.n); }

/* The status line (RFC 9112 s.4); a status without a phrase here gets none, for it is optional. */
static ka_str ka__status(int status, char room[64])
{
    static const struct { int status; const char *phrase; } known[] = {
        { 400, "Bad Request" }, { 401, "Unauthorized" }, { 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
        { 408, "Request Timeout" }, { 409, "Conflict" }, { 413, "Content Too Large" }, { 414, "URI Too Long" }, { 417, "Expectation Failed" },
        { 431, "Request Header Fields Too Large" }, { 500, "Internal Server Error" }, { 501, "Not Implemented" },
        { 503, "Service Unavailable" }, { 504, "Gateway Timeout" }, { 505, "HTTP Version Not Supported" }, { 507, "Insufficient Storage" }
    };
    const char *phrase = "";
    if (status == 200) return KA__STR("HTTP/1.1 200 OK\r\n");      /* nearly always so */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status) phrase = known[i].phrase;
    return (ka_str){ room, (size_t)snprintf(room, 64, "HTTP/1.1 %d %s\r\n", status, phrase) };
}

/* The fields that every answer has, rendered once a second because of Date (RFC 9110 s.5.6.7), which so may be
   a second old. */
static ka_str ka__common_fields(ka__worker *w, bool typed)
{
    static const ka_str type = { "Content-Type: text/plain\r\n", 26 };
    static const char days[] = "ThuFriSatSunMonTueWed", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    if (w->common_n == 0 || w->now_ms / 1000 != w->common_of) {
        char t[KA_UTC_TEXT + 1];
        int64_t us = ka_wall_us();
        ka_utc_text(t, us);
        w->common_n = (size_t)snprintf(w->common, sizeof w->common, "Date: %.3s, %.2s %.3s %.4s %.8s GMT\r\nCache-Control: no-store\r\n%s",
            days + (uint64_t)us / 86400000000 % 7 * 3, t + 8, months + ((t[5] - '0') * 10 + t[6] - '0' - 1) * 3, t, t + 11, type.p);
        w->common_of = w->now_ms / 1000;
    }
    return (ka_str){ w->common, typed ? w->common_n - type.n : w->common_n };
}

/* "Content-Length: n" (RFC 9110 s.8.6) and the end of the head, written from the back into room. */
static ka_str ka__length_field(size_t n, char room[48])
{
    memcpy(room + 44, "\r\n\r\n", 4);
    char *p = ka__decimal(n, room + 44) - 16;
    memcpy(p, "Content-Length: ", 16);
    return (ka_str){ p, (size_t)(room + 48 - p) };
}

/* Begin an answer whose end is the connection's. What was asked behind it gets none. */
static void ka__stream_begin(ka__worker *w, ka__conn *c, const ka__record *r)
{
    ka__out_str(w, c, KA__STR("HTTP/1.1 200 OK\r\n"));
    ka__out_str(w, c, ka__common_fields(w, r->flags & KA__TYPED));
    ka__out_put(w, c, (const char *)(r + 1), r->a);
    ka__out_str(w, c, KA__STR("Connection: close\r\n\r\n"));
    if (!c->open) return;
    ka__drop(w, &c->in, &c->in_n);
    ka__early_drop(w, c);
    c->framing = KA__STREAM;
    c->seq_out = c->seq_in;
    c->last = c->linger = c->expects = false;
    c->told = true;                    /* of its end there is nothing to tell until ka__stream_begun */
    ka__time(w, c, KA__BEGUN);
}

static void ka__answer(ka__worker *w, ka__conn *c, const ka__record *r)
{
    char room[64];
    const char *payload = (const char *)(r + 1);
    bool final = c->seq_out + 1 == c->seq_in, empty = r->status == 204 || r->status == 304;
    if (r->status == 0) {              /* HTTP/0.9: the close is its end, so what was asked after it gets no answer */
        ka__out_put(w, c, payload, r->n);
        c->seq_out = c->seq_in;
        c->last = true;
        c->expects = false;            /* 100 Continue would be taken for more of the body */
        if (r->n == 0) {               /* nothing leaves, after which it would be closed */
            ka__out_flush(w);
            ka__conn_settle(w, c);
        }
        return;
    }
    if (r->flags & KA__BEGINS) {
        ka__stream_begin(w, c, r);
        return;
    }
    if (w->draining && final && !c->in) c->last = true;
    ka__out_str(w, c, ka__status(r->status, room));
    ka__out_str(w, c, ka__common_fields(w, r->flags & KA__TYPED));
    ka__out_put(w, c, payload, r->a);
    if (c->last && final) ka__out_str(w, c, KA__STR("Connection: close\r\n"));
    else if (r->flags & KA__OLD) ka__out_str(w, c, KA__STR("Connection: keep-alive\r\n"));
    ka__out_str(w, c, empty ? KA__STR("\r\n") : ka__length_field(r->n, room));
    if (!(r->flags & KA__BODILESS)) ka__out_put(w, c, payload + r->a, r->n);
    c->seq_out++;
}

/* Keep an answer until its turn has come. */
static void ka__early_put(ka__worker *w, ka__conn *c, const ka__record *r)
{
    ka__early *e = ka__resize(NULL, offsetof(ka__early, r) + r->size, 1);
    if (!e) {                          /* without this one, none after it can be given */
        ka__conn_close(w, c);
        return;
    }
    memcpy(&e->r, r, r->size);
    e->next = c->early;
    c->early = e;
    ka__count(&w->buffered, (int)r->size);
}

/* Take the early answer whose turn it is, or NULL. */
static ka__early *ka__early_take(ka__conn *c)
{
    for (ka__early **at = &c->early; *at; at = &(*at)->next) {
        ka__early *e = *at;
        if (e->r.seq != c->seq_out) continue;
        *at = e->next;
        return e;
    }
    return NULL;
}

static void ka__on_reply(ka__worker *w, const ka__record *r)
{
    ka__conn *c = ka__conn_find(w, r->conn);
    ka__early *e;
    if (!c || c->framing != KA_HTTP || r->seq - c->seq_out >= c->seq_in - c->seq_out) return;      /* gone, or answered already */
    if (r->seq != c->seq_out) {
        ka__early_put(w, c, r);
        return;
    }
    ka__answer(w, c, r);
    while (c->open && (e = ka__early_take(c)) != NULL) {
        ka__answer(w, c, &e->r);
        ka__early_free(w, e);
    }
}

/* The connection of that number, if it is open, and not HTTP. */
static ka__conn *ka__talker_find(ka__worker *w, uint64_t number)
{
    ka__conn *c = ka__conn_find(w, number);
    return c && c->framing != KA_HTTP && !c->knocks ? c : NULL;
}

/* Nothing of the next message was looked at. */
static void ka__unread_anew(ka__conn *c)
{
    if (c->framing == KA_RESP) c->resp = (ka__resp_cut){ 0, 0 };
    else c->object = (ka__object){ 0, 0, 0, false };
}

/* Chain it to those of its connection. The chains leave before anything else is done, see ka__commands. */
static void ka__on_send(ka__worker *w, const ka__record *r)
{
    uint32_t at = (uint32_t)((const char *)r - w->down.mem) + 1;
    ka__conn *c = ka__talker_find(w, r->conn);
    if (!c || (c->last && c->seq_in == c->seq_out)) return;      /* gone, or closed by the parent */
    if (c->sends) ((ka__record *)(void *)(w->down.mem + c->sends_last - 1))->a = at;
    else {
        c->sends = at;
        w->senders[w->senders_n++] = ka__place(w, c);
    }
    c->sends_last = at;
}

/* Write what is chained, all that is for one connection in one piece: a relay's messages of a batch go to and fro. Then the
   parent has the room of all that was read. */
static void ka__sends_leave(ka__worker *w)
{
    for (uint32_t i = 0; i < w->senders_n; i++) {
        ka__conn *c = &w->conns[w->senders[i]];
        for (uint32_t at = c->sends, next; at; at = next) {
            ka__record *r = (ka__record *)(void *)(w->down.mem + at - 1);
            next = r->a;
            ka__out_put(w, c, ka__payload(r), r->n);
        }
        c->sends = 0;
    }
    w->senders_n = 0;
    ka__box_release(&w->down);
}

/* Close it, if it is still there, behind what was sent; and read on for a while, or bytes that are on their way would
   reset the connection under that. */
static void ka__on_close(ka__worker *w, const ka__record *r)
{
    ka__conn *c = ka__talker_find(w, r->conn);
    if (!c) return;
    if (!c->last) c->last = c->linger = true;
    ka__drop(w, &c->in, &c->in_n);
    c->seq_out = c->seq_in;
    ka__out_flush(w);
    ka__conn_settle(w, c);
}

static void ka__on_reframe(ka__worker *w, const ka__record *r)
{
    ka__conn *c = ka__talker_find(w, r->conn);
    if (!c || c->framing == KA__STREAM) return;
    if (c->in) {                       /* begun in the old framing: what would that be in the new one? */
        ka__out_flush(w);
        if (c->open) ka__conn_close(w, c);
        return;
    }
    c->framing = r->flags;
    ka__unread_anew(c);
}

/* ---- reading ---- */

static void ka__deliver(ka__worker *w, ka__conn *c, const ka_http *h, int error, ka_str body)
{
    ka_str fields = c->fields ? h->fields : (ka_str){ NULL, 0 };
    ka__record *r = ka__box_put(&w->up, KA_REQUEST, h->method.n + h->target.n + body.n + fields.n + c->fields);
    KA_ASSERT(r && "KA__UP_RESERVE");
    char *p = ka__payload(r);
    r->conn = ka__conn_number(w, c);
    r->seq = c->seq_in++;
    r->status = (uint16_t)error;
    r->flags = (uint8_t)((h->minor || error ? 0 : KA__OLD) | (ka_is(h->method, "HEAD") ? KA__BODILESS : 0) | c->listener << 4);
    r->a = (uint32_t)h->method.n;
    r->b = (uint32_t)h->target.n;
    r->n = (uint32_t)body.n;
    memcpy(p, h->method.p, h->method.n);
    memcpy(p + r->a, h->target.p, h->target.n);
    p += r->a + r->b;
    if (body.n) memcpy(p, body.p, body.n);
    if (fields.n) memcpy(p + body.n, fields.p, fields.n);
    if (c->fields) p[body.n + fields.n] = 0;      /* no NUL is among them */
    if (!h->keep_alive) c->last = true;
}

/* Tell the parent of a connection that is not HTTP. */
static ka__record *ka__tell(ka__worker *w, const ka__conn *c, int kind, ka_str payload)
{
    ka__record *r = ka__box_put(&w->up, kind, payload.n);
    KA_ASSERT(r && "KA__UP_RESERVE");
    r->conn = ka__conn_number(w, c);
    r->flags = c->framing;
    r->n = (uint32_t)payload.n;
    if (payload.n) memcpy(ka__payload(r), payload.p, payload.n);
    return r;
}

/* Have the parent answer a request or message that can't be taken, and close after that. */
static void ka__reject(ka__worker *w, ka__conn *c, int status, bool head)
{
    ka_http none = { .method = { "HEAD", head ? 4 : 0 }, .target = { "", 0 } };      /* HEAD: a refusal has no body either */
    c->linger = true;
    if (c->framing == KA_HTTP) {
        c->expects = false;
        ka__deliver(w, c, &none, status, (ka_str){ NULL, 0 });
    } else {
        ka__tell(w, c, KA_MESSAGE, (ka_str){ NULL, 0 })->status = (uint16_t)status;
        c->last = true;
        c->seq_in++;                   /* ka_wait answers with KA__CLOSE */
    }
}

/* The body of a request whose head is h, in the n bytes at p behind that head.
     returns    bytes of the body; *end is where the next request begins; KA_EAGAIN; or KA_ESYNTAX with h->status */
static ptrdiff_t ka__body(ka__worker *w, ka__conn *c, ka_http *h, char *p, size_t n, size_t *end)
{
    if (!h->chunked) {
        size_t length = h->length < 0 ? 0 : (size_t)h->length;
        if (h->length > KA_MAX_BODY) return ka__refuse(h, 413);
        c->expects = h->expects && n == 0;
        *end = length;
        return n < length ? KA_EAGAIN : (ptrdiff_t)length;
    }
    size_t used = 0;      /* what was decoded before lies in front */
    ptrdiff_t got = ka_chunked_decode(&c->chunked, p + c->body_n, n - c->body_n, &used);
    if (got < 0) return ka__refuse(h, got == KA_ENOSPC ? 413 : 400);
    c->expects = h->expects && n == 0;
    *end = c->body_n + used;
    c->body_n += (uint32_t)got;
    if (c->chunked.done) return (ptrdiff_t)c->body_n;
    w->in_n -= (uint32_t)(used - (size_t)got);      /* all was used; the framing is dropped */
    return KA_EAGAIN;
}

/* Deliver the next request in the scratch; false if it isn't all here. */
static bool ka__request(ka__worker *w, ka__conn *c)
{
    while (w->in_n - w->in_at >= 2 && memcmp(w->in + w->in_at, "\r\n", 2) == 0) w->in_at += 2;      /* RFC 9112 s.2.2 */
    char *p = w->in + w->in_at;
    size_t n = w->in_n - w->in_at, end = 0;
    ka_http h;
    if (n == 0 || (n == 1 && *p == '\r')) return false;
    ptrdiff_t head = ka_http_request(&h, p, n), body = KA_ESYNTAX;
    if (head >= 0) body = ka__body(w, c, &h, p + head, n - (size_t)head, &end);
    if (head == KA_EAGAIN || body == KA_EAGAIN) return false;
    if (head < 0 || body < 0) {
        ka__reject(w, c, h.status, ka_is(h.method, "HEAD"));
        return true;
    }
    c->expects = false;
    ka__deliver(w, c, &h, 0, (ka_str){ p + head, (size_t)body });
    c->chunked = (ka_chunked){ .room = KA_MAX_BODY };
    c->body_n = 0;
    w->in_at += (uint32_t)((size_t)head + end);
    return true;
}

/* The framings. Each finds the first message among the n bytes at p, n > 0.
     returns    the bytes that it takes, with *message among them; KA_EAGAIN, KA_ESYNTAX, KA_ENOSPC

   An object ends where its braces, outside of strings, come out even. Goes on where it stopped before. KA_ESYNTAX: no
   object begins here, or a string in it goes over a line. */
static ptrdiff_t ka__object_find(ka__object *o, const char *p, size_t n, ka_str *message)
{
    if (*p != '{') return KA_ESYNTAX;
    while (o->at < n) {
        char c = p[o->at++];
        if (o->escaped) o->escaped = false;
        else if (o->quote && (unsigned char)c < ' ') return KA_ESYNTAX;
        else if (o->quote && c == '\\') o->escaped = true;
        else if (o->quote) o->quote = c == o->quote ? 0 : o->quote;
        else if (c == '"' || c == '\'') o->quote = c;
        else if (c == '{') o->depth++;
        else if (c == '}' && --o->depth == 0) return (ptrdiff_t)(*message = (ka_str){ p, o->at }).n;
    }
    return n > KA_MAX_BODY ? KA_ENOSPC : KA_EAGAIN;
}

static ptrdiff_t ka__frame_find(const char *p, size_t n, ka_str *message)
{
    if (n < 4) return KA_EAGAIN;
    size_t length = (size_t)ka__get_be32((const unsigned char *)p);
    if (length > KA_MAX_BODY) return KA_ENOSPC;
    if (n - 4 < length) return KA_EAGAIN;
    *message = (ka_str){ p + 4, length };
    return (ptrdiff_t)(4 + length);
}

/* *at: so many bytes were searched before. */
static ptrdiff_t ka__line_find(uint32_t *at, const char *p, size_t n, ka_str *message)
{
    const char *end = memchr(p + *at, '\n', n - *at);
    *at = (uint32_t)n;
    if (!end) return n > KA_MAX_BODY + (p[n - 1] == '\r') ? KA_ENOSPC : KA_EAGAIN;
    size_t length = (size_t)(end - p);
    *message = (ka_str){ p, length > 0 && end[-1] == '\r' ? length - 1 : length };
    return (ptrdiff_t)(length + 1);
}

static ptrdiff_t ka__value_find(ka__resp_cut *cut, const char *p, size_t n, ka_str *message)
{
    ptrdiff_t taken = ka__resp_find(cut, p, n);
    if (taken >= 0) *message = (ka_str){ p, (size_t)taken };
    return taken == KA_EAGAIN && n > KA_MAX_BODY ? KA_ENOSPC : taken;
}

/* As ka__request, for the other framings. White space is passed over in frames too, since what follows an object may come
   after ka_reframe. */
static bool ka__message(ka__worker *w, ka__conn *c)
{
    if (c->framing < KA_LINES)
        while (w->in_at < w->in_n && w->in[w->in_at] && strchr(" \t\r\n", w->in[w->in_at])) w->in_at++;
    if (w->in_at == w->in_n) return false;
    const char *p = w->in + w->in_at;
    size_t n = w->in_n - w->in_at;
    ka_str message = { NULL, 0 };
    ptrdiff_t taken = c->framing == KA_JSON ? ka__object_find(&c->object, p, n, &message) :
                      c->framing == KA_FRAMES ? ka__frame_find(p, n, &message) :
                      c->framing == KA_LINES ? ka__line_find(&c->object.at, p, n, &message) : ka__value_find(&c->resp, p, n, &message);
    if (taken == KA_EAGAIN) return false;
    if (taken < 0 || message.n > KA_MAX_BODY) {
        ka__reject(w, c, taken == KA_ESYNTAX ? 400 : 413, false);
        return true;
    }
    ka__tell(w, c, KA_MESSAGE, message);
    ka__unread_anew(c);
    w->in_at += (uint32_t)taken;
    return true;
}

/* Tell the parent that no more will come. */
static void ka__finish(ka__worker *w, ka__conn *c)
{
    ka__tell(w, c, KA_CLOSED, (ka_str){ NULL, 0 });
    c->told = c->last = true;
    c->seq_in++;                       /* ka_wait answers with KA__CLOSE */
}

/* Keep what is left of the scratch for when more arrives. */
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
    ka_wipe(w->in, w->in_n);
    if (n && !kept) ka__reject(w, c, 503, false);
}

static void ka__conn_read(ka__worker *w, ka__conn *c)
{
    bool http = c->framing == KA_HTTP;
    ptrdiff_t got = ka__sock_recv(c->sock, w->in + c->in_n, http ? KA__READ_BYTES : KA__MESSAGES_BYTES);
    bool lingering = c->timed == KA__LINGER;
    c->ended = got == 0;
    if (got == KA_EAGAIN || (got > 0 && (lingering || c->framing == KA__STREAM))) return;
    if (got < 0 || lingering) {
        ka__conn_close(w, c);
        return;
    }
    if (got == 0) {                    /* half-closed: what was asked is still answered */
        if (!http && c->in) ka__reject(w, c, 400, false);
        else if (!http) ka__finish(w, c);
        c->last = true;
        c->linger = c->expects = false;
    } else {
        if (c->in_n) memcpy(w->in, c->in, c->in_n);
        w->in_at = 0;
        w->in_n = c->in_n + (uint32_t)got;
        bool took = false;
        while (!c->last && (http ? ka__request(w, c) : ka__message(w, c))) took = true;
        if (took) ka__untime(w, c);    /* what follows a whole one is timed anew */
        ka__keep_unread(w, c);
    }
    ka__conn_settle(w, c);
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
    ka__untime(w, c);                  /* it takes something: the stall's time begins anew */
    ka__conn_settle(w, c);
}

/* A connection is open, by either side. */
static void ka__conn_opened(ka__worker *w, ka__conn *c, uint32_t tag, int flags)
{
    char ip[16];
    int port = ka__sock_peer(c->sock, ip);
    ka__record *r = ka__tell(w, c, KA_OPENED, (ka_str){ ip, strlen(ip) });
    r->a = (uint32_t)port;
    r->seq = tag;
    r->flags = (uint8_t)flags;
}

/* It could not be connected. */
static void ka__knock_failed(ka__worker *w, ka__conn *c, int error)
{
    c->knock.error = error;
    c->knock.os_error = error == KA_ETIME || error == KA_ESTOPPED ? 0 : ka__os_code();
    ka__conn_close(w, c);
}

static void ka__knock_heard(ka__worker *w, ka__conn *c)
{
    int r = ka__sock_connected(c->sock);
    uint32_t tag = c->knock.tag;
    if (r < 0) {
        ka__knock_failed(w, c, r);
        return;
    }
    c->knocks = false;
    ka__unread_anew(c);
    ka__conn_opened(w, c, tag, KA__OUTGOING);
    ka__conn_settle(w, c);
}

/* The parent learns what became of a connection that is closed; its place is free then. */
static void ka__gone(ka__worker *w, ka__conn *c)
{
    ka__record *r = ka__tell(w, c, c->knocks ? KA_OPENED : KA_CLOSED, (ka_str){ NULL, 0 });
    r->status = (uint16_t)-(c->knocks ? c->knock.error : c->ended ? KA_OK : KA_EOFFLINE);
    if (c->knocks) {
        r->seq = c->knock.tag;
        r->flags = KA__OUTGOING;
        r->b = (uint32_t)c->knock.os_error;
    }
    ka__untime(w, c);
    ka__conn_free(w, c);
}

/* The parent learns that a stream has begun, and is one of its connections from now on. */
static void ka__stream_begun(ka__worker *w, ka__conn *c)
{
    ka__untime(w, c);
    ka__conn_opened(w, c, 0, c->listener << 4);
    c->told = false;
    if (w->draining) ka__finish(w, c);
    ka__conn_settle(w, c);
}

static void ka__conn_event(ka__worker *w, ka__conn *c)
{
    if (!c->open || c->timed == KA__BEGUN) return;
    if (c->knocks) ka__knock_heard(w, c);
    else if (c->watched == KA__OUT) ka__conn_write(w, c);
    else if (c->watched == KA__IN) ka__conn_read(w, c);
    else ka__conn_close(w, c);         /* watched for nothing, so it has failed */
}

/* ---- accepting ---- */

/* The parent made the socket, so that it is in the process's main table. */
static int ka__listener_take(const ka__worker *w, ka__listener *l)
{
    l->sock = w->own_table ? ka__fd_take((int)l->theirs) : l->theirs;
    l->open = l->sock != -1;
    l->pending = !l->open;
    return l->open ? KA_OK : ka__sock_error();
}

/* Watch all listeners, or none; false if there is no room for one. */
static bool ka__listeners_watch(ka__worker *w, bool watch)
{
    bool all = true;
    for (uint32_t i = 0; i < KA_MAX_LISTENERS; i++) {
        ka__listener *l = &w->listeners[i];
        if (watch && l->pending && ka__listener_take(w, l) < 0) all = false;
        if (!l->open || l->watched == watch) continue;
        int from = watch ? KA__UNWATCHED : KA__IN, to = watch ? KA__IN | KA__SHARED : KA__UNWATCHED;
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

/* Close the connection that has been idle longest; not one that has bytes waiting, nor one so young that
   its first request may be on its way: else a crowd of newcomers would push each other out. */
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

/* Accept up to `most` newcomers, `asked` workers being out of descriptors already. At the limit one idle connection
   makes room for each; with a table of its own, only when no other worker has room. And only if somebody waits:
   Linux says EMFILE also where nobody does. */
static void ka__accept(ka__worker *w, ka__listener *l, int most, uint32_t asked)
{
    bool evicted = false, last = asked + 1 >= w->workers;
    while (most-- > 0 && l->watched && ka__box_room(&w->up, KA__UP_RESERVE)) {
        ka__sock sock;
        ka__conn *c = ka__conn_place(w);
        int r = c ? ka__sock_accept(l->sock, &sock) : KA_ELIMIT;
        if (r == KA_OK) {
            ka__conn_open(w, c, sock, l->framing);
            c->listener = (uint8_t)(l - w->listeners);
            if (c->framing != KA_HTTP) ka__conn_opened(w, c, 0, c->listener << 4);
            ka__conn_settle(w, c);
            evicted = false;
        } else if (r == KA_EAGAIN || (r == KA_ELIMIT && ka__sock_wait(l->sock, KA__IN, 0) != KA_OK)) {
            return;
        } else if (r == KA_ELIMIT && !evicted && (last || !w->own_table) && ka__evict(w)) {
            evicted = true;
        } else if (r != KA_EOFFLINE) {
            if (r == KA_ELIMIT && !last && ka__box_room(&w->up, KA__UP_RESERVE)) ka__box_put(&w->up, KA__CROWDED, 0)->a = asked + 1;
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
    ka__listener *l = &w->listeners[r->seq];
    int port = 0, error = -(int)r->status, code = (int)r->b;
    l->framing = r->flags;
    if (error == KA_OK) {
        l->theirs = (ka__sock)r->conn;
        error = ka__listener_take(w, l);
        if (error == KA_OK) error = ka__sock_listen(l->sock, ka__payload(r), (int)r->a, &port);
        code = ka__os_code();
        if (error && l->open && w->own_table) ka__sock_close(l->sock);
        l->open = error == KA_OK;
        l->pending = false;
    }
    if (!w->accept_paused) ka__accept_resume(w);
    ka__record *up = ka__box_put(&w->up, KA_LISTENING, 0);
    KA_ASSERT(up && "KA__UP_RESERVE");
    up->seq = r->seq;
    up->status = (uint16_t)-error;
    up->a = (uint32_t)port;
    up->b = (uint32_t)(error ? code : 0);
}

static void ka__on_adopt(ka__worker *w, const ka__record *r)
{
    w->listeners[r->seq].theirs = (ka__sock)r->conn;
    w->listeners[r->seq].framing = r->flags;
    w->listeners[r->seq].pending = true;
    if (!w->accept_paused) ka__accept_resume(w);
}

/* Its outcome is told later, as there may be no room for it now: where it failed at once, by ka__gone. */
static void ka__on_connect(ka__worker *w, ka__record *r)
{
    ka__sock sock = -1;
    ka__conn *c = ka__conn_place(w);
    if (!c) {                          /* no place to remember it by: told at once. Of hundreds at once, some may not be */
        if (!ka__box_room(&w->up, KA__MUST_BYTES)) return;
        ka__record *up = ka__box_put(&w->up, KA_OPENED, 0);
        KA_ASSERT(up && "KA__MUST_BYTES");
        up->seq = r->seq;
        up->flags = KA__OUTGOING;
        up->status = (uint16_t)-KA_ENOMEM;
        return;
    }
    int error = ka__sock_connect(r->b ? ka__payload(r) + r->b : NULL, ka__payload(r), (int)r->a, &sock);
    bool failed = error && error != KA_EAGAIN;
    ka__conn_open(w, c, failed ? -1 : sock, r->flags);
    c->outgoing = c->knocks = true;
    w->outgoing++;
    c->knock.tag = r->seq;
    if (!failed) error = ka__poller_set(&w->sleeper.poller, sock, ka__token(w, c), KA__UNWATCHED, KA__OUT);
    if (error) {
        ka__knock_failed(w, c, error);
        return;
    }
    c->watched = KA__OUT;
    ka__time(w, c, KA__KNOCK);
}

static void ka__on_drain(ka__worker *w)
{
    ka__accept_resume(w);              /* who has connected is served, as far as there are descriptors */
    for (int i = 0; i < KA_MAX_LISTENERS; i++) ka__accept(w, &w->listeners[i], KA_BACKLOG, w->workers);
    ka__listeners_close(w);
    w->accept_paused = false;
    w->draining = KA__SERVES;
    w->drain_until_ms = w->now_ms + KA_DRAIN_MS;
    w->finished = 0;
    for (uint32_t place = 0; place < w->conns_n; place++) {
        ka__conn *c = &w->conns[place];
        if (c->timed == KA__IDLE) ka__conn_settle(w, c);
        else if (c->timed == KA__KNOCK) ka__knock_failed(w, c, KA_ESTOPPED);
    }
    ka__box_put(&w->up, KA__RELEASED, 0);
}

static void ka__commands(ka__worker *w)
{
    for (ka__record *r; (r = ka__box_next(&w->down)) != NULL; ) {
        bool due = w->senders_n > 0 && (r->kind != KA__SEND || w->senders_n == KA__SENDERS);
        if (due || ka__box_passed(&w->down) > KA__SENDS_BYTES) ka__sends_leave(w);
        switch (r->kind) {
        case KA__LISTEN: ka__on_listen(w, r); break;
        case KA__ADOPT:  ka__on_adopt(w, r); break;
        case KA__CONNECT: ka__on_connect(w, r); break;
        case KA__REPLY:  ka__on_reply(w, r); break;
        case KA__SEND:   ka__on_send(w, r); break;
        case KA__CLOSE:  ka__on_close(w, r); break;
        case KA__REFRAME: ka__on_reframe(w, r); break;
        case KA__DRAIN:  ka__on_drain(w); break;
        case KA__FINISH: w->draining = KA__FINISHES, w->finished = 0; break;
        case KA__QUIT:   w->quit = true; break;
        default: /* KA__CROWDED_TOO */
            if (w->accept_paused) ka__accept_resume(w);
            for (int i = 0; i < KA_MAX_LISTENERS; i++) ka__accept(w, &w->listeners[i], 1 + KA__ACCEPTS, r->a);
        }
        ka__box_pass(&w->down, r);
    }
    ka__sends_leave(w);
    ka__out_flush(w);
}

/* Whose time is over, as long as there is room to tell the parent of it. What has arrived counts, even if
   the worker had no time yet to read it. */
static void ka__expire(ka__worker *w)
{
    for (int kind = 0; kind < KA__TIMED; kind++) {
        for (uint32_t place; (place = w->list[kind].head) != KA__NIL && ka__box_room(&w->up, KA__UP_RESERVE); ) {
            ka__conn *c = &w->conns[place];
            if (c->due_ms > w->now_ms) break;
            if (kind <= KA__REQUEST && ka__sock_waiting(c->sock) > 0) {
                ka__conn_read(w, c);
                if (!c->open || c->timed != kind || c->due_ms > w->now_ms) continue;
            }
            if (kind == KA__GONE) ka__gone(w, c);
            else if (kind == KA__BEGUN) ka__stream_begun(w, c);
            else if (kind == KA__KNOCK) ka__knock_failed(w, c, KA_ETIME);
            else if (kind != KA__REQUEST) ka__conn_close(w, c);
            if (kind != KA__REQUEST) continue;
            ka__drop(w, &c->in, &c->in_n);
            ka__reject(w, c, 408, false);
            ka__conn_settle(w, c);
        }
    }
}

/* While draining: over when the last connection has ended, or the time. Those that are not HTTP end when the parent,
   having been told, has said its last word; those of ka_connect, when no worker has any other. */
static void ka__drained(ka__worker *w)
{
    for (; w->finished < w->conns_n && ka__box_room(&w->up, KA__UP_RESERVE); w->finished++) {
        ka__conn *c = &w->conns[w->finished];
        if (!c->open || c->framing == KA_HTTP || c->last || c->timed == KA__BEGUN) continue;
        if (c->outgoing && w->draining != KA__FINISHES) continue;
        ka__finish(w, c);
        ka__conn_settle(w, c);
    }
    for (uint32_t place = 0; place < w->conns_n && w->now_ms >= w->drain_until_ms; place++) {
        w->conns[place].ended = true;      /* by the stop, if nobody was told so far: it wasn't lost */
        if (w->conns[place].open) ka__conn_close(w, &w->conns[place]);
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
    for (int kind = 0; kind < KA__TIMED; kind++)
        if (w->list[kind].head != KA__NIL && w->conns[w->list[kind].head].due_ms < due) due = w->conns[w->list[kind].head].due_ms;
    if (w->draining && w->now_ms < w->drain_until_ms && w->drain_until_ms < due) due = w->drain_until_ms;
    if (w->draining && w->finished < w->conns_n) due = 0;
    if (w->accept_paused && w->accept_again_ms < due) due = w->accept_again_ms;
    if (due == INT64_MAX) return -1;
    return due <= w->now_ms ? 0 : due - w->now_ms > INT_MAX ? INT_MAX : (int)(due - w->now_ms);
}

static void ka__publish_up(ka__worker *w) { if (ka__box_publish(&w->up)) ka__wake(w->parent); }

/* Sleep until something happens; handle what did. The round begins at another place each time, so that one
   busy connection can't take all the room in the up box for ever. Listeners come last: a newcomer must not
   take a place that an event of this batch still speaks of, nor push out a connection whose request has
   just arrived. Without room in the up box nothing is read: the parent has milliseconds of work then. */
static void ka__sockets(ka__worker *w)
{
    uint32_t tokens[KA__EVENTS];
    ka__conns_shrink(w);
    atomic_store(&w->sleeper.asleep, 1);
    uint32_t n = ka__box_empty(&w->down) ? (uint32_t)ka__poller_wait(&w->sleeper.poller, tokens, KA__EVENTS, ka__patience(w)) : 0;
    atomic_store(&w->sleeper.asleep, 0);
    w->now_ms = ka_now_ms();
    w->turn++;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = tokens[(i + w->turn) % n];
        if (token < KA_MAX_LISTENERS) continue;
        ka__conn *c = &w->conns[token - KA_MAX_LISTENERS];
        if ((c->watched != KA__IN && !c->knocks) || ka__box_room(&w->up, KA__UP_RESERVE)) ka__conn_event(w, c);
    }
    ka__expire(w);                     /* who was reset is told of before the newcomer that takes its turn */
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] < KA_MAX_LISTENERS) ka__accept(w, &w->listeners[tokens[i]], KA__ACCEPTS, 0);
    if (w->accept_paused && (w->place_freed || w->now_ms >= w->accept_again_ms)) ka__accept_resume(w);
    ka__publish_up(w);
    if (!ka__box_room(&w->up, KA__UP_RESERVE)) ka_sleep_ms(1);
}

static void ka__worker_run(void *arg)
{
    ka__worker *w = arg;
    int own = ka__table_own(&w->sleeper.poller, &w->parent->poller);
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
        if (w->conns[place].open) ka__conn_close(w, &w->conns[place]);
}

static void ka__worker_free(ka__worker *w)
{
    ka__free(w->conns);
    ka__poller_free(&w->sleeper.poller);
    ka__box_free(&w->up);
    ka__box_free(&w->down);
    ka__free(w);
}

/* For a moment a new worker's table has copies of all that is open; nobody shall meet them, who closes a file or
   binds a port after ka_server_start. Returns 1, or KA_E... */
static int ka__worker_settle(ka__worker *w)
{
    uint32_t none;
    int r;
    while ((r = atomic_load(&w->settled)) == 0) {
        atomic_store(&w->parent->asleep, 1);
        if (!atomic_load(&w->settled)) ka__poller_wait(&w->parent->poller, &none, 1, 10);      /* one that failed can't wake us */
        atomic_store(&w->parent->asleep, 0);
    }
    return r;
}

static int ka__worker_start(ka__worker **out, uint32_t number, uint32_t workers, ka__sleeper *parent)
{
    ka__worker *w = ka__alloc_zeroed(1, sizeof *w);
    if (!w) return KA_ENOMEM;
    w->number = number;
    w->workers = workers;
    w->parent = parent;
    w->free_head = w->out_conn = KA__NIL;
    for (int kind = 0; kind < KA__TIMED; kind++) w->list[kind].head = w->list[kind].tail = KA__NIL;
    int r = ka__poller_init(&w->sleeper.poller);
    if (r < 0) {
        ka__free(w);
        return r;
    }
    if (ka__box_init(&w->up, KA_MAILBOX) < 0 || ka__box_init(&w->down, KA_MAILBOX) < 0) r = KA_ENOMEM;
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

   The parent's side. Its loop is ka_wait: hand out what the workers sent; when there is nothing more,
   publish the answers that were given meanwhile, and sleep. */

typedef struct { int64_t at_ms; uint64_t tag; } ka__timer;

struct ka_server {
    ka__sleeper  sleeper;
    _Atomic(int) stop;
    bool         stop_sent;
    int          workers_n, turn, batch, released, served, ended;
    uint32_t     listeners_n, connects;
    uint8_t      framings[KA_MAX_LISTENERS];
    ka__sock     listeners[KA_MAX_LISTENERS];      /* -1: none */
    ka__record  *current;      /* the record behind the last event, in the up box of `from` */
    ka__worker  *from;
    ka__timer   *timers;       /* a binary heap, the first one due in front */
    size_t       timers_n, timers_room;
    bool         input;        /* standard input has not ended yet */
    void       (*at_batch_end)(void *arg);
    void        *at_batch_end_arg;
    _Atomic(size_t) requests;
    int64_t      now_ms;
    ka__worker  *workers[KA_MAX_WORKERS];
};

static void ka__publish_down(ka__worker *w) { if (ka__box_publish(&w->down)) ka__wake(&w->sleeper); }

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
    if (workers < 0 || workers > KA_MAX_WORKERS) return KA_EINVAL;
    int r = ka__os_start();
    if (r < 0) return r;
    ka_server *s = ka__alloc_zeroed(1, sizeof *s);
    if (!s) return KA_ENOMEM;
    r = ka__poller_init(&s->sleeper.poller);
    if (r < 0) {
        ka__free(s);
        return r;
    }
    atomic_init(&s->stop, 0);
    s->now_ms = ka_now_ms();
    if (workers == 0) workers = 1;
    for (int i = 0; i < workers; i++) {
        r = ka__worker_start(&s->workers[i], (uint32_t)i, (uint32_t)workers, &s->sleeper);
        if (r < 0) {
            ka_server_free(s);
            return r;
        }
        s->workers_n++;
    }
    *out = s;
    return KA_OK;
}

int ka_listen(ka_server *s, const char *ip, int port) { return ka_listen_as(s, KA_HTTP, ip, port); }

int ka_listen_as(ka_server *s, int framing, const char *ip, int port)
{
    struct sockaddr_in a;
    size_t n = strlen(ip) + 1;
    if (framing < KA_HTTP || (framing > KA_RESP && framing != KA_HTTP_FIELDS) || !ka__address(ip, port, &a)) return KA_EINVAL;
    if (s->listeners_n == KA_MAX_LISTENERS) return KA_ELIMIT;
    if (atomic_load(&s->stop)) return KA_ESTOPPED;
    ka__sock *sock = &s->listeners[s->listeners_n];
    int error = ka__sock_new(sock), code = ka__os_code();
    if (error) *sock = -1;
    ka__record *r = ka__down(s->workers[0], KA__LISTEN, n);
    memcpy(ka__payload(r), ip, n);
    r->conn = (uint64_t)*sock;
    r->status = (uint16_t)-error;
    r->a = (uint32_t)port;
    r->b = (uint32_t)code;
    r->flags = s->framings[s->listeners_n] = (uint8_t)framing;
    r->seq = s->listeners_n;
    ka__publish_down(s->workers[0]);      /* from here on the record is the worker's, which wipes it */
    return (int)s->listeners_n++;
}

int ka_connect(ka_server *s, int framing, const char *from, const char *ip, int port, uint32_t tag)
{
    struct sockaddr_in a;
    size_t n = strlen(ip) + 1, from_n = from ? strlen(from) + 1 : 0;
    if (framing <= KA_HTTP || framing > KA_RESP || port == 0 || !ka__address(ip, port, &a)) return KA_EINVAL;
    if (from && !ka__address(from, 0, &a)) return KA_EINVAL;
    if (atomic_load(&s->stop)) return KA_ESTOPPED;
    ka__record *r = ka__down(s->workers[s->connects++ % (uint32_t)s->workers_n], KA__CONNECT, n + from_n);
    memcpy(ka__payload(r), ip, n);
    if (from) memcpy(ka__payload(r) + n, from, from_n);
    r->b = (uint32_t)(from ? n : 0);
    r->a = (uint32_t)port;
    r->seq = tag;
    r->flags = (uint8_t)framing;
    return KA_OK;
}

int ka_timer(ka_server *s, int64_t at_ms, uint64_t tag)
{
    if (s->timers_n == s->timers_room) {
        size_t room = s->timers_room ? s->timers_room * 2 : 64;
        ka__timer *more = ka__resize(s->timers, room, sizeof *more);
        if (!more) return KA_ENOMEM;
        s->timers = more;
        s->timers_room = room;
    }
    size_t at = s->timers_n++;
    for (size_t up; at > 0 && s->timers[up = (at - 1) / 2].at_ms > at_ms; at = up) s->timers[at] = s->timers[up];
    s->timers[at] = (ka__timer){ at_ms, tag };
    return KA_OK;
}

/* Take the first timer off the heap. */
static ka__timer ka__timer_take(ka_server *s)
{
    ka__timer first = s->timers[0], last = s->timers[--s->timers_n];
    size_t at = 0;
    for (size_t down; (down = 2 * at + 1) < s->timers_n; at = down) {
        if (down + 1 < s->timers_n && s->timers[down + 1].at_ms < s->timers[down].at_ms) down++;
        if (s->timers[down].at_ms >= last.at_ms) break;
        s->timers[at] = s->timers[down];
    }
    s->timers[at] = last;
    if (s->timers_n == 0) {            /* there may have been a million */
        ka__free(s->timers);
        s->timers = NULL;
        s->timers_room = 0;
    }
    return first;
}

/* ---- standard input: a thread reads it, piece by piece. It may sit in a read for ever, and so what it touches is static; but
        for the server, whose parent it wakes, and which ka_server_free takes away from it ---- */

static struct {
    ka__thread           thread;
    _Atomic(ka_server *) server;
    _Atomic(int)         reading;      /* there is such a thread */
    _Atomic(int)         waking;       /* it may be using the server */
    _Atomic(ptrdiff_t)   n;            /* bytes of the piece, the parent's until it sets this to 0; less than 0: KA_E..., the end */
    char                 piece[4096];
    /* the parent's */
    ptrdiff_t            at;
    size_t               line_n;
    char                 line[KA_MAX_BODY + 1];      /* and a carriage return */
} ka__input;

static void ka__input_run(void *unused)
{
    ptrdiff_t n;
    (void)unused;
    do {
        n = ka__input_read(ka__input.piece, sizeof ka__input.piece);
        if (n == 0) n = KA_ENOTFOUND;
        atomic_store(&ka__input.waking, 1);
        atomic_store(&ka__input.n, n);
        ka_server *s = atomic_load(&ka__input.server);
        if (s) ka__wake(&s->sleeper);
        atomic_store(&ka__input.waking, 0);
        while (n > 0 && atomic_load(&ka__input.n) && atomic_load(&ka__input.server)) ka_sleep_ms(1);
    } while (n > 0 && atomic_load(&ka__input.server));
    atomic_store(&ka__input.reading, 0);
}

int ka_read_input(ka_server *s)
{
    if (atomic_exchange(&ka__input.reading, 1)) return KA_EINVAL;
    atomic_store(&ka__input.server, s);
    atomic_store(&ka__input.n, 0);
    ka__input.at = 0;
    ka__input.line_n = 0;
    int r = ka__thread_start(&ka__input.thread, ka__input_run, NULL);
    if (r == KA_OK) ka__thread_detach(&ka__input.thread);
    else atomic_store(&ka__input.reading, 0);
    s->input = r == KA_OK;
    return r;
}

/* Cut the next line. KA_OK; KA_EAGAIN: it isn't all here; or how the input has ended. */
static int ka__input_cut(void)
{
    ptrdiff_t n;
    for (; (n = atomic_load(&ka__input.n)) > 0; atomic_store(&ka__input.n, 0)) {
        while (ka__input.at < n) {
            char c = ka__input.piece[ka__input.at++];
            if (c == '\n') return KA_OK;
            if (ka__input.line_n < sizeof ka__input.line) ka__input.line[ka__input.line_n++] = c;
        }
        ka__input.at = 0;
    }
    return n == 0 ? KA_EAGAIN : ka__input.line_n > 0 ? KA_OK : (int)n;
}

static bool ka__input_next(ka_server *s, ka_event *ev)
{
    int r = ka__input_cut();
    if (r == KA_EAGAIN) return false;
    size_t n = ka__input.line_n;
    ka__input.line_n = 0;      /* its bytes stay until the next cut */
    if (n > 0 && ka__input.line[n - 1] == '\r') n--;
    *ev = (ka_event){ .kind = KA_INPUT, .error = r, .now_ms = s->now_ms, .body = { ka__input.line, n < KA_MAX_BODY ? n : KA_MAX_BODY } };
    s->input = r == KA_OK;
    return true;
}

static void ka__listener_drop(ka_server *s, uint32_t i)
{
    if (s->listeners[i] != -1) ka__sock_close(s->listeners[i]);
    s->listeners[i] = -1;
}

/* All workers watch the one socket, so that it has one owner and one inode. */
static void ka__on_listening(ka_server *s, const ka__record *r, ka_event *ev)
{
    ev->error = -(int)r->status;
    ev->os_error = (int)r->b;
    ev->port = (int)r->a;
    ev->listener = (int)r->seq;
    if (ev->error) ka__listener_drop(s, r->seq);
    for (int i = 1; i < s->workers_n && !s->stop_sent && !ev->error; i++) {
        ka__record *adopt = ka__down(s->workers[i], KA__ADOPT, 0);
        adopt->conn = (uint64_t)s->listeners[r->seq];
        adopt->seq = r->seq;
        adopt->flags = s->framings[r->seq];
    }
}

/* A listener is closed when no worker watches it any more; until then its number can't be reused. */
static void ka__on_released(ka_server *s)
{
    if (++s->released < s->workers_n) return;
    for (uint32_t i = 0; i < s->listeners_n; i++) ka__listener_drop(s, i);
}

/* Turn a record into an event; false if it is nothing for the caller of ka_wait. */
static bool ka__event_of(ka_server *s, ka__worker *w, ka__record *r, ka_event *ev)
{
    memset(ev, 0, sizeof *ev);
    ev->kind = r->kind;
    ev->now_ms = s->now_ms;
    ev->conn = r->conn;
    switch (r->kind) {
    case KA_REQUEST: {
        const char *p = ka__payload(r);
        ev->error = r->status;
        ev->seq = r->seq;
        ev->flags = r->flags;
        ev->listener = r->flags >> 4;
        ev->method = (ka_str){ p, r->a };
        ev->target = (ka_str){ p + r->a, r->b };
        ev->body = (ka_str){ p + r->a + r->b, r->n };
        if (s->framings[ev->listener] == KA_HTTP_FIELDS) ev->fields = (ka_str){ ev->body.p + r->n, strlen(ev->body.p + r->n) };
        ka__count(&s->requests, 1);
        return true;
    }
    case KA_MESSAGE:
        ev->error = r->status;
        ev->framing = r->flags;
        ev->body = (ka_str){ ka__payload(r), r->n };
        ka__count(&s->requests, 1);
        return true;
    case KA_OPENED:
        ev->error = -(int)r->status;
        ev->os_error = (int)r->b;
        ev->port = (int)r->a;
        ev->seq = r->seq;
        ev->listener = r->flags & KA__OUTGOING ? -1 : r->flags >> 4;
        ev->body = (ka_str){ ka__payload(r), r->n };
        return true;
    case KA_CLOSED:
        ev->error = -(int)r->status;
        return true;
    case KA_LISTENING:
        ka__on_listening(s, r, ev);
        return true;
    case KA__RELEASED:
        ka__on_released(s);
        return false;
    case KA__CROWDED:
        ka__down(s->workers[(w->number + 1) % (uint32_t)s->workers_n], KA__CROWDED_TOO, 0)->a = r->a;
        return false;
    case KA__SERVED:
        for (int i = ++s->served == s->workers_n ? 0 : s->workers_n; i < s->workers_n; i++) ka__down(s->workers[i], KA__FINISH, 0);
        return false;
    default: /* KA__ENDED */
        s->ended++;
        return false;
    }
}

/* The next event, a timer's, a line of input or out of any up box, without waiting. Timers have half of a batch at most,
   and with the input three quarters, so that they can't keep all else waiting. */
static bool ka__event_next(ka_server *s, ka_event *ev)
{
    if (s->timers_n > 0 && s->timers[0].at_ms <= s->now_ms && s->batch < KA_BATCH / 2) {
        *ev = (ka_event){ .kind = KA_TIMER, .now_ms = s->now_ms, .tag = ka__timer_take(s).tag };
        s->batch++;
        return true;
    }
    if (s->input && s->batch < KA_BATCH / 4 * 3 && ka__input_next(s, ev)) {
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
        if (ka__event_of(s, w, r, ev)) {
            s->current = r;
            s->from = w;
            s->batch++;
            return true;
        }
        ka__box_take(&w->up, r);
    }
    return false;
}

void ka_at_batch_end(ka_server *s, void (*fn)(void *arg), void *arg)
{
    s->at_batch_end = fn;
    s->at_batch_end_arg = arg;
}

/* Send out what was answered, and begin a new batch. */
static void ka__batch_end(ka_server *s)
{
    if (s->at_batch_end) s->at_batch_end(s->at_batch_end_arg);
    bool stop = atomic_load(&s->stop) && !s->stop_sent;
    for (int i = 0; i < s->workers_n; i++) {
        if (stop) ka__down(s->workers[i], KA__DRAIN, 0);
        ka__publish_down(s->workers[i]);
    }
    s->stop_sent = s->stop_sent || stop;
    s->batch = 0;
    s->turn = (s->turn + 1) % s->workers_n;      /* so that a busy worker doesn't keep the others waiting */
    s->now_ms = ka_now_ms();
}

/* Sleep until then, or the first timer's time, or for ever (-1), unless something has come in the meantime. */
static void ka__parent_sleep(ka_server *s, int64_t until)
{
    uint32_t none;
    if (s->timers_n > 0 && (until < 0 || s->timers[0].at_ms < until)) until = s->timers[0].at_ms > 0 ? s->timers[0].at_ms : 0;
    int64_t left = until - s->now_ms;
    int ms = until < 0 ? -1 : left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
    atomic_store(&s->sleeper.asleep, 1);
    bool idle = atomic_load(&s->stop) == (int)s->stop_sent && !(s->input && atomic_load(&ka__input.n));
    for (int i = 0; i < s->workers_n; i++) idle = idle && ka__box_empty(&s->workers[i]->up);
    if (idle) ka__poller_wait(&s->sleeper.poller, &none, 1, ms);
    atomic_store(&s->sleeper.asleep, 0);
}

/* The caller is done with the last event. If it ended its connection, what was to be said to that has been said. */
static void ka__event_done(ka_server *s)
{
    ka__record *r = s->current;
    if (!r) return;
    if (r->kind == KA_CLOSED || (r->kind == KA_MESSAGE && r->status)) ka_close(s, r->conn);
    ka__box_take(&s->from->up, r);
    s->current = NULL;
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
        if (timeout_ms >= 0 && until < 0) until = s->now_ms + timeout_ms;
        else if (timeout_ms >= 0 && s->now_ms >= until) return KA_ETIME;
        ka__parent_sleep(s, until);
        s->now_ms = ka_now_ms();
    }
}

/* Header lines that a caller adds: each a token, a colon, a value, CRLF. *typed: one is Content-Type. */
static bool ka__fields_valid(const char *fields, bool *typed)
{
    ka__cursor c = { fields, fields + strlen(fields) };
    bool whole;
    while (c.p < c.end) {
        ka_str name = ka__take(&c, KA__TOKEN, &whole);
        *typed = *typed || ka__is_nocase(name, "content-type");
        if (name.n == 0 || ka__expect(&c, ":") != KA_OK) return false;
        ka__take(&c, KA__VALUE, &whole);
        if (ka__expect(&c, "\r\n") != KA_OK) return false;
    }
    return true;
}

int ka_reply(ka_server *s, const ka_event *ev, int status, const char *fields, const void *body, size_t n)
{
    size_t fields_n = fields ? strlen(fields) : 0, worker = (size_t)(ev->conn >> 56);
    bool typed = false;
    if (ev->kind != KA_REQUEST || worker >= (size_t)s->workers_n) return KA_EINVAL;
    if (status == 0 ? fields_n > 0 : status < 200 || status > 599) return KA_EINVAL;
    if (n > 0 && (status == 204 || status == 304)) return KA_EINVAL;
    if (n > KA_MAILBOX / 4 || fields_n > KA_MAILBOX / 4 - n) return KA_ENOSPC;
    if (fields && !ka__fields_valid(fields, &typed)) return KA_EINVAL;
    ka__record *r = ka__down(s->workers[worker], KA__REPLY, fields_n + n);
    r->conn = ev->conn;
    r->seq = ev->seq;
    r->flags = (uint8_t)(ev->flags | (typed ? KA__TYPED : 0));
    r->status = (uint16_t)status;
    r->a = (uint32_t)fields_n;
    r->n = (uint32_t)n;
    if (fields_n) memcpy(ka__payload(r), fields, fields_n);
    if (n) memcpy(ka__payload(r) + fields_n, body, n);
    return KA_OK;
}

int ka_stream(ka_server *s, const ka_event *ev, const char *fields)
{
    ka_event begins = *ev;
    if (ev->error || ev->flags & (KA__OLD | KA__BODILESS)) return KA_EINVAL;
    begins.flags |= KA__BEGINS;
    return ka_reply(s, &begins, 200, fields, NULL, 0);
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
        r->n = (uint32_t)part;
        memcpy(ka__payload(r), (const char *)p + at, part);
    }
    return KA_OK;
}

void ka_close(ka_server *s, uint64_t conn) { ka__down_to(s, conn, KA__CLOSE, 0); }

int ka_reframe(ka_server *s, uint64_t conn, int framing)
{
    ka__record *r = framing > KA_HTTP && framing <= KA_RESP ? ka__down_to(s, conn, KA__REFRAME, 0) : NULL;
    if (!r) return KA_EINVAL;
    r->flags = (uint8_t)framing;
    return KA_OK;
}

size_t ka_conn_index(const ka_server *s, uint64_t conn)
{
    return (size_t)(conn >> 32) % KA__MAX_CONNS * (size_t)s->workers_n + (size_t)(conn >> 56);
}

void ka_stop(ka_server *s)
{
    atomic_store(&s->stop, 1);
    ka__wake(&s->sleeper);
}

static _Atomic(ka_server *) ka__interruptible;

static void ka__interrupt(void)
{
    ka_server *s = atomic_load(&ka__interruptible);
    if (s) ka_stop(s);
}

int ka_stop_on_interrupt(ka_server *s)
{
    atomic_store(&ka__interruptible, s);
    return ka__interrupts_catch(ka__interrupt);
}

void ka_server_stats(const ka_server *s, ka_stats *out)
{
    out->requests = atomic_load_explicit(&s->requests, memory_order_relaxed);
    out->connections = out->buffered = 0;
    for (int i = 0; i < s->workers_n; i++) {
        out->connections += atomic_load_explicit(&s->workers[i]->connections, memory_order_relaxed);
        out->buffered += atomic_load_explicit(&s->workers[i]->buffered, memory_order_relaxed);
    }
}

void ka_server_free(ka_server *s)
{
    if (!s) return;
    ka_server *self = s;
    if (atomic_compare_exchange_strong(&ka__interruptible, &self, NULL)) ka__interrupts_release();
    self = s;
    if (atomic_compare_exchange_strong(&ka__input.server, &self, NULL))
        while (atomic_load(&ka__input.waking)) ka_sleep_ms(1);
    for (int i = 0; i < s->workers_n; i++) {
        ka__down(s->workers[i], KA__QUIT, 0);
        ka__publish_down(s->workers[i]);
    }
    for (int i = 0; i < s->workers_n; i++) ka__thread_join(&s->workers[i]->thread);
    for (uint32_t i = 0; i < s->listeners_n; i++) ka__listener_drop(s, i);
    for (int i = 0; i < s->workers_n; i++) ka__worker_free(s->workers[i]);
    ka__free(s->timers);
    ka__poller_free(&s->sleeper.poller);
    ka__free(s);
}

/* ================================================================================================
   7 redis

   One connection, and a time that is always set: r->due_ms, at which it is connected to, or asked for a word, or given up.

       away -> connecting -> auth, ping: the greeting -> up -> ending -> away

   A connection that is of no use any more is closed, and the next one is not begun before the last event of that has come:
   so none of its late events can be taken for the next one's. A greeting is refused in Redis's own words: NOAUTH,
   WRONGPASS, LOADING... Silence is counted in looks, not milliseconds: this process may have been stopped itself. */

enum { KA__REDIS_AWAY, KA__REDIS_CONNECTING, KA__REDIS_AUTH, KA__REDIS_PING, KA__REDIS_UP, KA__REDIS_ENDING };
enum { KA__REDIS_LOOK_MS = KA_REDIS_MS / 3, KA__REDIS_LOOKS = 3 };
enum { KA__RESP_LINE = 32 };         /* more than the bytes around an argument: $, up to 20 digits, CRLF twice */
_Static_assert(KA__REDIS_LOOK_MS > 0 && KA_REDIS_RETRY_MS > 0, "KA_REDIS_MS or KA_REDIS_RETRY_MS is too small");

struct ka__command { ka_redis_fn *fn; size_t size; char note[KA_REDIS_NOTE]; };

static const ka_str ka__ping = { "PING", 4 };

/* Without memory for the timer, the next event after that time will do. */
static void ka__redis_look_at(ka_redis *r, int64_t at_ms)
{
    r->due_ms = at_ms;
    ka_timer(r->server, at_ms, r->tag);
}

/* Send a command. The block that it is written into is wiped: it may hold a password, or a key.
     returns    its bytes, or KA_ELIMIT, KA_ENOMEM */
static ptrdiff_t ka__redis_send(ka_redis *r, const ka_str *args, size_t n)
{
    size_t room = KA__RESP_LINE;
    for (size_t i = 0; i < n; room += KA__RESP_LINE + args[i++].n)
        if (args[i].n > KA_REDIS_BYTES || room > KA_REDIS_BYTES) return KA_ELIMIT;
    char *p = ka__resize(NULL, room, 1);
    if (!p) return KA_ENOMEM;
    ptrdiff_t size = ka_resp_command(p, room, args, n);
    bool fits = r->bytes + (size_t)size <= KA_REDIS_BYTES;
    if (fits) ka_send(r->server, r->conn, p, (size_t)size);
    ka__free_wiped(p, room);
    return fits ? size : KA_ELIMIT;
}

/* ---- commands that wait, in a ring whose room is a power of two ---- */

static struct ka__command *ka__command_at(const ka_redis *r, size_t i) { return &r->waiting[(r->first + i) & (r->room - 1)]; }

/* Make room for one more. A new block each time: a realloc might leave notes behind. */
static int ka__commands_grow(ka_redis *r)
{
    if (r->waiting_n == KA_REDIS_WAITING) return KA_ELIMIT;
    if (r->waiting_n < r->room) return KA_OK;
    size_t room = r->room ? r->room * 2 : 16;
    struct ka__command *more = ka__resize(NULL, room, sizeof *more);
    if (!more) return KA_ENOMEM;
    for (size_t i = 0; i < r->waiting_n; i++) more[i] = *ka__command_at(r, i);
    ka__free_wiped(r->waiting, r->room * sizeof *more);
    r->waiting = more;
    r->first = 0;
    r->room = room;
    return KA_OK;
}

/* The first one has its reply, or will have none: NULL. */
static void ka__command_done(ka_redis *r, const ka_resp *reply)
{
    struct ka__command *first = ka__command_at(r, 0), c = *first;
    ka_wipe(first, sizeof *first);
    r->first = (r->first + 1) & (r->room - 1);
    r->waiting_n--;
    r->bytes -= c.size;
    if (c.fn) c.fn(r->arg, c.note, reply);
    ka_wipe(&c, sizeof c);
}

/* None will have a reply. What they send now fails, so there are no more of them. */
static void ka__commands_fail(ka_redis *r)
{
    r->up = false;
    while (r->waiting_n > 0) ka__command_done(r, NULL);
    ka__free(r->waiting);
    r->waiting = NULL;
    r->room = 0;
}

int ka_redis_command(ka_redis *r, const ka_str *args, size_t args_n, ka_redis_fn *fn, const void *note, size_t n)
{
    if (args_n == 0 || n > KA_REDIS_NOTE) return KA_EINVAL;
    if (!r->up) return KA_EOFFLINE;
    int error = r->on_push ? KA_OK : ka__commands_grow(r);
    ptrdiff_t size = error ? error : ka__redis_send(r, args, args_n);
    if (size < 0) return (int)size;
    if (r->on_push) return KA_OK;
    struct ka__command *c = ka__command_at(r, r->waiting_n++);
    c->fn = fn;
    c->size = (size_t)size;
    if (n) memcpy(c->note, note, n);
    r->bytes += c->size;
    return KA_OK;
}

/* ---- the connection ---- */

/* After ka_stop nothing is an error. */
static void ka__redis_error(ka_redis *r, ka_str why)
{
    size_t n = why.n < sizeof r->error ? why.n : sizeof r->error - 1;
    if (atomic_load(&r->server->stop)) n = 0;
    for (size_t i = 0; i < n; i++) r->error[i] = why.p[i] < ' ' || why.p[i] > '~' ? '?' : why.p[i];
    r->error[n] = 0;
}

/* It can't be used any more, or did not come to that. */
static void ka__redis_lost(ka_redis *r, ka_str why)
{
    bool was_up = r->up;
    ka__redis_error(r, why);
    r->state = KA__REDIS_ENDING;
    ka__commands_fail(r);
    if (was_up && r->on_change) r->on_change(r->arg, false);
}

static void ka__redis_give_up(ka_redis *r, ka_str why)
{
    ka_close(r->server, r->conn);
    ka__redis_lost(r, why);
}

/* After ka_stop this fails, and it was the last time. */
static int ka__redis_connect(ka_redis *r, int64_t now_ms)
{
    int error = ka_connect(r->server, KA_RESP, NULL, r->ip, r->port, r->tag);
    r->state = KA__REDIS_CONNECTING;
    r->due_ms = INT64_MAX;
    if (error == KA_OK) ka__redis_look_at(r, now_ms + 2 * KA_ATTEMPT_MS);      /* what came of it is told before, or was lost */
    return error;
}

/* What it does when its time has come. */
static void ka__redis_look(ka_redis *r, int64_t now_ms)
{
    if (r->state <= KA__REDIS_CONNECTING) {
        ka__redis_connect(r, now_ms);
        return;
    }
    if (r->state != KA__REDIS_ENDING && r->silent++ == KA__REDIS_LOOKS) ka__redis_give_up(r, ka__text("it says nothing"));
    ka_redis_command(r, &ka__ping, 1, NULL, NULL, 0);      /* if there is no room for it, others wait for replies */
    ka__redis_look_at(r, now_ms + KA__REDIS_LOOK_MS);
}

static void ka__redis_retry(ka_redis *r, int64_t now_ms)
{
    r->state = KA__REDIS_AWAY;
    r->conn = 0;
    ka__redis_look_at(r, now_ms + r->retry_ms);
    r->retry_ms = r->retry_ms < KA_REDIS_MS / 2 ? r->retry_ms * 2 : KA_REDIS_MS;
}

static void ka__redis_opened(ka_redis *r, const ka_event *ev)
{
    const ka_str auth[] = { ka__text("AUTH"), ka__text(r->password ? r->password : "") };
    if (ev->error) {
        ka__redis_lost(r, ka__text(ka_error_text(ev->error)));
        ka__redis_retry(r, ev->now_ms);
        return;
    }
    r->conn = ev->conn;
    r->silent = 0;
    r->state = r->password ? KA__REDIS_AUTH : KA__REDIS_PING;
    ka__redis_look_at(r, ev->now_ms + KA__REDIS_LOOK_MS);
    ptrdiff_t sent = r->password ? ka__redis_send(r, auth, 2) : 0;
    if (sent >= 0) sent = ka__redis_send(r, &ka__ping, 1);
    if (sent < 0) ka__redis_give_up(r, ka__text(ka_error_text((int)sent)));
}

static void ka__redis_greeted(ka_redis *r, const ka_resp *v)
{
    if (v->kind == KA_RESP_ERROR) {
        ka__redis_give_up(r, v->text);
    } else if (v->kind != KA_RESP_STRING || !ka_is(v->text, r->state == KA__REDIS_AUTH ? "OK" : "PONG")) {
        ka__redis_give_up(r, ka__text("it does not greet as Redis does"));
    } else if (++r->state == KA__REDIS_UP) {
        r->up = true;
        r->error[0] = 0;
        r->retry_ms = KA_REDIS_RETRY_MS;
        if (r->on_change) r->on_change(r->arg, true);
    }
}

/* PONG, or to who has subscribed: pong, and what was sent along, which is nothing. */
static bool ka__is_pong(const ka_resp *v)
{
    ka_resp rest = *v, first;
    return v->kind == KA_RESP_STRING ? ka_is(v->text, "PONG") :
           v->kind == KA_RESP_ARRAY && v->number == 2 && ka_resp_next(&rest, &first) && ka_is(first.text, "pong");
}

static void ka__redis_reply(ka_redis *r, const ka_event *ev)
{
    ka_resp v;
    r->silent = 0;
    if (r->state == KA__REDIS_ENDING) return;
    if (ev->error || ka_resp_read(&v, ev->body) < 0) ka__redis_give_up(r, ka__text("its reply is malformed, or over KA_MAX_BODY bytes"));
    else if (r->state < KA__REDIS_UP) ka__redis_greeted(r, &v);
    else if (!r->on_push && r->waiting_n > 0) ka__command_done(r, &v);
    else if (!r->on_push) ka__redis_give_up(r, ka__text("it replies to nothing"));
    else if (!ka__is_pong(&v)) r->on_push(r->arg, &v);
}

int ka_redis_start(ka_redis *r, ka_server *s)
{
    r->server = s;
    r->retry_ms = KA_REDIS_RETRY_MS;
    int error = ka__redis_connect(r, ka_now_ms());
    if (error < 0) r->server = NULL;
    return error;
}

bool ka_redis_event(ka_redis *r, const ka_event *ev)
{
    if (!r->server) return false;
    if (ev->now_ms >= r->due_ms) ka__redis_look(r, ev->now_ms);
    if (ev->kind == KA_TIMER) return ev->tag == r->tag;
    if (ev->kind != KA_OPENED && ev->kind != KA_MESSAGE && ev->kind != KA_CLOSED) return false;
    if (ev->kind == KA_OPENED ? ev->listener != -1 || ev->seq != r->tag : ev->conn != r->conn) return false;
    if (ev->kind == KA_MESSAGE) {
        ka__redis_reply(r, ev);
    } else if (ev->kind == KA_CLOSED) {
        if (r->state != KA__REDIS_ENDING) ka__redis_lost(r, ka__text("the connection was lost"));
        ka__redis_retry(r, ev->now_ms);
    } else if (r->state == KA__REDIS_CONNECTING) {
        ka__redis_opened(r, ev);
    } else {
        ka_close(r->server, ev->conn);      /* it was thought lost */
    }
    return true;
}

void ka_redis_free(ka_redis *r)
{
    if (r->conn) ka_close(r->server, r->conn);
    ka__commands_fail(r);
    r->server = NULL;
    r->conn = 0;
}

/* ================================================================================================
   8 keyring

   Keys are secrets: only SHA-256(key) is kept. The records, digest and ID, lie in a log of segments, in
   the order of their making, which is also the order of their expiry: what is over is cut off in front,
   segment by segment. The index is 1,024 small hash tables, chosen and searched by the digest itself,
   which is uniform and which no attacker can choose. Each grows alone, so that growth is a step of some
   microseconds and never one long rehash; it needs no look at the log, since a slot holds 32 bits of hash.

       slot   { hash: 32 | place: 32 }      place: segment and offset in units of 8 bytes, plus 1; 0 is empty
       record { digest: 32 bytes | expiry: u32 | n: u16 | ID: n bytes }, padded to 8 */

/* KA__EXPIRE_AT_ONCE: more go than come, so the expired ones never pile up. */
#define KA__FOR_EVER UINT32_MAX
enum { KA__EXPIRE_AT_ONCE = 8, KA__SHARDS = 1024, KA__SEGMENT_BYTES = 1 << 18, KA__UNITS = KA__SEGMENT_BYTES / 8 };
_Static_assert(KA_MAX_ID <= 65535, "a record has 16 bits for the length of its ID");

struct ka__shard { uint64_t *slots; uint32_t capacity, used; };

/* Random bytes for the next keys, so that not each of them takes a system call. Few, since whoever could read
   this memory would know keys before they are given out. */
enum { KA__POOL_KEYS = 16 };
struct ka__pool { size_t left; unsigned char bytes[KA__POOL_KEYS * KA_KEY_BYTES]; };
_Static_assert(sizeof(struct ka__pool) <= KA__PAGE, "it lies in a page of its own");

/* next: the segment after this one in the log. */
struct ka__segment { uint32_t used, next; unsigned char data[KA__SEGMENT_BYTES]; };

typedef struct { unsigned char digest[32]; uint32_t expires_s; uint16_t n; char id[2]; } ka__key;

static ka_str ka__key_id(const ka__key *key) { return (ka_str){ (const char *)key + offsetof(ka__key, id), key->n }; }
static size_t ka__key_size(size_t id_n) { return (offsetof(ka__key, id) + id_n + 7) / 8 * 8; }

static ka__key *ka__key_at(const ka_keyring *k, uint32_t place)
{
    return (ka__key *)(void *)(k->segments[(place - 1) / KA__UNITS]->data + (size_t)((place - 1) % KA__UNITS) * 8);
}

static struct ka__shard *ka__shard_of(const ka_keyring *k, const unsigned char *digest)
{
    return &k->shards[(digest[4] | (unsigned)digest[5] << 8) % KA__SHARDS];
}

static uint32_t ka__hash_of(const unsigned char *digest)
{
    return digest[0] | (uint32_t)digest[1] << 8 | (uint32_t)digest[2] << 16 | (uint32_t)digest[3] << 24;
}

static void ka__journal_close(struct ka__journal *j);

int ka_keyring_init(ka_keyring *k, size_t max_keys, int64_t ttl_s)
{
    memset(k, 0, sizeof *k);
    if (ttl_s < 0 || ttl_s > (int64_t)100 * 366 * 86400) return KA_EINVAL;
    k->max_keys = max_keys ? max_keys : KA_MAX_KEYS;
    k->ttl_s = ttl_s;
    k->front = k->back = KA__NIL;
    k->pool = ka__page_new();
    k->shards = ka__alloc_zeroed(KA__SHARDS, sizeof *k->shards);
    return k->shards ? KA_OK : KA_ENOMEM;
}

void ka_keyring_free(ka_keyring *k)
{
    for (int i = 0; k->shards && i < KA__SHARDS; i++) ka__free(k->shards[i].slots);
    for (uint32_t i = 0; i < k->segments_n; i++) ka__free(k->segments[i]);
    ka__free(k->shards);
    ka__free(k->segments);
    if (k->pool) ka_wipe(k->pool, sizeof *k->pool);
    ka__page_free(k->pool);
    ka__journal_close(k->journal);
    memset(k, 0, sizeof *k);
}

/* Seconds since the keyring's first use, rounded down. */
static uint32_t ka__key_clock(const ka_keyring *k, int64_t now_ms)
{
    return now_ms > k->epoch_ms ? (uint32_t)((now_ms - k->epoch_ms) / 1000) : 0;
}

static bool ka__key_expired(const ka__key *key, uint32_t now_s) { return now_s >= key->expires_s; }

/* Where the slot of a digest is, or the empty one where it would be put. */
static uint32_t ka__slot_find(const ka_keyring *k, const struct ka__shard *shard, const unsigned char *digest)
{
    uint32_t hash = ka__hash_of(digest), mask = shard->capacity - 1;
    for (uint32_t i = hash & mask; ; i = (i + 1) & mask) {
        uint64_t slot = shard->slots[i];
        if (slot == 0) return i;
        if ((uint32_t)(slot >> 32) == hash && ka_eq_ct(ka__key_at(k, (uint32_t)slot)->digest, digest, 32)) return i;
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
        struct ka__segment **more = ka__resize(k->segments, at + 1, sizeof *more);      /* NOLINT(bugprone-sizeof-expression): pointers, indeed */
        if (!more) return KA_ENOMEM;
        more[at] = NULL;
        k->segments = more;
        k->segments_n++;
    }
    struct ka__segment *s = ka__resize(NULL, 1, sizeof *s);
    if (!s) return KA_ENOMEM;
    s->used = 0;
    s->next = KA__NIL;
    k->segments[at] = s;
    if (k->back != KA__NIL) k->segments[k->back]->next = at;
    else k->front = at;
    k->back = at;
    return KA_OK;
}

/* The log's keys in order, from *segment and *at on; NULL at the end. */
static const ka__key *ka__key_next(const ka_keyring *k, uint32_t *segment, uint32_t *at)
{
    while (*segment != KA__NIL) {
        const struct ka__segment *s = k->segments[*segment];
        const ka__key *key = (const ka__key *)(const void *)(s->data + *at);
        if (*at < s->used) {
            *at += (uint32_t)ka__key_size(key->n);
            return key;
        }
        *segment = s->next;
        *at = 0;
    }
    return NULL;
}

/* Drop up to `most` expired keys from the log's front, and the segments that become empty. */
static void ka__keys_expire(ka_keyring *k, uint32_t now_s, int most)
{
    while (most-- > 0 && k->count > 0) {
        struct ka__segment *s = k->segments[k->front];
        if (k->front_at == s->used) {
            uint32_t next = s->next;
            ka__free(s);
            k->segments[k->front] = NULL;
            k->front = next;
            k->front_at = 0;
            continue;
        }
        ka__key *key = (ka__key *)(void *)(s->data + k->front_at);
        if (!ka__key_expired(key, now_s)) return;
        struct ka__shard *shard = ka__shard_of(k, key->digest);
        ka__slot_remove(shard, ka__slot_find(k, shard, key->digest));
        k->front_at += (uint32_t)ka__key_size(key->n);
        k->count--;
    }
}

/* Keep a digest with its ID. */
static int ka__key_put(ka_keyring *k, const unsigned char digest[32], ka_str id, uint32_t expires_s)
{
    struct ka__shard *shard = ka__shard_of(k, digest);
    size_t size = ka__key_size(id.n);
    int r = ka__shard_grow(shard);
    if (r < 0) return r;
    if (k->back == KA__NIL || k->segments[k->back]->used + size > KA__SEGMENT_BYTES) r = ka__segment_add(k);
    if (r < 0) return r;
    struct ka__segment *s = k->segments[k->back];
    ka__key *key = (ka__key *)(void *)(s->data + s->used);
    memcpy(key->digest, digest, 32);
    key->expires_s = expires_s;
    key->n = (uint16_t)id.n;
    memcpy((char *)key + offsetof(ka__key, id), id.p, id.n);
    shard->slots[ka__slot_find(k, shard, digest)] =
        (uint64_t)ka__hash_of(digest) << 32 | (k->back * (uint32_t)KA__UNITS + s->used / 8 + 1);
    s->used += (uint32_t)size;
    shard->used++;
    k->count++;
    return KA_OK;
}

static int ka__key_random(ka_keyring *k, unsigned char raw[KA_KEY_BYTES])
{
    struct ka__pool *pool = k->pool;
    if (!pool) return ka_random(raw, KA_KEY_BYTES);
    if (pool->left == 0) {
        int r = ka_random(pool->bytes, sizeof pool->bytes);
        if (r < 0) return r;
        pool->left = sizeof pool->bytes;
    }
    pool->left -= KA_KEY_BYTES;
    memcpy(raw, pool->bytes + pool->left, KA_KEY_BYTES);
    ka_wipe(pool->bytes + pool->left, KA_KEY_BYTES);
    return KA_OK;
}

/* When a key of now ends: rounded up, so that it is good for ttl_s seconds at least. */
static uint32_t ka__key_end(const ka_keyring *k, uint32_t now_s)
{
    return k->ttl_s ? now_s + (uint32_t)k->ttl_s + 1 : KA__FOR_EVER;
}

/* ---- journal: a file of frames, each with the keys of a commit, in the order of their making ----

       frame  { mark: 4 bytes | CRC-32C of what follows: u32 | bytes of the keys: u32 | keys }    numbers little-endian
       key    { bytes of the ID: u16 | end: u64, in seconds since 1970, 0: never | digest: 32 bytes | ID }

   The first frame is empty and tells that this is a journal. A frame is begun when the one before it has been
   synced. So a bad one with no good one behind it is the torn end of a commit that nobody was told of; with a
   good one behind it, or longer than any, it is damage. The mark can't be part of an ID that came by
   ka_auth_answer, so no ID can pass for a frame where a damaged file is searched for the next one. */

enum {
    KA__FRAME_HEAD = 12,
    KA__ENTRY_HEAD = 42,
    KA__FRAME_BYTES = KA__FRAME_HEAD + KA_BATCH * (KA__ENTRY_HEAD + KA_MAX_ID),
    KA__REWRITE_FRAME = 4096,          /* what a damaged byte may cost of a file that was written anew */
    KA__REWRITE_LEAST = 1 << 20,       /* a smaller file may be as dead as it likes */
    KA__REWRITE_AGAIN_MS = 1000        /* after one that failed */
};
static const unsigned char ka__frame_mark[4] = { 0xf5, 'k', 'a', 1 };
static const char ka__full[] = "server_full";

struct ka__frame { size_t n, keys; unsigned char bytes[KA__FRAME_BYTES]; };

struct ka__held { ka_event ev; char key[KA_KEY_TEXT]; };

struct ka__journal {
    ka__file   file;
    int64_t    size;                 /* bytes that are synced */
    int64_t    last;                 /* where their last frame begins, when it was opened */
    size_t     keys;                 /* in them */
    int64_t    epoch_s;              /* the keyring's first second, since 1970 */
    int64_t    retry_ms;
    bool       outlived;             /* keys in it end later than --ttl has it now */
    bool       stepped;              /* the wall clock was set: the ends in it are not those that were meant */
    bool       broken;               /* a sync failed: what is on disk isn't known until all was written anew (a later
                                        sync would succeed, and prove nothing) */
    int        read_error;
    ka_server *server;
    int        held_n;
    struct ka__held held[KA_BATCH];  /* answers until the commit */
    struct ka__frame pending;        /* the next commit */
    struct ka__frame scratch;        /* what is read, from scratch_at on, or written anew */
    int64_t    scratch_at;
    char       path[KA__PATH], path_new[KA__PATH], path_damaged[KA__PATH];
};

typedef struct { const unsigned char *digest; uint64_t end_s; ka_str id; } ka__entry;

/* Take the next key off a frame; false at its end, or if it is malformed. */
static bool ka__entry_next(const unsigned char **p, const unsigned char *end, ka__entry *e)
{
    if (end - *p < KA__ENTRY_HEAD) return false;
    e->id.n = (size_t)ka__get_le(*p, 2);
    e->end_s = ka__get_le(*p + 2, 8);
    e->digest = *p + 10;
    e->id.p = (const char *)*p + KA__ENTRY_HEAD;
    if (e->id.n == 0 || e->id.n > KA_MAX_ID || (size_t)(end - *p) < KA__ENTRY_HEAD + e->id.n) return false;
    *p += KA__ENTRY_HEAD + e->id.n;
    return true;
}

static void ka__frame_begin(struct ka__frame *f)
{
    f->n = KA__FRAME_HEAD;
    f->keys = 0;
}

static void ka__frame_add(struct ka__frame *f, int64_t epoch_s, const unsigned char digest[32], ka_str id, uint32_t end_s)
{
    unsigned char *p = f->bytes + f->n;
    ka__put_le(p, 2, id.n);
    ka__put_le(p + 2, 8, end_s == KA__FOR_EVER ? 0 : (uint64_t)(epoch_s + end_s));
    memcpy(p + 10, digest, 32);
    memcpy(p + KA__ENTRY_HEAD, id.p, id.n);
    f->n += KA__ENTRY_HEAD + id.n;
    f->keys++;
}

/* Write a frame at *at, which is moved behind it. */
static int ka__frame_write(struct ka__frame *f, ka__file file, int64_t *at)
{
    memcpy(f->bytes, ka__frame_mark, 4);
    ka__put_le(f->bytes + 8, 4, f->n - KA__FRAME_HEAD);
    ka__put_le(f->bytes + 4, 4, ka__crc32c(f->bytes + 8, f->n - 8));
    int r = ka__file_write(file, f->bytes, f->n, *at);
    if (r == KA_OK) *at += (int64_t)f->n;
    return r;
}

/* n bytes of the file at an offset; NULL behind its end, or after an error, which is kept. */
static const unsigned char *ka__journal_view(struct ka__journal *j, int64_t at, size_t n)
{
    struct ka__frame *s = &j->scratch;
    if (at < j->scratch_at || at + (int64_t)n > j->scratch_at + (int64_t)s->n) {
        ptrdiff_t got = ka__file_read(j->file, s->bytes, KA__FRAME_BYTES, at);
        if (got < 0) j->read_error = (int)got;
        j->scratch_at = at;
        s->n = got > 0 ? (size_t)got : 0;
    }
    return n <= s->n - (size_t)(at - j->scratch_at) ? s->bytes + (at - j->scratch_at) : NULL;
}

/* The bytes of a good frame at an offset, *n of them; NULL: there is none. */
static const unsigned char *ka__frame_at(struct ka__journal *j, int64_t at, size_t *n)
{
    const unsigned char *f = ka__journal_view(j, at, KA__FRAME_HEAD), *p;
    ka__entry e;
    if (!f || memcmp(f, ka__frame_mark, 4) != 0 || ka__get_le(f + 8, 4) > KA__FRAME_BYTES - KA__FRAME_HEAD) return NULL;
    *n = KA__FRAME_HEAD + (size_t)ka__get_le(f + 8, 4);
    f = ka__journal_view(j, at, *n);
    if (!f || ka__get_le(f + 4, 4) != ka__crc32c(f + 8, *n - 8)) return NULL;
    for (p = f + KA__FRAME_HEAD; ka__entry_next(&p, f + *n, &e); ) {}
    return p == f + *n ? f : NULL;
}

/* Keep the keys of a frame, but those that have ended or are there already. None lives longer than a key of now:
   after --ttl was made shorter the log would not be in the order of its ends. */
static int ka__frame_keep(ka_keyring *k, const unsigned char *f, size_t n, uint32_t now_s)
{
    struct ka__journal *j = k->journal;
    const unsigned char *p = f + KA__FRAME_HEAD;
    uint32_t last = ka__key_end(k, now_s);
    int r = KA_OK;
    for (ka__entry e; r == KA_OK && ka__entry_next(&p, f + n, &e); ) {
        struct ka__shard *shard = ka__shard_of(k, e.digest);
        uint64_t now = (uint64_t)j->epoch_s + now_s, end = e.end_s ? e.end_s - (uint64_t)j->epoch_s : last;
        j->keys++;
        if (e.end_s && e.end_s <= now) continue;
        if (shard->capacity && shard->slots[ka__slot_find(k, shard, e.digest)]) continue;
        j->outlived = j->outlived || end > last || (!e.end_s && k->ttl_s);
        r = ka__key_put(k, e.digest, e.id, end < last ? (uint32_t)end : last);
    }
    return r;
}

/* The wall clock may be set while this runs, and the other one stops while a machine sleeps: then what is on disk must
   be told anew. A frame's keys are all of one epoch. */
static void ka__journal_clock(ka_keyring *k)
{
    struct ka__journal *j = k->journal;
    int64_t epoch_s = (ka_wall_us() / 1000 - (ka_now_ms() - k->epoch_ms)) / 1000;
    if (j->pending.keys || (epoch_s >= j->epoch_s - 1 && epoch_s <= j->epoch_s + 1)) return;
    j->epoch_s = epoch_s;
    j->stepped = k->ttl_s != 0;
}

/* Write the living keys into a new file, and put that in the place of the old. */
static int ka__journal_rewrite(ka_keyring *k, int64_t now_ms)
{
    struct ka__journal *j = k->journal;
    uint32_t now_s = ka__key_clock(k, now_ms), segment = k->front, place = k->front_at;
    struct ka__frame *f = &j->scratch;
    int64_t size = 0;
    size_t keys = 0;
    ka__file fresh;
    int r = ka__file_open(&fresh, j->path_new, KA__FRESH);
    if (r < 0) return r;
    ka__frame_begin(f);
    r = ka__frame_write(f, fresh, &size);
    for (const ka__key *key; r == KA_OK && (key = ka__key_next(k, &segment, &place)) != NULL; ) {
        if (ka__key_expired(key, now_s)) continue;
        ka__frame_add(f, j->epoch_s, key->digest, ka__key_id(key), key->expires_s);
        keys++;
        if (f->n < KA__REWRITE_FRAME) continue;
        r = ka__frame_write(f, fresh, &size);
        ka__frame_begin(f);
    }
    if (r == KA_OK && f->keys) r = ka__frame_write(f, fresh, &size);
    r = ka__file_supersede(&j->file, fresh, j->path_new, j->path, r);
    if (r < 0) {
        j->broken = j->broken || j->file == KA__NO_FILE;
        return r;
    }
    j->size = size;
    j->keys = keys;
    j->stepped = false;
    r = ka__folder_sync(j->path);
    j->broken = r < 0;
    return r;
}

static int ka__journal_failed(ka_keyring *k, int error)
{
    k->journal_error = error;
    k->journal_os_error = ka__os_code();
    return error;
}

/* Before a commit: is the file fit to be appended to? Written anew if it must be, or if more than half is dead. */
static int ka__journal_ready(ka_keyring *k, int64_t now_ms)
{
    struct ka__journal *j = k->journal;
    if (j->file == KA__NO_FILE) return k->journal_error;      /* Windows; another process may have it now */
    bool due = j->broken || j->stepped || (j->size > KA__REWRITE_LEAST && j->keys / 2 > k->count);
    if (due && now_ms >= j->retry_ms) {
        int64_t begun = ka_now_ms();
        int r = ka__journal_rewrite(k, now_ms);
        if (r < 0) j->retry_ms = now_ms + KA__REWRITE_AGAIN_MS + 10 * (ka_now_ms() - begun);      /* logins go on meanwhile */
        if (r < 0 && j->broken) return ka__journal_failed(k, r);
    }
    return j->broken ? k->journal_error : KA_OK;
}

/* Append the frame and sync it. One that was written only in part is cut off again, so that the next can take its place. */
static int ka__journal_append(ka_keyring *k)
{
    struct ka__journal *j = k->journal;
    int64_t end = j->size;
    int r = ka__frame_write(&j->pending, j->file, &end);
    if (r < 0) {
        ka__journal_failed(k, r);
        j->broken = ka__file_cut(j->file, j->size) < 0;
        return r;
    }
    r = ka__file_sync(j->file);
    j->broken = r < 0;
    if (j->broken) return ka__journal_failed(k, r);
    j->size = end;
    k->journal_error = k->journal_os_error = 0;
    return KA_OK;
}

/* Put the keys that wait on disk, all or none; only then can they be found. */
static int ka__journal_commit(ka_keyring *k, int64_t now_ms)
{
    struct ka__journal *j = k->journal;
    if (j->pending.keys == 0) return KA_OK;
    int r = ka__journal_ready(k, now_ms);
    if (r == KA_OK) r = ka__journal_append(k);
    if (r == KA_OK) r = ka__frame_keep(k, j->pending.bytes, j->pending.n, ka__key_clock(k, now_ms));
    ka__frame_begin(&j->pending);
    return r;
}

/* Commit, and give the answers that waited for it. */
static void ka__journal_settle(void *keyring)
{
    ka_keyring *k = keyring;
    struct ka__journal *j = k->journal;
    if (j->held_n == 0) return;
    bool kept = ka__journal_commit(k, ka_now_ms()) == KA_OK;
    for (int i = 0; i < j->held_n; i++) {
        struct ka__held *h = &j->held[i];
        if (kept) ka_reply(j->server, &h->ev, 200, NULL, h->key, KA_KEY_TEXT);
        else ka_reply(j->server, &h->ev, 503, NULL, ka__full, sizeof ka__full - 1);
    }
    ka_wipe(j->held, (size_t)j->held_n * sizeof *j->held);
    j->held_n = 0;
}

int ka_journal_group(ka_keyring *k, ka_server *s)
{
    if (!k->journal || !s) return KA_EINVAL;
    k->journal->server = s;
    ka_at_batch_end(s, ka__journal_settle, k);
    return KA_OK;
}

static void ka__journal_close(struct ka__journal *j)
{
    if (!j) return;
    ka__file_close(j->file);
    ka_wipe(j->held, sizeof j->held);
    ka__free(j);
}

/* Where the next good frame begins, or -1. */
static int64_t ka__frame_search(struct ka__journal *j, int64_t at, int64_t size)
{
    size_t n;
    while (at < size && !j->read_error && !ka__frame_at(j, at, &n)) at++;
    return at < size ? at : -1;
}

/* Read the frames up to the end, or to where the end is torn, and set j->size to that. */
static int ka__journal_replay(ka_keyring *k, int64_t size, bool salvage, ka_journal_report *report)
{
    struct ka__journal *j = k->journal;
    size_t n;
    while (j->size < size) {
        const unsigned char *f = ka__frame_at(j, j->size, &n);
        if (f) {
            int r = ka__frame_keep(k, f, n, 0);
            if (r < 0) return r;
            j->last = j->size;
            j->size += (int64_t)n;
            continue;
        }
        int64_t next = ka__frame_search(j, j->size + 1, size);
        if (j->read_error) return j->read_error;
        if (next < 0 && (j->size == 0 || size - j->size <= KA__FRAME_BYTES)) break;
        if (next < 0) next = size;      /* no commit is that long */
        if (report->damaged == 0) report->damaged_at = j->size;
        report->damaged += next - j->size;
        if (!salvage) return KA_EDAMAGED;
        j->size = next;
    }
    report->cut_at = j->size;
    report->cut = size - j->size;
    return KA_OK;
}

/* Cut off a torn end. And write the last frame once more: if its sync failed in a process before this one, it can be
   read and yet not be on disk, and the next sync would not put it there. */
static int ka__journal_mend(struct ka__journal *j, bool torn)
{
    size_t n = (size_t)(j->size - j->last);
    const unsigned char *f = ka__journal_view(j, j->last, n);
    if (!f) return j->read_error ? j->read_error : KA_EDAMAGED;
    int r = torn ? ka__file_cut(j->file, j->size) : KA_OK;
    return r == KA_OK ? ka__file_write(j->file, f, n, j->last) : r;
}

/* Read the file and make it fit to be appended to: a new one, one that was damaged, and one with keys that are over
   or outlive what --ttl is now, by writing it anew. */
static int ka__journal_recover(ka_keyring *k, bool salvage, ka_journal_report *report)
{
    struct ka__journal *j = k->journal;
    int64_t size = ka__file_size(j->file);
    int r = size < 0 ? (int)size : ka__journal_replay(k, size, salvage, report);
    if (r == KA_OK && size > 0 && j->size == 0) r = KA_ESYNTAX;
    if (r == KA_OK && size > 0 && report->damaged == 0) r = ka__journal_mend(j, report->cut > 0);
    if (r == KA_OK) r = ka__file_sync(j->file);
    if (r == KA_OK) r = ka__folder_sync(j->path);
    if (r == KA_OK && report->damaged) r = ka__file_link(j->path, j->path_damaged);
    if (r < 0 || (size > 0 && report->damaged == 0 && !j->outlived && j->keys == k->count)) return r;
    r = ka__journal_rewrite(k, k->epoch_ms);
    if (r < 0 && report->damaged && !j->broken) ka__file_remove(j->path_damaged);
    return size == 0 || report->damaged || j->broken ? r : KA_OK;      /* else it was a matter of room, and can wait */
}

int ka_journal_open(ka_keyring *k, const char *path, bool salvage, ka_journal_report *report)
{
    memset(report, 0, sizeof *report);
    int r = ka__os_start();
    if (r < 0) return r;
    struct ka__journal *j = k->journal = ka__alloc_zeroed(1, sizeof *j);
    if (!j) return KA_ENOMEM;
    j->file = KA__NO_FILE;
    if (strlen(path) + sizeof ".damaged" > KA__PATH) return KA_EINVAL;
    snprintf(j->path, KA__PATH, "%s", path);
    snprintf(j->path_new, KA__PATH, "%s.new", path);
    snprintf(j->path_damaged, KA__PATH, "%s.damaged", path);
    int64_t wall_ms = ka_wall_us() / 1000;
    k->epoch_ms = ka_now_ms() - wall_ms % 1000;      /* so that a second ends when one of the wall clock does */
    j->epoch_s = wall_ms / 1000;
    ka__frame_begin(&j->pending);
    r = ka__file_open(&j->file, path, KA__KEEP);
    if (r == KA_OK) r = ka__journal_recover(k, salvage, report);
    report->os_error = ka__file_code(r);
    return r;
}

/* Make a key; keep its digest, or with a journal have that wait for the next commit. */
static int ka__key_make(ka_keyring *k, ka_str id, int64_t now_ms, char key[KA_KEY_TEXT])
{
    unsigned char raw[KA_KEY_BYTES], digest[32];
    if (id.n == 0 || id.n > KA_MAX_ID) return KA_EINVAL;
    if (k->back == KA__NIL && !k->journal) k->epoch_ms = now_ms;
    uint32_t now_s = ka__key_clock(k, now_ms);
    ka__keys_expire(k, now_s, KA__EXPIRE_AT_ONCE);
    if (k->count + (k->journal ? k->journal->pending.keys : 0) >= k->max_keys) return KA_EFULL;
    int r = ka__key_random(k, raw);
    if (r < 0) return r;
    ka_sha256(digest, raw, sizeof raw);
    if (k->journal) {
        ka__journal_clock(k);
        ka__frame_add(&k->journal->pending, k->journal->epoch_s, digest, id, ka__key_end(k, now_s));
    } else {
        r = ka__key_put(k, digest, id, ka__key_end(k, now_s));
    }
    if (r == KA_OK) ka_b64_encode(key, KA_KEY_TEXT, raw, sizeof raw);
    ka_wipe(raw, sizeof raw);
    return r;
}

int ka_keyring_issue(ka_keyring *k, ka_str id, int64_t now_ms, char key[KA_KEY_TEXT])
{
    if (k->redis) return KA_EINVAL;
    if (k->journal) ka__journal_settle(k);      /* if others wait, this one's outcome shall not be theirs */
    int r = ka__key_make(k, id, now_ms, key);
    if (r == KA_OK && k->journal && (r = ka__journal_commit(k, now_ms)) < 0) ka_wipe(key, KA_KEY_TEXT);
    return r;
}

/* Make a key whose answer waits for the commit. */
static int ka__journal_hold(ka_keyring *k, ka_str id, const ka_event *ev)
{
    struct ka__journal *j = k->journal;
    struct ka__held *h = &j->held[j->held_n];
    int r = ka__key_make(k, id, ev->now_ms, h->key);
    if (r < 0) return r;
    h->ev = *ev;
    if (++j->held_n == KA_BATCH) ka__journal_settle(k);
    return KA_OK;
}

/* False if it is malformed. */
static bool ka__key_digest(unsigned char digest[32], ka_str key)
{
    unsigned char raw[KA_KEY_BYTES];
    bool key_like = key.n == KA_KEY_TEXT && ka_b64_decode(raw, sizeof raw, key.p, key.n) == KA_KEY_BYTES;
    if (key_like) ka_sha256(digest, raw, sizeof raw);
    ka_wipe(raw, sizeof raw);
    return key_like;
}

ka_str ka_keyring_find(const ka_keyring *k, ka_str key, int64_t now_ms)
{
    const ka_str none = { NULL, 0 };
    unsigned char digest[32];
    if (!ka__key_digest(digest, key)) return none;
    const struct ka__shard *shard = ka__shard_of(k, digest);
    if (shard->capacity == 0) return none;
    uint64_t slot = shard->slots[ka__slot_find(k, shard, digest)];
    if (slot == 0) return none;
    const ka__key *found = ka__key_at(k, (uint32_t)slot);
    if (ka__key_expired(found, ka__key_clock(k, now_ms))) return none;
    return ka__key_id(found);
}

static int ka__answer_text(char *text, size_t *n, int status, const char *what)
{
    *n = strlen(what);
    memcpy(text, what, *n);
    return status;
}

/* Only bytes from space to tilde? Eight at a time: one below borrows, one above has its top bit set, or gets it. */
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

/* ---- keys in Redis ---- */

static const char ka__later[] = "try_later";

/* What the answer needs when Redis has replied: what ka_reply takes of the event, and of a fresh key its text. */
typedef struct { ka_redis *redis; uint64_t conn; uint32_t seq; uint8_t flags; char key[KA_KEY_TEXT]; } ka__asked;
_Static_assert(sizeof(ka__asked) <= KA_REDIS_NOTE, "a command's note has it");

int ka_keyring_redis(ka_keyring *k, ka_redis *redis, const char *prefix)
{
    if (k->journal || !redis->server || redis->on_push || strlen(prefix) > KA_MAX_ID) return KA_EINVAL;
    k->redis = redis;
    k->prefix = prefix;
    return KA_OK;
}

/* Answer, and wipe the note's copy. */
static void ka__asked_answer(ka__asked *a, int status, const char *p, size_t n)
{
    ka_event ev = { .kind = KA_REQUEST, .conn = a->conn, .seq = a->seq, .flags = a->flags };
    ka_reply(a->redis->server, &ev, status, NULL, p, n);
    ka_wipe(a, sizeof *a);
}

static void ka__asked_key(void *arg, const void *note, const ka_resp *reply)
{
    ka__asked a;
    (void)arg;
    memcpy(&a, note, sizeof a);
    bool kept = reply && reply->kind == KA_RESP_STRING && ka_is(reply->text, "OK");
    if (reply) ka__redis_error(a.redis, kept ? ka__text("") : reply->kind == KA_RESP_ERROR ? reply->text : ka__text("it does not say OK"));
    if (kept) ka__asked_answer(&a, 200, a.key, KA_KEY_TEXT);
    else ka__asked_answer(&a, 503, ka__later, sizeof ka__later - 1);
}

static void ka__asked_id(void *arg, const void *note, const ka_resp *reply)
{
    ka__asked a;
    (void)arg;
    memcpy(&a, note, sizeof a);
    ka_str id = reply && reply->kind == KA_RESP_STRING ? reply->text : (ka_str){ NULL, 0 };
    if (id.n > 0 && id.n <= KA_MAX_ID && ka__printable(id.p, id.n)) ka__asked_answer(&a, 200, id.p, id.n);
    else if (reply && reply->kind == KA_RESP_NIL) ka__asked_answer(&a, 403, "wrong_key", 9);
    else ka__asked_answer(&a, 503, ka__later, sizeof ka__later - 1);
}

/* Have Redis keep the digest of a key with its ID, or without one, tell whose it is. The answer leaves when it has.
     returns    0, or the status of the answer that can be given now */
static int ka__redis_ask(const ka_keyring *k, const ka_event *ev, ka_str key, ka_str id, char *text, size_t *n)
{
    size_t prefix_n = strlen(k->prefix);
    unsigned char digest[32];
    char name[KA_MAX_ID + 2 * sizeof digest], ttl[24];
    if (!ka__key_digest(digest, key)) return ka__answer_text(text, n, 403, "wrong_key");
    memcpy(name, k->prefix, prefix_n);
    ka_hex_encode(name + prefix_n, digest, sizeof digest);
    snprintf(ttl, sizeof ttl, "%lld", (long long)k->ttl_s);
    ka__asked a = { .redis = k->redis, .conn = ev->conn, .seq = ev->seq, .flags = ev->flags };
    memcpy(a.key, key.p, KA_KEY_TEXT);
    const ka_str at = { name, prefix_n + 2 * sizeof digest }, get[] = { ka__text("GET"), at },
                 set[] = { ka__text("SET"), at, id, ka__text("NX"), ka__text("EX"), ka__text(ttl) };
    int r = id.n ? ka_redis_command(k->redis, set, k->ttl_s ? 6 : 4, ka__asked_key, &a, sizeof a)
                 : ka_redis_command(k->redis, get, 2, ka__asked_id, &a, sizeof a);
    ka_wipe(&a, sizeof a);
    *n = 0;
    return r < 0 ? ka__answer_text(text, n, 503, ka__later) : 0;
}

/* A fresh key, for Redis to keep. */
static int ka__redis_issue(ka_keyring *k, const ka_event *ev, ka_str id, char *text, size_t *n)
{
    unsigned char raw[KA_KEY_BYTES];
    char key[KA_KEY_TEXT];
    if (ka__key_random(k, raw) < 0) return ka__answer_text(text, n, 503, ka__later);
    ka_b64_encode(key, sizeof key, raw, sizeof raw);
    int status = ka__redis_ask(k, ev, (ka_str){ key, sizeof key }, id, text, n);
    ka_wipe(raw, sizeof raw);
    ka_wipe(key, sizeof key);
    return status;
}

/* ---- the protocol ---- */

static int ka__answer_ask(ka_keyring *k, ka_str value, const ka_event *ev, char *text, size_t *n)
{
    char id[KA_MAX_ID];
    bool grouped = k->journal && k->journal->server;
    ptrdiff_t size = ka_percent_decode(id, sizeof id, value);
    if (size <= 0) return ka__answer_text(text, n, 400, "wrong_query");
    if (!ka__printable(id, (size_t)size)) return ka__answer_text(text, n, 400, "wrong_query");
    ka_str whose = { id, (size_t)size };
    if (k->redis) return ka__redis_issue(k, ev, whose, text, n);
    int r = grouped ? ka__journal_hold(k, whose, ev) : ka_keyring_issue(k, whose, ev->now_ms, text);
    if (r < 0) return ka__answer_text(text, n, 503, ka__full);
    *n = grouped ? 0 : KA_KEY_TEXT;
    return grouped ? 0 : 200;
}

static int ka__answer_id(const ka_keyring *k, ka_str key, int64_t now_ms, char *text, size_t *n)
{
    ka_str id = ka_keyring_find(k, key, now_ms);
    if (!id.p) return ka__answer_text(text, n, 403, "wrong_key");
    memcpy(text, id.p, *n = id.n);
    return 200;
}

static int ka__answer_login(ka_keyring *k, ka_str value, const ka_event *ev, char *text, size_t *n)
{
    char key[KA_KEY_TEXT];
    if (value.n == 0) return ka__answer_text(text, n, 400, "wrong_query");
    ptrdiff_t size = ka_percent_decode(key, sizeof key, value);      /* KA_E...: malformed, or too long for a key */
    ka_str whose = { key, size > 0 ? (size_t)size : 0 }, none = { NULL, 0 };
    int status = k->redis ? ka__redis_ask(k, ev, whose, none, text, n) : ka__answer_id(k, whose, ev->now_ms, text, n);
    ka_wipe(key, sizeof key);
    return status;
}

int ka_auth_answer(ka_keyring *k, const ka_event *ev, char text[KA_MAX_ANSWER], size_t *n)
{
    ka_str rest = ev->body, name, value, other;
    if (ev->error) return ka__answer_text(text, n, ev->error, "wrong_query");
    if (!ka_is(ev->method, "POST")) return ka__answer_text(text, n, 405, "wrong_query");
    if (ka_form_next(&rest, &name, &value) == KA_OK && ka_form_next(&rest, &other, &other) == KA_ENOTFOUND) {
        if (ka_is(name, "ask_key")) return ka__answer_ask(k, value, ev, text, n);
        if (ka_is(name, "login")) return ka__answer_login(k, value, ev, text, n);
    }
    return ka__answer_text(text, n, 400, "wrong_query");
}

/* ================================================================================================
   9 log

   A file of lines that others may rotate: move away, remove, or copy and cut. So before each commit it is looked
   where the path leads and where the file ends. A commit is one write at that end and one sync; one that failed is
   cut off again, and nothing is written until that is done, so that the file never has a line of which the opposite
   was told. Only a crash can leave part of a commit, and the next ka_log_open cuts off what isn't a line. */

enum {
    KA__LOG_PIECE = 4096,              /* of the file, read at a time in search of its last line */
    KA__LOG_LEAST = 4096,
    KA__LOG_KEPT = 1 << 20             /* more room than this isn't kept from commit to commit */
};

struct ka_log {
    ka__file    file;                  /* KA__NO_FILE: it was moved away, or not replaced, and none could be opened so far */
    int64_t     size;                  /* bytes that are told of, or were there before */
    bool        failed;                /* there may be more than that: a commit's that failed */
    bool        named;                 /* its name is on disk, too */
    const char *begins;
    char       *pending;
    size_t      n, cap;
    char        path[KA__PATH_MAX + 1];
};

/* Where the unfinished line at the end begins, looked for backwards; size: there is none. */
static int64_t ka__log_unfinished(const ka_log *log, int64_t size)
{
    char piece[KA__LOG_PIECE];
    for (int64_t at = size; at > 0; ) {
        ptrdiff_t n = at < KA__LOG_PIECE ? (ptrdiff_t)at : KA__LOG_PIECE, got = ka__file_read(log->file, piece, (size_t)n, at - n);
        if (got < n) return got < 0 ? got : KA_EINUSE;      /* somebody cuts it at this moment */
        at -= n;
        while (n > 0 && piece[n - 1] != '\n') n--;
        if (n > 0) return at + n;
    }
    return 0;
}

/* See where the file ends, having cut off an unfinished line: one of ours, or none is. */
static int ka__log_mend(ka_log *log, int64_t *cut)
{
    char head[KA__LOG_PIECE];
    int64_t size = ka__file_size(log->file), end = size < 0 ? size : ka__log_unfinished(log, size);
    if (end < 0) return (int)end;
    size_t n = strlen(log->begins);
    if (n > sizeof head) n = sizeof head;
    if (size - end < (int64_t)n) n = (size_t)(size - end);      /* it may end within what it begins with */
    ptrdiff_t got = ka__file_read(log->file, head, n, end);
    if (got < (ptrdiff_t)n) return got < 0 ? (int)got : KA_EINUSE;
    if (memcmp(head, log->begins, n) != 0) return KA_ESYNTAX;
    int r = end < size ? ka__file_cut(log->file, end) : KA_OK;
    if (r < 0) return r;
    log->size = end;
    *cut = size - end;
    return KA_OK;
}

static int ka__log_reopen(ka_log *log, int64_t *cut)
{
    ka__file_close(log->file);      /* first: on Windows one that was removed is in the way until then */
    log->named = false;
    int r = ka__file_open(&log->file, log->path, KA__APPEND);
    if (r == KA_OK) r = ka__log_mend(log, cut);
    if (r == KA_OK) return r;
    int code = ka__os_code();
    ka__file_close(log->file);
    log->file = KA__NO_FILE;
    ka__os_code_set(code);
    return r;
}

int ka_log_open(ka_log **log, const char *path, const char *begins, int64_t *cut, int *os_error)
{
    *log = NULL;
    *cut = 0;
    *os_error = 0;
    if (strlen(path) > KA__PATH_MAX) return KA_EINVAL;
    ka_log *l = ka__alloc_zeroed(1, sizeof *l);
    if (!l) return KA_ENOMEM;
    snprintf(l->path, sizeof l->path, "%s", path);
    l->begins = begins;
    l->file = KA__NO_FILE;
    int r = ka__log_reopen(l, cut);
    if (r == KA_OK) return *log = l, KA_OK;
    *os_error = ka__file_code(r);
    ka__free(l);
    return r;
}

ptrdiff_t ka_log_add(ka_log *log, const void *line, size_t n)
{
    if (n >= PTRDIFF_MAX - log->n) return KA_ENOMEM;
    bool ended = n > 0 && ((const char *)line)[n - 1] == '\n';
    size_t need = log->n + n + !ended;
    if (need > log->cap) {
        size_t cap = log->cap ? 2 * log->cap : KA__LOG_LEAST;
        if (cap < need) cap = need;
        char *p = ka__resize(log->pending, cap, 1);
        if (!p) return KA_ENOMEM;
        log->pending = p;
        log->cap = cap;
    }
    if (n) memcpy(log->pending + log->n, line, n);
    if (!ended) log->pending[need - 1] = '\n';
    log->n = need;
    return (ptrdiff_t)need;
}

/* Take back what a commit wrote that failed. Synced, since a crash could bring it back. */
static int ka__log_cut(ka_log *log)
{
    int64_t size = ka__file_size(log->file);
    int r = size < 0 ? (int)size : size > log->size ? ka__file_cut(log->file, log->size) : KA_OK;
    if (r == KA_OK) r = ka__file_sync(log->file);
    log->failed = r < 0;
    return r;
}

/* Before a commit: have the file to which the path leads now, know its end, and have its name on disk. */
static int ka__log_ready(ka_log *log)
{
    int64_t size, cut;
    int r = log->failed ? ka__log_cut(log) : KA_OK;
    if (r < 0) return r;
    r = log->file != KA__NO_FILE ? ka__file_there(log->file, log->path) : KA_ENOTFOUND;
    if (r == KA_ENOTFOUND) r = ka__log_reopen(log, &cut);
    if (r < 0) return r;
    size = ka__file_size(log->file);
    if (size != log->size) r = size < 0 ? (int)size : ka__log_mend(log, &cut);
    if (r == KA_OK && !log->named) r = ka__folder_sync(log->path);
    log->named = log->named || r == KA_OK;
    return r;
}

static int ka__log_append(ka_log *log)
{
    int r = ka__file_write(log->file, log->pending, log->n, KA__END);      /* not log->size: it may have been cut by now */
    if (r == KA_OK) r = ka__file_sync(log->file);
    if (r == KA_OK) {
        log->size += (int64_t)log->n;
        return KA_OK;
    }
    int code = ka__os_code();
    ka__log_cut(log);
    ka__os_code_set(code);
    return r;
}

static void ka__log_drop(ka_log *log)
{
    log->n = 0;
    if (log->cap <= KA__LOG_KEPT) return;
    ka__free(log->pending);
    log->pending = NULL;
    log->cap = 0;
}

int ka_log_commit(ka_log *log, int *os_error)
{
    *os_error = 0;
    if (log->n == 0) return KA_OK;
    int r = ka__log_ready(log);
    if (r == KA_OK) r = ka__log_append(log);
    *os_error = ka__file_code(r);
    ka__log_drop(log);
    return r;
}

/* Write the lines into a new file, and put that in the place of the old. */
static int ka__log_rewrite(ka_log *log, const void *p, size_t n)
{
    char path_new[KA__PATH];
    ka__file fresh;
    snprintf(path_new, sizeof path_new, "%s.new", log->path);
    int r = ka__file_open(&fresh, path_new, KA__FRESH | KA__APPEND);
    if (r < 0) return r;
    r = ka__file_supersede(&log->file, fresh, path_new, log->path, ka__file_write(fresh, p, n, KA__END));
    if (r < 0) return r;
    log->size = (int64_t)n;
    r = ka__folder_sync(log->path);
    log->named = r == KA_OK;
    return r;
}

int ka_log_replace(ka_log *log, const void *p, size_t n, int *os_error)
{
    *os_error = 0;
    if (n > 0 && ((const char *)p)[n - 1] != '\n') return KA_EINVAL;
    int r = ka__log_ready(log);      /* what the path leads to now is ours, or becomes so */
    if (r == KA_OK) r = ka__log_rewrite(log, p, n);
    *os_error = ka__file_code(r);
    ka__log_drop(log);
    return r;
}

void ka_log_close(ka_log *log)
{
    if (!log) return;
    ka__file_close(log->file);
    ka__free(log->pending);
    ka__free(log);
}

/* ================================================================================================
   10 client

   One request at a time on one connection, blocking, each attempt under a deadline. */

static void ka__client_drop(ka_client *c)
{
    if (c->open) ka__sock_close((ka__sock)c->sock);
    c->open = false;
}

void ka_client_close(ka_client *c)
{
    ka__client_drop(c);
    ka_wipe(c->buf, sizeof c->buf);      /* a key came by */
}

/* Note the system's code, close, and pass an error on. */
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
    while (r == KA_EAGAIN && (left = ka__left(until)) > 0) r = ka__sock_wait((ka__sock)c->sock, want, left);
    return r == KA_EAGAIN ? KA_ETIME : r;
}

static int ka__client_connect(ka_client *c, int64_t until)
{
    ka__sock s;
    if (c->open) return KA_OK;
    int r = ka__sock_connect(NULL, c->ip, c->port, &s);
    if (r == KA_EADDR || r == KA_EINUSE) r = KA_EOFFLINE;      /* no port is free here: that passes */
    if (r < 0 && r != KA_EAGAIN) return ka__client_failed(c, r);
    c->sock = s;
    c->open = true;
    if (r == KA_EAGAIN) r = ka__client_wait(c, KA__OUT, until);
    if (r == KA_OK) r = ka__sock_connected(s);
    return r < 0 ? ka__client_failed(c, r) : KA_OK;
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

/* More bytes of the answer, behind the n in buf: how many; 0 at the end of the connection; or KA_E... */
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

/* Read the head of an answer, passing over interim ones (RFC 9110 s.15.2), to the front of buf.
     returns    its bytes; *n is how many are in buf */
static ptrdiff_t ka__client_head(ka_client *c, ka_http *h, size_t *n, int64_t until)
{
    for (*n = 0; ; ) {
        ptrdiff_t head = ka_http_response(h, c->buf, *n);
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

/* Read the body (RFC 9112 s.6.3) at c->buf + head, of which n - head bytes are here. Returns its length. */
static ptrdiff_t ka__client_body(ka_client *c, ka_http *h, size_t head, size_t n, int64_t until)
{
    ka_chunked chunked = { .room = KA_MAX_BODY };
    bool to_end = !h->chunked && h->length < 0, empty = h->status == 204 || h->status == 304;
    size_t body = 0, used;      /* decoded or taken so far, from head on; n is where received bytes end */
    for (;;) {
        if (h->chunked && !empty) {
            ptrdiff_t got = ka_chunked_decode(&chunked, c->buf + head + body, n - head - body, &used);
            if (got < 0 || head + body + used < n) return ka__client_failed(c, KA_EPROTO);
            body += (size_t)got;
            n = head + body;
            if (chunked.done) return (ptrdiff_t)body;
        } else {
            body = n - head;
            if (empty ? body > 0 : h->length >= 0 && body > (uint64_t)h->length) return ka__client_failed(c, KA_EPROTO);
            if (empty || body == (uint64_t)h->length) return (ptrdiff_t)body;
        }
        ptrdiff_t got = ka__client_recv(c, n, until);
        if (got == 0 && to_end) return (ptrdiff_t)body;
        if (got <= 0) return got < 0 ? got : ka__client_failed(c, KA_EOFFLINE);
        n += (size_t)got;
    }
}

static int ka__client_attempt(ka_client *c, const char *body, size_t size, ka_str *answer, int64_t until)
{
    ka_http h;
    size_t n;
    int head_n = snprintf(c->buf, KA_MAX_HEAD, "POST / HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
                          c->ip, c->port, c->type ? c->type : "application/x-www-form-urlencoded", (int)size);
    if (head_n < 0 || head_n >= KA_MAX_HEAD) return KA_EINVAL;
    int r = ka__client_connect(c, until);
    if (r < 0) return r;
    if (size) memcpy(c->buf + head_n, body, size);
    r = ka__client_send(c, (size_t)head_n + size, until);
    if (r < 0) return r;
    ptrdiff_t head = ka__client_head(c, &h, &n, until);
    if (head < 0) return (int)head;
    ptrdiff_t length = ka__client_body(c, &h, (size_t)head, n, until);
    if (length < 0) return (int)length;
    if (!h.keep_alive || (h.length < 0 && !h.chunked)) ka__client_drop(c);
    *answer = (ka_str){ c->buf + head, (size_t)length };
    return h.status;
}

/* May it be sent as a field's value (RFC 9110 s.5.5)? Its length is seen when the head is made. */
static bool ka__client_type_ok(const char *type)
{
    const char *p = type;
    while (ka__in(KA__VALUE, *p)) p++;
    return p > type && *p == 0 && ka__in(KA__TARGET, *type);
}

int ka_client_post(ka_client *c, const char *body, size_t n, ka_str *answer)
{
    struct sockaddr_in a;
    int64_t end = c->give_up_ms > 0 ? ka_now_ms() + c->give_up_ms : INT64_MAX;
    if (n > KA_MAX_BODY || c->port == 0 || !ka__address(c->ip, c->port, &a)) return KA_EINVAL;
    if (c->type && !ka__client_type_ok(c->type)) return KA_EINVAL;
    int r = ka__os_start();
    if (r < 0) return ka__client_failed(c, r);
    for (int misses = 1; ; misses++) {
        int delay = KA_RETRY_FIRST_MS + (misses - 1) * KA_RETRY_STEP_MS;
        int64_t until = ka_now_ms() + (c->attempt_ms > 0 ? c->attempt_ms : KA_ATTEMPT_MS);
        if (until > end) until = end;
        r = ka__client_attempt(c, body, n, answer, until);
        if (r != KA_EOFFLINE && r != KA_ETIME) return r;
        ka__client_drop(c);
        if (ka_now_ms() + delay >= end) return KA_EOFFLINE;
        if (c->on_miss) c->on_miss(c->arg, misses, delay, r);
        ka_sleep_ms(delay);
    }
}

int ka_client_kill_server(ka_client *c, int64_t *pid)
{
    *pid = 0;
    /* never by a new connection: whoever has the port now need not be who answered */
    if (!c->open || ka__sock_wait((ka__sock)c->sock, KA__IN, 0) == KA_OK) return KA_EOFFLINE;
    int r = ka__peer_kill((ka__sock)c->sock, pid);
    c->os_error = r < 0 ? ka__os_code() : 0;
    return r;
}

#endif /* KEYAUTH_IMPLEMENTATION */

/* VERSION HISTORY
     1.5.0   KA_RESP and ka_redis; keys in Redis; ka_stream; KA_HTTP_FIELDS; ka_read_input; ka_resolve; ka_log_replace
     1.4.0   KA_LINES; ka_timer; ka_connect takes an address to connect from; KA_CLOSED tells whether the connection was lost;
             ka_send takes any length; a batch is one write to each connection; a crowd's memory goes back; child processes;
             ka_process_usage, ka_descriptors_raise, ka_memory_trim, ka_now_us, ka_is_utf8
     1.3.0   framings beside HTTP: ka_listen_as, ka_connect, ka_send, ka_close, ka_reframe; JSON, UUIDs, times in UTC;
             ka_log_open; ka_file_put; ka_reply takes a Content-Type and status 0; ka_listen returns the listener's number
     1.2.0   keys that survive a crash: ka_journal_open; ka_at_batch_end. Found by faults and fuzzers: wrong error codes of a
             kill, a listener and WSAStartup, 100 Continue behind a last answer, pools of random bytes under qemu-user
     1.1.0   measured and made faster (bench/); on Linux workers have descriptor tables of their own; KA_MAILBOX is
             256 KiB, and so ka_reply's limit 64 KiB, where the limits of a request allow it
     1.0.0   the key handshake: HTTP/1.1 server, keyring, client with retry, restart and kill

   LICENCE: take whichever you prefer.
   ------------------------------------------------------------------------------------------------
   A - MIT

   Copyright (c) 2026 the keyauth authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction,
   including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
   and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
   subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or substantial
   portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
   LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN
   NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY,
   WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
   SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
   ------------------------------------------------------------------------------------------------
   B - Public domain (www.unlicense.org)

   This is free and unencumbered software released into the public domain. Anyone is free to copy,
   modify, publish, use, compile, sell, or distribute this software, either in source code form or as a
   compiled binary, for any purpose, commercial or non-commercial, and by any means.

   In jurisdictions that recognize copyright laws, the author or authors of this software dedicate any and
   all copyright interest in the software to the public domain. We make this dedication for the benefit of
   the public at large and to the detriment of our heirs and successors. We intend this dedication to be
   an overt act of relinquishment in perpetuity of all present and future rights to this software under
   copyright law.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
   LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN
   NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
   CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
   DEALINGS IN THE SOFTWARE. */
