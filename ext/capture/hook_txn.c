#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "capture/hook_int.h"
#include "store/outbox.h"

void mm_hook_say_uncaptured(struct mm_hook *h, const char *why)
{
    if (!h->told && h->hooked) {
        h->told = true;
        h->listener(h->arg, MM_NOTE_UNCAPTURED, why);
    }
}

/* True while main is the file of the attach and holds an outbox. What cannot
** be found out is an error. */
static bool bookkeeping(struct mm_hook *h, struct mm_err *err)
{
    const char *file = sqlite3_db_filename(h->db, "main");
    if (strcmp(file != NULL ? file : "", h->filename) != 0) {
        mm_hook_say_uncaptured(h, "main is no longer the file of marmot_init: open that file on a new connection");
        return false;
    }
    if (h->trusted && sqlite3_get_autocommit(h->db)) { /* else a table may have been dropped in this transaction */
        return true;
    }
    int rc = sqlite3_table_column_metadata(h->db, "main", "__marmot__head", NULL, NULL, NULL, NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        h->booked = true;
        return true;
    }
    if (rc != SQLITE_ERROR) { /* which would be: no such table */
        mm_err_set(err, rc, "looking for the bookkeeping: %s", sqlite3_errstr(rc));
    } else if (h->booked) {
        mm_hook_say_uncaptured(h, "the bookkeeping of main is gone: call marmot_init");
    }
    return false;
}

/* The join itself; the second statement of the same text is stepped too when
** a schema change made the first be prepared again, so that it is at hand
** when nothing can be prepared. */
static bool step_join(struct mm_hook *h, enum mm_kept_id id, struct mm_err *err)
{
    sqlite3_stmt *st = mm_kept_get(h, id, err);
    if (st == NULL) {
        return false;
    }
    int rc = sqlite3_step(st);
    bool moved = mm_kept_reprepared(h, id);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW) {
        mm_err_set(err, sqlite3_extended_errcode(h->db), "%s", sqlite3_errmsg(h->db));
        moved = false;
    }
    mm_kept_done(h, id);
    return moved;
}

/* Rows of a virtual table's own storage come while that table, not we, runs
** its xSync: then no join is possible, and none is needed. */
static bool never_captured(struct mm_hook *h, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    const struct mm_entry *e = mm_cache_get(h, table, 0, &err);
    return err.rc == SQLITE_OK && !e->capture;
}

static void join_failed(struct mm_hook *h, const char *table, const struct mm_err *err)
{
    if ((err->rc & 0xff) == SQLITE_LOCKED && never_captured(h, table)) {
        return;
    }
    char why[256];
    bool denied = (err->rc & 0xff) == SQLITE_AUTH; /* the spare would be denied too */
    if (!denied && mm_hook_veto(h)) {
        return;
    }
    struct mm_err unknown;
    mm_err_init(&unknown);
    if (denied && !h->told && mm_hook_by_triggers(h, table, &unknown) && unknown.rc == SQLITE_OK) {
        return; /* not out of the cache, which is renewed by joins */
    }
    if (denied) {
        sqlite3_snprintf(sizeof why, why,
                         "an authorizer denies \"DELETE FROM " MM_CAPTURE_MODULE
                         "\": allow it, or call marmot_init() on this connection once more");
    } else {
        sqlite3_snprintf(sizeof why, why, "a change could not be captured (%.180s): call marmot_reconcile", err->msg);
    }
    mm_hook_say_uncaptured(h, why);
}

bool mm_hook_try_join(struct mm_hook *h, struct mm_err *err)
{
    mm_known_begin(h);
    if (!bookkeeping(h, err)) {
        return false;
    }
    /* Joined by a TEMP trigger, no statement of ours has seen the schema. */
    bool by_trigger = h->joined;
    bool moved = by_trigger || step_join(h, MM_KEPT_JOIN, err);
    if (!h->joined) {
        mm_err_set(err, SQLITE_ERROR, "a table named " MM_CAPTURE_MODULE " is in the way");
        return false;
    }
    mm_err_init(err);
    if (!by_trigger && h->guarded && (moved || h->kept[MM_KEPT_SPARE].st == NULL)) {
        struct mm_err spare;
        mm_err_init(&spare);
        step_join(h, MM_KEPT_SPARE, &spare);
    }
    if (moved || h->stale) {
        mm_cache_forget(h);
        mm_known_forget(h);
    }
    if (!h->head_known || !h->capturing) {
        mm_hook_head(h, &h->failed);
    }
    h->skip = h->failed.rc == SQLITE_OK && !h->capturing;
    h->entered = h->joined; /* an interrupt may have rolled all back meanwhile */
    return h->entered;
}

bool mm_hook_join(struct mm_hook *h, const char *table)
{
    struct mm_err err;
    mm_err_init(&err);
    bool joined = mm_hook_try_join(h, &err);
    if (!joined && err.rc != SQLITE_OK) {
        join_failed(h, table, &err);
    }
    return joined;
}

