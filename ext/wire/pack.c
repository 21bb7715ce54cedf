#include "wire/put.h"

#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/sqlite.h"
#include "wire/wire.h"

/* Below this a frame's own head eats what is saved. */
enum { DEFLATE_MIN = 256, DEFLATE_LEVEL = 3, SAVE_SHIFT = 3 };

void *mm_pack_alloc(struct mm_arena *a, size_t count, size_t size, struct mm_err *err)
{
    size_t n = 0;
    if (__builtin_mul_overflow(count, size, &n) || n > a->max || a->used > a->max - n) {
        mm_err_set(err, SQLITE_TOOBIG, "what it decodes to exceeds the limit of %zu bytes", a->max);
        return NULL;
    }
    void *p = mm_arena_alloc(a, n);
    if (p == NULL) {
        mm_err_nomem(err);
    }
    return p;
}

bool mm_pack_deflate(struct mm_buf *b, size_t at, struct mm_err *err)
{
    if (err->rc != SQLITE_OK || mm_buf_failed(b)) {
        return false;
    }
    size_t len = b->len - at;
    if (len < DEFLATE_MIN) {
        return false;
    }
    /* With no more room than pays, the compressor gives up early by itself. */
    size_t room = len - (len >> SAVE_SHIFT);
    struct mm_buf to;
    mm_buf_init(&to, b->max);
    uint8_t *frame = mm_buf_reserve(&to, room);
    if (frame == NULL) {
        mm_err_nomem(err);
        return false;
    }
    size_t n = ZSTD_compress(frame, room, b->data + at, len, DEFLATE_LEVEL);
    bool pays = !ZSTD_isError(n);
    if (pays && at == 0) { /* a large one is not copied */
        struct mm_buf plain = *b;
        *b = to;
        b->len = n;
        to = plain;
    } else if (pays) {
        memcpy(b->data + at, frame, n);
        b->len = at + n;
    } else if (ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation) {
        mm_err_nomem(err);
    }
    mm_buf_free(&to);
    return pays;
}

bool mm_pack_is_frame(const void *data, size_t len)
{
    static const uint8_t magic[4] = { 0x28, 0xB5, 0x2F, 0xFD };
    return len >= sizeof magic && memcmp(data, magic, sizeof magic) == 0;
}

void *mm_pack_inflate(const void *data, size_t len, size_t max, size_t *out_len, struct mm_err *err)
{
    unsigned long long size =
        mm_pack_is_frame(data, len) ? ZSTD_getFrameContentSize(data, len) : ZSTD_CONTENTSIZE_ERROR;
    if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN) {
        mm_err_set(err, SQLITE_CORRUPT, "compressed bytes are no zstd frame with a declared size");
        return NULL;
    }
    if (size > max) {
        mm_err_set(err, SQLITE_TOOBIG, "compressed bytes declare %llu bytes, the limit is %zu", size, max);
        return NULL;
    }
    if (ZSTD_findFrameCompressedSize(data, len) != len) {
        mm_err_set(err, SQLITE_CORRUPT, "compressed bytes are not one whole zstd frame");
        return NULL;
    }
    void *to = malloc((size_t)size + 1);
    if (to == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    size_t n = ZSTD_decompress(to, (size_t)size, data, len);
    if (ZSTD_isError(n) && ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation) {
        mm_err_nomem(err);
    } else if (ZSTD_isError(n) || n != size) {
        mm_err_set(err, SQLITE_CORRUPT, "compressed bytes are damaged: %s",
                   ZSTD_isError(n) ? ZSTD_getErrorName(n) : "not the declared size");
    }
    if (err->rc != SQLITE_OK) {
        free(to);
        return NULL;
    }
    *out_len = n;
    return to;
}

void mm_wire_sha256(const void *data, size_t len, uint8_t out[32])
{
    struct sha256_ctx ctx;
    sha256_init(&ctx);
    sha256_update(&ctx, len, data);
    sha256_digest(&ctx, 32, out);
}

/* As SQLite compares names; two names of one table never tie. */
static int name_order(const char *a, const char *b)
{
    for (; *a != '\0' || *b != '\0'; a++, b++) {
        int ca = *a >= 'A' && *a <= 'Z' ? *a + 32 : (unsigned char)*a;
        int cb = *b >= 'A' && *b <= 'Z' ? *b + 32 : (unsigned char)*b;
        if (ca != cb) {
            return ca < cb ? -1 : 1;
        }
    }
    return 0;
}

static int by_name(const void *a, const void *b, void *names)
{
    const char *const *name = names;
    return name_order(name[*(const size_t *)a], name[*(const size_t *)b]);
}

static void add_128(uint8_t sum[16], const uint8_t hash[16], int sign)
{
    int carry = 0;
    for (int k = 15; k >= 0; k--) {
        int v = sum[k] + sign * hash[k] + carry;
        sum[k] = (uint8_t)v;
        carry = v < 0 ? -1 : v >> 8;
    }
}

int mm_wire_sum_row(uint8_t sum[16], const char *const *names, const struct mm_value *values, size_t n, int sign,
                    struct mm_err *err)
{
    enum { FEW = 64 };
    size_t few[FEW];
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    size_t *order = n <= FEW ? few : malloc(n * sizeof *order);
    if (order == NULL) {
        return mm_err_nomem(err);
    }
    bool sorted = true;
    for (size_t k = 0; k < n; k++) {
        order[k] = k;
        sorted = sorted && (k == 0 || name_order(names[k - 1], names[k]) <= 0);
    }
    if (!sorted) {
        union {
            const char *const *in;
            void *out;
        } arg = { .in = names };
        qsort_r(order, n, sizeof *order, by_name, arg.out);
    }
    struct mm_buf row;
    mm_buf_init(&row, MM_WIRE_TXN_MAX);
    for (size_t k = 0; k < n; k++) {
        mm_value_encode(&row, &values[order[k]]);
    }
    if (mm_buf_check(&row, err, "one row") == SQLITE_OK) {
        uint8_t hash[32];
        mm_wire_sha256(row.data, row.len, hash);
        add_128(sum, hash, sign < 0 ? -1 : 1);
    }
    mm_buf_free(&row);
    if (order != few) {
        free(order);
    }
    return err->rc;
}
