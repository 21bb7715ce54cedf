/* From the log that triggers wrote to changes: keys that were touched, and the
** rows as they are now. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "base/log.h"
#include "capture/hook_int.h"
#include "capture/trigger.h"
#include "store/change.h"
#include "store/log.h"
#include "store/outbox.h"
#include "store/stray.h"
#include "store/watch.h"

enum { COLUMNS_BYTES = 1 << 20, ROW_MAX = 1 << 30, REGROUP_AT = 16 << 10 };

/* What a number means today. */
struct source {
    struct source *next;
    int64_t id;
    struct mm_table *t; /* NULL: its rows are left out */
    uint8_t *pk;
    int nimage;
    int *from;  /* place in the image of each column of t, -1 = none */
    int *place; /* in t, of the key's columns in their order */
    int nkey;
    sqlite3_stmt *now;
};

struct take {
    sqlite3 *db;
    struct mm_err *err;
    struct mm_spill *data, *names;
    struct source *list;
    const struct source *group; /* whose header was written last */
    struct mm_arena arena;
    bool lost;    /* rows whose triggers or table are gone */
    bool stopped; /* the log was full: its last entry may lack its end */
};

/* One name of a list; *p moves behind it. */
static void read_name(const char **p, struct mm_buf *cols)
{
    const char *q = *p;
    bool quoted = *q == '"';
    for (q += quoted; *q != '\0' && (quoted ? *q != '"' || q[1] == '"' : *q != ',' && *q != ' '); q++) {
        q += quoted && *q == '"';
        mm_buf_byte(cols, (uint8_t)*q);
    }
    mm_buf_byte(cols, 0);
    *p = q + (quoted && *q == '"');
}

/* The column names in the trigger's own text: behind each "SELECT <number>,<kind>,"
** that is no part of a name. ALTER TABLE rewrites them. */
static void read_names(const char *text, int64_t id, struct mm_buf *cols)
{
    char mark[64];
    sqlite3_snprintf(sizeof mark, mark, " SELECT %lld,", (long long)id);
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"') {
            p += strcspn(p + 1, "\"") + 1;
            if (*p == '\0') {
                break;
            }
        } else if (strncmp(p, mark, strlen(mark)) == 0) {
            p += strlen(mark);
            p += strspn(p, "0123456789");
            while (*p == ',' && p[1] != '(') {
                p++;
                read_name(&p, cols);
            }
            p--;
        }
    }
}

static bool names_in_text(sqlite3 *db, int64_t id, char **table, struct mm_buf *cols, struct mm_err *err)
{
    char *text =
        mm_db_text(db, err, "SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND name = '__marmot__%lld_bd'",
                   (long long)id);
    if (text == NULL) {
        return false;
    }
    *table = mm_trigger_table(db, id, err);
    read_names(text, id, cols);
    sqlite3_free(text);
    bool known = mm_buf_check(cols, err, "the columns of a trigger") == SQLITE_OK && *table != NULL && cols->len > 0;
    if (!known) {
        sqlite3_free(*table);
        *table = NULL;
    }
    return known;
}

static int image_place(const struct mm_buf *cols, const char *name)
{
    int at = 0;
    for (size_t k = 0; k < cols->len; k += strlen((const char *)cols->data + k) + 1, at++) {
        if (sqlite3_stricmp((const char *)cols->data + k, name) == 0) {
            return at;
        }
    }
    return -1;
}

static void map_columns(struct source *s, const struct mm_buf *cols, struct mm_err *err)
{
    size_t n = (size_t)s->t->ncol + 1;
    s->pk = calloc(n, 1);
    s->from = calloc(n, sizeof *s->from);
    s->place = calloc(n, sizeof *s->place);
    if (s->pk == NULL || s->from == NULL || s->place == NULL) {
        mm_err_nomem(err);
        return;
    }
    for (size_t k = 0; k < cols->len; k++) {
        s->nimage += cols->data[k] == 0;
    }
    for (int k = 0; k < s->t->ncol; k++) {
        s->pk[k] = s->t->col[k].pk;
        s->from[k] = image_place(cols, s->t->col[k].name);
        if (s->pk[k] != 0) {
            s->place[s->pk[k] - 1] = k;
            s->nkey++;
        }
    }
}

static void source_free(struct source *s)
{
    mm_db_finalize(s->now);
    mm_table_free(s->t);
    free(s->pk);
    free(s->from);
    free(s->place);
    free(s);
}

