/* The publisher against a network that answers late, seldom or not at all, and a file
** that was set back or copied: what is sent, and how often. Most of it only costs, and
** all ends equal; so each case counts. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "store/watch.h"
#include "test/model/cases.h"

static void write_row(struct world *w, int node, int id)
{
    case_run(w, node, "REPLACE INTO plain VALUES (%d, 'case', 0)", id);
}

static void write_large(struct world *w, int node, int bytes)
{
    case_run(w, node, "REPLACE INTO plain VALUES (1, 'large', hex(zeroblob(%d)))", bytes / 2);
}

/* The first of three is refused, the two others are stored behind the hole. */
static void late_acks(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    case_rest(&w);
    for (int k = 0; k < 3; k++) {
        write_row(&w, 0, 100 + k);
    }
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 1, NET_REFUSED) == 1 && case_met(&w, 0, 9, NET_STORED) == 2;
    case_act(&w, WORLD_ACK, 0);
    case_fold(&w, 0);
    case_check("a refused message: all are sent once more", good && case_shard(&w, 0)->resent == 3, w.why);
    case_check("of which none is under way", case_shard(&w, 0)->window_bytes == 0 && case_shard(&w, 0)->flight == 0,
               w.why);
    net_now_us += 1000000;
    case_act(&w, WORLD_PUMP, 0);
    good = case_met(&w, 0, 1, NET_ACK_LOST) == 1;
    case_fold(&w, 0);
    case_act(&w, WORLD_PUMP, 0);
    case_check("what was acknowledged of an attempt that was given up says nothing",
               good && case_pending(&w, 0) == 2 && case_shard(&w, 0)->resent == 3, w.why);
    case_finish(&w, "and all end equal after it");
}

/* An acknowledgement comes after the echo, that of the next one never. */
static void ack_after_echo(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    case_rest(&w);
    write_row(&w, 0, 100);
    write_row(&w, 0, 101);
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 1, NET_STORED) == 1;
    case_fold(&w, 0);
    case_act(&w, WORLD_ACK, 0);
    case_act(&w, WORLD_PUMP, 0);
    case_check("an acknowledgement of what is echoed is nobody else's",
               good && case_pending(&w, 0) == 1 && case_shard(&w, 0)->resent == 0, w.why);
    case_finish(&w, "and all end equal after that");
}

static void in_parts(void)
{
    struct world w;
    char why[200];
    case_open(&w, 1, 0, true);
    case_rest(&w);
    int64_t end = net_end(w.net, 1);
    write_large(&w, 0, 120000);
    case_act(&w, WORLD_PUMP, 0);
    int count = case_shard(&w, 0)->large.count;
    bool good = count > 20 && case_met(&w, 0, 3, NET_STORED) == 3;
    case_act(&w, WORLD_ACK, 0);
    case_fold(&w, 0);
    case_act(&w, WORLD_PUMP, 0);
    int sent = 3 + case_met(&w, 0, 1000, NET_STORED);
    snprintf(why, sizeof why, "%d of %d parts were under way", sent, count);
    case_check("so many parts are under way as may be", good && sent == 3 + MM_PARTS_IN_FLIGHT, why);
    case_turns(&w, 0);
    case_turns(&w, 0);
    snprintf(why, sizeof why, "%lld messages for %d parts", (long long)(net_end(w.net, 1) - end), count);
    case_check("each is sent once", net_end(w.net, 1) == end + count && case_pending(&w, 0) == 0, why);
    case_check("and the window is empty again", case_shard(&w, 0)->window_bytes == 0 && case_shard(&w, 0)->next == 0,
               w.why);
    case_finish(&w, "and all end equal with it");
}

