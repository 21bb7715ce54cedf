#include "repl/open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/own.h"
#include "repl/join.h"

sqlite3 *mm_repl_connect(const char *path, const char *vfs, int flags, struct mm_err *err)
{
    sqlite3 *db = NULL;
    mm_own_connection(true);
    int rc =
        sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | flags, vfs);
    mm_own_connection(false);
    if (rc != SQLITE_OK) {
        mm_err_set(err, rc, "cannot open %s for replication: %s", path,
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

void mm_repl_name_shard(const struct mm_repl_options *o, int number, char stream[256], char subject[256])
{
    (void)snprintf(stream, 256, "%s%s-%d", o->stream_prefix, o->compress ? "-c" : "", number);
    (void)snprintf(subject, 256, "%s-%d", o->subject_prefix, number);
}

static void open_shard(struct mm_repl *r, const struct mm_repl_options *o, int number, struct mm_err *err)
{
    struct mm_shard *s = &r->shard[number - 1];
    s->n = number;
    mm_repl_name_shard(o, number, s->stream, s->subject);
    mm_buf_init(&s->large.body, (size_t)1 << 30);
    s->accept = mm_accept_open(r->db, s->n, false, err);
    s->pending = err->rc == SQLITE_OK ? mm_pending_open(r->db, r->outbox, r->targets, s->n, err) : NULL;
    if (s->pending != NULL) {
        mm_pending_set_all_columns(s->pending, r->all_columns);
    }
}

int mm_repl_open(struct mm_repl *r, const struct mm_repl_options *o, struct mm_err *err)
{
    r->node = o->node;
    r->epoch = 1;
    r->nshard = o->nshard;
    r->part_size = o->part_size;
    r->compress = o->compress;
    r->all_columns = o->all_columns;
    r->shard = calloc((size_t)r->nshard, sizeof *r->shard);
    if (r->shard == NULL) {
        return mm_err_nomem(err);
    }
    r->outbox = mm_outbox_open(r->db, err);
    r->targets = mm_targets_open(r->db, r->nshard, err);
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK; k++) {
        open_shard(r, o, k + 1, err);
    }
    if (err->rc == SQLITE_OK) {
        mm_targets_refresh(r->targets, err);
        r->schema_moved = true;
        mm_repl_reload(r, err);
    }
    return err->rc;
}

void mm_repl_close(struct mm_repl *r)
{
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
    memset(r, 0, sizeof *r);
}
