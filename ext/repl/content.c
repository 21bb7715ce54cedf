/* Content sums of tables: what two nodes compare before one joins the other. */
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "repl/join.h"

#define SCRATCH_MAX ((size_t)1 << 30)

/* Adds (sign 1) or takes out (-1) one row given in a message's columns. */
static int add_row(uint8_t sum[16], const struct mm_tab *tab, const struct mm_value *row, int sign, struct mm_err *err)
{
    return row != NULL ? mm_wire_sum_row(sum, tab->col, row, tab->ncol, sign, err) : err->rc;
}

/* Pending transactions, undone by arithmetic: minus what they made, plus what
** they found. */
static int take_out_pending(struct mm_repl *r, struct mm_target *t, struct mm_msg_table *out, struct mm_err *err)
{
    struct mm_pending *p = r->shard[t->shard - 1].pending;
    for (size_t k = 0; k < mm_pending_count(p) && err->rc == SQLITE_OK; k++) {
        struct mm_pend *e = mm_pending_at(p, k);
        if (e->kind != MM_OUTBOX_TXN) {
            continue;
        }
        struct mm_arena a;
        struct mm_buf names;
        struct mm_buf data;
        mm_arena_init(&a, SCRATCH_MAX);
        mm_buf_init(&names, SCRATCH_MAX);
        mm_buf_init(&data, SCRATCH_MAX);
        struct mm_txn txn = { .arena = &a };
        mm_pending_read(p, e, &txn, &names, &data, err);
        for (size_t i = 0; i < txn.ntab && err->rc == SQLITE_OK; i++) {
            const struct mm_tab *tab = &txn.tab[i];
            for (size_t j = 0; j < tab->nrow && sqlite3_stricmp(tab->name, t->name) == 0; j++) {
                add_row(out->content, tab, tab->row[j].after, -1, err);
                add_row(out->content, tab, tab->row[j].before, 1, err);
                out->rows += (tab->row[j].before != NULL) - (tab->row[j].after != NULL);
            }
        }
        mm_arena_free(&a);
        mm_buf_free(&names);
        mm_buf_free(&data);
    }
    return err->rc;
}

static int scan(struct mm_repl *r, struct mm_target *t, struct mm_msg_table *out, struct mm_err *err)
{
    size_t ncol = (size_t)t->def->ncol;
    const char **names = calloc(ncol, sizeof *names);
    struct mm_value *row = calloc(ncol, sizeof *row);
    if (names == NULL || row == NULL) {
        free(names);
        free(row);
        return mm_err_nomem(err);
    }
    sqlite3_stmt *st = mm_target_scan(t, r->db, err);
    for (size_t k = 0; k < ncol; k++) {
        names[k] = t->def->col[k].name;
    }
    while (mm_db_step(st, err)) {
        for (size_t k = 0; k < ncol; k++) {
            if (!mm_value_column(&row[k], st, (int)k)) {
                mm_err_nomem(err);
            }
        }
        mm_wire_sum_row(out->content, names, row, ncol, 1, err);
        out->rows++;
    }
    mm_db_finalize(st);
    free(names);
    free(row);
    return err->rc;
}

int mm_join_base(struct mm_repl *r, struct mm_target *t, struct mm_msg_table *out, struct mm_err *err)
{
    memset(out, 0, sizeof *out);
    out->name = t->name;
    out->schema_hash = mm_table_hash(t->def);
    bool own = sqlite3_get_autocommit(r->db) != 0;
    if (own) { /* table and pending must be of one moment */
        mm_db_exec(r->db, err, "BEGIN");
    }
    mm_repl_read_outbox(r, err);
    scan(r, t, out, err);
    take_out_pending(r, t, out, err);
    if (own && !sqlite3_get_autocommit(r->db)) {
        struct mm_err end;
        mm_err_init(&end);
        mm_db_exec(r->db, &end, "COMMIT");
    }
    return err->rc;
}
