/* Sums of tables: each node's are those of its base at the place of the message that asks
** for them, whatever is pending there, whatever comes behind it, and whoever holds the lock. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/join.h"
#include "store/verify.h"
#include "store/watch.h"
#include "test/model/cases.h"

static void ask(struct world *w, int node, int shards, uint8_t id[MM_VERIFY_ID])
{
    struct mm_err err;
    mm_err_init(&err);
    case_run(w, node, "BEGIN IMMEDIATE");
    mm_verify_request(w->node[node].app, shards, id, &err);
    case_run(w, node, "COMMIT");
    case_check("sums are asked for", err.rc == SQLITE_OK && !w->failed, err.msg);
}

/* What a node knows of all answers says that all is equal, and has `tables` of each node. */
static void equal(struct world *w, const char *name, int node, const uint8_t id[MM_VERIFY_ID], int tables)
{
    struct mm_err err;
    struct mm_buf b;
    int found = 0;
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 20);
    bool all = mm_verify_complete(w->node[node].app, id, w->shards, w->node[node].id, &err);
    mm_verify_json(w->node[node].app, id, w->shards, w->node[node].id, &b, &err);
    mm_buf_byte(&b, 0);
    const char *text = err.rc == SQLITE_OK ? (const char *)b.data : err.msg;
    for (const char *at = text; (at = strstr(at, "\"equal\":true")) != NULL; at++) {
        found++;
    }
    case_check(name, all && strstr(text, "\"equal\":false") == NULL && found == tables * w->nnode, text);
    mm_buf_free(&b);
}

/* A change comes right behind the question, and something is pending that touches the same rows. */
static void of_its_place(int shards)
{
    struct world w;
    uint8_t id[MM_VERIFY_ID];
    case_open(&w, shards, 2, false);
    case_rest(&w);
    case_run(&w, 1, "UPDATE plain SET b = 'pending' WHERE id = 1; INSERT INTO bag VALUES ('pending', 1)");
    case_run(&w, 1, "UPDATE uniq SET u = 'pending' WHERE id = 1");
    ask(&w, 0, shards, id);
    case_run(&w, 0, "UPDATE plain SET a = 'behind', b = 'behind' WHERE id = 1; INSERT INTO bag VALUES ('behind', 1)");
    case_run(&w, 0, "UPDATE uniq SET u = 'behind' WHERE id = 1");
    case_publish(&w, 0);
    case_fold_each(&w, 0, 8);
    case_act(&w, WORLD_DELIVER, 1); /* all in one batch */
    for (int k = 0; k < 8; k++) {
        case_act(&w, WORLD_APPLY, 1);
    }
    world_settle(&w);
    equal(&w, "all nodes sum the same, and the one that asked knows it", 0, id, WORLD_TABLES);
    equal(&w, "so does another", 1, id, WORLD_TABLES);
    case_finish(&w, "and all nodes end equal");
}

/* The application holds the lock when the answer is to be written, and changes what was summed. */
static void locked(void)
{
    struct world w;
    uint8_t id[MM_VERIFY_ID];
    case_open(&w, 1, 2, false);
    case_rest(&w);
    ask(&w, 0, 1, id);
    case_publish(&w, 0);
    case_act(&w, WORLD_DELIVER, 1);
    for (int k = 0; k < 4 && case_shard(&w, 1)->verify_seq == 0; k++) {
        case_act(&w, WORLD_APPLY, 1);
    }
    bool good = case_shard(&w, 1)->verify_seq != 0;
    case_run(&w, 1, "BEGIN IMMEDIATE; UPDATE plain SET a = 'meanwhile' WHERE id = 1");
    case_act(&w, WORLD_APPLY, 1);
    good = good && w.busy > 0 && case_shard(&w, 1)->verify_seq != 0;
    case_run(&w, 1, "COMMIT");
    case_act(&w, WORLD_APPLY, 1);
    case_check("an answer waits for the lock", good && case_shard(&w, 1)->verify_seq == 0, w.why);
    world_settle(&w);
    equal(&w, "and is the same", 0, id, WORLD_TABLES);
    case_finish(&w, "and all end equal after it");
}

/* The node that asks gives no answer, blocked for one: those of the others are compared with each other. */
static void without_its_own(void)
{
    struct world w;
    struct mm_err err;
    struct mm_buf b;
    uint8_t id[MM_VERIFY_ID];
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 20);
    case_open(&w, 1, 3, false);
    case_rest(&w);
    ask(&w, 0, 1, id);
    case_publish(&w, 0);
    for (int k = 0; k < 4; k++) { /* each answers in a turn of its own */
        case_rest(&w);
    }
    mm_db_exec(w.node[0].r.db, &err, "DELETE FROM __marmot__verify WHERE node = 1");
    mm_db_exec(w.node[0].r.db, &err,
               "UPDATE __marmot__verify SET content = zeroblob(16) WHERE node = 3 AND name = 'bag'");
    mm_verify_json(w.node[0].app, id, 1, 1, &b, &err);
    mm_buf_byte(&b, 0);
    const char *text = err.rc == SQLITE_OK ? (const char *)b.data : err.msg;
    int equals = 0;
    int others = 0;
    for (const char *at = text; (at = strstr(at, "\"equal\":")) != NULL; at++) {
        equals += at[8] == 't';
        others += at[8] == 'f';
    }
    case_check("without an answer of the one that asks the others' are compared",
               equals == 2 * WORLD_TABLES - 1 && others == 1, text);
    mm_buf_free(&b);
    world_close(&w);
}

