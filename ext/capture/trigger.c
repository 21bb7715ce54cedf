#include "capture/trigger.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "store/log.h"
#include "store/meta.h"
#include "store/watch.h"

enum { EVICT_INSERT, ADDED, EVICT_UPDATE, CHANGED, REMOVED, KINDS };

/* In the order in which they are made. SQLite fires the youngest trigger of an
** event first: what would be evicted is noted before the row that evicts it. */
static const char *const ends[KINDS] = { "bi", "ai", "be", "bu", "bd" };
static const int made[KINDS] = { EVICT_INSERT, ADDED, CHANGED, EVICT_UPDATE, REMOVED };

enum { COLUMNS_BYTES = 1 << 20 };

static enum mm_trigger_mode mode_named(const char *mode)
{
    return mode == NULL                   ? MM_TRIGGER_NONE
           : strcmp(mode, "auto") == 0    ? MM_TRIGGER_GUARD
           : strcmp(mode, "trigger") == 0 ? MM_TRIGGER_FULL
                                          : MM_TRIGGER_NONE;
}

enum mm_trigger_mode mm_trigger_mode(sqlite3 *db, struct mm_err *err)
{
    char *mode = mm_meta_text(db, MM_META_CAPTURE, err);
    enum mm_trigger_mode m = mode_named(mode);
    sqlite3_free(mode);
    return m;
}

enum mm_trigger_mode mm_trigger_mode_for(sqlite3 *db, const char *table, struct mm_err *err)
{
    char *all = mm_meta_text(db, MM_META_CAPTURE, err);
    char *own = all != NULL && strcmp(all, "none") != 0 ? mm_watch_capture(db, table, err) : NULL;
    enum mm_trigger_mode m = mode_named(own != NULL ? own : all);
    sqlite3_free(all);
    sqlite3_free(own);
    return m;
}

static int key_columns(const struct mm_table *t)
{
    int n = 0;
    for (int k = 0; k < t->ncol; k++) {
        n += t->col[k].pk != 0;
    }
    return n;
}

const char *mm_trigger_refuses(const struct mm_table *t)
{
    for (int k = 0; k < t->ncol; k++) {
        if (t->col[k].pk != 0 && !t->col[k].not_null && !t->integer_key && !t->without_rowid) {
            return "its key may hold NULL: triggers need a key that is NOT NULL";
        }
    }
    if (t->keyless) {
        return "it has no key: triggers need a PRIMARY KEY";
    }
    return key_columns(t) > MM_LOG_VALUES ? "its key has more than 16 columns" : NULL;
}

/* The column of a place in the key, from 1. */
static const char *key_name(const struct mm_table *t, int place)
{
    for (int k = 0; k < t->ncol; k++) {
        if (t->col[k].pk == place) {
            return t->col[k].name;
        }
    }
    return "";
}

/* "a"=OLD."a" AND .. over the key, or over a UNIQUE set. */
static void put_match(sqlite3_str *s, const struct mm_table *t, const struct mm_unique *u, const char *row)
{
    int n = u != NULL ? u->ncol : key_columns(t);
    for (int k = 0; k < n; k++) {
        const char *name = u != NULL ? t->col[u->col[k]].name : key_name(t, k + 1);
        sqlite3_str_appendf(s, "%s\"%w\"=%s.\"%w\"", k > 0 ? " AND " : "", name, row, name);
    }
}

static void put_differs(sqlite3_str *s, const struct mm_table *t, const struct mm_unique *u)
{
    int n = u != NULL ? u->ncol : key_columns(t);
    for (int k = 0; k < n; k++) {
        const char *name = u != NULL ? t->col[u->col[k]].name : key_name(t, k + 1);
        sqlite3_str_appendf(s, "%sNEW.\"%w\" IS NOT OLD.\"%w\"", k > 0 ? " OR " : "(", name, name);
    }
    sqlite3_str_appendall(s, ")");
}

/* What one trigger of a table is made of. */
struct text {
    sqlite3_str *s;
    const struct mm_table *t;
    long long number;
    bool seldom; /* it fires much more often than it notes */
};

