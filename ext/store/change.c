#include "store/change.h"

#include <stdlib.h>
#include <string.h>

/* One key of one table while records are merged. */
struct entry {
    uint32_t tab;
    uint32_t next; /* entry + 1 in the same hash slot, 0 = end */
    uint64_t hash;
    uint32_t key_at, key_len; /* in reader.keys; key_len 0 = keyless */
    bool replaced;            /* deleted and inserted again */
    struct mm_value *before;  /* at the start of the transaction, NULL = not there */
    struct mm_value *after;   /* now, NULL = not there */
};

struct group {
    struct mm_tab tab;
    uint8_t *coll;
    bool keyless;
    bool has_integer_pk;
};

struct reader {
    struct mm_txn *txn;
    struct mm_err *err;
    const uint8_t *start, *p, *end;
    const char *names, *names_end;
    mm_coll_of *coll;
    void *coll_arg;
    bool first_only;
    struct group *group;
    uint32_t ngroup, group_cap;
    uint32_t cur; /* group of the records that follow */
    struct entry *entry;
    uint32_t nentry, entry_cap;
    uint32_t *slot;
    uint32_t nslot; /* a power of two */
    struct mm_buf keys;
};

enum { KEYS_MAX = 1 << 30, COLUMNS_MAX = 32767 };

static int corrupt(struct reader *r, const char *what)
{
    return mm_err_set(r->err, SQLITE_CORRUPT, "captured change is malformed at byte %zu: %s", (size_t)(r->p - r->start),
                      what);
}

static const char *next_name(struct reader *r)
{
    const char *s = r->names;
    const char *nul = r->names < r->names_end ? memchr(s, 0, (size_t)(r->names_end - s)) : NULL;
    if (nul == NULL) {
        corrupt(r, "names are missing");
        return NULL;
    }
    r->names = nul + 1;
    return s;
}

static bool same_shape(const struct mm_tab *a, const struct mm_tab *b)
{
    if (strcmp(a->name, b->name) != 0 || a->ncol != b->ncol || memcmp(a->pk, b->pk, a->ncol) != 0) {
        return false;
    }
    for (uint32_t k = 0; k < a->ncol; k++) {
        if (strcmp(a->col[k], b->col[k]) != 0) {
            return false;
        }
    }
    return true;
}

/* Makes the table that was just read the current one: a new one, or the one
** of the same name and shape met before. */
static void enter_group(struct reader *r, const struct mm_tab *t)
{
    for (uint32_t k = r->ngroup; k-- > 0;) {
        if (same_shape(&r->group[k].tab, t)) {
            r->cur = k;
            return;
        }
    }
    if (r->ngroup == r->group_cap) {
        uint32_t cap = r->group_cap == 0 ? 8 : r->group_cap * 2;
        struct group *g = realloc(r->group, cap * sizeof *g);
        if (g == NULL) {
            mm_err_nomem(r->err);
            return;
        }
        r->group = g;
        r->group_cap = cap;
    }
    struct group *g = &r->group[r->ngroup];
    memset(g, 0, sizeof *g);
    g->tab = *t;
    g->coll = mm_arena_alloc(r->txn->arena, t->ncol);
    g->keyless = true;
    if (g->coll == NULL) {
        mm_err_nomem(r->err);
        return;
    }
    for (uint32_t k = 0; k < t->ncol; k++) {
        if (t->pk[k] != 0) {
            g->keyless = false;
            g->coll[k] = (uint8_t)(r->coll != NULL ? r->coll(r->coll_arg, t->name, t->col[k], r->err) : MM_COLL_BINARY);
        }
    }
    r->cur = r->ngroup++;
}

