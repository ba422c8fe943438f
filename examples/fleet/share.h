/* share.h - devices in Redis: one fleet of several instances.

   Every key and channel begins with the prefix:
     device:ID    a hash: `owner`, the owner token; `device`, its JSON; `version`, which only grows
     changes      a channel: each change, published by the script that puts it into the hash
     to:INSTANCE  a channel: an instance's mailbox, for calls and for replies to them
     alive        a channel: each instance says its id there every second

   A change counts only if its version is newer than the known one. The version is the time in
   microseconds at which Redis took the change, or one more than the last version. (A plain count
   would begin at 1 again when a hash has expired, while others still know a higher one.) Of devices
   with an own token this instance knows most, of all others Redis does.

   If Redis is down or has too much to do, a device stays marked as unshared. The next tick that can
   puts the device as it is then: no history is kept, so nothing grows. Both connections have to be
   up for that. Whenever they come up, the hashes are read. What is known here and has no hash is
   put, so a Redis that has lost its data is filled again. Devices of other instances are put only
   where there is no hash, since their owner knows them better. They are never dropped: this may be
   the only copy. */

#ifndef FLEET_SHARE_H
#define FLEET_SHARE_H

#include "devices.h"
#include "fleet.h"

enum {
    MAX_PREFIX = 64,                          /* bytes of the prefix in --redis */
    MAX_KEY = MAX_PREFIX + 8 + KA_UUID_TEXT,
    MAX_VEHICLE = 1024,                       /* bytes of a device in JSON */
    SCAN_STEP = 200,                          /* hashes to ask for at once: a reply has room */
    MAX_PEERS = 1024,                         /* instances that are heard; further ones are not */
    MAX_AHEAD_S = 86400,                      /* a version that is so far ahead isn't believed */
    GONE_MS = 5000,                           /* an instance that is silent for so long is gone */
    LATE_MS = 3 * TICK_MS,                    /* a tick so late: others were not heard */
    TELL_MS = 60000                           /* between two lines about what Redis refuses */
};

typedef struct { char id[KA_UUID_TEXT + 1]; int64_t heard_ms; } share_peer;

struct share {
    ka_redis    commands, subscriber;
    ka_redis_address at;
    char        place[KA_PLACE_TEXT + 1];     /* Redis's, for messages */
    char        prefix[MAX_PREFIX + 1];       /* at's, or "fleet:" */
    char        changes[MAX_KEY + 1], alive[MAX_KEY + 1], mailbox[MAX_KEY + 1];
    int         subscribed;                   /* channels that Redis has confirmed; 3 are all */
    bool        to_subscribe;                 /* the channels have to be subscribed to */
    bool        up;                           /* both connections are of use */
    bool        told_away;                    /* stderr has: Redis is away */
    bool        told_ahead;                   /* stderr has: a version is ahead */
    int64_t     told_error_ms;                /* when stderr had an error of Redis; 0: never */
    char        told_policy[24];              /* the maxmemory-policy that stderr has warned of */
    ka_redis   *closing;                      /* closed here, as the other connection was lost */
    bool        load_due, loading;            /* the hashes are to be read; are being read */
    uint64_t    load;                         /* how often reading was begun */
    int64_t     since_ms, ticked_ms;          /* others are heard since; the last tick */
    share_peer *peers;                        /* who was heard, and when */
    size_t      peers_n;
    char        event[MAX_EVENT];
};

/* Put a device.
     KEYS       1 the hash
     ARGV       1 the owner that the hash must have: a token; '*': any; '': only if there is no hash
                2 the new owner, 3 the device's JSON, 4 its time to live, 5 the channel, 6 the text
                up to the version, 7 the change
     returns    the version as a string; false: another owner has the device. If ARGV[2] is the
                owner already, the script has run before: that is no refusal */
static const char share_script[] =
    "local has, old = unpack(redis.call('HMGET', KEYS[1], 'owner', 'version')) "
    "if has and ARGV[1] ~= '*' and has ~= ARGV[1] and (ARGV[1] == '' or has ~= ARGV[2]) "
    "then return false end "
    "local time = redis.call('TIME') "
    "old = tonumber(old) or 0 "
    "local now = time[1] * 1000000 + time[2] "
    "if not (old < now + 86400e6) then old = 0 end "
    "local version = string.format('%.0f', math.max(now, old + 1)) "
    "redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'device', ARGV[3], 'version', version) "
    "redis.call('EXPIRE', KEYS[1], ARGV[4]) "
    "redis.call('PUBLISH', ARGV[5], ARGV[6] .. version .. ',\"change\":' .. ARGV[7] .. '}') "
    "return version";

