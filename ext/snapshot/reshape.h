/* The tables of a copy as the node has them: they were altered since the
** snapshot was taken.
**
** Threads: that of the scratch. */
#ifndef MM_SNAPSHOT_RESHAPE_H
#define MM_SNAPSHOT_RESHAPE_H

#include "snapshot/scratch.h"

/* Makes the copy's table `copy` like the node's, before anything of the log is folded: columns that the node
** has added are added. `alike`: columns that it has dropped or renamed go as well, and UNIQUE sets become the
** node's; messages from before then go to the columns as they are now (mm_targets_column_was). A table of
** another key stays as it is. So does one that holds rows without identity when it has columns that the copy's lacks
** (added ones alone are no trouble): those rows are found by all their columns, and which of them was called
** otherwise before is a guess. In the caller's transaction. */
int mm_reshape(struct mm_scratch *s, sqlite3 *node, const struct mm_table *copy, bool alike, struct mm_err *err);

/* The node's table, empty, with its UNIQUE indexes. */
int mm_reshape_make(struct mm_scratch *s, sqlite3 *node, const char *table, struct mm_err *err);

#endif
