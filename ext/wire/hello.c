#include "wire/hello.h"

#include <string.h>

#include "base/arena.h"
#include "base/sqlite.h"
#include "marmot.pb-c.h"
#include "wire/put.h"

enum { ARENA = 64 * 1024 };

/* Length of the text when it may have no more than `most` bytes: whole characters. */
static size_t cut(const char *s, size_t most)
{
    size_t n = strnlen(s, most + 1);
    if (n > most) {
        for (n = most; n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80; n--) {
        }
    }
    return n;
}

int mm_hello_encode(struct mm_buf *out, const struct mm_hello *h, struct mm_err *err)
{
    mm_put_bytes(out, 1, h->cluster_id, strlen(h->cluster_id));
    mm_put_fixed(out, 2, (uint64_t)h->node);
    mm_put_fixed(out, 3, (uint64_t)h->incarnation);
    mm_put_bytes(out, 4, h->name, cut(h->name, sizeof h->name - 1));
    mm_put_bytes(out, 5, h->host, cut(h->host, sizeof h->host - 1));
    mm_put_bytes(out, 6, h->state, cut(h->state, sizeof h->state - 1));
    size_t mark = mm_put_begin(out, 7);
    for (int k = 0; k < h->nshard; k++) {
        mm_put_varint(out, (uint64_t)h->position[k]);
    }
    mm_put_end(out, mark);
    mm_put_uint(out, 8, (uint64_t)h->behind_ms);
    mm_put_uint(out, 9, h->ask);
    mm_put_uint(out, 10, (uint64_t)h->epoch);
    mm_put_bytes(out, 11, h->no_snapshot, cut(h->no_snapshot, sizeof h->no_snapshot - 1));
    return mm_buf_check(out, err, "a hello");
}

static void *pool_alloc(void *arena, size_t n)
{
    return mm_arena_alloc(arena, n);
}

static void pool_free(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

/* Of anybody, and shown to people: control characters become ?. */
static bool text(char *out, size_t size, const char *s)
{
    size_t n = strlen(s);
    if (n >= size) {
        return false;
    }
    memcpy(out, s, n + 1);
    for (size_t k = 0; k < n; k++) {
        unsigned char c = (unsigned char)out[k];
        out[k] = c < ' ' || c == 0x7F ? '?' : (char)c;
    }
    return true;
}

bool mm_hello_decode(struct mm_hello *h, const void *data, size_t len)
{
    struct mm_arena a;
    mm_arena_init(&a, ARENA);
    ProtobufCAllocator pool = { pool_alloc, pool_free, &a };
    memset(h, 0, sizeof *h);
    Marmot__V1__Hello *w = len <= MM_HELLO_MAX && data != NULL ? marmot__v1__hello__unpack(&pool, len, data) : NULL;
    bool good = w != NULL && (w->node != 0 || w->ask) && w->n_position <= MM_HELLO_SHARDS &&
                w->behind_ms <= INT64_MAX && w->epoch <= INT64_MAX &&
                text(h->cluster_id, sizeof h->cluster_id, w->cluster_id) && text(h->name, sizeof h->name, w->name) &&
                text(h->host, sizeof h->host, w->host) && text(h->state, sizeof h->state, w->state) &&
                text(h->no_snapshot, sizeof h->no_snapshot, w->no_snapshot);
    for (size_t k = 0; good && k < w->n_position; k++) {
        good = w->position[k] <= INT64_MAX;
        h->position[k] = (int64_t)w->position[k];
    }
    if (good) {
        h->nshard = (int)w->n_position;
        h->node = w->node;
        h->incarnation = w->incarnation;
        h->behind_ms = (int64_t)w->behind_ms;
        h->ask = w->ask;
        h->epoch = (int64_t)w->epoch;
    }
    mm_arena_free(&a);
    return good;
}
