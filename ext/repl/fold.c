#include "repl/fold.h"

#include <string.h>

#include "store/policy.h"

const char *mm_conflict_name(enum mm_conflict_kind k)
{
    static const char *const names[] = {
        "none", "insert", "update", "update_missing", "delete", "unique", "foreign_key"
    };
    return names[k];
}

const char *mm_verdict_name(enum mm_verdict v)
{
    static const char *const names[] = { "accepted", "another epoch", "duplicate", "hole", "another lineage" };
    return names[v];
}

/* A value that was sent and is not the one that is there. */
static bool unexpected(const struct mm_value *sent, const struct mm_value *there)
{
    return sent->type != MM_UNDEF && there->type != MM_UNDEF && !mm_value_same(sent, there);
}

static bool any_unexpected(const struct mm_value *sent, const struct mm_value *there, uint32_t ncol)
{
    for (uint32_t k = 0; k < ncol; k++) {
        if (unexpected(&sent[k], &there[k])) {
            return true;
        }
    }
    return false;
}

static enum mm_fold_act fold_full(uint32_t ncol, const struct mm_value *before, const struct mm_value *after,
                                  const struct mm_value *current, struct mm_value *image,
                                  enum mm_conflict_kind *conflict)
{
    for (uint32_t k = 0; k < ncol; k++) {
        /* A column that the sender does not know keeps what is here. */
        image[k] = after[k].type == MM_UNDEF && current != NULL ? current[k] : after[k];
    }
    if (current != NULL && any_unexpected(after, current, ncol) &&
        (before == NULL || any_unexpected(before, current, ncol))) {
        *conflict = MM_CONFLICT_INSERT;
    }
    return MM_FOLD_WRITE;
}

static bool is_number(const struct mm_value *v)
{
    return v->type == SQLITE_INTEGER || v->type == SQLITE_FLOAT;
}

static double as_real(const struct mm_value *v)
{
    return v->type == SQLITE_INTEGER ? (double)v->u.i : v->u.r;
}

/* current + (new - old); the difference may need one bit more than int64. */
static struct mm_value add_delta(const struct mm_value *current, const struct mm_value *old, const struct mm_value *new)
{
    struct mm_value sum = *new;
    if (current->type == SQLITE_INTEGER && old->type == SQLITE_INTEGER && new->type == SQLITE_INTEGER) {
        __int128 exact = (__int128)current->u.i + new->u.i - old->u.i;
        sum.u.i = exact > INT64_MAX ? INT64_MAX : exact < INT64_MIN ? INT64_MIN : (int64_t)exact;
    } else {
        sum.type = SQLITE_FLOAT;
        sum.u.r = as_real(current) + (as_real(new) - as_real(old));
    }
    return sum;
}

/* Order of values as SQLite has it: numbers, then text, then blobs. */
static int compare(const struct mm_value *a, const struct mm_value *b)
{
    int rank = (is_number(a) ? 0 : a->type) - (is_number(b) ? 0 : b->type);
    if (rank != 0) {
        return rank;
    }
    if (is_number(a)) {
        return mm_value_numbers(a, b);
    }
    uint32_t n = a->len < b->len ? a->len : b->len;
    int c = n > 0 ? memcmp(a->u.p, b->u.p, n) : 0;
    return c != 0 ? c : a->len < b->len ? -1 : a->len > b->len;
}

/* The column's new value by its policy; false: it is as with 'last'. */
static bool meet(enum mm_policy policy, const struct mm_value *current, const struct mm_value *old,
                 const struct mm_value *new, struct mm_value *image)
{
    switch (policy) {
    case MM_POLICY_DELTA:
        if (!is_number(current) || !is_number(old) || !is_number(new)) {
            return false;
        }
        *image = add_delta(current, old, new);
        return true;
    case MM_POLICY_MAX:
    case MM_POLICY_MIN:
        if (new->type == SQLITE_NULL || current->type == SQLITE_NULL) {
            *image = new->type == SQLITE_NULL ? *current : *new;
        } else {
            bool larger = compare(new, current) > 0;
            *image = larger == (policy == MM_POLICY_MAX) ? *new : *current;
        }
        return true;
    default:
        return false;
    }
}

static enum mm_fold_act fold_update(bool all, const struct mm_fold_columns *c, const struct mm_value *before,
                                    const struct mm_value *after, const struct mm_value *current,
                                    struct mm_value *image, enum mm_conflict_kind *conflict)
{
    if (current == NULL) {
        *conflict = MM_CONFLICT_UPDATE_MISSING;
        return MM_FOLD_NOTHING;
    }
    bool changed = false;
    for (uint32_t k = 0; k < c->n; k++) {
        image[k] = current[k];
        if (c->pk[k] != 0 || after[k].type == MM_UNDEF || (!all && mm_value_same(&before[k], &after[k]))) {
            continue;
        }
        enum mm_policy policy = c->policy != NULL ? (enum mm_policy)c->policy[k] : MM_POLICY_LAST;
        if (!meet(policy, &current[k], &before[k], &after[k], &image[k])) {
            image[k] = after[k];
            if (!mm_value_same(&after[k], &current[k]) && unexpected(&before[k], &current[k])) {
                *conflict = MM_CONFLICT_UPDATE;
            }
        }
        changed = changed || !mm_value_same(&image[k], &current[k]);
    }
    return changed ? MM_FOLD_WRITE : MM_FOLD_NOTHING;
}

enum mm_fold_act mm_fold_row(enum mm_op op, bool all, const struct mm_fold_columns *columns,
                             const struct mm_value *before, const struct mm_value *after,
                             const struct mm_value *current, struct mm_value *image, enum mm_conflict_kind *conflict)
{
    *conflict = MM_CONFLICT_NONE;
    switch (op) {
    case MM_OP_INSERT:
        return fold_full(columns->n, NULL, after, current, image, conflict);
    case MM_OP_REPLACE:
        return fold_full(columns->n, before, after, current, image, conflict);
    case MM_OP_UPDATE:
        return fold_update(all, columns, before, after, current, image, conflict);
    case MM_OP_DELETE:
        if (current == NULL) {
            return MM_FOLD_NOTHING;
        }
        if (any_unexpected(before, current, columns->n)) {
            *conflict = MM_CONFLICT_DELETE;
        }
        return MM_FOLD_REMOVE;
    }
    return MM_FOLD_NOTHING;
}

enum mm_verdict mm_fold_accept(const struct mm_msg *m, int64_t epoch, const struct mm_origin *last)
{
    if (m->epoch != epoch) {
        return MM_IGNORE_EPOCH;
    }
    if (m->origin_seq <= last->seq) {
        return MM_IGNORE_DUPLICATE;
    }
    if (m->origin_seq != last->seq + 1) {
        return MM_IGNORE_HOLE;
    }
    return memcmp(m->prev, last->txid, MM_TXID_SIZE) == 0 ? MM_ACCEPT : MM_IGNORE_LINEAGE;
}

bool mm_fold_part(const struct mm_msg *m, const struct mm_part_head *held)
{
    if (m->part.number == 0) {
        return true;
    }
    return held->held == m->part.number && held->count == m->part.count &&
           memcmp(held->txid, m->txid, MM_TXID_SIZE) == 0 &&
           memcmp(held->sha256, m->part.sha256, sizeof held->sha256) == 0;
}
