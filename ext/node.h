/* One replicated database: its replication thread and its state machine.
**
**   starting -> offline <-> joining -> live <-> offline
**                               |        |-> log_full <-> live
**                               |        |-> blocked -> live
**                               |-> join_conflict      |-> diverged
**   standby (another process replicates) -> starting
**   any -> stopped
**
** Threads: open, stop, close, wake, the requests and the status are for any
** thread; all else happens on the node's own thread, which alone owns its
** SQLite connection and its bus. The status is a copied snapshot under a lock
** that is never held over SQL or network. */
#ifndef MM_NODE_H
#define MM_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"
#include "config.h"

struct mm_node;

enum mm_node_state {
    MM_NODE_STARTING,
    MM_NODE_JOINING,
    MM_NODE_LIVE,
    MM_NODE_OFFLINE,
    MM_NODE_STANDBY,
    MM_NODE_LOG_FULL,
    MM_NODE_BLOCKED,
    MM_NODE_DIVERGED,
    MM_NODE_JOIN_CONFLICT,
    MM_NODE_SLEEPING,
    MM_NODE_STOPPED,
};
const char *mm_node_state_name(enum mm_node_state s);

/* Starts the thread. `path` is the canonical path of the database, `vfs` its
** VFS; config is taken (also on failure); `incarnation` is for the status
** until the thread has looked itself. The database is migrated and in WAL
** already. Does not touch the network. NULL with err set. */
struct mm_node *mm_node_open(const char *path, const char *vfs, struct mm_config *config, int64_t incarnation,
                             struct mm_err *err);

/* Ends the thread: drains what is pending for at most drain_ms when connected,
** stops the child server, closes its connection. Frees the node unless its
** thread hangs (then it is left alone). NULL is fine. */
void mm_node_close(struct mm_node *n, int drain_ms);

void mm_node_wake(struct mm_node *n); /* something was committed; cheap, async-signal-safe */

const struct mm_config *mm_node_config(const struct mm_node *n); /* borrowed, constant */
int64_t mm_node_id(const struct mm_node *n);

/* marmot_sync on this process's node: 1, 0 on time-out, or err set (states
** that cannot sync). Waits on a condition variable; the caller is on the
** application's thread, outside a transaction. */
int mm_node_sync(struct mm_node *n, int64_t up_to_outbox_id, int timeout_ms, struct mm_err *err);

/* marmot_retry and marmot_skip: the message that blocks a shard is run again at
** its place, or passed over on this node alone. err when nothing blocks there. */
int mm_node_retry(struct mm_node *n, int shard, int64_t seq, struct mm_err *err);
int mm_node_skip(struct mm_node *n, int shard, int64_t seq, struct mm_err *err);

/* marmot_snapshot, marmot_restore and marmot_reconcile: append their answers. Wait as long as it
** takes, on the application's thread, outside a transaction. */
int mm_node_snapshot(struct mm_node *n, struct mm_buf *out, struct mm_err *err);
int mm_node_restore(struct mm_node *n, struct mm_buf *out, struct mm_err *err);
int mm_node_reconcile(struct mm_node *n, struct mm_buf *out, struct mm_err *err);

/* marmot_rejoin('seed' | 'adopt' | 'merge'). As those two. */
int mm_node_seed(struct mm_node *n, struct mm_buf *out, struct mm_err *err);
int mm_node_adopt(struct mm_node *n, struct mm_buf *out, struct mm_err *err);
int mm_node_merge(struct mm_node *n, struct mm_buf *out, struct mm_err *err);

/* Appends the JSON object of marmot_status(); `brief`: the fields that
** marmot_init returns. */
int mm_node_status(struct mm_node *n, bool brief, struct mm_buf *out, struct mm_err *err);

/* One shard, as the thread saw it last. */
struct mm_node_shard {
    int n;
    char stream[256], subject[256];
    int64_t position, end;               /* sequences: folded here, in the stream */
    const char *state;                   /* constant: current, behind, waiting, joining, blocked */
    int64_t blocked_seq;                 /* 0 = none */
    int64_t folded, ignored, duplicates; /* messages since the start */
    int64_t resent;                      /* messages that were sent again, since the start */
    int64_t skipped;                     /* rows of tables that are not watched here, since the start */
};
/* Returns a copy (caller frees with free()); NULL with *count 0 before the
** thread has looked for the first time, or with err set. */
struct mm_node_shard *mm_node_shards(struct mm_node *n, int *count, struct mm_err *err);

enum mm_node_state mm_node_state_now(struct mm_node *n);

/* Transactions that are not echoed, and their bytes. */
void mm_node_pending(struct mm_node *n, int64_t *rows, int64_t *bytes);

/* What is measured of the node as a whole. */
struct mm_node_numbers {
    enum mm_node_state state;
    int64_t since_ms; /* 1970 */
    bool connected;
    int64_t connections; /* made since the start */
    int64_t behind_ms;   /* since the end of every stream was folded here */
    int nodes_alive;     /* others */
    int64_t pending_rows, pending_bytes;
};
void mm_node_numbers(struct mm_node *n, struct mm_node_numbers *out);

/* How far a snapshot, a restore or the reading of a long log is. */
struct mm_node_progress {
    const char *what;    /* constant text: what is done now */
    int64_t done, total; /* of that, in bytes, rows, tables or messages; total 0 = not known */
};
bool mm_node_progress(struct mm_node *n, struct mm_node_progress *out); /* false: there is none */

/* True with err set when the node is in a state that waiting does not end. */
bool mm_node_hopeless(struct mm_node *n, struct mm_err *err);

/* The nodes of the cluster, this one among them, as they told about themselves
** (in standby: asked now, which waits for the network most of a second). Free
** with mm_peers_free. */
struct mm_peers;
int mm_node_peers(struct mm_node *n, struct mm_peers *out, struct mm_err *err);
void mm_node_peers_refresh(struct mm_node *n); /* asks all of them to tell at once; does not wait */

/* In the child of a fork: closes descriptors that must not be shared. */
void mm_node_after_fork(struct mm_node *n);

#endif
