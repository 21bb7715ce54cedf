#include "functions.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/db.h"
#include "base/err.h"
#include "identity.h"
#include "node.h"
#include "registry.h"
#include "running.h"
#include "setup.h"
#include "store/meta.h"
#include "verifying.h"
#include "watching.h"

enum {
    MAX_ARGS = 3,
    TEXT_MAX = 1 << 20,    /* a configuration or a name beyond this is refused unread */
    ANSWER_MAX = 64 << 20, /* JSON answers */
    SYNC_DEFAULT_MS = 10000,
    VERIFY_DEFAULT_MS = 30000,
    WAIT_MAX_MS = 24 * 60 * 60 * 1000,
};

/* One call: what a body may look at. Bodies set the result or err. */
struct call {
    sqlite3_context *ctx;
    sqlite3 *db;
    int argc;
    sqlite3_value **argv;
    struct mm_err err;
};

struct mm_function {
    const char *name;
    const char *usage;
    int min, max;
    int type[MAX_ARGS];
    int flags;
    void (*body)(struct call *c);
};

static const char *text_arg(const struct call *c, int k)
{
    return k < c->argc ? (const char *)sqlite3_value_text(c->argv[k]) : NULL;
}

static void result_buf(struct call *c, struct mm_buf *b)
{
    size_t len = b->len;
    if (c->err.rc != SQLITE_OK || mm_buf_check(b, &c->err, "the answer") != SQLITE_OK) {
        mm_buf_free(b);
        return;
    }
    char *text = mm_buf_take(b);
    if (text == NULL) {
        mm_err_nomem(&c->err);
        return;
    }
    sqlite3_result_text64(c->ctx, text, len, SQLITE_TRANSIENT, SQLITE_UTF8);
    free(text);
}

static void body_init(struct call *c)
{
    struct mm_buf b;
    mm_buf_init(&b, ANSWER_MAX);
    mm_registry_init(c->db, text_arg(c, 0), &b, &c->err);
    result_buf(c, &b);
}

static void body_watch(struct call *c)
{
    if (mm_watching_add(c->db, text_arg(c, 0), text_arg(c, 1), &c->err) == SQLITE_OK) {
        mm_registry_tables_changed(c->db);
        sqlite3_result_int(c->ctx, 1);
    }
}

static void body_watch_all(struct call *c)
{
    int n = mm_watching_add_all(c->db, text_arg(c, 0), &c->err);
    if (n >= 0) {
        mm_registry_tables_changed(c->db);
        sqlite3_result_int(c->ctx, n);
    }
}

static void body_unwatch(struct call *c)
{
    if (mm_watching_remove(c->db, text_arg(c, 0), &c->err) == SQLITE_OK) {
        mm_registry_tables_changed(c->db);
        sqlite3_result_int(c->ctx, 1);
    }
}

/* Takes effect when its message has come back: the node is told. */
static void body_policy(struct call *c)
{
    if (mm_watching_policy(c->db, text_arg(c, 0), text_arg(c, 1), text_arg(c, 2), &c->err) != SQLITE_OK) {
        return;
    }
    struct mm_err none;
    mm_err_init(&none);
    struct mm_node *n = mm_registry_acquire(c->db, &none);
    if (n != NULL) {
        mm_node_wake(n);
        mm_registry_release(n);
    }
    sqlite3_result_int(c->ctx, 1);
}

/* The first argument; -1 with err set when it is no time. */
static int timeout_arg(struct call *c, int none)
{
    int64_t timeout = c->argc > 0 ? sqlite3_value_int64(c->argv[0]) : none;
    if (timeout < 0 || timeout > WAIT_MAX_MS) {
        mm_err_set(&c->err, SQLITE_ERROR, "timeout_ms %lld is out of range: give 0 to %d", (long long)timeout,
                   (int)WAIT_MAX_MS);
        return -1;
    }
    return (int)timeout;
}

