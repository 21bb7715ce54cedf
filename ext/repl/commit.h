/* Positions in memory and in the database: one commit moves both, or neither moves.
**
** What a batch leaves in memory when it cannot be committed (a full disk, an I/O
** error, no memory) never happened. Its positions are taken back at once; of the rest
** (acceptances, echoes, what is pending) nothing counts: reload_needed is set,
** and until mm_repl_reload has succeeded nothing is stored or told as echoed.
**
** Threads: the replication thread; nothing here waits but for the database. */
#ifndef MM_REPL_COMMIT_H
#define MM_REPL_COMMIT_H

#include "repl/repl.h"

/* Begins a write transaction that may move positions. An error (SQLITE_BUSY
** mostly): nothing has begun. */
int mm_commit_begin(struct mm_repl *r, struct mm_err *err);
/* SQLITE_ABORT when SQLite has rolled it back by itself meanwhile, as it does with some errors of
** one statement: what is written then would stand alone. */
int mm_commit_stands(struct mm_repl *r, struct mm_err *err);
/* Ends it: settles a move that is due, writes what memory says and commits.
** Where err is set, or becomes so, all is rolled back. */
int mm_commit_end(struct mm_repl *r, struct mm_err *err);

/* Writes down that the outbox is echoed up to there, inside another transaction; in memory
** it counts as written with the next mm_repl_reload. */
int mm_commit_echoed(struct mm_repl *r, int64_t echoed, struct mm_err *err);

/* Echoed outbox rows that go. */
struct mm_commit_trim {
    bool look;          /* for those that are older than keep_ms */
    int64_t keep_ms;    /* 0 or more */
    int64_t keep_bytes; /* beyond these the oldest go, at any time */
    int rows;           /* at most */
};

enum mm_commit_stored { MM_STORED_NOTHING, MM_STORED, MM_STORED_NOT };

/* What memory alone says, and the trim, in a transaction of its own; NOTHING
** where there is nothing to write, or nothing that may be written. NOT: err says why.
** *more: rows are left that should go. */
enum mm_commit_stored mm_commit_store(struct mm_repl *r, const struct mm_commit_trim *trim, bool *more,
                                      struct mm_err *err);

#endif
