#include "snapshot/diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/gate.h"
#include "base/seen.h"
#include "repl/shadow.h"
#include "snapshot/diff_int.h"
#include "snapshot/moment.h"

static int key_size(const struct mm_table *def)
{
    int n = 0;
    for (int k = 0; k < def->ncol; k++) {
        n += def->col[k].pk != 0;
    }
    return n;
}

int mm_diff_columns(const struct mm_table *def, bool key, struct mm_buf *out, struct mm_err *err)
{
    int n = key ? key_size(def) : def->ncol;
    for (int place = 0; place < n; place++) {
        int at = place;
        for (int k = 0; key && k < def->ncol; k++) {
            at = def->col[k].pk == place + 1 ? k : at;
        }
        char *name = sqlite3_mprintf("%s\"%w\"%s", place > 0 ? ", " : "", def->col[at].name,
                                     key ? mm_column_collate(&def->col[at], def->col[at].coll) : "");
        mm_buf_str(out, name != NULL ? name : "");
        out->rc = name == NULL ? SQLITE_NOMEM : out->rc;
        sqlite3_free(name);
    }
    mm_buf_byte(out, 0);
    return mm_buf_check(out, err, "column names");
}

static sqlite3_stmt *scan(const struct mm_diff_side *c, sqlite3 *db, struct mm_err *err)
{
    struct mm_buf cols;
    struct mm_buf keys;
    sqlite3_stmt *st = NULL;
    mm_buf_init(&cols, 1 << 20);
    mm_buf_init(&keys, 1 << 20);
    mm_diff_columns(c->def, false, &cols, err);
    if (mm_diff_columns(c->def, true, &keys, err) == SQLITE_OK) {
        st = mm_db_prepare(db, err, 0, "SELECT %s FROM main.\"%w\" ORDER BY %s", (const char *)cols.data, c->def->name,
                           (const char *)keys.data);
    }
    mm_buf_free(&cols);
    mm_buf_free(&keys);
    return st;
}

bool mm_diff_next(const struct mm_table *def, sqlite3_stmt *st, struct mm_value *row, struct mm_err *err)
{
    if (!mm_db_step(st, err)) {
        return false;
    }
    for (int k = 0; k < def->ncol; k++) {
        if (!mm_value_column(&row[k], st, k)) {
            mm_err_nomem(err);
        }
    }
    return err->rc == SQLITE_OK;
}

static int compare_keys(const struct mm_diff_side *c, const struct mm_value *a, const struct mm_value *b)
{
    for (int place = 0; place < c->nkey; place++) {
        int k = c->key[place];
        int order = mm_value_compare(&a[k], &b[k], (enum mm_coll)c->def->col[k].coll);
        if (order != 0) {
            return order;
        }
    }
    return 0;
}

bool mm_diff_null_key(const struct mm_diff_side *c, const struct mm_value *row)
{
    for (int place = 0; place < c->nkey; place++) {
        if (row[c->key[place]].type == SQLITE_NULL) {
            return true;
        }
    }
    return false;
}

bool mm_diff_same(const struct mm_table *def, const struct mm_value *a, const struct mm_value *b)
{
    for (int k = 0; k < def->ncol; k++) {
        if (!mm_value_same(&a[k], &b[k])) {
            return false;
        }
    }
    return true;
}

int mm_diff_note(struct mm_diff_side *c, const struct mm_value *row, bool here, bool there, struct mm_err *err)
{
    if (c->put == NULL) {
        return err->rc;
    }
    for (int place = 0; place < c->nkey; place++) {
        if (mm_value_bind(c->put, place + 1, &row[c->key[place]]) != SQLITE_OK) {
            mm_db_fail(c->s->r.db, err, "binding a key");
        }
    }
    sqlite3_bind_int(c->put, c->nkey + 1, here);
    sqlite3_bind_int(c->put, c->nkey + 2, there);
    mm_db_run(c->put, err);
    c->out->here += here && !there;
    c->out->there += there && !here;
    c->out->both += here && there;
    return err->rc;
}

