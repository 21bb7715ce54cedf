#include "store/position.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"

enum { IGNORED_KEPT = 10000, IGNORED_STEP = 64, CONFLICT_STEP = 16 };

const char mm_position_sql_nodes[] = "SELECT DISTINCT node FROM main.__marmot__origin";

static bool copy_blob(void *to, size_t n, sqlite3_stmt *st, int col)
{
    if ((size_t)sqlite3_column_bytes(st, col) != n) {
        return false;
    }
    memcpy(to, sqlite3_column_blob(st, col), n);
    return true;
}

int mm_position_get(sqlite3 *db, int shard, struct mm_position *p, struct mm_err *err)
{
    memset(p, 0, sizeof *p);
    p->shard = shard;
    sqlite3_stmt *st = mm_db_prepare(
        db, err, 0, "SELECT seq, digest, created, epoch, stamp FROM main.__marmot__position WHERE shard = %d", shard);
    int found = mm_db_step(st, err);
    if (found) {
        const char *created = (const char *)sqlite3_column_text(st, 2);
        p->seq = sqlite3_column_int64(st, 0);
        p->epoch = sqlite3_column_int64(st, 3);
        p->stamp = sqlite3_column_int64(st, 4);
        if (!copy_blob(p->digest, sizeof p->digest, st, 1) || created == NULL || strlen(created) >= sizeof p->created) {
            mm_err_set(err, SQLITE_CORRUPT, "the stored position of shard %d is not readable", shard);
        } else {
            memcpy(p->created, created, strlen(created) + 1);
        }
    }
    mm_db_finalize(st);
    return found && err->rc == SQLITE_OK;
}

int mm_position_set(sqlite3 *db, const struct mm_position *p, struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "INSERT OR REPLACE INTO main.__marmot__position(shard, seq, digest, created,"
                                     " epoch, stamp) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    if (st != NULL) {
        sqlite3_bind_int(st, 1, p->shard);
        sqlite3_bind_int64(st, 2, p->seq);
        sqlite3_bind_blob(st, 3, p->digest, sizeof p->digest, SQLITE_STATIC);
        sqlite3_bind_text(st, 4, p->created, -1, SQLITE_STATIC);
        sqlite3_bind_int64(st, 5, p->epoch);
        sqlite3_bind_int64(st, 6, p->stamp);
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    return err->rc;
}

static void bind_origin(sqlite3_stmt *st, int shard, int64_t node, int64_t incarnation)
{
    sqlite3_bind_int(st, 1, shard);
    sqlite3_bind_int64(st, 2, node);
    sqlite3_bind_int64(st, 3, incarnation);
}

int mm_origin_get(sqlite3 *db, const char *schema, int shard, int64_t node, int64_t incarnation, struct mm_origin *o,
                  struct mm_err *err)
{
    memset(o, 0, sizeof *o);
    o->node = node;
    o->incarnation = incarnation;
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT seq, txid, outbox FROM \"%w\".__marmot__origin"
                                     " WHERE shard = ?1 AND node = ?2 AND incarnation = ?3",
                                     schema);
    int found = 0;
    if (st != NULL) {
        bind_origin(st, shard, node, incarnation);
        found = mm_db_step(st, err);
    }
    if (found) {
        o->seq = sqlite3_column_int64(st, 0);
        o->outbox = sqlite3_column_int64(st, 2);
        if (!copy_blob(o->txid, sizeof o->txid, st, 1)) {
            mm_err_set(err, SQLITE_CORRUPT, "the stored origin of node %lld is not readable", (long long)node);
        }
    }
    mm_db_finalize(st);
    return found && err->rc == SQLITE_OK;
}

struct mm_origin_writer {
    int shard;
    sqlite3_stmt *add, *last, *forget;
};

