/* Tables that a node leaves, and watches again: marmot_unwatch and marmot_watch of its
** application, and what ext/node_tables.c makes of a table that is compared with a copy. */
#include <string.h>

#include "base/db.h"
#include "repl/join.h"
#include "store/stray.h"
#include "test/model/world_int.h"
#include "watching.h"

static enum mm_watch_state state_of(struct world_node *n, int table)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_watch_get(n->r.db, world_tables[table].name, NULL, &err);
}

/* A copy is to be had: without one a table of other rows would wait for ever. */
static bool may(const struct world *w, const struct world_node *n)
{
    return !w->failed && !n->open && !n->past && n->r.joined && w->kept[0] != NULL;
}

static void leave(struct world *w, struct world_node *n, int table)
{
    struct mm_err err;
    mm_err_init(&err);
    int64_t before = world_outbox_last(n);
    if (mm_watching_remove(n->app, world_tables[table].name, &err) != SQLITE_OK && !fault_came()) {
        world_fail(w, "marmot_unwatch of %s: %s", world_tables[table].name, err.msg);
    }
    world_remember(w, n, before);
    w->again = w->jumped = true;
}

static bool reads(const struct world_node *n, const char *table)
{
    bool any = false;
    for (int k = 0; k < n->r.nshard; k++) {
        any = any || (n->r.shard[k].replay != NULL && mm_join_takes_part(&n->r.shard[k], table));
    }
    return any;
}

/* No copy came for ten seconds, as ext/node_tables.c counts them. `late`: the log did not do for it, which only its
** reading would have told. */
static bool patience_ends(struct world *w, struct world_node *n, int table, bool late)
{
    const char *name = world_tables[table].name;
    struct mm_err err;
    mm_err_init(&err);
    if (state_of(n, table) != MM_JOINING || n->bring.stage != BRING_NOT || n->r.reload_needed || reads(n, name) ||
        !(late || mm_watch_needs_copy(MM_JOINING, mm_watch_joined_seq(n->r.db, name, &err)))) {
        return false;
    }
    mm_db_exec(n->r.db, &err, "BEGIN IMMEDIATE");
    if (late) {
        mm_watch_set_joined_seq(n->r.db, name, MM_SEQ_COPY, &err);
    }
    mm_join_let_pass(&n->r, name, "it waits on", &err);
    mm_stray_end(n->r.db, &err);
    mm_targets_forget(n->r.targets);
    if (err.rc != SQLITE_OK && (err.rc & 0xff) != SQLITE_BUSY && !fault_came()) {
        world_fail(w, "the patience of node %lld: %s", (long long)n->id, err.msg);
    }
    w->jumped = true;
    return true;
}

/* What is written now is under way when a copy comes; it does at once, or later. */
static void on_its_way(struct world *w, struct world_node *n, uint64_t seed)
{
    bool at_once = world_random(&seed) % 2 == 0;
    net_now_us += 1000000; /* what the publisher waits at most */
    for (int k = 0; k < 4 && !w->failed && !fault_dead(); k++) {
        world_write(w, n, world_random(&seed));
        world_node_pump(w, n);
    }
    while (at_once && net_take(w->net, n->r.bus, 0, NET_STORED)) {
    }
    for (int k = 0; k < 3 && at_once && !w->failed && !fault_dead(); k++) {
        world_bring(w, n, true, world_random(&seed));
    }
}

/* Emptied before, or with the rows that it has: `join` says what becomes of them. */
static void come_back(struct world *w, struct world_node *n, int table, uint64_t seed)
{
    const char *name = world_tables[table].name;
    struct mm_err err;
    mm_err_init(&err);
    if (world_random(&seed) % 3 == 0) {
        mm_db_exec(n->app, &err, "DELETE FROM main.\"%w\"", name);
    }
    n->again = world_random(&seed) % 2 == 0 ? REJOIN_ADOPT : REJOIN_MERGE;
    int64_t before = world_outbox_last(n);
    if ((err.rc != SQLITE_OK || mm_watching_add(n->app, name, NULL, &err) != SQLITE_OK) && !fault_came()) {
        world_fail(w, "marmot_watch of %s: %s", name, err.msg);
    }
    world_remember(w, n, before);
    w->came_back++;
    if (!w->failed && world_random(&seed) % 3 == 0 && patience_ends(w, n, table, true)) {
        on_its_way(w, n, seed);
    }
}

void world_watching(struct world *w, struct world_node *n, uint64_t seed)
{
    int table = (int)(world_random(&seed) % WORLD_TABLES);
    if (!may(w, n)) {
        return;
    }
    for (int k = 0; k < WORLD_TABLES && world_random(&seed) % 8 != 0; k++) {
        if (patience_ends(w, n, k, false)) {
            return;
        }
    }
    for (int k = 0; k < WORLD_TABLES; k++) { /* one that it has left comes first */
        int at = (table + k) % WORLD_TABLES;
        if (state_of(n, at) == MM_UNWATCHED && world_random(&seed) % 3 != 0) {
            come_back(w, n, at, seed);
            return;
        }
    }
    if (state_of(n, table) == MM_WATCHED) {
        leave(w, n, table);
    }
}

bool world_watch_all(struct world *w, struct world_node *n)
{
    bool any = false;
    for (int k = 0; k < WORLD_TABLES && w->again && n->r.db != NULL; k++) {
        bool out = world_usable[k] && n->r.joined && state_of(n, k) == MM_UNWATCHED;
        if (out && may(w, n)) {
            come_back(w, n, k, (uint64_t)k);
        }
        any = any || out;
    }
    return any;
}

bool world_watches(struct world *w, struct world_node *n, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    return !w->again || mm_watch_get(n->r.db, table, NULL, &err) == MM_WATCHED;
}

void world_watch_look(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (mm_targets_refresh(n->r.targets, &err)) {
        n->r.schema_moved = true;
        mm_repl_rekey(&n->r, &err);
    }
    mm_join_again(&n->r, &err);
    if (err.rc != SQLITE_OK && (err.rc & 0xff) != SQLITE_BUSY && !fault_came()) {
        world_fail(w, "looking at the tables of node %lld: %s", (long long)n->id, err.msg);
    }
}
