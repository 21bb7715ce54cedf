/* What strangers write, noted by guard triggers alone, case by case: rows that may be evicted and are not, keys of
** many columns and in odd places, tables that take turns, columns that are younger than the triggers, and triggers
** that must be made anew. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/db.h"
#include "capture/trigger.h"
#include "store/log.h"
#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

#define SIXTEEN "k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12, k13, k14, k15"

static const char schema[] =
    "CREATE TABLE ubag(x, u UNIQUE);"
    "CREATE TABLE ubin(x, u); CREATE UNIQUE INDEX ubin_u ON ubin(u COLLATE NOCASE);"
    "CREATE TABLE named(k TEXT PRIMARY KEY COLLATE NOCASE, v, u UNIQUE);"
    "CREATE TABLE half(p INT NOT NULL, q, v, PRIMARY KEY(p, q));"
    "CREATE TABLE far(v, q COLLATE NOCASE, p INT, w, PRIMARY KEY(p, q)) WITHOUT ROWID;"
    "CREATE TABLE edge(" SIXTEEN ", PRIMARY KEY(" SIXTEEN ")) WITHOUT ROWID;"
    "CREATE TABLE odd(\"a\"\"b\" INTEGER PRIMARY KEY, \"\"\"c\", \"d, \"\"e\"\"\" UNIQUE);"
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE o(a INTEGER PRIMARY KEY, b_that_has_a_long_name_indeed);"
    "INSERT INTO far VALUES(NULL, 'z', 9, 0);";

static const struct {
    const char *name, *sql;
} cases[] = {
    { "a row that stayed under a value that it no longer has",
      "INSERT INTO ubag VALUES('a', 1), ('b', 9); INSERT OR IGNORE INTO ubag VALUES(0, 9); INSERT OR IGNORE INTO ubag "
      "VALUES(0, 1);"
      "UPDATE ubag SET u = 2 WHERE u = 1; INSERT OR IGNORE INTO ubag VALUES(0, 2); INSERT INTO ubag VALUES('c', 1)" },
    { "NULL evicts nobody",
      "INSERT INTO named VALUES('a', 1, NULL); INSERT OR IGNORE INTO named VALUES('A', 2, NULL);"
      "INSERT INTO named VALUES('b', 3, NULL), (NULL, 4, NULL); REPLACE INTO named VALUES('B', 5, NULL)" },
    { "an index with a collation of its own",
      "INSERT INTO ubin VALUES(1, 'a'), (2, 'b'); REPLACE INTO ubin VALUES(3, 'A');"
      "UPDATE OR REPLACE ubin SET u = 'B' WHERE x = 3" },
    { "many rows that stay, and then go", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                                          "300) INSERT INTO ubag SELECT i, -i FROM n;"
                                          "INSERT OR IGNORE INTO ubag SELECT 'no', u FROM ubag WHERE u < 0;"
                                          "REPLACE INTO ubag SELECT 'yes', u FROM ubag WHERE u < 0" },
    { "a key of which a part may be NULL",
      "INSERT INTO half VALUES(1, NULL, 'a'), (1, NULL, 'a'), (1, 1, 'b'), (2, NULL, 'c');"
      "UPDATE half SET v = 'd' WHERE rowid = 1; DELETE FROM half WHERE p = 2; REPLACE INTO half VALUES(1, 1, 'e')" },
    { "a key that is not in front, in another order",
      "INSERT INTO far VALUES('a', 'x', 1, 0), ('a', 'y', 1, 0), ('b', 'x', 2, 0); REPLACE INTO far VALUES('b', 'X', "
      "1, 1);"
      "UPDATE OR REPLACE far SET q = 'Y' WHERE q = 'x' AND p = 1; UPDATE far SET p = 5, w = 2 WHERE p = 2;"
      "UPDATE far SET w = 9 WHERE p = 9" },
    { "a key of sixteen columns",
      "INSERT INTO edge VALUES(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1), (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2);"
      "UPDATE edge SET k15 = k15 + 10; DELETE FROM edge WHERE k15 = 12;"
      "REPLACE INTO edge VALUES(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,11)" },
    { "names with quotes",
      "INSERT INTO odd VALUES(1, 2, 3), (2, 3, 4); UPDATE odd SET \"\"\"c\" = 'n' WHERE \"a\"\"b\" = 1;"
      "REPLACE INTO odd VALUES(5, 6, 4); UPDATE odd SET \"a\"\"b\" = 7 WHERE \"a\"\"b\" = 5" },
};

static void open_noted(struct rig *r, const char *tables, sqlite3 **stranger)
{
    rig_open(r, tables);
    rig_guards(r);
    rig_begin_judging(r);
    *stranger = rig_connect(r);
}

/* Each in one transaction and in one for each statement, before the log is moved. */
static void noted(bool whole)
{
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct rig r;
        sqlite3 *db;
        char name[200];
        open_noted(&r, schema, &db);
        int rc = rig_sql(db, whole ? "BEGIN; %s; COMMIT" : "%s", cases[k].sql);
        snprintf(name, sizeof name, "%s%s", cases[k].name, whole ? ", in one transaction" : "");
        if (rc != SQLITE_OK) {
            rig_check(name, false, "%d %s", rc, sqlite3_errmsg(db));
        } else {
            rig_check_captured(&r, name);
        }
        sqlite3_close(db);
        rig_close(&r);
    }
}

