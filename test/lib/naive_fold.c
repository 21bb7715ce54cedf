#include "test/lib/naive_fold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "naive_fold: out of memory\n");
        exit(2);
    }
    return p;
}

static void free_row(struct naive_row *row)
{
    for (int k = 0; k < NAIVE_COLUMNS; k++) {
        naive_value_free(&row->v[k]);
    }
}

static struct naive_row copy_row(const struct naive_row *row)
{
    struct naive_row c;
    for (int k = 0; k < NAIVE_COLUMNS; k++) {
        c.v[k] = naive_value_copy(&row->v[k]);
    }
    return c;
}

/* Takes the row. */
static void add_row(struct naive_table *t, struct naive_row row)
{
    if (t->n == t->cap) {
        t->cap = t->cap == 0 ? 8 : t->cap * 2;
        t->row = need(realloc(t->row, t->cap * sizeof *t->row));
    }
    t->row[t->n++] = row;
}

static void drop_row(struct naive_table *t, size_t at)
{
    free_row(&t->row[at]);
    t->row[at] = t->row[--t->n];
}

void naive_init(struct naive *s, const struct naive_def *def, int n)
{
    memset(s, 0, sizeof *s);
    s->ntable = n;
    for (int k = 0; k < n; k++) {
        s->table[k].def = &def[k];
    }
}

void naive_free(struct naive *s)
{
    for (int k = 0; k < s->ntable; k++) {
        while (s->table[k].n > 0) {
            drop_row(&s->table[k], 0);
        }
        free(s->table[k].row);
    }
    for (size_t k = 0; k < s->norigin; k++) {
        free(s->origin[k].parts);
    }
    free(s->origin);
    free(s->accepted);
    memset(s, 0, sizeof *s);
}

void naive_copy(struct naive *to, const struct naive *from)
{
    memset(to, 0, sizeof *to);
    to->ntable = from->ntable;
    for (int k = 0; k < from->ntable; k++) {
        to->table[k].def = from->table[k].def;
        memcpy(to->table[k].policy, from->table[k].policy, sizeof to->table[k].policy);
        for (size_t j = 0; j < from->table[k].n; j++) {
            add_row(&to->table[k], copy_row(&from->table[k].row[j]));
        }
    }
}

void naive_put(struct naive *s, int table, const struct mm_value *row)
{
    struct naive_row r;
    memset(&r, 0, sizeof r);
    for (int k = 0; k < s->table[table].def->ncol; k++) {
        r.v[k] = naive_value_copy(&row[k]);
    }
    add_row(&s->table[table], r);
}

/* --- rows --- */

static bool has_key(const struct naive_def *d, const struct naive_row *row)
{
    int keys = 0;
    for (int k = 0; k < d->ncol; k++) {
        if (d->pk[k] != 0) {
            keys++;
            if (row->v[k].type == SQLITE_NULL) {
                return false;
            }
        }
    }
    return keys > 0;
}

static int key_order(const struct naive_def *d, const struct naive_row *a, const struct naive_row *b)
{
    for (int place = 1; place <= d->ncol; place++) {
        for (int k = 0; k < d->ncol; k++) {
            int o = d->pk[k] == place ? naive_value_order(&a->v[k], &b->v[k], d->coll[k]) : 0;
            if (o != 0) {
                return o;
            }
        }
    }
    return 0;
}

/* Index of the row under the key, -1 when there is none. */
static long find_key(const struct naive_table *t, const struct naive_row *key)
{
    for (size_t k = 0; k < t->n; k++) {
        if (has_key(t->def, &t->row[k]) && key_order(t->def, &t->row[k], key) == 0) {
            return (long)k;
        }
    }
    return -1;
}

static long find_same(const struct naive_table *t, const struct naive_row *row)
{
    for (size_t k = 0; k < t->n; k++) {
        bool same = true;
        for (int c = 0; c < t->def->ncol; c++) {
            same = same && naive_value_same(&t->row[k].v[c], &row->v[c]);
        }
        if (same) {
            return (long)k;
        }
    }
    return -1;
}

/* --- one transaction --- */

/* A change's row in the order of the definition; borrowed bytes. */
static bool local_row(const struct naive_def *d, const struct mm_tab *tab, const struct mm_value *from,
                      struct naive_row *to)
{
    memset(to, 0, sizeof *to);
    for (uint32_t c = 0; from != NULL && c < tab->ncol; c++) {
        for (int k = 0; k < d->ncol; k++) {
            if (strcmp(d->col[k], tab->col[c]) == 0) {
                to->v[k] = from[c];
            }
        }
    }
    return from != NULL;
}

