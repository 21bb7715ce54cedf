/* Finding rows otherwise than by their key. */
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "capture/defaults.h"
#include "repl/target_int.h"

enum { FILL_MAX = 1 << 30 };

static const char HELD[] = "mm_target";

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

int mm_target_add(struct mm_target *t, sqlite3 *db, const struct mm_value *image, struct mm_err *err)
{
    /* Not OR IGNORE: that would leave out a row with a NULL in a NOT NULL column, too. */
    return mm_target_run_new(t, db, &t->add, " ON CONFLICT DO NOTHING", image, err);
}

const struct mm_value *mm_target_fill(struct mm_target *t, sqlite3 *db, struct mm_err *err)
{
    if (t->fill == NULL && err->rc == SQLITE_OK) {
        mm_arena_init(&t->room, FILL_MAX);
        struct mm_value *fill = mm_arena_array(&t->room, (size_t)t->def->ncol, sizeof *fill);
        if (fill == NULL) {
            mm_err_nomem(err);
        }
        for (int k = 0; k < t->def->ncol && err->rc == SQLITE_OK; k++) {
            mm_default_value(db, t->def, k, &t->room, &fill[k], err);
        }
        t->fill = err->rc == SQLITE_OK ? fill : NULL;
        if (t->fill == NULL) {
            mm_arena_free(&t->room);
        }
    }
    return t->fill;
}

/* --- who stands in the way: an upsert finds it, the identity alone is taken from it --- */

static void forget_key(struct mm_target *t)
{
    for (int k = 0; t->held_key != NULL && k < t->def->ncol; k++) {
        sqlite3_value_free(t->held_key[k]);
        t->held_key[k] = NULL;
    }
}

void mm_target_held_free(struct mm_target *t)
{
    if (t->held_key != NULL) {
        forget_key(t);
        free(t->held_key);
    }
}

/* __marmot__held(target, key columns): keeps the key of the row that it is asked of. */
static void hold_key(sqlite3_context *ctx, int n, sqlite3_value **arg)
{
    struct mm_target *t = sqlite3_value_pointer(arg[0], HELD);
    int at = 1;
    for (int k = 0; t != NULL && k < t->def->ncol && at < n; k++) {
        if (t->def->col[k].pk != 0) {
            t->held_key[k] = sqlite3_value_dup(arg[at++]);
            if (t->held_key[k] == NULL) {
                sqlite3_result_error_nomem(ctx);
                return;
            }
        }
    }
    sqlite3_result_int(ctx, 0);
}

int mm_target_held_function(sqlite3 *db, struct mm_err *err)
{
    int rc = sqlite3_create_function_v2(db, "__marmot__held", -1, SQLITE_UTF8 | SQLITE_DIRECTONLY, NULL, hold_key, NULL,
                                        NULL, NULL);
    return rc == SQLITE_OK ? err->rc : mm_db_fail(db, err, "making a function for replication");
}

/* SQLite itself knows whom an index holds against a row: an upsert that changes nothing
** tells. Of a row without a rowid its WHERE asks for the key: what RETURNING gives of such
** a table is rounded where a REAL column comes first (SQLite 3.40). */
static sqlite3_stmt *make_find(const struct mm_target *t, const struct mm_value *image, const char *rowid, sqlite3 *db,
                               struct mm_err *err)
{
    struct mm_buf b;
    int same = 0;
    while (same < t->def->ncol - 1 && t->def->col[same].pk != 0) {
        same++;
    }
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    mm_target_insert(&b, t->def, image);
    mm_target_name(&b, " ON CONFLICT DO UPDATE SET ", t->def->col[same].name);
    mm_target_name(&b, " = ", t->def->col[same].name);
    if (rowid != NULL) {
        mm_buf_printf(&b, " RETURNING %s", rowid);
    } else {
        mm_buf_printf(&b, " WHERE __marmot__held(?%d", t->def->ncol + 1);
        for (int k = 0; k < t->def->ncol; k++) {
            if (t->def->col[k].pk != 0) {
                mm_target_name(&b, ", ", t->def->name);
                mm_target_name(&b, ".", t->def->col[k].name);
            }
        }
        mm_buf_str(&b, ")");
    }
    return mm_target_prepare(db, &b, image == NULL ? SQLITE_PREPARE_PERSISTENT : 0, err);
}

