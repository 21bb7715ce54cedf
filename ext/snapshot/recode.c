#include "snapshot/recode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/db.h"
#include "base/gate.h"
#include "repl/open.h"

static char *encoding_of(const char *path, const char *vfs, struct mm_err *err)
{
    sqlite3 *db = err->rc == SQLITE_OK ? mm_repl_connect(path, vfs, 0, err) : NULL;
    char *name = db != NULL ? mm_db_text(db, err, "PRAGMA encoding") : NULL;
    sqlite3_close(db);
    return name;
}

/* The columns that are written, as "a", "b"; and as many marks. */
static int columns(sqlite3 *db, const char *table, struct mm_buf *names, struct mm_buf *marks, struct mm_err *err)
{
    int n = 0;
    sqlite3_stmt *st = mm_db_prepare(
        db, err, 0, "SELECT name FROM pragma_table_xinfo(%Q, 'main') WHERE hidden = 0 ORDER BY cid", table);
    while (mm_db_step(st, err)) {
        char *name = sqlite3_mprintf("%s\"%w\"", n > 0 ? ", " : "", sqlite3_column_text(st, 0));
        mm_buf_str(names, name != NULL ? name : "");
        names->rc = name == NULL ? SQLITE_NOMEM : names->rc;
        sqlite3_free(name);
        mm_buf_str(marks, n > 0 ? ", ?" : "?");
        n++;
    }
    mm_db_finalize(st);
    mm_buf_byte(names, 0);
    mm_buf_byte(marks, 0);
    mm_buf_check(names, err, "column names");
    mm_buf_check(marks, err, "a statement");
    return n;
}

static void copy_rows(sqlite3 *from, sqlite3 *to, const char *table, struct mm_work *work, struct mm_err *err)
{
    struct mm_buf names;
    struct mm_buf marks;
    mm_buf_init(&names, 1 << 20);
    mm_buf_init(&marks, 1 << 20);
    int n = columns(from, table, &names, &marks, err);
    if (err->rc == SQLITE_OK && n > 0) {
        sqlite3_stmt *get = mm_db_prepare(from, err, 0, "SELECT %s FROM main.\"%w\"", (const char *)names.data, table);
        sqlite3_stmt *put = mm_db_prepare(to, err, 0, "INSERT INTO main.\"%w\"(%s) VALUES (%s)", table,
                                          (const char *)names.data, (const char *)marks.data);
        while (mm_work_go_on(work, err) && mm_db_step(get, err)) {
            for (int k = 0; k < n; k++) {
                if (sqlite3_bind_value(put, k + 1, sqlite3_column_value(get, k)) != SQLITE_OK) {
                    mm_db_fail(to, err, "binding a value");
                }
            }
            mm_db_run(put, err);
            work->done++;
        }
        mm_db_finalize(get);
        mm_db_finalize(put);
    }
    mm_buf_free(&names);
    mm_buf_free(&marks);
}

/* Tables with their rows first, then what belongs to them. */
static void copy_all(sqlite3 *from, sqlite3 *to, struct mm_work *work, struct mm_err *err)
{
    for (int tables = 1; tables >= 0; tables--) {
        sqlite3_stmt *st = mm_db_prepare(from, err, 0,
                                         "SELECT name, sql FROM main.sqlite_schema WHERE (type = 'table') = %d AND sql"
                                         " IS NOT NULL AND name NOT LIKE 'sqlite\\_%%' ESCAPE '\\' ORDER BY rowid",
                                         tables);
        while (mm_db_step(st, err)) {
            mm_db_exec(to, err, "%s", (const char *)sqlite3_column_text(st, 1));
            if (tables) {
                copy_rows(from, to, (const char *)sqlite3_column_text(st, 0), work, err);
            }
        }
        mm_db_finalize(st);
    }
}

static void rewrite(const char *copy, const char *fresh, const char *encoding, const char *vfs, struct mm_work *work,
                    struct mm_err *err)
{
    mm_work_step(work, "writing the snapshot in the text encoding of this database", 0);
    (void)unlink(fresh);
    sqlite3 *from = mm_repl_connect(copy, vfs, 0, err);
    sqlite3 *to = from != NULL ? mm_repl_connect(fresh, vfs, SQLITE_OPEN_CREATE, err) : NULL;
    if (to != NULL) {
        mm_work_watch(work, from);
        mm_work_watch(work, to);
        mm_db_exec(to, err, "PRAGMA encoding = %Q; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN",
                   encoding);
        copy_all(from, to, work, err);
        mm_db_exec(to, err, "COMMIT");
    }
    sqlite3_close(from);
    sqlite3_close(to);
    if (err->rc == SQLITE_OK && rename(fresh, copy) != 0) {
        mm_err_set(err, SQLITE_IOERR, "the file %s cannot be renamed: %s", fresh, strerror(errno));
    }
    (void)unlink(fresh);
}

int mm_recode(const char *copy, const char *like, const char *vfs, struct mm_work *work, struct mm_err *err)
{
    mm_gate_enter();
    char *here = encoding_of(like, vfs, err);
    char *there = encoding_of(copy, vfs, err);
    char *fresh = sqlite3_mprintf("%s-recoded", copy);
    if (fresh == NULL) {
        mm_err_nomem(err);
    }
    if (err->rc == SQLITE_OK && here != NULL && there != NULL && strcmp(here, there) != 0) {
        rewrite(copy, fresh, here, vfs, work, err);
    }
    sqlite3_free(here);
    sqlite3_free(there);
    sqlite3_free(fresh);
    mm_gate_leave();
    return err->rc;
}
