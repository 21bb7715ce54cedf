/* The outbox: ids that never come back, parts, echoes, trimming, before-images.
** marmot-test: parallel */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
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

static struct mm_inbox_end end;
static struct mm_inbox_end place;

/* What capture does; `parts` pieces of `size` bytes when that is too much for
** the inbox. The id that it got. */
static int64_t put(int parts, int size)
{
    struct mm_err err;
    mm_err_init(&err);
    uint8_t *data = malloc((size_t)parts * (size_t)size + 1);
    if (data == NULL) {
        return 0;
    }
    for (int k = 0; k < parts; k++) {
        memset(data + (ptrdiff_t)k * size, 'a' + k, (size_t)size);
    }
    struct mm_inbox_record r = {
        .kind = MM_OUTBOX_TXN,
        .incarnation = 77,
        .at = 1234,
        .names = (const uint8_t *)"names",
        .names_len = 5,
        .data = data,
        .len = (size_t)parts * (size_t)size,
    };
    memcpy(r.txid, "0123456789abcdef", sizeof r.txid);
    if (!mm_inbox_append(db, &end, &place, &r, &err)) {
        sqlite3_stmt *st = mm_db_prepare(db, &err, 0, "%s", mm_outbox_sql_put);
        mm_outbox_put(db, st, (uint64_t)size, &end, &place, &r, &err);
        mm_db_finalize(st);
    }
    free(data);
    if (err.rc != SQLITE_OK) {
        printf("# %s\n", err.msg);
    }
    return err.rc == SQLITE_OK ? place.next : 0;
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
    check("ids begin with 1", put(1, 3) == 1 && put(3, 4000) == 2);
    int found = mm_outbox_next(outbox, 1, &row, &names, &data, &err);
    check("a row in three parts is read whole",
          found && row.id == 2 && row.incarnation == 77 && row.at == 1234 && row.kind == MM_OUTBOX_TXN &&
              memcmp(row.txid, "0123456789abcdef", 16) == 0 && names.len == 5 && data.len == 12000 &&
              data.data[3999] == 'a' && data.data[4000] == 'b' && data.data[11999] == 'c');
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
    mm_db_exec(db, &err, "UPDATE __marmot__outbox SET txid = x'00' WHERE id = 2 AND part = 0");
    check("a damaged txid is SQLITE_CORRUPT, and says which row", !mm_outbox_get(outbox, 2, &row, NULL, NULL, &err) &&
                                                                      err.rc == SQLITE_CORRUPT &&
                                                                      strstr(err.msg, "2") != NULL);
    mm_err_init(&err);
    mm_db_exec(db, &err, "UPDATE __marmot__outbox SET txid = zeroblob(16) WHERE id = 2 AND part = 0");
    check("mended", err.rc == SQLITE_OK);
}

/* All ids that there are, "1 2 3". */
static const char *ids(void)
{
    static char text[20000];
    struct mm_err err;
    struct mm_outbox_row row = { .id = 0 };
    size_t n = 0;
    mm_err_init(&err);
    text[0] = '\0';
    while (mm_outbox_next(outbox, row.id, &row, NULL, NULL, &err) && n < sizeof text - 30) {
        n += (size_t)snprintf(text + n, sizeof text - n, n > 0 ? " %lld" : "%lld", (long long)row.id);
    }
    if (err.rc != SQLITE_OK) {
        snprintf(text, sizeof text, "%s", err.msg);
    }
    return text;
}

