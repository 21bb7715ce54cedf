/* The inbox: small captured transactions, in commit order, in one blob that is
** written in place (table __marmot__inbox, which this file's .c alone names).
**
** Why not a row each: rightmost inserts into a WITHOUT ROWID b-tree split pages
** without SQLite's quick balance, so that a commit wrote 2.7 WAL frames where
** plain SQLite writes 1.1; here it writes 2.1. Incremental blob I/O is seen by
** no update hook, changes neither last_insert_rowid() nor total_changes(), and
** asks no authorizer.
**
** Layout, integers little-endian. Head: base (8 bytes, id of the first record),
** tag (8 random bytes, new with each emptying). Then records: length of the
** whole record (4), kind (4), txid (16), incarnation (8), commit time (8),
** length of names (4), names, data. A length of 0 ends the log. Behind it may
** stand the stamp of the last commit (stamp.h), which moves on with whatever is
** written here: tag, id of the record that would begin here, the stamp, the tag
** again: wherever a page ends, one half of it is whole and like nothing else.
**
** Threads: that of the connection. All calls belong into a transaction of the
** caller; what is remembered in struct mm_inbox_end is to be forgotten (zeroed)
** when that transaction is rolled back. */
#ifndef MM_STORE_INBOX_H
#define MM_STORE_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"
#include "store/stamp.h"

enum {
    MM_INBOX_RECORD_MAX = 8192, /* larger ones are rows of the outbox */
    MM_INBOX_VOID = 255,        /* kind of a record that a refused COMMIT left */
};

struct mm_inbox_record {
    int kind;
    int64_t incarnation;
    uint8_t txid[16];
    int64_t at; /* ms since 1970 */
    const uint8_t *names;
    size_t names_len;
    const uint8_t *data;
    size_t len;
    bool mapped; /* data is a shared mapping of a file: what was written may leave memory */
};

/* A place between two records. Zeroed: not known. Who kept it since an append or
** a reset, and knows that nobody else has written, may set `sure`: then neither
** the place nor the stamp is looked for. */
struct mm_inbox_end {
    int64_t base; /* id of the first record */
    uint64_t tag;
    int64_t next; /* id of the record that begins here */
    uint32_t at;  /* its offset in the log */
    bool sure;
    bool stamped;
    struct mm_stamp stamp;
};

/* The bytes that a record takes. */
size_t mm_inbox_size(const struct mm_inbox_record *r);

/* Moves *end to the end of the log: from where it is when that is a place of
** this log, else from the first record. Returns err->rc. */
int mm_inbox_find_end(sqlite3 *db, struct mm_inbox_end *end, struct mm_err *err);

/* Appends the record as end->next, with *end anywhere in the log or zeroed;
** *before becomes where it was written, *end the place behind it. 1, or 0 when
** it does not fit (then *end is the log's end) or on error. */
int mm_inbox_append(sqlite3 *db, struct mm_inbox_end *end, struct mm_inbox_end *before, const struct mm_inbox_record *r,
                    struct mm_err *err);

/* Bytes of the records before it. */
int64_t mm_inbox_used(const struct mm_inbox_end *end);

/* Makes the record at this place count no more: the last one goes, another one
** becomes MM_INBOX_VOID. 1, or 0 when the log was emptied since or on error. */
int mm_inbox_void(sqlite3 *db, const struct mm_inbox_end *at, struct mm_err *err);

/* Appends all bytes of the records before `end`. Returns err->rc. */
int mm_inbox_bytes(sqlite3 *db, const struct mm_inbox_end *end, struct mm_buf *out, struct mm_err *err);

/* False for a log that never had a base: a table just made. */
bool mm_inbox_ready(sqlite3 *db, struct mm_err *err);
/* An empty log whose first record will have the id `base`; *end is its end
** before and after. Returns err->rc. */
int mm_inbox_reset(sqlite3 *db, int64_t base, struct mm_inbox_end *end, struct mm_err *err);

/* Reads the first record with an id of at least `from` that is not void into
** `bytes` (cleared before). *pos, which may be zeroed, shortens the search and
** moves behind the record: its id is pos->next - 1. 1, 0 when there is none or
** on error. */
int mm_inbox_read(sqlite3 *db, struct mm_inbox_end *pos, int64_t from, struct mm_buf *bytes, struct mm_err *err);

/* Reads one record of such bytes; it borrows from them. False at the end or
** when they are damaged (*p is then not `end`). */
bool mm_inbox_parse(const uint8_t **p, const uint8_t *end, struct mm_inbox_record *r);

/* Changes every record with an id of `first` to `last` under incarnation `old`
** (0: any) to `moved` (0: makes it void instead), in the bytes of a log that
** begins with id `base`. Returns how many. */
int64_t mm_inbox_rewrite(uint8_t *bytes, size_t len, int64_t base, int64_t old, int64_t first, int64_t last,
                         int64_t moved);
/* The same in the log itself. Returns err->rc. */
int mm_inbox_move(sqlite3 *db, int64_t old, int64_t first, int64_t last, int64_t moved, struct mm_err *err);

/* The stamp at the end, which *end is moved to: 1, or 0 when there is none; `seal`
** (may be NULL) gets its bytes as they lie there. */
enum { MM_INBOX_SEAL = 44 };
int mm_inbox_stamp(sqlite3 *db, struct mm_inbox_end *end, struct mm_stamp *out, uint8_t *seal, struct mm_err *err);
/* Puts it there; NULL takes it away. */
int mm_inbox_set_stamp(sqlite3 *db, struct mm_inbox_end *end, const struct mm_stamp *s, struct mm_err *err);
/* Stamps the transaction if there is a stamp at all. */
int mm_inbox_stamp_next(sqlite3 *db, struct mm_inbox_end *end, struct mm_err *err);

/* The whole of it into schema `to` (the name of an attached database). */
int mm_inbox_copy(sqlite3 *db, const char *to, struct mm_err *err);

/* What it holds is forgotten. */
int mm_inbox_clear(sqlite3 *db, struct mm_err *err);

#endif
