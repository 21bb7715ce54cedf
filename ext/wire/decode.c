#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "marmot.pb-c.h"
#include "store/policy.h"
#include "wire/put.h"
#include "wire/wire.h"

/* What protobuf-c asks for comes from the message's arena and stays there. */
struct pool {
    ProtobufCAllocator allocator;
    struct mm_arena *arena;
    struct mm_err *err;
};

static void *pool_alloc(void *data, size_t n)
{
    struct pool *p = data;
    return mm_pack_alloc(p->arena, n, 1, p->err);
}

static void pool_free(void *data, void *p)
{
    (void)data;
    (void)p;
}

static void *unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len, struct mm_arena *arena,
                    const char *what, struct mm_err *err)
{
    struct pool pool = { { pool_alloc, pool_free, NULL }, arena, err };
    pool.allocator.allocator_data = &pool;
    void *m = protobuf_c_message_unpack(type, &pool.allocator, len, data);
    if (m == NULL) { /* keeps the error of an allocation that failed */
        mm_err_set(err, SQLITE_CORRUPT, "%s is malformed: not what marmot.proto describes", what);
    }
    return err->rc == SQLITE_OK ? m : NULL;
}

static int newer(struct mm_err *err, const char *what)
{
    return mm_err_set(err, SQLITE_MISMATCH, "message uses a feature newer than this library (%s): upgrade it", what);
}

static int corrupt(struct mm_err *err, const char *what)
{
    return mm_err_set(err, SQLITE_CORRUPT, "message is malformed: %s", what);
}

static int64_t read_id(uint64_t v, const char *what, struct mm_err *err)
{
    if (v > INT64_MAX) {
        corrupt(err, what);
        return 0;
    }
    return (int64_t)v;
}

static void read_txid(uint8_t out[MM_TXID_SIZE], const ProtobufCBinaryData *b, const char *what, struct mm_err *err)
{
    if (b->len != MM_TXID_SIZE) {
        corrupt(err, what);
        return;
    }
    memcpy(out, b->data, MM_TXID_SIZE);
}

static void read_head(struct mm_msg *m, const Marmot__V1__Message *w, struct mm_err *err)
{
    m->epoch = read_id(w->epoch, "epoch out of range", err);
    m->node = w->node;
    m->incarnation = w->incarnation;
    m->origin_seq = read_id(w->origin_seq, "origin_seq out of range", err);
    read_txid(m->txid, &w->txid, "txid is not 16 bytes", err);
    if (w->previous_txid.len > 0) {
        read_txid(m->prev, &w->previous_txid, "previous_txid is not 16 bytes", err);
    }
    m->outbox_first = read_id(w->outbox_first, "outbox id out of range", err);
    m->outbox_last = read_id(w->outbox_last, "outbox id out of range", err);
    m->log_first = read_id(w->log_first, "log id out of range", err);
    m->log_last = read_id(w->log_last, "log id out of range", err);
    m->at_ms = w->committed_ms;
    m->schema_version = w->schema_version;
}

static void read_part(struct mm_msg *m, const Marmot__V1__Part *p, struct mm_err *err)
{
    m->kind = MM_MSG_PART;
    if (p->base.n_unknown_fields > 0) {
        newer(err, "part");
        return;
    }
    if (p->count > MM_WIRE_TXN_MAX || p->number >= p->count) {
        corrupt(err, "a part beyond the count of its parts");
        return;
    }
    if (p->sha256.len != sizeof m->part.sha256) {
        corrupt(err, "sha256 of a part is not 32 bytes");
        return;
    }
    m->part.number = (int)p->number;
    m->part.count = (int)p->count;
    memcpy(m->part.sha256, p->sha256.data, sizeof m->part.sha256);
    m->part.data = p->data.len > 0 ? p->data.data : (const uint8_t *)"";
    m->part.len = p->data.len;
}

