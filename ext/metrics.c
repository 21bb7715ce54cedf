#include "metrics.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "peers.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "store/position.h"
#include "store/stray.h"
#include "store/watch.h"

struct collecting {
    mm_metric_seen *seen;
    void *arg;
};

static void add(const struct collecting *c, const char *name, const char *labels, int64_t v, const char *help)
{
    struct mm_metric m = { name, labels, v, help };
    c->seen(c->arg, &m);
}

static int64_t lag(const struct mm_node_shard *s)
{
    return s->end - s->position;
}

static int64_t is_blocked(const struct mm_node_shard *s)
{
    return s->blocked_seq != 0;
}

/* Of each shard: a member, or what a function makes of it. */
static const struct {
    const char *name;
    size_t member;
    int64_t (*value)(const struct mm_node_shard *s);
    const char *help;
} of_shard[] = {
#define AT(m) offsetof(struct mm_node_shard, m), NULL
    { "stream_position", AT(position), "Sequence of the last message that is folded here" },
    { "stream_end", AT(end), "Highest sequence that is known to be in the stream" },
    { "stream_lag_messages", 0, lag, "Messages in the stream that are not folded here yet" },
    { "stream_blocked", 0, is_blocked, "1 while a message blocks this shard here" },
    { "messages_folded_total", AT(folded), "Messages folded since the node was started" },
    { "messages_ignored_total", AT(ignored), "Messages that are bad for every node, since the start" },
    { "messages_duplicate_total", AT(duplicates), "Messages that had come before, since the start" },
    { "messages_resent_total", AT(resent), "Messages of this node that were sent once more, since the start" },
    { "rows_skipped_total", AT(skipped), "Rows of tables that are not watched here, since the start" },
#undef AT
};

static void shard_metrics(const struct collecting *c, const struct mm_node_shard *s, int n)
{
    for (size_t k = 0; k < sizeof of_shard / sizeof *of_shard; k++) {
        for (int j = 0; j < n; j++) {
            char label[32];
            int64_t v;
            (void)snprintf(label, sizeof label, "shard=\"%d\"", s[j].n);
            memcpy(&v, (const char *)&s[j] + of_shard[k].member, sizeof v);
            add(c, of_shard[k].name, label, of_shard[k].value != NULL ? of_shard[k].value(&s[j]) : v, of_shard[k].help);
        }
    }
}

static void add_kind(void *arg, const char *kind, int64_t count)
{
    char label[64];
    (void)snprintf(label, sizeof label, "kind=\"%.40s\"", kind);
    add(arg, "conflicts", label, count, "Conflicts in the conflict log");
}

static void table_metrics(sqlite3 *db, const struct collecting *c, struct mm_err *err)
{
    static const enum mm_watch_state states[] = { MM_WATCHED, MM_JOINING, MM_STALE, MM_UNSUPPORTED };
    int n = 0;
    struct mm_watch_entry *list = mm_watch_list(db, &n, err);
    for (size_t k = 0; k < sizeof states / sizeof *states; k++) {
        char label[64];
        int64_t count = 0;
        for (int j = 0; j < n; j++) {
            count += list[j].state == states[k];
        }
        (void)snprintf(label, sizeof label, "state=\"%s\"", mm_watch_state_name(states[k]));
        add(c, "tables", label, count, "Tables by what this node does with them");
    }
    mm_watch_list_free(list, n);
}

static void database_metrics(sqlite3 *db, struct collecting *c, struct mm_err *err)
{
    int64_t rows = 0;
    int64_t bytes = 0;
    mm_outbox_size(db, &rows, &bytes, err);
    add(c, "outbox_rows", "", rows, "Rows of the outbox: pending ones, and those kept for a while after their echo");
    add(c, "outbox_bytes", "", bytes, "Bytes of these rows");
    add(c, "foreign_commits", "", mm_stray_count(db, err),
        "Commits that nothing captured and marmot_reconcile() has not mended yet");
    add(c, "foreign_commits_total", "", mm_stray_total(db, err), "Commits that nothing captured, ever");
    add(c, "conflicts_total", "", mm_conflict_total(db, err), "Conflicts that were ever recorded here");
    add(c, "conflicts_dropped_total", "", mm_conflict_dropped(db, err), "Those of them that the log no longer holds");
    mm_conflict_kinds(db, add_kind, c, err);
    add(c, "ignored_kept", "", mm_ignored_count(db, err), "Recorded messages that are bad for every node");
    table_metrics(db, c, err);
}

