/* What rows look like in the outbox: types, affinities, keys, generated and
** added columns, blobs. Runs on every SQLite of the suite. */
#include <stdio.h>
#include <string.h>

#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static void one(const char *name, const char *schema, const char *const *steps)
{
    struct rig r;
    rig_open(&r, schema);
    rig_begin_judging(&r);
    int rc = SQLITE_OK;
    for (; *steps != NULL && rc == SQLITE_OK; steps++) {
        rc = rig_sql(r.db, "%s", *steps);
    }
    if (rc != SQLITE_OK) {
        rig_check(name, false, "%s: %d %s", steps[-1], rc, sqlite3_errmsg(r.db));
    } else {
        rig_check_captured(&r, name);
    }
    rig_close(&r);
}

#define STEPS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void types(void)
{
    one("every type, insert, update, delete", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        STEPS("INSERT INTO t VALUES(1, NULL), (2, 3), (3, 1.5), (4, 'text'), (5, x'00ff'), (6, ''), (7, x'')",
              "UPDATE t SET b = b || 'x' WHERE a IN (2, 4)", "UPDATE t SET b = NULL WHERE a = 5",
              "DELETE FROM t WHERE a = 3", "INSERT INTO t VALUES(-9223372036854775808, 9223372036854775807)"));
    one("text with NUL and bytes that are no UTF-8", "CREATE TABLE t(a TEXT NOT NULL PRIMARY KEY, b TEXT)",
        STEPS("INSERT INTO t VALUES('a' || char(0) || 'b', CAST(x'61ff62' AS TEXT))", "UPDATE t SET b = b || 'c'"));
    one("whole numbers in REAL columns", "CREATE TABLE t(a INTEGER PRIMARY KEY, r REAL, n NUMERIC, x)",
        STEPS("INSERT INTO t VALUES(1, 3, 3.0, 3.0), (2, 4.0, 4, 4)", "UPDATE t SET r = 5, n = 6.0, x = 7.0",
              "UPDATE t SET x = 1 WHERE a = 2", "DELETE FROM t WHERE a = 1"));
    one("UTF-16 database", "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(a TEXT NOT NULL PRIMARY KEY, b)",
        STEPS("INSERT INTO t VALUES('häß', 'straße'), ('x', x'01')", "UPDATE t SET b = a || b",
              "DELETE FROM t WHERE a = 'x'"));
    one("large values", "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)",
        STEPS("INSERT INTO t VALUES(1, zeroblob(3000000), hex(randomblob(700000)))", "UPDATE t SET c = 'small'",
              "UPDATE t SET b = randomblob(2000000)"));
}

static void keys(void)
{
    one("integer key that moves", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        STEPS("INSERT INTO t VALUES(1, 'x'), (2, 'y')", "UPDATE t SET a = a + 10", "UPDATE t SET a = 5 WHERE a = 11"));
    one("keys that swap", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        STEPS("INSERT INTO t VALUES(1, 'x'), (2, 'y')", "BEGIN; UPDATE t SET a = 99 WHERE a = 1; UPDATE t SET a = 1 "
                                                        "WHERE a = 2; UPDATE t SET a = 2 WHERE a = 99; COMMIT"));
    one("text key, NOCASE", "CREATE TABLE t(a TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, b)",
        STEPS("INSERT INTO t VALUES('Key', 1)", "UPDATE t SET a = 'KEY'", "REPLACE INTO t VALUES('key', 2)"));
    one("composite key in another order", "CREATE TABLE t(v, b INT NOT NULL, a TEXT NOT NULL, PRIMARY KEY(a, b))",
        STEPS("INSERT INTO t VALUES(1, 2, 'c'), (3, 4, 'd')", "UPDATE t SET v = 9 WHERE a = 'c'",
              "UPDATE t SET a = 'e', b = 7 WHERE v = 3", "DELETE FROM t WHERE v = 9"));
    one("WITHOUT ROWID", "CREATE TABLE w(a PRIMARY KEY, b, c) WITHOUT ROWID",
        STEPS("INSERT INTO w VALUES('m', 1, 2), ('n', 3, 4)", "UPDATE w SET b = 7 WHERE a = 'm'",
              "UPDATE w SET a = 'z' WHERE a = 'n'", "REPLACE INTO w VALUES('m', 8, 9)", "DELETE FROM w WHERE a = 'z'"));
    one("WITHOUT ROWID, stored in another order, REAL in the way",
        "CREATE TABLE w(b, k TEXT, r REAL, i INT, s REAL, x, PRIMARY KEY(k, i)) WITHOUT ROWID",
        STEPS("INSERT INTO w VALUES(5, 'k', 6, 7, 3, 8), (9007199254740995, 'l', 1.5, 9007199254740993, 1, "
              "9007199254740995)",
              "UPDATE w SET x = x + 1", "UPDATE w SET b = b + 1, r = r + 1", "DELETE FROM w WHERE k = 'k'",
              "UPDATE w SET b = 'z'"));
    one("REPLACE by the key", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        STEPS("INSERT INTO t VALUES(1, 'x'), (2, 'y')", "REPLACE INTO t VALUES(2, 'r')",
              "UPDATE OR REPLACE t SET a = 1 WHERE a = 2", "INSERT OR IGNORE INTO t VALUES(1, 'no')",
              "INSERT INTO t VALUES(1, 'u') ON CONFLICT DO UPDATE SET b = b || 'u'"));
    one("REPLACE that evicts by UNIQUE",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c); CREATE UNIQUE INDEX i ON t(c)",
        STEPS("INSERT INTO t VALUES(1, 'x', 10), (2, 'y', 20), (3, 'z', 30), (4, 'w', 40)",
              "REPLACE INTO t VALUES(5, 'x', 20)", "UPDATE OR REPLACE t SET b = 'z' WHERE a = 4",
              "PRAGMA recursive_triggers = 1; REPLACE INTO t VALUES(4, 'x', 20)"));
    one("names that need quoting", "CREATE TABLE \"t \"\"x\"(\"a \"\"k\" INTEGER PRIMARY KEY, \"select\", \"rowid\")",
        STEPS("INSERT INTO \"t \"\"x\" VALUES(1, 2, 3)", "UPDATE \"t \"\"x\" SET \"select\" = 5, \"rowid\" = 4"));
}

