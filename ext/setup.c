#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/db.h"
#include "capture/hook.h"
#include "capture/trigger.h"
#include "identity.h"
#include "store/log.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "store/stray.h"

/* How long a lock of somebody else is waited for when the application set no
** busy_timeout, and how often it is tried. */
enum { LOCK_WAIT_MS = 5000, LOCK_STEP_MS = 20, CONFIG_MAX = 1 << 20 };

int mm_setup_check(sqlite3 *db, struct mm_err *err)
{
    const char *file = sqlite3_db_filename(db, "main");
    if (file == NULL || file[0] == '\0') {
        return mm_err_set(err, SQLITE_ERROR,
                          "the main database is in memory or temporary, and a node needs a file that outlives "
                          "the connection: open a database file");
    }
    if (sqlite3_db_readonly(db, "main") == 1) {
        return mm_err_set(err, SQLITE_READONLY,
                          "%.200s is open read-only, and a node applies what others write: open it read-write", file);
    }
    if (sqlite3_get_autocommit(db) == 0) {
        return mm_err_set(err, SQLITE_ERROR, "this connection is inside a transaction: COMMIT or ROLLBACK first");
    }
    if (sqlite3_txn_state(db, "main") != SQLITE_TXN_NONE) {
        return mm_err_set(err, SQLITE_ERROR,
                          "a statement of this connection is still reading or writing the database: finish or "
                          "reset it, and call this function in a SELECT of its own");
    }
    if (mm_db_int(db, err, 0, "PRAGMA query_only") != 0) {
        return mm_err_set(err, SQLITE_READONLY, "query_only is on for this connection: PRAGMA query_only=0 first");
    }
    char *mode = mm_db_text(db, err, "PRAGMA main.locking_mode");
    if (mode != NULL && sqlite3_stricmp(mode, "exclusive") == 0) {
        mm_err_set(err, SQLITE_ERROR,
                   "locking_mode is EXCLUSIVE, which keeps the replication thread out: PRAGMA locking_mode=NORMAL, "
                   "then read the database once");
    }
    sqlite3_free(mode);
    return err->rc;
}

char *mm_setup_path(sqlite3 *db, struct mm_err *err)
{
    const char *file = sqlite3_db_filename(db, "main");
    if (file == NULL || file[0] == '\0') {
        mm_err_set(err, SQLITE_ERROR, "the main database is in memory or temporary: open a database file");
        return NULL;
    }
    char *path = realpath(file, NULL);
    if (path == NULL) {
        mm_err_set(err, SQLITE_CANTOPEN, "cannot find the database file %.200s (%s): it must be an ordinary file", file,
                   strerror(errno));
    }
    return path;
}

const char *mm_setup_vfs(sqlite3 *db)
{
    sqlite3_vfs *vfs = NULL;
    if (sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, &vfs) != SQLITE_OK || vfs == NULL) {
        return NULL;
    }
    return vfs->zName;
}

/* Runs `sql` again while the database is locked, for wait_ms at most. */
static int patiently(sqlite3 *db, const char *sql, int wait_ms, char **answer, struct mm_err *err)
{
    int64_t until = mm_clock_mono_ms() + wait_ms;
    for (;;) {
        struct mm_err e;
        mm_err_init(&e);
        char *text = mm_db_text(db, &e, "%s", sql);
        if (answer != NULL) {
            *answer = text;
        } else {
            sqlite3_free(text);
        }
        int primary = e.rc & 0xff;
        if (primary != SQLITE_BUSY && primary != SQLITE_LOCKED) {
            return mm_err_set(err, e.rc, "%s", e.msg);
        }
        if (mm_clock_mono_ms() >= until) {
            return mm_err_set(err, e.rc,
                              "%s: another connection holds the database: end its transaction, then call "
                              "again",
                              e.msg);
        }
        sqlite3_sleep(LOCK_STEP_MS);
    }
}

