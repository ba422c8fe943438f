/* fleet.h - what the parts of fleet share: limits, types, and what each part offers to the others.

   The parts are headers of one program. Each includes what it needs, so their order is free.
     fleet.c       options, and the loop that hands each event to its part
     devices.h     the devices that are known, their protocol over TCP, and commands to them
     state.h       devices in a file (--state)
     share.h       devices in Redis (--redis): one fleet of several instances
     rest.h        the REST API, its OpenAPI document, and server-sent events
     page.h        the page /docs
     hooks.h       webhooks
     simulator.h   fleet device: devices that are simulated

   One parent thread owns all data. Every instance knows every device. It knows the devices that are
   connected to itself from themselves, and the others from Redis. There each change is put (a hash
   for each device) and published (pub/sub) in one step, a script. So any instance answers for every
   device. While Redis is down it answers by what it knew last. A new instance reads the hashes
   first.

   An owner token, INSTANCE:NUMBER, tells whose connection a device has. It is new for each
   connection: a fencing token. A connection that says hello claims the device, whoever had it.
   Every other change is made only if the device in Redis still has the owner token that the
   instance knows. So the newest connection wins, in the order in which Redis saw the claims. What
   an older connection still says of the device is refused, even that it is offline, and its
   instance closes it. When an instance falls silent, the others make its devices offline by the
   same rule. So one of them succeeds for each device, and only that one forwards the change.

   A change is one JSON text, made once, for subscribers of /events, for webhooks and for Redis:
     {"id": UUID of the change, "at": UTC, "changes": ["position", "charge"],
      "vehicle": {...as of GET /vehicles/:id}, "blob": "..."}          blob: if that is a change
   The instance that made a change sends its webhook. /events tells of it on every instance. */

#ifndef FLEET_H
#define FLEET_H

#define KEYAUTH_STATIC
#define KA_MAX_BODY 65536
#define KA_ANSWER_MS 3720000      /* above the longest --timeout, an hour */
#include "keyauth.h"
#include "ext/input.h"
#include "ext/lookup.h"
#include "ext/cli.h"
#include "ext/file.h"
#include "ext/framing.h"
#include "ext/json.h"
#include "ext/log.h"
#include "ext/process.h"
#include "ext/redis.h"
#include "ext/route.h"
#include "ext/site.h"
#include "ext/sse.h"
#include "ext/timer.h"
#include "ext/uuid.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_OFFLINE = 3 };

enum {
    MAX_DEVICES = 100000,         /* known devices; then who is offline longest is forgotten */
    MAX_PEOPLE = 320,             /* descriptors that are for no device, at most */
    MAX_CALLS = 4096,             /* commands of an instance that wait for a reply; then 503 */
    MAX_DEVICE_CALLS = 16,        /* commands to a device that wait for a reply; then 503 */
    MAX_COMMAND = 256,            /* bytes of a command, and of a device's reply to it */
    MAX_BLOB = 8192,              /* bytes that a device reports by WTF!: the change fits in a
                                     message of Redis, KA_MAX_BODY */
    MAX_STREAMS = 256,            /* subscribers of /events; then 503 */
    MAX_HOOKS = 10000,            /* changes to be forwarded; then the oldest is dropped */
    MAX_PAGE = 500,               /* vehicles in one answer */
    MAX_EVENT = 4096 + 6 * MAX_BLOB,      /* bytes of a change in JSON */
    MAX_CLAIMS = 3,               /* connections that may take a device over at once; then one in */
    CLAIM_MS = 10000,             /* so many milliseconds */
    SPACE_MS = 20,                /* milliseconds from a word to a device to a command */
    SILENT_BEATS = 3,             /* heartbeats without a word after which a device is offline */
    FORGET_S = 7 * 86400,         /* seconds offline after which a device is forgotten */
    TICK_MS = 1000
};

/* Tags of timers and outgoing connections. TAG_CALL and TAG_NEXT have a call's number above their 8
   bits. */
enum { TAG_TICK = 1, TAG_HOOK, TAG_CALL, TAG_NEXT };

/* Changes. change_names has their names, in this order. BLOB is a type of Windows, hence ISSUE. */
enum {
    ONLINE = 1, OFFLINE = 2, POSITION = 4, CHARGE = 8, RUNNING = 16, FREQUENCY = 32, ISSUE = 64
};

enum { OWNER_TEXT = KA_UUID_TEXT + 21 };      /* INSTANCE:NUMBER */

typedef struct call call;

