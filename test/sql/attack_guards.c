/* Hook and guard triggers on one file: interrupts, failing allocations, an
** authorizer that denies the join, and connections that never load us. What the
** outbox has, with what the triggers noted, is what really changed. Seeds are
** printed, and one given as the first argument is run again. A join that fails
** for want of memory ends in a veto that SQLite's own asserts object to: there
** faults are for strangers alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* Tables whose keys name their rows, and the others. */
enum { KEYED = 1, LOOSE = 2, WRITES = 7, LIMIT = 40000, JUDGE_EACH = 32, ROUNDS = 320 };

static const char keyed[] =
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b, r REAL);"
    "CREATE TABLE u(k TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, x UNIQUE, y);"
    "CREATE TABLE w(p INT, q TEXT, v, PRIMARY KEY(p, q)) WITHOUT ROWID;"
    "CREATE TABLE wide(id INTEGER PRIMARY KEY, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16,"
    " c17, c18);";
static const char keyed_rows[] = "DELETE FROM t; DELETE FROM u; DELETE FROM w; DELETE FROM wide;"
                                 "INSERT INTO t VALUES(1, 'one', 1), (2, x'00ff', 2.5), (3, NULL, 3);"
                                 "INSERT INTO u VALUES('a', 1, 'x'), ('b', 2, CAST(x'610062' AS TEXT)), ('c', 3, 9.0);"
                                 "INSERT INTO w VALUES(1, 'x', 1), (2, 'y', 2);";

static const char loose[] =
    "CREATE TABLE bag(x, y);"
    "CREATE TABLE ubag(x, u UNIQUE);"
    "CREATE TABLE named(k TEXT PRIMARY KEY COLLATE NOCASE, v, u UNIQUE);"
    "CREATE TABLE ruled(id INTEGER PRIMARY KEY, name TEXT, n, live, twice AS (n * 2) STORED, UNIQUE(twice, live));"
    "CREATE UNIQUE INDEX ruled_name ON ruled(lower(name) COLLATE RTRIM DESC, id > 4) WHERE ruled.live = 1;"
    "CREATE TABLE rbag(a, b); CREATE UNIQUE INDEX rbag_ab ON rbag(b % 3, \"a\" || 'x') WHERE a IS NOT NULL;";
static const char loose_rows[] =
    "DELETE FROM bag; DELETE FROM ubag; DELETE FROM named; DELETE FROM ruled; DELETE FROM rbag;"
    "INSERT INTO bag VALUES(1, 'x'), (1, 'x'), (1.0, 'x');"
    "INSERT INTO ubag VALUES(1, 1), (1, NULL), (NULL, 2);"
    "INSERT INTO named VALUES('a', 1, 1), (NULL, 1, 2), (NULL, 1, NULL);"
    "INSERT INTO ruled VALUES(1, 'a', 1, 1), (2, 'b', 1, 0); INSERT INTO rbag VALUES('a', 1), ('b', 2);";

static const struct {
    int tables;
    const char *sql;
} writes[WRITES] = {
    { KEYED, "INSERT INTO t(b, r) VALUES('x', 7), ('y', 8)" },
    { KEYED, "REPLACE INTO u VALUES('A', 3, 'both')" },
    { KEYED, "BEGIN; UPDATE t SET a = a + 10, b = 'q' WHERE a < 3; SAVEPOINT s; DELETE FROM u; ROLLBACK TO s; COMMIT" },
    { KEYED, "UPDATE OR REPLACE u SET x = 2 WHERE k = 'c'" },
    { KEYED, "INSERT INTO wide(c1, c16, c18) VALUES(1, 2, 3); UPDATE wide SET c17 = 4; DELETE FROM wide" },
    { LOOSE, "UPDATE bag SET x = x + 1; REPLACE INTO ubag VALUES(5, 2), (5, 2); REPLACE INTO named VALUES('A', 2, 2)" },
    { LOOSE, "REPLACE INTO ruled(name, n, live) VALUES('A', 5, 1); UPDATE OR REPLACE rbag SET b = 5, a = 'a'" },
};

static int no_join(void *arg, int action, const char *a, const char *b, const char *c, const char *trigger)
{
    (void)arg;
    (void)b;
    (void)c;
    (void)trigger;
    bool write = action == SQLITE_DELETE || action == SQLITE_INSERT || action == SQLITE_UPDATE;
    return write && a != NULL && strcmp(a, "marmot_capture") == 0 ? SQLITE_DENY : SQLITE_OK;
}

