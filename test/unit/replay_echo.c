/* An own message that comes back: when it may be taken as already folded, and when not.
** marmot_conflicts, the marks of tables that are stale, and what is read from the log later
** depend on it, though the rows are there in any case. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/join.h"
#include "store/policy.h"
#include "store/watch.h"
#include "test/model/cases.h"

/* From here on node 1 does not fold the table. */
static void leave_bag(struct world *w, enum mm_watch_state state, int64_t seq, struct mm_err *err)
{
    struct mm_repl *r = &w->node[1].r;
    mm_watch_set(r->db, "bag", state, "it is left out", err);
    mm_watch_set_joined_seq(r->db, "bag", seq, err);
    mm_targets_forget(r->targets);
}

static int64_t conflicts(struct world *w, int node)
{
    return case_answer(w, node, "SELECT count(*) FROM __marmot__conflict");
}

/* What waits was done again on top of another node's change of the same value; `behind`: the
** echo comes with something that needs a transaction. */
static void on_another_value(bool behind)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 0, "UPDATE plain SET a = 'theirs' WHERE id = 1");
    case_run(&w, 1, "UPDATE plain SET a = 'mine' WHERE id = 1");
    case_publish(&w, 0);
    case_fold(&w, 1);
    bool good = case_pending(&w, 1) == 1 && !mm_pending_at(case_shard(&w, 1)->pending, 0)->clean;
    if (behind) {
        case_run(&w, 0, "INSERT INTO bag VALUES ('before the echo', 1)");
        case_publish(&w, 0);
    }
    case_publish(&w, 1);
    case_fold(&w, 1);
    case_check("an echo of what was not done on the values that it names is a conflict at its origin",
               good && case_pending(&w, 1) == 0 && conflicts(&w, 1) == 1, w.why);
    case_turns(&w, 0);
    case_check("as on any node", conflicts(&w, 0) == 1, w.why);
    case_finish(&w, "and all nodes end equal");
}

/* The verdict outlives a restart between the two. */
static void after_a_restart(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 0, "UPDATE plain SET a = 'theirs' WHERE id = 1");
    case_run(&w, 1, "UPDATE plain SET a = 'mine' WHERE id = 1");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_act(&w, WORLD_RESTART, 1);
    case_turns(&w, 1);
    case_turns(&w, 1);
    case_check("so it is after a restart", case_pending(&w, 1) == 0 && conflicts(&w, 1) == 1, w.why);
    case_finish(&w, "with all nodes equal");
}

/* A change of one's own to a table that left out changes of others: read from the log once
** more it would count twice. */
static void of_a_stale_table(bool behind)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    leave_bag(&w, MM_STALE, case_shard(&w, 1)->pos.seq + 1, &err);
    if (behind) {
        case_run(&w, 0, "INSERT INTO plain VALUES (100, 1, 1)");
        case_publish(&w, 0);
    }
    case_run(&w, 1, "INSERT INTO bag VALUES ('mine', 1)");
    case_publish(&w, 1);
    case_fold(&w, 1);
    case_check("a stale table whose own change came back waits for a copy",
               err.rc == SQLITE_OK && !w.failed && case_pending(&w, 1) == 0 &&
                   mm_watch_joined_seq(w.node[1].app, "bag", &err) == MM_SEQ_BEFORE,
               w.why);
    w.node[1].r.schema_moved = true;
    mm_join_again(&w.node[1].r, &err);
    case_turns(&w, 1);
    case_check("and is not read from the log",
               case_shard(&w, 1)->replay == NULL && mm_watch_get(w.node[1].r.db, "bag", NULL, &err) == MM_STALE &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'mine'") == 1,
               w.why);
    world_close(&w);
}

