#include "base/db.h"

#include <stdarg.h>
#include <stddef.h>

int mm_db_fail(sqlite3 *db, struct mm_err *err, const char *doing)
{
    int rc = sqlite3_extended_errcode(db);
    const char *why = sqlite3_errmsg(db);
    if (rc == SQLITE_BUSY_SNAPSHOT) { /* no wait helps, and "database is locked" says nothing of it */
        why = "the database has changed since a statement of this connection began to read it: finish that, or BEGIN "
              "IMMEDIATE before it";
    }
    return mm_err_set(err, rc, "%s (while: %.200s)", why, doing);
}

static int exec_text(sqlite3 *db, struct mm_err *err, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        mm_db_fail(db, err, sql);
    }
    return err->rc;
}

int mm_db_exec(sqlite3 *db, struct mm_err *err, const char *fmt, ...)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    va_list ap;
    va_start(ap, fmt);
    char *sql = sqlite3_vmprintf(fmt, ap);
    va_end(ap);
    if (sql == NULL) {
        return mm_err_nomem(err);
    }
    exec_text(db, err, sql);
    sqlite3_free(sql);
    return err->rc;
}

static sqlite3_stmt *prepare_v(sqlite3 *db, struct mm_err *err, unsigned flags, const char *fmt, va_list ap)
{
    char *sql = sqlite3_vmprintf(fmt, ap);
    sqlite3_stmt *st = NULL;
    if (sql == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    if (sqlite3_prepare_v3(db, sql, -1, flags, &st, NULL) != SQLITE_OK) {
        mm_db_fail(db, err, sql);
    }
    sqlite3_free(sql);
    return st;
}

sqlite3_stmt *mm_db_prepare(sqlite3 *db, struct mm_err *err, unsigned flags, const char *fmt, ...)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    va_list ap;
    va_start(ap, fmt);
    sqlite3_stmt *st = prepare_v(db, err, flags, fmt, ap);
    va_end(ap);
    return st;
}

int mm_db_step(sqlite3_stmt *st, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        return 1;
    }
    if (rc != SQLITE_DONE) {
        mm_db_fail(sqlite3_db_handle(st), err, sqlite3_sql(st));
        sqlite3_reset(st);
    }
    return 0;
}

int mm_db_run(sqlite3_stmt *st, struct mm_err *err)
{
    while (mm_db_step(st, err)) {
    }
    if (st != NULL) {
        sqlite3_reset(st);
    }
    return err->rc;
}

void mm_db_finalize(sqlite3_stmt *st)
{
    sqlite3_finalize(st);
}

int64_t mm_db_int(sqlite3 *db, struct mm_err *err, int64_t none, const char *fmt, ...)
{
    if (err->rc != SQLITE_OK) {
        return none;
    }
    va_list ap;
    va_start(ap, fmt);
    sqlite3_stmt *st = prepare_v(db, err, 0, fmt, ap);
    va_end(ap);
    int64_t v = none;
    if (mm_db_step(st, err) && sqlite3_column_type(st, 0) != SQLITE_NULL) {
        v = sqlite3_column_int64(st, 0);
    }
    sqlite3_finalize(st);
    return v;
}

char *mm_db_text(sqlite3 *db, struct mm_err *err, const char *fmt, ...)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    va_list ap;
    va_start(ap, fmt);
    sqlite3_stmt *st = prepare_v(db, err, 0, fmt, ap);
    va_end(ap);
    char *text = NULL;
    if (mm_db_step(st, err) && sqlite3_column_type(st, 0) != SQLITE_NULL) {
        text = sqlite3_mprintf("%s", sqlite3_column_text(st, 0));
        if (text == NULL) {
            mm_err_nomem(err);
        }
    }
    sqlite3_finalize(st);
    return text;
}