struct mm_origin_writer *mm_origin_writer_open(sqlite3 *db, int shard, struct mm_err *err)
{
    struct mm_origin_writer *w = calloc(1, sizeof *w);
    if (w == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    w->shard = shard;
    w->add = mm_db_prepare(db, err, 0,
                           "INSERT OR REPLACE INTO main.__marmot__accepted(shard, node, incarnation, seq, txid)"
                           " VALUES (?1, ?2, ?3, ?4, ?5)");
    w->last = mm_db_prepare(db, err, 0,
                            "INSERT OR REPLACE INTO main.__marmot__origin(shard, node, incarnation, seq, txid,"
                            " outbox) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    w->forget = mm_db_prepare(db, err, 0,
                              "DELETE FROM main.__marmot__accepted WHERE shard = ?1 AND node = ?2"
                              " AND incarnation = ?3 AND seq <= ?4");
    return w;
}

int mm_origin_writer_add(struct mm_origin_writer *w, const struct mm_origin *o, struct mm_err *err)
{
    if (err->rc == SQLITE_OK) {
        bind_origin(w->add, w->shard, o->node, o->incarnation);
        sqlite3_bind_int64(w->add, 4, o->seq);
        sqlite3_bind_blob(w->add, 5, o->txid, sizeof o->txid, SQLITE_STATIC);
        mm_db_run(w->add, err);
    }
    return err->rc;
}

int mm_origin_writer_last(struct mm_origin_writer *w, const struct mm_origin *o, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && o->seq > 0) {
        bind_origin(w->last, w->shard, o->node, o->incarnation);
        sqlite3_bind_int64(w->last, 4, o->seq);
        sqlite3_bind_blob(w->last, 5, o->txid, sizeof o->txid, SQLITE_STATIC);
        sqlite3_bind_int64(w->last, 6, o->outbox);
        mm_db_run(w->last, err);
        bind_origin(w->forget, w->shard, o->node, o->incarnation);
        sqlite3_bind_int64(w->forget, 4, o->seq - MM_ACCEPTED_KEPT);
        mm_db_run(w->forget, err);
    }
    return err->rc;
}

void mm_origin_writer_close(struct mm_origin_writer *w)
{
    if (w != NULL) {
        mm_db_finalize(w->add);
        mm_db_finalize(w->last);
        mm_db_finalize(w->forget);
        free(w);
    }
}

int mm_origin_accepted(sqlite3 *db, const char *schema, int shard, int64_t node, int64_t incarnation, int64_t seq,
                       uint8_t txid[MM_TXID_SIZE], struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT txid FROM \"%w\".__marmot__accepted WHERE shard = ?1 AND node = ?2"
                                     " AND incarnation = ?3 AND seq = ?4",
                                     schema);
    int found = 0;
    if (st != NULL) {
        bind_origin(st, shard, node, incarnation);
        sqlite3_bind_int64(st, 4, seq);
        found = mm_db_step(st, err) && copy_blob(txid, MM_TXID_SIZE, st, 0);
    }
    mm_db_finalize(st);
    return found;
}

int64_t mm_origin_of_txid(sqlite3 *db, const char *schema, int shard, int64_t node, const uint8_t txid[MM_TXID_SIZE],
                          struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT incarnation FROM \"%w\".__marmot__accepted WHERE shard = ?1 AND node = ?2"
                                     " AND txid = ?3 LIMIT 1",
                                     schema);
    int64_t incarnation = 0;
    if (st != NULL) {
        sqlite3_bind_int(st, 1, shard);
        sqlite3_bind_int64(st, 2, node);
        sqlite3_bind_blob(st, 3, txid, MM_TXID_SIZE, SQLITE_STATIC);
        incarnation = mm_db_step(st, err) ? sqlite3_column_int64(st, 0) : 0;
    }
    mm_db_finalize(st);
    return incarnation;
}

bool mm_origin_txid_known(sqlite3 *db, int shard, int64_t node, const uint8_t txid[MM_TXID_SIZE], struct mm_err *err)
{
    return mm_origin_of_txid(db, "main", shard, node, txid, err) != 0;
}

