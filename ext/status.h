/* The read-only virtual tables that show what replication does: rows are
** copied when a scan begins, so that no lock and no statement stays open
** between two rows.
**
** Threads: that of the connection that runs the statement.
** Now: marmot_tables (name, capture, key, state, why). */
#ifndef MM_STATUS_H
#define MM_STATUS_H

#include "base/sqlite.h"

/* Registers them on `db` as eponymous tables; an SQLite code. */
int mm_status_register(sqlite3 *db);

#endif
