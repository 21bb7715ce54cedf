#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/sqlite.h"

void mm_err_init(struct mm_err *err)
{
    err->rc = SQLITE_OK;
    err->msg[0] = '\0';
}

int mm_err_set(struct mm_err *err, int rc, const char *fmt, ...)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    err->rc = rc;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return rc;
}

int mm_err_nomem(struct mm_err *err)
{
    return mm_err_set(err, SQLITE_NOMEM, "out of memory");
}

int mm_err_prefix(struct mm_err *err, const char *fmt, ...)
{
    if (err->rc == SQLITE_OK) {
        return SQLITE_OK;
    }
    char head[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(head, sizeof head - 3, fmt, ap);
    va_end(ap);
    if (n < 0) {
        return err->rc;
    }
    size_t used = strlen(head);
    head[used++] = ':';
    head[used++] = ' ';
    size_t rest = strlen(err->msg);
    if (rest >= sizeof err->msg - used) {
        rest = sizeof err->msg - used - 1;
    }
    memmove(err->msg + used, err->msg, rest);
    err->msg[used + rest] = '\0';
    memcpy(err->msg, head, used);
    return err->rc;
}
