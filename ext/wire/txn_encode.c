#include "wire/put.h"

#include <string.h>

#include "base/sqlite.h"
#include "wire/wire.h"

/* The parallel streams of one Table (proto/marmot.proto), in their order. All
** rows are gone through twice: the first time counts, so that the second can
** write each stream to its place and no stream is ever held twice. */
enum { S_OP, S_CHANGED, S_TYPE, S_INTEGER, S_REAL, S_LENGTH, S_DATA, S_COUNT, S_FIELD = 4 };

struct stream {
    uint8_t *to; /* NULL: only counted */
    size_t n;
};

struct writer {
    struct mm_buf *out;
    const struct mm_tab *tab;
    bool all_columns;
    struct stream s[S_COUNT];
    struct mm_buf key; /* column indexes, as varints */
    struct mm_err *err;
};

static void put(struct writer *w, int stream, const void *p, size_t n)
{
    struct stream *s = &w->s[stream];
    if (s->to != NULL && n > 0) {
        memcpy(s->to + s->n, p, n);
    }
    s->n += n;
}

static void put_byte(struct writer *w, int stream, uint8_t v)
{
    put(w, stream, &v, 1);
}

static void put_varint(struct writer *w, int stream, uint64_t v)
{
    uint8_t bytes[MM_PUT_VARINT_MAX];
    put(w, stream, bytes, mm_put_varint_bytes(bytes, v));
}

static int misfit(struct writer *w, const char *what)
{
    return mm_err_set(w->err, SQLITE_MISUSE, "change of table %.100s does not fit it: %s", w->tab->name, what);
}

static void put_real(struct writer *w, double r)
{
    uint64_t bits;
    uint8_t bytes[8];
    memcpy(&bits, &r, sizeof bits);
    for (int k = 0; k < 8; k++) {
        bytes[k] = (uint8_t)(bits >> (8 * k));
    }
    put(w, S_REAL, bytes, sizeof bytes);
}

static void put_value(struct writer *w, const struct mm_value *v)
{
    put_byte(w, S_TYPE, v->type);
    switch (v->type) {
    case SQLITE_INTEGER:
        put_varint(w, S_INTEGER, mm_put_zigzag(v->u.i));
        break;
    case SQLITE_FLOAT:
        put_real(w, v->u.r);
        break;
    case SQLITE_TEXT:
    case SQLITE_BLOB:
        put_varint(w, S_LENGTH, v->len);
        put(w, S_DATA, v->u.p, v->len);
        break;
    case SQLITE_NULL:
    case MM_UNDEF:
        break;
    default:
        misfit(w, "a value of unknown type");
        break;
    }
}

static void put_old(struct writer *w, const struct mm_value *row)
{
    if (row == NULL) {
        misfit(w, "the old row is missing");
        return;
    }
    for (uint32_t k = 0; k < w->tab->ncol; k++) {
        if (row[k].type == MM_UNDEF && w->tab->pk[k] != 0) {
            misfit(w, "a key value is missing");
            return;
        }
        put_value(w, &row[k]);
    }
}

static void put_new(struct writer *w, const struct mm_value *row)
{
    if (row == NULL) {
        misfit(w, "the new row is missing");
        return;
    }
    for (uint32_t k = 0; k < w->tab->ncol; k++) {
        if (row[k].type == MM_UNDEF) {
            misfit(w, "a value of a new row is missing");
            return;
        }
        put_value(w, &row[k]);
    }
}

static bool is_sent(const struct writer *w, const struct mm_row *row, uint32_t k)
{
    return w->tab->pk[k] == 0 && row->after[k].type != MM_UNDEF &&
           (w->all_columns || !mm_value_same(&row->before[k], &row->after[k]));
}

/* The key must stand on both sides, the same; `whole` says that it does not
** tell the row from others. */
static void check_update(struct writer *w, const struct mm_row *row, bool *whole)
{
    *whole = true;
    if (row->before == NULL || row->after == NULL) {
        misfit(w, "an UPDATE needs the row before and after");
        return;
    }
    bool null_key = false;
    for (uint32_t k = 0; k < w->tab->ncol; k++) {
        if (w->tab->pk[k] == 0) {
            continue;
        }
        *whole = false;
        null_key = null_key || row->before[k].type == SQLITE_NULL;
        if (row->before[k].type == MM_UNDEF ||
            (row->after[k].type != MM_UNDEF && !mm_value_same(&row->before[k], &row->after[k]))) {
            misfit(w, "an UPDATE must keep its key");
            return;
        }
    }
    *whole = *whole || null_key;
    for (uint32_t k = 0; k < w->tab->ncol && *whole; k++) {
        if (row->before[k].type == MM_UNDEF) {
            misfit(w, "an UPDATE without identity needs the whole old row");
            return;
        }
    }
}

