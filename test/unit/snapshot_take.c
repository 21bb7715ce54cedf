/* A snapshot holds all that the cluster agrees on beside the rows (rules, the list of
** tables, what belongs to a table), and nothing of the node that takes it. Who takes it up
** finds out whether it is what it says, and of this log. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "snapshot/scratch.h"
#include "snapshot/take.h"
#include "store/meta.h"
#include "store/policy.h"
#include "store/watch.h"
#include "test/model/cases.h"
#include "test/model/memory_vfs.h"

static const char copy_path[] = "/taken.db";
static const char used_path[] = "/used.db";

static int take(struct world *w, int node, struct mm_manifest *m, struct mm_err *err)
{
    struct mm_work work = { 0 };
    struct mm_take t = { .path = w->node[node].path,
                         .to = copy_path,
                         .repl = { .node = w->node[node].id,
                                   .nshard = w->shards,
                                   .stream_prefix = "log",
                                   .subject_prefix = "subject",
                                   .part_size = w->part_size },
                         .work = &work };
    memory_remove(copy_path);
    return mm_take_copy(&t, m, err);
}

static int64_t answer(sqlite3 *db, const char *sql)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_db_int(db, &err, -1, "%s", sql);
}

static void holds_what_all_agree_on(void)
{
    static const char left[] = "SELECT (SELECT count(*) FROM __marmot__outbox) + (SELECT count(*) FROM __marmot__inbox "
                               "WHERE log <> zeroblob(32768))"
                               " + (SELECT count(*) FROM __marmot__undo) + (SELECT count(*) FROM __marmot__echo)"
                               " + (SELECT count(*) FROM __marmot__head)";
    struct world w;
    struct mm_err err;
    struct mm_manifest m;
    struct mm_take_statement *list = NULL;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_run(&w, 0,
             "CREATE TRIGGER z AFTER INSERT ON plain BEGIN SELECT 1; END; CREATE INDEX y ON plain(b);"
             "CREATE TRIGGER b AFTER INSERT ON plain BEGIN SELECT 2; END; CREATE INDEX a ON plain(a)");
    case_run(&w, 0, "BEGIN IMMEDIATE");
    mm_policy_request(w.node[0].app, "plain", "a", MM_POLICY_DELTA, &err);
    case_run(&w, 0, "COMMIT; UPDATE plain SET b = 'all' WHERE id = 1");
    case_rest(&w);
    case_rest(&w);
    case_run(&w, 0, "UPDATE plain SET b = 'pending' WHERE id = 1");
    take(&w, 0, &m, &err);
    case_check("a snapshot is taken", err.rc == SQLITE_OK && !w.failed && m.shard[0].seq == net_end(w.net, 1), err.msg);
    sqlite3 *db = mm_repl_connect(copy_path, NULL, 0, &err);
    case_check("with the rules that all nodes have", mm_policy_get(db, "plain", "a", &err) == MM_POLICY_DELTA, err.msg);
    case_check("without what is pending here", answer(db, "SELECT b = 'all' FROM plain WHERE id = 1") == 1, err.msg);
    case_check("nor anything else of this node", answer(db, left) == 0, err.msg);
    int n = mm_take_statements(db, "main", "plain", &list, &err);
    case_check("indexes come first, and each kind as it was made",
               n == 4 && strcmp(list[0].name, "y") == 0 && strcmp(list[1].name, "a") == 0 &&
                   strcmp(list[2].name, "z") == 0 && strcmp(list[3].name, "b") == 0,
               err.msg);
    mm_take_statements_free(list, n);
    sqlite3_close(db);
    world_close(&w);
}

/* What is pending leaves it in each shard. */
static void of_each_shard(void)
{
    static const char *const set[] = { "UPDATE plain SET b = '%s' WHERE id = 1",
                                       "INSERT OR REPLACE INTO uniq VALUES(1, 1, '%s')",
                                       "INSERT OR REPLACE INTO lower VALUES(1, 'one', '%s')",
                                       "INSERT OR REPLACE INTO partly VALUES(1, 1, '%s')" };
    static const char all[] =
        "SELECT (SELECT b FROM plain WHERE id = 1) || (SELECT v FROM uniq WHERE id = 1) ||"
        " (SELECT v FROM lower WHERE id = 1) || (SELECT live FROM partly WHERE id = 1) = 'sentsentsentsent'";
    static const char *const table[] = { "plain", "uniq", "lower", "partly" };
    struct world w;
    struct mm_err err;
    struct mm_manifest m;
    int shards = 0;
    mm_err_init(&err);
    case_open(&w, 2, 2, false);
    for (int k = 0; k < 4; k++) {
        shards |= mm_watch_shard(table[k], 2);
        case_run(&w, 0, set[k], "sent");
    }
    case_rest(&w);
    case_rest(&w);
    for (int k = 0; k < 4; k++) {
        case_run(&w, 0, set[k], "pending");
    }
    take(&w, 0, &m, &err);
    sqlite3 *db = err.rc == SQLITE_OK ? mm_repl_connect(copy_path, NULL, 0, &err) : NULL;
    case_check("without what is pending in any shard", shards == 3 && db != NULL && answer(db, all) == 1, err.msg);
    sqlite3_close(db);
    case_finish(&w, "and all end equal, with two shards");
}

