/* Transactions: savepoints, statements that fail, COMMIT tried again, close
** with work undone, large buffers, limits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static const char one_table[] = "CREATE TABLE t(a INTEGER PRIMARY KEY, b)";

static void savepoints(void)
{
    struct rig r;
    rig_open(&r, one_table);
    rig_begin_judging(&r);
    rig_sql(r.db, "BEGIN");
    for (int k = 0; k < 70; k++) {
        rig_sql(r.db, "SAVEPOINT s%d; INSERT INTO t VALUES(%d, %d)", k, k, k);
    }
    rig_sql(r.db, "ROLLBACK TO s65; COMMIT");
    rig_check_captured(&r, "savepoints 70 deep");
    rig_sql(r.db,
            "SAVEPOINT a; INSERT INTO t VALUES(1000, 1); ROLLBACK TO a; INSERT INTO t VALUES(1001, 1); RELEASE a");
    rig_check_captured(&r, "ROLLBACK TO the transaction savepoint");
    rig_sql(r.db, "BEGIN; SAVEPOINT x; SAVEPOINT y; SAVEPOINT z; INSERT INTO t VALUES(2000, 1); ROLLBACK TO x;"
                  "INSERT INTO t VALUES(2001, 1); COMMIT");
    rig_check_captured(&r, "joined inside the third savepoint, rolled back to the first");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(3000, 1); SAVEPOINT x; INSERT INTO t VALUES(3001, 1); RELEASE x;"
                  "SAVEPOINT x; INSERT INTO t VALUES(3002, 1); ROLLBACK TO x; RELEASE x; COMMIT");
    rig_check_captured(&r, "released and reused savepoints");
    int before = rig_outbox(&r);
    rig_sql(r.db, "BEGIN; SAVEPOINT x; INSERT INTO t VALUES(4000, 1); ROLLBACK TO x; COMMIT");
    rig_check("all rolled back to a savepoint: nothing written", rig_outbox(&r) == before, "a row was written");
    int commits = r.commits;
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(4001, 1); ROLLBACK");
    rig_check("ROLLBACK", rig_outbox(&r) == before && r.commits == commits, "a row or a note came");
    rig_check_captured(&r, "nothing captured of it");
    rig_close(&r);
}

static void failing_statements(void)
{
    struct rig r;
    rig_open(&r,
             "CREATE TABLE t(a INTEGER PRIMARY KEY, b CHECK(b < 100)); INSERT INTO t VALUES(1, 1), (2, 2), (3, 99)");
    rig_begin_judging(&r);
    int rc = rig_sql(r.db, "UPDATE t SET b = b + 1");
    rig_check("a failing statement fails", (rc & 0xff) == SQLITE_CONSTRAINT, "%d", rc);
    rig_check_captured(&r, "autocommit statement that fails at its third row");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(4, 4)");
    rig_sql(r.db, "UPDATE t SET b = b + 1");
    rig_sql(r.db, "COMMIT");
    rig_check_captured(&r, "the same inside a transaction");
    rig_sql(r.db, "UPDATE OR FAIL t SET b = b + 1");
    rig_check_captured(&r, "UPDATE OR FAIL keeps what it did");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(5, 5)");
    rig_sql(r.db, "UPDATE OR ROLLBACK t SET b = b + 1");
    rig_sql(r.db, "INSERT INTO t VALUES(6, 6)");
    rig_check_captured(&r, "OR ROLLBACK ends the transaction");
    rig_sql(r.db, "UPDATE OR IGNORE t SET b = b + 1");
    rig_check_captured(&r, "OR IGNORE");
    rig_close(&r);
}

static void foreign_keys(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE p(x INTEGER PRIMARY KEY); CREATE TABLE k(y INTEGER PRIMARY KEY, p REFERENCES p"
                 " ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED);"
                 "CREATE TABLE log(n INTEGER PRIMARY KEY, w);"
                 "CREATE TRIGGER g AFTER DELETE ON k BEGIN INSERT INTO log(w) VALUES(old.y); END");
    rig_begin_judging(&r);
    rig_sql(r.db, "PRAGMA foreign_keys = 1; PRAGMA recursive_triggers = 1; INSERT INTO p VALUES(1), (2), (3);"
                  "INSERT INTO k VALUES(10, 1), (20, 2), (30, 3)");
    rig_sql(r.db, "DELETE FROM p WHERE x = 1; UPDATE p SET x = 22 WHERE x = 2");
    rig_check_captured(&r, "cascades and triggers");
    rig_sql(r.db, "BEGIN; INSERT INTO k VALUES(40, 99)");
    int rc = rig_sql(r.db, "COMMIT");
    rig_check("COMMIT refused for a deferred key", (rc & 0xff) == SQLITE_CONSTRAINT, "%d", rc);
    rig_sql(r.db, "INSERT INTO p VALUES(99); COMMIT");
    rig_check_captured(&r, "COMMIT after the deferred key was mended");
    rig_close(&r);
}

/* An attached rollback-journal database with a reader makes COMMIT busy. */
static void retried_commit(void)
{
    struct rig r;
    char other[300];
    rig_open(&r, one_table);
    snprintf(other, sizeof other, "%s-other", r.path);
    rig_begin_judging(&r);
    sqlite3 *db2 = NULL;
    sqlite3_stmt *reader = NULL;
    sqlite3_open(other, &db2);
    rig_sql(db2, "PRAGMA journal_mode = delete; CREATE TABLE y(a); INSERT INTO y VALUES(1)");
    sqlite3_prepare_v2(db2, "SELECT * FROM y", -1, &reader, NULL);
    sqlite3_step(reader);
    rig_sql(r.db, "ATTACH '%s' AS o", other);
    rig_sql(r.db,
            "BEGIN; INSERT INTO t VALUES(1, 1); SAVEPOINT s; INSERT INTO t VALUES(2, 2); INSERT INTO o.y VALUES(2)");
    int first = rig_sql(r.db, "COMMIT");
    int second = rig_sql(r.db, "COMMIT");
    rig_check("COMMIT is busy", first == SQLITE_BUSY && second == SQLITE_BUSY, "%d %d", first, second);
    rig_sql(r.db, "INSERT INTO t VALUES(3, 3)");
    rig_sql(r.db, "COMMIT");
    rig_sql(r.db, "ROLLBACK TO s; INSERT INTO t VALUES(4, 4)");
    sqlite3_finalize(reader);
    int last = rig_sql(r.db, "COMMIT");
    rig_check("the last COMMIT", last == SQLITE_OK && r.commits == 1, "%d, %d notes", last, r.commits);
    rig_check("one outbox row", rig_outbox(&r) == 1, "%d rows", rig_outbox(&r));
    rig_check_captured(&r, "COMMIT tried four times");
    sqlite3_close(db2);
    rig_sql(r.db, "DETACH o");
    rig_close(&r);
    unlink(other);
}

