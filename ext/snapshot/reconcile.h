/* Publishing what was never captured: what the application sees and the copy
** with all that is pending done on it differ in becomes captured transactions
** of this node, behind all that is pending.
**
** Why behind: what is visible holds the change already, so its rows stay as they
** are, to the byte, if the change is written down against what the log and the
** outbox before it make of the row: that is the copy, with the outbox done on it
** in its order. The rows of the application are only read, again in the very
** transaction that writes the outbox; a row that is equal by then is left out.
** What is pending keeps its place, and gets the before-images that it has on
** the copy: those it was captured with hold what nobody captured.
**
** Threads: the replication thread. The node is held. A step is one write
** transaction of a bounded number of rows; what died in between is found again. */
#ifndef MM_SNAPSHOT_RECONCILE_H
#define MM_SNAPSHOT_RECONCILE_H

#include "repl/open.h"
#include "snapshot/diff.h"

struct mm_reconcile;

/* `copy`: the path of a copy that mm_diff_run (visible) has filled; diff is borrowed.
** `rows`: of a step, at most; 0: as many as it has time for. */
struct mm_reconcile *mm_reconcile_open(const char *copy, const char *vfs, const struct mm_repl_options *repl,
                                       const struct mm_diff *diff, int64_t rows, struct mm_err *err);
void mm_reconcile_close(struct mm_reconcile *x);

/* True when all is done; false with SQLITE_BUSY: try again, with another error: it ends. */
bool mm_reconcile_step(struct mm_reconcile *x, struct mm_repl *live, struct mm_err *err);

/* JSON: tables with the number of their rows that were found, and why a table was left out. */
void mm_reconcile_answer(const struct mm_reconcile *x, struct mm_buf *out);
int64_t mm_reconcile_rows(const struct mm_reconcile *x);
/* Every table that is watched here was compared, and none was in motion. */
bool mm_reconcile_complete(const struct mm_reconcile *x);
int64_t mm_reconcile_longest_us(const struct mm_reconcile *x); /* of its write transactions */

#endif
