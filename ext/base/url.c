#include "base/url.h"

#include <stdlib.h>
#include <string.h>

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

void mm_url_decode(char *text)
{
    char *out = text;
    for (const char *s = text; *s != '\0'; s++) {
        if (s[0] == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0 && hex(s[1]) + hex(s[2]) > 0) {
            *out++ = (char)(hex(s[1]) * 16 + hex(s[2]));
            s += 2;
        } else {
            *out++ = *s;
        }
    }
    *out = '\0';
}

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c) != NULL;
}

void mm_url_encode(struct mm_buf *out, const char *text, bool slashes)
{
    for (; *text != '\0'; text++) {
        if (is_plain(*text) || (slashes && *text == '/')) {
            mm_buf_byte(out, (uint8_t)*text);
        } else {
            mm_buf_printf(out, "%%%02X", (unsigned)(unsigned char)*text);
        }
    }
}

static bool good_host(const char *host)
{
    const char *colon = strrchr(host, ':');
    if (host[0] == '[') {
        const char *close = strchr(host, ']');
        if (close == NULL || close == host + 1 || (close[1] != '\0' && close[1] != ':')) {
            return false;
        }
        colon = close[1] == ':' ? close + 1 : NULL;
    } else if (strpbrk(host, "[]\"\\<>^`{|}") != NULL || (colon != NULL && strchr(host, ':') != colon)) {
        return false;
    }
    if (host[0] == '\0' || colon == host) {
        return false;
    }
    size_t digits = colon != NULL ? strspn(colon + 1, "0123456789") : 0;
    return colon == NULL ||
           (digits > 0 && digits <= 5 && colon[1 + digits] == '\0' && atoi(colon + 1) > 0 && atoi(colon + 1) <= 65535);
}

/* Cuts the text at p, which may be NULL: returns what stands behind. */
static char *cut(char *p)
{
    if (p == NULL) {
        return NULL;
    }
    *p = '\0';
    return p + 1;
}

bool mm_url_parse(const char *text, struct mm_url *u)
{
    size_t n = strlen(text);
    *u = (struct mm_url){ .size = 2 * (n + 2) };
    for (size_t i = 0; i < n; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    size_t scheme = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+");
    if (scheme == 0 || strncmp(text + scheme, "://", 3) != 0) {
        return false;
    }
    u->memory = calloc(1, u->size);
    if (u->memory == NULL) {
        return false;
    }
    memcpy(u->memory, text, n + 1);
    for (size_t i = 0; i < scheme; i++) {
        u->memory[i] = (char)(u->memory[i] >= 'A' && u->memory[i] <= 'Z' ? u->memory[i] + 32 : u->memory[i]);
    }
    u->memory[scheme] = '\0';
    u->scheme = u->memory;
    u->user = u->password = u->query = "";
    char *host = u->memory + scheme + 3;
    char *query = cut(strchr(host, '?'));
    if (query != NULL) {
        u->query = query;
    }
    char *slash = strchr(host, '/');
    char *path = u->memory + n + 2; /* the second half: the host needs an end where the path begins */
    if (slash != NULL) {
        memcpy(path, slash, strlen(slash) + 1);
        *slash = '\0';
    }
    u->path = path;
    char *at = strrchr(host, '@');
    if (at != NULL) {
        *at = '\0';
        char *password = cut(strchr(host, ':'));
        mm_url_decode(host);
        u->user = host;
        if (password != NULL) {
            mm_url_decode(password);
            u->password = password;
        }
        host = at + 1;
    }
    u->host = host;
    if (!good_host(host)) {
        mm_url_free(u);
        return false;
    }
    return true;
}

void mm_url_free(struct mm_url *u)
{
    if (u->memory != NULL) {
        explicit_bzero(u->memory, u->size);
        free(u->memory);
    }
    *u = (struct mm_url){ 0 };
}

bool mm_url_param(const struct mm_url *u, const char *name, struct mm_buf *out)
{
    size_t n = strlen(name);
    for (const char *p = u->query; *p != '\0'; p += strcspn(p, "&"), p += *p == '&') {
        if (strncmp(p, name, n) != 0 || p[n] != '=') {
            continue;
        }
        const char *value = p + n + 1;
        size_t len = strcspn(value, "&");
        char *text = (char *)mm_buf_reserve(out, len + 1);
        if (text == NULL) {
            return true;
        }
        for (size_t i = 0; i < len; i++) {
            text[i] = value[i];
            if (value[i] == '+') {
                text[i] = ' '; /* as query strings are written */
            }
        }
        text[len] = '\0';
        mm_url_decode(text);
        out->len += strlen(text);
        return true;
    }
    return false;
}
