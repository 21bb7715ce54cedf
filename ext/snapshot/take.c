#include "snapshot/take.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "repl/join.h"
#include "snapshot/moment.h"
#include "store/meta.h"
#include "store/policy.h"

int mm_take_empty(const char *path, const char *like, const char *vfs, struct mm_err *err)
{
    sqlite3 *model = mm_repl_connect(like, vfs, 0, err);
    char *encoding = model != NULL ? mm_db_text(model, err, "PRAGMA encoding") : NULL;
    sqlite3_close(model);
    sqlite3 *db = err->rc == SQLITE_OK ? mm_repl_connect(path, vfs, SQLITE_OPEN_CREATE, err) : NULL;
    mm_db_exec(db, err, "PRAGMA encoding = %Q", encoding);
    sqlite3_free(encoding);
    mm_db_exec(db, err, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN");
    mm_meta_migrate(db, err);
    mm_db_exec(db, err,
               "CREATE TABLE __marmot__catalogue(place INTEGER PRIMARY KEY, type TEXT NOT NULL, name TEXT NOT NULL,"
               " tbl TEXT NOT NULL COLLATE NOCASE, sql TEXT NOT NULL); COMMIT");
    sqlite3_close(db);
    return err->rc;
}

int mm_take_statements(sqlite3 *db, const char *schema, const char *table, struct mm_take_statement **list,
                       struct mm_err *err)
{
    int n = 0;
    *list = NULL;
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT name, tbl, sql FROM \"%w\".__marmot__catalogue"
                                     " WHERE %Q IS NULL OR tbl = %Q ORDER BY type, place",
                                     schema, table, table);
    while (mm_db_step(st, err)) {
        struct mm_take_statement *p = realloc(*list, (size_t)(n + 1) * sizeof *p);
        if (p == NULL) {
            mm_err_nomem(err);
            break;
        }
        *list = p;
        p[n].name = strdup((const char *)sqlite3_column_text(st, 0));
        p[n].table = strdup((const char *)sqlite3_column_text(st, 1));
        p[n].sql = strdup((const char *)sqlite3_column_text(st, 2));
        n++;
        if (p[n - 1].name == NULL || p[n - 1].table == NULL || p[n - 1].sql == NULL) {
            mm_err_nomem(err);
        }
    }
    mm_db_finalize(st);
    return n;
}

void mm_take_statements_free(struct mm_take_statement *list, int n)
{
    for (int k = 0; k < n; k++) {
        free(list[k].name);
        free(list[k].table);
        free(list[k].sql);
    }
    free(list);
}

/* "CREATE TABLE " is how SQLite itself begins what it stores. */
static void copy_table(sqlite3 *db, const struct mm_table *def, struct mm_err *err)
{
    static const char head[] = "CREATE TABLE ";
    if (strncmp(def->sql, head, sizeof head - 1) != 0) {
        mm_err_set(err, SQLITE_CORRUPT, "the schema's statement of table %s is not readable", def->name);
        return;
    }
    mm_db_exec(db, err, "CREATE TABLE copy.%s", def->sql + sizeof head - 1);
    struct mm_buf names;
    mm_buf_init(&names, 1 << 20);
    for (int k = 0; k < def->ncol && def->nstored != def->ncol; k++) { /* generated columns are not written */
        char *name = sqlite3_mprintf("%s\"%w\"", k > 0 ? ", " : "", def->col[k].name);
        mm_buf_str(&names, name != NULL ? name : "");
        names.rc = name == NULL ? SQLITE_NOMEM : names.rc;
        sqlite3_free(name);
    }
    mm_buf_byte(&names, 0);
    if (mm_buf_check(&names, err, "column names") == SQLITE_OK) {
        const char *list = (const char *)names.data;
        /* Without a column list SQLite moves whole records. */
        mm_db_exec(db, err, "INSERT INTO copy.\"%w\"%s%s%s SELECT %s FROM main.\"%w\"", def->name,
                   list[0] != '\0' ? "(" : "", list, list[0] != '\0' ? ")" : "", list[0] != '\0' ? list : "*",
                   def->name);
    }
    mm_buf_free(&names);
    mm_db_exec(db, err,
               "INSERT INTO copy.__marmot__catalogue(type, name, tbl, sql) SELECT type, name, tbl_name, sql"
               " FROM main.sqlite_schema WHERE tbl_name = %Q COLLATE NOCASE AND type IN ('index', 'trigger')"
               " AND sql IS NOT NULL AND name NOT LIKE '\\_\\_marmot\\_\\_%%' ESCAPE '\\' ORDER BY rowid",
               def->name);
}

static void copy_tables(const struct mm_take *t, sqlite3 *db, struct mm_manifest *m, struct mm_err *err)
{
    int n = 0;
    char *missing = NULL;
    if (mm_watchlist_missing(db, &missing, err)) {
        mm_err_set(err, SQLITE_ERROR,
                   "this node does not hold all that the cluster watches (table %s here): call it on a node that does",
                   missing);
    }
    sqlite3_free(missing);
    struct mm_watch_entry *list = err->rc == SQLITE_OK ? mm_watchlist_all(db, &n, err) : NULL;
    m->tables = n;
    int64_t size = mm_db_int(db, err, 0,
                             "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count,"
                             " pragma_freelist_count, pragma_page_size");
    mm_work_step_file(t->work, "copying tables", t->to, size);
    for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
        struct mm_table *def = mm_table_load(db, list[k].name, err);
        if (def == NULL || !def->supported) {
            mm_err_set(err, SQLITE_ERROR, "table %s of the cluster's list is missing here or cannot be replicated",
                       list[k].name);
        } else {
            m->schema = m->schema * 1099511628211ULL + mm_table_hash(def);
            copy_table(db, def, err);
        }
        mm_table_free(def);
    }
    mm_watch_list_free(list, n);
}

