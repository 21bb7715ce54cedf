/* Random schedules of small clusters: writes, lost and doubled messages,
** delays, restarts, broken batches, files set back and copied, content taken
** from snapshots. After each
** step: visible = naive fold of the log + pending. At rest: all nodes equal
** the naive fold, each transaction accepted exactly once.
**
**   replay_random [--first SEED] [--count N] [--seconds N] [--steps 1,4,..] [--rich] [--shapes]
**
** Without arguments from a fixed seed on: what fails in `make check` is of the change
** that is checked. With --seconds, as `make soak` has it, from new ones.
** Two processes share the seeds. A schedule that fails is made shorter by
** leaving out steps, and printed with the call that runs it again. With --rich each
** schedule has snapshots and all that goes with them, without it one of eight; with --shapes the tables of
** each of these get columns as well, are dropped, made anew or made later, at each node in its own time,
** without it those of every second one. SHOW_LOG and SHOW_SQL in the environment tell more. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "test/model/schedule.h"

#define FIRST UINT64_C(179591650000000)
enum { SECONDS = 60, COUNT = 24000, WORKERS = 2 };

struct task {
    uint64_t first, count;
    time_t until; /* 0: no end but the count's */
    const char *steps;
};

struct total {
    long done, folded, reloads, busy, commits, brought, mended, newcomers, epochs, rejoined, came_back, altered, made;
};

static bool late(const struct task *t)
{
    return t->until != 0 && time(NULL) >= t->until;
}

static bool failed(struct world *w, struct schedule *s, struct outcome *o)
{
    if (o->failed) {
        printf("# seed %llu failed: %s\n", (unsigned long long)s->seed, o->why);
        schedule_shrink(w, s, o);
        schedule_print(s, o, "build/release/test/unit/replay_random");
    }
    return o->failed;
}

/* The blocks of one worker; blocks and not seeds, since a block shares its cluster. */
static bool work(const struct task *t, int worker, int workers, struct total *sum)
{
    uint64_t end = t->first + t->count;
    for (uint64_t block = t->first / SCHEDULE_BLOCK; block * SCHEDULE_BLOCK < end && !late(t); block++) {
        struct world w;
        if (block % (uint64_t)workers != (uint64_t)worker) {
            continue;
        }
        schedule_open(&w, block * SCHEDULE_BLOCK);
        for (uint64_t k = 0; k < SCHEDULE_BLOCK && !late(t); k++) {
            struct schedule s;
            struct outcome o;
            uint64_t seed = block * SCHEDULE_BLOCK + k;
            if (seed < t->first || seed >= end) {
                continue;
            }
            schedule_make(&s, seed);
            if (t->steps != NULL) {
                schedule_keep(&s, t->steps);
            }
            schedule_run(&w, &s, &o);
            if (failed(&w, &s, &o)) {
                return false;
            }
            sum->done++;
            sum->folded += o.folded;
            sum->reloads += o.reloads;
            sum->busy += o.busy;
            sum->commits += o.commits;
            sum->brought += o.brought;
            sum->mended += o.mended;
            sum->newcomers += o.newcomers;
            sum->epochs += o.epochs;
            sum->rejoined += o.rejoined;
            sum->came_back += o.came_back;
            sum->altered += o.altered;
            sum->made += o.made;
        }
        schedule_close(&w);
    }
    return true;
}

static bool share(const struct task *t, struct total *sum)
{
    bool good = true;
    pid_t pid[WORKERS];
    for (int k = 0; k < WORKERS; k++) {
        fflush(stdout);
        pid[k] = fork();
        if (pid[k] == 0) {
            bool fine = work(t, k, WORKERS, &sum[k]);
            fflush(stdout);
            exit(fine ? 0 : 1); /* a leak check comes with it */
        }
    }
    for (int k = 0; k < WORKERS; k++) {
        int status = 0;
        good = pid[k] > 0 && waitpid(pid[k], &status, 0) == pid[k] && status == 0 && good;
    }
    for (int k = 1; k < WORKERS; k++) {
        sum->done += sum[k].done;
        sum->folded += sum[k].folded;
        sum->reloads += sum[k].reloads;
        sum->busy += sum[k].busy;
        sum->commits += sum[k].commits;
        sum->brought += sum[k].brought;
        sum->mended += sum[k].mended;
        sum->newcomers += sum[k].newcomers;
        sum->epochs += sum[k].epochs;
        sum->rejoined += sum[k].rejoined;
        sum->came_back += sum[k].came_back;
        sum->altered += sum[k].altered;
        sum->made += sum[k].made;
    }
    return good;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "first", 1, NULL, 'f' },
                                             { "count", 1, NULL, 'c' },
                                             { "seconds", 1, NULL, 's' },
                                             { "steps", 1, NULL, 'k' },
                                             { "rich", 0, NULL, 'r' },
                                             { "shapes", 0, NULL, 'a' },
                                             { 0 } };
    struct task t = { FIRST, COUNT, time(NULL) + SECONDS, NULL };
    bool given = false;
    schedule_shapes = 2;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'f':
            t.first = strtoull(optarg, NULL, 10);
            given = true;
            break;
        case 'c':
            t.count = strtoull(optarg, NULL, 10);
            t.until = 0;
            break;
        case 's':
            t.until = time(NULL) + atoi(optarg);
            t.first = given ? t.first : (uint64_t)time(NULL) * 100000;
            t.count = UINT64_C(1) << 40;
            break;
        case 'k':
            t.steps = optarg;
            break;
        case 'r':
            schedule_rich = true;
            break;
        case 'a':
            schedule_rich = true;
            schedule_shapes = 1;
            break;
        default:
            return 2;
        }
    }
    if (getenv("SHOW_LOG") == NULL) {
        mm_log_silence();
    }
    world_prepare();
    struct total *sum = schedule_shared(WORKERS * sizeof *sum);
    bool good = t.count > SCHEDULE_BLOCK ? share(&t, sum) : work(&t, 0, 1, sum);
    if (good) {
        printf("ok replay_random: %ld schedules from seed %llu on, %ld transactions, %ld messages folded, %ld reloads, "
               "%ld times busy, %ld copies taken, %ld rows that were not captured, %ld newcomers, %ld epochs, %ld "
               "nodes that gave up or merged, %ld tables watched again, %ld columns that came later, %ld tables that "
               "did, or came anew\n",
               sum->done, (unsigned long long)t.first, sum->commits, sum->folded, sum->reloads, sum->busy, sum->brought,
               sum->mended, sum->newcomers, sum->epochs, sum->rejoined, sum->came_back, sum->altered, sum->made);
    }
    return good ? 0 : 1;
}
