/* Control messages that a node writes beside what its application does. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "store/policy.h"
#include "store/position.h"
#include "test/model/world_int.h"

void world_policy(struct world *w, struct world_node *n, uint64_t seed)
{
    static const struct {
        const char *table, *column;
    } where[] = { { "names", "n" }, { "names", "n" }, { "plain", "a" }, { "pair", "v" } };
    struct mm_err err;
    mm_err_init(&err);
    unsigned at = (unsigned)(world_random(&seed) % 4);
    if (n->open || !world_begin(w, n)) {
        return;
    }
    mm_policy_request(n->app, where[at].table, where[at].column,
                      (enum mm_policy)(world_random(&seed) % MM_POLICY_COUNT), &err);
    if (err.rc != SQLITE_OK) {
        world_fail(w, "policy: %s", err.msg);
    }
    world_end(w, n, true);
}

void world_end_parts(struct world *w, struct world_node *n, uint64_t seed)
{
    enum { MOST = 8 };
    struct mm_part_row rows[MOST];
    struct mm_err err;
    mm_err_init(&err);
    if (n->open || !world_begin(w, n)) {
        return;
    }
    int count = mm_part_list(n->app, rows, MOST, &err);
    if (count > 0) {
        mm_part_ask_end(n->app, &rows[world_random(&seed) % (unsigned)count], &err);
    }
    if (err.rc != SQLITE_OK && !fault_came()) {
        world_fail(w, "end of parts: %s", err.msg);
    }
    world_end(w, n, true);
}

static void write_first(sqlite3 *db, const struct naive_table *t, struct mm_err *err)
{
    char marks[2 * NAIVE_COLUMNS] = "?";
    char names[80];
    int ncol = t->def->younger > 0 ? t->def->younger : t->def->ncol;
    snprintf(names, sizeof names, "%s", t->def->col[0]);
    for (int k = 1; k < ncol; k++) {
        strcat(marks, ",?");
        snprintf(names + strlen(names), sizeof names - strlen(names), ", %s", t->def->col[k]);
    }
    mm_db_exec(db, err, "DELETE FROM main.\"%w\"", t->def->name);
    sqlite3_stmt *st = mm_db_prepare(db, err, 0, "INSERT INTO main.\"%w\"(%s) VALUES (%s)", t->def->name, names, marks);
    for (size_t j = 0; j < t->n && err->rc == SQLITE_OK; j++) {
        for (int k = 0; k < ncol; k++) {
            world_need(mm_value_bind(st, k + 1, &t->row[j].v[k]) == SQLITE_OK, "binding a value");
        }
        (void)mm_db_step(st, err);
        sqlite3_reset(st);
    }
    mm_db_finalize(st);
}

bool world_again(struct world *w, struct world_node *n, int table)
{
    const struct naive_table *t = world_first(w, table);
    struct mm_err err;
    mm_err_init(&err);
    int shard = mm_watch_shard(t->def->name, w->shards);
    if (n->r.epoch < w->epoch || n->open || n->past || !n->r.joined || n->bring.held || n->r.reload_needed ||
        !world_usable[table] || !world_has_table(n->r.db, t->def->name) ||
        mm_watch_get(n->r.db, t->def->name, NULL, &err) == MM_UNWATCHED) {
        return false;
    }
    /* What memory alone knows may be lost again: then something would be pending below the new rows. */
    world_node_flush(w, n);
    if (w->failed || n->r.reload_needed || mm_repl_dirty(&n->r)) {
        return false;
    }
    mm_repl_read_outbox(&n->r, &err);
    for (int k = 0; k < n->r.nshard; k++) {
        if (n->r.shard[k].replay != NULL || mm_pending_count(n->r.shard[k].pending) > 0) {
            return false;
        }
    }
    mm_db_exec(n->r.db, &err, "BEGIN IMMEDIATE");
    write_first(n->r.db, t, &err);
    mm_watch_set(n->r.db, t->def->name, MM_JOINING, NULL, &err);
    mm_watch_set_joined_seq(n->r.db, t->def->name, 1, &err);
    mm_watchlist_add(n->r.db, t->def->name, shard, 1, &err);
    mm_db_exec(n->r.db, &err, "COMMIT");
    if (err.rc != SQLITE_OK) {
        world_fail(w, "a table that begins anew: %s", err.msg);
        return false;
    }
    mm_targets_forget(n->r.targets);
    w->again = n->r.tables_changed = true;
    return true;
}
