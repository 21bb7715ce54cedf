/* The SQL functions of SPEC 1, as a table: names, arguments, what they call.
**
** Threads: that of the connection that runs the statement. */
#ifndef MM_FUNCTIONS_H
#define MM_FUNCTIONS_H

#include "base/sqlite.h"

#define MM_VERSION "1.0.0"

struct mm_function;

/* Registers all of them on `db`; an SQLite code. */
int mm_functions_register(sqlite3 *db);

#endif