static struct source *source_of(struct take *x, int64_t id)
{
    for (struct source *s = x->list; s != NULL; s = s->next) {
        if (s->id == id) {
            return s;
        }
    }
    struct source *s = calloc(1, sizeof *s);
    if (s == NULL) {
        mm_err_nomem(x->err);
        return NULL;
    }
    s->id = id;
    s->next = x->list;
    x->list = s;
    char *table = NULL;
    struct mm_buf cols;
    mm_buf_init(&cols, COLUMNS_BYTES);
    if (names_in_text(x->db, id, &table, &cols, x->err) ||
        (x->err->rc == SQLITE_OK && mm_log_source_get(x->db, id, &table, &cols, x->err))) {
        s->t = mm_table_load(x->db, table, x->err);
    }
    if (s->t != NULL &&
        (mm_trigger_refuses(s->t) != NULL || !mm_watch_captures(mm_watch_get(x->db, s->t->name, NULL, x->err)))) {
        mm_table_free(s->t);
        s->t = NULL;
    }
    if (s->t != NULL) {
        map_columns(s, &cols, x->err);
        char *sql = mm_row_select(s->t, NULL);
        s->now = sql != NULL ? mm_db_prepare(x->db, x->err, 0, "%s", sql) : NULL;
        if (sql == NULL) {
            mm_err_nomem(x->err);
        }
        sqlite3_free(sql);
    }
    x->lost = x->lost || (s->t == NULL && x->err->rc == SQLITE_OK);
    sqlite3_free(table);
    mm_buf_free(&cols);
    return x->err->rc == SQLITE_OK ? s : NULL;
}

static void put_group(struct take *x, const struct source *s)
{
    if (x->group == s) {
        return;
    }
    x->group = s;
    mm_change_put_table(&x->data->tail, s->t->name, (uint32_t)s->t->ncol, s->pk);
    mm_buf_add(&x->names->tail, s->t->name, strlen(s->t->name) + 1);
    for (int k = 0; k < s->t->ncol; k++) {
        mm_buf_add(&x->names->tail, s->t->col[k].name, strlen(s->t->col[k].name) + 1);
    }
}

static void put_record(struct take *x, const struct source *s, enum mm_op op, const struct mm_value *old,
                       const struct mm_value *new)
{
    struct mm_buf *b = &x->data->tail;
    put_group(x, s);
    mm_change_put_head(b, op);
    for (int k = 0; old != NULL && k < s->t->ncol; k++) {
        mm_value_encode(b, &old[k]);
    }
    for (int k = 0; new != NULL &&k < s->t->ncol; k++) {
        mm_value_encode(b, &new[k]);
    }
    mm_buf_check(b, x->err, "the changes of triggers");
    mm_buf_check(&x->names->tail, x->err, "the changes of triggers");
    mm_spill_settle(x->data);
    mm_spill_settle(x->names);
}

/* The row of that key (in the key's order) as it is; NULL when there is none. */
static struct mm_value *row_now(struct take *x, const struct source *s, const struct mm_value *key)
{
    struct mm_value *row = mm_arena_array(&x->arena, (size_t)s->t->ncol, sizeof *row);
    if (row == NULL) {
        mm_err_nomem(x->err);
        return NULL;
    }
    for (int k = 0; k < s->nkey; k++) {
        if (mm_value_bind(s->now, k + 1, &key[k]) != SQLITE_OK) {
            mm_err_nomem(x->err);
        }
    }
    int found = mm_db_step(s->now, x->err);
    for (int k = 0; found && k < s->t->ncol; k++) {
        struct mm_value v;
        if (!mm_value_column(&v, s->now, k) || !mm_value_copy(&x->arena, &row[k], &v)) {
            mm_err_nomem(x->err);
        }
    }
    sqlite3_reset(s->now);
    return found && x->err->rc == SQLITE_OK ? row : NULL;
}

/* A row came to a key where, as far as is known, none stood. When it has gone
** again, the pair says that none did. */
static void take_touch(struct take *x, const struct source *s, const struct mm_value *key)
{
    struct mm_value *row = row_now(x, s, key);
    bool there = row != NULL;
    if (!there && x->err->rc == SQLITE_OK) {
        row = mm_arena_array(&x->arena, (size_t)s->t->ncol, sizeof *row);
        for (int k = 0; row != NULL && k < s->t->ncol; k++) {
            row[k].type = SQLITE_NULL;
        }
        for (int k = 0; row != NULL && k < s->nkey; k++) {
            row[s->place[k]] = key[k];
        }
        if (row == NULL) {
            mm_err_nomem(x->err);
        }
    }
    if (x->err->rc == SQLITE_OK) {
        put_record(x, s, MM_OP_INSERT, NULL, row);
        if (!there) {
            put_record(x, s, MM_OP_DELETE, row, NULL);
        }
    }
}

