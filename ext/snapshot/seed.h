/* A new epoch of the cluster, from one node's state: what is left of the log is
** followed by nobody any more, and the log goes on from here.
**
** Threads: that of the task, with connections of its own; the node stands still
** meanwhile. Each step can be the last one: called again with the same token it
** goes on with its own epoch. Another node begins the next one instead, once
** the lease of this one is over. Nothing is written to the node's database. */
#ifndef MM_SNAPSHOT_SEED_H
#define MM_SNAPSHOT_SEED_H

#include "bus/bus.h"
#include "repl/join.h"
#include "snapshot/keep.h"
#include "snapshot/store.h"
#include "snapshot/take.h"

struct mm_seed { /* all borrowed */
    struct mm_take take;
    const struct mm_bus_options *bus;
    const struct mm_store_options *store;
    const struct mm_join_options *join;
    const struct mm_keep *keep; /* where leases are */
    const char *cluster_id;
    uint64_t token;
    int packed; /* an empty file to work in */
};

/* `m` becomes the manifest of the snapshot that the epoch begins with.
** SQLITE_ERROR, SQLITE_AUTH: another node was first, or this one may not; the
** message names it. */
int mm_seed_run(const struct mm_seed *s, struct mm_manifest *m, struct mm_err *err);

#endif
