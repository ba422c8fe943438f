/* ext/cli.h - the command line of a program: its options, and the lines that it prints.

   HOW TO INCLUDE
     keyauth.h, ext/input.h and ext/lookup.h before it, wherever it is included;
     KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/input.h"
         #include "ext/lookup.h"
         #include "ext/cli.h"

   USE
         static const char usage[] = "usage: hail [--loud] [--times N] NAME\n";

         int main(int argc, char **argv)
         {
             bool loud = false;
             const char *name = NULL;
             long long times = 1;
             const ka_option known[] = {
                 { "--loud", .flag = &loud },
                 { "--times", .number = &times, .least = 1, .most = 9 },
                 { "NAME", .text = &name },
                 { .name = NULL }
             };
             int status = ka_options(known, "hail", usage, argv + (argc > 0));
             if (status >= 0) return status;
             if (!name) return ka_fail(KA_EXIT_USAGE, "hail: NAME is needed");
             while (times-- > 0) ka_say(1, "hello, %s%s", name, loud ? "!" : "");
         }

   CONTENTS
     ka_options, help, number, fail    what a program was started with, and what is wrong with it
     ka_find_hosts, listen_all, listen_fail, is_listener, listener_text    where it listens
     ka_say                            a line on stdout or stderr

   LIMITS
     A program has one stdout and one stderr, so what ka_say has not printed yet is the process's.
     One thread at a time. */

#ifndef KEYAUTH_H
#error "ext/cli.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_INPUT_H
#error "ext/cli.h: include ext/input.h first"
#endif
#ifndef KEYAUTH_LOOKUP_H
#error "ext/cli.h: include ext/lookup.h first"
#endif
#ifndef KEYAUTH_CLI_H
#define KEYAUTH_CLI_H

