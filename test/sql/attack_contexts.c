/* Every kind of statement, the hosts' habits, and neighbours in the process:
** what surrounds a captured write must neither break it nor be broken. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static const char kinds_schema[] =
    "CREATE TABLE p(x INTEGER PRIMARY KEY); CREATE TABLE k(y INTEGER PRIMARY KEY, q REFERENCES p ON DELETE CASCADE ON "
    "UPDATE CASCADE, z);"
    "CREATE INDEX ik ON k(q); CREATE TABLE u(a INTEGER PRIMARY KEY, b, c); CREATE INDEX iu ON u(c) WHERE c > 3;"
    "CREATE TABLE w(a, b, c, PRIMARY KEY(a)) WITHOUT ROWID; CREATE INDEX iw ON w(b); CREATE TABLE w2(a, b, c, PRIMARY "
    "KEY(a)) WITHOUT ROWID;"
    "CREATE VIEW vw AS SELECT x FROM p; CREATE TRIGGER tv INSTEAD OF INSERT ON vw BEGIN INSERT INTO p VALUES(new.x);"
    " INSERT INTO k(q, z) VALUES(new.x, 0); END;"
    "CREATE TRIGGER tu AFTER DELETE ON u BEGIN INSERT OR IGNORE INTO w VALUES(old.a, old.b, old.c); UPDATE w SET c = c "
    "+ 1 WHERE a = old.a; END";

static const char *const kinds[] = {
    "INSERT INTO p VALUES(1), (2), (3)",
    "INSERT INTO k(q, z) SELECT x, x FROM p",
    "DELETE FROM p WHERE x = 1",
    "UPDATE p SET x = x + 10",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO u SELECT i, i % 7, i "
    "FROM n WHERE 1"
    " ON CONFLICT DO UPDATE SET c = c + 1",
    "REPLACE INTO u VALUES(3, 4, 5)",
    "INSERT OR IGNORE INTO u VALUES(3, 4, 5)",
    "UPDATE OR REPLACE u SET a = 5 WHERE a = 6",
    "UPDATE OR FAIL u SET b = 3",
    "INSERT INTO vw VALUES(99)",
    "DELETE FROM u WHERE a = 1 OR b = 2 OR c = 9",
    "UPDATE u SET c = w.b FROM w WHERE w.a = u.a",
    "INSERT INTO w SELECT a, b, c FROM u WHERE 1 ON CONFLICT DO NOTHING",
    "UPDATE w SET a = a + 1000",
    "DELETE FROM w WHERE a % 2",
    "INSERT INTO w2 SELECT * FROM w",
    "INSERT INTO tmp SELECT a FROM w",
    "INSERT INTO m.x SELECT a FROM w",
    "BEGIN; SAVEPOINT a; DELETE FROM u; ROLLBACK TO a; INSERT INTO u VALUES(500, 500, 500); RELEASE a; COMMIT",
    "BEGIN; INSERT INTO tmp VALUES(1); SAVEPOINT b; INSERT INTO u VALUES(501, 501, 501); ROLLBACK TO b; COMMIT",
    "DELETE FROM u",
    "DELETE FROM p",
    "CREATE TABLE mid(a); INSERT INTO mid VALUES(1); DROP TABLE mid",
    "BEGIN; CREATE TABLE mid(a); INSERT INTO mid VALUES(1); ALTER TABLE mid ADD COLUMN z; UPDATE mid SET z = 1;"
    " ALTER TABLE mid RENAME TO mid2; COMMIT",
    "VACUUM",
    "PRAGMA foreign_keys = 0; PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = sql WHERE 0; PRAGMA "
    "writable_schema = 0",
};

static void all_kinds(bool transaction)
{
    struct rig r;
    char why[600] = "";
    bool good = true;
    rig_open(&r, kinds_schema);
    rig_sql(r.db,
            "PRAGMA foreign_keys = 1; PRAGMA recursive_triggers = 1; CREATE TEMP TABLE tmp(a); ATTACH ':memory:' AS m;"
            "CREATE TABLE m.x(a)");
    rig_begin_judging(&r);
    size_t at = 0;
    for (; at < sizeof kinds / sizeof kinds[0] && good; at++) {
        bool wrap = transaction && strstr(kinds[at], "BEGIN") == NULL && strcmp(kinds[at], "VACUUM") != 0;
        int rc = wrap ? rig_sql(r.db, "BEGIN; SAVEPOINT o; %s; RELEASE o; COMMIT", kinds[at])
                      : rig_sql(r.db, "%s", kinds[at]);
        good = rc == SQLITE_OK && rig_judge(&r, why, sizeof why);
        if (rc != SQLITE_OK) {
            snprintf(why, sizeof why, "%d %s", rc, sqlite3_errmsg(r.db));
        }
    }
    rig_check(transaction ? "every kind of statement, in a transaction" : "every kind of statement", good, "%s: %s",
              kinds[at - 1], why);
    rig_close(&r);
}

static void other_schemas(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    sqlite3 *db2 = rig_connect(&r);
    rig_sql(r.db, "CREATE TEMP TABLE tt(a); ATTACH ':memory:' AS x; CREATE TABLE x.y(a)");
    rig_sql(db2, "BEGIN IMMEDIATE");
    int rc = rig_sql(r.db, "INSERT INTO tt VALUES(1); INSERT INTO x.y VALUES(1)");
    rig_check("temp and attached tables take no lock of main",
              rc == SQLITE_OK && sqlite3_txn_state(r.db, "main") == SQLITE_TXN_NONE, "%d", rc);
    rig_sql(db2, "COMMIT");
    sqlite3_close(db2);
    rig_sql(r.db, "ATTACH '%s' AS alias", r.path);
    rc = rig_sql(r.db, "INSERT INTO alias.t VALUES(1, 1)");
    rig_check("the same file by another name can be written", rc == SQLITE_OK, "%d %s", rc, sqlite3_errmsg(r.db));
    rig_sql(r.db, "DETACH alias");
    rig_close(&r);
}

static int seen_foreign;

static void on_update(void *arg, int op, const char *db, const char *table, sqlite3_int64 rowid)
{
    (void)arg;
    (void)op;
    (void)db;
    (void)rowid;
    seen_foreign += strncmp(table, "__marmot__", 10) == 0;
}

static void what_the_application_sees(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE n(i INTEGER PRIMARY KEY, c); INSERT INTO t "
                 "VALUES(1, 1), (2, 2), (3, 3)");
    rig_begin_judging(&r);
    sqlite3_update_hook(r.db, on_update, NULL);
    rig_sql(r.db, "UPDATE t SET b = b + 1");
    int changes = sqlite3_changes(r.db);
    rig_sql(r.db, "INSERT INTO t VALUES(70, 1)");
    rig_check("changes and last_insert_rowid",
              changes == 3 && sqlite3_changes(r.db) == 1 && sqlite3_last_insert_rowid(r.db) == 70, "%d %d %lld",
              changes, sqlite3_changes(r.db), (long long)sqlite3_last_insert_rowid(r.db));
    rig_check("the update hook sees nothing of ours", seen_foreign == 0, "%d calls", seen_foreign);
    int rc = rig_sql(r.db, "PRAGMA count_changes = 1; INSERT INTO t VALUES(71, 1); PRAGMA count_changes = 0");
    rig_check("count_changes", rc == SQLITE_OK, "%d", rc);
    rig_check_captured(&r, "all of it captured");
    rc = rig_sql(r.db, "INSERT INTO marmot_capture(a) VALUES(1)");
    rig_check("our table refuses rows", rc == SQLITE_READONLY, "%d", rc);
    rig_close(&r);
}

/* Some hosts finalize whatever statement they find before they close. */
static void finalized_by_the_host(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    rig_begin_judging(&r);
    rig_sql(r.db, "INSERT INTO t VALUES(1, 1)");
    sqlite3_stmt *st;
    while ((st = sqlite3_next_stmt(r.db, NULL)) != NULL) {
        sqlite3_finalize(st);
    }
    rig_sql(r.db, "INSERT INTO t VALUES(2, 2)");
    rig_check_captured(&r, "after the host finalized all statements");
    while ((st = sqlite3_next_stmt(r.db, NULL)) != NULL) {
        sqlite3_finalize(st);
    }
    rig_check("and the connection closes", true, "-");
    rig_close(&r);
}