static bool are(const char *want)
{
    const char *have = ids();
    if (strcmp(have, want) != 0) {
        printf("# ids are %s, expected %s\n", have, want);
    }
    return strcmp(have, want) == 0;
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
    struct mm_outbox_row row;
    bool more = false;
    mm_err_init(&err);
    check("nothing echoed, nothing trimmed", trim(1000000, 0, 0, 100, &more) && !more && are("1 2 3"));
    mm_outbox_echoed(outbox, 2, 1000, &err);
    check("the watermark is what was echoed", mm_outbox_echoed_upto(outbox, &err) == 2);
    check("not due before the time", !mm_outbox_trim_due(outbox, 1500, 1000, &err));
    check("kept until the time is over", trim(1500, 1000, -1, 100, &more) && are("1 2 3"));
    check("due at the time", mm_outbox_trim_due(outbox, 2000, 1000, &err));
    check("then the echoed rows go, with all their parts, and no others",
          trim(2000, 1000, -1, 100, &more) && !more && are("3") && count("SELECT count(*) FROM __marmot__outbox") == 1);
    check("the watermark stays", mm_outbox_echoed_upto(outbox, &err) == 2);
    check("a trimmed id does not come back", mm_outbox_last(outbox, &err) == 3 && put(1, 10) == 4);
    check("nor is what comes behind taken for it", !mm_outbox_get(outbox, 2, &row, NULL, NULL, &err));
    mm_outbox_echoed(outbox, 4, 3000, &err);
    check("all trimmed, the inbox too", trim(9000, 1000, -1, 100, &more) && are(""));
    check("an empty outbox goes on counting", mm_outbox_last(outbox, &err) == 4 && put(1, 10) == 5);
    for (int k = 6; k <= 15; k++) {
        put(3, 3000); /* a row each */
    }
    mm_outbox_echoed(outbox, 14, 20000, &err);
    check("beyond keep_bytes the oldest echoed go before their time",
          trim(20001, 1000000, 30000, 100, &more) && are("12 13 14 15"));
    check("what is not echoed never goes",
          trim(20001, 1000000, 0, 100, &more) && are("15") && mm_outbox_echoed_upto(outbox, &err) == 14);
    for (int k = 16; k <= 20; k++) {
        put(3, 3000);
    }
    mm_outbox_echoed(outbox, 20, 30000, &err);
    int64_t n = 0;
    check("what is left of it is counted", trim(90000, 1000, -1, 2, &more) && more &&
                                               mm_outbox_size(db, &n, &(int64_t){ 0 }, &err) == SQLITE_OK && n == 5);
    int rounds = 0;
    do {
        rounds++;
    } while (trim(90000, 1000, -1, 2, &more) && more && rounds < 20);
    check("in small bites, and `more` says that it is not the end", rounds > 2 && rounds < 20 && are(""));
    mm_outbox_echoed(outbox, 3, 90000, &err);
    trim(190000, 1000, -1, 2, &more);
    check("and the counting goes on", mm_outbox_echoed_upto(outbox, &err) == 20 && put(1, 1) == 21 && put(1, 1) == 22);
    mm_outbox_echoed(outbox, 21, 191000, &err);
    check("the inbox goes when all in it is echoed", trim(200000, 1000, -1, 2, &more) && are("21 22"));
    check("no error on the way", err.rc == SQLITE_OK);
}

