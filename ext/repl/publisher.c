#include "repl/publisher.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "repl/control.h"

enum { BACKOFF_MAX_MS = 5000, MESSAGE_SLACK = 4096, JOINING_MS = 100 };
#define BODY_MAX ((size_t)1 << 30)

/* Token of an acknowledgement: shard 8 bits, attempt 23, last part 1, number 32. */
static uint64_t make_token(const struct mm_shard *s, size_t index, bool last)
{
    return (uint64_t)s->n << 56 | (uint64_t)(s->attempt & 0x7fffff) << 33 | (uint64_t)last << 32 |
           (uint32_t)mm_pending_number(s->pending, index);
}

void mm_publisher_back(struct mm_shard *s, const char *why, bool wait)
{
    if (s->next > 0 || s->large.count > 0) {
        mm_log(MM_LOG_DEBUG, "shard %d: going back to the oldest unechoed transaction: %s", s->n, why);
    }
    s->resent += (int64_t)s->next;
    for (size_t k = 0; k < mm_pending_count(s->pending); k++) {
        mm_pending_at(s->pending, k)->acked_seq = 0;
    }
    s->next = 0;
    s->window_bytes = 0;
    s->attempt++;
    s->flight = 0;
    s->large.count = 0;
    mm_buf_free(&s->large.body);
    s->progress_ms = mm_clock_mono_ms();
    if (wait) {
        s->backoff = s->backoff == 0 ? 50 : s->backoff * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : s->backoff * 2;
        s->wait_until_ms = s->progress_ms + s->backoff;
    } else {
        s->backoff = 0;
        s->wait_until_ms = 0;
    }
}

/* Identity of the pending transaction at `index`: numbers follow on from what
** was accepted of its incarnation, which is that of all before it. */
static int identify(struct mm_repl *r, struct mm_shard *s, size_t index, struct mm_msg *m, struct mm_err *err)
{
    const struct mm_pend *e = mm_pending_at(s->pending, index);
    const struct mm_origin *o = mm_accept_last(s->accept, r->node, e->incarnation, err);
    if (o == NULL) {
        return err->rc;
    }
    memset(m, 0, sizeof *m);
    m->epoch = r->epoch;
    m->node = r->node;
    m->incarnation = e->incarnation;
    m->origin_seq = o->seq + 1;
    memcpy(m->txid, e->txid, sizeof m->txid);
    memcpy(m->prev, o->txid, sizeof m->prev);
    m->outbox_first = o->outbox + 1;
    m->outbox_last = e->id;
    m->at_ms = e->at;
    m->all_columns = r->all_columns;
    if (index > 0) { /* all before it are of the same incarnation */
        const struct mm_pend *before = mm_pending_at(s->pending, index - 1);
        m->origin_seq += (int64_t)index;
        memcpy(m->prev, before->txid, sizeof m->prev);
        m->outbox_first = before->id + 1;
    }
    return SQLITE_OK;
}

static void step(struct mm_shard *s)
{
    s->window_bytes += mm_pending_at(s->pending, s->next)->bytes;
    s->next++;
}

static int send(struct mm_repl *r, struct mm_shard *s, size_t index, const struct mm_msg *m, struct mm_err *err)
{
    struct mm_buf out;
    bool zstd = false;
    bool part = m->kind == MM_MSG_PART;
    bool last = !part || m->part.number == m->part.count - 1;
    char id[160];
    mm_buf_init(&out, BODY_MAX);
    mm_wire_encode(&out, m, r->compress && !part, &zstd, err);
    mm_buf_check(&out, err, "a message");
    (void)snprintf(id, sizeof id, "%" PRId64 ".%" PRIx64 ".%d.%" PRId64 ".%d.%" PRIu32, m->node,
                   (uint64_t)m->incarnation, s->n, m->origin_seq, part ? m->part.number : 0, s->attempt);
    struct mm_publish p = { .subject = s->subject,
                            .msg_id = id,
                            .encoding = zstd ? "zstd" : NULL,
                            .expect_last = -1,
                            .data = out.data,
                            .len = out.len,
                            .token = make_token(s, index, last) };
    if (err->rc == SQLITE_OK && mm_bus_publish(r->bus, &p, err) == SQLITE_OK) {
        if (s->flight == 0) {
            s->progress_ms = mm_clock_mono_ms();
        }
        s->flight++;
    }
    mm_buf_free(&out);
    return err->rc;
}

