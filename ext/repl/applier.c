#include "repl/applier_int.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/log.h"
#include "repl/commit.h"
#include "repl/control.h"
#include "repl/join.h"
#include "repl/partition.h"
#include "repl/positions.h"

static void digest_of(const struct mm_item *it, uint8_t out[MM_DIGEST_SIZE])
{
    uint8_t full[32];
    mm_wire_sha256(it->d.data, it->d.len, full);
    memcpy(out, full, MM_DIGEST_SIZE);
}

static void advance(struct mm_shard *s, const struct mm_item *it)
{
    s->pos.seq = it->d.seq;
    s->pos.stamp = it->d.time_ns;
    digest_of(it, s->pos.digest);
    s->dirty = true;
    s->folded++;
}

/* The own pending transaction that this message is the echo of. */
static bool is_echo(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m)
{
    return m->node == r->node && mm_pending_count(s->pending) > 0 &&
           memcmp(mm_pending_at(s->pending, 0)->txid, m->txid, MM_TXID_SIZE) == 0;
}

static void pop_echo(struct mm_shard *s)
{
    int64_t bytes = mm_pending_at(s->pending, 0)->bytes;
    mm_pending_pop(s->pending);
    if (s->next > 0) {
        s->next--;
        s->window_bytes -= bytes;
    } else { /* stored by an earlier attempt after all */
        s->large.count = 0;
        mm_buf_free(&s->large.body);
    }
    s->progress_ms = mm_clock_mono_ms();
}

enum place { PLACE_NEXT, PLACE_SEEN, PLACE_LOST };

/* The last folded message itself: byte for byte, and stored when that one was. A server that
** lost both it and one before it may have taken it again, under the same number, behind another. */
static bool is_last(const struct mm_position *p, const struct mm_item *it)
{
    uint8_t digest[MM_DIGEST_SIZE];
    digest_of(it, digest);
    return it->d.seq == p->seq && memcmp(digest, p->digest, sizeof digest) == 0 &&
           (p->stamp == 0 || p->stamp == it->d.time_ns);
}

/* Where a delivery stands against the position; the first one after a
** (re)subscription must be the last folded message. */
static enum place place_of(struct mm_shard *s, const struct mm_item *it, struct mm_err *err)
{
    if (!s->checked) {
        if (s->pos.seq > 0 && !is_last(&s->pos, it)) {
            s->behind = it->d.seq > s->pos.seq;
            mm_err_set(err, SQLITE_MISMATCH,
                       "stream %s no longer holds message %lld as this node folded it (it begins again at %lld): the "
                       "server lost or replaced its log",
                       s->stream, (long long)s->pos.seq, (long long)it->d.seq);
            return PLACE_LOST;
        }
        s->checked = true;
    }
    if (it->d.seq <= s->pos.seq) {
        return PLACE_SEEN;
    }
    if (it->d.seq != s->pos.seq + 1) {
        s->behind = true;
        mm_err_set(err, SQLITE_MISMATCH, "stream %s has dropped messages %lld to %lld before this node folded them",
                   s->stream, (long long)s->pos.seq + 1, (long long)it->d.seq - 1);
        return PLACE_LOST;
    }
    return PLACE_NEXT;
}

/* A policy may make of a change something else than what was done. A stale table has
** to be told what it lacks; one that is about to be read from the log has it twice. */
static bool any_special(struct mm_applier *a, const struct mm_txn *txn, struct mm_err *err)
{
    for (size_t k = 0; k < txn->ntab; k++) {
        const struct mm_target *t = mm_targets_get(a->r->targets, txn->tab[k].name, err);
        if (t == NULL || t->policy != NULL || (t->state == MM_STALE && t->joined_seq > 0) ||
            mm_join_reads_again(a->r, t, err)) {
            return true;
        }
    }
    return false;
}

