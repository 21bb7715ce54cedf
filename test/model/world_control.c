/* Control messages that a node writes beside what its application does. */
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
