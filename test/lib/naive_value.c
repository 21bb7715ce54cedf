#include "test/lib/naive_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mm_value naive_value_copy(const struct mm_value *v)
{
    struct mm_value c = *v;
    if (v->type == SQLITE_TEXT || v->type == SQLITE_BLOB) {
        uint8_t *p = malloc((size_t)v->len + 1);
        if (p == NULL) {
            fprintf(stderr, "naive_value: out of memory\n");
            exit(2);
        }
        if (v->len > 0) {
            memcpy(p, v->u.p, v->len);
        }
        c.u.p = p;
    }
    return c;
}

void naive_value_free(struct mm_value *v)
{
    if (v->type == SQLITE_TEXT || v->type == SQLITE_BLOB) {
        free((void *)(uintptr_t)v->u.p);
    }
    v->type = MM_UNDEF;
}

bool naive_value_same(const struct mm_value *a, const struct mm_value *b)
{
    if (a->type != b->type) {
        return false;
    }
    if (a->type == SQLITE_INTEGER || a->type == SQLITE_FLOAT) {
        return memcmp(&a->u, &b->u, 8) == 0;
    }
    return (a->type != SQLITE_TEXT && a->type != SQLITE_BLOB) ||
           (a->len == b->len && (a->len == 0 || memcmp(a->u.p, b->u.p, a->len) == 0));
}

static int number_order(const struct mm_value *a, const struct mm_value *b)
{
    if (a->type == SQLITE_INTEGER && b->type == SQLITE_INTEGER) {
        return a->u.i < b->u.i ? -1 : a->u.i > b->u.i;
    }
    if (a->type == SQLITE_FLOAT && b->type == SQLITE_FLOAT) {
        return a->u.r < b->u.r ? -1 : a->u.r > b->u.r;
    }
    if (a->type == SQLITE_FLOAT) {
        return -number_order(b, a);
    }
    /* Integer against real: by whole numbers first, then by what is behind the point. */
    if (b->u.r >= 9223372036854775808.0) {
        return -1;
    }
    if (b->u.r < -9223372036854775808.0) {
        return 1;
    }
    int64_t whole = (int64_t)b->u.r;
    if (a->u.i != whole) {
        return a->u.i < whole ? -1 : 1;
    }
    double rest = b->u.r - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

static int text_order(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll)
{
    size_t na = a->len;
    size_t nb = b->len;
    while (coll == MM_COLL_RTRIM && na > 0 && a->u.p[na - 1] == ' ') {
        na--;
    }
    while (coll == MM_COLL_RTRIM && nb > 0 && b->u.p[nb - 1] == ' ') {
        nb--;
    }
    for (size_t k = 0; k < na && k < nb; k++) {
        int x = a->u.p[k];
        int y = b->u.p[k];
        if (coll == MM_COLL_NOCASE) {
            x = x >= 'A' && x <= 'Z' ? x - 'A' + 'a' : x;
            y = y >= 'A' && y <= 'Z' ? y - 'A' + 'a' : y;
        }
        if (x != y) {
            return x - y;
        }
        if (coll == MM_COLL_NOCASE && x == 0) {
            break; /* SQLite's NOCASE looks no further than a NUL */
        }
    }
    return na < nb ? -1 : na > nb;
}

static int rank(const struct mm_value *v)
{
    return v->type == SQLITE_TEXT ? 2 : v->type == SQLITE_BLOB ? 3 : v->type == SQLITE_NULL ? 0 : 1;
}

int naive_value_order(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll)
{
    int d = rank(a) - rank(b);
    if (d != 0 || rank(a) == 0) {
        return d;
    }
    return rank(a) == 1 ? number_order(a, b) : text_order(a, b, rank(a) == 2 ? coll : MM_COLL_BINARY);
}

bool naive_key_equal(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll)
{
    return a->type != SQLITE_NULL && b->type != SQLITE_NULL && naive_value_order(a, b, coll) == 0;
}

static bool number(const struct mm_value *v)
{
    return v->type == SQLITE_INTEGER || v->type == SQLITE_FLOAT;
}

static double real_of(const struct mm_value *v)
{
    return v->type == SQLITE_INTEGER ? (double)v->u.i : v->u.r;
}

struct mm_value naive_value_delta(const struct mm_value *current, const struct mm_value *old,
                                  const struct mm_value *new)
{
    struct mm_value v = *new;
    int64_t step;
    if (!number(current) || !number(old) || !number(new)) {
        return v;
    }
    if (current->type != SQLITE_INTEGER || old->type != SQLITE_INTEGER || new->type != SQLITE_INTEGER) {
        v.type = SQLITE_FLOAT;
        v.u.r = real_of(current) + (real_of(new) - real_of(old));
    } else if (__builtin_sub_overflow(new->u.i, old->u.i, &step) ||
               __builtin_add_overflow(current->u.i, step, &v.u.i)) {
        v.u.i = new->u.i > old->u.i ? INT64_MAX : INT64_MIN;
    }
    return v;
}
