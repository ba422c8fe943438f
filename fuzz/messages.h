/* fuzz/messages.h - connections with framings other than HTTP: what is said, and what the parent
   must be told, beside a plain reading. */

enum { EITHER = 1 };

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* The next message in the bytes that a peer sent and the server heard, read in one piece.
     returns    KA_OK: *body; KA_EAGAIN; KA_ESYNTAX or KA_ENOSPC; or EITHER of them, as the pieces
                may have been */
static int next_message(const peer *p, int framing, ka_str *body, size_t *end)
{
    const char *text = p->to_server.p;
    size_t from = p->at, all = p->heard, depth = 0;
    char quote = 0;
    if (framing == LINES) {
        size_t n = 0;
        if (from == all) return KA_EAGAIN;
        while (n < all - from && text[from + n] != '\n') n++;
        bool whole = n < all - from, cr = n > 0 && text[from + n - 1] == '\r';
        if (n - cr > KA_MAX_BODY) return KA_ENOSPC;
        *body = (ka_str){ text + from, n - cr };
        *end = from + n + 1;
        return whole ? KA_OK : KA_EAGAIN;
    }
    if (framing == FRAMES) {
        while (from < all && is_space(text[from])) from++;
        if (all - from < 4) return KA_EAGAIN;
        uint64_t n = 0;
        for (int i = 0; i < 4; i++) n = n * 256 + (unsigned char)text[from + (size_t)i];
        if (n > KA_MAX_BODY) return KA_ENOSPC;
        if (all - from < n + 4) return KA_EAGAIN;
        *body = (ka_str){ text + from + 4, (size_t)n };
        *end = from + 4 + (size_t)n;
        return KA_OK;
    }
    if (framing == VALUES) {
        size_t n = all - from < 4 * KA_MAX_BODY ? all - from : 4 * KA_MAX_BODY, found = 0,
               first = 0;
        if (n == 0) return KA_EAGAIN;
        int r = plain_resp(text + from, n, &found);
        *body = (ka_str){ text + from, found };
        *end = from + found;
        if (r == KA_ESYNTAX)
            return plain_resp(text + from, n < KA_MAX_BODY ? n : KA_MAX_BODY, &first) == KA_ESYNTAX
                       ? KA_ESYNTAX
                       : EITHER;
        if (r == KA_EAGAIN && from + n < all) return EITHER;
        return (r == KA_OK ? found : n) > KA_MAX_BODY ? KA_ENOSPC : r;
    }
    while (from < all && is_space(text[from])) from++;
    if (from == all) return KA_EAGAIN;
    if (text[from] != '{') return KA_ESYNTAX;
    for (size_t i = from; i < all; i++) {
        if (quote && text[i] == '\\') i++;
        else if (quote && (unsigned char)text[i] < 32)
            return i - from > KA_MAX_BODY ? EITHER : KA_ESYNTAX;
        else if (quote) quote = text[i] == quote ? 0 : quote;
        else if (text[i] == '"' || text[i] == '\'') quote = text[i];
        else if (text[i] == '{') depth++;
        else if (text[i] == '}' && --depth == 0) {
            *body = (ka_str){ text + from, i + 1 - from };
            *end = i + 1;
            return body->n > KA_MAX_BODY ? KA_ENOSPC : KA_OK;
        }
    }
    return all - from > KA_MAX_BODY ? KA_ENOSPC : KA_EAGAIN;
}

/* Is there anything behind the last message, but white space that belongs to none? */
static bool begun(const peer *p)
{
    size_t from = p->at;
    bool counts = memchr(p->framings, LINES, (size_t)p->framings_n) ||
                  memchr(p->framings, VALUES, (size_t)p->framings_n);
    while (!counts && from < p->heard && is_space(p->to_server.p[from])) from++;
    return from < p->heard;
}

/* White space before the first line or value may have been passed over, in the framing before. */
static bool passed_over(const peer *p, int framing)
{
    return framing >= LINES && p->framings_n > 1 && p->at < p->heard &&
           is_space(p->to_server.p[p->at]);
}

/* Is nothing whole left, or wrong? */
static bool at_rest(const peer *p)
{
    peer rest = *p;
    ka_str body;
    size_t end;
    int r;
    while ((r = next_message(&rest, p->framing, &body, &end)) != KA_EAGAIN &&
           passed_over(&rest, p->framing))
        rest.at++;
    return r == KA_EAGAIN;
}