typedef struct {
    char     id[KA_UUID_TEXT + 1];
    char     owner[OWNER_TEXT + 1];           /* the token of its connection, or its last one */
    bool     online;
    bool     placed;                          /* lat and lon are known */
    int32_t  lat, lon;                        /* millionths of a degree: +-90 and +-180 degrees */
    int      charge;                          /* percent; -1: not known */
    int      running;                         /* 1: running; 0: resting; -1: not known */
    int      every_s;                         /* the device was told to report so often; 0: never */
    uint32_t issues;                          /* how many it has reported by WTF! */
    char     seen[KA_UTC_TEXT + 1];           /* when it was last heard of */
    uint64_t version;                         /* of its last change in Redis (share.h); or 0 */
    int64_t  touched_ms;                      /* ka_now_ms() of the last word of or about it */
    uint64_t conn;                            /* its connection to this instance; 0: none */
    call    *calls;                           /* not replied to, in order: those that are over, one
                                                 that was sent, and those that wait for that one */
    int64_t  claims_ms;                       /* when its connection may change as often as ever */
    bool     claimed;                         /* share.h: Redis has told of a put of this owner */
    bool     unshared;                        /* share.h: has changed while Redis was down */
    bool     unsaved;                         /* state.h: has to be written */
} device;

/* A command to a device, whose reply somebody waits for: a request here, or another instance. */
struct call {
    call    *next;                            /* in device.calls */
    uint64_t number;                          /* from 1 up; its place: calls[number % MAX_CALLS] */
    char     device[KA_UUID_TEXT + 1];
    char     message[MAX_COMMAND + 1];
    char     from[KA_UUID_TEXT + 1];          /* the instance that asks; "": a request here */
    uint64_t from_number;                     /* the number of that instance's call */
    ka_event request;                         /* the request here; its strings are dead */
    int      route;                           /* the route of the request here */
    int64_t  made_ms;
    bool     here;                            /* it is in device.calls; else the share has it */
    bool     sent;                            /* to the device, from here */
    bool     over;                            /* answered; it waits for a late reply, to drop it */
};

typedef struct {
    ka_server  *s;
    ka_timers   timers;
    char        id[KA_UUID_TEXT + 1];         /* of this instance */
    /* options */
    const char *ip, *redis, *hook, *token_file, *state_file, *hosts;
    long long   tcp_port, rest_port, heartbeat_s, timeout_s, workers;
    bool        loopback;                     /* it listens on 127.0.0.0/8 and ::1 only */
    unsigned char token[32];                  /* SHA-256 of the bearer token, */
    bool        has_token;                    /* if there is one */
    ka_listeners tcp_listeners, rest_listeners;
    int         ports[KA_MAX_LISTENERS];      /* by ka_event.listener; -1: none */
    int         ports_heard;                  /* listeners of which it is known */
    int64_t     started_ms;
    /* devices.h */
    device    **devices;                      /* sorted by id */
    size_t      devices_n, devices_room, online_n;
    struct link *links;                       /* what is known of a connection, by ka_conn_index */
    size_t      links_room, links_n, links_most;
    bool        crowded;                      /* it was told that there are links_most */
    call       *calls[MAX_CALLS];
    uint64_t    calls_made, connections_made;
    /* the other parts' own, NULL where they aren't used */
    struct state *state;
    struct share *share;
    struct hooks *hooks;
    struct rest  *rest;
} fleet;

extern const char *const change_names[];

/* Say something on stderr, without waiting for its reader; returns status. */
#define fail(status, ...) ka_fail(status, "fleet: " __VA_ARGS__)
#define note(...)         ka_say(2, "fleet: " __VA_ARGS__)

/* ---- devices.h ---- */

static int  devices_start(fleet *f);          /* KA_OK or KA_E... */
static void devices_free(fleet *f);

/* An event of a device's connection, which came to tcp_listeners. */
static void devices_event(fleet *f, const ka_event *ev);

/* Each TICK_MS: silent devices go offline, and devices that are offline for long are forgotten. */
static void devices_tick(fleet *f, int64_t now_ms);

/* The device of that id (in lower case), or NULL. If there is none, device_get adds one that is
   offline, in the place of another one if there are MAX_DEVICES; NULL: these are all online, or
   memory is out. */
static device *device_find(const fleet *f, const char *id);
static device *device_get(fleet *f, const char *id);

/* The place of the first device whose id is greater, for pages; devices_n: there is none. */
static size_t device_after(const fleet *f, const char *id);

/* Write a device as GET /vehicles/:id has it; device_members: only what is in the object.
     {"id", "connected": bool, "instance": UUID or null, "position": {"lat", "lon"} or null,
      "charge": n or null, "running": bool or null, "reportEvery": seconds or null, "issues": n,
      "lastSeen": UTC or null} */
static void device_put(ka_json_out *w, const char *name, const device *d);
static void device_members(ka_json_out *w, const device *d);

