#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "node_int.h"
#include "store/request.h"

static bool hopeless(enum mm_node_state s)
{
    return s == MM_NODE_BLOCKED || s == MM_NODE_DIVERGED || s == MM_NODE_JOIN_CONFLICT || s == MM_NODE_STOPPED;
}

static void unlink_sync(struct mm_node *n, struct mm_sync *y)
{
    struct mm_sync **at = &n->syncs;
    while (*at != NULL && *at != y) {
        at = &(*at)->next;
    }
    if (*at == y) {
        *at = y->next;
    }
}

int mm_node_sync(struct mm_node *n, int64_t up_to_outbox_id, int timeout_ms, struct mm_err *err)
{
    struct mm_sync y;
    struct timespec until;
    if (!n->config->publish) {
        mm_err_set(err, SQLITE_ERROR,
                   "publish is false in the configuration: local changes are not sent, so there is "
                   "nothing to wait for");
        return 0;
    }
    memset(&y, 0, sizeof y);
    mm_err_init(&y.err);
    y.up_to = up_to_outbox_id;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&n->mu);
    y.id = ++n->next_sync;
    y.next = n->syncs;
    n->syncs = &y;
    mm_worker_wake(n->worker);
    int rc = 0;
    while (!y.done && y.err.rc == SQLITE_OK && rc == 0) {
        if (hopeless(n->state)) {
            mm_err_set(&y.err, SQLITE_ERROR, "the node is %s and cannot sync: %s", mm_node_state_name(n->state),
                       n->why);
            break;
        }
        rc = pthread_cond_timedwait(&n->told, &n->mu, &until);
    }
    unlink_sync(n, &y);
    (void)pthread_mutex_unlock(&n->mu);
    if (y.err.rc != SQLITE_OK) {
        *err = y.err;
    }
    return y.done;
}

bool mm_node_sync_waiting(struct mm_node *n)
{
    (void)pthread_mutex_lock(&n->mu);
    bool waiting = n->syncs != NULL;
    (void)pthread_mutex_unlock(&n->mu);
    return waiting || n->remote != NULL;
}

/* The ends of all streams, read now. False: not now. */
static bool read_ends(struct mm_node *n, int64_t *end)
{
    for (int k = 0; k < n->r.nshard; k++) {
        struct mm_stream_info info;
        struct mm_err err;
        mm_err_init(&err);
        if (!mm_bus_stream_info(n->r.bus, n->r.shard[k].stream, &info, MM_REQUEST_MS, &err)) {
            return false;
        }
        end[k] = info.last_seq;
    }
    return true;
}

static bool reached(struct mm_node *n, const struct mm_sync *y)
{
    for (int k = 0; k < n->r.nshard; k++) {
        if (n->r.shard[k].pos.seq < y->end[k] || n->r.shard[k].replay != NULL) {
            return false;
        }
    }
    return y->begun && mm_repl_echoed(&n->r) >= y->up_to;
}

/* Requests of other processes join the list of this thread. */
static void take_requests(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_gate_enter();
    for (;;) {
        int64_t up_to = 0;
        int64_t id = mm_request_next(n->r.db, n->remote_seen, &up_to, &err);
        struct mm_sync *y = id != 0 ? calloc(1, sizeof *y) : NULL;
        if (y == NULL) {
            break;
        }
        y->up_to = up_to;
        y->request = id;
        y->next = n->remote;
        n->remote = y;
        n->remote_seen = id;
    }
    mm_gate_leave();
}

static void finish_requests(struct mm_node *n)
{
    struct mm_sync **at = &n->remote;
    while (*at != NULL) {
        struct mm_sync *y = *at;
        struct mm_err err;
        mm_err_init(&err);
        if (!reached(n, y)) {
            at = &y->next;
            continue;
        }
        mm_gate_enter();
        mm_request_finish(n->r.db, y->request, &err);
        mm_gate_leave();
        if (err.rc != SQLITE_OK) { /* busy: next turn */
            return;
        }
        *at = y->next;
        free(y);
    }
}

void mm_node_sync_look(struct mm_node *n)
{
    (void)pthread_mutex_lock(&n->mu);
    n->asked = n->next_sync;
    (void)pthread_mutex_unlock(&n->mu);
}

