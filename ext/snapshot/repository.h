/* The snapshots of one cluster in a store: the two newest are kept, each as a
** data object and a manifest. The data goes in first, the manifest last.
**
** Threads: that of the store; never the replication thread. */
#ifndef MM_SNAPSHOT_REPOSITORY_H
#define MM_SNAPSHOT_REPOSITORY_H

#include "snapshot/manifest.h"
#include "snapshot/store.h"
#include "snapshot/work.h"

enum { MM_SNAPSHOTS_KEPT = 2 };

struct mm_repository {
    struct mm_store *store;
    const char *cluster_id;
    struct mm_work *work;
};

/* The newest snapshots of the cluster that can be read, newest first: returns
** how many, MM_SNAPSHOTS_KEPT at most. *bad (may be NULL) is set when there is
** one whose manifest cannot be read or used by this library. */
int mm_repository_newest(struct mm_repository *r, struct mm_manifest list[MM_SNAPSHOTS_KEPT], struct mm_err *bad,
                         struct mm_err *err);

/* Packs and stores the database file `raw`; `packed` is an empty file to work in. Fills
** in size, raw and sha256. Refused (SQLITE_ERROR) when it is behind the newest one in
** some shard. Then all but the newest two go. */
int mm_repository_put(struct mm_repository *r, struct mm_manifest *m, int raw, int packed, struct mm_err *err);

/* Brings the database of a snapshot into the empty file `raw`, checked. */
int mm_repository_get(struct mm_repository *r, const struct mm_manifest *m, int raw, int packed, struct mm_err *err);

#endif
