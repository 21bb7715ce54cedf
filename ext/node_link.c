#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"
#include "repl/partition.h"

static bool embedded(const struct mm_node *n)
{
    return n->server != NULL;
}

void mm_node_unlink(struct mm_node *n, const char *why)
{
    if (mm_bus_connected(n->r.bus)) {
        mm_bus_disconnect(n->r.bus);
    }
    if (n->linked) {
        mm_log(MM_LOG_INFO, "node %lld is offline: %s", (long long)n->config->node_id, why);
    }
    n->linked = false;
    mm_applier_drop(n->applier, 0);
    for (int k = 0; k < n->r.nshard; k++) {
        struct mm_shard *s = &n->r.shard[k];
        s->following = s->checked = s->full = false;
        s->refusal[0] = '\0';
        mm_publisher_back(s, why, false);
    }
}

/* How long to leave the server alone after a failed attempt. */
static void connect_later(struct mm_node *n)
{
    int most = embedded(n) ? 250 : (int)n->config->nats.reconnect_wait_seconds * 1000;
    n->connect_wait_ms = n->connect_wait_ms == 0 ? 20 : n->connect_wait_ms * 2;
    if (n->connect_wait_ms > most && most > 0) {
        n->connect_wait_ms = most;
    }
    n->next_connect_ms = mm_clock_mono_ms() + n->connect_wait_ms;
}

static bool connect_bus(struct mm_node *n)
{
    struct mm_err err;
    struct mm_err none;
    mm_err_init(&err);
    if (mm_clock_mono_ms() < n->next_connect_ms) {
        return false;
    }
    if (mm_bus_connect(n->r.bus, &err) == SQLITE_OK) {
        n->connect_wait_ms = 0;
        n->offered = true;
        n->connections++;
        n->connected_ms = mm_clock_mono_ms();
        n->listening = false; /* that was the old connection's */
        n->failed_connects = 0;
        mm_err_init(&n->problem);
        n->verdict = MM_NODE_LIVE;
        mm_log(MM_LOG_INFO, "node %lld is connected to %s", (long long)n->config->node_id, mm_bus_url(n->r.bus));
        return true;
    }
    n->problem = err;
    n->offered = true;
    if (++n->failed_connects == n->config->nats.connect_retries) {
        mm_log(MM_LOG_WARN, "node %lld has no connection after %d attempts, which go on: %s",
               (long long)n->config->node_id, n->failed_connects, err.msg);
    }
    if (embedded(n)) {
        mm_err_init(&none);
        if (mm_server_tend(n->server, &none) == MM_SERVER_FAILED) {
            n->problem = none;
            n->connect_wait_ms = MM_RETRY_MS / 2;
        }
    }
    connect_later(n);
    return false;
}

struct mm_join_options mm_node_join_options(const struct mm_node *n)
{
    return (struct mm_join_options){
        .cluster = n->config->cluster,
        .settings = n->settings,
        .watch_all = n->watch_all,
        .replicas = (int)n->config->log.replicas,
        .max_bytes = n->config->log.max_bytes,
        .max_entries = n->config->snapshot.enabled ? n->config->log.max_entries : -1,
        .begins_none = !n->config->replicate,
        .adopt = n->rejoining == MM_REJOIN_ADOPT || n->rejoining == MM_REJOIN_MERGE,
    };
}

static bool parts_fit(const struct mm_node *n, struct mm_err *err)
{
    size_t most = mm_bus_max_payload(n->r.bus);
    if (most > 0 && (size_t)n->r.part_size + MM_PART_HEAD > most) {
        mm_err_set(err, SQLITE_TOOBIG,
                   "replication_log.part_size %lld does not fit the server's max_payload of %zu bytes: set part_size "
                   "to %zu at most, on every node of the cluster, or raise max_payload",
                   (long long)n->r.part_size, most, most > MM_PART_HEAD ? most - MM_PART_HEAD : 0);
    }
    return err->rc == SQLITE_OK;
}

