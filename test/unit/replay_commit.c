/* Batches and flushes that cannot be committed: whatever step fails, positions in
** memory and in the database, and what counts as echoed, are those of before; nothing of it
** is stored afterwards, and another attempt goes through. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/commit.h"
#include "store/watch.h"
#include "test/model/cases.h"

enum { PLACES_MAX = 4000, OFTEN = 7 };

/* All that a batch or a flush may move in the database, as one text. */
static char *stored(struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    char *text = mm_db_text(
        n->app, &err,
        "SELECT group_concat(line, char(10)) FROM ("
        "SELECT 'position ' || shard || ' ' || seq || ' ' || hex(digest) AS line FROM main.__marmot__position UNION "
        "ALL "
        "SELECT 'origin ' || node || ' ' || incarnation || ' ' || seq || ' ' || hex(txid) FROM main.__marmot__origin "
        "UNION ALL SELECT 'accepted ' || node || ' ' || seq FROM main.__marmot__accepted ORDER BY line)");
    int64_t echoed = mm_outbox_echoed_upto(n->r.outbox, &err);
    char *all = sqlite3_mprintf("%s\nechoed %lld %s", text, (long long)echoed, err.msg);
    sqlite3_free(text);
    return all;
}

struct before {
    struct mm_position pos;
    int64_t echoed;
    char *text;
};

static struct before look(struct world_node *n)
{
    return (struct before){ n->r.shard[0].pos, mm_repl_echoed(&n->r), stored(n) };
}

/* What holds after an attempt that was rolled back. */
static bool stands(struct world *w, struct world_node *n, const struct before *b, const char **why)
{
    const struct mm_commit_trim trim = { .look = true, .keep_ms = 0, .keep_bytes = 0, .rows = 100 };
    struct mm_err err;
    bool more;
    mm_err_init(&err);
    char *now = stored(n);
    *why = strcmp(now, b->text) != 0                                         ? "the database has moved"
           : memcmp(&n->r.shard[0].pos, &b->pos, sizeof b->pos) != 0         ? "the position in memory has moved"
           : mm_repl_echoed(&n->r) > b->echoed                               ? "what counts as echoed has moved"
           : n->r.shard[0].blocked_seq != 0                                  ? "it is blocked by what was not folded"
           : !n->r.reload_needed                                             ? "memory is not marked"
           : !sqlite3_get_autocommit(n->r.db)                                ? "a transaction is open"
           : mm_commit_store(&n->r, &trim, &more, &err) != MM_STORED_NOTHING ? "it can be stored"
                                                                             : NULL;
    sqlite3_free(now);
    now = stored(n);
    if (*why == NULL && strcmp(now, b->text) != 0) {
        *why = "it was stored";
    }
    sqlite3_free(now);
    struct world_step s = { WORLD_FLUSH, (unsigned)(n - w->node), 1 };
    world_check_now(w, &s);
    if (*why == NULL && w->failed) {
        *why = w->why;
    }
    return *why == NULL;
}

static void deliver_all(struct world *w)
{
    for (int k = 0; k < 8; k++) {
        case_act(w, WORLD_DELIVER, 1);
    }
}

/* Node 1 has a transaction in the log, behind one of node 0 on the same row: a batch of
** both undoes it, folds, folds it, and its echo leaves the pending ones. */
static void two_messages(struct world *w, int n)
{
    case_run(w, 0, "UPDATE plain SET a = %d, b = 'theirs' WHERE id = 1", n);
    case_run(w, 1, "UPDATE plain SET a = %d + 100000 WHERE id = 1", n);
    case_publish(w, 0);
    case_publish(w, 1);
    deliver_all(w);
}

/* Echoes alone: folded in memory. */
static void echoes(struct world *w, int n)
{
    case_run(w, 1, "UPDATE plain SET a = %d WHERE id = 2", n);
    case_run(w, 1, "UPDATE plain SET a = -%d WHERE id = 2", n);
    case_publish(w, 1);
    deliver_all(w);
    case_act(w, WORLD_APPLY, 1);
}

/* A table is read from the log a second time, up to the end. */
static void second_reading(struct world *w, int n)
{
    enum { BAG = 4 };
    struct mm_err err;
    mm_err_init(&err);
    case_run(w, 0, "INSERT INTO bag VALUES ('again', %d)", n);
    case_rest(w);
    if (mm_watch_get(w->node[1].r.db, "bag", NULL, &err) != MM_WATCHED || !world_again(w, &w->node[1], BAG)) {
        snprintf(w->why, sizeof w->why, "the reading before did not end");
        w->failed = true;
    }
    deliver_all(w);
}

/* Tables that are not known yet are looked up for an own change that was not read yet,
** in the batch that folds another node's. */
static void strange_tables(struct world *w, int n)
{
    case_run(w, 0, "UPDATE plain SET b = 'theirs %d' WHERE id = 1", n);
    case_publish(w, 0);
    deliver_all(w);
    case_run(w, 1, "UPDATE names SET v = %d", n);
    mm_targets_forget(w->node[1].r.targets);
}