/* More than the inbox holds: batches, which are read like rows. */
static void batches(void)
{
    struct mm_err err;
    struct mm_outbox_row row;
    struct mm_buf data;
    bool more = false;
    int64_t n = 0;
    int64_t bytes = 0;
    mm_err_init(&err);
    mm_buf_init(&data, 1 << 20);
    int64_t first = mm_outbox_last(outbox, &err) + 1;
    int64_t last = first - 1;
    bool grew = true;
    for (int k = 0; k < 400; k++) {
        grew = grew && put(1, 100 + k) == last + 1;
        last++;
    }
    int64_t batch = count("SELECT max(last) FROM __marmot__outbox WHERE kind = 2");
    check("a full inbox becomes a row that knows its last id",
          grew && count("SELECT count(*) FROM __marmot__outbox WHERE kind = 2") >= 3 && batch > first && batch < last);
    bool good = true;
    for (int64_t id = last; id >= first && good; id -= 7) { /* backwards: no reading ahead helps */
        mm_buf_clear(&data);
        good = mm_outbox_get(outbox, id, &row, NULL, &data, &err) && row.id == id &&
               data.len == (size_t)(100 + id - first) && row.incarnation == 77 && row.at == 1234;
    }
    check("each one is found by its id", good && err.rc == SQLITE_OK);
    row.id = first - 1;
    for (n = 0; mm_outbox_next(outbox, row.id, &row, NULL, NULL, &err); n++) {
        good = good && row.id == first + n;
    }
    check("and all in their order", good && n == 400 && err.rc == SQLITE_OK);
    check("their number is told", mm_outbox_size(db, &n, &bytes, &err) == SQLITE_OK && n == 401 && bytes > 400 * 100);
    int64_t counted = first + 99;
    int64_t some = 0;
    int64_t size = 0;
    check("and counted from any place", mm_outbox_count(outbox, &counted, &some, &size, &err) == SQLITE_OK &&
                                            some == 300 && counted == last && size > 300 * 200 && size < bytes);
    int64_t control = mm_outbox_put_control(db, "Wt", 2, &err) == SQLITE_OK ? mm_outbox_last(outbox, &err) : 0;
    check("a control message comes after all before it", control == last + 1 && put(1, 5) == control + 1);
    int64_t middle = first + 150;
    check("a move changes those from its first one on, in batches and in the inbox",
          mm_outbox_move(outbox, 77, middle, 99, &err) == SQLITE_OK &&
              mm_outbox_get(outbox, middle - 1, &row, NULL, NULL, &err) && row.incarnation == 77 &&
              mm_outbox_get(outbox, middle, &row, NULL, NULL, &err) && row.incarnation == 99 &&
              mm_outbox_get(outbox, last, &row, NULL, NULL, &err) && row.incarnation == 99 &&
              mm_outbox_get(outbox, control + 1, &row, NULL, NULL, &err) && row.incarnation == 99);
    mm_outbox_echoed(outbox, middle, 100000, &err);
    trim(300000, 1000, -1, 10000, &more); /* more than these have parts */
    int64_t left = count("SELECT min(id) FROM __marmot__outbox");
    check("a batch goes with its last transaction, not before",
          left > first && left <= middle && mm_outbox_get(outbox, left, &row, NULL, NULL, &err) && row.id == left);
    check("what went is not told", mm_outbox_size(db, &n, &bytes, &err) == SQLITE_OK && n == control + 1 - middle);
    mm_outbox_echoed(outbox, control + 1, 100001, &err);
    trim(200000, 1000, -1, 100, &more);
    check("then all is gone", are("") && mm_outbox_size(db, &n, &bytes, &err) == SQLITE_OK && n == 0 && bytes == 0);
    check("no error on the way", err.rc == SQLITE_OK);
    mm_buf_free(&data);
}

/* A COMMIT that SQLite refused, and what the transaction may do before the next. */
static void taking_back(void)
{
    struct mm_err err;
    struct mm_inbox_end at;
    struct mm_outbox_row row;
    mm_err_init(&err);
    char want[100];
    int64_t a = put(1, 10);
    mm_db_exec(db, &err, "BEGIN");
    put(1, 10);
    check("the last one goes", mm_outbox_take_back(db, &place, &err) == SQLITE_OK);
    end.at = 0;
    check("and its id is given again", put(1, 20) == a + 1);
    at = place;
    put(1, 30);
    check("one in the middle is left out", mm_outbox_take_back(db, &at, &err) == SQLITE_OK);
    snprintf(want, sizeof want, "%lld %lld", (long long)a, (long long)a + 2);
    check("by its place", are(want) && !mm_outbox_get(outbox, a + 1, &row, NULL, NULL, &err));
    at = place;
    check("a control message takes it into a batch", mm_outbox_put_control(db, "Wt", 2, &err) == SQLITE_OK);
    check("from which it goes, too", mm_outbox_take_back(db, &at, &err) == SQLITE_OK);
    snprintf(want, sizeof want, "%lld %lld", (long long)a, (long long)a + 3);
    mm_outbox_forget(outbox);
    check("it alone", are(want) && !mm_outbox_get(outbox, a + 1, &row, NULL, NULL, &err));
    end.at = 0;
    put(3, 3000);
    check("and a row", mm_outbox_take_back(db, &place, &err) == SQLITE_OK && are(want));
    mm_db_exec(db, &err, "ROLLBACK");
    end.at = 0;
    mm_outbox_forget(outbox);
    snprintf(want, sizeof want, "%lld", (long long)a);
    check("a rollback leaves what was there", are(want) && put(1, 10) == a + 1);
    mm_db_exec(db, &err, "BEGIN");
    put(3, 3000); /* the inbox begins anew behind it */
    put(1, 10);
    at = end;
    mm_db_exec(db, &err, "ROLLBACK");
    end.at = 0;
    put(3, 3000);
    put(1, 300);
    mm_inbox_find_end(db, &at, &err);
    check("nor is a place of then one of now, where the same id begins",
          err.rc == SQLITE_OK && at.next == end.next && at.at == end.at && at.tag == end.tag);
    a += 2;
    mm_db_exec(db, &err, "UPDATE __marmot__inbox SET log = substr(log, 1, 16) || x'ffffff' || substr(log, 20)");
    mm_inbox_find_end(db, &(struct mm_inbox_end){ 0 }, &err);
    check("a damaged inbox says so, and where",
          err.rc == SQLITE_CORRUPT && strstr(err.msg, "byte 16") != NULL && strstr(err.msg, "marmot_cleanup") != NULL);
    mm_err_init(&err);
    mm_inbox_reset(db, a + 2, &end, &err);
    check("no error on the way", err.rc == SQLITE_OK);
}

