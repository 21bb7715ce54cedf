#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "capture/trigger.h"
#include "node_int.h"
#include "repl/join.h"
#include "repl/partition.h"
#include "repl/positions.h"
#include "store/log.h"
#include "store/stray.h"

enum { IDS_MS = 50 };

/* watch_all covers tables that come later, also those that nobody wrote yet. */
static void watch_new_tables(struct mm_node *n, struct mm_err *err)
{
    struct mm_repl *r = &n->r;
    n->watch_all = mm_db_int(r->db, err, 0, "SELECT watch_all FROM main.__marmot__head WHERE one = 1") != 0;
    if (!n->watch_all || err->rc != SQLITE_OK) {
        return;
    }
    int count = 0;
    char **list = mm_table_list(r->db, &count, err);
    bool begun = false;
    for (int k = 0; k < count && err->rc == SQLITE_OK; k++) {
        struct mm_target *t = mm_targets_get(r->targets, list[k], err);
        if (t == NULL || t->state != MM_WATCH_NONE || t->def == NULL) {
            continue;
        }
        if (!begun) {
            mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
            begun = true;
        }
        if (mm_watch_get(r->db, list[k], NULL, err) != MM_WATCH_NONE) {
            continue; /* the application was faster, with marmot_unwatch for one */
        }
        if (t->def->supported) {
            mm_watch_add(r->db, list[k], err);
        } else {
            mm_watch_set(r->db, list[k], MM_UNSUPPORTED, t->def->why, err);
        }
    }
    if (begun) {
        mm_trigger_settle(r->db, err);
        mm_stray_end(r->db, err);
        mm_targets_forget(r->targets);
    }
    for (int k = 0; k < count; k++) {
        free(list[k]);
    }
    free(list);
}

/* replicate = false: no table may say that it has the cluster's content. */
static void leave_content(struct mm_node *n, struct mm_err *err)
{
    struct mm_repl *r = &n->r;
    if (!r->positions_only || !r->joined || !r->tables_changed || !mm_positions_due(r, err)) {
        return;
    }
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    bool begun = err->rc == SQLITE_OK;
    mm_positions_settle(r, err);
    if (begun) {
        mm_stray_end(r->db, err);
    }
    mm_targets_forget(r->targets);
}

/* Ids that SQLite makes: another block for who has used half of his. */
static void look_at_ids(struct mm_node *n, struct mm_err *err)
{
    struct mm_repl *r = &n->r;
    int64_t now = mm_clock_mono_ms();
    if (!r->partition || now < n->next_ids_ms) {
        return;
    }
    n->next_ids_ms = now + IDS_MS;
    bool due = mm_partition_due(r, err);
    if (strcmp(n->id_warning, r->id_warning) != 0) {
        n->told_moved = -1; /* news for the status */
    }
    if (due) {
        mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
        bool begun = err->rc == SQLITE_OK;
        mm_partition_settle(r, err);
        if (begun) {
            mm_stray_end(r->db, err);
        }
    }
}

/* What triggers noted moves to the outbox, and after a schema change they are
** made anew. Each is a write transaction, which costs the application: not
** more often than need be. */
static void look_at_triggers(struct mm_node *n, struct mm_err *err)
{
    sqlite3 *db = n->r.db;
    int64_t now = mm_clock_mono_ms();
    bool move = (now >= n->next_move_ms || mm_worker_stopping(n->self)) && mm_log_any(db, err);
    bool make = n->triggers_due && mm_trigger_due(db, err);
    n->triggers_due = n->triggers_due && (make || err->rc != SQLITE_OK);
    if ((!move && !make) || err->rc != SQLITE_OK) {
        return;
    }
    n->next_move_ms = now + MM_MOVE_MS;
    mm_db_exec(db, err, "BEGIN IMMEDIATE");
    bool begun = err->rc == SQLITE_OK;
    mm_trigger_move(db, NULL, err);
    if (make) {
        mm_trigger_settle(db, err);
        mm_trigger_tidy(db, err);
    }
    if (begun) {
        mm_stray_end(db, err);
    }
    n->triggers_due = n->triggers_due && err->rc != SQLITE_OK;
    mm_node_stray_read(n, err);
}

void mm_node_all_read(struct mm_node *n)
{
    n->counted = n->r.outbox_read;
    n->unread_rows = n->unread_bytes = 0;
}

void mm_node_look(struct mm_node *n)
{
    struct mm_repl *r = &n->r;
    struct mm_err err;
    mm_err_init(&err);
    mm_gate_enter();
    if (mm_targets_refresh(r->targets, &err)) {
        r->schema_moved = true;
        mm_repl_rekey(r, &err);
    }
    if (r->schema_moved) { /* seen here, while folding or while joining */
        r->tables_changed = n->watch_due = n->triggers_due = n->schema_look = true;
    }
    if (n->watch_due || r->tables_changed || n->nothing_watched) {
        n->watch_due = true;
        watch_new_tables(n, &err);
        mm_targets_forget(r->targets);
        n->watch_due = err.rc != SQLITE_OK;
    }
    mm_join_again(r, &err);
    leave_content(n, &err);
    look_at_ids(n, &err);
    look_at_triggers(n, &err);
    mm_node_stray_look(n, &err);
    /* Without a connection nothing can be done about new rows: they are counted
    ** now and then, and read when there is one. */
    if (n->linked) {
        mm_repl_read_outbox(r, &err);
        mm_node_all_read(n);
    } else if (mm_clock_mono_ms() >= n->next_count_ms) {
        n->next_count_ms = mm_clock_mono_ms() + MM_COUNT_MS;
        if (n->counted < r->outbox_read) {
            mm_node_all_read(n);
        }
        mm_outbox_count(r->outbox, &n->counted, &n->unread_rows, &n->unread_bytes, &err);
    }
    mm_gate_leave();
    bool passing = (err.rc & 0xff) == SQLITE_BUSY || (err.rc & 0xff) == SQLITE_LOCKED;
    if (!passing || n->outbox_problem.rc == SQLITE_OK) {
        n->outbox_problem = err;
    }
    if (passing) {
        mm_err_init(&n->outbox_problem);
    }
}

bool mm_node_reload(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_gate_enter();
    mm_repl_reload(&n->r, &err);
    mm_applier_drop(n->applier, 0); /* what waits is behind another position */
    mm_gate_leave();
    n->outbox_problem = err;
    if (err.rc == SQLITE_OK) {
        mm_node_all_read(n);
    }
    return err.rc == SQLITE_OK && !n->r.reload_needed;
}
