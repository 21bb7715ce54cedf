/* A copy of the cluster's content on which what is pending at the node is done,
** too, in the order of the outbox: what the application would see if nothing
** had been written past the capture.
**
** Threads: the one that uses both. The copy stands at the node's position; it
** keeps the before-images of what was done there (store/outbox.h). */
#ifndef MM_REPL_SHADOW_H
#define MM_REPL_SHADOW_H

#include "repl/repl.h"

/* Does what is pending at `live` and not done yet. `upto`: of each shard the
** outbox id up to which it is. Ends early at until_us (mm_clock_mono_us; 0 =
** never). Inside a transaction of the copy. */
int mm_shadow_follow(struct mm_repl *copy, struct mm_repl *live, int64_t *upto, int64_t until_us, struct mm_err *err);

/* The node's before-images were taken from rows that held what nobody captured:
** where they differ, those of the copy take their place (from `done` on, moved
** as upto is). Inside a write transaction of live. */
int mm_shadow_images(struct mm_repl *copy, struct mm_repl *live, int64_t *done, int64_t until_us, struct mm_err *err);
/* True when `upto` is behind the last one pending. */
bool mm_shadow_behind(struct mm_repl *live, const int64_t *upto);

/* True when both hold the table, of the same definition, and fold it. */
bool mm_shadow_comparable(struct mm_repl *copy, struct mm_repl *live, const char *table, struct mm_err *err);

#endif
