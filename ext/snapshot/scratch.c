#include "snapshot/scratch.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "repl/commit.h"
#include "repl/join.h"
#include "snapshot/take.h"
#include "store/meta.h"

enum { SILENT_MS = 30000, WAIT_MS = 200, NODE_MS = 50 };

static void check_file(struct mm_scratch *s, const struct mm_manifest *m, struct mm_err *err)
{
    mm_work_step(s->work, "checking the snapshot", 0);
    char *verdict = mm_db_text(s->r.db, err, "PRAGMA quick_check(1)");
    if (err->rc == SQLITE_OK && (verdict == NULL || strcmp(verdict, "ok") != 0)) {
        mm_err_set(err, SQLITE_CORRUPT, "the snapshot's database is damaged: %s", verdict != NULL ? verdict : "");
    }
    sqlite3_free(verdict);
    if (err->rc == SQLITE_OK && !mm_meta_exists(s->r.db, err)) {
        mm_err_set(err, SQLITE_CORRUPT, "the snapshot holds no replicated state");
    }
    mm_meta_migrate(s->r.db, err); /* one that is newer is refused here */
    char *cluster = mm_meta_text(s->r.db, MM_META_CLUSTER, err);
    if (err->rc == SQLITE_OK && m != NULL && (cluster == NULL || strcmp(cluster, m->cluster_id) != 0)) {
        mm_err_set(err, SQLITE_CORRUPT, "the snapshot's data is of another cluster than its manifest says");
    }
    sqlite3_free(cluster);
}

/* What evicts rows while folding: the other indexes and the triggers wait. */
static void make_unique_indexes(struct mm_scratch *s, struct mm_err *err)
{
    struct mm_take_statement *list = NULL;
    int n = mm_take_statements(s->r.db, "main", NULL, &list, err);
    for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
        if (sqlite3_strnicmp(list[k].sql, "CREATE UNIQUE INDEX", 19) == 0 &&
            mm_db_int(s->r.db, err, 0, "SELECT 1 FROM main.sqlite_schema WHERE name = %Q", list[k].name) == 0) {
            mm_db_exec(s->r.db, err, "%s", list[k].sql);
        }
    }
    mm_take_statements_free(list, n);
}

static void check_state(struct mm_scratch *s, const struct mm_manifest *m, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && m->nshard != s->r.nshard) {
        mm_err_set(err, SQLITE_MISMATCH, "the snapshot has %d shards, this node is configured for %d", m->nshard,
                   s->r.nshard);
    }
    for (int k = 0; k < s->r.nshard && err->rc == SQLITE_OK; k++) {
        const struct mm_position *a = &s->r.shard[k].pos;
        const struct mm_position *b = &m->shard[k];
        if (a->seq != b->seq || memcmp(a->digest, b->digest, sizeof a->digest) != 0 || a->stamp != b->stamp ||
            a->epoch != m->epoch) {
            mm_err_set(err, SQLITE_CORRUPT, "the snapshot's data is of another place than its manifest says");
        }
    }
}

int mm_scratch_open(struct mm_scratch *s, const struct mm_scratch_options *o, const struct mm_manifest *m,
                    struct mm_err *err)
{
    struct mm_repl_options ro = o->repl;
    memset(s, 0, sizeof *s);
    s->work = o->work;
    s->exact = o->exact;
    ro.node = 0;
    mm_gate_enter();
    s->r.db = mm_repl_connect(o->path, o->vfs, 0, err);
    if (s->r.db != NULL) {
        mm_work_watch(s->work, s->r.db);
        mm_db_exec(s->r.db, err, "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF");
        check_file(s, m, err);
        make_unique_indexes(s, err);
        s->applier = mm_applier_open(&s->r, err);
        mm_repl_open(&s->r, &ro, err);
        if (o->alike && err->rc == SQLITE_OK) {
            mm_targets_pass_over(s->r.targets);
        }
    }
    if (err->rc == SQLITE_OK && m != NULL) {
        check_state(s, m, err);
    }
    mm_gate_leave();
    if (err->rc == SQLITE_OK) {
        struct mm_bus_options bo = *o->bus;
        bo.extra_fd = -1;
        s->r.bus = mm_bus_open(&bo, err);
    }
    return err->rc;
}

void mm_scratch_close(struct mm_scratch *s)
{
    mm_bus_close(s->r.bus);
    mm_gate_enter();
    mm_applier_close(s->applier);
    mm_repl_close(&s->r);
    mm_gate_leave();
    s->applier = NULL;
}

