/* What a number in the log means today: its table, and where in an image the
** table's columns stand. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/db.h"
#include "capture/defaults.h"
#include "capture/trigger_int.h"
#include "store/watch.h"

enum { COLUMNS_BYTES = 1 << 20, FILL_MAX = 1 << 30 };

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
** that is no part of a name, and behind a rowid there. ALTER TABLE rewrites them. */
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
            if (strncmp(p, ",(OLD.", strlen(",(OLD.")) == 0) {
                p += strcspn(p, ")") + 1;
            }
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

/* What rows older than a column hold there, and what a key gets in place of NULL. */
static void fill_column(struct mm_take *x, struct mm_source *s, int k)
{
    if (!mm_default_value(x->db, s->t, k, &s->arena, &s->fill[k], x->err)) {
        s->fill[k].type = SQLITE_NULL;
    }
}

static void map_columns(struct mm_take *x, struct mm_source *s, const struct mm_buf *cols)
{
    size_t n = (size_t)s->t->ncol + 1;
    s->pk = calloc(n, 1);
    s->from = calloc(n, sizeof *s->from);
    s->place = calloc(n, sizeof *s->place);
    s->fill = calloc(n, sizeof *s->fill);
    if (s->pk == NULL || s->from == NULL || s->place == NULL || s->fill == NULL) {
        mm_err_nomem(x->err);
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
        s->younger = s->younger || s->from[k] < 0;
        if (s->from[k] < 0 || s->pk[k] != 0) {
            fill_column(x, s, k);
        }
    }
}

static void source_free(struct mm_source *s)
{
    mm_db_finalize(s->now);
    mm_table_free(s->t);
    mm_arena_free(&s->arena);
    free(s->fill);
    free(s->pk);
    free(s->from);
    free(s->place);
    free(s);
}

void mm_source_free_all(struct mm_take *x)
{
    while (x->list != NULL) {
        struct mm_source *s = x->list;
        x->list = s->next;
        source_free(s);
    }
}

struct mm_source *mm_source_of(struct mm_take *x, int64_t id)
{
    for (struct mm_source *s = x->list; s != NULL; s = s->next) {
        if (s->id == id) {
            return s;
        }
    }
    struct mm_source *s = calloc(1, sizeof *s);
    if (s == NULL) {
        mm_err_nomem(x->err);
        return NULL;
    }
    s->id = id;
    mm_arena_init(&s->arena, FILL_MAX);
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
        map_columns(x, s, &cols);
        s->by_rowid = mm_trigger_by_rowid(s->t);
        char *sql = mm_row_select(s->t, s->by_rowid ? mm_rowid_name(s->t) : NULL);
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
