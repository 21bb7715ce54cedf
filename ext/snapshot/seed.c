#include "snapshot/seed.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "repl/epoch.h"
#include "repl/record.h"
#include "snapshot/repository.h"

enum { REQUEST_MS = 5000, TRIES = 10, AGAIN_MS = 200 };

/* The record of the cluster, made anew where a server lost all. */
static void need_record(const struct mm_seed *s, struct mm_repl *r, struct mm_err *err)
{
    struct mm_record rec = { 0 };
    if (!mm_record_read(r, s->join, &rec, err) && err->rc == SQLITE_OK) {
        mm_record_make(r, s->join, s->cluster_id, err);
        if (!mm_record_read(r, s->join, &rec, err) && err->rc == SQLITE_OK) {
            mm_err_set(err, SQLITE_IOERR, "the record of cluster %s was made but cannot be read", s->join->cluster);
        }
    }
    if (err->rc == SQLITE_OK && strcmp(rec.id, s->cluster_id) != 0) {
        mm_err_set(err, SQLITE_AUTH,
                   "the server's cluster %s belongs to another cluster (id %s, this database is of %s): connect to "
                   "another server, or give the cluster another name",
                   s->join->cluster, rec.id, s->cluster_id);
    } else if (err->rc == SQLITE_OK) {
        mm_record_check(r, s->join, &rec, err);
    }
    free(rec.settings);
}

static void lease_key(int64_t n, char key[64])
{
    (void)snprintf(key, 64, "seed.%lld", (long long)n);
}

/* Somebody may still be at work on the epoch. */
static bool leased(const struct mm_seed *s, struct mm_bus *bus, int64_t n, struct mm_err *err)
{
    char key[64];
    char *value = NULL;
    size_t len = 0;
    lease_key(n, key);
    bool there = mm_bus_kv_get(bus, s->keep->bucket, key, &value, &len, REQUEST_MS, err) != 0;
    free(value);
    return there;
}

static void take_lease(const struct mm_seed *s, struct mm_bus *bus, int64_t n, struct mm_err *err)
{
    char key[64];
    char value[32];
    lease_key(n, key);
    (void)snprintf(value, sizeof value, "%lld", (long long)s->take.repl.node);
    mm_bus_kv_open(bus, s->keep->bucket, s->keep->replicas, MM_KEEP_LEASE_MS * 1000000LL, REQUEST_MS, err);
    if (err->rc == SQLITE_OK) {
        mm_bus_kv_create(bus, s->keep->bucket, key, value, strlen(value), REQUEST_MS, err);
    }
}

static void lost(const struct mm_epoch *e, struct mm_err *err)
{
    if (e->done) {
        mm_err_set(err, SQLITE_ERROR,
                   "node %lld has begun epoch %lld of the cluster: this node follows by itself when it holds nothing "
                   "more, else call marmot_rejoin('adopt') or marmot_rejoin('merge') here",
                   (long long)e->node, (long long)e->n);
    } else {
        mm_err_set(err, SQLITE_ERROR,
                   "node %lld is beginning epoch %lld of the cluster: wait for it; if it does not come to its end, "
                   "call marmot_rejoin('seed') there, or here two minutes later",
                   (long long)e->node, (long long)e->n);
    }
}

/* The number of the epoch that this call begins, or goes on with. */
static int64_t claim(const struct mm_seed *s, struct mm_bus *bus, int64_t above, int64_t own, struct mm_err *err)
{
    struct mm_epochs seen;
    struct mm_epoch mine = { .node = s->take.repl.node, .token = s->token };
    if (mm_epoch_look(bus, s->join->cluster, own, &seen, err) != SQLITE_OK) {
        return 0;
    }
    struct mm_epoch *e = &seen.newest;
    if (seen.done.n != 0) {
        lost(&seen.done, err);
    } else if (e->n != 0 && e->token != s->token && leased(s, bus, e->n, err)) {
        lost(e, err);
    } else if (e->n >= above && e->token == s->token) {
        mine.n = e->n;
        mm_log(MM_LOG_INFO, "epoch %lld, which was begun here before, goes on", (long long)mine.n);
    } else if (err->rc == SQLITE_OK) {
        mine.n = (e->n > above ? e->n : above) + 1;
        take_lease(s, bus, mine.n, err); /* before the key: nobody finds that without it */
        if (!mm_epoch_begin(bus, s->join->cluster, &mine, err) && err->rc == SQLITE_OK &&
            mm_epoch_look(bus, s->join->cluster, mine.n - 1, &seen, err) == SQLITE_OK) {
            lost(seen.done.n != 0 ? &seen.done : &seen.newest, err);
        }
    }
    return mine.n;
}

/* The streams are there and are this cluster's; each gets the message with which the epoch begins. */
static void append_all(const struct mm_seed *s, struct mm_repl *r, int64_t n, const struct mm_manifest *m,
                       struct mm_position *pos, struct mm_err *err)
{
    struct mm_msg_place place[MM_WIRE_SHARDS_MAX];
    struct mm_msg msg = { .kind = MM_MSG_SEEDED, .epoch = n, .node = s->take.repl.node, .at_ms = mm_clock_wall_ms() };
    for (int k = 0; k < m->nshard; k++) {
        place[k].seq = m->shard[k].seq;
        memcpy(place[k].digest, m->shard[k].digest, sizeof place[k].digest);
    }
    msg.control.cluster_id = s->cluster_id;
    msg.control.settings = s->join->settings;
    msg.control.from_epoch = m->epoch;
    msg.control.place = place;
    msg.control.nplace = (size_t)m->nshard;
    for (int k = 0; k < m->nshard && err->rc == SQLITE_OK; k++) {
        struct mm_stream_info info;
        mm_record_stream(r, s->join, &r->shard[k], true, &info, err);
        if (err->rc == SQLITE_OK) {
            mm_epoch_append(r->bus, &r->shard[k], &msg, &pos[k], err);
        }
    }
}

