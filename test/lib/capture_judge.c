/* The judge of the capture rig: what was captured, applied to a copy, against
** what is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "capture/tables.h"
#include "capture/trigger.h"
#include "store/change.h"
#include "store/log.h"
#include "store/outbox.h"
#include "store/watch.h"
#include "test/lib/capture_rig.h"

void rig_begin_judging(struct rig *r)
{
    if (r->before != NULL) {
        sqlite3_close(r->before);
    }
    rig_need(sqlite3_open(":memory:", &r->before) == SQLITE_OK, "sqlite3_open", ":memory:");
    sqlite3 *from = rig_connect(r);
    sqlite3_backup *b = sqlite3_backup_init(r->before, "main", from, "main");
    rig_need(b != NULL && sqlite3_backup_step(b, -1) == SQLITE_DONE, "sqlite3_backup_step", sqlite3_errmsg(r->before));
    sqlite3_backup_finish(b);
    sqlite3_close(from);
    rig_sql(r->before, "PRAGMA foreign_keys = 0; PRAGMA ignore_check_constraints = 1");
    sqlite3_db_config(r->before, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    r->seen = rig_outbox_last(r->before);
}

/* A row of a multiset: without a key, or with a NULL in it. */
static bool no_identity(const struct mm_tab *t, const struct mm_row *row)
{
    const struct mm_value *v = row->before != NULL ? row->before : row->after;
    bool key = false;
    for (uint32_t k = 0; v != NULL && k < t->ncol; k++) {
        if (t->pk[k] != 0 && v[k].type == SQLITE_NULL) {
            return true;
        }
        key = key || t->pk[k] != 0;
    }
    return !key;
}

static bool same_rows(const struct mm_tab *t, const struct mm_value *a, const struct mm_value *b)
{
    bool same = a != NULL && b != NULL;
    for (uint32_t k = 0; same && k < t->ncol; k++) {
        same = mm_value_same(&a[k], &b[k]);
    }
    return same;
}

/* Rows of a multiset that come and go again in one transaction were never seen. */
static void net(struct mm_tab *t)
{
    for (size_t j = 0; j < t->nrow; j++) {
        for (size_t i = 0; i < j && no_identity(t, &t->row[j]); i++) {
            if (no_identity(t, &t->row[i]) && same_rows(t, t->row[i].after, t->row[j].before)) {
                t->row[i].after = t->row[j].after;
                t->row[j].before = t->row[j].after = NULL;
                break;
            }
        }
    }
}

/* Finds the row by its key, and only if it is, type by type, the old row that
** was captured; of a multiset one such row. */
static void where_old(sqlite3_str *s, const struct mm_tab *t, const struct mm_value *old, bool one, int *param)
{
    if (one) {
        sqlite3_str_appendf(s, " WHERE rowid = (SELECT rowid FROM \"%w\"", t->name);
    }
    const char *glue = " WHERE ";
    for (uint32_t k = 0; k < t->ncol; k++) {
        if (old[k].type != MM_UNDEF) {
            ++*param;
            sqlite3_str_appendf(s, "%s\"%w\" IS ?%d AND typeof(\"%w\") = typeof(?%d)", glue, t->col[k], *param,
                                t->col[k], *param);
            glue = " AND ";
        }
    }
    sqlite3_str_appendall(s, one ? " LIMIT 1)" : "");
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
    bool one = no_identity(t, row);
    bool whole = one || row->op != MM_OP_UPDATE;
    if (removal && whole && row->before != NULL) {
        old = row->before;
        sqlite3_str_appendf(s, "DELETE FROM \"%w\"", t->name);
        where_old(s, t, old, one, &param);
    } else if (!removal && whole && row->after != NULL) {
        set = row->after;
        sqlite3_str_appendf(s, "INSERT INTO \"%w\"(", t->name);
        for (uint32_t k = 0; k < t->ncol; k++) {
            sqlite3_str_appendf(s, "%s\"%w\"", k > 0 ? ", " : "", t->col[k]);
        }
        for (uint32_t k = 0; k < t->ncol; k++) {
            sqlite3_str_appendf(s, "%s?%d", k > 0 ? ", " : ") VALUES (", (int)k + 1);
        }
        sqlite3_str_appendall(s, ")");
    } else if (!removal && !whole) {
        set = row->after;
        old = row->before;
        sqlite3_str_appendf(s, "UPDATE \"%w\" SET ", t->name);
        for (uint32_t k = 0; k < t->ncol; k++) {
            if (set[k].type != MM_UNDEF) {
                sqlite3_str_appendf(s, "%s\"%w\" = ?%d", param > 0 ? ", " : "", t->col[k], param + 1);
                param++;
            }
        }
        where_old(s, t, old, one, &param);
    }
    char *sql = sqlite3_str_finish(s);
    if (sql != NULL) {
        run_row(db, sql, t, set, old, err);
    }
    sqlite3_free(sql);
}

static enum mm_coll coll_of(void *arg, const char *table, const char *column, struct mm_err *err)
{
    enum mm_coll coll = MM_COLL_BINARY;
    struct mm_table *t = mm_table_load(arg, table, err);
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
                net(&txn.tab[k]);
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
