/* Snapshots in the object store of the NATS servers, by a connection of their
** own: a transfer must not stand in the way of the change log. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "bus/object.h"
#include "snapshot/store_int.h"

struct nats {
    struct mm_bus *bus;
    char *bucket;
    int replicas;
    bool made; /* the bucket is there */
};

static void nats_close(void *self)
{
    struct nats *n = self;
    mm_bus_close(n->bus);
    free(n->bucket);
    free(n);
}

static void *nats_open(const struct mm_store_options *o, char place[MM_STORE_PLACE_MAX], struct mm_err *err)
{
    struct nats *n = calloc(1, sizeof *n);
    if (n == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    struct mm_bus_options own = *o->nats.bus;
    own.extra_fd = -1;
    n->bucket = strdup(o->nats.bucket != NULL ? o->nats.bucket : "");
    n->replicas = o->nats.replicas;
    n->bus = mm_bus_open(&own, err);
    if (n->bucket == NULL) {
        mm_err_nomem(err);
    } else if (strspn(n->bucket, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") !=
                   strlen(n->bucket) ||
               n->bucket[0] == '\0' || strlen(n->bucket) > 60) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.nats.bucket must be a word of 60 letters, digits, - and _ at most");
    }
    if (err->rc != SQLITE_OK) {
        nats_close(n);
        return NULL;
    }
    (void)snprintf(place, MM_STORE_PLACE_MAX, "nats bucket %s", n->bucket);
    return n;
}

static int timeout_of(const struct mm_job *job)
{
    return job->idle_timeout_ms < 10000 ? job->idle_timeout_ms : 10000;
}

/* True when there is a connection, opened if need be. */
static bool ready(struct nats *n, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && mm_bus_connected(n->bus)) {
        mm_bus_wait(n->bus, 0, err); /* notices one that was lost meanwhile */
    }
    if (err->rc == SQLITE_OK && !mm_bus_connected(n->bus)) {
        mm_bus_connect(n->bus, err);
    }
    return err->rc == SQLITE_OK;
}

static bool read_piece(void *arg, int64_t at, void *data, size_t n, struct mm_err *err)
{
    for (size_t got = 0; got < n;) {
        int64_t k = mm_job_read(arg, at + (int64_t)got, (char *)data + got, n - got, err);
        if (k <= 0) {
            return false;
        }
        got += (size_t)k;
    }
    return true;
}

static bool write_piece(void *arg, const void *data, size_t n, struct mm_err *err)
{
    return mm_job_write(arg, data, n, err);
}

static bool moved(void *arg, int64_t done, struct mm_err *err)
{
    struct mm_job *job = arg;
    job->done = done;
    return mm_job_moved(job, err);
}

static bool waits(void *arg, struct mm_err *err)
{
    return mm_job_waits(arg, err);
}

static struct mm_object_io io_of(struct mm_job *job)
{
    return (
        struct mm_object_io){ .read = read_piece, .write = write_piece, .moved = moved, .waits = waits, .arg = job };
}

/* What went wrong may have left answers under way: the next call begins with a fresh connection. */
static void after(struct nats *n, const struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        mm_bus_disconnect(n->bus);
        n->made = false;
    }
}

static void nats_put(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct nats *n = self;
    struct mm_object_io io = io_of(job);
    if (ready(n, err) && !n->made &&
        mm_object_bucket(n->bus, n->bucket, n->replicas, timeout_of(job), err) == SQLITE_OK) {
        n->made = true;
    }
    if (err->rc == SQLITE_OK) {
        mm_object_put(n->bus, n->bucket, name, job->size, &io, timeout_of(job), err);
    }
    after(n, err);
}

static int nats_get(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct nats *n = self;
    struct mm_object_info info;
    struct mm_object_io io = io_of(job);
    int found = ready(n, err) ? mm_object_look(n->bus, n->bucket, name, &info, timeout_of(job), err) : 0;
    found = found != 0 && !info.deleted;
    if (found != 0 && info.link) {
        mm_err_set(err, SQLITE_ERROR, "it is a link to another object");
    } else if (found != 0 && info.size > job->max_bytes) {
        mm_err_set(err, SQLITE_TOOBIG, "the object has %lld bytes, more than the %lld that were expected",
                   (long long)info.size, (long long)job->max_bytes);
    } else if (found != 0) {
        mm_job_restart(job, err);
        job->size = info.size;
        mm_object_get(n->bus, n->bucket, &info, &io, timeout_of(job), err);
    }
    after(n, err);
    return found;
}

struct listing {
    const char *prefix;
    struct mm_store_list *list;
    struct mm_job *job;
};

static bool list_one(void *arg, const struct mm_object_info *info, struct mm_err *err)
{
    struct listing *l = arg;
    if (!info->link) {
        mm_store_list_add(l->list, l->prefix, info->name, info->size, info->time_ms, err);
    }
    return mm_job_moved(l->job, err);
}

static void nats_list(void *self, const char *prefix, struct mm_store_list *list, struct mm_job *job,
                      struct mm_err *err)
{
    struct nats *n = self;
    struct listing l = { .prefix = prefix, .list = list, .job = job };
    if (ready(n, err)) {
        mm_object_each(n->bus, n->bucket, list_one, &l, timeout_of(job), err);
    }
    after(n, err);
}

static int nats_remove(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct nats *n = self;
    struct mm_object_info info;
    int found = ready(n, err) ? mm_object_look(n->bus, n->bucket, name, &info, timeout_of(job), err) : 0;
    found = found != 0 && !info.deleted;
    if (found != 0) {
        mm_object_remove(n->bus, n->bucket, &info, timeout_of(job), err);
    }
    after(n, err);
    return found;
}

static void nats_sweep(void *self, int64_t before_ms, struct mm_job *job, struct mm_err *err)
{
    struct nats *n = self;
    if (ready(n, err)) {
        mm_object_sweep(n->bus, n->bucket, before_ms, timeout_of(job), err);
    }
    after(n, err);
}

const struct mm_store_kind mm_store_nats = {
    .kind = "nats",
    .open = nats_open,
    .close = nats_close,
    .put = nats_put,
    .get = nats_get,
    .list = nats_list,
    .remove = nats_remove,
    .sweep = nats_sweep,
};