static void read_group(struct reader *r)
{
    struct mm_arena *a = r->txn->arena;
    struct mm_tab t;
    uint64_t ncol = 0;
    memset(&t, 0, sizeof t);
    r->p++; /* 'T' */
    if (!mm_varint_get(&r->p, r->end, &ncol) || ncol == 0 || ncol > COLUMNS_MAX || ncol > (uint64_t)(r->end - r->p)) {
        corrupt(r, "bad column count");
        return;
    }
    t.ncol = (uint32_t)ncol;
    t.pk = mm_arena_copy(a, r->p, t.ncol);
    t.col = mm_arena_array(a, t.ncol, sizeof *t.col);
    if (t.pk == NULL || t.col == NULL) {
        mm_err_nomem(r->err);
        return;
    }
    r->p += t.ncol;
    const uint8_t *nul = r->p < r->end ? memchr(r->p, 0, (size_t)(r->end - r->p)) : NULL;
    if (nul == NULL) {
        corrupt(r, "table name without end");
        return;
    }
    r->p = nul + 1;
    t.name = next_name(r);
    for (uint32_t k = 0; k < t.ncol && r->err->rc == SQLITE_OK; k++) {
        t.col[k] = next_name(r);
    }
    if (r->err->rc == SQLITE_OK) {
        enter_group(r, &t);
    }
}

static struct mm_value *read_record(struct reader *r, uint32_t ncol)
{
    struct mm_value *v = mm_arena_array(r->txn->arena, ncol, sizeof *v);
    if (v == NULL) {
        mm_err_nomem(r->err);
        return NULL;
    }
    for (uint32_t k = 0; k < ncol; k++) {
        if (!mm_value_decode(&r->p, r->end, &v[k])) {
            corrupt(r, "bad value");
            return NULL;
        }
    }
    return v;
}

static uint64_t hash_bytes(const uint8_t *p, size_t n)
{
    uint64_t h = 14695981039346656037ULL;
    for (size_t k = 0; k < n; k++) {
        h = (h ^ p[k]) * 1099511628211ULL;
    }
    return h ^ (h >> 29);
}

static void grow_slots(struct reader *r)
{
    uint32_t n = r->nslot == 0 ? 64 : r->nslot * 2;
    uint32_t *slot = calloc(n, sizeof *slot);
    if (slot == NULL) {
        mm_err_nomem(r->err);
        return;
    }
    for (uint32_t k = 0; k < r->nentry; k++) {
        if (r->entry[k].key_len > 0) {
            uint32_t *head = &slot[r->entry[k].hash & (n - 1)];
            r->entry[k].next = *head;
            *head = k + 1;
        }
    }
    free(r->slot);
    r->slot = slot;
    r->nslot = n;
}

static struct entry *new_entry(struct reader *r)
{
    if (r->nentry == r->entry_cap) {
        uint32_t cap = r->entry_cap == 0 ? 16 : r->entry_cap * 2;
        struct entry *e = cap > r->entry_cap ? realloc(r->entry, cap * sizeof *e) : NULL;
        if (e == NULL) {
            mm_err_nomem(r->err);
            return NULL;
        }
        r->entry = e;
        r->entry_cap = cap;
    }
    struct entry *e = &r->entry[r->nentry++];
    memset(e, 0, sizeof *e);
    e->tab = r->cur;
    return e;
}

/* The entry of a row's key, made when it is new; `fresh` says so. */
static struct entry *find_entry(struct reader *r, const struct mm_value *row, bool *fresh)
{
    const struct group *g = &r->group[r->cur];
    *fresh = true;
    if (g->keyless) {
        return new_entry(r);
    }
    if (r->nentry >= r->nslot / 2) {
        grow_slots(r);
    }
    size_t at = r->keys.len;
    mm_buf_add(&r->keys, &r->cur, sizeof r->cur);
    if (!mm_change_key(&r->keys, &g->tab, row, g->coll)) {
        r->keys.len = at; /* a NULL in the key: a row without identity */
        return r->err->rc == SQLITE_OK ? new_entry(r) : NULL;
    }
    if (mm_buf_check(&r->keys, r->err, "keys of one transaction") != SQLITE_OK) {
        return NULL;
    }
    const uint8_t *key = r->keys.data + at;
    uint32_t len = (uint32_t)(r->keys.len - at);
    uint64_t hash = hash_bytes(key, len);
    for (uint32_t k = r->slot[hash & (r->nslot - 1)]; k != 0; k = r->entry[k - 1].next) {
        struct entry *e = &r->entry[k - 1];
        if (e->hash == hash && e->key_len == len && memcmp(r->keys.data + e->key_at, key, len) == 0) {
            r->keys.len = at;
            *fresh = false;
            return e;
        }
    }
    struct entry *e = new_entry(r);
    if (e != NULL) {
        e->hash = hash;
        e->key_at = (uint32_t)at;
        e->key_len = len;
        e->next = r->slot[hash & (r->nslot - 1)];
        r->slot[hash & (r->nslot - 1)] = r->nentry;
    }
    return e;
}

