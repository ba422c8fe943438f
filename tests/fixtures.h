/* tests/fixtures.h - what tests of a server in this process share. */

/* How its parent answers: what it was asked ("METHOD TARGET BODY"); or three at a time, the last
   one first; or each (SLOW: every sixteenth) a little later, so that requests pile up. */
enum {
    ECHO,
    BACKWARDS,
    LATE,
    SLOW,
    STATUS /* the one that is asked for: GET /404 */,
    TALK /* JSON */,
    FRAMES,
    LINES,
    RESP,
    NETSTRINGS
};

typedef struct {
    ka_server   *s;
    ka__thread   thread;
    int          mode;
    _Atomic(int) port, error, ended, opened, closed, why;      /* why: the last KA_CLOSED's error */
} fixture;

static void echo(ka_server *s, const ka_event *ev)
{
    char text[KA_MAX_HEAD + KA_MAX_BODY];
    int n = snprintf(text, sizeof text, "%.*s %.*s %.*s", (int)ev->method.n, ev->method.p,
                     (int)ev->target.n, ev->target.p, (int)ev->body.n, ev->body.p);
    ka_reply(s, ev, ev->status ? ev->status : 200, "X-Test: yes\r\n", text,
             ev->status ? 0 : (size_t)n);
}

/* A framing of one's own. */
static ptrdiff_t netstring_cut(ka_cut *state, const char *p, size_t n, ka_str *message)
{
    size_t i = 0, length = 0;
    (void)state;
    for (; i < n && p[i] >= '0' && p[i] <= '9' && length <= KA_MAX_BODY; i++)
        length = length * 10 + (size_t)(p[i] - '0');
    if (length > KA_MAX_BODY) return KA_ENOSPC;
    if (i == n) return KA_EAGAIN;
    if (i == 0 || p[i] != ':') return KA_ESYNTAX;
    if (n - i < length + 2) return KA_EAGAIN;
    if (p[i + 1 + length] != ',') return KA_ESYNTAX;
    *message = (ka_str){ p + i + 1, length };
    return (ptrdiff_t)(i + length + 2);
}
static const ka_framing netstrings = { netstring_cut, 0 };

/* The framings, by the number that a test's mode, listener or table has for them. */
enum { CUT_HTTP, CUT_OBJECTS, CUT_FRAMES, CUT_LINES, CUT_RESP, CUT_NETSTRINGS, CUTS };
static const ka_framing *const framings[CUTS] = { NULL,      &ka_objects,      &ka_frames,
                                                  &ka_lines, &ka_resp_framing, &netstrings };

static int framing_number(const ka_framing *framing)
{
    int i = 0;
    while (i < CUTS && framings[i] != framing) i++;
    return i;
}

/* What a message is refused for, as HTTP has it. */
static int refusal(int error)
{
    return error == KA_ESYNTAX  ? 400
           : error == KA_ENOSPC ? 413
           : error == KA_ETIME  ? 408
           : error == KA_ENOMEM ? 503
                                : error;
}

