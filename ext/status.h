/* The read-only virtual tables that show what replication does: rows are
** copied when a scan begins, so that no lock and no statement stays open
** between two rows.
**
** Threads: that of the connection that runs the statement.
**
**   marmot_tables     name, capture, key, state, why
**   marmot_streams    shard, stream, subject, position, end, state: of the node
**                     that this process runs, empty when it runs none
**   marmot_conflicts  id, shard, seq, node, time, kind, table, key, lost, won: as
**                     this node met them, newest first, the last 64 MiB
**   marmot_nodes      id, name, host, state, positions (JSON, by shard), lag_messages,
**                     lag_seconds, last_seen, self: every node that told of itself
**                     lately or wrote to the log. "silent": not heard of for seven
**                     seconds; seconds of lag count from when it last had it all.
**                     A process that stands by asks around, most of a second long
**   marmot_metrics    name, labels, value, help: as an exporter of Prometheus
**                     writes them, labels without braces; empty like streams
**
** One is no copy, but reads the log from the server row by row (ext/changes.h),
** in any process that has loaded the library:
**   marmot_changes(shard, from_seq)
**                     seq, node, time, table, op, key, old, new (JSON objects),
**                     ascending, to the end that the stream has at the call;
**                     both arguments are 1 when left out
*/
#ifndef MM_STATUS_H
#define MM_STATUS_H

#include "base/sqlite.h"

/* Registers them on `db` as eponymous tables; an SQLite code. */
int mm_status_register(sqlite3 *db);

#endif