static void replaced_main(void)
{
    struct rig r;
    sqlite3_int64 n = 0;
    sqlite3 *other = NULL;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    rig_sql(r.db, "INSERT INTO t VALUES(1, 1)");
    sqlite3_open(":memory:", &other);
    rig_sql(other, "CREATE TABLE t(a)");
    unsigned char *bytes = sqlite3_serialize(other, "main", &n, 0);
    int rc =
        sqlite3_deserialize(r.db, "main", bytes, n, n, SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE);
    rc = rc == SQLITE_OK ? rig_sql(r.db, "INSERT INTO t VALUES(1)") : rc;
    rig_check("a deserialized main is written as before", rc == SQLITE_OK, "%d %s", rc, sqlite3_errmsg(r.db));
    rig_check("and is said to be uncaptured", r.uncaptured == 1, "%d notes", r.uncaptured);
    sqlite3_close(other);
    rig_close(&r);
}

static void stopped(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    rig_sql(r.db, "INSERT INTO t VALUES(1, 1)");
    sqlite3 *db2 = rig_connect(&r);
    rig_sql(db2, "UPDATE __marmot__head SET capturing = 0");
    rig_sql(r.db, "INSERT INTO t VALUES(2, 2)");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(3, 3); COMMIT");
    rig_check("nothing captured while stopped", rig_outbox(&r) == 1, "%d rows", rig_outbox(&r));
    rig_sql(db2, "UPDATE __marmot__head SET capturing = 1");
    rig_begin_judging(&r);
    rig_sql(r.db, "INSERT INTO t VALUES(4, 4)");
    rig_check_captured(&r, "captured again");
    mm_hook_detach(r.hook);
    int before = rig_outbox(&r);
    rig_sql(r.db, "INSERT INTO t VALUES(5, 5)");
    rig_check("nothing captured when detached", rig_outbox(&r) == before, "a row");
    rig_begin_judging(&r);
    struct mm_err err;
    mm_err_init(&err);
    rig_check("attached again", mm_hook_attach(r.db, true, rig_listen, &r, &err) == r.hook, "%s", err.msg);
    rig_sql(r.db, "INSERT INTO t VALUES(6, 6)");
    rig_check_captured(&r, "captured after the second attach");
    sqlite3_close(db2);
    rig_close(&r);
}