static void note_delete(struct reader *r, struct mm_value *old)
{
    bool fresh;
    struct entry *e = find_entry(r, old, &fresh);
    if (e != NULL) {
        if (fresh) {
            e->before = old;
        }
        if (fresh || !r->first_only) {
            e->after = NULL;
        }
    }
}

static void note_insert(struct reader *r, struct mm_value *new)
{
    bool fresh;
    struct entry *e = find_entry(r, new, &fresh);
    if (e != NULL && (fresh || !r->first_only)) {
        e->replaced = e->before != NULL;
        e->after = new;
    }
}

static void note_update(struct reader *r, struct mm_value *old, struct mm_value *new)
{
    const struct group *g = &r->group[r->cur];
    bool key_moved = false;
    for (uint32_t k = 0; k < g->tab.ncol; k++) {
        if (new[k].type == MM_UNDEF) {
            new[k] = old[k];
        } else if (g->tab.pk[k] != 0 && !mm_value_same(&old[k], &new[k])) {
            key_moved = true;
        }
    }
    if (key_moved) {
        note_delete(r, old);
        note_insert(r, new);
        return;
    }
    bool fresh;
    struct entry *e = find_entry(r, old, &fresh);
    if (e != NULL) {
        if (fresh) {
            e->before = old;
        }
        e->after = new;
    }
}

static void read_change(struct reader *r)
{
    uint8_t op = *r->p++;
    if (r->p >= r->end) {
        corrupt(r, "record without body");
        return;
    }
    r->p++; /* "indirect" flag: of no use here */
    uint32_t ncol = r->group[r->cur].tab.ncol;
    struct mm_value *old = op != SQLITE_INSERT ? read_record(r, ncol) : NULL;
    struct mm_value *new = r->err->rc == SQLITE_OK &&op != SQLITE_DELETE ? read_record(r, ncol) : NULL;
    if (r->err->rc != SQLITE_OK) {
        return;
    }
    if (op == SQLITE_INSERT) {
        note_insert(r, new);
    } else if (op == SQLITE_DELETE) {
        note_delete(r, old);
    } else {
        note_update(r, old, new);
    }
}

static bool rows_same(const struct mm_value *a, const struct mm_value *b, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        if (!mm_value_same(&a[k], &b[k])) {
            return false;
        }
    }
    return true;
}

/* Entries to rows, in the order in which keys were first touched. */
static void collect(struct reader *r)
{
    struct mm_txn *txn = r->txn;
    txn->tab = mm_arena_array(txn->arena, r->ngroup, sizeof *txn->tab);
    size_t *count = calloc((size_t)r->ngroup + 1, sizeof *count);
    if (txn->tab == NULL || count == NULL) {
        free(count);
        mm_err_nomem(r->err);
        return;
    }
    for (uint32_t k = 0; k < r->nentry; k++) {
        count[r->entry[k].tab]++;
    }
    uint32_t at = 0;
    for (uint32_t g = 0; g < r->ngroup && r->err->rc == SQLITE_OK; g++) {
        struct mm_tab *t = &txn->tab[at];
        *t = r->group[g].tab;
        t->row = mm_arena_array(txn->arena, count[g], sizeof *t->row);
        if (t->row == NULL) {
            mm_err_nomem(r->err);
        }
        for (uint32_t k = 0; k < r->nentry && t->row != NULL; k++) {
            const struct entry *e = &r->entry[k];
            if (e->tab != g) {
                continue; /* its rows have another number of columns */
            }
            bool nothing =
                e->before == NULL ? e->after == NULL : e->after != NULL && rows_same(e->before, e->after, t->ncol);
            if (!nothing) {
                struct mm_row *row = &t->row[t->nrow++];
                row->before = e->before;
                row->after = e->after;
                row->op = e->before == NULL  ? MM_OP_INSERT
                          : e->after == NULL ? MM_OP_DELETE
                          : e->replaced      ? MM_OP_REPLACE
                                             : MM_OP_UPDATE;
            }
        }
        at += t->nrow > 0;
    }
    txn->ntab = at;
    free(count);
}

