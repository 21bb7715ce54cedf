/* The tables as replication writes them: definition, watch state, shard and
** the prepared statements, on the replication thread's own connection.
**
** Threads: the replication thread. Ownership: the set owns its targets; a
** pointer is good until mm_targets_refresh finds a changed schema. */
#ifndef MM_REPL_TARGET_H
#define MM_REPL_TARGET_H

#include "capture/tables.h"
#include "store/change.h"
#include "store/watch.h"

struct mm_target {
    char *name;
    char *first_name;     /* "" when it has no watch row */
    struct mm_table *def; /* NULL: no such table here */
    enum mm_watch_state state;
    int64_t joined_seq; /* first sequence not folded into it yet, 0 = not joined */
    int shard;
    uint8_t *policy;                                 /* enum mm_policy of each local column; NULL: all are 'last' */
    sqlite3_stmt *select, *remove, *insert, *update; /* all columns; prepared on first use */
    sqlite3_stmt *add, *find, *by_rowid, *evict;     /* for mm_target_add and mm_target_holder */
    sqlite3_value **held_key;   /* key columns of the row that mm_target_holder found, where it has no rowid */
    int64_t held_rowid;         /* of the row that mm_target_holder found */
    sqlite3_stmt *take[2];      /* deletes a row by all its columns: the first, the last */
    struct mm_many *many;       /* between mm_target_many_begin and _end */
    struct mm_foreign *foreign; /* repl/foreign.h; NULL: not looked for yet */
    struct mm_value *fill;      /* mm_target_fill; NULL: not asked yet */
    struct mm_arena room;       /* of that */
    const struct mm_was *was;   /* the set's */
    struct mm_target *next;
};

struct mm_targets;

enum { MM_TARGET_MANY = 16 }; /* from so many rows on a look at the whole table pays */

struct mm_targets *mm_targets_open(sqlite3 *db, int shards, struct mm_err *err);
void mm_targets_close(struct mm_targets *s);

/* At the start of a transaction: drops everything when the schema or the watch
** list changed. Returns true when it did. */
bool mm_targets_refresh(struct mm_targets *s, struct mm_err *err);
void mm_targets_forget(struct mm_targets *s); /* the watch list was changed by ourselves */

/* Folding has changed the state of one; that is asked for once. `s` may be NULL then. */
void mm_targets_moved(struct mm_targets *s);
bool mm_targets_have_moved(struct mm_targets *s);

/* Never NULL without err set; look at ->def and ->state. */
struct mm_target *mm_targets_get(struct mm_targets *s, const char *table, struct mm_err *err);

/* Shard of a table by name, watched here or not. */
int mm_targets_shard(struct mm_targets *s, const char *table, struct mm_err *err);

/* For mm_change_read: arg is the struct mm_targets. */
enum mm_coll mm_targets_coll(void *targets, const char *table, const char *column, struct mm_err *err);

/* True when any table has a foreign key. */
bool mm_targets_foreign(struct mm_targets *s, struct mm_err *err);

/* Index of a column by name (as SQLite compares names), -1 when missing. */
int mm_target_column(const struct mm_target *t, const char *column);

/* A table of a copy that was made like the node's: messages from before still say columns as they were.
** `to` NULL: what they say of `from` is passed over. pass_over: so is every column that is missing, but in
** tables without a key, whose rows are found by all their columns. */
void mm_targets_pass_over(struct mm_targets *s);
int mm_targets_column_was(struct mm_targets *s, const char *table, const char *from, const char *to,
                          struct mm_err *err);
/* Where a message's column goes: its index, or one of these. */
enum { MM_PLACE_MISSING = -1, MM_PLACE_NOWHERE = -2 };
int mm_target_place(const struct mm_target *t, const char *column);

