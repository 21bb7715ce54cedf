/* The outbox: ids that never come back, parts, echoes, trimming, before-images.
** marmot-test: parallel */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "test/lib/sqlite_api.h"

static int bad;
static sqlite3 *db;
static struct mm_outbox *outbox;

static void check(const char *name, bool good)
{
    printf("%s %s\n", good ? "ok" : "not ok", name);
    bad += !good;
}

/* What capture does: the next id, then the row in `parts` pieces of `size` bytes. */
static int64_t put(int parts, int size)
{
    int64_t id = 0;
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(db, mm_outbox_sql_next, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
        id = sqlite3_column_int64(st, 0);
    }
    sqlite3_finalize(st);
    for (int k = 0; k < parts; k++) {
        if (sqlite3_prepare_v2(db, mm_outbox_sql_put, -1, &st, NULL) != SQLITE_OK) {
            return 0;
        }
        char *data = malloc((size_t)size + 1);
        if (data == NULL) {
            return 0;
        }
        memset(data, 'a' + k, (size_t)size);
        sqlite3_bind_int64(st, 1, id);
        sqlite3_bind_int(st, 2, k);
        if (k == 0) {
            sqlite3_bind_int(st, 3, MM_OUTBOX_TXN);
            sqlite3_bind_int64(st, 4, 77);
            sqlite3_bind_blob(st, 5, "0123456789abcdef", 16, SQLITE_STATIC);
            sqlite3_bind_int64(st, 6, 1234);
            sqlite3_bind_blob(st, 7, "names", 5, SQLITE_STATIC);
        }
        sqlite3_bind_blob(st, 8, data, size, SQLITE_TRANSIENT);
        id = sqlite3_step(st) == SQLITE_DONE ? id : 0;
        sqlite3_finalize(st);
        free(data);
    }
    return id;
}

static int64_t count(const char *sql)
{
    struct mm_err err;
    mm_err_init(&err);
    int64_t n = mm_db_int(db, &err, -1, "%s", sql);
    return err.rc == SQLITE_OK ? n : -2;
}

static void rows(void)
{
    struct mm_err err;
    struct mm_outbox_row row;
    struct mm_buf names;
    struct mm_buf data;
    mm_err_init(&err);
    mm_buf_init(&names, 1 << 20);
    mm_buf_init(&data, 1 << 20);
    check("an empty outbox has no next row", !mm_outbox_next(outbox, 0, &row, NULL, NULL, &err) && err.rc == SQLITE_OK);
    check("and no last id", mm_outbox_last(outbox, &err) == 0);
    check("ids begin with 1", put(1, 3) == 1 && put(3, 4) == 2);
    int found = mm_outbox_next(outbox, 1, &row, &names, &data, &err);
    check("a row in three parts is read whole", found && row.id == 2 && row.incarnation == 77 && row.at == 1234 &&
                                                    row.kind == MM_OUTBOX_TXN &&
                                                    memcmp(row.txid, "0123456789abcdef", 16) == 0 && names.len == 5 &&
                                                    data.len == 12 && memcmp(data.data, "aaaabbbbcccc", 12) == 0);
    check("a missing row is no error", !mm_outbox_get(outbox, 3, &row, NULL, NULL, &err) && err.rc == SQLITE_OK);
    check("control rows get ids in the same row", mm_outbox_put_control(db, "Wt", 2, &err) == SQLITE_OK &&
                                                      mm_outbox_get(outbox, 3, &row, NULL, NULL, &err) == 1 &&
                                                      row.kind == MM_OUTBOX_CONTROL && row.incarnation == 77);
    mm_buf_free(&names);
    mm_buf_free(&data);
    mm_buf_init(&data, 5);
    check("a row beyond the buffer's maximum is an error, not a part of it",
          !mm_outbox_get(outbox, 2, &row, NULL, &data, &err) && (err.rc & 0xff) == SQLITE_TOOBIG);
    mm_buf_free(&data);
    mm_err_init(&err);
    mm_db_exec(db, &err, "UPDATE __marmot__outbox SET txid = x'00' WHERE id = 1 AND part = 0");
    check("a damaged txid is SQLITE_CORRUPT, and says which row", !mm_outbox_get(outbox, 1, &row, NULL, NULL, &err) &&
                                                                      err.rc == SQLITE_CORRUPT &&
                                                                      strstr(err.msg, "1") != NULL);
}

static bool trim(int64_t now, int64_t keep_ms, int64_t keep_bytes, int max_rows, bool *more)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_outbox_trim(outbox, now, keep_ms, keep_bytes, max_rows, more, &err) == SQLITE_OK;
}

