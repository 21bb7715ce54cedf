#include "repl/shadow.h"

#include "base/clock.h"

#define IMAGES_MAX ((size_t)1 << 30)

bool mm_shadow_comparable(struct mm_repl *copy, struct mm_repl *live, const char *table, struct mm_err *err)
{
    const struct mm_target *a = mm_targets_get(copy->targets, table, err);
    const struct mm_target *b = mm_targets_get(live->targets, table, err);
    return a != NULL && b != NULL && a->def != NULL && b->def != NULL && a->state == MM_WATCHED &&
           b->state == MM_WATCHED && mm_table_hash(a->def) == mm_table_hash(b->def);
}

static int do_one(struct mm_repl *copy, struct mm_repl *live, int shard, struct mm_pend *e, struct mm_err *err)
{
    struct mm_pend_scratch s;
    struct mm_image images;
    struct mm_apply_how how = { .shard = shard, .pending = true, .all = live->all_columns, .images = &images };
    mm_pend_scratch_init(&s);
    mm_image_init(&images, IMAGES_MAX);
    mm_pending_read(live->shard[shard - 1].pending, e, &s.txn, &s.names, &s.data, err);
    mm_pending_leave_out(live->shard[shard - 1].pending, e->id, &s.txn, err);
    mm_apply_txn(copy->db, copy->targets, &s.txn, &how, err);
    if (mm_image_pack(&images, &s.images, err) == SQLITE_OK) {
        mm_outbox_undo_put(copy->outbox, e->id, shard, !how.conflict, s.images.data, s.images.len, err);
    }
    mm_image_free(&images);
    mm_pend_scratch_free(&s);
    return err->rc;
}

typedef int each_pend(struct mm_repl *copy, struct mm_repl *live, int shard, struct mm_pend *e, struct mm_err *err);

static int each_after(struct mm_repl *copy, struct mm_repl *live, int64_t *upto, int64_t until_us, each_pend *f,
                      struct mm_err *err)
{
    for (int k = 0; k < live->nshard && err->rc == SQLITE_OK; k++) { /* it may be half open */
        struct mm_pending *p = live->shard[k].pending;
        for (size_t at = 0; at < mm_pending_count(p) && err->rc == SQLITE_OK; at++) {
            struct mm_pend *e = mm_pending_at(p, at);
            if (e->id <= upto[k]) {
                continue;
            }
            if (until_us > 0 && mm_clock_mono_us() >= until_us) {
                return err->rc;
            }
            if (e->kind == MM_OUTBOX_TXN) {
                f(copy, live, k + 1, e, err);
            }
            upto[k] = e->id;
        }
    }
    return err->rc;
}

int mm_shadow_follow(struct mm_repl *copy, struct mm_repl *live, int64_t *upto, int64_t until_us, struct mm_err *err)
{
    return each_after(copy, live, upto, until_us, do_one, err);
}

bool mm_shadow_behind(struct mm_repl *live, const int64_t *upto)
{
    for (int k = 0; k < live->nshard; k++) {
        struct mm_pending *p = live->shard[k].pending;
        size_t n = mm_pending_count(p);
        if (n > 0 && mm_pending_at(p, n - 1)->id > upto[k]) {
            return true;
        }
    }
    return false;
}

/* Of a row that did not stand there only the key is told. */
static bool same_row(const struct mm_tab *a, const struct mm_row *x, const struct mm_row *y)
{
    const struct mm_value *p = x->op == MM_OP_INSERT ? x->after : x->before;
    const struct mm_value *q = y->op == MM_OP_INSERT ? y->after : y->before;
    bool keyless = true;
    for (uint32_t k = 0; k < a->ncol; k++) {
        keyless = keyless && a->pk[k] == 0;
    }
    bool same = x->op == y->op;
    for (uint32_t k = 0; same && k < a->ncol; k++) {
        same = (x->op == MM_OP_DELETE && a->pk[k] == 0 && !keyless) || mm_value_same(&p[k], &q[k]);
    }
    return same;
}

static bool same_images(const struct mm_txn *x, const struct mm_txn *y)
{
    bool same = x->ntab == y->ntab;
    for (size_t k = 0; same && k < x->ntab; k++) {
        const struct mm_tab *a = &x->tab[k];
        const struct mm_tab *b = &y->tab[k];
        same = sqlite3_stricmp(a->name, b->name) == 0 && a->ncol == b->ncol && a->nrow == b->nrow;
        for (uint32_t c = 0; same && c < a->ncol; c++) {
            same = sqlite3_stricmp(a->col[c], b->col[c]) == 0;
        }
        for (size_t j = 0; same && j < a->nrow; j++) {
            same = same_row(a, &a->row[j], &b->row[j]);
        }
    }
    return same;
}

static int one_image(struct mm_repl *copy, struct mm_repl *live, int shard, struct mm_pend *e, struct mm_err *err)
{
    struct mm_pend_scratch ours;
    struct mm_pend_scratch theirs;
    bool clean = true;
    mm_pend_scratch_init(&ours);
    mm_pend_scratch_init(&theirs);
    mm_pending_images(live->shard[shard - 1].pending, e, &ours, err);
    bool usable = mm_outbox_undo_get(copy->outbox, e->id, shard, &clean, &theirs.images, err) != 0;
    if (usable && mm_buf_check(&theirs.images, err, "before-images") == SQLITE_OK) {
        mm_image_unpack(&theirs.txn, theirs.images.data, theirs.images.len, copy->targets, err);
    }
    for (size_t k = 0; k < ours.txn.ntab; k++) {
        usable = usable && mm_shadow_comparable(copy, live, ours.txn.tab[k].name, err);
    }
    if (usable && err->rc == SQLITE_OK && !same_images(&ours.txn, &theirs.txn)) {
        mm_outbox_undo_put(live->outbox, e->id, shard, clean, theirs.images.data, theirs.images.len, err);
        e->clean = clean;
    }
    mm_pend_scratch_free(&ours);
    mm_pend_scratch_free(&theirs);
    return err->rc;
}

int mm_shadow_images(struct mm_repl *copy, struct mm_repl *live, int64_t *done, int64_t until_us, struct mm_err *err)
{
    return each_after(copy, live, done, until_us, one_image, err);
}
