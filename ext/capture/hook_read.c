#include "base/db.h"
#include "capture/hook_int.h"

static bool has_column(const struct mm_table *t, const char *name)
{
    for (int k = 0; k < t->ncol; k++) {
        if (sqlite3_stricmp(t->col[k].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The rarest name of a column first: one that is added later hides none of ours. */
const char *mm_rowid_name(const struct mm_table *t)
{
    static const char *const names[] = { "_rowid_", "rowid", "oid" };
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        if (!has_column(t, names[k])) {
            return names[k];
        }
    }
    return NULL;
}

char *mm_row_select(const struct mm_table *t, const char *rowid)
{
    sqlite3_str *s = sqlite3_str_new(NULL);
    for (int k = 0; k < t->ncol; k++) {
        sqlite3_str_appendf(s, "%s\"%w\"", k == 0 ? "SELECT " : ", ", t->col[k].name);
    }
    sqlite3_str_appendf(s, " FROM main.\"%w\"", t->name);
    if (rowid != NULL) {
        sqlite3_str_appendf(s, " WHERE %s = ?1", rowid);
    }
    const char *join = " WHERE";
    for (int k = 0; rowid == NULL && k < t->ncol; k++) {
        if (t->col[k].pk != 0) {
            sqlite3_str_appendf(s, "%s \"%w\" = ?%d%s", join, t->col[k].name, (int)t->col[k].pk,
                                mm_column_collate(&t->col[k], t->col[k].coll));
            join = " AND";
        }
    }
    return sqlite3_str_finish(s);
}

static void bind_key(sqlite3_stmt *st, const struct mm_table *t, const struct mm_value *key, struct mm_err *err)
{
    for (int k = 0; k < t->ncol; k++) {
        if (t->col[k].pk != 0 && mm_value_bind(st, t->col[k].pk, &key[k]) != SQLITE_OK) {
            mm_err_nomem(err);
        }
    }
}

bool mm_row_identity(const struct mm_table *t, const struct mm_value *row)
{
    bool any = false;
    for (int k = 0; k < t->ncol; k++) {
        if (t->col[k].pk != 0) {
            if (row[k].type == SQLITE_NULL || row[k].type == MM_UNDEF) {
                return false;
            }
            any = true;
        }
    }
    return any;
}

int mm_row_read(sqlite3 *db, const struct mm_table *t, const struct mm_value *key, const sqlite3_int64 *rowid,
                struct mm_value *out, struct mm_arena *a, struct mm_err *err)
{
    const char *name = rowid != NULL && !t->without_rowid ? mm_rowid_name(t) : NULL;
    if (name == NULL && !mm_row_identity(t, key)) {
        return 0; /* rows without identity cannot be asked for */
    }
    char *sql = mm_row_select(t, name);
    if (sql == NULL) {
        mm_err_nomem(err);
        return 0;
    }
    sqlite3_stmt *st = mm_db_prepare(db, err, 0, "%s", sql);
    sqlite3_free(sql);
    if (st != NULL && name != NULL) {
        if (sqlite3_bind_int64(st, 1, *rowid) != SQLITE_OK) {
            mm_err_nomem(err);
        }
    } else if (st != NULL) {
        bind_key(st, t, key, err);
    }
    int found = mm_db_step(st, err);
    for (int k = 0; found && k < t->ncol; k++) {
        struct mm_value v;
        if (!mm_value_column(&v, st, k) || !mm_value_copy(a, &out[k], &v)) {
            mm_err_nomem(err);
            found = 0;
        }
    }
    mm_db_finalize(st);
    return found;
}
