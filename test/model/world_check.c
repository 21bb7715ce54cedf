/* What must hold: after each step, also one that failed, visible = naive fold at
** the positions that memory has + pending, and what counts as echoed was accepted
** there; at rest all tables watched, each transaction accepted once, no before-image left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "changes.h"
#include "store/change.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"

static struct naive first[WORLD_KINDS]; /* all tables, as the nodes of a cluster begin with them */

/* Where a column stands; -1: the file does not have it yet. */
static int place_of(sqlite3_stmt *st, const struct naive_def *d, int column)
{
    int at = sqlite3_column_count(st) - 1;
    if (column <= at && strcmp(sqlite3_column_name(st, column), d->col[column]) == 0) {
        return column;
    }
    while (at >= 0 && strcmp(sqlite3_column_name(st, at), d->col[column]) != 0) {
        at--;
    }
    return at;
}

static void read_table(sqlite3_stmt *st, struct naive *out, int table, struct mm_err *err)
{
    const struct naive_def *d = out->table[table].def;
    while (mm_db_step(st, err)) {
        struct mm_value row[NAIVE_COLUMNS];
        for (int k = 0; k < d->ncol; k++) {
            int at = place_of(st, d, k);
            row[k] = d->given[k];
            world_need(at < 0 || mm_value_column(&row[k], st, at), "memory");
        }
        naive_put(out, table, row);
    }
    sqlite3_reset(st);
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *table, struct mm_err *err)
{
    return mm_db_prepare(db, err, SQLITE_PREPARE_PERSISTENT, "SELECT * FROM main.\"%w\"", table);
}

static void read_tables(struct world *w, struct world_node *n, int shard, struct naive *out)
{
    struct mm_err err;
    mm_err_init(&err);
    naive_init(out, w->def[shard], w->ndef[shard]);
    for (int t = 0; t < out->ntable && err.rc == SQLITE_OK; t++) {
        sqlite3_stmt **st = &n->read[shard][t];
        out->table[t].apart = w->shapes && !world_has_table(n->r.db, out->table[t].def->name);
        if (out->table[t].apart) {
            continue;
        }
        if (*st == NULL) {
            *st = prepare(n->r.db, out->table[t].def->name, &err);
        }
        read_table(*st, out, t, &err);
    }
    if (err.rc != SQLITE_OK) {
        world_fail(w, "reading the tables: %s", err.msg);
    }
}

void world_read_first(sqlite3 *db, int kind)
{
    struct mm_err err;
    mm_err_init(&err);
    naive_init(&first[kind], world_tables, WORLD_TABLES);
    for (int t = 0; t < WORLD_TABLES; t++) {
        sqlite3_stmt *st = prepare(db, world_tables[t].name, &err);
        read_table(st, &first[kind], t, &err);
        mm_db_finalize(st);
    }
    world_need(err.rc == SQLITE_OK, err.msg);
}

const struct naive_table *world_first(const struct world *w, int table)
{
    return &first[w->kind].table[table];
}

/* A base of the very beginning. */
void world_begin_base(struct world *w, int shard, struct naive *base)
{
    naive_init(base, w->def[shard], w->ndef[shard]);
    for (int t = 0; t < WORLD_TABLES; t++) {
        for (int k = 0; k < base->ntable; k++) {
            const struct naive_table *from = &first[w->kind].table[t];
            for (size_t j = 0; base->table[k].def->name == from->def->name && j < from->n; j++) {
                naive_put(base, k, from->row[j].v);
            }
        }
    }
}

