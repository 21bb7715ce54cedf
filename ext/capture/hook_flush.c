#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "capture/hook_int.h"
#include "capture/trigger.h"
#include "store/change.h"
#include "store/outbox.h"
#include "store/stray.h"
#include "store/watch.h"

enum {
    PART_MAX = 64 << 10,      /* SQLite reads whole rows to find a row's place: they had better be in its cache */
    NET_LOOK_MAX = 256 << 10, /* beyond it, a look whether all cancels out costs more than it saves */
    NET_ARENA_MAX = 64 << 20,
    REGROUP_AT = 16 << 10, /* bytes of names: all of them stand in part 0 */
};

/* Not when somebody else, or this connection in another way, may have written to the inbox. */
static void judge_end(struct mm_hook *h)
{
    h->end.sure = h->end.at != 0 && mm_known(h);
}

/* A COMMIT that SQLite refused left its record in the open transaction. */
static void take_back(struct mm_hook *h, struct mm_err *err)
{
    if (h->written && mm_outbox_take_back(h->db, &h->place, err) == SQLITE_OK) {
        h->written = false;
        h->end = (struct mm_inbox_end){ 0 };
    }
}

static bool decode_row(const uint8_t **p, const uint8_t *end, struct mm_value *row, int ncol)
{
    for (int k = 0; k < ncol; k++) {
        if (!mm_value_decode(p, end, &row[k])) {
            return false;
        }
    }
    return true;
}

/* Blob I/O showed the row without its new bytes: now they are there. A row
** that has gone or moved since has later records of its own. */
static void read_blob(struct mm_hook *h, const struct mm_blob_mark *m, struct mm_err *err)
{
    const struct mm_table *t = m->entry->t;
    struct mm_arena a;
    mm_arena_init(&a, (size_t)1 << 36);
    struct mm_value *old = mm_arena_array(&a, (size_t)t->ncol, sizeof *old);
    struct mm_value *new = mm_arena_array(&a, (size_t)t->ncol, sizeof *new);
    const uint8_t *bytes = mm_spill_bytes(&h->data, err);
    if (old == NULL || new == NULL) {
        mm_err_nomem(err);
    }
    if (err->rc == SQLITE_OK && bytes != NULL) {
        const uint8_t *p = bytes + m->at + 2;
        if (!decode_row(&p, bytes + mm_spill_len(&h->data), old, t->ncol)) {
            mm_err_set(err, SQLITE_CORRUPT, "a captured record cannot be read back at byte %llu",
                       (unsigned long long)m->at);
        }
    }
    if (err->rc == SQLITE_OK && bytes != NULL && !mm_row_identity(t, old)) {
        mm_err_set(
            err, SQLITE_MISMATCH,
            "incremental blob I/O on a row of table %.80s that has no key cannot be captured: use UPDATE, or give "
            "the row a key",
            t->name);
    }
    struct mm_buf record;
    mm_buf_init(&record, (size_t)1 << 36);
    if (err->rc == SQLITE_OK && mm_row_read(h->db, t, old, NULL, new, &a, err)) {
        mm_change_put_head(&record, MM_OP_UPDATE);
        for (int k = 0; k < t->ncol; k++) {
            mm_value_encode(&record, &old[k]);
        }
        for (int k = 0; k < t->ncol; k++) {
            mm_value_encode(&record, &new[k]);
        }
        mm_row_group(h, m->entry); /* `old` may borrow from the tail: only now may it grow */
        mm_buf_add(&h->data.tail, record.data, record.len);
        mm_buf_check(&record, err, "a row with a blob");
        mm_buf_check(&h->data.tail, err, "the captured transaction");
        mm_spill_settle(&h->data);
        h->now.data = mm_spill_len(&h->data);
        h->now.names = mm_spill_len(&h->names);
    }
    mm_buf_free(&record);
    mm_arena_free(&a);
}

static enum mm_coll coll_of(void *arg, const char *table, const char *column, struct mm_err *err)
{
    const struct mm_hook *h = arg;
    (void)err; /* all of it is in memory */
    for (size_t k = 0; k < h->nentry; k++) {
        const struct mm_entry *e = h->entry[k];
        for (int c = 0; e->t != NULL && strcmp(e->name, table) == 0 && c < e->t->ncol; c++) {
            if (strcmp(e->t->col[c].name, column) == 0) {
                return (enum mm_coll)e->t->col[c].coll;
            }
        }
    }
    return MM_COLL_BINARY;
}