/* A changed column's new value; all borrowed. */
static struct mm_value meet(enum mm_policy policy, const struct mm_value *current, const struct mm_value *old,
                            const struct mm_value *new)
{
    bool null = new->type == SQLITE_NULL || current->type == SQLITE_NULL;
    if (policy == MM_POLICY_DELTA) {
        return naive_value_delta(current, old, new);
    }
    if (policy == MM_POLICY_LAST) {
        return *new;
    }
    if (null) {
        return new->type == SQLITE_NULL ? *current : *new;
    }
    int order = naive_value_order(new, current, MM_COLL_BINARY);
    return (order > 0) == (policy == MM_POLICY_MAX) ? *new : *current;
}

/* Columns that the UPDATE changed, over `row` (owned). */
static void set_changed(const struct naive_table *t, const struct naive_row *before, const struct naive_row *after,
                        bool captured, bool keyless, struct naive_row *row)
{
    for (int k = 0; k < t->def->ncol; k++) {
        bool changed = after->v[k].type != MM_UNDEF && (!captured || !naive_value_same(&before->v[k], &after->v[k]));
        if (changed && (keyless || t->def->pk[k] == 0)) {
            struct mm_value v = keyless ? after->v[k] : meet(t->policy[k], &row->v[k], &before->v[k], &after->v[k]);
            v = naive_value_copy(&v);
            naive_value_free(&row->v[k]);
            row->v[k] = v;
        }
    }
}

/* Rows without identity that will be written, in order. */
struct plan {
    struct naive_row *row;
    bool *gone;
    size_t n;
};

static bool same_row(const struct naive_def *d, const struct naive_row *a, const struct naive_row *b)
{
    bool same = true;
    for (int c = 0; c < d->ncol; c++) {
        same = same && naive_value_same(&a->v[c], &b->v[c]);
    }
    return same;
}

/* One row that equals `row`, of the plan or of the table, leaves it. */
static bool take_same(struct naive_table *t, struct plan *p, const struct naive_row *row)
{
    for (size_t k = 0; k < p->n; k++) {
        if (!p->gone[k] && same_row(t->def, &p->row[k], row)) {
            p->gone[k] = true;
            return true;
        }
    }
    long at = find_same(t, row);
    if (at >= 0) {
        drop_row(t, (size_t)at);
    }
    return at >= 0;
}

static void plan_keyless(struct naive_table *t, struct plan *p, enum mm_op op, const struct naive_row *before,
                         const struct naive_row *after, bool captured)
{
    bool there = op == MM_OP_INSERT || take_same(t, p, before);
    if (op == MM_OP_DELETE || (op == MM_OP_UPDATE && !there)) {
        return;
    }
    p->row[p->n] = copy_row(op == MM_OP_UPDATE ? before : after);
    if (op == MM_OP_UPDATE) {
        set_changed(t, before, after, captured, true, &p->row[p->n]);
    }
    p->n++;
}

/* A column that the sender lacked keeps what is here, or holds what it was given. */
static void fill(const struct naive_table *t, long current, struct naive_row *image)
{
    for (int k = t->def->younger; k > 0 && k < t->def->ncol; k++) {
        if (image->v[k].type == MM_UNDEF) {
            image->v[k] = naive_value_copy(current >= 0 ? &t->row[current].v[k] : &t->def->given[k]);
        }
    }
}

/* The image of a keyed row; false: there is none afterwards. */
static bool image_of(const struct naive_table *t, enum mm_op op, const struct naive_row *before,
                     const struct naive_row *after, bool captured, struct naive_row *image)
{
    if (op == MM_OP_DELETE) {
        return false;
    }
    if (op == MM_OP_INSERT || op == MM_OP_REPLACE) {
        *image = copy_row(after);
        fill(t, find_key(t, after), image);
        return true;
    }
    long at = find_key(t, before);
    if (at < 0) {
        return false;
    }
    *image = copy_row(&t->row[at]);
    set_changed(t, before, after, captured, false, image);
    return true;
}

