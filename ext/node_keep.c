/* Snapshots that nobody asks for: looks whether one may be due, and lets the
** task find out. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"
#include "store/meta.h"
#include "store/stray.h"

enum { FIRST_MS = 2000, AGAIN_MS = 1000, MOST_MS = 10000 };

static int64_t listed(struct mm_node *n, struct mm_err *err)
{
    int count = 0;
    mm_gate_enter();
    struct mm_watch_entry *list = mm_watchlist_all(n->r.db, &count, err);
    mm_watch_list_free(list, count);
    mm_gate_leave();
    return count;
}

/* As a snapshot's manifest has it; 0 = a table is missing here. */
static uint64_t schema_of(struct mm_node *n, struct mm_err *err)
{
    uint64_t h = 0;
    int count = 0;
    mm_gate_enter();
    struct mm_watch_entry *list = mm_watchlist_all(n->r.db, &count, err);
    for (int k = 0; k < count && err->rc == SQLITE_OK; k++) {
        struct mm_target *t = mm_targets_get(n->r.targets, list[k].name, err);
        if (t == NULL || t->def == NULL) {
            h = 0;
            break;
        }
        h = h * 1099511628211ULL + mm_table_hash(t->def);
    }
    mm_watch_list_free(list, count);
    mm_gate_leave();
    return h;
}

/* Best effort: what is forgotten is stored once more. */
static void remember_schema(struct mm_node *n, uint64_t schema)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_gate_enter();
    if (mm_db_exec(n->r.db, &err, "BEGIN IMMEDIATE") == SQLITE_OK) {
        mm_meta_set_int(n->r.db, MM_META_SCHEMA, (int64_t)schema, &err);
        mm_stray_end(n->r.db, &err);
    }
    mm_gate_leave();
}

/* Whoever joins needs tables as they are now: a change of this node's is stored once, also
** one that was made while no process of ours ran. */
static void look_at_schema(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (!n->schema_look) {
        return;
    }
    if (n->schema_was == 0) {
        mm_gate_enter();
        n->schema_was = (uint64_t)mm_meta_int(n->r.db, MM_META_SCHEMA, 0, &err);
        mm_gate_leave();
    }
    uint64_t now = schema_of(n, &err);
    if (err.rc == SQLITE_OK && now != n->schema_was) {
        n->schema_to_store = n->schema_was != 0 ? now : 0;
        if (n->schema_was == 0) {
            remember_schema(n, now);
        }
        n->schema_was = now;
    }
    n->schema_look = err.rc != SQLITE_OK;
}

struct mm_keep mm_node_keep(struct mm_node *n, struct mm_err *err)
{
    const struct mm_config *c = n->config;
    struct mm_keep k = { .max_entries = c->log.max_entries,
                         .max_bytes = c->log.max_bytes,
                         .interval_ms = c->snapshot.interval_ms,
                         .rest = n->resting,
                         .tables = listed(n, err),
                         .schema = n->schema_to_store,
                         .bucket = n->lease_bucket,
                         .replicas = (int)c->log.replicas };
    (void)snprintf(n->lease_bucket, sizeof n->lease_bucket, "%s-leases", c->cluster);
    for (int s = 0; s < n->r.nshard; s++) {
        k.position[s] = n->r.shard[s].pos.seq;
    }
    return k;
}

static bool healthy(const struct mm_node *n)
{
    bool good = n->config->snapshot.enabled && n->config->publish && n->config->replicate && n->r.joined && n->linked &&
                !n->held && n->verdict == MM_NODE_LIVE && n->strays == 0;
    for (int k = 0; good && k < n->r.nshard; k++) {
        const struct mm_shard *s = &n->r.shard[k];
        good = s->following && s->checked && s->replay == NULL && s->blocked_seq == 0;
    }
    return good;
}