static void take_image(struct take *x, const struct source *s, const struct mm_log_entry *e)
{
    struct mm_value *old = mm_arena_array(&x->arena, (size_t)s->t->ncol, sizeof *old);
    struct mm_value *key = mm_arena_array(&x->arena, (size_t)s->nkey, sizeof *key);
    if (old == NULL || key == NULL) {
        mm_err_nomem(x->err);
        return;
    }
    if (x->stopped && e->n < s->nimage + (e->kind == MM_LOG_MOVE ? s->nkey : 0)) {
        return;
    }
    for (int k = 0; k < s->nkey; k++) {
        int at = s->from[s->place[k]];
        if (at < 0 || at >= e->n) {
            x->lost = true; /* another table under the name */
            return;
        }
        key[k] = e->v[at];
    }
    struct mm_value *now = row_now(x, s, key);
    for (int k = 0; k < s->t->ncol; k++) {
        if (s->from[k] >= 0 && s->from[k] < e->n) {
            old[k] = e->v[s->from[k]];
        } else if (now != NULL) {
            old[k] = now[k]; /* a column younger than the trigger */
        } else {
            old[k].type = SQLITE_NULL;
        }
    }
    if (x->err->rc == SQLITE_OK) {
        put_record(x, s, now != NULL ? MM_OP_UPDATE : MM_OP_DELETE, old, now);
    }
    if (e->kind == MM_LOG_MOVE && s->nimage + s->nkey <= e->n && x->err->rc == SQLITE_OK) {
        bool moved = false;
        for (int k = 0; k < s->nkey; k++) {
            moved = moved || !mm_value_same(&key[k], &e->v[s->nimage + k]);
        }
        if (moved) {
            take_touch(x, s, &e->v[s->nimage]);
        }
    }
}

static int take_all(struct take *x)
{
    struct mm_log_reader *r = mm_log_open(x->db, x->err);
    struct mm_log_entry e;
    mm_arena_init(&x->arena, ROW_MAX);
    x->stopped = mm_log_stopped(x->db, x->err);
    while (r != NULL && mm_log_next(r, &e, x->err)) {
        const struct source *s = source_of(x, e.source);
        if (s != NULL && s->t != NULL && e.kind == MM_LOG_TOUCH) {
            take_touch(x, s, e.v);
        } else if (s != NULL && s->t != NULL) {
            take_image(x, s, &e);
        }
        mm_arena_free(&x->arena);
    }
    mm_log_close(r);
    while (x->list != NULL) {
        struct source *s = x->list;
        x->list = s->next;
        source_free(s);
    }
    if (x->lost && x->err->rc == SQLITE_OK) {
        mm_log(MM_LOG_WARN, "changes noted by triggers of a table that is gone or no longer watched are left out");
    }
    if (x->stopped) {
        mm_stray_stopped(x->db, x->err);
    }
    return mm_log_clear(x->db, x->err);
}

int mm_trigger_take(sqlite3 *db, struct mm_spill *data, struct mm_spill *names, struct mm_err *err)
{
    struct take x;
    memset(&x, 0, sizeof x);
    x.db = db;
    x.err = err;
    x.data = data;
    x.names = names;
    return take_all(&x);
}

static void put_outbox(sqlite3 *db, struct mm_spill *data, struct mm_spill *names, struct mm_err *err)
{
    const uint8_t *d = mm_spill_bytes(data, err);
    const uint8_t *n = mm_spill_bytes(names, err);
    if (err->rc == SQLITE_OK && d != NULL && n != NULL) {
        mm_outbox_put_txn(db, n, (size_t)mm_spill_len(names), d, (size_t)mm_spill_len(data), err);
    }
}

int mm_trigger_move(sqlite3 *db, bool *moved, struct mm_err *err)
{
    bool any = mm_log_any(db, err);
    if (moved != NULL) {
        *moved = any;
    }
    if (!any || err->rc != SQLITE_OK) {
        return err->rc;
    }
    struct mm_spill data;
    struct mm_spill names;
    struct mm_spill by_table;
    struct mm_spill by_table_names;
    mm_spill_init(&data);
    mm_spill_init(&names);
    mm_spill_init(&by_table);
    mm_spill_init(&by_table_names);
    mm_trigger_take(db, &data, &names, err);
    if (err->rc == SQLITE_OK && mm_spill_len(&names) >= REGROUP_AT) {
        const uint8_t *d = mm_spill_bytes(&data, err);
        const uint8_t *n = mm_spill_bytes(&names, err);
        if (err->rc == SQLITE_OK && mm_hook_regroup(d, mm_spill_len(&data), n, mm_spill_len(&names), &by_table,
                                                    &by_table_names, err) == SQLITE_OK) {
            put_outbox(db, &by_table, &by_table_names, err);
        }
    } else if (err->rc == SQLITE_OK) {
        put_outbox(db, &data, &names, err);
    }
    mm_spill_free(&data);
    mm_spill_free(&names);
    mm_spill_free(&by_table);
    mm_spill_free(&by_table_names);
    mm_err_prefix(err, "moving what triggers noted to the outbox");
    return err->rc;
}
