/* Connections whose authorizer denies our way into the transaction: TEMP
** triggers join where they may, and what cannot be reached is said. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static const char schema[] = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'one'), (2, 'two');"
                             "CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO w VALUES('a', 1), ('c', 2)";

static bool ours(const char *table)
{
    return table != NULL && strcmp(table, "marmot_capture") == 0;
}

static bool writes(int action)
{
    return action == SQLITE_DELETE || action == SQLITE_INSERT || action == SQLITE_UPDATE;
}

/* What a trigger does is the schema's business. */
static int not_directly(void *arg, int action, const char *a, const char *b, const char *c, const char *trigger)
{
    (void)arg;
    (void)b;
    (void)c;
    return writes(action) && ours(a) && trigger == NULL ? SQLITE_DENY : SQLITE_OK;
}

static int no_delete(void *arg, int action, const char *a, const char *b, const char *c, const char *trigger)
{
    (void)arg;
    (void)b;
    (void)c;
    (void)trigger;
    return action == SQLITE_DELETE && ours(a) ? SQLITE_DENY : SQLITE_OK;
}

static int only_update(void *arg, int action, const char *a, const char *b, const char *c, const char *trigger)
{
    (void)arg;
    (void)b;
    (void)c;
    (void)trigger;
    return (action == SQLITE_DELETE || action == SQLITE_INSERT) && ours(a) ? SQLITE_DENY : SQLITE_OK;
}

static int nothing_of_ours(void *arg, int action, const char *a, const char *b, const char *c, const char *trigger)
{
    (void)arg;
    (void)b;
    (void)c;
    (void)trigger;
    return writes(action) && ours(a) ? SQLITE_DENY : SQLITE_OK;
}

typedef int authorizer(void *arg, int action, const char *a, const char *b, const char *c, const char *d);

static void joins(const char *name, authorizer *denies, bool untrusted)
{
    static const char *const sql[] = {
        "INSERT INTO t VALUES(100, 'x')",
        "INSERT INTO t SELECT a + 1000, b FROM t",
        "BEGIN; UPDATE t SET b = b || 'y' WHERE a < 3; SAVEPOINT s; DELETE FROM w; ROLLBACK TO s",
        "DELETE FROM t WHERE a > 1000; COMMIT",
        "REPLACE INTO w VALUES('c', 9), ('d', 10)",
        "INSERT OR FAIL INTO w VALUES('e', 9), ('d', 10)",
        "BEGIN; DELETE FROM w; ROLLBACK",
        "DELETE FROM t",
    };
    struct rig r;
    struct mm_err err;
    mm_err_init(&err);
    rig_open(&r, schema);
    if (untrusted) {
        rig_sql(r.db, "PRAGMA trusted_schema = 0");
    }
    rig_sql(r.db, "UPDATE t SET b = b || '.'");
    sqlite3_set_authorizer(r.db, denies, NULL);
    int rc = rig_sql(r.db, "UPDATE t SET b = b || '-' WHERE a = 1");
    rig_check(name, rc == SQLITE_OK && r.uncaptured == 1 && strstr(r.why, "marmot_init") != NULL, "%d, %d notes, %s",
              rc, r.uncaptured, r.why);
    rig_begin_judging(&r);
    struct mm_hook *h = mm_hook_attach(r.db, true, rig_listen, &r, &err);
    rig_check("attached again", h == r.hook && err.rc == SQLITE_OK, "%s", err.msg);
    for (size_t k = 0; k < sizeof sql / sizeof sql[0]; k++) {
        char why[600];
        rig_sql(r.db, "%s", sql[k]);
        bool open = sqlite3_get_autocommit(r.db) == 0;
        rig_check(sql[k], open || (rig_judge(&r, why, sizeof why) && r.uncaptured == 1), "%s, %d notes", why,
                  r.uncaptured);
    }
    rig_sql(r.db, "INSERT INTO t VALUES(1, 1), (2, 2), (3, 3); UPDATE t SET b = a");
    rig_check("changes() is right", strcmp(rig_query(r.db, "SELECT changes()"), "3") == 0, "not 3");
    sqlite3_set_authorizer(r.db, NULL, NULL);
    rig_sql(r.db, "UPDATE t SET b = 5");
    rig_check_captured(&r, "captured without the authorizer, too");
    sqlite3_set_authorizer(r.db, denies, NULL);
    rig_sql(r.db, "CREATE TABLE later(a INTEGER PRIMARY KEY)");
    rig_watch(&r, "later"); /* as marmot_watch does, which makes the triggers of today */
    int before = rig_outbox(&r);
    rig_sql(r.db, "INSERT INTO later VALUES(1)");
    rig_check("a table that came later is captured once it is watched",
              rig_outbox(&r) == before + 1 && r.uncaptured == 1, "%d rows more, %d notes", rig_outbox(&r) - before,
              r.uncaptured);
    sqlite3_set_authorizer(r.db, NULL, NULL);
    rig_close(&r);
}

static void unreachable(void)
{
    struct rig r;
    struct mm_err err;
    mm_err_init(&err);
    rig_open(&r, schema);
    sqlite3_set_authorizer(r.db, nothing_of_ours, NULL);
    rig_sql(r.db, "UPDATE t SET b = b || '-' WHERE a = 1");
    struct mm_hook *h = mm_hook_attach(r.db, true, rig_listen, &r, &err);
    rig_check("what denies all is an error at once", h == NULL && (err.rc & 0xff) == SQLITE_AUTH, "%d %s", err.rc,
              err.msg);
    int rc = rig_sql(r.db, "INSERT INTO t VALUES(5, 5); UPDATE t SET b = 5 WHERE a = 5; DELETE FROM t WHERE a = 5");
    rig_check("and the application's writes go on", rc == SQLITE_OK, "%d %s", rc, sqlite3_errmsg(r.db));
    sqlite3_set_authorizer(r.db, NULL, NULL);
    rig_check("without anything of ours in them",
              strcmp(rig_query(r.db, "SELECT count(*) FROM temp.sqlite_schema"), "0") == 0, "a trigger was left");
    rig_close(&r);
}

int main(void)
{
    test_sqlite_start();
    joins("allowed in triggers", not_directly, false);
    joins("allowed in triggers, schema untrusted", not_directly, true);
    joins("no DELETE", no_delete, false);
    joins("nothing but UPDATE", only_update, false);
    unreachable();
    return rig_done();
}
