/* Capture by triggers: for writers whose rows our hook does not see (SPEC 2).
**
** The triggers of a watched table note in the log (store/log.h) which keys were
** touched, and rows as they stood before. When the log is moved, into an
** ordinary outbox row and inside a write transaction, the rows are read as they
** are now. So a change that came to nothing, a row that was evicted or was not,
** a column that a trigger does not know yet, and a row that was noted twice all
** come right by themselves. Where a row may have no key they note the rowid and
** the whole row, before and after (trigger_rows.c). What stands in the log was
** committed after everything in the outbox: whoever writes to tables or outbox
** with the hook moves it first.
**
** The triggers name no column by NEW or OLD but those of the key and of UNIQUE
** sets, so that ALTER TABLE works as without them: other columns are bare names
** over the table joined with its pad (store/log.h). SQLite allots a trigger all
** that its body may need each time it fires, also when WHEN says no: bodies
** that seldom run are short, and leave the log to a view's trigger. Their name carries a number,
** which the log repeats: a table that was renamed keeps both. Where a hook is
** present (guards) they ask it first, through a built-in function that our
** connections override.
**
** Threads: that of the connection. Layer: store/ and below. */
#ifndef MM_CAPTURE_TRIGGER_H
#define MM_CAPTURE_TRIGGER_H

#include <stdbool.h>

#include "base/err.h"
#include "base/sqlite.h"
#include "capture/spill.h"
#include "capture/tables.h"

/* What a guard asks, its table's number behind: plain SQLite answers 0, a
** connection whose hook captures the row 1. */
#define MM_TRIGGER_WORD "MARMOT "
#define MM_TRIGGER_ASK "sqlite_compileoption_used('" MM_TRIGGER_WORD "%lld')"

/* On a connection without a hook: what triggers ask is answered as by one that is
** ours (store/log.h). Without it a log that is full stops them here, too. */
void mm_guard_here(sqlite3 *db);

enum mm_trigger_mode {
    MM_TRIGGER_NONE,  /* the hook alone, or nothing */
    MM_TRIGGER_GUARD, /* the hook where it is, else triggers */
    MM_TRIGGER_FULL,  /* triggers alone */
};

/* What the database is set to (MM_META_CAPTURE). */
enum mm_trigger_mode mm_trigger_mode(sqlite3 *db, struct mm_err *err);

/* And what it is for one table, which marmot_watch may have given a mode of its own. */
enum mm_trigger_mode mm_trigger_mode_for(sqlite3 *db, const char *table, struct mm_err *err);

/* Why triggers cannot capture this table; NULL when they can. Static text. */
const char *mm_trigger_refuses(const struct mm_table *t);

/* The table that stands under a number now, or NULL: sqlite3_free. */
char *mm_trigger_table(sqlite3 *db, long long number, struct mm_err *err);
/* True when the table has triggers of ours. */
bool mm_trigger_there(sqlite3 *db, const char *table, struct mm_err *err);
/* True when triggers are missing, in excess or of an older schema. Reads only. */
bool mm_trigger_due(sqlite3 *db, struct mm_err *err);
/* Moves the log, then makes the triggers what they should be; inside the
** caller's write transaction. */
int mm_trigger_settle(sqlite3 *db, struct mm_err *err);
/* Drops what triggers that are gone have left; on a connection that runs no
** statement: SQLite drops no table beside one that reads. */
int mm_trigger_tidy(sqlite3 *db, struct mm_err *err);

/* Moves the log, if there is any, to an outbox row; inside the caller's write
** transaction. *moved (may be NULL) says that there was some. */
int mm_trigger_move(sqlite3 *db, bool *moved, struct mm_err *err);
/* The same, but the changes are appended to a buffer of the hook's format, and
** the log is emptied. */
int mm_trigger_take(sqlite3 *db, struct mm_spill *data, struct mm_spill *names, struct mm_err *err);

#endif
