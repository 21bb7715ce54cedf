/* Where what is pending meets what comes: by what is found that they touch the same, after
** the definition of a table has changed, too; and what then becomes of the columns. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "repl/join.h"
#include "test/model/cases.h"

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

int main(void)
{
    mm_log_silence();
    world_prepare();
    index_meanwhile();
    whole_rows();
    second_reading();
    return case_end();
}
