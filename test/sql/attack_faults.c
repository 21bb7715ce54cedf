/* What goes wrong inside: every allocation, interrupts at any moment, an
** authorizer that says no. Nothing may be committed uncaptured and unsaid,
** nothing may be corrupted. marmot-test: limit=240
**
** Where the join itself fails, the statement is made to fail by a veto that
** SQLite's own asserts object to: those sweeps run on release builds only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static const char schema[] =
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'three');"
    "CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO w VALUES('a', 1), ('c', 2), ('z', 3);"
    "CREATE TABLE typed(a INTEGER PRIMARY KEY, b INT) STRICT; INSERT INTO typed VALUES(1, 1), (2, 2), (3, 3)";

static const char *const writes[] = {
    "INSERT INTO t VALUES(100, 'x')",
    "UPDATE t SET b = b || 'y' WHERE a < 3",
    "DELETE FROM t WHERE a > 2",
    "BEGIN; INSERT INTO t VALUES(200, 'x'); SAVEPOINT s; UPDATE t SET b = 'q'; ROLLBACK TO s; DELETE FROM w; COMMIT",
    "INSERT INTO t SELECT a + 1000, b FROM t",
    "REPLACE INTO w VALUES('c', 9), ('d', 10)",
    "BEGIN; DELETE FROM typed WHERE a > 1; REPLACE INTO typed VALUES(1, 5); COMMIT",
};

/* A loss stays visible: later old rows are not what the copy holds. So not
** every round needs a judge of its own. */
enum { WRITES = sizeof writes / sizeof writes[0], LIMIT = 2000, JUDGE_EACH = 10 };

static void restore(sqlite3 *db)
{
    if (!sqlite3_get_autocommit(db)) {
        rig_sql(db, "ROLLBACK");
    }
}

/* Every allocation of one statement fails once; afterwards the rows are as
** the outbox says. `stale`: the kept statements must be prepared again. */
static void allocations(const char *sql, bool stale, bool persist)
{
    struct rig r;
    char why[600] = "";
    bool good = true;
    int n = 0;
    rig_open(&r, schema);
    rig_sql(r.db, "UPDATE t SET b = b || '.'");
    rig_begin_judging(&r);
    sqlite3 *db2 = rig_connect(&r);
    for (bool hit = true; good && hit && n < LIMIT;) {
        n++;
        if (stale) {
            rig_sql(db2, "CREATE TABLE z%d(a); DROP TABLE z%d", n, n);
        }
        test_sqlite_fail_at(n, persist);
        rig_sql(r.db, "%s", sql);
        hit = test_sqlite_failed();
        test_sqlite_fail_at(0, false);
        restore(r.db);
        good = n % JUDGE_EACH != 0 || rig_judge(&r, why, sizeof why);
        if (good && r.uncaptured > 0) {
            good = false;
            snprintf(why, sizeof why, "said to be uncaptured: %.400s", r.why);
        }
        if (good &&
            rig_sql(r.db, "DELETE FROM t; DELETE FROM w; INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'three');"
                          "INSERT INTO w VALUES('a', 1), ('c', 2), ('z', 3)") != SQLITE_OK) {
            good = false;
            snprintf(why, sizeof why, "no recovery: %s", sqlite3_errmsg(r.db));
        }
    }
    good = good && rig_judge(&r, why, sizeof why);
    char name[300];
    snprintf(name, sizeof name, "%s%s: %.60s",
             persist ? "allocations fail from the nth on" : "each allocation fails once", stale ? ", after DDL" : "",
             sql);
    rig_check(name, good && n < LIMIT, "at allocation %d: %s", n, why);
    sqlite3_close(db2);
    rig_close(&r);
}

struct moment {
    sqlite3 *db;
    int at;
    int now;
};

static int progress(void *arg)
{
    struct moment *m = arg;
    if (++m->now == m->at) {
        sqlite3_interrupt(m->db);
    }
    return 0;
}

/* An interrupt at each step of the virtual machine, ours and the application's. */
static void interrupts(const char *sql, bool stale)
{
    struct rig r;
    char why[600] = "";
    bool good = true;
    struct moment m = { 0 };
    rig_open(&r, schema);
    rig_begin_judging(&r);
    sqlite3 *db2 = rig_connect(&r);
    for (int n = 1; good && n < 4000; n++) {
        if (stale) {
            rig_sql(db2, "CREATE TABLE z%d(a); DROP TABLE z%d", n, n);
        }
        m = (struct moment){ .db = r.db, .at = n };
        sqlite3_progress_handler(r.db, 1, progress, &m);
        rig_sql(r.db, "%s", sql);
        sqlite3_progress_handler(r.db, 0, NULL, NULL);
        restore(r.db);
        good = (n % JUDGE_EACH != 0 || rig_judge(&r, why, sizeof why)) && r.uncaptured == 0;
        rig_sql(r.db, "DELETE FROM t; DELETE FROM w; INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'three');"
                      "INSERT INTO w VALUES('a', 1), ('c', 2), ('z', 3)");
        if (m.now < n) {
            break;
        }
    }
    good = good && rig_judge(&r, why, sizeof why);
    char name[300];
    snprintf(name, sizeof name, "interrupt at each step%s: %.60s", stale ? ", after DDL" : "", sql);
    rig_check(name, good, "at step %d: %s%s", m.at, why, r.why);
    sqlite3_close(db2);
    rig_close(&r);
}

