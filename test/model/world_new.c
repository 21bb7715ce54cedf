/* Newcomers: a file without a table, with tables that have no row yet, or with rows of its
** own. They join as ext/node_link.c has it: by the log from its first message on where the
** cluster began with the same, else by a copy, which those with rows of their own give way to
** or merge with (join is 'adopt' or 'merge' there). */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "repl/join.h"
#include "repl/record.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"

struct mm_join_options world_join_options(const struct world_node *n)
{
    return (struct mm_join_options){
        .cluster = "sim", .settings = "{}", .watch_all = n->newcomer, .replicas = 1, .max_entries = 1000000
    };
}

void world_record(struct world *w)
{
    struct mm_repl *r = &w->node[0].r;
    const struct mm_join_options o = world_join_options(&w->node[0]);
    struct mm_err err;
    mm_err_init(&err);
    mm_record_make(r, &o, WORLD_CLUSTER, &err);
    world_need(err.rc == SQLITE_OK, err.msg);
}

/* Rows that were there before anybody knew of a cluster: those that some clusters began
** with, and what was done to them since, or not. */
static void write_own(struct world *w, struct world_node *n, sqlite3 *db, uint64_t seed, struct mm_err *err)
{
    unsigned count = (unsigned)(world_random(&seed) % 8);
    mm_db_exec(db, err, "%s", world_rows);
    for (unsigned k = 0; k < count && err->rc == SQLITE_OK; k++) {
        world_statement(w, n, db, &seed);
    }
}

void world_new(struct world *w, enum world_newcomer kind, uint64_t seed)
{
    if (w->nnode == WORLD_NODES) {
        return;
    }
    struct mm_err err;
    struct world_node *n = &w->node[w->nnode++];
    mm_err_init(&err);
    memset(n, 0, sizeof *n);
    snprintf(n->path, sizeof n->path, "/%d.db", w->nnode - 1);
    memory_remove(n->path);
    sqlite3 *db = world_connect(n->path);
    bool tables = kind != NEW_BARE;
    mm_db_exec(db, &err, "%s", tables ? world_schema : "");
    if (kind == NEW_ADOPTS || kind == NEW_MERGES) {
        n->join = kind == NEW_ADOPTS ? REJOIN_ADOPT : REJOIN_MERGE;
        write_own(w, n, db, seed, &err);
    }
    mm_db_exec(db, &err, "BEGIN");
    mm_meta_migrate(db, &err);
    mm_head_set_incarnation(db, world_incarnation(w), &err);
    mm_head_set_watch_all(db, true, &err);
    for (int t = 0; t < WORLD_TABLES && tables; t++) {
        mm_watch_add(db, world_tables[t].name, &err);
    }
    mm_db_exec(db, &err, "COMMIT");
    world_need(err.rc == SQLITE_OK, err.msg);
    sqlite3_close(db);
    n->newcomer = true;
    n->bare = !tables;
    w->jumped = true;
    w->newcomers++;
    world_node_begin(w, n, w->nnode); /* nobody has this id */
    world_remember(w, n, 0);
}

bool world_join(struct world *w, struct world_node *n)
{
    const struct mm_join_options o = world_join_options(n);
    struct mm_err err;
    mm_err_init(&err);
    enum mm_join_result result = mm_join_run(&n->r, &o, &err);
    if (result == MM_JOIN_BRING) {
        return true;
    }
    if (result == MM_JOIN_DONE) {
        n->bring.due = n->bring.held = false;
        mm_err_init(&err);
        if (mm_repl_reload(&n->r, &err) != SQLITE_OK && !fault_came()) {
            world_fail(w, "node %lld has joined: %s", (long long)n->id, err.msg);
        }
        world_node_ends(w, n);
        world_node_follow_again(n);
    } else if ((err.rc & 0xff) == SQLITE_BUSY) {
        w->busy++;
    } else if (!fault_came()) {
        world_fail(w, "node %lld cannot join (%d): %s", (long long)n->id, (int)result, err.msg);
    }
    return false;
}
