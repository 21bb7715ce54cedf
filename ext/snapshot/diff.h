/* What a node's base and a copy that has followed the log differ in.
**
** Threads: any one: the node is read in one read transaction of an own
** connection, without a lock. Its base must stand still meanwhile (the node is
** held: what the application commits is pending and does not belong to it).
** Keys that differ are written into the copy, into tables __marmot__diff_<i>
** of the key's columns k1, k2, .. and two flags: here, there.
**
** `visible`: not the base is compared but what the application sees, with the
** copy on which all that is pending was done as well (repl/shadow.h). Then rows
** without identity are in __marmot__rows_<i>: those only here with their rowid r
** (else NULL), all columns as c0, c1, .. */
#ifndef MM_SNAPSHOT_DIFF_H
#define MM_SNAPSHOT_DIFF_H

#include "snapshot/scratch.h"

enum mm_diff_mode {
    MM_DIFF_SAME,   /* nothing to do */
    MM_DIFF_KEYS,   /* the keys in its diff table differ */
    MM_DIFF_ALL,    /* too different, or without keys: all rows are replaced */
    MM_DIFF_CREATE, /* there is no such table here */
    MM_DIFF_OTHER,  /* its definition differs: see why */
    MM_DIFF_ABSENT, /* the copy does not hold it: see why */
};

struct mm_diff_table {
    char *name;
    enum mm_diff_mode mode;
    int64_t here, there, both; /* keys only here, only in the copy, in both with other rows */
    int64_t rows;              /* of the base here, 0 or more than 0 */
    int64_t bytes;             /* of ALL and CREATE: what the copy holds of it, about */
    uint64_t shape;            /* mm_table_hash of the table here, 0 = there is none */
    bool captured;             /* it is watched here */
    bool unknown;              /* nobody has said here whether to watch it */
    bool waits;                /* of ABSENT: its rows come with the next snapshot */
    bool altered;              /* of those: it was altered since, and is not here */
    bool pending;              /* some of its changes are not in the log yet: its base is another than what is seen */
    bool joins, before, empty; /* `tables`: it waits for a copy; it had joined before; its base was empty then */
    char why[300];
};

struct mm_diff {
    struct mm_diff_table *table; /* every table of the cluster's list; number i is its place here */
    int n;
    int64_t upto[MM_SNAPSHOT_SHARDS]; /* visible: outbox id up to which the copy has what is pending */
    int64_t last;                     /* highest outbox id then */
    int64_t schema;                   /* SQLite's number of the schema then, 0 = not known */
};

struct mm_diff_options {
    const char *path, *vfs;      /* the node's */
    struct mm_repl_options repl; /* the node's */
    struct mm_work *work;
    bool visible;
    bool tables; /* only those that wait for a copy */
};

int mm_diff_run(struct mm_diff *d, const struct mm_diff_options *o, struct mm_scratch *s, struct mm_err *err);
void mm_diff_free(struct mm_diff *d);

/* The table's columns and its key's, as lists for a statement: "a", "b". */
int mm_diff_columns(const struct mm_table *def, bool key, struct mm_buf *out, struct mm_err *err);

#endif