/* Who writes. */
enum who { HOOKED, DENIED, STRANGER, WHO };
static const char *const who_names[WHO] = { "hook and guards", "a join that is denied", "a stranger" };

struct stage {
    struct rig r;
    int tables;
    sqlite3 *stranger;
    sqlite3 *other; /* changes the schema */
};

static bool put_back(const struct stage *s, sqlite3 *db, char *why, size_t n)
{
    int rc = rig_sql(db, "%s%s", s->tables & KEYED ? keyed_rows : "", s->tables & LOOSE ? loose_rows : "");
    snprintf(why, n, "no recovery: %d %s", rc, sqlite3_errmsg(db));
    return rc == SQLITE_OK;
}

static void stage_open(struct stage *s, int tables)
{
    char text[4096];
    s->tables = tables;
    snprintf(text, sizeof text, "%s%s%s%s", tables & KEYED ? keyed : "", tables & LOOSE ? loose : "",
             tables & KEYED ? keyed_rows : "", tables & LOOSE ? loose_rows : "");
    rig_open(&s->r, text);
    rig_guards(&s->r);
    rig_begin_judging(&s->r);
    s->stranger = rig_connect(&s->r);
    s->other = rig_connect(&s->r);
}

static void stage_close(struct stage *s)
{
    sqlite3_close(s->other);
    sqlite3_close(s->stranger);
    rig_close(&s->r);
}

static sqlite3 *writer(struct stage *s, enum who who)
{
    sqlite3_set_authorizer(s->r.db, who == DENIED ? no_join : NULL, NULL);
    return who == STRANGER ? s->stranger : s->r.db;
}

static void roll_back(sqlite3 *db)
{
    if (!sqlite3_get_autocommit(db)) {
        rig_sql(db, "ROLLBACK");
    }
}

static bool judge(struct stage *s, char *why, size_t n)
{
    if (s->r.uncaptured > 0) {
        snprintf(why, n, "said to be uncaptured: %.400s", s->r.why);
        return false;
    }
    return rig_judge(&s->r, why, n);
}

static void move_schema(struct stage *s, int n)
{
    rig_sql(s->other, "CREATE VIEW z%d AS SELECT 1; DROP VIEW z%d", n, n);
}

/* To the next moment that something fails: there are thousands, the most after
** a schema change, and under asserts and sanitizers all is slow. */
static int stride(bool stale)
{
    return 1 + (int)pick((stale ? 160U : 8U) * (rig_asserts() ? 8U : 1U));
}