/* Tables that take turns, so often that what was noted is ordered by table. */
static void turns(void)
{
    enum { TURNS = 500 };
    struct rig r;
    sqlite3 *db;
    open_noted(&r, schema, &db);
    rig_sql(db, "BEGIN");
    for (int k = 0; k < TURNS; k++) {
        rig_sql(db, "INSERT INTO t VALUES(%d, 'of t'); INSERT INTO o VALUES(%d, 'of o')", k, k);
    }
    rig_sql(db, "COMMIT");
    rig_check_captured(&r, "tables take turns: new rows");
    rig_sql(db, "BEGIN");
    for (int k = 0; k < TURNS; k++) {
        rig_sql(db,
                k % 3 == 0
                    ? "DELETE FROM t WHERE a = %d; DELETE FROM o WHERE a = %d"
                    : "UPDATE t SET b = %d WHERE a = %d; UPDATE o SET b_that_has_a_long_name_indeed = 'x' WHERE a = %d",
                k, k, k);
    }
    rig_sql(db, "INSERT INTO odd VALUES(1, 2, 3); COMMIT");
    rig_check_captured(&r, "tables take turns: deleted and changed ones");
    sqlite3_close(db);
    rig_close(&r);
}

/* A column that no trigger knows, in rows without a key that move meanwhile. */
static void younger(void)
{
    struct rig r;
    sqlite3 *db;
    open_noted(&r, "CREATE TABLE loose(a)", &db);
    rig_sql(db, "ALTER TABLE loose ADD COLUMN f DEFAULT 7; INSERT INTO loose(rowid, a, f) VALUES(50, 'm', 5);"
                "UPDATE loose SET rowid = 51 WHERE rowid = 50; INSERT INTO loose(rowid, a, f) VALUES(50, 'n', 6)");
    rig_sql(r.before, "ALTER TABLE loose ADD COLUMN f DEFAULT 7");
    rig_check_captured(&r, "a younger column of rows that take each other's place");
    sqlite3_close(db);
    rig_close(&r);
}

static bool due(sqlite3 *db)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_trigger_due(db, &err) && err.rc == SQLITE_OK;
}

static void settle(sqlite3 *db)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_db_exec(db, &err, "BEGIN IMMEDIATE");
    mm_trigger_settle(db, &err);
    mm_trigger_tidy(db, &err);
    mm_db_exec(db, &err, "COMMIT");
    rig_need(err.rc == SQLITE_OK, "mm_trigger_settle", err.msg);
}

