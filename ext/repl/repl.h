/* What the parts of replication share: one node's connection, bookkeeping,
** bus and shards. Joins store, wire and bus; owned by the node.
**
** Threads: the replication thread alone. */
#ifndef MM_REPL_REPL_H
#define MM_REPL_REPL_H

#include "bus/bus.h"
#include "repl/accept.h"
#include "repl/pending.h"

enum {
    MM_SHARDS_MAX = 64,
    MM_WINDOW = 4096,         /* messages whose echo is missing, a shard: after a long time offline each
                                 batch undoes all that is pending, so they shall be few */
    MM_PARTS_IN_FLIGHT = 16,  /* of a large transaction: bounds the socket's buffer */
    MM_REQUEST_MS = 3000,     /* one JetStream request */
    MM_ACK_MS = 5000,         /* without any progress: go back */
    MM_BUSY_MS = 20,          /* short: the loop tries again and does its other work meanwhile */
    MM_ADOPT_BUSY_MS = 1000,  /* once, at joining */
    MM_BATCH_US = 25000,      /* a fold transaction stops taking messages after this */
    MM_QUEUE_MESSAGES = 8192, /* received, not folded yet */
    MM_GATHER_PENDING = 64,   /* with so many to undo and redo it pays to wait for more messages: */
    MM_GATHER_MS = 200,       /* so long at most, */
    MM_GATHER_QUIET_MS = 6,   /* and while none was missing for so long */
};
#define MM_QUEUE_BYTES ((size_t)16 << 20)
#define MM_WINDOW_BYTES ((int64_t)8 << 20) /* of captured changes whose echo is missing, a shard */

struct mm_shard {
    int n;
    char stream[256], subject[256];

    struct mm_position pos;    /* in memory: may be ahead of the database by echoes alone */
    struct mm_position before; /* repl/commit.h: as it was before the batch that is being folded, */
    int64_t blocked_before;    /* and blocked_seq */
    bool dirty;
    struct mm_accept *accept;
    struct mm_pending *pending;

    int64_t end_seq;  /* highest sequence known to exist */
    int64_t sync_seq; /* fold up to here before publishing */
    bool following;
    bool checked; /* the message at pos.seq was seen again and is the same */

    /* A late joiner's second reading of the log, from its first message on. */
    struct mm_accept *replay;
    int64_t replay_seq;
    char **replay_table; /* who takes part: a table that begins to join meanwhile waits for the next one */
    size_t replay_tables;
    struct mm_policies policies; /* as the second reading has met them */

    /* Publisher. */
    size_t next; /* index of the first pending one not sent */
    uint32_t attempt;
    int flight;           /* messages sent and not acknowledged */
    int64_t window_bytes; /* of the pending ones before `next` */
    int64_t progress_ms;
    int64_t wait_until_ms;
    int backoff;
    bool full;         /* the server answered: stream is full */
    char refusal[160]; /* why it stores nothing, "" = it does */
    struct {           /* a large transaction that is being sent in parts */
        struct mm_buf body;
        uint8_t sha256[32];
        int number, count;
    } large;

    int64_t verify_seq; /* of a verify message that waits for this node's answer, 0 = none */
    uint8_t verify_id[16];
    struct mm_buf answer; /* computed, not written yet */

    bool behind; /* MM_APPLY_LOST: the log has only dropped what was not read here yet */

    int64_t blocked_seq;
    int64_t skip_seq;                             /* marmot_skip: this message is passed over here */
    char why[400];                                /* of blocked */
    int64_t folded, ignored, skipped, duplicates; /* messages, messages, rows, messages */
    int64_t resent;                               /* messages that were sent and will be once more */
};