/* A node takes the cluster's content instead of its own. */
static void given_up(void)
{
    struct mm_err err;
    struct mm_outbox_row row;
    int64_t n;
    int64_t bytes;
    mm_err_init(&err);
    int64_t a = put(1, 10);
    put(1, 30000);
    int64_t last = put(1, 10);
    mm_outbox_forget(outbox);
    mm_db_exec(db, &err, "BEGIN");
    mm_outbox_undo_put(outbox, a, 1, true, "x", 1, &err);
    check("all of it is given up", mm_outbox_discard(outbox, last, &err) == SQLITE_OK && are("") &&
                                       mm_outbox_size(db, &n, &bytes, &err) == SQLITE_OK && n == 0 && bytes == 0);
    mm_db_exec(db, &err, "COMMIT");
    end.at = 0;
    check("nothing of it counts as pending", mm_outbox_echoed_upto(outbox, &err) == last && last == a + 2 &&
                                                 !mm_outbox_get(outbox, a, &row, NULL, NULL, &err) &&
                                                 count("SELECT count(*) FROM __marmot__undo") == 0);
    check("ids go on", put(1, 10) == last + 1 && mm_outbox_gone(db, &err) == last);
    a = put(1, 10);
    mm_outbox_discard(outbox, a - 1, &err);
    char want[100];
    snprintf(want, sizeof want, "%lld", (long long)a);
    check("of the inbox what comes later stays", are(want) && mm_outbox_echoed_upto(outbox, &err) == a - 1);
    put(1, 10);
    put(1, 30000); /* the inbox becomes a batch */
    mm_outbox_forget(outbox);
    mm_outbox_discard(outbox, a, &err);
    snprintf(want, sizeof want, "%lld %lld", (long long)a + 1, (long long)a + 2);
    check("and of a batch", are(want) && count("SELECT count(*) FROM __marmot__outbox WHERE kind = 2") == 1);
    mm_outbox_discard(outbox, a + 2, &err);
    check("up to the end", are(""));
    end.at = 0;
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

static bool is_of(int64_t id, int64_t incarnation)
{
    struct mm_err err;
    struct mm_outbox_row row;
    mm_err_init(&err);
    return mm_outbox_get(outbox, id, &row, NULL, NULL, &err) != 0 && row.incarnation == incarnation;
}

static void head(void)
{
    struct mm_err err;
    int64_t n = 0;
    int64_t bytes = 0;
    mm_err_init(&err);
    int64_t a = put(3, 3000); /* a row each of its own */
    int64_t b = put(3, 3000);
    int64_t c = put(1, 5);
    check("rows move to another incarnation from an id on",
          mm_outbox_move(outbox, 77, b, 99, &err) == SQLITE_OK && is_of(a, 77) && is_of(b, 99) && is_of(c, 99));
    check("others do not", mm_outbox_move(outbox, 55, a, 44, &err) == SQLITE_OK && is_of(a, 77) && is_of(c, 99));
    mm_head_set_incarnation(db, 5, &err);
    check("a new incarnation leaves the counting alone", mm_head_incarnation(db, &err) == 5 && put(1, 1) == c + 1 &&
                                                             mm_outbox_size(db, &n, &bytes, &err) == SQLITE_OK &&
                                                             n == 4 && bytes > 0);
    check("no error", err.rc == SQLITE_OK);
}

enum { RACED = 4000 };

/* Another connection, which fills the inbox again and again. */
static void *writer(void *path)
{
    struct mm_err err;
    struct mm_inbox_end last = { 0 };
    struct mm_inbox_end at;
    sqlite3 *w = NULL;
    mm_err_init(&err);
    if (sqlite3_open(path, &w) != SQLITE_OK) {
        return "cannot open";
    }
    sqlite3_busy_timeout(w, 5000);
    mm_db_exec(w, &err, "PRAGMA synchronous = off");
    sqlite3_stmt *st = mm_db_prepare(w, &err, 0, "%s", mm_outbox_sql_put);
    struct mm_inbox_record r = { .data = (const uint8_t *)"0123456789", .len = 10, .incarnation = 1 };
    for (int k = 0; k < RACED && err.rc == SQLITE_OK; k++) {
        mm_db_exec(w, &err, "BEGIN IMMEDIATE");
        if (!mm_inbox_append(w, &last, &at, &r, &err)) {
            mm_outbox_put(w, st, 1000, &last, &at, &r, &err);
        }
        mm_db_exec(w, &err, "COMMIT");
    }
    mm_db_finalize(st);
    sqlite3_close(w);
    return err.rc == SQLITE_OK ? NULL : "failed";
}

/* What leaves the inbox between two looks of the reader is not passed over. */
static void race(void)
{
    struct mm_err err;
    struct mm_outbox_row row = { .id = 0 };
    sqlite3 *r = NULL;
    pthread_t thread;
    void *why = "no thread";
    char path[64];
    mm_err_init(&err);
    snprintf(path, sizeof path, "/tmp/store-outbox-%d.db", (int)getpid());
    if (sqlite3_open(path, &r) != SQLITE_OK) {
        check("open", false);
        return;
    }
    mm_db_exec(r, &err, "PRAGMA journal_mode = wal; BEGIN");
    mm_meta_migrate(r, &err);
    mm_head_set_incarnation(r, 1, &err);
    mm_db_exec(r, &err, "COMMIT");
    struct mm_outbox *o = mm_outbox_open(r, &err);
    bool started = o != NULL && pthread_create(&thread, NULL, writer, path) == 0;
    int64_t expected = 1;
    int64_t until = mm_clock_mono_ms() + 60000;
    while (started && expected <= RACED && err.rc == SQLITE_OK && mm_clock_mono_ms() < until) {
        if (mm_outbox_next(o, expected - 1, &row, NULL, NULL, &err)) {
            if (row.id != expected) {
                break;
            }
            expected++;
        }
    }
    if (started) {
        pthread_join(thread, &why);
    }
    check("a reader beside a writer passes nothing over", expected > RACED && why == NULL && err.rc == SQLITE_OK);
    printf("# %lld read, %s %s\n", (long long)expected - 1, why != NULL ? (const char *)why : "", err.msg);
    mm_outbox_close(o);
    sqlite3_close(r);
    for (const char *const *end_of = (const char *const[]){ "", "-wal", "-shm", NULL }; *end_of != NULL; end_of++) {
        char name[80];
        snprintf(name, sizeof name, "%s%s", path, *end_of);
        unlink(name);
    }
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
    trimming();
    batches();
    taking_back();
    given_up();
    images();
    head();
    race();
    mm_outbox_close(outbox);
    check("all statements are closed", sqlite3_close(db) == SQLITE_OK);
    return bad != 0;
}
