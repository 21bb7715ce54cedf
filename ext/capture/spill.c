#include "capture/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/sqlite.h"

/* One transaction's bytes; SQLite's own limits end it far earlier. */
static const size_t tail_max = (size_t)1 << 36;

void mm_spill_init(struct mm_spill *s)
{
    memset(s, 0, sizeof *s);
    mm_buf_init(&s->tail, tail_max);
    s->fd = -1;
}

static void unmap(struct mm_spill *s)
{
    if (s->map != NULL) {
        munmap(s->map, s->map_len);
        s->map = NULL;
    }
}

void mm_spill_free(struct mm_spill *s)
{
    unmap(s);
    if (s->fd >= 0) {
        close(s->fd);
    }
    mm_buf_free(&s->tail);
    mm_spill_init(s);
}

static int open_nameless(void)
{
    const char *const dirs[] = { getenv("SQLITE_TMPDIR"), getenv("TMPDIR"), "/var/tmp", "/tmp" };
    for (size_t k = 0; k < sizeof dirs / sizeof dirs[0]; k++) {
        if (dirs[k] == NULL || dirs[k][0] == '\0') {
            continue;
        }
        int fd = open(dirs[k], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd >= 0) {
            return fd;
        }
        char path[4096];
        const char name[] = "/marmot-XXXXXX";
        size_t n = strlen(dirs[k]);
        if (n + sizeof name > sizeof path) {
            continue;
        }
        memcpy(path, dirs[k], n);
        memcpy(path + n, name, sizeof name);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0) {
            unlink(path);
            return fd;
        }
    }
    return -1;
}

static bool write_all(int fd, const uint8_t *p, size_t n, uint64_t at)
{
    while (n > 0) {
        ssize_t k = pwrite(fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return false;
        }
        p += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return true;
}

/* False: the tail stays in memory. */
static bool move_tail(struct mm_spill *s)
{
    if (s->fd < 0) {
        s->fd = open_nameless();
    }
    if (s->fd < 0 || !write_all(s->fd, s->tail.data, s->tail.len, s->base)) {
        return false;
    }
    s->base += s->tail.len;
    mm_buf_clear(&s->tail);
    return true;
}

void mm_spill_settle(struct mm_spill *s)
{
    if (s->tail.len >= MM_SPILL_AT && !mm_buf_failed(&s->tail)) {
        unmap(s);
        (void)move_tail(s);
    }
}

void mm_spill_cut(struct mm_spill *s, uint64_t len)
{
    unmap(s);
    if (len >= s->base) {
        size_t keep = (size_t)(len - s->base);
        mm_buf_clear(&s->tail);
        s->tail.len = keep;
    } else {
        s->base = len;
        mm_buf_clear(&s->tail);
    }
    if (len == 0 && s->tail.cap > MM_SPILL_AT) {
        mm_buf_free(&s->tail);
    }
    if (s->base == 0 && s->fd >= 0) {
        close(s->fd);
        s->fd = -1;
    }
}

const uint8_t *mm_spill_bytes(struct mm_spill *s, struct mm_err *err)
{
    unmap(s);
    if (err->rc != SQLITE_OK || mm_buf_check(&s->tail, err, "the captured transaction") != SQLITE_OK) {
        return NULL;
    }
    if (s->base == 0) {
        return s->tail.data;
    }
    if (s->tail.len > 0 && !move_tail(s)) {
        mm_err_set(err, SQLITE_FULL,
                   "no room for a captured transaction of %llu bytes in the directory for"
                   " temporary files: free some, or set TMPDIR",
                   (unsigned long long)mm_spill_len(s));
        return NULL;
    }
    void *p = mmap(NULL, (size_t)s->base, PROT_READ, MAP_SHARED, s->fd, 0);
    if (p == MAP_FAILED) {
        mm_err_set(err, SQLITE_NOMEM, "cannot map %llu bytes of a captured transaction: %s",
                   (unsigned long long)s->base, strerror(errno));
        return NULL;
    }
    s->map = p;
    s->map_len = s->base;
    return p;
}
