/* Which tables this node watches, and what the cluster's list says.
**
** Threads: that of the connection. This file and its .c alone name
** __marmot__table and __marmot__watchlist. */
#ifndef MM_STORE_WATCH_H
#define MM_STORE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"

enum mm_watch_state { MM_WATCH_NONE, MM_WATCHED, MM_UNWATCHED, MM_UNSUPPORTED, MM_STALE, MM_JOINING };

const char *mm_watch_state_name(enum mm_watch_state s);

/* Why nothing comes of a table that is watched and was dropped or renamed. */
#define MM_WATCH_GONE "there is no such table in this database"

/* True when rows of a table in this state are captured. */
static inline bool mm_watch_captures(enum mm_watch_state s)
{
    return s == MM_WATCHED || s == MM_STALE || s == MM_JOINING;
}

/* State of one table; NONE when it has no row. `first_name` (may be NULL)
** gets a copy to free with sqlite3_free. */
enum mm_watch_state mm_watch_get(sqlite3 *db, const char *table, char **first_name, struct mm_err *err);

/* Sets state and reason (NULL clears it); makes the row when there is none. */
int mm_watch_set(sqlite3 *db, const char *table, enum mm_watch_state s, const char *why, struct mm_err *err);

/* The first sequence that is not folded into the table yet, while it joins; or: */
enum {
    MM_SEQ_NEVER = 0,   /* it has not joined: its content was not found equal */
    MM_SEQ_BEFORE = -1, /* it had joined; what is missing is not known: a copy gives it its content */
    MM_SEQ_COPY = -2,   /* it has not joined, and the log does not do: compared with a copy */
    MM_SEQ_EMPTY = -3,  /* the same, and its base was empty: all its rows were captured, and are merged */
};
int64_t mm_watch_joined_seq(sqlite3 *db, const char *table, struct mm_err *err);
int mm_watch_set_joined_seq(sqlite3 *db, const char *table, int64_t seq, struct mm_err *err);

/* True when a table waits for a copy of the cluster's content. */
static inline bool mm_watch_needs_copy(enum mm_watch_state s, int64_t joined_seq)
{
    return (s == MM_STALE || s == MM_JOINING) && joined_seq < 0;
}
/* True when what is captured of a table is no part of the cluster's log: it stays here. Of one that is
** joining (and needs a copy) it waits until that is decided. */
static inline bool mm_watch_apart(enum mm_watch_state s, int64_t joined_seq)
{
    bool out = s == MM_STALE || s == MM_UNWATCHED || s == MM_UNSUPPORTED;
    return (out && joined_seq == MM_SEQ_NEVER) || ((out || s == MM_JOINING) && joined_seq <= MM_SEQ_COPY);
}
/* What joined_seq becomes when a table begins to wait for one. */
static inline int64_t mm_watch_copy_seq(int64_t joined_seq)
{
    return joined_seq > 0 ? MM_SEQ_BEFORE : joined_seq < 0 ? joined_seq : MM_SEQ_COPY;
}
bool mm_watch_any_needs_copy(sqlite3 *db, struct mm_err *err);

/* Starts to watch: state joining, and the control message `watch` in the
** outbox, in the current transaction of db; captured as MM_META_MODE says. Nothing
** when it is watched. */
int mm_watch_add(sqlite3 *db, const char *table, struct mm_err *err);
/* A stale table that never joined is to be compared with the cluster's content: joining from here on. What
** the outbox holds of it so far was sent without its rows, which are its own content: as of one that was
** left and is watched again. */
int mm_watch_compare(sqlite3 *db, const char *table, struct mm_err *err);
/* The outbox was given up: those messages once more whose tables are not on the cluster's list. */
int mm_watch_again(sqlite3 *db, struct mm_err *err);

/* A cluster's list has taken the place of another: tables that had joined by what the log has lost since
** join once more, by their watch messages, which are sent again (where they differ: by a copy). */
int mm_watch_unlisted(sqlite3 *db, struct mm_err *err);

/* How the table is captured when not as the database is: "auto", "hook", "trigger";
** NULL = as that. sqlite3_free. Stays with this node. */
char *mm_watch_capture(sqlite3 *db, const char *table, struct mm_err *err);
int mm_watch_set_capture(sqlite3 *db, const char *table, const char *mode, struct mm_err *err);

/* The reason of its state; NULL when there is none. sqlite3_free. */
char *mm_watch_why(sqlite3 *db, const char *table, struct mm_err *err);

struct mm_watch_entry {
    char *name;
    char *first_name;
    enum mm_watch_state state;
    char *why; /* or NULL */
};
/* All rows by name; caller frees with mm_watch_list_free. */
struct mm_watch_entry *mm_watch_list(sqlite3 *db, int *n, struct mm_err *err);
void mm_watch_list_free(struct mm_watch_entry *list, int n);

/* The cluster's list: place of the watch message of a table, 0 = not on it. */
int64_t mm_watchlist_seq(sqlite3 *db, const char *table, struct mm_err *err);
int mm_watchlist_add(sqlite3 *db, const char *table, int shard, int64_t seq, struct mm_err *err);

/* Replaces the list of schema `to` by that of `from` (names of attached
** databases), inside the caller's transaction. */
int mm_watchlist_copy(sqlite3 *db, const char *from, const char *to, struct mm_err *err);
/* The rows of tables that are watched here and on the cluster's list, added to
** schema `to`. */
int mm_watch_copy(sqlite3 *db, const char *to, struct mm_err *err);
/* A table of the cluster's list that is not watched here: true and "<name> is
** <state>" (sqlite3_free), or false. */
bool mm_watchlist_missing(sqlite3 *db, char **name, struct mm_err *err);
/* Name of each table on the cluster's list, ascending: as mm_watch_list. */
struct mm_watch_entry *mm_watchlist_all(sqlite3 *db, int *n, struct mm_err *err);

/* Placement (SPEC 3): FNV-1a 64 of the ASCII-lower-cased name, modulo shards,
** plus 1. */
int mm_watch_shard(const char *first_name, int shards);

/* The control message `watch`, as it lies in the outbox: 'W' and the name; behind a zero, when
** the table had been left, whether it had joined before that. */
#define MM_CONTROL_WATCH 'W'
/* True for one that had been left. */
bool mm_watch_left(const void *data, size_t len, bool *joined);

#endif
