/* Tables that wait: which of them the log may bring, read a second time, and which it may
** not, since it holds too little of them. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/join.h"
#include "store/watch.h"
#include "test/model/cases.h"

enum { PLACE = 5 };

static void set(struct world *w, enum mm_watch_state state, int64_t seq, struct mm_err *err)
{
    struct mm_repl *r = &w->node[1].r;
    mm_watch_set(r->db, "plain", state, NULL, err);
    mm_watch_set_joined_seq(r->db, "plain", seq, err);
    mm_targets_forget(r->targets);
    r->copy_due = false;
}

static bool is(struct world *w, enum mm_watch_state state, int64_t seq)
{
    struct mm_err err;
    mm_err_init(&err);
    enum mm_watch_state now = mm_watch_get(w->node[1].app, "plain", NULL, &err);
    int64_t at = mm_watch_joined_seq(w->node[1].app, "plain", &err);
    if (!w->failed) {
        snprintf(w->why, sizeof w->why, "state %d at %lld %.400s", (int)now, (long long)at, err.msg);
    }
    return err.rc == SQLITE_OK && now == state && at == seq && !w->failed;
}

/* A message that this library cannot read is passed over. It lies behind what each table has:
** the log would be read past it once more. */
static void passed_over(void)
{
    static const uint8_t newer[] = { 0x08, 0x7f }; /* a format version */
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    set(&w, MM_WATCHED, PLACE, &err);
    struct mm_repl *r = &w.node[1].r;
    struct mm_shard *s = case_shard(&w, 1);
    net_store(w.net, 1, newer, sizeof newer, false);
    s->skip_seq = net_end(w.net, 1);
    for (int k = 0; k < 8 && s->pos.seq < net_end(w.net, 1); k++) {
        case_act(&w, WORLD_TURN, 1);
    }
    case_check("a table that a message passed over may have named is stale, and had joined",
               s->pos.seq == net_end(w.net, 1) && is(&w, MM_STALE, MM_SEQ_BEFORE), w.why);
    r->schema_moved = true;
    mm_join_again(r, &err);
    case_check("and a change of the schema does not have the log read again for it",
               err.rc == SQLITE_OK && is(&w, MM_STALE, MM_SEQ_BEFORE) && r->copy_due, w.why);
    world_close(&w);
}

/* It would come back with other rows than those behind which it was stale. */
static void gone(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    struct mm_repl *r = &w.node[1].r;
    set(&w, MM_STALE, PLACE, &err);
    case_run(&w, 1, "DROP TABLE plain");
    r->schema_moved = true;
    mm_join_again(r, &err);
    case_check("a stale table that is gone has lost what it had",
               err.rc == SQLITE_OK && is(&w, MM_STALE, MM_SEQ_BEFORE), w.why);
    static const enum mm_watch_state others[] = { MM_JOINING, MM_WATCHED };
    static const char *const what[] = { "so has one that was being read", "and one that was watched" };
    for (int k = 0; k < 2; k++) {
        set(&w, others[k], PLACE, &err);
        r->schema_moved = true;
        mm_join_again(r, &err);
        case_check(what[k], err.rc == SQLITE_OK && is(&w, MM_STALE, MM_SEQ_BEFORE), w.why);
    }
    set(&w, MM_STALE, MM_SEQ_EMPTY, &err);
    r->schema_moved = true;
    mm_join_again(r, &err);
    case_check("one that had not joined is to be compared", err.rc == SQLITE_OK && is(&w, MM_STALE, MM_SEQ_COPY),
               w.why);
    set(&w, MM_WATCHED, PLACE, &err);
    r->schema_moved = true;
    mm_join_again(r, &err);
    case_run(&w, 1, "CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b TEXT)");
    mm_targets_forget(r->targets);
    r->copy_due = false;
    r->schema_moved = true;
    mm_join_again(r, &err);
    case_check("and waits for a copy once it is there again",
               err.rc == SQLITE_OK && is(&w, MM_STALE, MM_SEQ_BEFORE) && r->copy_due, w.why);
    world_close(&w);
}

