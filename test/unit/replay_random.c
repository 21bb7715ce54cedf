/* Random schedules of small clusters: writes, lost and doubled messages,
** delays, restarts, broken batches, files set back and copied. After each
** step: visible = naive fold of the log + pending. At rest: all nodes equal
** the naive fold, each transaction accepted exactly once.
**
**   replay_random [first seed [count]]
**
** A schedule that fails is made shorter by leaving out steps, and printed.
** SHOW_LOG and SHOW_SQL in the environment tell more. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "test/lib/sqlite_api.h"
#include "test/model/world.h"

enum { STEPS = 120, SECONDS = 30, COUNT = 2000 };

struct schedule {
    uint64_t seed;
    struct world_step step[STEPS];
    size_t n;
};

struct outcome {
    bool failed;
    char why[512];
    long folded, reloads, busy;
    size_t commits;
};

/* How often each act comes, in that order. */
static const unsigned weight[WORLD_ACTS] = {
    [WORLD_WRITE] = 30,  [WORLD_PUMP] = 14, [WORLD_TAKE] = 14, [WORLD_STRAY] = 3, [WORLD_DELIVER] = 14,
    [WORLD_APPLY] = 14,  [WORLD_BREAK] = 3, [WORLD_ACK] = 8,   [WORLD_FLUSH] = 4, [WORLD_CUT] = 2,
    [WORLD_RESTART] = 2, [WORLD_HOLD] = 4,  [WORLD_TIME] = 4,  [WORLD_TURN] = 8,
};

static void make(struct schedule *s, uint64_t seed)
{
    unsigned total = 0;
    unsigned here[WORLD_ACTS];
    memcpy(here, weight, sizeof here);
    s->seed = seed;
    uint64_t state = seed;
    if (world_random(&state) % 3 == 0) {
        here[WORLD_BACKUP] = 2;
        here[WORLD_SETBACK] = 1;
        here[WORLD_COPY] = 1;
    }
    if (world_random(&state) % 4 == 0) {
        here[WORLD_POLICY] = 5;
    }
    for (int k = 0; k < WORLD_ACTS; k++) {
        total += here[k];
    }
    s->n = 20 + world_random(&state) % (STEPS - 20);
    for (size_t k = 0; k < s->n; k++) {
        unsigned at = (unsigned)(world_random(&state) % total);
        int act = 0;
        while (at >= here[act]) {
            at -= here[act++];
        }
        s->step[k] =
            (struct world_step){ (enum world_act)act, (unsigned)(world_random(&state) % 12), world_random(&state) };
    }
}

static struct outcome run(const struct schedule *s)
{
    struct world w;
    struct outcome o;
    memset(&o, 0, sizeof o);
    world_open(&w, s->seed);
    for (size_t k = 0; k < s->n; k++) {
        world_step(&w, &s->step[k]);
    }
    if (!w.failed) {
        world_settle(&w);
    }
    o.failed = w.failed;
    memcpy(o.why, w.why, sizeof o.why);
    o.folded = w.folded;
    o.reloads = w.reloads;
    o.busy = w.busy;
    o.commits = w.ncommit;
    world_close(&w);
    return o;
}

/* Leaves out what the failure does not need. */
static void shrink(struct schedule *s, struct outcome *o)
{
    for (size_t chunk = s->n / 2; chunk > 0; chunk = chunk == 1 ? 0 : (chunk + 1) / 2) {
        for (size_t at = 0; at + chunk <= s->n;) {
            struct schedule less = *s;
            memmove(&less.step[at], &less.step[at + chunk], (s->n - at - chunk) * sizeof less.step[0]);
            less.n -= chunk;
            struct outcome got = run(&less);
            if (got.failed) {
                *s = less;
                *o = got;
            } else {
                at += chunk;
            }
        }
    }
}

static void print(const struct schedule *s, const struct outcome *o)
{
    printf("not ok replay_random seed %llu: %s\n", (unsigned long long)s->seed, o->why);
    for (size_t k = 0; k < s->n; k++) {
        printf("    %2zu %-8s node %u seed %016llx\n", k + 1, world_act_name(s->step[k].act), s->step[k].node,
               (unsigned long long)s->step[k].seed);
    }
}

int main(int argc, char **argv)
{
    test_sqlite_start();
    if (getenv("SHOW_LOG") == NULL) {
        mm_log_silence();
    }
    world_prepare();
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL) * 1000;
    int count = argc > 2 ? atoi(argv[2]) : COUNT;
    time_t until = time(NULL) + SECONDS;
    long folded = 0;
    long reloads = 0;
    long busy = 0;
    size_t commits = 0;
    int done = 0;
    for (; done < count && (argc > 2 || time(NULL) < until); done++) {
        struct schedule s;
        make(&s, first + (uint64_t)done);
        struct outcome o = run(&s);
        if (o.failed) {
            printf("# seed %llu failed: %s\n", (unsigned long long)s.seed, o.why);
            shrink(&s, &o);
            print(&s, &o);
            return 1;
        }
        folded += o.folded;
        reloads += o.reloads;
        busy += o.busy;
        commits += o.commits;
    }
    printf("ok replay_random: seeds %llu to %llu, %d schedules, %zu transactions, %ld messages folded, %ld reloads, "
           "%ld times busy\n",
           (unsigned long long)first, (unsigned long long)(first + (uint64_t)done - 1), done, commits, folded, reloads,
           busy);
    return 0;
}
