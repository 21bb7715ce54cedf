#include "repl/foreign.h"

#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "repl/apply_int.h"
#include "repl/target_int.h"

/* A reference from this table to a parent, or from a child to this table. */
struct link {
    bool to_child;
    char *other; /* table */
    int n;
    int *col;      /* columns of this table, local order */
    char **theirs; /* columns of the other one, in that order; NULL: its key */
    sqlite3_stmt *exists;
    bool tried;
};

struct mm_foreign {
    struct link *link;
    int n;
};

static void link_free(struct link *l)
{
    for (int k = 0; k < l->n; k++) {
        free(l->theirs[k]);
    }
    mm_db_finalize(l->exists);
    free(l->theirs);
    free(l->col);
    free(l->other);
}

void mm_foreign_free(struct mm_foreign *f)
{
    for (int k = 0; f != NULL && k < f->n; k++) {
        link_free(&f->link[k]);
    }
    if (f != NULL) {
        free(f->link);
    }
    free(f);
}

/* One column pair: of a new link when it is the first one of its key. */
static bool add_column(struct mm_foreign *f, bool to_child, bool first, const char *other, int col, const char *theirs)
{
    struct link *list = f->link;
    if (first) {
        list = realloc(f->link, ((size_t)f->n + 1) * sizeof *list);
        if (list == NULL) {
            return false;
        }
        f->link = list;
        memset(&list[f->n], 0, sizeof *list);
        list[f->n].to_child = to_child;
        list[f->n++].other = strdup(other);
    }
    struct link *l = &list[f->n - 1];
    int *cols = realloc(l->col, ((size_t)l->n + 1) * sizeof *cols);
    l->col = cols != NULL ? cols : l->col;
    char **names = realloc(l->theirs, ((size_t)l->n + 1) * sizeof *names);
    l->theirs = names != NULL ? names : l->theirs;
    char *name = theirs != NULL ? strdup(theirs) : NULL;
    if (cols == NULL || names == NULL || l->other == NULL || (theirs != NULL && name == NULL)) {
        free(name);
        return false;
    }
    cols[l->n] = col;
    names[l->n++] = name;
    return true;
}

static int key_column(const struct mm_table *def, int place)
{
    for (int k = 0; k < def->ncol; k++) {
        if (def->col[k].pk == place) {
            return k;
        }
    }
    return -1;
}

/* Rows: other table, key number, place in it, from, to. `to` is NULL where the
** parent's key is meant. */
static void load(sqlite3_stmt *st, const struct mm_target *t, bool to_child, struct mm_foreign *f, struct mm_err *err)
{
    while (mm_db_step(st, err)) {
        const char *other = (const char *)sqlite3_column_text(st, 0);
        int place = sqlite3_column_int(st, 1);
        const char *from = (const char *)sqlite3_column_text(st, 2);
        const char *to = (const char *)sqlite3_column_text(st, 3);
        const char *mine = to_child ? to : from;
        int col = mine != NULL ? mm_target_column(t, mine) : key_column(t->def, place + 1);
        if (other == NULL || from == NULL) {
            mm_err_nomem(err);
        } else if (!add_column(f, to_child, place == 0, other, col, to_child ? from : to)) {
            mm_err_nomem(err);
        }
    }
    mm_db_finalize(st);
}

