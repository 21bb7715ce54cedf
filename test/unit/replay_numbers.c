/* Under which numbers a transaction goes: of a file that was set back or copied, of
** which the log has some in one shard and not in another. Each counts once, whatever is
** read anew in between; and who was not set back keeps its numbers. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "store/policy.h"
#include "test/model/cases.h"

enum { FIRST = 1, SECOND = 2 };

/* The tables of the two shards, of two. */
static const char first_row[] = "INSERT INTO ubag VALUES (%Q, NULL)";
static const char second_row[] = "INSERT INTO bag VALUES (%Q, NULL)";

static int64_t incarnation(struct world *w, int node)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_head_incarnation(w->node[node].app, &err);
}

/* Rows without a key show what counts twice. */
static bool once(struct world *w, int node, const char *what)
{
    return case_answer(w, node, "SELECT count(*) FROM ubag WHERE a = %Q", what) == 1 &&
           case_answer(w, node, "SELECT count(*) FROM bag WHERE a = %Q", what) == 1;
}

/* One transaction in both shards. */
static void both(struct world *w, int node, const char *what)
{
    case_run(w, node, "BEGIN");
    case_run(w, node, first_row, what);
    case_run(w, node, second_row, what);
    case_run(w, node, "COMMIT");
}

/* What was under way when the file was set back is stored between the two halves of a
** transaction that was written since: one half has its number, the other is moved. */
static void half_accepted(void)
{
    struct world w;
    case_open(&w, 2, 0, false);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    case_run(&w, 0, second_row, "under way");
    case_act(&w, WORLD_PUMP, 0);
    case_act(&w, WORLD_SETBACK, 0);
    case_turns(&w, 0);
    both(&w, 0, "since");
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 1, NET_STORED) == 1 && net_take(w.net, NULL, 0, NET_STORED) &&
                case_met(&w, 0, INT_MAX, NET_STORED) == 1;
    int64_t old = incarnation(&w, 0);
    for (int shard = FIRST; shard <= SECOND; shard++) {
        net_only(w.node[0].r.bus, shard);
        case_fold(&w, 0);
    }
    case_act(&w, WORLD_FLUSH, 0);
    case_act(&w, WORLD_RESTART, 0);
    struct mm_repl *r = &w.node[0].r;
    case_check("the half that has its number is not pending any more, the other has a new one",
               good && !w.failed && mm_pending_count(r->shard[FIRST - 1].pending) == 0 &&
                   mm_pending_count(r->shard[SECOND - 1].pending) == 1 &&
                   mm_pending_at(r->shard[SECOND - 1].pending, 0)->incarnation != old,
               w.why);
    struct mm_err err;
    mm_err_init(&err);
    mm_repl_rekey(r, &err);
    case_check("nor when the schema has changed",
               err.rc == SQLITE_OK && mm_pending_count(r->shard[FIRST - 1].pending) == 0 &&
                   mm_pending_count(r->shard[SECOND - 1].pending) == 1,
               err.msg);
    int64_t id = mm_pending_at(r->shard[SECOND - 1].pending, 0)->id;
    case_check("it is one up to its own place in the outbox",
               mm_repl_pending_transactions(r, id - 1, &err) == 0 && mm_repl_pending_transactions(r, id, &err) == 1,
               err.msg);
    world_settle(&w);
    case_check("and counts once", once(&w, 0, "since") && once(&w, 1, "since"), w.why);
    case_finish(&w, "with all nodes equal");
}

/* Something older is pending in the other shard, so what counts as echoed does not say that
** this has come back; and its numbers do not tell any more, either. */
static void accepted_behind_another(void)
{
    struct world w;
    case_open(&w, 2, 0, false);
    case_rest(&w);
    case_run(&w, 1, second_row, "theirs"); /* until it is read the other shard may tell more */
    case_publish(&w, 1);
    case_run(&w, 0, second_row, "older");
    case_run(&w, 0, first_row, "came back");
    case_act(&w, WORLD_BACKUP, 0);
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 1, NET_STORED) == 1 && case_met(&w, 0, 1, NET_LOST) == 1;
    case_run(&w, 0, first_row, "gone with the setback");
    case_act(&w, WORLD_PUMP, 0);
    good = good && case_met(&w, 0, 1, NET_STORED) == 1;
    case_act(&w, WORLD_SETBACK, 0);
    net_only(w.node[0].r.bus, FIRST);
    case_fold_each(&w, 0, 4);
    const struct mm_repl *r = &w.node[0].r;
    good = good && r->move_due == incarnation(&w, 0) && !mm_repl_caught_up(r) &&
           mm_pending_count(r->shard[FIRST - 1].pending) == 0;
    case_act(&w, WORLD_RESTART, 0);
    case_check("what came back does not wait again after a restart",
               good && mm_pending_count(r->shard[FIRST - 1].pending) == 0 &&
                   mm_pending_count(r->shard[SECOND - 1].pending) == 1,
               w.why);
    world_settle(&w);
    case_check("and counts once with it", case_answer(&w, 1, "SELECT count(*) FROM ubag WHERE a = 'came back'") == 1,
               w.why);
    case_finish(&w, "and with all nodes equal");
}

