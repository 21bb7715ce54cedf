/* Following streams: order, gaps, recreation, bounded memory. marmot-test: parallel */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "test/lib/bus.h"

enum { MANY = 100000 };

static struct nats_server server;

/* Takes `count` messages that must be from, from+1, ..; the number right. */
static int take(struct mm_bus *b, int64_t from, int count, struct mm_err *err)
{
    struct mm_delivery d;
    int i = 0;
    for (; i < count; i++) {
        if (!bus_next(b, &d, bus_slow(BUS_MS), err) || d.kind != MM_DELIVERY_MESSAGE || d.seq != from + i) {
            break;
        }
        mm_bus_release(&d);
    }
    return i;
}

static void content(struct mm_bus *b)
{
    struct mm_err err;
    struct mm_delivery d;
    mm_err_init(&err);
    nats_check("a stream", bus_stream(b, "c", "c", -1, &err), "%s", err.msg);
    struct mm_publish p = {
        .subject = "c", .msg_id = "1", .encoding = "zstd", .expect_last = -1, .data = "a\0b", .len = 3
    };
    bool good = mm_bus_publish(b, &p, &err) == 0 && bus_put(b, "c", "", 0, 2, &err) == 0 &&
                bus_put(b, "c", "third", 5, 3, &err) == 0;
    nats_check("it is followed", good && mm_bus_follow(b, "c", 7, 1, BUS_MS, &err) == 0, "%s", err.msg);
    int64_t now = mm_clock_wall_ms();
    good = bus_next(b, &d, BUS_MS, &err);
    nats_check("the first message comes whole",
               good && d.kind == MM_DELIVERY_MESSAGE && d.shard == 7 && d.seq == 1 && d.len == 3 &&
                   memcmp(d.data, "a\0b", 3) == 0,
               "%s seq %lld len %zu", err.msg, (long long)d.seq, d.len);
    nats_check("with encoding and time",
               good && d.zstd && d.time_ns / 1000000 > now - 60000 && d.time_ns / 1000000 < now + 60000,
               "zstd %d time %lld", d.zstd, (long long)d.time_ns);
    struct mm_stored m;
    int64_t stamp = d.time_ns;
    mm_bus_release(&d);
    nats_check("the same stamp when it is asked for",
               mm_bus_stream_get(b, "c", 1, &m, BUS_MS, &err) == 1 && m.time_ns == stamp, "%s %lld, delivered %lld",
               err.msg, (long long)m.time_ns, (long long)stamp);
    free(m.data);
    good = bus_next(b, &d, BUS_MS, &err);
    nats_check("an empty message is a message",
               good && d.kind == MM_DELIVERY_MESSAGE && d.seq == 2 && d.len == 0 && !d.zstd, "%s kind %d", err.msg,
               (int)d.kind);
    mm_bus_release(&d);
    good = bus_next(b, &d, BUS_MS, &err);
    nats_check("the last has nothing behind it", good && d.seq == 3 && d.pending == 0, "%s pending %lld", err.msg,
               (long long)d.pending);
    mm_bus_release(&d);
    nats_check("from its middle", mm_bus_follow(b, "c", 7, 3, BUS_MS, &err) == 0 && take(b, 3, 1, &err) == 1, "%s",
               err.msg);
    nats_check("a missing stream cannot be followed", mm_bus_follow(b, "none", 8, 1, BUS_MS, &err) == SQLITE_ERROR,
               "rc %d", err.rc);
    mm_err_init(&err);
    good = mm_bus_wait(b, 50, &err) == 0 && mm_bus_next(b, &d) == 0;
    nats_check("then nothing comes", good && err.rc == 0, "%s", err.msg);
    /* Beyond the end: the server starts at the next message, the owner sees its number. */
    good = mm_bus_follow(b, "c", 7, 1000, BUS_MS, &err) == 0 && bus_put(b, "c", "x", 1, 4, &err) == 0 &&
           bus_next(b, &d, BUS_MS, &err);
    nats_check("a start beyond the end shows in the number", good && d.seq == 4, "%s", err.msg);
    mm_bus_release(&d);
}

