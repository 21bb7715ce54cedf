#include "store/verify.h"

#include "base/clock.h"
#include "base/db.h"
#include "store/outbox.h"
#include "store/position.h"

enum { FORGET_MS = 24 * 3600 * 1000 };

int mm_verify_request(sqlite3 *db, int shards, uint8_t id[MM_VERIFY_ID], struct mm_err *err)
{
    sqlite3_randomness(MM_VERIFY_ID, id);
    for (int shard = 1; shard <= shards && err->rc == SQLITE_OK; shard++) {
        struct mm_buf b;
        mm_buf_init(&b, 256);
        mm_buf_byte(&b, MM_CONTROL_VERIFY);
        mm_buf_byte(&b, (uint8_t)shard);
        mm_buf_add(&b, id, MM_VERIFY_ID);
        if (mm_buf_check(&b, err, "a verify request") == SQLITE_OK) {
            mm_outbox_put_control(db, b.data, b.len, err);
        }
        mm_buf_free(&b);
    }
    return err->rc;
}

int mm_verify_add(sqlite3 *db, const uint8_t id[MM_VERIFY_ID], int shard, int64_t node, const char *table, int64_t seq,
                  const uint8_t content[16], int64_t rows, struct mm_err *err)
{
    int64_t now = mm_clock_wall_ms();
    mm_db_exec(db, err, "DELETE FROM main.__marmot__verify WHERE at < %lld", (long long)(now - FORGET_MS));
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "INSERT OR REPLACE INTO main.__marmot__verify(id, shard, node, name, seq, content,"
                                     " rows, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    if (st != NULL) {
        sqlite3_bind_blob(st, 1, id, MM_VERIFY_ID, SQLITE_STATIC);
        sqlite3_bind_int(st, 2, shard);
        sqlite3_bind_int64(st, 3, node);
        sqlite3_bind_text(st, 4, table, -1, SQLITE_STATIC);
        sqlite3_bind_int64(st, 5, seq);
        sqlite3_bind_blob(st, 6, content, 16, SQLITE_STATIC);
        sqlite3_bind_int64(st, 7, rows);
        sqlite3_bind_int64(st, 8, now);
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    return err->rc;
}

/* All known nodes in all shards, with their answers where there are some: equal to
** ours, or to another's where we gave none. */
static sqlite3_stmt *scan(sqlite3 *db, const uint8_t *id, int shards, int64_t self, struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(
        db, err, 0,
        "WITH RECURSIVE shard(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM shard WHERE n < ?2),"
        " node(id) AS (%s UNION SELECT ?3)"
        " SELECT node.id, shard.n, v.name, v.seq, v.rows, lower(hex(v.content)),"
        "  v.content IS (SELECT o.content FROM main.__marmot__verify o WHERE o.id = ?1 AND o.shard = shard.n"
        "                AND o.name = v.name ORDER BY o.node <> ?3, o.node LIMIT 1)"
        " FROM node CROSS JOIN shard LEFT JOIN main.__marmot__verify v"
        "  ON v.id = ?1 AND v.shard = shard.n AND v.node = node.id"
        " ORDER BY v.name, shard.n, node.id",
        mm_position_sql_nodes);
    if (st != NULL) {
        sqlite3_bind_blob(st, 1, id, MM_VERIFY_ID, SQLITE_STATIC);
        sqlite3_bind_int(st, 2, shards);
        sqlite3_bind_int64(st, 3, self);
    }
    return st;
}

bool mm_verify_answered(sqlite3 *db, const uint8_t id[MM_VERIFY_ID], int shards, int64_t node, struct mm_err *err)
{
    int64_t n = 0;
    sqlite3_stmt *st = mm_db_prepare(
        db, err, 0, "SELECT count(DISTINCT shard) FROM main.__marmot__verify WHERE id = ?1 AND node = ?2");
    if (st != NULL) {
        sqlite3_bind_blob(st, 1, id, MM_VERIFY_ID, SQLITE_STATIC);
        sqlite3_bind_int64(st, 2, node);
        n = mm_db_step(st, err) ? sqlite3_column_int64(st, 0) : 0;
    }
    mm_db_finalize(st);
    return n >= shards;
}

bool mm_verify_complete(sqlite3 *db, const uint8_t id[MM_VERIFY_ID], int shards, int64_t self, struct mm_err *err)
{
    int64_t missing = 0;
    sqlite3_stmt *st = scan(db, id, shards, self, err);
    while (mm_db_step(st, err)) {
        missing += sqlite3_column_type(st, 2) == SQLITE_NULL;
    }
    mm_db_finalize(st);
    return err->rc == SQLITE_OK && missing == 0;
}

int mm_verify_json(sqlite3 *db, const uint8_t id[MM_VERIFY_ID], int shards, int64_t self, struct mm_buf *out,
                   struct mm_err *err)
{
    const char *sep = "[";
    sqlite3_stmt *st = scan(db, id, shards, self, err);
    while (mm_db_step(st, err)) {
        const char *table = (const char *)sqlite3_column_text(st, 2);
        long long node = sqlite3_column_int64(st, 0);
        int shard = sqlite3_column_int(st, 1);
        if (table != NULL && table[0] == '\0') {
            continue; /* it has answered: its tables follow */
        }
        mm_buf_printf(out, "%s{\"node\":%lld,\"shard\":%d", sep, node, shard);
        sep = ",";
        if (table == NULL) {
            mm_buf_str(out, ",\"silent\":true}");
            continue;
        }
        mm_buf_str(out, ",\"table\":");
        mm_buf_json(out, table);
        mm_buf_printf(out, ",\"position\":%lld,\"rows\":%lld,\"checksum\":\"%s\",\"equal\":%s}",
                      (long long)sqlite3_column_int64(st, 3), (long long)sqlite3_column_int64(st, 4),
                      (const char *)sqlite3_column_text(st, 5), sqlite3_column_int(st, 6) != 0 ? "true" : "false");
    }
    mm_db_finalize(st);
    mm_buf_str(out, sep[0] == '[' ? "[]" : "]");
    return mm_buf_check(out, err, "the answers");
}
