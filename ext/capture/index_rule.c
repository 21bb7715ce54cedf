#include "capture/index_rule.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"

/* The end of what is quoted at p: a doubled quote stands for itself. */
static const char *skip_quoted(const char *p)
{
    char end = *p == '[' ? ']' : *p;
    for (p++; *p != '\0'; p++) {
        if (*p == end && (end == ']' || p[1] != end)) {
            return p + 1;
        }
        p += *p == end;
    }
    return p;
}

static bool is_quote(char c)
{
    return c == '"' || c == '\'' || c == '`' || c == '[';
}

static const char *skip_space(const char *p)
{
    for (;;) {
        if (isspace((unsigned char)*p)) {
            p++;
        } else if (p[0] == '-' && p[1] == '-') {
            p += strcspn(p, "\n");
        } else if (p[0] == '/' && p[1] == '*') {
            const char *end = strstr(p + 2, "*/");
            p = end != NULL ? end + 2 : p + strlen(p);
        } else {
            return p;
        }
    }
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

static const char *skip_name(const char *p)
{
    if (is_quote(*p)) {
        return skip_quoted(p);
    }
    while (is_word(*p)) {
        p++;
    }
    return p;
}

/* SQLite stores "CREATE UNIQUE INDEX name ON table(...". */
static const char *behind_table(const char *sql)
{
    for (int k = 0; k < 6; k++) {
        sql = skip_name(skip_space(sql));
    }
    return skip_space(sql);
}

static void put_normal(struct mm_buf *b, const char *p)
{
    while (*p != '\0') {
        const char *next = is_quote(*p) || is_word(*p) ? skip_name(p) : p + 1;
        for (const char *c = p; c < next; c++) {
            mm_buf_byte(b, (uint8_t)(is_quote(*p) ? *c : tolower((unsigned char)*c)));
        }
        p = skip_space(next);
        if (p != next && is_word(next[-1]) && is_word(*p)) {
            mm_buf_byte(b, ' ');
        }
    }
}

char *mm_index_rule(sqlite3 *db, const char *index, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, (size_t)1 << 30);
    char *sql = mm_db_text(db, err, "SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = %Q", index);
    if (err->rc == SQLITE_OK && sql == NULL) {
        sql = mm_db_text(db, err,
                         "SELECT 'UNIQUE (' || group_concat('\"' || name || '\"' || coll) || ')'"
                         " FROM (SELECT name, coll FROM pragma_index_xinfo(%Q, 'main') WHERE key ORDER BY seqno)",
                         index);
        put_normal(&b, sql != NULL ? sql : "");
    } else {
        put_normal(&b, behind_table(sql != NULL ? sql : ""));
    }
    sqlite3_free(sql);
    char *rule = err->rc == SQLITE_OK ? mm_buf_take(&b) : NULL;
    mm_buf_free(&b);
    if (rule == NULL && err->rc == SQLITE_OK) {
        mm_err_nomem(err);
    }
    return rule;
}
