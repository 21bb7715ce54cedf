#include "repl/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/log.h"
#include "capture/trigger.h"
#include "store/meta.h"
#include "store/stray.h"

enum { NAMES_MAX = 64 << 20 };
#define DATA_MAX ((size_t)1 << 30)

/* Ids cover what was accepted, except under an incarnation whose numbers the
** log gave to others (their ids are of another history): there, and right
** after leaving it, the transaction's own txid tells. */
static bool accepted(struct mm_repl *r, struct mm_shard *s, const struct mm_outbox_row *row, struct mm_err *err)
{
    const struct mm_origin *o = mm_accept_last(s->accept, r->node, row->incarnation, err);
    if (o == NULL) {
        return false;
    }
    bool by_txid = row->incarnation == r->move_due || (r->moved_before && o->seq == 0);
    return by_txid ? mm_origin_txid_known(r->db, s->n, r->node, row->txid, err) : row->id <= o->outbox;
}

static bool accepted_everywhere(struct mm_repl *r, const struct mm_outbox_row *row, struct mm_err *err)
{
    for (int k = 0; k < r->nshard; k++) {
        if (!accepted(r, &r->shard[k], row, err)) {
            return false;
        }
    }
    return true;
}

static void watch_again(struct mm_shard *s, const struct mm_buf *data, struct mm_err *err)
{
    bool joined;
    if (err->rc == SQLITE_OK && mm_watch_left(data->data, data->len, &joined)) {
        mm_pending_left(s->pending, (const char *)data->data + 1, joined, err);
    }
}

/* A row becomes pending in each shard that it touches and that has not
** accepted it; or, when `only` is given, in those that it names (bit n - 1). */
static int push_row(struct mm_repl *r, const struct mm_outbox_row *row, const uint64_t *only, struct mm_buf *names,
                    struct mm_buf *data, struct mm_err *err)
{
    struct mm_arena a;
    mm_arena_init(&a, (size_t)2 << 30);
    struct mm_txn txn = { .arena = &a };
    int64_t bytes = (int64_t)(names->len + data->len);
    int control_shard = 0;
    if (row->kind == MM_OUTBOX_TXN) {
        mm_change_read(&txn, data->data, data->len, names->data, names->len, mm_targets_coll, r->targets, err);
        mm_err_prefix(err, "outbox row %lld", (long long)row->id);
    } else {
        control_shard = mm_control_shard(r, data->data, data->len, err);
        mm_err_prefix(err, "outbox row %lld", (long long)row->id);
    }
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK; k++) {
        struct mm_shard *s = &r->shard[k];
        bool here = only != NULL ? (*only >> k & 1) != 0 : !accepted(r, s, row, err);
        if (!here || err->rc != SQLITE_OK) {
            continue;
        }
        if (row->kind == MM_OUTBOX_TXN) {
            mm_pending_push(s->pending, row, &txn, bytes, err);
        } else if (control_shard == s->n) {
            mm_pending_push(s->pending, row, NULL, bytes, err);
            watch_again(s, data, err);
        }
    }
    mm_arena_free(&a);
    return err->rc;
}

int mm_repl_read_outbox(struct mm_repl *r, struct mm_err *err)
{
    struct mm_buf names;
    struct mm_buf data;
    struct mm_outbox_row row;
    mm_buf_init(&names, NAMES_MAX);
    mm_buf_init(&data, DATA_MAX);
    if (sqlite3_txn_state(r->db, "main") == SQLITE_TXN_WRITE) {
        mm_trigger_move(r->db, NULL, err);
    }
    while (mm_outbox_next(r->outbox, r->outbox_read, &row, NULL, NULL, err)) {
        mm_buf_clear(&names);
        mm_buf_clear(&data);
        if (!accepted_everywhere(r, &row, err) && err->rc == SQLITE_OK &&
            mm_outbox_get(r->outbox, row.id, &row, &names, &data, err)) {
            push_row(r, &row, NULL, &names, &data, err);
        }
        if (err->rc != SQLITE_OK) {
            r->reload_needed = true; /* it may be pending in one shard and not in another */
            break;
        }
        r->kept_bytes += (int64_t)(names.len + data.len);
        r->outbox_read = row.id;
    }
    mm_buf_free(&names);
    mm_buf_free(&data);
    return err->rc;
}

/* Whether this database has joined, and what: another process may have done it. */
static int read_membership(struct mm_repl *r, struct mm_err *err)
{
    char *cluster = mm_meta_text(r->db, MM_META_CLUSTER, err);
    r->joined = mm_meta_int(r->db, MM_META_JOINED, 0, err) != 0;
    r->move_due = mm_meta_int(r->db, MM_META_MOVE_DUE, 0, err);
    r->move_shards = (uint64_t)mm_meta_int(r->db, MM_META_MOVE_SHARDS, 0, err);
    r->moved_before = mm_meta_int(r->db, MM_META_MOVED, 0, err) != 0;
    (void)snprintf(r->cluster_id, sizeof r->cluster_id, "%s", cluster != NULL ? cluster : "");
    sqlite3_free(cluster);
    return err->rc;
}

