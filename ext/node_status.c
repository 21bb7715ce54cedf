#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/gate.h"
#include "base/log.h"
#include "capture/hook.h"
#include "capture/trigger.h"
#include "node_int.h"

static const struct {
    const char *name;
    const char *remedy; /* "" = none is needed */
} states[] = {
    [MM_NODE_STARTING] = { "starting", "watch at least one table" },
    [MM_NODE_JOINING] = { "joining", "" },
    [MM_NODE_LIVE] = { "live", "" },
    [MM_NODE_OFFLINE] = { "offline", "start or reach the NATS server; local writes wait in the outbox meanwhile" },
    [MM_NODE_STANDBY] = { "standby", "" },
    [MM_NODE_LOG_FULL] = { "log_full",
                           "make room, or raise replication_log.max_bytes with replication_log.update_existing" },
    [MM_NODE_BLOCKED] = { "blocked", "see why; local writes go on and wait in the outbox" },
    [MM_NODE_DIVERGED] = { "diverged", "see why; local writes go on and wait in the outbox" },
    [MM_NODE_JOIN_CONFLICT] = { "join_conflict", "see why; this database is left as it is" },
    [MM_NODE_SLEEPING] = { "sleeping", "" },
    [MM_NODE_STOPPED] = { "stopped", "call marmot_init()" },
};

const char *mm_node_state_name(enum mm_node_state s)
{
    return states[s].name;
}

void mm_node_tell(struct mm_node *n, enum mm_node_state s, const char *why)
{
    (void)pthread_mutex_lock(&n->mu);
    bool changed = n->state != s || strcmp(n->why, why) != 0;
    bool moved = n->state != s;
    if (changed) {
        (void)snprintf(n->why, sizeof n->why, "%s", why);
        n->state = s;
        if (moved) {
            n->since_ms = mm_clock_wall_ms();
        }
        (void)pthread_cond_broadcast(&n->told);
    }
    (void)pthread_mutex_unlock(&n->mu);
    if (moved) {
        mm_log(MM_LOG_INFO, "node %lld is %s%s%s", (long long)n->config->node_id, states[s].name,
               why[0] != '\0' ? ": " : "", why);
    }
}

/* Returns nshard of them (free()), NULL when there are none. */
static struct mm_node_shard *look_at_shards(const struct mm_repl *r)
{
    struct mm_node_shard *list = r->shard != NULL ? calloc((size_t)r->nshard, sizeof *list) : NULL;
    for (int k = 0; list != NULL && k < r->nshard; k++) {
        const struct mm_shard *s = &r->shard[k];
        struct mm_node_shard *to = &list[k];
        to->n = s->n;
        memcpy(to->stream, s->stream, sizeof to->stream);
        memcpy(to->subject, s->subject, sizeof to->subject);
        to->position = s->pos.seq;
        to->end = s->end_seq > s->pos.seq ? s->end_seq : s->pos.seq;
        to->state = s->blocked_seq != 0            ? "blocked"
                    : !s->following || !s->checked ? "waiting"
                    : s->replay != NULL            ? "joining"
                    : s->pos.seq >= s->end_seq     ? "current"
                                                   : "behind";
        to->blocked_seq = s->blocked_seq;
        to->folded = s->folded;
        to->ignored = s->ignored;
        to->duplicates = s->duplicates;
        to->skipped = s->skipped;
        to->resent = s->resent;
    }
    return list;
}

/* mu held. */
static void shards_json(const struct mm_node *n, struct mm_buf *b)
{
    mm_buf_byte(b, '[');
    for (int k = 0; k < n->nshards; k++) {
        const struct mm_node_shard *s = &n->shards[k];
        mm_buf_printf(b,
                      "%s{\"n\":%d,\"position\":%lld,\"end\":%lld,\"state\":\"%s\",\"blocked_id\":", k > 0 ? "," : "",
                      s->n, (long long)s->position, (long long)s->end, s->state);
        if (s->blocked_seq != 0) {
            mm_buf_printf(b, "\"%d:%lld\"", s->n, (long long)s->blocked_seq);
        } else {
            mm_buf_str(b, "null");
        }
        mm_buf_printf(b, ",\"folded\":%lld,\"ignored\":%lld,\"duplicates\":%lld,\"skipped_rows\":%lld}",
                      (long long)s->folded, (long long)s->ignored, (long long)s->duplicates, (long long)s->skipped);
    }
    mm_buf_byte(b, ']');
}

