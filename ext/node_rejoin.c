/* marmot_rejoin: how a node leaves `diverged` and `join_conflict`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/gate.h"
#include "base/log.h"
#include "node_int.h"
#include "store/meta.h"
#include "store/stray.h"

enum { ANSWER_MAX = 1 << 16, WAIT_MS = 15000, BEGIN_MS = 30000 };

/* --- callers --- */

static int rejoin(struct mm_node *n, enum mm_rejoin_how how, struct mm_buf *out, struct mm_err *err)
{
    struct mm_rejoin c = { .how = how, .since_ms = mm_clock_mono_ms() };
    mm_err_init(&c.err);
    mm_buf_init(&c.answer, ANSWER_MAX);
    (void)pthread_mutex_lock(&n->mu);
    if (n->rejoin != NULL) {
        mm_err_set(&c.err, SQLITE_BUSY, "another call of marmot_rejoin is under way: wait for it");
    } else {
        n->rejoin = &c;
        mm_worker_wake(n->worker);
        while (!c.done && c.err.rc == SQLITE_OK) {
            if (n->state == MM_NODE_STANDBY) {
                mm_err_set(&c.err, SQLITE_ERROR, "another process replicates this database: call it there");
            } else if (n->state == MM_NODE_STOPPED) {
                mm_err_set(&c.err, SQLITE_ERROR, "the node was stopped");
            } else {
                (void)pthread_cond_wait(&n->told, &n->mu);
            }
        }
        n->rejoin = NULL;
    }
    (void)pthread_mutex_unlock(&n->mu);
    mm_buf_add(out, c.answer.data, c.answer.len);
    mm_buf_free(&c.answer);
    *err = c.err;
    return err->rc;
}

int mm_node_seed(struct mm_node *n, struct mm_buf *out, struct mm_err *err)
{
    return rejoin(n, MM_REJOIN_SEED, out, err);
}

int mm_node_adopt(struct mm_node *n, struct mm_buf *out, struct mm_err *err)
{
    return rejoin(n, MM_REJOIN_ADOPT, out, err);
}

int mm_node_merge(struct mm_node *n, struct mm_buf *out, struct mm_err *err)
{
    return rejoin(n, MM_REJOIN_MERGE, out, err);
}

/* --- the thread --- */

static const char *const names[] = { "", "seed", "adopt", "merge" };

static void finish(struct mm_node *n, const struct mm_err *err, const struct mm_buf *answer)
{
    (void)pthread_mutex_lock(&n->mu);
    struct mm_rejoin *c = n->rejoin;
    if (c != NULL && !c->done) {
        if (err != NULL) {
            c->err = *err;
        } else {
            mm_buf_add(&c->answer, answer->data, answer->len);
        }
        c->done = true;
    }
    (void)pthread_cond_broadcast(&n->told);
    (void)pthread_mutex_unlock(&n->mu);
    n->rejoining = MM_REJOIN_NOT;
}

static void begin_answer(const struct mm_node *n, struct mm_buf *b, enum mm_rejoin_how how)
{
    mm_buf_init(b, ANSWER_MAX);
    mm_buf_printf(b, "{\"how\":\"%s\",\"epoch\":%lld", names[how], (long long)n->r.epoch);
}

static void end_answer(struct mm_node *n, struct mm_buf *b, int64_t given_up)
{
    int64_t upto;
    if (n->rejoining != MM_REJOIN_SEED) {
        mm_buf_printf(b, ",\"given_up\":%lld,\"kept\":", (long long)given_up);
        const char *kept = n->task != NULL ? mm_task_kept(n->task, &upto) : "";
        mm_buf_json(b, kept[0] != '\0' ? kept : NULL);
    }
    mm_buf_byte(b, '}');
    finish(n, NULL, b);
    mm_buf_free(b);
}

void mm_node_rejoin_failed(struct mm_node *n, const struct mm_err *err)
{
    if (n->rejoining != MM_REJOIN_NOT && err->rc != SQLITE_OK) {
        finish(n, err, NULL);
    } else if (n->rejoining != MM_REJOIN_NOT) { /* there was nothing to do: it is part of the cluster */
        struct mm_buf b;
        begin_answer(n, &b, n->rejoining);
        end_answer(n, &b, 0);
    }
}

