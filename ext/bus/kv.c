/* Key-value buckets by create and get alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sqlite.h"
#include "bus/inner.h"

enum { STREAM_OTHER_CONFIG = 10058 };

#define DUPLICATES_NS 120000000000LL /* the server's own default; never above max_age */

static int subject_of(const struct mm_bus *b, const char *bucket, const char *key, char *out, size_t size,
                      struct mm_err *err)
{
    size_t n = key != NULL ? strlen(key) : 0;
    if (mm_bus_check_name("the bucket name", bucket, err) != SQLITE_OK) {
        return err->rc;
    }
    if (n == 0 || n > 128 || strpbrk(key, " \t\r\n*>") != NULL || key[0] == '.' || key[n - 1] == '.') {
        return mm_err_set(err, SQLITE_MISUSE,
                          "a key of bucket %s must have 1 to 128 characters, without blanks, * and >", bucket);
    }
    /* With a domain the write goes by the domain's prefix, as other clients do:
    ** a leaf node may carry a bucket of the same name. */
    (void)snprintf(out, size, "%s$KV.%s.%s", b != NULL && b->opt.domain != NULL ? b->prefix : "", bucket, key);
    return SQLITE_OK;
}

int mm_bus_kv_open(struct mm_bus *b, const char *bucket, int replicas, int64_t max_age_ns, int timeout_ms,
                   struct mm_err *err)
{
    if (mm_bus_check_name("the bucket name", bucket, err) != SQLITE_OK) {
        return err->rc;
    }
    char stream[80];
    char subject[96];
    char call[128];
    (void)snprintf(stream, sizeof stream, "KV_%s", bucket);
    (void)snprintf(subject, sizeof subject, "$KV.%s.>", bucket);
    (void)snprintf(call, sizeof call, "STREAM.CREATE.%s", stream);
    struct mm_stream_info info;
    if (mm_bus_stream_info(b, stream, &info, timeout_ms, err) != 0 || err->rc != SQLITE_OK) {
        return err->rc;
    }
    int64_t window = max_age_ns > 0 && max_age_ns < DUPLICATES_NS ? max_age_ns : DUPLICATES_NS;
    json_t *body =
        json_pack("{s:s, s:[s], s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:i, s:i, s:s, s:I, s:b, s:b, s:b}", "name", stream,
                  "subjects", subject, "retention", "limits", "storage", "file", "max_msgs_per_subject", 1, "max_msgs",
                  -1, "max_bytes", -1, "max_msg_size", -1, "max_age", (json_int_t)max_age_ns, "max_consumers", -1,
                  "num_replicas", replicas > 0 ? replicas : 1, "discard", "new", "duplicate_window", (json_int_t)window,
                  "allow_rollup_hdrs", 1, "deny_delete", 1, "allow_direct", 1);
    if (body == NULL) {
        return mm_err_nomem(err);
    }
    struct mm_answer a;
    /* Another configuration: somebody made the bucket a moment ago. */
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK && a.code != 0 && a.code != STREAM_OTHER_CONFIG) {
        mm_answer_fail(&a, stream, err);
    }
    mm_answer_free(&a);
    return err->rc;
}

int mm_bus_kv_create(struct mm_bus *b, const char *bucket, const char *key, const void *data, size_t len,
                     int timeout_ms, struct mm_err *err)
{
    char subject[384];
    if (subject_of(b, bucket, key, subject, sizeof subject, err) != SQLITE_OK) {
        return 0;
    }
    static const char *const headers[] = { "Nats-Expected-Last-Subject-Sequence", "0", NULL };
    natsMsg *m = mm_bus_request(b, subject, headers, data, len, timeout_ms, err);
    if (m == NULL) {
        return 0;
    }
    struct mm_ack ack;
    mm_bus_read_ack(b, m, &ack);
    b->api->natsMsg_Destroy(m);
    switch (ack.kind) {
    case MM_ACK_STORED:
    case MM_ACK_DUPLICATE:
        return 1;
    case MM_ACK_EXPECTED:
        return 0;
    case MM_ACK_FULL:
    case MM_ACK_REFUSED:
        break;
    }
    mm_err_set(err, SQLITE_ERROR, "key %s of bucket %s cannot be created: %s (JetStream error %d)", key, bucket,
               ack.text, ack.code);
    return 0;
}

int mm_bus_kv_drop(struct mm_bus *b, const char *bucket, const char *key, int timeout_ms, struct mm_err *err)
{
    char subject[384];
    if (subject_of(NULL, bucket, key, subject, sizeof subject, err) != SQLITE_OK) {
        return err->rc;
    }
    json_t *body = json_pack("{s:s}", "filter", subject);
    if (body == NULL) {
        return mm_err_nomem(err);
    }
    char call[128];
    (void)snprintf(call, sizeof call, "STREAM.PURGE.KV_%s", bucket);
    struct mm_answer a;
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK && a.code != 0) {
        mm_answer_fail(&a, key, err);
    }
    mm_answer_free(&a);
    return err->rc;
}

/* A deleted key leaves a marker whose headers say so. */
static bool is_marker(const json_t *message)
{
    struct mm_err ignored;
    mm_err_init(&ignored);
    uint8_t *headers = NULL;
    size_t len = 0;
    const char *text = mm_json_str(message, "hdrs");
    if (text[0] == '\0' || mm_base64_bytes(text, &headers, &len, &ignored) != SQLITE_OK) {
        return false;
    }
    bool marker = strstr((const char *)headers, "KV-Operation:") != NULL;
    free(headers);
    return marker;
}

int mm_bus_kv_get(struct mm_bus *b, const char *bucket, const char *key, char **value, size_t *len, int timeout_ms,
                  struct mm_err *err)
{
    *value = NULL;
    *len = 0;
    char subject[384];
    if (subject_of(NULL, bucket, key, subject, sizeof subject, err) != SQLITE_OK) {
        return 0;
    }
    char stream[80];
    (void)snprintf(stream, sizeof stream, "KV_%s", bucket);
    struct mm_answer a;
    uint8_t *data = NULL;
    int found = mm_bus_get_message(b, stream, 0, subject, &a, timeout_ms, err);
    const json_t *m = json_object_get(a.root, "message");
    if (found != 0 && strcmp(mm_json_str(m, "subject"), subject) != 0) {
        mm_err_set(err, SQLITE_PROTOCOL, "the NATS server sent another key than %s of bucket %s", key, bucket);
        found = 0;
    }
    if (found != 0 && is_marker(m)) {
        found = 0;
    }
    if (found != 0) {
        found = mm_base64_bytes(mm_json_str(m, "data"), &data, len, err) == SQLITE_OK;
        *value = (char *)data;
    }
    mm_answer_free(&a);
    return found;
}
