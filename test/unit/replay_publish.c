/* The publisher against a network that answers late, seldom or not at all, and a file
** that was set back or copied: what is sent, and how often. Most of it only costs, and
** all ends equal; so each case counts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "test/model/schedule.h"

static int failed;

static void check(const char *name, bool good, const char *why)
{
    printf(good ? "ok %s\n" : "not ok %s: %s\n", name, why);
    failed += !good;
}

static void open_world(struct world *w, int shards, bool small_parts)
{
    uint64_t seed = 0;
    world_open(w, seed);
    while (w->shards != shards || (w->part_size < 100000) != small_parts || w->compress) {
        world_close(w);
        world_open(w, ++seed);
    }
}

static void act(struct world *w, enum world_act a, unsigned node)
{
    /* The clock stands still, and a delivery brings 7 messages. */
    struct world_step s = { a, node, 0 };
    uint64_t state = 0;
    for (bool fits = false; !fits; s.seed += !fits) {
        state = s.seed;
        fits = world_random(&state) % 3 == 0 && world_random(&state) % 8 == 6;
    }
    world_act(w, &s);
}

static void turns(struct world *w, unsigned node)
{
    for (int k = 0; k < 4; k++) {
        act(w, WORLD_TURN, node);
    }
}

static void rest(struct world *w)
{
    for (int k = 0; k < w->nnode; k++) {
        turns(w, (unsigned)k);
    }
}

static void run_sql(struct world *w, int node, const char *sql, int n)
{
    struct mm_err err;
    mm_err_init(&err);
    if (mm_db_exec(w->node[node].app, &err, sql, n) != SQLITE_OK && !w->failed) {
        w->failed = true;
        snprintf(w->why, sizeof w->why, "%.500s", err.msg);
    }
}

static void write_row(struct world *w, int node, int id)
{
    run_sql(w, node, "REPLACE INTO plain VALUES (%d, 'case', 0)", id);
}

static void write_large(struct world *w, int node, int bytes)
{
    run_sql(w, node, "REPLACE INTO plain VALUES (1, 'large', hex(zeroblob(%d)))", bytes / 2);
}

static int met(struct world *w, int node, int most, enum net_fate fate)
{
    int n = 0;
    while (n < most && net_take(w->net, w->node[node].r.bus, 0, fate)) {
        n++;
    }
    return n;
}

static void fold(struct world *w, unsigned node)
{
    act(w, WORLD_DELIVER, node);
    act(w, WORLD_APPLY, node);
}

static struct mm_shard *shard(struct world *w, int node)
{
    return &w->node[node].r.shard[0];
}

static void finish(struct world *w, const char *name)
{
    world_settle(w);
    check(name, !w->failed, w->why);
    world_close(w);
}

/* The first of three is refused, the two others are stored behind the hole. */
static void late_acks(void)
{
    struct world w;
    open_world(&w, 1, false);
    rest(&w);
    for (int k = 0; k < 3; k++) {
        write_row(&w, 0, 100 + k);
    }
    act(&w, WORLD_PUMP, 0);
    bool good = met(&w, 0, 1, NET_REFUSED) == 1 && met(&w, 0, 9, NET_STORED) == 2;
    act(&w, WORLD_ACK, 0);
    fold(&w, 0);
    check("a refused message: all are sent once more", good && shard(&w, 0)->resent == 3, w.why);
    net_now_us += 1000000;
    act(&w, WORLD_PUMP, 0);
    good = met(&w, 0, 1, NET_ACK_LOST) == 1;
    fold(&w, 0);
    act(&w, WORLD_PUMP, 0);
    check("what was acknowledged of an attempt that was given up says nothing",
          good && mm_pending_count(shard(&w, 0)->pending) == 2 && shard(&w, 0)->resent == 3, w.why);
    finish(&w, "and all end equal after it");
}