int mm_repl_reload(struct mm_repl *r, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    r->reload_needed = true;
    read_membership(r, err);
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK; k++) {
        struct mm_shard *s = &r->shard[k];
        struct mm_position pos;
        mm_position_get(r->db, s->n, &pos, err);
        if (err->rc != SQLITE_OK) {
            break;
        }
        s->pos = pos;
        mm_accept_reset(s->accept);
        mm_pending_reset(s->pending);
        mm_accept_close(s->replay);
        mm_buf_free(&s->large.body);
        s->replay = NULL;
        s->dirty = s->following = s->checked = false;
        s->next = 0;
        s->window_bytes = 0;
        s->attempt++;
        s->flight = 0;
        s->large.count = 0;
        s->verify_seq = 0;
        mm_buf_free(&s->answer);
    }
    mm_targets_forget(r->targets);
    mm_outbox_forget(r->outbox);
    int64_t echoed = mm_outbox_echoed_upto(r->outbox, err);
    if (err->rc == SQLITE_OK) {
        r->epoch = r->shard[0].pos.epoch > 0 ? r->shard[0].pos.epoch : 1;
        r->echoed_written = r->outbox_read = echoed;
        r->tables_changed = true; /* a table may wait for the log to be read again */
        r->reload_needed = false;
        mm_repl_read_outbox(r, err);
    }
    return err->rc;
}

/* What is pending now, by outbox id. */
struct pending_id {
    int64_t id;
    uint64_t shards; /* bit n - 1 */
};

static int compare_ids(const void *a, const void *b)
{
    const struct pending_id *x = a;
    const struct pending_id *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* All of it, ascending, one entry an id; NULL with *n = 0 when there is none. */
static struct pending_id *pending_ids(struct mm_repl *r, size_t *n, struct mm_err *err)
{
    size_t all = 0;
    for (int k = 0; k < r->nshard; k++) {
        all += mm_pending_count(r->shard[k].pending);
    }
    struct pending_id *list = all > 0 ? calloc(all, sizeof *list) : NULL;
    *n = 0;
    if (list == NULL) {
        if (all > 0) {
            mm_err_nomem(err);
        }
        return NULL;
    }
    for (int k = 0; k < r->nshard; k++) {
        for (size_t j = 0; j < mm_pending_count(r->shard[k].pending); j++) {
            list[*n].id = mm_pending_at(r->shard[k].pending, j)->id;
            list[(*n)++].shards = 1ULL << k;
        }
    }
    qsort(list, *n, sizeof *list, compare_ids);
    size_t kept = 0;
    for (size_t k = 0; k < *n; k++) {
        if (kept > 0 && list[kept - 1].id == list[k].id) {
            list[kept - 1].shards |= list[k].shards;
        } else {
            list[kept++] = list[k];
        }
    }
    *n = kept;
    return list;
}

int64_t mm_repl_pending_transactions(struct mm_repl *r, int64_t upto, struct mm_err *err)
{
    size_t n = 0;
    int64_t count = 0;
    struct pending_id *list = err->rc == SQLITE_OK ? pending_ids(r, &n, err) : NULL;
    for (size_t k = 0; k < n && list[k].id <= upto; k++) {
        struct mm_outbox_row row;
        count += mm_outbox_get(r->outbox, list[k].id, &row, NULL, NULL, err) && row.kind == MM_OUTBOX_TXN;
    }
    free(list);
    return count;
}

int mm_repl_rekey(struct mm_repl *r, struct mm_err *err)
{
    struct mm_buf names;
    struct mm_buf data;
    size_t n = 0;
    struct pending_id *list = err->rc == SQLITE_OK ? pending_ids(r, &n, err) : NULL;
    mm_buf_init(&names, NAMES_MAX);
    mm_buf_init(&data, DATA_MAX);
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK; k++) {
        mm_pending_reset(r->shard[k].pending);
    }
    for (size_t k = 0; k < n && err->rc == SQLITE_OK; k++) {
        struct mm_outbox_row row;
        mm_buf_clear(&names);
        mm_buf_clear(&data);
        if (!mm_outbox_get(r->outbox, list[k].id, &row, &names, &data, err)) {
            mm_err_set(err, SQLITE_CORRUPT, "outbox row %lld is gone before it was echoed: restore the outbox",
                       (long long)list[k].id);
        }
        if (err->rc == SQLITE_OK) {
            push_row(r, &row, &list[k].shards, &names, &data, err);
        }
    }
    mm_buf_free(&names);
    mm_buf_free(&data);
    free(list);
    r->reload_needed = r->reload_needed || err->rc != SQLITE_OK;
    return err->rc;
}

