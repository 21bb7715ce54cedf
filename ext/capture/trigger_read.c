/* From the log that triggers wrote to changes: keys that were touched, and the
** rows as they are now. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "base/log.h"
#include "capture/hook_int.h"
#include "capture/trigger_int.h"
#include "store/outbox.h"
#include "store/stray.h"

enum { ROW_MAX = 1 << 30, REGROUP_AT = 16 << 10 };

static void put_group(struct mm_take *x, const struct mm_source *s)
{
    if (x->group == s) {
        return;
    }
    x->group = s;
    mm_change_put_table(&x->data->tail, s->t->name, (uint32_t)s->t->ncol, s->pk);
    mm_buf_add(&x->names->tail, s->t->name, strlen(s->t->name) + 1);
    for (int k = 0; k < s->t->ncol; k++) {
        mm_buf_add(&x->names->tail, s->t->col[k].name, strlen(s->t->col[k].name) + 1);
    }
}

void mm_take_put(struct mm_take *x, const struct mm_source *s, enum mm_op op, const struct mm_value *old,
                 const struct mm_value *new)
{
    struct mm_buf *b = &x->data->tail;
    put_group(x, s);
    mm_change_put_head(b, op);
    for (int k = 0; old != NULL && k < s->t->ncol; k++) {
        mm_value_encode(b, &old[k]);
    }
    for (int k = 0; new != NULL &&k < s->t->ncol; k++) {
        mm_value_encode(b, &new[k]);
    }
    mm_buf_check(b, x->err, "the changes of triggers");
    mm_buf_check(&x->names->tail, x->err, "the changes of triggers");
    mm_spill_settle(x->data);
    mm_spill_settle(x->names);
}

struct mm_value *mm_take_now(struct mm_take *x, const struct mm_source *s)
{
    struct mm_value *row = mm_arena_array(&x->arena, (size_t)s->t->ncol, sizeof *row);
    if (row == NULL) {
        mm_err_nomem(x->err);
        return NULL;
    }
    int found = mm_db_step(s->now, x->err);
    for (int k = 0; found && k < s->t->ncol; k++) {
        struct mm_value v;
        if (!mm_value_column(&v, s->now, k) || !mm_value_copy(&x->arena, &row[k], &v)) {
            mm_err_nomem(x->err);
        }
    }
    sqlite3_reset(s->now);
    return found && x->err->rc == SQLITE_OK ? row : NULL;
}

/* The row of that key (in the key's order) as it is; NULL when there is none. */
static struct mm_value *row_now(struct mm_take *x, const struct mm_source *s, const struct mm_value *key)
{
    for (int k = 0; k < s->nkey; k++) {
        if (mm_value_bind(s->now, k + 1, &key[k]) != SQLITE_OK) {
            mm_err_nomem(x->err);
        }
    }
    return mm_take_now(x, s);
}

/* A row came to a key where, as far as is known, none stood. When it has gone
** again, the pair says that none did. */
static void take_touch(struct mm_take *x, const struct mm_source *s, const struct mm_value *key)
{
    struct mm_value *row = row_now(x, s, key);
    bool there = row != NULL;
    if (!there && x->err->rc == SQLITE_OK) {
        row = mm_arena_array(&x->arena, (size_t)s->t->ncol, sizeof *row);
        for (int k = 0; row != NULL && k < s->t->ncol; k++) {
            row[k].type = SQLITE_NULL;
        }
        for (int k = 0; row != NULL && k < s->nkey; k++) {
            row[s->place[k]] = key[k];
        }
        if (row == NULL) {
            mm_err_nomem(x->err);
        }
    }
    if (x->err->rc == SQLITE_OK) {
        mm_take_put(x, s, MM_OP_INSERT, NULL, row);
        if (!there) {
            mm_take_put(x, s, MM_OP_DELETE, row, NULL);
        }
    }
}

/* Where a key says NULL the row got the column's default (OR REPLACE, which decides
** after the trigger), or stayed as it was: no row of such a table has NULL there. */
static void take_move(struct mm_take *x, const struct mm_source *s, const struct mm_value *from,
                      const struct mm_value *to)
{
    struct mm_value *key = mm_arena_array(&x->arena, (size_t)s->nkey, sizeof *key);
    if (key == NULL) {
        mm_err_nomem(x->err);
        return;
    }
    bool moved = false;
    for (int k = 0; k < s->nkey; k++) {
        key[k] = to[k].type == SQLITE_NULL ? s->fill[s->place[k]] : to[k];
        if (key[k].type == SQLITE_NULL) {
            return;
        }
        moved = moved || !mm_value_same(&from[k], &key[k]);
    }
    if (moved) {
        take_touch(x, s, key);
    }
}

