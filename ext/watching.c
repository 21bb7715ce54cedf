#include "watching.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "capture/hook.h"
#include "capture/tables.h"
#include "capture/trigger.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "store/policy.h"
#include "store/stray.h"
#include "store/watch.h"

/* Names longer than this are not compared for likeness; a name is a suggestion
** up to this many edits, and up to a third of its length. */
enum { NEAR_LEN = 64, NEAR_EDITS = 3 };

static int edits(const char *a, const char *b)
{
    int row[NEAR_LEN + 1];
    size_t na = strlen(a);
    size_t nb = strlen(b);
    if (na > NEAR_LEN || nb > NEAR_LEN) {
        return NEAR_EDITS + 1;
    }
    for (size_t j = 0; j <= nb; j++) {
        row[j] = (int)j;
    }
    for (size_t i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            int best = diagonal + !same;
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[nb];
}

/* The most similar of n names; NULL when none is similar. */
static const char *nearest_of(const char *name, const char *const *names, int n)
{
    const char *nearest = NULL;
    int least = NEAR_EDITS + 1;
    for (int k = 0; k < n; k++) {
        int d = edits(name, names[k]);
        if (d < least && (size_t)d * 3 <= strlen(names[k]) + 1) {
            least = d;
            nearest = names[k];
        }
    }
    return nearest;
}

static void free_names(char **names, int n)
{
    for (int k = 0; k < n; k++) {
        free(names[k]);
    }
    free(names);
}

static int no_such_table(sqlite3 *db, const char *table, struct mm_err *err)
{
    int n = 0;
    char **names = mm_table_list(db, &n, err);
    const char *nearest = nearest_of(table, (const char *const *)names, n);
    if (nearest != NULL) {
        mm_err_set(err, SQLITE_ERROR, "there is no table '%.100s' in the main database: did you mean '%.100s'?", table,
                   nearest);
    } else {
        mm_err_set(err, SQLITE_ERROR,
                   "there is no table '%.100s' in the main database: CREATE it first, or see "
                   "SELECT name FROM marmot_tables",
                   table);
    }
    free_names(names, n);
    return err->rc;
}

int mm_watching_writable(sqlite3 *db, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && sqlite3_db_readonly(db, "main") == 1) {
        mm_err_set(err, SQLITE_READONLY, "this connection is read-only: call it on one that may write");
    } else if (err->rc == SQLITE_OK && mm_db_int(db, err, 0, "PRAGMA query_only") != 0) {
        mm_err_set(err, SQLITE_READONLY, "query_only is on for this connection: PRAGMA query_only=0 first");
    }
    return err->rc;
}

/* A transaction when there is none, else a savepoint. */
static int begin(sqlite3 *db, struct mm_err *err)
{
    if (sqlite3_get_autocommit(db) == 0) {
        mm_meta_lock(db, err);
    }
    if (!mm_meta_exists(db, err) && err->rc == SQLITE_OK) {
        mm_err_set(err, SQLITE_ERROR, "this database is no node yet: call marmot_init() first");
    }
    mm_watching_writable(db, err);
    if (sqlite3_get_autocommit(db) != 0 && sqlite3_txn_state(db, "main") == SQLITE_TXN_WRITE) {
        mm_err_set(err, SQLITE_ERROR,
                   "a statement of this connection is writing the database: call this function in a SELECT of its own");
    }
    mm_db_exec(db, err, sqlite3_get_autocommit(db) ? "BEGIN IMMEDIATE" : "SAVEPOINT __marmot__watching");
    return mm_trigger_move(db, NULL, err); /* by the list of watched tables as it was */
}

/* Changes the schema cookie. A view, since dropping a table is refused while
** any statement of this connection reads. */
static int touch_schema(sqlite3 *db, struct mm_err *err)
{
    return mm_db_exec(db, err, "CREATE VIEW main.__marmot__touch AS SELECT 1; DROP VIEW main.__marmot__touch");
}

static int end(sqlite3 *db, bool own, struct mm_err *err)
{
    struct mm_inbox_end inbox = { 0 };
    if (own) {
        mm_stray_commit(db, err);
    } else {
        mm_inbox_stamp_next(db, &inbox, err);
        mm_db_exec(db, err, "RELEASE __marmot__watching");
    }
    if (err->rc == SQLITE_OK) {
        return SQLITE_OK;
    }
    if (sqlite3_get_autocommit(db) == 0) {
        struct mm_err second;
        mm_err_init(&second);
        mm_db_exec(db, &second, own ? "ROLLBACK" : "ROLLBACK TO __marmot__watching; RELEASE __marmot__watching");
    }
    return err->rc;
}

