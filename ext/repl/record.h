/* The cluster's record in the key-value bucket, and its streams.
**
** Threads: the replication thread. Each call waits up to MM_REQUEST_MS a
** request. */
#ifndef MM_REPL_RECORD_H
#define MM_REPL_RECORD_H

#include "repl/join.h"

struct mm_record {
    char id[40];    /* 32 hex digits */
    char *settings; /* canonical JSON; free() */
};

/* 1 and the record, 0 when there is none or err is set. */
int mm_record_read(struct mm_repl *r, const struct mm_join_options *o, struct mm_record *rec, struct mm_err *err);
/* There is none, and begins_none: says so. */
void mm_record_missing(const struct mm_join_options *o, struct mm_err *err);
/* Makes it, under this id (NULL: a new one); another node may be first. */
int mm_record_make(struct mm_repl *r, const struct mm_join_options *o, const char *id, struct mm_err *err);

/* The settings are this node's as well; remembers the id. DONE or CONFLICT. */
enum mm_join_result mm_record_check(struct mm_repl *r, const struct mm_join_options *o, const struct mm_record *rec,
                                    struct mm_err *err);

/* The shard's stream exists (with `create` it is made) and is this cluster's;
** its end is noted. DONE, LATER, CONFLICT, DIVERGED. */
enum mm_join_result mm_record_stream(struct mm_repl *r, const struct mm_join_options *o, struct mm_shard *s,
                                     bool create, struct mm_stream_info *info, struct mm_err *err);

#endif
