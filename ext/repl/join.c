#include "repl/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/log.h"
#include "capture/trigger.h"
#include "store/log.h"
#include "repl/epoch.h"
#include "repl/record.h"
#include "store/meta.h"
#include "store/stray.h"

enum { TABLES_MAX = 10000 };
#define MESSAGE_MAX ((size_t)8 << 20)

const char *mm_join_difference(const struct mm_msg_table *ours, const struct mm_msg_table *theirs)
{
    if (ours->schema_hash != theirs->schema_hash) {
        return "its columns, types or key differ from the cluster's table: make the schema the same, then call "
               "marmot_cleanup('discard') and join again";
    }
    if (ours->rows != theirs->rows || memcmp(ours->content, theirs->content, sizeof ours->content) != 0) {
        return "its rows differ from those that the cluster began with: start from a copy of the database as it was "
               "then, or with the same rows";
    }
    return NULL;
}

int mm_join_table(struct mm_repl *r, const struct mm_msg_table *table, int shard, int64_t seq, bool own,
                  struct mm_err *err)
{
    struct mm_target *t = mm_targets_get(r->targets, table->name, err);
    if (t == NULL || mm_table_internal(table->name)) {
        return err->rc;
    }
    bool listed = mm_watchlist_seq(r->db, table->name, err) > 0;
    mm_watchlist_add(r->db, table->name, shard, seq, err);
    r->tables_changed = true;
    if (listed || t->state != MM_JOINING || t->def == NULL || err->rc != SQLITE_OK) {
        return err->rc; /* on the list before: its replay decides */
    }
    const char *why = NULL;
    if (!own) {
        struct mm_msg_table ours;
        mm_join_base(r, t, &ours, err);
        why = mm_join_difference(&ours, table);
    }
    t->state = why == NULL ? MM_WATCHED : MM_JOINING;
    t->joined_seq = why == NULL ? seq + 1 : mm_watch_copy_seq(t->joined_seq);
    r->copy_due = r->copy_due || why != NULL;
    if (why != NULL) {
        mm_log(MM_LOG_INFO, "table %s waits for a copy of the cluster's content: %s", t->name, why);
    }
    mm_watch_set(r->db, t->name, t->state, why, err);
    return mm_watch_set_joined_seq(r->db, t->name, t->joined_seq, err);
}

/* --- the founded message --- */

struct gather {
    struct mm_repl *r;
    struct mm_msg_table *table;
    size_t n;
};

static int gather_table(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct gather *g = arg;
    if (t->def != NULL && t->def->supported && mm_watch_captures(t->state) && g->n < TABLES_MAX) {
        mm_join_base(g->r, t, &g->table[g->n], err);
        g->n++;
    }
    return err->rc;
}

