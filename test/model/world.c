#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "repl/join.h"
#include "store/meta.h"
#include "test/model/faults.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"

enum { SETTLE_TURNS = 400 };

const char *world_act_name(enum world_act a)
{
    static const char *const names[WORLD_ACTS] = {
        "write", "pump",  "take", "stray",  "deliver", "apply", "break",  "ack",   "flush", "cut",   "restart",
        "hold",  "time",  "turn", "backup", "setback", "copy",  "policy", "old",   "end",   "again", "snapshot",
        "purge", "bring", "lose", "lack",   "new",     "seed",  "past",   "watch", "alter", "drop",  "make"
    };
    return names[a];
}

uint64_t world_random(uint64_t *state)
{
    *state += 0x9E3779B97F4A7C15ULL; /* splitmix64 */
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

void world_need(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "world: %s\n", what);
        exit(2);
    }
}

void world_fail(struct world *w, const char *fmt, ...)
{
    if (!w->failed) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(w->why, sizeof w->why, fmt, ap);
        va_end(ap);
        w->failed = true;
    }
}

/* --- the beginning --- */

int64_t world_incarnation(struct world *w)
{
    return 1000 + ++w->incarnations;
}

void world_node_begin(struct world *w, struct world_node *n, int64_t id)
{
    n->id = id;
    fault_pause(true);
    for (int s = 0; s < w->shards; s++) {
        world_begin_base(w, s, &n->base[s]);
    }
    world_node_open(w, n);
    fault_pause(false);
}

/* Opens the file at n->path as a node of its own incarnation. */
static void start_node(struct world *w, struct world_node *n, int64_t id)
{
    struct mm_err err;
    mm_err_init(&err);
    sqlite3 *db = world_connect(n->path);
    mm_head_set_incarnation(db, world_incarnation(w), &err);
    for (int t = 0; t < WORLD_TABLES; t++) {
        mm_watchlist_add(db, world_tables[t].name, mm_watch_shard(world_tables[t].name, w->shards), 1, &err);
    }
    world_need(err.rc == SQLITE_OK, err.msg);
    sqlite3_close(db);
    world_node_begin(w, n, id);
}

void world_seed(uint64_t seed)
{
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(seed * 0x9E3779B9u) | 1, NULL);
}

void world_warm(struct world *w)
{
    for (int k = 0; k < w->nnode; k++) {
        world_node_warm(w, &w->node[k]);
    }
}

void world_open(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    world_seed(seed);
    net_now_us = 1000000;
    w->shards = world_random(&seed) % 3 == 0 ? 2 : 1;
    w->part_size = world_random(&seed) % 2 == 0 ? 4600 : 512 << 10;
    w->compress = world_random(&seed) % 4 == 0;
    w->nnode = 2 + (int)(world_random(&seed) % 2);
    w->kind = world_random(&seed) % 4 == 0;
    w->epoch = 1;
    w->net = net_open(w->shards);
    net_forget_keys();
    const struct world_founding *f = world_founding(w->kind);
    net_store(w->net, 1, f->message, f->len, false);
    for (int t = 0; t < WORLD_TABLES; t++) {
        if (!world_usable[t]) {
            continue;
        }
        int s = mm_watch_shard(world_tables[t].name, w->shards) - 1;
        w->def[s][w->ndef[s]++] = world_tables[t];
    }
    for (int k = 0; k < w->nnode; k++) {
        snprintf(w->node[k].path, sizeof w->node[k].path, "/%d.db", k);
        memory_copy(f->path, w->node[k].path);
        start_node(w, &w->node[k], k + 1);
    }
    world_record(w);
}

static void backup_path(const struct world_node *n, char out[160])
{
    snprintf(out, 160, "%.120s.bak", n->path);
}

