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

static void need(bool good, const char *what, const char *why)
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
        need(mkdtemp(folder) != NULL, "mkdtemp", folder);
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
    need(err.rc == SQLITE_OK, "mm_watch_set", err.msg);
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
    need(err.rc == SQLITE_OK, "mm_trigger_settle", err.msg);
    mm_hook_forget_tables(r->hook);
}

sqlite3 *rig_connect(const struct rig *r)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(r->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    need(rc == SQLITE_OK, "sqlite3_open", sqlite3_errmsg(db));
    need(rig_sql(db, "PRAGMA journal_mode = wal; PRAGMA synchronous = 0") == SQLITE_OK, "WAL", sqlite3_errmsg(db));
    return db;
}

void rig_open(struct rig *r, const char *schema)
{
    struct mm_err err;
    mm_err_init(&err);
    memset(r, 0, sizeof *r);
    new_path(r);
    r->db = rig_connect(r);
    need(rig_sql(r->db, "%s", schema) == SQLITE_OK, schema, sqlite3_errmsg(r->db));
    mm_db_exec(r->db, &err, "BEGIN");
    mm_meta_migrate(r->db, &err);
    mm_head_set_incarnation(r->db, 77, &err);
    mm_db_exec(r->db, &err, "COMMIT");
    need(err.rc == SQLITE_OK, "bookkeeping", err.msg);
    int n = 0;
    char **names = mm_table_list(r->db, &n, &err);
    for (int k = 0; k < n; k++) {
        rig_watch(r, names[k]);
        free(names[k]);
    }
    free(names);
    r->hook = mm_hook_attach(r->db, true, rig_listen, r, &err);
    need(r->hook != NULL, "mm_hook_attach", err.msg);
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
    need(err.rc == SQLITE_OK, "mm_outbox_next", err.msg);
    mm_outbox_close(o);
    sqlite3_close(db);
    return n;
}

int64_t rig_outbox_last(sqlite3 *db)
{
    struct mm_err err;
    struct mm_inbox_end end = { 0 };
    mm_err_init(&err);
    need(mm_inbox_find_end(db, &end, &err) == SQLITE_OK, "mm_inbox_find_end", err.msg);
    return end.next - 1;
}