/* Where the two nodes differ, NULL = nowhere. */
static const char *differs(struct world *w, struct mm_err *err)
{
    for (int k = 0; k < w->ndef[0] && err->rc == SQLITE_OK; k++) {
        struct mm_msg_table sum[2];
        for (int n = 0; n < 2; n++) {
            struct mm_target *t = mm_targets_get(w->node[n].r.targets, w->def[0][k].name, err);
            if (t != NULL) {
                mm_join_base(&w->node[n].r, t, &sum[n], err);
            }
        }
        if (err->rc != SQLITE_OK || sum[0].rows != sum[1].rows ||
            memcmp(sum[0].content, sum[1].content, sizeof sum[0].content) != 0) {
            return w->def[0][k].name;
        }
    }
    return NULL;
}

/* What is pending on node 1, rows that it has changed more than once among them, is no part of its
** base: neither before it is read nor then, nor while some of it is undone. */
static void without_what_waits(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    case_run(&w, 1, "UPDATE plain SET a = 'first' WHERE id = 1; UPDATE plain SET a = 'second' WHERE id = 1");
    case_run(&w, 1, "INSERT INTO plain VALUES (9, 1, 2); DELETE FROM plain WHERE id = 2");
    case_run(&w, 1, "UPDATE plain SET b = 'again' WHERE id = 9; INSERT INTO plain VALUES (2, 'back', 'x')");
    case_run(&w, 1, "REPLACE INTO uniq VALUES (7, 'a', 1); UPDATE uniq SET u = 'b2' WHERE id = 2");
    case_run(&w, 1, "UPDATE names SET k = 'BOB' WHERE k = 'bob'; DELETE FROM bag WHERE a = 1");
    struct mm_repl *r = &w.node[1].r;
    const char *where = case_pending(&w, 1) == 0 ? differs(&w, &err) : "pending";
    case_check("what was not read yet is no part of a base", where == NULL, where != NULL ? where : "");
    where = case_pending(&w, 1) == 10 ? differs(&w, &err) : "pending";
    case_check("nor what waits", where == NULL, where != NULL ? where : "");
    for (size_t left = case_pending(&w, 1); left-- > 0 && where == NULL;) {
        mm_db_exec(r->db, &err, "BEGIN IMMEDIATE");
        mm_pending_undo(case_shard(&w, 1)->pending, left, &err);
        where = differs(&w, &err);
        mm_db_exec(r->db, &err, "ROLLBACK");
        mm_repl_reload(r, &err);
    }
    case_check("while it is undone, too", where == NULL && err.rc == SQLITE_OK, where != NULL ? where : err.msg);
    case_finish(&w, "and both nodes end equal");
}

/* A table that lacks something on one node is compared on the others alone. */
static void not_of_what_is_stale(void)
{
    struct world w;
    struct mm_err err;
    struct mm_buf b;
    uint8_t id[MM_VERIFY_ID];
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 20);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    mm_watch_set(w.node[1].r.db, "bag", MM_STALE, "it lacks a row", &err);
    mm_watch_set_joined_seq(w.node[1].r.db, "bag", MM_SEQ_BEFORE, &err);
    mm_db_exec(w.node[1].r.db, &err, "DELETE FROM bag"); /* nothing captures it */
    mm_targets_forget(w.node[1].r.targets);
    ask(&w, 0, 1, id);
    case_publish(&w, 0);
    int64_t seq = net_end(w.net, 1);
    for (int k = 0; k < 4; k++) {
        case_rest(&w);
    }
    mm_verify_json(w.node[0].app, id, 1, w.node[0].id, &b, &err);
    mm_buf_byte(&b, 0);
    const char *text = err.rc == SQLITE_OK ? (const char *)b.data : err.msg;
    char at[64];
    int rows = 0;
    int there = 0;
    snprintf(at, sizeof at, "\"position\":%lld,", (long long)seq);
    for (const char *p = text; (p = strstr(p, "\"position\":")) != NULL; p++) {
        rows++;
        there += strncmp(p, at, strlen(at)) == 0;
    }
    case_check("no sum is of a stale table, and all are of the place of the question",
               strstr(text, "\"equal\":false") == NULL && rows == 2 * WORLD_TABLES - 1 && there == rows, text);
    mm_buf_free(&b);
    world_close(&w);
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    of_its_place(1);
    of_its_place(2);
    locked();
    without_its_own();
    not_of_what_is_stale();
    without_what_waits();
    return case_end();
}
