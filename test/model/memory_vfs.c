#include "test/model/memory_vfs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "test/model/faults.h"

enum { FILES = 64, REGIONS = 8, SLOTS = SQLITE_SHM_NLOCK };

struct bytes {
    uint8_t *data;
    size_t len, cap;
};

struct file {
    char name[160]; /* empty: not in use; "?" a temporary one */
    struct bytes now, kept;
    bool exists, keeps, kept_exists;
    uint64_t writes;
    int open;
    int level;  /* the highest lock that somebody holds */
    int shared; /* how many hold at least SHARED */
    uint8_t *region[REGIONS];
    int readers[SLOTS];
    bool writer[SLOTS];
};

struct handle {
    sqlite3_file base;
    struct file *f;
    int level;
    bool gone_at_close;
    unsigned shared, exclusive; /* slots of the shared memory, a bit each */
};

static struct file files[FILES];
static uint64_t writes; /* of all files so far */
static sqlite3_vfs memory;

static void *need(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "memory_vfs: out of memory\n");
        exit(2);
    }
    return p;
}

static struct file *find(const char *name)
{
    struct file *unused = NULL;
    for (int k = 0; k < FILES; k++) {
        if (name != NULL && strcmp(files[k].name, name) == 0) {
            return &files[k];
        }
        if (unused == NULL && files[k].name[0] == '\0') {
            unused = &files[k];
        }
    }
    need(unused);
    snprintf(unused->name, sizeof unused->name, "%s", name != NULL ? name : "?");
    return unused;
}

static void resize(struct bytes *b, size_t len)
{
    if (len > b->cap) {
        fault_pause(true);
        b->cap = len < 8192 ? 8192 : len * 2;
        b->data = need(realloc(b->data, b->cap));
        fault_pause(false);
    }
    if (len > b->len) {
        memset(b->data + b->len, 0, len - b->len);
    }
    b->len = len;
}

static void assign(struct bytes *to, const struct bytes *from)
{
    to->len = 0;
    resize(to, from->len);
    if (from->len > 0) {
        memcpy(to->data, from->data, from->len);
    }
}

static void drop(struct file *f)
{
    free(f->now.data);
    free(f->kept.data);
    for (int k = 0; k < REGIONS; k++) {
        free(f->region[k]);
    }
    memset(f, 0, sizeof *f);
}

/* --- one open file --- */

static int h_unlock(sqlite3_file *base, int level)
{
    struct handle *h = (struct handle *)base;
    struct file *f = h->f;
    if (h->level > SQLITE_LOCK_SHARED && level <= SQLITE_LOCK_SHARED) {
        f->level = SQLITE_LOCK_SHARED;
    }
    if (h->level >= SQLITE_LOCK_SHARED && level == SQLITE_LOCK_NONE) {
        f->shared--;
        f->level = f->shared == 0 ? SQLITE_LOCK_NONE : f->level;
    }
    h->level = level < h->level ? level : h->level;
    return SQLITE_OK;
}

static int h_lock(sqlite3_file *base, int level)
{
    struct handle *h = (struct handle *)base;
    struct file *f = h->f;
    if (level <= h->level) {
        return SQLITE_OK;
    }
    if (level == SQLITE_LOCK_SHARED) {
        if (f->level >= SQLITE_LOCK_PENDING) {
            return SQLITE_BUSY;
        }
        f->shared++;
        f->level = f->level < level ? level : f->level;
    } else {
        bool mine = h->level > SQLITE_LOCK_SHARED;
        if (!mine && f->level > SQLITE_LOCK_SHARED) {
            return SQLITE_BUSY;
        }
        if (level == SQLITE_LOCK_EXCLUSIVE && f->shared > 1) {
            h->level = f->level = SQLITE_LOCK_PENDING;
            return SQLITE_BUSY;
        }
        f->level = level;
    }
    h->level = level;
    return SQLITE_OK;
}

static int h_check_reserved(sqlite3_file *base, int *held)
{
    *held = ((struct handle *)base)->f->level >= SQLITE_LOCK_RESERVED;
    return SQLITE_OK;
}

static int h_close(sqlite3_file *base)
{
    struct handle *h = (struct handle *)base;
    (void)h_unlock(base, SQLITE_LOCK_NONE);
    h->f->open--;
    if (h->gone_at_close) {
        drop(h->f);
    }
    return SQLITE_OK;
}

