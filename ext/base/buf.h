/* A growing byte buffer with a maximum from birth.
**
** Threads: none of its own. Ownership: the buffer owns its bytes until
** mm_buf_take. Sticky: after a failed append (out of memory, or over the
** maximum) every later append does nothing and mm_buf_failed is true. */
#ifndef MM_BASE_BUF_H
#define MM_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mm_err;

struct mm_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max;
    int rc; /* 0, SQLITE_NOMEM or SQLITE_TOOBIG */
};

void mm_buf_init(struct mm_buf *b, size_t max);
void mm_buf_free(struct mm_buf *b);  /* leaves it as after init */
void mm_buf_clear(struct mm_buf *b); /* keeps the memory, forgets bytes and error */

/* Room for n more bytes; NULL when it failed. The bytes count only after
** b->len is raised. */
uint8_t *mm_buf_reserve(struct mm_buf *b, size_t n);
void mm_buf_add(struct mm_buf *b, const void *p, size_t n);
void mm_buf_byte(struct mm_buf *b, uint8_t v);
void mm_buf_str(struct mm_buf *b, const char *s);
void mm_buf_printf(struct mm_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string literal of the UTF-8 text, quotes included; NULL gives null. */
void mm_buf_json(struct mm_buf *b, const char *s);
/* The same of n bytes. */
void mm_buf_json_text(struct mm_buf *b, const void *text, size_t n);

static inline bool mm_buf_failed(const struct mm_buf *b)
{
    return b->rc != 0;
}

/* Copies the buffer's failure, if any, into err. Returns err->rc. */
int mm_buf_check(const struct mm_buf *b, struct mm_err *err, const char *what);

/* Returns the bytes as a string with a NUL behind it (caller frees with
** free()) and empties the buffer; NULL when it had failed. */
char *mm_buf_take(struct mm_buf *b);

/* A text of its own: free() it; NULL without memory. For threads of ours outside of the gate (gate.h), where
** sqlite3_mprintf would take the lock of SQLite's memory. */
char *mm_buf_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
