/* A thread of ours, written once: all signals blocked, started with a failure
** that is reported, stopped by flag, wake and bounded join.
**
** Threads: open, stop and close belong to the owner; wake is for any thread
** and async-signal-safe; stopping is for the worker's own body. */
#ifndef MM_BASE_WORKER_H
#define MM_BASE_WORKER_H

#include <stdbool.h>

struct mm_err;
struct mm_worker;

typedef void mm_worker_body(struct mm_worker *w, void *arg);

/* Starts the thread. `name` (15 bytes at most) is what ps and gdb show.
** Returns NULL with err set. */
struct mm_worker *mm_worker_open(const char *name, mm_worker_body *body, void *arg, struct mm_err *err);

/* Makes mm_worker_fd readable; cheap when it already is. */
void mm_worker_wake(struct mm_worker *w);
int mm_worker_fd(const struct mm_worker *w);     /* an eventfd, for epoll; borrowed */
bool mm_worker_awake(const struct mm_worker *w); /* woken since the last drain */
void mm_worker_drain(struct mm_worker *w);       /* the worker's own: forget wakes so far */

void mm_worker_stop(struct mm_worker *w); /* sets the flag and wakes; does not wait */
bool mm_worker_stopping(const struct mm_worker *w);

/* Waits up to timeout_ms for the thread's end. True: it ended and w is freed.
** False: it still runs (stuck in a name look-up, say), w must be left alone
** for ever; the library is never unloaded, so that is safe. NULL is true. */
bool mm_worker_close(struct mm_worker *w, int timeout_ms);

#endif
