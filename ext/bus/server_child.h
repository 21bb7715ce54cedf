/* The start of the child process, and a look at an address.
**
** Threads: the caller's. The child dies with the thread that started it. */
#ifndef MM_BUS_SERVER_CHILD_H
#define MM_BUS_SERVER_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Starts `argv` (NULL-terminated, argv[0] a path) in a session of its own with
** three descriptors besides /dev/null: `log_fd` as standard error, `lock_fd`
** as 3. Returns the process id, or -1 with errno. */
pid_t mm_child_start(char *const argv[], int lock_fd, int log_fd);

/* Reaps it if it has ended. True while it runs. */
bool mm_child_alive(pid_t pid);

enum mm_probe_result {
    MM_PROBE_PENDING, /* look again soon */
    MM_PROBE_NATS,    /* a NATS server greets there */
    MM_PROBE_NOBODY,  /* refused */
    MM_PROBE_OTHER,   /* something listens that is not NATS */
};
struct mm_probe {
    int fd; /* -1 when idle */
    int64_t since_ms;
};

/* Looks at host:port for at most wait_ms; begins a new look unless one is pending. */
enum mm_probe_result mm_probe_look(struct mm_probe *p, const char *host, int port, int wait_ms);
void mm_probe_stop(struct mm_probe *p);

#endif