void mm_hook_cut(struct mm_hook *h, const struct mm_mark *to)
{
    mm_spill_cut(&h->data, to->data);
    mm_spill_cut(&h->names, to->names);
    for (size_t k = 0; k < h->nentry; k++) {
        struct mm_entry *e = h->entry[k];
        e->touched = e->touched && e->first < to->data;
    }
    h->now = *to;
}

static void clear(struct mm_hook *h)
{
    static const struct mm_mark start;
    mm_hook_cut(h, &start);
    h->nmark = 0;
}

static void end_transaction(struct mm_hook *h, bool committed)
{
    mm_spill_free(&h->noted);
    mm_spill_free(&h->noted_names);
    h->doubt.entry = NULL;
    mm_cache_end(h, committed);
    clear(h);
    mm_err_init(&h->failed);
    h->joined = false;
    h->entered = false;
    h->skip = false;
    h->written = false;
}

static struct mm_hook *hook_of(sqlite3_vtab *v)
{
    return ((struct mm_hook_vtab *)v)->h;
}

static int x_begin(sqlite3_vtab *v)
{
    struct mm_hook *h = hook_of(v);
    end_transaction(h, false);
    h->joined = true;
    return SQLITE_OK;
}

/* BUSY would leave the transaction open for another COMMIT: only SQLite may
** say so, never an error of ours. */
static int report(sqlite3_vtab *v, const struct mm_err *err)
{
    if (err->rc == SQLITE_OK) {
        return SQLITE_OK;
    }
    int rc = err->rc & 0xff;
    const char *remedy = rc == SQLITE_READONLY ? " (PRAGMA query_only is on: switch it off before COMMIT)" : "";
    sqlite3_free(v->zErrMsg);
    v->zErrMsg = sqlite3_mprintf("marmot cannot capture this transaction, it is rolled back: %s%s", err->msg, remedy);
    return rc == SQLITE_BUSY ? SQLITE_ERROR : rc;
}

static int x_sync(sqlite3_vtab *v)
{
    struct mm_hook *h = hook_of(v);
    struct mm_err err = h->failed;
    if (err.rc == SQLITE_OK && !h->skip) {
        mm_hook_flush(h, &err);
    }
    return report(v, &err);
}

/* While the outbox is full: by what it grew, within bounds. The locks of the
** transaction are free by now. */
static void slow_down(const struct mm_hook *h)
{
    enum { LEAST_MS = 10, MOST_MS = 100, BYTES_A_MS = 8192 };
    uint64_t ms = LEAST_MS + h->size / BYTES_A_MS;
    const struct timespec t = { .tv_nsec = (long)(ms < MOST_MS ? ms : MOST_MS) * 1000000 };
    (void)nanosleep(&t, NULL);
}

static int x_commit(sqlite3_vtab *v)
{
    struct mm_hook *h = hook_of(v);
    bool wrote = h->written;
    end_transaction(h, true);
    mm_known_commit(h);
    h->told = h->told && !wrote; /* captured again: the next loss is news */
    if (wrote && h->hooked) {
        h->listener(h->arg, MM_NOTE_COMMIT, NULL);
    }
    if (wrote && h->brake == MM_BRAKE_SLOW) {
        slow_down(h);
    }
    return SQLITE_OK;
}

/* After a true rollback there is no write transaction. Where there still is
** one, the connection closes, and what it wrote may yet be committed: by a
** COMMIT after a close that failed, or with the last open statement. */
static int x_rollback(sqlite3_vtab *v)
{
    struct mm_hook *h = hook_of(v);
    if (!h->skip && h->joined && (h->now.data > 0 || h->stamping) &&
        sqlite3_txn_state(h->db, "main") == SQLITE_TXN_WRITE) {
        struct mm_err err = h->failed;
        h->closing = true;
        mm_known_forget(h);
        if (mm_hook_flush(h, &err) != SQLITE_OK) {
            mm_hook_say_uncaptured(h, "a transaction left open at close could not be captured: call marmot_reconcile");
        }
        mm_kept_drop_all(h);
        h->closing = false;
    }
    h->end = (struct mm_inbox_end){ 0 }; /* what was written there may be gone */
    mm_known_forget(h);
    end_transaction(h, false);
    return SQLITE_OK;
}

/* Levels that were opened before the join begin with nothing captured. */
static int x_savepoint(sqlite3_vtab *v, int level)
{
    struct mm_hook *h = hook_of(v);
    size_t at = level < 0 ? 0 : (size_t)level;
    if (at >= h->mark_cap) {
        size_t cap = at + 16;
        struct mm_mark *p = realloc(h->mark, cap * sizeof *p);
        if (p == NULL) {
            return SQLITE_NOMEM;
        }
        h->mark = p;
        h->mark_cap = cap;
    }
    while (h->nmark < at) {
        h->mark[h->nmark] = h->nmark > 0 ? h->mark[h->nmark - 1] : (struct mm_mark){ 0 };
        h->nmark++;
    }
    if (level >= 0) {
        h->mark[at] = h->now;
        h->nmark = at + 1;
    }
    return SQLITE_OK;
}