/* Some parts count, those behind them are refused: a full log, a link that breaks. */
static void back_among_parts(void)
{
    struct world w;
    char why[200];
    case_open(&w, 1, 0, true);
    case_rest(&w);
    int64_t end = net_end(w.net, 1);
    write_large(&w, 0, 120000);
    case_act(&w, WORLD_PUMP, 0);
    int count = case_shard(&w, 0)->large.count;
    bool good = count > 20 && case_met(&w, 0, 4, NET_STORED) == 4 && case_met(&w, 0, 1, NET_REFUSED) == 1;
    case_met(&w, 0, INT_MAX, NET_LOST);
    case_act(&w, WORLD_ACK, 0);
    case_fold(&w, 0);
    net_now_us += 1000000;
    case_act(&w, WORLD_PUMP, 0);
    good = good && case_shard(&w, 0)->large.number == 4 + MM_PARTS_IN_FLIGHT;
    for (int k = 0; k < 4; k++) {
        case_turns(&w, 0);
    }
    snprintf(why, sizeof why, "%lld messages for %d parts", (long long)(net_end(w.net, 1) - end), count);
    case_check("what counts of a large transaction is not sent again",
               good && net_end(w.net, 1) == end + count && case_pending(&w, 0) == 0, why);
    case_finish(&w, "and all end equal with what was sent twice nowhere");
}

/* What waits to be cut has others before it, and these go once more. */
static void back_before_parts(void)
{
    struct world w;
    case_open(&w, 1, 0, true);
    case_rest(&w);
    for (int k = 0; k < MM_PARTS_IN_FLIGHT + 2; k++) {
        write_row(&w, 0, 100 + k);
    }
    write_large(&w, 0, 40000);
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_shard(&w, 0)->large.count > 0 && case_shard(&w, 0)->large.number == 0;
    good = good && case_met(&w, 0, 1, NET_REFUSED) == 1;
    case_met(&w, 0, 1000, NET_LOST);
    case_act(&w, WORLD_ACK, 0);
    case_check("going back begins with the oldest, whole", good && case_shard(&w, 0)->large.count == 0, w.why);
    net_now_us += 1000000;
    case_finish(&w, "no transaction is sent under another's number");
}

/* Long after the last one the next is sent, and waited for as long as any. */
static void after_a_pause(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    case_rest(&w);
    net_now_us += 10 * MM_ACK_MS * INT64_C(1000);
    write_row(&w, 0, 100);
    case_act(&w, WORLD_PUMP, 0);
    net_now_us += 1000000;
    case_act(&w, WORLD_PUMP, 0);
    case_check("after a pause nothing is sent twice",
               case_met(&w, 0, INT_MAX, NET_STORED) == 1 && case_shard(&w, 0)->resent == 0, w.why);
    case_finish(&w, "and it comes");
}

/* A watch message whose table is still to be read from the log holds back what is behind it. */
static void watch_waits(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 0, false);
    case_rest(&w);
    sqlite3 *db = w.node[0].r.db;
    mm_db_exec(db, &err, "BEGIN IMMEDIATE");
    mm_watch_set(db, "bag", MM_JOINING, NULL, &err);
    mm_watch_set_joined_seq(db, "bag", MM_SEQ_NEVER, &err);
    mm_watchlist_add(db, "bag", 1, 1, &err);
    mm_outbox_put_control(db, "Wbag", 4, &err);
    mm_db_exec(db, &err, "COMMIT");
    mm_targets_forget(w.node[0].r.targets);
    write_row(&w, 0, 100);
    case_act(&w, WORLD_PUMP, 0);
    case_check("a watch message waits for its table, and all behind it",
               err.rc == SQLITE_OK && case_pending(&w, 0) == 2 && case_met(&w, 0, INT_MAX, NET_STORED) == 0 &&
                   mm_publisher_timeout(case_shard(&w, 0)) > 0,
               err.msg);
    mm_watch_set_joined_seq(db, "bag", 1, &err);
    mm_watch_set(db, "bag", MM_WATCHED, NULL, &err);
    mm_targets_forget(w.node[0].r.targets);
    net_now_us += 200000;
    case_act(&w, WORLD_PUMP, 0);
    case_check("and is sent then", case_met(&w, 0, INT_MAX, NET_STORED) == 2, w.why);
    world_close(&w);
}

