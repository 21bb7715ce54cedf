/* What the application sees against the copy on which all that is pending was
** done: what differs was written past the capture. */
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "repl/multiset.h"
#include "snapshot/diff_int.h"
#include "wire/wire.h"

struct sides {
    struct mm_diff_side *c;
    struct mm_target *there; /* of the copy */
    struct mm_value *a, *b;
    sqlite3_stmt *put_row;
};

static bool go_on(struct sides *s, struct mm_err *err)
{
    s->c->work->done++;
    return mm_work_go_on(s->c->work, err);
}

/* Key by key where the order of both sides does not help: rows without identity are left out. */
static void look_up(struct sides *s, struct mm_err *err)
{
    struct mm_diff_side *c = s->c;
    sqlite3_stmt *st = mm_target_scan(c->t, c->live->db, err);
    while (mm_diff_next(c->def, st, s->a, err) && go_on(s, err)) {
        if (!mm_diff_null_key(c, s->a)) {
            bool there = mm_target_read_like(s->there, c->t, c->s->r.db, s->a, s->b, err) != 0;
            if (err->rc == SQLITE_OK && (!there || !mm_diff_same(c->def, s->a, s->b))) {
                mm_diff_note(c, s->a, true, there, err);
            }
            mm_target_done(s->there);
        }
    }
    mm_db_finalize(st);
    st = mm_target_scan(c->t, c->s->r.db, err);
    while (mm_diff_next(c->def, st, s->b, err) && go_on(s, err)) {
        if (!mm_diff_null_key(c, s->b)) {
            if (!mm_target_read(c->t, c->live->db, s->b, s->a, err) && err->rc == SQLITE_OK) {
                mm_diff_note(c, s->b, false, true, err);
            }
            mm_target_done(c->t);
        }
    }
    mm_db_finalize(st);
}

static void sum(struct sides *s, sqlite3 *db, struct mm_msg_table *out, struct mm_err *err)
{
    size_t ncol = (size_t)s->c->def->ncol;
    const char **name = calloc(ncol, sizeof *name);
    sqlite3_stmt *st = mm_target_scan(s->c->t, db, err);
    memset(out, 0, sizeof *out);
    if (name == NULL) {
        mm_err_nomem(err);
    }
    for (size_t k = 0; name != NULL && k < ncol; k++) {
        name[k] = s->c->def->col[k].name;
    }
    while (name != NULL && mm_diff_next(s->c->def, st, s->a, err) && go_on(s, err)) {
        mm_wire_sum_row(out->content, name, s->a, ncol, 1, err);
        out->rows++;
    }
    mm_db_finalize(st);
    free(name);
}

static bool equal_sums(struct sides *s, struct mm_err *err)
{
    struct mm_msg_table here;
    struct mm_msg_table there;
    sum(s, s->c->live->db, &here, err);
    sum(s, s->c->s->r.db, &there, err);
    return err->rc == SQLITE_OK && here.rows == there.rows &&
           memcmp(here.content, there.content, sizeof here.content) == 0;
}

static void open_rows(struct sides *s, int number, struct mm_err *err)
{
    struct mm_buf names;
    struct mm_buf marks;
    mm_buf_init(&names, 1 << 20);
    mm_buf_init(&marks, 1 << 20);
    for (int k = 0; k < s->c->def->ncol; k++) {
        mm_buf_printf(&names, ", c%d", k);
        mm_buf_printf(&marks, ", ?%d", k + 2);
    }
    mm_buf_byte(&names, 0);
    mm_buf_byte(&marks, 0);
    mm_buf_check(&names, err, "a statement");
    if (mm_buf_check(&marks, err, "a statement") == SQLITE_OK) {
        sqlite3 *db = s->c->s->r.db;
        mm_db_exec(db, err, "CREATE TABLE main.__marmot__rows_%d(r%s)", number, (const char *)names.data);
        s->put_row = mm_db_prepare(db, err, 0, "INSERT INTO main.__marmot__rows_%d VALUES (?1%s)", number,
                                   (const char *)marks.data);
    }
    mm_buf_free(&names);
    mm_buf_free(&marks);
}

