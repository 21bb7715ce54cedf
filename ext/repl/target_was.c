#include <stdlib.h>
#include <string.h>

#include "repl/target_int.h"

struct mm_was_column {
    char *table, *from, *to; /* to: NULL = it is no more */
    struct mm_was_column *next;
};

void mm_was_free(struct mm_was *w)
{
    while (w->first != NULL) {
        struct mm_was_column *c = w->first;
        w->first = c->next;
        free(c->table);
        free(c->from);
        free(c->to);
        free(c);
    }
}

void mm_targets_pass_over(struct mm_targets *s)
{
    mm_targets_was(s)->pass_over = true;
}

int mm_targets_column_was(struct mm_targets *s, const char *table, const char *from, const char *to, struct mm_err *err)
{
    struct mm_was *w = mm_targets_was(s);
    struct mm_was_column *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return mm_err_nomem(err);
    }
    c->next = w->first;
    w->first = c;
    c->table = strdup(table);
    c->from = strdup(from);
    c->to = to != NULL ? strdup(to) : NULL;
    if (c->table == NULL || c->from == NULL || (to != NULL && c->to == NULL)) {
        mm_err_nomem(err);
    }
    return err->rc;
}

int mm_target_place(const struct mm_target *t, const char *column)
{
    int at = mm_target_column(t, column);
    if (at >= 0) {
        return at;
    }
    for (const struct mm_was_column *c = t->was->first; c != NULL; c = c->next) {
        if (sqlite3_stricmp(c->table, t->name) == 0 && sqlite3_stricmp(c->from, column) == 0) {
            at = c->to != NULL ? mm_target_column(t, c->to) : -1;
            return at >= 0 ? at : MM_PLACE_NOWHERE;
        }
    }
    return t->was->pass_over && !t->def->keyless ? MM_PLACE_NOWHERE : MM_PLACE_MISSING;
}
