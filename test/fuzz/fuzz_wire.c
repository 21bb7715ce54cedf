/* Any bytes as a message or as the body of a large transaction. What decodes
** must encode again, and come back the same. */
#include <stdlib.h>

#include "base/sqlite.h"
#include "test/lib/message.h"

enum { ARENA = 16 << 20, ZSTD = 1, BODY = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void whole(const uint8_t *data, size_t size, bool zstd)
{
    struct mm_arena a, a2;
    struct mm_buf b;
    struct mm_err err;
    struct mm_msg m, got;
    char why[128];
    mm_arena_init(&a, ARENA);
    mm_arena_init(&a2, 4 * ARENA);
    mm_buf_init(&b, 4 * ARENA);
    mm_err_init(&err);
    if (mm_wire_decode(&m, data, size, zstd, &a, &err) == SQLITE_OK) {
        (void)message_touch(&m);
        m.all_columns = true;
        if (mm_wire_encode(&b, &m, false, &zstd, &err) != SQLITE_OK ||
            mm_wire_decode(&got, b.data, b.len, zstd, &a2, &err) != SQLITE_OK || !message_same(&m, &got, why)) {
            abort();
        }
    } else if (err.msg[0] == '\0' || err.rc == SQLITE_MISUSE) {
        abort();
    }
    mm_buf_free(&b);
    mm_arena_free(&a);
    mm_arena_free(&a2);
}

static void body(const uint8_t *data, size_t size)
{
    struct mm_arena a, a2;
    struct mm_buf b;
    struct mm_err err;
    struct mm_txn txn, got;
    char why[128];
    mm_arena_init(&a, ARENA);
    mm_arena_init(&a2, 4 * ARENA);
    mm_buf_init(&b, 4 * ARENA);
    mm_err_init(&err);
    if (mm_wire_decode_txn(&txn, data, size, &a, &err) == SQLITE_OK) {
        (void)message_touch_txn(&txn);
        if (mm_wire_encode_txn(&b, &txn, true, true, &err) != SQLITE_OK ||
            mm_wire_decode_txn(&got, b.data, b.len, &a2, &err) != SQLITE_OK ||
            !message_txn_same(&txn, &got, true, why)) {
            abort();
        }
    }
    mm_buf_free(&b);
    mm_arena_free(&a);
    mm_arena_free(&a2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && (data[0] & BODY) != 0) {
        body(data + 1, size - 1);
    } else if (size > 0) {
        whole(data + 1, size - 1, (data[0] & ZSTD) != 0);
    }
    return 0;
}
