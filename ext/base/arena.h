/* Memory that is freed all at once: what one message or one transaction
** decodes to lives in one arena.
**
** Threads: none of its own. Sticky: after a failed allocation every later one
** fails, and mm_arena_failed is true. Bounded by a maximum from birth. */
#ifndef MM_BASE_ARENA_H
#define MM_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct mm_arena_block;

struct mm_arena {
    struct mm_arena_block *head;
    size_t used; /* bytes asked for so far */
    size_t max;
    bool failed;
};

void mm_arena_init(struct mm_arena *a, size_t max);
void mm_arena_free(struct mm_arena *a); /* leaves it as after init */

/* Aligned for any type, zeroed; NULL when it failed. n may be 0. */
void *mm_arena_alloc(struct mm_arena *a, size_t n);
/* count elements of size bytes; an overflow of the product fails. */
void *mm_arena_array(struct mm_arena *a, size_t count, size_t size);
void *mm_arena_copy(struct mm_arena *a, const void *p, size_t n);
char *mm_arena_str(struct mm_arena *a, const char *s);

#endif
