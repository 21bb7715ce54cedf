/* Messages of an epoch that is over, or of one that is none here: whatever they say
** is ignored by all. */
#include <string.h>

#include "test/model/world_int.h"

enum { LOOK_BACK = 40 };

static void store(struct world *w, int shard, struct mm_msg *m)
{
    struct mm_err err;
    struct mm_buf b;
    bool zstd = false;
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 30);
    m->all_columns = true;
    mm_wire_encode(&b, m, w->compress, &zstd, &err);
    world_need(err.rc == SQLITE_OK && !mm_buf_failed(&b), err.msg);
    net_store(w->net, shard, b.data, b.len, zstd);
    mm_buf_free(&b);
}

void world_old_message(struct world *w, uint64_t seed)
{
    if (w->seeder != NULL) {
        return; /* 2 is no other one */
    }
    struct mm_arena a;
    struct mm_err err;
    struct mm_msg m;
    struct mm_msg_place place = { .seq = 3 };
    int shard = 1 + (int)(world_random(&seed) % (unsigned)w->shards);
    int64_t end = net_end(w->net, shard);
    bool found = false;
    mm_arena_init(&a, (size_t)1 << 30);
    for (int64_t seq = end; !found && seq > 0 && seq > end - LOOK_BACK; seq--) {
        const struct net_message *from = net_get(w->net, shard, seq);
        mm_err_init(&err);
        found = mm_wire_decode(&m, from->data, from->len, from->zstd, &a, &err) == SQLITE_OK && m.kind == MM_MSG_TXN &&
                m.epoch == 1;
    }
    if (found) {
        memcpy(m.prev, m.txid, sizeof m.prev);
        m.txid[0] ^= 0xff;
        m.origin_seq++;
        m.epoch = world_random(&seed) % 2 == 0 ? 0 : 2;
        store(w, shard, &m);
    }
    memset(&m, 0, sizeof m);
    m.kind = MM_MSG_SEEDED; /* of the epoch that holds already */
    m.epoch = (int64_t)(world_random(&seed) % 2);
    m.node = 1;
    m.control.cluster_id = "00000000000000000000000000000001";
    m.control.settings = "{}";
    m.control.place = &place;
    m.control.nplace = 1;
    if (!found || world_random(&seed) % 3 == 0) {
        store(w, shard, &m);
    }
    mm_arena_free(&a);
}
