#include "repl/epoch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { GAP_MAX = 10000, APPEND_TRIES = 20 };
#define MESSAGE_MAX ((size_t)1 << 20)

static void names(const char *cluster, const char *what, int64_t n, char bucket[256], char key[64])
{
    (void)snprintf(bucket, 256, "%s-meta", cluster);
    (void)snprintf(key, 64, "%s.%lld", what, (long long)n);
}

static bool get(struct mm_bus *bus, const char *cluster, const char *what, int64_t n, char **value, struct mm_err *err)
{
    char bucket[256];
    char key[64];
    size_t len = 0;
    names(cluster, what, n, bucket, key);
    return mm_bus_kv_get(bus, bucket, key, value, &len, MM_REQUEST_MS, err) != 0;
}

static int create(struct mm_bus *bus, const char *cluster, const char *what, int64_t n, const char *value,
                  struct mm_err *err)
{
    char bucket[256];
    char key[64];
    names(cluster, what, n, bucket, key);
    return mm_bus_kv_create(bus, bucket, key, value, strlen(value), MM_REQUEST_MS, err);
}

int mm_epoch_look(struct mm_bus *bus, const char *cluster, int64_t own, struct mm_epochs *out, struct mm_err *err)
{
    char *value = NULL;
    memset(out, 0, sizeof *out);
    for (int64_t n = own + 1; err->rc == SQLITE_OK && get(bus, cluster, "epoch", n, &value, err); n++) {
        struct mm_epoch *e = &out->newest;
        *e = (struct mm_epoch){ .n = n };
        if (sscanf(value, "%" SCNd64 " %" SCNx64, &e->node, &e->token) != 2) {
            mm_err_set(err, SQLITE_CORRUPT, "key epoch.%lld of bucket %s-meta is not readable", (long long)n, cluster);
        }
        free(value);
        value = NULL;
        if (err->rc == SQLITE_OK && get(bus, cluster, "seeded", n, &value, err)) {
            e->done = true;
            out->done = *e;
        }
        free(value);
        value = NULL;
    }
    return err->rc;
}

int mm_epoch_begin(struct mm_bus *bus, const char *cluster, const struct mm_epoch *e, struct mm_err *err)
{
    char value[64];
    if (e->n < 2 || e->n > GAP_MAX) { /* keys are looked up one after the other */
        mm_err_set(err, SQLITE_ERROR, "epoch %lld is out of range", (long long)e->n);
        return 0;
    }
    for (int64_t n = 2; n < e->n && err->rc == SQLITE_OK; n++) {
        char *there = NULL;
        if (!get(bus, cluster, "epoch", n, &there, err) && err->rc == SQLITE_OK) {
            create(bus, cluster, "epoch", n, "0 0", err); /* of a server that is gone */
        }
        free(there);
    }
    (void)snprintf(value, sizeof value, "%" PRId64 " %016" PRIx64, e->node, e->token);
    return err->rc == SQLITE_OK ? create(bus, cluster, "epoch", e->n, value, err) : 0;
}

int mm_epoch_finish(struct mm_bus *bus, const char *cluster, const struct mm_epoch *e, const char *snapshot,
                    struct mm_err *err)
{
    create(bus, cluster, "seeded", e->n, snapshot, err); /* there already: an earlier attempt's answer was lost */
    return err->rc;
}

bool mm_epoch_founded(struct mm_bus *bus, const char *cluster, struct mm_err *err)
{
    char *value = NULL;
    bool there = get(bus, cluster, "seeded", 1, &value, err);
    free(value);
    return there;
}

int mm_epoch_set_founded(struct mm_bus *bus, const char *cluster, struct mm_err *err)
{
    create(bus, cluster, "seeded", 1, "founded", err);
    return err->rc;
}

/* The acknowledgement of the one message under way: its sequence, 0 when the stream had moved on. */
static int64_t wait_ack(struct mm_bus *bus, const char *stream, struct mm_err *err)
{
    struct mm_ack ack;
    int64_t until = mm_clock_mono_ms() + MM_REQUEST_MS;
    while (err->rc == SQLITE_OK && !mm_bus_next_ack(bus, &ack)) {
        int64_t left = until - mm_clock_mono_ms();
        if (left <= 0 || !mm_bus_connected(bus)) {
            mm_err_set(err, SQLITE_IOERR, "the server did not acknowledge a message to stream %s in time", stream);
        } else {
            mm_bus_wait(bus, (int)left, err);
        }
    }
    if (err->rc != SQLITE_OK) {
        return 0;
    }
    if (ack.kind == MM_ACK_FULL) {
        mm_err_set(err, SQLITE_FULL,
                   "stream %s is full: raise replication_log.max_bytes, or delete the stream: the epoch then begins in "
                   "a new one",
                   stream);
    } else if (ack.kind != MM_ACK_STORED && ack.kind != MM_ACK_EXPECTED) {
        mm_err_set(err, SQLITE_ERROR, "stream %s does not take a message: %s (JetStream error %d)", stream, ack.text,
                   ack.code);
    }
    return ack.kind == MM_ACK_STORED ? ack.seq : 0;
}

int mm_epoch_append(struct mm_bus *bus, const struct mm_shard *s, const struct mm_msg *m, struct mm_position *pos,
                    struct mm_err *err)
{
    struct mm_buf out;
    uint8_t digest[32];
    bool zstd = false;
    mm_buf_init(&out, MESSAGE_MAX);
    mm_wire_encode(&out, m, false, &zstd, err);
    memset(pos, 0, sizeof *pos);
    for (int k = 0; k < APPEND_TRIES && err->rc == SQLITE_OK && pos->seq == 0; k++) {
        struct mm_stream_info info;
        if (!mm_bus_stream_info(bus, s->stream, &info, MM_REQUEST_MS, err)) {
            mm_err_set(err, SQLITE_NOTFOUND, "the server has no stream %s", s->stream);
            break;
        }
        struct mm_publish p = { .subject = s->subject, .expect_last = info.last_seq, .data = out.data, .len = out.len };
        mm_bus_publish(bus, &p, err);
        pos->seq = wait_ack(bus, s->stream, err);
        memcpy(pos->created, info.created, sizeof pos->created);
    }
    if (err->rc == SQLITE_OK && pos->seq == 0) {
        mm_err_set(err, SQLITE_BUSY, "stream %s is being written to by others all the time: stop them, or try again",
                   s->stream);
    } else if (err->rc == SQLITE_OK) {
        mm_wire_sha256(out.data, out.len, digest);
        memcpy(pos->digest, digest, sizeof pos->digest);
        pos->shard = s->n;
        pos->epoch = m->epoch;
    }
    mm_buf_free(&out);
    return err->rc;
}