void world_close(struct world *w)
{
    for (int k = 0; k < w->nnode; k++) {
        char path[160];
        world_node_close(&w->node[k]);
        backup_path(&w->node[k], path);
        memory_remove(path);
        memory_remove(w->node[k].path);
        for (int s = 0; s < w->shards; s++) {
            naive_free(&w->node[k].base[s]);
        }
    }
    for (int s = 0; s < w->shards; s++) {
        naive_free(&w->seed[s].base);
    }
    world_snapshots_close(w);
    net_close(w->net);
    net_forget_keys();
    free(w->commit);
}

/* --- steps --- */

static void take(struct world *w, struct world_node *n, uint64_t seed)
{
    unsigned count = 1 + (unsigned)(world_random(&seed) % 6);
    for (unsigned k = 0; k < count; k++) {
        unsigned chance = (unsigned)(world_random(&seed) % 20);
        enum net_fate fate = chance < 13   ? NET_STORED
                             : chance < 15 ? NET_ACK_LOST
                             : chance < 17 ? NET_LOST
                             : chance < 19 ? NET_REFUSED
                                           : NET_FULL;
        net_take(w->net, n != NULL ? n->r.bus : NULL, (unsigned)world_random(&seed), fate);
    }
}

static void turn(struct world *w, struct world_node *n)
{
    world_node_pump(w, n);
    while (net_take(w->net, n->r.bus, 0, NET_STORED)) {
    }
    world_node_acks(n);
    world_node_deliver(w, n, 1 << 20);
    world_node_apply(w, n);
    world_node_acks(n);
    if ((w->kept[0] != NULL || !n->r.joined) && !w->failed) {
        world_bring(w, n, false, 1);
    }
    world_node_flush(w, n);
}

/* A copy of the file of one moment, as a careful administrator makes it. */
static void copy_database(struct world_node *n, const char *to)
{
    memory_remove(to);
    sqlite3 *db = NULL;
    world_need(sqlite3_open(to, &db) == SQLITE_OK, to);
    sqlite3_backup *b = sqlite3_backup_init(db, "main", n->r.db, "main");
    world_need(b != NULL && sqlite3_backup_step(b, -1) == SQLITE_DONE, "backup");
    world_need(sqlite3_backup_finish(b) == SQLITE_OK && sqlite3_close(db) == SQLITE_OK, "backup");
}

/* A file that is set back and copied, so that several go on from there: all of them tell by the log
** alone what was sent before. So by then it has arrived, or is lost (README, limits). */
static void set_back(struct world *w, struct world_node *n, uint64_t seed)
{
    char path[160];
    if (!n->has_backup) {
        return;
    }
    backup_path(n, path);
    for (size_t k = n->backup_commits; k < w->ncommit; k++) {
        w->commit[k].optional = w->commit[k].optional || w->commit[k].node == (int)(n - w->node);
    }
    world_node_close(n);
    while (w->copied && net_strays(w->net)) {
        take(w, NULL, world_random(&seed));
    }
    w->alone = w->alone || net_strays(w->net);
    memory_copy(path, n->path);
    memcpy(n->astray, n->backup_astray, sizeof n->astray);
    n->past = n->past_again = n->backup_past;
    world_node_open(w, n);
}

static void copy_node(struct world *w, struct world_node *n)
{
    if (w->nnode == WORLD_NODES || w->alone || !n->r.joined || n->r.epoch < w->epoch) {
        return;
    }
    w->copied = true;
    struct world_node *twin = &w->node[w->nnode++];
    snprintf(twin->path, sizeof twin->path, "/%d.db", w->nnode - 1);
    char path[160];
    backup_path(twin, path);
    copy_database(n, path);
    memory_copy(path, twin->path);
    memcpy(twin->astray, n->astray, sizeof twin->astray);
    twin->past = twin->past_again = n->past;
    twin->again = n->again;
    twin->rejoin = n->rejoin;
    start_node(w, twin, n->id);
}

struct world_node *world_node_of(struct world *w, const struct world_step *step)
{
    return &w->node[step->node % (unsigned)w->nnode];
}