static void many(struct mm_bus *b)
{
    struct mm_err err;
    mm_err_init(&err);
    nats_check("a long stream", bus_stream(b, "m", "m", -1, &err) && bus_fill(b, "m", 1, MANY, 128, &err), "%s",
               err.msg);
    int64_t from = mm_clock_mono_ms();
    bool good = mm_bus_follow(b, "m", 1, 1, BUS_MS, &err) == 0;
    int got = good ? take(b, 1, MANY, &err) : 0;
    nats_check("100000 messages in order", got == MANY, "%d %s", got, err.msg);
    printf("# %lld messages a second\n", (long long)MANY * 1000 / (mm_clock_mono_ms() - from + 1));
    good = mm_bus_follow(b, "m", 1, MANY - 9, BUS_MS, &err) == 0 && take(b, MANY - 9, 10, &err) == 10;
    nats_check("again, from a place in it", good, "%s", err.msg);

    /* An owner that takes nothing: flow control must hold the server back. */
    nats_check("large messages", bus_stream(b, "l", "l", -1, &err) && bus_fill(b, "l", 1, 4000, 60000, &err), "%s",
               err.msg);
    int64_t before = nats_rss_kb();
    good = mm_bus_follow(b, "l", 2, 1, BUS_MS, &err) == 0;
    for (int i = 0; i < 200 && good; i++) {
        good = mm_bus_wait(b, 5, &err) == 0;
    }
    int64_t grown = nats_rss_kb() - before;
    nats_check("240 MB untaken do not come into memory", good && grown < 100 * 1024, "%s %lld KiB", err.msg,
               (long long)grown);
    printf("# grown by %lld KiB\n", (long long)grown);
    got = take(b, 1, 4000, &err);
    nats_check("and all of them come when taken", got == 4000, "%d %s", got, err.msg);
}

static void gaps(struct mm_bus *b)
{
    struct mm_err err;
    struct mm_delivery d;
    mm_err_init(&err);
    nats_check("a stream to purge", bus_stream(b, "p", "p", -1, &err) && bus_fill(b, "p", 1, 10, 10, &err), "%s",
               err.msg);
    bus_api(b, "$JS.API.STREAM.PURGE.p", "{\"seq\":6}", &err);
    bool good = mm_bus_follow(b, "p", 1, 2, BUS_MS, &err) == 0 && bus_next(b, &d, BUS_MS, &err);
    nats_check("purged before the start: the number tells", good && d.kind == MM_DELIVERY_MESSAGE && d.seq == 6,
               "%s seq %lld", err.msg, (long long)d.seq);
    mm_bus_release(&d);
    nats_check("the rest follows", take(b, 7, 4, &err) == 4, "%s", err.msg);

    /* A jump in the middle: purged while the consumer waits for room. */
    nats_check("a stream that jumps", bus_stream(b, "j", "j", -1, &err) && bus_fill(b, "j", 1, 3000, 60000, &err), "%s",
               err.msg);
    good = mm_bus_follow(b, "j", 1, 1, BUS_MS, &err) == 0 && take(b, 1, 1, &err) == 1;
    struct mm_bus *other = bus_to(server.url, &err);
    if (good && other != NULL) {
        bus_api(other, "$JS.API.STREAM.PURGE.j", "{\"seq\":2999}", &err);
    }
    int64_t last = 1;
    enum mm_delivery_kind kind = MM_DELIVERY_MESSAGE;
    while (good && kind == MM_DELIVERY_MESSAGE && last < 3000) {
        good = bus_next(b, &d, BUS_MS, &err) && (d.kind == MM_DELIVERY_LOST || d.seq == last + 1);
        kind = d.kind;
        last = kind == MM_DELIVERY_MESSAGE ? d.seq : last;
        mm_bus_release(&d);
    }
    nats_check("a jump in the middle is a loss", good && kind == MM_DELIVERY_LOST && d.shard == 1, "%s last %lld",
               err.msg, (long long)last);
    good = mm_bus_wait(b, 20, &err) == 0 && mm_bus_next(b, &d) == 0;
    nats_check("told once", good, "%s", err.msg);
    good = mm_bus_follow(b, "j", 1, last, BUS_MS, &err) == 0 && bus_next(b, &d, BUS_MS, &err);
    nats_check("followed again, the number tells", good && d.seq == 2999, "%s seq %lld", err.msg, (long long)d.seq);
    mm_bus_release(&d);
    mm_bus_close(other);
}

