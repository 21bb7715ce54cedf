/* A table that a node leaves while something of it has not come back from the log yet, and that
** it watches again: what its application has there is its own. */
#include <stdio.h>

#include "base/db.h"
#include "base/log.h"
#include "snapshot/install.h"
#include "store/stray.h"
#include "store/watch.h"
#include "test/model/cases.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"
#include "watching.h"

static bool leave(struct world *w, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    if (mm_watching_remove(w->node[1].app, table, &err) != SQLITE_OK) {
        snprintf(w->why, sizeof w->why, "%.400s", err.msg);
    }
    w->again = w->jumped = true;
    return err.rc == SQLITE_OK;
}

static bool come_back(struct world *w, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    w->node[1].again = REJOIN_ADOPT;
    if (mm_watching_add(w->node[1].app, table, NULL, &err) != SQLITE_OK) {
        snprintf(w->why, sizeof w->why, "%.400s", err.msg);
    }
    return err.rc == SQLITE_OK;
}

static bool row_is(struct world *w, const char *value)
{
    return case_answer(w, 1, "SELECT count(*) FROM plain WHERE id = 1 AND a IS %Q", value) == 1;
}

/* Others change the rows of what is pending: it is undone and done again around that. */
static void left_while_pending(bool writes)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "BEGIN; UPDATE plain SET a = 'mine' WHERE id = 1; INSERT INTO bag VALUES ('mine', 1); COMMIT");
    case_run(&w, 0, "BEGIN; UPDATE plain SET a = 'theirs' WHERE id = 1; INSERT INTO bag VALUES ('theirs', 1); COMMIT");
    bool good = leave(&w, "plain");
    if (writes) {
        case_run(&w, 1, "UPDATE plain SET a = 'later' WHERE id = 1");
    }
    case_turns(&w, 0);
    case_fold(&w, 1);
    const char *mine = writes ? "later" : "mine";
    case_check("a table is left while its change is under way", good && case_pending(&w, 1) == 1, w.why);
    case_check("others' messages leave its row alone", row_is(&w, mine), "another one stands there");
    case_rest(&w);
    case_rest(&w);
    case_check("so does its own echo", row_is(&w, mine) && case_pending(&w, 1) == 0, "another one stands there");
    case_check("the others have it", case_answer(&w, 0, "SELECT a = 'mine' FROM plain WHERE id = 1") == 1, w.why);
    case_check("and what is watched is equal",
               case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a IN ('mine', 'theirs')") == 2 &&
                   case_answer(&w, 0, "SELECT count(*) FROM bag WHERE a IN ('mine', 'theirs')") == 2,
               w.why);
    world_close(&w);
}

/* It is watched again before the echo of what was written before; by arithmetic with that its content would be
** the founding's. */
static void back_before_the_echo(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    case_run(&w, 1, "UPDATE plain SET a = 'mine'");
    bool good = leave(&w, "plain");
    case_run(&w, 1, "DELETE FROM plain");
    good = come_back(&w, "plain") && good;
    case_check("an emptied table is watched again while a change of before is under way", good, w.why);
    case_finish(&w, "it has the cluster's rows at the end");
}

/* It has the cluster's rows again while a change of before is still to be sent: that shows at its echo, and
** until then it is nothing that somebody wrote past the capture. */
static void compared_before_the_echo(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    case_run(&w, 1, "INSERT INTO plain VALUES (9, 'mine', NULL)");
    bool good = leave(&w, "plain");
    case_run(&w, 1, "DELETE FROM plain");
    good = come_back(&w, "plain") && good;
    const struct world_step look = { WORLD_BRING, 1, 1 };
    case_act(&w, WORLD_DELIVER, 1); /* the node looks at its tables */
    for (int k = 0; k < 3; k++) {
        world_act(&w, &look);
    }
    case_check("a table has the cluster's rows again while a change of before waits to be sent",
               good && !w.failed && case_pending(&w, 1) > 0 &&
                   mm_watch_get(w.node[1].app, "plain", NULL, &err) == MM_WATCHED &&
                   case_answer(&w, 1, "SELECT group_concat(id) = '1,2' FROM plain") == 1,
               w.why);
    int64_t before = world_outbox_last(&w.node[1]);
    w.node[1].past = true;
    for (int k = 0; k < 20 && w.node[1].past && !w.failed; k++) {
        world_act(&w, &look);
    }
    case_check("nothing of it was written past the capture",
               !w.failed && !w.node[1].past && w.mended == 0 && world_outbox_last(&w.node[1]) == before, w.why);
    case_finish(&w, "the change is there at the end");
}

