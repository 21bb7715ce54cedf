/* Streams: what the JetStream API says of them, and single stored messages. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "bus/inner.h"

enum { STREAM_NOT_FOUND = 10059, MESSAGE_NOT_FOUND = 10037, STREAM_OTHER_CONFIG = 10058, SUBJECT_TAKEN = 10065 };

static int read_info(const struct mm_answer *a, struct mm_stream_info *info, struct mm_err *err)
{
    const json_t *config = json_object_get(a->root, "config");
    const json_t *state = json_object_get(a->root, "state");
    if (!json_is_object(config) || !json_is_object(state)) {
        return mm_err_set(err, SQLITE_PROTOCOL, "the NATS server describes a stream without its state");
    }
    *info = (struct mm_stream_info){
        .first_seq = mm_json_int(state, "first_seq"),
        .last_seq = mm_json_int(state, "last_seq"),
        .messages = mm_json_int(state, "messages"),
        .bytes = mm_json_int(state, "bytes"),
    };
    (void)snprintf(info->created, sizeof info->created, "%s", mm_json_str(a->root, "created"));
    (void)snprintf(info->description, sizeof info->description, "%s", mm_json_str(config, "description"));
    if (strncmp(info->created, "0001-", 5) == 0) { /* the zero time: the server is in the middle of making it */
        return mm_err_set(err, SQLITE_BUSY, "the NATS server is still creating a stream: it is asked again");
    }
    if (info->first_seq < 0 || info->last_seq < 0 || info->messages < 0 || info->bytes < 0) {
        return mm_err_set(err, SQLITE_PROTOCOL, "the NATS server describes a stream with negative numbers");
    }
    return SQLITE_OK;
}

int mm_bus_stream_info(struct mm_bus *b, const char *stream, struct mm_stream_info *info, int timeout_ms,
                       struct mm_err *err)
{
    if (mm_bus_check_name("the stream name", stream, err) != SQLITE_OK) {
        return 0;
    }
    char call[128];
    (void)snprintf(call, sizeof call, "STREAM.INFO.%s", stream);
    struct mm_answer a;
    int found = 0;
    if (mm_bus_api(b, call, NULL, &a, timeout_ms, err) == SQLITE_OK && a.code != STREAM_NOT_FOUND) {
        if (a.code != 0) {
            mm_answer_fail(&a, stream, err);
        } else {
            found = read_info(&a, info, err) == SQLITE_OK;
        }
    }
    mm_answer_free(&a);
    return found;
}

int mm_bus_stream_create(struct mm_bus *b, const struct mm_stream_config *c, struct mm_stream_info *info,
                         int timeout_ms, struct mm_err *err)
{
    if (mm_bus_check_name("the stream name", c->name, err) != SQLITE_OK) {
        return 0;
    }
    /* deny_delete: a message taken out of the middle would be a gap for ever. */
    json_t *body =
        json_pack("{s:s, s:[s], s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:i, s:s, s:I, s:b}", "name", c->name,
                  "subjects", c->subject, "description", c->description != NULL ? c->description : "", "retention",
                  "limits", "storage", "file", "max_msgs", (json_int_t)c->max_msgs, "max_bytes",
                  (json_int_t)c->max_bytes, "max_msg_size", (json_int_t)c->max_msg_size, "max_age", (json_int_t)0,
                  "max_consumers", -1, "num_replicas", c->replicas > 0 ? c->replicas : 1, "discard",
                  c->discard_new ? "new" : "old", "duplicate_window", (json_int_t)c->duplicates_ns, "deny_delete", 1);
    if (body == NULL) {
        mm_err_nomem(err);
        return 0;
    }
    char call[128];
    (void)snprintf(call, sizeof call, "STREAM.CREATE.%s", c->name);
    struct mm_answer a;
    int made = 0;
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK && a.code != STREAM_OTHER_CONFIG &&
        a.code != SUBJECT_TAKEN) {
        if (a.code != 0) {
            mm_answer_fail(&a, c->name, err);
        } else {
            made = read_info(&a, info, err) == SQLITE_OK;
        }
    }
    mm_answer_free(&a);
    return made;
}

