#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "node.h"
#include "registry.h"
#include "status_int.h"
#include "store/meta.h"
#include "store/outbox.h"
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

static void add(struct metrics *m, const char *name, const char *labels, int64_t v, const char *help)
{
    char value[NUMBER];
    const char *text[] = { name, labels, number(value, v), help };
    mm_status_add(m->r, text, m->err);
}

static void shard_metrics(struct metrics *m, const struct mm_node_shard *s)
{
    char label[32];
    (void)snprintf(label, sizeof label, "shard=\"%d\"", s->n);
    add(m, "stream_position", label, s->position, "Sequence of the last message that is folded here");
    add(m, "stream_end", label, s->end, "Highest sequence that is known to be in the stream");
    add(m, "stream_lag_messages", label, s->end - s->position, "Messages in the stream that are not folded here yet");
    add(m, "stream_blocked", label, s->blocked_seq != 0, "1 while a message blocks this shard here");
    add(m, "messages_folded_total", label, s->folded, "Messages folded since the node was started");
    add(m, "messages_ignored_total", label, s->ignored, "Messages that are bad for every node, since the start");
    add(m, "messages_duplicate_total", label, s->duplicates, "Messages that had come before, since the start");
    add(m, "rows_skipped_total", label, s->skipped, "Rows of tables that are not watched here, since the start");
}

static void add_kind(void *arg, const char *kind, int64_t count)
{
    char label[64];
    (void)snprintf(label, sizeof label, "kind=\"%.40s\"", kind);
    add(arg, "conflicts", label, count, "Conflicts in the conflict log");
}

static void database_metrics(sqlite3 *db, struct metrics *m)
{
    int64_t rows = 0;
    int64_t bytes = 0;
    mm_outbox_size(db, &rows, &bytes, m->err);
    add(m, "outbox_rows", "", rows, "Rows of the outbox: pending ones, and those kept for a while after their echo");
    add(m, "outbox_bytes", "", bytes, "Bytes of these rows");
    add(m, "conflicts_total", "", mm_conflict_total(db, m->err), "Conflicts that were ever recorded here");
    add(m, "conflicts_dropped_total", "", mm_conflict_dropped(db, m->err),
        "Those of them that the log no longer holds");
    mm_conflict_kinds(db, add_kind, m, m->err);
    add(m, "ignored_kept", "", mm_ignored_count(db, m->err), "Recorded messages that are bad for every node");
}

int mm_status_metrics(sqlite3 *db, struct mm_status_rows *r, struct mm_err *err)
{
    struct mm_node *n = running(db);
    if (n == NULL) {
        return SQLITE_OK;
    }
    struct metrics m = { r, err };
    int64_t pending = 0;
    int64_t bytes = 0;
    int count = 0;
    mm_node_pending(n, &pending, &bytes);
    struct mm_node_shard *s = shards_of(db, n, &count, err);
    struct mm_err stuck;
    mm_err_init(&stuck);
    bool up = !mm_node_hopeless(n, &stuck);
    mm_registry_release(n);
    add(&m, "up", "", up, "0 while the node cannot go on without help: see marmot_status()");
    add(&m, "pending_transactions", "", pending, "Local transactions that are not echoed yet");
    add(&m, "pending_bytes", "", bytes, "Bytes of these transactions");
    for (int k = 0; k < count; k++) {
        shard_metrics(&m, &s[k]);
    }
    free(s);
    database_metrics(db, &m);
    return err->rc;
}