int64_t mm_repl_echoed(struct mm_repl *r)
{
    if (r->reload_needed) { /* echoes in memory may be of a batch that was rolled back */
        return r->echoed_written;
    }
    int64_t upto = r->outbox_read;
    for (int k = 0; k < r->nshard; k++) {
        struct mm_pending *p = r->shard[k].pending;
        if (mm_pending_count(p) > 0 && mm_pending_at(p, 0)->id - 1 < upto) {
            upto = mm_pending_at(p, 0)->id - 1;
        }
    }
    return upto;
}

static int64_t derive(int64_t old, const uint8_t *txid)
{
    uint64_t h = 14695981039346656037ULL;
    for (int k = 0; k < 8; k++) {
        h = (h ^ (uint8_t)((uint64_t)old >> (8 * k))) * 1099511628211ULL;
    }
    for (int k = 0; k < MM_TXID_SIZE; k++) {
        h = (h ^ txid[k]) * 1099511628211ULL;
    }
    return (int64_t)(h >> 1) | 1;
}

bool mm_repl_caught_up(const struct mm_repl *r)
{
    for (int k = 0; k < r->nshard; k++) {
        const struct mm_shard *s = &r->shard[k];
        if (s->blocked_seq == 0 && (!s->checked || s->pos.seq < s->sync_seq)) {
            return false;
        }
    }
    return true;
}

int mm_repl_note_moved(struct mm_repl *r, int64_t old, int shard, struct mm_err *err)
{
    uint64_t shards = (r->move_due == old ? r->move_shards : 0) | 1ULL << (shard - 1);
    if (r->move_due != old) {
        mm_log(MM_LOG_WARN, "this database was set back to an older state: what is written here from now on gets a new "
                            "incarnation, nothing is lost");
        r->move_due = old;
        mm_meta_set_int(r->db, MM_META_MOVE_DUE, old, err);
        mm_meta_set_text(r->db, MM_META_MOVE_TO, NULL, err); /* of another incarnation */
    }
    if (shards != r->move_shards) {
        r->move_shards = shards;
        mm_meta_set_int(r->db, MM_META_MOVE_SHARDS, (int64_t)shards, err);
    }
    return err->rc;
}

int mm_repl_fresh_incarnation(struct mm_repl *r, struct mm_err *err)
{
    int64_t fresh = 0;
    sqlite3_randomness(sizeof fresh, &fresh);
    r->tables_changed = true; /* the status tells it */
    return mm_head_set_incarnation(r->db, (fresh & INT64_MAX) | 1, err);
}

int mm_repl_enter_epoch(struct mm_repl *r, const struct mm_position *pos, struct mm_err *err)
{
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    for (int k = 0; k < r->nshard; k++) {
        mm_position_set(r->db, &pos[k], err);
    }
    mm_repl_fresh_incarnation(r, err);
    mm_meta_set_text(r->db, MM_META_SEED, NULL, err);
    mm_stray_end(r->db, err);
    return err->rc == SQLITE_OK ? mm_repl_reload(r, err) : err->rc;
}

int mm_repl_note_moved_to(struct mm_repl *r, const struct mm_pend *e, int64_t to, int shard, struct mm_err *err)
{
    if (e->incarnation != r->move_due && e->incarnation != mm_head_incarnation(r->db, err)) {
        return err->rc; /* it has moved itself */
    }
    mm_repl_note_moved(r, e->incarnation, shard, err);
    return mm_meta_set_int(r->db, MM_META_MOVE_TO, to, err);
}

int mm_repl_settle_move(struct mm_repl *r, bool *moved, struct mm_err *err)
{
    if (r->move_due == 0 || !mm_repl_caught_up(r) || err->rc != SQLITE_OK) {
        return err->rc;
    }
    int64_t old = r->move_due;
    mm_repl_read_outbox(r, err);
    const struct mm_pend *first = NULL;
    for (int k = 0; k < r->nshard; k++) {
        struct mm_pending *p = r->shard[k].pending;
        for (size_t j = 0; (r->move_shards >> k & 1) != 0 && j < mm_pending_count(p); j++) {
            const struct mm_pend *e = mm_pending_at(p, j);
            if (e->incarnation == old) {
                first = first == NULL || e->id < first->id ? e : first;
                break;
            }
        }
    }
    *moved = true;
    if (first != NULL) {
        int64_t to = mm_meta_int(r->db, MM_META_MOVE_TO, 0, err);
        mm_outbox_move(r->outbox, old, first->id, to != 0 ? to : derive(old, first->txid), err);
    }
    mm_meta_set_text(r->db, MM_META_MOVE_TO, NULL, err);
    mm_meta_set_int(r->db, MM_META_MOVED, 1, err);
    mm_meta_set_text(r->db, MM_META_MOVE_DUE, NULL, err);
    return mm_repl_fresh_incarnation(r, err);
}

bool mm_repl_dirty(const struct mm_repl *r)
{
    for (int k = 0; k < r->nshard; k++) {
        if (r->shard[k].dirty) {
            return true;
        }
    }
    return false;
}
