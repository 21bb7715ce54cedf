#include "peers.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sigpipe.h"
#include "base/sqlite.h"
#include "connecting.h"

void mm_peers_free(struct mm_peers *p)
{
    free(p->peer);
    *p = (struct mm_peers){ 0 };
}

/* The place of a node, or a free one; NULL without memory. */
static struct mm_peer *place_of(struct mm_peers *p, int64_t node)
{
    struct mm_peer *oldest = NULL;
    for (int k = 0; k < p->count; k++) {
        if (p->peer[k].hello.node == node) {
            return &p->peer[k];
        }
        oldest = oldest == NULL || p->peer[k].heard_ms < oldest->heard_ms ? &p->peer[k] : oldest;
    }
    if (p->count == MM_PEERS_MAX) {
        return oldest;
    }
    if (p->count == p->cap) {
        int cap = p->cap == 0 ? 8 : p->cap * 2;
        struct mm_peer *grown = realloc(p->peer, (size_t)cap * sizeof *grown);
        if (grown == NULL) {
            return NULL;
        }
        p->peer = grown;
        p->cap = cap;
    }
    return &p->peer[p->count++];
}

bool mm_peers_hear(struct mm_peers *p, const struct mm_hello *h, const char *cluster_id)
{
    if (cluster_id[0] != '\0' && h->cluster_id[0] != '\0' && strcmp(cluster_id, h->cluster_id) != 0) {
        return true;
    }
    struct mm_peer *to = place_of(p, h->node);
    if (to == NULL) {
        return false;
    }
    *to = (struct mm_peer){ *h, mm_clock_mono_ms(), mm_clock_wall_ms() };
    return true;
}

bool mm_peers_copy(struct mm_peers *to, const struct mm_peers *from)
{
    *to = (struct mm_peers){ 0 };
    if (from->count == 0) {
        return true;
    }
    to->peer = malloc((size_t)from->count * sizeof *to->peer);
    if (to->peer == NULL) {
        return false;
    }
    memcpy(to->peer, from->peer, (size_t)from->count * sizeof *to->peer);
    to->count = to->cap = from->count;
    return true;
}

const struct mm_peer *mm_peers_find(const struct mm_peers *p, int64_t node)
{
    for (int k = 0; k < p->count; k++) {
        if (p->peer[k].hello.node == node) {
            return &p->peer[k];
        }
    }
    return NULL;
}

bool mm_peer_alive(const struct mm_peer *p)
{
    return mm_clock_mono_ms() - p->heard_ms <= MM_PEER_ALIVE_MS && strcmp(p->hello.state, "stopped") != 0;
}

bool mm_peer_follows(const struct mm_peer *p)
{
    static const char *const states[] = { "live", "log_full", "joining" };
    for (size_t k = 0; k < sizeof states / sizeof *states; k++) {
        if (strcmp(p->hello.state, states[k]) == 0) {
            return mm_peer_alive(p);
        }
    }
    return false;
}

int mm_peers_ask(const struct mm_config *c, int wait_ms, struct mm_peers *out, struct mm_err *err)
{
    char subject[256];
    struct mm_buf b;
    struct mm_hello ask = { .ask = true };
    mm_connecting_nodes_subject(c, subject);
    mm_buf_init(&b, MM_HELLO_MAX);
    mm_hello_encode(&b, &ask, err);
    struct mm_sigpipe pipe;
    mm_sigpipe_begin(&pipe);
    struct mm_bus *bus = mm_connecting_open(c, "marmot-reader", err);
    if (bus != NULL) {
        mm_bus_listen(bus, subject, err);
        mm_bus_tell(bus, subject, b.data, b.len, err);
    }
    int64_t until = mm_clock_mono_ms() + wait_ms;
    for (int64_t left = wait_ms; bus != NULL && err->rc == SQLITE_OK && left > 0; left = until - mm_clock_mono_ms()) {
        const uint8_t *data;
        size_t len;
        struct mm_hello h;
        if (mm_bus_wait(bus, (int)left, err) != SQLITE_OK || !mm_bus_connected(bus)) {
            break;
        }
        while (mm_bus_heard(bus, &data, &len)) {
            if (mm_hello_decode(&h, data, len) && h.node != 0 && !mm_peers_hear(out, &h, "")) {
                mm_err_nomem(err);
            }
        }
    }
    mm_bus_close(bus);
    mm_sigpipe_end(&pipe);
    mm_buf_free(&b);
    return err->rc;
}
