#include "bus/object.h"

#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "bus/inner.h"

#define WINDOW 16   /* chunks under way: 2 MiB of memory here */
#define LOOK_MS 200 /* one look at the socket */
#define SUBJECTS_MAX 10000

enum { BUCKET_ABSENT = 10059, OTHER_CONFIG = 10058, STREAM_FULL = 10077, SERVER_FULL = 10023, SERVER_FULL_TOO = 10047 };

static void base64url(const uint8_t *data, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v =
            (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) | (left > 2 ? data[i + 2] : 0);
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = left > 1 ? digits[v >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[v & 63] : '=';
    }
    *out = '\0';
}

static int names_of(const char *bucket, const char *name, char stream[80], char meta[512], struct mm_err *err)
{
    char coded[400];
    if (mm_bus_check_name("the bucket name", bucket, err) != SQLITE_OK || strlen(name) > 255) {
        return mm_err_set(err, SQLITE_MISUSE, "an object's name is longer than 255 bytes");
    }
    base64url((const uint8_t *)name, strlen(name), coded);
    (void)snprintf(stream, 80, "OBJ_%s", bucket);
    (void)snprintf(meta, 512, "$O.%s.M.%s", bucket, coded);
    return SQLITE_OK;
}

/* 22 letters and digits that are never the same twice. */
static int make_nuid(char out[23], struct mm_err *err)
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint8_t random[22];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        return mm_err_set(err, SQLITE_CANTOPEN, "no random numbers from the system");
    }
    for (size_t i = 0; i < sizeof random; i++) {
        out[i] = digits[random[i] % 62];
    }
    out[22] = '\0';
    return SQLITE_OK;
}

static int refused(const struct mm_ack *ack, struct mm_err *err)
{
    bool full = ack->kind == MM_ACK_FULL || ack->code == STREAM_FULL || ack->code == SERVER_FULL ||
                ack->code == SERVER_FULL_TOO;
    if (ack->code == 503) {
        return mm_err_set(err, SQLITE_IOERR, "the bucket takes nothing now: %s", ack->text);
    }
    return mm_err_set(err, full ? SQLITE_FULL : SQLITE_ERROR, "%s: %s (JetStream error %d)%s",
                      full ? "no room there" : "the server takes no more", ack->text, ack->code,
                      full ? "; make room, or raise the limits of the server's jetstream block" : "");
}

int mm_object_bucket(struct mm_bus *b, const char *bucket, int replicas, int timeout_ms, struct mm_err *err)
{
    char stream[80];
    char meta[512];
    char chunks[96];
    char call[128];
    struct mm_stream_info info;
    if (names_of(bucket, "", stream, meta, err) != SQLITE_OK ||
        mm_bus_stream_info(b, stream, &info, timeout_ms, err) != 0 || err->rc != SQLITE_OK) {
        return err->rc;
    }
    (void)snprintf(chunks, sizeof chunks, "$O.%s.C.>", bucket);
    (void)snprintf(meta, sizeof meta, "$O.%s.M.>", bucket);
    (void)snprintf(call, sizeof call, "STREAM.CREATE.%s", stream);
    json_t *body = json_pack("{s:s, s:[s,s], s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:b, s:b}", "name",
                             stream, "subjects", chunks, meta, "retention", "limits", "storage", "file",
                             "max_msgs_per_subject", -1, "max_msgs", -1, "max_bytes", -1, "max_msg_size", -1, "max_age",
                             0, "max_consumers", -1, "num_replicas", replicas > 0 ? replicas : 1, "discard", "new",
                             "allow_rollup_hdrs", 1, "allow_direct", 1);
    if (body == NULL) {
        return mm_err_nomem(err);
    }
    struct mm_answer a;
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK && a.code != 0 && a.code != OTHER_CONFIG) {
        mm_answer_fail(&a, stream, err);
    }
    mm_answer_free(&a);
    return err->rc;
}