/* All of its parts were stored, no acknowledgement came, and while it is cut once more the
** echo comes: what was left to send of it is nobody else's. */
static void echo_while_cut(void)
{
    struct world w;
    case_open(&w, 1, 0, true);
    case_rest(&w);
    write_large(&w, 0, 120000);
    write_row(&w, 0, 100);
    case_act(&w, WORLD_PUMP, 0);
    int left = case_shard(&w, 0)->large.count - case_met(&w, 0, INT_MAX, NET_STORED);
    case_act(&w, WORLD_ACK, 0);
    case_act(&w, WORLD_PUMP, 0);
    bool good = left > 0 && case_met(&w, 0, left, NET_ACK_LOST) == left && case_met(&w, 0, INT_MAX, NET_LOST) == 1;
    net_now_us += (MM_ACK_MS + 1) * INT64_C(1000);
    case_act(&w, WORLD_PUMP, 0);
    net_now_us += 1000000;
    case_act(&w, WORLD_PUMP, 0);
    good = good && case_shard(&w, 0)->large.count > 0 && case_shard(&w, 0)->next == 0 && case_pending(&w, 0) == 2;
    for (int k = 0; k < 8 && case_pending(&w, 0) == 2; k++) {
        case_fold(&w, 0);
    }
    case_check("the echo of a large transaction ends its being sent again",
               good && case_pending(&w, 0) == 1 && case_shard(&w, 0)->large.count == 0, w.why);
    case_met(&w, 0, INT_MAX, NET_LOST);
    case_turns(&w, 0);
    case_check("what waits behind it comes as what it is",
               case_answer(&w, 0, "SELECT count(*) FROM plain WHERE id = 100 AND a = 'case'") == 1, w.why);
    case_finish(&w, "and with all nodes equal");
}

/* The fold ignores a transaction that is stored: another node ended its parts. */
static void ignored_once(void)
{
    struct world w;
    struct mm_part_row row;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 0, true);
    case_rest(&w);
    write_large(&w, 0, 30000);
    case_act(&w, WORLD_PUMP, 0);
    case_met(&w, 0, 3, NET_STORED);
    case_turns(&w, 1);
    mm_db_exec(w.node[1].app, &err, "BEGIN IMMEDIATE");
    bool good = mm_part_list(w.node[1].app, &row, 1, &err) == 1;
    mm_part_ask_end(w.node[1].app, &row, &err);
    mm_db_exec(w.node[1].app, &err, "COMMIT");
    case_turns(&w, 1);
    case_met(&w, 0, 1000, NET_STORED);
    case_act(&w, WORLD_ACK, 0);
    case_fold(&w, 0);
    case_fold(&w, 0);
    case_fold(&w, 0);
    uint32_t attempt = case_shard(&w, 0)->attempt;
    case_act(&w, WORLD_PUMP, 0);
    good = good && err.rc == SQLITE_OK && case_shard(&w, 0)->attempt == attempt + 1;
    net_now_us += 1000000;
    case_act(&w, WORLD_PUMP, 0);
    case_act(&w, WORLD_PUMP, 0);
    case_check("what was ignored is sent once more, and not again before the answer",
               good && case_shard(&w, 0)->attempt == attempt + 1, w.why);
    case_finish(&w, "and counts then");
}

/* It is stored, and does not come: the log is followed anew. */
static void does_not_come(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    case_rest(&w);
    write_row(&w, 0, 100);
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 1, NET_STORED) == 1;
    case_act(&w, WORLD_ACK, 0);
    case_act(&w, WORLD_PUMP, 0);
    good = good && case_shard(&w, 0)->following;
    net_now_us += (MM_ACK_MS + 1) * INT64_C(1000);
    case_act(&w, WORLD_PUMP, 0);
    case_check("what is stored and does not come is asked for", good && !case_shard(&w, 0)->following, w.why);
    case_finish(&w, "and comes then");
}

