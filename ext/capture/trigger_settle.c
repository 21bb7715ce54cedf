/* Makes the triggers of the watched tables what they should be. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "capture/defaults.h"
#include "capture/index_rule.h"
#include "capture/trigger_int.h"
#include "store/log.h"
#include "store/meta.h"
#include "store/watch.h"

/* In the order in which they are made. SQLite fires the youngest trigger of an
** event first: what would be evicted is noted before the row that evicts it. */
static const int made[MM_TRIGGER_KINDS] = { MM_TRIGGER_EVICT_INSERT, MM_TRIGGER_ADDED,   MM_TRIGGER_CHANGED,
                                            MM_TRIGGER_EVICT_UPDATE, MM_TRIGGER_REMOVED, MM_TRIGGER_BECAME,
                                            MM_TRIGGER_WENT };

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

/* Views for n values. */
static bool notes_of(sqlite3 *db, int n, bool add, struct mm_err *err)
{
    bool there = true;
    for (int at = 0; at < n; at += MM_LOG_VALUES) {
        there = mm_log_note(db, n - at < MM_LOG_VALUES ? n - at : MM_LOG_VALUES, add, err) && there;
    }
    return there;
}

/* The views that the table's triggers write to; with `add` they are made.
** False when one was missing. */
static bool notes(sqlite3 *db, const struct mm_table *t, bool add, struct mm_err *err)
{
    bool by_rowid = mm_trigger_by_rowid(t);
    int nkey = by_rowid ? 1 : mm_trigger_key_columns(t);
    bool there = notes_of(db, nkey, add, err);
    there = notes_of(db, t->ncol + (by_rowid ? 1 : 0), add, err) && there;
    return notes_of(db, t->ncol + (by_rowid ? 2 : nkey), add, err) && there;
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
                          t->name, number) == mm_trigger_kinds(t) &&
                mm_log_pad_there(db, number, err) && notes(db, t, false, err);
    for (int kind = 0; good && kind < mm_trigger_kinds(t); kind++) {
        char *text = mm_trigger_text(t, number, kind, guard);
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
    for (int k = 0; k < mm_trigger_kinds(t) && err->rc == SQLITE_OK; k++) {
        char *text = mm_trigger_text(t, number, made[k], guard);
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
        if (mode != MM_TRIGGER_NONE) {
            mm_index_match(db, t, err);
            mm_defaults_instead(db, t, err);
        }
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
