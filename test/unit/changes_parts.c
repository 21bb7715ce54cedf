/* What marmot_changes makes of parts: it drops and joins them as every node does, by
** what counts, not by what comes. marmot-test: parallel */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "changes.h"

enum { COUNT = 3, MIB = 1 << 20 };

static int failed;
static struct mm_changes_parts *reader;
static struct mm_changes_whole said;
static const char body[COUNT + 1] = "abc"; /* a byte a part */

static void check(const char *name, bool good)
{
    printf("%s %s\n", good ? "ok" : "not ok", name);
    failed += !good;
}

static void begin(bool from_first)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_changes_parts_close(reader);
    reader = mm_changes_parts_open(from_first, &err);
    if (reader == NULL) {
        printf("not ok memory\n");
        exit(1);
    }
}

static void take(const struct mm_msg *m)
{
    struct mm_err err;
    mm_err_init(&err);
    mm_changes_parts_take(reader, m, &said, &err);
    if (said.data != NULL) {
        mm_changes_parts_good(reader, m, &err);
    }
    if (err.rc != SQLITE_OK) {
        check(err.msg, false);
    }
}

/* The nth of an origin: its txid says which, and follows on from the one before. */
static struct mm_msg numbered(enum mm_msg_kind kind, int64_t node, int n)
{
    struct mm_msg m;
    memset(&m, 0, sizeof m);
    m.kind = kind;
    m.epoch = 1;
    m.node = node;
    m.incarnation = 7;
    m.origin_seq = n;
    memset(m.txid, n, sizeof m.txid);
    memset(m.prev, n - 1, sizeof m.prev);
    return m;
}

static void part_of(int n, int number, const char *sum_of)
{
    struct mm_msg m = numbered(MM_MSG_PART, 1, n);
    m.part.number = number;
    m.part.count = COUNT;
    m.part.data = (const uint8_t *)body + number;
    m.part.len = 1;
    mm_wire_sha256(sum_of, strlen(sum_of), m.part.sha256);
    take(&m);
}

static void part(int n, int number)
{
    part_of(n, number, body);
}

/* The nth message of node 2 ends the transaction of node 1. */
static void end(int n, int whose)
{
    struct mm_msg m = numbered(MM_MSG_ENDED, 2, n);
    m.control.ended_node = 1;
    m.control.ended_incarnation = 7;
    memset(m.control.ended_txid, whose, sizeof m.control.ended_txid);
    take(&m);
}

static bool whole(void)
{
    return said.data != NULL && said.data->len == COUNT && memcmp(said.data->data, body, COUNT) == 0;
}

static bool lacks(const char *op, const char *words)
{
    return said.data == NULL && said.op != NULL && strcmp(said.op, op) == 0 && strstr(said.why, words) != NULL;
}

static void ends(void)
{
    begin(true);
    part(1, 0);
    part(1, 1);
    check("before the last part there is nothing", said.data == NULL && said.op == NULL);
    end(1, 1);
    part(1, 2);
    check("parts that were ended are gone", lacks("parts", "missing"));
    part(1, 0);
    part(1, 1);
    end(1, 1);
    part(1, 2);
    check("the same end, sent twice, ends nothing that came since", whole());

    part(2, 0);
    end(3, 2);
    part(2, 1);
    part(2, 2);
    check("nor does one with a hole before it", whole());
    part(3, 0);
    end(2, 2);
    part(3, 1);
    part(3, 2);
    check("nor that of another transaction", whole());
}

static void other_parts(void)
{
    begin(true);
    part(1, 0);
    part(2, 0); /* of an attempt that was given up */
    part(1, 1);
    part(1, 2);
    check("parts that follow on from nothing disturb nothing", whole());
    part(1, 0);
    part(2, 0);
    part(1, 1);
    part(2, 1);
    part(1, 2);
    check("a transaction that is sent twice is passed over", lacks("parts", "passes over"));
    part(2, 2);
    check("beside the one that follows", whole());
    part(3, 0);
    part(3, 1);
    part(3, 0);
    part(3, 2);
    check("a gap", lacks("parts", "missing"));
    part(3, 0);
    part(3, 1);
    part(3, 2);
    check("and once more from its beginning", whole());
    part_of(4, 0, "other");
    part_of(4, 1, "other");
    part_of(4, 2, "other");
    check("with another sum than it names it is malformed", lacks("malformed", "SHA-256"));
    part(4, 0);
    part(4, 1);
    part(4, 2);
    check("and its number is not taken", whole());
}

static void numbers(void)
{
    struct mm_msg m;
    begin(true);
    m = numbered(MM_MSG_TXN, 1, 1);
    take(&m);
    part(2, 0);
    part(2, 1);
    part(2, 2);
    check("transactions in one message count", whole());
    begin(true);
    m = numbered(MM_MSG_TXN, 1, 1);
    m.epoch = 2;
    take(&m);
    part(1, 0);
    part(1, 1);
    part(1, 2);
    check("but of the first epoch alone, where none is told of", whole());
    m = numbered(MM_MSG_SEEDED, 2, 0);
    m.epoch = 2;
    take(&m);
    part(3, 0);
    part(3, 1);
    part(3, 2);
    check("of an epoch that is over nothing does", lacks("parts", "passes over"));

    begin(false);
    part(8, 1);
    part(8, 2);
    check("read from the middle: the beginning is missing", lacks("parts", "from_seq"));
    part(9, 0);
    end(4, 9);
    part(9, 0);
    part(9, 1);
    end(4, 9);
    part(9, 2);
    check("what follows is known", whole());

    begin(true);
    m = numbered(MM_MSG_TXN, 1, 1);
    take(&m);
    mm_changes_parts_unknown(reader); /* the second */
    part(3, 0);
    part(3, 1);
    part(3, 2);
    check("behind a message that is not understood as well", whole());
}

/* Together larger than what is kept. */
static void large(void)
{
    struct mm_msg m = numbered(MM_MSG_PART, 1, 1);
    uint8_t *data = calloc(1, MIB);
    begin(true);
    m.part.count = (int)(MM_CHANGES_PARTS_MAX / MIB) + 2;
    m.part.data = data;
    m.part.len = MIB;
    for (; m.part.number < m.part.count; m.part.number++) {
        take(&m);
    }
    check("a transaction that is too large is told", lacks("parts", "larger than 64 MiB"));
    free(data);
    part(2, 0);
    part(2, 1);
    part(2, 2);
    check("and was one of those that count", whole());
}

int main(void)
{
    ends();
    other_parts();
    numbers();
    large();
    mm_changes_parts_close(reader);
    return failed > 0;
}