static void put_update(struct writer *w, const struct mm_row *row)
{
    bool whole;
    uint32_t ncol = w->tab->ncol;
    uint32_t n = 0;
    check_update(w, row, &whole);
    if (w->err->rc != SQLITE_OK) {
        return;
    }
    for (uint32_t k = 0; k < ncol; k++) {
        n += is_sent(w, row, k);
    }
    put_byte(w, S_OP, whole ? MM_OP_UPDATE_WHOLE : MM_OP_UPDATE);
    put_varint(w, S_CHANGED, n);
    for (uint32_t k = 0; k < ncol; k++) {
        bool sent = is_sent(w, row, k);
        if (sent) {
            put_varint(w, S_CHANGED, k);
        }
        if (sent || whole || w->tab->pk[k] != 0) {
            put_value(w, &row->before[k]);
        }
    }
    for (uint32_t k = 0; k < ncol; k++) {
        if (is_sent(w, row, k)) {
            put_value(w, &row->after[k]);
        }
    }
}

static void put_row(struct writer *w, const struct mm_row *row)
{
    switch (row->op) {
    case MM_OP_INSERT:
        put_byte(w, S_OP, MM_OP_INSERT);
        put_new(w, row->after);
        break;
    case MM_OP_UPDATE:
        put_update(w, row);
        break;
    case MM_OP_DELETE:
        put_byte(w, S_OP, MM_OP_DELETE);
        put_old(w, row->before);
        break;
    case MM_OP_REPLACE:
        put_byte(w, S_OP, MM_OP_REPLACE);
        put_old(w, row->before);
        put_new(w, row->after);
        break;
    default:
        misfit(w, "an unknown operation");
        break;
    }
}

static void put_key(struct writer *w)
{
    const struct mm_tab *t = w->tab;
    uint32_t nkey = 0;
    for (uint32_t k = 0; k < t->ncol; k++) {
        nkey += t->pk[k] != 0;
    }
    for (uint32_t place = 1; place <= nkey; place++) {
        const uint8_t *at = place <= UINT8_MAX ? memchr(t->pk, (int)place, t->ncol) : NULL;
        if (at == NULL) {
            misfit(w, "the places of its key columns are not 1, 2, 3 ..");
            return;
        }
        mm_put_varint(&w->key, (uint64_t)(at - t->pk));
    }
}

static void put_name(struct writer *w, unsigned field, const char *name)
{
    size_t n = strlen(name);
    if (n > MM_WIRE_NAME_MAX) {
        mm_err_set(w->err, SQLITE_TOOBIG, "a name of %zu bytes in table %.100s: the limit is %d bytes", n, w->tab->name,
                   MM_WIRE_NAME_MAX);
    }
    mm_put_item(w->out, field, name, n);
}

static void put_rows(struct writer *w)
{
    for (size_t k = 0; k < w->tab->nrow && w->err->rc == SQLITE_OK; k++) {
        put_row(w, &w->tab->row[k]);
    }
}

static void put_table(struct writer *w)
{
    const struct mm_tab *t = w->tab;
    if (t->ncol == 0 || t->ncol > MM_WIRE_COLUMNS_MAX) {
        misfit(w, "no column, or too many");
        return;
    }
    put_key(w);
    put_rows(w);
    mm_buf_check(&w->key, w->err, "a key");
    if (w->err->rc != SQLITE_OK) {
        return;
    }
    size_t mark = mm_put_begin(w->out, 1);
    if (t->name[0] != '\0') {
        put_name(w, 1, t->name);
    }
    for (uint32_t k = 0; k < t->ncol; k++) {
        put_name(w, 2, t->col[k]);
    }
    mm_put_bytes(w->out, 3, w->key.data, w->key.len);
    size_t at[S_COUNT];
    for (unsigned k = 0; k < S_COUNT; k++) {
        at[k] = mm_put_room(w->out, S_FIELD + k, w->s[k].n);
    }
    if (mm_buf_check(w->out, w->err, "a transaction") == SQLITE_OK) {
        for (int k = 0; k < S_COUNT; k++) {
            w->s[k] = (struct stream){ w->out->data + at[k], 0 };
        }
        put_rows(w);
    }
    mm_put_end(w->out, mark);
}

int mm_txn_put(struct mm_buf *out, const struct mm_txn *txn, bool all_columns, struct mm_err *err)
{
    struct writer w;
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    if (txn->ntab > MM_WIRE_TABLES_MAX) {
        return mm_err_set(err, SQLITE_TOOBIG, "a transaction touches %zu tables: the limit is %d", txn->ntab,
                          MM_WIRE_TABLES_MAX);
    }
    memset(&w, 0, sizeof w);
    w.out = out;
    w.all_columns = all_columns;
    w.err = err;
    mm_buf_init(&w.key, MM_WIRE_TXN_MAX);
    for (size_t i = 0; i < txn->ntab && err->rc == SQLITE_OK; i++) {
        w.tab = &txn->tab[i];
        put_table(&w);
        mm_buf_clear(&w.key);
        memset(w.s, 0, sizeof w.s);
    }
    mm_buf_free(&w.key);
    return mm_buf_check(out, err, "a transaction");
}