void mm_node_rejoin_brought(struct mm_node *n, int64_t given_up)
{
    struct mm_buf b;
    int64_t upto;
    if (n->rejoining == MM_REJOIN_NOT) {
        return;
    }
    const char *kept = mm_task_kept(n->task, &upto);
    begin_answer(n, &b, n->rejoining);
    mm_buf_str(&b, ",\"snapshot\":");
    mm_buf_json(&b, mm_task_manifest(n->task)->id[0] != '\0' ? mm_task_manifest(n->task)->id : NULL);
    mm_log(MM_LOG_WARN, "node %lld rejoined by '%s': %lld of its transactions are given up%s%s",
           (long long)n->config->node_id, names[n->rejoining], (long long)given_up,
           kept[0] != '\0' ? ", the file as it was is kept as " : "", kept);
    end_answer(n, &b, given_up);
}

void mm_node_rejoin_ready(struct mm_node *n)
{
    struct mm_err err;
    struct mm_buf b;
    mm_err_init(&err);
    mm_gate_enter();
    mm_repl_enter_epoch(&n->r, mm_task_manifest(n->task)->shard, &err);
    if (err.rc == SQLITE_OK) { /* the epoch has what was not captured before; else it is counted on */
        struct mm_err none;
        mm_err_init(&none);
        mm_node_stray_mended(n, &none);
    }
    mm_gate_leave();
    if ((err.rc & 0xff) == SQLITE_BUSY) {
        return; /* next turn */
    }
    if (err.rc != SQLITE_OK) { /* the epoch counts all the same: this node follows it like the others */
        mm_node_rejoin_failed(n, &err);
    } else {
        begin_answer(n, &b, MM_REJOIN_SEED);
        mm_buf_str(&b, ",\"snapshot\":");
        mm_buf_json(&b, mm_task_manifest(n->task)->id);
        mm_node_brought(n);
        end_answer(n, &b, 0);
    }
    mm_node_task_close(n);
}

/* Who is part of the log as it is now needs no other one. */
static void check_others(struct mm_node *n, struct mm_err *err)
{
    (void)pthread_mutex_lock(&n->mu);
    for (int k = 0; k < n->peers.count && err->rc == SQLITE_OK; k++) {
        const struct mm_peer *p = &n->peers.peer[k];
        bool here = mm_peer_alive(p) && p->heard_ms > n->connected_ms;
        bool live = strcmp(p->hello.state, "live") == 0 || strcmp(p->hello.state, "log_full") == 0;
        if (here && (live || p->hello.epoch > n->r.epoch)) {
            mm_err_set(err, SQLITE_ERROR,
                       "node %lld is %s in epoch %lld of the cluster, which 'seed' here would put out: call "
                       "marmot_rejoin('adopt') or marmot_rejoin('merge')",
                       (long long)p->hello.node, p->hello.state, (long long)p->hello.epoch);
        }
    }
    (void)pthread_mutex_unlock(&n->mu);
}

/* What this node's beginning of an epoch is known by, also after a crash in the middle. */
static int64_t seed_token(sqlite3 *db, struct mm_err *err)
{
    int64_t token = mm_meta_int(db, MM_META_SEED, 0, err);
    if (token != 0 || mm_db_exec(db, err, "BEGIN IMMEDIATE") != SQLITE_OK) {
        return token;
    }
    sqlite3_randomness(sizeof token, &token);
    token = (token & INT64_MAX) | 1;
    mm_meta_set_int(db, MM_META_SEED, token, err);
    mm_stray_end(db, err);
    return token;
}

/* False: the database is locked, next turn. */
static bool begin_seed(struct mm_node *n, struct mm_err *err)
{
    const struct mm_config *c = n->config;
    if (!n->r.joined) {
        mm_err_set(err, SQLITE_ERROR,
                   "this database was never part of the cluster: call marmot_rejoin('adopt') or "
                   "marmot_rejoin('merge')");
    } else if (n->verdict != MM_NODE_DIVERGED) {
        mm_err_set(err, SQLITE_ERROR, "the node is %s, 'seed' is for a node that is diverged: see marmot_status()",
                   mm_node_state_name(n->verdict));
    } else if (!c->snapshot.enabled) {
        mm_err_set(err, SQLITE_ERROR,
                   "snapshot.enabled is false in the configuration: an epoch begins with a snapshot, set it to true");
    } else if (!(c->publish && c->replicate)) {
        mm_err_set(err, SQLITE_ERROR, "a node with publish or replicate false may not seed: call it on another one");
    }
    check_others(n, err);
    if (err->rc != SQLITE_OK) {
        return true;
    }
    mm_gate_enter();
    int64_t token = seed_token(n->r.db, err);
    mm_gate_leave();
    if ((err->rc & 0xff) == SQLITE_BUSY) {
        return false;
    }
    if (err->rc == SQLITE_OK) {
        mm_node_task_seed(n, (uint64_t)token, err);
    }
    return true;
}

