/* ext/redis.h - Redis: its protocol, a connection that is kept up, and keys that are kept there.

   HOW TO INCLUDE
     keyauth.h, ext/file.h and ext/lookup.h before it, wherever it is included;
     KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/file.h"
         #include "ext/lookup.h"
         #include "ext/redis.h"

   USE: keys in Redis; any number of servers with the same Redis are one
         static ka_redis_address at = { .prefix = "keyauth:" };
         ka_redis redis = { .at = &at };
         ka_redis_store keys;
         const char *why;
         if (ka_redis_read_address(&at, "localhost:6379", NULL, &why) < 0) return puts(why);
         if (ka_redis_start(&redis, s) < 0) return puts("no address");
         ka_redis_store_init(&keys, &redis, 3600);
         for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; )
             if (ev.kind == KA_REQUEST) ka_auth(s, &keys.store, &ev);
         ka_redis_free(&redis);
         ka_wipe(&at, sizeof at);
         ka_server_free(s);

   CONTENTS
     ka_resp_read, next, command       RESP2, the protocol
     ka_redis_start, command, free     a connection that is kept up
     ka_redis_store_init, ka_redis_news    keys in Redis, and what has become of Redis, in words

   LIMITS
     RESP2. No TLS: have a proxy on this machine, such as stunnel, speak it. No cluster of
     several masters. A reply has KA_MAX_BODY bytes at most. */

#ifndef KEYAUTH_H
#error "ext/redis.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_FILE_H
#error "ext/redis.h: include ext/file.h first"
#endif
#ifndef KEYAUTH_LOOKUP_H
#error "ext/redis.h: include ext/lookup.h first"
#endif
#ifndef KEYAUTH_REDIS_H
#define KEYAUTH_REDIS_H