void world_act(struct world *w, const struct world_step *step)
{
    struct world_node *n = world_node_of(w, step);
    uint64_t seed = step->seed;
    if (w->failed) {
        return;
    }
    net_jitter_us = (int64_t)(world_random(&seed) % 3) * 4000;
    switch (step->act) {
    case WORLD_WRITE:
        world_write(w, n, seed);
        break;
    case WORLD_PUMP:
        world_node_pump(w, n);
        break;
    case WORLD_TAKE:
        take(w, n, seed);
        break;
    case WORLD_STRAY:
        take(w, NULL, seed);
        break;
    case WORLD_DELIVER:
        world_node_deliver(w, n, 1 + (int)(world_random(&seed) % 8));
        break;
    case WORLD_APPLY:
        world_node_apply(w, n);
        break;
    case WORLD_BREAK:
        world_node_break(w, n, 1 + (int)(world_random(&seed) % 60));
        break;
    case WORLD_ACK:
        world_node_acks(n);
        break;
    case WORLD_FLUSH:
        world_node_flush(w, n);
        break;
    case WORLD_CUT:
        world_node_cut(w, n);
        break;
    case WORLD_RESTART:
        world_node_restart(w, n);
        break;
    case WORLD_HOLD:
        world_hold(w, n, seed);
        break;
    case WORLD_TIME:
        net_now_us += (int64_t)(world_random(&seed) % 7000) * 1000;
        break;
    case WORLD_TURN:
        turn(w, n);
        break;
    case WORLD_BACKUP:
        if (!n->open && n->r.joined) {
            char path[160];
            backup_path(n, path);
            copy_database(n, path);
            n->has_backup = true;
            n->backup_commits = w->ncommit;
            memcpy(n->backup_astray, n->astray, sizeof n->backup_astray);
            n->backup_past = n->past;
        }
        break;
    case WORLD_SETBACK:
        set_back(w, n, seed);
        break;
    case WORLD_COPY:
        if (!n->open) {
            copy_node(w, n);
        }
        break;
    case WORLD_POLICY:
        world_policy(w, n, seed);
        break;
    case WORLD_OLD:
        world_old_message(w, seed);
        break;
    case WORLD_END:
        world_end_parts(w, n, seed);
        break;
    case WORLD_AGAIN:
        (void)world_again(w, n, (int)(world_random(&seed) % WORLD_TABLES));
        break;
    case WORLD_SNAPSHOT:
        world_snapshot(w, n);
        break;
    case WORLD_PURGE:
        world_purge(w);
        break;
    case WORLD_BRING:
        world_bring(w, n, true, seed);
        break;
    case WORLD_LOSE:
        world_lose(w, seed);
        break;
    case WORLD_LACK:
        world_lack(w, n, seed);
        break;
    case WORLD_NEW:
        world_new(w, (enum world_newcomer)(world_random(&seed) % NEW_KINDS), seed);
        break;
    case WORLD_SEED:
        world_seed_epoch(w, n, seed);
        break;
    case WORLD_PAST:
        world_past(w, n, seed);
        break;
    case WORLD_WATCH:
        world_watching(w, n, seed);
        break;
    case WORLD_ALTER:
        world_alter(w, n, seed);
        break;
    case WORLD_DROP:
        world_drop(w, n, seed);
        break;
    case WORLD_MAKE:
        world_create(w, n, seed);
        break;
    case WORLD_ACTS:
        break;
    }
}

void world_check_now(struct world *w, const struct world_step *step)
{
    struct world_node *n = world_node_of(w, step);
    if (w->failed) {
        return;
    }
    if (n->unhooked) {
        world_fail(w, "node %d is no longer captured: %s", (int)(n - w->node), n->why);
    }
    world_check_node(w, n, world_act_name(step->act));
}

