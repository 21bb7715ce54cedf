#include "node_int.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "repl/commit.h"
#include "store/stray.h"

/* --- one turn of the loop --- */

static void take_from_bus(struct mm_node *n)
{
    struct mm_repl *r = &n->r;
    struct mm_ack ack;
    struct mm_delivery d;
    while (mm_bus_next_ack(r->bus, &ack)) {
        mm_publisher_ack(r, &ack);
    }
    while (mm_applier_room(n->applier) && mm_bus_next(r->bus, &d)) {
        struct mm_shard *s = &r->shard[d.shard - 1];
        if (!s->following) { /* of a reading that was given up */
            mm_bus_release(&d);
            continue;
        }
        if (d.kind == MM_DELIVERY_LOST) {
            mm_applier_drop(n->applier, d.shard);
            s->following = s->checked = false;
            continue;
        }
        struct mm_err err;
        mm_err_init(&err);
        if (d.seq + d.pending > s->end_seq) {
            s->end_seq = d.seq + d.pending;
        }
        if (mm_applier_put(n->applier, &d, &err) != SQLITE_OK) {
            s->following = s->checked = false; /* out of memory: from the position again */
            mm_applier_drop(n->applier, s->n);
        }
    }
}

static void follow_again(struct mm_node *n, int64_t wait_ms)
{
    mm_applier_drop(n->applier, 0);
    for (int k = 0; k < n->r.nshard; k++) {
        n->r.shard[k].following = n->r.shard[k].checked = false;
        mm_publisher_back(&n->r.shard[k], "the log is read again", false);
    }
    n->next_follow_ms = mm_clock_mono_ms() + wait_ms;
}

static void remember(struct mm_node *n, const struct mm_err *err)
{
    (void)pthread_mutex_lock(&n->mu);
    (void)snprintf(n->last_error, sizeof n->last_error, "%s", err->msg);
    (void)pthread_mutex_unlock(&n->mu);
}

/* What was folded here is not in the log, or the log has only gone on without us. */
static enum mm_purpose lost_how(struct mm_node *n)
{
    enum mm_purpose p = MM_FOR_LOST;
    for (int k = 0; k < n->r.nshard; k++) {
        p = n->r.shard[k].behind ? MM_FOR_RESTORE : p;
        n->r.shard[k].behind = false;
    }
    return p;
}

/* Changes when anything is folded. */
static int64_t moved(const struct mm_node *n)
{
    int64_t sum = 0;
    for (int k = 0; k < n->r.nshard; k++) {
        sum += n->r.shard[k].pos.seq;
    }
    return sum;
}

/* Folds one batch. Returns how long to wait before the next, -1 = until
** something comes. */
static int apply(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (!mm_applier_due(n->applier) || mm_clock_mono_ms() < n->not_before_ms) {
        return mm_applier_due(n->applier) ? 2 : -1;
    }
    mm_gate_enter();
    int64_t before = moved(n);
    enum mm_applier_result result = mm_applier_run(n->applier, &err);
    if (result == MM_APPLY_RELOAD) {
        if (err.rc != SQLITE_OK) {
            remember(n, &err);
        }
        follow_again(n, err.rc != SQLITE_OK ? mm_node_not_stored(n, "folding", &err) : 0);
    } else if (result == MM_APPLIED && !mm_repl_dirty(&n->r) && moved(n) != before) {
        mm_node_stored(n);
    }
    mm_gate_leave();
    switch (result) {
    case MM_APPLY_BUSY:
        n->not_before_ms = mm_clock_mono_ms() + 2;
        return 2;
    case MM_APPLY_BLOCKED:
        for (int k = 0; k < n->r.nshard; k++) {
            if (n->r.shard[k].blocked_seq != 0) {
                mm_applier_drop(n->applier, n->r.shard[k].n);
                n->r.shard[k].following = false;
            }
        }
        break;
    case MM_APPLY_EPOCH: /* asks the server whether it counts already */
        n->linked = false;
        n->next_join_ms = 0;
        follow_again(n, 0);
        break;
    case MM_APPLY_LOST:
        n->verdict = mm_node_bring(n, lost_how(n), MM_JOIN_STRICT, &err) ? MM_NODE_JOINING : MM_NODE_DIVERGED;
        n->problem = err;
        n->linked = false; /* but connected: who else is there is to be heard */
        follow_again(n, 0);
        n->next_join_ms = mm_clock_mono_ms() + MM_CONFLICT_MS;
        break;
    default:
        break;
    }
    return mm_applier_due(n->applier) ? 0 : -1;
}

static bool anything_pending(struct mm_node *n)
{
    for (int k = 0; k < n->r.nshard; k++) {
        if (mm_pending_count(n->r.shard[k].pending) > 0) {
            return true;
        }
    }
    return false;
}