static void read_tables(struct mm_msg *m, Marmot__V1__TableState *const *t, size_t n, struct mm_arena *arena,
                        struct mm_err *err)
{
    if (n > MM_WIRE_TABLES_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "message names %zu tables, the limit is %d", n, MM_WIRE_TABLES_MAX);
        return;
    }
    m->control.table = mm_pack_alloc(arena, n, sizeof *m->control.table, err);
    for (size_t k = 0; k < n && err->rc == SQLITE_OK; k++) {
        struct mm_msg_table *to = &m->control.table[k];
        if (t[k]->base.n_unknown_fields > 0) {
            newer(err, "state of a table");
        } else if (strlen(t[k]->name) > MM_WIRE_NAME_MAX) {
            mm_err_set(err, SQLITE_TOOBIG, "message names a table in more than %d bytes", MM_WIRE_NAME_MAX);
        } else if (t[k]->content.len != sizeof to->content) {
            corrupt(err, "content sum is not 16 bytes");
        } else {
            to->name = t[k]->name;
            to->schema_hash = t[k]->schema_hash;
            memcpy(to->content, t[k]->content.data, sizeof to->content);
            to->rows = read_id(t[k]->rows, "row count out of range", err);
        }
    }
    m->control.ntable = n;
}

static void read_cluster(struct mm_msg *m, char *cluster_id, char *settings, struct mm_err *err)
{
    if (strlen(cluster_id) != 32 || strspn(cluster_id, "0123456789abcdef") != 32) {
        corrupt(err, "cluster_id is not 32 hex digits");
        return;
    }
    m->control.cluster_id = cluster_id;
    m->control.settings = settings;
}

static void read_founded(struct mm_msg *m, const Marmot__V1__Founded *f, struct mm_arena *arena, struct mm_err *err)
{
    m->kind = MM_MSG_FOUNDED;
    if (f->base.n_unknown_fields > 0) {
        newer(err, "founded");
        return;
    }
    read_cluster(m, f->cluster_id, f->settings, err);
    if (err->rc == SQLITE_OK) {
        read_tables(m, f->table, f->n_table, arena, err);
    }
}

static void read_seeded(struct mm_msg *m, const Marmot__V1__Seeded *s, struct mm_arena *arena, struct mm_err *err)
{
    m->kind = MM_MSG_SEEDED;
    if (s->base.n_unknown_fields > 0) {
        newer(err, "seeded");
        return;
    }
    read_cluster(m, s->cluster_id, s->settings, err);
    m->control.from_epoch = read_id(s->from_epoch, "epoch out of range", err);
    if (s->n_place < 1 || s->n_place > MM_WIRE_SHARDS_MAX) {
        corrupt(err, "a seeded message of no shard, or of too many");
    }
    m->control.place = mm_pack_alloc(arena, s->n_place, sizeof *m->control.place, err);
    for (size_t k = 0; k < s->n_place && err->rc == SQLITE_OK; k++) {
        struct mm_msg_place *to = &m->control.place[k];
        if (s->place[k]->base.n_unknown_fields > 0) {
            newer(err, "place");
        } else if (s->place[k]->digest.len != sizeof to->digest) {
            corrupt(err, "digest of a place is not 16 bytes");
        } else {
            to->seq = read_id(s->place[k]->position, "position out of range", err);
            memcpy(to->digest, s->place[k]->digest.data, sizeof to->digest);
        }
    }
    m->control.nplace = s->n_place;
}

static bool name_ok(const char *name, struct mm_err *err)
{
    size_t n = strlen(name);
    if (n == 0) {
        corrupt(err, "a policy without table or column");
    } else if (n > MM_WIRE_NAME_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "a policy names a table or column in more than %d bytes", MM_WIRE_NAME_MAX);
    }
    return err->rc == SQLITE_OK;
}

