#include <string.h>

#include "repl/apply_int.h"

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

/* What the row is after the change: the old one with what was sent over it. */
static const struct mm_value *after_of(struct mm_view *v, const struct mm_row *row, const struct mm_value *old)
{
    const struct mm_value *sent = mm_view_local(v, row->after, v->new);
    for (int k = 0; sent != NULL && k < v->t->def->ncol; k++) {
        v->image[k] = sent[k].type == MM_UNDEF && old != NULL ? old[k] : sent[k];
    }
    return sent != NULL ? v->image : NULL;
}

int mm_apply_keyless(sqlite3 *db, struct mm_view *v, const struct mm_row *row, struct mm_apply_how *how, bool undo,
                     struct mm_err *err)
{
    const struct mm_value *old = mm_view_local(v, row->before, v->old);
    const struct mm_value *new = after_of(v, row, undo ? NULL : old);
    bool taken = false;
    if (old != NULL) {
        /* What is pending, or was put back by an undo, stands at the end: from the start each row
        ** of a long outbox would read the whole table, while the host waits for the lock. */
        taken = mm_target_take_one(v->t, db, old, how->pending, err);
        if (taken && how->images != NULL) {
            mm_image_add_keyless(how->images, v->t, old, true);
        }
        if (!taken && row->op == MM_OP_UPDATE && !undo) {
            mm_apply_conflict(db, v->t, how, MM_CONFLICT_UPDATE_MISSING, old, new, NULL, err);
            return err->rc;
        }
        /* A row that is gone was not as the pending transaction left it. */
        how->conflict = how->conflict || !taken;
    }
    if (new != NULL && err->rc == SQLITE_OK) {
        mm_target_write(v->t, db, new, new, false, err);
        if (how->images != NULL) {
            mm_image_add_keyless(how->images, v->t, new, false);
        }
    }
    how->rows++;
    return err->rc;
}
