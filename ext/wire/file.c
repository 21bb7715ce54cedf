#include "wire/file.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/sqlite.h"
#include "base/worker.h"

enum {
    LEVEL = 3,
    PIECE = 8 << 20,  /* two of them, their frames and what zstd takes for each: 35 MiB */
    PIECE_MS = 60000, /* tens of milliseconds on an idle machine */
    WINDOW_LOG = 23,  /* no frame makes the reader take more than 8 MiB */
};

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

/* A piece of the file and the frame that it becomes. */
struct piece {
    ZSTD_CCtx *z;
    uint8_t *in, *out;
    size_t len;
    size_t result; /* of ZSTD_compress2 */
};

static void piece_open(struct piece *p, struct mm_err *err)
{
    p->z = ZSTD_createCCtx();
    p->in = malloc(PIECE);
    p->out = malloc(ZSTD_compressBound(PIECE));
    if (p->z == NULL || p->in == NULL || p->out == NULL) {
        mm_err_nomem(err);
        return;
    }
    ZSTD_CCtx_setParameter(p->z, ZSTD_c_compressionLevel, LEVEL);
    ZSTD_CCtx_setParameter(p->z, ZSTD_c_checksumFlag, 1);
}

static void piece_close(struct piece *p)
{
    ZSTD_freeCCtx(p->z);
    free(p->in);
    free(p->out);
}

static void piece_pack(struct mm_worker *w, void *arg)
{
    struct piece *p = arg;
    (void)w;
    p->result = ZSTD_compress2(p->z, p->out, ZSTD_compressBound(PIECE), p->in, p->len);
}

/* Both pieces at once. False: the other thread hangs, and its piece must be left alone. */
static bool pack_two(struct piece p[2], struct mm_err *err)
{
    struct mm_err none;
    mm_err_init(&none);
    struct mm_worker *w = p[1].len > 0 ? mm_worker_open("marmot-zstd", piece_pack, &p[1], &none) : NULL;
    piece_pack(NULL, &p[0]);
    if (w == NULL && p[1].len > 0) {
        piece_pack(NULL, &p[1]);
    }
    if (!mm_worker_close(w, PIECE_MS)) {
        mm_err_set(err, SQLITE_ERROR, "packing a snapshot failed: a thread did not get on for %d s", PIECE_MS / 1000);
        return false;
    }
    return true;
}

int mm_wire_file_pack(int from, int to, struct mm_wire_file *f, struct mm_err *err)
{
    struct run r = { .f = f, .from = from, .to = to, .in_size = PIECE };
    struct piece p[2] = { { 0 }, { 0 } };
    bool alone = true;
    f->raw = f->packed = 0;
    sha256_init(&r.sha);
    piece_open(&p[0], err);
    piece_open(&p[1], err);
    for (bool last = false; !last && alone && err->rc == SQLITE_OK;) {
        for (int k = 0; k < 2; k++) {
            r.in = p[k].in;
            p[k].len = last ? 0 : read_piece(&r, err);
            last = p[k].len < PIECE;
        }
        if (err->rc != SQLITE_OK || (p[0].len == 0 && f->raw > 0)) {
            break;
        }
        alone = pack_two(p, err);
        for (int k = 0; k < 2 && err->rc == SQLITE_OK && (k == 0 || p[k].len > 0); k++) {
            if (ZSTD_isError(p[k].result)) {
                mm_err_set(err, SQLITE_ERROR, "packing a snapshot failed: %s", ZSTD_getErrorName(p[k].result));
                break;
            }
            r.out = p[k].out;
            sha256_update(&r.sha, p[k].result, r.out);
            f->raw += (int64_t)p[k].len;
            f->packed += (int64_t)p[k].result;
            write_piece(&r, p[k].result, err);
        }
        tell(&r, f->raw, err);
    }
    sha256_digest(&r.sha, sizeof f->sha256, f->sha256);
    piece_close(&p[0]);
    if (alone) {
        piece_close(&p[1]);
    }
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
    size_t left = 1; /* 0 when a frame, its checksum with it, has ended */
    if (!run_open(&r, f, from, to, ZSTD_DStreamInSize(), ZSTD_DStreamOutSize(), err) || z == NULL) {
        mm_err_nomem(err);
    } else {
        ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, WINDOW_LOG);
    }
    size_t n;
    while (err->rc == SQLITE_OK && (n = read_piece(&r, err)) > 0) {
        ZSTD_inBuffer in = { r.in, n, 0 };
        packed += (int64_t)n;
        sha256_update(&r.sha, n, r.in);
        if (packed > f->packed) {
            damaged(err, "it is longer than its manifest says");
        }
        size_t room = 0; /* left in the last output: full means that there may be more */
        while (err->rc == SQLITE_OK && (in.pos < in.size || (room == 0 && left != 0))) {
            ZSTD_outBuffer out = { r.out, r.out_size, 0 };
            left = ZSTD_decompressStream(z, &out, &in);
            if (ZSTD_isError(left)) {
                damaged(err, ZSTD_getErrorName(left));
                break;
            }
            room = out.size - out.pos;
            raw += (int64_t)out.pos;
            if (raw > f->raw) {
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
