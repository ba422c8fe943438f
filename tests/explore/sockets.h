/* sockets.h - scenarios with connections: what the parent says meets a connection that ends
   meanwhile. */

#if !defined(KA_POLL)      /* fuzz/system.h has epoll */

static peer *peer_comes(const char *request)
{
    explore_call("connect and send, of a peer", peers_n);
    explore_enter();
    peer *p = sim_peer(0);
    append(&p->to_server, request, strlen(request));
    explore_leave();
    return p;
}

static void peer_resets(peer *p)
{
    explore_call("reset, of a peer", p - peers);
    explore_enter();
    p->reset = true;
    explore_leave();
}

static void peer_ends(peer *p)
{
    explore_call("shutdown, of a peer", p - peers);
    explore_enter();
    p->fin = true;
    explore_leave();
}

/* How often is this in what the server sent to a peer? */
static int peer_got(int i, const char *text)
{
    int n = 0;
    explore_enter();
    const bytes *b = &peers[i].from_server;
    for (size_t k = 0; k + strlen(text) <= b->n; k++)
        n += memcmp(b->p + k, text, strlen(text)) == 0;
    explore_leave();
    return n;
}

static void *late_peers(void *arg)
{
    (void)arg;
    peer *first = peer_comes("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_resets(first);
    peer_ends(peer_comes("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"));
    return NULL;
}

static void listening(void)
{
    ka_event ev;
    server_start();
    ka_listen(at.server, "127.0.0.1", 0);
    CHECK(ka_wait(at.server, &ev, -1) == KA_OK && ev.kind == KA_LISTENING, "it listens");
    CHECK(!ev.error, "%d", ev.error);
}

static void stopped(void)
{
    ka_event ev;
    int r;
    ka_stop(at.server);
    while ((r = ka_wait(at.server, &ev, -1)) == KA_OK) {}
    CHECK(r == KA_ESTOPPED, "stopped: %d", r);
    ka_server_free(at.server);
}

/* A store's answer comes late, when the request's connection has gone and its place has been taken
   by another one: that one gets its own answer only, once. */
static void late_answer(void)
{
    pthread_t them;
    ka_event ev, kept = { .kind = 0 };
    listening();
    pthread_create(&them, NULL, late_peers, NULL);
    for (bool second = false; !second; ) {
        CHECK(ka_wait(at.server, &ev, -1) == KA_OK && ev.kind == KA_REQUEST, "a request");
        CHECK(!ev.status, "%d", ev.status);
        second = ka_is(ev.target, "/2");
        if (second && kept.kind) ka_reply(at.server, &kept, 200, NULL, "answer 1", 8);
        if (second) ka_reply(at.server, &ev, 200, NULL, "answer 2", 8);
        else kept = ev;
    }
    pthread_join(them, NULL);
    stopped();
    CHECK(peer_got(1, "answer 2") == 1, "the second got its answer");
    CHECK(peer_got(1, "answer 1") == 0, "and not the first one's");
    CHECK(peer_got(0, "answer 2") == 0, "the first did not get it");
}

#if defined(EXPLORE_TABLES)
/* Workers with tables of their own: each takes what it needs from the main table, where a number may
   mean another file as soon as the parent has closed it. The server is stopped meanwhile. */
static void tables_stop(void)
{
    pthread_t stopper;
    ka_event ev;
    int r, told = 0;
    CHECK(ka_server_start(&at.server, 1 + KA_OWN_DESCRIPTORS) == KA_OK, "started");
    CHECK(table_of[1] == 1, "the worker has a table of its own");
    pthread_create(&stopper, NULL, stop_thread, at.server);
    bool begun = ka_listen(at.server, "127.0.0.1", 0) >= 0;
    while ((r = ka_wait(at.server, &ev, -1)) == KA_OK)
        told += ev.kind == KA_LISTENING && ev.error == KA_OK;
    CHECK(r == KA_ESTOPPED && told == begun, "%d, told %d times", r, told);
    ka_server_free(at.server);
    pthread_join(stopper, NULL);
}

static void *one_peer(void *arg)
{
    (void)arg;
    peer_ends(peer_comes("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"));
    return NULL;
}

/* Two workers have the same listener, and one of them the connection. */
static void tables_two(void)
{
    pthread_t them;
    ka_event ev;
    CHECK(ka_server_start(&at.server, 2 + KA_OWN_DESCRIPTORS) == KA_OK, "started");
    ka_listen(at.server, "127.0.0.1", 0);
    CHECK(ka_wait(at.server, &ev, -1) == KA_OK && ev.kind == KA_LISTENING, "it listens");
    CHECK(!ev.error, "%d", ev.error);
    pthread_create(&them, NULL, one_peer, NULL);
    CHECK(ka_wait(at.server, &ev, -1) == KA_OK && ev.kind == KA_REQUEST, "a request");
    ka_reply(at.server, &ev, 200, NULL, "answer 1", 8);
    pthread_join(them, NULL);
    stopped();
    CHECK(peer_got(0, "answer 1") == 1, "the peer got its answer");
}
#endif

static void *gone_peers(void *arg)
{
    (void)arg;
    peer *p = peer_comes("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_ends(p);
    return NULL;
}

static void *late_stopper(void *server)
{
    explore_call("look whether the peer has come", 0);
    explore_enter();
    at.came = peers_n > 0;
    explore_leave();
    explore_result(at.came);
    ka_stop(server);
    return NULL;
}

/* The server is stopped by another thread while a request comes. If the peer has sent the request
   before ka_stop, it is told of. If the request is told of, the stop waits for its answer, which
   the parent gives some rounds later, and the peer gets it. */
static void stop_asked(void)
{
    pthread_t them, stopper;
    ka_event ev, asked = { .kind = 0 };
    int r, owed = 0;
    listening();
    pthread_create(&them, NULL, gone_peers, NULL);
    pthread_create(&stopper, NULL, late_stopper, at.server);
    while ((r = ka_wait(at.server, &ev, owed ? 0 : -1)) != KA_ESTOPPED) {
        if (r == KA_OK) {
            CHECK(ev.kind == KA_REQUEST && !ev.status && !asked.kind, "one request");
            asked = ev;
            owed = 3;
        } else if (--owed == 0) ka_reply(at.server, &asked, 200, NULL, "answer 1", 8);
    }
    CHECK(!owed, "stopped while an answer is owed");
    ka_server_free(at.server);
    pthread_join(them, NULL);
    pthread_join(stopper, NULL);
    CHECK(asked.kind || !at.came, "the request came before the stop");
    CHECK(peer_got(0, "answer 1") == (asked.kind != 0), "the answer has come");
}
#endif
