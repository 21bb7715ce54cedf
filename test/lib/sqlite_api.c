#include "test/lib/sqlite_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* With SQLITE_CORE the header declares the table's type and renames nothing. */
#define SQLITE_CORE 1
#include <sqlite3ext.h>

extern const sqlite3_api_routines *sqlite3_api;
const sqlite3_api_routines *sqlite3_api;

static sqlite3_mem_methods plain;
static int calls;
static int fail_at;
static bool fail_on;
static bool failed;

static bool fails(void)
{
    if (fail_at == 0) {
        return false;
    }
    calls++;
    if (calls == fail_at || (fail_on && calls > fail_at)) {
        failed = true;
        return true;
    }
    return false;
}

static void *fault_malloc(int n)
{
    return fails() ? NULL : plain.xMalloc(n);
}

static void *fault_realloc(void *p, int n)
{
    return fails() ? NULL : plain.xRealloc(p, n);
}

void test_sqlite_fail_at(int n, bool persist)
{
    calls = 0;
    fail_at = n;
    fail_on = persist;
    failed = false;
}

bool test_sqlite_failed(void)
{
    return failed;
}

static sqlite3_api_routines ours;
static int (*other_step)(sqlite3_stmt *);

static int entry(sqlite3 *db, char **msg, const sqlite3_api_routines *api)
{
    (void)db;
    (void)msg;
    sqlite3_api = api;
    if (other_step != NULL) {
        memcpy(&ours, api, sizeof ours);
        ours.step = other_step;
        sqlite3_api = &ours;
    }
    return SQLITE_OK;
}

static void need(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "sqlite_api: %s failed\n", what);
        exit(2);
    }
}

void test_sqlite_start(void)
{
    sqlite3 *db = NULL;
    need(sqlite3_auto_extension((void (*)(void))entry) == SQLITE_OK, "sqlite3_auto_extension");
    need(sqlite3_open(":memory:", &db) == SQLITE_OK, "sqlite3_open");
    sqlite3_close(db);
    sqlite3_cancel_auto_extension((void (*)(void))entry);
    need(sqlite3_api != NULL, "finding the routine table");
}

void test_sqlite_start_with_faults(void)
{
    need(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &plain) == SQLITE_OK, "SQLITE_CONFIG_GETMALLOC");
    sqlite3_mem_methods m = plain;
    m.xMalloc = fault_malloc;
    m.xRealloc = fault_realloc;
    need(sqlite3_config(SQLITE_CONFIG_MALLOC, &m) == SQLITE_OK, "SQLITE_CONFIG_MALLOC");
    need(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) == SQLITE_OK, "SQLITE_CONFIG_LOOKASIDE");
    test_sqlite_start();
}

void test_sqlite_start_on(const sqlite3_mem_methods *memory, int (*step)(sqlite3_stmt *))
{
    need(sqlite3_config(SQLITE_CONFIG_MALLOC, memory) == SQLITE_OK, "SQLITE_CONFIG_MALLOC");
    need(sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) == SQLITE_OK, "SQLITE_CONFIG_MEMSTATUS");
    other_step = step;
    test_sqlite_start();
}

int test_sqlite_plain_step(sqlite3_stmt *st)
{
    return sqlite3_step(st);
}
