/* The outbox as a whole: what of it a copy of the database holds, what is left when a part of a
** batch is given up or taken back, and that no id comes twice when it begins anew.
** marmot-test: parallel */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/db.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "test/lib/sqlite_api.h"

enum { PART = 1000, ROWS = 400, MIDDLE = 150 };

static int bad;
static char path[2][64];

static void check(const char *name, bool good)
{
    printf("%s %s\n", good ? "ok" : "not ok", name);
    bad += !good;
}

static void removed(const char *name)
{
    static const char *const ends[] = { "", "-wal", "-shm" };
    for (int k = 0; k < 3; k++) {
        char file[80];
        snprintf(file, sizeof file, "%s%s", name, ends[k]);
        (void)unlink(file);
    }
}

static sqlite3 *opened(const char *name, bool head)
{
    struct mm_err err;
    sqlite3 *db = NULL;
    mm_err_init(&err);
    if (sqlite3_open(name, &db) == SQLITE_OK) {
        mm_db_exec(db, &err, "PRAGMA journal_mode = wal; PRAGMA synchronous = off; BEGIN");
        mm_meta_migrate(db, &err);
        if (head) {
            mm_head_set_incarnation(db, 77, &err);
        }
        mm_db_exec(db, &err, "COMMIT");
    }
    check("bookkeeping", err.rc == SQLITE_OK);
    return db;
}

/* As capture does it; its first bytes are its id. */
static int64_t put(sqlite3 *db, int64_t id, size_t size, struct mm_inbox_end *place)
{
    struct mm_err err;
    struct mm_inbox_end end = { 0 };
    uint8_t *data = calloc(1, size);
    mm_err_init(&err);
    memcpy(data, &id, sizeof id);
    struct mm_inbox_record r = { .kind = MM_OUTBOX_TXN, .incarnation = 77, .at = 1, .data = data, .len = size };
    if (!mm_inbox_append(db, &end, place, &r, &err)) {
        sqlite3_stmt *st = mm_db_prepare(db, &err, 0, "%s", mm_outbox_sql_put);
        mm_outbox_put(db, st, PART, &end, place, &r, &err);
        mm_db_finalize(st);
    }
    free(data);
    return err.rc == SQLITE_OK ? place->next : 0;
}

/* All from `first` to `last` and no other, each with its own bytes. */
static bool holds(struct mm_outbox *o, int64_t first, int64_t last)
{
    struct mm_err err;
    struct mm_outbox_row row = { .id = 0 };
    struct mm_buf data;
    int64_t want = first;
    int64_t id = 0;
    mm_err_init(&err);
    mm_buf_init(&data, 1 << 20);
    for (; mm_outbox_next(o, row.id, &row, NULL, &data, &err) && row.id == want; want++) {
        memcpy(&id, data.data, sizeof id);
        if (id != row.id) {
            break;
        }
        mm_buf_clear(&data);
    }
    mm_buf_free(&data);
    if (want != last + 1 || err.rc != SQLITE_OK) {
        printf("# at %lld: %lld with the bytes of %lld %s\n", (long long)want, (long long)row.id, (long long)id,
               err.msg);
    }
    return want == last + 1 && err.rc == SQLITE_OK;
}

static void fill(sqlite3 *db, struct mm_outbox *o)
{
    struct mm_err err;
    struct mm_inbox_end place;
    bool good = true;
    mm_err_init(&err);
    mm_db_exec(db, &err, "BEGIN");
    for (int64_t id = 1; id <= ROWS; id++) {
        good = good && put(db, id, 300, &place) == id;
    }
    mm_db_exec(db, &err, "COMMIT");
    check("batches in parts, and an inbox",
          good && holds(o, 1, ROWS) &&
              mm_db_int(db, &err, 0, "SELECT count(*) FROM __marmot__outbox WHERE part = 1 AND id > 1") > 2);
}

