/* Rows that a write would evict, until it is known whether it came about: a row
** that is noted later and holds the same UNIQUE value says so.
**
** Threads: none of its own. Zeroed = empty. A rival is known by a number of the
** caller's; ending one needs no call: the caller says which still count. */
#ifndef MM_CAPTURE_TRIGGER_RIVALS_H
#define MM_CAPTURE_TRIGGER_RIVALS_H

#include "base/buf.h"
#include "base/err.h"
#include "capture/tables.h"

struct mm_rivals {
    struct mm_rivals_node *node;
    uint32_t n, cap;
    uint32_t *bucket; /* index + 1 of the newest node */
    struct mm_buf keys;
    struct mm_buf probe;
};

void mm_rivals_free(struct mm_rivals *r);
void mm_rivals_clear(struct mm_rivals *r);

/* The row's values in the sets of its table, under `number` (from 1). */
int mm_rivals_add(struct mm_rivals *r, int64_t source, const struct mm_table *t, const struct mm_value *row,
                  uint64_t number, struct mm_err *err);

/* Calls back with the number of each rival that holds a value of the row. */
typedef void mm_rivals_met(void *arg, uint64_t number);
int mm_rivals_meet(struct mm_rivals *r, int64_t source, const struct mm_table *t, const struct mm_value *row,
                   mm_rivals_met *met, void *arg, struct mm_err *err);

#endif