/* The INSERTs of an image: found by the key or by a UNIQUE set of `row`; `kind`
** MOVE has the new key behind. A bare name means the row's column as long as
** there is one, and afterwards that of the pad, NULL: nothing for DROP COLUMN
** to refuse. NOT INDEXED: SQLite makes no index of an empty table. */
static void put_image(const struct text *x, enum mm_log_kind kind, const struct mm_unique *u, const char *row)
{
    const struct mm_table *t = x->t;
    sqlite3_str *s = x->s;
    int nkey = kind == MM_LOG_MOVE ? key_columns(t) : 0;
    for (int at = 0; at < t->ncol + nkey; at += MM_LOG_VALUES) {
        int n = t->ncol + nkey - at < MM_LOG_VALUES ? t->ncol + nkey - at : MM_LOG_VALUES;
        mm_log_text_put(s, n, x->seldom);
        sqlite3_str_appendf(s, " SELECT %lld,%d", x->number, at == 0 ? (int)kind : (int)MM_LOG_MORE);
        for (int k = at; k < at + n; k++) {
            if (k < t->ncol) {
                sqlite3_str_appendf(s, ",\"%w\"", t->col[k].name);
            } else {
                sqlite3_str_appendf(s, ",NEW.\"%w\"", key_name(t, k - t->ncol + 1));
            }
        }
        mm_log_text_id(s, x->seldom);
        for (int k = at; k < at + n; k++) {
            bool own = k < t->ncol;
            mm_log_text_size(s, x->seldom, own ? "" : "NEW.", own ? t->col[k].name : key_name(t, k - t->ncol + 1));
        }
        sqlite3_str_appendf(s, " FROM \"%w\" NATURAL LEFT JOIN " MM_LOG_PAD " NOT INDEXED WHERE ", t->name, x->number);
        put_match(s, t, u, row);
        sqlite3_str_appendall(s, ";");
    }
}

/* Sets that a new row may meet: the key as NULL, then the UNIQUE ones over
** plain columns. False at the end. */
static bool next_set(const struct mm_table *t, int *at, const struct mm_unique **u)
{
    while (*at < t->nunique) {
        int k = (*at)++;
        *u = k < 0 ? NULL : &t->unique[k];
        if (k < 0 || (t->unique[k].ncol > 0 && t->unique[k].rule == NULL)) {
            return true;
        }
    }
    return false;
}

static void put_evictions(const struct text *x, bool update)
{
    const struct mm_unique *u = NULL;
    const char *glue = "(";
    for (int at = -1; next_set(x->t, &at, &u);) {
        sqlite3_str_appendall(x->s, glue);
        if (update) {
            put_differs(x->s, x->t, u);
            sqlite3_str_appendall(x->s, " AND ");
        }
        sqlite3_str_appendf(x->s, "EXISTS(SELECT 1 FROM \"%w\" WHERE ", x->t->name);
        put_match(x->s, x->t, u, "NEW");
        sqlite3_str_appendall(x->s, ")");
        glue = " OR ";
    }
    sqlite3_str_appendall(x->s, ") BEGIN ");
    for (int at = -1; next_set(x->t, &at, &u);) {
        put_image(x, MM_LOG_IMAGE, u, "NEW");
    }
}

static void put_touch(const struct text *x)
{
    int n = key_columns(x->t);
    mm_log_text_put(x->s, n, x->seldom);
    sqlite3_str_appendf(x->s, " VALUES(%lld,%d", x->number, (int)MM_LOG_TOUCH);
    for (int k = 0; k < n; k++) {
        sqlite3_str_appendf(x->s, ",NEW.\"%w\"", key_name(x->t, k + 1));
    }
    mm_log_text_id(x->s, x->seldom);
    for (int k = 0; k < n && !x->t->integer_key; k++) {
        mm_log_text_size(x->s, x->seldom, "NEW.", key_name(x->t, k + 1));
    }
    sqlite3_str_appendall(x->s, ");");
}