/* Its rows stand in a table that is about to be read from the log up to this node's place:
** they would be beyond it no more, and come twice. The reading begins first. */
static bool echo_waits(struct mm_applier *a, struct mm_shard *s, const struct mm_item *it, struct mm_err *err)
{
    const struct mm_msg *m = &it->msg;
    bool waits = false;
    if (it->bad.rc != SQLITE_OK || s->replay != NULL || !is_echo(a->r, s, m)) {
        return false;
    }
    for (size_t k = 0; k < m->txn.ntab && m->kind == MM_MSG_TXN; k++) {
        const struct mm_target *t = mm_targets_get(a->r->targets, m->txn.tab[k].name, err);
        waits = waits || (t != NULL && mm_join_reads_again(a->r, t, err));
    }
    return m->kind == MM_MSG_PART ? mm_join_replay_wanted(a->r, s, err) : waits;
}

/* Folds an echo without touching the database: it is the oldest pending
** transaction, it stands in the tables, on exactly the old values that it
** names; so folding it would change no row and record no conflict. */
static bool fold_light(struct mm_applier *a, struct mm_shard *s, struct mm_item *it, struct mm_err *err)
{
    if (it->bad.rc != SQLITE_OK || it->msg.kind != MM_MSG_TXN || !is_echo(a->r, s, &it->msg) ||
        mm_pending_undone(s->pending, 0) || !mm_pending_at(s->pending, 0)->clean ||
        mm_pending_at(s->pending, 0)->incarnation != it->msg.incarnation || any_special(a, &it->msg.txn, err)) {
        return false;
    }
    const struct mm_origin *last = mm_accept_last(s->accept, it->msg.node, it->msg.incarnation, err);
    if (last == NULL || mm_fold_accept(&it->msg, a->r->epoch, last) != MM_ACCEPT ||
        mm_accept_take(s->accept, &it->msg, err) != SQLITE_OK) {
        return false;
    }
    pop_echo(s);
    advance(s, it);
    return true;
}

static int ignore(struct mm_applier *a, struct mm_shard *s, const struct mm_item *it, const char *why,
                  struct mm_err *err)
{
    s->ignored++;
    mm_log(MM_LOG_WARN, "message %d:%lld is ignored: %s", s->n, (long long)it->d.seq, why);
    return mm_ignored_add(a->r->db, s->n, it->d.seq, it->bad.rc == SQLITE_OK ? it->msg.node : 0, why, err);
}

static int fold_txn(struct mm_applier *a, struct mm_shard *s, struct mm_item *it, const struct mm_txn *txn,
                    struct mm_err *err)
{
    struct mm_repl *r = a->r;
    bool echo = is_echo(r, s, &it->msg);
    if (r->positions_only) {
        return mm_positions_fold(s, txn, echo, err);
    }
    if (echo) {
        mm_join_left_behind(r, txn, err);
    }
    if (echo && !mm_pending_undone(s->pending, 0) && mm_pending_at(s->pending, 0)->clean && !any_special(a, txn, err)) {
        return err->rc;
    }
    mm_pending_undo(s->pending, echo ? 0 : mm_pending_overlap(s->pending, txn, err), err);
    struct mm_apply_how how = { .shard = s->n, .seq = it->d.seq, .node = it->msg.node, .all = true };
    mm_apply_txn(r->db, r->targets, txn, &how, err);
    s->skipped += how.skipped;
    return echo ? mm_pending_stay_echoed(s->pending, false, err) : err->rc;
}

/* The last part is the transaction's place in the order: all of it is read
** back, checked and folded. False: not complete, or bad. */
static bool join_parts(struct mm_applier *a, struct mm_shard *s, struct mm_item *it, const struct mm_part_head *h,
                       struct mm_buf *body, struct mm_txn *txn, struct mm_err *err)
{
    const struct mm_msg *m = &it->msg;
    uint8_t sha[32];
    struct mm_err bad;
    mm_part_read(a->r->db, s->n, m->node, m->incarnation, body, err);
    mm_part_drop(a->r->db, s->n, m->node, m->incarnation, err);
    if (err->rc != SQLITE_OK) {
        return false;
    }
    mm_wire_sha256(body->data, body->len, sha);
    if (memcmp(sha, h->sha256, sizeof sha) != 0) {
        ignore(a, s, it, "the parts do not have the SHA-256 that they name", err);
        return false;
    }
    mm_err_init(&bad);
    txn->arena = &it->arena;
    if (mm_wire_decode_body(txn, body, &it->arena, &bad) == SQLITE_NOMEM) {
        mm_err_nomem(err);
        return false;
    }
    if (bad.rc != SQLITE_OK) {
        ignore(a, s, it, bad.msg, err);
        return false;
    }
    return true;
}

