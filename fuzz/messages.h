/* fuzz/messages.h - the target messages: the server, with its other framings. */

enum { EITHER = 1 };

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* The next message in the bytes that a peer sent and the server heard, read in one piece.
     returns    KA_OK: *body; KA_EAGAIN; KA_ESYNTAX or KA_ENOSPC; or EITHER of them, as the pieces may have been */
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

/* An answer that goes on in another framing has begun in its turn, brings a message, or has ended.
   */
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
        why = why ||
              (p->framings_n > 1 && begun(p)); /* reframed, and something unfinished was there */
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

/* Handle all events that there are. */
static void parent_round(void)
{
    ka_event ev;
    int r;
    if (at.stopped) return;
    while ((r = wait_for(&ev)) == KA_OK) {
        question q = { .ev = ev };
        moved++;
        if (ev.kind != KA_REQUEST) {
            message_event(&ev);
            continue;
        }
        event_check(&ev);
        q.status = auth_answer(at.server, &at.keys.store, &ev, q.text, &q.n);
        CHECK(q.n <= KA_MAX_ID && q.status >= 200 && q.status <= 599, "%d with %d bytes", q.status,
              (int)q.n);
        if (at.defer && at.asked_n < QUESTIONS) at.asked[at.asked_n++] = q;
        else answer(&q);
    }
    CHECK(r == KA_ETIME || (r == KA_ESTOPPED && at.stopping), "ka_wait: %d", r);
    CHECK(r == KA_ESTOPPED || timer_first() > clock_ms, "a timer does not come");
    at.stopped = r == KA_ESTOPPED;
}

/* A turn for everybody. */
static void turn(void)
{
    for (int i = 0; i < at.server->workers_n; i++) worker_round(at.server->workers[i]);
    if (at.late > 0) at.late--;
    else parent_round();
}

/* Until nothing moves any more; which must come. */
static void settle(void)
{
    at.late = 0;
    for (int rounds = 0, still = 0; still < 2; rounds++) {
        uint64_t before = moved;
        turn();
        still = moved == before ? still + 1 : 0;
        CHECK(rounds < 20000, "never at rest");
    }
    for (int i = 0; i < at.server->workers_n && !at.stopped; i++) {
        ka__worker *w = at.server->workers[i];
        epoll_ready = 0;
        worker_round(w);
        CHECK(epoll_ready == 0, "%d sockets are ready, and nothing is done about them",
              epoll_ready);
        CHECK(ka__patience(w) != 0, "does not sleep");
    }
    for (int i = 0; i < peers_n; i++) {      /* all was read, and all that is whole was delivered */
        peer *p = &peers[i];
        ka__http h;
        char body[KA_MAX_BODY];
        size_t n, end;
        if (p->closed || !p->known || p->bare || failed() || p->window == 0) continue;
        if (at.stopping && p->port == 0)
            CHECK(!p->opened || p->told || p->hung_up,
                  "stopping, and whoever streams doesn't know");
        if (p->port == 0 && p->opened && p->framing == LINES && !at.stopping) delivered_check(p);
        if (p->over) continue;
        if (at.stopping)
            CHECK(!p->opened || p->told || p->hung_up || p->refused ||
                      (p->port >= OUT && callers_left()),
                  "stopping, and the parent doesn't know");
        if (at.stopping) continue;           /* an answer may have said that it is the last one */
        if (p->port != 0) {
            if (p->knock == CONNECTED) delivered_check(p);
            continue;
        }
        const ka__conn *c = ka__conn_find(at.server->workers[p->conn >> 56], p->conn);
        if (at.slept && c && c->last) continue;      /* the parent owed it an answer for too long */
        bool full = false; /* the parent owes it answers: then it may not be read */
        for (uint32_t k = 0; k < p->seq; k++) full = full || !p->answers[k].given;
        CHECK(full || p->received == p->to_server.n, "%d bytes were never read",
              (int)(p->to_server.n - p->received));
        CHECK(next_request(p, &h, body, &n, &end) == KA_EAGAIN, "a request was not delivered");
    }
}

static void answer_all(void)
{
    at.defer = false;
    for (int i = 0; i < at.asked_n; i++) answer(&at.asked[i]);
    at.asked_n = 0;
}