static enum mm_purpose purpose_of(enum mm_join_result result)
{
    return result == MM_JOIN_BRING ? MM_FOR_JOIN : result == MM_JOIN_LOST ? MM_FOR_LOST : MM_FOR_EPOCH;
}

static enum mm_join_mode how_to_bring(const struct mm_node *n)
{
    return n->rejoining == MM_REJOIN_ADOPT   ? MM_JOIN_ADOPT
           : n->rejoining == MM_REJOIN_MERGE ? MM_JOIN_MERGE
           : n->r.joined                     ? MM_JOIN_STRICT
                                             : n->config->join;
}

/* Joins, or checks that the server is still the one that was joined. */
static bool join(struct mm_node *n)
{
    struct mm_join_options o = mm_node_join_options(n);
    struct mm_err err;
    mm_err_init(&err);
    if (mm_clock_mono_ms() < n->next_join_ms || n->held) {
        return false;
    }
    mm_gate_enter();
    enum mm_join_result result = parts_fit(n, &err) ? MM_JOIN_LATER : MM_JOIN_CONFLICT;
    if (err.rc == SQLITE_OK) {
        result = n->r.joined ? mm_join_check(&n->r, &o, &err) : mm_join_run(&n->r, &o, &err);
    }
    n->silent = n->r.joined && result == MM_JOIN_LATER;
    if (result == MM_JOIN_DONE) {
        struct mm_err again;
        mm_err_init(&again);
        int64_t end[MM_SHARDS_MAX];
        for (int k = 0; k < n->r.nshard; k++) {
            end[k] = n->r.shard[k].end_seq;
        }
        if (mm_repl_reload(&n->r, &again) != SQLITE_OK) {
            result = MM_JOIN_LATER;
            err = again;
        } else {
            mm_node_all_read(n);
        }
        for (int k = 0; k < n->r.nshard; k++) {
            struct mm_shard *s = &n->r.shard[k];
            s->end_seq = s->sync_seq = end[k] > s->pos.seq ? end[k] : s->pos.seq;
        }
        if (result == MM_JOIN_DONE && mm_partition_claim(&n->r, o.cluster, &again) != SQLITE_OK) {
            result = MM_JOIN_LATER;
            err = again;
        }
    }
    mm_gate_leave();
    n->joins++;
    n->nothing_watched = result == MM_JOIN_NOTHING;
    bool bring = result == MM_JOIN_BRING || result == MM_JOIN_LOST || result == MM_JOIN_EPOCH;
    enum mm_node_state sad = n->r.joined ? MM_NODE_DIVERGED : MM_NODE_JOIN_CONFLICT;
    bool begun = bring && mm_node_bring(n, purpose_of(result), how_to_bring(n), &err);
    if (!begun && n->rejoining != MM_REJOIN_NOT) {
        mm_node_rejoin_failed(n, &err);
    }
    if (bring && n->bring_failed.rc != SQLITE_OK) {
        err = n->bring_failed;
    }
    n->verdict = result == MM_JOIN_CONFLICT   ? MM_NODE_JOIN_CONFLICT
                 : result == MM_JOIN_DIVERGED ? MM_NODE_DIVERGED
                 : bring && n->bring_hopeless ? sad
                 : bring                      ? MM_NODE_JOINING
                                              : MM_NODE_LIVE;
    n->linked = result == MM_JOIN_DONE;
    n->next_join_ms = mm_clock_mono_ms() + (result == MM_JOIN_DONE      ? 0
                                            : result == MM_JOIN_NOTHING ? MM_TICK_MS
                                            : result == MM_JOIN_LATER   ? MM_RETRY_MS
                                                                        : MM_CONFLICT_MS);
    if (result == MM_JOIN_DONE || result == MM_JOIN_NOTHING) {
        mm_err_init(&n->problem);
    } else {
        if (!bring && strcmp(n->problem.msg, err.msg) != 0) {
            mm_log(MM_LOG_WARN, "node %lld: %s", (long long)n->config->node_id, err.msg);
        }
        n->problem = err;
    }
    return n->linked;
}

