/* A table that is watched later than its database joined: read from the log. */
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/join.h"
#include "store/stray.h"

/* Parts of the second reading lie beside the others under the negative shard. */
static int part_shard(const struct mm_shard *s)
{
    return -s->n;
}

struct look {
    struct mm_repl *r;
    struct mm_shard *s;
    int found;
};

bool mm_join_takes_part(const struct mm_shard *s, const char *table)
{
    for (size_t k = 0; k < s->replay_tables; k++) {
        if (sqlite3_stricmp(s->replay_table[k], table) == 0) {
            return true;
        }
    }
    return false;
}

bool mm_join_reads_again(struct mm_repl *r, const struct mm_target *t, struct mm_err *err)
{
    return t->state == MM_JOINING && t->joined_seq >= 0 && t->def != NULL && !r->positions_only &&
           mm_watchlist_seq(r->db, t->name, err) > 0;
}

static bool is_joining(const struct mm_target *t, const struct look *l, struct mm_err *err)
{
    return t->shard == l->s->n && mm_join_reads_again(l->r, t, err);
}

/* One more that takes part. */
static int take_part(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    if (!is_joining(t, l, err) || err->rc != SQLITE_OK) {
        return err->rc;
    }
    char **list = realloc(l->s->replay_table, (l->s->replay_tables + 1) * sizeof *list);
    char *name = strdup(t->name);
    if (list != NULL) {
        l->s->replay_table = list;
    }
    if (list == NULL || name == NULL) {
        free(name);
        return mm_err_nomem(err);
    }
    list[l->s->replay_tables++] = name;
    return err->rc;
}

static int look_joining(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    l->found += is_joining(t, l, err);
    return err->rc;
}

static int make_stale(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    if (t->shard == l->s->n && t->state == MM_WATCHED) {
        t->state = MM_STALE;
        t->joined_seq = -1;
        mm_watch_set_joined_seq(l->r->db, t->name, -1, err);
        mm_watch_set(l->r->db, t->name, MM_STALE,
                     "a message that may have named it was passed over by marmot_skip: it joins again with a snapshot "
                     "that a node which could read it has taken since",
                     err);
    }
    return err->rc;
}

int mm_join_all_stale(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    struct look l = { r, s, 0 };
    r->tables_changed = r->copy_due = true;
    return mm_targets_each(r->targets, make_stale, &l, err);
}

/* A reading that is under way has gone past what the table lacks: it waits for the next one. */
static void leave(struct mm_shard *s, const char *table)
{
    for (size_t k = 0; k < s->replay_tables; k++) {
        if (sqlite3_stricmp(s->replay_table[k], table) == 0) {
            free(s->replay_table[k]);
            s->replay_table[k] = s->replay_table[--s->replay_tables];
            return;
        }
    }
}

static int look_again(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    bool had_joined = t->state == MM_WATCHED || t->joined_seq > 0 || t->joined_seq == MM_SEQ_BEFORE;
    bool begun = (t->state == MM_STALE && t->joined_seq != 0) || (t->state == MM_JOINING && t->joined_seq > 0);
    if ((begun || t->state == MM_WATCHED) && t->def == NULL) { /* it would come back with other rows */
        mm_watch_set_joined_seq(l->r->db, t->name, had_joined ? MM_SEQ_BEFORE : MM_SEQ_COPY, err);
        if (t->state != MM_STALE) {
            leave(&l->r->shard[t->shard - 1], t->name);
            mm_watch_set(l->r->db, t->name, MM_STALE, MM_WATCH_GONE ": create it as on the other nodes", err);
            l->found++;
        }
    } else if (t->state == MM_STALE && t->joined_seq > 0 && t->def->supported) {
        leave(&l->r->shard[t->shard - 1], t->name);
        mm_watch_set(l->r->db, t->name, MM_JOINING, NULL, err);
        mm_log(MM_LOG_INFO, "table %s was stale and is read from the log again", t->name);
        l->found++;
    } else if (t->state == MM_STALE && t->def != NULL && t->def->supported && l->r->joined &&
               mm_watchlist_seq(l->r->db, t->name, err) > 0) {
        if (t->joined_seq == MM_SEQ_NEVER) {
            mm_watch_compare(l->r->db, t->name, err);
            l->found++;
        }
        l->r->copy_due = true;
    } else if (t->state == MM_JOINING && t->def != NULL && !t->def->supported) {
        mm_watch_set(l->r->db, t->name, MM_UNSUPPORTED, t->def->why, err);
        mm_log(MM_LOG_WARN, "table %s is not supported: %s", t->name, t->def->why);
        l->found++;
    }
    return err->rc;
}

