#include <stdlib.h>

#include "base/clock.h"
#include "repl/applier_int.h"

#define ARENA_MAX ((size_t)2 << 30) /* one value for all nodes: what exceeds it is ignored by all */

struct mm_applier *mm_applier_open(struct mm_repl *r, struct mm_err *err)
{
    struct mm_applier *a = calloc(1, sizeof *a);
    if (a == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    a->r = r;
    return a;
}

void mm_item_free(struct mm_item *it)
{
    mm_bus_release(&it->d);
    mm_arena_free(&it->arena);
    free(it);
}

struct mm_item *mm_applier_take(struct mm_applier *a)
{
    struct mm_item *it = a->head;
    a->head = it->next;
    if (a->head == NULL) {
        a->tail = NULL;
    }
    a->count--;
    a->bytes -= it->cost;
    return it;
}

void mm_applier_drop(struct mm_applier *a, int shard)
{
    struct mm_item *list = a->head;
    a->head = a->tail = NULL;
    a->count = a->bytes = 0;
    while (list != NULL) {
        struct mm_item *it = list;
        list = it->next;
        it->next = NULL;
        if (shard == 0 || it->d.shard == shard) {
            mm_item_free(it);
            continue;
        }
        if (a->tail != NULL) {
            a->tail->next = it;
        } else {
            a->head = it;
        }
        a->tail = it;
        a->count++;
        a->bytes += it->cost;
    }
}

void mm_applier_close(struct mm_applier *a)
{
    if (a != NULL) {
        mm_applier_drop(a, 0);
        free(a);
    }
}

bool mm_applier_room(const struct mm_applier *a)
{
    return a->count < MM_QUEUE_MESSAGES && a->bytes < MM_QUEUE_BYTES;
}

bool mm_applier_gather(struct mm_applier *a)
{
    const struct mm_shard *s = &a->r->shard[a->head->d.shard - 1];
    int64_t now = mm_clock_mono_ms();
    if (mm_pending_count(s->pending) < MM_GATHER_PENDING || !mm_applier_room(a)) {
        a->gather_since = 0;
        return false;
    }
    if (a->gather_since == 0) {
        a->gather_since = a->gather_heard = now;
    } else if (a->count != a->gather_count) {
        a->gather_heard = now;
    }
    a->gather_count = a->count;
    if (now - a->gather_since < MM_GATHER_MS && now - a->gather_heard < MM_GATHER_QUIET_MS) {
        return true;
    }
    a->gather_since = 0;
    return false;
}

bool mm_applier_due(const struct mm_applier *a)
{
    bool due = a->count > 0;
    for (int k = 0; k < a->r->nshard; k++) {
        due = due || a->r->shard[k].verify_seq != 0;
    }
    return due;
}

int mm_applier_put(struct mm_applier *a, struct mm_delivery *d, struct mm_err *err)
{
    struct mm_item *it = calloc(1, sizeof *it);
    if (it == NULL) {
        mm_bus_release(d);
        return mm_err_nomem(err);
    }
    it->d = *d;
    mm_arena_init(&it->arena, ARENA_MAX);
    mm_err_init(&it->bad);
    mm_wire_decode(&it->msg, d->data, d->len, d->zstd, &it->arena, &it->bad);
    if ((it->bad.rc & 0xff) == SQLITE_NOMEM) { /* says nothing about the message */
        mm_item_free(it);
        return mm_err_nomem(err);
    }
    if (a->tail != NULL) {
        a->tail->next = it;
    } else {
        a->head = it;
    }
    a->tail = it;
    a->count++;
    it->cost = d->len + it->arena.used;
    a->bytes += it->cost;
    return SQLITE_OK;
}