static char *trigger_text(const struct mm_table *t, long long number, int kind, bool guard)
{
    static const char *const events[KINDS] = { "BEFORE INSERT", "AFTER INSERT", "BEFORE UPDATE", "BEFORE UPDATE",
                                               "BEFORE DELETE" };
    bool when = kind == EVICT_INSERT || kind == EVICT_UPDATE;
    const struct text x = { sqlite3_str_new(NULL), t, number, guard || when };
    sqlite3_str_appendf(x.s, "CREATE TRIGGER \"__marmot__%lld_%s\" %s ON \"%w\"", number, ends[kind], events[kind],
                        t->name);
    sqlite3_str_appendall(x.s, " WHEN ");
    if (guard) {
        sqlite3_str_appendf(x.s, MM_TRIGGER_ASK "=0%s", number, when ? " AND " : "");
    } else if (!when) {
        sqlite3_str_appendall(x.s, mm_log_text_room);
    }
    if (when) {
        put_evictions(&x, kind == EVICT_UPDATE);
    } else {
        sqlite3_str_appendall(x.s, " BEGIN ");
    }
    if (kind == CHANGED) {
        put_image(&x, MM_LOG_MOVE, NULL, "OLD");
    } else if (kind == REMOVED) {
        put_image(&x, MM_LOG_IMAGE, NULL, "OLD");
    } else if (kind == ADDED) {
        put_touch(&x);
    }
    sqlite3_str_appendall(x.s, " END");
    return sqlite3_str_finish(x.s);
}

static enum mm_trigger_mode mode_of(sqlite3 *db, const struct mm_table *t, struct mm_err *err)
{
    bool wanted = t != NULL && t->capturable && t->supported && mm_trigger_refuses(t) == NULL &&
                  mm_watch_captures(mm_watch_get(db, t->name, NULL, err));
    return wanted ? mm_trigger_mode_for(db, t->name, err) : MM_TRIGGER_NONE;
}

/* The number of the triggers that stand on a table; 0 = none, or of several. */
static long long number_of(sqlite3 *db, const char *table, struct mm_err *err)
{
    char *name = mm_db_text(db, err,
                            "SELECT CASE WHEN count(DISTINCT CAST(substr(name, 11) AS INTEGER)) = 1 THEN min(name) END"
                            " FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = %Q COLLATE NOCASE"
                            " AND name GLOB '__marmot__*'",
                            table);
    long long number = name != NULL ? atoll(name + strlen("__marmot__")) : 0;
    sqlite3_free(name);
    return number;
}

char *mm_trigger_table(sqlite3 *db, long long number, struct mm_err *err)
{
    return mm_db_text(db, err,
                      "SELECT tbl_name FROM main.sqlite_schema WHERE type = 'trigger' AND name = '__marmot__%lld_bd'",
                      number);
}

bool mm_trigger_there(sqlite3 *db, const char *table, struct mm_err *err)
{
    return number_of(db, table, err) > 0;
}

/* The views that the table's triggers write to; with `add` they are made.
** False when one was missing. */
static bool notes(sqlite3 *db, const struct mm_table *t, bool add, struct mm_err *err)
{
    int most = t->ncol + key_columns(t);
    bool there = mm_log_note(db, key_columns(t), add, err);
    for (int at = 0; at < most; at += MM_LOG_VALUES) {
        there = mm_log_note(db, most - at < MM_LOG_VALUES ? most - at : MM_LOG_VALUES, add, err) && there;
        if (at < t->ncol) {
            there = mm_log_note(db, t->ncol - at < MM_LOG_VALUES ? t->ncol - at : MM_LOG_VALUES, add, err) && there;
        }
    }
    return there;
}

/* True when the table's triggers are there, word by word, and the youngest. */
static bool as_wanted(sqlite3 *db, const struct mm_table *t, bool guard, struct mm_err *err)
{
    long long number = number_of(db, t->name, err);
    bool good = number > 0 &&
                mm_db_int(db, err, 0,
                          "SELECT count(*) FROM main.sqlite_schema WHERE type = 'trigger' AND"
                          " tbl_name = %Q COLLATE NOCASE AND (name GLOB '__marmot__*' OR rowid > (SELECT min(rowid)"
                          " FROM main.sqlite_schema WHERE name GLOB '__marmot__%lld_*'))",
                          t->name, number) == KINDS &&
                mm_log_pad_there(db, number, err) && notes(db, t, false, err);
    for (int kind = 0; good && kind < KINDS; kind++) {
        char *text = trigger_text(t, number, kind, guard);
        if (text == NULL) {
            mm_err_nomem(err);
        }
        good = mm_db_int(db, err, 0, "SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND sql = %Q", text) != 0;
        sqlite3_free(text);
    }
    return good && err->rc == SQLITE_OK;
}

