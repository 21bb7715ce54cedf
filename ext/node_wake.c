/* What the node's thread waits for. Commits of this process wake it by its
** eventfd. Those of other processes are seen as writes to the write-ahead log,
** the end of the replicating process as the close of its lock file; where the
** system cannot tell, the clock serves. */
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "node_int.h"

enum {
    SAFETY_MS = 1000,      /* the clock, where the system tells of events */
    BUSY_MS = 1500,        /* so long after something happened the loop turns by MM_TICK_MS */
    PEEK_FIRST_US = 1000,  /* a write was seen: its commit follows, at the latest after the disk's sync */
    PEEK_LAST_US = 512000, /* doubled up to this, then given up */
};

/* Turns that come fast are slowed down: each one reads the database, and beside
** an application that commits every few microseconds the two threads would do
** little but wait for each other inside SQLite. The first turn after a quiet
** time is not delayed. */
void mm_node_rest(struct mm_node *n)
{
    int64_t gap = n->linked ? MM_GAP_US : MM_GAP_OFFLINE_US;
    int64_t left = n->last_turn_us + gap - mm_clock_mono_us();
    if (left > 0 && left <= gap && !mm_worker_stopping(n->self)) {
        struct timespec ts = { .tv_sec = 0, .tv_nsec = (long)left * 1000 };
        (void)nanosleep(&ts, NULL);
    }
    n->last_turn_us = mm_clock_mono_us();
}

bool mm_node_changed(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_gate_enter();
    if (n->version_stmt == NULL) {
        n->version_stmt = mm_db_prepare(n->r.db, &err, SQLITE_PREPARE_PERSISTENT, "PRAGMA main.data_version");
    }
    int64_t version = -1;
    if (mm_db_step(n->version_stmt, &err)) {
        version = sqlite3_column_int64(n->version_stmt, 0);
    }
    if (n->version_stmt != NULL) {
        (void)sqlite3_reset(n->version_stmt);
    }
    mm_gate_leave();
    bool changed = version != n->version || version < 0;
    n->version = version;
    return changed;
}

static void watch_log(struct mm_node *n)
{
    const char *file = sqlite3_db_filename(n->r.db, "main");
    const char *log = file != NULL ? sqlite3_filename_wal(file) : NULL;
    if (log != NULL && !n->log_watched) {
        n->log_watched = mm_notify_watch(n->notify, log, MM_NOTIFY_WRITTEN);
    }
    n->log_watched = n->log_watched && mm_notify_works(n->notify);
}

/* Nothing is under way that only the clock brings on. */
static bool quiet(struct mm_node *n, int64_t now)
{
    if (!n->log_watched || n->watch_due || n->task != NULL || now < n->busy_until_ms || mm_node_sync_waiting(n)) {
        return false;
    }
    for (int k = 0; n->linked && k < n->r.nshard; k++) {
        if (mm_pending_count(n->r.shard[k].pending) > 0) {
            return false;
        }
    }
    return !n->linked || !mm_repl_dirty(&n->r);
}

int mm_node_tick(struct mm_node *n)
{
    watch_log(n);
    return quiet(n, mm_clock_mono_ms()) ? SAFETY_MS : MM_TICK_MS;
}

void mm_node_wait(struct mm_node *n, int wait_ms)
{
    int64_t now = mm_clock_mono_us();
    int64_t end = now + (int64_t)wait_ms * 1000;
    struct mm_err err;
    /* What was written before the watch began anew may be committed, or about to be. */
    if (n->peek_at_us == 0 && mm_notify_arm(n->notify)) {
        if (mm_node_changed(n)) {
            n->busy_until_ms = now / 1000 + BUSY_MS;
            return;
        }
        n->peek_step_us = PEEK_FIRST_US;
        n->peek_at_us = now + PEEK_FIRST_US;
    }
    for (;;) {
        int64_t until = n->peek_at_us != 0 && n->peek_at_us < end ? n->peek_at_us : end;
        mm_err_init(&err);
        mm_bus_wait(n->r.bus, until > now ? (int)((until - now + 999) / 1000) : 0, &err);
        now = mm_clock_mono_us();
        bool event = !mm_worker_awake(n->self) && mm_notify_take(n->notify);
        bool peek = n->peek_at_us != 0 && now >= n->peek_at_us;
        if (!event && !peek) {
            n->busy_until_ms = now < end ? now / 1000 + BUSY_MS : n->busy_until_ms;
            return;
        }
        if (mm_node_changed(n)) {
            n->peek_at_us = 0;
            n->busy_until_ms = now / 1000 + BUSY_MS;
            return;
        }
        n->peek_step_us = event ? PEEK_FIRST_US : n->peek_step_us * 2;
        n->peek_at_us = n->peek_step_us <= PEEK_LAST_US ? now + n->peek_step_us : 0;
        if (!event) {
            (void)mm_notify_arm(n->notify);
        }
        if (now >= end) {
            return;
        }
    }
}

void mm_node_wait_standby(struct mm_node *n, int wait_ms)
{
    struct pollfd p = { .fd = mm_notify_fd(n->notify), .events = POLLIN };
    (void)mm_notify_arm(n->notify);
    (void)poll(&p, 1, wait_ms);
    (void)mm_notify_take(n->notify);
    mm_worker_drain(n->self);
}

bool mm_node_elect(struct mm_node *n, int *wait_ms)
{
    if (mm_node_take_lock(n)) {
        return true;
    }
    bool watched = mm_notify_works(n->notify);
    char *name = watched ? NULL : mm_buf_text("%s-marmot-lock", n->path);
    if (name != NULL) {
        mm_notify_watch(n->notify, name, MM_NOTIFY_CLOSED);
    }
    free(name);
    *wait_ms = mm_notify_works(n->notify) ? SAFETY_MS : MM_STANDBY_MS;
    return !watched && mm_node_take_lock(n); /* it may have been let go before the watch */
}
