/* Finding rows otherwise than by their key. */
#include <stdlib.h>

#include "base/db.h"
#include "repl/target.h"

enum { SQL_MAX = 8 << 20 };

static const char *const coll_names[] = { "BINARY", "NOCASE", "RTRIM" };

/* Appends what sqlite3_mprintf makes of one name. */
static void add(struct mm_buf *b, const char *fmt, const char *name)
{
    char *s = sqlite3_mprintf(fmt, name);
    if (s == NULL) {
        b->rc = SQLITE_NOMEM;
        return;
    }
    mm_buf_str(b, s);
    sqlite3_free(s);
}

static sqlite3_stmt *prepare(sqlite3 *db, struct mm_buf *b, struct mm_err *err)
{
    sqlite3_stmt *st = NULL;
    mm_buf_byte(b, 0);
    if (mm_buf_check(b, err, "a statement") == SQLITE_OK) {
        st = mm_db_prepare(db, err, SQLITE_PREPARE_PERSISTENT, "%s", (const char *)b->data);
    }
    mm_buf_free(b);
    return st;
}

static void bind(sqlite3 *db, sqlite3_stmt *st, int param, const struct mm_value *v, struct mm_err *err)
{
    if (st != NULL && err->rc == SQLITE_OK && mm_value_bind(st, param, v) != SQLITE_OK) {
        mm_db_fail(db, err, "binding a value");
    }
}

static sqlite3_stmt *make_holder(const struct mm_table *def, int unique, sqlite3 *db, struct mm_err *err)
{
    const struct mm_unique *u = &def->unique[unique];
    struct mm_buf b;
    mm_buf_init(&b, SQL_MAX);
    for (int k = 0; k < def->ncol; k++) {
        add(&b, k == 0 ? "SELECT \"%w\"" : ", \"%w\"", def->col[k].name);
    }
    add(&b, " FROM main.\"%w\" WHERE ", def->name);
    for (int k = 0; k < u->ncol; k++) {
        add(&b, k == 0 ? "\"%w\"" : " AND \"%w\"", def->col[u->col[k]].name);
        mm_buf_printf(&b, " = ?%d COLLATE %s", k + 1, coll_names[u->coll[k]]);
    }
    return prepare(db, &b, err);
}

int mm_target_holder(struct mm_target *t, sqlite3 *db, int unique, const struct mm_value *image, struct mm_value *out,
                     struct mm_err *err)
{
    const struct mm_unique *u = &t->def->unique[unique];
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    for (int k = 0; k < u->ncol; k++) {
        uint8_t type = image[u->col[k]].type;
        if (type == SQLITE_NULL || type == MM_UNDEF) {
            return 0;
        }
    }
    if (t->holder == NULL) {
        t->holder = calloc((size_t)t->def->nunique, sizeof *t->holder);
        if (t->holder == NULL) {
            mm_err_nomem(err);
            return 0;
        }
    }
    if (t->holder[unique] == NULL) {
        t->holder[unique] = make_holder(t->def, unique, db, err);
    }
    sqlite3_stmt *st = t->holder[unique];
    for (int k = 0; k < u->ncol; k++) {
        bind(db, st, k + 1, &image[u->col[k]], err);
    }
    if (!mm_db_step(st, err)) {
        mm_target_holder_done(t, unique);
        return 0;
    }
    for (int k = 0; k < t->def->ncol; k++) {
        if (!mm_value_column(&out[k], st, k)) {
            mm_err_nomem(err);
        }
    }
    return err->rc == SQLITE_OK;
}

void mm_target_holder_done(struct mm_target *t, int unique)
{
    if (t->holder != NULL && t->holder[unique] != NULL) {
        sqlite3_reset(t->holder[unique]);
        sqlite3_clear_bindings(t->holder[unique]);
    }
}

/* A name of the rowid that no column of the table takes. */
static const char *rowid_name(const struct mm_target *t)
{
    static const char *const names[] = { "rowid", "_rowid_", "oid" };
    for (int k = 0; k < 3; k++) {
        if (mm_target_column(t, names[k]) < 0) {
            return names[k];
        }
    }
    return NULL;
}

bool mm_target_take_one(struct mm_target *t, sqlite3 *db, const struct mm_value *row, bool last, struct mm_err *err)
{
    const char *rowid = rowid_name(t);
    if (rowid == NULL) {
        mm_err_set(err, SQLITE_MISMATCH, "table %s has columns named rowid, _rowid_ and oid: rename one", t->name);
    }
    if (t->take[last] == NULL && err->rc == SQLITE_OK) {
        struct mm_buf b;
        mm_buf_init(&b, SQL_MAX);
        add(&b, "DELETE FROM main.\"%w\"", t->def->name);
        mm_buf_printf(&b, " WHERE %s = (SELECT %s", rowid, rowid);
        add(&b, " FROM main.\"%w\" WHERE ", t->def->name);
        for (int k = 0; k < t->def->ncol; k++) {
            /* IS compares 1 and 1.0 as equal, and by the column's collation:
            ** here only the same type and the same bytes are the same row. */
            add(&b, k == 0 ? "\"%w\"" : " AND \"%w\"", t->def->col[k].name);
            mm_buf_printf(&b, " IS ?%d COLLATE BINARY", k + 1);
            add(&b, " AND typeof(\"%w\")", t->def->col[k].name);
            mm_buf_printf(&b, " = typeof(?%d)", k + 1);
        }
        if (last) {
            mm_buf_printf(&b, " ORDER BY %s DESC", rowid);
        }
        mm_buf_str(&b, " LIMIT 1)");
        t->take[last] = prepare(db, &b, err);
    }
    for (int k = 0; k < t->def->ncol; k++) {
        bind(db, t->take[last], k + 1, &row[k], err);
    }
    if (mm_db_run(t->take[last], err) != SQLITE_OK) {
        return false;
    }
    sqlite3_clear_bindings(t->take[last]);
    return sqlite3_changes(db) > 0;
}