int mm_join_again(struct mm_repl *r, struct mm_err *err)
{
    struct look l = { r, NULL, 0 };
    if (!r->schema_moved || err->rc != SQLITE_OK) {
        return err->rc;
    }
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    mm_targets_each(r->targets, look_again, &l, err);
    mm_stray_end(r->db, err);
    mm_targets_forget(r->targets);
    r->schema_moved = err->rc != SQLITE_OK;
    r->tables_changed = r->tables_changed || l.found > 0;
    return err->rc;
}

/* As the file has it now: its application may have left the table. */
static bool stands_apart(struct look *l, const struct mm_target *t, struct mm_err *err)
{
    return mm_watch_get(l->r->db, t->name, NULL, err) == MM_STALE &&
           mm_watch_apart(MM_STALE, mm_watch_joined_seq(l->r->db, t->name, err)) && t->def != NULL &&
           mm_watchlist_seq(l->r->db, t->name, err) > 0 && err->rc == SQLITE_OK;
}

static int look_apart(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    l->found += stands_apart(l, t, err);
    return err->rc;
}

static int compare_apart(void *arg, struct mm_target *t, struct mm_err *err)
{
    return stands_apart(arg, t, err) ? mm_watch_compare(((struct look *)arg)->r->db, t->name, err) : err->rc;
}

int mm_join_compare(struct mm_repl *r, struct mm_err *err)
{
    struct look l = { r, NULL, 0 };
    mm_targets_each(r->targets, look_apart, &l, err);
    if (l.found == 0 || err->rc != SQLITE_OK) {
        return err->rc;
    }
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    mm_targets_each(r->targets, compare_apart, &l, err);
    mm_stray_end(r->db, err);
    mm_targets_forget(r->targets);
    r->tables_changed = true;
    return err->rc;
}

int mm_join_let_pass(struct mm_repl *r, const char *table, const char *why, struct mm_err *err)
{
    struct mm_msg_table base;
    struct mm_target *t = mm_targets_get(r->targets, table, err);
    if (t != NULL && t->def != NULL && mm_watch_joined_seq(r->db, table, err) == MM_SEQ_COPY &&
        mm_join_base(r, t, &base, err) == SQLITE_OK && base.rows == 0) {
        mm_watch_set_joined_seq(r->db, table, MM_SEQ_EMPTY, err);
    }
    return mm_watch_set(r->db, table, MM_STALE, why, err);
}

int mm_join_left_behind(struct mm_repl *r, const struct mm_txn *txn, struct mm_err *err)
{
    for (size_t k = 0; k < txn->ntab && err->rc == SQLITE_OK; k++) {
        struct mm_target *t = mm_targets_get(r->targets, txn->tab[k].name, err);
        if (t != NULL && t->state == MM_STALE && t->joined_seq > 0) {
            t->joined_seq = -1;
            mm_watch_set_joined_seq(r->db, t->name, -1, err);
        }
    }
    return err->rc;
}

bool mm_join_replay_wanted(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    struct look l = { r, s, 0 };
    mm_targets_each(r->targets, look_joining, &l, err);
    return err->rc == SQLITE_OK && l.found > 0;
}

/* The founding stands in shard 1 alone, whatever shard its tables are in. */
static int replay_founding(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    struct mm_stored first;
    struct mm_arena a;
    struct mm_msg m;
    struct mm_err bad;
    mm_arena_init(&a, (size_t)64 << 20);
    mm_err_init(&bad);
    if (mm_bus_stream_get(r->bus, r->shard[0].stream, 1, &first, MM_REQUEST_MS, err) &&
        mm_wire_decode(&m, first.data, first.len, false, &a, &bad) == SQLITE_OK && m.kind == MM_MSG_FOUNDED) {
        mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
        mm_join_replayed(r, s, &m, 0, err);
        if (mm_stray_end(r->db, err) != SQLITE_OK) {
            mm_targets_forget(r->targets);
        }
    }
    free(first.data);
    mm_arena_free(&a);
    return err->rc;
}

