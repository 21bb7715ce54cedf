#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "config_keys.h"

_Static_assert(sizeof(enum mm_join_mode) == sizeof(unsigned), "choices are stored as unsigned");

struct mm_config *mm_config_new(struct mm_err *err)
{
    struct mm_config *c = calloc(1, sizeof *c);
    if (c == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    for (size_t i = 0; i < mm_config_nkeys && err->rc == SQLITE_OK; i++) {
        const struct mm_config_key *k = &mm_config_keys[i];
        if (mm_config_key_is_text(k)) {
            mm_config_put_text(c, k, k->text, strlen(k->text), err);
        } else if (k->type != MM_KEY_UNUSED) {
            mm_config_put_int(c, k, k->number);
        }
    }
    c->warnings = strdup("[]");
    if (c->warnings == NULL) {
        mm_err_nomem(err);
    }
    if (err->rc != SQLITE_OK) {
        mm_config_free(c);
        return NULL;
    }
    return c;
}

void mm_config_free(struct mm_config *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < mm_config_nkeys; i++) {
        const struct mm_config_key *k = &mm_config_keys[i];
        if (mm_config_key_is_text(k)) {
            char *s;
            memcpy(&s, (char *)c + k->member, sizeof s);
            if (s != NULL && k->secret != MM_PUBLIC) {
                explicit_bzero(s, strlen(s));
            }
            free(s);
        }
    }
    free(c->warnings);
    free(c);
}

int mm_config_warn(struct mm_config *c, struct mm_err *err, const char *fmt, ...)
{
    char text[512];
    struct mm_buf b;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mm_buf_init(&b, 1 << 20);
    mm_buf_add(&b, c->warnings, strlen(c->warnings) - 1); /* without the ] */
    if (b.len > 1) {
        mm_buf_byte(&b, ',');
    }
    mm_buf_json(&b, text);
    mm_buf_byte(&b, ']');
    char *fresh = mm_buf_take(&b);
    if (fresh == NULL) {
        return mm_err_nomem(err);
    }
    free(c->warnings);
    c->warnings = fresh;
    return SQLITE_OK;
}

/* What may hold userinfo begins behind "://"; it ends at the last @ of the
** URL, wherever that stands: a password may hold any letter, not all escaped. */
static const char *userinfo(const char *s, size_t len, size_t *n)
{
    const char *from = memmem(s, len, "://", 3);
    from = from != NULL ? from + 3 : s;
    const char *at = memrchr(from, '@', (size_t)(s + len - from));
    *n = at != NULL ? (size_t)(at + 1 - from) : 0;
    return from;
}

static bool hides(const char *param, size_t n)
{
    return (n >= 7 && memcmp(param, "secret=", 7) == 0) || (n >= 6 && memcmp(param, "login=", 6) == 0);
}

static void redact_one(const char *s, size_t len, struct mm_buf *out)
{
    size_t n;
    const char *host = userinfo(s, len, &n);
    const char *rest = host + n;
    const char *end = s + len;
    const char *query = memchr(rest, '?', (size_t)(end - rest));
    mm_buf_add(out, s, (size_t)(host - s));
    mm_buf_add(out, rest, (size_t)((query != NULL ? query : end) - rest));
    char sep = '?';
    while (query != NULL && query < end) {
        const char *param = query + 1;
        const char *next = memchr(param, '&', (size_t)(end - param));
        size_t plen = (size_t)((next != NULL ? next : end) - param);
        if (!hides(param, plen)) {
            mm_buf_byte(out, (uint8_t)sep);
            mm_buf_add(out, param, plen);
            sep = '&';
        }
        query = next;
    }
}

void mm_config_redact(const char *urls, struct mm_buf *out)
{
    while (*urls != '\0') {
        size_t n = strcspn(urls, ",");
        redact_one(urls, n, out);
        urls += n;
        if (*urls == ',') {
            mm_buf_byte(out, ',');
            urls++;
        }
    }
}

bool mm_config_is_secret(const struct mm_config *c, const struct mm_config_key *k)
{
    if (k->secret == MM_PUBLIC) {
        return false;
    }
    const char *s = mm_config_get_text(c, k);
    if (k->secret == MM_SECRET) {
        return s[0] != '\0';
    }
    return strchr(s, '@') != NULL || strstr(s, "secret=") != NULL || strstr(s, "login=") != NULL;
}

bool mm_config_has_secrets(const struct mm_config *c)
{
    for (size_t i = 0; i < mm_config_nkeys; i++) {
        if (mm_config_is_secret(c, &mm_config_keys[i])) {
            return true;
        }
    }
    return false;
}

/* What is no JSON object: NATS URLs, or the path of a TOML file. */
static int read_other(struct mm_config *c, const char *text, struct mm_err *err)
{
    if (strstr(text, "://") == NULL) {
        return mm_config_read_file(c, text, err);
    }
    return mm_config_put_text(c, mm_config_key_find("nats.urls"), text, strlen(text), err);
}

struct mm_config *mm_config_parse(const char *text, struct mm_err *err)
{
    struct mm_config *c = err->rc == SQLITE_OK ? mm_config_new(err) : NULL;
    if (c == NULL) {
        return NULL;
    }
    if (text != NULL) {
        text += strspn(text, " \t\r\n");
        if (*text == '{') {
            mm_config_read_json(c, text, NULL, err);
        } else if (*text == '\0') {
            mm_err_set(
                err, SQLITE_ERROR,
                "configuration is empty: give the path of a TOML file, a JSON object or NATS URLs, or no argument "
                "for what is stored or the defaults");
        } else {
            read_other(c, text, err);
        }
    }
    if (err->rc == SQLITE_OK) {
        mm_config_settle(c, err);
    }
    if (err->rc != SQLITE_OK) {
        mm_config_free(c);
        return NULL;
    }
    return c;
}

static bool same_bytes(const struct mm_buf *a, const struct mm_buf *b)
{
    return !mm_buf_failed(a) && !mm_buf_failed(b) && a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

bool mm_config_equal(const struct mm_config *a, const struct mm_config *b)
{
    struct mm_buf x, y;
    struct mm_err err;
    mm_err_init(&err);
    mm_buf_init(&x, 1 << 24);
    mm_buf_init(&y, 1 << 24);
    mm_config_public(a, &x, &err);
    mm_config_secret_json(a, &x, &err);
    mm_config_public(b, &y, &err);
    mm_config_secret_json(b, &y, &err);
    bool equal = err.rc == SQLITE_OK && same_bytes(&x, &y);
    if (x.data != NULL && y.data != NULL) {
        explicit_bzero(x.data, x.len);
        explicit_bzero(y.data, y.len);
    }
    mm_buf_free(&x);
    mm_buf_free(&y);
    return equal;
}
