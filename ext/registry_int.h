/* Inside of the registry: what registry.c (lists, connections, fork, exit) and
** starting.c (init, stop, clean-up) share. For no other file.
**
** Threads: fields marked mu are read and written between mm_registry_lock and
** _unlock; the mutex is never held over SQL, network or a thread's end. */
#ifndef MM_REGISTRY_INT_H
#define MM_REGISTRY_INT_H

#include <pthread.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/sqlite.h"

struct mm_hook;
struct mm_node;

/* How long the end of a node waits for what is pending, and the busy_timeout
** that connections of a registered database get at their open. */
enum { MM_DRAIN_MS = 1000, MM_BUSY_MS = 5000 };

/* One registered database file. Lives while it has connections, or a last one
** is on its way out. */
struct mm_registry_file {
    struct mm_registry_file *next; /* mu */
    char *path;                    /* canonical */
    struct mm_node *node;          /* mu; set and cleared by who holds `starting`, by the last close, by exit */
    int users;                     /* mu: calls that use the node right now */
    int connections;               /* mu */
    int leaving;                   /* mu: closes of a last connection that are not through */
    pthread_mutex_t starting;      /* init, stop, clean-up of this file: one at a time, held over SQL */
};

/* One known connection. Two owners at most: its life function and its hook. */
struct mm_registry_conn {
    struct mm_registry_conn *next; /* mu */
    sqlite3 *db;
    char *file;                     /* as SQLite names it; "" in memory */
    struct mm_registry_file *entry; /* mu; NULL until its file is registered */
    unsigned generation;            /* of the process: other than the current = inherited over fork */
    struct mm_hook *hook;           /* installed; touched on the connection's own thread only, as is the rest */
    bool capturing;                 /* and on */
    char why[256];                  /* not captured because; empty = captured */
    int owners;                     /* mu */
};

void mm_registry_lock(void);
void mm_registry_unlock(void);

/* The connection as this process knows it; NULL with err set. */
struct mm_registry_conn *mm_registry_known(const sqlite3 *db, struct mm_err *err);

/* Links the connection, and all others of the same file name, to the entry of
** `path`, which is made when there is none. Borrowed: it lives as long as the
** connection. NULL with err set. */
struct mm_registry_file *mm_registry_enter(struct mm_registry_conn *c, const char *path, struct mm_err *err);

/* Attaches the hook unless the connection has it. Runs SQL. */
int mm_registry_attach(struct mm_registry_conn *c, struct mm_err *err);

#endif
