#include "capture/tables.h"

#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "capture/index_rule.h"

/* What the pragmas say besides columns. */
struct looks {
    bool strict;
    bool ordinary;      /* type 'table' of pragma_table_list */
    bool virtual_last;  /* no VIRTUAL generated column stands before another column */
    bool pk_index;      /* the key has an index of its own: it is not the rowid */
    bool odd_collation; /* in the key or in any index */
};

bool mm_table_internal(const char *name)
{
    return name == NULL || name[0] == '\0' || sqlite3_strnicmp(name, "sqlite_", 7) == 0 ||
           sqlite3_strnicmp(name, "__marmot__", 10) == 0;
}

void mm_table_free(struct mm_table *t)
{
    if (t == NULL) {
        return;
    }
    for (int k = 0; k < t->ncol; k++) {
        free(t->col[k].name);
        free(t->col[k].decl);
        free(t->col[k].instead);
    }
    for (int k = 0; k < t->nunique; k++) {
        free(t->unique[k].index);
        free(t->unique[k].col);
        free(t->unique[k].coll);
        free(t->unique[k].rule);
        free(t->unique[k].match);
        free(t->unique[k].differs);
    }
    free(t->col);
    free(t->stored);
    free(t->unique);
    free(t->name);
    free(t->why);
    free(t->sql);
    free(t);
}

static char *copy_text(const char *s, struct mm_err *err)
{
    char *copy = err->rc == SQLITE_OK ? strdup(s != NULL ? s : "") : NULL;
    if (copy == NULL) {
        mm_err_nomem(err);
    }
    return copy;
}

/* The first reason stays: it is the nearest to the user's table. */
static void refuse(struct mm_table *t, struct mm_err *err, const char *why)
{
    if (t->why == NULL) {
        t->why = copy_text(why, err);
    }
}

static enum mm_coll coll_of(const char *name)
{
    if (name == NULL || sqlite3_stricmp(name, "BINARY") == 0) {
        return MM_COLL_BINARY;
    }
    if (sqlite3_stricmp(name, "NOCASE") == 0) {
        return MM_COLL_NOCASE;
    }
    return sqlite3_stricmp(name, "RTRIM") == 0 ? MM_COLL_RTRIM : MM_COLL_OTHER;
}

static bool contains(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (; *text != '\0'; text++) {
        if (sqlite3_strnicmp(text, word, (int)n) == 0) {
            return true;
        }
    }
    return false;
}

/* The rules of "Determination Of Column Affinity" in SQLite's datatype3.html. */
static enum mm_affinity affinity_of(const char *decl, bool strict)
{
    if (contains(decl, "INT")) {
        return MM_AFF_INTEGER;
    }
    if (contains(decl, "CHAR") || contains(decl, "CLOB") || contains(decl, "TEXT")) {
        return MM_AFF_TEXT;
    }
    if (decl[0] == '\0' || contains(decl, "BLOB") || (strict && sqlite3_stricmp(decl, "ANY") == 0)) {
        return MM_AFF_BLOB;
    }
    if (contains(decl, "REAL") || contains(decl, "FLOA") || contains(decl, "DOUB")) {
        return MM_AFF_REAL;
    }
    return MM_AFF_NUMERIC;
}

/* Name, kind and text. False: no such table, or err. */
static bool load_head(sqlite3 *db, struct mm_table *t, struct looks *l, const char *name, struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(
        db, err, 0,
        "SELECT l.name, l.type, l.wr, l.strict, s.sql FROM pragma_table_list(%Q) AS l JOIN main.sqlite_schema AS s"
        " ON s.name = l.name AND s.type IN ('table', 'view') WHERE l.schema = 'main'",
        name);
    bool found = mm_db_step(st, err) == 1;
    if (found) {
        const char *type = (const char *)sqlite3_column_text(st, 1);
        t->name = copy_text((const char *)sqlite3_column_text(st, 0), err);
        t->sql = copy_text((const char *)sqlite3_column_text(st, 4), err);
        t->without_rowid = sqlite3_column_int(st, 2) != 0;
        t->strict = l->strict = sqlite3_column_int(st, 3) != 0;
        l->ordinary = type != NULL && strcmp(type, "table") == 0;
        if (type != NULL && strcmp(type, "view") == 0) {
            refuse(t, err, "a view holds no rows: watch the tables that it reads");
        } else if (type != NULL && strcmp(type, "virtual") == 0) {
            refuse(t, err, "a virtual table: watch the ordinary tables that feed it");
        } else if (!l->ordinary) {
            refuse(t, err, "the storage of a virtual table: watch the ordinary tables that feed it");
        }
    }
    mm_db_finalize(st);
    return found && err->rc == SQLITE_OK;
}

