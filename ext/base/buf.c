#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/sqlite.h"

enum { FIRST_CAP = 256 };

/* Large buffers have pages of their own: they grow without being copied, and go
** back to the system at once. malloc would keep tens of megabytes of a growing
** buffer's earlier places in this thread's heap. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const size_t large = SIZE_MAX; /* so that overruns are found there, too */
#else
static const size_t large = 1 << 20;
#endif

static uint8_t *pages(struct mm_buf *b, size_t cap)
{
    void *p;
    if (b->cap >= large) {
        p = mremap(b->data, b->cap, cap, MREMAP_MAYMOVE);
    } else {
        p = mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p != MAP_FAILED && b->len > 0) {
            memcpy(p, b->data, b->len);
        }
    }
    if (p == MAP_FAILED) {
        return NULL;
    }
    if (b->cap < large) {
        free(b->data);
    }
    return p;
}

void mm_buf_init(struct mm_buf *b, size_t max)
{
    memset(b, 0, sizeof *b);
    b->max = max;
}

void mm_buf_free(struct mm_buf *b)
{
    if (b->cap >= large) {
        (void)munmap(b->data, b->cap);
    } else {
        free(b->data);
    }
    mm_buf_init(b, b->max);
}

void mm_buf_clear(struct mm_buf *b)
{
    b->len = 0;
    b->rc = SQLITE_OK;
}

uint8_t *mm_buf_reserve(struct mm_buf *b, size_t n)
{
    if (b->rc != SQLITE_OK) {
        return NULL;
    }
    if (n > b->max || b->len > b->max - n) {
        b->rc = SQLITE_TOOBIG;
        return NULL;
    }
    size_t need = b->len + n;
    if (need > b->cap) {
        size_t cap = b->cap < FIRST_CAP ? FIRST_CAP : b->cap;
        while (cap < need) {
            cap += cap / 2 + 64;
        }
        uint8_t *p = cap >= large ? pages(b, cap) : realloc(b->data, cap);
        if (p == NULL) {
            b->rc = SQLITE_NOMEM;
            return NULL;
        }
        b->data = p;
        b->cap = cap;
    }
    return b->data + b->len;
}

void mm_buf_add(struct mm_buf *b, const void *p, size_t n)
{
    if (n == 0) {
        return;
    }
    uint8_t *to = mm_buf_reserve(b, n);
    if (to != NULL) {
        memcpy(to, p, n);
        b->len += n;
    }
}

void mm_buf_byte(struct mm_buf *b, uint8_t v)
{
    mm_buf_add(b, &v, 1);
}

void mm_buf_str(struct mm_buf *b, const char *s)
{
    mm_buf_add(b, s, strlen(s));
}

void mm_buf_printf(struct mm_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        return;
    }
    char *to = (char *)mm_buf_reserve(b, (size_t)n + 1);
    if (to == NULL) {
        return;
    }
    va_start(ap, fmt);
    (void)vsnprintf(to, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

void mm_buf_json(struct mm_buf *b, const char *s)
{
    if (s == NULL) {
        mm_buf_str(b, "null");
    } else {
        mm_buf_json_text(b, s, strlen(s));
    }
}

void mm_buf_json_text(struct mm_buf *b, const void *text, size_t n)
{
    const uint8_t *p = text;
    mm_buf_byte(b, '"');
    for (size_t k = 0; k < n; k++) {
        if (p[k] == '"' || p[k] == '\\') {
            mm_buf_byte(b, '\\');
            mm_buf_byte(b, p[k]);
        } else if (p[k] < 0x20) {
            mm_buf_printf(b, "\\u%04x", p[k]);
        } else {
            mm_buf_byte(b, p[k]);
        }
    }
    mm_buf_byte(b, '"');
}

int mm_buf_check(const struct mm_buf *b, struct mm_err *err, const char *what)
{
    if (b->rc == SQLITE_TOOBIG) {
        return mm_err_set(err, SQLITE_TOOBIG, "%s exceeds its limit of %zu bytes", what, b->max);
    }
    if (b->rc != SQLITE_OK) {
        return mm_err_nomem(err);
    }
    return err->rc;
}

char *mm_buf_take(struct mm_buf *b)
{
    uint8_t *end = mm_buf_reserve(b, 1);
    if (end == NULL) {
        mm_buf_free(b);
        return NULL;
    }
    *end = '\0';
    char *s = (char *)b->data;
    if (b->cap < large) {
        mm_buf_init(b, b->max);
        return s;
    }
    s = malloc(b->len + 1);
    if (s != NULL) {
        memcpy(s, b->data, b->len + 1);
    }
    mm_buf_free(b);
    return s;
}

char *mm_buf_text(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    return n >= 0 ? text : NULL;
}