static int connect_bus(struct mm_scratch *s, struct mm_err *err)
{
    return mm_bus_connected(s->r.bus) ? err->rc : mm_bus_connect(s->r.bus, err);
}

static int stream_end(struct mm_scratch *s, struct mm_shard *sh, struct mm_stream_info *info, struct mm_err *err)
{
    if (connect_bus(s, err) == SQLITE_OK && !mm_bus_stream_info(s->r.bus, sh->stream, info, MM_REQUEST_MS, err)) {
        mm_err_set(err, SQLITE_NOTFOUND, "the server has no stream %s", sh->stream);
    }
    return err->rc;
}

int mm_scratch_ends(struct mm_scratch *s, int64_t *end, struct mm_err *err)
{
    for (int k = 0; k < s->r.nshard && err->rc == SQLITE_OK; k++) {
        struct mm_stream_info info;
        if (stream_end(s, &s->r.shard[k], &info, err) == SQLITE_OK) {
            end[k] = info.last_seq;
        }
    }
    return err->rc;
}

static void follow(struct mm_scratch *s, struct mm_shard *sh, struct mm_err *err)
{
    struct mm_stream_info info;
    if (stream_end(s, sh, &info, err) != SQLITE_OK) {
        return;
    }
    bool reaches = sh->pos.seq == 0 ? info.first_seq <= 1
                                    : info.first_seq <= sh->pos.seq && info.last_seq >= sh->pos.seq &&
                                          strcmp(info.created, sh->pos.created) == 0;
    if (!reaches) {
        mm_err_set(err, SQLITE_NOTFOUND,
                   "stream %s holds %lld to %lld and was created %s; the snapshot ends at %lld of the one created %s",
                   sh->stream, (long long)info.first_seq, (long long)info.last_seq, info.created,
                   (long long)sh->pos.seq, sh->pos.created);
        return;
    }
    mm_bus_follow(s->r.bus, sh->stream, sh->n, sh->pos.seq > 0 ? sh->pos.seq : 1, MM_REQUEST_MS, err);
    sh->following = err->rc == SQLITE_OK;
    sh->checked = sh->pos.seq == 0;
}

static void take_from_bus(struct mm_scratch *s, struct mm_err *err)
{
    struct mm_delivery d;
    while (mm_applier_room(s->applier) && err->rc == SQLITE_OK && mm_bus_next(s->r.bus, &d)) {
        struct mm_shard *sh = &s->r.shard[d.shard - 1];
        if (d.kind == MM_DELIVERY_LOST) {
            mm_applier_drop(s->applier, d.shard);
            sh->following = sh->checked = false;
        } else if (!sh->following || (s->target != NULL && d.seq > s->target[d.shard - 1])) {
            mm_bus_release(&d);
        } else {
            mm_applier_put(s->applier, &d, err);
        }
    }
}

/* Folds what has come. */
static void fold(struct mm_scratch *s, struct mm_err *err)
{
    struct mm_repl *r = &s->r;
    while (mm_applier_due(s->applier) && mm_work_go_on(s->work, err)) {
        for (int k = 0; k < r->nshard; k++) {
            r->shard[k].verify_seq = 0; /* nobody waits for an answer from here */
        }
        enum mm_applier_result result = mm_applier_run(s->applier, err);
        if (result == MM_APPLY_RELOAD && err->rc == SQLITE_OK) {
            mm_repl_reload(r, err);
            mm_applier_drop(s->applier, 0);
        } else if (result == MM_APPLY_LOST) {
            err->rc = SQLITE_NOTFOUND;
        } else if (result == MM_APPLY_EPOCH) {
            mm_err_set(err, SQLITE_NOTFOUND, "the log goes on in epoch %lld, whose snapshot is needed",
                       (long long)r->met_epoch);
        }
        for (int k = 0; result == MM_APPLY_BLOCKED && k < r->nshard; k++) {
            if (r->shard[k].blocked_seq != 0) {
                mm_err_set(err, SQLITE_MISMATCH, "%s", r->shard[k].why);
            }
        }
    }
}

