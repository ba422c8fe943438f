/* fuzz/server.h - requests and answers, and the worker's state, beside a plain reading. */

struct answer { int status; bool given, bodiless, closes, stream; size_t n; uint64_t body; };

typedef struct { ka_event ev; int status; size_t n; char text[KA_MAX_ID]; } question;

enum { QUESTIONS = 64, TIMERS = 600 };
#define NEVER INT64_MAX
static struct {
    ka_server *server;
    ka_keyring keys;
    question   asked[QUESTIONS];      /* not answered yet */
    int        asked_n;
    int waits;      /* milliseconds in which the parent waited for room in a mailbox */
    bool       defer, stopping, stopped, slept, freeing;      /* slept: the clock was advanced */
    unsigned   big;                   /* the next answers have so many bytes */
    bytes      last;                  /* what was sent last */
    /* target_messages */
    bool       limited;               /* there were few descriptors */
    unsigned   late;                  /* so many turns pass without the parent */
    unsigned   policy;                /* what it does with an event */
    unsigned   says;                  /* sends so far */
    peer      *ending;                /* whose last event is being handled */
    ka_timers  source;
    int64_t   timers[TIMERS];        /* their times; the tag is the place. NEVER: it has come */
    int       timers_n;
} at;

static bool failed(void) { return blocks_failed || watch_failed; }

static void worker_check(ka__worker *w);

static void sim_settle(void)
{
    for (int i = 0; i < threads_n; i++) atomic_store(&((ka__worker *)threads[i])->settled, 1);
}

/* One round of ka__worker_run. */
static void worker_round(ka__worker *w)
{
    in_worker = true;
    ka__commands(w);
    for (uint32_t place = 0; place < w->conns_n; place++) {
        const ka__conn *c = &w->conns[place];
        if (c->state != KA__BEGINNING) continue;
        peer *p = sim_at((int)c->sock, SIM_CONN)->peer;
        p->begins = p->received;
    }
    if (w->draining) ka__drained(w);
    ka__publish_up(w);
    if (!w->quit) ka__sockets(w);
    in_worker = false;
    worker_check(w);
}

static void sim_join(void *thread)
{
    ka__worker *w = thread;
    for (int i = 0; !w->quit; i++) {
        CHECK(i < 100, "does not quit");
        worker_round(w);
    }
    ka__listeners_close(w);
    for (uint32_t place = 0; place < w->conns_n; place++)
        if (ka__is_open(&w->conns[place])) ka__conn_close(w, &w->conns[place]);
}

static void sim_sleep(void)
{
    if (in_worker || !at.server) return;
    at.slept = at.slept || ++at.waits >= KA_LINGER_MS;
    for (int i = 0; i < at.server->workers_n; i++) worker_round(at.server->workers[i]);
}

static void sim_known(int fd, peer *p)
{
    for (int i = 0; at.server && !p->known && i < at.server->workers_n; i++) {
        const ka__worker *w = at.server->workers[i];
        for (uint32_t place = 0; place < w->conns_n; place++) {
            if (!ka__is_open(&w->conns[place]) || w->conns[place].sock != fd) continue;
            p->known = true;
            p->conn = ka__conn_number(w, &w->conns[place]);
        }
    }
}

/* The framings that the script knows, by number; a listener's number and port are its framing's. */
enum { HTTP, OBJECTS, FRAMES, LINES, VALUES, FRAMINGS };
static const ka_framing *const framings[FRAMINGS] = {
    NULL, &ka_objects, &ka_frames, &ka_lines, &ka_resp_framing
};

static int framing_number(const ka_framing *framing)
{
    int i = 0;
    while (i < FRAMINGS && framings[i] != framing) i++;
    return i;
}

/* The state that a connection must be in, by what it holds. */
static ka__state plain_state(const ka__conn *c)
{
    bool http = !c->framing, begun = c->in && !(http && c->in_n == 1 && *c->in == '\r');
    if (c->unconnected) return KA__CONNECTING;
    if (c->out) return c->last && c->outgoing ? KA__SENDING_LAST : KA__SENDING;
    if (c->held) return KA__HELD;
    if (http && c->seq_in != c->seq_out) return KA__ANSWERING;
    if (c->last) return http || c->parted ? KA__LINGERING : KA__PARTING;
    if (begun) return KA__READING;
    return http ? KA__IDLE : KA__OPEN;
}

