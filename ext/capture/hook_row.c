#include <stdlib.h>
#include <string.h>

#include "capture/hook_int.h"
#include "store/change.h"

enum { FIX_ARENA_MAX = 1 << 30 };

static bool ours_or_sqlites(const char *table)
{
    return (table[0] == '_' || table[0] == 's' || table[0] == 'S') && mm_table_internal(table);
}

/* Room for two rows; false when there is none. */
static bool rows_fit(struct mm_hook *h, size_t ncol, struct mm_err *err)
{
    if (ncol > h->row_cap) {
        struct mm_value *p = realloc(h->row, 2 * ncol * sizeof *p);
        if (p == NULL) {
            mm_err_nomem(err);
            return false;
        }
        h->row = p;
        h->row_cap = ncol;
    }
    return true;
}

typedef int preupdate_get(sqlite3 *db, int column, sqlite3_value **value);

static void get_row(struct mm_hook *h, const struct mm_table *t, preupdate_get *get, struct mm_value *row,
                    struct mm_err *err)
{
    for (int k = 0; k < t->ncol && err->rc == SQLITE_OK; k++) {
        sqlite3_value *v = NULL;
        int rc = get(h->db, t->stored[k], &v);
        if (rc != SQLITE_OK || v == NULL) {
            mm_err_set(err, rc != SQLITE_OK ? rc : SQLITE_NOMEM, "reading column %.80s of table %.80s", t->col[k].name,
                       t->name);
        } else if (!mm_value_from(&row[k], v)) {
            mm_err_nomem(err);
        } else if (t->col[k].affinity == MM_AFF_REAL && row[k].type == SQLITE_INTEGER) {
            row[k].type = SQLITE_FLOAT; /* whole REALs are stored, and given by SQLite 3.40, as INTEGER */
            row[k].u.r = (double)row[k].u.i;
        }
    }
}

/* SQLite 3.40 says NULL for the default of a column younger than the row, and
** where columns are stored in another order it makes REALs of the wrong ones. */
static bool doubtful(const struct mm_table *t, int col, const struct mm_value *v)
{
    return (v->type == SQLITE_NULL && t->col[col].has_default) || (v->type == SQLITE_FLOAT && t->col[col].mistaken);
}

/* The row itself is still there to ask. */
static void fix_doubtful(struct mm_hook *h, const struct mm_table *t, struct mm_value *row, sqlite3_int64 rowid,
                         struct mm_arena *a, struct mm_err *err)
{
    bool doubt = false;
    for (int k = 0; k < t->ncol; k++) {
        doubt = doubt || doubtful(t, k, &row[k]);
    }
    if (!doubt || err->rc != SQLITE_OK) {
        return;
    }
    struct mm_value *real = mm_arena_array(a, (size_t)t->ncol, sizeof *real);
    if (real == NULL) {
        mm_err_nomem(err);
        return;
    }
    if (mm_row_read(h->db, t, row, &rowid, real, a, err)) {
        for (int k = 0; k < t->ncol; k++) {
            if (doubtful(t, k, &row[k])) {
                row[k] = real[k];
            }
        }
    }
}

void mm_row_group(struct mm_hook *h, struct mm_entry *e)
{
    if (!e->touched) {
        e->touched = true;
        e->first = h->now.data;
    }
    if (h->now.last == e) {
        return;
    }
    const struct mm_table *t = e->t;
    struct mm_buf *names = &h->names.tail;
    mm_change_put_table(&h->data.tail, t->name, (uint32_t)t->ncol, e->pk);
    mm_buf_add(names, t->name, strlen(t->name) + 1);
    for (int k = 0; k < t->ncol; k++) {
        mm_buf_add(names, t->col[k].name, strlen(t->col[k].name) + 1);
    }
    h->now.last = e;
}

static void put_values(struct mm_buf *b, const struct mm_value *row, int ncol)
{
    for (int k = 0; k < ncol; k++) {
        mm_value_encode(b, &row[k]);
    }
}

/* New values that are the old ones are left undefined. False: nothing changed. */
static bool keep_changes(struct mm_value *new, const struct mm_value *old, int ncol)
{
    bool changed = false;
    for (int k = 0; k < ncol; k++) {
        if (mm_value_same(&old[k], &new[k])) {
            new[k].type = MM_UNDEF;
        } else {
            changed = true;
        }
    }
    return changed;
}

static void mark_blob(struct mm_hook *h, struct mm_entry *e, uint64_t at, struct mm_err *err)
{
    if (h->now.nblob == h->blob_cap) {
        size_t cap = h->blob_cap == 0 ? 8 : h->blob_cap * 2;
        struct mm_blob_mark *p = realloc(h->blob, cap * sizeof *p);
        if (p == NULL) {
            mm_err_nomem(err);
            return;
        }
        h->blob = p;
        h->blob_cap = cap;
    }
    h->blob[h->now.nblob].entry = e;
    h->blob[h->now.nblob++].at = at;
}

