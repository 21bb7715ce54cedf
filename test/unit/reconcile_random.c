/* What nobody captured, found and captured late: random transactions, some of
** them past the hook, over tables of all shapes; then the rules that hold
** whatever they were. What is visible stays; undone, all that is pending leaves
** exactly the cluster's content, done again what was visible; folded elsewhere
** it gives the same; a second look finds nothing; a step that fails leaves nothing.
**
**    reconcile_random [--seed N] [--seconds N]
** marmot-test: parallel */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/multiset.h"
#include "repl/shadow.h"
#include "snapshot/reconcile.h"
#include "store/watch.h"
#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

enum { SECONDS = 6, SHARDS = 2 };

static const char schema[] = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, r REAL, b);"
                             "CREATE TABLE word(k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v) WITHOUT ROWID;"
                             "CREATE TABLE uniq(id INTEGER PRIMARY KEY, u UNIQUE, w, x);"
                             "CREATE UNIQUE INDEX uniq_w ON uniq(w) WHERE w > 2;"
                             "CREATE TABLE bag(x, y);"
                             "CREATE TABLE hole(k TEXT PRIMARY KEY, v);"
                             "CREATE TABLE pair(p INT, q TEXT, n, PRIMARY KEY(p, q)) WITHOUT ROWID;";
static const char *const tables[] = { "t", "word", "uniq", "bag", "hole", "pair" };

static uint64_t seed, state;
static char problem[1000];
static int faults, refusals;

static int dice(int n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int)(state % (uint64_t)n);
}

static bool need(bool good, const char *what, const struct mm_err *err)
{
    if (!good && problem[0] == '\0') {
        (void)snprintf(problem, sizeof problem, "%s: %s", what, err != NULL ? err->msg : "");
    }
    return good;
}

static const char *value(void)
{
    static const char *const list[] = { "NULL", "1", "1.0", "-0.0", "'x'", "'X'", "x'00ff'", "CAST(x'610062' AS TEXT)",
                                        "2" };
    return list[dice(9)];
}

static void statement(sqlite3 *db)
{
    static const char *const keys[] = { "'a'", "'A'", "'b'", "'c'", "NULL" };
    const char *k = keys[dice(4)];
    int n = dice(6);
    int m = dice(6);
    switch (dice(13)) {
    case 0:
        (void)rig_sql(db, "INSERT OR REPLACE INTO t VALUES (%d, %s, %d, %s)", n, value(), m, value());
        break;
    case 1:
        (void)rig_sql(db, "UPDATE t SET a = %s WHERE id = %d", value(), n);
        break;
    case 2:
        (void)rig_sql(db, "UPDATE t SET r = %d.5, b = %s WHERE id = %d", m, value(), n);
        break;
    case 3:
        (void)rig_sql(db, "DELETE FROM t WHERE id = %d", n);
        break;
    case 4:
        (void)rig_sql(db, "INSERT OR REPLACE INTO word VALUES (%s, %s)", k, value());
        break;
    case 5:
        (void)rig_sql(db, dice(2) != 0 ? "DELETE FROM word WHERE k = %s" : "UPDATE word SET v = 'u' WHERE k = %s", k);
        break;
    case 6:
        (void)rig_sql(db, "INSERT OR REPLACE INTO uniq VALUES (%d, %d, %d, %s)", n, m, dice(6), value());
        break;
    case 7:
        (void)rig_sql(db, "UPDATE OR REPLACE uniq SET u = %d, w = %d WHERE id = %d", m, dice(6), n);
        break;
    case 8:
        (void)rig_sql(db, dice(2) != 0 ? "DELETE FROM uniq WHERE id = %d" : "UPDATE uniq SET x = 'u' WHERE id = %d", n);
        break;
    case 9:
        (void)rig_sql(db, "INSERT INTO bag VALUES (%d, %s)", dice(2), dice(2) != 0 ? "'y'" : value());
        break;
    case 10:
        (void)rig_sql(db,
                      dice(2) != 0 ? "DELETE FROM bag WHERE rowid = (SELECT %s(rowid) FROM bag)"
                                   : "UPDATE bag SET y = 'z' WHERE rowid = (SELECT %s(rowid) FROM bag)",
                      dice(2) != 0 ? "max" : "min");
        break;
    case 11:
        (void)rig_sql(db,
                      dice(3) != 0 ? "INSERT OR REPLACE INTO hole VALUES (%s, %d)" : "DELETE FROM hole WHERE k IS %s",
                      keys[dice(5)], n);
        break;
    default:
        (void)rig_sql(db,
                      dice(3) != 0 ? "INSERT OR REPLACE INTO pair VALUES (%d, %s, %d)"
                                   : "DELETE FROM pair WHERE p = %d AND q = %s",
                      n % 3, k, m);
    }
}

