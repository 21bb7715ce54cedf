/* Messages that nobody honest sends, and ones from later versions: each gets
** the answer that its place in the order asks for. marmot-test: parallel */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/sqlite.h"
#include "marmot.pb-c.h"
#include "store/policy.h"
#include "test/lib/message.h"

enum { ARENA = 32 << 20 };

/* Decodes in an arena of `max` bytes and expects `rc`, with `part` in the message. */
static void expect(const char *name, const void *p, size_t n, bool zstd, size_t max, int rc, const char *part)
{
    struct mm_arena a;
    struct mm_err err;
    struct mm_msg m;
    mm_arena_init(&a, max);
    mm_err_init(&err);
    int got = mm_wire_decode(&m, p, n, zstd, &a, &err);
    check(got == rc && a.used <= max && strstr(err.msg, part) != NULL, name, "rc %d, used %zu: %s", got, a.used,
          err.msg);
    mm_arena_free(&a);
}

static void sample(struct mm_buf *b, size_t k)
{
    struct mm_arena a;
    struct mm_err err;
    struct mm_msg m;
    bool zstd;
    mm_arena_init(&a, ARENA);
    mm_err_init(&err);
    message_samples[k].make(&m, &a);
    mm_wire_encode(b, &m, false, &zstd, &err);
    check(err.rc == SQLITE_OK, "a sample is made", "%s", err.msg);
    mm_arena_free(&a);
}

static void compressed(void)
{
    size_t big = (size_t)80 << 20;
    size_t room = ZSTD_compressBound(big);
    uint8_t *zeros = calloc(1, big);
    uint8_t *frame = malloc(room);
    if (zeros == NULL || frame == NULL) {
        abort();
    }
    size_t n = ZSTD_compress(frame, room, zeros, big, 1);
    expect("a zip bomb is refused by its declared size", frame, n, true, ARENA, SQLITE_TOOBIG, "declare");
    n = ZSTD_compress(frame, room, zeros, 1 << 20, 1);
    expect("zeros are no message", frame, n, true, ARENA, SQLITE_CORRUPT, "version");
    expect("a frame that ends early", frame, n - 3, true, ARENA, SQLITE_CORRUPT, "frame");
    frame[n] = 0;
    expect("bytes behind the frame", frame, n + 1, true, ARENA, SQLITE_CORRUPT, "frame");

    /* Frame header of RFC 8878: after magic and descriptor stands the size. */
    uint8_t small[300];
    memset(small, 'a', sizeof small);
    n = ZSTD_compress(frame, room, small, sizeof small, 3);
    check((frame[4] >> 6) == 1, "the size field has two bytes here", "descriptor %02x", frame[4]);
    frame[5] = (uint8_t)(frame[5] + 1);
    expect("a declared size that is too large", frame, n, true, ARENA, SQLITE_CORRUPT, "compressed bytes are damaged");
    frame[5] = (uint8_t)(frame[5] - 2);
    expect("a declared size that is too small", frame, n, true, ARENA, SQLITE_CORRUPT, "compressed bytes are damaged");

    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
    n = ZSTD_compress2(c, frame, room, small, sizeof small);
    ZSTD_freeCCtx(c);
    expect("a frame without a declared size", frame, n, true, ARENA, SQLITE_CORRUPT, "declared size");
    expect("plain bytes said to be compressed", small, sizeof small, true, ARENA, SQLITE_CORRUPT, "no zstd frame");
    free(zeros);
    free(frame);
}

static void versions(void)
{
    struct mm_buf b;
    mm_buf_init(&b, ARENA);
    sample(&b, 0);
    b.data[1] = 2;
    expect("a later version waits for an upgrade", b.data, b.len, false, ARENA, SQLITE_MISMATCH, "upgrade");
    expect("also when the rest is strange to us", b.data, 9, false, ARENA, SQLITE_MISMATCH, "upgrade");
    b.data[1] = 0;
    expect("version 0 is none", b.data, b.len, false, ARENA, SQLITE_CORRUPT, "version");
    b.data[1] = 1;
    size_t len = b.len;
    mm_buf_add(&b, "\x98\x06\x01", 3); /* field 99, varint 1 */
    expect("an unknown field waits for an upgrade", b.data, b.len, false, ARENA, SQLITE_MISMATCH, "upgrade");
    b.len = len;
    mm_buf_add(&b, "\x08\x02", 2);
    expect("a second version does not hide behind the first", b.data, b.len, false, ARENA, SQLITE_CORRUPT, "versions");
    expect("nothing at all", b.data, 0, false, ARENA, SQLITE_CORRUPT, "version");
    mm_buf_free(&b);
}

