/* Net changes as mm_change_read finds them in what the hook captured, against
** the session extension's own changeset of the same statements. The tables have
** different numbers of columns: the address sanitizer sees when the rows of one
** are read with the number of another. The seed is the first argument, else the
** clock's. marmot-test: parallel */
#define SQLITE_ENABLE_SESSION 1
#define SQLITE_ENABLE_PREUPDATE_HOOK 1
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/sqlite.h"
#include "store/change.h"
#include "store/outbox.h"
#include "test/lib/capture_rig.h"
#include "test/lib/sqlite_api.h"

enum { ROUNDS = 400, LINES = 256 };

static const char schema[] =
    "CREATE TABLE one(id INTEGER PRIMARY KEY, a, b TEXT, c REAL);"
    "CREATE TABLE two(x INTEGER NOT NULL, y TEXT NOT NULL, v, PRIMARY KEY (y, x)) WITHOUT ROWID;"
    "CREATE TABLE three(k BLOB NOT NULL PRIMARY KEY, u UNIQUE);"
    "INSERT INTO one VALUES (1, 1, 'x', 1.0), (2, NULL, NULL, 2.5), (3, x'00', '', 3);"
    "INSERT INTO two VALUES (1, 'a', 1), (2, 'a', 2), (1, 'b', 3);"
    "INSERT INTO three VALUES (x'01', 1), ('t', 2), (5, NULL);";

static uint64_t state;

static unsigned pick(unsigned n)
{
    state += 0x9E3779B97F4A7C15ULL; /* splitmix64 */
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return (unsigned)((z ^ (z >> 31)) % n);
}

/* --- a change set as sorted lines --- */

struct lines {
    char *line[LINES];
    int n;
};

