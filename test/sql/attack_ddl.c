/* Schema changes around captured writes: on this and on another connection
** between every two writes, inside the transaction, and what they leave. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/outbox.h"
#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static const char three_tables[] =
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'three');"
    "CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO w VALUES('a', 1), ('c', 2), ('z', 3);"
    "CREATE TABLE r(a TEXT NOT NULL PRIMARY KEY, b); INSERT INTO r VALUES('a', 1), ('z', 2)";

static const char *const writes[] = {
    "INSERT INTO t VALUES(100, 'x')",
    "INSERT INTO t(b) VALUES('auto')",
    "REPLACE INTO t VALUES(2, 'r')",
    "UPDATE t SET b = 'u' WHERE a = 2",
    "UPDATE t SET a = 50 WHERE a = 2",
    "INSERT INTO w VALUES('m', 1)",
    "INSERT INTO t SELECT a + 200, b FROM t",
    "INSERT INTO r VALUES('k', 5)",
    "REPLACE INTO w VALUES('c', 1)",
    "DELETE FROM t WHERE a > 1",
    "UPDATE w SET b = b + 1",
    "DELETE FROM r",
};

enum { WRITES = sizeof writes / sizeof writes[0] };

/* A kept statement that met SQLITE_SCHEMA under the application's cursor used
** to corrupt the table. */
static void between_writes(bool other, bool transaction)
{
    struct rig r;
    char why[600] = "";
    bool good = true;
    rig_open(&r, three_tables);
    rig_begin_judging(&r);
    sqlite3 *db2 = rig_connect(&r);
    for (int k = 0; k < WRITES && good; k++) {
        good = rig_sql(r.db, "INSERT INTO r VALUES('first%d', 0)", k) == SQLITE_OK;
        good = good && rig_sql(other ? db2 : r.db, "CREATE TABLE zz%d(a)", k) == SQLITE_OK;
        good = good && rig_sql(r.db, transaction ? "BEGIN; %s; COMMIT" : "%s", writes[k]) == SQLITE_OK;
        if (!good) {
            snprintf(why, sizeof why, "%s: %s", writes[k], sqlite3_errmsg(r.db));
        }
        good = good && rig_judge(&r, why, sizeof why);
    }
    char name[80];
    snprintf(name, sizeof name, "DDL on %s connection before each write%s", other ? "another" : "this",
             transaction ? ", in a transaction" : "");
    rig_check(name, good, "%s", why);
    sqlite3_close(db2);
    rig_close(&r);
}

/* A definition that has as many columns as before, and others: what was known of the table is not. */
static void as_many_columns(bool other)
{
    static const char *const changes[] = {
        "ALTER TABLE t RENAME COLUMN b TO e",
        "ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN d",
        "DROP TABLE t; CREATE TABLE t(c, b, a INTEGER PRIMARY KEY)",
    };
    for (int k = 0; k < (int)(sizeof changes / sizeof changes[0]); k++) {
        struct rig r;
        char name[160];
        char why[600] = "";
        rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)");
        rig_begin_judging(&r);
        sqlite3 *db2 = rig_connect(&r);
        bool good = rig_sql(r.db, "INSERT INTO t VALUES(1, 2, 3)") == SQLITE_OK && rig_judge(&r, why, sizeof why);
        good = good && rig_sql(other ? db2 : r.db, "%s", changes[k]) == SQLITE_OK;
        good = good && rig_sql(r.before, "%s", changes[k]) == SQLITE_OK;
        good = good && rig_sql(r.db, "INSERT INTO t VALUES(10, 20, 30)") == SQLITE_OK;
        good = good && rig_sql(r.db, "UPDATE t SET c = 31; DELETE FROM t WHERE a = 1") == SQLITE_OK;
        good = good && rig_judge(&r, why, sizeof why);
        snprintf(name, sizeof name, "%s on %s connection", changes[k], other ? "another" : "this");
        rig_check(name, good, "%s", why);
        sqlite3_close(db2);
        rig_close(&r);
    }
}

