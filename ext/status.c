#include "status.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "capture/tables.h"
#include "registry.h"
#include "store/meta.h"
#include "store/watch.h"

enum { TEXT_MAX = 1 << 20 }; /* bytes of the names of a key */

/* A scan's copied content: nrow times ncol texts, NULL = NULL. */
struct rows {
    int ncol;
    size_t nrow, cap;
    char **cell;
};

/* One virtual table: its columns, and who fills the rows. */
struct view {
    const char *name;
    const char *declaration;
    int ncol;
    int (*fill)(sqlite3 *db, struct rows *r, struct mm_err *err);
};

static void free_rows(struct rows *r)
{
    for (size_t k = 0; k < r->nrow * (size_t)r->ncol; k++) {
        free(r->cell[k]);
    }
    free(r->cell);
    r->cell = NULL;
    r->nrow = 0;
    r->cap = 0;
}

/* Appends one row of copies. */
static int add_row(struct rows *r, const char *const *text, struct mm_err *err)
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
    }
    return SQLITE_OK;
}

/* The key's columns in their order, with commas; NULL for a table without. */
static char *key_text(const struct mm_table *t, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, TEXT_MAX);
    for (int place = 1; place <= t->ncol; place++) {
        for (int k = 0; k < t->ncol; k++) {
            if (t->col[k].pk == place) {
                mm_buf_str(&b, b.len > 0 ? ", " : "");
                mm_buf_str(&b, t->col[k].name);
            }
        }
    }
    if (b.len == 0) {
        mm_buf_free(&b);
        return NULL;
    }
    char *text = mm_buf_take(&b);
    if (text == NULL) {
        mm_err_nomem(err);
    }
    return text;
}

static const struct mm_watch_entry *entry_of(const struct mm_watch_entry *list, int n, const char *name)
{
    for (int k = 0; k < n; k++) {
        if (sqlite3_stricmp(list[k].name, name) == 0) {
            return &list[k];
        }
    }
    return NULL;
}

static int one_table(sqlite3 *db, struct rows *r, const char *name, const struct mm_watch_entry *e, struct mm_err *err)
{
    struct mm_table *t = mm_table_load(db, name, err);
    if (t == NULL) {
        return err->rc;
    }
    char why[256];
    const char *state = mm_watch_state_name(e != NULL ? e->state : t->supported ? MM_WATCH_NONE : MM_UNSUPPORTED);
    const char *cause = e != NULL && e->why != NULL ? e->why : t->why;
    bool captured = e != NULL && mm_watch_captures(e->state);
    if (captured && mm_registry_uncaptured(db, why, sizeof why)) {
        captured = false;
        cause = cause != NULL ? cause : why;
    }
    char *key = key_text(t, err);
    const char *text[] = { t->name, captured ? "hook" : "none", key, state, cause };
    add_row(r, text, err);
    free(key);
    mm_table_free(t);
    return err->rc;
}

static int fill_tables(sqlite3 *db, struct rows *r, struct mm_err *err)
{
    int nwatch = 0;
    struct mm_watch_entry *watch = mm_meta_exists(db, err) ? mm_watch_list(db, &nwatch, err) : NULL;
    int n = 0;
    char **name = err->rc == SQLITE_OK ? mm_table_list(db, &n, err) : NULL;
    for (int k = 0; k < n; k++) {
        one_table(db, r, name[k], entry_of(watch, nwatch, name[k]), err);
    }
    for (int k = 0; k < nwatch && err->rc == SQLITE_OK; k++) {
        bool there = false;
        for (int j = 0; j < n && !there; j++) {
            there = sqlite3_stricmp(name[j], watch[k].name) == 0;
        }
        if (!there) {
            const char *text[] = { watch[k].name, "none", NULL, mm_watch_state_name(watch[k].state),
                                   watch[k].why != NULL ? watch[k].why : "there is no such table in this database" };
            add_row(r, text, err);
        }
    }
    for (int k = 0; k < n; k++) {
        free(name[k]);
    }
    free(name);
    mm_watch_list_free(watch, nwatch);
    return err->rc;
}

static const struct view views[] = {
    { "marmot_tables", "CREATE TABLE x(name TEXT, capture TEXT, key TEXT, state TEXT, why TEXT)", 5, fill_tables },
};

struct vtab {
    sqlite3_vtab base;
    sqlite3 *db;
    const struct view *view;
};

struct cursor {
    sqlite3_vtab_cursor base;
    struct rows rows;
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
    c->rows.ncol = ((struct vtab *)base)->view->ncol;
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
    const char *text = c->rows.cell[c->at * (size_t)c->rows.ncol + (size_t)col];
    if (text != NULL) {
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
    return rc;
}
