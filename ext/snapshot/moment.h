/* A moment of the node's database: rows and what is pending on them, together.
**
** What triggers have noted stands in the rows already and is pending, but not yet
** in the outbox (store/log.h). Who takes it for rows of the base sends it, or has
** it, twice. So it is moved first.
**
** Threads: that of the connection, which holds the fork gate; it is let go between
** two tries. */
#ifndef MM_SNAPSHOT_MOMENT_H
#define MM_SNAPSHOT_MOMENT_H

#include "snapshot/work.h"

/* Begins a read transaction in which triggers have noted nothing. A write
** transaction comes before it where they had; SQLITE_BUSY when writers gave no
** room for that within MM_MOMENT_MS. */
int mm_moment_begin(sqlite3 *db, struct mm_work *work, struct mm_err *err);

enum { MM_MOMENT_MS = 5000 };

/* No transaction is open. SQLITE_ERROR: there is what nothing has captured, as of now (store/stray.h). A
** write transaction where stamps are kept, SQLITE_BUSY as above. */
int mm_moment_captured(sqlite3 *db, struct mm_work *work, struct mm_err *err);

#endif
