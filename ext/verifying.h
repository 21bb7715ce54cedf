/* marmot_verify: asks every node, at one place of each shard, what its tables
** hold, and waits for the answers.
**
** Threads: that of the connection; the replication thread does the asking and
** the answering. */
#ifndef MM_VERIFYING_H
#define MM_VERIFYING_H

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"

struct mm_node;

/* Appends the JSON array of SPEC 1. Ends when every node has answered, or every
** one that is known to be alive; what has not come then, or after timeout_ms,
** is told as silent. An error at once: inside a transaction or a reading statement,
** nothing watched, or a node that cannot go on. */
int mm_verifying_run(sqlite3 *db, struct mm_node *n, int timeout_ms, struct mm_buf *out, struct mm_err *err);

#endif
