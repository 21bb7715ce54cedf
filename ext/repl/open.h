/* Opens what replication keeps in memory over a database: that of a node, or
** a copy that follows the log aside (a snapshot that is being restored).
**
** Threads: the one that then uses the struct mm_repl. The bus is set by the
** owner afterwards. */
#ifndef MM_REPL_OPEN_H
#define MM_REPL_OPEN_H

#include "repl/repl.h"

struct mm_repl_options {
    int64_t node; /* 0: a copy, which has no messages of its own */
    int nshard;
    const char *stream_prefix, *subject_prefix;
    bool compress, all_columns;
    int64_t part_size;
};

/* Names of a shard in JetStream. */
void mm_repl_name_shard(const struct mm_repl_options *o, int number, char stream[256], char subject[256]);

/* A connection as replication uses one: no triggers, no foreign keys, no CHECK,
** a private cache, not captured. NULL with err set. `flags` beside the usual
** ones, SQLITE_OPEN_CREATE or 0. */
sqlite3 *mm_repl_connect(const char *path, const char *vfs, int flags, struct mm_err *err);

/* Takes r->db, which the caller has opened; on error mm_repl_close frees what
** there is. */
int mm_repl_open(struct mm_repl *r, const struct mm_repl_options *o, struct mm_err *err);
void mm_repl_close(struct mm_repl *r); /* also the connection; not the bus */

#endif
