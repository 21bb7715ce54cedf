/* What the files of the applier share: applier.c folds, applier_again.c does where
** the log is read a second time, applier_queue.c keeps what was received and is
** not folded yet. Nobody else includes this. */
#ifndef MM_REPL_APPLIER_INT_H
#define MM_REPL_APPLIER_INT_H

#include "repl/applier.h"

struct mm_item {
    struct mm_item *next;
    struct mm_delivery d;
    struct mm_arena arena;
    struct mm_msg msg;
    size_t cost;       /* bytes that it holds */
    struct mm_err bad; /* of decoding */
};

struct mm_applier {
    struct mm_repl *r;
    struct mm_item *head, *tail;
    size_t count, bytes;
    int64_t gather_since, gather_heard; /* ms; 0 = not waiting for more */
    size_t gather_count;
};

/* The oldest message leaves the queue; free it with mm_item_free. */
struct mm_item *mm_applier_take(struct mm_applier *a);
void mm_item_free(struct mm_item *it);
/* True while it pays to wait: the next batch will undo and redo a lot, and more
** messages are coming that it could take along. */
bool mm_applier_gather(struct mm_applier *a);

/* A late joiner reads the log once more: acceptance from the beginning, rows
** of the joining tables alone, up to the position. */
int mm_applier_again(struct mm_applier *a, struct mm_shard *s, struct mm_item *it, struct mm_err *err);

#endif
