/* What is written past the capture, and the finding of it: the steps of
** ext/snapshot/reconcile.c on a copy that world_bring.c has compared. */
#include "snapshot/reconcile.h"
#include "test/model/world_int.h"

bool world_may_pass(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    int shard = mm_watch_shard("born", w->shards) - 1;
    int64_t seq = mm_watchlist_seq(n->r.db, "born", &err);
    bool kept = w->epoch > 1 || (w->kept[0] != NULL && seq > 0 && w->kept[0]->shard[shard].seq >= seq);
    return !w->born || kept;
}

void world_past(struct world *w, struct world_node *n, uint64_t seed)
{
    /* Else nothing could be compared with it. */
    if (n->open || w->kept[0] == NULL || !n->r.joined || !world_may_pass(w, n)) {
        return;
    }
    sqlite3 *db = world_connect(n->path);
    unsigned count = 1 + (unsigned)(world_random(&seed) % 3);
    world_need(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK, sqlite3_errmsg(db));
    for (unsigned k = 0; k < count && !sqlite3_get_autocommit(db); k++) {
        world_statement(w, n, db, &seed);
    }
    if (!sqlite3_get_autocommit(db)) {
        world_need(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK, sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    n->bring.passed = n->bring.passed || n->bring.stage == BRING_READY;
    n->past = n->past_again = w->jumped = true;
}

/* The node was held all the time; what its application wrote meanwhile is among what is remembered. */
bool world_mend_step(struct world *w, struct world_node *n, const char *copy, struct mm_err *err)
{
    struct world_bring *b = &n->bring;
    struct mm_repl_options o = world_options(w, n);
    if (b->mender == NULL) {
        b->mender = mm_reconcile_open(copy, NULL, &o, &b->diff, b->mend_rows, err);
    }
    int64_t before = world_outbox_last(n);
    bool done = b->mender != NULL && mm_reconcile_step(b->mender, &n->r, err);
    world_remember(w, n, before);
    if (done && mm_reconcile_complete(b->mender) && !fault_dead()) {
        n->past = n->past_again;
    }
    w->mended += done ? (long)mm_reconcile_rows(b->mender) : 0;
    return done;
}
