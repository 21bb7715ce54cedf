/* A snapshot that follows the log aside: a node without an application, in a
** file of its own, over a connection of its own to the server.
**
** Threads: the one that opened it; the fork gate is taken inside. */
#ifndef MM_SNAPSHOT_SCRATCH_H
#define MM_SNAPSHOT_SCRATCH_H

#include "repl/applier.h"
#include "repl/open.h"
#include "snapshot/manifest.h"
#include "snapshot/work.h"

struct mm_scratch {
    struct mm_repl r;
    struct mm_applier *applier;
    struct mm_work *work;
    bool exact;
    const int64_t *target; /* during an exact replay */
    char cluster_id[40];
};

struct mm_scratch_options {
    const char *path, *vfs;      /* the copy, unpacked */
    struct mm_repl_options repl; /* as the node's; the node's id is not used */
    const struct mm_bus_options *bus;
    struct mm_work *work;
    bool exact; /* nothing beyond a replay's target is folded */
    bool alike; /* its tables have the node's columns: what messages say of others is passed over */
};

/* Checks the file (SQLITE_CORRUPT) and that it is of this cluster, epoch and
** version; `m` is its manifest, NULL for an empty beginning that was made here. */
int mm_scratch_open(struct mm_scratch *s, const struct mm_scratch_options *o, const struct mm_manifest *m,
                    struct mm_err *err);
void mm_scratch_close(struct mm_scratch *s);

/* Folds up to `target` (a sequence a shard) at least, after it has found the
** last folded message of each shard in its stream again, byte for byte.
** SQLITE_NOTFOUND: the streams do not hold it, or no longer reach back to it. */
int mm_scratch_replay(struct mm_scratch *s, const int64_t *target, struct mm_err *err);

/* Exact: folds as far as the node's database says that it has, which goes on
** meanwhile; waits for it where the snapshot is ahead of it. */
int mm_scratch_approach(struct mm_scratch *s, const char *node_path, const char *vfs, struct mm_err *err);

/* The streams' ends as the server tells them now. */
int mm_scratch_ends(struct mm_scratch *s, int64_t *end, struct mm_err *err);

#endif