/* An acknowledgement comes after the echo, that of the next one never. */
static void ack_after_echo(void)
{
    struct world w;
    open_world(&w, 1, false);
    rest(&w);
    write_row(&w, 0, 100);
    write_row(&w, 0, 101);
    act(&w, WORLD_PUMP, 0);
    bool good = met(&w, 0, 1, NET_STORED) == 1;
    fold(&w, 0);
    act(&w, WORLD_ACK, 0);
    act(&w, WORLD_PUMP, 0);
    check("an acknowledgement of what is echoed is nobody else's",
          good && mm_pending_count(shard(&w, 0)->pending) == 1 && shard(&w, 0)->resent == 0, w.why);
    finish(&w, "and all end equal after that");
}

static void in_parts(void)
{
    struct world w;
    char why[200];
    open_world(&w, 1, true);
    rest(&w);
    int64_t end = net_end(w.net, 1);
    write_large(&w, 0, 120000);
    act(&w, WORLD_PUMP, 0);
    int count = shard(&w, 0)->large.count;
    bool good = count > 20 && met(&w, 0, 3, NET_STORED) == 3;
    act(&w, WORLD_ACK, 0);
    fold(&w, 0);
    act(&w, WORLD_PUMP, 0);
    int sent = 3 + met(&w, 0, 1000, NET_STORED);
    snprintf(why, sizeof why, "%d of %d parts were under way", sent, count);
    check("so many parts are under way as may be", good && sent == 3 + MM_PARTS_IN_FLIGHT, why);
    turns(&w, 0);
    turns(&w, 0);
    snprintf(why, sizeof why, "%lld messages for %d parts", (long long)(net_end(w.net, 1) - end), count);
    check("each is sent once", net_end(w.net, 1) == end + count && mm_pending_count(shard(&w, 0)->pending) == 0, why);
    check("and the window is empty again", shard(&w, 0)->window_bytes == 0 && shard(&w, 0)->next == 0, w.why);
    finish(&w, "and all end equal with it");
}

/* What waits to be cut has others before it, and these go once more. */
static void back_before_parts(void)
{
    struct world w;
    open_world(&w, 1, true);
    rest(&w);
    for (int k = 0; k < MM_PARTS_IN_FLIGHT + 2; k++) {
        write_row(&w, 0, 100 + k);
    }
    write_large(&w, 0, 40000);
    act(&w, WORLD_PUMP, 0);
    bool good = shard(&w, 0)->large.count > 0 && shard(&w, 0)->large.number == 0;
    good = good && met(&w, 0, 1, NET_REFUSED) == 1;
    met(&w, 0, 1000, NET_LOST);
    act(&w, WORLD_ACK, 0);
    check("going back begins with the oldest, whole", good && shard(&w, 0)->large.count == 0, w.why);
    net_now_us += 1000000;
    finish(&w, "no transaction is sent under another's number");
}

/* The fold ignores a transaction that is stored: another node ended its parts. */
static void ignored_once(void)
{
    struct world w;
    struct mm_part_row row;
    struct mm_err err;
    mm_err_init(&err);
    open_world(&w, 1, true);
    rest(&w);
    write_large(&w, 0, 30000);
    act(&w, WORLD_PUMP, 0);
    met(&w, 0, 3, NET_STORED);
    turns(&w, 1);
    mm_db_exec(w.node[1].app, &err, "BEGIN IMMEDIATE");
    bool good = mm_part_list(w.node[1].app, &row, 1, &err) == 1;
    mm_part_ask_end(w.node[1].app, &row, &err);
    mm_db_exec(w.node[1].app, &err, "COMMIT");
    turns(&w, 1);
    met(&w, 0, 1000, NET_STORED);
    act(&w, WORLD_ACK, 0);
    fold(&w, 0);
    fold(&w, 0);
    fold(&w, 0);
    uint32_t attempt = shard(&w, 0)->attempt;
    act(&w, WORLD_PUMP, 0);
    good = good && err.rc == SQLITE_OK && shard(&w, 0)->attempt == attempt + 1;
    net_now_us += 1000000;
    act(&w, WORLD_PUMP, 0);
    act(&w, WORLD_PUMP, 0);
    check("what was ignored is sent once more, and not again before the answer",
          good && shard(&w, 0)->attempt == attempt + 1, w.why);
    finish(&w, "and counts then");
}

