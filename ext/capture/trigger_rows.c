/* From the log to changes where rows are known by their rowid: tables without a
** key, and keys that may hold NULL.
**
** What is noted before a change may come to nothing; what is noted after it has
** happened. So an image waits for what follows under its rowid. A row that would
** be evicted has gone when a row is noted that holds its UNIQUE value or its
** rowid, or when that is said. In doubt it stayed: the fold evicts it then, as
** everywhere. */
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "capture/trigger_int.h"
#include "capture/trigger_rivals.h"

/* One rowid of one table. */
struct seen {
    int64_t source;
    int64_t rowid;
    uint32_t left;    /* entries that are still to come */
    uint32_t changes; /* and of these, what has happened to the row: none, and it stands as noted last */
    uint64_t rival;   /* number under which it may have been evicted, 0 = none */
    uint8_t *image;   /* the row as it was noted last; NULL: not known, or gone */
    size_t len;
    bool used;
};

struct mm_rows_seen {
    struct seen *slot;
    size_t cap, used; /* a power of two */
    struct mm_rivals rivals;
    struct seen **rival; /* by number - 1; none moves once all are counted */
    size_t nrival, rival_cap;
    size_t open; /* rivals that still count */
    struct mm_buf bytes;
};

static struct seen *slot_of(struct seen *slot, size_t cap, int64_t source, int64_t rowid)
{
    uint64_t h = ((uint64_t)rowid ^ ((uint64_t)source << 48)) * 0x9e3779b97f4a7c15ULL;
    size_t at = (size_t)(h >> 20) & (cap - 1);
    while (slot[at].used && (slot[at].source != source || slot[at].rowid != rowid)) {
        at = (at + 1) & (cap - 1);
    }
    return &slot[at];
}

static bool grow(struct mm_rows_seen *r)
{
    size_t cap = r->cap == 0 ? 64 : 2 * r->cap;
    struct seen *slot = calloc(cap, sizeof *slot);
    if (slot == NULL) {
        return false;
    }
    for (size_t k = 0; k < r->cap; k++) {
        if (r->slot[k].used) {
            *slot_of(slot, cap, r->slot[k].source, r->slot[k].rowid) = r->slot[k];
        }
    }
    free(r->slot);
    r->slot = slot;
    r->cap = cap;
    return true;
}

/* NULL with err set. */
static struct seen *find(struct mm_rows_seen *r, int64_t source, int64_t rowid, struct mm_err *err)
{
    if (r->used + 1 > r->cap / 2 && !grow(r)) {
        mm_err_nomem(err);
        return NULL;
    }
    struct seen *s = slot_of(r->slot, r->cap, source, rowid);
    r->used += !s->used;
    s->used = true;
    s->source = source;
    s->rowid = rowid;
    return s;
}

static bool has_happened(enum mm_log_kind kind)
{
    return kind != MM_LOG_STOOD && kind != MM_LOG_RIVAL;
}

static void count(void *arg, int64_t source, enum mm_log_kind kind, int64_t rowid, int64_t before, struct mm_err *err)
{
    struct mm_rows_seen *r = arg;
    struct seen *s = err->rc == SQLITE_OK ? find(r, source, rowid, err) : NULL;
    if (s != NULL) {
        s->left++;
        s->changes += has_happened(kind);
    }
    s = s != NULL && before != rowid ? find(r, source, before, err) : NULL;
    if (s != NULL) {
        s->left++;
        s->changes += has_happened(kind);
    }
}

static struct mm_rows_seen *begin(struct mm_take *x)
{
    struct mm_rows_seen *r = calloc(1, sizeof *r);
    if (r == NULL) {
        mm_err_nomem(x->err);
        return NULL;
    }
    mm_buf_init(&r->bytes, (size_t)1 << 36);
    x->seen = r;
    mm_log_look(x->db, count, r, x->err);
    return r;
}

void mm_take_rows_end(struct mm_take *x)
{
    struct mm_rows_seen *r = x->seen;
    for (size_t k = 0; r != NULL && k < r->cap; k++) {
        free(r->slot[k].image);
    }
    if (r != NULL) {
        mm_buf_free(&r->bytes);
        mm_rivals_free(&r->rivals);
        free(r->slot);
        free(r->rival);
        free(r);
    }
    x->seen = NULL;
}

