/* The fold's decisions one by one: acceptance, parts, what becomes of a row
** and which conflict is recorded. marmot-test: parallel */
#include <stdio.h>
#include <string.h>

#include "repl/fold.h"
#include "store/policy.h"

static int bad;

static void check(const char *name, bool good)
{
    printf("%s %s\n", good ? "ok" : "not ok", name);
    bad += !good;
}

static struct mm_msg message(int64_t epoch, int64_t seq, int txid, int prev)
{
    struct mm_msg m;
    memset(&m, 0, sizeof m);
    m.epoch = epoch;
    m.origin_seq = seq;
    memset(m.txid, txid, sizeof m.txid);
    memset(m.prev, prev, sizeof m.prev);
    return m;
}

static void acceptance(void)
{
    struct mm_origin none = { .seq = 0 };
    struct mm_origin last = { .seq = 5 };
    memset(last.txid, 9, sizeof last.txid);
    struct mm_msg m = message(1, 1, 1, 0);
    check("the first of an origin is accepted", mm_fold_accept(&m, 1, &none) == MM_ACCEPT);
    m = message(1, 1, 1, 3);
    check("a first one that claims a history is not", mm_fold_accept(&m, 1, &none) == MM_IGNORE_LINEAGE);
    m = message(1, 2, 1, 0);
    check("a second without the first is a hole", mm_fold_accept(&m, 1, &none) == MM_IGNORE_HOLE);
    m = message(1, 6, 1, 9);
    check("the next with the right history is accepted", mm_fold_accept(&m, 1, &last) == MM_ACCEPT);
    check("of another epoch it is not", mm_fold_accept(&m, 2, &last) == MM_IGNORE_EPOCH);
    m = message(1, 6, 1, 8);
    check("the next with another history is not", mm_fold_accept(&m, 1, &last) == MM_IGNORE_LINEAGE);
    m = message(1, 5, 9, 4);
    check("the last one again is a duplicate", mm_fold_accept(&m, 1, &last) == MM_IGNORE_DUPLICATE);
    m = message(1, 7, 1, 9);
    check("one too far is a hole", mm_fold_accept(&m, 1, &last) == MM_IGNORE_HOLE);
    m = message(1, INT64_MIN, 1, 9);
    check("nonsense is a duplicate, without overflow", mm_fold_accept(&m, 1, &last) == MM_IGNORE_DUPLICATE);
}

static void parts(void)
{
    struct mm_part_head held = { .count = 3, .held = 1 };
    struct mm_part_head none = { .count = 0 };
    struct mm_msg m = message(1, 1, 7, 0);
    memset(held.txid, 7, sizeof held.txid);
    m.part.count = 3;
    check("part 0 begins, whatever is held", mm_fold_part(&m, &none) && mm_fold_part(&m, &held));
    m.part.number = 1;
    check("the part that continues counts", mm_fold_part(&m, &held));
    check("without a beginning it does not", !mm_fold_part(&m, &none));
    m.part.number = 2;
    check("a part too early does not", !mm_fold_part(&m, &held));
    m.part.number = 1;
    m.part.count = 4;
    check("of another count it does not", !mm_fold_part(&m, &held));
    m.part.count = 3;
    m.part.sha256[31] = 1;
    check("of another body it does not", !mm_fold_part(&m, &held));
    m.part.sha256[31] = 0;
    m.txid[0] = 8;
    check("of another transaction it does not", !mm_fold_part(&m, &held));
}

/* A row of two columns: key and value; 0 is NULL, -1 is not sent. */
struct two {
    struct mm_value v[2];
};

static struct two row(int64_t key, int64_t value)
{
    struct two r;
    memset(&r, 0, sizeof r);
    r.v[0].type = SQLITE_INTEGER;
    r.v[0].u.i = key;
    r.v[1].type = value == 0 ? SQLITE_NULL : value == -1 ? MM_UNDEF : SQLITE_INTEGER;
    r.v[1].u.i = value > 0 ? value : 0;
    return r;
}

