/* A table gets a column while rows of it are pending, or before all nodes have it: what older rows hold there. */
#include <stdio.h>

#include "base/log.h"
#include "repl/join.h"
#include "test/model/cases.h"

/* A column that is younger than what is remembered of a row keeps its value there. */
static void younger_column(const char *table, const char *column)
{
    struct world w;
    char name[100];
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "UPDATE \"%w\" SET \"%w\" = 'mine' WHERE id = 1", table, column);
    case_run(&w, 0, "UPDATE \"%w\" SET \"%w\" = 'theirs' WHERE id = 1", table, column);
    case_publish(&w, 0);
    case_fold(&w, 1); /* what stood there is stored now */
    bool good = case_pending(&w, 1) == 1;
    for (int k = 0; k < 2; k++) {
        case_run(&w, k, "ALTER TABLE \"%w\" ADD COLUMN younger DEFAULT 5", table);
    }
    case_run(&w, 0, "UPDATE \"%w\" SET \"%w\" = 'again' WHERE id = 1", table, column);
    case_publish(&w, 0);
    case_fold(&w, 1);
    snprintf(name, sizeof name, "a column of %s that is younger than a before-image keeps its value", table);
    case_check(
        name,
        good && !w.failed && case_pending(&w, 1) == 1 &&
            case_answer(&w, 1, "SELECT \"%w\" = 'mine' AND younger = 5 FROM \"%w\" WHERE id = 1", column, table) == 1,
        w.why);
    world_close(&w);
}

/* A new row of a node that does not have the column yet. */
static void row_without_the_column(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "ALTER TABLE plain ADD COLUMN younger DEFAULT 5; ALTER TABLE uniq ADD COLUMN younger DEFAULT 5");
    case_run(&w, 0, "INSERT INTO plain VALUES (60, 1, 'x'); INSERT INTO uniq VALUES (60, 'x', 1)");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("a row that was sent without a column has its default",
               !w.failed && case_answer(&w, 1,
                                        "SELECT count(*) FROM plain JOIN uniq USING (id) WHERE id = 60 AND"
                                        " plain.younger = 5 AND uniq.younger = 5") == 1,
               w.why);
    case_run(&w, 1, "ALTER TABLE bag ADD COLUMN younger DEFAULT 5");
    case_run(&w, 0, "DELETE FROM bag WHERE a = 'a'; INSERT INTO bag VALUES (1.0, 'x')");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("and is found again without it, where it has no key",
               case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'a'") == 0, w.why);
    case_run(&w, 0, "DELETE FROM bag WHERE typeof(a) = 'real'");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("by type and bytes",
               case_answer(&w, 1, "SELECT group_concat(typeof(a)) = 'integer,integer' FROM bag WHERE a = 1") == 1,
               w.why);
    world_close(&w);
}

static bool same_base(struct world *w, const char *table)
{
    struct mm_err err;
    struct mm_msg_table base[2];
    mm_err_init(&err);
    for (int k = 0; k < 2; k++) {
        struct mm_repl *r = &w->node[k].r;
        mm_targets_refresh(r->targets, &err);
        struct mm_target *t = mm_targets_get(r->targets, table, &err);
        if (t == NULL || mm_join_base(r, t, &base[k], &err) != SQLITE_OK) {
            return false;
        }
    }
    return mm_join_difference(&base[0], &base[1]) == NULL;
}

/* Rows without identity that are pending when their table gets a column with a default: undone
** they were not found, and done again they were there once more, with each message. */
static void rows_older_than_a_default(int rows)
{
    struct world w;
    char name[100];
    case_open(&w, 1, 2, false);
    case_run(&w, 0, "INSERT INTO bag VALUES ('there', 1)");
    case_rest(&w);
    case_rest(&w);
    case_run(&w, 1,
             "INSERT INTO bag WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
             " SELECT 'mine', i FROM n",
             rows);
    case_run(&w, 1, "UPDATE plain SET a = 'mine' WHERE id = 1; DELETE FROM bag WHERE a = 'there'");
    case_run(&w, 1, "DELETE FROM names WHERE k = 'bob'");
    for (int k = 0; k < 2; k++) {
        case_run(&w, k,
                 "ALTER TABLE bag ADD COLUMN younger TEXT NOT NULL DEFAULT 5; ALTER TABLE plain ADD COLUMN c DEFAULT 7;"
                 "ALTER TABLE names ADD COLUMN c");
    }
    case_check("what is pending, older than a column, counts in a base as it stands there",
               same_base(&w, "bag") && same_base(&w, "plain") && same_base(&w, "names"), w.why);
    for (int k = 0; k < 3; k++) {
        case_run(&w, 0, "INSERT INTO bag VALUES ('theirs', %d, 'x'); UPDATE plain SET b = %d WHERE id = 1", k, k);
        case_publish(&w, 0);
        case_fold(&w, 1);
    }
    static const char held[] = "SELECT count(*) = %d AND sum(younger = '5') = %d FROM bag WHERE a = 'mine'";
    snprintf(name, sizeof name, "%d pending rows without identity, older than a column, are there once", rows);
    case_check(name,
               !w.failed && case_pending(&w, 1) > 0 && case_answer(&w, 1, held, rows, rows) == 1 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'there'") == 0,
               w.why);
    case_fold(&w, 0);
    case_check("and the base is that of the others, by arithmetic", same_base(&w, "bag") && same_base(&w, "plain"),
               w.why);
    case_finish(&w, "and all nodes end equal");
}

/* What an UPDATE leaves alone keeps its value, also in a column with a default, where another column is
** younger than the message. */
static void left_alone(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    for (int k = 0; k < 2; k++) {
        case_run(&w, k, "ALTER TABLE bag ADD COLUMN one DEFAULT 7");
    }
    case_run(&w, 1, "ALTER TABLE bag ADD COLUMN two DEFAULT 5");
    case_run(&w, 0, "INSERT INTO bag VALUES ('case', 1, 70)");
    case_run(&w, 0, "UPDATE bag SET b = 2 WHERE a = 'case'");
    case_publish(&w, 0);
    case_fold(&w, 1);
    case_check("what an UPDATE leaves alone is not taken for a column that it does not know",
               case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'case' AND b = 2 AND one = 70 AND two = 5") == 1,
               w.why);
    world_close(&w);
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    younger_column("plain", "a");
    younger_column("uniq", "v");
    row_without_the_column();
    rows_older_than_a_default(3);
    rows_older_than_a_default(40);
    left_alone();
    return case_end();
}
