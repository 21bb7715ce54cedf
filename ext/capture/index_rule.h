/* What an index says of its rows, as text: two nodes have the same UNIQUE set
** when these texts are equal, whatever the index is called.
**
** Threads: that of the connection. Reads the schema, writes nothing. */
#ifndef MM_CAPTURE_INDEX_RULE_H
#define MM_CAPTURE_INDEX_RULE_H

#include "base/err.h"
#include "base/sqlite.h"

struct mm_table;
/* Of CREATE INDEX the part behind the table's name: columns or expressions,
** and WHERE; outside of quotes in small letters, without comments, with as few
** spaces as can be. Of a constraint's index the names of its columns. Caller frees with free(); NULL
** with err set. */
char *mm_index_rule(sqlite3 *db, const char *index, struct mm_err *err);

/* index_match.c: for a trigger's text, `match` and `differs` of each set of t that
** has a rule. They name by NEW and OLD only columns that SQLite lets nobody drop
** while the index is there. Left NULL where SQLite would not take them. */
int mm_index_match(sqlite3 *db, struct mm_table *t, struct mm_err *err);

#endif
