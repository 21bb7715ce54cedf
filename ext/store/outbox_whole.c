/* The outbox as a whole: into a copy of the database, set back, given up. */
#include "base/db.h"
#include "store/outbox.h"

enum { BATCH_MAX = 1 << 24 };

int mm_outbox_copy(sqlite3 *db, const char *to, struct mm_err *err)
{
    static const char echoed[] = "max((SELECT floor FROM main.__marmot__head WHERE one = 1),"
                                 " ifnull((SELECT max(id) FROM main.__marmot__echo), 0))";
    mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__head SELECT * FROM main.__marmot__head", to);
    mm_db_exec(db, err, "UPDATE \"%w\".__marmot__head SET floor = %s, capturing = %d", to, echoed, MM_CAPTURING);
    /* A row may hold several, whose last one counts. */
    mm_db_exec(db, err,
               "INSERT INTO \"%w\".__marmot__outbox SELECT * FROM main.__marmot__outbox WHERE id IN (SELECT id FROM"
               " main.__marmot__outbox WHERE part = 0 AND ifnull(last, id) > %s)",
               to, echoed);
    mm_inbox_copy(db, to, err);
    return mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__undo SELECT * FROM main.__marmot__undo WHERE id > %s", to,
                      echoed);
}

int mm_outbox_strip(sqlite3 *db, struct mm_err *err)
{
    mm_inbox_clear(db, err);
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
    /* The floor is above rows, too, that were to go and stand beside later ones. */
    return mm_db_exec(db, err,
                      "DELETE FROM main.__marmot__echo WHERE id > %lld;"
                      "UPDATE main.__marmot__head SET floor = min(floor, %lld) WHERE one = 1",
                      (long long)id, (long long)id);
}

int64_t mm_outbox_gone(sqlite3 *db, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    mm_inbox_find_end(db, &end, err);
    return mm_db_int(db, err, end.base, "SELECT min(id) FROM main.__marmot__outbox") - 1;
}

/* A batch that holds later ones, too: its records up to `upto` become void. */
static void void_batch(sqlite3 *db, int64_t upto, struct mm_err *err)
{
    struct mm_buf bytes;
    mm_buf_init(&bytes, BATCH_MAX);
    int64_t base = mm_db_int(db, err, 0,
                             "SELECT max(id) FROM main.__marmot__outbox WHERE part = 0 AND kind = %d AND id <= %lld"
                             " AND last > %lld",
                             MM_OUTBOX_BATCH, (long long)upto, (long long)upto);
    sqlite3_stmt *st =
        base > 0 ? mm_db_prepare(db, err, 0, "SELECT data FROM main.__marmot__outbox WHERE id = %lld ORDER BY part",
                                 (long long)base)
                 : NULL;
    while (st != NULL && mm_db_step(st, err)) {
        mm_buf_add(&bytes, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0));
    }
    mm_db_finalize(st);
    mm_buf_check(&bytes, err, "an outbox row");
    st = NULL;
    if (base > 0 && err->rc == SQLITE_OK && mm_inbox_rewrite(bytes.data, bytes.len, base, 0, base, upto, 0) > 0) {
        mm_db_exec(db, err, "DELETE FROM main.__marmot__outbox WHERE id = %lld AND part > 0", (long long)base);
        st = mm_db_prepare(db, err, 0, "UPDATE main.__marmot__outbox SET data = ?1 WHERE id = %lld AND part = 0",
                           (long long)base);
    }
    if (st != NULL) {
        sqlite3_bind_blob64(st, 1, bytes.data, bytes.len, SQLITE_STATIC);
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    mm_buf_free(&bytes);
}

int mm_outbox_discard(struct mm_outbox *o, int64_t upto, struct mm_err *err)
{
    sqlite3 *db = mm_outbox_db(o);
    struct mm_inbox_end end = { 0 };
    mm_outbox_forget(o);
    void_batch(db, upto, err);
    mm_db_exec(db, err,
               "DELETE FROM main.__marmot__outbox WHERE id IN (SELECT id FROM main.__marmot__outbox WHERE part = 0"
               " AND ifnull(last, id) <= %lld)",
               (long long)upto);
    mm_db_exec(db, err,
               "DELETE FROM main.__marmot__undo WHERE id <= %lld; DELETE FROM main.__marmot__echo WHERE id <= %lld;"
               "UPDATE main.__marmot__head SET floor = max(floor, %lld) WHERE one = 1",
               (long long)upto, (long long)upto, (long long)upto);
    if (mm_inbox_find_end(db, &end, err) == SQLITE_OK && end.next - 1 <= upto && end.next > end.base) {
        mm_inbox_reset(db, end.next, &end, err);
    } else {
        mm_inbox_move(db, 0, end.base, upto, 0, err);
    }
    mm_outbox_forget(o);
    return err->rc;
}