struct mm_repl {
    sqlite3 *db;
    struct mm_outbox *outbox;
    struct mm_targets *targets;
    struct mm_bus *bus;
    int64_t node;
    int64_t epoch;
    char cluster_id[40];
    int nshard;
    struct mm_shard *shard; /* nshard of them, shard[0].n is 1 */
    int64_t part_size;
    bool compress;
    bool positions_only;         /* replicate = false (repl/positions.h) */
    bool partition;              /* autoincrement = "partition" (repl/partition.h) */
    int id_slot;                 /* of this file; negative: none */
    char id_warning[320];        /* why it does not hold for all tables, "" = it does */
    bool all_columns;            /* conflict = "row": every column of a change counts as changed */
    int64_t newest_epoch;        /* that was found on the server; may be ahead of `epoch` */
    int64_t met_epoch, met_node; /* a newer epoch's first message was met: who began it */
    bool joined;
    bool founder;           /* the log began with this node's tables, in this process's time */
    int64_t outbox_read;    /* highest outbox id among the pending ones read */
    int64_t echoed_written; /* watermark that the database holds */
    int64_t kept_bytes;     /* estimate of echoed rows still in the outbox */
    bool reload_needed;     /* memory is not to be trusted, but for positions: mm_repl_reload before anything else */
    bool schema_moved;      /* mm_join_again has not looked since */
    bool rekey_due;         /* a policy changed how rows overlap: mm_repl_rekey after the redo */
    int64_t move_due;       /* this file was set back under this incarnation: nothing is sent until it is left */
    uint64_t move_shards;   /* where the log says so: bit n - 1 */
    bool moved_before;      /* this file was set back once: look for txids that were accepted earlier */
    bool copy_due;          /* a table has begun to wait for a copy */
    bool tables_changed;    /* the watch list or a state was changed: publish the news */
};

/* Positions, origins and pending from the database; forgets all else. Until it
** has succeeded, reload_needed stays set. */
int mm_repl_reload(struct mm_repl *r, struct mm_err *err);
/* The keys of what is pending by the definitions as they are now (after a
** schema change). The publisher goes on where it is. */
int mm_repl_rekey(struct mm_repl *r, struct mm_err *err);
/* New outbox rows become pending. Inside a transaction, or alone. An error
** sets reload_needed. */
int mm_repl_read_outbox(struct mm_repl *r, struct mm_err *err);
/* Highest outbox id up to which everything is echoed and folded, in memory at least. */
int64_t mm_repl_echoed(struct mm_repl *r);
/* Every stream was read to the end that it had when this node connected. */
bool mm_repl_caught_up(const struct mm_repl *r);

/* The node's own state goes on as that of the epoch of these positions; what is
** written from here on has a new incarnation. In a transaction of its own. */
int mm_repl_enter_epoch(struct mm_repl *r, const struct mm_position *pos, struct mm_err *err);
/* What is captured from here on has another incarnation; inside the caller's transaction. */
int mm_repl_fresh_incarnation(struct mm_repl *r, struct mm_err *err);

/* The log gives numbers of incarnation `old` to transactions that are not here:
** this file was set back. Remembered in the same transaction. */
int mm_repl_note_moved(struct mm_repl *r, int64_t old, int shard, struct mm_err *err);
/* The log has what is pending here (`e`) under another incarnation: a copy of this file
** found so first, and has moved it. What is pending behind it goes where the copy's goes. */
int mm_repl_note_moved_to(struct mm_repl *r, const struct mm_pend *e, int64_t to, int shard, struct mm_err *err);
/* Once caught up (only then is it known what each shard has of it): what is
** pending under that incarnation, from the first one in a shard that met such a
** number, moves to one that every copy derives alike,
** later writes to a new random one. Inside the caller's transaction, after
** which *moved asks for mm_repl_reload. */
int mm_repl_settle_move(struct mm_repl *r, bool *moved, struct mm_err *err);
/* How many transactions with an outbox id up to `upto` are pending in some shard. */
int64_t mm_repl_pending_transactions(struct mm_repl *r, int64_t upto, struct mm_err *err);
bool mm_repl_dirty(const struct mm_repl *r); /* memory is ahead of the database */

#endif
