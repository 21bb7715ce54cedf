/* The outbox: captured transactions and control messages, from the
** application's commit until some time after their echo.
**
** Threads: that of the connection. Ids grow and never come back; one is left
** out where a COMMIT was refused. outbox.c, outbox_put.c, outbox_head.c and
** outbox_whole.c alone name __marmot__outbox, __marmot__head, __marmot__undo, __marmot__echo. */
#ifndef MM_STORE_OUTBOX_H
#define MM_STORE_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"
#include "store/inbox.h"

enum { MM_TXID_SIZE = 16 };

/* --- Writing side: what capture runs on the application's connection. It
** prepares these texts itself, since it must guard what it keeps there.
**
** Small transactions go into the inbox (store/inbox.h); full, it becomes one
** row of kind MM_OUTBOX_BATCH, whose `last` is its highest id. A larger
** transaction or a control message is a row of its own, in parts. --- */

/* ?1 NULL. One row: incarnation, watch_all, capturing, brake. */
extern const char mm_outbox_sql_head[];
/* ?1 NULL. No row: it is prepared again when the schema has moved, that is all. */
extern const char mm_outbox_sql_schema[];
/* ?1 id, ?2 part, ?3 kind, ?4 incarnation, ?5 txid, ?6 at, ?7 names, ?8 data, ?9 last. */
extern const char mm_outbox_sql_put[];

enum mm_outbox_kind { MM_OUTBOX_TXN = 0, MM_OUTBOX_CONTROL = 1, MM_OUTBOX_BATCH = 2 };

/* Appends a record that did not fit into the inbox: empties that into a row,
** then tries again or makes a row of it. `put` is mm_outbox_sql_put, prepared;
** part_size bounds a row's data. *at becomes the record's place (at->at is 0
** for a row), *end the place behind it. Returns err->rc. */
int mm_outbox_put(sqlite3 *db, sqlite3_stmt *put, uint64_t part_size, struct mm_inbox_end *end, struct mm_inbox_end *at,
                  const struct mm_inbox_record *r, struct mm_err *err);
/* Takes back what a COMMIT that was refused had written in the transaction
** that is still open. Returns err->rc. */
int mm_outbox_take_back(sqlite3 *db, const struct mm_inbox_end *at, struct mm_err *err);

/* Writes a transaction of another source than the hook into the current
** transaction of `db`, as a row of its own; txid NULL: a random one. */
int mm_outbox_put_txn(sqlite3 *db, const void *names, size_t names_len, const void *data, size_t len,
                      const uint8_t *txid, struct mm_err *err);
/* Writes a control message into the current transaction of `db`; data as
** control messages are encoded by the caller. */
int mm_outbox_put_control(sqlite3 *db, const void *data, size_t len, struct mm_err *err);

/* Inside the transaction that made the tables: ids begin where they ended. */
int mm_outbox_init(sqlite3 *db, struct mm_err *err);

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
sqlite3 *mm_outbox_db(const struct mm_outbox *o);

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

/* Forgets what was read ahead: after a transaction of this connection was
** rolled back. */
void mm_outbox_forget(struct mm_outbox *o);

/* All rows up to `id` are echoed at `now`; and the clean-up: rows echoed more
** than keep_ms ago go, also the oldest ones beyond keep_bytes; a batch goes with
** its last transaction. Bounded: at most `max_rows` a call. Returns err->rc; *more when rows were left over. */
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
/* What it holds up to `upto` is given up, echoed or not; ids go on. */
int mm_outbox_discard(struct mm_outbox *o, int64_t upto, struct mm_err *err);
/* Highest id that was trimmed away: what is up to it cannot be sent again. */
int64_t mm_outbox_gone(sqlite3 *db, struct mm_err *err);

/* --- The head row; any connection of ours, in its transaction. --- */
int64_t mm_head_incarnation(sqlite3 *db, struct mm_err *err); /* 0 when there is no head yet */
int mm_head_set_incarnation(sqlite3 *db, int64_t incarnation, struct mm_err *err);
int mm_head_set_watch_all(sqlite3 *db, bool on, struct mm_err *err);
bool mm_head_watch_all(sqlite3 *db, struct mm_err *err);
/* What hooks do: nothing; capture; or capture, and stamp every transaction (stray.h). */
enum { MM_CAPTURING_NOT = 0, MM_CAPTURING = 1, MM_CAPTURING_ALL = 2 };
int mm_head_set_capturing(sqlite3 *db, int how, struct mm_err *err);
int mm_head_capturing(sqlite3 *db, struct mm_err *err);
/* What a captured COMMIT does while the outbox is full. */
enum { MM_BRAKE_OFF, MM_BRAKE_SLOW, MM_BRAKE_REFUSE };
int mm_head_set_brake(sqlite3 *db, int brake, struct mm_err *err);
int mm_head_brake(sqlite3 *db, struct mm_err *err);

/* Adds number and bytes of the rows after *counted, and moves it to the last. */
int mm_outbox_count(struct mm_outbox *o, int64_t *counted, int64_t *rows, int64_t *bytes, struct mm_err *err);

/* For the status: transactions above the floor, and bytes in all. */
int mm_outbox_size(sqlite3 *db, int64_t *rows, int64_t *bytes, struct mm_err *err);

#endif
