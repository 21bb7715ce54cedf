/* Columns that tables get while something is under way, at each node in its own time; a table that is made anew. */
#include <stdio.h>

#include "base/log.h"
#include "store/watch.h"
#include "test/model/cases.h"
#include "test/model/world_int.h"
#include "watching.h"

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

/* The nodes have got two columns in another order: they are matched by their names. */
static bool in_another_order(struct world *w, const char *table)
{
    static const char *const columns[] = { "late INTEGER DEFAULT 7", "later TEXT NOT NULL DEFAULT ''" };
    bool good = true;
    case_open(w, 1, 2, false);
    case_rest(w);
    w->shapes = w->again = w->jumped = true;
    for (int k = 0; k < 4; k++) {
        good = case_run(w, k / 2, "ALTER TABLE \"%w\" ADD COLUMN %s", table, columns[k % 2 ^ k / 2]) && good;
    }
    case_rest(w);
    case_act(w, WORLD_SNAPSHOT, 0);
    return good;
}

static bool look_for_what_passed(struct world *w)
{
    const struct world_step look = { WORLD_BRING, 1, 1 };
    w->node[1].past = true;
    for (int k = 0; k < 20 && w->node[1].past && !w->failed; k++) {
        world_act(w, &look);
    }
    return !w->failed && !w->node[1].past;
}

static void past_in_another_order(void)
{
    struct world w;
    bool good = in_another_order(&w, "plain");
    sqlite3 *past = world_connect(w.node[1].path);
    good = sqlite3_exec(past, "UPDATE plain SET a = 'past' WHERE id = 1; DELETE FROM plain WHERE id = 2", NULL, NULL,
                        NULL) == SQLITE_OK &&
           good;
    sqlite3_close(past);
    good = look_for_what_passed(&w) && good;
    case_check("what was written past the capture is found in a table of another order", good && w.mended == 2, w.why);
    case_act(&w, WORLD_SNAPSHOT, 1);
    case_check("a snapshot has what stood there before", !w.failed && w.kept[1] != NULL, w.why);
    world_settle(&w);
    for (int k = 0; k < 2; k++) {
        case_check("nobody takes it for a conflict", case_answer(&w, k, "SELECT count(*) FROM __marmot__conflict") == 0,
                   "there is one");
    }
    case_finish(&w, "all end equal");
}

static void nothing_in_another_order(void)
{
    struct world w;
    bool good = in_another_order(&w, "bag") && look_for_what_passed(&w);
    case_check("rows without a key are the same in another order", good && w.mended == 0, w.why);
    case_finish(&w, "and all end equal");
}

/* Dropped and, once the node has seen that, made anew with its columns in another order, its key among
** them: it holds nothing of the cluster's. And a row that is pending is looked for in a copy by its key. */
static void made_anew(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    w.shapes = w.again = w.jumped = true;
    bool good = case_run(&w, 1, "DROP TABLE names");
    case_turns(&w, 1);
    good = good && case_run(&w, 1, "CREATE TABLE names(n INTEGER, v, k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY)");
    case_turns(&w, 1);
    case_act(&w, WORLD_SNAPSHOT, 0);
    case_rest(&w);
    struct mm_err err;
    mm_err_init(&err);
    case_check("a table that was made anew in another order has its rows",
               good && !w.failed && mm_watch_get(w.node[1].app, "names", NULL, &err) == MM_WATCHED &&
                   case_answer(&w, 1, "SELECT n FROM names WHERE k = 'bob'") == 1,
               w.why);
    case_run(&w, 1, "UPDATE names SET v = 'mine' WHERE k = 'bob'");
    for (int k = 0; k < 3; k++) {
        case_act(&w, WORLD_BRING, 1);
    }
    case_check("what is pending there outlives a copy",
               !w.failed && case_pending(&w, 1) > 0 &&
                   case_answer(&w, 1, "SELECT count(*) FROM names WHERE k = 'bob' AND v = 'mine' AND n = 1") == 1,
               w.why);
    case_act(&w, WORLD_SNAPSHOT, 1);
    case_finish(&w, "all end equal");
}

