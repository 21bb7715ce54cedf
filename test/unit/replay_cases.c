/* Cases of the simulator that chance meets seldom, or that its comparisons
** cannot see since everything ends equal all the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/join.h"
#include "store/policy.h"
#include "store/watch.h"
#include "test/model/cases.h"

enum { COMMITS = 12 };

/* One transaction of the application. */
static bool put_row(struct world *w, const char *table, int id)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_db_exec(w->node[0].app, &err, "REPLACE INTO main.\"%w\" VALUES (%d, 'case', 0)", table, id);
    return err.rc == SQLITE_OK;
}

/* Where nothing goes wrong each transaction is sent once. */
static void sent_once(void)
{
    struct world w;
    char why[640];
    case_open(&w, 1, 0, false);
    bool good = true;
    for (int k = 0; k < COMMITS; k++) {
        good = good && put_row(&w, "plain", 100 + k);
    }
    for (int k = 0; k < 3; k++) {
        case_act(&w, WORLD_TURN, 0);
    }
    int64_t end = net_end(w.net, 1);
    snprintf(why, sizeof why, "%lld messages, not %d; %s", (long long)end, COMMITS + 1, w.why);
    case_check("nothing goes wrong: nothing is sent twice", good && !w.failed && end == COMMITS + 1, why);
    const struct mm_shard *s = &w.node[0].r.shard[0];
    snprintf(why, sizeof why, "%lld ignored, %lld duplicates, %lld resent", (long long)s->ignored,
             (long long)s->duplicates, (long long)s->resent);
    case_check("nor is anything ignored", s->ignored + s->duplicates + s->resent == 0, why);
    world_settle(&w);
    case_check("and all end equal", !w.failed, w.why);
    world_close(&w);
}

/* The server gives another message at the place that was folded last. */
static void other_tail(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    bool good = put_row(&w, "plain", 100);
    case_act(&w, WORLD_TURN, 0);
    case_act(&w, WORLD_TURN, 1);
    good = good && !w.failed && w.node[1].r.shard[0].pos.seq == net_end(w.net, 1);
    const struct net_message *m = net_get(w.net, 1, net_end(w.net, 1));
    ((uint8_t *)m->data)[m->len / 2] ^= 1;
    case_act(&w, WORLD_CUT, 1);
    case_act(&w, WORLD_TURN, 1);
    case_check("another message at the folded place is noticed", good && w.failed && strstr(w.why, "is lost") != NULL,
               w.why);
    world_close(&w);
}

/* A transaction is pending in all of its shards or in none after `what` ran out
** of memory, or what is in memory is marked as not to be trusted. */
static void whole(struct mm_repl *r, int (*what)(struct mm_repl *, struct mm_err *), const char *name)
{
    struct mm_err err;
    bool good = true;
    long nth = 0;
    for (bool came = true; came && good;) {
        mm_err_init(&err);
        fault_arm(FAULT_MEMORY, ++nth, NULL, NULL);
        (void)what(r, &err);
        came = fault_came();
        fault_arm(FAULT_NONE, 0, NULL, NULL);
        mm_err_init(&err);
        if (r->reload_needed) {
            mm_repl_reload(r, &err);
        } else {
            mm_repl_read_outbox(r, &err);
        }
        size_t one = mm_pending_count(r->shard[0].pending);
        size_t two = mm_pending_count(r->shard[1].pending);
        good = err.rc == SQLITE_OK && one == 1 && two == 1;
        if (!good) {
            printf("# allocation %ld: pending %zu and %zu times %s\n", nth, one, two, err.msg);
        }
    }
    printf("# %s: %ld allocations fail\n", name, nth - 1);
    case_check(name, good, "it is not");
}

static bool set_policy(struct world *w, int node, const char *column, enum mm_policy policy)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_db_exec(w->node[node].app, &err, "BEGIN IMMEDIATE");
    mm_policy_request(w->node[node].app, "plain", column, policy, &err);
    return mm_db_exec(w->node[node].app, &err, "COMMIT") == SQLITE_OK;
}

