/* fleet.h - what the parts of fleet share: limits, types, and what each part offers to the others.

     fleet.c       options, and the loop that hands each event to the part that it is for
     devices.h     the devices that are known, their protocol over TCP, and commands to them
     state.h       devices in a file (--state)
     share.h       devices in Redis (--redis): one fleet of several instances
     rest.h        the REST API, its OpenAPI document, and server-sent events
     page.h        the page /docs
     hooks.h       webhooks
     simulator.h   fleet device: devices that are simulated

   One parent thread owns all of it. Every instance knows every device: of those that are connected to itself from
   themselves, of the others from Redis, where each change is put (a hash for each device) and published (pub/sub) in one
   step, a script. So any instance answers for every device, also while Redis is away (then as it was last known), and a
   new one reads the hashes first.

   Whose connection a device has is told by its owner token, INSTANCE:NUMBER, new for each connection: a fencing token.
   A connection that says hello claims the device, whoever had it; every other change is made only if the device still has
   the owner token that the instance knows. So the newest connection wins, in the order in which Redis saw the claims, and
   what an older one still says of it, even that it is offline, is refused; the instance that is refused closes its
   connection. When an instance falls silent the others make its devices offline, by the same rule, so that one of them
   succeeds, and only that one forwards the change.

   A change is one JSON text, made once, for subscribers of /events, for webhooks and for Redis:
     {"id": UUID of the change, "at": UTC, "changes": ["position", "charge"], "vehicle": {...as of GET /vehicles/:id}, "blob": "..."}      (blob: if that is a change)
   A webhook is sent by the instance that made the change; /events tells of all of them on every instance. */

#ifndef FLEET_H
#define FLEET_H

#define KA_MAX_BODY 65536
#include "keyauth.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_OFFLINE = 3 };

enum {
    MAX_DEVICES = 100000,         /* that are known; beyond, a new one's messages could not be processed */
    MAX_CALLS = 4096,             /* commands that wait for a device's reply, of an instance: 503 beyond, */
    MAX_DEVICE_CALLS = 16,        /* and of a device */
    MAX_COMMAND = 256,            /* bytes of a command, and of a device's reply to it */
    MAX_BLOB = 8192,              /* bytes of what a device reports by WTF!: its change fits in a message of Redis, KA_MAX_BODY */
    MAX_STREAMS = 256,            /* subscribers of /events: 503 beyond */
    MAX_HOOKS = 10000,            /* changes that wait to be forwarded; beyond, the oldest is dropped, and counted */
    MAX_PAGE = 500,               /* vehicles in one answer */
    MAX_EVENT = 4096 + 6 * MAX_BLOB,      /* bytes of a change in JSON */
    SILENT_BEATS = 3,             /* heartbeats without a word, after which a device is offline, */
    FORGET_S = 7 * 86400,         /* and seconds offline after which it is forgotten; also the hash's time to live */
    TICK_MS = 1000
};

/* Tags of timers and outgoing connections. A call's timer: its number, above TAG_CALL's 8 bits. */
enum { TAG_TICK = 1, TAG_REDIS, TAG_SUBSCRIBER, TAG_HOOK, TAG_CALL };

/* Changes; change_names has their names, in this order: an ISSUE is a "blob", which is a type of Windows. */
enum { ONLINE = 1, OFFLINE = 2, POSITION = 4, CHARGE = 8, RUNNING = 16, FREQUENCY = 32, ISSUE = 64 };

enum { OWNER_TEXT = KA_UUID_TEXT + 21 };      /* INSTANCE:NUMBER */

typedef struct call call;

typedef struct {
    char     id[KA_UUID_TEXT + 1];
    char     owner[OWNER_TEXT + 1];           /* the token of its connection, or of its last one */
    bool     online;
    bool     placed;                          /* its position is known: */
    int32_t  lat, lon;                        /* millionths of a degree, -90 to 90 and -180 to 180 */
    int      charge;                          /* percent; -1: not known */
    int      running;                         /* 1, or 0: resting; -1: not known */
    int      every_s;                         /* how often it was told to report; 0: never told */
    uint32_t issues;                          /* how many it has reported by WTF! */
    char     seen[KA_UTC_TEXT + 1];           /* when it was last heard of */
    uint64_t version;                         /* of its last change in Redis that is known here, see share.h; 0: none is */
    int64_t  touched_ms;                      /* ka_now_ms() of the last word from it, or about it, here */
    uint64_t conn;                            /* its connection to this instance; 0: none */
    call    *calls;                           /* sent to it and not replied to, in order */
    bool     claimed;                         /* share.h's: Redis has told about a put of this owner of ours, */
    bool     unshared;                        /* and this: it has changed since, while Redis was away */
    bool     unsaved;                         /* --state has it to write */
} device;