/* One message with one table, as the wire has it; `t` is changed by the case. */
static void expect_table(const char *name, const Marmot__V1__Table *t, size_t max, int rc, const char *part)
{
    static uint8_t txid[16] = { 1 };
    Marmot__V1__Message m = MARMOT__V1__MESSAGE__INIT;
    Marmot__V1__Transaction txn = MARMOT__V1__TRANSACTION__INIT;
    Marmot__V1__Table copy = *t;
    Marmot__V1__Table *list[] = { &copy };
    txn.n_table = 1;
    txn.table = list;
    m.version = 1;
    m.txid.len = sizeof txid;
    m.txid.data = txid;
    m.body_case = MARMOT__V1__MESSAGE__BODY_TRANSACTION;
    m.transaction = &txn;
    uint8_t *p = malloc(marmot__v1__message__get_packed_size(&m));
    if (p == NULL) {
        abort();
    }
    size_t n = marmot__v1__message__pack(&m, p);
    expect(name, p, n, false, max, rc, part);
    free(p);
}

static ProtobufCBinaryData bin(const char *s, size_t n)
{
    union {
        const char *in;
        uint8_t *out;
    } u = { .in = s };
    return (ProtobufCBinaryData){ n, u.out };
}

static void tables(void)
{
    static char names[3][2] = { "a", "b", "c" };
    static char *col[] = { names[0], names[1], names[2] };
    static char name[] = "t";
    uint32_t key[] = { 0, 0 };
    uint32_t changed[] = { 1, 1, 7 };
    int64_t numbers[] = { 1, 2, 3, 4 };
    uint32_t length[] = { 2, UINT32_MAX };
    Marmot__V1__Table ok = MARMOT__V1__TABLE__INIT;
    ok.name = name;
    ok.n_column = 3;
    ok.column = col;
    ok.n_key = 1;
    ok.key = key;
    ok.op = bin("\1", 1);
    ok.type = bin("\1\1\5", 3);
    ok.n_integer = 2;
    ok.integer = numbers;
    expect_table("an INSERT made by hand", &ok, ARENA, SQLITE_OK, "");
    Marmot__V1__Table t = ok;
    t.n_column = 0;
    expect_table("no column", &t, ARENA, SQLITE_CORRUPT, "no column");
    t = ok;
    t.n_key = 2;
    expect_table("a key column twice", &t, ARENA, SQLITE_CORRUPT, "key column");
    t = ok;
    key[0] = 3;
    expect_table("a key column that does not exist", &t, ARENA, SQLITE_CORRUPT, "key column");
    key[0] = 0;
    t.op = bin("\6", 1);
    expect_table("an unknown operation", &t, ARENA, SQLITE_CORRUPT, "unknown operation");
    t = ok;
    t.type = bin("\1\1\x09", 3);
    expect_table("an unknown type", &t, ARENA, SQLITE_CORRUPT, "unknown type");
    t.type = bin("\1\1", 2);
    expect_table("too few types", &t, ARENA, SQLITE_CORRUPT, "types end");
    t.type = bin("\1\1\0", 3);
    expect_table("a new value that is not sent", &t, ARENA, SQLITE_CORRUPT, "must be sent");
    t.type = bin("\1\1\1", 3);
    expect_table("too few integers", &t, ARENA, SQLITE_CORRUPT, "integers end");
    t.type = bin("\1\1\2", 3);
    expect_table("too few reals", &t, ARENA, SQLITE_CORRUPT, "reals end");
    t.type = bin("\1\1\3", 3);
    expect_table("too few lengths", &t, ARENA, SQLITE_CORRUPT, "lengths end");
    t.n_length = 1;
    t.length = length;
    t.data = bin("x", 1);
    expect_table("too little data", &t, ARENA, SQLITE_CORRUPT, "data ends");
    length[0] = UINT32_MAX;
    expect_table("a length beyond all bounds", &t, ARENA, SQLITE_CORRUPT, "data ends");
    t = ok;
    t.n_integer = 4;
    expect_table("more values than rows", &t, ARENA, SQLITE_CORRUPT, "more than its rows");
    t = ok;
    t.op = bin("\2", 1);
    t.n_changed = 2;
    t.changed = changed;
    t.type = bin("\1\6\5", 3);
    t.n_integer = 1;
    t.data = bin("0123456789abcdef0123456789abcdef", 32);
    expect_table("an old value as hash", &t, ARENA, SQLITE_OK, "");
    t.data = bin("0123456789abcdef0123456789abcde", 31);
    expect_table("a hash that is too short", &t, ARENA, SQLITE_CORRUPT, "data ends");
    t.data = bin("0123456789abcdef0123456789abcdef", 32);
    t.type = bin("\1\5\6", 3);
    expect_table("a new value as hash", &t, ARENA, SQLITE_CORRUPT, "hash");
    t.data = bin("", 0);
    t.type = bin("\1\5\5", 3);
    t.op = bin("\5", 1);
    expect_table("an UPDATE that denies its key", &t, ARENA, SQLITE_CORRUPT, "types end");
    t.type = bin("\1\5\5\5", 4);
    expect_table("an UPDATE that denies its key, in full", &t, ARENA, SQLITE_CORRUPT, "identity");
    t.op = bin("\2", 1);
    t.type = bin("\5\5\5", 3);
    t.n_integer = 0;
    expect_table("an UPDATE by a NULL key", &t, ARENA, SQLITE_CORRUPT, "identity");
    changed[1] = 0;
    expect_table("a changed key column", &t, ARENA, SQLITE_CORRUPT, "ascending");
    changed[0] = UINT32_MAX;
    expect_table("more changed columns than sent", &t, ARENA, SQLITE_CORRUPT, "changed columns end");

    /* Few bytes that ask for much memory: three a row, 32,000 columns each. */
    enum { WIDE = 32000, ROWS = 1000 };
    static char *wide[WIDE];
    static uint8_t op[ROWS];
    static uint32_t none[ROWS];
    static uint8_t type[ROWS];
    static int64_t key_value[ROWS];
    for (int k = 0; k < WIDE; k++) {
        wide[k] = name;
    }
    memset(op, 2, sizeof op);
    memset(type, 1, sizeof type);
    t = ok;
    t.n_column = WIDE;
    t.column = wide;
    t.op = (ProtobufCBinaryData){ ROWS, op };
    t.type = (ProtobufCBinaryData){ ROWS, type };
    t.n_changed = ROWS;
    t.changed = none;
    t.n_integer = ROWS;
    t.integer = key_value;
    expect_table("memory stays within the arena's maximum", &t, ARENA, SQLITE_TOOBIG, "limit");
}