static void load_column(sqlite3 *db, struct mm_table *t, const struct looks *l, sqlite3_stmt *st, struct mm_err *err)
{
    struct mm_column *c = &t->col[t->ncol];
    c->name = copy_text((const char *)sqlite3_column_text(st, 0), err);
    c->decl = copy_text((const char *)sqlite3_column_text(st, 1), err);
    t->stored[t->ncol++] = t->nstored;
    if (err->rc != SQLITE_OK) {
        return;
    }
    int place = sqlite3_column_int(st, 3);
    c->pk = place > 255 ? 255 : (uint8_t)place;
    c->not_null = sqlite3_column_int(st, 2) != 0;
    c->affinity = (uint8_t)affinity_of(c->decl, l->strict);
    const char *value = (const char *)sqlite3_column_text(st, 5);
    c->has_default = value != NULL && sqlite3_stricmp(value, "NULL") != 0;
    const char *coll = NULL;
    if (sqlite3_table_column_metadata(db, "main", t->name, c->name, NULL, &coll, NULL, NULL, NULL) != SQLITE_OK) {
        mm_db_fail(db, err, "reading a column's collation");
        return;
    }
    c->coll = (uint8_t)coll_of(coll);
    c->own_coll = c->coll;
}

const char *mm_column_collate(const struct mm_column *c, uint8_t coll)
{
    return coll == c->own_coll      ? ""
           : coll == MM_COLL_NOCASE ? " COLLATE NOCASE"
           : coll == MM_COLL_RTRIM  ? " COLLATE RTRIM"
                                    : " COLLATE BINARY";
}

/* A WITHOUT ROWID table is stored key first. SQLite 3.40 looks at the column
** declared in the place where a value is stored, not at the value's own. */
static void find_mistaken(struct mm_table *t, const uint8_t *declared, int n)
{
    int place = 0;
    for (int k = 0; k < t->ncol; k++) {
        place += t->col[k].pk != 0;
    }
    for (int cid = 0, k = 0; cid < n && t->without_rowid; cid++) {
        bool travels = k < t->ncol && t->stored[k] == cid;
        struct mm_column *c = travels ? &t->col[k++] : NULL;
        int at = c != NULL && c->pk != 0 ? c->pk - 1 : place++;
        if (c != NULL && at < n) {
            bool may_be_whole = c->affinity != MM_AFF_REAL && c->affinity != MM_AFF_TEXT;
            c->mistaken = declared[at] == MM_AFF_REAL && may_be_whole;
        }
    }
}

static void load_columns(sqlite3 *db, struct mm_table *t, struct looks *l, struct mm_err *err)
{
    enum { NORMAL = 0, VIRTUAL_GENERATED = 2 };
    int n = (int)mm_db_int(db, err, 0, "SELECT count(*) FROM pragma_table_xinfo(%Q, 'main')", t->name);
    t->col = calloc((size_t)n + 1, sizeof *t->col);
    t->stored = calloc((size_t)n + 1, sizeof *t->stored);
    uint8_t *declared = calloc((size_t)n + 1, 1);
    if (t->col == NULL || t->stored == NULL || declared == NULL) {
        mm_err_nomem(err);
    }
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT name, type, \"notnull\", pk, hidden, dflt_value"
                                     " FROM pragma_table_xinfo(%Q, 'main') ORDER BY cid",
                                     t->name);
    bool seen_virtual = false;
    l->virtual_last = true;
    while (mm_db_step(st, err)) {
        int hidden = sqlite3_column_int(st, 4);
        seen_virtual = seen_virtual || hidden == VIRTUAL_GENERATED;
        l->virtual_last = l->virtual_last && (hidden == VIRTUAL_GENERATED || !seen_virtual);
        if (t->nstored < n) {
            const char *decl = (const char *)sqlite3_column_text(st, 1);
            declared[t->nstored] = (uint8_t)affinity_of(decl != NULL ? decl : "", l->strict);
        }
        if (hidden == NORMAL && t->ncol < n) {
            load_column(db, t, l, st, err);
        }
        t->nstored++;
    }
    mm_db_finalize(st);
    if (err->rc == SQLITE_OK) {
        find_mistaken(t, declared, n);
    }
    free(declared);
}

static int column_at(const struct mm_table *t, const char *name)
{
    for (int k = 0; name != NULL && k < t->ncol; k++) {
        if (sqlite3_stricmp(t->col[k].name, name) == 0) {
            return k;
        }
    }
    return -1;
}

/* A UNIQUE set that repeats the key keeps no rows apart that the key does not. */
static bool repeats_key(const struct mm_table *t, const struct mm_unique *u)
{
    int nkey = 0;
    for (int k = 0; k < t->ncol; k++) {
        nkey += t->col[k].pk != 0;
    }
    for (int k = 0; k < u->ncol; k++) {
        if (t->col[u->col[k]].pk == 0 || t->col[u->col[k]].coll != u->coll[k]) {
            return false;
        }
    }
    return nkey == u->ncol;
}

