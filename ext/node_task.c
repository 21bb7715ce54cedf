/* Long work of a node: snapshots, and copies of the cluster's content that take
** the place of what is here. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"
#include "snapshot/install.h"

enum { BRING_MS = 1000, BRING_MOST_MS = 60000, WAIT_MS = 250, WAIT_MOST_MS = 2000, ANSWER_MAX = 1 << 20 };

/* --- callers of SQL functions --- */

static int call(struct mm_node *n, enum mm_task_kind kind, struct mm_buf *out, struct mm_err *err)
{
    struct mm_call c = { .kind = kind };
    mm_err_init(&c.err);
    mm_buf_init(&c.answer, ANSWER_MAX);
    (void)pthread_mutex_lock(&n->mu);
    struct mm_call **at = &n->calls;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = &c;
    mm_worker_wake(n->worker);
    while (!c.done) {
        if (n->state == MM_NODE_STANDBY) {
            mm_err_set(&c.err, SQLITE_ERROR, "another process replicates this database: call it there");
        } else if (n->state == MM_NODE_STOPPED) {
            mm_err_set(&c.err, SQLITE_ERROR, "the node was stopped");
        }
        if (c.err.rc != SQLITE_OK) {
            break;
        }
        (void)pthread_cond_wait(&n->told, &n->mu);
    }
    for (at = &n->calls; *at != NULL && *at != &c;) {
        at = &(*at)->next;
    }
    if (*at == &c) {
        *at = c.next;
    }
    (void)pthread_mutex_unlock(&n->mu);
    mm_buf_add(out, c.answer.data, c.answer.len);
    mm_buf_free(&c.answer);
    *err = c.err;
    return err->rc;
}

int mm_node_snapshot(struct mm_node *n, struct mm_buf *out, struct mm_err *err)
{
    return call(n, MM_TASK_SNAPSHOT, out, err);
}

int mm_node_restore(struct mm_node *n, struct mm_buf *out, struct mm_err *err)
{
    return call(n, MM_TASK_BRING, out, err);
}

int mm_node_reconcile(struct mm_node *n, struct mm_buf *out, struct mm_err *err)
{
    return call(n, MM_TASK_RECONCILE, out, err);
}

/* Answers those who wait for what has ended; `all`: those who have not begun, too. */
static void answer(struct mm_node *n, bool all, enum mm_task_kind kind, const struct mm_err *err)
{
    (void)pthread_mutex_lock(&n->mu);
    for (struct mm_call *c = n->calls; c != NULL; c = c->next) {
        if (c->done || (!all && (!c->begun || c->kind != kind))) {
            continue;
        }
        if (err->rc != SQLITE_OK) {
            c->err = *err;
        } else if (kind == MM_TASK_RECONCILE) {
            mm_reconcile_answer(n->reconcile, &c->answer);
        } else {
            mm_manifest_answer(mm_task_manifest(n->task), mm_task_ms(n->task), &c->answer);
        }
        c->done = true;
    }
    (void)pthread_cond_broadcast(&n->told);
    (void)pthread_mutex_unlock(&n->mu);
}

/* The kind of work that somebody waits for and that has not begun: true. */
static bool wanted(struct mm_node *n, enum mm_task_kind *kind)
{
    bool found = false;
    (void)pthread_mutex_lock(&n->mu);
    for (struct mm_call *c = n->calls; c != NULL && !found; c = c->next) {
        if (!c->begun && !c->done) {
            *kind = c->kind;
            found = true;
        }
    }
    for (struct mm_call *c = n->calls; c != NULL && found; c = c->next) {
        c->begun = c->begun || c->kind == *kind;
    }
    (void)pthread_mutex_unlock(&n->mu);
    return found;
}

/* --- beginning and ending --- */

static void wake(void *arg)
{
    mm_worker_wake(arg);
}

