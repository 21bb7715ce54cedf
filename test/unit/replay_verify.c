/* Sums of tables: each node's are those of its base at the place of the message that asks
** for them, whatever is pending there, whatever comes behind it, and whoever holds the lock. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "store/verify.h"
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

int main(void)
{
    mm_log_silence();
    world_prepare();
    of_its_place(1);
    of_its_place(2);
    locked();
    return case_end();
}