/* Its rows may be of no place of the log: the numbers of what it wrote went to others. */
static void set_back(void)
{
    struct world w;
    struct mm_err err;
    struct mm_manifest m;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    mm_meta_set_int(w.node[0].app, MM_META_MOVE_DUE, 7, &err);
    case_check("none of a database that is being brought up to the log",
               take(&w, 0, &m, &err) == SQLITE_BUSY && strstr(err.msg, "set back") != NULL, err.msg);
    mm_err_init(&err);
    mm_meta_set_text(w.node[0].app, MM_META_MOVE_DUE, NULL, &err);
    case_check("one as soon as it is", take(&w, 0, &m, &err) == SQLITE_OK, err.msg);
    case_finish(&w, "and all end equal");
}

/* What taking it up says, as far as `target` of the first shard (0: not further than it goes). */
static int taken_up(struct world *w, const struct mm_manifest *m, int nshard, int64_t target)
{
    static const struct mm_bus_options bus = { 0 };
    struct mm_work work = { 0 };
    struct mm_scratch s;
    struct mm_err err;
    mm_err_init(&err);
    memory_copy(copy_path, used_path);
    const struct mm_scratch_options o = {
        .path = used_path,
        .repl = { .nshard = nshard, .stream_prefix = "log", .subject_prefix = "subject", .part_size = w->part_size },
        .bus = &bus,
        .work = &work,
        .exact = true,
    };
    int64_t at[MM_SNAPSHOT_SHARDS] = { target > 0 ? target : m->shard[0].seq };
    if (mm_scratch_open(&s, &o, m, &err) == SQLITE_OK) {
        mm_scratch_replay(&s, at, &err);
    }
    if (err.rc == SQLITE_OK && s.r.shard[0].pos.seq != at[0]) {
        mm_err_set(&err, SQLITE_ERROR, "it is at %lld", (long long)s.r.shard[0].pos.seq);
    }
    mm_scratch_close(&s);
    snprintf(w->why, sizeof w->why, "%d %.400s", err.rc, err.msg);
    memory_remove(used_path);
    return err.rc;
}

/* One that is of no use must be told from one that cannot be used now: else no older one is tried. */
static void is_what_it_says(void)
{
    struct world w;
    struct mm_err err;
    struct mm_manifest m;
    struct mm_manifest other;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    case_rest(&w);
    int64_t before = net_end(w.net, 1);
    for (int k = 0; k < 3; k++) {
        case_run(&w, 0, "UPDATE plain SET b = 'sent' || %d WHERE id = 1", k);
        case_rest(&w);
    }
    case_rest(&w);
    take(&w, 0, &m, &err);
    int64_t end = net_end(w.net, 1);
    case_run(&w, 0, "UPDATE plain SET b = 'behind it' WHERE id = 1");
    case_rest(&w);
    case_check("one is taken up where it says",
               err.rc == SQLITE_OK && m.shard[0].seq == end && taken_up(&w, &m, 1, 0) == SQLITE_OK, w.why);
    case_check("and follows the log from there", taken_up(&w, &m, 1, net_end(w.net, 1)) == SQLITE_OK, w.why);
    case_check("not with another number of shards", taken_up(&w, &m, 2, 0) == SQLITE_MISMATCH, w.why);
    other = m;
    other.shard[0].seq--;
    case_check("not if its data is of another place", taken_up(&w, &other, 1, 0) == SQLITE_CORRUPT, w.why);
    other = m;
    other.shard[0].digest[0] ^= 1;
    case_check("of another message", taken_up(&w, &other, 1, 0) == SQLITE_CORRUPT, w.why);
    other = m;
    other.shard[0].stamp++;
    case_check("of another time", taken_up(&w, &other, 1, 0) == SQLITE_CORRUPT, w.why);
    other = m;
    other.epoch++;
    case_check("of another epoch", taken_up(&w, &other, 1, 0) == SQLITE_CORRUPT, w.why);
    other = m;
    other.cluster_id[0] ^= 1;
    case_check("of another cluster", taken_up(&w, &other, 1, 0) == SQLITE_CORRUPT, w.why);
    net_lose(w.net, 1, before + 1);
    case_check("it is of no use where the log ends before it", taken_up(&w, &m, 1, 0) == SQLITE_NOTFOUND, w.why);
    while (net_end(w.net, 1) < end + 1) {
        net_store(w.net, 1, "x", 1, false);
    }
    case_check("or holds another message there", taken_up(&w, &m, 1, 0) == SQLITE_NOTFOUND, w.why);
    net_drop(w.net, 1, end);
    case_check("or begins behind it", taken_up(&w, &m, 1, 0) == SQLITE_NOTFOUND, w.why);
    world_close(&w);
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    holds_what_all_agree_on();
    of_each_shard();
    set_back();
    is_what_it_says();
    memory_remove(copy_path);
    return case_end();
}
