/* Objects in a bucket of NATS's object store, in the format of the `nats` tool
** (stream OBJ_<bucket>; chunks on $O.<bucket>.C.<nuid>, a description on
** $O.<bucket>.M.<name in base64>, SHA-256 of the whole). An object is seen when
** its description is stored, which comes after the acknowledgement of its last
** chunk.
**
** Threads: the one that owns the struct mm_bus, which should be no connection
** that follows streams. Memory: a few chunks. Errors as in bus.h; SQLITE_FULL
** where the server has no room, SQLITE_CORRUPT for a wrong digest. */
#ifndef MM_BUS_OBJECT_H
#define MM_BUS_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"

#define MM_OBJECT_CHUNK (128 * 1024) /* bytes a message; the nats tool's own */

struct mm_object_info {
    char name[256];
    char nuid[64];
    char digest[64]; /* base64url of the SHA-256 */
    int64_t size, chunks, time_ms;
    bool deleted, link;
};

/* How bytes come and go. Each returns false, with err set, to end the transfer. */
struct mm_object_io {
    bool (*read)(void *arg, int64_t at, void *data, size_t n, struct mm_err *err); /* exactly n bytes */
    bool (*write)(void *arg, const void *data, size_t n, struct mm_err *err);
    bool (*moved)(void *arg, int64_t done, struct mm_err *err); /* the server has that many */
    bool (*waits)(void *arg, struct mm_err *err);               /* nothing happened for a while */
    void *arg;
};

/* Makes the bucket where it is missing. Returns err->rc. */
int mm_object_bucket(struct mm_bus *b, const char *bucket, int replicas, int timeout_ms, struct mm_err *err);
/* 1 and the description of the newest of that name (also of a deleted one), or 0. */
int mm_object_look(struct mm_bus *b, const char *bucket, const char *name, struct mm_object_info *info, int timeout_ms,
                   struct mm_err *err);
/* Stores `size` bytes under the name; what it held before goes. Returns err->rc. */
int mm_object_put(struct mm_bus *b, const char *bucket, const char *name, int64_t size, const struct mm_object_io *io,
                  int timeout_ms, struct mm_err *err);
/* The bytes of what mm_object_look found, digest compared. Returns err->rc. */
int mm_object_get(struct mm_bus *b, const char *bucket, const struct mm_object_info *info,
                  const struct mm_object_io *io, int timeout_ms, struct mm_err *err);
/* Marks it deleted and frees its space. Returns err->rc. */
int mm_object_remove(struct mm_bus *b, const char *bucket, const struct mm_object_info *info, int timeout_ms,
                     struct mm_err *err);
/* Calls f for each object that is not deleted. Returns err->rc; an absent bucket has none. */
int mm_object_each(struct mm_bus *b, const char *bucket,
                   bool (*f)(void *arg, const struct mm_object_info *info, struct mm_err *err), void *arg,
                   int timeout_ms, struct mm_err *err);
/* Removes chunks without a description whose last is older than before_ms. Returns err->rc. */
int mm_object_sweep(struct mm_bus *b, const char *bucket, int64_t before_ms, int timeout_ms, struct mm_err *err);

#endif
