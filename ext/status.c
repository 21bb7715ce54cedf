#include "status.h"

#include <stdlib.h>
#include <string.h>

#include "status_int.h"

/* One virtual table: its columns ('i' integer, 't' text), and who fills the rows. */
struct view {
    const char *name;
    const char *declaration;
    const char *types;
    mm_status_fill *fill;
};

static const struct view views[] = {
    { "marmot_tables", "CREATE TABLE x(name TEXT, capture TEXT, key TEXT, state TEXT, why TEXT)", "ttttt",
      mm_status_tables },
    { "marmot_streams",
      "CREATE TABLE x(shard INTEGER, stream TEXT, subject TEXT, position INTEGER, \"end\" INTEGER, state TEXT)",
      "ittiit", mm_status_streams },
    { "marmot_conflicts",
      "CREATE TABLE x(id INTEGER, shard INTEGER, seq INTEGER, node INTEGER, time TEXT, kind TEXT, \"table\" TEXT, key "
      "TEXT,"
      " lost TEXT, won TEXT)",
      "iiiitttttt", mm_status_conflicts },
    { "marmot_nodes",
      "CREATE TABLE x(id INTEGER, name TEXT, host TEXT, state TEXT, positions TEXT, lag_messages INTEGER,"
      " lag_seconds INTEGER, last_seen TEXT, self INTEGER, no_snapshot TEXT)",
      "ittttiitit", mm_status_nodes },
    { "marmot_metrics", "CREATE TABLE x(name TEXT, labels TEXT, value INTEGER, help TEXT)", "ttit", mm_status_metrics },
};

static void free_rows(struct mm_status_rows *r)
{
    for (size_t k = 0; k < r->nrow * (size_t)r->ncol; k++) {
        free(r->cell[k]);
    }
    free(r->cell);
    r->cell = NULL;
    r->nrow = 0;
    r->bytes = 0;
    r->cap = 0;
}

int mm_status_add(struct mm_status_rows *r, const char *const *text, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    size_t ncol = (size_t)r->ncol;
    if (r->nrow == r->cap) {
        size_t cap = r->cap == 0 ? 16 : r->cap * 2;
        char **p = realloc(r->cell, cap * ncol * sizeof *p);
        if (p == NULL) {
            return mm_err_nomem(err);
        }
        r->cell = p;
        r->cap = cap;
    }
    char **row = r->cell + r->nrow * ncol;
    memset(row, 0, ncol * sizeof *row);
    r->nrow++;
    for (size_t k = 0; k < ncol; k++) {
        row[k] = text[k] != NULL ? strdup(text[k]) : NULL;
        if (text[k] != NULL && row[k] == NULL) {
            return mm_err_nomem(err);
        }
        r->bytes += text[k] != NULL ? strlen(text[k]) : 0;
    }
    return SQLITE_OK;
}

struct vtab {
    sqlite3_vtab base;
    sqlite3 *db;
    const struct view *view;
};

struct cursor {
    sqlite3_vtab_cursor base;
    struct mm_status_rows rows;
    size_t at;
};

static int x_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **message)
{
    (void)argc;
    (void)argv;
    (void)message;
    const struct view *view = aux;
    int rc = sqlite3_declare_vtab(db, view->declaration);
    if (rc != SQLITE_OK) {
        return rc;
    }
    (void)sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
    struct vtab *v = sqlite3_malloc64(sizeof *v);
    if (v == NULL) {
        return SQLITE_NOMEM;
    }
    memset(v, 0, sizeof *v);
    v->db = db;
    v->view = view;
    *out = &v->base;
    return SQLITE_OK;
}

static int x_disconnect(sqlite3_vtab *base)
{
    sqlite3_free(base);
    return SQLITE_OK;
}

static int x_best_index(sqlite3_vtab *base, sqlite3_index_info *info)
{
    (void)base;
    info->estimatedCost = 1000;
    info->estimatedRows = 100;
    return SQLITE_OK;
}

static int x_open(sqlite3_vtab *base, sqlite3_vtab_cursor **out)
{
    struct cursor *c = sqlite3_malloc64(sizeof *c);
    if (c == NULL) {
        return SQLITE_NOMEM;
    }
    memset(c, 0, sizeof *c);
    c->rows.ncol = (int)strlen(((struct vtab *)base)->view->types);
    *out = &c->base;
    return SQLITE_OK;
}

static int x_close(sqlite3_vtab_cursor *base)
{
    free_rows(&((struct cursor *)base)->rows);
    sqlite3_free(base);
    return SQLITE_OK;
}

static int x_filter(sqlite3_vtab_cursor *base, int number, const char *text, int argc, sqlite3_value **argv)
{
    (void)number;
    (void)text;
    (void)argc;
    (void)argv;
    struct cursor *c = (struct cursor *)base;
    struct vtab *v = (struct vtab *)base->pVtab;
    struct mm_err err;
    mm_err_init(&err);
    free_rows(&c->rows);
    c->at = 0;
    if (v->view->fill(v->db, &c->rows, &err) != SQLITE_OK) {
        sqlite3_free(v->base.zErrMsg);
        v->base.zErrMsg = sqlite3_mprintf("%s: %s", v->view->name, err.msg);
        free_rows(&c->rows);
    }
    return err.rc;
}

static int x_next(sqlite3_vtab_cursor *base)
{
    ((struct cursor *)base)->at++;
    return SQLITE_OK;
}

static int x_eof(sqlite3_vtab_cursor *base)
{
    const struct cursor *c = (struct cursor *)base;
    return c->at >= c->rows.nrow;
}

static int x_column(sqlite3_vtab_cursor *base, sqlite3_context *ctx, int col)
{
    const struct cursor *c = (struct cursor *)base;
    const struct vtab *v = (struct vtab *)base->pVtab;
    const char *text = c->rows.cell[c->at * (size_t)c->rows.ncol + (size_t)col];
    if (text != NULL && v->view->types[col] == 'i') {
        sqlite3_result_int64(ctx, strtoll(text, NULL, 10));
    } else if (text != NULL) {
        sqlite3_result_text(ctx, text, -1, SQLITE_TRANSIENT);
    }
    return SQLITE_OK;
}

static int x_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *rowid)
{
    *rowid = (sqlite3_int64)((struct cursor *)base)->at + 1;
    return SQLITE_OK;
}

/* Without xCreate: eponymous only. Without xUpdate: read-only. */
static const sqlite3_module module = {
    .xConnect = x_connect,
    .xBestIndex = x_best_index,
    .xDisconnect = x_disconnect,
    .xOpen = x_open,
    .xClose = x_close,
    .xFilter = x_filter,
    .xNext = x_next,
    .xEof = x_eof,
    .xColumn = x_column,
    .xRowid = x_rowid,
};

int mm_status_register(sqlite3 *db)
{
    int rc = SQLITE_OK;
    for (size_t k = 0; k < sizeof views / sizeof views[0] && rc == SQLITE_OK; k++) {
        rc = sqlite3_create_module_v2(db, views[k].name, &module, (void *)&views[k], NULL);
    }
    return rc == SQLITE_OK ? mm_status_register_changes(db) : rc;
}