static void put_record(struct mm_hook *h, struct mm_entry *e, enum mm_op op, sqlite3_int64 rowid,
                       const struct mm_value *old, const struct mm_value *new, bool blob, struct mm_err *err)
{
    struct mm_buf *b = &h->data.tail;
    const struct mm_mark before = h->now;
    mm_row_group(h, e);
    uint64_t at = mm_spill_len(&h->data);
    mm_change_put_head(b, op);
    if (op != MM_OP_INSERT) {
        put_values(b, old, e->t->ncol);
    }
    if (op != MM_OP_DELETE) {
        put_values(b, new, e->t->ncol);
    }
    if (mm_buf_check(b, err, "the captured transaction") != SQLITE_OK ||
        mm_buf_check(&h->names.tail, err, "the captured transaction") != SQLITE_OK) {
        mm_hook_cut(h, &before);
        return;
    }
    mm_spill_settle(&h->data);
    mm_spill_settle(&h->names);
    h->now.data = mm_spill_len(&h->data);
    h->now.names = mm_spill_len(&h->names);
    h->now.inserts += op == MM_OP_INSERT;
    h->now.deletes += op == MM_OP_DELETE;
    if (blob) {
        mark_blob(h, e, at, err);
    } else if (op == MM_OP_DELETE && mm_doubt_due(h, e)) {
        mm_doubt_keep(h, e, rowid, &before);
    }
}

static void capture(struct mm_hook *h, struct mm_entry *e, int op, sqlite3_int64 rowid, struct mm_err *err)
{
    const struct mm_table *t = e->t;
    if (!rows_fit(h, (size_t)t->ncol, err)) {
        return;
    }
    struct mm_value *old = h->row;
    struct mm_value *new = h->row + t->ncol;
    bool blob = op == SQLITE_DELETE && h->host->preupdate_blobwrite(h->db) >= 0;
    struct mm_arena a;
    mm_arena_init(&a, FIX_ARENA_MAX);
    if (op != SQLITE_INSERT) {
        get_row(h, t, h->host->preupdate_old, old, err);
        fix_doubtful(h, t, old, rowid, &a, err);
    }
    if (op != SQLITE_DELETE) {
        get_row(h, t, h->host->preupdate_new, new, err);
    }
    if (blob) {
        memset(new, 0, (size_t)t->ncol * sizeof *new); /* filled in at the commit */
        op = SQLITE_UPDATE;
    }
    if (err->rc == SQLITE_OK && (op != SQLITE_UPDATE || blob || keep_changes(new, old, t->ncol))) {
        enum mm_op kind = op == SQLITE_INSERT ? MM_OP_INSERT : op == SQLITE_DELETE ? MM_OP_DELETE : MM_OP_UPDATE;
        put_record(h, e, kind, rowid, old, new, blob, err);
    }
    mm_arena_free(&a);
}

/* A guard has asked, was left alone with its row, and notes it with the rows
** that it evicts, which come first. So may a row of another table. */
static bool noted_by_guard(struct mm_hook *h, const char *table, int op)
{
    bool noted = h->left_to_guard != NULL && strcmp(h->left_to_guard, table) == 0;
    if (noted && op != SQLITE_DELETE) {
        sqlite3_free(h->left_to_guard);
        h->left_to_guard = NULL;
    }
    return noted;
}

void mm_hook_row(void *arg, sqlite3 *db, int op, const char *schema, const char *table, sqlite3_int64 old_rowid,
                 sqlite3_int64 new_rowid)
{
    struct mm_hook *h = arg;
    if (h->doubt.entry != NULL) {
        mm_doubt_next(h, op, schema, table, new_rowid);
    }
    if (!h->on || strcmp(schema, "main") != 0) {
        return;
    }
    if (ours_or_sqlites(table)) {
        h->touched = true;
        return;
    }
    if (!h->entered && (noted_by_guard(h, table, op) || !mm_hook_join(h, table))) {
        return;
    }
    if (h->skip || h->failed.rc != SQLITE_OK) {
        return;
    }
    if (h->stale) {
        mm_cache_forget(h);
        mm_hook_head(h, &h->failed);
    }
    int nstored = h->host->preupdate_count(db);
    struct mm_entry *e = h->recent;
    if (e == NULL || strcmp(e->name, table) != 0 || (e->capture && e->t->nstored != nstored)) {
        e = h->failed.rc == SQLITE_OK ? mm_cache_get(h, table, nstored, &h->failed) : NULL;
    }
    if (e != NULL && e->capture && e->t->nstored != nstored) {
        mm_err_set(&h->failed, SQLITE_SCHEMA, "table %.80s has %d stored columns where its definition has %d", table,
                   nstored, e->t->nstored);
    }
    if (e != NULL && e->capture && h->failed.rc == SQLITE_OK) {
        capture(h, e, op, old_rowid, &h->failed);
    }
}
