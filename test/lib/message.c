#include "test/lib/message.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/policy.h"

static int failures;

void check(bool good, const char *name, const char *why, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, why);
    (void)vsnprintf(text, sizeof text, why, ap);
    va_end(ap);
    failures += !good;
    if (good) {
        printf("ok %s\n", name);
    } else {
        printf("not ok %s: %s\n", name, text);
    }
    (void)fflush(stdout);
}

int check_failures(void)
{
    return failures;
}

/* Out of memory in a test ends it. */
static void *must(void *p)
{
    if (p == NULL) {
        abort();
    }
    return p;
}

static struct mm_value integer(int64_t i)
{
    return (struct mm_value){ .type = SQLITE_INTEGER, .u.i = i };
}

static struct mm_value real(double r)
{
    return (struct mm_value){ .type = SQLITE_FLOAT, .u.r = r };
}

static struct mm_value bytes(uint8_t type, const void *p, size_t n)
{
    return (struct mm_value){ .type = type, .len = (uint32_t)n, .u.p = p };
}

static struct mm_value text(const char *s)
{
    return bytes(SQLITE_TEXT, s, strlen(s));
}

static struct mm_value null(void)
{
    return (struct mm_value){ .type = SQLITE_NULL };
}

static void head(struct mm_msg *m, enum mm_msg_kind kind)
{
    memset(m, 0, sizeof *m);
    m->kind = kind;
    m->epoch = 1;
    m->node = 0x1122334455667788;
    m->incarnation = -2;
    m->origin_seq = 300;
    for (int k = 0; k < MM_TXID_SIZE; k++) {
        m->txid[k] = (uint8_t)(k + 1);
        m->prev[k] = (uint8_t)(0xF0 + k);
    }
    m->outbox_first = 7;
    m->outbox_last = 8;
    m->at_ms = 1735689600123;
    m->schema_version = 3;
}

static struct mm_tab *add_table(struct mm_msg *m, struct mm_arena *a, const char *name, uint32_t ncol,
                                const char *const *col, const uint8_t *pk, size_t nrow)
{
    if (m->txn.tab == NULL) {
        m->txn.tab = must(mm_arena_array(a, 4, sizeof *m->txn.tab));
        m->txn.arena = a;
    }
    struct mm_tab *t = &m->txn.tab[m->txn.ntab++];
    t->name = name;
    t->ncol = ncol;
    t->col = must(mm_arena_copy(a, col, ncol * sizeof *col));
    t->pk = must(mm_arena_copy(a, pk, ncol));
    t->row = must(mm_arena_array(a, nrow, sizeof *t->row));
    return t;
}

static void add_row(struct mm_tab *t, struct mm_arena *a, enum mm_op op, const struct mm_value *before,
                    const struct mm_value *after)
{
    struct mm_row *r = &t->row[t->nrow++];
    r->op = op;
    r->before = before != NULL ? must(mm_arena_copy(a, before, t->ncol * sizeof *before)) : NULL;
    r->after = after != NULL ? must(mm_arena_copy(a, after, t->ncol * sizeof *after)) : NULL;
}

static const char *const books[] = { "id", "title", "author", "publication_year" };
static const uint8_t books_pk[] = { 1, 0, 0, 0 };

static void make_insert(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_TXN);
    struct mm_tab *t = add_table(m, a, "Books", 4, books, books_pk, 1);
    struct mm_value row[] = { integer(42), text("Pride and Prejudice"), text("Jane Austen"), integer(1813) };
    add_row(t, a, MM_OP_INSERT, NULL, row);
}

static void make_first(struct mm_msg *m, struct mm_arena *a)
{
    make_insert(m, a);
    m->origin_seq = 1;
    memset(m->prev, 0, sizeof m->prev);
    m->log_first = 3;
    m->log_last = 9;
}

