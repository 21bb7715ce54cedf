#include "snapshot/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "snapshot/store_int.h"

#define CLEANING_MS 5000
#define MOVED_WELL (8 * 1024 * 1024) /* bytes: a failure after so many is a new one */

static const struct mm_store_kind *const kinds[] = { &mm_store_nats, &mm_store_s3, &mm_store_webdav, &mm_store_sftp,
                                                     &mm_store_file };

struct mm_store {
    const struct mm_store_kind *kind;
    void *self;
    int idle_timeout_ms;
    char place[MM_STORE_PLACE_MAX];
};

struct mm_store *mm_store_open(const struct mm_store_options *o, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    struct mm_store *s = calloc(1, sizeof *s);
    if (s == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i]->kind, o->kind) == 0) {
            s->kind = kinds[i];
        }
    }
    s->idle_timeout_ms = o->idle_timeout_ms > 0 ? o->idle_timeout_ms : MM_STORE_IDLE_MS;
    if (s->kind == NULL) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.store is %.40s, which is no kind of store", o->kind);
    } else {
        s->self = s->kind->open(o, s->place, err);
        mm_err_prefix(err, "snapshot store %s", s->kind->kind);
    }
    if (err->rc != SQLITE_OK) {
        mm_store_close(s);
        return NULL;
    }
    return s;
}

void mm_store_close(struct mm_store *s)
{
    if (s != NULL && s->self != NULL) {
        s->kind->close(s->self);
    }
    free(s);
}

const char *mm_store_place(const struct mm_store *s)
{
    return s->place;
}

static bool is_word(const char *name)
{
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");
    return n > 0 && name[n] == '\0' && name[0] != '.';
}

bool mm_store_is_name(const char *name)
{
    return is_word(name) && strlen(name) <= MM_STORE_NAME_MAX && strstr(name, MM_STORE_PART) == NULL;
}

void mm_store_part_name(const char *name, char out[MM_STORE_NAME_MAX + 32])
{
    uint32_t number = 0;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) {
        number = (uint32_t)mm_clock_mono_us() ^ (uint32_t)getpid() << 16;
    }
    (void)snprintf(out, MM_STORE_NAME_MAX + 32, "%s" MM_STORE_PART "%012llx%08x", name,
                   (unsigned long long)mm_clock_wall_ms() & 0xFFFFFFFFFFFF, (unsigned)number);
}

bool mm_store_is_left(const char *name, int64_t before_ms)
{
    const char *part = strstr(name, MM_STORE_PART);
    const char *digits = part != NULL ? part + strlen(MM_STORE_PART) : "";
    char began[13];
    (void)snprintf(began, sizeof began, "%.12s", digits);
    return strlen(digits) == 20 && strspn(digits, "0123456789abcdef") == 20 && strtoll(began, NULL, 16) < before_ms;
}

/* --- Jobs. --- */

static bool asks_on(struct mm_job *job, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && job->watch != NULL && job->watch->go_on != NULL &&
        !job->watch->go_on(job->watch->arg, job->done, job->size)) {
        mm_err_set(err, SQLITE_INTERRUPT, "the transfer was ended before it was complete");
    }
    return err->rc == SQLITE_OK;
}

bool mm_job_moved(struct mm_job *job, struct mm_err *err)
{
    job->moved_ms = mm_clock_mono_ms();
    return asks_on(job, err);
}

bool mm_job_waits(struct mm_job *job, struct mm_err *err)
{
    if (mm_clock_mono_ms() - job->moved_ms > job->idle_timeout_ms) {
        mm_err_set(err, SQLITE_BUSY, "nothing moved for %d s: the store or the way to it is too slow, or it hangs",
                   (job->idle_timeout_ms + 999) / 1000);
    }
    return asks_on(job, err);
}

int64_t mm_job_read(struct mm_job *job, int64_t at, void *data, size_t n, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return -1;
    }
    n = at < job->size ? (int64_t)n < job->size - at ? n : (size_t)(job->size - at) : 0;
    ssize_t got = 0;
    do {
        got = n > 0 ? pread(job->fd, data, n, at) : 0;
    } while (got < 0 && errno == EINTR);
    if (got < 0 || (got == 0 && n > 0)) {
        mm_err_set(err, SQLITE_CORRUPT, "the local file cannot be read at byte %lld: %s", (long long)at,
                   got < 0 ? strerror(errno) : "it is shorter than it was");
        return -1;
    }
    return got;
}