static sqlite3_stmt *make_by_rowid(const struct mm_target *t, const char *rowid, sqlite3 *db, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    for (int k = 0; k < t->def->ncol; k++) {
        mm_target_name(&b, k == 0 ? "SELECT " : ", ", t->def->col[k].name);
    }
    mm_target_name(&b, " FROM main.", t->def->name);
    mm_buf_printf(&b, " WHERE %s = ?1", rowid);
    return mm_target_prepare(db, &b, SQLITE_PREPARE_PERSISTENT, err);
}

static int borrow_row(const struct mm_target *t, sqlite3_stmt *st, struct mm_value *out, struct mm_err *err)
{
    for (int k = 0; k < t->def->ncol && err->rc == SQLITE_OK; k++) {
        if (!mm_value_column(&out[k], st, k)) {
            mm_err_nomem(err);
        }
    }
    return err->rc == SQLITE_OK;
}

/* The row whose key the upsert keeps. */
static int read_by_key(struct mm_target *t, sqlite3 *db, sqlite3_stmt *find, struct mm_value *out, struct mm_err *err)
{
    if (t->held_key == NULL && (t->held_key = calloc((size_t)t->def->ncol, sizeof *t->held_key)) == NULL) {
        mm_err_nomem(err);
        return 0;
    }
    forget_key(t);
    if (find != NULL) {
        sqlite3_bind_pointer(find, t->def->ncol + 1, t, HELD, NULL);
    }
    mm_db_step(find, err);
    bool all = err->rc == SQLITE_OK;
    for (int k = 0; k < t->def->ncol && all; k++) {
        if (t->def->col[k].pk != 0) {
            all = t->held_key[k] != NULL;
            if (all && !mm_value_from(&out[k], t->held_key[k])) {
                all = mm_err_nomem(err) == SQLITE_OK;
            }
        }
    }
    return all && mm_target_read(t, db, out, out, err);
}

/* The found row itself, by its rowid or its key. */
static int read_held(struct mm_target *t, sqlite3 *db, sqlite3_stmt *find, const char *rowid, struct mm_value *out,
                     struct mm_err *err)
{
    if (rowid == NULL) {
        return read_by_key(t, db, find, out, err);
    }
    if (!mm_db_step(find, err)) {
        return 0;
    }
    t->held_rowid = sqlite3_column_int64(find, 0);
    if (t->by_rowid == NULL) {
        t->by_rowid = make_by_rowid(t, rowid, db, err);
    }
    if (t->by_rowid != NULL) {
        sqlite3_bind_int64(t->by_rowid, 1, t->held_rowid);
    }
    return mm_db_step(t->by_rowid, err) && borrow_row(t, t->by_rowid, out, err);
}

int mm_target_holder(struct mm_target *t, sqlite3 *db, const struct mm_value *image, struct mm_value *out,
                     struct mm_err *err)
{
    const char *rowid = t->def->without_rowid ? NULL : rowid_name(t);
    bool full = mm_target_full(t, image);
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    if (full && t->find == NULL) {
        t->find = make_find(t, NULL, rowid, db, err);
    }
    sqlite3_stmt *find = full ? t->find : make_find(t, image, rowid, db, err);
    mm_target_bind_row(t, db, find, image, err);
    int found = read_held(t, db, find, rowid, out, err);
    if (!found) {
        mm_err_set(err, SQLITE_CORRUPT, "table %s: no row holds what an index says is held: run PRAGMA integrity_check",
                   t->name);
    }
    if (full && find != NULL) {
        sqlite3_reset(find);
        sqlite3_clear_bindings(find);
    } else {
        mm_db_finalize(find);
    }
    return found;
}

void mm_target_holder_done(struct mm_target *t)
{
    mm_target_done(t);
    if (t->by_rowid != NULL) {
        sqlite3_reset(t->by_rowid);
    }
}

