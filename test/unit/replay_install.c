/* A copy that lacks a table: what the node remembers of the table, so that a later copy is
** judged by the right rules. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/partition.h"
#include "snapshot/install.h"
#include "store/policy.h"
#include "store/watch.h"
#include "test/model/cases.h"
#include "test/model/memory_vfs.h"

static const char copy_path[] = "/copy.db";

/* Node 0, with table bag in this state and at this place. */
static bool install(struct world *w, enum mm_watch_state state, int64_t seq)
{
    struct mm_diff_table table = { .name = (char[]){ "bag" }, .mode = MM_DIFF_ABSENT, .why = "the copy lacks it" };
    struct mm_diff diff = { .table = &table, .n = 1 };
    static const bool take[] = { true };
    struct mm_work work = { 0 };
    struct mm_install in = { .copy = copy_path, .diff = &diff, .take = take, .work = &work };
    struct mm_repl *r = &w->node[0].r;
    struct mm_err err;
    int64_t given_up;
    mm_err_init(&err);
    mm_watch_set(r->db, "bag", state, NULL, &err);
    mm_watch_set_joined_seq(r->db, "bag", seq, &err);
    mm_targets_forget(r->targets);
    r->copy_due = false;
    if (mm_install_run(r, &in, &given_up, &err) != SQLITE_OK) {
        snprintf(w->why, sizeof w->why, "%.400s", err.msg);
    }
    return err.rc == SQLITE_OK && given_up == 0;
}

static void lacks(struct world *w, const char *name, enum mm_watch_state state, int64_t seq, int64_t then)
{
    struct mm_err err;
    mm_err_init(&err);
    const struct mm_repl *r = &w->node[0].r;
    enum mm_watch_state after = state == MM_WATCHED ? MM_STALE : state;
    bool good = install(w, state, seq) && mm_watch_get(w->node[0].app, "bag", NULL, &err) == after &&
                mm_watch_joined_seq(w->node[0].app, "bag", &err) == then && r->copy_due == (state == MM_JOINING) &&
                !r->reload_needed;
    case_check(name, good && err.rc == SQLITE_OK, w->why);
}

/* The content of node `from`, with all that it has accepted. */
static void copy_of(struct world *w, int from)
{
    sqlite3 *db = NULL;
    memory_remove(copy_path);
    bool good = sqlite3_open(copy_path, &db) == SQLITE_OK;
    sqlite3_backup *b = good ? sqlite3_backup_init(db, "main", w->node[from].r.db, "main") : NULL;
    good = b != NULL && sqlite3_backup_step(b, -1) == SQLITE_DONE;
    good = sqlite3_backup_finish(b) == SQLITE_OK && good;
    sqlite3_close(db);
    if (!good) {
        case_check("a copy", false, "it cannot be made");
    }
}

/* Of node 1, as a comparison notes it. */
static uint64_t shape_of(const struct world *w, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_table *def = mm_table_load(w->node[1].r.db, table, &err);
    uint64_t shape = def != NULL ? mm_table_hash(def) : 0;
    mm_table_free(def);
    return shape;
}

static bool joins(const struct world *w, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    sqlite3 *db = w->node[1].r.db;
    return mm_watch_needs_copy(mm_watch_get(db, table, NULL, &err), mm_watch_joined_seq(db, table, &err));
}

static void all_but_bag(const struct world *w, struct mm_diff *diff)
{
    for (int s = 0; s < w->shards; s++) {
        for (int k = 0; k < w->ndef[s]; k++) {
            bool out = strcmp(w->def[s][k].name, "bag") == 0;
            diff->table[diff->n++] = (struct mm_diff_table){ .name = (char *)w->def[s][k].name,
                                                             .mode = out ? MM_DIFF_ABSENT : MM_DIFF_ALL,
                                                             .shape = shape_of(w, w->def[s][k].name),
                                                             .joins = joins(w, w->def[s][k].name),
                                                             .captured = true,
                                                             .why = "the copy lacks it" };
        }
    }
}

