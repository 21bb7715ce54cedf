#include <string.h>

#include "base/sqlite.h"
#include "store/policy.h"
#include "wire/put.h"
#include "wire/wire.h"

/* Field numbers of proto/marmot.proto that stand here as numbers are checked
** byte by byte against protobuf-c by the tests. */
static void put_id(struct mm_buf *b, unsigned field, int64_t v, const char *name, struct mm_err *err)
{
    if (v < 0) {
        mm_err_set(err, SQLITE_MISUSE, "message to encode: %s is negative", name);
    }
    mm_put_uint(b, field, (uint64_t)v);
}

static void put_head(struct mm_buf *b, const struct mm_msg *m, struct mm_err *err)
{
    static const uint8_t none[MM_TXID_SIZE];
    mm_put_uint(b, 1, MM_WIRE_VERSION);
    put_id(b, 2, m->epoch, "epoch", err);
    mm_put_fixed(b, 3, (uint64_t)m->node);
    mm_put_fixed(b, 4, (uint64_t)m->incarnation);
    put_id(b, 5, m->origin_seq, "origin_seq", err);
    mm_put_bytes(b, 6, m->txid, MM_TXID_SIZE);
    if (memcmp(m->prev, none, MM_TXID_SIZE) != 0) {
        mm_put_bytes(b, 7, m->prev, MM_TXID_SIZE);
    }
    put_id(b, 8, m->outbox_first, "outbox_first", err);
    put_id(b, 9, m->outbox_last, "outbox_last", err);
    put_id(b, 10, m->log_first, "log_first", err);
    put_id(b, 11, m->log_last, "log_last", err);
    mm_put_sint(b, 12, m->at_ms);
    mm_put_uint(b, 13, m->schema_version);
}

static void put_part(struct mm_buf *b, const struct mm_msg *m, struct mm_err *err)
{
    if (m->part.count < 1 || m->part.number < 0 || m->part.number >= m->part.count) {
        mm_err_set(err, SQLITE_MISUSE, "message to encode: part %d of %d", m->part.number, m->part.count);
        return;
    }
    mm_put_uint(b, 1, (uint64_t)m->part.number);
    mm_put_uint(b, 2, (uint64_t)m->part.count);
    mm_put_bytes(b, 3, m->part.sha256, sizeof m->part.sha256);
    mm_put_bytes(b, 4, m->part.data, m->part.len);
}

static void put_tables(struct mm_buf *b, unsigned field, const struct mm_msg *m, struct mm_err *err)
{
    if (m->control.ntable > MM_WIRE_TABLES_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "message to encode: %zu tables, the limit is %d", m->control.ntable,
                   MM_WIRE_TABLES_MAX);
        return;
    }
    for (size_t k = 0; k < m->control.ntable; k++) {
        const struct mm_msg_table *t = &m->control.table[k];
        size_t n = strlen(t->name);
        if (n > MM_WIRE_NAME_MAX) {
            mm_err_set(err, SQLITE_TOOBIG, "a table name of %zu bytes: the limit is %d", n, MM_WIRE_NAME_MAX);
        }
        size_t mark = mm_put_begin(b, field);
        mm_put_bytes(b, 1, t->name, n);
        mm_put_fixed(b, 2, t->schema_hash);
        mm_put_bytes(b, 3, t->content, sizeof t->content);
        put_id(b, 4, t->rows, "rows", err);
        mm_put_end(b, mark);
    }
}

static bool is_cluster_id(const char *s)
{
    return s != NULL && strlen(s) == 32 && strspn(s, "0123456789abcdef") == 32;
}

static void put_cluster(struct mm_buf *b, const struct mm_msg *m, struct mm_err *err)
{
    if (!is_cluster_id(m->control.cluster_id) || m->control.settings == NULL) {
        mm_err_set(err, SQLITE_MISUSE, "message to encode: founded or seeded without cluster id or settings");
        return;
    }
    mm_put_bytes(b, 1, m->control.cluster_id, strlen(m->control.cluster_id));
    mm_put_bytes(b, 2, m->control.settings, strlen(m->control.settings));
}

static void put_seeded(struct mm_buf *b, const struct mm_msg *m, struct mm_err *err)
{
    put_cluster(b, m, err);
    put_id(b, 3, m->control.from_epoch, "epoch before", err);
    if (m->control.nplace < 1 || m->control.nplace > MM_WIRE_SHARDS_MAX) {
        mm_err_set(err, SQLITE_MISUSE, "message to encode: %zu places", m->control.nplace);
        return;
    }
    for (size_t k = 0; k < m->control.nplace; k++) {
        size_t mark = mm_put_begin(b, 4);
        put_id(b, 1, m->control.place[k].seq, "position", err);
        mm_put_bytes(b, 2, m->control.place[k].digest, sizeof m->control.place[k].digest);
        mm_put_end(b, mark);
    }
}

