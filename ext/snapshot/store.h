/* Where snapshots are kept: named objects at one place, in one of five stores
** (nats, s3, webdav, sftp, file) behind one set of functions.
**
** A store belongs to one thread at a time, which is never the replication
** thread: every call but open may wait for a network or a disk. How long it
** may hang is bounded by idle_timeout_ms without a byte in either direction,
** and `watch` can end it at any time. libcurl is loaded at the first use of
** s3, webdav or sftp.
**
** An object is never half-visible: it is uploaded beside its name and gets the
** name when the store has confirmed all of it. A put over an existing object
** replaces it in one step (sftp, where servers cannot, has a moment without).
** What an interrupted upload leaves is invisible to list and get, and goes
** with mm_store_sweep. Cut connections are taken up again (a get goes on where
** it stopped, a put begins anew or at its last part), MM_STORE_TRIES in all.
**
** Errors: SQLITE_AUTH refused (secret, permission, host key), SQLITE_CANTOPEN
** not reachable, or the place is absent, SQLITE_FULL no room there or here,
** SQLITE_BUSY too long silent, SQLITE_IOERR cut or broken, SQLITE_INTERRUPT
** ended by watch, SQLITE_TOOBIG above the limit given, SQLITE_MISUSE a name or
** address that cannot be, SQLITE_ERROR what the store answered. Messages name
** the store, the object, the cause and the remedy, and never a secret. */
#ifndef MM_SNAPSHOT_STORE_H
#define MM_SNAPSHOT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct mm_bus_options;
struct mm_store;

#define MM_STORE_NAME_MAX 128 /* bytes of an object's name: fits every store's file names with room for a suffix */
#define MM_STORE_TRIES 3      /* of one transfer whose connection is cut */
#define MM_STORE_OBJECTS_MAX 10000
#define MM_STORE_IDLE_MS 60000    /* where the options say nothing */
#define MM_STORE_LEFT_MS 86400000 /* older leftovers of uploads are swept: longer than any upload lasts */

struct mm_store_options { /* borrowed during mm_store_open, copied inside */
    const char *kind;     /* "nats", "s3", "webdav", "sftp", "file" */
    int idle_timeout_ms;  /* 0: MM_STORE_IDLE_MS */
    struct {
        const struct mm_bus_options *bus; /* for a connection of its own; extra_fd is not used */
        const char *bucket;
        int replicas;
    } nats;
    struct {
        const char *endpoint; /* host[:port], or with http:// or https:// in front */
        bool use_ssl;         /* where the endpoint does not say */
        const char *bucket, *path, *region, *access_key, *secret, *session_token;
    } s3;
    const char *webdav_url; /* http[s]://host/path?dir=/in/it&login=user&secret=password */
    const char *sftp_url;   /* sftp://user:password@host:port/dir[?key=file&known_hosts=file&fingerprint=SHA256:..] */
    const char *file_path;  /* an absolute directory */
};

struct mm_store_watch {
    /* Called on the calling thread every second or so and after each piece: `done` of
    ** `total` bytes (-1: not known yet). False ends the call. NULL: nobody watches. */
    bool (*go_on)(void *arg, int64_t done, int64_t total);
    void *arg;
};

struct mm_store_object {
    char name[MM_STORE_NAME_MAX + 1];
    int64_t size;    /* bytes, -1 where the store does not say */
    int64_t time_ms; /* of its last change by the store's clock, since 1970; 0 where it does not say */
};
struct mm_store_list {
    struct mm_store_object *objects; /* by name, ascending */
    size_t count;
};

/* Looks at the options only: an unreachable store shows at the first call. NULL with err set. */
struct mm_store *mm_store_open(const struct mm_store_options *o, struct mm_err *err);
void mm_store_close(struct mm_store *s); /* NULL is fine */
const char *
mm_store_place(const struct mm_store *s); /* "s3 http://host/bucket/path", for status and logs; no secrets */

/* Names: 1 to MM_STORE_NAME_MAX letters, digits, - _ and . (not first), without ".part-". `watch` may be NULL. */

/* Stores the first `size` bytes of the file `fd` (read by position; its offset does not move) under `name`;
** the bucket or directory is made where it is missing, but for s3. Returns err->rc. */
int mm_store_put(struct mm_store *s, const char *name, int fd, int64_t size, const struct mm_store_watch *watch,
                 struct mm_err *err);
/* Writes the object to the file `fd` from its beginning, nothing behind it: 1, or 0 when there is no such object.
** More than max_bytes is SQLITE_TOOBIG. After an error what is in the file means nothing. */
int mm_store_get(struct mm_store *s, const char *name, int fd, int64_t max_bytes, const struct mm_store_watch *watch,
                 struct mm_err *err);
/* All objects whose names begin with `prefix` ("" = all); an absent place has none. Returns err->rc. */
int mm_store_list(struct mm_store *s, const char *prefix, struct mm_store_list *list,
                  const struct mm_store_watch *watch, struct mm_err *err);
void mm_store_list_free(struct mm_store_list *list);
/* 1, or 0 when there was no such object (some stores cannot tell and say 1). */
int mm_store_remove(struct mm_store *s, const char *name, const struct mm_store_watch *watch, struct mm_err *err);
/* Removes what uploads left behind that began more than MM_STORE_LEFT_MS ago. Returns err->rc. */
int mm_store_sweep(struct mm_store *s, const struct mm_store_watch *watch, struct mm_err *err);

/* Put and get of what fits into memory. The bytes have a NUL behind them; caller frees them with free(). */
int mm_store_put_bytes(struct mm_store *s, const char *name, const void *data, size_t len,
                       const struct mm_store_watch *watch, struct mm_err *err);
int mm_store_get_bytes(struct mm_store *s, const char *name, size_t max, uint8_t **data, size_t *len,
                       const struct mm_store_watch *watch, struct mm_err *err);

#endif
