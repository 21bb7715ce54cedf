#include "store/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "base/db.h"

enum { BATCH_MAX = 1 << 24 };

enum { ST_NEXT, ST_GET, ST_PARTS, ST_UNDO_PUT, ST_UNDO_GET, ST_UNDO_DROP, ST_ECHO, ST_COUNT };

#define ROW "id, kind, incarnation, txid, at, names, data, last"

static const char *const texts[ST_COUNT] = {
    /* A batch that holds it may begin before it. */
    [ST_NEXT] = "SELECT " ROW " FROM main.__marmot__outbox WHERE part = 0 AND ifnull(last, id) > ?1 AND id >="
                " ifnull((SELECT max(id) FROM main.__marmot__outbox WHERE id <= ?1), 0) ORDER BY id LIMIT 1",
    [ST_GET] = "SELECT " ROW " FROM main.__marmot__outbox WHERE part = 0 AND ifnull(last, id) >= ?1 AND id ="
               " (SELECT max(id) FROM main.__marmot__outbox WHERE id <= ?1)",
    [ST_PARTS] = "SELECT data FROM main.__marmot__outbox WHERE id = ?1 AND part > 0 ORDER BY part",
    [ST_UNDO_PUT] = "INSERT OR REPLACE INTO main.__marmot__undo(id, shard, clean, data) VALUES (?1, ?2, ?3, ?4)",
    [ST_UNDO_GET] = "SELECT clean, data FROM main.__marmot__undo WHERE id = ?1 AND shard = ?2",
    [ST_UNDO_DROP] = "DELETE FROM main.__marmot__undo WHERE id <= ?1 AND shard = ?2",
    [ST_ECHO] = "INSERT OR REPLACE INTO main.__marmot__echo(at, id) VALUES (?1, ?2)",
};

struct mm_outbox {
    sqlite3 *db;
    sqlite3_stmt *st[ST_COUNT];
    struct mm_buf record;      /* of the inbox: the one read last */
    struct mm_inbox_end inbox; /* behind it */
    struct mm_buf batch;       /* the records of the batch read last */
    int64_t first, last;       /* its ids; 0 = none */
    int64_t at_id;             /* the record at `at` of it */
    size_t at;
};

