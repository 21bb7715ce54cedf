#include "snapshot/reconcile.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "repl/late.h"
#include "repl/shadow.h"
#include "store/stray.h"

enum { LOOKED_MOST = 20000, STEP_US = 25000 };

/* Of one table: the rows of its two lists that were looked at, and what was found. */
struct progress {
    int64_t keys, rows, found;
};

struct mm_reconcile {
    struct mm_repl copy;
    const struct mm_diff *diff;
    int64_t rows;                 /* of a step, 0 = no limit of its own */
    struct progress *now, *saved; /* diff->n each; as of the last COMMIT */
    int at;                       /* tables before it are done */
    int64_t upto[MM_SNAPSHOT_SHARDS], imaged[MM_SNAPSHOT_SHARDS];
    bool moving; /* a row without identity was gone when its turn came */
    int64_t longest_us;

    /* Of a step. */
    struct mm_repl *live;
    struct mm_late late;
    int64_t until_us;
    int looked;
    bool found;  /* something was put into the outbox */
    bool evicts; /* of tables whose rows may evict others */
};

struct mm_reconcile *mm_reconcile_open(const char *copy, const char *vfs, const struct mm_repl_options *repl,
                                       const struct mm_diff *diff, int64_t rows, struct mm_err *err)
{
    struct mm_reconcile *x = calloc(1, sizeof *x);
    struct mm_repl_options o = *repl;
    size_t n = (size_t)diff->n + 1;
    if (x == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    o.node = 0;
    x->diff = diff;
    x->rows = rows;
    x->now = calloc(n, sizeof *x->now);
    x->saved = calloc(n, sizeof *x->saved);
    memcpy(x->upto, diff->upto, sizeof x->upto);
    if (x->now == NULL || x->saved == NULL) {
        mm_err_nomem(err);
    }
    x->copy.db = err->rc == SQLITE_OK ? mm_repl_connect(copy, vfs, 0, err) : NULL;
    if (x->copy.db != NULL) {
        mm_db_exec(x->copy.db, err, "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF");
        mm_repl_open(&x->copy, &o, err);
    }
    if (err->rc != SQLITE_OK) {
        mm_reconcile_close(x);
        return NULL;
    }
    return x;
}

void mm_reconcile_close(struct mm_reconcile *x)
{
    if (x != NULL) {
        mm_repl_close(&x->copy);
        free(x->now);
        free(x->saved);
        free(x);
    }
}

static bool go_on(struct mm_reconcile *x, struct mm_err *err)
{
    return err->rc == SQLITE_OK && !mm_late_full(&x->late) && x->looked++ < LOOKED_MOST &&
           mm_clock_mono_us() < x->until_us;
}

/* A row of a list: columns of the table from `from` on, in the order of the key
** or of the table. */
static void read_list(sqlite3_stmt *st, int from, const struct mm_table *def, bool key, struct mm_value *row,
                      struct mm_err *err)
{
    memset(row, 0, (size_t)def->ncol * sizeof *row);
    for (int k = 0; k < def->ncol; k++) {
        int at = key ? def->col[k].pk - 1 : k;
        if (at >= 0 && !mm_value_column(&row[k], st, from + at)) {
            mm_err_nomem(err);
        }
    }
}

static void one_key(struct mm_reconcile *x, struct mm_target *ours, struct mm_target *theirs, struct mm_value *v,
                    struct progress *p, struct mm_err *err)
{
    size_t ncol = (size_t)ours->def->ncol;
    int64_t before = x->late.rows;
    x->evicts = x->evicts || ours->def->nunique > 0;
    bool here = mm_target_read(ours, x->live->db, v, v + ncol, err) != 0;
    bool there = mm_target_read_like(theirs, ours, x->copy.db, v, v + 2 * ncol, err) != 0;
    if (err->rc == SQLITE_OK && (here || there)) {
        mm_late_add(&x->late, ours->def, there ? v + 2 * ncol : NULL, here ? v + ncol : NULL, err);
    }
    p->found += x->late.rows - before;
    mm_target_done(ours);
    mm_target_done(theirs);
}

/* Here alone: if it still stands in its place. There alone: more of them were
** there than here, and whatever was captured since took as many on both sides. */
static void one_row(struct mm_reconcile *x, struct mm_target *ours, sqlite3_stmt *st, struct mm_value *v,
                    struct progress *p, struct mm_err *err)
{
    size_t ncol = (size_t)ours->def->ncol;
    bool here = sqlite3_column_type(st, 1) != SQLITE_NULL;
    x->evicts = x->evicts || ours->def->nunique > 0;
    bool stands = here && mm_target_read_rowid(ours, x->live->db, sqlite3_column_int64(st, 1), v + ncol, err);
    for (size_t k = 0; stands && k < ncol; k++) {
        stands = mm_value_same(&v[k], &v[k + ncol]);
    }
    mm_target_holder_done(ours);
    if (here && !stands) {
        x->moving = true;
    } else if (err->rc == SQLITE_OK) {
        mm_late_add(&x->late, ours->def, here ? NULL : v, here ? v : NULL, err);
        p->found++;
    }
}

/* One of the two lists; true when nothing of it is left. */
static bool one_list(struct mm_reconcile *x, int number, bool keys, struct mm_target *ours, struct mm_target *theirs,
                     struct mm_err *err)
{
    struct progress *p = &x->now[number];
    int64_t *after = keys ? &p->keys : &p->rows;
    char name[40];
    struct mm_value *v = calloc(3 * (size_t)ours->def->ncol, sizeof *v);
    bool more = true;
    (void)sqlite3_snprintf(sizeof name, name, "__marmot__%s_%d", keys ? "diff" : "rows", number);
    if (v == NULL) {
        mm_err_nomem(err);
    }
    bool any = mm_db_int(x->copy.db, err, 0, "SELECT 1 FROM main.sqlite_schema WHERE name = %Q", name) != 0;
    sqlite3_stmt *st =
        any ? mm_db_prepare(x->copy.db, err, 0, "SELECT rowid, * FROM main.\"%w\" WHERE rowid > %lld ORDER BY rowid",
                            name, (long long)*after)
            : NULL;
    while (go_on(x, err) && (more = st != NULL && mm_db_step(st, err))) {
        read_list(st, keys ? 1 : 2, ours->def, keys, v, err);
        if (keys) {
            one_key(x, ours, theirs, v, p, err);
        } else {
            one_row(x, ours, st, v, p, err);
        }
        *after = sqlite3_column_int64(st, 0);
    }
    mm_db_finalize(st);
    free(v);
    return !more && err->rc == SQLITE_OK;
}

static void gather(struct mm_reconcile *x, struct mm_err *err)
{
    while (x->at < x->diff->n && go_on(x, err)) {
        const struct mm_diff_table *d = &x->diff->table[x->at];
        if (d->mode == MM_DIFF_KEYS) {
            if (!mm_shadow_comparable(&x->copy, x->live, d->name, err)) {
                mm_err_set(err, SQLITE_SCHEMA, "table %s was changed while it was compared: call it again", d->name);
                return;
            }
            struct mm_target *ours = mm_targets_get(x->live->targets, d->name, err);
            struct mm_target *theirs = mm_targets_get(x->copy.targets, d->name, err);
            if (ours == NULL || theirs == NULL || !one_list(x, x->at, true, ours, theirs, err) ||
                !one_list(x, x->at, false, ours, theirs, err)) {
                return;
            }
        }
        x->at++;
    }
}

static void note_again(struct mm_reconcile *x, const struct mm_tab *tab, const struct mm_row *image, struct mm_err *err)
{
    int number = 0;
    while (number < x->diff->n && sqlite3_stricmp(x->diff->table[number].name, tab->name) != 0) {
        number++;
    }
    if (number == x->diff->n || x->diff->table[number].mode != MM_DIFF_KEYS || image->op != MM_OP_INSERT) {
        return;
    }
    int nkey = 0;
    for (uint32_t k = 0; k < tab->ncol; k++) {
        nkey += tab->pk[k] != 0;
    }
    struct mm_buf marks;
    mm_buf_init(&marks, 1 << 20);
    for (int k = 1; k <= nkey; k++) {
        mm_buf_printf(&marks, "?%d, ", k);
    }
    mm_buf_byte(&marks, 0);
    mm_buf_check(&marks, err, "a statement");
    sqlite3_stmt *st = nkey > 0
                           ? mm_db_prepare(x->copy.db, err, 0, "INSERT INTO main.__marmot__diff_%d VALUES (%s1, 1)",
                                           number, (const char *)marks.data)
                           : NULL;
    for (uint32_t k = 0; st != NULL && k < tab->ncol; k++) {
        if (tab->pk[k] != 0 && mm_value_bind(st, tab->pk[k], &image->after[k]) != SQLITE_OK) {
            mm_db_fail(x->copy.db, err, "binding a key");
        }
    }
    if (st != NULL) {
        mm_db_run(st, err);
        x->at = number < x->at ? number : x->at;
    }
    mm_db_finalize(st);
    mm_buf_free(&marks);
}

/* What was gathered evicted rows of the copy by a UNIQUE value: these rows are
** to be looked at (once more). */
static void look_again(struct mm_reconcile *x, int64_t id, struct mm_err *err)
{
    for (int k = 0; k < x->live->nshard && err->rc == SQLITE_OK; k++) {
        struct mm_pend_scratch s;
        bool clean = true;
        mm_pend_scratch_init(&s);
        if (mm_outbox_undo_get(x->copy.outbox, id, k + 1, &clean, &s.images, err) && !clean &&
            mm_buf_check(&s.images, err, "before-images") == SQLITE_OK) {
            mm_image_unpack(&s.txn, s.images.data, s.images.len, x->copy.targets, err);
            for (size_t i = 0; i < s.txn.ntab && err->rc == SQLITE_OK; i++) {
                for (size_t j = 0; j < s.txn.tab[i].nrow && err->rc == SQLITE_OK; j++) {
                    note_again(x, &s.txn.tab[i], &s.txn.tab[i].row[j], err);
                }
            }
        }
        mm_pend_scratch_free(&s);
    }
}

/* What is in the outbox by now is done on the copy, too; true when all of it is. */
static bool catch_up(struct mm_reconcile *x, int64_t until_us, struct mm_err *err)
{
    mm_repl_read_outbox(x->live, err);
    mm_shadow_follow(&x->copy, x->live, x->upto, until_us, err);
    if (!mm_shadow_behind(x->live, x->upto)) {
        mm_shadow_images(&x->copy, x->live, x->imaged, until_us, err);
    }
    return err->rc == SQLITE_OK && !mm_shadow_behind(x->live, x->upto) && !mm_shadow_behind(x->live, x->imaged);
}

/* What was found is done on the copy as well. Its rows were captured against
** the copy's: its before-images are those, unless it evicts rows. */
static void follow_found(struct mm_reconcile *x, struct mm_err *err)
{
    if (!x->evicts) {
        mm_shadow_follow(&x->copy, x->live, x->upto, 0, err);
        for (int k = 0; k < x->live->nshard; k++) {
            x->imaged[k] = x->upto[k];
        }
    } else {
        catch_up(x, 0, err);
        look_again(x, x->live->outbox_read, err);
    }
}

/* The write transaction; without the copy's part in it where that can wait. */
static void work(struct mm_reconcile *x, struct mm_err *err)
{
    if (mm_targets_refresh(x->live->targets, err)) {
        x->live->tables_changed = x->live->schema_moved = true;
        mm_repl_rekey(x->live, err);
    }
    if (!catch_up(x, x->until_us, err)) {
        return; /* the next step goes on */
    }
    gather(x, err);
    x->found = x->late.rows > 0;
    mm_late_put(&x->late, err);
    mm_repl_read_outbox(x->live, err);
    if (x->found && x->evicts) {
        follow_found(x, err);
    }
}

static void roll_back(sqlite3 *db)
{
    if (!sqlite3_get_autocommit(db)) {
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
}

bool mm_reconcile_step(struct mm_reconcile *x, struct mm_repl *live, struct mm_err *err)
{
    size_t n = (size_t)x->diff->n * sizeof *x->now;
    int64_t upto[MM_SNAPSHOT_SHARDS];
    int64_t imaged[MM_SNAPSHOT_SHARDS];
    int at = x->at;
    mm_db_exec(live->db, err, "BEGIN IMMEDIATE");
    if (err->rc != SQLITE_OK) {
        return false;
    }
    int64_t began = mm_clock_mono_us();
    memcpy(x->saved, x->now, n);
    memcpy(upto, x->upto, sizeof upto);
    memcpy(imaged, x->imaged, sizeof imaged);
    x->live = live;
    x->until_us = began + STEP_US;
    x->looked = 0;
    x->found = x->evicts = false;
    mm_late_init(&x->late, live->db);
    x->late.rows_most = x->rows > 0 ? x->rows : x->late.rows_most;
    mm_db_exec(x->copy.db, err, "BEGIN");
    work(x, err);
    mm_stray_commit(live->db, err);
    bool kept = err->rc == SQLITE_OK;
    int64_t took = mm_clock_mono_us() - began;
    x->longest_us = took > x->longest_us ? took : x->longest_us;
    if (x->found && !x->evicts) {
        follow_found(x, err);
    }
    mm_db_exec(x->copy.db, err, "COMMIT");
    roll_back(x->copy.db);
    roll_back(live->db);
    mm_late_free(&x->late);
    if (!kept) {
        live->reload_needed = true;
        memcpy(x->now, x->saved, n);
        memcpy(x->upto, upto, sizeof upto);
        memcpy(x->imaged, imaged, sizeof imaged);
        x->at = at;
        mm_outbox_forget(x->copy.outbox);
    }
    return err->rc == SQLITE_OK && x->at >= x->diff->n && !mm_shadow_behind(live, x->imaged);
}

int64_t mm_reconcile_rows(const struct mm_reconcile *x)
{
    int64_t rows = 0;
    for (int k = 0; k < x->diff->n; k++) {
        rows += x->now[k].found;
    }
    return rows;
}

void mm_reconcile_answer(const struct mm_reconcile *x, struct mm_buf *out)
{
    mm_buf_str(out, "{\"tables\":[");
    for (int k = 0; k < x->diff->n; k++) {
        const struct mm_diff_table *d = &x->diff->table[k];
        mm_buf_str(out, k > 0 ? ",{\"table\":" : "{\"table\":");
        mm_buf_json(out, d->name);
        mm_buf_printf(out, ",\"rows\":%lld", (long long)x->now[k].found);
        if (d->mode != MM_DIFF_SAME && d->mode != MM_DIFF_KEYS) {
            mm_buf_str(out, ",\"why\":");
            mm_buf_json(out, d->mode == MM_DIFF_CREATE ? "there is no such table here" : d->why);
        }
        mm_buf_byte(out, '}');
    }
    mm_buf_printf(out, "],\"rows\":%lld}", (long long)mm_reconcile_rows(x));
}

bool mm_reconcile_complete(const struct mm_reconcile *x)
{
    bool all = !x->moving;
    for (int k = 0; k < x->diff->n; k++) {
        const struct mm_diff_table *d = &x->diff->table[k];
        all = all && (!d->captured || d->mode == MM_DIFF_SAME || d->mode == MM_DIFF_KEYS);
    }
    return all;
}

int64_t mm_reconcile_longest_us(const struct mm_reconcile *x)
{
    return x->longest_us;
}
