#include "snapshot/install.h"

#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/log.h"
#include "repl/commit.h"
#include "repl/merge.h"
#include "repl/partition.h"
#include "repl/positions.h"
#include "snapshot/install_int.h"
#include "snapshot/take.h"
#include "store/meta.h"
#include "store/policy.h"
#include "store/stray.h"

enum { BUSY_MS = 500, CHECKPOINT_PAGES = 1000, ROWS_A_MS = 20, BYTES_A_MS = 60000 };

int64_t mm_install_estimate_ms(const struct mm_diff *d)
{
    int64_t ms = 0;
    for (int k = 0; k < d->n; k++) {
        const struct mm_diff_table *t = &d->table[k];
        ms += t->mode == MM_DIFF_KEYS ? (t->here + t->there + 2 * t->both) / ROWS_A_MS : 0;
        ms += t->mode == MM_DIFF_ALL || t->mode == MM_DIFF_CREATE ? t->bytes / BYTES_A_MS : 0;
    }
    return ms;
}

static char *create_sql(struct mm_repl *r, const char *table, struct mm_err *err)
{
    return mm_db_text(r->db, err,
                      "SELECT sql FROM copy.sqlite_schema WHERE type = 'table' AND name = %Q COLLATE NOCASE", table);
}

/* The rows of the copy go into a table that is empty. With the same columns in the same
** order SQLite moves whole records, and those of indexes, without taking them apart. */
static void write_all(struct mm_repl *r, const struct mm_table *def, const char *columns, struct mm_err *err)
{
    bool whole =
        def->nstored == def->ncol && mm_db_int(r->db, err, 0,
                                               "SELECT NOT EXISTS(SELECT cid, name FROM pragma_table_info(%Q, 'main')"
                                               " EXCEPT SELECT cid, name FROM pragma_table_info(%Q, 'copy'))",
                                               def->name, def->name) != 0;
    if (whole) {
        mm_db_exec(r->db, err, "INSERT OR ABORT INTO main.\"%w\" SELECT * FROM copy.\"%w\"", def->name, def->name);
    } else {
        mm_db_exec(r->db, err, "INSERT OR ABORT INTO main.\"%w\"(%s) SELECT %s FROM copy.\"%w\"", def->name, columns,
                   columns, def->name);
    }
}

/* The rows that the diff names: gone, and those of the copy in their place. Once they
** are all gone no UNIQUE value is in the way. */
static void write_rows(struct mm_repl *r, const struct mm_diff_table *d, int number, const struct mm_table *def,
                       struct mm_err *err)
{
    struct mm_buf cols;
    struct mm_buf keys;
    struct mm_buf marks; /* k1, k2, .. of the diff table */
    mm_buf_init(&cols, 1 << 20);
    mm_buf_init(&keys, 1 << 20);
    mm_buf_init(&marks, 1 << 20);
    mm_diff_columns(def, false, &cols, err);
    mm_diff_columns(def, true, &keys, err);
    for (int k = 0, n = 0; k < def->ncol; k++) {
        if (def->col[k].pk != 0) {
            mm_buf_printf(&marks, "%sk%d", n > 0 ? ", " : "", n + 1);
            n++;
        }
    }
    mm_buf_byte(&marks, 0);
    mm_buf_check(&marks, err, "a statement");
    const char *c = (const char *)cols.data;
    const char *k = (const char *)keys.data;
    if (err->rc != SQLITE_OK) {
        /* nothing */
    } else if (d->mode == MM_DIFF_KEYS) {
        mm_db_exec(r->db, err,
                   "DELETE FROM main.\"%w\" WHERE (%s) IN (SELECT %s FROM copy.__marmot__diff_%d WHERE here)",
                   def->name, k, marks.data, number);
        mm_db_exec(r->db, err,
                   "INSERT OR ABORT INTO main.\"%w\"(%s) SELECT %s FROM copy.\"%w\" WHERE (%s) IN"
                   " (SELECT %s FROM copy.__marmot__diff_%d WHERE there)",
                   def->name, c, c, def->name, k, marks.data, number);
    } else {
        mm_db_exec(r->db, err, "DELETE FROM main.\"%w\"", def->name);
        write_all(r, def, c, err);
    }
    mm_buf_free(&cols);
    mm_buf_free(&keys);
    mm_buf_free(&marks);
}

/* --- merge: what stood here waits in the copy --- */