/* Is this the worker's own answer, for one that came too late, and the end? Of a slow peer it has
   the beginning. Who frees the server at once may not have heard of the request. */
static bool late_answer(const peer *p, uint32_t seq, const char *text, size_t n)
{
    static const char begins[] = "HTTP/1.1 503 ";
    ka__http h;
    ptrdiff_t head = ka__http_response(&h, text, n);
    if (!at.slept || (seq >= p->seq && !at.freeing)) return false;
    if (head == KA_EAGAIN) return p->slow && memcmp(text, begins, n < 13 ? n : 13) == 0;
    return head >= 0 && (size_t)head == n && h.status == 503 && h.length == 0 && !h.keep_alive;
}

/* An answer without a head, up to the connection's end. Is it whole? */
static bool bare_check(const struct answer *a, const char *text, size_t n)
{
    CHECK(n <= a->n && (n < a->n || hash(text, n) == a->body), "a bare answer of %d bytes, want %d",
          (int)n, (int)a->n);
    return n == a->n;
}

/* An answer after which the connection goes on in another framing, and what was said there. */
static void stream_check(const peer *p, const struct answer *a, const ka__http *h, const char *text,
                         size_t n, bool excused)
{
    CHECK(h->status == a->status && h->minor == 1 && !h->chunked && (h->status == 101 ||
          (h->length == -1 && !h->keep_alive)), "another framing's head, with %d", h->status);
    CHECK(n <= p->said.n && (n == 0 || memcmp(text, p->said.p, n) == 0) &&
              (excused || n == p->said.n),
          "%d bytes of a stream, want %d", (int)n, (int)p->said.n);
}

/* What is behind the last whole answer: seq answers were read, and n bytes are left. */
static void answers_end_check(const peer *p, uint32_t seq, size_t n, bool excused)
{
    CHECK(at.freeing || !p->opened || p->told, "the end of a stream is not told");
    CHECK(excused || n == 0, "an answer is cut after %d bytes", (int)n);
    CHECK(excused || seq == p->seq, "%d requests, %d answers", (int)p->seq, (int)seq);
    CHECK(excused || !p->lost, "closed with bytes unread");
    CHECK(excused || !p->refused || p->opened || !p->cut_off ||
              p->closed_ms - p->refused_ms >= KA_LINGER_MS,
          "refused, and closed at once");
}

static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

/* Are a connection's answers there, in order, whole and well-formed? */
static void answers_check(const peer *p)
{
    const char *text = p->from_server.p;
    size_t n = p->from_server.n;
    uint32_t seq = 0;
    bool excused = p->reset || p->slow || failed() || at.freeing || at.slept;
    while (n > 0) {
        ka__http h;
        if (late_answer(p, seq, text, n)) {
            n = 0;
            seq = p->seq;
            break;
        }
        if (seq < p->seq && p->answers[seq].given && p->answers[seq].status == 0 &&
            memcmp(text, go_on, n < 12 ? n : 12)) {
            excused = bare_check(&p->answers[seq], text, n) || excused;
            n = 0;
            seq = p->seq;
            break;
        }
        ptrdiff_t head = ka__http_response(&h, text, n);
        if (head == KA_EAGAIN) break;
        CHECK(head > 0, "an answer is malformed: %.*s", (int)n, text);
        if (h.status == 100) {
            CHECK(head == sizeof go_on - 1 && memcmp(text, go_on, sizeof go_on - 1) == 0,
                  "another 100");
            text += head;
            n -= (size_t)head;
            continue;
        }
        CHECK(seq < p->seq, "more answers than requests");
        const struct answer *a = &p->answers[seq++];
        if (a->given && a->stream) {
            stream_check(p, a, &h, text + head, n - (size_t)head, excused);
            n = 0;
            seq = p->seq;
            break;
        }
        CHECK(a->given && h.status == a->status, "answer %d has status %d, want %d", (int)seq - 1,
              h.status, a->status);
        CHECK(h.length == (int64_t)a->n && !h.chunked && h.minor == 1,
              "answer %d has %d bytes, want %d", (int)seq - 1, (int)h.length, (int)a->n);
        CHECK(!a->closes || !h.keep_alive, "the last answer does not say so");
        size_t size = a->bodiless ? 0 : a->n;
        text += head;
        n -= (size_t)head;
        if (n < size) {
            seq--;
            break;
        }
        CHECK(a->bodiless || hash(text, size) == a->body, "answer %d has another body",
              (int)seq - 1);
        text += size;
        n -= size;
        CHECK(h.keep_alive || n == 0, "%d bytes after the last answer", (int)n);
    }
    if (seq < p->seq && p->answers[seq].given && p->answers[seq].status == 0 &&
        p->answers[seq].n == 0)
        seq = p->seq;
    answers_end_check(p, seq, n, excused);
}

