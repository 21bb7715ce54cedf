/* The NATS connection of one node: bytes and subjects only.
**
** One struct mm_bus belongs to the replication thread, which calls every
** function here and does the socket work itself inside mm_bus_wait (nats.c's
** event-loop hook; evidence: its flusher thread costs 0.65 ms a message). No
** call waits for the network except where it says so with a time limit.
** libnats is opened with dlopen (RTLD_LOCAL, RTLD_DEEPBIND where the build
** allows), never closed, and its own reconnect is off: a lost connection is
** closed here and opened again by the owner, who then subscribes afresh.
**
** JetStream is spoken by requests of our own ($JS.API.*, ADR-1 and the
** server's API documentation); answers are JSON. */
#ifndef MM_BUS_BUS_H
#define MM_BUS_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct mm_bus;

struct mm_bus_options { /* all borrowed during mm_bus_open, copied inside */
    const char *urls;   /* comma-separated, at least one */
    const char *name;   /* connection name, for the server's monitoring */
    const char *user, *password, *token;
    const char *seed_file, *creds_file;
    const char *ca_file, *cert_file, *key_file;
    const char *domain; /* JetStream domain, NULL for none */
    int connect_timeout_ms;
    int ping_interval_ms;
    int extra_fd; /* polled for reading beside the socket (the worker's eventfd), -1 none */
};

struct mm_bus *mm_bus_open(const struct mm_bus_options *o, struct mm_err *err); /* does not connect */
void mm_bus_close(struct mm_bus *b); /* closes the connection, frees all; NULL is fine */

/* Tries once, at most connect_timeout_ms. Returns err->rc (SQLITE_CANTOPEN
** when nobody answers, SQLITE_AUTH when refused). Messages carry no userinfo. */
int mm_bus_connect(struct mm_bus *b, struct mm_err *err);
void mm_bus_disconnect(struct mm_bus *b);
bool mm_bus_connected(const struct mm_bus *b);
size_t mm_bus_max_payload(const struct mm_bus *b); /* of the server, bytes */
const char *mm_bus_url(const struct mm_bus *b);    /* connected to, without userinfo; "" */

/* Descriptors to close in the child of a fork: calls f for each. */
void mm_bus_each_fd(const struct mm_bus *b, void (*f)(int fd));

/* Does socket work until something can be taken (a delivery, an ack, a lost
** connection, extra_fd readable) or timeout_ms have passed (0 = only look,
** -1 = no limit). Works without a connection, too: then only extra_fd counts.
** A lost connection is no error here (it is logged, and mm_bus_connected is
** false); SQLITE_AUTH when the server refuses a subject, disconnected then.
** Who works long without it while messages come in (10 s) is dropped by the
** server: look in between with timeout 0, every 5 s say, or connect again. */
int mm_bus_wait(struct mm_bus *b, int timeout_ms, struct mm_err *err);

/* --- Streams. Each call waits up to timeout_ms for the answer; messages that
** arrive meanwhile wait for mm_bus_next. Errors: SQLITE_BUSY no answer in time,
** SQLITE_IOERR connection lost, SQLITE_CANTOPEN no JetStream (or no leader) there,
** SQLITE_AUTH no permission, SQLITE_PROTOCOL an answer that makes no sense,
** SQLITE_ERROR what the server refuses (its words, its number). --- */

struct mm_stream_config {
    const char *name;
    const char *subject;
    const char *description;
    int64_t max_msgs;     /* -1 = unlimited */
    int64_t max_bytes;    /* -1 = unlimited */
    int64_t max_msg_size; /* -1 = unlimited */
    int replicas;
    bool discard_new;
    int64_t duplicates_ns; /* the server's duplicate window */
};
struct mm_stream_info {
    char created[40]; /* RFC 3339 stamp, as the server gives it */
    char description[512];
    int64_t first_seq, last_seq, messages, bytes;
};

/* 1 and info, or 0 when there is no such stream (not an error). */
int mm_bus_stream_info(struct mm_bus *b, const char *stream, struct mm_stream_info *info, int timeout_ms,
                       struct mm_err *err);
/* Creates; an identical one is fine (1); one of another configuration, or another stream that has the subject: 0,
** no error. */
int mm_bus_stream_create(struct mm_bus *b, const struct mm_stream_config *c, struct mm_stream_info *info,
                         int timeout_ms, struct mm_err *err);
/* 1 when the stream's limits differ from these (max_bytes -1 = unlimited), 0 when they are the same. `update` sets
** them then, and nothing else. */
int mm_bus_stream_limits(struct mm_bus *b, const char *stream, int64_t max_bytes, int replicas, bool update,
                         int timeout_ms, struct mm_err *err);
