#include "snapshot/task.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "base/worker.h"
#include "repl/join.h"
#include "snapshot/aside.h"
#include "snapshot/begin.h"
#include "snapshot/kept.h"
#include "snapshot/recode.h"
#include "snapshot/repository.h"
#include "snapshot/seed.h"
#include "snapshot/take.h"

enum { CLOSE_MS = 5000 };

struct mm_task {
    struct mm_task_options o;
    struct mm_worker *worker;
    struct mm_work work;
    const char *stream[MM_SNAPSHOT_SHARDS];
    char name[MM_SNAPSHOT_SHARDS][256], subject[256];
    char cluster_id[sizeof((struct mm_repl *)0)->cluster_id]; /* the node's may be read anew meanwhile */
    char *copy, *kept;
    int64_t kept_upto;
    bool brought;
    int64_t began_ms, ended_ms;

    pthread_mutex_t mu;
    pthread_cond_t told;
    enum mm_task_state state; /* mu, as all below it */
    struct mm_err err;
    bool held;
    int64_t position[MM_SNAPSHOT_SHARDS];

    /* The work's own; others look after READY or DONE. */
    struct mm_manifest manifest, older;
    char newest[sizeof((struct mm_manifest *)0)->id];
    struct mm_diff diff;
};

static void set_state(struct mm_task *t, enum mm_task_state s, const struct mm_err *err)
{
    (void)pthread_mutex_lock(&t->mu);
    t->state = s;
    if (err != NULL) {
        t->err = *err;
    }
    (void)pthread_cond_broadcast(&t->told);
    (void)pthread_mutex_unlock(&t->mu);
    t->o.wake(t->o.arg);
}

static int open_repository(struct mm_task *t, struct mm_repository *r, struct mm_err *err)
{
    *r = (struct mm_repository){ .cluster_id = t->o.cluster_id, .work = &t->work };
    r->store = mm_store_open(t->o.store, err);
    return err->rc;
}

static void take(struct mm_task *t, struct mm_repository *r, struct mm_err *err)
{
    struct mm_take take = { t->o.path, t->o.vfs, t->copy, t->o.repl, &t->work, true };
    int raw = -1;
    int packed = -1;
    if (mm_take_copy(&take, &t->manifest, err) == SQLITE_OK) {
        raw = mm_aside_open(t->copy, O_RDONLY, err);
        packed = mm_aside_unnamed(t->copy, err);
    }
    if (err->rc == SQLITE_OK) {
        mm_repository_put(r, &t->manifest, raw, packed, err);
    }
    mm_aside_close(raw);
    mm_aside_close(packed);
    mm_aside_remove(t->copy);
}

/* Nobody's call: only when it is due, and by this node alone. */
static bool my_turn(struct mm_task *t, struct mm_repository *r, struct mm_bus *bus, struct mm_err *err)
{
    struct mm_manifest list[MM_SNAPSHOTS_KEPT];
    int n = mm_repository_newest(r, list, NULL, err);
    const struct mm_manifest *newest = n > 0 ? &list[0] : NULL;
    const struct mm_manifest *older = n > 1 && list[1].epoch == list[0].epoch ? &list[1] : NULL;
    if (n > 0) {
        t->manifest = list[0];
    }
    return err->rc == SQLITE_OK && mm_keep_due(&t->o.keep_log, newest, older, bus, err) &&
           mm_keep_lease(&t->o.keep_log, newest, t->o.repl.node, bus, err) && err->rc == SQLITE_OK;
}

