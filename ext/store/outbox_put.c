/* The writing side of the outbox. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/db.h"
#include "store/outbox.h"

const char mm_outbox_sql_head[] =
    "SELECT incarnation, watch_all, capturing, brake FROM main.__marmot__head WHERE one = 1 AND ?1 IS NULL";
const char mm_outbox_sql_schema[] = "SELECT 1 FROM main.__marmot__head WHERE ?1 IS NOT NULL";
const char mm_outbox_sql_put[] =
    "INSERT INTO main.__marmot__outbox(id, part, kind, incarnation, txid, at, names, data, last)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

enum { INBOX_BYTES_MAX = 1 << 24, CONTROL_PART = 1 << 20 };

static void bind_bytes(sqlite3_stmt *st, int param, const uint8_t *p, size_t n)
{
    if (n > 0) {
        sqlite3_bind_blob64(st, param, p, n, SQLITE_STATIC);
    } else {
        sqlite3_bind_null(st, param);
    }
}

/* Of a large transaction only a part at a time is in memory. The mapping of
** `data` begins with a page. */
static void leave(const uint8_t *data, size_t from, size_t to)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    from -= from % page;
    to -= to % page;
    if (to > from) {
        (void)madvise((void *)(uintptr_t)(data + from), to - from, MADV_DONTNEED);
    }
}

/* Part 0 carries the identity; `last` is 0 for a row of one transaction. */
static void put_row(sqlite3_stmt *put, uint64_t part_size, int64_t id, int64_t last, const struct mm_inbox_record *r,
                    struct mm_err *err)
{
    size_t at = 0;
    for (int part = 0; err->rc == SQLITE_OK && (part == 0 || at < r->len); part++) {
        size_t n = r->len - at < part_size ? r->len - at : (size_t)part_size;
        sqlite3_clear_bindings(put);
        sqlite3_bind_int64(put, 1, id);
        sqlite3_bind_int(put, 2, part);
        bind_bytes(put, 8, n > 0 ? r->data + at : NULL, n);
        if (part == 0) {
            sqlite3_bind_int(put, 3, r->kind);
            bind_bytes(put, 7, r->names, r->names_len);
            if (last == 0) {
                sqlite3_bind_int64(put, 4, r->incarnation);
                sqlite3_bind_blob(put, 5, r->txid, sizeof r->txid, SQLITE_STATIC);
                sqlite3_bind_int64(put, 6, r->at);
            } else {
                sqlite3_bind_int64(put, 9, last);
            }
        }
        mm_db_run(put, err);
        if (r->mapped) {
            leave(r->data, at, at + n);
        }
        at += n;
    }
    sqlite3_clear_bindings(put);
}

/* What the inbox holds becomes a row. True: it is to begin anew. */
static bool empty(sqlite3 *db, sqlite3_stmt *put, uint64_t part_size, struct mm_inbox_end *end, struct mm_err *err)
{
    mm_inbox_find_end(db, end, err);
    if (err->rc != SQLITE_OK || end->next == end->base) {
        return false;
    }
    struct mm_buf bytes;
    mm_buf_init(&bytes, INBOX_BYTES_MAX);
    if (mm_inbox_bytes(db, end, &bytes, err) == SQLITE_OK) {
        struct mm_inbox_record batch = { .kind = MM_OUTBOX_BATCH, .data = bytes.data, .len = bytes.len };
        put_row(put, part_size, end->base, end->next - 1, &batch, err);
    }
    mm_buf_free(&bytes);
    return err->rc == SQLITE_OK;
}

/* A row between the inbox's transactions: all that came before it leaves. The
** inbox is written once, after the row: what was written before a large one has
** gone to the WAL since, and a page that is written there twice makes SQLite
** read and sum all frames after it again. */
static void put_own_row(sqlite3 *db, sqlite3_stmt *put, uint64_t part_size, struct mm_inbox_end *end,
                        const struct mm_inbox_record *r, struct mm_err *err)
{
    empty(db, put, part_size, end, err);
    if (err->rc == SQLITE_OK) {
        put_row(put, part_size, end->next, 0, r, err);
        mm_inbox_reset(db, end->next + 1, end, err);
    }
}

