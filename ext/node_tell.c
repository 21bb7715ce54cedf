/* What state a node is in, and in which words it says so. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "node_int.h"

enum { STORE_WAIT_MS = 200, STORE_WAIT_MOST_MS = 2000 };

/* --- a disk that takes nothing --- */

int mm_node_not_stored(struct mm_node *n, const char *what, const struct mm_err *err)
{
    bool news = strcmp(n->store_error, err->msg) != 0;
    mm_log(news ? MM_LOG_WARN : MM_LOG_DEBUG, "%s will be tried again: %s", what, err->msg);
    (void)snprintf(n->store_error, sizeof n->store_error, "%s", err->msg);
    int rc = err->rc & 0xff;
    if (rc == SQLITE_FULL || rc == SQLITE_IOERR || rc == SQLITE_READONLY || rc == SQLITE_CANTOPEN ||
        rc == SQLITE_NOMEM || rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB) {
        n->store_problem = *err;
    }
    n->store_wait_ms = n->store_wait_ms == 0 ? STORE_WAIT_MS : n->store_wait_ms * 2;
    n->store_wait_ms = n->store_wait_ms < STORE_WAIT_MOST_MS ? n->store_wait_ms : STORE_WAIT_MOST_MS;
    return n->store_wait_ms;
}

void mm_node_stored(struct mm_node *n)
{
    if (n->store_wait_ms != 0) {
        mm_log(MM_LOG_INFO, "node %lld stores again what it folds", (long long)n->config->node_id);
        mm_err_init(&n->store_problem);
        n->store_error[0] = '\0';
        n->store_wait_ms = 0;
    }
}

/* --- the state --- */

static enum mm_node_state current_state(struct mm_node *n)
{
    bool caught_up = true;
    bool full = false;
    bool silent = n->silent;
    for (int k = 0; k < n->r.nshard; k++) {
        const struct mm_shard *s = &n->r.shard[k];
        silent = silent || (s->refusal[0] != '\0' && !s->full);
        caught_up = caught_up && s->following && s->checked && s->replay == NULL && s->pos.seq >= s->sync_seq;
        full = full || s->full;
    }
    for (int k = 0; k < n->r.nshard; k++) {
        if (n->r.shard[k].blocked_seq != 0) {
            return MM_NODE_BLOCKED;
        }
    }
    if (n->outbox_problem.rc != SQLITE_OK || n->publish_problem.rc != SQLITE_OK || n->store_problem.rc != SQLITE_OK) {
        return MM_NODE_BLOCKED;
    }
    if (n->verdict != MM_NODE_LIVE) {
        return n->verdict;
    }
    if (!mm_bus_connected(n->r.bus)) {
        return n->offered ? MM_NODE_OFFLINE : MM_NODE_STARTING;
    }
    if (n->nothing_watched) {
        return MM_NODE_STARTING;
    }
    if (silent) {
        return MM_NODE_OFFLINE;
    }
    return !n->linked || !caught_up ? MM_NODE_JOINING : full ? MM_NODE_LOG_FULL : MM_NODE_LIVE;
}

/* The server does not store what is sent: why, "" = it does. */
static const char *refusal(const struct mm_node *n)
{
    for (int k = 0; k < n->r.nshard; k++) {
        if (n->r.shard[k].refusal[0] != '\0') {
            return n->r.shard[k].refusal;
        }
    }
    return "";
}

static const char *blocked_why(const struct mm_node *n, char *room, size_t size)
{
    const struct mm_err *e = n->outbox_problem.rc != SQLITE_OK    ? &n->outbox_problem
                             : n->publish_problem.rc != SQLITE_OK ? &n->publish_problem
                                                                  : &n->store_problem;
    const char *why = "";
    for (int k = 0; k < n->r.nshard; k++) {
        why = n->r.shard[k].blocked_seq != 0 ? n->r.shard[k].why : why;
    }
    if ((e->rc & 0xff) == SQLITE_FULL) {
        (void)snprintf(
            room, size,
            "%.250s: make room on the disk of %.500s; nothing is lost, what other nodes wrote waits in the log and "
            "is applied by itself when there is room",
            e->msg, n->path);
        return room;
    }
    return e->rc != SQLITE_OK ? e->msg : why;
}

static void words(const struct mm_node *n, enum mm_node_state s, char *out, size_t size)
{
    char room[sizeof n->why];
    const char *why = n->problem.rc != SQLITE_OK ? n->problem.msg : "";
    const char *what = "";
    if (s == MM_NODE_BLOCKED) {
        why = blocked_why(n, room, sizeof room);
    } else if (s == MM_NODE_STARTING && n->nothing_watched) {
        why = "no table is watched: call marmot_watch_all() or marmot_watch(table)";
    } else if (s == MM_NODE_LOG_FULL) {
        what = "the stream is full: nothing is lost, local changes wait in the outbox until there is room; the server "
               "says: ";
        why = refusal(n);
    } else if (s == MM_NODE_OFFLINE && mm_bus_connected(n->r.bus)) {
        what = "the NATS server is there, but its JetStream does not work (is it switched on, is its disk full? after "
               "making room restart nats-server): ";
        why = n->silent ? n->problem.msg : refusal(n);
    } else if (s == MM_NODE_LIVE) {
        why = "";
    }
    (void)snprintf(out, size, "%s%.800s", what, why);
}

void mm_node_tell_state(struct mm_node *n)
{
    char why[sizeof n->why];
    enum mm_node_state s = current_state(n);
    words(n, s, why, sizeof why);
    bool there = mm_bus_connected(n->r.bus);
    (void)pthread_mutex_lock(&n->mu);
    bool nobody = n->verdict == MM_NODE_LIVE && !n->linked && n->problem.rc == SQLITE_CANTOPEN; /* not of a store */
    n->no_jetstream = there && (s == MM_NODE_OFFLINE || nobody);
    (void)pthread_mutex_unlock(&n->mu);
    mm_node_tell(n, s, why);
    /* Building the answer costs more than folding a message: not every turn. */
    int64_t now = mm_clock_mono_ms();
    int64_t moved = n->r.shard[0].pos.seq;
    int64_t waiting = n->unread_rows;
    for (int k = 0; k < n->r.nshard; k++) {
        moved += n->r.shard[k].folded;
        waiting += (int64_t)mm_pending_count(n->r.shard[k].pending);
    }
    n->r.tables_changed = mm_targets_have_moved(n->r.targets) || n->r.tables_changed;
    bool news = moved != n->told_moved || waiting != n->told_waiting || s != n->told_state || n->r.tables_changed;
    news = news && !n->r.reload_needed; /* else what a failed batch left of pending and tables would show */
    if (news && (now >= n->next_status_ms || waiting == 0 || s != n->told_state)) {
        n->told_moved = moved;
        n->told_waiting = waiting;
        n->told_state = s;
        n->next_status_ms = now + MM_STATUS_MS;
        mm_node_publish_status(n);
    }
}