/* Each event of a connection that isn't HTTP is told to it. */
static void talk(fixture *f, const ka_event *ev)
{
    char text[KA_MAX_BODY + 64], peer[KA_END_TEXT + 1];
    ka_end_text(peer, ev->peer);
    *strchr(peer, ':') = 0;
    const char *form = ev->kind == KA_OPENED   ? "hello %s;"
                       : ev->kind == KA_CLOSED ? "bye;"
                       : ev->error             ? "%s%d;"
                                               : "";
    int n =
        snprintf(text, sizeof text, form, ev->kind == KA_OPENED ? peer : "", refusal(ev->error));
    if (ev->kind == KA_MESSAGE && !ev->error) {      /* there may be a NUL in it */
        memcpy(text, ev->body.p, ev->body.n);
        text[ev->body.n] = ';';
        n = (int)ev->body.n + 1;
    }
    if (ka_is(ev->body, "{\"frames\": 1}")) ka_reframe(f->s, ev->conn, &ka_frames);
    if (ka_is(ev->body, "{\"lines\": 1}")) ka_reframe(f->s, ev->conn, &ka_lines);
    if (ka_is(ev->body, "{\"objects\": 1}")) ka_reframe(f->s, ev->conn, &ka_objects);
    bool known = ka_send(f->s, ev->conn, text, (size_t)n) == KA_OK;
    if (ev->kind != KA_MESSAGE) CHECK(known, "a known connection");
    if (ev->kind == KA_OPENED) {
        CHECK(ev->listener == 0 && ev->peer.port > 0 && ev->error == 0, "a newcomer, at %d",
              ev->listener);
        atomic_fetch_add(&f->opened, 1);
    }
    if (ev->kind == KA_CLOSED) {
        atomic_store(&f->why, ev->error);
        atomic_fetch_add(&f->closed, 1);
    }
    if (ka_is(ev->body, "{\"close\": 1}")) ka_close(f->s, ev->conn);
    if (ka_is(ev->body, "{\"late\": 1}")) ka_sleep_ms(300);
}

static void fixture_run(void *arg)
{
    fixture *f = arg;
    ka_event held[3];
    int held_n = 0, turn = 0, r;
    for (ka_event ev; (r = ka_wait(f->s, &ev, 5000)) == KA_OK || r == KA_ETIME; ) {
        if (r == KA_ETIME) continue;
        if (ev.kind == KA_LISTENING) {
            atomic_store(&f->error, ev.error);
            atomic_store(&f->port, ev.error ? -1 : ev.port);
        } else if (f->mode >= TALK) {
            talk(f, &ev);
        } else if (f->mode == BACKWARDS) {
            held[held_n++] = ev;
            char text[2] = "a";
            for (int i = held_n == 3 ? 3 : 0; i > 0; i--) {
                text[0] = (char)('a' + i - 1);
                ka_reply(f->s, &held[i - 1], 200, NULL, text, 1);
            }
            held_n %= 3;
        } else if (f->mode == STATUS) {
            char code[8];
            snprintf(code, sizeof code, "%.*s", (int)ev.target.n - 1, ev.target.p + 1);
            int status = atoi(code);
            ka_reply(f->s, &ev, status, status == 299 ? "content-TYPE: a/b\r\n" : NULL, "x",
                     status != 204 && status != 304 && !ka_is(ev.target, "/00"));
        } else {
            if (f->mode == LATE || (f->mode == SLOW && turn++ % 16 == 0)) ka_sleep_ms(1);
            echo(f->s, &ev);
        }
    }
    atomic_store(&f->ended, r);
}

static bool fixture_start(fixture *f, int mode, int workers)
{
    memset(f, 0, sizeof *f);
    f->mode = mode;
    int r = ka_server_start(&f->s, workers);
    if (r == KA_OK)
        r = ka_listen_as(f->s, framings[mode >= TALK ? CUT_OBJECTS + mode - TALK : CUT_HTTP],
                         "127.0.0.1", 0);
    if (r == KA_OK) r = ka__thread_start(&f->thread, fixture_run, f);
    if (!CHECK(r == KA_OK, "the server starts: %s", ka_error_text(r))) return false;
    while (atomic_load(&f->port) == 0) ka_sleep_ms(1);
    return CHECK(atomic_load(&f->port) > 0, "it listens: %s",
                 ka_error_text(atomic_load(&f->error)));
}

/* Stop gracefully, and see that it ends. */
static void fixture_stop(fixture *f)
{
    ka_stop(f->s);
    ka__thread_join(&f->thread);
    CHECK(atomic_load(&f->ended) == KA_ESTOPPED, "it stops: %d", atomic_load(&f->ended));
    CHECK(ka_listen(f->s, "127.0.0.1", 0) == KA_ESTOPPED, "and won't listen again");
    ka_server_free(f->s);
}

/* ---- a plain connection, with what was received and not yet read ---- */

typedef struct { ka__sock sock; size_t n; char buf[65536]; } wire;

