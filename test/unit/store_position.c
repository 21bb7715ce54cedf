/* Positions, origins with what they accepted, unfinished parts, local records.
** marmot-test: parallel */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "store/meta.h"
#include "store/position.h"
#include "test/lib/sqlite_api.h"

static int bad;
static sqlite3 *db;
static struct mm_err err;

static void check(const char *name, bool good)
{
    printf("%s %s\n", good ? "ok" : "not ok", name);
    bad += !good;
}

static void positions(void)
{
    struct mm_position p = { .shard = 2,
                             .seq = INT64_MAX,
                             .digest = "0123456789abcde",
                             .stamp = 77,
                             .created = "2025-01-01T00:00:00Z",
                             .epoch = 3 };
    struct mm_position got;
    check("no position at first", !mm_position_get(db, 2, &got, &err) && got.seq == 0 && err.rc == SQLITE_OK);
    mm_position_set(db, &p, &err);
    check("a position comes back", mm_position_get(db, 2, &got, &err) && got.shard == 2 && got.seq == p.seq &&
                                       got.epoch == 3 && got.stamp == 77 &&
                                       memcmp(got.digest, p.digest, sizeof p.digest) == 0 &&
                                       strcmp(got.created, p.created) == 0);
    check("another shard has its own", !mm_position_get(db, 1, &got, &err) && got.shard == 1);
    p.seq = 5;
    mm_position_set(db, &p, &err);
    check("a newer one replaces it", mm_position_get(db, 2, &got, &err) && got.seq == 5);
    mm_db_exec(db, &err, "UPDATE __marmot__position SET digest = x'00'");
    check("a damaged one is SQLITE_CORRUPT", !mm_position_get(db, 2, &got, &err) && err.rc == SQLITE_CORRUPT);
    mm_err_init(&err);
    mm_db_exec(db, &err, "DELETE FROM __marmot__position");
}

static void txid_of(int64_t seq, uint8_t txid[MM_TXID_SIZE])
{
    memset(txid, 0, MM_TXID_SIZE);
    memcpy(txid, &seq, sizeof seq);
}

/* Accepts up to `to` in flushes of `batch`. */
static void accept(int64_t node, int64_t incarnation, int64_t from, int64_t to, int64_t batch)
{
    struct mm_origin o = { .node = node, .incarnation = incarnation };
    while (from <= to) {
        struct mm_origin_writer *w = mm_origin_writer_open(db, 1, &err);
        for (int64_t k = 0; k < batch && from <= to; k++, from++) {
            o.seq = from;
            o.outbox = from * 2;
            txid_of(from, o.txid);
            mm_origin_writer_add(w, &o, &err);
        }
        mm_origin_writer_last(w, &o, &err);
        mm_origin_writer_close(w);
    }
}

static int64_t accepted_of(int64_t node)
{
    return mm_db_int(db, &err, -1, "SELECT count(*) FROM __marmot__accepted WHERE node = %lld", (long long)node);
}

static void origins(void)
{
    struct mm_origin o;
    uint8_t txid[MM_TXID_SIZE];
    uint8_t want[MM_TXID_SIZE];
    struct mm_origin_writer *w = mm_origin_writer_open(db, 1, &err);
    mm_origin_writer_last(w, &(struct mm_origin){ .node = 5, .incarnation = 6 }, &err);
    mm_origin_writer_close(w);
    check("an unknown origin has accepted nothing",
          !mm_origin_get(db, "main", 1, 5, 6, &o, &err) && o.seq == 0 && o.node == 5 && o.incarnation == 6);
    accept(5, 6, 1, MM_ACCEPTED_KEPT, 100);
    check("exactly so many are kept",
          accepted_of(5) == MM_ACCEPTED_KEPT && mm_origin_accepted(db, "main", 1, 5, 6, 1, txid, &err) == 1);
    accept(5, 6, MM_ACCEPTED_KEPT + 1, MM_ACCEPTED_KEPT + 1, 1);
    check("one more, and the oldest goes", accepted_of(5) == MM_ACCEPTED_KEPT &&
                                               !mm_origin_accepted(db, "main", 1, 5, 6, 1, txid, &err) &&
                                               mm_origin_accepted(db, "main", 1, 5, 6, 2, txid, &err) == 1);
    accept(5, 6, MM_ACCEPTED_KEPT + 2, 5000, 1777);
    txid_of(5000, want);
    check("the newest is known with its txid and outbox id", mm_origin_get(db, "main", 1, 5, 6, &o, &err) &&
                                                                 o.seq == 5000 && o.outbox == 10000 &&
                                                                 memcmp(o.txid, want, sizeof want) == 0);
    txid_of(5000 - MM_ACCEPTED_KEPT + 1, want);
    check("the oldest kept has its own txid",
          mm_origin_accepted(db, "main", 1, 5, 6, 5000 - MM_ACCEPTED_KEPT + 1, txid, &err) == 1 &&
              memcmp(txid, want, sizeof want) == 0);
    accept(5, 7, 1, 10, 3);
    accept(8, 6, 1, 10, 3);
    check("another incarnation or node takes nothing from it", accepted_of(5) == MM_ACCEPTED_KEPT + 10 &&
                                                                   accepted_of(8) == 10 &&
                                                                   !mm_origin_get(db, "main", 2, 5, 6, &o, &err));
    check("no error", err.rc == SQLITE_OK);
}