/* True when every row ended as it began. */
static bool nothing_left(struct mm_hook *h, const uint8_t *data, uint64_t len, const uint8_t *names, uint64_t names_len)
{
    if (h->now.inserts != h->now.deletes || h->now.inserts == 0 || len > NET_LOOK_MAX) {
        return false;
    }
    struct mm_err err;
    struct mm_arena a;
    struct mm_txn txn;
    mm_err_init(&err);
    mm_arena_init(&a, NET_ARENA_MAX);
    memset(&txn, 0, sizeof txn);
    txn.arena = &a;
    bool nothing = mm_change_read(&txn, data, (size_t)len, names, (size_t)names_len, coll_of, h, &err) == SQLITE_OK &&
                   txn.ntab == 0;
    mm_arena_free(&a);
    return nothing;
}

/* Half of the length limit leaves room for the rest of the row. */
static uint64_t part_size(const struct mm_hook *h)
{
    uint64_t limit = (uint64_t)sqlite3_limit(h->db, SQLITE_LIMIT_LENGTH, -1) / 2;
    uint64_t size = limit < PART_MAX ? limit : PART_MAX;
    return size > 0 ? size : 1;
}

static void put_record(struct mm_hook *h, const struct mm_spill *spill, const uint8_t *data, const uint8_t *names,
                       uint64_t names_len, struct mm_err *err)
{
    struct mm_inbox_record r = {
        .kind = MM_OUTBOX_TXN,
        .incarnation = h->incarnation,
        .at = mm_clock_wall_ms(),
        .names = names,
        .names_len = names_len,
        .data = data,
        .len = mm_spill_len(spill),
        .mapped = data == spill->map,
    };
    sqlite3_randomness(sizeof r.txid, r.txid);
    h->written = true;
    judge_end(h);
    if (mm_inbox_append(h->db, &h->end, &h->place, &r, err) || err->rc != SQLITE_OK) {
        return;
    }
    sqlite3_stmt *put = mm_kept_get(h, MM_KEPT_PUT, err);
    if (put != NULL) {
        mm_outbox_put(h->db, put, part_size(h), &h->end, &h->place, &r, err);
    }
    mm_kept_done(h, MM_KEPT_PUT);
}

/* Tables that are watched because all are: their watch message goes first. */
static void add_watches(struct mm_hook *h, struct mm_err *err)
{
    bool any = false;
    for (size_t k = 0; k < h->nentry; k++) {
        const struct mm_entry *e = h->entry[k];
        if (e->add && e->touched && !e->dead) {
            mm_watch_add(h->db, e->name, err);
            any = true;
        }
    }
    if (any) {
        mm_hook_head(h, err);
    }
}

static void put_grouped(struct mm_hook *h, struct mm_spill *data, struct mm_spill *names, struct mm_err *err)
{
    const uint8_t *d = mm_spill_bytes(data, err);
    const uint8_t *n = mm_spill_bytes(names, err);
    if (err->rc != SQLITE_OK || d == NULL || n == NULL || mm_spill_len(data) == 0 ||
        nothing_left(h, d, mm_spill_len(data), n, mm_spill_len(names))) {
        return;
    }
    add_watches(h, err);
    put_record(h, data, d, n, mm_spill_len(names), err);
}

static void put(struct mm_hook *h, struct mm_spill *data, struct mm_spill *names, struct mm_err *err)
{
    if (mm_spill_len(names) < REGROUP_AT) {
        put_grouped(h, data, names, err);
        return;
    }
    struct mm_spill by_table;
    struct mm_spill by_table_names;
    mm_spill_init(&by_table);
    mm_spill_init(&by_table_names);
    const uint8_t *d = mm_spill_bytes(data, err);
    const uint8_t *n = mm_spill_bytes(names, err);
    if (err->rc == SQLITE_OK &&
        mm_hook_regroup(d, mm_spill_len(data), n, mm_spill_len(names), &by_table, &by_table_names, err) == SQLITE_OK) {
        put_grouped(h, &by_table, &by_table_names, err);
    }
    mm_spill_free(&by_table);
    mm_spill_free(&by_table_names);
}

