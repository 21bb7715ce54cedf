/* The bytes of each kind of message, as they must stay for ever; and what
** becomes of every truncation and every changed byte of them.
** marmot-test: parallel
**   wire_golden --regenerate   writes test/golden/v1 afresh */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "marmot.pb-c.h"
#include "test/lib/message.h"

enum { ARENA = 64 << 20, DAMAGED_ARENA = 8 << 20 };

static void golden_path(char out[256], const char *name)
{
    (void)snprintf(out, 256, "test/golden/v1/%s.hex", name);
}

static void write_golden(const char *name, const struct mm_buf *b)
{
    char path[256];
    golden_path(path, name);
    FILE *f = fopen(path, "w");
    for (size_t k = 0; f != NULL && k < b->len; k++) {
        (void)fprintf(f, "%02x%s", b->data[k], k % 32 == 31 || k + 1 == b->len ? "\n" : "");
    }
    check(f != NULL && fclose(f) == 0, name, "cannot write %s", path);
}

static bool read_golden(const char *name, struct mm_buf *b)
{
    char path[256];
    unsigned byte;
    golden_path(path, name);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return false;
    }
    while (fscanf(f, "%2x", &byte) == 1) {
        mm_buf_byte(b, (uint8_t)byte);
    }
    return fclose(f) == 0;
}

static void named(char out[128], const char *name, const char *what)
{
    (void)snprintf(out, 128, "%s: %s", name, what);
}

/* What protobuf-c packs of what it unpacked must be what was written by hand. */
static bool packs_same(const struct mm_buf *b)
{
    bool same = false;
    Marmot__V1__Message *m = marmot__v1__message__unpack(NULL, b->len, b->data);
    if (m != NULL && marmot__v1__message__get_packed_size(m) == b->len) {
        uint8_t *to = malloc(b->len + 1);
        same = to != NULL && marmot__v1__message__pack(m, to) == b->len && memcmp(to, b->data, b->len) == 0;
        free(to);
    }
    if (m != NULL) {
        marmot__v1__message__free_unpacked(m, NULL);
    }
    return same;
}

/* Decodes damaged bytes; false only when it answers outside of its contract. */
static bool survives(const uint8_t *p, size_t n, bool zstd)
{
    struct mm_arena a;
    struct mm_err err;
    struct mm_msg m;
    uint8_t *exact = malloc(n + (n == 0)); /* its own block: reads beyond it are found */
    if (exact == NULL) {
        return false;
    }
    memcpy(exact, p, n);
    mm_arena_init(&a, DAMAGED_ARENA);
    mm_err_init(&err);
    int rc = mm_wire_decode(&m, exact, n, zstd, &a, &err);
    free(exact);
    bool good = rc == SQLITE_CORRUPT || rc == SQLITE_MISMATCH || rc == SQLITE_TOOBIG;
    if (rc == SQLITE_OK) {
        (void)message_touch(&m);
        good = true;
    } else {
        good = good && err.msg[0] != '\0';
    }
    mm_arena_free(&a);
    return good;
}

static void damage(const char *name, const struct mm_buf *b, bool zstd)
{
    char what[128];
    size_t bad = 0;
    for (size_t n = 0; n < b->len; n++) {
        bad += !survives(b->data, n, zstd);
    }
    named(what, name, zstd ? "compressed, truncated anywhere" : "truncated anywhere");
    check(bad == 0, what, "%zu lengths were not answered well", bad);
    bad = 0;
    for (size_t k = 0; k < b->len; k++) {
        uint8_t was = b->data[k];
        for (unsigned v = 1; v < 256; v++) {
            b->data[k] = (uint8_t)(was ^ v);
            bad += !survives(b->data, b->len, zstd);
        }
        b->data[k] = was;
    }
    named(what, name, zstd ? "compressed, any byte changed" : "any byte changed");
    check(bad == 0, what, "%zu changes were not answered well", bad);
}

static void one(const struct message_sample *s, bool regenerate)
{
    struct mm_arena a, a2;
    struct mm_buf b, file;
    struct mm_err err;
    struct mm_msg m, got;
    bool zstd;
    char why[128] = "";
    char what[128];
    mm_arena_init(&a, ARENA);
    mm_arena_init(&a2, ARENA);
    mm_buf_init(&b, ARENA);
    mm_buf_init(&file, ARENA);
    mm_err_init(&err);
    s->make(&m, &a);
    mm_wire_encode(&b, &m, false, &zstd, &err);
    if (regenerate) {
        write_golden(s->name, &b);
    } else {
        bool there = read_golden(s->name, &file);
        named(what, s->name, "the golden bytes");
        check(err.rc == 0 && there && file.len == b.len && memcmp(file.data, b.data, b.len) == 0, what,
              "%s; %zu bytes in the file, %zu made", err.msg, file.len, b.len);
        named(what, s->name, "decoded from them");
        bool good =
            mm_wire_decode(&got, file.data, file.len, false, &a2, &err) == SQLITE_OK && message_same(&m, &got, why);
        check(good, what, "%s %s", err.msg, why);
        named(what, s->name, "packed by protobuf-c to the same bytes");
        check(packs_same(&b), what, "they differ");
        damage(s->name, &b, false);
        mm_buf_clear(&b);
        mm_wire_encode(&b, &m, true, &zstd, &err);
        if (zstd) {
            damage(s->name, &b, true);
        }
    }
    mm_buf_free(&b);
    mm_buf_free(&file);
    mm_arena_free(&a);
    mm_arena_free(&a2);
}

static void small(void)
{
    struct mm_arena a;
    struct mm_buf b;
    struct mm_err err;
    struct mm_msg m;
    bool zstd = true;
    mm_arena_init(&a, ARENA);
    mm_buf_init(&b, ARENA);
    mm_err_init(&err);
    message_samples[0].make(&m, &a);
    mm_wire_encode(&b, &m, true, &zstd, &err);
    check(err.rc == 0 && b.len < 200 && !zstd, "one row of four columns takes less than 200 bytes", "%zu", b.len);
    mm_buf_free(&b);
    mm_arena_free(&a);
}

int main(int argc, char **argv)
{
    bool regenerate = argc > 1 && strcmp(argv[1], "--regenerate") == 0;
    for (size_t k = 0; k < message_nsamples; k++) {
        one(&message_samples[k], regenerate);
    }
    small();
    return check_failures() != 0;
}
