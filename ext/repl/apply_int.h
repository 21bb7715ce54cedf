/* What the files of apply share: apply.c maps columns and writes row after
** row, apply_unique.c tables with UNIQUE sets beyond the key, apply_keyless.c
** rows without identity. Beside them only merge.c includes this, for its conflicts. */
#ifndef MM_REPL_APPLY_INT_H
#define MM_REPL_APPLY_INT_H

#include "repl/apply.h"
#include "repl/fold.h"

/* One table's changes, in the order of the local columns. */
struct mm_view {
    struct mm_target *t;
    const struct mm_tab *tab;
    int *local; /* message column -> local column; MM_PLACE_NOWHERE: it has none here */
    bool *sent; /* the local columns that the message has */
    struct mm_fold_columns columns;
    struct mm_value *old, *new, *current, *image;
};

/* Room for one message's table, in the arena; false: no memory. */
bool mm_view_open(struct mm_view *v, struct mm_arena *a, const struct mm_tab *tab, struct mm_target *t);
/* Maps its columns. NULL when the table's rows can be written here, else why not. */
const char *mm_view_misfit(struct mm_view *v);

/* A message's row in local order, into `out` (def->ncol values); NULL for NULL. */
struct mm_value *mm_view_local(const struct mm_view *v, const struct mm_value *row, struct mm_value *out);

/* The same of a row without identity: in columns that the message does not have, since its node had
** none, is what such a row holds there, their default. UNDEF where that is NULL. */
struct mm_value *mm_view_whole(struct mm_view *v, sqlite3 *db, const struct mm_value *row, struct mm_value *out,
                               struct mm_err *err);

/* Notes a conflict in how, and records it unless this is a redo. */
void mm_apply_conflict(sqlite3 *db, const struct mm_target *t, struct mm_apply_how *how, enum mm_conflict_kind kind,
                       const struct mm_value *key, const struct mm_value *lost, const struct mm_value *won,
                       struct mm_err *err);

/* All rows of a view in two phases (SPEC 4): all keys are read and deleted,
** then the images are written in ascending key order, rows without identity
** behind them, each evicting what still holds one of its UNIQUE values. `undo`: rows are before-images. */
int mm_apply_unique(sqlite3 *db, struct mm_view *v, struct mm_apply_how *how, bool undo, struct mm_err *err);

/* Rows without identity that are written after all others, in the order of the
** message; of equal ones any may be taken out again. */
struct mm_rows {
    struct mm_arena *arena; /* borrowed */
    struct planned *row;
    uint32_t *slot;
    uint32_t n, cap;
};
void mm_rows_free(struct mm_rows *p);
const struct mm_value *mm_rows_at(const struct mm_rows *p, uint32_t index); /* NULL: taken out again */

/* How many rows without identity the view's changes take away. */
size_t mm_apply_keyless_takes(struct mm_view *v);
/* True when the row has no identity: a keyless table, or a NULL in its key. */
bool mm_apply_is_keyless(const struct mm_target *t, const struct mm_value *row);
/* One such row: taken by all its columns, type and bytes; the new one is
** written, or left to `later` unless that is NULL. */
int mm_apply_keyless(sqlite3 *db, struct mm_view *v, const struct mm_row *row, struct mm_apply_how *how, bool undo,
                     struct mm_rows *later, struct mm_err *err);

#endif
