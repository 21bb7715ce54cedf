/* Database files in memory: a VFS in place of the disk's, WAL and its shared
** memory included, with moments at which the disk fails or the process dies.
**
** Threads: one. Out of memory in here ends the program. */
#ifndef MM_TEST_MEMORY_VFS_H
#define MM_TEST_MEMORY_VFS_H

#include <stdbool.h>
#include <stdint.h>

/* Becomes the default VFS. Before the first database is opened. */
void memory_vfs_start(void);

/* Of the file and its WAL. Nobody has `to` open. */
void memory_copy(const char *from, const char *to);
void memory_remove(const char *path);
/* Grows with each write to the file or its WAL: unchanged means the same content. */
uint64_t memory_writes(const char *path);

/* Keeps the files at path as they are now, as a process leaves them that dies
** at this moment; memory_died puts them back (once nobody has them open). */
void memory_die(const char *path);
void memory_died(const char *path);

#endif
