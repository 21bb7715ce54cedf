/* The content and the replicated state of a copy that has followed the log take
** the place of the node's, in one transaction of the replication thread.
**
** Threads: the replication thread; the gate is held by the caller. What is
** pending stays on top: undone first, done again at the end, but for what the
** copy has accepted. Tables that are not watched are left alone. With `merge` the
** transactions that hold the rows of this node alone come after what is pending:
** they are of rows as they are visible, with that on top. */
#ifndef MM_SNAPSHOT_INSTALL_H
#define MM_SNAPSHOT_INSTALL_H

#include "repl/repl.h"
#include "snapshot/diff.h"

struct mm_install {
    const char *copy; /* its path */
    const struct mm_diff *diff;
    bool watch_all; /* tables that are missing here are made */
    bool fresh;     /* everybody takes a new incarnation: the epoch is a new one, which must hold all that is
                    ** here, but for what the outbox still has (SQLITE_MISMATCH: it does not), unless: */
    bool give_up;   /* what is here and not in the copy is given up: nothing stays pending */
    int64_t upto;   /* of give_up: up to this outbox id, which the kept copy of the file holds */
    bool merge;     /* rows that exist only here stay and are captured (repl/merge.h) */
    bool positions; /* rows stay as they are here (repl/positions.h), merge and give_up are off */
    const char *cluster_id;
    const bool *take; /* NULL: all of it; else these tables of the diff alone, the state stays */
    struct mm_work *work;
};

enum { MM_INSTALL_LONG_MS = 2000 }; /* a lock that is held longer is told before */

/* How long the database's write lock will be held, about; for a warning. */
int64_t mm_install_estimate_ms(const struct mm_diff *d);

/* SQLITE_BUSY: nothing was changed, try again. After any other error, or success, memory
** is that of the database. *given_up: transactions of the outbox that give_up has taken out. */
int mm_install_run(struct mm_repl *r, const struct mm_install *in, int64_t *given_up, struct mm_err *err);

#endif
