/* Random statements on two connections, with DDL, savepoints, failing
** statements and refused commits between; seeds are printed, and one given as
** the first argument is run again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static uint64_t state;

static unsigned pick(unsigned n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state >> 20) % n);
}

static const char schema[] =
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c REAL);"
    "CREATE TABLE w(k TEXT, r REAL, n INT, b, PRIMARY KEY(n, k)) WITHOUT ROWID;"
    "CREATE TABLE s(k TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, v DEFAULT 'd', g AS (v || k) STORED);"
    "CREATE TABLE par(x INTEGER PRIMARY KEY, y CHECK(y < 90));"
    "CREATE TABLE kid(z INTEGER PRIMARY KEY, x REFERENCES par ON DELETE CASCADE ON UPDATE SET NULL);"
    "CREATE TRIGGER tg AFTER UPDATE ON t WHEN new.b IS NOT old.b BEGIN REPLACE INTO par VALUES(new.a % 40, 1); END;"
    "CREATE INDEX ix ON t(b); CREATE INDEX iw ON w(b)";

static void value(char out[40])
{
    static const char *const some[] = { "NULL", "1",       "2.0", "3.5", "'one'",           "'ONE'",
                                        "''",   "x'0102'", "x''", "-7",  "9007199254740993" };
    if (pick(3) == 0) {
        snprintf(out, 40, "%u", pick(100));
    } else {
        snprintf(out, 40, "%s", some[pick(sizeof some / sizeof some[0])]);
    }
}

static void statement(char *out, size_t n)
{
    char v[40];
    char u[40];
    value(v);
    value(u);
    unsigned a = pick(60);
    unsigned b = pick(60);
    static const char *const or_what[] = { "", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ABORT", "OR ROLLBACK" };
    const char *o = or_what[pick(4) == 0 ? pick(6) : 0];
    switch (pick(24)) {
    case 0:
    case 1:
    case 2:
        snprintf(out, n, "INSERT %s INTO t VALUES(%u, %s, %u)", o, a, v, b);
        break;
    case 3:
    case 4:
        snprintf(out, n, "UPDATE %s t SET b = %s, c = %s WHERE a BETWEEN %u AND %u", o, v, u, a, a + 5);
        break;
    case 5:
        snprintf(out, n, "UPDATE %s t SET a = a + %u WHERE a = %u", o, b, a);
        break;
    case 6:
        snprintf(out, n, "DELETE FROM t WHERE a > %u", a);
        break;
    case 7:
        snprintf(out, n, "INSERT INTO t(b) SELECT b FROM t WHERE a < %u", a / 4);
        break;
    case 8:
    case 9:
        snprintf(out, n, "INSERT %s INTO w VALUES('k%u', %u, %u, %s)", o, a, b, a % 5, v);
        break;
    case 10:
        snprintf(out, n, "UPDATE %s w SET k = k || 'x', b = %s WHERE n = %u", o, v, a % 5);
        break;
    case 11:
        snprintf(out, n, "UPDATE %s w SET r = r + 1, b = %s WHERE n < %u", o, v, a % 5);
        break;
    case 12:
        snprintf(out, n, "DELETE FROM w WHERE n = %u", a % 5);
        break;
    case 13:
    case 14:
        snprintf(out, n, "INSERT %s INTO s(k, v) VALUES('%s%u', %s)", o, pick(2) ? "k" : "K", a % 9, v);
        break;
    case 15:
        snprintf(out, n, "INSERT INTO s(k) VALUES('k%u') ON CONFLICT DO UPDATE SET v = %s", a % 9, v);
        break;
    case 16:
        snprintf(out, n, "UPDATE %s s SET k = upper(k), v = %s WHERE k > 'k%u'", o, v, a % 9);
        break;
    case 17:
        snprintf(out, n, "INSERT %s INTO par VALUES(%u, %u)", o, a % 40, b + 40);
        break;
    case 18:
        snprintf(out, n, "INSERT INTO kid(x) SELECT x FROM par WHERE x > %u", a);
        break;
    case 19:
        snprintf(out, n, "DELETE FROM par WHERE x %% 3 = %u", a % 3);
        break;
    case 20:
        snprintf(out, n, "UPDATE %s par SET x = x + 1 WHERE x = %u", o, a % 40);
        break;
    case 21:
        snprintf(out, n, "UPDATE %s par SET y = y + 15", o);
        break;
    case 22:
        snprintf(out, n, "DELETE FROM %s", pick(2) ? "kid" : "s");
        break;
    default:
        snprintf(out, n, "INSERT INTO par SELECT x + 100, y FROM par WHERE x < %u RETURNING x", a);
        break;
    }
}

static void transaction_control(sqlite3 *db, int *depth)
{
    if (sqlite3_get_autocommit(db)) {
        *depth = 0;
        rig_sql(db, pick(2) ? "BEGIN" : "BEGIN IMMEDIATE");
        return;
    }
    switch (pick(6)) {
    case 0:
        rig_sql(db, "ROLLBACK");
        break;
    case 1:
    case 2:
        rig_sql(db, "SAVEPOINT s%d", (*depth)++);
        break;
    case 3:
        if (*depth > 0) {
            *depth = (int)pick((unsigned)*depth) + 1;
            rig_sql(db, "ROLLBACK TO s%d", *depth - 1);
        }
        break;
    case 4:
        if (*depth > 0) {
            *depth = (int)pick((unsigned)*depth);
            rig_sql(db, "RELEASE s%d", *depth);
        }
        break;
    default:
        if (rig_sql(db, "COMMIT") != SQLITE_OK) {
            rig_sql(db, "ROLLBACK");
        }
        break;
    }
}

/* Tables beside the watched ones: the copy need not follow. */
static void ddl(sqlite3 *db, unsigned n)
{
    switch (pick(4)) {
    case 0:
        rig_sql(db, "CREATE TABLE z%u(a); INSERT INTO z%u VALUES(1)", n, n);
        break;
    case 1:
        rig_sql(db, "CREATE TABLE y%u AS SELECT * FROM t; DROP TABLE y%u", n, n);
        break;
    case 2:
        rig_sql(db, "CREATE INDEX i%u ON t(c)", n);
        break;
    default:
        rig_sql(db, "ANALYZE");
        break;
    }
}

