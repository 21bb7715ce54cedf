/* Where what is pending meets what comes: by what is found that they touch the same, after
** the definition of a table has changed, too; and what then becomes of the columns. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "store/policy.h"
#include "test/model/cases.h"

/* A key in other bytes that its collation calls equal. */
static void other_spelling(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "INSERT INTO names VALUES ('zoe', 'mine', 1)");
    case_run(&w, 0, "INSERT INTO names VALUES ('ZOE', 'theirs', 7)");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("what is pending stays on top of a row whose key is spelt in another way",
               !w.failed && case_pending(&w, 1) == 1 &&
                   case_answer(&w, 1, "SELECT v = 'mine' AND n = 1 FROM names WHERE k = 'zoe'") == 1,
               w.why);
    case_finish(&w, "and all nodes end equal after both");
}

/* One of the two has the whole row, the other columns of it. */
static void whole_and_part(int whole)
{
    static const char *const change[2] = { "REPLACE INTO plain VALUES (1, %Q, %Q)",
                                           "UPDATE plain SET a = %Q, b = %Q WHERE id = 1" };
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, change[whole != 1], "mine", "mine");
    case_run(&w, 0, change[whole == 1], "theirs", "theirs");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("what is pending stays on top of other columns of its row",
               !w.failed && case_pending(&w, 1) == 1 &&
                   case_answer(&w, 1, "SELECT a = 'mine' AND b = 'mine' FROM plain WHERE id = 1") == 1,
               w.why);
    case_finish(&w, "and all nodes end equal after these");
}

/* Of a message that deletes one row, and another one unless that is 0. */
static size_t overlap_of(struct world *w, const char *table, const char *column, int64_t id, int64_t other)
{
    const char *columns[] = { column, "a" };
    uint8_t pk[] = { 1, 0 };
    struct mm_value before[2] = { { .type = SQLITE_INTEGER, .u.i = id }, { .type = SQLITE_NULL } };
    struct mm_value behind[2] = { { .type = SQLITE_INTEGER, .u.i = other }, { .type = SQLITE_NULL } };
    struct mm_row row[2] = { { .op = MM_OP_DELETE, .before = before }, { .op = MM_OP_DELETE, .before = behind } };
    struct mm_tab tab = { .name = table, .ncol = 2, .col = columns, .pk = pk, .row = row, .nrow = other != 0 ? 2 : 1 };
    struct mm_txn txn = { .tab = &tab, .ntab = 1 };
    struct mm_err err;
    mm_err_init(&err);
    size_t at = mm_pending_overlap(case_shard(w, 1)->pending, &txn, &err);
    return err.rc == SQLITE_OK ? at : 99;
}

static size_t overlap(struct world *w, const char *table, const char *column, int64_t id)
{
    return overlap_of(w, table, column, id, 0);
}

/* Many are pending: the oldest of those that touch a row is found, under names as another node
** has them, too. */
static void oldest_first(void)
{
    enum { ROWS = 300 };
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    for (int k = 0; k < 2 * ROWS; k++) {
        case_run(&w, 1, "REPLACE INTO plain VALUES (%d, %d, 'many')", 100 + k % ROWS, k);
    }
    case_act(&w, WORLD_PUMP, 1);
    case_check("the oldest that touches a row is found",
               case_pending(&w, 1) == 2 * ROWS && overlap(&w, "plain", "id", 100) == 0 &&
                   overlap(&w, "plain", "id", 107) == 7,
               w.why);
    case_check("of several rows, whichever comes first",
               overlap_of(&w, "plain", "id", 107, 103) == 3 && overlap_of(&w, "plain", "id", 103, 107) == 3, w.why);
    case_check("under names that differ in case alone, too",
               overlap(&w, "PLAIN", "ID", 100) == 0 && overlap(&w, "Plain", "Id", 107) == 7, w.why);
    case_check("a row that none of them touches is not", overlap(&w, "plain", "id", 3) == 2 * ROWS, w.why);
    int64_t bytes = mm_pending_bytes(case_shard(&w, 1)->pending);
    case_publish(&w, 1);
    for (int k = 0; k < 2 * ROWS / 7 && case_pending(&w, 1) > ROWS + 20; k++) {
        case_fold(&w, 1);
    }
    size_t gone = 2 * ROWS - case_pending(&w, 1);
    case_check("nor one that has come back before",
               gone > 0 && gone < ROWS && overlap(&w, "plain", "id", 100) == ROWS - gone &&
                   overlap(&w, "plain", "id", 100 + ROWS - 1) == ROWS - 1 - gone,
               w.why);
    case_check("and its bytes do not count any more", mm_pending_bytes(case_shard(&w, 1)->pending) < bytes, w.why);
    case_finish(&w, "and all nodes end equal after that");
}