/* Keys that something pending has touched are left out: mm_diff_pending has
** looked at them. */
void mm_diff_merge(struct mm_diff_side *c, struct mm_value *a, struct mm_value *b, struct mm_err *err)
{
    sqlite3_stmt *ours = scan(c, c->live->db, err);
    sqlite3_stmt *theirs = scan(c, c->s->r.db, err);
    bool more_a = mm_diff_next(c->def, ours, a, err);
    bool more_b = mm_diff_next(c->def, theirs, b, err);
    while ((more_a || more_b) && mm_work_go_on(c->work, err)) {
        if ((more_a && mm_diff_null_key(c, a)) || (more_b && mm_diff_null_key(c, b))) {
            c->out->mode = MM_DIFF_ALL; /* rows without identity */
            break;
        }
        int order = !more_b ? -1 : !more_a ? 1 : compare_keys(c, a, b);
        if (more_a && order <= 0 && mm_diff_touched(c, a, err)) {
            more_b = order == 0 ? mm_diff_next(c->def, theirs, b, err) : more_b;
            more_a = mm_diff_next(c->def, ours, a, err);
            continue;
        }
        if (order > 0 && mm_diff_touched(c, b, err)) {
            more_b = mm_diff_next(c->def, theirs, b, err);
            continue;
        }
        c->out->rows += order <= 0;
        if (order != 0 || !mm_diff_same(c->def, a, b)) {
            mm_diff_note(c, order <= 0 ? a : b, order <= 0, order >= 0, err);
        }
        more_a = order <= 0 ? mm_diff_next(c->def, ours, a, err) : more_a;
        more_b = order >= 0 ? mm_diff_next(c->def, theirs, b, err) : more_b;
        c->work->done++;
    }
    mm_db_finalize(ours);
    mm_db_finalize(theirs);
}

int mm_diff_open_put(struct mm_diff_side *c, int number, struct mm_err *err)
{
    struct mm_buf names;
    struct mm_buf marks;
    mm_buf_init(&names, 1 << 20);
    mm_buf_init(&marks, 1 << 20);
    for (int k = 1; k <= c->nkey; k++) {
        mm_buf_printf(&names, "k%d, ", k);
        mm_buf_printf(&marks, "?%d, ", k);
    }
    mm_buf_byte(&names, 0);
    mm_buf_byte(&marks, 0);
    if (mm_buf_check(&names, err, "a statement") == SQLITE_OK &&
        mm_buf_check(&marks, err, "a statement") == SQLITE_OK) {
        mm_db_exec(c->s->r.db, err, "DROP TABLE IF EXISTS main.__marmot__diff_%d", number);
        mm_db_exec(c->s->r.db, err, "CREATE TABLE main.__marmot__diff_%d(%shere, there)", number, names.data);
        c->put = mm_db_prepare(c->s->r.db, err, 0, "INSERT INTO main.__marmot__diff_%d VALUES (%s?%d, ?%d)", number,
                               marks.data, c->nkey + 1, c->nkey + 2);
    }
    mm_buf_free(&names);
    mm_buf_free(&marks);
    return err->rc;
}

bool mm_diff_wide(const struct mm_diff_side *c, struct mm_err *err)
{
    return mm_db_int(c->live->db, err, 0, "SELECT encoding <> 'UTF-8' FROM pragma_encoding") != 0;
}

/* Both sides have the table, with the same definition. */
static void compare_tables(struct mm_diff_side *c, int number, struct mm_err *err)
{
    size_t ncol = (size_t)c->def->ncol;
    struct mm_value *rows = calloc(2 * ncol, sizeof *rows);
    if (rows == NULL) {
        mm_err_nomem(err);
    }
    bool keyless = c->def->keyless || c->nkey == 0 || mm_diff_wide(c, err);
    c->out->mode = keyless ? MM_DIFF_ALL : MM_DIFF_KEYS;
    bool any = mm_db_int(c->live->db, err, 0, "SELECT 1 FROM main.\"%w\" LIMIT 1", c->def->name) != 0;
    bool pending = c->out->pending = mm_diff_any_pending(c, err);
    if (!any && !pending) {
        c->out->mode = MM_DIFF_ALL; /* into an empty table as a whole */
        c->out->there = mm_db_int(c->s->r.db, err, 0, "SELECT 1 FROM main.\"%w\" LIMIT 1", c->def->name);
    } else if (keyless) {
        mm_diff_sums(c, err);
    } else if (err->rc == SQLITE_OK) {
        mm_diff_open_put(c, number, err);
        mm_diff_pending(c, err);
        mm_diff_merge(c, rows, rows + ncol, err);
        if (c->out->mode == MM_DIFF_ALL) { /* a NULL among the keys */
            c->out->here = c->out->there = c->out->both = 0;
            mm_diff_sums(c, err);
        }
    }
    if (c->out->here == 0 && c->out->there == 0 && c->out->both == 0) {
        c->out->mode = MM_DIFF_SAME;
    }
    free(rows);
}