/* Everything of one moment of the node's database. */
static void copy_all(const struct mm_take *t, sqlite3 *db, struct mm_manifest *m, struct mm_err *err)
{
    mm_db_exec(db, err, "ATTACH %Q AS copy", t->to);
    mm_db_exec(db, err, "PRAGMA copy.journal_mode = OFF; PRAGMA copy.synchronous = OFF");
    mm_moment_begin(db, t->work, err);
    char *cluster = mm_meta_text(db, MM_META_CLUSTER, err);
    if (err->rc == SQLITE_OK && (cluster == NULL || mm_meta_int(db, MM_META_JOINED, 0, err) == 0)) {
        mm_err_set(err, SQLITE_ERROR, "this database has not joined its cluster yet: see marmot_status()");
    } else if (err->rc == SQLITE_OK && mm_meta_int(db, MM_META_MOVE_DUE, 0, err) != 0) {
        mm_err_set(err, SQLITE_BUSY, "this database was set back and is being brought up to the log: try again");
    } else if (cluster != NULL) {
        sqlite3_snprintf(sizeof m->cluster_id, m->cluster_id, "%s", cluster);
    }
    sqlite3_free(cluster);
    copy_tables(t, db, m, err);
    mm_position_copy(db, "main", "copy", err);
    mm_watchlist_copy(db, "main", "copy", err);
    mm_watch_copy(db, "copy", err);
    mm_policy_copy(db, "main", "copy", err);
    mm_outbox_copy(db, "copy", err);
    mm_db_exec(db, err, "COMMIT");
    if (t->captured) { /* behind the moment: the node's look is of before */
        mm_moment_captured(db, t->work, err);
    }
}

/* What is pending at the node leaves the copy. */
static void to_base(const struct mm_take *t, struct mm_manifest *m, struct mm_err *err)
{
    struct mm_repl r = { 0 };
    struct mm_repl_options o = t->repl;
    if (err->rc == SQLITE_OK && (r.db = mm_repl_connect(t->to, t->vfs, 0, err)) != NULL) {
        mm_work_watch(t->work, r.db);
        mm_db_exec(r.db, err, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN");
        mm_repl_open(&r, &o, err);
    }
    mm_work_step(t->work, "taking out what is pending", 0);
    for (int k = 0; k < r.nshard && err->rc == SQLITE_OK; k++) {
        mm_pending_undo(r.shard[k].pending, 0, err);
        m->shard[k] = r.shard[k].pos;
        m->shard[k].shard = k + 1;
    }
    m->nshard = r.nshard;
    m->epoch = r.epoch;
    if (err->rc == SQLITE_OK) {
        mm_outbox_strip(r.db, err);
        mm_meta_set_text(r.db, MM_META_CLUSTER, m->cluster_id, err);
        mm_meta_set_int(r.db, MM_META_JOINED, 1, err);
        mm_db_exec(r.db, err, "COMMIT");
        mm_work_step(t->work, "checking the copy", 0);
        char *verdict = mm_db_text(r.db, err, "PRAGMA quick_check(1)");
        if (err->rc == SQLITE_OK && (verdict == NULL || strcmp(verdict, "ok") != 0)) {
            mm_err_set(err, SQLITE_CORRUPT,
                       "the copy is damaged, and so may this database be (PRAGMA integrity_check): %s",
                       verdict != NULL ? verdict : "no answer");
        }
        sqlite3_free(verdict);
    }
    mm_repl_close(&r);
}

int mm_take_copy(const struct mm_take *t, struct mm_manifest *m, struct mm_err *err)
{
    memset(m, 0, sizeof *m);
    m->format = MM_SNAPSHOT_FORMAT;
    m->node = t->repl.node;
    m->at_ms = mm_clock_wall_ms();
    mm_gate_enter();
    mm_take_empty(t->to, t->path, t->vfs, err);
    sqlite3 *db = err->rc == SQLITE_OK ? mm_repl_connect(t->path, t->vfs, 0, err) : NULL;
    if (db != NULL) {
        mm_work_watch(t->work, db);
        copy_all(t, db, m, err);
    }
    sqlite3_close(db);
    to_base(t, m, err);
    mm_gate_leave();
    return err->rc;
}

int mm_take_to_epoch(const struct mm_take *t, const struct mm_position *pos, struct mm_manifest *m, struct mm_err *err)
{
    mm_gate_enter();
    sqlite3 *db = err->rc == SQLITE_OK ? mm_repl_connect(t->to, t->vfs, 0, err) : NULL;
    if (db != NULL) {
        mm_db_exec(db, err, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN");
        for (int k = 0; k < m->nshard; k++) {
            mm_position_set(db, &pos[k], err);
            m->shard[k] = pos[k];
            m->epoch = pos[k].epoch;
        }
        mm_db_exec(db, err, "COMMIT");
    }
    sqlite3_close(db);
    mm_gate_leave();
    return err->rc;
}
