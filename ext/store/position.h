/* The replicated state of each shard: position, accepted origins, unfinished
** parts; and the local records of conflicts and ignored messages.
**
** Threads: the replication thread's connection; readers may call the getters
** on connections of their own. This file and its .c alone name
** __marmot__position, __marmot__origin, __marmot__accepted, __marmot__part,
** __marmot__conflict and __marmot__ignored. */
#ifndef MM_STORE_POSITION_H
#define MM_STORE_POSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"
#include "store/outbox.h"

enum { MM_DIGEST_SIZE = 16, MM_ACCEPTED_KEPT = 1024 };

struct mm_position {
    int shard;
    int64_t seq; /* 0 = nothing folded yet */
    uint8_t digest[MM_DIGEST_SIZE];
    int64_t stamp; /* when the server stored that message, ns since 1970; 0 = not known */
    char created[40];
    int64_t epoch;
};

struct mm_origin {
    int64_t node;
    int64_t incarnation;
    int64_t seq; /* last accepted, 0 = none */
    uint8_t txid[MM_TXID_SIZE];
    int64_t outbox;
};

int mm_position_get(sqlite3 *db, int shard, struct mm_position *p, struct mm_err *err); /* 1 or 0 */
int mm_position_set(sqlite3 *db, const struct mm_position *p, struct mm_err *err);

/* 1 when known to that schema; else 0 with o->seq = 0. */
int mm_origin_get(sqlite3 *db, const char *schema, int shard, int64_t node, int64_t incarnation, struct mm_origin *o,
                  struct mm_err *err);
/* A SELECT of one column: every node whose messages were accepted in any shard. */
extern const char mm_position_sql_nodes[];

/* Many at once, inside one transaction: `add` remembers an accepted (seq,
** txid) among the last MM_ACCEPTED_KEPT, `last` writes the origin's newest. */
struct mm_origin_writer;
struct mm_origin_writer *mm_origin_writer_open(sqlite3 *db, int shard, struct mm_err *err);
int mm_origin_writer_add(struct mm_origin_writer *w, const struct mm_origin *o, struct mm_err *err);
int mm_origin_writer_last(struct mm_origin_writer *w, const struct mm_origin *o, struct mm_err *err);
void mm_origin_writer_close(struct mm_origin_writer *w);
/* The txid that the schema has accepted for an origin_seq: 1, or 0 when it is not (or no
** longer) known. */
int mm_origin_accepted(sqlite3 *db, const char *schema, int shard, int64_t node, int64_t incarnation, int64_t seq,
                       uint8_t txid[MM_TXID_SIZE], struct mm_err *err);

/* The incarnation under which the schema has accepted a transaction of the node, as far as it
** remembers; 0 = none. */
int64_t mm_origin_of_txid(sqlite3 *db, const char *schema, int shard, int64_t node, const uint8_t txid[MM_TXID_SIZE],
                          struct mm_err *err);

/* True when a transaction of the node is among the accepted ones that are
** still remembered, of whatever incarnation. */
bool mm_origin_txid_known(sqlite3 *db, int shard, int64_t node, const uint8_t txid[MM_TXID_SIZE], struct mm_err *err);

/* Replaces the replicated state of schema `to` by that of `from` (names of
** attached databases; unfinished parts with it), inside the caller's
** transaction. */
int mm_position_copy(sqlite3 *db, const char *from, const char *to, struct mm_err *err);

/* How much of what a node's outbox held the log has lost: where schema `from`
** has accepted less of it than main, the highest outbox id up to which `from`
** has accepted everything; -1 when nothing is lost. */
int64_t mm_position_lost_outbox(sqlite3 *db, const char *from, int64_t node, struct mm_err *err);

/* The first of what main has accepted and schema `from` has not: of other nodes
** than `node`, or under the same number but not the same transaction. Returns
** its text for people (sqlite3_free), NULL when there is none. */
char *mm_position_exceeds(sqlite3 *db, const char *from, int64_t node, struct mm_err *err);

struct mm_part_head {
    uint8_t txid[MM_TXID_SIZE];
    int count; /* parts in all */
    int held;  /* parts here: 0 .. held-1 */
    uint8_t sha256[32];
    int64_t bytes; /* held so far */
};
int mm_part_get(sqlite3 *db, int shard, int64_t node, int64_t incarnation, struct mm_part_head *h,
                struct mm_err *err); /* 1, or 0 when there is no unfinished transaction */
int mm_part_drop_shard(sqlite3 *db, int shard, struct mm_err *err); /* all nodes' */
/* Adds part number h->held. */
int mm_part_add(sqlite3 *db, int shard, int64_t node, int64_t incarnation, const struct mm_part_head *h, int64_t at_ms,
                const void *data, size_t len, struct mm_err *err);
int mm_part_read(sqlite3 *db, int shard, int64_t node, int64_t incarnation, struct mm_buf *data,
                 struct mm_err *err); /* all held parts, appended */
int mm_part_drop(sqlite3 *db, int shard, int64_t node, int64_t incarnation, struct mm_err *err);
/* The parts of exactly this transaction are dropped; of another one nothing. */
int mm_part_end(sqlite3 *db, int shard, int64_t node, int64_t incarnation, const uint8_t txid[MM_TXID_SIZE],
                struct mm_err *err);

/* An unfinished transaction: its newest part. */
struct mm_part_row {
    int shard;
    int64_t node, incarnation;
    uint8_t txid[MM_TXID_SIZE];
    int number;
    int64_t at; /* the server's time stamp */
};
/* The first `max` of them into `rows`; returns how many. */
int mm_part_list(sqlite3 *db, struct mm_part_row *rows, int max, struct mm_err *err);
/* Control row, in the caller's transaction: 'E', shard, node, incarnation (8 bytes each,
** big-endian), txid. Asks all nodes to drop the parts of this transaction. */
#define MM_CONTROL_ENDED 'E'
int mm_part_ask_end(sqlite3 *db, const struct mm_part_row *row, struct mm_err *err);

struct mm_conflict {
    int shard;
    int64_t seq;
    int64_t node;
    const char *kind;
    const char *table;
    const char *key;  /* JSON */
    const char *lost; /* JSON */
    const char *won;  /* JSON */
};
/* The oldest go: beyond max_rows, and now and then beyond max_bytes of texts. */
int mm_conflict_add(sqlite3 *db, const struct mm_conflict *c, int64_t max_rows, int64_t max_bytes, struct mm_err *err);

struct mm_conflict_row {
    int64_t id;
    int64_t at; /* ms since 1970 */
    struct mm_conflict c;
};
/* Newest first, until it answers false or there is an error. */
typedef bool mm_conflict_seen(void *arg, const struct mm_conflict_row *row, struct mm_err *err);
int mm_conflict_each(sqlite3 *db, mm_conflict_seen *one_seen, void *arg, struct mm_err *err);
/* How many records of each kind there are; and how many there ever were. */
typedef void mm_conflict_kind_seen(void *arg, const char *kind, int64_t count);
int mm_conflict_kinds(sqlite3 *db, mm_conflict_kind_seen *one_seen, void *arg, struct mm_err *err);
int64_t mm_conflict_total(sqlite3 *db, struct mm_err *err);
int64_t mm_conflict_dropped(sqlite3 *db, struct mm_err *err); /* how many of these are gone */

int mm_ignored_add(sqlite3 *db, int shard, int64_t seq, int64_t node, const char *reason, struct mm_err *err);
int64_t mm_ignored_count(sqlite3 *db, struct mm_err *err);

#endif
