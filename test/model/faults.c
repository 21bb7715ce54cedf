#include "test/model/faults.h"

#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "test/lib/sqlite_api.h"

static struct {
    enum fault kind;
    long left;
    bool came, dead;
    int paused;
    void (*died)(void *);
    void *arg;
} armed;

static long live;

const char *fault_name(enum fault f)
{
    static const char *const names[FAULTS] = { "none", "allocation", "SQL step", "publish", "write", "sync", "death" };
    return names[f];
}

void fault_arm(enum fault f, long nth, void (*died)(void *), void *arg)
{
    armed.kind = nth > 0 ? f : FAULT_NONE;
    armed.left = nth;
    armed.paused = 0;
    armed.died = died;
    armed.arg = arg;
    armed.came = armed.dead = false;
}

bool fault_came(void)
{
    return armed.came;
}

bool fault_dead(void)
{
    return armed.dead;
}

void fault_pause(bool pause)
{
    armed.paused += pause ? 1 : -1;
}

bool fault_here(enum fault f)
{
    if (armed.kind != f || armed.paused > 0 || armed.left == 0 || --armed.left > 0) {
        return false;
    }
    armed.came = true;
    if (f == FAULT_DEATH) {
        armed.dead = true;
        fault_pause(true);
        armed.died(armed.arg);
        fault_pause(false);
    }
    return true;
}

long fault_live(void)
{
    return live;
}

/* --- memory: the linker leads every call of ours here --- */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
void __wrap_free(void *p);

void *__wrap_malloc(size_t n)
{
    void *p = fault_here(FAULT_MEMORY) ? NULL : __real_malloc(n);
    live += p != NULL;
    return p;
}

void *__wrap_calloc(size_t n, size_t each)
{
    void *p = fault_here(FAULT_MEMORY) ? NULL : __real_calloc(n, each);
    live += p != NULL;
    return p;
}

void *__wrap_realloc(void *old, size_t n)
{
    void *p = fault_here(FAULT_MEMORY) ? NULL : __real_realloc(old, n);
    live += old == NULL && p != NULL;
    return p;
}

char *__wrap_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = __wrap_malloc(n);
    return p != NULL ? memcpy(p, s, n) : NULL;
}

void __wrap_free(void *p)
{
    live -= p != NULL;
    __real_free(p);
}

/* --- SQLite on top of it --- */

static void *lite_malloc(int n)
{
    return malloc((size_t)n);
}

static void *lite_realloc(void *p, int n)
{
    return realloc(p, (size_t)n);
}

static int lite_size(void *p)
{
    return p != NULL ? (int)malloc_usable_size(p) : 0;
}

static int lite_round(int n)
{
    return (n + 7) & ~7;
}

static int lite_begin(void *arg)
{
    (void)arg;
    return SQLITE_OK;
}

static void lite_end(void *arg)
{
    (void)arg;
}

static int stop(void *arg)
{
    (void)arg;
    return 1;
}

/* SQLite's own error, with all that it does about it. */
static int lite_step(sqlite3_stmt *st)
{
    bool fails = fault_here(FAULT_STEP);
    sqlite3 *db = sqlite3_db_handle(st);
    if (fails) {
        sqlite3_progress_handler(db, 1, stop, NULL);
    }
    int rc = test_sqlite_plain_step(st);
    if (fails) {
        sqlite3_progress_handler(db, 0, NULL, NULL);
    }
    return rc;
}

void fault_start(void)
{
    static const sqlite3_mem_methods methods = { .xMalloc = lite_malloc,
                                                 .xFree = free,
                                                 .xRealloc = lite_realloc,
                                                 .xSize = lite_size,
                                                 .xRoundup = lite_round,
                                                 .xInit = lite_begin,
                                                 .xShutdown = lite_end };
    test_sqlite_start_on(&methods, lite_step);
}