bool mm_job_write(struct mm_job *job, const void *data, size_t n, struct mm_err *err)
{
    const char *p = data;
    if (err->rc == SQLITE_OK && (int64_t)n > job->max_bytes - job->done) {
        mm_err_set(err, SQLITE_TOOBIG, "the object has more than the %lld bytes that were expected",
                   (long long)job->max_bytes);
    }
    while (n > 0 && err->rc == SQLITE_OK) {
        ssize_t k = pwrite(job->fd, p, n, job->done);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            int why = k < 0 ? errno : ENOSPC;
            mm_err_set(err, why == ENOSPC || why == EDQUOT || why == EFBIG ? SQLITE_FULL : SQLITE_CORRUPT,
                       "the local copy cannot be written: %s; it needs %lld bytes", strerror(why),
                       (long long)(job->size > 0 ? job->size : job->done + (int64_t)n));
            return false;
        }
        p += k;
        n -= (size_t)k;
        job->done += k;
    }
    return mm_job_moved(job, err);
}

void mm_job_restart(struct mm_job *job, struct mm_err *err)
{
    job->done = 0;
    job->size = -1;
    if (ftruncate(job->fd, 0) != 0) {
        mm_err_set(err, SQLITE_CORRUPT, "the local copy cannot be emptied: %s", strerror(errno));
    }
}

static struct mm_job job_of(const struct mm_store *s, const struct mm_store_watch *watch)
{
    return (struct mm_job){ .watch = watch,
                            .idle_timeout_ms = s->idle_timeout_ms,
                            .fd = -1,
                            .size = -1,
                            .max_bytes = INT64_MAX,
                            .moved_ms = mm_clock_mono_ms() };
}

struct mm_job mm_job_cleaning(void)
{
    return (struct mm_job){
        .idle_timeout_ms = CLEANING_MS, .fd = -1, .size = -1, .max_bytes = INT64_MAX, .moved_ms = mm_clock_mono_ms()
    };
}

bool mm_job_again(struct mm_job *job, struct mm_err *err)
{
    static const int waits_ms[MM_STORE_TRIES] = { 200, 1000, 3000 };
    if (err->rc != SQLITE_IOERR && err->rc != SQLITE_BUSY) {
        return false;
    }
    if (job->done - job->failed_at >= MOVED_WELL) {
        job->tries = 0;
    }
    job->failed_at = job->done;
    if (job->tries + 1 >= MM_STORE_TRIES) {
        return false;
    }
    mm_err_init(err);
    int64_t end = mm_clock_mono_ms() + waits_ms[job->tries++];
    while (mm_clock_mono_ms() < end && asks_on(job, err)) {
        (void)usleep(20000);
    }
    job->moved_ms = mm_clock_mono_ms();
    return err->rc == SQLITE_OK;
}

static bool good_name(const char *name, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && !mm_store_is_name(name)) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot store: \"%.60s\" cannot be the name of an object", name);
    }
    return err->rc == SQLITE_OK;
}

static int named(const struct mm_store *s, const char *name, struct mm_err *err)
{
    return name != NULL ? mm_err_prefix(err, "snapshot store %.160s, object %s", s->place, name)
                        : mm_err_prefix(err, "snapshot store %.160s", s->place);
}

/* --- Calls. --- */

int mm_store_put(struct mm_store *s, const char *name, int fd, int64_t size, const struct mm_store_watch *watch,
                 struct mm_err *err)
{
    if (!good_name(name, err)) {
        return err->rc;
    }
    struct mm_job job = job_of(s, watch);
    do {
        job.fd = fd;
        job.size = size;
        job.done = 0;
        s->kind->put(s->self, name, &job, err);
    } while (mm_job_again(&job, err));
    return named(s, name, err);
}

int mm_store_get(struct mm_store *s, const char *name, int fd, int64_t max_bytes, const struct mm_store_watch *watch,
                 struct mm_err *err)
{
    if (!good_name(name, err)) {
        return 0;
    }
    struct mm_job job = job_of(s, watch);
    int found = 0;
    job.fd = fd;
    job.max_bytes = max_bytes;
    mm_job_restart(&job, err);
    do {
        found = err->rc == SQLITE_OK ? s->kind->get(s->self, name, &job, err) : 0;
    } while (mm_job_again(&job, err));
    if (err->rc == SQLITE_OK && found != 0 && job.size >= 0 && job.done != job.size) {
        mm_err_set(err, SQLITE_CORRUPT, "%lld of its %lld bytes came", (long long)job.done, (long long)job.size);
    }
    named(s, name, err);
    return err->rc == SQLITE_OK ? found : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct mm_store_object *)a)->name, ((const struct mm_store_object *)b)->name);
}

