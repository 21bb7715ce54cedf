/* Schedules: random steps of a small cluster, each known by its seed. A
** schedule that fails is made shorter by leaving out steps.
**
** Threads: one. A plain build runs each schedule in a process of its own, forked
** from one that has the cluster open (most of the time would go there); a
** sanitizer's build runs all in one, so that leaks are seen. */
#ifndef MM_TEST_SCHEDULE_H
#define MM_TEST_SCHEDULE_H

#include "test/model/world.h"

enum {
    SCHEDULE_STEPS = 120,
    SCHEDULE_BLOCK = 256, /* seeds in a row that share a kind of cluster */
};

struct schedule {
    uint64_t seed;
    struct world_step step[SCHEDULE_STEPS];
    int number[SCHEDULE_STEPS]; /* of each step, before any was left out */
    size_t n;
};

struct outcome {
    bool failed;
    char why[512];
    long folded, reloads, busy, commits, brought, mended, newcomers, epochs, rejoined, came_back, altered, made;
};

/* Each schedule has snapshots and what belongs to them: else one of eight. */
extern bool schedule_rich;
/* In one of so many of those tables get columns, are dropped and made anew, or come later, at each node in its own
** time; 0: in none. */
extern unsigned schedule_shapes;

void schedule_make(struct schedule *s, uint64_t seed);
/* Only these steps stay: numbers from 1, with commas. */
void schedule_keep(struct schedule *s, const char *numbers);

/* The cluster for the seeds of a block: w is open between the two. */
void schedule_open(struct world *w, uint64_t seed);
void schedule_run(struct world *w, const struct schedule *s, struct outcome *o);
void schedule_close(struct world *w);

/* Leaves out what the failure does not need. */
void schedule_shrink(struct world *w, struct schedule *s, struct outcome *o);
void schedule_print(const struct schedule *s, const struct outcome *o, const char *program);

/* Runs `what` in a process of its own. False, with why set, when that one did
** not end well; the caller shares memory with it (schedule_shared). */
bool schedule_apart(void (*what)(void *), void *arg, char *why, size_t n);
void *schedule_shared(size_t n);

#endif
