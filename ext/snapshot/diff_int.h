/* What the files of the difference share: diff.c reads both sides in the order
** of their keys, diff_pending.c knows what is pending here, diff_visible.c
** compares what is visible. Nobody else
** includes this. */
#ifndef MM_SNAPSHOT_DIFF_INT_H
#define MM_SNAPSHOT_DIFF_INT_H

#include "base/seen.h"
#include "snapshot/diff.h"

/* One table of both sides. */
struct mm_diff_side {
    struct mm_scratch *s;
    struct mm_repl *live;
    struct mm_target *t; /* of live */
    const struct mm_table *def;
    int *key; /* columns in the order of the key */
    int nkey;
    sqlite3_stmt *put;
    struct mm_diff_table *out;
    struct mm_work *work;
    struct mm_seen touched; /* hashes of keys that something pending has touched */
    struct mm_buf scratch;
};

/* The next row of a SELECT of all columns; false at the end, or with err set. */
bool mm_diff_next(const struct mm_table *def, sqlite3_stmt *st, struct mm_value *row, struct mm_err *err);
/* Both are read in the order of their keys, and differences noted; a NULL in a
** key sets mode ALL and ends it. a and b: a row each. */
void mm_diff_merge(struct mm_diff_side *c, struct mm_value *a, struct mm_value *b, struct mm_err *err);
/* In UTF-16 the order of texts is another than that of mm_value_compare. */
bool mm_diff_wide(const struct mm_diff_side *c, struct mm_err *err);
int mm_diff_open_put(struct mm_diff_side *c, int number, struct mm_err *err);
bool mm_diff_null_key(const struct mm_diff_side *c, const struct mm_value *row);
bool mm_diff_same(const struct mm_table *def, const struct mm_value *a, const struct mm_value *b);
/* The key of `row` differs. */
int mm_diff_note(struct mm_diff_side *c, const struct mm_value *row, bool here, bool there, struct mm_err *err);

/* True when something pending has touched the table. */
bool mm_diff_any_pending(struct mm_diff_side *c, struct mm_err *err);
/* Notes the keys that pending transactions have touched and whose base differs. */
int mm_diff_pending(struct mm_diff_side *c, struct mm_err *err);
bool mm_diff_touched(struct mm_diff_side *c, const struct mm_value *row, struct mm_err *err);
/* The whole comparison of one table, as it is visible. */
int mm_diff_visible(struct mm_diff_side *c, int number, struct mm_err *err);
/* Without keys: compares sums over all rows of both bases. */
int mm_diff_sums(struct mm_diff_side *c, struct mm_err *err);

#endif
