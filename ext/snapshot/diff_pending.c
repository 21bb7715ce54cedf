#include <stdlib.h>
#include <string.h>

#include "repl/join.h"
#include "snapshot/diff_int.h"

static bool hash_of(struct mm_diff_side *c, const struct mm_value *row, uint64_t *hash, struct mm_err *err)
{
    uint8_t sha[32];
    mm_buf_clear(&c->scratch);
    for (int place = 0; place < c->nkey; place++) {
        int k = c->key[place];
        mm_value_key(&c->scratch, &row[k], (enum mm_coll)c->def->col[k].coll);
    }
    if (mm_buf_check(&c->scratch, err, "a key") != SQLITE_OK) {
        return false;
    }
    mm_wire_sha256(c->scratch.data, c->scratch.len, sha);
    memcpy(hash, sha, sizeof *hash);
    return true;
}

bool mm_diff_touched(struct mm_diff_side *c, const struct mm_value *row, struct mm_err *err)
{
    uint64_t hash;
    return c->touched.n > 0 && hash_of(c, row, &hash, err) && mm_seen_has(&c->touched, hash);
}

/* A before-image: what stood under its key in the base, if it is the first of
** this key (the oldest transaction's). */
static void take_image(struct mm_diff_side *c, const struct mm_tab *tab, const struct mm_row *image,
                       struct mm_value *row, struct mm_value *there, struct mm_err *err)
{
    const struct mm_value *from = image->op == MM_OP_INSERT ? image->after : image->before;
    bool stood = image->op == MM_OP_INSERT;
    uint64_t hash;
    memset(row, 0, (size_t)c->def->ncol * sizeof *row);
    for (uint32_t k = 0; k < tab->ncol; k++) {
        int at = mm_target_column(c->t, tab->col[k]);
        if (at >= 0) {
            row[at] = from[k];
        }
    }
    for (int place = 0; place < c->nkey; place++) {
        if (row[c->key[place]].type == SQLITE_NULL || row[c->key[place]].type == MM_UNDEF) {
            c->out->mode = MM_DIFF_ALL; /* a row without identity */
            c->out->both++;
            return;
        }
    }
    if (!hash_of(c, row, &hash, err) || !mm_seen_add(&c->touched, hash, err)) {
        return;
    }
    struct mm_target *t = mm_targets_get(c->s->r.targets, c->def->name, err);
    bool other = t != NULL && mm_target_read_like(t, c->t, c->s->r.db, row, there, err);
    c->out->rows += stood;
    if (err->rc == SQLITE_OK && (stood != other || (stood && !mm_diff_same(c->def, row, there)))) {
        mm_diff_note(c, row, stood, other, err);
    }
    if (t != NULL) {
        mm_target_done(t);
    }
}

/* Calls take_image for each image of the table, or only looks for one. */
static bool each_image(struct mm_diff_side *c, bool look, struct mm_err *err)
{
    struct mm_pending *p = c->live->shard[c->t->shard - 1].pending;
    struct mm_value *rows = calloc(2 * (size_t)c->def->ncol, sizeof *rows);
    bool found = false;
    if (rows == NULL) {
        mm_err_nomem(err);
    }
    for (size_t at = 0; rows != NULL && at < mm_pending_count(p) && err->rc == SQLITE_OK && !(look && found); at++) {
        struct mm_pend *e = mm_pending_at(p, at);
        struct mm_pend_scratch s;
        if (e->kind != MM_OUTBOX_TXN) {
            continue;
        }
        mm_pend_scratch_init(&s);
        mm_pending_images(p, e, &s, err);
        for (size_t i = 0; i < s.txn.ntab && mm_work_go_on(c->work, err); i++) {
            const struct mm_tab *tab = &s.txn.tab[i];
            if (sqlite3_stricmp(tab->name, c->def->name) != 0) {
                continue;
            }
            found = found || tab->nrow > 0;
            for (size_t j = 0; !look && j < tab->nrow && err->rc == SQLITE_OK; j++) {
                take_image(c, tab, &tab->row[j], rows, rows + c->def->ncol, err);
            }
        }
        mm_pend_scratch_free(&s);
    }
    free(rows);
    return found;
}

bool mm_diff_any_pending(struct mm_diff_side *c, struct mm_err *err)
{
    return each_image(c, true, err);
}

int mm_diff_pending(struct mm_diff_side *c, struct mm_err *err)
{
    each_image(c, false, err);
    return err->rc;
}

int mm_diff_sums(struct mm_diff_side *c, struct mm_err *err)
{
    struct mm_msg_table ours;
    struct mm_msg_table theirs;
    struct mm_target *t = mm_targets_get(c->s->r.targets, c->def->name, err);
    if (t != NULL) {
        mm_join_base(c->live, c->t, &ours, err);
        mm_join_base(&c->s->r, t, &theirs, err);
    }
    if (err->rc == SQLITE_OK) {
        c->out->rows = ours.rows;
        c->out->both = mm_join_difference(&ours, &theirs) != NULL;
    }
    return err->rc;
}
