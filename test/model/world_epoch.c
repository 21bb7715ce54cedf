/* A new epoch: the calls of ext/snapshot/seed.c without its store, whose part the newest
** snapshot here has; and how the others come in, as ext/node_link.c and node_rejoin.c have it. */
#include <string.h>

#include "repl/epoch.h"
#include "snapshot/take.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"

static const struct mm_epoch *mine(const struct world_node *n)
{
    static struct mm_epoch e;
    e = (struct mm_epoch){ .n = 2, .node = n->id, .token = 1 };
    return &e;
}

/* Not where the harness could not tell what counts: copies of files, a log that lost its end, a table whose
** first message the epoch might lack (what it holds then is in no message). Once;
** who was broken off in it goes on with it. */
static bool may(const struct world *w, const struct world_node *n)
{
    return w->epoch == 1 && !w->copied && !w->lost && !w->born && !n->open && !n->past && n->r.joined &&
           !n->r.reload_needed && n->r.move_due == 0 && !n->bring.held && n->bring.stage == BRING_NOT &&
           (w->seeder == NULL || w->seeder == n);
}

static void claim(struct world *w, struct world_node *n, struct mm_bus *bus, struct mm_err *err)
{
    struct mm_epochs seen;
    if (mm_epoch_look(bus, "sim", 1, &seen, err) != SQLITE_OK) {
        return;
    }
    if (seen.newest.n != 0 ? seen.newest.node != n->id : !mm_epoch_begin(bus, "sim", mine(n), err) && !fault_came()) {
        world_fail(w, "epoch 2 is there already");
    }
}

/* The message with which it begins, in each stream, behind what is there. */
static void append_all(struct world *w, struct world_node *n, const struct mm_manifest *m, struct mm_position *pos,
                       struct mm_err *err)
{
    static const struct mm_bus_options options = { 0 };
    struct mm_msg_place place[WORLD_SHARDS];
    struct mm_msg msg = { .kind = MM_MSG_SEEDED, .epoch = 2, .node = n->id, .at_ms = mm_clock_wall_ms() };
    for (int k = 0; k < w->shards; k++) {
        place[k].seq = m->shard[k].seq;
        memcpy(place[k].digest, m->shard[k].digest, sizeof place[k].digest);
    }
    msg.control.cluster_id = WORLD_CLUSTER;
    msg.control.settings = "{}";
    msg.control.from_epoch = m->epoch;
    msg.control.place = place;
    msg.control.nplace = (size_t)w->shards;
    struct mm_bus *bus = mm_bus_open(&options, err);
    claim(w, n, bus, err);
    for (int k = 0; k < w->shards && err->rc == SQLITE_OK; k++) {
        mm_epoch_append(bus, &n->r.shard[k], &msg, &pos[k], err);
    }
    mm_bus_close(bus);
}

/* The others cannot fold on from the first of its messages, whether it counts or not. */
static void begun(struct world *w, struct world_node *n)
{
    w->seeder = n;
    w->alone = w->jumped = true; /* no file is copied until it counts */
    for (int k = 0; k < w->nnode; k++) {
        w->node[k].has_backup = false;
    }
}

/* It counts. */
static void settled(struct world *w, struct world_node *n, const struct mm_manifest *m, const struct mm_position *pos,
                    uint64_t seed)
{
    static const enum world_rejoin asked[] = { REJOIN_NOT, REJOIN_NOT,   REJOIN_NOT,
                                               REJOIN_NOT, REJOIN_ADOPT, REJOIN_MERGE };
    for (int k = 0; k < w->shards; k++) {
        world_advance(w, k, &n->base[k], n->r.shard[k].pos.seq);
        naive_clone(&w->seed[k].base, &n->base[k]);
        w->seed[k].base.epoch = 2;
        w->seed[k].at = w->seed[k].base.seq = pos[k].seq;
    }
    world_keep(w, m);
    w->epoch = 2;
    w->alone = net_strays(w->net);
    for (int k = 0; k < w->nnode; k++) {
        w->node[k].rejoin = asked[k == (int)(n - w->node) ? 0 : world_random(&seed) % 6];
    }
}

static bool counts(struct world_node *n)
{
    struct mm_epochs seen;
    struct mm_err err;
    mm_err_init(&err);
    return mm_epoch_look(n->r.bus, "sim", 1, &seen, &err) == SQLITE_OK && seen.done.n == 2;
}

void world_seed_epoch(struct world *w, struct world_node *n, uint64_t seed)
{
    struct mm_manifest m;
    struct mm_position pos[WORLD_SHARDS];
    struct mm_work work = { 0 };
    struct mm_take t = { n->path, NULL, world_fresh_path, world_options(w, n), &work, false };
    struct mm_err err;
    mm_err_init(&err);
    if (!may(w, n)) {
        return;
    }
    memory_remove(world_fresh_path);
    world_node_flush(w, n);
    if (w->failed || n->r.reload_needed || mm_repl_dirty(&n->r) || mm_take_copy(&t, &m, &err) != SQLITE_OK) {
        memory_remove(world_fresh_path);
        return; /* whoever may take no snapshot may not seed */
    }
    begun(w, n);
    append_all(w, n, &m, pos, &err);
    mm_take_to_epoch(&t, pos, &m, &err);
    mm_epoch_finish(n->r.bus, "sim", mine(n), "snapshot", &err);
    fault_pause(true);
    bool done = counts(n) && !w->failed;
    if (done) {
        settled(w, n, &m, pos, seed);
    }
    fault_pause(false);
    if (done) {
        mm_repl_enter_epoch(&n->r, pos, &err);
        world_node_ends(w, n);
    }
    if (err.rc != SQLITE_OK && !fault_came()) {
        world_fail(w, "epoch 2 of node %lld: %d %s", (long long)n->id, err.rc, err.msg);
    } else if (err.rc != SQLITE_OK && done && n->r.epoch < 2) { /* it follows like the others */
        world_bring_due(n, true);
    }
    world_node_follow_again(n);
    memory_remove(world_fresh_path);
}

bool world_epoch_due(struct world *w, struct world_node *n)
{
    const struct mm_join_options o = world_join_options(n);
    struct mm_err err;
    mm_err_init(&err);
    return w->epoch > 1 && n->r.joined && n->r.db != NULL && mm_join_check(&n->r, &o, &err) == MM_JOIN_EPOCH;
}

/* What is here and not in the epoch: it may be given up, or what only exists here merged. */
void world_epoch_refused(struct world_node *n, uint64_t seed)
{
    n->rejoin = seed % 2 == 0 ? REJOIN_ADOPT : REJOIN_MERGE;
}

/* Of what it has sent the cluster need not have all any more. */
void world_epoch_rejoined(struct world *w, struct world_node *n)
{
    for (size_t k = 0; k < w->ncommit; k++) {
        w->commit[k].optional = w->commit[k].optional || w->commit[k].node == (int)(n - w->node);
    }
    n->rejoin = REJOIN_NOT;
    w->rejoined++;
}
