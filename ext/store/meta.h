/* Bookkeeping tables: creation, migrations, removal; and a key-value table
** for what the node must remember.
**
** Threads: that of the connection. The texts of sql/ are embedded at build
** time; each migration runs once, in its own number's order, in one
** transaction. */
#ifndef MM_STORE_META_H
#define MM_STORE_META_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"

/* Brings the bookkeeping of main up to the newest version, inside the
** caller's transaction. A version newer than ours is an error. */
int mm_meta_migrate(sqlite3 *db, struct mm_err *err);
bool mm_meta_exists(sqlite3 *db, struct mm_err *err);
/* The open transaction begins to write, unless it reads already: the lock that a read is followed by is not
** waited for, whatever the busy_timeout. Does nothing where there is no bookkeeping. */
int mm_meta_lock(sqlite3 *db, struct mm_err *err);
/* Drops every __marmot__ table and trigger, inside the caller's transaction. */
int mm_meta_drop(sqlite3 *db, struct mm_err *err);

int64_t mm_meta_int(sqlite3 *db, const char *key, int64_t none, struct mm_err *err);
char *mm_meta_text(sqlite3 *db, const char *key, struct mm_err *err); /* sqlite3_free; NULL when absent */
int mm_meta_set_int(sqlite3 *db, const char *key, int64_t v, struct mm_err *err);
int mm_meta_set_text(sqlite3 *db, const char *key, const char *v, struct mm_err *err); /* NULL deletes */

/* Keys in use, so that they stand in one place. */
#define MM_META_VERSION "schema_version" /* of the bookkeeping */
#define MM_META_NODE "node_id"
#define MM_META_FILE "file_identity"      /* device:inode:path that the incarnation belongs to */
#define MM_META_CONFIG "config"           /* accepted configuration without secrets, JSON */
#define MM_META_CLUSTER "cluster_id"      /* 32 hex digits, once joined */
#define MM_META_JOINED "joined"           /* 1 after the founded message was folded */
#define MM_META_MOVE_DUE "move_due"       /* incarnation whose numbers the log gave to others, until it is left */
#define MM_META_MOVE_TO "move_to"         /* the one that a copy of this file took for what is pending here, too */
#define MM_META_MOVE_SHARDS "move_shards" /* in which shards: bit n - 1 */
#define MM_META_MOVED "moved"             /* 1 once the file was found set back */
#define MM_META_SEED "seed"               /* the token of an epoch that this database begins, until it counts */
#define MM_META_SOURCES "sources"         /* the last number given to a set of triggers */
#define MM_META_CAPTURE "capture"         /* how: auto, hook, trigger, or none (nothing is captured) */
#define MM_META_MODE "watch_mode"         /* of tables that are watched because all are, when not the database's */
#define MM_META_STRAYS "strays"           /* commits that nothing captured, until they are mended (stray.h) */
#define MM_META_STRAYS_EVER "strays_ever" /* and all there ever were */
#define MM_META_SCHEMA "schema_stored"    /* the watched tables' definitions that a snapshot has (node_keep.c) */
#define MM_META_CLAIM "id_claim"          /* what the cluster's bucket has for that slot */
#define MM_META_SLOT "id_slot"    /* of the ids that SQLite makes, and the file that has it (repl/partition.h) */
#define MM_META_STOPPED "stopped" /* 1: among them what triggers left out when their log was full */

#endif
