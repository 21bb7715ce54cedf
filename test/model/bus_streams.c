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
    n->stamp = n->stamp < net_now_us * 1000 ? net_now_us * 1000 : n->stamp + 1;
    s->m = (struct net_message){ net_need(malloc(len + 1)), len, zstd, n->stamp };
    memcpy(s->m.data, data, len);
}

void net_drop(struct net *n, int shard, int64_t upto)
{
    n->dropped[shard] = upto > n->dropped[shard] ? upto : n->dropped[shard];
}

int64_t net_dropped(const struct net *n, int shard)
{
    return n->dropped[shard];
}

void net_lose(struct net *n, int shard, int64_t end)
{
    size_t count = (size_t)(n->end[shard] - end);
    n->lost = net_need(realloc(n->lost, (n->nlost + count + 1) * sizeof *n->lost));
    for (size_t k = 0; k < count; k++) { /* who has taken one still reads it */
        n->lost[n->nlost++] = n->stream[shard][end + (int64_t)k].m.data;
    }
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

bool net_known(const struct net *n, int shard, const char *id)
{
    for (int64_t k = 0; k < n->end[shard]; k++) {
        if (strcmp(n->stream[shard][k].id, id) == 0) {
            return true;
        }
    }
    return false;
}