/* COMMIT when all is well, else ROLLBACK. `gone`: the bookkeeping, too. */
static int end_transaction(sqlite3 *db, bool gone, struct mm_err *err)
{
    if (!gone) {
        return mm_stray_end(db, err);
    }
    mm_db_exec(db, err, "COMMIT");
    if (!sqlite3_get_autocommit(db)) {
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
    return err->rc;
}

static int set_wal(sqlite3 *db, struct mm_err *err)
{
    char *mode = NULL;
    if (patiently(db, "PRAGMA main.journal_mode", LOCK_WAIT_MS, &mode, err) == SQLITE_NOTADB) {
        mm_err_prefix(err, "this is no SQLite database, or its key was not given: open another file");
    }
    if (err->rc == SQLITE_OK && (mode == NULL || sqlite3_stricmp(mode, "wal") != 0)) {
        sqlite3_free(mode);
        mode = NULL;
        patiently(db, "PRAGMA main.journal_mode=WAL", LOCK_WAIT_MS, &mode, err);
    }
    if (err->rc == SQLITE_OK && (mode == NULL || sqlite3_stricmp(mode, "wal") != 0)) {
        mm_err_set(err, SQLITE_ERROR,
                   "the journal mode stays '%s' and cannot become WAL, which replication needs: use a VFS with shared "
                   "memory and a file that other connections may open",
                   mode != NULL ? mode : "unknown");
    }
    sqlite3_free(mode);
    return err->rc;
}

/* The configuration of this start. Stored ones count only for the file that
** they were stored for. */
static struct mm_config *choose_config(sqlite3 *db, const char *path, const char *was, bool same_file,
                                       struct mm_err *err)
{
    struct mm_config *c = NULL;
    char *stored = mm_meta_text(db, MM_META_CONFIG, err);
    if (err->rc == SQLITE_OK && stored == NULL) {
        c = mm_config_parse(NULL, err);
    } else if (err->rc == SQLITE_OK && !same_file) {
        mm_err_set(err, SQLITE_ERROR,
                   "the configuration in this database was stored for another file (%.150s), this one is %.150s: give "
                   "the configuration once more, as in marmot_init('nats://host:4222') or marmot_init('{}')",
                   mm_identity_path(was), path);
    } else if (err->rc == SQLITE_OK) {
        c = mm_config_restore(stored, path, err);
    }
    sqlite3_free(stored);
    return c;
}

struct mm_config *mm_setup_stored(sqlite3 *db, struct mm_err *err)
{
    struct mm_config *c = NULL;
    if (!mm_meta_exists(db, err)) {
        mm_err_set(err, SQLITE_ERROR, "this database is no node yet: call marmot_init() first");
        return NULL;
    }
    char *path = mm_setup_path(db, err);
    char *identity = path != NULL ? mm_identity_file(path, err) : NULL;
    char *was = mm_meta_text(db, MM_META_FILE, err);
    if (err->rc == SQLITE_OK) {
        c = choose_config(db, path, was, was != NULL && strcmp(was, identity) == 0, err);
    }
    free(path);
    free(identity);
    sqlite3_free(was);
    return c;
}

static int store_config(sqlite3 *db, const char *path, const struct mm_config *c, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, CONFIG_MAX);
    mm_config_public(c, &b, err);
    char *text = mm_buf_take(&b);
    if (text == NULL) {
        mm_err_nomem(err);
    } else if (err->rc == SQLITE_OK) {
        mm_meta_set_text(db, MM_META_CONFIG, text, err);
    }
    free(text);
    if (err->rc == SQLITE_OK) {
        mm_config_save_secrets(c, path, err);
    }
    return err->rc;
}

static int settle_node_id(sqlite3 *db, struct mm_config *c, struct mm_err *err)
{
    int64_t known = mm_meta_int(db, MM_META_NODE, 0, err);
    if (err->rc == SQLITE_OK && known != 0 && c->node_id != 0 && c->node_id != known) {
        return mm_err_set(err, SQLITE_ERROR,
                          "node_id %lld is configured, but this database is node %lld: leave node_id out, or call "
                          "marmot_cleanup() to begin as a new node",
                          (long long)c->node_id, (long long)known);
    }
    if (known == 0) {
        known = c->node_id != 0 ? c->node_id : mm_identity_random(err);
        if (err->rc == SQLITE_OK) {
            mm_meta_set_int(db, MM_META_NODE, known, err);
        }
    }
    c->node_id = known;
    return err->rc;
}

