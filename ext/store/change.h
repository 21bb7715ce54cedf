/* The row-change model: the one currency between capture, wire and repl.
**
** A transaction is, table by table, the net change of each key. Columns are
** known by name, keys by their columns' positions.
**
** Ownership: all of a struct mm_txn lives in its arena, or borrows from bytes
** that the caller keeps as long. Threads: none of its own. */
#ifndef MM_STORE_CHANGE_H
#define MM_STORE_CHANGE_H

#include "base/err.h"
#include "store/value.h"

enum mm_op { MM_OP_INSERT = 1, MM_OP_UPDATE = 2, MM_OP_DELETE = 3, MM_OP_REPLACE = 4 };

/* One key's net change. `before` and `after` have ncol values each.
**   INSERT   before NULL,            after the full row
**   REPLACE  before the full old row, after the full row (DELETE, then INSERT)
**   UPDATE   before and after hold the key and the changed columns, others UNDEF;
**            a captured one has the full old row in `before`
**   DELETE   before the full old row (or what was sent of it), after NULL
** In a keyless table UPDATE and DELETE carry the full old row. */
struct mm_row {
    enum mm_op op;
    struct mm_value *before;
    struct mm_value *after;
};

struct mm_tab {
    const char *name;
    uint32_t ncol;
    const char **col; /* column names */
    uint8_t *pk;      /* per column: 0, or its 1-based place in the key; all 0 = keyless */
    struct mm_row *row;
    size_t nrow;
};

struct mm_txn {
    struct mm_arena *arena; /* borrowed */
    struct mm_tab *tab;
    size_t ntab;
};

/* What a reader needs to know of a table to compare keys: the collation of
** each column by name. Returns the collation. An error must not be kept back: SQLite
** may have rolled the caller's transaction back with it. */
typedef enum mm_coll mm_coll_of(void *arg, const char *table, const char *column, struct mm_err *err);

/* Captured bytes: a changeset (concatenated table groups are allowed; every
** UPDATE and DELETE carries the full old row) and, beside it, the names:
** for each group of the changeset in order, table name, column names, each
** with a NUL behind. Merges them to net changes in `txn` (arena set by the
** caller). A key that ends as it began is left out. Values borrow from
** `data`. SQLITE_CORRUPT with the byte offset for malformed bytes. */
int mm_change_read(struct mm_txn *txn, const void *data, size_t len, const void *names, size_t names_len,
                   mm_coll_of *coll, void *coll_arg, struct mm_err *err);

/* The same for before-images (repl/image.h): of several records of one key the
** first counts, the others are left out. */
int mm_change_read_first(struct mm_txn *txn, const void *data, size_t len, const void *names, size_t names_len,
                         mm_coll_of *coll, void *coll_arg, struct mm_err *err);

/* The canonical key of a row's change (`before` if there is one, else
** `after`), table name included: equal bytes = same row of the same table.
** False for keyless tables and keys with a NULL. */
bool mm_change_key(struct mm_buf *b, const struct mm_tab *tab, const struct mm_value *row, const uint8_t *coll);

/* Writing side of the same format, for capture: one table group's header and
** one record. `old`/`new` as sqlite3changeset documents them, but full rows. */
void mm_change_put_table(struct mm_buf *b, const char *name, uint32_t ncol, const uint8_t *pk);
void mm_change_put_head(struct mm_buf *b, enum mm_op op); /* INSERT, UPDATE or DELETE; values follow */

#endif