/* A command to a device, whose reply somebody waits for. */
struct call {
    call    *next;                            /* in device.calls */
    uint64_t number;                          /* from 1 up; its place is calls[number % MAX_CALLS] */
    char     device[KA_UUID_TEXT + 1];
    char     message[MAX_COMMAND + 1];
    char     from[KA_UUID_TEXT + 1];          /* the instance that asks, */
    uint64_t from_number;                     /* and its call's number; or "": a request here, */
    ka_event request;                         /* whose strings are dead, */
    int      route;                           /* of that route */
    int64_t  made_ms;
    bool     sent;                            /* here: it is in device.calls; else the share has it */
    bool     over;                            /* whoever asked has been answered: it waits for a late reply to drop */
};

typedef struct {
    ka_server  *s;
    char        id[KA_UUID_TEXT + 1];         /* of this instance */
    /* options */
    const char *ip, *redis, *hook, *token_file, *state_file;
    long long   tcp_port, rest_port, heartbeat_s, timeout_s, workers;
    bool        loopback;                     /* ip is in 127.0.0.0/8 */
    unsigned char token[32];                  /* SHA-256 of the bearer token, */
    bool        has_token;                    /* if there is one */
    int         tcp_listener, rest_listener;
    int64_t     started_ms;
    /* devices.h */
    device    **devices;                      /* sorted by id */
    size_t      devices_n, devices_room, online_n;
    struct link *links;                       /* what is known of a connection, by ka_conn_index */
    size_t      links_room;
    call       *calls[MAX_CALLS];
    uint64_t    calls_made, connections_made;
    /* the other parts' own, NULL where they aren't used */
    struct state *state;
    struct share *share;
    struct hooks *hooks;
    struct rest  *rest;
} fleet;

extern const char *const change_names[];

/* Say something on stderr, "fleet: ..." and a line feed; returns status. */
static int fail(int status, const char *format, ...);

/* A whole number from least to most, and nothing else. */
static bool number(const char *text, long long least, long long most, long long *out);

/* "HOST:PORT" into a numeric address and a port; -1: go on; else exit with this, having said what is wrong with `option`. */
static int address(const char *option, const char *text, size_t n, char ip[16], int *port);

/* ---- devices.h ---- */

static int  devices_start(fleet *f);          /* KA_OK or KA_E... */
static void devices_free(fleet *f);

/* An event of a connection of a device (listener tcp_listener, and what follows on such connections). */
static void devices_event(fleet *f, const ka_event *ev);

/* Each TICK_MS: who is silent goes offline; who is offline for long is forgotten. */
static void devices_tick(fleet *f, int64_t now_ms);

/* The device of that id (in lower case); device_get adds it, as one that is offline. NULL: none; no memory, or MAX_DEVICES. */
static device *device_find(const fleet *f, const char *id);
static device *device_get(fleet *f, const char *id);

/* The place of the first device whose id is greater, for pages; devices_n: none. */
static size_t device_after(const fleet *f, const char *id);

/* Write a device as GET /vehicles/:id has it:
     {"id", "connected": bool, "instance": UUID or null, "position": {"lat", "lon"} or null, "charge": n or null,
      "running": bool or null, "reportEvery": seconds or null, "issues": n, "lastSeen": UTC or null};
   device_members only what is in it. */
static void device_put(ka_json_out *w, const char *name, const device *d);
static void device_members(ka_json_out *w, const device *d);

/* Read such an object into d, but for its id; false and d as it was if it is none. */
static bool device_read(device *d, const ka_json *v);

