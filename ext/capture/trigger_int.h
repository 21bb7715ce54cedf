/* What the files of the triggers share: trigger.c words them, trigger_settle.c
** makes and drops them, trigger_source.c knows what the numbers in the log mean
** today, trigger_read.c turns the log into changes, trigger_rows.c does so where
** rows are known by their rowid. Nobody outside capture/ includes this. */
#ifndef MM_CAPTURE_TRIGGER_INT_H
#define MM_CAPTURE_TRIGGER_INT_H

#include "base/arena.h"
#include "capture/spill.h"
#include "capture/trigger.h"
#include "store/change.h"
#include "store/log.h"

/* The triggers of a table; BECAME and WENT where rows are known by their rowid. */
enum mm_trigger_kind {
    MM_TRIGGER_EVICT_INSERT,
    MM_TRIGGER_ADDED,
    MM_TRIGGER_EVICT_UPDATE,
    MM_TRIGGER_CHANGED,
    MM_TRIGGER_REMOVED,
    MM_TRIGGER_BECAME,
    MM_TRIGGER_WENT,
    MM_TRIGGER_KINDS
};

/* trigger.c */
int mm_trigger_kinds(const struct mm_table *t);
int mm_trigger_key_columns(const struct mm_table *t);
/* True for tables without a key, and with one that may hold NULL. */
bool mm_trigger_by_rowid(const struct mm_table *t);
/* As the schema holds it: sqlite3_free; NULL out of memory. */
char *mm_trigger_text(const struct mm_table *t, long long number, int kind, bool guard);

/* What a number means today. */
struct mm_source {
    struct mm_source *next;
    int64_t id;
    struct mm_table *t; /* NULL: its rows are left out */
    uint8_t *pk;
    bool by_rowid;
    bool younger; /* t has columns that the image does not know */
    int nimage;
    int *from;  /* place in the image of each column of t, -1 = none */
    int *place; /* in t, of the key's columns in their order */
    int nkey;
    sqlite3_stmt *now;     /* the row of a key, or of a rowid */
    struct mm_value *fill; /* of the key's columns, and of those that the image does not know: their defaults */
    struct mm_arena arena; /* of fill */
};

struct mm_rows_seen;

/* The log on its way to changes. */
struct mm_take {
    sqlite3 *db;
    struct mm_err *err;
    struct mm_spill *data, *names;
    struct mm_source *list;
    const struct mm_source *group; /* whose header was written last */
    struct mm_arena arena;         /* of the entry */
    struct mm_rows_seen *seen;     /* trigger_rows.c; NULL: no such entry met yet */
    bool lost;                     /* rows whose triggers or table are gone */
    bool moved;                    /* rows with columns that no trigger knew, and they are elsewhere now */
    bool stopped;                  /* the log was full: its last entry may lack its end */
};

/* trigger_source.c */
/* NULL with err set. */
struct mm_source *mm_source_of(struct mm_take *x, int64_t id);
void mm_source_free_all(struct mm_take *x);

/* trigger_read.c */
void mm_take_put(struct mm_take *x, const struct mm_source *s, enum mm_op op, const struct mm_value *old,
                 const struct mm_value *new);
/* The row under the bound parameters of s->now, in x->arena; NULL: none, or err. */
struct mm_value *mm_take_now(struct mm_take *x, const struct mm_source *s);

/* trigger_rows.c: one entry of a table whose rows are known by their rowid. */
void mm_take_row(struct mm_take *x, const struct mm_source *s, const struct mm_log_entry *e);
void mm_take_rows_end(struct mm_take *x);

#endif
