/* A file that was set back, with several shards: until all of the log is read nothing
** is sent and nothing is decided; then what the log knows nothing of gets other
** numbers, and nothing is lost or counts twice. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "store/outbox.h"
#include "test/model/cases.h"

enum { MANY = 20, FIRST = 1, SECOND = 2 };

/* A transaction of the application. */
static void put(struct world *w, int node, int shard, int id)
{
    case_run(w, node, "REPLACE INTO main.\"%w\" VALUES (%d, 'no %d', 0)", shard == FIRST ? "uniq" : "plain", id,
             id); /* the shards of these two, of two */
}

static bool there(struct world *w, int node, int shard, int id)
{
    return case_answer(w, node, "SELECT count(*) FROM main.\"%w\" WHERE id = %d", shard == FIRST ? "uniq" : "plain",
                       id) == 1;
}

static int64_t bagged(struct world *w, int node, const char *what)
{
    return case_answer(w, node, "SELECT count(*) FROM main.bag WHERE a = %Q", what);
}

static int64_t incarnation(struct world *w, int node)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_head_incarnation(w->node[node].app, &err);
}

/* What the log does not know of its incarnation has smaller outbox ids than what it knows. */
static void one_shard(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    for (int k = 0; k < 3; k++) {
        put(&w, 0, FIRST, 100 + k);
    }
    case_turns(&w, 0);
    int64_t old = incarnation(&w, 0);
    case_act(&w, WORLD_SETBACK, 0);
    put(&w, 0, FIRST, 199); /* before it has read what has its numbers */
    case_turns(&w, 0);
    case_check("it goes on under another incarnation", incarnation(&w, 0) != old && w.node[0].r.move_due == 0, w.why);
    put(&w, 0, FIRST, 200);
    case_turns(&w, 0);
    world_settle(&w);
    case_check("what waited when it met them is not taken for one of them", there(&w, 1, FIRST, 199), w.why);
    case_check("what is written then is not taken for what was sent before", there(&w, 1, FIRST, 200), w.why);
    case_finish(&w, "and all end equal");
}

/* The shard of what is written is read to its end; the other, which would tell, is not. */
static void not_told_yet(int taken_in)
{
    int other = taken_in == FIRST ? SECOND : FIRST;
    struct world w;
    char name[200];
    case_open(&w, 2, 0, false);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    put(&w, 0, taken_in, 101);
    case_turns(&w, 0);
    case_act(&w, WORLD_SETBACK, 0);
    net_only(w.node[0].r.bus, other);
    put(&w, 0, other, 200);
    for (int k = 0; k < 4; k++) {
        case_fold_each(&w, 0, 1);
    }
    const struct mm_shard *s = &w.node[0].r.shard[other - 1];
    bool ready = s->following && s->pos.seq == net_end(w.net, other) && w.node[0].r.move_due == 0;
    case_act(&w, WORLD_PUMP, 0);
    snprintf(name, sizeof name, "shard %d is not read yet: nothing is sent in the other", taken_in);
    case_check(name, ready && case_met(&w, 0, INT_MAX, NET_STORED) == 0, w.why);
    net_only(w.node[0].r.bus, 0);
    world_settle(&w);
    case_check("and counts later", there(&w, 1, other, 200), w.why);
    case_finish(&w, "once, with all nodes equal");
}

/* Node 0 has sent `taken` in one shard, and was set back behind that; in the other much is
** to be read, behind which stands the echo of something that it still has. Then the
** one shard is read to its end, and the other is not. */
static void half_read(struct world *w, int taken_in)
{
    int other = taken_in == FIRST ? SECOND : FIRST;
    case_open(w, 2, 0, false);
    case_rest(w);
    for (int k = 0; k < MANY; k++) {
        put(w, 1, other, 300 + k);
    }
    case_publish(w, 1);
    put(w, 0, other, 100);
    case_publish(w, 0);
    case_act(w, WORLD_BACKUP, 0);
    put(w, 0, taken_in, 101);
    case_publish(w, 0);
    case_act(w, WORLD_SETBACK, 0);
    net_only(w->node[0].r.bus, taken_in);
    for (int k = 0; k < MANY && w->node[0].r.move_due == 0; k++) {
        case_fold_each(w, 0, 1);
    }
}