/* Write the text of a change of d into room of MAX_EVENT bytes. The blob, if that is a change; else {NULL, 0}. */
static ka_str device_event(char *room, const device *d, unsigned changes, ka_str blob);

/* d, whose connection is here, has changed, and is changed already: tell the share, if there is one, subscribers, webhooks
   and the state. changes may be 0: only lastSeen, of which only the share is told. `was` and blob: as for share_put and above. */
static void device_changed(fleet *f, device *d, unsigned changes, const char *was, ka_str blob);

/* d was changed by another instance, and is changed already: `event` is the text of that change. Subscribers and the state
   are told. If it has another owner now, its connection here is closed: the newer one wins. */
static void device_changed_elsewhere(fleet *f, device *d, ka_str event);

/* Redis refused this instance's word on d: another one has it. Close its connection, if it is here; its state comes by
   device_changed_elsewhere. */
static void device_lost(fleet *f, device *d);

/* The instance that had d has fallen silent, and this one was the first to say so in Redis, by `event`: make it offline, and tell
   subscribers, webhooks and the state. */
static void device_reaped(fleet *f, device *d, ka_str event);

/* Send a command to a device, here or through the share; `request` gets its answer by rest_called.
     returns    0; or the status to refuse it with at once: 409 not connected, 503 too many wait, or Redis is away */
static int call_start(fleet *f, device *d, const char *message, const ka_event *request, int route);

/* Another instance asks: its answer goes by share_reply, also when it is refused. */
static void call_from(fleet *f, const char *from, uint64_t from_number, const char *id, const char *message);

/* What came of a call that went through the share: its status (200, 409, 503, 504) and the device's reply. */
static void call_done(fleet *f, uint64_t number, int status, ka_str reply);

/* Its time is over: 504. */
static void call_timeout(fleet *f, uint64_t number);

/* ---- state.h: --state FILE, without Redis ---- */

static int  state_open(fleet *f);             /* -1: go on; else exit with this, having said why */
static void state_tick(fleet *f);             /* write what has changed since the last one, and sync; anew if most of it is history */
static void state_close(fleet *f);            /* having written */

/* ---- share.h ---- */

static int  share_start(fleet *f);            /* -1: go on; else exit with this, having said why */
static bool share_event(fleet *f, const ka_event *ev);      /* was it for the share? */
static void share_tick(fleet *f, int64_t now_ms);           /* this instance lives; whose owner doesn't? */
static const char *share_text(const fleet *f);              /* "none", "up" or "away" */
static void share_free(fleet *f);

/* Put a change of d, `event`, if d has the owner token `was` in Redis, or none there; NULL: whoever has it, claim it for
   d->owner. When it is refused, device_lost. While Redis is away it is remembered, and put when it is back. */
static void share_put(fleet *f, device *d, const char *was, ka_str event);

/* Ask the instance that has d, by its owner token, to do this call; its answer comes by call_done. 0, or a status. */
static int  share_call(fleet *f, const device *d, const call *c);

/* Answer the call of another instance. */
static void share_reply(fleet *f, const char *to, uint64_t number, int status, ka_str reply);

/* ---- rest.h ---- */

static int  rest_start(fleet *f);             /* -1: go on; else exit with this, having said why */
static void rest_event(fleet *f, const ka_event *ev);       /* a request, or an event of a subscriber of /events */
static void rest_called(fleet *f, const call *c, int status, ka_str reply);      /* answer the request that waits for c */
static void rest_tell(fleet *f, ka_str event);              /* to all subscribers of /events */
static void rest_tick(fleet *f);              /* a comment to subscribers now and then, so that proxies keep them */
static void rest_free(fleet *f);

/* ---- hooks.h ---- */

static int  hooks_start(fleet *f);            /* -1: go on; else exit with this, having said why */
static bool hooks_event(fleet *f, const ka_event *ev);      /* was it for the webhooks? */
static void hooks_add(fleet *f, ka_str event);              /* to be forwarded; copied */
static void hooks_put(ka_json_out *w, const char *name, const fleet *f);      /* for GET /: {"waiting", "sent", "dropped"}, or null */
static void hooks_free(fleet *f);

/* ---- simulator.h ---- */

static int  simulate(int argc, char **argv);  /* fleet device ...: its exit status */

#endif