static void transactions(struct rig *r, sqlite3 *other, int most)
{
    for (int n = dice(most + 1); n > 0; n--) {
        sqlite3 *db = dice(3) == 0 ? other : r->db;
        (void)rig_sql(db, "BEGIN IMMEDIATE");
        for (int k = dice(3); k >= 0; k--) {
            statement(db);
        }
        (void)rig_sql(db, "COMMIT");
    }
}

/* A message of the log comes while something is pending. */
static void fold_something(struct mm_repl *live, const char *base)
{
    struct mm_err err;
    mm_err_init(&err);
    sqlite3 *cluster = mm_repl_connect(base, NULL, 0, &err);
    mm_db_exec(live->db, &err, "BEGIN IMMEDIATE");
    mm_repl_read_outbox(live, &err);
    for (int k = 0; k < SHARDS; k++) {
        mm_pending_undo(live->shard[k].pending, 0, &err);
    }
    for (int n = 1 + dice(3); n > 0 && err.rc == SQLITE_OK; n--) {
        uint64_t was = state;
        statement(live->db);
        state = was;
        statement(cluster);
    }
    for (int k = 0; k < SHARDS && err.rc == SQLITE_OK; k++) {
        mm_pending_redo(live->shard[k].pending, &err);
    }
    mm_db_exec(live->db, &err, "COMMIT");
    need(err.rc == SQLITE_OK, "a message beside what is pending", &err);
    sqlite3_close(cluster);
}

/* Both hold the same rows, to the type and the byte. */
static bool same(sqlite3 *a, sqlite3 *b, const char *what)
{
    struct mm_err err;
    mm_err_init(&err);
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        struct mm_multiset set = { 0 };
        struct mm_value row[8];
        bool good = true;
        for (int side = 0; side < 2; side++) {
            sqlite3_stmt *st = mm_db_prepare(side == 0 ? a : b, &err, 0, "SELECT * FROM \"%w\"", tables[k]);
            int ncol = st != NULL ? sqlite3_column_count(st) : 0;
            while (mm_db_step(st, &err)) {
                for (int c = 0; c < ncol; c++) {
                    (void)mm_value_column(&row[c], st, c);
                }
                if (side == 0) {
                    mm_multiset_add(&set, row, ncol, &err);
                } else {
                    good = mm_multiset_take(&set, row, ncol, &err) && good;
                }
            }
            mm_db_finalize(st);
        }
        good = good && set.rows == 0;
        mm_multiset_free(&set);
        if (!need(good, what, &err)) {
            (void)snprintf(problem + strlen(problem), sizeof problem - strlen(problem), "table %s", tables[k]);
            return false;
        }
    }
    return need(err.rc == SQLITE_OK, what, &err);
}

static const struct mm_repl_options options = {
    .node = 1, .nshard = SHARDS, .stream_prefix = "s", .subject_prefix = "s", .part_size = 1 << 19
};

static bool open_repl(struct mm_repl *r, const char *path, struct mm_err *err)
{
    struct mm_repl_options o = options;
    memset(r, 0, sizeof *r);
    r->db = mm_repl_connect(path, NULL, 0, err);
    if (r->db != NULL) {
        mm_db_exec(r->db, err, "PRAGMA synchronous = OFF");
        mm_repl_open(r, &o, err);
    }
    return err->rc == SQLITE_OK;
}

static void copy_file(sqlite3 *from, const char *to, struct mm_err *err)
{
    (void)unlink(to);
    mm_db_exec(from, err, "VACUUM INTO %Q", to);
}

static int refuse(void *arg)
{
    (void)arg;
    return 1;
}

/* One step, of which the nth allocation may fail (hit). Now and then its COMMIT fails, as one does that finds the
** database busy: nothing of it stays, and the next step goes on. */
static bool step(struct mm_reconcile *x, struct mm_repl *live, bool may_fail, int nth, bool *hit, struct mm_err *err)
{
    bool refused = may_fail && dice(4) == 0;
    int64_t last = rig_outbox_last(live->db);
    test_sqlite_fail_at(nth, false);
    sqlite3_commit_hook(live->db, refused ? refuse : NULL, NULL);
    bool done = mm_reconcile_step(x, live, err);
    sqlite3_commit_hook(live->db, NULL, NULL);
    *hit = nth != 0 && test_sqlite_failed() && err->rc != SQLITE_OK;
    test_sqlite_fail_at(0, false);
    if (refused && err->rc != SQLITE_OK && !*hit) {
        refusals++;
        need(!done && live->reload_needed && rig_outbox_last(live->db) == last, "a step that is rolled back says so",
             err);
        mm_err_init(err);
        mm_repl_reload(live, err);
    }
    return done;
}