static void append(struct mm_spill *to, struct mm_spill *from, struct mm_err *err)
{
    const uint8_t *p = mm_spill_len(from) > 0 ? mm_spill_bytes(from, err) : NULL;
    if (p != NULL) {
        mm_buf_add(&to->tail, p, (size_t)mm_spill_len(from));
        mm_buf_check(&to->tail, err, "the captured transaction");
        mm_spill_settle(to);
    }
}

/* What triggers noted goes first: before this transaction, or in it. It is
** kept for a COMMIT that is tried again. True when there is some. */
static bool take_noted(struct mm_hook *h, struct mm_err *err)
{
    sqlite3_stmt *st = h->closing || mm_known(h) ? NULL : mm_kept_get(h, MM_KEPT_NOTED, err);
    bool any = st != NULL && mm_db_step(st, err) && sqlite3_column_int(st, 0) != 0;
    mm_kept_done(h, MM_KEPT_NOTED);
    if (any && err->rc == SQLITE_OK) {
        mm_trigger_take(h->db, &h->noted, &h->noted_names, err);
    }
    return mm_spill_len(&h->noted) > 0;
}

/* Of a transaction that changed no row that is captured. */
static int stamp(struct mm_hook *h, struct mm_err *err)
{
    judge_end(h);
    return mm_inbox_stamp_next(h->db, &h->end, err);
}

/* What the head row says now, and whether the schema is another than at the first row. */
static int look_again(struct mm_hook *h, struct mm_err *err)
{
    if (mm_known(h)) {
        mm_hook_schema(h, err);
        h->trusted = !h->schema_moved;
    }
    return mm_known(h) ? err->rc : mm_hook_head(h, err);
}

int mm_hook_flush(struct mm_hook *h, struct mm_err *err)
{
    mm_doubt_settle(h, err);
    take_back(h, err);
    if (h->stamping && h->capturing && !h->vouched) {
        h->vouched = mm_stray_begin(h->db, true, true, err) == SQLITE_OK;
    }
    if (h->now.data == 0 && h->stamping && h->capturing) {
        h->flushed = mm_known(h);
        return stamp(h, err);
    }
    if (h->now.data == 0 || look_again(h, err) != SQLITE_OK || !h->capturing) {
        h->flushed = h->now.data == 0 && mm_known(h);
        return err->rc;
    }
    h->size = h->now.data;
    if (h->brake == MM_BRAKE_REFUSE && !h->closing) {
        return mm_err_set(
            err, SQLITE_FULL,
            "the outbox has reached outbox_max_bytes, and outbox_full is 'refuse': start or reach the NATS "
            "server, raise outbox_max_bytes, or set outbox_full to 'slow' or 'warn'");
    }
    struct mm_spill data;
    struct mm_spill names;
    mm_spill_init(&data);
    mm_spill_init(&names);
    bool noted = take_noted(h, err);
    append(&data, &h->noted, err);
    append(&names, &h->noted_names, err);
    /* A pragma's table that a closing connection connects is never let go. */
    if (h->schema_moved && !h->closing && mm_hook_settle(h, &data, &names, err)) {
        put(h, &data, &names, err);
    } else {
        /* What is added here goes again: a COMMIT may be tried twice. */
        const struct mm_mark before = h->now;
        for (size_t k = 0; k < before.nblob && err->rc == SQLITE_OK; k++) {
            read_blob(h, &h->blob[k], err);
        }
        if (noted) {
            append(&data, &h->data, err);
            append(&names, &h->names, err);
        }
        put(h, noted ? &data : &h->data, noted ? &names : &h->names, err);
        mm_hook_cut(h, &before);
    }
    judge_end(h);
    if (!h->written && !h->end.sure) { /* what was changed came to nothing */
        h->end = (struct mm_inbox_end){ 0 };
    }
    if (h->stamping && !h->written) {
        stamp(h, err);
    }
    h->flushed = err->rc == SQLITE_OK && !h->closing;
    mm_spill_free(&data);
    mm_spill_free(&names);
    return err->rc;
}