/* What an index with a rule holds of the row; false: nothing. Owned. */
static bool rule_value(const struct naive_def *d, const struct naive_row *row, struct mm_value *out)
{
    const struct mm_value one = { .type = SQLITE_INTEGER, .u.i = 1 };
    if (d->rule == NAIVE_NO_RULE || row->v[1].type == SQLITE_NULL ||
        (d->rule == NAIVE_SECOND_WHERE_THIRD && !naive_key_equal(&row->v[2], &one, MM_COLL_BINARY))) {
        return false;
    }
    *out = naive_value_copy(&row->v[1]);
    for (uint32_t k = 0; d->rule == NAIVE_LOWER_SECOND && k < out->len; k++) {
        uint8_t *p = (uint8_t *)(uintptr_t)out->u.p;
        p[k] = p[k] >= 'A' && p[k] <= 'Z' ? (uint8_t)(p[k] + 32) : p[k];
    }
    return true;
}

static bool clash(const struct naive_def *d, const struct naive_row *a, const struct naive_row *b)
{
    bool found = false;
    for (int c = 0; c < d->ncol; c++) {
        found = found || (d->unique[c] != 0 && naive_key_equal(&a->v[c], &b->v[c], d->coll[c]));
    }
    struct mm_value x = { .type = MM_UNDEF };
    struct mm_value y = { .type = MM_UNDEF };
    if (rule_value(d, a, &x) && rule_value(d, b, &y)) {
        found = found || naive_key_equal(&x, &y, MM_COLL_BINARY);
    }
    naive_value_free(&x);
    naive_value_free(&y);
    return found;
}

static void evict(struct naive_table *t, const struct naive_row *image)
{
    for (size_t k = t->n; k-- > 0;) {
        if (clash(t->def, &t->row[k], image)) {
            drop_row(t, k);
        }
    }
}

static void apply_table(struct naive_table *t, const struct mm_tab *tab, bool captured)
{
    struct naive_row *image = need(calloc(tab->nrow + 1, sizeof *image));
    struct naive_row *gone = need(calloc(tab->nrow + 1, sizeof *gone)); /* keys, borrowed */
    struct plan plan = { need(calloc(tab->nrow + 1, sizeof *plan.row)), need(calloc(tab->nrow + 1, 1)), 0 };
    size_t nimage = 0;
    size_t ngone = 0;
    for (size_t j = 0; j < tab->nrow; j++) {
        struct naive_row before;
        struct naive_row after;
        bool old = local_row(t->def, tab, tab->row[j].before, &before);
        local_row(t->def, tab, tab->row[j].after, &after);
        if (!has_key(t->def, old ? &before : &after)) {
            plan_keyless(t, &plan, tab->row[j].op, &before, &after, captured);
            continue;
        }
        gone[ngone++] = old ? before : after;
        nimage += image_of(t, tab->row[j].op, &before, &after, captured, &image[nimage]);
    }
    for (size_t k = 0; k < ngone; k++) {
        long at = find_key(t, &gone[k]);
        if (at >= 0) {
            drop_row(t, (size_t)at);
        }
    }
    for (size_t left = nimage; left > 0; left--) { /* ascending keys: the smallest of what is left */
        size_t least = 0;
        for (size_t k = 1; k < left; k++) {
            least = key_order(t->def, &image[k], &image[least]) < 0 ? k : least;
        }
        evict(t, &image[least]);
        add_row(t, image[least]);
        image[least] = image[left - 1];
    }
    for (size_t k = 0; k < plan.n; k++) { /* rows without identity as the message has them */
        if (plan.gone[k]) {
            free_row(&plan.row[k]);
        } else {
            evict(t, &plan.row[k]);
            add_row(t, plan.row[k]);
        }
    }
    free(plan.row);
    free(plan.gone);
    free(image);
    free(gone);
}

void naive_apply(struct naive *s, const struct mm_txn *txn, bool captured)
{
    for (size_t i = 0; i < txn->ntab; i++) {
        for (int k = 0; k < s->ntable; k++) {
            if (strcmp(s->table[k].def->name, txn->tab[i].name) == 0) {
                apply_table(&s->table[k], &txn->tab[i], captured);
            }
        }
    }
}

/* --- messages --- */

