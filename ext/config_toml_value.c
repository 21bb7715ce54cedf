/* Values: texts of four kinds, numbers, truth values, arrays. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/sqlite.h"
#include "config_toml.h"

enum { DEPTH_MAX = 32, TEXT_MAX = 1 << 20 };

static bool ahead(const struct mm_toml *t, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(t->end - t->at) >= n && memcmp(t->at, word, n) == 0;
}

static void put_utf8(struct mm_buf *b, uint32_t c)
{
    if (c < 0x80) {
        mm_buf_byte(b, (uint8_t)c);
    } else if (c < 0x800) {
        mm_buf_byte(b, (uint8_t)(0xC0 | c >> 6));
        mm_buf_byte(b, (uint8_t)(0x80 | (c & 0x3F)));
    } else if (c < 0x10000) {
        mm_buf_byte(b, (uint8_t)(0xE0 | c >> 12));
        mm_buf_byte(b, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        mm_buf_byte(b, (uint8_t)(0x80 | (c & 0x3F)));
    } else {
        mm_buf_byte(b, (uint8_t)(0xF0 | c >> 18));
        mm_buf_byte(b, (uint8_t)(0x80 | (c >> 12 & 0x3F)));
        mm_buf_byte(b, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        mm_buf_byte(b, (uint8_t)(0x80 | (c & 0x3F)));
    }
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void unicode(struct mm_toml *t, int digits, struct mm_buf *out)
{
    uint32_t c = 0;
    const char *where = t->at - 2;
    for (int k = 0; k < digits; k++) {
        int d = t->at < t->end ? hex_digit(*t->at) : -1;
        if (d < 0) {
            mm_toml_fail(t, where, "\\%c takes %d hexadecimal digits", digits == 4 ? 'u' : 'U', digits);
            return;
        }
        c = c << 4 | (uint32_t)d;
        t->at++;
    }
    if (c == 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) {
        mm_toml_fail(t, where, "no character has this number, or it is NUL");
        return;
    }
    put_utf8(out, c);
}

/* Behind a backslash. */
static void escape(struct mm_toml *t, struct mm_buf *out)
{
    static const char names[] = "btnfr\"\\";
    static const char meant[] = "\b\t\n\f\r\"\\";
    char c = t->at < t->end ? *t->at++ : '\0';
    const char *found = c != '\0' ? strchr(names, c) : NULL;
    if (found != NULL) {
        mm_buf_byte(out, (uint8_t)meant[found - names]);
    } else if (c == 'u' || c == 'U') {
        unicode(t, c == 'u' ? 4 : 8, out);
    } else {
        mm_toml_fail(t, t->at - 1,
                     "this escape does not exist; a backslash itself is written \\\\, or 'between single quotes'");
    }
}

static bool unprintable(char c)
{
    unsigned char u = (unsigned char)c;
    return (u < 0x20 && u != '\t') || u == 0x7F;
}

void mm_toml_string(struct mm_toml *t, struct mm_buf *out)
{
    char quote = *t->at++;
    const char *from = t->at - 1;
    while (t->err->rc == SQLITE_OK && t->at < t->end && *t->at != quote) {
        char c = *t->at++;
        if (c == '\n' || (c == '\r' && t->at < t->end && *t->at == '\n')) {
            t->at = t->end; /* not closed in its line */
        } else if (unprintable(c)) {
            mm_toml_fail(t, t->at - 1, "a control character in a text");
        } else if (c == '\\' && quote == '"') {
            escape(t, out);
        } else {
            mm_buf_byte(out, (uint8_t)c);
        }
    }
    if (t->err->rc == SQLITE_OK && t->at == t->end) {
        mm_toml_fail(t, from, "the text that begins here is not closed in its line");
    }
    t->at += t->at < t->end;
}