static void body_sync(struct call *c)
{
    int timeout = timeout_arg(c, SYNC_DEFAULT_MS);
    if (timeout < 0) {
        return;
    }
    if (sqlite3_get_autocommit(c->db) == 0) {
        mm_err_set(&c->err, SQLITE_ERROR,
                   "this connection is inside a transaction, whose changes cannot be sent yet: "
                   "COMMIT first");
        return;
    }
    struct mm_node *n = mm_registry_acquire(c->db, &c->err);
    if (n == NULL) {
        return;
    }
    int64_t until = mm_clock_mono_ms() + timeout;
    mm_watching_began(c->db, &c->err);
    int64_t last = mm_setup_last(c->db, timeout, &c->err);
    int64_t left = until - mm_clock_mono_ms();
    if (c->err.rc == SQLITE_OK) {
        int done = mm_node_sync(n, last, left > 0 ? (int)left : 0, &c->err);
        sqlite3_result_int(c->ctx, done == 1);
    } else if ((c->err.rc & 0xff) == SQLITE_BUSY) { /* the lock took all of the time */
        mm_err_init(&c->err);
        sqlite3_result_int(c->ctx, 0);
    }
    mm_registry_release(n);
}

static void body_run(struct call *c)
{
    int timeout = c->argc > 0 ? timeout_arg(c, 0) : -1;
    if (c->err.rc == SQLITE_OK && mm_running_run(c->db, timeout, &c->err) == SQLITE_OK) {
        sqlite3_result_int(c->ctx, 1);
    }
}

/* They wait for the replication thread, which writes: not inside a transaction. */
static void long_work(struct call *c, int (*work)(struct mm_node *, struct mm_buf *, struct mm_err *))
{
    struct mm_buf b;
    mm_buf_init(&b, ANSWER_MAX);
    if (sqlite3_get_autocommit(c->db) == 0) {
        mm_err_set(&c->err, SQLITE_ERROR, "this connection is inside a transaction: COMMIT first");
    }
    struct mm_node *n = c->err.rc == SQLITE_OK ? mm_registry_acquire(c->db, &c->err) : NULL;
    if (n != NULL) {
        work(n, &b, &c->err);
        mm_registry_release(n);
    }
    result_buf(c, &b);
}

static void body_snapshot(struct call *c)
{
    long_work(c, mm_node_snapshot);
}

static void body_restore(struct call *c)
{
    long_work(c, mm_node_restore);
}

static void body_reconcile(struct call *c)
{
    long_work(c, mm_node_reconcile);
}

static void body_rejoin(struct call *c)
{
    static const struct {
        const char *how;
        int (*work)(struct mm_node *, struct mm_buf *, struct mm_err *);
    } ways[] = { { "seed", mm_node_seed }, { "adopt", mm_node_adopt }, { "merge", mm_node_merge } };
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
        if (strcmp(text_arg(c, 0), ways[k].how) == 0) {
            long_work(c, ways[k].work);
            return;
        }
    }
    mm_err_set(&c->err, SQLITE_ERROR, "unknown way '%.40s': give 'seed', 'adopt' or 'merge'", text_arg(c, 0));
}

static void body_verify(struct call *c)
{
    int timeout = timeout_arg(c, VERIFY_DEFAULT_MS);
    struct mm_node *n = timeout >= 0 ? mm_registry_acquire(c->db, &c->err) : NULL;
    if (n == NULL) {
        return;
    }
    struct mm_buf b;
    mm_buf_init(&b, ANSWER_MAX);
    mm_verifying_run(c->db, n, timeout, &b, &c->err);
    mm_registry_release(n);
    result_buf(c, &b);
}

/* '<shard>:<seq>', digits alone. */
static bool message_id(struct call *c, int *shard, int64_t *seq)
{
    const char *text = text_arg(c, 0);
    char *end = NULL;
    errno = 0;
    long n = isdigit((unsigned char)text[0]) ? strtol(text, &end, 10) : 0;
    if (n >= 1 && n <= INT_MAX && *end == ':' && isdigit((unsigned char)end[1])) {
        *shard = (int)n;
        *seq = strtoll(end + 1, &end, 10);
        if (errno == 0 && *end == '\0' && *seq >= 1) {
            return true;
        }
    }
    mm_err_set(&c->err, SQLITE_ERROR,
               "'%.60s' is no message: give '<shard>:<sequence>', as marmot_status() shows it as blocked_id", text);
    return false;
}

static void repair(struct call *c, int (*with)(struct mm_node *, int, int64_t, struct mm_err *))
{
    int shard = 0;
    int64_t seq = 0;
    struct mm_node *n = message_id(c, &shard, &seq) ? mm_registry_acquire(c->db, &c->err) : NULL;
    if (n == NULL) {
        return;
    }
    if (with(n, shard, seq, &c->err) == SQLITE_OK) {
        sqlite3_result_int(c->ctx, 1);
    }
    mm_registry_release(n);
}