static void forget(struct seen *row)
{
    free(row->image);
    row->image = NULL;
}

static void keep(struct mm_take *x, const struct mm_source *s, struct seen *row, const struct mm_value *image)
{
    struct mm_buf *b = &x->seen->bytes;
    forget(row);
    mm_buf_clear(b);
    for (int k = 0; k < s->t->ncol; k++) {
        mm_value_encode(b, &image[k]);
    }
    row->image = mm_buf_check(b, x->err, "a row") == SQLITE_OK ? malloc(b->len + 1) : NULL;
    if (row->image == NULL) {
        mm_err_nomem(x->err);
        return;
    }
    memcpy(row->image, b->data, b->len);
    row->len = b->len;
}

/* What is remembered of it, in x->arena over row->image; NULL when nothing is. */
static struct mm_value *recall(struct mm_take *x, const struct mm_source *s, const struct seen *row)
{
    struct mm_value *v = row->image != NULL ? mm_arena_array(&x->arena, (size_t)s->t->ncol, sizeof *v) : NULL;
    const uint8_t *p = row->image;
    for (int k = 0; v != NULL && k < s->t->ncol; k++) {
        (void)mm_value_decode(&p, row->image + row->len, &v[k]);
    }
    if (row->image != NULL && v == NULL) {
        mm_err_nomem(x->err);
    }
    return v;
}

static struct mm_value *row_now(struct mm_take *x, const struct mm_source *s, int64_t rowid)
{
    if (sqlite3_bind_int64(s->now, 1, rowid) != SQLITE_OK) {
        mm_err_nomem(x->err);
        return NULL;
    }
    return mm_take_now(x, s);
}

/* Columns younger than the trigger: those of the row itself when nothing has
** happened to it since and it stands there as noted, else what older rows hold. */
static void complete(struct mm_take *x, const struct mm_source *s, const struct seen *row, int kind,
                     struct mm_value *image)
{
    const struct mm_value *now = row->changes == 0 ? row_now(x, s, row->rowid) : NULL;
    for (int k = 0; now != NULL && k < s->t->ncol; k++) {
        if (s->from[k] >= 0 && !mm_value_same(&now[k], &image[k])) {
            now = NULL;
        }
    }
    x->moved = x->moved || (now == NULL && row->left == 0 && kind != MM_LOG_RIVAL);
    for (int k = 0; k < s->t->ncol; k++) {
        if (s->from[k] < 0) {
            image[k] = now != NULL ? now[k] : s->fill[k];
        }
    }
}

static struct mm_value *image_of(struct mm_take *x, const struct mm_source *s, const struct seen *row, int lead,
                                 const struct mm_log_entry *e)
{
    struct mm_value *image = mm_arena_array(&x->arena, (size_t)s->t->ncol, sizeof *image);
    if (image == NULL) {
        mm_err_nomem(x->err);
        return NULL;
    }
    for (int k = 0; k < s->t->ncol; k++) {
        if (s->from[k] >= 0) {
            image[k] = e->v[lead + s->from[k]];
        }
    }
    if (s->younger) {
        complete(x, s, row, e->kind, image);
    }
    return image;
}

static void close_rival(struct mm_rows_seen *r, struct seen *row)
{
    r->open -= row->rival != 0;
    row->rival = 0;
    if (r->open == 0) {
        mm_rivals_clear(&r->rivals);
        r->nrival = 0;
    }
}

static bool rival_fits(struct mm_rows_seen *r)
{
    if (r->nrival < r->rival_cap) {
        return true;
    }
    size_t cap = r->rival_cap == 0 ? 64 : 2 * r->rival_cap;
    struct seen **p = realloc(r->rival, cap * sizeof(struct seen *));
    if (p != NULL) {
        r->rival = p;
        r->rival_cap = cap;
    }
    return p != NULL;
}

static void take_rival(struct mm_take *x, const struct mm_source *s, struct seen *row, const struct mm_value *image)
{
    struct mm_rows_seen *r = x->seen;
    if (!rival_fits(r)) {
        mm_err_nomem(x->err);
        return;
    }
    keep(x, s, row, image);
    r->rival[r->nrival++] = row;
    row->rival = r->nrival;
    r->open++;
    mm_rivals_add(&r->rivals, s->id, s->t, image, row->rival, x->err);
}

