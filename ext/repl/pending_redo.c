#include "repl/pending_int.h"

#define IMAGES_MAX ((size_t)1 << 30)
#define ARENA_MAX ((size_t)2 << 30)

int mm_pending_read(struct mm_pending *p, const struct mm_pend *e, struct mm_txn *txn, struct mm_buf *names,
                    struct mm_buf *data, struct mm_err *err)
{
    struct mm_outbox_row row;
    if (!mm_outbox_get(p->outbox, e->id, &row, names, data, err)) {
        return mm_err_set(err, SQLITE_CORRUPT, "outbox row %lld is gone before it was echoed: restore the outbox",
                          (long long)e->id);
    }
    mm_change_read(txn, data->data, data->len, names->data, names->len, mm_targets_coll, p->targets, err);
    size_t kept = 0;
    for (size_t k = 0; k < txn->ntab && err->rc == SQLITE_OK; k++) {
        if (mm_targets_shard(p->targets, txn->tab[k].name, err) == p->shard) {
            txn->tab[kept++] = txn->tab[k];
        }
    }
    txn->ntab = kept;
    return err->rc;
}

/* See mm_pending_left. */
static bool left(struct mm_pending *p, int64_t id, const char *table, struct mm_err *err)
{
    const struct mm_target *t = mm_targets_get(p->targets, table, err);
    bool found = t != NULL && (t->state == MM_UNWATCHED || t->state == MM_UNSUPPORTED);
    for (size_t k = 0; k < p->nleft; k++) {
        found = found || (p->left[k].id > id && sqlite3_stricmp(p->left[k].table, table) == 0);
    }
    return found;
}

bool mm_pending_leave_out(struct mm_pending *p, int64_t id, struct mm_txn *txn, struct mm_err *err)
{
    size_t kept = 0;
    size_t all = txn->ntab;
    for (size_t k = 0; k < all && err->rc == SQLITE_OK; k++) {
        if (!left(p, id, txn->tab[k].name, err)) {
            txn->tab[kept++] = txn->tab[k];
        }
    }
    txn->ntab = kept;
    return kept < all;
}

void mm_pend_scratch_init(struct mm_pend_scratch *s)
{
    mm_arena_init(&s->arena, ARENA_MAX);
    mm_buf_init(&s->names, IMAGES_MAX);
    mm_buf_init(&s->data, IMAGES_MAX);
    mm_buf_init(&s->images, IMAGES_MAX);
    s->txn = (struct mm_txn){ .arena = &s->arena };
}

void mm_pend_scratch_free(struct mm_pend_scratch *s)
{
    mm_arena_free(&s->arena);
    mm_buf_free(&s->names);
    mm_buf_free(&s->data);
    mm_buf_free(&s->images);
}

int mm_pending_images(struct mm_pending *p, const struct mm_pend *e, struct mm_pend_scratch *s, struct mm_err *err)
{
    bool clean;
    if (mm_outbox_undo_get(p->outbox, e->id, p->shard, &clean, &s->images, err)) {
        mm_buf_check(&s->images, err, "before-images");
        mm_image_unpack(&s->txn, s->images.data, s->images.len, p->targets, err);
    } else {
        mm_pending_read(p, e, &s->txn, &s->names, &s->data, err);
        mm_image_of_captured(&s->txn);
    }
    mm_pending_leave_out(p, e->id, &s->txn, err);
    return mm_err_prefix(err, "pending transaction %lld", (long long)e->id);
}

static int undo_one(struct mm_pending *p, const struct mm_pend *e, struct mm_err *err)
{
    struct mm_pend_scratch s;
    mm_pend_scratch_init(&s);
    mm_pending_images(p, e, &s, err);
    mm_apply_images(p->db, p->targets, &s.txn, err);
    mm_pend_scratch_free(&s);
    return mm_err_prefix(err, "undoing pending transaction %lld", (long long)e->id);
}

int mm_pending_undo(struct mm_pending *p, size_t index, struct mm_err *err)
{
    while (p->undone_from > index && err->rc == SQLITE_OK) {
        const struct mm_pend *e = mm_pending_at(p, p->undone_from - 1);
        if (e->kind == MM_OUTBOX_TXN) {
            undo_one(p, e, err);
        }
        p->undone_from--;
    }
    return err->rc;
}

void mm_pending_all_undone(struct mm_pending *p)
{
    p->undone_from = 0;
}

static int redo_one(struct mm_pending *p, struct mm_pend *e, struct mm_err *err)
{
    struct mm_pend_scratch s;
    struct mm_image images;
    struct mm_apply_how how = { .shard = p->shard, .pending = true, .all = p->all, .images = &images };
    mm_pend_scratch_init(&s);
    mm_image_init(&images, IMAGES_MAX);
    mm_pending_read(p, e, &s.txn, &s.names, &s.data, err);
    bool whole = !mm_pending_leave_out(p, e->id, &s.txn, err);
    mm_apply_txn(p->db, p->targets, &s.txn, &how, err);
    mm_image_pack(&images, &s.images, err);
    if (err->rc == SQLITE_OK) {
        e->clean = whole && !how.conflict;
        mm_outbox_undo_put(p->outbox, e->id, p->shard, e->clean, s.images.data, s.images.len, err);
    }
    mm_image_free(&images);
    mm_pend_scratch_free(&s);
    return mm_err_prefix(err, "redoing pending transaction %lld", (long long)e->id);
}

int mm_pending_redo(struct mm_pending *p, struct mm_err *err)
{
    while (p->undone_from < p->count && err->rc == SQLITE_OK) {
        struct mm_pend *e = mm_pending_at(p, p->undone_from);
        if (e->kind == MM_OUTBOX_TXN) {
            redo_one(p, e, err);
        }
        p->undone_from++;
    }
    return err->rc;
}

int mm_pending_stay(struct mm_pending *p, int64_t id, bool all, struct mm_err *err)
{
    const struct mm_pend e = { .id = id };
    struct mm_apply_how how = { .shard = p->shard, .pending = true, .all = p->all };
    struct mm_pend_scratch s;
    size_t kept = 0;
    mm_pend_scratch_init(&s);
    if (err->rc == SQLITE_OK) {
        mm_pending_read(p, &e, &s.txn, &s.names, &s.data, err);
        mm_pending_leave_out(p, id, &s.txn, err);
    }
    for (size_t k = 0; k < s.txn.ntab && err->rc == SQLITE_OK; k++) {
        const struct mm_target *t = mm_targets_get(p->targets, s.txn.tab[k].name, err);
        if (t != NULL && (all || t->state == MM_STALE || mm_watch_needs_copy(t->state, t->joined_seq))) {
            s.txn.tab[kept++] = s.txn.tab[k];
        }
    }
    s.txn.ntab = kept;
    mm_apply_txn(p->db, p->targets, &s.txn, &how, err);
    mm_pend_scratch_free(&s);
    return mm_err_prefix(err, "keeping own transaction %lld", (long long)id);
}

int mm_pending_stay_echoed(struct mm_pending *p, bool all, struct mm_err *err)
{
    const struct mm_pend *e = mm_pending_at(p, 0);
    bool undone = mm_pending_undone(p, 0) && e->kind == MM_OUTBOX_TXN;
    return undone ? mm_pending_stay(p, e->id, all, err) : err->rc;
}