static void copies(void)
{
    struct mm_err err;
    struct mm_inbox_end end = { 0 };
    struct mm_stamp stamp = { 7, 7, 7, { 1, 2 } };
    bool clean;
    mm_err_init(&err);
    sqlite3_close(opened(path[1], false));
    sqlite3 *db = opened(path[0], true);
    struct mm_outbox *o = mm_outbox_open(db, &err);
    fill(db, o);
    mm_db_exec(db, &err, "ATTACH %Q AS copy; BEGIN", path[1]);
    mm_outbox_undo_put(o, MIDDLE, 1, true, "x", 1, &err);
    mm_outbox_undo_put(o, MIDDLE + 1, 1, true, "x", 1, &err);
    mm_outbox_echoed(o, MIDDLE, 1000, &err);
    mm_head_set_capturing(db, MM_CAPTURING + 1, &err);
    mm_inbox_set_stamp(db, &end, &stamp, &err);
    mm_outbox_copy(db, "copy", &err);
    mm_db_exec(db, &err, "COMMIT; DETACH copy");
    check("a copy", err.rc == SQLITE_OK);
    mm_outbox_close(o);
    sqlite3_close(db);
    db = opened(path[1], false);
    o = mm_outbox_open(db, &err);
    struct mm_outbox_row row;
    check("it knows what was echoed", mm_outbox_echoed_upto(o, &err) == MIDDLE);
    check("and holds all behind it",
          mm_outbox_next(o, MIDDLE, &row, NULL, NULL, &err) && row.id == MIDDLE + 1 && mm_outbox_last(o, &err) == ROWS);
    int64_t rows = 0;
    int64_t bytes = 0;
    check("which is counted", mm_outbox_size(db, &rows, &bytes, &err) == SQLITE_OK && rows == ROWS - MIDDLE);
    check("nothing that no batch needs comes along",
          mm_db_int(db, &err, 0, "SELECT min(id) FROM __marmot__outbox") > 1);
    check("before-images as well", !mm_outbox_undo_get(o, MIDDLE, 1, &clean, NULL, &err) &&
                                       mm_outbox_undo_get(o, MIDDLE + 1, 1, &clean, NULL, &err) == 1);
    end = (struct mm_inbox_end){ 0 };
    check("it captures, and has no stamp of commits that it did not see",
          mm_head_capturing(db, &err) == MM_CAPTURING && !mm_inbox_stamp(db, &end, &stamp, NULL, &err));
    check("no error", err.rc == SQLITE_OK);
    mm_outbox_close(o);
    sqlite3_close(db);
    removed(path[0]);
    removed(path[1]);
}

/* Given up in the middle of a batch that has parts; then the outbox begins anew. */
static void given_up(void)
{
    struct mm_err err;
    struct mm_inbox_end place;
    int64_t rows = 0;
    int64_t bytes = 0;
    mm_err_init(&err);
    sqlite3 *db = opened(path[0], true);
    struct mm_outbox *o = mm_outbox_open(db, &err);
    fill(db, o);
    mm_outbox_discard(o, MIDDLE, &err);
    check("what is behind is whole", holds(o, MIDDLE + 1, ROWS) && mm_outbox_echoed_upto(o, &err) == MIDDLE);
    check("and lies there once",
          mm_db_int(db, &err, -1, "SELECT count(*) FROM __marmot__outbox WHERE part > 0 AND id <= %d", MIDDLE) == 0);
    mm_outbox_echoed(o, ROWS - 10, 1000, &err);
    mm_outbox_echoed(o, ROWS - 5, 2000, &err);
    mm_outbox_unecho(db, ROWS - 20, &err);
    check("what is echoed no more is pending again", mm_outbox_echoed_upto(o, &err) == ROWS - 20);
    check("and kept as long as the oldest would have been",
          !mm_outbox_trim_due(o, 1999, 1000, &err) && mm_outbox_trim_due(o, 2000, 1000, &err));
    int64_t counted = ROWS - 3; /* in the inbox */
    mm_outbox_count(o, &counted, &rows, &bytes, &err);
    check("counted from within the inbox", rows == 3 && bytes > 3 * 300 && bytes < 6 * 300 && counted == ROWS);
    bool more = false;
    mm_outbox_echoed(o, ROWS - 2, 3000, &err);
    mm_outbox_trim(o, 9000, 1000, -1, 10000, &more, &err);
    check("and what is left there", mm_outbox_size(db, &rows, &bytes, &err) == SQLITE_OK && rows == 2);
    mm_inbox_clear(db, &err);
    mm_outbox_init(db, &err);
    mm_outbox_forget(o);
    check("ids go on behind what was trimmed", put(db, ROWS - 1, 300, &place) == ROWS - 1);
    for (int64_t id = ROWS; id < 2 * ROWS; id++) {
        put(db, id, 300, &place);
    }
    int64_t last = mm_db_int(db, &err, 0, "SELECT max(last) FROM __marmot__outbox");
    mm_inbox_clear(db, &err);
    mm_outbox_init(db, &err);
    mm_outbox_forget(o);
    check("and behind the last one of a batch", last > ROWS && put(db, last + 1, 300, &place) == last + 1);
    check("no error", err.rc == SQLITE_OK);
    mm_outbox_close(o);
    sqlite3_close(db);
    removed(path[0]);
}