/* What keeps a node from rest, NULL = nothing. */
static const char *restless(struct world *w, struct world_node *n)
{
    const struct mm_repl *r = &n->r;
    const char *why = world_create_all(w, n)  ? "it lacks a table"
                      : world_alter_all(w, n) ? "a table of it lacks a column"
                      : world_brings(w, n)    ? "it takes, or waits for, a copy"
                      : world_watch_all(w, n) ? "it has left a table"
                                              : NULL;
    for (int s = 0; s < w->shards && why == NULL; s++) {
        why = r->reload_needed                               ? "it is to read its database anew"
              : r->shard[s].replay != NULL                   ? "it reads the log again"
              : mm_pending_count(r->shard[s].pending) > 0    ? "something is pending"
              : r->shard[s].pos.seq < net_end(w->net, s + 1) ? "it is behind the log"
                                                             : NULL;
    }
    return why;
}

static bool settled(struct world *w, int *node, const char **why)
{
    *why = NULL;
    for (int k = 0; k < w->nnode && *why == NULL; k++) {
        *node = k;
        *why = restless(w, &w->node[k]);
    }
    return *why == NULL;
}

void world_settle(struct world *w)
{
    net_jitter_us = 1;
    for (int k = 0; k < w->nnode && !w->failed; k++) {
        if (w->node[k].open) {
            world_hold(w, &w->node[k], 1);
        }
    }
    for (int k = 0; k < w->nnode; k++) {
        (void)world_alter_all(w, &w->node[k]);
    }
    while (net_take(w->net, NULL, 0, NET_STORED)) {
    }
    int node = 0;
    const char *why = NULL;
    for (int round = 0; !w->failed && (!settled(w, &node, &why) || round < 2); round++) {
        if (round == SETTLE_TURNS) {
            world_fail(w, "it does not come to rest: node %d: %s", node, why);
        }
        for (int k = 0; k < w->nnode && !w->failed; k++) {
            turn(w, &w->node[k]);
            if (w->seeder == &w->node[k] && w->epoch == 1) { /* its call is made once more */
                world_seed_epoch(w, &w->node[k], 1);
            }
            if (!w->node[k].r.joined && w->kept[0] == NULL && round > 1) {
                world_snapshot(w, &w->node[0]); /* it waits for one */
            }
            if (w->shapes && round % 8 == 7) { /* a node that was altered stores the next one */
                world_snapshot(w, &w->node[k]);
            }
        }
        net_now_us += round % 20 == 19 ? 6000000 : 300000;
    }
    w->folded = 0;
    for (int k = 0; k < w->nnode; k++) {
        world_check_states(w, &w->node[k]);
        world_check_node(w, &w->node[k], "at rest");
        for (int s = 0; s < w->shards; s++) {
            w->folded += w->node[k].r.shard[s].folded;
        }
    }
    world_check_commits(w);
    for (int s = 0; s < w->shards && !w->failed && w->epoch == 1; s++) { /* some are of what an epoch left */
        world_check_parts(w, s);
    }
    if (!w->failed && !w->again && !w->jumped) { /* what is read again is recorded again */
        world_check_conflicts(w);
    }
}

void world_read_again(struct world *w, uint64_t seed)
{
    static const int with_policies[] = { 0, 1, 3 };
    unsigned at = (unsigned)(world_random(&seed) % (unsigned)w->nnode);
    unsigned table = (unsigned)(world_random(&seed) % (2 * WORLD_TABLES));
    struct world_node *n = &w->node[at];
    if (w->failed || !world_again(w, n, table < WORLD_TABLES ? (int)table : with_policies[table % 3])) {
        return;
    }
    for (int k = 0; k < 5; k++) {
        world_write(w, n, world_random(&seed));
    }
    /* A few messages at a time; and once from the beginning, where it had come to some place. */
    for (int k = 0; k < 6 && !w->failed; k++) {
        world_step(w, &(struct world_step){ k % 2 == 0 ? WORLD_DELIVER : WORLD_APPLY, at, world_random(&seed) });
    }
    if (world_random(&seed) % 2 == 0) {
        world_step(w, &(struct world_step){ WORLD_RESTART, at, 0 });
    }
    world_settle(w);
}