/* The echo of a change that the policy undoes is not taken as already there. */
static void policy_at_echo(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    bool good = set_policy(&w, 0, "a", MM_POLICY_MAX);
    for (int k = 0; k < 3; k++) { /* the policy is folded before the change is made */
        case_act(&w, WORLD_TURN, 0);
    }
    good = good && mm_pending_count(w.node[0].r.shard[0].pending) == 0;
    good = good && case_run(&w, 0, "UPDATE plain SET a = 1 WHERE id = 2");
    case_act(&w, WORLD_TURN, 0);
    world_settle(&w);
    case_check("max undoes a smaller value at its origin, too", good && !w.failed, w.why);
    world_close(&w);
}

/* A policy comes between a pending change and a foreign one of the same row. */
static void policy_between(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    bool good = case_run(&w, 0, "UPDATE plain SET b = 'mine' WHERE id = 1") && set_policy(&w, 1, "a", MM_POLICY_DELTA);
    case_turns(&w, 1);
    case_fold(&w, 0); /* the policy, then the change: each in a batch of its own */
    good = good && case_answer(&w, 0, "SELECT count(*) FROM __marmot__policy") == 1;
    good = good && case_run(&w, 1, "UPDATE plain SET b = 'theirs' WHERE id = 1");
    case_publish(&w, 1);
    case_fold(&w, 0);
    struct mm_err err;
    mm_err_init(&err);
    char *b = mm_db_text(w.node[0].app, &err, "SELECT b FROM main.plain WHERE id = 1");
    case_check("a pending change stays on top of what comes behind a policy",
               good && b != NULL && strcmp(b, "mine") == 0 && mm_pending_count(w.node[0].r.shard[0].pending) == 1, b);
    sqlite3_free(b);
    world_settle(&w);
    case_check("and all end equal after it", !w.failed, w.why);
    world_close(&w);
}

/* Another node ends a transaction whose publisher is only slow: what still comes of it
** does not count, and it counts once when it was sent again. */
static void ended_too_early(void)
{
    static const char held[] = "SELECT count(*) FROM main.__marmot__part";
    static const char there[] = "SELECT length(CAST(b AS BLOB)) > 30000 FROM main.plain WHERE id = 1";
    struct world w;
    struct mm_part_row row;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 0, true);
    case_turns(&w, 0);
    case_turns(&w, 1);
    bool good = case_run(&w, 0, "UPDATE plain SET b = hex(zeroblob(20000)) WHERE id = 1");
    case_act(&w, WORLD_PUMP, 0);
    for (int k = 0; k < 3; k++) {
        good = good && net_take(w.net, w.node[0].r.bus, 0, NET_STORED);
    }
    case_turns(&w, 1);
    case_check("three parts wait", good && case_answer(&w, 1, held) == 3, w.why);
    mm_db_exec(w.node[1].app, &err, "BEGIN IMMEDIATE");
    good = mm_part_list(w.node[1].app, &row, 1, &err) == 1;
    mm_part_ask_end(w.node[1].app, &row, &err);
    mm_db_exec(w.node[1].app, &err, "COMMIT");
    case_turns(&w, 1);
    case_check("they go where it is ended", good && err.rc == SQLITE_OK && case_answer(&w, 1, held) == 0, err.msg);
    while (net_take(w.net, w.node[0].r.bus, 0, NET_STORED)) {
    }
    case_turns(&w, 1);
    case_check("what still comes does not count", case_answer(&w, 1, held) == 0 && case_answer(&w, 1, there) == 0,
               w.why);
    world_settle(&w);
    case_check("until it was sent again", !w.failed && case_answer(&w, 1, there) == 1 && case_answer(&w, 1, held) == 0,
               w.why);
    world_close(&w);
}

