#include <time.h>

#include "base/clock.h"
#include "node_int.h"

enum { REPAIR_MS = 10000 };

static int ask(struct mm_node *n, int shard, int64_t seq, bool skip, struct mm_err *err)
{
    struct mm_repair q = { .shard = shard, .seq = seq, .skip = skip };
    struct timespec until;
    mm_err_init(&q.err);
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += REPAIR_MS / 1000;
    (void)pthread_mutex_lock(&n->mu);
    if (n->repair != NULL) {
        mm_err_set(&q.err, SQLITE_BUSY, "another marmot_retry or marmot_skip is under way: try again");
    } else if (n->state == MM_NODE_STANDBY) {
        mm_err_set(&q.err, SQLITE_ERROR, "another process replicates this database: call it there");
    } else {
        n->repair = &q;
        mm_worker_wake(n->worker);
        int rc = 0;
        while (!q.done && rc == 0) {
            rc = pthread_cond_timedwait(&n->told, &n->mu, &until);
        }
        n->repair = NULL;
        if (!q.done) {
            mm_err_set(&q.err, SQLITE_BUSY, "the replication thread is busy: try again");
        }
    }
    (void)pthread_mutex_unlock(&n->mu);
    if (q.err.rc != SQLITE_OK) {
        *err = q.err;
    }
    return err->rc;
}

int mm_node_retry(struct mm_node *n, int shard, int64_t seq, struct mm_err *err)
{
    return ask(n, shard, seq, false, err);
}

int mm_node_skip(struct mm_node *n, int shard, int64_t seq, struct mm_err *err)
{
    return ask(n, shard, seq, true, err);
}

/* mu held on entry. */
static void repair(struct mm_node *n, struct mm_repair *q)
{
    struct mm_shard *s = q->shard >= 1 && q->shard <= n->r.nshard ? &n->r.shard[q->shard - 1] : NULL;
    if (s == NULL || s->blocked_seq == 0 || s->blocked_seq != q->seq) {
        mm_err_set(&q->err, SQLITE_ERROR,
                   "message %d:%lld does not block a shard of this node: marmot_status() shows what does as blocked_id",
                   q->shard, (long long)q->seq);
        return;
    }
    s->skip_seq = q->skip ? s->blocked_seq : 0;
    s->blocked_seq = 0;
    s->following = s->checked = false;
    mm_applier_drop(n->applier, s->n);
    n->verdict = MM_NODE_LIVE;
    n->state = MM_NODE_JOINING; /* a sync that follows at once does not meet the old verdict */
    mm_err_init(&n->problem);
    n->next_follow_ms = 0;
}

void mm_node_repair_step(struct mm_node *n)
{
    (void)pthread_mutex_lock(&n->mu);
    if (n->repair != NULL && !n->repair->done) {
        repair(n, n->repair);
        n->repair->done = true;
        (void)pthread_cond_broadcast(&n->told);
    }
    (void)pthread_mutex_unlock(&n->mu);
}