/* Tables that had not joined stay out of the log: their rows are this node's own, and others may have
** rows of the same keys. True when that is not decided yet. */
static bool leave_out(struct mm_repl *r, const struct mm_shard *s, int64_t id, struct mm_txn *txn, struct mm_err *err)
{
    bool waits = false;
    size_t kept = 0;
    for (size_t k = 0; k < txn->ntab && err->rc == SQLITE_OK; k++) {
        const struct mm_target *t = mm_targets_get(r->targets, txn->tab[k].name, err);
        bool joined = false;
        if (t != NULL && !mm_pending_before(s->pending, id, t->name, &joined)) {
            joined = !mm_watch_apart(t->state, t->joined_seq);
            waits = waits || (!joined && t->state == MM_JOINING);
        }
        if (joined) {
            txn->tab[kept++] = txn->tab[k];
        }
    }
    txn->ntab = kept;
    return waits && err->rc == SQLITE_OK;
}

static int send_part(struct mm_repl *r, struct mm_shard *s, struct mm_msg *m, struct mm_err *err)
{
    size_t size = (size_t)r->part_size;
    size_t at = (size_t)s->large.number * size;
    m->kind = MM_MSG_PART;
    m->part.number = s->large.number;
    m->part.count = s->large.count;
    memcpy(m->part.sha256, s->large.sha256, sizeof m->part.sha256);
    m->part.data = s->large.body.data + at;
    m->part.len = s->large.body.len - at < size ? s->large.body.len - at : size;
    if (send(r, s, s->next, m, err) == SQLITE_OK && ++s->large.number == s->large.count) {
        s->large.count = 0;
        mm_buf_free(&s->large.body);
        step(s);
    }
    return err->rc;
}

/* Parts of the oldest one that count already are not sent again: else one that takes longer
** than a connection lasts, or than a log has room, would begin anew for ever. Of those that
** are on their way a second one does not count (mm_fold_part). */
static int parts_here(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, struct mm_err *err)
{
    struct mm_part_head h;
    bool any = s->next == 0 && mm_part_get(r->db, s->n, m->node, m->incarnation, &h, err);
    bool same = any && h.count == s->large.count && memcmp(h.txid, m->txid, sizeof h.txid) == 0 &&
                memcmp(h.sha256, s->large.sha256, sizeof h.sha256) == 0;
    return same && h.bytes == (int64_t)h.held * r->part_size ? h.held : 0;
}

/* What is too large for one message waits here to be sent in parts. */
static int cut(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, struct mm_err *err)
{
    if (r->compress && err->rc == SQLITE_OK) {
        mm_wire_compress_txn(&s->large.body, err);
    }
    if (mm_buf_check(&s->large.body, err, "a transaction") == SQLITE_OK) {
        mm_wire_sha256(s->large.body.data, s->large.body.len, s->large.sha256);
        s->large.count = (int)((s->large.body.len + (size_t)r->part_size - 1) / (size_t)r->part_size);
        s->large.number = parts_here(r, s, m, err);
    }
    return err->rc;
}

static int send_txn(struct mm_repl *r, struct mm_shard *s, struct mm_msg *m, struct mm_err *err)
{
    const struct mm_pend *e = mm_pending_at(s->pending, s->next);
    struct mm_arena a;
    struct mm_buf names;
    struct mm_buf data;
    mm_arena_init(&a, (size_t)2 << 30);
    mm_buf_init(&names, BODY_MAX);
    mm_buf_init(&data, BODY_MAX);
    m->txn.arena = &a;
    mm_pending_read(s->pending, e, &m->txn, &names, &data, err);
    bool waits = leave_out(r, s, e->id, &m->txn, err);
    if (waits) {
        s->wait_until_ms = mm_clock_mono_ms() + JOINING_MS;
    } else if (err->rc == SQLITE_OK && (e->bytes <= r->part_size - MESSAGE_SLACK || m->txn.ntab == 0)) {
        m->kind = MM_MSG_TXN;
        if (send(r, s, s->next, m, err) == SQLITE_OK) {
            step(s);
        } else if (err->rc == SQLITE_TOOBIG) {
            mm_err_init(err); /* the wire form is larger than the captured one: in parts, then */
        }
    }
    bool large = err->rc == SQLITE_OK && !waits && s->next < mm_pending_count(s->pending) &&
                 mm_pending_at(s->pending, s->next) == e;
    if (large) {
        mm_buf_init(&s->large.body, BODY_MAX);
        mm_wire_encode_txn(&s->large.body, &m->txn, r->all_columns, false, err);
    }
    mm_arena_free(&a);
    mm_buf_free(&names);
    mm_buf_free(&data);
    memset(&m->txn, 0, sizeof m->txn);
    return large ? cut(r, s, m, err) : err->rc;
}

static int send_control(struct mm_repl *r, struct mm_shard *s, struct mm_msg *m, struct mm_err *err)
{
    const struct mm_pend *e = mm_pending_at(s->pending, s->next);
    struct mm_outbox_row row;
    struct mm_buf data;
    struct mm_arena a;
    mm_buf_init(&data, BODY_MAX);
    mm_arena_init(&a, BODY_MAX);
    if (mm_outbox_get(r->outbox, e->id, &row, NULL, &data, err)) {
        if (!mm_control_message(r, data.data, data.len, m, &a, err)) {
            s->wait_until_ms = mm_clock_mono_ms() + JOINING_MS; /* its table is still joining */
        } else if (send(r, s, s->next, m, err) == SQLITE_OK) {
            step(s);
        }
    }
    mm_arena_free(&a);
    mm_buf_free(&data);
    return err->rc;
}

