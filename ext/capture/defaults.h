/* What a column's default makes of a row: where it is a literal, as ALTER TABLE ADD COLUMN
** takes it. Whatever else a schema says is not run: it may be anyone's.
**
** Threads: that of the connection. Reads only. */
#ifndef MM_CAPTURE_DEFAULTS_H
#define MM_CAPTURE_DEFAULTS_H

#include "base/arena.h"
#include "capture/tables.h"

/* Sets `instead` of NOT NULL columns: what OR REPLACE puts in place of NULL. */
int mm_defaults_instead(sqlite3 *db, struct mm_table *t, struct mm_err *err);

/* What rows older than the column hold there, as it is stored; copied into the arena. False: it
** has no literal default, they hold NULL; or err. */
bool mm_default_value(sqlite3 *db, const struct mm_table *t, int column, struct mm_arena *a, struct mm_value *out,
                      struct mm_err *err);

#endif
