/* Changes into tables: the fold of a message, the redo of a pending
** transaction, and the undo by before-images.
**
** Threads: the replication thread, inside its write transaction. A cause
** that is bound to one table (missing, other columns, other key, a constraint
** of this node) makes that table `stale` and leaves its rows out; any other
** error is the caller's and rolls the transaction back. */
#ifndef MM_REPL_APPLY_H
#define MM_REPL_APPLY_H

#include "repl/image.h"

/* Policies as of some place in the log. */
struct mm_policies {
    struct mm_policy_entry {
        char *table, *column; /* one allocation, at table */
        int policy;           /* enum mm_policy */
    } * entry;
    size_t n;
};

struct mm_apply_how {
    int shard;
    int64_t seq, node;                  /* of the message, for the conflict log */
    bool pending;                       /* a redo: all captured tables; conflicts are not recorded */
    bool all;                           /* of an UPDATE every column that was sent counts as changed */
    const struct mm_policies *policies; /* of a replay; NULL: those in force */
    bool replay;                        /* only tables that are joining, from their joined_seq on */
    struct mm_image *images;            /* collects before-images; NULL: not wanted */
    bool conflict;                      /* set when some row was not as expected */
    int64_t skipped;                    /* rows, counted */
};

int mm_apply_txn(sqlite3 *db, struct mm_targets *targets, const struct mm_txn *txn, struct mm_apply_how *how,
                 struct mm_err *err);

/* Writes the images back. */
int mm_apply_images(sqlite3 *db, struct mm_targets *targets, const struct mm_txn *images, struct mm_err *err);

#endif