/* It is stored, and does not come: the log is followed anew. */
static void does_not_come(void)
{
    struct world w;
    open_world(&w, 1, false);
    rest(&w);
    write_row(&w, 0, 100);
    act(&w, WORLD_PUMP, 0);
    bool good = met(&w, 0, 1, NET_STORED) == 1;
    act(&w, WORLD_ACK, 0);
    act(&w, WORLD_PUMP, 0);
    good = good && shard(&w, 0)->following;
    net_now_us += (MM_ACK_MS + 1) * INT64_C(1000);
    act(&w, WORLD_PUMP, 0);
    check("what is stored and does not come is asked for", good && !shard(&w, 0)->following, w.why);
    finish(&w, "and comes then");
}

/* Two copies of a file: of the same node, with the same numbers, at the same attempt. */
static void two_copies(void)
{
    struct world w;
    char why[200];
    open_world(&w, 1, false);
    act(&w, WORLD_COPY, 0);
    int twin = w.nnode - 1;
    act(&w, WORLD_RESTART, 0);
    rest(&w);
    int64_t end = net_end(w.net, 1);
    write_row(&w, 0, 100);
    write_row(&w, twin, 101);
    act(&w, WORLD_PUMP, 0);
    act(&w, WORLD_PUMP, (unsigned)twin);
    bool good = w.node[twin].id == w.node[0].id && shard(&w, 0)->attempt == shard(&w, twin)->attempt;
    good = good && met(&w, 0, 9, NET_STORED) == 1 && met(&w, twin, 9, NET_STORED) == 1;
    snprintf(why, sizeof why, "%lld messages, attempts %u and %u", (long long)(net_end(w.net, 1) - end),
             shard(&w, 0)->attempt, shard(&w, twin)->attempt);
    check("what two copies send is not taken for the same", good && net_end(w.net, 1) == end + 2, why);
    finish(&w, "and all copies end equal");
}

/* A copy made while something was pending: that keeps its numbers, and what is written
** there has others, which follow on from nothing that it has. */
static void two_incarnations(void)
{
    struct world w;
    open_world(&w, 1, false);
    rest(&w);
    write_row(&w, 0, 100);
    act(&w, WORLD_COPY, 0);
    int twin = w.nnode - 1;
    write_row(&w, twin, 101);
    for (int k = 0; k < 3; k++) {
        fold(&w, (unsigned)twin);
    }
    act(&w, WORLD_PUMP, (unsigned)twin);
    check("what was inherited is sent first, and nothing of another incarnation beside it",
          twin != 0 && mm_pending_count(shard(&w, twin)->pending) == 2 && met(&w, twin, 9, NET_LOST) == 1, w.why);
    finish(&w, "and all of them end equal");
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
    open_world(&w, 1, false);
    rest(&w);
    write_row(&w, 0, 100);
    act(&w, WORLD_PUMP, 0);
    bool good = met(&w, 0, 1, NET_STORED) == 1;
    const struct net_message *sent = net_get(w.net, 1, net_end(w.net, 1));
    mm_wire_decode(&m, sent->data, sent->len, sent->zstd, &a, &err);
    m.epoch = 2;
    mm_wire_encode(&b, &m, false, &zstd, &err);
    good = good && err.rc == SQLITE_OK && b.len == sent->len;
    if (good) {
        memcpy(sent->data, b.data, b.len);
    }
    fold(&w, 0);
    check("an own message of another epoch is not the echo",
          good && mm_pending_count(shard(&w, 0)->pending) == 1 && shard(&w, 0)->ignored == 1, w.why);
    mm_buf_free(&b);
    mm_arena_free(&a);
    finish(&w, "which comes later");
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    late_acks();
    ack_after_echo();
    in_parts();
    back_before_parts();
    ignored_once();
    does_not_come();
    two_copies();
    two_incarnations();
    other_epoch();
    return failed > 0;
}
