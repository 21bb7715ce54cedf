#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "node_int.h"

struct mm_node_shard *mm_node_shards(struct mm_node *n, int *count, struct mm_err *err)
{
    struct mm_node_shard *copy = NULL;
    *count = 0;
    (void)pthread_mutex_lock(&n->mu);
    if (n->nshards > 0) {
        copy = calloc((size_t)n->nshards, sizeof *copy);
        if (copy != NULL) {
            memcpy(copy, n->shards, (size_t)n->nshards * sizeof *copy);
            *count = n->nshards;
        } else {
            mm_err_nomem(err);
        }
    }
    (void)pthread_mutex_unlock(&n->mu);
    return copy;
}

enum mm_node_state mm_node_state_now(struct mm_node *n)
{
    (void)pthread_mutex_lock(&n->mu);
    enum mm_node_state s = n->state;
    (void)pthread_mutex_unlock(&n->mu);
    return s;
}

void mm_node_pending(struct mm_node *n, int64_t *rows, int64_t *bytes)
{
    (void)pthread_mutex_lock(&n->mu);
    *rows = n->pending_rows;
    *bytes = n->pending_bytes;
    (void)pthread_mutex_unlock(&n->mu);
}

void mm_node_numbers(struct mm_node *n, struct mm_node_numbers *out)
{
    (void)pthread_mutex_lock(&n->mu);
    *out = (struct mm_node_numbers){
        .state = n->state,
        .since_ms = n->since_ms,
        .connected = n->url[0] != '\0',
        .connections = n->connections,
        .behind_ms = n->caught_up_ms != 0 ? mm_clock_mono_ms() - n->caught_up_ms : 0,
        .pending_rows = n->pending_rows,
        .pending_bytes = n->pending_bytes,
    };
    for (int k = 0; k < n->peers.count; k++) {
        out->nodes_alive += mm_peer_alive(&n->peers.peer[k]);
    }
    (void)pthread_mutex_unlock(&n->mu);
}

/* mu held. */
static bool reading(const struct mm_node *n, struct mm_node_progress *out)
{
    for (int k = 0; n->state == MM_NODE_JOINING && k < n->nshards; k++) {
        out->done += n->shards[k].position;
        out->total += n->shards[k].end;
    }
    out->what = "reading the log";
    return out->total > out->done;
}

bool mm_node_progress(struct mm_node *n, struct mm_node_progress *out)
{
    *out = (struct mm_node_progress){ 0 };
    (void)pthread_mutex_lock(&n->mu);
    if (n->task != NULL) {
        const struct mm_work *w = mm_task_work(n->task);
        *out = (struct mm_node_progress){ w->what, w->done, w->total };
    }
    bool any = out->what != NULL || reading(n, out);
    (void)pthread_mutex_unlock(&n->mu);
    return any;
}

bool mm_node_hopeless(struct mm_node *n, struct mm_err *err)
{
    (void)pthread_mutex_lock(&n->mu);
    enum mm_node_state s = n->state;
    bool hopeless = s == MM_NODE_BLOCKED || s == MM_NODE_DIVERGED || s == MM_NODE_JOIN_CONFLICT || s == MM_NODE_STOPPED;
    if (hopeless) {
        mm_err_set(err, SQLITE_ERROR, "the node is %s, so it cannot go on: %s", mm_node_state_name(s), n->why);
    }
    (void)pthread_mutex_unlock(&n->mu);
    return hopeless;
}

const struct mm_config *mm_node_config(const struct mm_node *n)
{
    return n->config;
}

int64_t mm_node_id(const struct mm_node *n)
{
    return n->config->node_id;
}

static void close_fd(int fd)
{
    (void)close(fd);
}

void mm_node_after_fork(struct mm_node *n)
{
    if (n->lock_fd >= 0) { /* an open copy here would keep the end of the parent from being told */
        (void)close(n->lock_fd);
    }
    if (n->notify != NULL) {
        mm_notify_each_fd(n->notify, close_fd);
    }
    if (n->server != NULL) {
        mm_server_each_fd(n->server, close_fd);
    }
    if (n->r.bus != NULL) {
        mm_bus_each_fd(n->r.bus, close_fd);
    }
    mm_node_http_each_fd(n, close_fd);
}