static bool merges(struct mm_repl *r, const struct mm_install *in, const struct mm_diff_table *d, struct mm_err *err)
{
    bool whole = in->take == NULL || in->take[d - in->diff->table];
    return (in->merge || d->empty) && whole && !d->before && (d->mode == MM_DIFF_KEYS || d->mode == MM_DIFF_ALL) &&
           mm_watch_captures(mm_watch_get(r->db, d->name, NULL, err));
}

/* Rows that the diff says are here, as they are visible. */
static void set_aside(struct mm_repl *r, const struct mm_diff_table *d, int number, struct mm_err *err)
{
    struct mm_table *def = mm_table_load(r->db, d->name, err);
    struct mm_buf cols;
    struct mm_buf keys;
    struct mm_buf names; /* without types: each value stays as it is */
    struct mm_buf marks;
    mm_buf_init(&cols, 1 << 20);
    mm_buf_init(&keys, 1 << 20);
    mm_buf_init(&names, 1 << 20);
    mm_buf_init(&marks, 1 << 20);
    if (def != NULL && mm_diff_columns(def, false, &cols, err) == SQLITE_OK &&
        mm_diff_columns(def, true, &keys, err) == SQLITE_OK) {
        for (int k = 0, n = 0; k < def->ncol; k++) {
            mm_buf_printf(&names, "%sc%d", k > 0 ? ", " : "", k);
            if (def->col[k].pk != 0) {
                mm_buf_printf(&marks, "%sk%d", n > 0 ? ", " : "", n + 1);
                n++;
            }
        }
        mm_buf_byte(&names, 0);
        mm_buf_byte(&marks, 0);
        mm_buf_check(&names, err, "a statement");
        mm_buf_check(&marks, err, "a statement");
        mm_db_exec(r->db, err, "CREATE TABLE copy.__marmot__mine_%d(%s)", number, (const char *)names.data);
        if (d->mode == MM_DIFF_KEYS) {
            mm_db_exec(r->db, err,
                       "INSERT INTO copy.__marmot__mine_%d SELECT %s FROM main.\"%w\" WHERE (%s) IN"
                       " (SELECT %s FROM copy.__marmot__diff_%d WHERE here)",
                       number, (const char *)cols.data, def->name, (const char *)keys.data, (const char *)marks.data,
                       number);
        } else {
            mm_db_exec(r->db, err, "INSERT INTO copy.__marmot__mine_%d SELECT %s FROM main.\"%w\"", number,
                       (const char *)cols.data, def->name);
        }
    }
    mm_table_free(def);
    mm_buf_free(&cols);
    mm_buf_free(&keys);
    mm_buf_free(&names);
    mm_buf_free(&marks);
}

static void bring_back(struct mm_repl *r, const struct mm_diff_table *d, int number, struct mm_late *late,
                       struct mm_err *err)
{
    struct mm_merge_count count = { 0 };
    struct mm_target *t = mm_targets_get(r->targets, d->name, err);
    if (t == NULL || t->def == NULL) {
        return;
    }
    sqlite3_stmt *st = mm_db_prepare(r->db, err, 0, "SELECT * FROM copy.__marmot__mine_%d ORDER BY rowid", number);
    mm_merge_rows(r, t, st, late, &count, err);
    mm_db_finalize(st);
    if (err->rc == SQLITE_OK && count.kept + count.differ + count.clashed > 0) {
        mm_log(MM_LOG_INFO,
               "table %s is merged: %lld rows that existed only here are sent; in marmot_conflicts are %lld that"
               " differed and %lld whose UNIQUE value a row of the cluster holds",
               d->name, (long long)count.kept, (long long)count.differ, (long long)count.clashed);
    }
}

static void make_table(struct mm_repl *r, const char *name, struct mm_err *err)
{
    char *sql = create_sql(r, name, err);
    if (mm_db_int(r->db, err, 0, "SELECT 1 FROM main.sqlite_schema WHERE name = %Q COLLATE NOCASE", name) != 0) {
        mm_err_set(err, SQLITE_SCHEMA, "table %s was made while it was compared: try again", name);
    }
    if (err->rc == SQLITE_OK && sql == NULL) {
        mm_err_set(err, SQLITE_CORRUPT, "the copy has no definition of table %s", name);
    }
    mm_db_exec(r->db, err, "%s", sql != NULL ? sql : "");
    sqlite3_free(sql);
}

/* Its indexes and triggers, once the rows are in. */
static void make_belongings(struct mm_repl *r, const char *name, struct mm_err *err)
{
    struct mm_take_statement *list = NULL;
    int n = mm_take_statements(r->db, "copy", name, &list, err);
    for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
        if (mm_db_int(r->db, err, 0, "SELECT 1 FROM main.sqlite_schema WHERE name = %Q COLLATE NOCASE", list[k].name) ==
            0) {
            mm_db_exec(r->db, err, "%s", list[k].sql);
        }
    }
    mm_take_statements_free(list, n);
}

