/* What nodes tell each other: there and back, as protobuf-c packs it, and what
** becomes of damage. marmot-test: parallel */
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "marmot.pb-c.h"
#include "test/lib/message.h"
#include "wire/hello.h"

static struct mm_hello sample(void)
{
    struct mm_hello h = { .cluster_id = "0123456789abcdef0123456789abcdef",
                          .node = INT64_MAX,
                          .incarnation = -7,
                          .name = "Zoë.db",
                          .host = "host",
                          .state = "live",
                          .nshard = 3,
                          .position = { 1, INT64_MAX, 0 },
                          .behind_ms = 1500,
                          .ask = true,
                          .no_snapshot = "table b\303\274cher is stale there",
                          .epoch = INT64_MAX };
    return h;
}

static bool same(const struct mm_hello *a, const struct mm_hello *b)
{
    return strcmp(a->cluster_id, b->cluster_id) == 0 && a->node == b->node && a->incarnation == b->incarnation &&
           strcmp(a->name, b->name) == 0 && strcmp(a->host, b->host) == 0 && strcmp(a->state, b->state) == 0 &&
           a->nshard == b->nshard && memcmp(a->position, b->position, sizeof a->position) == 0 &&
           a->behind_ms == b->behind_ms && a->ask == b->ask && strcmp(a->no_snapshot, b->no_snapshot) == 0 &&
           a->epoch == b->epoch;
}

static void there_and_back(void)
{
    struct mm_err err;
    struct mm_buf b;
    struct mm_hello h = sample();
    struct mm_hello got;
    mm_err_init(&err);
    mm_buf_init(&b, MM_HELLO_MAX);
    mm_hello_encode(&b, &h, &err);
    check(err.rc == 0 && mm_hello_decode(&got, b.data, b.len) && same(&h, &got), "there and back", "%s", err.msg);
    Marmot__V1__Hello *w = marmot__v1__hello__unpack(NULL, b.len, b.data);
    uint8_t packed[MM_HELLO_MAX];
    bool equal = w != NULL && marmot__v1__hello__get_packed_size(w) == b.len &&
                 marmot__v1__hello__pack(w, packed) == b.len && memcmp(packed, b.data, b.len) == 0;
    check(equal, "as protobuf-c packs it", "other bytes");
    marmot__v1__hello__free_unpacked(w, NULL);
    size_t refused = 0;
    for (size_t n = 0; n < b.len; n++) {
        refused += !mm_hello_decode(&got, b.data, n);
    }
    check(refused > 20, "pieces of it are refused, or less of it", "%zu refused", refused);
    for (size_t k = 0; k < b.len * 8; k++) {
        b.data[k / 8] ^= (uint8_t)(1u << (k % 8));
        (void)mm_hello_decode(&got, b.data, b.len); /* the sanitizers look */
        b.data[k / 8] ^= (uint8_t)(1u << (k % 8));
    }
    mm_buf_free(&b);
}

static void bounds(void)
{
    struct mm_err err;
    struct mm_buf b;
    struct mm_hello got;
    uint64_t positions[MM_HELLO_SHARDS + 1] = { 0 };
    uint8_t packed[8192];
    char text[200];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    Marmot__V1__Hello w = MARMOT__V1__HELLO__INIT;
    mm_err_init(&err);
    w.node = 1;
    w.name = text;
    size_t n = marmot__v1__hello__pack(&w, packed);
    check(!mm_hello_decode(&got, packed, n), "a name that is too long", "taken");
    w.name = (char *)"a\x1b[2Jb";
    n = marmot__v1__hello__pack(&w, packed);
    check(mm_hello_decode(&got, packed, n) && strcmp(got.name, "a?[2Jb") == 0, "control characters are not shown", "%s",
          got.name);
    w.position = positions;
    w.n_position = MM_HELLO_SHARDS + 1;
    n = marmot__v1__hello__pack(&w, packed);
    check(!mm_hello_decode(&got, packed, n), "more shards than there can be", "taken");
    w.n_position = 1;
    positions[0] = UINT64_MAX;
    n = marmot__v1__hello__pack(&w, packed);
    check(!mm_hello_decode(&got, packed, n), "a position out of range", "taken");
    w.n_position = 0;
    w.node = 0;
    n = marmot__v1__hello__pack(&w, packed);
    check(!mm_hello_decode(&got, packed, n), "nobody who asks nothing", "taken");
    w.ask = 1;
    n = marmot__v1__hello__pack(&w, packed);
    check(mm_hello_decode(&got, packed, n) && got.node == 0 && got.ask, "nobody who asks", "refused");
    memset(packed, 0, sizeof packed);
    check(!mm_hello_decode(&got, packed, sizeof packed), "too many bytes", "taken");
    check(!mm_hello_decode(&got, NULL, 0), "no bytes", "taken");
    struct mm_hello h = sample();
    memset(h.name, 0, sizeof h.name);
    for (size_t k = 0; k + 2 < sizeof h.name; k += 2) {
        memcpy(h.name + k, "é", 2);
    }
    h.name[sizeof h.name - 2] = 'x';
    mm_buf_init(&b, MM_HELLO_MAX);
    mm_hello_encode(&b, &h, &err);
    check(err.rc == 0 && mm_hello_decode(&got, b.data, b.len) && strlen(got.name) == sizeof h.name - 1, "a long name",
          "%s", got.name);
    mm_buf_free(&b);
}

int main(void)
{
    there_and_back();
    bounds();
    return check_failures() != 0;
}