static void refused(const char *name, struct mm_msg *m, int rc, const char *part)
{
    struct mm_buf b;
    struct mm_err err;
    bool zstd;
    mm_buf_init(&b, ARENA);
    mm_err_init(&err);
    int got = mm_wire_encode(&b, m, true, &zstd, &err);
    check(got == rc && b.len == 0 && strstr(err.msg, part) != NULL, name, "rc %d, %zu bytes: %s", got, b.len, err.msg);
    mm_buf_free(&b);
}

/* What must not leave: nobody could fold it. */
static void encoding(void)
{
    struct mm_arena a;
    struct mm_msg m;
    mm_arena_init(&a, ARENA);
    message_samples[0].make(&m, &a);
    m.origin_seq = -1;
    refused("a negative origin_seq does not leave", &m, SQLITE_MISUSE, "origin_seq");
    m.origin_seq = 1;
    m.txn.tab[0].row[0].after[2].type = MM_UNDEF;
    refused("half an INSERT does not leave", &m, SQLITE_MISUSE, "Books");
    m.txn.tab[0].row[0].op = MM_OP_DELETE;
    refused("a DELETE without the old row does not leave", &m, SQLITE_MISUSE, "old row");
    message_samples[2].make(&m, &a);
    m.txn.tab[0].row[0].after[0].u.i++;
    refused("an UPDATE of the key does not leave", &m, SQLITE_MISUSE, "key");
    message_samples[2].make(&m, &a);
    m.txn.tab[0].pk[1] = 3;
    refused("a key with a gap does not leave", &m, SQLITE_MISUSE, "key columns");
    message_samples[2].make(&m, &a);
    char *name = malloc(MM_WIRE_NAME_MAX + 2);
    if (name == NULL) {
        abort();
    }
    memset(name, 'n', MM_WIRE_NAME_MAX + 1);
    name[MM_WIRE_NAME_MAX + 1] = '\0';
    m.txn.tab[0].col[1] = name;
    refused("a name beyond its limit does not leave", &m, SQLITE_TOOBIG, "limit");
    m.txn.ntab = MM_WIRE_TABLES_MAX + 1;
    refused("too many tables do not leave", &m, SQLITE_TOOBIG, "tables");
    message_samples[7].make(&m, &a);
    m.part.number = m.part.count;
    refused("a part beyond the last does not leave", &m, SQLITE_MISUSE, "part");
    m.kind = (enum mm_msg_kind)10;
    refused("an unknown kind does not leave", &m, SQLITE_MISUSE, "kind");
    message_samples[8].make(&m, &a);
    m.control.cluster_id = "0123";
    refused("a bad cluster id does not leave", &m, SQLITE_MISUSE, "cluster id");
    message_samples[10].make(&m, &a);
    m.control.policy = MM_POLICY_COUNT;
    refused("an unknown policy does not leave", &m, SQLITE_MISUSE, "policy");
    m.control.policy = -1;
    refused("a negative policy does not leave", &m, SQLITE_MISUSE, "policy");
    m.control.policy = MM_POLICY_MAX;
    m.control.policy_column = "";
    refused("a policy of no column does not leave", &m, SQLITE_MISUSE, "without column");
    m.control.policy_column = name;
    refused("a policy's name beyond its limit does not leave", &m, SQLITE_TOOBIG, "limit");
    message_samples[12].make(&m, &a);
    m.control.verify_seq = -1;
    refused("an answer for a negative place does not leave", &m, SQLITE_MISUSE, "place");
    message_samples[12].make(&m, &a);
    m.control.ntable = MM_WIRE_TABLES_MAX + 1;
    refused("an answer about too many tables does not leave", &m, SQLITE_TOOBIG, "tables");
    free(name);
    mm_arena_free(&a);
}

