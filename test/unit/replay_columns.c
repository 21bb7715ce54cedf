/* Columns that tables get while something is under way: at each node in its own time. */
#include <stdio.h>

#include "base/log.h"
#include "store/watch.h"
#include "test/model/cases.h"

/* The last act of the simulator's schedule, of one table. */
static bool alter(struct world *w, int node, const char *table)
{
    w->shapes = w->again = w->jumped = w->node[node].bring.altered = true;
    return case_run(w, node, "ALTER TABLE \"%w\" ADD COLUMN late INTEGER DEFAULT 7", table);
}

/* Between a comparison and what comes of it: of that column the copy has nothing. */
static void behind_a_comparison(const char *table, const char *change, const char *rows)
{
    struct world w;
    char name[120];
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    case_run(&w, 0, "%s", change);
    case_turns(&w, 0);
    case_act(&w, WORLD_BRING, 1);
    case_act(&w, WORLD_BRING, 1);
    bool good = w.node[1].bring.stage == BRING_READY && alter(&w, 1, table);
    case_act(&w, WORLD_BRING, 1);
    snprintf(name, sizeof name, "a copy that was compared before %s got a column is not taken", table);
    case_check(name, good && !w.failed && w.node[1].bring.stage == BRING_NOT && w.brought == 0, w.why);
    case_check("no row holds the column's name for its value",
               case_answer(&w, 1, "SELECT count(*) FROM \"%w\" WHERE late = 'late'", table) == 0, "some do");
    for (int k = 0; k < 3; k++) {
        case_act(&w, WORLD_BRING, 1);
    }
    case_check("but one that is compared anew, whose rows have the default there",
               !w.failed && w.brought == 1 && case_answer(&w, 1, "%s", rows) == 1, w.why);
    case_finish(&w, "and all end equal");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    behind_a_comparison("plain", "INSERT INTO plain(id, a) VALUES (9, 'new')",
                        "SELECT count(*) FROM plain WHERE id = 9 AND late = 7");
    behind_a_comparison("pair", "DELETE FROM pair; INSERT INTO pair(x, y) VALUES (9, 'new')",
                        "SELECT count(*) = 1 AND min(late) = 7 FROM pair");
    return case_end();
}
