/* What a node takes from a snapshot and the log: the real functions of ext/snapshot
** in the order in which its task and the node's loop call them. The copy and the
** difference are of a thread of their own there, over files of their own: here a step
** at a time, between which the application, the other nodes and the log go on. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/gate.h"
#include "snapshot/begin.h"
#include "snapshot/install.h"
#include "snapshot/reconcile.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"

static void copy_path(const struct world_node *n, char out[160])
{
    snprintf(out, 160, "%.120s-marmot-copy", n->path);
}

void world_bring_end(struct world_node *n)
{
    char path[160];
    struct world_bring *b = &n->bring;
    if (b->stage == BRING_OPEN) {
        mm_scratch_close(&b->scratch);
    }
    mm_reconcile_close(b->mender);
    mm_diff_free(&b->diff);
    copy_path(n, path);
    memory_remove(path);
    memset(b, 0, sizeof *b);
}

void world_bring_due(struct world_node *n, bool lost)
{
    lost = lost || n->bring.lost;
    world_bring_end(n);
    n->bring.due = n->bring.held = true;
    n->bring.lost = lost;
    world_node_follow_again(n);
}

bool world_astray(const struct world *w, struct world_node *n)
{
    bool any = false;
    for (int k = 0; k < w->shards && n->r.shard != NULL; k++) { /* it may not be open */
        const struct mm_shard *s = &n->r.shard[k];
        bool found = s->following && s->checked && s->pos.seq > 0; /* what it ends with is in the log once more */
        n->astray[k] = fault_dead() || (s->pos.seq >= n->astray[k] && !found) ? n->astray[k] : 0;
        any = any || n->astray[k] != 0;
    }
    return any;
}

void world_bring_look(struct world *w, struct world_node *n)
{
    (void)world_astray(w, n);
    if (!n->r.joined && n->r.shard != NULL) {
        world_bring_due(n, false);
        return;
    }
    if (world_epoch_due(w, n)) {
        world_bring_due(n, true);
        return;
    }
    for (int k = 0; n->r.shard != NULL && k < n->r.nshard && w->lost && !n->bring.lost; k++) {
        if (n->r.shard[k].pos.seq > net_end(w->net, k + 1)) {
            world_bring_due(n, true);
        }
    }
}

/* It goes on as after a connection: reads its database, the ends of the streams, and follows. */
static void go_on(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    bool held = n->bring.held;
    world_bring_end(n);
    if (!held) {
        return;
    }
    if (mm_repl_reload(&n->r, &err) != SQLITE_OK && !fault_came()) {
        world_fail(w, "node %lld after a copy: %s", (long long)n->id, err.msg);
    }
    world_node_ends(w, n);
    world_node_follow_again(n);
    world_bring_look(w, n);
}

static void hold(struct world_node *n)
{
    if (!n->bring.held) {
        n->bring.held = true;
        world_node_follow_again(n);
    }
}

/* How much the server has let go. */
static int64_t dropped(const struct world *w)
{
    int64_t sum = 0;
    for (int k = 0; k < w->shards; k++) {
        sum += net_dropped(w->net, k + 1);
    }
    return sum;
}

static void failed(struct world *w, struct world_node *n, const char *what, const struct mm_err *err)
{
    /* Its log ended, or forgot what the copy or the node is of, meanwhile; or an epoch is begun that does not
    ** count yet. */
    bool begun = w->seeder != NULL && w->epoch == 1;
    bool left = err->rc == SQLITE_NOTFOUND &&
                (begun || w->epoch > n->bring.epoch || dropped(w) != n->bring.dropped || world_astray(w, n));
    /* A row was written past the capture, behind the comparison: that is made anew. */
    bool passed = (err->rc & 0xff) == SQLITE_CONSTRAINT && n->bring.passed;
    bool altered = (err->rc & 0xff) == SQLITE_SCHEMA && n->bring.altered;
    if (!fault_came() && !left && !passed && !altered) {
        world_fail(w, "%s of node %lld: %d %s", what, (long long)n->id, err->rc, err->msg);
    }
    go_on(w, n);
}

