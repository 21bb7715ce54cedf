/* Steps in which something goes wrong once. */
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"

static void die(void *arg)
{
    const struct world_node *n = arg;
    memory_die(n->path);
}

bool world_act_faulty(struct world *w, const struct world_step *step, enum fault kind, long nth)
{
    struct world_node *n = world_node_of(w, step);
    bool past = n->past;
    fault_arm(kind, nth, die, n);
    world_act(w, step);
    bool came = fault_came();
    if (fault_dead()) {
        world_node_close(n);
        memory_died(n->path);
        n->past = n->past_again = past || n->past; /* what was found of it may have died, too: a commit is not synced */
    }
    fault_arm(FAULT_NONE, 0, NULL, NULL);
    if (came && (n->r.db == NULL || step->act == WORLD_RESTART || kind == FAULT_DEATH)) {
        world_node_restart(w, n);
    }
    if (!w->failed && !sqlite3_get_autocommit(n->r.db)) {
        world_fail(w, "the connection was left in a transaction");
    }
    return came;
}

/* While a copy's content is written something may go wrong. */
static enum fault mishap(struct world_node *n, const struct world_step *step)
{
    static const enum fault kinds[] = { FAULT_STEP, FAULT_DEATH, FAULT_WRITE, FAULT_MEMORY };
    uint64_t seed = step->seed ^ 0x6ad;
    unsigned pick = (unsigned)(world_random(&seed) % 12);
    return step->act == WORLD_BRING && n->bring.stage == BRING_READY && pick < 4 ? kinds[pick] : FAULT_NONE;
}

void world_step(struct world *w, const struct world_step *step)
{
    enum fault kind = w->failed ? FAULT_NONE : mishap(world_node_of(w, step), step);
    if (kind == FAULT_NONE) {
        world_act(w, step);
    } else {
        (void)world_act_faulty(w, step, kind, 1 + (long)(step->seed % 150));
    }
    world_check_now(w, step);
}