/* Also forgets what an earlier attempt had to wait for. */
static void try_at_once(struct mm_node *n)
{
    n->next_join_ms = n->next_bring_ms = n->next_connect_ms = 0;
    n->bring_wait_ms = 0;
    n->bring_hopeless = false;
    n->linked = false;
    mm_err_init(&n->bring_failed);
}

/* What the call waits for is not to come. */
static bool out_of_place(const struct mm_node *n, int64_t since_ms, struct mm_err *err)
{
    enum mm_node_state s = n->told_state;
    bool passing = s == MM_NODE_STARTING || s == MM_NODE_JOINING || s == MM_NODE_DIVERGED || s == MM_NODE_JOIN_CONFLICT;
    if (!passing || n->nothing_watched || mm_clock_mono_ms() - since_ms > WAIT_MS) {
        mm_err_set(err, SQLITE_ERROR, "the node is %s: only `diverged` and `join_conflict` are left by marmot_rejoin",
                   mm_node_state_name(s));
    }
    return err->rc != SQLITE_OK;
}

void mm_node_rejoin_step(struct mm_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    (void)pthread_mutex_lock(&n->mu);
    struct mm_rejoin *c = n->rejoin != NULL && !n->rejoin->done ? n->rejoin : NULL;
    enum mm_rejoin_how how = c != NULL ? c->how : MM_REJOIN_NOT;
    int64_t since_ms = c != NULL ? c->since_ms : 0;
    bool begun = c != NULL && c->begun;
    (void)pthread_mutex_unlock(&n->mu);
    if (how == MM_REJOIN_NOT) {
        n->rejoining = MM_REJOIN_NOT; /* its caller has gone */
        return;
    }
    if (begun) { /* the next joining does it */
        if (mm_clock_mono_ms() - since_ms > BEGIN_MS) {
            mm_err_set(&err, SQLITE_BUSY, "the server does not answer: try again when it is reached");
            finish(n, &err, NULL);
        }
        return;
    }
    bool sad = n->verdict == MM_NODE_DIVERGED || n->verdict == MM_NODE_JOIN_CONFLICT;
    if (!sad) {
        if (out_of_place(n, since_ms, &err)) {
            finish(n, &err, NULL);
        }
        return;
    }
    if (how == MM_REJOIN_SEED && !begin_seed(n, &err)) {
        return;
    }
    if (how != MM_REJOIN_SEED && !n->config->replicate) {
        mm_err_set(&err, SQLITE_ERROR,
                   "replicate is false in the configuration: this node takes no content of others, set it to true "
                   "first");
    }
    if (err.rc != SQLITE_OK) {
        finish(n, &err, NULL);
        return;
    }
    n->rejoining = how;
    if (how != MM_REJOIN_SEED) {
        try_at_once(n);
    }
    (void)pthread_mutex_lock(&n->mu);
    if (n->rejoin != NULL) {
        n->rejoin->begun = true;
    }
    (void)pthread_mutex_unlock(&n->mu);
}

/* --- the remedy, for any thread; mu held --- */

struct member {
    int64_t node;
    const int64_t *position;
    int nshard;
    const char *lacks; /* the table that it does not hold, and so cannot seed; NULL: none */
};

static const char *lacks(const char *no_snapshot)
{
    return strncmp(no_snapshot, MM_LACKS_TABLE, strlen(MM_LACKS_TABLE)) == 0 ? no_snapshot : NULL;
}

/* Members of this node's epoch that can be heard and may seed, itself first. Caller frees. */
static struct member *members(const struct mm_node *n, const int64_t *own, int *count)
{
    struct member *list = calloc((size_t)n->peers.count + 1, sizeof *list);
    *count = 0;
    if (list == NULL) {
        return NULL;
    }
    if (n->config->publish && n->config->replicate) {
        list[(*count)++] = (struct member){ n->config->node_id, own, n->nshards, lacks(n->no_snapshot) };
    }
    for (int k = 0; k < n->peers.count; k++) {
        const struct mm_hello *h = &n->peers.peer[k].hello;
        if (mm_peer_alive(&n->peers.peer[k]) && h->epoch == n->epoch && h->nshard == n->nshards &&
            strcmp(h->no_snapshot, MM_NOT_THE_CLUSTERS) != 0) {
            list[(*count)++] = (struct member){ h->node, h->position, h->nshard, lacks(h->no_snapshot) };
        }
    }
    return list;
}

