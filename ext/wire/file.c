#include "wire/file.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/sqlite.h"

enum { LEVEL = 3 };

struct run {
    struct mm_wire_file *f;
    struct sha256_ctx sha;
    uint8_t *in, *out;
    size_t in_size, out_size;
    int from, to;
};

static bool run_open(struct run *r, struct mm_wire_file *f, int from, int to, size_t in, size_t out, struct mm_err *err)
{
    *r = (struct run){ .f = f, .in_size = in, .out_size = out, .from = from, .to = to };
    sha256_init(&r->sha);
    r->in = malloc(in);
    r->out = malloc(out);
    if (r->in == NULL || r->out == NULL) {
        mm_err_nomem(err);
    }
    return err->rc == SQLITE_OK;
}

static void run_close(struct run *r)
{
    free(r->in);
    free(r->out);
}

/* Bytes read, 0 at the end. */
static size_t read_piece(struct run *r, struct mm_err *err)
{
    size_t got = 0;
    while (got < r->in_size && err->rc == SQLITE_OK) {
        ssize_t n = read(r->from, r->in + got, r->in_size - got);
        if (n == 0) {
            break;
        }
        if (n < 0 && errno != EINTR) {
            mm_err_set(err, SQLITE_IOERR, "reading a snapshot's file failed: %s", strerror(errno));
        }
        got += n > 0 ? (size_t)n : 0;
    }
    return err->rc == SQLITE_OK ? got : 0;
}

static void write_piece(struct run *r, size_t len, struct mm_err *err)
{
    for (size_t done = 0; done < len && err->rc == SQLITE_OK;) {
        ssize_t n = write(r->to, r->out + done, len - done);
        if (n < 0 && errno != EINTR) {
            mm_err_set(err, errno == ENOSPC || errno == EDQUOT ? SQLITE_FULL : SQLITE_IOERR,
                       "writing a snapshot's file beside the database failed: %s: make room there", strerror(errno));
        }
        done += n > 0 ? (size_t)n : 0;
    }
}

static void tell(const struct run *r, int64_t done, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && r->f->go_on != NULL && !r->f->go_on(r->f->arg, done)) {
        mm_err_set(err, SQLITE_INTERRUPT, "the work on a snapshot was ended");
    }
}

int mm_wire_file_pack(int from, int to, struct mm_wire_file *f, struct mm_err *err)
{
    struct run r;
    ZSTD_CCtx *z = ZSTD_createCCtx();
    f->raw = f->packed = 0;
    if (!run_open(&r, f, from, to, ZSTD_CStreamInSize(), ZSTD_CStreamOutSize(), err) || z == NULL) {
        mm_err_nomem(err);
    } else {
        ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, LEVEL);
        ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
    }
    for (bool last = false; !last && err->rc == SQLITE_OK;) {
        size_t n = read_piece(&r, err);
        last = n < r.in_size;
        f->raw += (int64_t)n;
        ZSTD_inBuffer in = { r.in, n, 0 };
        size_t left = 1;
        while ((last ? left != 0 : in.pos < in.size) && err->rc == SQLITE_OK) {
            ZSTD_outBuffer out = { r.out, r.out_size, 0 };
            left = ZSTD_compressStream2(z, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
            if (ZSTD_isError(left)) {
                mm_err_set(err, SQLITE_ERROR, "packing a snapshot failed: %s", ZSTD_getErrorName(left));
                break;
            }
            sha256_update(&r.sha, out.pos, r.out);
            f->packed += (int64_t)out.pos;
            write_piece(&r, out.pos, err);
        }
        tell(&r, f->raw, err);
    }
    sha256_digest(&r.sha, sizeof f->sha256, f->sha256);
    ZSTD_freeCCtx(z);
    run_close(&r);
    return err->rc;
}

static int damaged(struct mm_err *err, const char *how)
{
    return mm_err_set(err, SQLITE_CORRUPT, "the snapshot's data is damaged: %s", how);
}

int mm_wire_file_unpack(int from, int to, struct mm_wire_file *f, struct mm_err *err)
{
    struct run r;
    ZSTD_DCtx *z = ZSTD_createDCtx();
    int64_t raw = 0;
    int64_t packed = 0;
    size_t left = 1; /* 0 when the frame, its checksum with it, has ended */
    if (!run_open(&r, f, from, to, ZSTD_DStreamInSize(), ZSTD_DStreamOutSize(), err) || z == NULL) {
        mm_err_nomem(err);
    }
    size_t n;
    while (err->rc == SQLITE_OK && (n = read_piece(&r, err)) > 0) {
        ZSTD_inBuffer in = { r.in, n, 0 };
        packed += (int64_t)n;
        sha256_update(&r.sha, n, r.in);
        if (left == 0 || packed > f->packed) {
            damaged(err, "it is longer than its manifest says");
        }
        size_t room = 0; /* left in the last output: full means that there may be more */
        while (err->rc == SQLITE_OK && left != 0 && (in.pos < in.size || room == 0)) {
            ZSTD_outBuffer out = { r.out, r.out_size, 0 };
            left = ZSTD_decompressStream(z, &out, &in);
            if (ZSTD_isError(left)) {
                damaged(err, ZSTD_getErrorName(left));
                break;
            }
            room = out.size - out.pos;
            raw += (int64_t)out.pos;
            if (raw > f->raw || (left == 0 && in.pos < in.size)) {
                damaged(err, "it is longer than its manifest says");
                break;
            }
            write_piece(&r, out.pos, err);
        }
        tell(&r, raw, err);
    }
    uint8_t sha[32];
    sha256_digest(&r.sha, sizeof sha, sha);
    if (err->rc == SQLITE_OK && (left != 0 || raw != f->raw || packed != f->packed)) {
        damaged(err, "it ends too early");
    } else if (err->rc == SQLITE_OK && memcmp(sha, f->sha256, sizeof sha) != 0) {
        damaged(err, "its SHA-256 is not that of its manifest");
    }
    ZSTD_freeDCtx(z);
    run_close(&r);
    return err->rc;
}
