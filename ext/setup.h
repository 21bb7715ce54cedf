/* What marmot_init and marmot_cleanup do to the database file itself.
**
** Threads: that of the connection. Ownership: as each function says. */
#ifndef MM_SETUP_H
#define MM_SETUP_H

#include <stdbool.h>

#include "base/err.h"
#include "base/sqlite.h"
#include "config.h"

/* Whether `main` can be a node's database at all, without touching it: a file,
** writable, no transaction or reading statement open, normal locking. */
int mm_setup_check(sqlite3 *db, struct mm_err *err);

/* The canonical path of main's file; caller frees with free(). NULL with err set. */
char *mm_setup_path(sqlite3 *db, struct mm_err *err);

/* The name of main's VFS (borrowed from SQLite), NULL = the default one. */
const char *mm_setup_vfs(sqlite3 *db);

/* WAL, bookkeeping, node id, incarnation and configuration; all but the WAL
** mode in one transaction. `given` is the configuration of the call (taken, also
** on failure) or NULL: then the stored one, else the defaults. Returns the
** configuration with its node_id filled in; caller frees with mm_config_free. */
struct mm_config *mm_setup_database(sqlite3 *db, const char *path, struct mm_config *given, struct mm_err *err);

/* What is stored in main for this very file; caller frees with mm_config_free.
** NULL with err set: this database is no node, or what it holds is another file's. */
struct mm_config *mm_setup_stored(sqlite3 *db, struct mm_err *err);

/* An error that counts them when transactions are not echoed: those after
** outbox id `echoed`, or after what the bookkeeping says when that is lower. */
int mm_setup_pending(sqlite3 *db, int64_t echoed, struct mm_err *err);

/* Highest outbox id ever given, what triggers noted included: for that it waits for
** the lock, wait_ms beyond the connection's own busy timeout, then SQLITE_BUSY. */
int64_t mm_setup_last(sqlite3 *db, int wait_ms, struct mm_err *err);

/* Removes the bookkeeping, in one transaction with the check above (`discard`
** leaves it out), and the files beside the database. */
int mm_setup_remove(sqlite3 *db, const char *path, bool discard, int64_t echoed, struct mm_err *err);

#endif
