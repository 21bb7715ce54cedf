/* How long a change travels between two processes, and how long a bare message
** does. Each role is a process of its own; the clock is CLOCK_MONOTONIC, which
** is one clock for all processes of a machine.
**
**   latency write DATABASE EXTENSION CONFIG COUNT PACE_US   one INSERT every PACE_US
**   latency read  DATABASE EXTENSION CONFIG COUNT           prints us from INSERT to visible
**   latency publish   URL STREAM COUNT PACE_US              JetStream, 128 bytes
**   latency subscribe URL STREAM COUNT                      prints us from publish to delivery
**
** The row, and the message, carries the time just before its INSERT (publish):
** the figure contains the writer's commit. The reader looks every 50 us. */
#include <nats/nats.h>
#include <string.h>

#include "bench.h"

enum { MESSAGE = 128, LOOK_US = 50, GIVE_UP_US = 30 * 1000000 };

static const char schema[] = "CREATE TABLE IF NOT EXISTS Sent(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, text TEXT)";

static void wait_us(int64_t us)
{
    struct timespec t = { us / 1000000, us % 1000000 * 1000 };
    (void)nanosleep(&t, NULL);
}

static void pace(int64_t start, int i, int pace_us)
{
    int64_t rest = start + (int64_t)i * pace_us - clock_us(CLOCK_MONOTONIC);
    if (rest > 0) {
        wait_us(rest);
    }
}

static void ready(void)
{
    (void)puts("ready");
    (void)fflush(stdout);
}

static void write_rows(char **argv)
{
    int count = atoi(argv[5]);
    sqlite3 *db = open_database(argv[2], schema);
    become_node(db, argv[3], argv[4]);
    must(sync_node(db, "SELECT marmot_sync(30000)"), "marmot_sync", "the writer is not live within 30 s");
    sqlite3_stmt *st = prepare(db, "INSERT INTO Sent(id, at, text) VALUES (?1, ?2, ?3)");
    int64_t start = clock_us(CLOCK_MONOTONIC);
    for (int i = 1; i <= count; i++) {
        pace(start, i, atoi(argv[6]));
        (void)sqlite3_bind_int(st, 1, i);
        (void)sqlite3_bind_text(st, 3, "a row of the usual size, with a few words in it", -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(st, 2, clock_us(CLOCK_MONOTONIC));
        must(sqlite3_step(st) == SQLITE_DONE, "INSERT", sqlite3_errmsg(db));
        (void)sqlite3_reset(st);
    }
    must(sync_node(db, "SELECT marmot_sync(30000)"), "marmot_sync", "not echoed within 30 s");
    (void)sqlite3_finalize(st);
    must(sqlite3_close(db) == SQLITE_OK, "close", sqlite3_errmsg(db));
}

static void read_rows(char **argv)
{
    int count = atoi(argv[5]);
    sqlite3 *db = open_database(argv[2], schema);
    become_node(db, argv[3], argv[4]);
    must(sync_node(db, "SELECT marmot_sync(30000)"), "marmot_sync", "the reader is not live within 30 s");
    sqlite3_stmt *st = prepare(db, "SELECT at FROM Sent WHERE id = ?1");
    ready();
    int64_t last = clock_us(CLOCK_MONOTONIC);
    for (int i = 1; i <= count;) {
        (void)sqlite3_bind_int(st, 1, i);
        int rc = sqlite3_step(st);
        int64_t now = clock_us(CLOCK_MONOTONIC);
        if (rc == SQLITE_ROW) {
            (void)printf("%lld\n", (long long)(now - sqlite3_column_int64(st, 0)));
            last = now;
            i++;
        } else {
            must(rc == SQLITE_DONE, "SELECT", sqlite3_errmsg(db));
            must(now - last < GIVE_UP_US, "read", "no row came for 30 s");
        }
        (void)sqlite3_reset(st);
        if (rc == SQLITE_DONE) {
            wait_us(LOOK_US);
        }
    }
    (void)sqlite3_finalize(st);
    must(sqlite3_close(db) == SQLITE_OK, "close", sqlite3_errmsg(db));
}

static void good(natsStatus s, const char *doing)
{
    must(s == NATS_OK, doing, natsStatus_GetText(s));
}

static natsConnection *connect_to(const char *url, jsCtx **js)
{
    natsOptions *o = NULL;
    natsConnection *nc = NULL;
    good(natsOptions_Create(&o), "options");
    good(natsOptions_SetURL(o, url), "url");
    good(natsOptions_SetSendAsap(o, true), "send asap"); /* its flusher thread would cost most of a millisecond */
    good(natsConnection_Connect(&nc, o), "connect");
    natsOptions_Destroy(o);
    good(natsConnection_JetStream(js, nc, NULL), "JetStream");
    return nc;
}

static void publish(char **argv)
{
    jsCtx *js = NULL;
    int count = atoi(argv[4]);
    natsConnection *nc = connect_to(argv[2], &js);
    int64_t start = clock_us(CLOCK_MONOTONIC);
    for (int i = 1; i <= count; i++) {
        char message[MESSAGE] = { 0 };
        pace(start, i, atoi(argv[5]));
        int64_t now = clock_us(CLOCK_MONOTONIC);
        memcpy(message, &now, sizeof now);
        good(natsConnection_Publish(nc, argv[3], message, MESSAGE), "publish");
    }
    good(natsConnection_Flush(nc), "flush");
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
}

static void subscribe(char **argv)
{
    jsCtx *js = NULL;
    natsSubscription *sub = NULL;
    int count = atoi(argv[4]);
    natsConnection *nc = connect_to(argv[2], &js);
    jsStreamConfig config;
    good(jsStreamConfig_Init(&config), "stream config");
    config.Name = argv[3];
    config.Subjects = (const char *[]){ argv[3] };
    config.SubjectsLen = 1;
    good(js_AddStream(NULL, js, &config, NULL, NULL), "add stream");
    jsSubOptions options;
    good(jsSubOptions_Init(&options), "subscribe options");
    options.Ordered = true;
    good(js_SubscribeSync(&sub, js, argv[3], NULL, &options, NULL), "subscribe");
    ready();
    for (int i = 0; i < count; i++) {
        natsMsg *m = NULL;
        int64_t sent;
        good(natsSubscription_NextMsg(&m, sub, GIVE_UP_US / 1000), "next message");
        int64_t now = clock_us(CLOCK_MONOTONIC);
        memcpy(&sent, natsMsg_GetData(m), sizeof sent);
        (void)printf("%lld\n", (long long)(now - sent));
        natsMsg_Destroy(m);
    }
    natsSubscription_Destroy(sub);
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int args;
        void (*run)(char **argv);
    } roles[] = {
        { "write", 7, write_rows },
        { "read", 6, read_rows },
        { "publish", 6, publish },
        { "subscribe", 5, subscribe },
    };
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (argc == roles[i].args && strcmp(argv[1], roles[i].name) == 0) {
            roles[i].run(argv);
            return 0;
        }
    }
    (void)fputs("usage: latency write|read|publish|subscribe ..\n", stderr);
    return 2;
}
