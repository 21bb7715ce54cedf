#include "test/model/cases.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/db.h"

enum { TURNS = 4, MESSAGES = 7, MOST = 8 };

static int failed;

void case_check(const char *name, bool good, const char *why)
{
    printf(good ? "ok %s\n" : "not ok %s: %s\n", name, why);
    failed += !good;
}

int case_end(void)
{
    return failed > 0;
}

void case_open(struct world *w, int shards, int nodes, bool small_parts)
{
    uint64_t seed = 0;
    world_open(w, seed);
    while (w->shards != shards || (w->part_size < 100000) != small_parts || w->compress || w->kind != 0 ||
           (nodes != 0 && w->nnode != nodes)) {
        world_close(w);
        world_open(w, ++seed);
    }
}

void case_finish(struct world *w, const char *name)
{
    world_settle(w);
    case_check(name, !w->failed, w->why);
    world_close(w);
}

struct world_step case_step(enum world_act a, unsigned node, int messages)
{
    struct world_step s = { a, node, 0 };
    for (bool fits = false; !fits; s.seed += !fits) { /* as world_act takes its seed */
        uint64_t state = s.seed;
        fits = world_random(&state) % 3 == 0 && world_random(&state) % MOST == (unsigned)messages - 1;
    }
    return s;
}

void case_act(struct world *w, enum world_act a, unsigned node)
{
    struct world_step s = case_step(a, node, MESSAGES);
    world_act(w, &s);
}

void case_fold(struct world *w, unsigned node)
{
    case_act(w, WORLD_DELIVER, node);
    case_act(w, WORLD_APPLY, node); /* it may end with the message at the position */
    case_act(w, WORLD_APPLY, node);
}

void case_fold_each(struct world *w, unsigned node, int messages)
{
    struct world_step s = case_step(WORLD_DELIVER, node, 1);
    for (int k = 0; k < messages && !w->failed; k++) {
        world_act(w, &s);
        case_act(w, WORLD_APPLY, node);
    }
}

void case_turns(struct world *w, unsigned node)
{
    for (int k = 0; k < TURNS; k++) {
        case_act(w, WORLD_TURN, node);
    }
}

void case_rest(struct world *w)
{
    for (int k = 0; k < w->nnode; k++) {
        case_turns(w, (unsigned)k);
    }
}

bool case_lose(struct world *w, int64_t end, int unaware)
{
    struct world_bring *b = &w->node[unaware].bring;
    for (struct world_step lose = { WORLD_LOSE, 0, 0 }; net_end(w->net, 1) > end && lose.seed < 100; lose.seed++) {
        world_act(w, &lose);
    }
    b->held = b->due = b->lost = false;
    return net_end(w->net, 1) == end;
}

int case_met(struct world *w, int node, int most, enum net_fate fate)
{
    int n = 0;
    while (n < most && net_take(w->net, w->node[node].r.bus, 0, fate)) {
        n++;
    }
    return n;
}

void case_publish(struct world *w, unsigned node)
{
    case_act(w, WORLD_PUMP, node);
    while (net_take(w->net, w->node[node].r.bus, 0, NET_STORED)) {
    }
}

bool case_run(struct world *w, int node, const char *fmt, ...)
{
    struct mm_err err;
    va_list ap;
    mm_err_init(&err);
    va_start(ap, fmt);
    char *sql = sqlite3_vmprintf(fmt, ap);
    va_end(ap);
    if (sql == NULL || mm_db_exec(w->node[node].app, &err, "%s", sql) != SQLITE_OK) {
        if (!w->failed) {
            snprintf(w->why, sizeof w->why, "%.400s: %.100s", sql, err.msg);
        }
        w->failed = true;
    }
    sqlite3_free(sql);
    return !w->failed;
}

int64_t case_answer(struct world *w, int node, const char *fmt, ...)
{
    struct mm_err err;
    va_list ap;
    mm_err_init(&err);
    va_start(ap, fmt);
    char *sql = sqlite3_vmprintf(fmt, ap);
    va_end(ap);
    int64_t value = sql != NULL ? mm_db_int(w->node[node].app, &err, -1, "%s", sql) : -1;
    sqlite3_free(sql);
    return value;
}

struct mm_shard *case_shard(struct world *w, int node)
{
    return &w->node[node].r.shard[0];
}

size_t case_pending(struct world *w, int node)
{
    return mm_pending_count(case_shard(w, node)->pending);
}
