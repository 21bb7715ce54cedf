#include "test/model/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/model/world_int.h"

enum { CHILD_SECONDS = 120, READ_AGAIN = 4 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { APART = 0 };
#else
enum { APART = 1 };
#endif

bool schedule_rich;
unsigned schedule_shapes;

/* How often each act comes. */
static const unsigned weight[WORLD_ACTS] = {
    [WORLD_WRITE] = 30,  [WORLD_PUMP] = 14, [WORLD_TAKE] = 14, [WORLD_STRAY] = 3, [WORLD_DELIVER] = 14,
    [WORLD_APPLY] = 14,  [WORLD_BREAK] = 3, [WORLD_ACK] = 8,   [WORLD_FLUSH] = 4, [WORLD_CUT] = 2,
    [WORLD_RESTART] = 2, [WORLD_HOLD] = 4,  [WORLD_TIME] = 4,  [WORLD_TURN] = 8,
};

void schedule_make(struct schedule *s, uint64_t seed)
{
    unsigned total = 0;
    unsigned here[WORLD_ACTS];
    memcpy(here, weight, sizeof here);
    s->seed = seed;
    uint64_t state = seed;
    if (world_random(&state) % 3 == 0) {
        here[WORLD_BACKUP] = 4;
        here[WORLD_SETBACK] = 3;
        here[WORLD_COPY] = 1;
    }
    if (world_random(&state) % 4 == 0) {
        here[WORLD_POLICY] = 5;
    }
    if (world_random(&state) % 4 == 0) {
        here[WORLD_OLD] = 4;
    }
    if (world_random(&state) % 3 == 0) {
        here[WORLD_END] = 6;
    }
    if (world_random(&state) % 4 == 0) {
        here[WORLD_AGAIN] = 8;
    }
    uint64_t other = seed ^ 0x51a9;
    if (world_random(&other) % 8 == 0 || schedule_rich) {
        here[WORLD_SNAPSHOT] = 6;
        here[WORLD_BRING] = 16;
        here[WORLD_PURGE] = world_random(&other) % 2 == 0 ? 4 : 0;
        here[WORLD_LOSE] = world_random(&other) % 2 == 0 ? 4 : 0;
        here[WORLD_LACK] = world_random(&other) % 2 == 0 ? 4 : 0;
        here[WORLD_NEW] = world_random(&other) % 2 == 0 ? 3 : 0;
        here[WORLD_SEED] = world_random(&other) % 3 == 0 ? 2 : 0;
        here[WORLD_PAST] = world_random(&other) % 2 == 0 ? 5 : 0;
        here[WORLD_WATCH] = world_random(&other) % 2 == 0 ? 8 : 0;
        uint64_t shape = seed ^ 0x5a9e;
        bool shapes = schedule_shapes > 0 && world_random(&shape) % schedule_shapes == 0;
        here[WORLD_ALTER] = shapes ? 8 : 0;
        here[WORLD_DROP] = shapes && world_random(&other) % 2 == 0 ? 4 : 0;
        here[WORLD_MAKE] = shapes && world_random(&other) % 4 != 0 ? 5 : 0;
    }
    for (int k = 0; k < WORLD_ACTS; k++) {
        total += here[k];
    }
    /* Many short ones: most defects need few steps. */
    s->n = world_random(&state) % 16 == 0 ? SCHEDULE_STEPS : 8 + world_random(&state) % 24;
    for (size_t k = 0; k < s->n; k++) {
        unsigned at = (unsigned)(world_random(&state) % total);
        int act = 0;
        while (at >= here[act]) {
            at -= here[act++];
        }
        s->number[k] = (int)k + 1;
        s->step[k] =
            (struct world_step){ (enum world_act)act, (unsigned)(world_random(&state) % 12), world_random(&state) };
    }
}

void schedule_keep(struct schedule *s, const char *numbers)
{
    struct schedule less = { .seed = s->seed };
    for (size_t k = 0; k < s->n; k++) {
        const char *p = numbers;
        for (bool more = *p != '\0'; more;) {
            char *end;
            if (strtol(p, &end, 10) == s->number[k]) {
                less.step[less.n] = s->step[k];
                less.number[less.n++] = s->number[k];
                break;
            }
            more = *end == ',';
            p = end + 1;
        }
    }
    *s = less;
}

/* --- processes --- */

void *schedule_shared(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    world_need(p != MAP_FAILED, "shared memory");
    return p;
}

bool schedule_apart(void (*what)(void *), void *arg, char *why, size_t n)
{
    int status = 0;
    fflush(stdout);
    pid_t pid = fork();
    world_need(pid >= 0, "fork");
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        what(arg);
        fflush(stdout);
        _exit(0);
    }
    world_need(waitpid(pid, &status, 0) == pid, "waitpid");
    if (status != 0) {
        snprintf(why, n, "the process ended with %s %d", WIFSIGNALED(status) ? "signal" : "code",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return status == 0;
}

/* --- running --- */

void schedule_open(struct world *w, uint64_t seed)
{
    if (APART) {
        world_open(w, seed / SCHEDULE_BLOCK);
        world_warm(w);
    }
}

void schedule_close(struct world *w)
{
    if (APART) {
        world_close(w);
    }
}

struct job {
    struct world *w;
    const struct schedule *s;
    struct outcome *o;
};

static void run(void *arg)
{
    const struct job *j = arg;
    struct world *w = j->w;
    world_seed(j->s->seed);
    for (size_t k = 0; k < j->s->n; k++) {
        world_step(w, &j->s->step[k]);
    }
    if (!w->failed) {
        world_settle(w);
    }
    if (j->s->seed % READ_AGAIN == 0) {
        world_read_again(w, j->s->seed);
    }
    *j->o = (struct outcome){ .failed = w->failed,
                              .folded = w->folded,
                              .reloads = w->reloads,
                              .busy = w->busy,
                              .commits = (long)w->ncommit,
                              .brought = w->brought,
                              .mended = w->mended,
                              .newcomers = w->newcomers,
                              .epochs = w->epoch - 1,
                              .rejoined = w->rejoined,
                              .came_back = w->came_back,
                              .altered = w->altered,
                              .made = w->made };
    memcpy(j->o->why, w->why, sizeof w->why);
}

void schedule_run(struct world *w, const struct schedule *s, struct outcome *o)
{
    static struct outcome *shared;
    if (shared == NULL) {
        shared = schedule_shared(sizeof *shared);
    }
    struct job j = { w, s, shared };
    memset(shared, 0, sizeof *shared);
    if (!APART) {
        world_open(w, s->seed / SCHEDULE_BLOCK);
        run(&j);
        world_close(w);
    } else if (!schedule_apart(run, &j, shared->why, sizeof shared->why)) {
        shared->failed = true;
    }
    *o = *shared;
}

void schedule_shrink(struct world *w, struct schedule *s, struct outcome *o)
{
    for (size_t chunk = s->n / 2; chunk > 0; chunk = chunk == 1 ? 0 : (chunk + 1) / 2) {
        for (size_t at = 0; at + chunk <= s->n;) {
            struct schedule less = *s;
            struct outcome got;
            memmove(&less.step[at], &less.step[at + chunk], (s->n - at - chunk) * sizeof less.step[0]);
            memmove(&less.number[at], &less.number[at + chunk], (s->n - at - chunk) * sizeof less.number[0]);
            less.n -= chunk;
            schedule_run(w, &less, &got);
            if (got.failed) {
                *s = less;
                *o = got;
            } else {
                at += chunk;
            }
        }
    }
}

void schedule_print(const struct schedule *s, const struct outcome *o, const char *program)
{
    for (size_t k = 0; k < s->n; k++) {
        printf("    %3d %-8s node %u seed %016llx\n", s->number[k], world_act_name(s->step[k].act), s->step[k].node,
               (unsigned long long)s->step[k].seed);
    }
    printf("    again: %s --first %llu --count 1 --steps ", program, (unsigned long long)s->seed);
    for (size_t k = 0; k < s->n; k++) {
        printf("%s%d", k > 0 ? "," : "", s->number[k]);
    }
    printf("%s%s\nnot ok seed %llu: %s\n", schedule_rich ? " --rich" : "", schedule_shapes == 1 ? " --shapes" : "",
           (unsigned long long)s->seed, o->why);
}
