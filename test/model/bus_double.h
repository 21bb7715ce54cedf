/* The network in memory: streams as arrays, connections whose messages wait
** until the test says what becomes of them, and a clock that the test moves.
** Defines every mm_bus_* and mm_clock_* function that repl calls, in place of
** ext/bus and ext/base/clock.c.
**
** Threads: one. Out of memory ends the program. */
#ifndef MM_TEST_BUS_DOUBLE_H
#define MM_TEST_BUS_DOUBLE_H

#include "bus/bus.h"

struct net;

#define NET_CREATED "then" /* the stamp of every stream */

#define NET_DESCRIPTION "libmarmot 1 cluster 00000000000000000000000000000001"

void net_forget_keys(void); /* of all buckets: a new cluster begins */

/* One at a time: mm_bus_open makes a connection to the one that was opened last;
** the streams reach it at once. */
struct net *net_open(int shards);
void net_close(struct net *n); /* with all connections */

/* A node's connection; subjects and streams end in "-<shard>". */
struct mm_bus *net_connect(struct net *n);
/* The node lets go of it: what it had sent and the server has not taken yet
** may still arrive, in its own order, at any later time. */
void net_cut(struct mm_bus *b);

enum net_fate {
    NET_STORED,   /* and acknowledged */
    NET_ACK_LOST, /* stored, the acknowledgement is lost */
    NET_LOST,     /* neither */
    NET_REFUSED,  /* not stored, an error comes back */
    NET_FULL,
};
/* The oldest message under way meets its fate: of b, or, when b is NULL, of a
** connection that was cut (`pick` chooses). False: nothing is under way. */
bool net_take(struct net *n, struct mm_bus *b, unsigned pick, enum net_fate fate);

/* True when something of a connection that was cut is under way. */
bool net_strays(const struct net *n);

/* The next `count` messages of the streams, and no more, may reach the node. */
void net_allow(struct mm_bus *b, int count);
/* Of this shard's stream alone; 0: of all. */
void net_only(struct mm_bus *b, int shard);

struct net_message {
    void *data;
    size_t len;
    bool zstd;
    int64_t time_ns; /* later than of all before it */
};
int64_t net_end(const struct net *n, int shard);
const struct net_message *net_get(const struct net *n, int shard, int64_t seq);
/* Puts a message there at once. */
void net_store(struct net *n, int shard, const void *data, size_t len, bool zstd);
/* The server loses what is behind `end`, and knows nothing of what was under way. */
void net_lose(struct net *n, int shard, int64_t end);
/* The server holds the stream's messages up to there no more (the test still does). */
void net_drop(struct net *n, int shard, int64_t upto);
int64_t net_dropped(const struct net *n, int shard);

/* Microseconds; each look at the clock lets `jitter` pass. */
extern int64_t net_now_us;
extern int64_t net_jitter_us;

#endif
