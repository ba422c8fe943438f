/* simulator.h - fleet device: simulated devices, one or a hundred thousand of them, in one process.

   Each device is a scooter somewhere in a city. Running it moves and its charge falls, resting it
   stands and charges. One thread plays all of them; what a device does next is a timer. All that is
   random follows from the seed. */

#ifndef FLEET_SIMULATOR_H
#define FLEET_SIMULATOR_H

#include "fleet.h"

static const char sim_usage[] =
    "usage: fleet device [--count N] [--report-every S] [--ping-every S] [--seed N] [--id UUID]\n"
    "                    [--quiet] HOST PORT\n"
    "       fleet device --help\n"
    "\n"
    "Simulates devices of the fleet server at HOST and PORT. A lost connection is made again\n"
    "after 100 ms, 105 ms, ...\n"
    "  --count N          devices, 1 to 100000 (default 1)\n"
    "  --report-every S   seconds between reports, until a command changes that (default 10);\n"
    "                     0: never\n"
    "  --ping-every S     seconds between PINGs (default 60); 0: never\n"
    "  --seed N           the seed of all random choices and UUIDs, which is printed (default:\n"
    "                     random)\n"
    "  --id UUID          the id of the one device\n"
    "  --quiet            show neither messages nor figures\n"
    "\n"
    "A single device shows sent messages by >, and received ones by <. It sends the lines that\n"
    "you type: ERROR sends WTF! with a stack trace, GOTTA GO. says goodbye and ends. Several devices\n"
    "show figures each second, and sums at Ctrl+C.\n"
    "\n"
    "Exit status: 0 stopped by Ctrl+C or SIGTERM, or all devices have said goodbye; 1 could not\n"
    "run; 2 wrong usage.\n";

enum {
    SIM_SPARE = 100,                /* descriptors of a worker that are for no device */
    SIM_PORTS = 12000,              /* devices of a source address: beyond 14,000 Linux is slow to
                                       find a free port */
    SIM_CONNECTS = 5,               /* devices that connect in a millisecond, at the start */
    SIM_LAT = 52520000, SIM_LON = 13405000,      /* the middle of Berlin, millionths of a degree */
    SIM_SPREAD = 60000,             /* how far from there devices begin: 6 km */
    SIM_MOVE_MS = 60000,            /* a device that is asked later than that has stood meanwhile */
    SIM_RIVALS = 6,                 /* a device whose id others have waits 2 s, 4, 8... up to 64 */
    SIM_FULL = 100000,              /* charge, in thousandths of a percent */
    SIM_EMPTY = 1000,               /* with less charge a device can't run */
    SIM_DRAIN = 50, SIM_CHARGE = 150,            /* the charge that a second takes and gives */
    SIM_LINEAR = 64, SIM_BUCKETS = SIM_LINEAR / 2 * 40
};

/* A device's state. When ka_stop ends all connections, no device connects again: so a lost one
   counts as online until it does.
     AWAY      not connected, or connecting
     LOST      its connection was lost
     OPEN      connected, and not greeted yet
     ONLINE    greeted
     LEAVING   it has said goodbye
     GONE      it does not come back */
enum { SIM_AWAY, SIM_LOST, SIM_OPEN, SIM_ONLINE, SIM_LEAVING, SIM_GONE };

/* What a timer is for. Its tag has this in 8 bits, the round of reports that it belongs to in 32,
   and the device in 24. Timers are never called off: those of an older round are ignored. */
enum { SIM_CONNECT, SIM_PING, SIM_REPORT, SIM_FIGURES };

typedef struct {
    char     id[KA_UUID_TEXT + 1], server[KA_UUID_TEXT + 1];
    uint64_t conn, random;
    int64_t  moved_ms;
    int64_t  ping_us, report_us;    /* when the unanswered one was sent; 0: none is */
    int32_t  lat, lon, north, east; /* millionths of a degree; and of them, a second */
    int32_t  charge, every_s;
    uint32_t round, misses;
    uint8_t  state;
    uint8_t  rivals;                /* how often another connection had its id since a PONG. */
    bool     running;
} sim_device;

typedef struct { uint64_t n, buckets[SIM_BUCKETS]; } sim_histogram;

