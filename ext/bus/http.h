/* The smallest HTTP server that an exporter of metrics needs: one page.
**
** Threads: one, the owner's; nothing here waits. Bounded: MM_HTTP_CLIENTS at a
** time (who comes beyond them waits in the kernel's queue), MM_HTTP_REQUEST
** bytes of a request, MM_HTTP_MS from the connection to the last byte of the
** answer, MM_HTTP_CROWD_MS when all places are taken. Each connection is closed after its answer. */
#ifndef MM_BUS_HTTP_H
#define MM_BUS_HTTP_H

#include "base/buf.h"
#include "base/err.h"

enum {
    MM_HTTP_CLIENTS = 8,
    MM_HTTP_REQUEST = 4096,
    MM_HTTP_MS = 5000,
    MM_HTTP_CROWD_MS = 1000,
    MM_HTTP_PAGE_MAX = 4 << 20
};

struct mm_http;

/* Listens at host:port (an IP address or localhost; ":port" is every
** interface). NULL with err set. */
struct mm_http *mm_http_open(const char *bind, struct mm_err *err);
void mm_http_close(struct mm_http *h); /* NULL is fine */

int mm_http_fd(const struct mm_http *h); /* readable when mm_http_step has work; borrowed */

/* Does what can be done now. `page` appends the text of /metrics. */
typedef void mm_http_page(void *arg, struct mm_buf *out);
void mm_http_step(struct mm_http *h, mm_http_page *page, void *arg);

/* Descriptors to close in the child of a fork: calls f for each. */
void mm_http_each_fd(const struct mm_http *h, void (*f)(int fd));

#endif
