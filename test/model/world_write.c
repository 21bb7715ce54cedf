/* The transactions of a node's application. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "store/change.h"
#include "store/policy.h"
#include "test/model/faults.h"
#include "test/model/world_int.h"

static unsigned pick(uint64_t *seed, unsigned n)
{
    return (unsigned)(world_random(seed) % n);
}

static void statements(struct world *w, struct world_node *n, uint64_t *seed)
{
    unsigned count = 1 + pick(seed, 3);
    bool inner = pick(seed, 6) == 0;
    world_statement(w, n, n->app, seed);
    if (inner) {
        sqlite3_exec(n->app, "SAVEPOINT s", NULL, NULL, NULL);
    }
    for (unsigned k = 1; k < count && !sqlite3_get_autocommit(n->app); k++) {
        world_statement(w, n, n->app, seed);
    }
    if (inner) {
        sqlite3_exec(n->app, pick(seed, 2) == 0 ? "ROLLBACK TO s; RELEASE s" : "RELEASE s", NULL, NULL, NULL);
    }
}

enum mm_coll world_coll(void *arg, const char *table, const char *column, struct mm_err *err)
{
    (void)arg;
    (void)err;
    for (int t = 0; t < WORLD_ALL; t++) {
        for (int k = 0; k < world_tables[t].ncol && strcmp(world_tables[t].name, table) == 0; k++) {
            if (strcmp(world_tables[t].col[k], column) == 0) {
                return world_tables[t].coll[k];
            }
        }
    }
    return MM_COLL_BINARY;
}

static void remember(struct world *w, struct world_node *n, const struct mm_outbox_row *row, struct mm_buf *names,
                     struct mm_buf *data, struct mm_err *err)
{
    struct mm_arena a;
    mm_arena_init(&a, 1 << 30);
    struct mm_txn txn = { .arena = &a };
    if (row->kind == MM_OUTBOX_TXN) {
        mm_change_read(&txn, data->data, data->len, names->data, names->len, world_coll, NULL, err);
    }
    w->commit = realloc(w->commit, (w->ncommit + 1) * sizeof *w->commit);
    world_need(w->commit != NULL, "memory");
    struct world_commit *c = &w->commit[w->ncommit++];
    memset(c, 0, sizeof *c);
    memcpy(c->txid, row->txid, sizeof c->txid);
    c->node = (int)(n - w->node);
    c->optional = fault_dead();
    for (size_t k = 0; k < txn.ntab; k++) {
        c->touches[mm_watch_shard(txn.tab[k].name, w->shards) - 1] |= txn.tab[k].nrow > 0;
    }
    if (row->kind == MM_OUTBOX_CONTROL && data->data[0] == MM_CONTROL_ENDED) {
        c->touches[data->data[1] - 1] = true;
    } else if (row->kind == MM_OUTBOX_CONTROL) { /* a policy: of a table by its name */
        mm_buf_byte(data, 0);
        c->touches[mm_watch_shard((const char *)data->data + 1, w->shards) - 1] = true;
    }
    mm_arena_free(&a);
}

void world_remember(struct world *w, struct world_node *n, int64_t before)
{
    struct mm_err err;
    struct mm_outbox_row row = { .id = before };
    struct mm_buf names;
    struct mm_buf data;
    mm_err_init(&err);
    mm_buf_init(&names, 1 << 30);
    mm_buf_init(&data, 1 << 30);
    fault_pause(true);
    while (mm_outbox_next(n->r.outbox, row.id, &row, &names, &data, &err)) {
        remember(w, n, &row, &names, &data, &err);
        mm_buf_clear(&names);
        mm_buf_clear(&data);
    }
    if (err.rc != SQLITE_OK) {
        world_fail(w, "reading what was captured: %s", err.msg);
    }
    mm_buf_free(&names);
    mm_buf_free(&data);
    fault_pause(false);
}

int64_t world_outbox_last(struct world_node *n)
{
    struct mm_err err;
    fault_pause(true);
    mm_err_init(&err);
    int64_t last = mm_outbox_last(n->r.outbox, &err);
    fault_pause(false);
    return last;
}

void world_end(struct world *w, struct world_node *n, bool keep)
{
    int64_t before = world_outbox_last(n);
    n->open = false;
    int rc = sqlite3_exec(n->app, keep ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL);
    if (fault_came() || n->hurt) { /* done or not: the outbox tells */
        n->hurt = false;
        sqlite3_exec(n->app, "ROLLBACK", NULL, NULL, NULL); /* an error when it is done already */
        world_remember(w, n, before);
    } else if (rc != SQLITE_OK) {
        world_fail(w, "%s: %s", keep ? "COMMIT" : "ROLLBACK", sqlite3_errmsg(n->app));
    } else if (keep) {
        world_remember(w, n, before);
    }
}

bool world_begin(struct world *w, struct world_node *n)
{
    if (n->bare && !n->r.joined) {
        return false; /* there is no table */
    }
    if (sqlite3_exec(n->app, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK && !fault_came()) {
        world_fail(w, "BEGIN: %s", sqlite3_errmsg(n->app));
    }
    return !w->failed && !sqlite3_get_autocommit(n->app);
}

/* SQLite may have rolled back by itself; or the COMMIT will be refused. */
static void still_open(struct world_node *n)
{
    n->open = !sqlite3_get_autocommit(n->app);
    n->hurt = n->open && (n->hurt || fault_came());
}

void world_write(struct world *w, struct world_node *n, uint64_t seed)
{
    if (n->open) {
        statements(w, n, &seed);
        still_open(n);
    } else if (world_begin(w, n)) {
        statements(w, n, &seed);
        world_end(w, n, pick(&seed, 10) != 0);
    }
}

void world_hold(struct world *w, struct world_node *n, uint64_t seed)
{
    if (n->open) {
        world_end(w, n, pick(&seed, 4) != 0);
    } else if (world_begin(w, n)) {
        statements(w, n, &seed);
        still_open(n);
    }
}
