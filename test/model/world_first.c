/* What the nodes of a cluster begin with: a file that has joined at the founding, and the
** founding's message. */
#include <string.h>

#include "base/db.h"
#include "repl/open.h"
#include "store/meta.h"
#include "test/model/faults.h"
#include "test/model/memory_vfs.h"
#include "test/model/world_int.h"

/* With rows, or with empty tables. */
static struct world_founding first[WORLD_KINDS] = { { .path = "/first.db" }, { .path = "/empty.db" } };

const struct world_founding *world_founding(int kind)
{
    return &first[kind];
}

/* The message that a founder of these tables sends. */
static void make_founded(int kind)
{
    struct mm_err err;
    struct mm_buf b;
    bool zstd = false;
    struct mm_repl r;
    struct mm_repl_options o = {
        .node = 1, .nshard = 1, .stream_prefix = "log", .subject_prefix = "subject", .part_size = 512 << 10
    };
    struct mm_msg_table table[WORLD_TABLES];
    struct mm_msg m;
    memset(&r, 0, sizeof r);
    memset(&m, 0, sizeof m);
    memset(table, 0, sizeof table);
    mm_err_init(&err);
    mm_buf_init(&b, sizeof first[kind].message);
    m.kind = MM_MSG_FOUNDED;
    m.epoch = 1;
    m.node = 1;
    m.incarnation = 1;
    m.control.cluster_id = WORLD_CLUSTER;
    m.control.settings = "{}";
    m.control.table = table;
    m.control.ntable = WORLD_TABLES;
    r.db = mm_repl_connect(first[kind].path, NULL, 0, &err);
    mm_repl_open(&r, &o, &err);
    for (int t = 0; t < WORLD_TABLES && err.rc == SQLITE_OK; t++) {
        mm_join_base(&r, mm_targets_get(r.targets, world_tables[t].name, &err), &table[t], &err);
    }
    mm_wire_encode(&b, &m, false, &zstd, &err);
    world_need(err.rc == SQLITE_OK && !mm_buf_failed(&b), err.msg);
    memcpy(first[kind].message, b.data, b.len);
    first[kind].len = b.len;
    mm_buf_free(&b);
    mm_repl_close(&r);
}

/* The file of a node that has joined at the founding. */
static void make_first(int kind)
{
    struct mm_err err;
    uint8_t digest[32];
    mm_err_init(&err);
    sqlite3 *db = world_connect(first[kind].path);
    /* Small pages: less to copy for each process. */
    world_need(sqlite3_exec(db,
                            "PRAGMA journal_mode = delete; PRAGMA page_size = 1024; VACUUM; PRAGMA journal_mode = wal",
                            NULL, NULL, NULL) == SQLITE_OK,
               sqlite3_errmsg(db));
    mm_db_exec(db, &err, "%s%s", world_schema, kind == 0 ? world_rows : "");
    mm_db_exec(db, &err, "BEGIN");
    mm_meta_migrate(db, &err);
    mm_head_set_incarnation(db, 1, &err);
    for (int k = 0; k < WORLD_TABLES; k++) {
        struct mm_table *t = mm_table_load(db, world_tables[k].name, &err);
        world_usable[k] = t != NULL && t->supported;
        world_need(world_usable[k], world_tables[k].name);
        mm_table_free(t);
        if (world_usable[k]) {
            mm_watch_set(db, world_tables[k].name, MM_WATCHED, NULL, &err);
            mm_watch_set_joined_seq(db, world_tables[k].name, 1, &err);
        }
    }
    mm_db_exec(db, &err, "COMMIT");
    world_need(err.rc == SQLITE_OK, err.msg);
    make_founded(kind);
    mm_wire_sha256(first[kind].message, first[kind].len, digest);
    mm_db_exec(db, &err, "BEGIN");
    for (int s = 1; s <= WORLD_SHARDS; s++) {
        struct mm_position p = { .shard = s, .seq = s == 1 ? 1 : 0, .created = "then", .epoch = 1 };
        if (s == 1) {
            memcpy(p.digest, digest, sizeof p.digest);
        }
        mm_position_set(db, &p, &err);
    }
    mm_meta_set_text(db, MM_META_CLUSTER, WORLD_CLUSTER, &err);
    mm_meta_set_int(db, MM_META_JOINED, 1, &err);
    mm_db_exec(db, &err, "COMMIT");
    world_need(err.rc == SQLITE_OK, err.msg);
    world_read_first(db, kind);
    world_anew_learn(db);
    world_need(sqlite3_close(db) == SQLITE_OK, "closing the first database");
}

void world_prepare(void)
{
    fault_start();
    memory_vfs_start();
    for (int k = 0; k < WORLD_KINDS; k++) {
        make_first(k);
    }
}
