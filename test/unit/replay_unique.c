/* Tables with UNIQUE sets beyond their key: who evicts whom follows from the order of the keys,
** what was evicted comes back when the pending one that did it is undone, and what is told
** of it names who lost and who won. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "store/watch.h"
#include "test/model/cases.h"

/* All conflicts of a node, a line each. */
static bool told(struct world *w, int node, const char *want)
{
    struct mm_err err;
    mm_err_init(&err);
    char *text = mm_db_text(w->node[node].app, &err,
                            "SELECT group_concat(line, ', ') FROM (SELECT kind || ' ' || key || ' lost ' || lost ||"
                            " ' won ' || won AS line FROM __marmot__conflict ORDER BY id)");
    bool same = text != NULL && strcmp(text, want) == 0;
    if (!same) {
        printf("# node %d tells: %s\n", node, text != NULL ? text : err.msg);
    }
    sqlite3_free(text);
    return same;
}

/* Node 1 has read what node 0 has sent, with something pending on top; undone, that leaves the base. */
static void read_below(struct world *w, const char *name)
{
    case_publish(w, 0);
    case_fold(w, 1);
    bool good = case_pending(w, 1) > 0;
    case_check(name, world_check_undo(w, &w->node[1]) && good && !w->failed, w->why);
}

static void evicted_by_pending(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "INSERT INTO uniq VALUES (21, 'x', 1)");
    case_run(&w, 0, "INSERT INTO uniq VALUES (22, 'x', 2)");
    read_below(&w, "a row that a pending one evicts comes back when that is undone");
    case_check("and is out of sight", case_answer(&w, 1, "SELECT group_concat(id) = '21' FROM uniq WHERE u = 'x'") == 1,
               w.why);
    world_settle(&w);
    static const char want[] =
        "unique {\"id\":22} lost {\"id\":22,\"u\":\"x\",\"v\":2} won {\"id\":21,\"u\":\"x\",\"v\":1}";
    case_check("what was evicted is told, and by whom", told(&w, 0, want) && told(&w, 1, want), w.why);
    case_finish(&w, "and all nodes end equal");
}

/* The same, where the row that is evicted has no identity. */
static void evicted_without_identity(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "INSERT INTO uloose VALUES ('mine', 'x', 1)");
    case_run(&w, 0, "INSERT INTO uloose VALUES (NULL, 'x', 2)");
    read_below(&w, "so does one without identity");
    case_finish(&w, "and all nodes end equal then");
}

/* One transaction of node 1 changes rows 1 to 4 and gives row 5 a value that one of them
** gets from node 0: the row that is evicted is of the transaction itself. */
static void evicted_by_its_own(int victim, bool as_it_is)
{
    struct world w;
    char name[120];
    case_open(&w, 1, 2, false);
    case_run(&w, 0, "INSERT INTO uniq VALUES (4, 'd', 4), (5, 'e', 5)");
    case_rest(&w);
    case_rest(&w);
    case_run(&w, 1, "BEGIN; UPDATE uniq SET u = 'w' WHERE id = 5; UPDATE uniq SET v = 7 WHERE id < 5; COMMIT");
    case_run(&w, 0, "UPDATE uniq SET u = 'w', v = %d WHERE id = %d", as_it_is ? 7 : 70, victim);
    snprintf(name, sizeof name, "row %d, evicted by row 5 of the same transaction, comes back as it stood%s", victim,
             as_it_is ? " though nothing of it was changed" : "");
    read_below(&w, name);
    case_finish(&w, "and all nodes end equal after it");
}

/* Two rows of one message meet in a value: the one with the smaller key is written first. */
static void in_the_order_of_keys(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "BEGIN; UPDATE uniq SET u = 'z' WHERE id = 2; UPDATE uniq SET v = 7 WHERE id = 1; COMMIT");
    case_run(&w, 0, "UPDATE uniq SET u = 'z' WHERE id = 1");
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_rest(&w);
    case_check("the row with the greater key stays",
               case_answer(&w, 0, "SELECT group_concat(id) = '2' FROM uniq WHERE u = 'z'") == 1 &&
                   case_answer(&w, 0, "SELECT count(*) FROM uniq WHERE id = 1") == 0,
               w.why);
    case_finish(&w, "on all nodes");
}