#ifdef __cplusplus
extern "C" {
#endif

/* The exit status when something cannot be had, and after a command line that makes no sense. */
enum { KA_EXIT_SYSTEM = 1, KA_EXIT_USAGE = 2 };

/* Print a line, without ever waiting for the reader of stdout or stderr. A line that can't be
   written at once is dropped and counted, and the next line that can be written is preceded by the
   number of lost lines. So a full pipe, or a terminal that was stopped by Ctrl+S, never stops a
   service. A line that was written in part is finished before the next one. Print everything by
   this function, or nothing: stdio waits.
     fd         1 or 2
     format     as for printf(3), without the line feed. 4,000 bytes of the line are kept. If the
                format begins with a carriage return and fd is a terminal, the line stays open, and
                the next such line is printed over it. NULL ends an open line
     waits      as ka_write_now */
KADEF void ka_say(int fd, const char *format, ...);

/* Print a line on stderr, as ka_say, and return status. So a program can end by
   `return ka_fail(EXIT_FAILURE, "...")`. */
KADEF int ka_fail(int status, const char *format, ...);

/* Does this word ask for help (-h, --help) or for the version (--version)? Then print usage as it
   is, or the first word of program and KA_VERSION, on stdout; and the program should end with 0. */
KADEF bool ka_help(const char *word, const char *program, const char *usage);

/* Read a whole number of 18 digits at most, without a sign. False: the text is no such number, or
   the number is not from least to most. */
KADEF bool ka_number(const char *text, long long least, long long most, long long *out);

/* An option, or an argument: a word that has its meaning by its place. Set name, and one of flag,
   text, number, parse, rest. */
typedef struct ka_option {
    const char  *name;                     /* "--port"; an argument's has no dash: "PORT" */
    bool        *flag;                     /* set to true; this option takes no value */
    const char **text;                     /* set to the value; borrowed */
    long long   *number, least, most;      /* set to the value, a number from least to most */
    long long   *second;                   /* and to another one behind a comma, if it is there */
    /* Read a value of another kind. Returns NULL, or what is needed: "seconds are needed". */
    const char *(*parse)(const struct ka_option *option, const char *value);
    void        *to;                       /* for parse */
    char      ***rest;                     /* an argument: set to the first of all further words */
} ka_option;

/* Read a command line: options, and then arguments (POSIX, XBD 12.2). A word that begins with a
   dash is an option, up to the first word that does not. What is wrong is told on stderr: an option
   that is unknown, a value that is missing, empty or no such number, a word too many.
     known      options; then arguments, in their order; then one whose name is NULL
     program    the program's name. Another word may follow it: "fleet device" prints "fleet: ..."
                and "fleet device --help lists them"
     usage      for ka_help
     argv       the words behind the program's name, and a NULL
     returns    -1: go on; else the status to exit with, which is 0 after help, or KA_EXIT_USAGE */
KADEF int ka_options(const ka_option *known, const char *program, const char *usage, char **argv);

/* Look up the addresses of hosts, by ka_resolve, and tell what is wrong.
     hosts      names or addresses (unix:PATH and fd:N are some, too), with commas between
     ips        their addresses, with commas between
     returns    -1: go on; else the status to exit with: KA_EXIT_USAGE if there is no such host */
KADEF int ka_find_hosts(char ips[KA_IPS_TEXT + 1], const char *program, const char *hosts);

/* The listeners of one port, on all addresses that --ip has named. */
typedef struct {
    int  first, n, failed;
    bool named;                       /* a name has several of the addresses */
    char ips[KA_IPS_TEXT + 1];
} ka_listeners;

/* ka_listen_as on all addresses of some hosts, as ka_find_hosts. */
KADEF int ka_listen_all(ka_listeners *l, ka_server *s, const ka_framing *framing,
                        const char *program, const char *hosts, int port);

/* Is this ka_event.listener one of them? */
KADEF bool ka_is_listener(const ka_listeners *l, int listener);

/* Write where one of them listens, by its KA_LISTENING event, and a NUL. Returns out. */
KADEF const char *ka_listener_text(char out[KA_PLACE_TEXT + 1], const ka_listeners *l,
                                   const ka_event *ev);

/* Print why nothing listens, and what to do about that. Of several addresses that one name has, it
   is enough if this machine has one.
     option     what the port was chosen by, such as "--port"
     ev         a KA_LISTENING event with an error, of one of these listeners
     returns    0: go on; or the status to exit with: KA_EXIT_USAGE or KA_EXIT_SYSTEM */
KADEF int ka_listen_fail(const char *program, ka_listeners *l, const char *option,
                         const ka_event *ev);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_CLI_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_CLI_IMPLEMENTED)
#define KEYAUTH_CLI_IMPLEMENTED

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a text: PIPE_BUF of Linux. A pipe takes all of so many bytes, or none. */
enum { KA__CLI_TEXT = 4096 };

/* What was said last on a descriptor. */
typedef struct {
    size_t             n, at;      /* bytes of the text, and how many of them are written */
    unsigned long long lost;       /* lines that were dropped since the last one that was not */
    int                open;       /* bytes of the open line; 0: no line is open */
    char               text[KA__CLI_TEXT];
} ka__cli_said;

static ka__cli_said ka__cli_out[3];

/* Write what is left of the text; false: something still is. */
static bool ka__cli_write(ka__cli_said *s, int fd)
{
    for (ptrdiff_t put = 1; s->at < s->n && put > 0; ) {
        put = ka_write_now(fd, s->text + s->at, s->n - s->at);
        if (put > 0) s->at += (size_t)put;
    }
    return s->at == s->n;
}

/* Add a format's text; what does not fit before end is left out. Returns its bytes. */
static int ka__cli_add(char *p, const char *end, const char *format, va_list args)
{
    int n = vsnprintf(p, (size_t)(end - p), format, args);
    if (n < 0) return 0;
    return n < end - p ? n : (int)(end - p) - 1;
}

