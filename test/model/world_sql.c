/* The tables, and the statements of an application: few keys, so that all meet. */
#include <stdio.h>
#include <stdlib.h>

#include "test/model/faults.h"
#include "test/model/world_int.h"

const char world_schema[] =
    "CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b TEXT);"
    "CREATE TABLE pair(x INTEGER, y TEXT COLLATE NOCASE, v, w, PRIMARY KEY (x, y)) WITHOUT ROWID;"
    "CREATE TABLE reals(k REAL NOT NULL PRIMARY KEY, v);"
    "CREATE TABLE names(k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v, n INTEGER);"
    "CREATE TABLE bag(a, b);"
    "CREATE TABLE loose(k TEXT PRIMARY KEY, v);"
    "CREATE TABLE uniq(id INTEGER PRIMARY KEY, u UNIQUE, v);"
    "CREATE TABLE ubag(a, u UNIQUE);"
    "CREATE TABLE uloose(k TEXT PRIMARY KEY, u UNIQUE, v);"
    "CREATE TABLE partly(id INTEGER PRIMARY KEY, u, live);"
    "CREATE UNIQUE INDEX alive ON partly(u) WHERE live = 1;"
    "CREATE TABLE lower(id INTEGER PRIMARY KEY, name TEXT, v);"
    "CREATE UNIQUE INDEX lowered ON lower(lower(name));";

const char *const world_younger[2] = { "late INTEGER DEFAULT 7", "later TEXT NOT NULL DEFAULT ''" };

const char world_rows[] = "INSERT INTO plain(id, a, b) VALUES (1, 'one', 'x'), (2, 2, NULL);"
                          "INSERT INTO pair(x, y, v, w) VALUES (1, 'a', 1, 1), (2, 'b', NULL, 2.5);"
                          "INSERT INTO reals(k, v) VALUES (1.0, 'one'), (0.5, 'half');"
                          "INSERT INTO names(k, v, n) VALUES ('bob', 1, 1), ('Eve', 2, 2);"
                          "INSERT INTO bag VALUES (1, 'x'), (1, 'x'), ('a', 'A');"
                          "INSERT INTO loose VALUES ('a', 1), (NULL, 2), (NULL, 2);"
                          "INSERT INTO uniq(id, u, v) VALUES (1, 'a', 1), (2, 'b', 2), (3, NULL, 3);"
                          "INSERT INTO ubag VALUES (1, 'a'), (1, NULL), (1, NULL), (2, 'b');"
                          "INSERT INTO uloose VALUES ('x', 'a', 1), (NULL, 'b', 1), (NULL, NULL, 1), ('y', NULL, 1);"
                          "INSERT INTO partly(id, u, live) VALUES (1, 'a', 1), (2, 'a', 0), (3, 'b', 1);"
                          "INSERT INTO lower(id, name, v) VALUES (1, 'Bob', 1), (2, 'eve', 2), (3, NULL, 3);";

#define YOUNGER "late", "later"
#define SEVEN                            \
    {                                    \
        .type = SQLITE_INTEGER, .u.i = 7 \
    }
#define NOTHING                                         \
    {                                                   \
        .type = SQLITE_TEXT, .u.p = (const uint8_t *)"" \
    }

const struct naive_def world_tables[WORLD_ALL] = {
    { "plain", 5, { "id", "a", "b", YOUNGER }, { 1 }, { 0 }, { 0 }, NAIVE_NO_RULE, 3, { [3] = SEVEN, [4] = NOTHING } },
    { "pair",
      6,
      { "x", "y", "v", "w", YOUNGER },
      { 1, 2 },
      { 0, MM_COLL_NOCASE },
      { 0 },
      NAIVE_NO_RULE,
      4,
      { [4] = SEVEN, [5] = NOTHING } },
    { "reals", 4, { "k", "v", YOUNGER }, { 1 }, { 0 }, { 0 }, NAIVE_NO_RULE, 2, { [2] = SEVEN, [3] = NOTHING } },
    { "names",
      5,
      { "k", "v", "n", YOUNGER },
      { 1 },
      { MM_COLL_NOCASE },
      { 0 },
      NAIVE_NO_RULE,
      3,
      { [3] = SEVEN, [4] = NOTHING } },
    { "bag", 2, { "a", "b" }, { 0 }, { 0 }, { 0 }, NAIVE_NO_RULE, 0, { { 0 } } },
    { "loose", 2, { "k", "v" }, { 1 }, { 0 }, { 0 }, NAIVE_NO_RULE, 0, { { 0 } } },
    { "uniq",
      5,
      { "id", "u", "v", YOUNGER },
      { 1 },
      { 0 },
      { 0, 1 },
      NAIVE_NO_RULE,
      3,
      { [3] = SEVEN, [4] = NOTHING } },
    { "ubag", 2, { "a", "u" }, { 0 }, { 0 }, { 0, 1 }, NAIVE_NO_RULE, 0, { { 0 } } },
    { "uloose", 3, { "k", "u", "v" }, { 1 }, { 0 }, { 0, 1 }, NAIVE_NO_RULE, 0, { { 0 } } },
    { "partly",
      5,
      { "id", "u", "live", YOUNGER },
      { 1 },
      { 0 },
      { 0 },
      NAIVE_SECOND_WHERE_THIRD,
      3,
      { [3] = SEVEN, [4] = NOTHING } },
    { "lower",
      5,
      { "id", "name", "v", YOUNGER },
      { 1 },
      { 0 },
      { 0 },
      NAIVE_LOWER_SECOND,
      3,
      { [3] = SEVEN, [4] = NOTHING } },
    { "born", 3, { "id", "v", "w" }, { 1 }, { 0 }, { 0 }, NAIVE_NO_RULE, 0, { { 0 } } },
};