struct mm_outbox *mm_outbox_open(sqlite3 *db, struct mm_err *err)
{
    struct mm_outbox *o = calloc(1, sizeof *o);
    if (o == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    o->db = db;
    mm_buf_init(&o->record, MM_INBOX_RECORD_MAX);
    mm_buf_init(&o->batch, BATCH_MAX);
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
    mm_buf_free(&o->record);
    mm_buf_free(&o->batch);
    free(o);
}

sqlite3 *mm_outbox_db(const struct mm_outbox *o)
{
    return o->db;
}

void mm_outbox_forget(struct mm_outbox *o)
{
    o->inbox = (struct mm_inbox_end){ 0 };
    o->first = o->last = 0;
}

static void add_column(struct mm_buf *b, sqlite3_stmt *st, int col)
{
    if (b != NULL) {
        const void *p = sqlite3_column_blob(st, col);
        mm_buf_add(b, p, (size_t)sqlite3_column_bytes(st, col));
    }
}

static void add_parts(struct mm_outbox *o, int64_t id, struct mm_buf *data, struct mm_err *err)
{
    sqlite3_stmt *parts = o->st[ST_PARTS];
    sqlite3_bind_int64(parts, 1, id);
    while (mm_db_step(parts, err)) {
        add_column(data, parts, 0);
    }
    sqlite3_reset(parts);
}

/* A record of a batch or of the inbox, as a row. */
static void give(const struct mm_inbox_record *r, int64_t id, struct mm_outbox_row *row, struct mm_buf *names,
                 struct mm_buf *data)
{
    *row = (struct mm_outbox_row){ .id = id, .kind = r->kind, .incarnation = r->incarnation, .at = r->at };
    memcpy(row->txid, r->txid, sizeof row->txid);
    if (names != NULL) {
        mm_buf_add(names, r->names, r->names_len);
    }
    if (data != NULL) {
        mm_buf_add(data, r->data, r->len);
    }
}

/* The first record of the batch at hand with an id of at least `from`. */
static int from_batch(struct mm_outbox *o, int64_t from, struct mm_outbox_row *row, struct mm_buf *names,
                      struct mm_buf *data, struct mm_err *err)
{
    if (o->at_id > from) {
        o->at_id = o->first;
        o->at = 0;
    }
    while (err->rc == SQLITE_OK && o->at_id <= o->last) {
        struct mm_inbox_record r;
        const uint8_t *p = o->batch.data + o->at;
        int64_t id = o->at_id;
        if (!mm_inbox_parse(&p, o->batch.data + o->batch.len, &r)) {
            mm_err_set(err, SQLITE_CORRUPT, "outbox row %lld is damaged at byte %zu, where transaction %lld begins",
                       (long long)o->first, o->at, (long long)id);
            break;
        }
        if (id >= from && r.kind != MM_INBOX_VOID) {
            give(&r, id, row, names, data); /* and stays there: it may be asked for again */
            return 1;
        }
        o->at = (size_t)(p - o->batch.data);
        o->at_id++;
    }
    return 0;
}

static void load_batch(struct mm_outbox *o, sqlite3_stmt *st, struct mm_err *err)
{
    mm_buf_clear(&o->batch);
    add_column(&o->batch, st, 6);
    o->first = o->at_id = sqlite3_column_int64(st, 0);
    o->last = sqlite3_column_int64(st, 7);
    o->at = 0;
    add_parts(o, o->first, &o->batch, err);
    if (mm_buf_check(&o->batch, err, "an outbox row") != SQLITE_OK) {
        o->first = o->last = 0;
    }
}

static void give_row(sqlite3_stmt *st, struct mm_outbox_row *row, struct mm_buf *names, struct mm_buf *data,
                     struct mm_err *err)
{
    *row = (struct mm_outbox_row){
        .id = sqlite3_column_int64(st, 0),
        .kind = sqlite3_column_int(st, 1),
        .incarnation = sqlite3_column_int64(st, 2),
        .at = sqlite3_column_int64(st, 4),
    };
    if (sqlite3_column_bytes(st, 3) == MM_TXID_SIZE) {
        memcpy(row->txid, sqlite3_column_blob(st, 3), MM_TXID_SIZE);
    } else {
        mm_err_set(err, SQLITE_CORRUPT, "outbox row %lld has no valid txid", (long long)row->id);
    }
    add_column(names, st, 5);
    add_column(data, st, 6);
}

/* The record of the inbox that was read. */
static int from_inbox(struct mm_outbox *o, struct mm_outbox_row *row, struct mm_buf *names, struct mm_buf *data,
                      struct mm_err *err)
{
    struct mm_inbox_record r;
    const uint8_t *p = o->record.data;
    if (err->rc == SQLITE_OK && !mm_inbox_parse(&p, p + o->record.len, &r)) {
        mm_err_set(err, SQLITE_CORRUPT, "transaction %lld in the inbox is damaged", (long long)o->inbox.next - 1);
    }
    if (err->rc == SQLITE_OK) {
        give(&r, o->inbox.next - 1, row, names, data);
    }
    return err->rc == SQLITE_OK;
}

/* The first transaction with an id of at least `from`, which `st` finds when it
** is in a row, given `key`. The inbox is looked at first: between the two looks
** it may become a row, never the other way round. */
static int find(struct mm_outbox *o, sqlite3_stmt *st, int64_t key, int64_t from, struct mm_outbox_row *row,
                struct mm_buf *names, struct mm_buf *data, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    if (o->first > 0 && from >= o->first && from <= o->last && from_batch(o, from, row, names, data, err)) {
        return 1;
    }
    int waits = mm_inbox_read(o->db, &o->inbox, from, &o->record, err);
    sqlite3_bind_int64(st, 1, key);
    int found = mm_db_step(st, err);
    bool batch = found && sqlite3_column_int(st, 1) == MM_OUTBOX_BATCH;
    if (batch) {
        load_batch(o, st, err);
    } else if (found) {
        give_row(st, row, names, data, err);
    }
    sqlite3_reset(st);
    if (batch) {
        int64_t last = o->last;
        if (from_batch(o, from, row, names, data, err)) {
            return 1;
        }
        bool more = err->rc == SQLITE_OK && st == o->st[ST_NEXT]; /* those from there on are void */
        return more ? find(o, st, last, last + 1, row, names, data, err) : 0;
    }
    if (!found) {
        return waits && from_inbox(o, row, names, data, err);
    }
    if (data != NULL) {
        add_parts(o, row->id, data, err);
    }
    return err->rc == SQLITE_OK;
}

static int checked(int found, const struct mm_buf *names, const struct mm_buf *data, struct mm_err *err)
{
    if (data != NULL) {
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
    return checked(find(o, o->st[ST_NEXT], after, after + 1, row, names, data, err), names, data, err);
}

int mm_outbox_get(struct mm_outbox *o, int64_t id, struct mm_outbox_row *row, struct mm_buf *names, struct mm_buf *data,
                  struct mm_err *err)
{
    struct mm_outbox_row r;
    int found = find(o, o->st[ST_GET], id, id, &r, names, data, err) && r.id == id;
    if (found) {
        *row = r;
    }
    return checked(found, names, data, err);
}

int64_t mm_outbox_last(struct mm_outbox *o, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    return mm_inbox_find_end(o->db, &end, err) == SQLITE_OK ? end.next - 1 : 0;
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

/* Deletes rows that end at `upto` or before, at most max_rows, and empties the
** inbox when all of it is as old. */
static int trim_upto(struct mm_outbox *o, int64_t upto, int max_rows, bool *more, struct mm_err *err)
{
    int64_t cut = mm_db_int(o->db, err, 0,
                            "SELECT max(id) FROM (SELECT id FROM main.__marmot__outbox WHERE id <= %lld"
                            " AND ifnull(last, id) <= %lld ORDER BY id LIMIT %d)",
                            (long long)upto, (long long)upto, max_rows);
    int64_t floor = upto;
    if (cut > 0) {
        mm_db_exec(o->db, err, "DELETE FROM main.__marmot__outbox WHERE id <= %lld", (long long)cut);
        *more = mm_db_int(o->db, err, 0,
                          "SELECT 1 FROM main.__marmot__outbox WHERE id <= %lld AND ifnull(last, id) <= %lld LIMIT 1",
                          (long long)upto, (long long)upto) != 0;
        floor = *more ? cut : upto;
    }
    struct mm_inbox_end end = { 0 };
    mm_inbox_find_end(o->db, &end, err);
    if (err->rc == SQLITE_OK && end.next > end.base && end.next - 1 <= upto) {
        mm_inbox_reset(o->db, end.next, &end, err);
    }
    mm_outbox_forget(o);
    return mm_db_exec(o->db, err, "UPDATE main.__marmot__head SET floor = max(floor, %lld) WHERE one = 1",
                      (long long)floor);
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
        int64_t over = mm_db_int(
            o->db, err, 0,
            "SELECT max(ends) FROM (SELECT ifnull(last, id) AS ends, sum(length(data) + ifnull(length(names), 0))"
            " OVER (ORDER BY id DESC, part DESC) AS total FROM main.__marmot__outbox"
            " WHERE id > %lld AND ifnull(last, id) <= %lld) WHERE total > %lld",
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

/* One batch with transactions of the old incarnation; its base id, 0 when
** there is none above `after`. */
static int64_t move_batch(struct mm_outbox *o, int64_t after, int64_t old, int64_t first, int64_t moved,
                          struct mm_err *err)
{
    int64_t base = mm_db_int(o->db, err, 0,
                             "SELECT min(id) FROM main.__marmot__outbox WHERE kind = %d AND id > %lld AND last >= %lld",
                             MM_OUTBOX_BATCH, (long long)after, (long long)first);
    struct mm_outbox_row row;
    if (base == 0 || (find(o, o->st[ST_GET], base, base, &row, NULL, NULL, err) == 0 && err->rc != SQLITE_OK)) {
        return 0;
    }
    sqlite3_stmt *st = NULL;
    if (mm_inbox_rewrite(o->batch.data, o->batch.len, base, old, first, INT64_MAX, moved) > 0) {
        st = mm_db_prepare(o->db, err, 0, "UPDATE main.__marmot__outbox SET data = ?1 WHERE id = %lld AND part = 0",
                           (long long)base);
        mm_db_exec(o->db, err, "DELETE FROM main.__marmot__outbox WHERE id = %lld AND part > 0", (long long)base);
    }
    if (st != NULL) {
        sqlite3_bind_blob64(st, 1, o->batch.data, o->batch.len, SQLITE_STATIC);
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    return base;
}

int mm_outbox_move(struct mm_outbox *o, int64_t old, int64_t first, int64_t moved, struct mm_err *err)
{
    mm_db_exec(o->db, err,
               "UPDATE main.__marmot__outbox SET incarnation = %lld WHERE incarnation = %lld AND id >= %lld",
               (long long)moved, (long long)old, (long long)first);
    for (int64_t base = 0; err->rc == SQLITE_OK && (base = move_batch(o, base, old, first, moved, err)) != 0;) {
    }
    mm_inbox_move(o->db, old, first, INT64_MAX, moved, err);
    mm_outbox_forget(o);
    return err->rc;
}

int mm_outbox_count(struct mm_outbox *o, int64_t *counted, int64_t *rows, int64_t *bytes, struct mm_err *err)
{
    int64_t from = *counted;
    struct mm_inbox_end end = { 0 };
    if (mm_inbox_find_end(o->db, &end, err) != SQLITE_OK) {
        return err->rc;
    }
    /* Of a batch that was counted in part while it was the inbox, the rest; what became one since that look is
    ** counted as the inbox. */
    sqlite3_stmt *st = mm_db_prepare(o->db, err, 0,
                                     "SELECT sum(ifnull(last, id) - max(id - 1, ?1)) FILTER (WHERE part = 0),"
                                     " sum((length(data) + ifnull(length(names), 0))"
                                     " * (ifnull(last, id) - max(id - 1, ?1)) / (ifnull(last, id) - id + 1))"
                                     " FROM main.__marmot__outbox WHERE ifnull(last, id) > ?1 AND id < ?2 AND id >="
                                     " ifnull((SELECT max(id) FROM main.__marmot__outbox WHERE id <= ?1), 0)");
    if (st != NULL) {
        sqlite3_bind_int64(st, 1, from);
        sqlite3_bind_int64(st, 2, end.base);
    }
    if (mm_db_step(st, err)) {
        *rows += sqlite3_column_int64(st, 0);
        *bytes += sqlite3_column_int64(st, 1);
    }
    mm_db_finalize(st);
    if (err->rc == SQLITE_OK && end.next - 1 > from) {
        int64_t n = end.next - (end.base > from ? end.base : from + 1);
        *rows += n;
        *bytes += end.next > end.base ? mm_inbox_used(&end) * n / (end.next - end.base) : 0;
        *counted = end.next - 1;
    }
    return err->rc;
}

int mm_outbox_size(sqlite3 *db, int64_t *rows, int64_t *bytes, struct mm_err *err)
{
    struct mm_inbox_end end = { 0 };
    mm_inbox_find_end(db, &end, err);
    int64_t floor = mm_db_int(db, err, 0, "SELECT floor FROM main.__marmot__head WHERE one = 1");
    *rows = mm_db_int(db, err, 0,
                      "SELECT sum(ifnull(last, id) - max(id - 1, %lld)) FROM main.__marmot__outbox WHERE part = 0"
                      " AND ifnull(last, id) > %lld AND id < %lld",
                      (long long)floor, (long long)floor, (long long)end.base);
    *bytes = mm_db_int(db, err, 0,
                       "SELECT sum(length(data) + ifnull(length(names), 0)) FROM main.__marmot__outbox WHERE id < %lld",
                       (long long)end.base);
    if (err->rc == SQLITE_OK) {
        int64_t before = end.base - 1 > floor ? end.base - 1 : floor;
        *rows += end.next - 1 > before ? end.next - 1 - before : 0;
        *bytes += mm_inbox_used(&end);
    }
    return err->rc;
}