/* Base contents of all watched tables, of one moment. Caller frees. */
static struct mm_msg_table *gather(struct mm_repl *r, size_t *n, struct mm_err *err)
{
    struct gather g = { r, calloc(TABLES_MAX, sizeof *g.table), 0 };
    *n = 0;
    if (g.table == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    if (mm_log_any(r->db, err)) { /* rows that triggers noted are pending ones, too */
        mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
        mm_trigger_move(r->db, NULL, err);
        mm_stray_end(r->db, err);
    }
    mm_db_exec(r->db, err, "BEGIN");
    if (mm_targets_refresh(r->targets, err)) { /* whoever looks next shall know */
        r->tables_changed = r->schema_moved = true;
        mm_repl_rekey(r, err);
    }
    mm_targets_each(r->targets, gather_table, &g, err);
    if (!sqlite3_get_autocommit(r->db)) {
        struct mm_err end;
        mm_err_init(&end);
        mm_db_exec(r->db, &end, "COMMIT");
    }
    if (!sqlite3_get_autocommit(r->db)) { /* out of memory: it has read only */
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    }
    *n = g.n;
    return g.table;
}

static int publish_founded(struct mm_repl *r, const struct mm_join_options *o, const struct mm_msg_table *table,
                           size_t n, struct mm_err *err)
{
    struct mm_msg m;
    struct mm_buf out;
    bool zstd = false;
    memset(&m, 0, sizeof m);
    m.kind = MM_MSG_FOUNDED;
    m.epoch = 1;
    m.node = r->node;
    m.incarnation = mm_head_incarnation(r->db, err);
    m.at_ms = mm_clock_wall_ms();
    m.control.cluster_id = r->cluster_id;
    m.control.settings = o->settings;
    m.control.table = (struct mm_msg_table *)table;
    m.control.ntable = n;
    mm_buf_init(&out, MESSAGE_MAX);
    mm_wire_encode(&out, &m, false, &zstd, err);
    struct mm_publish p = { .subject = r->shard[0].subject, .expect_last = 0, .data = out.data, .len = out.len };
    mm_bus_publish(r->bus, &p, err);
    struct mm_ack ack;
    int64_t until = mm_clock_mono_ms() + MM_REQUEST_MS;
    while (err->rc == SQLITE_OK && !mm_bus_next_ack(r->bus, &ack)) {
        int64_t left = until - mm_clock_mono_ms();
        if (left <= 0 || !mm_bus_connected(r->bus)) {
            mm_err_set(err, SQLITE_IOERR, "the server did not acknowledge the founding message in time");
        } else {
            mm_bus_wait(r->bus, (int)left, err);
        }
    }
    mm_buf_free(&out);
    return err->rc; /* stored, or another node was first: the stream's first message tells */
}

static const struct mm_msg_table *find_table(const struct mm_msg_table *list, size_t n, const char *name)
{
    for (size_t k = 0; k < n; k++) {
        if (sqlite3_stricmp(list[k].name, name) == 0) {
            return &list[k];
        }
    }
    return NULL;
}

/* Compares what is here with what the founder had. Equal: the log gives the rest. */
static enum mm_join_result compare(struct mm_repl *r, const struct mm_join_options *o, const struct mm_msg *founded,
                                   const struct mm_msg_table *table, size_t n, struct mm_err *err)
{
    size_t common = 0;
    struct mm_err first; /* what speaks against reading the log alone */
    mm_err_init(&first);
    for (size_t k = 0; k < founded->control.ntable && err->rc == SQLITE_OK; k++) {
        const struct mm_msg_table *theirs = &founded->control.table[k];
        const struct mm_msg_table *mine = find_table(table, n, theirs->name);
        if (mine == NULL) {
            bool by_choice = mm_watch_get(r->db, theirs->name, NULL, err) == MM_UNWATCHED || !o->watch_all;
            if (!by_choice) {
                mm_err_set(&first, SQLITE_MISMATCH,
                           "cluster %s replicates a table %s, which this database does not have (another application's "
                           "cluster? then set cluster to a name of its own; else start from a copy of its database)",
                           o->cluster, theirs->name);
            }
            continue;
        }
        const char *why = mm_join_difference(mine, theirs);
        if (why != NULL) {
            mm_err_set(&first, SQLITE_MISMATCH, "table %s cannot join cluster %s: %s", theirs->name, o->cluster, why);
        }
        common++;
    }
    if (err->rc != SQLITE_OK) {
        return MM_JOIN_LATER;
    }
    if (first.rc == SQLITE_OK && common > 0) {
        return MM_JOIN_DONE;
    }
    /* A database without a table of the cluster is another application's, unless it is empty. */
    if (common == 0 && n > 0) {
        mm_err_set(&first, SQLITE_MISMATCH,
                   "none of the tables watched here is one that cluster %s was founded with: set cluster to a name of "
                   "its own",
                   o->cluster);
    }
    *err = first;
    return common == 0 && n > 0 ? MM_JOIN_CONFLICT : MM_JOIN_BRING;
}

/* From now on this database belongs to the cluster, at the founding's place. */
static int adopt(struct mm_repl *r, const struct mm_msg *founded, const struct mm_stored *first,
                 const struct mm_msg_table *table, size_t n, struct mm_err *err)
{
    uint8_t digest[32];
    mm_wire_sha256(first->data, first->len, digest);
    sqlite3_busy_timeout(r->db, MM_ADOPT_BUSY_MS);
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    sqlite3_busy_timeout(r->db, MM_BUSY_MS);
    for (size_t k = 0; k < founded->control.ntable && err->rc == SQLITE_OK; k++) {
        const char *name = founded->control.table[k].name;
        struct mm_target *t = mm_targets_get(r->targets, name, err);
        bool wanted = mm_watch_captures(mm_watch_get(r->db, name, NULL, err)); /* it may have changed meanwhile */
        if (t != NULL && wanted && find_table(table, n, name) != NULL) {
            mm_watch_set(r->db, t->name, MM_WATCHED, NULL, err);
            mm_watch_set_joined_seq(r->db, t->name, t->shard == 1 ? 2 : 1, err);
        }
        mm_watchlist_add(r->db, name, mm_targets_shard(r->targets, name, err), 1, err);
    }
    for (int k = 0; k < r->nshard; k++) {
        struct mm_shard *s = &r->shard[k];
        s->pos.epoch = founded->epoch;
        s->pos.seq = k == 0 ? 1 : 0;
        s->pos.stamp = 0;
        memset(s->pos.digest, 0, sizeof s->pos.digest);
        if (k == 0) {
            s->pos.stamp = first->time_ns;
            memcpy(s->pos.digest, digest, sizeof s->pos.digest);
        }
        mm_position_set(r->db, &s->pos, err);
    }
    mm_meta_set_text(r->db, MM_META_CLUSTER, r->cluster_id, err);
    mm_meta_set_int(r->db, MM_META_JOINED, 1, err);
    mm_stray_end(r->db, err);
    mm_targets_forget(r->targets);
    r->joined = err->rc == SQLITE_OK;
    r->reload_needed = !r->joined;
    r->epoch = founded->epoch;
    r->tables_changed = true;
    return err->rc;
}

/* Decodes the founding; SQLITE_CORRUPT when the message is none, or of another cluster. */
static int decode_founded(struct mm_repl *r, struct mm_msg *m, const struct mm_stored *first, struct mm_arena *a,
                          struct mm_err *err)
{
    struct mm_err bad;
    mm_err_init(&bad);
    bool good = mm_wire_decode(m, first->data, first->len, false, a, &bad) == SQLITE_OK &&
                (m->kind == MM_MSG_FOUNDED || m->kind == MM_MSG_SEEDED) &&
                strcmp(m->control.cluster_id, r->cluster_id) == 0;
    if (good && m->kind == MM_MSG_SEEDED) {
        mm_err_set(err, SQLITE_NOTFOUND, "the log of the cluster begins with epoch %lld, not with its founding",
                   (long long)m->epoch);
    } else if (!good) {
        mm_err_set(err, SQLITE_CORRUPT,
                   "the first message of %s is not the founding of this cluster: set another "
                   "cluster name",
                   r->shard[0].stream);
    }
    return err->rc;
}

static const char not_empty[] =
    "the cluster began with rows in it, and no snapshot holds them: it joins by itself when "
    "there is one (marmot_snapshot() on another node)";

int mm_join_begin(struct mm_repl *r, struct mm_err *err)
{
    struct mm_stored first;
    size_t n = 0;
    struct mm_arena a;
    struct mm_msg m;
    struct mm_msg_table *table = gather(r, &n, err);
    mm_arena_init(&a, MESSAGE_MAX * 4);
    if (!mm_bus_stream_get(r->bus, r->shard[0].stream, 1, &first, MM_REQUEST_MS, err)) {
        mm_err_set(err, SQLITE_NOTFOUND, "stream %s no longer begins with the founding", r->shard[0].stream);
    } else if (decode_founded(r, &m, &first, &a, err) == SQLITE_OK) {
        size_t kept = 0;
        for (size_t k = 0; k < n && err->rc == SQLITE_OK; k++) {
            const struct mm_msg_table *theirs = find_table(m.control.table, m.control.ntable, table[k].name);
            const char *why = theirs != NULL ? mm_join_difference(&table[k], theirs) : NULL;
            if (why != NULL) {
                mm_watch_set(r->db, table[k].name, MM_STALE, theirs->rows > 0 ? not_empty : why, err);
            }
            if (theirs != NULL && why == NULL) {
                table[kept++] = table[k];
            }
        }
        if (err->rc == SQLITE_OK) {
            adopt(r, &m, &first, table, kept, err);
        }
    }
    free(first.data);
    free(table);
    mm_arena_free(&a);
    return err->rc;
}

static enum mm_join_result join_founded(struct mm_repl *r, const struct mm_join_options *o,
                                        const struct mm_msg_table *table, size_t n, struct mm_err *err)
{
    struct mm_stored first;
    enum mm_join_result result = MM_JOIN_LATER;
    struct mm_arena a;
    struct mm_msg m;
    mm_arena_init(&a, MESSAGE_MAX * 4);
    if (!mm_bus_stream_get(r->bus, r->shard[0].stream, 1, &first, MM_REQUEST_MS, err)) {
        struct mm_stream_info info;
        bool there = mm_bus_stream_info(r->bus, r->shard[0].stream, &info, MM_REQUEST_MS, err);
        if (err->rc == SQLITE_OK && (!there || info.first_seq <= 1)) {
            /* Another node's founding is under way: refused as second, but the first is not to be read yet. */
            mm_err_set(err, SQLITE_BUSY, "the founding of cluster %s is not stored yet", o->cluster);
        } else if (err->rc == SQLITE_OK) {
            mm_err_set(err, SQLITE_NOTFOUND,
                       "the log of cluster %s no longer begins with its founding, so this database cannot join by "
                       "reading it: start from a copy of another node's database",
                       o->cluster);
            result = MM_JOIN_BRING;
        }
    } else if (decode_founded(r, &m, &first, &a, err) != SQLITE_OK) {
        result = err->rc == SQLITE_NOTFOUND ? MM_JOIN_LATER : MM_JOIN_CONFLICT; /* an epoch that is being begun */
    } else {
        bool founder = m.node == r->node && m.incarnation == mm_head_incarnation(r->db, err);
        r->founder = r->founder || founder;
        result = founder ? MM_JOIN_DONE : compare(r, o, &m, table, n, err);
        if (result == MM_JOIN_DONE && adopt(r, &m, &first, table, n, err) != SQLITE_OK) {
            result = MM_JOIN_LATER;
        }
    }
    free(first.data);
    mm_arena_free(&a);
    return result;
}

static int begun(const struct mm_epoch *e, struct mm_err *err)
{
    return mm_err_set(err, SQLITE_BUSY,
                      "node %lld has begun epoch %lld of the cluster and has not stored its snapshot yet: wait for it, "
                      "call marmot_rejoin('seed') there once more, or, two minutes later, on another node",
                      (long long)e->node, (long long)e->n);
}

/* Whether the cluster goes on in a newer epoch than `own`: EPOCH (SQLITE_NOTFOUND), else
** DONE, LATER. */
static enum mm_join_result look_at_epochs(struct mm_repl *r, const struct mm_join_options *o, int64_t own,
                                          struct mm_epochs *epochs, struct mm_err *err)
{
    if (mm_epoch_look(r->bus, o->cluster, own, epochs, err) != SQLITE_OK) {
        return MM_JOIN_LATER;
    }
    r->newest_epoch = epochs->done.n;
    if (epochs->done.n == 0) {
        return MM_JOIN_DONE;
    }
    mm_err_set(err, SQLITE_NOTFOUND, "the cluster goes on in epoch %lld, which node %lld began",
               (long long)epochs->done.n, (long long)epochs->done.node);
    return MM_JOIN_EPOCH;
}

static void log_is_gone(const struct mm_join_options *o, struct mm_err *err)
{
    mm_err_init(err);
    mm_err_set(
        err, SQLITE_NOTFOUND,
        "the log of cluster %s, which was founded before, is gone: call marmot_rejoin('seed') on a node that was "
        "part of it, or set cluster to a name of its own",
        o->cluster);
}

enum mm_join_result mm_join_run(struct mm_repl *r, const struct mm_join_options *o, struct mm_err *err)
{
    struct mm_record rec;
    size_t n = 0;
    enum mm_join_result result = MM_JOIN_LATER;
    struct mm_msg_table *table = gather(r, &n, err);
    bool empty = err->rc == SQLITE_OK && n == 0;
    if (empty && !o->watch_all) {
        free(table);
        return MM_JOIN_NOTHING;
    }
    bool there = mm_record_read(r, o, &rec, err);
    if (empty && !there && err->rc == SQLITE_OK) { /* who has no table founds nothing */
        free(table);
        return MM_JOIN_NOTHING;
    }
    if (!there && o->begins_none && err->rc == SQLITE_OK) {
        mm_record_missing(o, err);
    }
    if (err->rc == SQLITE_OK && !there) {
        mm_record_make(r, o, NULL, err);
        if (err->rc == SQLITE_OK && !mm_record_read(r, o, &rec, err)) {
            mm_err_set(err, SQLITE_IOERR, "the record of cluster %s was made but cannot be read", o->cluster);
        }
    }
    if (err->rc == SQLITE_OK) {
        result = mm_record_check(r, o, &rec, err);
        free(rec.settings);
    }
    struct mm_epochs epochs = { 0 };
    if (result == MM_JOIN_DONE && look_at_epochs(r, o, 1, &epochs, err) != MM_JOIN_DONE) {
        result = err->rc == SQLITE_NOTFOUND ? MM_JOIN_BRING : MM_JOIN_LATER;
    }
    bool founded = result == MM_JOIN_DONE && mm_epoch_founded(r->bus, o->cluster, err);
    result = result == MM_JOIN_DONE && err->rc != SQLITE_OK ? MM_JOIN_LATER : result;
    for (int k = 0; k < r->nshard && result == MM_JOIN_DONE; k++) {
        struct mm_stream_info info;
        result = mm_record_stream(r, o, &r->shard[k], !founded, &info, err);
        if (result == MM_JOIN_DONE) {
            (void)snprintf(r->shard[k].pos.created, sizeof r->shard[k].pos.created, "%s", info.created);
        }
    }
    if (result == MM_JOIN_DONE && r->shard[0].end_seq == 0 && empty) {
        result = MM_JOIN_NOTHING;
    } else if (result == MM_JOIN_DONE && r->shard[0].end_seq == 0 && epochs.newest.n != 0) {
        begun(&epochs.newest, err); /* nobody founds beside it */
        result = MM_JOIN_LATER;
    } else if (result == MM_JOIN_DONE && r->shard[0].end_seq == 0 && founded) {
        result = MM_JOIN_DIVERGED;
    } else if (result == MM_JOIN_DONE && r->shard[0].end_seq == 0 && o->begins_none) {
        mm_record_missing(o, err);
        result = MM_JOIN_LATER;
    } else if (result == MM_JOIN_DONE && r->shard[0].end_seq == 0) {
        /* Whoever stores it first founds; a dead founder's place is taken so. */
        if (publish_founded(r, o, table, n, err) != SQLITE_OK) {
            result = MM_JOIN_LATER;
        }
    }
    if (result == MM_JOIN_DONE) {
        result = join_founded(r, o, table, n, err);
    }
    if (result == MM_JOIN_DONE && !founded) {
        struct mm_err none; /* whoever joins next tells it, else */
        mm_err_init(&none);
        mm_epoch_set_founded(r->bus, o->cluster, &none);
    } else if (result == MM_JOIN_DIVERGED) {
        if (err->rc != SQLITE_AUTH) {
            log_is_gone(o, err);
        }
        result = MM_JOIN_CONFLICT;
    }
    free(table);
    return result;
}

enum mm_join_result mm_join_check(struct mm_repl *r, const struct mm_join_options *o, struct mm_err *err)
{
    struct mm_record rec;
    if (!mm_record_read(r, o, &rec, err)) {
        if (err->rc == SQLITE_OK) {
            mm_err_set(err, SQLITE_NOTFOUND,
                       "the server knows no cluster %s, which this node took part in: bring back its store, or do as "
                       "the remedy says",
                       o->cluster);
            return MM_JOIN_DIVERGED;
        }
        return MM_JOIN_LATER;
    }
    bool same = strcmp(rec.id, r->cluster_id) == 0;
    if (!same) {
        mm_err_set(err, SQLITE_MISMATCH,
                   "this database belongs to cluster %s, the server's cluster %s has the id %s: connect to the right "
                   "server, or call marmot_cleanup('discard') and join anew",
                   r->cluster_id, o->cluster, rec.id);
    }
    enum mm_join_result result = same ? mm_record_check(r, o, &rec, err) : MM_JOIN_DIVERGED;
    free(rec.settings);
    struct mm_epochs epochs = { 0 };
    if (result == MM_JOIN_DONE) {
        result = look_at_epochs(r, o, r->epoch, &epochs, err);
    }
    if (result == MM_JOIN_DONE && r->met_epoch > r->epoch) {
        begun(&(struct mm_epoch){ .n = r->met_epoch, .node = r->met_node }, err);
        result = MM_JOIN_DIVERGED;
    }
    for (int k = 0; k < r->nshard && result == MM_JOIN_DONE; k++) {
        struct mm_shard *s = &r->shard[k];
        struct mm_stream_info info;
        result = mm_record_stream(r, o, s, false, &info, err);
        bool same_stream = strcmp(info.created, s->pos.created) == 0;
        if (result == MM_JOIN_DONE && !o->adopt && (!same_stream || info.last_seq < s->pos.seq)) {
            mm_err_set(err, SQLITE_MISMATCH,
                       "stream %s ends at %lld and was created %s; this node folded up to %lld of the one created %s: "
                       "the server lost or replaced its log; bring back its store, or do as the remedy says",
                       s->stream, (long long)info.last_seq, info.created, (long long)s->pos.seq, s->pos.created);
            result = same_stream ? MM_JOIN_LOST : MM_JOIN_DIVERGED;
        }
    }
    if (result == MM_JOIN_DONE && o->adopt) {
        mm_err_set(err, SQLITE_NOTFOUND, "what the cluster holds was asked for");
        result = MM_JOIN_EPOCH;
    }
    return result;
}