/* A backslash at the end of a line swallows all blanks up to the next word. */
static bool swallowed(struct mm_toml *t)
{
    const char *p = t->at;
    while (p < t->end && (*p == ' ' || *p == '\t')) {
        p++;
    }
    if (p == t->end || (*p != '\n' && !(*p == '\r' && p + 1 < t->end && p[1] == '\n'))) {
        return false;
    }
    while (p < t->end && (*p == ' ' || *p == '\t' || *p == '\n' || (*p == '\r' && p + 1 < t->end && p[1] == '\n'))) {
        p++;
    }
    t->at = p;
    return true;
}

/* Between three quotes; up to two more may stand right before the closing ones. */
static void long_string(struct mm_toml *t, struct mm_buf *out)
{
    char quote = *t->at;
    const char closing[] = { quote, quote, quote, '\0' };
    const char *from = t->at;
    t->at += 3;
    if (ahead(t, "\n") || ahead(t, "\r\n")) {
        t->at += *t->at == '\r' ? 2 : 1;
    }
    while (t->err->rc == SQLITE_OK && t->at < t->end && !ahead(t, closing)) {
        char c = *t->at++;
        bool line_end = c == '\n' || (c == '\r' && t->at < t->end && *t->at == '\n');
        if (unprintable(c) && !line_end) {
            mm_toml_fail(t, t->at - 1, "a control character in a text");
        } else if (c != '\\' || quote != '"') {
            mm_buf_byte(out, (uint8_t)c);
        } else if (!swallowed(t)) {
            escape(t, out);
        }
    }
    if (t->err->rc == SQLITE_OK && t->at == t->end) {
        mm_toml_fail(t, from, "the text that begins here is not closed");
    }
    if (t->err->rc != SQLITE_OK) {
        return;
    }
    t->at += 3;
    for (int k = 0; k < 2 && t->at < t->end && *t->at == quote; k++) {
        mm_buf_byte(out, (uint8_t)*t->at++);
    }
}

static json_t *text(struct mm_toml *t)
{
    struct mm_buf b;
    json_t *v = NULL;
    mm_buf_init(&b, TEXT_MAX);
    if (ahead(t, "\"\"\"") || ahead(t, "'''")) {
        long_string(t, &b);
    } else {
        mm_toml_string(t, &b);
    }
    if (mm_buf_check(&b, t->err, "a text") == SQLITE_OK) {
        v = json_stringn(b.len > 0 ? (const char *)b.data : "", b.len);
        if (v == NULL) {
            mm_err_nomem(t->err);
        }
    }
    if (b.data != NULL) {
        explicit_bzero(b.data, b.len);
    }
    mm_buf_free(&b);
    return v;
}

/* Digits of a base with single _ between them into `out`; false when there are
** none, or a _ stands elsewhere. */
static bool digits(struct mm_toml *t, int base, struct mm_buf *out)
{
    bool last = false; /* the character before was a digit */
    while (t->at < t->end) {
        int d = hex_digit(*t->at);
        if (d >= 0 && d < base) {
            mm_buf_byte(out, (uint8_t)*t->at);
            last = true;
        } else if (*t->at == '_' && last) {
            last = false;
        } else {
            break;
        }
        t->at++;
    }
    return last;
}

static json_t *whole(struct mm_toml *t, const char *where, const char *written, int base)
{
    errno = 0;
    long long v = strtoll(written, NULL, base);
    if (errno == ERANGE) {
        mm_toml_fail(t, where, "a number too large for 64 bits");
        return NULL;
    }
    json_t *n = json_integer(v);
    if (n == NULL) {
        mm_err_nomem(t->err);
    }
    return n;
}

/* Behind the digits before it: fraction and exponent. True when there is one;
** err is set when it is malformed. */
static bool fraction(struct mm_toml *t, const char *where, struct mm_buf *b)
{
    bool real = false;
    bool good = true;
    if (t->at < t->end && *t->at == '.') {
        t->at++;
        real = true;
        good = digits(t, 10, b);
    }
    if (good && t->at < t->end && (*t->at == 'e' || *t->at == 'E')) {
        t->at++;
        t->at += t->at < t->end && (*t->at == '+' || *t->at == '-');
        real = true;
        good = digits(t, 10, b);
    }
    if (!good) {
        mm_toml_fail(t, where, "this number is malformed");
    }
    return real;
}