/* A table that was watched after its database had joined reads the log again. */
static void begin_replays(struct mm_node *n)
{
    struct mm_repl *r = &n->r;
    n->replay_due = n->replay_due || r->tables_changed;
    if (!n->replay_due || mm_clock_mono_ms() < n->next_replay_ms) {
        return;
    }
    n->replay_due = false;
    n->next_replay_ms = mm_clock_mono_ms() + MM_TICK_MS;
    mm_gate_enter();
    for (int k = 0; k < r->nshard; k++) {
        struct mm_shard *s = &r->shard[k];
        struct mm_err err;
        mm_err_init(&err);
        if (s->replay == NULL && mm_join_replay_wanted(r, s, &err)) {
            mm_join_replay_begin(r, s, &err);
            if (err.rc == SQLITE_OK) {
                mm_applier_drop(n->applier, s->n);
                s->following = s->checked = false;
            }
        }
        n->replay_due = n->replay_due || err.rc != SQLITE_OK; /* the database was busy, mostly: next turn */
    }
    mm_gate_leave();
}

static void follow(struct mm_node *n)
{
    struct mm_repl *r = &n->r;
    for (int k = 0; k < r->nshard; k++) {
        struct mm_shard *s = &r->shard[k];
        struct mm_err err;
        mm_err_init(&err);
        if (s->following || s->blocked_seq != 0 || mm_clock_mono_ms() < n->next_follow_ms ||
            !mm_bus_connected(r->bus)) {
            continue;
        }
        if (s->replay != NULL) { /* broken off in the middle: once more from the beginning */
            mm_gate_enter();
            mm_accept_close(s->replay);
            s->replay = NULL;
            mm_join_replay_begin(r, s, &err);
            mm_gate_leave();
            if (err.rc != SQLITE_OK) {
                n->replay_due = true;
                continue;
            }
        }
        int64_t start = s->replay != NULL || s->pos.seq == 0 ? 1 : s->pos.seq;
        if (mm_bus_follow(r->bus, s->stream, s->n, start, MM_REQUEST_MS, &err) != SQLITE_OK) {
            n->problem = err;
            n->silent = true;
            n->next_follow_ms = n->next_join_ms = mm_clock_mono_ms() + 200;
            n->linked = false; /* the stream may be gone: joining tells */
            return;
        }
        n->silent = false;
        s->following = true;
        s->checked = s->pos.seq == 0; /* nothing folded: nothing to compare */
    }
}

bool mm_node_link(struct mm_node *n)
{
    if (!mm_bus_connected(n->r.bus)) {
        if (n->linked) {
            mm_node_unlink(n, "the connection to the server was lost");
            n->next_connect_ms = mm_clock_mono_ms();
        }
        if (!connect_bus(n)) {
            return false;
        }
        n->next_join_ms = 0;
        n->next_follow_ms = 0;
    }
    if (n->nothing_watched && n->r.tables_changed) {
        n->next_join_ms = 0;
    }
    if (!n->linked && !join(n)) {
        return false;
    }
    mm_node_check_streams(n);
    begin_replays(n);
    follow(n);
    return mm_bus_connected(n->r.bus);
}

int mm_node_link_timeout(const struct mm_node *n)
{
    int64_t at = !mm_bus_connected(n->r.bus) ? n->next_connect_ms : !n->linked ? n->next_join_ms : n->next_follow_ms;
    int64_t left = at - mm_clock_mono_ms();
    bool open = false;
    for (int k = 0; k < n->r.nshard; k++) {
        open = open || (!n->r.shard[k].following && n->r.shard[k].blocked_seq == 0);
    }
    return !open && n->linked ? -1 : left > 0 ? (int)left : 1;
}
