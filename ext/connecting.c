#include "connecting.h"

#include <stdio.h>

#include "base/sqlite.h"
#include "bus/server.h"

struct mm_bus_options mm_connecting_options(const struct mm_config *c, const char *name)
{
    return (struct mm_bus_options){
        .urls = c->nats.urls,
        .name = name,
        .user = c->nats.user_name,
        .password = c->nats.user_password,
        .token = c->nats.token,
        .seed_file = c->nats.seed_file,
        .creds_file = c->nats.creds_file,
        .ca_file = c->nats.ca_file,
        .cert_file = c->nats.cert_file,
        .key_file = c->nats.key_file,
        /* A leaf server has no JetStream of its own, but that of its cluster. */
        .domain = c->nats.urls[0] == '\0' && c->nats.leaf_servers[0] != '\0' && c->nats.cluster_addr[0] == '\0'
                      ? c->cluster
                      : NULL,
        .connect_timeout_ms = MM_CONNECT_MS,
        .ping_interval_ms = MM_PING_MS,
        .extra_fd = -1,
    };
}

struct mm_bus *mm_connecting_open(const struct mm_config *c, const char *name, struct mm_err *err)
{
    char embedded[192];
    struct mm_bus_options o = mm_connecting_options(c, name);
    if (err->rc == SQLITE_OK && o.urls[0] == '\0') {
        mm_server_address(c->nats.bind_address, embedded, sizeof embedded, err);
        o.urls = embedded;
    }
    struct mm_bus *b = err->rc == SQLITE_OK ? mm_bus_open(&o, err) : NULL;
    if (b != NULL && mm_bus_connect(b, err) != SQLITE_OK) {
        mm_bus_close(b);
        return NULL;
    }
    return b;
}

void mm_connecting_nodes_subject(const struct mm_config *c, char out[256])
{
    /* Below _INBOX, which every user of JetStream may use both ways: a subject of
    ** its own would cost those with narrow permissions their connection. */
    (void)snprintf(out, 256, "_INBOX.marmot.%s.nodes", c->nats.subject_prefix);
}