/* Guards only where there is a hook that they guard. */
static const char *capture_mode(const struct mm_config *c)
{
    if (!c->publish) {
        return "none";
    }
    if (c->capture == MM_CAPTURE_AUTO) {
        return mm_hook_available(NULL) ? "auto" : "trigger";
    }
    return c->capture == MM_CAPTURE_HOOK ? "hook" : "trigger";
}

/* A copy of a file must not go on counting where its original does. */
static int settle_incarnation(sqlite3 *db, const char *identity, bool same_file, struct mm_err *err)
{
    if (same_file && mm_head_incarnation(db, err) != 0) {
        return err->rc;
    }
    mm_trigger_move(db, NULL, err); /* what the original noted is its own, in every copy alike */
    int64_t fresh = mm_identity_random(err);
    if (err->rc == SQLITE_OK) {
        mm_head_set_incarnation(db, fresh, err);
    }
    if (err->rc == SQLITE_OK) {
        mm_meta_set_text(db, MM_META_FILE, identity, err);
    }
    return err->rc;
}

/* Where neither triggers see them nor guards, foreign writers leave no trace but
** that a commit has no stamp. */
static bool is_alone(const char *mode)
{
    return mode != NULL && (strcmp(mode, "hook") == 0 || strcmp(mode, "none") == 0);
}

static int settle_capture(sqlite3 *db, const char *mode, struct mm_err *err)
{
    char *was = mm_meta_text(db, MM_META_CAPTURE, err);
    int how = strcmp(mode, "none") == 0 ? MM_CAPTURING_NOT : is_alone(mode) ? MM_CAPTURING_ALL : MM_CAPTURING;
    mm_stray_begin(db, is_alone(mode), is_alone(was), err);
    sqlite3_free(was);
    mm_head_set_capturing(db, how, err);
    mm_trigger_move(db, NULL, err);
    return mm_meta_set_text(db, MM_META_CAPTURE, mode, err);
}

static struct mm_config *write_bookkeeping(sqlite3 *db, const char *path, struct mm_config *given, struct mm_err *err)
{
    struct mm_config *c = given;
    char *was = NULL;
    char *identity = mm_identity_file(path, err);
    if (identity == NULL || mm_meta_migrate(db, err) != SQLITE_OK) {
        goto out;
    }
    was = mm_meta_text(db, MM_META_FILE, err);
    bool same_file = was == NULL || strcmp(was, identity) == 0;
    if (c == NULL && err->rc == SQLITE_OK) {
        c = choose_config(db, path, was, same_file, err);
    }
    if (c == NULL || store_config(db, path, c, err) != SQLITE_OK || settle_node_id(db, c, err) != SQLITE_OK ||
        settle_incarnation(db, identity, same_file, err) != SQLITE_OK) {
        goto out;
    }
    settle_capture(db, capture_mode(c), err);
    mm_trigger_settle(db, err);
out:
    free(identity);
    sqlite3_free(was);
    return c;
}

struct mm_config *mm_setup_database(sqlite3 *db, const char *path, struct mm_config *given, struct mm_err *err)
{
    struct mm_config *c = given;
    if (set_wal(db, err) == SQLITE_OK && patiently(db, "BEGIN IMMEDIATE", LOCK_WAIT_MS, NULL, err) == SQLITE_OK) {
        c = write_bookkeeping(db, path, given, err);
        end_transaction(db, false, err);
    }
    if (err->rc != SQLITE_OK) {
        mm_config_free(c);
        return NULL;
    }
    return c;
}

