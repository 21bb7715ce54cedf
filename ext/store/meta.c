#include "store/meta.h"

#include "base/db.h"
#include "sql_texts.h"
#include "store/outbox.h"

/* In the order of their numbers; what is released never changes. */
static const char *const migrations[] = {
    mm_sql_0001_bookkeeping, mm_sql_0002_inbox, mm_sql_0003_log,   mm_sql_0004_modes,
    mm_sql_0005_full,        mm_sql_0006_room,  mm_sql_0007_stamp, mm_sql_0008_marks,
};

enum { NEWEST = sizeof migrations / sizeof migrations[0] };

bool mm_meta_exists(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT 1 FROM main.sqlite_schema WHERE name = '__marmot__meta'") != 0;
}

int mm_meta_lock(sqlite3 *db, struct mm_err *err)
{
    sqlite3_stmt *st = NULL;
    if (err->rc == SQLITE_OK && sqlite3_txn_state(db, "main") == SQLITE_TXN_NONE &&
        sqlite3_prepare_v2(db, "DELETE FROM main.__marmot__meta WHERE 0", -1, &st, NULL) == SQLITE_OK) {
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    return err->rc;
}

int mm_meta_migrate(sqlite3 *db, struct mm_err *err)
{
    int64_t version = 0;
    if (mm_meta_exists(db, err)) {
        version = mm_meta_int(db, MM_META_VERSION, 0, err);
    }
    if (err->rc == SQLITE_OK && version > NEWEST) {
        return mm_err_set(err, SQLITE_MISMATCH,
                          "the bookkeeping in this database is of version %lld, this libmarmot knows %d: "
                          "use the newer libmarmot that wrote it",
                          (long long)version, (int)NEWEST);
    }
    for (int64_t k = version; k < NEWEST; k++) {
        mm_db_exec(db, err, "%s", migrations[k]);
        mm_meta_set_int(db, MM_META_VERSION, k + 1, err);
    }
    return err->rc == SQLITE_OK ? mm_outbox_init(db, err) : err->rc;
}

/* Views take their triggers with them, as tables do. */
int mm_meta_drop(sqlite3 *db, struct mm_err *err)
{
    for (;;) {
        char *drop = mm_db_text(db, err,
                                "SELECT printf('DROP %%s main.\"%%w\"', type, name) FROM main.sqlite_schema"
                                " WHERE type IN ('table', 'trigger', 'view')"
                                " AND name LIKE '\\_\\_marmot\\_\\_%%' ESCAPE '\\' ORDER BY type DESC, name LIMIT 1");
        if (drop == NULL || err->rc != SQLITE_OK) {
            sqlite3_free(drop);
            return err->rc;
        }
        mm_db_exec(db, err, "%s", drop);
        sqlite3_free(drop);
    }
}

int64_t mm_meta_int(sqlite3 *db, const char *key, int64_t none, struct mm_err *err)
{
    return mm_db_int(db, err, none, "SELECT value FROM main.__marmot__meta WHERE key = %Q", key);
}

char *mm_meta_text(sqlite3 *db, const char *key, struct mm_err *err)
{
    return mm_db_text(db, err, "SELECT value FROM main.__marmot__meta WHERE key = %Q", key);
}

int mm_meta_set_int(sqlite3 *db, const char *key, int64_t v, struct mm_err *err)
{
    return mm_db_exec(db, err, "INSERT OR REPLACE INTO main.__marmot__meta(key, value) VALUES (%Q, %lld)", key,
                      (long long)v);
}

int mm_meta_set_text(sqlite3 *db, const char *key, const char *v, struct mm_err *err)
{
    if (v == NULL) {
        return mm_db_exec(db, err, "DELETE FROM main.__marmot__meta WHERE key = %Q", key);
    }
    return mm_db_exec(db, err, "INSERT OR REPLACE INTO main.__marmot__meta(key, value) VALUES (%Q, %Q)", key, v);
}