static int begin(struct mm_node *n, enum mm_task_kind kind, bool lost, bool need_snapshot, uint64_t token,
                 struct mm_err *err)
{
    bool may_do_without =
        kind == MM_TASK_RECONCILE || kind == MM_TASK_TABLES || (kind == MM_TASK_BRING && !need_snapshot);
    if (!n->config->snapshot.enabled && !may_do_without) {
        return mm_err_set(err, SQLITE_ERROR, "snapshot.enabled is false in the configuration");
    }
    if (mm_node_stray_begin(n, kind, err) != SQLITE_OK) {
        return err->rc;
    }
    bool any = n->rejoining != MM_REJOIN_NOT; /* whatever the cluster has now */
    int64_t epoch = n->r.joined && !any && n->r.epoch > n->r.newest_epoch ? n->r.epoch : n->r.newest_epoch;
    n->task_bus = mm_node_bus_options(n);
    n->task_store = mm_node_store_options(n);
    n->task_join = mm_node_join_options(n);
    struct mm_task_options o = {
        .kind = kind,
        .path = n->path,
        .vfs = n->vfs,
        .repl = mm_node_repl_options(n),
        .bus = &n->task_bus,
        .store = n->config->snapshot.enabled ? &n->task_store : NULL,
        .cluster_id = n->r.cluster_id,
        .keep_log = mm_node_keep(n, err),
        .lost = lost,
        .need_snapshot = need_snapshot || epoch > 1,
        .epoch = epoch,
        .keep = n->how != MM_JOIN_STRICT,
        .keep_always = any,
        .join = &n->task_join,
        .token = token,
        .tried = n->tables_tried ? n->tables_newest : NULL,
        .newcomer = !n->r.joined,
        .watch_all = n->watch_all,
        .wake = wake,
        .arg = n->self,
    };
    struct mm_task *t = mm_task_open(&o, err);
    (void)pthread_mutex_lock(&n->mu);
    n->task = t;
    (void)pthread_mutex_unlock(&n->mu);
    return err->rc;
}

bool mm_node_task_begin(struct mm_node *n, enum mm_task_kind kind, struct mm_err *err)
{
    n->how = kind == MM_TASK_TABLES ? n->config->join : MM_JOIN_STRICT;
    mm_node_flush(n, true); /* a snapshot is of the place that the database names */
    if (kind == MM_TASK_KEEP && (n->r.reload_needed || mm_repl_dirty(&n->r))) {
        mm_err_set(err, SQLITE_BUSY, "the database is locked by its application");
        return false;
    }
    return begin(n, kind, false, kind == MM_TASK_BRING, 0, err) == SQLITE_OK;
}

bool mm_node_task_seed(struct mm_node *n, uint64_t token, struct mm_err *err)
{
    n->how = MM_JOIN_STRICT;
    return begin(n, MM_TASK_SEED, false, true, token, err) == SQLITE_OK;
}

static void go_on(struct mm_node *n)
{
    if (n->held) {
        n->held = false;
        n->next_join_ms = n->next_follow_ms = n->next_connect_ms = 0;
        n->linked = false;
    }
}

void mm_node_task_close(struct mm_node *n)
{
    struct mm_task *t = n->task;
    mm_gate_enter();
    mm_reconcile_close(n->reconcile);
    n->reconcile = NULL;
    mm_gate_leave();
    (void)pthread_mutex_lock(&n->mu);
    n->task = NULL;
    (void)pthread_mutex_unlock(&n->mu);
    n->install_at_ms = 0;
    mm_task_close(t);
    go_on(n);
}

/* From here on nothing is folded or sent. */
static void hold(struct mm_node *n)
{
    if (!n->held) {
        n->held = true;
        mm_applier_drop(n->applier, 0);
        for (int k = 0; k < n->r.nshard; k++) {
            n->r.shard[k].following = n->r.shard[k].checked = false;
            mm_publisher_back(&n->r.shard[k], "a copy of the cluster's content is compared", false);
        }
    }
}

bool mm_node_bring(struct mm_node *n, enum mm_purpose p, enum mm_join_mode how, const struct mm_err *why)
{
    struct mm_err err;
    mm_err_init(&err);
    if (n->task != NULL) {
        return true; /* that one, or once it is over */
    }
    if (mm_clock_mono_ms() < n->next_bring_ms) {
        return false;
    }
    n->how = n->config->replicate ? how : MM_JOIN_STRICT;
    if (begin(n, MM_TASK_BRING, p == MM_FOR_LOST || p == MM_FOR_EPOCH, false, 0, &err) != SQLITE_OK) {
        mm_log(MM_LOG_WARN, "node %lld: %s", (long long)n->config->node_id, err.msg);
        n->bring_hopeless = true;
        return false;
    }
    if (n->bring_wait_ms == 0) {
        mm_log(MM_LOG_INFO, "node %lld brings in the cluster's content: %s", (long long)n->config->node_id, why->msg);
    }
    n->purpose = p;
    n->bring_why = *why;
    hold(n);
    return true;
}

/* --- what becomes of a copy --- */