struct tables {
    sqlite3 *db;
    struct mm_buf *b;
};

static int table_json(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct tables *all = arg;
    struct mm_buf *b = all->b;
    mm_buf_str(b, b->len > 1 ? ",{\"name\":" : "{\"name\":");
    mm_buf_json(b, t->name);
    bool full = mm_trigger_mode_for(all->db, t->name, err) == MM_TRIGGER_FULL;
    bool there = mm_trigger_there(all->db, t->name, err);
    const char *how = full && there ? "trigger" : full && !mm_hook_available(NULL) ? "none" : there ? "auto" : "hook";
    mm_buf_printf(b, ",\"capture\":\"%s\",\"key\":[", mm_watch_captures(t->state) && t->def != NULL ? how : "none");
    const char *sep = "";
    for (int place = 1; t->def != NULL && place <= t->def->ncol; place++) {
        for (int k = 0; k < t->def->ncol; k++) {
            if (t->def->col[k].pk == place) {
                mm_buf_str(b, sep);
                mm_buf_json(b, t->def->col[k].name);
                sep = ",";
            }
        }
    }
    mm_buf_printf(b, "],\"state\":\"%s\",\"why\":", mm_watch_state_name(t->state));
    char *why = mm_watch_why(all->db, t->name, err);
    mm_buf_json(b, why != NULL || t->def != NULL ? why : MM_WATCH_GONE);
    sqlite3_free(why);
    mm_buf_byte(b, '}');
    return err->rc;
}

static char *tables_json(struct mm_repl *r)
{
    struct mm_buf b;
    struct mm_err err;
    mm_err_init(&err);
    mm_buf_init(&b, 16 << 20);
    mm_buf_byte(&b, '[');
    struct tables all = { r->db, &b };
    mm_gate_enter();
    mm_targets_each(r->targets, table_json, &all, &err);
    mm_gate_leave();
    mm_buf_byte(&b, ']');
    if (err.rc != SQLITE_OK) {
        mm_buf_free(&b);
        return NULL;
    }
    return mm_buf_take(&b);
}

void mm_node_publish_status(struct mm_node *n)
{
    struct mm_repl *r = &n->r;
    struct mm_err err;
    mm_err_init(&err);
    struct mm_node_shard *shards = look_at_shards(r);
    char *tables = r->tables_changed && r->targets != NULL ? tables_json(r) : NULL;
    int64_t rows = n->unread_rows;
    int64_t bytes = n->unread_bytes;
    mm_gate_enter();
    int64_t incarnation = r->tables_changed || n->incarnation == 0 ? mm_head_incarnation(r->db, &err) : n->incarnation;
    mm_gate_leave();
    if (tables != NULL) {
        r->tables_changed = false;
        n->replay_due = true; /* a batch may have raised it after the look for such tables */
    }
    for (int k = 0; r->shard != NULL && k < r->nshard; k++) {
        rows += (int64_t)mm_pending_count(r->shard[k].pending);
        bytes += mm_pending_bytes(r->shard[k].pending);
    }
    mm_gate_enter();
    mm_node_stray_read(n, &err);
    mm_gate_leave();
    (void)pthread_mutex_lock(&n->mu);
    if (shards != NULL) {
        free(n->shards);
        n->shards = shards;
        n->nshards = r->nshard;
    }
    if (tables != NULL) {
        free(n->tables_json);
        n->tables_json = tables;
    }
    n->incarnation = incarnation;
    n->epoch = r->epoch;
    n->pending_rows = rows;
    n->pending_bytes = bytes;
    (void)snprintf(n->url, sizeof n->url, "%s", r->bus != NULL ? mm_bus_url(r->bus) : "");
    (void)snprintf(n->id_warning, sizeof n->id_warning, "%s", r->id_warning);
    n->server_pid = n->server != NULL ? mm_server_pid(n->server) : 0;
    (void)pthread_mutex_unlock(&n->mu);
}

