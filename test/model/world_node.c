/* One node of the world: opened, closed, its turns of the loop. */
#include "test/model/world_int.h"

#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "capture/hook.h"
#include "repl/commit.h"
#include "repl/join.h"
#include "repl/open.h"
#include "store/meta.h"
#include "test/model/faults.h"

enum { KEEP_MS = 20000, TRIM_ROWS = 3 };

static void listen_hook(void *arg, enum mm_hook_note note, const char *why)
{
    struct world_node *n = arg;
    if (note == MM_NOTE_UNCAPTURED) {
        n->unhooked = true;
        snprintf(n->why, sizeof n->why, "%s", why);
    }
}

sqlite3 *world_connect(const char *path)
{
    sqlite3 *db = NULL;
    world_need(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_PRIVATECACHE,
                               NULL) == SQLITE_OK,
               path);
    sqlite3_extended_result_codes(db, 1);
    world_need(sqlite3_exec(db, "PRAGMA journal_mode = wal", NULL, NULL, NULL) == SQLITE_OK, "WAL");
    return db;
}

void world_node_open(struct world *w, struct world_node *n)
{
    struct mm_err err;
    struct mm_repl *r = &n->r;
    mm_err_init(&err);
    memset(r, 0, sizeof *r);
    n->open = n->hurt = false;
    fault_pause(true);
    n->app = world_connect(n->path);
    fault_pause(false);
    (void)mm_hook_attach(n->app, true, listen_hook, n, &err);
    r->db = mm_repl_connect(n->path, NULL, 0, &err);
    struct mm_repl_options o = { .node = n->id,
                                 .nshard = w->shards,
                                 .stream_prefix = "log",
                                 .subject_prefix = "subject",
                                 .part_size = w->part_size,
                                 .compress = w->compress };
    if (r->db != NULL && err.rc == SQLITE_OK) {
        mm_repl_open(r, &o, &err);
    }
    r->bus = net_connect(w->net);
    n->applier = mm_applier_open(r, &err);
    if (err.rc == SQLITE_OK) {
        world_node_ends(w, n);
        world_bring_look(w, n);
    } else if (!fault_came()) {
        world_fail(w, "opening node %lld: %s", (long long)n->id, err.msg);
    }
}

void world_node_warm(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_db_exec(n->app, &err, "BEGIN IMMEDIATE");
    for (int t = 0; t < WORLD_TABLES; t++) {
        mm_db_exec(n->app, &err, "DELETE FROM main.\"%w\"", world_tables[t].name);
        (void)mm_targets_get(n->r.targets, world_tables[t].name, &err);
    }
    mm_db_exec(n->app, &err, "ROLLBACK");
    if (err.rc != SQLITE_OK) {
        world_fail(w, "warming node %lld: %s", (long long)n->id, err.msg);
    }
    world_check_node(w, n, "at the beginning");
}

void world_node_close(struct world_node *n)
{
    struct mm_repl *r = &n->r;
    world_bring_end(n);
    if (r->bus != NULL) {
        net_cut(r->bus);
    }
    mm_applier_close(n->applier);
    n->applier = NULL;
    for (int k = 0; k < WORLD_SHARDS * WORLD_ALL; k++) {
        sqlite3_finalize(n->read[k / WORLD_ALL][k % WORLD_ALL]);
    }
    memset(n->read, 0, sizeof n->read);
    n->seen_writes = 0;
    mm_repl_close(r);
    if (n->app != NULL) {
        sqlite3_exec(n->app, "ROLLBACK", NULL, NULL, NULL);
        sqlite3_close(n->app);
        n->app = NULL;
    }
}

static bool excused(const struct mm_err *err)
{
    return (err->rc & 0xff) == SQLITE_INTERRUPT || fault_came();
}

/* As the node does: also one that was broken off begins once more. */
static void begin_replays(struct world *w, struct world_node *n)
{
    for (int k = 0; k < n->r.nshard; k++) {
        struct mm_shard *s = &n->r.shard[k];
        struct mm_err err;
        mm_err_init(&err);
        if (s->replay != NULL && !s->following) {
            mm_accept_close(s->replay);
            s->replay = NULL;
        }
        if (s->replay == NULL && mm_join_replay_wanted(&n->r, s, &err) &&
            mm_join_replay_begin(&n->r, s, &err) == SQLITE_OK) {
            mm_applier_drop(n->applier, s->n);
            s->following = s->checked = false;
        }
        if (err.rc != SQLITE_OK && (err.rc & 0xff) != SQLITE_BUSY && !excused(&err)) {
            world_fail(w, "reading the log again: %s", err.msg);
        }
    }
}

static void follow(struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    for (int k = 0; k < n->r.nshard; k++) {
        struct mm_shard *s = &n->r.shard[k];
        if (!s->following) {
            int64_t start = s->replay != NULL || s->pos.seq == 0 ? 1 : s->pos.seq;
            mm_bus_follow(n->r.bus, s->stream, s->n, start, 0, &err);
            s->following = true;
            s->checked = s->pos.seq == 0;
        }
    }
}

void world_node_ends(struct world *w, struct world_node *n)
{
    for (int k = 0; n->r.shard != NULL && k < n->r.nshard; k++) {
        n->r.shard[k].sync_seq = net_end(w->net, k + 1);
    }
}

void world_node_follow_again(struct world_node *n)
{
    mm_applier_drop(n->applier, 0);
    for (int k = 0; k < n->r.nshard; k++) {
        n->r.shard[k].following = n->r.shard[k].checked = false;
        mm_publisher_back(&n->r.shard[k], "the log is read again", false);
    }
}

