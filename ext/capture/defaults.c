#include "capture/defaults.h"

#include <stdlib.h>
#include <string.h>

#include "base/db.h"

#define WHOLE_MAX 9.0e18 /* what fits into 64 bits */

/* A literal as ALTER TABLE ADD COLUMN takes it. Whatever else a schema says is
** not run here: it may be anyone's. */
static bool is_literal(const char *text)
{
    size_t n = strlen(text);
    const char *quote = strchr(text, '\'');
    if (quote != NULL && (quote == text || (quote == text + 1 && (*text | ' ') == 'x'))) {
        size_t at = (size_t)(quote - text) + 1;
        while (at < n && (text[at] != '\'' || text[at + 1] == '\'')) {
            at += text[at] == '\'' ? 2 : 1;
        }
        return at + 1 == n;
    }
    const char *digits = text + (*text == '-' || *text == '+');
    return (*digits >= '0' && *digits <= '9') || *digits == '.'
               ? strspn(digits, ".0123456789eExXabcdefABCDEF") + digits == text + n
               : sqlite3_stricmp(text, "true") == 0 || sqlite3_stricmp(text, "false") == 0;
}

/* As SQLite stores it in a column of that affinity. */
static bool settle_default(sqlite3_value *v, uint8_t affinity, struct mm_value *out)
{
    bool numeric = affinity == MM_AFF_NUMERIC || affinity == MM_AFF_INTEGER;
    if (numeric || affinity == MM_AFF_REAL) {
        (void)sqlite3_value_numeric_type(v); /* a text that is a number becomes one */
    }
    if (!mm_value_from(out, v)) {
        return false;
    }
    if (affinity == MM_AFF_REAL && out->type == SQLITE_INTEGER) {
        out->type = SQLITE_FLOAT;
        out->u.r = (double)out->u.i;
    } else if (numeric && out->type == SQLITE_FLOAT && out->u.r > -WHOLE_MAX && out->u.r < WHOLE_MAX) {
        int64_t whole = (int64_t)out->u.r;
        bool same = (double)whole >= out->u.r && (double)whole <= out->u.r;
        out->type = same ? SQLITE_INTEGER : SQLITE_FLOAT;
        out->u.i = same ? whole : out->u.i;
    }
    return true;
}

/* A column's default when it is a literal, else NULL: sqlite3_free. */
static char *default_of(sqlite3 *db, const struct mm_table *t, const struct mm_column *c, struct mm_err *err)
{
    char *text = c->has_default
                     ? mm_db_text(db, err, "SELECT dflt_value FROM pragma_table_xinfo(%Q, 'main') WHERE name = %Q",
                                  t->name, c->name)
                     : NULL;
    if (text != NULL && !is_literal(text)) {
        sqlite3_free(text);
        text = NULL;
    }
    return text;
}

int mm_defaults_instead(sqlite3 *db, struct mm_table *t, struct mm_err *err)
{
    for (int k = 0; k < t->ncol && err->rc == SQLITE_OK; k++) {
        struct mm_column *c = &t->col[k];
        char *text = c->not_null && c->instead == NULL ? default_of(db, t, c, err) : NULL;
        c->instead = text != NULL ? strdup(text) : c->instead;
        if (text != NULL && c->instead == NULL) {
            mm_err_nomem(err);
        }
        sqlite3_free(text);
    }
    return err->rc;
}

bool mm_default_value(sqlite3 *db, const struct mm_table *t, int column, struct mm_arena *a, struct mm_value *out,
                      struct mm_err *err)
{
    const struct mm_column *c = &t->col[column];
    char *text = default_of(db, t, c, err);
    bool found = false;
    if (text != NULL) {
        sqlite3_stmt *st =
            mm_db_prepare(db, err, 0, c->affinity == MM_AFF_TEXT ? "SELECT CAST(%s AS TEXT)" : "SELECT %s", text);
        struct mm_value v;
        found = mm_db_step(st, err);
        sqlite3_value *own = found ? sqlite3_value_dup(sqlite3_column_value(st, 0)) : NULL;
        if (found && (own == NULL || !settle_default(own, c->affinity, &v) || !mm_value_copy(a, out, &v))) {
            mm_err_nomem(err);
        }
        sqlite3_value_free(own);
        mm_db_finalize(st);
    }
    sqlite3_free(text);
    return found && err->rc == SQLITE_OK;
}
