/* Following a stream: an ephemeral, unacknowledged push consumer, watched by
** its own numbering, the stream's, and its heartbeats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "bus/inner.h"

static struct mm_follow *slot_of(struct mm_bus *b, int shard, struct mm_err *err)
{
    for (int i = 0; i < b->follow_count; i++) {
        if (b->follows[i].shard == shard) {
            return &b->follows[i];
        }
    }
    if (b->follow_count == MM_BUS_FOLLOWS_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "a node follows at most %d shards", MM_BUS_FOLLOWS_MAX);
        return NULL;
    }
    struct mm_follow *f = &b->follows[b->follow_count++];
    *f = (struct mm_follow){ .shard = shard };
    return f;
}

void mm_follow_stop(struct mm_bus *b, struct mm_follow *f)
{
    b->api->natsMsg_Destroy(f->head);
    b->api->natsSubscription_Destroy(f->sub);
    f->head = NULL;
    f->sub = NULL;
    f->lost = false;
}

static void lose(struct mm_bus *b, struct mm_follow *f)
{
    mm_follow_stop(b, f);
    f->lost = true;
}

static json_t *consumer_config(const char *stream, const char *deliver, int64_t start_seq)
{
    /* Kept in the memory of one server: it dies with the connection anyway. */
    return json_pack("{s:s, s:{s:s, s:s, s:I, s:s, s:s, s:b, s:I, s:b, s:i}}", "stream_name", stream, "config",
                     "deliver_subject", deliver, "deliver_policy", "by_start_sequence", "opt_start_seq",
                     (json_int_t)(start_seq < 1 ? 1 : start_seq), "ack_policy", "none", "replay_policy", "instant",
                     "flow_control", 1, "idle_heartbeat", (json_int_t)MM_BUS_HEARTBEAT_MS * 1000000, "mem_storage", 1,
                     "num_replicas", 1);
}

int mm_bus_follow(struct mm_bus *b, const char *stream, int shard, int64_t start_seq, int timeout_ms,
                  struct mm_err *err)
{
    if (err->rc != SQLITE_OK || mm_bus_check_name("the stream name", stream, err) != SQLITE_OK) {
        return err->rc;
    }
    if (b->conn == NULL) {
        return mm_bus_lost(b, err);
    }
    struct mm_follow *f = slot_of(b, shard, err);
    if (f == NULL) {
        return err->rc;
    }
    mm_follow_stop(b, f);
    f->consumer_seq = 0;
    f->stream_seq = 0;

    char deliver[160];
    char call[128];
    /* A subject of its own each time: what the old consumer still sends goes nowhere. */
    (void)snprintf(deliver, sizeof deliver, "%s.f.%llx", (const char *)b->inbox,
                   (unsigned long long)++b->follow_number);
    (void)snprintf(call, sizeof call, "CONSUMER.CREATE.%s", stream);
    natsStatus s = b->api->natsConnection_SubscribeSync(&f->sub, b->conn, deliver);
    if (s == NATS_OK) {
        s = b->api->natsSubscription_SetPendingLimits(f->sub, -1, -1);
    }
    if (s != NATS_OK) {
        mm_follow_stop(b, f);
        return mm_err_set(err, s == NATS_NO_MEMORY ? SQLITE_NOMEM : SQLITE_IOERR,
                          "subscribing for stream %s failed: %s", stream, b->api->natsStatus_GetText(s));
    }
    json_t *body = consumer_config(stream, deliver, start_seq);
    if (body == NULL) {
        mm_follow_stop(b, f);
        return mm_err_nomem(err);
    }
    struct mm_answer a;
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK && a.code != 0) {
        mm_answer_fail(&a, stream, err);
    }
    mm_answer_free(&a);
    /* A connection lost meanwhile has emptied the slot already. */
    if (err->rc != SQLITE_OK && b->conn != NULL) {
        mm_follow_stop(b, f);
    }
    f->heard_ms = mm_clock_mono_ms();
    return err->rc;
}

static const char *header(const struct mm_bus *b, natsMsg *m, const char *name)
{
    const char *value = NULL;
    return b->api->natsMsgHeader_Get(m, name, &value) == NATS_OK && value != NULL ? value : "";
}

static int64_t number(const char *s)
{
    return (int64_t)strtoll(s, NULL, 10);
}

