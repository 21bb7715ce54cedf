/* The nodes of the cluster as they told about themselves: a list in memory.
**
** Threads: none of its own; its owner guards it. */
#ifndef MM_PEERS_H
#define MM_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "config.h"
#include "wire/hello.h"

enum {
    MM_HELLO_MS = 3000,      /* between two of a node that nobody asks */
    MM_HELLO_LEAST_MS = 200, /* and of one that is asked all the time */
    MM_PEER_ALIVE_MS = 7000, /* silent for longer: not counted on */
    MM_PEERS_MAX = 1024,     /* then the one goes that was silent longest */
};

struct mm_peer {
    struct mm_hello hello;
    int64_t heard_ms;      /* monotonic */
    int64_t heard_wall_ms; /* since 1970 */
};

struct mm_peers {
    struct mm_peer *peer;
    int count, cap;
};

void mm_peers_free(struct mm_peers *p); /* leaves it as if zeroed */

/* Takes what was told in; false without memory. Of another cluster than
** `cluster_id` (unless either is not known yet): passed over. */
bool mm_peers_hear(struct mm_peers *p, const struct mm_hello *h, const char *cluster_id);
bool mm_peers_copy(struct mm_peers *to, const struct mm_peers *from);
const struct mm_peer *mm_peers_find(const struct mm_peers *p, int64_t node);

/* Told within MM_PEER_ALIVE_MS, and not that it stopped. */
bool mm_peer_alive(const struct mm_peer *p);
/* Alive, and its state lets it follow the log to its end. */
bool mm_peer_follows(const struct mm_peer *p);

/* Asks everybody over a connection of its own and listens for wait_ms: for a
** process that does not replicate. Waits for the network. */
int mm_peers_ask(const struct mm_config *c, int wait_ms, struct mm_peers *out, struct mm_err *err);

#endif
