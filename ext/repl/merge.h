/* The rows of a database that joins with `merge`, against the cluster's content
** that has taken their place: those that exist only here are put back and
** captured, of those that differ the conflict log keeps the values given up.
**
** Threads: the replication thread, inside its write transaction. */
#ifndef MM_REPL_MERGE_H
#define MM_REPL_MERGE_H

#include "repl/late.h"
#include "repl/repl.h"

struct mm_merge_count {
    int64_t kept;    /* only here: written and captured */
    int64_t differ;  /* conflict `insert`: the cluster's row stays */
    int64_t clashed; /* conflict `unique`: left out, a row of the cluster holds its value */
};

/* `mine` gives the rows that stood here, all columns in the table's order. */
int mm_merge_rows(struct mm_repl *r, struct mm_target *t, sqlite3_stmt *mine, struct mm_late *late,
                  struct mm_merge_count *count, struct mm_err *err);

#endif
