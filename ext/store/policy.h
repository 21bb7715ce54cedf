/* How concurrent changes of a column meet (SPEC 4): part of the replicated
** state, set by a message of the log.
**
** Threads: that of the connection. This file and its .c alone name
** __marmot__policy. */
#ifndef MM_STORE_POLICY_H
#define MM_STORE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"

enum mm_policy { MM_POLICY_LAST, MM_POLICY_DELTA, MM_POLICY_MAX, MM_POLICY_MIN, MM_POLICY_COUNT };

/* MM_POLICY_COUNT when the name is none of 'last', 'delta', 'max', 'min'. */
enum mm_policy mm_policy_of(const char *name);

/* Policy of a column; LAST when none was set. Names as SQLite compares them. */
enum mm_policy mm_policy_get(sqlite3 *db, const char *table, const char *column, struct mm_err *err);
int mm_policy_set(sqlite3 *db, const char *table, const char *column, enum mm_policy p, struct mm_err *err);
/* True when any column of the table has one other than LAST. */
bool mm_policy_any(sqlite3 *db, const char *table, struct mm_err *err);

/* As the control message lies in the outbox: 'P', table, NUL, column, NUL, one
** byte enum mm_policy. */
#define MM_CONTROL_POLICY 'P'
int mm_policy_request(sqlite3 *db, const char *table, const char *column, enum mm_policy p, struct mm_err *err);

/* As mm_watchlist_copy. */
int mm_policy_copy(sqlite3 *db, const char *from, const char *to, struct mm_err *err);

#endif