static void snapshot(struct mm_task *t, struct mm_err *err)
{
    struct mm_repository r;
    struct mm_manifest list[MM_SNAPSHOTS_KEPT];
    struct mm_bus_options bo = *t->o.bus;
    struct mm_err none;
    mm_err_init(&none);
    bo.extra_fd = -1;
    struct mm_bus *bus = mm_bus_open(&bo, err);
    if (open_repository(t, &r, err) == SQLITE_OK) {
        bool keep = t->o.kind == MM_TASK_KEEP;
        bool connected = mm_bus_connect(bus, keep ? err : &none) == SQLITE_OK;
        bool mine = keep && connected && my_turn(t, &r, bus, err);
        struct mm_manifest before = t->manifest;
        if (mine || !keep) {
            take(t, &r, err);
        }
        mm_err_init(&none);
        if (mine && err->rc != SQLITE_OK) {
            mm_keep_give_up(&t->o.keep_log, &before, bus, &none);
        }
        if (err->rc == SQLITE_OK && connected && mm_repository_newest(&r, list, NULL, &none) == MM_SNAPSHOTS_KEPT &&
            list[0].epoch == list[1].epoch) {
            t->older = list[1];
            mm_keep_purge(&t->o.keep_log, &list[1], bus, &none);
        }
        if (none.rc != SQLITE_OK) {
            mm_log(MM_LOG_WARN, "old messages could not be removed from the log: %s", none.msg);
        }
    }
    mm_store_close(r.store);
    mm_bus_close(bus);
}

static struct mm_scratch_options scratch_options(struct mm_task *t)
{
    return (struct mm_scratch_options){
        t->copy, t->o.vfs, t->o.repl, t->o.bus, &t->work, t->o.kind != MM_TASK_BRING, t->o.kind == MM_TASK_RECONCILE
    };
}

/* One snapshot, unpacked, checked, at its place in the log. */
static bool try_snapshot(struct mm_task *t, struct mm_repository *r, const struct mm_manifest *m, struct mm_scratch *s,
                         struct mm_err *err)
{
    struct mm_scratch_options so = scratch_options(t);
    int64_t at[MM_SNAPSHOT_SHARDS];
    mm_aside_remove(t->copy);
    int raw = mm_aside_open(t->copy, O_RDWR | O_CREAT | O_TRUNC, err);
    int packed = mm_aside_unnamed(t->copy, err);
    if (err->rc == SQLITE_OK) {
        mm_repository_get(r, m, raw, packed, err);
    }
    mm_aside_close(raw);
    mm_aside_close(packed);
    for (int k = 0; k < m->nshard; k++) {
        at[k] = m->shard[k].seq;
    }
    if (err->rc == SQLITE_OK && mm_recode(t->copy, t->o.path, t->o.vfs, &t->work, err) == SQLITE_OK &&
        mm_scratch_open(s, &so, m, err) == SQLITE_OK &&
        /* Before anything is folded: more comes with the message at its place. */
        mm_begin_columns(s, t->o.path, t->o.vfs, so.alike, err) == SQLITE_OK &&
        mm_begin_tables(s, t->o.path, t->o.vfs, err) == SQLITE_OK && mm_scratch_replay(s, at, err) == SQLITE_OK) {
        t->manifest = *m;
        return true;
    }
    mm_scratch_close(s);
    return false;
}

/* Of no use is one that is damaged, foreign, too new, or out of the log's reach. */
static bool useless(const struct mm_err *err)
{
    return err->rc == SQLITE_CORRUPT || err->rc == SQLITE_NOTADB || err->rc == SQLITE_MISMATCH ||
           err->rc == SQLITE_NOTFOUND;
}