/* The current row of the key in `row` (def->ncol values, local order): 1 with
** out[] borrowed from the statement until mm_target_done, or 0. */
int mm_target_read(struct mm_target *t, sqlite3 *db, const struct mm_value *row, struct mm_value *out,
                   struct mm_err *err);
/* The same of another database's table: `row` and out[] are in the order of `like`'s columns, which have
** the same names. */
int mm_target_read_like(struct mm_target *t, const struct mm_target *like, sqlite3 *db, const struct mm_value *row,
                        struct mm_value *out, struct mm_err *err);
void mm_target_done(struct mm_target *t);
int mm_target_remove(struct mm_target *t, sqlite3 *db, const struct mm_value *row, struct mm_err *err);
/* Writes an image: over the row of `key` when `exists`, else as a new row
** (UNDEF columns take their defaults). */
int mm_target_write(struct mm_target *t, sqlite3 *db, const struct mm_value *key, const struct mm_value *image,
                    bool exists, struct mm_err *err);

/* A new row, as mm_target_write's: 1 when it is written; 0 when another row
** holds one of its UNIQUE values (whatever they are of: columns, expressions,
** a part of the rows): mm_target_holder says which. */
int mm_target_add(struct mm_target *t, sqlite3 *db, const struct mm_value *image, struct mm_err *err);
/* After a 0 of mm_target_add, one such row: 1 with out[] borrowed until
** mm_target_holder_done, or 0 with err set. */
int mm_target_holder(struct mm_target *t, sqlite3 *db, const struct mm_value *image, struct mm_value *out,
                     struct mm_err *err);
void mm_target_holder_done(struct mm_target *t);
/* Deletes the row that mm_target_holder found last; `row` is a copy of it. */
int mm_target_evict(struct mm_target *t, sqlite3 *db, const struct mm_value *row, struct mm_err *err);

/* Deletes one row that equals `row` in type and bytes of all columns; with `last`
** the one with the highest rowid, looked for from the end. */
bool mm_target_take_one(struct mm_target *t, sqlite3 *db, const struct mm_value *row, bool last, struct mm_err *err);

/* Many rows to take: where no index helps, one look at the table finds them all.
** begin, want each row, find, then mm_target_take_one for each, end. Nothing is
** added to the table between find and end; `rows` is how many are wanted. */
bool mm_target_many_pays(struct mm_target *t, sqlite3 *db, size_t rows, struct mm_err *err);
int mm_target_many_begin(struct mm_target *t, size_t rows, struct mm_err *err);
void mm_target_many_want(struct mm_target *t, const struct mm_value *row);
int mm_target_many_find(struct mm_target *t, sqlite3 *db, size_t rows, struct mm_err *err);
void mm_target_many_end(struct mm_target *t);

uint64_t mm_target_hash(const struct mm_value *row, int ncol); /* equal rows, equal hashes; UNDEF as NULL */

/* What rows from before a column hold in it, of each: its default as it is stored, UNDEF where that is
** NULL, or no literal. NULL with err set. */
const struct mm_value *mm_target_fill(struct mm_target *t, sqlite3 *db, struct mm_err *err);

/* All rows, the columns in local order (also of another database, whose table has columns of the
** same names); finalize with mm_db_finalize. */
sqlite3_stmt *mm_target_scan(const struct mm_target *t, sqlite3 *db, struct mm_err *err);

/* The same with the rowid before the columns; and the row of a rowid: 1 with
** out[] borrowed until mm_target_holder_done, or 0. Of tables that have one. */
sqlite3_stmt *mm_target_scan_rowids(const struct mm_target *t, sqlite3 *db, struct mm_err *err);
int mm_target_read_rowid(struct mm_target *t, sqlite3 *db, int64_t rowid, struct mm_value *out, struct mm_err *err);

/* Calls f for each watch row's target; stops at an error. */
int mm_targets_each(struct mm_targets *s, int (*f)(void *arg, struct mm_target *t, struct mm_err *err), void *arg,
                    struct mm_err *err);

#endif
