/* The SQLite API as this library sees it: through the routine table that the
** host hands over, never through linked symbols.
**
** Every file that calls sqlite3_* includes this header. The one definition of
** the table pointer lives in marmot.c (in test/lib for unit tests). Routines
** younger than the version floor (MM_SQLITE_FLOOR) must not be called without
** a check of sqlite3_libversion_number(): in an older host the table ends
** early and later members are garbage. */
#ifndef MM_BASE_SQLITE_H
#define MM_BASE_SQLITE_H

#include <sqlite3ext.h>

SQLITE_EXTENSION_INIT3

#define MM_SQLITE_FLOOR 3037000

#endif
