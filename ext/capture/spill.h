/* A log of bytes that can be cut back: in memory first, beyond 8 MiB in a
** file without a name.
**
** Threads: none of its own. Bytes are appended to `tail`, an ordinary sticky
** buffer, and settled by mm_spill_settle. When no file can be had, all stays
** in memory: nothing is lost for want of a disk. */
#ifndef MM_CAPTURE_SPILL_H
#define MM_CAPTURE_SPILL_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct mm_spill {
    struct mm_buf tail; /* the bytes from `base` on */
    uint64_t base;      /* bytes that lie in the file */
    int fd;             /* -1 = no file */
    void *map;          /* of the file, while mm_spill_bytes is in use */
    uint64_t map_len;
};

enum { MM_SPILL_AT = 8 << 20 };

void mm_spill_init(struct mm_spill *s);
void mm_spill_free(struct mm_spill *s); /* leaves it as after init */

static inline uint64_t mm_spill_len(const struct mm_spill *s)
{
    return s->base + s->tail.len;
}

/* After an append: moves a full tail to the file. */
void mm_spill_settle(struct mm_spill *s);

/* Forgets what lies beyond `len`, and a failure of the tail with it. */
void mm_spill_cut(struct mm_spill *s, uint64_t len);

/* All bytes in one piece, valid until the next call for `s` or append to it.
** NULL when there are none or on error (err is set). */
const uint8_t *mm_spill_bytes(struct mm_spill *s, struct mm_err *err);

#endif