static void seen_by(const char *schema, int64_t node, int64_t incarnation, int64_t seq)
{
    uint8_t txid[MM_TXID_SIZE];
    txid_of(seq, txid);
    sqlite3_stmt *st =
        mm_db_prepare(db, &err, 0,
                      "INSERT OR REPLACE INTO \"%w\".__marmot__origin(shard, node, incarnation, seq, txid,"
                      " outbox) VALUES (1, %lld, %lld, %lld, ?1, 0)",
                      schema, (long long)node, (long long)incarnation, (long long)seq);
    sqlite3_bind_blob(st, 1, txid, sizeof txid, SQLITE_STATIC);
    mm_db_run(st, &err);
    mm_db_finalize(st);
}

static bool exceeds(const char *part)
{
    char *what = mm_position_exceeds(db, "other", 8, &err);
    bool good = part == NULL ? what == NULL : what != NULL && strstr(what, part) != NULL;
    if (!good) {
        printf("# it says %s\n", what != NULL ? what : "nothing");
    }
    sqlite3_free(what);
    return good && err.rc == SQLITE_OK;
}

/* What another state lacks of what was accepted here: main has it from origins(). */
static void comparing(void)
{
    uint8_t txid[MM_TXID_SIZE];
    mm_db_exec(db, &err,
               "ATTACH ':memory:' AS other; CREATE TABLE other.__marmot__origin AS SELECT * FROM"
               " main.__marmot__origin; CREATE TABLE other.__marmot__accepted AS SELECT * FROM"
               " main.__marmot__accepted; CREATE UNIQUE INDEX other.one ON __marmot__origin(shard, node,"
               " incarnation)");
    check("a state lacks nothing of itself", exceeds(NULL));
    mm_db_exec(db, &err, "UPDATE other.__marmot__origin SET seq = seq + 3");
    check("nor does one that has gone on", exceeds(NULL));
    seen_by("other", 8, 6, 4);
    check("what the node itself wrote is its own affair", exceeds(NULL));
    seen_by("other", 5, 6, 4999);
    check("one change of another node is told", exceeds("of node 5 in shard 1 up to its change 5000, up to 4999"));
    mm_db_exec(db, &err, "DELETE FROM other.__marmot__origin WHERE incarnation = 6 AND node = 5");
    check("and an origin that is not known there", exceeds("change 5000, none of them"));
    seen_by("other", 5, 6, 5003);
    txid_of(1, txid);
    sqlite3_stmt *st = mm_db_prepare(db, &err, 0,
                                     "UPDATE other.__marmot__accepted SET txid = ?1 WHERE node = 5 AND incarnation = 6"
                                     " AND seq = 5000");
    sqlite3_bind_blob(st, 1, txid, sizeof txid, SQLITE_STATIC);
    mm_db_run(st, &err);
    mm_db_finalize(st);
    check("the same number of another history, too", exceeds("another one than this"));
    mm_db_exec(db, &err, "DELETE FROM other.__marmot__accepted WHERE seq <= 5000");
    check("where the histories are forgotten the number tells", exceeds(NULL));
    mm_db_exec(db, &err, "DETACH other");
    check("no error", err.rc == SQLITE_OK);
}

