/* What was never captured, where something fails while it is looked for: the next look finds it. */
#include <stdio.h>

#include "base/log.h"
#include "test/model/cases.h"

/* A step of the work after so many that went well; `seed` is that of a look for what was not captured. */
static bool reach(struct world *w, enum fault kind, long nth, int stages, bool *came)
{
    const struct world_step s = { WORLD_BRING, 0, 3 };
    for (int k = 0; k < stages && !w->failed; k++) {
        world_act(w, &s);
    }
    *came = world_act_faulty(w, &s, kind, nth);
    return !w->failed;
}

/* Each `step`th place up to `most`. */
static void sweep(enum fault kind, int stages, long step, long most, const char *name)
{
    struct world w;
    bool came = true;
    long nth = 1;
    long tried = 0;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 1);
    case_run(&w, 0, "INSERT INTO plain VALUES (7, 'waits', 'x')");
    for (; came && !w.failed && nth <= most; nth += step, tried++) {
        if (!w.node[0].past) { /* it came too late to matter */
            const struct world_step past = { WORLD_PAST, 0, (uint64_t)nth };
            world_act(&w, &past);
        }
        for (int k = 0; k < 5 && w.node[0].bring.stage != BRING_NOT && !w.failed; k++) {
            case_act(&w, WORLD_BRING, 0);
        }
        reach(&w, kind, nth, stages, &came);
    }
    printf("# %s: %ld %ss\n", name, tried, fault_name(kind));
    case_check(name, !w.failed && tried > 20, w.why);
    case_finish(&w, "and all end equal");
}

int main(void)
{
    static const char *const names[] = { "a copy beside the file that fails", "a comparison that fails",
                                         "a step of writing down that fails" };
    mm_log_silence();
    world_prepare();
    for (int k = 0; k < 3; k++) {
        sweep(FAULT_MEMORY, k, 1, k == 1 ? 200 : 60, names[k]); /* while all is being opened */
        sweep(FAULT_STEP, k, 7, 1000, names[k]);
    }
    return case_end();
}