int mm_bus_stream_limits(struct mm_bus *b, const char *stream, int64_t max_bytes, int replicas, bool update,
                         int timeout_ms, struct mm_err *err)
{
    char call[128];
    struct mm_answer a;
    if (mm_bus_check_name("the stream name", stream, err) != SQLITE_OK) {
        return 0;
    }
    (void)snprintf(call, sizeof call, "STREAM.INFO.%s", stream);
    if (mm_bus_api(b, call, NULL, &a, timeout_ms, err) == SQLITE_OK && a.code != 0) {
        mm_answer_fail(&a, stream, err);
    }
    json_t *config = err->rc == SQLITE_OK ? json_object_get(a.root, "config") : NULL;
    int differs = config != NULL && (mm_json_int(config, "max_bytes") != max_bytes ||
                                     mm_json_int(config, "num_replicas") != (replicas > 0 ? replicas : 1));
    json_incref(config);
    mm_answer_free(&a);
    if (differs && update) {
        if (json_object_set_new(config, "max_bytes", json_integer(max_bytes)) != 0 ||
            json_object_set_new(config, "num_replicas", json_integer(replicas > 0 ? replicas : 1)) != 0) {
            mm_err_nomem(err);
        }
        (void)snprintf(call, sizeof call, "STREAM.UPDATE.%s", stream);
        if (mm_bus_api(b, call, json_incref(config), &a, timeout_ms, err) == SQLITE_OK && a.code != 0) {
            mm_answer_fail(&a, stream, err);
        }
        mm_answer_free(&a);
    }
    json_decref(config);
    return differs;
}

int mm_bus_stream_purge(struct mm_bus *b, const char *stream, int64_t seq, int timeout_ms, struct mm_err *err)
{
    if (mm_bus_check_name("the stream name", stream, err) != SQLITE_OK) {
        return err->rc;
    }
    json_t *body = json_pack("{s:I}", "seq", (json_int_t)seq);
    if (body == NULL) {
        return mm_err_nomem(err);
    }
    char call[128];
    (void)snprintf(call, sizeof call, "STREAM.PURGE.%s", stream);
    struct mm_answer a;
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK && a.code != 0) {
        mm_answer_fail(&a, stream, err);
    }
    mm_answer_free(&a);
    return err->rc;
}

int mm_bus_get_message(struct mm_bus *b, const char *stream, int64_t seq, const char *subject, struct mm_answer *a,
                       int timeout_ms, struct mm_err *err)
{
    struct mm_stream_info info;
    *a = (struct mm_answer){ 0 };
    /* Asked for a message of a stream that it is creating, a 2.9 server dies; asked what the stream holds, never. */
    if (!mm_bus_stream_info(b, stream, &info, timeout_ms, err) || info.messages == 0) {
        return 0;
    }
    json_t *body = seq > 0 ? json_pack("{s:I}", "seq", (json_int_t)seq) : json_pack("{s:s}", "last_by_subj", subject);
    if (body == NULL) {
        mm_err_nomem(err);
        return 0;
    }
    char call[128];
    (void)snprintf(call, sizeof call, "STREAM.MSG.GET.%s", stream);
    if (mm_bus_api(b, call, body, a, timeout_ms, err) != SQLITE_OK) {
        return 0;
    }
    if (a->code == MESSAGE_NOT_FOUND || a->code == STREAM_NOT_FOUND) {
        return 0;
    }
    if (a->code != 0) {
        mm_answer_fail(a, stream, err);
        return 0;
    }
    if (!json_is_object(json_object_get(a->root, "message"))) {
        mm_err_set(err, SQLITE_PROTOCOL, "the NATS server sent a stored message of %s without its content", stream);
        return 0;
    }
    return 1;
}

int mm_bus_stream_get(struct mm_bus *b, const char *stream, int64_t seq, struct mm_stored *m, int timeout_ms,
                      struct mm_err *err)
{
    *m = (struct mm_stored){ 0 };
    if (seq <= 0) {
        return 0;
    }
    struct mm_answer a;
    int found = mm_bus_get_message(b, stream, seq, NULL, &a, timeout_ms, err);
    if (found != 0) {
        const json_t *o = json_object_get(a.root, "message");
        m->time_ns = mm_json_time_ns(o, "time");
        if (mm_json_int(o, "seq") != seq) {
            mm_err_set(err, SQLITE_PROTOCOL, "the NATS server sent message %lld of %s when asked for %lld",
                       (long long)mm_json_int(o, "seq"), stream, (long long)seq);
            found = 0;
        } else {
            found = mm_base64_bytes(mm_json_str(o, "data"), &m->data, &m->len, err) == SQLITE_OK;
        }
    }
    mm_answer_free(&a);
    return found;
}
