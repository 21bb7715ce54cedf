/* The wire contract: messages to bytes and back (proto/marmot.proto).
**
** Threads: none of its own. The only folder that sees *.pb-c.h and zstd.h.
** Everything read is bounded before memory is taken; decoding never trusts
** a length, an index, a count or a compressed size. The encoding of one
** message is deterministic: same message, same bytes (golden files prove it
** for each version). */
#ifndef MM_WIRE_WIRE_H
#define MM_WIRE_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "store/change.h"
#include "store/outbox.h"

enum {
    MM_WIRE_VERSION = 1,
    MM_WIRE_COLUMNS_MAX = 32767, /* SQLite's own upper bound */
    MM_WIRE_TABLES_MAX = 10000,  /* a message */
    MM_WIRE_NAME_MAX = 4096,     /* bytes of a table or column name */
    MM_WIRE_SHARDS_MAX = 64,
};
#define MM_WIRE_TXN_MAX ((size_t)1 << 30)      /* decoded bytes of one transaction: SQLite's own blob limit */
#define MM_WIRE_MESSAGE_MAX ((size_t)64 << 20) /* one message on the wire, decompressed */

enum mm_msg_kind {
    MM_MSG_TXN = 1,      /* a whole transaction: `txn` */
    MM_MSG_PART = 2,     /* a piece of one: `part` */
    MM_MSG_FOUNDED = 3,  /* control, first message of shard 1 */
    MM_MSG_WATCH = 4,    /* control: tables join the cluster's list */
    MM_MSG_POLICY = 5,   /* control: how concurrent changes of a column meet, from here on */
    MM_MSG_VERIFY = 6,   /* control: every node sums its tables of this shard at this place */
    MM_MSG_VERIFIED = 7, /* control: one node's answer */
    MM_MSG_SEEDED = 8,   /* control: a new epoch begins, from one node's state */
    MM_MSG_ENDED = 9,    /* control: the parts of an unfinished transaction go */
};

struct mm_msg_table { /* in FOUNDED and WATCH */
    const char *name;
    uint64_t schema_hash;
    uint8_t content[16]; /* sum of row hashes modulo 2^128 */
    int64_t rows;
};

struct mm_msg_place { /* in SEEDED */
    int64_t seq;
    uint8_t digest[16];
};

struct mm_msg {
    enum mm_msg_kind kind;
    int64_t epoch;
    int64_t node;
    int64_t incarnation;
    int64_t origin_seq;
    uint8_t txid[MM_TXID_SIZE];
    uint8_t prev[MM_TXID_SIZE];
    int64_t outbox_first, outbox_last;
    int64_t log_first, log_last; /* of the trigger log; 0 = none of it */
    int64_t at_ms;               /* commit time: information only */
    uint64_t schema_version;

    struct mm_txn txn; /* TXN */
    bool all_columns;  /* TXN, to encode only: see mm_wire_encode_txn */

    struct { /* PART */
        int number, count;
        uint8_t sha256[32]; /* of all pieces together */
        const uint8_t *data;
        size_t len;
    } part;

    struct {                    /* FOUNDED and SEEDED: settings of the cluster; and WATCH: tables */
        const char *cluster_id; /* 32 hex digits */
        const char *settings;   /* canonical JSON */
        struct mm_msg_table *table;
        size_t ntable;
        /* POLICY */
        const char *policy_table, *policy_column;
        int policy; /* enum mm_policy of store/policy.h */
        /* VERIFY and VERIFIED: id of the call; VERIFIED: place of the verify
        ** message, and `table` */
        uint8_t verify_id[16];
        int64_t verify_seq;
        /* SEEDED, with cluster_id and settings: where the seed stood, a place a shard */
        int64_t from_epoch;
        struct mm_msg_place *place;
        size_t nplace;
        /* ENDED: whose transaction, and which */
        int64_t ended_node, ended_incarnation;
        uint8_t ended_txid[MM_TXID_SIZE];
    } control;
};

/* Appends the message's bytes; zstd is used where it pays (`*zstd` says so)
** if `compress`. */
int mm_wire_encode(struct mm_buf *out, const struct mm_msg *m, bool compress, bool *zstd, struct mm_err *err);

/* Decodes; all of *m lives in the arena, nothing borrows from data. `zstd` as
** the Content-Encoding header says. The arena's maximum is a bound that all
** nodes must share: what does not fit is SQLITE_TOOBIG. An old value of which
** only the hash was sent is UNDEF. SQLITE_CORRUPT: bad for every node (the
** message names what); SQLITE_MISMATCH: a version or feature newer than this
** library; SQLITE_TOOBIG: a bound was exceeded; SQLITE_NOMEM. */
int mm_wire_decode(struct mm_msg *m, const void *data, size_t len, bool zstd, struct mm_arena *arena,
                   struct mm_err *err);

/* The body of a large transaction, to be cut in parts: encoded (and
** compressed) alone, and back from the joined parts. Of an UPDATE travel the
** key and the columns that `after` holds and that differ from `before`;
** with `all_columns` (conflict "row") every column that `after` holds. An
** UNDEF in `before` outside the key travels as "not sent". A row that does
** not fit its table (key missing, INSERT not full) is SQLITE_MISUSE. */
int mm_wire_encode_txn(struct mm_buf *out, const struct mm_txn *txn, bool all_columns, bool compress,
                       struct mm_err *err);
int mm_wire_decode_txn(struct mm_txn *txn, const void *data, size_t len, struct mm_arena *arena, struct mm_err *err);
/* The same with less memory. The body is compressed later, when what it was
** made of is gone; and it is freed as soon as its bytes are not needed any more. */
int mm_wire_compress_txn(struct mm_buf *body, struct mm_err *err);
int mm_wire_decode_body(struct mm_txn *txn, struct mm_buf *body, struct mm_arena *arena, struct mm_err *err);

void mm_wire_sha256(const void *data, size_t len, uint8_t out[32]);

/* Hash of one row for content sums: SHA-256 over the encoded values of the
** named columns in name order, first 16 bytes, added to sum modulo 2^128
** (big-endian); `sign` -1 subtracts. */
int mm_wire_sum_row(uint8_t sum[16], const char *const *names, const struct mm_value *values, size_t n, int sign,
                    struct mm_err *err);

#endif
