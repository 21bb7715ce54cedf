/* A set of 64-bit hashes that only grows.
**
** Threads: none of its own. Zeroed = empty. */
#ifndef MM_BASE_SEEN_H
#define MM_BASE_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct mm_seen {
    uint64_t *slot; /* 0 = free */
    size_t n, cap;  /* cap is a power of two */
};

/* True when it is new; false also with err set. The lowest bit does not count. */
bool mm_seen_add(struct mm_seen *s, uint64_t hash, struct mm_err *err);
bool mm_seen_has(const struct mm_seen *s, uint64_t hash);
void mm_seen_free(struct mm_seen *s); /* leaves it empty */

#endif