/* Allocations of a write fail, or all from one on. */
static void allocations(int tables, const char *sql, enum who who, bool stale, bool persist)
{
    struct stage s;
    char why[600] = "";
    bool good = true;
    bool hit = true;
    int n = 0;
    stage_open(&s, tables);
    sqlite3 *db = writer(&s, who);
    rig_sql(db, "%s", tables & KEYED ? "UPDATE t SET r = r + 1" : "UPDATE bag SET y = x");
    for (int k = 1; good && hit && n < LIMIT; k++) {
        n += stride(stale);
        if (stale) {
            move_schema(&s, n);
        }
        test_sqlite_fail_at(n, persist);
        rig_sql(db, "%s", sql);
        hit = test_sqlite_failed();
        test_sqlite_fail_at(0, false);
        roll_back(db);
        good = (k % JUDGE_EACH != 0 || judge(&s, why, sizeof why)) && put_back(&s, db, why, sizeof why);
    }
    good = good && judge(&s, why, sizeof why);
    char name[300];
    snprintf(name, sizeof name, "%s, %s%s: %.60s", who_names[who],
             persist ? "allocations fail from the nth on" : "an allocation fails", stale ? ", after DDL" : "", sql);
    rig_check(name, good && n < LIMIT, "at allocation %d: %s", n, why);
    stage_close(&s);
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

static void interrupts(int tables, const char *sql, enum who who, bool stale)
{
    struct stage s;
    char why[600] = "";
    bool good = true;
    struct moment m = { .now = 1 };
    int n = 0;
    stage_open(&s, tables);
    sqlite3 *db = writer(&s, who);
    for (int k = 1; good && m.now >= m.at && n < LIMIT; k++) {
        n += stride(stale);
        if (stale) {
            move_schema(&s, n);
        }
        m = (struct moment){ .db = db, .at = n };
        sqlite3_progress_handler(db, 1, progress, &m);
        rig_sql(db, "%s", sql);
        sqlite3_progress_handler(db, 0, NULL, NULL);
        roll_back(db);
        good = (k % JUDGE_EACH != 0 || judge(&s, why, sizeof why)) && put_back(&s, db, why, sizeof why);
    }
    good = good && judge(&s, why, sizeof why);
    char name[300];
    snprintf(name, sizeof name, "%s, interrupts%s: %.60s", who_names[who], stale ? ", after DDL" : "", sql);
    rig_check(name, good && m.now < m.at, "at step %d: %s", m.at, why);
    stage_close(&s);
}

static void statement(char *out, size_t n)
{
    static const char *const some[] = { "NULL", "1", "2.0", "'one'", "x'0102'", "CAST(x'610062' AS TEXT)", "''" };
    static const char *const or_what[] = { "", "", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ROLLBACK" };
    const char *v = some[pick(7)];
    const char *o = or_what[pick(6)];
    unsigned a = 1 + pick(9);
    unsigned b = 1 + pick(9);
    switch (pick(27)) {
    case 0:
        snprintf(out, n, "INSERT INTO t(b, r) VALUES(%s, %u), (%s, %s)", v, a, v, v);
        break;
    case 1:
        snprintf(out, n, "INSERT %s INTO t VALUES(%u, %s, %u), (%u, 1, 1)", o, a, v, b, b);
        break;
    case 2:
        snprintf(out, n, "UPDATE %s t SET a = a + %u, b = %s WHERE a BETWEEN %u AND %u", o, pick(3), v, a, a + 2);
        break;
    case 3:
        snprintf(out, n, "DELETE FROM t WHERE a BETWEEN %u AND %u", a, a + 2);
        break;
    case 4:
        snprintf(out, n, "INSERT %s INTO u VALUES('%c', %u, %s), ('%c', %u, 2)", o, (int)('a' + a), b, v,
                 (int)('A' + b), a);
        break;
    case 5:
        snprintf(out, n, "UPDATE %s u SET x = %u, y = %s WHERE x > %u", o, a, v, b);
        break;
    case 6:
        snprintf(out, n, "INSERT INTO u VALUES('%c', %u, %s) ON CONFLICT DO UPDATE SET y = %s", (int)('a' + a), b, v,
                 v);
        break;
    case 7:
        snprintf(out, n, "DELETE FROM u WHERE x = %u", a);
        break;
    case 8:
        snprintf(out, n, "INSERT %s INTO w VALUES(%u, 'x', %s)", o, a, v);
        break;
    case 9:
        snprintf(out, n, "UPDATE %s w SET p = %u, v = %s WHERE p = %u", o, a, v, b);
        break;
    case 10:
        snprintf(out, n, "INSERT %s INTO wide(id, c1, c16, c18) VALUES(%u, %s, %u, 1)", o, a, v, b);
        break;
    case 11:
        snprintf(out, n, "INSERT %s INTO bag(rowid, x, y) VALUES(%u, %s, 1), (%u, 1, 1)", o, a, v, b);
        break;
    case 12:
        snprintf(out, n, "INSERT INTO bag VALUES(1, 1), (%s, %u)", v, a % 2);
        break;
    case 13:
        snprintf(out, n, "UPDATE %s bag SET x = %s, rowid = rowid + %u WHERE rowid BETWEEN %u AND %u", o, v, pick(3), a,
                 a + 2);
        break;
    case 14:
        snprintf(out, n, "DELETE FROM bag WHERE x IS %s", v);
        break;
    case 15:
        snprintf(out, n, "INSERT %s INTO ubag VALUES(%s, %u), (%s, %u)", o, v, a, v, b);
        break;
    case 16:
        snprintf(out, n, "UPDATE %s ubag SET x = x + 1, u = u + %u WHERE u <> %u", o, pick(3), b);
        break;
    case 17:
        snprintf(out, n, "INSERT INTO ubag VALUES(%s, %u) ON CONFLICT(u) DO UPDATE SET x = 'again'", v, a);
        break;
    case 18:
        snprintf(out, n, "INSERT %s INTO named VALUES(%s, %s, %u), ('%c', 1, %u)", o, pick(2) ? "NULL" : "'b'", v, a,
                 (int)('A' + b), b);
        break;
    case 19:
        snprintf(out, n, "UPDATE %s named SET k = nullif('%c', 'd'), v = %s WHERE u > %u OR u IS NULL", o,
                 (int)('a' + a), v, b);
        break;
    case 20:
        snprintf(out, n, "DELETE FROM %s WHERE rowid BETWEEN %u AND %u", pick(2) ? "named" : "ubag", a, a + 1);
        break;
    case 21:
        snprintf(out, n, "INSERT %s INTO ruled(name, n, live) VALUES('%c ', %u, %u), ('%c', %s, 1)", o,
                 (int)('A' + a % 4), b, pick(2), (int)('a' + b % 4), v);
        break;
    case 22:
        snprintf(out, n, "INSERT %s INTO ruled(id, name, n, live) VALUES(%u, '%c', %u, 1)", o, a, (int)('A' + b % 4),
                 b);
        break;
    case 23:
        snprintf(out, n, "UPDATE %s ruled SET live = 1 - live, n = n + %u, id = id + %u WHERE id BETWEEN %u AND %u", o,
                 pick(2), pick(2), a, a + 2);
        break;
    case 24:
        snprintf(out, n, "INSERT %s INTO rbag VALUES('%c', %u), (%s, %u)", o, (int)('a' + a % 3), b, v, a);
        break;
    case 25:
        snprintf(out, n, "UPDATE %s rbag SET a = %s, b = b + %u WHERE rowid > %u", o, pick(2) ? "a" : v, pick(3),
                 a % 4);
        break;
    default:
        snprintf(out, n, "UPDATE wide SET c%u = %s WHERE id <> %u", 1 + pick(18), v, a);
        break;
    }
}

static void fault_on(struct moment *m, sqlite3 *db, enum who who)
{
    switch (rig_asserts() && who != STRANGER ? 3 : pick(4)) {
    case 0:
        test_sqlite_fail_at(1 + (int)pick(400), pick(2) != 0);
        break;
    case 1:
        *m = (struct moment){ .db = db, .at = 1 + (int)pick(200) };
        sqlite3_progress_handler(db, 1, progress, m);
        break;
    default:
        break;
    }
}

static void fault_off(sqlite3 *db)
{
    test_sqlite_fail_at(0, false);
    sqlite3_progress_handler(db, 0, NULL, NULL);
}

/* Transactions of all who write, one after another, each with what may go
** wrong in it; the schema changes between. */
static void mixture(uint64_t seed)
{
    struct stage s;
    char why[600] = "";
    bool good = true;
    state = seed;
    stage_open(&s, KEYED | LOOSE);
    for (int n = 1; good && n <= ROUNDS; n++) {
        struct moment m;
        char sql[400];
        enum who who = (enum who)pick(WHO);
        sqlite3 *db = writer(&s, who);
        bool whole = pick(2) != 0;
        if (pick(8) == 0) {
            move_schema(&s, n);
        }
        if (whole) {
            rig_sql(db, "BEGIN IMMEDIATE");
        }
        for (unsigned k = pick(4) + 1; k > 0; k--) {
            if (whole && pick(5) == 0) {
                rig_sql(db, pick(2) ? "SAVEPOINT s" : "ROLLBACK TO s");
            }
            statement(sql, sizeof sql);
            fault_on(&m, db, who);
            rig_sql(db, "%s", sql);
            fault_off(db);
        }
        if (!sqlite3_get_autocommit(db)) {
            fault_on(&m, db, who);
            rig_sql(db, pick(6) ? "COMMIT" : "ROLLBACK");
            fault_off(db);
        }
        roll_back(db);
        good = (n % JUDGE_EACH != 0 && n != ROUNDS) || judge(&s, why, sizeof why);
    }
    char name[100];
    snprintf(name, sizeof name, "all who write, mixed (seed %llu)", (unsigned long long)seed);
    rig_check(name, good, "%s", why);
    stage_close(&s);
}

int main(int argc, char **argv)
{
    test_sqlite_start_with_faults();
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : ((uint64_t)time(NULL) << 20 ^ (uint64_t)clock()) | 1;
    printf("# seed %llu\n", (unsigned long long)seed);
    mixture(seed);
    for (int k = 0; k < WRITES && argc == 1; k++) {
        for (int who = 0; who < WHO; who++) {
            if (rig_asserts() && who != STRANGER) {
                continue;
            }
            if ((k + who) % 2 == 0) {
                allocations(writes[k].tables, writes[k].sql, (enum who)who, k % 3 == 2, k % 2 == 0);
            } else {
                interrupts(writes[k].tables, writes[k].sql, (enum who)who, k % 3 == 0);
            }
        }
    }
    return rig_done();
}