/* The member that holds most of the shard; of several the one with the lowest id. */
static const struct member *most(const struct member *list, int count, int shard)
{
    const struct member *best = &list[0];
    for (int k = 1; k < count; k++) {
        int64_t more = list[k].position[shard] - best->position[shard];
        if (more > 0 || (more == 0 && list[k].node < best->node)) {
            best = &list[k];
        }
    }
    return best;
}

/* The member, of lowest id, that holds every table and that no other one holds more than; NULL: there is none. */
static const struct member *leader(const struct member *list, int count)
{
    const struct member *found = NULL;
    for (int k = 0; k < count; k++) {
        bool all = list[k].lacks == NULL;
        for (int s = 0; s < list[0].nshard; s++) {
            all = all && list[k].position[s] >= most(list, count, s)->position[s];
        }
        if (all && (found == NULL || list[k].node < found->node)) {
            found = &list[k];
        }
    }
    return found;
}

static void put_places(const struct mm_node *n, const struct member *list, int count, struct mm_buf *b)
{
    for (int s = 0; s < list[0].nshard; s++) {
        mm_buf_printf(b, "%sshard %d: ", s > 0 ? "; " : "", s + 1);
        for (int k = 0; k < count; k++) {
            mm_buf_printf(b, "%snode %lld%s holds up to %lld", k > 0 ? ", " : "", (long long)list[k].node,
                          list[k].node == n->config->node_id ? " (this one)" : "", (long long)list[k].position[s]);
            if (list[k].lacks != NULL) {
                mm_buf_printf(b, " and cannot seed: %s", list[k].lacks);
            }
        }
    }
}

/* A node that goes on in the cluster's log, or in a newer epoch; NULL = none is heard. */
static const struct mm_hello *going_on(const struct mm_node *n)
{
    for (int k = 0; k < n->peers.count; k++) {
        const struct mm_peer *p = &n->peers.peer[k];
        if (mm_peer_alive(p) && p->heard_ms > n->connected_ms &&
            (p->hello.epoch > n->epoch || strcmp(p->hello.state, "live") == 0)) {
            return &p->hello;
        }
    }
    return NULL;
}

static void diverged_remedy(const struct mm_node *n, struct mm_buf *b)
{
    int64_t own[MM_SHARDS_MAX] = { 0 };
    int count = 0;
    for (int k = 0; k < n->nshards; k++) {
        own[k] = n->shards[k].position;
    }
    const struct mm_hello *on = going_on(n);
    struct member *list = members(n, own, &count);
    const struct member *best = list != NULL && n->nshards > 0 ? leader(list, count) : NULL;
    if (on != NULL) {
        mm_buf_printf(
            b,
            "node %lld goes on in epoch %lld: call marmot_rejoin('adopt') here to take the cluster's content, "
            "or marmot_rejoin('merge') to bring in the rows that exist only here as well; a copy of this file "
            "is kept in both cases",
            (long long)on->node, (long long)on->epoch);
    } else if (best != NULL) {
        mm_buf_printf(b,
                      "call marmot_rejoin('seed') on node %lld%s, which holds all that the nodes that can be heard do: "
                      "the others follow by themselves (",
                      (long long)best->node, best->node == n->config->node_id ? " (this one)" : "");
        put_places(n, list, count, b);
        mm_buf_str(b, ")");
    } else if (list != NULL && count > 0 && n->nshards > 0) {
        mm_buf_str(b, "no node holds all that the others do: call marmot_rejoin('seed') on one of them and "
                      "marmot_rejoin('merge') on those that do not follow by themselves (");
        put_places(n, list, count, b);
        mm_buf_str(b, ")");
    } else {
        mm_buf_str(b, "call marmot_rejoin('seed') on the node that holds most");
    }
    free(list);
}

void mm_node_remedy(const struct mm_node *n, struct mm_buf *out)
{
    struct mm_buf b;
    mm_buf_init(&b, ANSWER_MAX);
    if (n->state == MM_NODE_DIVERGED) {
        diverged_remedy(n, &b);
    } else {
        mm_buf_str(&b,
                   "see why; where only rows differ, marmot_rejoin('adopt') takes the cluster's and "
                   "marmot_rejoin('merge') those that exist only here, too; until then this database is left as it is");
    }
    mm_buf_byte(&b, 0);
    mm_buf_json(out, b.len > 0 && !mm_buf_failed(&b) ? (const char *)b.data : "call marmot_rejoin");
    mm_buf_free(&b);
}