/* Two copies of a file: of the same node, with the same numbers, at the same attempt. */
static void two_copies(void)
{
    struct world w;
    char why[200];
    case_open(&w, 1, 0, false);
    case_act(&w, WORLD_COPY, 0);
    int twin = w.nnode - 1;
    case_act(&w, WORLD_RESTART, 0);
    case_rest(&w);
    int64_t end = net_end(w.net, 1);
    write_row(&w, 0, 100);
    write_row(&w, twin, 101);
    case_act(&w, WORLD_PUMP, 0);
    case_act(&w, WORLD_PUMP, (unsigned)twin);
    bool good = w.node[twin].id == w.node[0].id && case_shard(&w, 0)->attempt == case_shard(&w, twin)->attempt;
    good = good && case_met(&w, 0, 9, NET_STORED) == 1 && case_met(&w, twin, 9, NET_STORED) == 1;
    snprintf(why, sizeof why, "%lld messages, attempts %u and %u", (long long)(net_end(w.net, 1) - end),
             case_shard(&w, 0)->attempt, case_shard(&w, twin)->attempt);
    case_check("what two copies send is not taken for the same", good && net_end(w.net, 1) == end + 2, why);
    case_finish(&w, "and all copies end equal");
}

/* A copy made while something was pending: that keeps its numbers, and what is written
** there has others, which follow on from nothing that it has. */
static void two_incarnations(void)
{
    struct world w;
    case_open(&w, 1, 0, false);
    case_rest(&w);
    write_row(&w, 0, 100);
    case_act(&w, WORLD_COPY, 0);
    int twin = w.nnode - 1;
    write_row(&w, twin, 101);
    for (int k = 0; k < 3; k++) {
        case_fold(&w, (unsigned)twin);
    }
    case_act(&w, WORLD_PUMP, (unsigned)twin);
    case_check("what was inherited is sent first, and nothing of another incarnation beside it",
               twin != 0 && case_pending(&w, twin) == 2 && case_met(&w, twin, 9, NET_LOST) == 1, w.why);
    case_finish(&w, "and all of them end equal");
}

/* An own message, of the transaction that waits for it, and of another epoch: no echo. */
static void other_epoch(void)
{
    struct world w;
    struct mm_err err;
    struct mm_arena a;
    struct mm_msg m;
    struct mm_buf b;
    bool zstd = false;
    mm_err_init(&err);
    mm_arena_init(&a, 1 << 20);
    mm_buf_init(&b, 1 << 20);
    case_open(&w, 1, 0, false);
    case_rest(&w);
    write_row(&w, 0, 100);
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 1, NET_STORED) == 1;
    const struct net_message *sent = net_get(w.net, 1, net_end(w.net, 1));
    mm_wire_decode(&m, sent->data, sent->len, sent->zstd, &a, &err);
    m.epoch = 2;
    mm_wire_encode(&b, &m, false, &zstd, &err);
    good = good && err.rc == SQLITE_OK && b.len == sent->len;
    if (good) {
        memcpy(sent->data, b.data, b.len);
    }
    case_fold(&w, 0);
    case_check("an own message of another epoch is not the echo",
               good && case_pending(&w, 0) == 1 && case_shard(&w, 0)->ignored == 1, w.why);
    mm_buf_free(&b);
    mm_arena_free(&a);
    case_finish(&w, "which comes later");
}

/* Which ids of the outbox a message covers, without a hole, and when it was written. */
static void what_it_says(void)
{
    struct world w;
    int64_t last = 0;
    bool good = true;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    for (int k = 0; k < 3; k++) {
        write_row(&w, 0, 100 + k);
    }
    int64_t end = net_end(w.net, 1);
    case_publish(&w, 0);
    case_rest(&w);
    write_row(&w, 0, 110);
    case_publish(&w, 0);
    for (int64_t seq = end + 1; seq <= net_end(w.net, 1); seq++) {
        const struct net_message *sent = net_get(w.net, 1, seq);
        struct mm_arena a;
        struct mm_msg m;
        struct mm_err err;
        mm_err_init(&err);
        mm_arena_init(&a, 1 << 20);
        mm_wire_decode(&m, sent->data, sent->len, sent->zstd, &a, &err);
        good = good && err.rc == SQLITE_OK && m.outbox_first == last + 1 && m.outbox_last == last + 1 && m.at_ms > 0;
        last = m.outbox_last;
        mm_arena_free(&a);
    }
    case_check("a message says which rows of the outbox it covers, and of when it is",
               good && net_end(w.net, 1) == end + 4 && last == 4, w.why);
    case_finish(&w, "and all end equal that read it");
}