/* A transaction with a row of a table that waits for a copy and is not sent till then, or that
** is stale: the rest comes back as a conflict. */
static void beside_what_is_left_out(const char *what, enum mm_watch_state state, int64_t seq)
{
    struct world w;
    struct mm_err err;
    char name[200];
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    leave_bag(&w, state, seq, &err);
    int64_t end = net_end(w.net, 1);
    case_run(&w, 1, "BEGIN; UPDATE plain SET a = 'mine' WHERE id = 1; INSERT INTO bag VALUES ('own', 1); COMMIT");
    case_run(&w, 0, "UPDATE plain SET a = 'theirs' WHERE id = 1");
    case_publish(&w, 0);
    case_fold(&w, 1);
    bool good = case_pending(&w, 1) == 1 && !mm_pending_at(case_shard(&w, 1)->pending, 0)->clean;
    case_publish(&w, 1);
    if (state == MM_JOINING) { /* till patience ends */
        case_fold(&w, 1);
        net_now_us += 1000000;
        case_publish(&w, 1);
        case_fold(&w, 1);
        snprintf(name, sizeof name, "nothing beside a table that %s is sent while it is joining", what);
        case_check(name, case_pending(&w, 1) == 1 && net_end(w.net, 1) == end + 1, w.why);
        leave_bag(&w, MM_STALE, seq, &err);
        net_now_us += 1000000;
        case_publish(&w, 1);
    }
    case_fold(&w, 1);
    snprintf(name, sizeof name, "an echo takes nothing from a table that %s", what);
    case_check(name,
               good && !w.failed && case_pending(&w, 1) == 0 &&
                   case_answer(&w, 1, "SELECT a = 'mine' FROM plain WHERE id = 1") == 1 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'own'") == 1,
               w.why);
    case_turns(&w, 0);
    snprintf(name, sizeof name, "nor is anything sent of one that %s, unless it had joined", what);
    case_check(name, case_answer(&w, 0, "SELECT count(*) FROM bag WHERE a = 'own'") == (seq == MM_SEQ_BEFORE), w.why);
    world_close(&w);
}

/* Nothing of a large transaction is to be sent: an empty message takes its place. */
static void all_left_out(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, true);
    case_rest(&w);
    leave_bag(&w, MM_STALE, MM_SEQ_NEVER, &err);
    int64_t end = net_end(w.net, 1);
    case_run(&w, 1, "INSERT INTO bag VALUES ('own', hex(zeroblob(20000)))");
    case_turns(&w, 1);
    case_check("a large transaction of which nothing is sent is one message",
               err.rc == SQLITE_OK && !w.failed && net_end(w.net, 1) == end + 1 && case_pending(&w, 1) == 0 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'own'") == 1,
               w.why);
    world_close(&w);
}

/* Others' changes are not applied: what is undone for a policy stands again when its echo comes
** in the same batch, with what was not sent. */
static void where_positions_are_followed(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    leave_bag(&w, MM_STALE, MM_SEQ_COPY, &err);
    w.node[1].r.positions_only = true;
    case_run(&w, 1, "BEGIN; UPDATE plain SET a = 'mine' WHERE id = 1; INSERT INTO bag VALUES ('own', 1); COMMIT");
    case_run(&w, 0, "BEGIN IMMEDIATE");
    mm_policy_request(w.node[0].app, "plain", "b", MM_POLICY_MAX, &err);
    case_run(&w, 0, "COMMIT");
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_fold(&w, 1);
    case_check("nor does it where positions alone are followed",
               err.rc == SQLITE_OK && !w.failed && case_pending(&w, 1) == 0 &&
                   case_shard(&w, 1)->pos.seq == net_end(w.net, 1) &&
                   case_answer(&w, 1, "SELECT a = 'mine' FROM plain WHERE id = 1") == 1 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'own'") == 1,
               w.why);
    world_close(&w);
}

/* What was not undone stands already: nothing of it is put there once more. */
static void where_nothing_is_undone(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    w.node[1].r.positions_only = true;
    case_run(&w, 1, "INSERT INTO bag VALUES ('own', 1)");
    case_run(&w, 0, "INSERT INTO plain VALUES (100, 1, 1)");
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_fold(&w, 1);
    case_check("nor is anything put there twice",
               !w.failed && case_pending(&w, 1) == 0 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'own'") == 1,
               w.why);
    world_close(&w);
}

