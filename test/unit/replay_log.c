/* Logs that are not as they should be: messages that are gone, parts that do not fit
** together, another message at a place that was folded. What came before such a place is
** kept, nothing behind it counts. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "repl/join.h"
#include "store/position.h"
#include "store/watch.h"
#include "test/model/cases.h"

enum { BAG = 4 };

static int64_t bagged(struct world *w, int node)
{
    return case_answer(w, node, "SELECT count(*) FROM bag WHERE a = 'case'");
}

static void put(struct world *w, int node, int times)
{
    for (int k = 0; k < times; k++) {
        case_run(w, node, "INSERT INTO bag VALUES ('case', %d)", k);
    }
    case_publish(w, (unsigned)node);
}

static int64_t stored_seq(struct world *w, int node)
{
    struct mm_err err;
    struct mm_position p = { 0 };
    mm_err_init(&err);
    return mm_position_get(w->node[node].app, 1, &p, &err) ? p.seq : -1;
}

/* Messages are dropped while the log is followed, and one of before is folded with what follows. */
static void gap_midway(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    int64_t end = net_end(w.net, 1);
    put(&w, 0, 4);
    struct world_step one = case_step(WORLD_DELIVER, 1, 1);
    world_act(&w, &one);
    net_drop(w.net, 1, end + 2);
    case_act(&w, WORLD_DELIVER, 1);
    case_act(&w, WORLD_APPLY, 1);
    case_act(&w, WORLD_APPLY, 1);
    case_check("messages that are dropped before they were folded are missed",
               w.failed && strstr(w.why, "has dropped") != NULL && case_shard(&w, 1)->behind, w.why);
    case_check("what came before them is folded and stored, what comes behind is not",
               bagged(&w, 1) == 1 && case_shard(&w, 1)->pos.seq == end + 1 && stored_seq(&w, 1) == end + 1, w.why);
    world_close(&w);
}

/* What comes behind the hole is an own message, which needs no transaction. */
static void gap_before_an_echo(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    int64_t end = net_end(w.net, 1);
    put(&w, 0, 2);
    put(&w, 1, 1);
    net_drop(w.net, 1, end + 2);
    case_fold(&w, 1);
    case_check("so they are before an echo",
               w.failed && strstr(w.why, "has dropped") != NULL && case_shard(&w, 1)->pos.seq == end &&
                   case_pending(&w, 1) == 1,
               w.why);
    world_close(&w);
}

/* The same for a node that was away meanwhile. */
static void gap_at_begin(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    int64_t pos = case_shard(&w, 1)->pos.seq;
    put(&w, 0, 4);
    net_drop(w.net, 1, pos + 2);
    case_act(&w, WORLD_CUT, 1);
    case_fold(&w, 1);
    case_check("a log that begins behind the folded place is noticed",
               w.failed && strstr(w.why, "is lost") != NULL && case_shard(&w, 1)->behind, w.why);
    case_check("and nothing of it is folded",
               bagged(&w, 1) == 0 && case_shard(&w, 1)->pos.seq == pos && stored_seq(&w, 1) == pos, w.why);
    world_close(&w);
}

/* A log with other content at the folded place is not one that has only dropped something. */
static void other_content(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    put(&w, 0, 1);
    case_rest(&w);
    const struct net_message *m = net_get(w.net, 1, net_end(w.net, 1));
    ((uint8_t *)m->data)[m->len / 2] ^= 1;
    case_act(&w, WORLD_CUT, 1);
    case_run(&w, 1, "INSERT INTO bag VALUES ('waits', 1)");
    case_act(&w, WORLD_DELIVER, 1);
    case_act(&w, WORLD_PUMP, 1);
    case_check("nothing is sent before it was looked at", !w.failed && case_met(&w, 1, 1, NET_STORED) == 0, w.why);
    case_act(&w, WORLD_APPLY, 1);
    case_check("another content at the folded place is no gap",
               w.failed && strstr(w.why, "is lost") != NULL && !case_shard(&w, 1)->behind, w.why);
    world_close(&w);
}