static void take_image(struct mm_take *x, const struct mm_source *s, const struct mm_log_entry *e)
{
    struct mm_value *old = mm_arena_array(&x->arena, (size_t)s->t->ncol, sizeof *old);
    struct mm_value *key = mm_arena_array(&x->arena, (size_t)s->nkey, sizeof *key);
    if (old == NULL || key == NULL) {
        mm_err_nomem(x->err);
        return;
    }
    if (x->stopped && e->n < s->nimage + (e->kind == MM_LOG_MOVE ? s->nkey : 0)) {
        return;
    }
    for (int k = 0; k < s->nkey; k++) {
        int at = s->from[s->place[k]];
        if (at < 0 || at >= e->n) {
            x->lost = true; /* another table under the name */
            return;
        }
        key[k] = e->v[at];
    }
    struct mm_value *now = row_now(x, s, key);
    for (int k = 0; k < s->t->ncol; k++) {
        if (s->from[k] < 0) {
            old[k] = s->fill[k]; /* a column younger than the trigger: what now[k] is may be what has changed */
        } else if (s->from[k] < e->n) {
            old[k] = e->v[s->from[k]];
        } else if (now != NULL) {
            old[k] = now[k];
        } else {
            old[k].type = SQLITE_NULL;
        }
    }
    if (x->err->rc == SQLITE_OK) {
        mm_take_put(x, s, now != NULL ? MM_OP_UPDATE : MM_OP_DELETE, old, now);
    }
    if (e->kind == MM_LOG_MOVE && s->nimage + s->nkey <= e->n && x->err->rc == SQLITE_OK) {
        take_move(x, s, key, &e->v[s->nimage]);
    }
}

static void take_entry(struct mm_take *x, const struct mm_log_entry *e)
{
    const struct mm_source *s = mm_source_of(x, e->source);
    bool by_rowid = e->kind > MM_LOG_MORE;
    if (s == NULL || s->t == NULL) {
        return;
    }
    if (by_rowid != s->by_rowid) {
        x->lost = true; /* a table of another kind under the name */
    } else if (by_rowid) {
        mm_take_row(x, s, e);
    } else if (e->kind == MM_LOG_TOUCH) {
        if (e->n >= s->nkey) {
            take_touch(x, s, e->v);
        }
    } else {
        take_image(x, s, e);
    }
}

static int take_all(struct mm_take *x)
{
    struct mm_log_reader *r = mm_log_open(x->db, x->err);
    struct mm_log_entry e;
    mm_arena_init(&x->arena, ROW_MAX);
    x->stopped = mm_log_stopped(x->db, x->err);
    while (r != NULL && mm_log_next(r, &e, x->err)) {
        take_entry(x, &e);
        mm_arena_free(&x->arena);
    }
    mm_log_close(r);
    mm_take_rows_end(x);
    mm_source_free_all(x);
    if (x->lost && x->err->rc == SQLITE_OK) {
        mm_log(MM_LOG_WARN, "changes noted by triggers of a table that is gone or no longer watched are left out");
    }
    if (x->moved && x->err->rc == SQLITE_OK) {
        mm_log(MM_LOG_WARN,
               "rows of a table without a key were written after ALTER TABLE ADD COLUMN and moved before a "
               "node ran: what they hold in the new column may be missing; marmot_reconcile() sends it");
    }
    if (x->stopped) {
        mm_stray_stopped(x->db, x->err);
    }
    return mm_log_clear(x->db, x->err);
}

int mm_trigger_take(sqlite3 *db, struct mm_spill *data, struct mm_spill *names, struct mm_err *err)
{
    struct mm_take x;
    memset(&x, 0, sizeof x);
    x.db = db;
    x.err = err;
    x.data = data;
    x.names = names;
    return take_all(&x);
}

static void put_outbox(sqlite3 *db, struct mm_spill *data, struct mm_spill *names, const uint8_t *txid,
                       struct mm_err *err)
{
    const uint8_t *d = mm_spill_bytes(data, err);
    const uint8_t *n = mm_spill_bytes(names, err);
    if (err->rc == SQLITE_OK && d != NULL && n != NULL) {
        mm_outbox_put_txn(db, n, (size_t)mm_spill_len(names), d, (size_t)mm_spill_len(data), txid, err);
    }
}

int mm_trigger_move(sqlite3 *db, bool *moved, struct mm_err *err)
{
    bool any = mm_log_any(db, err);
    if (moved != NULL) {
        *moved = any;
    }
    if (!any || err->rc != SQLITE_OK) {
        return err->rc;
    }
    struct mm_spill data;
    struct mm_spill names;
    struct mm_spill by_table;
    struct mm_spill by_table_names;
    mm_spill_init(&data);
    mm_spill_init(&names);
    mm_spill_init(&by_table);
    mm_spill_init(&by_table_names);
    uint8_t id[MM_TXID_SIZE];
    const uint8_t *txid = mm_log_txid(db, id, sizeof id, err) ? id : NULL;
    mm_trigger_take(db, &data, &names, err);
    if (err->rc == SQLITE_OK && mm_spill_len(&names) >= REGROUP_AT) {
        const uint8_t *d = mm_spill_bytes(&data, err);
        const uint8_t *n = mm_spill_bytes(&names, err);
        if (err->rc == SQLITE_OK && mm_hook_regroup(d, mm_spill_len(&data), n, mm_spill_len(&names), &by_table,
                                                    &by_table_names, err) == SQLITE_OK) {
            put_outbox(db, &by_table, &by_table_names, txid, err);
        }
    } else if (err->rc == SQLITE_OK) {
        put_outbox(db, &data, &names, txid, err);
    }
    mm_spill_free(&data);
    mm_spill_free(&names);
    mm_spill_free(&by_table);
    mm_spill_free(&by_table_names);
    mm_err_prefix(err, "moving what triggers noted to the outbox");
    return err->rc;
}