static void early(void)
{
    struct rig r;
    struct mm_err err;
    mm_err_init(&err);
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    rig_begin_judging(&r);
    struct rig second = r;
    second.db = rig_connect(&r);
    struct mm_hook *h = mm_hook_attach_early(second.db, rig_listen, &second, &err);
    rig_sql(second.db, "INSERT INTO t VALUES(1, 1); BEGIN; INSERT INTO t VALUES(2, 2); COMMIT");
    rig_check("an early connection notes its commits", h != NULL && second.commits == 2, "%s %d", err.msg,
              second.commits);
    rig_check_captured(&r, "an early connection is captured");
    sqlite3_close(second.db);
    rig_check("and closes", second.closed == 1, "%d", second.closed);
    rig_close(&r);

    struct rig plain;
    memset(&plain, 0, sizeof plain);
    sqlite3_open(":memory:", &plain.db);
    h = mm_hook_attach_early(plain.db, rig_listen, &plain, &err);
    int rc = rig_sql(plain.db, "CREATE TABLE t(a); INSERT INTO t VALUES(1); DELETE FROM t");
    rig_check("a database without bookkeeping is left alone", h != NULL && rc == SQLITE_OK && plain.uncaptured == 0,
              "%d %s", rc, plain.why);
    sqlite3_close(plain.db);
}

