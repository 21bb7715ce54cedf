/* What can be watched, and how: a table's definition as SQLite sees it, with
** a verdict.
**
** Threads: that of the connection. Runs read-only statements (pragma table
** functions and sqlite_schema), never writes, opens no statement journal.
** Ownership: a struct mm_table owns all it points to; free with mm_table_free. */
#ifndef MM_CAPTURE_TABLES_H
#define MM_CAPTURE_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"
#include "store/value.h"

enum mm_affinity { MM_AFF_BLOB, MM_AFF_TEXT, MM_AFF_NUMERIC, MM_AFF_INTEGER, MM_AFF_REAL };

struct mm_column {
    char *name;
    char *decl;       /* declared type, "" when none */
    uint8_t pk;       /* 1-based place in the key, 0 = not in the key */
    uint8_t affinity; /* enum mm_affinity */
    uint8_t coll;     /* enum mm_coll; of a key's column, as the key compares it */
    uint8_t own_coll; /* as its bare name compares in SQL */
    bool not_null;
    bool mistaken;    /* SQLite 3.40 gives its old value as REAL, for a REAL column's sake */
    bool has_default; /* not NULL: a row older than the column holds it unwritten */
    char *instead;    /* by mm_defaults_instead: the literal that OR REPLACE puts in place of NULL; or NULL */
};

/* One UNIQUE constraint or index beyond the key. */
struct mm_unique {
    char *index;
    int ncol;      /* 0: not over plain columns alone */
    int *col;      /* indices into mm_table.col */
    uint8_t *coll; /* enum mm_coll of each, in this index */
    char *rule;    /* over expressions or generated columns, or with WHERE: what it says (index_rule.h); else NULL */
    char *match;   /* of a rule, by mm_index_match: SQL that finds the rows that NEW would evict; or NULL */
    char *differs; /* and that says whether an update may change its values */
};

struct mm_table {
    char *name;
    bool supported;
    char *why;       /* when not supported: cause and remedy; else NULL */
    bool capturable; /* rows can be named and read, whatever else speaks against it */
    int ncol;        /* columns that travel: without generated ones */
    struct mm_column *col;
    int nstored; /* columns as sqlite3_preupdate_count() counts them: generated ones too */
    int *stored; /* preupdate index of col[i] */
    bool without_rowid;
    bool strict;
    bool keyless;     /* no usable key: a multiset */
    bool integer_key; /* the key is the rowid */
    int nunique;
    struct mm_unique *unique;
    char *sql; /* the CREATE statement as the schema holds it */
};

/* True for names that are never watched: sqlite_%, __marmot__%, empty. */
bool mm_table_internal(const char *name);

/* What stands behind the column's name in SQL, to compare it by `coll`: "" where it does so by itself. */
const char *mm_column_collate(const struct mm_column *c, uint8_t coll);

/* Same name, columns (names, order, key places) and places of the values. */
bool mm_table_same_shape(const struct mm_table *a, const struct mm_table *b);

/* Looks at main.<name>. Returns the definition (never NULL without err set)
** or NULL: err is set, or the table does not exist (err->rc stays 0).
** Views, virtual and shadow tables come back as not supported. */
struct mm_table *mm_table_load(sqlite3 *db, const char *name, struct mm_err *err);
void mm_table_free(struct mm_table *t);

/* The ordinary user tables of main by name (not internal, not virtual, not
** shadow, no views): an array of n names, caller frees each and the array
** with free(). NULL with n = 0 when there are none. */
char **mm_table_list(sqlite3 *db, int *n, struct mm_err *err);

/* hook_read.c: a name of the rowid; NULL when the table's own columns hide all of them. */
const char *mm_rowid_name(const struct mm_table *t);
/* hook_read.c: the SELECT of the row with a key (?1 and on, in the key's order)
** or, when `rowid` names it, of a rowid (?1). sqlite3_free; NULL out of memory. */
char *mm_row_select(const struct mm_table *t, const char *rowid);

/* Schema hash of SPEC 8: over names, declared types, key, collations, unique
** sets; equal on every node whose table is the same for replication. */
uint64_t mm_table_hash(const struct mm_table *t);

#endif