/* The newest one that can be used: true. False: none (first tells of the newest
** why), or err. */
static bool newest(struct mm_task *t, struct mm_scratch *s, struct mm_err *first, struct mm_err *err)
{
    struct mm_manifest list[MM_SNAPSHOTS_KEPT];
    struct mm_repository r = { 0 };
    bool found = false;
    if (t->o.store == NULL || open_repository(t, &r, first) != SQLITE_OK) {
        return false;
    }
    int n = mm_repository_newest(&r, list, first, err);
    (void)snprintf(t->newest, sizeof t->newest, "%s", n > 0 ? list[0].id : "");
    if (t->o.kind == MM_TASK_TABLES && err->rc == SQLITE_OK && t->o.tried != NULL &&
        strcmp(t->o.tried, t->newest) == 0) {
        mm_err_set(err, SQLITE_DONE, "no newer snapshot is there");
    } else if (err->rc != SQLITE_OK && !t->o.need_snapshot &&
               t->o.kind != MM_TASK_TABLES) { /* without the store the log may still do */
        *first = *err;
        mm_err_init(err);
    }
    for (int k = 0; k < n && list[k].epoch >= t->o.epoch && !found && err->rc == SQLITE_OK; k++) {
        found = try_snapshot(t, &r, &list[k], s, err);
        if (!found && useless(err)) {
            mm_log(MM_LOG_WARN, "snapshot %s cannot be used: %s", list[k].id, err->msg);
            if (first->rc == SQLITE_OK) {
                *first = *err;
            }
            mm_err_init(err);
        }
    }
    mm_store_close(r.store);
    return found;
}

static bool wait_until_held(struct mm_task *t, struct mm_err *err)
{
    set_state(t, MM_TASK_HOLD, NULL);
    mm_work_step(&t->work, "waiting for the node", 0);
    (void)pthread_mutex_lock(&t->mu);
    while (!t->held && !t->work.stop) {
        (void)pthread_cond_wait(&t->told, &t->mu);
    }
    bool held = t->held;
    (void)pthread_mutex_unlock(&t->mu);
    if (!held) {
        mm_err_set(err, SQLITE_INTERRUPT, "the work on a snapshot was ended");
    }
    return held;
}

static void keep_file(struct mm_task *t, struct mm_err *err)
{
    bool differs = false;
    for (int k = 0; k < t->diff.n; k++) {
        const struct mm_diff_table *d = &t->diff.table[k];
        differs = differs ||
                  (d->captured && !d->before && d->rows > 0 && (d->mode == MM_DIFF_KEYS || d->mode == MM_DIFF_ALL));
    }
    if ((t->o.keep && differs) || t->o.keep_always) {
        t->kept = mm_kept_make(t->o.path, t->o.vfs, &t->work, &t->kept_upto, err);
    }
}

/* A cluster that began with rows is joined with them: its first snapshot is under way,
** or waits for a node that has them. */
static int nothing_waits(struct mm_task *t, const struct mm_err *first, struct mm_err *err)
{
    for (int k = 0; k < t->diff.n && t->o.newcomer && t->o.store != NULL && err->rc == SQLITE_OK; k++) {
        const struct mm_diff_table *d = &t->diff.table[k];
        if (d->mode == MM_DIFF_ABSENT && d->waits && (d->captured || (d->unknown && t->o.watch_all))) {
            mm_err_set(
                err, SQLITE_EMPTY,
                "no snapshot of the cluster holds table %.80s%s yet: a node that has its rows stores one by itself, "
                "or by marmot_snapshot(); see marmot_status() there%s%.200s",
                d->name, d->altered ? " as it was altered" : "", first->rc != SQLITE_OK ? "; here: " : "",
                first->rc != SQLITE_OK ? first->msg : "");
        }
    }
    return err->rc;
}

/* The newest snapshot, or an empty beginning; it stands where that was taken. `first`
** gets what speaks against the newest one. */
static int start_copy(struct mm_task *t, struct mm_scratch *s, struct mm_err *first, struct mm_err *err)
{
    struct mm_scratch_options so = scratch_options(t);
    mm_err_init(first);
    bool found = newest(t, s, first, err);
    if (!found && err->rc == SQLITE_OK && t->o.need_snapshot) {
        mm_err_set(err, SQLITE_NOTFOUND, "there is no snapshot of the cluster: call marmot_snapshot() first");
        *err = first->rc != SQLITE_OK ? *first : *err;
    } else if (!found && err->rc == SQLITE_OK) {
        mm_aside_remove(t->copy);
        mm_begin_empty(s, &so, t->o.path, t->o.cluster_id, first, err);
        if ((err->rc & 0xff) == SQLITE_NOTFOUND && first->rc != SQLITE_OK && !useless(first)) {
            *err = *first; /* passing: the store may answer again */
        }
    }
    return err->rc;
}