static void parts(void)
{
    struct mm_part_head h = { .count = 3 };
    struct mm_part_head got;
    struct mm_buf b;
    mm_buf_init(&b, 100);
    memset(h.txid, 1, sizeof h.txid);
    memset(h.sha256, 2, sizeof h.sha256);
    check("nothing unfinished at first", !mm_part_get(db, 1, 5, 6, &got, &err) && got.held == 0);
    mm_part_add(db, 1, 5, 6, &h, 10, "aaa", 3, &err);
    mm_part_add(db, 1, 5, 7, &h, 11, "zzzz", 4, &err);
    mm_part_add(db, -1, 5, 6, &h, 11, "yyyyy", 5, &err);
    h.held = 1;
    h.bytes = 3;
    mm_part_add(db, 1, 5, 6, &h, 11, "bb", 2, &err);
    check("what is held is counted", mm_part_get(db, 1, 5, 6, &got, &err) && got.held == 2 && got.count == 3 &&
                                         got.bytes == 5 && memcmp(got.txid, h.txid, sizeof h.txid) == 0 &&
                                         memcmp(got.sha256, h.sha256, sizeof h.sha256) == 0);
    h.held = 2;
    h.bytes = 5;
    mm_part_add(db, 1, 5, 6, &h, 12, "", 0, &err);
    check("read in order, an empty one too",
          mm_part_read(db, 1, 5, 6, &b, &err) == SQLITE_OK && b.len == 5 && memcmp(b.data, "aaabb", 5) == 0);
    mm_buf_free(&b);
    mm_part_drop(db, 1, 5, 6, &err);
    check("dropped alone", !mm_part_get(db, 1, 5, 6, &got, &err) && mm_part_get(db, 1, 5, 7, &got, &err) &&
                               mm_part_get(db, -1, 5, 6, &got, &err));
    memset(got.txid, 3, sizeof got.txid);
    mm_part_end(db, 1, 5, 7, got.txid, &err);
    check("an end of others is none of these", mm_part_get(db, 1, 5, 7, &got, &err) == 1);
    mm_part_end(db, -1, 5, 6, h.txid, &err);
    check("but their own is", !mm_part_get(db, -1, 5, 6, &got, &err));
    mm_part_add(db, -1, 5, 6, &h, 11, "yyyyy", 5, &err);
    mm_buf_init(&b, 3);
    check("beyond the maximum is an error",
          mm_part_read(db, 1, 5, 7, &b, &err) != SQLITE_OK && (err.rc & 0xff) == SQLITE_TOOBIG);
    mm_buf_free(&b);
    mm_err_init(&err);
}

static int64_t copied(const char *table)
{
    return mm_db_int(db, &err, -1, "SELECT count(*) FROM other.__marmot__%s", table);
}

/* All that was accepted, and nothing of before; what a second reading holds is of no other. */
static void copying(void)
{
    static const char *const tables[] = { "position", "origin", "accepted", "part" };
    mm_db_exec(db, &err, "ATTACH ':memory:' AS other");
    for (int k = 0; k < 4; k++) {
        mm_db_exec(db, &err, "CREATE TABLE other.__marmot__%s AS SELECT * FROM main.__marmot__%s", tables[k],
                   tables[k]);
    }
    mm_position_copy(db, "main", "other", &err);
    check("a copy replaces what was there", copied("origin") == 3 && copied("accepted") == MM_ACCEPTED_KEPT + 20);
    check("without the parts of a second reading", copied("part") == 1);
    check("it lacks nothing that was sent from here", mm_position_lost_outbox(db, "other", 8, &err) == -1);
    mm_db_exec(db, &err, "UPDATE other.__marmot__origin SET outbox = 6 WHERE node = 5");
    check("what others sent is theirs", mm_position_lost_outbox(db, "other", 8, &err) == -1);
    check("else from the first that it does not have", mm_position_lost_outbox(db, "other", 5, &err) == 6);
    mm_db_exec(db, &err, "DETACH other");
    check("no error", err.rc == SQLITE_OK);
}