/* One pass; with `beside`, transactions go on between its steps. The rows that it found; complete: it says that
** nothing else was to be found when it began. */
static int64_t pass(struct rig *r, sqlite3 *other, struct mm_repl *live, const char *base, const char *copy,
                    bool beside, bool may_fail, bool *complete)
{
    struct mm_err err;
    struct mm_work work = { 0 };
    struct mm_diff diff = { 0 };
    struct mm_scratch s = { .work = &work };
    struct mm_diff_options d = { r->path, NULL, options, &work, true, false };
    int64_t rows = -1;
    mm_err_init(&err);
    sqlite3 *from = mm_repl_connect(base, NULL, 0, &err);
    copy_file(from, copy, &err);
    sqlite3_close(from);
    if (open_repl(&s.r, copy, &err)) {
        mm_diff_run(&diff, &d, &s, &err);
    }
    mm_repl_close(&s.r);
    struct mm_reconcile *x =
        err.rc == SQLITE_OK ? mm_reconcile_open(copy, NULL, &options, &diff, 1 + dice(3), &err) : NULL;
    bool done = false;
    bool failed = false;
    for (int k = 0; x != NULL && !done && err.rc == SQLITE_OK && k < 1000; k++) {
        if (beside && k < 5) {
            transactions(r, other, 2);
        }
        bool fails = beside && dice(6) == 0;
        bool hit = false;
        done = step(x, live, may_fail, fails ? 1 + dice(400) : 0, &hit, &err);
        failed = failed || hit;
    }
    if (failed) { /* out of memory in the middle: what was done before stays, the rest is found again */
        faults++;
        mm_err_init(&err);
        mm_repl_reload(live, &err);
        need(err.rc == SQLITE_OK, "reading again after a failure", &err);
        rows = 0;
    } else if (need(done, "a pass", &err)) {
        rows = mm_reconcile_rows(x);
    }
    *complete = done && err.rc == SQLITE_OK && mm_reconcile_complete(x);
    mm_reconcile_close(x);
    mm_diff_free(&diff);
    return rows;
}

/* Pending undone and done again, on the file itself. */
static void undo_and_redo(struct mm_repl *live, const char *base, const char *before)
{
    struct mm_err err;
    mm_err_init(&err);
    sqlite3 *cluster = mm_repl_connect(base, NULL, 0, &err);
    sqlite3 *seen = mm_repl_connect(before, NULL, 0, &err);
    mm_db_exec(live->db, &err, "BEGIN IMMEDIATE");
    mm_repl_read_outbox(live, &err);
    for (int k = 0; k < SHARDS; k++) {
        mm_pending_undo(live->shard[k].pending, 0, &err);
    }
    bool good =
        need(err.rc == SQLITE_OK, "undo", &err) && same(live->db, cluster, "undone it is the cluster's content; ");
    for (int k = 0; k < SHARDS && good; k++) {
        mm_pending_redo(live->shard[k].pending, &err);
    }
    if (good && need(err.rc == SQLITE_OK, "redo", &err)) {
        same(live->db, seen, "done again it is what was visible; ");
    }
    mm_db_exec(live->db, &err, "COMMIT");
    sqlite3_close(cluster);
    sqlite3_close(seen);
}

/* What is pending, folded by a node that had nothing of its own. */
static void fold_elsewhere(struct mm_repl *live, const char *base, const char *before, const char *copy)
{
    struct mm_err err;
    struct mm_repl there = { 0 };
    int64_t upto[MM_SNAPSHOT_SHARDS] = { 0 };
    mm_err_init(&err);
    sqlite3 *from = mm_repl_connect(base, NULL, 0, &err);
    sqlite3 *seen = mm_repl_connect(before, NULL, 0, &err);
    copy_file(from, copy, &err);
    if (open_repl(&there, copy, &err)) {
        mm_db_exec(there.db, &err, "BEGIN");
        mm_shadow_follow(&there, live, upto, 0, &err);
        mm_db_exec(there.db, &err, "COMMIT");
        if (need(err.rc == SQLITE_OK, "folding", &err)) {
            same(there.db, seen, "folded elsewhere it is the same; ");
        }
    }
    mm_repl_close(&there);
    sqlite3_close(from);
    sqlite3_close(seen);
}

