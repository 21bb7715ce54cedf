/* Values of the naive fold: owned copies, sameness, and the order that SQLite
** gives them, written from its documentation and not from ext/store. */
#ifndef MM_TEST_NAIVE_VALUE_H
#define MM_TEST_NAIVE_VALUE_H

#include <stdbool.h>

#include "store/value.h"

struct mm_value naive_value_copy(const struct mm_value *v); /* owns its bytes */
void naive_value_free(struct mm_value *v);

bool naive_value_same(const struct mm_value *a, const struct mm_value *b); /* type and bytes */
/* As ORDER BY with the collation; NULLs are equal here. */
int naive_value_order(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll);
/* What policy 'delta' makes of a change from old to new (SPEC 4); borrowed. */
struct mm_value naive_value_delta(const struct mm_value *current, const struct mm_value *old,
                                  const struct mm_value *new);
/* Whether two keys are one row: NULL is equal to nothing. */
bool naive_key_equal(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll);

#endif