/* Read a hash, KEYS[1]. A member of more than ARGV[1] bytes was not put by a fleet, and would end
   the connection: then the result is empty. */
static const char share_fetch_script[] =
    "local members = redis.call('HMGET', KEYS[1], 'owner', 'version', 'device') "
    "for i = 1, 3 do if members[i] and #members[i] > tonumber(ARGV[1]) then return {} end end "
    "return members";

/* What is said of a device, by its hash or by another instance. */
typedef struct {
    char     id[KA_UUID_TEXT + 1], owner[OWNER_TEXT + 1];
    uint64_t version;
    ka_json  vehicle;
    bool     telling;                         /* event names changes; else a new one is made */
    ka_str   event;
} share_news;

typedef struct { char id[KA_UUID_TEXT + 1], owner[OWNER_TEXT + 1]; } share_note;

/* Is this token one of this instance's? */
static bool share_owns(const fleet *f, const char *owner)
{
    return strncmp(owner, f->id, KA_UUID_TEXT) == 0;
}

/* Is it an owner token? Others can write to Redis, too. */
static bool share_is_owner(const char *text)
{
    char instance[KA_UUID_TEXT + 1];
    size_t n = strlen(text), digits = n > KA_UUID_TEXT ? n - KA_UUID_TEXT - 1 : 0;
    return digits && text[KA_UUID_TEXT] == ':' &&
           strspn(text + KA_UUID_TEXT + 1, "0123456789") == digits &&
           ka_uuid_read(instance, (ka_str){ text, KA_UUID_TEXT }) == KA_OK;
}

static void share_key(const struct share *s, char key[MAX_KEY + 1], const char *kind,
                      const char *id)
{
    snprintf(key, MAX_KEY + 1, "%s%s%s", s->prefix, kind, id);
}

static void share_refuses(fleet *f, const char *why)
{
    struct share *s = f->share;
    int64_t now_ms = ka_now_ms();
    if (s->told_error_ms && now_ms - s->told_error_ms < TELL_MS) return;
    s->told_error_ms = now_ms;
    note("Redis at %s refuses: %s; mend that. What it doesn't take is tried again every "
            "second", s->place, why);
}

static void share_error(fleet *f, const ka_resp *reply)
{
    char why[KA_REDIS_ERROR];
    ka_redis_explain(why, reply);
    share_refuses(f, why);
}

/* ---- putting ---- */

static void share_fetch(fleet *f, const char *id);

static void share_put_done(ka_redis *r, const void *note, const ka_resp *reply)
{
    fleet *f = r->arg;
    const share_note *n = note;
    device *d = device_find(f, n->id);
    bool error = reply && reply->kind == KA_RESP_ERROR;
    if (error) share_error(f, reply);
    /* Another owner: the device has another connection by now, or this was for reaping, of which
       share_echo tells. */
    if (!d || strcmp(n->owner, d->owner) != 0) return;
    if (!reply || error) {
        d->unshared = true;
        return;
    }
    bool own = share_owns(f, d->owner), taken = reply->kind == KA_RESP_STRING;
    bool first = own && !d->claimed;
    uint64_t version = taken ? strtoull(reply->text.p, NULL, 10) : 0, known = d->version;
    if (first || (own && !taken) || version > known) d->version = version;
    /* From now on what others say counts. What they have said before has to be asked for. */
    d->claimed = own;
    if (own && !taken) device_lost(f, d);
    if (own && (!taken || (first && known > version))) share_fetch(f, n->id);
}

/* Have the script put d as it is, with that owner token. False: not now. */
static bool share_send(fleet *f, const device *d, const char *was, ka_str event)
{
    struct share *s = f->share;
    char key[MAX_KEY + 1], vehicle[MAX_VEHICLE], ttl[16], head[256];
    share_note note = { .id = "" };
    ka_json_out w = { .p = vehicle, .cap = sizeof vehicle };
    if (!s->up) return false;
    device_put(&w, NULL, d);
    share_key(s, key, "device:", d->id);
    strcpy(note.id, d->id);
    strcpy(note.owner, d->owner);
    snprintf(ttl, sizeof ttl, "%d", FORGET_S);
    snprintf(head, sizeof head,
             "{\"instance\":\"%s\",\"owner\":\"%s\",\"was\":\"%s\",\"version\":", f->id, d->owner,
             was);
    const ka_str args[] = { str("EVAL"), str(share_script), str("1"), str(key), str(was),
                            str(d->owner), { vehicle, w.n }, str(ttl), str(s->changes), str(head),
                            event };
    return ka_redis_command(&s->commands, args, sizeof args / sizeof *args, share_put_done, &note,
                            sizeof note) == KA_OK;
}

