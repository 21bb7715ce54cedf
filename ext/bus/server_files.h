/* The files of an embedded server: where they are, what they say.
**
** Threads: the caller's. Everything is made 0700 or 0600: the configuration
** holds the password. */
#ifndef MM_BUS_SERVER_FILES_H
#define MM_BUS_SERVER_FILES_H

#include <stddef.h>

#include "base/err.h"

/* "host:port" or "[v6]:port" into its parts; host holds 128 bytes. */
int mm_server_split(const char *address, char *host, int *port, struct mm_err *err);

/* The default store directory of a port into out; `kind` is put behind it: what
** a server stored alone is not to be seen by a member of a cluster. */
int mm_server_default_store(int port, const char *kind, char *out, size_t size, struct mm_err *err);

/* Makes the directory and its parents. */
int mm_server_make_dir(const char *path, struct mm_err *err);

/* The program: `binary`, else MARMOT_NATS_SERVER, else nats-server on PATH and
** in the system's folders for servers. */
int mm_server_find_binary(const char *binary, char *out, size_t size, struct mm_err *err);

struct mm_server_config { /* borrowed */
    const char *store;
    const char *host;
    int port;
    const char *user, *password, *token;
    const char *cluster_name, *cluster_addr; /* NULL or "": no cluster */
    const char *routes, *leafs;              /* comma-separated nats:// URLs; "" for none */
};
/* Writes <store>/nats.conf. */
int mm_server_write_config(const struct mm_server_config *c, struct mm_err *err);

/* The last line of <store>/nats.err, else the last error in <store>/nats.log,
** without its time stamp; "" when there is none. */
void mm_server_last_words(const char *store, char *out, size_t size);

#endif
