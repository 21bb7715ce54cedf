/* Tables and keys. A table can be opened once; what may still be added to it
** depends on how it came to be. */
#include "config_toml.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/sqlite.h"

enum { TABLES_MAX = 1000, KEY_MAX = 1024 };

enum origin {
    IMPLIED, /* [a.b] makes a */
    OPENED,  /* by a header of its own */
    DOTTED,  /* a.b = 1 makes a */
    CLOSED,  /* { } */
};

struct mm_toml_table {
    const json_t *object;
    enum origin origin;
};

int mm_toml_fail(struct mm_toml *t, const char *at, const char *fmt, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    int line = 1;
    const char *from = t->begin;
    for (const char *p = t->begin; p < at; p++) {
        if (*p == '\n') {
            line++;
            from = p + 1;
        }
    }
    return mm_err_set(t->err, SQLITE_ERROR, "line %d, column %d: %s", line, (int)(at - from) + 1, why);
}

void mm_toml_blanks(struct mm_toml *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\t')) {
        t->at++;
    }
}

static void comment(struct mm_toml *t)
{
    if (t->at == t->end || *t->at != '#') {
        return;
    }
    while (t->at < t->end && *t->at != '\n') {
        unsigned char c = (unsigned char)*t->at;
        bool line_end = c == '\r' && t->at + 1 < t->end && t->at[1] == '\n';
        if ((c < 0x20 && c != '\t' && !line_end) || c == 0x7F) {
            mm_toml_fail(t, t->at, "a control character in a comment");
            return;
        }
        t->at++;
    }
}

/* True when a line end was there. */
static bool line_end(struct mm_toml *t)
{
    if (t->at < t->end && *t->at == '\n') {
        t->at++;
        return true;
    }
    if (t->end - t->at >= 2 && t->at[0] == '\r' && t->at[1] == '\n') {
        t->at += 2;
        return true;
    }
    return false;
}

void mm_toml_blank_lines(struct mm_toml *t)
{
    do {
        mm_toml_blanks(t);
        comment(t);
    } while (t->err->rc == SQLITE_OK && line_end(t));
}

static struct mm_toml_table *find(struct mm_toml *t, const json_t *object)
{
    for (size_t k = 0; k < t->ntable; k++) {
        if (t->table[k].object == object) {
            return &t->table[k];
        }
    }
    return NULL;
}

static void note(struct mm_toml *t, const json_t *object, enum origin origin)
{
    if (t->ntable == TABLES_MAX) {
        mm_toml_fail(t, t->at, "more than %d tables", TABLES_MAX);
        return;
    }
    if (t->ntable == t->cap) {
        size_t cap = t->cap == 0 ? 32 : t->cap * 2;
        struct mm_toml_table *p = realloc(t->table, cap * sizeof *p);
        if (p == NULL) {
            mm_err_nomem(t->err);
            return;
        }
        t->table = p;
        t->cap = cap;
    }
    t->table[t->ntable++] = (struct mm_toml_table){ object, origin };
}

