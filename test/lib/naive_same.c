/* What is asked of a state of the naive fold, and two of them side by side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/naive_fold.h"

static void describe(const struct naive_def *d, const struct naive_row *row, char *out, size_t n)
{
    struct mm_buf b;
    mm_buf_init(&b, 1 << 20);
    for (int k = 0; k < d->ncol; k++) {
        mm_buf_str(&b, k == 0 ? "" : ", ");
        mm_buf_str(&b, row->v[k].type == SQLITE_FLOAT ? "real " : "");
        mm_value_json(&b, &row->v[k]);
    }
    mm_buf_byte(&b, 0);
    snprintf(out, n, "%.120s", b.data != NULL ? (const char *)b.data : "?");
    mm_buf_free(&b);
}

static bool covers(const struct naive_table *a, const struct naive_table *b, const char *what, char *why, size_t n)
{
    bool *used = calloc(b->n + 1, sizeof *used);
    if (used == NULL) {
        fprintf(stderr, "naive_same: out of memory\n");
        exit(2);
    }
    bool good = true;
    for (size_t k = 0; k < a->n && good; k++) {
        bool found = false;
        for (size_t j = 0; j < b->n && !found; j++) {
            bool same = !used[j];
            for (int c = 0; same && c < a->def->ncol; c++) {
                same = naive_value_same(&a->row[k].v[c], &b->row[j].v[c]);
            }
            found = same;
            used[j] = used[j] || same;
        }
        if (!found) {
            char row[128];
            describe(a->def, &a->row[k], row, sizeof row);
            snprintf(why, n, "%s: %s row (%s)", a->def->name, what, row);
            good = false;
        }
    }
    free(used);
    return good;
}

bool naive_same(const struct naive *a, const struct naive *b, char *why, size_t n)
{
    for (int k = 0; k < a->ntable; k++) {
        if (a->table[k].apart || b->table[k].apart) {
            continue;
        }
        if (!covers(&a->table[k], &b->table[k], "missing", why, n) ||
            !covers(&b->table[k], &a->table[k], "surplus", why, n)) {
            return false;
        }
    }
    return true;
}

static void *twin(const void *p, size_t n)
{
    void *copy = malloc(n + 1);
    if (copy == NULL) {
        fprintf(stderr, "naive_same: out of memory\n");
        exit(2);
    }
    if (n > 0) {
        memcpy(copy, p, n);
    }
    return copy;
}

void naive_clone(struct naive *to, const struct naive *from)
{
    naive_copy(to, from);
    to->norigin = from->norigin;
    to->origin = twin(from->origin, from->norigin * sizeof *from->origin);
    for (size_t k = 0; k < from->norigin; k++) {
        to->origin[k].parts =
            from->origin[k].parts != NULL ? twin(from->origin[k].parts, from->origin[k].parts_len) : NULL;
    }
    to->naccepted = from->naccepted;
    to->accepted = twin(from->accepted, from->naccepted * sizeof *from->accepted);
    to->seq = from->seq;
    to->epoch = from->epoch;
    to->over = from->over;
}

bool naive_policies(const struct naive *s)
{
    for (int t = 0; t < s->ntable; t++) {
        for (int k = 0; k < NAIVE_COLUMNS; k++) {
            if (s->table[t].policy[k] != MM_POLICY_LAST) {
                return true;
            }
        }
    }
    return false;
}

size_t naive_accepted(const struct naive *s, const uint8_t *txid)
{
    size_t n = 0;
    for (size_t k = 0; k < s->naccepted; k++) {
        n += memcmp(s->accepted[k], txid, MM_TXID_SIZE) == 0;
    }
    return n;
}
