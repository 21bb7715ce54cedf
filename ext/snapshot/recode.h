/* A snapshot's database in the text encoding of the node's: SQLite joins no two
** files of different ones.
**
** Threads: that of the task; takes the fork gate. */
#ifndef MM_SNAPSHOT_RECODE_H
#define MM_SNAPSHOT_RECODE_H

#include "snapshot/work.h"

/* The file `copy` is written anew when its encoding is not that of the database
** `like`. Texts that are not valid UTF-8 read U+FFFD in UTF-16. */
int mm_recode(const char *copy, const char *like, const char *vfs, struct mm_work *work, struct mm_err *err);

#endif
