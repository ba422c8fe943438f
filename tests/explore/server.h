/* server.h - scenarios of sections 5 and 6: a server's start, sleep, stop, wake and end. */

static struct {
    ka_server *server, *other;
    ka_source  source;
    _Atomic(int) said[2];      /* by a thread, before ka_wake */
    int        seen, reason;   /* reason: by a thread, before ka_stop */
    bool       came;           /* a peer, before ka_stop */
} at;

static void server_start(void) { CHECK(ka_server_start(&at.server, 1) == KA_OK, "started"); }

static void *stop_thread(void *server)
{
    ka_stop(server);
    return NULL;
}

static void *stop_reason(void *server)
{
    at.reason = 5;
    ka_stop(server);
    return NULL;
}

static void stop_wait(void)
{
    ka_event ev;
    int r = ka_wait(at.server, &ev, -1);
    CHECK(r == KA_ESTOPPED, "ka_wait: %d", r);
    CHECK(ka_is_stopping(at.server), "it says so");
}

/* Another thread stops the server. ka_wait ends, what that thread wrote before is seen, and the
   server is freed at once. */
static void stop_other(void)
{
    pthread_t stopper;
    server_start();
    pthread_create(&stopper, NULL, stop_reason, at.server);
    stop_wait();
    CHECK(at.reason == 5, "the reason");
    ka_server_free(at.server);
    pthread_join(stopper, NULL);
}

/* The same with two workers. */
static void stop_two(void)
{
    pthread_t stopper;
    CHECK(ka_server_start(&at.server, 2) == KA_OK, "started");
    pthread_create(&stopper, NULL, stop_thread, at.server);
    stop_wait();
    ka_server_free(at.server);
    pthread_join(stopper, NULL);
}

/* What a thread wrote before ka_stop is seen as soon as ka_is_stopping says so. */
static void stop_seen(void)
{
    pthread_t stopper;
    server_start();
    pthread_create(&stopper, NULL, stop_reason, at.server);
    while (!ka_is_stopping(at.server)) ka_sleep_ms(1);
    CHECK(at.reason == 5, "the reason");
    ka_server_free(at.server);
    pthread_join(stopper, NULL);
}

/* The server is freed while another thread stops it: the parent did not wait for that. */
static void stop_free(void)
{
    pthread_t stopper;
    server_start();
    pthread_create(&stopper, NULL, stop_thread, at.server);
    ka_server_free(at.server);
    pthread_join(stopper, NULL);
}

/* A signal's handler stops the server, on the parent's thread, from its start to behind its end. */
static void stop_handler(void)
{
    server_start();
    explore_handler(0, stop_thread, at.server);
    stop_wait();
    ka_server_free(at.server);
}

/* The same on the worker's thread. */
static void stop_worker(void)
{
    server_start();
    explore_handler(1, stop_thread, at.server);
    stop_wait();
    ka_server_free(at.server);
}

/* A handler on the parent's thread, which frees the server at once. */
static void stop_handler_free(void)
{
    server_start();
    explore_handler(0, stop_thread, at.server);
    ka_server_free(at.server);
}

/* ---- ka_wake ---- */

static bool wake_next(ka_source *src, ka_event *ev)
{
    bool more = at.seen < 2 && atomic_load_explicit(&at.said[at.seen], memory_order_relaxed);
    at.seen += more;
    ev->kind = 77;
    if (!more) src->due_ms = INT64_MAX;
    return more;
}

static void *wake_thread(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        atomic_store_explicit(&at.said[i], 1, memory_order_relaxed);
        ka_wake(at.server);
    }
    return NULL;
}

/* What a thread has stored before ka_wake, in any order, the sources see after it. */
static void wake_source(void)
{
    pthread_t waker;
    ka_event ev;
    server_start();
    at.source = (ka_source){ .next = wake_next, .due_ms = INT64_MAX };
    ka_source_add(at.server, &at.source);
    pthread_create(&waker, NULL, wake_thread, NULL);
    for (int i = 0; i < 2; i++)
        CHECK(ka_wait(at.server, &ev, -1) == KA_OK && ev.kind == 77, "event %d", i);
    ka_server_free(at.server);
    pthread_join(waker, NULL);
}

/* ---- the list of servers that live, without their workers ---- */

static ka_server *live_new(void)
{
    ka_server *s = ka__alloc_zeroed(1, sizeof *s);
    ka__poller_init(&s->sleeper.poller);
    ka__live_change(s, true);
    return s;
}

static void live_free(ka_server *s)
{
    ka__live_change(s, false);
    ka__live_wait();
    ka__poller_free(&s->sleeper.poller);
    ka__free(s);
}

static void *live_thread(void *arg)
{
    (void)arg;
    live_free(at.other);
    return NULL;
}

/* Two servers are freed by two threads, while a third one stops one of them: the first or the last
   of the list. */
static void live_two(bool last)
{
    pthread_t other, stopper;
    at.other = live_new();
    at.server = live_new();
    pthread_create(&other, NULL, live_thread, NULL);
    pthread_create(&stopper, NULL, stop_thread, last ? at.other : at.server);
    live_free(at.server);
    pthread_join(other, NULL);
    pthread_join(stopper, NULL);
}

static void live_first(void) { live_two(false); }
static void live_last(void) { live_two(true); }

static void *live_start(void *arg)
{
    (void)arg;
    at.other = live_new();
    live_free(at.other);
    return NULL;
}

/* Another thread starts and frees a server while one is stopped, by a third one, and freed. */
static void live_more(void)
{
    pthread_t other, stopper;
    at.server = live_new();
    pthread_create(&other, NULL, live_start, NULL);
    pthread_create(&stopper, NULL, stop_thread, at.server);
    live_free(at.server);
    pthread_join(other, NULL);
    pthread_join(stopper, NULL);
}
