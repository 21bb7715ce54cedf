/* A copy that lacks a table: what the node remembers of the table, so that a later copy is
** judged by the right rules. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "snapshot/install.h"
#include "store/watch.h"
#include "test/model/cases.h"
#include "test/model/memory_vfs.h"

static const char copy_path[] = "/copy.db";

/* Node 0, with table bag in this state and at this place. */
static bool install(struct world *w, enum mm_watch_state state, int64_t seq)
{
    struct mm_diff_table table = { .name = (char[]){ "bag" }, .mode = MM_DIFF_ABSENT, .why = "the copy lacks it" };
    struct mm_diff diff = { .table = &table, .n = 1 };
    static const bool take[] = { true };
    struct mm_work work = { 0 };
    struct mm_install in = { .copy = copy_path, .diff = &diff, .take = take, .work = &work };
    struct mm_repl *r = &w->node[0].r;
    struct mm_err err;
    int64_t given_up;
    mm_err_init(&err);
    mm_watch_set(r->db, "bag", state, NULL, &err);
    mm_watch_set_joined_seq(r->db, "bag", seq, &err);
    mm_targets_forget(r->targets);
    r->copy_due = false;
    if (mm_install_run(r, &in, &given_up, &err) != SQLITE_OK) {
        snprintf(w->why, sizeof w->why, "%.400s", err.msg);
    }
    return err.rc == SQLITE_OK && given_up == 0;
}

static void lacks(struct world *w, const char *name, enum mm_watch_state state, int64_t seq, int64_t then)
{
    struct mm_err err;
    mm_err_init(&err);
    const struct mm_repl *r = &w->node[0].r;
    bool good = install(w, state, seq) && mm_watch_get(w->node[0].app, "bag", NULL, &err) == state &&
                mm_watch_joined_seq(w->node[0].app, "bag", &err) == then && r->copy_due == (state == MM_JOINING) &&
                !r->reload_needed;
    case_check(name, good && err.rc == SQLITE_OK, w->why);
}

int main(void)
{
    struct world w;
    mm_log_silence();
    world_prepare();
    case_open(&w, 1, 2, false);
    case_rest(&w);
    sqlite3 *db = NULL;
    if (sqlite3_open(copy_path, &db) != SQLITE_OK ||
        sqlite3_exec(db, "CREATE TABLE other(x)", NULL, NULL, NULL) != SQLITE_OK) {
        case_check("a copy", false, sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    lacks(&w, "a table that reads the log had joined, and waits as such", MM_JOINING, 5, MM_SEQ_BEFORE);
    lacks(&w, "one that had joined goes on waiting as such", MM_JOINING, MM_SEQ_BEFORE, MM_SEQ_BEFORE);
    lacks(&w, "one that never joined is to be compared", MM_JOINING, MM_SEQ_NEVER, MM_SEQ_COPY);
    lacks(&w, "and stays so", MM_JOINING, MM_SEQ_COPY, MM_SEQ_COPY);
    lacks(&w, "one that began empty is to be merged", MM_JOINING, MM_SEQ_EMPTY, MM_SEQ_EMPTY);
    lacks(&w, "one that was stale is so still", MM_STALE, MM_SEQ_BEFORE, MM_SEQ_BEFORE);
    world_close(&w);
    memory_remove(copy_path);
    return case_end();
}
