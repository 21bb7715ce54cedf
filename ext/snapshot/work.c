#include "snapshot/work.h"

#include <stddef.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/gate.h"

enum { GATE_US = 5000, STEPS = 5000 };

void mm_work_step(struct mm_work *w, const char *what, int64_t total)
{
    w->done = 0;
    w->total = total;
    w->what = what;
    w->file = NULL;
}

void mm_work_step_file(struct mm_work *w, const char *what, const char *file, int64_t total)
{
    mm_work_step(w, what, total);
    w->file = file;
}

static bool breathe(struct mm_work *w)
{
    int64_t now = mm_clock_mono_us();
    if (now - w->gate_us > GATE_US) {
        struct stat st;
        w->gate_us = now;
        if (w->file != NULL && stat(w->file, &st) == 0) {
            w->done = st.st_size < w->total ? st.st_size : w->total;
        }
        mm_gate_resume(mm_gate_pause());
    }
    return !w->stop;
}

bool mm_work_go_on(struct mm_work *w, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && !breathe(w)) {
        mm_err_set(err, SQLITE_INTERRUPT, "the work on a snapshot was ended");
    }
    return err->rc == SQLITE_OK;
}

/* A connection of ours has neither mutex nor shared cache: none is held here. */
static int progress(void *arg)
{
    return breathe(arg) ? 0 : 1;
}

void mm_work_watch(struct mm_work *w, sqlite3 *db)
{
    if (sqlite3_api->progress_handler != NULL) { /* left out by some builds: then a statement ends by itself only */
        sqlite3_progress_handler(db, STEPS, progress, w);
    }
}

void mm_work_unwatch(sqlite3 *db)
{
    if (sqlite3_api->progress_handler != NULL) {
        sqlite3_progress_handler(db, 0, NULL, NULL);
    }
}

bool mm_work_moved(void *arg, int64_t done, int64_t total)
{
    struct mm_work *w = arg;
    w->done = done;
    w->total = total > 0 ? total : 0;
    return !w->stop;
}

bool mm_work_done(void *arg, int64_t done)
{
    struct mm_work *w = arg;
    w->done = done;
    return !w->stop;
}
