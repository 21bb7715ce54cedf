/* One message of a second reading of the log (replay.c), in the batch's transaction. */
#include "repl/applier_int.h"
#include "repl/join.h"

/* Leaves the tables that are joining: pending on others is none of a replay's business. */
static void keep_joining(struct mm_repl *r, const struct mm_shard *s, struct mm_txn *txn, struct mm_err *err)
{
    size_t kept = 0;
    for (size_t k = 0; k < txn->ntab && err->rc == SQLITE_OK; k++) {
        const struct mm_target *t = mm_targets_get(r->targets, txn->tab[k].name, err);
        if (t != NULL && t->state == MM_JOINING && mm_join_takes_part(s, t->name)) {
            txn->tab[kept++] = txn->tab[k];
        }
    }
    txn->ntab = kept;
}

int mm_applier_again(struct mm_applier *a, struct mm_shard *s, struct mm_item *it, struct mm_err *err)
{
    struct mm_msg *m = &it->msg;
    if (it->d.seq != s->replay_seq + 1) {
        return mm_join_replay_failed(a->r, s, err);
    }
    s->replay_seq = it->d.seq;
    if (it->bad.rc == SQLITE_OK && m->kind == MM_MSG_FOUNDED) {
        return mm_join_replayed(a->r, s, m, it->d.seq, err);
    }
    if (it->bad.rc == SQLITE_OK && m->kind == MM_MSG_SEEDED && m->epoch > 1 && m->epoch == a->r->epoch) {
        return mm_join_replay_epoch(a->r, s, it->d.seq, err);
    }
    if (it->bad.rc != SQLITE_OK) {
        return err->rc;
    }
    const struct mm_origin *last = mm_accept_last(s->replay, m->node, m->incarnation, err);
    if (last == NULL || mm_fold_accept(m, a->r->epoch, last) != MM_ACCEPT) {
        return err->rc;
    }
    if (m->kind == MM_MSG_WATCH) {
        mm_join_replayed(a->r, s, m, it->d.seq, err);
        return mm_accept_take(s->replay, m, err);
    }
    if (m->kind == MM_MSG_POLICY || m->kind == MM_MSG_ENDED) {
        mm_join_replay_control(a->r, s, m, err);
        return mm_accept_take(s->replay, m, err);
    }
    struct mm_txn joined = { 0 };
    struct mm_buf body;
    mm_buf_init(&body, MM_WIRE_TXN_MAX);
    struct mm_txn *txn = &m->txn;
    if (m->kind == MM_MSG_PART) {
        txn = mm_join_replay_part(a->r, s, m, &it->arena, &body, &joined, err) ? &joined : NULL;
    }
    if (txn != NULL && err->rc == SQLITE_OK) {
        keep_joining(a->r, s, txn, err);
        mm_pending_undo(s->pending, mm_pending_overlap(s->pending, txn, err), err);
        struct mm_apply_how how = {
            .shard = s->n, .seq = it->d.seq, .node = m->node, .all = true, .policies = &s->policies, .replay = true
        };
        mm_apply_txn(a->r->db, a->r->targets, txn, &how, err);
        mm_accept_take(s->replay, m, err);
    }
    mm_buf_free(&body);
    return err->rc;
}