static void rest(struct world *w)
{
    case_rest(w);
    net_now_us += 900000;
    case_rest(w);
}

/* Each place of a kind in one step of node 1, one after the other. */
static void sweep(enum fault kind, enum world_act what, void (*prepare)(struct world *, int), long stride)
{
    struct world w;
    char name[160];
    char why[600] = "";
    int rolled_back = 0;
    int got_through = 0;
    bool good = true;
    bool came = true;
    case_open(&w, 1, 2, false);
    rest(&w);
    struct world_node *n = &w.node[1];
    for (long nth = 1; came && good && nth < PLACES_MAX; nth += stride) {
        const char *wrong = NULL;
        prepare(&w, (int)nth);
        struct before b = look(n);
        struct world_step s = case_step(what, 1, 8);
        came = world_act_faulty(&w, &s, kind, nth);
        if (!w.failed && came && n->r.reload_needed) {
            rolled_back++;
            good = stands(&w, n, &b, &wrong);
        } else {
            got_through += came;
            wrong = what == WORLD_APPLY && n->r.shard[0].pos.seq == b.pos.seq ? "it failed, and memory is not marked"
                                                                              : NULL;
            good = !came || wrong == NULL;
        }
        sqlite3_free(b.text);
        rest(&w);
        good = good && !w.failed;
        if (!good) {
            snprintf(why, sizeof why, "%s %ld: %s", fault_name(kind), nth, wrong != NULL ? wrong : w.why);
        }
    }
    world_settle(&w);
    snprintf(name, sizeof name, "%s fails in %s%s: all stands as before", fault_name(kind), world_act_name(what),
             prepare == second_reading   ? " of a second reading"
             : prepare == strange_tables ? " on tables that are not known yet"
                                         : "");
    printf("# %d times rolled back, %d times not\n", rolled_back, got_through);
    if (good && (came || rolled_back == 0 || w.failed)) {
        good = false;
        snprintf(why, sizeof why, "%d rolled back; %s", rolled_back, w.why);
    }
    case_check(name, good, why);
    world_close(&w);
}

/* A batch ends with a message that this library cannot read, and cannot be committed: the
** shard is not blocked yet by what it will meet again. */
static void blocked(void)
{
    static const uint8_t newer[] = { 0x08, 0x7f }; /* a format version */
    struct world w;
    struct world_step s = case_step(WORLD_APPLY, 1, 8);
    bool good = true;
    bool came = true;
    case_open(&w, 1, 2, false);
    rest(&w);
    const struct mm_shard *shard = &w.node[1].r.shard[0];
    case_run(&w, 0, "UPDATE plain SET a = %d WHERE id = 1", 1);
    case_publish(&w, 0);
    net_store(w.net, 1, newer, sizeof newer, false);
    for (long nth = 1; came && good; nth++) {
        deliver_all(&w);
        if (!shard->checked) { /* the message at the position itself */
            case_act(&w, WORLD_APPLY, 1);
        }
        struct before b = look(&w.node[1]);
        const char *wrong = NULL;
        came = world_act_faulty(&w, &s, FAULT_STEP, nth);
        good = !came || stands(&w, &w.node[1], &b, &wrong);
        sqlite3_free(b.text);
    }
    case_check("a message that blocks, in a batch that fails: all stands as before", good && !came, w.why);
    case_check("in one that does not it blocks",
               shard->blocked_seq == net_end(w.net, 1) && shard->pos.seq == shard->blocked_seq - 1, w.why);
    world_close(&w);
}

/* Where nothing is new nothing is written: each commit of ours costs the application. */
static void quiet(void)
{
    const struct mm_commit_trim trim = { .look = false, .keep_ms = 0, .keep_bytes = 0, .rows = 100 };
    enum mm_commit_stored said[3];
    struct world w;
    struct mm_err err;
    bool more = true;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    rest(&w);
    echoes(&w, 1);
    struct mm_repl *r = &w.node[1].r;
    bool ahead = mm_repl_dirty(r) && r->kept_bytes > 0;
    for (int k = 0; k < 3; k++) {
        said[k] = mm_commit_store(r, &trim, &more, &err);
    }
    case_check("echoes in memory are stored once, and nothing then",
               ahead && said[0] == MM_STORED && said[1] == MM_STORED_NOTHING && said[2] == MM_STORED_NOTHING &&
                   !mm_repl_dirty(r) && !more,
               err.msg);
    int rows[3] = { 0 };
    for (int k = 0; k < 3; k++) {
        int before = sqlite3_total_changes(r->db);
        echoes(&w, 2 + k);
        (void)mm_commit_store(r, &trim, &more, &err);
        rows[k] = sqlite3_total_changes(r->db) - before;
    }
    case_check("each time what is new alone", rows[0] > 0 && rows[1] == rows[0] && rows[2] == rows[0], err.msg);
    world_settle(&w);
    case_check("and all end equal after that", !w.failed, w.why);
    world_close(&w);
}

