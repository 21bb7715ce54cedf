/* Where a copy begins that no snapshot gives: empty tables at the log's first
** message; and tables that a snapshot is older than.
**
** Threads: that of the scratch. */
#ifndef MM_SNAPSHOT_BEGIN_H
#define MM_SNAPSHOT_BEGIN_H

#include "snapshot/scratch.h"

/* Opens `s` over a new file with the node's watched tables, empty, at the place
** of the founding: tables that the cluster began with rows in are stale there.
** SQLITE_NOTFOUND when the log no longer begins with its founding; the message
** tells what was wrong with the snapshots (`why`), if any was there. */
int mm_begin_empty(struct mm_scratch *s, const struct mm_scratch_options *o, const char *node_path,
                   const char *cluster_id, const struct mm_err *why, struct mm_err *err);

/* Tables that the node watches and the snapshot does not hold are made, empty, before anything of the log is
** folded: their watch messages are still to come. */
int mm_begin_tables(struct mm_scratch *s, const char *node_path, const char *vfs, struct mm_err *err);

/* Columns that the node has and the snapshot's tables lack are added there, before
** anything of the log is folded. `alike` (to find what was not captured): tables that were altered in
** other ways as well are made as the node has them. */
int mm_begin_columns(struct mm_scratch *s, const char *node_path, const char *vfs, bool alike, struct mm_err *err);

#endif