/* What the cluster began with is named by a message: NULL, none comes; else its first column's
** sum is off by `other`. */
static void began_with(const int *other, int64_t seq, enum mm_watch_state then, int64_t joined, const char *name)
{
    struct world w;
    struct mm_err err;
    struct mm_msg m;
    struct mm_msg_table theirs;
    mm_err_init(&err);
    memset(&m, 0, sizeof m);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    struct mm_repl *r = &w.node[1].r;
    struct mm_shard *s = case_shard(&w, 1);
    mm_watchlist_add(r->db, "plain", 1, 1, &err);
    set(&w, MM_JOINING, 0, &err);
    mm_join_replay_begin(r, s, &err);
    bool good = s->replay != NULL && s->replay_tables == 1;
    struct mm_target *t = mm_targets_get(r->targets, "plain", &err);
    mm_db_exec(r->db, &err, "BEGIN IMMEDIATE");
    if (other != NULL && mm_join_base(r, t, &theirs, &err) == SQLITE_OK) {
        theirs.rows += *other;
        m.control.table = &theirs;
        m.control.ntable = 1;
        mm_join_replayed(r, s, &m, seq, &err);
    }
    mm_join_replay_done(r, s, &err);
    mm_db_exec(r->db, &err, "COMMIT");
    snprintf(w.why, sizeof w.why, "%.400s", err.msg);
    good = good && err.rc == SQLITE_OK && is(&w, then, joined) && r->copy_due == (then == MM_JOINING);
    case_check(name, good, w.why);
    world_close(&w);
}

/* A message finds the table of node 1 changed by `how`: it is stale, and at this place only where all
** that came before the message is in it. */
static void changed(const char *how, bool again, const char *name)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "UPDATE plain SET a = 'waits' WHERE id = 1");
    case_run(&w, 1, "%s", how);
    case_run(&w, 0, "UPDATE plain SET b = 'lacks' WHERE id = 2");
    case_publish(&w, 0);
    int64_t seq = net_end(w.net, 1);
    w.node[1].r.schema_moved = false;
    case_fold(&w, 1);
    case_check(name, is(&w, MM_STALE, again ? seq : MM_SEQ_BEFORE), w.why);
    case_check("and looked at, since the schema is another one", w.node[1].r.schema_moved, "it is not");
    case_run(&w, 0, "UPDATE plain SET a = 'too' WHERE id = 1");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("and it stays so, whatever waits in it", is(&w, MM_STALE, again ? seq : MM_SEQ_BEFORE), w.why);
    world_close(&w);
}

/* What the cluster began with stands in the first shard alone: also for tables of another one. */
static void founded_in_another_shard(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 2, 2, false);
    struct mm_repl *r = &w.node[1].r;
    struct mm_shard *s = &r->shard[1];
    mm_watch_set(r->db, "bag", MM_JOINING, NULL, &err);
    mm_watch_set_joined_seq(r->db, "bag", 0, &err);
    mm_targets_forget(r->targets);
    r->positions_only = true;
    case_check("no table is read again where positions alone are followed", !mm_join_replay_wanted(r, s, &err),
               err.msg);
    r->positions_only = false;
    bool good = mm_join_replay_wanted(r, s, &err);
    mm_join_replay_begin(r, s, &err);
    case_check("a table of another shard joins by what the cluster began with",
               good && err.rc == SQLITE_OK && mm_watch_get(w.node[1].app, "bag", NULL, &err) == MM_WATCHED &&
                   mm_watch_joined_seq(w.node[1].app, "bag", &err) == 1 && !r->copy_due,
               err.msg);
    case_finish(&w, "and all nodes end equal");
}

/* The node stands still for a comparison with a copy: whether the table is part of that, told in the log. */
static void compared(enum mm_watch_state state, int64_t seq, bool there, bool is_part, const char *name)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    if (!there) {
        case_run(&w, 1, "DROP TABLE plain");
    }
    struct mm_repl *r = &w.node[1].r;
    mm_db_exec(r->db, &err, "CREATE TABLE strange(x)");
    mm_watch_set(r->db, "strange", MM_STALE, NULL, &err); /* which is not on the cluster's list */
    set(&w, state, seq, &err);
    mm_join_compare(r, &err);
    mm_repl_read_outbox(r, &err);
    int64_t then = is_part && seq != MM_SEQ_EMPTY ? MM_SEQ_COPY : seq;
    case_check(name,
               err.rc == SQLITE_OK && is(&w, is_part ? MM_JOINING : state, then) && case_pending(&w, 1) == is_part &&
                   mm_watch_get(r->db, "strange", NULL, &err) == MM_STALE,
               w.why);
    world_close(&w);
}