static void body_retry(struct call *c)
{
    repair(c, mm_node_retry);
}

static void body_skip(struct call *c)
{
    repair(c, mm_node_skip);
}

static void body_status(struct call *c)
{
    struct mm_node *n = mm_registry_acquire(c->db, &c->err);
    if (n == NULL) {
        return;
    }
    struct mm_buf b;
    mm_buf_init(&b, ANSWER_MAX);
    mm_node_status(n, false, &b, &c->err);
    mm_registry_release(n);
    result_buf(c, &b);
}

static void body_stop(struct call *c)
{
    sqlite3_result_int(c->ctx, mm_registry_stop(c->db, &c->err));
}

static void body_cleanup(struct call *c)
{
    const char *how = text_arg(c, 0);
    if (how != NULL && strcmp(how, "discard") != 0) {
        mm_err_set(&c->err, SQLITE_ERROR,
                   "unknown argument '%.40s': the only one is 'discard', which gives up what is "
                   "not in the log yet",
                   how);
        return;
    }
    if (mm_registry_cleanup(c->db, how != NULL, &c->err) == SQLITE_OK) {
        sqlite3_result_int(c->ctx, 1);
    }
}

static void body_version(struct call *c)
{
    sqlite3_result_text(c->ctx, MM_VERSION, -1, SQLITE_STATIC);
}

/* Also without a running node: defaults of columns use it in any process. */
static void body_node_id(struct call *c)
{
    struct mm_err none;
    mm_err_init(&none);
    struct mm_node *n = mm_registry_acquire(c->db, &none);
    int64_t id = 0;
    if (n != NULL) {
        id = mm_node_id(n);
        mm_registry_release(n);
    } else if (mm_meta_exists(c->db, &c->err)) {
        id = mm_meta_int(c->db, MM_META_NODE, 0, &c->err);
    }
    if (id != 0) {
        sqlite3_result_int64(c->ctx, id);
    } else {
        mm_err_set(&c->err, SQLITE_ERROR, "this database is no node yet: call marmot_init() first");
    }
}

static void body_id(struct call *c)
{
    int64_t bits = c->argc > 0 ? sqlite3_value_int64(c->argv[0]) : 63;
    if (bits != 63 && bits != 53) {
        mm_err_set(&c->err, SQLITE_ERROR, "ids of %lld bits do not exist: give 63, or 53 for JavaScript",
                   (long long)bits);
        return;
    }
    int64_t id = mm_identity_next((int)bits, &c->err);
    if (c->err.rc == SQLITE_OK) {
        sqlite3_result_int64(c->ctx, id);
    }
}