void mm_node_brought(struct mm_node *n)
{
    mm_log(MM_LOG_INFO, "node %lld has the cluster's content of position %lld", (long long)n->config->node_id,
           (long long)n->r.shard[0].pos.seq);
    n->verdict = MM_NODE_LIVE;
    mm_node_stored(n);
    n->bring_wait_ms = 0;
    n->next_bring_ms = 0;
    n->bring_hopeless = false;
    n->snap_known = false; /* they may be of another epoch */
    mm_err_init(&n->problem);
    mm_err_init(&n->bring_failed);
}

static bool hopeless(const struct mm_err *err)
{
    int rc = err->rc & 0xff;
    return rc == SQLITE_NOTFOUND || rc == SQLITE_MISMATCH || rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB ||
           rc == SQLITE_ERROR;
}

static void failed(struct mm_node *n, const struct mm_err *err)
{
    if (n->purpose == MM_FOR_CALL) { /* whoever called is told; the node goes on as it was */
        mm_log(MM_LOG_WARN, "node %lld: marmot_restore failed: %s", (long long)n->config->node_id, err->msg);
        mm_node_task_close(n);
        return;
    }
    bool waits = err->rc == SQLITE_EMPTY;
    int most = waits ? WAIT_MOST_MS : BRING_MOST_MS;
    n->bring_wait_ms = n->bring_wait_ms == 0 ? (waits ? WAIT_MS : BRING_MS) : n->bring_wait_ms * 2;
    n->bring_wait_ms = n->bring_wait_ms > most ? most : n->bring_wait_ms;
    n->next_bring_ms = mm_clock_mono_ms() + n->bring_wait_ms;
    if (strcmp(n->bring_failed.msg, err->msg) != 0) {
        mm_log(MM_LOG_WARN, "node %lld: the cluster's content could not be brought in: %s",
               (long long)n->config->node_id, err->msg);
    }
    mm_node_task_close(n);
    n->next_join_ms = n->next_bring_ms;
    n->problem = err->rc == SQLITE_NOTFOUND && n->bring_why.rc != SQLITE_OK ? n->bring_why : *err;
    n->bring_failed = n->problem;
    n->bring_hopeless = hopeless(err);
    n->verdict = !n->bring_hopeless ? MM_NODE_JOINING : n->r.joined ? MM_NODE_DIVERGED : MM_NODE_JOIN_CONFLICT;
}

static void ready(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_install in = {
        .work = mm_task_work(n->task),
        .copy = mm_task_copy(n->task),
        .diff = mm_task_diff(n->task),
        .watch_all = n->watch_all,
        .merge = n->how == MM_JOIN_MERGE,
        .positions = !n->config->replicate,
        .give_up = n->rejoining == MM_REJOIN_ADOPT,
        .fresh = n->r.joined && (n->rejoining != MM_REJOIN_NOT || mm_task_manifest(n->task)->epoch > n->r.epoch),
        .cluster_id = n->r.cluster_id,
    };
    int64_t given_up = 0;
    (void)mm_task_kept(n->task, &in.upto);
    char cluster_id[sizeof n->r.cluster_id];
    memcpy(cluster_id, n->r.cluster_id, sizeof cluster_id);
    in.cluster_id = cluster_id;
    mm_gate_enter();
    bool wait = mm_node_judge(n, &err) == SQLITE_OK && !mm_node_lock_told(n);
    if (err.rc == SQLITE_OK && !wait) {
        mm_install_run(&n->r, &in, &given_up, &err);
    }
    mm_gate_leave();
    if (wait || (err.rc & 0xff) == SQLITE_BUSY) {
        return; /* next turn: readers of the status first, or writers */
    }
    if (err.rc == SQLITE_OK) {
        mm_task_brought(n->task);
        mm_node_brought(n);
        mm_node_rejoin_brought(n, given_up);
    } else {
        failed(n, &err);
        mm_node_rejoin_failed(n, &err);
    }
    answer(n, false, MM_TASK_BRING, &err);
    if (n->task != NULL) {
        mm_node_task_close(n);
    }
}

static void task_failed(struct mm_node *n, enum mm_task_kind kind, const struct mm_err *err)
{
    answer(n, false, kind, err);
    if (kind == MM_TASK_BRING) {
        failed(n, err);
        mm_node_rejoin_failed(n, err);
    } else if (kind == MM_TASK_SEED) {
        mm_node_rejoin_failed(n, err);
    } else if (kind == MM_TASK_TABLES) {
        mm_node_tables_failed(n, err);
    } else if (kind == MM_TASK_KEEP) {
        mm_node_kept(n, err);
    } else {
        mm_log(MM_LOG_WARN, "node %lld: %s failed: %s", (long long)n->config->node_id,
               kind == MM_TASK_RECONCILE ? "marmot_reconcile" : "the snapshot", err->msg);
    }
    if (n->task != NULL) {
        mm_node_task_close(n);
    }
}