static size_t connections(void)
{
    ka_stats stats;
    ka_server_stats(at.server, &stats);
    return stats.connections;
}

static void send_bytes(peer *p, const char *text, size_t n)
{
    if (p->fin || p->reset || p->closed ||
        p->to_server.n + n > (p->cut < 40 ? p->cut * 1000 : 40000))
        return;
    append(&p->to_server, text, n);
}

UNGUIDED_END

/* What happens in both targets alike: bytes of the input's own, a peer's end and window, failures,
   the stop. */
static void happen_alike(unsigned op, input *in, peer *p)
{
    size_t n;
    switch (op & 15) {
    case 1:
        n = next_byte(in);
        if (n > in->n) n = in->n;
        at.last.n = 0;
        append(&at.last, in->p, n);
        if (p) send_bytes(p, in->p, n);
        in->p += n;
        in->n -= n;
        break;
    case 7:
        if (p) p->fin = true;
        break;
    case 9:
        n = next_byte(in);
        if (!p) break;
        p->slow = true;
        if (n == 255) p->window = SIZE_MAX;
        else p->window = p->window == SIZE_MAX ? n * 16 : p->window + n * 16;
        break;
    case 11:
        n = next_byte(in);
        *(n & 32 ? &watch_fails_in : &blocks_fail_in) = (long)n % 32;
        break;
    case 14:
        if (at.stopping) break;
        ka_stop(at.server);
        at.stopping = true;
        break;
    }
}

static const char *const requests[] = {
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 94\r\n\r\nlogin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "A / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 9\r\n\r\nask_key=y",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "4;a\r\nask_\r\n5\r\nkey=z\r\n0\r\nX: y\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "ask_key=x",
    "\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET / HTTP/2.0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 301\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
};

/* Something happens. */
static void happen(input *in)
{
    static const int sleeps[] = { 1, 99, 100, 200, 999, 1000, 3000, 6000 };
    unsigned op = next_byte(in), who = op >> 4 & 3;
    peer *p = peers_n > (int)who ? &peers[peers_n - 1 - (int)who] : NULL;
    size_t n;
    happen_alike(op, in, p);
    switch (op & 15) {
    case 0:
        if (peers_n == PEERS) return;
        p = sim_peer(0);
        if (who) p->cut = who * who * who;
        break;
    case 2:
        n = next_byte(in) % (sizeof requests / sizeof *requests);
        at.last.n = 0;
        append_text(&at.last, requests[n]);
        if (p) send_bytes(p, requests[n], strlen(requests[n]));
        break;
    case 3:
        for (n = next_byte(in); p && n > 0; n--) send_bytes(p, at.last.p, at.last.n);
        break;
    case 4:
        at.defer = !at.defer;
        break;
    case 5:
        if (at.asked_n == 0) break;
        n = next_byte(in) % (unsigned)at.asked_n;
        answer(&at.asked[n]);
        if (who == 3) break;           /* it stays: it will be answered twice */
        at.asked[n] = at.asked[--at.asked_n];
        break;
    case 6:
        answer_all();
        break;
    case 8:
        if (p && !p->fin) p->reset = true;
        break;
    case 10:
        clock_ms += sleeps[next_byte(in) % 8];
        at.slept = true;
        break;
    case 12:
        n = next_byte(in);
        fd_limit = n == 255 ? SIM_FDS : 6 + (int)n % 16;
        break;
    case 13:
        at.big = next_byte(in);
        break;
    case 15:
        n = who & 1 ? next_byte(in) : 0;
        if (who == 0) settle();
        else if (who == 3) at.late = (unsigned)n % 64;
        else if (peers_n > 0 && (p = &peers[peers_n - 1])->opened && !at.stopped)
            who == 1 ? say_bytes(p, n * 30) : hang_up(p); /* it streams */
    }
    if (!(op & 128)) turn();
}

