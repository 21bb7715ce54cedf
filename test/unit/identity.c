/* Ids, slots, file identities. marmot-test: parallel */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "identity.h"

enum { MANY = 1000000, THREADS = 8, EACH = 125000 };

static int failures;

static void check(const char *name, int good, const char *why)
{
    if (good) {
        printf("ok %s\n", name);
    } else {
        printf("not ok %s: %s\n", name, why);
        failures++;
    }
}

static void many(int bits, const char *name)
{
    struct mm_err err;
    mm_err_init(&err);
    int64_t last = 0;
    int64_t limit = bits == 63 ? INT64_MAX : (INT64_C(1) << 53) - 1;
    int good = 1;
    for (int k = 0; k < MANY && good; k++) {
        int64_t id = mm_identity_next(bits, &err);
        good = err.rc == 0 && id > last && id <= limit;
        last = id;
    }
    check(name, good, err.rc != 0 ? err.msg : "an id is not above the one before it, or too wide");
}

static void parts(void)
{
    struct mm_err err;
    mm_err_init(&err);
    int64_t ms_2025 = mm_clock_wall_ms() - INT64_C(1735689600000);
    int64_t id = mm_identity_next(63, &err);
    int64_t tick = id >> 22;
    /* The million ids before it took up to 3907 ms of the future. */
    check("the high bits are ms since 2025", tick >= ms_2025 && tick < ms_2025 + 10000, "they are not near the clock");
    int64_t slot = (id >> 8) & 0x3fff;
    int64_t next = mm_identity_next(63, &err);
    check("one process has one slot", ((next >> 8) & 0x3fff) == slot, "the slot moved");
    int64_t narrow = mm_identity_next(53, &err);
    check("53 bits carry the same slot, cut to 10 bits", ((narrow >> 5) & 0x3ff) == (slot & 0x3ff), "another slot");
}

static int64_t drawn[THREADS][EACH];

static void *draw(void *p)
{
    int64_t *to = p;
    struct mm_err err;
    mm_err_init(&err);
    for (int k = 0; k < EACH; k++) {
        to[k] = mm_identity_next(63, &err);
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void threads(void)
{
    pthread_t thread[THREADS];
    int started = 0;
    while (started < THREADS && pthread_create(&thread[started], NULL, draw, drawn[started]) == 0) {
        started++;
    }
    for (int k = 0; k < started; k++) {
        (void)pthread_join(thread[k], NULL);
    }
    int rising = started == THREADS;
    for (int t = 0; t < started && rising; t++) {
        for (int k = 1; k < EACH && rising; k++) {
            rising = drawn[t][k] > drawn[t][k - 1];
        }
    }
    check("each of 8 threads sees its ids rise", rising, "one fell");
    int64_t *all = &drawn[0][0];
    qsort(all, (size_t)THREADS * EACH, sizeof *all, by_value);
    int unique = all[0] > 0;
    for (size_t k = 1; k < (size_t)THREADS * EACH && unique; k++) {
        unique = all[k] != all[k - 1];
    }
    check("a million ids of 8 threads are all different", unique, "two are the same");
}

/* Slots are 14 random bits: 8 children that all keep the parent's are no chance. */
static void forks(void)
{
    struct mm_err err;
    mm_err_init(&err);
    int64_t mine = (mm_identity_next(63, &err) >> 8) & 0x3fff;
    int moved = 0;
    (void)fflush(stdout);
    for (int k = 0; k < 8; k++) {
        int fd[2];
        int64_t id = 0;
        if (pipe(fd) != 0) {
            check("pipe", 0, "cannot make one");
            return;
        }
        pid_t child = fork();
        if (child == 0) {
            mm_identity_after_fork();
            id = mm_identity_next(63, &err);
            _exit(write(fd[1], &id, sizeof id) == sizeof id ? 0 : 1);
        }
        (void)close(fd[1]);
        ssize_t got = read(fd[0], &id, sizeof id);
        (void)close(fd[0]);
        (void)waitpid(child, NULL, 0);
        moved += got == sizeof id && ((id >> 8) & 0x3fff) != mine;
    }
    check("children of a fork draw slots of their own", moved >= 7, "they keep the parent's");
}

static void files(void)
{
    struct mm_err err;
    char dir[] = "/tmp/identity.XXXXXX";
    char a[64], b[64];
    if (mkdtemp(dir) == NULL) {
        check("folder", 0, "cannot make one");
        return;
    }
    (void)snprintf(a, sizeof a, "%s/a:b.db", dir);
    (void)snprintf(b, sizeof b, "%s/c.db", dir);
    mm_err_init(&err);
    check("a missing file has no identity", mm_identity_file(a, &err) == NULL && strstr(err.msg, a) != NULL, err.msg);
    FILE *f = fopen(a, "w");
    FILE *g = fopen(b, "w");
    mm_err_init(&err);
    char *one = mm_identity_file(a, &err);
    char *again = mm_identity_file(a, &err);
    char *other = mm_identity_file(b, &err);
    check("an identity is stable, and of one file",
          one && again && other && strcmp(one, again) == 0 && strcmp(one, other) != 0, err.msg);
    check("its path can be read back", one != NULL && strcmp(mm_identity_path(one), a) == 0, "another path");
    check("a rename is another identity",
          rename(a, b) == 0 && other != NULL && (free(other), other = mm_identity_file(b, &err)) != NULL &&
              one != NULL && strcmp(one, other) != 0,
          "the same");
    free(one);
    free(again);
    free(other);
    if (f != NULL) {
        (void)fclose(f);
    }
    if (g != NULL) {
        (void)fclose(g);
    }
    (void)unlink(b);
    (void)rmdir(dir);
}

static void randomness(void)
{
    struct mm_err err;
    mm_err_init(&err);
    int64_t all = 0;
    int good = 1;
    for (int k = 0; k < 1000 && good; k++) {
        int64_t v = mm_identity_random(&err);
        good = v > 0;
        all |= v;
    }
    check("random ids are positive and use all 63 bits", good && all == INT64_MAX, "a bit is never set");
}

int main(void)
{
    many(63, "a million ids of 63 bits rise strictly");
    many(53, "a million ids of 53 bits rise strictly");
    parts();
    threads();
    forks();
    files();
    randomness();
    return failures != 0;
}
