#include "repl/multiset.h"

#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

#define ROW_MAX ((size_t)2 << 30)

struct mm_multiset_slot {
    uint64_t hash; /* 0 = free */
    int64_t count;
};

void mm_multiset_free(struct mm_multiset *m)
{
    free(m->slot);
    mm_buf_free(&m->scratch);
    memset(m, 0, sizeof *m);
}

static uint64_t hash_of(struct mm_multiset *m, const struct mm_value *row, int ncol, struct mm_err *err)
{
    uint8_t sha[32];
    uint64_t hash = 0;
    if (m->scratch.max == 0) {
        mm_buf_init(&m->scratch, ROW_MAX);
    }
    mm_buf_clear(&m->scratch);
    for (int k = 0; k < ncol; k++) {
        mm_value_encode(&m->scratch, &row[k]);
    }
    if (mm_buf_check(&m->scratch, err, "a row") == SQLITE_OK) {
        mm_wire_sha256(m->scratch.data, m->scratch.len, sha);
        memcpy(&hash, sha, sizeof hash);
    }
    return hash | 1;
}

static struct mm_multiset_slot *slot_of(struct mm_multiset_slot *slot, size_t cap, uint64_t hash)
{
    size_t at = (size_t)(hash >> 1) & (cap - 1);
    while (slot[at].hash != 0 && slot[at].hash != hash) {
        at = (at + 1) & (cap - 1);
    }
    return &slot[at];
}

static int grow(struct mm_multiset *m, struct mm_err *err)
{
    size_t cap = m->cap == 0 ? 1024 : m->cap * 2;
    struct mm_multiset_slot *slot = calloc(cap, sizeof *slot);
    if (slot == NULL) {
        return mm_err_nomem(err);
    }
    for (size_t k = 0; k < m->cap; k++) {
        if (m->slot[k].hash != 0) {
            *slot_of(slot, cap, m->slot[k].hash) = m->slot[k];
        }
    }
    free(m->slot);
    m->slot = slot;
    m->cap = cap;
    return err->rc;
}

int mm_multiset_add(struct mm_multiset *m, const struct mm_value *row, int ncol, struct mm_err *err)
{
    uint64_t hash = hash_of(m, row, ncol, err);
    if (err->rc != SQLITE_OK || (m->used + 1 > m->cap / 2 && grow(m, err) != SQLITE_OK)) {
        return err->rc;
    }
    struct mm_multiset_slot *s = slot_of(m->slot, m->cap, hash);
    m->used += s->hash == 0;
    s->hash = hash;
    s->count++;
    m->rows++;
    return err->rc;
}

bool mm_multiset_take(struct mm_multiset *m, const struct mm_value *row, int ncol, struct mm_err *err)
{
    if (m->rows == 0) {
        return false;
    }
    uint64_t hash = hash_of(m, row, ncol, err);
    struct mm_multiset_slot *s = err->rc == SQLITE_OK ? slot_of(m->slot, m->cap, hash) : NULL;
    if (s == NULL || s->count == 0) {
        return false;
    }
    s->count--;
    m->rows--;
    return true;
}