/* All that is whole was delivered. */
static void delivered_check(const peer *p)
{
    if (p->refused || p->told || p->hung_up) return;
    CHECK(p->opened, "connected, and the parent doesn't know");
    CHECK(p->received == p->to_server.n, "%d bytes were never read",
          (int)(p->to_server.n - p->received));
    CHECK(at_rest(p), "a message was not delivered");
}

static void say(peer *p, const char *text, size_t n)
{
    int r = ka_send(at.server, p->conn, text, n);
    CHECK(r == KA_OK, "ka_send: %d", r);
    if (p->hung_up) return;
    append(&p->said, text, n);
}

static void say_bytes(peer *p, size_t n)
{
    static char text[KA_MAILBOX / 4 + 1];
    for (size_t i = 0; i < sizeof text && !text[0]; i++)
        text[sizeof text - 1 - i] = (char)('a' + i % 23);
    at.says++;
    say(p, text + sizeof text - n - at.says % (sizeof text + 1 - n) % 23, n);
}

static void hang_up(peer *p)
{
    ka_close(at.server, p->conn);
    p->hung_up = true;
}

static void reframe(peer *p, int framing)
{
    if (p->framings_n == sizeof p->framings) return;
    CHECK(ka_reframe(at.server, p->conn, framings[framing]) == KA_OK, "ka_reframe");
    p->framings[p->framings_n++] = (char)framing;
    p->framing = framing;
}

static int other_framing(const peer *p)
{
    return p->framing >= LINES ? OBJECTS : OBJECTS + FRAMES - p->framing;
}

static int framing_of(size_t n)
{
    if (n >= 232) return n >= 240 ? LINES : VALUES;
    return n & 1 ? FRAMES : OBJECTS;
}

/* What ka_connect was told, more than 32 bits of it. */
static uint64_t tag_of(const peer *p) { return (uint64_t)p->port * 0x700000007; }

static void connect_to(int framing, int knock)
{
    if (peers_n == PEERS) return;
    int port = OUT + peers_n;
    peer *p = sim_peer(port);
    p->knock = knock;
    p->framings[p->framings_n++] = (char)(p->framing = framing);
    const char *from = peers_n & 1 ? NULL : "127.0.0.9";
    int r = ka_connect(at.server, framings[framing], from, "127.0.0.1", port, tag_of(p));
    CHECK(r == (at.stopping ? KA_ESTOPPED : KA_OK), "ka_connect: %d", r);
    if (r < 0) *p = (peer){ 0 };
    if (r < 0) peers_n--;
}

static void opened_event(const ka_event *ev)
{
    peer *p = ev->error ? NULL : peer_of(ev->conn);
    for (int i = 0; i < peers_n && ev->error; i++)
        if (peers[i].port >= OUT && tag_of(&peers[i]) == ev->tag) p = &peers[i];
    CHECK(p && !p->opened, "opened twice, or nobody asked for it: %llx",
          (unsigned long long)ev->tag);
    p->opened = true;
    if (ev->error) p->told = p->hung_up = true;
    if (ev->error) p->lost = false;      /* nobody was to read what it had sent already */
    bool out = p->port >= OUT;
    CHECK(ev->listener == (out ? -1 : p->port) && ev->tag == (out ? tag_of(p) : 0) && !ev->seq &&
          !ev->body.n && !ev->port, "listener %d, tag %llx", ev->listener,
          (unsigned long long)ev->tag);
    switch (ev->error) {
    case KA_OK:
        CHECK(p->knock == CONNECTED && !at.stopped, "open, but it is not");
        end_check(ev, p);
        for (int i = 0; i < peers_n; i++)
            CHECK(&peers[i] == p || peers[i].port == 0 || !peers[i].opened || peers[i].told ||
                      ka_conn_index(at.server, peers[i].conn) != ka_conn_index(at.server, p->conn),
                  "two have the same index");
        CHECK(ka_conn_index(at.server, p->conn) < 64 * 2, "an index of %d",
              (int)ka_conn_index(at.server, p->conn));
        return;
    case KA_ETIME:    CHECK(at.slept && p->knock != REFUSED_AT_ONCE, "out of time"); return;
    case KA_ESTOPPED: CHECK(at.stopping && ev->listener == -1, "stopped"); return;
    case KA_ENOMEM:   CHECK(blocks_failed, "no memory"); return;
    case KA_ELIMIT:   CHECK(at.limited || watch_failed, "a limit"); return;
    default:
        CHECK(ev->error < 0 && (p->knock >= REFUSED || p->reset || watch_failed),
              "%d, but nobody refused it", ev->error);
    }
}