int mm_target_read_rowid(struct mm_target *t, sqlite3 *db, int64_t rowid, struct mm_value *out, struct mm_err *err)
{
    const char *name = rowid_name(t);
    if (t->by_rowid == NULL && name != NULL && err->rc == SQLITE_OK) {
        t->by_rowid = make_by_rowid(t, name, db, err);
    }
    if (t->by_rowid != NULL) {
        sqlite3_bind_int64(t->by_rowid, 1, rowid);
    }
    return t->by_rowid != NULL && mm_db_step(t->by_rowid, err) && borrow_row(t, t->by_rowid, out, err);
}

int mm_target_evict(struct mm_target *t, sqlite3 *db, const struct mm_value *row, struct mm_err *err)
{
    const char *rowid = t->def->without_rowid ? NULL : rowid_name(t);
    if (rowid == NULL) {
        return mm_target_remove(t, db, row, err);
    }
    if (t->evict == NULL && err->rc == SQLITE_OK) {
        struct mm_buf b;
        mm_buf_init(&b, MM_TARGET_SQL_MAX);
        mm_target_name(&b, "DELETE FROM main.", t->def->name);
        mm_buf_printf(&b, " WHERE %s = ?1", rowid);
        t->evict = mm_target_prepare(db, &b, SQLITE_PREPARE_PERSISTENT, err);
    }
    if (t->evict != NULL) {
        sqlite3_bind_int64(t->evict, 1, t->held_rowid);
    }
    return mm_db_run(t->evict, err);
}

