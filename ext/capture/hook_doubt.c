/* A row of which the hook was told too early that it goes: OR REPLACE does so where one has the rowid of the
** new row, before SQLite looks at the types that a STRICT table wants, or how long the new row is. Where that
** fails nothing is rolled back, for nothing was done, and nobody tells of it. So at the next call of the hook,
** or at the commit, the table itself is asked whether the row has gone. */
#include <string.h>

#include "base/db.h"
#include "capture/hook_int.h"

enum { USUAL_LENGTH = 1000000000 }; /* a lower SQLITE_LIMIT_LENGTH is the application's: rows may meet it */

static const char *rowid_of(const struct mm_table *t)
{
    const char *name = mm_rowid_name(t);
    for (int k = 0; k < t->ncol && name == NULL && t->integer_key; k++) {
        name = t->col[k].pk != 0 ? t->col[k].name : NULL;
    }
    return name;
}

bool mm_doubt_due(const struct mm_hook *h, const struct mm_entry *e)
{
    bool late = e->types_late || sqlite3_limit(h->db, SQLITE_LIMIT_LENGTH, -1) < USUAL_LENGTH;
    return late && !e->t->without_rowid && rowid_of(e->t) != NULL;
}

void mm_doubt_keep(struct mm_hook *h, struct mm_entry *e, sqlite3_int64 rowid, const struct mm_mark *before)
{
    h->doubt = (struct mm_doubt){ .entry = e, .rowid = rowid, .before = *before, .end = h->now.data };
}

char *mm_doubt_sql(const struct mm_hook *h)
{
    return sqlite3_mprintf("SELECT 1 FROM main.\"%w\" WHERE \"%w\" = ?2 AND ?1 IS NULL", h->asked->name,
                           rowid_of(h->asked->t));
}

static bool still_there(struct mm_hook *h, struct mm_err *err)
{
    if (h->asked != h->doubt.entry) {
        mm_kept_drop(h, MM_KEPT_DOUBT);
        h->asked = h->doubt.entry;
    }
    sqlite3_stmt *st = mm_kept_get(h, MM_KEPT_DOUBT, err);
    if (st != NULL && sqlite3_bind_int64(st, 2, h->doubt.rowid) != SQLITE_OK) {
        mm_err_nomem(err);
    }
    bool found = mm_db_step(st, err) == 1;
    mm_kept_done(h, MM_KEPT_DOUBT);
    return found;
}

void mm_doubt_settle(struct mm_hook *h, struct mm_err *err)
{
    struct mm_doubt d = h->doubt;
    if (d.entry == NULL || h->now.data != d.end || err->rc != SQLITE_OK) { /* else a savepoint has taken it back */
        h->doubt.entry = NULL;
        return;
    }
    struct mm_err unread;
    mm_err_init(&unread);
    bool stays = still_there(h, &unread);
    if (unread.rc != SQLITE_OK && (unread.rc & 0xff) != SQLITE_AUTH) { /* denied: as if it had gone */
        *err = unread;
    }
    h->doubt.entry = NULL;
    if (stays && unread.rc == SQLITE_OK) {
        mm_hook_cut(h, &d.before);
        for (size_t k = 0; k < h->nmark; k++) {
            h->mark[k] = h->mark[k].data > d.before.data ? d.before : h->mark[k];
        }
    }
}

void mm_doubt_next(struct mm_hook *h, int op, const char *schema, const char *table, sqlite3_int64 rowid)
{
    const struct mm_doubt *d = &h->doubt;
    bool here = h->now.data == d->end && strcmp(schema, "main") == 0 && strcmp(d->entry->name, table) == 0;
    bool replaced = here && op != SQLITE_DELETE && rowid == d->rowid;
    /* The row that goes first may still be there when the others go that are in the new one's way. */
    bool among_others = here && op == SQLITE_DELETE && d->entry->t->nunique > 0;
    if (replaced || among_others) {
        h->doubt.entry = NULL;
    } else {
        mm_doubt_settle(h, &h->failed);
    }
}
