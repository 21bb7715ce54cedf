/* The log that triggers write: what writers without our hook touched, until it
** is moved to the outbox.
**
** Threads: that of the connection. This file and its .c alone name
** __marmot__log, __marmot__note%, __marmot__pad% and __marmot__source; the texts of triggers take
** the names from here. */
#ifndef MM_STORE_LOG_H
#define MM_STORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"
#include "store/value.h"

/* A row of the log has room for so many. */
enum { MM_LOG_VALUES = 16 };

#define MM_LOG_MARK (INT64_C(1) << 62)
/* What the overridden sqlite_compileoption_used is asked (capture/trigger.h). */
#define MM_LOG_HERE "MARMOT HERE"

/* Begins a trigger's INSERT of n values: the table's number, kind and values
** follow, as a SELECT or VALUES, and mm_log_text_id behind the last value, and
** mm_log_text_size of each that may be long.
** `seldom`: the trigger fires much more often than it notes. */
void mm_log_text_put(sqlite3_str *s, int n, bool seldom);
void mm_log_text_id(sqlite3_str *s, bool seldom);
void mm_log_text_size(sqlite3_str *s, bool seldom, const char *row, const char *column); /* row: "NEW." or "" */
/* The youngest entries as a FROM clause: source, kind, v0. So many as one row may
** note, and the application's own triggers between. */
void mm_log_text_last(sqlite3_str *s);
/* What a trigger that is not `seldom` asks before it notes anything. */
extern const char mm_log_text_room[];

/* True when what such an INSERT of n values names is there when it is `seldom`:
** a view, whose own trigger writes the log. With `make` it is made. */
bool mm_log_note(sqlite3 *db, int n, bool make, struct mm_err *err);

/* Of rows that a key names; what the row is now is read when the log is moved:
**   TOUCH    a row came to this key: the key's values
**   IMAGE    the row as it stood before it was changed, deleted or evicted
**   MOVE     an image, and behind it the key that the row has afterwards
**   MORE     values that the row of the log before it had no room for
** Of rows that only a rowid names, it and the whole row, since a rowid may mean
** another row by the time that the log is moved (VACUUM):
**   STOOD    before it is changed or deleted, which may come to nothing
**   RIVAL    it is evicted, if what is about to be written is written
**   PUT      a new row
**   NOW      after a change: rowid, the rowid before it, and the row
**   GONE     deleted: the rowid alone
**   LOST     a RIVAL that was evicted: the rowid alone */
enum mm_log_kind {
    MM_LOG_TOUCH = 1,
    MM_LOG_IMAGE,
    MM_LOG_MOVE,
    MM_LOG_MORE,
    MM_LOG_STOOD,
    MM_LOG_RIVAL,
    MM_LOG_PUT,
    MM_LOG_NOW,
    MM_LOG_GONE,
    MM_LOG_LOST
};

/* ?1 NULL. One row: 1 when the log holds anything, else 0. */
extern const char mm_log_sql_any[];
bool mm_log_any(sqlite3 *db, struct mm_err *err);

/* One entry: all values of a row and its MORE rows. */
struct mm_log_entry {
    int64_t source;
    int kind;
    int n;
    struct mm_value *v; /* valid until the next call */
};

struct mm_log_reader;
/* Prepares reading the log from its begin; it must not change meanwhile. */
struct mm_log_reader *mm_log_open(sqlite3 *db, struct mm_err *err);
int mm_log_next(struct mm_log_reader *r, struct mm_log_entry *e, struct mm_err *err); /* 1, or 0 at the end */
void mm_log_close(struct mm_log_reader *r);

/* Looks at all entries of rows that a rowid names, in their order: of NOW and GONE
** as of the others the rowid, and `before`, which is that before a NOW, else the same. */
typedef void mm_log_each(void *arg, int64_t source, enum mm_log_kind kind, int64_t rowid, int64_t before,
                         struct mm_err *err);
int mm_log_look(sqlite3 *db, mm_log_each *each, void *arg, struct mm_err *err);

int mm_log_clear(sqlite3 *db, struct mm_err *err); /* in the caller's transaction */

/* A txid of n bytes that follows from the rows that are there: the same in every copy of the
** file that noted nothing else. False: rows of an older schema are among them. */
bool mm_log_txid(sqlite3 *db, uint8_t *txid, size_t n, struct mm_err *err);

/* Bytes that it may hold when it is next empty; set in the caller's transaction. */
int64_t mm_log_room(sqlite3 *db, struct mm_err *err);
int mm_log_set_room(sqlite3 *db, int64_t bytes, struct mm_err *err);
/* True when rows may have been left out, behind the last one that it holds. */
bool mm_log_stopped(sqlite3 *db, struct mm_err *err);

/* A table of the same columns, and never a row, beside each table that has a
** number: triggers join it, so that the name of a column still means something
** when the column has been dropped. It comes with the source. */
#define MM_LOG_PAD "__marmot__pad%lld"
bool mm_log_pad_there(sqlite3 *db, int64_t id, struct mm_err *err);
/* The name of one whose triggers are gone, or NULL: sqlite3_free. */
char *mm_log_pad_left(sqlite3 *db, struct mm_err *err);
int mm_log_pad_drop(sqlite3 *db, const char *pad, struct mm_err *err);

/* Sources. A number is given once in the life of a database. */
int64_t mm_log_source_add(sqlite3 *db, const char *table, const struct mm_buf *cols, struct mm_err *err);
int mm_log_source_drop(sqlite3 *db, int64_t id, struct mm_err *err);
/* 1, the columns appended; or 0 when it is not known. *table: sqlite3_free. */
int mm_log_source_get(sqlite3 *db, int64_t id, char **table, struct mm_buf *cols, struct mm_err *err);

#endif