static void ka__cli_say(int fd, const char *format, va_list args)
{
    ka__cli_said *s = &ka__cli_out[fd];
    const bool over = format && *format == '\r' && ka_is_terminal(fd);
    const int was = s->open;
    char *p = s->text, *const end = p + KA__CLI_TEXT - 1;      /* and a line feed */
    int n = 0;
    if (!format && !was) return;
    s->lost++;
    if (!ka__cli_write(s, fd)) return;
    if (was) *p++ = over && s->lost == 1 ? '\r' : '\n';
    if (s->lost > 1)
        p += snprintf(p, (size_t)(end - p), "(lines lost here, which nobody read: %llu)\n",
                      s->lost - 1);
    if (format) n = ka__cli_add(p, end, format + (*format == '\r'), args);
    p += n;
    /* Spaces cover what the open line has beyond this one. */
    if (over) p += snprintf(p, (size_t)(end - p), "%*s", n < was && was < 200 ? was - n : 0, "");
    else if (format) *p++ = '\n';
    s->n = (size_t)(p - s->text);
    s->at = 0;
    ka__cli_write(s, fd);
    if (s->at == 0) {
        s->n = 0;
        return;
    }
    s->lost = 0;
    s->open = over ? n : 0;
}

void ka_say(int fd, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    ka__cli_say(fd, format, args);
    va_end(args);
}

int ka_fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    ka__cli_say(2, format, args);
    va_end(args);
    return status;
}

bool ka_help(const char *word, const char *program, const char *usage)
{
    bool version = strcmp(word, "--version") == 0;
    if (!version && strcmp(word, "--help") != 0 && strcmp(word, "-h") != 0) return false;
    if (version) printf("%.*s %s\n", (int)strcspn(program, " "), program, KA_VERSION);
    else fputs(usage, stdout);
    return true;
}

bool ka_number(const char *text, long long least, long long most, long long *out)
{
    char *end;
    if (*text < '0' || *text > '9' || strlen(text) > 18) return false;
    *out = strtoll(text, &end, 10);
    return *end == 0 && *out >= least && *out <= most;
}

/* Print "program: word what", and return KA_EXIT_USAGE. */
static int ka__cli_wrong(const char *program, const char *word, const char *what)
{
    return ka_fail(KA_EXIT_USAGE, "%.*s: %s%s", (int)strcspn(program, " "), program, word, what);
}

/* -1: go on; or the status to exit with. */
static int ka__cli_value(const ka_option *o, const char *program, const char *value)
{
    char range[96] = "", first[24];
    const char *needed = range;
    const size_t n = o->second ? strcspn(value, ",") : strlen(value);
    if (o->text) {
        *o->text = value;
        return -1;
    }
    snprintf(first, sizeof first, "%.*s", (int)n, value);
    if (o->parse) needed = o->parse(o, value);
    else if (ka_number(first, o->least, o->most, o->number) &&
             (!value[n] || ka_number(value + n + 1, o->least, o->most, o->second))) return -1;
    else snprintf(range, sizeof range, "%s from %lld to %lld is needed", o->second ?
                  "one whole number, or two with a comma between," : "a whole number",
                  o->least, o->most);
    if (!needed) return -1;
    return ka_fail(KA_EXIT_USAGE, "%.*s: %s %s: %s", (int)strcspn(program, " "), program, o->name,
                   value, needed);
}

/* Behind an unknown word's name may be an address with a password, which is not shown. */
static int ka__cli_unknown(const char *program, const char *word)
{
    const size_t n = strcspn(word, "=,:@/");
    return ka_fail(KA_EXIT_USAGE, "%.*s: %.*s: no such option; %s --help lists them%s",
                   (int)strcspn(program, " "), program, (int)n, word, program,
                   word[n] == '=' ? ". A value follows a blank, not =" : "");
}

