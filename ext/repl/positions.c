#include "repl/positions.h"

#include "base/db.h"
#include "repl/apply.h"
#include "repl/join.h"

static const char left_out[] =
    "replicate is false in this node's configuration: changes of other nodes are not applied "
    "here; set to true again, it joins with the cluster's content";
static const char own[] =
    "replicate is false in this node's configuration, and its rows are not the cluster's: what is "
    "written to it stays here; set to true again, it joins as any table that is watched later";

struct look {
    struct mm_repl *r;
    int found;
};

/* Rows that nobody has sent would be lost with a copy. */
static bool any_of_its_own(struct mm_repl *r, struct mm_target *t, struct mm_err *err)
{
    struct mm_msg_table base;
    return mm_join_base(r, t, &base, err) != SQLITE_OK || base.rows > 0;
}

/* A table that waits for its own watch message gets its place by it first. */
static bool due(struct mm_repl *r, const struct mm_target *t, struct mm_err *err)
{
    return t->state == MM_WATCHED ||
           (t->state == MM_JOINING && (t->joined_seq != MM_SEQ_NEVER || mm_watchlist_seq(r->db, t->name, err) > 0));
}

static int look_due(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    l->found += due(l->r, t, err);
    return err->rc;
}

static int settle(void *arg, struct mm_target *t, struct mm_err *err)
{
    struct look *l = arg;
    if (t->def != NULL && due(l->r, t, err) && err->rc == SQLITE_OK) {
        bool before = t->state == MM_WATCHED || t->joined_seq > 0 || t->joined_seq == MM_SEQ_BEFORE ||
                      !any_of_its_own(l->r, t, err);
        t->state = MM_STALE;
        t->joined_seq = before ? MM_SEQ_BEFORE : MM_SEQ_COPY;
        mm_watch_set(l->r->db, t->name, t->state, before ? left_out : own, err);
        mm_watch_set_joined_seq(l->r->db, t->name, t->joined_seq, err);
        l->r->tables_changed = true;
    }
    return err->rc;
}

bool mm_positions_due(struct mm_repl *r, struct mm_err *err)
{
    struct look l = { r, 0 };
    mm_targets_each(r->targets, look_due, &l, err);
    return err->rc == SQLITE_OK && l.found > 0;
}

int mm_positions_settle(struct mm_repl *r, struct mm_err *err)
{
    struct look l = { r, 0 };
    return mm_targets_each(r->targets, settle, &l, err);
}

int mm_positions_fold(struct mm_shard *s, const struct mm_txn *txn, bool echo, struct mm_err *err)
{
    for (size_t k = 0; k < txn->ntab && !echo; k++) {
        s->skipped += (int64_t)txn->tab[k].nrow;
    }
    return echo ? mm_pending_stay_echoed(s->pending, true, err) : err->rc;
}

int mm_positions_install(sqlite3 *db, const char *table, bool none_of_its_own, struct mm_err *err)
{
    enum mm_watch_state state = mm_watch_get(db, table, NULL, err);
    int64_t seq = mm_watch_joined_seq(db, table, err);
    if (!mm_watch_captures(state) || (state == MM_STALE && seq == MM_SEQ_NEVER)) {
        return err->rc;
    }
    bool before = state == MM_WATCHED || seq > 0 || seq == MM_SEQ_BEFORE || none_of_its_own;
    mm_watch_set(db, table, MM_STALE, before ? left_out : own, err);
    return mm_watch_set_joined_seq(db, table, before ? MM_SEQ_BEFORE : MM_SEQ_COPY, err);
}
