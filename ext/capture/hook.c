#include "capture/hook.h"

#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "capture/hook_int.h"
#include "store/outbox.h"
#include "store/stray.h"

static const char pointer_type[] = "mm_hook";

bool mm_hook_available(const char **why)
{
    return mm_host_sqlite(why) != NULL;
}

static int guard_connect(sqlite3 *db, void *arg, int argc, const char *const *argv, sqlite3_vtab **out, char **msg)
{
    int rc = mm_hook_connect(db, arg, argc, argv, out, msg);
    if (rc == SQLITE_OK) {
        ((struct mm_hook *)arg)->guarded = true;
    }
    return rc;
}

/* Comes first when a connection closes: what is kept would hold it open. */
static int guard_disconnect(sqlite3_vtab *v)
{
    struct mm_hook *h = ((struct mm_hook_vtab *)v)->h;
    h->guarded = false;
    mm_kept_drop_all(h);
    return mm_hook_disconnect(v);
}

struct guard_cursor {
    sqlite3_vtab_cursor base;
    bool done;
};

static int guard_best_index(sqlite3_vtab *v, sqlite3_index_info *info)
{
    (void)v;
    info->estimatedCost = 1;
    return SQLITE_OK;
}

static int guard_open(sqlite3_vtab *v, sqlite3_vtab_cursor **out)
{
    (void)v;
    struct guard_cursor *c = sqlite3_malloc(sizeof *c);
    if (c == NULL) {
        return SQLITE_NOMEM;
    }
    memset(c, 0, sizeof *c);
    *out = &c->base;
    return SQLITE_OK;
}

static int guard_close(sqlite3_vtab_cursor *c)
{
    sqlite3_free(c);
    return SQLITE_OK;
}

static int guard_filter(sqlite3_vtab_cursor *c, int index, const char *name, int argc, sqlite3_value **argv)
{
    (void)index;
    (void)name;
    (void)argc;
    (void)argv;
    ((struct guard_cursor *)c)->done = false;
    return SQLITE_OK;
}

static int guard_next(sqlite3_vtab_cursor *c)
{
    ((struct guard_cursor *)c)->done = true;
    return SQLITE_OK;
}

static int guard_eof(sqlite3_vtab_cursor *c)
{
    return ((struct guard_cursor *)c)->done;
}

/* NULL for SQL; our own code reads the connection's hook out of it. */
static int guard_column(sqlite3_vtab_cursor *c, sqlite3_context *ctx, int col)
{
    (void)col;
    sqlite3_result_pointer(ctx, ((struct mm_hook_vtab *)c->pVtab)->h, pointer_type, NULL);
    return SQLITE_OK;
}

static int guard_rowid(sqlite3_vtab_cursor *c, sqlite3_int64 *rowid)
{
    (void)c;
    *rowid = 0;
    return SQLITE_OK;
}

static const sqlite3_module guard_module = {
    .iVersion = 0,
    .xConnect = guard_connect,
    .xBestIndex = guard_best_index,
    .xDisconnect = guard_disconnect,
    .xOpen = guard_open,
    .xClose = guard_close,
    .xFilter = guard_filter,
    .xNext = guard_next,
    .xEof = guard_eof,
    .xColumn = guard_column,
    .xRowid = guard_rowid,
};

static struct mm_hook *find(sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    struct mm_hook *h = NULL;
    if (sqlite3_prepare_v2(db, "SELECT a FROM " MM_GUARD_MODULE, -1, &st, NULL) == SQLITE_OK &&
        sqlite3_step(st) == SQLITE_ROW) {
        h = sqlite3_value_pointer(sqlite3_column_value(st, 0), pointer_type);
    }
    sqlite3_finalize(st);
    return h;
}

static void hook_free(struct mm_hook *h)
{
    mm_cache_free(h);
    mm_spill_free(&h->data);
    mm_spill_free(&h->names);
    mm_spill_free(&h->noted);
    mm_spill_free(&h->noted_names);
    free(h->mark);
    free(h->blob);
    free(h->row);
    free(h->filename);
    sqlite3_free(h->left_to_guard);
    free(h);
}

void mm_hook_release(struct mm_hook *h)
{
    if (--h->refs == 0) {
        hook_free(h);
    }
}

/* The destructor of each module. A host may drop modules of a connection that
** goes on: the hook must not outlive them, though connected tables may. */
static void module_gone(void *arg)
{
    struct mm_hook *h = arg;
    if (--h->modules == 0 && h->hooked) {
        h->host->preupdate_hook(h->db, NULL, NULL);
        h->hooked = h->on = false;
        h->listener(h->arg, MM_NOTE_CLOSED, NULL);
    }
    mm_hook_release(h);
}

