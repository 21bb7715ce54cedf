#include "store/value.h"

#include <endian.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define INT64_END 9223372036854775808.0 /* 2^63 */

const char *mm_coll_name(enum mm_coll coll)
{
    return coll == MM_COLL_NOCASE ? "NOCASE" : coll == MM_COLL_RTRIM ? "RTRIM" : "BINARY";
}

bool mm_value_same(const struct mm_value *a, const struct mm_value *b)
{
    if (a->type != b->type) {
        return false;
    }
    switch (a->type) {
    case SQLITE_INTEGER:
        return a->u.i == b->u.i;
    case SQLITE_FLOAT:
        return memcmp(&a->u.r, &b->u.r, sizeof a->u.r) == 0;
    case SQLITE_TEXT:
    case SQLITE_BLOB:
        return a->len == b->len && (a->len == 0 || memcmp(a->u.p, b->u.p, a->len) == 0);
    default:
        return true;
    }
}

/* True, with the integer, when the real is an integer that int64 holds: those
** two are equal for SQLite. The upper bound is exclusive: 2^63 is no int64. */
static bool integral(double r, int64_t *i)
{
    if (!(r >= -9223372036854775808.0 && r < 9223372036854775808.0)) {
        return false;
    }
    *i = (int64_t)r;
    return (double)*i == r;
}

