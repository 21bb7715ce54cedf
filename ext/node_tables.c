/* Tables that join alone, when their database has joined long ago: watched later, or
** left behind. Where the log does not do, a copy of the cluster's content does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"
#include "snapshot/install.h"
#include "store/stray.h"

enum {
    LOOK_MS = 1000,
    AGAIN_MS = 250,
    MOST_MS = 10000,
    PATIENCE_MS = 10000, /* so long, while the link is up, what was written to them since holds up the outbox */
};

static bool may_begin(const struct mm_node *n)
{
    bool may = n->r.joined && n->linked && !n->held && n->verdict == MM_NODE_LIVE && n->config->replicate &&
               !(n->tables_tried && !n->config->snapshot.enabled);
    for (int k = 0; k < n->r.nshard; k++) {
        const struct mm_shard *s = &n->r.shard[k];
        may = may && s->following && s->checked && s->replay == NULL;
    }
    return may;
}

void mm_node_tables_step(struct mm_node *n)
{
    int64_t now = mm_clock_mono_ms();
    struct mm_err err;
    mm_err_init(&err);
    if (n->r.copy_due) {
        n->r.copy_due = n->tables_tried = false;
        n->tables_since_ms = 0;
        n->next_tables_ms = n->tables_wait_ms = 0;
    }
    if (!mm_bus_connected(n->r.bus)) {
        n->tables_since_ms = 0; /* patience is for what the cluster does not have, not for what cannot be asked */
    }
    if (now < n->next_tables_ms || !may_begin(n)) {
        return;
    }
    n->next_tables_ms = now + LOOK_MS;
    mm_gate_enter();
    bool any = mm_watch_any_needs_copy(n->r.db, &err);
    mm_gate_leave();
    if (any) {
        n->tables_since_ms = n->tables_since_ms == 0 ? now : n->tables_since_ms;
        mm_node_task_begin(n, MM_TASK_TABLES, &err);
    }
}

static void try_later(struct mm_node *n)
{
    n->tables_wait_ms = n->tables_wait_ms == 0 ? AGAIN_MS : n->tables_wait_ms * 2;
    n->tables_wait_ms = n->tables_wait_ms > MOST_MS ? MOST_MS : n->tables_wait_ms;
    n->next_tables_ms = mm_clock_mono_ms() + n->tables_wait_ms;
}

/* Marks of one table, inside the transaction. */
static void keep_out(struct mm_node *n, const char *table, const char *why, int64_t joined_seq, struct mm_err *err)
{
    mm_watch_set(n->r.db, table, MM_STALE, why, err);
    mm_watch_set_joined_seq(n->r.db, table, joined_seq, err);
    mm_log(MM_LOG_WARN, "table %s stays out: %s", table, why);
}

/* It is not known yet whether it may join: what is written to it waits, but not for ever. */
static void keep_waiting(struct mm_node *n, const char *table, const char *why, struct mm_err *err)
{
    bool tired = n->tables_since_ms != 0 && mm_clock_mono_ms() - n->tables_since_ms > PATIENCE_MS;
    if (mm_watch_get(n->r.db, table, NULL, err) != MM_JOINING) {
        return;
    }
    if (tired) {
        mm_join_let_pass(&n->r, table, why, err);
        mm_log(MM_LOG_WARN, "table %s waits on: %s; until then what is written to it stays here", table, why);
    } else {
        mm_watch_set(n->r.db, table, MM_JOINING, why, err);
    }
}

static bool differs(const struct mm_diff_table *d)
{
    return d->mode == MM_DIFF_KEYS || d->mode == MM_DIFF_ALL;
}

static bool refused(const struct mm_node *n, const struct mm_diff_table *d)
{
    return differs(d) && !d->before && !d->empty && d->rows > 0 && n->how == MM_JOIN_STRICT;
}

static void mark(struct mm_node *n, const struct mm_diff_table *d, struct mm_err *err)
{
    char why[300];
    if (d->mode == MM_DIFF_ABSENT) {
        keep_waiting(n, d->name, d->why, err);
    } else if (d->mode == MM_DIFF_OTHER) {
        keep_out(n, d->name, d->why, d->before ? MM_SEQ_BEFORE : MM_SEQ_COPY, err);
    } else if (refused(n, d) && d->pending) { /* it may have been emptied just now */
        keep_waiting(n, d->name, "its rows differ from the cluster's; it is compared again when its changes are sent",
                     err);
    } else if (refused(n, d)) {
        (void)snprintf(
            why, sizeof why,
            "its rows differ from the cluster's (%lld only here, %lld only there, %lld with other values):"
            " set join to 'adopt' (the cluster's rows) or 'merge', or empty it; then marmot_watch() it again",
            (long long)d->here, (long long)d->there, (long long)d->both);
        keep_out(n, d->name, why, MM_SEQ_NEVER, err);
    }
}

