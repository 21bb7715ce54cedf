#include "wire/put.h"

#include <string.h>

#include "base/sqlite.h"
#include "marmot.pb-c.h"
#include "wire/wire.h"

struct reader {
    const Marmot__V1__Table *t;
    struct mm_tab *tab;
    size_t changed, type, integer, real, length, data; /* used of each stream */
    uint32_t *list;                                    /* changed columns of the row at hand */
    struct mm_arena *arena;
    struct mm_err *err;
};

enum need { NEW, OLD, OLD_KEY, OLD_CHANGED };

static int corrupt(struct reader *r, const char *what)
{
    return mm_err_set(r->err, SQLITE_CORRUPT, "transaction is malformed, table %.100s: %s", r->t->name, what);
}

static const uint8_t *take_data(struct reader *r, uint32_t n)
{
    static const uint8_t empty[1];
    if (n > r->t->data.len - r->data) {
        corrupt(r, "data ends too early");
        return NULL;
    }
    const uint8_t *p = n == 0 ? empty : r->t->data.data + r->data;
    r->data += n;
    return p;
}

static void take_bytes(struct reader *r, uint8_t type, struct mm_value *v)
{
    if (r->length >= r->t->n_length) {
        corrupt(r, "lengths end too early");
        return;
    }
    uint32_t n = r->t->length[r->length++];
    v->u.p = take_data(r, n);
    v->len = n;
    v->type = type;
}

static void take_value(struct reader *r, enum need need, struct mm_value *v)
{
    if (r->err->rc != SQLITE_OK) {
        return;
    }
    if (r->type >= r->t->type.len) {
        corrupt(r, "types end too early");
        return;
    }
    uint8_t type = r->t->type.data[r->type++];
    switch (type) {
    case MM_UNDEF:
        if (need == NEW || need == OLD_KEY) {
            corrupt(r, "a value that must be sent is not");
        }
        break;
    case SQLITE_INTEGER:
        if (r->integer >= r->t->n_integer) {
            corrupt(r, "integers end too early");
            return;
        }
        v->u.i = r->t->integer[r->integer++];
        v->type = type;
        break;
    case SQLITE_FLOAT:
        if (r->real >= r->t->n_real) {
            corrupt(r, "reals end too early");
            return;
        }
        v->u.r = r->t->real[r->real++];
        v->type = type;
        break;
    case SQLITE_TEXT:
    case SQLITE_BLOB:
        take_bytes(r, type, v);
        break;
    case SQLITE_NULL:
        v->type = type;
        break;
    case MM_TYPE_TEXT_HASH:
    case MM_TYPE_BLOB_HASH:
        if (need != OLD_CHANGED) {
            corrupt(r, "a hash stands where a value must");
        }
        (void)take_data(r, MM_HASH_SIZE);
        break;
    default:
        corrupt(r, "unknown type of a value");
        break;
    }
}

static struct mm_value *new_values(struct reader *r)
{
    if (r->err->rc != SQLITE_OK) {
        return NULL;
    }
    return mm_pack_alloc(r->arena, r->tab->ncol, sizeof(struct mm_value), r->err);
}

static struct mm_value *read_full(struct reader *r, bool old)
{
    struct mm_value *v = new_values(r);
    for (uint32_t k = 0; v != NULL && k < r->tab->ncol; k++) {
        take_value(r, !old ? NEW : r->tab->pk[k] != 0 ? OLD_KEY : OLD, &v[k]);
    }
    return v;
}

static uint32_t read_changed(struct reader *r)
{
    const Marmot__V1__Table *t = r->t;
    if (r->changed >= t->n_changed || t->changed[r->changed] > t->n_changed - r->changed - 1 ||
        t->changed[r->changed] > r->tab->ncol) {
        corrupt(r, "changed columns end too early");
        return 0;
    }
    uint32_t n = t->changed[r->changed++];
    for (uint32_t k = 0; k < n; k++) {
        uint32_t col = t->changed[r->changed++];
        if (col >= r->tab->ncol || r->tab->pk[col] != 0 || (k > 0 && col <= r->list[k - 1])) {
            corrupt(r, "changed columns are not ascending columns outside the key");
            return 0;
        }
        r->list[k] = col;
    }
    return n;
}

static void read_update(struct reader *r, struct mm_row *row, bool whole)
{
    uint32_t n = read_changed(r);
    row->op = MM_OP_UPDATE;
    row->before = new_values(r);
    row->after = new_values(r);
    if (r->err->rc != SQLITE_OK) {
        return;
    }
    bool null_key = false;
    bool keyed = r->t->n_key > 0;
    for (uint32_t k = 0, at = 0; k < r->tab->ncol; k++) {
        bool is_key = r->tab->pk[k] != 0;
        bool sent = at < n && r->list[at] == k;
        at += sent;
        if (sent || is_key || whole) {
            take_value(r, whole || is_key ? OLD_KEY : OLD_CHANGED, &row->before[k]);
        }
        if (is_key) {
            row->after[k] = row->before[k];
            null_key = null_key || row->before[k].type == SQLITE_NULL;
        }
    }
    for (uint32_t k = 0; k < n; k++) {
        take_value(r, NEW, &row->after[r->list[k]]);
    }
    if (whole != (!keyed || null_key)) {
        corrupt(r, "an UPDATE says otherwise than its key whether the row has an identity");
    }
}

