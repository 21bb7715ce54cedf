#include "repl/merge.h"

#include <stdlib.h>

#include "base/db.h"
#include "repl/apply_int.h"
#include "repl/multiset.h"

struct merging {
    struct mm_repl *r;
    struct mm_target *t;
    struct mm_late *late;
    struct mm_merge_count *count;
    struct mm_apply_how how;
    struct mm_value *mine, *there; /* def->ncol each */
    struct mm_multiset keyless;    /* rows without identity that are there and not matched yet */
    bool counted;
};

static bool read_row(const struct mm_table *def, sqlite3_stmt *st, struct mm_value *row, struct mm_err *err)
{
    if (!mm_db_step(st, err)) {
        return false;
    }
    for (int k = 0; k < def->ncol; k++) {
        if (!mm_value_column(&row[k], st, k)) {
            mm_err_nomem(err);
        }
    }
    return err->rc == SQLITE_OK;
}

static void count_keyless(struct merging *m, struct mm_err *err)
{
    sqlite3_stmt *st = mm_target_scan(m->t, m->r->db, err);
    while (read_row(m->t->def, st, m->there, err)) {
        if (mm_apply_is_keyless(m->t, m->there)) {
            mm_multiset_add(&m->keyless, m->there, m->t->def->ncol, err);
        }
    }
    mm_db_finalize(st);
    m->counted = true;
}

/* Nobody of the cluster has asked for its row to go: it stays, ours is told of. */
static void clash(struct merging *m, struct mm_err *err)
{
    if (mm_target_holder(m->t, m->r->db, m->mine, m->there, err)) {
        mm_apply_conflict(m->r->db, m->t, &m->how, MM_CONFLICT_UNIQUE, m->mine, m->mine, m->there, err);
    }
    mm_target_holder_done(m->t);
    m->count->clashed++;
}

static void put_back(struct merging *m, struct mm_err *err)
{
    bool unique = m->t->def->nunique > 0;
    if (!unique) {
        mm_target_write(m->t, m->r->db, m->mine, m->mine, false, err);
    } else if (!mm_target_add(m->t, m->r->db, m->mine, err)) {
        clash(m, err);
        return;
    }
    mm_late_add(m->late, m->t->def, NULL, m->mine, err);
    m->count->kept++;
    if (mm_late_full(m->late)) {
        mm_late_put(m->late, err);
    }
}

static void one_row(struct merging *m, struct mm_err *err)
{
    const struct mm_table *def = m->t->def;
    if (mm_apply_is_keyless(m->t, m->mine)) {
        if (!m->counted) {
            count_keyless(m, err);
        }
        if (!mm_multiset_take(&m->keyless, m->mine, def->ncol, err) && err->rc == SQLITE_OK) {
            put_back(m, err);
        }
        return;
    }
    if (!mm_target_read(m->t, m->r->db, m->mine, m->there, err)) {
        if (err->rc == SQLITE_OK) {
            put_back(m, err);
        }
        return;
    }
    bool same = true;
    for (int k = 0; k < def->ncol; k++) {
        same = same && mm_value_same(&m->mine[k], &m->there[k]);
    }
    if (!same) {
        mm_apply_conflict(m->r->db, m->t, &m->how, MM_CONFLICT_INSERT, m->mine, m->mine, m->there, err);
        m->count->differ++;
    }
    mm_target_done(m->t);
}

int mm_merge_rows(struct mm_repl *r, struct mm_target *t, sqlite3_stmt *mine, struct mm_late *late,
                  struct mm_merge_count *count, struct mm_err *err)
{
    size_t ncol = (size_t)t->def->ncol;
    struct merging m = { .r = r, .t = t, .late = late, .count = count };
    m.how = (struct mm_apply_how){ .shard = t->shard, .seq = r->shard[t->shard - 1].pos.seq, .node = r->node };
    m.mine = calloc(2 * ncol, sizeof *m.mine);
    if (m.mine == NULL) {
        return mm_err_nomem(err);
    }
    m.there = m.mine + ncol;
    while (read_row(t->def, mine, m.mine, err)) {
        one_row(&m, err);
    }
    mm_multiset_free(&m.keyless);
    free(m.mine);
    return err->rc;
}
