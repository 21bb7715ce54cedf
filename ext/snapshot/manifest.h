/* What stands beside a snapshot's data: who, where in the log, how large.
**
** Threads: none of its own. Form: one JSON object. The name of a manifest
** begins with the cluster's id and orders snapshots: epoch, then the sum of the
** positions (a snapshot is only stored when none of them went back), then the
** generation: one more than that of the newest when it was made. */
#ifndef MM_SNAPSHOT_MANIFEST_H
#define MM_SNAPSHOT_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "store/position.h"

enum {
    MM_SNAPSHOT_FORMAT = 1, /* a library that knows less refuses it */
    MM_SNAPSHOT_SHARDS = 64,
    MM_MANIFEST_MAX = 1 << 20,
};
#define MM_SNAPSHOT_RAW_MAX ((int64_t)1 << 48)

struct mm_manifest {
    int format;
    char id[80]; /* <cluster id>-<epoch>-<sum of positions>-<generation>-<random> */
    char cluster_id[40];
    int64_t epoch, node, at_ms, generation;
    int nshard;
    struct mm_position shard[MM_SNAPSHOT_SHARDS]; /* shard[k].shard = k + 1 */
    uint64_t schema;                              /* hash over the watched tables' definitions */
    int64_t tables;
    int64_t size, raw; /* bytes of the data object; of the database in it */
    uint8_t sha256[32];
};

/* Gives it its id, from what else it holds. */
void mm_manifest_name(struct mm_manifest *m);
/* Names of its two objects. */
void mm_manifest_objects(const char *id, char meta[128], char data[128]);

int mm_manifest_write(const struct mm_manifest *m, struct mm_buf *out, struct mm_err *err);
/* SQLITE_CORRUPT malformed, SQLITE_MISMATCH a format newer than this library. */
int mm_manifest_read(struct mm_manifest *m, const void *data, size_t len, struct mm_err *err);

/* a is at or beyond b in every shard, of the same epoch or a later one. */
bool mm_manifest_reaches(const struct mm_manifest *a, const struct mm_manifest *b);

/* The answer of marmot_snapshot and marmot_restore. */
void mm_manifest_answer(const struct mm_manifest *m, int64_t took_ms, struct mm_buf *out);

#endif
