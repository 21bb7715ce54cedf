#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "metrics.h"
#include "node.h"
#include "registry.h"
#include "status_int.h"
#include "store/meta.h"
#include "store/position.h"

enum { NUMBER = 24 };                      /* bytes of a number as text */
static const size_t CONFLICTS = 64U << 20; /* bytes of conflict records that one scan copies */

static const char *number(char out[NUMBER], int64_t v)
{
    (void)snprintf(out, NUMBER, "%lld", (long long)v);
    return out;
}

/* The node that this process runs; NULL without an error when there is none. */
static struct mm_node *running(sqlite3 *db)
{
    struct mm_err none;
    mm_err_init(&none);
    return mm_registry_acquire(db, &none);
}

/* As mm_node_shards; a process that stands by knows positions from the database alone. */
static struct mm_node_shard *shards_of(sqlite3 *db, struct mm_node *n, int *count, struct mm_err *err)
{
    struct mm_node_shard *s = mm_node_shards(n, count, err);
    for (int k = 0; k < *count; k++) {
        struct mm_position p;
        if (mm_position_get(db, s[k].n, &p, err) == 1 && p.seq > s[k].position) {
            s[k].position = p.seq;
        }
        if (s[k].end < s[k].position) {
            s[k].end = s[k].position;
        }
    }
    return s;
}

int mm_status_streams(sqlite3 *db, struct mm_status_rows *r, struct mm_err *err)
{
    struct mm_node *n = running(db);
    if (n == NULL) {
        return SQLITE_OK;
    }
    int count = 0;
    struct mm_node_shard *s = shards_of(db, n, &count, err);
    mm_registry_release(n);
    for (int k = 0; k < count; k++) {
        char shard[NUMBER], position[NUMBER], end[NUMBER];
        const char *text[] = { number(shard, s[k].n),           s[k].stream,           s[k].subject,
                               number(position, s[k].position), number(end, s[k].end), s[k].state };
        mm_status_add(r, text, err);
    }
    free(s);
    return err->rc;
}

static bool add_conflict(void *arg, const struct mm_conflict_row *c, struct mm_err *err)
{
    struct mm_status_rows *r = arg;
    char id[NUMBER], shard[NUMBER], seq[NUMBER], node[NUMBER], at[25];
    mm_clock_format(c->at, at);
    const char *text[] = { number(id, c->id),
                           number(shard, c->c.shard),
                           number(seq, c->c.seq),
                           number(node, c->c.node),
                           at,
                           c->c.kind,
                           c->c.table,
                           c->c.key,
                           c->c.lost,
                           c->c.won };
    return mm_status_add(r, text, err) == SQLITE_OK && r->bytes < CONFLICTS;
}

int mm_status_conflicts(sqlite3 *db, struct mm_status_rows *r, struct mm_err *err)
{
    if (mm_meta_exists(db, err)) {
        mm_conflict_each(db, add_conflict, r, err);
    }
    return err->rc;
}

struct metrics {
    struct mm_status_rows *r;
    struct mm_err *err;
};

static void add_metric(void *arg, const struct mm_metric *v)
{
    struct metrics *m = arg;
    char value[NUMBER];
    const char *text[] = { v->name, v->labels, number(value, v->value), v->help };
    mm_status_add(m->r, text, m->err);
}

int mm_status_metrics(sqlite3 *db, struct mm_status_rows *r, struct mm_err *err)
{
    struct mm_node *n = running(db);
    struct metrics m = { r, err };
    if (n != NULL) {
        mm_metrics_each(db, n, add_metric, &m, err);
        mm_registry_release(n);
    }
    return err->rc;
}