/* Returns true when the message with this part is a whole transaction now. */
static bool take_part(struct mm_applier *a, struct mm_shard *s, struct mm_item *it, struct mm_buf *body,
                      struct mm_txn *txn, struct mm_err *err)
{
    const struct mm_msg *m = &it->msg;
    struct mm_part_head h;
    mm_part_get(a->r->db, s->n, m->node, m->incarnation, &h, err);
    if (err->rc != SQLITE_OK || !mm_fold_part(m, &h)) {
        s->duplicates++;
        return false;
    }
    if (m->part.number == 0) {
        mm_part_drop(a->r->db, s->n, m->node, m->incarnation, err);
        memset(&h, 0, sizeof h);
        memcpy(h.txid, m->txid, sizeof h.txid);
        memcpy(h.sha256, m->part.sha256, sizeof h.sha256);
        h.count = m->part.count;
    }
    if (h.bytes + (int64_t)m->part.len > (int64_t)MM_WIRE_TXN_MAX) {
        ignore(a, s, it, "the parts exceed the size limit of a transaction", err);
        mm_part_drop(a->r->db, s->n, m->node, m->incarnation, err);
        return false;
    }
    mm_part_add(a->r->db, s->n, m->node, m->incarnation, &h, it->d.time_ns / 1000000, m->part.data, m->part.len, err);
    return err->rc == SQLITE_OK && m->part.number == m->part.count - 1 && join_parts(a, s, it, &h, body, txn, err);
}

/* The log gives a number of ours to a transaction that we do not have: this
** file was set back (a backup copied over it). What is written from now on,
** and what is pending, goes on under incarnations of its own. */
static void note_moved(struct mm_applier *a, struct mm_shard *s, const struct mm_msg *m, struct mm_err *err)
{
    bool ours = m->node == a->r->node && m->incarnation == mm_head_incarnation(a->r->db, err);
    for (size_t k = 0; k < mm_pending_count(s->pending) && m->node == a->r->node; k++) {
        ours = ours || mm_pending_at(s->pending, k)->incarnation == m->incarnation;
    }
    if (ours) {
        mm_repl_note_moved(a->r, m->incarnation, s->n, err);
    }
}

static int fold_accepted(struct mm_applier *a, struct mm_shard *s, struct mm_item *it, const struct mm_txn *txn,
                         struct mm_err *err)
{
    struct mm_repl *r = a->r;
    struct mm_msg *m = &it->msg;
    bool echo = is_echo(r, s, m);
    if (m->kind != MM_MSG_TXN && m->kind != MM_MSG_PART) {
        mm_control_fold(r, s, m, it->d.seq, echo, err);
    } else {
        fold_txn(a, s, it, txn, err);
    }
    if (!echo) {
        note_moved(a, s, m, err);
    } else if (mm_pending_at(s->pending, 0)->incarnation != m->incarnation) {
        mm_repl_note_moved_to(r, mm_pending_at(s->pending, 0), m->incarnation, s->n, err);
    }
    mm_accept_take(s->accept, m, err);
    if (echo && err->rc == SQLITE_OK) {
        pop_echo(s);
    }
    return err->rc;
}

