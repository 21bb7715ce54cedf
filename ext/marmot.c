/* The entry points. SQLite calls one of them for every connection that loads
** this library; the library then stays until the process ends. */
#include <pthread.h>
#include <stddef.h>

#include "base/err.h"
#include "base/log.h"
#include "base/sqlite.h"
#include "functions.h"
#include "registry.h"
#include "status.h"

SQLITE_EXTENSION_INIT1

#define MM_EXPORT __attribute__((visibility("default")))

enum { OLDEST_SQLITE = 3037000 };

MM_EXPORT int sqlite3_marmot_init(sqlite3 *db, char **message, const sqlite3_api_routines *api);
MM_EXPORT int sqlite3_extension_init(sqlite3 *db, char **message, const sqlite3_api_routines *api);

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

/* A build without mutexes has none to give; one that was configured
** single-threaded at run time gives the same one twice. */
static int single_threaded(const sqlite3_api_routines *api)
{
    if (api->mutex_alloc == NULL || api->xthreadsafe() == 0) {
        return 1;
    }
    sqlite3_mutex *a = api->mutex_alloc(SQLITE_MUTEX_FAST);
    sqlite3_mutex *b = api->mutex_alloc(SQLITE_MUTEX_FAST);
    int single = a == b;
    api->mutex_free(a);
    api->mutex_free(b);
    return single;
}

/* Accepts the routines of one SQLite for the whole life of the process. Until
** they are accepted, only what has always been in the table is called. */
static int accept_sqlite(char **message, const sqlite3_api_routines *api)
{
    char *why = NULL;
    int rc = SQLITE_OK;
    (void)pthread_mutex_lock(&loading);
    if (sqlite3_api != NULL && sqlite3_api != api) {
        rc = SQLITE_ERROR;
        why = api->mprintf("libmarmot: another SQLite (%s) of this process uses this library already, and this is %s: "
                           "load it through one SQLite only",
                           sqlite3_libversion(), api->libversion());
    } else if (api->libversion_number() < OLDEST_SQLITE) {
        rc = SQLITE_ERROR;
        why = api->mprintf("libmarmot: SQLite %s is too old: 3.37.0 or newer is needed", api->libversion());
    } else if (sqlite3_api == NULL && single_threaded(api)) {
        rc = SQLITE_ERROR;
        why = api->mprintf("libmarmot: this SQLite is single-threaded (THREADSAFE=0), and replication needs a thread: "
                           "use a build with threads");
    } else if (sqlite3_api == NULL) {
        struct mm_err err;
        mm_err_init(&err);
        rc = mm_registry_open(&err);
        if (rc == SQLITE_OK) {
            sqlite3_api = api;
        } else {
            why = api->mprintf("libmarmot: %s", err.msg);
        }
    }
    (void)pthread_mutex_unlock(&loading);
    if (rc != SQLITE_OK && message != NULL) {
        *message = why;
    } else {
        api->free(why);
    }
    return rc;
}

static int register_all(sqlite3 *db, bool explicit_load, struct mm_err *err)
{
    int known = mm_registry_connection(db, explicit_load, err);
    if (known == 1 && (mm_functions_register(db) != SQLITE_OK || mm_status_register(db) != SQLITE_OK)) {
        mm_err_set(err, sqlite3_errcode(db), "cannot register the SQL functions: %s", sqlite3_errmsg(db));
    }
    if (known == 1 && err->rc == SQLITE_OK && explicit_load) {
        mm_registry_loaded(db);
    }
    return err->rc;
}

/* For connections of this process that do not load us themselves. */
static int auto_entry(sqlite3 *db, char **message, const sqlite3_api_routines *api)
{
    (void)message;
    struct mm_err err;
    mm_err_init(&err);
    if (api == sqlite3_api && register_all(db, false, &err) != SQLITE_OK) {
        mm_log(MM_LOG_WARN, "a connection is not captured: %s", err.msg);
    }
    return SQLITE_OK;
}

int sqlite3_marmot_init(sqlite3 *db, char **message, const sqlite3_api_routines *api)
{
    int rc = accept_sqlite(message, api);
    if (rc != SQLITE_OK) {
        return rc;
    }
    struct mm_err err;
    mm_err_init(&err);
    if (sqlite3_auto_extension((void (*)(void))auto_entry) != SQLITE_OK) {
        mm_err_nomem(&err);
    }
    if (err.rc == SQLITE_OK) {
        register_all(db, true, &err);
    }
    if (err.rc != SQLITE_OK) {
        if (message != NULL) {
            *message = sqlite3_mprintf("libmarmot: %s", err.msg);
        }
        return err.rc;
    }
    return SQLITE_OK_LOAD_PERMANENTLY;
}

int sqlite3_extension_init(sqlite3 *db, char **message, const sqlite3_api_routines *api)
{
    return sqlite3_marmot_init(db, message, api);
}
