/* Commits that nothing captured: looks for them, counts them, says so. */
#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"
#include "store/outbox.h"
#include "store/stray.h"

enum { LOOK_MS = 100 };

/* Once, until they are mended. */
static void say(struct mm_node *n, int64_t before)
{
    if (n->strays == 0 || before != 0) {
        return;
    }
    char why[MM_STRAY_TEXT];
    mm_node_stray_text(n, why);
    mm_log(MM_LOG_WARN, "node %lld: %s", (long long)n->config->node_id, why);
}

void mm_node_stray_text(const struct mm_node *n, char out[MM_STRAY_TEXT])
{
    const char *s = n->strays == 1 ? " was" : "s were";
    if (!n->config->publish) {
        sqlite3_snprintf(MM_STRAY_TEXT, out,
                         "publish is false: %lld commit%s not captured, and what they wrote stays on this node alone",
                         (long long)n->strays, s);
    } else if (n->guards_stopped) {
        sqlite3_snprintf(MM_STRAY_TEXT, out,
                         "triggers stopped noting changes while no program with libmarmot ran, at outbox_max_bytes "
                         "(%lld): reconcile is due; until marmot_reconcile() has sent what was written since, this "
                         "node takes no snapshot",
                         (long long)n->config->outbox_max_bytes);
    } else {
        sqlite3_snprintf(MM_STRAY_TEXT, out,
                         "%lld commit%s not captured (a program without libmarmot wrote, or DDL or VACUUM ran): until "
                         "marmot_reconcile() has sent what they wrote this node takes no snapshot",
                         (long long)n->strays, s);
    }
}

void mm_node_stray_open(struct mm_node *n, struct mm_err *err)
{
    n->stamping = mm_head_capturing(n->r.db, err) != MM_CAPTURING;
    n->stray_end = (struct mm_inbox_end){ 0 };
    say(n, 0); /* what an earlier process left */
}

/* mu is for the readers in other threads. */
static void set(struct mm_node *n, int64_t count, bool stopped)
{
    int64_t before = n->strays;
    (void)pthread_mutex_lock(&n->mu);
    n->strays = count;
    n->guards_stopped = stopped;
    (void)pthread_mutex_unlock(&n->mu);
    say(n, before);
    if (count != before) {
        n->told_moved = -1; /* news for the status */
    }
}

void mm_node_stray_read(struct mm_node *n, struct mm_err *err)
{
    int64_t count = mm_stray_count(n->r.db, err);
    bool stopped = count > 0 && mm_stray_were_stopped(n->r.db, err);
    if (err->rc == SQLITE_OK) {
        set(n, count, stopped);
    }
}

void mm_node_stray_known(struct mm_node *n, struct mm_err *err)
{
    n->strays = mm_stray_count(n->r.db, err);
    n->guards_stopped = n->strays > 0 && mm_stray_were_stopped(n->r.db, err);
}

static void end(sqlite3 *db, bool begun, struct mm_err *err)
{
    if (begun) {
        mm_stray_end(db, err);
    }
}

void mm_node_stray_look(struct mm_node *n, struct mm_err *err)
{
    sqlite3 *db = n->r.db;
    int64_t now = mm_clock_mono_ms();
    if (!n->stamping || err->rc != SQLITE_OK || (now < n->next_stray_ms && !mm_worker_stopping(n->self))) {
        return;
    }
    n->next_stray_ms = now + LOOK_MS;
    if (mm_stray_due(db, &n->stray_end, err)) {
        int64_t more = 0;
        mm_db_exec(db, err, "BEGIN IMMEDIATE");
        bool begun = err->rc == SQLITE_OK;
        mm_stray_record(db, &more, err);
        end(db, begun, err);
    }
    mm_node_stray_read(n, err);
}

int mm_node_stray_begin(struct mm_node *n, enum mm_task_kind kind, struct mm_err *err)
{
    /* A new epoch begins with all that is here; and marmot_reconcile() needs the log that is gone. */
    bool gives = kind == MM_TASK_SNAPSHOT || kind == MM_TASK_KEEP || (kind == MM_TASK_SEED && !n->config->publish);
    struct mm_err none;
    mm_err_init(&none);
    mm_gate_enter();
    n->next_stray_ms = 0;
    mm_node_stray_look(n, gives ? err : &none);
    mm_node_stray_read(n, gives ? err : &none);
    mm_gate_leave();
    n->strays_found = n->strays; /* of what has been committed until now */
    if (gives && n->strays > 0) {
        char why[MM_STRAY_TEXT];
        mm_node_stray_text(n, why);
        mm_err_set(err, SQLITE_ERROR, "%s", why);
    }
    return err->rc;
}

void mm_node_stray_mended(struct mm_node *n, struct mm_err *err)
{
    sqlite3 *db = n->r.db;
    if (n->strays_found > 0) {
        mm_db_exec(db, err, "BEGIN IMMEDIATE");
        bool begun = err->rc == SQLITE_OK;
        mm_stray_mended(db, n->strays_found, err);
        end(db, begun, err);
        mm_node_stray_read(n, err);
    }
}

void mm_node_stray_leave(struct mm_node *n)
{
    if (n->stamping && n->r.db != NULL) {
        mm_stray_leave(n->r.db);
    }
}
