/* Verdicts: which tables can be watched, and what the others are told. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/tables.h"
#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static int collate(void *arg, int n, const void *a, int m, const void *b)
{
    (void)arg;
    int c = memcmp(a, b, (size_t)(n < m ? n : m));
    return c != 0 ? c : n - m;
}

static const struct {
    const char *create;
    const char *remedy; /* NULL = supported */
} verdicts[] = {
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b)", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b, UNIQUE(a))", NULL },
    { "CREATE TABLE x(a TEXT NOT NULL PRIMARY KEY)", NULL },
    { "CREATE TABLE x(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID", NULL },
    { "CREATE TABLE x(a INT NOT NULL, b TEXT NOT NULL COLLATE NOCASE, PRIMARY KEY(a, b))", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON x(lower(b)) WHERE b > 1", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b, g AS (b + 1), h AS (b + 2) VIRTUAL)", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, g AS (a + 1) STORED, b)", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b ANY) STRICT", NULL },
    { "CREATE TABLE x(a, b)", NULL },
    { "CREATE TABLE x(a TEXT PRIMARY KEY)", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY DESC)", NULL },
    { "CREATE TABLE x(rowid, oid)", NULL },
    { "CREATE TABLE x(rowid, oid, _rowid_)", "rename" },
    { "CREATE TABLE x(a UNIQUE, b)", NULL },
    { "CREATE TABLE x(a UNIQUE, rowid, _rowid_, oid)", "rowid" },
    { "CREATE TABLE x(a TEXT PRIMARY KEY, b UNIQUE)", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b UNIQUE)", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b); CREATE UNIQUE INDEX i ON x(b)", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b); CREATE UNIQUE INDEX i ON x(b) WHERE b > 1", NULL },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b); CREATE UNIQUE INDEX i ON x(lower(b))", NULL },
    { "CREATE TABLE x(a TEXT NOT NULL PRIMARY KEY COLLATE mine)", "collation" },
    { "CREATE TABLE x(a INTEGER PRIMARY KEY, b COLLATE mine); CREATE INDEX i ON x(b)", "collation" },
    { "CREATE TABLE x(g AS (b + 1) VIRTUAL, a INTEGER PRIMARY KEY, b)", "STORED" },
    { "CREATE TABLE x(r REAL, k INT PRIMARY KEY, v) WITHOUT ROWID", "key first" },
    { "CREATE VIEW x AS SELECT 1 AS a", "view" },
};

static void verdict(size_t at)
{
    sqlite3 *db = NULL;
    struct mm_err err;
    char name[200];
    mm_err_init(&err);
    sqlite3_open(":memory:", &db);
    sqlite3_create_collation(db, "mine", SQLITE_UTF8, NULL, collate);
    int rc = rig_sql(db, "%s", verdicts[at].create);
    struct mm_table *t = mm_table_load(db, "X", &err);
    const char *remedy = verdicts[at].remedy;
    bool good = rc == SQLITE_OK && t != NULL && strcmp(t->name, "x") == 0 && t->supported == (remedy == NULL);
    good = good && (remedy == NULL ? t->why == NULL && t->capturable : strstr(t->why, remedy) != NULL);
    snprintf(name, sizeof name, "%s %.120s", remedy == NULL ? "supported:" : "refused:", verdicts[at].create);
    rig_check(name, good, "rc %d %s; why %s", rc, err.msg, t == NULL ? "no table" : t->why != NULL ? t->why : "none");
    mm_table_free(t);
    sqlite3_close(db);
}

static uint64_t hash_of(const char *create)
{
    sqlite3 *db = NULL;
    struct mm_err err;
    mm_err_init(&err);
    sqlite3_open(":memory:", &db);
    rig_sql(db, "%s", create);
    struct mm_table *t = mm_table_load(db, "t", &err);
    uint64_t h = t != NULL ? mm_table_hash(t) : 0;
    mm_table_free(t);
    sqlite3_close(db);
    return h;
}

static void hashes(void)
{
    uint64_t h = hash_of("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c, UNIQUE(b, c))");
    rig_check("the hash does not see order, case, spelling",
              h != 0 && h == hash_of("CREATE  TABLE T(c, B text, A integer primary key, UNIQUE(c, b)) /* x */"),
              "it differs");
    static const char *const other[] = {
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c)",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c, UNIQUE(b))",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, d, UNIQUE(b, d))",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b INT, c, UNIQUE(b, c))",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT COLLATE NOCASE, c, UNIQUE(b, c))",
        "CREATE TABLE t(a INTEGER, b TEXT PRIMARY KEY, c, UNIQUE(b, c))",
        "CREATE TABLE u(a INTEGER PRIMARY KEY, b TEXT, c, UNIQUE(b, c))",
    };
    for (size_t k = 0; k < sizeof other / sizeof other[0]; k++) {
        rig_check(other[k], hash_of(other[k]) != h, "the hash is the same");
    }
}