static int64_t schedule(void)
{
    struct rig r;
    struct mm_err err;
    struct mm_repl live = { 0 };
    char base[300];
    char copy[300];
    char before[300];
    int64_t found = 0;
    mm_err_init(&err);
    rig_open(&r, schema);
    (void)snprintf(base, sizeof base, "%s-base", r.path);
    (void)snprintf(copy, sizeof copy, "%s-copy", r.path);
    (void)snprintf(before, sizeof before, "%s-before", r.path);
    sqlite3 *other = rig_connect(&r);
    (void)rig_sql(r.db, "PRAGMA synchronous = OFF");
    (void)rig_sql(other, "PRAGMA synchronous = OFF");
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        mm_watch_set(r.db, tables[k], MM_WATCHED, NULL, &err);
        mm_watchlist_add(r.db, tables[k], mm_watch_shard(tables[k], SHARDS), 1, &err);
    }
    for (int k = 0; k < 30; k++) {
        statement(r.db);
    }
    /* So far all is in the log. */
    struct mm_outbox *o = mm_outbox_open(r.db, &err);
    mm_outbox_echoed(o, rig_outbox_last(r.db), 1, &err);
    mm_outbox_close(o);
    copy_file(r.db, base, &err);
    need(err.rc == SQLITE_OK, "the beginning", &err);
    transactions(&r, other, 24);
    if (open_repl(&live, r.path, &err)) {
        if (dice(2) == 0) {
            fold_something(&live, base);
            transactions(&r, other, 6);
        }
        bool complete = false;
        bool all_captured = dice(2) != 0;
        found = pass(&r, all_captured ? r.db : other, &live, base, copy, true, true, &complete);
        copy_file(r.db, before, &err);
        bool over = complete && all_captured;
        int64_t more = pass(&r, other, &live, base, copy, false, true, &complete);
        need(!over || more == 0, "a pass that says to be complete leaves something", NULL);
        found += more;
        sqlite3 *seen = mm_repl_connect(before, NULL, 0, &err);
        same(r.db, seen, "what is visible stays; ");
        sqlite3_close(seen);
        int64_t again = problem[0] == '\0' ? pass(&r, other, &live, base, copy, false, false, &complete) : 0;
        if (again != 0 && need(false, "a look more finds", NULL)) {
            return 0;
        }
        if (problem[0] == '\0') {
            fold_elsewhere(&live, base, before, copy);
            undo_and_redo(&live, base, before);
        }
    }
    need(err.rc == SQLITE_OK, "a schedule", &err);
    mm_repl_close(&live);
    (void)unlink(base);
    (void)unlink(copy);
    (void)unlink(before);
    (void)rig_sql(r.db, "ROLLBACK");
    sqlite3_close(other);
    rig_close(&r);
    return found;
}

int main(int argc, char **argv)
{
    static const struct option options_of[] = { { "seed", 1, NULL, 's' }, { "seconds", 1, NULL, 't' }, { 0 } };
    time_t until = time(NULL) + SECONDS;
    bool once = false;
    seed = (uint64_t)time(NULL) * 1000;
    for (int c; (c = getopt_long(argc, argv, "", options_of, NULL)) != -1;) {
        if (c == 's') {
            seed = strtoull(optarg, NULL, 10);
            once = true;
        } else if (c == 't') {
            until = time(NULL) + atoi(optarg);
        } else {
            return 2;
        }
    }
    if (getenv("SHOW_LOG") == NULL) {
        mm_log_silence();
    }
    test_sqlite_start_with_faults();
    if (access("/dev/shm", W_OK) == 0) {
        (void)setenv("TMPDIR", "/dev/shm", 0); /* what it is about is not the disk */
    }
    uint64_t first = seed;
    int64_t found = 0;
    int n = 0;
    do {
        state = seed * 0x9e3779b97f4a7c15ULL | 1;
        found += schedule();
        n++;
        if (problem[0] != '\0') {
            printf("not ok reconcile_random: seed %llu: %s\n", (unsigned long long)seed, problem);
            return 1;
        }
        seed++;
    } while (!once && time(NULL) < until);
    printf("ok reconcile_random: %d schedules from seed %llu on, %lld rows found, %d steps out of memory, %d rolled "
           "back\n",
           n, (unsigned long long)first, (long long)found, faults, refusals);
    return found > 0 || once ? rig_done() : 1;
}