bool world_usable[WORLD_ALL];

static unsigned pick(uint64_t *seed, unsigned n)
{
    return (unsigned)(world_random(seed) % n);
}

static const char *value(uint64_t *seed)
{
    static const char *const values[] = {
        "NULL",    "0",   "1",  "7",    "1.0", "0.5", "-2.25", "'a'", "'A'", "'text'",
        "x'00ff'", "x''", "''", "'a '", "'x'", "9",   "'z'",   "3",   "4",   "'long'"
    };
    return values[pick(seed, sizeof values / sizeof values[0])];
}

static const char *name(uint64_t *seed)
{
    static const char *const values[] = { "'bob'", "'BOB'", "'Bob'", "'eve'", "'Eve'", "'ann'" };
    return values[pick(seed, 6)];
}

static const char *real(uint64_t *seed)
{
    static const char *const values[] = { "1", "1.0", "0.5", "2", "NULL" };
    return values[pick(seed, 5)];
}

static const char *verb(uint64_t *seed)
{
    static const char *const values[] = { "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR REPLACE", "INSERT" };
    return values[pick(seed, 4)];
}

static const char *update(uint64_t *seed)
{
    static const char *const values[] = { "UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE" };
    return values[pick(seed, 3)];
}

static void plain_sql(uint64_t *s, char *out, size_t n)
{
    unsigned id = 1 + pick(s, 4);
    switch (pick(s, 8)) {
    case 0:
    case 1:
        snprintf(out, n, "%s INTO plain(id, a, b) VALUES (%u, %s, %s)", verb(s), id, value(s), value(s));
        break;
    case 2:
    case 3:
        snprintf(out, n, "UPDATE plain SET a = %s WHERE id = %u", value(s), id);
        break;
    case 4:
        snprintf(out, n, "UPDATE plain SET b = %s, a = %s WHERE id <= %u", value(s), value(s), id);
        break;
    case 5:
        snprintf(out, n, "UPDATE plain SET b = CAST(zeroblob(%u) AS TEXT) || %s WHERE id = %u", pick(s, 2) * 6000,
                 value(s), id);
        break;
    case 6:
        snprintf(out, n, "%s plain SET id = %u WHERE id = %u", update(s), id, 1 + pick(s, 4));
        break;
    default:
        snprintf(out, n, "DELETE FROM plain WHERE id = %u", id);
        break;
    }
}

static void pair_sql(uint64_t *s, char *out, size_t n)
{
    unsigned x = 1 + pick(s, 2);
    switch (pick(s, 5)) {
    case 0:
        snprintf(out, n, "%s INTO pair(x, y, v, w) VALUES (%u, %s, %s, %s)", verb(s), x, name(s), value(s), value(s));
        break;
    case 1:
        snprintf(out, n, "UPDATE pair SET v = %s WHERE x = %u", value(s), x);
        break;
    case 2:
        snprintf(out, n, "UPDATE pair SET w = %s WHERE y = %s", value(s), name(s));
        break;
    case 3:
        snprintf(out, n, "%s pair SET y = %s WHERE x = %u", update(s), name(s), x);
        break;
    default:
        snprintf(out, n, "DELETE FROM pair WHERE x = %u AND y = %s", x, name(s));
        break;
    }
}