static void make(sqlite3 *db, const struct mm_table *t, bool guard, struct mm_err *err)
{
    struct mm_buf cols;
    mm_buf_init(&cols, COLUMNS_BYTES);
    for (int k = 0; k < t->ncol; k++) {
        mm_buf_add(&cols, t->col[k].name, strlen(t->col[k].name) + 1);
    }
    mm_buf_check(&cols, err, "the columns of a trigger");
    (void)notes(db, t, true, err);
    long long number = mm_log_source_add(db, t->name, &cols, err);
    mm_buf_free(&cols);
    for (int k = 0; k < KINDS && err->rc == SQLITE_OK; k++) {
        char *text = trigger_text(t, number, made[k], guard);
        if (text == NULL) {
            mm_err_nomem(err);
        }
        /* The schema holds the text without the name of the schema. */
        mm_db_exec(db, err, "CREATE TRIGGER main.%s", text != NULL ? text + strlen("CREATE TRIGGER ") : "");
        sqlite3_free(text);
    }
    mm_err_prefix(err, "making the triggers of table %.80s", t->name);
}

/* Drops one trigger that is not wanted as it is; false when all are. */
static bool drop_one(sqlite3 *db, const char *table, struct mm_err *err)
{
    char *name = mm_db_text(db, err,
                            "SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND name GLOB '__marmot__*'"
                            " AND tbl_name = %Q COLLATE NOCASE LIMIT 1",
                            table);
    if (name != NULL) {
        mm_log_source_drop(db, atoll(name + strlen("__marmot__")), err);
        mm_db_exec(db, err, "DROP TRIGGER main.\"%w\"", name);
    }
    sqlite3_free(name);
    return name != NULL && err->rc == SQLITE_OK;
}

/* Whatever is not as it should be is mended, or, with `look`, only found. */
static bool settle(sqlite3 *db, bool look, struct mm_err *err)
{
    bool due = false;
    int n = 0;
    char **names = err->rc == SQLITE_OK ? mm_table_list(db, &n, err) : NULL;
    for (int k = 0; k < n; k++) {
        struct mm_table *t = err->rc == SQLITE_OK && !(look && due) ? mm_table_load(db, names[k], err) : NULL;
        enum mm_trigger_mode mode = t != NULL ? mode_of(db, t, err) : MM_TRIGGER_NONE;
        bool good = t == NULL || (mode == MM_TRIGGER_NONE
                                      ? mm_db_int(db, err, 0,
                                                  "SELECT count(*) FROM main.sqlite_schema WHERE type = 'trigger' AND"
                                                  " name GLOB '__marmot__*' AND tbl_name = %Q COLLATE NOCASE",
                                                  t->name) == 0
                                      : as_wanted(db, t, mode == MM_TRIGGER_GUARD, err));
        due = due || !good;
        if (!good && !look && err->rc == SQLITE_OK) {
            while (drop_one(db, t->name, err)) {
            }
            if (mode != MM_TRIGGER_NONE) {
                make(db, t, mode == MM_TRIGGER_GUARD, err);
            }
        }
        mm_table_free(t);
        free(names[k]);
    }
    free(names);
    return due && err->rc == SQLITE_OK;
}

bool mm_trigger_due(sqlite3 *db, struct mm_err *err)
{
    char *pad = mm_log_pad_left(db, err);
    bool left = pad != NULL;
    sqlite3_free(pad);
    return left || settle(db, true, err);
}

int mm_trigger_settle(sqlite3 *db, struct mm_err *err)
{
    if (settle(db, true, err) && mm_trigger_move(db, NULL, err) == SQLITE_OK) {
        settle(db, false, err);
    }
    return err->rc;
}

int mm_trigger_tidy(sqlite3 *db, struct mm_err *err)
{
    char *pad = NULL;
    while ((pad = mm_log_pad_left(db, err)) != NULL && mm_log_pad_drop(db, pad, err) == SQLITE_OK) {
        sqlite3_free(pad);
    }
    sqlite3_free(pad);
    return err->rc;
}
