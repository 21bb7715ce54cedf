/* What the application of a node writes: few keys, so that all meet. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "store/change.h"
#include "store/policy.h"
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
    "CREATE UNIQUE INDEX lowered ON lower(lower(name));"
    "INSERT INTO plain VALUES (1, 'one', 'x'), (2, 2, NULL);"
    "INSERT INTO pair VALUES (1, 'a', 1, 1), (2, 'b', NULL, 2.5);"
    "INSERT INTO reals VALUES (1.0, 'one'), (0.5, 'half');"
    "INSERT INTO names VALUES ('bob', 1, 1), ('Eve', 2, 2);"
    "INSERT INTO bag VALUES (1, 'x'), (1, 'x'), ('a', 'A');"
    "INSERT INTO loose VALUES ('a', 1), (NULL, 2), (NULL, 2);"
    "INSERT INTO uniq VALUES (1, 'a', 1), (2, 'b', 2), (3, NULL, 3);"
    "INSERT INTO ubag VALUES (1, 'a'), (1, NULL), (1, NULL), (2, 'b');"
    "INSERT INTO uloose VALUES ('x', 'a', 1), (NULL, 'b', 1), (NULL, NULL, 1), ('y', NULL, 1);"
    "INSERT INTO partly VALUES (1, 'a', 1), (2, 'a', 0), (3, 'b', 1);"
    "INSERT INTO lower VALUES (1, 'Bob', 1), (2, 'eve', 2), (3, NULL, 3);";

const struct naive_def world_tables[WORLD_TABLES] = {
    { "plain", 3, { "id", "a", "b" }, { 1 }, { 0 }, { 0 }, NAIVE_NO_RULE },
    { "pair", 4, { "x", "y", "v", "w" }, { 1, 2 }, { 0, MM_COLL_NOCASE }, { 0 }, NAIVE_NO_RULE },
    { "reals", 2, { "k", "v" }, { 1 }, { 0 }, { 0 }, NAIVE_NO_RULE },
    { "names", 3, { "k", "v", "n" }, { 1 }, { MM_COLL_NOCASE }, { 0 }, NAIVE_NO_RULE },
    { "bag", 2, { "a", "b" }, { 0 }, { 0 }, { 0 }, NAIVE_NO_RULE },
    { "loose", 2, { "k", "v" }, { 1 }, { 0 }, { 0 }, NAIVE_NO_RULE },
    { "uniq", 3, { "id", "u", "v" }, { 1 }, { 0 }, { 0, 1 }, NAIVE_NO_RULE },
    { "ubag", 2, { "a", "u" }, { 0 }, { 0 }, { 0, 1 }, NAIVE_NO_RULE },
    { "uloose", 3, { "k", "u", "v" }, { 1 }, { 0 }, { 0, 1 }, NAIVE_NO_RULE },
    { "partly", 3, { "id", "u", "live" }, { 1 }, { 0 }, { 0 }, NAIVE_SECOND_WHERE_THIRD },
    { "lower", 3, { "id", "name", "v" }, { 1 }, { 0 }, { 0 }, NAIVE_LOWER_SECOND },
};

bool world_usable[WORLD_TABLES];

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
        snprintf(out, n, "%s INTO plain VALUES (%u, %s, %s)", verb(s), id, value(s), value(s));
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
        snprintf(out, n, "%s INTO pair VALUES (%u, %s, %s, %s)", verb(s), x, name(s), value(s), value(s));
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
        snprintf(out, n, "%s INTO reals VALUES (%s, %s)", verb(s), real(s), value(s));
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
        snprintf(out, n, "%s INTO names VALUES (%s, %s, %u)", verb(s), name(s), value(s), pick(s, 5));
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
        snprintf(out, n, "%s INTO partly VALUES (%u, %s, %s)", verb(s), id, held(s), live);
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
        snprintf(out, n, "%s INTO lower VALUES (%u, %s, %u)", verb(s), id, name(s), pick(s, 3));
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
        snprintf(out, n, "%s INTO uniq VALUES (%u, %s, %s)", verb(s), id, u, value(s));
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

/* A constraint may refuse a statement: so it is in life, too. */
static void statement(struct world *w, struct world_node *n, uint64_t *seed)
{
    static void (*const kinds[])(uint64_t *, char *, size_t) = { plain_sql,  pair_sql,   reals_sql, names_sql,
                                                                 bag_sql,    loose_sql,  uniq_sql,  ubag_sql,
                                                                 uloose_sql, partly_sql, lower_sql };
    char sql[256];
    unsigned table = pick(seed, WORLD_TABLES);
    while (!world_usable[table]) {
        table = (table + 1) % WORLD_TABLES;
    }
    kinds[table](seed, sql, sizeof sql);
    int rc = sqlite3_exec(n->app, sql, NULL, NULL, NULL);
    if (getenv("SHOW_SQL") != NULL) {
        printf("    node %d: %s: %d\n", (int)(n - w->node), sql, rc);
    }
    if (!fault_came() && rc != SQLITE_OK && (rc & 0xff) != SQLITE_CONSTRAINT && (rc & 0xff) != SQLITE_MISMATCH) {
        world_fail(w, "%s: %d %s", sql, rc, sqlite3_errmsg(n->app));
    }
}

