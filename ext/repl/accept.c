#include "repl/accept.h"

#include <stdlib.h>
#include <string.h>

struct mm_accept {
    sqlite3 *db;
    int shard;
    bool replay;
    struct mm_origin *origin;
    size_t n, cap;
    struct mm_origin *taken; /* accepted, not in the database yet */
    size_t ntaken, taken_cap;
};

struct mm_accept *mm_accept_open(sqlite3 *db, int shard, bool replay, struct mm_err *err)
{
    struct mm_accept *a = calloc(1, sizeof *a);
    if (a == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    a->db = db;
    a->shard = shard;
    a->replay = replay;
    return a;
}

void mm_accept_reset(struct mm_accept *a)
{
    a->n = 0;
    a->ntaken = 0;
}

void mm_accept_close(struct mm_accept *a)
{
    if (a != NULL) {
        free(a->origin);
        free(a->taken);
        free(a);
    }
}

static struct mm_origin *find(struct mm_accept *a, int64_t node, int64_t incarnation, struct mm_err *err)
{
    for (size_t k = 0; k < a->n; k++) {
        if (a->origin[k].node == node && a->origin[k].incarnation == incarnation) {
            return &a->origin[k];
        }
    }
    if (a->n == a->cap) {
        size_t cap = a->cap == 0 ? 16 : a->cap * 2;
        struct mm_origin *p = realloc(a->origin, cap * sizeof *p);
        if (p == NULL) {
            mm_err_nomem(err);
            return NULL;
        }
        a->origin = p;
        a->cap = cap;
    }
    struct mm_origin *o = &a->origin[a->n];
    memset(o, 0, sizeof *o);
    o->node = node;
    o->incarnation = incarnation;
    if (!a->replay) {
        mm_origin_get(a->db, "main", a->shard, node, incarnation, o, err);
    }
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    a->n++;
    return o;
}

const struct mm_origin *mm_accept_last(struct mm_accept *a, int64_t node, int64_t incarnation, struct mm_err *err)
{
    return find(a, node, incarnation, err);
}

int mm_accept_take(struct mm_accept *a, const struct mm_msg *m, struct mm_err *err)
{
    struct mm_origin *o = find(a, m->node, m->incarnation, err);
    if (o == NULL) {
        return err->rc;
    }
    if (!a->replay && a->ntaken == a->taken_cap) {
        size_t cap = a->taken_cap == 0 ? 64 : a->taken_cap * 2;
        struct mm_origin *p = realloc(a->taken, cap * sizeof *p);
        if (p == NULL) {
            return mm_err_nomem(err);
        }
        a->taken = p;
        a->taken_cap = cap;
    }
    o->seq = m->origin_seq;
    memcpy(o->txid, m->txid, sizeof o->txid);
    o->outbox = m->outbox_last;
    if (!a->replay) {
        a->taken[a->ntaken++] = *o;
    }
    return SQLITE_OK;
}

int mm_accept_flush(struct mm_accept *a, struct mm_err *err)
{
    struct mm_origin_writer *w = a->ntaken > 0 ? mm_origin_writer_open(a->db, a->shard, err) : NULL;
    for (size_t k = 0; k < a->ntaken && err->rc == SQLITE_OK; k++) {
        mm_origin_writer_add(w, &a->taken[k], err);
    }
    for (size_t k = 0; k < a->n && a->ntaken > 0 && err->rc == SQLITE_OK; k++) {
        mm_origin_writer_last(w, &a->origin[k], err);
    }
    mm_origin_writer_close(w);
    if (err->rc == SQLITE_OK) {
        a->ntaken = 0;
    }
    return err->rc;
}
