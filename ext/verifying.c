#include "verifying.h"

#include <poll.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/db.h"
#include "node.h"
#include "peers.h"
#include "store/verify.h"
#include "store/watch.h"
#include "store/stray.h"
#include "watching.h"

enum { POLL_MS = 20, LOCK_MS = 2, GRACE_MS = 1000 /* for those that are asked to tell of themselves */ };

static int check_watched(sqlite3 *db, struct mm_err *err)
{
    int n = 0;
    bool any = false;
    struct mm_watch_entry *list = mm_watch_list(db, &n, err);
    for (int k = 0; k < n; k++) {
        any = any || mm_watch_captures(list[k].state);
    }
    mm_watch_list_free(list, n);
    if (!any) {
        mm_err_set(
            err, SQLITE_ERROR,
            "no table is watched, so there is nothing to compare: call marmot_watch_all() or marmot_watch(table) "
            "first");
    }
    return err->rc;
}

/* What a caller could wait for in vain. A reading statement would show this
** connection the database as it was before the answers came. */
static int check_possible(sqlite3 *db, const struct mm_node *n, struct mm_err *err)
{
    if (sqlite3_get_autocommit(db) == 0) {
        return mm_err_set(err, SQLITE_ERROR,
                          "this connection is inside a transaction, which cannot see the answers come: COMMIT first");
    }
    if (sqlite3_txn_state(db, "main") != SQLITE_TXN_NONE) {
        return mm_err_set(err, SQLITE_ERROR,
                          "a statement of this connection is still reading, so it cannot see the answers come: finish "
                          "it, and call this function in a SELECT of its own");
    }
    if (!mm_node_config(n)->publish) {
        return mm_err_set(err, SQLITE_ERROR, "publish is false in the configuration: this node cannot ask the others");
    }
    if (!mm_node_config(n)->replicate) {
        return mm_err_set(
            err, SQLITE_ERROR,
            "replicate is false in the configuration: this node does not have the cluster's content, call "
            "it on another one");
    }
    return check_watched(db, err) == SQLITE_OK ? mm_watching_writable(db, err) : err->rc;
}

/* The application's busy timeout is not all: beside one that writes without a pause it is soon over,
** and the caller has said how long it waits. */
static int ask(sqlite3 *db, int shards, int64_t until, uint8_t id[MM_VERIFY_ID], struct mm_err *err)
{
    while (mm_db_exec(db, err, "BEGIN IMMEDIATE") != SQLITE_OK) {
        if ((err->rc & 0xff) != SQLITE_BUSY || mm_clock_mono_ms() >= until) {
            return mm_err_prefix(err, "asking for the sums");
        }
        mm_err_init(err);
        (void)poll(NULL, 0, LOCK_MS);
    }
    mm_verify_request(db, shards, id, err);
    return mm_stray_end(db, err);
}

/* Whether to wait on: for this node, and for those that are known to be there
** and able to answer. Nodes that have not told of themselves when they were
** asked to are left out; they come as silent. */
static bool wanting(sqlite3 *db, struct mm_node *n, const uint8_t *id, int shards, struct mm_err *err)
{
    struct mm_peers peers;
    struct mm_err none;
    mm_err_init(&none);
    (void)mm_node_peers(n, &peers, &none); /* without a connection there are none */
    bool missing = !mm_verify_answered(db, id, shards, mm_node_id(n), err);
    for (int k = 0; k < peers.count && !missing && err->rc == SQLITE_OK; k++) {
        const struct mm_peer *p = &peers.peer[k];
        missing = mm_peer_follows(p) && !mm_verify_answered(db, id, shards, p->hello.node, err);
    }
    mm_peers_free(&peers);
    return missing && err->rc == SQLITE_OK;
}

int mm_verifying_run(sqlite3 *db, struct mm_node *n, int timeout_ms, struct mm_buf *out, struct mm_err *err)
{
    uint8_t id[MM_VERIFY_ID];
    int shards = (int)mm_node_config(n)->log.shards;
    int64_t began = mm_clock_mono_ms();
    if (check_possible(db, n, err) != SQLITE_OK || mm_node_hopeless(n, err) ||
        ask(db, shards, began + timeout_ms, id, err) != SQLITE_OK) {
        return err->rc;
    }
    mm_node_peers_refresh(n); /* and wakes it */
    while (!mm_verify_complete(db, id, shards, mm_node_id(n), err) && err->rc == SQLITE_OK &&
           !mm_node_hopeless(n, err) && mm_clock_mono_ms() < began + timeout_ms) {
        if (mm_clock_mono_ms() > began + GRACE_MS && !wanting(db, n, id, shards, err)) {
            break;
        }
        (void)poll(NULL, 0, POLL_MS);
    }
    return mm_verify_json(db, id, shards, mm_node_id(n), out, err);
}