static int veto(void *arg)
{
    int *times = arg;
    return (*times)-- > 0;
}

/* A COMMIT that the application's own hook turns into a ROLLBACK, or that is given up: what was put into
** the outbox for it goes, and what comes next stands where it stood, not behind it. */
static void given_up(void)
{
    struct rig r;
    char other[300];
    sqlite3 *db2 = NULL;
    sqlite3_stmt *reader = NULL;
    rig_open(&r, one_table);
    snprintf(other, sizeof other, "%s-other", r.path);
    rig_begin_judging(&r);
    rig_sql(r.db, "INSERT INTO t VALUES(1, 1)");
    rig_sql(r.db, "INSERT INTO t VALUES(2, 2)");
    for (int times = 1; times <= 2; times++) {
        int left = times;
        sqlite3_commit_hook(r.db, veto, &left);
        int rc = SQLITE_OK;
        for (int k = 0; k < times; k++) {
            rc = rig_sql(r.db, "INSERT INTO t VALUES(%d, 'a long one, which nobody shall see')", 10 * times + k);
        }
        rig_check("the application's hook refuses a COMMIT", rc == SQLITE_CONSTRAINT_COMMITHOOK, "%d", rc);
        rig_sql(r.db, "INSERT INTO t VALUES(%d, 3)", 100 + times);
        rig_check_captured(&r, "writes after a COMMIT that was refused");
    }
    sqlite3_commit_hook(r.db, NULL, NULL);
    sqlite3_open(other, &db2);
    rig_sql(db2, "PRAGMA journal_mode = delete; CREATE TABLE y(a); INSERT INTO y VALUES(1)");
    sqlite3_prepare_v2(db2, "SELECT * FROM y", -1, &reader, NULL);
    sqlite3_step(reader);
    rig_sql(r.db, "ATTACH '%s' AS o", other);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(200, 'a long one, which nobody shall see'); INSERT INTO o.y VALUES(2)");
    int busy = rig_sql(r.db, "COMMIT");
    rig_sql(r.db, "ROLLBACK");
    sqlite3_finalize(reader);
    rig_check("a COMMIT is given up", busy == SQLITE_BUSY, "%d", busy);
    rig_sql(r.db, "INSERT INTO t VALUES(300, 3)");
    rig_sql(r.db, "INSERT INTO t VALUES(301, 3)");
    rig_check_captured(&r, "writes after a COMMIT that was given up");
    sqlite3_close(db2);
    rig_sql(r.db, "DETACH o");
    rig_close(&r);
    unlink(other);
}

