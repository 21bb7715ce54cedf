#include "capture/trigger_rivals.h"

#include <stdlib.h>
#include <string.h>

struct mm_rivals_node {
    uint64_t hash;
    uint64_t number;
    size_t at, len; /* in keys */
    uint32_t next;  /* index + 1 in the same bucket, 0 = end */
};

#define KEYS_MAX ((size_t)1 << 32)

void mm_rivals_free(struct mm_rivals *r)
{
    free(r->node);
    free(r->bucket);
    mm_buf_free(&r->keys);
    mm_buf_free(&r->probe);
    memset(r, 0, sizeof *r);
}

void mm_rivals_clear(struct mm_rivals *r)
{
    for (uint32_t k = 0; k < r->n; k++) {
        r->bucket[r->node[k].hash & (r->cap - 1)] = 0;
    }
    r->n = 0;
    mm_buf_clear(&r->keys);
}

static bool grow(struct mm_rivals *r)
{
    uint32_t cap = r->cap == 0 ? 64 : 2 * r->cap;
    struct mm_rivals_node *node = cap > r->cap ? realloc(r->node, cap * sizeof *node) : NULL;
    uint32_t *bucket = node != NULL ? calloc(cap, sizeof *bucket) : NULL;
    r->node = node != NULL ? node : r->node;
    if (bucket == NULL) {
        return false;
    }
    for (uint32_t k = 0; k < r->n; k++) {
        uint32_t *head = &bucket[node[k].hash & (cap - 1)];
        node[k].next = *head;
        *head = k + 1;
    }
    free(r->bucket);
    r->bucket = bucket;
    r->cap = cap;
    return true;
}

/* The row's values in a set (-1: the key), canonical; false when one is NULL or
** the set is over other things than columns. */
static bool put_key(struct mm_buf *b, int64_t source, const struct mm_table *t, int set, const struct mm_value *row)
{
    const struct mm_unique *u = set >= 0 ? &t->unique[set] : NULL;
    bool any = false;
    mm_buf_add(b, &source, sizeof source);
    mm_buf_add(b, &set, sizeof set);
    for (int k = 0; u != NULL && u->rule == NULL && k < u->ncol; k++) {
        if (row[u->col[k]].type == SQLITE_NULL) {
            return false;
        }
        mm_value_key(b, &row[u->col[k]], (enum mm_coll)u->coll[k]);
        any = true;
    }
    for (int k = 0; u == NULL && k < t->ncol; k++) {
        if (t->col[k].pk != 0 && row[k].type == SQLITE_NULL) {
            return false;
        }
        if (t->col[k].pk != 0) {
            mm_value_key(b, &row[k], (enum mm_coll)t->col[k].coll);
            any = true;
        }
    }
    return any;
}

static uint64_t hash_of(const uint8_t *p, size_t n)
{
    uint64_t h = 14695981039346656037ULL;
    for (size_t k = 0; k < n; k++) {
        h = (h ^ p[k]) * 1099511628211ULL;
    }
    return h ^ (h >> 31);
}

int mm_rivals_add(struct mm_rivals *r, int64_t source, const struct mm_table *t, const struct mm_value *row,
                  uint64_t number, struct mm_err *err)
{
    if (r->keys.max == 0) {
        mm_buf_init(&r->keys, KEYS_MAX);
    }
    for (int set = -1; set < t->nunique && err->rc == SQLITE_OK; set++) {
        size_t at = r->keys.len;
        bool holds = put_key(&r->keys, source, t, set, row);
        if (mm_buf_check(&r->keys, err, "rows that may be evicted") != SQLITE_OK) {
            break;
        }
        if (!holds) {
            r->keys.len = at;
            continue;
        }
        if (r->n == r->cap && !grow(r)) {
            return mm_err_nomem(err);
        }
        size_t len = r->keys.len - at;
        uint64_t hash = hash_of(r->keys.data + at, len);
        uint32_t *head = &r->bucket[hash & (r->cap - 1)];
        r->node[r->n] = (struct mm_rivals_node){ hash, number, at, len, *head };
        *head = ++r->n;
    }
    return err->rc;
}

int mm_rivals_meet(struct mm_rivals *r, int64_t source, const struct mm_table *t, const struct mm_value *row,
                   mm_rivals_met *met, void *arg, struct mm_err *err)
{
    if (r->probe.max == 0) {
        mm_buf_init(&r->probe, KEYS_MAX);
    }
    for (int set = -1; set < t->nunique && r->n > 0 && err->rc == SQLITE_OK; set++) {
        mm_buf_clear(&r->probe);
        bool holds = put_key(&r->probe, source, t, set, row);
        if (mm_buf_check(&r->probe, err, "a row") != SQLITE_OK || !holds) {
            continue;
        }
        uint64_t hash = hash_of(r->probe.data, r->probe.len);
        for (uint32_t k = r->bucket[hash & (r->cap - 1)]; k != 0; k = r->node[k - 1].next) {
            const struct mm_rivals_node *n = &r->node[k - 1];
            if (n->hash == hash && n->len == r->probe.len && memcmp(r->keys.data + n->at, r->probe.data, n->len) == 0) {
                met(arg, n->number);
            }
        }
    }
    return err->rc;
}
