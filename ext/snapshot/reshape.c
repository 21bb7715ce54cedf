#include "snapshot/reshape.h"

#include <string.h>

#include "base/db.h"

/* The copy's table while the node's is made in its place. */
#define WAS "__marmot__was"

static int column(const struct mm_table *t, const char *name)
{
    for (int k = 0; k < t->ncol; k++) {
        if (sqlite3_stricmp(t->col[k].name, name) == 0) {
            return k;
        }
    }
    return -1;
}

int mm_reshape_make(struct mm_scratch *s, sqlite3 *node, const char *table, struct mm_err *err)
{
    char *sql = mm_db_text(node, err,
                           "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = %Q COLLATE"
                           " NOCASE",
                           table);
    mm_db_exec(s->r.db, err, "%s", sql != NULL ? sql : "");
    sqlite3_free(sql);
    sqlite3_stmt *st = mm_db_prepare(node, err, 0,
                                     "SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND tbl_name = %Q COLLATE"
                                     " NOCASE AND sql LIKE 'CREATE UNIQUE INDEX%%'",
                                     table);
    while (mm_db_step(st, err)) {
        mm_db_exec(s->r.db, err, "%s", (const char *)sqlite3_column_text(st, 0));
    }
    mm_db_finalize(st);
    return err->rc;
}

/* As the node's own rows, those of the copy hold the default of a column that was added, and what the log says
** of it can be folded. One that cannot be added is missing there as before. */
static void add_columns(struct mm_scratch *s, sqlite3 *node, const struct mm_table *copy, const struct mm_table *ours,
                        struct mm_err *err)
{
    for (int k = 0; k < ours->ncol && err->rc == SQLITE_OK; k++) {
        const struct mm_column *c = &ours->col[k];
        if (column(copy, c->name) >= 0) {
            continue;
        }
        struct mm_err refused;
        mm_err_init(&refused);
        char *value = mm_db_text(node, err, "SELECT dflt_value FROM pragma_table_xinfo(%Q, 'main') WHERE name = %Q",
                                 ours->name, c->name);
        mm_db_exec(s->r.db, &refused, "ALTER TABLE main.\"%w\" ADD COLUMN \"%w\" %s COLLATE %s%s%s%s", copy->name,
                   c->name, c->decl, mm_coll_name((enum mm_coll)c->coll), c->not_null ? " NOT NULL" : "",
                   value != NULL ? " DEFAULT " : "", value != NULL ? value : "");
        sqlite3_free(value);
        if (refused.rc != SQLITE_OK && (refused.rc & 0xff) != SQLITE_ERROR) {
            *err = refused;
        }
    }
}

/* Every column of a is one of b. */
static bool among(const struct mm_table *a, const struct mm_table *b)
{
    bool all = true;
    for (int k = 0; k < a->ncol; k++) {
        all = all && column(b, a->col[k].name) >= 0;
    }
    return all;
}

static bool same_key(const struct mm_table *a, const struct mm_table *b)
{
    int left = 0;
    for (int k = 0; k < b->ncol; k++) {
        left += b->col[k].pk != 0;
    }
    for (int k = 0; k < a->ncol; k++) {
        if (a->col[k].pk != 0) {
            int at = column(b, a->col[k].name);
            if (at < 0 || b->col[at].pk == 0 || b->col[at].coll != a->col[k].coll) {
                return false;
            }
            left--;
        }
    }
    return left == 0 && a->keyless == b->keyless;
}

static bool may_be_renamed(const struct mm_table *was, int at, const struct mm_table *ours, int k)
{
    const struct mm_column *a = &was->col[at];
    const struct mm_column *b = &ours->col[k];
    return column(ours, a->name) < 0 && column(was, b->name) < 0 && a->pk == 0 && b->pk == 0 && a->coll == b->coll &&
           a->not_null == b->not_null && sqlite3_stricmp(a->decl, b->decl) == 0;
}

/* Which column of `was` column k of ours is, -1 = none. One of another name in the same place of as many, of the
** same type, was renamed; so was the only one of its type where a value must be had from somewhere. Where
** that is wrong (dropped as the last one, and added as that) its rows differ, and are sent as they are here. */
static int source(const struct mm_table *was, const struct mm_table *ours, int k)
{
    const struct mm_column *c = &ours->col[k];
    int at = column(was, c->name);
    int n = 0;
    if (at >= 0 || (was->ncol == ours->ncol && may_be_renamed(was, k, ours, k))) {
        return at >= 0 ? at : k;
    }
    for (int j = 0; c->not_null && !c->has_default && j < was->ncol; j++) {
        if (may_be_renamed(was, j, ours, k)) {
            at = j;
            n++;
        }
    }
    return n == 1 ? at : -1;
}

static bool any_null_key(sqlite3 *db, const struct mm_table *t, struct mm_err *err)
{
    bool any = false;
    for (int k = 0; k < t->ncol && !any; k++) {
        if (t->col[k].pk != 0 && !t->integer_key) {
            any = mm_db_int(db, err, 0, "SELECT 1 FROM main.\"%w\" WHERE \"%w\" IS NULL LIMIT 1", t->name,
                            t->col[k].name) != 0;
        }
    }
    return any;
}

