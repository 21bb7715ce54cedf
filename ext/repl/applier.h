/* The applier: messages of the log, in order, into the base.
**
** Threads: the replication thread. Messages wait in a queue, decoded; echoes
** of the oldest pending transaction that need no row to be written are folded
** in memory (the flush follows at most once a second: each commit of ours
** makes an application's BEGIN; SELECT; INSERT fail); everything else in one
** bounded write transaction a batch. */
#ifndef MM_REPL_APPLIER_H
#define MM_REPL_APPLIER_H

#include "repl/repl.h"

struct mm_applier;

struct mm_applier *mm_applier_open(struct mm_repl *r, struct mm_err *err);
void mm_applier_close(struct mm_applier *a);

/* Room for another delivery? Else leave it with the bus (flow control). */
bool mm_applier_room(const struct mm_applier *a);
/* Something to do for mm_applier_run: messages, or a verify call to answer. */
bool mm_applier_due(const struct mm_applier *a);
/* Takes the delivery (releases it when done). SQLITE_NOMEM: it is gone, the shard is to
** be followed again. */
int mm_applier_put(struct mm_applier *a, struct mm_delivery *d, struct mm_err *err);
/* Forgets what waits: the shard is followed again from its position. */
void mm_applier_drop(struct mm_applier *a, int shard);

enum mm_applier_result {
    MM_APPLIED,       /* queue is empty, or the batch's time was used up */
    MM_APPLY_BUSY,    /* the database is locked, or more is worth waiting for: try again soon */
    MM_APPLY_RELOAD,  /* rolled back (err says why), reload_needed is set: then follow again */
    MM_APPLY_BLOCKED, /* a shard cannot go on: its blocked_seq and why are set */
    MM_APPLY_EPOCH,   /* a newer epoch begins here: r->met_epoch */
    MM_APPLY_LOST,    /* the stream is not the one that was folded (err says how) */
};
enum mm_applier_result mm_applier_run(struct mm_applier *a, struct mm_err *err);

#endif