/* The next text to be sent: a line, an object, a frame, a value, or a part of one. */
static const char *const message_canned[] = {
    "{}", "{\"a\": {\"b\": \"}{\"}}", "{'a': '\\'}', \"b\": '\"'}", "  \r\n\t{}{} {", "}", "{\"a\": \"\\", "\"}", "{\"", "\n", "[]",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n", " ", "{{{{{{{{", "}}}}}}}}", "{'\\\n'}", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nask_key=x",
};
static const char *const line_ends[] = { "\n", "\r\n", "\r", "" }, *const line_canned[] = {
    "\r\n", "\r", "a\n", "a\r\nb\n\n\r\n", "\ra\r\r\n", "\n\n \n", "{}\n", "a"
};
static const char *const resp_canned[] = { "+OK\r\n",
                                           ":-12\r\n",
                                           "$-1\r\n*-1\r\n",
                                           "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n",
                                           "$5\r\nhello\r\n",
                                           "*2\r\n*1\r\n-E\r\n*0\r\n",
                                           "$300\r\n",
                                           "*9\r\n",
                                           "+",
                                           "\r\n",
                                           "*x\r\n" };
static const unsigned lengths[] = {
    0, 1, 2, 4, 47, 296, KA_MAX_BODY - 1, KA_MAX_BODY, KA_MAX_BODY + 1, 513, 0x7b7d7b7d, 0xffffffff
};

static void happen_text(input *in)
{
    char frame[4 + 2 * KA_MAX_BODY];
    size_t n, k;
    n = next_byte(in);
    at.last.n = 0;
    if (n >= 240) {                /* a line */
        memset(frame, 'l', sizeof frame);
        append(&at.last, frame, lengths[6 + (n & 3)]);
        append_text(&at.last, line_ends[n >> 2 & 3]);
    } else if (n >= 56 && n < 64) append_text(&at.last, line_canned[n - 56]);
    else if (n < 64)
        append_text(&at.last, message_canned[n % (sizeof message_canned / sizeof *message_canned)]);
    else if (n < 192) {            /* a frame, or the half of one */
        k = lengths[n / 2 % (sizeof lengths / sizeof *lengths)];
        for (int i = 0; i < 4; i++) frame[i] = (char)(k >> (24 - 8 * i));
        memset(frame + 4, 'f', sizeof frame - 4);
        append(&at.last, frame, k < sizeof frame - 4 ? 4 + k / (1 + n % 2) : 4 + n % 2);
    } else if (n >= 232) {         /* a value, or a string's half */
        k = next_byte(in);
        if (k < 128)
            append_text(&at.last, resp_canned[k % (sizeof resp_canned / sizeof *resp_canned)]);
        else {
            size_t head = (size_t)snprintf(frame, sizeof frame, "$%u\r\n", lengths[k % 10]);
            memset(frame + head, 's', sizeof frame - head);
            append(&at.last, frame, head + lengths[k % 10] / (1 + (k >> 5 & 1)));
            append_text(&at.last, "\r\n");
        }
    } else {                       /* an object of so many bytes */
        k = lengths[n % 10];
        memset(frame, 'o', sizeof frame);
        memcpy(frame, "{\"", 2);
        if (k > 4) memcpy(frame + k - 2, "\"}", 2);
        append(&at.last, frame, k);
    }
}

/* What happens seldom: many timers, who was knocked at opens, another policy, and what is said to
   nobody. */