/* Of a table on the cluster's list that neither this node has nor the copy: the others join all the same. */
static void beside_one_that_is_nowhere(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    w.shapes = w.again = w.jumped = true;
    bool good = case_run(&w, 0, "CREATE TABLE aside(id INTEGER PRIMARY KEY)") &&
                mm_watching_add(w.node[0].app, "aside", NULL, &err) == SQLITE_OK;
    case_rest(&w);
    good = good && mm_watchlist_seq(w.node[1].app, "aside", &err) > 0 && case_run(&w, 1, "DROP TABLE bag");
    case_turns(&w, 1);
    good = good && case_run(&w, 1, "CREATE TABLE bag(a, b)");
    case_rest(&w);
    case_rest(&w);
    case_check("a table joins beside one that neither its node has nor the copy",
               good && !w.failed && mm_watch_get(w.node[1].app, "bag", NULL, &err) == MM_WATCHED &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag") == 3,
               w.failed ? w.why : err.msg);
    world_close(&w);
}

/* Its application makes a table that the copy was to bring. */
static void made_meanwhile(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    w.shapes = w.again = w.jumped = true;
    bool good = case_run(&w, 1, "DROP TABLE bag");
    case_act(&w, WORLD_BRING, 1);
    case_act(&w, WORLD_BRING, 1);
    good = good && w.node[1].bring.stage == BRING_READY && case_run(&w, 1, "CREATE TABLE bag(a, b)");
    w.node[1].bring.altered = true;
    case_act(&w, WORLD_BRING, 1);
    case_check("a copy that was to bring a table which is made meanwhile is compared anew",
               good && !w.failed && w.node[1].bring.stage == BRING_NOT && w.brought == 0, w.why);
    for (int k = 0; k < 3; k++) {
        case_act(&w, WORLD_BRING, 1);
    }
    case_finish(&w, "and that one brings its rows");
}

/* A table that was compared is dropped, seen to be gone, and made anew before anything comes of that. It may have
** waited for a copy before, with all its rows. */
static void another_behind_a_comparison(bool waited)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 0);
    if (waited) {
        mm_watch_set(w.node[1].r.db, "reals", MM_STALE, NULL, &err);
        mm_watch_set_joined_seq(w.node[1].r.db, "reals", MM_SEQ_BEFORE, &err);
        mm_targets_forget(w.node[1].r.targets);
        w.again = true;
    }
    case_act(&w, WORLD_BRING, 1);
    case_act(&w, WORLD_BRING, 1);
    w.shapes = w.again = w.jumped = true;
    bool good = w.node[1].bring.stage == BRING_READY && case_run(&w, 1, "DROP TABLE reals");
    world_watch_look(&w, &w.node[1]);
    good = good && case_run(&w, 1, "CREATE TABLE reals(k REAL NOT NULL PRIMARY KEY, v)");
    world_watch_look(&w, &w.node[1]);
    case_act(&w, WORLD_BRING, 1);
    case_check(waited ? "so does one that had waited then" : "a table that is another one than was compared waits on",
               good && !w.failed && w.node[1].bring.stage == BRING_NOT &&
                   mm_watch_get(w.node[1].app, "reals", NULL, &err) == MM_STALE,
               mm_watch_state_name(mm_watch_get(w.node[1].app, "reals", NULL, &err)));
    world_settle(&w);
    case_check("and comes back with its rows", case_answer(&w, 1, "SELECT count(*) FROM reals") == 2, w.why);
    case_finish(&w, "all end equal");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    behind_a_comparison("plain", "INSERT INTO plain(id, a) VALUES (9, 'new')",
                        "SELECT count(*) FROM plain WHERE id = 9 AND late = 7");
    behind_a_comparison("pair", "DELETE FROM pair; INSERT INTO pair(x, y) VALUES (9, 'new')",
                        "SELECT count(*) = 1 AND min(late) = 7 FROM pair");
    past_in_another_order();
    nothing_in_another_order();
    made_anew();
    beside_one_that_is_nowhere();
    made_meanwhile();
    another_behind_a_comparison(false);
    another_behind_a_comparison(true);
    return case_end();
}