static void note_row(struct sides *s, const struct mm_value *row, const int64_t *rowid, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return;
    }
    sqlite3_clear_bindings(s->put_row);
    if (rowid != NULL) {
        sqlite3_bind_int64(s->put_row, 1, *rowid);
    }
    for (int k = 0; k < s->c->def->ncol; k++) {
        if (mm_value_bind(s->put_row, k + 2, &row[k]) != SQLITE_OK) {
            mm_db_fail(s->c->s->r.db, err, "binding a row");
        }
    }
    mm_db_run(s->put_row, err);
    s->c->out->here += rowid != NULL;
    s->c->out->there += rowid == NULL;
}

/* Rows without identity: of each as many as one side has more. */
static void count(struct sides *s, int number, struct mm_err *err)
{
    struct mm_diff_side *c = s->c;
    struct mm_multiset here = { 0 };
    int ncol = c->def->ncol;
    open_rows(s, number, err);
    sqlite3_stmt *st = mm_target_scan(c->t, c->live->db, err);
    while (mm_diff_next(c->def, st, s->a, err) && go_on(s, err)) {
        if (c->nkey == 0 || mm_diff_null_key(c, s->a)) {
            mm_multiset_add(&here, s->a, ncol, err);
        }
    }
    mm_db_finalize(st);
    st = mm_target_scan(c->t, c->s->r.db, err);
    while (mm_diff_next(c->def, st, s->b, err) && go_on(s, err)) {
        if ((c->nkey == 0 || mm_diff_null_key(c, s->b)) && !mm_multiset_take(&here, s->b, ncol, err)) {
            note_row(s, s->b, NULL, err);
        }
    }
    mm_db_finalize(st);
    st = here.rows > 0 ? mm_target_scan_rowids(c->t, c->live->db, err) : NULL;
    while (st != NULL && mm_db_step(st, err) && go_on(s, err)) {
        int64_t rowid = sqlite3_column_int64(st, 0);
        for (int k = 0; k < ncol; k++) {
            if (!mm_value_column(&s->a[k], st, k + 1)) {
                mm_err_nomem(err);
            }
        }
        if ((c->nkey == 0 || mm_diff_null_key(c, s->a)) && mm_multiset_take(&here, s->a, ncol, err)) {
            note_row(s, s->a, &rowid, err);
        }
    }
    mm_db_finalize(st);
    mm_db_finalize(s->put_row);
    mm_multiset_free(&here);
}

int mm_diff_visible(struct mm_diff_side *c, int number, struct mm_err *err)
{
    struct mm_value *rows = calloc(2 * (size_t)c->def->ncol, sizeof *rows);
    struct sides s = { .c = c, .a = rows, .b = rows + c->def->ncol };
    s.there = mm_targets_get(c->s->r.targets, c->def->name, err);
    if (rows == NULL) {
        mm_err_nomem(err);
    }
    if (s.there == NULL || rows == NULL) {
        free(rows);
        return err->rc;
    }
    bool keyed = c->nkey > 0;
    bool wide = keyed && mm_diff_wide(c, err);
    c->out->mode = MM_DIFF_KEYS;
    if (keyed) {
        mm_diff_open_put(c, number, err);
    }
    if (keyed && !wide) {
        mm_diff_merge(c, s.a, s.b, err);
    }
    if (wide || c->out->mode == MM_DIFF_ALL) { /* or there is a NULL among the keys */
        mm_db_exec(c->s->r.db, err, "DELETE FROM main.__marmot__diff_%d", number);
        c->out->here = c->out->there = c->out->both = 0;
        look_up(&s, err);
        count(&s, number, err);
    } else if (!keyed && !equal_sums(&s, err)) {
        count(&s, number, err);
    }
    bool any = c->out->here + c->out->there + c->out->both > 0;
    c->out->mode = any ? MM_DIFF_KEYS : MM_DIFF_SAME;
    free(rows);
    return err->rc;
}