static int h_read(sqlite3_file *base, void *out, int n, sqlite3_int64 at)
{
    const struct bytes *b = &((struct handle *)base)->f->now;
    size_t there = (size_t)at < b->len ? b->len - (size_t)at : 0;
    size_t some = there < (size_t)n ? there : (size_t)n;
    if (some > 0) {
        memcpy(out, b->data + at, some);
    }
    memset((uint8_t *)out + some, 0, (size_t)n - some);
    return some == (size_t)n ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int h_write(sqlite3_file *base, const void *data, int n, sqlite3_int64 at)
{
    struct file *f = ((struct handle *)base)->f;
    (void)fault_here(FAULT_DEATH);
    if (fault_here(FAULT_WRITE)) {
        return SQLITE_FULL;
    }
    if ((size_t)at + (size_t)n > f->now.len) {
        resize(&f->now, (size_t)at + (size_t)n);
    }
    memcpy(f->now.data + at, data, (size_t)n);
    f->writes = ++writes;
    return SQLITE_OK;
}

static int h_truncate(sqlite3_file *base, sqlite3_int64 len)
{
    struct file *f = ((struct handle *)base)->f;
    resize(&f->now, (size_t)len);
    f->writes = ++writes;
    return SQLITE_OK;
}

static int h_sync(sqlite3_file *base, int flags)
{
    (void)base, (void)flags;
    return fault_here(FAULT_SYNC) ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int h_size(sqlite3_file *base, sqlite3_int64 *n)
{
    *n = (sqlite3_int64)((struct handle *)base)->f->now.len;
    return SQLITE_OK;
}

static int h_control(sqlite3_file *base, int op, void *arg)
{
    (void)base, (void)op, (void)arg;
    return SQLITE_NOTFOUND;
}

static int h_sector(sqlite3_file *base)
{
    (void)base;
    return 4096;
}

static int h_traits(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* --- the WAL's shared memory --- */

static int h_shm_map(sqlite3_file *base, int region, int n, int extend, void volatile **out)
{
    struct file *f = ((struct handle *)base)->f;
    *out = NULL;
    if (region >= REGIONS) {
        return SQLITE_IOERR_SHMMAP;
    }
    if (f->region[region] == NULL && extend) {
        fault_pause(true);
        f->region[region] = need(calloc(1, (size_t)n));
        fault_pause(false);
    }
    *out = f->region[region];
    return SQLITE_OK;
}

static int shm_unlock(struct handle *h, unsigned mask)
{
    for (unsigned k = 0; k < SLOTS; k++) {
        unsigned bit = 1u << k & mask;
        h->f->readers[k] -= (h->shared & bit) != 0;
        if (h->exclusive & bit) {
            h->f->writer[k] = false;
        }
    }
    h->shared &= ~mask;
    h->exclusive &= ~mask;
    return SQLITE_OK;
}

static int h_shm_lock(sqlite3_file *base, int first, int n, int flags)
{
    struct handle *h = (struct handle *)base;
    struct file *f = h->f;
    unsigned mask = ((1u << n) - 1) << first;
    if (flags & SQLITE_SHM_UNLOCK) {
        return shm_unlock(h, mask);
    }
    bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    for (int k = first; k < first + n; k++) {
        bool mine = (h->shared >> k & 1) != 0;
        if ((f->writer[k] && !(h->exclusive >> k & 1)) || (exclusive && f->readers[k] > mine)) {
            return SQLITE_BUSY;
        }
    }
    for (int k = first; k < first + n; k++) {
        unsigned bit = 1u << k;
        if (exclusive) {
            f->writer[k] = true;
            h->exclusive |= bit;
        } else if (!(h->shared & bit)) {
            f->readers[k]++;
            h->shared |= bit;
        }
    }
    return SQLITE_OK;
}

static void h_shm_barrier(sqlite3_file *base)
{
    (void)base;
}

static int h_shm_unmap(sqlite3_file *base, int remove)
{
    struct handle *h = (struct handle *)base;
    (void)shm_unlock(h, (1u << SLOTS) - 1);
    for (int k = 0; remove && k < REGIONS; k++) {
        free(h->f->region[k]);
        h->f->region[k] = NULL;
    }
    return SQLITE_OK;
}

/* --- the file system --- */

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = h_close,
    .xRead = h_read,
    .xWrite = h_write,
    .xTruncate = h_truncate,
    .xSync = h_sync,
    .xFileSize = h_size,
    .xLock = h_lock,
    .xUnlock = h_unlock,
    .xCheckReservedLock = h_check_reserved,
    .xFileControl = h_control,
    .xSectorSize = h_sector,
    .xDeviceCharacteristics = h_traits,
    .xShmMap = h_shm_map,
    .xShmLock = h_shm_lock,
    .xShmBarrier = h_shm_barrier,
    .xShmUnmap = h_shm_unmap,
};

static int v_open(sqlite3_vfs *v, const char *name, sqlite3_file *base, int flags, int *out_flags)
{
    struct handle *h = (struct handle *)base;
    (void)v;
    memset(h, 0, sizeof *h);
    struct file *f = find(name);
    if (!f->exists && !(flags & SQLITE_OPEN_CREATE)) {
        drop(f);
        return SQLITE_CANTOPEN;
    }
    f->exists = true;
    f->open++;
    h->f = f;
    h->gone_at_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0 || name == NULL;
    h->base.pMethods = &methods;
    if (out_flags != NULL) {
        *out_flags = flags;
    }
    return SQLITE_OK;
}

static int v_delete(sqlite3_vfs *v, const char *name, int sync)
{
    (void)v, (void)sync;
    struct file *f = find(name);
    bool there = f->exists;
    if (f->keeps) {
        f->exists = false;
        resize(&f->now, 0);
    } else {
        drop(f);
    }
    return there ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
}

static int v_access(sqlite3_vfs *v, const char *name, int flags, int *out)
{
    (void)v, (void)flags;
    struct file *f = find(name);
    *out = f->exists;
    if (!f->exists && !f->keeps) {
        drop(f);
    }
    return SQLITE_OK;
}

static int v_full_path(sqlite3_vfs *v, const char *name, int n, char *out)
{
    (void)v;
    return snprintf(out, (size_t)n, "%s", name) < n ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int v_randomness(sqlite3_vfs *v, int n, char *out)
{
    (void)v;
    memset(out, 7, (size_t)n);
    return n;
}

static int v_sleep(sqlite3_vfs *v, int us)
{
    (void)v;
    return us;
}

static int v_time(sqlite3_vfs *v, sqlite3_int64 *out)
{
    (void)v;
    *out = mm_clock_wall_ms() + INT64_C(210866760000000); /* since noon, 4714 before our era */
    return SQLITE_OK;
}

void memory_vfs_start(void)
{
    memory = (sqlite3_vfs){ .iVersion = 2,
                            .szOsFile = sizeof(struct handle),
                            .mxPathname = 128,
                            .zName = "memory",
                            .xOpen = v_open,
                            .xDelete = v_delete,
                            .xAccess = v_access,
                            .xFullPathname = v_full_path,
                            .xRandomness = v_randomness,
                            .xSleep = v_sleep,
                            .xCurrentTimeInt64 = v_time };
    if (sqlite3_vfs_register(&memory, 1) != SQLITE_OK) {
        need(NULL);
    }
}

static struct file *wal(const char *path)
{
    char name[160];
    snprintf(name, sizeof name, "%.150s-wal", path);
    return find(name);
}

void memory_remove(const char *path)
{
    drop(find(path));
    drop(wal(path));
}

static void copy_one(struct file *from, struct file *to)
{
    to->exists = from->exists;
    assign(&to->now, &from->now);
    to->writes = ++writes;
}

void memory_copy(const char *from, const char *to)
{
    memory_remove(to);
    copy_one(find(from), find(to));
    copy_one(wal(from), wal(to));
}

uint64_t memory_writes(const char *path)
{
    uint64_t a = find(path)->writes;
    uint64_t b = wal(path)->writes;
    return a > b ? a : b;
}

static void keep(struct file *f)
{
    f->keeps = true;
    f->kept_exists = f->exists;
    assign(&f->kept, &f->now);
}

static void put_back(struct file *f)
{
    f->exists = f->kept_exists;
    assign(&f->now, &f->kept);
    free(f->kept.data);
    f->kept = (struct bytes){ 0 };
    f->keeps = false;
    f->writes = ++writes;
}

void memory_die(const char *path)
{
    keep(find(path));
    keep(wal(path));
}

void memory_died(const char *path)
{
    put_back(find(path));
    put_back(wal(path));
}
