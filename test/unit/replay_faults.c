/* Sweeps in the simulator: one step of a random schedule meets a failing
** allocation, SQL step, publish, write or sync, or the process dies at a write
** or publish; each time another one, until none is left. After each: no open
** transaction, no block of memory too many, the schedule goes on, all nodes
** end equal.
**
**   replay_faults [--first SEED] [--count N] [--seconds N] [--full] [--nth N] [--coming]
**
** One of four is about the steps of a snapshot, of content that is taken, and of what was
** not captured; one about who joins (an empty file, one with rows of its own, a copy of a
** node's), who begins a new epoch, and who follows into it, giving up or merging
** (--coming: those alone). Without --full a sweep leaves out most of its places, by the seed.
** All that comes before the step is run once for a sweep, in a process from which each place is forked. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "test/model/schedule.h"

#define FIRST UINT64_C(179591650000000)
enum { SECONDS = 20, SAMPLES = 12 };

enum { FIRST_TASK = 9 };
static const enum world_act acts[] = { WORLD_PUMP, WORLD_TURN, WORLD_WRITE, WORLD_DELIVER, WORLD_APPLY, WORLD_APPLY,
                                       WORLD_FLUSH, WORLD_RESTART, WORLD_HOLD,
                                       /* one of four trials: */
                                       WORLD_BRING, WORLD_BRING, WORLD_SNAPSHOT };

enum coming { COMING_NEW, COMING_COPY, COMING_SEED, COMING_FOLLOW, COMINGS };

struct trial {
    struct schedule s;
    struct world_step faulty;
    size_t at; /* before this step of the schedule */
    enum fault kind;
    long nth;
    bool task;  /* it is a step of one, */
    int stages; /* after so many */
    bool comes; /* it is of a node that comes, or of an epoch that does */
    enum coming coming;
    /* What came of it: shared. */
    bool came, failed;
    char why[600];
    long live;
};

static void make(struct trial *t, uint64_t seed)
{
    uint64_t state = seed ^ 0xfa17;
    uint64_t tasks = seed ^ 0x7a5c;
    unsigned family = (unsigned)(world_random(&tasks) % 4);
    t->task = family == 0;
    t->comes = family == 1;
    schedule_rich = t->task || t->comes;
    schedule_make(&t->s, seed);
    t->s.n = t->s.n > 24 ? 24 : t->s.n;
    t->at = t->s.n / 2 + world_random(&state) % (t->s.n / 2);
    t->kind = (enum fault)(FAULT_MEMORY + world_random(&state) % (FAULTS - FAULT_MEMORY));
    unsigned count = t->kind == FAULT_PUBLISH ? 2 : FIRST_TASK;
    t->faulty = (struct world_step){ acts[world_random(&state) % count], (unsigned)(world_random(&state) % 12),
                                     world_random(&state) };
    if (t->task) {
        unsigned at = (unsigned)(world_random(&tasks) % (sizeof acts / sizeof acts[0] - FIRST_TASK));
        t->kind = t->kind == FAULT_PUBLISH ? FAULT_STEP : t->kind; /* nothing is sent by them */
        t->faulty.act = acts[FIRST_TASK + at];
        t->stages = (int)(world_random(&tasks) % 4);
    }
    if (t->comes) {
        static const enum world_act of_new[] = { WORLD_BRING, WORLD_BRING, WORLD_BRING, WORLD_TURN, WORLD_RESTART };
        static const enum world_act of_copy[] = { WORLD_RESTART, WORLD_TURN, WORLD_APPLY, WORLD_PUMP };
        t->coming = (enum coming)(world_random(&tasks) % COMINGS);
        t->stages = (int)(world_random(&tasks) % 4);
        t->at = t->s.n / 2;
        t->faulty.act = t->coming == COMING_SEED   ? WORLD_SEED
                        : t->coming == COMING_COPY ? of_copy[world_random(&tasks) % 4]
                                                   : of_new[world_random(&tasks) % 5];
    }
}