static void load_index_columns(sqlite3 *db, struct mm_table *t, struct looks *l, struct mm_unique *u, bool is_key,
                               struct mm_err *err)
{
    sqlite3_stmt *st = mm_db_prepare(
        db, err, 0, "SELECT name, coll FROM pragma_index_xinfo(%Q, 'main') WHERE key ORDER BY seqno", u->index);
    bool named = true;
    while (mm_db_step(st, err)) {
        int at = column_at(t, (const char *)sqlite3_column_text(st, 0));
        enum mm_coll coll = coll_of((const char *)sqlite3_column_text(st, 1));
        l->odd_collation = l->odd_collation || coll == MM_COLL_OTHER;
        named = named && at >= 0 && u->ncol < t->ncol;
        if (is_key && at >= 0) {
            t->col[at].coll = (uint8_t)coll;
        }
        if (named) {
            u->col[u->ncol] = at;
            u->coll[u->ncol++] = (uint8_t)coll;
        }
    }
    mm_db_finalize(st);
    if (!named) {
        u->ncol = 0; /* an expression or a generated column */
    }
}

/* Reads one index into the next free place of t->unique; counts it when it
** is a UNIQUE set beyond the key. */
static void load_index(sqlite3 *db, struct mm_table *t, struct looks *l, sqlite3_stmt *st, struct mm_err *err)
{
    struct mm_unique *u = &t->unique[t->nunique];
    const char *origin = (const char *)sqlite3_column_text(st, 2);
    bool unique = sqlite3_column_int(st, 1) != 0;
    bool partial = sqlite3_column_int(st, 3) != 0;
    bool is_key = origin != NULL && strcmp(origin, "pk") == 0;
    u->index = copy_text((const char *)sqlite3_column_text(st, 0), err);
    u->col = calloc((size_t)t->ncol + 1, sizeof *u->col);
    u->coll = calloc((size_t)t->ncol + 1, sizeof *u->coll);
    if (u->col == NULL || u->coll == NULL) {
        mm_err_nomem(err);
    } else {
        load_index_columns(db, t, l, u, is_key, err);
    }
    l->pk_index = l->pk_index || is_key;
    if (err->rc == SQLITE_OK && unique && !is_key && (u->ncol == 0 || !repeats_key(t, u))) {
        u->rule = partial || u->ncol == 0 ? mm_index_rule(db, u->index, err) : NULL;
        t->nunique++;
        return;
    }
    free(u->index);
    free(u->col);
    free(u->coll);
    memset(u, 0, sizeof *u);
}

static void load_indexes(sqlite3 *db, struct mm_table *t, struct looks *l, struct mm_err *err)
{
    int n = (int)mm_db_int(db, err, 0, "SELECT count(*) FROM pragma_index_list(%Q, 'main')", t->name);
    t->unique = calloc((size_t)n + 1, sizeof *t->unique);
    if (t->unique == NULL) {
        mm_err_nomem(err);
    }
    /* The key first: a UNIQUE set is compared with its collations. */
    sqlite3_stmt *st = mm_db_prepare(db, err, 0,
                                     "SELECT name, \"unique\", origin, partial FROM pragma_index_list(%Q, 'main')"
                                     " ORDER BY origin = 'pk' DESC, seq DESC",
                                     t->name);
    while (mm_db_step(st, err)) {
        if (t->nunique < n) {
            load_index(db, t, l, st, err);
        }
    }
    mm_db_finalize(st);
}

static const char *const rowid_names[] = { "rowid", "_rowid_", "oid" };

/* The one place that decides what is not supported yet. */
static void judge(struct mm_table *t, const struct looks *l, struct mm_err *err)
{
    int nkey = 0;
    bool null_key = false;
    bool odd_key = false;
    bool odd_place = false;
    for (int k = 0; k < t->ncol; k++) {
        const struct mm_column *c = &t->col[k];
        nkey += c->pk != 0;
        odd_key = odd_key || (c->pk != 0 && c->coll == MM_COLL_OTHER);
        null_key = null_key || (c->pk != 0 && !c->not_null);
        odd_place = odd_place || (c->pk != 0 && c->mistaken);
    }
    t->integer_key = nkey == 1 && !t->without_rowid && !l->pk_index;
    t->keyless = nkey == 0;
    null_key = null_key && !t->integer_key && !t->without_rowid;
    bool hidden = !t->without_rowid;
    for (int k = 0; k < 3 && hidden; k++) {
        hidden = column_at(t, rowid_names[k]) >= 0;
    }
    t->capturable = l->ordinary && l->virtual_last && !odd_place;
    if ((t->keyless || null_key) && hidden) {
        refuse(t, err, "rows without a key, and columns named rowid, _rowid_ and oid: declare a key, or rename one");
    }
    if (odd_key || l->odd_collation) {
        refuse(t, err, "a collation other than BINARY, NOCASE and RTRIM in the key or in an index: use one of these");
    }
    if (!l->virtual_last) {
        refuse(t, err, "a VIRTUAL generated column before other columns: move it to the end, or make it STORED");
    }
    if (odd_place) {
        refuse(t, err,
               "a REAL column stands where the key of this WITHOUT ROWID table is stored: declare the key first");
    }
    t->supported = t->why == NULL;
}