int mm_part_get(sqlite3 *db, int shard, int64_t node, int64_t incarnation, struct mm_part_head *h, struct mm_err *err)
{
    memset(h, 0, sizeof *h);
    /* The newest row knows all: nothing here may read the data of the others. */
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT txid, count, sha256, number, total FROM main.__marmot__part"
                                     " WHERE shard = ?1 AND node = ?2 AND incarnation = ?3 ORDER BY number DESC"
                                     " LIMIT 1");
    int found = 0;
    if (st != NULL) {
        bind_origin(st, shard, node, incarnation);
        found = mm_db_step(st, err);
    }
    if (found) {
        h->count = sqlite3_column_int(st, 1);
        h->held = sqlite3_column_int(st, 3) + 1;
        h->bytes = sqlite3_column_int64(st, 4);
        if (!copy_blob(h->txid, sizeof h->txid, st, 0) || !copy_blob(h->sha256, sizeof h->sha256, st, 2)) {
            mm_err_set(err, SQLITE_CORRUPT, "a stored part of node %lld is not readable", (long long)node);
        }
    }
    mm_db_finalize(st);
    return found && err->rc == SQLITE_OK;
}

int mm_part_add(sqlite3 *db, int shard, int64_t node, int64_t incarnation, const struct mm_part_head *h, int64_t at_ms,
                const void *data, size_t len, struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "INSERT OR REPLACE INTO main.__marmot__part(shard, node, incarnation, number,"
                                     " txid, count, sha256, total, at, data)"
                                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
    if (st != NULL) {
        bind_origin(st, shard, node, incarnation);
        sqlite3_bind_int(st, 4, h->held);
        sqlite3_bind_blob(st, 5, h->txid, sizeof h->txid, SQLITE_STATIC);
        sqlite3_bind_int(st, 6, h->count);
        sqlite3_bind_blob(st, 7, h->sha256, sizeof h->sha256, SQLITE_STATIC);
        sqlite3_bind_int64(st, 8, h->bytes + (int64_t)len);
        sqlite3_bind_int64(st, 9, at_ms);
        sqlite3_bind_blob64(st, 10, len > 0 ? data : "", len, SQLITE_STATIC);
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    return err->rc;
}

int mm_part_read(sqlite3 *db, int shard, int64_t node, int64_t incarnation, struct mm_buf *data, struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT data FROM main.__marmot__part WHERE shard = ?1 AND node = ?2"
                                     " AND incarnation = ?3 ORDER BY number");
    if (st != NULL) {
        bind_origin(st, shard, node, incarnation);
    }
    while (mm_db_step(st, err)) {
        mm_buf_add(data, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0));
    }
    mm_db_finalize(st);
    return mm_buf_check(data, err, "a transaction in parts");
}

int mm_part_drop(sqlite3 *db, int shard, int64_t node, int64_t incarnation, struct mm_err *err)
{
    return mm_db_exec(db, err,
                      "DELETE FROM main.__marmot__part WHERE shard = %d AND node = %lld AND incarnation = %lld", shard,
                      (long long)node, (long long)incarnation);
}

int mm_part_end(sqlite3 *db, int shard, int64_t node, int64_t incarnation, const uint8_t txid[MM_TXID_SIZE],
                struct mm_err *err)
{
    struct mm_part_head h;
    if (mm_part_get(db, shard, node, incarnation, &h, err) && memcmp(h.txid, txid, sizeof h.txid) == 0) {
        mm_part_drop(db, shard, node, incarnation, err);
    }
    return err->rc;
}

int mm_part_list(sqlite3 *db, struct mm_part_row *rows, int max, struct mm_err *err)
{
    /* Shards below 1 are those of a second reading, which ends by itself. */
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT shard, node, incarnation, txid, at, max(number) FROM main.__marmot__part"
                                     " WHERE shard > 0 GROUP BY shard, node, incarnation LIMIT ?1");
    int n = 0;
    if (st != NULL) {
        sqlite3_bind_int(st, 1, max);
    }
    while (n < max && mm_db_step(st, err)) {
        struct mm_part_row *r = &rows[n++];
        r->shard = sqlite3_column_int(st, 0);
        r->node = sqlite3_column_int64(st, 1);
        r->incarnation = sqlite3_column_int64(st, 2);
        r->at = sqlite3_column_int64(st, 4);
        r->number = sqlite3_column_int(st, 5);
        if (!copy_blob(r->txid, sizeof r->txid, st, 3)) {
            mm_err_set(err, SQLITE_CORRUPT, "a stored part of node %lld is not readable", (long long)r->node);
        }
    }
    mm_db_finalize(st);
    return err->rc == SQLITE_OK ? n : 0;
}

