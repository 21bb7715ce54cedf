/* Commits that nothing captured: those of foreign writers in `hook` mode, and
** all of the application's own where local writes are not captured (SPEC 2).
** They are found by the stamps (stamp.h), and counted.
**
** Found is every commit that wrote to the database file and was not stamped: also
** one of a captured connection that changed no row of a table (DDL, VACUUM,
** ANALYZE alone). What happened while no process of ours had the database open is
** found by the write-ahead log, or by the note that the last one left;
** where neither can tell, one is counted. Where triggers capture, one is counted
** when they stopped at the bounds of their log (log.h).
**
** Threads: that of the connection. */
#ifndef MM_STORE_STRAY_H
#define MM_STORE_STRAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"
#include "store/inbox.h"

/* How many wait for marmot_reconcile, and how many there ever were. */
int64_t mm_stray_count(sqlite3 *db, struct mm_err *err);
int64_t mm_stray_total(sqlite3 *db, struct mm_err *err);
/* Triggers noted no more, the log was full: counts as one, in the caller's
** transaction. were_stopped: that is so, and not mended. */
int mm_stray_stopped(sqlite3 *db, struct mm_err *err);
bool mm_stray_were_stopped(sqlite3 *db, struct mm_err *err);
/* So many of them are mended; in the caller's transaction. */
int mm_stray_mended(sqlite3 *db, int64_t n, struct mm_err *err);

/* Ends a write transaction of our own: stamps it, where stamps are kept, and
** commits. Returns err->rc. */
int mm_stray_commit(sqlite3 *db, struct mm_err *err);
/* The same, or all of it is rolled back: no transaction is open afterwards. */
int mm_stray_end(sqlite3 *db, struct mm_err *err);

/* A connection begins, inside a write transaction: stamps are kept from now on, or
** (keep false) no more. If they were kept before (`kept`), what was written since
** is counted. */
int mm_stray_begin(sqlite3 *db, bool keep, bool kept, struct mm_err *err);

/* Whether there is anything to count; no write, no lock. */
bool mm_stray_due(sqlite3 *db, struct mm_inbox_end *end, struct mm_err *err);
/* Counts it, inside a write transaction, which it stamps. *n: how many. */
int mm_stray_record(sqlite3 *db, int64_t *n, struct mm_err *err);

/* The process that replicates ends: says in a file beside the database what that
** looks like. Best effort: without it the next one may count too much. */
void mm_stray_leave(sqlite3 *db);
#define MM_STRAY_SUFFIX "-marmot-left"

#endif