/* A table gets a UNIQUE index while something is pending: its rows depend on each other now. */
static void index_meanwhile(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "UPDATE plain SET b = 'held' WHERE id = 1");
    case_act(&w, WORLD_PUMP, 1);
    case_run(&w, 1, "CREATE UNIQUE INDEX only_here ON plain(b)");
    case_run(&w, 0, "INSERT INTO plain VALUES (5, 5, 'held')");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("what is pending keeps a value that is UNIQUE since",
               !w.failed && case_pending(&w, 1) == 1 &&
                   case_answer(&w, 1, "SELECT group_concat(id) = '1' FROM plain WHERE b = 'held'") == 1,
               w.why);
    world_close(&w);
}

/* conflict = "row": a message sets all that the row had, pending changes as well. */
static void whole_rows(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    w.node[0].r.all_columns = true;
    mm_pending_set_all_columns(case_shard(&w, 0)->pending, true);
    case_run(&w, 0, "UPDATE plain SET a = 'mine' WHERE id = 1");
    case_run(&w, 1, "UPDATE plain SET b = 'theirs' WHERE id = 1");
    case_publish(&w, 1);
    case_fold(&w, 0);
    static const char all[] = "SELECT a = 'mine' AND b = 'x' FROM plain WHERE id = 1";
    case_check("with whole rows a pending change hides another column's", case_answer(&w, 0, all) == 1, w.why);
    case_publish(&w, 0);
    case_fold(&w, 0);
    case_check("and sets it", case_answer(&w, 0, all) == 1 && case_pending(&w, 0) == 0, w.why);
    case_turns(&w, 1);
    case_check("on every node", case_answer(&w, 1, all) == 1, w.why);
    case_finish(&w, "and all nodes end equal");
}

/* Something is pending on a table that is read from the log a second time. */
static void second_reading(void)
{
    enum { PLAIN = 0 };
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 0, "UPDATE plain SET a = 'first', b = 'first' WHERE id = 1");
    world_settle(&w);
    bool good = world_again(&w, &w.node[1], PLAIN);
    case_run(&w, 1, "UPDATE plain SET b = 'mine' WHERE id = 1");
    case_run(&w, 0, "UPDATE plain SET a = 'behind' WHERE id = 1"); /* comes with it, and is not of it */
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("a second reading leaves what is pending on top",
               good && !w.failed && case_pending(&w, 1) == 1 && case_shard(&w, 1)->replay == NULL &&
                   case_answer(&w, 1, "SELECT a = 'first' AND b = 'mine' FROM plain WHERE id = 1") == 1,
               w.why);
    case_finish(&w, "and all nodes end equal then");
}

/* What is pending was done by the rule of before: it is done again by the new one. */
static void by_the_new_rule(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 0, "UPDATE plain SET a = a + 3 WHERE id = 2");
    case_act(&w, WORLD_PUMP, 0);
    case_run(&w, 1, "UPDATE plain SET a = a + 10 WHERE id = 2");
    case_publish(&w, 1);
    case_fold(&w, 0);
    case_run(&w, 1, "BEGIN IMMEDIATE");
    mm_policy_request(w.node[1].app, "plain", "a", MM_POLICY_DELTA, &err);
    case_run(&w, 1, "COMMIT");
    case_publish(&w, 1);
    case_fold(&w, 0);
    case_check("what is pending when a rule comes is done by it",
               err.rc == SQLITE_OK && !w.failed && case_pending(&w, 0) == 1 &&
                   case_answer(&w, 0, "SELECT a FROM plain WHERE id = 2") == 15,
               w.why);
    case_finish(&w, "and stays so on all nodes");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    other_spelling();
    whole_and_part(0);
    whole_and_part(1);
    oldest_first();
    index_meanwhile();
    whole_rows();
    second_reading();
    by_the_new_rule();
    return case_end();
}