/* What is read at once gives r. */
static bool message_fits(const peer *p, const ka_event *ev, int r, ka_str body)
{
    switch (ev->error) {
    case 0:   return r == KA_OK && same_str(body, ev->body);
    case KA_ETIME:  return r == KA_EAGAIN && at.slept && p->at < p->heard;
    case KA_ENOMEM: return r == KA_EAGAIN && blocks_failed;
    case KA_ESYNTAX:
        return r == KA_ESYNTAX || r == EITHER || (r == KA_EAGAIN && p->fin && begun(p));
    case KA_ENOSPC: return r == KA_ENOSPC || r == EITHER;
    default:        return false;
    }
}

static bool timer_set(int64_t at_ms)
{
    if (at.timers_n == TIMERS) return false;
    int r = ka_timer(&at.source, at_ms, (uint64_t)at.timers_n);
    CHECK(r == KA_OK || (r == KA_ENOMEM && blocks_failed), "ka_timer: %d", r);
    if (r == KA_OK) at.timers[at.timers_n++] = at_ms;
    return r == KA_OK;
}

static int64_t timer_first(void)
{
    int64_t first = NEVER;
    for (int i = 0; i < at.timers_n; i++)
        if (at.timers[i] < first) first = at.timers[i];
    return first;
}

/* Some set another one, that is due. */
static void timer_event(const ka_event *ev)
{
    CHECK(ev->tag < (uint64_t)at.timers_n && at.timers[ev->tag] != NEVER, "timer %d", (int)ev->tag);
    CHECK(at.timers[ev->tag] <= ev->now_ms && ev->now_ms <= clock_ms, "timer %d is early",
          (int)ev->tag);
    CHECK(at.timers[ev->tag] == timer_first(), "timer %d is not the first", (int)ev->tag);
    at.timers[ev->tag] = NEVER;
    if (ev->tag % 4 == 3) timer_set(ev->now_ms - (int64_t)(ev->tag % 3));
}

/* Is this the message that was sent? */
static void message_check(const ka_event *ev, peer *p)
{
    ka_str body = { NULL, 0 };
    size_t end = 0;
    CHECK(!p->refused, "a message after the last one");
    int framing = framing_number(ev->framing);
    while (p->framings[p->framing_at] != framing)
        CHECK(++p->framing_at < p->framings_n, "framing %d", framing);
    CHECK(!ev->status && !ev->tag && !ev->seq && !ev->listener && !ev->port, "what others have");
    while (!message_fits(p, ev, next_message(p, framing, &body, &end), body) &&
           passed_over(p, framing))
        p->at++;
    int r = next_message(p, framing, &body, &end);
    CHECK(message_fits(p, ev, r, body), "%d with %d bytes, read at once: %d with %d", ev->error,
          (int)ev->body.n, r, (int)body.n);
    if (ev->error) p->refused = true;
    if (ev->error) p->refused_ms = clock_ms;
    p->at = end;
}

/* Are there connections that others have made? At a stop, those of ka_connect end after them. */
static bool callers_left(void)
{
    bool left = false;
    for (int i = 0; i < peers_n; i++)
        left = left || (peers[i].port < OUT && peers[i].accepted && !peers[i].closed);
    return left;
}

/* An end that it had asked for, or a stop, is none; a connection that was lost has a reason. */
static void closed_check(const ka_event *ev, const peer *p)
{
    bool lost = p->reset || p->slow || failed() || p->hung_up || p->refused ||
                (p->framings_n > 1 && begun(p));
    if (ev->error && p->fin)
        CHECK(p->reset || p->slow || failed() || at.slept || p->framings_n > 1,
              "closed with %d, and it has ended", ev->error);
    if (ev->error == 0)
        CHECK(p->fin || at.stopping, "closed without an error, and it isn't at an end");
    else CHECK(ev->error == KA_EOFFLINE && lost, "closed with %d, and it wasn't lost", ev->error);
    if (ev->error == 0 && !p->fin && p->port >= OUT)
        CHECK(at.slept || !callers_left(), "stopped before those who may need it");
}

/* An answer that goes on in another framing has begun in its turn, brings a message,
   or has ended. */
