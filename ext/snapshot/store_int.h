/* What a store is to ext/snapshot/store.c, and what helps to write one;
** nobody but store*.c and curl_io.c includes it.
**
** Threads: those of the store. */
#ifndef MM_SNAPSHOT_STORE_INT_H
#define MM_SNAPSHOT_STORE_INT_H

#include "snapshot/store.h"

#define MM_STORE_PIECE (1024 * 1024) /* bytes moved at a time: the memory of a transfer is a few of these */
#define MM_STORE_PLACE_MAX 512
#define MM_STORE_PART ".part-" /* in the names of uploads under way */

/* One call under way: its file, how far it is, who watches. */
struct mm_job {
    const struct mm_store_watch *watch;
    int idle_timeout_ms;
    int fd;            /* -1 where no bytes move */
    int64_t size;      /* bytes to move, -1 not known yet */
    int64_t max_bytes; /* of a get */
    int64_t done;      /* bytes moved: a get that is taken up again goes on here */
    int64_t moved_ms;  /* when something last moved */
    int tries;         /* that failed without much moving in between */
    int64_t failed_at; /* job->done at the last one */
};

/* One kind of store. Functions take what `open` returned. They set err with the cause and the remedy alone:
** store.c puts place and object before it. get is called again with job->done > 0 after SQLITE_IOERR or
** SQLITE_BUSY: it goes on there, or sets job->done to 0 and begins anew. */
struct mm_store_kind {
    const char *kind;
    void *(*open)(const struct mm_store_options *o, char place[MM_STORE_PLACE_MAX], struct mm_err *err);
    void (*close)(void *self);
    void (*put)(void *self, const char *name, struct mm_job *job, struct mm_err *err);
    int (*get)(void *self, const char *name, struct mm_job *job, struct mm_err *err);
    void (*list)(void *self, const char *prefix, struct mm_store_list *list, struct mm_job *job, struct mm_err *err);
    int (*remove)(void *self, const char *name, struct mm_job *job, struct mm_err *err);
    void (*sweep)(void *self, int64_t before_ms, struct mm_job *job, struct mm_err *err);
};

extern const struct mm_store_kind mm_store_nats, mm_store_s3, mm_store_webdav, mm_store_sftp, mm_store_file;

/* Something has moved: job->done counts it already. False with err set when the watcher ends the call. */
bool mm_job_moved(struct mm_job *job, struct mm_err *err);
/* Nothing has moved: false with err set when the watcher ends the call or the silence is too long. */
bool mm_job_waits(struct mm_job *job, struct mm_err *err);
/* After an error that another try may not meet: waits a little, clears it, true. False when it is another kind of
** error, or the tries are used up. The caller sets job->done to where it begins again. */
bool mm_job_again(struct mm_job *job, struct mm_err *err);
/* A job for cleaning up after one that failed or was ended: nobody watches, and it waits 5 s at most. */
struct mm_job mm_job_cleaning(void);
/* Reads at most n bytes at `at`: what it got, 0 at the end, -1 with err set. */
int64_t mm_job_read(struct mm_job *job, int64_t at, void *data, size_t n, struct mm_err *err);
/* Writes at job->done, which it moves on; false with err set. */
bool mm_job_write(struct mm_job *job, const void *data, size_t n, struct mm_err *err);
/* Forgets what a get has written so far. */
void mm_job_restart(struct mm_job *job, struct mm_err *err);

/* True for a name that an object may have; uploads under way are no objects. */
bool mm_store_is_name(const char *name);
/* "<name>.part-<when it began, ms, 12 hex digits><8 at random>", never the same twice. */
void mm_store_part_name(const char *name, char out[MM_STORE_NAME_MAX + 32]);
/* True for the name of an upload that began before that time. */
bool mm_store_is_left(const char *name, int64_t before_ms);
/* Adds an object unless its name is no object's or lacks the prefix. */
void mm_store_list_add(struct mm_store_list *list, const char *prefix, const char *name, int64_t size, int64_t time_ms,
                       struct mm_err *err);

#endif
