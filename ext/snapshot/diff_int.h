/* What the files of the difference share: diff.c reads both sides in the order
** of their keys, diff_pending.c knows what is pending here. Nobody else
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

bool mm_diff_same(const struct mm_table *def, const struct mm_value *a, const struct mm_value *b);
/* The key of `row` differs. */
int mm_diff_note(struct mm_diff_side *c, const struct mm_value *row, bool here, bool there, struct mm_err *err);

/* True when something pending has touched the table. */
bool mm_diff_any_pending(struct mm_diff_side *c, struct mm_err *err);
/* Notes the keys that pending transactions have touched and whose base differs. */
int mm_diff_pending(struct mm_diff_side *c, struct mm_err *err);
bool mm_diff_touched(struct mm_diff_side *c, const struct mm_value *row, struct mm_err *err);
/* Without keys: compares sums over all rows of both bases. */
int mm_diff_sums(struct mm_diff_side *c, struct mm_err *err);

#endif