/* Removes all messages before `seq`; sequences are never given again. */
int mm_bus_stream_purge(struct mm_bus *b, const char *stream, int64_t seq, int timeout_ms, struct mm_err *err);
/* One stored message by sequence: 1, or 0 with nothing in *m when there is none. Caller frees m->data with free(). */
struct mm_stored {
    uint8_t *data; /* without headers */
    size_t len;
    int64_t time_ns; /* as in a delivery */
};
int mm_bus_stream_get(struct mm_bus *b, const char *stream, int64_t seq, struct mm_stored *m, int timeout_ms,
                      struct mm_err *err);

/* --- Key-value buckets (stream KV_<bucket>, subjects $KV.<bucket>.<key>;
** NATS ADR-8). Only create and get: updates with an expected sequence above
** 0 are broken on clustered 2.9 servers. --- */

/* Makes the bucket when it is missing. Returns err->rc. */
int mm_bus_kv_open(struct mm_bus *b, const char *bucket, int replicas, int64_t max_age_ns, int timeout_ms,
                   struct mm_err *err);
/* Creates a key: 1, or 0 when it exists already. */
int mm_bus_kv_create(struct mm_bus *b, const char *bucket, const char *key, const void *data, size_t len,
                     int timeout_ms, struct mm_err *err);
/* Forgets a key at once: only for who has created it. Returns err->rc. */
int mm_bus_kv_drop(struct mm_bus *b, const char *bucket, const char *key, int timeout_ms, struct mm_err *err);
/* 1 and a copy of the value (NUL behind it, caller frees), or 0. */
int mm_bus_kv_get(struct mm_bus *b, const char *bucket, const char *key, char **value, size_t *len, int timeout_ms,
                  struct mm_err *err);

/* --- Publishing. --- */

struct mm_publish {
    const char *subject;
    const char *msg_id;   /* Nats-Msg-Id, NULL for none */
    const char *encoding; /* Content-Encoding, NULL for none */
    int64_t expect_last;  /* Nats-Expected-Last-Sequence, -1 = no expectation */
    const void *data;
    size_t len;
    uint64_t token; /* comes back in the ack */
};
/* Hands the message to the socket; does not wait. SQLITE_IOERR when the
** connection is lost, SQLITE_TOOBIG beyond max_payload, SQLITE_BUSY with
** 65536 messages unacknowledged. */
int mm_bus_publish(struct mm_bus *b, const struct mm_publish *p, struct mm_err *err);

enum mm_ack_kind {
    MM_ACK_STORED,    /* seq is valid */
    MM_ACK_DUPLICATE, /* the server had the Nats-Msg-Id: not stored again */
    MM_ACK_FULL,      /* 10077, 10023, 10047: the stream (discard new), or the server's store, is full */
    MM_ACK_EXPECTED,  /* 10071: wrong last sequence */
    MM_ACK_REFUSED,   /* any other error: code, text. 503 (no stream, no leader) carries the token of
                      ** the oldest message without ack, whichever was meant: go back to that one */
};
struct mm_ack {
    uint64_t token;
    enum mm_ack_kind kind;
    int64_t seq;
    int code;
    char text[128];
};
/* Takes the next ack that arrived: 1 or 0. Where two streams take one subject
** (a hub's and a leaf's) a token comes twice. */
int mm_bus_next_ack(struct mm_bus *b, struct mm_ack *ack);

/* --- Telling: plain NATS messages, which nobody keeps and which may be lost. --- */

/* Subscribes, once a connection (a second call does nothing). What the user may
** not subscribe to costs the connection: see mm_bus_wait. */
int mm_bus_listen(struct mm_bus *b, const char *subject, struct mm_err *err);
int mm_bus_tell(struct mm_bus *b, const char *subject, const void *data, size_t len, struct mm_err *err);
/* Takes the next one: 1, its bytes borrowed until the next call, or 0. */
int mm_bus_heard(struct mm_bus *b, const uint8_t **data, size_t *len);

/* --- Following streams: one ordered, ephemeral, unacknowledged push consumer
** a stream; heartbeats and flow control are answered inside. --- */

/* Starts (or starts again) at start_seq, the first message wanted. `shard`
** comes back in deliveries. Waits for the consumer's creation. */
int mm_bus_follow(struct mm_bus *b, const char *stream, int shard, int64_t start_seq, int timeout_ms,
                  struct mm_err *err);

enum mm_delivery_kind {
    MM_DELIVERY_MESSAGE,
    MM_DELIVERY_LOST, /* gap, missed heartbeats or consumer gone: follow again, at the last folded
                      ** sequence; nothing more comes for this shard until then */
};
struct mm_delivery {
    enum mm_delivery_kind kind;
    int shard;
    int64_t seq;         /* stream sequence */
    int64_t time_ns;     /* the server's stamp: when it stored the message, since 1970 */
    int64_t pending;     /* messages of the stream behind this one, when it was sent */
    bool zstd;           /* Content-Encoding: zstd */
    const uint8_t *data; /* borrowed until mm_bus_release */
    size_t len;
    void *handle;
};
/* Takes the next delivery in order: 1 or 0. A message must be released. */
int mm_bus_next(struct mm_bus *b, struct mm_delivery *d);
void mm_bus_release(struct mm_delivery *d);

#endif