/* What must be true of a connection that isn't HTTP. */
static void message_conn_check(const ka__conn *c)
{
    int framing = framing_number(c->framing);
    CHECK(!c->early && !c->expects, "what only HTTP has");
    if (c->state == KA__BEGINNING) {
        CHECK(c->told && !c->last && !c->in, "begins, told %d, last %d", c->told, c->last);
        return;
    }
    if (c->unconnected) {
        CHECK(c->outgoing && !c->in && !c->out && !c->last && !c->told && !c->held, "connecting");
        return;
    }
    bool whole = c->held || c->last;      /* or nobody reads it any more */
    size_t most = KA_MAX_BODY + (framing == FRAMES ? 3 : framing == LINES ? 1 : 0);
    CHECK(c->in_n <= (c->held ? (size_t)KA__SCRATCH : most) || c->last,
          "%d bytes of a message kept", (int)c->in_n);
    CHECK(whole || (framing == LINES ? c->cut.at == c->in_n : c->cut.at <= c->in_n),
          "%d of %d bytes read", (int)c->cut.at, (int)c->in_n);
    CHECK((!c->told || c->last) && (!c->parted || c->last) && !(c->held && c->last),
          "told %d, parted %d, held %d, last %d", c->told, c->parted, c->held, c->last);
}

static void http_conn_check(const ka__conn *c)
{
    uint32_t waiting = c->seq_in - c->seq_out;
    CHECK(c->in_n <= (c->held ? KA__SCRATCH : KA_MAX_HEAD + KA_MAX_BODY + 1),
          "%d bytes of a request kept", (int)c->in_n);
    CHECK(waiting <= KA_MAX_PIPELINED + KA__SCRATCH / 16, "%d requests wait", (int)waiting);
    CHECK(!c->outgoing && !c->unconnected && !c->told && !c->parted, "what HTTP does not have");
    for (const ka__early *e = c->early; e; e = e->next)
        CHECK(e->r.reply.seq - c->seq_out < waiting || waiting == 0 ||
              (int32_t)(e->r.reply.seq - c->seq_out) < 0, "an early answer to %d",
              (int)e->r.reply.seq);
}

/* What must be true of any open connection. */
static void conn_check(ka__worker *w, ka__conn *c)
{
    sim_fd *s = sim_at((int)c->sock, SIM_CONN);
    int framing = framing_number(c->framing), watch = ka__states[c->state].watch;
    bool begins = c->state == KA__BEGINNING, full = c->last;
    sim_known((int)c->sock, s->peer);
    CHECK(s->peer->conn == ka__conn_number(w, c), "a connection changed its number");
    CHECK((s->peer->port != 0) <= (framing != HTTP && framing != FRAMINGS),
          "port %d has framing %d", s->peer->port, framing);
    if (c->framing) message_conn_check(c);
    else http_conn_check(c);
    size_t unsent = c->out_n - c->out_at, most = KA_MAX_UNSENT;
    if (c->framing && c->framing->max_unsent) most = c->framing->max_unsent;
    CHECK((c->in_n > 0) == (c->in != NULL) && (c->out_n > 0) == (c->out != NULL), "kept, or not");
    CHECK(c->out_at <= c->out_n && unsent <= most, "%d bytes unsent", (int)unsent);
    CHECK(begins || c->state == plain_state(c), "state %d, but it holds what is %d", c->state,
          plain_state(c));
    full = full || c->seq_in - c->seq_out >= KA_MAX_PIPELINED;
    if (c->state == KA__ANSWERING && full) watch = 0;
    CHECK(begins || c->watched == watch, "state %d is watched for %d", c->state, c->watched);
    CHECK(c->watched == KA__UNWATCHED ? s->epoll < 0 : s->epoll >= 0, "watched %d, by %d",
          c->watched, s->epoll);
    if (s->epoll < 0) return;
    uint32_t events = c->watched == KA__IN ? EPOLLIN : c->watched == KA__OUT ? EPOLLOUT : 0u;
    CHECK((s->events & (EPOLLIN | EPOLLOUT)) == events, "watched %d, events %x", c->watched,
          s->events);
}

/* Each list has the connections of its state, in the order of time. */
static void lists_check(const ka__worker *w, size_t open, size_t gone)
{
    size_t listed = 0, unused = 0;
    for (int state = KA__IDLE; state < KA__STATES; state++) {
        uint32_t before = KA__NIL;
        for (uint32_t i = w->list[state].head; i != KA__NIL; before = i, i = w->conns[i].next) {
            const ka__conn *c = &w->conns[i];
            CHECK(c->state == state && c->prev == before, "list %d at %d", state, (int)i);
            CHECK(before == KA__NIL || w->conns[before].due_ms <= c->due_ms,
                  "list %d is not in the order of time", state);
            CHECK(++listed <= open + gone, "list %d has a ring", state);
        }
        CHECK(w->list[state].tail == before, "the tail of list %d", state);
    }
    CHECK(listed == open + gone, "%d of %d are in a list", (int)listed, (int)(open + gone));
    for (uint32_t i = w->free_head; i != KA__NIL; i = w->conns[i].next) {
        CHECK(w->conns[i].state == KA__FREE, "a free place that is not");
        CHECK(++unused <= w->conns_n, "the free list has a ring");
    }
    CHECK(open + gone + unused == w->conns_n && open + gone == w->connections,
          "%d open, %d gone, %d free, %d places, %d counted", (int)open, (int)gone, (int)unused,
          (int)w->conns_n, (int)w->connections);
}