static void node_metrics(struct mm_node *n, const struct collecting *c)
{
    struct mm_err stuck;
    struct mm_node_numbers v;
    mm_err_init(&stuck);
    mm_node_numbers(n, &v);
    add(c, "up", "", !mm_node_hopeless(n, &stuck), "0 while the node cannot go on without help: see marmot_status()");
    for (int s = 0; s <= MM_NODE_STOPPED; s++) {
        char label[64];
        (void)snprintf(label, sizeof label, "state=\"%s\"", mm_node_state_name((enum mm_node_state)s));
        add(c, "state", label, (int)v.state == s, "1 for the state that the node is in");
    }
    add(c, "state_since_seconds", "", v.since_ms / 1000, "When it came into that state, in seconds since 1970");
    add(c, "connected", "", v.connected, "1 while there is a connection to the NATS server");
    add(c, "connections_total", "", v.connections, "Connections made since the node was started");
    add(c, "behind_milliseconds", "", v.behind_ms, "How long ago this node last had folded the end of every stream");
    add(c, "nodes_heard", "", v.nodes_alive, "Other nodes of the cluster that told of themselves within seven seconds");
    add(c, "pending_transactions", "", v.pending_rows, "Local transactions that are not echoed yet");
    add(c, "pending_bytes", "", v.pending_bytes, "Bytes of these transactions");
    struct mm_node_progress p;
    if (mm_node_progress(n, &p)) {
        char label[64];
        (void)snprintf(label, sizeof label, "what=\"%.50s\"", p.what);
        add(c, "work_done", label, p.done, "How far a snapshot, a restore or the reading of a long log is");
        add(c, "work_total", label, p.total, "All of it; 0 when that is not known");
    }
}

int mm_metrics_each(sqlite3 *db, struct mm_node *n, mm_metric_seen *one_seen, void *arg, struct mm_err *err)
{
    struct collecting c = { one_seen, arg };
    int count = 0;
    node_metrics(n, &c);
    struct mm_node_shard *s = mm_node_shards(n, &count, err);
    for (int k = 0; k < count; k++) { /* in a process that stands by the database knows more */
        struct mm_position p;
        if (mm_position_get(db, s[k].n, &p, err) == 1 && p.seq > s[k].position) {
            s[k].position = p.seq;
        }
        s[k].end = s[k].end < s[k].position ? s[k].position : s[k].end;
    }
    shard_metrics(&c, s, count);
    free(s);
    database_metrics(db, &c, err);
    return err->rc;
}

struct text {
    struct mm_buf *out;
    const char *namespace, *subsystem;
    char last[64];
};

static void put_name(const struct text *t, const char *name)
{
    const char *const parts[] = { t->namespace, t->subsystem };
    for (int k = 0; k < 2; k++) {
        if (parts[k][0] != '\0') {
            mm_buf_str(t->out, parts[k]);
            mm_buf_byte(t->out, '_');
        }
    }
    mm_buf_str(t->out, name);
}

static void put_sample(void *arg, const struct mm_metric *m)
{
    struct text *t = arg;
    size_t n = strlen(m->name);
    if (strcmp(t->last, m->name) != 0) {
        (void)snprintf(t->last, sizeof t->last, "%s", m->name);
        mm_buf_str(t->out, "# HELP ");
        put_name(t, m->name);
        mm_buf_printf(t->out, " %s\n# TYPE ", m->help);
        put_name(t, m->name);
        mm_buf_str(t->out, n > 6 && strcmp(m->name + n - 6, "_total") == 0 ? " counter\n" : " gauge\n");
    }
    put_name(t, m->name);
    if (m->labels[0] != '\0') {
        mm_buf_printf(t->out, "{%s}", m->labels);
    }
    mm_buf_printf(t->out, " %lld\n", (long long)m->value);
}

int mm_metrics_text(sqlite3 *db, struct mm_node *n, const char *namespace, const char *subsystem, struct mm_buf *out,
                    struct mm_err *err)
{
    struct text t = { .out = out, .namespace = namespace, .subsystem = subsystem };
    mm_metrics_each(db, n, put_sample, &t, err);
    return mm_buf_check(out, err, "the metrics");
}