static void close_in_transaction(void)
{
    struct rig r;
    sqlite3_stmt *st = NULL;
    rig_open(&r, one_table);
    rig_begin_judging(&r);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(1, 1)");
    sqlite3_prepare_v2(r.db, "SELECT 1 FROM t", -1, &st, NULL);
    sqlite3_step(st);
    int busy = sqlite3_close(r.db);
    sqlite3_finalize(st);
    int rc = rig_sql(r.db, "COMMIT");
    rig_check("close refused, then COMMIT", busy == SQLITE_BUSY && rc == SQLITE_OK, "%d %d", busy, rc);
    rig_check_captured(&r, "what was open at a refused close");
    rig_sql(r.db, "INSERT INTO t VALUES(2, 2)");
    rig_check_captured(&r, "writes after a refused close");
    sqlite3_prepare_v2(r.db, "SELECT 1 FROM t", -1, &st, NULL);
    sqlite3_step(st);
    busy = sqlite3_close(r.db);
    int again = sqlite3_close(r.db);
    rig_check("refused twice", busy == SQLITE_BUSY && again == SQLITE_BUSY, "%d %d", busy, again);
    sqlite3_finalize(st);
    rig_sql(r.db, "UPDATE t SET b = 9");
    rig_check_captured(&r, "writes after two refused closes");
    rig_close(&r);

    rig_open(&r, one_table);
    rig_begin_judging(&r);
    sqlite3_prepare_v2(r.db, "INSERT INTO t VALUES(1, 1), (2, 2) RETURNING a", -1, &st, NULL);
    sqlite3_step(st);
    sqlite3_close_v2(r.db);
    sqlite3_finalize(st);
    r.db = rig_connect(&r);
    rig_check_captured(&r, "close_v2 with RETURNING half read");
    rig_check("the hook went with the connection", r.closed == 1, "%d notes", r.closed);
    rig_close(&r);

    rig_open(&r, one_table);
    rig_begin_judging(&r);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(1, 1)");
    sqlite3_close(r.db);
    r.db = rig_connect(&r);
    rig_check_captured(&r, "close rolls an open transaction back");
    rig_check("and nothing is in the outbox", rig_outbox(&r) == 0, "%d rows", rig_outbox(&r));
    rig_close(&r);
}

static void returning(void)
{
    struct rig r;
    sqlite3_stmt *st = NULL;
    rig_open(&r, one_table);
    rig_begin_judging(&r);
    sqlite3_prepare_v2(r.db, "INSERT INTO t VALUES(1, 1), (2, 2) RETURNING a", -1, &st, NULL);
    sqlite3_step(st);
    rig_sql(r.db, "INSERT INTO t VALUES(3, 3)");
    sqlite3_step(st);
    sqlite3_reset(st);
    rig_check_captured(&r, "RETURNING with another write between");
    rig_check("one transaction", rig_outbox(&r) == 1, "%d rows", rig_outbox(&r));
    sqlite3_finalize(st);
    rig_close(&r);
}