/* A control message as the wire has it; its body is changed by the case. */
static void expect_body(const char *name, Marmot__V1__Message__BodyCase kind, void *body, int rc, const char *part)
{
    static uint8_t txid[16] = { 1 };
    Marmot__V1__Message m = MARMOT__V1__MESSAGE__INIT;
    m.version = 1;
    m.txid.len = sizeof txid;
    m.txid.data = txid;
    m.body_case = kind;
    m.policy = body; /* one member of the union stands for all */
    uint8_t *p = malloc(marmot__v1__message__get_packed_size(&m));
    if (p == NULL) {
        abort();
    }
    size_t n = marmot__v1__message__pack(&m, p);
    expect(name, p, n, false, ARENA, rc, part);
    free(p);
}

static void controls(void)
{
    static char table[] = "t", column[] = "c", none[] = "", longest[MM_WIRE_NAME_MAX + 2];
    memset(longest, 'n', MM_WIRE_NAME_MAX + 1);
    Marmot__V1__Policy ok = MARMOT__V1__POLICY__INIT;
    ok.table = table;
    ok.column = column;
    ok.rule = MM_POLICY_MIN;
    expect_body("a policy made by hand", MARMOT__V1__MESSAGE__BODY_POLICY, &ok, SQLITE_OK, "");
    Marmot__V1__Policy p = ok;
    p.rule = MM_POLICY_COUNT;
    expect_body("an unknown rule", MARMOT__V1__MESSAGE__BODY_POLICY, &p, SQLITE_CORRUPT, "unknown rule");
    p.rule = UINT32_MAX;
    expect_body("a rule beyond an int", MARMOT__V1__MESSAGE__BODY_POLICY, &p, SQLITE_CORRUPT, "unknown rule");
    p = ok;
    p.column = none;
    expect_body("a policy without a column", MARMOT__V1__MESSAGE__BODY_POLICY, &p, SQLITE_CORRUPT, "without");
    p.column = longest;
    expect_body("a policy of a name that is too long", MARMOT__V1__MESSAGE__BODY_POLICY, &p, SQLITE_TOOBIG, "4096");

    Marmot__V1__Verify v = MARMOT__V1__VERIFY__INIT;
    v.id = bin("0123456789abcdef", 16);
    expect_body("a verify call made by hand", MARMOT__V1__MESSAGE__BODY_VERIFY, &v, SQLITE_OK, "");
    v.id.len = 15;
    expect_body("an id that is too short", MARMOT__V1__MESSAGE__BODY_VERIFY, &v, SQLITE_CORRUPT, "16 bytes");
    Marmot__V1__Verified a = MARMOT__V1__VERIFIED__INIT;
    a.id = bin("0123456789abcdef0", 17);
    expect_body("an answer's id that is too long", MARMOT__V1__MESSAGE__BODY_VERIFIED, &a, SQLITE_CORRUPT, "16 bytes");
    a.id.len = 16;
    expect_body("an answer about no table", MARMOT__V1__MESSAGE__BODY_VERIFIED, &a, SQLITE_OK, "");
    a.place = (uint64_t)1 << 63;
    expect_body("a place beyond all sequences", MARMOT__V1__MESSAGE__BODY_VERIFIED, &a, SQLITE_CORRUPT, "place");
    static Marmot__V1__TableState state = MARMOT__V1__TABLE_STATE__INIT;
    static Marmot__V1__TableState *list[MM_WIRE_TABLES_MAX + 1];
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        list[k] = &state;
    }
    state.name = table;
    a.place = 1;
    a.n_table = 1;
    a.table = list;
    expect_body("a content sum of no bytes", MARMOT__V1__MESSAGE__BODY_VERIFIED, &a, SQLITE_CORRUPT, "content sum");
    a.n_table = sizeof list / sizeof *list;
    expect_body("an answer about too many tables", MARMOT__V1__MESSAGE__BODY_VERIFIED, &a, SQLITE_TOOBIG, "tables");
}

