/* The cluster's epochs in its key-value bucket: key epoch.<n> says who begins
** epoch n, key seeded.<n> that its snapshot is stored. An epoch counts from
** then on; one that was begun and never finished is passed over by the next.
**
** Threads: any one, with a connection of its own to the server. Each call waits up to
** MM_REQUEST_MS a request. */
#ifndef MM_REPL_EPOCH_H
#define MM_REPL_EPOCH_H

#include "repl/join.h"

struct mm_epoch {
    int64_t n;      /* 0 = none */
    int64_t node;   /* that begins it */
    uint64_t token; /* of this beginning: who has it in its database goes on with it */
    bool done;
};

struct mm_epochs {
    struct mm_epoch newest; /* above the epoch asked for */
    struct mm_epoch done;   /* the newest of those that count */
};

/* Those above `own`. Returns err->rc. */
int mm_epoch_look(struct mm_bus *bus, const char *cluster, int64_t own, struct mm_epochs *out, struct mm_err *err);

/* Begins epoch e->n (keys that are missing below it are filled in). 1, or 0
** when it was begun by somebody already, or on error. */
int mm_epoch_begin(struct mm_bus *bus, const char *cluster, const struct mm_epoch *e, struct mm_err *err);
/* Its snapshot is stored: from here on it counts. */
int mm_epoch_finish(struct mm_bus *bus, const char *cluster, const struct mm_epoch *e, const char *snapshot,
                    struct mm_err *err);

/* The first epoch: key seeded.1 says that the cluster is founded, so that nobody founds
** it again where its streams are gone. */
bool mm_epoch_founded(struct mm_bus *bus, const char *cluster, struct mm_err *err);
int mm_epoch_set_founded(struct mm_bus *bus, const char *cluster, struct mm_err *err);

/* Appends the message with which the epoch begins to the shard's stream, behind
** what is there now; its place becomes *pos. */
int mm_epoch_append(struct mm_bus *bus, const struct mm_shard *s, const struct mm_msg *m, struct mm_position *pos,
                    struct mm_err *err);

#endif
