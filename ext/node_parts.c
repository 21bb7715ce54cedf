/* Transactions of which some parts came and no more: the publisher died for
** good, or lives on under another incarnation. Their parts wait on every node, so they are
** ended by a control message, which every node folds alike.
**
** Any healthy node may send it, without a lease: a second one folds to nothing,
** and so does one that crosses the transaction's own last part. A drawn delay lets one
** node be first; the others see the parts go. Where the publisher is only slow
** its next part continues nothing, and it begins again with part 0. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"
#include "store/position.h"
#include "store/stray.h"

enum {
    KEEP_MS = 3600 * 1000, /* without a new part */
    KEEP_LEAST_MS = 100,
    LOOKS = 60,      /* so often in this time */
    DELAY_PART = 10, /* drawn: up to this part of it more */
};

void mm_node_parts_open(struct mm_node *n)
{
    /* For tests: an hour is long. Not a key of the configuration, since nothing else gains by it. */
    const char *text = getenv("MARMOT_PARTS_KEEP_MS");
    char *end = NULL;
    long ms = text != NULL ? strtol(text, &end, 10) : 0;
    n->parts_keep_ms = ms >= KEEP_LEAST_MS && ms < KEEP_MS && *end == '\0' ? ms : KEEP_MS;
}

/* It has everything that the log holds, and what it writes is sent at once: a
** message that waits for long would end a transaction that goes on. */
static bool healthy(const struct mm_node *n)
{
    bool good = n->config->publish && n->config->replicate && n->r.joined && n->linked && !n->held && n->task == NULL &&
                n->verdict == MM_NODE_LIVE && mm_bus_connected(n->r.bus) && n->r.move_due == 0 && !n->r.reload_needed &&
                mm_repl_caught_up(&n->r);
    for (int k = 0; good && k < n->r.nshard; k++) {
        const struct mm_shard *s = &n->r.shard[k];
        good = s->following && s->checked && s->replay == NULL && s->blocked_seq == 0 && !s->full &&
               s->refusal[0] == '\0' && s->pos.seq >= s->sync_seq;
    }
    return good;
}

/* This node is sending it, or will. */
static bool own(const struct mm_node *n, const struct mm_part_row *row)
{
    if (row->node != n->r.node) {
        return false;
    }
    struct mm_pending *p = n->r.shard[row->shard - 1].pending;
    for (size_t k = 0; k < mm_pending_count(p); k++) {
        if (memcmp(mm_pending_at(p, k)->txid, row->txid, sizeof row->txid) == 0) {
            return true;
        }
    }
    return false;
}

static bool same(const struct mm_part_row *a, const struct mm_part_row *b)
{
    return a->shard == b->shard && a->node == b->node && a->incarnation == b->incarnation && a->number == b->number &&
           a->at == b->at && memcmp(a->txid, b->txid, sizeof a->txid) == 0;
}

static int64_t drawn(int64_t below)
{
    uint64_t x = 0;
    sqlite3_randomness(sizeof x, &x);
    return (int64_t)(x % (uint64_t)(below + 1));
}

/* Who waits still, and when each is to be ended: as before where no part came. */
static void look(struct mm_node *n, int64_t now, struct mm_err *err)
{
    struct mm_part_row rows[MM_PARTS_WATCHED];
    struct mm_parts_watch next[MM_PARTS_WATCHED];
    int count = mm_part_list(n->r.db, rows, MM_PARTS_WATCHED, err);
    for (int k = 0; k < count; k++) {
        next[k].row = rows[k];
        next[k].end_ms = now + n->parts_keep_ms + drawn(n->parts_keep_ms / DELAY_PART);
        for (int j = 0; j < n->nparts; j++) {
            next[k].end_ms = same(&rows[k], &n->parts[j].row) ? n->parts[j].end_ms : next[k].end_ms;
        }
    }
    if (err->rc == SQLITE_OK) {
        memcpy(n->parts, next, (size_t)count * sizeof next[0]);
        n->nparts = count;
    }
}

static void ask(struct mm_node *n, struct mm_parts_watch *w, int64_t now, struct mm_err *err)
{
    mm_db_exec(n->r.db, err, "BEGIN IMMEDIATE");
    if (err->rc == SQLITE_OK) {
        mm_part_ask_end(n->r.db, &w->row, err);
    }
    mm_stray_end(n->r.db, err);
    if (err->rc == SQLITE_OK) {
        w->end_ms = now + n->parts_keep_ms; /* once more, should that one be lost with the outbox */
        mm_log(MM_LOG_INFO, "the unfinished transaction of node %lld in shard %d is ended: no part came for long",
               (long long)w->row.node, w->row.shard);
    }
}

void mm_node_parts_step(struct mm_node *n)
{
    int64_t now = mm_clock_mono_ms();
    struct mm_err err;
    mm_err_init(&err);
    if (!healthy(n)) {
        n->parts_quiet_ms = 0;
        return;
    }
    /* Whoever comes back together with this node has that long to go on sending. */
    n->parts_quiet_ms = n->parts_quiet_ms == 0 ? now + n->parts_keep_ms / LOOKS : n->parts_quiet_ms;
    if (now < n->next_parts_ms) {
        return;
    }
    n->next_parts_ms = now + n->parts_keep_ms / LOOKS;
    mm_gate_enter();
    look(n, now, &err);
    for (int k = 0; k < n->nparts && err.rc == SQLITE_OK && now >= n->parts_quiet_ms; k++) {
        if (now >= n->parts[k].end_ms && n->parts[k].row.shard <= n->r.nshard && !own(n, &n->parts[k].row)) {
            ask(n, &n->parts[k], now, &err);
        }
    }
    mm_gate_leave();
    if (err.rc != SQLITE_OK && (err.rc & 0xff) != SQLITE_BUSY) {
        mm_log(MM_LOG_DEBUG, "unfinished transactions are looked at again later: %s", err.msg);
    }
}