static bool wire_wait(ka__sock s, int want)
{
    int r;
    while ((r = ka__sock_wait(s, want, PATIENCE_MS)) == KA_EAGAIN) {}
    return r == KA_OK;
}

static int wire_try(wire *w, const char *ip, int port)
{
    w->n = 0;
    int r = ka__sock_connect(NULL, ip, port, &w->sock);
    if (r != KA_EAGAIN) return r;
    r = wire_wait(w->sock, KA__OUT) ? ka__sock_connected(w->sock) : KA_ETIME;
    if (r < 0) ka__sock_close(w->sock);
    return r;
}

static bool wire_open_at(wire *w, const char *ip, int port)
{
    int r = wire_try(w, ip, port);
    return CHECK(r == KA_OK, "connect to port %d: %s", port, ka_error_text(r));
}

static bool wire_open(wire *w, int port) { return wire_open_at(w, "127.0.0.1", port); }

static bool wire_send(wire *w, const char *p, size_t n)
{
    while (n > 0) {
        ptrdiff_t sent = ka__sock_send(w->sock, p, n);
        if (sent < 0 && (sent != KA_EAGAIN || !wire_wait(w->sock, KA__OUT))) return false;
        if (sent < 0) continue;
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* Send so many bytes at a time. False: the peer would take no more. */
static bool wire_pieces(wire *w, const char *p, size_t n, size_t piece)
{
    for (size_t at = 0; at < n; at += piece)
        if (!wire_send(w, p + at, n - at < piece ? n - at : piece)) return false;
    return true;
}

static bool wire_text(wire *w, const char *text) { return wire_send(w, text, strlen(text)); }

/* 1: more bytes; 0: the end; -1: reset, or nothing for PATIENCE_MS. */
static int wire_more(wire *w)
{
    for (;;) {
        ptrdiff_t got = ka__sock_recv(w->sock, w->buf + w->n, sizeof w->buf - w->n);
        if (got == KA_EAGAIN && wire_wait(w->sock, KA__IN)) continue;
        if (got <= 0) return got == 0 ? 0 : -1;
        w->n += (size_t)got;
        return 1;
    }
}

/* Read one answer: its status, or 0 at a clean end, -1 otherwise. Its text, head included, goes to
   head. */
static int wire_answer(wire *w, char *body, size_t body_cap, char *head_text, bool bodiless)
{
    ka__http h;
    for (;;) {
        ptrdiff_t head = ka__http_response(&h, w->buf, w->n);
        size_t length = h.length > 0 && !bodiless ? (size_t)h.length : 0;
        if (head > 0 && w->n >= (size_t)head + length) {
            size_t keep = length < body_cap - 1 ? length : body_cap - 1;
            memcpy(body, w->buf + head, keep);
            body[keep] = 0;
            if (head_text) snprintf(head_text, 1024, "%.*s", (int)head, w->buf);
            w->n -= (size_t)head + length;
            memmove(w->buf, w->buf + head + length, w->n);
            return h.status;
        }
        if (head < 0 && head != KA_EAGAIN) return -1;
        int r = wire_more(w);
        if (r <= 0) return r == 0 && w->n == 0 ? 0 : -1;
    }
}

static void wire_close(wire *w) { ka__sock_close(w->sock); }

/* The next event of this kind. */
static bool next_event(ka_server *s, ka_event *ev, int kind)
{
    int r = ka_wait(s, ev, PATIENCE_MS);
    return CHECK(r == KA_OK && ev->kind == kind, "event %d comes: %d, kind %d", kind, r,
                 r == KA_OK ? ev->kind : 0);
}

/* A server whose parent is this thread, and the port of its first listener. */
static bool parent_start(ka_server **s, int workers, const ka_framing *framing, int *port)
{
    ka_event ev;
    *port = 0;
    if (!CHECK(ka_server_start(s, workers) == KA_OK, "starts")) return false;
    if (!CHECK(ka_listen_as(*s, framing, "127.0.0.1", 0) == 0, "will listen")) return false;
    if (!next_event(*s, &ev, KA_LISTENING)) return false;
    *port = ev.port;
    return CHECK(ev.error == 0, "listens: %d", ev.error);
}

/* Nothing comes for so long, and what was said leaves. */
static bool quiet(ka_server *s, int ms)
{
    ka_event ev;
    int r = ka_wait(s, &ev, ms);
    return CHECK(r == KA_ETIME, "nothing comes: %d, kind %d", r, r == KA_OK ? ev.kind : 0);
}

/* Read these bytes, and take them off. */
static bool wire_gets(wire *w, const char *want)
{
    size_t n = strlen(want);
    while (w->n < n && wire_more(w) > 0) {}
    if (w->n < n || memcmp(w->buf, want, n) != 0) return false;
    w->n -= n;
    memmove(w->buf, w->buf + n, w->n);
    return true;
}

/* Nothing more, and the end. */
static bool wire_over(wire *w) { return w->n == 0 && wire_more(w) == 0; }

/* ---- dialogues: these bytes, in whatever pieces, give that until the close ---- */

/* closes: the server does; else it is told that no more comes. HTTP's answers are compared as
   "STATUS BODY;", those of a framing without the first word. */
typedef struct { ka_str in, want; const char *why; bool closes; } dialogue;
#define GIVES(in, want, why) { { BYTES(in) }, { BYTES(want) }, why, false }
#define CLOSES(in, want, why) { { BYTES(in) }, { BYTES(want) }, why, true }

enum { HELLO = 16 };      /* bytes of the first word */

static size_t dialogue_read(wire *w, bool http, char got[2 * KA_MAX_BODY])
{
    char body[128];
    int status, n = 0;
    if (http) {
        while ((status = wire_answer(w, body, sizeof body, NULL, false)) > 0)
            n += snprintf(got + n, 2 * KA_MAX_BODY - (size_t)n, "%d %.100s;", status, body);
        return (size_t)(status == 0 ? n : snprintf(got, 64, "no clean end"));
    }
    while (wire_more(w) > 0) {}
    if (w->n < HELLO || w->n > 2 * KA_MAX_BODY) return 0;
    memcpy(got, w->buf + HELLO, w->n - HELLO);
    return w->n - HELLO;
}

/* Send `first` bytes, and then `piece` at a time. Where these differ, a pause has the server read
   the first alone. */
static void dialogue_run(fixture *f, dialogue e, size_t first, size_t piece)
{
    static wire w;
    char got[2 * KA_MAX_BODY];
    if (!wire_open(&w, atomic_load(&f->port))) return;
    for (size_t at = 0, n = first; at < e.in.n; at += n, n = piece) {
        if (n > e.in.n - at) n = e.in.n - at;
        if (!wire_send(&w, e.in.p + at, n)) break;      /* it may be refused meanwhile */
        if (first != piece && at + n < e.in.n) ka_sleep_ms(1);
    }
    if (!e.closes) ka__sock_end(w.sock);
    size_t got_n = dialogue_read(&w, f->mode < TALK, got);
    CHECK(got_n == e.want.n && memcmp(got, e.want.p, got_n) == 0,
          "%s, %d and then %d at a time: got \"%.*s\"", e.why, (int)first, (int)piece, (int)got_n,
          got);
    wire_close(&w);
}

/* Each whole, byte by byte, and cut at every byte (a long one at 64 of them): so many runs. */
static int dialogues_run(fixture *f, const dialogue *rows, size_t n)
{
    int runs = 0;
    for (size_t i = 0; i < n; i++) {
        dialogue_run(f, rows[i], rows[i].in.n, rows[i].in.n);
        dialogue_run(f, rows[i], 1, 1);
        runs += 2;
        const size_t step = (1 + rows[i].in.n / 64) * (size_t)alike();
        for (size_t split = 1; split < rows[i].in.n; split += step, runs++)
            dialogue_run(f, rows[i], split, rows[i].in.n);
    }
    return runs;
}
