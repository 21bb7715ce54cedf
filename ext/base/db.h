/* Sticky helpers for SQL: each does nothing once err is set, so that a body
** reads straight down with one look at the end.
**
** Threads: that of the connection. Formats are SQLite's own (%w for names,
** %Q for texts, %lld); values are bound, never printed into SQL. */
#ifndef MM_BASE_DB_H
#define MM_BASE_DB_H

#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"

/* Runs one or more statements. Returns err->rc. */
int mm_db_exec(sqlite3 *db, struct mm_err *err, const char *fmt, ...);

/* Prepares one statement (returns it: finalize with mm_db_finalize), NULL on
** error. `flags` is 0 or SQLITE_PREPARE_PERSISTENT. */
sqlite3_stmt *mm_db_prepare(sqlite3 *db, struct mm_err *err, unsigned flags, const char *fmt, ...);

/* Steps: 1 for a row, 0 at the end or on error (then err is set and the
** statement is reset). */
int mm_db_step(sqlite3_stmt *st, struct mm_err *err);

/* Steps a statement that returns no row, and resets it. Returns err->rc. */
int mm_db_run(sqlite3_stmt *st, struct mm_err *err);

/* Takes the statement; NULL is fine; an error of it is not reported again. */
void mm_db_finalize(sqlite3_stmt *st);

/* First column of the first row, or `none` when there is no row or it is NULL. */
int64_t mm_db_int(sqlite3 *db, struct mm_err *err, int64_t none, const char *fmt, ...);

/* First column of the first row as text; NULL when there is none. Caller
** frees with sqlite3_free. */
char *mm_db_text(sqlite3 *db, struct mm_err *err, const char *fmt, ...);

/* Sets err from the connection: code, message, "while <doing>". Returns err->rc. */
int mm_db_fail(sqlite3 *db, struct mm_err *err, const char *doing);

#endif
