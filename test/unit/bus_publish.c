/* Publishing: acknowledgements of every kind, streams, key-value buckets. marmot-test: parallel */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "test/lib/bus.h"

static struct nats_server server;

static void acknowledgements(struct mm_bus *b)
{
    struct mm_err err;
    struct mm_ack ack;
    mm_err_init(&err);
    nats_check("a stream is created", bus_stream(b, "one", "one", 5, &err), "%s", err.msg);
    struct mm_publish p = {
        .subject = "one", .msg_id = "id-1", .expect_last = 0, .data = "hello", .len = 5, .token = 0xabcdef0123456789u
    };
    bool good = mm_bus_publish(b, &p, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("a message is stored", good && ack.kind == MM_ACK_STORED && ack.seq == 1 && ack.token == p.token,
               "%s kind %d seq %lld", err.msg, (int)ack.kind, (long long)ack.seq);
    p.expect_last = -1;
    p.token = 2;
    good = mm_bus_publish(b, &p, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("a known Nats-Msg-Id is a duplicate", good && ack.kind == MM_ACK_DUPLICATE && ack.token == 2,
               "%s kind %d", err.msg, (int)ack.kind);
    p.msg_id = "id-2";
    p.expect_last = 7;
    good = mm_bus_publish(b, &p, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("a wrong last sequence is refused as such", good && ack.kind == MM_ACK_EXPECTED && ack.code == 10071,
               "%s kind %d code %d", err.msg, (int)ack.kind, ack.code);
    p.expect_last = 1;
    good = mm_bus_publish(b, &p, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("the right last sequence is taken", good && ack.kind == MM_ACK_STORED && ack.seq == 2, "%s", err.msg);
    nats_check("the stream takes what it has room for", bus_fill(b, "one", 0, 3, 10, &err), "%s", err.msg);
    good = bus_put(b, "one", "x", 1, 9, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("a full stream says so", good && ack.kind == MM_ACK_FULL && ack.token == 9 && ack.text[0] != '\0',
               "%s kind %d code %d", err.msg, (int)ack.kind, ack.code);
    good = bus_put(b, "nobody.listens", "x", 1, 10, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("no stream at all is refused at once", good && ack.kind == MM_ACK_REFUSED && ack.code == 503,
               "%s code %d", err.msg, ack.code);
    good = bus_put(b, "one", "", 0, 11, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("an empty message is acknowledged, too", good && ack.token == 11, "%s", err.msg);
}

static void sizes(struct mm_bus *b)
{
    struct mm_err err;
    struct mm_ack ack;
    mm_err_init(&err);
    size_t max = mm_bus_max_payload(b);
    char *big = calloc(1, max + 1);
    nats_check("the server's limit is known", max == 1048576, "%zu", max);
    nats_check("a stream for large ones", bus_stream(b, "big", "big", -1, &err), "%s", err.msg);
    bool good = bus_put(b, "big", big, max, 1, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("a message of exactly that size", good && ack.kind == MM_ACK_STORED, "%s %s", err.msg, ack.text);
    nats_check("one byte more is refused here", bus_put(b, "big", big, max + 1, 2, &err) == SQLITE_TOOBIG, "rc %d",
               err.rc);
    mm_err_init(&err);
    struct mm_publish p = { .subject = "big", .msg_id = "x", .expect_last = -1, .data = big, .len = max };
    nats_check("headers count as well", mm_bus_publish(b, &p, &err) == SQLITE_TOOBIG, "rc %d", err.rc);
    mm_err_init(&err);
    good = mm_bus_connected(b) && bus_put(b, "big", "ok", 2, 3, &err) == 0 && bus_ack(b, &ack, BUS_MS, &err);
    nats_check("the connection outlives both", good && ack.seq == 2, "%s", err.msg);
    struct mm_stored m;
    good = mm_bus_stream_get(b, "big", 1, &m, BUS_MS, &err) == 1;
    nats_check("a stored message of 1 MiB comes back whole", good && m.len == max && memcmp(m.data, big, max) == 0,
               "%s len %zu", err.msg, m.len);
    free(m.data);
    nats_check("no such message",
               mm_bus_stream_get(b, "big", 99, &m, BUS_MS, &err) == 0 && err.rc == 0 && m.data == NULL, "%s", err.msg);
    nats_check("no such stream to get from", mm_bus_stream_get(b, "none", 1, &m, BUS_MS, &err) == 0 && err.rc == 0,
               "%s", err.msg);
    free(big);
}

static void streams(struct mm_bus *b)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_stream_info info;
    nats_check("a missing stream is no error", mm_bus_stream_info(b, "none", &info, BUS_MS, &err) == 0 && err.rc == 0,
               "%s", err.msg);
    bool good = mm_bus_stream_info(b, "one", &info, BUS_MS, &err) == 1;
    nats_check("what a stream holds",
               good && info.first_seq == 1 && info.last_seq == 5 && info.messages == 5 && info.bytes > 0 &&
                   strcmp(info.description, "test") == 0 && strlen(info.created) > 19,
               "%s last %lld", err.msg, (long long)info.last_seq);
    nats_check("an identical stream is fine", bus_stream(b, "one", "one", 5, &err), "%s", err.msg);
    nats_check("another configuration is 0, not an error", !bus_stream(b, "one", "one", 6, &err) && err.rc == 0, "%s",
               err.msg);
    nats_check("a subject of another stream is 0, not an error", !bus_stream(b, "two", "one", 5, &err) && err.rc == 0,
               "%s", err.msg);
    mm_err_init(&err);
    nats_check("a name with a dot is refused here",
               mm_bus_stream_info(b, "a.b", &info, BUS_MS, &err) == 0 && err.rc == SQLITE_MISUSE, "rc %d", err.rc);
}

static void buckets(struct mm_bus *b)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_bus *c = bus_to(server.url, &err);
    nats_check("a bucket is made", c != NULL && mm_bus_kv_open(b, "meta", 1, 0, BUS_MS, &err) == 0, "%s", err.msg);
    nats_check("and found by another", c != NULL && mm_bus_kv_open(c, "meta", 1, 0, BUS_MS, &err) == 0, "%s", err.msg);
    char *value = NULL;
    size_t len = 0;
    nats_check("a missing key is no error",
               mm_bus_kv_get(b, "meta", "k", &value, &len, BUS_MS, &err) == 0 && err.rc == 0, "%s", err.msg);
    int both = 0;
    int none = 0;
    for (int i = 0; i < 50 && c != NULL; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "race.%d", i);
        int first = mm_bus_kv_create(i % 2 != 0 ? b : c, "meta", key, "A", 1, BUS_MS, &err);
        int second = mm_bus_kv_create(i % 2 != 0 ? c : b, "meta", key, "B", 1, BUS_MS, &err);
        both += first && second;
        none += !first && !second;
        if (mm_bus_kv_get(b, "meta", key, &value, &len, BUS_MS, &err) != 1 || len != 1 ||
            value[0] != (first ? 'A' : 'B')) {
            none++;
        }
        free(value);
    }
    nats_check("of two creators one wins, and its value stands", err.rc == 0 && both == 0 && none == 0,
               "%s both %d none %d", err.msg, both, none);
    /* A delete marker, as other clients write it, is an absent key. */
    nats_check("keys with wildcards are refused",
               mm_bus_kv_create(b, "meta", "a*", "x", 1, BUS_MS, &err) == 0 && err.rc == SQLITE_MISUSE, "rc %d",
               err.rc);
    mm_err_init(&err);
    nats_check("short lives are accepted",
               mm_bus_kv_open(b, "lease", 1, 1000000000, BUS_MS, &err) == 0 &&
                   mm_bus_kv_create(b, "lease", "k", "1", 1, BUS_MS, &err) == 1 &&
                   mm_bus_kv_create(b, "lease", "k", "2", 1, BUS_MS, &err) == 0,
               "%s", err.msg);
    int again = 0;
    for (int i = 0; i < 100 && again == 0 && err.rc == 0; i++) {
        again = mm_bus_kv_create(b, "lease", "k", "3", 1, BUS_MS, &err);
        (void)mm_bus_wait(b, 50, &err);
    }
    nats_check("an expired key can be created again", again == 1, "%s", err.msg);
    mm_bus_close(c);
}

int main(void)
{
    struct mm_err err;
    mm_err_init(&err);
    nats_start(&server, "");
    struct mm_bus *b = bus_to(server.url, &err);
    if (nats_check("connected", b != NULL && mm_bus_connected(b), "%s", err.msg)) {
        nats_check("the URL is known", strcmp(mm_bus_url(b), server.url) == 0, "%s", mm_bus_url(b));
        acknowledgements(b);
        sizes(b);
        streams(b);
        buckets(b);
    }
    mm_bus_close(b);
    nats_stop(&server);
    return nats_report();
}
