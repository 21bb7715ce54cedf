#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "capture/tables.h"
#include "capture/trigger.h"
#include "registry.h"
#include "status_int.h"
#include "store/meta.h"
#include "store/watch.h"

enum { TEXT_MAX = 1 << 20 }; /* bytes of the names of a key */

/* The key's columns in their order, with commas; NULL for a table without. */
static char *key_text(const struct mm_table *t, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, TEXT_MAX);
    for (int place = 1; place <= t->ncol; place++) {
        for (int k = 0; k < t->ncol; k++) {
            if (t->col[k].pk == place) {
                mm_buf_str(&b, b.len > 0 ? ", " : "");
                mm_buf_str(&b, t->col[k].name);
            }
        }
    }
    if (b.len == 0) {
        mm_buf_free(&b);
        return NULL;
    }
    char *text = mm_buf_take(&b);
    if (text == NULL) {
        mm_err_nomem(err);
    }
    return text;
}

static const struct mm_watch_entry *entry_of(const struct mm_watch_entry *list, int n, const char *name)
{
    for (int k = 0; k < n; k++) {
        if (sqlite3_stricmp(list[k].name, name) == 0) {
            return &list[k];
        }
    }
    return NULL;
}

/* Not watched and never was are one to who asks. */
static const char *state_text(enum mm_watch_state state)
{
    return mm_watch_state_name(state == MM_WATCH_NONE ? MM_UNWATCHED : state);
}

static int one_table(sqlite3 *db, struct mm_status_rows *r, const char *name, const struct mm_watch_entry *e,
                     struct mm_err *err)
{
    struct mm_table *t = mm_table_load(db, name, err);
    if (t == NULL) {
        return err->rc;
    }
    char why[256];
    const char *state = state_text(e != NULL ? e->state : t->supported ? MM_WATCH_NONE : MM_UNSUPPORTED);
    const char *cause = e != NULL && e->why != NULL ? e->why : t->why;
    char *key = key_text(t, err);
    bool captured = e != NULL ? mm_watch_captures(e->state) : false;
    const char *refused = mm_trigger_refuses(t);
    bool there = captured && mm_trigger_there(db, t->name, err);
    bool full = there && mm_trigger_mode_for(db, t->name, err) == MM_TRIGGER_FULL;
    bool hooked = captured && !full && !mm_registry_uncaptured(db, why, sizeof why);
    if (captured && !full && !hooked) {
        cause = cause != NULL ? cause : why;
    } else if (captured && !there && mm_trigger_mode_for(db, t->name, err) != MM_TRIGGER_NONE && refused != NULL) {
        sqlite3_snprintf(sizeof why, why, "writers without libmarmot are not captured: %s", refused);
        cause = cause != NULL ? cause : why;
    } else if (captured && !there && mm_trigger_mode(db, err) != MM_TRIGGER_NONE &&
               mm_trigger_mode_for(db, t->name, err) == MM_TRIGGER_NONE) {
        cause = cause != NULL ? cause : "writers without libmarmot are not captured: its mode is 'hook'";
    }
    const char *how = hooked && there ? "auto" : hooked ? "hook" : there ? "trigger" : "none";
    const char *text[] = { t->name, how, key, state, cause };
    mm_status_add(r, text, err);
    free(key);
    mm_table_free(t);
    return err->rc;
}

/* They are never watched, and say why. */
static void virtual_tables(sqlite3 *db, struct mm_status_rows *r, const struct mm_watch_entry *watch, int nwatch,
                           struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(
        db, err, 0, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'virtual' ORDER BY name");
    while (mm_db_step(st, err)) {
        const char *name = (const char *)sqlite3_column_text(st, 0);
        if (name != NULL && !mm_table_internal(name)) {
            one_table(db, r, name, entry_of(watch, nwatch, name), err);
        }
    }
    mm_db_finalize(st);
}

int mm_status_tables(sqlite3 *db, struct mm_status_rows *r, struct mm_err *err)
{
    int nwatch = 0;
    struct mm_watch_entry *watch = mm_meta_exists(db, err) ? mm_watch_list(db, &nwatch, err) : NULL;
    int n = 0;
    char **name = err->rc == SQLITE_OK ? mm_table_list(db, &n, err) : NULL;
    for (int k = 0; k < n; k++) {
        one_table(db, r, name[k], entry_of(watch, nwatch, name[k]), err);
    }
    virtual_tables(db, r, watch, nwatch, err);
    for (int k = 0; k < nwatch && err->rc == SQLITE_OK; k++) {
        bool there =
            mm_db_int(db, err, 0, "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = %Q COLLATE NOCASE",
                      watch[k].name) != 0;
        if (!there) {
            const char *text[] = { watch[k].name, "none", NULL, mm_watch_state_name(watch[k].state),
                                   watch[k].why != NULL ? watch[k].why : MM_WATCH_GONE };
            mm_status_add(r, text, err);
        }
    }
    for (int k = 0; k < n; k++) {
        free(name[k]);
    }
    free(name);
    mm_watch_list_free(watch, nwatch);
    return err->rc;
}
