#include <string.h>

#include "base/db.h"
#include "capture/hook_int.h"
#include "store/log.h"
#include "store/outbox.h"

/* rowid=?1 with nothing but NULL ever bound: a unique look-up that finds no
** row, so that the statement opens no journal (SPEC 2). The second term is asked
** first, so that it opens no cursor either. */
static const char join_sql[] = "DELETE FROM " MM_CAPTURE_MODULE " WHERE rowid = ?1 AND ?1 IS NOT NULL";

/* Parameter 1 of each kept statement holds a pointer whose destructor tells
** us that the statement is gone. */
static void forget(void *arg)
{
    struct mm_kept *k = arg;
    if (!k->moving) {
        k->st = NULL;
    }
}

static void watch_life(struct mm_kept *k)
{
    k->moving = true;
    int rc = sqlite3_bind_pointer(k->st, 1, k, "mm_kept", forget);
    k->moving = false;
    if (rc != SQLITE_OK) {
        sqlite3_finalize(k->st);
        k->st = NULL;
    }
}

static void connect_guard(struct mm_hook *h)
{
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(h->db, "SELECT 1 FROM " MM_GUARD_MODULE, -1, &st, NULL) != SQLITE_OK) {
        h->guarded = false; /* then statements are prepared for one use */
    }
    sqlite3_finalize(st);
}

static sqlite3_stmt *prepare_doubt(struct mm_hook *h, struct mm_err *err)
{
    char *sql = mm_doubt_sql(h);
    sqlite3_stmt *st = NULL;
    if (sql == NULL) {
        mm_err_nomem(err);
    } else {
        st = mm_db_prepare(h->db, err, SQLITE_PREPARE_PERSISTENT, "%s", sql);
    }
    sqlite3_free(sql);
    return st;
}

static sqlite3_stmt *prepare(struct mm_hook *h, enum mm_kept_id id, struct mm_err *err)
{
    switch (id) {
    case MM_KEPT_HEAD:
        return mm_db_prepare(h->db, err, SQLITE_PREPARE_PERSISTENT, "%s", mm_outbox_sql_head);
    case MM_KEPT_SCHEMA:
        return mm_db_prepare(h->db, err, SQLITE_PREPARE_PERSISTENT, "%s", mm_outbox_sql_schema);
    case MM_KEPT_NOTED:
        return mm_db_prepare(h->db, err, SQLITE_PREPARE_PERSISTENT, "%s", mm_log_sql_any);
    case MM_KEPT_DOUBT:
        return prepare_doubt(h, err);
    case MM_KEPT_PUT:
        return mm_db_prepare(h->db, err, SQLITE_PREPARE_PERSISTENT, "%s", mm_outbox_sql_put);
    default:
        return mm_db_prepare(h->db, err, SQLITE_PREPARE_PERSISTENT, "%s", join_sql);
    }
}

sqlite3_stmt *mm_kept_get(struct mm_hook *h, enum mm_kept_id id, struct mm_err *err)
{
    struct mm_kept *k = &h->kept[id];
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    if (k->st == NULL) {
        if (!h->guarded && !h->closing) {
            connect_guard(h);
        }
        k->reprepares = -1;
        k->st = prepare(h, id, err);
        if (k->st == NULL) {
            return NULL;
        }
        watch_life(k);
        if (k->st == NULL) {
            mm_err_nomem(err);
            return NULL;
        }
    }
    k->moving = id == MM_KEPT_PUT;
    return k->st;
}

void mm_kept_done(struct mm_hook *h, enum mm_kept_id id)
{
    struct mm_kept *k = &h->kept[id];
    if (k->st == NULL) {
        return;
    }
    sqlite3_reset(k->st);
    if (!h->guarded || h->closing) {
        sqlite3_stmt *st = k->st;
        k->st = NULL;
        k->moving = false;
        sqlite3_finalize(st);
    } else if (k->moving) { /* values took the pointer's place */
        sqlite3_clear_bindings(k->st);
        watch_life(k);
    }
}

bool mm_kept_reprepared(struct mm_hook *h, enum mm_kept_id id)
{
    struct mm_kept *k = &h->kept[id];
    if (k->st == NULL) {
        return true;
    }
    int n = sqlite3_stmt_status(k->st, SQLITE_STMTSTATUS_REPREPARE, 0);
    bool moved = n != k->reprepares;
    k->reprepares = n;
    return moved;
}

void mm_kept_drop(struct mm_hook *h, enum mm_kept_id id)
{
    sqlite3_stmt *st = h->kept[id].st;
    h->kept[id].st = NULL;
    sqlite3_finalize(st);
}

void mm_kept_drop_all(struct mm_hook *h)
{
    for (int k = 0; k < MM_KEPT_COUNT; k++) {
        mm_kept_drop(h, (enum mm_kept_id)k);
    }
}

bool mm_hook_veto(struct mm_hook *h)
{
    struct mm_kept *k = &h->kept[MM_KEPT_SPARE];
    if (k->st == NULL) {
        return false;
    }
    sqlite3_interrupt(h->db);
    int rc = sqlite3_step(k->st) & 0xff;
    sqlite3_reset(k->st);
    /* Out of memory inside a statement of a statement stays with the
    ** connection until the outer one has failed of it. INTERRUPT alone is no
    ** proof: it may have stopped a new prepare, with nothing rolled back. */
    return rc == SQLITE_NOMEM || sqlite3_txn_state(h->db, "main") != SQLITE_TXN_WRITE;
}

void mm_kept_prepare(struct mm_hook *h, struct mm_err *err)
{
    static const enum mm_kept_id ids[] = { MM_KEPT_JOIN, MM_KEPT_SPARE };
    for (size_t k = 0; k < sizeof ids / sizeof ids[0]; k++) {
        (void)mm_kept_get(h, ids[k], err);
        mm_kept_done(h, ids[k]);
    }
}

void mm_hook_schema(struct mm_hook *h, struct mm_err *err)
{
    (void)mm_db_step(mm_kept_get(h, MM_KEPT_SCHEMA, err), err);
    h->schema_moved = mm_kept_reprepared(h, MM_KEPT_SCHEMA);
    mm_kept_done(h, MM_KEPT_SCHEMA);
}

int mm_hook_head(struct mm_hook *h, struct mm_err *err)
{
    sqlite3_stmt *st = mm_kept_get(h, MM_KEPT_HEAD, err);
    if (mm_db_step(st, err)) {
        h->incarnation = sqlite3_column_int64(st, 0);
        h->watch_all = sqlite3_column_int(st, 1) != 0;
        h->capturing = sqlite3_column_int(st, 2) != MM_CAPTURING_NOT;
        h->brake = sqlite3_column_int(st, 3);
        h->stamping = sqlite3_column_int(st, 2) == MM_CAPTURING_ALL;
        h->head_known = true;
        h->schema_moved = mm_kept_reprepared(h, MM_KEPT_HEAD);
    } else {
        mm_err_set(err, SQLITE_CORRUPT, "the bookkeeping has no head row: call marmot_init");
    }
    mm_kept_done(h, MM_KEPT_HEAD);
    return err->rc;
}
