/* One node of the world: opened, closed, its turns of the loop. */
#include "test/model/world_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/db.h"
#include "capture/hook.h"
#include "store/meta.h"

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
    world_need(sqlite3_exec(db, "PRAGMA journal_mode = wal; PRAGMA synchronous = 0", NULL, NULL, NULL) == SQLITE_OK,
               "WAL");
    return db;
}

void world_node_open(struct world *w, struct world_node *n)
{
    struct mm_err err;
    struct mm_repl *r = &n->r;
    int off = 0;
    mm_err_init(&err);
    memset(r, 0, sizeof *r);
    n->open = false;
    n->app = world_connect(n->path);
    if (mm_hook_attach(n->app, true, listen_hook, n, &err) == NULL) {
        world_fail(w, "hook of node %lld: %s", (long long)n->id, err.msg);
        return;
    }
    r->db = world_connect(n->path);
    sqlite3_db_config(r->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, &off);
    mm_db_exec(r->db, &err, "PRAGMA foreign_keys = 0; PRAGMA ignore_check_constraints = 1");
    r->node = n->id;
    r->epoch = 1;
    r->nshard = w->shards;
    r->part_size = w->part_size;
    r->compress = w->compress;
    r->joined = true;
    r->shard = calloc((size_t)r->nshard, sizeof *r->shard);
    world_need(r->shard != NULL, "memory");
    r->bus = net_connect(w->net);
    r->outbox = mm_outbox_open(r->db, &err);
    r->targets = mm_targets_open(r->db, r->nshard, &err);
    n->applier = mm_applier_open(r, &err);
    for (int k = 0; k < r->nshard && err.rc == SQLITE_OK; k++) {
        struct mm_shard *s = &r->shard[k];
        s->n = k + 1;
        snprintf(s->stream, sizeof s->stream, "log-%d", s->n);
        snprintf(s->subject, sizeof s->subject, "subject-%d", s->n);
        mm_buf_init(&s->large.body, (size_t)1 << 30);
        s->accept = mm_accept_open(r->db, s->n, false, &err);
        s->pending = mm_pending_open(r->db, r->outbox, r->targets, s->n, &err);
    }
    mm_targets_refresh(r->targets, &err);
    mm_repl_reload(r, &err);
    for (int k = 0; k < r->nshard && err.rc == SQLITE_OK; k++) {
        r->shard[k].sync_seq = net_end(w->net, k + 1);
    }
    if (err.rc != SQLITE_OK) {
        world_fail(w, "opening node %lld: %s", (long long)n->id, err.msg);
    }
}

void world_node_close(struct world_node *n)
{
    struct mm_repl *r = &n->r;
    if (r->bus != NULL) {
        net_cut(r->bus);
    }
    mm_applier_close(n->applier);
    n->applier = NULL;
    for (int k = 0; r->shard != NULL && k < r->nshard; k++) {
        struct mm_shard *s = &r->shard[k];
        mm_accept_close(s->replay);
        mm_accept_close(s->accept);
        mm_pending_close(s->pending);
        mm_buf_free(&s->large.body);
    }
    free(r->shard);
    mm_targets_close(r->targets);
    mm_outbox_close(r->outbox);
    sqlite3_close(r->db);
    memset(r, 0, sizeof *r);
    if (n->app != NULL) {
        sqlite3_exec(n->app, "ROLLBACK", NULL, NULL, NULL);
        sqlite3_close(n->app);
        n->app = NULL;
    }
}

static void follow(struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    for (int k = 0; k < n->r.nshard; k++) {
        struct mm_shard *s = &n->r.shard[k];
        if (!s->following) {
            mm_bus_follow(n->r.bus, s->stream, s->n, s->pos.seq == 0 ? 1 : s->pos.seq, 0, &err);
            s->following = true;
            s->checked = s->pos.seq == 0;
        }
    }
}

static void follow_again(struct world_node *n)
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
        if (mm_repl_reload(&n->r, &err) != SQLITE_OK && (err.rc & 0xff) != SQLITE_INTERRUPT) {
            world_fail(w, "reload: %s", err.msg);
        }
        follow_again(n);
    }
    return !w->failed && !n->r.reload_needed;
}

void world_node_apply(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (!trusted(w, n) || !mm_applier_due(n->applier)) {
        return;
    }
    enum mm_applier_result result = mm_applier_run(n->applier, &err);
    w->busy += result == MM_APPLY_BUSY;
    switch (result) {
    case MM_APPLY_RELOAD:
        n->r.reload_needed = true;
        if (err.rc != SQLITE_OK && (err.rc & 0xff) != SQLITE_INTERRUPT) {
            world_fail(w, "node %lld cannot fold: %d %s", (long long)n->id, err.rc, err.msg);
        }
        trusted(w, n);
        break;
    case MM_APPLY_BLOCKED:
    case MM_APPLY_LOST:
        world_fail(w, "node %lld is %s: %s", (long long)n->id, result == MM_APPLY_LOST ? "lost" : "blocked", err.msg);
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
    if (!trusted(w, n)) {
        return;
    }
    follow(n);
    net_allow(n->r.bus, count);
    while (mm_applier_room(n->applier) && mm_bus_next(n->r.bus, &d)) {
        struct mm_shard *s = &n->r.shard[d.shard - 1];
        s->end_seq = d.seq + d.pending > s->end_seq ? d.seq + d.pending : s->end_seq;
        mm_applier_put(n->applier, &d, &err);
    }
}

void world_node_pump(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (!trusted(w, n)) {
        return;
    }
    mm_repl_read_outbox(&n->r, &err);
    for (int k = 0; k < n->r.nshard && err.rc == SQLITE_OK; k++) {
        mm_publisher_check(&n->r, &n->r.shard[k]);
        mm_publisher_pump(&n->r, &n->r.shard[k], &err);
    }
    if (err.rc != SQLITE_OK) {
        world_fail(w, "publishing of node %lld: %s", (long long)n->id, err.msg);
    }
}

void world_node_acks(struct world_node *n)
{
    struct mm_ack ack;
    while (mm_bus_next_ack(n->r.bus, &ack)) {
        mm_publisher_ack(&n->r, &ack);
    }
}

void world_node_flush(struct world *w, struct world_node *n)
{
    struct mm_repl *r = &n->r;
    struct mm_err err;
    bool more = false;
    mm_err_init(&err);
    if (!trusted(w, n)) {
        return;
    }
    mm_db_exec(r->db, &err, "BEGIN IMMEDIATE");
    if ((err.rc & 0xff) == SQLITE_BUSY) {
        w->busy++;
        return;
    }
    mm_repl_flush(r, &err);
    mm_outbox_trim(r->outbox, mm_clock_wall_ms(), KEEP_MS, -1, TRIM_ROWS, &more, &err);
    mm_db_exec(r->db, &err, "COMMIT");
    if (err.rc != SQLITE_OK) {
        world_fail(w, "flush of node %lld: %s", (long long)n->id, err.msg);
        return;
    }
    mm_repl_flushed(r);
}

void world_node_cut(struct world *w, struct world_node *n)
{
    net_cut(n->r.bus);
    n->r.bus = net_connect(w->net);
    if (trusted(w, n)) {
        follow_again(n);
    }
}

void world_node_restart(struct world *w, struct world_node *n)
{
    world_node_close(n);
    world_node_open(w, n);
}
