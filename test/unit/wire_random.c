/* Round trips of random messages, whole and in parts; the seed is the first
** argument, else the clock's, and always printed. marmot-test: parallel */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/sqlite.h"
#include "marmot.pb-c.h"
#include "test/lib/message.h"

enum { ROUNDS = 2000, ARENA = 256 << 20 };

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

struct outcome {
    int bad_trip, bad_zstd, bad_pack, bad_txn, bad_repeat, compressed;
    char why[128];
};

static bool trip(const struct mm_msg *m, const struct mm_buf *b, bool zstd, char why[128])
{
    struct mm_arena a;
    struct mm_err err;
    struct mm_msg got;
    mm_arena_init(&a, ARENA);
    mm_err_init(&err);
    bool good = mm_wire_decode(&got, b->data, b->len, zstd, &a, &err) == SQLITE_OK;
    if (!good) {
        (void)snprintf(why, 128, "%.120s", err.msg);
    }
    good = good && message_same(m, &got, why);
    mm_arena_free(&a);
    return good;
}

/* The body alone, as it is cut in parts, compressed or not. */
static bool trip_txn(const struct mm_msg *m, bool compress, char why[128])
{
    struct mm_arena a;
    struct mm_buf b;
    struct mm_err err;
    struct mm_txn got;
    mm_arena_init(&a, ARENA);
    mm_buf_init(&b, ARENA);
    mm_err_init(&err);
    mm_wire_encode_txn(&b, &m->txn, m->all_columns, compress, &err);
    mm_wire_decode_txn(&got, b.data, b.len, &a, &err);
    bool good = err.rc == SQLITE_OK && message_txn_same(&m->txn, &got, m->all_columns, why);
    mm_buf_free(&b);
    mm_arena_free(&a);
    return good;
}

static void round_trip(struct message_random *r, struct outcome *o)
{
    struct mm_arena a;
    struct mm_buf b, again;
    struct mm_err err;
    struct mm_msg m;
    bool zstd = false;
    mm_arena_init(&a, ARENA);
    mm_buf_init(&b, ARENA);
    mm_buf_init(&again, ARENA);
    mm_err_init(&err);
    message_random(r, &m, &a);
    mm_wire_encode(&b, &m, false, &zstd, &err);
    o->bad_trip += err.rc != SQLITE_OK || zstd || !trip(&m, &b, false, o->why);
    o->bad_pack += !packs_same(&b);
    mm_wire_encode(&again, &m, true, &zstd, &err);
    o->bad_zstd += err.rc != SQLITE_OK || again.len > b.len || !trip(&m, &again, zstd, o->why);
    o->compressed += zstd;
    mm_buf_clear(&again);
    mm_wire_encode(&again, &m, false, &zstd, &err);
    o->bad_repeat += again.len != b.len || memcmp(again.data, b.data, b.len) != 0;
    if (m.kind == MM_MSG_TXN) {
        o->bad_txn += !trip_txn(&m, false, o->why) || !trip_txn(&m, true, o->why);
    }
    mm_buf_free(&b);
    mm_buf_free(&again);
    mm_arena_free(&a);
}

/* Row hashes add up in any order, and take back what they added. */
static void sums(struct message_random *r)
{
    static const char *const up[] = { "a", "B", "c" };
    static const char *const down[] = { "C", "b", "A" };
    uint8_t one[16] = { 0 };
    uint8_t two[16] = { 0 };
    uint8_t zero[16] = { 0 };
    struct mm_err err;
    mm_err_init(&err);
    for (int k = 0; k < 200; k++) {
        struct mm_value v[3] = { { .type = SQLITE_INTEGER, .u.i = (int64_t)message_next(r, UINT64_MAX) },
                                 { .type = SQLITE_NULL },
                                 { .type = SQLITE_TEXT, .len = 2, .u.p = (const uint8_t *)"xy" } };
        struct mm_value w[3] = { v[2], v[1], v[0] };
        mm_wire_sum_row(one, up, v, 3, 1, &err);
        mm_wire_sum_row(two, down, w, 3, 1, &err);
    }
    check(err.rc == 0 && memcmp(one, two, 16) == 0 && memcmp(one, zero, 16) != 0,
          "content sums do not depend on the order of columns", "%s", err.msg);
    struct mm_value v[3] = { { .type = SQLITE_INTEGER, .u.i = 1 }, { .type = SQLITE_NULL }, { .type = SQLITE_NULL } };
    mm_wire_sum_row(one, up, v, 3, 1, &err);
    bool moved = memcmp(one, two, 16) != 0;
    mm_wire_sum_row(one, up, v, 3, -1, &err);
    check(moved && memcmp(one, two, 16) == 0, "a subtracted row leaves the sum as it was", "%s", err.msg);
    uint8_t near[16];
    memset(near, 0xFF, 16);
    mm_wire_sum_row(near, up, v, 3, 1, &err);
    mm_wire_sum_row(zero, up, v, 3, 1, &err);
    for (int k = 15, borrow = 1; k >= 0; k--) { /* minus one plus hash is hash minus one */
        int d = zero[k] - borrow;
        borrow = d < 0;
        zero[k] = (uint8_t)d;
    }
    check(memcmp(near, zero, 16) == 0, "sums wrap at 2^128", "they do not");
    static const uint8_t abc[4] = { 0xba, 0x78, 0x16, 0xbf }; /* FIPS 180-2, appendix B.1 */
    uint8_t hash[32];
    mm_wire_sha256("abc", 3, hash);
    check(memcmp(hash, abc, 4) == 0, "sha256 of abc", "%02x%02x%02x%02x", hash[0], hash[1], hash[2], hash[3]);
}

int main(int argc, char **argv)
{
    struct message_random r = { argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 2654435761u + 1 };
    struct outcome o;
    memset(&o, 0, sizeof o);
    printf("seed %" PRIu64 "\n", r.state);
    for (int k = 0; k < ROUNDS; k++) {
        round_trip(&r, &o);
    }
    check(o.bad_trip == 0, "random messages come back as they went", "%d did not: %s", o.bad_trip, o.why);
    check(o.bad_zstd == 0 && o.compressed > 0, "and compressed ones", "%d did not: %s", o.bad_zstd, o.why);
    check(o.bad_pack == 0, "protobuf-c packs them to the same bytes", "%d differ", o.bad_pack);
    check(o.bad_repeat == 0, "the same message is the same bytes", "%d differ", o.bad_repeat);
    check(o.bad_txn == 0, "bodies of large transactions come back", "%d did not: %s", o.bad_txn, o.why);
    sums(&r);
    return check_failures() != 0;
}