static void until_caught_up(struct world *w)
{
    net_only(w->node[0].r.bus, 0);
    for (int k = 0; k < 4 * MANY && !mm_repl_caught_up(&w->node[0].r); k++) {
        case_fold_each(w, 0, 1);
    }
}

static void two_shards(int taken_in)
{
    struct world w;
    char name[200];
    half_read(&w, taken_in);
    struct mm_repl *r = &w.node[0].r;
    int64_t old = incarnation(&w, 0);
    snprintf(name, sizeof name, "shard %d tells of it, and nothing is decided before the other is read", taken_in);
    case_check(name, !w.failed && r->move_due == old && !mm_repl_caught_up(r), w.why);
    put(&w, 0, FIRST, 200); /* with the outbox ids of what was sent */
    put(&w, 0, SECOND, 201);
    case_act(&w, WORLD_PUMP, 0);
    case_check("nor is anything sent", case_met(&w, 0, INT_MAX, NET_STORED) == 0, w.why);
    r->reload_needed = true;
    until_caught_up(&w);
    case_check("it is read anew: what is written meanwhile waits",
               mm_pending_count(r->shard[0].pending) == 1 && mm_pending_count(r->shard[1].pending) == 1, w.why);
    bool light = r->move_due == old;
    case_act(&w, WORLD_PUMP, 0);
    case_check("nor is anything sent before it is decided", light && case_met(&w, 0, INT_MAX, NET_STORED) == 0, w.why);
    case_act(&w, WORLD_FLUSH, 0);
    case_check("then it is", r->reload_needed && incarnation(&w, 0) != old, w.why);
    case_act(&w, WORLD_DELIVER, 0);
    int64_t first = mm_pending_at(r->shard[FIRST - 1].pending, 0)->incarnation;
    int64_t second = mm_pending_at(r->shard[SECOND - 1].pending, 0)->incarnation;
    snprintf(name, sizeof name, "what is pending in shard %d moves with all that comes after it, and nothing else",
             taken_in);
    case_check(name, second != old && second != incarnation(&w, 0) && first == (taken_in == FIRST ? second : old),
               w.why);
    world_settle(&w);
    case_check("nothing is lost", there(&w, 1, FIRST, 200) && there(&w, 1, SECOND, 201), w.why);
    case_finish(&w, "and all end equal in both shards");
}

/* Nothing waits when it is decided, but for what was written at that very moment. */
static void written_last(int taken_in)
{
    struct world w;
    half_read(&w, taken_in);
    until_caught_up(&w);
    bool good = w.node[0].r.move_due != 0 && mm_repl_caught_up(&w.node[0].r);
    put(&w, 0, taken_in, 200); /* with the outbox id of what was sent */
    case_act(&w, WORLD_FLUSH, 0);
    good = good && w.node[0].r.move_due != 0 && w.node[0].r.reload_needed;
    world_settle(&w);
    case_check("what is written just before it is decided moves as well",
               good && there(&w, 0, taken_in, 200) && there(&w, 1, taken_in, 200), w.why);
    case_finish(&w, "and counts once");
}

/* All that was read is stored when the last shard turns out to be read already. */
static void nothing_new(void)
{
    struct world w;
    half_read(&w, FIRST);
    struct mm_repl *r = &w.node[0].r;
    int64_t old = incarnation(&w, 0);
    case_act(&w, WORLD_RESTART, 0);
    net_only(r->bus, SECOND);
    for (int k = 0; k < 2 * MANY && r->shard[SECOND - 1].pos.seq < net_end(w.net, SECOND); k++) {
        case_fold(&w, 0);
    }
    case_act(&w, WORLD_FLUSH, 0);
    bool good = r->move_due == old && !mm_repl_caught_up(r) && !mm_repl_dirty(r);
    net_only(r->bus, 0);
    case_fold(&w, 0);
    good = good && mm_repl_caught_up(r) && !mm_repl_dirty(r) && r->move_due == old;
    case_act(&w, WORLD_FLUSH, 0);
    case_check("it is decided, too, where nothing else is to be stored", good && incarnation(&w, 0) != old, w.why);
    put(&w, 0, FIRST, 200);
    world_settle(&w);
    case_check("so what is written then comes", there(&w, 1, FIRST, 200), w.why);
    case_finish(&w, "with all nodes equal then");
}

