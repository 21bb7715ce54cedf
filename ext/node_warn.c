/* What the status warns of while the node goes on: a log that fills up, and why
** nobody makes room in it by a snapshot. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"

enum { STEP_MS = 1000, LOOK_MS = 2000, FULL_PERCENT = 80, TEXT_MAX = 1 << 16 };

static void missing_table(struct mm_node *n, char *out, size_t size)
{
    struct mm_err none;
    char *missing = NULL;
    mm_err_init(&none);
    if (n->r.db != NULL && !n->r.reload_needed) {
        mm_gate_enter();
        if (mm_watchlist_missing(n->r.db, &missing, &none)) {
            (void)snprintf(out, size, MM_LACKS_TABLE "%s there", missing);
        }
        sqlite3_free(missing);
        mm_gate_leave();
    }
}

/* Why this node takes no snapshots; "" = it may. */
static void why_none(struct mm_node *n, char *out, size_t size)
{
    const struct mm_config *c = n->config;
    const char *why = !c->snapshot.enabled            ? "snapshot.enabled is false in its configuration"
                      : !(c->publish && c->replicate) ? MM_NOT_THE_CLUSTERS
                      : !n->r.joined                  ? "it has not joined the cluster yet"
                      : n->verdict != MM_NODE_LIVE    ? mm_node_state_name(n->verdict)
                                                      : "";
    (void)snprintf(out, size, "%s", why);
    if (n->verdict == MM_NODE_DIVERGED && strcmp(why, mm_node_state_name(MM_NODE_DIVERGED)) == 0) {
        missing_table(n, out, size); /* one of them seeds: the remedy names who can */
    }
    if (out[0] == '\0' && n->strays > 0) {
        (void)snprintf(out, size, "%lld commits were not captured there", (long long)n->strays);
    }
    for (int k = 0; k < n->r.nshard && out[0] == '\0'; k++) {
        const struct mm_shard *s = &n->r.shard[k];
        if (s->blocked_seq != 0) {
            (void)snprintf(out, size, "message %d:%lld blocks it", s->n, (long long)s->blocked_seq);
        }
    }
    if (out[0] == '\0') {
        missing_table(n, out, size);
    }
    if (out[0] == '\0') {
        (void)snprintf(out, size, "%s", n->keep_error);
    }
}

static int percent(int64_t part, int64_t whole)
{
    return whole > 0 ? (int)((double)part * 100 / (double)whole) : 0;
}

/* Waits for the network: only when the log has moved, and seldom. */
static void look_at_log(struct mm_node *n, char *out, size_t size)
{
    int64_t most = n->config->snapshot.enabled ? n->config->log.max_entries : 0;
    int64_t bytes = n->config->log.max_bytes;
    out[0] = '\0';
    for (int k = 0; k < n->r.nshard && out[0] == '\0'; k++) {
        struct mm_stream_info info;
        struct mm_err none;
        mm_err_init(&none);
        if (!mm_bus_stream_info(n->r.bus, n->r.shard[k].stream, &info, MM_REQUEST_MS, &none)) {
            continue;
        }
        int by_count = percent(info.messages, most);
        int by_bytes = percent(info.bytes, bytes);
        if (by_count >= FULL_PERCENT && by_count >= by_bytes) {
            (void)snprintf(out, size, "stream %s holds %lld of at most %lld messages", n->r.shard[k].stream,
                           (long long)info.messages, (long long)most);
        } else if (by_bytes >= FULL_PERCENT) {
            (void)snprintf(out, size, "stream %s holds %lld of at most %lld bytes", n->r.shard[k].stream,
                           (long long)info.bytes, (long long)bytes);
        }
    }
}

static int64_t moved(const struct mm_node *n)
{
    int64_t sum = 0;
    for (int k = 0; k < n->r.nshard; k++) {
        sum += n->r.shard[k].end_seq + (n->r.shard[k].full ? 1 : 0);
    }
    return sum;
}