/* Read such an object into d, but for its id. False: it is none, and d is as it was. */
static bool device_read(device *d, const ka_json *v);

/* Write the text of a change of d into room, MAX_EVENT bytes.
     blob       what was reported, if that is a change; else {NULL, 0} */
static ka_str device_event(char *room, const device *d, unsigned changes, ka_str blob);

/* d, whose connection is here, is changed already: tell the share, if there is one, subscribers,
   webhooks and the state.
     changes    may be 0: only lastSeen has changed, and only the share is told
     was        as for share_put
     blob       as for device_event */
static void device_changed(fleet *f, device *d, unsigned changes, const char *was, ka_str blob);

/* Another instance has changed d, which is changed here already: tell subscribers and the state. If
   d has another owner now, close its connection here: the newer connection wins.
     event      the text of the change */
static void device_changed_elsewhere(fleet *f, device *d, ka_str event);

/* Redis refused a change of d: another instance has d. Close its connection, if it is here. Its
   state comes by device_changed_elsewhere. */
static void device_lost(fleet *f, device *d);

/* The instance that had d is silent, and this one was the first to say so in Redis, by event: make
   d offline, and tell subscribers, webhooks and the state. */
static void device_reaped(fleet *f, device *d, ka_str event);

/* Send a command to a device, here or through the share. request gets its answer by rest_called.
     returns    0; or the status to refuse it with at once: 409 not connected, 503 too many wait, or
                Redis is down. rest_called can have these, too, and CALL_UNSENT. With these three it
                is not done. 502, the connection ended before the reply, and 504, none came in time:
                it may be done */
enum { CALL_UNSENT = 599 };      /* its time was over while others were under way */
static int call_start(fleet *f, device *d, const char *message, const ka_event *request, int route);

/* Another instance asks. Its answer goes by share_reply, also when it is refused. */
static void call_from(fleet *f, const char *from, uint64_t from_number, const char *id,
                      const char *message);

/* A call that went through the share has come to this: 200 and a reply, or as call_start says. */
static void call_done(fleet *f, uint64_t number, int status, ka_str reply);

/* The time of a call is over: 504, or CALL_UNSENT. */
static void call_timeout(fleet *f, uint64_t number);

/* The time has come to send a call, if it is still the next one. */
static void call_due(fleet *f, uint64_t number);

/* The functions ..._open and ..._start return -1: go on; or the status to exit with, having said
   why. */

/* ---- state.h: --state FILE, without Redis ---- */

static int  state_open(fleet *f);
static void state_tick(fleet *f);             /* write and sync what has changed */
static void state_close(fleet *f);            /* for the last time */

/* ---- share.h ---- */

static int  share_start(fleet *f);
static void share_tick(fleet *f, int64_t now_ms);           /* say that this instance lives, and
                                                               look for those that no longer do */
static const char *share_text(const fleet *f);              /* "none", "up" or "away" */
static void share_free(fleet *f);

/* Put a change of d, event, into Redis. If Redis refuses it, device_lost follows. While Redis is
   down the change is remembered, and put when Redis is back.
     was        the owner token that d has in Redis, if it has one; NULL: claim d for d->owner,
                whoever has it */
static void share_put(fleet *f, device *d, const char *was, ka_str event);

/* Ask the instance that has d, by its owner token, to do this call. Its answer comes by call_done.
   0, or a status as call_start's. */
static int  share_call(fleet *f, const device *d, const call *c);

/* Answer the call of another instance. */
static void share_reply(fleet *f, const char *to, uint64_t number, int status, ka_str reply);

/* ---- rest.h ---- */

static int  rest_start(fleet *f);
static void rest_event(fleet *f, const ka_event *ev);       /* of a connection to rest_listeners */
static void rest_tell(fleet *f, ka_str event);              /* to all subscribers of /events */
static void rest_tick(fleet *f);              /* a comment in /events now and then, for proxies */
static void rest_free(fleet *f);

/* Answer the request that waits for c. */
static void rest_called(fleet *f, const call *c, int status, ka_str reply);

/* ---- hooks.h ---- */

static int  hooks_start(fleet *f);
static bool hooks_event(fleet *f, const ka_event *ev);      /* false: it is not the webhooks' */
static void hooks_add(fleet *f, ka_str event);              /* forward it; copied */
static void hooks_free(fleet *f);

/* Write {"waiting", "sent", "dropped"}, or null, for GET /. */
static void hooks_put(ka_json_out *w, const char *name, const fleet *f);

/* ---- simulator.h ---- */

static int  simulate(int argc, char **argv);  /* fleet device ...: its exit status */

#endif
