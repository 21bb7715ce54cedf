/* What is pending, undone: the comparisons of each step see it standing in the tables alone. */
#include "base/db.h"
#include "test/model/world_int.h"

static bool comparable(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (w->failed || n->open || n->bring.held || n->r.reload_needed || world_brings(w, n) || world_astray(w, n)) {
        return false;
    }
    for (int t = 0; t < WORLD_TABLES; t++) {
        if (world_usable[t] && mm_watch_get(n->r.db, world_tables[t].name, NULL, &err) != MM_WATCHED) {
            return false;
        }
    }
    return err.rc == SQLITE_OK;
}

static void undo(struct world *w, struct world_node *n, const char *when, struct mm_err *err)
{
    for (int s = 0; s < w->shards; s++) {
        mm_pending_undo(n->r.shard[s].pending, 0, err);
    }
    for (int s = 0; s < w->shards && err->rc == SQLITE_OK; s++) {
        world_check_content(w, n->r.db, s, n->r.shard[s].pos.seq, when);
    }
}

bool world_check_undo(struct world *w, struct world_node *n)
{
    struct mm_err err;
    bool any = false;
    mm_err_init(&err);
    if (!comparable(w, n) || mm_db_exec(n->r.db, &err, "BEGIN IMMEDIATE") != SQLITE_OK) {
        return false;
    }
    mm_repl_read_outbox(&n->r, &err);
    for (int s = 0; s < w->shards; s++) {
        any = any || mm_pending_count(n->r.shard[s].pending) > 0;
    }
    if (any) {
        undo(w, n, "what is left when all that is pending is undone", &err);
        for (int s = 0; s < w->shards; s++) {
            mm_pending_redo(n->r.shard[s].pending, &err);
        }
        undo(w, n, "what is left when all that was done again is undone", &err);
        n->r.reload_needed = true;
    }
    if (err.rc != SQLITE_OK) {
        world_fail(w, "undoing what is pending: %s", err.msg);
    }
    sqlite3_exec(n->r.db, "ROLLBACK", NULL, NULL, NULL);
    return any;
}