static void columns(void)
{
    one("STORED generated column", "CREATE TABLE t(g AS (b * 2) STORED, a INTEGER PRIMARY KEY, b, c)",
        STEPS("INSERT INTO t(a, b, c) VALUES(1, 2, 3), (2, 3, 4)", "UPDATE t SET b = b + 1",
              "DELETE FROM t WHERE a = 1"));
    if (!rig_asserts() || sqlite3_libversion_number() >= 3047000) {
        one("VIRTUAL generated column at the end", "CREATE TABLE t(a INTEGER PRIMARY KEY, b REAL, c, g AS (b * 2))",
            STEPS("INSERT INTO t(a, b, c) VALUES(1, 2, 3), (2, 3, 4)", "UPDATE t SET b = b + 1",
                  "DELETE FROM t WHERE a = 1"));
    }
    one("columns younger than the row",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1), (2, 2), (3, 3);"
        "ALTER TABLE t ADD COLUMN c DEFAULT 5; ALTER TABLE t ADD COLUMN d TEXT NOT NULL DEFAULT 'dd'; ALTER TABLE t "
        "ADD COLUMN e",
        STEPS("UPDATE t SET b = 9 WHERE a = 1", "UPDATE t SET c = NULL WHERE a = 2", "DELETE FROM t WHERE a = 3",
              "UPDATE t SET c = 6 WHERE a = 2"));
    one("STRICT with ANY", "CREATE TABLE t(a INTEGER PRIMARY KEY, r REAL, x ANY) STRICT",
        STEPS("INSERT INTO t VALUES(1, 2, 3.0), (2, 2.5, '3')", "UPDATE t SET r = 7, x = 4.0"));
}

/* The old value that reaches the outbox, not only the net effect. */
static void old_values(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1);"
                 "ALTER TABLE t ADD COLUMN c DEFAULT 'young'");
    rig_sql(r.db, "DELETE FROM t");
    const char *has = rig_query(r.db, "SELECT instr(log, CAST('young' AS BLOB)) > 0 FROM __marmot__inbox");
    rig_check("the default of a young column is in the old row", strcmp(has, "1") == 0, "%s", has);
    rig_sql(r.db, "INSERT INTO t VALUES(2, 2, 2)");
    int before = rig_outbox(&r);
    rig_sql(r.db, "UPDATE t SET b = b");
    rig_check("an UPDATE that changes nothing writes nothing", rig_outbox(&r) == before, "a row was written");
    rig_sql(r.db,
            "BEGIN; INSERT INTO t VALUES(3, 3, 3); UPDATE t SET b = 4 WHERE a = 3; DELETE FROM t WHERE a = 3; COMMIT");
    rig_check("a transaction without net change writes nothing", rig_outbox(&r) == before, "a row was written");
    rig_close(&r);
}

static void blob_io(void)
{
    struct rig r;
    rig_open(
        &r,
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); INSERT INTO t VALUES(7, 1, zeroblob(10)), (8, 2, zeroblob(9))");
    rig_begin_judging(&r);
    sqlite3_blob *b = NULL;
    int rc = sqlite3_blob_open(r.db, "main", "t", "c", 7, 1, &b);
    rc = rc == SQLITE_OK ? sqlite3_blob_write(b, "hi", 2, 0) : rc;
    rc = rc == SQLITE_OK ? sqlite3_blob_write(b, "ho", 2, 4) : rc;
    int rc2 = sqlite3_blob_close(b);
    rig_check("blob I/O itself", rc == SQLITE_OK && rc2 == SQLITE_OK, "write %d close %d", rc, rc2);
    rig_check_captured(&r, "blob I/O");
    rig_sql(r.db, "BEGIN");
    sqlite3_blob_open(r.db, "main", "t", "c", 8, 1, &b);
    sqlite3_blob_write(b, "zz", 2, 1);
    sqlite3_blob_close(b);
    rig_sql(r.db, "UPDATE t SET a = 80 WHERE a = 8; COMMIT");
    rig_check_captured(&r, "blob I/O, then the key moves");
    rig_sql(r.db, "BEGIN; SAVEPOINT s");
    sqlite3_blob_open(r.db, "main", "t", "c", 7, 1, &b);
    sqlite3_blob_write(b, "no", 2, 1);
    sqlite3_blob_close(b);
    rig_sql(r.db, "ROLLBACK TO s; UPDATE t SET b = 5 WHERE a = 80; COMMIT");
    rig_check_captured(&r, "blob I/O, rolled back to a savepoint");
    rig_close(&r);
}

int main(void)
{
    test_sqlite_start();
    types();
    keys();
    columns();
    old_values();
    blob_io();
    return rig_done();
}