static struct naive_origin *origin_of(struct naive *s, int64_t node, int64_t incarnation)
{
    for (size_t k = 0; k < s->norigin; k++) {
        if (s->origin[k].node == node && s->origin[k].incarnation == incarnation) {
            return &s->origin[k];
        }
    }
    s->origin = need(realloc(s->origin, (s->norigin + 1) * sizeof *s->origin));
    struct naive_origin *o = &s->origin[s->norigin++];
    memset(o, 0, sizeof *o);
    o->node = node;
    o->incarnation = incarnation;
    return o;
}

/* True when the last part is there: all of them are in o->parts. */
static bool take_part(struct naive_origin *o, const struct mm_msg *m)
{
    if (m->part.number == 0) {
        o->held = 0;
        o->parts_len = 0;
        o->count = m->part.count;
        memcpy(o->part_txid, m->txid, sizeof o->part_txid);
        memcpy(o->sha256, m->part.sha256, sizeof o->sha256);
    } else if (o->held != m->part.number || o->count != m->part.count ||
               memcmp(o->part_txid, m->txid, sizeof o->part_txid) != 0 ||
               memcmp(o->sha256, m->part.sha256, sizeof o->sha256) != 0) {
        return false;
    }
    o->parts = need(realloc(o->parts, o->parts_len + m->part.len + 1));
    memcpy(o->parts + o->parts_len, m->part.data, m->part.len);
    o->parts_len += m->part.len;
    o->held++;
    return o->held == o->count;
}

static void end_parts(struct naive_origin *o, const struct mm_msg *m)
{
    if (memcmp(o->part_txid, m->control.ended_txid, sizeof o->part_txid) == 0) {
        o->held = 0;
        o->count = -1;
    }
}

static void set_policy(struct naive *s, const struct mm_msg *m)
{
    for (int t = 0; t < s->ntable; t++) {
        for (int k = 0; k < s->table[t].def->ncol; k++) {
            if (strcmp(s->table[t].def->name, m->control.policy_table) == 0 &&
                strcmp(s->table[t].def->col[k], m->control.policy_column) == 0) {
                s->table[t].policy[k] = (enum mm_policy)m->control.policy;
            }
        }
    }
}

static void accept(struct naive *s, struct naive_origin *o, const struct mm_msg *m)
{
    o->seq = m->origin_seq;
    memcpy(o->txid, m->txid, sizeof o->txid);
    s->accepted = need(realloc(s->accepted, (s->naccepted + 1) * sizeof *s->accepted));
    memcpy(s->accepted[s->naccepted++], m->txid, MM_TXID_SIZE);
}

void naive_message(struct naive *s, int64_t seq, const void *data, size_t len, bool zstd)
{
    struct mm_arena a;
    struct mm_err err;
    struct mm_msg m;
    mm_arena_init(&a, (size_t)1 << 30);
    mm_err_init(&err);
    int64_t epoch = s->epoch > 0 ? s->epoch : 1;
    bool readable = !s->over && mm_wire_decode(&m, data, len, zstd, &a, &err) == SQLITE_OK;
    s->over = s->over || (readable && m.kind == MM_MSG_SEEDED && m.epoch > epoch);
    s->seq = s->over ? s->seq : seq;
    if (readable && m.kind != MM_MSG_FOUNDED && m.kind != MM_MSG_SEEDED) {
        struct naive_origin *o = origin_of(s, m.node, m.incarnation);
        struct mm_txn joined = { .arena = &a };
        uint8_t sha[32];
        bool good = m.epoch == epoch && m.origin_seq == o->seq + 1 && memcmp(m.prev, o->txid, sizeof m.prev) == 0;
        if (good && m.kind == MM_MSG_PART) {
            good = take_part(o, &m);
            if (good) {
                mm_wire_sha256(o->parts, o->parts_len, sha);
                good = memcmp(sha, o->sha256, sizeof sha) == 0 &&
                       mm_wire_decode_txn(&joined, o->parts, o->parts_len, &a, &err) == SQLITE_OK;
                o->held = 0;
                o->count = -1;
            }
        }
        if (good) {
            naive_apply(s, m.kind == MM_MSG_PART ? &joined : &m.txn, false);
            if (m.kind == MM_MSG_POLICY) {
                set_policy(s, &m);
            } else if (m.kind == MM_MSG_ENDED) {
                end_parts(origin_of(s, m.control.ended_node, m.control.ended_incarnation), &m);
                o = origin_of(s, m.node, m.incarnation); /* that may have moved them all */
            }
            accept(s, o, &m);
        }
    }
    mm_arena_free(&a);
}