int mm_part_ask_end(sqlite3 *db, const struct mm_part_row *row, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, 256);
    mm_buf_byte(&b, MM_CONTROL_ENDED);
    mm_buf_byte(&b, (uint8_t)row->shard);
    for (int k = 56; k >= 0; k -= 8) {
        mm_buf_byte(&b, (uint8_t)((uint64_t)row->node >> k));
    }
    for (int k = 56; k >= 0; k -= 8) {
        mm_buf_byte(&b, (uint8_t)((uint64_t)row->incarnation >> k));
    }
    mm_buf_add(&b, row->txid, sizeof row->txid);
    if (mm_buf_check(&b, err, "the end of parts") == SQLITE_OK) {
        mm_outbox_put_control(db, b.data, b.len, err);
    }
    mm_buf_free(&b);
    return err->rc;
}

int mm_part_drop_shard(sqlite3 *db, int shard, struct mm_err *err)
{
    return mm_db_exec(db, err, "DELETE FROM main.__marmot__part WHERE shard = %d", shard);
}

int mm_conflict_add(sqlite3 *db, const struct mm_conflict *c, int64_t max_rows, int64_t max_bytes, struct mm_err *err)
{
    mm_db_exec(db, err,
               "INSERT INTO main.__marmot__conflict(shard, seq, node, at, kind, name, key, lost, won)"
               " VALUES (%d, %lld, %lld, %lld, %Q, %Q, %Q, %Q, %Q)",
               c->shard, (long long)c->seq, (long long)c->node, (long long)mm_clock_wall_ms(), c->kind, c->table,
               c->key, c->lost, c->won);
    int64_t id = err->rc == SQLITE_OK ? sqlite3_last_insert_rowid(db) : 0;
    mm_db_exec(db, err, "DELETE FROM main.__marmot__conflict WHERE id <= %lld", (long long)(id - max_rows));
    bool large = strlen(c->key) + strlen(c->lost) + strlen(c->won) > (size_t)(max_bytes / max_rows);
    if (large && id % CONFLICT_STEP == 0) { /* adding up takes a look at all of them */
        mm_db_exec(db, err,
                   "DELETE FROM main.__marmot__conflict WHERE id <= (SELECT max(id) FROM (SELECT id, sum(length(key) +"
                   " length(lost) + length(won)) OVER (ORDER BY id DESC) AS total FROM main.__marmot__conflict)"
                   " WHERE total > %lld)",
                   (long long)max_bytes);
    }
    return err->rc;
}

int mm_ignored_add(sqlite3 *db, int shard, int64_t seq, int64_t node, const char *reason, struct mm_err *err)
{
    mm_db_exec(db, err,
               "INSERT OR REPLACE INTO main.__marmot__ignored(shard, seq, node, at, reason)"
               " VALUES (%d, %lld, %lld, %lld, %Q)",
               shard, (long long)seq, (long long)node, (long long)mm_clock_wall_ms(), reason);
    if (seq % IGNORED_STEP == 0) { /* bounded, but not counted anew for each message */
        mm_db_exec(db, err,
                   "DELETE FROM main.__marmot__ignored WHERE shard = %d AND seq <= (SELECT seq FROM"
                   " main.__marmot__ignored WHERE shard = %d ORDER BY seq DESC LIMIT 1 OFFSET %d)",
                   shard, shard, (int)IGNORED_KEPT);
    }
    return err->rc;
}