static void publish(struct mm_node *n)
{
    struct mm_repl *r = &n->r;
    struct mm_err err;
    mm_err_init(&err);
    mm_gate_enter();
    for (int k = 0; k < r->nshard && err.rc == SQLITE_OK; k++) {
        mm_publisher_check(r, &r->shard[k]);
        mm_publisher_pump(r, &r->shard[k], &err);
    }
    mm_gate_leave();
    int rc = err.rc & 0xff;
    bool never = rc == SQLITE_TOOBIG || rc == SQLITE_MISUSE || rc == SQLITE_CORRUPT || rc == SQLITE_MISMATCH;
    if (rc != SQLITE_OK) {
        remember(n, &err);
        n->publish_problem = never ? err : n->publish_problem;
        for (int k = 0; mm_bus_connected(r->bus) && k < r->nshard; k++) {
            mm_publisher_back(&r->shard[k], err.msg, true);
        }
    } else if (!anything_pending(n)) {
        mm_err_init(&n->publish_problem);
    }
}

/* Echoes, positions and clean-up in one transaction, at most once a second. */
void mm_node_flush(struct mm_node *n, bool now)
{
    struct mm_repl *r = &n->r;
    int64_t ms = mm_clock_mono_ms();
    if (!now && ms < n->next_flush_ms) {
        return;
    }
    n->next_flush_ms = ms + MM_FLUSH_MS;
    struct mm_commit_trim trim = { .look = ms >= n->next_trim_ms,
                                   .keep_ms = n->config->outbox_keep_ms,
                                   .keep_bytes = n->config->outbox_keep_bytes,
                                   .rows = MM_TRIM_ROWS };
    struct mm_err err;
    bool more = false;
    mm_err_init(&err);
    mm_gate_enter();
    enum mm_commit_stored stored = mm_commit_store(r, &trim, &more, &err);
    bool busy = (err.rc & 0xff) == SQLITE_BUSY;
    if (stored == MM_STORED) {
        mm_node_stored(n);
        n->next_trim_ms = trim.look && !more ? ms + n->config->cleanup_interval_ms : n->next_trim_ms;
    } else if (stored == MM_STORED_NOT && (r->reload_needed || !busy)) {
        int wait = mm_node_not_stored(n, "storing the position", &err);
        if (r->reload_needed) {
            follow_again(n, wait);
        }
    }
    mm_gate_leave();
    if (more || busy) {
        n->next_flush_ms = ms + 20;
    }
}

static int smaller(int a, int b)
{
    return a < 0 ? b : b < 0 || a < b ? a : b;
}

/* Until the node is to stop (false) or to sleep (true). */
static bool loop(struct mm_worker *w, struct mm_node *n)
{
    bool sleeps = false;
    for (;;) {
        mm_node_rest(n);
        bool changed = mm_node_changed(n) || mm_worker_awake(w); /* before the look */
        mm_worker_drain(w);
        int wait = changed ? MM_TICK_MS : mm_node_tick(n);
        bool stopping = mm_worker_stopping(w); /* before the look: what was committed until then counts */
        bool sound = !n->r.reload_needed || mm_node_reload(n);
        mm_node_sync_look(n);
        if (sound) {
            mm_node_look(n);
            sound = !n->r.reload_needed;
        }
        if (sound && !n->held && mm_node_link(n)) {
            take_from_bus(n);
            wait = smaller(wait, apply(n));
            publish(n);
            for (int k = 0; k < n->r.nshard; k++) {
                wait = smaller(wait, mm_publisher_timeout(&n->r.shard[k]));
            }
        }
        sound = !n->r.reload_needed; /* what a failed batch left in memory is of no place */
        wait = smaller(wait, mm_node_link_timeout(n));
        mm_node_repair_step(n);
        if (sound) {
            mm_node_task_step(n);
            mm_node_parts_step(n);
        }
        mm_node_tell_state(n);
        mm_node_warn_step(n);
        mm_node_peers_step(n);
        mm_node_http_step(n);
        wait = smaller(wait, mm_node_peers_timeout(n));
        if (sound) {
            mm_node_sync_step(n);
            mm_node_full_step(n);
            mm_node_flush(n, false);
        }
        if (stopping) {
            bool linked = mm_bus_connected(n->r.bus) && n->linked;
            if (!linked || !anything_pending(n) || mm_clock_mono_ms() >= n->drain_until_ms) {
                break;
            }
            wait = smaller(wait, 20);
        }
        if (stopping != mm_worker_stopping(w)) {
            continue; /* one more turn, which looks */
        }
        int awake = mm_node_sleep_timeout(n, changed);
        sleeps = awake == 0 && !stopping;
        if (sleeps) {
            break;
        }
        mm_node_wait(n, smaller(wait, awake));
    }
    mm_node_task_end(n);
    mm_node_flush(n, true);
    mm_node_full_leave(n);
    mm_node_peers_farewell(n);
    return sleeps;
}