/* This node has folded nothing of the shard yet: what comes is folded with these tables, too. */
static void nothing_to_read(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
    mm_join_replay_done(r, s, err);
    if (mm_stray_end(r->db, err) != SQLITE_OK) {
        mm_targets_forget(r->targets);
    }
}

int mm_join_replay_begin(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    struct look l = { r, s, 0 };
    mm_join_replay_forget(s);
    mm_targets_each(r->targets, take_part, &l, err);
    if (s->n > 1) {
        replay_founding(r, s, err);
    }
    mm_part_drop_shard(r->db, part_shard(s), err);
    s->replay = err->rc == SQLITE_OK ? mm_accept_open(r->db, s->n, true, err) : NULL;
    s->replay_seq = 0;
    if (s->replay != NULL && s->pos.seq == 0) {
        nothing_to_read(r, s, err);
    }
    return err->rc;
}

/* The log alone does not do for it. */
static int wait_for_copy(struct mm_repl *r, struct mm_target *t, int64_t joined_seq, const char *why,
                         struct mm_err *err)
{
    mm_log(MM_LOG_INFO, "table %s waits for a copy of the cluster's content: %s", t->name, why);
    t->joined_seq = joined_seq;
    r->copy_due = r->tables_changed = true;
    return mm_watch_set_joined_seq(r->db, t->name, joined_seq, err);
}

static int give_up(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    if (t->shard == l->s->n && t->state == MM_JOINING && mm_join_takes_part(l->s, t->name)) {
        wait_for_copy(l->r, t, mm_watch_copy_seq(t->joined_seq), "the log that it reads has a hole", err);
    }
    return err->rc;
}

int mm_join_replay_failed(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    struct look l = { r, s, 0 };
    mm_targets_each(r->targets, give_up, &l, err);
    mm_accept_close(s->replay);
    s->replay = NULL;
    s->following = s->checked = false;
    r->tables_changed = true;
    return err->rc;
}

static int leave_epoch(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    if (t->shard == l->s->n && t->state == MM_JOINING && t->joined_seq > 0 && t->joined_seq <= l->s->replay_seq &&
        mm_join_takes_part(l->s, t->name)) {
        wait_for_copy(l->r, t, MM_SEQ_BEFORE, "the cluster has begun a new epoch since it was like this", err);
    }
    return err->rc;
}

int mm_join_replay_epoch(struct mm_repl *r, struct mm_shard *s, int64_t seq, struct mm_err *err)
{
    struct look l = { r, s, 0 };
    s->replay_seq = seq;
    return mm_targets_each(r->targets, leave_epoch, &l, err);
}

int mm_join_replayed(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, int64_t seq, struct mm_err *err)
{
    for (size_t k = 0; k < m->control.ntable && err->rc == SQLITE_OK; k++) {
        const struct mm_msg_table *theirs = &m->control.table[k];
        struct mm_target *t = mm_targets_get(r->targets, theirs->name, err);
        if (t == NULL || t->state != MM_JOINING || t->shard != s->n || t->joined_seq != 0 || t->def == NULL ||
            !mm_join_takes_part(s, t->name)) {
            continue;
        }
        struct mm_msg_table ours;
        mm_join_base(r, t, &ours, err);
        const char *why = mm_join_difference(&ours, theirs);
        if (err->rc == SQLITE_OK && why != NULL) {
            wait_for_copy(r, t, MM_SEQ_COPY, why, err);
        } else if (err->rc == SQLITE_OK) {
            t->joined_seq = seq + 1;
            mm_watch_set_joined_seq(r->db, t->name, t->joined_seq, err);
        }
        r->tables_changed = true;
    }
    return err->rc;
}

void mm_join_replay_forget(struct mm_shard *s)
{
    for (size_t k = 0; k < s->policies.n; k++) {
        free(s->policies.entry[k].table);
    }
    free(s->policies.entry);
    s->policies = (struct mm_policies){ NULL, 0 };
    for (size_t k = 0; k < s->replay_tables; k++) {
        free(s->replay_table[k]);
    }
    free(s->replay_table);
    s->replay_table = NULL;
    s->replay_tables = 0;
}