static void make_update(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_TXN);
    struct mm_tab *t = add_table(m, a, "Books", 4, books, books_pk, 2);
    struct mm_value old[] = { integer(42), text("Pride"), text("Jane Austen"), integer(1812) };
    struct mm_value new[] = { integer(42), text("Pride and Prejudice"), text("Jane Austen"), integer(1813) };
    add_row(t, a, MM_OP_UPDATE, old, new);
    struct mm_value part[] = { integer(42), { 0 }, null(), { 0 } };
    add_row(t, a, MM_OP_UPDATE, old, part);
}

static void make_types(struct mm_msg *m, struct mm_arena *a)
{
    static const char *const col[] = { "k", "a", "b", "c", "d" };
    static const uint8_t pk[] = { 2, 1, 0, 0, 0 };
    head(m, MM_MSG_TXN);
    struct mm_tab *t = add_table(m, a, "types \xC3\xA9", 5, col, pk, 4);
    struct mm_value one[] = { integer(INT64_MIN), integer(INT64_MAX), integer(0), integer(-1), real(-0.0) };
    struct mm_value two[] = { text("k"), bytes(SQLITE_BLOB, "\x01", 1), bytes(SQLITE_TEXT, "a\0\xFF\xC3", 4), text(""),
                              bytes(SQLITE_BLOB, "", 0) };
    struct mm_value three[] = { text("k"), bytes(SQLITE_BLOB, "\x01", 1), real(1e308 * 10), real(5e-324), null() };
    add_row(t, a, MM_OP_INSERT, NULL, one);
    add_row(t, a, MM_OP_REPLACE, two, three);
    add_row(t, a, MM_OP_DELETE, one, NULL);
    struct mm_value partly[] = { text("k"), integer(1), { 0 }, { 0 }, null() };
    add_row(t, a, MM_OP_DELETE, partly, NULL);
}

static void make_keyless(struct mm_msg *m, struct mm_arena *a)
{
    static const char *const col[] = { "a", "b" };
    static const uint8_t none[] = { 0, 0 };
    static const uint8_t pk[] = { 1, 0 };
    head(m, MM_MSG_TXN);
    struct mm_tab *t = add_table(m, a, "log", 2, col, none, 2);
    struct mm_value old[] = { integer(1), text("x") };
    struct mm_value new[] = { integer(1), text("y") };
    add_row(t, a, MM_OP_UPDATE, old, new);
    add_row(t, a, MM_OP_DELETE, new, NULL);
    t = add_table(m, a, "nullkey", 2, col, pk, 1);
    old[0] = new[0] = null();
    add_row(t, a, MM_OP_UPDATE, old, new);
}

static void make_long(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_TXN);
    struct mm_tab *t = add_table(m, a, "Books", 4, books, books_pk, 1);
    char *s = must(mm_arena_alloc(a, 401));
    memset(s, 'z', 400);
    struct mm_value row[] = { integer(1), text(s), null(), integer(0) };
    add_row(t, a, MM_OP_INSERT, NULL, row);
}

static void make_empty(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_TXN);
    m->txn.arena = a;
}

static void make_part(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_PART);
    m->part.number = 0;
    m->part.count = 3;
    m->part.data = must(mm_arena_copy(a, "piece", 5));
    m->part.len = 5;
    mm_wire_sha256("piece", 5, m->part.sha256);
}

static void tables(struct mm_msg *m, struct mm_arena *a, size_t n)
{
    static const char *const name[] = { "Books", "types" };
    m->control.ntable = n;
    m->control.table = must(mm_arena_array(a, n, sizeof *m->control.table));
    for (size_t k = 0; k < n; k++) {
        m->control.table[k].name = name[k % 2];
        m->control.table[k].schema_hash = 0xFEDCBA9876543210 + k;
        memset(m->control.table[k].content, (int)k, 16);
        m->control.table[k].rows = (int64_t)k;
    }
}

static void make_founded(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_FOUNDED);
    m->control.cluster_id = "0123456789abcdef0123456789abcdef";
    m->control.settings = "{\"fold\":1}";
    tables(m, a, 2);
}

