/* The stamp of a commit: what tells whether every commit was one of ours.
**
** SQLite counts the commits of a database in WAL mode in the header of its
** wal-index, from the moment that the first process opens it until the last one
** is gone. Each commit of ours writes into the database itself what that
** counter will be if every commit so far was ours. Where the two differ, a
** writer that does not know us has committed; how often, the difference says.
** A stamp also says where its commit began in the write-ahead log: when nobody
** has the database open, and the counter begins anew, that log is the witness.
**
** Threads: that of the connection. Layer: below inbox.h, which keeps the stamp. */
#ifndef MM_STORE_STAMP_H
#define MM_STORE_STAMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"

/* The wal-index as its header says: of the newest commit of anyone. */
struct mm_wal_head {
    uint32_t change; /* commits since somebody opened it first, modulo 2^32 */
    uint32_t frames; /* in the write-ahead log, up to that commit's last one */
    uint32_t salt[2];
    uint32_t page; /* bytes */
};

struct mm_stamp {
    uint32_t count;  /* what `change` is after this commit if all were stamped */
    uint32_t change; /* the header before this commit: one transaction, one stamp */
    uint32_t frames;
    uint32_t salt[2];
};

/* Reads the header where this connection has mapped it. It belongs to what the
** connection reads only while that has the write lock, or when the header was
** the same before and after. False when it cannot be read, or just changes. */
bool mm_wal_head(sqlite3 *db, struct mm_wal_head *out);
bool mm_wal_head_same(const struct mm_wal_head *a, const struct mm_wal_head *b);

/* Makes it the stamp of the transaction that this connection writes; once is as
** good as twice. Where the header cannot be read nothing is done, and the commit
** counts as one of somebody else. */
void mm_stamp_next(sqlite3 *db, struct mm_stamp *s);

/* Commits that lie in the write-ahead log behind frame `from`, up to frame `to`
** of this header. *found: one of their pages holds either half of these bytes
** (`seal` may be NULL). -1 when the log cannot be read. The write lock is held. */
int mm_wal_commits(sqlite3 *db, const struct mm_wal_head *h, uint32_t from, const uint8_t *seal, size_t len,
                   bool *found);

#endif