static void share_put(fleet *f, device *d, const char *was, ka_str event)
{
    /* Is there a claim that was never sent? One that is under way counts as done. */
    bool unclaimed = d->conn && !d->claimed && d->unshared;
    if (!was) d->claimed = false;
    d->unshared = !share_send(f, d, !was || unclaimed ? "*" : was, event);
}

/* Put what is marked as unshared, until Redis has enough to do. */
static void share_put_rest(fleet *f)
{
    for (size_t i = 0; i < f->devices_n; i++) {
        device *d = f->devices[i];
        if (!d->unshared) continue;
        ka_str event = device_event(f->share->event, d, 0, no_text);
        const char *was = share_owns(f, d->owner) ? d->owner : "";
        if (d->conn && !d->claimed) was = "*";
        if (!share_send(f, d, was, event)) return;
        d->unshared = false;
    }
}

/* ---- hearing ---- */

static unsigned share_differences(const device *a, const device *b)
{
    /* ONLINE tells of another instance, too. */
    bool moved = b->online && strncmp(a->owner, b->owner, KA_UUID_TEXT) != 0;
    unsigned changes = 0;
    if (a->online != b->online || moved) changes |= b->online ? ONLINE : OFFLINE;
    if (a->placed != b->placed || a->lat != b->lat || a->lon != b->lon) changes |= POSITION;
    if (a->charge != b->charge) changes |= CHARGE;
    if (a->running != b->running) changes |= RUNNING;
    if (a->every_s != b->every_s) changes |= FREQUENCY;
    return changes;
}

/* A device with an own token: does Redis have it as it is? */
static void share_compare(device *d, const share_news *n)
{
    char vehicle[MAX_VEHICLE] = "";
    ka_json_out w = { .p = vehicle, .cap = sizeof vehicle };
    device_put(&w, NULL, d);
    d->claimed = true;
    if (n->vehicle.raw.n != w.n || memcmp(n->vehicle.raw.p, vehicle, w.n) != 0) d->unshared = true;
}

/* Others know the device better: take what they say.
     own        its owner token is this instance's, which has no such connection: it is offline */
static void share_apply(fleet *f, device *d, const share_news *n, bool own)
{
    device before = *d;
    ka_str event = n->event;
    device_read(d, &n->vehicle);
    strcpy(d->owner, n->owner);
    d->claimed = d->unshared = own;
    if (own) d->online = false;
    unsigned changes = share_differences(&before, d);
    d->touched_ms = ka_now_ms();
    if (!n->telling && !changes && !d->conn) return;
    if (!n->telling) event = device_event(f->share->event, d, changes, no_text);
    if (own && before.online) device_reaped(f, d, event);      /* by this instance, before */
    else device_changed_elsewhere(f, d, event);
}

/* Would a version outdo all that come for long? Redis's clock may be ahead, but not so much. */
static bool share_is_ahead(fleet *f, uint64_t version)
{
    struct share *s = f->share;
    if (version <= (uint64_t)(ka_wall_us() + MAX_AHEAD_S * (int64_t)1000000)) return false;
    if (!s->told_ahead) note("a change in Redis at %s is more than a day ahead of this machine's "
                             "clock, and is not believed; look at both clocks", s->place);
    s->told_ahead = true;
    return true;
}

static void share_learn(fleet *f, const share_news *n)
{
    device read = { .online = false };
    if (!share_is_owner(n->owner) || !device_read(&read, &n->vehicle)) return;
    device *d = device_get(f, n->id);
    if (!d || n->version <= d->version || share_is_ahead(f, n->version)) return;
    bool own = share_owns(f, d->owner);
    d->version = n->version;
    if (own && strcmp(n->owner, d->owner) == 0) {
        share_compare(d, n);
    } else if (own && !d->claimed && (d->conn || !d->unshared)) {
        /* A claim is under way, or to be sent. Its result tells which claim is the later one. */
    } else if (!share_owns(f, n->owner)) {
        share_apply(f, d, n, false);
    } else if (d->conn) {
        d->claimed = false;                   /* was another connection to here: claim it */
        d->unshared = true;
    } else if (own) {
        strcpy(d->owner, n->owner);           /* neither connection is there any more */
        d->claimed = d->unshared = true;
    } else {
        share_apply(f, d, n, true);
    }
}

/* What this instance has reaped has come back: so it was the first. */
static void share_echo(fleet *f, const share_news *n, const ka_json *was)
{
    device *d = device_find(f, n->id);
    if (!d || n->version <= d->version || share_is_ahead(f, n->version)) return;
    d->version = n->version;
    if (!ka_json_is(was, d->owner)) return;
    strcpy(d->owner, n->owner);
    d->claimed = true;
    d->unshared = false;
    device_reaped(f, d, n->event);
}

