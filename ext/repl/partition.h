/* autoincrement = "partition": ids that SQLite makes for AUTOINCREMENT tables come from
** blocks of this node's own, so that concurrent inserts of several nodes do not meet.
**
** SQLite gives the next row the highest number in sqlite_sequence, or in the table, plus
** one. So the number is moved: to the first block of this node that lies above all
** rows, in the transaction that brings in higher ones of others, and when half of a
** block is used. A plain insert stays what it is, whoever makes it, and finds its id
** where last_insert_rowid() says. From the highest bit of 53 (JavaScript) down:
** 32 bits of a generation, 8 of the node's slot, 13 of a counter. The slot is a key of the
** cluster's bucket, created once a database file and never given back.
**
** Out of reach: tables without AUTOINCREMENT (SQLite asks nothing but the highest row);
** who inserts more than a block at once runs into the block of the next slot.
**
** Threads: the replication thread. */
#ifndef MM_REPL_PARTITION_H
#define MM_REPL_PARTITION_H

#include "repl/repl.h"

enum { MM_ID_BLOCK_BITS = 13, MM_ID_SLOT_BITS = 8, MM_ID_BITS = 53 };

/* The slot that this file has, if any: r->id_slot. */
int mm_partition_open(struct mm_repl *r, struct mm_err *err);
/* Claims one, or claims it again where the server lost that; for a database that has joined. Waits for the network. */
int mm_partition_claim(struct mm_repl *r, const char *cluster, struct mm_err *err);

/* True when some table's numbers are to be moved. Reads only. */
bool mm_partition_due(struct mm_repl *r, struct mm_err *err);
/* Moves them; inside the caller's write transaction. */
int mm_partition_settle(struct mm_repl *r, struct mm_err *err);

/* What sqlite_sequence is to hold when the highest id is v: v itself, or the begin of
** another block; -1: there is none any more. */
int64_t mm_partition_place(int slot, int64_t v);

#endif
