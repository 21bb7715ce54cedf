/* The publisher: pending transactions to the stream, in order, with a bounded
** window and go-back-N (SPEC 3).
**
** Threads: the replication thread. It writes nothing: origin_seq and the txid
** before it follow from what was accepted and from the outbox's order. */
#ifndef MM_REPL_PUBLISHER_H
#define MM_REPL_PUBLISHER_H

#include "repl/repl.h"

/* Sends what may be sent now. Returns err->rc; SQLITE_IOERR: connection lost. */
int mm_publisher_pump(struct mm_repl *r, struct mm_shard *s, struct mm_err *err);

void mm_publisher_ack(struct mm_repl *r, const struct mm_ack *ack);

/* Called after folding and every now and then: goes back when an own message
** was ignored or nothing moved for MM_ACK_MS. */
void mm_publisher_check(struct mm_repl *r, struct mm_shard *s);

/* Starts afresh at the oldest pending one (after a reconnect, say). */
void mm_publisher_back(struct mm_shard *s, const char *why, bool wait);

/* Milliseconds until there may be something to do, -1 = nothing planned. */
int mm_publisher_timeout(const struct mm_shard *s);

#endif