/* The one in the middle of three, which are a batch by then. */
static void taken_back(void)
{
    struct mm_err err;
    struct mm_inbox_end place;
    struct mm_inbox_end second;
    struct mm_outbox_row row;
    mm_err_init(&err);
    sqlite3 *db = opened(path[0], true);
    struct mm_outbox *o = mm_outbox_open(db, &err);
    put(db, 1, 10, &place);
    put(db, 2, 10, &second);
    put(db, 3, 10, &place);
    mm_outbox_put_control(db, "Wt", 2, &err);
    mm_outbox_take_back(db, &second, &err);
    check("the two beside it stay",
          mm_outbox_get(o, 1, &row, NULL, NULL, &err) && !mm_outbox_get(o, 2, &row, NULL, NULL, &err) &&
              mm_outbox_get(o, 3, &row, NULL, NULL, &err) && mm_outbox_get(o, 4, &row, NULL, NULL, &err));
    check("no error", err.rc == SQLITE_OK);
    mm_outbox_close(o);
    sqlite3_close(db);
    removed(path[0]);
}

/* By who was sure of the end: nobody else had written. It is looked for all the same, since this one
** has written since; else a COMMIT that is tried again would leave the transaction twice. */
static void taken_back_by_who_is_sure(void)
{
    struct mm_err err;
    struct mm_inbox_end place;
    struct mm_inbox_end end = { 0 };
    const int64_t id = 2;
    struct mm_inbox_record r = {
        .kind = MM_OUTBOX_TXN, .incarnation = 77, .at = 1, .data = (const uint8_t *)&id, .len = sizeof id
    };
    mm_err_init(&err);
    sqlite3 *db = opened(path[0], true);
    struct mm_outbox *o = mm_outbox_open(db, &err);
    bool good = put(db, 1, 10, &place) == 1 && mm_inbox_find_end(db, &end, &err) == SQLITE_OK;
    end.sure = true;
    good = good && mm_inbox_append(db, &end, &place, &r, &err) && place.next == 2;
    good = good && mm_outbox_take_back(db, &place, &err) == SQLITE_OK;
    check("who is sure of the end takes back what it put there", good && holds(o, 1, 1));
    check("no error", err.rc == SQLITE_OK);
    mm_outbox_close(o);
    sqlite3_close(db);
    removed(path[0]);
}

int main(void)
{
    test_sqlite_start();
    for (int k = 0; k < 2; k++) {
        snprintf(path[k], sizeof path[k], "/tmp/store-copy-%d-%d.db", (int)getpid(), k);
    }
    copies();
    given_up();
    taken_back();
    taken_back_by_who_is_sure();
    return bad != 0;
}
