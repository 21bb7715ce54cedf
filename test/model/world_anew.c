/* Tables that come later, at each node in its own time, and such that are dropped and made anew: empty, and
** then with the cluster's rows once more. */
#include <string.h>

#include "base/db.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"
#include "watching.h"

enum { BORN = WORLD_TABLES }; /* of world_tables: no node begins with it */

static const char born_sql[] = "CREATE TABLE born(id INTEGER PRIMARY KEY, v, w)";
static char *made_by[WORLD_TABLES]; /* the statements of the others */

void world_anew_learn(sqlite3 *db)
{
    struct mm_err err;
    mm_err_init(&err);
    for (int k = 0; k < WORLD_TABLES && made_by[k] == NULL; k++) {
        made_by[k] = mm_db_text(db, &err,
                                "SELECT group_concat(sql, ';') FROM (SELECT sql FROM main.sqlite_schema"
                                " WHERE tbl_name = %Q AND sql IS NOT NULL ORDER BY rowid)",
                                world_tables[k].name);
    }
    world_need(err.rc == SQLITE_OK, err.msg);
}

bool world_has_table(sqlite3 *db, const char *name)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_db_int(db, &err, 0, "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = %Q", name) != 0;
}

/* From here on the tables of its shard are one more. */
static void begin_born(struct world *w)
{
    int s = mm_watch_shard(world_tables[BORN].name, w->shards) - 1;
    const struct naive_def *d = &w->def[s][w->ndef[s]];
    w->def[s][w->ndef[s]++] = world_tables[BORN];
    for (int k = 0; k < w->nnode; k++) {
        struct naive *base = &w->node[k].base[s];
        base->table[base->ntable++].def = d;
    }
    if (w->seed[s].at > 0) {
        w->seed[s].base.table[w->seed[s].base.ntable++].def = d;
    }
    w->born = true;
}

static void create(struct world *w, struct world_node *n, int table)
{
    const char *name = world_tables[table].name;
    struct mm_err err;
    mm_err_init(&err);
    w->shapes = w->again = w->jumped = n->bring.altered = true;
    if (table == BORN && !w->born) {
        begin_born(w);
    }
    n->again = w->made % 2 == 0 ? REJOIN_ADOPT : REJOIN_MERGE; /* something may be written there past the capture */
    mm_db_exec(n->app, &err, "%s", table == BORN ? born_sql : made_by[table]);
    int64_t before = world_outbox_last(n);
    if (table == BORN && err.rc == SQLITE_OK) {
        mm_watching_add(n->app, name, NULL, &err);
    }
    if (err.rc != SQLITE_OK && !fault_came()) {
        world_fail(w, "node %lld makes table %s: %s", (long long)n->id, name, err.msg);
    }
    world_remember(w, n, before);
    w->made++;
}

/* The node has seen that it is gone. */
static bool may_create(struct world *w, struct world_node *n, int table)
{
    struct mm_err err;
    mm_err_init(&err);
    if (n->open || !n->r.joined || w->failed || world_has_table(n->app, world_tables[table].name)) {
        return false;
    }
    if (table == BORN && !w->born && w->seeder != NULL) { /* see world_epoch.c */
        return false;
    }
    if (table == BORN && n->past) { /* see world_may_pass */
        return false;
    }
    enum mm_watch_state state = mm_watch_get(n->r.db, world_tables[table].name, NULL, &err);
    if (state == MM_WATCHED || (state == MM_JOINING && table != BORN)) {
        world_watch_look(w, n);
        state = mm_watch_get(n->r.db, world_tables[table].name, NULL, &err);
    }
    return state != MM_WATCHED;
}

void world_create(struct world *w, struct world_node *n, uint64_t seed)
{
    int table = (int)(world_random(&seed) % WORLD_ALL);
    for (int k = 0; k < WORLD_ALL && w->kept[0] != NULL; k++) {
        int at = k == 0 && world_random(&seed) % 3 == 0 ? BORN : (table + k) % WORLD_ALL;
        if (may_create(w, n, at)) {
            create(w, n, at);
            return;
        }
    }
}

bool world_create_all(struct world *w, struct world_node *n)
{
    bool any = false;
    for (int k = 0; k < WORLD_ALL && w->shapes && n->r.joined; k++) {
        bool wanted = k != BORN || w->born;
        bool lacks = wanted && !world_has_table(n->app, world_tables[k].name);
        if (lacks && may_create(w, n, k)) {
            create(w, n, k);
        }
        any = any || lacks;
    }
    return any;
}

/* A copy is to be had: else its rows might be nowhere. */
void world_drop(struct world *w, struct world_node *n, uint64_t seed)
{
    struct mm_err err;
    mm_err_init(&err);
    int table = (int)(world_random(&seed) % WORLD_ALL);
    const char *name = world_tables[table].name;
    if (n->open || n->past || !n->r.joined || w->failed || w->kept[0] == NULL || !world_has_table(n->app, name) ||
        mm_watch_get(n->r.db, name, NULL, &err) == MM_UNWATCHED) {
        return;
    }
    /* README: of one whose watch message is not in the log yet, what was written to it is. */
    if (mm_watchlist_seq(n->r.db, name, &err) == 0) {
        return;
    }
    w->shapes = w->again = w->jumped = n->bring.altered = true;
    mm_db_exec(n->app, &err, "DROP TABLE main.\"%w\"", name);
    if (err.rc != SQLITE_OK && !fault_came()) {
        world_fail(w, "node %lld drops table %s: %s", (long long)n->id, name, err.msg);
    }
    if (world_random(&seed) % 2 == 0) {
        world_watch_look(w, n);
    }
}