static void read_policy(struct mm_msg *m, const Marmot__V1__Policy *p, struct mm_err *err)
{
    m->kind = MM_MSG_POLICY;
    if (p->base.n_unknown_fields > 0) {
        newer(err, "policy");
    } else if (p->rule >= MM_POLICY_COUNT) {
        corrupt(err, "unknown rule of a policy");
    } else if (name_ok(p->table, err) && name_ok(p->column, err)) {
        m->control.policy_table = p->table;
        m->control.policy_column = p->column;
        m->control.policy = (int)p->rule;
    }
}

static void read_verify_id(struct mm_msg *m, const ProtobufCBinaryData *b, struct mm_err *err)
{
    if (b->len != sizeof m->control.verify_id) {
        corrupt(err, "id of a verify call is not 16 bytes");
        return;
    }
    memcpy(m->control.verify_id, b->data, sizeof m->control.verify_id);
}

static void read_verify(struct mm_msg *m, const Marmot__V1__Verify *v, struct mm_err *err)
{
    m->kind = MM_MSG_VERIFY;
    if (v->base.n_unknown_fields > 0) {
        newer(err, "verify");
        return;
    }
    read_verify_id(m, &v->id, err);
}

static void read_verified(struct mm_msg *m, const Marmot__V1__Verified *v, struct mm_arena *arena, struct mm_err *err)
{
    m->kind = MM_MSG_VERIFIED;
    if (v->base.n_unknown_fields > 0) {
        newer(err, "answer to verify");
        return;
    }
    read_verify_id(m, &v->id, err);
    m->control.verify_seq = read_id(v->place, "place of a verify message out of range", err);
    if (err->rc == SQLITE_OK) {
        read_tables(m, v->table, v->n_table, arena, err);
    }
}

static void read_ended(struct mm_msg *m, const Marmot__V1__PartsEnded *e, struct mm_err *err)
{
    m->kind = MM_MSG_ENDED;
    if (e->base.n_unknown_fields > 0) {
        newer(err, "the end of parts");
        return;
    }
    m->control.ended_node = e->node;
    m->control.ended_incarnation = e->incarnation;
    read_txid(m->control.ended_txid, &e->txid, "txid of ended parts is not 16 bytes", err);
}

static void read_body(struct mm_msg *m, const Marmot__V1__Message *w, struct mm_arena *arena, struct mm_err *err)
{
    switch (w->body_case) {
    case MARMOT__V1__MESSAGE__BODY_TRANSACTION:
        m->kind = MM_MSG_TXN;
        mm_txn_read(&m->txn, w->transaction, arena, err);
        break;
    case MARMOT__V1__MESSAGE__BODY_PART:
        read_part(m, w->part, err);
        break;
    case MARMOT__V1__MESSAGE__BODY_FOUNDED:
        read_founded(m, w->founded, arena, err);
        break;
    case MARMOT__V1__MESSAGE__BODY_WATCH:
        m->kind = MM_MSG_WATCH;
        if (w->watch->base.n_unknown_fields > 0) {
            newer(err, "watch");
            return;
        }
        read_tables(m, w->watch->table, w->watch->n_table, arena, err);
        break;
    case MARMOT__V1__MESSAGE__BODY_POLICY:
        read_policy(m, w->policy, err);
        break;
    case MARMOT__V1__MESSAGE__BODY_VERIFY:
        read_verify(m, w->verify, err);
        break;
    case MARMOT__V1__MESSAGE__BODY_VERIFIED:
        read_verified(m, w->verified, arena, err);
        break;
    case MARMOT__V1__MESSAGE__BODY_SEEDED:
        read_seeded(m, w->seeded, arena, err);
        break;
    case MARMOT__V1__MESSAGE__BODY_PARTS_ENDED:
        read_ended(m, w->parts_ended, err);
        break;
    default:
        corrupt(err, "no body");
        break;
    }
}