void mm_node_sync_step(struct mm_node *n)
{
    int64_t end[MM_SHARDS_MAX];
    if (mm_clock_mono_ms() >= n->next_requests_ms) {
        n->next_requests_ms = mm_clock_mono_ms() + MM_REQUESTS_MS;
        take_requests(n);
    }
    if (!mm_node_sync_waiting(n)) {
        return;
    }
    /* Who asked before this turn's look, and so before the ends are read: a later caller
    ** waits for a turn of its own, which sees what was done to the schema, too. */
    (void)pthread_mutex_lock(&n->mu);
    bool fresh = false;
    for (struct mm_sync *y = n->syncs; y != NULL; y = y->next) {
        fresh = fresh || (!y->begun && y->id <= n->asked);
    }
    (void)pthread_mutex_unlock(&n->mu);
    for (struct mm_sync *y = n->remote; y != NULL; y = y->next) {
        fresh = fresh || !y->begun;
    }
    bool known = fresh && n->linked && mm_bus_connected(n->r.bus) && read_ends(n, end);
    (void)pthread_mutex_lock(&n->mu);
    for (struct mm_sync *y = n->syncs; y != NULL; y = y->next) {
        if (known && !y->begun && y->id <= n->asked) {
            memcpy(y->end, end, sizeof y->end);
            y->begun = true;
        }
        y->joins = y->joins == 0 ? n->joins + 1 : y->joins;
        if (reached(n, y)) {
            y->done = true;
        } else if (n->nothing_watched && n->joins >= y->joins) { /* an attempt since the call says so */
            mm_err_set(&y->err, SQLITE_ERROR,
                       "no table is watched, so nothing is replicated: call marmot_watch_all() "
                       "or marmot_watch(table) first");
        }
    }
    (void)pthread_cond_broadcast(&n->told);
    (void)pthread_mutex_unlock(&n->mu);
    for (struct mm_sync *y = n->remote; known && y != NULL; y = y->next) {
        if (!y->begun) {
            memcpy(y->end, end, sizeof y->end);
            y->begun = true;
        }
    }
    finish_requests(n);
}

void mm_node_sync_restart(struct mm_node *n)
{
    (void)pthread_mutex_lock(&n->mu);
    for (struct mm_sync *y = n->syncs; y != NULL; y = y->next) {
        y->begun = false;
        y->request = 0;
    }
    (void)pthread_mutex_unlock(&n->mu);
}

void mm_node_sync_standby(struct mm_node *n)
{
    struct mm_err err;
    for (;;) { /* one at a time: no SQL under the lock */
        struct mm_sync copy;
        bool found = false;
        (void)pthread_mutex_lock(&n->mu);
        for (struct mm_sync *y = n->syncs; y != NULL && !found; y = y->next) {
            if (!y->begun) {
                copy = *y;
                found = true;
            }
        }
        (void)pthread_mutex_unlock(&n->mu);
        if (!found) {
            break;
        }
        mm_err_init(&err);
        mm_gate_enter();
        int64_t request = mm_request_sync(n->r.db, copy.up_to, &err);
        mm_gate_leave();
        if (request == 0) {
            break; /* busy: next turn */
        }
        (void)pthread_mutex_lock(&n->mu);
        for (struct mm_sync *y = n->syncs; y != NULL; y = y->next) {
            if (y->id == copy.id) {
                y->begun = true;
                y->request = request;
            }
        }
        (void)pthread_mutex_unlock(&n->mu);
    }
    (void)pthread_mutex_lock(&n->mu);
    int64_t first = 0;
    for (struct mm_sync *y = n->syncs; y != NULL; y = y->next) {
        first = y->begun && !y->done && (first == 0 || y->request < first) ? y->request : first;
    }
    (void)pthread_mutex_unlock(&n->mu);
    if (first == 0) {
        return;
    }
    mm_err_init(&err);
    mm_gate_enter();
    bool done = mm_request_done(n->r.db, first, &err) != 0;
    mm_gate_leave();
    (void)pthread_mutex_lock(&n->mu);
    for (struct mm_sync *y = n->syncs; done && y != NULL; y = y->next) {
        y->done = y->done || y->request == first;
    }
    (void)pthread_cond_broadcast(&n->told);
    (void)pthread_mutex_unlock(&n->mu);
}
