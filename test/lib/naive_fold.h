/* The fold once more, naively: rows in plain arrays, messages in the order of
** their places, written from SPEC 3 and 4 alone. It shares the wire decoder
** with the library and nothing of repl.
**
** Threads: one. Ownership: a state owns all it holds. Out of memory ends the
** program: this is for tests. */
#ifndef MM_TEST_NAIVE_FOLD_H
#define MM_TEST_NAIVE_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/policy.h"
#include "test/lib/naive_value.h"
#include "wire/wire.h"

enum { NAIVE_COLUMNS = 6, NAIVE_TABLES = 12 };

/* A UNIQUE index that is not over plain columns of all rows. */
enum naive_rule {
    NAIVE_NO_RULE,
    NAIVE_SECOND_WHERE_THIRD, /* over the second column, of rows whose third is 1 */
    NAIVE_LOWER_SECOND,       /* over lower(second column) */
};

/* One table as all nodes have it. */
struct naive_def {
    const char *name;
    int ncol;
    const char *col[NAIVE_COLUMNS];
    int pk[NAIVE_COLUMNS]; /* place in the key, 0 = not in it; all 0: keyless */
    enum mm_coll coll[NAIVE_COLUMNS];
    int unique[NAIVE_COLUMNS]; /* 1: UNIQUE of its own beyond the key */
    enum naive_rule rule;
    int younger;                          /* first of the columns that a node may lack yet, 0 = there are none */
    struct mm_value given[NAIVE_COLUMNS]; /* what those hold in a row of before */
};

struct naive_row {
    struct mm_value v[NAIVE_COLUMNS]; /* bytes owned */
};

struct naive_table {
    const struct naive_def *def;
    enum mm_policy policy[NAIVE_COLUMNS];
    struct naive_row *row;
    size_t n, cap;
    bool apart; /* it is not compared */
};

struct naive_origin {
    int64_t node, incarnation, seq;
    uint8_t txid[MM_TXID_SIZE];
    uint8_t *parts; /* of the unfinished transaction */
    size_t parts_len;
    int held, count;
    uint8_t part_txid[MM_TXID_SIZE], sha256[32];
};

struct naive {
    struct naive_table table[NAIVE_TABLES];
    int ntable;
    struct naive_origin *origin;
    size_t norigin;
    uint8_t (*accepted)[MM_TXID_SIZE]; /* of every accepted transaction, in order */
    size_t naccepted;
    int64_t seq;   /* last message taken */
    int64_t epoch; /* 0 stands for 1 */
    bool over;     /* a newer epoch began: nothing from there on counts */
};

void naive_init(struct naive *s, const struct naive_def *def, int n);
void naive_free(struct naive *s);
void naive_copy(struct naive *to, const struct naive *from); /* rows and policies */

/* All of it. */
void naive_clone(struct naive *to, const struct naive *from);

bool naive_policies(const struct naive *s); /* some column has another than 'last' */

/* One message at its place. */
void naive_message(struct naive *s, int64_t seq, const void *data, size_t len, bool zstd);

/* The changes of one transaction. `captured`: an UPDATE has both rows whole, its
** changed columns are those that differ; else they are those in `after`. */
void naive_apply(struct naive *s, const struct mm_txn *txn, bool captured);

size_t naive_accepted(const struct naive *s, const uint8_t *txid); /* how often */

/* A row of the beginning; values are copied. */
void naive_put(struct naive *s, int table, const struct mm_value *row);

/* Compares as multisets, type and bytes; false: `why` names the difference. */
bool naive_same(const struct naive *a, const struct naive *b, char *why, size_t n);

#endif