/* A snapshot to take from, something that was not captured, and as far as `stages` goes. */
static void before_task(struct world *w, const struct trial *t)
{
    static const enum world_act before[] = { WORLD_TURN, WORLD_SNAPSHOT, WORLD_PAST, WORLD_TURN };
    struct world_step s = t->faulty;
    int n = (int)(sizeof before / sizeof before[0]) + (t->faulty.act == WORLD_BRING ? t->stages : 0);
    for (int k = 0; k < n; k++, s.seed++) {
        bool task = k >= (int)(sizeof before / sizeof before[0]);
        s.act = task ? WORLD_BRING : before[k];
        if (s.act != WORLD_PAST || t->faulty.act == WORLD_BRING) {
            world_act(w, &s);
            world_check_now(w, &s);
        }
    }
}

static void act(struct world *w, enum world_act a, unsigned node, uint64_t seed)
{
    const struct world_step s = { a, node, seed };
    world_act(w, &s);
    world_check_now(w, &s);
}

/* Up to the step: somebody has come, or an epoch has begun that somebody is to follow into. */
static void before_coming(struct world *w, struct trial *t)
{
    uint64_t seed = t->faulty.seed ^ 0xc0;
    unsigned node = t->faulty.node % (unsigned)w->nnode;
    unsigned other = (node + 1) % (unsigned)w->nnode;
    act(w, WORLD_TURN, node, seed);
    if (world_random(&seed) % 4 != 0) {
        act(w, WORLD_SNAPSHOT, node, seed);
    }
    act(w, WORLD_WRITE, node, world_random(&seed));
    if (t->coming == COMING_NEW || t->coming == COMING_COPY) {
        act(w, t->coming == COMING_NEW ? WORLD_NEW : WORLD_COPY, node, world_random(&seed));
        node = (unsigned)w->nnode - 1;
        act(w, WORLD_WRITE, node, world_random(&seed));
        act(w, WORLD_DELIVER, node, 3);
    } else if (t->coming == COMING_FOLLOW) {
        act(w, WORLD_WRITE, other, world_random(&seed));
        act(w, WORLD_TURN, node, seed);
        act(w, WORLD_SEED, other, seed);
        w->node[node].rejoin = (enum world_rejoin)(REJOIN_NOT + world_random(&seed) % 3);
        act(w, WORLD_WRITE, other, world_random(&seed));
        act(w, WORLD_TURN, other, seed);
        act(w, WORLD_CUT, node, seed);
    }
    t->faulty.node = node;
    for (int k = 0; k < t->stages && (t->coming == COMING_NEW || t->coming == COMING_FOLLOW); k++) {
        act(w, WORLD_BRING, node, world_random(&seed));
    }
}

/* What one sweep looks for, and what came of it: shared. */
struct sweep {
    struct trial t;
    bool full, good;
    long only; /* this place alone */
    long step; /* without `full`: so many places apart */
    long places;
};

/* In the process of a sweep: all that comes before its step is run once, and each place goes on from there in a
** process of its own. */
struct common {
    struct world w;
    struct sweep *s;
};

static void begin(struct world *w, struct trial *t)
{
    fault_arm(FAULT_NONE, 0, NULL, NULL);
    world_open(w, t->s.seed / SCHEDULE_BLOCK);
    world_seed(t->s.seed);
    for (size_t k = 0; k < t->at; k++) {
        world_step(w, &t->s.step[k]);
    }
    struct world_step before = t->faulty; /* something to fold, something to send */
    before.act = t->faulty.act == WORLD_APPLY ? WORLD_DELIVER : WORLD_WRITE;
    if (t->faulty.act == WORLD_APPLY || t->faulty.act == WORLD_PUMP || t->faulty.act == WORLD_TURN) {
        world_step(w, &before);
    }
    if (t->task) {
        before_task(w, t);
    }
    if (t->comes && !w->failed) {
        before_coming(w, t);
    }
}

static void run(void *arg)
{
    struct common *c = arg;
    struct world *w = &c->w;
    struct trial *t = &c->s->t;
    if (!w->failed) {
        struct world_step flush = t->faulty; /* nothing of what failed is stored */
        flush.act = WORLD_FLUSH;
        t->came = world_act_faulty(w, &t->faulty, t->kind, t->nth);
        world_check_now(w, &t->faulty);
        world_step(w, &flush);
    }
    for (size_t k = t->at; k < t->s.n; k++) {
        world_step(w, &t->s.step[k]);
    }
    if (!w->failed) {
        world_settle(w);
    }
    t->failed = w->failed;
    snprintf(t->why, sizeof t->why, "%s", w->why);
    world_close(w);
    t->live = fault_live();
}

