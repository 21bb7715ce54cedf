#include <stdlib.h>
#include <string.h>

#include "capture/hook_int.h"
#include "capture/trigger.h"
#include "store/watch.h"

static void entry_free(struct mm_entry *e)
{
    mm_table_free(e->t);
    free(e->name);
    free(e->pk);
    free(e);
}

bool mm_hook_by_triggers(struct mm_hook *h, const char *table, struct mm_err *err)
{
    return mm_trigger_mode_for(h->db, table, err) == MM_TRIGGER_FULL && mm_trigger_there(h->db, table, err);
}

/* A trigger that fires before the row makes SQLite look at the types first. */
static bool late_types(struct mm_hook *h, const struct mm_entry *e, struct mm_err *err)
{
    return e->t->strict && !mm_trigger_there(h->db, e->name, err);
}

/* The application may not watch a table whose rows cannot be named; one that
** became so by a later schema change is said, once. */
static void decide(struct mm_hook *h, struct mm_entry *e, struct mm_err *err)
{
    if (e->t == NULL) {
        return;
    }
    enum mm_watch_state state = mm_watch_get(h->db, e->name, NULL, err);
    if (mm_watch_captures(state)) {
        bool by_triggers = mm_hook_by_triggers(h, e->name, err);
        e->capture = e->t->capturable && !by_triggers;
        e->types_late = late_types(h, e, err);
        if (!e->t->capturable) {
            char why[256];
            sqlite3_snprintf(sizeof why, why, "table %.80s cannot be captured: %.120s", e->name,
                             e->t->why != NULL ? e->t->why : "its definition changed");
            mm_hook_say_uncaptured(h, why);
        }
    } else if (state == MM_WATCH_NONE && h->watch_all && e->t->supported) {
        e->capture = true;
        e->add = true;
        e->types_late = late_types(h, e, err);
    }
}

static struct mm_entry *load(struct mm_hook *h, const char *table, struct mm_err *err)
{
    struct mm_entry *e = calloc(1, sizeof *e);
    if (e == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    e->name = strdup(table);
    if (e->name == NULL) {
        mm_err_nomem(err);
    }
    e->t = mm_table_load(h->db, table, err);
    if (err->rc == SQLITE_OK) {
        decide(h, e, err);
    }
    if (e->t != NULL) {
        e->pk = calloc((size_t)e->t->ncol + 1, 1);
        if (e->pk == NULL) {
            mm_err_nomem(err);
        }
        for (int k = 0; e->pk != NULL && k < e->t->ncol; k++) {
            e->pk[k] = e->t->col[k].pk;
        }
    }
    if (err->rc != SQLITE_OK) {
        entry_free(e);
        return NULL;
    }
    return e;
}

static void retire(struct mm_hook *h, size_t at)
{
    struct mm_entry *e = h->entry[at];
    h->asked = h->asked == e ? NULL : h->asked;
    if (e->touched) {
        e->dead = true;
        return;
    }
    entry_free(e);
    h->entry[at] = h->entry[--h->nentry];
}

struct mm_entry *mm_cache_get(struct mm_hook *h, const char *table, int nstored, struct mm_err *err)
{
    for (size_t k = 0; k < h->nentry; k++) {
        struct mm_entry *e = h->entry[k];
        if (e->dead || strcmp(e->name, table) != 0) {
            continue;
        }
        if (!e->capture || e->t->nstored == nstored) {
            h->recent = e;
            return e;
        }
        retire(h, k);
        break;
    }
    h->recent = NULL;
    if (h->nentry == h->entry_cap) {
        size_t cap = h->entry_cap == 0 ? 8 : h->entry_cap * 2;
        struct mm_entry **p = realloc(h->entry, cap * sizeof *p);
        if (p == NULL) {
            mm_err_nomem(err);
            return NULL;
        }
        h->entry = p;
        h->entry_cap = cap;
    }
    struct mm_entry *e = load(h, table, err);
    if (e != NULL) {
        h->entry[h->nentry++] = e;
        h->recent = e;
    }
    return e;
}

void mm_cache_forget(struct mm_hook *h)
{
    for (size_t k = h->nentry; k-- > 0;) {
        retire(h, k);
    }
    h->recent = NULL;
    h->head_known = false;
    h->stale = false;
}

void mm_cache_end(struct mm_hook *h, bool committed)
{
    for (size_t k = h->nentry; k-- > 0;) {
        struct mm_entry *e = h->entry[k];
        if (e->touched && committed) {
            e->add = false;
        }
        e->touched = false;
        if (e->dead) {
            retire(h, k);
        }
    }
}

void mm_cache_free(struct mm_hook *h)
{
    for (size_t k = 0; k < h->nentry; k++) {
        entry_free(h->entry[k]);
    }
    free(h->entry);
    h->entry = NULL;
    h->nentry = h->entry_cap = 0;
    h->recent = NULL;
}