/* UNIQUE indexes over expressions or a part of the rows. */
static void rules(void)
{
#define TABLE "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c, g AS (b || c)); "
    uint64_t h = hash_of(TABLE "CREATE UNIQUE INDEX i ON t(lower(b)) WHERE c = 'A'");
    rig_check(
        "the hash does not see how a rule is written",
        h == hash_of(TABLE "CREATE UNIQUE INDEX [an \"odd\" name] ON \"t\" /* ( */ ( LOWER(b))\n where c='A' -- x"),
        "it differs");
    static const char *const other[] = {
        TABLE,
        TABLE "CREATE UNIQUE INDEX i ON t(lower(b))",
        TABLE "CREATE UNIQUE INDEX i ON t(b) WHERE c = 'A'",
        TABLE "CREATE UNIQUE INDEX i ON t(b)",
        TABLE "CREATE UNIQUE INDEX i ON t(lower(b)) WHERE c = 'a'",
        TABLE "CREATE UNIQUE INDEX i ON t(lower(b)) WHERE c = 'A' OR a",
        TABLE "CREATE UNIQUE INDEX i ON t(g)",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c, g AS (b || c) UNIQUE)",
    };
    for (size_t k = 0; k < sizeof other / sizeof other[0]; k++) {
        bool same = hash_of(other[k]) == h;
        for (size_t j = 0; j < k; j++) {
            same = same || hash_of(other[k]) == hash_of(other[j]);
        }
        rig_check(other[k] + strlen(TABLE) - 1, !same, "the hash is the same");
    }
#undef TABLE
}

static void unique_sets(void)
{
    sqlite3 *db = NULL;
    struct mm_err err;
    mm_err_init(&err);
    sqlite3_open(":memory:", &db);
    rig_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT COLLATE NOCASE, c, UNIQUE(c, b), UNIQUE(a));"
                "CREATE INDEX i ON t(c); CREATE UNIQUE INDEX u ON t(b COLLATE RTRIM)");
    struct mm_table *t = mm_table_load(db, "t", &err);
    rig_check("two UNIQUE sets beyond the key", t != NULL && t->nunique == 2, "%d %s", t != NULL ? t->nunique : -1,
              err.msg);
    for (int k = 0; t != NULL && k < t->nunique; k++) {
        const struct mm_unique *u = &t->unique[k];
        bool single = strcmp(u->index, "u") == 0;
        bool good = single ? u->ncol == 1 && u->col[0] == 1 && u->coll[0] == MM_COLL_RTRIM
                           : u->ncol == 2 && u->col[0] == 2 && u->col[1] == 1 && u->coll[1] == MM_COLL_NOCASE;
        rig_check(single ? "a UNIQUE index with its collation" : "a UNIQUE constraint in its order", good, "%d columns",
                  u->ncol);
    }
    mm_table_free(t);
    sqlite3_close(db);
}

static void lists(void)
{
    sqlite3 *db = NULL;
    struct mm_err err;
    int n = -1;
    mm_err_init(&err);
    sqlite3_open(":memory:", &db);
    char **names = mm_table_list(db, &n, &err);
    rig_check("an empty database lists nothing", names == NULL && n == 0 && err.rc == SQLITE_OK, "%d %s", n, err.msg);
    struct mm_table *t = mm_table_load(db, "missing", &err);
    rig_check("a missing table is no error", t == NULL && err.rc == SQLITE_OK, "%s", err.msg);
    rig_sql(db, "CREATE TABLE b(a); CREATE TABLE a(x); CREATE VIEW v AS SELECT 1; CREATE TABLE __marmot__x(a);"
                "CREATE TEMP TABLE tt(a); CREATE TABLE seq(a INTEGER PRIMARY KEY AUTOINCREMENT)");
    names = mm_table_list(db, &n, &err);
    bool good = n == 3 && strcmp(names[0], "a") == 0 && strcmp(names[1], "b") == 0 && strcmp(names[2], "seq") == 0;
    rig_check("ordinary tables only", good, "%d names", n);
    for (int k = 0; k < n; k++) {
        free(names[k]);
    }
    free(names);
    sqlite3_close(db);
}

int main(void)
{
    test_sqlite_start();
    for (size_t k = 0; k < sizeof verdicts / sizeof verdicts[0]; k++) {
        verdict(k);
    }
    hashes();
    rules();
    unique_sets();
    lists();
    return rig_done();
}
