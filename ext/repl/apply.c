#include "repl/apply_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "repl/foreign.h"

enum { CONFLICTS_KEPT = 10000, CONFLICT_BYTES = 64 << 20, JSON_MAX = 1 << 20 };

static const char no_table[] =
    "the cluster changes it and this node has no such table: create it as on the other nodes";
static const char no_column[] = "a column of the cluster's table is missing here: add it as on the other nodes";
static const char other_key[] = "its key differs from that of the cluster's table: rebuild it as on the other nodes";

/* `again`: the message from which on it could be read from the log once more,
** since all before are in it and nothing of this one; else -1. */
static void make_stale(sqlite3 *db, struct mm_targets *targets, struct mm_target *t, const char *why, int64_t again,
                       struct mm_err *err)
{
    mm_targets_moved(targets);
    mm_log(MM_LOG_WARN, "table %s is stale: %s", t->name, why);
    mm_watch_set(db, t->name, MM_STALE, why, err);
    mm_watch_set_joined_seq(db, t->name, again, err);
    t->state = MM_STALE;
    t->joined_seq = again;
}

/* A table of other content cannot go on where it was. */
static int64_t again_from(const struct mm_apply_how *how, const char *why)
{
    return how->pending || why == no_table || why == other_key ? -1 : how->seq;
}

const char *mm_view_misfit(struct mm_view *v)
{
    if (v->t->def == NULL) {
        return no_table;
    }
    if (!v->t->def->supported) {
        return v->t->def->why;
    }
    int keys = 0;
    for (uint32_t k = 0; k < v->tab->ncol; k++) {
        v->local[k] = mm_target_place(v->t, v->tab->col[k]);
        if (v->local[k] == MM_PLACE_MISSING) {
            return no_column;
        }
        if (v->local[k] == MM_PLACE_NOWHERE) {
            keys += v->tab->pk[k] != 0;
            continue;
        }
        if ((v->tab->pk[k] != 0) != (v->t->def->col[v->local[k]].pk != 0)) {
            return other_key;
        }
        keys += v->tab->pk[k] != 0;
        v->sent[v->local[k]] = true;
    }
    for (int k = 0; k < v->t->def->ncol; k++) {
        keys -= v->t->def->col[k].pk != 0;
    }
    return keys == 0 ? NULL : other_key;
}

/* A replay folds by the policies of its place in the log. */
static const uint8_t *policies_of(struct mm_arena *a, const struct mm_target *t, const struct mm_policies *p)
{
    uint8_t *policy = mm_arena_alloc(a, (size_t)t->def->ncol);
    for (size_t k = 0; policy != NULL && k < p->n; k++) {
        if (sqlite3_stricmp(p->entry[k].table, t->name) == 0) {
            int at = mm_target_column(t, p->entry[k].column);
            if (at >= 0) {
                policy[at] = (uint8_t)p->entry[k].policy;
            }
        }
    }
    return policy;
}

bool mm_view_open(struct mm_view *v, struct mm_arena *a, const struct mm_tab *tab, struct mm_target *t)
{
    size_t ncol = t->def != NULL ? (size_t)t->def->ncol : 0;
    v->t = t;
    v->tab = tab;
    v->local = mm_arena_array(a, tab->ncol, sizeof *v->local);
    v->sent = mm_arena_array(a, ncol, sizeof *v->sent);
    uint8_t *pk = mm_arena_array(a, ncol, sizeof *pk);
    v->columns = (struct mm_fold_columns){ (uint32_t)ncol, pk, t->policy };
    v->old = mm_arena_array(a, ncol, sizeof *v->old);
    v->new = mm_arena_array(a, ncol, sizeof *v->new);
    v->current = mm_arena_array(a, ncol, sizeof *v->current);
    v->image = mm_arena_array(a, ncol, sizeof *v->image);
    for (size_t k = 0; k < ncol && !a->failed; k++) {
        pk[k] = t->def->col[k].pk;
    }
    return !a->failed;
}

struct mm_value *mm_view_local(const struct mm_view *v, const struct mm_value *row, struct mm_value *out)
{
    if (row == NULL) {
        return NULL;
    }
    memset(out, 0, (size_t)v->t->def->ncol * sizeof *out);
    for (uint32_t k = 0; k < v->tab->ncol; k++) {
        if (v->local[k] >= 0) {
            out[v->local[k]] = row[k];
        }
    }
    return out;
}