/* Rows of its own in a table that has not joined, while the node had: nobody has given them up.
** It is compared for itself, and does as `join` says. */
static bool keeps_rows(struct mm_repl *r, const struct mm_install *in, const struct mm_diff_table *d,
                       enum mm_watch_state state, struct mm_err *err)
{
    int64_t seq = mm_watch_joined_seq(r->db, d->name, err);
    bool apart = (state == MM_STALE || state == MM_JOINING) && (seq == MM_SEQ_NEVER || seq == MM_SEQ_COPY);
    bool differs = d->mode == MM_DIFF_KEYS || d->mode == MM_DIFF_ALL;
    return apart && differs && d->rows > 0 && r->joined && in->take == NULL && !in->give_up && !in->merge;
}

static void keep_rows(struct mm_repl *r, const struct mm_diff_table *d, enum mm_watch_state state, struct mm_err *err)
{
    if (state == MM_JOINING) {
        mm_watch_set_joined_seq(r->db, d->name, MM_SEQ_COPY, err);
        r->copy_due = true;
    }
    r->tables_changed = true;
    mm_log(MM_LOG_WARN, "table %s has not joined the cluster, and its rows differ: it is left as it is", d->name);
}

/* It was left and is watched again behind the comparison: what was written between is not known. */
static bool watched_since(struct mm_repl *r, const struct mm_install *in, const char *table, struct mm_err *err)
{
    bool found = false;
    struct mm_buf data;
    mm_buf_init(&data, 1 << 30);
    for (int k = 0; k < r->nshard; k++) {
        struct mm_pending *p = r->shard[k].pending;
        for (size_t j = mm_pending_count(p); j-- > 0 && mm_pending_at(p, j)->id > in->diff->last && !found;) {
            struct mm_outbox_row row;
            mm_buf_clear(&data);
            if (mm_pending_at(p, j)->kind == MM_OUTBOX_CONTROL &&
                mm_outbox_get(r->outbox, mm_pending_at(p, j)->id, &row, NULL, &data, err) && data.len > 1 &&
                data.data[0] == MM_CONTROL_WATCH) {
                mm_buf_byte(&data, 0);
                found = sqlite3_stricmp((const char *)data.data + 1, table) == 0;
            }
        }
    }
    mm_buf_check(&data, err, "a control message");
    mm_buf_free(&data);
    return found && err->rc == SQLITE_OK;
}

