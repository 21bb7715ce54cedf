/* Control rows of the outbox and the control messages that they become.
**
** Threads: the replication thread. The texts of the rows are described where
** they are written: store/watch.h, store/policy.h, store/verify.h. */
#ifndef MM_REPL_CONTROL_H
#define MM_REPL_CONTROL_H

#include "repl/repl.h"

/* Shard that a control row belongs to; SQLITE_CORRUPT when it is none that
** this library knows. */
int mm_control_shard(struct mm_repl *r, const uint8_t *data, size_t len, struct mm_err *err);

/* Makes the message of a control row; it lives in the arena. False (err not
** set): not yet, the table that it names is still joining. */
bool mm_control_message(struct mm_repl *r, const uint8_t *data, size_t len, struct mm_msg *m, struct mm_arena *a,
                        struct mm_err *err);

/* A message that nobody numbers, `founded` or `seeded`: NULL when it stands in its
** place, else why it is to be ignored. A newer epoch's: r->met_epoch is set. */
const char *mm_control_unnumbered(struct mm_repl *r, const struct mm_shard *s, const struct mm_msg *m, int64_t seq);

/* A control message in its place, inside the write transaction. */
int mm_control_fold(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, int64_t seq, bool own,
                    struct mm_err *err);

/* A verify message was folded last and its place is stored: sums the tables
** in one read snapshot, then writes this node's answer. Returns err->rc;
** SQLITE_BUSY: call again. */
int mm_control_answer(struct mm_repl *r, struct mm_shard *s, struct mm_err *err);

#endif
