/* What was never captured is published, step by step, while the node is held. */
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"

static void finished(struct mm_node *n)
{
    int64_t rows = mm_reconcile_rows(n->reconcile);
    mm_log(
        rows > 0 ? MM_LOG_WARN : MM_LOG_INFO,
        "node %lld: %lld rows had been changed past the capture and are sent now; the write lock was held for %lld ms "
        "at most",
        (long long)n->config->node_id, (long long)rows, (long long)(mm_reconcile_longest_us(n->reconcile) / 1000));
}

bool mm_node_reconcile_step(struct mm_node *n, struct mm_err *err)
{
    bool done = false;
    mm_gate_enter();
    if (n->reconcile == NULL && mm_node_judge(n, err) == SQLITE_OK) {
        struct mm_repl_options o = mm_node_repl_options(n);
        n->reconcile = mm_reconcile_open(mm_task_copy(n->task), n->vfs, &o, mm_task_diff(n->task), 0, err);
    }
    if (n->reconcile != NULL) {
        done = mm_reconcile_step(n->reconcile, &n->r, err);
        if (done && mm_reconcile_complete(n->reconcile)) {
            mm_node_stray_mended(n, err);
        }
    }
    mm_gate_leave();
    if ((err->rc & 0xff) == SQLITE_BUSY) {
        mm_err_init(err); /* the application's writers are at it: next turn */
        return false;
    }
    if (done) {
        finished(n);
    } else if (err->rc == SQLITE_OK) {
        mm_worker_wake(n->self);
    }
    return done || err->rc != SQLITE_OK;
}
