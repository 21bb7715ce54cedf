/* The head row: what every captured commit reads. */
#include "base/db.h"
#include "store/outbox.h"

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

bool mm_head_watch_all(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT watch_all FROM main.__marmot__head WHERE one = 1") != 0;
}

int mm_head_set_capturing(sqlite3 *db, int how, struct mm_err *err)
{
    return mm_db_exec(db, err, "UPDATE main.__marmot__head SET capturing = %d WHERE one = 1", how);
}

int mm_head_capturing(sqlite3 *db, struct mm_err *err)
{
    return (int)mm_db_int(db, err, MM_CAPTURING, "SELECT capturing FROM main.__marmot__head WHERE one = 1");
}

int mm_head_set_brake(sqlite3 *db, int brake, struct mm_err *err)
{
    return mm_db_exec(db, err, "UPDATE main.__marmot__head SET brake = %d WHERE one = 1", brake);
}

int mm_head_brake(sqlite3 *db, struct mm_err *err)
{
    return (int)mm_db_int(db, err, MM_BRAKE_OFF, "SELECT brake FROM main.__marmot__head WHERE one = 1");
}
