/* What the files of the status tables share: status.c owns SQLite's side of
** them, status_tables.c and status_streams.c fill the rows. Nobody else
** includes this.
**
** Threads: that of the connection. */
#ifndef MM_STATUS_INT_H
#define MM_STATUS_INT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/sqlite.h"

/* A scan's copied content: nrow times ncol texts, NULL = NULL. */
struct mm_status_rows {
    int ncol;
    size_t nrow, cap;
    size_t bytes; /* of the texts */
    char **cell;
};

/* Appends one row of copies. */
int mm_status_add(struct mm_status_rows *r, const char *const *text, struct mm_err *err);

/* marmot_changes, which streams (status_changes.c); an SQLite code. */
int mm_status_register_changes(sqlite3 *db);

typedef int mm_status_fill(sqlite3 *db, struct mm_status_rows *r, struct mm_err *err);
mm_status_fill mm_status_tables, mm_status_streams, mm_status_conflicts, mm_status_metrics, mm_status_nodes;

#endif
