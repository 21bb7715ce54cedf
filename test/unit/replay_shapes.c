/* What is undone and done again when the table has got another shape meanwhile (of a column more
** replay_defaults.c), and what stood in rows that cannot be told apart; what triggers have noted;
** what is left of a second reading that was broken off. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "capture/trigger.h"
#include "store/meta.h"
#include "store/policy.h"
#include "store/watch.h"
#include "test/model/cases.h"

enum { PLAIN = 0, BAG = 4 };

/* Rows without identity: one transaction makes B of A, and C of B. Once the other B is gone
** both are of one row, and only from the end on they are undone to what stood there. */
static void rows_that_follow_each_other(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_run(&w, 0, "INSERT INTO bag VALUES ('A', 0), ('B', 0)");
    case_rest(&w);
    case_turns(&w, 0);
    case_run(&w, 1, "BEGIN; UPDATE bag SET a = 'B' WHERE a = 'A'");
    case_run(&w, 1, "UPDATE bag SET a = 'C' WHERE rowid = (SELECT max(rowid) FROM bag WHERE a = 'B'); COMMIT");
    case_act(&w, WORLD_PUMP, 1);
    case_run(&w, 0, "DELETE FROM bag WHERE a = 'B'");
    case_publish(&w, 0);
    case_fold(&w, 1);
    static const char held[] = "SELECT group_concat(a, '') = %Q FROM (SELECT a FROM bag WHERE a IN ('A', 'B', 'C', 'D')"
                               " ORDER BY a)";
    case_check("what is pending is done on the rows that are left", case_answer(&w, 1, held, "C") == 1, w.why);
    case_run(&w, 0, "INSERT INTO bag VALUES ('D', 0)");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("and undone from its end", case_pending(&w, 1) == 1 && case_answer(&w, 1, held, "CD") == 1, w.why);
    case_finish(&w, "and all nodes end equal");
}

/* A row twice in the images of one transaction, in two shapes of its table: as it stood at first
** comes last. */
static void images_of_two_shapes(void)
{
    struct world w;
    const char *columns[] = { "id", "a" };
    uint8_t pk[] = { 1, 0 };
    struct mm_value stood[2][2] = {
        { { .type = SQLITE_INTEGER, .u.i = 1 }, { .type = SQLITE_INTEGER, .u.i = 10 } },
        { { .type = SQLITE_INTEGER, .u.i = 1 }, { .type = SQLITE_INTEGER, .u.i = 20 } },
    };
    struct mm_row row[2] = { { .op = MM_OP_INSERT, .after = stood[0] }, { .op = MM_OP_INSERT, .after = stood[1] } };
    struct mm_tab tab[2] = {
        { .name = "plain", .ncol = 2, .col = columns, .pk = pk, .row = &row[0], .nrow = 1 },
        { .name = "plain", .ncol = 2, .col = columns, .pk = pk, .row = &row[1], .nrow = 1 },
    };
    struct mm_txn txn = { .tab = tab, .ntab = 2 };
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    struct mm_repl *r = &w.node[1].r;
    mm_db_exec(r->db, &err, "BEGIN IMMEDIATE");
    mm_apply_images(r->db, r->targets, &txn, &err);
    mm_db_exec(r->db, &err, "COMMIT");
    case_check("of two images of a row the older one counts",
               err.rc == SQLITE_OK && case_answer(&w, 1, "SELECT a FROM plain WHERE id = 1") == 10, err.msg);
    world_close(&w);
}

static bool stale_from(struct world *w, int64_t seq)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_watch_get(w->node[1].app, "plain", NULL, &err) == MM_STALE &&
           mm_watch_joined_seq(w->node[1].app, "plain", &err) == seq && err.rc == SQLITE_OK;
}

/* A pending transaction that cannot be done again says nothing of where the log would have to
** be read: the table waits for a copy, and stays one that had joined. */
static void pending_misfit(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "INSERT INTO bag VALUES ('older', 1)");
    case_run(&w, 1, "UPDATE plain SET a = 'mine' WHERE id = 2");
    case_run(&w, 0, "DELETE FROM plain WHERE id = 2; INSERT INTO bag VALUES ('theirs', 1)");
    case_publish(&w, 0);
    case_fold(&w, 1); /* its row is gone: nothing stood there */
    bool good = case_pending(&w, 1) == 2;
    case_run(&w, 1, "ALTER TABLE plain DROP COLUMN a");
    case_run(&w, 0, "INSERT INTO bag VALUES ('again', 1)");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("a table that lacks a column of what is pending waits for a copy",
               good && !w.failed && stale_from(&w, MM_SEQ_BEFORE), w.why);
    world_close(&w);
}

