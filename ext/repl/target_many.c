/* Many rows without identity taken at once: one look at the whole table instead
** of one for each of them. */
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "repl/target_int.h"

/* One row that is wanted: how many of them, and which there are. */
struct slot {
    uint64_t hash; /* 0 = free */
    uint32_t wanted, found;
    uint32_t first; /* place + 1, 0 = none */
};

struct place {
    int64_t rowid;
    uint32_t next; /* place + 1 */
};

struct mm_many {
    struct slot *slot;
    uint32_t nslot; /* a power of two */
    struct place *place;
    uint32_t n, cap;
};

/* What comes in at the top goes down again: a product alone moves bits up only, and two rows
** whose numbers differ in two signs would have one hash. */
static uint64_t mix(uint64_t h, uint64_t value)
{
    h = (h ^ value) * 0x9e3779b97f4a7c15ULL;
    return h ^ (h >> 32);
}

uint64_t mm_target_hash(const struct mm_value *row, int ncol)
{
    uint64_t h = 14695981039346656037ULL;
    for (int k = 0; k < ncol; k++) {
        const uint8_t *p = row[k].type == SQLITE_TEXT || row[k].type == SQLITE_BLOB ? row[k].u.p : NULL;
        bool number = row[k].type == SQLITE_INTEGER || row[k].type == SQLITE_FLOAT;
        uint8_t type = row[k].type == MM_UNDEF ? SQLITE_NULL : row[k].type;
        h = mix(h, type);
        h = mix(h, number ? (uint64_t)row[k].u.i : p != NULL ? row[k].len : 0);
        for (uint32_t j = 0; p != NULL && j < row[k].len; j++) {
            h = (h ^ p[j]) * 1099511628211ULL;
        }
    }
    return mix(h, 0);
}

static struct slot *slot_of(struct mm_many *m, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & (m->nslot - 1);
    while (m->slot[at].hash != 0 && m->slot[at].hash != hash) {
        at = (at + 1) & (m->nslot - 1);
    }
    return &m->slot[at];
}

void mm_target_many_end(struct mm_target *t)
{
    if (t->many != NULL) {
        free(t->many->slot);
        free(t->many->place);
        free(t->many);
        t->many = NULL;
    }
}

int mm_target_many_begin(struct mm_target *t, size_t rows, struct mm_err *err)
{
    uint32_t n = 64;
    while (n / 2 < rows && n < (uint32_t)1 << 30) {
        n *= 2;
    }
    t->many = calloc(1, sizeof *t->many);
    if (t->many != NULL) {
        t->many->nslot = n;
        t->many->slot = calloc(n, sizeof *t->many->slot);
    }
    if (t->many == NULL || t->many->slot == NULL) {
        mm_target_many_end(t);
        return mm_err_nomem(err);
    }
    return err->rc;
}

void mm_target_many_want(struct mm_target *t, const struct mm_value *row)
{
    uint64_t hash = mm_target_hash(row, t->def->ncol) | 1;
    struct slot *s = slot_of(t->many, hash);
    s->hash = hash;
    s->wanted++;
}

static bool note(struct mm_many *m, struct slot *s, int64_t rowid)
{
    if (m->n == m->cap) {
        uint32_t cap = m->cap == 0 ? 256 : m->cap * 2;
        struct place *p = cap > m->cap ? realloc(m->place, cap * sizeof *p) : NULL;
        if (p == NULL) {
            return false;
        }
        m->place = p;
        m->cap = cap;
    }
    m->place[m->n] = (struct place){ rowid, s->first };
    s->first = ++m->n;
    s->found++;
    return true;
}

int mm_target_many_find(struct mm_target *t, sqlite3 *db, size_t rows, struct mm_err *err)
{
    int ncol = t->def->ncol;
    struct mm_value *row = calloc((size_t)ncol, sizeof *row);
    sqlite3_stmt *st = row != NULL ? mm_target_scan_rowids(t, db, err) : NULL;
    if (row == NULL) {
        mm_err_nomem(err);
    }
    while (rows > 0 && mm_db_step(st, err)) {
        for (int k = 0; k < ncol; k++) {
            if (!mm_value_column(&row[k], st, k + 1)) {
                mm_err_nomem(err);
            }
        }
        struct slot *s = err->rc == SQLITE_OK ? slot_of(t->many, mm_target_hash(row, ncol) | 1) : NULL;
        if (s != NULL && s->hash != 0 && s->found < s->wanted) {
            rows--;
            if (!note(t->many, s, sqlite3_column_int64(st, 0))) {
                mm_err_nomem(err);
            }
        }
    }
    mm_db_finalize(st);
    free(row);
    return err->rc;
}

bool mm_target_many_take(struct mm_target *t, const struct mm_value *row, mm_target_is *is, void *arg)
{
    struct slot *s = slot_of(t->many, mm_target_hash(row, t->def->ncol) | 1);
    for (uint32_t *at = &s->first; s->hash != 0 && *at != 0; at = &t->many->place[*at - 1].next) {
        const struct place *p = &t->many->place[*at - 1];
        if (is(arg, p->rowid)) {
            *at = p->next;
            return true;
        }
    }
    return false;
}