/* Who could make room (true), or why nobody does. mu held. */
static bool reasons(struct mm_node *n, struct mm_buf *out)
{
    const char *able = n->no_snapshot[0] == '\0' ? "this one" : NULL;
    for (int k = 0; k < n->peers.count && able == NULL; k++) {
        const struct mm_peer *p = &n->peers.peer[k];
        able = mm_peer_alive(p) && p->hello.no_snapshot[0] == '\0' ? p->hello.name : NULL;
    }
    if (able != NULL) {
        mm_buf_printf(out, "; a snapshot makes room, which %s may take", able);
        return true;
    }
    mm_buf_printf(out, "; no node may take a snapshot, which would make room. This one: %s", n->no_snapshot);
    for (int k = 0; k < n->peers.count; k++) {
        const struct mm_peer *p = &n->peers.peer[k];
        if (mm_peer_alive(p)) {
            mm_buf_printf(out, "; %s (%lld): %s", p->hello.name, (long long)p->hello.node, p->hello.no_snapshot);
        }
    }
    return false;
}

void mm_node_warn_step(struct mm_node *n)
{
    char why[sizeof n->no_snapshot];
    char full[sizeof n->log_warning];
    int64_t now = mm_clock_mono_ms();
    if (now < n->next_warn_ms) {
        return;
    }
    n->next_warn_ms = now + STEP_MS;
    why_none(n, why, sizeof why);
    (void)snprintf(full, sizeof full, "%s", n->log_warning);
    bool look = n->linked && !n->held && mm_bus_connected(n->r.bus) && now >= n->next_full_ms &&
                (moved(n) != n->full_moved || full[0] != '\0') &&
                n->config->log.max_entries + n->config->log.max_bytes > 0;
    if (look) {
        n->next_full_ms = now + LOOK_MS;
        n->full_moved = moved(n);
        look_at_log(n, full, sizeof full);
    }
    struct mm_buf b;
    bool able = false;
    mm_buf_init(&b, TEXT_MAX);
    (void)pthread_mutex_lock(&n->mu);
    bool news = (full[0] != '\0') != (n->log_warning[0] != '\0');
    n->hello_due = n->hello_due || strcmp(n->no_snapshot, why) != 0;
    (void)snprintf(n->no_snapshot, sizeof n->no_snapshot, "%s", why);
    (void)snprintf(n->log_warning, sizeof n->log_warning, "%s", full);
    n->warn_snapshot = n->snapshot_fails;
    if (news && full[0] != '\0') {
        mm_buf_str(&b, full);
        able = reasons(n, &b);
    }
    (void)pthread_mutex_unlock(&n->mu);
    mm_buf_byte(&b, 0);
    if (news && b.rc == SQLITE_OK && full[0] != '\0') {
        mm_log(able ? MM_LOG_INFO : MM_LOG_WARN, "node %lld: %s", (long long)n->config->node_id, (const char *)b.data);
    } else if (news) {
        mm_log(MM_LOG_INFO, "node %lld: the log has room again", (long long)n->config->node_id);
    }
    mm_buf_free(&b);
}

void mm_node_warnings(struct mm_node *n, struct mm_buf *out)
{
    const char *known = n->config->warnings != NULL ? n->config->warnings : "[]";
    const char *sep = strcmp(known, "[]") == 0 ? "" : ",";
    struct mm_buf b;
    mm_buf_init(&b, TEXT_MAX);
    mm_buf_add(out, known, strlen(known) - 1); /* without the ] */
    if (n->full_bytes > 0) {
        char why[MM_FULL_TEXT];
        mm_node_full_text(n, why);
        mm_buf_str(out, sep);
        mm_buf_json(out, why);
        sep = ",";
    }
    if (n->strays > 0) {
        char why[MM_STRAY_TEXT];
        mm_node_stray_text(n, why);
        mm_buf_str(out, sep);
        mm_buf_json(out, why);
        sep = ",";
    }
    if (n->id_warning[0] != '\0') {
        mm_buf_str(out, sep);
        mm_buf_json(out, n->id_warning);
        sep = ",";
    }
    if (n->log_warning[0] != '\0') {
        mm_buf_str(&b, n->log_warning);
        (void)reasons(n, &b);
    } else if (n->warn_snapshot) {
        mm_buf_printf(&b, "no snapshot is taken: %s", n->no_snapshot);
    }
    if (b.len > 0) {
        mm_buf_byte(&b, 0);
        mm_buf_str(out, sep);
        mm_buf_json(out, b.rc == SQLITE_OK ? (const char *)b.data : n->log_warning);
    }
    mm_buf_byte(out, ']');
    mm_buf_free(&b);
}