/* marmot_unwatch while something is pending: nothing of the table is undone any more, as nothing
** of it would be done again. */
static void not_watched_any_more(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "INSERT INTO bag VALUES ('older', 1)");
    case_run(&w, 1, "UPDATE plain SET a = 'mine' WHERE id = 1");
    case_act(&w, WORLD_PUMP, 1);
    mm_watch_set(w.node[1].r.db, "plain", MM_UNWATCHED, NULL, &err);
    mm_targets_forget(w.node[1].r.targets);
    case_run(&w, 0, "INSERT INTO bag VALUES ('theirs', 1)");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("a table that is not watched any more keeps what was written to it",
               err.rc == SQLITE_OK && !w.failed && case_pending(&w, 1) == 2 &&
                   case_answer(&w, 1, "SELECT a = 'mine' FROM plain WHERE id = 1") == 1,
               w.why);
    world_close(&w);
}

/* A table that was made anew with another key holds nobody knows what. */
static void another_key(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "DROP TABLE plain; CREATE TABLE plain(id, a, b TEXT, PRIMARY KEY (id, a))");
    case_run(&w, 0, "UPDATE plain SET b = 'theirs' WHERE id = 1");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("so does one with another key", !w.failed && stale_from(&w, MM_SEQ_BEFORE), w.why);
    world_close(&w);
}

/* So with a key over another column of it, one more that no message has, and one that does
** not take what comes: some of its rows may be written by then. */
static void another_table(const char *what, int node, const char *definition, const char *change)
{
    struct world w;
    char name[120];
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, node, "DROP TABLE plain; CREATE TABLE plain(%s)", definition);
    case_run(&w, 0, "%s", change);
    case_publish(&w, 0);
    case_fold(&w, 1);
    snprintf(name, sizeof name, "so does one %s", what);
    case_check(name, !w.failed && stale_from(&w, MM_SEQ_BEFORE), w.why);
    world_close(&w);
}

/* What a table says shall become of a row that it does not take is for its own application:
** done to what is folded it would lose that row, or all that the batch has folded before. */
static void answer_of_its_own(const char *answer, const char *change)
{
    struct world w;
    struct mm_err err;
    char name[160];
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1,
             "DROP TABLE plain;"
             "CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b TEXT NOT NULL ON CONFLICT %s DEFAULT 'x')",
             answer);
    mm_db_exec(w.node[1].r.db, &err, "INSERT INTO plain VALUES (1, 'one', 'x')"); /* nothing captures it */
    case_run(&w, 0, "INSERT INTO bag VALUES ('before', 1)");
    case_run(&w, 0, "%s", change);
    case_publish(&w, 0);
    case_fold(&w, 1);
    snprintf(name, sizeof name, "so does one that answers such a row with %s, and nothing else is lost: %s", answer,
             change);
    case_check(name,
               !w.failed && err.rc == SQLITE_OK && stale_from(&w, MM_SEQ_BEFORE) &&
                   case_shard(&w, 1)->pos.seq == net_end(w.net, 1) &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'before'") == 1,
               w.why);
    world_close(&w);
}

/* A before-image with the key and one column alone. */
static void image_of_part(const char *table, const char *column, const char *other)
{
    struct world w;
    char name[100];
    const char *columns[] = { "id", column };
    uint8_t pk[] = { 1, 0 };
    struct mm_value stood[2] = { { .type = SQLITE_INTEGER, .u.i = 1 }, { .type = SQLITE_INTEGER, .u.i = 77 } };
    struct mm_row row = { .op = MM_OP_INSERT, .after = stood };
    struct mm_tab tab = { .name = table, .ncol = 2, .col = columns, .pk = pk, .row = &row, .nrow = 1 };
    struct mm_txn txn = { .tab = &tab, .ntab = 1 };
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_run(&w, 1, "UPDATE \"%w\" SET \"%w\" = 'kept' WHERE id = 1", table, other);
    struct mm_repl *r = &w.node[1].r;
    mm_db_exec(r->db, &err, "BEGIN IMMEDIATE");
    mm_apply_images(r->db, r->targets, &txn, &err);
    mm_db_exec(r->db, &err, "COMMIT");
    snprintf(name, sizeof name, "so does any in table %s that an image does not name", table);
    case_check(name,
               err.rc == SQLITE_OK &&
                   case_answer(&w, 1, "SELECT \"%w\" = 77 AND \"%w\" = 'kept' FROM \"%w\" WHERE id = 1", column, other,
                               table) == 1,
               err.msg);
    world_close(&w);
}

