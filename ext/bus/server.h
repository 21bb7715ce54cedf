/* The embedded server: a supervised child nats-server with JetStream, for
** nodes without nats.urls (SPEC 7).
**
** Threads: the replication thread alone; the child is started by it, and dies
** with it (PR_SET_PDEATHSIG follows the thread that forked), so neither a
** kill -9 of the host nor its exit leaves an orphan.
** One lock per store: flock on <store>/lock, whose descriptor the child
** inherits on purpose (the only one): a store is never served twice, not
** even while an old child is still shutting down. */
#ifndef MM_BUS_SERVER_H
#define MM_BUS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct mm_server;

struct mm_server_options {    /* borrowed during open, copied inside */
    const char *bind_address; /* host:port */
    const char *binary;       /* NULL: MARMOT_NATS_SERVER, else nats-server on PATH and in sbin */
    const char *config_file;  /* server_config of the user, NULL: ours */
    const char *store_dir;    /* NULL: ${XDG_STATE_HOME:-~/.local/state}/marmot/nats-<port> */
    const char *user, *password, *token;
    /* Of several machines' servers, SPEC 7; "" or NULL = none. */
    const char *cluster_name;  /* of the server cluster, and its JetStream domain */
    const char *cluster_addr;  /* host:port: member of a cluster; leaf servers may connect at the next port */
    const char *cluster_peers; /* URLs of the members, comma-separated; its own may be among them */
    const char *leaf_servers;  /* URLs: a leaf of that cluster, whose JetStream is used; none is here */
    bool insecure;             /* binding beyond loopback without authentication is allowed */
};

struct mm_server *mm_server_open(const struct mm_server_options *o, struct mm_err *err);

enum mm_server_state {
    MM_SERVER_FOREIGN,  /* somebody else holds the store: connect to the address */
    MM_SERVER_STARTING, /* our child runs, does not answer yet */
    MM_SERVER_RUNNING,  /* our child answers on the address */
    MM_SERVER_FAILED,   /* could not be started: err says why (last line of its log) */
};
/* To be called while no connection can be made, and every second or so: reaps
** a dead child, takes the lock when it is free, starts the child. Never
** waits longer than 50 ms. */
enum mm_server_state mm_server_tend(struct mm_server *s, struct mm_err *err);

/* The URL of a server that listens at a bind address, as mm_server_url has it. */
int mm_server_address(const char *bind_address, char *url, size_t size, struct mm_err *err);
const char *mm_server_url(const struct mm_server *s); /* nats://host:port */
int mm_server_pid(const struct mm_server *s);         /* 0 when we have no child */

/* Stops the child (SIGTERM, after 2 s SIGKILL, reaped), releases the lock. */
void mm_server_close(struct mm_server *s);

/* Descriptors to close in the child of a fork: calls f for each. */
void mm_server_each_fd(const struct mm_server *s, void (*f)(int fd));

#endif