/* What is still to be folded, of all shards; -1: not even begun. */
static int64_t missing(const struct mm_scratch *s, const int64_t *target)
{
    int64_t n = 0;
    bool checked = true;
    for (int k = 0; k < s->r.nshard; k++) {
        const struct mm_shard *sh = &s->r.shard[k];
        n += target[k] > sh->pos.seq ? target[k] - sh->pos.seq : 0;
        checked = checked && (sh->checked || (sh->pos.seq == 0 && target[k] == 0));
    }
    return checked ? n : n + 1;
}

/* What the light way of folding holds in memory alone. */
static void flush(struct mm_scratch *s, struct mm_err *err)
{
    mm_gate_enter();
    if (err->rc == SQLITE_OK && mm_repl_dirty(&s->r)) {
        if (mm_commit_begin(&s->r, err) == SQLITE_OK) {
            mm_commit_end(&s->r, err);
        }
    }
    mm_gate_leave();
}

int mm_scratch_replay(struct mm_scratch *s, const int64_t *target, struct mm_err *err)
{
    int64_t first = missing(s, target);
    int64_t left = first;
    int64_t moved_ms = mm_clock_mono_ms();
    mm_work_step(s->work, "reading the log", first);
    s->target = s->exact ? target : NULL;
    for (int k = 0; k < s->r.nshard && s->exact; k++) { /* what lay behind an earlier target was let go */
        struct mm_shard *sh = &s->r.shard[k];
        sh->following = sh->following && target[k] <= sh->pos.seq;
    }
    while (left > 0 && err->rc == SQLITE_OK) {
        for (int k = 0; k < s->r.nshard && err->rc == SQLITE_OK; k++) {
            if (!s->r.shard[k].following && (s->r.shard[k].pos.seq > 0 || target[k] > 0)) {
                follow(s, &s->r.shard[k], err);
            }
        }
        if (err->rc == SQLITE_OK) {
            mm_bus_wait(s->r.bus, WAIT_MS, err);
        }
        if (err->rc == SQLITE_OK && !mm_bus_connected(s->r.bus)) {
            mm_err_set(err, SQLITE_IOERR, "the connection to the server was lost");
        }
        take_from_bus(s, err);
        mm_gate_enter();
        fold(s, err);
        mm_gate_leave();
        int64_t now = missing(s, target);
        if (now < left) {
            moved_ms = mm_clock_mono_ms();
        } else if (mm_clock_mono_ms() - moved_ms > SILENT_MS) {
            mm_err_set(err, SQLITE_BUSY, "the server sent no message of the log for %d s", SILENT_MS / 1000);
        }
        left = now;
        s->work->done = first - left;
        if (s->work->stop) {
            mm_err_set(err, SQLITE_INTERRUPT, "the work on a snapshot was ended");
        }
    }
    flush(s, err);
    s->target = NULL;
    return err->rc;
}

/* What the node's database says; true when the copy is nowhere ahead of it. */
static bool node_position(struct mm_scratch *s, sqlite3 *node, int64_t *at, struct mm_err *err)
{
    bool reached = true;
    mm_gate_enter();
    for (int k = 0; k < s->r.nshard && err->rc == SQLITE_OK; k++) {
        struct mm_position pos;
        mm_position_get(node, k + 1, &pos, err);
        at[k] = pos.seq;
        reached = reached && pos.seq >= s->r.shard[k].pos.seq;
    }
    mm_gate_leave();
    return reached;
}

int mm_scratch_approach(struct mm_scratch *s, const char *node_path, const char *vfs, struct mm_err *err)
{
    int64_t at[MM_SNAPSHOT_SHARDS] = { 0 };
    int64_t until = mm_clock_mono_ms() + SILENT_MS;
    mm_gate_enter();
    sqlite3 *node = mm_repl_connect(node_path, vfs, 0, err);
    mm_gate_leave();
    for (int round = 0; round < 2 && err->rc == SQLITE_OK; round++) { /* the second one is short */
        while (!node_position(s, node, at, err) && err->rc == SQLITE_OK) {
            if (s->work->stop) {
                mm_err_set(err, SQLITE_INTERRUPT, "the work on a snapshot was ended");
            } else if (mm_clock_mono_ms() > until) {
                mm_err_set(err, SQLITE_BUSY,
                           "this node is behind the newest snapshot: try again when it has caught up");
            }
            (void)poll(NULL, 0, NODE_MS);
        }
        mm_scratch_replay(s, at, err);
    }
    mm_gate_enter();
    sqlite3_close(node);
    mm_gate_leave();
    return err->rc;
}
