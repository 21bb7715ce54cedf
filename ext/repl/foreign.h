/* Foreign keys, for the conflict log alone: a fold never enforces them (their
** effects at the origin arrive as rows), so what two nodes did at once may
** leave a row whose parent is gone. Recorded as far as it is cheap to see.
**
** Threads: the replication thread. Best effort and local: a parent in another
** shard may come later; a child table without an index over its reference is
** not searched; of one message MM_FOREIGN_ROWS rows are looked at. */
#ifndef MM_REPL_FOREIGN_H
#define MM_REPL_FOREIGN_H

#include "repl/apply.h"

enum { MM_FOREIGN_ROWS = 10000 };

/* After the rows of a message are written. An error is one of the database;
** a reference that cannot be looked up is none. */
int mm_foreign_check(sqlite3 *db, struct mm_targets *targets, const struct mm_txn *txn, struct mm_apply_how *how,
                     struct mm_err *err);

/* What a target keeps for it. */
void mm_foreign_free(struct mm_foreign *f);

#endif