static void records(void)
{
    struct mm_conflict c = { 1, 7, 5, "update", "t'x", "{\"id\":1}", "{}", "null" };
    for (int k = 0; k < 25; k++) {
        c.seq = k;
        mm_conflict_add(db, &c, 10, 1 << 20, &err);
    }
    check("the conflict log is bounded, the newest stay",
          mm_db_int(db, &err, -1, "SELECT count(*) FROM __marmot__conflict") == 10 &&
              mm_db_int(db, &err, -1, "SELECT min(seq) FROM __marmot__conflict") == 15);
    check("what was dropped is counted", mm_conflict_dropped(db, &err) == 15 && mm_conflict_total(db, &err) == 25);
    c.lost = "a text of twenty bytes";
    for (int k = 0; k < 16; k++) {
        mm_conflict_add(db, &c, 10, 100, &err);
    }
    for (int k = 0; k < 64; k++) {
        mm_conflict_add(db, &c, 1000, 1000, &err);
    }
    int64_t kept =
        mm_db_int(db, &err, -1, "SELECT sum(length(key) + length(lost) + length(won)) FROM __marmot__conflict");
    check("its bytes are bounded now and then", kept > 0 && kept <= 1000 + 16 * 34);
    c.lost = "{}";
    for (int k = 0; k < 12; k++) {
        mm_conflict_add(db, &c, 10, 1 << 20, &err);
    }
    mm_ignored_add(db, 1, 9, 5, "it's bad", &err);
    mm_ignored_add(db, 1, 9, 5, "it's bad", &err);
    check("an ignored message is recorded once",
          mm_db_int(db, &err, -1, "SELECT count(*) FROM __marmot__ignored WHERE reason = 'it''s bad'") == 1);
    mm_db_exec(db, &err, "BEGIN");
    for (int k = 1; k < 10500; k++) {
        mm_ignored_add(db, 2, k, 5, "many", &err);
    }
    mm_db_exec(db, &err, "COMMIT");
    int64_t ignored = mm_ignored_count(db, &err);
    check("of many the newest stay", ignored > 10000 && ignored < 10100 &&
                                         mm_db_int(db, &err, 0, "SELECT max(seq) FROM __marmot__ignored") == 10499);
    check("no error", err.rc == SQLITE_OK);
}

static void keys(void)
{
    check("an absent key is the default",
          mm_meta_int(db, "none", 42, &err) == 42 && mm_meta_text(db, "none", &err) == NULL);
    mm_meta_set_text(db, "a'b", "it's", &err);
    char *text = mm_meta_text(db, "a'b", &err);
    check("texts come back", text != NULL && strcmp(text, "it's") == 0);
    sqlite3_free(text);
    mm_meta_set_text(db, "a'b", NULL, &err);
    check("NULL deletes", mm_meta_text(db, "a'b", &err) == NULL);
    mm_meta_migrate(db, &err);
    check("a second migration changes nothing",
          err.rc == SQLITE_OK && mm_db_int(db, &err, -1, "SELECT count(*) FROM __marmot__conflict") == 10);
    mm_meta_set_int(db, MM_META_VERSION, 1000, &err);
    check("a newer bookkeeping is refused and says so",
          mm_meta_migrate(db, &err) == SQLITE_MISMATCH && strstr(err.msg, "1000") != NULL);
    mm_err_init(&err);
    mm_db_exec(db, &err, "CREATE TABLE mine(a); CREATE TABLE xx_marmot__y(a)");
    check("removal takes our tables and no other",
          mm_meta_drop(db, &err) == SQLITE_OK &&
              mm_db_int(db, &err, -1, "SELECT count(*) FROM sqlite_schema WHERE type = 'table'") == 2 &&
              !mm_meta_exists(db, &err));
}

int main(void)
{
    test_sqlite_start();
    mm_err_init(&err);
    if (sqlite3_open(":memory:", &db) != SQLITE_OK || mm_meta_migrate(db, &err) != SQLITE_OK) {
        printf("not ok bookkeeping: %s\n", err.msg);
        return 1;
    }
    positions();
    origins();
    comparing();
    parts();
    copying();
    records();
    keys();
    check("all statements are closed", sqlite3_close(db) == SQLITE_OK);
    return bad != 0;
}