/* Both shards tell of it: what waits in either moves. */
static void told_by_both(void)
{
    struct world w;
    case_open(&w, 2, 0, false);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    case_run(&w, 0, first_row, "gone");
    case_run(&w, 0, second_row, "gone");
    case_publish(&w, 0);
    case_act(&w, WORLD_SETBACK, 0);
    case_run(&w, 0, first_row, "waits");
    case_run(&w, 0, second_row, "waits");
    case_turns(&w, 0);
    world_settle(&w);
    case_check("what waits in both shards comes", once(&w, 0, "waits") && once(&w, 1, "waits"), w.why);
    case_finish(&w, "and all end equal then");
}

/* Two copies of one file have read the log before either of them sends: what waits in both
** gets the same numbers in both, so it counts once. */
static void moved_alike(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    case_run(&w, 0, second_row, "gone");
    case_turns(&w, 0);
    case_act(&w, WORLD_SETBACK, 0);
    both(&w, 0, "waits");
    int64_t old = incarnation(&w, 0);
    int copy = w.nnode;
    case_act(&w, WORLD_COPY, 0);
    for (int n = 0; n <= copy && w.nnode == copy + 1; n += copy) {
        case_fold(&w, (unsigned)n);
        case_act(&w, WORLD_FLUSH, (unsigned)n);
        case_act(&w, WORLD_DELIVER, (unsigned)n);
    }
    bool good = w.nnode == copy + 1 && case_pending(&w, 0) == 1 && case_pending(&w, copy) == 1;
    int64_t to = good ? mm_pending_at(case_shard(&w, 0)->pending, 0)->incarnation : 0;
    case_check("two copies move what waits to the same numbers",
               good && to != old && mm_pending_at(case_shard(&w, copy)->pending, 0)->incarnation == to &&
                   incarnation(&w, 0) != to && incarnation(&w, copy) != to &&
                   incarnation(&w, copy) != incarnation(&w, 0),
               w.why);
    world_settle(&w);
    case_check("and it counts once for both", once(&w, 0, "waits") && once(&w, 1, "waits") && once(&w, copy, "waits"),
               w.why);
    case_finish(&w, "and all copies are equal");
}

/* What waits when the file was found set back a second time is numbered by itself. */
static void moved_twice(void)
{
    struct world w;
    int64_t to[2] = { 0 };
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    case_run(&w, 0, second_row, "gone");
    case_turns(&w, 0);
    for (int k = 0; k < 2; k++) {
        case_act(&w, WORLD_SETBACK, 0);
        both(&w, 0, k == 0 ? "one" : "two");
        case_fold(&w, 0);
        case_act(&w, WORLD_FLUSH, 0);
        case_act(&w, WORLD_DELIVER, 0);
        to[k] = case_pending(&w, 0) == 1 ? mm_pending_at(case_shard(&w, 0)->pending, 0)->incarnation : 0;
        case_turns(&w, 0);
    }
    case_check("what two setbacks moved has not the same numbers", to[0] != 0 && to[1] != 0 && to[0] != to[1], w.why);
    world_settle(&w);
    case_check("so both count", once(&w, 1, "one") && once(&w, 1, "two") && once(&w, 0, "two"), w.why);
    case_finish(&w, "and all nodes end equal");
}

/* Another node whose incarnation has the same number is another origin all the same. */
static void same_number_elsewhere(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    int64_t mine = incarnation(&w, 0);
    mm_head_set_incarnation(w.node[1].app, mine, &err);
    case_act(&w, WORLD_RESTART, 1);
    case_rest(&w);
    for (int k = 0; k < 2; k++) { /* the second time something is pending that waits for its echo */
        case_run(&w, 1, second_row, "theirs");
        case_publish(&w, 1);
        if (k == 1) {
            case_run(&w, 0, second_row, "mine");
        }
        case_fold(&w, 0);
    }
    case_check("another node's numbers are not taken for own ones",
               err.rc == SQLITE_OK && !w.failed && case_pending(&w, 0) == 1 && w.node[0].r.move_due == 0 &&
                   incarnation(&w, 0) == mine && incarnation(&w, 1) == mine,
               w.why);
    case_finish(&w, "and both nodes end equal");
}

/* Messages of a copy are of this node, and no sign that this file was set back. */
static void copies_keep_theirs(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 0, second_row, "inherited");
    int copy = w.nnode;
    case_act(&w, WORLD_COPY, 0);
    int64_t old[2] = { incarnation(&w, 0), incarnation(&w, copy) };
    case_run(&w, 0, second_row, "behind it");
    case_run(&w, copy, second_row, "of the copy");
    case_publish(&w, 0);
    case_fold(&w, (unsigned)copy);
    bool good = case_pending(&w, copy) == 1;
    case_turns(&w, (unsigned)copy);
    case_run(&w, 0, second_row, "waits");
    case_fold(&w, 0);
    case_check("a copy and its original keep their numbers",
               good && old[0] != old[1] && incarnation(&w, 0) == old[0] && incarnation(&w, copy) == old[1] &&
                   w.node[0].r.move_due == 0 && w.node[copy].r.move_due == 0,
               w.why);
    case_finish(&w, "and end equal");
}

