/* Content that is taken from a snapshot and the log, at once: what a node would have met
** message by message it must find out from the state that it takes. */
#include <stdio.h>
#include <string.h>

#include "base/db.h"
#include "base/log.h"
#include "store/meta.h"
#include "store/outbox.h"
#include "store/watch.h"
#include "test/model/schedule.h"

static int failed;

static void check(const char *name, bool good, const char *why)
{
    printf(good ? "ok %s\n" : "not ok %s: %s\n", name, why);
    failed += !good;
}

static void act(struct world *w, enum world_act a, unsigned node)
{
    struct world_step s = { a, node, 3 }; /* the clock stands still */
    world_act(w, &s);
}

static void turns(struct world *w, unsigned node)
{
    for (int k = 0; k < 4; k++) {
        act(w, WORLD_TURN, node);
    }
}

static void open_world(struct world *w, int shards)
{
    uint64_t seed = 0;
    world_open(w, seed);
    while (w->shards != shards || w->part_size < 100000 || w->compress || w->kind != 0) {
        world_close(w);
        world_open(w, ++seed);
    }
    for (int k = 0; k < w->nnode; k++) {
        turns(w, (unsigned)k);
    }
}

static void run(struct world *w, int node, const char *sql)
{
    struct mm_err err;
    mm_err_init(&err);
    if (mm_db_exec(w->node[node].app, &err, "%s", sql) != SQLITE_OK && !w->failed) {
        w->failed = true;
        snprintf(w->why, sizeof w->why, "%.500s", err.msg);
    }
}

static int64_t count(struct world *w, int node, const char *what)
{
    struct mm_err err;
    mm_err_init(&err);
    return mm_db_int(w->node[node].app, &err, -1, "SELECT count(*) FROM main.bag WHERE a = %Q", what);
}

static void compared(struct world *w, int node)
{
    for (int k = 0; k < 3 && w->node[node].bring.stage != BRING_READY && !w->failed; k++) {
        act(w, WORLD_BRING, (unsigned)node);
    }
}

/* All of it, from a snapshot that node 1 takes now. */
static bool brought(struct world *w, int node)
{
    long before = w->brought;
    turns(w, 1);
    act(w, WORLD_SNAPSHOT, 1);
    compared(w, node);
    act(w, WORLD_BRING, (unsigned)node);
    return !w->failed && w->brought == before + 1;
}

static void finish(struct world *w, const char *name)
{
    world_settle(w);
    check(name, !w->failed, w->why);
    world_close(w);
}

/* The log has given the numbers of what waits here, or of what is written next, to others. */
static void set_back(int shards, int waits)
{
    struct world w;
    char name[200];
    open_world(&w, shards);
    run(&w, 0, "INSERT INTO bag VALUES ('kept', 1)");
    turns(&w, 0);
    act(&w, WORLD_BACKUP, 0);
    for (int k = 0; k < 5; k++) {
        run(&w, 0, "INSERT INTO bag VALUES ('sent', 1)");
    }
    turns(&w, 0);
    act(&w, WORLD_SETBACK, 0);
    for (int k = 0; k < waits; k++) {
        run(&w, 0, "INSERT INTO bag VALUES ('waits', 1)");
    }
    bool good = brought(&w, 0);
    run(&w, 0, "INSERT INTO bag VALUES ('later', 1)");
    world_settle(&w);
    snprintf(name, sizeof name,
             "a file that was set back takes the content: what waited (%d) and comes counts, %d shards", waits, shards);
    check(name,
          good && !w.failed && count(&w, 1, "waits") == waits && count(&w, 1, "later") == 1 &&
              count(&w, 0, "sent") == 5 && count(&w, 0, "kept") == 1,
          w.why);
    finish(&w, "and all end equal");
}

