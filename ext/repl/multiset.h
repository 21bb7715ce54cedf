/* How many there are of each row, by type and bytes of all columns: what two
** sides of a table without keys are compared by.
**
** Threads: none of its own. Zeroed = empty. Rows are known by 64 bits of
** their SHA-256. */
#ifndef MM_REPL_MULTISET_H
#define MM_REPL_MULTISET_H

#include "base/buf.h"
#include "base/err.h"
#include "store/value.h"

struct mm_multiset {
    struct mm_multiset_slot *slot;
    size_t cap, used; /* a power of two; slots in use */
    int64_t rows;
    struct mm_buf scratch;
};

void mm_multiset_free(struct mm_multiset *m); /* leaves it empty */
int mm_multiset_add(struct mm_multiset *m, const struct mm_value *row, int ncol, struct mm_err *err);
/* True when there was one: it is out now. */
bool mm_multiset_take(struct mm_multiset *m, const struct mm_value *row, int ncol, struct mm_err *err);

#endif
