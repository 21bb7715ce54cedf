/* What is counted and measured of a node, in one place for marmot_metrics and
** for the page that Prometheus reads.
**
** Threads: any; `db` is a connection of the caller's. */
#ifndef MM_METRICS_H
#define MM_METRICS_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sqlite.h"

struct mm_node;

struct mm_metric {      /* borrowed during the call */
    const char *name;   /* without namespace; a counter ends in _total */
    const char *labels; /* name="value",..; "" for none */
    int64_t value;
    const char *help;
};
/* Samples of one name come one after the other. */
typedef void mm_metric_seen(void *arg, const struct mm_metric *m);
int mm_metrics_each(sqlite3 *db, struct mm_node *n, mm_metric_seen *one_seen, void *arg, struct mm_err *err);

/* The text format of Prometheus, version 0.0.4; names begin with <namespace>_
** and <subsystem>_ where these are not empty. */
int mm_metrics_text(sqlite3 *db, struct mm_node *n, const char *namespace, const char *subsystem, struct mm_buf *out,
                    struct mm_err *err);

#endif