static bool bare(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* One part of a key into `name`; "" with err set. */
static void key_part(struct mm_toml *t, char name[KEY_MAX])
{
    struct mm_buf b;
    mm_buf_init(&b, KEY_MAX - 1);
    const char *from = t->at;
    if (t->at < t->end && (*t->at == '"' || *t->at == '\'')) {
        if (t->end - t->at >= 3 && t->at[1] == t->at[0] && t->at[2] == t->at[0]) {
            mm_toml_fail(t, t->at, "a key cannot be a text of several lines");
        } else {
            mm_toml_string(t, &b);
        }
    } else {
        while (t->at < t->end && bare(*t->at)) {
            mm_buf_byte(&b, (uint8_t)*t->at++);
        }
        if (t->at == from) {
            mm_toml_fail(t, from, "a key is expected: letters, digits, - and _, or a text in quotes");
        }
    }
    if (t->err->rc == SQLITE_OK && mm_buf_failed(&b)) {
        mm_toml_fail(t, from, "a key of more than %d bytes", KEY_MAX - 1);
    }
    size_t n = t->err->rc == SQLITE_OK ? b.len : 0;
    if (n > 0) {
        memcpy(name, b.data, n);
    }
    name[n] = '\0';
    mm_buf_free(&b);
}

static bool dot(struct mm_toml *t)
{
    mm_toml_blanks(t);
    if (t->at < t->end && *t->at == '.') {
        t->at++;
        mm_toml_blanks(t);
        return true;
    }
    return false;
}

/* The table `name` of `in`, made when it is missing; NULL with err set. */
static json_t *step_into(struct mm_toml *t, json_t *in, const char *name, const char *where, bool header)
{
    json_t *next = json_object_get(in, name);
    if (next == NULL) {
        next = json_object();
        if (next == NULL || json_object_set_new(in, name, next) != 0) {
            mm_err_nomem(t->err);
            return NULL;
        }
        note(t, next, header ? IMPLIED : DOTTED);
        return t->err->rc == SQLITE_OK ? next : NULL;
    }
    const struct mm_toml_table *known = json_is_object(next) ? find(t, next) : NULL;
    if (known == NULL) {
        mm_toml_fail(t, where, "%.80s has a value already and is no table", name);
        return NULL;
    }
    if (known->origin == CLOSED || (!header && known->origin != DOTTED)) {
        mm_toml_fail(t, where, "table %.80s is given elsewhere and cannot be added to here", name);
        return NULL;
    }
    return next;
}

/* key = value in `in`. */
static void assignment(struct mm_toml *t, json_t *in)
{
    char name[KEY_MAX];
    const char *where = t->at;
    key_part(t, name);
    while (t->err->rc == SQLITE_OK && dot(t)) {
        in = step_into(t, in, name, where, false);
        if (in == NULL) {
            return;
        }
        where = t->at;
        key_part(t, name);
    }
    if (t->err->rc != SQLITE_OK) {
        return;
    }
    if (t->at == t->end || *t->at != '=') {
        mm_toml_fail(t, t->at, "= is expected behind the key");
        return;
    }
    t->at++;
    mm_toml_blanks(t);
    if (json_object_get(in, name) != NULL) {
        mm_toml_fail(t, where, "key %.80s is given twice", name);
        return;
    }
    json_t *v = mm_toml_value(t);
    if (v != NULL && json_object_set_new(in, name, v) != 0) {
        mm_err_nomem(t->err);
    }
}

/* Keeps to one line, as TOML 1.0 wants it. */
json_t *mm_toml_inline_table(struct mm_toml *t)
{
    json_t *object = json_object();
    if (object == NULL) {
        mm_err_nomem(t->err);
        return NULL;
    }
    note(t, object, DOTTED); /* while it is being filled */
    t->at++;
    mm_toml_blanks(t);
    bool more = t->err->rc == SQLITE_OK && !(t->at < t->end && *t->at == '}');
    while (more && t->err->rc == SQLITE_OK) {
        assignment(t, object);
        mm_toml_blanks(t);
        more = t->at < t->end && *t->at == ',';
        if (more) {
            t->at++;
            mm_toml_blanks(t);
        }
    }
    if (t->err->rc == SQLITE_OK && (t->at == t->end || *t->at != '}')) {
        mm_toml_fail(t, t->at, ", or } is expected");
    }
    if (t->err->rc != SQLITE_OK) {
        json_decref(object);
        return NULL;
    }
    t->at++;
    /* Tables made inside are the last ones of the list. */
    for (size_t k = t->ntable; k-- > 0;) {
        t->table[k].origin = CLOSED;
        if (t->table[k].object == object) {
            break;
        }
    }
    return object;
}

/* [a.b]; the table that follows. */
static json_t *header(struct mm_toml *t)
{
    char name[KEY_MAX];
    const char *where = t->at;
    json_t *in = t->root;
    t->at++;
    if (t->at < t->end && *t->at == '[') {
        mm_toml_fail(t, where, "lists of tables ([[ ]]) have no meaning here");
        return NULL;
    }
    mm_toml_blanks(t);
    key_part(t, name);
    while (t->err->rc == SQLITE_OK && dot(t)) {
        in = step_into(t, in, name, where, true);
        if (in == NULL) {
            return NULL;
        }
        key_part(t, name);
    }
    if (t->err->rc == SQLITE_OK && (t->at == t->end || *t->at != ']')) {
        mm_toml_fail(t, t->at, "] is expected behind the table's name");
    }
    if (t->err->rc != SQLITE_OK) {
        return NULL;
    }
    t->at++;
    in = step_into(t, in, name, where, true);
    struct mm_toml_table *known = in != NULL ? find(t, in) : NULL;
    if (known == NULL) {
        return NULL;
    }
    if (known->origin != IMPLIED) {
        mm_toml_fail(t, where, "table %.80s is given twice", name);
        return NULL;
    }
    known->origin = OPENED;
    return in;
}

/* First byte that is not part of UTF-8 text, NULL when all is well. */
static const char *not_utf8(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char *end = p + len;
    while (p < end) {
        unsigned char c = *p;
        size_t more = c < 0x80                 ? 0
                      : c >= 0xC2 && c <= 0xDF ? 1
                      : (c & 0xF0) == 0xE0     ? 2
                      : c >= 0xF0 && c <= 0xF4 ? 3
                                               : SIZE_MAX; /* begins no character */
        if (more > (size_t)(end - p - 1)) {
            return (const char *)p;
        }
        for (size_t k = 1; k <= more; k++) {
            if ((p[k] & 0xC0) != 0x80) {
                return (const char *)p;
            }
        }
        bool wrong = (c == 0xE0 && p[1] < 0xA0) || (c == 0xED && p[1] > 0x9F) || (c == 0xF0 && p[1] < 0x90) ||
                     (c == 0xF4 && p[1] > 0x8F);
        if (wrong) {
            return (const char *)p;
        }
        p += more + 1;
    }
    return NULL;
}

static void document(struct mm_toml *t)
{
    json_t *table = t->root;
    const char *odd = not_utf8(t->begin, (size_t)(t->end - t->begin));
    if (odd != NULL) {
        mm_toml_fail(t, odd, "the text is not UTF-8");
    }
    note(t, t->root, OPENED);
    if (t->end - t->at >= 3 && memcmp(t->at, "\xEF\xBB\xBF", 3) == 0) {
        t->at += 3; /* an editor's mark */
    }
    for (;;) {
        mm_toml_blank_lines(t);
        if (t->err->rc != SQLITE_OK || t->at == t->end) {
            return;
        }
        if (*t->at == '[') {
            table = header(t);
        } else {
            assignment(t, table);
        }
        if (t->err->rc != SQLITE_OK) {
            return;
        }
        mm_toml_blanks(t);
        comment(t);
        if (t->err->rc == SQLITE_OK && t->at < t->end && !line_end(t)) {
            mm_toml_fail(t, t->at, "a line end is expected behind what is complete");
        }
    }
}

json_t *mm_toml_parse(const char *text, size_t len, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    struct mm_toml t = { .begin = text, .at = text, .end = text + len, .err = err, .root = json_object() };
    if (t.root == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    document(&t);
    free(t.table);
    if (err->rc != SQLITE_OK) {
        json_decref(t.root);
        return NULL;
    }
    return t.root;
}
