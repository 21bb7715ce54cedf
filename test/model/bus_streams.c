/* What the server holds, and what it has lost. */
#include "test/model/bus_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *net_need(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "bus_double: out of memory\n");
        exit(2);
    }
    return p;
}

void net_free_flying(struct flying *f)
{
    free(f->m.data);
    free(f);
}

void net_forget_lost(struct net *n, int shard)
{
    for (int64_t k = 0; k < n->nlost[shard]; k++) {
        free(n->lost[shard][k].m.data);
    }
    free(n->lost[shard]);
    n->lost[shard] = NULL;
    n->nlost[shard] = 0;
}

int64_t net_end(const struct net *n, int shard)
{
    return n->end[shard];
}

const struct net_message *net_get(const struct net *n, int shard, int64_t seq)
{
    return &n->stream[shard][seq - 1].m;
}

void net_store(struct net *n, int shard, const void *data, size_t len, bool zstd)
{
    int64_t end = ++n->end[shard];
    n->stream[shard] = net_need(realloc(n->stream[shard], (size_t)end * sizeof **n->stream));
    struct stored *s = &n->stream[shard][end - 1];
    memset(s, 0, sizeof *s);
    s->m = (struct net_message){ net_need(malloc(len + 1)), len, zstd };
    memcpy(s->m.data, data, len);
}

void net_drop(struct net *n, int shard, int64_t upto)
{
    n->dropped[shard] = upto > n->dropped[shard] ? upto : n->dropped[shard];
}

void net_lose(struct net *n, int shard, int64_t end)
{
    net_forget_lost(n, shard);
    n->nlost[shard] = n->end[shard] - end;
    n->lost[shard] = net_need(calloc((size_t)n->nlost[shard] + 1, sizeof **n->lost));
    n->lost_from[shard] = end + 1;
    memcpy(n->lost[shard], &n->stream[shard][end], (size_t)n->nlost[shard] * sizeof **n->lost);
    n->end[shard] = end;
    for (struct mm_bus *b = n->buses; b != NULL; b = b->next) {
        net_cut(b);
        while (b->first != NULL) {
            struct flying *f = b->first;
            b->first = f->next;
            net_free_flying(f);
        }
    }
}

static bool same(const struct net_message *a, const struct net_message *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

bool net_hides_loss(const struct net *n, int shard, const struct net_message *m)
{
    int64_t at = n->end[shard] + 1 - n->lost_from[shard];
    bool other = false;
    for (int64_t k = 0; k < at && k < n->nlost[shard]; k++) {
        other = other || !same(&n->lost[shard][k].m, &n->stream[shard][n->lost_from[shard] + k - 1].m);
    }
    return other && at < n->nlost[shard] && same(&n->lost[shard][at].m, m);
}

bool net_known(const struct net *n, int shard, const char *id)
{
    for (int64_t k = 0; k < n->end[shard]; k++) {
        if (strcmp(n->stream[shard][k].id, id) == 0) {
            return true;
        }
    }
    return false;
}