/* A message names a table that belongs to another shard, in which other nodes may be elsewhere. */
static void in_another_shard(void)
{
    struct world w;
    struct mm_err err;
    struct mm_buf b;
    bool zstd = false;
    const char *columns[] = { "a", "b" };
    uint8_t pk[] = { 0, 0 };
    struct mm_value put[2] = { { .type = SQLITE_INTEGER, .u.i = 77 }, { .type = SQLITE_NULL } };
    struct mm_row row = { .op = MM_OP_INSERT, .after = put };
    struct mm_tab tab = { .name = "bag", .ncol = 2, .col = columns, .pk = pk, .row = &row, .nrow = 1 };
    struct mm_msg m = {
        .kind = MM_MSG_TXN, .epoch = 1, .node = 99, .incarnation = 1, .origin_seq = 1, .txid = "other"
    };
    m.txn = (struct mm_txn){ .tab = &tab, .ntab = 1 };
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 16);
    case_open(&w, 2, 2, false);
    case_rest(&w);
    mm_wire_encode(&b, &m, false, &zstd, &err);
    net_store(w.net, mm_watch_shard("bag", 2) == 1 ? 2 : 1, b.data, b.len, false);
    mm_buf_free(&b);
    case_rest(&w);
    int64_t skipped = w.node[1].r.shard[0].skipped + w.node[1].r.shard[1].skipped;
    case_check("a row of a table of another shard is skipped, and counted",
               err.rc == SQLITE_OK && skipped == 1 && case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 77") == 0,
               w.why);
    case_finish(&w, "on all nodes");
}

/* Of a reference that hangs a message tells, once; not what is pending, nor a second reading. */
static void dangling(void)
{
    struct world w;
    static const char hangs[] = "SELECT count(*) FROM __marmot__conflict WHERE kind = 'foreign_key'";
    case_open(&w, 1, 2, false);
    case_run(&w, 0, "INSERT INTO bag VALUES ('no table has any', 1)");
    case_rest(&w);
    case_rest(&w);
    for (int k = 0; k < 2; k++) {
        case_run(&w, k, "DROP TABLE plain; CREATE TABLE plain(id INTEGER PRIMARY KEY, a REFERENCES uniq(id), b TEXT)");
    }
    case_run(&w, 1, "INSERT INTO plain VALUES (10, 1, 'hangs')");
    case_run(&w, 0, "DELETE FROM uniq WHERE id = 1; INSERT INTO plain VALUES (10, 2, 'overlaps')");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("a pending row that refers to nothing is not told of",
               case_pending(&w, 1) == 1 && case_answer(&w, 1, hangs) == 0, w.why);
    case_publish(&w, 1);
    case_rest(&w);
    case_check("but when it comes back", case_pending(&w, 1) == 0 && case_answer(&w, 1, hangs) == 1, w.why);
    bool good = world_again(&w, &w.node[1], PLAIN);
    case_rest(&w);
    case_rest(&w);
    case_check("and not when it is read again",
               good && case_shard(&w, 1)->replay == NULL && case_answer(&w, 1, hangs) == 1, w.why);
    world_close(&w);
}

/* A second reading folds by the rules of each table. */
static void rule_of_another_table(void)
{
    enum { NAMES = 3 };
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 0, "BEGIN IMMEDIATE");
    mm_policy_request(w.node[0].app, "pair", "v", MM_POLICY_DELTA, &err);
    case_run(&w, 0, "COMMIT");
    case_publish(&w, 0);
    case_rest(&w);
    case_run(&w, 0, "UPDATE names SET v = v + 3 WHERE k = 'bob'");
    case_run(&w, 1, "UPDATE names SET v = v + 10 WHERE k = 'bob'"); /* the last one: 11 */
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_rest(&w);
    case_rest(&w);
    bool good = world_again(&w, &w.node[1], NAMES);
    case_rest(&w);
    case_rest(&w);
    case_check("a second reading does not take another table's rule",
               good && err.rc == SQLITE_OK && !w.failed && case_shard(&w, 1)->replay == NULL &&
                   case_answer(&w, 1, "SELECT v FROM names WHERE k = 'bob'") == 11,
               w.why);
    case_finish(&w, "so that all nodes have the same");
}

