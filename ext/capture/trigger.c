#include "capture/trigger.h"

#include <string.h>

#include "capture/trigger_int.h"
#include "store/log.h"

/* Sets that a new row may meet: the rowid where rows are known by it, the key,
** and from 0 on the UNIQUE ones. */
enum { BY_ROWID = -2, BY_KEY = -1, MAX_PLACE = 255 };

int mm_trigger_key_columns(const struct mm_table *t)
{
    int n = 0;
    for (int k = 0; k < t->ncol; k++) {
        n += t->col[k].pk != 0;
    }
    return n;
}

bool mm_trigger_by_rowid(const struct mm_table *t)
{
    bool may_be_null = t->keyless;
    for (int k = 0; k < t->ncol; k++) {
        may_be_null = may_be_null || (t->col[k].pk != 0 && !t->col[k].not_null);
    }
    return may_be_null && !t->integer_key && !t->without_rowid;
}

const char *mm_trigger_refuses(const struct mm_table *t)
{
    if (mm_trigger_by_rowid(t) && mm_rowid_name(t) == NULL) {
        return "it has no key, and columns named rowid, _rowid_ and oid: rename one";
    }
    return mm_trigger_key_columns(t) > MAX_PLACE ? "its key has more than 255 columns" : NULL;
}

/* The column of a place in the key, from 1. */
static const struct mm_column *key_column(const struct mm_table *t, int place)
{
    int k = 0;
    while (k < t->ncol - 1 && t->col[k].pk != place) {
        k++;
    }
    return &t->col[k];
}

static const char *key_name(const struct mm_table *t, int place)
{
    return key_column(t, place)->name;
}

static bool is_set(const struct mm_table *t, int set)
{
    return set == BY_ROWID               ? mm_trigger_by_rowid(t)
           : set == BY_KEY               ? !t->keyless
           : t->unique[set].rule != NULL ? t->unique[set].match != NULL
                                         : t->unique[set].ncol > 0;
}

static int next_set(const struct mm_table *t, int set)
{
    do {
        set++;
    } while (set < t->nunique && !is_set(t, set));
    return set;
}

/* Its text is there already: the set is over expressions, or a part of the rows. */
static const char *rule_text(const struct mm_table *t, int set, bool differs)
{
    const struct mm_unique *u = set >= 0 ? &t->unique[set] : NULL;
    return u == NULL ? NULL : differs ? u->differs : u->match;
}

static int set_columns(const struct mm_table *t, int set)
{
    return set == BY_ROWID ? 0 : set == BY_KEY ? mm_trigger_key_columns(t) : t->unique[set].ncol;
}

static const struct mm_column *set_column(const struct mm_table *t, int set, int k)
{
    return set == BY_KEY ? key_column(t, k + 1) : &t->col[t->unique[set].col[k]];
}

/* The set compares by its index's collations. */
static const char *set_collate(const struct mm_table *t, int set, int k)
{
    const struct mm_column *c = set_column(t, set, k);
    return mm_column_collate(c, set == BY_KEY ? c->coll : t->unique[set].coll[k]);
}

/* What the row will hold. OR REPLACE gives NOT NULL columns their default in place
** of NULL only after the trigger has run. */
static void put_coming(sqlite3_str *s, const struct mm_column *c, const char *row)
{
    bool instead = c->instead != NULL && strcmp(row, "NEW") == 0;
    sqlite3_str_appendf(s, instead ? "coalesce(%s.\"%w\"," : "%s.\"%w\"", row, c->name);
    if (instead) {
        sqlite3_str_appendf(s, "%s)", c->instead);
    }
}

/* "a"=OLD."a" AND .. over a set. */
static void put_match(sqlite3_str *s, const struct mm_table *t, int set, const char *row)
{
    if (rule_text(t, set, false) != NULL) {
        sqlite3_str_appendall(s, rule_text(t, set, false));
        return;
    }
    if (set == BY_ROWID) {
        const char *rowid = mm_rowid_name(t);
        sqlite3_str_appendf(s, "\"%w\".%s=%s.%s", t->name, rowid, row, rowid);
    }
    for (int k = 0; k < set_columns(t, set); k++) {
        const struct mm_column *c = set_column(t, set, k);
        sqlite3_str_appendf(s, "%s\"%w\"=", k > 0 ? " AND " : "", c->name);
        put_coming(s, c, row);
        sqlite3_str_appendall(s, set_collate(t, set, k));
    }
}

