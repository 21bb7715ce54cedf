#include "registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "base/own.h"
#include "capture/hook.h"
#include "capture/trigger.h"
#include "identity.h"
#include "node.h"
#include "registry_int.h"
#include "setup.h"
#include "store/meta.h"

/* How long a load waits for a locked database (WAL recovery, say). */
enum { LOOK_MS = 1000 };

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct mm_registry_file *entries;     /* mu */
static struct mm_registry_conn *connections; /* mu */
static atomic_uint generation;

/* The gate goes around the mutex, so that no fork finds the lists half changed. */
void mm_registry_lock(void)
{
    mm_gate_enter();
    (void)pthread_mutex_lock(&mu);
}

void mm_registry_unlock(void)
{
    (void)pthread_mutex_unlock(&mu);
    mm_gate_leave();
}

static void in_child(void)
{
    atomic_fetch_add(&generation, 1);
    connections = NULL;
    for (struct mm_registry_file *e = entries; e != NULL; e = e->next) {
        if (e->node != NULL) {
            mm_node_after_fork(e->node);
        }
        e->node = NULL;
        e->users = 0;
        e->connections = 0;
        e->leaving = 0;
        (void)pthread_mutex_init(&e->starting, NULL); /* its holder did not come along */
    }
    mm_identity_after_fork();
}

/* For exit() without close. A handler, not a destructor: destructors come after
** the handlers of libraries that our threads still use. Hosts that run nothing
** at their end lose nothing either: what is pending lies in the outbox. */
static void at_exit(void)
{
    int64_t until = mm_clock_mono_ms() + MM_DRAIN_MS;
    for (;;) {
        struct mm_node *n = NULL;
        mm_registry_lock();
        for (struct mm_registry_file *e = entries; e != NULL && n == NULL; e = e->next) {
            if (e->users == 0) {
                n = e->node;
                e->node = NULL;
            }
        }
        mm_registry_unlock();
        if (n == NULL) {
            return;
        }
        int64_t left = until - mm_clock_mono_ms();
        mm_node_close(n, left > 0 ? (int)left : 0);
    }
}

int mm_registry_open(struct mm_err *err)
{
    int rc = mm_gate_install(in_child);
    if (rc != 0) {
        return mm_err_set(err, SQLITE_NOMEM, "cannot install the fork handlers: %s", strerror(rc));
    }
    if (atexit(at_exit) != 0) {
        return mm_err_nomem(err);
    }
    return SQLITE_OK;
}

/* mu held on entry. */
static struct mm_registry_conn *find(const sqlite3 *db)
{
    struct mm_registry_conn *c = connections;
    while (c != NULL && c->db != db) {
        c = c->next;
    }
    return c;
}

/* mu held on entry. */
static struct mm_registry_file *find_entry(const char *path)
{
    struct mm_registry_file *e = entries;
    while (e != NULL && strcmp(e->path, path) != 0) {
        e = e->next;
    }
    return e;
}

/* mu held on entry. */
static bool disown(struct mm_registry_conn *c)
{
    return --c->owners == 0;
}

static void free_connection(struct mm_registry_conn *c)
{
    free(c->file);
    free(c);
}

/* The last connection is gone: so goes the node, unless another one came
** meanwhile. The entry stays in the list until then, so that whoever comes
** meets it, and waits for `starting`: never two nodes of one file. */
static void leave(struct mm_registry_file *e)
{
    struct mm_node *n = NULL;
    (void)pthread_mutex_lock(&e->starting);
    mm_registry_lock();
    if (e->connections == 0) {
        n = e->node;
        e->node = NULL;
    }
    mm_registry_unlock();
    mm_node_close(n, MM_DRAIN_MS);
    (void)pthread_mutex_unlock(&e->starting);
    mm_registry_lock();
    bool gone = --e->leaving == 0 && e->connections == 0;
    for (struct mm_registry_file **at = &entries; gone && *at != NULL; at = &(*at)->next) {
        if (*at == e) {
            *at = e->next;
            break;
        }
    }
    mm_registry_unlock();
    if (gone) {
        (void)pthread_mutex_destroy(&e->starting);
        free(e->path);
        free(e);
    }
}