static void trimming(void)
{
    struct mm_err err;
    bool more = false;
    mm_err_init(&err);
    check("nothing echoed, nothing trimmed",
          trim(1000000, 0, 0, 100, &more) && !more && count("SELECT count(DISTINCT id) FROM __marmot__outbox") == 3);
    mm_outbox_echoed(outbox, 2, 1000, &err);
    check("the watermark is what was echoed", mm_outbox_echoed_upto(outbox, &err) == 2);
    check("not due before the time", !mm_outbox_trim_due(outbox, 1500, 1000, &err));
    check("kept until the time is over",
          trim(1500, 1000, -1, 100, &more) && count("SELECT min(id) FROM __marmot__outbox") == 1);
    check("due at the time", mm_outbox_trim_due(outbox, 2000, 1000, &err));
    check("then the echoed rows go, with all their parts, and no others",
          trim(2000, 1000, -1, 100, &more) && !more && count("SELECT min(id) FROM __marmot__outbox") == 3);
    check("the watermark stays", mm_outbox_echoed_upto(outbox, &err) == 2);
    check("a trimmed id does not come back", mm_outbox_last(outbox, &err) == 3 && put(1, 10) == 4);
    mm_outbox_echoed(outbox, 4, 3000, &err);
    check("all trimmed", trim(9000, 1000, -1, 100, &more) && count("SELECT count(*) FROM __marmot__outbox") == 0);
    check("an empty outbox goes on counting", mm_outbox_last(outbox, &err) == 4 && put(1, 10) == 5);
    mm_db_exec(db, &err, "DELETE FROM __marmot__outbox WHERE id = 5");
    check("only an id whose row was taken back is given again", put(2, 100) == 5);
    for (int k = 6; k <= 15; k++) {
        put(1, 1000);
    }
    mm_outbox_echoed(outbox, 14, 20000, &err);
    check("beyond keep_bytes the oldest echoed go before their time",
          trim(20001, 1000000, 3500, 100, &more) && count("SELECT min(id) FROM __marmot__outbox") == 12);
    check("what is not echoed never goes", trim(20001, 1000000, 0, 100, &more) &&
                                               count("SELECT min(id) FROM __marmot__outbox") == 15 &&
                                               mm_outbox_echoed_upto(outbox, &err) == 14);
    for (int k = 16; k <= 20; k++) {
        put(2, 10);
    }
    mm_outbox_echoed(outbox, 20, 30000, &err);
    int rounds = 0;
    do {
        rounds++;
    } while (trim(90000, 1000, -1, 3, &more) && more && rounds < 20);
    check("in small bites, and `more` says that it is not the end",
          rounds > 2 && rounds < 20 && count("SELECT count(*) FROM __marmot__outbox") == 0);
    check("and the counting goes on", mm_outbox_echoed_upto(outbox, &err) == 20 && put(1, 1) == 21);
    check("no error on the way", err.rc == SQLITE_OK);
}

static void images(void)
{
    struct mm_err err;
    struct mm_buf b;
    bool clean = true;
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 20);
    check("no before-images at first", !mm_outbox_undo_get(outbox, 7, 1, &clean, &b, &err));
    mm_outbox_undo_put(outbox, 7, 1, false, "abc", 3, &err);
    mm_outbox_undo_put(outbox, 7, 2, true, "", 0, &err);
    mm_outbox_undo_put(outbox, 8, 1, true, "x", 1, &err);
    check("they come back by id and shard",
          mm_outbox_undo_get(outbox, 7, 1, &clean, &b, &err) && !clean && b.len == 3 && memcmp(b.data, "abc", 3) == 0);
    mm_buf_clear(&b);
    check("empty ones too", mm_outbox_undo_get(outbox, 7, 2, &clean, &b, &err) && clean && b.len == 0);
    mm_outbox_undo_put(outbox, 7, 1, true, "newer", 5, &err);
    check("a newer redo replaces them", mm_outbox_undo_get(outbox, 7, 1, &clean, &b, &err) && clean && b.len == 5);
    mm_outbox_undo_drop(outbox, 7, 1, &err);
    check("dropped up to the echo, in that shard alone", !mm_outbox_undo_get(outbox, 7, 1, &clean, NULL, &err) &&
                                                             mm_outbox_undo_get(outbox, 7, 2, &clean, NULL, &err) &&
                                                             mm_outbox_undo_get(outbox, 8, 1, &clean, NULL, &err));
    check("no error", err.rc == SQLITE_OK);
    mm_buf_free(&b);
}

static void head(void)
{
    struct mm_err err;
    struct mm_outbox_row row;
    int64_t n = 0;
    int64_t bytes = 0;
    mm_err_init(&err);
    int64_t a = put(1, 5);
    int64_t b = put(1, 5);
    check("rows move to another incarnation from an id on",
          mm_outbox_move(outbox, 77, b, 99, &err) == SQLITE_OK && mm_outbox_get(outbox, a, &row, NULL, NULL, &err) &&
              row.incarnation == 77 && mm_outbox_get(outbox, b, &row, NULL, NULL, &err) && row.incarnation == 99);
    mm_head_set_incarnation(db, 5, &err);
    check("a new incarnation leaves the counting alone",
          mm_head_incarnation(db, &err) == 5 && put(1, 1) == b + 1 &&
              mm_outbox_size(db, &n, &bytes, &err) == SQLITE_OK &&
              n == count("SELECT count(DISTINCT id) FROM __marmot__outbox") && bytes > 0);
    check("no error", err.rc == SQLITE_OK);
}

int main(void)
{
    struct mm_err err;
    test_sqlite_start();
    mm_err_init(&err);
    if (sqlite3_open(":memory:", &db) != SQLITE_OK) {
        return 2;
    }
    mm_meta_migrate(db, &err);
    mm_head_set_incarnation(db, 77, &err);
    outbox = mm_outbox_open(db, &err);
    if (err.rc != SQLITE_OK) {
        printf("not ok bookkeeping: %s\n", err.msg);
        return 1;
    }
    rows();
    mm_db_exec(db, &err, "UPDATE __marmot__outbox SET txid = zeroblob(16) WHERE id = 1 AND part = 0");
    trimming();
    images();
    head();
    mm_outbox_close(outbox);
    check("all statements are closed", sqlite3_close(db) == SQLITE_OK);
    return bad != 0;
}
