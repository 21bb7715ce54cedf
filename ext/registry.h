/* Process-wide: canonical database file -> node, and its connections. The only
** global mutex of this library.
**
** Threads: any. The mutex is never held over SQL, network or a thread's end.
** A connection is known from its marmot_init, or from its open (the
** auto-extension entry compares only the file name). The last connection's
** close drains and stops the node. After a fork the child knows nothing. */
#ifndef MM_REGISTRY_H
#define MM_REGISTRY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"
#include "config.h"

struct mm_node;

/* Called by the entry point for every connection that loads us, and by the
** auto-extension entry for every connection of the process. Runs no SQL.
** `explicit_load`: the application loaded us on this very connection. */
int mm_registry_connection(sqlite3 *db, bool explicit_load, struct mm_err *err);

/* marmot_init: see SPEC 1. `text` NULL = stored configuration or defaults.
** Appends the JSON answer. */
int mm_registry_init(sqlite3 *db, const char *text, struct mm_buf *out, struct mm_err *err);
/* marmot_stop: 1 when a node was stopped, 0 when there was none. */
int mm_registry_stop(sqlite3 *db, struct mm_err *err);

/* The node of this connection's database; NULL with err set ("call
** marmot_init first") when there is none in this process. Holds a reference:
** give it back with mm_registry_release. */
struct mm_node *mm_registry_acquire(sqlite3 *db, const char *function, struct mm_err *err);
void mm_registry_release(struct mm_node *n);

/* Tells the hook of this connection that watched tables changed. */
void mm_registry_tables_changed(sqlite3 *db);

#endif
