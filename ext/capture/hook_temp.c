/* The second way into a transaction, for connections whose authorizer denies
** the first one (hook_txn.c): TEMP triggers that never fire. SQLite compiles
** what they would write, marmot_capture, into every statement of the
** application that writes a watched table, and so opens it at the statement's
** begin; the authorizer is told the trigger's name then. They cost half of a
** bulk write, so nobody else gets them. */
#include <stdlib.h>

#include "base/db.h"
#include "capture/hook_int.h"
#include "store/watch.h"

/* An authorizer may deny one kind of write and allow another. */
static const char *const bodies[] = { "INSERT INTO marmot_capture(a) VALUES (1)", "UPDATE marmot_capture SET a = 1",
                                      "DELETE FROM marmot_capture" };
static const char *const events[] = { "INSERT", "UPDATE", "DELETE" };

enum { BODIES = sizeof bodies / sizeof bodies[0], EVENTS = sizeof events / sizeof events[0] };

static bool compiles(sqlite3 *db, const struct mm_table *t, int event)
{
    struct mm_err err;
    mm_err_init(&err);
    const char *column = t->col[0].name;
    sqlite3_stmt *st = NULL;
    if (event == 0) {
        st = mm_db_prepare(db, &err, 0, "INSERT INTO main.\"%w\"(\"%w\") VALUES (NULL)", t->name, column);
    } else if (event == 1) {
        st = mm_db_prepare(db, &err, 0, "UPDATE main.\"%w\" SET \"%w\" = \"%w\"", t->name, column, column);
    } else {
        st = mm_db_prepare(db, &err, 0, "DELETE FROM main.\"%w\"", t->name);
    }
    mm_db_finalize(st);
    return st != NULL;
}

/* True when the application's statement of that kind joins now. A body that
** is denied would make the statement itself fail: it goes again. */
static bool make_one(sqlite3 *db, const struct mm_table *t, int event)
{
    struct mm_err err;
    bool was = compiles(db, t, event);
    for (int body = 0; body < BODIES; body++) {
        mm_err_init(&err);
        mm_db_exec(db, &err, "DROP TRIGGER IF EXISTS temp.\"__marmot__join_%s_%w\"", events[event], t->name);
        mm_db_exec(db, &err,
                   "CREATE TEMP TRIGGER \"__marmot__join_%s_%w\" AFTER %s ON main.\"%w\" WHEN 0 BEGIN %s; END",
                   events[event], t->name, events[event], t->name, bodies[body]);
        if (err.rc == SQLITE_OK && (!was || compiles(db, t, event))) {
            return true;
        }
        mm_err_init(&err);
        mm_db_exec(db, &err, "DROP TRIGGER IF EXISTS temp.\"__marmot__join_%s_%w\"", events[event], t->name);
    }
    return false;
}

static bool captured(struct mm_hook *h, const struct mm_table *t, struct mm_err *err)
{
    enum mm_watch_state state = mm_watch_get(h->db, t->name, NULL, err);
    return t->capturable && (mm_watch_captures(state) || (state == MM_WATCH_NONE && h->watch_all && t->supported));
}

bool mm_hook_temp_join(struct mm_hook *h, struct mm_err *err)
{
    int n = 0;
    char **names = mm_hook_head(h, err) == SQLITE_OK ? mm_table_list(h->db, &n, err) : NULL;
    bool all = err->rc == SQLITE_OK;
    for (int k = 0; k < n; k++) {
        struct mm_table *t = mm_table_load(h->db, names[k], err);
        for (int event = 0; t != NULL && captured(h, t, err) && event < EVENTS; event++) {
            all = make_one(h->db, t, event) && all;
        }
        mm_table_free(t);
        free(names[k]);
    }
    free(names);
    h->temp_join = err->rc == SQLITE_OK;
    return all && err->rc == SQLITE_OK;
}