static const struct mm_function functions[] = {
    { "marmot_init", "marmot_init([config])", 0, 1, { SQLITE_TEXT }, SQLITE_DIRECTONLY, body_init },
    { "marmot_watch_all", "marmot_watch_all([mode])", 0, 1, { SQLITE_TEXT }, SQLITE_DIRECTONLY, body_watch_all },
    { "marmot_watch",
      "marmot_watch(table [, mode])",
      1,
      2,
      { SQLITE_TEXT, SQLITE_TEXT },
      SQLITE_DIRECTONLY,
      body_watch },
    { "marmot_unwatch", "marmot_unwatch(table)", 1, 1, { SQLITE_TEXT }, SQLITE_DIRECTONLY, body_unwatch },
    { "marmot_sync", "marmot_sync([timeout_ms])", 0, 1, { SQLITE_INTEGER }, SQLITE_DIRECTONLY, body_sync },
    { "marmot_run", "marmot_run([timeout_ms])", 0, 1, { SQLITE_INTEGER }, SQLITE_DIRECTONLY, body_run },
    { "marmot_policy",
      "marmot_policy(table, column, rule)",
      3,
      3,
      { SQLITE_TEXT, SQLITE_TEXT, SQLITE_TEXT },
      SQLITE_DIRECTONLY,
      body_policy },
    { "marmot_verify", "marmot_verify([timeout_ms])", 0, 1, { SQLITE_INTEGER }, SQLITE_DIRECTONLY, body_verify },
    { "marmot_snapshot", "marmot_snapshot()", 0, 0, { 0 }, SQLITE_DIRECTONLY, body_snapshot },
    { "marmot_restore", "marmot_restore()", 0, 0, { 0 }, SQLITE_DIRECTONLY, body_restore },
    { "marmot_reconcile", "marmot_reconcile()", 0, 0, { 0 }, SQLITE_DIRECTONLY, body_reconcile },
    { "marmot_rejoin", "marmot_rejoin(how)", 1, 1, { SQLITE_TEXT }, SQLITE_DIRECTONLY, body_rejoin },
    { "marmot_retry", "marmot_retry(id)", 1, 1, { SQLITE_TEXT }, SQLITE_DIRECTONLY, body_retry },
    { "marmot_skip", "marmot_skip(id)", 1, 1, { SQLITE_TEXT }, SQLITE_DIRECTONLY, body_skip },
    { "marmot_status", "marmot_status()", 0, 0, { 0 }, SQLITE_DIRECTONLY, body_status },
    { "marmot_stop", "marmot_stop()", 0, 0, { 0 }, SQLITE_DIRECTONLY, body_stop },
    { "marmot_cleanup", "marmot_cleanup(['discard'])", 0, 1, { SQLITE_TEXT }, SQLITE_DIRECTONLY, body_cleanup },
    { "marmot_version", "marmot_version()", 0, 0, { 0 }, SQLITE_INNOCUOUS, body_version },
    { "marmot_node_id", "marmot_node_id()", 0, 0, { 0 }, SQLITE_INNOCUOUS, body_node_id },
    { "marmot_id", "marmot_id([bits])", 0, 1, { SQLITE_INTEGER }, SQLITE_INNOCUOUS, body_id },
};

static const char *type_name(int type)
{
    static const char *const names[] = { "", "an integer", "a real", "text", "a blob", "NULL" };
    return names[type];
}

static int check_arguments(const struct mm_function *f, struct call *c)
{
    if (c->argc < f->min || c->argc > f->max) {
        return mm_err_set(&c->err, SQLITE_ERROR, "%d argument%s given: call %s", c->argc, c->argc == 1 ? "" : "s",
                          f->usage);
    }
    for (int k = 0; k < c->argc; k++) {
        int type = sqlite3_value_type(c->argv[k]);
        if (type != f->type[k]) {
            return mm_err_set(&c->err, SQLITE_ERROR, "argument %d is %s and must be %s: call %s", k + 1,
                              type_name(type), type_name(f->type[k]), f->usage);
        }
        if (type != SQLITE_TEXT) {
            continue;
        }
        const char *text = text_arg(c, k);
        int len = sqlite3_value_bytes(c->argv[k]);
        if (text == NULL) {
            return mm_err_nomem(&c->err);
        }
        if (len > TEXT_MAX || strlen(text) != (size_t)len) {
            return mm_err_set(&c->err, SQLITE_ERROR, "argument %d has %s: call %s with plain text", k + 1,
                              len > TEXT_MAX ? "more than 1 MiB" : "a NUL inside", f->usage);
        }
    }
    return SQLITE_OK;
}

static void call_function(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    const struct mm_function *f = sqlite3_user_data(ctx);
    struct call c = { .ctx = ctx, .db = sqlite3_context_db_handle(ctx), .argc = argc, .argv = argv };
    mm_err_init(&c.err);
    if (check_arguments(f, &c) == SQLITE_OK) {
        f->body(&c);
    }
    if (c.err.rc == SQLITE_OK) {
        return;
    }
    mm_err_prefix(&c.err, "%s", f->name);
    sqlite3_result_error(ctx, c.err.msg, -1);
    /* SQLITE_SCHEMA would make SQLite run the statement again, 50 times. */
    sqlite3_result_error_code(ctx, (c.err.rc & 0xff) == SQLITE_SCHEMA ? SQLITE_ERROR : c.err.rc);
}

int mm_functions_register(sqlite3 *db)
{
    int rc = SQLITE_OK;
    for (size_t k = 0; k < sizeof functions / sizeof functions[0] && rc == SQLITE_OK; k++) {
        rc = sqlite3_create_function_v2(db, functions[k].name, -1, SQLITE_UTF8 | functions[k].flags,
                                        (void *)&functions[k], call_function, NULL, NULL, NULL);
    }
    return rc;
}