/* What had been sent, and waits in the file once more, was accepted under its own number. */
static void sent_and_set_back(int waits)
{
    struct world w;
    open_world(&w, 1);
    run(&w, 0, "INSERT INTO bag VALUES ('twice', 1)");
    act(&w, WORLD_BACKUP, 0);
    run(&w, 0, "INSERT INTO bag VALUES ('sent', 1)");
    turns(&w, 0);
    act(&w, WORLD_SETBACK, 0);
    for (int k = 0; k < waits; k++) {
        run(&w, 0, "INSERT INTO bag VALUES ('waits', 1)");
    }
    bool good = brought(&w, 0);
    world_settle(&w);
    check("what waits once more is in the log already, and counts once",
          good && !w.failed && count(&w, 1, "twice") == 1 && count(&w, 1, "waits") == waits, w.why);
    finish(&w, "and all end equal");
}

/* Its echoes are in what is taken: nothing has moved here. */
static void on_its_way(int shards, int arrive)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    open_world(&w, shards);
    int64_t was = mm_head_incarnation(w.node[0].app, &err);
    for (int k = 0; k < 4; k++) {
        run(&w, 0, "INSERT INTO bag VALUES ('sent', 1)");
    }
    act(&w, WORLD_PUMP, 0);
    for (int k = 0; k < arrive; k++) {
        (void)net_take(w.net, w.node[0].r.bus, 0, NET_STORED);
    }
    bool good = brought(&w, 0);
    size_t waits = mm_pending_count(w.node[0].r.shard[mm_watch_shard("bag", shards) - 1].pending);
    check("what has arrived meanwhile waits no more, and nothing has moved",
          good && waits == (size_t)(4 - arrive) && w.node[0].r.move_due == 0 &&
              mm_head_incarnation(w.node[0].app, &err) == was,
          w.why);
    struct mm_outbox *stored = w.node[0].r.outbox;
    int64_t written = mm_outbox_last(stored, &err) - mm_outbox_echoed_upto(stored, &err);
    check("nor does the outbox say that it does", good && written == 4 - arrive, w.why);
    finish(&w, "and all end equal");
}

/* A copy of the file has moved what waits in both to other numbers, and has sent it. */
static void moved_by_a_copy(int shards, int sent)
{
    struct world w;
    open_world(&w, shards);
    act(&w, WORLD_BACKUP, 0);
    run(&w, 0, "INSERT INTO bag VALUES ('sent', 1)");
    turns(&w, 0);
    act(&w, WORLD_SETBACK, 0);
    run(&w, 0, "INSERT INTO bag VALUES ('waits', 1)");
    run(&w, 0, "INSERT INTO bag VALUES ('behind it', 1)");
    int copy = w.nnode;
    act(&w, WORLD_COPY, 0);
    for (int k = 0; k < 6; k++) { /* it folds, moves and sends */
        act(&w, WORLD_DELIVER, 0);
        act(&w, WORLD_APPLY, 0);
        act(&w, WORLD_FLUSH, 0);
    }
    act(&w, WORLD_PUMP, 0);
    for (int k = 0; k < sent; k++) {
        (void)net_take(w.net, w.node[0].r.bus, 0, NET_STORED);
    }
    bool good = net_end(w.net, mm_watch_shard("bag", shards)) > sent && brought(&w, copy);
    run(&w, copy, "INSERT INTO bag VALUES ('of the copy', 1)");
    world_settle(&w);
    check("what a copy of the file has sent counts once, though its echo is not met",
          good && !w.failed && count(&w, copy, "waits") == 1 && count(&w, 1, "waits") == 1 &&
              count(&w, 1, "behind it") == 1 && count(&w, 1, "of the copy") == 1,
          w.why);
    finish(&w, "and all end equal");
}