static int x_release(sqlite3_vtab *v, int level)
{
    struct mm_hook *h = hook_of(v);
    size_t keep = level < 0 ? 0 : (size_t)level;
    h->nmark = h->nmark < keep ? h->nmark : keep;
    return SQLITE_OK;
}

static int x_rollback_to(sqlite3_vtab *v, int level)
{
    struct mm_hook *h = hook_of(v);
    if (level < 0) {
        clear(h);
    } else if ((size_t)level < h->nmark) {
        struct mm_mark to = h->mark[level];
        h->nmark = (size_t)level + 1;
        mm_hook_cut(h, &to);
    }
    return SQLITE_OK;
}

int mm_hook_connect(sqlite3 *db, void *arg, int argc, const char *const *argv, sqlite3_vtab **out, char **msg)
{
    (void)argc;
    (void)argv;
    (void)msg;
    int rc = sqlite3_declare_vtab(db, "CREATE TABLE x(a HIDDEN)");
    if (rc == SQLITE_OK) {
        rc = sqlite3_vtab_config(db, SQLITE_VTAB_INNOCUOUS); /* named by triggers, also with trusted_schema off */
    }
    if (rc != SQLITE_OK) {
        return rc;
    }
    struct mm_hook_vtab *v = sqlite3_malloc(sizeof *v);
    if (v == NULL) {
        return SQLITE_NOMEM;
    }
    memset(v, 0, sizeof *v);
    v->h = arg;
    v->h->refs++;
    *out = &v->base;
    return SQLITE_OK;
}

int mm_hook_disconnect(sqlite3_vtab *v)
{
    mm_hook_release(hook_of(v));
    sqlite3_free(v);
    return SQLITE_OK;
}

/* rowid=? is a unique look-up: such a DELETE opens no statement journal. */
static int x_best_index(sqlite3_vtab *v, sqlite3_index_info *info)
{
    (void)v;
    info->estimatedCost = 1000;
    for (int k = 0; k < info->nConstraint; k++) {
        if (info->aConstraint[k].usable && info->aConstraint[k].iColumn == -1 &&
            info->aConstraint[k].op == SQLITE_INDEX_CONSTRAINT_EQ) {
            info->aConstraintUsage[k].argvIndex = 1;
            info->aConstraintUsage[k].omit = 1;
            info->idxFlags = SQLITE_INDEX_SCAN_UNIQUE;
            info->estimatedRows = 1;
            info->estimatedCost = 1;
            break;
        }
    }
    return SQLITE_OK;
}

static int x_open(sqlite3_vtab *v, sqlite3_vtab_cursor **out)
{
    (void)v;
    sqlite3_vtab_cursor *c = sqlite3_malloc(sizeof *c);
    if (c == NULL) {
        return SQLITE_NOMEM;
    }
    memset(c, 0, sizeof *c);
    *out = c;
    return SQLITE_OK;
}

static int x_close(sqlite3_vtab_cursor *c)
{
    sqlite3_free(c);
    return SQLITE_OK;
}

static int x_filter(sqlite3_vtab_cursor *c, int index, const char *name, int argc, sqlite3_value **argv)
{
    (void)c;
    (void)index;
    (void)name;
    (void)argc;
    (void)argv;
    return SQLITE_OK;
}

static int x_next(sqlite3_vtab_cursor *c)
{
    (void)c;
    return SQLITE_OK;
}

static int x_eof(sqlite3_vtab_cursor *c)
{
    (void)c;
    return 1;
}

static int x_column(sqlite3_vtab_cursor *c, sqlite3_context *ctx, int col)
{
    (void)c;
    (void)col;
    sqlite3_result_null(ctx);
    return SQLITE_OK;
}

static int x_rowid(sqlite3_vtab_cursor *c, sqlite3_int64 *rowid)
{
    (void)c;
    *rowid = 0;
    return SQLITE_OK;
}

static int x_update(sqlite3_vtab *v, int argc, sqlite3_value **argv, sqlite3_int64 *rowid)
{
    (void)argc;
    (void)argv;
    (void)rowid;
    sqlite3_free(v->zErrMsg);
    v->zErrMsg = sqlite3_mprintf(MM_CAPTURE_MODULE " holds no rows: write to your own tables");
    return SQLITE_READONLY;
}

const sqlite3_module mm_capture_module = {
    .iVersion = 2,
    .xConnect = mm_hook_connect,
    .xBestIndex = x_best_index,
    .xDisconnect = mm_hook_disconnect,
    .xOpen = x_open,
    .xClose = x_close,
    .xFilter = x_filter,
    .xNext = x_next,
    .xEof = x_eof,
    .xColumn = x_column,
    .xRowid = x_rowid,
    .xUpdate = x_update,
    .xBegin = x_begin,
    .xSync = x_sync,
    .xCommit = x_commit,
    .xRollback = x_rollback,
    .xSavepoint = x_savepoint,
    .xRelease = x_release,
    .xRollbackTo = x_rollback_to,
};
