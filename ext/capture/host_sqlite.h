/* The routines of SQLite that no extension is handed: the preupdate hook.
**
** They are looked up in the very object that our routine table came from, and
** in no other: a second SQLite in the process has symbols of the same names
** that know nothing of this one's handles (SPEC 2).
**
** Threads: any. The answer is found once for each routine table and kept. */
#ifndef MM_CAPTURE_HOST_SQLITE_H
#define MM_CAPTURE_HOST_SQLITE_H

#include "base/sqlite.h"

typedef void mm_preupdate_fn(void *arg, sqlite3 *db, int op, const char *schema, const char *table,
                             sqlite3_int64 old_rowid, sqlite3_int64 new_rowid);

struct mm_host {
    void *(*preupdate_hook)(sqlite3 *db, mm_preupdate_fn *fn, void *arg);
    int (*preupdate_old)(sqlite3 *db, int column, sqlite3_value **value);
    int (*preupdate_new)(sqlite3 *db, int column, sqlite3_value **value);
    int (*preupdate_count)(sqlite3 *db);
    int (*preupdate_depth)(sqlite3 *db);
    int (*preupdate_blobwrite)(sqlite3 *db);
};

/* NULL when this SQLite hides the hook; `why` (may be NULL) then gets the
** reason, a static text. */
const struct mm_host *mm_host_sqlite(const char **why);

#endif