static void at_ends(struct world *w, const struct world_node *n, int64_t *at)
{
    for (int k = 0; k < w->shards; k++) {
        int64_t here = n->r.shard[k].pos.seq;
        at[k] = net_end(w->net, k + 1);
        at[k] = at[k] > here || n->bring.lost ? at[k] : here;
    }
}

static bool ahead(const struct world *w, const struct mm_manifest *m, const struct world_node *n)
{
    bool any = false;
    for (int k = 0; k < w->shards; k++) {
        any = any || m->shard[k].seq > n->r.shard[k].pos.seq;
    }
    return any;
}

/* What mm_node_task_begin asks, and the tables' step. */
static bool may_begin(struct world *w, struct world_node *n, bool tables)
{
    bool may = !n->r.reload_needed && (w->kept[0] != NULL || !n->r.joined);
    for (int k = 0; k < n->r.nshard && tables; k++) {
        const struct mm_shard *s = &n->r.shard[k];
        may = may && s->following && s->checked && s->replay == NULL;
    }
    return may && !(tables && n->bring.due);
}

static void begin(struct world *w, struct world_node *n, bool first, uint64_t seed)
{
    static const struct mm_bus_options bus = { 0 };
    struct world_bring *b = &n->bring;
    char path[160];
    int64_t at[MM_SNAPSHOT_SHARDS];
    struct mm_err err;
    mm_err_init(&err);
    b->tables = !b->due && mm_watch_any_needs_copy(n->r.db, &err);
    /* Of the older one when the newest cannot be read. */
    int which = w->kept[1] != NULL && world_random(&seed) % 4 == 0;
    b->mend = n->past && !b->due && !b->tables && (!first || seed % 4 != 0);
    b->mend_rows = (int64_t)(seed % 3);
    if (!may_begin(w, n, b->tables) || (b->mend && n->r.move_due != 0)) {
        return;
    }
    if (!n->r.joined && !world_join(w, n)) {
        return;
    }
    if (w->kept[0] != NULL && (world_snapshot_usable(w, w->kept[which]) || w->kept[1] != NULL)) {
        which = world_snapshot_usable(w, w->kept[which]) ? which : !which;
    }
    which = w->epoch > 1 && w->kept[which]->epoch < w->epoch ? 0 : which;
    const struct mm_manifest *m = w->kept[which];
    bool from_nothing = m == NULL || !world_snapshot_usable(w, m);
    bool exact = b->tables || b->mend;
    if (from_nothing ? n->r.joined || w->epoch > 1 : exact && ahead(w, m, n)) { /* it would wait for the node */
        return;
    }
    world_node_flush(w, n);
    if (w->failed || (exact && mm_repl_dirty(&n->r))) { /* it would wait for what the file does not say yet */
        return;
    }
    copy_path(n, path);
    struct mm_scratch_options o = { path, NULL, world_options(w, n), &bus, &b->work, exact, b->mend };
    b->stage = BRING_OPEN;
    b->epoch = from_nothing ? 1 : m->epoch;
    b->dropped = dropped(w);
    if (from_nothing) {
        struct mm_err none;
        mm_err_init(&none);
        mm_begin_empty(&b->scratch, &o, n->path, WORLD_CLUSTER, &none, &err);
        if ((err.rc & 0xff) == SQLITE_NOTFOUND) { /* the log no longer begins with its founding: later */
            go_on(w, n);
            return;
        }
    } else {
        memory_copy(world_kept_path[which], path);
        for (int k = 0; k < w->shards; k++) {
            at[k] = m->shard[k].seq;
        }
        if (mm_scratch_open(&b->scratch, &o, m, &err) == SQLITE_OK &&
            mm_begin_columns(&b->scratch, n->path, NULL, o.alike, &err) == SQLITE_OK &&
            mm_begin_tables(&b->scratch, n->path, NULL, &err) == SQLITE_OK) {
            mm_scratch_replay(&b->scratch, at, &err);
        }
    }
    if (exact && err.rc == SQLITE_OK) {
        mm_scratch_approach(&b->scratch, n->path, NULL, &err);
    } else if (err.rc == SQLITE_OK && mm_scratch_ends(&b->scratch, at, &err) == SQLITE_OK) {
        mm_scratch_replay(&b->scratch, at, &err);
    }
    if (err.rc != SQLITE_OK) {
        failed(w, n, "a copy beside the file", &err);
    }
}

