#include "store/stamp.h"

#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file formats, as SQLite's walformat.html describes them. */
enum {
    INDEX_REGION = 32768,
    INDEX_HEAD = 48, /* it stands there twice */
    AT_CHANGE = 8,
    AT_INIT = 12,
    AT_PAGE = 14,
    AT_FRAMES = 16,
    AT_SALT = 32,
    LOG_HEAD = 32,
    FRAME_HEAD = 24,
    AT_FRAME_COMMIT = 4,
};

static uint32_t native32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Other processes write it: no race that a sanitizer could judge. */
__attribute__((no_sanitize("thread"))) static void copy_shared(uint8_t *to, const volatile uint64_t *from, size_t n)
{
    for (size_t k = 0; k < n / sizeof *from; k++) {
        uint64_t word = from[k];
        memcpy(to + k * sizeof word, &word, sizeof word);
    }
}

/* The connection's own descriptor and mapping. A second descriptor of these
** files must never be closed in this process: all of its locks would be gone. */
bool mm_wal_head(sqlite3 *db, struct mm_wal_head *out)
{
    sqlite3_file *file = NULL;
    void volatile *map = NULL;
    uint8_t head[2 * INDEX_HEAD];
    if (sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK || file == NULL ||
        file->pMethods == NULL || file->pMethods->iVersion < 2 || file->pMethods->xShmMap == NULL ||
        file->pMethods->xShmMap(file, 0, INDEX_REGION, 0, &map) != SQLITE_OK || map == NULL) {
        return false;
    }
    copy_shared(head, map, sizeof head);
    if (memcmp(head, head + INDEX_HEAD, INDEX_HEAD) != 0 || head[AT_INIT] == 0) {
        return false;
    }
    uint16_t page;
    memcpy(&page, head + AT_PAGE, sizeof page);
    out->change = native32(head + AT_CHANGE);
    out->frames = native32(head + AT_FRAMES);
    out->salt[0] = be32toh(native32(head + AT_SALT)); /* as in the log, whose numbers are big-endian */
    out->salt[1] = be32toh(native32(head + AT_SALT + 4));
    out->page = page == 1 ? 65536 : page;
    return true;
}

bool mm_wal_head_same(const struct mm_wal_head *a, const struct mm_wal_head *b)
{
    return a->change == b->change && a->frames == b->frames && a->salt[0] == b->salt[0] && a->salt[1] == b->salt[1];
}

void mm_stamp_next(sqlite3 *db, struct mm_stamp *s)
{
    struct mm_wal_head h;
    if (mm_wal_head(db, &h) && s->change != h.change) {
        s->count++;
        s->change = h.change;
        s->frames = h.frames;
        s->salt[0] = h.salt[0];
        s->salt[1] = h.salt[1];
    }
}

static bool holds(const uint8_t *page, size_t n, const uint8_t *bytes, size_t len)
{
    for (size_t k = 0; k + len <= n; k++) {
        if (page[k] == bytes[0] && memcmp(page + k, bytes, len) == 0) {
            return true;
        }
    }
    return false;
}

int mm_wal_commits(sqlite3 *db, const struct mm_wal_head *h, uint32_t from, const uint8_t *seal, size_t len,
                   bool *found)
{
    const char *file = sqlite3_db_filename(db, "main");
    int fd = file != NULL ? open(sqlite3_filename_wal(file), O_RDONLY | O_CLOEXEC) : -1; /* no locks lie on it */
    size_t size = FRAME_HEAD + (size_t)h->page;
    uint8_t *frame = malloc(size);
    int n = fd >= 0 && frame != NULL ? 0 : -1;
    for (uint32_t k = from; n >= 0 && k < h->frames; k++) {
        size_t wanted = seal != NULL ? size : FRAME_HEAD;
        if (pread(fd, frame, wanted, (off_t)(LOG_HEAD + (uint64_t)k * size)) != (ssize_t)wanted) {
            n = -1;
            break;
        }
        n += native32(frame + AT_FRAME_COMMIT) != 0; /* the database's size, in a commit's last frame */
        if (seal != NULL && (holds(frame + FRAME_HEAD, h->page, seal, len / 2) ||
                             holds(frame + FRAME_HEAD, h->page, seal + len / 2, len - len / 2))) {
            *found = true;
        }
    }
    free(frame);
    if (fd >= 0) {
        (void)close(fd);
    }
    return n;
}
