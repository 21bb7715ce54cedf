/* What a node tells the others about itself (Hello in proto/marmot.proto).
**
** Threads: none of its own. Read from anybody: all is bounded and checked, and
** no decision about data rests on it. */
#ifndef MM_WIRE_HELLO_H
#define MM_WIRE_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum { MM_HELLO_SHARDS = 64, MM_HELLO_TEXT = 128, MM_HELLO_WHY = 520, MM_HELLO_MAX = 4096 /* bytes of one */ };

struct mm_hello {
    char cluster_id[40];
    int64_t node, incarnation;
    char name[MM_HELLO_TEXT], host[MM_HELLO_TEXT], state[32];
    int nshard;
    int64_t position[MM_HELLO_SHARDS];
    int64_t behind_ms;
    char no_snapshot[MM_HELLO_WHY]; /* why it takes none, "" = it may */
    bool ask;
    int64_t epoch; /* that the positions are of; 0 = not told */
};

/* Appends the bytes; texts that are too long are cut, at a character. */
int mm_hello_encode(struct mm_buf *out, const struct mm_hello *h, struct mm_err *err);
/* False for what is malformed or out of bounds. Node 0 only asks: it is none. */
bool mm_hello_decode(struct mm_hello *h, const void *data, size_t len);

#endif