typedef struct {
    ka_server  *s;
    ka_timers   timers;
    const char *host, *id;
    char        ips[KA_IPS_TEXT + 1], place[KA_PLACE_TEXT + 1];
    long long   port, count, report_s, ping_s, seed, workers;
    bool        quiet, sources;     /* connect from several addresses */
    int         status;
    sim_device *devices;
    uint32_t   *owner;              /* of a connection, by ka_conn_index */
    size_t      owner_room;
    uint32_t    online, gone;
    int64_t     begun_ms, shown_ms;
    uint64_t    sent, received, shown_sent, shown_received, commands;
    uint64_t    connects, lost, refused, strange;
    sim_histogram second, all;
    char        text[KA_MAX_BODY], out[KA_MAX_BODY + 512], shown[6 * KA_MAX_BODY + 8];
} sim;

/* ---- what is random: splitmix64 ---- */

static uint64_t sim_random(sim_device *d)
{
    uint64_t z = d->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* From -most to most. */
static int32_t sim_within(sim_device *d, int32_t most)
{
    return (int32_t)(sim_random(d) % (uint64_t)(2 * most + 1)) - most;
}

static int64_t sim_spread(sim_device *d, int64_t ms)
{
    return (int64_t)(sim_random(d) % (uint64_t)ms);
}

static void sim_make(sim *m, uint32_t i)
{
    sim_device *d = &m->devices[i];
    d->random = (uint64_t)m->seed;
    d->random = sim_random(d) + i;
    d->random = sim_random(d);
    uint64_t a = sim_random(d), b = sim_random(d);
    snprintf(d->id, sizeof d->id, "%08lx-%04lx-4%03lx-%04lx-%012llx", (unsigned long)(a >> 32),
             (unsigned long)(a >> 16 & 0xffff), (unsigned long)(a & 0xfff),
             (unsigned long)(0x8000 | (b >> 48 & 0x3fff)),
             (unsigned long long)(b & 0xffffffffffff));
    if (m->id) ka_uuid_read(d->id, (ka_str){ m->id, strlen(m->id) });
    d->lat = SIM_LAT + sim_within(d, SIM_SPREAD);
    d->lon = SIM_LON + sim_within(d, SIM_SPREAD * 5 / 3);      /* a degree is shorter there */
    d->charge = (int32_t)(sim_random(d) % (SIM_FULL + 1));
    d->running = d->charge > SIM_FULL / 5 && sim_random(d) % 2;
    d->every_s = (int32_t)m->report_s;
    d->moved_ms = m->begun_ms;
}

/* ---- the times that replies took; buckets 1 us wide up to 64, then 32 to each power of 2 ---- */

static void sim_measure(sim *m, int64_t *since_us)
{
    int64_t us = ka_now_us() - *since_us;
    size_t shift = 0;
    if (*since_us == 0) return;
    *since_us = 0;
    while (us >> shift >= SIM_LINEAR) shift++;
    size_t bucket = shift * (SIM_LINEAR / 2) + (size_t)(us >> shift);
    if (bucket >= SIM_BUCKETS) bucket = SIM_BUCKETS - 1;
    m->second.buckets[bucket]++;
    m->second.n++;
    m->all.buckets[bucket]++;
    m->all.n++;
}

/* The milliseconds that so many of 1000 stayed below. */
static double sim_percentile(const sim_histogram *h, uint64_t part)
{
    uint64_t seen = 0;
    size_t i = 0;
    while (i < SIM_BUCKETS && (seen += h->buckets[i]) * 1000 < h->n * part) i++;
    size_t shift = ++i < SIM_LINEAR ? 0 : i / (SIM_LINEAR / 2) - 1;
    return h->n ? (double)((uint64_t)(i - shift * (SIM_LINEAR / 2)) << shift) / 1000 : 0;
}

static void sim_figures(sim *m, int64_t now_ms)
{
    double s = now_ms > m->shown_ms ? (double)(now_ms - m->shown_ms) / 1000 : 1;
    ka_say(2, "\rfleet: %u online, %.0f messages/s sent, %.0f received, p99 %.1f ms",
           (unsigned)m->online, (double)(m->sent - m->shown_sent) / s,
           (double)(m->received - m->shown_received) / s, sim_percentile(&m->second, 990));
    m->second = (sim_histogram){ .n = 0 };
    m->shown_ms = now_ms;
    m->shown_sent = m->sent;
    m->shown_received = m->received;
}

static int sim_sums(const sim *m)
{
    double s = (double)(ka_now_ms() - m->begun_ms) / 1000;
    ka_say(2, NULL);
    printf("devices      %lld, %u online at the end, %u said goodbye\n", m->count,
           (unsigned)m->online, (unsigned)m->gone);
    printf("messages     %llu sent, %llu received in %.1f s; %llu commands; %llu not understood\n",
           (unsigned long long)m->sent, (unsigned long long)m->received, s,
           (unsigned long long)m->commands, (unsigned long long)m->strange);
    printf("replies      %llu, ms: p50 %.3f, p99 %.3f, max %.3f\n", (unsigned long long)m->all.n,
           sim_percentile(&m->all, 500), sim_percentile(&m->all, 990),
           sim_percentile(&m->all, 1000));
    printf("connections  %llu, %llu lost, %llu refused\n", (unsigned long long)m->connects,
           (unsigned long long)m->lost, (unsigned long long)m->refused);
    return fflush(stdout) == 0 ? EXIT_DONE : fail(EXIT_FAILED, "the sums could not be written");
}

/* ---- what a device is ---- */

static void sim_move(sim_device *d, int64_t now_ms)
{
    int64_t ms = now_ms - d->moved_ms, moves_ms = ms < SIM_MOVE_MS ? ms : SIM_MOVE_MS;
    int64_t charge = d->charge + (d->running ? -SIM_DRAIN : SIM_CHARGE) * ms / 1000;
    d->moved_ms = now_ms;
    d->charge = (int32_t)(charge < 0 ? 0 : charge > SIM_FULL ? SIM_FULL : charge);
    if (!d->running) return;
    /* It keeps its direction, and does not leave the city. */
    d->north = d->north * 3 / 4 + sim_within(d, 60) - (d->lat - SIM_LAT) / 2000;
    d->east = d->east * 3 / 4 + sim_within(d, 100) - (d->lon - SIM_LON) / 2000;
    d->lat += (int32_t)(d->north * moves_ms / 1000);
    d->lon += (int32_t)(d->east * moves_ms / 1000);
    d->running = d->charge >= SIM_EMPTY;
}

/* "REPORT." or "FINE.", and how it is. */
static void sim_condition(sim_device *d, const char *word, int64_t now_ms, char text[MAX_COMMAND])
{
    sim_move(d, now_ms);
    snprintf(text, MAX_COMMAND, "%s I'M HERE %d.%06d %d.%06d, %s AND CHARGED AT %d%%.", word,
             (int)d->lat / 1000000, (int)d->lat % 1000000, (int)d->lon / 1000000,
             (int)d->lon % 1000000, d->running ? "RUNNING" : "RESTING", (int)d->charge / 1000);
}

/* The seconds of KEEP ME POSTED EVERY <n> SECONDS.; -1: it is something else. */
static int32_t sim_posted(const char *text)
{
    static const char begin[] = "KEEP ME POSTED EVERY ";
    char again[64];
    long s = strncmp(text, begin, sizeof begin - 1) == 0 ? strtol(text + sizeof begin - 1, NULL, 10)
                                                         : -1;
    snprintf(again, sizeof again, "%s%ld SECONDS.", begin, s);
    return s >= 0 && s <= 86400 && strcmp(text, again) == 0 ? (int32_t)s : -1;
}

/* ---- what it says ---- */

static void sim_stop(sim *m, int status)
{
    if (m->status == EXIT_DONE) m->status = status;
    ka_stop(m->s);
}

static void sim_timer(sim *m, int64_t at_ms, int kind, const sim_device *d)
{
    uint64_t tag = (uint64_t)kind << 56 | (uint64_t)(kind == SIM_REPORT ? d->round : 0) << 24 |
                   (uint64_t)(d - m->devices);
    if (ka_timer(&m->timers, at_ms, tag) < 0)
        sim_stop(m, fail(EXIT_FAILED, "out of memory; choose a smaller --count"));
}

/* A message, written anew as in JSON, so that it can't play with the terminal. */
static void sim_show(sim *m, char mark, ka_str text)
{
    ka_json_out w = { .p = m->shown, .cap = sizeof m->shown };
    if (m->count > 1 || m->quiet) return;
    ka_json_put(&w, NULL, text);
    printf("%c %.*s\n", mark, w.n < 2 ? 0 : (int)w.n - 2, m->shown + 1);
    fflush(stdout);
}

/* KA_OK; or KA_ESYNTAX, KA_ENOSPC: that can't be sent. */
static int sim_send(sim *m, const sim_device *d, const char *type, ka_str text)
{
    ka_json_out w = { .p = m->out, .cap = sizeof m->out };
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put(&w, "type", (ka_str){ type, strlen(type) });
    ka_json_put(&w, "message", text);
    ka_json_put(&w, "clientId", (ka_str){ d->id, KA_UUID_TEXT });
    ka_json_put(&w, "serverId", (ka_str){ *d->server ? d->server : NULL, KA_UUID_TEXT });
    ka_json_close(&w);
    if (w.error) return w.error;
    ka_send(m->s, d->conn, m->out, w.n);
    m->sent++;
    sim_show(m, '>', text);
    return KA_OK;
}

static void sim_say(sim *m, const sim_device *d, const char *type, const char *text)
{
    sim_send(m, d, type, (ka_str){ text, strlen(text) });
}

static void sim_ping(sim *m, sim_device *d)
{
    if (d->state != SIM_ONLINE) return;
    if (!d->ping_us) d->ping_us = ka_now_us();
    sim_say(m, d, "message", "PING.");
}

static void sim_report(sim *m, sim_device *d, int64_t now_ms)
{
    char text[MAX_COMMAND];
    if (d->state != SIM_ONLINE) return;
    sim_condition(d, "REPORT.", now_ms, text);
    if (!d->report_us) d->report_us = ka_now_us();
    sim_say(m, d, "message", text);
}

/* ---- what it hears ---- */

/* It reports at once, so that it has a place on every map. */
static void sim_greeted(sim *m, sim_device *d, int64_t now_ms)
{
    if (d->state != SIM_OPEN) return;
    d->state = SIM_ONLINE;
    d->misses = 0;
    m->online++;
    if (d->every_s) sim_report(m, d, now_ms);
}

static void sim_reply(sim *m, sim_device *d, const ka_json *text, int64_t now_ms)
{
    if (ka_json_is(text, "PONG.")) d->rivals = 0;
    if (ka_json_is(text, "PONG.")) sim_measure(m, &d->ping_us);
    else if (ka_json_is(text, "OK, THANKS!")) sim_measure(m, &d->report_us);
    else if (ka_json_is(text, "HI, NICE TO MEET YOU!")) sim_greeted(m, d, now_ms);
    else if (ka_json_is(text, "SEE YA!")) ka_close(m->s, d->conn);
    else if (!ka_json_is(text, "DAAAMN! ISSUE REPORTED ON JIRA")) m->strange++;
}

static bool sim_run(sim_device *d, bool run, int64_t now_ms)
{
    sim_move(d, now_ms);
    if (run && d->charge < SIM_EMPTY) return false;
    d->running = run;
    return true;
}

static void sim_leave(sim *m, sim_device *d)
{
    m->online -= d->state == SIM_ONLINE;
    d->state = SIM_LEAVING;
}

/* Do what was asked for, and say what came of it. */
static void sim_obey(sim *m, sim_device *d, ka_str command, int64_t now_ms)
{
    char text[MAX_COMMAND] = "", fine[MAX_COMMAND];
    const char *reply = "I CAN'T, SORRY.";
    if (command.n < sizeof text) memcpy(text, command.p, command.n);
    int32_t every_s = sim_posted(text);
    m->commands++;
    if (every_s >= 0) {
        d->every_s = every_s;
        d->round++;
        if (every_s) sim_timer(m, now_ms + every_s * 1000, SIM_REPORT, d);
        reply = "SURE, I WILL!";
    } else if (strcmp(text, "HEY YOU, RUN!") == 0 || strcmp(text, "HEY YOU, REST!") == 0) {
        if (sim_run(d, strcmp(text, "HEY YOU, RUN!") == 0, now_ms)) reply = "DONE!";
    } else if (strcmp(text, "HOW'S IT GOING?") == 0) {
        sim_condition(d, "FINE.", now_ms, fine);
        reply = fine;
    } else if (strcmp(text, "GOTTA GO.") == 0) {
        reply = "SEE YA!";
    }
    sim_say(m, d, "reply", reply);
    if (strcmp(reply, "SEE YA!") != 0) return;
    sim_leave(m, d);
    ka_close(m->s, d->conn);
}

static void sim_hear(sim *m, sim_device *d, const ka_event *ev)
{
    ka_json all, type, text, server;
    ptrdiff_t n = -1;
    if (ev->error) return;              /* KA_CLOSED follows */
    m->received++;
    if (ka_json_read(&all, ev->body) == KA_OK && ka_json_find(&all, "type", &type) == KA_OK &&
        ka_json_find(&all, "message", &text) == KA_OK)
        n = ka_json_string(m->text, sizeof m->text, &text);
    if (n < 0) {
        m->strange++;
        return;
    }
    sim_show(m, '<', (ka_str){ m->text, (size_t)n });
    if (ka_json_is(&type, "connected")) {
        char hello[MAX_COMMAND];
        if (ka_json_find(&all, "serverId", &server) == KA_OK && server.raw.n == KA_UUID_TEXT + 2)
            ka_json_string(d->server, KA_UUID_TEXT, &server);
        snprintf(hello, sizeof hello, "HELLO, I'M %s!", d->id);
        sim_say(m, d, "message", hello);
    } else if (ka_json_is(&type, "reply")) {
        sim_reply(m, d, &text, ev->now_ms);
    } else if (ka_json_is(&type, "command") && d->state != SIM_LEAVING) {
        sim_obey(m, d, (ka_str){ m->text, (size_t)n }, ev->now_ms);
    } else if (ka_json_is(&type, "displaced")) {
        if (d->rivals < SIM_RIVALS) d->rivals++;
        if (m->count == 1) note("another device has this id; connecting again in %d s",
                                1 << d->rivals);
    }
}

/* ---- its connection ---- */

static void sim_connect(sim *m, sim_device *d)
{
    uint32_t i = (uint32_t)(d - m->devices);
    char from[16], ip[KA_IP_TEXT + 1];
    const char *left = m->ips;
    snprintf(from, sizeof from, "127.1.0.%u", 1 + (unsigned)(i / SIM_PORTS));
    for (unsigned at = 0; ka_next_ip(&left, ip) && at < d->misses; at++)
        if (!*left) left = m->ips;      /* each attempt takes the next address */
    int r = ka_connect(m->s, &ka_objects, m->sources ? from : NULL, ip, (int)m->port, i);
    if (r == KA_EINVAL)
        sim_stop(m, fail(EXIT_USAGE, "%s: the address of one machine is needed", m->host));
    if (r < 0 || d->state != SIM_LOST) return;
    d->state = SIM_AWAY;
    m->online--;
    m->lost++;
    if (m->count == 1) note("the connection was lost; connecting again");
}

static int64_t sim_again(sim *m, sim_device *d, uint8_t state, int64_t now_ms)
{
    int64_t delay_ms = KA_RETRY_FIRST_MS + (int64_t)d->misses * KA_RETRY_STEP_MS;
    if (d->rivals) delay_ms = 1000 << d->rivals;
    if (m->count > 1) delay_ms += sim_spread(d, delay_ms);
    if (d->misses < UINT16_MAX) d->misses++;
    d->state = state;
    sim_timer(m, now_ms + delay_ms, SIM_CONNECT, d);
    return delay_ms;
}

static void sim_missed(sim *m, sim_device *d, const char *why, int64_t now_ms)
{
    int64_t delay_ms = sim_again(m, d, SIM_AWAY, now_ms);
    m->refused++;
    if (m->count == 1 && (d->misses & (d->misses - 1)) == 0)
        note("cannot connect to %s: %s (miss %u); trying again in %lld ms", m->place, why,
             (unsigned)d->misses, (long long)delay_ms);
}

/* What came of ka_connect. */
static void sim_opened(sim *m, sim_device *d, const ka_event *ev)
{
    if (ev->error == KA_EADDR && m->sources) {
        const char *add = ka_alias_command();
        sim_stop(m, fail(EXIT_FAILED, "more than %d devices need the source addresses 127.1.0.1 "
                         "to 127.1.0.%lld; give them to this machine%s%s%s", SIM_PORTS,
                         1 + (m->count - 1) / SIM_PORTS, add ? ", each by " : "",
                         add ? add : "", add ? " 127.1.0.1" : ""));
    } else if (ev->error && ev->error != KA_ESTOPPED) {
        sim_missed(m, d, ka_error_text(ev->error), ev->now_ms);
    }
    if (ev->error) return;
    size_t at = ka_conn_index(m->s, ev->conn), room = m->owner_room;
    while (room <= at) room = room ? 2 * room : 64;
    uint32_t *owner = room > m->owner_room ? realloc(m->owner, room * sizeof *owner) : m->owner;
    if (!owner) {
        sim_stop(m, fail(EXIT_FAILED, "out of memory; choose a smaller --count"));
        return;
    }
    m->owner = owner;
    m->owner_room = room;
    owner[at] = (uint32_t)ev->tag;
    d->conn = ev->conn;
    d->state = SIM_OPEN;
    d->ping_us = d->report_us = 0;
    m->connects++;
}

static void sim_closed(sim *m, sim_device *d, int64_t now_ms)
{
    if (d->state == SIM_ONLINE) sim_again(m, d, SIM_LOST, now_ms);
    if (d->state == SIM_OPEN) sim_missed(m, d, "closed without a greeting", now_ms);
    if (d->state != SIM_LEAVING) return;
    d->state = SIM_GONE;
    if (++m->gone == m->count) ka_stop(m->s);
}

/* ---- the loop ---- */

/* A line that was typed. */
static void sim_typed(sim *m, sim_device *d, ka_str line)
{
    static const char issue[] =
        "WTF! 125\nTraceback (most recent call last):\n"
        "  File \"scooter.py\", line 42, in turn\n    wheel.start(current)\n"
        "MotorError: too hot (91 C)\n";
    bool open = d->state == SIM_OPEN || d->state == SIM_ONLINE, leaves = ka_is(line, "GOTTA GO.");
    if (ka_is(line, "ERROR")) line = (ka_str){ issue, sizeof issue - 1 };
    if (leaves && d->state < SIM_OPEN) ka_stop(m->s);
    else if (!open) note("not connected; the line was not sent");
    else if (sim_send(m, d, "message", line) < 0)
        note("the line is not UTF-8, or too long; it was not sent");
    else if (leaves) sim_leave(m, d);
}

static void sim_timed(sim *m, uint64_t tag, int64_t now_ms)
{
    sim_device *d = &m->devices[tag & 0xffffff];
    int kind = (int)(tag >> 56);
    if (kind == SIM_FIGURES) {
        if (m->count > 1 && !m->quiet) sim_figures(m, now_ms);
        sim_timer(m, now_ms + 1000, SIM_FIGURES, d);
    } else if (kind == SIM_CONNECT) {
        if (d->state != SIM_GONE) sim_connect(m, d);
    } else if (d->state == SIM_GONE) {
        return;
    } else if (kind == SIM_PING) {
        sim_ping(m, d);
        sim_timer(m, now_ms + m->ping_s * 1000, SIM_PING, d);
    } else if (d->round == (uint32_t)(tag >> 24)) {
        sim_report(m, d, now_ms);
        sim_timer(m, now_ms + d->every_s * 1000, SIM_REPORT, d);
    }
}

static void sim_event(sim *m, const ka_event *ev)
{
    if (ev->kind == KA_TIMER) {
        sim_timed(m, ev->tag, ev->now_ms);
        return;
    }
    if (ev->kind == KA_INPUT) {
        if (!ev->error) sim_typed(m, m->devices, ev->body);
        return;
    }
    bool opened = ev->kind == KA_OPENED;
    uint32_t i = opened ? (uint32_t)ev->tag : m->owner[ka_conn_index(m->s, ev->conn)];
    sim_device *d = &m->devices[i];
    if (opened) sim_opened(m, d, ev);
    else if (ev->kind == KA_MESSAGE) sim_hear(m, d, ev);
    else if (ev->kind == KA_CLOSED) sim_closed(m, d, ev->now_ms);
}

static void sim_begin(sim *m)
{
    m->begun_ms = m->shown_ms = ka_now_ms();
    for (uint32_t i = 0; i < (uint32_t)m->count; i++) {
        sim_device *d = &m->devices[i];
        sim_make(m, i);
        sim_timer(m, m->begun_ms + i / SIM_CONNECTS, SIM_CONNECT, d);
        if (m->ping_s) sim_timer(m, m->begun_ms + sim_spread(d, m->ping_s * 1000), SIM_PING, d);
        if (m->report_s)
            sim_timer(m, m->begun_ms + sim_spread(d, m->report_s * 1000), SIM_REPORT, d);
    }
    sim_timer(m, m->begun_ms + 1000, SIM_FIGURES, m->devices);
}

/* -1: go on; otherwise exit with this. */
static int sim_parse(sim *m, char **argv)
{
    const ka_option known[] = {
        { "--count", .number = &m->count, .least = 1, .most = MAX_DEVICES },
        { "--report-every", .number = &m->report_s, .most = 86400 },
        { "--ping-every", .number = &m->ping_s, .most = 86400 },
        { "--seed", .number = &m->seed, .most = 999999999999999999 },
        { "--id", .text = &m->id },
        { "--quiet", .flag = &m->quiet },
        { "HOST", .text = &m->host },
        { "PORT", .number = &m->port, .least = 1, .most = 65535 },
        { .name = NULL }
    };
    char id[KA_UUID_TEXT + 1];
    int status = ka_options(known, "fleet device", sim_usage, argv);
    if (status >= 0) return status;
    if (!m->port)
        return fail(EXIT_USAGE, "HOST and PORT are needed; fleet device --help tells more");
    if (m->id && m->count > 1)
        return fail(EXIT_USAGE, "--id is for one device, not for --count %lld", m->count);
    if (m->id && ka_uuid_read(id, (ka_str){ m->id, strlen(m->id) }) < 0)
        return fail(EXIT_USAGE, "--id %s: a UUID is needed, such as "
                    "01234567-89ab-4cde-8f01-23456789abcd", m->id);
    return -1;
}

/* Find the address, the seed, and how many workers: where each has a descriptor limit of its own,
   as many as hold all devices. -1: go on; else exit with this. */
static int sim_prepare(sim *m)
{
    bool each;
    uint32_t fresh;
    int limit = ka_descriptors_raise(&each), status = ka_find_hosts(m->ips, "fleet", m->host);
    long long most = limit < 0 ? 0 : (long long)limit - SIM_SPARE;
    if (status >= 0) return status;
    ka_place_text(m->place, m->host, (int)m->port);
    m->workers = most > 0 && each ? (m->count + most - 1) / most : 1;
    if (most <= 0 || m->workers > KA_MAX_WORKERS || (!each && m->count > most))
        return fail(EXIT_FAILED,
                    "--count %lld is more than the descriptor limit of %d allows, less %d for "
                    "other things; raise it (ulimit -n), or choose a smaller one",
                    m->count, limit, SIM_SPARE);
    if (m->seed < 0 && ka_random(&fresh, sizeof fresh) < 0)
        return fail(EXIT_FAILED, "%s", ka_error_text(KA_ERANDOM));
    if (m->seed < 0) m->seed = fresh;
    m->sources = m->count > SIM_PORTS && strncmp(m->ips, "127.", 4) == 0;
    m->devices = calloc((size_t)m->count, sizeof *m->devices);
    if (!m->devices) return fail(EXIT_FAILED, "out of memory; choose a smaller --count");
    int r = ka_server_start(&m->s, (int)m->workers + KA_OWN_DESCRIPTORS);
    if (r == KA_OK) {
        ka_timers_init(&m->timers, m->s);
        r = ka_stop_on_interrupt(m->s);
    }
    if (r == KA_OK && m->count == 1) r = ka_input_start(m->s);
    return r < 0 ? fail(EXIT_FAILED, "cannot start: %s", ka_error_text(r)) : -1;
}

static int simulate(int argc, char **argv)
{
    sim *m = calloc(1, sizeof *m);
    if (!m) return fail(EXIT_FAILED, "out of memory");
    m->count = 1;
    m->report_s = 10;
    m->ping_s = 60;
    m->seed = -1;
    int status = sim_parse(m, argv + (argc > 1 ? 2 : argc));
    if (status < 0) status = sim_prepare(m);
    if (status < 0) {
        sim_begin(m);
        if (!m->quiet)
            note("%lld device%s, %s, seed %lld", m->count, m->count > 1 ? "s" : "", m->place,
                 m->seed);
        for (ka_event ev; ka_wait(m->s, &ev, -1) == KA_OK; ) sim_event(m, &ev);
        status = m->count > 1 && m->status == EXIT_DONE ? sim_sums(m) : m->status;
    }
    ka_input_stop();
    ka_server_free(m->s);
    ka_timers_free(&m->timers);
    free(m->devices);
    free(m->owner);
    free(m);
    return status;
}

#endif
