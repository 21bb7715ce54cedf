/* The files that long work has beside the database: the copy, and what is packed.
**
** Threads: any; each has its own path. */
#ifndef MM_SNAPSHOT_ASIDE_H
#define MM_SNAPSHOT_ASIDE_H

#include "base/err.h"

/* The copy's descriptor, or -1 with err set; `flags` as open(2) has them. */
int mm_aside_open(const char *copy, int flags, struct mm_err *err);
/* Another file, which goes with its descriptor. */
int mm_aside_unnamed(const char *copy, struct mm_err *err);
void mm_aside_close(int fd); /* -1 is fine */

/* The copy and what SQLite may have left beside it. */
void mm_aside_remove(const char *copy);

#endif
