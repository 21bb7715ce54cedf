#include "store/log.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/db.h"
#include "store/meta.h"

enum { ENTRY_MAX = 1 << 30 };

#define MARK "4611686018427387904"
#define HERE "sqlite_compileoption_used('" MM_LOG_HERE "')"
#define ROW_BYTES "32" /* of a row without its values */

struct mm_log_reader {
    sqlite3_stmt *st;
    bool row; /* the statement stands on one that was not read yet */
    struct mm_arena arena;
    struct mm_value *v;
    int cap;
};

/* Of the view that takes n values. */
static int note_width(int n)
{
    int width = 1;
    while (width < n) {
        width *= 2;
    }
    return width;
}

static void put_values(sqlite3_str *s, const char *before, int n)
{
    for (int k = 0; k < n; k++) {
        sqlite3_str_appendf(s, "%sv%d", before, k);
    }
}

void mm_log_text_put(sqlite3_str *s, int n, bool seldom)
{
    if (seldom) {
        sqlite3_str_appendf(s, "INSERT INTO __marmot__note%d(source,kind", note_width(n));
    } else {
        sqlite3_str_appendall(s, "INSERT INTO __marmot__log(source,kind");
    }
    put_values(s, ",", n);
    sqlite3_str_appendall(s, seldom ? ")" : ",mark,id)");
}

void mm_log_text_id(sqlite3_str *s, bool seldom)
{
    sqlite3_str_appendall(s, seldom ? ""
                                    : ",(random()),(SELECT CASE WHEN max(id)>=0 AND max(id)<" MARK " AND " HERE
                                      "=0 THEN " MARK " ELSE ifnull(max(id),(SELECT -bytes FROM __marmot__room)) END"
                                      " FROM __marmot__log)+" ROW_BYTES);
}

void mm_log_text_size(sqlite3_str *s, bool seldom, const char *row, const char *column)
{
    if (!seldom) {
        sqlite3_str_appendf(s, "+ifnull(length(%s\"%w\"),0)", row, column);
    }
}

void mm_log_text_last(sqlite3_str *s)
{
    sqlite3_str_appendall(s, "(SELECT source,kind,v0 FROM __marmot__log ORDER BY id DESC LIMIT 32)");
}

const char mm_log_text_room[] = "(ifnull((SELECT max(id) FROM __marmot__log),0)<" MARK " OR " HERE ")";

static char *finish(sqlite3_str *s, struct mm_err *err)
{
    char *text = sqlite3_str_finish(s);
    if (text == NULL) {
        mm_err_nomem(err);
    }
    return text;
}

/* As the schema holds it. It names no table of the application: whoever drops or
** renames one meets nothing here. */
static char *note_trigger(int width, struct mm_err *err)
{
    sqlite3_str *s = sqlite3_str_new(NULL);
    sqlite3_str_appendf(s, "CREATE TRIGGER __marmot__note%d_put INSTEAD OF INSERT ON __marmot__note%d WHEN %s BEGIN ",
                        width, width, mm_log_text_room);
    mm_log_text_put(s, width, false);
    sqlite3_str_appendall(s, " VALUES(NEW.source,NEW.kind");
    put_values(s, ",NEW.", width);
    mm_log_text_id(s, false);
    for (int k = 0; k < width; k++) {
        char name[8];
        sqlite3_snprintf(sizeof name, name, "v%d", k);
        mm_log_text_size(s, false, "NEW.", name);
    }
    sqlite3_str_appendall(s, "); END");
    return finish(s, err);
}

static void make_note(sqlite3 *db, int width, const char *trigger, struct mm_err *err)
{
    sqlite3_str *s = sqlite3_str_new(NULL);
    sqlite3_str_appendf(s, "CREATE VIEW main.__marmot__note%d(source,kind", width);
    put_values(s, ",", width);
    sqlite3_str_appendall(s, ") AS SELECT NULL,NULL");
    for (int k = 0; k < width; k++) {
        sqlite3_str_appendall(s, ",NULL");
    }
    char *view = finish(s, err);
    mm_db_exec(db, err, "DROP VIEW IF EXISTS main.__marmot__note%d", width);
    mm_db_exec(db, err, "%s", view);
    /* The schema holds the text without the name of the schema. */
    mm_db_exec(db, err, "CREATE TRIGGER main.%s", trigger != NULL ? trigger + strlen("CREATE TRIGGER ") : "");
    sqlite3_free(view);
}