static void happen_rare(input *in, unsigned who, peer *p)
{
    static const int64_t times[] = { 0,   1,   -1,   2,    5,    50,    99,        100,
                                     200, 999, 1000, 3000, 6000, -1000, INT64_MIN, NEVER - 1 };
    static const int timers[] = { 1, 2, 3, 7, 40, KA_BATCH / 2 - 1, KA_BATCH / 2 + 1, 300 };
    size_t n = next_byte(in);
    switch (who) {
    case 0:
        for (int i = 0; n >= 128 && !at.stopped && i < timers[n >> 4 & 7]; i++)
            timer_set(n % 16 < 14 ? clock_ms + times[n % 16] * (1 + i % 3) : times[n % 16]);
        settle();
        break;
    case 1:                        /* who was knocked at opens */
        for (int i = 0; i < peers_n; i++)
            if (peers[i].knock == KNOCKING && peers[i].accepted && !peers[i].closed && n-- == 0)
                peers[i].knock = CONNECTED;
        break;
    case 2:
        at.policy = (unsigned)n;
        break;
    default:
        if (n < 64) {
            at.late = (unsigned)n;
            at.slept = at.slept || n > 8;
        } else if (p && p->known && !at.stopped) {      /* to whom never was */
            static volatile uint64_t no_worker =
                (uint64_t)255 << 56; /* gcc 12 would warn of what ka_send refuses */
            uint64_t never = p->conn ^ 0x80000000, nobody = p->conn | no_worker,
                     nowhere = p->conn | (uint64_t)0xfff << 40;
            CHECK(ka_send(at.server, never, "x", 1) == KA_OK &&
                      ka_send(at.server, nobody, "x", 1) == KA_EINVAL &&
                      ka_reframe(at.server, nowhere, &ka_objects) == KA_OK,
                  "to nobody");
            ka_close(at.server, n & 1 ? never : nowhere);
            ka_close(at.server, nobody);
            if (p->port == 0) {      /* and to who speaks HTTP */
                CHECK(ka_send(at.server, p->conn, "x", 1) == KA_OK &&
                          ka_reframe(at.server, p->conn, &ka_objects) == KA_OK,
                      "to HTTP");
                ka_close(at.server, p->conn);
            }
        }
    }
}

/* Something happens where messages are sent. */
static void happen_message(input *in)
{
    static const int sleeps[] = { 1, 99, 200, 999, 1000, 3000, 6000, KA_ATTEMPT_MS };
    unsigned op = next_byte(in), who = op >> 4 & 3;
    peer *p = peers_n > (int)who ? &peers[peers_n - 1 - (int)who] : NULL;
    bool has =
        p && p->opened && p->port != 0 && p->known && !at.stopped; /* the parent has its number */
    size_t n;
    happen_alike(op, in, p);
    switch (op & 15) {
    case 0:
        if (peers_n == PEERS) return;
        n = next_byte(in);
        p = sim_peer(n >= 232 ? framing_of(n) : (int)n % 3);
        p->framings[p->framings_n++] = (char)(p->framing = p->port);
        if (who) p->cut = who * who * who;
        break;
    case 2:
        happen_text(in);
        if (p) send_bytes(p, at.last.p, at.last.n);
        break;
    case 3:
        for (n = next_byte(in) * (who == 3 ? 30u : 1u); p && n > 0; n--)
            send_bytes(p, at.last.p, at.last.n);
        break;
    case 4:
        n = next_byte(in);
        if (has) say_bytes(p, n < 200 ? n : n < 255 ? (n - 199) * 1180 : KA_MAILBOX / 4 + 1);
        break;
    case 5:
        if (has) hang_up(p);
        break;
    case 6:
        n = next_byte(in);
        if (has) reframe(p, framing_of(n));
        break;
    case 8:
        if (!p || p->fin || p->closed) break;
        if (p->knock) p->knock = REFUSED;
        else p->reset = true;
        break;
    case 10:
        clock_ms += sleeps[next_byte(in) % 8];
        at.slept = true;
        break;
    case 12:
        n = next_byte(in);
        fd_limit = n == 255 ? SIM_FDS : 8 + (int)n % 16;
        at.limited = true;
        break;
    case 13:
        n = next_byte(in);
        if (!at.stopped) connect_to(framing_of(n), (int)(n >> 1 & 3));
        break;
    case 15:
        happen_rare(in, who, p);
    }
    if (!(op & 128)) turn();
}

UNGUIDED_BEGIN

