#include "repl/foreign.h"
#include "repl/target_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "store/policy.h"

enum { BUCKETS = 256 };

struct mm_targets {
    sqlite3 *db;
    int shards;
    int64_t cookie;
    int foreign; /* -1 = not asked yet */
    bool moved;
    struct mm_was was;
    struct mm_target *bucket[BUCKETS];
};

struct mm_targets *mm_targets_open(sqlite3 *db, int shards, struct mm_err *err)
{
    struct mm_targets *s = calloc(1, sizeof *s);
    if (s == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    s->db = db;
    s->shards = shards;
    s->cookie = -1;
    s->foreign = -1;
    mm_target_held_function(db, err);
    return s;
}

struct mm_was *mm_targets_was(struct mm_targets *s)
{
    return &s->was;
}

void mm_targets_moved(struct mm_targets *s)
{
    s->moved = true;
}

bool mm_targets_have_moved(struct mm_targets *s)
{
    bool moved = s != NULL && s->moved;
    if (moved) {
        s->moved = false;
    }
    return moved;
}

static void target_free(struct mm_target *t)
{
    mm_db_finalize(t->select);
    mm_db_finalize(t->remove);
    mm_db_finalize(t->insert);
    mm_db_finalize(t->update);
    mm_db_finalize(t->take[0]);
    mm_db_finalize(t->take[1]);
    mm_db_finalize(t->add);
    mm_db_finalize(t->find);
    mm_db_finalize(t->by_rowid);
    mm_db_finalize(t->evict);
    mm_target_held_free(t);
    mm_foreign_free(t->foreign);
    mm_target_many_end(t);
    mm_arena_free(&t->room);
    mm_table_free(t->def);
    sqlite3_free(t->first_name);
    free(t->policy);
    free(t->name);
    free(t);
}

void mm_targets_forget(struct mm_targets *s)
{
    s->foreign = -1;
    for (int k = 0; k < BUCKETS; k++) {
        while (s->bucket[k] != NULL) {
            struct mm_target *t = s->bucket[k];
            s->bucket[k] = t->next;
            target_free(t);
        }
    }
}

void mm_targets_close(struct mm_targets *s)
{
    if (s != NULL) {
        mm_targets_forget(s);
        mm_was_free(&s->was);
        free(s);
    }
}

bool mm_targets_refresh(struct mm_targets *s, struct mm_err *err)
{
    int64_t cookie = mm_db_int(s->db, err, 0, "PRAGMA main.schema_version");
    if (err->rc != SQLITE_OK || cookie == s->cookie) {
        return false;
    }
    s->cookie = cookie;
    mm_targets_forget(s);
    return true;
}

static void load_policies(sqlite3 *db, struct mm_target *t, struct mm_err *err)
{
    if (t->def == NULL || err->rc != SQLITE_OK || !mm_policy_any(db, t->name, err)) {
        return;
    }
    t->policy = calloc((size_t)t->def->ncol, sizeof *t->policy);
    if (t->policy == NULL) {
        mm_err_nomem(err);
        return;
    }
    for (int k = 0; k < t->def->ncol; k++) {
        t->policy[k] = (uint8_t)mm_policy_get(db, t->name, t->def->col[k].name, err);
    }
}

/* A table whose indexes or columns need functions that only the application's
** connections have cannot be written by ours. */
static void probe(sqlite3 *db, struct mm_target *t, struct mm_err *err)
{
    struct mm_buf b;
    struct mm_err bad;
    if (t->def == NULL || !t->def->supported || err->rc != SQLITE_OK) {
        return;
    }
    mm_err_init(&bad);
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    mm_target_insert(&b, t->def, NULL);
    t->insert = mm_target_prepare(db, &b, SQLITE_PREPARE_PERSISTENT, &bad);
    if (bad.rc == SQLITE_ERROR) {
        static const char form[] = "replication cannot write it (%s): functions, collations and modules of the "
                                   "application are missing on its connection, use built-in ones";
        size_t n = sizeof form + sizeof bad.msg;
        t->def->supported = false;
        t->def->why = malloc(n);
        if (t->def->why == NULL) {
            mm_err_nomem(err);
        } else {
            (void)snprintf(t->def->why, n, form, sqlite3_errmsg(db));
        }
    } else if (bad.rc != SQLITE_OK) {
        *err = bad;
    }
}

struct mm_target *mm_targets_get(struct mm_targets *s, const char *table, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    struct mm_target **head = &s->bucket[(unsigned)mm_watch_shard(table, BUCKETS) - 1];
    for (struct mm_target *t = *head; t != NULL; t = t->next) {
        if (sqlite3_stricmp(t->name, table) == 0) {
            return t;
        }
    }
    struct mm_target *t = calloc(1, sizeof *t);
    if (t == NULL || (t->name = strdup(table)) == NULL) {
        free(t);
        mm_err_nomem(err);
        return NULL;
    }
    t->was = &s->was;
    t->state = mm_watch_get(s->db, table, &t->first_name, err);
    t->shard = mm_watch_shard(t->first_name != NULL ? t->first_name : table, s->shards);
    if (!mm_table_internal(table)) {
        t->def = mm_table_load(s->db, table, err);
    }
    if (t->state != MM_WATCHED && t->state != MM_WATCH_NONE) {
        t->joined_seq = mm_watch_joined_seq(s->db, table, err);
    }
    load_policies(s->db, t, err);
    if (mm_watch_captures(t->state) || t->state == MM_WATCH_NONE) {
        probe(s->db, t, err);
    }
    if (err->rc != SQLITE_OK) {
        target_free(t);
        return NULL;
    }
    t->next = *head;
    *head = t;
    return t;
}

int mm_targets_shard(struct mm_targets *s, const char *table, struct mm_err *err)
{
    struct mm_target *t = mm_targets_get(s, table, err);
    return t != NULL ? t->shard : 1;
}

bool mm_targets_foreign(struct mm_targets *s, struct mm_err *err)
{
    if (s->foreign < 0 && err->rc == SQLITE_OK) {
        int64_t any = mm_db_int(s->db, err, 0,
                                "SELECT 1 FROM main.sqlite_schema AS m, pragma_foreign_key_list(m.name, 'main')"
                                " WHERE m.type = 'table' LIMIT 1");
        s->foreign = err->rc == SQLITE_OK ? any != 0 : -1;
    }
    return s->foreign > 0;
}

int mm_target_column(const struct mm_target *t, const char *column)
{
    for (int k = 0; k < t->def->ncol; k++) {
        if (sqlite3_stricmp(t->def->col[k].name, column) == 0) {
            return k;
        }
    }
    return -1;
}

enum mm_coll mm_targets_coll(void *targets, const char *table, const char *column, struct mm_err *err)
{
    struct mm_target *t = mm_targets_get(targets, table, err);
    int k = t != NULL && t->def != NULL ? mm_target_column(t, column) : -1;
    return k >= 0 ? (enum mm_coll)t->def->col[k].coll : MM_COLL_BINARY;
}

void mm_target_name(struct mm_buf *b, const char *before, const char *name)
{
    char *quoted = sqlite3_mprintf("%s\"%w\"", before, name);
    if (quoted == NULL) {
        b->rc = SQLITE_NOMEM;
        return;
    }
    mm_buf_str(b, quoted);
    sqlite3_free(quoted);
}

/* " WHERE k1 = ?1 AND k2 = ?2": the key in its own order. */
static void add_where(struct mm_buf *b, const struct mm_table *def)
{
    int place = 1;
    for (; place <= def->ncol; place++) {
        int k = 0;
        while (k < def->ncol && def->col[k].pk != place) {
            k++;
        }
        if (k == def->ncol) {
            break;
        }
        mm_target_name(b, place == 1 ? " WHERE " : " AND ", def->col[k].name);
        mm_buf_printf(b, " = ?%d", place);
        if (!def->integer_key) { /* the key's index may have another one than the column */
            mm_buf_printf(b, " COLLATE %s", mm_coll_name((enum mm_coll)def->col[k].coll));
        }
    }
}

static int key_columns(const struct mm_table *def)
{
    int n = 0;
    for (int k = 0; k < def->ncol; k++) {
        n += def->col[k].pk != 0;
    }
    return n;
}

sqlite3_stmt *mm_target_prepare(sqlite3 *db, struct mm_buf *b, unsigned flags, struct mm_err *err)
{
    sqlite3_stmt *st = NULL;
    mm_buf_byte(b, 0);
    if (mm_buf_check(b, err, "a statement") == SQLITE_OK) {
        st = mm_db_prepare(db, err, flags, "%s", (const char *)b->data);
    }
    mm_buf_free(b);
    return st;
}

static sqlite3_stmt *make_select(const struct mm_table *def, bool by_key, sqlite3 *db, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    for (int k = 0; k < def->ncol; k++) {
        mm_target_name(&b, k == 0 ? "SELECT " : ", ", def->col[k].name);
    }
    mm_target_name(&b, " FROM main.", def->name);
    if (by_key) {
        add_where(&b, def);
    }
    return mm_target_prepare(db, &b, by_key ? SQLITE_PREPARE_PERSISTENT : 0, err);
}

sqlite3_stmt *mm_target_scan(const struct mm_target *t, sqlite3 *db, struct mm_err *err)
{
    return err->rc == SQLITE_OK ? make_select(t->def, false, db, err) : NULL;
}

int mm_targets_each(struct mm_targets *s, int (*f)(void *arg, struct mm_target *t, struct mm_err *err), void *arg,
                    struct mm_err *err)
{
    int n = 0;
    struct mm_watch_entry *list = err->rc == SQLITE_OK ? mm_watch_list(s->db, &n, err) : NULL;
    for (int k = 0; k < n && err->rc == SQLITE_OK; k++) {
        struct mm_target *t = mm_targets_get(s, list[k].name, err);
        if (t != NULL) {
            f(arg, t, err);
        }
    }
    mm_watch_list_free(list, n);
    return err->rc;
}

static sqlite3_stmt *make_remove(const struct mm_table *def, sqlite3 *db, struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    mm_target_name(&b, "DELETE FROM main.", def->name);
    add_where(&b, def);
    return mm_target_prepare(db, &b, SQLITE_PREPARE_PERSISTENT, err);
}

static sqlite3_stmt *make_update(const struct mm_table *def, sqlite3 *db, struct mm_err *err)
{
    struct mm_buf b;
    int keys = key_columns(def);
    mm_buf_init(&b, MM_TARGET_SQL_MAX);
    mm_target_name(&b, "UPDATE OR ABORT main.", def->name);
    for (int k = 0; k < def->ncol; k++) {
        mm_target_name(&b, k == 0 ? " SET " : ", ", def->col[k].name);
        mm_buf_printf(&b, " = ?%d", keys + 1 + k);
    }
    add_where(&b, def);
    return mm_target_prepare(db, &b, SQLITE_PREPARE_PERSISTENT, err);
}

/* OR ABORT is above what the table says (ON CONFLICT ROLLBACK, IGNORE, ..), which is for its own
** application: a row that it does not take must be told, and must not end the transaction. */
void mm_target_insert(struct mm_buf *b, const struct mm_table *def, const struct mm_value *image)
{
    mm_target_name(b, "INSERT OR ABORT INTO main.", def->name);
    const char *sep = "(";
    for (int k = 0; k < def->ncol; k++) {
        if (image == NULL || image[k].type != MM_UNDEF) {
            mm_target_name(b, sep, def->col[k].name);
            sep = ", ";
        }
    }
    sep = ") VALUES (";
    for (int k = 0; k < def->ncol; k++) {
        if (image == NULL || image[k].type != MM_UNDEF) {
            mm_buf_printf(b, "%s?%d", sep, k + 1);
            sep = ", ";
        }
    }
    mm_buf_str(b, ")");
}

void mm_target_bind(sqlite3 *db, sqlite3_stmt *st, int param, const struct mm_value *v, struct mm_err *err)
{
    if (st != NULL && err->rc == SQLITE_OK && mm_value_bind(st, param, v) != SQLITE_OK) {
        mm_db_fail(db, err, "binding a value");
    }
}

void mm_target_bind_row(const struct mm_target *t, sqlite3 *db, sqlite3_stmt *st, const struct mm_value *image,
                        struct mm_err *err)
{
    for (int k = 0; k < t->def->ncol; k++) {
        if (image[k].type != MM_UNDEF) {
            mm_target_bind(db, st, k + 1, &image[k], err);
        }
    }
}

static void bind_key(const struct mm_target *t, sqlite3 *db, sqlite3_stmt *st, const struct mm_value *row,
                     struct mm_err *err)
{
    for (int k = 0; k < t->def->ncol; k++) {
        if (t->def->col[k].pk != 0) {
            mm_target_bind(db, st, t->def->col[k].pk, &row[k], err);
        }
    }
}

int mm_target_read(struct mm_target *t, sqlite3 *db, const struct mm_value *row, struct mm_value *out,
                   struct mm_err *err)
{
    if (t->select == NULL && err->rc == SQLITE_OK) {
        t->select = make_select(t->def, true, db, err);
    }
    bind_key(t, db, t->select, row, err);
    if (!mm_db_step(t->select, err)) {
        if (t->select != NULL) {
            sqlite3_reset(t->select);
        }
        return 0;
    }
    for (int k = 0; k < t->def->ncol; k++) {
        if (!mm_value_column(&out[k], t->select, k)) {
            mm_err_nomem(err);
        }
    }
    return err->rc == SQLITE_OK;
}

void mm_target_done(struct mm_target *t)
{
    if (t->select != NULL) {
        sqlite3_reset(t->select);
        sqlite3_clear_bindings(t->select);
    }
}

int mm_target_remove(struct mm_target *t, sqlite3 *db, const struct mm_value *row, struct mm_err *err)
{
    if (t->remove == NULL && err->rc == SQLITE_OK) {
        t->remove = make_remove(t->def, db, err);
    }
    bind_key(t, db, t->remove, row, err);
    mm_db_run(t->remove, err);
    if (t->remove != NULL) {
        sqlite3_clear_bindings(t->remove);
    }
    return err->rc;
}

bool mm_target_full(const struct mm_target *t, const struct mm_value *image)
{
    bool full = true;
    for (int k = 0; k < t->def->ncol; k++) {
        full = full && image[k].type != MM_UNDEF;
    }
    return full;
}

int mm_target_run_new(struct mm_target *t, sqlite3 *db, sqlite3_stmt **kept, const char *behind,
                      const struct mm_value *image, struct mm_err *err)
{
    bool full = mm_target_full(t, image);
    sqlite3_stmt *st = full ? *kept : NULL;
    if (st == NULL && err->rc == SQLITE_OK) {
        struct mm_buf b;
        mm_buf_init(&b, MM_TARGET_SQL_MAX);
        mm_target_insert(&b, t->def, full ? NULL : image);
        mm_buf_str(&b, behind);
        st = mm_target_prepare(db, &b, full ? SQLITE_PREPARE_PERSISTENT : 0, err);
        *kept = full ? st : *kept;
    }
    mm_target_bind_row(t, db, st, image, err);
    mm_db_run(st, err);
    int written = err->rc == SQLITE_OK ? sqlite3_changes(db) : 0;
    if (full && st != NULL) {
        sqlite3_clear_bindings(st);
    } else {
        mm_db_finalize(st);
    }
    return written;
}

int mm_target_write(struct mm_target *t, sqlite3 *db, const struct mm_value *key, const struct mm_value *image,
                    bool exists, struct mm_err *err)
{
    if (!exists) {
        mm_target_run_new(t, db, &t->insert, "", image, err);
        return err->rc;
    }
    if (t->update == NULL && err->rc == SQLITE_OK) {
        t->update = make_update(t->def, db, err);
    }
    int keys = key_columns(t->def);
    bind_key(t, db, t->update, key, err);
    for (int k = 0; k < t->def->ncol; k++) {
        mm_target_bind(db, t->update, keys + 1 + k, &image[k], err);
    }
    mm_db_run(t->update, err);
    if (t->update != NULL) {
        sqlite3_clear_bindings(t->update);
    }
    return err->rc;
}