static void compare(struct mm_diff_side *c, int number, bool visible, struct mm_err *err)
{
    mm_buf_init(&c->scratch, (size_t)1 << 30);
    c->key = calloc((size_t)c->def->ncol, sizeof *c->key);
    if (c->key == NULL) {
        mm_err_nomem(err);
        return;
    }
    for (int k = 0; k < c->def->ncol; k++) {
        if (c->def->col[k].pk != 0) {
            c->key[c->def->col[k].pk - 1] = k;
            c->nkey++;
        }
    }
    if (visible) {
        mm_diff_visible(c, number, err);
    } else {
        compare_tables(c, number, err);
    }
    mm_db_finalize(c->put);
    mm_seen_free(&c->touched);
    mm_buf_free(&c->scratch);
    free(c->key);
}

static void one_table(struct mm_diff *d, int number, const struct mm_diff_options *o, struct mm_scratch *s,
                      struct mm_repl *live, struct mm_err *err)
{
    struct mm_diff_table *out = &d->table[number];
    struct mm_target *ours = mm_targets_get(live->targets, out->name, err);
    struct mm_target *theirs = mm_targets_get(s->r.targets, out->name, err);
    if (ours == NULL || theirs == NULL) {
        return;
    }
    out->joins = mm_watch_needs_copy(ours->state, ours->joined_seq) && ours->def != NULL;
    out->before = ours->joined_seq == MM_SEQ_BEFORE;
    out->empty = ours->joined_seq == MM_SEQ_EMPTY;
    out->shape = ours->def != NULL ? mm_table_hash(ours->def) : 0;
    if (o->tables && !out->joins) {
        return;
    }
    out->captured = mm_watch_captures(ours->state);
    out->unknown = ours->state == MM_WATCH_NONE;
    if (theirs->def == NULL || theirs->state != MM_WATCHED) {
        /* What the log tells of one that was altered since fits no older copy, and this node has nothing to alter. */
        out->altered = theirs->state == MM_STALE && theirs->def != NULL && ours->def == NULL;
        out->waits = out->altered || theirs->state != MM_STALE || theirs->joined_seq == 0;
        char *why = out->altered ? NULL : mm_watch_why(s->r.db, out->name, err);
        out->mode = MM_DIFF_ABSENT;
        (void)snprintf(out->why, sizeof out->why, "%s",
                       why != NULL    ? why
                       : out->altered ? "it was altered since the newest snapshot: create it as on the other nodes"
                                      : "no snapshot holds its rows yet: it joins with the next one");
        sqlite3_free(why);
    } else if (o->visible && ours->state != MM_WATCHED) {
        out->mode = MM_DIFF_ABSENT;
        (void)snprintf(out->why, sizeof out->why, "it is %s here", mm_watch_state_name(ours->state));
    } else if (ours->def == NULL) {
        out->mode = MM_DIFF_CREATE;
        out->there = 1;
    } else if (!ours->def->supported || mm_table_hash(ours->def) != mm_table_hash(theirs->def)) {
        out->mode = MM_DIFF_OTHER;
        (void)snprintf(out->why, sizeof out->why,
                       "its columns, types, key or UNIQUE sets differ from the cluster's table: make them the same");
    } else {
        struct mm_diff_side c = { .s = s, .live = live, .t = ours, .def = ours->def, .out = out, .work = o->work };
        compare(&c, number, o->visible, err);
    }
}