static const char *empty_value(const struct mm_column *c)
{
    return c->affinity == MM_AFF_TEXT ? "''" : c->affinity == MM_AFF_BLOB && c->decl[0] != 0 ? "x''" : "0";
}

/* Rows that the node's constraints do not let in are left out: the comparison finds them. */
static void take_rows(struct mm_scratch *s, const struct mm_table *was, const struct mm_table *ours, struct mm_err *err)
{
    struct mm_buf to;
    struct mm_buf from;
    mm_buf_init(&to, 1 << 20);
    mm_buf_init(&from, 1 << 20);
    for (int k = 0; k < ours->ncol; k++) {
        const struct mm_column *c = &ours->col[k];
        int at = source(was, ours, k);
        if (at < 0 && !(c->not_null && !c->has_default)) {
            continue; /* its default */
        }
        char *value = at >= 0 ? sqlite3_mprintf("\"%w\"", was->col[at].name) : sqlite3_mprintf("%s", empty_value(c));
        char *name = sqlite3_mprintf("\"%w\"", c->name);
        if (value == NULL || name == NULL) {
            mm_err_nomem(err);
        } else {
            mm_buf_printf(&to, "%s%s", to.len > 0 ? ", " : "", name);
            mm_buf_printf(&from, "%s%s", from.len > 0 ? ", " : "", value);
        }
        sqlite3_free(value);
        sqlite3_free(name);
    }
    mm_buf_byte(&to, 0);
    mm_buf_byte(&from, 0);
    mm_buf_check(&to, err, "column names");
    if (mm_buf_check(&from, err, "column names") == SQLITE_OK) {
        mm_db_exec(s->r.db, err, "INSERT OR IGNORE INTO main.\"%w\"(%s) SELECT %s FROM main." WAS, ours->name,
                   (const char *)to.data, (const char *)from.data);
    }
    mm_buf_free(&to);
    mm_buf_free(&from);
    for (int k = 0; k < was->ncol && err->rc == SQLITE_OK; k++) {
        if (column(ours, was->col[k].name) < 0) {
            const char *now = NULL;
            for (int j = 0; j < ours->ncol; j++) {
                now = source(was, ours, j) == k ? ours->col[j].name : now;
            }
            mm_targets_column_was(s->r.targets, ours->name, was->col[k].name, now, err);
        }
    }
}

static void drop_indexes(struct mm_scratch *s, const char *table, struct mm_err *err)
{
    for (;;) {
        char *name = mm_db_text(s->r.db, err,
                                "SELECT name FROM main.sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
                                " AND tbl_name = %Q COLLATE NOCASE LIMIT 1",
                                table);
        if (name == NULL || mm_db_exec(s->r.db, err, "DROP INDEX main.\"%w\"", name) != SQLITE_OK) {
            sqlite3_free(name);
            return;
        }
        sqlite3_free(name);
    }
}

static void rebuild(struct mm_scratch *s, sqlite3 *node, const struct mm_table *copy, const struct mm_table *ours,
                    struct mm_err *err)
{
    sqlite3 *db = s->r.db;
    /* As in the old days: other tables' references go on naming the table, not what it is called meanwhile. */
    mm_db_exec(db, err, "SAVEPOINT reshape; PRAGMA legacy_alter_table = ON");
    drop_indexes(s, copy->name, err);
    mm_db_exec(db, err, "ALTER TABLE main.\"%w\" RENAME TO " WAS, copy->name);
    mm_reshape_make(s, node, ours->name, err);
    take_rows(s, copy, ours, err);
    mm_db_exec(db, err, "DROP TABLE main." WAS);
    int cause = err->rc & 0xff;
    if (cause == SQLITE_CONSTRAINT || cause == SQLITE_ERROR || cause == SQLITE_MISMATCH) {
        mm_err_init(err); /* it stays as it was: the comparison says so */
        mm_db_exec(db, err, "ROLLBACK TO reshape");
    }
    mm_db_exec(db, err, "RELEASE reshape; PRAGMA legacy_alter_table = OFF");
}

static bool may_be_alike(struct mm_scratch *s, sqlite3 *node, const struct mm_table *copy, const struct mm_table *ours,
                         struct mm_err *err)
{
    if (!ours->supported || !copy->supported || !same_key(copy, ours)) {
        return false;
    }
    return among(ours, copy) || !(ours->keyless || any_null_key(node, ours, err) || any_null_key(s->r.db, copy, err));
}

int mm_reshape(struct mm_scratch *s, sqlite3 *node, const struct mm_table *copy, bool alike, struct mm_err *err)
{
    struct mm_table *ours = mm_table_load(node, copy->name, err);
    struct mm_table *now = NULL;
    if (ours != NULL && (!alike || among(copy, ours))) { /* the usual case, however many rows there are */
        add_columns(s, node, copy, ours, err);
        now = mm_table_load(s->r.db, copy->name, err);
    }
    const struct mm_table *is = now != NULL ? now : copy;
    if (alike && ours != NULL && err->rc == SQLITE_OK && mm_table_hash(is) != mm_table_hash(ours) &&
        may_be_alike(s, node, is, ours, err)) {
        rebuild(s, node, is, ours, err);
    }
    mm_table_free(now);
    mm_table_free(ours);
    return err->rc;
}