/* What is acknowledged and has not come back counts as under way. */
static void so_many(void)
{
    struct world w;
    char why[100];
    case_open(&w, 1, 2, false);
    case_rest(&w);
    for (int k = 0; k < MM_WINDOW + 10; k++) {
        write_row(&w, 0, 100 + k);
    }
    case_act(&w, WORLD_PUMP, 0);
    int first = case_met(&w, 0, INT_MAX, NET_STORED);
    case_act(&w, WORLD_ACK, 0);
    case_act(&w, WORLD_PUMP, 0);
    int more = case_met(&w, 0, INT_MAX, NET_STORED);
    snprintf(why, sizeof why, "%d, then %d", first, more);
    case_check("so many are under way as may be", first == MM_WINDOW && more == 0, why);
    case_finish(&w, "and all end equal with all of them");
}

/* Some parts count; then a table is left out here, and the rest would be of another body. */
static void another_body(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    case_open(&w, 1, 2, true);
    case_rest(&w);
    case_run(&w, 0, "BEGIN; INSERT INTO bag VALUES ('own', 1)");
    write_large(&w, 0, 120000);
    case_run(&w, 0, "COMMIT");
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_shard(&w, 0)->large.count > 20 && case_met(&w, 0, 4, NET_STORED) == 4;
    case_met(&w, 0, INT_MAX, NET_LOST);
    case_act(&w, WORLD_ACK, 0);
    case_fold(&w, 0);
    mm_watch_set(w.node[0].r.db, "bag", MM_STALE, "it is left out", &err);
    mm_watch_set_joined_seq(w.node[0].r.db, "bag", MM_SEQ_NEVER, &err);
    case_act(&w, WORLD_RESTART, 0);
    for (int k = 0; k < 6; k++) {
        net_now_us += 6000000;
        case_rest(&w);
    }
    case_check("parts of another body begin with the first",
               good && err.rc == SQLITE_OK && !w.failed && case_pending(&w, 0) == 0 &&
                   case_answer(&w, 1, "SELECT length(b) FROM plain WHERE id = 1") == 120000 &&
                   case_answer(&w, 1, "SELECT count(*) FROM bag WHERE a = 'own'") == 0,
               w.why);
    world_close(&w);
}

/* What the server has said last counts: a log that was full, or that refused, may not be told of as such
** once it stores again; and acknowledgements that never came are not waited for when nothing else is. */
static void what_was_said_last(enum net_fate fate)
{
    struct world w;
    case_open(&w, 1, 2, false);
    case_rest(&w);
    const struct mm_shard *s = case_shard(&w, 0);
    write_row(&w, 0, 50);
    case_act(&w, WORLD_PUMP, 0);
    bool good = case_met(&w, 0, 1, fate) == 1;
    case_act(&w, WORLD_ACK, 0);
    case_check("a log that stores nothing is told of",
               good && s->full == (fate == NET_FULL) && s->refusal[0] != '\0' && s->flight == 0, w.why);
    net_now_us += 1000000;
    write_row(&w, 0, 51);
    case_act(&w, WORLD_PUMP, 0);
    good = case_met(&w, 0, 1, NET_STORED) == 1 && case_met(&w, 0, 1, NET_ACK_LOST) == 1;
    case_act(&w, WORLD_ACK, 0);
    case_check("and not any more when it stores", good && !s->full && s->refusal[0] == '\0' && s->flight == 1, w.why);
    case_turns(&w, 0);
    case_check("what was not acknowledged and has come back is not under way",
               case_pending(&w, 0) == 0 && s->flight == 0, w.why);
    case_finish(&w, "and all end equal after it");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    late_acks();
    ack_after_echo();
    in_parts();
    back_among_parts();
    back_before_parts();
    after_a_pause();
    watch_waits();
    echo_while_cut();
    ignored_once();
    does_not_come();
    two_copies();
    two_incarnations();
    other_epoch();
    what_it_says();
    so_many();
    another_body();
    what_was_said_last(NET_FULL);
    what_was_said_last(NET_REFUSED);
    return case_end();
}