#ifdef __cplusplus
extern "C" {
#endif

/* -----------------------------------------------------------------------------------------------
   Configuration. Define these before the include, the same in every file that includes it. */

#ifndef KA_REDIS_MS
#define KA_REDIS_MS 3000          /* milliseconds: a connection is lost if nothing is heard of it
                                     for so long, and a third more at most. It is asked for a word
                                     (PING) three times meanwhile */
#endif
#ifndef KA_REDIS_RETRY_MS
#define KA_REDIS_RETRY_MS 100     /* milliseconds: the wait before the next attempt to connect;
                                     twice as long each time, up to KA_REDIS_MS */
#endif
#ifndef KA_REDIS_WAITING
#define KA_REDIS_WAITING 65536    /* commands that wait for their replies, at most */
#endif
#ifndef KA_REDIS_BYTES
#define KA_REDIS_BYTES 8388608    /* bytes of these commands, at most */
#endif
#ifndef KA_REDIS_INFO
#define KA_REDIS_INFO 3072        /* INFO memory is sent only if KA_MAX_BODY is no less. Its reply
                                     has 1,400 bytes in Redis 7; a reply over KA_MAX_BODY ends the
                                     connection */
#endif

enum {
    KA_REDIS_SECRET = 2047,       /* bytes of a password, or of a user's name, at most */
    KA_REDIS_ERROR = 96,          /* bytes of a text of ka_redis_explain, with its NUL */
    KA_REDIS_NOTE = 144           /* bytes of a command's note, at most */
};

/* -----------------------------------------------------------------------------------------------
   RESP2, the Redis serialization protocol. Any thread; nothing is allocated; results are views. */

enum { KA_RESP_NIL = 1, KA_RESP_STRING, KA_RESP_ERROR, KA_RESP_INTEGER, KA_RESP_ARRAY };

/* A value. */
typedef struct {
    int     kind;                 /* KA_RESP_... */
    ka_str  text;                 /* a string's bytes, simple or bulk; an error's; an integer's
                                     digits; an array's elements, as they were sent */
    int64_t number;               /* an integer; or how many elements an array has */
} ka_resp;

/* Each message is one value. */
KADEF const ka_framing ka_resp_framing;

/* Read a text that is one value and nothing else, as a message of ka_resp_framing is.
     returns    KA_OK; or KA_ESYNTAX, and v->kind is 0 */
KADEF int ka_resp_read(ka_resp *v, ka_str text);

/* Take the next element off an array. Begin with a copy of what ka_resp_read or this function gave.
     returns    false at the end, and for values of other kinds */
KADEF bool ka_resp_next(ka_resp *rest, ka_resp *element);

/* Write a command, its name and arguments, as an array of bulk strings.
     returns    bytes written, or KA_ENOSPC */
KADEF ptrdiff_t ka_resp_command(char *out, size_t cap, const ka_str *args, size_t n);

/* -----------------------------------------------------------------------------------------------
   A connection to a Redis server, kept up. The parent's thread only. */

/* Where a Redis is, and who we are there. Texts that were not given are empty. */
typedef struct {
    int  port;
    char host[KA_MAX_HOST + 1], prefix[KA_MAX_ID + 1];
    char user[KA_REDIS_SECRET + 1], password[KA_REDIS_SECRET + 1];
} ka_redis_address;

/* Read an address, in one of two forms, and the options behind it, whose values have no commas:
     HOST:PORT
     redis://[USER[:PASSWORD]@]HOST[:PORT][/[0]]
     ,user=NAME ,password=WORD ,password-file=FILE ,prefix=TEXT
   In the URL, user and password are percent-encoded (RFC 3986 s.3.2.1), and the port is 6379 if
   none is given. The password is the first line of FILE. Wipe *a after use.
     a          prefix stays as it is if none is given
     password   the password if none is given, as from the environment; NULL: none
     *why       after an error: what is needed, in English, and nothing of what was given; static
     returns    KA_OK, or KA_ESYNTAX, or KA_ENOTFOUND (FILE can't be read, or has no password).
                After an error all of *a is wiped */
KADEF int ka_redis_read_address(ka_redis_address *a, const char *text, const char *password,
                                const char **why);

/* What an error reply says, for a terminal or a log: its first word, and what keyauth knows of
   such an error. The rest of Redis's words is left out: it may repeat a password or a key. Of a
   reply that is no error, the text is that the reply is unexpected. */
KADEF void ka_redis_explain(char text[KA_REDIS_ERROR], const ka_resp *reply);

typedef struct ka_redis ka_redis;

/* What has become of a command. It may send further commands.
     note       the command's, as ka_redis_command has it; at no particular address: memcpy it
     reply      borrowed; an error's, too. NULL: the connection was lost before the reply came, and
                whether the command was carried out is not known */
typedef void ka_redis_fn(ka_redis *r, const void *note, const ka_resp *reply);

/* A connection. Its events are dealt with within ka_wait, which calls the functions below. None of
   these may call ka_redis_start or ka_redis_free. */
struct ka_redis {
    ka_source   source;              /* its own */
    /* yours to set before ka_redis_start; zero means none */
    const ka_redis_address *at;      /* borrowed. The host is looked up anew before each attempt.
                                        AUTH is sent if there is a user or a password */
    bool        writes;              /* each second Redis is not sent a PING, but a SET that does
                                        nothing: SET prefixmaster? "" XX. So a Redis that does not
                                        take writes any more is noticed within a second */
    void      (*on_change)(ka_redis *r, bool up);      /* r->up has changed; NULL: none */
    void      (*on_push)(ka_redis *r, const ka_resp *message);   /* if it is set, this connection
                                        subscribes: called for each reply but PING's */
    void       *arg;                 /* for you */
    /* yours to read */
    bool        up;                  /* it can be used */
    uint64_t    conn;                /* the connection, to be closed by ka_close; 0: none */
    char        policy[24];          /* its maxmemory-policy; empty: not known. It may evict keys,
                                        unless this is noeviction. Asked for after each connect, by
                                        CONFIG GET and by INFO, but not if on_push is set */
    /* its own */
    ka_server  *server;
    ka_lookups  lookups;
    struct ka__redis_command *waiting;   /* a ring of those that wait for their replies */
    size_t      waiting_n, first, room, bytes;
    int64_t     look_ms;             /* when it looks after itself again */
    int64_t     leave_ms;            /* when this connection is given up; 0: it is good */
    int         retry_ms, silent;
    bool        unasked;             /* the policy is not asked for: a connection was lost then */
    uint8_t     state;
    char        error[KA_REDIS_ERROR];         /* why it isn't up; empty: see the next two */
    char        write_error[KA_REDIS_ERROR];   /* why a SET was refused, or empty */
    char        read_error[KA_REDIS_ERROR];    /* why a login's GET was refused, or empty */
};

/* Begin to connect, and to connect again whenever the connection is lost, until ka_stop. A Redis
   that is not the master any more (READONLY, NOREPLICAS, MOVED...) is used for what it still serves
   until the next attempt would be due. Then the connection is made anew: behind the name, or the
   proxy, may be another Redis by then. A Redis that serves nothing (LOADING, MASTERDOWN, NOAUTH...)
   is given up at once.
     r          stays where it is until ka_redis_free
     returns    KA_OK, or KA_EINVAL (host, port), KA_ESTOPPED */
KADEF int ka_redis_start(ka_redis *r, ka_server *s);

/* Why it isn't up; or while it is up, what it refuses, as of ka_redis_explain. Empty: nothing, or
   it was not tried yet, or ka_stop. Good until the next ka_wait. */
KADEF const char *ka_redis_trouble(const ka_redis *r);

/* Send a command. Replies come in the order of the commands.
     args       its name and arguments; copied
     fn         NULL: nobody asks what comes of it. Not called for a connection that subscribes
     note       what fn needs to go on, n bytes, KA_REDIS_NOTE at most; copied, and wiped after fn
     returns    KA_OK; or KA_EOFFLINE: it is not up; KA_ELIMIT: KA_REDIS_WAITING or KA_REDIS_BYTES
                wait; KA_EINVAL: no arguments, or note is too long; KA_ENOMEM. Then nothing was
                sent, and fn is not called */
KADEF int ka_redis_command(ka_redis *r, const ka_str *args, size_t args_n, ka_redis_fn *fn,
                           const void *note, size_t n);

/* Close the connection and free what it holds; commands that wait are told so, with no reply. After
   the last ka_wait, and before ka_server_free. Harmless after a failed ka_redis_start, or twice. */
KADEF void ka_redis_free(ka_redis *r);

/* -----------------------------------------------------------------------------------------------
   Keys in Redis: a ka_store. The parent's thread only. */

/* A key's name is the address's prefix and SHA-256(key) in hex, and its value is the ID:
   SET name ID NX EX ttl; GET name. Whichever server a key was asked from, it is good at all that
   have the same Redis and prefix. Answers are given when Redis has acknowledged. If Redis is down,
   or says an error, the answer is try_later, and ka_redis_trouble tells why. A replica serves
   logins, but a key that it lacks is answered try_later, too, since the master may have it. So
   wrong_key takes two commands: GET, and the SET of ka_redis.writes, which tells a replica. */
typedef struct {
    ka_store    store;               /* for ka_auth */
    /* its own */
    ka_redis   *redis;
    char        ttl[24];             /* seconds; empty: for ever */
    char        told_error[KA_REDIS_ERROR], told_policy[24];      /* as of the last news */
} ka_redis_store;

/* Set up a store.
     redis      one that does not subscribe, and is not up yet; it must not be freed before the last
                ka_wait, as the store
     ttl_s      as ka_keyring_init's
     returns    KA_OK, or KA_EINVAL (redis, ttl_s) */
KADEF int ka_redis_store_init(ka_redis_store *st, ka_redis *redis, int64_t ttl_s);

enum { KA_REDIS_TEXT = 640 };        /* bytes of the text below, with a NUL */

/* What has become of a store's Redis, in English: it is down, refuses something, is back, or may
   evict keys. Call it now and then, until it returns NULL: there are no more news. Not more often
   than once a second: a Redis that comes and goes would fill a log.
     returns    out, or NULL */
KADEF const char *ka_redis_news(char out[KA_REDIS_TEXT], ka_redis_store *st);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_REDIS_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_REDIS_IMPLEMENTED)
#define KEYAUTH_REDIS_IMPLEMENTED

static const ka_str ka__redis_none = { NULL, 0 };

static ka_str ka__redis_str(const char *text) { return (ka_str){ text, strlen(text) }; }

/* ---- RESP2, the Redis serialization protocol (redis.io/docs/reference/protocol-spec) ---- */

/* A whole number and nothing else; KA_ESYNTAX: it is none, or out of an int64_t's range. */
static int ka__redis_number(ka_str s, int64_t *out)
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
    static const int kinds[] = {
        KA_RESP_STRING, KA_RESP_ERROR, KA_RESP_INTEGER, KA_RESP_STRING, KA_RESP_ARRAY
    };
    const char *mark = n ? memchr(marks, *p, sizeof marks - 1) : NULL;
    const char *end = n ? memchr(p, '\r', n) : NULL;
    *v = (ka_resp){ 0, { NULL, 0 }, 0 };
    if (n && !mark) return KA_ESYNTAX;
    if (!end || end + 1 == p + n) return n && memchr(p, '\n', n) ? KA_ESYNTAX : KA_EAGAIN;
    ka_str line = { p + 1, (size_t)(end - p) - 1 };
    size_t head = line.n + 3;
    if (end[1] != '\n' || memchr(line.p, '\n', line.n)) return KA_ESYNTAX;
    if (mark - marks >= 2 && ka__redis_number(line, &v->number) < 0) return KA_ESYNTAX;
    v->kind = kinds[mark - marks];
    v->text = line;
    if (mark - marks < 3) return (ptrdiff_t)head;
    bool odd = line.n > 1 && line.p[0] < '1' && !ka_is(line, "-1");      /* a sign, or a zero */
    if (odd || v->number > INT32_MAX) return KA_ESYNTAX;
    if (v->number == -1) v->kind = KA_RESP_NIL;
    v->text = (ka_str){ p + head, 0 };
    if (v->kind != KA_RESP_STRING) return (ptrdiff_t)head;
    v->text.n = (size_t)v->number;
    if (n - head < v->text.n + 2) return KA_EAGAIN;
    if (memcmp(v->text.p + v->text.n, "\r\n", 2) != 0) return KA_ESYNTAX;
    return (ptrdiff_t)(head + v->text.n + 2);
}