/* $JS.ACK.<stream>.<consumer>.<times>.<stream seq>.<consumer seq>.<ns>.<pending>
** or, with domain and account before the stream and a random token behind. */
static bool read_reply(const char *reply, struct mm_delivery *d, int64_t *consumer_seq)
{
    char text[512];
    char *part[16];
    int n = 0;
    if (reply == NULL || strncmp(reply, "$JS.ACK.", 8) != 0 ||
        (size_t)snprintf(text, sizeof text, "%s", reply) >= sizeof text) {
        return false;
    }
    char *save = NULL;
    for (char *p = strtok_r(text, ".", &save); p != NULL && n < 16; p = strtok_r(NULL, ".", &save)) {
        part[n++] = p;
    }
    int at = n == 9 ? 5 : 7;
    if (n < 9 || n == 10) {
        return false;
    }
    d->seq = number(part[at]);
    *consumer_seq = number(part[at + 1]);
    d->time_ns = number(part[at + 2]);
    d->pending = number(part[at + 3]);
    return d->seq > 0 && *consumer_seq > 0;
}

/* Flow control is answered when everything before it was taken: that is what
** bounds the memory of an owner that folds slower than the server sends. */
static void answer(struct mm_bus *b, const char *subject)
{
    if (subject != NULL && subject[0] != '\0') {
        (void)b->api->natsConnection_Publish(b->conn, subject, NULL, 0);
    }
}

/* A message without data and with a status line; true when all is well. */
static bool take_control(struct mm_bus *b, struct mm_follow *f, natsMsg *m, const char *status)
{
    if (strcmp(status, "100") != 0) {
        return false; /* 409 consumer deleted, 404, 503: it is gone */
    }
    const char *reply = b->api->natsMsg_GetReply(m);
    if (reply != NULL && reply[0] != '\0') {
        answer(b, reply);
        return true;
    }
    answer(b, header(b, m, "Nats-Consumer-Stalled"));
    const char *last = header(b, m, "Nats-Last-Consumer");
    return last[0] == '\0' || number(last) == f->consumer_seq;
}

/* True when the message follows the one before it. */
static bool take_message(struct mm_bus *b, struct mm_follow *f, natsMsg *m)
{
    struct mm_delivery *d = &f->next;
    *d = (struct mm_delivery){ .kind = MM_DELIVERY_MESSAGE, .shard = f->shard };
    int64_t consumer_seq = 0;
    if (!read_reply(b->api->natsMsg_GetReply(m), d, &consumer_seq)) {
        return false;
    }
    if (consumer_seq != f->consumer_seq + 1 || (f->stream_seq != 0 && d->seq != f->stream_seq + 1)) {
        return false;
    }
    f->consumer_seq = consumer_seq;
    f->stream_seq = d->seq;
    d->zstd = strcmp(header(b, m, "Content-Encoding"), "zstd") == 0;
    d->data = (const uint8_t *)b->api->natsMsg_GetData(m);
    d->len = (size_t)b->api->natsMsg_GetDataLength(m);
    d->handle = m;
    f->head = m;
    return true;
}

void mm_follow_fill(struct mm_bus *b, struct mm_follow *f)
{
    if (f->sub == NULL) {
        return;
    }
    int64_t now = mm_clock_mono_ms();
    if (f->head != NULL) {
        f->heard_ms = now; /* it is we who are slow */
        return;
    }
    natsMsg *m = NULL;
    while (f->head == NULL && b->api->natsSubscription_NextMsg(&m, f->sub, 0) == NATS_OK) {
        f->heard_ms = now;
        const char *status = b->api->natsMsg_GetDataLength(m) == 0 ? header(b, m, "Status") : "";
        bool fine = status[0] != '\0' ? take_control(b, f, m, status) : take_message(b, f, m);
        if (f->head != m) {
            b->api->natsMsg_Destroy(m);
        }
        if (!fine) {
            lose(b, f);
            return;
        }
    }
    if (f->head == NULL && now - f->heard_ms > (int64_t)MM_BUS_HEARTBEAT_MS * MM_BUS_HEARTBEATS_MISSED) {
        lose(b, f);
    }
}

bool mm_follow_ready(const struct mm_follow *f)
{
    return f->lost || f->head != NULL;
}

int mm_bus_next(struct mm_bus *b, struct mm_delivery *d)
{
    for (int i = 0; i < b->follow_count; i++) {
        struct mm_follow *f = &b->follows[(b->follow_turn + i) % b->follow_count];
        mm_follow_fill(b, f);
        if (f->lost) {
            f->lost = false;
            *d = (struct mm_delivery){ .kind = MM_DELIVERY_LOST, .shard = f->shard };
        } else if (f->head != NULL) {
            *d = f->next;
            f->head = NULL;
        } else {
            continue;
        }
        b->follow_turn = (b->follow_turn + i + 1) % b->follow_count;
        return 1;
    }
    return 0;
}

void mm_bus_release(struct mm_delivery *d)
{
    struct mm_err err;
    mm_err_init(&err);
    const struct mm_nats_api *api = mm_nats_api(&err);
    if (api != NULL && d->handle != NULL) {
        api->natsMsg_Destroy(d->handle);
    }
    d->handle = NULL;
    d->data = NULL;
    d->len = 0;
}
