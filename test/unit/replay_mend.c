/* What was never captured, where something fails while it is looked for: the next look finds it. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "repl/join.h"
#include "store/policy.h"
#include "test/model/cases.h"
#include "test/model/world_int.h"

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

/* The server loses the node's own message, another one takes its place, and the node does not know
** yet when somebody asks for what was not captured: what it has more than the copy is not that. */
static void refilled(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 1);
    int64_t end = net_end(w.net, 1);
    case_run(&w, 0, "INSERT INTO bag VALUES ('case', 0)");
    case_turns(&w, 0);
    bool good = case_shard(&w, 0)->pos.seq == end + 1;
    good = case_lose(&w, end, 0) && good;
    case_run(&w, 1, "INSERT INTO plain VALUES (60, 'other', 1)");
    for (int k = 0; k < 20 && net_end(w.net, 1) < end + 1; k++) {
        net_now_us += 300000;
        case_turns(&w, 1);
    }
    good = good && net_end(w.net, 1) == end + 1 && case_shard(&w, 0)->pos.seq == end + 1;
    w.node[0].past = true;
    const struct world_step look = { WORLD_BRING, 0, 1 };
    world_act(&w, &look);
    good = good && w.node[0].bring.stage == BRING_OPEN && w.node[0].bring.mend;
    case_check("a copy follows a log that was filled again", good && !w.failed, w.why);
    world_act(&w, &look);
    case_check("it is not what the node has folded", !w.failed && w.node[0].bring.stage == BRING_NOT, w.why);
    case_act(&w, WORLD_CUT, 0);
    world_settle(&w);
    case_check("what the server lost is sent again, once",
               !w.failed && case_answer(&w, 0, "SELECT count(*) FROM bag WHERE a = 'case'") == 1 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'case'") == 1,
               w.why);
    case_finish(&w, "all end equal");
}

/* While it is looked for what was not captured, the application changes a column whose policy
** keeps the cluster's value: undone, its change leaves nothing behind. */
static void policy_meanwhile(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_run(&w, 0, "INSERT INTO names VALUES ('case', 1, 1)");
    bool good = world_begin(&w, &w.node[0]);
    mm_policy_request(w.node[0].app, "names", "n", MM_POLICY_MIN, &err);
    world_end(&w, &w.node[0], true);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 1);
    w.node[0].past = true;
    const struct world_step look = { WORLD_BRING, 0, 1 };
    world_act(&w, &look);
    world_act(&w, &look);
    good = good && err.rc == SQLITE_OK && w.node[0].bring.stage == BRING_READY && w.node[0].bring.mend;
    case_run(&w, 0, "UPDATE names SET n = 4 WHERE k = 'case'");
    for (int k = 0; k < 5 && w.node[0].bring.stage != BRING_NOT && !w.failed; k++) {
        world_act(&w, &look);
    }
    case_check("a change meets the work on what was not captured", good && !w.failed && !w.node[0].past, w.why);
    case_rest(&w);
    case_check("the policy has its way", case_answer(&w, 0, "SELECT n FROM names WHERE k = 'case'") == 1, w.why);
    case_finish(&w, "all end equal");
}

/* What a table begins with is what stands there without what is pending: of that more may be gone
** again, uncaptured, than there was else. */
static void less_than_nothing(void)
{
    struct world w;
    struct mm_err err;
    struct mm_msg_table base;
    static const uint8_t none[sizeof base.content];
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 1);
    case_run(&w, 0, "DELETE FROM bag");
    case_rest(&w);
    case_run(&w, 0, "INSERT INTO bag VALUES ('case', 1)");
    sqlite3 *past = world_connect(w.node[0].path);
    bool good = sqlite3_exec(past, "DELETE FROM bag", NULL, NULL, NULL) == SQLITE_OK;
    sqlite3_close(past);
    w.node[0].past = w.node[0].past_again = w.jumped = true;
    struct mm_target *t = mm_targets_get(w.node[0].r.targets, "bag", &err);
    good = good && t != NULL && mm_join_base(&w.node[0].r, t, &base, &err) == SQLITE_OK;
    case_check("a table never begins with less than no rows",
               good && base.rows == 0 && memcmp(base.content, none, sizeof none) == 0, err.msg);
    case_finish(&w, "all end equal");
}

int main(void)
{
    static const char *const names[] = { "a copy beside the file that fails", "a comparison that fails",
                                         "a step of writing down that fails" };
    mm_log_silence();
    world_prepare();
    refilled();
    policy_meanwhile();
    less_than_nothing();
    for (int k = 0; k < 3; k++) {
        sweep(FAULT_MEMORY, k, 1, k == 1 ? 200 : 60, names[k]); /* while all is being opened */
        sweep(FAULT_STEP, k, 7, 1000, names[k]);
    }
    return case_end();
}
