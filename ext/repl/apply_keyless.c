#include <stdlib.h>
#include <string.h>

#include "repl/apply_int.h"

/* Rows without identity that a two-phase fold is going to write. */
struct planned {
    const struct mm_value *row; /* NULL: taken away again */
    uint64_t hash;
    uint32_t next; /* index + 1 in the same slot, 0 = end */
};

bool mm_apply_is_keyless(const struct mm_target *t, const struct mm_value *row)
{
    if (t->def->keyless) {
        return true;
    }
    for (int k = 0; k < t->def->ncol; k++) {
        if (t->def->col[k].pk != 0 && row[k].type == SQLITE_NULL) {
            return true;
        }
    }
    return false;
}

void mm_rows_free(struct mm_rows *p)
{
    free(p->row);
    free(p->slot);
    memset(p, 0, sizeof *p);
}

static bool grow(struct mm_rows *p)
{
    uint32_t cap = p->cap == 0 ? 64 : p->cap * 2;
    struct planned *row = cap > p->cap ? realloc(p->row, cap * sizeof *row) : NULL;
    uint32_t *slot = row != NULL ? calloc(cap, sizeof *slot) : NULL;
    p->row = row != NULL ? row : p->row;
    if (slot == NULL) {
        return false;
    }
    for (uint32_t k = 0; k < p->n; k++) {
        uint32_t *head = &slot[p->row[k].hash & (cap - 1)];
        p->row[k].next = *head;
        *head = k + 1;
    }
    free(p->slot);
    p->slot = slot;
    p->cap = cap;
    return true;
}

/* `row` lives as long as the plan. */
static void plan_add(struct mm_rows *p, const struct mm_value *row, int ncol, struct mm_err *err)
{
    if (p->n == p->cap && !grow(p)) {
        mm_err_nomem(err);
        return;
    }
    uint64_t hash = mm_target_hash(row, ncol);
    uint32_t *head = &p->slot[hash & (p->cap - 1)];
    p->row[p->n] = (struct planned){ row, hash, *head };
    *head = ++p->n;
}

/* Takes one such row out of the plan again. */
static bool plan_take(struct mm_rows *p, const struct mm_value *row, int ncol)
{
    uint64_t hash = p->n > 0 ? mm_target_hash(row, ncol) : 0;
    for (uint32_t at = p->n > 0 ? p->slot[hash & (p->cap - 1)] : 0; at != 0; at = p->row[at - 1].next) {
        struct planned *e = &p->row[at - 1];
        bool same = e->row != NULL && e->hash == hash;
        for (int k = 0; same && k < ncol; k++) {
            same = mm_value_same(&e->row[k], &row[k]);
        }
        if (same) {
            e->row = NULL;
            return true;
        }
    }
    return false;
}

const struct mm_value *mm_rows_at(const struct mm_rows *p, uint32_t index)
{
    return p->row[index].row;
}

struct mm_value *mm_view_whole(struct mm_view *v, sqlite3 *db, const struct mm_value *row, struct mm_value *out,
                               struct mm_err *err)
{
    struct mm_value *whole = mm_view_local(v, row, out);
    for (int k = 0; whole != NULL && k < v->t->def->ncol; k++) {
        const struct mm_value *fill = v->sent[k] ? NULL : mm_target_fill(v->t, db, err);
        whole[k] = fill != NULL ? fill[k] : whole[k];
    }
    return whole;
}

/* What the row is after the change: the old one with what was sent over it. */
static struct mm_value *after_of(struct mm_view *v, sqlite3 *db, const struct mm_row *row, const struct mm_value *old,
                                 struct mm_err *err)
{
    const struct mm_value *sent = mm_view_whole(v, db, row->after, v->new, err);
    for (int k = 0; sent != NULL && k < v->t->def->ncol; k++) {
        v->image[k] = sent[k].type == MM_UNDEF && old != NULL ? old[k] : sent[k];
    }
    return sent != NULL ? v->image : NULL;
}

int mm_apply_keyless(sqlite3 *db, struct mm_view *v, const struct mm_row *row, struct mm_apply_how *how, bool undo,
                     struct mm_rows *later, struct mm_err *err)
{
    int ncol = v->t->def->ncol;
    const struct mm_value *old = mm_view_whole(v, db, row->before, v->old, err);
    const struct mm_value *new = after_of(v, db, row, undo ? NULL : old, err);
    if (old != NULL && err->rc == SQLITE_OK) {
        /* What is pending, or was put back by an undo, stands at the end: from the start each row
        ** of a long outbox would read the whole table, while the host waits for the lock. */
        bool taken =
            (later != NULL && plan_take(later, old, ncol)) || mm_target_take_one(v->t, db, old, how->pending, err);
        if (taken && how->images != NULL) {
            mm_image_add_keyless(how->images, v->t, old, true);
        }
        if (!taken && row->op == MM_OP_UPDATE) { /* no before-image is one */
            mm_apply_conflict(db, v->t, how, MM_CONFLICT_UPDATE_MISSING, old, new, NULL, err);
            return err->rc;
        }
    }
    if (new != NULL && err->rc == SQLITE_OK) {
        if (later == NULL) {
            mm_target_write(v->t, db, new, new, false, err);
        } else {
            struct mm_value *keep = mm_arena_copy(later->arena, new, (size_t)ncol * sizeof *new);
            if (keep == NULL) {
                return mm_err_nomem(err);
            }
            plan_add(later, keep, ncol, err);
        }
        if (how->images != NULL) {
            mm_image_add_keyless(how->images, v->t, new, false);
        }
    }
    return err->rc;
}