/* It is created anew while it waits, as none that can be replicated. */
static void not_supported(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    set(&w, MM_JOINING, MM_SEQ_NEVER, &err);
    case_run(&w, 1, "DROP TABLE plain; CREATE TABLE plain(rowid, _rowid_, oid)");
    mm_targets_forget(w.node[1].r.targets);
    w.node[1].r.schema_moved = true;
    mm_join_again(&w.node[1].r, &err);
    case_check("a table that waits and cannot be replicated any more is told of",
               err.rc == SQLITE_OK && is(&w, MM_UNSUPPORTED, MM_SEQ_NEVER), w.why);
    world_close(&w);
}

/* The log behind the newest snapshot says how a table began that the copy is to have then: it comes at once, with
** the message that the snapshot ends with. */
static void came_behind_the_snapshot(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    bool good = w.kept[0] != NULL;
    case_act(&w, WORLD_MAKE, 0);
    case_act(&w, WORLD_MAKE, 1);
    case_rest(&w);
    case_run(&w, 0, "INSERT INTO born VALUES (1, 'a', 'b')");
    case_rest(&w);
    case_check("a table that came behind the newest snapshot has joined by the log",
               good && w.born && case_answer(&w, 1, "SELECT count(*) FROM born") == 1 &&
                   mm_watch_get(w.node[1].app, "born", NULL, &err) == MM_WATCHED,
               w.why);
    long brought = w.brought;
    for (int k = 0; k < 3; k++) {
        case_act(&w, WORLD_BRING, 1);
    }
    case_check("and is in a copy that is made of that snapshot and the log", !w.failed && w.brought == brought + 1,
               "the copy lacks it");
    case_check("with its rows",
               case_answer(&w, 1, "SELECT count(*) FROM born") == 1 &&
                   mm_watch_get(w.node[1].app, "born", NULL, &err) == MM_WATCHED,
               "they are gone");
    case_finish(&w, "all is equal");
}

int main(void)
{
    static const int equal = 0;
    static const int more = 1;
    mm_log_silence();
    world_prepare();
    passed_over();
    gone();
    changed("DROP TABLE plain", false, "a table that is gone when it is changed is to be compared");
    changed("DROP TABLE plain; CREATE TABLE plain(id, a PRIMARY KEY, b)", false, "one with another key, too");
    changed("ALTER TABLE plain DROP COLUMN b", true, "one that lacks a column is read from there on");
    not_supported();
    came_behind_the_snapshot();
    founded_in_another_shard();
    compared(MM_STALE, MM_SEQ_NEVER, true, true, "a stale table that never joined is compared with a copy");
    compared(MM_STALE, MM_SEQ_COPY, true, true, "so is one that was to be compared");
    compared(MM_STALE, MM_SEQ_EMPTY, true, true, "and one that began empty, as such");
    compared(MM_STALE, MM_SEQ_NEVER, false, false, "not one that is not here");
    compared(MM_STALE, MM_SEQ_BEFORE, true, false, "one that had joined is not asked for");
    compared(MM_STALE, PLACE, true, false, "nor one that the log brings");
    compared(MM_JOINING, MM_SEQ_COPY, true, false, "one that waits already is told once");
    compared(MM_UNWATCHED, MM_SEQ_NEVER, true, false, "and one that was left stays so");
    began_with(&equal, 3, MM_WATCHED, 4, "a table with what the cluster began with is read from there on");
    began_with(&more, 3, MM_JOINING, MM_SEQ_COPY, "one with other content waits for a copy, to be compared");
    began_with(NULL, 0, MM_JOINING, MM_SEQ_COPY, "and one of which the log does not say it");
    return case_end();
}
