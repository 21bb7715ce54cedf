#include <stdlib.h>
#include <string.h>

#include "repl/apply_int.h"

#define ARENA_MAX ((size_t)1 << 30)

/* What becomes of one key of the message. */
struct plan {
    const struct mm_value *key;
    struct mm_value *current; /* NULL: not there */
    struct mm_value *image;   /* NULL: the row goes, or stays away */
};

struct two_phase {
    sqlite3 *db;
    struct mm_view *v;
    struct mm_apply_how *how;
    struct mm_arena arena;
    struct plan *plan;
    size_t n;
    struct mm_rows later;
    struct mm_err *err;
};

static struct mm_value *new_row(struct two_phase *p)
{
    struct mm_value *row = mm_arena_array(&p->arena, (size_t)p->v->t->def->ncol, sizeof *row);
    if (row == NULL) {
        mm_err_nomem(p->err);
    }
    return row;
}

/* A copy that outlives the statement it was read from. */
static struct mm_value *copy_row(struct two_phase *p, const struct mm_value *from)
{
    struct mm_value *row = new_row(p);
    for (int k = 0; row != NULL && k < p->v->t->def->ncol; k++) {
        if (!mm_value_copy(&p->arena, &row[k], &from[k])) {
            mm_err_nomem(p->err);
        }
    }
    return row;
}

static struct mm_value *read_key(struct two_phase *p, const struct mm_value *key)
{
    struct mm_value *row = NULL;
    if (mm_target_read(p->v->t, p->db, key, p->v->current, p->err)) {
        row = copy_row(p, p->v->current);
    }
    mm_target_done(p->v->t);
    return row;
}

static void plan_fold(struct two_phase *p, struct plan *plan, enum mm_op op, const struct mm_value *old,
                      const struct mm_value *new)
{
    enum mm_conflict_kind kind = MM_CONFLICT_NONE;
    struct mm_value *image = new_row(p);
    if (image == NULL) {
        return;
    }
    enum mm_fold_act act = mm_fold_row(op, p->how->all, &p->v->columns, old, new, plan->current, image, &kind);
    if (kind != MM_CONFLICT_NONE) {
        mm_apply_conflict(p->db, p->v->t, p->how, kind, plan->key, plan->current != NULL ? plan->current : new,
                          plan->current != NULL ? new : NULL, p->err);
    }
    /* A row that stays as it is is written again in its turn, like all others:
    ** who evicts whom follows from the order of the keys alone. */
    plan->image = act == MM_FOLD_WRITE ? image : act == MM_FOLD_NOTHING ? plan->current : NULL;
    if (p->how->images != NULL && (act != MM_FOLD_NOTHING || plan->current != NULL)) {
        mm_image_add(p->how->images, p->v->t, plan->key, plan->current);
    }
}

static void plan_undo(struct two_phase *p, struct plan *plan, const struct mm_value *stood)
{
    struct mm_value *image = stood != NULL ? new_row(p) : NULL;
    for (int k = 0; image != NULL && k < p->v->t->def->ncol; k++) {
        /* A column younger than the image keeps what it has. */
        image[k] = stood[k].type == MM_UNDEF && plan->current != NULL ? plan->current[k] : stood[k];
    }
    plan->image = image;
}

static void plan_row(struct two_phase *p, const struct mm_row *row, bool undo)
{
    struct plan *plan = &p->plan[p->n];
    struct mm_value *old = row->before != NULL ? mm_view_local(p->v, row->before, new_row(p)) : NULL;
    struct mm_value *new = row->after != NULL ? mm_view_local(p->v, row->after, new_row(p)) : NULL;
    if (p->err->rc != SQLITE_OK) {
        return;
    }
    const struct mm_value *any = old != NULL ? old : new;
    if (mm_apply_is_keyless(p->v->t, any)) {
        mm_apply_keyless(p->db, p->v, row, p->how, undo, &p->later, p->err);
        return;
    }
    bool back = undo && row->op == MM_OP_INSERT;
    plan->key = back ? new : any;
    plan->current = read_key(p, plan->key);
    if (p->err->rc != SQLITE_OK) {
        return;
    }
    if (undo) {
        plan_undo(p, plan, back ? new : NULL);
    } else {
        plan_fold(p, plan, row->op, old, new);
    }
    p->n++;
}

static int compare_plans(const void *x, const void *y, void *arg)
{
    const struct mm_table *def = arg;
    const struct plan *a = x;
    const struct plan *b = y;
    for (int place = 1; place <= def->ncol; place++) {
        for (int k = 0; k < def->ncol; k++) {
            if (def->col[k].pk == place) {
                int c = mm_value_compare(&a->key[k], &b->key[k], (enum mm_coll)def->col[k].coll);
                if (c != 0) {
                    return c;
                }
            }
        }
    }
    return 0;
}