/* Who has begun an epoch goes on in it: under new numbers, since what was under way in the old
** one may still be stored under the others, and without the token, which would be this epoch's
** for whatever it begins later. */
static void enters_an_epoch(void)
{
    struct world w;
    struct mm_err err;
    struct mm_position pos[WORLD_SHARDS];
    mm_err_init(&err);
    case_open(&w, 2, 2, false);
    case_rest(&w);
    struct mm_repl *r = &w.node[0].r;
    int64_t old = incarnation(&w, 0);
    mm_meta_set_int(w.node[0].app, MM_META_SEED, 7, &err);
    for (int k = 0; k < w.shards; k++) {
        pos[k] = r->shard[k].pos;
        pos[k].epoch = 2;
        pos[k].seq++;
    }
    mm_repl_enter_epoch(r, pos, &err);
    case_check("a node goes on at the beginning of its epoch",
               err.rc == SQLITE_OK && r->epoch == 2 && r->shard[0].pos.seq == pos[0].seq &&
                   r->shard[1].pos.seq == pos[1].seq && !r->reload_needed && sqlite3_get_autocommit(r->db),
               err.msg);
    case_check("under numbers that nobody has met", incarnation(&w, 0) != old, "they are the old ones");
    case_check("and a later one is not taken for this one",
               mm_meta_int(w.node[0].app, MM_META_SEED, 0, &err) == 0 && err.rc == SQLITE_OK,
               "its token is still there");
    world_close(&w);
}

/* What is remembered of one set-back is not taken for another: where a copy's numbers go, and which
** shards have told. Else what waits would go under numbers of another history, and be lost as if seen. */
static void another_setback(void)
{
    struct world w;
    struct mm_err err;
    const struct mm_pend strange = { .id = 1, .incarnation = 5 };
    bool moved = false;
    mm_err_init(&err);
    case_open(&w, 2, 2, false);
    case_rest(&w);
    sqlite3 *app = w.node[0].app;
    struct mm_repl *r = &w.node[0].r;
    const struct mm_pend mine = { .id = 1, .incarnation = incarnation(&w, 0) };
    mm_repl_note_moved_to(r, &strange, 77, FIRST, &err);
    case_check("what moved elsewhere under numbers that are not in use here says nothing",
               r->move_due == 0 && mm_meta_int(app, MM_META_MOVE_TO, 0, &err) == 0, err.msg);
    mm_repl_note_moved_to(r, &mine, 77, FIRST, &err);
    mm_repl_note_moved(r, mine.incarnation, SECOND, &err);
    case_check("what waits goes where a copy's went, as both shards tell",
               r->move_due == mine.incarnation && mm_meta_int(app, MM_META_MOVE_TO, 0, &err) == 77 &&
                   r->move_shards == 3 && mm_meta_int(app, MM_META_MOVE_SHARDS, 0, &err) == 3,
               err.msg);
    mm_repl_note_moved(r, strange.incarnation, SECOND, &err);
    case_check("another set-back knows of no copy, and of no other shard",
               r->move_due == strange.incarnation && mm_meta_int(app, MM_META_MOVE_TO, 0, &err) == 0 &&
                   r->move_shards == 2 && mm_meta_int(app, MM_META_MOVE_SHARDS, 0, &err) == 2,
               err.msg);
    mm_meta_set_int(app, MM_META_MOVE_TO, 77, &err);
    mm_repl_settle_move(r, &moved, &err);
    case_check("nor does the next one, once this is settled",
               moved && err.rc == SQLITE_OK && mm_meta_int(app, MM_META_MOVE_TO, 0, &err) == 0 &&
                   mm_meta_int(app, MM_META_MOVE_DUE, 0, &err) == 0,
               err.msg);
    world_close(&w);
}

/* What is told of as given up is what an application wrote. */
static void counts_transactions(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    both(&w, 0, "mine");
    case_run(&w, 0, "BEGIN IMMEDIATE");
    mm_policy_request(w.node[0].app, "plain", "a", MM_POLICY_MAX, &err);
    case_run(&w, 0, "COMMIT");
    struct mm_repl *r = &w.node[0].r;
    mm_repl_read_outbox(r, &err);
    case_check("a rule that waits is no transaction",
               case_pending(&w, 0) == 2 && mm_repl_pending_transactions(r, INT64_MAX, &err) == 1 && err.rc == SQLITE_OK,
               err.msg);
    case_finish(&w, "and all nodes end equal");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    half_accepted();
    accepted_behind_another();
    told_by_both();
    moved_alike();
    moved_twice();
    same_number_elsewhere();
    copies_keep_theirs();
    enters_an_epoch();
    another_setback();
    counts_transactions();
    return case_end();
}
