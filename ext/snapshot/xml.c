#include "snapshot/xml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mm_xml_init(struct mm_xml *x, const char *text, size_t len)
{
    *x = (struct mm_xml){ .at = text, .end = text + len };
}

/* One character of UTF-8 at `out`, its length. */
static size_t put_utf8(unsigned long c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    out[0] = (char)((n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0) | c);
    return n;
}

/* The character of "&...;" at `from`: its length in the text, 0 when it is none. */
static size_t entity(const char *from, const char *end, char out[4], size_t *len)
{
    static const struct {
        const char *name;
        char is;
    } known[] = { { "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' }, { "&quot;", '"' }, { "&apos;", '\'' } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i].name);
        if ((size_t)(end - from) >= n && memcmp(from, known[i].name, n) == 0) {
            out[0] = known[i].is;
            *len = 1;
            return n;
        }
    }
    char digits[12] = "";
    size_t left = (size_t)(end - from);
    size_t n = left < sizeof digits ? left : sizeof digits - 1;
    if (n < 4 || from[1] != '#') {
        return 0;
    }
    memcpy(digits, from, n);
    char *stop = NULL;
    bool hex = digits[2] == 'x';
    unsigned long c = strtoul(digits + (hex ? 3 : 2), &stop, hex ? 16 : 10);
    if (*stop != ';' || c == 0 || c > 0x10FFFF) {
        return 0;
    }
    *len = put_utf8(c, out);
    return (size_t)(stop - digits) + 1;
}

static void decode(struct mm_xml *x, const char *from, const char *end)
{
    size_t at = 0;
    while (from < end && at + 4 < sizeof x->text) {
        size_t len = 0;
        size_t n = *from == '&' ? entity(from, end, x->text + at, &len) : 0;
        if (n > 0) {
            at += len;
            from += n;
        } else {
            x->text[at++] = *from++;
        }
    }
    x->text[at] = '\0';
}

static void take_name(struct mm_xml *x, const char *from, const char *end)
{
    const char *stop = from;
    while (stop < end && strchr(" \t\r\n/>", *stop) == NULL) {
        if (*stop++ == ':') {
            from = stop;
        }
    }
    (void)snprintf(x->name, sizeof x->name, "%.*s", (int)(stop - from), from);
}

/* Behind the tag's ">", which may stand in a quoted value, too; NULL when there is none. */
static const char *tag_end(const char *p, const char *end)
{
    char quote = '\0';
    for (; p < end; p++) {
        if (quote != '\0') {
            quote = *p == quote ? '\0' : quote;
        } else if (*p == '"' || *p == '\'') {
            quote = *p;
        } else if (*p == '>') {
            return p + 1;
        }
    }
    return NULL;
}

bool mm_xml_next(struct mm_xml *x)
{
    if (x->closing) {
        x->closing = false;
        x->open = false;
        x->text[0] = '\0';
        return true;
    }
    const char *text = x->at;
    for (;;) {
        const char *tag = memchr(x->at, '<', (size_t)(x->end - x->at));
        const char *after = tag != NULL ? tag_end(tag + 1, x->end) : NULL;
        if (after == NULL) {
            return false;
        }
        x->at = after;
        if (tag[1] == '!' || tag[1] == '?') {
            continue;
        }
        x->open = tag[1] != '/';
        take_name(x, tag + (x->open ? 1 : 2), after);
        x->closing = x->open && after[-2] == '/';
        decode(x, text, x->open ? text : tag);
        return true;
    }
}

void mm_xml_find(const char *text, size_t len, const char *name, char *out, size_t size)
{
    struct mm_xml x;
    mm_xml_init(&x, text, len);
    out[0] = '\0';
    while (mm_xml_next(&x)) {
        if (!x.open && strcmp(x.name, name) == 0) {
            (void)snprintf(out, size, "%s", x.text);
            return;
        }
    }
}
