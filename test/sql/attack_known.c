/* A small commit reads nothing back that this connection left there itself. So
** here somebody else, or the connection in another way, writes between two
** commits or within one; and what a commit costs is counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/db.h"
#include "store/inbox.h"
#include "store/log.h"
#include "store/outbox.h"
#include "store/stray.h"
#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

static const char one_table[] = "CREATE TABLE t(a INTEGER PRIMARY KEY, b)";

static struct mm_err err;

static void sound(const char *what)
{
    rig_check(what, err.rc == SQLITE_OK, "%d %s", err.rc, err.msg);
    mm_err_init(&err);
}

/* Two commits: the second one knows what the first one left. */
static void warm(struct rig *r, int from)
{
    rig_sql(r->db, "INSERT INTO t VALUES(%d, 1)", from);
    rig_sql(r->db, "INSERT INTO t VALUES(%d, 1)", from + 1);
}

static void control(sqlite3 *db)
{
    static const char message[] = "not decoded here";
    mm_outbox_put_control(db, message, sizeof message, &err);
}

static void other_connections(void)
{
    struct rig r;
    rig_open(&r, one_table);
    rig_begin_judging(&r);
    sqlite3 *db = rig_connect(&r);
    struct rig second = { 0 };
    struct mm_hook *hook = mm_hook_attach(db, true, rig_listen, &second, &err);
    rig_check("a second connection", hook != NULL, "%s", err.msg);
    for (int k = 0; k < 600; k++) {
        rig_sql(k % 7 < 4 ? r.db : db, "INSERT INTO t VALUES(%d, hex(zeroblob(20)))", k);
    }
    rig_check("none is lost", rig_outbox(&r) == 600, "%d rows", rig_outbox(&r));
    rig_check_captured(&r, "two connections that take turns, beyond what the inbox holds");
    warm(&r, 1000);
    control(db);
    warm(&r, 1010);
    rig_check_captured(&r, "another connection empties the inbox between");
    sqlite3_close(db);
    sound("no error");
    rig_close(&r);
}

/* The connection's own writes to the bookkeeping, which no commit tells of. */
static void own_writes(void)
{
    struct rig r;
    rig_open(&r, one_table);
    rig_begin_judging(&r);
    warm(&r, 1);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(3, 1)");
    control(r.db);
    rig_sql(r.db, "COMMIT; INSERT INTO t VALUES(4, 1)");
    rig_check_captured(&r, "the inbox emptied after the first row");
    warm(&r, 10);
    rig_sql(r.db, "BEGIN");
    control(r.db);
    rig_sql(r.db, "INSERT INTO t VALUES(12, 1); COMMIT; INSERT INTO t VALUES(13, 1)");
    rig_check_captured(&r, "and before it");
    warm(&r, 20);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(22, 1); SAVEPOINT s");
    control(r.db);
    rig_sql(r.db, "ROLLBACK TO s; INSERT INTO t VALUES(23, 1); COMMIT; INSERT INTO t VALUES(24, 1)");
    rig_check_captured(&r, "and taken back to a savepoint");
    warm(&r, 30);
    rig_sql(r.db, "BEGIN");
    control(r.db);
    rig_sql(r.db, "ROLLBACK; INSERT INTO t VALUES(32, 1); INSERT INTO t VALUES(33, 1)");
    rig_check_captured(&r, "and rolled back");
    warm(&r, 40);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(42, 1); ROLLBACK; INSERT INTO t VALUES(43, 1)");
    rig_sql(r.db, "INSERT INTO t VALUES(44, 1); DELETE FROM t WHERE a = 44; BEGIN; INSERT INTO t VALUES(45, 1);"
                  "DELETE FROM t WHERE a = 45; COMMIT; INSERT INTO t VALUES(46, 1)");
    rig_check_captured(&r, "a transaction of which nothing is left");
    sound("no error");
    rig_close(&r);
}

static const char *incarnation(sqlite3 *db)
{
    struct mm_outbox_row row = { 0 };
    static char text[32];
    struct mm_outbox *o = mm_outbox_open(db, &err);
    int64_t last = o != NULL ? mm_outbox_last(o, &err) : 0;
    (void)(o != NULL && mm_outbox_get(o, last, &row, NULL, NULL, &err));
    mm_outbox_close(o);
    snprintf(text, sizeof text, "%lld", (long long)row.incarnation);
    return text;
}

