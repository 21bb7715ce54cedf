#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/db.h"
#include "base/gate.h"
#include "base/own.h"
#include "node_int.h"

/* One process replicates a file. POSIX locks, not flock: a child of a fork
** does not inherit them, and they go with the process however it ends. */
bool mm_node_take_lock(struct mm_node *n)
{
    if (n->lock_fd < 0) {
        char *name = sqlite3_mprintf("%s-marmot-lock", n->path);
        n->lock_fd = name != NULL ? open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0640) : -1;
        sqlite3_free(name);
    }
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    return n->lock_fd >= 0 && fcntl(n->lock_fd, F_SETLK, &l) == 0;
}

static sqlite3 *open_database(struct mm_node *n, struct mm_err *err)
{
    sqlite3 *db = NULL;
    mm_own_connection(true);
    int rc =
        sqlite3_open_v2(n->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, n->vfs);
    mm_own_connection(false);
    if (rc != SQLITE_OK) {
        mm_err_set(err, rc, "cannot open %s for replication: %s", n->path,
                   db != NULL ? sqlite3_errmsg(db) : "out of memory");
        sqlite3_close(db);
        return NULL;
    }
    int off = 0;
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, MM_BUSY_MS);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, &off);
    mm_db_exec(db, err,
               "PRAGMA foreign_keys = 0; PRAGMA ignore_check_constraints = 1; PRAGMA recursive_triggers = 0;"
               "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 1000");
    return db;
}

static void name_shard(struct mm_node *n, struct mm_shard *s, int number)
{
    const struct mm_config *c = n->config;
    s->n = number;
    (void)snprintf(s->stream, sizeof s->stream, "%s%s-%d", c->nats.stream_prefix, c->log.compress ? "-c" : "", number);
    (void)snprintf(s->subject, sizeof s->subject, "%s-%d", c->nats.subject_prefix, number);
}

int mm_node_open_repl(struct mm_node *n, struct mm_err *err)
{
    const struct mm_config *c = n->config;
    struct mm_repl *r = &n->r;
    struct mm_buf settings;
    r->db = open_database(n, err);
    r->node = c->node_id;
    r->epoch = 1;
    r->nshard = (int)c->log.shards;
    r->part_size = c->log.part_size;
    r->compress = c->log.compress;
    r->all_columns = c->conflict == MM_CONFLICT_ROW;
    r->shard = calloc((size_t)r->nshard, sizeof *r->shard);
    mm_buf_init(&settings, 1 << 20);
    mm_config_cluster_settings(c, &settings, err);
    n->settings = mm_buf_take(&settings);
    if (r->shard == NULL || n->settings == NULL) {
        mm_err_nomem(err);
    }
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    r->outbox = mm_outbox_open(r->db, err);
    r->targets = mm_targets_open(r->db, r->nshard, err);
    n->applier = mm_applier_open(r, err);
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK; k++) {
        struct mm_shard *s = &r->shard[k];
        name_shard(n, s, k + 1);
        mm_buf_init(&s->large.body, (size_t)1 << 30);
        s->accept = mm_accept_open(r->db, s->n, false, err);
        s->pending = err->rc == SQLITE_OK ? mm_pending_open(r->db, r->outbox, r->targets, s->n, err) : NULL;
        if (s->pending != NULL) {
            mm_pending_set_all_columns(s->pending, r->all_columns);
        }
    }
    if (err->rc == SQLITE_OK) {
        mm_targets_refresh(r->targets, err);
        mm_repl_reload(r, err);
    }
    return err->rc;
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
        };
        n->server = mm_server_open(&so, err);
        if (n->server == NULL) {
            return err->rc;
        }
    }
    char name[64];
    (void)snprintf(name, sizeof name, "marmot-%lld", (long long)c->node_id);
    struct mm_bus_options bo = {
        .urls = embedded ? mm_server_url(n->server) : c->nats.urls,
        .name = name,
        .user = c->nats.user_name,
        .password = c->nats.user_password,
        .token = c->nats.token,
        .seed_file = c->nats.seed_file,
        .creds_file = c->nats.creds_file,
        .ca_file = c->nats.ca_file,
        .cert_file = c->nats.cert_file,
        .key_file = c->nats.key_file,
        .connect_timeout_ms = MM_CONNECT_MS,
        .ping_interval_ms = 5000,
        .extra_fd = mm_worker_fd(n->self),
    };
    n->r.bus = mm_bus_open(&bo, err);
    return err->rc;
}

void mm_node_close_all(struct mm_node *n)
{
    struct mm_repl *r = &n->r;
    mm_bus_close(r->bus);
    mm_server_close(n->server);
    n->server = NULL;
    mm_gate_enter();
    mm_applier_close(n->applier);
    for (int k = 0; r->shard != NULL && k < r->nshard; k++) {
        struct mm_shard *s = &r->shard[k];
        mm_accept_close(s->replay);
        mm_accept_close(s->accept);
        mm_pending_close(s->pending);
        mm_buf_free(&s->large.body);
        mm_buf_free(&s->answer);
        mm_join_replay_forget(s);
    }
    free(r->shard);
    mm_targets_close(r->targets);
    mm_outbox_close(r->outbox);
    sqlite3_close(r->db);
    mm_gate_leave();
    while (n->remote != NULL) {
        struct mm_sync *y = n->remote;
        n->remote = y->next;
        free(y);
    }
    free(n->settings);
    n->settings = NULL;
    n->applier = NULL;
    memset(r, 0, sizeof *r);
}