/* Find the end of the value that begins at p: as ka__resp_value, but with all elements of an array,
   however deep. cut->at: bytes that were read; cut->a: values that are still missing. */
static ptrdiff_t ka__resp_find(ka_cut *cut, const char *p, size_t n)
{
    ka_resp v;
    if (cut->at == 0) cut->a = 1;
    while (cut->a > 0) {
        ptrdiff_t size = ka__resp_value(&v, p + cut->at, n - cut->at);
        if (size < 0) return size;
        cut->at += (uint32_t)size;
        cut->a--;
        if (v.kind == KA_RESP_ARRAY) cut->a += (uint64_t)v.number;
    }
    return (ptrdiff_t)cut->at;
}

static ptrdiff_t ka__resp_cut(ka_cut *cut, const char *p, size_t n, ka_str *message)
{
    ptrdiff_t taken = ka__resp_find(cut, p, n);
    if (taken >= 0) *message = (ka_str){ p, (size_t)taken };
    return taken == KA_EAGAIN && n > KA_MAX_BODY ? KA_ENOSPC : taken;
}

/* A slow Redis may leave all commands unread that may wait. */
enum { KA__RESP_UNSENT = KA_REDIS_BYTES > KA_MAX_UNSENT ? KA_REDIS_BYTES : KA_MAX_UNSENT };
KADATA const ka_framing ka_resp_framing = { ka__resp_cut, KA__RESP_UNSENT };

