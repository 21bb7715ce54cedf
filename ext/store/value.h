/* One SQLite value with its exact type and bytes, and how it is written down.
**
** Threads: none of its own. Ownership: a value borrows its bytes from an
** arena, a buffer or a statement's row; nothing here frees them.
** Encoding: that of the session extension's changesets (sqlite3session.c,
** "Changeset format"): a type byte, then 8 bytes big-endian for INTEGER and
** FLOAT, or a varint length and the bytes. A type byte of 0 is "undefined". */
#ifndef MM_STORE_VALUE_H
#define MM_STORE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/sqlite.h"

/* Type 0 is "undefined": the column is not part of this record. */
enum { MM_UNDEF = 0 }; /* else SQLITE_INTEGER 1, SQLITE_FLOAT 2, SQLITE_TEXT 3, SQLITE_BLOB 4, SQLITE_NULL 5 */

struct mm_value {
    uint8_t type;
    uint32_t len; /* TEXT (UTF-8, without NUL behind), BLOB */
    union {
        int64_t i;
        double r;
        const uint8_t *p;
    } u;
};

/* Collations that two nodes can agree on without code of the application. */
enum mm_coll { MM_COLL_BINARY, MM_COLL_NOCASE, MM_COLL_RTRIM, MM_COLL_OTHER };
const char *mm_coll_name(enum mm_coll coll); /* for COLLATE; OTHER has none: BINARY */

/* Same type and same bytes (-0.0 and 0.0 differ). */
bool mm_value_same(const struct mm_value *a, const struct mm_value *b);

/* Equal the way SQLite compares keys: 1 and 1.0 are equal, texts by coll.
** NULL equals nothing, not even NULL. */
bool mm_value_key_equal(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll);

/* Their order in a key, as SQLite's in an UTF-8 database: NULL, numbers, texts
** by coll, blobs. */
int mm_value_compare(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll);
/* Of two numbers alone, by what they are exactly. */
int mm_value_numbers(const struct mm_value *a, const struct mm_value *b);

/* Appends a canonical form: two keys are one row for SQLite if and only if
** these bytes are the same (no NULL among them). */
void mm_value_key(struct mm_buf *b, const struct mm_value *v, enum mm_coll coll);

/* Borrow from the sqlite3_value or the statement's current row. On an
** out-of-memory condition inside SQLite the result is false. */
bool mm_value_from(struct mm_value *out, sqlite3_value *v);
bool mm_value_column(struct mm_value *out, sqlite3_stmt *st, int col);

/* Binds (bytes stay borrowed until the binding is cleared); UNDEF binds NULL.
** Returns an SQLite code. */
int mm_value_bind(sqlite3_stmt *st, int param, const struct mm_value *v);

void mm_value_encode(struct mm_buf *b, const struct mm_value *v);

/* Reads one value at *p (bytes borrowed); false when it is malformed or ends
** beyond `end`. */
bool mm_value_decode(const uint8_t **p, const uint8_t *end, struct mm_value *out);

/* Deep copy into the arena; false when that failed. */
bool mm_value_copy(struct mm_arena *a, struct mm_value *to, const struct mm_value *from);

/* Appends JSON: numbers, strings, null, {"blob":"<hex>"}; not-UTF-8 text like a blob. */
void mm_value_json(struct mm_buf *b, const struct mm_value *v);

/* SQLite's varint (big-endian, 7 bits a byte, 9 bytes at most). */
void mm_varint_put(struct mm_buf *b, uint64_t v);
bool mm_varint_get(const uint8_t **p, const uint8_t *end, uint64_t *v);

#endif