/* The same where the log alone brings it the cluster's rows, since it has again what the cluster began with:
** nothing is done again there before the echo comes. */
static void read_before_the_echo(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "UPDATE plain SET a = 'mine' WHERE id = 1");
    bool good = leave(&w, "plain");
    case_run(&w, 1, "UPDATE plain SET a = 'one' WHERE id = 1");
    good = come_back(&w, "plain") && good;
    case_fold(&w, 1); /* it joins, and nothing is sent yet */
    case_check("a table joins by the log while a change of before waits to be sent",
               good && !w.failed && case_pending(&w, 1) == 2 &&
                   mm_watch_get(w.node[1].app, "plain", NULL, &err) == MM_WATCHED && row_is(&w, "one"),
               w.why);
    case_rest(&w);
    case_check("which is there with its echo", case_pending(&w, 1) == 0 && row_is(&w, "mine"), "it is not");
    case_finish(&w, "and everywhere");
}

/* What was captured while the table was part of the cluster is sent, though it may wait for a copy by then,
** and may have been left `again` before that was over; also where it lacked something when it was left. */
static void sent_after_all(bool again, bool stale)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    struct mm_err err;
    mm_err_init(&err);
    case_act(&w, WORLD_SNAPSHOT, 0);
    if (stale) {
        mm_watch_set(w.node[1].r.db, "plain", MM_STALE, "it lacks a row", &err);
        mm_watch_set_joined_seq(w.node[1].r.db, "plain", MM_SEQ_BEFORE, &err);
        mm_targets_forget(w.node[1].r.targets);
    }
    case_run(&w, 1, "INSERT INTO plain VALUES (9, 'mine', NULL)");
    bool good = leave(&w, "plain") && case_run(&w, 1, "INSERT INTO plain VALUES (8, 'nobody knows', NULL)");
    good = come_back(&w, "plain") && good;
    good = good && (!again || (leave(&w, "plain") && come_back(&w, "plain")));
    mm_watch_set_joined_seq(w.node[1].r.db, "plain", MM_SEQ_COPY, &err);
    mm_targets_forget(w.node[1].r.targets);
    case_check("a table is left with a change that was not sent, and watched again", good, w.why);
    world_settle(&w);
    case_check("the others have it", case_answer(&w, 0, "SELECT count(*) FROM plain WHERE id = 9") == 1, w.why);
    case_check("and so has it", case_answer(&w, 1, "SELECT count(*) FROM plain WHERE id = 9") == 1, w.why);
    case_finish(&w, "all is equal");
}

/* Left, written to and watched again between a comparison and what comes of it. */
static void back_behind_a_comparison(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    case_act(&w, WORLD_BRING, 1);
    case_act(&w, WORLD_BRING, 1);
    bool good = w.node[1].bring.stage == BRING_READY && leave(&w, "plain");
    case_run(&w, 1, "DELETE FROM plain");
    good = come_back(&w, "plain") && good;
    case_act(&w, WORLD_BRING, 1);
    struct mm_err err;
    mm_err_init(&err);
    case_check("what was compared before a table was left says nothing of it",
               good && w.node[1].bring.stage == BRING_NOT &&
                   mm_watch_get(w.node[1].app, "plain", NULL, &err) == MM_JOINING,
               mm_watch_state_name(mm_watch_get(w.node[1].app, "plain", NULL, &err)));
    case_finish(&w, "it is compared anew");
}