/* A writer that never loads this library: what its triggers noted is pending. */
static void noted_by_triggers(void)
{
    struct world w;
    struct mm_err err;
    sqlite3 *db = NULL;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    mm_db_exec(w.node[1].r.db, &err, "BEGIN IMMEDIATE");
    mm_meta_set_text(w.node[1].r.db, MM_META_CAPTURE, "auto", &err);
    mm_trigger_settle(w.node[1].r.db, &err);
    mm_db_exec(w.node[1].r.db, &err, "COMMIT");
    if (sqlite3_open(w.node[1].path, &db) == SQLITE_OK) {
        mm_db_exec(db, &err, "UPDATE plain SET a = 'mine' WHERE id = 1");
    }
    sqlite3_close(db);
    case_run(&w, 0, "UPDATE plain SET a = 'theirs', b = 'theirs' WHERE id = 1");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("what triggers noted stays on top of what comes",
               err.rc == SQLITE_OK && !w.failed && case_pending(&w, 1) == 1 &&
                   case_answer(&w, 1, "SELECT a = 'mine' AND b = 'theirs' FROM plain WHERE id = 1") == 1,
               err.rc != SQLITE_OK ? err.msg : w.why);
    case_rest(&w);
    case_rest(&w);
    case_check("and comes to the others", case_answer(&w, 0, "SELECT a = 'mine' FROM plain WHERE id = 1") == 1, w.why);
    case_finish(&w, "so that all nodes end equal");
}

/* A second reading is broken off behind a rule; the next one takes another table along, of
** which it reads what came before the rule. */
static void rules_of_an_earlier_reading(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 0, "UPDATE plain SET a = a + 3 WHERE id = 2");
    case_run(&w, 1, "UPDATE plain SET a = a + 10 WHERE id = 2"); /* the last one: 12 */
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_run(&w, 0, "BEGIN IMMEDIATE");
    mm_policy_request(w.node[0].app, "plain", "a", MM_POLICY_DELTA, &err);
    case_run(&w, 0, "COMMIT; INSERT INTO bag VALUES ('behind', 1)");
    case_publish(&w, 0);
    case_rest(&w);
    case_rest(&w);
    struct mm_repl *r = &w.node[1].r;
    bool good = world_again(&w, &w.node[1], BAG);
    for (int k = 0; k < 20 && case_shard(&w, 1)->policies.n == 0; k++) {
        case_fold_each(&w, 1, 1);
    }
    good = good && case_shard(&w, 1)->policies.n == 1 && case_shard(&w, 1)->replay != NULL;
    mm_applier_drop(w.node[1].applier, 0);
    mm_repl_reload(r, &err);
    good = good && world_again(&w, &w.node[1], PLAIN);
    case_rest(&w);
    case_rest(&w);
    case_check("a reading that begins anew knows no rule yet",
               good && err.rc == SQLITE_OK && !w.failed && case_shard(&w, 1)->replay == NULL &&
                   case_answer(&w, 1, "SELECT a FROM plain WHERE id = 2") == 12,
               w.why);
    case_finish(&w, "and brings what all nodes have");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    rows_that_follow_each_other();
    image_of_part("plain", "a", "b");
    image_of_part("uniq", "u", "v");
    images_of_two_shapes();
    pending_misfit();
    not_watched_any_more();
    another_key();
    another_table("with another column as its key", 1, "id INTEGER, a NOT NULL PRIMARY KEY, b TEXT",
                  "UPDATE plain SET b = 'theirs' WHERE id = 1");
    another_table("with a column more in its key", 1,
                  "id INTEGER, a, b TEXT, c NOT NULL DEFAULT 1, PRIMARY KEY (id, c)",
                  "UPDATE plain SET b = 'theirs' WHERE id = 1");
    another_table("that takes no NULL", 1, "id INTEGER PRIMARY KEY, a, b TEXT NOT NULL",
                  "INSERT INTO plain VALUES (50, 1, NULL)");
    another_table("that takes no text", 0, "id NOT NULL PRIMARY KEY, a, b TEXT",
                  "INSERT INTO plain VALUES ('text', 1, NULL)");
    for (int k = 0; k < 6; k++) {
        static const char *const answers[] = { "ROLLBACK", "IGNORE", "REPLACE" };
        answer_of_its_own(answers[k / 2],
                          k % 2 ? "UPDATE plain SET b = NULL WHERE id = 1" : "INSERT INTO plain VALUES (50, 1, NULL)");
    }
    in_another_shard();
    dangling();
    rule_of_another_table();
    noted_by_triggers();
    rules_of_an_earlier_reading();
    return case_end();
}