static void stream_event(const ka_event *ev, peer *p)
{
    uint32_t seq = 0;
    while (seq < p->seq && p->answers[seq].given && !p->answers[seq].stream) seq++;
    CHECK(seq < p->seq && p->answers[seq].stream, "event %d, and answer %d does not go on",
          ev->kind, (int)seq);
    CHECK(p->opened == (ev->kind != KA_OPENED) && !p->told, "event %d", ev->kind);
    end_check(ev, p);
    if (ev->kind == KA_OPENED) {
        CHECK(ev->error == 0 && ev->listener == 0 && ev->tag == 0, "opened with %d", ev->error);
        p->opened = p->over = true;
        p->refused = false;
        p->at = p->begins;
        if (p->answers[seq].status == 101) p->framing = LINES;
        p->framings[0] = (char)p->framing;
        p->framings_n = 1;
    } else if (ev->kind == KA_MESSAGE) {
        CHECK(p->framing == LINES, "a message of who is not heard");
        message_check(ev, p);
    } else closed_check(ev, p);
    p->told = ev->kind == KA_CLOSED;
    if (p->told || ev->error) at.ending = p;
    say_bytes(p, at.big + 1);
    if (at.big & 64) hang_up(p);
}

static void message_event(const ka_event *ev)
{
    peer *p;
    if (ev->kind == KA_TIMER) {
        timer_event(ev);
        return;
    }
    if (ev->kind == KA_LISTENING) return;
    p = ev->kind == KA_OPENED && ev->error ? NULL : peer_of(ev->conn);
    if (p && p->port == 0) {
        stream_event(ev, p);
        return;
    }
    if (ev->kind == KA_OPENED) opened_event(ev);
    if (!p) return;
    if (ev->kind != KA_OPENED) end_check(ev, p);
    CHECK(p->port != 0 && p->opened && !p->told, "event %d: %d, %d, %d", ev->kind, p->port,
          p->opened, p->told);
    if (ev->kind == KA_MESSAGE) message_check(ev, p);
    if (ev->kind == KA_CLOSED) {
        bool why = p->hung_up || p->refused || p->reset || at.stopping || failed() ||
                   (p->slow && p->said.n > 0);
        /* Reframed, and something unfinished was there. */
        why = why || (p->framings_n > 1 && begun(p));
        CHECK(why || !begun(p), "closed, and an unfinished message was not told of");
        CHECK(why || (p->fin && p->received == p->to_server.n), "closed, why?");
        CHECK(why || p->framing_at + 1 < p->framings_n || at_rest(p),
              "closed, and a message was not delivered");
        closed_check(ev, p);
        p->told = true;
    }
    if (p->told || ev->error) at.ending = p;
    if (at.policy & 1 && ev->kind == KA_MESSAGE) say_bytes(p, ev->body.n);
    if (at.policy & 2 && at.ending) say_bytes(p, 5);
    if (at.policy & 4 && ev->kind == KA_MESSAGE) hang_up(p);
    if (at.policy & 8 && ev->kind == KA_MESSAGE) reframe(p, other_framing(p));
    if (at.policy & 16 && ev->kind == KA_OPENED) say_bytes(p, 7);
    if (at.policy & 32 && ev->kind == KA_OPENED) reframe(p, other_framing(p));
    if (at.policy & 64 && ev->kind == KA_OPENED && at.policy & 128) hang_up(p);
    if (at.policy & 128 && ev->kind == KA_MESSAGE) say_bytes(p, 400);
    if (at.policy & 64 && ev->kind == KA_CLOSED) connect_to(p->framing, CONNECTED);
}

static int wait_for(ka_event *ev)
{
    if (at.ending) at.ending->hung_up = true;
    at.ending = NULL;
    return ka_wait(at.server, ev, 0);
}

/* In the end: was all told once, and all sent? */
static void said_check(const peer *p)
{
    bool excused = p->reset || p->slow || failed() || at.freeing || at.slept ||
                   (p->framings_n > 1 && begun(p));
    size_t n = p->from_server.n;
    CHECK(at.freeing || (p->port < OUT && !p->accepted) || (p->opened && p->told),
          "opened %d, closed %d", p->opened, p->told);
    CHECK((p->accepted || p->port >= OUT || !p->opened) && (p->opened || !p->told),
          "opened, and never accepted");
    CHECK(n <= p->said.n && (n == 0 || memcmp(p->from_server.p, p->said.p, n) == 0),
          "%d bytes sent, %d others received", (int)p->said.n, (int)n);
    CHECK(excused || n == p->said.n, "%d bytes sent, %d received", (int)p->said.n, (int)n);
    CHECK(excused || !p->lost, "closed with bytes unread");
    CHECK(excused || !p->refused || !p->cut_off || p->closed_ms - p->refused_ms >= KA_LINGER_MS,
          "refused, and closed at once");
}