/* Applied DDL travels by itself in a later step: here the copy gets it by hand. */
static void inside(const char *name, const char *schema, const char *ddl_for_copy, const char *sql)
{
    struct rig r;
    rig_open(&r, schema);
    rig_begin_judging(&r);
    int rc = rig_sql(r.db, "%s", sql);
    if (rc != SQLITE_OK) {
        rig_check(name, false, "%d %s", rc, sqlite3_errmsg(r.db));
    } else {
        rig_sql(r.before, "%s", ddl_for_copy);
        rig_check_captured(&r, name);
    }
    rig_close(&r);
}

static void in_transaction(void)
{
    const char *t = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'x')";
    inside(
        "ADD COLUMN between two writes", t, "ALTER TABLE t ADD COLUMN c DEFAULT 5",
        "BEGIN; UPDATE t SET b = 'u' WHERE a = 1; INSERT INTO t VALUES(4, 'n'); ALTER TABLE t ADD COLUMN c DEFAULT 5;"
        "UPDATE t SET c = 7 WHERE a = 2; UPDATE t SET c = 8 WHERE a = 1; DELETE FROM t WHERE a = 3; COMMIT");
    inside("DROP COLUMN after writes",
           "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); INSERT INTO t VALUES(1, 2, 3), (2, 3, 4)",
           "ALTER TABLE t DROP COLUMN c",
           "BEGIN; UPDATE t SET b = 9, c = 9 WHERE a = 1; DELETE FROM t WHERE a = 2; INSERT INTO t VALUES(5, 6, 7);"
           "ALTER TABLE t DROP COLUMN c; INSERT INTO t VALUES(6, 6); COMMIT");
    inside("RENAME COLUMN after writes", t, "ALTER TABLE t RENAME COLUMN b TO e",
           "BEGIN; UPDATE t SET b = 'u' WHERE a = 1; INSERT INTO t VALUES(4, 'n'); ALTER TABLE t RENAME COLUMN b TO e;"
           "UPDATE t SET e = 'v' WHERE a = 2; COMMIT");
    inside("DROP plus ADD keeps the number of columns",
           "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); INSERT INTO t VALUES(1, 2, 3), (2, 3, 4)",
           "ALTER TABLE t DROP COLUMN c; ALTER TABLE t ADD COLUMN d",
           "BEGIN; UPDATE t SET c = 9 WHERE a = 1; ALTER TABLE t DROP COLUMN c; ALTER TABLE t ADD COLUMN d;"
           "UPDATE t SET d = 5 WHERE a = 2; INSERT INTO t VALUES(3, 3, 3); COMMIT");
    inside("rows of a table dropped in the same transaction are left out",
           "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a INTEGER PRIMARY KEY)", "DROP TABLE t",
           "BEGIN; INSERT INTO t VALUES(1, 1); INSERT INTO u VALUES(1); DROP TABLE t; COMMIT");
    inside(
        "DROP of a foreign-key parent",
        "CREATE TABLE p(x INTEGER PRIMARY KEY); CREATE TABLE k(y INTEGER PRIMARY KEY REFERENCES p ON DELETE CASCADE);"
        "INSERT INTO p VALUES(1), (2); INSERT INTO k VALUES(1), (2)",
        "DROP TABLE p", "PRAGMA foreign_keys = 1; DROP TABLE p");
    inside("rebuilt under the same name, same columns", t, "",
           "BEGIN; UPDATE t SET b = 'u' WHERE a = 1; CREATE TABLE n(a INTEGER PRIMARY KEY, b); COMMIT");
    inside("DDL rolled back to a savepoint", t, "",
           "BEGIN; SAVEPOINT s; ALTER TABLE t ADD COLUMN c; UPDATE t SET c = 1; ROLLBACK TO s;"
           "INSERT INTO t VALUES(9, 'n'); COMMIT; UPDATE t SET b = 'm' WHERE a = 9");
    inside("DROP COLUMN before others",
           "CREATE TABLE t(b, c, a INTEGER PRIMARY KEY, d); INSERT INTO t VALUES(2, 3, 1, 4), (3, 4, 2, 5)",
           "ALTER TABLE t DROP COLUMN c",
           "BEGIN; UPDATE t SET b = 9, d = 8 WHERE a = 1; INSERT INTO t VALUES(5, 6, 7, 8); DELETE FROM t WHERE a = 2;"
           "ALTER TABLE t DROP COLUMN c; UPDATE t SET d = 1 WHERE a = 7; COMMIT");
    inside("ADD COLUMN and keys that move", t, "ALTER TABLE t ADD COLUMN c DEFAULT 5",
           "BEGIN; INSERT INTO t VALUES(7, 'n'); UPDATE t SET a = a + 10 WHERE a <> 2;"
           "ALTER TABLE t ADD COLUMN c DEFAULT 5; UPDATE t SET c = a; COMMIT");
    inside("VACUUM, REINDEX, ANALYZE", t, "",
           "INSERT INTO t VALUES(7, 7); ANALYZE; UPDATE t SET b = 1; REINDEX; VACUUM; DELETE FROM t WHERE a = 7");
}