/* One table more, on all nodes. */
static void make_table(struct world *w, const char *name, const char *definition)
{
    for (int k = 0; k < w->nnode; k++) {
        struct mm_repl *r = &w->node[k].r;
        struct mm_err err;
        mm_err_init(&err);
        mm_db_exec(r->db, &err, "BEGIN IMMEDIATE");
        mm_watch_set(r->db, name, MM_WATCHED, NULL, &err);
        mm_watch_set_joined_seq(r->db, name, 1, &err);
        mm_watchlist_add(r->db, name, 1, 1, &err);
        mm_db_exec(r->db, &err, "CREATE TABLE \"%w\"(%s); COMMIT", name, definition);
        mm_targets_forget(r->targets);
        case_check("a table", err.rc == SQLITE_OK, err.msg);
    }
}

/* The index of the key has another collation than its column. */
static void key_of_another_collation(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    make_table(&w, "oddly", "k TEXT NOT NULL, v, PRIMARY KEY (k COLLATE NOCASE)");
    case_run(&w, 0, "INSERT INTO oddly VALUES ('zoe', 1)");
    case_run(&w, 1, "INSERT INTO oddly VALUES ('ZOE', 2)");
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_rest(&w);
    case_rest(&w);
    static const char one[] = "SELECT group_concat(v) = '2' FROM oddly";
    case_check("keys are equal as their index has it", case_answer(&w, 0, one) == 1 && case_answer(&w, 1, one) == 1,
               w.why);
    world_close(&w);
}

/* Of a key whose first column is REAL an upsert's RETURNING rounds the others (SQLite 3.40). */
static void key_of_large_numbers(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    make_table(&w, "large",
               "a REAL NOT NULL, k INTEGER NOT NULL, u UNIQUE, PRIMARY KEY (a, k)) WITHOUT ROWID; SELECT (1");
    case_run(&w, 0, "INSERT INTO large VALUES (1.5, 1152921504606846977, 'u')");
    case_run(&w, 1, "INSERT INTO large VALUES (1.5, 1152921504606846979, 'u')");
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_rest(&w);
    case_rest(&w);
    static const char one[] = "SELECT group_concat(k) = '1152921504606846979' FROM large";
    case_check("who holds a value is found by a key of large numbers behind a REAL",
               !w.failed && case_answer(&w, 0, one) == 1 && case_answer(&w, 1, one) == 1, w.why);
    world_close(&w);
}

/* A key of two columns, the first of which ignores case. */
static void in_the_order_of_key_columns(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    make_table(&w, "pairs", "x TEXT COLLATE NOCASE, y INTEGER, u UNIQUE, v, PRIMARY KEY (x, y)");
    case_run(&w, 0, "INSERT INTO pairs VALUES ('a', 1, 'p', 0), ('a', 2, 'q', 0), ('B', 1, 'r', 0)");
    case_rest(&w);
    case_rest(&w);
    case_run(&w, 1,
             "BEGIN; UPDATE pairs SET u = 'z' WHERE x = 'a' AND y = 2; UPDATE pairs SET v = 7 WHERE x = 'a' AND"
             " y = 1; COMMIT");
    case_run(&w, 0, "UPDATE pairs SET u = 'z' WHERE x = 'a' AND y = 1");
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_rest(&w);
    case_rest(&w);
    static const char held[] = "SELECT group_concat(x || y) = %Q FROM pairs WHERE u = 'z'";
    case_check("by the second column of the key where the first is equal",
               case_answer(&w, 0, held, "a2") == 1 && case_answer(&w, 1, held, "a2") == 1, w.why);
    case_run(&w, 1,
             "BEGIN; UPDATE pairs SET u = 'y' WHERE x = 'B' AND y = 1; UPDATE pairs SET v = 8 WHERE x = 'a';"
             " COMMIT");
    case_run(&w, 0, "UPDATE pairs SET u = 'y' WHERE x = 'a' AND y = 2");
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_rest(&w);
    case_rest(&w);
    static const char then[] = "SELECT group_concat(x || y) = %Q FROM pairs WHERE u = 'y'";
    case_check("and by its collation", case_answer(&w, 0, then, "B1") == 1 && case_answer(&w, 1, then, "B1") == 1,
               w.why);
    world_close(&w);
}

