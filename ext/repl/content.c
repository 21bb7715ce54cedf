/* Content sums of tables: what two nodes compare before one joins the other. */
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/seen.h"
#include "repl/join.h"
#include "store/log.h"

struct taking {
    struct mm_repl *r;
    struct mm_target *t;
    struct mm_msg_table *out;
    struct mm_seen
        seen; /* keys that a pending transaction was met for: the oldest one's before-image is the base's row */
    const char **names;     /* of the local columns */
    struct mm_value *local; /* def->ncol */
    struct mm_value *whole; /* another of these */
    uint8_t *coll;          /* of the message's columns */
    struct mm_buf key;
};

static uint64_t hash(const struct mm_buf *b)
{
    uint8_t sha[32];
    uint64_t h;
    mm_wire_sha256(b->data, b->len, sha);
    memcpy(&h, sha, sizeof h);
    return h;
}

/* A row from before a column counts as it stands in the table, with the default there. */
static void add_row(struct taking *k, const struct mm_tab *tab, const struct mm_value *row, int sign,
                    struct mm_err *err)
{
    int ncol = k->t->def->ncol;
    const struct mm_value *fill = row != NULL ? mm_target_fill(k->t, k->r->db, err) : NULL;
    if (fill == NULL) {
        return;
    }
    memcpy(k->whole, fill, (size_t)ncol * sizeof *fill);
    for (uint32_t c = 0; c < tab->ncol; c++) {
        int at = mm_target_column(k->t, tab->col[c]);
        if (at >= 0) {
            k->whole[at] = row[c];
        }
    }
    for (int c = 0; c < ncol; c++) {
        k->whole[c].type = k->whole[c].type == MM_UNDEF ? SQLITE_NULL : k->whole[c].type;
    }
    mm_wire_sum_row(k->out->content, k->names, k->whole, (size_t)ncol, sign, err);
    k->out->rows += sign;
}

/* The row under the key as it is visible now leaves the sum. */
static void take_visible(struct taking *k, const struct mm_tab *tab, const struct mm_value *key, struct mm_err *err)
{
    size_t ncol = (size_t)k->t->def->ncol;
    memset(k->local, 0, ncol * sizeof *k->local);
    for (uint32_t c = 0; c < tab->ncol; c++) {
        int at = mm_target_column(k->t, tab->col[c]);
        if (at >= 0) {
            k->local[at] = key[c];
        }
    }
    if (mm_target_read(k->t, k->r->db, k->local, k->local, err)) {
        mm_wire_sum_row(k->out->content, k->names, k->local, ncol, -1, err);
        k->out->rows--;
    }
    mm_target_done(k->t);
}

static void take_row(struct taking *k, const struct mm_tab *tab, const struct mm_row *image, struct mm_err *err)
{
    const struct mm_value *key = image->op == MM_OP_INSERT ? image->after : image->before;
    mm_buf_clear(&k->key);
    bool identity = mm_change_key(&k->key, tab, key, k->coll);
    if (mm_buf_check(&k->key, err, "a key") != SQLITE_OK) {
        return;
    }
    if (!identity) { /* a multiset: every change counts for itself */
        add_row(k, tab, image->before, -1, err);
        add_row(k, tab, image->after, 1, err);
    } else if (mm_seen_add(&k->seen, hash(&k->key), err)) {
        take_visible(k, tab, key, err);
        add_row(k, tab, image->op == MM_OP_INSERT ? image->after : NULL, 1, err);
    }
}

/* Pending transactions, undone by arithmetic: for each of their rows minus what
** is there, plus what stood there before the oldest of them. */
static int take_out_pending(struct taking *k, struct mm_err *err)
{
    struct mm_pending *p = k->r->shard[k->t->shard - 1].pending;
    for (size_t at = 0; at < mm_pending_count(p) && err->rc == SQLITE_OK; at++) {
        struct mm_pend *e = mm_pending_at(p, at);
        struct mm_pend_scratch s;
        if (mm_pending_undone(p, at)) {
            break; /* in the middle of a batch: these are out of the tables already */
        }
        if (e->kind != MM_OUTBOX_TXN) {
            continue;
        }
        mm_pend_scratch_init(&s);
        mm_pending_images(p, e, &s, err);
        for (size_t i = 0; i < s.txn.ntab && err->rc == SQLITE_OK; i++) {
            const struct mm_tab *tab = &s.txn.tab[i];
            if (sqlite3_stricmp(tab->name, k->t->name) != 0) {
                continue;
            }
            k->coll = mm_arena_alloc(&s.arena, tab->ncol);
            for (uint32_t c = 0; k->coll != NULL && c < tab->ncol; c++) {
                k->coll[c] = (uint8_t)mm_targets_coll(k->r->targets, tab->name, tab->col[c], err);
            }
            for (size_t j = 0; k->coll != NULL && j < tab->nrow && err->rc == SQLITE_OK; j++) {
                take_row(k, tab, &tab->row[j], err);
            }
            if (k->coll == NULL) {
                mm_err_nomem(err);
            }
        }
        mm_pend_scratch_free(&s);
    }
    return err->rc;
}

static int scan(struct taking *k, struct mm_err *err)
{
    size_t ncol = (size_t)k->t->def->ncol;
    sqlite3_stmt *st = mm_target_scan(k->t, k->r->db, err);
    while (mm_db_step(st, err)) {
        for (size_t c = 0; c < ncol; c++) {
            if (!mm_value_column(&k->local[c], st, (int)c)) {
                mm_err_nomem(err);
            }
        }
        mm_wire_sum_row(k->out->content, k->names, k->local, ncol, 1, err);
        k->out->rows++;
    }
    mm_db_finalize(st);
    return err->rc;
}

static int sum_base(struct mm_repl *r, struct mm_target *t, struct mm_msg_table *out, struct mm_err *err)
{
    size_t ncol = (size_t)t->def->ncol;
    struct taking k = { .r = r, .t = t, .out = out };
    k.names = calloc(ncol, sizeof *k.names);
    k.local = calloc(2 * ncol, sizeof *k.local);
    k.whole = k.local != NULL ? k.local + ncol : NULL;
    mm_buf_init(&k.key, (size_t)1 << 30);
    if (k.names == NULL || k.local == NULL) {
        mm_err_nomem(err);
    }
    for (size_t c = 0; k.names != NULL && c < ncol; c++) {
        k.names[c] = t->def->col[c].name;
    }
    if (err->rc == SQLITE_OK) {
        scan(&k, err);
        take_out_pending(&k, err);
    }
    mm_buf_free(&k.key);
    mm_seen_free(&k.seen);
    free(k.names);
    free(k.local);
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
    if (err->rc == SQLITE_OK && sqlite3_txn_state(r->db, "main") != SQLITE_TXN_WRITE && mm_log_any(r->db, err)) {
        mm_err_set(err, SQLITE_BUSY, "what triggers have noted is on its way into the outbox: try again");
    }
    if (err->rc == SQLITE_OK) {
        sum_base(r, t, out, err);
    }
    if (out->rows < 0) { /* more pending rows are gone, uncaptured, than there were others: it began with none */
        out->rows = 0;
        memset(out->content, 0, sizeof out->content);
    }
    if (own && !sqlite3_get_autocommit(r->db)) {
        struct mm_err end;
        mm_err_init(&end);
        mm_db_exec(r->db, &end, "COMMIT");
    }
    return err->rc;
}