/* One message in its place, inside the write transaction. Returns false when
** the shard cannot go past it. */
static bool fold_item(struct mm_applier *a, struct mm_shard *s, struct mm_item *it, struct mm_err *err)
{
    struct mm_msg *m = &it->msg;
    if (it->bad.rc == SQLITE_MISMATCH && s->skip_seq == it->d.seq) {
        ignore(a, s, it, "passed over on this node by marmot_skip", err);
        mm_join_all_stale(a->r, s, err);
        advance(s, it);
        return true;
    }
    if (it->bad.rc == SQLITE_MISMATCH) {
        s->blocked_seq = it->d.seq;
        (void)snprintf(s->why, sizeof s->why, "message %d:%lld: %.300s", s->n, (long long)it->d.seq, it->bad.msg);
        return false;
    }
    if (it->bad.rc != SQLITE_OK) {
        ignore(a, s, it, it->bad.msg, err);
        advance(s, it);
        return true;
    }
    if (m->kind == MM_MSG_FOUNDED || m->kind == MM_MSG_SEEDED) {
        const char *why = mm_control_unnumbered(a->r, s, m, it->d.seq);
        if (a->r->met_epoch > a->r->epoch) {
            return false;
        }
        if (why != NULL) {
            ignore(a, s, it, why, err);
        }
        advance(s, it);
        return true;
    }
    const struct mm_origin *last = mm_accept_last(s->accept, m->node, m->incarnation, err);
    enum mm_verdict v = last != NULL ? mm_fold_accept(m, a->r->epoch, last) : MM_IGNORE_HOLE;
    if (v == MM_IGNORE_EPOCH || v == MM_IGNORE_LINEAGE) {
        ignore(a, s, it, mm_verdict_name(v), err);
    } else if (v != MM_ACCEPT) {
        s->duplicates++;
    } else if (m->kind == MM_MSG_PART) {
        struct mm_buf body;
        struct mm_txn txn = { 0 };
        mm_buf_init(&body, MM_WIRE_TXN_MAX);
        if (take_part(a, s, it, &body, &txn, err)) {
            fold_accepted(a, s, it, &txn, err);
        }
        mm_buf_free(&body);
    } else {
        fold_accepted(a, s, it, &m->txn, err);
    }
    advance(s, it);
    return true;
}

static struct mm_shard *shard_of(struct mm_applier *a, const struct mm_item *it)
{
    return &a->r->shard[it->d.shard - 1];
}

/* Undo and redo are paid once in a batch: what they take is worth more messages. */
static int64_t longer(const struct mm_shard *s, size_t standing, int64_t before, int64_t until)
{
    int64_t now = mm_clock_mono_us();
    return mm_pending_standing(s->pending) < standing ? now + MM_BATCH_US + 2 * (now - before) : until;
}