static void body(struct mm_worker *w, void *arg)
{
    struct mm_node *n = arg;
    struct mm_err err;
    bool locked = false;
    int wait = 0;
    n->self = w;
    while (!mm_worker_stopping(w)) {
        mm_err_init(&err);
        if (n->notify == NULL) {
            n->notify = mm_notify_open(mm_worker_fd(w), &err);
        }
        if (n->notify == NULL) {
            mm_node_tell(n, MM_NODE_BLOCKED, err.msg);
            (void)poll(NULL, 0, MM_RETRY_MS);
            continue;
        }
        locked = mm_node_elect(n, &wait);
        mm_gate_enter();
        if (n->applier == NULL) {
            mm_node_open_repl(n, &err);
        }
        mm_gate_leave();
        if (err.rc == SQLITE_OK && locked) {
            mm_node_open_bus(n, &err);
        }
        if (err.rc != SQLITE_OK) {
            mm_node_tell(n, MM_NODE_BLOCKED, err.msg);
            mm_node_close_all(n);
            mm_node_wait_standby(n, MM_RETRY_MS);
            continue;
        }
        if (locked) {
            break;
        }
        mm_node_tell(n, MM_NODE_STANDBY,
                     "another process replicates this database; this one captures and takes over "
                     "when that one ends");
        mm_node_sync_standby(n);
        mm_node_publish_status(n);
        mm_node_wait_standby(n, mm_node_sync_waiting(n) ? 20 : wait);
    }
    if (!mm_worker_stopping(w) || n->r.bus != NULL) {
        n->r.reload_needed = true; /* while standing by, another process moved on */
        mm_node_sync_restart(n);
        while (loop(w, n) && mm_node_sleep(n)) {
        }
        mm_gate_enter();
        mm_node_stray_leave(n);
        mm_gate_leave();
    }
    mm_node_close_all(n);
    mm_node_tell(n, MM_NODE_STOPPED, "");
    mm_notify_close(n->notify);
    if (n->lock_fd >= 0) {
        (void)close(n->lock_fd);
        n->lock_fd = -1;
    }
}

/* --- for other threads --- */

/* From here on until the node ends somebody has the database open: SQLite's count
** of its commits goes on (store/stamp.h), whatever the application closes. */
static int open_early(struct mm_node *n, struct mm_err *err)
{
    mm_gate_enter();
    n->r.db = mm_repl_connect(n->path, n->vfs, 0, err);
    if (n->r.db != NULL) {
        (void)mm_db_int(n->r.db, err, 0, "PRAGMA main.user_version");
        mm_node_stray_known(n, err);
    }
    mm_gate_leave();
    return err->rc;
}

struct mm_node *mm_node_open(const char *path, const char *vfs, struct mm_config *config, int64_t incarnation,
                             struct mm_err *err)
{
    struct mm_node *n = calloc(1, sizeof *n);
    if (n == NULL) {
        mm_err_nomem(err);
        mm_config_free(config);
        return NULL;
    }
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&n->told, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&n->mu, NULL);
    n->config = config;
    n->incarnation = incarnation;
    n->epoch = 1;
    n->lock_fd = -1;
    n->state = MM_NODE_STARTING;
    n->verdict = MM_NODE_LIVE;
    mm_err_init(&n->bring_failed);
    n->since_ms = mm_clock_wall_ms();
    n->path = strdup(path);
    n->vfs = vfs != NULL ? strdup(vfs) : NULL;
    if (n->path == NULL || (vfs != NULL && n->vfs == NULL)) {
        mm_err_nomem(err);
    } else if (open_early(n, err) == SQLITE_OK) {
        n->worker = mm_worker_open("marmot", body, n, err);
    }
    if (n->worker == NULL) {
        sqlite3_close(n->r.db);
        free(n->path);
        free(n->vfs);
        mm_config_free(config);
        free(n);
        return NULL;
    }
    return n;
}

void mm_node_close(struct mm_node *n, int drain_ms)
{
    if (n == NULL) {
        return;
    }
    n->drain_until_ms = mm_clock_mono_ms() + drain_ms;
    if (!mm_worker_close(n->worker, drain_ms + 3500)) {
        mm_log(MM_LOG_WARN, "the replication thread of %s did not end in time and is left alone", n->path);
        return;
    }
    (void)pthread_mutex_destroy(&n->mu);
    (void)pthread_cond_destroy(&n->told);
    free(n->shards);
    free(n->tables_json);
    mm_peers_free(&n->peers);
    mm_config_free(n->config);
    free(n->path);
    free(n->vfs);
    free(n);
}

void mm_node_wake(struct mm_node *n)
{
    mm_worker_wake(n->worker);
}
