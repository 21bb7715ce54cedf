/* Long work of one node on a thread of its own: taking a snapshot, or bringing
** a copy of the cluster's content up to the log.
**
** Threads: open, step and close belong to the replication thread, which alone
** writes the node's database; progress is for any thread. The work takes the
** fork gate around its SQL.
**
** Bringing a copy: the newest usable snapshot (or an empty beginning, where the
** log reaches back to its first message) follows the log aside. Then the node is
** held: it stores its position, folds nothing, and answers with mm_task_held.
** The copy reads on to that place at least, the difference is computed, and the
** task is READY: the replication thread looks at the difference and calls
** mm_install_run, or does not.
**
** Finding what was never captured (RECONCILE): the copy stops at exactly the
** place of the held node, what is pending there is done on it, too, and what the
** application sees is compared with that. READY: mm_reconcile_open goes on. A
** SEED holds the node first of all. */
#ifndef MM_SNAPSHOT_TASK_H
#define MM_SNAPSHOT_TASK_H

#include "repl/join.h"
#include "snapshot/diff.h"
#include "snapshot/keep.h"
#include "snapshot/manifest.h"
#include "snapshot/store.h"
#include "snapshot/work.h"

enum mm_task_kind {
    MM_TASK_SNAPSHOT,
    MM_TASK_BRING,
    MM_TASK_KEEP, /* a snapshot if one is due, by one node alone */
    MM_TASK_RECONCILE,
    MM_TASK_SEED,   /* a new epoch, from this node's state; READY when it counts */
    MM_TASK_TABLES, /* a copy for the tables that wait for one: the rest stays as it is */
};
enum mm_task_state {
    MM_TASK_WORKING,
    MM_TASK_HOLD,  /* waits for mm_task_held */
    MM_TASK_READY, /* a copy is there; the node is held until close */
    MM_TASK_DONE,  /* a snapshot is stored */
    MM_TASK_FAILED,
};

struct mm_task_options { /* all borrowed until close, but cluster_id */
    enum mm_task_kind kind;
    const char *path, *vfs;
    struct mm_repl_options repl;
    const struct mm_bus_options *bus;
    const struct mm_store_options *store; /* NULL: no snapshots (snapshot.enabled = false) */
    const char *cluster_id;
    struct mm_keep keep_log;            /* its streams are filled in */
    bool need_snapshot;                 /* an empty beginning will not do */
    int64_t epoch;                      /* no snapshot of an older one will do */
    const char *tried;                  /* TABLES: with this newest snapshot it was tried; NULL: not yet */
    bool keep, keep_always;             /* a copy of the file is made: when the rows here differ; in any case */
    const struct mm_join_options *join; /* of SEED, */
    uint64_t token;                     /* which this database keeps until the epoch counts */
    bool lost;               /* what this node folded last is not in the log any more: its position is no aim */
    bool newcomer;           /* it takes all that is wanted here, or waits (SQLITE_EMPTY) for a snapshot that has it */
    bool watch_all;          /* tables that nobody has named here are wanted, too */
    void (*wake)(void *arg); /* its state has changed */
    void *arg;
};

struct mm_task;

struct mm_task *mm_task_open(const struct mm_task_options *o, struct mm_err *err);
/* Ends the work, however far it is; waits a few seconds at most. False: the thread hangs
** in a library and is left alone. NULL is fine. */
bool mm_task_close(struct mm_task *t);

/* err is set in FAILED. */
enum mm_task_state mm_task_state(struct mm_task *t, struct mm_err *err);
enum mm_task_kind mm_task_kind(const struct mm_task *t);
/* The node stands still and its database holds all that it has folded. */
void mm_task_held(struct mm_task *t, const int64_t *position);

/* In READY and DONE. A KEEP that found none due: the newest one, id "" = none. */
const struct mm_manifest *mm_task_manifest(const struct mm_task *t); /* of the snapshot; id "" for an empty beginning */
/* Of SNAPSHOT and KEEP: the newest but one, id "" = none. */
const struct mm_manifest *mm_task_older(const struct mm_task *t);
const char *mm_task_newest(const struct mm_task *t); /* of TABLES, READY or FAILED: id, "" = none was found */
const struct mm_diff *mm_task_diff(const struct mm_task *t);
const char *mm_task_copy(const struct mm_task *t);
/* Name of the copy of the file, "" = none was made; *upto: it has the outbox up to there. */
const char *mm_task_kept(const struct mm_task *t, int64_t *upto);
/* READY: the copy has become the content here. Else the copy of the file goes at close. */
void mm_task_brought(struct mm_task *t);
int64_t mm_task_ms(const struct mm_task *t);     /* since it began */
struct mm_work *mm_task_work(struct mm_task *t); /* progress for any thread; in READY to go on with it */

#endif
