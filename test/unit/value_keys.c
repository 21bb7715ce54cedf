/* Values against SQLite itself: which keys are one row, what is written down
** and read back. The seed is the first argument, else the clock's.
** marmot-test: parallel */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/value.h"
#include "test/lib/naive_value.h"
#include "test/lib/sqlite_api.h"

enum { PAIRS = 150000 };

static uint64_t state;
static int bad;

static uint64_t next(void)
{
    state += 0x9E3779B97F4A7C15ULL; /* splitmix64 */
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

static unsigned pick(unsigned n)
{
    return (unsigned)(next() % n);
}

static void check(const char *name, bool good)
{
    printf("%s %s\n", good ? "ok" : "not ok", name);
    bad += !good;
}

static int64_t some_int(void)
{
    static const int64_t edges[] = {
        0, 1, -1, INT64_MAX, INT64_MIN, 9007199254740992, 9007199254740993, 4503599627370496
    };
    switch (pick(4)) {
    case 0:
        return (int64_t)pick(4);
    case 1:
        return edges[pick(8)];
    case 2:
        return (int64_t)next() >> pick(63);
    default:
        return (int64_t)(edges[pick(8)] ^ (int64_t)pick(3));
    }
}

static double some_real(void)
{
    static const double edges[] = { 0.0,
                                    -0.0,
                                    0.5,
                                    9223372036854775808.0,
                                    -9223372036854775808.0,
                                    9007199254740992.0,
                                    1e300,
                                    -1e-300,
                                    9223372036854774784.0,
                                    1.0 / 0.0 };
    switch (pick(3)) {
    case 0:
        return edges[pick(10)];
    case 1:
        return (double)some_int();
    default:
        return (double)(int)pick(8) / 2;
    }
}

/* Bytes live in `room`, of 16 bytes. */
static struct mm_value some_value(uint8_t *room)
{
    static const uint8_t letters[] = { 'a', 'A', 'b', 'B', ' ', ' ', 0, '[', '{', '@', 0xC3, 0x84, 'z', 'Z' };
    struct mm_value v;
    memset(&v, 0, sizeof v);
    v.type = (uint8_t)(1 + pick(5));
    if (v.type == SQLITE_INTEGER) {
        v.u.i = some_int();
    } else if (v.type == SQLITE_FLOAT) {
        v.u.r = some_real();
    } else if (v.type != SQLITE_NULL) {
        v.len = pick(5);
        v.u.p = room;
        for (uint32_t k = 0; k < v.len; k++) {
            room[k] = letters[pick(sizeof letters)];
        }
    }
    return v;
}

static struct mm_value near(const struct mm_value *v, uint8_t *room)
{
    struct mm_value other = *v;
    if (pick(3) == 0) {
        return some_value(room);
    }
    if (v->type == SQLITE_INTEGER && pick(2) == 0) {
        other.type = SQLITE_FLOAT;
        other.u.r = (double)v->u.i;
    } else if (v->type == SQLITE_TEXT || v->type == SQLITE_BLOB) {
        memcpy(room, v->u.p, v->len);
        other.u.p = room;
        other.type = pick(8) == 0 ? (uint8_t)(SQLITE_TEXT + SQLITE_BLOB - v->type) : v->type;
        if (v->len > 0 && pick(2) == 0) {
            room[pick(v->len)] ^= 0x20;
        }
        if (pick(3) == 0) {
            room[other.len++] = pick(2) == 0 ? ' ' : 0;
        }
    }
    return other;
}

static bool same_bytes(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll)
{
    struct mm_buf x;
    struct mm_buf y;
    mm_buf_init(&x, 1 << 20);
    mm_buf_init(&y, 1 << 20);
    mm_value_key(&x, a, coll);
    mm_value_key(&y, b, coll);
    bool same = !mm_buf_failed(&x) && !mm_buf_failed(&y) && x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
    mm_buf_free(&x);
    mm_buf_free(&y);
    return same;
}

static void tell(const char *what, const struct mm_value *a, const struct mm_value *b, int coll, int sqlite)
{
    struct mm_buf x;
    mm_buf_init(&x, 1 << 20);
    mm_value_json(&x, a);
    mm_buf_str(&x, " and ");
    mm_value_json(&x, b);
    mm_buf_byte(&x, 0);
    printf("# %s: %s under collation %d, SQLite says %d\n", what, (const char *)x.data, coll, sqlite);
    mm_buf_free(&x);
}

/* Keys: SQLite's = and <, the canonical bytes, the comparison, the order and the naive ones. */
static void keys(sqlite3 *db)
{
    static const char *const sql[] = { "SELECT ?1 = ?2 COLLATE BINARY, (?1 < ?2 COLLATE BINARY)",
                                       "SELECT ?1 = ?2 COLLATE NOCASE, (?1 < ?2 COLLATE NOCASE)",
                                       "SELECT ?1 = ?2 COLLATE RTRIM, (?1 < ?2 COLLATE RTRIM)" };
    sqlite3_stmt *st[3];
    int wrong_bytes = 0;
    int wrong_equal = 0;
    int wrong_order = 0;
    int wrong_naive = 0;
    int equal = 0;
    for (int c = 0; c < 3; c++) {
        if (sqlite3_prepare_v2(db, sql[c], -1, &st[c], NULL) != SQLITE_OK) {
            check("statements", false);
            return;
        }
    }
    for (int k = 0; k < PAIRS; k++) {
        uint8_t room[2][16];
        struct mm_value a = some_value(room[0]);
        struct mm_value b = near(&a, room[1]);
        int c = (int)pick(3);
        mm_value_bind(st[c], 1, &a);
        mm_value_bind(st[c], 2, &b);
        bool row = sqlite3_step(st[c]) == SQLITE_ROW;
        bool null = sqlite3_column_type(st[c], 0) == SQLITE_NULL;
        bool same = row && sqlite3_column_int(st[c], 0) != 0;
        bool less = row && sqlite3_column_int(st[c], 1) != 0;
        sqlite3_reset(st[c]);
        equal += same;
        if (!null && same_bytes(&a, &b, (enum mm_coll)c) != same && wrong_bytes++ < 5) {
            tell("canonical bytes", &a, &b, c, same);
        }
        if (mm_value_key_equal(&a, &b, (enum mm_coll)c) != same && wrong_equal++ < 5) {
            tell("mm_value_key_equal", &a, &b, c, same);
        }
        int order = mm_value_compare(&a, &b, (enum mm_coll)c);
        if (!null && ((order == 0) != same || (order < 0) != less) && wrong_order++ < 5) {
            tell("mm_value_compare", &a, &b, c, same);
        }
        if (!null &&
            (naive_key_equal(&a, &b, (enum mm_coll)c) != same ||
             (naive_value_order(&a, &b, (enum mm_coll)c) < 0) != less) &&
            wrong_naive++ < 5) {
            tell("the naive order", &a, &b, c, same);
        }
    }
    for (int c = 0; c < 3; c++) {
        sqlite3_finalize(st[c]);
    }
    check("canonical key bytes are the same exactly for keys that SQLite holds equal", wrong_bytes == 0);
    check("mm_value_key_equal says what SQLite says", wrong_equal == 0);
    check("mm_value_compare puts them in SQLite's order", wrong_order == 0);
    check("the naive order is SQLite's", wrong_naive == 0);
    check("enough equal keys were met", equal > PAIRS / 20);
}

/* Encoding: all comes back, no prefix does; the statement gives the same. */
static void encoding(sqlite3 *db)
{
    int wrong = 0;
    int prefixes = 0;
    int bound = 0;
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(db, "SELECT ?1", -1, &st, NULL) != SQLITE_OK) {
        check("statement", false);
        return;
    }
    for (int k = 0; k < PAIRS / 10; k++) {
        uint8_t room[16];
        struct mm_value v = some_value(room);
        struct mm_value got;
        struct mm_buf b;
        mm_buf_init(&b, 1 << 20);
        mm_value_encode(&b, &v);
        const uint8_t *p = b.data;
        wrong += !mm_value_decode(&p, b.data + b.len, &got) || p != b.data + b.len || !mm_value_same(&v, &got) ||
                 !naive_value_same(&v, &got);
        for (size_t n = 0; n < b.len; n++) {
            uint8_t *part = malloc(n + 1); /* exactly so long that the sanitizer sees one byte too many */
            part = part != NULL && n > 0 ? realloc(part, n) : part;
            if (part == NULL) {
                prefixes++;
                break;
            }
            memcpy(part, b.data, n);
            p = part;
            prefixes += mm_value_decode(&p, part + n, &got);
            free(part);
        }
        mm_buf_free(&b);
        mm_value_bind(st, 1, &v);
        bool nul = v.type == SQLITE_FLOAT && v.u.r != v.u.r;
        bound += sqlite3_step(st) != SQLITE_ROW || !mm_value_column(&got, st, 0) || (!nul && !mm_value_same(&v, &got));
        sqlite3_reset(st);
    }
    sqlite3_finalize(st);
    check("each value comes back as it was written", wrong == 0);
    check("no prefix of a written value can be read", prefixes == 0);
    check("what is bound comes back from a column, type and bytes", bound == 0);
    uint8_t unknown[] = { 6, 0, 0 };
    const uint8_t *at = unknown;
    struct mm_value got;
    check("an unknown type is refused", !mm_value_decode(&at, unknown + 3, &got));
    uint8_t huge[] = { SQLITE_BLOB, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1 };
    at = huge;
    check("a length beyond all bytes is refused", !mm_value_decode(&at, huge + sizeof huge, &got));
}