bool mm_target_searches(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st = NULL;
    bool cheap = false;
    char *plan = sqlite3_mprintf("EXPLAIN QUERY PLAN %s", sql);
    if (plan != NULL && sqlite3_prepare_v2(db, plan, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
        const char *detail = (const char *)sqlite3_column_text(st, 3);
        cheap = detail != NULL && strncmp(detail, "SEARCH", 6) == 0;
    }
    sqlite3_finalize(st);
    sqlite3_free(plan);
    return cheap;
}

/* IS compares 1 and 1.0, or 0.0 and -0.0, as equal: this finds what may be the
** row. By the column's collation once more for an index that has it. */
static sqlite3_stmt *make_take(const struct mm_target *t, const char *rowid, bool last, sqlite3 *db, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    mm_buf_printf(&b, "SELECT %s", rowid);
    for (int k = 0; k < t->def->ncol; k++) {
        mm_target_name(&b, ", ", t->def->col[k].name);
    }
    mm_target_name(&b, " FROM main.", t->def->name);
    for (int k = 0; k < t->def->ncol; k++) {
        enum mm_coll coll = (enum mm_coll)t->def->col[k].coll;
        mm_target_name(&b, k == 0 ? " WHERE " : " AND ", t->def->col[k].name);
        mm_buf_printf(&b, " IS ?%d COLLATE BINARY", k + 1);
        if (coll == MM_COLL_NOCASE || coll == MM_COLL_RTRIM) {
            mm_target_name(&b, " AND ", t->def->col[k].name);
            mm_buf_printf(&b, " IS ?%d COLLATE %s", k + 1, mm_coll_name(coll));
        }
    }
    if (last) {
        mm_buf_printf(&b, " ORDER BY %s DESC", rowid);
    }
    return mm_target_prepare(db, &b, SQLITE_PREPARE_PERSISTENT, err);
}

/* The statement's columns from `at` on are the row. */
static bool row_is(const struct mm_target *t, sqlite3_stmt *st, int at, const struct mm_value *row, struct mm_err *err)
{
    bool same = true;
    for (int k = 0; same && k < t->def->ncol; k++) {
        struct mm_value v;
        if (!mm_value_column(&v, st, k + at)) {
            mm_err_nomem(err);
            return false;
        }
        same = mm_value_same(&v, &row[k]) || (row[k].type == MM_UNDEF && v.type == SQLITE_NULL);
    }
    return same;
}

int mm_target_read_like(struct mm_target *t, const struct mm_target *like, sqlite3 *db, const struct mm_value *row,
                        struct mm_value *out, struct mm_err *err)
{
    int n = like->def->ncol;
    bool same = n == t->def->ncol;
    for (int k = 0; k < n && same; k++) {
        same = sqlite3_stricmp(t->def->col[k].name, like->def->col[k].name) == 0;
    }
    if (same || err->rc != SQLITE_OK) {
        return mm_target_read(t, db, row, out, err);
    }
    struct mm_value *v = calloc(2 * (size_t)t->def->ncol, sizeof *v);
    if (v == NULL) {
        mm_err_nomem(err);
        return 0;
    }
    for (int k = 0; k < n; k++) {
        int at = mm_target_column(t, like->def->col[k].name);
        if (at >= 0) {
            v[at] = row[k];
        }
    }
    int found = mm_target_read(t, db, v, v + t->def->ncol, err);
    for (int k = 0; k < n && found; k++) {
        int at = mm_target_column(t, like->def->col[k].name);
        out[k] = at >= 0 ? v[t->def->ncol + at] : (struct mm_value){ .type = MM_UNDEF };
    }
    free(v);
    return found;
}

sqlite3_stmt *mm_target_scan_rowids(const struct mm_target *t, sqlite3 *db, struct mm_err *err)
{
    struct mm_buf b;
    const char *rowid = rowid_name(t);
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    mm_buf_printf(&b, "SELECT %s", rowid != NULL ? rowid : "rowid");
    for (int k = 0; k < t->def->ncol; k++) {
        mm_target_name(&b, ", ", t->def->col[k].name);
    }
    mm_target_name(&b, " FROM main.", t->def->name);
    return mm_target_prepare(db, &b, 0, err);
}

bool mm_target_many_pays(struct mm_target *t, sqlite3 *db, size_t rows, struct mm_err *err)
{
    const char *rowid = rowid_name(t);
    if (rows < MM_TARGET_MANY || rowid == NULL || err->rc != SQLITE_OK) {
        return false;
    }
    if (t->take[0] == NULL) {
        t->take[0] = make_take(t, rowid, false, db, err);
    }
    return t->take[0] != NULL && !mm_target_searches(db, sqlite3_sql(t->take[0]));
}

struct asked {
    struct mm_target *t;
    sqlite3 *db;
    const struct mm_value *row;
    struct mm_err *err;
};

static bool is_there(void *arg, int64_t rowid)
{
    const struct asked *q = arg;
    q->t->held_rowid = rowid;
    sqlite3_bind_int64(q->t->by_rowid, 1, rowid);
    bool is = mm_db_step(q->t->by_rowid, q->err) && row_is(q->t, q->t->by_rowid, 0, q->row, q->err);
    sqlite3_reset(q->t->by_rowid);
    return is;
}

/* One of the places that were found, if it is this row. */
static bool take_found(struct mm_target *t, sqlite3 *db, const char *rowid, const struct mm_value *row,
                       struct mm_err *err)
{
    struct asked q = { t, db, row, err };
    if (t->by_rowid == NULL && err->rc == SQLITE_OK) {
        t->by_rowid = make_by_rowid(t, rowid, db, err);
    }
    return err->rc == SQLITE_OK && mm_target_many_take(t, row, is_there, &q);
}

bool mm_target_take_one(struct mm_target *t, sqlite3 *db, const struct mm_value *row, bool last, struct mm_err *err)
{
    const char *rowid = rowid_name(t);
    bool found = false;
    if (rowid == NULL) {
        mm_err_set(err, SQLITE_MISMATCH, "table %s has columns named rowid, _rowid_ and oid: rename one", t->name);
    }
    if (t->many != NULL && err->rc == SQLITE_OK) {
        return take_found(t, db, rowid, row, err) && mm_target_evict(t, db, row, err) == SQLITE_OK;
    }
    if (t->take[last] == NULL && err->rc == SQLITE_OK) {
        t->take[last] = make_take(t, rowid, last, db, err);
    }
    sqlite3_stmt *st = t->take[last];
    mm_target_bind_row(t, db, st, row, err);
    while (!found && mm_db_step(st, err)) {
        t->held_rowid = sqlite3_column_int64(st, 0);
        found = row_is(t, st, 1, row, err);
    }
    if (st != NULL) {
        sqlite3_reset(st);
        sqlite3_clear_bindings(st);
    }
    return found && mm_target_evict(t, db, row, err) == SQLITE_OK;
}