static void reals_sql(uint64_t *s, char *out, size_t n)
{
    switch (pick(s, 4)) {
    case 0:
        snprintf(out, n, "%s INTO reals(k, v) VALUES (%s, %s)", verb(s), real(s), value(s));
        break;
    case 1:
        snprintf(out, n, "UPDATE reals SET v = %s WHERE k IS %s", value(s), real(s));
        break;
    case 2:
        snprintf(out, n, "%s reals SET k = %s WHERE k IS %s", update(s), real(s), real(s));
        break;
    default:
        snprintf(out, n, "DELETE FROM reals WHERE k IS %s", real(s));
        break;
    }
}

static void names_sql(uint64_t *s, char *out, size_t n)
{
    switch (pick(s, 5)) {
    case 0:
        snprintf(out, n, "%s INTO names(k, v, n) VALUES (%s, %s, %u)", verb(s), name(s), value(s), pick(s, 5));
        break;
    case 1:
        snprintf(out, n, "UPDATE names SET v = %s WHERE k = %s", value(s), name(s));
        break;
    case 2:
        snprintf(out, n, "UPDATE names SET n = n + %u WHERE k <> %s", 1 + pick(s, 3), name(s));
        break;
    case 3:
        snprintf(out, n, "%s names SET k = %s WHERE k = %s", update(s), name(s), name(s));
        break;
    default:
        snprintf(out, n, "DELETE FROM names WHERE k = %s", name(s));
        break;
    }
}

static void bag_sql(uint64_t *s, char *out, size_t n)
{
    switch (pick(s, 4)) {
    case 0:
        snprintf(out, n, "INSERT INTO bag VALUES (%s, %s)", value(s), value(s));
        break;
    case 1:
        snprintf(out, n, "UPDATE bag SET b = %s WHERE a IS %s", value(s), value(s));
        break;
    case 2:
        snprintf(out, n, "INSERT INTO bag VALUES (1, 'x')");
        break;
    default:
        snprintf(out, n, "DELETE FROM bag WHERE rowid = (SELECT min(rowid) FROM bag WHERE a IS %s)", value(s));
        break;
    }
}

static void loose_sql(uint64_t *s, char *out, size_t n)
{
    static const char *const keys[] = { "NULL", "'a'", "'A'", "'b'" };
    const char *key = keys[pick(s, 4)];
    switch (pick(s, 4)) {
    case 0:
        snprintf(out, n, "%s INTO loose VALUES (%s, %s)", verb(s), key, value(s));
        break;
    case 1:
        snprintf(out, n, "UPDATE loose SET v = %s WHERE k IS %s", value(s), key);
        break;
    case 2:
        snprintf(out, n, "%s loose SET k = %s WHERE k IS %s", update(s), key, keys[pick(s, 4)]);
        break;
    default:
        snprintf(out, n, "DELETE FROM loose WHERE k IS %s", key);
        break;
    }
}

static const char *held(uint64_t *seed)
{
    static const char *const values[] = { "'a'", "'b'", "'c'", "1", "1.0", "NULL" };
    return values[pick(seed, 6)];
}

static void ubag_sql(uint64_t *s, char *out, size_t n)
{
    switch (pick(s, 5)) {
    case 0:
    case 1:
        snprintf(out, n, "%s INTO ubag VALUES (%u, %s)", verb(s), pick(s, 3), held(s));
        break;
    case 2:
        snprintf(out, n, "%s ubag SET u = %s WHERE rowid = (SELECT min(rowid) FROM ubag WHERE a = %u)", update(s),
                 held(s), pick(s, 3));
        break;
    case 3:
        snprintf(out, n, "UPDATE ubag SET a = %u WHERE u IS %s", pick(s, 3), held(s));
        break;
    default:
        snprintf(out, n, "DELETE FROM ubag WHERE u IS %s", held(s));
        break;
    }
}

static void uloose_sql(uint64_t *s, char *out, size_t n)
{
    static const char *const keys[] = { "NULL", "NULL", "'x'", "'y'" };
    const char *key = keys[pick(s, 4)];
    switch (pick(s, 5)) {
    case 0:
    case 1:
        snprintf(out, n, "%s INTO uloose VALUES (%s, %s, %u)", verb(s), key, held(s), pick(s, 3));
        break;
    case 2:
        snprintf(out, n, "%s uloose SET u = %s WHERE rowid = (SELECT max(rowid) FROM uloose WHERE k IS %s)", update(s),
                 held(s), key);
        break;
    case 3:
        snprintf(out, n, "%s uloose SET k = %s WHERE u IS %s", update(s), key, held(s));
        break;
    default:
        snprintf(out, n, "DELETE FROM uloose WHERE k IS %s AND v = %u", key, pick(s, 3));
        break;
    }
}