static uint8_t fold_byte(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

/* SQLite's NOCASE looks no further than a NUL, but at the lengths (main.c,
** nocaseCollatingFunc). */
static uint32_t nocase_len(const uint8_t *p, uint32_t len)
{
    const uint8_t *nul = len > 0 ? memchr(p, 0, len) : NULL;
    return nul != NULL ? (uint32_t)(nul - p) : len;
}

void mm_value_key(struct mm_buf *b, const struct mm_value *v, enum mm_coll coll)
{
    int64_t i = v->u.i;
    uint32_t len = v->len;
    switch (v->type) {
    case SQLITE_FLOAT:
        if (!integral(v->u.r, &i)) {
            mm_buf_byte(b, 'r');
            mm_buf_add(b, &v->u.r, sizeof v->u.r);
            break;
        }
        /* fall through */
    case SQLITE_INTEGER:
        mm_buf_byte(b, 'i');
        mm_buf_add(b, &i, sizeof i);
        break;
    case SQLITE_TEXT:
        while (coll == MM_COLL_RTRIM && len > 0 && v->u.p[len - 1] == ' ') {
            len--;
        }
        mm_buf_byte(b, 't');
        mm_varint_put(b, len);
        if (coll == MM_COLL_NOCASE) {
            uint32_t n = nocase_len(v->u.p, len);
            uint8_t *to = mm_buf_reserve(b, n);
            for (uint32_t k = 0; to != NULL && k < n; k++) {
                to[k] = fold_byte(v->u.p[k]);
            }
            b->len += to != NULL ? n : 0;
        } else {
            mm_buf_add(b, v->u.p, len);
        }
        break;
    case SQLITE_BLOB:
        mm_buf_byte(b, 'b');
        mm_varint_put(b, len);
        mm_buf_add(b, v->u.p, len);
        break;
    default:
        mm_buf_byte(b, 'n');
        break;
    }
}

static bool number_equal(const struct mm_value *a, const struct mm_value *b)
{
    int64_t ia = a->u.i;
    int64_t ib = b->u.i;
    bool exact_a = a->type == SQLITE_INTEGER || integral(a->u.r, &ia);
    bool exact_b = b->type == SQLITE_INTEGER || integral(b->u.r, &ib);
    if (exact_a != exact_b) {
        return false;
    }
    return exact_a ? ia == ib : a->u.r == b->u.r;
}

static bool text_equal(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll)
{
    uint32_t la = a->len;
    uint32_t lb = b->len;
    while (coll == MM_COLL_RTRIM && la > 0 && a->u.p[la - 1] == ' ') {
        la--;
    }
    while (coll == MM_COLL_RTRIM && lb > 0 && b->u.p[lb - 1] == ' ') {
        lb--;
    }
    if (la != lb) {
        return false;
    }
    if (coll == MM_COLL_NOCASE) {
        la = nocase_len(a->u.p, la);
        if (la != nocase_len(b->u.p, lb)) {
            return false;
        }
    }
    for (uint32_t k = 0; k < la; k++) {
        uint8_t ca = a->u.p[k];
        uint8_t cb = b->u.p[k];
        if (coll == MM_COLL_NOCASE ? fold_byte(ca) != fold_byte(cb) : ca != cb) {
            return false;
        }
    }
    return true;
}

bool mm_value_key_equal(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll)
{
    bool number_a = a->type == SQLITE_INTEGER || a->type == SQLITE_FLOAT;
    bool number_b = b->type == SQLITE_INTEGER || b->type == SQLITE_FLOAT;
    if (number_a || number_b) {
        return number_a && number_b && number_equal(a, b);
    }
    if (a->type != b->type || a->type == SQLITE_NULL || a->type == MM_UNDEF) {
        return false;
    }
    return text_equal(a, b, a->type == SQLITE_TEXT ? coll : MM_COLL_BINARY);
}

bool mm_value_from(struct mm_value *out, sqlite3_value *v)
{
    memset(out, 0, sizeof *out);
    out->type = (uint8_t)sqlite3_value_type(v);
    switch (out->type) {
    case SQLITE_INTEGER:
        out->u.i = sqlite3_value_int64(v);
        break;
    case SQLITE_FLOAT:
        out->u.r = sqlite3_value_double(v);
        break;
    case SQLITE_TEXT:
        /* bytes converts from UTF-16, and says 0 when it could not; text would
        ** copy all to put a NUL behind. */
        out->len = (uint32_t)sqlite3_value_bytes(v);
        out->u.p = out->len > 0 ? sqlite3_value_blob(v) : sqlite3_value_text(v);
        out->len = (uint32_t)sqlite3_value_bytes(v);
        return out->u.p != NULL;
    case SQLITE_BLOB:
        out->u.p = sqlite3_value_blob(v);
        out->len = (uint32_t)sqlite3_value_bytes(v);
        return out->u.p != NULL || out->len == 0;
    default:
        break;
    }
    return true;
}

bool mm_value_column(struct mm_value *out, sqlite3_stmt *st, int col)
{
    memset(out, 0, sizeof *out);
    out->type = (uint8_t)sqlite3_column_type(st, col);
    switch (out->type) {
    case SQLITE_INTEGER:
        out->u.i = sqlite3_column_int64(st, col);
        break;
    case SQLITE_FLOAT:
        out->u.r = sqlite3_column_double(st, col);
        break;
    case SQLITE_TEXT:
        out->u.p = sqlite3_column_text(st, col);
        out->len = (uint32_t)sqlite3_column_bytes(st, col);
        return out->u.p != NULL;
    case SQLITE_BLOB:
        out->u.p = sqlite3_column_blob(st, col);
        out->len = (uint32_t)sqlite3_column_bytes(st, col);
        return out->u.p != NULL || out->len == 0;
    default:
        break;
    }
    return true;
}

int mm_value_bind(sqlite3_stmt *st, int param, const struct mm_value *v)
{
    /* A NULL pointer would bind NULL: empty values need an address. */
    const void *p = v->len > 0 ? v->u.p : (const void *)"";
    switch (v->type) {
    case SQLITE_INTEGER:
        return sqlite3_bind_int64(st, param, v->u.i);
    case SQLITE_FLOAT:
        return sqlite3_bind_double(st, param, v->u.r);
    case SQLITE_TEXT:
        return sqlite3_bind_text64(st, param, p, v->len, SQLITE_STATIC, SQLITE_UTF8);
    case SQLITE_BLOB:
        return sqlite3_bind_blob64(st, param, p, v->len, SQLITE_STATIC);
    default:
        return sqlite3_bind_null(st, param);
    }
}

/* Returns how many of the nine bytes at `to` it took. */
static size_t varint_write(uint8_t *to, uint64_t v)
{
    if (v < 0x80) {
        to[0] = (uint8_t)v;
        return 1;
    }
    if (v >> 56 != 0) { /* nine bytes: the last one carries eight bits */
        to[8] = (uint8_t)v;
        v >>= 8;
        for (int k = 7; k >= 0; k--) {
            to[k] = (uint8_t)((v & 0x7F) | 0x80);
            v >>= 7;
        }
        return 9;
    }
    size_t n = 1;
    for (uint64_t rest = v >> 7; rest != 0; rest >>= 7) {
        n++;
    }
    for (size_t k = n; k-- > 0;) {
        to[k] = (uint8_t)((v & 0x7F) | (k + 1 < n ? 0x80 : 0));
        v >>= 7;
    }
    return n;
}

void mm_varint_put(struct mm_buf *b, uint64_t v)
{
    uint8_t out[9];
    mm_buf_add(b, out, varint_write(out, v));
}

/* One reservation a value: this runs for each value of each captured row. */
void mm_value_encode(struct mm_buf *b, const struct mm_value *v)
{
    bool number = v->type == SQLITE_INTEGER || v->type == SQLITE_FLOAT;
    bool bytes = v->type == SQLITE_TEXT || v->type == SQLITE_BLOB;
    size_t most = number ? 9 : bytes ? 6 + (size_t)v->len : 1;
    uint8_t *p = mm_buf_reserve(b, most);
    if (p == NULL) {
        return;
    }
    *p++ = v->type;
    if (number) {
        uint64_t bits = 0;
        memcpy(&bits, &v->u, sizeof bits);
        bits = htobe64(bits);
        memcpy(p, &bits, sizeof bits);
        p += sizeof bits;
    } else if (bytes) {
        p += varint_write(p, v->len);
        if (v->len > 0) {
            memcpy(p, v->u.p, v->len);
        }
        p += v->len;
    }
    b->len = (size_t)(p - b->data);
}

bool mm_value_decode(const uint8_t **p, const uint8_t *end, struct mm_value *out)
{
    memset(out, 0, sizeof *out);
    if (*p >= end) {
        return false;
    }
    out->type = *(*p)++;
    uint64_t n = 0;
    switch (out->type) {
    case SQLITE_INTEGER:
    case SQLITE_FLOAT:
        if (end - *p < 8) {
            return false;
        }
        for (int k = 0; k < 8; k++) {
            n = (n << 8) | (*p)[k];
        }
        *p += 8;
        memcpy(&out->u, &n, sizeof n);
        return true;
    case SQLITE_TEXT:
    case SQLITE_BLOB:
        if (!mm_varint_get(p, end, &n) || n > (uint64_t)(end - *p) || n > UINT32_MAX) {
            return false;
        }
        out->len = (uint32_t)n;
        out->u.p = *p;
        *p += n;
        return true;
    case SQLITE_NULL:
    case MM_UNDEF:
        return true;
    default:
        return false;
    }
}

bool mm_value_copy(struct mm_arena *a, struct mm_value *to, const struct mm_value *from)
{
    *to = *from;
    if (from->type == SQLITE_TEXT || from->type == SQLITE_BLOB) {
        to->u.p = mm_arena_copy(a, from->u.p, from->len);
        return to->u.p != NULL;
    }
    return true;
}

/* Length of the UTF-8 sequence at p, 0 when there is no valid one (RFC 3629, section 4). */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    uint8_t c = p[0];
    size_t need = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
    if (need == 0 || need > n) {
        return 0;
    }
    for (size_t k = 1; k < need; k++) {
        if ((p[k] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (c == 0xE0 && p[1] < 0xA0) || (c == 0xF0 && p[1] < 0x90);
    bool beyond = (c == 0xED && p[1] >= 0xA0) || (c == 0xF4 && p[1] >= 0x90);
    return overlong || beyond ? 0 : need;
}

static bool utf8_ok(const uint8_t *p, size_t n)
{
    while (n > 0) {
        size_t k = *p == 0 ? 0 : utf8_len(p, n);
        if (k == 0) {
            return false;
        }
        p += k;
        n -= k;
    }
    return true;
}

static void json_hex(struct mm_buf *b, const struct mm_value *v, const char *label)
{
    mm_buf_printf(b, "{\"%s\":\"", label);
    for (uint32_t k = 0; k < v->len; k++) {
        mm_buf_printf(b, "%02x", v->u.p[k]);
    }
    mm_buf_str(b, "\"}");
}

void mm_value_json(struct mm_buf *b, const struct mm_value *v)
{
    switch (v->type) {
    case SQLITE_INTEGER:
        mm_buf_printf(b, "%lld", (long long)v->u.i);
        break;
    case SQLITE_FLOAT:
        if (isfinite(v->u.r)) {
            mm_buf_printf(b, "%.17g", v->u.r);
        } else {
            mm_buf_str(b, v->u.r > 0 ? "9e999" : "-9e999");
        }
        break;
    case SQLITE_TEXT:
        if (utf8_ok(v->u.p, v->len)) {
            mm_buf_json_text(b, v->u.p, v->len);
        } else {
            json_hex(b, v, "text");
        }
        break;
    case SQLITE_BLOB:
        json_hex(b, v, "blob");
        break;
    default:
        mm_buf_str(b, "null");
        break;
    }
}

bool mm_varint_get(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
    uint64_t n = 0;
    for (int k = 0; k < 9; k++) {
        if (*p >= end) {
            return false;
        }
        uint8_t c = *(*p)++;
        if (k == 8) {
            *v = (n << 8) | c;
            return true;
        }
        n = (n << 7) | (c & 0x7F);
        if ((c & 0x80) == 0) {
            *v = n;
            return true;
        }
    }
    return false;
}

/* Without a wider real, which not every machine has. */
static int integer_to_real(int64_t i, double r)
{
    if (r >= INT64_END || r < -INT64_END) {
        return r > 0 ? -1 : 1;
    }
    int64_t whole = (int64_t)r;
    double rest = r - (double)whole; /* exact: a real with a fraction is below 2^53 */
    return i != whole ? (i < whole ? -1 : 1) : rest > 0 ? -1 : rest < 0;
}

int mm_value_numbers(const struct mm_value *a, const struct mm_value *b)
{
    if (a->type == SQLITE_INTEGER && b->type == SQLITE_INTEGER) {
        return a->u.i < b->u.i ? -1 : a->u.i > b->u.i;
    }
    if (a->type == SQLITE_FLOAT && b->type == SQLITE_FLOAT) {
        return a->u.r < b->u.r ? -1 : a->u.r > b->u.r;
    }
    return a->type == SQLITE_INTEGER ? integer_to_real(a->u.i, b->u.r) : -integer_to_real(b->u.i, a->u.r);
}

int mm_value_compare(const struct mm_value *a, const struct mm_value *b, enum mm_coll coll)
{
    static const uint8_t order[] = { 0, 1, 1, 2, 3, 0 }; /* NULL, numbers, text, blob */
    int ranks = order[a->type % 6] - order[b->type % 6];
    if (ranks != 0 || order[a->type % 6] == 0) {
        return ranks;
    }
    if (mm_value_key_equal(a, b, coll)) {
        return 0;
    }
    if (order[a->type % 6] == 1) {
        return mm_value_numbers(a, b);
    }
    uint32_t la = a->len;
    uint32_t lb = b->len;
    while (a->type == SQLITE_TEXT && coll == MM_COLL_RTRIM && la > 0 && a->u.p[la - 1] == ' ') {
        la--;
    }
    while (a->type == SQLITE_TEXT && coll == MM_COLL_RTRIM && lb > 0 && b->u.p[lb - 1] == ' ') {
        lb--;
    }
    uint32_t n = la < lb ? la : lb;
    for (uint32_t k = 0; k < n; k++) {
        uint8_t x = a->u.p[k];
        uint8_t y = b->u.p[k];
        if (a->type == SQLITE_TEXT && coll == MM_COLL_NOCASE) {
            x = x >= 'A' && x <= 'Z' ? (uint8_t)(x + 32) : x;
            y = y >= 'A' && y <= 'Z' ? (uint8_t)(y + 32) : y;
        }
        if (x != y) {
            return x < y ? -1 : 1;
        }
        if (x == 0 && a->type == SQLITE_TEXT && coll == MM_COLL_NOCASE) {
            break; /* as SQLite: no further than a NUL */
        }
    }
    return la < lb ? -1 : la > lb;
}
