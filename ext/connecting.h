/* From a configuration to a connection: what the replication thread and a
** short-lived reader of the log have in common.
**
** Threads: the caller's; the bus belongs to the thread that opened it. */
#ifndef MM_CONNECTING_H
#define MM_CONNECTING_H

#include "bus/bus.h"
#include "config.h"

enum { MM_CONNECT_MS = 2000, MM_PING_MS = 5000 };

/* What the configuration says; borrows from it and from `name`, which shows in
** the server's monitoring. Without nats.urls the URL is left to the caller. */
struct mm_bus_options mm_connecting_options(const struct mm_config *c, const char *name);

/* A connection of one's own, to nats.urls or where the embedded server listens
** (nothing is started). Waits for it; NULL with err set when there is none. */
struct mm_bus *mm_connecting_open(const struct mm_config *c, const char *name, struct mm_err *err);

/* Where nodes tell about themselves; `out` holds 256 bytes. */
void mm_connecting_nodes_subject(const struct mm_config *c, char out[256]);

#endif