void world_advance(struct world *w, int shard, struct naive *base, int64_t to)
{
    int64_t seeded = w->seed[shard].at;
    if (base->seq > to) {
        naive_free(base);
        world_begin_base(w, shard, base);
    }
    while (base->seq < to) {
        const struct net_message *m = net_get(w->net, shard + 1, base->seq + 1);
        bool over = base->over && seeded > 0 && to >= seeded; /* a beginning that was broken off lies before */
        if (base->seq + 1 == seeded || over) {                /* from here on it is what the seeder held */
            naive_free(base);
            naive_clone(base, &w->seed[shard].base);
        } else if (base->over) {
            world_fail(w, "%d:%lld is folded, behind the end of its epoch", shard + 1, (long long)to);
            return;
        } else {
            naive_message(base, base->seq + 1, m->data, m->len, m->zstd);
        }
    }
}

/* A database without anything pending holds what the log says at the place. */
void world_check_content(struct world *w, sqlite3 *db, int shard, int64_t seq, const char *what)
{
    struct naive expected;
    struct naive real;
    struct mm_err err;
    char why[256];
    mm_err_init(&err);
    fault_pause(true); /* also while something of the step fails */
    world_begin_base(w, shard, &expected);
    world_advance(w, shard, &expected, seq);
    naive_init(&real, w->def[shard], w->ndef[shard]);
    for (int t = 0; t < real.ntable && err.rc == SQLITE_OK; t++) {
        /* One that the copy lacks, or columns of it, waits for another copy. */
        real.table[t].apart = w->shapes && mm_watch_get(db, real.table[t].def->name, NULL, &err) != MM_WATCHED;
        if (real.table[t].apart) {
            continue;
        }
        sqlite3_stmt *st = prepare(db, real.table[t].def->name, &err);
        read_table(st, &real, t, &err);
        mm_db_finalize(st);
    }
    if (err.rc != SQLITE_OK) {
        world_fail(w, "reading %s: %s", what, err.msg);
    } else if (!naive_same(&expected, &real, why, sizeof why)) {
        world_fail(w, "%s at %d:%lld: %s", what, shard + 1, (long long)seq, why);
    }
    naive_free(&expected);
    naive_free(&real);
    fault_pause(false);
}