/* How much there is to write of tables that are taken as a whole: their share of the rows. */
static void weigh(struct mm_diff *d, struct mm_scratch *s, struct mm_err *err)
{
    int64_t all = 0;
    bool any = false;
    for (int k = 0; k < d->n; k++) {
        struct mm_diff_table *t = &d->table[k];
        any = any || t->mode == MM_DIFF_ALL || t->mode == MM_DIFF_CREATE;
    }
    for (int k = 0; k < d->n && any && err->rc == SQLITE_OK; k++) {
        struct mm_diff_table *t = &d->table[k];
        const struct mm_target *theirs = mm_targets_get(s->r.targets, t->name, err);
        bool there = theirs != NULL && theirs->def != NULL; /* of tables that were not looked at some are not */
        t->bytes = there ? mm_db_int(s->r.db, err, 0, "SELECT count(*) FROM main.\"%w\"", t->name) : 0;
        all += t->bytes;
    }
    int64_t size = mm_db_int(s->r.db, err, 0, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
    for (int k = 0; k < d->n && all > 0; k++) {
        d->table[k].bytes = (int64_t)((double)size / (double)all * (double)d->table[k].bytes);
    }
}

/* A log that has lost its end and was filled again has other messages under the numbers
** that the node has folded: with those in the copy, the node's rows would look like rows
** that were not captured. */
static void check_same_place(const struct mm_repl *copy, const struct mm_repl *live, struct mm_err *err)
{
    for (int k = 0; k < live->nshard && err->rc == SQLITE_OK; k++) {
        const struct mm_position *a = &copy->shard[k].pos;
        const struct mm_position *b = &live->shard[k].pos;
        if (a->seq != b->seq || memcmp(a->digest, b->digest, sizeof a->digest) != 0 ||
            (a->stamp != b->stamp && a->stamp != 0 && b->stamp != 0)) {
            mm_err_set(err, SQLITE_NOTFOUND,
                       "what this node has folded as message %lld of shard %d is another one in the log now",
                       (long long)b->seq, k + 1);
        }
    }
}

int mm_diff_run(struct mm_diff *d, const struct mm_diff_options *o, struct mm_scratch *s, struct mm_err *err)
{
    struct mm_repl live = { 0 };
    int n = 0;
    mm_gate_enter();
    mm_work_step(o->work, "comparing the tables", 0);
    live.db = mm_repl_connect(o->path, o->vfs, 0, err);
    if (live.db != NULL) {
        mm_work_watch(o->work, live.db);
        mm_moment_begin(live.db, o->work, err);
        mm_repl_open(&live, &o->repl, err);
        d->last = err->rc == SQLITE_OK ? mm_outbox_last(live.outbox, err) : 0;
        d->schema = mm_db_int(live.db, err, 0, "PRAGMA schema_version");
        mm_db_exec(s->r.db, err, "BEGIN");
        if (o->visible || o->tables) {
            check_same_place(&s->r, &live, err);
        }
        if (o->visible) {
            mm_shadow_follow(&s->r, &live, d->upto, 0, err);
        }
        struct mm_watch_entry *list = mm_watchlist_all(s->r.db, &n, err);
        d->table = calloc((size_t)n + 1, sizeof *d->table);
        for (int k = 0; d->table != NULL && k < n && err->rc == SQLITE_OK; k++) {
            d->table[k].name = strdup(list[k].name);
            d->n = k + 1;
            if (d->table[k].name == NULL) {
                mm_err_nomem(err);
                break;
            }
            one_table(d, k, o, s, &live, err);
        }
        weigh(d, s, err);
        mm_watch_list_free(list, n);
        mm_db_exec(s->r.db, err, "COMMIT");
        if (!sqlite3_get_autocommit(s->r.db)) {
            sqlite3_exec(s->r.db, "ROLLBACK", NULL, NULL, NULL);
        }
        sqlite3_exec(live.db, "COMMIT", NULL, NULL, NULL);
    }
    mm_repl_close(&live);
    mm_gate_leave();
    return err->rc;
}

void mm_diff_free(struct mm_diff *d)
{
    for (int k = 0; k < d->n; k++) {
        free(d->table[k].name);
    }
    free(d->table);
    *d = (struct mm_diff){ 0 };
}
