/* marmot_run: a process that does nothing but replicate.
**
** Threads: that of the connection, which is held all the time: a connection
** that other threads use as well makes them wait.
** SIGINT and SIGTERM are caught meanwhile, unless the process ignores them,
** and are the application's again afterwards, as it had them; a handler that
** it sets in between stays. A signal that ended the call is used up. */
#ifndef MM_RUNNING_H
#define MM_RUNNING_H

#include "base/err.h"
#include "base/sqlite.h"

/* Blocks until SIGINT, SIGTERM, timeout_ms (-1 = none), or until this process
** has no node of the database any more, or one that sleeps. Returns err->rc:
** an error at once without a node, inside a transaction or a reading statement.
** Says nothing but, where stderr is a terminal, how far long work is (snapshots, copies
** of the cluster's content, a long log). */
int mm_running_run(sqlite3 *db, int timeout_ms, struct mm_err *err);

#endif