/* A string of at most n bytes, none of them NUL, and a NUL behind it. */
static bool share_text_in(const ka_json *v, char *out, size_t n)
{
    ptrdiff_t got = ka_json_string(out, n, v);
    if (got < 0 || memchr(out, 0, (size_t)got)) return false;
    out[got] = 0;
    return true;
}

static bool share_text_of(const ka_json *object, const char *name, char *out, size_t n)
{
    ka_json v;
    return ka_json_find(object, name, &v) == KA_OK && share_text_in(&v, out, n);
}

static bool share_number_in(const ka_json *v, uint64_t *out)
{
    char digits[21] = "";
    long long n;
    if (v->kind != KA_NUMBER || v->raw.n >= sizeof digits) return false;
    memcpy(digits, v->raw.p, v->raw.n);
    if (!ka_number(digits, 0, INT64_MAX, &n)) return false;
    *out = (uint64_t)n;
    return true;
}

static bool share_number_of(const ka_json *object, const char *name, uint64_t *out)
{
    ka_json v;
    return ka_json_find(object, name, &v) == KA_OK && share_number_in(&v, out);
}

static bool share_id_of(const ka_json *object, const char *name, char id[KA_UUID_TEXT + 1])
{
    char text[KA_UUID_TEXT + 1];
    return share_text_of(object, name, text, KA_UUID_TEXT) && ka_uuid_read(id, str(text)) == KA_OK;
}

/* Half of what is heard is what this instance has put itself. That needs no reading, but for
   reaping, where the device `was` another instance's. The texts begin as share_send makes them. */
static bool share_is_old(const fleet *f, ka_str text)
{
    char head[64];
    size_t n = (size_t)snprintf(head, sizeof head, "{\"instance\":\"%s\",\"owner\":\"", f->id);
    size_t token = sizeof "\",\"was\":\"" - 1;
    if (text.n < n || memcmp(text.p, head, n) != 0) return false;
    const char *end = memchr(text.p + n, '"', text.n - n);
    if (!end || text.n - (size_t)(end - text.p) < token + KA_UUID_TEXT) return false;
    return end[token] == '*' || end[token] == '"' || share_owns(f, end + token);
}

/* The members of these names, each once, and no others. */
static bool share_members(const ka_json *object, const char *const *names, ka_json *values,
                          size_t n)
{
    ka_json rest = *object, name, value;
    size_t found = 0;
    if (object->kind != KA_OBJECT) return false;
    while (ka_json_next(&rest, &name, &value)) found++;
    return found == n && read_members(object, names, values, n);
}

/* Is it a device as device_put writes it? */
static bool share_is_vehicle(const ka_json *v)
{
    static const char *const names[] = { "id",      "connected",   "instance", "position", "charge",
                                         "running", "reportEvery", "issues",   "lastSeen" };
    static const char *const position[] = { "lat", "lon" };
    ka_json all[9], place[2];
    char id[KA_UUID_TEXT + 1];
    device read = { .online = false };
    return share_members(v, names, all, 9) && share_id_of(v, "id", id) &&
           (all[2].kind == KA_NULL || share_id_of(v, "instance", id)) &&
           (all[3].kind == KA_NULL || share_members(&all[3], position, place, 2)) &&
           device_read(&read, v);
}

/* The changes that an array names; 0: it names none. False: there is something else in it. */
static bool share_changes_in(const ka_json *v, unsigned *changes)
{
    ka_json rest = *v, one;
    *changes = 0;
    while (v->kind == KA_ARRAY && ka_json_next(&rest, NULL, &one)) {
        unsigned bit = 1;
        for (size_t i = 0; bit <= ISSUE && !ka_json_is(&one, change_names[i]); i++) bit <<= 1;
        if (bit > ISSUE || *changes & bit) return false;
        *changes |= bit;
    }
    return v->kind == KA_ARRAY;
}

/* Is it a change as device_event makes it? It is told to pages and webhooks as it is, and must not
   break a line of /events. */