static void varints(void)
{
    int wrong = 0;
    int longer = 0;
    for (int k = 0; k < PAIRS; k++) {
        uint64_t v = next() >> pick(64);
        v = pick(4) == 0 ? (UINT64_C(1) << (7 * pick(10) % 64)) - pick(2) : v;
        struct mm_buf b;
        mm_buf_init(&b, 64);
        mm_varint_put(&b, v);
        const uint8_t *p = b.data;
        uint64_t got = 0;
        wrong += !mm_varint_get(&p, b.data + b.len, &got) || got != v || p != b.data + b.len;
        size_t need = 1;
        while (need < 9 && v >> (7 * need) != 0) {
            need++;
        }
        longer += b.len != need;
        for (size_t n = 0; n < b.len; n++) {
            p = b.data;
            wrong += mm_varint_get(&p, b.data + n, &got);
        }
        mm_buf_free(&b);
    }
    check("varints come back, their prefixes do not", wrong == 0);
    check("varints are as short as SQLite's", longer == 0);
}

int main(int argc, char **argv)
{
    sqlite3 *db = NULL;
    test_sqlite_start();
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    printf("# seed %" PRIu64 "\n", state);
    if (sqlite3_open(":memory:", &db) != SQLITE_OK) {
        return 2;
    }
    keys(db);
    encoding(db);
    varints();
    check("the database closes", sqlite3_close(db) == SQLITE_OK);
    return bad != 0;
}