/* `schema_moved`: since the comparison. */
static void one_table(struct mm_repl *r, const struct mm_install *in, int number, bool schema_moved, struct mm_err *err)
{
    const struct mm_diff_table *d = &in->diff->table[number];
    enum mm_watch_state state = mm_watch_get(r->db, d->name, NULL, err);
    bool mine = mm_watch_captures(state);
    bool wanted = mine || (state == MM_WATCH_NONE && in->watch_all);
    if (in->positions && err->rc == SQLITE_OK) {
        mm_positions_install(r->db, d->name, d->mode == MM_DIFF_SAME || d->rows == 0, err);
        return;
    }
    if (!wanted || err->rc != SQLITE_OK || (in->take != NULL && !in->take[number])) {
        return;
    }
    if (d->mode == MM_DIFF_ABSENT && state == MM_WATCH_NONE) {
        return; /* whoever makes it here begins to watch it: nothing may be known of it till then */
    }
    if (d->mode == MM_DIFF_ABSENT && state == MM_JOINING) { /* what is captured of it waits as well */
        int64_t seq = mm_watch_joined_seq(r->db, d->name, err);
        mm_watch_set(r->db, d->name, MM_JOINING, d->why, err);
        mm_watch_set_joined_seq(r->db, d->name, mm_watch_copy_seq(seq), err);
        r->copy_due = r->tables_changed = true;
        mm_log(MM_LOG_INFO, "table %s waits: %s", d->name, d->why);
        return;
    }
    if (d->mode == MM_DIFF_OTHER || d->mode == MM_DIFF_ABSENT) {
        int64_t seq = mm_watch_joined_seq(r->db, d->name, err);
        mm_watch_set(r->db, d->name, MM_STALE, d->why, err);
        if (seq > 0) { /* the node goes on at another place, maybe of another log: no reading from there */
            mm_watch_set_joined_seq(r->db, d->name, MM_SEQ_BEFORE, err);
        }
        mm_log(MM_LOG_WARN, "table %s stays out: %s", d->name, d->why);
        return;
    }
    bool compared = d->captured || d->mode == MM_DIFF_CREATE;
    /* One that has begun to wait for a copy since then was gone, and is another now; one that waited may be. */
    bool gone = compared && d->mode != MM_DIFF_CREATE && (!d->joins || schema_moved) &&
                mm_watch_needs_copy(state, mm_watch_joined_seq(r->db, d->name, err));
    if (!compared || gone || watched_since(r, in, d->name, err)) {
        r->tables_changed = true;
        return;
    }
    if (keeps_rows(r, in, d, state, err)) {
        keep_rows(r, d, state, err);
        return;
    }
    if (d->mode == MM_DIFF_CREATE) {
        make_table(r, d->name, err);
    }
    struct mm_table *def = mm_table_load(r->db, d->name, err);
    if (err->rc == SQLITE_OK && def == NULL) {
        mm_err_set(err, SQLITE_SCHEMA, "table %s was dropped while it was compared: try again", d->name);
    }
    /* Of a column that came since the copy has no value: its name would be taken for one. */
    if (err->rc == SQLITE_OK && d->mode != MM_DIFF_CREATE && mm_table_hash(def) != d->shape) {
        mm_err_set(err, SQLITE_SCHEMA, "table %s was altered while it was compared: try again", d->name);
    }
    if (err->rc == SQLITE_OK && d->mode != MM_DIFF_SAME) {
        write_rows(r, d, number, def, err);
    }
    if (d->mode == MM_DIFF_CREATE) {
        make_belongings(r, d->name, err);
    }
    mm_table_free(def);
    mm_watch_set(r->db, d->name, MM_WATCHED, NULL, err);
    mm_watch_set_joined_seq(r->db, d->name, 1, err);
}

static void replace_state(struct mm_repl *r, const struct mm_install *in, struct mm_err *err)
{
    mm_install_own(r, in, err);
    mm_position_copy(r->db, "copy", "main", err);
    mm_watchlist_copy(r->db, "copy", "main", err);
    mm_watch_unlisted(r->db, err);
    mm_policy_copy(r->db, "copy", "main", err);
    mm_meta_set_text(r->db, MM_META_CLUSTER, in->cluster_id, err);
    mm_meta_set_int(r->db, MM_META_JOINED, 1, err);
    if (in->fresh || in->give_up) {
        mm_repl_fresh_incarnation(r, err);
        mm_meta_set_text(r->db, MM_META_SEED, NULL, err);
    }
}

/* Its outbox ends here: nothing of it may be sent later. */
static int64_t give_up(struct mm_repl *r, int64_t upto, struct mm_err *err)
{
    int64_t n = mm_repl_pending_transactions(r, upto, err);
    mm_outbox_discard(r->outbox, upto, err);
    mm_watch_again(r->db, err);
    mm_targets_forget(r->targets);
    mm_repl_reload(r, err);
    return n;
}

struct undone {
    int shard; /* its place in r->shard */
    int64_t id;
};

static void note_undone(struct mm_repl *r, struct mm_buf *list, struct mm_err *err)
{
    for (int k = 0; k < r->nshard; k++) {
        struct mm_pending *p = r->shard[k].pending;
        for (size_t j = 0; j < mm_pending_count(p); j++) {
            const struct mm_pend *e = mm_pending_at(p, j);
            const struct undone u = { k, e->id };
            if (e->kind == MM_OUTBOX_TXN) {
                mm_buf_add(list, &u, sizeof u);
            }
        }
    }
    mm_buf_check(list, err, "what is pending");
}

/* Of what the copy has accepted the rows in tables that stay out are in no log and no copy. */
static void keep_own(struct mm_repl *r, const struct mm_buf *list, struct mm_err *err)
{
    struct undone u;
    size_t still = 0; /* place in what is pending; both ascend */
    int shard = -1;
    for (size_t at = 0; at < list->len && err->rc == SQLITE_OK; at += sizeof u) {
        memcpy(&u, list->data + at, sizeof u);
        struct mm_pending *p = r->shard[u.shard].pending;
        still = u.shard == shard ? still : 0;
        shard = u.shard;
        while (still < mm_pending_count(p) && mm_pending_at(p, still)->id < u.id) {
            still++;
        }
        if (still == mm_pending_count(p) || mm_pending_at(p, still)->id != u.id) {
            mm_pending_stay(p, u.id, false, err);
        }
    }
}