struct trap {
    struct rig *r;
    int armed;
};

/* The application's own function interrupts right before the row is written. */
static void trap_now(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    struct trap *t = sqlite3_user_data(ctx);
    (void)argc;
    if (t->armed) {
        sqlite3_interrupt(t->r->db);
    }
    sqlite3_result_value(ctx, argv[0]);
}

static void interrupt_before_row(bool transaction, bool stale)
{
    struct rig r;
    struct trap t = { &r, 0 };
    rig_open(&r, schema);
    sqlite3_create_function(r.db, "trap", 1, SQLITE_UTF8, &t, trap_now, NULL, NULL);
    rig_sql(r.db, "UPDATE t SET b = b || '.'");
    rig_begin_judging(&r);
    if (stale) {
        rig_sql(r.db, "CREATE TABLE zz(a)");
    }
    t.armed = 1;
    int rc = rig_sql(r.db, transaction ? "BEGIN; INSERT INTO t VALUES(50, trap(1)); COMMIT"
                                       : "INSERT INTO t VALUES(50, trap(1))");
    t.armed = 0;
    restore(r.db);
    char name[200];
    snprintf(name, sizeof name, "interrupt before the row%s%s", transaction ? ", in a transaction" : "",
             stale ? ", after DDL" : "");
    char why[600];
    bool good = rig_judge(&r, why, sizeof why);
    rig_check(name, good && r.uncaptured == 0, "rc %d: %s%s", rc, why, r.why);
    rig_close(&r);
}

static int only_its_tables(void *arg, int action, const char *a, const char *b, const char *c, const char *d)
{
    (void)arg;
    (void)b;
    (void)c;
    (void)d;
    bool write = action == SQLITE_DELETE || action == SQLITE_INSERT || action == SQLITE_UPDATE;
    return write && a != NULL && strcmp(a, "t") != 0 ? SQLITE_DENY : SQLITE_OK;
}

static int no_outbox(void *arg, int action, const char *a, const char *b, const char *c, const char *d)
{
    (void)arg;
    (void)b;
    (void)c;
    (void)d;
    return action == SQLITE_INSERT && a != NULL && strncmp(a, "__marmot__", 10) == 0 ? SQLITE_DENY : SQLITE_OK;
}

static void authorizers(bool kept)
{
    struct rig r;
    rig_open(&r, schema);
    if (kept) {
        rig_sql(r.db, "INSERT INTO t VALUES(9, 9)");
    }
    sqlite3_set_authorizer(r.db, only_its_tables, NULL);
    int rc = rig_sql(r.db, "INSERT INTO t VALUES(100, 1)");
    rig_check(kept ? "a join denied later is said" : "a denied join is said",
              r.uncaptured == 1 && strstr(r.why, "authorizer") != NULL, "rc %d, %d notes, %s, outbox %d", rc,
              r.uncaptured, r.why, rig_outbox(&r));
    sqlite3_set_authorizer(r.db, NULL, NULL);
    rig_begin_judging(&r);
    rig_sql(r.db, "INSERT INTO t VALUES(101, 1)");
    rig_check_captured(&r, "captured again without the authorizer");
    sqlite3_set_authorizer(r.db, only_its_tables, NULL);
    rig_sql(r.db, "INSERT INTO t VALUES(103, 1)");
    sqlite3_set_authorizer(r.db, NULL, NULL);
    rig_check("the next loss is said again", r.uncaptured == 2, "%d notes", r.uncaptured);
    rig_begin_judging(&r);
    sqlite3_set_authorizer(r.db, no_outbox, NULL);
    rig_sql(r.db, "INSERT INTO t VALUES(104, 1)");
    rc = rig_sql(r.db, "INSERT INTO t VALUES(102, zeroblob(20000))");
    sqlite3_set_authorizer(r.db, NULL, NULL);
    rig_check_captured(&r, "a denied outbox is not asked about a small transaction");
    rig_check("and fails a large one", (rc & 0xff) == SQLITE_AUTH, "%d", rc);
    rig_check_captured(&r, "and rolls it back");
    rig_close(&r);
}

int main(void)
{
    test_sqlite_start_with_faults();
    authorizers(false);
    authorizers(true);
    for (int k = 0; k < WRITES && !rig_asserts(); k++) {
        allocations(writes[k], false, false);
        if (k % 3 == 0) {
            allocations(writes[k], true, false);
        } else {
            allocations(writes[k], k & 1, true);
        }
        interrupts(writes[k], false);
    }
    for (int k = 0; k < 4 && !rig_asserts(); k++) {
        interrupt_before_row(k & 1, k & 2);
    }
    if (!rig_asserts()) {
        interrupts(writes[0], true);
        interrupts(writes[3], true);
    }
    return rig_done();
}