/* The snapshot is stored, then the epoch counts. */
static void store_and_finish(const struct mm_seed *s, struct mm_bus *bus, struct mm_repository *repo, int64_t n,
                             struct mm_manifest *m, struct mm_err *err)
{
    struct mm_epochs later;
    struct mm_epoch mine = { .n = n, .node = s->take.repl.node, .token = s->token };
    int raw = open(s->take.to, O_RDONLY | O_CLOEXEC);
    if (raw < 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "the copy beside the database cannot be read");
    }
    if (err->rc == SQLITE_OK) {
        mm_repository_put(repo, m, raw, s->packed, err);
    }
    if (raw >= 0) {
        (void)close(raw);
    }
    if (err->rc == SQLITE_OK) { /* storing may have taken longer than a connection is kept */
        mm_bus_disconnect(bus);
        mm_bus_connect(bus, err);
    }
    if (mm_epoch_look(bus, s->join->cluster, n, &later, err) == SQLITE_OK && later.newest.n != 0) {
        lost(&later.newest, err);
    }
    if (err->rc == SQLITE_OK) {
        mm_epoch_finish(bus, s->join->cluster, &mine, m->id, err);
    }
}

static void give_up(const struct mm_seed *s, struct mm_bus *bus, int64_t n)
{
    char key[64];
    struct mm_err none;
    mm_err_init(&none);
    lease_key(n, key);
    mm_bus_kv_drop(bus, s->keep->bucket, key, REQUEST_MS, &none);
}

static void begin_epoch(const struct mm_seed *s, struct mm_repl *r, struct mm_repository *repo, struct mm_manifest *m,
                        struct mm_err *err)
{
    struct mm_manifest newest[MM_SNAPSHOTS_KEPT];
    struct mm_position pos[MM_SNAPSHOT_SHARDS];
    int64_t own = m->epoch;
    int64_t above = own;
    if (mm_repository_newest(repo, newest, NULL, err) > 0 && newest[0].epoch > above) {
        above = newest[0].epoch; /* a server that is gone had come further */
    }
    if (err->rc == SQLITE_OK) {
        need_record(s, r, err);
    }
    int64_t n = err->rc == SQLITE_OK ? claim(s, r->bus, above, own, err) : 0;
    bool claimed = err->rc == SQLITE_OK;
    if (claimed) {
        append_all(s, r, n, m, pos, err);
    }
    if (err->rc == SQLITE_OK && mm_take_to_epoch(&s->take, pos, m, err) == SQLITE_OK) {
        store_and_finish(s, r->bus, repo, n, m, err);
    }
    if (claimed && err->rc != SQLITE_OK && mm_bus_connected(r->bus)) {
        give_up(s, r->bus, n);
    }
}

int mm_seed_run(const struct mm_seed *s, struct mm_manifest *m, struct mm_err *err)
{
    struct mm_repository repo = { .cluster_id = s->cluster_id, .work = s->take.work };
    struct mm_bus_options bo = *s->bus;
    struct mm_repl r = { .node = s->take.repl.node, .nshard = s->take.repl.nshard };
    bo.extra_fd = -1;
    if (mm_take_copy(&s->take, m, err) != SQLITE_OK) { /* whoever may take no snapshot may not seed */
        return err->rc;
    }
    (void)snprintf(r.cluster_id, sizeof r.cluster_id, "%s", s->cluster_id);
    r.shard = calloc((size_t)r.nshard, sizeof *r.shard);
    if (r.shard == NULL) {
        return mm_err_nomem(err);
    }
    for (int k = 0; k < r.nshard; k++) {
        r.shard[k].n = k + 1;
        mm_repl_name_shard(&s->take.repl, k + 1, r.shard[k].stream, r.shard[k].subject);
    }
    repo.store = mm_store_open(s->store, err);
    r.bus = err->rc == SQLITE_OK ? mm_bus_open(&bo, err) : NULL;
    mm_work_step(s->take.work, "beginning an epoch", 0);
    int64_t own = m->epoch;
    for (int k = 0; k < TRIES && err->rc == SQLITE_OK && m->epoch == own; k++) {
        if (mm_bus_connected(r.bus) || mm_bus_connect(r.bus, err) == SQLITE_OK) {
            begin_epoch(s, &r, &repo, m, err);
        }
        /* A bucket that another node is making right now takes nothing yet. */
        if (err->rc == SQLITE_CANTOPEN && m->epoch == own && k < TRIES - 1 && !s->take.work->stop) {
            mm_err_init(err);
            mm_bus_wait(r.bus, AGAIN_MS, err);
        }
    }
    mm_store_close(repo.store);
    mm_bus_close(r.bus);
    free(r.shard);
    return err->rc;
}