/* The same log read a second time, for one table: what was ended there goes now as well,
** and what still came of it takes no place. */
static void ended_and_read_again(void)
{
    struct world w;
    struct mm_part_row row;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 3, true);
    for (unsigned n = 0; n < 3; n++) {
        case_turns(&w, n);
    }
    bool good = case_run(&w, 0, "UPDATE plain SET b = hex(zeroblob(20000)) WHERE id = 1");
    case_act(&w, WORLD_PUMP, 0);
    for (int k = 0; k < 3; k++) {
        good = good && net_take(w.net, w.node[0].r.bus, 0, NET_STORED);
    }
    case_turns(&w, 1);
    mm_db_exec(w.node[1].app, &err, "BEGIN IMMEDIATE");
    good = good && mm_part_list(w.node[1].app, &row, 1, &err) == 1;
    mm_part_ask_end(w.node[1].app, &row, &err);
    mm_db_exec(w.node[1].app, &err, "COMMIT");
    case_turns(&w, 1);
    while (net_take(w.net, w.node[0].r.bus, 0, NET_STORED)) {
    }
    good = good && case_run(&w, 2, "UPDATE plain SET b = 'between' WHERE id = 1");
    case_turns(&w, 2);
    world_settle(&w);
    int64_t end = net_end(w.net, 1);
    case_check("parts, their end, what still comes, another change, all once more",
               good && err.rc == SQLITE_OK && !w.failed, w.why);
    good = world_again(&w, &w.node[2], 0);
    case_check("it is read again", good && case_answer(&w, 2, "SELECT b IS 'x' FROM main.plain WHERE id = 1") == 1,
               w.why);
    world_settle(&w);
    case_check("and ends as it was", !w.failed && net_end(w.net, 1) == end, w.why);
    world_close(&w);
}

/* A publisher that died between two parts begins again with the first: what was held goes,
** in the second reading as in the first. */
static void begun_again_and_read_again(void)
{
    struct world w;
    case_open(&w, 1, 0, true);
    case_turns(&w, 0);
    case_turns(&w, 1);
    bool good = case_run(&w, 0, "UPDATE plain SET b = hex(zeroblob(20000)) WHERE id = 1");
    case_act(&w, WORLD_PUMP, 0);
    for (int k = 0; k < 5; k++) {
        good = good && net_take(w.net, w.node[0].r.bus, 0, NET_STORED);
    }
    while (net_take(w.net, w.node[0].r.bus, 0, NET_LOST)) {
    }
    case_turns(&w, 1);
    case_act(&w, WORLD_RESTART, 0);
    good = good && case_run(&w, 0, "UPDATE plain SET a = 'later' WHERE id = 1");
    world_settle(&w);
    case_check("parts that are sent again from the first", good && !w.failed, w.why);
    good = world_again(&w, &w.node[1], 0);
    world_settle(&w);
    case_check("are whole in a second reading as well", good && !w.failed, w.why);
    world_close(&w);
}

/* What was folded before a policy is folded without it in a second reading, too. */
static void policy_read_again(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    bool good = case_run(&w, 0, "UPDATE plain SET a = 1 WHERE id = 2");
    case_turns(&w, 0);
    good = good && set_policy(&w, 0, "a", MM_POLICY_MAX);
    case_turns(&w, 0);
    good = good && case_run(&w, 0, "UPDATE plain SET b = 'behind' WHERE id = 2");
    world_settle(&w);
    good = good && !w.failed && world_again(&w, &w.node[1], 0);
    world_settle(&w);
    case_check("a second reading folds by the policies of each place",
               good && !w.failed &&
                   case_answer(&w, 1, "SELECT a = 1 AND b = 'behind' FROM main.plain WHERE id = 2") == 1,
               w.why);
    world_close(&w);
}

/* A second reading that is broken off goes on where it was: rows without a key show it. */
static void broken_off(void)
{
    enum { BAG = 4 };
    static const char rows[] = "SELECT count(*) FROM main.bag WHERE a = 'once'";
    struct world w;
    bool good = true;
    case_open(&w, 1, 0, false);
    for (int k = 0; k < COMMITS; k++) {
        good = good && case_run(&w, 0, "INSERT INTO bag VALUES ('once', 1)");
    }
    world_settle(&w);
    good = good && !w.failed && world_again(&w, &w.node[1], BAG) && case_answer(&w, 1, rows) == 0;
    for (int k = 0; k < 100 && good && case_answer(&w, 1, rows) == 0; k++) {
        case_fold_each(&w, 1, 1);
    }
    int64_t some = case_answer(&w, 1, rows);
    case_act(&w, WORLD_RESTART, 1);
    case_fold_each(&w, 1, 3);
    world_settle(&w);
    case_check("a second reading that is broken off goes on where it was",
               good && !w.failed && some > 0 && some < COMMITS && case_answer(&w, 1, rows) == COMMITS, w.why);
    world_close(&w);
}

