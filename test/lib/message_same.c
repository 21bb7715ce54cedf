#include <stdio.h>
#include <string.h>

#include "test/lib/message.h"

static bool differ(char why[128], const char *what, size_t tab, size_t row, uint32_t col)
{
    (void)snprintf(why, 128, "%s differs (table %zu, row %zu, column %u)", what, tab, row, col);
    return false;
}

static bool whole_row(const struct mm_tab *t, const struct mm_row *row)
{
    bool keyed = false;
    for (uint32_t k = 0; k < t->ncol; k++) {
        keyed = keyed || t->pk[k] != 0;
        if (t->pk[k] != 0 && row->before[k].type == SQLITE_NULL) {
            return true;
        }
    }
    return !keyed;
}

static bool update_same(const struct mm_tab *t, const struct mm_row *sent, const struct mm_row *got, bool all_columns,
                        uint32_t *col)
{
    static const struct mm_value none;
    bool whole = whole_row(t, sent);
    for (uint32_t k = 0; k < t->ncol; k++) {
        const struct mm_value *old = &sent->before[k];
        const struct mm_value *new = &sent->after[k];
        bool key = t->pk[k] != 0;
        bool changed = !key && new->type != MM_UNDEF && (all_columns || !mm_value_same(old, new));
        *col = k;
        if (!mm_value_same(&got->before[k], key || changed || whole ? old : &none) ||
            !mm_value_same(&got->after[k], key       ? old
                                           : changed ? new
                                                     : &none)) {
            return false;
        }
    }
    return true;
}

static bool values_same(const struct mm_value *a, const struct mm_value *b, uint32_t n, uint32_t *col)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    for (*col = 0; *col < n; (*col)++) {
        if (!mm_value_same(&a[*col], &b[*col])) {
            return false;
        }
    }
    return true;
}

static bool row_same(const struct mm_tab *t, const struct mm_row *sent, const struct mm_row *got, bool all_columns,
                     uint32_t *col)
{
    *col = 0;
    if (sent->op != got->op) {
        return false;
    }
    if (sent->op == MM_OP_UPDATE) {
        return update_same(t, sent, got, all_columns, col);
    }
    return values_same(sent->before, got->before, t->ncol, col) && values_same(sent->after, got->after, t->ncol, col);
}

bool message_txn_same(const struct mm_txn *sent, const struct mm_txn *got, bool all_columns, char why[128])
{
    uint32_t col = 0;
    if (sent->ntab != got->ntab) {
        return differ(why, "number of tables", 0, 0, 0);
    }
    for (size_t i = 0; i < sent->ntab; i++) {
        const struct mm_tab *a = &sent->tab[i];
        const struct mm_tab *b = &got->tab[i];
        if (strcmp(a->name, b->name) != 0 || a->ncol != b->ncol || a->nrow != b->nrow ||
            memcmp(a->pk, b->pk, a->ncol) != 0) {
            return differ(why, "shape", i, 0, 0);
        }
        for (uint32_t k = 0; k < a->ncol; k++) {
            if (strcmp(a->col[k], b->col[k]) != 0) {
                return differ(why, "name", i, 0, k);
            }
        }
        for (size_t k = 0; k < a->nrow; k++) {
            if (!row_same(a, &a->row[k], &b->row[k], all_columns, &col)) {
                return differ(why, "row", i, k, col);
            }
        }
    }
    return true;
}

