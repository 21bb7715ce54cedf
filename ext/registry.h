/* Process-wide: canonical database file -> node, and its connections. The only
** global mutex of this library.
**
** Threads: any. The mutex is never held over SQL, network or a thread's end.
** A connection is known from its load of the library, or from its open (the
** auto-extension entry compares only the file name) when its database is
** registered: by a marmot_init in this process, or by a load on a connection
** whose database holds our bookkeeping. The last connection's close drains and
** stops the node; so does the end of the process. After a fork the child keeps
** the names of the databases alone: inherited connections are unknown there,
** new ones start clean. */
#ifndef MM_REGISTRY_H
#define MM_REGISTRY_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"

struct mm_node;

/* Once per process, before anything else: fork and exit handlers. */
int mm_registry_open(struct mm_err *err);

/* Called by the entry point for every connection that loads us
** (`explicit_load`), and by the auto-extension entry for every connection of
** the process. Runs no SQL. 1: the connection is known now, give it the
** functions; 0: nothing to do; -1 with err set. */
int mm_registry_connection(sqlite3 *db, bool explicit_load, struct mm_err *err);

/* After an explicit load: attaches the hook, when this SQLite offers it and
** the application does not use it. Runs SQL; what fails is logged only, since
** marmot_init says it again as an error. */
void mm_registry_loaded(sqlite3 *db);

/* marmot_init: see SPEC 1. `text` NULL = stored configuration or defaults.
** Appends the JSON answer. */
int mm_registry_init(sqlite3 *db, const char *text, struct mm_buf *out, struct mm_err *err);
/* marmot_stop: 1 when a node was stopped, 0 when there was none or err is set.
** Capture goes on: what is written meanwhile waits in the outbox. */
int mm_registry_stop(sqlite3 *db, struct mm_err *err);
/* marmot_cleanup. */
int mm_registry_cleanup(sqlite3 *db, bool discard, struct mm_err *err);

/* The node of this connection's database; NULL with err set ("call
** marmot_init first") when there is none in this process. Holds a reference:
** give it back with mm_registry_release. */
struct mm_node *mm_registry_acquire(sqlite3 *db, struct mm_err *err);
void mm_registry_release(struct mm_node *n);

/* Why this connection is not captured, into `why` (at most `size` bytes with
** the NUL); false when it is captured. */
bool mm_registry_uncaptured(sqlite3 *db, char *why, size_t size);

/* Watched tables changed: the hook of this connection forgets what it knows,
** the node wakes. */
void mm_registry_tables_changed(sqlite3 *db);

#endif