static void head_row(void)
{
    struct rig r;
    rig_open(&r, one_table);
    rig_begin_judging(&r);
    sqlite3 *db = rig_connect(&r);
    warm(&r, 1);
    mm_head_set_incarnation(db, 77, &err);
    rig_sql(r.db, "INSERT INTO t VALUES(3, 1)");
    rig_check("another one's new incarnation", strcmp(incarnation(r.db), "77") == 0, "%s", incarnation(r.db));
    warm(&r, 10);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(12, 1)");
    mm_head_set_incarnation(r.db, 88, &err);
    rig_sql(r.db, "COMMIT");
    rig_check("one's own, in the transaction", strcmp(incarnation(r.db), "88") == 0, "%s", incarnation(r.db));
    warm(&r, 20);
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(22, 1); SAVEPOINT s");
    mm_head_set_incarnation(r.db, 99, &err);
    rig_sql(r.db, "ROLLBACK TO s; COMMIT");
    rig_check("taken back", strcmp(incarnation(r.db), "88") == 0, "%s", incarnation(r.db));
    mm_head_set_brake(db, MM_BRAKE_REFUSE, &err);
    int rc = rig_sql(r.db, "INSERT INTO t VALUES(30, 1)");
    rig_check("refused at once when the outbox is full", rc == SQLITE_FULL, "%d", rc);
    mm_head_set_brake(db, MM_BRAKE_OFF, &err);
    rc = rig_sql(r.db, "INSERT INTO t VALUES(31, 1)");
    rig_check("and no more", rc == SQLITE_OK, "%d %s", rc, sqlite3_errmsg(r.db));
    rig_check_captured(&r, "all of it captured");
    int before = rig_outbox(&r);
    mm_head_set_capturing(db, MM_CAPTURING_NOT, &err);
    rig_sql(r.db, "INSERT INTO t VALUES(40, 1)");
    rig_check("capture stopped by another one", rig_outbox(&r) == before, "%d rows", rig_outbox(&r) - before);
    sqlite3_close(db);
    sound("no error");
    rig_close(&r);
}

/* What a trigger noted goes first, also when nothing else was read back. */
static void noted(void)
{
    struct rig r;
    rig_open(&r, one_table);
    rig_guards(&r);
    rig_begin_judging(&r);
    sqlite3 *db = rig_connect(&r);
    warm(&r, 1);
    rig_sql(db, "UPDATE t SET b = 'foreign' WHERE a = 1");
    rig_sql(r.db, "UPDATE t SET b = 'ours' WHERE a = 1");
    rig_check("the log is taken", !mm_log_any(r.db, &err), "it is not empty");
    rig_check_captured(&r, "a connection without hook between");
    warm(&r, 10);
    rig_sql(r.db, "BEGIN; ALTER TABLE t ADD COLUMN c; INSERT INTO t VALUES(12, 1, 2); COMMIT");
    rig_sql(r.before, "ALTER TABLE t ADD COLUMN c");
    rig_sql(r.db, "INSERT INTO t VALUES(13, 1, 2); INSERT INTO t VALUES(14, 1, 2)");
    rig_check_captured(&r, "a schema change before the first row");
    rig_sql(r.db, "BEGIN; INSERT INTO t VALUES(15, 1, 2);"
                  "ALTER TABLE t RENAME COLUMN c TO d; INSERT INTO t VALUES(16, 1, 2); COMMIT");
    rig_sql(r.before, "ALTER TABLE t RENAME COLUMN c TO d");
    rig_check_captured(&r, "and after it");
    sqlite3_close(db);
    sound("no error");
    rig_close(&r);
}