/* SQLite calls this when the connection is gone for good. */
static void connection_closed(void *p)
{
    struct mm_registry_conn *c = p;
    if (c->generation != atomic_load(&generation)) {
        return; /* inherited: it belongs to the parent */
    }
    mm_registry_lock();
    for (struct mm_registry_conn **at = &connections; *at != NULL; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    struct mm_registry_file *e = c->entry;
    c->entry = NULL;
    bool last = e != NULL && --e->connections == 0;
    if (last) {
        e->leaving++;
    }
    bool unowned = disown(c);
    mm_registry_unlock();
    if (unowned) {
        free_connection(c);
    }
    if (last) {
        leave(e);
    }
}

static void life_function(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc;
    (void)argv;
    const struct mm_registry_conn *c = sqlite3_user_data(ctx);
    sqlite3_result_text(ctx, c->capturing && c->why[0] == '\0' ? "captured" : "uncaptured", -1, SQLITE_STATIC);
}

static void on_note(void *arg, enum mm_hook_note note, const char *why)
{
    struct mm_registry_conn *c = arg;
    if (c->generation != atomic_load(&generation)) {
        return;
    }
    bool unowned = false;
    mm_registry_lock();
    if (note == MM_NOTE_COMMIT) {
        c->why[0] = '\0';
        if (c->entry != NULL && c->entry->node != NULL) {
            mm_node_wake(c->entry->node);
        }
    } else if (note == MM_NOTE_CLOSED) {
        c->hook = NULL;
        c->capturing = false;
        unowned = disown(c);
    }
    mm_registry_unlock();
    if (note == MM_NOTE_UNCAPTURED) {
        (void)snprintf(c->why, sizeof c->why, "%.250s", why != NULL ? why : "unknown cause");
        mm_log(MM_LOG_WARN, "a connection of %s is not captured: %s", c->file, c->why);
    }
    if (unowned) {
        free_connection(c);
    }
}

/* Installs the hook. It is an owner of `c` from before it can say that it
** closed, also when it is installed but off. */
static int install(struct mm_registry_conn *c, struct mm_err *err)
{
    const char *why = "";
    if (!mm_hook_available(&why)) {
        return mm_err_set(err, SQLITE_ERROR,
                          "this host's SQLite does not offer what capture needs (%s): use a host whose SQLite has the "
                          "preupdate hook, such as the system's libsqlite3",
                          why);
    }
    mm_registry_lock();
    c->owners++;
    mm_registry_unlock();
    c->hook = mm_hook_attach_early(c->db, on_note, c, err);
    if (c->hook == NULL) {
        mm_registry_lock();
        c->owners--;
        mm_registry_unlock();
    }
    return err->rc;
}

int mm_registry_attach(struct mm_registry_conn *c, struct mm_err *err)
{
    if (c->hook != NULL && c->capturing && c->why[0] == '\0') {
        return err->rc;
    }
    const char *hidden = NULL;
    bool available = mm_hook_available(&hidden);
    bool triggers = (!available || c->hook == NULL) && mm_trigger_mode(c->db, err) != MM_TRIGGER_NONE;
    if (!available && triggers) {
        mm_guard_here(c->db);
        (void)snprintf(c->why, sizeof c->why, "captured by triggers: %.200s", hidden);
        return err->rc;
    }
    if (c->hook == NULL && mm_hook_taken(c->db, err)) {
        if (triggers) {
            mm_guard_here(c->db);
            (void)snprintf(c->why, sizeof c->why,
                           "captured by triggers: the application uses the preupdate hook itself");
            return err->rc;
        }
        return mm_err_set(err, SQLITE_ERROR,
                          "the application uses the preupdate hook of this connection itself: take it off, or call "
                          "marmot_init on a connection without it");
    }
    if (err->rc == SQLITE_OK && c->hook == NULL && install(c, err) == SQLITE_OK) {
        /* Off and on again: that is what makes older statements be prepared anew. */
        mm_hook_detach(c->hook);
    }
    if (err->rc == SQLITE_OK && mm_hook_attach(c->db, true, on_note, c, err) != NULL) {
        c->capturing = true;
        c->why[0] = '\0';
    }
    return err->rc;
}

/* Links the connection, and all others of the same file name, to the entry of
** `path`, which is made when there is none. */
struct mm_registry_file *mm_registry_enter(struct mm_registry_conn *c, const char *path, struct mm_err *err)
{
    struct mm_registry_file *fresh = calloc(1, sizeof *fresh);
    char *copy = strdup(path);
    if (fresh == NULL || copy == NULL) {
        free(fresh);
        free(copy);
        mm_err_nomem(err);
        return NULL;
    }
    (void)pthread_mutex_init(&fresh->starting, NULL);
    fresh->path = copy;
    mm_registry_lock();
    struct mm_registry_file *e = find_entry(path);
    if (e == NULL) {
        e = fresh;
        e->next = entries;
        entries = e;
        fresh = NULL;
    }
    for (struct mm_registry_conn *k = connections; k != NULL; k = k->next) {
        if (k->entry == NULL && (k == c || strcmp(k->file, c->file) == 0)) {
            k->entry = e;
            e->connections++;
        }
    }
    mm_registry_unlock();
    if (fresh != NULL) {
        (void)pthread_mutex_destroy(&fresh->starting);
        free(fresh->path);
        free(fresh);
    }
    return e;
}

int mm_registry_connection(sqlite3 *db, bool explicit_load, struct mm_err *err)
{
    if (mm_own_connection_now()) {
        return 0;
    }
    const char *file = sqlite3_db_filename(db, "main");
    struct mm_registry_conn *c = calloc(1, sizeof *c);
    char *copy = strdup(file != NULL ? file : "");
    if (c == NULL || copy == NULL) {
        free(c);
        free(copy);
        mm_err_nomem(err);
        return -1;
    }
    c->db = db;
    c->file = copy;
    c->generation = atomic_load(&generation);
    c->owners = 1;
    mm_registry_lock();
    bool known = find(db) != NULL;
    struct mm_registry_file *e = copy[0] != '\0' ? find_entry(copy) : NULL;
    for (const struct mm_registry_conn *k = connections; e == NULL && copy[0] != '\0' && k != NULL; k = k->next) {
        e = strcmp(k->file, copy) == 0 ? k->entry : NULL;
    }
    bool take = !known && (explicit_load || e != NULL);
    if (take) {
        c->next = connections;
        connections = c;
        c->entry = e;
        if (e != NULL) {
            e->connections++;
        }
    }
    mm_registry_unlock();
    if (!take) {
        free_connection(c);
        return 0;
    }
    /* On failure SQLite calls the destructor itself. */
    int rc = sqlite3_create_function_v2(db, "__marmot__connection", 0, SQLITE_UTF8 | SQLITE_DIRECTONLY, c,
                                        life_function, NULL, NULL, connection_closed);
    if (rc != SQLITE_OK) {
        mm_db_fail(db, err, "registering the connection");
        return -1;
    }
    if (!explicit_load) {
        sqlite3_busy_timeout(db, MM_BUSY_MS);
    }
    const char *hidden = NULL;
    if (!explicit_load && !mm_hook_available(&hidden)) {
        mm_guard_here(db);
        (void)snprintf(c->why, sizeof c->why, "captured by triggers: %.200s", hidden);
    } else if (!explicit_load) {
        struct mm_err e2;
        mm_err_init(&e2);
        c->capturing = install(c, &e2) == SQLITE_OK;
        if (!c->capturing) {
            (void)snprintf(c->why, sizeof c->why, "%.250s", e2.msg);
            mm_log(MM_LOG_WARN, "a connection of %s is not captured: %s", c->file, e2.msg);
        }
    }
    return 1;
}

/* The connection as this process knows it. */
struct mm_registry_conn *mm_registry_known(const sqlite3 *db, struct mm_err *err)
{
    mm_registry_lock();
    struct mm_registry_conn *c = find(db);
    mm_registry_unlock();
    if (c == NULL) {
        mm_err_set(err, SQLITE_MISUSE,
                   "this connection was opened before the process was forked: open a new one here, "
                   "load libmarmot on it and call marmot_init again");
    }
    return c;
}

void mm_registry_loaded(sqlite3 *db)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_registry_conn *c = mm_registry_known(db, &err);
    if (c == NULL || c->file[0] == '\0' || sqlite3_db_readonly(db, "main") == 1) {
        return;
    }
    /* A database that cannot be read yet (locked, or its key comes later) is
    ** treated as one without bookkeeping: its first write looks again. */
    struct mm_err look;
    bool ours;
    int64_t until = mm_clock_mono_ms() + LOOK_MS;
    do {
        mm_err_init(&look);
        ours = mm_meta_exists(db, &look);
    } while ((look.rc & 0xff) == SQLITE_BUSY && mm_clock_mono_ms() < until && sqlite3_sleep(10) >= 0);
    if (!ours) {
        if (mm_hook_available(NULL) && !mm_hook_taken(db, &err) && err.rc == SQLITE_OK) {
            c->capturing = install(c, &err) == SQLITE_OK;
        }
    } else {
        char *path = mm_setup_path(db, &err);
        if (path != NULL && mm_registry_enter(c, path, &err) != NULL) {
            mm_registry_attach(c, &err);
        }
        free(path);
    }
    if (err.rc != SQLITE_OK) {
        (void)snprintf(c->why, sizeof c->why, "%.250s", err.msg);
        mm_log(MM_LOG_WARN, "a connection of %s is not captured yet: %s", c->file, err.msg);
    }
}