static void recreated(struct mm_bus *b)
{
    struct mm_err err;
    struct mm_delivery d;
    mm_err_init(&err);
    bool good = bus_stream(b, "r", "r", -1, &err) && bus_fill(b, "r", 1, 5, 10, &err) &&
                mm_bus_follow(b, "r", 1, 1, BUS_MS, &err) == 0 && take(b, 1, 5, &err) == 5;
    nats_check("a stream that will be recreated", good, "%s", err.msg);
    struct mm_stream_info was;
    struct mm_stream_info is;
    (void)mm_bus_stream_info(b, "r", &was, BUS_MS, &err);
    struct mm_bus *other = bus_to(server.url, &err);
    if (other != NULL) {
        bus_api(other, "$JS.API.STREAM.DELETE.r", "", &err);
        good = bus_stream(other, "r", "r", -1, &err) && bus_fill(other, "r", 1, 9, 10, &err);
    }
    int64_t from = mm_clock_mono_ms();
    good = good && bus_next(b, &d, 20000, &err);
    nats_check("is a loss, not silence", good && d.kind == MM_DELIVERY_LOST, "%s kind %d seq %lld", err.msg,
               (int)d.kind, (long long)d.seq);
    printf("# noticed after %lld ms\n", (long long)(mm_clock_mono_ms() - from));
    good = mm_bus_stream_info(b, "r", &is, BUS_MS, &err) == 1;
    nats_check("and its stamp differs", good && strcmp(was.created, is.created) != 0, "%s %s", was.created, is.created);
    mm_bus_close(other);
}

/* Quiet for longer than two heartbeats: the heartbeats must carry it. */
static void quiet(struct mm_bus *b)
{
    struct mm_err err;
    struct mm_delivery d;
    mm_err_init(&err);
    bool good = mm_bus_follow(b, "c", 1, 4, BUS_MS, &err) == 0 && take(b, 4, 1, &err) == 1;
    int64_t from = mm_clock_mono_ms();
    bool came = bus_next(b, &d, 12000, &err);
    nats_check("twelve quiet seconds are no loss", good && !came && err.rc == 0 && mm_clock_mono_ms() - from >= 12000,
               "%s", err.msg);
    good = bus_put(b, "c", "x", 1, 1, &err) == 0 && take(b, 5, 1, &err) == 1;
    nats_check("and the next message comes", good, "%s", err.msg);
}

/* The server gives up on a write after ten seconds. */
static void absent(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_bus *b = bus_to(server.url, &err);
    bool good = b != NULL && mm_bus_follow(b, "l", 2, 1, BUS_MS, &err) == 0 && take(b, 1, 2000, &err) == 2000;
    for (int i = 0; i < 4 && good; i++) {
        (void)poll(NULL, 0, 3500);
        good = mm_bus_wait(b, 0, &err) == 0;
    }
    int got = good ? take(b, 2001, 2000, &err) : 0;
    nats_check("a look now and then holds the connection", got == 2000 && mm_bus_connected(b), "%d %s", got, err.msg);
    mm_bus_close(b);
}

static void woken(void)
{
    struct mm_err err;
    mm_err_init(&err);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t one = 1;
    struct mm_bus_options o = { .urls = server.url, .connect_timeout_ms = BUS_MS, .extra_fd = fd };
    struct mm_bus *b = mm_bus_open(&o, &err);
    int64_t from = mm_clock_mono_ms();
    bool good = b != NULL && write(fd, &one, sizeof one) == sizeof one && mm_bus_wait(b, 10000, &err) == 0;
    nats_check("a wake-up ends a wait without a connection", good && mm_clock_mono_ms() - from < 5000, "%s", err.msg);
    good = b != NULL && mm_bus_connect(b, &err) == 0 && mm_bus_wait(b, 10000, &err) == 0;
    nats_check("and one with a connection", good && mm_clock_mono_ms() - from < 5000, "%s", err.msg);
    struct mm_stream_info info;
    nats_check("a request goes on beside it", good && mm_bus_stream_info(b, "c", &info, BUS_MS, &err) == 1, "%s",
               err.msg);
    good = read(fd, &one, sizeof one) == sizeof one && mm_bus_wait(b, 30, &err) == 0;
    nats_check("no wake-up: the time-out", good && mm_clock_mono_ms() - from >= 30, "%s", err.msg);
    mm_bus_close(b);
    (void)close(fd);
}

int main(void)
{
    struct mm_err err;
    mm_err_init(&err);
    nats_start(&server, "");
    struct mm_bus *b = bus_to(server.url, &err);
    if (nats_check("connected", b != NULL, "%s", err.msg)) {
        content(b);
        many(b);
        gaps(b);
        recreated(b);
        quiet(b);
        absent();
        woken();
    }
    mm_bus_close(b);
    nats_stop(&server);
    return nats_report();
}