static void bring(struct mm_task *t, struct mm_err *err)
{
    struct mm_scratch s = { 0 };
    struct mm_diff_options d = { t->o.path, t->o.vfs, t->o.repl, &t->work, false, false };
    int64_t end[MM_SNAPSHOT_SHARDS];
    struct mm_err first;
    start_copy(t, &s, &first, err);
    if (err->rc == SQLITE_OK && mm_scratch_ends(&s, end, err) == SQLITE_OK &&
        mm_scratch_replay(&s, end, err) == SQLITE_OK && wait_until_held(t, err)) {
        mm_scratch_ends(&s, end, err);
        for (int k = 0; k < t->o.repl.nshard && !t->o.lost; k++) {
            end[k] = t->position[k] > end[k] ? t->position[k] : end[k];
        }
        mm_scratch_replay(&s, end, err);
        mm_diff_run(&t->diff, &d, &s, err);
        nothing_waits(t, &first, err);
        keep_file(t, err);
    }
    mm_scratch_close(&s);
}

/* A copy of exactly the node's place: to find what was not captured, or for tables alone. */
static void exactly(struct mm_task *t, struct mm_err *err)
{
    struct mm_scratch s = { 0 };
    bool tables = t->o.kind == MM_TASK_TABLES;
    struct mm_diff_options d = { t->o.path, t->o.vfs, t->o.repl, &t->work, !tables, tables };
    int64_t end[MM_SNAPSHOT_SHARDS];
    struct mm_err first;
    if (start_copy(t, &s, &first, err) == SQLITE_OK && mm_scratch_approach(&s, t->o.path, t->o.vfs, err) == SQLITE_OK &&
        wait_until_held(t, err) && mm_scratch_ends(&s, end, err) == SQLITE_OK) {
        for (int k = 0; k < t->o.repl.nshard; k++) {
            if (t->position[k] > end[k]) {
                mm_err_set(err, SQLITE_NOTFOUND, "the server has lost messages that this node has folded");
            }
        }
        mm_scratch_replay(&s, t->position, err);
        mm_diff_run(&t->diff, &d, &s, err);
        if (tables) {
            keep_file(t, err);
        }
    }
    mm_scratch_close(&s);
}

static void seed(struct mm_task *t, struct mm_err *err)
{
    struct mm_seed s = { .take = { t->o.path, t->o.vfs, t->copy, t->o.repl, &t->work, false },
                         .bus = t->o.bus,
                         .store = t->o.store,
                         .join = t->o.join,
                         .keep = &t->o.keep_log,
                         .cluster_id = t->o.cluster_id,
                         .token = t->o.token };
    if (!wait_until_held(t, err)) {
        return;
    }
    s.packed = mm_aside_unnamed(t->copy, err);
    mm_seed_run(&s, &t->manifest, err);
    mm_aside_close(s.packed);
    mm_aside_remove(t->copy);
}

static void body(struct mm_worker *w, void *arg)
{
    struct mm_task *t = arg;
    struct mm_err err;
    (void)w;
    mm_err_init(&err);
    mm_aside_remove(t->copy);
    bool exact = t->o.kind == MM_TASK_TABLES || t->o.kind == MM_TASK_RECONCILE;
    bool held = t->o.kind == MM_TASK_BRING || exact || t->o.kind == MM_TASK_SEED;
    if (t->o.kind == MM_TASK_BRING) {
        bring(t, &err);
    } else if (exact) {
        exactly(t, &err);
    } else if (t->o.kind == MM_TASK_SEED) {
        seed(t, &err);
    } else {
        snapshot(t, &err);
    }
    t->ended_ms = mm_clock_mono_ms();
    mm_work_step(&t->work, NULL, 0);
    set_state(t, err.rc != SQLITE_OK ? MM_TASK_FAILED : held ? MM_TASK_READY : MM_TASK_DONE, &err);
}

