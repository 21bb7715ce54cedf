/* Snapshots in a directory: of this machine, or a shared one mounted by all. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "snapshot/store_int.h"

/* The group of the directory may read snapshots: nodes may run as different users. */
#define FILE_MODE 0640
#define DIRECTORY_MODE 0750

static int failed(struct mm_err *err, const char *doing)
{
    int why = errno;
    bool full = why == ENOSPC || why == EDQUOT || why == EFBIG;
    bool refused = why == EACCES || why == EPERM || why == EROFS;
    return mm_err_set(err,
                      full      ? SQLITE_FULL
                      : refused ? SQLITE_AUTH
                                : SQLITE_CANTOPEN,
                      "cannot %s: %s%s", doing, strerror(why),
                      full ? "; make room there, or choose another place by snapshot.file.path"
                      : refused
                          ? "; the user of this process needs write permission in the directory of snapshot.file.path"
                          : "; look at snapshot.file.path");
}

static void *file_open(const struct mm_store_options *o, char place[MM_STORE_PLACE_MAX], struct mm_err *err)
{
    if (o->file_path == NULL || o->file_path[0] != '/' || strlen(o->file_path) > 400) {
        mm_err_set(err, SQLITE_MISUSE, "snapshot.file.path must be an absolute directory of at most 400 bytes");
        return NULL;
    }
    char *path = strdup(o->file_path);
    if (path == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    (void)snprintf(place, MM_STORE_PLACE_MAX, "file %s", path);
    return path;
}

/* The directory, made with those above it when `make`; -1 with err set, or without when it is absent. */
static int directory(const char *path, bool make, struct mm_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT || !make) {
        if (fd < 0 && errno != ENOENT) {
            failed(err, "open the directory");
        }
        return fd;
    }
    char *above = strdup(path);
    if (above == NULL) {
        mm_err_nomem(err);
        return -1;
    }
    for (char *p = strchr(above + 1, '/');; p = strchr(p + 1, '/')) {
        if (p != NULL) {
            *p = '\0';
        }
        if (mkdir(above, DIRECTORY_MODE) != 0 && errno != EEXIST) {
            failed(err, "make the directory");
            break;
        }
        if (p == NULL) {
            break;
        }
        *p = '/';
    }
    free(above);
    return err->rc == SQLITE_OK ? directory(path, false, err) : -1;
}

static void copy_in(struct mm_job *job, int to, char *piece, struct mm_err *err)
{
    while (job->done < job->size && err->rc == SQLITE_OK) {
        int64_t got = mm_job_read(job, job->done, piece, MM_STORE_PIECE, err);
        for (int64_t at = 0; at < got && err->rc == SQLITE_OK;) {
            ssize_t k = write(to, piece + at, (size_t)(got - at));
            if (k < 0 && errno != EINTR) {
                failed(err, "write");
            }
            at += k > 0 ? k : 0;
        }
        job->done += got > 0 ? got : 0;
        (void)mm_job_moved(job, err);
    }
    if (err->rc == SQLITE_OK && fsync(to) != 0) {
        failed(err, "write");
    }
}

static void file_put(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    char part[MM_STORE_NAME_MAX + 32];
    mm_store_part_name(name, part);
    char *piece = malloc(MM_STORE_PIECE);
    int dir = piece != NULL ? directory(self, true, err) : -1;
    int to = dir >= 0 ? openat(dir, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE) : -1;
    if (piece == NULL) {
        mm_err_nomem(err);
    } else if (to < 0) {
        failed(err, "create a file");
    } else {
        copy_in(job, to, piece, err);
        if (close(to) != 0) {
            failed(err, "write");
        }
        if (err->rc == SQLITE_OK && (renameat(dir, part, dir, name) != 0 || fsync(dir) != 0)) {
            failed(err, "rename");
        }
        if (err->rc != SQLITE_OK) {
            (void)unlinkat(dir, part, 0);
        }
    }
    if (dir >= 0) {
        (void)close(dir);
    }
    free(piece);
}

