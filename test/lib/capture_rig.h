/* A database under capture, for the attack suites: its own folder, our
** bookkeeping, a hook, and a judge that compares what was captured with what
** really changed.
**
** Threads: one. Each program prints `ok <name>` or `not ok <name>: why` per
** case; rig_done gives its exit code. */
#ifndef MM_TEST_CAPTURE_RIG_H
#define MM_TEST_CAPTURE_RIG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sqlite.h"
#include "capture/hook.h"

struct rig {
    char path[256];
    sqlite3 *db;
    struct mm_hook *hook;
    int commits;
    int uncaptured;
    int closed;
    char why[512];
    sqlite3 *before; /* what the judge compares with: the content at rig_begin_judging */
    int64_t seen;    /* outbox id up to which the judge has read */
};

/* A fresh database (WAL, bookkeeping, `schema` run, all tables of `schema`
** watched) with a hooked connection. */
void rig_open(struct rig *r, const char *schema);
void rig_close(struct rig *r);             /* also checks that close succeeds and the hook said so */
sqlite3 *rig_connect(const struct rig *r); /* another, unhooked connection */
void rig_watch(struct rig *r, const char *table);

/* From here on the tables have guard triggers, as in mode 'auto'; the judge
** moves what they noted to the outbox. */
void rig_guards(struct rig *r);

/* Ends the program with the reason when `good` is false. */
void rig_need(bool good, const char *what, const char *why);
/* Runs SQL; returns the extended result code. */
int rig_sql(sqlite3 *db, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* All values of a query, "|" between rows and "," between columns; the
** answer lives until the eighth call from now. */
const char *rig_query(sqlite3 *db, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What the rig gives a hook; `arg` is a struct rig. */
mm_hook_listener rig_listen;
int rig_outbox(const struct rig *r);
/* The highest id that the outbox ever gave. */
int64_t rig_outbox_last(sqlite3 *db); /* captured transactions, control messages left out */

/* Judging: from here on, every change must be captured. */
void rig_begin_judging(struct rig *r);
/* Applies what was captured since to the copy and compares all watched tables,
** row by row with exact types; then an integrity check. True when all is well;
** else `why` says what is not. */
bool rig_judge(struct rig *r, char *why, size_t n);

void rig_check(const char *name, bool good, const char *why, ...) __attribute__((format(printf, 3, 4)));
/* rig_judge as a case of its own. */
void rig_check_captured(struct rig *r, const char *name);
int rig_done(void);

/* True under asserts: cases that end in the veto cannot run there. */
bool rig_asserts(void);
bool rig_has(const char *compile_option);

#endif