struct mm_hook *mm_hook_attach_early(sqlite3 *db, mm_hook_listener *listener, void *arg, struct mm_err *err)
{
    const char *why = NULL;
    const struct mm_host *host = mm_host_sqlite(&why);
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    if (host == NULL) {
        mm_err_set(err, SQLITE_ERROR, "%s: use capture = trigger", why);
        return NULL;
    }
    const char *file = sqlite3_db_filename(db, "main");
    struct mm_hook *h = calloc(1, sizeof *h);
    if (h == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    h->db = db;
    h->host = host;
    h->listener = listener;
    h->arg = arg;
    mm_spill_init(&h->data);
    mm_spill_init(&h->names);
    mm_spill_init(&h->noted);
    mm_spill_init(&h->noted_names);
    h->filename = strdup(file != NULL ? file : "");
    if (h->filename == NULL) {
        hook_free(h);
        mm_err_nomem(err);
        return NULL;
    }
    /* A call that fails runs the destructor too: one reference over both
    ** calls keeps h alive until here. */
    h->refs = 3;
    h->modules = 2;
    int rc = sqlite3_create_module_v2(db, MM_CAPTURE_MODULE, &mm_capture_module, h, module_gone);
    int rc2 = sqlite3_create_module_v2(db, MM_GUARD_MODULE, &guard_module, h, module_gone);
    if (rc == SQLITE_OK && rc2 == SQLITE_OK) {
        host->preupdate_hook(db, mm_hook_row, h);
        h->hooked = h->on = true;
        (void)mm_hook_guard(h); /* without it guards note what the hook captures: twice is as good */
    } else {
        mm_err_set(err, rc != SQLITE_OK ? rc : rc2, "the capture module cannot be registered");
    }
    bool good = err->rc == SQLITE_OK;
    mm_hook_release(h);
    return good ? h : NULL;
}

/* A "DELETE FROM t" prepared before the hook was set would truncate unseen:
** a changed schema makes it be prepared again. A view has no pages, so that
** dropping it minds no running SELECT. Both in one transaction: a process that
** dies between them must not leave the view behind. */
static void move_cookie(sqlite3 *db, struct mm_err *err)
{
    if (mm_db_exec(db, err, "SAVEPOINT __marmot__cookie") != SQLITE_OK) {
        return;
    }
    mm_db_exec(db, err,
               "CREATE VIEW main.__marmot__cookie AS SELECT 1;"
               "DROP VIEW main.__marmot__cookie");
    if (mm_head_capturing(db, err) != MM_CAPTURING) {
        mm_stray_begin(db, true, true, err);
    }
    mm_db_exec(db, err, "RELEASE __marmot__cookie");
    if (err->rc != SQLITE_OK && sqlite3_get_autocommit(db) == 0) {
        struct mm_err second;
        mm_err_init(&second);
        mm_db_exec(db, &second, "ROLLBACK TO __marmot__cookie; RELEASE __marmot__cookie");
    }
}

struct mm_hook *mm_hook_attach(sqlite3 *db, bool late, mm_hook_listener *listener, void *arg, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    struct mm_hook *h = find(db);
    bool fresh = h == NULL;
    if (fresh) {
        h = mm_hook_attach_early(db, listener, arg, err);
    }
    if (h == NULL) {
        return NULL;
    }
    bool was_on = h->on && !fresh;
    mm_known_forget(h);
    h->on = true;
    h->booked = true;
    h->stale = true;
    sqlite3_free(h->left_to_guard);
    h->left_to_guard = NULL;
    if (h->told) { /* an authorizer that came later is asked only when statements are prepared */
        mm_kept_drop_all(h);
    }
    mm_kept_prepare(h, err);
    if ((err->rc & 0xff) == SQLITE_AUTH) {
        const struct mm_err denied = *err;
        mm_err_init(err);
        if (!mm_hook_temp_join(h, err)) {
            *err = denied;
        }
    }
    if (late && !was_on) {
        move_cookie(db, err);
    }
    if (err->rc != SQLITE_OK) {
        h->on = false;
        mm_err_prefix(err, "attaching the hook");
        return NULL;
    }
    h->told = false;
    return h;
}

/* The hook itself stays: the application may have set its own since, and
** taking that off could never be undone. */
void mm_hook_detach(struct mm_hook *h)
{
    if (h != NULL) {
        h->on = false;
        mm_known_forget(h);
    }
}

void mm_hook_forget_tables(struct mm_hook *h)
{
    if (h != NULL) {
        h->stale = true;
        mm_known_forget(h);
    }
    if (h != NULL && h->on && h->temp_join) {
        struct mm_err err;
        mm_err_init(&err);
        (void)mm_hook_temp_join(h, &err); /* a write that joins nowhere says so itself */
    }
}

/* A table without triggers: the bookkeeping's own, or any, or one made for this. */
static char *probe_table(sqlite3 *db, bool *made, struct mm_err *err)
{
    char *name = mm_db_text(db, err,
                            "SELECT name FROM main.sqlite_schema AS s WHERE type = 'table' AND name NOT LIKE 'sqlite%%'"
                            " AND sql NOT LIKE 'CREATE VIRTUAL%%' AND sql NOT LIKE '%%REFERENCES%%' AND NOT EXISTS"
                            " (SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = s.name)"
                            " AND NOT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE sql LIKE '%%REFERENCES%%')"
                            " ORDER BY name = '__marmot__head' DESC LIMIT 1");
    *made = name == NULL && err->rc == SQLITE_OK;
    if (*made) {
        mm_db_exec(db, err, "CREATE TEMP TABLE __marmot__probe(x)");
        name = sqlite3_mprintf("__marmot__probe");
        if (name == NULL) {
            mm_err_nomem(err);
        }
    }
    return name;
}

bool mm_hook_taken(sqlite3 *db, struct mm_err *err)
{
    bool made = false;
    bool truncates = false;
    char *name = probe_table(db, &made, err);
    sqlite3_stmt *st = mm_db_prepare(db, err, 0, "EXPLAIN DELETE FROM %s.\"%w\"", made ? "temp" : "main", name);
    while (mm_db_step(st, err)) {
        const char *opcode = (const char *)sqlite3_column_text(st, 1);
        truncates = truncates || (opcode != NULL && strcmp(opcode, "Clear") == 0);
    }
    mm_db_finalize(st);
    if (made) {
        mm_db_exec(db, err, "DROP TABLE temp.__marmot__probe");
    }
    sqlite3_free(name);
    return err->rc == SQLITE_OK && !truncates;
}
