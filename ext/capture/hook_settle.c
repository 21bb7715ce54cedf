#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "capture/hook_int.h"
#include "store/change.h"

/* A group of the buffer: the table as it was when its rows were captured, and
** as it is now. */
struct settle {
    struct mm_hook *h;
    struct mm_err *err;
    const uint8_t *p, *end; /* records still to read */
    const char *names, *names_end;
    struct mm_spill *data, *out_names;
    struct mm_table **now; /* definitions as they are, by touched entry; NULL = dropped */
    const char *table;     /* of the group */
    uint64_t ncol;
    const uint8_t *pk;
    const char **col;
    const struct mm_table *t; /* of the group; NULL = dropped */
    int *from;                /* column of the record for each column of t, -1 = none */
};

static void broken(struct settle *s)
{
    mm_err_set(s->err, SQLITE_CORRUPT, "the captured transaction cannot be read back");
}

static const struct mm_table *definition(const struct settle *s, const char *table)
{
    for (size_t k = 0; k < s->h->nentry; k++) {
        if (s->now[k] != NULL && strcmp(s->now[k]->name, table) == 0) {
            return s->now[k];
        }
    }
    return NULL;
}

static const char *next_name(struct settle *s)
{
    const char *nul = s->names < s->names_end ? memchr(s->names, 0, (size_t)(s->names_end - s->names)) : NULL;
    if (nul == NULL) {
        broken(s);
        return "";
    }
    const char *name = s->names;
    s->names = nul + 1;
    return name;
}

static void put_group(struct settle *s)
{
    const struct mm_table *t = s->t;
    uint8_t *pk = calloc((size_t)t->ncol + 1, 1);
    if (pk == NULL) {
        mm_err_nomem(s->err);
        return;
    }
    mm_buf_add(&s->out_names->tail, t->name, strlen(t->name) + 1);
    for (int k = 0; k < t->ncol; k++) {
        pk[k] = t->col[k].pk;
        mm_buf_add(&s->out_names->tail, t->col[k].name, strlen(t->col[k].name) + 1);
        for (uint64_t c = 0; c < s->ncol; c++) {
            if (strcmp(s->col[c], t->col[k].name) == 0) {
                s->from[k] = (int)c;
            }
        }
    }
    mm_change_put_table(&s->data->tail, t->name, (uint32_t)t->ncol, pk);
    free(pk);
}

static void read_group(struct settle *s)
{
    s->p++;
    if (!mm_varint_get(&s->p, s->end, &s->ncol) || s->ncol == 0 || s->ncol > (uint64_t)(s->end - s->p)) {
        broken(s);
        return;
    }
    s->pk = s->p;
    s->p += s->ncol;
    const uint8_t *nul = memchr(s->p, 0, (size_t)(s->end - s->p));
    if (nul == NULL) {
        broken(s);
        return;
    }
    s->p = nul + 1;
    s->table = next_name(s);
    free(s->col);
    free(s->from);
    s->t = definition(s, s->table);
    s->col = calloc((size_t)s->ncol, sizeof *s->col);
    size_t room = s->t != NULL ? (size_t)s->t->ncol + 1 : 1;
    s->from = malloc(room * sizeof *s->from);
    if (s->col == NULL || s->from == NULL) {
        mm_err_nomem(s->err);
        return;
    }
    for (size_t k = 0; k < room; k++) {
        s->from[k] = -1;
    }
    for (uint64_t k = 0; k < s->ncol && s->err->rc == SQLITE_OK; k++) {
        s->col[k] = next_name(s);
    }
    if (s->t != NULL && s->err->rc == SQLITE_OK) {
        put_group(s);
    }
}

static void decode(struct settle *s, struct mm_value *row)
{
    for (uint64_t k = 0; k < s->ncol; k++) {
        if (!mm_value_decode(&s->p, s->end, &row[k])) {
            broken(s);
            return;
        }
    }
}

/* The values of one record under the columns of today. */
static void map(const struct settle *s, const struct mm_value *from, struct mm_value *to)
{
    for (int k = 0; k < s->t->ncol; k++) {
        if (s->from[k] >= 0) {
            to[k] = from[s->from[k]];
        } else {
            memset(&to[k], 0, sizeof to[k]);
        }
    }
}