bool mm_registry_uncaptured(sqlite3 *db, char *why, size_t size)
{
    struct mm_err err;
    mm_err_init(&err);
    const struct mm_registry_conn *c = mm_registry_known(db, &err);
    if (c != NULL && c->capturing && c->why[0] == '\0') {
        return false;
    }
    (void)snprintf(why, size, "%s", c == NULL ? err.msg : c->why[0] != '\0' ? c->why : "no marmot_init on it yet");
    return true;
}

void mm_registry_tables_changed(sqlite3 *db)
{
    mm_registry_lock();
    struct mm_registry_conn *c = find(db);
    if (c != NULL && c->entry != NULL && c->entry->node != NULL) {
        mm_node_wake(c->entry->node);
    }
    mm_registry_unlock();
    if (c != NULL && c->hook != NULL) {
        mm_hook_forget_tables(c->hook);
    }
}

struct mm_node *mm_registry_acquire(sqlite3 *db, struct mm_err *err)
{
    const struct mm_registry_conn *c = mm_registry_known(db, err);
    if (c == NULL) {
        return NULL;
    }
    struct mm_node *n = NULL;
    mm_registry_lock();
    if (c->entry != NULL && c->entry->node != NULL) {
        n = c->entry->node;
        c->entry->users++;
    }
    mm_registry_unlock();
    if (n == NULL) {
        mm_err_set(err, SQLITE_ERROR, "no node of this database runs in this process: call marmot_init() first");
    }
    return n;
}

void mm_registry_release(struct mm_node *n)
{
    mm_registry_lock();
    for (struct mm_registry_file *e = entries; e != NULL; e = e->next) {
        if (e->node == n && e->users > 0) {
            e->users--;
            break;
        }
    }
    mm_registry_unlock();
}