static void replace_all(struct mm_repl *r, const struct mm_install *in, int64_t *given_up, struct mm_err *err)
{
    struct mm_buf undone;
    mm_buf_init(&undone, 1 << 30);
    mm_repl_read_outbox(r, err);
    for (int k = 0; k < in->diff->n && err->rc == SQLITE_OK; k++) {
        if (merges(r, in, &in->diff->table[k], err)) {
            set_aside(r, &in->diff->table[k], k, err);
        }
    }
    if (!in->positions) {
        note_undone(r, &undone, err);
    }
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK && !in->positions; k++) {
        mm_pending_undo(r->shard[k].pending, 0, err);
    }
    bool schema_moved =
        in->diff->schema != 0 && mm_db_int(r->db, err, 0, "PRAGMA main.schema_version") != in->diff->schema;
    for (int k = 0; k < in->diff->n && err->rc == SQLITE_OK; k++) {
        one_table(r, in, k, schema_moved, err);
        in->work->done = k + 1;
    }
    if (in->take == NULL) {
        replace_state(r, in, err);
    }
    mm_repl_reload(r, err);
    if (!in->give_up) {
        keep_own(r, &undone, err);
    }
    mm_buf_free(&undone);
    *given_up = in->give_up ? give_up(r, in->upto, err) : 0;
    if (in->merge && in->fresh) {
        mm_watch_again(r->db, err);
        mm_targets_forget(r->targets);
    }
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK && !in->positions; k++) {
        mm_pending_all_undone(r->shard[k].pending);
        mm_pending_redo(r->shard[k].pending, err);
    }
    struct mm_late late;
    mm_late_init(&late, r->db);
    for (int k = 0; k < in->diff->n && err->rc == SQLITE_OK; k++) {
        if (merges(r, in, &in->diff->table[k], err)) {
            bring_back(r, &in->diff->table[k], k, &late, err);
        }
    }
    mm_late_put(&late, err);
    mm_late_free(&late);
    mm_partition_settle(r, err);
    mm_repl_read_outbox(r, err);
    mm_commit_echoed(r, mm_repl_echoed(r), err); /* nothing of it may be folded any more, which would write it */
    r->rekey_due = false;
}

static void transaction(struct mm_repl *r, const struct mm_install *in, int64_t *given_up, struct mm_err *err)
{
    sqlite3_busy_timeout(r->db, BUSY_MS);
    mm_work_step(in->work, "waiting for a writer of the database", 0);
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    sqlite3_busy_timeout(r->db, MM_BUSY_MS);
    if (err->rc != SQLITE_OK) {
        return;
    }
    int64_t began = mm_clock_mono_ms();
    mm_work_step(in->work, "writing the cluster's content", in->diff->n);
    mm_work_watch(in->work, r->db); /* the gate is let go now and then */
    r->reload_needed = true;        /* until all of it is done */
    mm_targets_forget(r->targets);
    replace_all(r, in, given_up, err);
    mm_work_unwatch(r->db);
    mm_stray_end(r->db, err);
    r->reload_needed = err->rc != SQLITE_OK;
    mm_targets_forget(r->targets);
    int64_t took = mm_clock_mono_ms() - began;
    if (took > MM_INSTALL_LONG_MS) {
        mm_log(MM_LOG_WARN, "writing the cluster's content held the database's write lock for %lld ms",
               (long long)took);
    }
}

int mm_install_run(struct mm_repl *r, const struct mm_install *in, int64_t *given_up, struct mm_err *err)
{
    *given_up = 0;
    mm_db_exec(r->db, err, "ATTACH %Q AS copy; PRAGMA copy.journal_mode = MEMORY; PRAGMA copy.synchronous = OFF",
               in->copy);
    if (err->rc != SQLITE_OK) {
        sqlite3_exec(r->db, "DETACH copy", NULL, NULL, NULL);
        return err->rc;
    }
    sqlite3_wal_autocheckpoint(r->db, 0); /* it would be part of COMMIT */
    transaction(r, in, given_up, err);
    struct mm_err none;
    mm_err_init(&none);
    mm_db_exec(r->db, &none, "DETACH copy");
    sqlite3_wal_autocheckpoint(r->db, CHECKPOINT_PAGES);
    if (err->rc == SQLITE_OK) { /* writers go on meanwhile, and the next one's COMMIT is spared it */
        mm_work_step(in->work, "moving the content from the write-ahead log into the file", 0);
        sqlite3_wal_checkpoint_v2(r->db, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    }
    return err->rc;
}
