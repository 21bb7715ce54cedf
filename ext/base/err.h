/* One result for all layers: an SQLite code and a sentence.
**
** Threads: none of its own; a struct mm_err belongs to its caller.
** The first error stays: setting an error over an error changes nothing, so
** bodies can run straight down and look once at the end. A message names the
** function of the user's view, the cause and the remedy. */
#ifndef MM_BASE_ERR_H
#define MM_BASE_ERR_H

struct mm_err {
    int rc;        /* 0, or an SQLite result code */
    char msg[512]; /* empty while rc is 0 */
};

void mm_err_init(struct mm_err *err);

/* Sets code and message unless an error is set already. Returns err->rc. */
int mm_err_set(struct mm_err *err, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* SQLITE_NOMEM, without formatting. Returns err->rc. */
int mm_err_nomem(struct mm_err *err);

/* Puts "prefix: " before the message of an error that is set. Returns err->rc. */
int mm_err_prefix(struct mm_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