/* Whatever makes the triggers other than they should be is seen, and mended; what they have noted is not lost. */
static void made_anew(void)
{
    static const char youngest[] =
        "SELECT max(rowid) = (SELECT max(rowid) FROM sqlite_schema WHERE tbl_name = 'ubag' AND"
        " type = 'trigger' AND name GLOB '__marmot__*') FROM sqlite_schema WHERE tbl_name = "
        "'ubag' AND type = 'trigger'";
    struct rig r;
    sqlite3 *db;
    open_noted(&r, schema, &db);
    sqlite3 *own = rig_connect(&r);
    rig_check("as made, they are good", !due(own), "they are not");
    rig_sql(db, "CREATE TRIGGER app BEFORE INSERT ON ubag BEGIN SELECT 1; END");
    rig_check("a younger trigger of the application is seen", due(own), "it is not");
    settle(own);
    rig_check("and is no longer the youngest", !due(own) && strcmp(rig_query(own, youngest), "1") == 0, "it is");
    const char *pad = rig_query(own, "SELECT name FROM sqlite_schema WHERE name GLOB '__marmot__pad*' LIMIT 1");
    rig_sql(db, "DROP TABLE \"%s\"", pad);
    rig_check("what they join is gone: seen", due(own), "it is not");
    settle(own);
    rig_sql(db, "DROP VIEW __marmot__note2");
    rig_check("what they write to is gone: seen", due(own), "it is not");
    settle(own);
    rig_check("and both are there again", !due(own), "they are not");
    rig_sql(db, "INSERT INTO ubag VALUES(1, 1); REPLACE INTO ubag VALUES(2, 1); UPDATE t SET b = 5; REPLACE INTO t "
                "VALUES(1, 1)");
    rig_sql(db, "ALTER TABLE t ADD COLUMN c; INSERT INTO t VALUES(7, 7, 7); UPDATE t SET c = 8 WHERE a = 1");
    const char *first =
        rig_query(own, "SELECT name FROM sqlite_schema WHERE tbl_name = 't' AND name GLOB '__marmot__*_bd'");
    rig_sql(db, "DROP TRIGGER \"%s\"", first);
    settle(own);
    rig_sql(r.before, "ALTER TABLE t ADD COLUMN c");
    rig_check_captured(&r, "what was noted before they were made anew");
    rig_sql(db, "DROP TABLE o");
    rig_sql(r.before, "DROP TABLE o");
    rig_check("what a table leaves when it is dropped: seen", due(own), "it is not");
    settle(own);
    const char *left =
        rig_query(own, "SELECT count(*) FROM sqlite_schema AS p WHERE name GLOB '__marmot__pad*' AND NOT EXISTS"
                       " (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '__marmot__' ||"
                       " substr(p.name, 14) || '_*')");
    rig_check("and removed", strcmp(left, "0") == 0 && !due(own), "%s", left);
    sqlite3_close(own);
    sqlite3_close(db);
    rig_close(&r);
}

/* The numbers of a table mean another one, of another kind, that was made under its name: nothing is made up. */
static void another_kind(void)
{
    static const char keyless[] = "DROP TABLE t; CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'not noted')";
    struct rig r;
    sqlite3 *db;
    open_noted(&r, schema, &db);
    rig_sql(db, "INSERT INTO t VALUES(1, 1), (2, 2); %s", keyless);
    struct mm_err err;
    mm_err_init(&err);
    mm_db_exec(db, &err, "BEGIN IMMEDIATE");
    mm_trigger_move(db, NULL, &err);
    mm_db_exec(db, &err, "COMMIT");
    rig_check("noted of a table that is of another kind now: left out",
              err.rc == SQLITE_OK && rig_outbox(&r) == 0 && !mm_log_any(db, &err), "%d %s", rig_outbox(&r), err.msg);
    sqlite3_close(db);
    rig_close(&r);
}

/* A COMMIT of a captured connection takes along what strangers have noted; it finds another file busy, is tried again,
** or given up. */
static void busy_commit(bool given_up)
{
    struct rig r;
    sqlite3 *db;
    sqlite3 *reader = NULL;
    sqlite3_stmt *st = NULL;
    char other[300];
    open_noted(&r, schema, &db);
    snprintf(other, sizeof other, "%s-other", r.path);
    sqlite3_open(other, &reader);
    rig_sql(reader, "PRAGMA journal_mode = delete; CREATE TABLE y(a); INSERT INTO y VALUES(1)");
    sqlite3_prepare_v2(reader, "SELECT * FROM y", -1, &st, NULL);
    sqlite3_step(st);
    rig_sql(r.db, "ATTACH '%s' AS other", other);
    rig_sql(db, "INSERT INTO t VALUES(1, 'noted'); INSERT INTO ubag VALUES(1, 1), (1, NULL)");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(2, 'captured'); INSERT INTO other.y VALUES(2)");
    int first = rig_sql(r.db, "COMMIT");
    int second = rig_sql(r.db, "COMMIT");
    rig_check("COMMIT is busy", first == SQLITE_BUSY && second == SQLITE_BUSY, "%d %d", first, second);
    sqlite3_finalize(st);
    int last = rig_sql(r.db, given_up ? "ROLLBACK; INSERT INTO t VALUES(3, 'captured')" : "COMMIT");
    rig_check("and then it is not", last == SQLITE_OK, "%d %s", last, sqlite3_errmsg(r.db));
    rig_check_captured(&r, given_up ? "what was noted outlives a COMMIT that is given up"
                                    : "what was noted goes with it once");
    rig_sql(r.db, "DETACH other");
    sqlite3_close(reader);
    sqlite3_close(db);
    rig_close(&r);
    unlink(other);
}

int main(void)
{
    test_sqlite_start();
    noted(false);
    noted(true);
    turns();
    younger();
    made_anew();
    another_kind();
    busy_commit(false);
    busy_commit(true);
    return rig_done();
}