/* The description in a stored message of the API. */
static int read_description(const json_t *message, struct mm_object_info *info, struct mm_err *err)
{
    uint8_t *text = NULL;
    size_t len = 0;
    *info = (struct mm_object_info){ .time_ms = mm_json_time_ns(message, "time") / 1000000 };
    if (mm_base64_bytes(mm_json_str(message, "data"), &text, &len, err) != SQLITE_OK) {
        return err->rc;
    }
    json_t *o = json_loadb((const char *)text, len, 0, NULL);
    const char *digest = mm_json_str(o, "digest");
    (void)snprintf(info->name, sizeof info->name, "%s", mm_json_str(o, "name"));
    (void)snprintf(info->nuid, sizeof info->nuid, "%s", mm_json_str(o, "nuid"));
    (void)snprintf(info->digest, sizeof info->digest, "%s", strncmp(digest, "SHA-256=", 8) == 0 ? digest + 8 : "");
    info->size = mm_json_int(o, "size");
    info->chunks = mm_json_int(o, "chunks");
    info->deleted = json_is_true(json_object_get(o, "deleted"));
    info->link = json_is_object(json_object_get(json_object_get(o, "options"), "link"));
    if (!json_is_object(o) || info->name[0] == '\0' || info->size < 0 ||
        (!info->link && mm_bus_check_name("the nuid of an object", info->nuid, err) != SQLITE_OK)) {
        mm_err_set(err, SQLITE_CORRUPT, "the description of an object is none");
    }
    json_decref(o);
    free(text);
    return err->rc;
}

int mm_object_look(struct mm_bus *b, const char *bucket, const char *name, struct mm_object_info *info, int timeout_ms,
                   struct mm_err *err)
{
    char stream[80];
    char meta[512];
    struct mm_answer a;
    if (err->rc != SQLITE_OK || names_of(bucket, name, stream, meta, err) != SQLITE_OK) {
        return 0;
    }
    int found = mm_bus_get_message(b, stream, 0, meta, &a, timeout_ms, err);
    if (found != 0) {
        found = read_description(json_object_get(a.root, "message"), info, err) == SQLITE_OK;
    }
    mm_answer_free(&a);
    return found;
}

static int describe(struct mm_bus *b, const char *bucket, const struct mm_object_info *info, int timeout_ms,
                    struct mm_err *err)
{
    static const char *const rollup[] = { "Nats-Rollup", "sub", NULL };
    char stream[80];
    char meta[512];
    char digest[80];
    if (names_of(bucket, info->name, stream, meta, err) != SQLITE_OK) {
        return err->rc;
    }
    (void)snprintf(digest, sizeof digest, "SHA-256=%s", info->digest);
    json_t *o = json_pack("{s:s, s:{s:i}, s:s, s:s, s:I, s:s, s:I}", "name", info->name, "options", "max_chunk_size",
                          MM_OBJECT_CHUNK, "bucket", bucket, "nuid", info->nuid, "size", (json_int_t)info->size,
                          "mtime", "0001-01-01T00:00:00Z", "chunks", (json_int_t)info->chunks);
    if (o != NULL) {
        (void)(info->deleted ? json_object_set_new(o, "deleted", json_true())
                             : json_object_set_new(o, "digest", json_string(digest)));
    }
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (text == NULL) {
        return mm_err_nomem(err);
    }
    natsMsg *m = mm_bus_request(b, meta, rollup, text, strlen(text), timeout_ms, err);
    free(text);
    if (m != NULL) {
        struct mm_ack ack;
        mm_bus_read_ack(b, m, &ack);
        b->api->natsMsg_Destroy(m);
        if (ack.kind != MM_ACK_STORED && ack.kind != MM_ACK_DUPLICATE) {
            refused(&ack, err);
        }
    }
    return err->rc;
}

static int purge(struct mm_bus *b, const char *bucket, const char *nuid, int timeout_ms, struct mm_err *err)
{
    char call[128];
    char subject[256];
    struct mm_answer a;
    (void)snprintf(call, sizeof call, "STREAM.PURGE.OBJ_%s", bucket);
    (void)snprintf(subject, sizeof subject, "$O.%s.C.%s", bucket, nuid);
    json_t *body = json_pack("{s:s}", "filter", subject);
    if (body == NULL) {
        return mm_err_nomem(err);
    }
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK && a.code != 0) {
        mm_answer_fail(&a, call, err);
    }
    mm_answer_free(&a);
    return err->rc;
}