static void put_differs(sqlite3_str *s, const struct mm_table *t, int set)
{
    if (rule_text(t, set, true) != NULL) {
        sqlite3_str_appendall(s, rule_text(t, set, true));
        return;
    }
    if (set == BY_ROWID) {
        const char *rowid = mm_rowid_name(t);
        sqlite3_str_appendf(s, "(NEW.%s IS NOT OLD.%s", rowid, rowid);
    }
    for (int k = 0; k < set_columns(t, set); k++) {
        const char *name = set_column(t, set, k)->name;
        sqlite3_str_appendf(s, "%sNEW.\"%w\" IS NOT OLD.\"%w\"%s", k > 0 ? " OR " : "(", name, name,
                            set_collate(t, set, k));
    }
    sqlite3_str_appendall(s, ")");
}

/* What one trigger of a table is made of. */
struct text {
    sqlite3_str *s;
    const struct mm_table *t;
    long long number;
    bool seldom; /* it fires much more often than it notes */
};

/* One value of an image: what stands before the row's own columns, these, and
** what stands behind them. */
static void put_value(const struct text *x, enum mm_log_kind kind, const char *row, int lead, int k)
{
    const struct mm_table *t = x->t;
    if (k < lead && kind == MM_LOG_RIVAL) {
        sqlite3_str_appendf(x->s, ",(\"%w\".%s)", t->name, mm_rowid_name(t));
    } else if (k < lead) {
        sqlite3_str_appendf(x->s, ",(%s.%s)", k > 0 ? "OLD" : row, mm_rowid_name(t));
    } else if (k - lead < t->ncol) {
        sqlite3_str_appendf(x->s, ",\"%w\"", t->col[k - lead].name);
    } else {
        sqlite3_str_appendf(x->s, ",NEW.\"%w\"", key_name(t, k - lead - t->ncol + 1));
    }
}

/* The INSERTs of an image: found by a set of `row`. A bare name means the row's
** column as long as there is one, and afterwards that of the pad, NULL: nothing
** for DROP COLUMN to refuse. NOT INDEXED: SQLite makes no index of an empty table. */
static void put_image(const struct text *x, enum mm_log_kind kind, int set, const char *row)
{
    const struct mm_table *t = x->t;
    sqlite3_str *s = x->s;
    int lead = kind == MM_LOG_NOW ? 2 : mm_trigger_by_rowid(t) ? 1 : 0;
    int all = lead + t->ncol + (kind == MM_LOG_MOVE ? mm_trigger_key_columns(t) : 0);
    for (int at = 0; at < all; at += MM_LOG_VALUES) {
        int n = all - at < MM_LOG_VALUES ? all - at : MM_LOG_VALUES;
        mm_log_text_put(s, n, x->seldom);
        sqlite3_str_appendf(s, " SELECT %lld,%d", x->number, at == 0 ? (int)kind : (int)MM_LOG_MORE);
        for (int k = at; k < at + n; k++) {
            put_value(x, kind, row, lead, k);
        }
        mm_log_text_id(s, x->seldom);
        for (int k = at > lead ? at : lead; k < at + n; k++) {
            int c = k - lead;
            bool own = c < t->ncol;
            mm_log_text_size(s, x->seldom, own ? "" : "NEW.", own ? t->col[c].name : key_name(t, c - t->ncol + 1));
        }
        sqlite3_str_appendf(s, " FROM \"%w\" NATURAL LEFT JOIN " MM_LOG_PAD " NOT INDEXED WHERE ", t->name, x->number);
        put_match(s, t, set, row);
        sqlite3_str_appendall(s, ";");
    }
}

static void put_evictions(const struct text *x, bool update)
{
    const struct mm_table *t = x->t;
    const char *glue = "(";
    for (int set = next_set(t, BY_ROWID - 1); set < t->nunique; set = next_set(t, set)) {
        sqlite3_str_appendall(x->s, glue);
        if (update) {
            put_differs(x->s, t, set);
            sqlite3_str_appendall(x->s, " AND ");
        }
        sqlite3_str_appendf(x->s, "EXISTS(SELECT 1 FROM \"%w\" WHERE ", t->name);
        put_match(x->s, t, set, "NEW");
        sqlite3_str_appendall(x->s, ")");
        glue = " OR ";
    }
    sqlite3_str_appendall(x->s, ") BEGIN ");
    for (int set = next_set(t, BY_ROWID - 1); set < t->nunique; set = next_set(t, set)) {
        put_image(x, mm_trigger_by_rowid(t) ? MM_LOG_RIVAL : MM_LOG_IMAGE, set, "NEW");
    }
}