/* The heavy half: everything that waits, or what fits in the time. */
static enum mm_applier_result run_batch(struct mm_applier *a, struct mm_err *err)
{
    struct mm_repl *r = a->r;
    enum mm_applier_result result = MM_APPLIED;
    int64_t until = mm_clock_mono_us() + MM_BATCH_US;
    if (mm_targets_refresh(r->targets, err)) {
        r->tables_changed = r->schema_moved = true;
        mm_repl_rekey(r, err);
    }
    mm_repl_read_outbox(r, err);
    while (a->head != NULL && mm_commit_stands(r, err) == SQLITE_OK && result == MM_APPLIED &&
           mm_clock_mono_us() < until) {
        struct mm_shard *s = shard_of(a, a->head);
        if (s->verify_seq != 0) {
            break; /* its sums are of this very place */
        }
        if (s->blocked_seq != 0) {
            mm_item_free(mm_applier_take(a)); /* it is followed again when somebody has decided */
            continue;
        }
        int64_t before = mm_clock_mono_us();
        size_t standing = mm_pending_standing(s->pending);
        if (s->replay != NULL) {
            mm_applier_again(a, s, a->head, err);
            until = longer(s, standing, before, until);
            if (err->rc == SQLITE_OK && s->replay != NULL && s->replay_seq >= s->pos.seq) {
                mm_join_replay_done(r, s, err);
            }
            mm_item_free(mm_applier_take(a));
            if (s->replay == NULL) {
                mm_applier_drop(a, s->n); /* it is followed again from its position */
            }
            continue;
        }
        enum place place = place_of(s, a->head, err);
        if (place == PLACE_LOST) {
            result = MM_APPLY_LOST;
            break;
        }
        if (place == PLACE_NEXT && echo_waits(a, s, a->head, err)) {
            break;
        }
        bool folded = place != PLACE_NEXT || fold_item(a, s, a->head, err);
        until = longer(s, standing, before, until);
        if (!folded) {
            result = err->rc != SQLITE_OK ? MM_APPLIED : r->met_epoch > r->epoch ? MM_APPLY_EPOCH : MM_APPLY_BLOCKED;
            break;
        }
        mm_item_free(mm_applier_take(a));
    }
    struct mm_err lost = *err; /* of PLACE_LOST: what came before it is still good */
    if (result == MM_APPLY_LOST) {
        mm_err_init(err);
    }
    for (int k = 0; k < r->nshard; k++) {
        mm_pending_redo(r->shard[k].pending, err);
    }
    if (r->rekey_due) {
        r->rekey_due = false;
        mm_repl_rekey(r, err);
    }
    mm_join_replay_mark(r, err);
    if (r->positions_only) {
        mm_positions_settle(r, err);
    }
    mm_partition_settle(r, err);
    if (mm_commit_end(r, err) != SQLITE_OK) {
        return MM_APPLY_RELOAD;
    }
    if (result == MM_APPLY_LOST) {
        *err = lost;
    }
    return result == MM_APPLIED && r->reload_needed ? MM_APPLY_RELOAD : result;
}

static enum mm_applier_result answer_later(struct mm_err *err)
{
    if ((err->rc & 0xff) != SQLITE_BUSY) {
        return MM_APPLY_RELOAD;
    }
    mm_err_init(err);
    return MM_APPLY_BUSY;
}

static enum mm_applier_result run(struct mm_applier *a, struct mm_err *err)
{
    struct mm_repl *r = a->r;
    for (int k = 0; k < r->nshard; k++) {
        if (r->shard[k].verify_seq != 0 && mm_control_answer(r, &r->shard[k], err) != SQLITE_OK) {
            return answer_later(err);
        }
    }
    while (a->head != NULL && err->rc == SQLITE_OK) {
        struct mm_shard *s = shard_of(a, a->head);
        if (s->replay != NULL || !s->checked || a->head->d.seq != s->pos.seq + 1 || !fold_light(a, s, a->head, err)) {
            break;
        }
        mm_item_free(mm_applier_take(a));
    }
    if (a->head == NULL || err->rc != SQLITE_OK) {
        return err->rc == SQLITE_OK ? MM_APPLIED : MM_APPLY_RELOAD;
    }
    if (!shard_of(a, a->head)->checked && shard_of(a, a->head)->replay == NULL &&
        place_of(shard_of(a, a->head), a->head, err) == PLACE_SEEN) {
        mm_item_free(mm_applier_take(a)); /* the message at the position itself: nothing to write */
        return MM_APPLIED;
    }
    if (err->rc != SQLITE_OK) {
        return MM_APPLY_LOST;
    }
    if (echo_waits(a, shard_of(a, a->head), a->head, err) || mm_applier_gather(a)) {
        return MM_APPLY_BUSY;
    }
    mm_commit_begin(r, err);
    if ((err->rc & 0xff) == SQLITE_BUSY) {
        mm_err_init(err);
        return MM_APPLY_BUSY;
    }
    return err->rc == SQLITE_OK ? run_batch(a, err) : MM_APPLY_RELOAD;
}

enum mm_applier_result mm_applier_run(struct mm_applier *a, struct mm_err *err)
{
    enum mm_applier_result result = run(a, err);
    a->r->reload_needed = a->r->reload_needed || result == MM_APPLY_RELOAD;
    return result;
}
