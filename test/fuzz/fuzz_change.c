/* Any bytes as captured changes and their names: two bytes say how many of
** the rest are names. What is read must be writable to the wire, or refused. */
#include <stdlib.h>

#include "base/sqlite.h"
#include "test/lib/message.h"

enum { ARENA = 16 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum mm_coll collation(void *arg, const char *table, const char *column, struct mm_err *err)
{
    (void)arg;
    (void)err;
    return (enum mm_coll)((unsigned char)(table[0] + column[0]) % 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    size_t names = (size_t)(data[0] << 8 | data[1]);
    data += 2;
    size -= 2;
    names = names < size ? names : size;
    struct mm_arena a, a2;
    struct mm_buf b;
    struct mm_err err;
    struct mm_txn txn, got;
    char why[128];
    mm_arena_init(&a, ARENA);
    mm_arena_init(&a2, 4 * ARENA);
    mm_buf_init(&b, 4 * ARENA);
    mm_err_init(&err);
    txn.arena = &a;
    int rc = mm_change_read(&txn, data + names, size - names, data, names, collation, NULL, &err);
    if (rc == SQLITE_OK) {
        (void)message_touch_txn(&txn);
        rc = mm_wire_encode_txn(&b, &txn, false, false, &err);
        if (rc == SQLITE_OK && (mm_wire_decode_txn(&got, b.data, b.len, &a2, &err) != SQLITE_OK ||
                                !message_txn_same(&txn, &got, false, why))) {
            abort();
        }
    } else if (err.msg[0] == '\0') {
        abort();
    }
    mm_buf_free(&b);
    mm_arena_free(&a);
    mm_arena_free(&a2);
    return 0;
}