/* The node stands still, and its database says where. */
static void stand(struct mm_node *n)
{
    int64_t at[MM_SHARDS_MAX] = { 0 };
    hold(n);
    mm_node_flush(n, true);
    if (n->r.reload_needed || mm_repl_dirty(&n->r)) {
        return; /* busy: next turn */
    }
    enum mm_task_kind kind = mm_task_kind(n->task);
    if (kind == MM_TASK_TABLES || kind == MM_TASK_BRING) {
        struct mm_err err;
        mm_err_init(&err);
        mm_gate_enter();
        mm_join_compare(&n->r, &err);
        mm_gate_leave();
        if ((err.rc & 0xff) == SQLITE_BUSY) {
            return;
        }
        if (err.rc != SQLITE_OK) { /* a full disk for one: it would stand still for ever, unsaid */
            task_failed(n, kind, &err);
            return;
        }
    }
    for (int k = 0; k < n->r.nshard; k++) {
        at[k] = n->r.shard[k].pos.seq;
    }
    mm_task_held(n->task, at);
}

static void begin_wanted(struct mm_node *n)
{
    enum mm_task_kind kind;
    struct mm_err err;
    mm_err_init(&err);
    if (!wanted(n, &kind)) {
        return;
    }
    if (!n->r.joined || n->verdict != MM_NODE_LIVE) {
        mm_err_set(&err, SQLITE_ERROR, "the node is not part of its cluster at the moment: see marmot_status()");
    }
    bool sends = kind == MM_TASK_SNAPSHOT || kind == MM_TASK_RECONCILE;
    for (int k = 0; k < n->r.nshard && sends; k++) {
        if (n->r.shard[k].blocked_seq != 0) {
            mm_err_set(&err, SQLITE_ERROR, "a message blocks this node: see marmot_status()");
        }
    }
    if (sends && !(n->config->publish && n->config->replicate)) {
        mm_err_set(&err, SQLITE_ERROR, "a node with publish or replicate false may not %s",
                   kind == MM_TASK_SNAPSHOT ? "take snapshots" : "publish what it finds");
    }
    if (kind == MM_TASK_BRING && !n->config->replicate) {
        mm_err_set(&err, SQLITE_ERROR, "replicate is false in the configuration: this node takes no content of others");
    }
    if (kind == MM_TASK_RECONCILE && n->r.move_due != 0) {
        mm_err_set(&err, SQLITE_BUSY, "this database was set back and is being brought up to the log: try again");
    }
    if (err.rc == SQLITE_OK) {
        n->purpose = MM_FOR_CALL;
        mm_node_task_begin(n, kind, &err);
    }
    if (err.rc != SQLITE_OK) {
        answer(n, false, kind, &err);
    }
}

void mm_node_task_step(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (n->task == NULL) {
        mm_node_rejoin_step(n);
        if (n->task == NULL) {
            begin_wanted(n);
        }
        if (n->task == NULL) {
            mm_node_tables_step(n);
        }
        if (n->task == NULL) {
            mm_node_keep_step(n);
        }
        return;
    }
    enum mm_task_kind kind = mm_task_kind(n->task);
    enum mm_task_state state = mm_task_state(n->task, &err);
    n->keep_ended = n->keep_ended || (kind == MM_TASK_KEEP && state == MM_TASK_DONE);
    switch (state) {
    case MM_TASK_WORKING:
        break;
    case MM_TASK_HOLD:
        stand(n);
        break;
    case MM_TASK_READY:
        if (kind == MM_TASK_SEED) {
            mm_node_rejoin_ready(n);
        } else if (kind == MM_TASK_TABLES) {
            if (mm_node_tables_ready(n)) {
                mm_node_task_close(n);
            }
        } else if (kind != MM_TASK_RECONCILE) {
            ready(n);
        } else if (mm_node_reconcile_step(n, &err)) {
            answer(n, false, kind, &err);
            mm_node_task_close(n);
        }
        break;
    case MM_TASK_DONE:
        mm_node_kept(n, &err);
        answer(n, false, kind, &err);
        mm_node_task_close(n);
        break;
    case MM_TASK_FAILED:
        task_failed(n, kind, &err);
        break;
    }
}

void mm_node_task_end(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_err_set(&err, SQLITE_INTERRUPT, "the node was stopped");
    answer(n, true, MM_TASK_SNAPSHOT, &err);
    mm_node_rejoin_failed(n, &err);
    if (n->task != NULL) {
        mm_node_task_close(n);
    }
}
