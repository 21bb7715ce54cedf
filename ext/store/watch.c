#include "store/watch.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "store/meta.h"
#include "store/outbox.h"

static const char *const state_names[] = { "none", "watched", "unwatched", "unsupported", "stale", "joining" };

enum { STATES = sizeof state_names / sizeof state_names[0] };

const char *mm_watch_state_name(enum mm_watch_state s)
{
    return state_names[s];
}

static enum mm_watch_state state_of(const char *name)
{
    for (int k = 0; name != NULL && k < STATES; k++) {
        if (strcmp(name, state_names[k]) == 0) {
            return (enum mm_watch_state)k;
        }
    }
    return MM_WATCH_NONE;
}

enum mm_watch_state mm_watch_get(sqlite3 *db, const char *table, char **first_name, struct mm_err *err)
{
    enum mm_watch_state s = MM_WATCH_NONE;
    if (first_name != NULL) {
        *first_name = NULL;
    }
    sqlite3_stmt *st =
        mm_db_prepare(db, err, 0, "SELECT state, first_name FROM main.__marmot__table WHERE name = %Q", table);
    if (mm_db_step(st, err)) {
        s = state_of((const char *)sqlite3_column_text(st, 0));
        if (first_name != NULL) {
            *first_name = sqlite3_mprintf("%s", sqlite3_column_text(st, 1));
            if (*first_name == NULL) {
                mm_err_nomem(err);
            }
        }
    }
    mm_db_finalize(st);
    return s;
}

int mm_watch_set(sqlite3 *db, const char *table, enum mm_watch_state s, const char *why, struct mm_err *err)
{
    return mm_db_exec(db, err,
                      "INSERT INTO main.__marmot__table(name, first_name, state, why) VALUES (%Q, %Q, %Q, %Q)"
                      " ON CONFLICT (name) DO UPDATE SET state = excluded.state, why = excluded.why",
                      table, table, state_names[s], why);
}

int64_t mm_watch_joined_seq(sqlite3 *db, const char *table, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT joined_seq FROM main.__marmot__table WHERE name = %Q", table);
}

int mm_watch_set_joined_seq(sqlite3 *db, const char *table, int64_t seq, struct mm_err *err)
{
    return mm_db_exec(db, err, "UPDATE main.__marmot__table SET joined_seq = %lld WHERE name = %Q", (long long)seq,
                      table);
}

bool mm_watch_any_needs_copy(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0,
                     "SELECT 1 FROM main.__marmot__table WHERE state IN ('stale', 'joining') AND joined_seq < 0"
                     " LIMIT 1") != 0;
}

/* `left`: it was watched before, and then not; `joined`: it was part of the cluster then. */
static int put_watch(sqlite3 *db, const char *table, bool left, bool joined, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, 1 << 20);
    mm_buf_byte(&b, MM_CONTROL_WATCH);
    mm_buf_str(&b, table);
    if (left) {
        mm_buf_byte(&b, 0);
        mm_buf_byte(&b, joined);
    }
    if (mm_buf_check(&b, err, "a table name") == SQLITE_OK) {
        mm_outbox_put_control(db, b.data, b.len, err);
    }
    mm_buf_free(&b);
    return err->rc;
}

int mm_watch_add(sqlite3 *db, const char *table, struct mm_err *err)
{
    enum mm_watch_state s = mm_watch_get(db, table, NULL, err);
    if (err->rc != SQLITE_OK || mm_watch_captures(s)) {
        return err->rc;
    }
    char *mode = mm_meta_text(db, MM_META_MODE, err);
    int64_t seq = mm_watch_joined_seq(db, table, err);
    mm_watch_set(db, table, MM_JOINING, NULL, err);
    mm_watch_set_joined_seq(db, table, 0, err);
    if (s == MM_WATCH_NONE && mode != NULL) {
        mm_watch_set_capture(db, table, mode, err);
    }
    sqlite3_free(mode);
    return put_watch(db, table, s != MM_WATCH_NONE, seq > 0 || seq == MM_SEQ_BEFORE, err);
}

int mm_watch_compare(sqlite3 *db, const char *table, struct mm_err *err)
{
    int64_t seq = mm_watch_joined_seq(db, table, err);
    char *why = mm_watch_why(db, table, err);
    mm_watch_set(db, table, MM_JOINING, why, err);
    sqlite3_free(why);
    mm_watch_set_joined_seq(db, table, seq == MM_SEQ_EMPTY ? seq : MM_SEQ_COPY, err);
    return put_watch(db, table, true, false, err);
}

bool mm_watch_left(const void *data, size_t len, bool *joined)
{
    const char *p = data;
    size_t name = len > 0 && p[0] == MM_CONTROL_WATCH ? strnlen(p, len) : len;
    *joined = name + 1 < len && p[name + 1] != 0;
    return name < len;
}

char *mm_watch_capture(sqlite3 *db, const char *table, struct mm_err *err)
{
    return mm_db_text(db, err, "SELECT capture FROM main.__marmot__table WHERE name = %Q", table);
}

int mm_watch_set_capture(sqlite3 *db, const char *table, const char *mode, struct mm_err *err)
{
    return mm_db_exec(db, err, "UPDATE main.__marmot__table SET capture = %Q WHERE name = %Q", mode, table);
}

int mm_watch_again(sqlite3 *db, struct mm_err *err)
{
    int n = 0;
    struct mm_watch_entry *list = mm_watch_list(db, &n, err);
    for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
        bool waits = list[k].state == MM_JOINING || list[k].state == MM_WATCHED;
        if (waits && mm_watchlist_seq(db, list[k].name, err) == 0) {
            mm_watch_set(db, list[k].name, MM_JOINING, NULL, err);
            mm_watch_set_joined_seq(db, list[k].name, 0, err);
            put_watch(db, list[k].name, false, false, err);
        }
    }
    mm_watch_list_free(list, n);
    return err->rc;
}

