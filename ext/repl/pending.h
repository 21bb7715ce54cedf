/* Pending: the local transactions of one shard that are not yet seen back
** from the stream, oldest first, and where they overlap with what comes.
**
** visible = pending applied to base. When a message overlaps with a pending
** transaction, that one and all younger ones are undone (newest first), the
** message is folded, and at the end of the batch they are redone (oldest
** first), all in one write transaction.
**
** Threads: the replication thread. Memory holds numbers only (about 24 bytes a
** changed row); rows are read again from the outbox. After a rolled-back
** transaction the owner calls mm_pending_reset and reads anew. */
#ifndef MM_REPL_PENDING_H
#define MM_REPL_PENDING_H

#include "repl/apply.h"
#include "store/outbox.h"

struct mm_pend {
    int64_t id; /* outbox id */
    int64_t incarnation;
    uint8_t txid[MM_TXID_SIZE];
    int kind;          /* enum mm_outbox_kind */
    bool clean;        /* done on exactly the old values that it names */
    int64_t acked_seq; /* for the publisher: stream sequence of its last message, 0 = not acknowledged */
    int64_t at;        /* commit time, ms since 1970 */
    int64_t bytes;     /* of the outbox row */
    uint64_t *key;     /* hashes of the keys that it touches */
    size_t nkey;
};

struct mm_pending;

struct mm_pending *mm_pending_open(sqlite3 *db, struct mm_outbox *outbox, struct mm_targets *targets, int shard,
                                   struct mm_err *err);
void mm_pending_close(struct mm_pending *p);
void mm_pending_reset(struct mm_pending *p); /* forgets all; nothing is written */

/* A captured transaction (or control row) behind all others. Does nothing
** when it does not touch this shard. `txn` is the whole one; NULL for control
** rows of this shard. */
int mm_pending_push(struct mm_pending *p, const struct mm_outbox_row *row, const struct mm_txn *txn, int64_t bytes,
                    struct mm_err *err);

/* The control row that was pushed last watches a table again that was left. What the older
** ones have in it (or in one that is left now) is not undone and not done again: somebody may
** have written there since, uncaptured. It counts as the table's own content. */
int mm_pending_left(struct mm_pending *p, const char *table, bool joined, struct mm_err *err);
/* Takes the rows in such tables out of what mm_pending_read gave; true when there were any. */
bool mm_pending_leave_out(struct mm_pending *p, int64_t id, struct mm_txn *txn, struct mm_err *err);
/* True when the table was left and watched again behind the transaction; `joined`: it was part
** of the cluster when it was left, so that what was captured in it is the cluster's. */
bool mm_pending_before(const struct mm_pending *p, int64_t id, const char *table, bool *joined);

size_t mm_pending_count(const struct mm_pending *p);
int64_t mm_pending_bytes(const struct mm_pending *p);                 /* of their outbox rows */
struct mm_pend *mm_pending_at(struct mm_pending *p, size_t index);    /* 0 = oldest */
uint64_t mm_pending_number(const struct mm_pending *p, size_t index); /* counted from the first ever pushed */
size_t mm_pending_standing(const struct mm_pending *p);               /* how many, from the oldest, are not undone */
bool mm_pending_undone(const struct mm_pending *p, size_t index);     /* in this batch */

/* Index of the first pending transaction that overlaps with the rows of txn;
** count when there is none. */
size_t mm_pending_overlap(struct mm_pending *p, const struct mm_txn *txn, struct mm_err *err);

/* Undoes, newest first, down to and with `index`. */
int mm_pending_undo(struct mm_pending *p, size_t index, struct mm_err *err);
/* The tables were written without what is pending: all of it is to be redone. */
void mm_pending_all_undone(struct mm_pending *p);
/* `all`: conflict = "row", see mm_fold_row. */
void mm_pending_set_all_columns(struct mm_pending *p, bool all);
/* Redoes all that is undone, oldest first; remembers their before-images. */
int mm_pending_redo(struct mm_pending *p, struct mm_err *err);
/* A transaction that was undone is in the base now and is not redone: its rows stand again in
** tables that are left out there and that no second reading of the log brings; `all`: in all. */
int mm_pending_stay(struct mm_pending *p, int64_t id, bool all, struct mm_err *err);
/* The same for the oldest one, whose echo was folded; nothing when it is not undone. */
int mm_pending_stay_echoed(struct mm_pending *p, bool all, struct mm_err *err);
/* The oldest one was echoed and folded: it leaves (memory only; its stored
** before-images go with the next flush). */
void mm_pending_pop(struct mm_pending *p);

/* Reads a pending transaction's changes of this shard (arena of the caller;
** values borrow from the two buffers). */
int mm_pending_read(struct mm_pending *p, const struct mm_pend *e, struct mm_txn *txn, struct mm_buf *names,
                    struct mm_buf *data, struct mm_err *err);

/* One pending transaction's bytes while it is undone, redone or summed. */
struct mm_pend_scratch {
    struct mm_arena arena;
    struct mm_buf names, data, images;
    struct mm_txn txn;
};
void mm_pend_scratch_init(struct mm_pend_scratch *s);
void mm_pend_scratch_free(struct mm_pend_scratch *s);

/* What stood in its rows before it was done (or last redone), in s->txn. */
int mm_pending_images(struct mm_pending *p, const struct mm_pend *e, struct mm_pend_scratch *s, struct mm_err *err);

#endif