static void evict(struct mm_take *x, const struct mm_source *s, struct seen *row)
{
    struct mm_value *image = recall(x, s, row);
    if (image != NULL && x->err->rc == SQLITE_OK) {
        mm_take_put(x, s, MM_OP_DELETE, image, NULL);
    }
    forget(row);
    row->rival = 0;
    x->seen->open--;
}

struct meeting {
    struct mm_take *x;
    const struct mm_source *s;
};

static void met(void *arg, uint64_t number)
{
    const struct meeting *m = arg;
    struct seen *row = m->x->seen->rival[number - 1];
    if (row->rival == number) {
        evict(m->x, m->s, row);
    }
}

/* A row stands there now: those that it may have evicted are gone. */
static void take_place(struct mm_take *x, const struct mm_source *s, struct seen *row, const struct mm_value *image)
{
    struct meeting m = { x, s };
    if (row->rival != 0) {
        evict(x, s, row);
    }
    if (x->seen->open > 0) {
        mm_rivals_meet(&x->seen->rivals, s->id, s->t, image, met, &m, x->err);
    }
}

static bool rows_same(const struct mm_source *s, const struct mm_value *a, const struct mm_value *b)
{
    bool same = true;
    for (int k = 0; same && k < s->t->ncol; k++) {
        same = mm_value_same(&a[k], &b[k]);
    }
    return same;
}

static void take_now(struct mm_take *x, const struct mm_source *s, struct seen *before, const struct mm_value *image)
{
    struct mm_value *old = recall(x, s, before);
    if (old == NULL) {
        x->lost = true;
    } else if (!rows_same(s, old, image)) {
        mm_take_put(x, s, MM_OP_UPDATE, old, image);
    }
    forget(before);
}

static void take_gone(struct mm_take *x, const struct mm_source *s, struct seen *row)
{
    const struct mm_value *old = recall(x, s, row);
    if (old == NULL) {
        x->lost = true;
    } else {
        mm_take_put(x, s, MM_OP_DELETE, old, NULL);
    }
    forget(row);
}

static void take_kind(struct mm_take *x, const struct mm_source *s, enum mm_log_kind kind, struct seen *row,
                      struct seen *before, const struct mm_value *image)
{
    bool comes = kind == MM_LOG_PUT || before != row;
    if (!comes) {
        close_rival(x->seen, row);
    }
    switch (kind) {
    case MM_LOG_RIVAL:
        take_rival(x, s, row, image);
        return;
    case MM_LOG_PUT:
        take_place(x, s, row, image);
        mm_take_put(x, s, MM_OP_INSERT, NULL, image);
        break;
    case MM_LOG_NOW:
        close_rival(x->seen, before);
        take_place(x, s, row, image);
        take_now(x, s, before, image);
        break;
    default:
        break;
    }
    if (row->left > 0) { /* else nobody will ask */
        keep(x, s, row, image);
    }
}

void mm_take_row(struct mm_take *x, const struct mm_source *s, const struct mm_log_entry *e)
{
    int lead = e->kind == MM_LOG_NOW ? 2 : 1;
    struct mm_rows_seen *r = x->seen != NULL ? x->seen : begin(x);
    if (r == NULL || x->err->rc != SQLITE_OK) {
        return;
    }
    struct seen *row = slot_of(r->slot, r->cap, s->id, e->v[0].u.i);
    struct seen *before = row;
    row->left--;
    row->changes -= has_happened((enum mm_log_kind)e->kind);
    if (e->kind == MM_LOG_NOW && e->v[1].u.i != row->rowid) {
        before = slot_of(r->slot, r->cap, s->id, e->v[1].u.i);
        before->left--;
        before->changes--;
    }
    if (e->kind == MM_LOG_GONE) {
        close_rival(r, row);
        take_gone(x, s, row);
    } else if (e->kind == MM_LOG_LOST && row->rival != 0) {
        evict(x, s, row);
    }
    if (e->kind == MM_LOG_GONE || e->kind == MM_LOG_LOST) {
        return;
    }
    if (e->n < lead + s->nimage) {
        x->lost = x->lost || !x->stopped;
        return;
    }
    const struct mm_value *image = image_of(x, s, row, lead, e);
    if (image != NULL && x->err->rc == SQLITE_OK) {
        take_kind(x, s, (enum mm_log_kind)e->kind, row, before, image);
    }
}