static void large(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a INTEGER PRIMARY KEY, b)");
    rig_begin_judging(&r);
    rig_sql(
        r.db,
        "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30) INSERT INTO t SELECT i,"
        " randomblob(500000) FROM n; SAVEPOINT s; INSERT INTO u SELECT a, b FROM t; ROLLBACK TO s;"
        "UPDATE t SET b = 'cut' WHERE a %% 2; SAVEPOINT q; DELETE FROM t WHERE a > 25; ROLLBACK TO q;"
        "INSERT INTO u SELECT a, b FROM t; COMMIT");
    rig_check_captured(&r, "40 MB, spilled and cut back");
    int parts = atoi(rig_query(r.db, "SELECT count(*) FROM __marmot__outbox"));
    rig_check("in parts", parts > 10, "%d", parts);
    rig_sql(r.db, "DELETE FROM u");
    rig_check_captured(&r, "and small again");
    int max = sqlite3_limit(r.db, SQLITE_LIMIT_LENGTH, 20000);
    int rc =
        rig_sql(r.db, "DELETE FROM t; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
                      " INSERT INTO t SELECT i, hex(zeroblob(20)) FROM n");
    rig_check("a lowered length limit", rc == SQLITE_TOOBIG || rc == SQLITE_OK, "%d", rc);
    sqlite3_limit(r.db, SQLITE_LIMIT_LENGTH, max);
    rig_check_captured(&r, "with a lowered length limit");
    rig_sql(r.db, "BEGIN; DELETE FROM u; DELETE FROM t; COMMIT");
    sqlite3_limit(r.db, SQLITE_LIMIT_LENGTH, 20000);
    rc = rig_sql(r.db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
                       " INSERT INTO t SELECT i, hex(zeroblob(20)) FROM n");
    sqlite3_limit(r.db, SQLITE_LIMIT_LENGTH, max);
    rig_check("60 kB below a limit of 20 kB", rc == SQLITE_OK, "%d", rc);
    rig_check_captured(&r, "60 kB below a limit of 20 kB, captured");
    rig_close(&r);
}

/* Tables that take turns row by row: names must not grow with the rows. */
static void taking_turns(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE log(n INTEGER PRIMARY KEY, what, a);"
                 "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log(what, a) VALUES('i', new.a); END;"
                 "CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO log(what, a) VALUES('u', new.a); END");
    rig_begin_judging(&r);
    int max = sqlite3_limit(r.db, SQLITE_LIMIT_LENGTH, 100000);
    int rc = rig_sql(r.db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
                           " INSERT INTO t SELECT i, 'row ' || i FROM n");
    sqlite3_limit(r.db, SQLITE_LIMIT_LENGTH, max);
    rig_check("tables that take turns", rc == SQLITE_OK, "%d %s", rc, sqlite3_errmsg(r.db));
    rig_check_captured(&r, "tables that take turns, captured");
    int names = atoi(rig_query(r.db, "SELECT max(length(names)) FROM __marmot__outbox"));
    rig_check("each table is named once", names > 0 && names < 100, "%d bytes of names", names);
    rig_sql(r.db,
            "BEGIN; UPDATE t SET b = 1; ALTER TABLE log ADD COLUMN more; UPDATE t SET b = 2 WHERE a %% 2; COMMIT");
    rig_sql(r.before, "ALTER TABLE log ADD COLUMN more");
    rig_check_captured(&r, "and with a schema change between");
    rig_close(&r);
}