static bool share_is_event(const ka_json *change)
{
    static const char *const names[] = { "id", "at", "changes", "vehicle", "blob" };
    static char blob[MAX_BLOB];
    ka_json v[5];
    char id[KA_UUID_TEXT + 1], at[KA_UTC_TEXT + 1];
    unsigned changes;
    for (size_t i = 0; i < change->raw.n; i++)
        if ((unsigned char)change->raw.p[i] < ' ') return false;
    if (change->raw.n > MAX_EVENT || ka_json_find(change, "changes", &v[2]) != KA_OK ||
        !share_changes_in(&v[2], &changes) ||
        !share_members(change, names, v, changes & ISSUE ? 5 : 4))
        return false;
    if (changes & ISSUE && ka_json_string(blob, sizeof blob, &v[4]) < 0) return false;
    return share_id_of(change, "id", id) && share_text_in(&v[1], at, KA_UTC_TEXT) &&
           strlen(at) == KA_UTC_TEXT && share_is_vehicle(&v[3]);
}

static void share_changed(fleet *f, ka_str text)
{
    static const char *const names[] = { "instance", "owner", "was", "version", "change" };
    static const char *const parts[] = { "vehicle", "changes" };
    share_news n = { .version = 0 };
    ka_json v, all[5], change[2], first;
    if (share_is_old(f, text)) return;
    if (ka_json_read(&v, text) != KA_OK || v.python || !read_members(&v, names, all, 5) ||
        !share_is_event(&all[4]) || !read_members(&all[4], parts, change, 2) ||
        !share_text_in(&all[1], n.owner, OWNER_TEXT) || !share_number_in(&all[3], &n.version) ||
        !share_id_of(&change[0], "id", n.id))
        return;
    n.vehicle = change[0];
    n.event = all[4].raw;
    n.telling = ka_json_next(&change[1], NULL, &first);
    if (ka_json_is(&all[0], f->id)) share_echo(f, &n, &all[2]);
    else share_learn(f, &n);
}

/* An instance is there. It may have the place of one that has been silent for long. */
static void share_heard(fleet *f, ka_str id, int64_t now_ms)
{
    struct share *s = f->share;
    share_peer *free_one = NULL;
    char peer[KA_UUID_TEXT + 1];
    if (ka_uuid_read(peer, id) != KA_OK) return;
    for (size_t i = 0; i < s->peers_n; i++) {
        share_peer *p = &s->peers[i];
        if (strcmp(p->id, peer) == 0) {
            p->heard_ms = now_ms;
            return;
        }
        if (now_ms - p->heard_ms > GONE_MS) free_one = p;
    }
    if (!free_one && s->peers_n == MAX_PEERS) return;
    if (!free_one) {
        share_peer *more = realloc(s->peers, (s->peers_n + 1) * sizeof *more);
        if (!more) return;
        s->peers = more;
        free_one = &more[s->peers_n++];
    }
    strcpy(free_one->id, peer);
    free_one->heard_ms = now_ms;
}

/* ---- loading ---- */

/* A step of loading can't be asked for, or was not answered: begin again at a tick, if that is
   still needed then. */
static void share_load_failed(fleet *f, uint64_t load)
{
    if (load == f->share->load) f->share->load_due = true;
}

static void share_fetched(ka_redis *r, const void *note, const ka_resp *reply)
{
    fleet *f = r->arg;
    share_news n = { .version = 0 };
    ka_resp rest, owner, version, vehicle;
    memcpy(n.id, note, sizeof n.id);
    if (!reply) return;
    if (reply->kind == KA_RESP_ERROR) {
        share_error(f, reply);
        return;
    }
    rest = *reply;
    if (!ka_resp_next(&rest, &owner) || !ka_resp_next(&rest, &version) ||
        !ka_resp_next(&rest, &vehicle) || owner.kind != KA_RESP_STRING ||
        owner.text.n > OWNER_TEXT || version.kind != KA_RESP_STRING ||
        ka_json_read(&n.vehicle, vehicle.text) != KA_OK)
        return;
    memcpy(n.owner, owner.text.p, owner.text.n);
    n.version = strtoull(version.text.p, NULL, 10);
    share_learn(f, &n);
}

static void share_fetch(fleet *f, const char *id)
{
    char key[MAX_KEY + 1], most[16];
    share_key(f->share, key, "device:", id);
    snprintf(most, sizeof most, "%d", MAX_VEHICLE);
    const ka_str args[] = { str("EVAL"), str(share_fetch_script), str("1"), str(key), str(most) };
    int r = ka_redis_command(&f->share->commands, args, 5, share_fetched, id, KA_UUID_TEXT + 1);
    if (r < 0) share_load_failed(f, f->share->load);
}

static void share_load_done(fleet *f)
{
    f->share->loading = false;
    for (size_t i = 0; i < f->devices_n; i++)
        if (f->devices[i]->version == 0) f->devices[i]->unshared = true;
    share_put_rest(f);
}

static void share_scan(fleet *f, ka_str cursor);