static int finish(sqlite3 *db, bool own, struct mm_err *err)
{
    touch_schema(db, err);
    mm_trigger_settle(db, err);
    return end(db, own, err);
}

/* Loads the table by the name that the schema has for it. */
static struct mm_table *load(sqlite3 *db, const char *table, struct mm_err *err)
{
    if (mm_table_internal(table)) {
        mm_err_set(err, SQLITE_ERROR,
                   "'%.100s' is an internal name (sqlite_, __marmot__ or empty), which is never "
                   "replicated: name one of your own tables",
                   table);
        return NULL;
    }
    struct mm_table *t = mm_table_load(db, table, err);
    if (t == NULL) {
        no_such_table(db, table, err);
    }
    return t;
}

static void add_one(sqlite3 *db, const char *table, const char *mode, struct mm_err *err)
{
    mm_watch_add(db, table, err);
    if (mode != NULL) {
        mm_watch_set_capture(db, table, mode, err);
    }
}

static int check_mode(const char *mode, struct mm_err *err)
{
    const char *why = NULL;
    if (mode == NULL || strcmp(mode, "auto") == 0 || strcmp(mode, "trigger") == 0) {
        return err->rc;
    }
    if (strcmp(mode, "hook") != 0) {
        return mm_err_set(err, SQLITE_ERROR, "unknown mode '%.40s': use 'auto', 'hook' or 'trigger'", mode);
    }
    if (!mm_hook_available(&why)) {
        mm_err_set(err, SQLITE_ERROR, "this host's SQLite does not offer what mode 'hook' needs (%.200s): use 'auto'",
                   why);
    }
    return err->rc;
}

int mm_watching_add(sqlite3 *db, const char *table, const char *mode, struct mm_err *err)
{
    if (check_mode(mode, err) != SQLITE_OK) {
        return err->rc;
    }
    bool own = sqlite3_get_autocommit(db) != 0;
    if (begin(db, err) != SQLITE_OK) {
        return err->rc;
    }
    struct mm_table *t = load(db, table, err);
    if (t != NULL && !t->supported) {
        mm_err_set(err, SQLITE_ERROR, "table '%.100s' cannot be watched: %.350s", t->name, t->why);
    } else if (t != NULL && mode != NULL && strcmp(mode, "trigger") == 0 && mm_trigger_refuses(t) != NULL) {
        mm_err_set(err, SQLITE_ERROR, "table '%.100s' cannot be captured by triggers: %.200s", t->name,
                   mm_trigger_refuses(t));
    } else if (t != NULL) {
        add_one(db, t->name, mode, err);
    }
    mm_table_free(t);
    return finish(db, own, err);
}

int mm_watching_remove(sqlite3 *db, const char *table, struct mm_err *err)
{
    bool own = sqlite3_get_autocommit(db) != 0;
    if (begin(db, err) != SQLITE_OK) {
        return err->rc;
    }
    /* A table that is gone may still be on the list. */
    if (mm_watch_get(db, table, NULL, err) == MM_WATCH_NONE) {
        mm_table_free(load(db, table, err));
    }
    if (err->rc == SQLITE_OK) {
        mm_watch_set(db, table, MM_UNWATCHED, NULL, err);
    }
    return finish(db, own, err);
}

static bool add_one_of_all(sqlite3 *db, const char *name, const char *mode, struct mm_err *err)
{
    struct mm_table *t = mm_table_load(db, name, err);
    if (t == NULL) {
        return false;
    }
    bool supported = t->supported;
    if (supported) {
        add_one(db, t->name, mode, err);
    } else if (!mm_watch_captures(mm_watch_get(db, t->name, NULL, err))) {
        mm_watch_set(db, t->name, MM_UNSUPPORTED, t->why, err);
    }
    mm_table_free(t);
    return supported;
}