static void put_touch(const struct text *x)
{
    int all = mm_trigger_key_columns(x->t);
    for (int at = 0; at < all; at += MM_LOG_VALUES) {
        int n = all - at < MM_LOG_VALUES ? all - at : MM_LOG_VALUES;
        mm_log_text_put(x->s, n, x->seldom);
        sqlite3_str_appendf(x->s, " VALUES(%lld,%d", x->number, at == 0 ? (int)MM_LOG_TOUCH : (int)MM_LOG_MORE);
        for (int k = at; k < at + n; k++) {
            sqlite3_str_appendf(x->s, ",NEW.\"%w\"", key_name(x->t, k + 1));
        }
        mm_log_text_id(x->s, x->seldom);
        for (int k = at; k < at + n && !x->t->integer_key; k++) {
            mm_log_text_size(x->s, x->seldom, "NEW.", key_name(x->t, k + 1));
        }
        sqlite3_str_appendall(x->s, ");");
    }
}

static void put_gone(const struct text *x)
{
    mm_log_text_put(x->s, 1, x->seldom);
    sqlite3_str_appendf(x->s, " VALUES(%lld,%d,OLD.%s", x->number, (int)MM_LOG_GONE, mm_rowid_name(x->t));
    mm_log_text_id(x->s, x->seldom);
    sqlite3_str_appendall(x->s, ");");
}

/* What expressions decide only SQLite can compare: the rivals that are gone now
** are noted before the row that evicted them. */
static void put_lost(const struct text *x)
{
    bool rules = false;
    for (int k = 0; k < x->t->nunique; k++) {
        rules = rules || x->t->unique[k].match != NULL;
    }
    if (rules) {
        mm_log_text_put(x->s, 1, true);
        sqlite3_str_appendf(x->s, " SELECT %lld,%d,v0 FROM ", x->number, (int)MM_LOG_LOST);
        mm_log_text_last(x->s);
        sqlite3_str_appendf(x->s,
                            " WHERE source=%lld AND kind=%d AND NOT EXISTS(SELECT 1 FROM \"%w\" WHERE \"%w\".%s=v0);",
                            x->number, (int)MM_LOG_RIVAL, x->t->name, x->t->name, mm_rowid_name(x->t));
    }
}

static void put_body(const struct text *x, enum mm_trigger_kind kind)
{
    bool by_rowid = mm_trigger_by_rowid(x->t);
    int set = by_rowid ? BY_ROWID : BY_KEY;
    switch (kind) {
    case MM_TRIGGER_ADDED:
        if (by_rowid) {
            put_lost(x);
            put_image(x, MM_LOG_PUT, set, "NEW");
        } else {
            put_touch(x);
        }
        break;
    case MM_TRIGGER_CHANGED:
        put_image(x, by_rowid ? MM_LOG_STOOD : MM_LOG_MOVE, set, "OLD");
        break;
    case MM_TRIGGER_REMOVED:
        put_image(x, by_rowid ? MM_LOG_STOOD : MM_LOG_IMAGE, set, "OLD");
        break;
    case MM_TRIGGER_BECAME:
        put_lost(x);
        put_image(x, MM_LOG_NOW, set, "NEW");
        break;
    case MM_TRIGGER_WENT:
        put_gone(x);
        break;
    default:
        break;
    }
}

int mm_trigger_kinds(const struct mm_table *t)
{
    return mm_trigger_by_rowid(t) ? MM_TRIGGER_KINDS : MM_TRIGGER_BECAME;
}

char *mm_trigger_text(const struct mm_table *t, long long number, int kind, bool guard)
{
    static const char *const ends[MM_TRIGGER_KINDS] = { "bi", "ai", "be", "bu", "bd", "au", "ad" };
    static const char *const events[MM_TRIGGER_KINDS] = { "BEFORE INSERT", "AFTER INSERT",  "BEFORE UPDATE",
                                                          "BEFORE UPDATE", "BEFORE DELETE", "AFTER UPDATE",
                                                          "AFTER DELETE" };
    bool when = kind == MM_TRIGGER_EVICT_INSERT || kind == MM_TRIGGER_EVICT_UPDATE;
    const struct text x = { sqlite3_str_new(NULL), t, number, guard || when };
    sqlite3_str_appendf(x.s, "CREATE TRIGGER \"__marmot__%lld_%s\" %s ON \"%w\"", number, ends[kind], events[kind],
                        t->name);
    sqlite3_str_appendall(x.s, " WHEN ");
    if (guard) {
        sqlite3_str_appendf(x.s, MM_TRIGGER_ASK "=0%s", number, when ? " AND " : "");
    } else if (!when) {
        sqlite3_str_appendall(x.s, mm_log_text_room);
    }
    if (when) {
        put_evictions(&x, kind == MM_TRIGGER_EVICT_UPDATE);
    } else {
        sqlite3_str_appendall(x.s, " BEGIN ");
        put_body(&x, (enum mm_trigger_kind)kind);
    }
    sqlite3_str_appendall(x.s, " END");
    return sqlite3_str_finish(x.s);
}