int mm_publisher_pump(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    if (!s->following || s->replay != NULL || s->blocked_seq != 0 || r->move_due != 0 || !mm_repl_caught_up(r)) {
        return err->rc;
    }
    while (err->rc == SQLITE_OK && s->next < mm_pending_count(s->pending) && s->next < MM_WINDOW &&
           (s->next == 0 || s->window_bytes < MM_WINDOW_BYTES) &&
           s->flight < (s->large.count > 0 ? MM_PARTS_IN_FLIGHT : MM_WINDOW) &&
           mm_clock_mono_ms() >= s->wait_until_ms) {
        struct mm_msg m;
        /* One incarnation at a time: another one's chain could overtake. */
        if (mm_pending_at(s->pending, s->next)->incarnation != mm_pending_at(s->pending, 0)->incarnation ||
            identify(r, s, s->next, &m, err) != SQLITE_OK) {
            break;
        }
        if (s->large.count > 0) {
            send_part(r, s, &m, err);
        } else if (mm_pending_at(s->pending, s->next)->kind == MM_OUTBOX_CONTROL) {
            send_control(r, s, &m, err);
        } else {
            send_txn(r, s, &m, err);
        }
    }
    return err->rc;
}

void mm_publisher_ack(struct mm_repl *r, const struct mm_ack *ack)
{
    int n = (int)(ack->token >> 56);
    if (n < 1 || n > r->nshard) {
        return;
    }
    struct mm_shard *s = &r->shard[n - 1];
    if (((ack->token >> 33) & 0x7fffff) != (s->attempt & 0x7fffff)) {
        return; /* of an attempt that was given up */
    }
    s->full = ack->kind == MM_ACK_FULL;
    s->refusal[0] = '\0';
    if (ack->kind != MM_ACK_STORED) {
        if (ack->kind != MM_ACK_DUPLICATE) {
            (void)snprintf(s->refusal, sizeof s->refusal, "%s (%d)", ack->text, ack->code);
        }
        mm_log(MM_LOG_DEBUG, "shard %d: not stored: %d %s", n, ack->code, ack->text);
        mm_publisher_back(s, "a message was not stored", true);
        return;
    }
    s->progress_ms = mm_clock_mono_ms();
    s->backoff = 0;
    uint32_t number = (uint32_t)ack->token;
    bool last = (ack->token >> 32 & 1) != 0;
    size_t index = (uint32_t)(number - (uint32_t)mm_pending_number(s->pending, 0)); /* huge when echoed already */
    s->flight -= s->flight > 0;
    if (last && index < mm_pending_count(s->pending)) {
        mm_pending_at(s->pending, index)->acked_seq = ack->seq;
    }
}

void mm_publisher_check(struct mm_repl *r, struct mm_shard *s)
{
    (void)r;
    if (mm_pending_count(s->pending) == 0) {
        s->full = false;
        s->refusal[0] = '\0';
        s->flight = 0; /* acknowledgements that never came are of no use any more */
        return;
    }
    if (s->next == 0 && s->large.count == 0 && s->flight == 0) {
        return;
    }
    const struct mm_pend *oldest = mm_pending_at(s->pending, 0);
    if (oldest->acked_seq > 0 && oldest->acked_seq <= s->pos.seq) {
        mm_publisher_back(s, "an own message was ignored by the fold", true);
    } else if (oldest->acked_seq == 0 && mm_clock_mono_ms() - s->progress_ms > MM_ACK_MS) {
        s->full = false;
        (void)snprintf(s->refusal, sizeof s->refusal, "what is sent is not acknowledged within %d ms", MM_ACK_MS);
        mm_publisher_back(s, "no acknowledgement in time", true);
    } else if (oldest->acked_seq > s->pos.seq && s->following && s->end_seq <= s->pos.seq &&
               mm_clock_mono_ms() - s->progress_ms > MM_ACK_MS) {
        mm_log(MM_LOG_DEBUG, "shard %d: message %lld is stored and does not come: the log is followed anew", s->n,
               (long long)oldest->acked_seq);
        s->following = s->checked = false;
        s->progress_ms = mm_clock_mono_ms();
    }
}

int mm_publisher_timeout(const struct mm_shard *s)
{
    int64_t now = mm_clock_mono_ms();
    if (mm_pending_count(s->pending) > s->next && s->wait_until_ms > now) {
        return (int)(s->wait_until_ms - now);
    }
    return s->next > 0 || s->flight > 0 ? 500 : -1;
}