/* Nothing tells which row of today is which one of before: refused, rather than sent without the column. */
static void without_a_key(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE bag(a); INSERT INTO bag VALUES(1)");
    rig_begin_judging(&r);
    rig_sql(r.db, "BEGIN; INSERT INTO bag VALUES(2); ALTER TABLE bag ADD COLUMN b DEFAULT 5; UPDATE bag SET b = a");
    int rc = rig_sql(r.db, "COMMIT");
    const char *msg = sqlite3_errmsg(r.db);
    rig_check("rows without a key that were written before ADD COLUMN: COMMIT fails and says why",
              (rc & 0xff) == SQLITE_MISMATCH && strstr(msg, "alter it in a transaction of its own") != NULL, "%d %s",
              rc, msg);
    rig_sql(r.db, "ROLLBACK; INSERT INTO bag VALUES(3)");
    rig_check_captured(&r, "and goes on");
    rig_close(&r);
}

/* A blob written before its table changes in the same transaction. */
static void blob_then_ddl(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, c); INSERT INTO t VALUES(7, zeroblob(10))");
    rig_begin_judging(&r);
    sqlite3_blob *b = NULL;
    rig_sql(r.db, "BEGIN");
    sqlite3_blob_open(r.db, "main", "t", "c", 7, 1, &b);
    sqlite3_blob_write(b, "hi", 2, 0);
    sqlite3_blob_close(b);
    rig_sql(r.db, "ALTER TABLE t ADD COLUMN d; COMMIT");
    rig_sql(r.before, "ALTER TABLE t ADD COLUMN d");
    rig_check_captured(&r, "blob I/O, then ADD COLUMN");
    rig_close(&r);
}

/* A statement prepared before the hook runs as a truncate unless the schema
** cookie moves. */
static void late_hook(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1), (2, 2)");
    struct rig second = r;
    second.hook = NULL;
    second.db = rig_connect(&r);
    sqlite3_stmt *st = NULL;
    sqlite3_stmt *reader = NULL;
    sqlite3_prepare_v2(second.db, "DELETE FROM t", -1, &st, NULL);
    sqlite3_prepare_v2(second.db, "SELECT a FROM t", -1, &reader, NULL);
    rig_begin_judging(&r);
    sqlite3_step(reader);
    struct mm_err err;
    mm_err_init(&err);
    bool taken = mm_hook_taken(second.db, &err);
    rig_check("no hook is seen where there is none", !taken && err.rc == SQLITE_OK, "taken %d %s", taken, err.msg);
    sqlite3_reset(reader);
    struct mm_hook *h = mm_hook_attach(second.db, true, rig_listen, &second, &err);
    rig_check("late attach", h != NULL, "%s", err.msg);
    rig_check("a second attach gives the same", mm_hook_attach(second.db, true, rig_listen, &second, &err) == h,
              "it does not");
    rig_check("our own hook is seen", mm_hook_taken(second.db, &err), "%s", err.msg);
    sqlite3_finalize(reader);
    sqlite3_step(st);
    sqlite3_finalize(st);
    rig_check_captured(&r, "a DELETE prepared before the hook");
    rig_check("close of the second connection", sqlite3_close(second.db) == SQLITE_OK && second.closed == 1, "busy");
    rig_close(&r);
}

