#include "repl/fold.h"

#include <string.h>

const char *mm_conflict_name(enum mm_conflict_kind k)
{
    static const char *const names[] = { "none", "insert", "update", "update_missing", "delete", "unique" };
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

static enum mm_fold_act fold_update(bool all, uint32_t ncol, const uint8_t *pk, const struct mm_value *before,
                                    const struct mm_value *after, const struct mm_value *current,
                                    struct mm_value *image, enum mm_conflict_kind *conflict)
{
    if (current == NULL) {
        *conflict = MM_CONFLICT_UPDATE_MISSING;
        return MM_FOLD_NOTHING;
    }
    bool changed = false;
    for (uint32_t k = 0; k < ncol; k++) {
        image[k] = current[k];
        if (pk[k] != 0 || after[k].type == MM_UNDEF || (!all && mm_value_same(&before[k], &after[k]))) {
            continue;
        }
        if (!mm_value_same(&after[k], &current[k])) {
            changed = true;
            if (unexpected(&before[k], &current[k])) {
                *conflict = MM_CONFLICT_UPDATE;
            }
        }
        image[k] = after[k];
    }
    return changed ? MM_FOLD_WRITE : MM_FOLD_NOTHING;
}

enum mm_fold_act mm_fold_row(enum mm_op op, bool all, uint32_t ncol, const uint8_t *pk, const struct mm_value *before,
                             const struct mm_value *after, const struct mm_value *current, struct mm_value *image,
                             enum mm_conflict_kind *conflict)
{
    *conflict = MM_CONFLICT_NONE;
    switch (op) {
    case MM_OP_INSERT:
        return fold_full(ncol, NULL, after, current, image, conflict);
    case MM_OP_REPLACE:
        return fold_full(ncol, before, after, current, image, conflict);
    case MM_OP_UPDATE:
        return fold_update(all, ncol, pk, before, after, current, image, conflict);
    case MM_OP_DELETE:
        if (current == NULL) {
            return MM_FOLD_NOTHING;
        }
        if (any_unexpected(before, current, ncol)) {
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