int mm_outbox_put(sqlite3 *db, sqlite3_stmt *put, uint64_t part_size, struct mm_inbox_end *end, struct mm_inbox_end *at,
                  const struct mm_inbox_record *r, struct mm_err *err)
{
    if (mm_inbox_size(r) <= MM_INBOX_RECORD_MAX) {
        if (empty(db, put, part_size, end, err)) {
            mm_inbox_reset(db, end->next, end, err);
        }
        if (mm_inbox_append(db, end, at, r, err) || err->rc != SQLITE_OK) {
            return err->rc;
        }
    }
    put_own_row(db, put, part_size, end, r, err);
    *at = (struct mm_inbox_end){ .next = end->next - 1 };
    if (err->rc != SQLITE_OK) {
        end->at = 0;
    }
    return err->rc;
}

/* Its record went into a batch with the others; or a ROLLBACK TO has taken it
** away, and then there is nothing to do. */
static int void_in_batch(sqlite3 *db, int64_t id, struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT id, data FROM main.__marmot__outbox WHERE kind = %d AND part = 0"
                                     " AND id <= %lld AND last >= %lld",
                                     MM_OUTBOX_BATCH, (long long)id, (long long)id);
    struct mm_buf bytes;
    int64_t base = 0;
    mm_buf_init(&bytes, INBOX_BYTES_MAX);
    if (mm_db_step(st, err)) {
        base = sqlite3_column_int64(st, 0);
        mm_buf_add(&bytes, sqlite3_column_blob(st, 1), (size_t)sqlite3_column_bytes(st, 1));
        mm_buf_check(&bytes, err, "an outbox row");
    }
    mm_db_finalize(st);
    st = NULL;
    if (err->rc == SQLITE_OK && mm_inbox_rewrite(bytes.data, bytes.len, base, 0, id, id, 0) == 1) {
        st = mm_db_prepare(db, err, 0, "UPDATE main.__marmot__outbox SET data = ?1 WHERE id = %lld AND part = 0",
                           (long long)base);
    }
    if (st != NULL) {
        bind_bytes(st, 1, bytes.data, bytes.len);
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    mm_buf_free(&bytes);
    return err->rc;
}

int mm_outbox_take_back(sqlite3 *db, const struct mm_inbox_end *at, struct mm_err *err)
{
    if (at->at == 0) {
        return mm_db_exec(db, err, "DELETE FROM main.__marmot__outbox WHERE id = %lld", (long long)at->next);
    }
    if (!mm_inbox_void(db, at, err) && err->rc == SQLITE_OK) {
        void_in_batch(db, at->next, err);
    }
    return err->rc;
}

/* txid NULL: a random one. */
static int put_alone(sqlite3 *db, struct mm_inbox_record *r, const uint8_t *txid, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    r->incarnation = mm_head_incarnation(db, err);
    r->at = mm_clock_wall_ms();
    if (err->rc == SQLITE_OK && r->incarnation == 0) {
        mm_err_set(err, SQLITE_CORRUPT, "the bookkeeping has no head row: call marmot_init");
    }
    sqlite3_randomness(sizeof r->txid, r->txid);
    if (txid != NULL) {
        memcpy(r->txid, txid, sizeof r->txid);
    }
    sqlite3_stmt *put = mm_db_prepare(db, err, 0, "%s", mm_outbox_sql_put);
    if (put != NULL) {
        put_own_row(db, put, CONTROL_PART, &end, r, err);
    }
    mm_db_finalize(put);
    return err->rc;
}

int mm_outbox_put_control(sqlite3 *db, const void *data, size_t len, struct mm_err *err)
{
    struct mm_inbox_record r = { .kind = MM_OUTBOX_CONTROL, .data = data, .len = len };
    return put_alone(db, &r, NULL, err);
}

int mm_outbox_put_txn(sqlite3 *db, const void *names, size_t names_len, const void *data, size_t len,
                      const uint8_t *txid, struct mm_err *err)
{
    struct mm_inbox_record r = {
        .kind = MM_OUTBOX_TXN, .names = names, .names_len = names_len, .data = data, .len = len
    };
    return put_alone(db, &r, txid, err);
}

int mm_outbox_init(sqlite3 *db, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    int64_t last = mm_db_int(db, err, 0,
                             "SELECT max(ifnull((SELECT max(floor) FROM main.__marmot__head), 0),"
                             " ifnull((SELECT max(ifnull(last, id)) FROM main.__marmot__outbox), 0))");
    if (err->rc == SQLITE_OK && !mm_inbox_ready(db, err)) {
        mm_inbox_reset(db, last + 1, &end, err);
    }
    return err->rc;
}
