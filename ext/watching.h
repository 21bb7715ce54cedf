/* marmot_watch, marmot_watch_all, marmot_unwatch: which tables take part; and
** marmot_policy: how concurrent changes of their columns meet.
**
** Threads: that of the connection. Each is all or nothing: one transaction of
** its own, or a savepoint in the application's. The first three change the
** schema cookie, so that every other connection and process looks at the list
** again. */
#ifndef MM_WATCHING_H
#define MM_WATCHING_H

#include "base/err.h"
#include "base/sqlite.h"

/* An error when the table is missing (with the nearest name) or cannot be
** watched (with the cause). `mode`: how it is captured from now on ('auto', 'hook',
** 'trigger'); NULL: as before, else as the database is. */
int mm_watching_add(sqlite3 *db, const char *table, const char *mode, struct mm_err *err);
int mm_watching_remove(sqlite3 *db, const char *table, struct mm_err *err);

/* Every table that can be watched, now and later; the others are recorded with
** their cause. Returns the number of watched tables, -1 with err set. */
int mm_watching_add_all(sqlite3 *db, const char *mode, struct mm_err *err);

/* An error while nothing was ever watched: the node follows no log before that. */
int mm_watching_began(sqlite3 *db, struct mm_err *err);

/* An error on a connection that may not write. */
int mm_watching_writable(sqlite3 *db, struct mm_err *err);

/* Asks for a rule ('last', 'delta', 'max', 'min') of a column; it holds from the
** place of its message in the log on, for every node. */
int mm_watching_policy(sqlite3 *db, const char *table, const char *column, const char *rule, struct mm_err *err);

#endif
