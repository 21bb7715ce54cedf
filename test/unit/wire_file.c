/* Whole files as zstd frames and back: every border of the pieces, what one
** frame of another writer holds, and each way to be damaged.
** marmot-test: parallel */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/sqlite.h"
#include "test/lib/message.h"
#include "wire/file.h"

enum { PIECE = 8 << 20, FAR = 4 * PIECE };

static int64_t seen;
static bool stop_at_once;

static bool go_on(void *arg, int64_t done)
{
    (void)arg;
    seen = done;
    return !stop_at_once;
}

static int open_file(const void *data, size_t len)
{
    char name[] = "/tmp/marmot-wire-file-XXXXXX";
    int fd = mkstemp(name);
    if (fd < 0 || unlink(name) != 0 || (len > 0 && pwrite(fd, data, len, 0) != (ssize_t)len)) {
        abort();
    }
    return fd;
}

static void *bytes(size_t len)
{
    uint8_t *p = malloc(len + 1);
    uint64_t x = 88172645463325252ULL;
    if (p == NULL) {
        abort();
    }
    for (size_t k = 0; k < len; k++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        p[k] = (k >> 9) % 3 != 0 ? (uint8_t)(x & 3) : (uint8_t)x; /* two thirds of it can be packed */
    }
    return p;
}

static bool same(int fd, const void *data, size_t len)
{
    struct stat st;
    uint8_t *got = malloc(len + 1);
    if (got == NULL || fstat(fd, &st) != 0) {
        abort();
    }
    bool equal = (size_t)st.st_size == len && pread(fd, got, len, 0) == (ssize_t)len && memcmp(got, data, len) == 0;
    free(got);
    return equal;
}

/* Packs and unpacks; the frames are left in `packed`. */
static void round_trip(const uint8_t *data, size_t len, int packed, struct mm_wire_file *f)
{
    char name[80];
    struct mm_err err;
    int raw = open_file(data, len);
    int back = open_file(NULL, 0);
    mm_err_init(&err);
    *f = (struct mm_wire_file){ .go_on = go_on };
    mm_wire_file_pack(raw, packed, f, &err);
    bool told = seen == (int64_t)len;
    (void)lseek(packed, 0, SEEK_SET);
    mm_wire_file_unpack(packed, back, f, &err);
    (void)snprintf(name, sizeof name, "%zu bytes there and back", len);
    check(err.rc == SQLITE_OK && told && f->raw == (int64_t)len && same(back, data, len), name, "%s (%lld)", err.msg,
          (long long)f->raw);
    (void)close(raw);
    (void)close(back);
}

static void damaged(const char *name, const uint8_t *frames, size_t len, const struct mm_wire_file *as)
{
    struct mm_err err;
    struct stat st;
    struct mm_wire_file f = *as;
    int packed = open_file(frames, len);
    int back = open_file(NULL, 0);
    mm_err_init(&err);
    mm_wire_file_unpack(packed, back, &f, &err);
    long long size = fstat(back, &st) == 0 ? (long long)st.st_size : -1; /* arguments are read in any order */
    check(err.rc == SQLITE_CORRUPT && size >= 0 && size <= as->raw, name, "rc %d: %s, %lld bytes", err.rc, err.msg,
          size);
    (void)close(packed);
    (void)close(back);
}

static void damages(const uint8_t *data)
{
    struct mm_wire_file f;
    struct stat st;
    int packed = open_file(NULL, 0);
    round_trip(data, 2 * PIECE + 1, packed, &f);
    size_t len = fstat(packed, &st) == 0 ? (size_t)st.st_size : 0;
    uint8_t *frames = malloc(len + 64);
    if (frames == NULL || pread(packed, frames, len, 0) != (ssize_t)len) {
        abort();
    }
    check((int64_t)len == f.packed, "the frames are as long as it says", "%zu", len);
    size_t first = ZSTD_findFrameCompressedSize(frames, len);
    check(!ZSTD_isError(first) && first < len, "there are several frames", "%zu of %zu", first, len);
    damaged("nothing at all", frames, 0, &f);
    damaged("cut behind a frame", frames, first, &f);
    damaged("cut inside a frame", frames, first + 1000, &f);
    damaged("the last byte is missing", frames, len - 1, &f);
    memcpy(frames + len, frames, 64);
    damaged("bytes behind the last frame", frames, len + 64, &f);
    for (size_t at = 0; at < len; at += len / 23) {
        frames[at] ^= 0x10;
        damaged("a bit is turned", frames, len, &f);
        frames[at] ^= 0x10;
    }
    struct mm_wire_file less = f;
    less.raw -= 2;
    damaged("more than the manifest says", frames, len, &less);
    less.raw += 4;
    damaged("less than the manifest says", frames, len, &less);
    free(frames);
    (void)close(packed);
}

/* One frame over the whole file, and one whose window asks for much memory. */
static void one_frame(const uint8_t *data)
{
    size_t room = ZSTD_compressBound(FAR);
    uint8_t *frame = malloc(room);
    ZSTD_CCtx *z = ZSTD_createCCtx();
    struct mm_wire_file f;
    struct mm_err err;
    if (frame == NULL || z == NULL) {
        abort();
    }
    int packed = open_file(NULL, 0);
    round_trip(data, 1000, packed, &f); /* its SHA-256 is not this frame's: that is said last */
    mm_err_init(&err);
    for (int window = 21; window <= 25; window += 4) {
        ZSTD_CCtx_setParameter(z, ZSTD_c_windowLog, window);
        size_t n = ZSTD_compress2(z, frame, room, data, FAR);
        int from = open_file(frame, n);
        int back = open_file(NULL, 0);
        f.raw = FAR;
        f.packed = (int64_t)n;
        mm_err_init(&err);
        mm_wire_file_unpack(from, back, &f, &err);
        check(window == 21 ? same(back, data, FAR) && strstr(err.msg, "SHA-256") != NULL
                           : strstr(err.msg, "memory") != NULL,
              window == 21 ? "one frame is read as well" : "a window that takes much memory is refused", "%s", err.msg);
        (void)close(from);
        (void)close(back);
    }
    free(frame);
    ZSTD_freeCCtx(z);
    (void)close(packed);
}

static void ended(const uint8_t *data)
{
    struct mm_wire_file f = { .go_on = go_on };
    struct mm_err err;
    int raw = open_file(data, FAR);
    int packed = open_file(NULL, 0);
    mm_err_init(&err);
    stop_at_once = true;
    mm_wire_file_pack(raw, packed, &f, &err);
    stop_at_once = false;
    check(err.rc == SQLITE_INTERRUPT && seen < FAR, "it can be ended", "rc %d after %lld", err.rc, (long long)seen);
    (void)close(raw);
    (void)close(packed);
}

int main(void)
{
    static const size_t sizes[] = { 0, 1, 4096, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 1, 2 * PIECE, 3 * PIECE + 5 };
    uint8_t *data = bytes(FAR);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct mm_wire_file f;
        int packed = open_file(NULL, 0);
        round_trip(data, sizes[k], packed, &f);
        (void)close(packed);
    }
    damages(data);
    one_frame(data);
    ended(data);
    free(data);
    return check_failures() != 0;
}
