#include "repl/pending_int.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_REMEMBERED = 4096 }; /* of one table, a transaction */

struct mm_pending *mm_pending_open(sqlite3 *db, struct mm_outbox *outbox, struct mm_targets *targets, int shard,
                                   struct mm_err *err)
{
    struct mm_pending *p = calloc(1, sizeof *p);
    if (p == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    p->db = db;
    p->outbox = outbox;
    p->targets = targets;
    p->shard = shard;
    return p;
}

void mm_pending_reset(struct mm_pending *p)
{
    for (size_t k = 0; k < p->count; k++) {
        free(mm_pending_at(p, k)->key);
    }
    for (size_t k = 0; k < p->nleft; k++) {
        free(p->left[k].table);
    }
    free(p->left);
    p->left = NULL;
    p->nleft = 0;
    free(p->entry);
    free(p->node);
    free(p->bucket);
    free(p->tail);
    p->entry = NULL;
    p->node = NULL;
    p->bucket = p->tail = NULL;
    p->cap = p->head = p->count = p->undone_from = p->live = 0;
    p->bytes = 0;
    p->nnode = p->node_cap = p->free_node = p->nbucket = 0;
}

void mm_pending_close(struct mm_pending *p)
{
    if (p != NULL) {
        mm_pending_reset(p);
        free(p);
    }
}

void mm_pending_set_all_columns(struct mm_pending *p, bool all)
{
    p->all = all;
}

int64_t mm_pending_bytes(const struct mm_pending *p)
{
    return p->bytes;
}

size_t mm_pending_count(const struct mm_pending *p)
{
    return p->count;
}

struct mm_pend *mm_pending_at(struct mm_pending *p, size_t index)
{
    return &p->entry[(p->head + index) % p->cap];
}

uint64_t mm_pending_number(const struct mm_pending *p, size_t index)
{
    return p->first_number + index;
}

size_t mm_pending_standing(const struct mm_pending *p)
{
    return p->undone_from;
}

bool mm_pending_undone(const struct mm_pending *p, size_t index)
{
    return index >= p->undone_from;
}

static uint32_t *slot_of(uint32_t *table, uint32_t n, uint64_t key)
{
    return &table[(key ^ (key >> 32)) & (n - 1)];
}

/* Rebuilds the buckets at twice the size; the queues keep their order since
** nodes are walked from the oldest bucket entry on. */
static int grow_buckets(struct mm_pending *p, struct mm_err *err)
{
    uint32_t n = p->nbucket == 0 ? 256 : p->nbucket * 2;
    uint32_t *bucket = calloc(n, sizeof *bucket);
    uint32_t *tail = calloc(n, sizeof *tail);
    if (bucket == NULL || tail == NULL) {
        free(bucket);
        free(tail);
        return mm_err_nomem(err);
    }
    for (uint32_t k = 0; k < p->nbucket; k++) {
        uint32_t at = p->bucket[k];
        while (at != 0) {
            struct mm_pend_node *nd = &p->node[at - 1];
            uint32_t next = nd->next;
            uint32_t *t = slot_of(tail, n, nd->key);
            nd->next = 0;
            if (*t == 0) {
                *slot_of(bucket, n, nd->key) = at;
            } else {
                p->node[*t - 1].next = at;
            }
            *t = at;
            at = next;
        }
    }
    free(p->bucket);
    free(p->tail);
    p->bucket = bucket;
    p->tail = tail;
    p->nbucket = n;
    return SQLITE_OK;
}

static int add_node(struct mm_pending *p, uint64_t key, uint64_t number, struct mm_err *err)
{
    if (p->live + 1 > p->nbucket / 2 && grow_buckets(p, err) != SQLITE_OK) {
        return err->rc;
    }
    if (p->free_node == 0 && p->nnode == p->node_cap) {
        uint32_t cap = p->node_cap == 0 ? 256 : p->node_cap * 2;
        struct mm_pend_node *nd = cap > p->node_cap ? realloc(p->node, cap * sizeof *nd) : NULL;
        if (nd == NULL) {
            return mm_err_nomem(err);
        }
        p->node = nd;
        p->node_cap = cap;
    }
    uint32_t at = p->free_node;
    if (at != 0) {
        p->free_node = p->node[at - 1].next;
    } else {
        at = ++p->nnode;
    }
    p->node[at - 1] = (struct mm_pend_node){ .key = key, .number = number, .next = 0 };
    uint32_t *t = slot_of(p->tail, p->nbucket, key);
    if (*t == 0) {
        *slot_of(p->bucket, p->nbucket, key) = at;
    } else {
        p->node[*t - 1].next = at;
    }
    *t = at;
    p->live++;
    return SQLITE_OK;
}

/* Takes the node of (key, number) out of its bucket. */
static void drop_node(struct mm_pending *p, uint64_t key, uint64_t number)
{
    uint32_t *from = slot_of(p->bucket, p->nbucket, key);
    uint32_t before = 0;
    for (uint32_t at = *from; at != 0; before = at, at = p->node[at - 1].next) {
        struct mm_pend_node *nd = &p->node[at - 1];
        if (nd->key != key || nd->number != number) {
            continue;
        }
        uint32_t *t = slot_of(p->tail, p->nbucket, key);
        if (before != 0) {
            p->node[before - 1].next = nd->next;
        } else {
            *from = nd->next;
        }
        if (*t == at) {
            *t = before;
        }
        nd->next = p->free_node;
        p->free_node = at;
        p->live--;
        return;
    }
}

static uint64_t hash_bytes(const uint8_t *b, size_t n)
{
    uint64_t h = 14695981039346656037ULL;
    for (size_t k = 0; k < n; k++) {
        h = (h ^ b[k]) * 1099511628211ULL;
    }
    return h ^ (h >> 31);
}

/* The message's table as this node names it: its name, and of each column the
** place in the key and the collation. What differs in case is the same table. */
static bool local_view(struct mm_targets *targets, const struct mm_tab *tab, struct mm_tab *view, uint8_t **coll,
                       struct mm_err *err)
{
    const struct mm_target *t = mm_targets_get(targets, tab->name, err);
    *view = *tab;
    view->pk = calloc((size_t)tab->ncol + 1, 1);
    *coll = calloc((size_t)tab->ncol + 1, 1);
    if (t == NULL || view->pk == NULL || *coll == NULL) {
        free(view->pk);
        free(*coll);
        mm_err_nomem(err);
        return false;
    }
    view->name = t->def != NULL ? t->def->name : tab->name;
    for (uint32_t k = 0; k < tab->ncol; k++) {
        int at = t->def != NULL ? mm_target_column(t, tab->col[k]) : -1;
        view->pk[k] = at >= 0 ? t->def->col[at].pk : t->def == NULL ? tab->pk[k] : 0;
        (*coll)[k] = at >= 0 ? t->def->col[at].coll : (uint8_t)MM_COLL_BINARY;
    }
    return true;
}

/* Tables whose rows are not independent of each other overlap as a whole. */
static bool whole_table(struct mm_targets *targets, const char *name, struct mm_err *err)
{
    const struct mm_target *t = mm_targets_get(targets, name, err);
    return t != NULL && t->def != NULL && (t->def->keyless || t->def->nunique > 0 || t->policy != NULL);
}

/* Calls back with the hash of each key that the transaction touches. */
typedef int on_key(void *arg, uint64_t key, struct mm_err *err);

/* What is pending stands under its rows, or under the table when these are not
** independent or too many to be remembered; so what comes is looked up under
** both (`look`). */
static int each_key(struct mm_targets *targets, int shard, const struct mm_txn *txn, bool look, on_key *call, void *arg,
                    struct mm_err *err)
{
    struct mm_buf b;
    mm_buf_init(&b, (size_t)1 << 30);
    for (size_t k = 0; k < txn->ntab && err->rc == SQLITE_OK; k++) {
        const struct mm_tab *tab = &txn->tab[k];
        if (mm_targets_shard(targets, tab->name, err) != shard || tab->nrow == 0) {
            continue;
        }
        struct mm_tab view;
        uint8_t *coll;
        if (!local_view(targets, tab, &view, &coll, err)) {
            break;
        }
        bool whole = whole_table(targets, tab->name, err);
        if (whole || look || tab->nrow > ROWS_REMEMBERED) {
            call(arg, hash_bytes((const uint8_t *)view.name, strlen(view.name) + 1), err);
        }
        bool rows = !whole && (look || tab->nrow <= ROWS_REMEMBERED);
        for (size_t j = 0; rows && j < tab->nrow && err->rc == SQLITE_OK; j++) {
            const struct mm_row *row = &tab->row[j];
            mm_buf_clear(&b);
            mm_change_key(&b, &view, row->before != NULL ? row->before : row->after, coll);
            if (mm_buf_check(&b, err, "a key") == SQLITE_OK) {
                call(arg, hash_bytes(b.data, b.len), err);
            }
        }
        free(view.pk);
        free(coll);
    }
    mm_buf_free(&b);
    return err->rc;
}

struct collect {
    uint64_t *key;
    size_t n, cap;
};

static int collect_key(void *arg, uint64_t key, struct mm_err *err)
{
    struct collect *c = arg;
    if (c->n == c->cap) {
        size_t cap = c->cap == 0 ? 4 : c->cap * 2;
        uint64_t *p = realloc(c->key, cap * sizeof *p);
        if (p == NULL) {
            return mm_err_nomem(err);
        }
        c->key = p;
        c->cap = cap;
    }
    c->key[c->n++] = key;
    return SQLITE_OK;
}

static int grow_ring(struct mm_pending *p, struct mm_err *err)
{
    size_t cap = p->cap == 0 ? 64 : p->cap * 2;
    struct mm_pend *e = calloc(cap, sizeof *e);
    if (e == NULL) {
        return mm_err_nomem(err);
    }
    for (size_t k = 0; k < p->count; k++) {
        e[k] = *mm_pending_at(p, k);
    }
    free(p->entry);
    p->entry = e;
    p->cap = cap;
    p->head = 0;
    return SQLITE_OK;
}

int mm_pending_push(struct mm_pending *p, const struct mm_outbox_row *row, const struct mm_txn *txn, int64_t bytes,
                    struct mm_err *err)
{
    struct collect c = { NULL, 0, 0 };
    bool clean = true;
    if (txn != NULL) {
        each_key(p->targets, p->shard, txn, false, collect_key, &c, err);
        if (err->rc != SQLITE_OK || c.n == 0) {
            free(c.key);
            return err->rc;
        }
        /* What an earlier run redid keeps its verdict. */
        mm_outbox_undo_get(p->outbox, row->id, p->shard, &clean, NULL, err);
    }
    if (p->count == p->cap) {
        grow_ring(p, err);
    }
    for (size_t k = 0; k < c.n && err->rc == SQLITE_OK; k++) {
        add_node(p, c.key[k], p->first_number + p->count, err);
    }
    if (err->rc != SQLITE_OK) { /* the owner resets after an error: nodes need no undoing */
        free(c.key);
        return err->rc;
    }
    bool none_undone = p->undone_from == p->count;
    struct mm_pend *e = mm_pending_at(p, p->count++);
    memset(e, 0, sizeof *e);
    e->id = row->id;
    e->incarnation = row->incarnation;
    memcpy(e->txid, row->txid, sizeof e->txid);
    e->kind = row->kind;
    e->clean = clean;
    e->bytes = bytes;
    p->bytes += bytes;
    e->at = row->at;
    e->key = c.key;
    e->nkey = c.n;
    if (none_undone) {
        p->undone_from = p->count;
    }
    return err->rc;
}

int mm_pending_left(struct mm_pending *p, const char *table, bool joined, struct mm_err *err)
{
    struct mm_pend_left *list = realloc(p->left, (p->nleft + 1) * sizeof *list);
    char *name = strdup(table);
    if (list != NULL) {
        p->left = list;
    }
    if (list == NULL || name == NULL) {
        free(name);
        return mm_err_nomem(err);
    }
    list[p->nleft++] = (struct mm_pend_left){ mm_pending_at(p, p->count - 1)->id, name, joined };
    for (size_t k = 0; k + 1 < p->count; k++) { /* an echo may have to be folded into it after all */
        mm_pending_at(p, k)->clean = false;
    }
    return err->rc;
}

bool mm_pending_before(const struct mm_pending *p, int64_t id, const char *table, bool *joined)
{
    const struct mm_pend_left *first = NULL; /* that came behind it */
    for (size_t k = 0; k < p->nleft; k++) {
        bool behind = p->left[k].id > id && sqlite3_stricmp(p->left[k].table, table) == 0;
        first = behind && (first == NULL || p->left[k].id < first->id) ? &p->left[k] : first;
    }
    *joined = first != NULL && first->joined;
    return first != NULL;
}

static void forget_left(struct mm_pending *p, int64_t id)
{
    for (size_t k = 0; k < p->nleft; k++) {
        if (p->left[k].id == id) {
            free(p->left[k].table);
            p->left[k] = p->left[--p->nleft];
            return;
        }
    }
}

struct overlap {
    struct mm_pending *p;
    uint64_t first; /* smallest number found */
};

static int look_key(void *arg, uint64_t key, struct mm_err *err)
{
    struct overlap *o = arg;
    (void)err;
    for (uint32_t at = *slot_of(o->p->bucket, o->p->nbucket, key); at != 0; at = o->p->node[at - 1].next) {
        if (o->p->node[at - 1].key == key) {
            if (o->p->node[at - 1].number < o->first) {
                o->first = o->p->node[at - 1].number;
            }
            break; /* the queue is in order */
        }
    }
    return SQLITE_OK;
}

size_t mm_pending_overlap(struct mm_pending *p, const struct mm_txn *txn, struct mm_err *err)
{
    struct overlap o = { p, p->first_number + p->count };
    if (p->nbucket > 0 && p->count > 0) {
        each_key(p->targets, p->shard, txn, true, look_key, &o, err);
    }
    return (size_t)(o.first - p->first_number);
}

void mm_pending_pop(struct mm_pending *p)
{
    struct mm_pend *e = mm_pending_at(p, 0);
    for (size_t k = 0; k < e->nkey; k++) {
        drop_node(p, e->key[k], p->first_number);
    }
    free(e->key);
    e->key = NULL;
    forget_left(p, e->id);
    p->bytes -= e->bytes;
    p->head = (p->head + 1) % p->cap;
    p->count--;
    p->first_number++;
    if (p->undone_from > 0) {
        p->undone_from--;
    }
}