/* The seven fields that marmot_init and marmot_status begin with. mu held. */
static void head_json(struct mm_node *n, struct mm_buf *out)
{
    char when[25];
    mm_clock_format(n->since_ms, when);
    mm_buf_printf(out, "{\"node_id\":%lld,\"incarnation\":\"%016llx\",\"cluster\":", (long long)n->config->node_id,
                  (unsigned long long)n->incarnation);
    mm_buf_json(out, n->config->cluster);
    mm_buf_printf(out, ",\"epoch\":%lld,\"state\":\"%s\",\"why\":", (long long)n->epoch, states[n->state].name);
    mm_buf_json(out, n->why);
    mm_buf_printf(out, ",\"since\":\"%s\"", when);
}

/* mu held. */
static const char *remedy(const struct mm_node *n)
{
    if (n->no_jetstream && (n->state == MM_NODE_JOINING || n->state == MM_NODE_OFFLINE)) {
        return "give the server's configuration a jetstream block, or make room on its disk, and restart nats-server; "
               "local writes wait in the outbox meanwhile";
    }
    /* Just begun: nothing is known to be wanting. */
    return n->state == MM_NODE_STARTING && n->why[0] == '\0' ? "" : states[n->state].remedy;
}

int mm_node_status(struct mm_node *n, bool brief, struct mm_buf *out, struct mm_err *err)
{
    struct mm_buf urls;
    mm_buf_init(&urls, 1 << 20);
    mm_config_redact(n->config->nats.urls, &urls);
    mm_buf_byte(&urls, 0);
    mm_buf_check(&urls, err, "nats.urls");
    (void)pthread_mutex_lock(&n->mu);
    head_json(n, out);
    struct mm_buf warnings;
    mm_buf_init(&warnings, 1 << 20);
    mm_node_warnings(n, &warnings);
    mm_buf_byte(&warnings, 0);
    mm_buf_check(&warnings, err, "warnings");
    const char *w = warnings.rc == SQLITE_OK ? (const char *)warnings.data : "[]";
    const char *url = n->url[0] != '\0' ? n->url : err->rc == SQLITE_OK ? (const char *)urls.data : "";
    if (brief) {
        mm_buf_str(out, ",\"db\":");
        mm_buf_json(out, n->path);
        mm_buf_str(out, ",\"url\":");
        mm_buf_json(out, url);
        mm_buf_printf(out, ",\"warnings\":%s", w);
    } else {
        mm_buf_str(out, ",\"remedy\":");
        if (n->state == MM_NODE_DIVERGED || n->state == MM_NODE_JOIN_CONFLICT) {
            mm_node_remedy(n, out);
        } else {
            mm_buf_json(out, remedy(n));
        }
        mm_buf_printf(out, ",\"outbox\":{\"rows\":%lld,\"bytes\":%lld},\"shards\":", (long long)n->pending_rows,
                      (long long)n->pending_bytes);
        shards_json(n, out);
        mm_buf_printf(out, ",\"tables\":%s", n->tables_json != NULL ? n->tables_json : "[]");
        mm_buf_str(out, ",\"url\":");
        mm_buf_json(out, url);
        mm_buf_printf(out, ",\"server_pid\":%d,\"warnings\":%s,\"last_error\":", n->server_pid, w);
        mm_buf_json(out, n->last_error[0] != '\0' ? n->last_error : NULL);
    }
    (void)pthread_mutex_unlock(&n->mu);
    struct mm_node_progress p;
    if (!brief && mm_node_progress(n, &p)) {
        mm_buf_str(out, ",\"progress\":{\"what\":");
        mm_buf_json(out, p.what);
        mm_buf_printf(out, ",\"done\":%lld,\"total\":%lld}", (long long)p.done, (long long)p.total);
    }
    mm_buf_byte(out, '}');
    mm_buf_free(&urls);
    mm_buf_free(&warnings);
    return mm_buf_check(out, err, "the status");
}
