/* tests/ext_peers.h - ext/peers.h. */

/* Data of one's own for each connection, until it has gone; and to all. */
static void test_peers(void)
{
    enum { WIRES = 70, ROUNDS = 3 };      /* more than there is room for at first */
    static wire w[WIRES];
    ka_server *s;
    ka_event ev;
    ka_peers peers;
    int port;
    if (!parent_start(&s, 2, &ka_lines, &port)) return;
    ka_peers_init(&peers, s, sizeof(int64_t));
    CHECK(!ka_peer(&peers, 0) && !ka_peer(&peers, UINT64_MAX / 2), "nobody is there");
    for (int round = 0; round < ROUNDS; round++) {
        size_t at = 0, n = 0;
        uint64_t conn;
        int64_t sum = 0;
        for (int i = 0; i < WIRES; i++) {
            if (!wire_open(&w[i], port) || !next_event(s, &ev, KA_OPENED)) return;
            int64_t *data = ka_peer(&peers, ev.conn);
            CHECK(data && *data == 0, "new, and zero");
            if (data) *data = 1 << i % 8;
        }
        for (int64_t *data; (data = ka_peers_next(&peers, &at, &conn)) != NULL; n++) {
            CHECK(ka_peer(&peers, conn) == data, "by its number, too");
            sum += *data;
        }
        CHECK(peers.n == WIRES && n == WIRES && sum == WIRES / 8 * 255 + 63, "%d of them, sum %d", (int)n, (int)sum);
        CHECK(wire_text(&w[1], "x\n") && next_event(s, &ev, KA_MESSAGE), "one says something");
        ka_peers_send(&peers, ev.conn, "to all but one;", 15);
        ka_peers_send(&peers, 0, "to all;", 7);
        ka_wait(s, &ev, 0);
        for (int i = 0; i < WIRES; i++) {
            CHECK(wire_gets(&w[i], i == 1 ? "to all;" : "to all but one;to all;"), "%d hears", i);
            wire_close(&w[i]);
            w[i].n = 0;
        }
        for (int i = 0; i < WIRES && next_event(s, &ev, KA_CLOSED); i++)
            CHECK(ka_peer(&peers, ev.conn) && *(int64_t *)ka_peer(&peers, ev.conn) > 0, "its data, for the last time");
        CHECK(ka_wait(s, &ev, 0) == KA_ETIME && peers.n == 0, "and they are gone");
    }
    /* without memory */
    for (int at = 0; at < 2; at++) {
        atomic_store(&allocations_left, at);
        bool good = wire_open(&w[0], port) && wire_text(&w[0], "no event\n");
        int r = ka_wait(s, &ev, 300);
        atomic_store(&allocations_left, -1);
        CHECK(good && (r == KA_ETIME || (at && r == KA_OK && ev.kind == KA_OPENED)), "no memory: %d", r);
        wire_close(&w[0]);
        while (ka_wait(s, &ev, 300) == KA_OK) CHECK(ka_peer(&peers, ev.conn), "no event without its data: kind %d", ev.kind);
    }
    wire_open(&w[0], port);
    CHECK(next_event(s, &ev, KA_OPENED), "one is there at the end");
    wire_close(&w[0]);
    ka_server_free(s);
    ka_peers_free(&peers);
    ka_peers_free(&peers);
}

static const subject ext_peers_topics[] = {
    { "peers", test_peers },
};