static void partly_sql(uint64_t *s, char *out, size_t n)
{
    static const char *const lives[] = { "1", "1", "0", "NULL", "1.0", "'1'" };
    const char *live = lives[pick(s, 6)];
    unsigned id = 1 + pick(s, 4);
    switch (pick(s, 5)) {
    case 0:
    case 1:
        snprintf(out, n, "%s INTO partly(id, u, live) VALUES (%u, %s, %s)", verb(s), id, held(s), live);
        break;
    case 2:
        snprintf(out, n, "%s partly SET live = %s WHERE id = %u", update(s), live, id);
        break;
    case 3:
        snprintf(out, n, "%s partly SET u = %s WHERE id >= %u", update(s), held(s), id);
        break;
    default:
        snprintf(out, n, "DELETE FROM partly WHERE id = %u", id);
        break;
    }
}

static void lower_sql(uint64_t *s, char *out, size_t n)
{
    unsigned id = 1 + pick(s, 4);
    switch (pick(s, 5)) {
    case 0:
    case 1:
        snprintf(out, n, "%s INTO lower(id, name, v) VALUES (%u, %s, %u)", verb(s), id, name(s), pick(s, 3));
        break;
    case 2:
        snprintf(out, n, "%s lower SET name = %s WHERE id = %u", update(s), name(s), id);
        break;
    case 3:
        snprintf(out, n, "%s lower SET id = %u, name = upper(name) WHERE id = %u", update(s), id, 1 + pick(s, 4));
        break;
    default:
        snprintf(out, n, "DELETE FROM lower WHERE lower(name) = lower(%s)", name(s));
        break;
    }
}

static void uniq_sql(uint64_t *s, char *out, size_t n)
{
    unsigned id = 1 + pick(s, 4);
    const char *u = held(s);
    switch (pick(s, 6)) {
    case 0:
    case 1:
        snprintf(out, n, "%s INTO uniq(id, u, v) VALUES (%u, %s, %s)", verb(s), id, u, value(s));
        break;
    case 2:
        snprintf(out, n, "%s uniq SET u = %s WHERE id = %u", update(s), u, id);
        break;
    case 3:
        snprintf(out, n, "UPDATE uniq SET v = %s WHERE id >= %u", value(s), id);
        break;
    case 4:
        snprintf(out, n, "%s uniq SET id = %u WHERE id = %u", update(s), id, 1 + pick(s, 4));
        break;
    default:
        snprintf(out, n, "DELETE FROM uniq WHERE id = %u", id);
        break;
    }
}

static void born_sql(uint64_t *s, char *out, size_t n)
{
    unsigned id = 1 + pick(s, 4);
    switch (pick(s, 4)) {
    case 0:
    case 1:
        snprintf(out, n, "%s INTO born(id, v, w) VALUES (%u, %s, %s)", verb(s), id, value(s), value(s));
        break;
    case 2:
        snprintf(out, n, "UPDATE born SET v = %s WHERE id >= %u", value(s), id);
        break;
    default:
        snprintf(out, n, "DELETE FROM born WHERE id = %u", id);
        break;
    }
}

/* A constraint may refuse a statement: so it is in life, too. */
void world_statement(struct world *w, struct world_node *n, sqlite3 *db, uint64_t *seed)
{
    static void (*const kinds[])(uint64_t *, char *, size_t) = { plain_sql,  pair_sql,   reals_sql, names_sql,
                                                                 bag_sql,    loose_sql,  uniq_sql,  ubag_sql,
                                                                 uloose_sql, partly_sql, lower_sql };
    char sql[256];
    unsigned table = pick(seed, WORLD_TABLES);
    while (!world_usable[table]) {
        table = (table + 1) % WORLD_TABLES;
    }
    if (w->shapes && !world_has_table(db, world_tables[table].name)) {
        return;
    }
    /* What was written past the capture before its first message is what it begins with, which no copy holds. */
    if (w->born && db == n->app && pick(seed, 4) == 0 && world_has_table(db, "born")) {
        born_sql(seed, sql, sizeof sql);
    } else if (!w->shapes || pick(seed, 3) != 0 ||
               !world_younger_sql(db, &world_tables[table], value(seed), pick(seed, 8), sql, sizeof sql)) {
        kinds[table](seed, sql, sizeof sql);
    }
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (getenv("SHOW_SQL") != NULL) {
        printf("    node %d: %s: %d\n", (int)(n - w->node), sql, rc);
    }
    if (!fault_came() && rc != SQLITE_OK && (rc & 0xff) != SQLITE_CONSTRAINT && (rc & 0xff) != SQLITE_MISMATCH) {
        world_fail(w, "%s: %d %s", sql, rc, sqlite3_errmsg(db));
    }
}
