/* Rows without identity that go in numbers: as many of each as were taken, wherever they stand,
** and no other; by the place that SQLite gives them, whatever the columns are called. */
#include <stdio.h>

#include "base/log.h"
#include "store/watch.h"
#include "test/model/cases.h"

/* Equal rows: some of them go, with others that stand behind all of those. */
static void equal_ones(const char *which, int left)
{
    struct world w;
    char name[160];
    case_open(&w, 1, 2, false);
    case_run(&w, 0,
             "WITH n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < 40)"
             " INSERT INTO bag SELECT 'equal', 1 FROM n UNION ALL SELECT 'other', k FROM n");
    case_rest(&w);
    case_run(&w, 0, "DELETE FROM bag WHERE rowid IN (%s) OR (a = 'other' AND b > 10)", which);
    case_rest(&w);
    snprintf(name, sizeof name, "%d of 40 equal rows stay, and 10 others", left);
    case_check(name,
               case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'equal'") == left &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'other' AND b <= 10") == 10 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'other'") == 10,
               w.why);
    case_finish(&w, "on all nodes");
}

/* A column that is called as SQLite calls the place of a row: another name of that is taken. */
static void named_rowid(const char *columns)
{
    struct world w;
    struct mm_err err;
    char name[160];
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    for (int k = 0; k < 2; k++) {
        case_run(&w, k, "CREATE TABLE odd(%s)", columns);
        mm_watch_set(w.node[k].app, "odd", MM_WATCHED, NULL, &err);
        mm_watch_set_joined_seq(w.node[k].app, "odd", 1, &err);
        case_act(&w, WORLD_RESTART, (unsigned)k);
    }
    case_rest(&w);
    case_run(&w, 0, "INSERT INTO odd VALUES (1, 'one'), (1, 'three'), (1, 'two')");
    case_run(&w, 0, "DELETE FROM odd WHERE b = 'two'; UPDATE odd SET b = 'more' WHERE b = 'three'");
    case_rest(&w);
    snprintf(name, sizeof name, "a table with columns %s loses the row that is meant", columns);
    case_check(name,
               err.rc == SQLITE_OK && case_answer(&w, 1, "SELECT count(*) FROM odd") == 2 &&
                   case_answer(&w, 1, "SELECT count(*) FROM odd WHERE b IN ('one', 'more')") == 2,
               err.rc != SQLITE_OK ? err.msg : w.why);
    world_close(&w);
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    equal_ones("SELECT rowid FROM bag WHERE a = 'equal'", 0);
    equal_ones("SELECT rowid FROM bag WHERE a = 'equal' LIMIT 3", 37);
    equal_ones("SELECT rowid FROM bag WHERE a = 'equal' LIMIT 39", 1);
    named_rowid("rowid, b");
    named_rowid("_rowid_, b");
    named_rowid("oid, b");
    return case_end();
}
