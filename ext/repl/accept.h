/* Acceptance of one shard: the last accepted (origin_seq, txid) of every
** (node, incarnation), in memory, written back with the position.
**
** Threads: the replication thread. A set opened for a replay starts empty,
** learns from the log's first message on, and is never written. */
#ifndef MM_REPL_ACCEPT_H
#define MM_REPL_ACCEPT_H

#include "repl/fold.h"

struct mm_accept;

struct mm_accept *mm_accept_open(sqlite3 *db, int shard, bool replay, struct mm_err *err);
void mm_accept_close(struct mm_accept *a);
void mm_accept_reset(struct mm_accept *a); /* forgets; reads the database anew */

/* Never NULL without err set; good until the next call that may add one. */
const struct mm_origin *mm_accept_last(struct mm_accept *a, int64_t node, int64_t incarnation, struct mm_err *err);

/* The message was accepted: the next one is expected. */
int mm_accept_take(struct mm_accept *a, const struct mm_msg *m, struct mm_err *err);

/* Writes what changed, inside the caller's transaction. */
int mm_accept_flush(struct mm_accept *a, struct mm_err *err);

#endif
