/* Counting rows without a key: as many come out as went in, however many there are.
** marmot-test: parallel */
#include "repl/multiset.h"

#include <stdio.h>
#include <string.h>

#include "test/lib/sqlite_api.h"

enum { ROWS = 3000, NCOL = 2 };

static int bad;

static void check(const char *name, bool good)
{
    printf("%s %s\n", good ? "ok" : "not ok", name);
    bad += !good;
}

static void row_of(struct mm_value *row, int k, const char *text)
{
    row[0] = (struct mm_value){ .type = SQLITE_INTEGER, .u.i = k };
    row[1] = (struct mm_value){ .type = SQLITE_TEXT, .len = (uint32_t)strlen(text), .u.p = (const uint8_t *)text };
}

static int take_all(struct mm_multiset *m, const char *text, struct mm_err *err)
{
    struct mm_value row[NCOL];
    int taken = 0;
    for (int k = 0; k < ROWS; k++) {
        row_of(row, k, text);
        taken += mm_multiset_take(m, row, NCOL, err);
    }
    return taken;
}

int main(void)
{
    struct mm_multiset m = { 0 };
    struct mm_value row[NCOL];
    struct mm_err err;
    mm_err_init(&err);
    check("nothing is in an empty one", take_all(&m, "a", &err) == 0);
    for (int k = 0; k < 2 * ROWS; k++) {
        row_of(row, k % ROWS, "a");
        mm_multiset_add(&m, row, NCOL, &err);
    }
    check("each row counts", err.rc == SQLITE_OK && m.rows == 2 * ROWS);
    check("equal ones share a place, and there is room", m.used == ROWS && m.cap >= 2 * m.used);
    check("another row is not there", take_all(&m, "b", &err) == 0 && m.rows == 2 * ROWS);
    check("what went in comes out once", take_all(&m, "a", &err) == ROWS && m.rows == ROWS);
    check("and once more", take_all(&m, "a", &err) == ROWS && m.rows == 0);
    check("not oftener", take_all(&m, "a", &err) == 0);
    row_of(row, 7, "a");
    mm_multiset_add(&m, row, NCOL, &err);
    check("it can be filled again", mm_multiset_take(&m, row, NCOL, &err) && err.rc == SQLITE_OK);
    mm_multiset_free(&m);
    check("freed it is empty", m.slot == NULL && m.rows == 0 && !mm_multiset_take(&m, row, NCOL, &err));
    return bad > 0;
}