static void make_watch(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_WATCH);
    tables(m, a, 1);
}

static void make_policy(struct mm_msg *m, struct mm_arena *a)
{
    (void)a;
    head(m, MM_MSG_POLICY);
    m->control.policy_table = "Books";
    m->control.policy_column = "sold \xC3\xA9";
    m->control.policy = MM_POLICY_DELTA;
}

static void call_id(struct mm_msg *m)
{
    for (size_t k = 0; k < sizeof m->control.verify_id; k++) {
        m->control.verify_id[k] = (uint8_t)(0xA0 + k);
    }
}

static void make_verify(struct mm_msg *m, struct mm_arena *a)
{
    (void)a;
    head(m, MM_MSG_VERIFY);
    call_id(m);
}

static void make_verified(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_VERIFIED);
    call_id(m);
    m->control.verify_seq = 70000;
    tables(m, a, 2);
}

static void make_seeded(struct mm_msg *m, struct mm_arena *a)
{
    head(m, MM_MSG_SEEDED);
    m->epoch = 2;
    m->control.cluster_id = "0123456789abcdef0123456789abcdef";
    m->control.settings = "{\"fold\":1}";
    m->control.from_epoch = 1;
    m->control.nplace = 2;
    m->control.place = must(mm_arena_array(a, 2, sizeof *m->control.place));
    for (size_t k = 0; k < 2; k++) {
        m->control.place[k].seq = (int64_t)k * 300;
        memset(m->control.place[k].digest, 0xD0 + (int)k, sizeof m->control.place[k].digest);
    }
}

static void make_ended(struct mm_msg *m, struct mm_arena *a)
{
    (void)a;
    head(m, MM_MSG_ENDED);
    m->control.ended_node = -3;
    m->control.ended_incarnation = 0x1122334455667788;
    memset(m->control.ended_txid, 0xE5, sizeof m->control.ended_txid);
}

const struct message_sample message_samples[] = {
    { "insert", make_insert },     { "first", make_first },   { "update", make_update },     { "types", make_types },
    { "keyless", make_keyless },   { "long", make_long },     { "empty", make_empty },       { "part", make_part },
    { "founded", make_founded },   { "watch", make_watch },   { "policy", make_policy },     { "verify", make_verify },
    { "verified", make_verified }, { "seeded", make_seeded }, { "parts_ended", make_ended },
};
const size_t message_nsamples = sizeof message_samples / sizeof *message_samples;

uint64_t message_next(struct message_random *r, uint64_t below)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return r->state % below;
}

static struct mm_value random_value(struct message_random *r, struct mm_arena *a)
{
    uint64_t bits = message_next(r, UINT64_MAX) >> message_next(r, 64);
    uint8_t *p;
    size_t n;
    switch (message_next(r, 5)) {
    case 0:
        return integer((int64_t)(message_next(r, 2) != 0 ? bits : ~bits));
    case 1:
        return real((double)bits / 7.0 - 1e6);
    case 2:
        return null();
    default:
        n = message_next(r, message_next(r, 20) == 0 ? 3000 : 20);
        p = must(mm_arena_alloc(a, n));
        for (size_t k = 0; k < n; k++) {
            p[k] = (uint8_t)message_next(r, message_next(r, 4) == 0 ? 256 : 4);
        }
        return bytes(message_next(r, 2) != 0 ? SQLITE_TEXT : SQLITE_BLOB, p, n);
    }
}

static struct mm_value *random_values(struct message_random *r, const struct mm_tab *t, struct mm_arena *a)
{
    struct mm_value *v = must(mm_arena_array(a, t->ncol, sizeof *v));
    for (uint32_t k = 0; k < t->ncol; k++) {
        v[k] = random_value(r, a);
    }
    return v;
}

