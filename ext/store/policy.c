#include "store/policy.h"

#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "store/outbox.h"

static const char *const names[MM_POLICY_COUNT] = { "last", "delta", "max", "min" };

enum mm_policy mm_policy_of(const char *name)
{
    int k = 0;
    while (k < MM_POLICY_COUNT && strcmp(name, names[k]) != 0) {
        k++;
    }
    return (enum mm_policy)k;
}

enum mm_policy mm_policy_get(sqlite3 *db, const char *table, const char *column, struct mm_err *err)
{
    int64_t p = mm_db_int(db, err, MM_POLICY_LAST,
                          "SELECT policy FROM main.__marmot__policy WHERE name = %Q AND col = %Q", table, column);
    return p >= 0 && p < MM_POLICY_COUNT ? (enum mm_policy)p : MM_POLICY_LAST;
}

int mm_policy_set(sqlite3 *db, const char *table, const char *column, enum mm_policy p, struct mm_err *err)
{
    return mm_db_exec(db, err, "INSERT OR REPLACE INTO main.__marmot__policy(name, col, policy) VALUES (%Q, %Q, %d)",
                      table, column, (int)p);
}

bool mm_policy_any(sqlite3 *db, const char *table, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT 1 FROM main.__marmot__policy WHERE name = %Q AND policy <> %d LIMIT 1", table,
                     (int)MM_POLICY_LAST) != 0;
}

int mm_policy_request(sqlite3 *db, const char *table, const char *column, enum mm_policy p, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, 1 << 20);
    mm_buf_byte(&b, MM_CONTROL_POLICY);
    mm_buf_add(&b, table, strlen(table) + 1);
    mm_buf_add(&b, column, strlen(column) + 1);
    mm_buf_byte(&b, (uint8_t)p);
    if (mm_buf_check(&b, err, "a policy") == SQLITE_OK) {
        mm_outbox_put_control(db, b.data, b.len, err);
    }
    mm_buf_free(&b);
    return err->rc;
}

int mm_policy_copy(sqlite3 *db, const char *from, const char *to, struct mm_err *err)
{
    mm_db_exec(db, err, "DELETE FROM \"%w\".__marmot__policy", to);
    return mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__policy SELECT * FROM \"%w\".__marmot__policy", to, from);
}