static void statements(struct world *w, struct world_node *n, uint64_t *seed)
{
    unsigned count = 1 + pick(seed, 3);
    bool inner = pick(seed, 6) == 0;
    statement(w, n, seed);
    if (inner) {
        sqlite3_exec(n->app, "SAVEPOINT s", NULL, NULL, NULL);
    }
    for (unsigned k = 1; k < count && !sqlite3_get_autocommit(n->app); k++) {
        statement(w, n, seed);
    }
    if (inner) {
        sqlite3_exec(n->app, pick(seed, 2) == 0 ? "ROLLBACK TO s; RELEASE s" : "RELEASE s", NULL, NULL, NULL);
    }
}

enum mm_coll world_coll(void *arg, const char *table, const char *column, struct mm_err *err)
{
    (void)arg;
    (void)err;
    for (int t = 0; t < WORLD_TABLES; t++) {
        for (int k = 0; k < world_tables[t].ncol && strcmp(world_tables[t].name, table) == 0; k++) {
            if (strcmp(world_tables[t].col[k], column) == 0) {
                return world_tables[t].coll[k];
            }
        }
    }
    return MM_COLL_BINARY;
}

/* Remembers the transaction that was just committed. */
static void remember(struct world *w, struct world_node *n, int64_t before)
{
    struct mm_err err;
    struct mm_outbox_row row;
    struct mm_buf names;
    struct mm_buf data;
    struct mm_arena a;
    mm_err_init(&err);
    mm_buf_init(&names, 1 << 30);
    mm_buf_init(&data, 1 << 30);
    mm_arena_init(&a, 1 << 30);
    struct mm_txn txn = { .arena = &a };
    fault_pause(true);
    if (mm_outbox_next(n->r.outbox, before, &row, &names, &data, &err)) {
        if (row.kind == MM_OUTBOX_TXN) {
            mm_change_read(&txn, data.data, data.len, names.data, names.len, world_coll, NULL, &err);
        }
        w->commit = realloc(w->commit, (w->ncommit + 1) * sizeof *w->commit);
        world_need(w->commit != NULL, "memory");
        struct world_commit *c = &w->commit[w->ncommit++];
        memset(c, 0, sizeof *c);
        memcpy(c->txid, row.txid, sizeof c->txid);
        c->node = (int)(n - w->node);
        c->optional = fault_dead();
        for (size_t k = 0; k < txn.ntab; k++) {
            c->touches[mm_watch_shard(txn.tab[k].name, w->shards) - 1] |= txn.tab[k].nrow > 0;
        }
        if (row.kind == MM_OUTBOX_CONTROL && data.data[0] == MM_CONTROL_ENDED) {
            c->touches[data.data[1] - 1] = true;
        } else if (row.kind == MM_OUTBOX_CONTROL) { /* a policy: of a table by its name */
            mm_buf_byte(&data, 0);
            c->touches[mm_watch_shard((const char *)data.data + 1, w->shards) - 1] = true;
        }
    }
    if (err.rc != SQLITE_OK) {
        world_fail(w, "reading what was captured: %s", err.msg);
    }
    mm_arena_free(&a);
    mm_buf_free(&names);
    mm_buf_free(&data);
    fault_pause(false);
}

void world_end(struct world *w, struct world_node *n, bool keep)
{
    struct mm_err err;
    fault_pause(true);
    mm_err_init(&err);
    int64_t before = mm_outbox_last(n->r.outbox, &err);
    fault_pause(false);
    n->open = false;
    int rc = sqlite3_exec(n->app, keep ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL);
    if (fault_came() || n->hurt) { /* done or not: the outbox tells */
        n->hurt = false;
        sqlite3_exec(n->app, "ROLLBACK", NULL, NULL, NULL); /* an error when it is done already */
        remember(w, n, before);
    } else if (rc != SQLITE_OK) {
        world_fail(w, "%s: %s", keep ? "COMMIT" : "ROLLBACK", sqlite3_errmsg(n->app));
    } else if (keep) {
        remember(w, n, before);
    }
}

bool world_begin(struct world *w, struct world_node *n)
{
    if (sqlite3_exec(n->app, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK && !fault_came()) {
        world_fail(w, "BEGIN: %s", sqlite3_errmsg(n->app));
    }
    return !w->failed && !sqlite3_get_autocommit(n->app);
}

/* SQLite may have rolled back by itself; or the COMMIT will be refused. */
static void still_open(struct world_node *n)
{
    n->open = !sqlite3_get_autocommit(n->app);
    n->hurt = n->open && (n->hurt || fault_came());
}

void world_write(struct world *w, struct world_node *n, uint64_t seed)
{
    if (n->open) {
        statements(w, n, &seed);
        still_open(n);
    } else if (world_begin(w, n)) {
        statements(w, n, &seed);
        world_end(w, n, pick(&seed, 10) != 0);
    }
}

void world_hold(struct world *w, struct world_node *n, uint64_t seed)
{
    if (n->open) {
        world_end(w, n, pick(&seed, 4) != 0);
    } else if (world_begin(w, n)) {
        statements(w, n, &seed);
        still_open(n);
    }
}
