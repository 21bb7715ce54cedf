/* The fold of SPEC 4, row by row: the pure decision, without SQL or I/O.
**
** Threads: none of its own. The result depends on the change and the current
** row of the base alone, so every node that folds the same log decides the
** same. Columns are in the order of the receiving table. */
#ifndef MM_REPL_FOLD_H
#define MM_REPL_FOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "store/change.h"
#include "store/position.h"
#include "wire/wire.h"

enum mm_conflict_kind {
    MM_CONFLICT_NONE,
    MM_CONFLICT_INSERT,         /* another row stood where the full row went */
    MM_CONFLICT_UPDATE,         /* an old value was not the expected one */
    MM_CONFLICT_UPDATE_MISSING, /* the row to update is gone */
    MM_CONFLICT_DELETE,         /* the deleted row was not the expected one */
    MM_CONFLICT_UNIQUE,         /* another row held one of its UNIQUE values and was evicted */
    MM_CONFLICT_FOREIGN_KEY,    /* a reference dangles (repl/foreign.h): not of the fold, local */
};
const char *mm_conflict_name(enum mm_conflict_kind k);

enum mm_fold_act { MM_FOLD_NOTHING, MM_FOLD_WRITE, MM_FOLD_REMOVE };

/* What the receiving table says of its columns, in its order. */
struct mm_fold_columns {
    uint32_t n;
    const uint8_t *pk;     /* != 0: in the key */
    const uint8_t *policy; /* enum mm_policy; NULL: all 'last' */
};

/* Decides what becomes of one row. `current` is the base's row, NULL when it
** is missing; before/after are the change's (UNDEF where it says nothing).
** `all`: every column that an UPDATE's `after` holds was changed; else those in
** which it differs from `before`. Key columns are never
** changed by an UPDATE (their bytes may differ where the collation calls them equal);
** columns with a policy meet by it, without a conflict.
** For WRITE, image[0..ncol-1] (given by the caller) holds the new row; UNDEF
** where a new row takes the column's default. */
enum mm_fold_act mm_fold_row(enum mm_op op, bool all, const struct mm_fold_columns *columns,
                             const struct mm_value *before, const struct mm_value *after,
                             const struct mm_value *current, struct mm_value *image, enum mm_conflict_kind *conflict);

/* Acceptance (SPEC 3): the verdict over a message rests on the epoch and the
** last accepted (origin_seq, txid) of its (node, incarnation) alone. */
enum mm_verdict {
    MM_ACCEPT,
    MM_IGNORE_EPOCH,     /* of another epoch */
    MM_IGNORE_DUPLICATE, /* accepted before */
    MM_IGNORE_HOLE,      /* the one before it is missing: its publisher goes back */
    MM_IGNORE_LINEAGE,   /* same number, another history */
};
enum mm_verdict mm_fold_accept(const struct mm_msg *m, int64_t epoch, const struct mm_origin *last);
const char *mm_verdict_name(enum mm_verdict v);

/* A part (its message is acceptable by number) against the unfinished
** transaction, if any. True: it counts. */
bool mm_fold_part(const struct mm_msg *m, const struct mm_part_head *held);

#endif