static void random_row(struct message_random *r, const struct mm_tab *t, struct mm_row *row, struct mm_arena *a)
{
    row->op = (enum mm_op)(1 + message_next(r, 4));
    row->before = row->op != MM_OP_INSERT ? random_values(r, t, a) : NULL;
    row->after = row->op != MM_OP_DELETE ? random_values(r, t, a) : NULL;
    for (uint32_t k = 0; k < t->ncol && row->op == MM_OP_UPDATE; k++) {
        if (t->pk[k] != 0 || message_next(r, 3) == 0) {
            row->after[k] = row->before[k];
        } else if (message_next(r, 3) == 0) {
            row->after[k].type = MM_UNDEF;
        }
    }
}

static void random_table(struct message_random *r, struct mm_tab *t, struct mm_arena *a)
{
    char name[32];
    t->ncol = 1 + (uint32_t)message_next(r, message_next(r, 10) == 0 ? 300 : 8);
    (void)snprintf(name, sizeof name, "t%d", (int)message_next(r, 1000));
    t->name = must(mm_arena_str(a, name));
    t->col = must(mm_arena_array(a, t->ncol, sizeof *t->col));
    t->pk = must(mm_arena_alloc(a, t->ncol));
    for (uint32_t k = 0; k < t->ncol; k++) {
        (void)snprintf(name, sizeof name, "%.*s%d", (int)message_next(r, 2), "c", (int)k);
        t->col[k] = must(mm_arena_str(a, name));
    }
    for (uint8_t place = 1; place <= 3 && place <= t->ncol && message_next(r, 4) != 0; place++) {
        uint32_t k;
        do {
            k = (uint32_t)message_next(r, t->ncol);
        } while (t->pk[k] != 0);
        t->pk[k] = place;
    }
    t->nrow = message_next(r, 12);
    t->row = must(mm_arena_array(a, t->nrow, sizeof *t->row));
    for (size_t k = 0; k < t->nrow; k++) {
        random_row(r, t, &t->row[k], a);
    }
}

void message_random_txn(struct message_random *r, struct mm_txn *txn, struct mm_arena *a)
{
    txn->arena = a;
    txn->ntab = message_next(r, 4);
    txn->tab = must(mm_arena_array(a, txn->ntab, sizeof *txn->tab));
    for (size_t k = 0; k < txn->ntab; k++) {
        random_table(r, &txn->tab[k], a);
    }
}

void message_random(struct message_random *r, struct mm_msg *m, struct mm_arena *a)
{
    const struct message_sample *s = &message_samples[message_next(r, message_nsamples)];
    s->make(m, a);
    m->epoch = (int64_t)message_next(r, INT64_MAX);
    m->node = (int64_t)message_next(r, UINT64_MAX);
    m->incarnation = (int64_t)message_next(r, UINT64_MAX);
    m->origin_seq = (int64_t)message_next(r, 1000);
    m->at_ms = (int64_t)message_next(r, UINT64_MAX);
    m->schema_version = message_next(r, UINT64_MAX);
    m->txid[message_next(r, 16)] = (uint8_t)message_next(r, 256);
    if (m->kind == MM_MSG_TXN) {
        message_random_txn(r, &m->txn, a);
        m->all_columns = message_next(r, 2) != 0;
    }
    m->control.policy = m->kind == MM_MSG_POLICY ? (int)message_next(r, MM_POLICY_COUNT) : 0;
    if (m->kind == MM_MSG_VERIFY || m->kind == MM_MSG_VERIFIED) {
        m->control.verify_id[message_next(r, 16)] = (uint8_t)message_next(r, 256);
    }
    if (m->kind == MM_MSG_ENDED) {
        m->control.ended_node = (int64_t)message_next(r, UINT64_MAX);
        m->control.ended_incarnation = (int64_t)message_next(r, UINT64_MAX);
        m->control.ended_txid[message_next(r, 16)] = (uint8_t)message_next(r, 256);
    }
    if (m->kind == MM_MSG_VERIFIED) {
        m->control.verify_seq = (int64_t)message_next(r, INT64_MAX);
        tables(m, a, message_next(r, 40));
    }
}
