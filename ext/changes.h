/* The change log, read back and decoded: what marmot_changes shows.
**
** A reader has a connection of its own and follows one shard from a sequence to
** the end that the stream had at its opening. It sees the log as it is: also
** messages that every node passes over (sent twice, of another epoch).
**
** Threads: the caller's alone. It waits for the network, 10 s for a message at
** most. Memory: one message, the rows of which are handed out one by one, and
** the parts of large transactions up to MM_CHANGES_PARTS_MAX. */
#ifndef MM_CHANGES_H
#define MM_CHANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "config.h"
#include "wire/wire.h"

#define MM_CHANGES_PARTS_MAX ((size_t)64 << 20)  /* bytes of unfinished transactions kept */
#define MM_CHANGES_ARENA_MAX ((size_t)512 << 20) /* of one decoded message */
#define MM_CHANGES_TEXT_MAX ((size_t)256 << 20)  /* of one row's JSON text */

struct mm_changes;

/* One row of the answer. Texts are borrowed until the next call, NULL = NULL. */
struct mm_changes_row {
    int64_t seq, node;
    int64_t at_ms; /* when it was committed; of what cannot be read: when it was stored */
    const char *table;
    const char *op;  /* insert, update, delete, replace; founded, watch, policy, verify,
                     ** verified, seeded, parts_ended; parts (of a transaction that cannot be put together,
                     ** or comes in parts once more and counts no more),
                     ** nothing (a transaction without rows), newer, malformed */
    const char *key; /* JSON objects: column -> value */
    const char *old; /* what was sent of it: all of a row without a key, else of what changed */
    const char *new; /* of an update what changed, else all of the row */
};

/* Connects. A stream that does not exist yet has no rows. NULL with err set:
** the shard does not exist, from_seq is below 1, no connection. */
struct mm_changes *mm_changes_open(const struct mm_config *c, int64_t shard, int64_t from_seq, struct mm_err *err);
void mm_changes_close(struct mm_changes *c); /* NULL is fine */
/* True with the next row; false at the end, or with err set. */
bool mm_changes_next(struct mm_changes *c, struct mm_changes_row *row, struct mm_err *err);

/* --- changes_parts.c: which messages count, as every node decides it; transactions
** put together from the parts that do --- */

struct mm_changes_parts;
/* from_first: the first message will be the log's first. Otherwise, of an
** origin's messages the first one is taken for the next that counts. */
struct mm_changes_parts *mm_changes_parts_open(bool from_first, struct mm_err *err);
void mm_changes_parts_close(struct mm_changes_parts *p); /* NULL is fine */

/* What the last part of a transaction makes of it; all NULL: it is not one. */
struct mm_changes_whole {
    const struct mm_buf *data; /* the transaction's bytes, borrowed until the next call; or */
    const char *op, *why;      /* why there are none */
};
/* Each message in turn. */
int mm_changes_parts_take(struct mm_changes_parts *p, const struct mm_msg *m, struct mm_changes_whole *out,
                          struct mm_err *err);
/* The data of the last answer could be read: the transaction counts. */
int mm_changes_parts_good(struct mm_changes_parts *p, const struct mm_msg *m, struct mm_err *err);
/* A message was not understood, and may be of any origin. */
void mm_changes_parts_unknown(struct mm_changes_parts *p);

/* --- changes_row.c: the rows of one message --- */

struct mm_changes_cursor {
    const struct mm_msg *msg;
    const struct mm_txn *txn; /* of TXN, and of a last PART that could be put together; else NULL */
    const char *trouble;      /* instead of content: why there is none; NULL = all is well */
    const char *trouble_op;
    size_t tab, row; /* the next one */
    bool said, done; /* a row was handed out; nothing is left */
    struct mm_buf key, old, new;
};
void mm_changes_cursor_init(struct mm_changes_cursor *c);
void mm_changes_cursor_free(struct mm_changes_cursor *c);
void mm_changes_cursor_start(struct mm_changes_cursor *c, const struct mm_msg *msg, const struct mm_txn *txn,
                             const char *trouble_op, const char *trouble);
/* Fills all but seq, node and time; false when there is none left. */
bool mm_changes_cursor_next(struct mm_changes_cursor *c, struct mm_changes_row *row, struct mm_err *err);

#endif