static void json_row(struct mm_buf *b, const struct mm_table *def, const struct mm_value *row, bool keys_only)
{
    const char *sep = "{";
    for (int k = 0; row != NULL && k < def->ncol; k++) {
        if (row[k].type != MM_UNDEF && (!keys_only || def->col[k].pk != 0)) {
            mm_buf_str(b, sep);
            mm_buf_json(b, def->col[k].name);
            mm_buf_byte(b, ':');
            mm_value_json(b, &row[k]);
            sep = ",";
        }
    }
    mm_buf_str(b, row == NULL ? "null" : sep[0] == '{' ? "{}" : "}");
    mm_buf_byte(b, 0);
}

void mm_apply_conflict(sqlite3 *db, const struct mm_target *t, struct mm_apply_how *how, enum mm_conflict_kind kind,
                       const struct mm_value *key, const struct mm_value *lost, const struct mm_value *won,
                       struct mm_err *err)
{
    how->conflict = true;
    if (how->pending || err->rc != SQLITE_OK) {
        return;
    }
    struct mm_buf b[3];
    const struct mm_value *rows[3] = { key, lost, won };
    for (int k = 0; k < 3; k++) {
        mm_buf_init(&b[k], JSON_MAX);
        json_row(&b[k], t->def, rows[k], k == 0 && !t->def->keyless);
        if (b[k].rc == SQLITE_TOOBIG) { /* the log is bounded, row by row too */
            mm_buf_clear(&b[k]);
            mm_buf_add(&b[k], "\"too large\"", sizeof "\"too large\"");
        }
        mm_buf_check(&b[k], err, "a conflict record");
    }
    if (err->rc == SQLITE_OK) {
        struct mm_conflict c = { how->shard,
                                 how->seq,
                                 how->node,
                                 mm_conflict_name(kind),
                                 t->def->name,
                                 (const char *)b[0].data,
                                 (const char *)b[1].data,
                                 (const char *)b[2].data };
        mm_conflict_add(db, &c, CONFLICTS_KEPT, CONFLICT_BYTES, err);
    }
    for (int k = 0; k < 3; k++) {
        mm_buf_free(&b[k]);
    }
}

static int apply_row(sqlite3 *db, struct mm_view *v, const struct mm_row *row, struct mm_apply_how *how,
                     struct mm_err *err)
{
    const struct mm_value *old = mm_view_local(v, row->before, v->old);
    const struct mm_value *new = mm_view_local(v, row->after, v->new);
    const struct mm_value *key = old != NULL ? old : new;
    enum mm_conflict_kind kind = MM_CONFLICT_NONE;
    bool exists = mm_target_read(v->t, db, key, v->current, err) != 0;
    const struct mm_value *current = exists ? v->current : NULL;
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    enum mm_fold_act act = mm_fold_row(row->op, how->all, &v->columns, old, new, current, v->image, &kind);
    if (kind != MM_CONFLICT_NONE) {
        mm_apply_conflict(db, v->t, how, kind, key, exists ? current : new, exists ? new : NULL, err);
    }
    /* Also of a row that a policy leaves as it is: what is undone with this image may be what
    ** the application has made of it (repl/shadow.h). */
    if (how->images != NULL && (act != MM_FOLD_NOTHING || exists)) {
        mm_image_add(how->images, v->t, key, current);
    }
    /* The current row is borrowed from the open statement: the write comes
    ** first, only then is it let go. */
    if (act == MM_FOLD_WRITE) {
        mm_target_write(v->t, db, key, v->image, exists, err);
    } else if (act == MM_FOLD_REMOVE) {
        mm_target_remove(v->t, db, key, err);
    }
    mm_target_done(v->t);
    return err->rc;
}

/* Where a UNIQUE value could be in the way, and where many rows without identity
** go, the whole table is written in two phases; elsewhere row after row comes to
** the same. */
static bool in_two_phases(struct mm_view *v)
{
    return v->t->def->nunique > 0 || (v->tab->nrow >= MM_TARGET_MANY && mm_apply_keyless_takes(v) >= MM_TARGET_MANY);
}

static int apply_table(sqlite3 *db, struct mm_view *v, struct mm_apply_how *how, struct mm_err *err)
{
    if (in_two_phases(v)) {
        return mm_apply_unique(db, v, how, false, err);
    }
    for (size_t j = 0; j < v->tab->nrow && err->rc == SQLITE_OK; j++) {
        const struct mm_row *row = &v->tab->row[j];
        const struct mm_value *any = mm_view_local(v, row->before != NULL ? row->before : row->after, v->old);
        if (mm_apply_is_keyless(v->t, any)) {
            mm_apply_keyless(db, v, row, how, false, NULL, err);
        } else {
            apply_row(db, v, row, how, err);
        }
    }
    return err->rc;
}