/* What differs from what the sender saw, in such a table and in one without: the same is told. */
static void what_is_told(const char *table, const char *other, int i1, int i2)
{
    struct world w;
    char want[600];
    char name[100];
    case_open(&w, 1, 2, false);
    case_run(&w, 0, "DELETE FROM \"%w\"", table);
    case_run(&w, 0, "INSERT INTO \"%w\" VALUES (%d, 'k', 'one'), (%d, 'l', 'two'), (33, 'm', 'three')", table, i1, i2);
    case_rest(&w);
    case_rest(&w);
    case_run(&w, 0, "BEGIN; UPDATE \"%w\" SET \"%w\" = 'his' WHERE id <> %d; DELETE FROM \"%w\" WHERE id = %d; COMMIT",
             table, other, i2, table, i2);
    case_run(&w, 0, "INSERT INTO \"%w\" VALUES (44, 'n', 'his')", table);
    case_run(&w, 1, "UPDATE \"%w\" SET \"%w\" = 'hers' WHERE id = %d", table, other, i1);
    case_run(&w, 1, "UPDATE \"%w\" SET \"%w\" = 'hers' WHERE id = %d", table, other, i2);
    case_run(&w, 1, "DELETE FROM \"%w\" WHERE id = 33", table);
    case_run(&w, 1, "INSERT INTO \"%w\" VALUES (44, 'o', 'hers')", table);
    case_publish(&w, 0);
    case_publish(&w, 1);
    case_rest(&w);
    const char *second = strcmp(other, "v") == 0 ? "u" : "a";
    snprintf(
        want, sizeof want,
        "update {\"id\":%d} lost {\"id\":%d,\"%s\":\"k\",\"%s\":\"his\"} won {\"id\":%d,\"%s\":\"hers\"}, "
        "update_missing {\"id\":%d} lost {\"id\":%d,\"%s\":\"hers\"} won null, "
        "delete {\"id\":33} lost {\"id\":33,\"%s\":\"m\",\"%s\":\"his\"} won null, "
        "insert {\"id\":44} lost {\"id\":44,\"%s\":\"n\",\"%s\":\"his\"} won {\"id\":44,\"%s\":\"o\",\"%s\":\"hers\"}",
        i1, i1, second, other, i1, other, i2, i2, other, second, other, second, other, second, other);
    snprintf(name, sizeof name, "who lost and who won in table %s", table);
    case_check(name, told(&w, 0, want) && told(&w, 1, want), w.why);
    case_finish(&w, "and all nodes end equal with it");
}

/* As in a bag, rows that follow each other; here they are written behind all others. */
static void rows_that_follow_each_other(int rows)
{
    struct world w;
    char name[100];
    static const char fill[] = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                               "INSERT INTO ubag SELECT %d + i, NULL FROM n";
    case_open(&w, 1, 2, false);
    case_run(&w, 0, fill, rows, 1000);
    case_run(&w, 0, fill, rows, 2000);
    case_rest(&w);
    case_rest(&w);
    case_run(&w, 1, "BEGIN; UPDATE ubag SET a = a + 1000 WHERE a > 1000 AND a < 2000");
    case_run(&w, 1, "UPDATE ubag SET a = a + 1000 WHERE rowid > (SELECT max(rowid) - %d FROM ubag); COMMIT", rows);
    case_run(&w, 0, "DELETE FROM ubag WHERE a > 2000");
    snprintf(name, sizeof name, "%d rows without identity that follow each other are undone", rows);
    read_below(&w, name);
    case_check("each was taken once",
               case_answer(&w, 1, "SELECT count(*) FROM ubag WHERE a > 3000") == rows &&
                   case_answer(&w, 1, "SELECT count(*) FROM ubag WHERE a > 1000") == rows,
               w.why);
    case_finish(&w, "and all nodes end equal behind them");
}

/* Many rows are looked for at once; what is remembered of that is gone then. */
static void many_and_then_one(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    for (int k = 0; k < 40; k++) {
        case_run(&w, 0, "INSERT INTO bag VALUES (%d, 'many')", k);
    }
    case_rest(&w);
    case_rest(&w);
    case_run(&w, 0, "DELETE FROM bag WHERE b = 'many' AND a < 39");
    case_run(&w, 0, "INSERT INTO bag VALUES ('last', 1)");
    case_run(&w, 0, "DELETE FROM bag WHERE a = 'last' OR a = 39");
    case_rest(&w);
    case_rest(&w);
    case_check("one row goes after many", case_answer(&w, 1, "SELECT count(*) FROM bag WHERE b IN ('many', 1)") == 0,
               w.why);
    case_finish(&w, "on all nodes as well");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    evicted_by_pending();
    evicted_without_identity();
    for (int victim = 1; victim < 5; victim++) {
        evicted_by_its_own(victim, false);
        evicted_by_its_own(victim, true);
    }
    in_the_order_of_keys();
    in_the_order_of_key_columns();
    key_of_another_collation();
    key_of_large_numbers();
    what_is_told("plain", "b", 11, 22);
    what_is_told("uniq", "v", 11, 22);
    rows_that_follow_each_other(1);
    rows_that_follow_each_other(3);
    rows_that_follow_each_other(100);
    many_and_then_one();
    return case_end();
}
