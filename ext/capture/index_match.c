/* A UNIQUE rule, of expressions or for a part of the rows, as a condition in a
** trigger. What it says of NEW is asked of a row made of NEW's values, so that
** the text of the rule itself serves for both sides:
**   (lower(a))=(SELECT lower(a) FROM (SELECT NEW."a" AS "a") AS "t") */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "capture/index_rule.h"
#include "capture/tables.h"

/* A rule on its way to a condition. */
struct rule {
    sqlite3 *db;
    const struct mm_table *t;
    char **column; /* all of the table, generated ones too */
    int ncolumn;
    const char *row; /* "NEW." in the trigger, NULL for a trial */
    struct mm_err *err;
};

static const char *behind_quote(const char *p)
{
    char end = *p == '[' ? ']' : *p;
    for (p++; *p != '\0' && (*p != end || (end != ']' && p[1] == end)); p++) {
        p += *p == end;
    }
    return *p != '\0' ? p + 1 : p;
}

static bool is_quote(char c)
{
    return c == '"' || c == '\'' || c == '`' || c == '[';
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

/* The end of the term at p: a comma or the closing parenthesis. */
static const char *term_end(const char *p)
{
    for (int depth = 0; *p != '\0';) {
        if (is_quote(*p)) {
            p = behind_quote(p);
            continue;
        }
        if (depth == 0 && (*p == ',' || *p == ')')) {
            return p;
        }
        depth += *p == '(' ? 1 : *p == ')' ? -1 : 0;
        p++;
    }
    return p;
}

/* Without ASC or DESC. */
static size_t order_cut(const char *p, size_t n)
{
    static const char *const orders[] = { "asc", "desc" };
    for (int k = 0; k < 2; k++) {
        size_t len = strlen(orders[k]);
        if (n > len && memcmp(p + n - len, orders[k], len) == 0 && !is_word(p[n - len - 1])) {
            n -= len;
            return n - (p[n - 1] == ' ');
        }
    }
    return n;
}

static bool same_name(const char *column, const char *p, size_t n)
{
    bool quoted = is_quote(*p);
    const char *end = p + n - (quoted ? 1 : 0);
    for (p += quoted; p < end; p++, column++) {
        p += quoted && *p == end[0] && p + 1 < end; /* doubled */
        if (tolower((unsigned char)*p) != tolower((unsigned char)*column)) {
            return false;
        }
    }
    return *column == '\0';
}

/* True when the text names the column; a name before a parenthesis is a function. */
static bool names_column(const char *p, const char *end, const char *column)
{
    while (p < end) {
        const char *q = p + 1;
        if (is_quote(*p)) {
            q = behind_quote(p);
        } else if (is_word(*p)) {
            while (q < end && is_word(*q)) {
                q++;
            }
        } else {
            p = q;
            continue;
        }
        if (*p != '\'' && *q != '(' && same_name(column, p, (size_t)(q - p))) {
            return true;
        }
        p = q;
    }
    return false;
}

/* The row that the text is asked of. */
static void put_row(const struct rule *r, sqlite3_str *s, const char *from, const char *end)
{
    const char *glue = "(SELECT ";
    for (int k = 0; k < r->ncolumn; k++) {
        if (!names_column(from, end, r->column[k])) {
            continue;
        }
        if (r->row != NULL) {
            sqlite3_str_appendf(s, "%s%s\"%w\" AS \"%w\"", glue, r->row, r->column[k], r->column[k]);
        } else {
            sqlite3_str_appendf(s, "%sNULL AS \"%w\"", glue, r->column[k]);
        }
        glue = ",";
    }
    sqlite3_str_appendf(s, "%s) AS \"%w\"", glue[0] == ',' ? "" : "(SELECT 1", r->t->name);
}

/* NEW's rowid is not known before the INSERT: -1 stands for any. */
static void put_unless_new(const struct rule *r, sqlite3_str *s, const char *from, const char *end)
{
    for (int k = 0; r->t->integer_key && k < r->t->ncol; k++) {
        if (r->t->col[k].pk != 0 && names_column(from, end, r->t->col[k].name)) {
            sqlite3_str_appendf(s, "%s\"%w\" IS -1 OR ", r->row != NULL ? r->row : "", r->t->col[k].name);
        }
    }
}

static void put_term(const struct rule *r, sqlite3_str *s, const char *from, size_t n, bool where)
{
    /* Of a constraint: "name"collation. */
    const char *behind = is_quote(*from) ? behind_quote(from) : from;
    bool bare =
        !where && behind > from && behind < from + n && is_word(*behind) && sqlite3_strnicmp(behind, "collate", 7) != 0;
    int name = bare ? (int)(behind - from) : (int)n;
    const char *collate = bare ? " COLLATE " : "";
    int rest = (int)n - name;
    sqlite3_str_appendall(s, "(");
    put_unless_new(r, s, from, from + n);
    sqlite3_str_appendf(s, "(%.*s%s%.*s)%s(SELECT %.*s FROM ", name, from, collate, rest, behind, where ? " AND " : "=",
                        name, from);
    put_row(r, s, from, from + n);
    sqlite3_str_appendall(s, "))");
}

/* Terms in parentheses, and what stands behind WHERE. */
static char *condition(const struct rule *r, const char *rule)
{
    sqlite3_str *s = sqlite3_str_new(NULL);
    const char *p = rule + strcspn(rule, "(");
    const char *glue = "";
    while (*p == '(' || *p == ',') {
        const char *end = term_end(++p);
        sqlite3_str_appendall(s, glue);
        put_term(r, s, p, order_cut(p, (size_t)(end - p)), false);
        glue = " AND ";
        p = end;
    }
    p += *p == ')';
    if (strncmp(p, "where", strlen("where")) == 0) {
        p += strlen("where");
        sqlite3_str_appendall(s, glue);
        put_term(r, s, p, strlen(p), true);
    }
    char *text = sqlite3_str_finish(s);
    if (text == NULL) {
        mm_err_nomem(r->err);
    }
    return text;
}

static char *differs(const struct rule *r, const char *rule)
{
    sqlite3_str *s = sqlite3_str_new(NULL);
    const char *glue = "(";
    for (int k = 0; k < r->ncolumn; k++) {
        if (names_column(rule, rule + strlen(rule), r->column[k])) {
            sqlite3_str_appendf(s, "%sNEW.\"%w\" IS NOT OLD.\"%w\"", glue, r->column[k], r->column[k]);
            glue = " OR ";
        }
    }
    sqlite3_str_appendall(s, glue[0] == '(' ? "(1)" : ")");
    return sqlite3_str_finish(s);
}

/* What only an index takes (a text in double quotes for one) must not make every
** later write fail. */
static bool is_taken(struct rule *r, const char *rule)
{
    sqlite3_stmt *st = NULL;
    r->row = NULL;
    char *text = condition(r, rule);
    char *sql = text != NULL ? sqlite3_mprintf("SELECT 1 FROM main.\"%w\" WHERE %s", r->t->name, text) : NULL;
    int rc = sql != NULL ? sqlite3_prepare_v2(r->db, sql, -1, &st, NULL) : SQLITE_NOMEM;
    if ((rc & 0xff) == SQLITE_NOMEM) {
        mm_err_nomem(r->err);
    }
    sqlite3_finalize(st);
    sqlite3_free(sql);
    sqlite3_free(text);
    r->row = "NEW.";
    return rc == SQLITE_OK;
}

static char *take(char *text, struct mm_err *err)
{
    char *copy = text != NULL ? strdup(text) : NULL;
    if (copy == NULL) {
        mm_err_nomem(err);
    }
    sqlite3_free(text);
    return copy;
}

static void load_columns(struct rule *r)
{
    int n = (int)mm_db_int(r->db, r->err, 0, "SELECT count(*) FROM pragma_table_xinfo(%Q, 'main')", r->t->name);
    sqlite3_stmt *st =
        mm_db_prepare(r->db, r->err, 0, "SELECT name FROM pragma_table_xinfo(%Q, 'main') ORDER BY cid", r->t->name);
    r->column = calloc((size_t)n + 1, sizeof(char *));
    while (r->column != NULL && r->ncolumn < n && mm_db_step(st, r->err)) {
        const char *name = (const char *)sqlite3_column_text(st, 0);
        r->column[r->ncolumn] = name != NULL ? strdup(name) : NULL;
        if (r->column[r->ncolumn] == NULL) {
            mm_err_nomem(r->err);
            break;
        }
        r->ncolumn++;
    }
    if (r->column == NULL) {
        mm_err_nomem(r->err);
    }
    mm_db_finalize(st);
}

int mm_index_match(sqlite3 *db, struct mm_table *t, struct mm_err *err)
{
    struct rule r = { .db = db, .t = t, .row = "NEW.", .err = err };
    for (int k = 0; k < t->nunique && err->rc == SQLITE_OK; k++) {
        struct mm_unique *u = &t->unique[k];
        if (u->rule == NULL || u->match != NULL) {
            continue;
        }
        if (r.column == NULL) {
            load_columns(&r);
        }
        if (err->rc == SQLITE_OK && is_taken(&r, u->rule)) {
            u->match = take(condition(&r, u->rule), err);
            u->differs = take(differs(&r, u->rule), err);
        }
    }
    for (int k = 0; k < r.ncolumn; k++) {
        free(r.column[k]);
    }
    free(r.column);
    return err->rc;
}