/* A cluster that began with rows is joined with them, as nothing_waits of ext/snapshot/task.c has it. */
static bool waits_for_snapshot(const struct world_node *n)
{
    bool any = false;
    for (int k = 0; k < n->bring.diff.n && !n->r.joined; k++) {
        const struct mm_diff_table *d = &n->bring.diff.table[k];
        any = any || (d->mode == MM_DIFF_ABSENT && d->waits && (d->captured || d->unknown));
    }
    return any;
}

static void compare(struct world *w, struct world_node *n)
{
    struct world_bring *b = &n->bring;
    struct mm_diff_options o = { n->path, NULL, world_options(w, n), &b->work, b->mend, b->tables };
    int64_t at[MM_SNAPSHOT_SHARDS];
    struct mm_err err;
    mm_err_init(&err);
    hold(n);
    world_node_flush(w, n);
    int64_t before = world_outbox_last(n);
    if (w->failed || n->r.reload_needed || mm_repl_dirty(&n->r) ||
        (!b->mend && mm_join_compare(&n->r, &err) != SQLITE_OK)) {
        return;
    }
    world_remember(w, n, before);
    at_ends(w, n, at);
    for (int k = 0; k < w->shards && (b->tables || b->mend); k++) {
        at[k] = n->r.shard[k].pos.seq;
    }
    n->past_again = n->past_again && !b->mend;
    mm_scratch_replay(&b->scratch, at, &err);
    mm_diff_run(&b->diff, &o, &b->scratch, &err);
    b->upto = world_outbox_last(n);
    bool waits = waits_for_snapshot(n);
    for (int k = 0; k < w->shards && err.rc == SQLITE_OK && !w->failed && !b->tables && !b->mend && !waits; k++) {
        world_check_content(w, b->scratch.r.db, k, b->scratch.r.shard[k].pos.seq, "a copy");
    }
    mm_scratch_close(&b->scratch);
    b->stage = BRING_READY;
    if (err.rc != SQLITE_OK) {
        failed(w, n, "the comparison", &err);
    } else if (waits) {
        go_on(w, n);
    }
}

/* What becomes of rows of its own in a table that joins alone. */
static enum world_rejoin gives(const struct world_node *n)
{
    return n->again != REJOIN_NOT ? n->again : n->join;
}

/* As mm_node_judge does, and for tables the choice of mm_node_tables_ready. */
static int judge(struct world *w, struct world_node *n, bool *take, struct mm_err *err)
{
    const struct world_bring *b = &n->bring;
    int count = 0;
    for (int k = 0; k < b->diff.n && err->rc == SQLITE_OK; k++) {
        const struct mm_diff_table *d = &b->diff.table[k];
        bool differs = d->mode == MM_DIFF_KEYS || d->mode == MM_DIFF_ALL;
        bool lacks = d->mode == MM_DIFF_ABSENT || d->mode == MM_DIFF_OTHER;
        bool whole = n->r.joined ? mm_watch_get(n->r.db, d->name, NULL, err) == MM_WATCHED : d->captured;
        bool given = d->before || d->empty || d->rows == 0 || !differs || gives(n) != REJOIN_NOT;
        take[k] = d->joins && (d->mode == MM_DIFF_SAME || differs) && given;
        count += take[k];
        if (!n->r.joined && d->captured && differs && d->rows > 0 && n->join == REJOIN_NOT) {
            world_fail(w, "node %lld: rows of table %s that it never had", (long long)n->id, d->name);
        }
        if (!b->tables && lacks && whole && w->shapes) {
            return -1; /* until it has the columns that others have, or a copy those that it has */
        }
        if (!b->tables && lacks && mm_watch_get(n->r.db, d->name, NULL, err) == MM_WATCHED) {
            world_fail(w, "node %lld: no copy holds table %s: %s", (long long)n->id, d->name, d->why);
        }
    }
    return count;
}

