#include "store/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"

const char mm_outbox_sql_next[] =
    "SELECT 1 + max(floor, ifnull((SELECT max(id) FROM main.__marmot__outbox), 0)), incarnation, watch_all,"
    " capturing FROM main.__marmot__head WHERE one = 1";
const char mm_outbox_sql_put[] = "INSERT INTO main.__marmot__outbox(id, part, kind, incarnation, txid, at, names, data)"
                                 " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const char mm_outbox_sql_drop[] = "DELETE FROM main.__marmot__outbox WHERE id = ?1";

int mm_outbox_put_control(sqlite3 *db, const void *data, size_t len, struct mm_err *err)
{
    uint8_t txid[MM_TXID_SIZE];
    int64_t id = 0;
    int64_t incarnation = 0;
    sqlite3_stmt *st = mm_db_prepare(db, err, 0, "%s", mm_outbox_sql_next);
    if (mm_db_step(st, err)) {
        id = sqlite3_column_int64(st, 0);
        incarnation = sqlite3_column_int64(st, 1);
    } else {
        mm_err_set(err, SQLITE_CORRUPT, "the bookkeeping has no head row: call marmot_init");
    }
    mm_db_finalize(st);
    sqlite3_randomness(sizeof txid, txid);
    st = mm_db_prepare(db, err, 0, "%s", mm_outbox_sql_put);
    if (st != NULL) {
        sqlite3_bind_int64(st, 1, id);
        sqlite3_bind_int(st, 2, 0);
        sqlite3_bind_int(st, 3, MM_OUTBOX_CONTROL);
        sqlite3_bind_int64(st, 4, incarnation);
        sqlite3_bind_blob(st, 5, txid, sizeof txid, SQLITE_STATIC);
        sqlite3_bind_int64(st, 6, mm_clock_wall_ms());
        sqlite3_bind_blob64(st, 8, data, len, SQLITE_STATIC);
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    return err->rc;
}

enum { ST_NEXT, ST_GET, ST_PARTS, ST_LAST, ST_UNDO_PUT, ST_UNDO_GET, ST_UNDO_DROP, ST_ECHO, ST_COUNT };

static const char *const texts[ST_COUNT] = {
    [ST_NEXT] = "SELECT id, kind, incarnation, txid, at, names, data FROM main.__marmot__outbox"
                " WHERE id > ?1 AND part = 0 ORDER BY id LIMIT 1",
    [ST_GET] = "SELECT id, kind, incarnation, txid, at, names, data FROM main.__marmot__outbox"
               " WHERE id = ?1 AND part = 0",
    [ST_PARTS] = "SELECT data FROM main.__marmot__outbox WHERE id = ?1 AND part > 0 ORDER BY part",
    [ST_LAST] = "SELECT max(floor, ifnull((SELECT max(id) FROM main.__marmot__outbox), 0))"
                " FROM main.__marmot__head WHERE one = 1",
    [ST_UNDO_PUT] = "INSERT OR REPLACE INTO main.__marmot__undo(id, shard, clean, data) VALUES (?1, ?2, ?3, ?4)",
    [ST_UNDO_GET] = "SELECT clean, data FROM main.__marmot__undo WHERE id = ?1 AND shard = ?2",
    [ST_UNDO_DROP] = "DELETE FROM main.__marmot__undo WHERE id <= ?1 AND shard = ?2",
    [ST_ECHO] = "INSERT OR REPLACE INTO main.__marmot__echo(at, id) VALUES (?1, ?2)",
};

struct mm_outbox {
    sqlite3 *db;
    sqlite3_stmt *st[ST_COUNT];
};

struct mm_outbox *mm_outbox_open(sqlite3 *db, struct mm_err *err)
{
    struct mm_outbox *o = calloc(1, sizeof *o);
    if (o == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    o->db = db;
    for (int k = 0; k < ST_COUNT; k++) {
        o->st[k] = mm_db_prepare(db, err, SQLITE_PREPARE_PERSISTENT, "%s", texts[k]);
    }
    if (err->rc != SQLITE_OK) {
        mm_outbox_close(o);
        return NULL;
    }
    return o;
}

void mm_outbox_close(struct mm_outbox *o)
{
    if (o == NULL) {
        return;
    }
    for (int k = 0; k < ST_COUNT; k++) {
        mm_db_finalize(o->st[k]);
    }
    free(o);
}

static void add_column(struct mm_buf *b, sqlite3_stmt *st, int col)
{
    if (b != NULL) {
        const void *p = sqlite3_column_blob(st, col);
        mm_buf_add(b, p, (size_t)sqlite3_column_bytes(st, col));
    }
}

static int read_row(struct mm_outbox *o, sqlite3_stmt *st, int64_t id, struct mm_outbox_row *row, struct mm_buf *names,
                    struct mm_buf *data, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    sqlite3_bind_int64(st, 1, id);
    int found = mm_db_step(st, err);
    if (found) {
        memset(row, 0, sizeof *row);
        row->id = sqlite3_column_int64(st, 0);
        row->kind = sqlite3_column_int(st, 1);
        row->incarnation = sqlite3_column_int64(st, 2);
        row->at = sqlite3_column_int64(st, 4);
        if (sqlite3_column_bytes(st, 3) == MM_TXID_SIZE) {
            memcpy(row->txid, sqlite3_column_blob(st, 3), MM_TXID_SIZE);
        } else {
            mm_err_set(err, SQLITE_CORRUPT, "outbox row %lld has no valid txid", (long long)row->id);
        }
        add_column(names, st, 5);
        add_column(data, st, 6);
    }
    sqlite3_reset(st);
    if (found && data != NULL) {
        sqlite3_stmt *parts = o->st[ST_PARTS];
        sqlite3_bind_int64(parts, 1, row->id);
        while (mm_db_step(parts, err)) {
            add_column(data, parts, 0);
        }
        sqlite3_reset(parts);
        mm_buf_check(data, err, "an outbox row");
    }
    if (names != NULL) {
        mm_buf_check(names, err, "an outbox row's names");
    }
    return found && err->rc == SQLITE_OK;
}

int mm_outbox_next(struct mm_outbox *o, int64_t after, struct mm_outbox_row *row, struct mm_buf *names,
                   struct mm_buf *data, struct mm_err *err)
{
    return read_row(o, o->st[ST_NEXT], after, row, names, data, err);
}

int mm_outbox_get(struct mm_outbox *o, int64_t id, struct mm_outbox_row *row, struct mm_buf *names, struct mm_buf *data,
                  struct mm_err *err)
{
    return read_row(o, o->st[ST_GET], id, row, names, data, err);
}

int64_t mm_outbox_last(struct mm_outbox *o, struct mm_err *err)
{
    int64_t v = 0;
    if (mm_db_step(o->st[ST_LAST], err)) {
        v = sqlite3_column_int64(o->st[ST_LAST], 0);
    }
    sqlite3_reset(o->st[ST_LAST]);
    return v;
}

int mm_outbox_undo_put(struct mm_outbox *o, int64_t id, int shard, bool clean, const void *data, size_t len,
                       struct mm_err *err)
{
    sqlite3_stmt *st = o->st[ST_UNDO_PUT];
    sqlite3_bind_int64(st, 1, id);
    sqlite3_bind_int(st, 2, shard);
    sqlite3_bind_int(st, 3, clean);
    sqlite3_bind_blob64(st, 4, len > 0 ? data : "", len, SQLITE_STATIC);
    mm_db_run(st, err);
    sqlite3_clear_bindings(st);
    return err->rc;
}

int mm_outbox_undo_get(struct mm_outbox *o, int64_t id, int shard, bool *clean, struct mm_buf *data, struct mm_err *err)
{
    sqlite3_stmt *st = o->st[ST_UNDO_GET];
    sqlite3_bind_int64(st, 1, id);
    sqlite3_bind_int(st, 2, shard);
    int found = mm_db_step(st, err);
    if (found) {
        *clean = sqlite3_column_int(st, 0) != 0;
        add_column(data, st, 1);
    }
    sqlite3_reset(st);
    return found;
}

int mm_outbox_undo_drop(struct mm_outbox *o, int64_t id, int shard, struct mm_err *err)
{
    sqlite3_stmt *st = o->st[ST_UNDO_DROP];
    sqlite3_bind_int64(st, 1, id);
    sqlite3_bind_int(st, 2, shard);
    return mm_db_run(st, err);
}

int64_t mm_outbox_echoed_upto(struct mm_outbox *o, struct mm_err *err)
{
    int64_t floor = mm_db_int(o->db, err, 0, "SELECT floor FROM main.__marmot__head WHERE one = 1");
    int64_t echoed = mm_db_int(o->db, err, 0, "SELECT max(id) FROM main.__marmot__echo");
    return echoed > floor ? echoed : floor;
}

int mm_outbox_echoed(struct mm_outbox *o, int64_t id, int64_t now_ms, struct mm_err *err)
{
    sqlite3_stmt *st = o->st[ST_ECHO];
    sqlite3_bind_int64(st, 1, now_ms);
    sqlite3_bind_int64(st, 2, id);
    return mm_db_run(st, err);
}

/* Deletes outbox rows up to `upto`, at most max_rows, and raises the floor. */
static int trim_upto(struct mm_outbox *o, int64_t upto, int max_rows, bool *more, struct mm_err *err)
{
    int64_t cut = mm_db_int(o->db, err, 0,
                            "SELECT max(id) FROM (SELECT id FROM main.__marmot__outbox WHERE id <= %lld"
                            " ORDER BY id LIMIT %d)",
                            (long long)upto, max_rows);
    if (cut > 0) {
        mm_db_exec(o->db, err, "DELETE FROM main.__marmot__outbox WHERE id <= %lld", (long long)cut);
        mm_db_exec(o->db, err, "UPDATE main.__marmot__head SET floor = max(floor, %lld) WHERE one = 1", (long long)cut);
        *more = *more || cut < upto;
    }
    return err->rc;
}

bool mm_outbox_trim_due(struct mm_outbox *o, int64_t now_ms, int64_t keep_ms, struct mm_err *err)
{
    return mm_db_int(o->db, err, 0, "SELECT 1 FROM main.__marmot__echo WHERE at <= %lld LIMIT 1",
                     (long long)(now_ms - keep_ms)) != 0;
}

int mm_outbox_trim(struct mm_outbox *o, int64_t now_ms, int64_t keep_ms, int64_t keep_bytes, int max_rows, bool *more,
                   struct mm_err *err)
{
    *more = false;
    int64_t upto = mm_db_int(o->db, err, 0, "SELECT max(id) FROM main.__marmot__echo WHERE at <= %lld",
                             (long long)(now_ms - keep_ms));
    int64_t echoed = mm_db_int(o->db, err, 0, "SELECT max(id) FROM main.__marmot__echo");
    /* The size of what is kept: a running sum from the newest echoed row down.
    ** Its row where the sum passes keep_bytes, and all older ones, go. */
    if (echoed > upto && keep_bytes >= 0) {
        int64_t over = mm_db_int(o->db, err, 0,
                                 "SELECT max(id) FROM (SELECT id, sum(length(data) + ifnull(length(names), 0))"
                                 " OVER (ORDER BY id DESC, part DESC) AS total FROM main.__marmot__outbox"
                                 " WHERE id > %lld AND id <= %lld) WHERE total > %lld",
                                 (long long)upto, (long long)echoed, (long long)keep_bytes);
        upto = over > upto ? over : upto;
    }
    if (upto > 0) {
        trim_upto(o, upto, max_rows, more, err);
    }
    if (!*more) {
        mm_db_exec(o->db, err, "DELETE FROM main.__marmot__echo WHERE id <= %lld", (long long)upto);
    }
    return err->rc;
}

int mm_outbox_move(struct mm_outbox *o, int64_t old, int64_t first, int64_t moved, struct mm_err *err)
{
    return mm_db_exec(o->db, err,
                      "UPDATE main.__marmot__outbox SET incarnation = %lld WHERE incarnation = %lld AND id >= %lld",
                      (long long)moved, (long long)old, (long long)first);
}

int mm_outbox_count(struct mm_outbox *o, int64_t *counted, int64_t *rows, int64_t *bytes, struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(o->db, err, 0,
                                     "SELECT max(id), sum(part = 0), sum(length(data) + ifnull(length(names), 0))"
                                     " FROM main.__marmot__outbox WHERE id > %lld",
                                     (long long)*counted);
    if (mm_db_step(st, err) && sqlite3_column_type(st, 0) != SQLITE_NULL) {
        *counted = sqlite3_column_int64(st, 0);
        *rows += sqlite3_column_int64(st, 1);
        *bytes += sqlite3_column_int64(st, 2);
    }
    mm_db_finalize(st);
    return err->rc;
}

int64_t mm_head_incarnation(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT incarnation FROM main.__marmot__head WHERE one = 1");
}

int mm_head_set_incarnation(sqlite3 *db, int64_t incarnation, struct mm_err *err)
{
    return mm_db_exec(db, err,
                      "INSERT INTO main.__marmot__head(one, incarnation) VALUES (1, %lld)"
                      " ON CONFLICT (one) DO UPDATE SET incarnation = excluded.incarnation",
                      (long long)incarnation);
}

int mm_head_set_watch_all(sqlite3 *db, bool on, struct mm_err *err)
{
    return mm_db_exec(db, err, "UPDATE main.__marmot__head SET watch_all = %d WHERE one = 1", (int)on);
}

int mm_head_set_capturing(sqlite3 *db, bool on, struct mm_err *err)
{
    return mm_db_exec(db, err, "UPDATE main.__marmot__head SET capturing = %d WHERE one = 1", (int)on);
}

int mm_outbox_size(sqlite3 *db, int64_t *rows, int64_t *bytes, struct mm_err *err)
{
    *rows = mm_db_int(db, err, 0, "SELECT count(*) FROM main.__marmot__outbox WHERE part = 0");
    *bytes = mm_db_int(db, err, 0, "SELECT sum(length(data) + ifnull(length(names), 0)) FROM main.__marmot__outbox");
    return err->rc;
}

int mm_outbox_copy(sqlite3 *db, const char *to, struct mm_err *err)
{
    static const char echoed[] = "max((SELECT floor FROM main.__marmot__head WHERE one = 1),"
                                 " ifnull((SELECT max(id) FROM main.__marmot__echo), 0))";
    mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__head SELECT * FROM main.__marmot__head", to);
    mm_db_exec(db, err, "UPDATE \"%w\".__marmot__head SET floor = %s", to, echoed);
    mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__outbox SELECT * FROM main.__marmot__outbox WHERE id > %s", to,
               echoed);
    return mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__undo SELECT * FROM main.__marmot__undo WHERE id > %s", to,
                      echoed);
}

int mm_outbox_strip(sqlite3 *db, struct mm_err *err)
{
    return mm_db_exec(db, err,
                      "DELETE FROM main.__marmot__outbox; DELETE FROM main.__marmot__undo;"
                      "DELETE FROM main.__marmot__echo; DELETE FROM main.__marmot__head");
}

int mm_outbox_unecho(sqlite3 *db, int64_t id, struct mm_err *err)
{
    /* What stays is kept as long as the oldest of what goes would have been. */
    mm_db_exec(db, err,
               "INSERT OR REPLACE INTO main.__marmot__echo(at, id) SELECT at, %lld FROM main.__marmot__echo"
               " WHERE id > %lld ORDER BY at LIMIT 1",
               (long long)id, (long long)id);
    return mm_db_exec(db, err, "DELETE FROM main.__marmot__echo WHERE id > %lld", (long long)id);
}

int64_t mm_outbox_floor(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT floor FROM main.__marmot__head WHERE one = 1");
}
