/* Snapshots that nodes take by themselves: when one is due, who takes it, and
** what of the log may go then.
**
** Threads: that of the task, with a connection of its own to the server. */
#ifndef MM_SNAPSHOT_KEEP_H
#define MM_SNAPSHOT_KEEP_H

#include "bus/bus.h"
#include "snapshot/manifest.h"

struct mm_keep {
    int64_t max_entries; /* of a stream; <= 0: nothing is ever removed from the log */
    int64_t max_bytes;   /* <= 0: no limit */
    int64_t interval_ms; /* 0: only by growth */
    bool rest;           /* the node is going to sleep: whatever is new is worth a snapshot */
    int64_t tables;      /* on the cluster's list, as this node has it */
    uint64_t schema;     /* of these tables, when it has changed here; 0 = it has not */
    int64_t position[MM_SNAPSHOT_SHARDS];
    const char *bucket; /* of the leases */
    int replicas;
    const char *const *stream; /* names, one a shard */
    int nshard;
};

/* True when the newest snapshot (NULL: there is none) is too old, or of messages that the
** server has lost, or the log is nearly
** full and may not be purged for the sake of the one before it (NULL: none). */
bool mm_keep_due(const struct mm_keep *k, const struct mm_manifest *newest, const struct mm_manifest *older,
                 struct mm_bus *bus, struct mm_err *err);

/* One node alone makes the successor of a snapshot: true when it is this one. The
** lease ends by itself after MM_KEEP_LEASE_MS, or with the next snapshot. */
enum { MM_KEEP_LEASE_MS = 120000 };
bool mm_keep_lease(const struct mm_keep *k, const struct mm_manifest *newest, int64_t node, struct mm_bus *bus,
                   struct mm_err *err);

/* It came to nothing: another node may try at once. */
int mm_keep_give_up(const struct mm_keep *k, const struct mm_manifest *newest, struct mm_bus *bus, struct mm_err *err);

/* Removes from the log what lies before the older of the two newest snapshots,
** but keeps max_entries / 4, or as many as about max_bytes / 4 hold. */
int mm_keep_purge(const struct mm_keep *k, const struct mm_manifest *older, struct mm_bus *bus, struct mm_err *err);

#endif
