/* The exact base of a node's watched tables and its replicated state, as a
** database file of its own.
**
** Threads: any one, over connections of its own. Writers are never blocked: the
** database is read in one read transaction, and what is pending is undone in
** the copy. Without secondary indexes; the statements that make indexes and
** triggers lie in its table __marmot__catalogue, which this file alone names. */
#ifndef MM_SNAPSHOT_TAKE_H
#define MM_SNAPSHOT_TAKE_H

#include "repl/open.h"
#include "snapshot/manifest.h"
#include "snapshot/work.h"

struct mm_take {
    const char *path, *vfs;      /* of the node's database */
    const char *to;              /* the copy: must not exist */
    struct mm_repl_options repl; /* as the node's */
    struct mm_work *work;
    bool captured; /* refused (SQLITE_ERROR) when there is what nothing has captured: others would not have it */
};

/* Fills in all but id, size and sha256. SQLITE_ERROR when this node may not
** take one (it is not joined, or does not hold all that the cluster watches). */
int mm_take_copy(const struct mm_take *t, struct mm_manifest *m, struct mm_err *err);

/* The copy becomes the state that an epoch begins with, at these places; `m` follows. */
int mm_take_to_epoch(const struct mm_take *t, const struct mm_position *pos, struct mm_manifest *m, struct mm_err *err);

/* A statement of a copy that makes an index or a trigger. */
struct mm_take_statement {
    char *name, *table, *sql;
};
/* Those of `table` (NULL: of all), in the order in which they were made;
** `schema` names the copy's database. Returns how many; free them. */
int mm_take_statements(sqlite3 *db, const char *schema, const char *table, struct mm_take_statement **list,
                       struct mm_err *err);
void mm_take_statements_free(struct mm_take_statement *list, int n);

/* An empty copy, with the bookkeeping; `like` is the database whose text encoding it has. */
int mm_take_empty(const char *path, const char *like, const char *vfs, struct mm_err *err);

#endif