/* A node takes a copy that has accepted what is pending here. With a row of a table that
** stays out, which was not sent. */
static void beside_what_stays_out(void)
{
    struct world w;
    struct mm_diff_table table[WORLD_TABLES];
    struct mm_diff diff = { .table = table };
    struct mm_work work = { 0 };
    struct mm_err err;
    int64_t given_up;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    struct mm_repl *r = &w.node[1].r;
    mm_watch_set(r->db, "bag", MM_STALE, "not here yet", &err);
    mm_targets_forget(r->targets);
    mm_watch_set_joined_seq(r->db, "bag", MM_SEQ_NEVER, &err);
    case_run(&w, 1, "BEGIN; UPDATE plain SET a = 'mine' WHERE id = 1; INSERT INTO bag VALUES ('own', 1); COMMIT");
    case_publish(&w, 1);
    case_run(&w, 1, "BEGIN; UPDATE plain SET b = 'later' WHERE id = 1; INSERT INTO bag VALUES ('own', 2); COMMIT");
    case_act(&w, WORLD_PUMP, 1);
    case_turns(&w, 0);
    copy_of(&w, 0);
    all_but_bag(&w, &diff);
    struct mm_install in = {
        .copy = copy_path, .diff = &diff, .cluster_id = "00000000000000000000000000000001", .work = &work
    };
    bool good = case_pending(&w, 1) == 2;
    mm_install_run(r, &in, &given_up, &err);
    case_check("a copy that has accepted what is pending", good && err.rc == SQLITE_OK && case_pending(&w, 1) == 1,
               err.msg);
    case_check("leaves what is still pending on top",
               case_answer(&w, 1, "SELECT a = 'mine' AND b = 'later' FROM plain WHERE id = 1") == 1, w.why);
    case_check("and takes nothing from a table that stays out",
               case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'own'") == 2, w.why);
    world_close(&w);
}

/* What is still pending in one shard says nothing of another's: of none of it the copy has anything,
** so nothing of it is the base's. */
static void each_shard_for_itself(void)
{
    struct world w;
    struct mm_diff_table table[WORLD_TABLES];
    struct mm_diff diff = { .table = table };
    struct mm_work work = { 0 };
    struct mm_err err;
    int64_t given_up;
    mm_err_init(&err);
    case_open(&w, 2, 2, false);
    case_rest(&w);
    struct mm_repl *r = &w.node[1].r;
    copy_of(&w, 0);
    mm_watch_set(r->db, "bag", MM_STALE, "not here yet", &err);
    mm_watch_set_joined_seq(r->db, "bag", MM_SEQ_NEVER, &err);
    mm_targets_forget(r->targets);
    for (int k = 0; k < 2; k++) {
        case_run(&w, 1, "INSERT INTO ubag VALUES ('first shard', NULL)");
    }
    for (int k = 0; k < 2; k++) {
        case_run(&w, 1, "INSERT INTO bag VALUES ('second shard', %d)", k);
    }
    all_but_bag(&w, &diff);
    struct mm_install in = {
        .copy = copy_path, .diff = &diff, .cluster_id = "00000000000000000000000000000001", .work = &work
    };
    mm_install_run(r, &in, &given_up, &err);
    case_check("what no shard has accepted is pending in both",
               err.rc == SQLITE_OK && mm_pending_count(r->shard[0].pending) == 2 &&
                   mm_pending_count(r->shard[1].pending) == 2,
               err.msg);
    case_check("and stands once in either",
               case_answer(&w, 1, "SELECT count(*) FROM ubag WHERE a = 'first shard'") == 2 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'second shard'") == 2,
               "it does not");
    world_close(&w);
}

/* Who merges keeps rows that only exist here, but for a table that had joined before: what is there and not
** in the copy the cluster has deleted since. */
static void merged(bool before)
{
    struct world w;
    struct mm_diff_table table[WORLD_TABLES];
    struct mm_diff diff = { .table = table };
    struct mm_work work = { 0 };
    struct mm_err err;
    int64_t given_up;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    struct mm_repl *r = &w.node[1].r;
    copy_of(&w, 0);
    mm_watch_set(r->db, "plain", MM_STALE, "not here yet", &err);
    mm_watch_set_joined_seq(r->db, "plain", before ? MM_SEQ_BEFORE : MM_SEQ_NEVER, &err);
    mm_db_exec(r->db, &err, "INSERT INTO plain VALUES (77, 'only here', 1)"); /* nothing captures it */
    mm_targets_forget(r->targets);
    all_but_bag(&w, &diff);
    for (int k = 0; k < diff.n; k++) {
        table[k].mode = strcmp(table[k].name, "plain") == 0 ? MM_DIFF_ALL : MM_DIFF_SAME;
        table[k].before = before;
    }
    struct mm_install in = {
        .copy = copy_path, .diff = &diff, .merge = true, .cluster_id = "00000000000000000000000000000001", .work = &work
    };
    mm_install_run(r, &in, &given_up, &err);
    case_check(before ? "a merge brings back nothing to a table that had joined" : "a merge keeps what is here alone",
               err.rc == SQLITE_OK &&
                   case_answer(&w, 1, "SELECT count(*) FROM plain WHERE a = 'only here'") == !before &&
                   (int)case_pending(&w, 1) == !before,
               err.rc != SQLITE_OK ? err.msg : "it does not");
    world_close(&w);
}

/* Node 1 takes all of the copy, as `in` asks for it; of table `keyed` (may be NULL) by what the copy
** lists of it. */
static void take(struct world *w, struct mm_install in, const char *keyed, struct mm_err *err)
{
    struct mm_diff_table table[WORLD_TABLES];
    struct mm_diff diff = { .table = table };
    struct mm_work work = { 0 };
    int64_t given_up;
    for (int k = 0; k < w->ndef[0]; k++) {
        bool keys = keyed != NULL && strcmp(w->def[0][k].name, keyed) == 0;
        table[diff.n++] = (struct mm_diff_table){ .name = (char *)w->def[0][k].name,
                                                  .mode = keys ? MM_DIFF_KEYS : MM_DIFF_ALL,
                                                  .shape = shape_of(w, w->def[0][k].name),
                                                  .joins = joins(w, w->def[0][k].name),
                                                  .captured = true,
                                                  .rows = 1 };
    }
    in.copy = copy_path;
    in.diff = &diff;
    in.cluster_id = "00000000000000000000000000000001";
    in.work = &work;
    mm_install_run(&w->node[1].r, &in, &given_up, err);
}

/* `why` (may be NULL) is what it says when it does not. */
static bool take_all(struct world *w, bool fresh, const char *why)
{
    struct mm_err err;
    mm_err_init(&err);
    take(w, (struct mm_install){ .fresh = fresh }, NULL, &err);
    if (why == NULL ? err.rc != SQLITE_OK : err.rc != SQLITE_MISMATCH || strstr(err.msg, why) == NULL) {
        snprintf(w->why, sizeof w->why, "it says %d %.400s", err.rc, err.msg);
        return false;
    }
    return true;
}

/* What a table says shall become of a row that it does not take is for its own application: a copy's
** row that it obeyed would be lost, or another, unsaid. */
static void answer_of_its_own(const char *answer, const char *columns, bool keyed)
{
    struct world w;
    struct mm_err err;
    char name[160];
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "DROP TABLE plain; CREATE TABLE plain(id INTEGER PRIMARY KEY, %s)", columns);
    case_run(&w, 1, "INSERT INTO plain(id, a, b) VALUES (7, 'mine', 'x')");
    copy_of(&w, 0);
    sqlite3 *db = NULL;
    char *sql = NULL;
    for (int k = 0; k < w.ndef[0] && keyed; k++) {
        if (strcmp(w.def[0][k].name, "plain") == 0) {
            sql = sqlite3_mprintf("CREATE TABLE __marmot__diff_%d(k1, here, there);"
                                  "INSERT INTO __marmot__diff_%d VALUES (1, 0, 1), (2, 0, 1), (7, 1, 0)",
                                  k, k);
        }
    }
    bool good = sqlite3_open(copy_path, &db) == SQLITE_OK &&
                (sql == NULL || sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_free(sql);
    sqlite3_close(db);
    take(&w, (struct mm_install){ .fresh = false }, keyed ? "plain" : NULL, &err);
    snprintf(name, sizeof name, "a table that answers a copy's row with %s%s takes none, and that is said", answer,
             keyed ? ", by its keys," : "");
    case_check(name,
               good && !w.failed && (err.rc & 0xff) == SQLITE_CONSTRAINT &&
                   case_answer(&w, 1, "SELECT count(*) = 1 AND min(a) = 'mine' FROM plain") == 1,
               err.rc == SQLITE_OK ? "it is done" : err.msg);
    world_close(&w);
}

static void answers_of_its_own(void)
{
    static const char *const answer[] = { "IGNORE", "REPLACE" };
    for (int k = 0; k < 6; k++) {
        char columns[80];
        snprintf(columns, sizeof columns,
                 k % 3 == 1 ? "b TEXT NOT NULL ON CONFLICT %s DEFAULT 'x', a"
                            : "a, b TEXT NOT NULL ON CONFLICT %s DEFAULT 'x'",
                 answer[k / 3]);
        answer_of_its_own(answer[k / 3], columns, k % 3 == 2);
    }
}

static int64_t incarnation(struct world *w)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_head_incarnation(w->node[1].app, &err);
}

