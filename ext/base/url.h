/* A URL in its parts, as the configuration gives it.
**
** Threads: none of its own. Ownership: a struct mm_url owns its strings until
** mm_url_free, which wipes them (they may hold a password). */
#ifndef MM_BASE_URL_H
#define MM_BASE_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct mm_url { /* all texts are "" where the URL has none */
    char *memory;
    size_t size;
    const char *scheme;          /* in lower case */
    const char *user, *password; /* decoded */
    const char *host;            /* host, host:port, [v6]:port */
    const char *path;            /* as written, with its first slash */
    const char *query;           /* as written, without the ? */
};

/* False when it is none: anything but printable ASCII, no host, a port that is no number. Frees nothing then. */
bool mm_url_parse(const char *text, struct mm_url *u);
void mm_url_free(struct mm_url *u);

/* Appends the decoded value of a parameter of the query (none: nothing). True when it is there. */
bool mm_url_param(const struct mm_url *u, const char *name, struct mm_buf *out);

/* Appends the text with every byte %-encoded but letters, digits, - . _ ~ and, with `slashes`, the slash. */
void mm_url_encode(struct mm_buf *out, const char *text, bool slashes);
/* Replaces %xx, but never by a NUL. */
void mm_url_decode(char *text);

#endif
