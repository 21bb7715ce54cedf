/* What the files of pending share: pending.c keeps the queue and finds
** overlaps, pending_redo.c undoes and redoes. Nobody else includes this. */
#ifndef MM_REPL_PENDING_INT_H
#define MM_REPL_PENDING_INT_H

#include "repl/pending.h"

/* For each key hash the queue of pending transactions that touch it; since
** they come and go in order, the head is always the oldest. */
struct mm_pend_node {
    uint64_t key;
    uint64_t number; /* of the pending transaction, counted from the first ever pushed */
    uint32_t next;   /* node + 1 in the same bucket, oldest first; 0 = end */
};

struct mm_pend_left {
    int64_t id; /* of the control row */
    char *table;
    bool joined;
};

struct mm_pending {
    sqlite3 *db;
    struct mm_outbox *outbox;
    struct mm_targets *targets;
    int shard;
    bool all;
    struct mm_pend *entry; /* ring */
    size_t cap, head, count;
    uint64_t first_number; /* of the oldest entry */
    size_t undone_from;    /* index; count = none is undone */
    struct mm_pend_node *node;
    uint32_t nnode, node_cap, free_node; /* free list by next */
    uint32_t *bucket;                    /* first node + 1 */
    uint32_t *tail;                      /* last node + 1 */
    uint32_t nbucket;
    size_t live;
    int64_t bytes;
    struct mm_pend_left *left;
    size_t nleft;
};

#endif
