/* What a thread of ours waits for beside its sockets: its own wake-up, and one
** file that somebody writes or closes (inotify).
**
** Threads: one thread uses it; each_fd is for the child of a fork.
** A file is watched as long as the system can: where it cannot (the user's limit
** of inotify instances, a file that is not there), mm_notify_works is false and
** the owner looks by the clock. An event tells that something happened, not
** that it is through: a commit is written before it can be seen. */
#ifndef MM_BASE_NOTIFY_H
#define MM_BASE_NOTIFY_H

#include <stdbool.h>

#include "base/err.h"

struct mm_notify;

enum mm_notify_what {
    MM_NOTIFY_WRITTEN, /* each write(2) */
    MM_NOTIFY_CLOSED,  /* a process that could write it has closed it, or has ended */
};

/* `wake_fd` is borrowed: readable means wake. NULL with err set. */
struct mm_notify *mm_notify_open(int wake_fd, struct mm_err *err);
void mm_notify_close(struct mm_notify *w); /* NULL is fine */

/* For poll and epoll: readable by a wake, or by an event since the last take. */
int mm_notify_fd(const struct mm_notify *w);

/* Watches this file from now on, and no other. Returns mm_notify_works. */
bool mm_notify_watch(struct mm_notify *w, const char *path, enum mm_notify_what what);
bool mm_notify_works(const struct mm_notify *w);

/* True when there were events; from now on none makes the descriptor readable
** until mm_notify_arm, and none is kept of a write after the first. Arm is true
** when a write may have gone by untold since: look whether there was one. */
bool mm_notify_take(struct mm_notify *w);
bool mm_notify_arm(struct mm_notify *w);

/* Descriptors to close in the child of a fork: calls f for each. */
void mm_notify_each_fd(const struct mm_notify *w, void (*f)(int fd));

#endif
