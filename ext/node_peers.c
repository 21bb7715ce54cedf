/* What this node tells the others about itself, and what it hears from them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "connecting.h"
#include "node_int.h"

enum { ASK_MS = 700 }; /* how long a process that stands by listens for answers */

/* mu held. */
static void describe(const struct mm_node *n, struct mm_hello *h)
{
    const char *name = strrchr(n->path, '/');
    memset(h, 0, sizeof *h);
    h->node = n->config->node_id;
    h->incarnation = n->incarnation;
    (void)snprintf(h->cluster_id, sizeof h->cluster_id, "%s", n->hello_cluster);
    (void)snprintf(h->name, sizeof h->name, "%s", name != NULL ? name + 1 : n->path);
    (void)snprintf(h->state, sizeof h->state, "%s", mm_node_state_name(n->state));
    if (gethostname(h->host, sizeof h->host - 1) != 0) {
        h->host[0] = '\0';
    }
    h->nshard = n->nshards < MM_HELLO_SHARDS ? n->nshards : MM_HELLO_SHARDS;
    for (int k = 0; k < h->nshard; k++) {
        h->position[k] = n->shards[k].position;
    }
    h->epoch = n->epoch;
    h->behind_ms = mm_clock_mono_ms() - n->caught_up_ms;
    (void)snprintf(h->no_snapshot, sizeof h->no_snapshot, "%s", n->no_snapshot);
}

static void tell(struct mm_node *n, bool ask, bool stopping)
{
    char subject[256];
    struct mm_hello h;
    struct mm_buf b;
    struct mm_err err;
    mm_err_init(&err);
    (void)pthread_mutex_lock(&n->mu);
    describe(n, &h);
    (void)pthread_mutex_unlock(&n->mu);
    h.ask = ask;
    if (stopping) {
        (void)snprintf(h.state, sizeof h.state, "%s", mm_node_state_name(MM_NODE_STOPPED));
    }
    mm_buf_init(&b, MM_HELLO_MAX);
    mm_connecting_nodes_subject(n->config, subject);
    if (mm_hello_encode(&b, &h, &err) == SQLITE_OK &&
        mm_bus_tell(n->r.bus, subject, b.data, b.len, &err) != SQLITE_OK) {
        mm_log(MM_LOG_DEBUG, "node %lld tells the others nothing now: %s", (long long)h.node, err.msg);
    }
    mm_buf_free(&b);
    n->next_hello_ms = mm_clock_mono_ms() + MM_HELLO_MS;
    n->hello_due = false;
    (void)snprintf(n->hello_state, sizeof n->hello_state, "%s", h.state);
}

static void listen(struct mm_node *n)
{
    const uint8_t *data;
    size_t len;
    struct mm_hello h;
    while (mm_bus_heard(n->r.bus, &data, &len)) {
        if (!mm_hello_decode(&h, data, len) || h.node == n->config->node_id) {
            continue;
        }
        n->hello_due = n->hello_due || h.ask;
        if (h.node == 0) {
            continue;
        }
        if (h.epoch > n->heard_epoch && strcmp(h.cluster_id, n->r.cluster_id) == 0) {
            n->heard_epoch = h.epoch;
            n->next_join_ms = h.epoch > n->r.epoch ? 0 : n->next_join_ms; /* the server tells whether it counts */
        }
        (void)pthread_mutex_lock(&n->mu);
        (void)mm_peers_hear(&n->peers, &h, n->r.cluster_id);
        (void)pthread_mutex_unlock(&n->mu);
    }
}

static bool at_the_end(const struct mm_repl *r)
{
    for (int k = 0; k < r->nshard; k++) {
        const struct mm_shard *s = &r->shard[k];
        if (!s->following || !s->checked || s->replay != NULL || s->pos.seq < s->end_seq) {
            return false;
        }
    }
    return true;
}

void mm_node_peers_step(struct mm_node *n)
{
    struct mm_err err;
    char subject[256];
    mm_err_init(&err);
    (void)pthread_mutex_lock(&n->mu);
    if (n->caught_up_ms == 0 || (mm_bus_connected(n->r.bus) && at_the_end(&n->r))) {
        n->caught_up_ms = mm_clock_mono_ms();
    }
    memcpy(n->hello_cluster, n->r.cluster_id, sizeof n->hello_cluster);
    (void)pthread_mutex_unlock(&n->mu);
    if (!mm_bus_connected(n->r.bus)) {
        n->listening = false;
        return;
    }
    bool ask = atomic_exchange(&n->ask_peers, false);
    if (!n->listening) {
        mm_connecting_nodes_subject(n->config, subject);
        ask = n->listening = mm_bus_listen(n->r.bus, subject, &err) == SQLITE_OK;
    }
    listen(n);
    n->hello_due = n->hello_due || strcmp(n->hello_state, mm_node_state_name(n->told_state)) != 0;
    int64_t now = mm_clock_mono_ms();
    bool due = now >= n->next_hello_ms || (n->hello_due && now >= n->next_hello_ms - MM_HELLO_MS + MM_HELLO_LEAST_MS);
    if (ask || due) {
        tell(n, ask, false);
    }
}

int mm_node_peers_timeout(const struct mm_node *n)
{
    if (!mm_bus_connected(n->r.bus)) {
        return -1;
    }
    int64_t at = n->next_hello_ms - (n->hello_due ? MM_HELLO_MS - MM_HELLO_LEAST_MS : 0);
    int64_t left = at - mm_clock_mono_ms();
    return left > 0 ? (int)left : 1;
}

void mm_node_peers_farewell(struct mm_node *n)
{
    if (mm_bus_connected(n->r.bus)) {
        tell(n, false, true);
    }
}

/* --- for other threads --- */

void mm_node_peers_refresh(struct mm_node *n)
{
    atomic_store(&n->ask_peers, true);
    mm_worker_wake(n->worker);
}

int mm_node_peers(struct mm_node *n, struct mm_peers *out, struct mm_err *err)
{
    struct mm_hello self;
    *out = (struct mm_peers){ 0 };
    (void)pthread_mutex_lock(&n->mu);
    bool standby = n->state == MM_NODE_STANDBY;
    if (!standby && !mm_peers_copy(out, &n->peers)) {
        mm_err_nomem(err);
    }
    describe(n, &self);
    (void)pthread_mutex_unlock(&n->mu);
    if (standby) {
        return mm_peers_ask(n->config, ASK_MS, out, err);
    }
    if (err->rc == SQLITE_OK && !mm_peers_hear(out, &self, "")) {
        mm_err_nomem(err);
    }
    return err->rc;
}