static void install(struct world *w, struct world_node *n)
{
    struct world_bring *b = &n->bring;
    char path[160];
    bool take[WORLD_ALL + 1];
    int64_t given_up = 0;
    struct mm_err err;
    copy_path(n, path);
    bool fresh = n->r.joined && b->epoch > n->r.epoch && !b->tables && !b->mend;
    bool merges = b->tables     ? gives(n) == REJOIN_MERGE
                  : n->r.joined ? fresh && n->rejoin == REJOIN_MERGE
                                : n->join == REJOIN_MERGE;
    struct mm_install in = {
        .copy = path,
        .diff = &b->diff,
        .cluster_id = WORLD_CLUSTER,
        .work = &b->work,
        .watch_all = n->newcomer,
        .fresh = fresh,
        .give_up = fresh && n->rejoin == REJOIN_ADOPT,
        .merge = merges,
        .upto = b->upto,
        .take = b->tables ? take : NULL,
    };
    mm_err_init(&err);
    world_need(b->diff.n <= WORLD_ALL, "tables");
    int count = judge(w, n, take, &err);
    if (count < 0) {
        bool due = b->due;
        bool lost = b->lost;
        go_on(w, n);
        if (due) { /* also where it could not even read its database */
            world_bring_due(n, lost);
        }
        return;
    }
    if (n->r.reload_needed || w->failed) { /* the node reads its database anew before it does anything */
        if (mm_repl_reload(&n->r, &err) != SQLITE_OK && !fault_came()) {
            world_fail(w, "reload: %s", err.msg);
        }
        return;
    }
    bool done = true;
    int64_t before = world_outbox_last(n);
    if (b->mend) {
        done = world_mend_step(w, n, path, &err);
    } else if (err.rc == SQLITE_OK && (count > 0 || !b->tables)) {
        mm_gate_enter();
        mm_install_run(&n->r, &in, &given_up, &err);
        mm_gate_leave();
    }
    if ((err.rc & 0xff) == SQLITE_BUSY) {
        w->busy++;
    } else if (err.rc == SQLITE_MISMATCH && in.fresh && n->rejoin == REJOIN_NOT) {
        world_epoch_refused(n, (uint64_t)before);
        go_on(w, n);
    } else if (err.rc != SQLITE_OK) {
        failed(w, n, b->mend ? "what was not captured" : "taking the copy's content", &err);
    } else if (done && b->mend) {
        go_on(w, n);
    } else if (done) {
        w->jumped = true;
        if (in.fresh && n->rejoin != REJOIN_NOT) {
            world_epoch_rejoined(w, n);
        }
        world_remember(w, n, before); /* the rows that existed only here */
        if (!b->tables && !fault_dead()) {
            memset(n->astray, 0, sizeof n->astray);
        }
        w->brought++;
        go_on(w, n);
    }
}

void world_bring(struct world *w, struct world_node *n, bool first, uint64_t seed)
{
    struct world_bring *b = &n->bring;
    if (b->stage == BRING_OPEN) {
        compare(w, n);
    } else if (b->stage == BRING_READY) {
        install(w, n);
    } else if (first || world_brings(w, n)) {
        begin(w, n, first, seed);
    }
}

bool world_brings(const struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    return n->bring.stage != BRING_NOT || n->bring.due || n->past ||
           (w->again && mm_watch_any_needs_copy(n->r.db, &err));
}