/* A PING's reply: those of the last hashes have come before it. */
static void share_scan_ended(ka_redis *r, const void *note, const ka_resp *reply)
{
    uint64_t load;
    memcpy(&load, note, sizeof load);
    if (reply && load == ((fleet *)r->arg)->share->load) share_load_done(r->arg);
}

static void share_scan_end(fleet *f)
{
    struct share *s = f->share;
    const ka_str args[] = { str("PING") };
    int r = ka_redis_command(&s->commands, args, 1, share_scan_ended, &s->load, sizeof s->load);
    if (r < 0) share_load_failed(f, s->load);
}

/* The names of some hashes: ask for them, and then for more names. */
static void share_scanned(ka_redis *r, const void *note, const ka_resp *reply)
{
    fleet *f = r->arg;
    uint64_t load;
    ka_resp rest, cursor, keys, key;
    char id[KA_UUID_TEXT + 1];
    size_t skip = strlen(f->share->prefix) + strlen("device:");
    memcpy(&load, note, sizeof load);
    if (load != f->share->load) return;
    if (reply && reply->kind == KA_RESP_ERROR) share_error(f, reply);
    rest = reply ? *reply : (ka_resp){ .kind = 0 };
    if (!ka_resp_next(&rest, &cursor) || !ka_resp_next(&rest, &keys)) {
        share_load_failed(f, load);
        return;
    }
    while (ka_resp_next(&keys, &key))
        if (key.text.n == skip + KA_UUID_TEXT &&
            ka_uuid_read(id, (ka_str){ key.text.p + skip, KA_UUID_TEXT }) == KA_OK)
            share_fetch(f, id);
    if (ka_is(cursor.text, "0")) share_scan_end(f);
    else share_scan(f, cursor.text);
}

static void share_scan(fleet *f, ka_str cursor)
{
    struct share *s = f->share;
    char pattern[MAX_KEY + 1], step[16];
    share_key(s, pattern, "device:", "????????????????????????????????????");
    snprintf(step, sizeof step, "%d", SCAN_STEP);
    const ka_str args[] = {
        str("SCAN"), cursor, str("MATCH"), str(pattern), str("COUNT"), str(step)
    };
    if (ka_redis_command(&s->commands, args, 6, share_scanned, &s->load, sizeof s->load) != KA_OK)
        share_load_failed(f, s->load);
}

static void share_load(fleet *f)
{
    f->share->load++;
    f->share->load_due = false;
    f->share->loading = true;
    share_scan(f, str("0"));
}

/* ---- connections ---- */

static void share_publish(fleet *f, const char *channel, ka_str text, ka_redis_fn *fn,
                          const void *note, size_t n)
{
    const ka_str args[] = { str("PUBLISH"), str(channel), text };
    ka_redis_command(&f->share->commands, args, 3, fn, note, n);
}

static void share_say_alive(fleet *f)
{
    share_publish(f, f->share->alive, str(f->id), NULL, NULL, 0);
}

/* One of the two connections has come up, or gone. */
static void share_look(fleet *f)
{
    struct share *s = f->share;
    bool up = s->commands.up && s->subscribed == 3;
    if (up == s->up) return;
    s->up = up;
    s->since_ms = ka_now_ms();
    if (up) {
        share_load(f);
        return;
    }
    /* The Redis that comes back may be behind. */
    for (size_t i = 0; i < f->devices_n; i++) f->devices[i]->version = 0;
}

/* Both connections have to be to the same Redis: PUBLISH reaches only clients of that one. Behind a
   name, or a proxy, they could part. So when one is lost, the other is closed, too. */
static void share_lost(fleet *f, const ka_redis *lost, ka_redis *other)
{
    struct share *s = f->share;
    bool by_us = s->closing == lost;
    s->closing = by_us || !other->up ? NULL : other;
    if (s->closing) ka_close(f->s, other->conn);
}

static void share_commands_changed(ka_redis *r, bool up)
{
    fleet *f = r->arg;
    if (up) share_say_alive(f);
    else share_lost(f, r, &f->share->subscriber);
    share_look(f);
}

static void share_subscribe(struct share *s)
{
    const ka_str args[] = { str("SUBSCRIBE"), str(s->changes), str(s->alive), str(s->mailbox) };
    s->to_subscribe = ka_redis_command(&s->subscriber, args, 4, NULL, NULL, 0) != KA_OK;
}

static void share_subscriber_changed(ka_redis *r, bool up)
{
    fleet *f = r->arg;
    f->share->subscribed = 0;
    if (up) share_subscribe(f->share);
    else share_lost(f, r, &f->share->commands);
    share_look(f);
}

static void share_mail(fleet *f, ka_str text);