bool mm_log_note(sqlite3 *db, int n, bool make, struct mm_err *err)
{
    int width = note_width(n);
    char *trigger = note_trigger(width, err);
    bool there = mm_db_int(db, err, 0,
                           "SELECT count(*) FROM main.sqlite_schema WHERE tbl_name = '__marmot__note%d'"
                           " AND (type = 'view' OR sql = %Q)",
                           width, trigger) == 2;
    if (!there && make && err->rc == SQLITE_OK) {
        make_note(db, width, trigger, err);
    }
    sqlite3_free(trigger);
    return there;
}

const char mm_log_sql_any[] = "SELECT EXISTS (SELECT 1 FROM main.__marmot__log) WHERE ?1 IS NULL";

bool mm_log_any(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT EXISTS (SELECT 1 FROM main.__marmot__log)") != 0;
}

struct mm_log_reader *mm_log_open(sqlite3 *db, struct mm_err *err)
{
    struct mm_log_reader *r = calloc(1, sizeof *r);
    if (r == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    mm_arena_init(&r->arena, ENTRY_MAX);
    r->st = mm_db_prepare(db, err, 0,
                          "SELECT source, kind, v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14,"
                          " v15 FROM main.__marmot__log ORDER BY id");
    r->row = mm_db_step(r->st, err) != 0;
    if (err->rc != SQLITE_OK) {
        mm_log_close(r);
        return NULL;
    }
    return r;
}

static void read_values(struct mm_log_reader *r, struct mm_log_entry *e, struct mm_err *err)
{
    enum { FIRST = 2 };
    if (e->n + MM_LOG_VALUES > r->cap) {
        int cap = r->cap == 0 ? 4 * MM_LOG_VALUES : 2 * r->cap;
        struct mm_value *v = realloc(r->v, (size_t)cap * sizeof *v);
        if (v == NULL) {
            mm_err_nomem(err);
            return;
        }
        r->v = v;
        r->cap = cap;
    }
    for (int k = 0; k < MM_LOG_VALUES; k++) {
        struct mm_value v;
        if (!mm_value_column(&v, r->st, FIRST + k) || !mm_value_copy(&r->arena, &r->v[e->n + k], &v)) {
            mm_err_nomem(err);
        }
    }
    e->n += MM_LOG_VALUES;
    e->v = r->v;
}

int mm_log_next(struct mm_log_reader *r, struct mm_log_entry *e, struct mm_err *err)
{
    memset(e, 0, sizeof *e);
    if (err->rc != SQLITE_OK || !r->row) {
        return 0;
    }
    mm_arena_free(&r->arena);
    e->source = sqlite3_column_int64(r->st, 0);
    e->kind = sqlite3_column_int(r->st, 1);
    do {
        read_values(r, e, err);
        r->row = mm_db_step(r->st, err) != 0;
    } while (r->row && err->rc == SQLITE_OK && sqlite3_column_int(r->st, 1) == MM_LOG_MORE);
    return err->rc == SQLITE_OK;
}

void mm_log_close(struct mm_log_reader *r)
{
    if (r != NULL) {
        mm_db_finalize(r->st);
        mm_arena_free(&r->arena);
        free(r->v);
        free(r);
    }
}

int mm_log_look(sqlite3 *db, mm_log_each *each, void *arg, struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT source, kind, v0, CASE kind WHEN %d THEN v1 ELSE v0 END"
                                     " FROM main.__marmot__log WHERE kind > %d ORDER BY id",
                                     (int)MM_LOG_NOW, (int)MM_LOG_MORE);
    while (mm_db_step(st, err)) {
        each(arg, sqlite3_column_int64(st, 0), (enum mm_log_kind)sqlite3_column_int(st, 1), sqlite3_column_int64(st, 2),
             sqlite3_column_int64(st, 3), err);
    }
    mm_db_finalize(st);
    return err->rc;
}

int mm_log_clear(sqlite3 *db, struct mm_err *err)
{
    return mm_db_exec(db, err, "DELETE FROM main.__marmot__log");
}

int64_t mm_log_room(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT bytes FROM main.__marmot__room");
}

int mm_log_set_room(sqlite3 *db, int64_t bytes, struct mm_err *err)
{
    return mm_db_exec(db, err, "UPDATE main.__marmot__room SET bytes = %lld", (long long)bytes);
}