/* The log still begins with the founding, of an epoch that is over: that and what it folded then says
** nothing of the table now. */
static void back_in_another_epoch(void)
{
    struct world w;
    uint64_t seed = 0;
    world_open(&w, seed);
    while (w.kind != 1 || w.shards != 1 || w.nnode != 2) {
        world_close(&w);
        world_open(&w, ++seed);
    }
    case_run(&w, 0, "INSERT INTO plain VALUES (1, 'of the first epoch', NULL)");
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    case_act(&w, WORLD_SEED, 0);
    case_act(&w, WORLD_CUT, 1);
    case_rest(&w);
    case_rest(&w);
    case_run(&w, 0, "INSERT INTO plain VALUES (2, 'of the second', NULL)");
    case_rest(&w);
    bool good = w.node[1].r.epoch == 2 && leave(&w, "plain");
    case_run(&w, 1, "DELETE FROM plain");
    good = come_back(&w, "plain") && good;
    case_check("a table that began empty is watched again in another epoch", good, w.why);
    case_finish(&w, "and has the rows of both");
}

/* It has not joined when rows of it are written, nor when it is left: they are nobody's but its own. `back`:
** it is watched once more before anything could be sent. */
static void never_sent(bool back, int64_t seq)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    bool good = leave(&w, "plain") && come_back(&w, "plain");
    case_run(&w, 1, "DELETE FROM plain WHERE id = 1");
    case_run(&w, 1, "INSERT INTO plain VALUES (8, 'its own', NULL)");
    mm_watch_set_joined_seq(w.node[1].r.db, "plain", seq, &err);
    good = leave(&w, "plain") && good && err.rc == SQLITE_OK;
    if (back) {
        case_run(&w, 1, "INSERT INTO plain SELECT 1, a, b FROM (SELECT NULL AS a, NULL AS b)");
        case_run(&w, 1, "DELETE FROM plain WHERE id = 8");
        good = come_back(&w, "plain") && good;
    }
    case_check("rows of a table that waits to join are written, and it is left", good, w.why);
    for (int k = 0; k < 4 && !back; k++) { /* what waits is sent while it is left */
        net_now_us += 1000000;
        case_rest(&w);
    }
    case_check("it is left out of what is sent", back || case_pending(&w, 1) == 0, w.why);
    world_settle(&w);
    case_check("what was deleted there stays with the others",
               case_answer(&w, 0, "SELECT count(*) FROM plain WHERE id = 1") == 1, "the row is gone");
    case_check("and what was inserted does not come to them",
               case_answer(&w, 0, "SELECT count(*) FROM plain WHERE id = 8") == 0, "it stands there");
    if (back) {
        case_check("watched again it has the cluster's rows",
                   case_answer(&w, 1, "SELECT count(*) FROM plain WHERE id = 1") == 1, "the row is gone");
        case_finish(&w, "all is equal");
    } else {
        world_close(&w);
    }
}

/* The log does not do for a table that was emptied before it was watched, and the patience of ext/node_tables.c
** ends. */
static bool let_pass(struct world *w, const char *table)
{
    struct mm_repl *r = &w->node[1].r;
    struct mm_err err;
    mm_err_init(&err);
    mm_db_exec(r->db, &err, "BEGIN IMMEDIATE");
    mm_watch_set_joined_seq(r->db, table, MM_SEQ_COPY, &err);
    mm_join_let_pass(r, table, "it waits", &err);
    mm_stray_end(r->db, &err);
    mm_targets_forget(r->targets);
    return err.rc == SQLITE_OK && mm_watch_get(r->db, table, NULL, &err) == MM_STALE &&
           mm_watch_joined_seq(r->db, table, &err) == MM_SEQ_EMPTY;
}

static bool joins(struct world *w, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    for (int k = 0; k < 8 && mm_watch_get(w->node[1].app, table, NULL, &err) != MM_WATCHED; k++) {
        case_act(w, WORLD_BRING, 1);
    }
    return mm_watch_get(w->node[1].app, table, NULL, &err) == MM_WATCHED;
}

