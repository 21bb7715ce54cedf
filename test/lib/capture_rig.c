#include "test/lib/capture_rig.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/db.h"
#include "capture/tables.h"
#include "capture/trigger.h"
#include "store/change.h"
#include "store/log.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "store/watch.h"

static int failures;
static char folder[64];

void rig_need(bool good, const char *what, const char *why)
{
    if (!good) {
        fprintf(stderr, "capture_rig: %s: %s\n", what, why);
        exit(2);
    }
}

static void remove_folder(void)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        unlink(path);
    }
    if (d != NULL) {
        closedir(d);
    }
    rmdir(folder);
}

static void new_path(struct rig *r)
{
    static int number;
    if (folder[0] == '\0') {
        const char *top = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%.40s/mm-rig-XXXXXX", top != NULL ? top : "/tmp");
        rig_need(mkdtemp(folder) != NULL, "mkdtemp", folder);
        atexit(remove_folder);
    }
    snprintf(r->path, sizeof r->path, "%s/%d.db", folder, number++);
}

int rig_sql(sqlite3 *db, const char *fmt, ...)
{
    char sql[8192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sql, sizeof sql, fmt, ap);
    va_end(ap);
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? rc : sqlite3_extended_errcode(db);
}

const char *rig_query(sqlite3 *db, const char *fmt, ...)
{
    static char answer[8][65536];
    static unsigned turn;
    char sql[8192];
    char *out = answer[turn++ % 8];
    size_t n = 0;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sql, sizeof sql, fmt, ap);
    va_end(ap);
    sqlite3_stmt *st = NULL;
    out[0] = '\0';
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        for (int k = 0; k < sqlite3_column_count(st) && n < 65000; k++) {
            const char *v = (const char *)sqlite3_column_text(st, k);
            n += (size_t)snprintf(out + n, 65536 - n, "%s%.2000s",
                                  k > 0   ? ","
                                  : n > 0 ? "|"
                                          : "",
                                  v != NULL ? v : "NULL");
            n = n < 65535 ? n : 65535;
        }
        rc = SQLITE_OK;
    }
    if (rc != SQLITE_OK && rc != SQLITE_DONE) {
        snprintf(out, 65536, "error %d %s", rc, sqlite3_errmsg(db));
    }
    sqlite3_finalize(st);
    return out;
}

void rig_listen(void *arg, enum mm_hook_note note, const char *why)
{
    struct rig *r = arg;
    r->commits += note == MM_NOTE_COMMIT;
    r->closed += note == MM_NOTE_CLOSED;
    if (note == MM_NOTE_UNCAPTURED) {
        r->uncaptured++;
        snprintf(r->why, sizeof r->why, "%s", why);
    }
}

void rig_watch(struct rig *r, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_watch_set(r->db, table, MM_WATCHED, NULL, &err);
    rig_need(err.rc == SQLITE_OK, "mm_watch_set", err.msg);
    if (r->hook != NULL) {
        mm_hook_forget_tables(r->hook);
    }
}

void rig_guards(struct rig *r)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_db_exec(r->db, &err, "BEGIN IMMEDIATE");
    mm_meta_set_text(r->db, MM_META_CAPTURE, "auto", &err);
    mm_trigger_settle(r->db, &err);
    mm_db_exec(r->db, &err, "COMMIT");
    rig_need(err.rc == SQLITE_OK, "mm_trigger_settle", err.msg);
    mm_hook_forget_tables(r->hook);
}

sqlite3 *rig_connect(const struct rig *r)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(r->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    rig_need(rc == SQLITE_OK, "sqlite3_open", sqlite3_errmsg(db));
    rig_need(rig_sql(db, "PRAGMA journal_mode = wal; PRAGMA synchronous = 0") == SQLITE_OK, "WAL", sqlite3_errmsg(db));
    return db;
}

void rig_open(struct rig *r, const char *schema)
{
    struct mm_err err;
    mm_err_init(&err);
    memset(r, 0, sizeof *r);
    new_path(r);
    r->db = rig_connect(r);
    rig_need(rig_sql(r->db, "%s", schema) == SQLITE_OK, schema, sqlite3_errmsg(r->db));
    mm_db_exec(r->db, &err, "BEGIN");
    mm_meta_migrate(r->db, &err);
    mm_head_set_incarnation(r->db, 77, &err);
    mm_db_exec(r->db, &err, "COMMIT");
    rig_need(err.rc == SQLITE_OK, "bookkeeping", err.msg);
    int n = 0;
    char **names = mm_table_list(r->db, &n, &err);
    for (int k = 0; k < n; k++) {
        rig_watch(r, names[k]);
        free(names[k]);
    }
    free(names);
    r->hook = mm_hook_attach(r->db, true, rig_listen, r, &err);
    rig_need(r->hook != NULL, "mm_hook_attach", err.msg);
}

void rig_close(struct rig *r)
{
    if (r->before != NULL) {
        sqlite3_close(r->before);
        r->before = NULL;
    }
    int rc = sqlite3_close(r->db);
    if (rc != SQLITE_OK || r->closed != 1) {
        rig_check("close", false, "sqlite3_close gives %d, closed notes %d (%s)", rc, r->closed, r->path);
    }
    for (const char *const *end = (const char *const[]){ "", "-wal", "-shm", "-journal", NULL }; *end != NULL; end++) {
        char path[300];
        snprintf(path, sizeof path, "%s%s", r->path, *end);
        unlink(path);
    }
}

int rig_outbox(const struct rig *r)
{
    sqlite3 *db = rig_connect(r);
    struct mm_err err;
    mm_err_init(&err);
    struct mm_outbox *o = mm_outbox_open(db, &err);
    struct mm_outbox_row row = { .id = 0 };
    int n = 0;
    while (o != NULL && mm_outbox_next(o, row.id, &row, NULL, NULL, &err)) {
        n += row.kind == MM_OUTBOX_TXN;
    }
    rig_need(err.rc == SQLITE_OK, "mm_outbox_next", err.msg);
    mm_outbox_close(o);
    sqlite3_close(db);
    return n;
}

int64_t rig_outbox_last(sqlite3 *db)
{
    struct mm_err err;
    struct mm_inbox_end end = { 0 };
    mm_err_init(&err);
    rig_need(mm_inbox_find_end(db, &end, &err) == SQLITE_OK, "mm_inbox_find_end", err.msg);
    return end.next - 1;
}

void rig_check(const char *name, bool good, const char *why, ...)
{
    va_list ap;
    if (good) {
        printf("ok %s\n", name);
        fflush(stdout);
        return;
    }
    printf("not ok %s: ", name);
    va_start(ap, why);
    vprintf(why, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    failures++;
}

void rig_check_captured(struct rig *r, const char *name)
{
    char why[600];
    bool good = rig_judge(r, why, sizeof why);
    rig_check(name, good, "%s", why);
}

int rig_done(void)
{
    return failures > 0;
}

bool rig_has(const char *compile_option)
{
    return sqlite3_compileoption_used(compile_option) != 0;
}

bool rig_asserts(void)
{
    return rig_has("DEBUG");
}
