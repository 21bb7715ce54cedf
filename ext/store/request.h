/* What other processes ask of the one that replicates: rows in a table.
**
** Threads: that of the connection. This file and its .c alone name
** __marmot__request. A row that nobody asks about any more goes after an hour. */
#ifndef MM_STORE_REQUEST_H
#define MM_STORE_REQUEST_H

#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"

/* Asks for a sync up to an outbox id; returns the request's id, 0 with err set. */
int64_t mm_request_sync(sqlite3 *db, int64_t outbox_id, struct mm_err *err);
/* 1 done, 0 not yet. */
int mm_request_done(sqlite3 *db, int64_t id, struct mm_err *err);

/* The oldest open request: its id and what it asks for; 0 when there is none. */
int64_t mm_request_next(sqlite3 *db, int64_t after, int64_t *outbox_id, struct mm_err *err);
int mm_request_finish(sqlite3 *db, int64_t id, struct mm_err *err);

#endif
