#include "repl/commit.h"

#include "base/clock.h"
#include "base/db.h"
#include "store/stray.h"

int mm_commit_begin(struct mm_repl *r, struct mm_err *err)
{
    for (int k = 0; k < r->nshard; k++) {
        struct mm_shard *s = &r->shard[k];
        s->before = s->pos;
        s->blocked_before = s->blocked_seq;
    }
    return mm_db_exec(r->db, err, "BEGIN IMMEDIATE");
}

int mm_commit_echoed(struct mm_repl *r, int64_t echoed, struct mm_err *err)
{
    if (echoed > r->echoed_written && err->rc == SQLITE_OK) {
        mm_outbox_echoed(r->outbox, echoed, mm_clock_wall_ms(), err);
        for (int k = 0; k < r->nshard; k++) {
            mm_outbox_undo_drop(r->outbox, echoed, r->shard[k].n, err);
        }
    }
    return err->rc;
}

int mm_commit_stands(struct mm_repl *r, struct mm_err *err)
{
    if (err->rc == SQLITE_OK && sqlite3_get_autocommit(r->db)) {
        mm_err_set(err, SQLITE_ABORT, "SQLite has rolled the transaction back");
    }
    return err->rc;
}

/* Positions, origins, echo watermark. */
static void write_all(struct mm_repl *r, int64_t echoed, struct mm_err *err)
{
    for (int k = 0; k < r->nshard && err->rc == SQLITE_OK; k++) {
        struct mm_shard *s = &r->shard[k];
        if (s->dirty) {
            mm_position_set(r->db, &s->pos, err);
            mm_accept_flush(s->accept, err);
        }
    }
    mm_commit_echoed(r, echoed, err);
}

static void written(struct mm_repl *r, int64_t echoed)
{
    for (int k = 0; k < r->nshard; k++) {
        r->shard[k].dirty = false;
    }
    r->echoed_written = echoed > r->echoed_written ? echoed : r->echoed_written;
}

/* Nothing of it happened. SQLite may have rolled back by itself, on a full disk for one. */
static void take_back(struct mm_repl *r)
{
    if (!sqlite3_get_autocommit(r->db)) {
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    }
    for (int k = 0; k < r->nshard; k++) {
        struct mm_shard *s = &r->shard[k];
        s->pos = s->before;
        s->blocked_seq = s->blocked_before;
    }
    r->reload_needed = true;
}

static int end(struct mm_repl *r, const struct mm_commit_trim *trim, bool *more, struct mm_err *err)
{
    bool moved = false;
    mm_commit_stands(r, err);
    mm_repl_settle_move(r, &moved, err);
    int64_t echoed = mm_repl_echoed(r);
    write_all(r, echoed, err);
    if (trim != NULL) {
        mm_outbox_trim(r->outbox, mm_clock_wall_ms(), trim->keep_ms, trim->keep_bytes, trim->rows, more, err);
    }
    mm_stray_commit(r->db, err);
    if (err->rc != SQLITE_OK) {
        take_back(r);
        return err->rc;
    }
    written(r, echoed);
    r->reload_needed = r->reload_needed || moved;
    return SQLITE_OK;
}

int mm_commit_end(struct mm_repl *r, struct mm_err *err)
{
    return end(r, NULL, NULL, err);
}

enum mm_commit_stored mm_commit_store(struct mm_repl *r, const struct mm_commit_trim *trim, bool *more,
                                      struct mm_err *err)
{
    *more = false;
    if (r->reload_needed) {
        return MM_STORED_NOTHING;
    }
    bool over = r->kept_bytes > trim->keep_bytes;
    bool due = trim->look && mm_outbox_trim_due(r->outbox, mm_clock_wall_ms(), trim->keep_ms, err);
    bool settle = r->move_due != 0 && mm_repl_caught_up(r);
    if (err->rc == SQLITE_OK && !mm_repl_dirty(r) && !due && !over && !settle) {
        return MM_STORED_NOTHING;
    }
    struct mm_commit_trim what = *trim;
    what.keep_bytes = over ? trim->keep_bytes : -1;
    if (mm_commit_begin(r, err) == SQLITE_OK) {
        end(r, trim->look || over ? &what : NULL, more, err);
    }
    if (err->rc != SQLITE_OK) {
        return MM_STORED_NOT;
    }
    r->kept_bytes = over && !*more ? 0 : r->kept_bytes;
    return MM_STORED;
}