/* Whether the message itself names this key; the plans are sorted by now. */
static bool in_plan(const struct two_phase *p, const struct mm_value *key)
{
    struct plan probe = { .key = key };
    size_t low = 0;
    size_t high = p->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = compare_plans(&probe, &p->plan[mid], p->v->t->def);
        if (c == 0) {
            return true;
        }
        low = c > 0 ? mid + 1 : low;
        high = c < 0 ? mid : high;
    }
    return false;
}

/* The row that holds one of the image's UNIQUE values goes. */
static void evict(struct two_phase *p, const struct mm_value *image)
{
    struct mm_target *t = p->v->t;
    struct mm_value *row = mm_target_holder(t, p->db, image, p->v->current, p->err) ? copy_row(p, p->v->current) : NULL;
    mm_target_holder_done(t);
    if (row == NULL || p->err->rc != SQLITE_OK) {
        return;
    }
    mm_apply_conflict(p->db, t, p->how, MM_CONFLICT_UNIQUE, row, row, image, p->err);
    if (p->how->images != NULL && mm_apply_is_keyless(t, row)) {
        mm_image_add_keyless(p->how->images, t, row, true);
    } else if (p->how->images != NULL && !in_plan(p, row)) {
        mm_image_add(p->how->images, t, row, row);
    }
    mm_target_evict(t, p->db, row, p->err);
}

/* Each time round one row fewer is in its way: one for each set, one under the key. */
static void write_image(struct two_phase *p, const struct mm_value *image)
{
    int left = p->v->t->def->nunique + 2;
    while (p->err->rc == SQLITE_OK && !mm_target_add(p->v->t, p->db, image, p->err)) {
        if (left-- == 0) {
            mm_err_set(p->err, SQLITE_CORRUPT, "table %s: its indexes hold more rows than can be: run REINDEX",
                       p->v->t->name);
        }
        evict(p, image);
    }
}

size_t mm_apply_keyless_takes(struct mm_view *v)
{
    size_t n = 0;
    for (size_t k = 0; k < v->tab->nrow; k++) {
        const struct mm_value *old = mm_view_local(v, v->tab->row[k].before, v->old);
        n += old != NULL && mm_apply_is_keyless(v->t, old);
    }
    return n;
}

/* Rows to take are looked for all at once where that pays. */
static void find_many(struct two_phase *p)
{
    struct mm_view *v = p->v;
    size_t rows = mm_apply_keyless_takes(v);
    if (!mm_target_many_pays(v->t, p->db, rows, p->err) || mm_target_many_begin(v->t, rows, p->err) != SQLITE_OK) {
        return;
    }
    for (size_t k = 0; k < v->tab->nrow; k++) {
        const struct mm_value *old = mm_view_whole(v, p->db, v->tab->row[k].before, v->old, p->err);
        if (old != NULL && mm_apply_is_keyless(v->t, old)) {
            mm_target_many_want(v->t, old);
        }
    }
    mm_target_many_find(v->t, p->db, rows, p->err);
}

int mm_apply_unique(sqlite3 *db, struct mm_view *v, struct mm_apply_how *how, bool undo, struct mm_err *err)
{
    struct two_phase p = { .db = db, .v = v, .how = how, .err = err };
    mm_arena_init(&p.arena, ARENA_MAX);
    p.later.arena = &p.arena;
    p.plan = mm_arena_array(&p.arena, v->tab->nrow, sizeof *p.plan);
    if (p.plan == NULL) {
        mm_err_nomem(err);
    }
    find_many(&p);
    for (size_t k = 0; k < v->tab->nrow && err->rc == SQLITE_OK; k++) {
        plan_row(&p, &v->tab->row[undo ? v->tab->nrow - 1 - k : k], undo);
    }
    mm_target_many_end(v->t);
    for (size_t k = 0; k < p.n && err->rc == SQLITE_OK; k++) {
        if (p.plan[k].current != NULL) {
            mm_target_remove(v->t, db, p.plan[k].current, err);
        }
    }
    qsort_r(p.plan, p.n, sizeof *p.plan, compare_plans, v->t->def);
    for (size_t k = 0; k < p.n && err->rc == SQLITE_OK; k++) {
        if (p.plan[k].image != NULL) {
            write_image(&p, p.plan[k].image);
        }
    }
    for (uint32_t k = 0; k < p.later.n && err->rc == SQLITE_OK; k++) {
        if (mm_rows_at(&p.later, k) != NULL) {
            write_image(&p, mm_rows_at(&p.later, k));
        }
    }
    mm_rows_free(&p.later);
    mm_arena_free(&p.arena);
    return err->rc;
}