/* What was written to a table that waits for a copy is sent without its rows; then it is merged into one,
** before the echo or behind it. The end of the log may be lost then. */
static void joins_with_what_was_passed(const char *table, bool echoed, bool lost)
{
    struct world w;
    char name[200];
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    bool good = leave(&w, table) && case_run(&w, 1, "DELETE FROM %s", table) && come_back(&w, table);
    w.again = false; /* no copy is to be had */
    case_turns(&w, 1);
    good = let_pass(&w, table) && good;
    net_now_us += 1000000; /* what the publisher waits at most */
    case_turns(&w, 1);
    case_rest(&w);
    w.again = true;
    int64_t end = net_end(w.net, 1);
    case_run(&w, 1,
             "BEGIN; INSERT INTO plain VALUES (8, 'its own', NULL); INSERT INTO bag VALUES ('its own', 1); COMMIT");
    case_publish(&w, 1);
    if (echoed) {
        case_fold(&w, 1);
    }
    good = good && case_pending(&w, 1) == !echoed && net_end(w.net, 1) == end + 1 && joins(&w, table);
    snprintf(name, sizeof name, "%s: sent without its rows, it joins %s the echo", table, echoed ? "behind" : "before");
    case_check(name, good, w.why);
    case_rest(&w);
    case_rest(&w);
    if (lost) {
        for (struct world_step s = { WORLD_LOSE, 0, 0 }; net_end(w.net, 1) > end && s.seed < 100; s.seed++) {
            world_act(&w, &s);
        }
        good = good && net_end(w.net, 1) <= end;
    }
    world_settle(&w);
    snprintf(name, sizeof name, "%s: its rows are everywhere, once%s", table,
             lost ? ", though the log lost its end" : "");
    for (int k = 0; k < 2; k++) {
        good = good && case_answer(&w, k, "SELECT count(*) FROM plain WHERE id = 8") == 1 &&
               case_answer(&w, k, "SELECT count(*) FROM bag WHERE a = 'its own'") == 1;
    }
    case_check(name, good, w.why);
    snprintf(name, sizeof name, "%s: all is equal", table);
    case_finish(&w, name);
}

/* A copy has it with other columns: it stays out with what is captured of it, which is undone while the
** copy is taken if it was to be sent. */
static void stays_out_with_its_rows(void)
{
    struct world w;
    struct mm_diff_table table = { .name = (char[]){ "bag" }, .mode = MM_DIFF_OTHER, .captured = true, .why = "other" };
    struct mm_diff diff = { .table = &table, .n = 1 };
    static const bool take[] = { true };
    struct mm_work work = { 0 };
    struct mm_install in = { .copy = "/copy.db", .diff = &diff, .take = take, .work = &work };
    struct mm_err err;
    int64_t given_up;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    mm_watch_set(w.node[1].r.db, "bag", MM_JOINING, NULL, &err);
    mm_watch_set_joined_seq(w.node[1].r.db, "bag", MM_SEQ_COPY, &err);
    mm_targets_forget(w.node[1].r.targets);
    case_run(&w, 1, "BEGIN; INSERT INTO bag VALUES ('its own', 1); UPDATE plain SET a = 'mine' WHERE id = 1; COMMIT");
    memory_copy(w.node[0].path, in.copy);
    mm_install_run(&w.node[1].r, &in, &given_up, &err);
    case_check("a table with other columns than in a copy stays out",
               err.rc == SQLITE_OK && mm_watch_get(w.node[1].app, "bag", NULL, &err) == MM_STALE, err.msg);
    case_check("with the rows that wait to be sent",
               case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'its own'") == 1, "they are gone");
    case_rest(&w);
    case_rest(&w);
    case_check("others have what stood beside them, not them",
               case_answer(&w, 0, "SELECT count(*) FROM bag WHERE a = 'its own'") == 0 &&
                   case_answer(&w, 0, "SELECT a = 'mine' FROM plain WHERE id = 1") == 1,
               w.why);
    case_check("and they stay", case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'its own'") == 1, w.why);
    world_close(&w);
    memory_remove("/copy.db");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    left_while_pending(false);
    left_while_pending(true);
    back_before_the_echo();
    compared_before_the_echo();
    read_before_the_echo();
    sent_after_all(false, false);
    sent_after_all(true, false);
    sent_after_all(false, true);
    back_behind_a_comparison();
    back_in_another_epoch();
    never_sent(false, MM_SEQ_NEVER);
    never_sent(false, MM_SEQ_COPY);
    never_sent(true, MM_SEQ_NEVER);
    for (int k = 0; k < 8; k++) {
        joins_with_what_was_passed(k & 1 ? "bag" : "plain", (k & 2) != 0, (k & 4) != 0);
    }
    stays_out_with_its_rows();
    return case_end();
}