/* A transaction that SQLite has rolled back by itself: positions would go alone. */
static void ended_by_itself(void)
{
    struct world w;
    struct mm_err err;
    const char *wrong = NULL;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    rest(&w);
    struct mm_repl *r = &w.node[1].r;
    struct before b = look(&w.node[1]);
    mm_commit_begin(r, &err);
    b.pos = r->shard[0].pos;
    mm_commit_stands(r, &err);
    bool stood = err.rc == SQLITE_OK;
    r->shard[0].pos.seq += 1000;
    r->shard[0].dirty = true;
    sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    bool ended = mm_commit_end(r, &err) == SQLITE_ABORT;
    bool good = stands(&w, &w.node[1], &b, &wrong);
    case_check("a transaction that has ended before stores nothing", stood && ended && good, wrong);
    sqlite3_free(b.text);
    world_close(&w);
}

/* What is echoed stays for a time, and goes before when there is too much of it. */
static void too_much(void)
{
    const struct mm_commit_trim any = { .look = false, .keep_ms = 0, .keep_bytes = 0, .rows = 100 };
    const struct mm_commit_trim much = { .look = false, .keep_ms = 0, .keep_bytes = 1 << 20, .rows = 100 };
    struct world w;
    struct mm_err err;
    bool more = false;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    rest(&w);
    echoes(&w, 1);
    struct mm_repl *r = &w.node[1].r;
    bool good = mm_commit_store(r, &much, &more, &err) == MM_STORED;
    int64_t gone = mm_outbox_gone(r->db, &err);
    int64_t echoed = mm_repl_echoed(r);
    good = good && mm_commit_store(r, &much, &more, &err) == MM_STORED_NOTHING && gone < echoed;
    case_check("what is echoed stays while it is not too much", good && mm_outbox_gone(r->db, &err) == gone, err.msg);
    good = mm_commit_store(r, &any, &more, &err) == MM_STORED && !more;
    case_check("and goes then, whatever its age", good && mm_outbox_gone(r->db, &err) == echoed, err.msg);
    /* Another's message moves the position, and no echo. */
    static const char written[] = "SELECT count(*) FROM main.__marmot__echo";
    int64_t before = case_answer(&w, 1, "%s", written);
    case_run(&w, 0, "UPDATE plain SET a = 'theirs' WHERE id = 1");
    case_publish(&w, 0);
    net_now_us += 900000;
    case_fold(&w, 1);
    case_check("how far it is echoed is written when it has moved alone",
               case_shard(&w, 1)->pos.seq == net_end(w.net, 1) && case_answer(&w, 1, "%s", written) == before, w.why);
    world_close(&w);
}

/* Messages of one shard are followed again: those of the other stay. */
static void dropped(void)
{
    struct world w;
    case_open(&w, 2, 2, false);
    case_rest(&w);
    case_run(&w, 0, "INSERT INTO bag VALUES ('one shard', 1); INSERT INTO ubag VALUES ('the other', 1)");
    case_publish(&w, 0);
    for (int k = 0; k < 4; k++) {
        case_act(&w, WORLD_DELIVER, 1);
    }
    struct mm_applier *a = w.node[1].applier;
    bool all = mm_applier_due(a);
    mm_applier_drop(a, 1);
    bool other = mm_applier_due(a);
    mm_applier_drop(a, 2);
    case_check("messages of a shard are dropped, those of the other stay", all && other && !mm_applier_due(a), w.why);
    world_close(&w);
}

/* What a failed batch left of the place in the log, and of what is sent, is of no place. */
static void reloaded(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    rest(&w);
    struct mm_repl *r = &w.node[1].r;
    struct mm_shard *s = &r->shard[0];
    int64_t seq = s->pos.seq;
    s->pos.seq += 10;
    s->verify_seq = s->pos.seq;
    s->window_bytes = 100;
    s->dirty = s->following = s->checked = true;
    r->tables_changed = false;
    mm_repl_reload(r, &err);
    case_check("a reload takes the place from the database, and has it checked again",
               err.rc == SQLITE_OK && s->pos.seq == seq && !s->dirty && !s->following && !s->checked, err.msg);
    case_check("nothing is under way or asked for, and the tables are looked at",
               s->window_bytes == 0 && s->verify_seq == 0 && r->tables_changed, err.msg);
    world_close(&w);
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    sweep(FAULT_MEMORY, WORLD_APPLY, strange_tables, OFTEN / 2);
    sweep(FAULT_STEP, WORLD_APPLY, strange_tables, 1);
    sweep(FAULT_STEP, WORLD_APPLY, two_messages, 1);
    sweep(FAULT_WRITE, WORLD_APPLY, two_messages, 1);
    sweep(FAULT_MEMORY, WORLD_APPLY, two_messages, OFTEN);
    sweep(FAULT_STEP, WORLD_APPLY, second_reading, 2);
    sweep(FAULT_STEP, WORLD_FLUSH, echoes, 1);
    sweep(FAULT_WRITE, WORLD_FLUSH, echoes, 1);
    sweep(FAULT_MEMORY, WORLD_FLUSH, echoes, OFTEN);
    blocked();
    quiet();
    ended_by_itself();
    too_much();
    dropped();
    reloaded();
    return case_end();
}