/* In a transaction: calls of mark, or the reason why none of them can join. */
static void mark_all(struct mm_node *n, const struct mm_diff *diff, const char *why, struct mm_err *err)
{
    int count = 0;
    mm_db_exec(n->r.db, err, "BEGIN IMMEDIATE");
    for (int k = 0; diff != NULL && k < diff->n && err->rc == SQLITE_OK; k++) {
        if (diff->table[k].joins) {
            mark(n, &diff->table[k], err);
        }
    }
    struct mm_watch_entry *list = diff == NULL ? mm_watch_list(n->r.db, &count, err) : NULL;
    for (int k = 0; k < count && err->rc == SQLITE_OK; k++) {
        if (mm_watch_needs_copy(list[k].state, mm_watch_joined_seq(n->r.db, list[k].name, err))) {
            keep_waiting(n, list[k].name, why, err);
        }
    }
    mm_watch_list_free(list, count);
    mm_stray_end(n->r.db, err);
    mm_targets_forget(n->r.targets);
    n->r.tables_changed = true;
}

/* With the same snapshot the verdict may be another. */
static bool once_more(const struct mm_node *n, const struct mm_diff *diff)
{
    for (int k = 0; k < diff->n; k++) {
        if (diff->table[k].joins && diff->table[k].pending && refused(n, &diff->table[k])) {
            return true;
        }
    }
    return false;
}

/* Which of them join now. */
static int choose(struct mm_node *n, const struct mm_diff *diff, bool *take)
{
    int count = 0;
    for (int k = 0; k < diff->n; k++) {
        const struct mm_diff_table *d = &diff->table[k];
        take[k] = d->joins && (d->mode == MM_DIFF_SAME || differs(d)) && !refused(n, d);
        count += take[k];
    }
    return count;
}

bool mm_node_tables_ready(struct mm_node *n)
{
    const struct mm_diff *diff = mm_task_diff(n->task);
    struct mm_install in = {
        .copy = mm_task_copy(n->task),
        .diff = diff,
        .merge = n->how == MM_JOIN_MERGE,
        .cluster_id = n->r.cluster_id,
        .work = mm_task_work(n->task),
    };
    int64_t given_up = 0; /* nothing is */
    struct mm_err err;
    mm_err_init(&err);
    bool *take = calloc((size_t)diff->n + 1, sizeof *take);
    if (take == NULL) {
        mm_err_nomem(&err);
        mm_node_tables_failed(n, &err);
        return true;
    }
    in.take = take;
    mm_gate_enter();
    if (choose(n, diff, take) > 0 && mm_install_run(&n->r, &in, &given_up, &err) == SQLITE_OK) {
        mm_task_brought(n->task);
    }
    bool busy = (err.rc & 0xff) == SQLITE_BUSY;
    bool left = false; /* one that is another table than was compared */
    for (int k = 0; k < diff->n && err.rc == SQLITE_OK; k++) {
        if (take[k] && mm_watch_get(n->r.db, diff->table[k].name, NULL, &err) == MM_WATCHED) {
            mm_log(MM_LOG_INFO, "table %s has joined, with the cluster's content of now", diff->table[k].name);
        } else {
            left = left || take[k];
        }
    }
    if (err.rc == SQLITE_OK) {
        mark_all(n, diff, NULL, &err);
    }
    mm_gate_leave();
    free(take);
    if (busy) {
        return false; /* next turn */
    }
    if (err.rc != SQLITE_OK) { /* a row that this table cannot hold, a full disk: what is written to it may not wait
                                  for ever, unsaid */
        n->tables_tried = false;
        mm_node_tables_failed(n, &err);
        return true;
    }
    (void)snprintf(n->tables_newest, sizeof n->tables_newest, "%s", mm_task_newest(n->task));
    n->tables_tried = !once_more(n, diff) && !left;
    try_later(n);
    return true;
}

void mm_node_tables_failed(struct mm_node *n, const struct mm_err *err)
{
    struct mm_err none;
    mm_err_init(&none);
    if (err->rc != SQLITE_DONE && (err->rc & 0xff) != SQLITE_INTERRUPT) {
        mm_log(n->tables_wait_ms == 0 ? MM_LOG_WARN : MM_LOG_DEBUG, "node %lld: tables wait for a copy: %s",
               (long long)n->config->node_id, err->msg);
    }
    mm_gate_enter();
    mark_all(n, NULL, err->rc != SQLITE_DONE ? err->msg : "no snapshot of the cluster holds its rows yet", &none);
    mm_gate_leave();
    try_later(n);
}
