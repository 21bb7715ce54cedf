/* marmot_init, marmot_stop, marmot_cleanup: from a connection to a running
** node and back. */
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "capture/hook.h"
#include "config.h"
#include "identity.h"
#include "node.h"
#include "registry.h"
#include "registry_int.h"
#include "setup.h"
#include "store/meta.h"
#include "store/outbox.h"

/* How long marmot_cleanup waits for echoes that are on their way. */
enum { CLEANUP_SYNC_MS = 2000, CLEANUP_LOCK_MS = 5000 };

static struct mm_node *node_of(struct mm_registry_file *e)
{
    mm_registry_lock();
    struct mm_node *n = e->node;
    mm_registry_unlock();
    return n;
}

/* A second marmot_init: the same configuration, or none. `given` is taken. */
static int same_config(const struct mm_node *n, struct mm_config *given, struct mm_err *err)
{
    if (given != NULL) {
        if (given->node_id == 0) {
            given->node_id = mm_node_id(n);
        }
        if (!mm_config_equal(given, mm_node_config(n))) {
            mm_err_set(err, SQLITE_ERROR,
                       "this database runs with another configuration already: call marmot_stop() "
                       "first, or marmot_init() without argument to keep it");
        }
        mm_config_free(given);
    }
    return err->rc;
}

/* The file under the running node may have been replaced by another. */
static int same_file(sqlite3 *db, const char *path, struct mm_err *err)
{
    char *identity = mm_identity_file(path, err);
    char *stored = mm_meta_exists(db, err) ? mm_meta_text(db, MM_META_FILE, err) : NULL;
    if (err->rc == SQLITE_OK && (stored == NULL || strcmp(stored, identity) != 0)) {
        mm_err_set(err, SQLITE_ERROR,
                   "%.200s was replaced while its node runs on the old file: call marmot_stop() "
                   "first",
                   path);
    }
    free(identity);
    sqlite3_free(stored);
    return err->rc;
}

/* The answer, with a warning of this connection put into its list. */
static int answer(sqlite3 *db, struct mm_node *n, struct mm_buf *out, struct mm_err *err)
{
    if (mm_node_status(n, true, out, err) != SQLITE_OK || mm_db_int(db, err, 0, "PRAGMA busy_timeout") != 0) {
        return err->rc;
    }
    struct mm_buf copy;
    mm_buf_init(&copy, out->max);
    mm_buf_add(&copy, out->data, out->len);
    char *text = mm_buf_take(&copy);
    struct mm_err none;
    mm_err_init(&none);
    char *more = text == NULL ? NULL
                              : mm_db_text(db, &none, "SELECT json_insert(%Q, '$.warnings[#]', %Q)", text,
                                           "busy_timeout is 0 on this connection: replication and other writers will "
                                           "make its statements fail with SQLITE_BUSY; set PRAGMA busy_timeout=5000");
    if (more != NULL) { /* without JSON functions in the host the answer stays as it is */
        mm_buf_clear(out);
        mm_buf_str(out, more);
    }
    sqlite3_free(more);
    free(text);
    return err->rc;
}

/* The log is one for the process: the newest start decides. */
static int open_log(const struct mm_config *config, struct mm_err *err)
{
    int rc = mm_log_setup(config->logging.verbose, strcmp(config->logging.format, "json") == 0, config->logging.file);
    if (rc != 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "cannot open logging.file %.200s (%s): name a file that can be written",
                   config->logging.file, strerror(rc));
    }
    return err->rc;
}

/* `starting` held on entry; `given` is taken. */
static int start(struct mm_registry_conn *c, struct mm_registry_file *e, struct mm_config *given, struct mm_err *err)
{
    struct mm_node *n = node_of(e);
    if (n != NULL) {
        if (same_config(n, given, err) == SQLITE_OK && same_file(c->db, e->path, err) == SQLITE_OK) {
            mm_registry_attach(c, err);
        }
        return err->rc;
    }
    struct mm_config *config = mm_setup_database(c->db, e->path, given, err);
    if (config == NULL || open_log(config, err) != SQLITE_OK || mm_registry_attach(c, err) != SQLITE_OK) {
        mm_config_free(config);
        return err->rc;
    }
    int64_t incarnation = mm_head_incarnation(c->db, err);
    n = mm_node_open(e->path, mm_setup_vfs(c->db), config, incarnation, err);
    mm_registry_lock();
    e->node = n;
    mm_registry_unlock();
    mm_registry_tables_changed(c->db);
    return err->rc;
}