/* A table that becomes stale in the middle of a second reading, and is mended before its end:
** what that reading has passed meanwhile comes with the next one. */
static void mended_midway(void)
{
    enum { BAG = 4 };
    static const char rows[] = "SELECT count(*) FROM main.bag WHERE a = 'once'";
    struct world w;
    struct mm_err err;
    bool good = true;
    mm_err_init(&err);
    case_open(&w, 1, 0, false);
    for (int k = 0; k < COMMITS; k++) {
        good = good && case_run(&w, 0, "INSERT INTO bag VALUES ('once', 1)");
    }
    world_settle(&w);
    good = good && !w.failed && world_again(&w, &w.node[1], BAG) && case_answer(&w, 1, rows) == 0;
    for (int k = 0; k < 100 && good && case_answer(&w, 1, rows) == 0; k++) {
        case_fold_each(&w, 1, 1);
    }
    struct mm_repl *r = &w.node[1].r;
    int64_t some = case_answer(&w, 1, rows);
    mm_watch_set(r->db, "bag", MM_STALE, "a column is missing", &err);
    mm_targets_forget(r->targets);
    int64_t seq = r->shard[0].replay_seq;
    for (int k = 0; k < 100 && good && r->shard[0].replay != NULL && r->shard[0].replay_seq == seq; k++) {
        case_fold(&w, 1);
    }
    good = good && !w.failed && r->shard[0].replay != NULL && some > 0 && case_answer(&w, 1, rows) == some;
    case_check("a second reading goes past a table that is stale", good, w.why);
    r->schema_moved = true;
    mm_join_again(r, &err);
    world_settle(&w);
    case_check("what it has passed comes with the next one",
               good && err.rc == SQLITE_OK && !w.failed && case_answer(&w, 1, rows) == COMMITS, w.why);
    world_close(&w);
}

/* Two transactions meet in one row, and one of them has more rows than are remembered one
** by one: pending (`large` 1) or foreign (0). */
static void many_rows(int large)
{
    static const char fill[] =
        "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) "
        "INSERT INTO plain SELECT i, i, NULL FROM n";
    struct world w;
    case_open(&w, 1, 0, false);
    case_turns(&w, 1);
    bool good = case_run(&w, large, fill) && (large == 1 || case_run(&w, 1, "BEGIN")) &&
                (large == 0 || case_run(&w, 0, "BEGIN")) &&
                case_run(&w, 0, "UPDATE plain SET a = 'theirs', b = 'theirs' WHERE id = 1") &&
                case_run(&w, 1, "UPDATE plain SET b = 'mine' WHERE id = 1") && case_run(&w, 0, "COMMIT") &&
                case_run(&w, 1, "COMMIT");
    case_turns(&w, 0);
    for (int k = 0; k < 40 && w.node[1].r.shard[0].pos.seq < net_end(w.net, 1); k++) {
        case_fold(&w, 1);
    }
    case_check(large == 1 ? "a large pending transaction stays on top" : "a pending one stays on top of a large one",
               good && !w.failed && mm_pending_count(w.node[1].r.shard[0].pending) == 1 &&
                   case_answer(&w, 1, "SELECT a = 'theirs' AND b = 'mine' FROM main.plain WHERE id = 1") == 1 &&
                   case_answer(&w, 1, "SELECT count(*) FROM main.plain") == 5003,
               w.why);
    world_close(&w);
}

static void two_shards(void)
{
    struct world w;
    struct mm_err err;
    case_open(&w, 2, 0, false);
    mm_err_init(&err);
    mm_db_exec(w.node[0].app, &err, "BEGIN IMMEDIATE");
    for (int s = 0; s < 2; s++) {
        mm_db_exec(w.node[0].app, &err, "DELETE FROM main.\"%w\"", w.def[s][0].name);
    }
    mm_db_exec(w.node[0].app, &err, "COMMIT");
    case_check("a transaction of two shards", err.rc == SQLITE_OK, err.msg);
    whole(&w.node[0].r, mm_repl_reload, "is read whole");
    whole(&w.node[0].r, mm_repl_rekey, "gets new keys whole");
    world_close(&w);
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    sent_once();
    other_tail();
    policy_at_echo();
    policy_between();
    ended_too_early();
    ended_and_read_again();
    begun_again_and_read_again();
    policy_read_again();
    broken_off();
    mended_midway();
    many_rows(0);
    many_rows(1);
    two_shards();
    return case_end();
}