/* Columns that the record does not know, and the bytes of blob I/O, come from
** the row as the transaction leaves it; a row that went again needs none. */
static void complete(struct settle *s, enum mm_op op, const struct mm_value *old, struct mm_value *new,
                     struct mm_arena *a)
{
    const struct mm_table *t = s->t;
    struct mm_value *key = mm_arena_array(a, (size_t)t->ncol, sizeof *key);
    struct mm_value *row = mm_arena_array(a, (size_t)t->ncol, sizeof *row);
    if (key == NULL || row == NULL) {
        mm_err_nomem(s->err);
        return;
    }
    bool blob = op == MM_OP_UPDATE;
    for (int k = 0; k < t->ncol; k++) {
        key[k] = op == MM_OP_UPDATE && new[k].type == MM_UNDEF ? old[k] : new[k];
        blob = blob && new[k].type == MM_UNDEF;
    }
    bool unknown = blob;
    for (int k = 0; k < t->ncol; k++) {
        unknown = unknown || s->from[k] < 0;
    }
    if (unknown && !mm_row_identity(t, key)) {
        mm_err_set(
            s->err, SQLITE_MISMATCH,
            "table %.80s has rows without a key that were written in the transaction that alters it: alter it in a "
            "transaction of its own",
            t->name);
        return;
    }
    bool found = mm_row_read(s->h->db, t, key, NULL, row, a, s->err) == 1;
    for (int k = 0; k < t->ncol; k++) {
        if (found && (s->from[k] < 0 || blob)) {
            new[k] = row[k];
        } else if (s->from[k] < 0 && op == MM_OP_INSERT) {
            new[k].type = SQLITE_NULL;
        }
    }
}

static void put_row(struct settle *s, const struct mm_value *row)
{
    for (int k = 0; k < s->t->ncol; k++) {
        mm_value_encode(&s->data->tail, &row[k]);
    }
}

static void read_record(struct settle *s)
{
    uint8_t op = *s->p;
    struct mm_arena a;
    mm_arena_init(&a, (size_t)1 << 36);
    size_t width = (size_t)s->ncol + (s->t != NULL ? (size_t)s->t->ncol : 0);
    struct mm_value *v = mm_arena_array(&a, 4 * width, sizeof *v);
    if (v == NULL || s->end - s->p < 2) {
        mm_err_nomem(s->err);
        mm_arena_free(&a);
        return;
    }
    struct mm_value *old = v + 2 * width;
    struct mm_value *new = v + 3 * width;
    s->p += 2;
    if (op != SQLITE_INSERT) {
        decode(s, v);
    }
    if (op != SQLITE_DELETE && s->err->rc == SQLITE_OK) {
        decode(s, v + width);
    }
    if (s->t != NULL && s->err->rc == SQLITE_OK) {
        enum mm_op kind = op == SQLITE_INSERT ? MM_OP_INSERT : op == SQLITE_DELETE ? MM_OP_DELETE : MM_OP_UPDATE;
        map(s, v, old);
        map(s, v + width, new);
        if (kind != MM_OP_DELETE) {
            complete(s, kind, old, new, &a);
        }
        mm_change_put_head(&s->data->tail, kind);
        if (kind != MM_OP_INSERT) {
            put_row(s, old);
        }
        if (kind != MM_OP_DELETE) {
            put_row(s, new);
        }
        mm_spill_settle(s->data);
    }
    mm_arena_free(&a);
}

/* Loads the definitions of today; false when none of them differs. */
static bool changed(struct settle *s)
{
    struct mm_hook *h = s->h;
    bool differs = false;
    for (size_t k = 0; k < h->nentry && s->err->rc == SQLITE_OK; k++) {
        const struct mm_entry *e = h->entry[k];
        if (!e->touched) {
            continue;
        }
        struct mm_table *t = mm_table_load(h->db, e->name, s->err);
        differs = differs || t == NULL || !mm_table_same_shape(t, e->t);
        if (t != NULL && t->capturable) {
            s->now[k] = t;
        } else {
            mm_table_free(t);
            differs = true;
        }
    }
    return differs;
}

bool mm_hook_settle(struct mm_hook *h, struct mm_spill *data, struct mm_spill *names, struct mm_err *err)
{
    struct settle s;
    memset(&s, 0, sizeof s);
    s.h = h;
    s.err = err;
    s.data = data;
    s.out_names = names;
    s.now = calloc(h->nentry + 1, sizeof(struct mm_table *));
    if (s.now == NULL) {
        mm_err_nomem(err);
        return false;
    }
    bool rewrite = changed(&s) && err->rc == SQLITE_OK;
    if (rewrite) {
        h->stale = true;
        s.p = mm_spill_bytes(&h->data, err);
        s.names = (const char *)mm_spill_bytes(&h->names, err);
        s.end = s.p + mm_spill_len(&h->data);
        s.names_end = s.names + mm_spill_len(&h->names);
    }
    while (rewrite && err->rc == SQLITE_OK && s.p < s.end) {
        if (*s.p == 'T') {
            read_group(&s);
        } else if (s.table != NULL) {
            read_record(&s);
        } else {
            broken(&s);
        }
        mm_buf_check(&data->tail, err, "the captured transaction");
        mm_buf_check(&names->tail, err, "the captured transaction");
    }
    for (size_t k = 0; k < h->nentry; k++) {
        mm_table_free(s.now[k]);
    }
    free(s.now);
    free(s.col);
    free(s.from);
    return rewrite;
}