void rig_begin_judging(struct rig *r)
{
    if (r->before != NULL) {
        sqlite3_close(r->before);
    }
    need(sqlite3_open(":memory:", &r->before) == SQLITE_OK, "sqlite3_open", ":memory:");
    sqlite3 *from = rig_connect(r);
    sqlite3_backup *b = sqlite3_backup_init(r->before, "main", from, "main");
    need(b != NULL && sqlite3_backup_step(b, -1) == SQLITE_DONE, "sqlite3_backup_step", sqlite3_errmsg(r->before));
    sqlite3_backup_finish(b);
    sqlite3_close(from);
    rig_sql(r->before, "PRAGMA foreign_keys = 0; PRAGMA ignore_check_constraints = 1");
    sqlite3_db_config(r->before, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    r->seen = rig_outbox_last(r->before);
}

/* Finds the row by its key, and only if it is, type by type, the old row that
** was captured. */
static void where_old(sqlite3_str *s, const struct mm_tab *t, const struct mm_value *old, int *param)
{
    const char *glue = " WHERE ";
    for (uint32_t k = 0; k < t->ncol; k++) {
        if (old[k].type != MM_UNDEF) {
            ++*param;
            sqlite3_str_appendf(s, "%s\"%w\" IS ?%d AND typeof(\"%w\") = typeof(?%d)", glue, t->col[k], *param,
                                t->col[k], *param);
            glue = " AND ";
        }
    }
}

static void run_row(sqlite3 *db, const char *sql, const struct mm_tab *t, const struct mm_value *set,
                    const struct mm_value *old, struct mm_err *err)
{
    int param = 0;
    sqlite3_stmt *st = mm_db_prepare(db, err, 0, "%s", sql);
    for (uint32_t k = 0; st != NULL && set != NULL && k < t->ncol; k++) {
        if (set[k].type != MM_UNDEF) {
            mm_value_bind(st, ++param, &set[k]);
        }
    }
    for (uint32_t k = 0; st != NULL && old != NULL && k < t->ncol; k++) {
        if (old[k].type != MM_UNDEF) {
            mm_value_bind(st, ++param, &old[k]);
        }
    }
    mm_db_run(st, err);
    if (st != NULL && err->rc == SQLITE_OK && sqlite3_changes(db) != 1) {
        mm_err_set(err, SQLITE_ERROR, "a captured change finds %d rows as it says they were: %.200s",
                   sqlite3_changes(db), sql);
    }
    mm_db_finalize(st);
}

static void apply(sqlite3 *db, const struct mm_tab *t, const struct mm_row *row, bool removal, struct mm_err *err)
{
    int param = 0;
    sqlite3_str *s = sqlite3_str_new(NULL);
    const struct mm_value *set = NULL;
    const struct mm_value *old = NULL;
    if (removal && (row->op == MM_OP_DELETE || row->op == MM_OP_REPLACE)) {
        old = row->before;
        sqlite3_str_appendf(s, "DELETE FROM \"%w\"", t->name);
        where_old(s, t, old, &param);
    } else if (!removal && (row->op == MM_OP_INSERT || row->op == MM_OP_REPLACE)) {
        set = row->after;
        sqlite3_str_appendf(s, "INSERT INTO \"%w\"(", t->name);
        for (uint32_t k = 0; k < t->ncol; k++) {
            sqlite3_str_appendf(s, "%s\"%w\"", k > 0 ? ", " : "", t->col[k]);
        }
        for (uint32_t k = 0; k < t->ncol; k++) {
            sqlite3_str_appendf(s, "%s?%d", k > 0 ? ", " : ") VALUES (", (int)k + 1);
        }
        sqlite3_str_appendall(s, ")");
    } else if (!removal && row->op == MM_OP_UPDATE) {
        set = row->after;
        old = row->before;
        sqlite3_str_appendf(s, "UPDATE \"%w\" SET ", t->name);
        for (uint32_t k = 0; k < t->ncol; k++) {
            if (set[k].type != MM_UNDEF) {
                sqlite3_str_appendf(s, "%s\"%w\" = ?%d", param > 0 ? ", " : "", t->col[k], param + 1);
                param++;
            }
        }
        where_old(s, t, old, &param);
    }
    char *sql = sqlite3_str_finish(s);
    if (sql != NULL) {
        run_row(db, sql, t, set, old, err);
    }
    sqlite3_free(sql);
}

static enum mm_coll coll_of(void *arg, const char *table, const char *column)
{
    struct mm_err err;
    mm_err_init(&err);
    enum mm_coll coll = MM_COLL_BINARY;
    struct mm_table *t = mm_table_load(arg, table, &err);
    for (int k = 0; t != NULL && k < t->ncol; k++) {
        if (strcmp(t->col[k].name, column) == 0) {
            coll = (enum mm_coll)t->col[k].coll;
        }
    }
    mm_table_free(t);
    return coll;
}

/* What is there afterwards, once all that goes is gone. A row may wait for the
** UNIQUE value of one that is changed by the same transaction: their order says
** nothing, so those that meet it come after the others. */
static void apply_images(sqlite3 *db, const struct mm_txn *txn, struct mm_err *err)
{
    size_t rows = 0;
    for (size_t k = 0; k < txn->ntab; k++) {
        rows += txn->tab[k].nrow;
    }
    bool *done = calloc(rows + 1, sizeof *done);
    bool moved = true;
    struct mm_err waits;
    mm_err_init(&waits);
    for (bool open = done != NULL; open && moved && err->rc == SQLITE_OK;) {
        size_t at = 0;
        open = moved = false;
        for (size_t k = 0; k < txn->ntab; k++) {
            for (size_t j = 0; j < txn->tab[k].nrow && err->rc == SQLITE_OK; j++, at++) {
                struct mm_err one;
                mm_err_init(&one);
                if (!done[at]) {
                    apply(db, &txn->tab[k], &txn->tab[k].row[j], false, &one);
                    bool wait = (one.rc & 0xff) == SQLITE_CONSTRAINT;
                    done[at] = !wait;
                    open = open || wait;
                    moved = moved || !wait;
                    waits = wait ? one : waits;
                    *err = wait ? *err : one;
                }
            }
        }
        if (open && !moved) {
            *err = waits;
        }
    }
    if (done == NULL) {
        mm_err_nomem(err);
    }
    free(done);
}

static void apply_outbox(struct rig *r, sqlite3 *real, struct mm_err *err)
{
    struct mm_outbox *o = mm_outbox_open(real, err);
    struct mm_outbox_row row;
    struct mm_buf names;
    struct mm_buf data;
    mm_buf_init(&names, (size_t)1 << 32);
    mm_buf_init(&data, (size_t)1 << 32);
    while (o != NULL && mm_outbox_next(o, r->seen, &row, &names, &data, err)) {
        struct mm_arena a;
        struct mm_txn txn;
        mm_arena_init(&a, (size_t)1 << 33);
        memset(&txn, 0, sizeof txn);
        txn.arena = &a;
        r->seen = row.id;
        if (row.kind == MM_OUTBOX_TXN &&
            mm_change_read(&txn, data.data, data.len, names.data, names.len, coll_of, real, err) == SQLITE_OK) {
            mm_db_exec(r->before, err, "BEGIN");
            for (size_t k = 0; k < txn.ntab; k++) {
                for (size_t j = 0; j < txn.tab[k].nrow; j++) {
                    apply(r->before, &txn.tab[k], &txn.tab[k].row[j], true, err);
                }
            }
            apply_images(r->before, &txn, err);
            mm_db_exec(r->before, err, "COMMIT");
        }
        mm_arena_free(&a);
        mm_buf_clear(&names);
        mm_buf_clear(&data);
    }
    mm_buf_free(&names);
    mm_buf_free(&data);
    mm_outbox_close(o);
}

/* Every value with its type, in key order. */
static void compare(sqlite3 *real, sqlite3 *copy, const char *table, struct mm_err *err)
{
    struct mm_table *t = mm_table_load(real, table, err);
    if (t == NULL) {
        return;
    }
    sqlite3_str *s = sqlite3_str_new(NULL);
    for (int k = 0; k < t->ncol; k++) {
        sqlite3_str_appendf(s, "%s typeof(\"%w\"), quote(\"%w\")", k > 0 ? "," : "SELECT", t->col[k].name,
                            t->col[k].name);
    }
    sqlite3_str_appendf(s, " FROM \"%w\" ORDER BY", t->name);
    for (int k = 0; k < 2 * t->ncol; k++) {
        sqlite3_str_appendf(s, "%s %d", k > 0 ? "," : "", k + 1);
    }
    char *sql = sqlite3_str_finish(s);
    sqlite3_stmt *a = mm_db_prepare(real, err, 0, "%s", sql);
    sqlite3_stmt *b = mm_db_prepare(copy, err, 0, "%s", sql);
    int more = 1;
    for (int row = 0; more && err->rc == SQLITE_OK; row++) {
        more = mm_db_step(a, err);
        if (mm_db_step(b, err) != more) {
            mm_err_set(err, SQLITE_ERROR, "table %s: %s rows captured than there are (at row %d)", table,
                       more ? "fewer" : "more", row);
        }
        for (int k = 0; more && err->rc == SQLITE_OK && k < 2 * t->ncol; k++) {
            const char *x = (const char *)sqlite3_column_text(a, k);
            const char *y = (const char *)sqlite3_column_text(b, k);
            if (strcmp(x, y) != 0) {
                mm_err_set(err, SQLITE_ERROR, "table %s, row %d, column %s: is %.60s, captured %.60s", table, row,
                           t->col[k / 2].name, x, y);
            }
        }
    }
    mm_db_finalize(a);
    mm_db_finalize(b);
    sqlite3_free(sql);
    mm_table_free(t);
}

bool rig_judge(struct rig *r, char *why, size_t n)
{
    struct mm_err err;
    mm_err_init(&err);
    sqlite3 *real = rig_connect(r);
    if (mm_log_any(real, &err)) {
        mm_db_exec(real, &err, "BEGIN IMMEDIATE");
        mm_trigger_move(real, NULL, &err);
        mm_db_exec(real, &err, "COMMIT");
    }
    apply_outbox(r, real, &err);
    int ntab = 0;
    struct mm_watch_entry *list = mm_watch_list(real, &ntab, &err);
    for (int k = 0; k < ntab && err.rc == SQLITE_OK; k++) {
        if (mm_watch_captures(list[k].state)) {
            compare(real, r->before, list[k].name, &err);
        }
    }
    mm_watch_list_free(list, ntab);
    const char *ok = rig_query(real, "PRAGMA integrity_check");
    if (err.rc == SQLITE_OK && strcmp(ok, "ok") != 0) {
        mm_err_set(&err, SQLITE_CORRUPT, "integrity_check: %.200s", ok);
    }
    sqlite3_close(real);
    snprintf(why, n, "%s", err.msg);
    return err.rc == SQLITE_OK;
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
