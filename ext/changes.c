#include "changes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sigpipe.h"
#include "base/sqlite.h"
#include "connecting.h"
#include "repl/open.h"

enum { ANSWER_MS = 3000, MESSAGE_MS = 10000, TRIES = 3 };

struct mm_changes {
    struct mm_bus *bus;
    char stream[256];
    int64_t next_seq, end; /* of the stream when it was opened */
    bool following;
    int tries;
    struct mm_delivery d;
    bool held; /* d is to be released */
    struct mm_arena arena;
    struct mm_msg msg;
    struct mm_txn txn; /* put together from parts */
    struct mm_err bad;
    struct mm_changes_parts *parts;
    struct mm_changes_cursor cursor;
};

struct mm_changes *mm_changes_open(const struct mm_config *config, int64_t shard, int64_t from_seq, struct mm_err *err)
{
    char subject[256];
    struct mm_sigpipe pipe;
    struct mm_stream_info info;
    struct mm_repl_options names = { .stream_prefix = config->nats.stream_prefix,
                                     .subject_prefix = config->nats.subject_prefix,
                                     .compress = config->log.compress };
    if (shard < 1 || shard > config->log.shards) {
        mm_err_set(err, SQLITE_ERROR, "there is no shard %lld: give 1 to %lld", (long long)shard,
                   (long long)config->log.shards);
        return NULL;
    }
    if (from_seq < 1) {
        mm_err_set(err, SQLITE_ERROR, "no message has the sequence %lld: give 1 or more", (long long)from_seq);
        return NULL;
    }
    struct mm_changes *c = calloc(1, sizeof *c);
    if (c == NULL) {
        mm_err_nomem(err);
        return NULL;
    }
    c->next_seq = from_seq;
    mm_changes_cursor_init(&c->cursor);
    mm_arena_init(&c->arena, MM_CHANGES_ARENA_MAX);
    mm_repl_name_shard(&names, (int)shard, c->stream, subject);
    mm_sigpipe_begin(&pipe);
    c->bus = mm_connecting_open(config, "marmot-reader", err);
    if (c->bus != NULL && mm_bus_stream_info(c->bus, c->stream, &info, ANSWER_MS, err)) {
        c->next_seq = from_seq < info.first_seq ? info.first_seq : from_seq;
        c->end = info.last_seq;
    }
    if (err->rc == SQLITE_OK) {
        c->parts = mm_changes_parts_open(c->next_seq <= 1, err);
    }
    mm_sigpipe_end(&pipe);
    if (err->rc != SQLITE_OK) {
        mm_changes_close(c);
        return NULL;
    }
    return c;
}

static void let_go(struct mm_changes *c)
{
    if (c->held) {
        mm_bus_release(&c->d);
        c->held = false;
    }
    mm_arena_free(&c->arena);
}

void mm_changes_close(struct mm_changes *c)
{
    if (c == NULL) {
        return;
    }
    let_go(c);
    mm_changes_parts_close(c->parts);
    mm_changes_cursor_free(&c->cursor);
    mm_bus_close(c->bus);
    free(c);
}

/* (Re)connects and follows from the next message on. */
static void follow(struct mm_changes *c, struct mm_err *err)
{
    if (c->following && mm_bus_connected(c->bus)) {
        return;
    }
    if (++c->tries > TRIES) {
        mm_err_set(err, SQLITE_IOERR,
                   "stream %s was lost %d times at message %lld: see whether the NATS server is well", c->stream, TRIES,
                   (long long)c->next_seq);
        return;
    }
    if (!mm_bus_connected(c->bus)) {
        mm_bus_connect(c->bus, err);
    }
    mm_bus_follow(c->bus, c->stream, 1, c->next_seq, ANSWER_MS, err);
    c->following = err->rc == SQLITE_OK;
}

