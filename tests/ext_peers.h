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
        CHECK(peers.n == WIRES && n == WIRES && sum == WIRES / 8 * 255 + 63, "%d of them, sum %d",
              (int)n, (int)sum);
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
            CHECK(ka_peer(&peers, ev.conn) && *(int64_t *)ka_peer(&peers, ev.conn) > 0,
                  "its data, for the last time");
        CHECK(ka_wait(s, &ev, 0) == KA_ETIME && peers.n == 0, "and they are gone");
    }
    wire_open(&w[0], port);
    CHECK(next_event(s, &ev, KA_OPENED), "one is there at the end");
    wire_close(&w[0]);
    ka_server_free(s);
    ka_peers_free(&peers);
    ka_peers_free(&peers);
}

/* Without memory for a connection's data, or for the table, it is closed and has no events. */
static void test_peers_out_of_memory(void)
{
    static wire first, refused;
    for (int nth = 0; nth < 2; nth++) {
        ka_server *s;
        ka_event ev;
        ka_peers peers;
        int port;
        if (!parent_start(&s, 1, &ka_lines, &port) || !wire_open(&first, port) ||
            !next_event(s, &ev, KA_OPENED))
            return;
        ka_peers_init(&peers, s, sizeof(int64_t)); /* only now, so that its table is still empty */
        atomic_store(&allocations_left, nth);
        wire_open(&refused, port);
        for (int64_t until = ka_now_ms() + PATIENCE_MS;
             atomic_load(&allocations_left) >= 0 && ka_now_ms() < until;)
            CHECK(ka_wait(s, &ev, 20) == KA_ETIME, "allocation %d: it is told of, kind %d", nth,
                  ev.kind);
        CHECK(atomic_exchange(&allocations_left, -1) == -1, "allocation %d failed", nth);
        ka_wait(s, &ev, 0);
        CHECK(wire_more(&refused) <= 0, "allocation %d: it is closed", nth);
        wire_close(&refused);
        wire_open(&refused, port);
        CHECK(next_event(s, &ev, KA_OPENED) && ka_peer(&peers, ev.conn),
              "allocation %d: the next event is the next connection's", nth);
        wire_close(&refused);
        wire_close(&first);
        ka_server_free(s);
        ka_peers_free(&peers);
    }
}

static const subject ext_peers_topics[] = {
    { "peers", test_peers }, { "peers, out of memory", test_peers_out_of_memory },
};