static void add_line(struct lines *l, struct mm_buf *b)
{
    mm_buf_byte(b, 0);
    if (l->n < LINES && b->data != NULL) {
        l->line[l->n++] = strdup((const char *)b->data);
    }
    mm_buf_clear(b);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_value(struct mm_buf *b, const char *before, const struct mm_value *v)
{
    mm_buf_printf(b, "%s%d:", before, v->type);
    mm_value_json(b, v);
}

/* Old and new are full where they are there; UNDEF and equal columns of an
** UPDATE are left out. */
static void describe(struct lines *l, const char *table, uint32_t ncol, const uint8_t *pk, const struct mm_value *old,
                     const struct mm_value *new)
{
    struct mm_buf b;
    mm_buf_init(&b, 1 << 20);
    mm_buf_printf(&b, "%s %s", table, old == NULL ? "insert" : new == NULL ? "delete" : "update");
    for (uint32_t k = 0; k < ncol; k++) {
        if (old == NULL || new == NULL) {
            add_value(&b, " ", old != NULL ? &old[k] : &new[k]);
        } else if (pk[k] != 0) {
            add_value(&b, " key ", &old[k]);
        } else if (new[k].type != MM_UNDEF && !mm_value_same(&old[k], &new[k])) {
            add_value(&b, " from ", &old[k]);
            add_value(&b, " to ", &new[k]);
        }
    }
    add_line(l, &b);
    mm_buf_free(&b);
}

static void free_lines(struct lines *l)
{
    while (l->n > 0) {
        free(l->line[--l->n]);
    }
}

static bool same_lines(struct lines *a, struct lines *b)
{
    qsort(a->line, (size_t)a->n, sizeof a->line[0], by_text);
    qsort(b->line, (size_t)b->n, sizeof b->line[0], by_text);
    bool same = a->n == b->n;
    for (int k = 0; same && k < a->n; k++) {
        same = strcmp(a->line[k], b->line[k]) == 0;
    }
    for (int k = 0; !same && k < a->n; k++) {
        printf("# captured: %s\n", a->line[k]);
    }
    for (int k = 0; !same && k < b->n; k++) {
        printf("# session:  %s\n", b->line[k]);
    }
    return same;
}

/* --- the two sides --- */

static bool read_captured(sqlite3 *db, int64_t after, struct lines *out)
{
    struct mm_err err;
    struct mm_outbox_row row;
    struct mm_buf names;
    struct mm_buf data;
    struct mm_arena a;
    mm_err_init(&err);
    mm_buf_init(&names, 1 << 20);
    mm_buf_init(&data, 1 << 24);
    mm_arena_init(&a, 1 << 26);
    struct mm_outbox *o = mm_outbox_open(db, &err);
    struct mm_txn txn = { .arena = &a };
    if (o != NULL && mm_outbox_next(o, after, &row, &names, &data, &err)) {
        mm_change_read(&txn, data.data, data.len, names.data, names.len, NULL, NULL, &err);
    }
    for (size_t i = 0; i < txn.ntab; i++) {
        const struct mm_tab *t = &txn.tab[i];
        for (size_t j = 0; j < t->nrow; j++) {
            describe(out, t->name, t->ncol, t->pk, t->row[j].before, t->row[j].after);
        }
    }
    mm_outbox_close(o);
    mm_arena_free(&a);
    mm_buf_free(&names);
    mm_buf_free(&data);
    if (err.rc != SQLITE_OK) {
        printf("# %s\n", err.msg);
    }
    return err.rc == SQLITE_OK;
}

static bool read_session(sqlite3_session *s, struct lines *out)
{
    int n = 0;
    void *bytes = NULL;
    sqlite3_changeset_iter *it = NULL;
    bool good =
        sqlite3session_changeset(s, &n, &bytes) == SQLITE_OK && sqlite3changeset_start(&it, n, bytes) == SQLITE_OK;
    while (good && sqlite3changeset_next(it) == SQLITE_ROW) {
        struct mm_value old[8];
        struct mm_value new[8];
        const char *table = NULL;
        unsigned char *pk = NULL;
        int ncol = 0;
        int op = 0;
        int indirect = 0;
        memset(old, 0, sizeof old);
        memset(new, 0, sizeof new);
        good = sqlite3changeset_op(it, &table, &ncol, &op, &indirect) == SQLITE_OK &&
               sqlite3changeset_pk(it, &pk, NULL) == SQLITE_OK && ncol <= 8;
        for (int k = 0; good && k < ncol; k++) {
            sqlite3_value *v = NULL;
            if (op != SQLITE_INSERT && sqlite3changeset_old(it, k, &v) == SQLITE_OK && v != NULL) {
                good = mm_value_from(&old[k], v);
            }
            v = NULL;
            if (op != SQLITE_DELETE && sqlite3changeset_new(it, k, &v) == SQLITE_OK && v != NULL) {
                good = good && mm_value_from(&new[k], v);
            }
        }
        if (good) {
            describe(out, table, (uint32_t)ncol, pk, op != SQLITE_INSERT ? old : NULL,
                     op != SQLITE_DELETE ? new : NULL);
        }
    }
    good = good && sqlite3changeset_finalize(it) == SQLITE_OK;
    sqlite3_free(bytes);
    return good;
}

/* --- statements --- */

static const char *value(void)
{
    static const char *const values[] = {
        "NULL", "0", "1", "1.0", "2.5", "'a'", "'b'", "x''", "x'61'", "-7", "''", "4"
    };
    return values[pick(12)];
}

/* The session extension takes 1 and 1.0 for two keys. */
static const char *key(void)
{
    static const char *const values[] = { "0", "1", "2.5", "'a'", "x'61'", "''", "x'01'", "NULL" };
    return values[pick(8)];
}

static const char *text(void)
{
    static const char *const values[] = { "'a'", "'b'", "'c'" };
    return values[pick(3)];
}

static const char *how(void)
{
    static const char *const values[] = { "", "OR REPLACE", "OR IGNORE" };
    return values[pick(3)];
}

static void statement(char *sql, size_t n)
{
    switch (pick(12)) {
    case 0:
    case 1:
        snprintf(sql, n, "INSERT %s INTO one VALUES (%u, %s, %s, %s)", how(), 1 + pick(5), value(), value(), value());
        break;
    case 2:
        snprintf(sql, n, "UPDATE one SET a = %s, c = %s WHERE id <= %u", value(), value(), 1 + pick(5));
        break;
    case 3:
        snprintf(sql, n, "UPDATE %s one SET id = %u WHERE id = %u", how(), 1 + pick(5), 1 + pick(5));
        break;
    case 4:
        snprintf(sql, n, "DELETE FROM one WHERE id = %u", 1 + pick(5));
        break;
    case 5:
        snprintf(sql, n, "INSERT %s INTO two VALUES (%u, %s, %s)", how(), 1 + pick(3), text(), value());
        break;
    case 6:
        snprintf(sql, n, "UPDATE %s two SET y = %s, v = %s WHERE x = %u", how(), text(), value(), 1 + pick(3));
        break;
    case 7:
        snprintf(sql, n, "DELETE FROM two WHERE y = %s", text());
        break;
    case 8:
        snprintf(sql, n, "INSERT %s INTO three VALUES (%s, %s)", how(), key(), value());
        break;
    case 9:
        snprintf(sql, n, "UPDATE %s three SET u = %s WHERE k = %s", how(), value(), key());
        break;
    case 10:
        snprintf(sql, n, "UPDATE %s three SET k = %s WHERE u IS %s", how(), key(), value());
        break;
    default:
        snprintf(sql, n, "DELETE FROM %s", pick(4) == 0 ? "one" : "three");
        break;
    }
}

/* One transaction on both databases; false: the captured one was refused and
** the oracle must not have it either. */
static bool run_both(struct rig *r, sqlite3 *oracle, char *trace, size_t n)
{
    unsigned count = 1 + pick(8);
    bool inner = false;
    size_t len = 0;
    rig_sql(r->db, "BEGIN");
    rig_sql(oracle, "BEGIN");
    for (unsigned k = 0; k < count; k++) {
        char sql[256];
        statement(sql, sizeof sql);
        if (!inner && pick(6) == 0) {
            inner = true;
            snprintf(sql, sizeof sql, "SAVEPOINT s");
        } else if (inner && pick(4) == 0) {
            inner = false;
            snprintf(sql, sizeof sql, pick(2) == 0 ? "ROLLBACK TO s; RELEASE s" : "RELEASE s");
        }
        int mine = rig_sql(r->db, "%s", sql);
        int theirs = rig_sql(oracle, "%s", sql);
        len += (size_t)snprintf(trace + len, n - len, "%s; ", sql);
        len = len < n ? len : n - 1;
        if (mine != theirs) {
            printf("# %s: %d and %d\n", sql, mine, theirs);
            return false;
        }
    }
    int mine = rig_sql(r->db, "COMMIT");
    int theirs = rig_sql(oracle, "COMMIT");
    if (mine != SQLITE_OK || theirs != SQLITE_OK) {
        printf("# COMMIT: %d and %d: %s\n", mine, theirs, sqlite3_errmsg(r->db));
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    test_sqlite_start();
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    printf("# seed %" PRIu64 "\n", state);
    struct rig r;
    sqlite3 *oracle = NULL;
    rig_open(&r, schema);
    if (sqlite3_open(":memory:", &oracle) != SQLITE_OK || rig_sql(oracle, "%s", schema) != SQLITE_OK) {
        return 2;
    }
    int changes = 0;
    int rounds = 0;
    bool good = true;
    for (; rounds < ROUNDS && good; rounds++) {
        char trace[4096] = "";
        struct lines mine = { .n = 0 };
        struct lines theirs = { .n = 0 };
        sqlite3_session *s = NULL;
        int64_t before = rig_outbox_last(r.db);
        good = sqlite3session_create(oracle, "main", &s) == SQLITE_OK && sqlite3session_attach(s, NULL) == SQLITE_OK;
        good = good && run_both(&r, oracle, trace, sizeof trace);
        good = good && read_captured(r.db, before, &mine) && read_session(s, &theirs) && same_lines(&mine, &theirs);
        if (!good) {
            printf("# %s\n", trace);
        }
        changes += theirs.n;
        sqlite3session_delete(s);
        free_lines(&mine);
        free_lines(&theirs);
    }
    rig_check("net changes are those of the session extension", good, "round %d", rounds);
    rig_check("enough changes were met", changes > ROUNDS, "%d", changes);
    sqlite3_close(oracle);
    rig_close(&r);
    return rig_done();
}
