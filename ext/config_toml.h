/* TOML 1.0 as a JSON tree: what a configuration file is read with.
**
** Threads: none of its own. Left out, with an error that says so: dates and
** times, inf and nan, arrays of tables, which no key takes; a number with a
** fraction is checked and becomes a real of no particular value, since no key
** takes one either. Messages give line and column and never quote a value: it
** may be a secret. Bounded: the text's length by the caller, nesting by 32,
** tables by 1000. */
#ifndef MM_CONFIG_TOML_H
#define MM_CONFIG_TOML_H

#include <jansson.h>
#include <stddef.h>

#include "base/err.h"

struct mm_buf;

/* Returns the tree (caller frees with json_decref), NULL with err set. */
json_t *mm_toml_parse(const char *text, size_t len, struct mm_err *err);

/* --- what the two files of the parser share --- */

struct mm_toml {
    const char *begin, *at, *end;
    struct mm_err *err;
    int depth;
    json_t *root;
    struct mm_toml_table *table; /* the tables met so far, ntable of them */
    size_t ntable, cap;
};

/* Sets err to "line L, column C: ..." of the place. Returns err->rc. */
int mm_toml_fail(struct mm_toml *t, const char *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* config_toml.c */
void mm_toml_blanks(struct mm_toml *t);      /* spaces and tabs */
void mm_toml_blank_lines(struct mm_toml *t); /* and line ends and comments */
json_t *mm_toml_inline_table(struct mm_toml *t);

/* config_toml_value.c: each reads at t->at and returns a new reference, NULL with err set. */
json_t *mm_toml_value(struct mm_toml *t);
/* A text of one line with its quotes, appended. */
void mm_toml_string(struct mm_toml *t, struct mm_buf *out);

#endif
