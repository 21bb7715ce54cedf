#include <stdlib.h>
#include <string.h>

#include "capture/hook_int.h"

/* A header with its names, met once or many times. */
struct shape {
    const uint8_t *head;
    size_t head_len;
    const char *names;
    size_t names_len;
};

/* The records behind one header. */
struct run {
    uint32_t shape;
    const uint8_t *from;
    const uint8_t *to;
};

struct regroup {
    const uint8_t *p, *end;
    const char *names, *names_end;
    struct shape *shape;
    size_t nshape, shape_cap;
    struct run *run;
    size_t nrun, run_cap;
    uint64_t ncol; /* of the current run */
    struct mm_err *err;
};

static void broken(struct regroup *g)
{
    mm_err_set(g->err, SQLITE_CORRUPT, "the captured transaction cannot be read back");
}

static bool grow(void **array, size_t *cap, size_t n, size_t size)
{
    if (n < *cap) {
        return true;
    }
    size_t wanted = *cap == 0 ? 64 : *cap * 2;
    void *p = realloc(*array, wanted * size);
    if (p == NULL) {
        return false;
    }
    *array = p;
    *cap = wanted;
    return true;
}

static uint32_t shape_of(struct regroup *g, const struct shape *s)
{
    for (size_t k = g->nshape; k-- > 0;) {
        const struct shape *t = &g->shape[k];
        if (t->head_len == s->head_len && t->names_len == s->names_len && memcmp(t->head, s->head, s->head_len) == 0 &&
            memcmp(t->names, s->names, s->names_len) == 0) {
            return (uint32_t)k;
        }
    }
    if (!grow((void **)&g->shape, &g->shape_cap, g->nshape, sizeof *g->shape)) {
        mm_err_nomem(g->err);
        return 0;
    }
    g->shape[g->nshape] = *s;
    return (uint32_t)g->nshape++;
}

static void read_head(struct regroup *g)
{
    struct shape s = { .head = g->p, .names = g->names };
    g->p++;
    if (!mm_varint_get(&g->p, g->end, &g->ncol) || g->ncol >= (uint64_t)(g->end - g->p)) {
        broken(g);
        return;
    }
    g->p += g->ncol;
    const uint8_t *nul = memchr(g->p, 0, (size_t)(g->end - g->p));
    for (uint64_t k = 0; k <= g->ncol; k++) { /* the table, then its columns */
        const char *stop = g->names < g->names_end ? memchr(g->names, 0, (size_t)(g->names_end - g->names)) : NULL;
        if (stop == NULL || nul == NULL) {
            broken(g);
            return;
        }
        g->names = stop + 1;
    }
    g->p = nul + 1;
    s.head_len = (size_t)(g->p - s.head);
    s.names_len = (size_t)(g->names - s.names);
    if (!grow((void **)&g->run, &g->run_cap, g->nrun, sizeof *g->run)) {
        mm_err_nomem(g->err);
        return;
    }
    g->run[g->nrun++] = (struct run){ .shape = shape_of(g, &s), .from = g->p, .to = g->p };
}

static void skip_record(struct regroup *g)
{
    uint8_t op = *g->p;
    uint64_t values = op == SQLITE_UPDATE ? 2 * g->ncol : g->ncol;
    struct mm_value v;
    if (g->nrun == 0 || g->end - g->p < 2) {
        broken(g);
        return;
    }
    g->p += 2;
    for (uint64_t k = 0; k < values; k++) {
        if (!mm_value_decode(&g->p, g->end, &v)) {
            broken(g);
            return;
        }
    }
    g->run[g->nrun - 1].to = g->p;
}

/* One header for each shape, its records in the order they came in. */
static void write_shapes(const struct regroup *g, struct mm_spill *data, struct mm_spill *names)
{
    for (size_t k = 0; k < g->nshape; k++) {
        mm_buf_add(&data->tail, g->shape[k].head, g->shape[k].head_len);
        mm_buf_add(&names->tail, g->shape[k].names, g->shape[k].names_len);
        for (size_t j = 0; j < g->nrun; j++) {
            if (g->run[j].shape == k) {
                mm_buf_add(&data->tail, g->run[j].from, (size_t)(g->run[j].to - g->run[j].from));
                mm_spill_settle(data);
            }
        }
    }
}

int mm_hook_regroup(const uint8_t *bytes, uint64_t len, const uint8_t *names, uint64_t names_len, struct mm_spill *out,
                    struct mm_spill *out_names, struct mm_err *err)
{
    struct regroup g;
    memset(&g, 0, sizeof g);
    g.p = bytes;
    g.end = bytes + len;
    g.names = (const char *)names;
    g.names_end = g.names + names_len;
    g.err = err;
    while (err->rc == SQLITE_OK && g.p < g.end) {
        if (*g.p == 'T') {
            read_head(&g);
        } else {
            skip_record(&g);
        }
    }
    if (err->rc == SQLITE_OK) {
        write_shapes(&g, out, out_names);
        mm_buf_check(&out->tail, err, "the captured transaction");
        mm_buf_check(&out_names->tail, err, "the captured transaction");
    }
    free(g.shape);
    free(g.run);
    return err->rc;
}
