/* What is given up is kept: a copy of the node's file beside it, outbox and all.
**
** Threads: any one, over a connection of its own; writers are not blocked. */
#ifndef MM_SNAPSHOT_KEPT_H
#define MM_SNAPSHOT_KEPT_H

#include "snapshot/work.h"

/* Returns its name, "<path>-before-join-<ms since 1970>" (free()); NULL with err set.
** *upto: outbox id up to which all is in it. */
char *mm_kept_make(const char *path, const char *vfs, struct mm_work *work, int64_t *upto, struct mm_err *err);

#endif