/* Rules, the cluster's list, and that a table that waited has joined, come with the rows. */
static void with_the_state(bool fresh)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_run(&w, 0, "BEGIN IMMEDIATE");
    mm_policy_request(w.node[0].app, "plain", "a", MM_POLICY_DELTA, &err);
    case_run(&w, 0, "COMMIT; UPDATE plain SET b = 'new' WHERE id = 1");
    case_turns(&w, 0);
    mm_watchlist_add(w.node[0].app, "extra", 1, 5, &err);
    copy_of(&w, 0);
    mm_watch_set(w.node[1].r.db, "plain", MM_STALE, "it waits", &err);
    mm_watch_set_joined_seq(w.node[1].r.db, "plain", MM_SEQ_BEFORE, &err);
    mm_targets_forget(w.node[1].r.targets);
    int64_t before = incarnation(&w);
    sqlite3 *app = w.node[1].app;
    case_check("a copy is taken", take_all(&w, fresh, NULL) && case_shard(&w, 1)->pos.seq == net_end(w.net, 1), w.why);
    case_check("with its rows", case_answer(&w, 1, "SELECT b = 'new' FROM plain WHERE id = 1") == 1, w.why);
    case_check("its rules", mm_policy_get(app, "plain", "a", &err) == MM_POLICY_DELTA, w.why);
    case_check("the cluster's list", mm_watchlist_seq(app, "extra", &err) == 5, w.why);
    case_check("and what waited has joined",
               mm_watch_get(app, "plain", NULL, &err) == MM_WATCHED && mm_watch_joined_seq(app, "plain", &err) == 1,
               w.why);
    case_check("a new epoch has new numbers, the same one the old", (incarnation(&w) != before) == fresh, w.why);
    case_check("no error", err.rc == SQLITE_OK, err.msg);
    world_close(&w);
}