/* What must be true of a worker at any time. */
static void worker_check(ka__worker *w)
{
    size_t open = 0, gone = 0, kept = 0;
    for (uint32_t place = 0; place < w->conns_n; place++) {
        ka__conn *c = &w->conns[place];
        bool left = c->in || c->out || c->early;
        if (c->state == KA__GONE) CHECK(c->framing && !c->told && !left, "gone, told %d", c->told);
        gone += c->state == KA__GONE;
        if (!ka__is_open(c)) continue;
        open++;
        CHECK(!c->first, "gathered, but not sent");
        conn_check(w, c);
        kept += c->in_n + c->out_n;
        for (ka__early *e = c->early; e; e = e->next) kept += sizeof *e + e->r.n;
    }
    lists_check(w, open, gone);
    CHECK(kept == w->buffered, "%d bytes are kept, %d counted", (int)kept, (int)w->buffered);
    CHECK(w->senders_n == 0 && w->down.tail == w->down.read, "gathered, but not sent");
    CHECK(w->finished <= w->conns_n, "%d of %d were told", (int)w->finished, (int)w->conns_n);
    CHECK(w->up.write - w->up.tail <= w->up.size && w->down.write - w->down.tail <= w->down.size,
          "a mailbox overflows");
    CHECK(w->out_n == 0, "rendered, but not sent");
}

/* The next request in the bytes that a peer sent and the server heard, read in one piece.
     returns    KA_OK: *h, *body, and the place behind it; or KA_EAGAIN; or KA_ESYNTAX: refused with
                h->status */
static int next_request(const peer *p, ka__http *h, char body[KA_MAX_BODY], size_t *body_n,
                        size_t *end)
{
    size_t from = p->at;
    if (p->heard == from) return KA_EAGAIN;
    for (int i = 0; i < KA__EMPTY_LINES; i++, from += 2)
        if (p->heard - from < 2 || memcmp(p->to_server.p + from, "\r\n", 2) != 0) break;
    const char *text = p->to_server.p + from;
    size_t n = p->heard - from;
    if (n == 0 || (n == 1 && *text == '\r')) return KA_EAGAIN;
    ptrdiff_t head = ka__http_request(h, text, n);
    if (head < 0) return (int)head;
    text += head;
    n -= (size_t)head;
    *end = from + (size_t)head;
    *body_n = 0;
    if (h->chunked) {
        ka__chunked d = { .room = KA_MAX_BODY };
        char *copy = exact(text, n);
        size_t used = 0;
        ptrdiff_t got = ka__chunked_decode(&d, copy, n, &used);
        if (got > 0) memcpy(body, copy, (size_t)got);
        exact_free(copy, n);
        if (got < 0) return ka__refuse(h, got == KA_ENOSPC ? 413 : 400);
        *body_n = (size_t)got;
        *end += used;
        return d.done ? KA_OK : KA_EAGAIN;
    }
    if (h->length > KA_MAX_BODY) return ka__refuse(h, 413);
    size_t length = h->length < 0 ? 0 : (size_t)h->length;
    if (n < length) return KA_EAGAIN;
    if (length) memcpy(body, text, length);
    *body_n = length;
    *end += length;
    return KA_OK;
}

static peer *peer_of(uint64_t conn)
{
    for (int i = 0; i < peers_n; i++)
        if (peers[i].known && peers[i].conn == conn) return &peers[i];
    CHECK(false, "an event of connection %llx", (unsigned long long)conn);
}

/* The error that an event has with this status. */
static int refusal(int status)
{
    switch (status) {
    case 0:                       return KA_OK;
    case 408:                     return KA_ETIME;
    case 413: case 414: case 431: return KA_ENOSPC;
    case 503:                     return KA_ENOMEM;
    default:                      return KA_ESYNTAX;
    }
}

/* The other end, as the simulated system names it. */
static void end_check(const ka_event *ev, const peer *p)
{
    static const unsigned char none[10];
    CHECK(memcmp(ev->peer.ip, none, sizeof none) == 0 &&
              (ev->peer.port == 2 || (ev->peer.port == 0 && p->reset)),
          "from port %d", ev->peer.port);
}

