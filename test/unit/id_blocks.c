/* Blocks of ids for AUTOINCREMENT tables: simulated nodes that insert and hear of
** each other in any order never give an id twice, and never go back; the ends of
** the numbers. marmot-test: parallel */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "repl/partition.h"

enum { SLOTS = 1 << MM_ID_SLOT_BITS, BLOCK = 1 << MM_ID_BLOCK_BITS, NODES = 5, STEPS = 80000, GIVEN = 1 << 22 };

static int bad;

static void check(const char *name, bool good)
{
    printf("%s %s\n", good ? "ok" : "not ok", name);
    bad += !good;
}

static void ends(void)
{
    const int64_t end = INT64_C(1) << MM_ID_BITS;
    const int64_t stride = (int64_t)BLOCK * SLOTS;
    check("an empty table: the slot's first block", mm_partition_place(3, 0) == INT64_C(3) * BLOCK);
    check("the first slot goes on from small ids", mm_partition_place(0, 17) == 17);
    check("a negative id is below all", mm_partition_place(2, INT64_MIN) == INT64_C(2) * BLOCK);
    check("above another's row of this generation",
          mm_partition_place(5, INT64_C(4) * BLOCK + 9) == INT64_C(5) * BLOCK);
    check("or in the next one", mm_partition_place(4, INT64_C(5) * BLOCK + 9) == stride + INT64_C(4) * BLOCK);
    check("half a block is used", mm_partition_place(4, INT64_C(4) * BLOCK + BLOCK / 2) == stride + INT64_C(4) * BLOCK);
    check("the last block", mm_partition_place(SLOTS - 1, end - BLOCK - 1) == end - BLOCK);
    check("there is no other", mm_partition_place(SLOTS - 1, end - BLOCK / 2) == -1);
    check("nor for a smaller slot", mm_partition_place(0, end - 9) == -1);
    check("nor beyond", mm_partition_place(9, INT64_MAX) == -1);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* What SQLite does: the next id is one above the highest row and the number. */
static void simulate(unsigned seed)
{
    static int64_t given[GIVEN];
    int64_t seq[NODES];
    int64_t told[NODES];
    size_t n = 0;
    bool grows = true;
    srand(seed);
    for (int k = 0; k < NODES; k++) {
        seq[k] = mm_partition_place(k * 51, 40);
        told[k] = 0;
    }
    for (int step = 0; step < STEPS; step++) {
        int k = rand() % NODES;
        int how = rand() % 100;
        int rows = how < 60 ? 1 : how < 70 ? rand() % 50 : how == 99 ? BLOCK / 2 - 1 : 0;
        for (int i = 0; i < rows && n < GIVEN; i++) {
            given[n++] = ++seq[k];
        }
        told[k] = rows > 0 ? seq[k] : told[k];
        int other = rand() % NODES;
        int64_t v = how >= 80 && told[other] > seq[k] ? told[other] : seq[k];
        int64_t to = mm_partition_place(k * 51, v); /* at the end of its transaction, or when the thread looks */
        grows = grows && to >= v;
        seq[k] = to;
    }
    qsort(given, n, sizeof *given, by_value);
    bool twice = false;
    for (size_t i = 1; i < n; i++) {
        twice = twice || given[i] == given[i - 1];
    }
    char name[80];
    (void)snprintf(name, sizeof name, "no id of %zu is given twice (seed %u)", n, seed);
    check(name, !twice && n > STEPS / 2);
    check("and none goes back", grows);
}

int main(int argc, char **argv)
{
    ends();
    simulate(argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL));
    return bad != 0;
}
