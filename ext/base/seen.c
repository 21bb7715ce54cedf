#include "base/seen.h"

#include <stdlib.h>

static bool grow(struct mm_seen *s)
{
    size_t cap = s->cap == 0 ? 256 : s->cap * 2;
    uint64_t *slot = calloc(cap, sizeof *slot);
    if (slot == NULL) {
        return false;
    }
    for (size_t k = 0; k < s->cap; k++) {
        size_t at = s->slot[k] >> 1 & (cap - 1);
        while (s->slot[k] != 0 && slot[at] != 0) {
            at = (at + 1) & (cap - 1);
        }
        slot[at] = s->slot[k] != 0 ? s->slot[k] : slot[at];
    }
    free(s->slot);
    s->slot = slot;
    s->cap = cap;
    return true;
}

/* Where it is, or belongs. */
static size_t place(const struct mm_seen *s, uint64_t hash)
{
    size_t at = hash >> 1 & (s->cap - 1);
    while (s->slot[at] != 0 && s->slot[at] != hash) {
        at = (at + 1) & (s->cap - 1);
    }
    return at;
}

bool mm_seen_has(const struct mm_seen *s, uint64_t hash)
{
    hash |= 1; /* never 0 */
    return s->n > 0 && s->slot[place(s, hash)] == hash;
}

bool mm_seen_add(struct mm_seen *s, uint64_t hash, struct mm_err *err)
{
    hash |= 1;
    if (s->n >= s->cap / 2 && !grow(s)) {
        mm_err_nomem(err);
        return false;
    }
    size_t at = place(s, hash);
    bool fresh = s->slot[at] == 0;
    s->slot[at] = hash;
    s->n += fresh;
    return fresh;
}

void mm_seen_free(struct mm_seen *s)
{
    free(s->slot);
    *s = (struct mm_seen){ 0 };
}
