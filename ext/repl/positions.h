/* replicate = false: only positions are followed. Local changes are captured and
** sent, their echoes leave the outbox, and what decides on later messages (accepted
** origins, policies, the watch list) is kept as on any node; rows of others are
** left out. So each table is `stale`, and a copy of the cluster's content brings it
** back once others' changes are to be applied again: MM_SEQ_BEFORE, or MM_SEQ_COPY where
** it had not joined and has rows, which are not sent (repl/publisher.c) and never lost.
**
** Threads: the replication thread, inside its write transaction. */
#ifndef MM_REPL_POSITIONS_H
#define MM_REPL_POSITIONS_H

#include "repl/repl.h"

/* True when a table is still in a state in which rows are folded into it. Reads only. */
bool mm_positions_due(struct mm_repl *r, struct mm_err *err);
/* No table is, from here on. */
int mm_positions_settle(struct mm_repl *r, struct mm_err *err);

/* A transaction in its place. `echo`: of this node; its rows stand here, unless they
** were undone in this batch: then they are done again. */
int mm_positions_fold(struct mm_shard *s, const struct mm_txn *txn, bool echo, struct mm_err *err);

/* What becomes of a table when a copy gives its positions alone; none_of_its_own: it has
** no rows that the copy has not. */
int mm_positions_install(sqlite3 *db, const char *table, bool none_of_its_own, struct mm_err *err);

#endif
