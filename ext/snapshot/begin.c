#include "snapshot/begin.h"

#include <string.h>

#include "base/db.h"
#include "base/gate.h"
#include "repl/join.h"
#include "snapshot/take.h"

/* A table of the node, without its rows; its UNIQUE indexes with it. */
static void make_table(struct mm_scratch *s, sqlite3 *node, const struct mm_watch_entry *e, struct mm_err *err)
{
    char *sql = mm_db_text(node, err,
                           "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = %Q COLLATE"
                           " NOCASE",
                           e->name);
    mm_db_exec(s->r.db, err, "%s", sql != NULL ? sql : "");
    sqlite3_free(sql);
    sqlite3_stmt *st = mm_db_prepare(node, err, 0,
                                     "SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND tbl_name = %Q COLLATE"
                                     " NOCASE AND sql LIKE 'CREATE UNIQUE INDEX%%'",
                                     e->name);
    while (mm_db_step(st, err)) {
        mm_db_exec(s->r.db, err, "%s", (const char *)sqlite3_column_text(st, 0));
    }
    mm_db_finalize(st);
    mm_watch_set(s->r.db, e->first_name, MM_JOINING, NULL, err);
}

static bool has_column(const struct mm_table *t, const char *name)
{
    int k = 0;
    while (k < t->ncol && sqlite3_stricmp(t->col[k].name, name) != 0) {
        k++;
    }
    return k < t->ncol;
}

/* Columns that the node has added since: as its own rows, those of the copy hold their
** default, and what the log says of them can be folded. One that cannot be added
** is missing there as before. */
static void add_columns(struct mm_scratch *s, sqlite3 *node, const struct mm_table *copy, struct mm_err *err)
{
    struct mm_table *ours = mm_table_load(node, copy->name, err);
    for (int k = 0; ours != NULL && k < ours->ncol && err->rc == SQLITE_OK; k++) {
        const struct mm_column *c = &ours->col[k];
        if (has_column(copy, c->name)) {
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
    mm_table_free(ours);
}

/* Of the tables that the node watches: those that the copy lacks, or columns of the others. */
static int each_watched(struct mm_scratch *s, const char *node_path, const char *vfs, bool columns, struct mm_err *err)
{
    int n = 0;
    mm_gate_enter();
    sqlite3 *node = mm_repl_connect(node_path, vfs, 0, err);
    if (node != NULL) {
        mm_db_exec(s->r.db, err, "BEGIN");
        struct mm_watch_entry *list = mm_watch_list(node, &n, err);
        for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
            struct mm_table *def = mm_table_load(s->r.db, list[k].name, err);
            if (columns && def != NULL && mm_watch_captures(list[k].state)) {
                add_columns(s, node, def, err);
            } else if (!columns && def == NULL && mm_watch_captures(list[k].state)) {
                make_table(s, node, &list[k], err);
            }
            mm_table_free(def);
        }
        mm_watch_list_free(list, n);
        mm_db_exec(s->r.db, err, "COMMIT");
        if (!sqlite3_get_autocommit(s->r.db)) {
            sqlite3_exec(s->r.db, "ROLLBACK", NULL, NULL, NULL);
        }
    }
    sqlite3_close(node);
    mm_targets_forget(s->r.targets);
    mm_gate_leave();
    return err->rc;
}

int mm_begin_tables(struct mm_scratch *s, const char *node_path, const char *vfs, struct mm_err *err)
{
    return each_watched(s, node_path, vfs, false, err);
}

int mm_begin_columns(struct mm_scratch *s, const char *node_path, const char *vfs, struct mm_err *err)
{
    return each_watched(s, node_path, vfs, true, err);
}

static int stream_stamps(struct mm_scratch *s, struct mm_err *err)
{
    for (int k = 0; k < s->r.nshard && err->rc == SQLITE_OK; k++) {
        struct mm_shard *sh = &s->r.shard[k];
        struct mm_stream_info info;
        if (!mm_bus_stream_info(s->r.bus, sh->stream, &info, MM_REQUEST_MS, err)) {
            mm_err_set(err, SQLITE_NOTFOUND, "the server has no stream %s", sh->stream);
        } else if (info.first_seq > 1) {
            mm_err_set(err, SQLITE_NOTFOUND, "stream %s no longer holds its first messages", sh->stream);
        } else {
            memcpy(sh->pos.created, info.created, sizeof sh->pos.created);
        }
    }
    return err->rc;
}

int mm_begin_empty(struct mm_scratch *s, const struct mm_scratch_options *o, const char *node_path,
                   const char *cluster_id, const struct mm_err *why, struct mm_err *err)
{
    struct mm_err none;
    mm_gate_enter();
    mm_take_empty(o->path, node_path, o->vfs, err);
    mm_gate_leave();
    if (err->rc == SQLITE_OK && mm_scratch_open(s, o, NULL, err) == SQLITE_OK &&
        mm_begin_tables(s, node_path, o->vfs, err) == SQLITE_OK && mm_bus_connect(s->r.bus, err) == SQLITE_OK &&
        stream_stamps(s, err) == SQLITE_OK) {
        (void)sqlite3_snprintf(sizeof s->r.cluster_id, s->r.cluster_id, "%s", cluster_id);
        mm_gate_enter();
        mm_join_begin(&s->r, err);
        mm_gate_leave();
        s->r.joined = true;
    }
    if ((err->rc & 0xff) == SQLITE_NOTFOUND) {
        mm_err_init(&none);
        mm_err_set(&none, SQLITE_NOTFOUND, "%s, and %s", err->msg,
                   why->rc != SQLITE_OK ? why->msg : "there is no snapshot of the cluster");
        *err = none;
    }
    return err->rc;
}
