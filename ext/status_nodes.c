/* marmot_nodes: who told of itself lately, and who is known from the log alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/db.h"
#include "node.h"
#include "peers.h"
#include "registry.h"
#include "status_int.h"
#include "store/meta.h"
#include "store/position.h"

enum { NUMBER = 24, POSITIONS_MAX = 4096 };

/* Highest sequence of each shard that anybody has folded or seen. */
struct ends {
    int n;
    int64_t end[MM_HELLO_SHARDS];
};

static void raise_end(struct ends *e, int shard, int64_t seq)
{
    if (shard >= 1 && shard <= MM_HELLO_SHARDS) {
        e->n = shard > e->n ? shard : e->n;
        e->end[shard - 1] = seq > e->end[shard - 1] ? seq : e->end[shard - 1];
    }
}

static int64_t lag_of(const struct ends *e, const struct mm_hello *h)
{
    int64_t lag = 0;
    for (int k = 0; k < e->n; k++) {
        lag += e->end[k] - (k < h->nshard ? h->position[k] : 0);
    }
    return lag;
}

static int add_peer(struct mm_status_rows *r, const struct mm_peer *p, const struct ends *e, bool self,
                    struct mm_err *err)
{
    const struct mm_hello *h = &p->hello;
    char id[NUMBER], messages[NUMBER], seconds[NUMBER], seen[25];
    struct mm_buf b;
    mm_buf_init(&b, POSITIONS_MAX);
    mm_buf_byte(&b, '[');
    for (int k = 0; k < h->nshard; k++) {
        mm_buf_printf(&b, "%s%lld", k > 0 ? "," : "", (long long)h->position[k]);
    }
    mm_buf_byte(&b, ']');
    char *positions = mm_buf_take(&b);
    int64_t lag = lag_of(e, h);
    int64_t behind = lag > 0 ? h->behind_ms + (mm_clock_mono_ms() - p->heard_ms) : 0;
    (void)snprintf(id, sizeof id, "%lld", (long long)h->node);
    (void)snprintf(messages, sizeof messages, "%lld", (long long)lag);
    (void)snprintf(seconds, sizeof seconds, "%lld", (long long)(behind / 1000));
    mm_clock_format(p->heard_wall_ms, seen);
    const char *text[] = {
        id,      h->name, h->host,          self || mm_peer_alive(p) ? h->state : "silent",   positions, messages,
        seconds, seen,    self ? "1" : "0", h->no_snapshot[0] != '\0' ? h->no_snapshot : NULL
    };
    if (positions == NULL) {
        mm_err_nomem(err);
    } else {
        mm_status_add(r, text, err);
    }
    free(positions);
    return err->rc;
}

/* Nodes that wrote to the log and have not told of themselves since this one started. */
static int add_silent(sqlite3 *db, struct mm_status_rows *r, const struct mm_peers *peers, struct mm_err *err)
{
    sqlite3_stmt *st = mm_meta_exists(db, err) ? mm_db_prepare(db, err, 0, "%s", mm_position_sql_nodes) : NULL;
    while (st != NULL && mm_db_step(st, err)) {
        char id[NUMBER];
        int64_t node = sqlite3_column_int64(st, 0);
        const char *text[] = { id, NULL, NULL, "silent", NULL, NULL, NULL, NULL, "0", NULL };
        (void)snprintf(id, sizeof id, "%lld", (long long)node);
        if (mm_peers_find(peers, node) == NULL) {
            mm_status_add(r, text, err);
        }
    }
    mm_db_finalize(st);
    return err->rc;
}

int mm_status_nodes(sqlite3 *db, struct mm_status_rows *r, struct mm_err *err)
{
    struct mm_err none;
    mm_err_init(&none);
    struct mm_node *n = mm_registry_acquire(db, &none);
    if (n == NULL) {
        return SQLITE_OK;
    }
    struct mm_peers peers;
    struct ends ends = { 0 };
    int count = 0;
    int64_t self = mm_node_id(n);
    struct mm_node_shard *s = mm_node_shards(n, &count, err);
    /* That nobody could be asked is no error: what the log knows is shown. */
    if (mm_node_peers(n, &peers, &none) == SQLITE_NOMEM) {
        mm_err_nomem(err);
    }
    mm_registry_release(n);
    for (int k = 0; k < count; k++) {
        raise_end(&ends, s[k].n, s[k].end);
    }
    for (int k = 0; k < peers.count; k++) {
        for (int j = 0; j < peers.peer[k].hello.nshard; j++) {
            raise_end(&ends, j + 1, peers.peer[k].hello.position[j]);
        }
    }
    for (int k = 0; k < peers.count; k++) {
        add_peer(r, &peers.peer[k], &ends, peers.peer[k].hello.node == self, err);
    }
    add_silent(db, r, &peers, err);
    free(s);
    mm_peers_free(&peers);
    return err->rc;
}