static void share_pushed(ka_redis *r, const ka_resp *message)
{
    fleet *f = r->arg;
    struct share *s = f->share;
    ka_resp rest = *message, kind, channel, text;
    if (message->kind == KA_RESP_ERROR) {
        share_error(f, message);
        s->to_subscribe = true;
    }
    if (!ka_resp_next(&rest, &kind) || !ka_resp_next(&rest, &channel) ||
        !ka_resp_next(&rest, &text))
        return;
    if (ka_is(kind.text, "subscribe")) {
        s->subscribed++;
        share_look(f);
    } else if (ka_is(kind.text, "message")) {
        if (ka_is(channel.text, s->changes)) share_changed(f, text.text);
        else if (ka_is(channel.text, s->alive)) share_heard(f, text.text, ka_now_ms());
        else share_mail(f, text.text);
    }
}

/* ---- calls ---- */

static void share_called(ka_redis *r, const void *note, const ka_resp *reply)
{
    uint64_t call_number;
    memcpy(&call_number, note, sizeof call_number);
    if (reply && reply->kind == KA_RESP_INTEGER && reply->number > 0) return;
    call_done(r->arg, call_number, 503, no_text);
}

static int share_call(fleet *f, const device *d, const call *c)
{
    char text[8 * MAX_COMMAND], channel[MAX_KEY + 1], owner[KA_UUID_TEXT + 1];
    ka_json_out w = { .p = text, .cap = sizeof text };
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put_integer(&w, "call", (int64_t)c->number);
    ka_json_put(&w, "from", str(f->id));
    ka_json_put(&w, "device", str(d->id));
    ka_json_put(&w, "message", str(c->message));
    ka_json_close(&w);
    snprintf(owner, sizeof owner, "%.*s", (int)KA_UUID_TEXT, d->owner);
    share_key(f->share, channel, "to:", owner);
    const ka_str args[] = { str("PUBLISH"), str(channel), { text, w.n } };
    if (!f->share->up || w.error) return 503;
    int r = ka_redis_command(&f->share->commands, args, 3, share_called, &c->number,
                             sizeof c->number);
    return r == KA_OK ? 0 : 503;
}

/* If the reply can't be sent, the call ends at the other instance by its time-out. */
static void share_reply(fleet *f, const char *to, uint64_t number, int status, ka_str reply)
{
    char text[8 * MAX_COMMAND], channel[MAX_KEY + 1];
    ka_json_out w = { .p = text, .cap = sizeof text };
    ka_json_open(&w, NULL, KA_OBJECT);
    ka_json_put_integer(&w, "reply", (int64_t)number);
    ka_json_put_integer(&w, "status", status);
    ka_json_put(&w, "text", reply);
    ka_json_close(&w);
    share_key(f->share, channel, "to:", to);
    share_publish(f, channel, (ka_str){ text, w.n }, NULL, NULL, 0);
}

/* Somebody calls a device that is here, or replies to a call of ours. */
static void share_mail(fleet *f, ka_str text)
{
    ka_json v;
    uint64_t call_number, status;
    char from[KA_UUID_TEXT + 1], id[KA_UUID_TEXT + 1], words[MAX_COMMAND + 1];
    if (ka_json_read(&v, text) != KA_OK) return;
    if (share_number_of(&v, "call", &call_number) && share_id_of(&v, "from", from) &&
        share_id_of(&v, "device", id) && share_text_of(&v, "message", words, MAX_COMMAND)) {
        call_from(f, from, call_number, id, words);
    } else if (share_number_of(&v, "reply", &call_number) &&
               share_number_of(&v, "status", &status) && status <= 599) {
        bool replied = share_text_of(&v, "text", words, MAX_COMMAND);
        call_done(f, call_number, (int)status, replied ? str(words) : no_text);
    }
}

/* ---- time ---- */

static bool share_is_gone(const struct share *s, const char *owner, int64_t now_ms)
{
    int64_t heard_ms = s->since_ms;
    for (size_t i = 0; i < s->peers_n; i++)
        if (strncmp(s->peers[i].id, owner, KA_UUID_TEXT) == 0 && s->peers[i].heard_ms > heard_ms)
            heard_ms = s->peers[i].heard_ms;
    return now_ms - heard_ms > GONE_MS;
}

/* Make the devices of instances that are gone offline, with a token of this instance. share_echo
   tells whether it was the first. */