int mm_watching_add_all(sqlite3 *db, const char *mode, struct mm_err *err)
{
    bool own = sqlite3_get_autocommit(db) != 0;
    if (check_mode(mode, err) != SQLITE_OK || begin(db, err) != SQLITE_OK) {
        return -1;
    }
    int watched = 0;
    int n = 0;
    char **names = mm_table_list(db, &n, err);
    mm_head_set_watch_all(db, true, err);
    if (mode != NULL) {
        mm_meta_set_text(db, MM_META_MODE, mode, err);
    }
    for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
        watched += add_one_of_all(db, names[k], mode, err);
    }
    free_names(names, n);
    return finish(db, own, err) == SQLITE_OK ? watched : -1;
}

int mm_watching_began(sqlite3 *db, struct mm_err *err)
{
    int n = 0;
    bool any = mm_head_watch_all(db, err); /* an empty file joins by that */
    struct mm_watch_entry *list = mm_watch_list(db, &n, err);
    for (int k = 0; k < n; k++) {
        any = any || list[k].state != MM_UNSUPPORTED;
    }
    mm_watch_list_free(list, n);
    if (!any) {
        mm_err_set(
            err, SQLITE_ERROR,
            "no table is watched, so nothing is replicated: call marmot_watch_all() or marmot_watch(table) first");
    }
    return err->rc;
}

static int no_such_column(sqlite3 *db, const struct mm_table *t, const char *column, struct mm_err *err)
{
    int64_t generated = mm_db_int(db, err, 0,
                                  "SELECT 1 FROM pragma_table_xinfo(%Q, 'main') WHERE name = %Q COLLATE NOCASE"
                                  " AND hidden <> 0",
                                  t->name, column);
    if (generated != 0) {
        return mm_err_set(
            err, SQLITE_ERROR,
            "column '%.100s' of table '%.100s' is generated and never travels: set the rule of the columns "
            "that it is computed from",
            column, t->name);
    }
    const char **names = calloc((size_t)t->ncol, sizeof *names);
    if (names == NULL) {
        return mm_err_nomem(err);
    }
    for (int k = 0; k < t->ncol; k++) {
        names[k] = t->col[k].name;
    }
    const char *nearest = nearest_of(column, names, t->ncol);
    if (nearest != NULL) {
        mm_err_set(err, SQLITE_ERROR, "table '%.100s' has no column '%.100s': did you mean '%.100s'?", t->name, column,
                   nearest);
    } else {
        mm_err_set(err, SQLITE_ERROR, "table '%.100s' has no column '%.100s': see PRAGMA table_info", t->name, column);
    }
    free(names);
    return err->rc;
}

static void set_policy(sqlite3 *db, const struct mm_table *t, const char *column, enum mm_policy p, struct mm_err *err)
{
    if (!mm_watch_captures(mm_watch_get(db, t->name, NULL, err))) {
        mm_err_set(err, SQLITE_ERROR,
                   "table '%.100s' is not watched, so its changes meet no others: call marmot_watch('%.100s') first",
                   t->name, t->name);
    }
    int k = 0;
    while (k < t->ncol && sqlite3_stricmp(t->col[k].name, column) != 0) {
        k++;
    }
    if (k == t->ncol) {
        no_such_column(db, t, column, err);
    } else if (t->keyless) {
        mm_err_set(err, SQLITE_ERROR,
                   "table '%.100s' has no key, so two nodes never change the same row of it: give it a PRIMARY KEY",
                   t->name);
    } else if (t->col[k].pk != 0) {
        mm_err_set(err, SQLITE_ERROR,
                   "column '%.100s' is in the key of table '%.100s', and another key is another row: name a column "
                   "outside of the key",
                   t->col[k].name, t->name);
    } else {
        mm_policy_request(db, t->name, t->col[k].name, p, err);
    }
}

int mm_watching_policy(sqlite3 *db, const char *table, const char *column, const char *rule, struct mm_err *err)
{
    enum mm_policy p = mm_policy_of(rule);
    if (p == MM_POLICY_COUNT) {
        return mm_err_set(err, SQLITE_ERROR, "unknown rule '%.40s': give 'last', 'delta', 'max' or 'min'", rule);
    }
    bool own = sqlite3_get_autocommit(db) != 0;
    if (begin(db, err) != SQLITE_OK) {
        return err->rc;
    }
    struct mm_table *t = load(db, table, err);
    if (t != NULL) {
        set_policy(db, t, column, p, err);
    }
    mm_table_free(t);
    return end(db, own, err);
}
