/* state.h - the devices in a file (--state): a line of JSON for each change of a device, appended.
   The last line of a device holds.

   What has changed since the last tick is written and synced at the next one, so a crash loses a
   second at most. If there are STATE_LEAST lines or more, and more than half of them are history,
   the file is written anew. While it can't be written, the changes wait, marked in the devices.
   After a restart all devices are offline until they connect. */

#ifndef FLEET_STATE_H
#define FLEET_STATE_H

#include "fleet.h"

enum {
    STATE_LINE = 1024,                        /* bytes of a line, at most */
    STATE_LEAST = 1000
};

struct state {
    ka_log *log;
    size_t  lines;                            /* in the file */
    int     error;                            /* of the last write, which was told */
};

/* Write the line of d. Its bytes. */
static size_t state_line(char line[STATE_LINE], const device *d)
{
    ka_json_out w = { .p = line, .cap = STATE_LINE - 1 };
    device_put(&w, NULL, d);
    KA_ASSERT(!w.error);
    line[w.n++] = '\n';
    return w.n;
}

/* Take a line. False: it is none. Who was seen before that time is forgotten. */
static bool state_read_line(fleet *f, ka_str line, const char *forgotten)
{
    ka_json v, id;
    char text[KA_UUID_TEXT];
    device read = { .online = false };
    if (ka_json_read(&v, line) < 0 || ka_json_find(&v, "id", &id) < 0 ||
        ka_json_string(text, sizeof text, &id) != KA_UUID_TEXT)
        return false;
    if (ka_uuid_read(read.id, (ka_str){ text, KA_UUID_TEXT }) < 0 || !device_read(&read, &v))
        return false;
    if (strcmp(read.seen, forgotten) < 0) return true;
    device *d = device_get(f, read.id);
    if (!d) return false;
    device_read(d, &v);
    d->online = false;
    return true;
}

/* The next line and its line feed, or as much of it as there is room for. Its bytes; 0: at the end.
   A line with zeros is left out: a crash came while it was written (ext/log.h). */
static size_t state_next(FILE *in, char line[STATE_LINE])
{
    size_t n = 0;
    bool torn = false;
    for (int c; (c = getc(in)) != EOF; ) {
        torn = torn || c == 0;
        if (n < STATE_LINE) line[n++] = (char)c;
        if (c != '\n') continue;
        if (!torn) return n;
        n = 0;
        torn = false;
    }
    return torn ? 0 : n;
}

/* -1: go on; otherwise exit with this. */
static int state_read(fleet *f)
{
    char line[STATE_LINE], forgotten[KA_UTC_TEXT + 1];
    int status = -1;
    ka_utc_text(forgotten, ka_wall_us() - FORGET_S * (int64_t)1000000);
    FILE *in = fopen(f->state_file, "rb");
    if (!in) return fail(EXIT_FAILED, "cannot read %s; look at its rights", f->state_file);
    for (size_t n; status < 0 && (n = state_next(in, line)) > 0; ) {
        f->state->lines++;
        if (line[n - 1] != '\n' || !state_read_line(f, (ka_str){ line, n }, forgotten))
            status = fail(EXIT_FAILED,
                          "%s:%llu: this line is no device; take it out, or move the file away to "
                          "begin without it",
                          f->state_file, (unsigned long long)f->state->lines);
    }
    if (ferror(in))
        status = fail(EXIT_FAILED, "cannot read %s to its end; look at the disk", f->state_file);
    fclose(in);
    return status;
}

static int state_open(fleet *f)
{
    int64_t cut;
    int os_error;
    const char *file = f->state_file;
    if (!file) return -1;
    if ((f->state = calloc(1, sizeof *f->state)) == NULL)
        return fail(EXIT_FAILED, "cannot start: out of memory");
    int r = ka_log_open(&f->state->log, file, "{\"id\": \"", &cut, &os_error);
    if (r == KA_ESYNTAX)
        return fail(EXIT_FAILED, "%s holds no devices of fleet; choose another --state", file);
    if (r < 0) {
        char why[KA_TROUBLE_TEXT];
        return fail(EXIT_FAILED, "cannot use %s: %s; mend that, or choose another --state", file,
                    ka_file_trouble(why, file, r, os_error));
    }
    if (cut)
        note("%s: cut off its last %lld bytes, a line that was not written to its end", file,
             (long long)cut);
    return state_read(f);
}

/* Append what has changed, or the first part of it, if memory is out. */
static int state_append(fleet *f, int *os_error)
{
    char line[STATE_LINE];
    size_t end = 0, added = 0;
    for (; end < f->devices_n; end++) {
        if (!f->devices[end]->unsaved) continue;
        if (ka_log_add(f->state->log, line, state_line(line, f->devices[end])) < 0) break;
        added++;
    }
    int r = ka_log_commit(f->state->log, os_error);
    if (r < 0) return r;
    f->state->lines += added;
    for (size_t i = 0; i < end; i++) f->devices[i]->unsaved = false;
    return end < f->devices_n ? KA_ENOMEM : KA_OK;
}

/* Write the file anew: a line for each device. */
static int state_rewrite(fleet *f, int *os_error)
{
    size_t n = 0, room = 0;
    char *text = NULL;
    for (size_t i = 0; i < f->devices_n; i++) {
        if (room - n < STATE_LINE) {
            char *more = realloc(text, room = 2 * room + 64 * STATE_LINE);
            if (!more) return free(text), KA_ENOMEM;
            text = more;
        }
        n += state_line(text + n, f->devices[i]);
    }
    int r = ka_log_replace(f->state->log, text, n, os_error);
    free(text);
    if (r == KA_OK) f->state->lines = f->devices_n;
    return r;
}

/* Say so when it can't be written any more, and when it can again. */
static void state_tell(fleet *f, int r, int os_error)
{
    if (r == f->state->error) return;
    f->state->error = r;
    if (r == KA_OK) note("%s is written again", f->state_file);
    else {
        char why[KA_TROUBLE_TEXT];
        note("cannot write %s: %s; it is tried again each second, nothing is lost until a stop",
             f->state_file, ka_file_trouble(why, f->state_file, r, os_error));
    }
}

static void state_tick(fleet *f)
{
    size_t i = 0;
    int os_error = 0;
    if (!f->state || !f->state->log) return;
    while (i < f->devices_n && !f->devices[i]->unsaved) i++;
    if (i == f->devices_n) return;
    int r = state_append(f, &os_error);
    if (r == KA_OK && f->state->lines >= STATE_LEAST && f->state->lines > 2 * f->devices_n)
        r = state_rewrite(f, &os_error);
    state_tell(f, r, os_error);
}

static void state_close(fleet *f)
{
    if (!f->state) return;
    state_tick(f);
    ka_log_close(f->state->log);
    free(f->state);
}

#endif