static bool control_same(const struct mm_msg *a, const struct mm_msg *b)
{
    if (a->control.ntable != b->control.ntable || ((a->kind == MM_MSG_FOUNDED || a->kind == MM_MSG_SEEDED) &&
                                                   (strcmp(a->control.cluster_id, b->control.cluster_id) != 0 ||
                                                    strcmp(a->control.settings, b->control.settings) != 0))) {
        return false;
    }
    if (a->kind == MM_MSG_POLICY &&
        (strcmp(a->control.policy_table, b->control.policy_table) != 0 ||
         strcmp(a->control.policy_column, b->control.policy_column) != 0 || a->control.policy != b->control.policy)) {
        return false;
    }
    if (memcmp(a->control.verify_id, b->control.verify_id, sizeof a->control.verify_id) != 0 ||
        a->control.verify_seq != b->control.verify_seq || a->control.from_epoch != b->control.from_epoch ||
        a->control.nplace != b->control.nplace || a->control.ended_node != b->control.ended_node ||
        a->control.ended_incarnation != b->control.ended_incarnation ||
        memcmp(a->control.ended_txid, b->control.ended_txid, sizeof a->control.ended_txid) != 0) {
        return false;
    }
    for (size_t k = 0; k < a->control.nplace; k++) {
        const struct mm_msg_place *x = &a->control.place[k];
        const struct mm_msg_place *y = &b->control.place[k];
        if (x->seq != y->seq || memcmp(x->digest, y->digest, sizeof x->digest) != 0) {
            return false;
        }
    }
    for (size_t k = 0; k < a->control.ntable; k++) {
        const struct mm_msg_table *x = &a->control.table[k];
        const struct mm_msg_table *y = &b->control.table[k];
        if (strcmp(x->name, y->name) != 0 || x->schema_hash != y->schema_hash || x->rows != y->rows ||
            memcmp(x->content, y->content, sizeof x->content) != 0) {
            return false;
        }
    }
    return true;
}

bool message_same(const struct mm_msg *a, const struct mm_msg *b, char why[128])
{
    if (a->kind != b->kind || a->epoch != b->epoch || a->node != b->node || a->incarnation != b->incarnation ||
        a->origin_seq != b->origin_seq || memcmp(a->txid, b->txid, sizeof a->txid) != 0 ||
        memcmp(a->prev, b->prev, sizeof a->prev) != 0 || a->outbox_first != b->outbox_first ||
        a->outbox_last != b->outbox_last || a->log_first != b->log_first || a->log_last != b->log_last ||
        a->at_ms != b->at_ms || a->schema_version != b->schema_version) {
        return differ(why, "head", 0, 0, 0);
    }
    if (a->kind == MM_MSG_TXN) {
        return message_txn_same(&a->txn, &b->txn, a->all_columns, why);
    }
    if (a->kind == MM_MSG_PART) {
        bool same = a->part.number == b->part.number && a->part.count == b->part.count && a->part.len == b->part.len &&
                    memcmp(a->part.sha256, b->part.sha256, 32) == 0 &&
                    memcmp(a->part.data, b->part.data, a->part.len) == 0;
        return same || differ(why, "part", 0, 0, 0);
    }
    return control_same(a, b) || differ(why, "control", 0, 0, 0);
}

static uint64_t touch_values(const struct mm_value *v, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t k = 0; v != NULL && k < n; k++) {
        sum += v[k].type;
        if (v[k].type == SQLITE_INTEGER || v[k].type == SQLITE_FLOAT) {
            sum += (uint64_t)v[k].u.i;
        }
        for (uint32_t i = 0; (v[k].type == SQLITE_TEXT || v[k].type == SQLITE_BLOB) && i < v[k].len; i++) {
            sum += v[k].u.p[i];
        }
    }
    return sum;
}

uint64_t message_touch_txn(const struct mm_txn *txn)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < txn->ntab; i++) {
        const struct mm_tab *t = &txn->tab[i];
        sum += strlen(t->name);
        for (uint32_t k = 0; k < t->ncol; k++) {
            sum += strlen(t->col[k]) + t->pk[k];
        }
        for (size_t k = 0; k < t->nrow; k++) {
            sum += touch_values(t->row[k].before, t->ncol) + touch_values(t->row[k].after, t->ncol);
        }
    }
    return sum;
}

uint64_t message_touch(const struct mm_msg *m)
{
    uint64_t sum = m->kind == MM_MSG_TXN ? message_touch_txn(&m->txn) : 0;
    for (size_t k = 0; k < m->part.len; k++) {
        sum += m->part.data[k];
    }
    for (size_t k = 0; k < m->control.ntable; k++) {
        sum += strlen(m->control.table[k].name);
    }
    if (m->kind == MM_MSG_POLICY) {
        sum += strlen(m->control.policy_table) + strlen(m->control.policy_column);
    }
    for (size_t k = 0; k < m->control.nplace; k++) {
        sum += (size_t)m->control.place[k].seq;
    }
    sum += m->control.ended_txid[0];
    if (m->kind == MM_MSG_FOUNDED || m->kind == MM_MSG_SEEDED) {
        sum += strlen(m->control.cluster_id) + strlen(m->control.settings);
    }
    return sum;
}