/* Takes acknowledgements until at most `most` chunks are without. */
static void settle(struct mm_bus *b, int64_t sent, int64_t *acked, int64_t most, size_t chunk, int64_t size,
                   const struct mm_object_io *io, struct mm_err *err)
{
    while (sent - *acked > most && err->rc == SQLITE_OK) {
        struct mm_ack ack;
        if (mm_bus_next_ack(b, &ack) != 0) {
            if (ack.kind != MM_ACK_STORED && ack.kind != MM_ACK_DUPLICATE) {
                refused(&ack, err);
                return;
            }
            int64_t done = ++*acked * (int64_t)chunk;
            (void)io->moved(io->arg, done < size ? done : size, err);
        } else if (!mm_bus_connected(b)) {
            mm_bus_lost(b, err);
        } else if (io->waits(io->arg, err)) {
            mm_bus_wait(b, LOOK_MS, err);
        }
    }
}

int mm_object_put(struct mm_bus *b, const char *bucket, const char *name, int64_t size, const struct mm_object_io *io,
                  int timeout_ms, struct mm_err *err)
{
    struct mm_object_info old;
    struct mm_object_info info = { .size = size };
    char subject[256];
    int had = mm_object_look(b, bucket, name, &old, timeout_ms, err);
    size_t room = mm_bus_max_payload(b);
    size_t chunk = room > MM_OBJECT_CHUNK + 1024 ? MM_OBJECT_CHUNK : room > 2048 ? room - 1024 : 1024;
    uint8_t *data = err->rc == SQLITE_OK ? malloc(chunk) : NULL;
    if (data == NULL) {
        return err->rc != SQLITE_OK ? err->rc : mm_err_nomem(err);
    }
    struct sha256_ctx sum;
    uint8_t digest[SHA256_DIGEST_SIZE];
    int64_t acked = 0;
    sha256_init(&sum);
    make_nuid(info.nuid, err);
    (void)snprintf(info.name, sizeof info.name, "%s", name);
    (void)snprintf(subject, sizeof subject, "$O.%s.C.%s", bucket, info.nuid);
    for (int64_t at = 0; at < size && err->rc == SQLITE_OK;) {
        size_t n = size - at < (int64_t)chunk ? (size_t)(size - at) : chunk;
        if (io->read(io->arg, at, data, n, err)) {
            sha256_update(&sum, n, data);
            struct mm_publish p = {
                .subject = subject, .expect_last = -1, .data = data, .len = n, .token = (uint64_t)info.chunks
            };
            mm_bus_publish(b, &p, err);
            at += (int64_t)n;
            info.chunks++;
            settle(b, info.chunks, &acked, WINDOW - 1, chunk, size, io, err);
        }
    }
    free(data);
    settle(b, info.chunks, &acked, 0, chunk, size, io, err);
    sha256_digest(&sum, sizeof digest, digest);
    base64url(digest, sizeof digest, info.digest);
    if (err->rc == SQLITE_OK) {
        describe(b, bucket, &info, timeout_ms, err);
    }
    struct mm_err ignored; /* what is left takes room only, and is swept */
    mm_err_init(&ignored);
    if (err->rc != SQLITE_OK && mm_bus_connected(b) && info.chunks > 0) {
        (void)purge(b, bucket, info.nuid, timeout_ms, &ignored);
    } else if (err->rc == SQLITE_OK && had != 0 && !old.deleted && !old.link && old.chunks > 0) {
        (void)purge(b, bucket, old.nuid, timeout_ms, &ignored);
    }
    return err->rc;
}

int mm_object_remove(struct mm_bus *b, const char *bucket, const struct mm_object_info *info, int timeout_ms,
                     struct mm_err *err)
{
    struct mm_object_info gone = { .deleted = true };
    memcpy(gone.name, info->name, sizeof gone.name);
    memcpy(gone.nuid, info->nuid, sizeof gone.nuid);
    if (describe(b, bucket, &gone, timeout_ms, err) == SQLITE_OK && !info->link && info->chunks > 0) {
        purge(b, bucket, info->nuid, timeout_ms, err);
    }
    return err->rc;
}

/* --- Reading: a pull consumer, asked for a few chunks at a time. --- */