static void share_reap(fleet *f, int64_t now_ms)
{
    for (size_t i = 0; i < f->devices_n; i++) {
        const device *d = f->devices[i];
        if (!d->online || d->conn || share_owns(f, d->owner) ||
            !share_is_gone(f->share, d->owner, now_ms))
            continue;
        device reaped = *d;
        reaped.online = false;
        snprintf(reaped.owner, sizeof reaped.owner, "%s:%llu", f->id,
                 (unsigned long long)++f->connections_made);
        if (!share_send(f, &reaped, d->owner,
                        device_event(f->share->event, &reaped, OFFLINE, no_text)))
            return;
    }
}

static void share_tell(fleet *f, int64_t now_ms)
{
    struct share *s = f->share;
    const char *why = ka_redis_trouble(s->commands.up ? &s->subscriber : &s->commands);
    if (s->up && s->told_away) {
        note("Redis at %s is back", s->place);
        s->told_away = false;
    } else if (!s->up && !s->told_away && now_ms - s->since_ms >= TICK_MS) {
        note("Redis at %s is down (%s). Devices that are connected here are served; commands "
                "to others get 503 until it is back", s->place,
             *why ? why : "no answer yet");
        s->told_away = true;
    }
}

/* Say so when Redis may drop hashes: all of them have an end. */
static void share_tell_policy(struct share *s)
{
    if (strcmp(s->told_policy, s->commands.policy) == 0) return;
    strcpy(s->told_policy, s->commands.policy);
    if (*s->told_policy && strcmp(s->told_policy, "noeviction") != 0)
        note("Redis at %s may evict devices, since its maxmemory-policy is %s; set it to "
                "noeviction", s->place, s->told_policy);
}

static void share_tick(fleet *f, int64_t now_ms)
{
    struct share *s = f->share;
    if (!s) return;
    share_tell(f, now_ms);
    share_tell_policy(s);
    if (s->commands.up && *ka_redis_trouble(&s->commands))
        share_refuses(f, ka_redis_trouble(&s->commands));
    if (now_ms - s->ticked_ms > LATE_MS) s->since_ms = now_ms;
    s->ticked_ms = now_ms;
    if (s->commands.up) share_say_alive(f);
    if (s->subscriber.up && s->to_subscribe) share_subscribe(s);
    if (!s->up) return;
    if (s->load_due) share_load(f);
    if (s->loading) return;
    share_put_rest(f);
    share_reap(f, now_ms);
}

static const char *share_text(const fleet *f)
{
    if (!f->share) return "none";
    return f->share->up ? "up" : "away";
}

/* ---- begin and end ---- */

/* What was given may hold a password, and so is not shown. */
static int share_options(const char *text, struct share *s)
{
    static const char may[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:._-";
    const char *why;
    strcpy(s->at.prefix, "fleet:");
    int r = ka_redis_read_address(&s->at, text, getenv("KEYAUTH_REDIS_PASSWORD"), &why);
    if (r < 0) return fail(r == KA_ENOTFOUND ? EXIT_FAILED : EXIT_USAGE, "--redis: %s", why);
    size_t n = strlen(s->at.prefix);
    if (n > MAX_PREFIX || strspn(s->at.prefix, may) < n)
        return fail(EXIT_USAGE, "--redis: ,prefix= takes up to %d letters, digits, : . _ -",
                    MAX_PREFIX);
    memcpy(s->prefix, s->at.prefix, n + 1);
    ka_place_text(s->place, s->at.host, s->at.port);
    return -1;
}

static void share_connection(fleet *f, ka_redis *r, void (*on_change)(ka_redis *, bool))
{
    r->at = &f->share->at;
    r->on_change = on_change;
    r->arg = f;
}

static int share_start(fleet *f)
{
    if (!f->redis) return -1;
    struct share *s = f->share = calloc(1, sizeof *s);
    if (!s) return fail(EXIT_FAILED, "out of memory");
    int status = share_options(f->redis, s);
    if (status >= 0) return status;
    share_key(s, s->changes, "changes", "");
    share_key(s, s->alive, "alive", "");
    share_key(s, s->mailbox, "to:", f->id);
    s->since_ms = s->ticked_ms = ka_now_ms();
    share_connection(f, &s->commands, share_commands_changed);
    share_connection(f, &s->subscriber, share_subscriber_changed);
    s->commands.writes = true;
    s->subscriber.on_push = share_pushed;
    int error = ka_redis_start(&s->commands, f->s);
    if (!error) error = ka_redis_start(&s->subscriber, f->s);
    return error ? fail(EXIT_FAILED, "--redis: %s", ka_error_text(error)) : -1;
}

static void share_free(fleet *f)
{
    struct share *s = f->share;
    if (!s) return;
    ka_redis_free(&s->commands);
    ka_redis_free(&s->subscriber);
    free(s->peers);
    ka_wipe(&s->at, sizeof s->at);
    free(s);
    f->share = NULL;
}

#endif
