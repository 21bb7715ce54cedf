#include "snapshot/moment.h"

#include "base/clock.h"
#include "base/db.h"
#include "capture/trigger.h"
#include "store/log.h"
#include "store/outbox.h"
#include "store/stray.h"

enum { TRY_MS = 20 }; /* so long the gate is held at most */

static void move(sqlite3 *db, struct mm_err *err)
{
    sqlite3_busy_timeout(db, TRY_MS);
    mm_db_exec(db, err, "BEGIN IMMEDIATE");
    mm_trigger_move(db, NULL, err);
    mm_stray_end(db, err);
    sqlite3_busy_timeout(db, MM_MOMENT_MS);
}

int mm_moment_begin(sqlite3 *db, struct mm_work *work, struct mm_err *err)
{
    int64_t until = mm_clock_mono_ms() + MM_MOMENT_MS;
    sqlite3_busy_timeout(db, MM_MOMENT_MS);
    for (;;) {
        mm_db_exec(db, err, "BEGIN");
        bool noted = mm_log_any(db, err); /* this reading is the transaction's moment */
        if (err->rc != SQLITE_OK || !noted) {
            return err->rc;
        }
        mm_db_exec(db, err, "COMMIT");
        move(db, err);
        if ((err->rc & 0xff) == SQLITE_BUSY && mm_clock_mono_ms() < until) {
            mm_err_init(err);
        }
        if (!mm_work_go_on(work, err)) {
            return mm_err_prefix(err, "what triggers have noted cannot be moved into the outbox");
        }
    }
}

static void count(sqlite3 *db, struct mm_err *err)
{
    int64_t more = 0;
    sqlite3_busy_timeout(db, TRY_MS);
    mm_db_exec(db, err, "BEGIN IMMEDIATE"); /* without the lock a writer that never rests hides what is to be seen */
    mm_stray_record(db, &more, err);
    mm_stray_end(db, err);
    sqlite3_busy_timeout(db, MM_MOMENT_MS);
}

int mm_moment_captured(sqlite3 *db, struct mm_work *work, struct mm_err *err)
{
    int64_t until = mm_clock_mono_ms() + MM_MOMENT_MS;
    bool stamped = mm_head_capturing(db, err) != MM_CAPTURING;
    while (stamped && mm_work_go_on(work, err)) {
        count(db, err);
        if ((err->rc & 0xff) != SQLITE_BUSY || mm_clock_mono_ms() >= until) {
            break;
        }
        mm_err_init(err);
    }
    if (mm_stray_count(db, err) > 0) {
        mm_err_set(err, SQLITE_ERROR,
                   "commits that nothing captured came while the snapshot was taken: call marmot_reconcile() first");
    }
    return err->rc;
}
