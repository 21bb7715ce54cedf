/* The outbox as a whole: into a copy of the database, set back, given up. */
#include "base/db.h"
#include "store/outbox.h"

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
    return mm_db_exec(db, err, "DELETE FROM main.__marmot__echo WHERE id > %lld", (long long)id);
}

int64_t mm_outbox_gone(sqlite3 *db, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    mm_inbox_find_end(db, &end, err);
    return mm_db_int(db, err, end.base, "SELECT min(id) FROM main.__marmot__outbox") - 1;
}

int mm_outbox_discard(struct mm_outbox *o, struct mm_err *err)
{
    sqlite3 *db = mm_outbox_db(o);
    struct mm_inbox_end end = { 0 };
    int64_t last = mm_outbox_last(o, err);
    mm_outbox_forget(o);
    mm_db_exec(db, err,
               "DELETE FROM main.__marmot__outbox; DELETE FROM main.__marmot__undo; DELETE FROM main.__marmot__echo;"
               "UPDATE main.__marmot__head SET floor = max(floor, %lld) WHERE one = 1",
               (long long)last);
    mm_inbox_reset(db, last + 1, &end, err);
    mm_outbox_forget(o);
    return err->rc;
}
