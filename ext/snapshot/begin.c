#include "snapshot/begin.h"

#include <string.h>

#include "base/db.h"
#include "base/gate.h"
#include "repl/join.h"
#include "snapshot/reshape.h"
#include "snapshot/take.h"

/* A table of the node, without its rows: its watch message is still to come. */
static void make_table(struct mm_scratch *s, sqlite3 *node, const struct mm_watch_entry *e, struct mm_err *err)
{
    mm_reshape_make(s, node, e->name, err);
    mm_watch_set(s->r.db, e->first_name, MM_JOINING, NULL, err);
}

/* Of the tables that the node watches: those that the copy lacks, or columns of the others. */
static int each_watched(struct mm_scratch *s, const char *node_path, const char *vfs, bool columns, bool alike,
                        struct mm_err *err)
{
    int n = 0;
    mm_gate_enter();
    sqlite3 *node = mm_repl_connect(node_path, vfs, 0, err);
    if (node != NULL) {
        mm_db_exec(s->r.db, err, "BEGIN");
        struct mm_watch_entry *list = mm_watch_list(node, &n, err);
        for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
            struct mm_table *def = mm_table_load(s->r.db, list[k].name, err);
            if (columns && def != NULL && mm_watch_captures(list[k].state)) {
                mm_reshape(s, node, def, alike, err);
            } else if (!columns && def == NULL && mm_watch_captures(list[k].state)) {
                make_table(s, node, &list[k], err);
            }
            mm_table_free(def);
        }
        mm_watch_list_free(list, n);
        mm_db_exec(s->r.db, err, "COMMIT");
        if (!sqlite3_get_autocommit(s->r.db)) {
            sqlite3_exec(s->r.db, "ROLLBACK", NULL, NULL, NULL);
        }
    }
    sqlite3_close(node);
    mm_targets_forget(s->r.targets);
    mm_gate_leave();
    return err->rc;
}

int mm_begin_tables(struct mm_scratch *s, const char *node_path, const char *vfs, struct mm_err *err)
{
    return each_watched(s, node_path, vfs, false, false, err);
}

int mm_begin_columns(struct mm_scratch *s, const char *node_path, const char *vfs, bool alike, struct mm_err *err)
{
    return each_watched(s, node_path, vfs, true, alike, err);
}

static int stream_stamps(struct mm_scratch *s, struct mm_err *err)
{
    for (int k = 0; k < s->r.nshard && err->rc == SQLITE_OK; k++) {
        struct mm_shard *sh = &s->r.shard[k];
        struct mm_stream_info info;
        if (!mm_bus_stream_info(s->r.bus, sh->stream, &info, MM_REQUEST_MS, err)) {
            mm_err_set(err, SQLITE_NOTFOUND, "the server has no stream %s", sh->stream);
        } else if (info.first_seq > 1) {
            mm_err_set(err, SQLITE_NOTFOUND, "stream %s no longer holds its first messages", sh->stream);
        } else {
            memcpy(sh->pos.created, info.created, sizeof sh->pos.created);
        }
    }
    return err->rc;
}

int mm_begin_empty(struct mm_scratch *s, const struct mm_scratch_options *o, const char *node_path,
                   const char *cluster_id, const struct mm_err *why, struct mm_err *err)
{
    struct mm_err none;
    mm_gate_enter();
    mm_take_empty(o->path, node_path, o->vfs, err);
    mm_gate_leave();
    if (err->rc == SQLITE_OK && mm_scratch_open(s, o, NULL, err) == SQLITE_OK &&
        mm_begin_tables(s, node_path, o->vfs, err) == SQLITE_OK && mm_bus_connect(s->r.bus, err) == SQLITE_OK &&
        stream_stamps(s, err) == SQLITE_OK) {
        (void)sqlite3_snprintf(sizeof s->r.cluster_id, s->r.cluster_id, "%s", cluster_id);
        mm_gate_enter();
        mm_join_begin(&s->r, err);
        mm_gate_leave();
        s->r.joined = true;
    }
    if ((err->rc & 0xff) == SQLITE_NOTFOUND) {
        mm_err_init(&none);
        mm_err_set(&none, SQLITE_NOTFOUND, "%s, and %s", err->msg,
                   why->rc != SQLITE_OK ? why->msg : "there is no snapshot of the cluster");
        *err = none;
    }
    return err->rc;
}
