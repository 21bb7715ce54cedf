/* One thing that goes wrong: the nth allocation (SQLite's and ours), SQL step,
** publish or write, or the process dies at the nth write or publish.
** Programs that use it are linked with malloc and its like wrapped.
**
** Threads: one. */
#ifndef MM_TEST_FAULTS_H
#define MM_TEST_FAULTS_H

#include <stdbool.h>

enum fault {
    FAULT_NONE,
    FAULT_MEMORY,  /* no memory */
    FAULT_STEP,    /* sqlite3_step of ours is interrupted */
    FAULT_PUBLISH, /* the connection does not take the message */
    FAULT_WRITE,   /* the disk is full */
    FAULT_SYNC,    /* the disk's cache cannot be written out */
    FAULT_DEATH,   /* the process is gone at this write or publish */
    FAULTS
};
const char *fault_name(enum fault f);

/* Before the first call into SQLite: its memory comes from the wrapped malloc,
** its routine table, as ours sees it, has our sqlite3_step. */
void fault_start(void);

/* From now on, once, at the nth; `died` (with its argument) is called when the
** process is to be gone. nth 0 switches it off. */
void fault_arm(enum fault f, long nth, void (*died)(void *), void *arg);
bool fault_came(void);        /* since it was armed */
void fault_pause(bool pause); /* what the test does itself meanwhile is spared; nests */

/* Asked at each place: true when it is to fail now. */
bool fault_here(enum fault f);
/* The process has died: nothing that it does counts any more. */
bool fault_dead(void);

long fault_live(void); /* blocks of memory in use, ours and SQLite's */

#endif