/* Take the value in front of a text. */
static int ka__resp_take(ka_str *text, ka_resp *v)
{
    ka_cut cut = { 0, 0, 0 };
    *v = (ka_resp){ 0, { NULL, 0 }, 0 };
    if (text->n == 0 || text->n > INT32_MAX) return KA_ESYNTAX;
    ptrdiff_t n = ka__resp_find(&cut, text->p, text->n);
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

/* "*2" CRLF, or "$5" CRLF. */
static ka_str ka__resp_head(char mark, size_t n, char room[24])
{
    size_t at = 24;
    room[--at] = '\n';
    room[--at] = '\r';
    do room[--at] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    room[--at] = mark;
    return (ka_str){ room + at, 24 - at };
}

/* Append a text, if there is room for it. */
static bool ka__resp_put(char *out, size_t cap, size_t *at, ka_str text)
{
    if (text.n > cap - *at) return false;
    if (text.n) memcpy(out + *at, text.p, text.n);
    *at += text.n;
    return true;
}

ptrdiff_t ka_resp_command(char *out, size_t cap, const ka_str *args, size_t n)
{
    const ka_str end = { "\r\n", 2 };
    char room[24];
    size_t at = 0;
    bool fits = ka__resp_put(out, cap, &at, ka__resp_head('*', n, room));
    for (size_t i = 0; i < n && fits; i++)
        fits = ka__resp_put(out, cap, &at, ka__resp_head('$', args[i].n, room)) &&
               ka__resp_put(out, cap, &at, args[i]) && ka__resp_put(out, cap, &at, end);
    return fits ? (ptrdiff_t)at : KA_ENOSPC;
}

/* ---- addresses ---- */

static const char ka__redis_forms[] =
    "HOST:PORT or redis://[USER[:PASSWORD]@]HOST[:PORT] is needed, and any of ,user=... "
    ",password=... ,password-file=... ,prefix=... behind it, without commas in them; HOST is a "
    "name, an IPv4 address, or an IPv6 one in brackets; a URL has %XX for odd characters";

/* A user's name or password in a URL. No NUL: both are C strings. */
static bool ka__redis_decode(char out[KA_REDIS_SECRET + 1], ka_str s)
{
    ptrdiff_t n = ka_percent_decode(out, KA_REDIS_SECRET, s);
    return n >= 0 && !memchr(out, 0, (size_t)n);
}

/* USER or USER:PASSWORD of a URL. */
static bool ka__redis_user(ka_redis_address *a, ka_str s)
{
    const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
    size_t n = colon ? (size_t)(colon - s.p) : s.n;
    if (!ka__redis_decode(a->user, (ka_str){ s.p, n })) return false;
    return !colon || ka__redis_decode(a->password, (ka_str){ colon + 1, s.n - n - 1 });
}

/* What is behind "redis://". A password may have a raw @: the last @ is the one before the host.
     returns    what is wrong, or NULL */
static const char *ka__redis_url(ka_redis_address *a, ka_str s)
{
    size_t n = 0, at = 0;
    for (; n < s.n && !memchr("/?#", s.p[n], 3); n++)
        if (s.p[n] == '@') at = n + 1;
    ka_str path = { s.p + n, s.n - n };
    if (path.n > 0 && !ka_is(path, "/") && !ka_is(path, "/0"))
        return "redis://HOST:PORT may have the database /0 behind it, and no other one; use "
               ",prefix=TEXT to keep programs apart; a password has %2F %3F %23 for / ? #";
    a->port = 6379;
    bool good = ka_place_read(a->host, &a->port, (ka_str){ s.p + at, n - at }) == KA_OK &&
                ka__redis_user(a, (ka_str){ s.p, at ? at - 1 : 0 });
    return good ? NULL : ka__redis_forms;
}

/* Does a text begin with this word, in lower or upper case? */
static bool ka__redis_begins(ka_str s, const char *word)
{
    for (size_t i = 0; word[i]; i++) {
        char c = i < s.n ? s.p[i] : '\0';
        if (c >= 'A' && c <= 'Z') c = (char)(c - 'A' + 'a');
        if (c != word[i]) return false;
    }
    return true;
}

/* HOST:PORT or a URL. What is wrong, or NULL. */
static const char *ka__redis_place(ka_redis_address *a, ka_str s)
{
    static const char url[] = "redis://";
    size_t n = sizeof url - 1;
    if (ka__redis_begins(s, "rediss://"))
        return "rediss: there is no TLS here; have a proxy on this machine, such as stunnel, "
               "speak it, and give its redis://127.0.0.1:PORT";
    if (ka__redis_begins(s, url))
        return ka__redis_url(a, (ka_str){ s.p + n, s.n - n });
    return ka_place_read(a->host, &a->port, s) == KA_OK ? NULL : ka__redis_forms;
}

/* Put the first line of a file into a->password, which has its path. A pipe is refused: its writer
   may never come. */
static bool ka__redis_password_file(ka_redis_address *a)
{
    ptrdiff_t got = ka_file_peek(a->password, a->password, sizeof a->password);
    size_t n = 0, size = got > 0 ? (size_t)got : 0;
    while (n < size && a->password[n] && a->password[n] != '\r' && a->password[n] != '\n') n++;
    if (n == 0 || n == sizeof a->password || (n < size && !a->password[n])) return false;
    ka_wipe(a->password + n, sizeof a->password - n);
    return true;
}

/* The options; where in an address the value goes, and how many bytes it has. */
static const struct { const char *name; size_t at, least, most; } ka__redis_options[] = {
    { "prefix=", offsetof(ka_redis_address, prefix), 0, KA_MAX_ID },
    { "user=", offsetof(ka_redis_address, user), 1, KA_REDIS_SECRET },
    { "password=", offsetof(ka_redis_address, password), 1, KA_REDIS_SECRET },
    { "password-file=", offsetof(ka_redis_address, password), 1, KA_REDIS_SECRET },
};
enum { KA__REDIS_FILE = 3, KA__REDIS_OPTIONS };      /* the last row, and how many there are */

/* The option that a text begins with; KA__REDIS_OPTIONS: none. */
static size_t ka__redis_option(const char *text)
{
    size_t i = 0;
    while (i < KA__REDIS_OPTIONS &&
           strncmp(text, ka__redis_options[i].name, strlen(ka__redis_options[i].name)) != 0) i++;
    return i;
}

/* The options, from the first comma on. What is wrong, or NULL. */
static const char *ka__redis_take_options(ka_redis_address *a, const char *p, int *error)
{
    for (size_t n; *p; p += n) {
        size_t i = ka__redis_option(++p);
        if (i == KA__REDIS_OPTIONS) return ka__redis_forms;
        char *to = (char *)a + ka__redis_options[i].at;
        p += strlen(ka__redis_options[i].name);
        n = strcspn(p, ",");
        if (n < ka__redis_options[i].least || n > ka__redis_options[i].most) return ka__redis_forms;
        if (to == a->password && *to) return "the password is given twice; leave one of them out";
        memcpy(to, p, n);
        to[n] = 0;
        if (i == KA__REDIS_FILE && !ka__redis_password_file(a)) {
            *error = KA_ENOTFOUND;
            return "password-file= can't be read, or does not begin with a line that is a "
                   "password; is it a file, no pipe, and may this user read it?";
        }
    }
    return NULL;
}

int ka_redis_read_address(ka_redis_address *a, const char *text, const char *password,
                          const char **why)
{
    size_t n = 0;
    int error = KA_ESYNTAX;
    a->port = 0;
    memset(a->host, 0, sizeof a->host);
    memset(a->user, 0, sizeof a->user);
    memset(a->password, 0, sizeof a->password);
    while (text[n] && (text[n] != ',' || ka__redis_option(text + n + 1) == KA__REDIS_OPTIONS)) n++;
    *why = ka__redis_place(a, (ka_str){ text, n });
    if (!*why) *why = ka__redis_take_options(a, text + n, &error);
    if (!*why && !*a->password && password) {
        if (strlen(password) > KA_REDIS_SECRET) *why = "the environment's password is too long";
        else memcpy(a->password, password, strlen(password) + 1);
    }
    if (!*why) return KA_OK;
    ka_wipe(a, sizeof *a);
    return error;
}

/* ---- error replies ---- */

enum { KA__REDIS_STAY, KA__REDIS_LEAVE, KA__REDIS_LATER };

/* Error replies, by how they begin; the first row that fits counts. What is done then:
     STAY       only this command is refused
     LEAVE      nothing is served: the connection is closed
     LATER      a part is served: the connection is closed when the next attempt would be due */
static const struct { const char *begins, *means; int then; } ka__redis_refusals[] = {
    { "READONLY",    "it is a replica, or has become one", KA__REDIS_LATER },
    { "NOREPLICAS",  "it has lost its replicas", KA__REDIS_LATER },
    { "MOVED",       "it is a cluster's node, with some keys only; see deploy/shards",
      KA__REDIS_LATER },
    { "ASK",         "it is a cluster's node, with some keys only; see deploy/shards",
      KA__REDIS_LATER },
    { "CLUSTERDOWN", "its cluster is down", KA__REDIS_LATER },
    { "TRYAGAIN",    "its cluster is being changed", KA__REDIS_LATER },
    { "MASTERDOWN",  "it is a replica that has lost its master", KA__REDIS_LEAVE },
    { "ERR Connection", "a shard behind the proxy is down, or hangs", KA__REDIS_STAY },
    { "LOADING",     "it is still loading its data", KA__REDIS_LEAVE },
    { "NOAUTH",      "it asks for a password; give it one", KA__REDIS_LEAVE },
    { "WRONGPASS",   "it does not know this user with this password", KA__REDIS_LEAVE },
    { "OOM",         "its memory is full; give it more, or delete keys there", KA__REDIS_STAY },
    { "MISCONF",     "it can't save its data to disk; look at its log", KA__REDIS_STAY },
    { "NOPERM",      "its ACL forbids a command or a key; see docs/redis.md", KA__REDIS_STAY },
    { "WRONGTYPE", "another program has a key of this name; choose another prefix",
      KA__REDIS_STAY },
    { "BUSY",        "it is busy with a script", KA__REDIS_STAY },
    { "DENIED",      "it is in protected mode; give it a password", KA__REDIS_STAY },
    { "ERR unknown command", "is it a Sentinel, or is a command renamed?", KA__REDIS_STAY },
    { "ERR max number of clients", "it has as many as it may have", KA__REDIS_STAY },
    { "ERR invalid password", "give it the right one", KA__REDIS_STAY },
    { "ERR Client sent AUTH", "it has no password; give none", KA__REDIS_STAY },
    { "ERR AUTH",    "it has no password; give none", KA__REDIS_STAY },
    { "ERR wrong number of arguments for 'auth'", "it knows no users; give no user",
      KA__REDIS_STAY },
};
enum { KA__REDIS_REFUSALS = sizeof ka__redis_refusals / sizeof *ka__redis_refusals };

/* The text of an error. Before Redis 7, that of a script has the one of its command within:
   "ERR Error running script (call to f_...): @user_script:1: -OOM command not allowed..." */
static ka_str ka__redis_refusal_text(ka_str s)
{
    static const char script[] = "ERR Error running script";
    if (s.n < sizeof script || memcmp(s.p, script, sizeof script - 1) != 0) return s;
    for (size_t i = 0; i + 2 < s.n; i++)
        if (s.p[i] == ' ' && s.p[i + 1] == '-') return (ka_str){ s.p + i + 2, s.n - i - 2 };
    return s;
}

/* The row of an error; KA__REDIS_REFUSALS: none. A word is whole: BUSY is not BUSYKEY. */
static size_t ka__redis_refusal(ka_str s)
{
    size_t i = 0;
    for (; i < KA__REDIS_REFUSALS; i++) {
        size_t n = strlen(ka__redis_refusals[i].begins);
        if (s.n < n || memcmp(s.p, ka__redis_refusals[i].begins, n) != 0) continue;
        if (s.n == n || s.p[n] == ' ' || s.p[n] == ',') break;
    }
    return i;
}

/* What is done after this reply. */
static int ka__redis_refusal_then(const ka_resp *v)
{
    if (v->kind != KA_RESP_ERROR) return KA__REDIS_STAY;
    size_t row = ka__redis_refusal(ka__redis_refusal_text(v->text));
    return row < KA__REDIS_REFUSALS ? ka__redis_refusals[row].then : KA__REDIS_STAY;
}

void ka_redis_explain(char text[KA_REDIS_ERROR], const ka_resp *reply)
{
    static const char hidden[] = "its words are not shown, as they may hold secrets";
    ka_str s = ka__redis_refusal_text(reply->text);
    size_t row = ka__redis_refusal(s), n = 0;
    while (n < s.n && n < 24 && s.p[n] >= 'A' && s.p[n] <= 'Z') n++;
    bool word = n > 0 && (n == s.n || s.p[n] == ' ');
    if (reply->kind != KA_RESP_ERROR)
        snprintf(text, KA_REDIS_ERROR, "an unexpected reply");
    else if (row < KA__REDIS_REFUSALS)
        snprintf(text, KA_REDIS_ERROR, "%s: %s", ka__redis_refusals[row].begins,
                 ka__redis_refusals[row].means);
    else
        snprintf(text, KA_REDIS_ERROR, "%.*s: %s", word ? (int)n : 8, word ? s.p : "an error",
                 hidden);
}

/* ---- commands that wait for their replies: a ring, whose room is a power of two ---- */

struct ka__redis_command { ka_redis_fn *fn; size_t size; char note[KA_REDIS_NOTE]; };

static struct ka__redis_command *ka__redis_command_at(const ka_redis *r, size_t i)
{
    return &r->waiting[(r->first + i) & (r->room - 1)];
}

static void ka__redis_free_wiped(void *p, size_t n)
{
    if (!p) return;
    ka_wipe(p, n);
    KA_FREE(p);
}

/* Make room for one more. A new block each time: a realloc might leave notes behind. */
static int ka__redis_commands_grow(ka_redis *r)
{
    if (r->waiting_n == KA_REDIS_WAITING) return KA_ELIMIT;
    if (r->waiting_n < r->room) return KA_OK;
    size_t room = r->room ? r->room * 2 : 16;
    struct ka__redis_command *more = KA_MALLOC(room * sizeof *more);
    if (!more) return KA_ENOMEM;
    for (size_t i = 0; i < r->waiting_n; i++) more[i] = *ka__redis_command_at(r, i);
    ka__redis_free_wiped(r->waiting, r->room * sizeof *more);
    r->waiting = more;
    r->first = 0;
    r->room = room;
    return KA_OK;
}

/* The first command has its reply, or will have none: NULL. */
static void ka__redis_command_done(ka_redis *r, const ka_resp *reply)
{
    struct ka__redis_command *first = ka__redis_command_at(r, 0), c = *first;
    ka_wipe(first, sizeof *first);
    r->first = (r->first + 1) & (r->room - 1);
    r->waiting_n--;
    r->bytes -= c.size;
    if (c.fn) c.fn(r, c.note, reply);
    ka_wipe(&c, sizeof c);
}

/* No command will have a reply. What their functions send now fails, so no further one comes. */
static void ka__redis_commands_fail(ka_redis *r)
{
    r->up = false;
    while (r->waiting_n > 0) ka__redis_command_done(r, NULL);
    ka__redis_free_wiped(r->waiting, r->room * sizeof *r->waiting);
    r->waiting = NULL;
    r->room = 0;
}

/* Write a command, and wipe the block that it was written into: it may hold a password, or a key.
     returns    its bytes, or KA_ELIMIT, KA_ENOMEM */
static ptrdiff_t ka__redis_send(ka_redis *r, const ka_str *args, size_t n)
{
    enum { LINE = 32 };              /* more than is around an argument: $, 20 digits, CRLF twice */
    size_t room = LINE;
    for (size_t i = 0; i < n; room += LINE + args[i++].n)
        if (args[i].n > KA_REDIS_BYTES || room > KA_REDIS_BYTES) return KA_ELIMIT;
    char *p = KA_MALLOC(room);
    if (!p) return KA_ENOMEM;
    ptrdiff_t size = ka_resp_command(p, room, args, n);
    bool fits = r->bytes + (size_t)size <= KA_REDIS_BYTES;
    if (fits) ka_send(r->server, r->conn, p, (size_t)size);
    ka__redis_free_wiped(p, room);
    return fits ? size : KA_ELIMIT;
}

int ka_redis_command(ka_redis *r, const ka_str *args, size_t args_n, ka_redis_fn *fn,
                     const void *note, size_t n)
{
    if (args_n == 0 || n > KA_REDIS_NOTE) return KA_EINVAL;
    if (!r->up) return KA_EOFFLINE;
    int error = r->on_push ? KA_OK : ka__redis_commands_grow(r);
    ptrdiff_t size = error ? error : ka__redis_send(r, args, args_n);
    if (size < 0) return (int)size;
    if (r->on_push) return KA_OK;
    struct ka__redis_command *c = ka__redis_command_at(r, r->waiting_n++);
    c->fn = fn;
    c->size = (size_t)size;
    if (n) memcpy(c->note, note, n);
    r->bytes += c->size;
    return KA_OK;
}

/* ---- is it a master? ---- */

static bool ka__redis_is_ok(const ka_resp *v)
{
    return v->kind == KA_RESP_STRING && ka_is(v->text, "OK");
}

/* A SET has its reply. If the SET was carried out, Redis is no replica (any more). */
static void ka__redis_wrote(ka_redis *r, const ka_resp *reply, bool done)
{
    if (!done) {
        ka_redis_explain(r->write_error, reply);
        return;
    }
    r->leave_ms = 0;
    r->write_error[0] = 0;
}

/* SET ... XX of a key that isn't there does nothing, unless it is refused. If somebody has made the
   key, SET empties it, and is no less carried out. */
static void ka__redis_word(ka_redis *r, const void *note, const ka_resp *reply)
{
    (void)note;
    if (!reply) return;
    ka__redis_wrote(r, reply, ka__redis_is_ok(reply) || reply->kind == KA_RESP_NIL);
}

/* Ask for a word, as ka_redis_command. */
static int ka__redis_ask_word(ka_redis *r, ka_redis_fn *fn, const void *note, size_t n)
{
    char name[KA_MAX_ID + sizeof "master?"];
    const ka_str ping = ka__redis_str("PING");
    if (!r->writes) return ka_redis_command(r, &ping, 1, NULL, NULL, 0);
    snprintf(name, sizeof name, "%smaster?", r->at->prefix);
    const ka_str set[] = { ka__redis_str("SET"), ka__redis_str(name), ka__redis_none,
                           ka__redis_str("XX") };
    return ka_redis_command(r, set, 4, fn, note, n);
}

/* ---- maxmemory-policy: asked for in two ways, since an ACL may allow one of them ---- */

/* What is behind maxmemory-policy in the reply to CONFIG GET or INFO. */
static ka_str ka__redis_policy(const ka_resp *reply)
{
    static const char line[] = "maxmemory_policy:";
    ka_resp rest = *reply, name, value;
    if (ka_resp_next(&rest, &name) && ka_resp_next(&rest, &value)) return value.text;
    ka_str s = reply->kind == KA_RESP_STRING ? reply->text : ka__redis_none;
    for (; s.n >= sizeof line; s.p++, s.n--)
        if (memcmp(s.p, line, sizeof line - 1) == 0)
            return (ka_str){ s.p + sizeof line - 1, s.n - sizeof line + 1 };
    return ka__redis_none;
}

/* Some proxies close the connection at such a command: then it is not sent again. */
static void ka__redis_told_policy(ka_redis *r, const void *note, const ka_resp *reply)
{
    ka_str policy = reply ? ka__redis_policy(reply) : ka__redis_none;
    size_t n = 0;
    (void)note;
    if (!reply) r->unasked = true;
    while (n < policy.n && n + 1 < sizeof r->policy &&
           ((policy.p[n] >= 'a' && policy.p[n] <= 'z') || policy.p[n] == '-')) n++;
    if (n == 0) return;
    memcpy(r->policy, policy.p, n);
    r->policy[n] = 0;
}

static void ka__redis_ask_policy(ka_redis *r)
{
    const ka_str config[] = { ka__redis_str("CONFIG"), ka__redis_str("GET"),
                              ka__redis_str("maxmemory-policy") };
    const ka_str info[] = { ka__redis_str("INFO"), ka__redis_str("memory") };
    if (r->on_push || r->unasked) return;
    ka_redis_command(r, config, 3, ka__redis_told_policy, NULL, 0);
    if (KA_MAX_BODY >= KA_REDIS_INFO)
        ka_redis_command(r, info, 2, ka__redis_told_policy, NULL, 0);
}

/* ---- the connection ----

   There is one connection, and one time that is always set, r->look_ms. What a look does then:

       state       means                                    a look
       AWAY        there is no connection                   connects
       CONNECTING  a connection was asked for               connects anew: the outcome was lost
       AUTH, PING  the reply to this command is awaited     closes, if three looks heard nothing
       UP          commands may be sent                     as above; else asks for a word
       ENDING      closed or lost; KA_CLOSED will come      nothing; KA_CLOSED leads to AWAY

   The next connection is begun after the last event of the one before. So no late event is taken
   for the next connection's. Silence is counted in looks, not in milliseconds: this process itself
   may have been stopped for a while. */

enum {
    KA__REDIS_AWAY, KA__REDIS_CONNECTING, KA__REDIS_AUTH, KA__REDIS_PING, KA__REDIS_UP,
    KA__REDIS_ENDING
};
enum { KA__REDIS_LOOK_MS = KA_REDIS_MS / 3, KA__REDIS_LOOKS = 3 };
_Static_assert(KA__REDIS_LOOK_MS > 0 && KA_REDIS_RETRY_MS > 0,
               "KA_REDIS_MS or KA_REDIS_RETRY_MS is too small");

static void ka__redis_look_at(ka_redis *r, int64_t at_ms) { r->look_ms = r->source.due_ms = at_ms; }

/* Why it isn't up. After ka_stop nothing is an error. */
static void ka__redis_error(ka_redis *r, const char *why)
{
    r->write_error[0] = r->read_error[0] = 0;
    snprintf(r->error, sizeof r->error, "%s", ka_is_stopping(r->server) ? "" : why);
}

/* The connection can't be used any more, or did not come to that.
     why        NULL: for what it refuses, of which the texts stay */
static void ka__redis_lost(ka_redis *r, const char *why)
{
    bool was_up = r->up;
    if (why) ka__redis_error(r, why);
    r->state = KA__REDIS_ENDING;
    ka__redis_commands_fail(r);
    if (was_up && r->on_change) r->on_change(r, false);
}

static void ka__redis_give_up(ka_redis *r, const char *why)
{
    ka_close(r->server, r->conn);
    ka__redis_lost(r, why);
}

/* A reply may be an error that ends the connection. */
static void ka__redis_refused(ka_redis *r, const ka_resp *v, int64_t now_ms)
{
    char why[KA_REDIS_ERROR];
    int then = ka__redis_refusal_then(v);
    if (then == KA__REDIS_STAY) return;
    ka_redis_explain(why, v);
    if (then == KA__REDIS_LEAVE) {
        ka__redis_give_up(r, why);
        return;
    }
    if (!*r->write_error && !*r->read_error) memcpy(r->write_error, why, sizeof why);
    if (r->leave_ms) return;
    r->leave_ms = now_ms + r->retry_ms;
    if (r->leave_ms < r->look_ms) ka__redis_look_at(r, r->leave_ms);
}

/* The last event of a connection has come: the next attempt is due after a wait, which is twice as
   long each time. If the connection was to be left, that wait has begun already. */
static void ka__redis_retry(ka_redis *r, int64_t now_ms)
{
    r->state = KA__REDIS_AWAY;
    r->conn = 0;
    int64_t next_ms = r->leave_ms ? r->leave_ms : now_ms + r->retry_ms;
    ka__redis_look_at(r, next_ms > now_ms ? next_ms : now_ms);
    r->leave_ms = 0;
    r->retry_ms = r->retry_ms < KA_REDIS_MS / 2 ? r->retry_ms * 2 : KA_REDIS_MS;
}

/* After ka_stop this fails, and no further look follows. */
static int ka__redis_connect(ka_redis *r, int64_t now_ms)
{
    int error = ka_connect_name(&r->lookups, &ka_resp_framing, r->at->host, r->at->port,
                                (uintptr_t)r);
    r->state = KA__REDIS_CONNECTING;
    /* The outcome comes before that, unless it was lost, or the name server hangs. */
    ka__redis_look_at(r, now_ms + 2 * KA_ATTEMPT_MS);
    if (error == KA_ESTOPPED || error == KA_EINVAL) {
        ka__redis_look_at(r, INT64_MAX);
        return error;
    }
    if (error) {
        ka__redis_lost(r, ka_error_text(error));
        ka__redis_retry(r, now_ms);
    }
    return KA_OK;
}

/* What is done when its time has come. */
static void ka__redis_look(ka_redis *r, int64_t now_ms)
{
    if (r->state == KA__REDIS_CONNECTING && !r->error[0])
        ka__redis_error(r, "its name is not found yet; does the name server answer?");
    if (r->state <= KA__REDIS_CONNECTING) {
        ka__redis_connect(r, now_ms);
        return;
    }
    ka__redis_look_at(r, now_ms + KA__REDIS_LOOK_MS);
    if (r->state == KA__REDIS_ENDING) return;
    if (r->silent++ == KA__REDIS_LOOKS) ka__redis_give_up(r, "it says nothing");
    else if (r->leave_ms && now_ms >= r->leave_ms) ka__redis_give_up(r, NULL);
    if (r->state != KA__REDIS_UP) return;
    if (!r->leave_ms) r->retry_ms = KA_REDIS_RETRY_MS;      /* it was of use for a while */
    else if (r->leave_ms < r->look_ms) ka__redis_look_at(r, r->leave_ms);
    /* If too many commands wait for a word to be asked for, their replies will do. */
    ka__redis_ask_word(r, ka__redis_word, NULL, 0);
}

/* AUTH PASSWORD or AUTH USER PASSWORD, and PING. */
static ptrdiff_t ka__redis_greet(ka_redis *r)
{
    const ka_redis_address *at = r->at;
    const ka_str ping = ka__redis_str("PING");
    ka_str auth[3] = { ka__redis_str("AUTH") };
    size_t n = 1;
    if (*at->user) auth[n++] = ka__redis_str(at->user);
    if (*at->user || *at->password) auth[n++] = ka__redis_str(at->password);
    r->state = n > 1 ? KA__REDIS_AUTH : KA__REDIS_PING;
    ptrdiff_t sent = n > 1 ? ka__redis_send(r, auth, n) : 0;
    return sent < 0 ? sent : ka__redis_send(r, &ping, 1);
}

static const char *ka__redis_why(int error)
{
    switch (error) {
    case KA_EINVAL:
    case KA_ENOTFOUND: return "there is no such host";
    case KA_ETIME:     return "it, or the name server, does not answer";
    default:           return ka_error_text(error);
    }
}

static void ka__redis_opened(ka_redis *r, const ka_event *ev)
{
    if (ev->error) {
        ka__redis_lost(r, ka__redis_why(ev->error));
        ka__redis_retry(r, ev->now_ms);
        return;
    }
    r->conn = ev->conn;
    r->silent = 0;
    ka__redis_look_at(r, ev->now_ms + KA__REDIS_LOOK_MS);
    ptrdiff_t sent = ka__redis_greet(r);
    if (sent < 0) ka__redis_give_up(r, ka_error_text((int)sent));
}

static void ka__redis_came_up(ka_redis *r)
{
    r->up = true;
    r->error[0] = 0;
    if (r->writes) ka__redis_ask_word(r, ka__redis_word, NULL, 0);
    else r->write_error[0] = 0;      /* with r->writes, the reply to that tells */
    ka__redis_ask_policy(r);
    if (r->on_change) r->on_change(r, true);
}

static void ka__redis_greeted(ka_redis *r, const ka_resp *v)
{
    char why[KA_REDIS_ERROR];
    ka_redis_explain(why, v);
    bool good = v->kind == KA_RESP_STRING &&
                ka_is(v->text, r->state == KA__REDIS_AUTH ? "OK" : "PONG");
    if (v->kind == KA_RESP_ERROR) ka__redis_give_up(r, why);
    else if (!good) ka__redis_give_up(r, "it does not greet as Redis does");
    else if (++r->state == KA__REDIS_UP) ka__redis_came_up(r);
}

/* PONG; or to one who has subscribed: pong, and what was sent along, which is nothing. */
static bool ka__redis_is_pong(const ka_resp *v)
{
    ka_resp rest = *v, first;
    if (v->kind == KA_RESP_STRING) return ka_is(v->text, "PONG");
    return v->number == 2 && ka_resp_next(&rest, &first) && ka_is(first.text, "pong");
}

static void ka__redis_reply(ka_redis *r, const ka_event *ev)
{
    ka_resp v = { .kind = 0 };
    r->silent = 0;
    if (r->state == KA__REDIS_ENDING) return;
    if (ev->error || ka_resp_read(&v, ev->body) < 0)
        ka__redis_give_up(r, "its reply is malformed, or over KA_MAX_BODY bytes");
    else if (r->state < KA__REDIS_UP) ka__redis_greeted(r, &v);
    else if (!r->on_push && r->waiting_n > 0) ka__redis_command_done(r, &v);
    else if (!r->on_push) ka__redis_give_up(r, "it replies to nothing");
    else if (!ka__redis_is_pong(&v)) r->on_push(r, &v);
    if (r->state == KA__REDIS_UP) ka__redis_refused(r, &v, ev->now_ms);
}

static void ka__redis_closed(ka_redis *r, int64_t now_ms)
{
    const char *why = r->up ? "the connection was lost" :
        "the connection was lost before a greeting, as by a TLS port, or a proxy without Redis";
    if (r->state != KA__REDIS_ENDING) ka__redis_lost(r, why);
    ka__redis_retry(r, now_ms);
}

const char *ka_redis_trouble(const ka_redis *r)
{
    if (*r->error) return r->error;      /* empty while it is up */
    return *r->write_error ? r->write_error : r->read_error;
}

/* ---- the source ---- */

static bool ka__redis_next(ka_source *source, ka_event *ev)
{
    ka_redis *r = (ka_redis *)source;
    int64_t now_ms = ev->now_ms;
    while (ka_lookups_next(&r->lookups, ev))
        if (r->state == KA__REDIS_CONNECTING) ka__redis_opened(r, ev);
    if (now_ms >= r->look_ms) ka__redis_look(r, now_ms);
    source->due_ms = r->look_ms;         /* ka_wake makes it due at once */
    return false;
}

/* An event of a connection with our tag has come. If we don't wait for one, it was thought lost. */
static void ka__redis_told(ka_redis *r, const ka_event *ev)
{
    if (r->state == KA__REDIS_CONNECTING) ka__redis_opened(r, ev);
    else if (!ev->error) ka_close(r->server, ev->conn);
}

static bool ka__redis_take(ka_source *source, ka_event *ev)
{
    ka_redis *r = (ka_redis *)source;
    bool opened = ev->kind == KA_OPENED && ev->listener == -1 && ev->tag == (uintptr_t)r;
    bool ours = r->conn && ev->conn == r->conn;
    if (ka_lookups_take(&r->lookups, ev)) return true;
    if (opened) ka__redis_told(r, ev);
    else if (ours && ev->kind == KA_MESSAGE) ka__redis_reply(r, ev);
    else if (ours && ev->kind == KA_CLOSED) ka__redis_closed(r, ev->now_ms);
    return opened || ours;
}

int ka_redis_start(ka_redis *r, ka_server *s)
{
    r->source = (ka_source){ .next = ka__redis_next, .take = ka__redis_take };
    r->lookups = (ka_lookups){ .server = s };
    r->server = s;
    r->retry_ms = KA_REDIS_RETRY_MS;
    int error = ka__redis_connect(r, ka_now_ms());
    if (error) r->server = NULL;
    else ka_source_add(s, &r->source);
    return error;
}

void ka_redis_free(ka_redis *r)
{
    if (!r->server) return;
    ka_source_remove(r->server, &r->source);
    ka_lookups_free(&r->lookups);
    if (r->conn) ka_close(r->server, r->conn);
    ka__redis_commands_fail(r);
    r->server = NULL;
    r->conn = 0;
}

/* ---- keys ---- */

/* A command's note is the ticket. ka_ticket_answer wipes its copy. */
_Static_assert(sizeof(ka_ticket) <= KA_REDIS_NOTE, "a note has room for a ticket");

static void ka__redis_answer(const void *note, int result, ka_str id)
{
    ka_ticket t;
    memcpy(&t, note, sizeof t);
    ka_ticket_answer(&t, result, id);
}

/* The reply to a key's SET. */
static void ka__redis_put_done(ka_redis *r, const void *note, const ka_resp *reply)
{
    bool kept = reply && ka__redis_is_ok(reply);
    if (reply) ka__redis_wrote(r, reply, kept);
    ka__redis_answer(note, kept ? KA_OK : KA_EOFFLINE, ka__redis_none);
}

/* Redis lacks a key. A master may say so: one that has just become a replica may lack keys of the
   new master. The word that was asked for after GET tells. */
static void ka__redis_get_master(ka_redis *r, const void *note, const ka_resp *reply)
{
    bool master = reply && ka__redis_refusal_then(reply) == KA__REDIS_STAY;
    ka__redis_word(r, NULL, reply);
    ka__redis_answer(note, master ? KA_ENOTFOUND : KA_EOFFLINE, ka__redis_none);
}

/* Is this an ID, as ask_key takes it? Another program may have put something else there. */
static bool ka__redis_is_id(const ka_resp *v)
{
    bool good = v->kind == KA_RESP_STRING && v->text.n > 0 && v->text.n <= KA_MAX_ID;
    for (size_t i = 0; good && i < v->text.n; i++)
        good = v->text.p[i] >= ' ' && v->text.p[i] <= '~';
    return good;
}

/* The reply to a login's GET. */
static void ka__redis_get_done(ka_redis *r, const void *note, const ka_resp *reply)
{
    static const char no_id[] = "what it has at a key is no ID; choose another prefix";
    const ka_resp lost = { .kind = 0 }, *v = reply ? reply : &lost;
    bool found = ka__redis_is_id(v), none = v->kind == KA_RESP_NIL;
    if (found || none) *r->read_error = 0;
    else if (v->kind == KA_RESP_ERROR) ka_redis_explain(r->read_error, v);
    else if (reply) memcpy(r->read_error, no_id, sizeof no_id);
    if (none && ka__redis_ask_word(r, ka__redis_get_master, note, sizeof(ka_ticket)) == KA_OK)
        return;
    ka__redis_answer(note, found ? KA_OK : KA_EOFFLINE, v->text);
}

/* Send a command about the key of a digest. Its name is args[1]. */
static int ka__redis_ask(const ka_redis_store *st, const unsigned char digest[32], ka_str *args,
                         size_t args_n, ka_redis_fn *fn, const ka_ticket *t)
{
    const char *prefix = st->redis->at->prefix;
    char name[KA_MAX_ID + 64];
    size_t n = strlen(prefix);
    memcpy(name, prefix, n);
    ka_hex_encode(name + n, digest, 32);
    args[1] = (ka_str){ name, n + 64 };
    return ka_redis_command(st->redis, args, args_n, fn, t, sizeof *t) < 0 ? KA_EOFFLINE
                                                                           : KA_EAGAIN;
}

static int ka__redis_put(ka_store *store, const unsigned char digest[32], ka_str id, int64_t now_ms,
                         const ka_ticket *t)
{
    const ka_redis_store *st = (const ka_redis_store *)(const void *)store;
    (void)now_ms;
    ka_str set[] = { ka__redis_str("SET"), ka__redis_none, id, ka__redis_str("NX"),
                     ka__redis_str("EX"), ka__redis_str(st->ttl) };
    return ka__redis_ask(st, digest, set, *st->ttl ? 6 : 4, ka__redis_put_done, t);
}

static int ka__redis_get(ka_store *store, const unsigned char digest[32], int64_t now_ms,
                         const ka_ticket *t, ka_str *id)
{
    const ka_redis_store *st = (const ka_redis_store *)(const void *)store;
    ka_str get[] = { ka__redis_str("GET"), ka__redis_none };
    (void)now_ms;
    (void)id;
    return ka__redis_ask(st, digest, get, 2, ka__redis_get_done, t);
}

int ka_redis_store_init(ka_redis_store *st, ka_redis *redis, int64_t ttl_s)
{
    if (redis->on_push || ttl_s < 0 || ttl_s > (int64_t)100 * 366 * 86400) return KA_EINVAL;
    *st = (ka_redis_store){ .store = { .put = ka__redis_put, .get = ka__redis_get },
                            .redis = redis };
    if (ttl_s) snprintf(st->ttl, sizeof st->ttl, "%lld", (long long)ttl_s);
    redis->writes = true;
    return KA_OK;
}

/* May Redis evict a key before its end? By a policy of volatile-... not one that has no end. */
static bool ka__redis_evicts(const ka_redis_store *st)
{
    const char *policy = st->redis->policy;
    if (!*policy || strcmp(policy, "noeviction") == 0) return false;
    return *st->ttl || strncmp(policy, "volatile-", 9) != 0;
}

const char *ka_redis_news(char out[KA_REDIS_TEXT], ka_redis_store *st)
{
    const ka_redis *r = st->redis;
    const char *why = ka_redis_trouble(r);
    char at[KA_PLACE_TEXT + 16], place[KA_PLACE_TEXT + 1];
    snprintf(at, sizeof at, "Redis at %s", ka_place_text(place, r->at->host, r->at->port));
    if ((r->up || *why) && strcmp(why, st->told_error) != 0) {
        snprintf(st->told_error, sizeof st->told_error, "%s", why);
        if (!*why) snprintf(out, KA_REDIS_TEXT, "%s is back", at);
        else if (r->up)
            snprintf(out, KA_REDIS_TEXT, "%s refuses: %s; what it refuses is answered try_later",
                     at, why);
        else
            snprintf(out, KA_REDIS_TEXT, "%s is down: %s; keys are refused with try_later until it "
                     "is back", at, why);
        return out;
    }
    if (strcmp(r->policy, st->told_policy) == 0) return NULL;
    snprintf(st->told_policy, sizeof st->told_policy, "%s", r->policy);
    if (!ka__redis_evicts(st)) return NULL;
    snprintf(out, KA_REDIS_TEXT, "%s may evict keys, since its maxmemory-policy is %s: their "
             "logins are then wrong_key; set it to noeviction", at, r->policy);
    return out;
}

#endif /* KEYAUTH_REDIS_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