struct expected {
    const char *name;
    enum mm_op op;
    int64_t before, after, current; /* values; -2: no such row */
    enum mm_fold_act act;
    int64_t image; /* of a WRITE */
    enum mm_conflict_kind kind;
};

static const struct expected table[] = {
    { "INSERT, nothing there", MM_OP_INSERT, -2, 5, -2, MM_FOLD_WRITE, 5, MM_CONFLICT_NONE },
    { "INSERT over the same row", MM_OP_INSERT, -2, 5, 5, MM_FOLD_WRITE, 5, MM_CONFLICT_NONE },
    { "INSERT over another", MM_OP_INSERT, -2, 5, 6, MM_FOLD_WRITE, 5, MM_CONFLICT_INSERT },
    { "INSERT that does not know a column", MM_OP_INSERT, -2, -1, 6, MM_FOLD_WRITE, 6, MM_CONFLICT_NONE },
    { "REPLACE, as expected", MM_OP_REPLACE, 4, 5, 4, MM_FOLD_WRITE, 5, MM_CONFLICT_NONE },
    { "REPLACE over another", MM_OP_REPLACE, 4, 5, 6, MM_FOLD_WRITE, 5, MM_CONFLICT_INSERT },
    { "REPLACE, nothing there", MM_OP_REPLACE, 4, 5, -2, MM_FOLD_WRITE, 5, MM_CONFLICT_NONE },
    { "UPDATE, as expected", MM_OP_UPDATE, 4, 5, 4, MM_FOLD_WRITE, 5, MM_CONFLICT_NONE },
    { "UPDATE of another value", MM_OP_UPDATE, 4, 5, 6, MM_FOLD_WRITE, 5, MM_CONFLICT_UPDATE },
    { "UPDATE to what is there already", MM_OP_UPDATE, 4, 5, 5, MM_FOLD_NOTHING, 0, MM_CONFLICT_NONE },
    { "UPDATE, nothing there", MM_OP_UPDATE, 4, 5, -2, MM_FOLD_NOTHING, 0, MM_CONFLICT_UPDATE_MISSING },
    { "UPDATE of an old value that was not sent", MM_OP_UPDATE, -1, 5, 6, MM_FOLD_WRITE, 5, MM_CONFLICT_NONE },
    { "UPDATE to what was sent as the old value, too", MM_OP_UPDATE, 4, 4, 6, MM_FOLD_WRITE, 4, MM_CONFLICT_UPDATE },
    { "UPDATE to NULL", MM_OP_UPDATE, 4, 0, 4, MM_FOLD_WRITE, 0, MM_CONFLICT_NONE },
    { "DELETE, as expected", MM_OP_DELETE, 4, -2, 4, MM_FOLD_REMOVE, 0, MM_CONFLICT_NONE },
    { "DELETE of another value", MM_OP_DELETE, 4, -2, 6, MM_FOLD_REMOVE, 0, MM_CONFLICT_DELETE },
    { "DELETE with the key alone", MM_OP_DELETE, -1, -2, 6, MM_FOLD_REMOVE, 0, MM_CONFLICT_NONE },
    { "DELETE where the column is not known", MM_OP_DELETE, 4, -2, -1, MM_FOLD_REMOVE, 0, MM_CONFLICT_NONE },
    { "DELETE, nothing there", MM_OP_DELETE, 4, -2, -2, MM_FOLD_NOTHING, 0, MM_CONFLICT_NONE },
};

static void rows(void)
{
    static const uint8_t pk[2] = { 1, 0 };
    const struct mm_fold_columns columns = { 2, pk, NULL };
    for (size_t k = 0; k < sizeof table / sizeof table[0]; k++) {
        const struct expected *e = &table[k];
        struct two before = row(1, e->before);
        struct two after = row(1, e->after);
        struct two current = row(1, e->current);
        struct two image = row(1, -1);
        struct two want = row(1, e->image);
        enum mm_conflict_kind kind = MM_CONFLICT_UNIQUE;
        enum mm_fold_act act =
            mm_fold_row(e->op, true, &columns, e->before == -2 ? NULL : before.v, e->after == -2 ? NULL : after.v,
                        e->current == -2 ? NULL : current.v, image.v, &kind);
        check(e->name,
              act == e->act && kind == e->kind && (act != MM_FOLD_WRITE || mm_value_same(&image.v[1], &want.v[1])));
    }
}