static bool failed(const struct trial *t, long nth)
{
    printf("not ok seed %llu, %s %ld of %s at step %zu, node %u: %s\n", (unsigned long long)t->s.seed,
           fault_name(t->kind), nth, world_act_name(t->faulty.act), t->at + 1, t->faulty.node, t->why);
    printf("    again: build/release/test/unit/replay_faults --first %llu --count 1 --nth %ld\n",
           (unsigned long long)t->s.seed, nth);
    return false;
}

/* One place; `live` is what a run without a fault leaves. */
static bool once(struct common *c, long nth, long live)
{
    struct trial *t = &c->s->t;
    t->nth = nth;
    t->came = t->failed = false;
    if (!schedule_apart(run, c, t->why, sizeof t->why)) {
        t->failed = true;
    } else if (!t->failed && nth > 0 && t->live != live) {
        t->failed = true;
        snprintf(t->why, sizeof t->why, "%ld blocks of memory too many", t->live - live);
    }
    return !t->failed || failed(t, nth);
}

static void sweep(void *arg)
{
    struct common c = { .s = arg };
    struct sweep *s = arg;
    const struct trial *t = &s->t;
    begin(&c.w, &s->t);
    alarm(0); /* that was for what comes before */
    s->good = once(&c, 0, 0) && (s->only == 0 || once(&c, s->only, t->live));
    long live = t->live;
    long step = s->full || t->kind == FAULT_PUBLISH || t->kind >= FAULT_WRITE ? 1 : s->step;
    for (long nth = 1, tries = 0; s->good && s->only == 0 && (s->full || tries < SAMPLES); nth += step, tries++) {
        s->good = once(&c, nth, live);
        if (!s->good || !t->came) {
            break;
        }
        s->places++;
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "first", 1, NULL, 'f' },
                                             { "count", 1, NULL, 'c' },
                                             { "seconds", 1, NULL, 's' },
                                             { "full", 0, NULL, 'a' },
                                             { "nth", 1, NULL, 'n' },
                                             { "coming", 0, NULL, 'o' },
                                             { 0 } };
    uint64_t first = FIRST; /* fixed in `make check`, as in replay_random.c */
    bool given = false;
    uint64_t count = UINT64_C(1) << 40;
    time_t until = time(NULL) + SECONDS;
    bool full = false;
    bool coming = false;
    long only = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        first = c == 'f' ? strtoull(optarg, NULL, 10) : c == 's' && !given ? (uint64_t)time(NULL) * 100000 : first;
        given = given || c == 'f';
        count = c == 'c' ? strtoull(optarg, NULL, 10) : count;
        until = c == 's' ? time(NULL) + atoi(optarg) : c == 'c' ? 0 : until;
        full = full || c == 'a';
        coming = coming || c == 'o';
        only = c == 'n' ? atol(optarg) : only;
    }
    if (getenv("SHOW_LOG") == NULL) {
        mm_log_silence();
    }
    world_prepare();
    struct sweep *s = schedule_shared(sizeof *s);
    long places[FAULTS] = { 0 };
    uint64_t k = 0;
    for (; k < count && (until == 0 || time(NULL) < until); k++) {
        uint64_t state = first + k;
        memset(s, 0, sizeof *s);
        make(&s->t, first + k);
        if (coming && !s->t.comes) {
            continue;
        }
        s->full = full;
        s->only = only;
        s->step = 1 + (long)(world_random(&state) % 60);
        bool ended = schedule_apart(sweep, s, s->t.why, sizeof s->t.why);
        if (!ended || !s->good) {
            (void)(ended || failed(&s->t, s->t.nth)); /* else it has said so */
            return 1;
        }
        places[s->t.kind] += s->places;
        if (full) {
            printf("# seed %llu: %ld places of %s (%s)\n", (unsigned long long)(first + k), s->places,
                   fault_name(s->t.kind), world_act_name(s->t.faulty.act));
            fflush(stdout);
        }
    }
    printf("ok replay_faults: seeds %llu to %llu", (unsigned long long)first, (unsigned long long)(first + k - 1));
    for (int f = FAULT_MEMORY; f < FAULTS; f++) {
        printf(", %ld %s", places[f], fault_name((enum fault)f));
    }
    printf("\n");
    return 0;
}