int mm_conflict_each(sqlite3 *db, mm_conflict_seen *one_seen, void *arg, struct mm_err *err)
{
    bool more = true;
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT id, at, shard, seq, node, kind, name, key, lost, won"
                                     " FROM main.__marmot__conflict ORDER BY id DESC");
    while (more && mm_db_step(st, err)) {
        const char *text[5];
        for (int k = 0; k < 5; k++) {
            text[k] = (const char *)sqlite3_column_text(st, 5 + k);
            if (text[k] == NULL) { /* NOT NULL in the schema */
                mm_err_nomem(err);
            }
        }
        struct mm_conflict_row row = { sqlite3_column_int64(st, 0),
                                       sqlite3_column_int64(st, 1),
                                       { sqlite3_column_int(st, 2), sqlite3_column_int64(st, 3),
                                         sqlite3_column_int64(st, 4), text[0], text[1], text[2], text[3], text[4] } };
        more = err->rc == SQLITE_OK && one_seen(arg, &row, err);
    }
    mm_db_finalize(st);
    return err->rc;
}

int mm_conflict_kinds(sqlite3 *db, mm_conflict_kind_seen *one_seen, void *arg, struct mm_err *err)
{
    sqlite3_stmt *st =
        mm_db_prepare(db, err, 0, "SELECT kind, count(*) FROM main.__marmot__conflict GROUP BY kind ORDER BY kind");
    while (mm_db_step(st, err)) {
        const char *kind = (const char *)sqlite3_column_text(st, 0);
        if (kind != NULL) {
            one_seen(arg, kind, sqlite3_column_int64(st, 1));
        } else {
            mm_err_nomem(err);
        }
    }
    mm_db_finalize(st);
    return err->rc;
}

/* Only the oldest are dropped, so ids count. */
int64_t mm_conflict_total(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT max(id) FROM main.__marmot__conflict");
}

int64_t mm_conflict_dropped(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 1, "SELECT min(id) FROM main.__marmot__conflict") - 1;
}

int64_t mm_ignored_count(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT count(*) FROM main.__marmot__ignored");
}

int mm_position_copy(sqlite3 *db, const char *from, const char *to, struct mm_err *err)
{
    static const char *const tables[] = { "position", "origin", "accepted", "part" };
    for (size_t k = 0; k < sizeof tables / sizeof *tables && err->rc == SQLITE_OK; k++) {
        mm_db_exec(db, err, "DELETE FROM \"%w\".__marmot__%s", to, tables[k]);
        mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__%s SELECT * FROM \"%w\".__marmot__%s WHERE shard > 0", to,
                   tables[k], from, tables[k]);
    }
    return err->rc;
}

int64_t mm_position_lost_outbox(sqlite3 *db, const char *from, int64_t node, struct mm_err *err)
{
    return mm_db_int(db, err, -1,
                     "SELECT min(ifnull(n.outbox, 0)) FROM main.__marmot__origin AS o LEFT JOIN"
                     " \"%w\".__marmot__origin AS n USING (shard, node, incarnation)"
                     " WHERE o.node = %lld AND o.outbox > ifnull(n.outbox, 0)",
                     from, (long long)node);
}

/* A number alone tells where the transaction is no longer among those remembered:
** an incarnation has one history, but for files that were set back. */
char *mm_position_exceeds(sqlite3 *db, const char *from, int64_t node, struct mm_err *err)
{
    return mm_db_text(
        db, err,
        "SELECT 'of node ' || o.node || ' in shard ' || o.shard || ' up to its change ' || o.seq ||"
        " CASE WHEN n.seq >= o.seq THEN ', another one than this' WHEN n.seq > 0 THEN ', up to ' || n.seq"
        " ELSE ', none of them' END FROM main.__marmot__origin AS o LEFT JOIN \"%w\".__marmot__origin AS n"
        " USING (shard, node, incarnation) LEFT JOIN \"%w\".__marmot__accepted AS a"
        " ON a.shard = o.shard AND a.node = o.node AND a.incarnation = o.incarnation AND a.seq = o.seq"
        " WHERE (o.node <> %lld AND ifnull(n.seq, 0) < o.seq) OR a.txid <> o.txid"
        " ORDER BY o.shard, o.node LIMIT 1",
        from, from, (long long)node);
}
