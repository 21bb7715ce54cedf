#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/db.h"
#include "base/gate.h"
#include "connecting.h"
#include "node_int.h"
#include "repl/partition.h"

/* One process replicates a file. POSIX locks, not flock: a child of a fork
** does not inherit them, and they go with the process however it ends. They
** are gone before the close of the file is told, which others wait for. */
bool mm_node_take_lock(struct mm_node *n)
{
    struct stat here;
    struct stat named;
    char *name = mm_buf_text("%s-marmot-lock", n->path);
    if (name == NULL) {
        return false;
    }
    if (n->lock_fd >= 0 && (fstat(n->lock_fd, &here) != 0 || stat(name, &named) != 0 || here.st_ino != named.st_ino ||
                            here.st_dev != named.st_dev)) {
        (void)close(n->lock_fd); /* marmot_cleanup of another process removed it: its lock elects nobody */
        n->lock_fd = -1;
    }
    if (n->lock_fd < 0) {
        n->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    }
    free(name);
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    return n->lock_fd >= 0 && fcntl(n->lock_fd, F_SETLK, &l) == 0;
}

int mm_node_open_repl(struct mm_node *n, struct mm_err *err)
{
    const struct mm_config *c = n->config;
    struct mm_repl *r = &n->r;
    struct mm_buf settings;
    struct mm_repl_options o = mm_node_repl_options(n);
    if (r->db == NULL) {
        r->db = mm_repl_connect(n->path, n->vfs, 0, err);
    }
    mm_buf_init(&settings, 1 << 20);
    mm_config_cluster_settings(c, &settings, err);
    n->settings = mm_buf_take(&settings);
    if (n->settings == NULL) {
        mm_err_nomem(err);
    }
    if (err->rc == SQLITE_OK) {
        n->applier = mm_applier_open(r, err);
        mm_repl_open(r, &o, err);
        r->positions_only = !c->replicate; /* of this database, not of the copies that tasks make */
        r->tables_changed = r->tables_changed || r->positions_only;
        r->partition = strcmp(c->autoincrement, "partition") == 0;
        mm_partition_open(r, err);
        mm_node_stray_open(n, err);
        mm_node_parts_open(n);
    }
    return err->rc;
}

struct mm_repl_options mm_node_repl_options(const struct mm_node *n)
{
    const struct mm_config *c = n->config;
    return (struct mm_repl_options){
        .node = c->node_id,
        .nshard = (int)c->log.shards,
        .stream_prefix = c->nats.stream_prefix,
        .subject_prefix = c->nats.subject_prefix,
        .compress = c->log.compress,
        .all_columns = c->conflict == MM_CONFLICT_ROW,
        .part_size = c->log.part_size,
    };
}

int mm_node_open_bus(struct mm_node *n, struct mm_err *err)
{
    const struct mm_config *c = n->config;
    bool embedded = c->nats.urls[0] == '\0';
    if (embedded) {
        struct mm_server_options so = {
            .bind_address = c->nats.bind_address,
            .binary = c->nats.server_binary[0] != '\0' ? c->nats.server_binary : NULL,
            .config_file = c->nats.server_config[0] != '\0' ? c->nats.server_config : NULL,
            .user = c->nats.user_name,
            .password = c->nats.user_password,
            .token = c->nats.token,
            .insecure = c->nats.insecure,
            .cluster_name = c->cluster,
            .cluster_addr = c->nats.cluster_addr,
            .cluster_peers = c->nats.cluster_peers,
            .leaf_servers = c->nats.leaf_servers,
        };
        n->server = mm_server_open(&so, err);
        if (n->server == NULL) {
            return err->rc;
        }
    }
    struct mm_bus_options bo = mm_node_bus_options(n);
    bo.extra_fd = mm_node_http_open(n);
    n->r.bus = mm_bus_open(&bo, err);
    return err->rc;
}

struct mm_bus_options mm_node_bus_options(struct mm_node *n)
{
    if (n->bus_name[0] == '\0') { /* a task may be reading it */
        (void)snprintf(n->bus_name, sizeof n->bus_name, "marmot-%lld", (long long)n->config->node_id);
    }
    struct mm_bus_options o = mm_connecting_options(n->config, n->bus_name);
    o.urls = n->server != NULL ? mm_server_url(n->server) : o.urls;
    return o;
}

void mm_node_close_bus(struct mm_node *n)
{
    mm_bus_close(n->r.bus);
    n->r.bus = NULL;
    mm_node_http_close(n);
    mm_server_close(n->server);
    n->server = NULL;
}

void mm_node_close_all(struct mm_node *n)
{
    struct mm_repl *r = &n->r;
    mm_node_close_bus(n);
    mm_gate_enter();
    mm_applier_close(n->applier);
    mm_db_finalize(n->version_stmt);
    n->version_stmt = NULL;
    mm_repl_close(r);
    mm_gate_leave();
    while (n->remote != NULL) {
        struct mm_sync *y = n->remote;
        n->remote = y->next;
        free(y);
    }
    free(n->settings);
    n->settings = NULL;
    n->applier = NULL;
}

struct mm_store_options mm_node_store_options(struct mm_node *n)
{
    const struct mm_config *c = n->config;
    struct mm_store_options o = { .kind = c->snapshot.store };
    o.nats.bus = &n->task_bus;
    o.nats.bucket = c->snapshot.nats_bucket;
    o.nats.replicas = (int)c->snapshot.nats_replicas;
    o.s3.endpoint = c->snapshot.s3_endpoint;
    o.s3.use_ssl = c->snapshot.s3_use_ssl;
    o.s3.bucket = c->snapshot.s3_bucket;
    o.s3.path = c->snapshot.s3_path;
    o.s3.region = c->snapshot.s3_region;
    o.s3.access_key = c->snapshot.s3_access_key;
    o.s3.secret = c->snapshot.s3_secret;
    o.s3.session_token = c->snapshot.s3_session_token;
    o.webdav_url = c->snapshot.webdav_url;
    o.sftp_url = c->snapshot.sftp_url;
    o.file_path = c->snapshot.file_path;
    return o;
}