/* The server loses two messages, another one takes the first one's place, and the second comes
** again as it was. For a node that was away all the time the log ends as it knows it. */
static void same_end(void)
{
    struct world w;
    case_open(&w, 1, 3, false);
    case_rest(&w);
    case_act(&w, WORLD_SNAPSHOT, 2);
    int64_t end = net_end(w.net, 1);
    case_run(&w, 0, "INSERT INTO bag VALUES ('case', 0)");
    case_turns(&w, 0);
    case_run(&w, 1, "INSERT INTO plain VALUES (50, 'again', 1)");
    case_turns(&w, 1);
    case_turns(&w, 0);
    struct mm_position known = case_shard(&w, 0)->pos;
    bool good = known.seq == end + 2 && case_lose(&w, end, 0); /* it is away */
    case_run(&w, 2, "INSERT INTO bag VALUES ('case', 2)");
    for (int k = 0; k < 20 && net_end(w.net, 1) < end + 2; k++) {
        net_now_us += 300000;
        case_turns(&w, 2);
        case_turns(&w, 1);
    }
    case_turns(&w, 2);
    good = good && net_end(w.net, 1) == end + 2 &&
           memcmp(case_shard(&w, 2)->pos.digest, known.digest, sizeof known.digest) == 0;
    case_check("a lost message can come again under its number, behind another than then", good && !w.failed, w.why);
    case_act(&w, WORLD_CUT, 0);
    case_fold(&w, 0);
    case_check("its stamp tells that it is not the one that was folded", !w.failed && w.node[0].bring.lost, w.why);
    world_settle(&w);
    case_check("and what the server lost before it is there again",
               !w.failed && bagged(&w, 0) == 2 && bagged(&w, 1) == 2 && bagged(&w, 2) == 2, w.why);
    case_finish(&w, "all end equal");
}

/* A second reading meets the same: its table waits for a copy, as one that had joined. */
static void gap_in_second_reading(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, false);
    put(&w, 0, 4);
    case_rest(&w);
    bool good = world_again(&w, &w.node[1], BAG);
    struct world_step two = case_step(WORLD_DELIVER, 1, 2);
    world_act(&w, &two);
    case_act(&w, WORLD_APPLY, 1);
    net_drop(w.net, 1, 3);
    case_fold(&w, 1);
    good = good && !w.failed && case_shard(&w, 1)->replay == NULL;
    case_check("a second reading of a log with a hole ends",
               good && mm_watch_get(w.node[1].app, "bag", NULL, &err) == MM_JOINING, w.why);
    case_check("and its table, which had joined, waits for a copy as such",
               mm_watch_joined_seq(w.node[1].app, "bag", &err) == MM_SEQ_BEFORE && err.rc == SQLITE_OK, err.msg);
    world_close(&w);
}

/* What came twice counts once in a second reading, too. */
static void twice_in_the_log(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    int64_t end = net_end(w.net, 1);
    case_run(&w, 0, "INSERT INTO bag VALUES ('case', 1)");
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 1, NET_ACK_LOST) == 1;
    net_now_us += (MM_ACK_MS + 1) * INT64_C(1000);
    case_act(&w, WORLD_PUMP, 0);
    net_now_us += 1000000;
    case_publish(&w, 0);
    case_rest(&w);
    good = good && net_end(w.net, 1) == end + 2 && bagged(&w, 1) == 1 && world_again(&w, &w.node[1], BAG);
    world_settle(&w);
    case_check("what came twice counts once in a second reading, too", good && !w.failed && bagged(&w, 1) == 1, w.why);
    case_finish(&w, "with all nodes equal");
}

