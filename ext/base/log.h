/* The log for operators: one line an event, on stderr or in a file.
**
** Threads: any; a line is written by one write(2). No secrets: callers pass
** URLs without userinfo. Expected conditions (no row, a time-out that will be
** retried) are not logged. */
#ifndef MM_BASE_LOG_H
#define MM_BASE_LOG_H

#include <stdbool.h>

enum mm_log_level { MM_LOG_DEBUG, MM_LOG_INFO, MM_LOG_WARN, MM_LOG_ERROR };

/* Process-wide. `path` NULL or "" is stderr; json chooses one object a line.
** Without a call: stderr, warnings and errors only, plain. Returns 0 or errno. */
int mm_log_setup(bool verbose, bool json, const char *path);

void mm_log(enum mm_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* In the child of a fork: from now on this process logs nothing. */
void mm_log_silence(void);

#endif