/* By what this node remembers; the store has the last word. */
static bool maybe_due(struct mm_node *n)
{
    const struct mm_config *c = n->config;
    struct mm_err err;
    mm_err_init(&err);
    if (!n->snap_known || n->schema_to_store != 0 ||
        (c->snapshot.interval_ms > 0 && mm_clock_wall_ms() - n->snap_at_ms >= c->snapshot.interval_ms)) {
        return true;
    }
    for (int k = 0; k < n->r.nshard; k++) {
        int64_t moved = n->r.shard[k].pos.seq - n->snap_seq[k];
        bool tight = n->r.shard[k].full ||
                     (c->log.max_entries > 0 && n->r.shard[k].pos.seq - n->older_seq[k] >= c->log.max_entries / 4 * 3);
        if (((moved > 0 || n->snap_seq[k] > n->older_seq[k]) && tight) ||
            (c->log.max_entries > 0 && moved >= c->log.max_entries / 2) || (c->log.max_bytes > 0 && moved >= 100)) {
            return true;
        }
    }
    return listed(n, &err) != n->snap_tables;
}

void mm_node_keep_step(struct mm_node *n)
{
    int64_t now = mm_clock_mono_ms();
    struct mm_err err;
    mm_err_init(&err);
    if (!healthy(n)) {
        n->next_keep_ms = 0;
    } else if (n->next_keep_ms == 0) {
        look_at_schema(n); /* as it is now: a change in the first seconds is one, too */
        n->next_keep_ms = now + (n->r.founder && !n->snap_known ? 0 : FIRST_MS); /* newcomers wait for the first one */
    } else if (now >= n->next_keep_ms) {
        n->next_keep_ms = now + AGAIN_MS;
        look_at_schema(n);
        if (!maybe_due(n)) { /* what was due when the last one failed, before a sleep maybe, is no more */
            n->keep_error[0] = '\0';
            n->snapshot_fails = false;
        } else if (!mm_node_task_begin(n, MM_TASK_KEEP, &err)) {
            mm_node_kept(n, &err);
        }
    }
}

bool mm_node_keep_rest(struct mm_node *n)
{
    struct mm_err err;
    bool news = !n->snap_known;
    mm_err_init(&err);
    for (int k = 0; k < n->r.nshard; k++) {
        news = news || n->r.shard[k].pos.seq > n->snap_seq[k];
    }
    if (!news || !healthy(n) || n->task != NULL) {
        return false;
    }
    n->resting = true;
    bool begun = mm_node_task_begin(n, MM_TASK_KEEP, &err);
    n->resting = false;
    return begun;
}

void mm_node_kept(struct mm_node *n, const struct mm_err *err)
{
    if (err->rc == SQLITE_OK) {
        const struct mm_manifest *m = mm_task_manifest(n->task);
        n->keep_wait_ms = 0;
        n->keep_error[0] = '\0';
        n->snapshot_fails = false;
        if (m->id[0] != '\0') { /* this node's, or the one that made its own unnecessary */
            n->snap_known = true;
            n->snap_tables = m->tables;
            if (n->schema_to_store != 0 && m->schema == n->schema_to_store) {
                remember_schema(n, n->schema_to_store);
                n->schema_to_store = 0;
            }
            n->snap_at_ms = m->at_ms;
            for (int k = 0; k < m->nshard && k < n->r.nshard; k++) {
                n->snap_seq[k] = m->shard[k].seq;
                /* Ahead of us: of another node's reading, or of what the server lost. It is looked at again. */
                n->snap_known = n->snap_known && m->shard[k].seq <= n->r.shard[k].pos.seq;
                n->older_seq[k] = mm_task_older(n->task)->shard[k].seq;
            }
        }
        return;
    }
    bool busy = (err->rc & 0xff) == SQLITE_BUSY;
    n->snapshot_fails = n->snapshot_fails || !busy;
    n->keep_wait_ms = n->keep_wait_ms == 0 || busy ? AGAIN_MS : n->keep_wait_ms * 2;
    n->keep_wait_ms = n->keep_wait_ms > MOST_MS ? MOST_MS : n->keep_wait_ms;
    n->next_keep_ms = mm_clock_mono_ms() + n->keep_wait_ms;
    if (strcmp(n->keep_error, err->msg) != 0) {
        (void)snprintf(n->keep_error, sizeof n->keep_error, "%s", err->msg);
        mm_log(MM_LOG_WARN, "node %lld: no snapshot is taken: %s", (long long)n->config->node_id, err->msg);
    }
}