/* A file that was set back is copied with what waits in it. The first of the two to read the
** log moves what waits to other numbers and sends it: the other meets there what waits with it
** as well, under numbers that it has not taken yet. */
static void copied_before_the_move(int shards, int more)
{
    struct world w;
    char name[200];
    case_open(&w, shards, 0, false);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    put(&w, 0, FIRST, 100);
    case_run(&w, 0, "INSERT INTO bag VALUES ('sent before', 1)");
    case_turns(&w, 0);
    case_act(&w, WORLD_SETBACK, 0);
    case_run(&w, 0, "BEGIN");
    put(&w, 0, FIRST, 101);
    put(&w, 0, SECOND, 102);
    case_run(&w, 0, "INSERT INTO bag VALUES ('waits', 1); COMMIT");
    for (int k = 0; k < more; k++) {
        case_run(&w, 0, "INSERT INTO bag VALUES ('behind it', 1)");
    }
    int copy = w.nnode;
    case_act(&w, WORLD_COPY, 0);
    bool good = w.nnode == copy + 1 && bagged(&w, copy, "waits") == 1;
    case_turns(&w, 0);
    case_run(&w, copy, "INSERT INTO bag VALUES ('of the copy', 1)");
    world_settle(&w);
    snprintf(name, sizeof name, "what a copy has sent counts once, and so does what waits behind it (%d, %d shards)",
             more, shards);
    case_check(name,
               good && !w.failed && bagged(&w, copy, "waits") == 1 && bagged(&w, copy, "behind it") == more &&
                   bagged(&w, 1, "waits") == 1 && bagged(&w, 1, "behind it") == more &&
                   bagged(&w, 1, "of the copy") == 1,
               w.why);
    case_finish(&w, "and all end equal");
}

/* One of the two copies has sent the first of what waits in both when the other reads it;
** `apart`: which then has more to read, message by message. */
static void half_sent_by_a_copy(bool apart)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    put(&w, 0, FIRST, 100);
    case_turns(&w, 0);
    case_act(&w, WORLD_SETBACK, 0);
    case_run(&w, 0, "INSERT INTO bag VALUES ('waits', 1)");
    case_run(&w, 0, "INSERT INTO bag VALUES ('behind it', 1)");
    int copy = w.nnode;
    case_act(&w, WORLD_COPY, 0);
    case_fold(&w, 0);
    case_act(&w, WORLD_FLUSH, 0);
    case_fold(&w, 0);
    case_act(&w, WORLD_PUMP, 0);
    bool good = w.nnode == copy + 1 && case_met(&w, 0, 1, NET_STORED) == 1;
    if (apart) {
        case_run(&w, 1, "INSERT INTO bag VALUES ('of another', 1)");
        case_publish(&w, 1);
        case_act(&w, WORLD_RESTART, (unsigned)copy);
        case_fold_each(&w, (unsigned)copy, 4);
    }
    case_fold(&w, (unsigned)copy);
    case_act(&w, WORLD_FLUSH, (unsigned)copy);
    case_act(&w, WORLD_DELIVER, (unsigned)copy);
    good = good && case_pending(&w, 0) == 2 && case_pending(&w, copy) == 1;
    case_check("what waits behind it has the same numbers in both",
               good && mm_pending_at(case_shard(&w, copy)->pending, 0)->incarnation ==
                           mm_pending_at(case_shard(&w, 0)->pending, 1)->incarnation,
               w.why);
    world_settle(&w);
    case_check("and counts once, too", bagged(&w, 1, "waits") == 1 && bagged(&w, 1, "behind it") == 1, w.why);
    case_finish(&w, "with all copies equal");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    one_shard();
    not_told_yet(FIRST);
    not_told_yet(SECOND);
    two_shards(FIRST);
    two_shards(SECOND);
    written_last(FIRST);
    written_last(SECOND);
    nothing_new();
    half_sent_by_a_copy(false);
    half_sent_by_a_copy(true);
    for (int shards = 1; shards <= 2; shards++) {
        copied_before_the_move(shards, 0);
        copied_before_the_move(shards, 3);
    }
    return case_end();
}