int ka_options(const ka_option *known, const char *program, const char *usage, char **argv)
{
    const ka_option *arguments = known, *o;
    int status = -1;
    while (arguments->name && *arguments->name == '-') arguments++;
    for (; status < 0 && *argv && **argv == '-'; argv++) {
        if (ka_help(*argv, program, usage)) return 0;
        for (o = known; o < arguments && strcmp(*argv, o->name) != 0; o++) {}
        if (o == arguments) return ka__cli_unknown(program, *argv);
        if (o->flag) *o->flag = true;
        else if (!*++argv || !**argv) return ka__cli_wrong(program, o->name, " needs a value");
        else status = ka__cli_value(o, program, *argv);
    }
    for (o = arguments; status < 0 && *argv && o->name && !o->rest; argv++, o++)
        status = ka__cli_value(o, program, *argv);
    if (o->rest) *o->rest = argv;
    if (status >= 0 || !*argv || o->rest) return status;
    if (!arguments->name) return ka__cli_unknown(program, *argv);
    return ka__cli_wrong(program, *argv, " is a word too many: options come first");
}

int ka_find_hosts(char ips[KA_IPS_TEXT + 1], const char *program, const char *hosts)
{
    char *end = ips;
    for (const char *p = hosts; p; ) {
        char host[KA_MAX_HOST + 1], found[KA_IPS_TEXT + 1];
        size_t n = strcspn(p, ","), room = (size_t)(ips + KA_IPS_TEXT - end);
        snprintf(host, sizeof host, "%.*s", (int)n, p);
        p = p[n] ? p + n + 1 : NULL;
        int r = n < sizeof host ? KA_OK : KA_ENOTFOUND;
        const bool socket = strncmp(host, "unix:", 5) == 0 || strncmp(host, "fd:", 3) == 0;
        if (socket) memcpy(found, host, sizeof host);
        else if (r == KA_OK) r = ka_resolve(host, found);
        if (r == KA_ENOTFOUND)
            return ka_fail(KA_EXIT_USAGE, "%s: %s: there is no such host; an address is, for "
                           "example, 127.0.0.2 or ::1", program, host);
        if (r == KA_OK && strlen(found) + 1 > room) r = KA_ENOSPC;
        if (r < 0)
            return ka_fail(KA_EXIT_SYSTEM, "%s: cannot look up %s: %s", program, host,
                           r == KA_ETIME ? "no name server answers; an address needs none" :
                           ka_error_text(r));
        end += snprintf(end, room + 1, "%s%s", end > ips ? "," : "", found);
    }
    return -1;
}

int ka_listen_all(ka_listeners *l, ka_server *s, const ka_framing *framing, const char *program,
                  const char *hosts, int port)
{
    char ip[KA_IP_TEXT + 1];
    const char *left = l->ips;
    size_t commas = 0;
    *l = (ka_listeners){ .first = -1 };
    int status = ka_find_hosts(l->ips, program, hosts);
    if (status >= 0) return status;
    for (const char *p = hosts; *p; p++) commas += *p == ',';
    while (ka_next_ip(&left, ip)) {
        int r = ka_listen_as(s, framing, ip, port);
        if (r == KA_ELIMIT)
            return ka_fail(KA_EXIT_USAGE, "%s: --ip: these are too many addresses", program);
        if (r < 0) break;      /* it has been told to stop */
        if (l->n++ == 0) l->first = r;
    }
    l->named = (size_t)l->n > commas + 1;
    return -1;
}

bool ka_is_listener(const ka_listeners *l, int listener)
{
    return listener >= l->first && listener - l->first < l->n;
}

/* The address of a listener. */
static void ka__cli_ip(char ip[KA_IP_TEXT + 1], const ka_listeners *l, int listener)
{
    const char *left = l->ips;
    for (int i = l->first; i <= listener && ka_next_ip(&left, ip); i++) {}
}