int mm_store_list(struct mm_store *s, const char *prefix, struct mm_store_list *list,
                  const struct mm_store_watch *watch, struct mm_err *err)
{
    *list = (struct mm_store_list){ 0 };
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    struct mm_job job = job_of(s, watch);
    do {
        list->count = 0;
        s->kind->list(s->self, prefix, list, &job, err);
    } while (mm_job_again(&job, err));
    if (err->rc != SQLITE_OK) {
        mm_store_list_free(list);
    } else if (list->count > 1) {
        qsort(list->objects, list->count, sizeof *list->objects, by_name);
    }
    return named(s, NULL, err);
}

void mm_store_list_free(struct mm_store_list *list)
{
    free(list->objects);
    *list = (struct mm_store_list){ 0 };
}

void mm_store_list_add(struct mm_store_list *list, const char *prefix, const char *name, int64_t size, int64_t time_ms,
                       struct mm_err *err)
{
    if (err->rc != SQLITE_OK || !mm_store_is_name(name) || strncmp(name, prefix, strlen(prefix)) != 0) {
        return;
    }
    if (list->count == MM_STORE_OBJECTS_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "more than %d objects are there: give snapshots a place of their own",
                   MM_STORE_OBJECTS_MAX);
        return;
    }
    if ((list->count & (list->count - 1)) == 0 || list->objects == NULL) { /* full at each power of two */
        size_t room = list->count == 0 ? 1 : list->count * 2;
        struct mm_store_object *more = realloc(list->objects, room * sizeof *more);
        if (more == NULL) {
            mm_err_nomem(err);
            return;
        }
        list->objects = more;
    }
    struct mm_store_object *o = &list->objects[list->count++];
    *o = (struct mm_store_object){ .size = size, .time_ms = time_ms };
    (void)snprintf(o->name, sizeof o->name, "%s", name);
}

int mm_store_remove(struct mm_store *s, const char *name, const struct mm_store_watch *watch, struct mm_err *err)
{
    if (!good_name(name, err)) {
        return 0;
    }
    struct mm_job job = job_of(s, watch);
    int found = 0;
    do {
        int here = s->kind->remove(s->self, name, &job, err);
        found = found != 0 || here != 0;
    } while (mm_job_again(&job, err));
    named(s, name, err);
    return err->rc == SQLITE_OK ? found : 0;
}

int mm_store_sweep(struct mm_store *s, const struct mm_store_watch *watch, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    struct mm_job job = job_of(s, watch);
    s->kind->sweep(s->self, mm_clock_wall_ms() - MM_STORE_LEFT_MS, &job, err);
    return named(s, NULL, err);
}

static int memory_file(struct mm_err *err)
{
    int fd = memfd_create("marmot-object", MFD_CLOEXEC);
    if (fd < 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "no memory for an object of a snapshot store: %s", strerror(errno));
    }
    return fd;
}

int mm_store_put_bytes(struct mm_store *s, const char *name, const void *data, size_t len,
                       const struct mm_store_watch *watch, struct mm_err *err)
{
    int fd = err->rc == SQLITE_OK ? memory_file(err) : -1;
    if (fd >= 0) {
        struct mm_job copy = { .fd = fd, .size = (int64_t)len, .max_bytes = INT64_MAX };
        if (mm_job_write(&copy, data, len, err)) {
            mm_store_put(s, name, fd, (int64_t)len, watch, err);
        }
        (void)close(fd);
    }
    return err->rc;
}

int mm_store_get_bytes(struct mm_store *s, const char *name, size_t max, uint8_t **data, size_t *len,
                       const struct mm_store_watch *watch, struct mm_err *err)
{
    *data = NULL;
    *len = 0;
    int fd = err->rc == SQLITE_OK ? memory_file(err) : -1;
    int found = fd >= 0 ? mm_store_get(s, name, fd, (int64_t)max, watch, err) : 0;
    int64_t size = found != 0 ? lseek(fd, 0, SEEK_END) : 0;
    uint8_t *out = found != 0 ? malloc((size_t)size + 1) : NULL;
    if (found != 0 && out == NULL) {
        mm_err_nomem(err);
    }
    struct mm_job copy = { .fd = fd, .size = size };
    while (out != NULL && (int64_t)*len < size) {
        int64_t got = mm_job_read(&copy, (int64_t)*len, out + *len, (size_t)size - *len, err);
        if (got <= 0) {
            free(out);
            out = NULL;
            break;
        }
        *len += (size_t)got;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (out == NULL) {
        *len = 0;
        return 0;
    }
    out[*len] = '\0';
    *data = out;
    return 1;
}