int mm_watch_unlisted(sqlite3 *db, struct mm_err *err)
{
    int n = 0;
    struct mm_watch_entry *list = mm_watch_list(db, &n, err);
    for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
        bool begun = list[k].state == MM_JOINING || list[k].state == MM_STALE;
        bool joined = list[k].state == MM_WATCHED || (begun && mm_watch_joined_seq(db, list[k].name, err) > 0);
        if (joined && mm_watchlist_seq(db, list[k].name, err) == 0 && list[k].state != MM_STALE) {
            mm_watch_set(db, list[k].name, MM_JOINING, NULL, err);
            mm_watch_set_joined_seq(db, list[k].name, 1, err);
        } else if (joined && mm_watchlist_seq(db, list[k].name, err) == 0) {
            mm_watch_set_joined_seq(db, list[k].name, MM_SEQ_BEFORE, err);
        }
    }
    mm_watch_list_free(list, n);
    return err->rc;
}

char *mm_watch_why(sqlite3 *db, const char *table, struct mm_err *err)
{
    return mm_db_text(db, err, "SELECT why FROM main.__marmot__table WHERE name = %Q", table);
}

static char *copy_text(sqlite3_stmt *st, int col, struct mm_err *err)
{
    const char *s = (const char *)sqlite3_column_text(st, col);
    char *copy = s != NULL ? strdup(s) : NULL;
    if (copy == NULL && sqlite3_column_type(st, col) != SQLITE_NULL) {
        mm_err_nomem(err);
    }
    return copy;
}

static struct mm_watch_entry *read_list(sqlite3 *db, const char *sql, int *n, struct mm_err *err)
{
    struct mm_watch_entry *list = NULL;
    int cap = 0;
    *n = 0;
    sqlite3_stmt *st = mm_db_prepare(db, err, 0, "%s", sql);
    while (mm_db_step(st, err)) {
        if (*n == cap) {
            cap = cap == 0 ? 16 : cap * 2;
            struct mm_watch_entry *p = realloc(list, (size_t)cap * sizeof *p);
            if (p == NULL) {
                mm_err_nomem(err);
                break;
            }
            list = p;
        }
        struct mm_watch_entry *e = &list[(*n)++];
        e->name = copy_text(st, 0, err);
        e->first_name = copy_text(st, 1, err);
        e->state = state_of((const char *)sqlite3_column_text(st, 2));
        e->why = copy_text(st, 3, err);
    }
    mm_db_finalize(st);
    if (err->rc != SQLITE_OK) {
        mm_watch_list_free(list, *n);
        list = NULL;
        *n = 0;
    }
    return list;
}

struct mm_watch_entry *mm_watch_list(sqlite3 *db, int *n, struct mm_err *err)
{
    return read_list(db, "SELECT name, first_name, state, why FROM main.__marmot__table ORDER BY name", n, err);
}

struct mm_watch_entry *mm_watchlist_all(sqlite3 *db, int *n, struct mm_err *err)
{
    return read_list(db,
                     "SELECT l.name, ifnull(t.first_name, l.name), ifnull(t.state, 'none'), t.why"
                     " FROM main.__marmot__watchlist AS l LEFT JOIN main.__marmot__table AS t USING (name)"
                     " ORDER BY l.name",
                     n, err);
}

void mm_watch_list_free(struct mm_watch_entry *list, int n)
{
    for (int k = 0; k < n; k++) {
        free(list[k].name);
        free(list[k].first_name);
        free(list[k].why);
    }
    free(list);
}

int64_t mm_watchlist_seq(sqlite3 *db, const char *table, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT seq FROM main.__marmot__watchlist WHERE name = %Q", table);
}

int mm_watchlist_add(sqlite3 *db, const char *table, int shard, int64_t seq, struct mm_err *err)
{
    return mm_db_exec(db, err, "INSERT OR IGNORE INTO main.__marmot__watchlist(name, shard, seq) VALUES (%Q, %d, %lld)",
                      table, shard, (long long)seq);
}

int mm_watch_shard(const char *first_name, int shards)
{
    uint64_t h = 14695981039346656037ULL; /* FNV-1a, 64 bits */
    for (const char *p = first_name; *p != '\0'; p++) {
        uint8_t c = (uint8_t)*p;
        h = (h ^ (c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c)) * 1099511628211ULL;
    }
    return (int)(h % (uint64_t)shards) + 1;
}

int mm_watchlist_copy(sqlite3 *db, const char *from, const char *to, struct mm_err *err)
{
    mm_db_exec(db, err, "DELETE FROM \"%w\".__marmot__watchlist", to);
    return mm_db_exec(db, err, "INSERT INTO \"%w\".__marmot__watchlist SELECT * FROM \"%w\".__marmot__watchlist", to,
                      from);
}

int mm_watch_copy(sqlite3 *db, const char *to, struct mm_err *err)
{
    return mm_db_exec(
        db, err,
        "INSERT INTO \"%w\".__marmot__table(name, first_name, state, why, joined_seq)"
        " SELECT name, first_name, state, why, joined_seq FROM main.__marmot__table WHERE state = 'watched'"
        " AND name IN (SELECT name FROM main.__marmot__watchlist)",
        to);
}

bool mm_watchlist_missing(sqlite3 *db, char **name, struct mm_err *err)
{
    *name = mm_db_text(db, err,
                       "SELECT l.name || ' is ' || ifnull(t.state, 'absent') FROM main.__marmot__watchlist AS l"
                       " LEFT JOIN main.__marmot__table AS t USING (name) WHERE t.state IS NOT 'watched' LIMIT 1");
    return *name != NULL;
}