/* A table that is about to be read from the log, up to this node's place: an own change of it that
** came back before the reading had begun would be below that place, and stand there twice. The
** reading cannot begin since the application holds the lock. */
static void before_a_second_reading(bool parts, bool empty)
{
    static const struct {
        int number;
        const char *name;
    } bags[] = { { 4, "bag" }, { 7, "ubag" } };
    char name[100];
    struct world w;
    case_open(&w, empty ? 2 : 1, 2, parts);
    int k = empty && mm_watch_shard("bag", 2) != 2;
    int shard = empty ? 2 : 1;
    case_rest(&w);
    bool good = mm_watch_shard(bags[k].name, w.shards) == shard && world_again(&w, &w.node[1], bags[k].number);
    good = good && (w.node[1].r.shard[shard - 1].pos.seq == 0) == empty;
    good = good && case_run(&w, 1, "INSERT INTO \"%w\" VALUES ('own', CAST(zeroblob(%d) AS TEXT))", bags[k].name,
                            parts ? 9000 : 1);
    good = good && case_run(&w, 1, "BEGIN IMMEDIATE; UPDATE plain SET a = 'open' WHERE id = 1");
    for (int j = 0; j < 3; j++) { /* parts go on when those before are acknowledged */
        case_publish(&w, 1);
    }
    case_fold(&w, 1);
    size_t waits = mm_pending_count(w.node[1].r.shard[shard - 1].pending);
    good = good && case_run(&w, 1, "COMMIT");
    case_rest(&w);
    (void)snprintf(name, sizeof name, "an echo waits for the second reading of its table%s%s",
                   parts ? ", in parts" : "", empty ? ", in a shard with nothing else" : "");
    case_check(name,
               good && !w.failed && waits == 1 && w.node[1].r.shard[shard - 1].replay == NULL &&
                   case_answer(&w, 1, "SELECT count(*) FROM \"%w\" WHERE a = 'own'", bags[k].name) == 1,
               w.why);
    case_finish(&w, "and no node has it twice");
}

/* The same where the lock is free again before the batch, which begins with another's message. */
static void in_a_batch_before_a_second_reading(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    bool good = world_again(&w, &w.node[1], 4);
    case_run(&w, 1, "INSERT INTO bag VALUES ('own', 1)");
    case_run(&w, 0, "UPDATE plain SET b = 'theirs' WHERE id = 2");
    case_publish(&w, 0);
    case_run(&w, 1, "BEGIN IMMEDIATE; UPDATE plain SET a = 'open' WHERE id = 1");
    case_publish(&w, 1);
    case_act(&w, WORLD_DELIVER, 1);
    case_run(&w, 1, "COMMIT");
    case_act(&w, WORLD_APPLY, 1);
    case_act(&w, WORLD_APPLY, 1);
    case_check("an echo waits for the second reading behind another's message, too",
               good && !w.failed && case_answer(&w, 1, "SELECT b = 'theirs' FROM plain WHERE id = 2") == 1 &&
                   case_shard(&w, 1)->pos.seq == net_end(w.net, 1) - 1,
               w.why);
    case_rest(&w);
    case_check("and stands once after it", case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'own'") == 1, w.why);
    case_finish(&w, "with all nodes equal");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    before_a_second_reading(false, false);
    before_a_second_reading(true, false);
    before_a_second_reading(false, true);
    in_a_batch_before_a_second_reading();
    on_another_value(false);
    on_another_value(true);
    after_a_restart();
    of_a_stale_table(false);
    of_a_stale_table(true);
    beside_what_is_left_out("never joined", MM_STALE, MM_SEQ_NEVER);
    beside_what_is_left_out("waits to be compared with a copy", MM_JOINING, MM_SEQ_COPY);
    beside_what_is_left_out("waits to be merged", MM_JOINING, MM_SEQ_EMPTY);
    beside_what_is_left_out("had joined and is stale", MM_STALE, MM_SEQ_BEFORE);
    all_left_out();
    where_positions_are_followed();
    where_nothing_is_undone();
    return case_end();
}
