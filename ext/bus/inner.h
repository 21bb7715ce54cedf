/* What the files of the bus share; nobody outside ext/bus includes it.
**
** Threads: the one that owns the struct mm_bus. Only the event loop's state
** (struct mm_loop) has a lock: the library may call back from a thread of its
** own, though none of its timers are in use here. */
#ifndef MM_BUS_INNER_H
#define MM_BUS_INNER_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"
#include "bus/nats_api.h"

#define MM_BUS_HEARTBEAT_MS 5000             /* of consumers: below it elections look like losses */
#define MM_BUS_HEARTBEATS_MISSED 2           /* then the consumer counts as gone */
#define MM_BUS_IO_BYTES (128 * 1024)         /* one socket read; above a TLS record, so nothing stays behind in it */
#define MM_BUS_CATCH_UP_READS 512            /* after an absence: 64 MB, more than flow control lets be under way */
#define MM_BUS_FOLLOWS_MAX 256               /* shards followed by one connection */
#define MM_BUS_ANSWER_MAX (64 * 1024 * 1024) /* bytes of JSON looked at: a stored message and its base64 */

#define MM_BUS_UNACKED_MAX 65536 /* messages published and not acknowledged: bounds the send buffer */

/* Tokens of the messages without acknowledgement, in the order of sending. */
struct mm_unacked {
    uint64_t *tokens; /* ring of MM_BUS_UNACKED_MAX */
    bool *done;
    size_t head, count;
};

struct mm_loop {
    int epoll_fd;
    pthread_mutex_t lock;
    int fd; /* the socket, -1 when detached */
    uint32_t events;
    bool registered;
};

struct mm_follow {
    int shard;
    natsSubscription *sub; /* NULL: lost, or never started */
    natsMsg *head;         /* the next message, taken from sub, not by the owner yet */
    struct mm_delivery next;
    bool lost;            /* to be reported */
    int64_t consumer_seq; /* of the last message popped */
    int64_t stream_seq;   /* the same, 0 before the first */
    int64_t heard_ms;
};

struct mm_bus_copy { /* the options, owned */
    char *name, *user, *password, *token, *seed_file, *creds_file, *ca_file, *cert_file, *key_file, *domain;
    char **urls;
    int url_count;
    char *url_text;
};

struct mm_bus {
    const struct mm_nats_api *api;
    struct mm_bus_copy opt;
    int connect_timeout_ms;
    int ping_interval_ms;
    int extra_fd;
    char prefix[128]; /* "$JS.API." or "$JS.<domain>.API." */

    struct mm_loop loop;
    natsConnection *conn; /* NULL when not connected */
    char url[256];
    size_t max_payload;
    natsInbox *inbox;
    natsSubscription *acks;    /* <inbox>.a.<token> */
    natsSubscription *answers; /* <inbox>.r.<number> */
    natsSubscription *told;    /* NULL: not listening */
    natsMsg *told_message;     /* the one that was taken last */
    struct mm_unacked unacked;
    uint64_t request_number;
    uint64_t follow_number;
    int64_t looked_ms; /* when the socket was last looked at */
    int64_t heard_ms;  /* when it last had something */
    bool pinged;
    bool busy; /* the last look read something */

    struct mm_follow follows[MM_BUS_FOLLOWS_MAX];
    int follow_count;
    int follow_turn; /* where mm_bus_next begins: no shard starves another */
};

/* --- options.c --- */
void mm_options_copy(struct mm_bus *b, const struct mm_bus_options *o, struct mm_err *err);
void mm_options_free(struct mm_bus_copy *c);
natsOptions *mm_options_make(struct mm_bus *b, struct mm_err *err); /* destroy it; NULL with err */
/* Sets err from the library's last words: SQLITE_AUTH or SQLITE_CANTOPEN. Returns err->rc. */
int mm_options_fail(struct mm_bus *b, natsStatus s, const char *what, struct mm_err *err);
void mm_bus_redact(char *text); /* cuts userinfo out of every URL in the text */