/* current + (new - old), its bounds, and what is no number. */
static int64_t delta(int64_t current, int64_t old, int64_t new)
{
    static const uint8_t pk[2] = { 1, 0 };
    uint8_t policy[2] = { MM_POLICY_LAST, MM_POLICY_DELTA };
    const struct mm_fold_columns columns = { 2, pk, policy };
    struct two rows3[3] = { row(1, 1), row(1, 1), row(1, 1) };
    struct two image = row(1, 1);
    enum mm_conflict_kind kind;
    rows3[0].v[1].u.i = old;
    rows3[1].v[1].u.i = new;
    rows3[2].v[1].u.i = current;
    mm_fold_row(MM_OP_UPDATE, true, &columns, rows3[0].v, rows3[1].v, rows3[2].v, image.v, &kind);
    return kind == MM_CONFLICT_NONE ? image.v[1].u.i : -99;
}

static struct mm_value integer(int64_t i)
{
    return (struct mm_value){ .type = SQLITE_INTEGER, .u.i = i };
}

static struct mm_value real(double r)
{
    return (struct mm_value){ .type = SQLITE_FLOAT, .u.r = r };
}

static struct mm_value text(int type, const char *s)
{
    return (struct mm_value){ .type = (uint8_t)type, .len = (uint32_t)strlen(s), .u.p = (const uint8_t *)s };
}

/* What an UPDATE from `old` to `new` makes of `current` is `want`. */
static void meets(const char *name, enum mm_policy policy, struct mm_value current, struct mm_value old,
                  struct mm_value new, struct mm_value want)
{
    static const uint8_t pk[2] = { 1, 0 };
    uint8_t policies[2] = { MM_POLICY_LAST, (uint8_t)policy };
    const struct mm_fold_columns columns = { 2, pk, policies };
    struct two before = { { integer(1), old } };
    struct two after = { { integer(1), new } };
    struct two here = { { integer(1), current } };
    struct two image = here;
    enum mm_conflict_kind kind;
    mm_fold_row(MM_OP_UPDATE, true, &columns, before.v, after.v, here.v, image.v, &kind);
    check(name, mm_value_same(&image.v[1], &want));
}

/* The first of several columns counts as well as the last. */
static void several_columns(void)
{
    static const uint8_t pk[2] = { 0, 0 };
    const struct mm_fold_columns columns = { 2, pk, NULL };
    struct two before = { { integer(1), integer(2) } };
    struct two after = { { integer(5), integer(7) } };
    struct two here = { { integer(1), integer(7) } };
    struct two image = here;
    enum mm_conflict_kind kind;
    enum mm_fold_act act = mm_fold_row(MM_OP_UPDATE, true, &columns, before.v, after.v, here.v, image.v, &kind);
    check("UPDATE of two columns, where one has its value already",
          act == MM_FOLD_WRITE && kind == MM_CONFLICT_NONE && image.v[0].u.i == 5 && image.v[1].u.i == 7);
}