/* A later entry for the same column wins: they are read in order. */
static int replay_policy(struct mm_shard *s, const struct mm_msg *m, struct mm_err *err)
{
    size_t n = strlen(m->control.policy_table) + 1;
    size_t c = strlen(m->control.policy_column) + 1;
    struct mm_policy_entry *p = realloc(s->policies.entry, (s->policies.n + 1) * sizeof *p);
    char *text = malloc(n + c);
    if (p != NULL) {
        s->policies.entry = p;
    }
    if (p == NULL || text == NULL) {
        free(text);
        return mm_err_nomem(err);
    }
    memcpy(text, m->control.policy_table, n);
    memcpy(text + n, m->control.policy_column, c);
    p[s->policies.n++] = (struct mm_policy_entry){ text, text + n, m->control.policy };
    return SQLITE_OK;
}

int mm_join_replay_control(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, struct mm_err *err)
{
    if (m->kind == MM_MSG_POLICY) {
        return replay_policy(s, m, err);
    }
    return mm_part_end(r->db, part_shard(s), m->control.ended_node, m->control.ended_incarnation, m->control.ended_txid,
                       err);
}

bool mm_join_replay_part(struct mm_repl *r, struct mm_shard *s, const struct mm_msg *m, struct mm_arena *arena,
                         struct mm_buf *body, struct mm_txn *txn, struct mm_err *err)
{
    struct mm_part_head h;
    struct mm_err bad;
    uint8_t sha[32];
    int at = part_shard(s);
    mm_part_get(r->db, at, m->node, m->incarnation, &h, err);
    if (err->rc != SQLITE_OK || !mm_fold_part(m, &h)) {
        return false;
    }
    if (m->part.number == 0) {
        mm_part_drop(r->db, at, m->node, m->incarnation, err);
        memset(&h, 0, sizeof h);
        memcpy(h.txid, m->txid, sizeof h.txid);
        memcpy(h.sha256, m->part.sha256, sizeof h.sha256);
        h.count = m->part.count;
    }
    if (h.bytes + (int64_t)m->part.len > (int64_t)MM_WIRE_TXN_MAX) {
        mm_part_drop(r->db, at, m->node, m->incarnation, err);
        return false; /* as the first reading did */
    }
    mm_part_add(r->db, at, m->node, m->incarnation, &h, 0, m->part.data, m->part.len, err);
    if (err->rc != SQLITE_OK || m->part.number != m->part.count - 1) {
        return false;
    }
    mm_part_read(r->db, at, m->node, m->incarnation, body, err);
    mm_part_drop(r->db, at, m->node, m->incarnation, err);
    mm_wire_sha256(body->data, body->len, sha);
    mm_err_init(&bad);
    txn->arena = arena;
    /* What the first reading ignored as bad is ignored now as well. */
    return err->rc == SQLITE_OK && memcmp(sha, h.sha256, sizeof sha) == 0 &&
           mm_wire_decode_body(txn, body, arena, &bad) == SQLITE_OK;
}

static int mark(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    if (t->shard == l->s->n && t->state == MM_JOINING && t->joined_seq > 0 && t->joined_seq <= l->s->replay_seq &&
        mm_join_takes_part(l->s, t->name)) {
        t->joined_seq = l->s->replay_seq + 1;
        mm_watch_set_joined_seq(l->r->db, t->name, t->joined_seq, err);
    }
    return err->rc;
}

int mm_join_replay_mark(struct mm_repl *r, struct mm_err *err)
{
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK; k++) {
        struct look l = { r, &r->shard[k], 0 };
        if (r->shard[k].replay != NULL) {
            mm_targets_each(r->targets, mark, &l, err);
        }
    }
    return err->rc;
}

static int finish(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    if (t->shard != l->s->n || t->state != MM_JOINING || !mm_join_takes_part(l->s, t->name)) {
        return err->rc;
    }
    if (t->joined_seq <= 0) {
        return wait_for_copy(l->r, t, mm_watch_copy_seq(t->joined_seq), "the log does not say what it began with", err);
    }
    t->state = MM_WATCHED;
    l->r->tables_changed = true;
    return mm_watch_set(l->r->db, t->name, MM_WATCHED, NULL, err);
}

int mm_join_replay_done(struct mm_repl *r, struct mm_shard *s, struct mm_err *err)
{
    struct look l = { r, s, 0 };
    mm_join_replay_mark(r, err);
    mm_targets_each(r->targets, finish, &l, err);
    mm_join_replay_forget(s);
    mm_part_drop_shard(r->db, part_shard(s), err);
    mm_accept_close(s->replay);
    s->replay = NULL;
    s->following = s->checked = false;
    return err->rc;
}