/* A message that this library cannot read stops its shard and no other. */
static void blocked_alone(void)
{
    enum { FIRST = 1, SECOND = 2 };
    static const uint8_t newer[] = { 0x08, 0x7f }; /* a format version */
    struct world w;
    case_open(&w, 2, 2, false);
    case_rest(&w);
    net_store(w.net, FIRST, newer, sizeof newer, false);
    case_act(&w, WORLD_RESTART, 1); /* it is to be read before anything is sent */
    for (int k = 0; k < 2; k++) {
        case_run(&w, 0, "INSERT INTO ubag VALUES ('case', NULL)"); /* behind it */
        put(&w, 0, 1);                                             /* in the other shard */
    }
    bool good = !w.failed;
    for (int k = 0; k < 4; k++) {
        net_only(w.node[1].r.bus, k == 0 ? FIRST : 0);
        case_fold(&w, 1);
        good = good && (!w.failed || strstr(w.why, "is blocked") != NULL);
        w.failed = false;
    }
    case_check("a shard that is blocked does not stop another",
               good && case_shard(&w, 1)->blocked_seq == case_shard(&w, 1)->pos.seq + 1 && bagged(&w, 1) == 2 &&
                   case_answer(&w, 1, "SELECT count(*) FROM ubag WHERE a = 'case'") == 0,
               w.why);
    int64_t end[] = { net_end(w.net, FIRST), net_end(w.net, SECOND) };
    case_run(&w, 1, "INSERT INTO ubag VALUES ('waits', NULL)");
    put(&w, 1, 1);
    case_check("what is written goes to the other alone",
               net_end(w.net, FIRST) == end[0] && net_end(w.net, SECOND) == end[1] + 1, w.why);
    int64_t at = case_shard(&w, 1)->blocked_seq;
    struct world_step apply = case_step(WORLD_APPLY, 1, 1);
    put(&w, 0, 1);
    case_act(&w, WORLD_DELIVER, 1);
    good = false;
    for (long nth = 1; nth < 20 && !good && !w.failed; nth++) {
        (void)world_act_faulty(&w, &apply, FAULT_STEP, nth);
        good = w.node[1].r.reload_needed;
    }
    case_check("and a batch of the other that fails does not end it",
               good && !w.failed && case_shard(&w, 1)->blocked_seq == at, w.why);
    world_close(&w);
}

/* The first message of an epoch. */
static void begin_epoch(struct world *w, const char *cluster, int64_t epoch)
{
    struct mm_msg_place place = { .seq = 1 };
    struct mm_msg m;
    struct mm_buf b;
    struct mm_err err;
    bool zstd = false;
    memset(&m, 0, sizeof m);
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 20);
    m.kind = MM_MSG_SEEDED;
    m.epoch = epoch;
    m.node = 1;
    m.control.cluster_id = cluster;
    m.control.settings = "{}";
    m.control.place = &place;
    m.control.nplace = 1;
    if (mm_wire_encode(&b, &m, false, &zstd, &err) != SQLITE_OK) {
        case_check("a message", false, err.msg);
    }
    net_store(w->net, 1, b.data, b.len, zstd);
    mm_buf_free(&b);
}

static void epochs(void)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    begin_epoch(&w, "00000000000000000000000000000002", 2);
    put(&w, 0, 1);
    case_fold(&w, 1);
    case_check("an epoch of another cluster is ignored",
               !w.failed && w.node[1].r.met_epoch == 0 && case_shard(&w, 1)->ignored == 1 && bagged(&w, 1) == 1, w.why);
    int64_t end = net_end(w.net, 1);
    begin_epoch(&w, "00000000000000000000000000000001", 2);
    case_fold(&w, 1);
    case_check("a newer one of this cluster is met, and nothing goes past its beginning",
               !w.failed && w.node[1].r.met_epoch == 2 && case_shard(&w, 1)->pos.seq == end && stored_seq(&w, 1) == end,
               w.why);
    world_close(&w);
}

static const char value_of[] = "SELECT length(CAST(b AS BLOB)) = 40000 AND b = hex(zeroblob(20000))"
                               " FROM plain WHERE id = 1";

/* One byte of a value in the parts is another one. The message itself is well formed. */
static bool spoil(struct world *w)
{
    static const char zeros[] = "00000000000000000000000000000000";
    const struct net_message *m = net_get(w->net, 1, net_end(w->net, 1) - 2);
    char *at = memmem(m->data, m->len, zeros, sizeof zeros - 1);
    if (at != NULL) {
        at[8] = '1';
    }
    return at != NULL;
}