static void seeded(void)
{
    static char id[] = "0123456789abcdef0123456789abcdef";
    static char settings[] = "{}";
    Marmot__V1__Place place = MARMOT__V1__PLACE__INIT;
    Marmot__V1__Place *list[MM_WIRE_SHARDS_MAX + 1];
    Marmot__V1__Seeded ok = MARMOT__V1__SEEDED__INIT;
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        list[k] = &place;
    }
    place.digest = bin("0123456789abcdef", 16);
    ok.cluster_id = id;
    ok.settings = settings;
    ok.n_place = MM_WIRE_SHARDS_MAX;
    ok.place = list;
    expect_body("an epoch made by hand", MARMOT__V1__MESSAGE__BODY_SEEDED, &ok, SQLITE_OK, "");
    Marmot__V1__Seeded s = ok;
    s.n_place++;
    expect_body("an epoch of too many shards", MARMOT__V1__MESSAGE__BODY_SEEDED, &s, SQLITE_CORRUPT, "too many");
    s.n_place = 0;
    expect_body("an epoch of no shard", MARMOT__V1__MESSAGE__BODY_SEEDED, &s, SQLITE_CORRUPT, "no shard");
    s = ok;
    s.cluster_id = settings;
    expect_body("an epoch of no cluster", MARMOT__V1__MESSAGE__BODY_SEEDED, &s, SQLITE_CORRUPT, "cluster_id");
    s = ok;
    s.from_epoch = (uint64_t)1 << 63;
    expect_body("an epoch beyond all numbers", MARMOT__V1__MESSAGE__BODY_SEEDED, &s, SQLITE_CORRUPT, "epoch");
    place.position = (uint64_t)1 << 63;
    expect_body("a place beyond all numbers", MARMOT__V1__MESSAGE__BODY_SEEDED, &ok, SQLITE_CORRUPT, "position");
    place.position = 1;
    place.digest.len = 15;
    expect_body("a digest that is too short", MARMOT__V1__MESSAGE__BODY_SEEDED, &ok, SQLITE_CORRUPT, "digest");
}

static void ended(void)
{
    Marmot__V1__PartsEnded e = MARMOT__V1__PARTS_ENDED__INIT;
    e.node = INT64_MIN;
    e.txid = bin("0123456789abcdef", 16);
    expect_body("an end of parts made by hand", MARMOT__V1__MESSAGE__BODY_PARTS_ENDED, &e, SQLITE_OK, "");
    e.txid.len = 15;
    expect_body("one of a short txid", MARMOT__V1__MESSAGE__BODY_PARTS_ENDED, &e, SQLITE_CORRUPT, "16 bytes");
    e.txid.len = 0;
    expect_body("one of no txid", MARMOT__V1__MESSAGE__BODY_PARTS_ENDED, &e, SQLITE_CORRUPT, "16 bytes");
}

int main(void)
{
    compressed();
    versions();
    tables();
    controls();
    seeded();
    ended();
    encoding();
    return check_failures() != 0;
}