/* True when memory is good; reads it anew where that is asked for. */
static bool trusted(struct world *w, struct world_node *n)
{
    if (n->r.reload_needed) {
        struct mm_err err;
        mm_err_init(&err);
        w->reloads++;
        if (mm_repl_reload(&n->r, &err) != SQLITE_OK && !excused(&err)) {
            world_fail(w, "reload: %s", err.msg);
        }
        (void)world_astray(w, n);
        world_node_follow_again(n);
    }
    return !w->failed && !n->r.reload_needed;
}

void world_node_apply(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (!trusted(w, n) || n->bring.held || !mm_applier_due(n->applier)) {
        return;
    }
    bool behind = false;
    enum mm_applier_result result = mm_applier_run(n->applier, &err);
    w->busy += result == MM_APPLY_BUSY;
    switch (result) {
    case MM_APPLY_RELOAD: /* read anew when something else is to be done, not at once */
        if (err.rc != SQLITE_OK && !excused(&err)) {
            world_fail(w, "node %lld cannot fold: %d %s", (long long)n->id, err.rc, err.msg);
        }
        world_node_follow_again(n);
        break;
    case MM_APPLY_LOST:
        for (int k = 0; k < n->r.nshard; k++) {
            behind = behind || n->r.shard[k].behind;
        }
        if ((behind && w->kept[1] != NULL) || (!behind && world_astray(w, n))) {
            for (int k = 0; k < n->r.nshard; k++) {
                n->r.shard[k].behind = false;
            }
            world_bring_due(n, !behind);
            break;
        }
        world_fail(w, "node %lld is lost: %s", (long long)n->id, err.msg);
        break;
    case MM_APPLY_EPOCH:
        if (w->epoch > 1) {
            world_bring_due(n, true);
        } else { /* it does not count yet: the node waits */
            world_node_follow_again(n);
        }
        break;
    case MM_APPLY_BLOCKED:
        world_fail(w, "node %lld is blocked: %s", (long long)n->id, err.msg);
        break;
    default:
        if (err.rc != SQLITE_OK) {
            world_fail(w, "node %lld: %s", (long long)n->id, err.msg);
        }
        break;
    }
}

static int interrupt(void *arg)
{
    int *left = arg;
    return --*left <= 0;
}

void world_node_break(struct world *w, struct world_node *n, int after)
{
    sqlite3_progress_handler(n->r.db, 7, interrupt, &after);
    world_node_apply(w, n);
    sqlite3_progress_handler(n->r.db, 0, NULL, NULL);
}

void world_node_deliver(struct world *w, struct world_node *n, int count)
{
    struct mm_delivery d;
    struct mm_err err;
    mm_err_init(&err);
    if (!trusted(w, n) || n->bring.held) {
        return;
    }
    if (w->again) {
        world_watch_look(w, n);
        begin_replays(w, n);
    }
    follow(n);
    net_allow(n->r.bus, count);
    while (mm_applier_room(n->applier) && mm_bus_next(n->r.bus, &d)) {
        struct mm_shard *s = &n->r.shard[d.shard - 1];
        s->end_seq = d.seq + d.pending > s->end_seq ? d.seq + d.pending : s->end_seq;
        if (mm_applier_put(n->applier, &d, &err) != SQLITE_OK && fault_came()) { /* as the node does */
            s->following = s->checked = false;
            mm_applier_drop(n->applier, s->n);
            return;
        }
    }
}

void world_node_pump(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (!trusted(w, n) || n->bring.held) {
        return;
    }
    if (w->shapes) {
        world_watch_look(w, n);
    }
    mm_repl_read_outbox(&n->r, &err);
    for (int k = 0; k < n->r.nshard && err.rc == SQLITE_OK; k++) {
        mm_publisher_check(&n->r, &n->r.shard[k]);
        mm_publisher_pump(&n->r, &n->r.shard[k], &err);
    }
    if (err.rc != SQLITE_OK && fault_came()) {
        for (int k = 0; k < n->r.nshard; k++) {
            mm_publisher_back(&n->r.shard[k], err.msg, true);
        }
    } else if (err.rc != SQLITE_OK) {
        world_fail(w, "publishing of node %lld: %s", (long long)n->id, err.msg);
    }
}

void world_node_acks(struct world_node *n)
{
    struct mm_ack ack;
    while (!n->bring.held && mm_bus_next_ack(n->r.bus, &ack)) {
        mm_publisher_ack(&n->r, &ack);
    }
}

void world_node_flush(struct world *w, struct world_node *n)
{
    struct mm_commit_trim trim = {
        .look = true, .keep_ms = w->lost ? INT64_C(1) << 50 : KEEP_MS, .keep_bytes = INT64_MAX, .rows = TRIM_ROWS
    };
    struct mm_err err;
    bool more = false;
    mm_err_init(&err);
    /* Also when memory is not to be trusted: nothing of it may be stored. */
    enum mm_commit_stored stored = mm_commit_store(&n->r, &trim, &more, &err);
    if (stored == MM_STORED_NOT && n->r.reload_needed) {
        world_node_follow_again(n);
    }
    if (stored == MM_STORED_NOT && (err.rc & 0xff) == SQLITE_BUSY) {
        w->busy++;
    } else if (stored == MM_STORED_NOT && !fault_came()) {
        world_fail(w, "flush of node %lld: %s", (long long)n->id, err.msg);
    }
}

void world_node_cut(struct world *w, struct world_node *n)
{
    net_cut(n->r.bus);
    n->r.bus = net_connect(w->net);
    if (trusted(w, n)) {
        world_node_follow_again(n);
    }
    world_bring_look(w, n);
}

void world_node_restart(struct world *w, struct world_node *n)
{
    world_node_close(n);
    world_node_open(w, n);
}