/* A table that was watched when the node had joined long ago, and has not joined: it holds rows of
** its own, which only `join` may give away. Then the node has to take all of a copy. */
static void not_joined(enum mm_watch_state state, int64_t seq, int64_t then)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    copy_of(&w, 0);
    sqlite3 *app = w.node[1].app;
    mm_watch_set(app, "bag", MM_UNWATCHED, NULL, &err);
    case_run(&w, 1, "CREATE TABLE touch(x); DROP TABLE touch; INSERT INTO bag VALUES ('mine', 1)");
    mm_watch_set(app, "bag", state, NULL, &err);
    mm_watch_set_joined_seq(app, "bag", seq, &err);
    mm_targets_forget(w.node[1].r.targets);
    case_check("a whole copy is taken", take_all(&w, false, NULL), w.why);
    case_check("without the rows of a table that has not joined",
               case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'mine'") == 1, "they are gone");
    case_check("and asks for a copy of its own", w.node[1].r.copy_due == (state == MM_JOINING), "it does not");
    case_check("which goes on as it was",
               mm_watch_get(app, "bag", NULL, &err) == state && mm_watch_joined_seq(app, "bag", &err) == then,
               mm_watch_state_name(mm_watch_get(app, "bag", NULL, &err)));
    case_check("the others are the copy's", mm_watch_get(app, "plain", NULL, &err) == MM_WATCHED, err.msg);
    world_close(&w);
}

/* Who asks to adopt gives such rows up, who asks to merge has them sent; and a newcomer has been asked for
** all of its tables. */
static void not_joined_and_asked(struct mm_install in, bool newcomer, const char *name)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    copy_of(&w, 0);
    sqlite3 *app = w.node[1].app;
    struct mm_repl *r = &w.node[1].r;
    mm_db_exec(r->db, &err, "INSERT INTO bag VALUES ('mine', 1)"); /* nothing captures it */
    mm_watch_set(app, "bag", MM_JOINING, NULL, &err);
    mm_watch_set_joined_seq(app, "bag", MM_SEQ_NEVER, &err);
    mm_targets_forget(r->targets);
    r->joined = !newcomer;
    take(&w, in, NULL, &err);
    case_check(name,
               err.rc == SQLITE_OK && mm_watch_get(app, "bag", NULL, &err) == MM_WATCHED &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'mine'") == in.merge &&
                   case_pending(&w, 1) == in.merge,
               err.rc != SQLITE_OK ? err.msg : "it does not");
    world_close(&w);
}