static void put_name(struct mm_buf *b, unsigned field, const char *name, const char *what, struct mm_err *err)
{
    size_t n = name != NULL ? strlen(name) : 0;
    if (n == 0) {
        mm_err_set(err, SQLITE_MISUSE, "message to encode: a policy without %s", what);
    } else if (n > MM_WIRE_NAME_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "a %s name of %zu bytes: the limit is %d", what, n, MM_WIRE_NAME_MAX);
    }
    mm_put_bytes(b, field, name, n);
}

static void put_policy(struct mm_buf *b, const struct mm_msg *m, struct mm_err *err)
{
    if (m->control.policy < 0 || m->control.policy >= MM_POLICY_COUNT) {
        mm_err_set(err, SQLITE_MISUSE, "message to encode: unknown policy %d", m->control.policy);
        return;
    }
    put_name(b, 1, m->control.policy_table, "table", err);
    put_name(b, 2, m->control.policy_column, "column", err);
    mm_put_uint(b, 3, (uint64_t)m->control.policy);
}

static void put_verified(struct mm_buf *b, const struct mm_msg *m, struct mm_err *err)
{
    mm_put_bytes(b, 1, m->control.verify_id, sizeof m->control.verify_id);
    put_id(b, 2, m->control.verify_seq, "place of the verify message", err);
    put_tables(b, 3, m, err);
}

/* Numbers of Message.body; 0 = unknown. */
static unsigned body_field(enum mm_msg_kind kind)
{
    static const unsigned field[] = {
        [MM_MSG_TXN] = 14,    [MM_MSG_PART] = 15,     [MM_MSG_FOUNDED] = 16, [MM_MSG_WATCH] = 17, [MM_MSG_POLICY] = 19,
        [MM_MSG_VERIFY] = 20, [MM_MSG_VERIFIED] = 22, [MM_MSG_SEEDED] = 23,  [MM_MSG_ENDED] = 24,
    };
    return (size_t)kind < sizeof field / sizeof *field ? field[kind] : 0;
}

static void put_body(struct mm_buf *b, const struct mm_msg *m, struct mm_err *err)
{
    size_t mark = mm_put_begin(b, body_field(m->kind));
    switch (m->kind) {
    case MM_MSG_TXN:
        mm_txn_put(b, &m->txn, m->all_columns, err);
        break;
    case MM_MSG_PART:
        put_part(b, m, err);
        break;
    case MM_MSG_FOUNDED:
        put_cluster(b, m, err);
        put_tables(b, 3, m, err);
        break;
    case MM_MSG_SEEDED:
        put_seeded(b, m, err);
        break;
    case MM_MSG_WATCH:
        put_tables(b, 1, m, err);
        break;
    case MM_MSG_POLICY:
        put_policy(b, m, err);
        break;
    case MM_MSG_VERIFY:
        mm_put_bytes(b, 1, m->control.verify_id, sizeof m->control.verify_id);
        break;
    case MM_MSG_VERIFIED:
        put_verified(b, m, err);
        break;
    case MM_MSG_ENDED:
        mm_put_fixed(b, 1, (uint64_t)m->control.ended_node);
        mm_put_fixed(b, 2, (uint64_t)m->control.ended_incarnation);
        mm_put_bytes(b, 3, m->control.ended_txid, sizeof m->control.ended_txid);
        break;
    default:
        mm_err_set(err, SQLITE_MISUSE, "message to encode: unknown kind %d", (int)m->kind);
        break;
    }
    mm_put_end(b, mark);
}

int mm_wire_encode(struct mm_buf *out, const struct mm_msg *m, bool compress, bool *zstd, struct mm_err *err)
{
    *zstd = false;
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    size_t at = out->len;
    put_head(out, m, err);
    put_body(out, m, err);
    mm_buf_check(out, err, "a message");
    if (err->rc == SQLITE_OK && out->len - at > MM_WIRE_MESSAGE_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "a message of %zu bytes: the limit is %zu", out->len - at, MM_WIRE_MESSAGE_MAX);
    }
    /* The pieces of a transaction are compressed before they are cut. */
    if (compress && m->kind != MM_MSG_PART) {
        *zstd = mm_pack_deflate(out, at, err);
    }
    if (err->rc != SQLITE_OK && !mm_buf_failed(out)) {
        out->len = at;
    }
    return err->rc;
}

int mm_wire_encode_txn(struct mm_buf *out, const struct mm_txn *txn, bool all_columns, bool compress,
                       struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    size_t at = out->len;
    mm_txn_put(out, txn, all_columns, err);
    if (err->rc == SQLITE_OK && out->len - at > MM_WIRE_TXN_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "a transaction of %zu bytes: the limit is %zu", out->len - at, MM_WIRE_TXN_MAX);
    }
    if (compress) {
        (void)mm_pack_deflate(out, at, err);
    }
    if (err->rc != SQLITE_OK && !mm_buf_failed(out)) {
        out->len = at;
    }
    return err->rc;
}

int mm_wire_compress_txn(struct mm_buf *body, struct mm_err *err)
{
    (void)mm_pack_deflate(body, 0, err);
    return err->rc;
}
