#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "snapshot/install_int.h"
#include "store/meta.h"

static bool must_hold_all(const struct mm_install *in)
{
    return in->fresh && !in->merge && !in->give_up;
}

/* Highest outbox ids that the log had of this node's incarnations, against what
** it has now: what lies between is sent again. */
static void send_again(struct mm_repl *r, const struct mm_install *in, struct mm_err *err)
{
    int64_t from = mm_position_lost_outbox(r->db, "copy", r->node, err);
    int64_t gone = mm_outbox_gone(r->db, err);
    if (from >= 0 && gone > from && must_hold_all(in)) {
        mm_err_set(err, SQLITE_MISMATCH,
                   "the new epoch lacks changes of this node that its outbox no longer holds (up to outbox id %lld, "
                   "from %lld on)",
                   (long long)gone, (long long)from + 1);
    } else if (from >= 0 && gone > from && !in->give_up && !in->merge) {
        mm_err_set(err, SQLITE_MISMATCH,
                   "the log has lost changes of this node that its outbox no longer holds (up to outbox id %lld, from "
                   "%lld on): bring back the server's store, or make outbox_keep longer than the server may lose",
                   (long long)gone, (long long)from + 1);
    } else if (from >= 0) {
        if (!in->give_up) {
            mm_log(MM_LOG_WARN, "the log has lost changes of this node: what the outbox kept of them is sent again");
        }
        mm_outbox_unecho(r->db, from, err);
    }
}

/* Of a new epoch: what other nodes' changes it lacks nobody here could send again. */
static void check_holds_all(struct mm_repl *r, const struct mm_install *in, struct mm_err *err)
{
    char *what = must_hold_all(in) ? mm_position_exceeds(r->db, "copy", r->node, err) : NULL;
    if (what != NULL) {
        mm_err_set(err, SQLITE_MISMATCH, "this node holds changes that the cluster's new epoch does not: %s", what);
    }
    sqlite3_free(what);
}

/* The copy gives numbers of this incarnation to transactions that are not pending here: the
** file was set back to before them. What is pending is told by its txid then, not by numbers
** that others of it had. */
static void look_set_back(struct mm_repl *r, struct mm_shard *s, int64_t incarnation, bool current, struct mm_err *err)
{
    struct mm_origin now;
    uint8_t txid[MM_TXID_SIZE];
    const struct mm_origin *had = mm_accept_last(s->accept, r->node, incarnation, err);
    if (had == NULL || !mm_origin_get(r->db, "copy", s->n, r->node, incarnation, &now, err) || now.seq <= had->seq) {
        return;
    }
    int64_t seq = had->seq;
    bool other = false;
    for (size_t k = 0; k < mm_pending_count(s->pending); k++) {
        const struct mm_pend *e = mm_pending_at(s->pending, k);
        if (e->incarnation != incarnation) {
            continue;
        }
        if (memcmp(e->txid, now.txid, sizeof now.txid) == 0) {
            return; /* all that it has are ours */
        }
        other = other || (++seq <= now.seq &&
                          mm_origin_accepted(r->db, "copy", s->n, r->node, incarnation, seq, txid, err) != 0 &&
                          memcmp(e->txid, txid, sizeof txid) != 0);
    }
    /* A copy of a file has pending ones in common with the first, which may have gone on under
    ** their incarnation: that is no set-back. The current one is this file's alone. */
    if (other || current) {
        mm_repl_note_moved(r, incarnation, s->n, err);
    }
}

/* What waits here was accepted under other numbers: a copy of this file has moved it there, and
** with it all that comes behind. */
static void look_moved(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    for (size_t k = 0; k < mm_pending_count(s->pending); k++) {
        const struct mm_pend *e = mm_pending_at(s->pending, k);
        int64_t to = mm_origin_of_txid(r->db, "copy", s->n, r->node, e->txid, err);
        if (to != 0 && to != e->incarnation) {
            mm_repl_note_moved_to(r, e, to, s->n, err);
        }
        if (to != e->incarnation) {
            return;
        }
    }
}

static void look_set_back_all(struct mm_repl *r, struct mm_err *err)
{
    int64_t head = mm_head_incarnation(r->db, err);
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK; k++) {
        struct mm_shard *s = &r->shard[k];
        int64_t last = head;
        for (size_t j = 0; j < mm_pending_count(s->pending) && err->rc == SQLITE_OK; j++) {
            int64_t incarnation = mm_pending_at(s->pending, j)->incarnation;
            if (incarnation != last) {
                look_set_back(r, s, incarnation, false, err);
                last = incarnation;
            }
        }
        look_set_back(r, s, head, true, err);
        look_moved(r, s, err);
    }
}

void mm_install_own(struct mm_repl *r, const struct mm_install *in, struct mm_err *err)
{
    check_holds_all(r, in, err);
    send_again(r, in, err);
    look_set_back_all(r, err);
}
