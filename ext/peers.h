/* ext/peers.h - data of your own for each connection, and "to all".

   HOW TO INCLUDE
     keyauth.h before it, wherever it is included; KEYAUTH_IMPLEMENTATION in one .c file:
         #define KEYAUTH_IMPLEMENTATION
         #include "keyauth.h"
         #include "ext/peers.h"

   USE: count the lines (of ext/framing.h) of each connection, and tell all; see examples/chat.c
         ka_peers peers;
         ka_peers_init(&peers, s, sizeof(int));
         ka_listen_as(s, &ka_lines, "127.0.0.1", 9000);
         for (ka_event ev; ka_wait(s, &ev, -1) == KA_OK; ) {
             if (ev.kind != KA_MESSAGE) continue;
             int *count = ka_peer(&peers, ev.conn);
             if (++*count == 100) ka_peers_send(&peers, 0, "one has said a hundred\n", 23);
         }
         ka_server_free(s);
         ka_peers_free(&peers);

   HTTP connections have no events of their own, and so no data. */

#ifndef KEYAUTH_H
#error "ext/peers.h: include keyauth.h first"
#endif
#ifndef KEYAUTH_PEERS_H
#define KEYAUTH_PEERS_H

#ifdef __cplusplus
extern "C" {
#endif

/* The open connections of one server, which only its parent's thread uses. */
typedef struct {
    ka_source source;            /* its own */
    ka_server *server;
    size_t size;                 /* bytes of data that each connection has */
    size_t n;                    /* yours to read: connections */
    struct ka__peer **all;       /* by ka_conn_index; NULL: none */
    size_t room;
    uint64_t gone;               /* the connection whose last event is being handled, or 0 */
} ka_peers;

/* Begin without connections, and add the source to s. From its KA_OPENED event until the event
   after its KA_CLOSED each connection has `size` bytes of data, zeroed first. *p stays where it is
   until ka_peers_free. If there is no memory for a connection, it is closed, and has no events.
   Sources with connections of their own, such as ka_redis, come before it: it takes all others. */
KADEF void ka_peers_init(ka_peers *p, ka_server *s, size_t size);

/* The data of a connection, aligned for any type; NULL: there is no such connection. */
KADEF void *ka_peer(const ka_peers *p, uint64_t conn);

/* The connections one by one, in any order. Begin with *at = 0.
     *conn      the next one
     returns    its data; NULL: there are no more. None is NULL, also if size is 0 */
KADEF void *ka_peers_next(const ka_peers *p, size_t *at, uint64_t *conn);

/* Send bytes to all connections but one; 0: to all. Copied, as by ka_send. */
KADEF void ka_peers_send(const ka_peers *p, uint64_t but, const void *bytes, size_t n);

/* Free the data. Behind ka_server_free. Harmless if *p is zero, or twice. */
KADEF void ka_peers_free(ka_peers *p);

#ifdef __cplusplus
}
#endif
#endif /* KEYAUTH_PEERS_H */

#if defined(KEYAUTH_IMPLEMENTATION) && !defined(KEYAUTH_PEERS_IMPLEMENTED)
#define KEYAUTH_PEERS_IMPLEMENTED

struct ka__peer { uint64_t conn; _Alignas(max_align_t) unsigned char data[]; };

static struct ka__peer *ka__peer_at(const ka_peers *p, uint64_t conn)
{
    size_t i = ka_conn_index(p->server, conn);
    struct ka__peer *one = i < p->room ? p->all[i] : NULL;
    return one && one->conn == conn ? one : NULL;
}

static void ka__peer_remove(ka_peers *p, uint64_t conn)
{
    struct ka__peer *one = ka__peer_at(p, conn);
    if (!one) return;
    p->all[ka_conn_index(p->server, conn)] = NULL;
    p->n--;
    KA_FREE(one);
}

/* Make room for the index i. */
static bool ka__peers_grow(ka_peers *p, size_t i)
{
    size_t room = p->room ? p->room : 64;
    while (room <= i) room *= 2;
    if (room == p->room) return true;
    struct ka__peer **all = p->all ? KA_REALLOC(p->all, room * sizeof(struct ka__peer *))
                                   : KA_MALLOC(room * sizeof(struct ka__peer *));
    if (!all) return false;
    memset(all + p->room, 0, (room - p->room) * sizeof(struct ka__peer *));
    p->all = all;
    p->room = room;
    return true;
}

static bool ka__peer_add(ka_peers *p, uint64_t conn)
{
    size_t i = ka_conn_index(p->server, conn);
    if (!ka__peers_grow(p, i)) return false;
    struct ka__peer *one = KA_MALLOC(sizeof *one + p->size);
    if (!one) return false;
    memset(one, 0, sizeof *one + p->size);
    one->conn = conn;
    p->all[i] = one;
    p->n++;
    return true;
}

static bool ka__peers_take(ka_source *source, ka_event *ev)
{
    ka_peers *p = (ka_peers *)source;
    if (p->gone) ka__peer_remove(p, p->gone);
    p->gone = ev->kind == KA_CLOSED ? ev->conn : 0;
    if (ev->kind == KA_OPENED && !ev->error && !ka__peer_add(p, ev->conn)) {
        ka_close(p->server, ev->conn);
        return true;
    }
    return (ev->kind == KA_CLOSED || ev->kind == KA_MESSAGE) && !ka__peer_at(p, ev->conn);
}

/* No event may follow that would remove it. */
static void ka__peers_batch_end(ka_source *source)
{
    ka_peers *p = (ka_peers *)source;
    if (p->gone) ka__peer_remove(p, p->gone);
    p->gone = 0;
}

void ka_peers_init(ka_peers *p, ka_server *s, size_t size)
{
    *p = (ka_peers){
        .source = { .take = ka__peers_take, .batch_end = ka__peers_batch_end },
        .server = s, .size = size,
    };
    ka_source_add(s, &p->source);
}

void *ka_peer(const ka_peers *p, uint64_t conn)
{
    struct ka__peer *one = ka__peer_at(p, conn);
    return one ? one->data : NULL;
}

void *ka_peers_next(const ka_peers *p, size_t *at, uint64_t *conn)
{
    while (*at < p->room && !p->all[*at]) ++*at;
    if (*at == p->room) return NULL;
    struct ka__peer *one = p->all[(*at)++];
    *conn = one->conn;
    return one->data;
}

void ka_peers_send(const ka_peers *p, uint64_t but, const void *bytes, size_t n)
{
    uint64_t conn;
    for (size_t at = 0; ka_peers_next(p, &at, &conn); )
        if (conn != but) ka_send(p->server, conn, bytes, n);
}

void ka_peers_free(ka_peers *p)
{
    for (size_t i = 0; i < p->room; i++)
        if (p->all[i]) KA_FREE(p->all[i]);
    if (p->all) KA_FREE(p->all);
    p->all = NULL;
    p->n = p->room = 0;
}

#endif /* KEYAUTH_PEERS_IMPLEMENTED */

/* Public domain or MIT: see the end of keyauth.h. */
