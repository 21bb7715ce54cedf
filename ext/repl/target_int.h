/* What the files of target share: target.c holds the set and works by key,
** target_find.c finds rows otherwise. Nobody else includes this. */
#ifndef MM_REPL_TARGET_INT_H
#define MM_REPL_TARGET_INT_H

#include "base/buf.h"
#include "repl/target.h"

enum { MM_TARGET_SQL_MAX = 8 << 20 };

/* Appends `before` and the name in double quotes. */
void mm_target_name(struct mm_buf *b, const char *before, const char *name);
/* Appends an INSERT of the columns that `image` has; NULL image: all of them.
** Parameter k + 1 is column k. */
void mm_target_insert(struct mm_buf *b, const struct mm_table *def, const struct mm_value *image);
/* Prepares and frees the text. */
sqlite3_stmt *mm_target_prepare(sqlite3 *db, struct mm_buf *b, unsigned flags, struct mm_err *err);

void mm_target_bind(sqlite3 *db, sqlite3_stmt *st, int param, const struct mm_value *v, struct mm_err *err);
void mm_target_bind_row(const struct mm_target *t, sqlite3 *db, sqlite3_stmt *st, const struct mm_value *image,
                        struct mm_err *err);
bool mm_target_full(const struct mm_target *t, const struct mm_value *image); /* no UNDEF in it */
/* INSERT of the image with `behind` behind it; the statement for full rows is
** kept in *kept. Returns the number of rows written. */
int mm_target_run_new(struct mm_target *t, sqlite3 *db, sqlite3_stmt **kept, const char *behind,
                      const struct mm_value *image, struct mm_err *err);

/* What the columns of a set's tables were called; target_was.c. */
struct mm_was {
    struct mm_was_column *first;
    bool pass_over;
};
struct mm_was *mm_targets_was(struct mm_targets *s);
void mm_was_free(struct mm_was *w);

/* For mm_target_holder: a function of the connection, and what a target keeps of it. */
int mm_target_held_function(sqlite3 *db, struct mm_err *err);
void mm_target_held_free(struct mm_target *t);

/* True when an index answers this SELECT. */
bool mm_target_searches(sqlite3 *db, const char *sql);
/* Takes a place that was found for the row, the first that `is` says yes to: others may be
** another row's of the same hash, and stay. */
typedef bool mm_target_is(void *arg, int64_t rowid);
bool mm_target_many_take(struct mm_target *t, const struct mm_value *row, mm_target_is *is, void *arg);

#endif
