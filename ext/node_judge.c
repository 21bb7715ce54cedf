/* Whether a copy of the cluster's content may take the place of what is here. */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "node_int.h"
#include "snapshot/install.h"

enum { NOTICE_MS = 1000 }; /* between the warning and a long lock */

static void refuse(struct mm_err *err, const struct mm_node *n, const struct mm_diff_table *d, const char *why)
{
    if (n->task != NULL && mm_task_kind(n->task) == MM_TASK_RECONCILE) {
        mm_err_set(err, SQLITE_MISMATCH, "table %s cannot be compared with the cluster's: %s", d->name, why);
        return;
    }
    mm_err_set(err, SQLITE_MISMATCH, "table %s cannot join cluster %s: %s", d->name, n->config->cluster, why);
}

int mm_node_judge(struct mm_node *n, struct mm_err *err)
{
    const struct mm_diff *diff = mm_task_diff(n->task);
    for (int k = 0; k < diff->n && err->rc == SQLITE_OK; k++) {
        const struct mm_diff_table *d = &diff->table[k];
        bool lacks = d->mode == MM_DIFF_ABSENT || d->mode == MM_DIFF_OTHER;
        bool differs = d->mode == MM_DIFF_KEYS || d->mode == MM_DIFF_ALL;
        bool whole = n->r.joined ? mm_watch_get(n->r.db, d->name, NULL, err) == MM_WATCHED : d->captured;
        if (lacks && whole) {
            refuse(err, n, d, d->why);
        } else if (!n->r.joined && d->captured && differs && d->rows > 0 && n->how == MM_JOIN_STRICT) {
            char why[300];
            (void)snprintf(
                why, sizeof why,
                "its rows differ from the cluster's (%lld only here, %lld only there, %lld with other values):"
                " %s",
                (long long)d->here, (long long)d->there, (long long)d->both,
                n->config->replicate ? "set join to 'adopt' (the cluster's rows) or 'merge' (those only here are kept, "
                                       "too); a copy of this file is kept"
                                     : "set replicate to true until it has joined, or empty it");
            refuse(err, n, d, why);
        }
    }
    return err->rc;
}

bool mm_node_lock_told(struct mm_node *n)
{
    int64_t ms = mm_install_estimate_ms(mm_task_diff(n->task));
    if (ms <= MM_INSTALL_LONG_MS) {
        return true;
    }
    if (n->install_at_ms == 0) {
        n->install_at_ms = mm_clock_mono_ms() + NOTICE_MS;
        mm_work_step(mm_task_work(n->task), "about to hold the write lock for more than 2 s: writers will wait", 0);
        mm_log(
            MM_LOG_WARN,
            "node %lld is about to write the cluster's content: it will hold the database's write lock for some %lld s",
            (long long)n->config->node_id, (long long)(ms + 999) / 1000);
    }
    return mm_clock_mono_ms() >= n->install_at_ms;
}