/* A part that is not what it was: the transaction is ignored by all, and sent once more. */
static void spoilt_part(bool again)
{
    struct world w;
    case_open(&w, 1, 2, true);
    case_rest(&w);
    case_run(&w, 0, "UPDATE plain SET b = hex(zeroblob(20000)) WHERE id = 1");
    case_publish(&w, 0);
    bool good = spoil(&w);
    case_turns(&w, 1);
    case_check("a transaction whose parts are not what they were does not count",
               good && !w.failed && case_shard(&w, 1)->ignored == 1 && case_answer(&w, 1, value_of) == 0, w.why);
    world_settle(&w);
    case_check("until it comes once more", case_answer(&w, 1, value_of) == 1, w.why);
    if (again) {
        good = world_again(&w, &w.node[1], 0);
        world_settle(&w);
        case_check("nor does it in a second reading", good && case_answer(&w, 1, value_of) == 1, w.why);
    }
    case_finish(&w, "and all nodes have it");
}

static const char held[] = "SELECT count(*) FROM __marmot__part";

/* The first parts are of a transaction that is gone: its file was set back, and what is sent under
** their number now has fewer. */
static void parts_of_another(void)
{
    struct world w;
    case_open(&w, 1, 2, true);
    case_rest(&w);
    case_act(&w, WORLD_BACKUP, 0);
    case_run(&w, 0, "UPDATE plain SET b = hex(zeroblob(30000)) WHERE id = 1");
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 8, NET_STORED) == 8;
    case_turns(&w, 1);
    good = good && case_answer(&w, 1, held) == 8;
    case_met(&w, 0, 100, NET_LOST);
    case_act(&w, WORLD_SETBACK, 0);
    case_turns(&w, 0);
    case_run(&w, 0, "UPDATE plain SET b = hex(zeroblob(10000)) WHERE id = 1");
    world_settle(&w);
    case_check("parts of a transaction that is gone are in nobody's way",
               good && !w.failed && case_answer(&w, 1, held) == 0 &&
                   case_answer(&w, 1, "SELECT length(CAST(b AS BLOB)) FROM plain WHERE id = 1") == 20000,
               w.why);
    good = world_again(&w, &w.node[1], 0);
    world_settle(&w);
    case_check("nor in a second reading",
               good && case_answer(&w, 1, "SELECT length(CAST(b AS BLOB)) FROM plain WHERE id = 1") == 20000, w.why);
    case_finish(&w, "and all end equal");
}

/* What is held says that it is as much as a transaction may have: the next part is too much. */
static void too_many_parts(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, true);
    case_rest(&w);
    case_run(&w, 0, "UPDATE plain SET b = hex(zeroblob(20000)) WHERE id = 1");
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 3, NET_STORED) == 3;
    case_turns(&w, 1);
    mm_db_exec(w.node[1].r.db, &err, "UPDATE main.__marmot__part SET total = %lld", (long long)MM_WIRE_TXN_MAX - 1);
    good = good && sqlite3_changes(w.node[1].r.db) == 3 && case_met(&w, 0, 1, NET_STORED) == 1;
    case_turns(&w, 1);
    case_check("a transaction that is too large is ignored, and nothing of it held",
               good && err.rc == SQLITE_OK && !w.failed && case_shard(&w, 1)->ignored == 1 &&
                   case_answer(&w, 1, held) == 0 && case_answer(&w, 1, "SELECT count(*) FROM __marmot__ignored") == 1,
               w.why);
    case_met(&w, 0, 100, NET_STORED);
    case_turns(&w, 1);
    case_check("nor what still comes of it",
               !w.failed && case_answer(&w, 1, held) == 0 && case_shard(&w, 1)->pos.seq == net_end(w.net, 1), w.why);
    world_close(&w);
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    gap_midway();
    gap_before_an_echo();
    gap_at_begin();
    other_content();
    same_end();
    gap_in_second_reading();
    twice_in_the_log();
    blocked_alone();
    epochs();
    spoilt_part(false);
    spoilt_part(true);
    parts_of_another();
    too_many_parts();
    return case_end();
}
