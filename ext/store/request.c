#include "store/request.h"

#include "base/clock.h"
#include "base/db.h"
#include "store/stray.h"

enum { FORGET_MS = 3600 * 1000 };

int64_t mm_request_sync(sqlite3 *db, int64_t outbox_id, struct mm_err *err)
{
    mm_db_exec(db, err, "BEGIN IMMEDIATE");
    mm_db_exec(db, err, "DELETE FROM main.__marmot__request WHERE at < %lld",
               (long long)(mm_clock_wall_ms() - FORGET_MS));
    mm_db_exec(db, err, "INSERT INTO main.__marmot__request(kind, at, answer) VALUES ('sync', %lld, '%lld')",
               (long long)mm_clock_wall_ms(), (long long)outbox_id);
    return mm_stray_end(db, err) == SQLITE_OK ? sqlite3_last_insert_rowid(db) : 0;
}

int mm_request_done(sqlite3 *db, int64_t id, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT done FROM main.__marmot__request WHERE id = %lld", (long long)id) != 0;
}

int64_t mm_request_next(sqlite3 *db, int64_t after, int64_t *outbox_id, struct mm_err *err)
{
    int64_t id = 0;
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT id, CAST(answer AS INTEGER) FROM main.__marmot__request WHERE id > %lld"
                                     " AND done = 0 AND kind = 'sync' ORDER BY id LIMIT 1",
                                     (long long)after);
    if (mm_db_step(st, err)) {
        id = sqlite3_column_int64(st, 0);
        *outbox_id = sqlite3_column_int64(st, 1);
    }
    mm_db_finalize(st);
    return id;
}

int mm_request_finish(sqlite3 *db, int64_t id, struct mm_err *err)
{
    mm_db_exec(db, err, "BEGIN IMMEDIATE");
    mm_db_exec(db, err, "UPDATE main.__marmot__request SET done = 1 WHERE id = %lld", (long long)id);
    return mm_stray_end(db, err);
}
