/* Before-images: what stood in the rows that a pending transaction changed,
** so that it can be undone exactly (an inverted changeset would not bring back
** overwritten rows).
**
** Threads: none of its own. Form: varint length of the names, the names, then
** a changeset as in store/change.h in which INSERT says "this row stood here"
** and DELETE "nothing stood under this key". Of several for one key the first
** counts. */
#ifndef MM_REPL_IMAGE_H
#define MM_REPL_IMAGE_H

#include "repl/target.h"

struct mm_image {
    struct mm_buf names, data;
    char *last; /* table of the open group */
};

void mm_image_init(struct mm_image *im, size_t max);
void mm_image_free(struct mm_image *im);

/* `row` (local order, full) stood here; or NULL: nothing stood under `key`. */
void mm_image_add(struct mm_image *im, const struct mm_target *t, const struct mm_value *key,
                  const struct mm_value *row);

/* A row without identity: one such row stood here (back = true), or one was
** added and is to be taken away. */
void mm_image_add_keyless(struct mm_image *im, const struct mm_target *t, const struct mm_value *row, bool back);

int mm_image_pack(struct mm_image *im, struct mm_buf *out, struct mm_err *err);
/* Rows are INSERT (after = what stood) or DELETE (before = the key); values
** borrow from data. */
int mm_image_unpack(struct mm_txn *txn, const void *data, size_t len, struct mm_targets *targets, struct mm_err *err);

/* The images of a captured transaction that was never redone: its own old
** values. Rewrites txn in place. */
void mm_image_of_captured(struct mm_txn *txn);

#endif