static int make_consumer(struct mm_bus *b, const char *bucket, const char *nuid, char name[128], int timeout_ms,
                         struct mm_err *err)
{
    char call[128];
    char stream[80];
    char subject[256];
    struct mm_answer a;
    (void)snprintf(stream, sizeof stream, "OBJ_%s", bucket);
    (void)snprintf(call, sizeof call, "CONSUMER.CREATE.%s", stream);
    (void)snprintf(subject, sizeof subject, "$O.%s.C.%s", bucket, nuid);
    json_t *body =
        json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:b, s:i, s:I}}", "stream_name", stream, "config", "deliver_policy",
                  "all", "ack_policy", "none", "replay_policy", "instant", "filter_subject", subject, "mem_storage", 1,
                  "num_replicas", 1, "inactive_threshold", (json_int_t)60 * 1000000000);
    if (body == NULL) {
        return mm_err_nomem(err);
    }
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK) {
        (void)snprintf(name, 128, "%s", mm_json_str(a.root, "name"));
        if (a.code != 0) {
            mm_answer_fail(&a, stream, err);
        } else {
            mm_bus_check_name("the consumer's name", name, err);
        }
    }
    mm_answer_free(&a);
    return err->rc;
}

/* One message of the answer to a pull: its bytes go on, a status line (time is up, nothing left) does not count. */
static void take_chunk(struct mm_bus *b, natsMsg *m, struct sha256_ctx *sum, int64_t *got, int64_t *chunks,
                       const struct mm_object_io *io, struct mm_err *err)
{
    const char *status = NULL;
    int len = b->api->natsMsg_GetDataLength(m);
    if (len == 0 && b->api->natsMsgHeader_Get(m, "Status", &status) == NATS_OK && status != NULL) {
        if (strcmp(status, "404") != 0 && strcmp(status, "408") != 0) {
            mm_err_set(err, SQLITE_IOERR, "the server ends the download (status %.20s)", status);
        }
        return;
    }
    const void *data = b->api->natsMsg_GetData(m);
    sha256_update(sum, (size_t)len, data);
    *got += len;
    ++*chunks;
    (void)io->write(io->arg, data, (size_t)len, err);
}

int mm_object_get(struct mm_bus *b, const char *bucket, const struct mm_object_info *info,
                  const struct mm_object_io *io, int timeout_ms, struct mm_err *err)
{
    struct sha256_ctx sum;
    uint8_t digest[SHA256_DIGEST_SIZE];
    char text[64];
    char consumer[128] = "";
    char call[320];
    int64_t got = 0;
    int64_t chunks = 0;
    int64_t asked_ms = 0;
    sha256_init(&sum);
    if (info->size > 0 && make_consumer(b, bucket, info->nuid, consumer, timeout_ms, err) == SQLITE_OK) {
        uint64_t number = mm_bus_number(b);
        int64_t asked = 0;
        (void)snprintf(call, sizeof call, "CONSUMER.MSG.NEXT.OBJ_%s.%s", bucket, consumer);
        while (got < info->size && err->rc == SQLITE_OK) {
            /* Again when half has come, or when an answer is overdue: the server forgets what it was asked. */
            if (asked - chunks <= WINDOW / 2 || mm_clock_mono_ms() - asked_ms > 5000) {
                asked = chunks + WINDOW;
                asked_ms = mm_clock_mono_ms();
                mm_bus_ask(b, number, call, "{\"batch\":16,\"expires\":4000000000}", err);
            }
            natsMsg *m = mm_bus_answer(b, number, LOOK_MS, err);
            if (m != NULL) {
                take_chunk(b, m, &sum, &got, &chunks, io, err);
                b->api->natsMsg_Destroy(m);
            } else if (err->rc == SQLITE_OK) {
                (void)io->waits(io->arg, err);
            }
        }
    }
    sha256_digest(&sum, sizeof digest, digest);
    base64url(digest, sizeof digest, text);
    if (err->rc == SQLITE_OK && (got != info->size || (info->digest[0] != '\0' && strcmp(text, info->digest) != 0))) {
        mm_err_set(err, SQLITE_CORRUPT, "its %lld bytes are not those that were stored (SHA-256 differs)",
                   (long long)got);
    }
    if (consumer[0] != '\0' && mm_bus_connected(b)) {
        struct mm_err ignored;
        struct mm_answer a;
        mm_err_init(&ignored);
        (void)snprintf(call, sizeof call, "CONSUMER.DELETE.OBJ_%s.%s", bucket, consumer);
        (void)mm_bus_api(b, call, NULL, &a, timeout_ms, &ignored);
        mm_answer_free(&a);
    }
    return err->rc;
}