static void read_row(struct reader *r, uint8_t op, struct mm_row *row)
{
    switch (op) {
    case MM_OP_INSERT:
        row->after = read_full(r, false);
        break;
    case MM_OP_UPDATE:
    case MM_OP_UPDATE_WHOLE:
        read_update(r, row, op == MM_OP_UPDATE_WHOLE);
        return;
    case MM_OP_DELETE:
        row->before = read_full(r, true);
        break;
    case MM_OP_REPLACE:
        row->before = read_full(r, true);
        row->after = read_full(r, false);
        break;
    default:
        corrupt(r, "unknown operation");
        return;
    }
    row->op = (enum mm_op)op;
}

static void read_shape(struct reader *r)
{
    const Marmot__V1__Table *t = r->t;
    struct mm_tab *tab = r->tab;
    bool long_name = strlen(t->name) > MM_WIRE_NAME_MAX;
    for (size_t k = 0; k < t->n_column && k < MM_WIRE_COLUMNS_MAX; k++) {
        long_name = long_name || strlen(t->column[k]) > MM_WIRE_NAME_MAX;
    }
    if (long_name || t->n_column > MM_WIRE_COLUMNS_MAX) {
        mm_err_set(r->err, SQLITE_TOOBIG, "transaction, table %.100s: %s", t->name,
                   long_name ? "a name is too long" : "too many columns");
        return;
    }
    if (t->n_column == 0 || t->n_key > t->n_column || t->n_key > UINT8_MAX) {
        corrupt(r, "no column, or more key columns than columns");
        return;
    }
    tab->name = t->name;
    tab->ncol = (uint32_t)t->n_column;
    tab->col = mm_pack_alloc(r->arena, t->n_column, sizeof *tab->col, r->err);
    tab->pk = mm_pack_alloc(r->arena, t->n_column, sizeof *tab->pk, r->err);
    r->list = mm_pack_alloc(r->arena, t->n_column, sizeof *r->list, r->err);
    if (tab->col == NULL || tab->pk == NULL || r->list == NULL) {
        return;
    }
    for (size_t k = 0; k < t->n_column; k++) {
        tab->col[k] = t->column[k];
    }
    for (size_t k = 0; k < t->n_key; k++) {
        if (t->key[k] >= tab->ncol || tab->pk[t->key[k]] != 0) {
            corrupt(r, "a key column that does not exist, or twice");
            return;
        }
        tab->pk[t->key[k]] = (uint8_t)(k + 1);
    }
}

static void read_table(struct reader *r)
{
    const Marmot__V1__Table *t = r->t;
    read_shape(r);
    if (r->err->rc != SQLITE_OK) {
        return;
    }
    r->tab->row = mm_pack_alloc(r->arena, t->op.len, sizeof *r->tab->row, r->err);
    for (size_t k = 0; k < t->op.len && r->err->rc == SQLITE_OK; k++) {
        read_row(r, t->op.data[k], &r->tab->row[k]);
    }
    r->tab->nrow = t->op.len;
    if (r->err->rc == SQLITE_OK &&
        (r->changed != t->n_changed || r->type != t->type.len || r->integer != t->n_integer || r->real != t->n_real ||
         r->length != t->n_length || r->data != t->data.len)) {
        corrupt(r, "its streams hold more than its rows");
    }
}

int mm_txn_read(struct mm_txn *txn, const Marmot__V1__Transaction *t, struct mm_arena *arena, struct mm_err *err)
{
    txn->arena = arena;
    txn->tab = NULL;
    txn->ntab = 0;
    if (t->base.n_unknown_fields > 0) {
        return mm_err_set(err, SQLITE_MISMATCH, "transaction uses a feature newer than this library: upgrade it");
    }
    if (t->n_table > MM_WIRE_TABLES_MAX) {
        return mm_err_set(err, SQLITE_TOOBIG, "transaction touches %zu tables, the limit is %d", t->n_table,
                          MM_WIRE_TABLES_MAX);
    }
    txn->tab = mm_pack_alloc(arena, t->n_table, sizeof *txn->tab, err);
    for (size_t k = 0; k < t->n_table && err->rc == SQLITE_OK; k++) {
        struct reader r;
        memset(&r, 0, sizeof r);
        r.t = t->table[k];
        r.tab = &txn->tab[k];
        r.arena = arena;
        r.err = err;
        if (r.t->base.n_unknown_fields > 0) {
            return mm_err_set(err, SQLITE_MISMATCH,
                              "transaction, table %.100s: a feature newer than this library: "
                              "upgrade it",
                              r.t->name);
        }
        read_table(&r);
    }
    txn->ntab = t->n_table;
    return err->rc;
}
