/* Founding and joining by the log alone: the `founded` message, and the
** comparison of tables by content sums.
**
** Threads: the replication thread. Requests wait up to MM_REQUEST_MS each;
** none runs inside a transaction. */
#ifndef MM_REPL_JOIN_H
#define MM_REPL_JOIN_H

#include "repl/repl.h"

struct mm_join_options {
    const char *cluster;  /* configured name, for the bucket's name and for messages */
    const char *settings; /* canonical JSON of what is one value per cluster */
    bool watch_all;       /* all tables of the founder are wanted here */
    int replicas;
    int64_t max_bytes;
    int64_t max_entries; /* -1 = no limit: nobody makes room by snapshots */
    bool begins_none;    /* of a cluster that is not there yet */
    bool adopt;          /* whatever the cluster holds now is to take the place of what is here */
};

enum mm_join_result {
    MM_JOIN_DONE,     /* joined; positions are set */
    MM_JOIN_NOTHING,  /* no table is watched yet */
    MM_JOIN_LATER,    /* a request failed or timed out (err): try again */
    MM_JOIN_CONFLICT, /* stays out, untouched; err says what differs and what to do */
    MM_JOIN_DIVERGED, /* the server's cluster is not the one this node was part of */
    MM_JOIN_BRING,    /* reading the log does not do: a copy of the cluster's content is needed (err says why) */
    MM_JOIN_LOST,     /* the server lost what this node has folded (err says what) */
    MM_JOIN_EPOCH,    /* the cluster goes on in a newer epoch: a copy of that is needed */
};

/* One attempt, for a node that has not joined. */
enum mm_join_result mm_join_run(struct mm_repl *r, const struct mm_join_options *o, struct mm_err *err);

/* For a node that has: the record and the streams are still those of its
** cluster; reads the streams' ends. */
enum mm_join_result mm_join_check(struct mm_repl *r, const struct mm_join_options *o, struct mm_err *err);

/* In a copy that begins with empty tables: at the founding, with those tables
** watched that were empty then; the others are stale. SQLITE_NOTFOUND: the log
** no longer begins with it. */
int mm_join_begin(struct mm_repl *r, struct mm_err *err);

/* Content of a table's base: what is there, pending taken out by arithmetic.
** Reads the whole table in one read transaction. */
int mm_join_base(struct mm_repl *r, struct mm_target *t, struct mm_msg_table *out, struct mm_err *err);

/* NULL when two tables are the same for replication, else what differs and
** what to do (static text). */
const char *mm_join_difference(const struct mm_msg_table *ours, const struct mm_msg_table *theirs);

/* A table of a `watch` message met in the log, inside the write transaction:
** it joins here when its base is equal, else it waits for a copy. `own`: the
** message is this node's. */
int mm_join_table(struct mm_repl *r, const struct mm_msg_table *table, int shard, int64_t seq, bool own,
                  struct mm_err *err);

/* A message of the shard was passed over whose tables are not known: all of
** them are stale from here on. */
int mm_join_all_stale(struct mm_repl *r, struct mm_shard *s, struct mm_err *err);

/* After a schema change: tables that became stale for a cause in the schema are
** read from the log again, from the first message that was left out on; other stale
** ones wait for a copy. Begins a transaction of its own. */
int mm_join_again(struct mm_repl *r, struct mm_err *err);
/* The node stands still, to be compared with a copy: tables that never joined are joining, so that nothing
** of them is sent until it is over (mm_watch_compare). Begins a transaction of its own. */
int mm_join_compare(struct mm_repl *r, struct mm_err *err);
/* No copy came for a joining table, whose changes hold up the outbox: they stay here until there is one, and the
** outbox goes on without them. Where the base is empty they are all that it holds, and are merged into the copy.
** Inside the caller's write transaction; forget the targets then. */
int mm_join_let_pass(struct mm_repl *r, const char *table, const char *why, struct mm_err *err);
/* An own transaction stays in the tables and is folded: a stale table that it
** names is no longer what the log made of it, and cannot go on from there. */
int mm_join_left_behind(struct mm_repl *r, const struct mm_txn *txn, struct mm_err *err);

/* --- A table watched later than its database joined: the shard's log is read
** once more from its first message on, for that table alone. --- */

/* True when the table waits for that, or takes part in it; when some table of the shard does. */
bool mm_join_reads_again(struct mm_repl *r, const struct mm_target *t, struct mm_err *err);
bool mm_join_replay_wanted(struct mm_repl *r, struct mm_shard *s, struct mm_err *err);
int mm_join_replay_begin(struct mm_repl *r, struct mm_shard *s, struct mm_err *err);
/* It was joining when the reading began. */
bool mm_join_takes_part(const struct mm_shard *s, const char *table);
/* The log does not reach back to its first message: the joining tables of the
** shard wait for a copy. */
int mm_join_replay_failed(struct mm_repl *r, struct mm_shard *s, struct mm_err *err);
/* A founded or watch message: tables whose base equals it take part. */
int mm_join_replayed(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, int64_t seq, struct mm_err *err);
/* The message with which this epoch began: what was read before it is of another one, whose
** content is in no message; tables that got it from there wait for a copy. */
int mm_join_replay_epoch(struct mm_repl *r, struct mm_shard *s, int64_t seq, struct mm_err *err);
void mm_join_replay_forget(struct mm_shard *s); /* frees what a replay remembers */
/* A policy, or the end of parts. */
int mm_join_replay_control(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, struct mm_err *err);
/* A part; true when the transaction is whole (body and txn hold it). */
bool mm_join_replay_part(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, struct mm_arena *arena,
                         struct mm_buf *body, struct mm_txn *txn, struct mm_err *err);
/* At the end of a batch: how far the joining tables are. */
int mm_join_replay_mark(struct mm_repl *r, struct mm_err *err);
/* The position is reached: the tables are watched; those that the log does
** not explain wait for a copy. The shard must be followed again. */
int mm_join_replay_done(struct mm_repl *r, struct mm_shard *s, struct mm_err *err);

#endif