/* What triggers noted counts as held, so it gets its place in the outbox. */
static void move_log(sqlite3 *db, int wait_ms, struct mm_err *err)
{
    if (mm_log_any(db, err) && sqlite3_get_autocommit(db) != 0 &&
        patiently(db, "BEGIN IMMEDIATE", wait_ms, NULL, err) == SQLITE_OK) {
        mm_trigger_move(db, NULL, err);
        end_transaction(db, false, err);
    }
}

int64_t mm_setup_last(sqlite3 *db, int wait_ms, struct mm_err *err)
{
    move_log(db, wait_ms, err);
    struct mm_outbox *o = mm_outbox_open(db, err);
    int64_t last = o != NULL ? mm_outbox_last(o, err) : 0;
    mm_outbox_close(o);
    return last;
}

int mm_setup_pending(sqlite3 *db, int64_t echoed, struct mm_err *err)
{
    struct mm_outbox *o = mm_outbox_open(db, err);
    int64_t stored = o != NULL ? mm_outbox_echoed_upto(o, err) : 0;
    struct mm_outbox_row row = { .id = echoed > stored ? echoed : stored };
    int64_t rows = 0;
    while (o != NULL && mm_outbox_next(o, row.id, &row, NULL, NULL, err)) {
        rows++;
    }
    mm_outbox_close(o);
    if (err->rc == SQLITE_OK && rows > 0) {
        mm_err_set(err, SQLITE_ERROR,
                   "%lld captured transaction%s not in the log yet: wait with marmot_sync(), or give them up with "
                   "marmot_cleanup('discard')",
                   (long long)rows, rows == 1 ? " is" : "s are");
    }
    return err->rc;
}

/* Removes <path><suffix>; that it was never there is fine. */
static int remove_beside(const char *path, const char *suffix, struct mm_err *err)
{
    char *name = sqlite3_mprintf("%s%s", path, suffix);
    if (name == NULL) {
        return mm_err_nomem(err);
    }
    if (unlink(name) != 0 && errno != ENOENT) {
        mm_err_set(err, SQLITE_IOERR_DELETE, "the bookkeeping is gone, but %.200s could not be removed (%s): delete it",
                   name, strerror(errno));
    }
    sqlite3_free(name);
    return err->rc;
}

/* Takes the lock that elects the replicating process, so that none does
** meanwhile: the descriptor, or -1 when there is no lock file (no node ever
** ran) or err is set. No node of this process may run: closing any descriptor
** of the file would free its lock. */
static int lock_out_others(const char *path, struct mm_err *err)
{
    char *name = sqlite3_mprintf("%s-marmot-lock", path);
    if (name == NULL) {
        mm_err_nomem(err);
        return -1;
    }
    int fd = open(name, O_RDWR | O_CLOEXEC);
    sqlite3_free(name);
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fd >= 0 && fcntl(fd, F_SETLK, &l) != 0) {
        (void)close(fd);
        fd = -1;
        mm_err_set(err, SQLITE_BUSY,
                   "another process replicates this database: call marmot_stop() there, or end it, and call again");
    }
    return fd;
}

static int remove_bookkeeping(sqlite3 *db, bool discard, int64_t echoed, struct mm_err *err)
{
    if (patiently(db, "BEGIN IMMEDIATE", LOCK_WAIT_MS, NULL, err) != SQLITE_OK) {
        return err->rc;
    }
    if (mm_meta_exists(db, err)) {
        mm_trigger_move(db, NULL, err);
        if (!discard) {
            mm_setup_pending(db, echoed, err);
        }
        if (err->rc == SQLITE_OK) {
            mm_meta_drop(db, err);
        }
    }
    return end_transaction(db, true, err);
}

int mm_setup_remove(sqlite3 *db, const char *path, bool discard, int64_t echoed, struct mm_err *err)
{
    int fd = lock_out_others(path, err);
    if (err->rc == SQLITE_OK && remove_bookkeeping(db, discard, echoed, err) == SQLITE_OK) {
        remove_beside(path, "-marmot", err);
        remove_beside(path, MM_STRAY_SUFFIX, err);
        remove_beside(path, "-marmot-lock", err);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return err->rc;
}