/* The next message into c->d; false at the end or with err set. */
static bool fetch(struct mm_changes *c, struct mm_err *err)
{
    int64_t until = mm_clock_mono_ms() + MESSAGE_MS;
    while (err->rc == SQLITE_OK && c->next_seq <= c->end) {
        follow(c, err);
        if (err->rc != SQLITE_OK) {
            return false;
        }
        if (mm_bus_next(c->bus, &c->d)) {
            c->held = c->d.kind == MM_DELIVERY_MESSAGE;
            c->following = c->held;
            if (c->held && c->d.seq <= c->end) {
                c->next_seq = c->d.seq + 1;
                c->tries = 0;
                return true;
            }
            if (c->held) { /* all that was there at the opening is gone from the stream */
                return false;
            }
            continue;
        }
        int64_t left = until - mm_clock_mono_ms();
        if (left <= 0) {
            mm_err_set(err, SQLITE_BUSY,
                       "message %lld of stream %s did not come within %d s: see whether the NATS server "
                       "is well",
                       (long long)c->next_seq, c->stream, MESSAGE_MS / 1000);
            return false;
        }
        mm_bus_wait(c->bus, (int)left, err);
    }
    return false;
}

/* A part that is not the last one has no rows. */
static void start_part(struct mm_changes *c, const struct mm_changes_whole *whole, struct mm_err *err)
{
    if (whole->why != NULL) {
        mm_changes_cursor_start(&c->cursor, &c->msg, NULL, whole->op, whole->why);
    }
    if (whole->data == NULL) {
        return;
    }
    c->txn = (struct mm_txn){ .arena = &c->arena };
    if (mm_wire_decode_txn(&c->txn, whole->data->data, whole->data->len, &c->arena, &c->bad) == SQLITE_NOMEM) {
        mm_err_nomem(err);
    } else if (c->bad.rc != SQLITE_OK) {
        mm_changes_cursor_start(&c->cursor, &c->msg, NULL, "malformed", c->bad.msg);
    } else {
        mm_changes_parts_good(c->parts, &c->msg, err);
        mm_changes_cursor_start(&c->cursor, &c->msg, &c->txn, NULL, NULL);
    }
}

static void start_message(struct mm_changes *c, struct mm_err *err)
{
    memset(&c->msg, 0, sizeof c->msg);
    mm_err_init(&c->bad);
    mm_wire_decode(&c->msg, c->d.data, c->d.len, c->d.zstd, &c->arena, &c->bad);
    if (c->bad.rc == SQLITE_NOMEM) {
        mm_err_nomem(err);
        return;
    }
    if (c->bad.rc != SQLITE_OK) {
        bool newer = c->bad.rc == SQLITE_MISMATCH;
        if (newer) {
            mm_changes_parts_unknown(c->parts);
        }
        memset(&c->msg, 0, sizeof c->msg);
        mm_changes_cursor_start(&c->cursor, &c->msg, NULL, newer ? "newer" : "malformed", c->bad.msg);
        return;
    }
    struct mm_changes_whole whole;
    if (mm_changes_parts_take(c->parts, &c->msg, &whole, err) != SQLITE_OK) {
        return;
    }
    if (c->msg.kind == MM_MSG_PART) {
        start_part(c, &whole, err);
    } else {
        mm_changes_cursor_start(&c->cursor, &c->msg, c->msg.kind == MM_MSG_TXN ? &c->msg.txn : NULL, NULL, NULL);
    }
}

bool mm_changes_next(struct mm_changes *c, struct mm_changes_row *row, struct mm_err *err)
{
    while (err->rc == SQLITE_OK) {
        if (mm_changes_cursor_next(&c->cursor, row, err)) {
            row->seq = c->d.seq;
            row->node = c->msg.node;
            row->at_ms = c->msg.at_ms != 0 ? c->msg.at_ms : c->d.time_ns / 1000000;
            return true;
        }
        struct mm_sigpipe pipe;
        let_go(c);
        mm_sigpipe_begin(&pipe);
        bool came = err->rc == SQLITE_OK && fetch(c, err);
        mm_sigpipe_end(&pipe);
        if (!came) {
            return false;
        }
        start_message(c, err);
    }
    return false;
}