static struct mm_foreign *foreign_of(sqlite3 *db, struct mm_target *t, struct mm_err *err)
{
    if (t->foreign != NULL || err->rc != SQLITE_OK) {
        return t->foreign;
    }
    struct mm_foreign *f = calloc(1, sizeof *f);
    if (f == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    load(mm_db_prepare(db, err, 0,
                       "SELECT \"table\", seq, \"from\", \"to\" FROM pragma_foreign_key_list(%Q, 'main')"
                       " ORDER BY id, seq",
                       t->name),
         t, false, f, err);
    load(mm_db_prepare(db, err, 0,
                       "SELECT m.name, f.seq, f.\"from\", f.\"to\" FROM main.sqlite_schema AS m,"
                       " pragma_foreign_key_list(m.name, 'main') AS f WHERE m.type = 'table'"
                       " AND f.\"table\" = %Q COLLATE NOCASE ORDER BY m.name, f.id, f.seq",
                       t->name),
         t, true, f, err);
    t->foreign = f;
    return f;
}

/* "SELECT 1 FROM other WHERE their columns = ?"; NULL: it cannot be asked. */
static char *question(struct mm_targets *targets, const struct link *l, struct mm_err *err)
{
    struct mm_buf b;
    const struct mm_target *other = mm_targets_get(targets, l->other, err);
    bool known = other != NULL && other->def != NULL;
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    mm_target_name(&b, "SELECT 1 FROM main.", l->other);
    for (int k = 0; known && k < l->n; k++) {
        int at = l->theirs[k] != NULL ? mm_target_column(other, l->theirs[k]) : key_column(other->def, k + 1);
        known = at >= 0 && l->col[k] >= 0;
        if (known) {
            mm_target_name(&b, k == 0 ? " WHERE " : " AND ", other->def->col[at].name);
            mm_buf_printf(&b, " = ?%d", k + 1);
        }
    }
    char *sql = known ? mm_buf_take(&b) : NULL;
    if (known && sql == NULL) {
        mm_err_nomem(err);
    }
    mm_buf_free(&b);
    return sql;
}

static bool askable(sqlite3 *db, struct mm_targets *targets, struct link *l, struct mm_err *err)
{
    if (!l->tried) {
        l->tried = true;
        char *sql = question(targets, l, err);
        if (sql != NULL && mm_target_searches(db, sql)) {
            l->exists = mm_db_prepare(db, err, SQLITE_PREPARE_PERSISTENT, "%s", sql);
        }
        free(sql);
    }
    return l->exists != NULL && err->rc == SQLITE_OK;
}

/* True when the other side has a row for these values; NULL among them: unset. */
static bool other_exists(sqlite3 *db, struct link *l, const struct mm_value *row, struct mm_err *err)
{
    for (int k = 0; k < l->n; k++) {
        mm_target_bind(db, l->exists, k + 1, &row[l->col[k]], err);
    }
    bool found = mm_db_step(l->exists, err) != 0;
    sqlite3_reset(l->exists);
    sqlite3_clear_bindings(l->exists);
    return found;
}

static bool any_null(const struct link *l, const struct mm_value *row)
{
    bool null = false;
    for (int k = 0; k < l->n; k++) {
        null = null || row[l->col[k]].type == SQLITE_NULL || row[l->col[k]].type == MM_UNDEF;
    }
    return null;
}

/* A row that was written and refers to nobody; a row that is gone and somebody
** refers to. */
static void check_row(sqlite3 *db, struct mm_targets *targets, struct mm_view *v, const struct mm_row *row,
                      struct mm_apply_how *how, struct mm_err *err)
{
    struct mm_target *t = v->t;
    bool gone = row->op == MM_OP_DELETE;
    const struct mm_value *given = mm_view_local(v, gone ? row->before : row->after, v->new);
    bool identity = !mm_apply_is_keyless(t, given);
    bool there = identity ? mm_target_read(t, db, given, v->current, err) != 0 : !gone;
    const struct mm_value *now = gone || !identity ? given : v->current;
    for (int k = 0; k < t->foreign->n && err->rc == SQLITE_OK && gone != there; k++) {
        struct link *l = &t->foreign->link[k];
        if (l->to_child == gone && askable(db, targets, l, err) && !any_null(l, now) &&
            other_exists(db, l, now, err) == gone) {
            mm_apply_conflict(db, t, how, MM_CONFLICT_FOREIGN_KEY, now, now, NULL, err);
            break;
        }
    }
    mm_target_done(t);
}

int mm_foreign_check(sqlite3 *db, struct mm_targets *targets, const struct mm_txn *txn, struct mm_apply_how *how,
                     struct mm_err *err)
{
    struct mm_arena a;
    size_t left = MM_FOREIGN_ROWS;
    if (!mm_targets_foreign(targets, err)) {
        return err->rc;
    }
    mm_arena_init(&a, (size_t)256 << 20);
    for (size_t k = 0; k < txn->ntab && err->rc == SQLITE_OK; k++) {
        const struct mm_tab *tab = &txn->tab[k];
        struct mm_target *t = mm_targets_get(targets, tab->name, err);
        struct mm_view v;
        if (t == NULL || t->state != MM_WATCHED || t->def == NULL || t->shard != how->shard ||
            foreign_of(db, t, err) == NULL || t->foreign->n == 0) {
            continue;
        }
        if (!mm_view_open(&v, &a, tab, t)) {
            mm_err_nomem(err);
            break;
        }
        if (mm_view_misfit(&v) != NULL) {
            continue;
        }
        for (size_t j = 0; j < tab->nrow && left > 0 && err->rc == SQLITE_OK; j++, left--) {
            check_row(db, targets, &v, &tab->row[j], how, err);
        }
    }
    mm_arena_free(&a);
    return err->rc;
}
