/* The outbox: captured transactions and control messages, from the
** application's commit until some time after their echo.
**
** Threads: that of the connection. Ids grow by one and never come back.
** This file and its .c alone name __marmot__outbox, __marmot__head,
** __marmot__undo and __marmot__echo. */
#ifndef MM_STORE_OUTBOX_H
#define MM_STORE_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"

enum { MM_TXID_SIZE = 16 };

/* --- Writing side: what capture runs on the application's connection. It
** prepares these texts itself, since it must guard what it keeps there. --- */

/* No parameter. One row: next id, incarnation, watch_all, capturing. */
extern const char mm_outbox_sql_next[];
/* ?1 id, ?2 part, ?3 kind, ?4 incarnation, ?5 txid, ?6 at, ?7 names, ?8 data. */
extern const char mm_outbox_sql_put[];
/* ?1 id: takes back what a COMMIT that was refused had written. */
extern const char mm_outbox_sql_drop[];

enum mm_outbox_kind { MM_OUTBOX_TXN = 0, MM_OUTBOX_CONTROL = 1 };

/* Writes a control message into the current transaction of `db`; data as
** control messages are encoded by the caller. */
int mm_outbox_put_control(sqlite3 *db, const void *data, size_t len, struct mm_err *err);

/* --- Reading side: the replication thread's own connection. --- */

struct mm_outbox_row {
    int64_t id;
    int kind;
    int64_t incarnation;
    uint8_t txid[MM_TXID_SIZE];
    int64_t at;
};

struct mm_outbox;

/* Prepares what the thread needs; takes nothing, borrows db. */
struct mm_outbox *mm_outbox_open(sqlite3 *db, struct mm_err *err);
void mm_outbox_close(struct mm_outbox *o);

/* The first row with an id above `after`: 1, or 0 when there is none or on
** error. Bytes are appended to names and data (either may be NULL: not read). */
int mm_outbox_next(struct mm_outbox *o, int64_t after, struct mm_outbox_row *row, struct mm_buf *names,
                   struct mm_buf *data, struct mm_err *err);
/* The row `id` itself; 0 when it is gone. */
int mm_outbox_get(struct mm_outbox *o, int64_t id, struct mm_outbox_row *row, struct mm_buf *names, struct mm_buf *data,
                  struct mm_err *err);
/* Highest id ever given (0 = none). */
int64_t mm_outbox_last(struct mm_outbox *o, struct mm_err *err);

/* Before-images of a redone pending transaction in one shard. get: 1 when
** there are some (appended to data), 0 when it was never redone. */
int mm_outbox_undo_put(struct mm_outbox *o, int64_t id, int shard, bool clean, const void *data, size_t len,
                       struct mm_err *err);
int mm_outbox_undo_get(struct mm_outbox *o, int64_t id, int shard, bool *clean, struct mm_buf *data,
                       struct mm_err *err);
/* For all ids up to `id`: they are echoed. */
int mm_outbox_undo_drop(struct mm_outbox *o, int64_t id, int shard, struct mm_err *err);

/* All rows up to `id` are echoed at `now`; and the clean-up: rows echoed more
** than keep_ms ago go, also the oldest ones beyond keep_bytes. Bounded: at
** most `max_rows` a call. Returns err->rc; *more when rows were left over. */
int mm_outbox_echoed(struct mm_outbox *o, int64_t id, int64_t now_ms, struct mm_err *err);
int64_t mm_outbox_echoed_upto(struct mm_outbox *o, struct mm_err *err); /* as last stored */
bool mm_outbox_trim_due(struct mm_outbox *o, int64_t now_ms, int64_t keep_ms, struct mm_err *err);
int mm_outbox_trim(struct mm_outbox *o, int64_t now_ms, int64_t keep_ms, int64_t keep_bytes, int max_rows, bool *more,
                   struct mm_err *err);

/* Rows of incarnation `old` from `first` on belong to `moved` instead. */
int mm_outbox_move(struct mm_outbox *o, int64_t old, int64_t first, int64_t moved, struct mm_err *err);

/* What is not echoed, with its before-images, into schema `to` whose outbox is
** empty; and what a snapshot must not hold leaves main again. */
int mm_outbox_copy(sqlite3 *db, const char *to, struct mm_err *err);
int mm_outbox_strip(sqlite3 *db, struct mm_err *err);
/* The log was set back: rows above `id` count as not echoed again. */
int mm_outbox_unecho(sqlite3 *db, int64_t id, struct mm_err *err);
/* Highest id that was trimmed: what is up to it cannot be sent again. */
int64_t mm_outbox_floor(sqlite3 *db, struct mm_err *err);

/* --- The head row; any connection of ours, in its transaction. --- */
int64_t mm_head_incarnation(sqlite3 *db, struct mm_err *err); /* 0 when there is no head yet */
int mm_head_set_incarnation(sqlite3 *db, int64_t incarnation, struct mm_err *err);
int mm_head_set_watch_all(sqlite3 *db, bool on, struct mm_err *err);
int mm_head_set_capturing(sqlite3 *db, bool on, struct mm_err *err);

/* Adds number and bytes of the rows after *counted, and moves it to the last. */
int mm_outbox_count(struct mm_outbox *o, int64_t *counted, int64_t *rows, int64_t *bytes, struct mm_err *err);

/* For the status: rows and bytes of the outbox that are not echoed (id above
** `echoed`) and in all. */
int mm_outbox_size(sqlite3 *db, int64_t *rows, int64_t *bytes, struct mm_err *err);

#endif