static bool touches(const struct naive *base, const struct mm_txn *txn)
{
    for (size_t k = 0; k < txn->ntab; k++) {
        for (int t = 0; t < base->ntable && txn->tab[k].nrow > 0; t++) {
            if (strcmp(base->table[t].def->name, txn->tab[k].name) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* It watches again what it had left: what was pending then shows at its echo alone. */
static void came_back(struct naive *visible, const struct mm_buf *data)
{
    bool joined;
    for (int t = 0; t < visible->ntable && mm_watch_left(data->data, data->len, &joined); t++) {
        bool it = strcmp(visible->table[t].def->name, (const char *)data->data + 1) == 0;
        visible->table[t].apart = visible->table[t].apart || it;
    }
}

/* Puts on top what the outbox holds and the log had not yet accepted: so many. */
static int put_pending(struct world *w, struct world_node *n, const struct naive *base, struct naive *visible)
{
    struct mm_err err;
    int count = 0;
    int64_t echoed = mm_repl_echoed(&n->r);
    struct mm_outbox_row row = { 0 };
    struct mm_buf names;
    struct mm_buf data;
    mm_err_init(&err);
    mm_buf_init(&names, 1 << 30);
    mm_buf_init(&data, 1 << 30);
    while (mm_outbox_next(n->r.outbox, row.id, &row, &names, &data, &err)) {
        struct mm_arena a;
        mm_arena_init(&a, 1 << 30);
        struct mm_txn txn = { .arena = &a };
        if (row.kind == MM_OUTBOX_TXN && naive_accepted(base, row.txid) == 0) {
            mm_change_read(&txn, data.data, data.len, names.data, names.len, world_coll, NULL, &err);
            naive_apply(visible, &txn, true);
            count++;
            if (row.id <= echoed && touches(base, &txn)) {
                world_fail(w, "node %d (id %lld) takes outbox row %lld for echoed, and it is not", (int)(n - w->node),
                           (long long)n->id, (long long)row.id);
            }
        }
        if (row.kind == MM_OUTBOX_CONTROL && naive_accepted(base, row.txid) == 0) {
            came_back(visible, &data);
        }
        mm_arena_free(&a);
        mm_buf_clear(&names);
        mm_buf_clear(&data);
    }
    mm_buf_free(&names);
    mm_buf_free(&data);
    if (err.rc != SQLITE_OK) {
        world_fail(w, "reading the outbox: %s", err.msg);
    }
    return count;
}

/* Tables that the node has left, that are what a second reading of the log has made of them so
** far, or that wait for a copy. */
static void set_apart(struct world *w, struct world_node *n, struct naive *real)
{
    for (int t = 0; t < real->ntable; t++) {
        real->table[t].apart = real->table[t].apart || !world_watches(w, n, real->table[t].def->name);
    }
}

/* visible == what the log says at the positions + pending. */
void world_check_node(struct world *w, struct world_node *n, const char *when)
{
    uint64_t writes = memory_writes(n->path);
    bool moved = writes != n->seen_writes;
    for (int s = 0; s < w->shards; s++) {
        moved = moved || n->r.shard[s].pos.seq != n->seen_seq[s];
        n->seen_seq[s] = n->r.shard[s].pos.seq;
    }
    if (world_astray(w, n) || n->past || !n->r.joined ||
        (!moved && !n->r.reload_needed)) { /* what was equal is so still */
        return;
    }
    n->seen_writes = writes;
    for (int s = 0; s < w->shards && !w->failed; s++) {
        struct naive expected;
        struct naive real;
        char why[256];
        world_advance(w, s, &n->base[s], n->r.shard[s].pos.seq);
        naive_copy(&expected, &n->base[s]);
        int pending = put_pending(w, n, &n->base[s], &expected);
        read_tables(w, n, s, &real);
        /* What a policy makes of a pending change shows at its echo, or at a
        ** redo before that. */
        bool exact = pending == 0 || !naive_policies(&n->base[s]);
        set_apart(w, n, &real);
        if (exact && !naive_same(&expected, &real, why, sizeof why)) {
            world_fail(w, "%s, node %d (id %lld) at %d:%lld with %zu pending: %s", when, (int)(n - w->node),
                       (long long)n->id, s + 1, (long long)n->r.shard[s].pos.seq,
                       mm_pending_count(n->r.shard[s].pending), why);
        }
        naive_free(&expected);
        naive_free(&real);
    }
}

void world_check_states(struct world *w, struct world_node *n)
{
    struct mm_err err;
    int count = 0;
    mm_err_init(&err);
    struct mm_watch_entry *list = mm_watch_list(n->r.db, &count, &err);
    if (count != WORLD_TABLES + w->born) {
        world_fail(w, "%d tables in the watch list of node %d: %s", count, (int)(n - w->node), err.msg);
    }
    for (int k = 0; k < count && !w->failed; k++) {
        if (list[k].state != MM_WATCHED) {
            world_fail(w, "%s is not watched any more on node %d: %s (%s from %lld on)", list[k].name,
                       (int)(n - w->node), list[k].why != NULL ? list[k].why : "", mm_watch_state_name(list[k].state),
                       (long long)mm_watch_joined_seq(n->r.db, list[k].name, &err));
        }
    }
    mm_watch_list_free(list, count);
    if (mm_db_int(n->r.db, &err, -1, "SELECT count(*) FROM main.__marmot__undo") != 0 && !w->failed) {
        world_fail(w, "before-images of what is echoed are left on node %d %s", (int)(n - w->node), err.msg);
    }
}

/* What the conflict log holds, as one text. sqlite3_free. */
static char *conflicts(struct world *w, struct world_node *n)
{
    struct mm_err err;
    mm_err_init(&err);
    char *text =
        mm_db_text(n->r.db, &err,
                   "SELECT group_concat(line, char(10)) FROM (SELECT shard || ':' || seq || ' ' || kind || ' ' ||"
                   " name || ' ' || key || ' lost ' || lost || ' won ' || won AS line"
                   " FROM main.__marmot__conflict ORDER BY line)");
    if (err.rc != SQLITE_OK) {
        world_fail(w, "reading conflicts: %s", err.msg);
    }
    return text;
}

/* First line in which two texts differ. */
static const char *difference(const char *a, const char *b)
{
    const char *line = a;
    for (size_t k = 0; a[k] != '\0' && a[k] == b[k]; k++) {
        line = a[k] == '\n' ? a + k + 1 : line;
    }
    return line;
}

/* Conflicts are decided from the log alone: equal on every node. */
void world_check_conflicts(struct world *w)
{
    char *mine = conflicts(w, &w->node[0]);
    for (int k = 1; k < w->nnode && !w->failed; k++) {
        char *other = conflicts(w, &w->node[k]);
        const char *a = mine != NULL ? mine : "";
        const char *b = other != NULL ? other : "";
        w->conflicts += strlen(a) > 0;
        if (strcmp(a, b) != 0) {
            world_fail(w, "conflicts differ on node 0 and %d: %.180s | %.180s", k, difference(a, b), difference(b, a));
        }
        sqlite3_free(other);
    }
    sqlite3_free(mine);
}

/* What marmot_changes puts together from parts, read from the beginning, is what
** was accepted of them: each once, and no other. */
void world_check_parts(struct world *w, int shard)
{
    const struct naive *base = &w->node[0].base[shard];
    struct mm_err err;
    size_t expected = 0;
    size_t found = 0;
    mm_err_init(&err);
    struct mm_changes_parts *p = mm_changes_parts_open(true, &err);
    uint8_t(*seen)[MM_TXID_SIZE] = calloc((size_t)net_end(w->net, shard + 1) + 1, MM_TXID_SIZE);
    world_need(seen != NULL && p != NULL, "memory");
    for (int64_t seq = 1; seq <= net_end(w->net, shard + 1); seq++) {
        const struct net_message *from = net_get(w->net, shard + 1, seq);
        struct mm_changes_whole whole;
        struct mm_arena a;
        struct mm_msg m;
        struct mm_txn txn = { .arena = &a };
        mm_arena_init(&a, 1 << 30);
        mm_wire_decode(&m, from->data, from->len, from->zstd, &a, &err);
        mm_changes_parts_take(p, &m, &whole, &err);
        if (whole.data != NULL && mm_wire_decode_txn(&txn, whole.data->data, whole.data->len, &a, &err) == SQLITE_OK) {
            mm_changes_parts_good(p, &m, &err);
            found++;
        }
        bool fresh = m.kind == MM_MSG_PART;
        for (size_t k = 0; k < expected && fresh; k++) {
            fresh = memcmp(seen[k], m.txid, MM_TXID_SIZE) != 0;
        }
        if (fresh && naive_accepted(base, m.txid) > 0) {
            memcpy(seen[expected++], m.txid, MM_TXID_SIZE);
        }
        mm_arena_free(&a);
    }
    if (found != expected || err.rc != SQLITE_OK) {
        world_fail(w, "%zu transactions of shard %d came in parts, marmot_changes has %zu: %s", expected, shard + 1,
                   found, err.msg);
    }
    mm_changes_parts_close(p);
    free(seen);
}

void world_check_commits(struct world *w)
{
    for (size_t k = 0; k < w->ncommit && !w->failed; k++) {
        const struct world_commit *c = &w->commit[k];
        for (int s = 0; s < w->shards; s++) {
            size_t times = naive_accepted(&w->node[0].base[s], c->txid);
            if (times != (size_t)c->touches[s] && !(c->optional && times == 0)) {
                world_fail(w, "transaction %zu of node %d was accepted %zu times in shard %d, not %d times", k, c->node,
                           times, s + 1, (int)c->touches[s]);
            }
        }
    }
}