int mm_registry_init(sqlite3 *db, const char *text, struct mm_buf *out, struct mm_err *err)
{
    struct mm_registry_conn *c = mm_registry_known(db, err);
    if (c == NULL || mm_setup_check(db, err) != SQLITE_OK) {
        return err->rc;
    }
    struct mm_config *given = text != NULL ? mm_config_parse(text, err) : NULL;
    const char *why = "";
    if (given != NULL && given->capture == MM_CAPTURE_HOOK && !mm_hook_available(&why)) {
        mm_err_set(err, SQLITE_ERROR,
                   "this host's SQLite does not offer what capture = 'hook' needs (%s): use 'auto' or 'trigger'", why);
    }
    char *path = err->rc == SQLITE_OK ? mm_setup_path(db, err) : NULL;
    struct mm_registry_file *e = path != NULL ? mm_registry_enter(c, path, err) : NULL;
    free(path);
    if (e == NULL) {
        mm_config_free(given);
        return err->rc;
    }
    (void)pthread_mutex_lock(&e->starting);
    if (start(c, e, given, err) == SQLITE_OK) {
        answer(db, node_of(e), out, err);
    }
    (void)pthread_mutex_unlock(&e->starting);
    return err->rc;
}

/* The entry of a connection outside a transaction; NULL with err set, or when
** its file is not registered. */
static struct mm_registry_file *entry_of(sqlite3 *db, struct mm_err *err)
{
    struct mm_registry_conn *c = mm_registry_known(db, err);
    if (c == NULL) {
        return NULL;
    }
    if (sqlite3_get_autocommit(db) == 0) {
        mm_err_set(err, SQLITE_ERROR, "this connection is inside a transaction: COMMIT or ROLLBACK first");
        return NULL;
    }
    mm_registry_lock();
    struct mm_registry_file *e = c->entry;
    mm_registry_unlock();
    return e;
}

/* `starting` held on entry. 1 when there was a node. */
static int stop(struct mm_registry_file *e, int drain_ms, struct mm_err *err)
{
    mm_registry_lock();
    struct mm_node *n = e->node;
    int users = e->users;
    if (users == 0) {
        e->node = NULL;
    }
    mm_registry_unlock();
    if (n != NULL && users > 0) {
        mm_err_set(err, SQLITE_BUSY,
                   "%d other call%s (marmot_sync, marmot_status) use%s this node right now: call "
                   "again when they have returned",
                   users, users == 1 ? "" : "s", users == 1 ? "s" : "");
        return 0;
    }
    mm_node_close(n, drain_ms);
    return n != NULL;
}

int mm_registry_stop(sqlite3 *db, struct mm_err *err)
{
    struct mm_registry_file *e = entry_of(db, err);
    if (e == NULL) {
        return 0;
    }
    (void)pthread_mutex_lock(&e->starting);
    int stopped = stop(e, MM_DRAIN_MS, err);
    (void)pthread_mutex_unlock(&e->starting);
    return stopped;
}

/* What is echoed for certain: all of it when the node says so now, else what
** the bookkeeping knows (0 adds nothing to that). */
static int64_t echoed_now(sqlite3 *db, struct mm_err *err)
{
    int64_t last = mm_setup_last(db, CLEANUP_LOCK_MS, err);
    struct mm_err no_node;
    mm_err_init(&no_node);
    struct mm_node *n = mm_registry_acquire(db, &no_node);
    if (n == NULL) {
        return 0;
    }
    int echoed = mm_node_sync(n, last, CLEANUP_SYNC_MS, &no_node);
    mm_registry_release(n);
    return echoed == 1 ? last : 0;
}

int mm_registry_cleanup(sqlite3 *db, bool discard, struct mm_err *err)
{
    struct mm_registry_conn *c = mm_registry_known(db, err);
    if (c == NULL || mm_setup_check(db, err) != SQLITE_OK || !mm_meta_exists(db, err)) {
        return err->rc;
    }
    char *path = mm_setup_path(db, err);
    struct mm_registry_file *e = path != NULL ? mm_registry_enter(c, path, err) : NULL;
    free(path);
    if (e == NULL) {
        return err->rc;
    }
    int64_t echoed = 0;
    (void)pthread_mutex_lock(&e->starting);
    if (!discard) {
        echoed = echoed_now(db, err);
        if (err->rc == SQLITE_OK) {
            mm_setup_pending(db, echoed, err);
        }
    }
    if (err->rc == SQLITE_OK) {
        stop(e, discard ? 0 : MM_DRAIN_MS, err);
    }
    if (err->rc == SQLITE_OK) {
        mm_setup_remove(db, e->path, discard, echoed, err);
    }
    (void)pthread_mutex_unlock(&e->starting);
    if (err->rc == SQLITE_OK && c->hook != NULL) {
        mm_hook_detach(c->hook);
        c->capturing = false;
    }
    return err->rc;
}
