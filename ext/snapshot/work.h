/* Long work on a thread of its own: whether it may go on, how far it is.
**
** Threads: one works; `stop` and `progress` are for any thread. The worker
** holds the fork gate around its SQL and lets it go now and then. */
#ifndef MM_SNAPSHOT_WORK_H
#define MM_SNAPSHOT_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"

struct mm_work {
    atomic_bool stop;
    _Atomic(const char *) what; /* constant text: what it does now, NULL = nothing */
    atomic_llong done, total;   /* of `what`, in bytes or rows or messages; total 0 = not known */
    /* The worker's own. */
    int64_t gate_us;  /* when the gate was last let go */
    const char *file; /* borrowed: its size is what is done, NULL = none */
};

/* The next step of the work begins. */
void mm_work_step(struct mm_work *w, const char *what, int64_t total);

/* The same; it is as far as the file is long, while statements of a watched connection write it. */
void mm_work_step_file(struct mm_work *w, const char *what, const char *file, int64_t total);

/* False when it is to end: SQLITE_INTERRUPT is set then. Lets the gate go when
** it was held long. Cheap: call it for every row. */
bool mm_work_go_on(struct mm_work *w, struct mm_err *err);

/* The same from inside long statements of a connection. */
void mm_work_watch(struct mm_work *w, sqlite3 *db);
void mm_work_unwatch(sqlite3 *db); /* before a connection that stays open is used for something else */

/* As mm_store_watch.go_on wants it; arg is the struct mm_work. */
bool mm_work_moved(void *arg, int64_t done, int64_t total);
/* As mm_wire_file.go_on wants it. */
bool mm_work_done(void *arg, int64_t done);

#endif