static void policies(void)
{
    struct mm_value null = { .type = SQLITE_NULL };
    struct mm_value ab = text(SQLITE_TEXT, "ab");
    struct mm_value abc = text(SQLITE_TEXT, "abc");
    struct mm_value blob = text(SQLITE_BLOB, "a");
    meets("delta of reals adds up", MM_POLICY_DELTA, real(10), real(1.5), real(2), real(10.5));
    meets("delta of a real and an integer as well", MM_POLICY_DELTA, integer(10), integer(1), real(1.5), real(10.5));
    meets("of integers on top of a real, too", MM_POLICY_DELTA, real(10.5), integer(1), integer(3), real(12.5));
    meets("delta of what is no number is the last", MM_POLICY_DELTA, ab, integer(1), integer(2), integer(2));
    meets("or was none before", MM_POLICY_DELTA, integer(5), null, integer(2), integer(2));
    meets("or is none then", MM_POLICY_DELTA, integer(5), integer(2), ab, ab);
    meets("max of texts: the longer one of two that begin alike", MM_POLICY_MAX, abc, null, ab, abc);
    meets("and the other way round", MM_POLICY_MAX, ab, null, abc, abc);
    meets("min of texts", MM_POLICY_MIN, abc, null, ab, ab);
    meets("a text is more than a number", MM_POLICY_MAX, integer(INT64_MAX), null, ab, ab);
    meets("a number is less than a text", MM_POLICY_MIN, ab, null, real(1e300), real(1e300));
    meets("a blob is more than a text", MM_POLICY_MAX, abc, null, blob, blob);
    meets("an integer beside the nearest real", MM_POLICY_MAX, real(9007199254740992.0), null,
          integer(9007199254740993), integer(9007199254740993));
    meets("and below it", MM_POLICY_MIN, real(9007199254740992.0), null, integer(9007199254740993),
          real(9007199254740992.0));
    meets("the largest integer is less than the real beside it", MM_POLICY_MAX, integer(INT64_MAX), null,
          real(9223372036854775808.0), real(9223372036854775808.0));
    meets("the smallest one equals its real", MM_POLICY_MAX, integer(INT64_MIN), null, real(-9223372036854775808.0),
          integer(INT64_MIN));
    meets("a fraction counts", MM_POLICY_MAX, integer(-3), null, real(-2.5), real(-2.5));
    meets("on both sides", MM_POLICY_MIN, integer(-2), null, real(-2.5), real(-2.5));
    meets("NULL is no maximum", MM_POLICY_MAX, integer(-5), integer(1), null, integer(-5));
    meets("nor a minimum", MM_POLICY_MIN, integer(5), integer(1), null, integer(5));
    meets("nor where it stands", MM_POLICY_MAX, null, integer(1), integer(-5), integer(-5));
    meets("for either of them", MM_POLICY_MIN, null, integer(1), integer(5), integer(5));
    meets("and gives way", MM_POLICY_MIN, null, integer(1), integer(7), integer(7));
    meets("the last", MM_POLICY_LAST, integer(5), integer(1), null, null);
}

/* Without `all` a column counts as changed where old and new differ. */
static void unchanged(void)
{
    static const uint8_t pk[2] = { 1, 0 };
    const struct mm_fold_columns columns = { 2, pk, NULL };
    struct two same = row(1, 4);
    struct two here = row(1, 6);
    struct two image = row(1, -1);
    struct two key = row(2, 5);
    enum mm_conflict_kind kind;
    check("what was not changed is left alone",
          mm_fold_row(MM_OP_UPDATE, false, &columns, same.v, same.v, here.v, image.v, &kind) == MM_FOLD_NOTHING &&
              kind == MM_CONFLICT_NONE);
    check("a key is not changed by an UPDATE",
          mm_fold_row(MM_OP_UPDATE, true, &columns, same.v, key.v, here.v, image.v, &kind) == MM_FOLD_WRITE &&
              mm_value_same(&image.v[0], &here.v[0]) && mm_value_same(&image.v[1], &key.v[1]));
}

int main(void)
{
    acceptance();
    parts();
    rows();
    policies();
    several_columns();
    unchanged();
    check("delta adds up", delta(10, 5, 7) == 12 && delta(10, 7, 5) == 8);
    check("delta saturates", delta(INT64_MAX, 0, 5) == INT64_MAX && delta(INT64_MIN, 5, 0) == INT64_MIN);
    check("a difference beyond int64 is exact", delta(INT64_MIN, INT64_MIN, INT64_MAX) == INT64_MAX &&
                                                    delta(INT64_MAX, INT64_MAX, INT64_MIN) == INT64_MIN &&
                                                    delta(5, INT64_MIN, INT64_MIN + 1) == 6);
    return bad != 0;
}