/* The version stands first in every version, so that a message of a later
** one is told from a malformed one before the rest is looked at. */
static int check_version(const uint8_t *p, size_t len, struct mm_err *err)
{
    uint64_t v = 0;
    size_t at = 1;
    if (len < 2 || p[0] != (1 << 3 | MM_PUT_VARINT)) {
        return corrupt(err, "it does not begin with its version");
    }
    for (unsigned shift = 0; shift < 35 && at < len; shift += 7) {
        v |= (uint64_t)(p[at] & 0x7F) << shift;
        if ((p[at++] & 0x80) == 0) {
            break;
        }
    }
    if (v == 0) {
        return corrupt(err, "version 0");
    }
    if (v > MM_WIRE_VERSION) {
        return mm_err_set(err, SQLITE_MISMATCH, "message has format version %llu, this library reads %d: upgrade it",
                          (unsigned long long)v, MM_WIRE_VERSION);
    }
    return SQLITE_OK;
}

static void decode_plain(struct mm_msg *m, const void *data, size_t len, struct mm_arena *arena, struct mm_err *err)
{
    if (check_version(data, len, err) != SQLITE_OK) {
        return;
    }
    const Marmot__V1__Message *w = unpack(&marmot__v1__message__descriptor, data, len, arena, "message", err);
    if (w == NULL) {
        return;
    }
    if (w->base.n_unknown_fields > 0) {
        newer(err, "an unknown field or body");
        return;
    }
    if (w->version != MM_WIRE_VERSION) {
        corrupt(err, "two versions");
        return;
    }
    read_head(m, w, err);
    if (err->rc == SQLITE_OK) {
        read_body(m, w, arena, err);
    }
}

int mm_wire_decode(struct mm_msg *m, const void *data, size_t len, bool zstd, struct mm_arena *arena,
                   struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    memset(m, 0, sizeof *m);
    if (len > MM_WIRE_MESSAGE_MAX) {
        return mm_err_set(err, SQLITE_TOOBIG, "message of %zu bytes, the limit is %zu", len, MM_WIRE_MESSAGE_MAX);
    }
    void *plain = zstd ? mm_pack_inflate(data, len, MM_WIRE_MESSAGE_MAX, &len, err) : NULL;
    if (err->rc == SQLITE_OK) {
        decode_plain(m, zstd ? plain : data, len, arena, err);
    }
    free(plain);
    return err->rc;
}

/* `body`, if not NULL, holds the data: it goes as soon as they are not needed. */
static int decode_txn(struct mm_txn *txn, const void *data, size_t len, struct mm_buf *body, struct mm_arena *arena,
                      struct mm_err *err)
{
    if (err->rc != SQLITE_OK) {
        return err->rc;
    }
    memset(txn, 0, sizeof *txn);
    txn->arena = arena;
    if (len > MM_WIRE_TXN_MAX) {
        return mm_err_set(err, SQLITE_TOOBIG, "transaction of %zu bytes, the limit is %zu", len, MM_WIRE_TXN_MAX);
    }
    bool zstd = mm_pack_is_frame(data, len);
    void *plain = zstd ? mm_pack_inflate(data, len, MM_WIRE_TXN_MAX, &len, err) : NULL;
    if (zstd && body != NULL) {
        mm_buf_free(body);
    }
    const Marmot__V1__Transaction *t = NULL;
    if (err->rc == SQLITE_OK) {
        t = unpack(&marmot__v1__transaction__descriptor, zstd ? plain : data, len, arena, "transaction", err);
    }
    free(plain); /* what was unpacked is a copy */
    if (body != NULL) {
        mm_buf_free(body);
    }
    return t != NULL ? mm_txn_read(txn, t, arena, err) : err->rc;
}

int mm_wire_decode_txn(struct mm_txn *txn, const void *data, size_t len, struct mm_arena *arena, struct mm_err *err)
{
    return decode_txn(txn, data, len, NULL, arena, err);
}

int mm_wire_decode_body(struct mm_txn *txn, struct mm_buf *body, struct mm_arena *arena, struct mm_err *err)
{
    return decode_txn(txn, body->data, body->len, body, arena, err);
}
