/* SQLite for test programs that link our objects: they reach it, as the
** extension does, through the routine table alone.
**
** Threads: the main thread, before anything else. */
#ifndef MM_TEST_SQLITE_API_H
#define MM_TEST_SQLITE_API_H

#include <stdbool.h>

struct sqlite3_mem_methods;
struct sqlite3_stmt;

/* Fills the routine table. Ends the program when that fails. */
void test_sqlite_start(void);

/* The same, and puts an allocator under SQLite that can be told to fail.
** Must be the first call into SQLite. */
void test_sqlite_start_with_faults(void);

/* The same, with another allocator under SQLite and another sqlite3_step in the
** routine table, which calls test_sqlite_plain_step (NULL: its own). Must be
** the first call into SQLite. */
void test_sqlite_start_on(const struct sqlite3_mem_methods *memory, int (*step)(struct sqlite3_stmt *));
int test_sqlite_plain_step(struct sqlite3_stmt *st);

/* The nth allocation from now on fails (and later ones too when `persist`);
** 0 switches it off. */
void test_sqlite_fail_at(int n, bool persist);
/* True when the failure came since the last test_sqlite_fail_at. */
bool test_sqlite_failed(void);

#endif