static bool wanted(const struct mm_target *t, const struct mm_apply_how *how)
{
    if (how->pending) {
        return mm_watch_captures(t->state) && t->def != NULL;
    }
    if (how->replay) {
        return t->state == MM_JOINING && t->joined_seq > 0 && how->seq >= t->joined_seq;
    }
    return t->state == MM_WATCHED;
}

int mm_apply_txn(sqlite3 *db, struct mm_targets *targets, const struct mm_txn *txn, struct mm_apply_how *how,
                 struct mm_err *err)
{
    struct mm_arena a;
    mm_arena_init(&a, (size_t)256 << 20);
    for (size_t k = 0; k < txn->ntab && err->rc == SQLITE_OK; k++) {
        const struct mm_tab *tab = &txn->tab[k];
        struct mm_target *t = mm_targets_get(targets, tab->name, err);
        if (t == NULL || t->shard != how->shard || !wanted(t, how)) {
            how->skipped += (int64_t)tab->nrow;
            continue;
        }
        struct mm_view v;
        if (!mm_view_open(&v, &a, tab, t)) {
            mm_err_nomem(err);
            break;
        }
        if (how->policies != NULL && t->def != NULL) {
            v.columns.policy = policies_of(&a, t, how->policies);
        }
        const char *why = mm_view_misfit(&v);
        if (why == NULL) {
            apply_table(db, &v, how, err);
        }
        if ((err->rc & 0xff) == SQLITE_CONSTRAINT || (err->rc & 0xff) == SQLITE_MISMATCH) {
            char text[sizeof err->msg];
            memcpy(text, err->msg, sizeof text);
            mm_err_init(err);
            make_stale(db, targets, t, text, -1, err); /* some of its rows may be written */
        }
        if (why != NULL && t->state != MM_STALE) {
            make_stale(db, targets, t, why, again_from(how, why), err);
        }
    }
    mm_arena_free(&a);
    if (!how->pending && !how->replay) {
        mm_foreign_check(db, targets, txn, how, err);
    }
    return err->rc;
}

static int write_image(sqlite3 *db, struct mm_view *v, const struct mm_row *row, struct mm_err *err)
{
    const struct mm_value *key = mm_view_local(v, row->before != NULL ? row->before : row->after, v->old);
    const struct mm_value *stood = row->op == MM_OP_INSERT ? mm_view_local(v, row->after, v->new) : NULL;
    if (stood != NULL) {
        key = stood;
    }
    bool exists = mm_target_read(v->t, db, key, v->current, err) != 0;
    for (int k = 0; stood != NULL && k < v->t->def->ncol; k++) {
        /* A column younger than the image keeps what it has. */
        v->image[k] = stood[k].type == MM_UNDEF && exists ? v->current[k] : stood[k];
    }
    if (stood != NULL) {
        mm_target_write(v->t, db, key, v->image, exists, err);
    } else if (exists) {
        mm_target_remove(v->t, db, key, err);
    }
    mm_target_done(v->t);
    return err->rc;
}

static int write_images(sqlite3 *db, struct mm_view *v, struct mm_err *err)
{
    struct mm_apply_how how = { .pending = true };
    if (in_two_phases(v)) {
        return mm_apply_unique(db, v, &how, true, err);
    }
    for (size_t j = v->tab->nrow; j-- > 0 && err->rc == SQLITE_OK;) { /* backwards: rows without identity need it */
        const struct mm_row *row = &v->tab->row[j];
        const struct mm_value *any = mm_view_local(v, row->before != NULL ? row->before : row->after, v->old);
        if (mm_apply_is_keyless(v->t, any)) {
            mm_apply_keyless(db, v, row, &how, true, NULL, err);
        } else {
            write_image(db, v, row, err);
        }
    }
    return err->rc;
}

int mm_apply_images(sqlite3 *db, struct mm_targets *targets, const struct mm_txn *images, struct mm_err *err)
{
    struct mm_arena a;
    mm_arena_init(&a, (size_t)256 << 20);
    for (size_t k = images->ntab; k-- > 0 && err->rc == SQLITE_OK;) { /* backwards: the oldest shape last */
        const struct mm_tab *tab = &images->tab[k];
        struct mm_target *t = mm_targets_get(targets, tab->name, err);
        struct mm_view v;
        if (t == NULL || t->def == NULL || !mm_watch_captures(t->state)) {
            continue; /* dropped since, or unwatched: the redo leaves it alone as well */
        }
        if (!mm_view_open(&v, &a, tab, t)) {
            mm_err_nomem(err);
            break;
        }
        const char *why = mm_view_misfit(&v);
        if (why == NULL) {
            write_images(db, &v, err);
        }
        if (why != NULL && t->state != MM_STALE) {
            make_stale(db, targets, t, why, -1, err);
        }
    }
    mm_arena_free(&a);
    return err->rc;
}
