/* Other servers that an embedded one is to know: lists of nats:// URLs, with
** dns://host:port/?min=3&interval_ms=500 entries resolved to one URL an
** address (every look-up again until there are `min` of them).
**
** Threads: the caller's; looking up happens on a thread of its own, because the
** system's look-up waits as long as it likes. */
#ifndef MM_BUS_SERVER_PEERS_H
#define MM_BUS_SERVER_PEERS_H

#include <stdbool.h>

#include "base/err.h"

struct mm_server_peers;

/* Takes copies. `list` "" or NULL has none. NULL with err set. */
struct mm_server_peers *mm_server_peers_open(const char *list, struct mm_err *err);
void mm_server_peers_close(struct mm_server_peers *p); /* NULL is fine */

/* The list, comma-separated, borrowed until the next call; NULL while a
** look-up is under way (the first call after open or forget starts it).
** `why` (255 bytes and the NUL) then says what is waited for. */
const char *mm_server_peers_list(struct mm_server_peers *p, char why[256], struct mm_err *err);
void mm_server_peers_forget(struct mm_server_peers *p); /* look up again for the next one */

#endif
