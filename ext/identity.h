/* Names for what must not be taken twice: node ids, incarnations, database
** files, and the ids that marmot_id() hands out.
**
** Threads: any. Randomness comes from the kernel, never from SQLite's own
** generator, whose state a fork() copies.
**
** marmot_id, from the highest bit down:
**   63 bits: 41 bits of ms since 2025-01-01, 14 bits of slot, 8 bits of counter
**   53 bits: 38 bits of 8 ms since 2025-01-01, 10 bits of slot, 5 bits of counter
** (69 years each; 256 ids a ms, or 32 in 8 ms.) The slot is random, drawn once
** a process and again in the child of a fork. Ids of one process grow strictly,
** also when the clock steps back: who asks faster than the counter allows gets
** ids of the near future. */
#ifndef MM_IDENTITY_H
#define MM_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* 63 random bits, never 0. On failure 0 with err set. */
int64_t mm_identity_random(struct mm_err *err);

/* "device:inode:path" of an existing file; caller frees with free(). NULL with
** err set. */
char *mm_identity_file(const char *path, struct mm_err *err);
/* The path in such a text (borrowed). */
const char *mm_identity_path(const char *identity);

/* The next id of `bits` (53 or 63) bits. 0 with err set: no randomness, or a
** clock before 2025. */
int64_t mm_identity_next(int bits, struct mm_err *err);

/* In the child of a fork: the slot is the parent's, draw another. */
void mm_identity_after_fork(void);

#endif