/* --- loop.c --- */
int mm_loop_open(struct mm_loop *l, int extra_fd, struct mm_err *err);
void mm_loop_close(struct mm_loop *l);
void mm_loop_mute(struct mm_loop *l, int extra_fd, bool mute); /* stops looking at extra_fd */
natsStatus mm_loop_attach(void **user, void *loop, natsConnection *conn, natsSock fd);
natsStatus mm_loop_read(void *user, bool add);
natsStatus mm_loop_write(void *user, bool add);
natsStatus mm_loop_detach(void *user);

/* One look at the socket, waiting at most timeout_ms. A connection that is
** found lost is taken down. Returns err->rc; *extra tells of extra_fd. */
int mm_bus_turn(struct mm_bus *b, int timeout_ms, bool *extra, struct mm_err *err);

/* --- request.c --- */
/* Sends and waits for the answer: the message (destroy it), or NULL with err
** set. `headers` are pairs of name and value, NULL-terminated, or NULL. */
natsMsg *mm_bus_request(struct mm_bus *b, const char *subject, const char *const *headers, const void *data, size_t len,
                        int timeout_ms, struct mm_err *err);

/* For a request with several answers: a number of its own, then the request to the JetStream API (`call` follows the
** prefix), as often as wanted; each answer in its turn (destroy it), NULL when none comes in time. */
uint64_t mm_bus_number(struct mm_bus *b);
int mm_bus_ask(struct mm_bus *b, uint64_t number, const char *call, const char *body, struct mm_err *err);
natsMsg *mm_bus_answer(struct mm_bus *b, uint64_t number, int timeout_ms, struct mm_err *err);

struct mm_answer {
    json_t *root; /* NULL on error */
    int code;     /* err_code of the server (10059 = no such stream), 0 = fine */
    char text[160];
};
/* A request to the JetStream API (`call` follows the prefix). Takes `body`
** (may be NULL). An error that the server reports is in *a, not in err. */
int mm_bus_api(struct mm_bus *b, const char *call, json_t *body, struct mm_answer *a, int timeout_ms,
               struct mm_err *err);
void mm_answer_free(struct mm_answer *a);
/* Reads one publish acknowledgement. */
void mm_bus_read_ack(const struct mm_bus *b, natsMsg *m, struct mm_ack *ack);
/* Sets err from an answer that is an error. Returns err->rc. */
int mm_answer_fail(const struct mm_answer *a, const char *what, struct mm_err *err);
int64_t mm_json_int(const json_t *o, const char *key);
/* "2026-01-31T12:00:00.123456789Z", up to nine digits behind the point; 0 when it is none. */
int64_t mm_json_time_ns(const json_t *o, const char *key);
const char *mm_json_str(const json_t *o, const char *key); /* "" when missing */

/* 1 and the newest (seq 0: of `subject`) or the numbered message as the
** server's JSON object (a->root's "message"), 0 when there is none. */
int mm_bus_get_message(struct mm_bus *b, const char *stream, int64_t seq, const char *subject, struct mm_answer *a,
                       int timeout_ms, struct mm_err *err);
/* base64 of the server to bytes with a NUL behind them; frees with free(). */
int mm_base64_bytes(const char *text, uint8_t **data, size_t *len, struct mm_err *err);

/* A name that becomes part of a subject: no blanks, dots, wildcards. */
int mm_bus_check_name(const char *what, const char *name, struct mm_err *err);
int mm_bus_lost(struct mm_bus *b, struct mm_err *err); /* "not connected", SQLITE_IOERR */
void mm_bus_redact(char *text);                        /* cuts userinfo out of every URL in the text */

/* --- follow.c --- */
void mm_follow_fill(struct mm_bus *b, struct mm_follow *f);
bool mm_follow_ready(const struct mm_follow *f);
void mm_follow_stop(struct mm_bus *b, struct mm_follow *f);

/* --- tell.c --- */
void mm_tell_stop(struct mm_bus *b);

/* --- nkey.c --- */
/* The public key ("U...", 56 characters) of the user seed in the file. */
int mm_nkey_public(const struct mm_nats_api *api, const char *seed_file, char out[57], struct mm_err *err);

#endif