/* watch_all: a table made in the transaction is watched by it. */
static void watch_all(void)
{
    struct rig r;
    struct mm_err err;
    mm_err_init(&err);
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    sqlite3 *db2 = rig_connect(&r);
    mm_head_set_watch_all(db2, true, &err);
    rig_sql(db2, "CREATE TABLE moved(x); DROP TABLE moved");
    rig_begin_judging(&r);
    rig_sql(r.before, "CREATE TABLE n(a INTEGER PRIMARY KEY, b)");
    int rc = rig_sql(
        r.db,
        "BEGIN; CREATE TABLE n(a INTEGER PRIMARY KEY, b); CREATE TABLE odd(r REAL, k INT PRIMARY KEY) WITHOUT ROWID; "
        "INSERT INTO odd VALUES(1, 1);"
        "INSERT INTO n VALUES(1, 2); SAVEPOINT s; CREATE TABLE gone(a INTEGER PRIMARY KEY);"
        "INSERT INTO gone VALUES(1); ROLLBACK TO s; INSERT INTO t VALUES(1, 1); COMMIT; UPDATE n SET b = 3");
    rig_check_captured(&r, "watch_all and a new table");
    const char *states =
        rig_query(db2, "SELECT group_concat(name || ' ' || state) FROM (SELECT * FROM __marmot__table ORDER BY name)");
    rig_check("only what can be watched is watched", rc == SQLITE_OK && strcmp(states, "n joining,t watched") == 0,
              "%d %s", rc, states);
    const char *kinds = rig_query(db2, "SELECT group_concat(kind || ' ' || id) FROM __marmot__outbox");
    rig_check("the watch message precedes the rows, once", strcmp(kinds, "1 1") == 0 && rig_outbox(&r) == 2, "%s",
              kinds);
    rig_sql(db2, "CREATE TABLE later(a INTEGER PRIMARY KEY)");
    rig_sql(r.before, "CREATE TABLE later(a INTEGER PRIMARY KEY)");
    rig_sql(r.db, "INSERT INTO later VALUES(1)");
    rig_check_captured(&r, "watch_all and a table of another connection");
    static const char two[] = "CREATE TABLE first(a INTEGER PRIMARY KEY); CREATE TABLE second(a INTEGER PRIMARY KEY)";
    rig_sql(db2, "%s", two);
    rig_sql(r.before, "%s", two);
    rig_sql(r.db, "INSERT INTO first VALUES(1); INSERT INTO t VALUES(2, 2); INSERT INTO second VALUES(1)");
    rig_check_captured(&r, "watch_all and a table that this connection meets without a schema change");
    rig_sql(r.before, "CREATE TABLE twice(a INTEGER PRIMARY KEY, b)");
    rig_sql(r.db,
            "BEGIN; CREATE TABLE twice(a INTEGER PRIMARY KEY); INSERT INTO twice VALUES(1); ALTER TABLE twice ADD "
            "COLUMN b; INSERT INTO twice VALUES(2, 2); COMMIT");
    rig_check_captured(&r, "watch_all and a new table that is altered");
    const char *said =
        rig_query(db2, "SELECT count(*) FROM __marmot__outbox WHERE kind = 1 AND CAST(data AS TEXT) = 'Wtwice'");
    rig_check("of which one message tells", strcmp(said, "1") == 0, "%s", said);
    mm_head_set_watch_all(db2, false, &err);
    sqlite3_close(db2);
    rig_close(&r);
}

int main(void)
{
    test_sqlite_start();
    for (int k = 0; k < 4; k++) {
        between_writes(k & 1, k & 2);
    }
    as_many_columns(false);
    as_many_columns(true);
    in_transaction();
    without_a_key();
    blob_then_ddl();
    late_hook();
    watch_all();
    return rig_done();
}
