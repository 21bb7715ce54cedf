/* Runs a fuzz target without libFuzzer: the committed corpus as it is, then
** mutations of it that follow from a printed seed.
**
**   fuzz_<name> [--seed N] [--seconds N] [FILE..]
**
** With files: these alone. An input that ends the program is written to
** build/log/<name>.input. */
#include <dirent.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 2, POOL = 256, SIZE_MOST = 8192, SLOW_SECONDS = 20, STEPS_MOST = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
#if defined(__SANITIZE_ADDRESS__)
void __sanitizer_set_death_callback(void (*f)(void));
#endif

struct input {
    uint8_t data[SIZE_MOST];
    size_t n;
};

static struct input pool[POOL]; /* the corpus first; what follows is replaced at random */
static size_t npool, ncorpus;
static const struct input *now;
static const char *name;
static uint64_t state;

static uint64_t chance(uint64_t below)
{
    state += 0x9E3779B97F4A7C15ULL; /* splitmix64 */
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return (z ^ (z >> 31)) % below;
}

/* The end came while a target had this input. */
static void keep_input(void)
{
    char path[256];
    if (now == NULL) {
        return;
    }
    snprintf(path, sizeof path, "build/log/%s.input", name);
    FILE *f = fopen(path, "wb");
    if (f != NULL) {
        (void)fwrite(now->data, 1, now->n, f);
        (void)fclose(f);
    }
    printf("not ok %s: ended by an input of %zu bytes, kept as %s\n", name, now->n, path);
    fflush(stdout);
}

static void on_signal(int sig)
{
    keep_input();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* An exact copy on the heap: a read beyond its end is seen. */
static void run(const struct input *in)
{
    uint8_t *copy = malloc(in->n > 0 ? in->n : 1);
    if (copy == NULL) {
        exit(2);
    }
    memcpy(copy, in->data, in->n);
    now = in;
    alarm(SLOW_SECONDS);
    (void)LLVMFuzzerTestOneInput(copy, in->n);
    now = NULL;
    free(copy);
}

static bool load(const char *path, struct input *in)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        return false;
    }
    in->n = fread(in->data, 1, sizeof in->data, f);
    (void)fclose(f);
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void load_corpus(void)
{
    char dir[256];
    char files[POOL / 2][300];
    size_t n = 0;
    snprintf(dir, sizeof dir, "test/fuzz/corpus/%s", name + strlen("fuzz_"));
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && n < POOL / 2 && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] != '.') {
            snprintf(files[n++], sizeof files[0], "%.200s/%.90s", dir, e->d_name);
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    qsort(files, n, sizeof files[0], by_name); /* the seed alone decides */
    for (size_t k = 0; k < n; k++) {
        npool += load(files[k], &pool[npool]);
    }
    ncorpus = npool;
}

static void put_in(struct input *in, size_t at, const uint8_t *p, size_t n)
{
    n = n > SIZE_MOST - in->n ? SIZE_MOST - in->n : n;
    memmove(in->data + at + n, in->data + at, in->n - at);
    memcpy(in->data + at, p, n);
    in->n += n;
}

static void take_out(struct input *in, size_t at, size_t n)
{
    n = n > in->n - at ? in->n - at : n;
    memmove(in->data + at, in->data + at + n, in->n - at - n);
    in->n -= n;
}

static void mutate(struct input *in)
{
    static const uint8_t edges[] = { 0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, '"', '\\', '{', '}', '[', ']', ':', ',', '\n' };
    const struct input *other = &pool[chance(npool)];
    size_t at = in->n > 0 ? chance(in->n) : 0;
    size_t from = other->n > 0 ? chance(other->n) : 0;
    size_t n = 1 + chance(chance(4) == 0 ? 64 : 8);
    uint8_t bytes[64];
    switch (chance(9)) {
    case 0:
        in->data[at] ^= (uint8_t)(1U << chance(8));
        break;
    case 1:
        in->data[at] = edges[chance(sizeof edges)];
        break;
    case 2:
        in->data[at] = (uint8_t)(in->data[at] + chance(9) - 4);
        break;
    case 3:
        for (size_t k = 0; k < n; k++) {
            bytes[k] = (uint8_t)chance(256);
        }
        put_in(in, at, bytes, n);
        break;
    case 4:
        take_out(in, at, n);
        break;
    case 5: /* a piece of it once more */
        n = n > in->n - at ? in->n - at : n;
        memcpy(bytes, in->data + at, n);
        put_in(in, in->n > 0 ? chance(in->n) : 0, bytes, n);
        break;
    case 6: /* a piece of another one */
        put_in(in, at, other->data + from, n > other->n - from ? other->n - from : n);
        break;
    case 7: /* its beginning, the end of another */
        in->n = at;
        put_in(in, at, other->data + from, other->n - from);
        break;
    default: /* cut off */
        in->n = at;
        break;
    }
}

static unsigned long fuzz(int seconds)
{
    static struct input in;
    unsigned long count = 0;
    time_t until = time(NULL) + seconds;
    for (size_t k = 0; k < ncorpus; k++, count++) {
        run(&pool[k]);
    }
    for (; count % 64 != 0 || time(NULL) < until; count++) {
        in = pool[chance(npool)];
        for (uint64_t k = 1 + chance(STEPS_MOST); k > 0; k--) {
            mutate(&in);
        }
        run(&in);
        if (chance(8) == 0) { /* a beginning for others */
            size_t to = npool < POOL ? npool++ : ncorpus + chance(POOL - ncorpus);
            pool[to] = in;
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "seed", 1, NULL, 's' }, { "seconds", 1, NULL, 't' }, { 0 } };
    const char *given = getenv("MARMOT_TEST_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    int seconds = SECONDS;
    name = strrchr(argv[0], '/') != NULL ? strrchr(argv[0], '/') + 1 : argv[0];
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        seed = c == 's' ? strtoull(optarg, NULL, 10) : seed;
        seconds = c == 't' ? atoi(optarg) : seconds;
    }
    printf("# seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_signal);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(keep_input);
#endif
    state = seed;
    unsigned long count = 0;
    for (int k = optind; k < argc; k++) {
        static struct input in;
        if (!load(argv[k], &in)) {
            perror(argv[k]);
            return 2;
        }
        run(&in);
        count++;
    }
    if (count == 0) {
        load_corpus();
        if (ncorpus == 0) {
            printf("not ok %s: no corpus\n", name);
            return 1;
        }
        count = fuzz(seconds);
    }
    printf("ok %s: %lu inputs\n", name, count);
    return 0;
}