/* The server comes back without what was folded: the outbox still has it. */
static void lost_end(int shards)
{
    struct world w;
    open_world(&w, shards);
    int shard = mm_watch_shard("bag", shards);
    run(&w, 0, "INSERT INTO bag VALUES ('kept', 1)");
    turns(&w, 0);
    turns(&w, 1);
    act(&w, WORLD_SNAPSHOT, 1);
    int64_t kept = net_end(w.net, shard);
    for (int k = 0; k < 3; k++) {
        run(&w, 0, "INSERT INTO bag VALUES ('lost', 1)");
        run(&w, 1, "INSERT INTO bag VALUES ('lost', 2)");
        turns(&w, 0);
        turns(&w, 1);
    }
    turns(&w, 0);
    int64_t end = net_end(w.net, shard);
    struct world_step lose = { WORLD_LOSE, 0, 0 };
    while (net_end(w.net, shard) == end && lose.seed < 100) {
        world_act(&w, &lose);
        lose.seed++;
    }
    bool good = net_end(w.net, shard) < end && net_end(w.net, shard) >= kept && w.node[0].bring.held;
    run(&w, 0, "INSERT INTO bag VALUES ('behind it', 1)");
    world_settle(&w);
    check("what the server has lost of its end is sent again, and counts once",
          good && !w.failed && net_end(w.net, shard) > end && count(&w, 1, "lost") == 6 && count(&w, 0, "lost") == 6 &&
              count(&w, 1, "behind it") == 1 && count(&w, 1, "kept") == 1,
          w.why);
    finish(&w, "and all end equal");
}

/* It was kept long enough, and is still there, since what came later stands beside it. */
static void lost_and_kept_longer(void)
{
    struct world w;
    open_world(&w, 1);
    turns(&w, 1);
    act(&w, WORLD_SNAPSHOT, 1);
    run(&w, 0, "INSERT INTO bag VALUES ('lost', 1)");
    turns(&w, 0);
    net_now_us += 60 * INT64_C(1000000);
    run(&w, 0, "INSERT INTO bag VALUES ('behind it', 1)");
    act(&w, WORLD_FLUSH, 0); /* would take it out of the outbox */
    int64_t end = net_end(w.net, 1);
    act(&w, WORLD_LOSE, 0);
    bool good = net_end(w.net, 1) < end && w.node[0].bring.held;
    world_settle(&w);
    check("what the outbox holds longer than it must is sent again, too",
          good && !w.failed && count(&w, 1, "lost") == 1 && count(&w, 1, "behind it") == 1, w.why);
    finish(&w, "and all end equal");
}

/* It is watched between the comparison and the writing: what was written to it then is unknown. */
static void watched_meanwhile(void)
{
    struct world w;
    struct mm_err err;
    mm_err_init(&err);
    open_world(&w, 1);
    act(&w, WORLD_SNAPSHOT, 1);
    mm_watch_set(w.node[0].r.db, "bag", MM_UNWATCHED, NULL, &err);
    act(&w, WORLD_RESTART, 0);
    compared(&w, 0);
    run(&w, 0, "INSERT INTO bag VALUES ('not captured', 1)");
    mm_db_exec(w.node[0].app, &err, "BEGIN IMMEDIATE");
    mm_watch_add(w.node[0].app, "bag", &err);
    mm_db_exec(w.node[0].app, &err, "COMMIT");
    bool ready = !w.failed && err.rc == SQLITE_OK && w.node[0].bring.stage == BRING_READY;
    act(&w, WORLD_BRING, 0);
    check("a table that is watched while a copy is compared is not said to have its content",
          ready && !w.failed && w.brought == 1 && mm_watch_get(w.node[0].r.db, "bag", NULL, &err) == MM_JOINING, w.why);
    world_close(&w);
}

int main(void)
{
    mm_log_silence();
    world_prepare();
    for (int shards = 1; shards <= 2; shards++) {
        set_back(shards, 0);
        set_back(shards, 1);
        set_back(shards, 7);
        on_its_way(shards, 3);
        on_its_way(shards, 4);
        lost_end(shards);
        moved_by_a_copy(shards, 1);
        moved_by_a_copy(shards, 2);
    }
    sent_and_set_back(0);
    sent_and_set_back(2);
    lost_and_kept_longer();
    watched_meanwhile();
    return failed > 0;
}