static int read_all(struct mm_txn *txn, const void *data, size_t len, const void *names, size_t names_len,
                    bool first_only, mm_coll_of *coll, void *coll_arg, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    struct reader r;
    memset(&r, 0, sizeof r);
    r.txn = txn;
    r.err = err;
    r.start = r.p = data;
    r.end = r.p + len;
    r.names = names;
    r.names_end = r.names + names_len;
    r.coll = coll;
    r.coll_arg = coll_arg;
    r.first_only = first_only;
    mm_buf_init(&r.keys, KEYS_MAX);
    txn->tab = NULL;
    txn->ntab = 0;
    while (r.p < r.end && err->rc == SQLITE_OK) {
        if (*r.p == 'T') {
            read_group(&r);
        } else if (r.ngroup > 0 && (*r.p == SQLITE_INSERT || *r.p == SQLITE_UPDATE || *r.p == SQLITE_DELETE)) {
            read_change(&r);
        } else {
            corrupt(&r, "unknown record");
        }
    }
    if (err->rc == SQLITE_OK) {
        collect(&r);
    }
    mm_buf_free(&r.keys);
    free(r.slot);
    free(r.entry);
    free(r.group);
    return err->rc;
}

int mm_change_read(struct mm_txn *txn, const void *data, size_t len, const void *names, size_t names_len,
                   mm_coll_of *coll, void *coll_arg, struct mm_err *err)
{
    return read_all(txn, data, len, names, names_len, false, coll, coll_arg, err);
}

int mm_change_read_first(struct mm_txn *txn, const void *data, size_t len, const void *names, size_t names_len,
                         mm_coll_of *coll, void *coll_arg, struct mm_err *err)
{
    return read_all(txn, data, len, names, names_len, true, coll, coll_arg, err);
}

bool mm_change_key(struct mm_buf *b, const struct mm_tab *tab, const struct mm_value *row, const uint8_t *coll)
{
    uint32_t found = 0;
    mm_buf_str(b, tab->name);
    mm_buf_byte(b, 0);
    for (uint32_t place = 1; place <= tab->ncol; place++) {
        uint32_t k = 0;
        while (k < tab->ncol && tab->pk[k] != place) {
            k++;
        }
        if (k == tab->ncol) {
            break;
        }
        if (row[k].type == SQLITE_NULL || row[k].type == MM_UNDEF) {
            return false;
        }
        mm_value_key(b, &row[k], (enum mm_coll)coll[k]);
        found++;
    }
    return found > 0;
}

void mm_change_put_table(struct mm_buf *b, const char *name, uint32_t ncol, const uint8_t *pk)
{
    mm_buf_byte(b, 'T');
    mm_varint_put(b, ncol);
    mm_buf_add(b, pk, ncol);
    mm_buf_add(b, name, strlen(name) + 1);
}

void mm_change_put_head(struct mm_buf *b, enum mm_op op)
{
    mm_buf_byte(b, op == MM_OP_INSERT ? SQLITE_INSERT : op == MM_OP_UPDATE ? SQLITE_UPDATE : SQLITE_DELETE);
    mm_buf_byte(b, 0);
}