const char *ka_listener_text(char out[KA_PLACE_TEXT + 1], const ka_listeners *l,
                             const ka_event *ev)
{
    char ip[KA_IP_TEXT + 1] = "";
    ka__cli_ip(ip, l, ev->listener);
    if (strncmp(ip, "fd:", 3) == 0 && ev->port) return ka_end_text(out, ev->peer);
    return ka_place_text(out, ip, ev->port);
}

/* The words for people. */
static const char *ka__cli_trouble(char out[KA_TROUBLE_TEXT], const char *ip, const char *option,
                                   const ka_event *ev)
{
    char at[KA_PLACE_TEXT + 1];
    const char *add = strncmp(ip, "127.", 4) == 0 ? ka_alias_command() : NULL;
    const int port = ev->port, code = ev->os_error;
    const bool path = strncmp(ip, "unix:", 5) == 0;
    ka_place_text(at, ip, port);
    if (path && ev->error == KA_EINVAL)
        snprintf(out, KA_TROUBLE_TEXT, "--ip unix:PATH: a path of 1 to 107 bytes is needed; "
                 "Windows has no Unix sockets");
    else if (path && ev->error == KA_EINUSE)
        snprintf(out, KA_TROUBLE_TEXT, "%s is taken by another program, or no socket; choose "
                 "another path", ip);
    else if (path)
        snprintf(out, KA_TROUBLE_TEXT, "cannot listen on %s (system error %d); make its folder, or "
                 "choose another path", ip, code);
    else if (strncmp(ip, "fd:", 3) == 0)
        snprintf(out, KA_TROUBLE_TEXT, "--ip %.20s: this is no socket that listens; it is for "
                 "service managers, and not for Windows", ip);
    else if (ev->error == KA_EINVAL)
        snprintf(out, KA_TROUBLE_TEXT, "--ip %s: a link-local address needs its interface, such as "
                 "fe80::1%%eth0", ip);
    else if (ev->error == KA_EINUSE)
        snprintf(out, KA_TROUBLE_TEXT, "%.80s is taken by another program; stop that one, "
                 "or choose another %s", at, option);
    else if (ev->error == KA_EADDR && add)
        snprintf(out, KA_TROUBLE_TEXT, "%.15s is not an address of this machine; add it first: "
                 "%s %.15s up", ip, add, ip);
    else if (ev->error == KA_EADDR)
        snprintf(out, KA_TROUBLE_TEXT, "%s is not an address of this machine; choose another --ip",
                 ip);
    else if (ev->error == KA_EFAMILY)
        snprintf(out, KA_TROUBLE_TEXT, "%s: this machine has no IPv6; choose an IPv4 address as "
                 "--ip", ip);
    else if (ev->error == KA_EPERM && port > 0 && port < 1024)
        snprintf(out, KA_TROUBLE_TEXT, "%.80s: not permitted; choose a %s from 1024 up", at,
                 option);
    else if (ev->error == KA_EPERM)
        snprintf(out, KA_TROUBLE_TEXT, "%.80s: a sandbox forbids this process to listen, or "
                 "to accept connections (system error %d); look at its rules", at, code);
    else
        snprintf(out, KA_TROUBLE_TEXT, "cannot listen on %.80s: %s (system error %d)", at,
                 ka_error_text(ev->error), code);
    return out;
}

int ka_listen_fail(const char *program, ka_listeners *l, const char *option, const ka_event *ev)
{
    char why[KA_TROUBLE_TEXT], ip[KA_IP_TEXT + 1] = "";
    int status = ev->error == KA_EINVAL ? KA_EXIT_USAGE : KA_EXIT_SYSTEM;
    bool absent = ev->error == KA_EADDR || ev->error == KA_EFAMILY;
    if (absent && l->named && ++l->failed < l->n) return 0;
    ka__cli_ip(ip, l, ev->listener);
    return ka_fail(status, "%s: %s", program, ka__cli_trouble(why, ip, option, ev));
}

#endif /* KEYAUTH_CLI_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
