/* Which messages count, as every node decides it, and transactions put together
** from those parts that do. */
#include <stdlib.h>
#include <string.h>

#include "changes.h"
#include "repl/accept.h"

/* A transaction whose parts are coming in: one of an origin, as with every node. */
struct unfinished {
    struct unfinished *next;
    int64_t node, incarnation;
    struct mm_part_head head;
    struct mm_buf data; /* empty when they are too large together */
};

struct mm_changes_parts {
    bool from_first; /* of the log's messages: nothing is unknown */
    int64_t epoch;   /* 0: not known yet */
    struct mm_accept *accept;
    struct unfinished *list;
    size_t bytes;
    struct mm_buf whole; /* of the last answer */
};

struct mm_changes_parts *mm_changes_parts_open(bool from_first, struct mm_err *err)
{
    struct mm_changes_parts *p = calloc(1, sizeof *p);
    if (p == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    p->from_first = from_first;
    p->epoch = from_first ? 1 : 0; /* a later one says so before anything else; shard 1 alone tells of the founding */
    mm_buf_init(&p->whole, MM_CHANGES_PARTS_MAX);
    p->accept = mm_accept_open(NULL, 0, true, err);
    if (p->accept == NULL) {
        mm_changes_parts_close(p);
        return NULL;
    }
    return p;
}

static void drop(struct mm_changes_parts *p, struct unfinished *u)
{
    struct unfinished **at = &p->list;
    while (*at != NULL && *at != u) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = u->next;
        p->bytes -= u->data.len;
        mm_buf_free(&u->data);
        free(u);
    }
}

void mm_changes_parts_close(struct mm_changes_parts *p)
{
    if (p == NULL) {
        return;
    }
    while (p->list != NULL) {
        drop(p, p->list);
    }
    mm_buf_free(&p->whole);
    mm_accept_close(p->accept);
    free(p);
}

static struct unfinished *find(struct mm_changes_parts *p, int64_t node, int64_t incarnation)
{
    struct unfinished *u = p->list;
    while (u != NULL && (u->node != node || u->incarnation != incarnation)) {
        u = u->next;
    }
    return u;
}

/* Of an origin that was not met yet nothing is known when the reading began in the
** middle: its first message is taken for the next one. */
static bool counts(struct mm_changes_parts *p, const struct mm_msg *m, struct mm_err *err)
{
    const struct mm_origin *last = mm_accept_last(p->accept, m->node, m->incarnation, err);
    int64_t epoch = p->epoch != 0 ? p->epoch : m->epoch;
    struct mm_origin begun = { .seq = m->origin_seq - 1 };
    if (last == NULL) {
        return false;
    }
    if (last->seq == 0 && !p->from_first) {
        memcpy(begun.txid, m->prev, sizeof begun.txid);
        last = &begun;
    }
    return mm_fold_accept(m, epoch, last) == MM_ACCEPT;
}

static struct unfinished *begin(struct mm_changes_parts *p, const struct mm_msg *m, struct mm_err *err)
{
    struct unfinished *u = calloc(1, sizeof *u);
    if (u == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    mm_buf_init(&u->data, MM_CHANGES_PARTS_MAX);
    u->node = m->node;
    u->incarnation = m->incarnation;
    memcpy(u->head.txid, m->txid, sizeof u->head.txid);
    memcpy(u->head.sha256, m->part.sha256, sizeof u->head.sha256);
    u->head.count = m->part.count;
    u->next = p->list;
    p->list = u;
    return u;
}

static int add(struct mm_changes_parts *p, struct unfinished *u, const struct mm_msg *m, struct mm_err *err)
{
    u->head.held++;
    u->head.bytes += (int64_t)m->part.len;
    if (u->head.bytes != (int64_t)(u->data.len + m->part.len) || p->bytes + m->part.len > MM_CHANGES_PARTS_MAX) {
        p->bytes -= u->data.len;
        mm_buf_free(&u->data);
        return err->rc;
    }
    mm_buf_add(&u->data, m->part.data, m->part.len);
    p->bytes += m->part.len;
    return mm_buf_failed(&u->data) ? mm_err_nomem(err) : err->rc;
}

static void take_part(struct mm_changes_parts *p, const struct mm_msg *m, struct mm_changes_whole *out,
                      struct mm_err *err)
{
    bool last = m->part.number == m->part.count - 1;
    bool good = counts(p, m, err);
    struct unfinished *u = find(p, m->node, m->incarnation);
    bool fits = good && (m->part.number == 0 || (u != NULL && mm_fold_part(m, &u->head)));
    uint8_t sha[32];
    if (err->rc != SQLITE_OK || (!fits && !last)) {
        return;
    }
    if (!fits) {
        out->op = "parts";
        out->why = good ? "parts of this transaction are missing, or come before from_seq"
                        : "every node passes over this transaction: it was sent twice, or does not follow on";
        if (good && !p->from_first) { /* it began before the reading */
            mm_accept_take(p->accept, m, err);
        }
        return;
    }
    if (m->part.number == 0) {
        drop(p, u);
        u = begin(p, m, err);
    }
    if (u == NULL || add(p, u, m, err) != SQLITE_OK || !last) {
        return;
    }
    bool all = u->head.bytes == (int64_t)u->data.len;
    mm_buf_free(&p->whole);
    p->whole = u->data;
    mm_buf_init(&u->data, MM_CHANGES_PARTS_MAX);
    p->bytes -= p->whole.len;
    drop(p, u);
    if (!all) {
        out->op = "parts";
        out->why = "the parts of this transaction are larger than 64 MiB together";
        mm_accept_take(p->accept, m, err);
        return;
    }
    mm_wire_sha256(p->whole.data, p->whole.len, sha);
    if (memcmp(sha, m->part.sha256, sizeof sha) != 0) {
        out->op = "malformed";
        out->why = "the parts do not have the SHA-256 that they name";
    } else {
        out->data = &p->whole;
    }
}

static void take_other(struct mm_changes_parts *p, const struct mm_msg *m, struct mm_err *err)
{
    if (!counts(p, m, err) || mm_accept_take(p->accept, m, err) != SQLITE_OK || m->kind != MM_MSG_ENDED) {
        return;
    }
    struct unfinished *u = find(p, m->control.ended_node, m->control.ended_incarnation);
    if (u != NULL && memcmp(u->head.txid, m->control.ended_txid, sizeof u->head.txid) == 0) {
        drop(p, u);
    }
}

int mm_changes_parts_take(struct mm_changes_parts *p, const struct mm_msg *m, struct mm_changes_whole *out,
                          struct mm_err *err)
{
    *out = (struct mm_changes_whole){ NULL, NULL, NULL };
    if (m->kind == MM_MSG_FOUNDED || m->kind == MM_MSG_SEEDED) {
        p->epoch = m->epoch > p->epoch ? m->epoch : p->epoch;
    } else if (m->kind == MM_MSG_PART) {
        take_part(p, m, out, err);
    } else {
        take_other(p, m, err);
    }
    return err->rc;
}

int mm_changes_parts_good(struct mm_changes_parts *p, const struct mm_msg *m, struct mm_err *err)
{
    return mm_accept_take(p->accept, m, err);
}

void mm_changes_parts_unknown(struct mm_changes_parts *p)
{
    p->from_first = false;
    mm_accept_reset(p->accept);
}