static void full_text(void)
{
    if (!rig_has("ENABLE_FTS5")) {
        return;
    }
    struct rig r;
    rig_open(&r,
             "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE VIRTUAL TABLE f USING fts5(b, content='t', "
             "content_rowid='a');"
             "CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO f(rowid, b) VALUES(new.a, new.b); END;"
             "CREATE VIRTUAL TABLE g USING fts5(x); CREATE VIRTUAL TABLE c USING fts5(x, content='', columnsize=0)");
    rig_begin_judging(&r);
    int rc = rig_sql(
        r.db, "INSERT INTO t VALUES(1, 'hello'); INSERT INTO g VALUES('world'); INSERT INTO c(rowid, x) VALUES(1, 'w');"
              "BEGIN; INSERT INTO g VALUES('w'); INSERT INTO t VALUES(2, 'x'); INSERT INTO c(rowid, x) VALUES(2, 'y'); "
              "COMMIT");
    rig_check("full text beside us", rc == SQLITE_OK && r.uncaptured == 0, "%d %s %s", rc, sqlite3_errmsg(r.db), r.why);
    rig_check_captured(&r, "shadow tables are left out");
    rig_check("one outbox row for each commit of t", rig_outbox(&r) == 2, "%d", rig_outbox(&r));
    rig_close(&r);
}

static void dropped_modules(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    rig_sql(r.db, "INSERT INTO t VALUES(1, 1)");
    sqlite3_drop_modules(r.db, NULL);
    int rc = rig_sql(r.db, "INSERT INTO t VALUES(2, 2)");
    rig_check("a host that drops all modules", rc == SQLITE_OK && r.closed == 1, "%d, %d notes", rc, r.closed);
    rig_close(&r);
}

static void shared_cache(void)
{
    struct rig r;
    sqlite3_enable_shared_cache(1);
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1)");
    rig_begin_judging(&r);
    sqlite3 *db2 = rig_connect(&r);
    sqlite3_stmt *st = NULL;
    sqlite3_prepare_v2(db2, "SELECT * FROM __marmot__inbox", -1, &st, NULL);
    sqlite3_step(st);
    rig_sql(r.db, "INSERT INTO t VALUES(2, 2)");
    sqlite3_finalize(st);
    rig_sql(r.db, "INSERT INTO t VALUES(3, 3)");
    sqlite3_close(db2);
    rig_check_captured(&r, "shared cache: a commit fails or is captured");
    rig_close(&r);
    sqlite3_enable_shared_cache(0);
}

/* Tables of the same name in TEMP and in an attached file are other tables. */
static void same_name_elsewhere(void)
{
    struct rig r;
    rig_open(&r, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    rig_begin_judging(&r);
    rig_sql(r.db, "ATTACH ':memory:' AS x; CREATE TABLE x.t(a INTEGER PRIMARY KEY, b)");
    rig_sql(r.db, "INSERT INTO main.t VALUES(1, 'captured')");
    rig_sql(r.db, "INSERT INTO x.t VALUES(2, 'not')");
    rig_sql(r.db, "BEGIN; INSERT INTO main.t VALUES(3, 'captured'); INSERT INTO x.t VALUES(4, 'not'); DELETE FROM x.t;"
                  "UPDATE main.t SET b = 'changed'; COMMIT");
    rig_check_captured(&r, "beside a table of the same name in an attached file");
    rig_sql(r.db, "CREATE TEMP TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(5, 'not');"
                  "INSERT INTO main.t VALUES(6, 'captured'); DROP TABLE temp.t");
    rig_check_captured(&r, "and beside a TEMP one");
    rig_close(&r);
}

int main(void)
{
    test_sqlite_start();
    all_kinds(false);
    all_kinds(true);
    other_schemas();
    same_name_elsewhere();
    what_the_application_sees();
    finalized_by_the_host();
    replaced_main();
    stopped();
    early();
    full_text();
    dropped_modules();
    shared_cache();
    return rig_done();
}