bool mm_log_txid(sqlite3 *db, uint8_t *txid, size_t n, struct mm_err *err)
{
    uint64_t h[2] = { 14695981039346656037ULL, 1099511628211ULL };
    bool all = true;
    sqlite3_stmt *st = mm_db_prepare(db, err, 0, "SELECT mark FROM main.__marmot__log ORDER BY id");
    while (mm_db_step(st, err)) {
        all = all && sqlite3_column_type(st, 0) == SQLITE_INTEGER;
        for (int k = 0; k < 2; k++) {
            h[k] = (h[k] ^ (uint64_t)sqlite3_column_int64(st, 0)) * 0x9e3779b97f4a7c15ULL;
            h[k] ^= h[k] >> (29 + k);
        }
    }
    mm_db_finalize(st);
    memcpy(txid, h, n < sizeof h ? n : sizeof h);
    return all && err->rc == SQLITE_OK;
}

bool mm_log_stopped(sqlite3 *db, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT max(id) >= " MARK " FROM main.__marmot__log") != 0;
}

bool mm_log_pad_there(sqlite3 *db, int64_t id, struct mm_err *err)
{
    return mm_db_int(db, err, 0, "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = '" MM_LOG_PAD "'",
                     (long long)id) != 0;
}

char *mm_log_pad_left(sqlite3 *db, struct mm_err *err)
{
    return mm_db_text(db, err,
                      "SELECT name FROM main.sqlite_schema AS p WHERE type = 'table' AND name GLOB '__marmot__pad*'"
                      " AND NOT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND name GLOB"
                      " '__marmot__' || substr(p.name, length('__marmot__pad') + 1) || '_*') LIMIT 1");
}

int mm_log_pad_drop(sqlite3 *db, const char *pad, struct mm_err *err)
{
    return mm_db_exec(db, err, "DROP TABLE main.\"%w\"", pad);
}

static void pad_add(sqlite3 *db, int64_t id, const struct mm_buf *cols, struct mm_err *err)
{
    sqlite3_str *s = sqlite3_str_new(NULL);
    for (size_t k = 0; k < cols->len; k += strlen((const char *)cols->data + k) + 1) {
        sqlite3_str_appendf(s, "%s\"%w\"", k > 0 ? "," : "", (const char *)cols->data + k);
    }
    char *list = finish(s, err);
    mm_db_exec(db, err, "CREATE TABLE main." MM_LOG_PAD "(%s)", (long long)id, list);
    sqlite3_free(list);
}

/* The numbers of a file begin by chance: a connection that writes to two of them tells their guards apart. */
static int64_t first_number(void)
{
    uint32_t some = 0;
    sqlite3_randomness(sizeof some, &some);
    return some >> 2;
}

int64_t mm_log_source_add(sqlite3 *db, const char *table, const struct mm_buf *cols, struct mm_err *err)
{
    int64_t last = mm_meta_int(db, MM_META_SOURCES, 0, err);
    int64_t id = 1 + (last > 0 ? last : first_number());
    sqlite3_stmt *st =
        mm_db_prepare(db, err, 0, "INSERT INTO main.__marmot__source(id, name, cols) VALUES (?1, ?2, ?3)");
    if (st != NULL) {
        sqlite3_bind_int64(st, 1, id);
        sqlite3_bind_text(st, 2, table, -1, SQLITE_STATIC);
        sqlite3_bind_blob64(st, 3, cols->data, cols->len, SQLITE_STATIC);
        mm_db_run(st, err);
    }
    mm_db_finalize(st);
    mm_meta_set_int(db, MM_META_SOURCES, id, err);
    pad_add(db, id, cols, err);
    return id;
}

int mm_log_source_drop(sqlite3 *db, int64_t id, struct mm_err *err)
{
    return mm_db_exec(db, err, "DELETE FROM main.__marmot__source WHERE id = %lld", (long long)id);
}

int mm_log_source_get(sqlite3 *db, int64_t id, char **table, struct mm_buf *cols, struct mm_err *err)
{
    *table = NULL;
    sqlite3_stmt *st =
        mm_db_prepare(db, err, 0, "SELECT name, cols FROM main.__marmot__source WHERE id = %lld", (long long)id);
    int found = mm_db_step(st, err);
    if (found) {
        *table = sqlite3_mprintf("%s", sqlite3_column_text(st, 0));
        const void *p = sqlite3_column_blob(st, 1);
        mm_buf_add(cols, p, (size_t)sqlite3_column_bytes(st, 1));
        if (*table == NULL) {
            mm_err_nomem(err);
        }
        mm_buf_check(cols, err, "the columns of a trigger");
    }
    mm_db_finalize(st);
    return found && err->rc == SQLITE_OK;
}