static json_t *number(struct mm_toml *t)
{
    struct mm_buf b;
    json_t *v = NULL;
    const char *where = t->at;
    mm_buf_init(&b, 4096);
    bool sign = *t->at == '+' || *t->at == '-';
    if (sign) {
        mm_buf_byte(&b, (uint8_t)*t->at++);
    }
    int base = sign ? 10 : ahead(t, "0x") ? 16 : ahead(t, "0o") ? 8 : ahead(t, "0b") ? 2 : 10;
    t->at += base != 10 ? 2 : 0;
    const char *first = t->at;
    bool good = digits(t, base, &b);
    bool leading = base == 10 && first < t->end && *first == '0' && t->at - first > 1;
    char *written = NULL;
    if (t->at < t->end && (*t->at == '-' || *t->at == ':')) {
        mm_toml_fail(t, where, "dates and times have no meaning here");
    } else if (ahead(t, "inf") || ahead(t, "nan")) {
        mm_toml_fail(t, where, "inf and nan have no meaning here");
    } else if (!good || leading) {
        mm_toml_fail(t, where, "a value is expected: a text in quotes, a number, true, false, [ ] or { }");
    } else if (base == 10 && fraction(t, where, &b)) {
        v = t->err->rc == SQLITE_OK ? json_real(0.5) : NULL; /* no key takes one: only that it is one matters */
    } else if (mm_buf_check(&b, t->err, "a number") == SQLITE_OK && (written = mm_buf_take(&b)) != NULL) {
        v = whole(t, where, written, base);
    }
    if (v == NULL && t->err->rc == SQLITE_OK) {
        mm_err_nomem(t->err);
    }
    free(written);
    mm_buf_free(&b);
    return v;
}

static json_t *array(struct mm_toml *t)
{
    json_t *list = json_array();
    if (list == NULL) {
        mm_err_nomem(t->err);
        return NULL;
    }
    t->at++;
    mm_toml_blank_lines(t);
    while (t->err->rc == SQLITE_OK && t->at < t->end && *t->at != ']') {
        json_t *item = mm_toml_value(t);
        if (item != NULL && json_array_append_new(list, item) != 0) {
            mm_err_nomem(t->err);
        }
        mm_toml_blank_lines(t);
        if (t->err->rc == SQLITE_OK && t->at < t->end && *t->at == ',') {
            t->at++;
            mm_toml_blank_lines(t);
        } else if (t->err->rc == SQLITE_OK && !(t->at < t->end && *t->at == ']')) {
            mm_toml_fail(t, t->at, ", or ] is expected");
        }
    }
    if (t->err->rc == SQLITE_OK && t->at == t->end) {
        mm_toml_fail(t, t->at, "the array is not closed: ] is missing");
    }
    if (t->err->rc != SQLITE_OK) {
        json_decref(list);
        return NULL;
    }
    t->at++;
    return list;
}

json_t *mm_toml_value(struct mm_toml *t)
{
    json_t *v = NULL;
    char c = t->at < t->end ? *t->at : '\0';
    if (t->err->rc != SQLITE_OK) {
        return NULL;
    }
    if (++t->depth > DEPTH_MAX) {
        mm_toml_fail(t, t->at, "nested deeper than %d", DEPTH_MAX);
    } else if (t->at == t->end) {
        mm_toml_fail(t, t->at, "a value is expected, and the text ends");
    } else if (c == '"' || c == '\'') {
        v = text(t);
    } else if (c == '[') {
        v = array(t);
    } else if (c == '{') {
        v = mm_toml_inline_table(t);
    } else if (ahead(t, "true") || ahead(t, "false")) {
        v = json_boolean(c == 't');
        t->at += c == 't' ? 4 : 5;
    } else {
        v = number(t);
    }
    t->depth--;
    return v;
}
