/* Rows that nobody captured when they were written, captured late: as ordinary
** transactions of the outbox, of a bounded number of rows each.
**
** Threads: the replication thread, inside its write transaction. */
#ifndef MM_REPL_LATE_H
#define MM_REPL_LATE_H

#include "capture/tables.h"

struct mm_late {
    sqlite3 *db; /* borrowed */
    struct mm_buf names, data;
    char *group;             /* the table whose rows were added last */
    int64_t rows, rows_most; /* the latter may be set lower */
};

void mm_late_init(struct mm_late *l, sqlite3 *db);
void mm_late_free(struct mm_late *l);

/* One row's change, both rows full: `before` NULL = it is new, `after` NULL = it
** is gone. Nothing when they are the same. */
int mm_late_add(struct mm_late *l, const struct mm_table *def, const struct mm_value *before,
                const struct mm_value *after, struct mm_err *err);
/* As much as one transaction is to hold. */
bool mm_late_full(const struct mm_late *l);
/* What was added becomes a transaction in the outbox; without any nothing. */
int mm_late_put(struct mm_late *l, struct mm_err *err);

#endif