/* --- Listing. --- */

/* The subjects that the bucket holds; NULL for none, or with err set. */
static json_t *subjects_of(struct mm_bus *b, const char *bucket, const char *kind, int timeout_ms, struct mm_err *err)
{
    char call[128];
    char filter[96];
    struct mm_answer a;
    json_t *subjects = NULL;
    (void)snprintf(call, sizeof call, "STREAM.INFO.OBJ_%s", bucket);
    (void)snprintf(filter, sizeof filter, "$O.%s.%s.>", bucket, kind);
    json_t *body = json_pack("{s:s}", "subjects_filter", filter);
    if (body == NULL || mm_bus_check_name("the bucket name", bucket, err) != SQLITE_OK) {
        json_decref(body);
        mm_err_nomem(err);
        return NULL;
    }
    if (mm_bus_api(b, call, body, &a, timeout_ms, err) == SQLITE_OK && a.code != BUCKET_ABSENT) {
        if (a.code != 0) {
            mm_answer_fail(&a, bucket, err);
        } else {
            subjects = json_incref(json_object_get(json_object_get(a.root, "state"), "subjects"));
        }
    }
    mm_answer_free(&a);
    if (json_object_size(subjects) > SUBJECTS_MAX) {
        mm_err_set(err, SQLITE_TOOBIG, "bucket %s holds more than %d objects", bucket, SUBJECTS_MAX);
    }
    return subjects;
}

int mm_object_each(struct mm_bus *b, const char *bucket,
                   bool (*f)(void *arg, const struct mm_object_info *info, struct mm_err *err), void *arg,
                   int timeout_ms, struct mm_err *err)
{
    char stream[80];
    json_t *subjects = subjects_of(b, bucket, "M", timeout_ms, err);
    (void)snprintf(stream, sizeof stream, "OBJ_%s", bucket);
    const char *subject;
    json_t *count;
    json_object_foreach(subjects, subject, count)
    {
        struct mm_object_info info;
        struct mm_answer a;
        if (err->rc == SQLITE_OK && mm_bus_get_message(b, stream, 0, subject, &a, timeout_ms, err) != 0) {
            if (read_description(json_object_get(a.root, "message"), &info, err) == SQLITE_OK && !info.deleted) {
                (void)f(arg, &info, err);
            }
            mm_answer_free(&a);
        }
    }
    json_decref(subjects);
    return err->rc;
}

static bool forget_nuid(void *arg, const struct mm_object_info *info, struct mm_err *err)
{
    char subject[256];
    json_t *const *left = arg;
    const char *first = json_object_iter_key(json_object_iter(*left));
    const char *dot = first != NULL ? strrchr(first, '.') : NULL;
    if (dot != NULL) {
        (void)snprintf(subject, sizeof subject, "%.*s.%s", (int)(dot - first), first, info->nuid);
        (void)json_object_del(*left, subject);
    }
    return err->rc == SQLITE_OK;
}

int mm_object_sweep(struct mm_bus *b, const char *bucket, int64_t before_ms, int timeout_ms, struct mm_err *err)
{
    char stream[80];
    json_t *left = subjects_of(b, bucket, "C", timeout_ms, err);
    mm_object_each(b, bucket, forget_nuid, &left, timeout_ms, err);
    (void)snprintf(stream, sizeof stream, "OBJ_%s", bucket);
    const char *subject;
    json_t *count;
    json_object_foreach(left, subject, count)
    {
        struct mm_answer a;
        if (err->rc == SQLITE_OK && mm_bus_get_message(b, stream, 0, subject, &a, timeout_ms, err) != 0) {
            int64_t last = mm_json_time_ns(json_object_get(a.root, "message"), "time") / 1000000;
            if (last > 0 && last < before_ms) {
                purge(b, bucket, strrchr(subject, '.') + 1, timeout_ms, err);
            }
            mm_answer_free(&a);
        }
    }
    json_decref(left);
    return err->rc;
}
