/* What the files of the network in memory share: bus_double.c has connections and the
** clock, bus_streams.c what the server holds. Nobody else includes this. */
#ifndef MM_TEST_BUS_INT_H
#define MM_TEST_BUS_INT_H

#include "test/model/bus_double.h"

enum { SHARDS = 8 };

struct flying {
    struct flying *next;
    struct net_message m;
    char id[160];
    int shard;
    uint64_t token;
};

struct waiting_ack {
    struct waiting_ack *next;
    struct mm_ack ack;
};

struct mm_bus {
    struct mm_bus *next;
    struct net *net;
    bool cut;
    struct flying *first, *last;
    struct waiting_ack *acks, *last_ack;
    int64_t follow[SHARDS + 1]; /* next message wanted, 0 = not followed */
    int turn;                   /* shard that is looked at first */
    int allowed;
    int only;   /* this shard comes, 0 = all */
    bool swift; /* of mm_bus_open */
};

struct stored {
    struct net_message m;
    char id[160];
};

struct net {
    int shards;
    struct stored *stream[SHARDS + 1];
    int64_t end[SHARDS + 1];
    int64_t dropped[SHARDS + 1]; /* up to this one they are gone */
    void **lost;                 /* the data of messages that the streams hold no more */
    size_t nlost;
    struct mm_bus *buses;
    int64_t stamp; /* the last one given */
};

void *net_need(void *p); /* or the end of the program */
void net_free_flying(struct flying *f);
/* Somebody sent a message of this id before, and the server remembers. */
bool net_known(const struct net *n, int shard, const char *id);

#endif