static bool run(uint64_t seed, int statements, char *why, size_t n)
{
    struct rig r;
    struct rig second;
    struct mm_err err;
    char sql[400];
    int depth[2] = { 0, 0 };
    bool good = true;
    mm_err_init(&err);
    state = seed * 0x9E3779B97F4A7C15ULL + 1;
    rig_open(&r, schema);
    rig_begin_judging(&r);
    second = r;
    second.db = rig_connect(&r);
    mm_hook_attach_early(second.db, rig_listen, &second, &err);
    sqlite3 *db[2] = { r.db, second.db };
    for (int k = 0; k < 2; k++) {
        rig_sql(db[k], "PRAGMA foreign_keys = %u; PRAGMA recursive_triggers = %u", pick(2), pick(2));
    }
    for (int k = 0; k < statements && good; k++) {
        unsigned c = pick(3) == 0;
        unsigned what = pick(20);
        if (what < 3) {
            transaction_control(db[c], &depth[c]);
        } else if (what == 3) {
            ddl(db[c], (unsigned)k);
        } else {
            statement(sql, sizeof sql);
            rig_sql(db[c], "%s", sql);
        }
        if (sqlite3_get_autocommit(db[0]) && sqlite3_get_autocommit(db[1]) && pick(10) == 0) {
            good = rig_judge(&r, why, n);
        }
    }
    for (int k = 0; k < 2; k++) {
        if (!sqlite3_get_autocommit(db[k]) && rig_sql(db[k], "COMMIT") != SQLITE_OK) {
            rig_sql(db[k], "ROLLBACK");
        }
    }
    good = good && rig_judge(&r, why, n);
    if (good && r.uncaptured + second.uncaptured > 0) {
        snprintf(why, n, "said to be uncaptured: %.200s%.200s", r.why, second.why);
        good = false;
    }
    if (sqlite3_close(second.db) != SQLITE_OK) {
        snprintf(why, n, "the second connection does not close");
        good = false;
    }
    rig_close(&r);
    return good;
}

int main(int argc, char **argv)
{
    char why[700] = "";
    char name[80];
    test_sqlite_start();
    uint64_t first = 0;
    sqlite3_randomness(sizeof first, &first);
    first = first % 1000000;
    if (argc > 1) {
        first = strtoull(argv[1], NULL, 10);
    }
    for (uint64_t k = 0; k < (argc > 1 ? 1 : 12); k++) {
        snprintf(name, sizeof name, "random statements, seed %llu", (unsigned long long)(first + k));
        bool good = run(first + k, 600, why, sizeof why);
        rig_check(name, good, "%s", why);
    }
    return rig_done();
}