static void serve_begin(unsigned setup, bool messages)
{
    ka_event ev;
    sim_begin();
    memset(&at, 0, sizeof at);
    if (ka_keyring_init(&at.keys, 6, 5) < 0 ||
        ka_server_start(&at.server, 1 + (int)(setup & 1)) < 0)
        abort();
    for (int i = 0; i < at.server->workers_n; i++) {      /* rings whose end is near */
        ka__box *box[2] = { &at.server->workers[i]->up, &at.server->workers[i]->down };
        for (int k = 0; k < 2; k++) {
            box[k]->write = box[k]->tail_seen = box[k]->read = box[k]->head_seen =
                KA_MAILBOX - 16 * (size_t)(1 + (setup >> 4) * (setup >> 4));
            atomic_store(&box[k]->head, box[k]->write);
            atomic_store(&box[k]->tail, box[k]->write);
        }
    }
    ka_timers_init(&at.source, at.server);
    for (int framing = HTTP; framing <= (messages ? VALUES : HTTP); framing++)
        CHECK(ka_listen_as(at.server, framings[framing], "127.0.0.1", framing) == framing,
              "ka_listen_as");
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < at.server->workers_n; k++) {
            worker_round(at.server->workers[k]);
            while (ka_wait(at.server, &ev, 0) == KA_OK)
                CHECK(ev.kind == KA_LISTENING && ev.error == 0 && ev.port == 1, "%d with %d",
                      ev.kind, ev.error);
        }
    peer *first = sim_peer(messages ? 1 + (int)(setup >> 3 & 1) : 0);
    first->framings[first->framings_n++] = (char)(first->framing = first->port);
}

/* Stop, within the time that it may take. */
static void serve_stop(void)
{
    int64_t from = clock_ms;
    if (!at.stopping) ka_stop(at.server);
    at.stopping = true;
    while (!at.stopped) {
        settle();
        if (at.stopped) break;
        CHECK(connections() > 0, "stopping without a connection takes time");
        CHECK(clock_ms - from <= KA_DRAIN_MS, "does not stop");
        at.slept = true;
        clock_ms += 400;
    }
    CHECK(connections() == 0, "%d connections are left", (int)connections());
}

/* How it ends: 0, they go; 1, they read all; 2, time ends them all; 3, it is freed as it is. */
static void serve_end(int how)
{
    if (how != 3) {
        turn();
        answer_all();
        turn();
    }
    if (how == 0 || how == 1) {
        for (int i = 0; i < peers_n; i++) peers[i].window = SIZE_MAX;
        settle();
        clock_ms += KA__ACCEPT_AGAIN_MS;
        settle();
        if (how == 0) {      /* they go */
            for (int i = 0; i < peers_n; i++) {
                peers[i].fin = true;
                if (peers[i].knock == KNOCKING && !peers[i].closed) peers[i].knock = CONNECTED;
            }
            settle();
            CHECK(connections() == 0, "%d connections are left", (int)connections());
        }
    }
    if (how == 2) {          /* they neither go nor speak: time ends them all */
        at.slept = true;
        for (int i = 0; i < 16; i++) {
            clock_ms += 1000;
            settle();
        }
        size_t stay = 0;     /* idle, and not HTTP */
        for (int i = 0; i < peers_n; i++) stay += peers[i].opened && !peers[i].told;
        CHECK(connections() == stay, "%d connections wait for ever", (int)connections());
    }
    if (how != 3) serve_stop();
    else at.freeing = true;
}

static void serve(const char *text, size_t size, bool messages)
{
    input in = { text, size };
    unsigned setup = next_byte(&in);
    serve_begin(setup, messages);
    while (in.n > 0) (messages ? happen_message : happen)(&in);

    blocks_fail_in = watch_fails_in = -1;
    fd_limit = SIM_FDS;
    at.big = at.policy = 0;
    serve_end(setup >> 1 & 3);
    ka_server_free(at.server);
    ka_timers_free(&at.source);
    at.server = NULL;
    ka_keyring_free(&at.keys);
    for (int i = 0; i < peers_n; i++) (peers[i].port ? said_check : answers_check)(&peers[i]);
    release(&at.last);
    sim_end();
}

static void target_server(const char *text, size_t size) { serve(text, size, false); }
static void target_messages(const char *text, size_t size) { serve(text, size, true); }
