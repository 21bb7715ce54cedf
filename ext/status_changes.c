/* marmot_changes(shard, from_seq): SQLite's side of the decoded change log. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "changes.h"
#include "node.h"
#include "registry.h"
#include "setup.h"
#include "status_int.h"

enum { SHARD_COLUMN = 8, FROM_COLUMN = 9, HAS_SHARD = 1, HAS_FROM = 2 };

struct vtab {
    sqlite3_vtab base;
    sqlite3 *db;
};

struct cursor {
    sqlite3_vtab_cursor base;
    struct mm_changes *changes;
    struct mm_changes_row row;
    int64_t shard, from, number;
    bool more;
};

static int x_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **message)
{
    (void)aux;
    (void)argc;
    (void)argv;
    (void)message;
    int rc = sqlite3_declare_vtab(db, "CREATE TABLE x(seq INTEGER, node INTEGER, time TEXT, \"table\" TEXT, op TEXT,"
                                      " key TEXT, old TEXT, new TEXT, shard INTEGER HIDDEN, from_seq INTEGER HIDDEN)");
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
    int place = 0;
    for (int want = SHARD_COLUMN; want <= FROM_COLUMN; want++) {
        for (int k = 0; k < info->nConstraint; k++) {
            const struct sqlite3_index_constraint *c = &info->aConstraint[k];
            if (c->iColumn != want || c->op != SQLITE_INDEX_CONSTRAINT_EQ) {
                continue;
            }
            if (!c->usable) {
                return SQLITE_CONSTRAINT; /* another order of the join has the value first */
            }
            info->aConstraintUsage[k].argvIndex = ++place;
            info->aConstraintUsage[k].omit = 1;
            info->idxNum |= want == SHARD_COLUMN ? HAS_SHARD : HAS_FROM;
            break;
        }
    }
    info->orderByConsumed = info->nOrderBy == 1 && info->aOrderBy[0].iColumn == 0 && info->aOrderBy[0].desc == 0;
    info->estimatedCost = 1000000;
    info->estimatedRows = 1000000;
    return SQLITE_OK;
}

static int x_open(sqlite3_vtab *base, sqlite3_vtab_cursor **out)
{
    (void)base;
    struct cursor *c = sqlite3_malloc64(sizeof *c);
    if (c == NULL) {
        return SQLITE_NOMEM;
    }
    memset(c, 0, sizeof *c);
    *out = &c->base;
    return SQLITE_OK;
}

static int x_close(sqlite3_vtab_cursor *base)
{
    mm_changes_close(((struct cursor *)base)->changes);
    sqlite3_free(base);
    return SQLITE_OK;
}

static int finish(struct cursor *c, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        sqlite3_free(c->base.pVtab->zErrMsg);
        c->base.pVtab->zErrMsg = sqlite3_mprintf("marmot_changes: %s", err->msg);
        c->more = false;
    }
    return err->rc;
}

static int x_next(sqlite3_vtab_cursor *base)
{
    struct cursor *c = (struct cursor *)base;
    struct mm_err err;
    mm_err_init(&err);
    c->number++;
    c->more = mm_changes_next(c->changes, &c->row, &err);
    return finish(c, &err);
}

/* A whole number; what is missing has a default, what is NULL or text an error. */
static int64_t argument(sqlite3_value *v, const char *name, struct mm_err *err)
{
    if (sqlite3_value_type(v) != SQLITE_INTEGER) {
        mm_err_set(err, SQLITE_ERROR, "%s must be an integer: call marmot_changes(shard, from_seq)", name);
        return 0;
    }
    return sqlite3_value_int64(v);
}

static struct mm_changes *open_changes(sqlite3 *db, int64_t shard, int64_t from, struct mm_err *err)
{
    struct mm_err none;
    mm_err_init(&none);
    struct mm_changes *changes = NULL;
    struct mm_node *n = mm_registry_acquire(db, &none);
    if (n != NULL) {
        changes = mm_changes_open(mm_node_config(n), shard, from, err);
        mm_registry_release(n);
        return changes;
    }
    struct mm_config *stored = mm_setup_stored(db, err);
    if (stored != NULL) {
        changes = mm_changes_open(stored, shard, from, err);
    }
    mm_config_free(stored);
    return changes;
}

static int x_filter(sqlite3_vtab_cursor *base, int number, const char *text, int argc, sqlite3_value **argv)
{
    (void)text;
    struct cursor *c = (struct cursor *)base;
    struct mm_err err;
    int at = 0;
    mm_err_init(&err);
    mm_changes_close(c->changes);
    c->changes = NULL;
    c->number = 0;
    c->more = false;
    c->shard = (number & HAS_SHARD) != 0 && at < argc ? argument(argv[at++], "shard", &err) : 1;
    c->from = (number & HAS_FROM) != 0 && at < argc ? argument(argv[at++], "from_seq", &err) : 1;
    if (err.rc == SQLITE_OK) {
        c->changes = open_changes(((struct vtab *)base->pVtab)->db, c->shard, c->from, &err);
    }
    return c->changes != NULL ? x_next(base) : finish(c, &err);
}

static int x_eof(sqlite3_vtab_cursor *base)
{
    return !((struct cursor *)base)->more;
}

static void result_text(sqlite3_context *ctx, const char *text)
{
    if (text != NULL) {
        sqlite3_result_text64(ctx, text, strlen(text), SQLITE_TRANSIENT, SQLITE_UTF8);
    }
}

static int x_column(sqlite3_vtab_cursor *base, sqlite3_context *ctx, int col)
{
    const struct cursor *c = (struct cursor *)base;
    const char *const texts[] = { c->row.table, c->row.op, c->row.key, c->row.old, c->row.new };
    char when[25];
    switch (col) {
    case 0:
        sqlite3_result_int64(ctx, c->row.seq);
        break;
    case 1:
        if (c->row.node != 0) { /* what cannot be read does not say whose it is */
            sqlite3_result_int64(ctx, c->row.node);
        }
        break;
    case 2:
        mm_clock_format(c->row.at_ms, when);
        result_text(ctx, when);
        break;
    case SHARD_COLUMN:
        sqlite3_result_int64(ctx, c->shard);
        break;
    case FROM_COLUMN:
        sqlite3_result_int64(ctx, c->from);
        break;
    default:
        result_text(ctx, texts[col - 3]);
    }
    return SQLITE_OK;
}

static int x_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *rowid)
{
    *rowid = ((struct cursor *)base)->number;
    return SQLITE_OK;
}

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

int mm_status_register_changes(sqlite3 *db)
{
    return sqlite3_create_module_v2(db, "marmot_changes", &module, NULL, NULL);
}
