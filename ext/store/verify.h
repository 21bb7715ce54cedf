/* Verify calls: their requests in the outbox, the answers of all nodes as the
** log has them, and the verdict.
**
** Threads: that of the connection. This file and its .c alone name
** __marmot__verify. Answers older than a day go. */
#ifndef MM_STORE_VERIFY_H
#define MM_STORE_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"

enum { MM_VERIFY_ID = 16 };

/* Control rows, in the caller's transaction: 'V', shard, id. One a shard. */
#define MM_CONTROL_VERIFY 'V'
/* A node's answer: 'A', shard, id, sequence (8 bytes, big-endian), then for each table
** name, NUL, schema hash (8), content (16), rows (8). */
#define MM_CONTROL_VERIFIED 'A'

/* Writes the requests of a new call; its id comes back. */
int mm_verify_request(sqlite3 *db, int shards, uint8_t id[MM_VERIFY_ID], struct mm_err *err);

/* One table of an answer; name "" says that the node has answered at all. */
int mm_verify_add(sqlite3 *db, const uint8_t id[MM_VERIFY_ID], int shard, int64_t node, const char *table, int64_t seq,
                  const uint8_t content[16], int64_t rows, struct mm_err *err);

/* The node's answers of all shards are there. */
bool mm_verify_answered(sqlite3 *db, const uint8_t id[MM_VERIFY_ID], int shards, int64_t node, struct mm_err *err);
/* So are those of every known node, and of `self`. */
bool mm_verify_complete(sqlite3 *db, const uint8_t id[MM_VERIFY_ID], int shards, int64_t self, struct mm_err *err);

/* The answer of marmot_verify: an array of {node, table, shard, position, rows,
** checksum, equal}; equal = as node `self` has it. A node without an answer in
** some shard: {node, shard, silent: true}. */
int mm_verify_json(sqlite3 *db, const uint8_t id[MM_VERIFY_ID], int shards, int64_t self, struct mm_buf *out,
                   struct mm_err *err);

#endif