/* Is this the request that was sent? */
static void event_check(const ka_event *ev)
{
    peer *p = peer_of(ev->conn);
    ka__http h;
    char body[KA_MAX_BODY];
    size_t n = 0, end = 0;
    CHECK(ev->seq == p->seq, "request %d instead of %d", (int)ev->seq, (int)p->seq);
    CHECK(!p->over, "a request after the last one");
    if (p->seq == p->answers_cap) {
        p->answers_cap = p->answers_cap ? p->answers_cap * 2 : 16;
        p->answers = realloc(p->answers, p->answers_cap * sizeof *p->answers);
        if (!p->answers) abort();
    }
    struct answer *a = &p->answers[p->seq++];
    *a = (struct answer){ .bodiless = ev->flags & KA__BODILESS };
    int r = next_request(p, &h, body, &n, &end);
    CHECK(ev->error == refusal(ev->status), "status %d with %d", ev->status, ev->error);
    CHECK(ev->listener == 0 && ev->tag == 0 && !ev->framing && !ev->port, "what others have");
    end_check(ev, p);
    if (ev->status) p->over = p->refused = a->closes = true;
    if (ev->status) p->refused_ms = clock_ms;
    if (ev->status == 408) {
        CHECK(r == KA_EAGAIN && at.slept && p->at < p->heard, "408, but %d", r);
    } else if (ev->status == 503) {
        CHECK(r == KA_EAGAIN && blocks_failed, "503, but %d", r);
    } else if (ev->status) {
        CHECK(r == KA_ESYNTAX && h.status == ev->status,
              "refused with %d, read at once: %d with %d", ev->status, r, h.status);
    } else {
        CHECK(r == KA_OK, "an event of what read at once gives %d with %d", r, h.status);
        CHECK(same_str(h.method, ev->method) && same_str(h.target, ev->target) &&
                  same_str((ka_str){ body, n }, ev->body),
              "another request: %.*s %.*s with %d bytes, want %d", (int)ev->method.n, ev->method.p,
              (int)ev->target.n, ev->target.p, (int)ev->body.n, (int)n);
        CHECK(same_str(ev->fields, h.fields), "%d bytes of fields, want %d",
              (int)ev->fields.n, (int)h.fields.n);
        CHECK(same_str(ev->host, h.host), "%d bytes of host, want %d", (int)ev->host.n,
              (int)h.host.n);
        CHECK(a->bodiless == ka_is(h.method, "HEAD"), "HEAD");
        p->at = end;
        if (!h.keep_alive) p->over = a->closes = true;
    }
}

static void answer(const question *q)
{
    static char large_body[70000];
    peer *p = peer_of(q->ev.conn);
    struct answer *a = &p->answers[q->ev.seq];
    const char *body = q->text;
    size_t n = q->n;
    bool can = !q->ev.status && !(q->ev.flags & (KA__OLD | KA__BODILESS));
    if (a->given ? a->stream : at.big % 16 == 14) {
        const char *fields = "X-A: b\r\nContent-Type: text/event-stream\r\n";
        bool lines = at.big & 32;
        int begins = lines ? ka_upgrade(at.server, &q->ev, 101, "Upgrade: x\r\n", &ka_lines)
                           : ka_sse_begin(at.server, &q->ev, at.big & 16 ? fields : NULL);
        CHECK(begins == (can ? KA_OK : KA_EINVAL), "an answer begins: %d", begins);
        if (can && !a->given)      /* the first answer counts */
            *a = (struct answer){ .status = lines ? 101 : 200, .given = true, .stream = true };
        if (can) return;
    }
    if (a->given) {                    /* a second time: the same, if not dropped */
        n = a->n;
        body = n == q->n ? body : large_body;
    } else if (at.big) {
        n = (size_t)at.big * 270;
        body = large_body;
        if (n == q->n) n++;
        for (size_t i = 0; !large_body[0] && i < sizeof large_body; i++)
            large_body[sizeof large_body - 1 - i] = (char)('a' + i % 23);
    }
    int status = a->given ? a->status : at.big % 16 == 15 ? 0 : q->status;
    int r =
        ka_reply(at.server, &q->ev, status,
                 status && at.big & 1 ? "X-A: b\r\nContent-Type: a/b\r\nX-B:\r\n" : NULL, body, n);
    if (n > KA_MAILBOX / 4 - 20 && r == KA_ENOSPC) {
        n = 0;
        r = ka_reply(at.server, &q->ev, status, NULL, NULL, 0);
    }
    CHECK(r == KA_OK, "ka_reply: %d", r);
    if (!a->given)
        *a = (struct answer){ status, true, a->bodiless, a->closes, false, n, hash(body, n) };
    if (status == 0) p->bare = true;
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