/* Each commit is stamped, whoever wrote before. */
static void stamps(void)
{
    struct rig r;
    rig_open(&r, one_table);
    rig_begin_judging(&r);
    rig_sql(r.db, "BEGIN IMMEDIATE");
    mm_head_set_capturing(r.db, MM_CAPTURING_ALL, &err);
    mm_stray_begin(r.db, true, false, &err);
    mm_stray_commit(r.db, &err);
    sqlite3 *db = rig_connect(&r);
    struct rig second = { 0 };
    (void)mm_hook_attach(db, true, rig_listen, &second, &err);
    for (int k = 0; k < 300; k++) {
        rig_sql(k % 5 < 3 ? r.db : db, "INSERT INTO t VALUES(%d, hex(zeroblob(20)))", k);
        rig_sql(r.db, k % 9 == 0 ? "BEGIN; INSERT INTO t VALUES(-1, 1); DELETE FROM t WHERE a = -1; COMMIT" : "");
    }
    struct mm_inbox_end end = { 0 };
    rig_check("no commit without a stamp", !mm_stray_due(r.db, &end, &err), "there is one");
    rig_sql(r.db, "PRAGMA user_version = 1");
    rig_check("and one is found", mm_stray_due(r.db, &end, &err), "it is not");
    rig_check_captured(&r, "stamped and captured");
    sqlite3_close(db);
    sound("no error");
    rig_close(&r);
}

/* --- What it costs --- */

static int count(unsigned what, void *arg, void *p, void *x)
{
    (void)what;
    (void)p;
    (void)x;
    ++*(int *)arg;
    return 0;
}

enum { COMMITS = 1000 };

/* Frames in the write-ahead log for COMMITS rows, each committed alone. */
static double frames(sqlite3 *db, const char *path)
{
    char log[300];
    struct stat before;
    struct stat after;
    snprintf(log, sizeof log, "%s-wal", path);
    rig_sql(db, "PRAGMA wal_autocheckpoint = 0");
    int bad = stat(log, &before);
    for (int k = 0; k < COMMITS; k++) {
        bad |= rig_sql(db,
                       "INSERT INTO b(title, author, year) VALUES('The Hitchhiker''s Guide to the Galaxy',"
                       " 'Douglas Adams', %d)",
                       k);
    }
    bad |= stat(log, &after);
    rig_check("rows to count by", bad == 0, "%d %s", bad, sqlite3_errmsg(db));
    long page = atol(rig_query(db, "PRAGMA page_size"));
    return (double)(after.st_size - before.st_size) / (double)(page + 24) / COMMITS;
}

static void cost(bool guards)
{
    static const char books[] = "CREATE TABLE b(id INTEGER PRIMARY KEY, title TEXT, author TEXT, year INTEGER)";
    const char *mode = guards ? "auto" : "hook";
    char name[128];
    struct rig r;
    rig_open(&r, books);
    if (guards) {
        rig_guards(&r);
    }
    rig_begin_judging(&r);
    char path[300];
    snprintf(path, sizeof path, "%s-plain", r.path);
    sqlite3 *plain = NULL;
    sqlite3_open(path, &plain);
    rig_sql(plain, "PRAGMA journal_mode = wal; PRAGMA synchronous = 0; %s", books);
    double own = frames(plain, path);
    sqlite3_close(plain);
    double all = frames(r.db, r.path);
    snprintf(name, sizeof name, "%s: one more frame a commit, and little beside", mode);
    rig_check(name, all - own > 0.99 && all - own < 1.13, "%.3f a commit where plain SQLite writes %.3f", all, own);

    int n = 0;
    rig_sql(r.db, "INSERT INTO b VALUES(-2, 1, 1, 1); INSERT INTO b VALUES(-1, 1, 1, 1)");
    sqlite3_stmt *st = NULL;
    sqlite3_prepare_v2(r.db, "INSERT INTO b VALUES(?1, 1, 1, 1)", -1, &st, NULL);
    sqlite3_trace_v2(r.db, SQLITE_TRACE_STMT, count, &n);
    for (int k = 0; k < 10; k++) {
        sqlite3_bind_int(st, 1, -10 - k);
        sqlite3_step(st);
        sqlite3_reset(st);
    }
    sqlite3_trace_v2(r.db, 0, NULL, NULL);
    sqlite3_finalize(st);
    /* Its own, the join, a look at the schema; and two triggers that ask. */
    snprintf(name, sizeof name, "%s: a commit reads nothing back", mode);
    rig_check(name, n == (guards ? 50 : 30), "%d statements in ten commits", n);
    snprintf(name, sizeof name, "%s: what was counted is captured", mode);
    rig_check_captured(&r, name);
    rig_close(&r);
}

int main(void)
{
    test_sqlite_start();
    mm_err_init(&err);
    other_connections();
    own_writes();
    head_row();
    noted();
    stamps();
    cost(false);
    cost(true);
    return rig_done();
}