/* OR REPLACE tells the hook of the row that goes before SQLite looks at the types of a STRICT table, or
** how long the new row is; where that fails nothing is rolled back, since nothing has gone yet. */
static void replaced_by_none(void)
{
    struct rig r;
    rig_open(&r,
             "CREATE TABLE t(a INTEGER PRIMARY KEY, b REAL) STRICT; CREATE TABLE bag(x INT) STRICT;"
             "CREATE TABLE u(a INTEGER PRIMARY KEY, b, c); CREATE TABLE v(a INTEGER PRIMARY KEY, b REAL UNIQUE) STRICT;"
             "INSERT INTO t VALUES(1, 1), (2, 2), (3, 3), (4, 4); INSERT INTO bag(rowid, x) VALUES (1, 1), (2, 2);"
             "INSERT INTO u VALUES(1, 1, 1), (2, 2, 2); INSERT INTO v VALUES(1, 1), (2, 2), (3, 3)");
    rig_begin_judging(&r);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(5, 5)");
    int rc = rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(1, 'no number')");
    rig_check("a value of another type is refused", (rc & 0xff) == SQLITE_CONSTRAINT, "%d", rc);
    rig_sql(r.db, "INSERT INTO u VALUES(3, 3, 3); COMMIT");
    rig_check_captured(&r, "OR REPLACE that fails by a type, and another table");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(6, 6)");
    rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(1, 'no number')");
    rig_sql(r.db, "COMMIT");
    rig_check_captured(&r, "the same, and nothing behind it");
    rig_sql(r.db, "BEGIN; DELETE FROM t WHERE a = 2");
    rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(1, 'no number')");
    rig_sql(r.db, "DELETE FROM t WHERE a = 3; INSERT OR REPLACE INTO t VALUES(1, 7); INSERT INTO t VALUES(3, 8)");
    rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(4, 'no number')");
    rig_sql(r.db, "COMMIT");
    rig_check_captured(&r, "between rows that go");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(7, 7)");
    rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(4, 'no number')");
    rig_sql(r.db, "SAVEPOINT s; INSERT INTO t VALUES(8, 8); ROLLBACK TO s");
    rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(1, 'no number')");
    rig_sql(r.db, "ROLLBACK TO s; INSERT OR REPLACE INTO t VALUES(7, 9)");
    rig_sql(r.db, "UPDATE OR REPLACE t SET a = 3, b = 'no number' WHERE a = 1");
    rig_sql(r.db, "UPDATE OR REPLACE t SET a = 3, b = 4 WHERE a = 1; DELETE FROM t WHERE a = 7; COMMIT");
    rig_check_captured(&r, "around savepoints, and with keys that move");
    rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(1, 1), (2, 2), (3, 3), (4, 4)");
    rig_sql(r.db, "BEGIN; SAVEPOINT s; INSERT INTO t VALUES(20, 20)");
    rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(1, 'no number')");
    rig_sql(r.db, "ROLLBACK TO s; INSERT INTO t VALUES(21, 21); INSERT INTO u VALUES(21, 21, 21); COMMIT");
    rig_check_captured(&r, "a savepoint takes it back, and what was before it");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(22, 22)");
    rig_sql(r.db, "INSERT OR REPLACE INTO t VALUES(1, 'no number')");
    rig_sql(r.db, "DELETE FROM t WHERE a = 2; COMMIT");
    rig_check_captured(&r, "another row goes by itself");
    rig_sql(r.db, "CREATE TEMP TABLE t(a INTEGER PRIMARY KEY, b); BEGIN; INSERT INTO main.t VALUES(23, 23)");
    rig_sql(r.db, "INSERT OR REPLACE INTO main.t VALUES(1, 'no number')");
    rig_sql(r.db, "INSERT INTO temp.t VALUES(1, 1); COMMIT; DROP TABLE temp.t");
    rig_check_captured(&r, "a row of another table of that name");
    rig_sql(
        r.db,
        "BEGIN; INSERT OR REPLACE INTO t SELECT a, b + 1 FROM t; INSERT OR REPLACE INTO bag(rowid, x) VALUES (1, 3)");
    rig_sql(r.db, "INSERT OR REPLACE INTO bag(rowid, x) VALUES (2, 'no number')");
    rig_sql(r.db, "COMMIT; DELETE FROM t");
    rig_check_captured(&r, "without a key, and all rows");
    rig_sql(r.db, "INSERT OR REPLACE INTO v VALUES(1, 2); UPDATE OR REPLACE v SET a = 3, b = 4 WHERE a = 1");
    rig_check_captured(&r, "one that takes the places of two");
    int max = sqlite3_limit(r.db, SQLITE_LIMIT_LENGTH, 20000);
    rig_sql(r.db, "BEGIN; INSERT INTO u VALUES(4, 4, 4)");
    rc = rig_sql(r.db, "INSERT OR REPLACE INTO u VALUES(1, zeroblob(15000), zeroblob(15000))");
    rig_check("a row that is too long is refused", (rc & 0xff) == SQLITE_TOOBIG, "%d", rc);
    rig_sql(r.db, "COMMIT");
    sqlite3_limit(r.db, SQLITE_LIMIT_LENGTH, max);
    rig_check_captured(&r, "a row that is too long, captured");
    rig_close(&r);
}

static void query_only(void)
{
    struct rig r;
    rig_open(&r, one_table);
    rig_begin_judging(&r);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(1, 1); PRAGMA query_only = 1");
    int rc = rig_sql(r.db, "COMMIT");
    const char *msg = sqlite3_errmsg(r.db);
    rig_check("query_only at COMMIT fails and says why", rc == SQLITE_READONLY && strstr(msg, "query_only") != NULL,
              "%d %s", rc, msg);
    rig_sql(r.db, "PRAGMA query_only = 0");
    rig_check_captured(&r, "query_only: all rolled back");
    rig_close(&r);
}

int main(void)
{
    test_sqlite_start();
    savepoints();
    failing_statements();
    foreign_keys();
    retried_commit();
    given_up();
    close_in_transaction();
    returning();
    large();
    taking_turns();
    replaced_by_none();
    query_only();
    return rig_done();
}