struct mm_task *mm_task_open(const struct mm_task_options *o, struct mm_err *err)
{
    struct mm_task *t = calloc(1, sizeof *t);
    if (t == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    (void)pthread_mutex_init(&t->mu, NULL);
    (void)pthread_cond_init(&t->told, NULL);
    t->o = *o;
    (void)snprintf(t->cluster_id, sizeof t->cluster_id, "%s", o->cluster_id);
    t->o.cluster_id = t->cluster_id;
    for (int k = 0; k < o->repl.nshard; k++) {
        mm_repl_name_shard(&o->repl, k + 1, t->name[k], t->subject);
        t->stream[k] = t->name[k];
    }
    t->o.keep_log.stream = t->stream;
    t->o.keep_log.nshard = o->repl.nshard;
    t->began_ms = t->ended_ms = mm_clock_mono_ms();
    mm_err_init(&t->err);
    t->copy = mm_buf_text("%s-marmot-copy", o->path);
    if (t->copy == NULL) {
        mm_err_nomem(err);
    } else {
        t->worker = mm_worker_open("marmot-snap", body, t, err);
    }
    if (t->worker == NULL) {
        mm_task_close(t);
        return NULL;
    }
    return t;
}

bool mm_task_close(struct mm_task *t)
{
    if (t == NULL) {
        return true;
    }
    t->work.stop = true;
    (void)pthread_mutex_lock(&t->mu);
    (void)pthread_cond_broadcast(&t->told);
    (void)pthread_mutex_unlock(&t->mu);
    if (!mm_worker_close(t->worker, CLOSE_MS)) {
        mm_log(MM_LOG_WARN, "the snapshot thread of %s did not end in time and is left alone", t->o.path);
        return false;
    }
    if (t->copy != NULL) {
        mm_aside_remove(t->copy);
    }
    if (t->kept != NULL && !t->brought) { /* nothing was given up, and the next attempt makes another one */
        (void)unlink(t->kept);
    }
    mm_diff_free(&t->diff);
    (void)pthread_mutex_destroy(&t->mu);
    (void)pthread_cond_destroy(&t->told);
    free(t->copy);
    free(t->kept);
    free(t);
    return true;
}

enum mm_task_state mm_task_state(struct mm_task *t, struct mm_err *err)
{
    (void)pthread_mutex_lock(&t->mu);
    enum mm_task_state s = t->state;
    if (s == MM_TASK_FAILED) {
        *err = t->err;
    }
    (void)pthread_mutex_unlock(&t->mu);
    return s;
}

enum mm_task_kind mm_task_kind(const struct mm_task *t)
{
    return t->o.kind;
}

void mm_task_held(struct mm_task *t, const int64_t *position)
{
    (void)pthread_mutex_lock(&t->mu);
    memcpy(t->position, position, (size_t)t->o.repl.nshard * sizeof *position);
    t->held = true;
    t->state = MM_TASK_WORKING;
    (void)pthread_cond_broadcast(&t->told);
    (void)pthread_mutex_unlock(&t->mu);
}

const struct mm_manifest *mm_task_manifest(const struct mm_task *t)
{
    return &t->manifest;
}

const struct mm_manifest *mm_task_older(const struct mm_task *t)
{
    return &t->older;
}

const char *mm_task_newest(const struct mm_task *t)
{
    return t->newest;
}

const struct mm_diff *mm_task_diff(const struct mm_task *t)
{
    return &t->diff;
}

const char *mm_task_copy(const struct mm_task *t)
{
    return t->copy;
}

const char *mm_task_kept(const struct mm_task *t, int64_t *upto)
{
    *upto = t->kept_upto;
    return t->kept != NULL ? t->kept : "";
}

void mm_task_brought(struct mm_task *t)
{
    t->brought = true;
}

struct mm_work *mm_task_work(struct mm_task *t)
{
    return &t->work;
}

int64_t mm_task_ms(const struct mm_task *t)
{
    return t->ended_ms - t->began_ms;
}