struct mm_table *mm_table_load(sqlite3 *db, const char *name, struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return NULL;
    }
    struct looks l;
    memset(&l, 0, sizeof l);
    struct mm_table *t = calloc(1, sizeof *t);
    if (t == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    if (!load_head(db, t, &l, name, err)) {
        mm_table_free(t);
        return NULL;
    }
    if (l.ordinary) {
        load_columns(db, t, &l, err);
        load_indexes(db, t, &l, err);
    }
    if (err->rc == SQLITE_OK && t->why == NULL) {
        judge(t, &l, err);
    }
    if (err->rc != SQLITE_OK) {
        mm_err_prefix(err, "reading the definition of table %.80s", name);
        mm_table_free(t);
        return NULL;
    }
    return t;
}

char **mm_table_list(sqlite3 *db, int *n, struct mm_err *err)
{
    *n = 0;
    int room = (int)mm_db_int(db, err, 0, "SELECT count(*) FROM pragma_table_list WHERE schema = 'main'");
    if (err->rc != SQLITE_OK || room == 0) {
        return NULL;
    }
    char **names = calloc((size_t)room, sizeof *names);
    if (names == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    sqlite3_stmt *st = mm_db_prepare(
        db, err, 0, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name");
    while (mm_db_step(st, err)) {
        const char *name = (const char *)sqlite3_column_text(st, 0);
        if (!mm_table_internal(name) && *n < room) {
            names[(*n)++] = copy_text(name, err);
        }
    }
    mm_db_finalize(st);
    if (err->rc != SQLITE_OK || *n == 0) {
        for (int k = 0; k < *n; k++) {
            free(names[k]);
        }
        free(names);
        *n = 0;
        return NULL;
    }
    return names;
}

bool mm_table_same_shape(const struct mm_table *a, const struct mm_table *b)
{
    if (a->ncol != b->ncol || a->nstored != b->nstored || strcmp(a->name, b->name) != 0) {
        return false;
    }
    for (int k = 0; k < a->ncol; k++) {
        if (strcmp(a->col[k].name, b->col[k].name) != 0 || a->col[k].pk != b->col[k].pk ||
            a->stored[k] != b->stored[k]) {
            return false;
        }
    }
    return true;
}

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t k = 0; k < n; k++) {
        uint8_t c = b[k];
        h = (h ^ (c >= 'A' && c <= 'Z' ? c + 32u : c)) * 1099511628211ULL;
    }
    return h;
}

static uint64_t mix_text(uint64_t h, const char *s)
{
    return mix(h, s, strlen(s) + 1);
}

/* What is added up must not keep the structure of its last bytes: a key that
** stands at another column would else cancel out. */
static uint64_t finished(uint64_t h)
{
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebULL;
    return h ^ (h >> 31);
}

/* Letters of a rule's literals count as they are. */
static uint64_t hash_rule(const char *rule)
{
    uint64_t h = 14695981039346656037ULL;
    for (; *rule != '\0'; rule++) {
        h = (h ^ (uint8_t)*rule) * 1099511628211ULL;
    }
    return finished(h);
}

/* Sums make the hash blind to the order of columns and of UNIQUE sets. */
uint64_t mm_table_hash(const struct mm_table *t)
{
    const uint64_t basis = 14695981039346656037ULL;
    uint64_t columns = 0;
    uint64_t sets = 0;
    for (int k = 0; k < t->ncol; k++) {
        const struct mm_column *c = &t->col[k];
        const uint8_t facts[2] = { c->pk, c->coll };
        columns += finished(mix(mix_text(mix_text(basis, c->name), c->decl), facts, sizeof facts));
    }
    for (int k = 0; k < t->nunique; k++) {
        uint64_t set = t->unique[k].rule != NULL ? hash_rule(t->unique[k].rule) : 0;
        for (int j = 0; t->unique[k].rule == NULL && j < t->unique[k].ncol; j++) {
            set += finished(mix(mix_text(basis, t->col[t->unique[k].col[j]].name), &t->unique[k].coll[j], 1));
        }
        sets += finished(mix(basis, &set, sizeof set));
    }
    uint64_t h = mix_text(basis, t->name);
    h = mix(h, &columns, sizeof columns);
    return mix(h, &sets, sizeof sets);
}