static int file_get(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    struct stat st;
    int dir = directory(self, false, err);
    int from = dir >= 0 ? openat(dir, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
    bool absent = from < 0 && errno == ENOENT;
    char *piece = from >= 0 ? malloc(MM_STORE_PIECE) : NULL;
    if (from < 0) {
        if (dir >= 0 && !absent) {
            failed(err, "open it");
        }
    } else if (fstat(from, &st) != 0 || !S_ISREG(st.st_mode)) {
        mm_err_set(err, SQLITE_CANTOPEN, "it is no regular file: move it away");
    } else if (piece == NULL) {
        mm_err_nomem(err);
    } else {
        job->size = st.st_size;
        while (job->done < job->size && err->rc == SQLITE_OK) {
            ssize_t k = pread(from, piece, MM_STORE_PIECE, job->done);
            if (k < 0 && errno != EINTR) {
                failed(err, "read it");
            } else if (k == 0) {
                mm_err_set(err, SQLITE_CORRUPT, "it became shorter while it was read");
            } else if (k > 0) {
                (void)mm_job_write(job, piece, (size_t)k, err);
            }
        }
    }
    if (from >= 0) {
        (void)close(from);
    }
    if (dir >= 0) {
        (void)close(dir);
    }
    free(piece);
    return from >= 0;
}

/* Calls f for each file of the directory. */
static void each(const char *path, struct mm_job *job, struct mm_err *err,
                 void (*f)(void *arg, int dir, const char *name, const struct stat *st, struct mm_err *err), void *arg)
{
    int fd = directory(path, false, err);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (fd >= 0 && d == NULL) {
        failed(err, "read the directory");
        (void)close(fd);
    }
    while (d != NULL && err->rc == SQLITE_OK && mm_job_moved(job, err)) {
        struct stat st;
        errno = 0;
        const struct dirent *e = readdir(d);
        if (e == NULL) {
            if (errno != 0) {
                failed(err, "read the directory");
            }
            break;
        }
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
            f(arg, dirfd(d), e->d_name, &st, err);
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
}

static int64_t changed_ms(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;
}

struct listing {
    const char *prefix;
    struct mm_store_list *list;
};

static void list_one(void *arg, int dir, const char *name, const struct stat *st, struct mm_err *err)
{
    struct listing *l = arg;
    (void)dir;
    mm_store_list_add(l->list, l->prefix, name, st->st_size, changed_ms(st), err);
}

static void file_list(void *self, const char *prefix, struct mm_store_list *list, struct mm_job *job,
                      struct mm_err *err)
{
    struct listing l = { .prefix = prefix, .list = list };
    each(self, job, err, list_one, &l);
}

static int file_remove(void *self, const char *name, struct mm_job *job, struct mm_err *err)
{
    (void)job;
    int found = 0;
    int dir = directory(self, false, err);
    if (dir >= 0) {
        found = unlinkat(dir, name, 0) == 0;
        if ((found == 0 && errno != ENOENT) || fsync(dir) != 0) {
            failed(err, "remove it");
        }
        (void)close(dir);
    }
    return found;
}

static void sweep_one(void *arg, int dir, const char *name, const struct stat *st, struct mm_err *err)
{
    const int64_t *before_ms = arg;
    (void)st;
    if (mm_store_is_left(name, *before_ms) && unlinkat(dir, name, 0) != 0 && errno != ENOENT) {
        failed(err, "remove what an upload left");
    }
}

static void file_sweep(void *self, int64_t before_ms, struct mm_job *job, struct mm_err *err)
{
    each(self, job, err, sweep_one, &before_ms);
}

const struct mm_store_kind mm_store_file = {
    .kind = "file",
    .open = file_open,
    .close = free,
    .put = file_put,
    .get = file_get,
    .list = file_list,
    .remove = file_remove,
    .sweep = file_sweep,
};