/* With the rows come ids of other nodes: what SQLite numbers next here is of this file's own block at once. */
static void numbers_of_its_own(void)
{
    enum { SLOT = 3, THEIRS = 10 };
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    for (int k = 0; k < 2; k++) {
        case_run(&w, k, "DROP TABLE plain; CREATE TABLE plain(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b TEXT)");
    }
    case_run(&w, 0, "INSERT INTO plain VALUES (%d, 'theirs', 'x')", THEIRS);
    copy_of(&w, 0);
    w.node[1].r.partition = true;
    w.node[1].r.id_slot = SLOT;
    take(&w, (struct mm_install){ .fresh = false }, NULL, &err);
    case_check("ids that SQLite makes behind a copy are of this file's block",
               err.rc == SQLITE_OK && case_answer(&w, 1, "SELECT seq FROM sqlite_sequence WHERE name = 'plain'") ==
                                          mm_partition_place(SLOT, THEIRS),
               err.rc != SQLITE_OK ? err.msg : "they are not");
    world_close(&w);
}

/* The copy lacks what this node had sent, and its outbox has it no more; or what another node
** had: in a new epoch nobody would send that again. */
static void lacking(bool own)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    copy_of(&w, 0);
    case_run(&w, own, "UPDATE plain SET b = 'lost' WHERE id = 1");
    case_rest(&w);
    case_rest(&w);
    net_now_us += INT64_C(100000000);
    case_run(&w, own, "UPDATE plain SET a = 'lost' WHERE id = 1");
    case_rest(&w);
    case_rest(&w);
    net_now_us += INT64_C(100000000);
    case_rest(&w);
    case_check(own ? "a copy without what the outbox has no more is refused"
                   : "so is a new epoch that lacks another node's changes",
               take_all(&w, !own, own ? "its outbox no longer holds" : "new epoch does not"), w.why);
    case_check("and nothing was taken",
               case_answer(&w, 1, "SELECT a = 'lost' AND b = 'lost' FROM plain WHERE id = 1") == 1, w.why);
    world_close(&w);
}

int main(void)
{
    struct world w;
    mm_log_silence();
    world_prepare();
    beside_what_stays_out();
    each_shard_for_itself();
    merged(true);
    merged(false);
    with_the_state(false);
    with_the_state(true);
    not_joined(MM_STALE, MM_SEQ_NEVER, MM_SEQ_NEVER);
    not_joined(MM_STALE, MM_SEQ_COPY, MM_SEQ_COPY);
    not_joined(MM_JOINING, MM_SEQ_NEVER, MM_SEQ_COPY);
    not_joined_and_asked((struct mm_install){ .give_up = true }, false, "who adopts gives such rows up");
    not_joined_and_asked((struct mm_install){ .merge = true }, false, "who merges has them sent");
    not_joined_and_asked((struct mm_install){ .fresh = false }, true, "and a newcomer takes the cluster's");
    numbers_of_its_own();
    lacking(true);
    lacking(false);
    answers_of_its_own();
    case_open(&w, 1, 2, false);
    case_rest(&w);
    memory_remove(copy_path);
    sqlite3 *db = NULL;
    if (sqlite3_open(copy_path, &db) != SQLITE_OK ||
        sqlite3_exec(db, "CREATE TABLE other(x)", NULL, NULL, NULL) != SQLITE_OK) {
        case_check("a copy", false, sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    lacks(&w, "a table that reads the log had joined, and waits as such", MM_JOINING, 5, MM_SEQ_BEFORE);
    lacks(&w, "one that had joined goes on waiting as such", MM_JOINING, MM_SEQ_BEFORE, MM_SEQ_BEFORE);
    lacks(&w, "one that never joined is to be compared", MM_JOINING, MM_SEQ_NEVER, MM_SEQ_COPY);
    lacks(&w, "and stays so", MM_JOINING, MM_SEQ_COPY, MM_SEQ_COPY);
    lacks(&w, "one that began empty is to be merged", MM_JOINING, MM_SEQ_EMPTY, MM_SEQ_EMPTY);
    lacks(&w, "one that was stale is so still", MM_STALE, MM_SEQ_BEFORE, MM_SEQ_BEFORE);
    lacks(&w, "what it read of the log says nothing at the place of the copy", MM_STALE, 5, MM_SEQ_BEFORE);
    lacks(&w, "nor does it of one that was watched", MM_WATCHED, 1, MM_SEQ_BEFORE);
    world_close(&w);
    memory_remove(copy_path);
    return case_end();
}
